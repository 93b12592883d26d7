"""decontamination.py as users run it: what stays, what the report says, kills, bad input."""

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

from tests.support.runs import BENCHMARKS, ROOT, in_process, records, script
from tests.support.tiny_models import udhr_texts

SCRIPT = "decontamination.py"
LEAKS = {
    # The first two are in the benchmark (16 and 14 words); the third is near the second.
    "Basque": [
        "Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela, eta batera bizi dira hemen.",
        "Herriko plazan bildu ziren atzo arratsaldean auzokide guztiak urteko jaia ospatzeko asmoz eta pozik.",
        "Herriko plazan bildu ziren atzo goizean auzokide ugari urteko jaia ospatzeko asmoz eta pozik.",
    ],
    "English": [
        "All the neighbours came together in the village square yesterday afternoon to celebrate the yearly feast.",
        "The ferry leaves the harbour every morning at seven and comes back late at night in winter.",
    ],
}


@pytest.fixture
def benchmark_dir(tmp_path) -> Path:
    """FLORES-200 in its publishers' layout: dev and devtest share a line in Basque, as they do in some languages."""
    folder = tmp_path / "benchmarks"
    for split, basque, english in (
        ("dev", [LEAKS["Basque"][0], "Egun on."], [LEAKS["English"][0], "Good morning."]),
        ("devtest", [LEAKS["Basque"][1], LEAKS["Basque"][0]], [LEAKS["English"][1], "Nothing of the kind."]),
    ):
        (folder / "flores200_dataset" / split).mkdir(parents=True)
        for code, lines in (("eus_Latn", basque), ("eng_Latn", english)):
            (folder / "flores200_dataset" / split / f"{code}.{split}").write_text("\n".join(lines) + "\n")
    return folder


def record(number: int, propositions: list[str], translations: list[str], **more) -> dict:
    return {
        "sentence": " ".join(propositions),
        "propositions": propositions,
        "translations": translations,
        "scores": [float(i) for i in range(len(propositions))],
        "topic": "sea",
        "id": f"Basque-{number}",
        **more,
    }


