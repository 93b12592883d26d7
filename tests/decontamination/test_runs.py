"""Runs of decontamination.py: killed, repeated, side by side, with damaged files, and refused before the work."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.decontaminations import HOSTILE, LEAKS, LINES, SCRIPT, data, kept, record, run
from tests.support.processes import await_stop
from tests.support.runs import ROOT, in_process, records, script, signalled
from tests.support.tiny_models import udhr_texts
from topxgen.decontamination import report


def big(path: Path, copies: int) -> None:
    lines = []
    texts = udhr_texts("Basque")
    rng = random.Random(0)
    for i in range(copies):
        sentences = [" ".join(rng.sample(rng.choice(texts).split() * 3, 15)) for _ in range(8)]
        if i % 100 == 3:
            sentences[4] = LEAKS["Basque"][i // 100 % 2]
        lines.append(json.dumps(record(i, sentences, sentences, confidences=[0.5] * 8), ensure_ascii=False))
    path.parent.mkdir()
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.medium
def test_a_killed_run_starts_again_and_the_number_of_workers_changes_nothing(tmp_path, benchmark_dir):
    path = tmp_path / "in" / "Basque_translate.jsonl"
    big(path, 12_000)
    assert path.stat().st_size > 5 << 22, "several chunks"
    flags = ["--benchmarks", "flores", "--benchmark_dir", benchmark_dir, "--allow_partial_benchmark", "--num_workers"]
    manifests = {}
    killed = tmp_path / "killed"
    kept_so_far = killed / "Basque_translate_filtered.jsonl.partial"

    # What an unfinished run of an older version leaves behind is ignored.
    killed.mkdir()
    old = {
        "settings": {"ngram_size": 10},
        "input": {"bytes": 1},
        "done": 5,
        "outputs": {kept_so_far.stem: {"bytes": 3}},
    }
    (killed / "manifest_decontaminate_Basque.json").write_text(json.dumps(old))
    (killed / "Basque_translate_contaminated.jsonl.partial").write_text("x")
    script(SCRIPT, "--input_dir", path.parent, "--output_dir", killed, *flags, 1, killed_at=(kept_so_far, 1))
    assert not list(killed.glob("*.jsonl"))
    assert json.loads((killed / "manifest_decontaminate_Basque.json").read_text()) == old
    for name, workers in (("killed", 1), ("one", 1), ("three", 3)):
        script(SCRIPT, "--input_dir", path.parent, "--output_dir", tmp_path / name, *flags, workers)
        manifests[name] = json.loads((tmp_path / name / "manifest_decontaminate_Basque.json").read_text())
    for name in ("killed", "three"):
        for file in ("Basque_translate_filtered.jsonl", "Basque_translate_contaminated.jsonl"):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "one" / file).read_bytes()
        assert not list((tmp_path / name).glob("*.partial"))
        assert manifests[name]["counts"] == manifests["one"]["counts"]
        assert manifests[name]["input_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifests["one"]["counts"]["paragraphs_dropped"] == 120
    assert [h["line"] for h in records(tmp_path / "three" / "Basque_translate_contaminated.jsonl")][-1] == 11_904


@pytest.mark.medium
@pytest.mark.parametrize(
    ("victim", "how", "code"),
    [
        ("run", signal.SIGKILL, -9),
        ("run", signal.SIGINT, 130),
        ("group", signal.SIGINT, 130),
        ("worker", signal.SIGKILL, 2),
    ],
)
def test_no_worker_outlives_the_run_and_a_killed_worker_ends_it(tmp_path, benchmark_dir, victim, how, code):
    big(tmp_path / "in" / "Basque_translate.jsonl", 15_000)
    stop = signalled(tmp_path / "in" / "Basque_translate_filtered.jsonl.partial", 1, "SIGSTOP")
    command = [sys.executable, *stop, SCRIPT, "--input_dir", tmp_path / "in", "--benchmarks", "flores"]
    command += ["--num_workers", "2"]
    with subprocess.Popen(
        [*map(str, command), "--benchmark_dir", str(benchmark_dir), "--allow_partial_benchmark"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        await_stop(process)
        # Python's resource tracker is a child, too.
        children = psutil.Process(process.pid).children()
        workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        assert len(workers) == 2
        if victim == "group":  # as Ctrl-C in a terminal does
            os.killpg(process.pid, how)
        else:
            os.kill(process.pid if victim == "run" else workers[1].pid, how)
        process.send_signal(signal.SIGCONT)
        err = process.stderr.read()
    assert process.returncode == code
    assert "Traceback" not in err
    if code == 130:
        assert err.endswith("\ninterrupted; the input files are unchanged; re-run the same command to start over\n")
    if code == 2:
        assert err.splitlines()[-1].startswith("decontamination.py: error: a worker process was killed")
    files = {path.name for path in (tmp_path / "in").iterdir() if not path.name.startswith(".lock")}
    files -= {"Basque_translate.jsonl"}
    assert not files or (code == -9 and all(name.endswith(".partial") for name in files))
    psutil.wait_procs(workers, timeout=120)
    assert not any(worker.is_running() for worker in workers)


def test_a_finished_run_is_not_repeated_and_other_settings_are(planted, benchmark_dir):
    output = planted / "Basque_translate_filtered.jsonl"

    def times(*flags) -> int:
        run(planted, benchmark_dir, *flags)
        return output.stat().st_mtime_ns

    first = times()
    assert times() == first
    assert times("--ngram_size", "4") != first and len(kept(planted)) == 2
    times("--benchmarks", "flores", "tico", "--allow_missing", "tico")
    manifest = json.loads((planted / "manifest_decontaminate_Basque.json").read_text())
    assert manifest["settings"]["not_loaded"] == [["tico", "English"]], "what was not checked is on record"
    with open(planted / "Basque_translate.jsonl", "a") as file:
        file.write(json.dumps(record(9, ["Bat."], ["One."])) + "\n")
    run(planted, benchmark_dir)
    assert [r["id"] for r in kept(planted)] == ["Basque-0", "Basque-2", "Basque-3", "Basque-9"]


@pytest.fixture
def two_languages(tmp_path, benchmark_dir) -> Path:
    for split in ("dev", "devtest"):
        folder = benchmark_dir / "flores200_dataset" / split
        (folder / f"hau_Latn.{split}").write_text("Ina kwana.\nSannu da zuwa.\n")
    for language, line in LINES.items():
        folder = data(tmp_path, [line], language)
    return folder


def test_the_report_holds_all_languages_however_they_were_run(two_languages, benchmark_dir):
    def report() -> tuple[dict, str]:
        content = json.loads((two_languages / "decontamination_report.json").read_text())
        del content["command"]
        return content, (two_languages / "decontamination_report.md").read_text()

    for mode in ([], ["--audit"]):
        name = "decontamination_audit" if mode else "decontamination_report"
        run(two_languages, benchmark_dir, *mode)
        together = [(two_languages / f"{name}.{kind}").read_text() for kind in ("json", "md")]
        assert "## Basque" in together[1] and "## Hausa" in together[1] and LEAKS["English"][1] in together[1]
        for order in (("Hausa", "Basque"), ("Basque", "Hausa")):
            (two_languages / f"{name}.json").unlink(), (two_languages / f"{name}.md").unlink()
            for language in order:
                run(two_languages, benchmark_dir, *mode, "--languages", language)
            apart = [(two_languages / f"{name}.{kind}").read_text() for kind in ("json", "md")]
            assert apart[1] == together[1]
            contents = [json.loads(text) | {"command": 0} for text in (apart[0], together[0])]
            for content in contents:
                content["between_benchmarks"].sort(key=str)
            assert contents[0] == contents[1]
    # Other rules for one language; a language whose results were removed.
    run(two_languages, benchmark_dir, "--languages", "Hausa", "--ngram_size", 12)
    content, text = report()
    assert content["languages"]["Basque"]["settings"]["ngram_size"] == 10 and "Checked by other rules" in text
    (two_languages / "manifest_decontaminate_Basque.json").unlink()
    run(two_languages, benchmark_dir, "--languages", "Hausa")
    assert list(report()[0]["languages"]) == ["Hausa"]


@pytest.mark.medium
def test_two_languages_at_once_and_one_twice(tmp_path, two_languages, benchmark_dir):
    big(tmp_path / "big" / "of.jsonl", 3_000)
    for language in LINES:
        shutil.copy(tmp_path / "big" / "of.jsonl", two_languages / f"{language}_translate.jsonl")

    def start(language: str, *before: str) -> subprocess.Popen:
        command = [sys.executable, *before, SCRIPT, "--input_dir", two_languages, "--benchmarks", "flores"]
        command += ["--num_workers", 1]
        command += ["--benchmark_dir", benchmark_dir, "--allow_partial_benchmark", "--languages", language]
        return subprocess.Popen(
            [*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    stop = signalled(two_languages / "Basque_translate_filtered.jsonl.partial", 0, "SIGSTOP")
    processes = [start("Basque", *stop), start("Hausa")]
    await_stop(processes[0])
    twice = start("Basque")
    _, err = twice.communicate()
    assert twice.returncode == 2 and "Basque in" in err and "is in use by process" in err and err.count("error:") == 1
    processes[0].send_signal(signal.SIGCONT)
    for process in processes:
        _, err = process.communicate()
        assert process.returncode == 0, err
    report = json.loads((two_languages / "decontamination_report.json").read_text())
    assert list(report["languages"]) == ["Basque", "Hausa"]
    for language in LINES:
        manifest = json.loads((two_languages / f"manifest_decontaminate_{language}.json").read_text())
        assert manifest["counts"]["records"] == 3_000 == report["languages"][language]["counts"]["records"]


@pytest.mark.parametrize(
    "key", ["languages", "hits", "benchmarks", "between_benchmarks", "Basque", "counts", "settings", "overlaps"]
)
def test_a_damaged_report_is_written_anew(planted, benchmark_dir, key, monkeypatch):
    """With a warning: its other languages are lost, the results themselves are not."""
    run(planted, benchmark_dir)
    path, good = planted / "decontamination_report.json", (planted / "decontamination_report.json").read_bytes()
    content = json.loads(good)
    part = content["languages"]["Hausa"] = content["languages"]["Basque"]  # one of an earlier run
    content["hits"]["Hausa"] = []
    shutil.copy(planted / "manifest_decontaminate_Basque.json", planted / "manifest_decontaminate_Hausa.json")
    for value in HOSTILE:
        damaged = json.loads(json.dumps(content))
        place = (
            damaged if key in damaged else damaged["languages"] if key == "Basque" else damaged["languages"]["Hausa"]
        )
        place["Hausa" if key == "Basque" else key] = "HERE"
        path.write_text(json.dumps(damaged).replace('"HERE"', value))
        result = run(planted, benchmark_dir)
        assert json.loads(path.read_bytes())["languages"]["Basque"] == part
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("key", [None, "settings", "input", "outputs", "counts", "input_sha256"])
def test_a_damaged_manifest_is_made_again(two_languages, benchmark_dir, key):
    run(two_languages, benchmark_dir)
    path = two_languages / "manifest_decontaminate_Basque.json"
    content = json.loads(path.read_bytes())
    for value in HOSTILE:
        damaged = json.dumps({**content, key: "HERE"}).replace('"HERE"', value) if key else value
        for language in ("Hausa", "Basque"):
            path.write_text(damaged)
            result = run(two_languages, benchmark_dir, "--languages", language)
            assert "Traceback" not in result.stderr
        again = json.loads(path.read_bytes())
        assert (again["counts"], again["input"]) == (content["counts"], content["input"])


def test_kept_pairs_that_are_removed_meanwhile_are_no_success(planted, benchmark_dir, monkeypatch):
    """Such as those of one language while another one is checked."""
    output, summary = planted / "Basque_translate_filtered.jsonl", report.summary

    def removing(*args):
        output.unlink()
        return summary(*args)

    monkeypatch.setattr(report, "summary", removing)
    flags = ("--benchmarks", "flores", "--benchmark_dir", benchmark_dir, "--allow_partial_benchmark")
    result = in_process(SCRIPT, "--input_dir", planted, *flags)
    assert result.returncode == 2 and f"{output} was removed while this run was going on" in result.stderr
