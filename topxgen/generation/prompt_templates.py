"""Prompt templates: TOML files that users edit. prompts/instruct.toml and prompts/passages.toml explain the two formats."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from os.path import expanduser
from pathlib import Path
from typing import TypeVar

from topxgen import inference
from topxgen.common.console import ONCE
from topxgen.common.errors import Unreachable, UsageError, unknown_choice
from topxgen.common.lines import split_lines
from topxgen.common.provenance import digest
from topxgen.generation.parsing import PARSERS
from topxgen.inference.tokenizer import chat_template
from topxgen.prompting import toml_prompts
from topxgen.prompting.style import template_setting

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "prompts"
STYLES = ("chat", "completion")
# The parts of a template, and the placeholders that each may have; those of a list of passages.
PASSAGE_PLACEHOLDERS = {"passage": ("number", "language", "text"), "prompt": ("language", "passages", "next", "total")}
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
    chat_template: Mapping[str, str] = field(
        default_factory=dict
    )  # the setting of the model's own, if it renders the prompts

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
        path = Path(expanduser(name_or_path))
        parts, content_digest, fill_part = _read_txt(path)
    else:
        path = toml_prompts.find(FOLDER, name_or_path, "--prompt_template")
        parts = toml_prompts.load(path, dict.fromkeys(PLACEHOLDERS, ()) | {"prompt": ("topic",)})
        content_digest, fill_part = digest(json.dumps(parts, sort_keys=True)), toml_prompts.fill
    stop = _check(path, parts, {"style": STYLES, "answer": tuple(PARSERS)}, PLACEHOLDERS)
    sections = {part: parts[part] for part in PLACEHOLDERS}
    return Template(path, parts["style"], parts["answer"], stop, sections, content_digest, fill_part)


@dataclass(frozen=True)
class PassagesTemplate:
    """A prompt that shows passages as a numbered list."""

    path: Path
    style: str
    stop: tuple[str, ...]
    passage: str
    prompt: str
    digest: str
    chat_template: Mapping[str, str] = field(default_factory=dict)

    @property
    def ends_with_number(self) -> bool:
        """Whether the number of the next passage is part of the prompt, so that the response goes on behind it."""
        return self.style == "completion" and self.prompt.endswith("{next}.")

    def fill(self, language: str, texts: list[str], total: int = 0) -> str:
        """The prompt with `texts` as passages 1, 2 … of a list of `total`."""
        items = [
            toml_prompts.fill(self.passage, number=str(number), language=language, text=text)
            for number, text in enumerate(texts, 1)
        ]
        values = {"passages": "".join(items), "next": str(len(texts) + 1), "total": str(total)}
        return toml_prompts.fill(self.prompt, language=language, **values)


Loaded = TypeVar("Loaded", Template, PassagesTemplate)


def load_passages(name_or_path: str) -> PassagesTemplate:
    """See load; for errors, too."""
    path = toml_prompts.find(FOLDER, name_or_path, "--prompt_template")
    parts = toml_prompts.load(path, {"passage": ("text",), "prompt": ("passages",)})
    content_digest = digest(json.dumps(parts, sort_keys=True))
    stop = _check(path, parts, {"style": STYLES}, PASSAGE_PLACEHOLDERS)
    return PassagesTemplate(path, parts["style"], stop, parts["passage"], parts["prompt"], content_digest)


def _check(path: Path, parts: dict, choices: dict[str, tuple], placeholders: dict[str, tuple]) -> tuple[str, ...]:
    """The stop strings. Raises UsageError for an unknown key or placeholder, or another value than one of `choices`."""
    stop = parts.setdefault("stop", [])
    toml_prompts.refuse_unknown(path, parts, placeholders, (*choices, "stop"))
    for key, values in choices.items():
        if parts.get(key) not in values:
            raise unknown_choice(f"{path}: {key}", str(parts.get(key)), values)
    if not isinstance(stop, list) or not all(isinstance(string, str) and string for string in stop):
        raise UsageError(f'{path}: stop = {stop!r} is not a list of strings, such as stop = ["\\n\\n"]')
    return tuple(stop)


def for_model(config, load: Callable[[str], Loaded], chat: str, completion: str) -> Loaded:
    """The template of --prompt_template; by default `chat` for a model with a chat template, else `completion`.

    `config`: a GenerationConfig; `load` reads a template of the pipeline's kind. Raises UsageError for one that the model
    cannot take.
    """
    args = config.args
    template = load(args.prompt_template) if args.prompt_template else None
    if template is not None and template.style != "chat":
        if args.inference_api in inference.CHAT_ONLY:
            raise UsageError(
                f"{template.path} is for base models, but {args.inference_api} has chat models only: pass "
                f"--prompt_template {chat}"
            )
        return template
    is_chat, setting = True, {}  # APIs: chat models, unless the user says otherwise
    if args.inference_api not in inference.REMOTE:
        try:
            own = chat_template(config.model_settings())
            is_chat, setting = bool(own), template_setting(own) if own else {}
        except Unreachable as error:
            only_in_a_dry_run(args, error)
    if template is None:
        template = load(chat if is_chat else completion)
    elif not is_chat:
        raise UsageError(
            f"{template.path} is for chat models, but {args.tokenizer_name_or_path or args.model_name_or_path} has no chat "
            f"template: pass --prompt_template {completion}, or the instruction-tuned model"
        )
    return replace(template, chat_template=setting)


def only_in_a_dry_run(args, error: Unreachable) -> None:
    """A dry run shows stand-ins for sources that this machine cannot reach."""
    if not args.dry_run:
        raise error
    logger.info(f"not checked: {error}", extra=ONCE)


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
