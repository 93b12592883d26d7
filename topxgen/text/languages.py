"""One table of languages: names, codes, script, punctuation (languages.tsv beside this file).

To add a language to the project, add a row to languages.tsv; to add one for a run, pass a file with the same columns as
`--languages_file` (here: `extra`).

Other names of these languages are in language_names.tsv. Rows that FLORES-200 lacks come last: from NTREX-128 and FLORES+.

Codes: FLORES-200 (https://github.com/facebookresearch/flores), NTREX-128 as `mteb/NTREX` spells them, TICO-19 file codes,
CLD2 codes as pycld2 returns them (several, comma-separated, if CLD2 does not distinguish a variety; none if it misses
most texts of a language). `sentencex` names the
rules that split this language into sentences: its own, those of a relative, or none (sentencex's English defaults).
`endonym` is the language's name in the language, in sentence case (Euskara), for MT templates; empty if unknown.
"""

import csv
import re
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path

from topxgen.common.errors import UsageError, closest
from topxgen.common.files import refuse_stand_in
from topxgen.common.provenance import digest

TABLE = Path(__file__).with_name("languages.tsv")
NAMES = Path(__file__).with_name("language_names.tsv")
_CODE = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}(_\w+)?")  # FLORES+ adds a variety: cat_Latn_vale1391


@dataclass(frozen=True)
class Language:
    """A row of the table; a missing code is the empty string."""

    name: str
    flores: str
    iso639_1: str
    iso639_3: str
    ntrex: str
    tico: str
    cld2: str
    script: str
    terminators: str
    direction: str
    sentencex: str
    endonym: str

    @property
    def right_to_left(self) -> bool:
        return self.direction == "rtl"

    @property
    def splitting_rules(self) -> str:
        """Which sentence-splitting rules apply: "own", "borrowed from xx" or "fallback"."""
        if not self.sentencex:
            return "fallback"
        return "own" if self.sentencex == self.iso639_1 else f"borrowed from {self.sentencex}"


def _read(path: Path) -> list[Language]:
    columns = [field.name for field in fields(Language)]
    try:
        refuse_stand_in(path)
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", error)
        raise UsageError(f"cannot read the language table {path}: {reason}") from None
    languages = []
    for number, row in enumerate(rows, start=2):
        for required in ("name", "flores"):
            if not row.get(required):
                raise UsageError(
                    f"{path}, line {number}: no {required!r}; a language file is tab-separated with the header "
                    + " ".join(columns)
                )
        name = row["name"]
        if "/" in name or "\\" in name or name.startswith(".") or not name.isprintable():
            raise UsageError(
                f"{path}, line {number}: the name {name!r} is used in file names; use letters and spaces only"
            )
        if not _CODE.fullmatch(row["flores"]):
            raise UsageError(
                f"{path}, line {number}: the code {row['flores']!r} is none of FLORES-200's kind: three letters of ISO 639-3 and the script, "
                "such as lld_Latn"
            )
        values = {column: (row.get(column) or "") for column in columns}
        code, _, script = values["flores"].partition("_")
        values["iso639_3"] = values["iso639_3"] or code
        values["script"] = values["script"] or script
        values["terminators"] = values["terminators"] or ".!?…"
        values["direction"] = values["direction"] or "ltr"
        languages.append(Language(**values))
    return languages


@cache
def load(extra: str | None = None) -> dict[str, Language]:
    """The table by English name; rows of the file `extra` replace built-in ones or are added.

    Raises UsageError if a file cannot be read or a row has no name or FLORES code.
    """
    languages = {language.name: language for language in _read(TABLE)}
    if extra:
        languages.update({language.name: language for language in _read(Path(extra))})
    return languages


@cache
def other_names() -> dict[str, str]:
    """Other English names to FLORES codes, misspellings in published folders ("Muanmar") among them."""
    with open(NAMES, encoding="utf-8", newline="") as file:
        return {row["name"]: row["flores"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}


def find(name: str, extra: str | None = None) -> Language:
    """The language of an English name, case-insensitive, or of a code: FLORES, NTREX, or an ISO code of one language alone.

    One found by another name than the table's keeps it, for prompts and file names: "Luganda" is the row of Ganda with the
    name Luganda. Raises UsageError with the closest names.
    """
    table, folded = load(extra), _folded(name)
    if name in table:
        return table[name]
    for language in table.values():
        if folded in (_folded(language.name), language.flores.casefold()):
            return language
    by_code = {language.flores: language for language in table.values()}
    for other, code in other_names().items():
        if folded == _folded(other) and code in by_code:
            return replace(by_code[code], name=other)
    rows = [row for row in table.values() if folded in map(str.casefold, (row.iso639_1, row.iso639_3, row.ntrex))]
    if folded and len(rows) == 1:
        return rows[0]
    near = [row.name for row in rows] if folded and rows else closest(name, [*table, *other_names()])
    if "," in name:
        hint = f"separate names by spaces: {' '.join(_quoted(part) for part in name.split(',') if part.strip())}"
    elif near:
        hint = f"did you mean {', '.join(near)}?"
    else:
        hint = "names are English, such as Basque or Swahili"
    raise UsageError(
        f"unknown language {name!r}: {hint} (--languages_file adds languages; topxgen/text/languages.tsv lists them)"
    )


def names_of(language: Language, extra: str | None = None) -> set[str]:
    """All names of a language, by whichever it was found."""
    rows = {row.name for row in load(extra).values() if row.flores == language.flores}
    return {language.name, *rows, *(name for name, code in other_names().items() if code == language.flores)}


def row_id(language: Language) -> str:
    """A digest of a row of the user's own; "" for one of the table, whatever name it is used by."""
    if any(replace(row, name=language.name) == language for row in load().values()):
        return ""
    return digest([f"{column} {value}" for column, value in asdict(language).items() if value])


def _folded(name: str) -> str:
    """Without letter case, and with one apostrophe: N'ko, N’Ko."""
    return " ".join(name.casefold().replace("’", "'").split())


def _quoted(name: str) -> str:
    return f'"{name.strip()}"' if " " in name.strip() else name.strip()
