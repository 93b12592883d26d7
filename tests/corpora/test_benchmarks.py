"""Evaluation sets: the publishers' layouts, the Hub's rows, the user's own files, and a line for all that goes wrong."""

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.support.runs import BENCHMARKS, script
from topxgen.common.errors import UsageError
from topxgen.corpora import benchmarks, examples, hub_sets
from topxgen.corpora.benchmarks import CannotLoad, LacksLanguage, Split
from topxgen.text import language_id, languages

load = partial(benchmarks.load, allow_partial=True)  # of a few lines each; test_partial_benchmarks.py is about sizes

BASQUE, ENGLISH, FRENCH, IGBO, KINYARWANDA = map(languages.find, ("Basque", "English", "French", "Igbo", "Kinyarwanda"))
SOMALI, SUNDANESE, XHOSA = map(languages.find, ("Somali", "Sundanese", "Xhosa"))
# A user's own row of --languages_file.
SORBIAN = replace(
    BASQUE, name="Upper Sorbian", flores="hsb_Latn", iso639_1="", iso639_3="hsb", ntrex="", tico="", sentencex=""
)
TICO_HEADER = "sourceLang\ttargetLang\tsourceString\ttargetString\tstringID\turl\tlicense\ttranslatorId"
NAMED = ("flores", "ntrex", "tico", "xquad")


