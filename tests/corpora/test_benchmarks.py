"""Evaluation sets: the publishers' layouts, the Hub's rows, the user's own files, and a line for all that goes wrong."""

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.support.runs import BENCHMARKS
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
    (need,) = benchmarks.needs("xquad", [spanish, BASQUE, languages.find("Turkish")])
    assert need.configs == ("xquad.es", "xquad.tr")
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
        assert all(language_id.is_in_script(text, language.script) for text in texts), path.stem
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
    monkeypatch.setitem(benchmarks.REPOS, "flores", flores)
    dev, devtest = load("flores", languages.find("Estonian"))
    assert dev.texts == ["dev ekk_Latn", ""] and devtest.source == f"hub: {flores}, ekk_Latn, devtest"
    assert examples.example_sentences("flores", IGBO) == ["dev ibo_Latn", ""]
    assert "BuilderConfig" in refusal(CannotLoad, "flores", XHOSA)
    assert "no Upper Sorbian" in refusal(LacksLanguage, "flores", SORBIAN)

    rows = [{"fra_Latn": f"un {i}", "fra-CA_Latn": f"un, {i}", "eng_Latn": f"one {i}"} for i in range(1, 1998)]
    ntrex = repository(tmp_path / "ntrex", {"default": {"test": rows}})
    monkeypatch.setitem(benchmarks.REPOS, "ntrex", ntrex)
    splits = load("ntrex", FRENCH)
    assert [split.name for split in splits] == ["test", "pool", "test (fra-CA)", "pool (fra-CA)"]
    assert splits[3].texts[0] == "un, 1001" and splits[3].source == f"hub: {ntrex}, fra-CA_Latn, test"
    assert "no column xho_Latn, only" in refusal(CannotLoad, "ntrex", XHOSA)

    contexts = [{"context": text, "question": str(i)} for i, text in enumerate(["Bir.", "Bir.", "İki.", "Bir."])]
    xquad = repository(tmp_path / "xquad", {"xquad.tr": {"validation": contexts}})
    monkeypatch.setitem(benchmarks.REPOS, "xquad", xquad)
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
