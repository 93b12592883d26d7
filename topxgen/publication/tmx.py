"""A translation memory in TMX 1.4 (LISA OSCAR 2005), level 1, as CAT tools and OPUS read it: tmx/{config}.{split}.tmx.

A <tu> for each pair, with its id as `tuid`, score, confidence and topic as <prop>; languages by their ISO 639 codes.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import XMLGenerator

import topxgen
from topxgen.publication.sources import Config, Pair
from topxgen.text import languages
from topxgen.text.languages import Language

# What XML 1.0 (section 2.2) cannot hold, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
PROPERTIES = ("score", "confidence", "topic", "back_translator")


def language_tag(language: Language) -> str:
    """Its BCP 47 tag: the shortest ISO 639 code, with the script where the language table has it in another one, too."""
    tag = language.iso639_1 or language.iso639_3
    rows = (row for row in languages.load().values() if row.flores == language.flores)
    return f"{tag}-{language.script}" if any("(" in row.name for row in rows) else tag


class Tmx:
    def __init__(self, folder: Path, config: Config, split: str):
        (folder / "tmx").mkdir(exist_ok=True)
        self._file = open(folder / "tmx" / f"{config.folder}.{split}.tmx", "x", encoding="utf-8", newline="\n")  # noqa: SIM115
        self._xml = XMLGenerator(self._file, encoding="utf-8", short_empty_elements=True)
        self._tags = language_tag(config.target), language_tag(config.language)
        header = {
            "creationtool": "topxgen",
            "creationtoolversion": topxgen.__version__,
            "segtype": "sentence",
            "o-tmf": "topxgen",
            "adminlang": "en",
            "srclang": self._tags[0],
            "datatype": "plaintext",
        }
        self._xml.startDocument()
        self._xml.startElement("tmx", {"version": "1.4"})
        self._xml.startElement("header", header)
        self._xml.endElement("header")
        self._xml.startElement("body", {})
        self._xml.characters("\n")

    def write(self, rows: Iterable[Pair]) -> None:
        xml = self._xml
        for row in rows:
            xml.startElement("tu", {"tuid": clean(row.id)})
            for name in PROPERTIES:
                if (value := getattr(row, name)) is not None:
                    self._element("prop", str(value), {"type": kind_of(name)})
            for tag, text in zip(self._tags, (row.source, row.target), strict=True):
                xml.startElement("tuv", {"xml:lang": tag})
                self._element("seg", text)
                xml.endElement("tuv")
            xml.endElement("tu")
            xml.characters("\n")

    def _element(self, name: str, text: str, attributes: dict[str, str] | None = None) -> None:
        self._xml.startElement(name, attributes or {})
        self._xml.characters(clean(text))
        self._xml.endElement(name)

    def close(self) -> None:
        self._xml.endElement("body")
        self._xml.endElement("tmx")
        self._xml.endDocument()
        self._file.close()


def kind_of(name: str) -> str:
    """The type of a <prop>."""
    return f"x-{name.replace('_', '-')}"


def clean(text: str) -> str:
    """`text` as XML can hold it."""
    # A carriage return would come back as a line feed.
    return _NOT_XML.sub(" ", text).replace("\r\n", "\n").replace("\r", "\n")
