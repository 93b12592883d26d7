"""decontamination.py as users run it: what stays, and what the report says."""

import hashlib
import json

import pytest

from tests.support.decontaminations import LEAKS, SCRIPT, data, kept, record, run
from tests.support.runs import BENCHMARKS, in_process, records
from tests.support.tiny_models import udhr_texts


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
    assert manifest["settings"]["rules_version"] == 6, "change it with the rules: results of other rules are not reused"
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
    leaks = {
        "en": LEAKS["English"][1],
        "es": "Los bomberos apagaron de noche el incendio de una gran fábrica de muebles cerca del río.",
    }
    for code, leak in leaks.items():
        paragraphs = [{"context": leak}]
        (benchmark_dir / "xquad" / f"xquad.{code}.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    clean = "Bat."
    for language, target, texts in (
        ("Spanish", "Basque", (leaks["es"], clean)),
        ("Basque", "English", (clean, leaks["en"])),
        ("Spanish", "English", (leaks["es"], leaks["en"])),
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
        assert len(records(folder / f"{language}_translate_contaminated.jsonl")) == 2 - texts.count(clean)


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


def test_a_language_of_which_nothing_is_left_is_named(planted, benchmark_dir):
    lines = [record(i, [LEAKS["Basque"][i]], ["The sea was calm and the wind came from the south."]) for i in range(2)]
    data(planted.parent, lines)
    result = run(planted, benchmark_dir)
    assert "Basque: nothing is left of 2 pairs" in result.stderr and kept(planted) == []
    assert "nothing is left" not in run(planted, benchmark_dir, "--audit").stderr
