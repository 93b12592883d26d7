"""decontamination.py in shards: merged, its files are those of one run."""

import json
import random
import subprocess
import sys

from tests.support.decontaminations import LEAKS, data, record
from tests.support.flipped_bytes import flip_each
from tests.support.runs import ROOT, in_process, records


def decontaminate(folder, benchmarks, *more, check=0):
    words = ("--benchmarks", "flores", "--benchmark_dir", benchmarks, "--allow_partial_benchmark", "--num_workers", 1)
    result = in_process("decontamination.py", "--input_dir", folder, *words, *more)
    assert result.returncode == check, result.stderr
    return result


def merge(folder, check=0):
    result = in_process("scripts/merge.py", folder)
    assert result.returncode == check, result.stderr
    return result.stderr


def pairs(tmp_path, count=40):
    rng = random.Random(1)
    lines = []
    for number in range(count):
        leak = rng.choice([*LEAKS["Basque"], *["Itsasoa lasai zegoen."] * 3])
        translations = [rng.choice([*LEAKS["English"], *["The sea was calm."] * 4])]
        lines.append("{not json" if number in (7, 31) else record(number, [leak], translations))
    return data(tmp_path, lines)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}


def without_run(value, *more):
    """A manifest or report without what is of a run: times, commands, versions."""
    gone = ("started", "finished", "command", "versions", "modified_ns", *more)
    if isinstance(value, dict):
        return {key: without_run(item, *more) for key, item in value.items() if key not in gone}
    return value


def test_files_manifest_and_report_are_those_of_one_run(tmp_path, benchmark_dir):
    folder = pairs(tmp_path)
    decontaminate(folder, benchmark_dir, "--output_dir", tmp_path / "one")
    for index in (2, 0):
        decontaminate(
            folder, benchmark_dir, "--output_dir", tmp_path / "out", "--num_shards", 3, "--shard_index", index
        )
    said = merge(tmp_path / "out", check=3)
    assert "shard 0001-of-0003 is missing (decontaminate of Basque): python decontamination.py" in said
    assert not (tmp_path / "out" / "Basque_translate_filtered.jsonl").exists()
    decontaminate(folder, benchmark_dir, "--output_dir", tmp_path / "out", "--num_shards", 3, "--shard_index", 1)
    merge(tmp_path / "out")
    one, merged = tmp_path / "one", tmp_path / "out"
    assert files(one) == files(merged) and len(files(one)) == 3 and all(files(one).values())

    def read(path):
        text = path.read_text().replace(str(path.parent), "DIR")
        return without_run(json.loads(text))

    assert read(one / "decontamination_report.json") == read(merged / "decontamination_report.json")
    assert read(one / "manifest_decontaminate_Basque.json") == read(merged / "manifest_decontaminate_Basque.json")
    merge(tmp_path / "out")
    assert files(one) == files(merged)
    assert {"{Language}_translate_filtered.jsonl", "decontamination_report.json"} <= flip_each(tmp_path / "out", 1)
    # One run finds nothing to do, and continues the report.
    decontaminate(folder, benchmark_dir, "--output_dir", tmp_path / "out")
    assert files(one) == files(merged)


def test_the_benchmarks_of_all_languages_are_in_the_merged_report(tmp_path, benchmark_dir):
    for split in ("dev", "devtest"):
        folder = benchmark_dir / "flores200_dataset" / split
        (folder / f"spa_Latn.{split}").write_text(f"Buenos días.\nEl mar está en calma ({split}).\n")
    for name in ("Basque", "Spanish"):
        folder = data(tmp_path, [record(i, ["Itsasoa lasai zegoen."], ["The sea was calm."]) for i in range(4)], name)
    decontaminate(folder, benchmark_dir, "--output_dir", tmp_path / "one")
    for index in range(2):
        words = ("--num_shards", 2, "--shard_index", index)
        decontaminate(folder, benchmark_dir, "--output_dir", tmp_path / "out", *words)
    merge(tmp_path / "out")
    reports = (tmp_path / name / "decontamination_report.json" for name in ("one", "out"))
    one, merged = (json.loads(path.read_text()) for path in reports)
    assert sorted(one["benchmarks"]) == ["Basque", "English", "Spanish"] and one["benchmarks"] == merged["benchmarks"]
    assert one["between_benchmarks"] == merged["between_benchmarks"]


def test_runs_behind_links_are_merged_once(tmp_path, benchmark_dir):
    """As where outputs lie on another file system; a link to a folder of the same tree is not another run."""
    folder, elsewhere = pairs(tmp_path), tmp_path / "elsewhere"
    for index in range(2):
        decontaminate(folder, benchmark_dir, "--output_dir", elsewhere, "--num_shards", 2, "--shard_index", index)
    (tmp_path / "outputs/own").mkdir(parents=True)
    for name in ("a", "own/b"):
        (tmp_path / "outputs" / name).symlink_to(elsewhere)
    (tmp_path / "outputs/own/above").symlink_to(tmp_path / "outputs")
    assert merge(tmp_path / "outputs").count("pairs kept") == 1
    assert (elsewhere / "Basque_translate_filtered.jsonl").exists()


def test_more_shards_than_lines_and_a_changed_input(tmp_path, benchmark_dir):
    folder = pairs(tmp_path, count=3)
    decontaminate(folder, benchmark_dir, "--output_dir", tmp_path / "one")
    for index in range(5):
        decontaminate(folder, benchmark_dir, "--num_shards", 5, "--shard_index", index)
    merge(folder)
    own = {name: content for name, content in files(folder).items() if name in files(tmp_path / "one")}
    assert own == files(tmp_path / "one")
    with open(folder / "Basque_translate.jsonl", "a") as file:
        file.write(json.dumps(record(99, ["Bai."], ["Yes."])) + "\n")
    assert "is not what the shards have read" in merge(folder, check=2)
    decontaminate(folder, benchmark_dir, "--num_shards", 5, "--shard_index", 0)
    assert "has another input than" in merge(folder, check=2)