def write(path, text: str | bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def numbered(word: str, count: int = 1997) -> str:
    return "".join(f"{word} {i}\n" for i in range(1, count + 1))


def write_tico(folder, split: str, code: str, rows: list[tuple[str, str]], header: str = TICO_HEADER):
    lines = [header]
    for i, (source, target) in enumerate(rows, start=1):
        lines.append(f"en\t{code}\t{source}\t{target}\t{split}:{i}\thttps://example.org\tCC0\t7")
    return write(folder / split / f"{split}.en-{code}.tsv", "\n".join(lines) + "\n")


def squad(*articles: tuple[str, list[str]]) -> str:
    data = [
        {"title": title, "paragraphs": [{"context": c, "qas": []} for c in contexts]} for title, contexts in articles
    ]
    return json.dumps({"data": data, "version": "1.1"})


def by_name(splits: list[Split]) -> dict[str, list[str]]:
    assert len({split.name for split in splits}) == len(splits)
    assert all(len(split.ids) == len(split.texts) == len(set(split.ids)) for split in splits)
    return {split.name: split.texts for split in splits}


def refusal(kind: type, name: str, language, folder=None) -> str:
    """The message of the exception of exactly that kind, which is one line that names the benchmark."""
    with pytest.raises(UsageError) as error:
        load(name, language, folder)
    assert type(error.value) is kind
    message = str(error.value)
    assert "\n" not in message and name in message
    if kind is CannotLoad:
        assert message.startswith(f"cannot load {name} in {language.name}: ")
    return message


def test_flores_in_its_publishers_layout(tmp_path):
    # A byte order mark, Windows line ends, an empty line, and breaks that are none: all lines keep their places.
    write(tmp_path / "flores200_dataset/dev/ibo_Latn.dev", "\ufeffOtu\u2028na\x0cabụọ\r\n\r\nAtọ\x85\rise\r\n")
    write(tmp_path / "flores200_dataset/devtest/ibo_Latn.devtest", "Isii")
    dev, devtest = load("flores", IGBO, tmp_path)
    assert dev.texts == ["Otu\u2028na\x0cabụọ", "", "Atọ\x85\rise"] and dev.ids == ["1", "2", "3"]
    assert (devtest.benchmark, devtest.name, devtest.language, devtest.texts) == ("flores", "devtest", "Igbo", ["Isii"])
    assert devtest.source == str(tmp_path / "flores200_dataset/devtest/ibo_Latn.devtest")
    assert dev.fingerprint == hashlib.sha256("\n".join(dev.texts).encode()).hexdigest()
    assert replace(dev, texts=[*dev.texts, ""]).fingerprint != dev.fingerprint


def test_flores_without_the_outer_folder_and_under_its_later_codes(tmp_path):
    for split in ("dev", "devtest"):
        write(tmp_path / split / f"ekk_Latn.{split}", "Üks.\n")
        write(tmp_path / split / f"hsb_Latn.{split}", "Jedyn.\n")
    assert by_name(load("flores", languages.find("Estonian"), tmp_path)) == {"dev": ["Üks."], "devtest": ["Üks."]}
    assert by_name(load("flores", SORBIAN, tmp_path)) == {"dev": ["Jedyn."], "devtest": ["Jedyn."]}


def test_flores_that_cannot_be_had(tmp_path):
    message = refusal(CannotLoad, "flores", XHOSA, tmp_path)
    assert "no dev/xho_Latn.dev or flores200_dataset/dev/xho_Latn.dev" in message and str(tmp_path) in message
    dev = write(tmp_path / "dev/xho_Latn.dev", "Nye.\n")
    assert "no devtest/xho_Latn.devtest or" in refusal(CannotLoad, "flores", XHOSA, tmp_path), "half of it is not it"
    write(tmp_path / "devtest/xho_Latn.devtest", b"")
    assert "xho_Latn.devtest is empty" in refusal(CannotLoad, "flores", XHOSA, tmp_path)
    write(tmp_path / "devtest/xho_Latn.devtest", " \n\n")
    assert "xho_Latn.devtest is empty" in refusal(CannotLoad, "flores", XHOSA, tmp_path)
    write(dev, b"caf\xe9\n")
    assert f"cannot read {dev}" in refusal(CannotLoad, "flores", XHOSA, tmp_path)
    message = refusal(LacksLanguage, "flores", SORBIAN, tmp_path)
    assert "no Upper Sorbian (hsb_Latn)" in message
    missing = tmp_path / "nowhere"
    assert f"{missing} is not a folder" in refusal(CannotLoad, "flores", XHOSA, missing)


def test_ntrex_is_split_by_lines(tmp_path):
    write(tmp_path / "NTREX-128/newstest2019-ref.kin.txt", numbered("rimwe").replace("\n", "\r\n"))
    test, pool = load("ntrex", KINYARWANDA, tmp_path)
    assert (test.name, len(test.texts), test.ids[-1], test.texts[-1]) == ("test", 1000, "1000", "rimwe 1000")
    assert (pool.name, len(pool.texts), pool.ids[0], pool.texts[0]) == ("pool", 997, "1001", "rimwe 1001")
    assert pool.ids[-1] == "1997" and pool.texts[-1] == "rimwe 1997"


@pytest.mark.parametrize(
    "name, main, variants",
    [
        ("French", "ref.fra", {"fra-CA": "ref.fra-CA"}),
        ("Spanish", "ref.spa", {"spa-MX": "ref.spa-MX", "spa-2": "ref-2.spa"}),
        ("English", "src.eng", {"eng-GB": "ref.eng-GB", "eng-US": "ref.eng-US"}),
        ("Serbian", "ref.srp-Cyrl", {}),
        ("Chinese (Simplified)", "ref.zho-CN", {}),
        ("Chinese (Traditional)", "ref.zho-TW", {}),
        ("Swahili", "ref.swa", {}),
        ("North Azerbaijani", "ref.aze-Latn", {}),
        ("Halh Mongolian", "ref.mon", {}),
        ("Sundanese", "ref.sun", {}),  # which NTREX-128 has not, but this folder
    ],
)
def test_ntrex_files_of_every_variant(tmp_path, name, main, variants):
    for code in (
        *("ref.fra", "ref.fra-CA", "ref.spa", "ref-2.spa", "ref.spa-MX", "src.eng", "ref.eng-GB", "ref.eng-US"),
        *("ref.srp-Cyrl", "ref.srp-Latn", "ref.zho-CN", "ref.zho-TW", "ref.swa", "ref.aze-Latn", "ref.mon", "ref.sun"),
    ):
        write(tmp_path / f"newstest2019-{code}.txt", numbered(code))
    expected = {"": main} | {f" ({tag})": code for tag, code in variants.items()}
    found = by_name(load("ntrex", languages.find(name), tmp_path))
    assert found == {
        f"{split}{tag}": numbered(code).splitlines()[lines]
        for tag, code in expected.items()
        for split, lines in (("test", slice(1000)), ("pool", slice(1000, None)))
    }


def test_ntrex_that_cannot_be_had(tmp_path):
    message = refusal(CannotLoad, "ntrex", XHOSA, tmp_path)
    assert "NTREX-128/newstest2019-ref.xho.txt" in message and " or newstest2019-ref.xho.txt" in message
    write(tmp_path / "NTREX-128/newstest2019-ref.eng-GB.txt", numbered("one"))
    assert "newstest2019-src.eng.txt" in refusal(CannotLoad, "ntrex", ENGLISH, tmp_path), "a variant is not the source"
    path = write(tmp_path / "NTREX-128/newstest2019-ref.xho.txt", "")
    assert f"{path} is empty" in refusal(CannotLoad, "ntrex", XHOSA, tmp_path)
    assert "no Sundanese (sun_Latn)" in refusal(LacksLanguage, "ntrex", SUNDANESE, tmp_path)
    write(tmp_path / "NTREX-128/newstest2019-ref.arb.txt", numbered("واحد"))
    refusal(LacksLanguage, "ntrex", languages.find("Modern Standard Arabic (Romanized)"), tmp_path)


def test_tico_in_its_publishers_layout(tmp_path):
    folder = tmp_path / "tico19-testset"
    rows = [('He said "wash".', '"Karaba" intoki.'), ("Stay home.\x0c", ""), ("Rest.", "Ruhuka.")]
    write_tico(folder, "dev", "rw", rows)
    write_tico(folder, "test", "rw", rows[:1])
    write_tico(folder, "dev", "so", [("Other English.", "Kale.")])
    write_tico(folder, "test", "so", [("Other English.", "Kale.")])
    dev, test = load("tico", KINYARWANDA, tmp_path)
    assert dev.texts == ['"Karaba" intoki.', "", "Ruhuka."] and dev.ids == ["dev:1", "dev:2", "dev:3"]
    assert (test.name, test.language, test.source) == ("test", "Kinyarwanda", str(folder / "test/test.en-rw.tsv"))
    english = [source for source, _ in rows]
    # All files have the same English: one of them is enough.
    assert by_name(load("tico", ENGLISH, tmp_path)) == {"dev": english, "test": english[:1]}
    assert load("tico", ENGLISH, tmp_path)[0].language == "English"


def test_tico_variants(tmp_path):
    for split in ("dev", "test"):
        for code in ("ti", "ti_ER", "ti_ET", "es-LA", "es-419", "zh", "zh-TW", "swc", "sw", "xh", "ar", "kr"):
            write_tico(tmp_path, split, code, [("One.", f"{split} {code}")])

    def texts(name: str) -> dict[str, list[str]]:
        return by_name(load("tico", languages.find(name), tmp_path))

    assert texts("Tigrinya") == {
        f"{split}{tag}": [f"{split} {code}"]
        for split in ("dev", "test")
        for tag, code in (("", "ti"), (" (ti_ER)", "ti_ER"), (" (ti_ET)", "ti_ET"))
    }
    assert texts("Spanish")["dev"] == ["dev es-LA"] and texts("Spanish")["test (es-419)"] == ["test es-419"]
    assert texts("Chinese (Simplified)") == {"dev": ["dev zh"], "test": ["test zh"]}
    assert texts("Swahili") == {"dev": ["dev sw"], "test": ["test sw"]}
    assert texts("Xhosa") == {"dev": ["dev xh"], "test": ["test xh"]}, "the table knows nothing of it, the folder does"
    for code in ("zho_Hant", "arb_Latn", "knc_Arab"):  # it has these languages in their other script
        refusal(LacksLanguage, "tico", languages.find(code), tmp_path)


def test_tico_that_cannot_be_had(tmp_path):
    assert f"no tico19-testset/dev/dev.en-so.tsv in {tmp_path}" in refusal(CannotLoad, "tico", SOMALI, tmp_path)
    path = write_tico(tmp_path, "dev", "so", [("One.", "Mid.")])
    assert "no tico19-testset/test/test.en-so.tsv" in refusal(CannotLoad, "tico", SOMALI, tmp_path)
    write_tico(tmp_path, "test", "so", [("One.", "Mid.")])
    assert [split.name for split in load("tico", SOMALI, tmp_path)] == ["dev", "test"]
    write(path, f"{TICO_HEADER}\nen\tso\tOne.\tMid.\td:1\nen\tso\tTwo.\n")
    assert f"{path}, line 3: 3 columns instead of 8" in refusal(CannotLoad, "tico", SOMALI, tmp_path)
    assert load("tico", ENGLISH, tmp_path)[0].texts == ["One.", "Two."], "that side is whole"
    write(path, "English\tSomali\nOne.\tMid.\n")
    assert "no column targetString, only English, Somali" in refusal(CannotLoad, "tico", SOMALI, tmp_path)
    for text in (f"{TICO_HEADER}\n", ""):
        write(path, text)
        assert str(path) in refusal(CannotLoad, "tico", SOMALI, tmp_path)
    assert "no Basque (eus_Latn)" in refusal(LacksLanguage, "tico", BASQUE, tmp_path)
    assert "no tico19-testset/dev/dev.en-*.tsv" in refusal(CannotLoad, "tico", ENGLISH, tmp_path / "test")


def test_tico_ids_without_a_column_of_ids(tmp_path):
    for split in ("dev", "test"):
        write(tmp_path / split / f"{split}.en-ha.tsv", "sourceString\ttargetString\nOne.\tƊaya.\nTwo.\tBiyu.\n")
    assert load("tico", languages.find("Hausa"), tmp_path)[0].ids == ["2", "3"]


def test_xquad(tmp_path):
    spanish = languages.find("Spanish")
    text = squad(("Oxígeno", ["Uno.", "Dos.", "Uno."]), ("Varsovia", ["Dos.", "Tres.\u2028Cuatro."]))
    write(tmp_path / "xquad/xquad.es.json", text)
    (split,) = load("xquad", spanish, tmp_path)
    assert split.name == "validation" and split.texts == ["Uno.", "Dos.", "Tres.\u2028Cuatro."]
    assert split.ids == ["Oxígeno 1", "Oxígeno 2", "Varsovia 2"]
    write(tmp_path / "xquad.eu.json", squad(("Oxigenoa", ["Bat."])))
    assert load("xquad", BASQUE, tmp_path)[0].texts == ["Bat."], "XQuAD has none, the folder has"
    write(tmp_path / "xquad.zh.json", squad(("氧", ["一。"])))
    for name in ("Hausa", "Chinese (Traditional)"):
        message = refusal(LacksLanguage, "xquad", languages.find(name), tmp_path)
        assert f"no {name}" in message and "Modern Standard Arabic, German, Greek, English, Spanish" in message
    assert "no xquad/xquad.hi.json or xquad.hi.json" in refusal(CannotLoad, "xquad", languages.find("Hindi"), tmp_path)
    path = tmp_path / "xquad/xquad.es.json"
    for broken, part in [
        (text[:-3], "is not JSON"),
        ("", "is not JSON"),
        ("[]", "is not SQuAD JSON"),
        ('{"data": [{"title": "Oxígeno"}]}', "is not SQuAD JSON: KeyError('paragraphs')"),
        ('{"data": [{"paragraphs": [{"context": 3}]}]}', "is not SQuAD JSON: a context is not a text"),
        ('{"data": []}', "is empty"),
    ]:
        write(path, broken)
        assert f"{path} {part}" in refusal(CannotLoad, "xquad", spanish, tmp_path)


def test_the_declaration_has_a_part_for_prompts_and_one_for_tests(tmp_path):
    for folder in (None, tmp_path):  # embedded: a folder changes nothing
        dev, test = load("udhr", BASQUE, folder)
    assert (dev.name, test.name, dev.ids[0], dev.ids[-1], test.ids[0], test.ids[-1]) == (
        *("dev", "test", "preamble 1", "20 2", "21 1", "30 1"),
    )
    assert len(dev.texts) + len(test.texts) == len((benchmarks.UDHR / "eus_Latn.tsv").read_text().splitlines())
    shown = {
        *examples.udhr(BASQUE),
        *examples.example_sentences("udhr", BASQUE),
        *(text for text, _ in examples.parallel_sentences("udhr", BASQUE, ENGLISH)),
    }
    assert shown <= set(dev.texts) and not shown & set(test.texts)
    english = {text for split in load("udhr", ENGLISH) if split.name == "test" for text in split.texts}
    assert not english & set(examples.example_paragraphs("udhr")["English"])
    assert len(examples.parallel_sentences("udhr", BASQUE, ENGLISH)) > 20
    assert "no Upper Sorbian" in refusal(LacksLanguage, "udhr", SORBIAN)
    with pytest.raises(UsageError, match="the embedded UDHR has no Upper Sorbian; pass a folder"):
        examples.udhr(SORBIAN)


def test_every_embedded_declaration_has_both_parts():
    for path in benchmarks.UDHR.glob("*.tsv"):
        dev, test = load("udhr", languages.find(path.stem))
        assert len(dev.texts) >= 15 and len(test.texts) >= 10 and not set(dev.ids) & set(test.ids), path.stem
        assert examples.udhr(languages.find(path.stem)) == [text for text in dev.texts if len(text) > 39]


def test_embedded_declarations_are_in_their_language():
    """The package has Kurmanji under the code of Sorani, Cantonese in simplified characters, and Francoprovençal under that of Occitan."""
    identifier, seen = language_id.load("cld2"), {}
    for path in sorted(benchmarks.UDHR.glob("*.tsv")):
        language = languages.find(path.stem)
        texts = [text for split in load("udhr", language) for text in split.texts if len(text) > 40]
        same = seen.setdefault(tuple(texts), path.stem)
        assert same == path.stem or (same, path.stem) == ("aka_Latn", "twi_Latn")  # dialects of one language
        assert all(language_id._is_in_script(text, language.script) for text in texts), path.stem
        if identifier.knows(language):
            assert sum(identifier.is_language(texts, language)) >= 0.75 * len(texts), path.stem


def test_published_files_where_this_machine_has_them(ntrex):
    for name in ("Basque", "Hausa", "Nepali", "Swahili", "Urdu", "English"):
        test, pool = load("ntrex", languages.find(name), BENCHMARKS)
        assert (test.name, len(test.texts), pool.name, len(pool.texts)) == ("test", 1000, "pool", 997)
        lines = Path(pool.source).read_bytes().split(b"\n")
        assert [pool.texts[0], pool.texts[-1]] == [lines[i].rstrip(b"\r").decode() for i in (1000, 1996)]
    assert by_name(load("flores", ENGLISH, BENCHMARKS)).keys() == {"dev", "devtest"}
    assert [len(split.texts) for split in load("flores", ENGLISH, BENCHMARKS)] == [997, 1012]
    sides = [load("xquad", languages.find(code), BENCHMARKS)[0] for code in benchmarks.XQUAD_CODES]
    assert len(sides) == 12 and all(len(side.texts) == 240 and side.ids == sides[0].ids for side in sides)


@pytest.mark.parametrize("name", NAMED)
def test_without_a_folder_the_hub_is_asked_and_its_refusal_is_reported(name):
    language = languages.find("Urdu") if name != "xquad" else languages.find("Turkish")
    message = refusal(CannotLoad, name, language)
    repository = {"flores": "openlanguagedata/flores_plus, urd_Arab", "tico": "gmnlp/tico19", "ntrex": "mteb/NTREX"}
    assert f"cannot load '{repository.get(name, 'google/xquad, xquad.tr')}' (" in message and "HF_TOKEN" in message
    if name in ("ntrex", "tico"):
        assert "no Upper Sorbian" in refusal(LacksLanguage, name, SORBIAN), "the Hub need not be asked"


@pytest.mark.parametrize("name", NAMED)
def test_with_a_folder_the_hub_is_never_asked(name, tmp_path, monkeypatch):
    for asks in ("dataset", "files"):
        monkeypatch.setattr(hub_sets, asks, lambda *arguments: pytest.fail("the Hub was asked"))
    assert str(tmp_path) in refusal(
        CannotLoad, name, languages.find("Turkish" if name == "xquad" else "Urdu"), tmp_path
    )


def repository(folder, configs: dict[str, dict[str, list[dict]]]) -> str:
    """A folder that `datasets` loads as it does a repository of the Hub: rows by split by config."""
    card = ["---", "configs:"]
    for config, splits in configs.items():
        card += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            write(folder / config / f"{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
            card += [f"  - split: {split}", f"    path: {config}/{split}.jsonl"]
    write(folder / "README.md", "\n".join([*card, "---", ""]))
    return str(folder)


def test_rows_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    flores = repository(
        tmp_path / "flores",
        {code: {s: [{"id": 0, "text": f"{s} {code}"}, {"id": 1, "text": None}] for s in ("dev", "devtest")} for code in ("ibo_Latn", "ekk_Latn")},
    )  # fmt: skip
    monkeypatch.setattr(benchmarks, "FLORES_REPO", flores)
    dev, devtest = load("flores", languages.find("Estonian"))
    assert dev.texts == ["dev ekk_Latn", ""] and devtest.source == f"hub: {flores}, ekk_Latn, devtest"
    assert examples.example_sentences("flores", IGBO) == ["dev ibo_Latn", ""]
    assert "BuilderConfig" in refusal(CannotLoad, "flores", XHOSA)
    assert "no Upper Sorbian" in refusal(LacksLanguage, "flores", SORBIAN)

    rows = [{"fra_Latn": f"un {i}", "fra-CA_Latn": f"un, {i}", "eng_Latn": f"one {i}"} for i in range(1, 1998)]
    ntrex = repository(tmp_path / "ntrex", {"default": {"test": rows}})
    monkeypatch.setattr(benchmarks, "NTREX_REPO", ntrex)
    splits = load("ntrex", FRENCH)
    assert [split.name for split in splits] == ["test", "pool", "test (fra-CA)", "pool (fra-CA)"]
    assert splits[3].texts[0] == "un, 1001" and splits[3].source == f"hub: {ntrex}, fra-CA_Latn, test"
    assert "no column xho_Latn, only" in refusal(CannotLoad, "ntrex", XHOSA)

    contexts = [{"context": text, "question": str(i)} for i, text in enumerate(["Bir.", "Bir.", "İki.", "Bir."])]
    monkeypatch.setattr(
        benchmarks, "XQUAD_REPO", repository(tmp_path / "xquad", {"xquad.tr": {"validation": contexts}})
    )
    (split,) = load("xquad", languages.find("Turkish"))
    assert split.texts == ["Bir.", "İki."] and split.ids == ["1", "2"]


def test_tico_files_of_the_hub(tmp_path, monkeypatch):
    # What the Hub's client has fetched before it gives again without the Hub.
    cache = tmp_path / "datasets--gmnlp--tico19"
    write(cache / "refs/main", "c0ffee")
    for split in ("dev", "test"):
        for code in ("rw", "fr"):
            write_tico(cache / "snapshots/c0ffee", split, code, [(f"One, {code}.", f"{split} {code}")])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert by_name(load("tico", KINYARWANDA)) == {"dev": ["dev rw"], "test": ["test rw"]}
    assert load("tico", KINYARWANDA)[1].source == "hub: gmnlp/tico19, en-rw, test"
    assert by_name(load("tico", ENGLISH))["dev"] == ["One, fr."]


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
    ],
)  # fmt: skip
def test_own_files(tmp_path, file, content, splits):
    path = write(tmp_path / file, content)
    loaded = load(str(path), BASQUE, tmp_path)
    assert by_name(loaded) == splits
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
