"""Which files of a folder data_stats.py reads, how it classifies them, and the errors for files it cannot read."""

import json

import pytest

from tests.statistics.conftest import write_jsonl
from topxgen.common.errors import UsageError
from topxgen.statistics.corpus import Pair, Sources, read_all


def columns(corpora) -> list[tuple]:
    return [
        (corpus.stage, corpus.language.name, len(corpus.paragraphs), None if corpus.pairs is None else len(corpus.pairs))
        for corpus in corpora
    ]  # fmt: skip


def test_each_stage_of_a_run_is_a_corpus(run_folder):
    corpora = read_all([str(run_folder)], Sources())
    assert columns(corpora) == [
        ("paragraphs", "Basque", 12, None), ("pairs", "Basque", 11, 22), ("filtered", "Basque", 9, 18)
    ]  # fmt: skip
    paragraphs, pairs, _ = corpora
    assert paragraphs.topics[:2] == pairs.topics[:2] == ["Tides", "Chess"]
    assert paragraphs.target is None and pairs.target.name == "English"
    first = json.loads((run_folder / "nllb" / "Basque_translate.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert pairs.pairs[0] == Pair(first["propositions"][0], first["translations"][0], 0.0, "confidence")
    assert pairs.pairs[1].score is None


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("Basque_translate_filtered.jsonl", ("filtered", "Basque", 9, 18)),
        ("Basque_translate.jsonl", ("pairs", "Basque", 11, 22)),
    ],
)
def test_a_paragraph_without_pairs_is_no_paragraph_of_the_pairs(run_folder, name, column):
    path = run_folder / "nllb" / name
    line = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    write_jsonl(
        path,
        [
            *map(json.loads, path.read_text(encoding="utf-8").splitlines()),
            line | {key: [] for key in ("propositions", "translations", "scores")},
        ],
    )
    (corpus,) = read_all([str(path)], Sources())
    assert columns([corpus]) == [column] and len(corpus.topics) == column[2]


def test_stages_and_languages_can_be_chosen(run_folder, published_folder):
    both = [str(run_folder), str(published_folder)]
    assert columns(read_all(both[:1], Sources(stages=["filtered"]))) == [("filtered", "Basque", 9, 18)]
    assert columns(read_all(both[1:], Sources(("hau_Latn",)))) == [
        ("pairs", "Hausa", 10, 10),
        ("pairs", "Hausa", 14, 14),
    ]
    assert columns(read_all(both[1:], Sources(("Ganda",)))) == [("pairs", "Luganda", 14, 14)], (
        "another name of one language"
    )
    file = str(run_folder / "nllb" / "Basque_translate.jsonl")
    assert columns(read_all([file], Sources())) == [("pairs", "Basque", 11, 22)]


def test_published_data_without_scores_and_topics(published_folder):
    corpora = read_all([str(published_folder)], Sources())
    assert columns(corpora) == [("pairs", "Hausa", 10, 10), ("pairs", "Hausa", 14, 14), ("pairs", "Luganda", 14, 14)]
    assert {pair.score for corpus in corpora for pair in corpus.pairs} == {None}
    assert set(corpora[0].topics) == {None}


def test_the_target_language_is_that_of_the_folder(run_folder):
    (run_folder / "nllb" / "settings_translate.json").write_text('{"target_language": "Spanish"}')
    assert read_all([str(run_folder)], Sources())[1].target.name == "Spanish"


def test_folders_behind_links_count(run_folder, tmp_path_factory):
    before = columns(read_all([str(run_folder)], Sources()))
    elsewhere = tmp_path_factory.mktemp("disk") / "nllb"
    (run_folder / "nllb").rename(elsewhere)
    (run_folder / "nllb").symlink_to(elsewhere)
    assert columns(read_all([str(run_folder)], Sources())) == before


@pytest.mark.parametrize("target", ["Basque_translate.jsonl", "nowhere"])
def test_a_link_that_leads_nowhere_is_no_empty_file(run_folder, target):
    path = run_folder / "nllb" / "Basque_translate.jsonl"
    path.unlink()
    path.symlink_to(target)
    with pytest.raises(UsageError, match=r"Basque_translate.jsonl is a link to a file that does not exist"):
        read_all([str(run_folder)], Sources())


