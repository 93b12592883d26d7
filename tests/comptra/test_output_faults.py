"""Faults of translations: definitions at their limits, planted ones in published translations, the report."""

import json

import pytest

from comptra.scores import output_faults
from comptra.scores.metrics import Test
from comptra.scores.output_faults import FAULTS
from tests.support.evaluations import UDHR, original, settings, udhr, write
from tests.support.runs import in_process
from topxgen.text import languages

ENGLISH, BASQUE, HAUSA, THAI = map(languages.find, ("English", "Basque", "Hausa", "Thai"))


def test_copies_differ_in_little():
    source = "The committee met on 24 March 1994 in Geneva, and adjourned."
    for text in (source, source.upper(), source.replace(",", "").rstrip("."), source.replace("March", "Mars")):
        assert output_faults.is_copy(source, text), text
    for text in ("", "...", "Batzordea 1994ko martxoaren 24an bildu zen Genevan.", source[:45]):
        assert not output_faults.is_copy(source, text), text
    assert not output_faults.is_copy("का की के कि को कु", "कु को कि के की का"), "words differ in their vowel signs"
    # 0.9 exactly: of 10 + 10 letters 18 are in both
    assert output_faults.is_copy("abcdefghij", "abcdefghiX") and not output_faults.is_copy("abcdefghij", "abcdefghXY")


@pytest.mark.parametrize(
    ("model", "text", "lacks"),
    [
        ("It rains.", "Euria ari du.", False),
        ("It rains.", "Euria ari", True),
        ("It rains.", "“Euria ari du.” ", False),
        ("It rains.", "Euria ari du…", False),
        ("It rains.", "Euria ari du,", True),
        ("Rain", "Euria", False),
        ("(It rains.)", "Euria", True),
        ("It rains.", "", False),
    ],
)
def test_a_missing_end(model, text, lacks):
    assert output_faults.lacks_end(model, text, ENGLISH, BASQUE) == lacks


def test_thai_needs_no_mark_unless_its_reference_has_one():
    assert not output_faults.lacks_end("It rains.", "ฝนตก", ENGLISH, THAI)
    assert output_faults.lacks_end("ฝนตก.", "ฝนตก", THAI, THAI) and not output_faults.lacks_end(
        "ฝนตก", "ฝนตก", THAI, THAI
    )
    assert not output_faults.lacks_end("It rains.", "यह बारिश है।", ENGLISH, languages.find("Nepali"))


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        ("no no no no", True),
        ("No, no, no - no!", True),
        ("no no no yes no", False),
        ("no no no", False),
        ("one two three one two three one two three one two three", True),
        ("one two three one two three one two three one two", False),
        ("so on " * 4, True),
        (" ".join(f"w{i}" for i in range(20)) + " ", False),
        ((" ".join(f"w{i}" for i in range(20)) + " ") * 4, True),
        ((" ".join(f"w{i}" for i in range(21)) + " ") * 4, False),
        ("the a the b the c the d the e the f the g the", False),
        ("- - - - - -", False),
        ("ha" * 10, True),
        ("ha" * 9, False),
        ("हा" * 10, True),
        ("हा" * 9, False),
        ("का की के कि को", False),  # words that differ in their vowel signs alone
        ("10000000000000000", False),
        ("", False),
    ],
)
def test_repetitions(text, repeated):
    assert output_faults.is_repeated(text, BASQUE) == repeated
    if repeated and "ha" not in text:
        assert output_faults.is_repeated(f"Before this: {text} and after it.", BASQUE)


def test_repetitions_without_spaces():
    chinese = languages.find("Chinese (Simplified)")
    assert output_faults.is_repeated("他说我们去学校我们去学校我们去学校我们去学校", chinese)
    assert not output_faults.is_repeated("他说我们去学校，我们去学校。", chinese)


def test_over_long():
    model = "a" * 60
    assert not output_faults.is_over_long(model, "a" * 120) and output_faults.is_over_long(model, "a" * 121)
    assert not output_faults.is_over_long("a" * 10, "a" * 50) and output_faults.is_over_long("a" * 10, "a" * 51)
    assert not output_faults.is_over_long("我" * 60, "a" * 360), "a Han character is as long as three letters"


