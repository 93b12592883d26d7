"""What overlaps test sets: every hit with the words that both texts share, and what was compared with nothing."""

import json
import os
from pathlib import Path

import pytest

from comptra.report import Options
from comptra.report.sections import contamination
from comptra.report.sections.contamination import MAX_TEXT, HitSample, shared_spans
from tests.support import synthetic_run
from tests.support.runs import in_process
from topxgen.common.files import read_jsonl
from topxgen.common.records import FilteredLayout, Layout
from topxgen.runs.folders import find
from topxgen.text.ngram_hashes import TOKENIZERS

FOLDER = "nllb-200-3.3B"
RULES = {"ngram_size": 4, "tokenizer": "unicode"}
# The first two have six words or more, so that an n-gram of four words is not the whole text.
BENCHMARK = (
    "Gizaki guztiak aske jaiotzen dira, eta duintasun bera dute denek.",
    "Etxe zuri handi bat dago mendian.",
    "Egun on.",
)


def write(path: Path, *records: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def record(name: str, *pairs: tuple[str, str]) -> dict:
    sentences, translations = zip(*pairs, strict=True)
    return {
        "id": name,
        "sentence": " ".join(sentences),
        "propositions": list(sentences),
        "translations": list(translations),
    }


def pieces(text: str, spans: list) -> list[str]:
    return [text[start:end] for start, end in spans]


def collected(root: Path) -> tuple[dict, Options]:
    options = Options()
    return json.loads(json.dumps(contamination.collect(find(root), options))), options


def unchecked(data: dict) -> dict[str, str]:
    found = {}
    for line in data["unchecked"]:
        found[line["language"]] = "; ".join(filter(None, (found.get(line["language"]), line["text"])))
    return found


@pytest.mark.parametrize(
    "text, other, kind, language, expected, expected_other",
    [
        ("A b c d e f.", "x b C d e y", "ngram", "Basque", ["b c d e"], ["b C d e"]),
        ("A b c d e f.", "x b C d y", "ngram", "Basque", [], []),
        ("a b c d, x, e f g h!", "e f g h z a b c d", "ngram", "Basque", ["a b c d", "e f g h"], ["e f g h", "a b c d"]),
        ("q a b c d e q", "a b c d e", "ngram", "Basque", ["a b c d e"], ["a b c d e"]),
        ("So: good morning, all", "Good Morning", "short_text", "Basque", ["good morning"], ["Good Morning"]),
        ("a b c x d", "a y b c d", "near_duplicate", "Basque", ["a b c", "d"], ["a", "b c d"]),
        ("مَرْحَبًا بِكُم في البيت x", "مرحبا بكم في البيت", "ngram", "Urdu", ["مَرْحَبًا بِكُم في البيت"], ["مرحبا بكم في البيت"]),
        ("Cafe\u0301 au lait froid", "Café au lait froid!", "ngram", "French", ["Café au lait froid"], ["Café au lait froid"]),
        ("x नमस्ते दुनिया के लोग", "नमस्ते दुनिया के लोग", "ngram", "Hindi", ["नमस्ते दुनिया के लोग"], ["नमस्ते दुनिया के लोग"]),
    ],
)  # fmt: skip
def test_shared_words(text, other, kind, language, expected, expected_other):
    import unicodedata

    spans, other_spans = shared_spans(text, other, kind, RULES, language)
    assert pieces(unicodedata.normalize("NFC", text), spans) == expected
    assert pieces(unicodedata.normalize("NFC", other), other_spans) == expected_other


def test_ngrams_are_longer_in_scripts_without_spaces():
    text = "我们今天去北京看朋友"
    rules = {"ngram_size": 10, "tokenizer": "unicode"}  # 15 characters
    assert shared_spans(text, text + "了吗是的", "ngram", rules, "Chinese (Simplified)") == ([], [])
    spans = shared_spans(text, text, "ngram", rules, "Chinese (Simplified)")  # shorter than an n-gram: all of it
    assert spans == ([(0, 10)], [(0, 10)])


def test_the_length_of_ngrams_is_that_of_the_manifest():
    """Of a language of the user's own table the page does not know the script."""
    rules = {"ngram_size": 10, "tokenizer": "unicode", "tokens_per_ngram": {"Tenglish": 3}}
    assert shared_spans("a b c d", "b c d e", "ngram", rules, "Tenglish") == ([(2, 7)], [(0, 5)])
    assert shared_spans("a b c d", "b c d e", "ngram", rules, "Basque") == ([], [])


@pytest.mark.parametrize(
    "field, value", [("language", 5), ("id", {"a": 1}), ("text", None), ("pair", "0"), ("match", "other")]
)
def test_hits_of_another_form_are_left_out(folder, field, value):
    decontaminate(folder, code=3)
    hits = FilteredLayout(folder / "run" / FOLDER).hits("Basque")
    line = json.loads(hits.read_text(encoding="utf-8"))
    write(hits, {**line, field: value}, line)
    data, options = collected(folder / "run")
    assert data["total"] == 1 and any("line 1 is left out: field" in notice.text for notice in options.notices)


def test_places_are_counted_as_javascript_counts():
    part = contamination._cut("🦊🦊 a b", [(3, 6)])
    assert part == {"text": "🦊🦊 a b", "spans": [(5, 8)]}
    assert part["text"].encode("utf-16-le")[2 * 5 : 2 * 8].decode("utf-16-le") == "a b"


def test_long_texts_are_cut_with_their_marks():
    text = "a " * MAX_TEXT
    part = contamination._cut(text, [(0, 3), (MAX_TEXT - 1, MAX_TEXT + 5), (MAX_TEXT + 10, MAX_TEXT + 20)])
    assert len(part["text"]) == MAX_TEXT and part["length"] == 2 * MAX_TEXT
    assert part["spans"] == [(0, 3), (MAX_TEXT - 1, MAX_TEXT)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A real decontamination of ten languages, one of which no benchmark has, with evaluations."""
    return synthetic_run.make(
        tmp_path_factory.mktemp("run"), 800, ("Basque", "Urdu", "Nepali", "N'ko", "Burmese")
    ).folder


def test_the_marks_are_the_tokens_that_decontamination_counted(run):
    data, _ = collected(run)
    hits = [
        hit
        for name in ("Basque", "Burmese", "N'ko", "Nepali", "Urdu")
        for hit in read_jsonl(FilteredLayout(run / FOLDER).hits(name))
    ]
    assert data["total"] == len(hits) == len(data["hits"]) > 5
    key = ("line", "side", "pair", "benchmark_id", "benchmark")
    of_file = {(hit["folder"], hit["language"], *(hit[k] for k in key)): hit for hit in data["hits"]}
    assert len(of_file) == len(hits)
    tokens = TOKENIZERS["unicode"].tokens
    for hit in data["hits"]:
        marked = [token for start, end in hit["text"]["spans"] for token in tokens(hit["text"]["text"][start:end])]
        assert len(marked) == hit["tokens"] and marked
        assert hit["other"]["spans"], "the benchmark text has no mark"
    assert {hit["side"] for hit in data["hits"]} == {"sentence", "translation"}


def test_rows_count_what_the_report_counts(run):
    data, _ = collected(run)
    report = json.loads((run / FOLDER / "decontamination_report.json").read_text(encoding="utf-8"))
    expected = {
        (language, row["side"], row["benchmark"], row["split"]): (
            row["hits"],
            row["benchmark_texts_hit"],
            row["benchmark_texts"],
        )
        for language, part in report["languages"].items()
        for row in part["overlaps"]
    }
    found = {
        (row["language"], row["side"], row["benchmark"], row["split"]): (
            row["hits"],
            row["texts_hit"],
            row["benchmark_texts"],
        )
        for row in data["rows"]
    }
    assert found == expected and any(hits for hits, *_ in found.values())
    assert all(sum(row["dropped"].values()) == row["hits"] == sum(row["kinds"].values()) for row in data["rows"])
    (between,) = data["between"]
    assert between["count"] == len(report["between_benchmarks"][0]["pairs"]) and between["pool"]
    assert all(pair["text"]["spans"] and pair["other"]["spans"] for pair in between["pairs"])


def test_without_the_report_the_manifests_say_the_same(run, tmp_path):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / FOLDER / "decontamination_report.json").unlink()
    with_report, without = collected(run)[0], collected(copy)[0]
    assert without["rows"] == with_report["rows"] and without["hits"] == with_report["hits"]
    assert unchecked(without).keys() == unchecked(with_report).keys() == {"N'ko"}
    assert "no benchmark in N'ko" in unchecked(without)["N'ko"] and without["between"] == []


def test_evaluated_test_sets_are_named(run):
    data, _ = collected(run)
    directions = {(test["benchmark"], test["split"], test["src"], test["tgt"]) for test in data["tests"]}
    assert ("udhr", "test", "Basque", "English") in directions and all(test["systems"] > 0 for test in data["tests"])


# --- what was not checked ---


@pytest.fixture
def folder(tmp_path) -> Path:
    """Pairs of two languages, some of which overlap a benchmark of the user's own."""
    layout = Layout(tmp_path / "run", FOLDER)
    overlapping = record(
        "Basque-1.0",
        ("Esaten zuen gizaki guztiak aske jaiotzen dira eta kito.", "He said it."),
        ("Beste bat hemen.", "Other."),
    )
    write(
        layout.translations("Basque"),
        overlapping,
        record("Basque-2.0", ("Hau ez da inon agertzen.", "This is nowhere.")),
    )
    write(layout.translations("Hausa"), record("Hausa-1.0", ("Wannan jimla ce.", "This is a sentence.")))
    (tmp_path / "own.txt").write_text("\n".join(BENCHMARK) + "\n", encoding="utf-8")
    return tmp_path


def decontaminate(folder: Path, *flags, language: str = "Basque", code: int = 0) -> None:
    command = (
        "--input_dir",
        folder / "run" / FOLDER,
        "--benchmarks",
        f"{folder / 'own.txt'}:Basque",
        "--ngram_size",
        4,
    )
    result = in_process("decontamination.py", *command, "--languages", language, *flags)
    assert result.returncode == code, result.stderr


def test_pairs_that_never_went_through_decontamination(folder):
    assert unchecked(collected(folder / "run")[0]) == dict.fromkeys(
        ("Basque", "Hausa"), "never went through decontamination.py"
    )
    decontaminate(folder, code=3)
    data, _ = collected(folder / "run")
    assert unchecked(data)["Hausa"] == "never went through decontamination.py"
    assert {one["language"]: one["status"] for one in data["languages"]} == {"Basque": "filtered", "Hausa": "never"}
    assert "the translations: no benchmark has English" in unchecked(data)["Basque"]
    (hit,) = data["hits"]
    assert pieces(hit["text"]["text"], hit["text"]["spans"]) == ["gizaki guztiak aske jaiotzen dira eta"]
    assert pieces(hit["other"]["text"], hit["other"]["spans"]) == ["Gizaki guztiak aske jaiotzen dira, eta"]
    assert (hit["id"], hit["pair"], hit["dropped"]) == ("Basque-1.0", 0, "paragraph")


def test_a_text_that_overlaps_two_texts_of_a_split_counts_once(folder):
    with open(folder / "own.txt", "a", encoding="utf-8") as file:
        file.write("Hemen ere gizaki guztiak aske jaiotzen.\n")
    decontaminate(folder, code=3)
    data, _ = collected(folder / "run")
    (row,) = [row for row in data["rows"] if row["hits"]]
    assert (data["total"], row["hits"], row["dropped"], row["texts_hit"]) == (2, 1, {"paragraph": 1}, 2)


def test_an_audit_drops_nothing(folder):
    decontaminate(folder, "--audit", code=3)
    data, _ = collected(folder / "run")
    assert "checked by --audit only: nothing was dropped" in unchecked(data)["Basque"]
    assert data["total"] == 1 and data["hits"][0]["text"]["spans"] and data["languages"][0]["status"] == "audit"


def test_pairs_that_changed_afterwards(folder):
    decontaminate(folder, code=3)
    path = Layout(folder / "run", FOLDER).translations("Basque")
    size = path.stat().st_size
    with open(path, "ab") as file:
        file.write(b'{"id": "x", "sentence": "", "propositions": [], "translations": []}\n')
    assert (
        f"Basque_translate.jsonl has changed since: it had {size:,} bytes"
        in unchecked(collected(folder / "run")[0])["Basque"]
    )
    for manifest in (folder / "run").rglob("manifest_decontaminate_*.json"):
        manifest.unlink()  # the report has the digest
    assert "Basque_translate.jsonl has changed since" in unchecked(collected(folder / "run")[0])["Basque"]


def test_malformed_lines(folder):
    path = Layout(folder / "run", FOLDER).translations("Basque")
    path.write_bytes(path.read_bytes() + b'{"propositions": 5}\n')
    decontaminate(folder, code=3)
    assert "1 malformed lines" in unchecked(collected(folder / "run")[0])["Basque"]


def test_benchmarks_that_were_not_loaded_or_are_partial(folder):
    decontaminate(
        folder,
        "--benchmarks",
        f"{folder / 'own.txt'}:Basque",
        "flores",
        "--benchmark_dir",
        folder,
        "--allow_missing",
        "flores",
    )
    text = unchecked(collected(folder / "run")[0])["Basque"]
    assert "flores in Basque was not loaded" in text and "flores in English was not loaded" in text
    manifest = FilteredLayout(folder / "run" / FOLDER).manifest("Basque")
    (folder / "run" / FOLDER / "decontamination_report.json").unlink()
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["settings"]["benchmarks"]["sentence"][0] |= {"published_texts": 997, "texts": 3}
    manifest.write_text(json.dumps(content), encoding="utf-8")
    text = unchecked(collected(folder / "run")[0])["Basque"]
    assert "in Basque is a partial copy (3 of 997 texts): the rest of it was not compared" in text
    assert "flores in Basque was not loaded" in text


def test_filtered_files_of_the_original_have_no_manifest(folder):
    layout = FilteredLayout(folder / "run" / FOLDER)
    layout.filtered("Basque").write_bytes(Layout(folder / "run", FOLDER).translations("Basque").read_bytes())
    data, options = collected(folder / "run")
    assert "it is not known what it was checked against" in unchecked(data)["Basque"]
    assert data["total"] == 0 and not [n for n in options.notices if n.level == "problem"]


def test_a_report_of_an_earlier_run_is_not_believed(folder):
    decontaminate(folder, code=3)
    report = folder / "run" / FOLDER / "decontamination_report.json"
    old = json.loads(report.read_text(encoding="utf-8"))
    old["languages"]["Basque"] |= {"input_sha256": "0" * 64, "not_checked": ["something old"]}
    report.write_text(json.dumps(old), encoding="utf-8")
    assert "something old" not in unchecked(collected(folder / "run")[0])["Basque"]


def test_counts_of_a_report_that_are_not_those_of_the_manifest_are_said(folder):
    decontaminate(folder, code=3)
    report = folder / "run" / FOLDER / "decontamination_report.json"
    forged = json.loads(report.read_text(encoding="utf-8"))
    pairs = forged["languages"]["Basque"]["counts"]["pairs"]
    forged["languages"]["Basque"]["counts"]["pairs"] = 77
    report.write_text(json.dumps(forged), encoding="utf-8")
    data = collected(folder / "run")[0]
    assert "counts otherwise than the manifest" in unchecked(data)["Basque"]
    assert next(one for one in data["languages"] if one["language"] == "Basque")["counts"]["pairs"] == pairs


@pytest.mark.parametrize("content", [b"{", b'{"languages": 5, "counts": 5}', b"[]", b"\xff\xfe", b"", None])
def test_damaged_files_are_named(folder, content):
    """None: a pipe, which nobody writes to."""
    decontaminate(folder, code=3)
    layout = FilteredLayout(folder / "run" / FOLDER)
    for path in (layout.output_dir / "decontamination_report.json", layout.manifest("Basque")):
        path.unlink()
        path.write_bytes(content) if content is not None else os.mkfifo(path)
    with open(layout.hits("Basque"), "ab") as file:
        file.write(b'{"line": 1, "si')
    data, options = collected(folder / "run")
    problems = " ".join(notice.text for notice in options.notices)
    assert "decontamination_report.json is left out" in problems and "manifest_decontaminate_Basque.json" in problems
    assert "the last line of Basque_translate_contaminated.jsonl is being written" in problems
    assert data["total"] == 1 and "it is not known" in unchecked(data)["Basque"]


def test_paragraphs_without_ids_have_those_of_the_browser_of_pairs(folder):
    from comptra.report.sections import pairs

    path = Layout(folder / "run", FOLDER).translations("Basque")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    write(path, *({key: value for key, value in line.items() if key != "id"} for line in lines))
    decontaminate(folder, code=3)
    (hit,) = collected(folder / "run")[0]["hits"]
    assert hit["id"] and hit["id"] in pairs.collect(find(folder / "run"), Options())["paragraphs"]["id"]


def test_no_pairs_no_section(tmp_path):
    assert contamination.collect(find(tmp_path), Options()) is None


def test_a_sample_of_hits_has_every_row():
    sample = HitSample(1, limit=30)
    for n in range(1000):
        sample.add(("many",), {"id": f"a-{n}", "n": n})
    for n in range(3):
        sample.add((f"few {n}",), {"id": f"b-{n}", "n": n})
    chosen = sample.chosen()
    assert sample.total == 1003 and 20 <= len(chosen) <= 30
    assert {hit["id"][0] for hit in chosen} == {"a", "b"} and sum(hit["id"].startswith("b") for hit in chosen) == 3
    of_many = [hit["n"] for hit in chosen if hit["id"].startswith("a")]
    assert of_many == sorted(of_many) and max(of_many) > 500
    expected = sorted(range(1000), key=lambda n: contamination.order(1, f"a-{n}"))[: len(of_many)]
    assert sorted(of_many) == sorted(expected)
