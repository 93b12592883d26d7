"""Benchmarks of one's own: files, tables, folders, loaders and sets of the Hub, and the languages of their columns."""

import json

import pytest

from tests.corpora.test_benchmarks import BASQUE, ENGLISH, SORBIAN, by_name, load, refusal, repository, squad, write
from tests.support.runs import script
from tests.support.tiny_models import udhr_texts
from topxgen.common.errors import UsageError
from topxgen.corpora import benchmarks, hub_sets
from topxgen.corpora.benchmarks import CannotLoad, LacksLanguage
from topxgen.text import languages


@pytest.mark.parametrize(
    "file, content, splits",
    [
        ("Basque.txt", "Bat.\n\nHiru.\n", {"Basque.txt": ["Bat.", "", "Hiru."]}),
        ("eus_Latn.txt", "\ufeffBat.\r\nBi.", {"eus_Latn.txt": ["Bat.", "Bi."]}),
        ("EUS-latn.TXT", "Bat.\n", {"EUS-latn.TXT": ["Bat."]}),
        ("basque.csv", '"Bat,\nbi."\nHiru.\n', {"basque.csv (column 1)": ["Bat,\nbi.", "Hiru."]}),
        ("mine.tsv", 'eus_Latn\tEnglish\n"Bi.\tOne.\nHiru.', {"mine.tsv (eus_Latn)": ['"Bi.', "Hiru."]}),
        ("mine.tsv", "id\teus_Latn\tEnglish\n7\tBat.\tOne.\n", {"mine.tsv (eus_Latn)": ["Bat."]}),
        ("mine.jsonl", '{"BASQUE": "Bat.", "english": "One.", "n": 3, "more": ["Bi.", "Hiru.", 4]}\n\n', {"mine.jsonl (BASQUE)": ["Bat."]}),
        ("mine.jsonl", '{"translation": {"eng_Latn": "One.", "eus_Latn": ["Bat.", "Bi."]}}\n', {"mine.jsonl (eus_Latn)": ["Bat.", "Bi."]}),
        ("Basque.json", '[{"text": "Bat."}, {"text": "Bi."}]', {"Basque.json (text)": ["Bat.", "Bi."]}),
        ("Basque.json", '["Bat."]', {"Basque.json": ["Bat."]}),
        ("mine.csv", "Basque,Basque\nBat.,Bi.\n", {"mine.csv (Basque)": ["Bat."], "mine.csv (Basque 2)": ["Bi."]}),
        ("mine.json", '{"Basque": "Bat.", "more": {"Basque": "Bi."}}', {"mine.json (Basque)": ["Bat.", "Bi."]}),
    ],
)  # fmt: skip
def test_own_files(tmp_path, file, content, splits):
    path = write(tmp_path / file, content)
    loaded = load(str(path), BASQUE, tmp_path)
    assert by_name(loaded) == splits
    assert all(len(set(split.ids)) == len(split.ids) for split in loaded)
    assert all(split.language == "Basque" and split.benchmark == split.source == str(path) for split in loaded)


