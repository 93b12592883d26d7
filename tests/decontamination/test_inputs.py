"""What decontamination.py refuses or marks: bad input, hostile files, paths that it must not write to."""

import json
import shutil

import pytest

from tests.support.decontaminations import HOSTILE, LEAKS, LINES, SCRIPT, data, record, run
from tests.support.runs import in_process


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, b: ["--languages", "Bask"], "unknown language 'Bask': did you mean Bashkir, Basque"),
        (lambda i, b: ["--languages", "Hausa"], "no Hausa_translate.jsonl in"),
        (lambda i, b: ["--input_dir", i / "none"], "is not a directory"),
        (lambda i, b: ["--input_dir", b], "has no {Language}_translate.jsonl: run datagen.py's translate stage"),
        (lambda i, b: ["--input_dir", i.parent], "has no {Language}_translate.jsonl: pass one of "),
        (lambda i, b: ["--benchmarks", "flroes"], "did you mean flores"),
        (lambda i, b: ["--benchmark_dir", b / "none"], "none is not a folder"),
        (lambda i, b: ["--allow_missing", "tico"], "--allow_missing 'tico' does not exist; choose one of flores"),
        (
            lambda i, b: ["--benchmarks", "xquad", "--allow_missing", "xquad"],
            "no benchmark covers Basque: none of xquad has it or English",
        ),
        (lambda i, b: ["--ngram_size", "0"], "'0' is not a whole number from 1 to 1000"),
        (lambda i, b: ["--near_duplicate_threshold", "7"], "'7' is not a number from 0.05 to 0.99"),
        (lambda i, b: ["--demonstration_pool", i / "none.tsv"], "none.tsv"),
        (lambda i, b: ["--benchmarks", i], "would be compared with itself"),
        (lambda i, b: ["--benchmarks", b, "--report", b / "r"], "would be compared with itself"),
        (lambda i, b: ["--report", i / "manifest_decontaminate_Basque.json"], "is another output of this run"),
        (lambda i, b: ["--report", i / "Basque_translate.jsonl" / "x"], "cannot write to"),
    ],
)
def test_bad_input_ends_in_one_line(planted, benchmark_dir, change, message):
    flags = change(planted, benchmark_dir)
    result = run(planted, benchmark_dir, *flags, code=2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr and not list(planted.glob("*filtered*"))


def test_an_empty_benchmark_stops_the_run(planted, benchmark_dir):
    (benchmark_dir / "flores200_dataset/dev/eng_Latn.dev").write_text("\n\n")
    result = run(planted, benchmark_dir, code=2)
    assert "eng_Latn.dev is empty" in result.stderr
    assert not list(planted.glob("*filtered*"))


def test_inputs_behind_links_are_no_benchmark(planted, benchmark_dir, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "Basque_translate.jsonl").symlink_to(planted / "Basque_translate.jsonl")
    (tmp_path / "above").mkdir()
    (tmp_path / "above" / "below").symlink_to(planted)
    for source in (tmp_path / "linked", tmp_path / "above", planted / "Basque_translate.jsonl"):
        result = run(planted, benchmark_dir, "--benchmarks", source, "--output_dir", tmp_path / "o", code=2)
        assert "would be compared with itself" in result.stderr
    run(tmp_path / "linked", benchmark_dir, "--output_dir", tmp_path / "o")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "Basque_translate_filtered.jsonl.partial").symlink_to(planted / "Basque_translate.jsonl")
    result = run(planted, benchmark_dir, "--output_dir", tmp_path / "p", code=2)
    assert "would overwrite the input" in result.stderr and (planted / "Basque_translate.jsonl").stat().st_size


def test_nothing_is_written_over_what_is_read(planted, benchmark_dir, tmp_path):
    source = planted / "Basque_translate.jsonl"
    before = source.read_bytes()
    (planted / "Basque_translate_filtered.jsonl").symlink_to(source)
    assert "would overwrite the input" in run(planted, benchmark_dir, code=2).stderr
    (planted / "Basque_translate_filtered.jsonl").unlink()
    own = tmp_path / "mine.json"
    own.write_text(json.dumps([{"text": LEAKS["Basque"][0]}]))
    result = run(planted, benchmark_dir, "--benchmarks", own, "--report", own, code=2)
    assert "would overwrite the input" in result.stderr
    assert source.read_bytes() == before and json.loads(own.read_text())


def test_filtered_pairs_of_others_are_not_replaced(planted, benchmark_dir):
    filtered, hits = (planted / f"Basque_translate_{name}.jsonl" for name in ("filtered", "contaminated"))
    filtered.write_text("published\n")
    result = run(planted, benchmark_dir, code=2)
    assert "was not written by this script" in result.stderr and filtered.read_text() == "published\n"
    run(planted, benchmark_dir, "--audit")
    hits.write_text("")  # as a kill leaves ours
    run(planted, benchmark_dir)
    assert filtered.read_text() != "published\n"


def test_filtered_pairs_of_another_folder_are_not_replaced(planted, benchmark_dir, tmp_path):
    other, clean = shutil.copytree(planted, tmp_path / "other"), tmp_path / "clean"
    run(planted, benchmark_dir, "--output_dir", clean)
    before = (clean / "Basque_translate_filtered.jsonl").read_bytes()
    result = run(other, benchmark_dir, "--output_dir", clean, code=2)
    assert f"has the pairs of {planted}" in result.stderr
    assert (clean / "Basque_translate_filtered.jsonl").read_bytes() == before
    run(planted, benchmark_dir)
    run(shutil.copytree(planted, tmp_path / "copy"), benchmark_dir)
    (planted / "Basque_translate.jsonl").unlink()  # it was moved
    run(other, benchmark_dir, "--output_dir", clean)


