"""The MT prompts of templates.toml: few-shot text for base models and checkpoints, a request for chat models."""

import json
import re
import tomllib
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

from topxgen.common.errors import UsageError, closest
from topxgen.common.files import read_json
from topxgen.common.hub import model_file
from topxgen.prompting.toml_prompts import fill
from topxgen.text import languages

FILE = Path(__file__).with_name("mt_templates.toml")
PARTS = ("header", "prefix", "middle", "suffix")
LABELS = ("sentence", "translation")
CHAT_PARTS = {"request": ("examples", "sentence"), "examples": ("items",), "example": ("source", "target")}
Row = dict[str, str]  # parts of a template
Labels = dict[str, dict[str, str]]  # by language
_PLACE = re.compile(r"\{(src|tgt)(?:_(endonym|sentence|translation))?\}")


@dataclass(frozen=True)
class MTTemplate:
    """A template for one direction, filled in."""

    key: str
    name: str
    header: str
    prefix: str
    middle: str
    suffix: str

    @property
    def stop(self) -> str:
        """Where an answer ends."""
        return self.suffix.strip() or self.suffix

    @property
    def thinking(self) -> bool:
        """Whether an answer begins with thoughts."""
        return self.middle.endswith("<think>")

    @property
    def stops(self) -> tuple[str, ...]:
        """Where decoding may end: one line is wanted, but some answers begin with a line break or thoughts."""
        return ("\n", self.stop) if self.middle.endswith(("\n", ": ")) else (self.stop,)

    def get_prompt(self, demonstrations: list[tuple[str, str]], sentence: str) -> str:
        """The prompt for `sentence` after (source, target) `demonstrations`, in the order given."""
        shots = "".join(self.prefix + x + self.middle + y + self.suffix for x, y in demonstrations)
        prompt = self.header + shots + self.prefix + sentence + self.middle
        return prompt[:-1] if prompt.endswith(": ") else prompt


def get_template(key: int | str, src: str, tgt: str, extra: str | None = None) -> MTTemplate:
    """The template of that number or name, or in that file of the user's (see templates.toml), from `src` into `tgt`.

    `src` and `tgt` are English names of languages, `extra` a --languages_file: both are looked up only for a template that
    writes names or labels in the language itself.
    Raises UsageError with the choices when there is no such template, and naming what is wrong in a file, or what the
    table lacks.
    """
    number, row, labels = _own(str(key)) if _is_path(key) else _built_in(str(key))
    names = {"src": src, "tgt": tgt}

    def written(place: re.Match) -> str:
        side, what = place.groups()
        if what is None:
            return names[side]
        language = languages.find(names[side], extra)
        return _endonym(language, key) if what == "endonym" else _label(language, labels, key)[what]

    return MTTemplate(number, **{part: _PLACE.sub(written, text) for part, text in row.items()})


def _endonym(language: languages.Language, key: int | str) -> str:
    if not language.endonym:
        raise UsageError(
            f"--template_key {key} writes languages by their own names, and the table has none for {language.name}: fill the "
            "column endonym of its row, in topxgen/text/languages.tsv or a --languages_file, or choose another template"
        )
    return language.endonym


def _label(language: languages.Language, labels: Labels, key: int | str) -> dict[str, str]:
    if language.name not in labels:
        raise UsageError(
            f"--template_key {key} writes its labels in the language, and there are none in {language.name}: add a line "
            f'{json.dumps(language.name)} = {{ sentence = "...", translation = "..." }} under [labels] in {FILE}, or '
            "choose another template"
        )
    return labels[language.name]


def _is_path(key: int | str) -> bool:
    return str(key).lower().endswith(".toml") or "/" in str(key)


def _built_in(key: str) -> tuple[str, Row, Labels]:
    templates, labels = _file()
    names = {row["name"]: number for number, row in templates.items()}
    number = names.get(key, key)
    if number not in templates:
        near = closest(key, names)
        hint = f" (did you mean {near[0]}?)" if near else ""
        choices = ", ".join(number if name == number else f"{number} {name}" for name, number in names.items())
        raise UsageError(
            f"--template_key {key} does not exist{hint}; choose one of {choices}, or a .toml file of your own"
        )
    return number, templates[number], labels


def _own(key: str) -> tuple[str, Row, Labels]:
    path = Path(key).expanduser()
    if not path.is_file():
        raise UsageError(
            f"--template_key {key}: there is no such file; topxgen/prompting/mt_templates.toml tells its fields"
        )
    return key, *_own_file(path, path.stat().st_mtime_ns)