@pytest.mark.parametrize(
    "file, content, mapping, basque, english",
    [
        ("mine.txt", "Bat.\n\nHiru.\n", "Basque", {"mine.txt": ["Bat.", "", "Hiru."]}, None),
        ("Hausa.txt", "Bat.\n", "eus_latn=1", {"Hausa.txt": ["Bat."]}, None),
        ("mine.tsv", 'Bat.\tOne.\n"Bi.\n', "Basque=1,English=2", {"mine.tsv (column 1)": ["Bat.", '"Bi.']}, {"mine.tsv (column 2)": ["One.", ""]}),
        ("mine.csv", '"Bat,\nbi.",One.\nHiru.,Two.\n', "English=2,Basque=1", {"mine.csv (column 1)": ["Bat,\nbi.", "Hiru."]}, {"mine.csv (column 2)": ["One.", "Two."]}),
        ("mine.tsv", "\tOne.\tBat.\n", " Basque = 3 , English = 2 ", {"mine.tsv (column 3)": ["Bat."]}, {"mine.tsv (column 2)": ["One."]}),
        ("mine.tsv", "Basque\tEnglish\nOne.\tBat.\n", "Basque=2,English=1", {"mine.tsv (English)": ["Bat."]}, {"mine.tsv (Basque)": ["One."]}),
        ("mine.csv", "id,EN,eu\n1,One.,Bat.\n", "English=2,Basque=3", {"mine.csv (eu)": ["Bat."]}, {"mine.csv (EN)": ["One."]}),
        ("mine.csv", "src,tgt,by\nOne.,Bat.,me\n", "Basque=tgt,English=src", {"mine.csv (tgt)": ["Bat."]}, {"mine.csv (src)": ["One."]}),
        ("mine.tsv", "a:1\tb\nBat.\tBi.\n", "Basque=a:1,Basque=b", {"mine.tsv (a:1)": ["Bat."], "mine.tsv (b)": ["Bi."]}, None),
        ("mine.json", '{"data": [{"context": "Bat.", "en": "One.", "qas": [{"q": "Bi?"}]}]}', "Basque=context,Basque=q,English=en",
         {"mine.json (context)": ["Bat."], "mine.json (q)": ["Bi?"]}, {"mine.json (en)": ["One."]}),
        ("mine.jsonl", '{"text": "Bat."}\n{"text": ["Bi.", "Hiru."]}\n', "Basque", {"mine.jsonl (text)": ["Bat.", "Bi.", "Hiru."]}, None),
    ],
)  # fmt: skip
def test_own_files_with_a_mapping(tmp_path, file, content, mapping, basque, english):
    name = f"{write(tmp_path / file, content)}:{mapping}"
    assert by_name(load(name, BASQUE)) == basque
    if english is None:
        assert "no English: its files and columns are in other languages" in refusal(LacksLanguage, name, ENGLISH)
    else:
        assert by_name(load(name, ENGLISH)) == english
    (split, *_) = load(name, BASQUE)
    assert (split.benchmark, split.language, split.source) == (name, "Basque", str(tmp_path / file))


@pytest.mark.parametrize(
    "file, content, part",
    [
        ("mine.txt", "Bat.\n", "pass {path}:Basque"),
        ("my basque_set.txt", "Bat.\n", "pass {path}:Basque"),
        (
            "mine.jsonl",
            '{"Basque": "Bat."}\n\n"Lau."\n',
            '{path}, line 3: "Lau." where other rows are of type dict; remove it',
        ),
        ("mine.json", '[{"Basque": "Bat."}, ["Lau."]]', '{path}, item 2: ["Lau."] where other rows are of type dict'),
        (
            "mine.json",
            '[{"Basque": "Bat."}, {"Basque": {}}]',
            "{path}, item 2: Basque is {{}}, not a text; null stands for no text",
        ),
        ("mine.json", '[{"Basque": "Bat."}, {"Basque": []}]', "{path}, item 2: Basque is [], not a text"),
        (
            "mine.json",
            '[{"Basque": "Bat."}, {"Basque": {"text": "Bi."}}]',
            '{path}, item 2: Basque is {{"text": "Bi."}}, not a text',
        ),
        (
            "mine.jsonl",
            '{"Basque": "Bat.", "n": 1}\n{"Basque": ["Bi.", 7], "n": {}}\n',
            "{path}, line 2: Basque is 7, not a text",
        ),
        ("Basque.jsonl", '{"t": "Bat.", "n": 1}\n{"t": false}\n', "{path}, line 2: t is false, not a text"),
        ("mine.json", '["Bat."]', "from its name or column labels (no labels); pass {path}:Basque"),
        ("mine.tsv", "Bat.\tOne.\n", "(column 1, column 2); pass {path}:Basque=COLUMN,English=COLUMN"),
        ("Basque.tsv", "Bat.\tOne.\n", "(column 1, column 2); pass {path}:Basque=COLUMN,English=COLUMN"),
        ("mine.jsonl", '{"en": "One.", "eu": "Bat."}\n', "(en, eu); pass {path}:Basque=COLUMN,English=COLUMN"),
        ("mine.tsv", "I speak English\tIngelesez hitz egiten dut\n", "pass {path}:Basque=COLUMN,English=COLUMN"),
        ("mine.tsv", "English text\tBasque text\nOne.\tBat.\n", "pass {path}:Basque=COLUMN,English=COLUMN"),
    ],
)
def test_a_language_that_is_not_named_is_not_guessed(tmp_path, file, content, part):
    path = write(tmp_path / file, content)
    for language in (BASQUE, ENGLISH):
        message = refusal(CannotLoad, str(path), language)
        assert part.format(path=path).replace(":Basque", f":{language.name}") in message