def test_outputs_are_never_written_through_a_link(planted, benchmark_dir):
    precious = planted / "thesis.tex"
    precious.write_text("do not lose me")
    (planted / "Basque_translate_filtered.jsonl.partial").symlink_to(precious)
    result = run(planted, benchmark_dir, code=2)
    assert "a symbolic link, pipe or folder is in the place of a temporary file" in result.stderr
    assert precious.read_text() == "do not lose me"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("not JSON\n{}\n[1]\n", "all 3 lines are malformed"),
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--audit"]])
def test_a_file_of_which_nothing_is_checked_is_no_success(tmp_path, benchmark_dir, content, reason, flags):
    folder = data(tmp_path, [LINES["Basque"]])
    (folder / "Basque_translate.jsonl").write_text(content)
    result = run(folder, benchmark_dir, *flags, code=3)
    assert reason in result.stderr and f"NOT CHECKED: {folder}" in result.stdout
    name = "decontamination_audit" if flags else "decontamination_report"
    assert reason in json.loads((folder / f"{name}.json").read_text())["languages"]["Basque"]["not_checked"][0]
    assert "Not checked" in (folder / f"{name}.md").read_text()


@pytest.mark.parametrize("own", ["notes.md", "notes.json"])
def test_a_file_of_ones_own_is_not_replaced_by_the_report(planted, benchmark_dir, own):
    path = planted / own
    path.write_text('{"my": "notes"}')
    result = run(planted, benchmark_dir, "--report", path, code=2)
    assert str(path) in result.stderr and "--report" in result.stderr and path.read_text() == '{"my": "notes"}'
    assert not list(planted.glob("*filtered*")), "before the work"


def test_nothing_of_ours_drives_the_terminal(tmp_path, benchmark_dir):
    """Control characters in names of folders, files and columns, in texts and in flags: on no stream, and not in the report."""
    evil = "a\x1b]0;title\x07\x9b31m"
    own = tmp_path / f"{evil}.jsonl"
    own.write_text(json.dumps({evil: LEAKS["English"][1] + evil, "x": "y"}) + "\n")
    folder = data(tmp_path, [record(0, ["Bat."], [f"{LEAKS['English'][1]} {evil}"])])
    folder = folder.rename(tmp_path / f"in{evil}")
    flags = ("--benchmarks", f"{own}:English={evil}", "--allow_missing", f"{own}:English={evil}")
    good = run(folder, benchmark_dir, *flags)
    assert f"English={evil}".encode("unicode_escape").decode()[:6] in good.stdout and "1 hits" in good.stdout
    bad = run(folder, benchmark_dir, *flags, "--languages", f"Basque{evil}", code=2)
    gone = run(tmp_path / evil, benchmark_dir, *flags, code=2)
    markdown = (folder / "decontamination_report.md").read_text()
    for text in (good.stdout, good.stderr, bad.stderr, gone.stderr, markdown):
        assert not set(text) & {"\x1b", "\x07", "\x9b"}, text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--ngram_size", 1, "--short_text_rule", "whole"),
            "--short_text_rule has no effect without --ngram_size above 1",
        ),
        (("--audit", "--output_dir", "out", "--report", "r"), "--output_dir has no effect without files to write"),
        (("--target_language", "Basque"), "Basque is one of the --languages and the language of the translations"),
        (("--target_language", ""), "--target_language"),
        (("--report", "x" * 250), "File name too long"),
        (("--report", "/proc/1/x"), "cannot write to /proc/1: "),
        (("--output_dir", "/proc/x"), "cannot write to /proc/x: "),
        (("--output_dir", "{planted}/Basque_translate.jsonl"), "Basque_translate.jsonl"),
    ],
)
def test_flags_without_effect_and_paths_that_cannot_be_written_end_the_run_before_the_work(
    planted, benchmark_dir, flags, message
):
    result = run(planted, benchmark_dir, *(str(flag).format(planted=planted) for flag in flags), code=2)
    assert message in result.stderr and len(result.stderr.splitlines()) == 1, "and before benchmarks are loaded"
    assert [path.name for path in planted.iterdir()] == ["Basque_translate.jsonl"]
    idle = run(planted, benchmark_dir, "--benchmarks", "udhr").stderr
    assert "--benchmark_dir, --allow_partial_benchmark have no effect without one of flores, ntrex" in idle


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".txt"])
def test_hostile_benchmark_files_end_in_one_line(planted, benchmark_dir, suffix, tmp_path):
    own = tmp_path / f"own{suffix}"
    for value in (*HOSTILE, "", '{"English": "a", "Basque": 1}', '{"English": {"a": ["b", null]}}', '"\\ud800"', "\0"):
        own.write_text(value)
        for name in (own, f"{own}:English", f"{own}:English=1", f"{own}:English=English"):
            result = in_process(SCRIPT, "--input_dir", planted, "--benchmarks", name, "--num_workers", 1)
            lines = result.stderr.splitlines()
            assert result.returncode in (0, 2, 3) and "Traceback" not in result.stderr, result.stderr
            assert result.returncode != 2 or (len(lines) == 1 and str(own) in lines[0] and len(lines[0]) < 1000), lines
