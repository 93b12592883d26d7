"""The browser of pairs: which rows are in a page, and that they come back as they are in the files."""

import json
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from comptra.report import Options, packing
from comptra.report.sections import pairs
from comptra.report.sections.contamination import MAX_TEXT
from tests.support import synthetic_run
from topxgen.common.records import Layout
from topxgen.runs.folders import find
from topxgen.runs.rows import Row, paragraphs, rows, texts

FOLDER = "nllb-200-3.3B"


def write(path: Path, *records: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8")


def translated(name: str, sentences: list[str], paragraph: str | None = None, **more) -> dict:
    return {
        "id": name,
        "topic": "Rivers",
        "sentence": " ".join(sentences) if paragraph is None else paragraph,
        "propositions": sentences,
        "translations": [f"Translation {n} of {name}." for n in range(len(sentences))],
        **more,
    }


def decoded(data: dict) -> list[dict]:
    """The rows of a page, read as its script reads them: places are in UTF-16 units."""
    paragraph, columns, found = data["paragraphs"], data["rows"], []
    others, number = iter(data["others"]), 0
    for p, size in enumerate(paragraph["rows"]):
        units, end = (paragraph["text"][p] or "").encode("utf-16-le"), 0
        for _ in range(size):
            if (length := columns["length"][number]) is None:
                sentence = next(others)
            else:
                start = end + columns["gap"][number]
                sentence, end = units[2 * start : 2 * (start + length)].decode("utf-16-le"), start + length
            row = {name: columns[name][number] for name in ("translation", "score", "confidence")}
            for name in ("reason", "scorer", "detail"):
                row[name] = columns[name]["values"][columns[name]["codes"][number]]
            row |= {"id": f"{paragraph['id'][p]}/{columns['letter'][number]}{columns['index'][number]}"}
            row |= {
                "sentence": sentence,
                "state": data["states"][columns["state"][number]],
                "text": paragraph["text"][p],
            }
            row |= {"language": paragraph["language"]["values"][paragraph["language"]["codes"][p]]}
            row |= {
                "source": paragraph["source"][p],
                "topic": paragraph["topic"]["values"][paragraph["topic"]["codes"][p]],
            }
            found.append(row)
            number += 1
    assert next(others, None) is None and number == len(columns["state"])
    return found


def in_files(run) -> list[tuple[int, Row]]:
    found, source = [], 0
    for one in run.back_translations:
        found += [(source, row) for language in one.languages for row in rows(one, language)]
        source += 1
    for one in run.generations:
        found += [(source, row) for language in run.languages for row in texts(one, language)]
        source += 1
    return found


def collected(root: Path, **options) -> tuple[dict, Options]:
    options = Options(**options)
    data = pairs.collect(find(root), options)
    return json.loads(json.dumps(data)), options  # as it is in the page


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    return find(synthetic_run.make(root, 600, ("Basque", "Urdu", "N'ko"), later_stages=False).folder)


def test_every_row_comes_back_as_it_is_in_the_files(run):
    data, options = collected(run.root)
    expected = {(source, row.id): row for source, row in in_files(run)}
    found = {(row["source"], row["id"]): row for row in decoded(data)}
    assert found.keys() == expected.keys() and data["total"] == len(expected) == len(data["rows"]["state"])
    for key, row in expected.items():
        for name in ("sentence", "state", "language", "reason", "translation", "topic"):
            assert found[key][name] == getattr(row, name), (key, name)
        assert found[key]["scorer"] == (row.scorer or "") and found[key]["detail"] == row.detail
        for name in ("score", "confidence"):
            assert found[key][name] == (
                None if getattr(row, name) is None else pytest.approx(getattr(row, name), abs=6e-5)
            )
    states = Counter(row.state for row in expected.values())
    assert min(states[state] for state in ("kept", "rejected", "not_chosen", "text")) > 0
    assert options.notices == []
    known = paragraphs(run.back_translations[0], "Urdu", [row["id"].split("/")[0] for row in found.values()])
    assert known and all(
        row["text"] == known[row["id"].split("/")[0]]
        for row in found.values()
        if row["language"] == "Urdu" and row["source"] == 0
    )


def test_a_sentence_of_its_paragraph_is_in_the_page_once(run):
    data, _ = collected(run.root)
    assert len(data["others"]) < 0.05 * data["total"]


def test_counts_are_those_of_the_files(run):
    data, _ = collected(run.root)
    expected = Counter((source, row.language, row.state, row.reason) for source, row in in_files(run))
    assert {tuple(row[:4]): row[4] for row in data["counts"]} == expected
    assert all(row[4] == row[5] for row in data["counts"])


@pytest.mark.parametrize("max_bytes", [8_000, 25_000])
def test_a_sample_fits_and_has_every_kind_in_whole_paragraphs(run, max_bytes):
    data, options = collected(run.root, max_bytes=max_bytes, max_examples=2)
    assert packing.size_of(data) <= max_bytes
    found, expected = decoded(data), in_files(run)
    by_paragraph = defaultdict(set)
    for source, row in expected:
        by_paragraph[source, row.language, row.paragraph_id].add(row.id)
    shown = defaultdict(set)
    for row in found:
        shown[row["source"], row["language"], row["id"].rpartition("/")[0]].add(row["id"])
    assert all(ids == by_paragraph[key] for key, ids in shown.items())
    assert {tuple(row[:4]): row[5] for row in data["counts"]} == {
        key: count
        for key in Counter((source, row.language, row.state, row.reason) for source, row in expected)
        for count in [sum((r["source"], r["language"], r["state"], r["reason"]) == key for r in found)]
    }
    if max_bytes == 25_000:
        assert all(row[5] for row in data["counts"]), "a kind of row is missing"
    (notice,) = options.notices
    assert notice.text.startswith(f"{len(found):,} of {len(expected):,} rows are in this page")
    assert notice.level == "missing" and "seed 122" in notice.text


def test_without_room_there_are_counts_alone(run):
    data, options = collected(run.root, max_bytes=100)
    assert decoded(data) == [] and sum(row[4] for row in data["counts"]) == data["total"]
    assert options.notices[0].text.startswith("0 of ")


def test_the_room_is_used(run):
    data, _ = collected(run.root, max_bytes=25_000, max_examples=1)
    assert packing.size_of(data) > 20_000


def test_paragraphs_of_very_different_sizes_fit():
    """The size of some paragraphs says little of that of others: here all but the last one fit."""
    rng, letters = random.Random(7), [chr(c) for c in range(0x4E00, 0x9000)]

    def unit(number: int, size: int) -> pairs.Unit:
        text = "".join(rng.choices(letters, k=size))
        row = Row(
            id=f"{number}/p0", state="kept", language="Basque", target_language="English", paragraph_id=str(number), index=0, sentence=text
        )  # fmt: skip
        return pairs.Unit(0, "Basque", str(number), [row], text)

    units = [*(unit(n, 2) for n in range(100)), unit(100, 5000)]
    data = pairs._fitting(units, 2500, [])
    assert 90 <= len(data["units"]) <= 100
    assert packing.size_of({key: value for key, value in data.items() if key != "units"}) <= 2500


def test_a_sample_is_the_same_each_time_and_another_one_of_another_seed(run):
    first, again, other = (collected(run.root, max_bytes=15_000, seed=seed)[0] for seed in (1, 1, 2))
    assert first == again and first["paragraphs"]["id"] != other["paragraphs"]["id"]


def test_more_room_shows_what_less_room_shows_and_more(run):
    small, large = (collected(run.root, max_bytes=size, max_examples=2)[0] for size in (12_000, 24_000))
    ids = [{(row["source"], row["id"]) for row in decoded(data)} for data in (small, large)]
    assert ids[0] < ids[1]


def test_rows_are_in_the_order_of_their_numbers(tmp_path):
    layout = Layout(tmp_path, FOLDER)
    sentence = "Ibaia itsasora doa eta han bukatzen da."
    names = [f"Basque-{n}.0" for n in (10, 2, 1)]
    write(layout.translations("Basque"), *(translated(name, [sentence]) for name in names))
    data, _ = collected(tmp_path)
    assert data["paragraphs"]["id"] == ["Basque-1.0", "Basque-2.0", "Basque-10.0"]


SENTENCES = {
    "astral": ["\U0001e900\U0001e922 \U0001e925 Adlam bat.", "Emoji 🦊🦊 bi.", "Hiru \U00020000."],
    "twice": ["Bai, hala da.", "Bai, hala da.", "Ez."],
    "inside another": ["Hala da, eta hala izango da.", "hala"],
    "surrogate": ["a \ud800 b", "c"],
    "decomposed": ["Cafe\u0301 bat.", "Café bi."],
}


@pytest.mark.parametrize("case", SENTENCES)
def test_sentences_are_found_in_their_paragraph(tmp_path, case):
    sentences = SENTENCES[case]
    layout = Layout(tmp_path, FOLDER)
    layout.translate_dir.mkdir(parents=True)
    record = translated("Basque-1.0", sentences)
    layout.translations("Basque").write_text(json.dumps(record) + "\n", encoding="utf-8")
    data, _ = collected(tmp_path)
    expected = [row.sentence for row in rows(find(tmp_path).back_translations[0], "Basque")]
    assert Counter(row["sentence"] for row in decoded(data)) == Counter(expected) and data["others"] == []
    if case == "twice":
        gaps = data["rows"]["gap"]
        assert gaps == [0, 1, 1]


def test_what_its_paragraph_has_not_is_there_nevertheless(tmp_path):
    layout = Layout(tmp_path, FOLDER)
    record = translated("Basque-1.0", ["Lehen esaldia.", "Bigarrena."], paragraph="Lehen  esaldia. Bigarrena.")
    write(layout.translations("Basque"), record, {**translated("Basque-2.0", ["Bakarra."]), "sentence": ""})
    rejected = [{"sentence": "Galdua.", "reason": "sentence_too_short"}, {"reason": "translation_failed"}]
    write(layout.translation_rejects("Basque"), {"id": "Basque-9.9", "rejected": rejected})
    found = {row["id"]: row for row in decoded(collected(tmp_path)[0])}
    assert found["Basque-1.0/p0"]["sentence"] == "Lehen esaldia." and found["Basque-1.0/p1"]["sentence"] == "Bigarrena."
    assert found["Basque-2.0/p0"]["sentence"] == "Bakarra." and not found["Basque-2.0/p0"]["text"]
    assert found["Basque-9.9/r0"]["sentence"] == "Galdua." and found["Basque-9.9/r0"]["text"] is None
    assert found["Basque-9.9/r1"]["sentence"] == ""


def test_texts_of_100_kilobytes_are_cut(tmp_path):
    layout = Layout(tmp_path, FOLDER)
    long, short = "luzea " * 17_000, "Laburra da hau."
    record = translated("Basque-1.0", [short, long.strip(), "Azken esaldia."])
    record["translations"][0] = "x" * 100_000
    write(layout.translations("Basque"), record)
    write(layout.rejects("Basque"), {"id": "Basque-2.0", "text": long, "reason": "too_long"})
    data, _ = collected(tmp_path)
    found = {row["id"]: row for row in decoded(data)}
    assert found["Basque-1.0/p0"]["sentence"] == short and found["Basque-1.0/p2"]["sentence"] == "Azken esaldia."
    assert (
        found["Basque-1.0/p1"]["sentence"] == long[:MAX_TEXT] and found["Basque-2.0/t0"]["sentence"] == long[:MAX_TEXT]
    )
    assert all(len(row["sentence"]) <= MAX_TEXT and len(row["translation"] or "") <= MAX_TEXT for row in found.values())
    place = {row["id"]: n for n, row in enumerate(decoded(data))}
    assert data["cut"]["sentence"] == {str(place["Basque-1.0/p1"]): len(long.strip())}
    assert data["cut"]["translation"] == {str(place["Basque-1.0/p0"]): 100_000}
    assert sorted(data["cut"]["paragraph"].values()) == [len(long), len(record["sentence"])]
    assert packing.size_of(data) < 3000


def test_two_rejected_texts_of_one_id_stay_two(tmp_path):
    layout = Layout(tmp_path, FOLDER)
    write(layout.rejects("Basque"), *({"id": "Basque-1.0", "text": text, "reason": "empty"} for text in ("bat", "bi")))
    assert sorted(row["sentence"] for row in decoded(collected(tmp_path)[0])) == ["bat", "bi"]


def test_lines_that_cannot_be_read_are_told_once(tmp_path):
    layout = Layout(tmp_path, FOLDER)
    write(layout.translations("Basque"), translated("Basque-1.0", ["Bat."]))
    with open(layout.translations("Basque"), "ab") as file:
        file.write(b'{"broken\n{"id": "Basque-2.0", "propos')  # a run is writing
    data, options = collected(tmp_path)
    assert [row["id"] for row in decoded(data)] == ["Basque-1.0/p0"]
    damaged, cut = options.notices
    assert damaged.level == "problem" and damaged.text.count("line 2 is left out") == 1
    assert cut.level == "info" and "the last line of Basque_translate.jsonl is being written" in cut.text


def test_a_folder_without_rows_has_no_section(tmp_path):
    assert pairs.collect(find(tmp_path), Options()) is None


def test_files_of_the_original_have_no_scores_and_no_ids(tmp_path):
    layout = Layout(tmp_path, FOLDER)
    write(
        layout.translations("Basque"),
        {"sentence": "Bat. Bi.", "propositions": ["Bat.", "Bi."], "translations": ["One.", "Two."]},
    )
    found = decoded(collected(tmp_path)[0])
    assert [row["sentence"] for row in found] == ["Bat.", "Bi."] and {row["score"] for row in found} == {None}
    assert len({row["id"] for row in found}) == 2


def test_memory_depends_on_what_is_shown():
    """No more paragraphs are chosen than may fit, however many there are."""

    class Many(pairs.Source):
        def rows(self, language, problems):
            rng = random.Random(5)
            for n in range(30_000):
                name = f"Basque-{n}.0"
                reason = "" if rng.random() < 0.9999 else "sentence_too_short"
                yield Row(
                    id=f"{name}/p0", state="rejected" if reason else "kept", reason=reason, language="Basque", target_language="English",
                    paragraph_id=name, index=0, sentence="x" * 100, translation="y" * 100,
                )  # fmt: skip

    source = Many("many", None, None, ("Basque",))
    choice = pairs.choose([source], Options(max_bytes=10_000, max_examples=3), pairs.Problems())
    chosen = [n for n in range(30_000) if (0, "Basque", f"Basque-{n}.0") in choice]
    most = 10_000 * pairs.MAX_CHARS_PER_BYTE / 200
    assert 0.7 * most < len(chosen) <= most + 6 and len(choice.ranks) <= 6
    rejected = choice.totals[0, "Basque", "rejected", "sentence_too_short"]
    assert rejected > 0 and sum(choice.totals.values()) == 30_000
