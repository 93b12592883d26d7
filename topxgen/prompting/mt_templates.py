"""The MT prompts of mt_templates.toml: few-shot text for base models and checkpoints, a request for chat models."""

import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial
from os.path import expanduser
from pathlib import Path

from topxgen.common.errors import UsageError, unknown_choice
from topxgen.common.files import read_json
from topxgen.common.hub import model_file
from topxgen.prompting.answers import clean_answer
from topxgen.prompting.toml_prompts import fill, refuse_unknown
from topxgen.text import languages
from topxgen.text.thoughts import begun_in, has_marks

FILE = Path(__file__).with_name("mt_templates.toml")
PARTS = ("header", "prefix", "middle", "suffix")
LABELS = ("sentence", "translation")
CHAT_PARTS = {"request": ("examples", "sentence"), "examples": ("items",), "example": ("source", "target")}
Row = dict[str, str]  # parts of a template
Labels = dict[str, dict[str, str]]  # by language
_PLACEHOLDER = re.compile(r"\{(src|tgt)(?:_(endonym|sentence|translation))?\}")


@dataclass(frozen=True)
class MTTemplate:
    """A template filled in for one direction."""

    key: str
    name: str
    header: str
    prefix: str
    middle: str
    suffix: str

    @property
    def stop(self) -> str:
        """The mark behind a demonstration; of one character, such as a hyphen, only at the beginning of a line, as in the suffix."""
        mark = self.suffix.strip() or self.suffix
        return f"\n{mark}" if len(mark) == 1 and self.suffix.startswith("\n") and mark != "\n" else mark

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings for decoding: a translation is one line, unless answers may begin with a line break or thoughts."""
        return ("\n", self.stop) if self.middle.endswith(("\n", ": ")) else (self.stop,)

    def get_prompt(self, demonstrations: list[tuple[str, str]], sentence: str) -> str:
        """The prompt for `sentence` after (source, target) `demonstrations`, in the order given."""
        shots = "".join(self.prefix + x + self.middle + y + self.suffix for x, y in demonstrations)
        prompt = self.header + shots + self.prefix + sentence + self.middle
        return prompt[:-1] if prompt.endswith(": ") else prompt

    def translation(self, answer: str, was_cut: bool = False) -> str:
        """The translation in the answer to a prompt; "" if it is all thoughts. Where the prompt begins these (template 17), one whole line
        without an end of thoughts is the translation: demonstrations and training texts have no thoughts either."""
        begun = begun_in(self.middle)
        if begun and not was_cut and answer.startswith(begun):
            line = answer[len(begun) :].partition(self.stop)[0].strip()
            answer = answer if "\n" in line or has_marks(line) else line
        return clean_answer(answer, self.stop)


def get_template(key: int | str, src: str, tgt: str, extra: str | None = None) -> MTTemplate:
    """The template with that number or name, or in that file (see mt_templates.toml), from `src` into `tgt`.

    `src` and `tgt` are English names of languages, `extra` a --languages_file. The languages are looked up only for templates
    with endonyms or labels in the language itself. Raises UsageError for an unknown template, an invalid file, or a missing
    endonym or label.
    """
    key = str(key)
    number, row, labels = (_from_file if key.lower().endswith(".toml") or "/" in key else _built_in)(key)
    names = {"src": src, "tgt": tgt}

    def value(placeholder: re.Match) -> str:
        side, what = placeholder.groups()
        if what is None:
            return names[side]
        language = languages.find(names[side], extra)
        return _endonym(language, key) if what == "endonym" else _label(language, labels, key)[what]

    return MTTemplate(number, **{part: _PLACEHOLDER.sub(value, text) for part, text in row.items()})


def _endonym(language: languages.Language, key: str) -> str:
    if not language.endonym:
        raise UsageError(
            f"--template_key {key} needs the endonym of {language.name}, which the table lacks: fill the column endonym of its "
            "row, in topxgen/text/languages.tsv or a --languages_file, or choose another template"
        )
    return language.endonym


def _label(language: languages.Language, labels: Labels, key: str) -> dict[str, str]:
    if language.name not in labels:
        raise UsageError(
            f"--template_key {key} needs labels in {language.name}, which are missing: add a line "
            f'{json.dumps(language.name)} = {{ sentence = "...", translation = "..." }} under [labels] in {FILE}, or '
            "choose another template"
        )
    return labels[language.name]


def _built_in(key: str) -> tuple[str, Row, Labels]:
    templates, labels = _file()
    names = {row["name"]: number for number, row in templates.items()}
    number = names.get(key, key)
    if number not in templates:
        numbers = f", their numbers ({', '.join(templates)}), or a .toml file of your own"
        raise unknown_choice("--template_key", key, names, numbers)
    return number, templates[number], labels


def _from_file(key: str) -> tuple[str, Row, Labels]:
    path = Path(expanduser(key))
    if not path.is_file():
        raise UsageError(
            f"--template_key {key} does not exist; topxgen/prompting/mt_templates.toml describes its fields"
        )
    return key, *_user_file(path, path.stat().st_mtime_ns)


@cache
def _user_file(path: Path, mtime_ns: int) -> tuple[Row, Labels]:
    """The template in a user's file, and labels: its own, then those of mt_templates.toml."""
    row = dict(_read(path))
    labels = _checked_labels(row.pop("labels", {}), str(path))
    return _checked_template(row, f"{path}, outside any [table]", path.stem), {**_file()[1], **labels}


