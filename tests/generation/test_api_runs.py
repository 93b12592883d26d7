"""datagen.py over an API, generation and back-translation: what a spent quota and a kill leave, and what it costs."""

import itertools
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.attack.table import SELECTOR
from tests.support import api_server
from tests.support.api_server import KEY
from tests.support.processes import locked
from tests.support.runs import ROOT, contents, datagen, in_process, lines_in, records, script, signalled
from tests.support.writer import Writer, answer, command, digest
from topxgen.common.console import counted

pytestmark = pytest.mark.usefixtures("answers")


@pytest.mark.medium
def test_a_spent_quota_and_a_kill_lose_nothing_and_pay_nothing_twice(tmp_path):
    paid = Counter()
    answers, translated = tmp_path / "Basque_answers.jsonl", tmp_path / "writer-1" / "Basque_translate_answers.jsonl"

    # Generation, until the quota is spent.
    with Writer(quota=9) as server:
        result = datagen(*command(server, tmp_path), check=4)
        paid += server.given
    assert "quota or credit" in result.stderr and "re-run the same command to resume" in result.stderr
    assert "Traceback" not in result.stderr
    assert lines_in(answers) == paid.total() == 9

    # Again, killed while it back-translates.
    with Writer(delay=0.05) as server:
        datagen(*command(server, tmp_path), killed_at=(translated, 10))
        paid += server.given
        in_flight_at_the_kill = server.given.total() + 9 - lines_in(answers) - lines_in(translated)
    assert lines_in(tmp_path / "Basque.jsonl") == 40 and 0 <= in_flight_at_the_kill <= 6
    on_disk = lines_in(translated)

    # And to its end.
    with Writer() as server:
        result = datagen(*command(server, tmp_path))
        paid += server.given
        headers = server.headers
    assert all(header["authorization"] == f"Bearer {KEY}" for header in headers)
    assert lines_in(translated) > on_disk
    assert paid.total() - len(paid) <= in_flight_at_the_kill, "only what was on its way at the kill may be asked again"
    ids = [record["id"] for record in records(translated)]
    assert len(ids) == len(set(ids))
    sentences = [
        s for record in records(tmp_path / "writer-1" / "Basque_translate.jsonl") for s in record["propositions"]
    ]
    assert len(sentences) > 30
    written, shown = lines_in(answers), result.stdout
    assert (
        f"generate: {100 * written:,} prompt tokens, {50 * written:,} new tokens; {written * 0.0007:,.2f} USD" in shown
    )
    assert f"translate: {100 * len(ids):,} prompt tokens" in shown
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY not in path.read_text(encoding="utf-8"), path


def test_settings_of_a_run_that_left_nothing_are_replaced(tmp_path, datagen_here):
    """Unless another process is at work in the folder, which may be about to write by them."""
    refused = "holds results of other settings (temperature was"

    def run(server, temperature, *more):
        result = datagen_here(*command(server, tmp_path, "--temperature", temperature, *more))
        return result.returncode, result.stderr

    with Writer(quota=0) as server:
        assert run(server, 0.5)[0] == 4 and (tmp_path / "settings_generate.json").exists()
        with locked(tmp_path, "Hausa"):
            code, error = run(server, 0.6)
            assert code == 2 and refused in error
        answers_elsewhere = tmp_path / "Hausa_answers.jsonl"
        answers_elsewhere.symlink_to(tmp_path / "purged")
        code, error = run(server, 0.6)
        assert code == 2 and refused in error
        answers_elsewhere.unlink()
    with Writer() as server:
        code, error = run(server, 0.6, "--stages", "generate", "--number_of_instructions", 2)
        assert code == 0 and "holds no results yet: its settings are replaced (temperature was" in error
        code, error = run(server, 0.5)
        assert code == 2 and refused in error
    with Writer(quota=0) as server:
        assert run(server, 0.6, "--stages", "translate")[0] == 4
    with Writer() as server:
        code, error = run(server, 0.6, "--stages", "translate", "--number_of_demonstrations", 2)
        assert code == 0 and "writer-1 holds no results yet" in error


