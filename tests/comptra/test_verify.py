"""scripts/verify.py: whatever is changed in the files of a run is found, or is in a file that nothing claims."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from comptra import verify
from comptra.report import packing
from tests.support import finished_run, whole_run
from tests.support.flipped_bytes import QUICK, is_found, kinds
from tests.support.processes import locked
from tests.support.publishing import make_run, record
from tests.support.runs import ROOT, in_process
from topxgen.common import checksums
from topxgen.common.locks import OutputLock

PAIRS = f"{finished_run.NAME}/Basque_translate.jsonl"


@pytest.fixture(scope="module")
def made(tiny_nllb, tiny_lm, tmp_path_factory) -> Path:
    return whole_run.make(tmp_path_factory.mktemp("verify"), tiny_nllb, tiny_lm)


@pytest.fixture
def run(made, tmp_path) -> Path:
    """A copy, in which the paths that its files name are of the original: those in the copy count."""
    return shutil.copytree(made, tmp_path / "copy")


def problems(run: Path, options: verify.Options | None = None) -> list[str]:
    return [str(problem).replace(f"{run}/", "") for problem in verify.verify(run, options).problems]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def claim_anew(run: Path) -> None:
    """What somebody does who edits a result and hides it: all checksums are those of the files that are there."""
    for path in run.rglob(checksums.NAME):
        names = list(checksums.read(path.parent))
        path.unlink()
        checksums.claim(path.parent, names)


def test_a_whole_run_holds(run):
    audit = verify.verify(run)
    assert not audit.problems and not audit.running
    assert audit.checked["files"] > 30 and audit.checked["counts"] > 100 and audit.checked["scores"] > 50
    unclaimed = verify.unclaimed(audit)
    assert all(unclaimed.values()), f"claimed by nothing, and not known why: {unclaimed}"
    claimed = {path.relative_to(run.resolve()).name for path in audit.claimed}
    assert {"Basque.jsonl", "scores.json", "scores.tex", "manifest_translate.json", "divide_1.jsonl"} <= claimed


def test_the_command(run, tmp_path):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()}
    result = in_process("scripts/verify.py", run, "--json", tmp_path / "result.json", "--verbose")
    assert result.returncode == 0 and result.stdout.endswith("everything checked holds\n"), result.stdout
    assert "claimed by nothing:" in result.stdout and "rates.json: speed" in result.stdout
    assert json.loads((tmp_path / "result.json").read_text())["holds"] is True
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()} == before
    edit(run / PAIRS, "a", "e")
    result = in_process("scripts/verify.py", run, "--json", tmp_path / "result.json")
    assert result.returncode == 1
    first = result.stdout.splitlines()[0]
    assert first.startswith(f"{run}/{PAIRS}: SHA-256 in SHA256SUMS: claimed ") and ", is " in first
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["problems"][0]["file"] == f"{run}/{PAIRS}" and content["holds"] is False


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([__file__], f"{__file__} is not a folder"),
        ([], "required: DIR"),
        (["{run}", "--json", "{run}/new.json"], "in which nothing is written"),
        (["{run}", "--benchmark_dir", "none"], "--benchmark_dir none is not a folder"),
    ],
)
def test_usage(run, words, said):
    result = in_process("scripts/verify.py", *[word.format(run=run) for word in words])
    assert result.returncode == 2 and said in result.stderr and not result.stdout


# Files that were changed by somebody else


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (PAIRS, lambda path: os.truncate(path, path.stat().st_size // 2), "SHA-256 in SHA256SUMS"),
        ("Basque.jsonl", Path.unlink, "Basque.jsonl: is missing, and SHA256SUMS has it"),
        ("Basque_rejects.jsonl", lambda path: path.open("a").write('{"id": "a.1", "reason": "empty"}\n'), "SHA-256"),
        ("manifest_generate_Basque.json", lambda path: edit(path, '"kept": ', '"kept": 1'), "counts of Basque.kept: claimed 1"),
        ("scores.json", lambda path: edit(path, '"score": ', '"score": 1'), "SHA-256"),
    ],
)  # fmt: skip
def test_a_changed_file(run, name, change, said):
    change(run / name)
    assert any(said in line for line in problems(run))


def test_a_decontamination_that_drops_pairs_and_a_published_set(run, made, tmp_path):
    benchmark = made.parent / "work/benchmark.txt"
    finished_run.decontaminate(run / finished_run.NAME, benchmark, "--drop_on_sentence_overlap", "pair")
    manifest = json.loads((run / finished_run.NAME / "manifest_decontaminate_Basque.json").read_text())
    assert manifest["counts"]["pairs_dropped"] and not problems(run, QUICK)
    out = tmp_path / "published"
    whole_run.call("scripts/publish.py", run, "--out", out)
    assert not problems(out, QUICK)
    edit(out / "README.md", "num_examples: ", "num_examples: 1")
    assert any("README.md: pairs in Basque/" in line for line in problems(out, QUICK))


def test_translation_memories_hold_the_pairs_of_the_parquet_files(run, tmp_path):
    out = tmp_path / "published"
    words = ("--formats", "tmx", "moses", "--allow_undecontaminated", "--validation_size", 2)
    whole_run.call("scripts/publish.py", run / finished_run.NAME, "--out", out, *words)
    audit = verify.verify(out)
    assert not audit.problems and audit.checked["counts"] > 20
    for name, old, new in (
        ("tmx/Basque.train.tmx", "</seg>", ".</seg>"),
        ("tmx/Basque.train.tmx", '"x-score">0', '"x-score">1'),
        ("tmx/Basque.train.tmx", "</tmx>", ""),
        ("moses/train.eng_Latn-eus_Latn.src", " ", "  "),
        ("moses/validation.eng_Latn-eus_Latn.tgt", "\n", "\n\n"),
    ):
        before = (out / name).read_bytes()
        edit(out / name, old, new)
        claim_anew(out)
        (found,) = problems(out)
        assert found.startswith(str(out / name)) or found.startswith(name), found
        assert "by the parquet files" in found or "is not XML" in found
        (out / name).write_bytes(before)


def test_translation_memories_of_several_languages(tmp_path):
    """The config of all languages together has parquet files, and no translation memory of its own."""
    by_language = {name: [record(n, language=name) for n in range(20)] for name in ("Basque", "Hausa")}
    out = tmp_path / "published"
    words = ("--formats", "tmx", "moses", "--validation_size", 4)
    whole_run.call("scripts/publish.py", make_run(tmp_path / "run", by_language), "--out", out, *words)
    audit = verify.verify(out)
    assert not audit.problems and audit.checked["counts"] > 200
    edit(out / "tmx" / "Hausa.train.tmx", "</seg>", ".</seg>")
    claim_anew(out)
    assert ["tmx/Hausa.train.tmx" in one for one in problems(out)] == [True]


def test_a_page_is_made_again(run):
    page = run / "report.html"
    whole_run.call("scripts/report.py", run, "-o", page)
    audit = verify.verify(run)
    assert not audit.problems and str(page) not in audit.unchecked, audit.unchecked
    text = page.read_text(encoding="utf-8")
    for name, change in (
        ("funnel", lambda data: re.sub(r'("count":\d*)', r"\g<1>1", data, count=1)),
        ("evaluation", lambda data: re.sub(r'("corpus":\d*)', r"\g<1>1", data, count=1)),
    ):
        packed = packing.elements(text)[name]
        data = json.dumps(packing.read(page, name), ensure_ascii=False, separators=(",", ":"))
        changed = change(data)
        assert changed != data
        page.write_text(text.replace(packed, packing.packed(packing.compressed(json.loads(changed)))), encoding="utf-8")
        claim_anew(run)
        assert problems(run) == [f"report.html: its section {name} is not what the files say that it was made from"]
        page.write_text(text, encoding="utf-8")
    page.write_text(re.sub(r"(<dd>(?:<a[^>]*>)?)(\d)", r"\g<1>1\2", text, count=1), encoding="utf-8")
    claim_anew(run)
    assert problems(run) == ["report.html: its text is not what the files say that it was made from"]
    page.write_text(text, encoding="utf-8")
    claim_anew(run)
    (run / "Hausa_rejects.jsonl").write_text("")
    assert "other files are there" in verify.verify(run).unchecked[str(page)][0]


def test_a_card_and_its_pairs_are_made_again(run):
    out = run / "published"
    whole_run.call("scripts/publish.py", run / finished_run.NAME, "--out", out, "--min_score", "0.5")
    audit = verify.verify(run)
    assert not audit.problems and str(out / "README.md") not in audit.unchecked, audit.unchecked
    edit(out / "README.md", "| paragraphs | ", "| paragraphs | 1")
    edit(out / "manifest_publish.json", '"pairs_read": ', '"pairs_read": 1')
    claim_anew(run)
    assert {line.split(":")[0] for line in problems(run)} == {"published/README.md", "published/manifest_publish.json"}
    (run / PAIRS.replace("translate", "translate_filtered")).unlink()
    assert "the run that it was made from is not below DIR" in verify.verify(run).unchecked[str(out / "README.md")][0]


def test_a_record_of_every_eval_ever_that_the_report_does_not_give(run):
    edit(next((run / "every_eval_ever").rglob("*.json")), '"score": ', '"score": 1')
    claim_anew(run)
    assert any("evaluation_results: claimed" in line for line in problems(run))


def test_statistics_are_computed_again(run):
    whole_run.call("scripts/data_stats.py", run, "udhr", "--languages", "Basque", "--json", run / "stats.json")
    audit = verify.verify(run)
    assert not audit.problems and str(run / "stats.json") not in audit.unchecked
    before = (run / "stats.json").read_bytes()
    for old, said in (
        ('"paragraphs": ', "counts of"),
        ('"mean": ', "lengths of"),
        ('"scored": ', "scores of"),
        ('"self_bleu": ', "sentences of"),
    ):
        edit(run / "stats.json", old, f"{old}1")
        claim_anew(run)
        assert [line for line in problems(run) if line.startswith(f"stats.json: {said}")], old
        (run / "stats.json").write_bytes(before)
    (run / "Basque.jsonl").unlink()
    assert "figures of Basque: " in verify.verify(run).unchecked[str(run / "stats.json")][0]


def test_two_files_in_each_others_place(run):
    first, second = (sorted((run / "translations").rglob("translate_0.jsonl")))[:2]
    both = first.read_bytes(), second.read_bytes()
    second.write_bytes(both[0])
    first.write_bytes(both[1])
    found = problems(run)
    assert sum("SHA-256 in SHA256SUMS" in line for line in found) == 2
    claim_anew(run)
    assert any("translations_digest" in line for line in problems(run))


def test_a_checksum_that_was_removed(run):
    path = run / finished_run.NAME / checksums.NAME
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "_translate.jsonl" not in line))
    found = problems(run)
    assert found and all("has no checksum in SHA256SUMS, but should have by manifest_" in line for line in found)
    path.unlink()
    assert any(line.startswith(f"{PAIRS}: has no checksum") for line in problems(run))


@pytest.mark.parametrize("line", ["", "# a comment", "0" * 64 + " *binary", "A" * 64 + "  upper", "{second}"])
def test_a_line_that_is_no_checksum(run, line):
    path = run / checksums.NAME
    path.write_text(path.read_text() + line.format(second=path.read_text().splitlines()[0]) + "\n")
    assert any("is no checksum" in line for line in problems(run, QUICK))


# Claims that were edited together with all checksums

EDITED = [
    ("manifest_generate_Basque.json", '"near_duplicate": ', '"near_duplicate": 9', "counts of Basque.rejected.near_duplicate"),
    ("manifest_generate.json", '"threshold": ', '"threshold": 9', "manifest_generate.json: settings.threshold: claimed 90.7"),
    ("manifest_generate.json", '"brought_along": ', '"brought_along": 7', "brought_along: claimed 70, is 0"),
    (f"{finished_run.NAME}/manifest_score_Basque.json", '"mean_score": 0', '"mean_score": 1', "counts of Basque.mean_score"),
    (f"{finished_run.NAME}/manifest_translate_Basque.json", '"pairs": ', '"pairs": 1', "counts of Basque.pairs"),
    (f"{finished_run.NAME}/manifest_decontaminate_Basque.json", '"pairs_dropped": ', '"pairs_dropped": 4', "counts.pairs_dropped"),
    (f"{finished_run.NAME}/manifest_decontaminate_Basque.json", '"input_sha256": "', '"input_sha256": "0', "SHA-256 of its input"),
    (f"{finished_run.NAME}/decontamination_report.json", '"hits": ', '"hits": 5', "overlaps of Basque"),
    (f"{finished_run.NAME}/decontamination_report.json", '"shared_ngram": "', '"shared_ngram": "not ', "hits of Basque"),
    (f"{finished_run.NAME}/decontamination_report.md", "| kept | ", "| kept | 1", "is not what decontamination_report.json says"),
    (f"{finished_run.NAME}/Basque_translate_filtered.jsonl", "gizon", "Gizon", "Basque_translate_filtered.jsonl"),
    (PAIRS, '"scores": [0', '"scores": [1', "counts of Basque.mean_score"),
    ("scores.json", '"score": ', '"score": 1', "scores.json: chrF++ of"),
    ("scores.json", '"p": 0', '"p": 1', ".p: claimed 1."),
    ("scores.json", '"interval": [', '"interval": [77, ', ".interval: claimed [77, "),
    ("scores.json", '"wrong_language": ', '"wrong_language": 1', "faults of"),
    ("scores.json", '"k": ', '"k": 7', "scores.json: settings of"),
    ("scores.json", '"references_digest": "', '"references_digest": "0', "references_digest of udhr"),
    ("scores.csv", "udhr,English,Basque,0,", "udhr,English,Basque,0,x", "scores.csv: row 1, system, by scores.json"),
    ("scores.md", "udhr", "uDHR", "scores.md: is not the table of scores.json (of an earlier version? write it again)"),
    ("segments.jsonl", '"chrf": ', '"chrf": 1', "segments.jsonl: row 1, chrf"),
    ("translations/**/manifest_translate.json", '"sentences": ', '"sentences": 1', "manifest_translate.json: sentences: claimed 1"),
    ("translations/**/manifest_translate.json", '"empty_translations": ', '"empty_translations": 1', "empty_translations: claimed 1"),
    ("translations/**/manifest_translate.json", '"truncated_translations": ', '"truncated_translations": 1', "truncated_translations: claimed 1"),
    ("translations/**/manifest_translate.json", '"phrases": [\n    ', '"phrases": [\n    7', "phrases: claimed [78], is [8]"),
    ("translations/**/manifest_translate.json", '"undivided": [\n    ', '"undivided": [\n    7', "undivided of divide_1.jsonl: claimed 7"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "said"), EDITED, ids=[f"{row[0]} {row[1].strip()}" for row in EDITED])
def test_an_edited_claim_with_checksums_to_match(run, name, old, new, said):
    edit(sorted(run.glob(name))[0], old, new)
    claim_anew(run)
    found = problems(run)
    assert any(said in line for line in found), found


def test_edited_translations_with_checksums_to_match(run):
    path = sorted((run / "translations").rglob("translate_0.jsonl"))[0]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["translation"] = "Gizon-emakume guztiak aske jaiotzen dira."
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    claim_anew(run)
    found = problems(run)
    assert any("chrF++ of" in line for line in found) and any("translations_digest of" in line for line in found)


def test_a_table_without_its_report_is_computed_again(run):
    (run / "scores.json").unlink()
    (run / checksums.NAME).unlink()
    text = (run / "scores.csv").read_text().splitlines()
    chrf = dict(zip(text[0].split(","), text[1].split(","), strict=True))["chrf"]
    assert not any("scores.csv" in line for line in problems(run))
    edit(run / "scores.csv", chrf, f"1{chrf}")
    assert any(line.startswith("scores.csv: chrf of") for line in problems(run))


# Runs that go on, were killed, or are of older versions


def test_a_run_that_is_being_written_is_said(run):
    with locked(run, "Basque") as process:
        result = in_process("scripts/verify.py", run, "--no_scores")
    assert result.stdout.startswith(
        f"Basque in {run} is written by process {process.pid} on {os.uname().nodename} now\n"
    )
    assert result.returncode == 0
    (run / ".lock-Basque").write_text(f"process 999999999 on {os.uname().nodename}\n")
    assert not verify.verify(run, QUICK).running, "left by a kill"


def test_a_file_that_a_run_changes_meanwhile_is_no_problem(run, monkeypatch):
    """The entry is gone by the time that the file has changed."""
    read = verify.Audit._read

    def grown(audit, path):
        if path.name == "Basque_translate.jsonl" and checksums.drop(path):
            path.write_bytes(path.read_bytes() + b"\n")
        return read(audit, path)

    monkeypatch.setattr(verify.Audit, "_read", grown)
    audit = verify.verify(run, QUICK)
    said = [str(problem) for problem in audit.problems]
    assert not [line for line in said if "SHA-256 in SHA256SUMS" in line]
    assert audit.unchecked[str(run / PAIRS)] == ["it was changed by a run while it was read"]


def datagen_words(made: Path, nllb: str) -> list:
    """The command of finished_run."""
    work = made.parent / "work"
    return [
        "--paragraphs", work / "texts.txt", "--languages", "Basque", "--output_dir", made, "--use_nllb", "--nllb_name_or_path", nllb,
        "--cache_dir", work / "cache", "--translate_dir", finished_run.NAME, "--scorer", "confidence", "--number_of_candidates", 3,
        "--select_by", "confidence", "--min_score", "0.45",
    ]  # fmt: skip


def test_a_command_with_no_work_left(run, tiny_nllb, made):
    """A command with nothing left to do changes nothing, and claims what a killed run could not."""
    words = [word if word != made else run for word in datagen_words(made, tiny_nllb)]
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    whole_run.call("datagen.py", *words)
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert {path.name for path in after if before.get(path) != after[path]} <= {"rates.json"}
    path = run / checksums.NAME
    entries = path.read_text()
    path.write_text("".join(line for line in entries.splitlines(True) if "manifest_" not in line))
    assert problems(run, QUICK)
    whole_run.call("datagen.py", *words)
    assert path.read_text() == entries and not problems(run, QUICK)
    edit(run / "Basque_rejects.jsonl", "near_duplicate", "near duplicate")
    whole_run.call("datagen.py", *words)
    assert any("SHA-256" in line for line in problems(run, QUICK)), "an edited file is not attested by the next command"


class Killed(BaseException):
    pass


def test_no_entry_is_wrong_wherever_a_run_is_killed(made, tiny_nllb, tmp_path, monkeypatch):
    """Killed again and again, each time a little later, until it ends; then it is as a run that was never killed."""
    run, moments = tmp_path / "run", 0
    words = [word if word != made else run for word in datagen_words(made, tiny_nllb)]
    for last in range(2, 1000, 3):
        left = [last]

        def killing(function, left=left):
            def counted(*args, **kwargs):
                left[0] -= 1
                if not left[0]:
                    raise Killed
                return function(*args, **kwargs)

            return counted

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", killing(os.replace))
            patched.setattr(os, "fsync", killing(os.fsync))
            with suppress(Killed):
                assert in_process("datagen.py", *words).returncode == 0
        for folder in (run, run / finished_run.NAME):
            entries = checksums.read(folder)
            assert {name: checksums.sha256_of(folder / name) for name in entries} == entries, f"killed at {last}"
        if left[0] > 0:
            break
        moments += 1
        found = problems(run, QUICK)
        assert not [line for line in found if "has no checksum" not in line and "counts of" not in line]
        assert not found or any("has no checksum" in line for line in found), "half a step is said to be one"
    assert moments > 3 and not problems(run, QUICK)
    for name in ("Basque.jsonl", "Basque_rejects.jsonl"):
        assert checksums.read(run)[name] == checksums.read(made)[name]
    for name in ("Basque_translate.jsonl", "Basque_translate_rejects.jsonl", "Basque_translate_others.jsonl"):
        assert checksums.read(run / finished_run.NAME)[name] == checksums.read(made / finished_run.NAME)[name]


def test_an_older_folder_stays_as_it_is_and_is_said_to_be(run):
    for path in run.rglob(checksums.NAME):
        path.unlink()
    for path in run.rglob("manifest_*.json"):
        content = json.loads(path.read_text())
        content.pop(checksums.KEY, None)
        path.write_text(json.dumps(content, indent=2))
    audit = verify.verify(run, QUICK)
    assert not audit.problems
    assert sum("of an older version, which wrote no SHA256SUMS" in why[0] for why in audit.unchecked.values()) > 5


def test_damaged_files(run):
    (run / "manifest_generate_Basque.json").write_text("{")
    (run / "scores.json").write_text('{"trials": 3, "groups": [{"systems": 3}]}')
    (run / PAIRS).write_bytes(b"\xff\xfe")
    (run / checksums.NAME).write_bytes(b"\0" * 100)
    (run / finished_run.NAME / "decontamination_report.json").write_text("[]")
    (run / "manifest_score_Basque.json").write_text(json.dumps({checksums.KEY: [PAIRS, 1]}))
    found = problems(run)
    for name in (
        "manifest_generate_Basque.json",
        "scores.json",
        "SHA256SUMS",
        PAIRS,
        "decontamination_report.json",
        "manifest_score_Basque.json",
    ):
        assert any(name in line for line in found), name


def test_a_pipe_in_place_of_translations_is_not_waited_for(run):
    path = sorted((run / "translations").rglob("translate_0.jsonl"))[0]
    path.unlink()
    os.mkfifo(path)
    command = [sys.executable, str(ROOT / "scripts/verify.py"), str(run)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 1 and "is missing, and SHA256SUMS has it" in result.stdout


def test_links_are_not_followed_and_vanished_files_are_said(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / checksums.NAME).write_text("nonsense\n")
    (run / "linked").symlink_to(tmp_path / "elsewhere")
    (run / "broken.csv").symlink_to(tmp_path / "nothing")
    audit = verify.verify(run, QUICK)
    assert audit.unchecked[f"{run}/linked"] == ["a link to a folder, which is not followed"]
    assert not [problem for problem in audit.problems if "elsewhere" in problem.file]


def test_with_a_lock_of_this_process(run):
    with OutputLock(run):
        assert verify.verify(run, QUICK).running


# One byte


def flip(run: Path, rng: random.Random, count: int) -> dict[str, list[int]]:
    """Change `count` random bytes, one at a time; by kind of file [found, claimed by nothing]. The kinds take turns."""
    files = kinds(run)
    table: dict[str, list[int]] = {}
    for number in range(count):
        kind = sorted(files)[number % len(files)]
        found = is_found(run, rng.choice(files[kind]), rng)
        table.setdefault(kind, [0, 0])[not found] += 1
    assert not verify.verify(run, QUICK).problems
    return table


@pytest.mark.medium
def test_flipped_bytes(run):
    table = flip(run, random.Random(1), 60)
    assert sum(found for found, _ in table.values()) > 45
    assert {kind for kind, (_, free) in table.items() if free} <= {"engine.log", "rates.json"}


@pytest.mark.slow
def test_two_hundred_flipped_bytes_of_a_run_through_all_stages(made, tiny_lm, tmp_path_factory):
    run = shutil.copytree(made, tmp_path_factory.mktemp("whole") / "run")
    whole_run.finish(run, tiny_lm)
    audit = verify.verify(run)
    assert not audit.problems, audit.problems
    assert all(verify.unclaimed(audit).values()), verify.unclaimed(audit)
    table = flip(run, random.Random(2), 200)
    print("\n".join(f"{kind}: {found} found, {free} free" for kind, (found, free) in table.items()))
    assert sum(map(sum, table.values())) == 200
