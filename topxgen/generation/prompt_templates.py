"""Prompt templates: TOML files that users edit. prompts/instruct.toml explains the format."""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from topxgen.common.errors import UsageError, unknown_choice
from topxgen.common.lines import split_lines
from topxgen.common.provenance import digest
from topxgen.generation.parsing import PARSERS
from topxgen.prompting import toml_prompts

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "prompts"
STYLES = ("chat", "completion")
# The parts of a template, and the placeholders that each may have.
PLACEHOLDERS = {
    "paragraph": ("number", "language", "text"),
    "paragraphs": ("items", "language"),
    "sentence": ("number", "language", "text"),
    "sentences": ("items", "language"),
    "prompt": ("language", "topic", "n", "numbering", "paragraphs", "sentences"),
}


@dataclass(frozen=True)
class Template:
    """A parsed template: how to fill it in, how to send it, how to read the response."""

    path: Path
    style: str
    answer: str
    stop: tuple[str, ...]
    parts: dict[str, str]
    digest: str
    fill_part: Callable[..., str]

    def fill(
        self, *, language: str, topic: str, n: int, paragraphs: list[tuple[str, str]], sentences: list[str]
    ) -> str:
        """The prompt for `n` texts in `language` about `topic`, with (language, text) example paragraphs."""
        return self.fill_part(
            self.parts["prompt"],
            language=language,
            topic=topic,
            n=str(n),
            numbering="\n".join(f"{i}. [text {i}]" for i in range(1, n + 1)),
            paragraphs=self._block("paragraph", paragraphs, language),
            sentences=self._block("sentence", [(language, text) for text in sentences], language),
        )

    def _block(self, item: str, texts: list[tuple[str, str]], language: str) -> str:
        if not texts:
            return ""
        part = self.parts[item]
        items = [
            self.fill_part(part, number=str(i), language=name, text=text) for i, (name, text) in enumerate(texts, 1)
        ]
        return self.fill_part(self.parts[item + "s"], items="".join(items).rstrip("\n"), language=language)

    def parse(self, response: str, n: int) -> list[str] | None:
        """The texts in a response to a prompt for `n`; None if it does not have the format of `answer`."""
        return PARSERS[self.answer](response, n)


def load(name_or_path: str) -> Template:
    """The template of that name in prompts/, or in that file.

    Raises UsageError for a missing file, an unknown or missing key, or a placeholder that does not exist.
    """
    if name_or_path.endswith(".txt"):
        path = Path(name_or_path).expanduser()
        parts, content_digest, fill_part = _read_txt(path)
    else:
        path = toml_prompts.find(FOLDER, name_or_path, "--prompt_template")
        parts = toml_prompts.load(path, dict.fromkeys(PLACEHOLDERS, ()) | {"prompt": ("topic",)})
        content_digest, fill_part = digest(json.dumps(parts, sort_keys=True)), toml_prompts.fill
    stop = parts.setdefault("stop", [])
    for key in parts:
        if key not in ("style", "answer", "stop", *PLACEHOLDERS):
            raise unknown_choice(f"{path}: key", key, ("style", "answer", "stop", *PLACEHOLDERS))
    for key, choices in (("style", STYLES), ("answer", tuple(PARSERS))):
        if parts.get(key) not in choices:
            raise unknown_choice(f"{path}: {key}", str(parts.get(key)), choices)
    if not isinstance(stop, list) or not all(isinstance(string, str) and string for string in stop):
        raise UsageError(f'{path}: stop = {stop!r} is not a list of strings, such as stop = ["\\n\\n"]')
    for part, known in PLACEHOLDERS.items():
        for name in re.findall(r"\{(\w+)\}", parts[part]):
            if name not in known:
                names = ", ".join(f"{{{name}}}" for name in known)
                raise UsageError(f"{path}, {part}: unknown placeholder {{{name}}}; known here: {names}")
    sections = {part: parts[part] for part in PLACEHOLDERS}
    return Template(path, parts["style"], parts["answer"], tuple(stop), sections, content_digest, fill_part)


def _read_txt(path: Path) -> tuple[dict, str, Callable[..., str]]:
    """(parts, digest, how to fill a part) of a template in the text format of older versions: "key: value" lines, then
    "=== part" sections, {{ for a brace."""
    logger.warning(f"{path} is in the older text format; write it as TOML, like {FOLDER / 'instruct.toml'}")
    try:
        text = path.read_text(encoding="utf-8")
        header, *sections = ("\n" + text).split("\n=== ")
        lines = [line.partition(":") for line in split_lines(header) if line.strip() and not line.startswith("#")]
        parts: dict = {key.strip(): value.strip() for key, _, value in lines if key.strip() != "stop"}
        parts["stop"] = [json.loads(value) for key, _, value in lines if key.strip() == "stop"]
        for section in sections:
            name, _, body = section.partition("\n")
            # A part is its lines. The prompt ends with its last word, or with a line break if a blank line follows.
            end = "\n" if name.strip() != "prompt" or body.endswith("\n\n") else ""
            parts[name.strip()] = (body.rstrip("\n") if name.strip() == "prompt" else body) + end
        for part, names in PLACEHOLDERS.items():
            parts[part].format(**dict.fromkeys(names, ""))
        if "{topic}" not in parts["prompt"]:
            raise ValueError("the prompt has no {topic}")
    except (OSError, ValueError, LookupError, AttributeError) as error:
        raise UsageError(f"cannot read the prompt template {path} ({type(error).__name__}: {error})") from None
    return parts, digest(text), lambda part, **values: part.format(**values)