@pytest.mark.medium
def test_a_budget_ends_the_run_cleanly_and_counts_what_earlier_runs_spent(tmp_path):
    """Every response costs 100 * 2 + 50 * 10 = 700 USD a million: 0.0007 each, in generation and back-translation alike."""
    answers, translated = tmp_path / "Basque_answers.jsonl", tmp_path / "writer-1" / "Basque_translate_answers.jsonl"
    served = Counter()

    def run(budget, check):
        with Writer() as server:
            result = datagen(*command(server, tmp_path, "--budget", budget), check=check)
            served.update(server.given)
        return result, lines_in(answers) + lines_in(translated)

    _, first = run(0.0050, 4)
    assert first == 7 == served.total(), "an eighth response would cost more than the budget"
    result, again = run(0.0050, 4)
    assert again == 7 and "0.0049 USD are spent on the 7 responses of this folder (0 in this run)" in result.stderr
    result, second = run(0.0200, 4)  # generation ends, back-translation begins
    assert second == 28 and lines_in(translated) and "resume" in result.stderr and "Traceback" not in result.stderr
    result, last = run(1, 0)
    assert served.total() == len(served), "nothing was paid for twice"
    assert last == served.total(), "those in flight when the target is reached are saved, too"
    assert f"{lines_in(answers) * 0.0007:.2f} USD" in result.stdout and re.search(r"translate: .*\d USD", result.stderr)
    assert lines_in(tmp_path / "Basque.jsonl") == 40

    # A language that is added later changes nothing about the one that is finished.
    more = ("--languages", "Basque", "Hausa", "--number_of_instructions_per_language", 40, 4, "--stages", "generate")
    with Writer() as server:
        datagen(*command(server, tmp_path, *more))
    assert lines_in(tmp_path / "Hausa.jsonl") >= 4 and (translated.parent / "manifest_translate_Basque.json").exists()


@pytest.mark.parametrize(("end", "code"), [("target", 0), ("budget", 4), ("signal", 143)])
@pytest.mark.medium
def test_every_response_is_saved_and_counted_however_the_run_ends(tmp_path, end, code):
    """Each request takes longer than the one before, so that some are in flight at the end; a response costs 0.0007 USD."""
    delays = itertools.count(0.05, 0.02)
    with Writer(delay=lambda _: next(delays)) as server:
        flags = command(server, tmp_path, "--stages", "generate", *(("--budget", 0.0120) if end == "budget" else ()))
        if end == "signal":
            script(*signalled(tmp_path / "Basque_answers.jsonl", 8, "SIGTERM"), "datagen.py", *flags, check=code)
        else:
            datagen(*flags, check=code)
        server.settle()
        paid, sent = server.given.total(), len(server.arrivals)
    assert 8 <= paid == sent == lines_in(tmp_path / "Basque_answers.jsonl"), "no request was cancelled"
    (stage,) = json.loads(in_process("scripts/status.py", tmp_path, "--prices", 2, 10, "--json").stdout)["stages"]
    assert round(stage["usd"], 6) == round(paid * 0.0007, 6)


def test_a_refused_key_ends_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-key-000000")
    with Writer() as server:
        result = datagen(*command(server, tmp_path), check=4)
    assert "rejected the API key" in result.stderr and "sk-wrong-key-000000" not in result.stdout + result.stderr
    assert len(server.arrivals) <= 6


def test_an_adapter_is_not_left_out_silently(tmp_path):
    """An API would answer without it, and its name would be on record as used."""
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    with Writer() as server:
        for adapter in ("--adapter_name_or_path", "--model_name_or_path"):
            for stages in (("generate",), ("translate",)):
                flags = command(server, tmp_path / "out", adapter, tmp_path / "lora", "--stages", *stages)
                result = in_process("datagen.py", *flags)
                assert (
                    result.returncode == 2 and "is a LoRA adapter, which --inference_api openai cannot" in result.stderr
                )
    assert not server.arrivals and not list(tmp_path.glob("out/**/settings_*.json"))


def two_languages(server, folder, *languages):
    return (
        *command(server, folder, "--number_of_instructions", 0, "--number_of_instructions_per_language", 16),
        "--scorer", "topxgen.generation.scoring:ConfidenceScorer", "--languages", *languages,
    )  # fmt: skip