@pytest.mark.parametrize(
    "mapping, part",
    [
        (
            "Basqe=1",
            "'Basqe=1' in the mapping 'Basqe=1' is not Language=column (did you mean Basque?); write, for example",
        ),
        ("Basque=1,English=", "'English=' in the mapping 'Basque=1,English=' is not Language=column; write"),
        ("Basque=1,", "'' in the mapping"),
        ("Basque=3", "has no column 3 (column 1, column 2); name one as in {path}:Basque=COLUMN"),
        ("Basque=0", "has no column 0"),
        ("Basque=eu", "has no column eu (Bat., One.)"),
        ("Basque", "has 2 columns (column 1, column 2); name one as in {path}:Basque=COLUMN"),
    ],
)
def test_mappings_that_do_not_fit(tmp_path, mapping, part):
    path = write(tmp_path / "mine.tsv", "Bat.\tOne.\n")
    assert part.format(path=path) in refusal(CannotLoad, f"{path}:{mapping}", BASQUE)


def test_keys_are_mapped_by_name_alone(tmp_path):
    path = write(tmp_path / "mine.jsonl", '{"a": "Bat.", "b": "One."}\n')
    for column in ("1", "A"):
        assert f"has no column {column} (a, b)" in refusal(CannotLoad, f"{path}:Basque={column}", BASQUE)


@pytest.mark.parametrize("name", ["mine.py", "mine.dev", "README.md", "mine"])
def test_files_of_other_kinds_are_refused(tmp_path, name):
    write(tmp_path / "Basque.txt", "Bat.\n")
    path = write(tmp_path / "below" / name, "import os\n")
    expected = f"{path} is not a .txt, .tsv, .csv, .jsonl, .json, .parquet file"
    for source in (path, f"{path}:Basque=1"):
        assert refusal(CannotLoad, str(source), BASQUE).endswith(expected)
    assert refusal(CannotLoad, str(tmp_path), BASQUE).endswith(
        f"{expected}; name the files to read, such as {tmp_path}/*.txt"
    )


def test_a_folder_of_programs_is_no_benchmark(tmp_path):
    record = {"sentence": "Bat.", "propositions": ["Bat."], "translations": ["One."]}
    write(tmp_path / "in/Basque_translate.jsonl", json.dumps(record) + "\n")
    write(tmp_path / "programs/speed.py", "print()\n")
    command = (
        "--input_dir",
        tmp_path / "in",
        "--output_dir",
        tmp_path / "out",
        "--benchmarks",
        "udhr",
        tmp_path / "programs",
    )
    result = script("decontamination.py", *command, check=2)
    assert result.stderr.count("\n") == 1 and ".py is not a .txt, .tsv, .csv" in result.stderr
    assert not list((tmp_path / "out").iterdir())


def test_a_loader_of_ones_own(tmp_path):
    path = write(
        tmp_path / "loaders.py",
        """from topxgen.corpora.benchmarks import Split

def poems(name, language, folder):
    return [] if language.name != "Basque" else [Split(name, "test", "Basque", ["1"], ["Bat."], str(folder))]
""",
    )
    name = f"{path}:poems"
    (split,) = load(name, BASQUE, tmp_path)
    assert (split.benchmark, split.texts, split.source) == (name, ["Bat."], str(tmp_path))
    refusal(LacksLanguage, name, ENGLISH)
    assert "has no 'peoms' (did you mean poems?)" in refusal(UsageError, f"{path}:peoms", BASQUE)
    assert "choose one of flores, ntrex" in refusal(UsageError, f"{tmp_path / 'none.py'}:poems", BASQUE)