def data(tmp_path, lines: list[dict | str], name: str = "Basque") -> Path:
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    (folder / f"{name}_translate.jsonl").write_text(text + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def planted(tmp_path) -> Path:
    clean = "Itsasoa lasai zegoen eta haizea hegotik zetorren."
    sea = "The sea was calm and the wind came from the south."
    return data(
        tmp_path,
        [
            record(0, [clean, clean + " Bai."], [sea, sea]),
            record(1, [clean, LEAKS["Basque"][0].upper(), clean], [sea, sea, sea]),
            record(
                2,
                [clean, clean, clean],
                [sea, LEAKS["English"][1].replace("harbour", "harbour,"), sea],
                confidences=[1, 2, 3],
            ),
            record(3, [LEAKS["Basque"][2]], [sea]),
        ],
    )


def run(input_dir, benchmark_dir, *args, code=0):
    flags = [
        "--benchmarks",
        "flores",
        "--benchmark_dir",
        benchmark_dir,
        "--allow_partial_benchmark",
        "--num_workers",
        1,
    ]
    result = in_process(SCRIPT, "--input_dir", input_dir, *flags, *args)
    assert result.returncode == code, result.stdout + result.stderr
    return result


def kept(folder: Path) -> list[dict]:
    return records(folder / "Basque_translate_filtered.jsonl")


def test_paragraphs_and_pairs_that_overlap_go(planted, benchmark_dir):
    before = (planted / "Basque_translate.jsonl").read_bytes()
    result = run(planted, benchmark_dir)
    stays = kept(planted)
    assert [r["id"] for r in stays] == ["Basque-0", "Basque-2", "Basque-3"]
    assert (stays[1]["scores"], stays[1]["confidences"]) == ([0.0, 2.0], [1, 3])
    assert len(stays[1]["propositions"]) == len(stays[1]["translations"]) == 2
    lines = before.splitlines()
    assert (planted / "Basque_translate_filtered.jsonl").read_bytes().splitlines()[::2] == [lines[0], lines[3]]
    assert (planted / "Basque_translate.jsonl").read_bytes() == before
    assert "3 of 4 paragraphs and 5 of 9 pairs kept" in result.stdout
    hits = records(planted / "Basque_translate_contaminated.jsonl")
    assert [(h["line"], h["side"], h["pair"], h["dropped"], h["split"], h["benchmark_id"]) for h in hits] == [
        (2, "sentence", 1, "paragraph", "dev", "1"),
        (2, "sentence", 1, "paragraph", "devtest", "2"),
        (3, "translation", 1, "pair", "devtest", "1"),
    ]
    assert hits[2]["shared_ngram"] == "the ferry leaves the harbour every morning at seven and"
    assert not list(planted.glob("*.partial")) + list(planted.glob("*malformed*"))


@pytest.mark.parametrize(
    ("flags", "stays"),
    [
        (["--drop_on_sentence_overlap", "pair"], {0: 2, 1: 2, 2: 2, 3: 1}),
        (["--drop_on_sentence_overlap", "keep"], {0: 2, 1: 3, 2: 2, 3: 1}),
        (["--drop_on_translation_overlap", "paragraph"], {0: 2, 3: 1}),
        (["--drop_on_translation_overlap", "keep"], {0: 2, 2: 3, 3: 1}),
        (["--near_duplicate_threshold", "0.7"], {0: 2, 2: 2}),
        (["--near_duplicate_threshold", "0.9"], {0: 2, 2: 2, 3: 1}),
        (["--ngram_size", "4"], {0: 2, 2: 2}),
        # All leaks are short texts now.
        (["--ngram_size", "18"], {0: 2, 2: 2, 3: 1}),
        (
            ["--ngram_size", "18", "--short_text_rule", "whole", "--drop_on_sentence_overlap", "pair"],
            {0: 2, 1: 2, 2: 2, 3: 1},
        ),
        (["--ngram_size", "18", "--short_text_rule", "ignore"], {0: 2, 1: 3, 2: 3, 3: 1}),
    ],
)
def test_the_choices(planted, benchmark_dir, flags, stays):
    # With the last flags no benchmark text is long enough.
    run(planted, benchmark_dir, *flags, code=3 if "ignore" in flags else 0)
    assert {int(r["id"][-1]): len(r["propositions"]) for r in kept(planted)} == stays


def test_report_and_manifest(planted, benchmark_dir):
    run(planted, benchmark_dir, "--near_duplicate_threshold", "0.7")
    report = json.loads((planted / "decontamination_report.json").read_text())
    rows = {(r["side"], r["split"]): r for r in report["languages"]["Basque"]["overlaps"]}
    assert {key: (r["hits"], r["benchmark_texts_hit"], r["benchmark_texts"]) for key, r in rows.items()} == {
        ("sentence", "dev"): (1, 1, 2),
        ("sentence", "devtest"): (2, 2, 2),
        ("translation", "dev"): (0, 0, 2),
        ("translation", "devtest"): (1, 1, 2),
    }
    assert rows["sentence", "devtest"]["near_duplicate"] == 1
    assert report["hits"]["Basque"] == records(planted / "Basque_translate_contaminated.jsonl")
    (shared,) = report["between_benchmarks"]
    assert (shared["first"], shared["second"], shared["pool"]) == (["flores", "dev"], ["flores", "devtest"], True)
    assert [(p["first_id"], p["second_id"]) for p in shared["pairs"]] == [("1", "2")]
    text = (planted / "decontamination_report.md").read_text()
    for expected in (
        LEAKS["Basque"][0].upper(),
        "Herriko plazan bildu ziren atzo goizean",
        "| kept | 2 | 4 |",
        "ROUGE-L",
    ):
        assert expected in text

    manifest = json.loads((planted / "manifest_decontaminate_Basque.json").read_text())
    assert manifest["input_sha256"] == hashlib.sha256((planted / "Basque_translate.jsonl").read_bytes()).hexdigest()
    output = manifest["outputs"]["Basque_translate_filtered.jsonl"]
    assert output["sha256"] == hashlib.sha256((planted / "Basque_translate_filtered.jsonl").read_bytes()).hexdigest()
    (dev,) = [b for b in manifest["settings"]["benchmarks"]["sentence"] if b["split"] == "dev"]
    lines = (benchmark_dir / "flores200_dataset/dev/eus_Latn.dev").read_text().removesuffix("\n")
    assert dev["sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    assert manifest["finished"] and manifest["settings"]["ngram_size"] == 10
    assert manifest["settings"]["rules_version"] == 2, "change it with the rules: results of other rules are not reused"
    assert manifest["settings"]["near_duplicate_threshold"] == 0.7
    assert report["settings"].items() <= manifest["settings"].items() and report["audit"] is False


@pytest.mark.parametrize("flag", ["--audit", "--report_only"])
def test_an_audit_changes_nothing(planted, benchmark_dir, flag):
    before = {path.name for path in planted.iterdir()}
    run(planted, benchmark_dir, flag)
    new = {path.name for path in planted.iterdir() if not path.name.startswith(".lock")} - before
    assert new == {"decontamination_audit.json", "decontamination_audit.md", "SHA256SUMS"}
    assert len(json.loads((planted / "decontamination_audit.json").read_text())["hits"]["Basque"]) == 3
    assert "Nothing was dropped" in (planted / "decontamination_audit.md").read_text()


def test_report_where_the_user_wants_it(planted, benchmark_dir, tmp_path):
    run(planted, benchmark_dir, "--output_dir", tmp_path / "out", "--report", tmp_path / "papers" / "r.md")
    assert {p.name for p in (tmp_path / "papers").iterdir()} == {"r.md", "r.json", "SHA256SUMS"}
    assert len(kept(tmp_path / "out")) == 3
    assert not (planted / "Basque_translate_filtered.jsonl").exists()


def test_files_of_the_original_and_broken_lines(tmp_path, benchmark_dir):
    sea = "The sea was calm and the wind came from the south."
    original = {"sentence": "Bat. Bi.", "propositions": ["Bat.", "Bi."], "translations": [LEAKS["English"][0], sea]}
    folder = data(
        tmp_path,
        [
            original,
            {**original, "scores": []},
            {**original, "scores": [None, None]},
            "",
            {**original, "translations": [sea]},
            {**original, "scores": [1.0]},
            "[1, 2]",
            '{"sentence": 3}',
            json.dumps({**original, "sentence": "\ud800 gaizki"}),
            json.dumps(original | {"scores": [float("nan"), 1.0]}),
            json.dumps(original)[:-20],
            '{"sentence": "", "more": ' + "[" * 100_000,
        ],
    )
    path = folder / "Basque_translate.jsonl"
    path.write_bytes(path.read_bytes() + b'{"sentence": "\xff\n' + b'{"sentence": "half')
    result = run(folder, benchmark_dir)
    assert [r.get("scores") for r in kept(folder)][:3] == [None, [], [None]]
    assert all(r["propositions"] == ["Bi."] for r in kept(folder)) and len(kept(folder)) == 5
    aside = records(folder / "Basque_translate_malformed.jsonl")
    assert [r["line"] for r in aside] == [5, 6, 7, 8, 11, 12, 13, 14]
    assert [r["reason"] for r in aside[:4]] == [
        "field translations: expected 2 items, one per proposition, got 1",
        "field scores: expected 2 items, one per proposition, got 1",
        "not a JSON object, but list",
        "field sentence: expected text, got integer",
    ]
    assert aside[5]["reason"] == "nested too deeply" and aside[7]["text"] == '{"sentence": "half'
    assert "WARNING: 8 malformed lines were not checked" in result.stdout
    assert path.read_bytes().endswith(b"half")


def test_a_paragraph_can_overlap_where_no_pair_does(tmp_path, benchmark_dir):
    halves = LEAKS["Basque"][1].split(" arratsaldean ")
    folder = data(tmp_path, [record(0, [halves[0] + " arratsaldean", halves[1]], ["One.", "Two."])])
    run(folder, benchmark_dir)
    assert kept(folder) == []
    (hit,) = records(folder / "Basque_translate_contaminated.jsonl")
    assert (hit["pair"], hit["pairs"], hit["text"]) == (0, 2, LEAKS["Basque"][1])


@pytest.mark.parametrize("rule", ["paragraph", "pair"])
def test_a_benchmark_text_cut_over_two_pairs(tmp_path, benchmark_dir, rule):
    first, second = LEAKS["English"][1].split(" and ")
    basque = LEAKS["Basque"][0].split(" berberak ")
    folder = data(
        tmp_path,
        [
            record(
                0, ["Bat.", "Bi.", "Hiru.", "Lau."], ["One.", f"{first} and.", second, "Four."], pieces=[1, 2, 3, 4]
            ),
            record(1, ["Bat.", f"{basque[0]}.", f"berberak {basque[1]}"], ["One.", "Two.", "Three."]),
        ],
    )
    run(folder, benchmark_dir, "--drop_on_sentence_overlap", rule)
    stays = {r["id"]: (r["propositions"], r.get("pieces")) for r in kept(folder)}
    assert stays == {"Basque-0": (["Bat.", "Lau."], [1, 4])} | (
        {"Basque-1": (["Bat."], None)} if rule == "pair" else {}
    )
    hits = records(folder / "Basque_translate_contaminated.jsonl")
    assert {(h["side"], h["pair"], h["pairs"], h["dropped"]) for h in hits} == {
        ("translation", 1, 2, "pair"),
        ("sentence", 1, 2, rule),
    }
    assert "pair 1 to 2" in (folder / "decontamination_report.md").read_text()


def test_a_text_that_hits_twice_is_one_hit(tmp_path, benchmark_dir):
    (benchmark_dir / "flores200_dataset/dev/eng_Latn.dev").write_text(
        f"{LEAKS['English'][0]}\nAlso: {LEAKS['English'][0]}\n"
    )
    run(data(tmp_path, [record(0, ["Bat.", "Bi."], [LEAKS["English"][0]] * 2)]), benchmark_dir)
    rows = json.loads((tmp_path / "in" / "decontamination_report.json").read_text())["languages"]["Basque"]["overlaps"]
    (row,) = [row for row in rows if (row["side"], row["split"]) == ("translation", "dev")]
    assert (row["hits"], row["benchmark_texts_hit"]) == (2, 2)


def test_languages_benchmarks_lack_and_those_that_are_missing(tmp_path, planted, benchmark_dir):
    tico = benchmark_dir / "tico19-testset"
    header = "sourceLang\ttargetLang\tsourceString\ttargetString\tstringID\turl\tlicense\ttranslatorId\n"
    for split, sentence in (("dev", "Wash your hands."), ("test", LEAKS["English"][1])):
        (tico / split).mkdir(parents=True)
        (tico / split / f"{split}.en-so.tsv").write_text(f"{header}en\tso\t{sentence}\tDhaqo.\tid7\t\t\t\n")
    flags = ["--benchmarks", "flores", "tico", "xquad", "--languages", "Basque"]
    result = run(planted, benchmark_dir, *flags, code=2)
    assert "cannot load xquad in English" in result.stderr and "--allow_missing xquad" in result.stderr
    assert not list(planted.glob("*filtered*")) + list(planted.glob("*report*"))
    result = run(planted, benchmark_dir, *flags, "--allow_missing", "xquad")
    loaded = "flores dev 2 of 997 (PARTIAL), flores devtest 2 of 1,012 (PARTIAL)"
    assert f"benchmarks in Basque: {loaded}; not in tico, xquad" in result.stderr
    assert "NOT LOADED (--allow_missing): xquad" in result.stderr
    part = json.loads((planted / "decontamination_report.json").read_text())["languages"]["Basque"]
    assert part["language_not_covered"] == [["tico", "Basque"], ["xquad", "Basque"]]
    assert part["not_loaded"] == [["xquad", "English"]]
    assert "not checked" in (planted / "decontamination_report.md").read_text()
    assert [r["hits"] for r in part["overlaps"] if r["benchmark"] == "tico"] == [0, 1]


def test_a_benchmark_in_one_of_the_two_languages(tmp_path, benchmark_dir):
    (benchmark_dir / "xquad").mkdir()
    for code in ("es", "en"):
        paragraphs = [{"context": LEAKS["English"][1]}]
        (benchmark_dir / "xquad" / f"xquad.{code}.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    leak, clean = LEAKS["English"][1], "Bat."
    for language, target, texts in (
        ("Spanish", "Basque", (leak, clean)),
        ("Basque", "English", (clean, leak)),
        ("Spanish", "English", (leak, leak)),
    ):
        folder = data(tmp_path, [record(0, [texts[0]], [texts[1]])], language)
        flags = ("--languages", language, "--benchmarks", "xquad", "--target_language", target)
        result = run(folder, benchmark_dir, *flags, code=3 * ("Basque" in (language, target)))
        report = json.loads((folder / "decontamination_report.json").read_text())
        side = {"Basque": ["sentences"], "Spanish": ["translations"]}[language] if result.returncode else []
        reasons = report["languages"][language]["not_checked"]
        assert [reason.split(":")[0] for reason in reasons] == [f"the {name}" for name in side]
        markdown = (folder / "decontamination_report.md").read_text()
        assert all("no benchmark has Basque" in where for where in (result.stdout, result.stderr, markdown) if side)
        run(folder, benchmark_dir, *flags, "--allow_missing", "xquad")
        assert len(records(folder / f"{language}_translate_contaminated.jsonl")) == texts.count(leak)


def test_test_sets_and_pools_of_ones_own(tmp_path, planted, benchmark_dir):
    own = tmp_path / "mine.tsv"
    own.write_text(f"Basque\tEnglish\n{LEAKS['Basque'][2]}\tNo such thing here.\n")
    pool = tmp_path / "English.txt"
    pool.write_text(f"{LEAKS['English'][1]}\nUnrelated.\n")
    run(planted, benchmark_dir, "--benchmarks", "flores", own, "--demonstration_pool", pool)
    assert [r["id"] for r in kept(planted)] == ["Basque-0", "Basque-2"]
    report = json.loads((planted / "decontamination_report.json").read_text())
    (row,) = [row for row in report["between_benchmarks"] if str(pool) in row["second"]]
    assert (row["first"], row["pool"], row["texts_of_first"]) == (["flores", "devtest"], True, 1)
    run(planted, benchmark_dir, "--demonstration_pool", "flores")
    (row,) = json.loads((planted / "decontamination_report.json").read_text())["between_benchmarks"]
    assert (row["first"], row["second"], len(row["pairs"])) == (["flores", "dev"], ["flores", "devtest"], 1)


def test_a_short_text_inside_a_longer_one_is_audited_from_either_side(planted, benchmark_dir):
    for split, line in (
        ("dev", "One two three four five six."),
        ("devtest", "He said: one two three four five six, and left."),
    ):
        (benchmark_dir / f"flores200_dataset/{split}/eng_Latn.{split}").write_text(line + "\n")
    run(planted, benchmark_dir)
    audit = json.loads((planted / "decontamination_report.json").read_text())["between_benchmarks"]
    assert [len(row["pairs"]) for row in audit if row["language"] == "English"] == [1]


def test_another_target_language_and_the_original_tokenizer(tmp_path, benchmark_dir):
    (benchmark_dir / "flores200_dataset/dev/npi_Deva.dev").write_text("यो एउटा छोटो वाक्य हो\n")
    (benchmark_dir / "flores200_dataset/devtest/npi_Deva.devtest").write_text("अर्को वाक्य यहाँ छ\n")
    folder = data(tmp_path, [record(0, ["Bat."], ["यो एउटा छोटो वाक्य हो, भन्छन्।"])])
    stays = {}
    for tokenizer in ("unicode", "original"):
        run(folder, benchmark_dir, "--target_language", "Nepali", "--tokenizer", tokenizer)
        stays[tokenizer] = [len(r["propositions"]) for r in kept(folder)]
    # Five words are too few to count inside a sentence; torn into more than ten pieces they share an n-gram.
    assert stays == {"unicode": [1], "original": [0]}


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

    def under_way() -> bool:
        return kept_so_far.exists() and kept_so_far.stat().st_size > 0

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
    script(SCRIPT, "--input_dir", path.parent, "--output_dir", killed, *flags, 1, kill_when=under_way)
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
    command = [sys.executable, SCRIPT, "--input_dir", tmp_path / "in", "--benchmarks", "flores", "--num_workers", "2"]
    with subprocess.Popen(
        [*map(str, command), "--benchmark_dir", str(benchmark_dir), "--allow_partial_benchmark"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        workers = []
        while len(workers) < 2:
            assert process.poll() is None
            # Python's resource tracker is a child, too.
            children = psutil.Process(process.pid).children()
            workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        if how == signal.SIGKILL:  # a worker that is still starting would print that its parent is gone
            while not (tmp_path / "in" / "Basque_translate_filtered.jsonl.partial").stat().st_size:
                assert process.poll() is None
        if victim == "group":  # as Ctrl-C in a terminal does
            os.killpg(process.pid, how)
        else:
            os.kill(process.pid if victim == "run" else workers[1].pid, how)
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, b: ["--languages", "Bask"], "unknown language 'Bask': did you mean Bashkir, Basque"),
        (lambda i, b: ["--languages", "Hausa"], "no Hausa_translate.jsonl in"),
        (lambda i, b: ["--input_dir", i / "none"], "is not a directory"),
        (lambda i, b: ["--input_dir", b], "has no {Language}_translate.jsonl"),
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


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the evaluation sets are not on this machine")
def test_planted_lines_of_ntrex_are_found(tmp_path):
    basque = (BENCHMARKS / "NTREX-128/newstest2019-ref.eus.txt").read_text().split("\n")[:1997]
    english = (BENCHMARKS / "NTREX-128/newstest2019-src.eng.txt").read_text().split("\n")[:1997]
    clean = udhr_texts("Basque")
    folder = data(
        tmp_path,
        [record(i, [clean[i % len(clean)], line], ["A.", "B."]) for i, line in enumerate(basque)]
        + [record(i, clean[:2], ["A.", line.upper()]) for i, line in enumerate(english)],
    )
    result = in_process(SCRIPT, "--input_dir", folder, "--benchmarks", "ntrex", "--benchmark_dir", BENCHMARKS)
    assert result.returncode == 0, result.stderr
    stays = kept(folder)
    assert len(stays) == len(english) and all(len(r["propositions"]) == 1 for r in stays)
    part = json.loads((folder / "decontamination_report.json").read_text())["languages"]["Basque"]
    assert sum(row["benchmark_texts_hit"] for row in part["overlaps"]) == 2 * 1997


def test_outputs_are_never_written_through_a_link(planted, benchmark_dir):
    precious = planted / "thesis.tex"
    precious.write_text("do not lose me")
    (planted / "Basque_translate_filtered.jsonl.partial").symlink_to(precious)
    result = run(planted, benchmark_dir, code=2)
    assert "symbolic links" in result.stderr and precious.read_text() == "do not lose me"


LINES = {
    "Basque": record(0, ["Itsasoa lasai zegoen."], ["The sea was calm."]),
    "Hausa": record(1, ["Teku."], [LEAKS["English"][1]]),
}


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
    big(tmp_path / "big" / "of.jsonl", 15_000)
    for language in LINES:
        shutil.copy(tmp_path / "big" / "of.jsonl", two_languages / f"{language}_translate.jsonl")

    def start(language: str) -> subprocess.Popen:
        command = [sys.executable, SCRIPT, "--input_dir", two_languages, "--benchmarks", "flores", "--num_workers", 1]
        command += ["--benchmark_dir", benchmark_dir, "--allow_partial_benchmark", "--languages", language]
        return subprocess.Popen(
            [*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    processes = [start(language) for language in LINES]
    while not (two_languages / "Basque_translate_filtered.jsonl.partial").exists():
        assert processes[0].poll() is None
    processes[0].send_signal(signal.SIGSTOP)
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
        assert manifest["counts"]["records"] == 15_000 == report["languages"][language]["counts"]["records"]


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


def test_a_language_of_which_nothing_is_left_is_named(planted, benchmark_dir):
    lines = [record(i, [LEAKS["Basque"][i]], ["The sea was calm and the wind came from the south."]) for i in range(2)]
    data(planted.parent, lines)
    result = run(planted, benchmark_dir)
    assert "Basque: nothing is left of 2 pairs" in result.stderr and kept(planted) == []
    assert "nothing is left" not in run(planted, benchmark_dir, "--audit").stderr


def test_the_target_language_is_that_of_the_folder(tmp_path, benchmark_dir):
    """French translations compared with English benchmarks overlap nothing."""
    folder = data(
        tmp_path, [record(0, ["Bat."], ["Le ferry quitte le port tous les matins et revient tard le soir en hiver."])]
    )
    for split in ("dev", "devtest"):
        path = benchmark_dir / "flores200_dataset" / split / f"fra_Latn.{split}"
        path.write_text("Le ferry quitte le port tous les matins et revient tard le soir en hiver.\n")
    (folder / "settings_translate.json").write_text('{"target_language": "French"}')
    run(folder, benchmark_dir)
    assert len(records(folder / "Basque_translate_contaminated.jsonl")) == 2
    refused = run(folder, benchmark_dir, "--target_language", "English", code=2)
    assert "French" in refused.stderr and "--target_language" in refused.stderr


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


HOSTILE = (
    "null",
    "1",
    "1e999",
    "1" + "0" * 300,
    '"x"',
    "[]",
    "{}",
    "[null]",
    '[{"a": 1}]',
    "[" * 300 + "]" * 300,
    "[" * 100_000,
    "NaN",
)


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