def test_what_was_not_checked_has_the_exit_code_of_one_run(tmp_path):
    """English, of which the benchmark has no texts, and an empty file."""
    folder, texts = pairs(tmp_path, count=3), tmp_path / "texts.txt"
    texts.write_text("Itsasoa lasai zegoen gaur goizean ere.\n")

    def run(*more):
        words = ("--input_dir", folder, "--benchmarks", f"{texts}:Basque", "--num_workers", 1, *more)
        result = in_process("decontamination.py", *words)
        return result.returncode, [line for line in result.stderr.splitlines() if "not checked" in line]

    for number, content in enumerate(((folder / "Basque_translate.jsonl").read_bytes(), b"")):
        (folder / "Basque_translate.jsonl").write_bytes(content)
        code, lines = run("--output_dir", tmp_path / f"one{number}")
        for index in range(2):
            run("--output_dir", tmp_path / f"out{number}", "--num_shards", 2, "--shard_index", index)
        said = merge(tmp_path / f"out{number}", check=3).splitlines()
        assert code == 3 and lines and [line for line in said if "not checked" in line] == lines


def test_a_report_elsewhere_is_the_merges(tmp_path, benchmark_dir):
    folder = pairs(tmp_path, count=8)
    decontaminate(folder, benchmark_dir, "--output_dir", tmp_path / "one", "--report", tmp_path / "of_one")
    for index in range(2):
        words = ("--num_shards", 2, "--shard_index", index)
        decontaminate(folder, benchmark_dir, *words, "--report", tmp_path / "reports" / "mine.json")
        assert not (tmp_path / "reports").exists()
    merge(folder)
    one, merged = (json.loads(path.read_text()) for path in (tmp_path / "of_one.json", tmp_path / "reports/mine.json"))
    of_run = ("output", "input")
    assert one["hits"]["Basque"] and without_run(one, *of_run) == without_run(merged, *of_run)
    assert (tmp_path / "reports/mine.md").exists() and not (folder / "decontamination_report.json").exists()


def test_an_audit_in_shards_is_the_report_of_one(tmp_path, benchmark_dir):
    folder = pairs(tmp_path)
    decontaminate(folder, benchmark_dir, "--audit", "--output_dir", tmp_path / "one")
    audit, report = ("--audit", "--num_shards", 2, "--shard_index"), "decontamination_audit.json"
    decontaminate(folder, benchmark_dir, *audit, 1)
    said = merge(folder, check=3)
    assert "shard 0000-of-0002 is missing (audit of Basque): python decontamination.py" in said and "--audit" in said
    # The same shards of the same folder also filter.
    for index in range(2):
        decontaminate(folder, benchmark_dir, *audit[1:], index)
    decontaminate(folder, benchmark_dir, *audit, 0)
    assert "would be kept" in merge(folder)
    one, merged = (json.loads((place / report).read_text()) for place in (tmp_path / "one", folder))
    assert one["hits"]["Basque"] and without_run(one) == without_run(merged)
    assert (tmp_path / "one/decontamination_audit.md").read_text() == (folder / "decontamination_audit.md").read_text()
    assert (folder / "Basque_translate_filtered.jsonl").exists() and not (folder / "audit").exists()
    for command in (
        ("scripts/verify.py", folder),
        ("scripts/data_stats.py", folder, "--stage", "filtered"),
        ("scripts/status.py", folder),
    ):
        result = in_process(*command)
        assert result.returncode == 0 and "not merged" not in result.stdout, result.stdout + result.stderr
    decontaminate(folder, benchmark_dir, *audit, 0, "--ngram_size", 9)
    assert "has other settings (ngram_size, tokens_per_ngram) than" in merge(folder, check=2)


def test_a_file_that_was_changed_after_its_run(tmp_path, benchmark_dir):
    folder = pairs(tmp_path)
    for index in range(2):
        decontaminate(folder, benchmark_dir, "--num_shards", 2, "--shard_index", index)
    path = folder / "shards" / "0001-of-0002" / "Basque_translate_filtered.jsonl"
    content = path.read_bytes()
    for changed in (content[: content.index(b"\n") + 1], content.replace(b"calm", b"loud"), None):
        path.unlink() if changed is None else path.write_bytes(changed)
        said = merge(folder, check=2)
        assert f"{path} {'is missing' if changed is None else 'was changed'} after its run" in said
        assert not (folder / path.name).exists()
    path.with_name(
        "SHA256SUMS"
    ).unlink()  # as a copy of *.json and *.jsonl leaves it: nothing shows that pairs are missing
    path.write_bytes(content[: content.index(b"\n") + 1])
    assert f"{path.with_name('SHA256SUMS')} is missing, by which files are compared" in merge(folder, check=2)
    assert not (folder / path.name).exists()
    decontaminate(folder, benchmark_dir, "--num_shards", 2, "--shard_index", 1)
    assert path.read_bytes() == content
    merge(folder)


def test_more_shards_than_files_may_be_open(tmp_path, benchmark_dir):
    folder = pairs(tmp_path, count=10)
    for index in range(10):
        decontaminate(folder, benchmark_dir, "--num_shards", 10, "--shard_index", index)
    words = [sys.executable, ROOT / "scripts/merge.py", folder]
    lines = 'ulimit -Sn 12; exec "$@"'
    result = subprocess.run(["bash", "-c", lines, "bash", *words], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len(records(folder / "Basque_translate_filtered.jsonl")) > 0