def test_local_sources(tmp_path):
    path = write(tmp_path / "a:b/Basque.txt", "Bat.\n")
    (tmp_path / "a").mkdir()  # the longest name that exists counts
    for name in (str(path), f"{path}:Basque", f"{path.parent}:Basque=1", str(path.parent)):
        assert benchmarks.local_source(name) in (path, path.parent)
        assert load(name, BASQUE)[0].texts == ["Bat."]
    for name in ("flores", "org/name:Basque=eu", "org/name", str(tmp_path / "none.txt")):
        assert benchmarks.local_source(name) is None


def test_own_parquet(tmp_path):
    import pyarrow
    from pyarrow import parquet

    table = {"n": [1, 2], "Basque": ["Bat.", None], "Hausa": ["Ɗaya.", "Biyu."], "all": [["Hiru.", "Lau."], []]}
    parquet.write_table(pyarrow.table(table), tmp_path / "mine.parquet")
    (split,) = load(str(tmp_path / "mine.parquet"), BASQUE)
    assert (split.texts, split.ids, split.language) == (["Bat."], ["1"], "Basque")
    (split,) = load(f"{tmp_path / 'mine.parquet'}:Basque=all", BASQUE)
    assert (split.texts, split.ids, split.name) == (["Hiru.", "Lau."], ["1.1", "1.2"], "mine.parquet (all)")


def test_ids_of_own_files_are_their_lines(tmp_path):
    path = write(tmp_path / "mine.csv", '"Bat,\nbi.",One.\nHiru.,Two.\n')
    assert [split.ids for split in load(f"{path}:Basque=1,Basque=2", BASQUE)] == [["1", "3"], ["1", "3"]]
    path = write(tmp_path / "mine.tsv", "Basque\tEnglish\nBat.\tOne.\n")
    assert [split.ids for split in load(str(path), BASQUE)] == [["2"]]
    path = write(tmp_path / "mine.jsonl", '\n{"text": "Bat."}\n')
    assert [split.ids for split in load(f"{path}:Basque=text", BASQUE)] == [["2"]]