@cache
def _file() -> tuple[dict[str, Row], Labels]:
    """Templates by number, and labels by language. Raises UsageError for an invalid file."""
    tables = {number: row for number, row in _read(FILE).items() if number != "chat"}
    labels = _checked_labels(tables.pop("labels", {}), str(FILE))
    return {number: _checked_template(row, f"{FILE}, [{number}]", number) for number, row in tables.items()}, labels


@cache
def _chat() -> dict[str, str]:
    row = _checked(_read(FILE).get("chat"), tuple(CHAT_PARTS), tuple(CHAT_PARTS), f"{FILE}, [chat]")
    for part, places in CHAT_PARTS.items():
        for place in places:
            if f"{{{place}}}" not in row[part]:
                raise UsageError(f"{FILE}, [chat], {part}: the placeholder {{{place}}} is missing")
    more = {"examples": ("count",), "example": ("number",)}
    known = {part: (*places, *more.get(part, ()), "src", "tgt") for part, places in CHAT_PARTS.items()}
    refuse_unknown(f"{FILE}, [chat]", row, known)
    return row


def _read(path: Path) -> dict:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None


def _checked_template(row: object, where: str, name: str) -> Row:
    """All parts of the template. Raises UsageError for a missing or unknown part, or a suffix that cannot end an answer."""
    row = _checked(row, ("middle", "prefix"), ("name", *PARTS), where)
    for part in PARTS:
        for placeholder in re.findall(r"\{\s*\w+\s*\}", row.get(part, "")):
            if not _PLACEHOLDER.fullmatch(placeholder):
                raise UsageError(
                    f"{where}: {part} has the unknown placeholder {placeholder}; choose {{src}}, {{src_endonym}}, "
                    "{src_sentence}, {src_translation}, or the same with tgt"
                )
    row = {"name": name, "header": "", "suffix": "\n\n", **row}
    if not row["suffix"].strip() and "\n" not in row["suffix"]:
        raise UsageError(
            f"{where}: suffix {row['suffix']!r} cannot mark the end of an answer; omit it, or add a line break or a mark"
        )
    return row


def _checked_labels(labels: object, where: str) -> Labels:
    if not isinstance(labels, dict):
        raise UsageError(f"{where}: labels is not a table")
    return {name: _checked(row, LABELS, LABELS, f"{where}, labels in {name}") for name, row in labels.items()}


def _checked(row: object, needed: tuple[str, ...], known: tuple[str, ...], where: str) -> dict[str, str]:
    fields = {*row} if isinstance(row, dict) else set()
    missing, unknown = {*needed} - fields, fields - {*known}
    if missing or unknown:
        raise UsageError(
            f"{where}: missing: {_list(missing)}, unknown: {_list(unknown)}; the fields are {_list(known)}, those required {_list(needed)}"
        )
    for part, text in row.items():
        if not isinstance(text, str):
            raise UsageError(f"{where}: {part} is {text!r}, not a string in quotation marks")
    return row


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def trained_template(model: str) -> str | None:
    """The template key that train.py trained `model` on, by the files that it leaves in checkpoints; None if unknown.

    `model` is a folder or Hub id: an output directory, a checkpoint, an adapter, also moved, merged or published ones.
    Raises UsageError for a file that cannot be read.
    """
    for path in (model_file(model, name) for name in ("data_manifest.json", "settings_train.json")):
        settings = read_json(path) if path else {}
        key = settings.get("template_key") if isinstance(settings, dict) else None
        if key is not None:
            return None if str(key) == "none" else str(key)  # "none": the texts were used without a template
    return None


def chat_prompt(src: str, tgt: str, demonstrations: list[tuple[str, str]], sentence: str) -> list[dict[str, str]]:
    """The messages for a model with a chat template: numbered demonstrations and a request for the translation only."""
    row, fill_in = _chat(), partial(fill, src=src, tgt=tgt)
    examples = ""
    if demonstrations:
        items = "".join(
            fill_in(row["example"], number=str(i), source=x, target=y) for i, (x, y) in enumerate(demonstrations, 1)
        )
        examples = fill_in(row["examples"], count=str(len(demonstrations)), items=items)
    return [{"role": "user", "content": fill_in(row["request"], examples=examples, sentence=sentence)}]
