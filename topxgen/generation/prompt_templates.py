"""Prompt templates: text files that users edit. The format is explained in instruct.txt beside this file."""

import json
import string
from dataclasses import dataclass
from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.generation.parsing import PARSERS

FOLDER = Path(__file__).parent / "prompts"
STYLES = ("chat", "completion")
_FIELDS = {
    "paragraph": {"number", "language", "text"},
    "paragraphs": {"items", "language"},
    "sentence": {"number", "language", "text"},
    "sentences": {"items", "language"},
    "prompt": {"language", "topic", "n", "numbering", "paragraphs", "sentences"},
}


@dataclass(frozen=True)
class Template:
    """A parsed prompt file: how to fill it in, how to send it, how to read the answer."""

    path: str
    text: str  # the whole file
    style: str
    answer: str
    stop: tuple[str, ...]
    sections: dict[str, str]

    def fill(
        self,
        *,
        language: str,
        topic: str,
        n: int,
        paragraphs: list[tuple[str, str]],
        sentences: list[str],
    ) -> str:
        """The prompt for `n` texts in `language` about `topic`, with (language, text) example paragraphs."""
        blocks = {
            "paragraphs": self._block("paragraph", paragraphs, language),
            "sentences": self._block("sentence", [(language, text) for text in sentences], language),
        }
        numbering = "\n".join(f"{i}. [text {i}]" for i in range(1, n + 1))
        values = {"language": language, "topic": topic, "n": n, "numbering": numbering, **blocks}
        return self.sections["prompt"].format(**values)

    def _block(self, item: str, texts: list[tuple[str, str]], language: str) -> str:
        if not texts:
            return ""
        section = self.sections[item]
        items = [section.format(number=i, language=name, text=text) for i, (name, text) in enumerate(texts, 1)]
        return self.sections[item + "s"].format(items="".join(items).rstrip("\n"), language=language)

    @property
    def texts_per_answer(self) -> int | None:
        """1 when the answer as a whole is the text, None when the prompt asks for as many as wanted."""
        return 1 if self.answer == "text" else None


def available() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def load(name_or_path: str) -> Template:
    """The template of that name in this folder, or in that file.

    Raises UsageError for a missing file, an unknown key or section, or a placeholder that does not exist.
    """
    path = FOLDER / f"{name_or_path}.txt" if name_or_path in available() else Path(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UsageError(
            f"no prompt template {name_or_path!r}: pass one of {', '.join(available())}, or the path of a text file"
        ) from None
    header, *parts = ("\n" + text).split("\n=== ")
    keys = {"style": "", "answer": ""}
    stop = []
    for line in header.splitlines():
        key, colon, value = line.partition(":")
        key, value = key.strip(), value.strip()
        if not line.strip() or line.startswith("#"):
            continue
        if colon and key == "stop":
            stop.append(_stop_string(value, path))
        elif colon and key in keys:
            keys[key] = value
        else:
            raise UsageError(f"{path}: {line.strip()!r} is not a setting; known: style, answer, stop")
    _check_choice(path, "style", keys["style"], STYLES)
    _check_choice(path, "answer", keys["answer"], tuple(PARSERS))
    sections = {}
    for part in parts:
        name, _, body = part.partition("\n")
        name = name.strip()
        _check_choice(path, "section", name, tuple(_FIELDS))
        # A section is its lines, blank ones included. The prompt ends with its last word, or with a line
        # break when a blank line follows it in the file.
        ending = "\n" if body.endswith("\n\n") else ""
        sections[name] = body.rstrip("\n") + ending if name == "prompt" else body + "\n"
        _check_placeholders(path, name, sections[name])
    for name in _FIELDS:
        if name not in sections:
            raise UsageError(f"{path}: the section '=== {name}' is missing")
    return Template(str(path), text, keys["style"], keys["answer"], tuple(stop), sections)


def _stop_string(value: str, path: Path) -> str:
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = None
    if not isinstance(parsed, str) or not parsed:
        raise UsageError(f'{path}: stop: {value} must be a JSON string, such as stop: "\\n\\n"')
    return parsed


def _check_choice(path: Path, what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{path}: {what} {value!r} is none of {', '.join(choices)}")


def _check_placeholders(path: Path, section: str, body: str) -> None:
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(body) if name is not None
        ]
    except ValueError as error:
        raise UsageError(f"{path}, section {section}: {error}; write {{{{ or }}}} for a brace") from None
    for name, spec, conversion in fields:
        if name not in _FIELDS[section] or spec or conversion:
            known = ", ".join("{" + field + "}" for field in sorted(_FIELDS[section]))
            raise UsageError(f"{path}, section {section}: unknown placeholder {{{name}}}; known here: {known}")
    if section == "prompt" and "topic" not in {name for name, _, _ in fields}:
        raise UsageError(f"{path}: the prompt section has no {{topic}}")