def test_an_own_folder(tmp_path):
    names = ("a/Basque.jsonl", "a/xho_Latn.txt", "Hausa/b.txt", "Hausa/x/c.txt", "Hausa/eus_Latn.txt")
    for name in (*names, ".git/c.txt", ".hidden.txt"):
        write(tmp_path / name, '{"text": "Bat."}\n' if name.endswith("jsonl") else "Bat.\n")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    loaded = {
        name: [split.name for split in load(str(tmp_path), languages.find(name))]
        for name in ("Basque", "Xhosa", "Hausa")
    }
    assert loaded == {
        "Basque": ["Hausa/eus_Latn.txt", "a/Basque.jsonl (text)"],
        "Xhosa": ["a/xho_Latn.txt"],
        "Hausa": ["Hausa/b.txt", "Hausa/x/c.txt"],
    }
    assert len(load(f"{tmp_path}:Basque", BASQUE)) == 5
    refusal(LacksLanguage, f"{tmp_path}:Basque", languages.find("Xhosa"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "only read"


@pytest.mark.parametrize(
    "title, mine",
    [
        ("eus_Latn.txt", True), ("basque/test.txt", True), ("hau_Latn/basque.txt", True),
        ("basque/hau_Latn.txt", False), ("hau_Latn.txt", False), ("English/a.txt", False), ("Basque.txt", True),
        ("Tosk_Albanian.txt", False), ("Modern Standard Arabic (Romanized).txt", False),
        ("dev-eus-Latn.txt", None), ("my basque_set.txt", None), ("news.English.txt", None), ("from_english.txt", None),
        ("eng_Latn-eus_Latn.txt", None), ("questions.txt", None), ("basques.txt", None), ("english2.txt", None),
        ("abc_Latn.txt", None), ("dev_test.txt", None),
    ],
)  # fmt: skip
def test_languages_in_names_of_files_and_folders(tmp_path, title, mine):
    write(tmp_path / title, "Bat.\n")
    if mine is None:
        assert f"pass {tmp_path / title}:Basque" in refusal(CannotLoad, str(tmp_path), BASQUE)
    elif mine:
        assert [split.language for split in load(str(tmp_path), BASQUE)] == ["Basque"]
    else:
        assert "no Basque" in refusal(LacksLanguage, str(tmp_path), BASQUE)


def test_languages_of_ones_own_name_files_too(tmp_path):
    table = write(tmp_path / "languages.tsv", "name\tflores\nUpper Sorbian\thsb_Latn\n")
    write(tmp_path / "own/Upper-Sorbian.txt", "Jedyn.\n")
    write(tmp_path / "own/hsb_Latn.txt", "Dwaj.\n")
    assert [split.language for split in load(str(tmp_path / "own"), SORBIAN)] == ["Upper Sorbian"] * 2
    write(tmp_path / "own/mine.tsv", "Upper Sorbian\tnote\nTři.\tx\n")
    write(tmp_path / "own/English.txt", "One.\n")
    assert [split.texts for split in load(str(tmp_path / "own"), ENGLISH, None, str(table))] == [["One."]]
    mapped = f"{tmp_path / 'own/mine.tsv'}:Upper Sorbian=1,English=2"
    assert [split.texts for split in load(mapped, ENGLISH, None, str(table))] == [["x"]]


def test_labels_of_columns_before_the_name_of_the_file(tmp_path):
    path = write(tmp_path / "Basque.tsv", "Basque\tEnglish\nBat.\tOne.\n")
    assert [split.texts for split in load(str(path), ENGLISH)] == [["One."]]
    path = write(tmp_path / "eus_Latn.jsonl", '{"Basque": "Bat.", "English": "One."}\n')
    assert [split.texts for split in load(str(path), ENGLISH)] == [["One."]]


def test_texts_however_deep(tmp_path):
    path = write(tmp_path / "squad.json", squad(("Sea", ["Bat.", "Bi."])))
    assert by_name(load(f"{path}:Basque=context", BASQUE)) == {"squad.json (context)": ["Bat.", "Bi."]}
    chat = {"id": "q", "messages": [{"role": "user", "content": "Hiru."}, {"role": "bot", "content": "Lau."}]}
    path = write(tmp_path / "chat.jsonl", json.dumps(chat) + "\n")
    assert by_name(load(f"{path}:Basque=content", BASQUE)) == {"chat.jsonl (content)": ["Hiru.", "Lau."]}


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "real/Basque.txt", "Bat.\n")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/data").symlink_to(tmp_path / "real")
    (tmp_path / "real/again").symlink_to(tmp_path / "own")
    (tmp_path / "real/gone.txt").symlink_to(tmp_path / "nothing")
    assert [split.texts for split in load(str(tmp_path / "own"), BASQUE)] == [["Bat."]]


def test_a_sentence_that_names_a_language_is_no_header(tmp_path):
    path = write(tmp_path / "mine.tsv", "I speak English\tIngelesez hitz egiten dut\nBat.\tOne.\n")
    assert [split.texts for split in load(f"{path}:Basque=1,Basque=2", BASQUE)] == [
        ["I speak English", "Bat."],
        ["Ingelesez hitz egiten dut", "One."],
    ]


def test_the_longest_name_counts(tmp_path):
    path = write(tmp_path / "Modern Standard Arabic (Romanized).txt", "Wahid.\n")
    romanized = load(str(path), languages.find("arb_Latn"), tmp_path / "nowhere")  # a folder for the named ones alone
    assert romanized[0].language == "Modern Standard Arabic (Romanized)"
    refusal(LacksLanguage, str(path), languages.find("arb_Arab"))


@pytest.mark.parametrize(
    "file, content, part",
    [
        ("Basque.txt", "", "Basque.txt is empty"),
        ("mine.txt", b"\xff\xfe\x00", "cannot read"),
        ("mine.jsonl", '{"text": "Bat."}\n{"text"\n', "mine.jsonl, line 2 is not JSON"),
        ("mine.jsonl", '{"n": 1}\n', "mine.jsonl is empty"),
        ("mine.json", "{", "mine.json is not JSON"),
        ("mine.csv", 'Bat.\n"Bi.\n', "mine.csv, line 2: unexpected end of data"),
        ("mine.csv", "Bat.\rBi.\nHiru.\n", "mine.csv, line 1: a CR is in a cell that is not quoted; quote the cell"),
        ("mine.parquet", "PAR", "cannot read"),
        ("mine.tsv", "\t\n\t\n", "mine.tsv is empty"),
    ],
)
def test_own_files_that_cannot_be_read(tmp_path, file, content, part):
    path = write(tmp_path / file, content)
    assert part in refusal(CannotLoad, str(path), BASQUE)
    assert part in refusal(CannotLoad, str(tmp_path), BASQUE), "nor the folder without it"


def test_an_own_table_all_in_other_languages(tmp_path):
    path = write(tmp_path / "mine.tsv", "English\tHausa\nOne.\tƊaya.\n")
    assert "are in other languages" in refusal(LacksLanguage, str(path), BASQUE)


def test_a_file_in_another_language_is_warned_of(tmp_path, caplog):
    texts = [text.strip() for code in ("hau_Latn", "eus_Latn") for text in udhr_texts(code)[:40]]
    path = write(tmp_path / "mine.tsv", "".join(f"{a}\t{b}\n" for a, b in zip(texts[:40], texts[40:], strict=True)))
    load(f"{path}:Basque=2", BASQUE)
    assert not caplog.text
    load(f"{path}:Basque=1", BASQUE)
    assert f"{path}, mine.tsv (column 1): 99 % of the text is Hausa according to CLD2, not Basque" in caplog.text


def test_own_names_that_are_nothing(tmp_path):
    assert "no file or folder" in refusal(CannotLoad, str(tmp_path / "nothing"), BASQUE)
    assert "no file or folder nothing/here.tsv" in refusal(CannotLoad, "nothing/here.tsv", BASQUE)
    assert "no file or folder mine.txt" in refusal(CannotLoad, "mine.txt", BASQUE)
    (tmp_path / "empty").mkdir()
    assert "empty is empty" in refusal(CannotLoad, str(tmp_path / "empty"), BASQUE)
    message = refusal(UsageError, "florse", BASQUE)
    assert (
        "did you mean flores?" in message
        and "choose one of flores, ntrex, tico, xquad, udhr, or your own as a file" in message
    )
    assert "did you mean" not in refusal(UsageError, "zzz", BASQUE)
    refusal(UsageError, "", BASQUE)
    for name in ("some-org/some.set", "some-org/some.set:eu"):
        message = refusal(CannotLoad, name, BASQUE)
        assert f"cannot load '{name.replace(':', ', ')}' (" in message
    assert "cannot load 'some-org/some.set, eu' (" in refusal(CannotLoad, "some-org/some.set:eu:Basque=eu", BASQUE)


def test_own_sets_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    rows = [{"n": 1, "text": "Bat.", "English": "One.", "translation": {"en": "Two.", "eu": "Bi."}, "tags": ["Hiru."]}]
    one = {"test": [{"text": "Lau."}]}
    repository(tmp_path / "org/set", {"default": {"validation": rows, "test": rows}, "eus_Latn": one, "more": one})

    load_dataset = hub_sets.dataset  # `load` takes an existing folder for a local source
    monkeypatch.setattr(hub_sets, "dataset", lambda repo, *rest: load_dataset(repo.replace("user", "org"), *rest))

    def own(name: str) -> dict[str, list[str]]:
        return by_name(load(name, BASQUE))

    texts = {"text": ["Bat."], "eu": ["Bi."], "tags": ["Hiru."]}
    assert own("user/set:default:Basque=text,Basque=eu,English=en,Basque=tags") == {
        f"{s} ({column})": text for s in ("validation", "test") for column, text in texts.items()
    }
    assert load("user/set:default:Basque=eu", BASQUE)[0].source == "hub: user/set, default, validation"
    assert "user/set:default has no Basque" in refusal(LacksLanguage, "user/set:default", BASQUE)
    assert [split.texts for split in load("user/set:default", ENGLISH)] == [["One."]] * 2
    assert own("user/set:eus_Latn") == {"test (text)": ["Lau."]}, "the config names the language of its one column"
    assert "(text); pass user/set:more:Basque" in refusal(CannotLoad, "user/set:more", BASQUE)
    assert own("user/set:more:Basque=text") == {"test (text)": ["Lau."]}
    assert "cannot load 'org/set, nothing' (" in refusal(CannotLoad, "user/set:nothing", BASQUE)
    assert "has no column eu (text)" in refusal(CannotLoad, "user/set:more:Basque=eu", BASQUE)