def test_native_text_is_what_benchmarks_takes(tmp_path):
    text = tmp_path / "news.txt"
    text.write_text("Egun on.\n\nArratsalde on. Gabon.\n", encoding="utf-8")
    udhr, news = read_all(["udhr", f"{text}:Basque"], Sources(("Basque",)))
    assert udhr.stage == news.stage == "native" and len(udhr.paragraphs) > 50
    assert news.paragraphs == ["Egun on.", "Arratsalde on. Gabon."] and news.pairs is None


def test_native_text_has_one_translation_of_each_sentence(tmp_path):
    for code in ("fra", "fra-CA"):
        (tmp_path / f"newstest2019-ref.{code}.txt").write_text("".join(f"Le {code} {i}.\n" for i in range(1997)))
    (french,) = read_all(["ntrex"], Sources(("French",), benchmark_dir=tmp_path))
    assert len(french.paragraphs) == 1997 and french.paragraphs[-1] == "Le fra 1996."


def test_a_folder_that_is_given_twice_counts_once(run_folder, caplog):
    caplog.set_level("INFO", "topxgen")
    again = [str(run_folder), f"{run_folder}/.", str(run_folder / "nllb")]
    assert len(read_all(again, Sources())) == 3
    assert caplog.text.count("is given twice; it is counted once") == 5


def test_a_folder_that_is_being_written(run_folder, caplog):
    caplog.set_level("INFO", "topxgen")
    for name in ("Basque.jsonl", "nllb/Basque_translate.jsonl"):
        with open(run_folder / name, "ab") as file:
            file.write('{"text": "Gizon-emakume guztiak, ñ'.encode()[:-1])
    (run_folder / "nllb" / "Basque_translate_filtered.jsonl.partial").write_text("{")
    corpora = read_all([str(run_folder)], Sources())
    assert columns(corpora)[:2] == [("paragraphs", "Basque", 12, None), ("pairs", "Basque", 11, 22)]
    assert [corpus.is_cut for corpus in corpora] == [True, True, False]
    assert caplog.text.count("the last line is not complete and left out") == 2


@pytest.mark.parametrize(
    "line, message",
    [
        ("{}", "Basque_translate.jsonl, line 2: object missing required field"),
        ("text", "line 2: not JSON"),
        ('{"propositions": ["a"], "translations": []}', "line 2: field translations: expected 1 items"),
        ('{"propositions": ["a"], "translations": ["b"], "scores": ["c"]}', "line 2: field scores"),
        ('{"propositions": ["a"], "translations": ["b"], "scores": [1, 2]}', "line 2: field scores: expected 1 items"),
        ('{"propositions": "a", "translations": ["b"]}', "line 2: field propositions"),
    ],
)
def test_a_broken_line_is_named(run_folder, line, message):
    path = run_folder / "nllb" / "Basque_translate.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([lines[0], line, *lines[1:]]) + "\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_all([str(run_folder)], Sources())
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_what_holds_no_data_is_named(tmp_path, run_folder):
    (tmp_path / "empty").mkdir()
    cases = [
        (["empty"], Sources(), "no {Language}_translate_filtered.jsonl or {Language}_translate.jsonl or {Language}.jsonl"),
        (["empty"], Sources(("Basque",)), "empty"),
        (["missing"], Sources(), "no {Language}"),
        (["missing"], Sources(("Basque",)), "missing"),
        (["run"], Sources(("Hausa", "Igbo")), "run has none of --languages Hausa Igbo, only Basque"),
        (["run", "udhr"], Sources(("Hausa", "Basque", "Klingon")), "unknown language 'Klingon'"),
        (["udhr"], Sources(), "udhr is native text: pass --languages"),
    ]  # fmt: skip
    for names, sources, message in cases:
        paths = [name if name == "udhr" else str(tmp_path / name) for name in names]
        with pytest.raises(UsageError) as caught:
            read_all(paths, sources)
        assert message in str(caught.value), caught.value
    write_jsonl(tmp_path / "odd" / "Klingon_translate.jsonl", [])
    with pytest.raises(UsageError, match="unknown language 'Klingon'; pass --languages, or its row"):
        read_all([str(tmp_path / "odd")], Sources())
    write_jsonl(tmp_path / "both" / "Hausa.jsonl", [{"text": "a"}])
    with pytest.raises(UsageError, match="there is no Hausa"):
        read_all([str(run_folder)], Sources(("Hausa", "Basque")))