@pytest.mark.medium
def test_languages_side_by_side_in_one_directory(tmp_path):
    """An array over languages, its jobs killed again and again: the files of one undisturbed run over both languages, and
    manifests that have both. A second process for the same language is refused meanwhile."""
    together, apart, rng = tmp_path / "together", tmp_path / "apart", random.Random(3)
    with Writer() as server:
        assert (
            "pairs without a score, as the translator gave no confidence"
            in datagen(*two_languages(server, together, "Basque", "Hausa")).stderr
        )
    refusals = 0
    with Writer(delay=0.02) as server:
        for attempt in range(12):
            jobs = [
                subprocess.Popen(
                    [sys.executable, "datagen.py", *map(str, two_languages(server, apart, name))],
                    cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                )
                for name in ("Basque", "Hausa", "Basque")
            ]  # fmt: skip
            if attempt < 4:
                grown = lines_in(apart / "Basque_answers.jsonl") + lines_in(
                    apart / "writer-1" / "Basque_translate.jsonl"
                )
                deadline = time.monotonic() + 20 if attempt else time.monotonic() + 60
                while time.monotonic() < deadline and all(job.poll() is None for job in jobs[:2]):
                    now = lines_in(apart / "Basque_answers.jsonl") + lines_in(
                        apart / "writer-1" / "Basque_translate.jsonl"
                    )
                    if now > grown:
                        break
                    time.sleep(0.01)
                time.sleep(rng.random() / 2)
                for job in jobs[:2]:
                    job.kill()
            outputs = [job.communicate() for job in jobs]
            refusals += sum(
                job.returncode == 2 and "Basque in" in err for job, (_, err) in zip(jobs, outputs, strict=True)
            )
            assert not any("Traceback" in err for _, err in outputs), outputs
            if attempt >= 4 and jobs[1].returncode == 0 and 0 in (jobs[0].returncode, jobs[2].returncode):
                break
        else:
            raise AssertionError(outputs)
        last = datagen(*two_languages(server, apart, "Hausa"))
    assert refusals
    assert contents(apart) == contents(together)
    for place, stage in ((".", "generate"), ("writer-1", "translate"), ("writer-1", "score")):
        one, other = (json.loads((f / place / f"manifest_{stage}.json").read_text()) for f in (together, apart))
        assert set(one["counts"]) == set(other["counts"]) == {"Basque", "Hausa"}
        kept = ("kept", "pairs", "sentences", "rejected")
        for name in one["counts"]:
            assert {k: one["counts"][name].get(k) for k in kept} == {k: other["counts"][name].get(k) for k in kept}
    assert "With Basque, as far as finished:" in last.stdout and re.search(r"paragraphs kept +32\n", last.stdout)
    assert not list(tmp_path.rglob(".lock*"))