def test_what_the_reference_does_is_no_fault():
    sources = ["Barack Obama, New York Times.", "This is a sentence in English, of some length."]
    found = output_faults.find(Test(ENGLISH, BASQUE, sources, sources), sources, (), "cld2")
    assert found["copied"] == [False, False] and found["wrong_language"] == [False, False]
    found = output_faults.find(Test(ENGLISH, BASQUE, sources, None), sources, (), "cld2")
    assert found["copied"] == [True, True] and found["wrong_language"][1]
    found = output_faults.find(Test(ENGLISH, BASQUE, sources, ["Bat", "Bi."]), ["Bat", "Bi"], (), "cld2")
    assert found["truncated"] == [False, True]


def test_a_short_text_has_no_language():
    texts = ("This is English, you know.", "This is English, I", "", "1984 1984 1984 1984 1984")
    assert output_faults.wrong_language(texts, BASQUE, "cld2") == [True, False, False, False]
    assert output_faults.wrong_language(texts, languages.find("Umbundu"), "cld2") is None


@pytest.mark.parametrize("code, language", [("eus", BASQUE), ("hau", HAUSA), ("swa", languages.find("Swahili"))])
def test_planted_faults_are_found_in_published_translations(code, language, ntrex):
    sources = (ntrex / "newstest2019-src.eng.txt").read_text(encoding="utf-8").split("\n")[:500]
    references = (ntrex / f"newstest2019-ref.{code}.txt").read_text(encoding="utf-8").split("\n")[:500]
    others = (ntrex / "newstest2019-ref.urd.txt").read_text(encoding="utf-8").split("\n")[:500]
    test = Test(ENGLISH, language, sources, references)

    def share(fault, translations, cut=()):
        return output_faults.count(test, translations, cut, "cld2")[fault] / len(translations)

    assert all(share(fault, references) <= 0.004 for fault in FAULTS)
    halves = [" ".join(text.split()[: len(text.split()) // 2]) for text in references]
    loops = [f"{text} {' '.join(text.split()[-3:])} {' '.join(text.split()[-3:] * 5)}" for text in references]
    assert share("copied", sources) > 0.99
    assert share("wrong_language", others) > 0.97 and share("wrong_language", sources) > 0.93
    assert share("truncated", halves) > 0.9 and share("truncated", references, range(50)) >= 0.1
    assert share("repeated", loops) > 0.99
    assert share("over_long", [f"{text} {text} {text}" for text in references]) > 0.9
    assert share("empty", ["", "\u200b", "\ufeff \u200e", "\u3164", "\u200c"] * 100) == 1


def test_the_report_counts_each_fault(tmp_path):
    test = udhr()
    texts = list(test.references)
    texts[0], texts[1], texts[2] = "", test.sources[1], texts[2].rstrip(".")
    texts[3] = f"{texts[3]} eta eta eta eta."
    texts[4] *= 3
    original(tmp_path / "runs", "m", texts)
    folder = write(tmp_path / "runs" / "cut" / "run", test.sources, test.references, settings())
    lines = [json.loads(line) for line in (folder / "translate_0.jsonl").read_text(encoding="utf-8").splitlines()]
    lines[5]["truncated"] = True
    (folder / "translate_0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = in_process(
        "comptra.evaluate", tmp_path / "runs", *UDHR, "--metrics", "chrf", "--json", tmp_path / "o.json"
    )
    assert result.returncode == 0, result.stderr
    systems = json.loads((tmp_path / "o.json").read_text())["groups"][0]["systems"]
    faults = {system["name"].split("/")[0]: system["faults"] for system in systems}
    expected = dict.fromkeys(FAULTS, 1)
    assert faults["m"] == expected | {"over_long": faults["m"]["over_long"]} and 1 <= faults["m"]["over_long"] <= 2
    assert faults["cut"]["truncated"] == 1 and faults["cut"]["empty"] == 0


def test_a_language_that_cannot_be_identified_is_not_counted_as_right(tmp_path):
    original(tmp_path / "runs", "m", tgt="Umbundu")
    result = in_process(
        "comptra.evaluate", tmp_path / "runs", *UDHR, "--metrics", "chrf", "--json", tmp_path / "o.json"
    )
    (system,) = json.loads((tmp_path / "o.json").read_text())["groups"][0]["systems"]
    assert result.returncode == 0 and system["faults"]["wrong_language"] is None
