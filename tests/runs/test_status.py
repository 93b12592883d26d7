"""scripts/status.py: what runs, how far, how fast and at what cost, while nothing on disk changes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from datagen import build_parser as datagen_parser
from scripts.status import lines as shown_lines
from tests.support import number_translator, synthetic_run
from tests.support.runs import ROOT, datagen, in_process
from tests.support.statuses import HOLD, NOTE, digest, end, hold, look, pair, paragraph, response, write
from tests.support.tiny_models import udhr_texts
from topxgen.common.locks import Note
from topxgen.common.schemas import decode
from topxgen.generation.plan import GenerationConfig
from topxgen.inference.costs import Prices
from topxgen.runs import status
from topxgen.runs.status import Watcher


def test_a_run_at_work_and_killed_and_stopped_and_finished(begun):
    assert {stage.state for stage in look(begun).values()} == {"stopped"}
    process = hold((begun, "Basque", NOTE))
    try:
        stages = look(begun)
        generate, translate, score = stages["generate"], stages["translate"], stages["score"]
        assert (generate.state, generate.done, generate.of, generate.unit) == ("running", 3, 12, "paragraphs")
        assert generate.counts == {"responses": 4, "failed": 1} and generate.rejected == {"near_duplicate": 1}
        assert generate.process.startswith(f"process {process.pid} on ")
        assert generate.usd == pytest.approx((5 * 1000 * 1 + 5 * 100 * 10) / 1e6)
        assert (translate.state, translate.done, translate.of) == ("waiting", 2, 3)
        assert translate.counts == {"pairs": 4} and translate.rejected == {"sentence_too_short": 2}
        assert (score.state, score.done, score.of) == ("waiting", 0, 4)
        (seen,) = Watcher(begun).look().processes
        assert (seen["process"], seen["holds"], seen["state"]) == (process.pid, ["Basque"], "running")
        write(begun / "manifest_generate_Basque.json", {"complete": True, "counts": {"rejected": {}}})
        stages = look(begun)
        assert [stages[name].state for name in ("generate", "translate", "score")] == ["finished", "running", "waiting"]
    finally:
        end(process)
    stages = look(begun)
    assert [stages[name].state for name in ("generate", "translate")] == ["finished", "killed"]
    assert Watcher(begun).look().processes[0]["state"] == "killed"
    (begun / ".lock-Basque").unlink()
    assert look(begun)["translate"].state == "stopped" and not Watcher(begun).look().processes
    words = "datagen.py --languages Basque --number_of_instructions 12 --number_of_instructions_per_language 4"
    manifest = json.dumps({"complete": False, "command": words.split()})
    (begun / "manifest_generate_Basque.json").write_text(manifest)
    generate = look(begun)["generate"]
    assert (generate.state, generate.of) == ("incomplete", 12), "both numbers have to be reached"


def test_what_has_failed_and_what_was_interrupted(begun):
    """By the file that the chain leaves; it names the folder from its own place, so that a run may be moved."""
    for name in ("run/failed", "other/apertium"):
        (begun / name).mkdir(parents=True)
    write(begun / "other/settings_generate.json", {"model": "m"})
    write(begun / "other/Basque.jsonl", paragraph(0))
    failure = {"exit_code": 4, "failed": "2026-01-01T00:00:00+00:00", "error": "quota", "script": "datagen.py"}
    write(begun / "run/failed/datagen.generate-1.json", {**failure, "folder": "../../other"})
    found = Watcher(begun).look()
    assert {stage.folder: stage.state for stage in found.stages} == {
        ".": "stopped", "apertium": "stopped", "other": "failed",
    }  # fmt: skip
    assert [(one["stage"], one["exit_code"], one["error"]) for one in found.failures] == [("generate-1", 4, "quota")]
    process = hold((begun / "other", "Basque", NOTE))
    assert {stage.folder: stage.state for stage in Watcher(begun).look().stages}["other"] == "running"
    end(process)
    assert {stage.folder: stage.state for stage in Watcher(begun).look().stages}["other"] == "killed", "by its lock"


def test_a_process_at_other_pairs_or_stages_is_not_at_these(begun):
    process = hold((begun, "Basque", {**NOTE, "translate_dir": "nllb", "stages": ["translate"]}))
    try:
        states = {(one.stage, one.folder): one.state for one in Watcher(begun).look().stages}
        assert states["generate", "."] == states["translate", "apertium"] == "stopped"
        assert states["translate", "nllb"] == "running", "its model may take long to load"
    finally:
        end(process)


def test_a_folder_below_the_one_that_is_locked(begun):
    process = hold((begun, "Basque", NOTE))
    try:
        found = Watcher(begun / "apertium").look()
        states = [(one.stage, one.folder, one.state) for one in found.stages]
        assert states[:2] == [("generate", "..", "running"), ("translate", ".", "waiting")]
        assert [one["process"] for one in found.processes] == [process.pid]
    finally:
        end(process)


def test_a_folder_of_filtered_pairs_alone_has_no_stage_that_made_pairs(tmp_path):
    """As of decontamination.py with an --output_dir: no translation "of another program" is claimed there."""
    write(tmp_path / "checked/Basque_translate_filtered.jsonl", pair(0))
    write(tmp_path / "checked/manifest_decontaminate_Basque.json", {})
    assert [(one.stage, one.folder) for one in Watcher(tmp_path).look().stages] == [("decontaminate", "checked")]


def test_of_two_languages_the_one_that_was_written_last_is_at_work(begun):
    (begun / "apertium" / "Basque_translate.jsonl").rename(begun / "apertium" / "Hausa_translate.jsonl")
    write(begun / "apertium" / "Basque_translate.jsonl", pair(0))
    write(begun / "Hausa.jsonl", *map(paragraph, range(2)))
    for name in ("Basque", "Hausa"):
        write(begun / f"manifest_generate_{name}.json", {"complete": True})
        os.utime(begun / "apertium" / f"{name}_translate.jsonl", (1e9, 1e9 + (name == "Hausa")))
    (begun / "apertium" / "Basque_translate_rejects.jsonl").unlink()
    process = hold((begun, "Basque", NOTE), (begun, "Hausa", NOTE))
    try:
        found = {(one.stage, one.language): one.state for one in Watcher(begun).look().stages}
        assert found["translate", "Hausa"] == "running" and found["translate", "Basque"] == "waiting"
        (seen,) = Watcher(begun).look().processes
        assert seen["holds"] == ["Basque", "Hausa"]
    finally:
        end(process)


def test_rates_are_those_between_looks_and_say_so(begun, monkeypatch):
    process = hold((begun, "Basque", NOTE))
    try:
        os.utime(begun / "settings_generate.json", (1e9, 1e9))  # a run that goes on: its mean is not known
        watcher, now = Watcher(begun), [1000.0]
        monkeypatch.setattr(status.time, "time", lambda: now[0])
        first = watcher.look().stages[0]
        assert first.rate is None and first.seconds_left is None
        now[0] += 20
        write(begun / "Basque.jsonl", *map(paragraph, range(3, 7)))
        second = watcher.look().stages[0]
        assert (second.done, second.rate, second.rate_from) == (7, 0.2, "the last 20 s")
        assert second.seconds_left == pytest.approx(5 / 0.2)
        now[0] += status.WINDOW_S - 10  # nothing was added: what is older than the window does not count
        assert watcher.look().stages[0].rate == pytest.approx(4 / (status.WINDOW_S + 10))
        now[0] += 20
        assert watcher.look().stages[0].rate is None
    finally:
        end(process)


def test_languages_that_share_a_number_of_paragraphs_have_the_time_of_all(begun, monkeypatch):
    """--number_of_instructions 12, and at least 4 for the third language."""
    write(begun / "Hausa.jsonl", paragraph(0))
    note = {**NOTE, "paragraphs": None, "paragraphs_of_all": 12}
    process = hold((begun, "Basque", note), (begun, "Hausa", note), (begun, "Urdu", {**note, "paragraphs": 4}))
    try:
        os.utime(begun / "settings_generate.json", (1e9, 1e9))
        watcher, now = Watcher(begun), [1000.0]
        monkeypatch.setattr(status.time, "time", lambda: now[0])
        generate = [stage for stage in watcher.look().stages if stage.stage == "generate"]
        assert [(stage.of, stage.of_all, stage.seconds_left) for stage in generate] == [
            *[(None, 12, None)] * 2,
            (4, None, None),
        ]
        now[0] += 10
        write(begun / "Basque.jsonl", *map(paragraph, range(3, 5)))
        write(begun / "Hausa.jsonl", paragraph(1))
        seen = watcher.look()
        generate = [stage for stage in seen.stages if stage.stage == "generate"]
        assert [stage.done for stage in generate] == [5, 2, 0]
        assert [stage.seconds_left for stage in generate] == [*[pytest.approx((12 - 7) / 0.3)] * 2, None]
        assert "  of 12 paragraphs in all languages of its process together" in list(shown_lines(seen))
        below = Watcher(begun / "apertium").look()
        assert len(below.processes) == 1 and below.stages[0].of_all == 12
    finally:
        end(process)


def test_a_run_of_two_languages_says_what_they_share(tmp_path):
    """What datagen.py writes into its locks is what is read here."""
    args = datagen_parser().parse_args(
        ["--languages", "Basque", "Hausa", "--number_of_instructions", "12", "--output_dir", str(tmp_path),
         "--model_name_or_path", "m", "--seed_topics_path", str(ROOT / "topics/broad_topics.txt"), "--back_translator", "apertium"]
    )  # fmt: skip
    note = GenerationConfig(args).lock_note("Basque")
    assert decode(json.dumps(note, default=str).encode(), Note)["paragraphs_of_all"] == 12


def test_a_folder_whose_name_has_a_line_break_is_one_line(tmp_path):
    write(tmp_path / "a\nb\t\u202ec" / "settings_train.json", {"max_steps": 2})
    write(tmp_path / "a\nb\t\u202ec" / "train_log.jsonl", {"step": 1})
    shown = in_process("scripts/status.py", tmp_path).stdout
    assert "  a\\nb\\t\\u202ec\n" in shown and "\u202e" not in shown
    assert not any(line.startswith("b") for line in shown.splitlines())


def test_steps_beyond_a_limit_are_no_share_of_it(tmp_path):
    write(tmp_path / "settings_train.json", {"max_steps": 24})
    write(tmp_path / "train_log.jsonl", {"step": 34})
    train = look(tmp_path)["train"]
    assert (train.done, train.of) == (34, None)
    write(tmp_path / "checkpoint-34" / "trainer_state.json", {"max_steps": 40, "log_history": []})
    write(tmp_path / "checkpoint-34" / "checkpoint_files.json", {})
    assert look(tmp_path)["train"].of == 40


@pytest.mark.parametrize("flags", [(), ("--json",), ("--watch", "--json", "--interval", "0.1")])
def test_a_reader_that_ends_ends_it_quietly(begun, flags):
    process = hold((begun, "Basque", NOTE))
    try:
        command = [sys.executable, "scripts/status.py", str(begun), *flags]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as looking:
            looking.stdout.close()
            errors = looking.stderr.read()
        assert (looking.returncode, errors) == (141, b"")
    finally:
        end(process)


def test_a_stage_that_the_process_began_has_its_mean_rate(begun):
    process = hold((begun, "Basque", NOTE))
    try:
        since = (begun / ".lock-Basque").stat().st_mtime
        os.utime(begun / "settings_generate.json", (since + 1, since + 1))
        os.utime(begun / "Basque.jsonl", (since + 7, since + 7))
        generate = look(begun)["generate"]
        assert generate.rate == pytest.approx(3 / 6, rel=1e-3) and generate.rate_from.startswith(
            "the mean since it began at "
        )
        assert generate.seconds_left == pytest.approx(9 / 0.5, rel=1e-3)
    finally:
        end(process)


def test_prices_of_the_flag_come_before_those_of_the_run(begun):
    usd = look(begun, prices=Prices(2.0, 0.0, 2.0))["generate"].usd
    assert usd == pytest.approx(5 * 1000 * 2 / 1e6)
    assert look(begun)["generate"].usd is None


def test_training_from_its_log_and_checkpoints(tmp_path):
    write(tmp_path / "settings_train.json", {"max_steps": None})
    write(
        tmp_path / "train_log.jsonl",
        {"step": 0, "eval_loss": 3.5},
        {"step": 40, "loss": 2.5, "tokens_per_second": 900.0},
    )
    for step, when in ((20, 1e9), (40, 1e9 + 100)):
        write(tmp_path / f"checkpoint-{step}" / "trainer_state.json", {"max_steps": 100, "log_history": []})
        write(tmp_path / f"checkpoint-{step}" / "checkpoint_files.json", {})
        os.utime(tmp_path / f"checkpoint-{step}" / "checkpoint_files.json", (when, when))
    (tmp_path / "checkpoint-60").mkdir()  # not complete
    os.utime(tmp_path / "settings_train.json", (1e9, 1e9))
    process = hold((tmp_path, None, {"steps": None}))
    try:
        train = look(tmp_path)["train"]
    finally:
        end(process)
    assert (train.state, train.done, train.of, train.unit) == ("running", 40, 100, "steps")
    assert train.counts == {"eval_loss": 3.5, "loss": 2.5, "tokens_per_second": 900.0, "checkpoint": 40}
    assert (train.rate, train.rate_from) == (0.2, "checkpoint-20 to checkpoint-40") and train.seconds_left == 300
    assert look(tmp_path)["train"].state == "killed"


def test_translations_of_a_test_set_also_before_the_first_one(tmp_path):
    folder = tmp_path / "model" / "Basque_to_English_0_shot"
    process = hold((folder, None, {"sentences": 50, "prices": [1, 1]}))
    try:
        main = look(tmp_path)["main"]
        assert (main.state, main.done, main.of) == ("running", 0, 50)
        write(folder / "translate_0.jsonl", *[{"sentence": "a", "translation": "b"}] * 8)
        write(folder / "answers.jsonl", *map(response, range(9)))
        main = look(tmp_path)["main"]
        assert (main.done, main.counts["responses"], main.usd) == (8, 9, pytest.approx(9 * 1100 / 1e6))
        write(folder / "settings_translate.json", {"method_translate": "vanilla", "steps": 0})
        assert look(tmp_path)["main"].done == 9, "responses come in any order, lines in that of the test set"
        (folder / "settings_translate.json").write_text('{"method_translate": "vanilla", "steps": 2}')
        assert look(tmp_path)["main"].done == 8, "of several requests per sentence"
    finally:
        end(process)
    write(folder / "manifest_translate.json", {"sentences": 50, "unanswered_prompts": 2})
    main = look(tmp_path)["main"]
    assert (main.state, main.of, main.counts["unanswered"]) == ("incomplete", 50, 2)


def test_a_lock_of_another_machine_is_said_to_be_unknown(begun):
    (begun / ".lock-Basque").write_text(
        f"process 7 on node17\n{json.dumps({**NOTE, 'command': ['datagen.py', '--x', 'a b']})}\n"
    )
    found = Watcher(begun).look()
    assert found.stages[0].state == "unknown" and found.stages[0].of == 12
    assert (found.processes[0]["host"], found.processes[0]["command"]) == ("node17", "datagen.py --x 'a b'")


@pytest.mark.parametrize("note", ['{"command": 7}', '{"stages": 7}', '{"translate_dir": ["x"]}', "[1]", "{"])
def test_a_damaged_lock_says_nothing(begun, note):
    (begun / ".lock-Basque").write_text(f"process 7 on node17\n{note}\n")
    os.mkfifo(begun / ".lock-Urdu")
    (begun / ".lock-Hausa").touch()
    os.mkfifo(begun / ".lock-Hausa.heartbeat")
    found = Watcher(begun).look()
    assert found.stages[0].state == "unknown" and [one["command"] for one in found.processes] == [""]


def test_a_run_of_all_stages_is_read_and_nothing_changes(tmp_path):
    made = synthetic_run.make(tmp_path / "run", 300, ("Basque", "Urdu"))
    (tmp_path / "run" / ".lock").write_text("process 1 on here")  # as older versions left it
    process = hold((made.folder, "Hausa", NOTE))
    try:
        before = digest(tmp_path)
        found = Watcher(made.folder).look()
        text = in_process("scripts/status.py", made.folder)
        assert text.returncode == 0, text.stderr
        assert digest(tmp_path) == before, "a look changed something"
        refused = subprocess.run(
            [sys.executable, "-c", HOLD.format(root=str(ROOT)), json.dumps([(str(made.folder), "Hausa", {})])],
            capture_output=True,
            text=True,
        )
        assert "in use by process" in refused.stderr, "a look released a lock"
    finally:
        end(process)
    states = {(stage.stage, stage.language): stage for stage in found.stages}
    manifest = json.loads((made.folder / "manifest_generate.json").read_text())
    for name in ("Basque", "Urdu"):
        generate, translate = states["generate", name], states["translate", name]
        assert generate.state == translate.state == "finished"
        assert (
            generate.done == manifest["counts"][name]["kept"]
            and generate.rejected == manifest["counts"][name]["rejected"]
        )
        assert translate.counts["pairs"] == states["score", name].done == made.pairs[name]
        clean = states["decontaminate", name]
        assert (clean.state, clean.done) == ("finished", clean.of) and 0 < clean.counts["pairs_left"] < made.pairs[name]
    assert {"train", "main"} <= {stage.stage for stage in found.stages}
    assert not found.problems and states["generate", "Hausa"].state == "running"
    for word in ("generate", "translate", "Urdu", "finished", "running: process"):
        assert word in text.stdout


def test_a_real_run_is_looked_at_while_it_works(tmp_path, monkeypatch):
    """A filter of its own looks at the run that it is part of."""
    source, out = tmp_path / "texts.txt", tmp_path / "run"
    source.write_text(
        "".join(f"Hau {i}. testua da, eta bere hitzak {i * 7} dira gutxienez.\n" for i in range(8)), encoding="utf-8"
    )
    (tmp_path / "looking.py").write_text(
        "import json\nfrom dataclasses import asdict\nfrom pathlib import Path\nfrom topxgen.runs.status import Watcher\n"
        f"def look(text, language):\n    with open({str(tmp_path / 'seen.jsonl')!r}, 'a') as file:\n"
        f"        file.write(json.dumps(asdict(Watcher(Path({str(out)!r})).look())) + '\\n')\n    return False\n"
    )
    command = ("--paragraphs", source, "--languages", "Basque", "--stages", "generate", "--output_dir", out)
    run = in_process("datagen.py", *command, "--number_of_instructions", 5, "--filters", f"{tmp_path / 'looking.py'}:look",
                     "--threshold", 0.99)  # fmt: skip
    assert run.returncode == 0, run.stderr
    seen = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text().splitlines()]
    last = seen[-1]["stages"][0]
    assert (last["state"], last["of"], last["stage"]) == ("running", 5, "generate") and 0 < last["done"] < 5
    assert "--number_of_instructions 5" in seen[-1]["processes"][0]["command"]
    assert look(out)["generate"].state == "finished" and not Watcher(out).look().processes


def test_a_real_run_that_is_killed_and_run_again(tmp_path):
    source, out = tmp_path / "texts.txt", tmp_path / "run"
    texts = [" ".join(udhr_texts("Basque")[i : i + 2]) for i in range(12)]
    source.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    slow = Path(number_translator.__file__).read_text()
    (tmp_path / "own.py").write_text(slow.replace("load(self): ...", "load(self): __import__('time').sleep(0.5)"))
    command = ("--paragraphs", source, "--languages", "Basque", "--output_dir", out, "--back_translator", f"{tmp_path / 'own.py'}:Numbers",
               "--translate_dir", "own", "--scorer", "none", "--threshold", "1")  # fmt: skip
    datagen(*command, killed_at=(out / "own" / "settings_translate.json", 0))  # before a pair is written
    stages = look(out)
    assert (stages["generate"].state, stages["generate"].done) == ("finished", 12)
    assert stages["translate"].state == "killed" and stages["translate"].done < 12 == stages["translate"].of
    datagen(*command)
    assert (look(out)["translate"].state, look(out)["translate"].done) == ("finished", 12)