@cache
def _own_file(path: Path, changed: int) -> tuple[Row, Labels]:
    """The template of a file and its labels, before those of templates.toml; `changed` is when it was last written to."""
    row = dict(_read(path))
    labels = _checked_labels(row.pop("labels", {}), str(path))
    return _checked_template(row, f"{path}, outside any [table]", path.stem), {**_file()[1], **labels}


@cache
def _file() -> tuple[dict[str, Row], Labels]:
    """Templates by number, and labels by language. Raises UsageError naming what is wrong in the file."""
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
    return row


def _read(path: Path) -> dict:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None


def _checked_template(row: object, where: str, name: str) -> Row:
    """Every part of the template. Raises UsageError when one is missing, unknown, or no answer could end."""
    row = _checked(row, ("middle", "prefix"), ("name", *PARTS), where)
    for part in PARTS:
        for place in re.findall(r"\{\w+\}", row.get(part, "")):
            if not _PLACE.fullmatch(place):
                raise UsageError(
                    f"{where}: {part} has {place}, which stands for nothing; there are {{src}}, {{tgt}} and, with _endonym, "
                    "_sentence or _translation behind src or tgt, what the language itself writes"
                )
    row = {"name": name, "header": "", "suffix": "\n\n", **row}
    if not row["suffix"].strip() and "\n" not in row["suffix"]:
        raise UsageError(
            f"{where}: suffix {row['suffix']!r} is no mark where an answer could end; leave it out, or add one"
        )
    return row


def _checked_labels(labels: object, where: str) -> Labels:
    if not isinstance(labels, dict):
        raise UsageError(f"{where}: labels is no table")
    return {name: _checked(row, LABELS, LABELS, f"{where}, labels in {name}") for name, row in labels.items()}


def _checked(row: object, needed: tuple[str, ...], known: tuple[str, ...], where: str) -> dict[str, str]:
    if not isinstance(row, dict) or not set(needed) <= row.keys() <= set(known):
        raise UsageError(f"{where}: needs {', '.join(sorted(needed))}, may have {', '.join(sorted(known))}")
    for part, text in row.items():
        if not isinstance(text, str):
            raise UsageError(f"{where}: {part} is {text!r}, which is no text in quotation marks")
    return row


def trained_template(model: str) -> str | None:
    """The template key that train.py trained a model or an adapter on, a folder or a Hub id; None when nothing says so.

    Such is the output directory of a run, a checkpoint in it, or one that was moved, merged or published.
    Raises UsageError when what is said there cannot be read.
    """
    for path in (model_file(model, name) for name in ("data_manifest.json", "settings_train.json")):
        settings = read_json(path) if path else {}
        key = settings.get("template_key") if isinstance(settings, dict) else None
        if key is not None:
            return None if str(key) == "none" else str(key)  # "none": text as it stood in the data
    return None


def chat_prompt(src: str, tgt: str, demonstrations: list[tuple[str, str]], sentence: str) -> list[dict[str, str]]:
    """What to say to a model with a chat template: numbered demonstrations, and only the translation is wanted."""
    row, put = _chat(), partial(fill, src=src, tgt=tgt)
    examples = ""
    if demonstrations:
        items = "".join(
            put(row["example"], number=str(i), source=x, target=y) for i, (x, y) in enumerate(demonstrations, 1)
        )
        examples = put(row["examples"], count=str(len(demonstrations)), items=items)
    return [{"role": "user", "content": put(row["request"], examples=examples, sentence=sentence)}]


REPEATED = 8  # docs/files.md, limits


def clean_answer(text: str, stop: str | None = None, thinking: bool = False) -> str:
    """The translation in a model's answer: up to `stop`, its first line, without a repetition at its end.

    Thoughts before </think> are left out; `thinking` says that the prompt itself opened them.
    """
    _, closed, rest = text.rpartition("</think>")
    if not closed and (thinking or text.lstrip().startswith("<think>")):
        return ""  # the thoughts took all the room
    text = rest
    if stop:
        text = text.partition(stop)[0]
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return cut_repetition(line)


def cut_repetition(text: str) -> str:
    """`text` up to the first occurrence of the first pair of words that occurs REPEATED times or more."""
    words = text.split()
    pairs = list(pairwise(words))
    counts: dict[tuple[str, str], int] = {}
    for pair in pairs:
        counts[pair] = counts.get(pair, 0) + 1
    for i, pair in enumerate(pairs):
        if counts[pair] >= REPEATED:
            return " ".join(words[: i + 2])
    return text