def snapshot(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_again_leaves_every_file_untouched(tmp_path):
    with Writer() as server:
        datagen(*two_languages(server, tmp_path, "Basque", "Hausa"))
        before = snapshot(tmp_path)
        datagen(*two_languages(server, tmp_path, "Basque", "Hausa"))
        datagen(*two_languages(server, tmp_path, "Hausa"))
    assert snapshot(tmp_path) == before


def test_a_setting_that_older_versions_did_not_record_leaves_their_manifests(tmp_path):
    """Nothing was done anew, nor is it known that the setting was the same."""
    with Writer() as server:
        for _ in range(2):  # prompts that were in flight at the end of the first run are not asked again
            datagen(*command(server, tmp_path))
        for path in (tmp_path / "settings_generate.json", tmp_path / "manifest_generate_Basque.json"):
            content = json.loads(path.read_text())
            content.get("settings", content).pop("decoding")
            path.write_text(json.dumps(content | ({"started": "then"} if "started" in content else {})))
        datagen(*command(server, tmp_path))
        manifest = json.loads((tmp_path / "manifest_generate_Basque.json").read_text())
        assert manifest["started"] == "then" and "decoding" not in manifest["settings"]
        manifest["settings"]["model"] = "another"
        (tmp_path / "manifest_generate_Basque.json").write_text(json.dumps(manifest))
        datagen(*command(server, tmp_path))
    assert json.loads((tmp_path / "manifest_generate_Basque.json").read_text())["started"] != "then"


@pytest.mark.parametrize(
    ("name", "lines"), [("Basque.jsonl", 1), ("Basque_answers.jsonl", 1), ("writer-1/Basque_translate.jsonl", 0)]
)
def test_a_file_that_is_removed_meanwhile_is_no_success(tmp_path, name, lines):
    path, removed = tmp_path / name, []

    def remove_once(_) -> float:
        if not removed and path.exists() and lines_in(path) >= lines:
            path.unlink()
            removed.append(path)
        return 0.05

    with Writer(delay=remove_once) as server:
        result = datagen(*command(server, tmp_path), check=2)
    assert removed and "Traceback" not in result.stderr
    assert re.search(f"{name.split('/')[-1]} was removed or replaced|files of Basque in .* were removed", result.stderr)


def test_a_lone_surrogate_has_the_same_end_before_and_after_a_kill(tmp_path, monkeypatch):
    """It cannot be saved: the text is rejected as binary, at once and by a run that reads the answers again."""
    monkeypatch.setattr(api_server, "answer", lambda *args: spoiled(answer(*args)))
    with Writer() as server:
        flags = (*command(server, tmp_path), "--stages", "generate", "--number_of_instructions", 6)
        datagen(*flags)
        first = contents(tmp_path)
        for name in ("Basque.jsonl", "Basque_rejects.jsonl"):
            (tmp_path / name).unlink()
        datagen(*flags)
    assert contents(tmp_path) == first
    rejects = records(tmp_path / "Basque_rejects.jsonl")
    assert rejects and {reject["reason"] for reject in rejects} == {"binary"}


def spoiled(response: dict) -> dict:
    """The second text of the answer with a lone surrogate."""
    message = response["choices"][0]["message"]
    message["content"] += " \ud83d"
    return response


@pytest.mark.parametrize("value", ["", None, []])
@pytest.mark.medium
def test_empty_answers_are_asked_for_again(value, tmp_path, monkeypatch):
    """A server that was at fault leaves no folder that ends in exit 3 for good."""
    monkeypatch.setattr(api_server, "answer", lambda *args: emptied(answer(*args), value))
    with Writer() as server:
        flags = (*command(server, tmp_path), "--stages", "generate", "--number_of_instructions", 6)
        datagen(*flags, check=3)
        failed = records(tmp_path / "Basque_rejects.jsonl")
        assert failed and {reject["reason"] for reject in failed} == {"answer_failed"}
        monkeypatch.setattr(api_server, "answer", answer)
        datagen(*flags)
        counts = json.loads((tmp_path / "manifest_generate_Basque.json").read_text())["counts"]
    kept = records(tmp_path / "Basque.jsonl")
    assert counts["kept"] == len(kept) >= 6 and not counts["rejected"]
    assert counts["answers"] == counts["not_needed"] + len({record["id"].partition(".")[0] for record in kept})
    assert counts["prompts"] == len({record["id"] for record in records(tmp_path / "Basque_answers.jsonl")})
    kept_ids = {record["id"].partition(".")[0] for record in kept}
    assert kept_ids & {reject["prompt"] for reject in failed}, "prompts that failed have texts now"
    before = contents(tmp_path)
    with Writer() as server:
        flags = (*command(server, tmp_path), "--stages", "generate", "--number_of_instructions", 6)
        datagen(*flags)
        assert not server.bodies and contents(tmp_path) == before


@pytest.mark.medium
def test_a_finished_language_is_no_reason_to_leave_failures_of_another(tmp_path, monkeypatch):
    with Writer() as server:
        flags = (*command(server, tmp_path), "--stages", "generate", "--number_of_instructions", 6, "--languages")
        datagen(*flags, "Hausa")
        monkeypatch.setattr(api_server, "answer", lambda *args: emptied(answer(*args), ""))
        datagen(*flags, "Basque", check=3)
        (tmp_path / "manifest_generate_Basque.json").unlink()  # as if it had been killed
        monkeypatch.setattr(api_server, "answer", answer)
        datagen(*flags, "Hausa")
        datagen(*flags, "Basque")
    assert not json.loads((tmp_path / "manifest_generate_Basque.json").read_text())["counts"]["rejected"]


def emptied(response: dict, value) -> dict:
    for choice in response["choices"]:
        choice["message"]["content"] = value
    return response


@pytest.mark.parametrize("several", [False, True])
def test_sentences_without_an_answer_are_asked_for_again(several, tmp_path, monkeypatch):
    """The other sentences of their paragraphs are kept meanwhile; in the end all is as if the server had been good."""

    def some(path, body, _):
        response = answer(path, body, _)
        is_hit = "Translate this sentence" in body["messages"][-1]["content"] and int(digest(body), 16) % 3 == 0
        return emptied(response, []) if is_hit else response

    selector = tmp_path / "selector.py"
    selector.write_text(SELECTOR)
    candidates = ("--number_of_candidates", 2, "--select_by", f"{selector}:Length") if several else ()
    lines = {}
    for name in ("good", "hit"):
        with Writer(delay=0) as server:
            flags = (*command(server, tmp_path / name), "--number_of_instructions", 6)
            datagen(*flags, "--stages", "generate")
            flags, folder = (*flags, "--stages", "translate", *candidates), tmp_path / name / "writer-1"
            if name == "hit":
                monkeypatch.setattr(api_server, "answer", some)
                result = datagen(*flags, check=3)
                rejected = [
                    one for line in records(folder / "Basque_translate_rejects.jsonl") for one in line["rejected"]
                ]
                failed = sum(one["reason"] == "translation_unanswered" for one in rejected)
                assert f"{counted(failed, 'sentence')} without an answer" in result.stderr
                assert failed and sum(len(line["propositions"]) for line in records(folder / "Basque_translate.jsonl"))
                for scope in ("", "_Basque"):
                    assert json.loads((folder / f"manifest_translate{scope}.json").read_text())["complete"] is False
                monkeypatch.setattr(api_server, "answer", answer)
                server.given.clear()
            datagen(*flags)
            assert name == "good" or 0 < server.given.total() <= failed  # a sentence may be there twice
            before, server.bodies[:] = contents(tmp_path / name), []
            datagen(*flags)
            assert not server.bodies and contents(tmp_path / name) == before
        names = ("translate", "translate_rejects", *(("translate_others",) if several else ()))
        lines[name] = {part: sorted((folder / f"Basque_{part}.jsonl").read_text().split("\n")) for part in names}
    assert lines["good"] == lines["hit"]


def test_sentences_that_an_api_always_refuses_are_left_out_on_request(tmp_path, monkeypatch):
    """Without the request each run ends with exit code 3, for ever."""

    def some(path, body, _):
        response = answer(path, body, _)
        is_hit = "Translate this sentence" in body["messages"][-1]["content"] and int(digest(body), 16) % 3 == 0
        return emptied(response, "") if is_hit else response

    monkeypatch.setattr(api_server, "answer", some)
    rejects, pairs = (
        tmp_path / "writer-1" / "Basque_translate_rejects.jsonl",
        tmp_path / "writer-1" / "Basque_translate.jsonl",
    )
    with Writer(delay=0) as server:
        flags = (*command(server, tmp_path), "--number_of_instructions", 6)
        datagen(*flags, "--stages", "generate")
        flags = (*flags, "--stages", "translate", "score")
        datagen(*flags, check=3)
        failed = [
            one for line in records(rejects) for one in line["rejected"] if one["reason"] == "translation_unanswered"
        ]
        plan = datagen(*flags, "--dry_run").stdout
        assert f"{len(failed)} sentences, {len(failed)} of them again" in plan
        assert "of them again" not in datagen(*flags, "--dry_run", "--accept_unanswered").stdout
        server.bodies.clear()
        datagen(*flags, check=3)
        assert server.bodies
        server.bodies.clear()
        result = datagen(*flags, "--accept_unanswered")
        assert f"{counted(len(failed), 'sentence')} without an answer" in result.stderr and not server.bodies
        translated = {sentence for line in records(pairs) for sentence in line["propositions"]}
        assert translated and translated.isdisjoint(one["sentence"] for one in failed)
        for scope in ("", "_Basque"):
            manifest = json.loads((pairs.parent / f"manifest_translate{scope}.json").read_text())
            assert manifest["complete"] is True
        assert manifest["counts"]["rejected"]["translation_unanswered"] == len(failed)
        before = contents(tmp_path)
        datagen(*flags, "--accept_unanswered")
        assert not server.bodies and contents(tmp_path) == before
        monkeypatch.setattr(api_server, "answer", answer)
        datagen(*flags)  # without the request they are sent again
        assert server.bodies and b"translation_unanswered" not in rejects.read_bytes()
