"""TMX and Moses: valid, aligned, and the same texts as the parquet files."""

import random

import pytest

from tests.support.publishing import make_run, publish, record, rows
from topxgen.publication.moses import one_line
from topxgen.publication.tmx import language_tag
from topxgen.text import languages

# The elements and attributes of TMX 1.4 that a file of level 1 has (LISA OSCAR, TMX 1.4b specification, 2005).
ATTRIBUTES = (
    "creationtool CDATA #{0} creationtoolversion CDATA #{0} segtype ({1}) #{0} o-tmf CDATA #{0} datatype CDATA #{0}"
)
SEGMENTS = "block|paragraph|sentence|phrase"
DTD = f"""
<!ELEMENT tmx (header, body)>
<!ATTLIST tmx version CDATA #FIXED "1.4">
<!ELEMENT header ((note|prop|ude)*)>
<!ATTLIST header {ATTRIBUTES.format("REQUIRED", SEGMENTS)} adminlang CDATA #REQUIRED srclang CDATA #REQUIRED
  o-encoding CDATA #IMPLIED creationdate CDATA #IMPLIED creationid CDATA #IMPLIED changedate CDATA #IMPLIED changeid CDATA #IMPLIED>
<!ELEMENT ude EMPTY> <!ELEMENT note (#PCDATA)> <!ELEMENT prop (#PCDATA)>
<!ATTLIST prop type CDATA #REQUIRED xml:lang CDATA #IMPLIED o-encoding CDATA #IMPLIED>
<!ELEMENT body (tu*)>
<!ELEMENT tu ((note|prop)*, tuv+)>
<!ATTLIST tu tuid CDATA #IMPLIED {ATTRIBUTES.format("IMPLIED", SEGMENTS)} usagecount CDATA #IMPLIED>
<!ELEMENT tuv ((note|prop)*, seg)>
<!ATTLIST tuv xml:lang CDATA #REQUIRED>
<!ELEMENT seg (#PCDATA)>
"""
STRANGE = (
    'Tags <b>&amp;</b> ]]> <!-- "quotes" \' & entities &lt; of a text.',
    "Control \x00\x01\x08\x0b\x0c\x1b\x1f characters, \ufffe and \uffff of a text.",
    "Lines\r\nof\ra\ntext \u2028 and \u2029 and \x85 of it, and \x1c\x1d\x1e too.",
    "Astral 𐐷 and 🏔, right-to-left \u202eevil\u202c and \u200b\ufeff of a text.",
)


def strange_record() -> dict:
    return record(50, pairs=len(STRANGE)) | {
        "propositions": list(STRANGE),
        "translations": [f"Translation: {text}" for text in STRANGE],
        "topic": "A & B <c> \x07",
        "id": 'an "id" & <more>',
    }


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    run = make_run(folder / "run", {"Basque": [*map(record, range(20)), strange_record()]})
    publish(run, folder / "out", "--formats", "moses", "tmx", "--validation_size", "4")
    return folder / "out"


@pytest.mark.parametrize("split", ["train", "validation"])
def test_tmx_is_valid_and_has_the_pairs(split, published):
    from io import StringIO

    from lxml import etree

    tree = etree.parse(published / "tmx" / f"Basque.{split}.tmx")
    dtd = etree.DTD(StringIO(DTD))
    assert dtd.validate(tree), dtd.error_log
    units = tree.findall(".//tu")
    wanted = rows(published, split=split)
    assert len(units) == len(wanted) > 0
    lang = "{http://www.w3.org/XML/1998/namespace}lang"
    for unit, row in zip(units, wanted, strict=True):
        sides = {one.get(lang): one.find("seg").text for one in unit.findall("tuv")}
        assert list(sides) == ["en", "eu"]
        properties = {one.get("type"): one.text for one in unit.findall("prop")}
        assert (
            float(properties["x-score"]) == row["score"] and properties["x-back-translator"] == row["back_translator"]
        )
        if row["paragraph_id"].startswith("Basque"):
            assert (unit.get("tuid"), sides["en"], sides["eu"]) == (row["id"], row["source"], row["target"])


def test_tmx_has_what_xml_can_hold_of_strange_texts(published):
    from lxml import etree

    segments = [one.text for one in etree.parse(published / "tmx" / "Basque.train.tmx").iter("seg")]
    segments += [one.text for one in etree.parse(published / "tmx" / "Basque.validation.tmx").iter("seg")]
    for text in STRANGE:
        plain = "".join(" " if c in "\x00\x01\x08\x0b\x0c\x1b\x1f\x1c\x1d\x1e\ufffe\uffff" else c for c in text)
        assert plain.replace("\r\n", "\n").replace("\r", "\n") in segments


def test_a_validator_that_cannot_fail_is_none(published):
    from io import StringIO

    from lxml import etree

    tree = etree.parse(published / "tmx" / "Basque.train.tmx")
    unit = tree.find(".//tu")
    unit.append(etree.SubElement(unit, "prop", type="x-late"))  # properties come before the texts
    assert not etree.DTD(StringIO(DTD)).validate(tree)


def test_moses_is_aligned_line_by_line(published):
    for split in ("train", "validation"):
        stem = published / "moses" / f"{split}.eng_Latn-eus_Latn"
        sides = [stem.with_name(f"{stem.name}.{side}").read_bytes() for side in ("src", "tgt")]
        texts = [side.decode().split("\n") for side in sides]
        # Whatever a program takes for the end of a line, there are as many lines.
        assert all(len(side.decode().splitlines()) == len(rows(published, split=split)) for side in sides)
        for source, target, row in zip(*texts, rows(published, split=split), strict=False):
            assert (source, target) == (one_line(row["source"]), one_line(row["target"]))
        assert texts[0][-1] == texts[1][-1] == ""


def test_one_line_keeps_words_apart():
    assert one_line("a\r\nb\rc\nd\u2028e\x85f\x0bg\x0ch\x00i") == "a b c d e f g h i"
    rng = random.Random(3)
    for _ in range(200):
        text = "".join(rng.choice("ab \t\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\0é") for _ in range(20))
        assert len(f"x{one_line(text)}x".splitlines()) == 1


def test_language_tags():
    tags = {
        name: language_tag(languages.find(name))
        for name in (
            "Basque",
            "Ganda",
            "Chinese (Simplified)",
            "Chinese",
            "Arabic (Modern Standard)",
            "Kashmiri (Devanagari script)",
        )
    }
    assert tags == {
        "Basque": "eu",
        "Ganda": "lg",
        "Chinese (Simplified)": "zh-Hans",
        "Chinese": "zh-Hans",
        "Arabic (Modern Standard)": "ar",
        "Kashmiri (Devanagari script)": "ks-Deva",
    }
