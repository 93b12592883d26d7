"""The MT prompts of templates.toml: few-shot text for base models and checkpoints, a request for chat models."""

import tomllib
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from comptra.errors import UserError, closest

FILE = Path(__file__).with_name("templates.toml")
# Described in the published work, not in the file yet: they need the languages' own names for themselves.
NOT_BUILT = ("8", "10", "12")
PARTS = {"name", "header", "prefix", "middle", "suffix"}


@dataclass(frozen=True)
class MTTemplate:
    """A template for one direction; `src` and `tgt` are English names of languages."""

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


@cache
def _file() -> dict[str, dict]:
    """The tables of the file, each checked. Raises UserError naming what is wrong in it."""
    try:
        tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {FILE}: {error}") from None
    for number, row in tables.items():
        needed, known = ({"request", "examples", "example"},) * 2 if number == "chat" else ({"prefix", "middle"}, PARTS)
        if not isinstance(row, dict) or not needed <= row.keys() or not row.keys() <= known:
            raise UserError(
                f"{FILE}, [{number}]: needs {', '.join(sorted(needed))}, may have {', '.join(sorted(known))}"
            )
    return tables


def get_template(key: int | str, src: str, tgt: str) -> MTTemplate:
    """The template of that number or name, from `src` into `tgt`.

    Raises UserError with the choices when there is none.
    """
    templates = {number: row for number, row in _file().items() if number != "chat"}
    names = {row.get("name", number): number for number, row in templates.items()}
    number = names.get(str(key), str(key))
    if number not in templates:
        why = "is not built yet" if number in NOT_BUILT else "does not exist"
        near = closest(str(key), names)
        hint = f" (did you mean {near[0]}?)" if near else ""
        choices = ", ".join(f"{number} {row.get('name', '')}".strip() for number, row in templates.items())
        raise UserError(f"--template_key {key} {why}{hint}; choose one of {choices}")
    row = {"name": number, "header": "", "suffix": "\n\n", **templates[number]}
    filled = {part: text.replace("{src}", src).replace("{tgt}", tgt) for part, text in row.items()}
    return MTTemplate(number, **filled)


def chat_prompt(src: str, tgt: str, demonstrations: list[tuple[str, str]], sentence: str) -> list[dict[str, str]]:
    """What to say to a model with a chat template: numbered demonstrations, and only the translation is wanted."""
    row = _file()["chat"]
    examples = ""
    if demonstrations:
        items = "".join(
            row["example"].format(number=i, src=src, tgt=tgt, source=x, target=y)
            for i, (x, y) in enumerate(demonstrations, 1)
        )
        examples = row["examples"].format(count=len(demonstrations), src=src, tgt=tgt, items=items)
    return [{"role": "user", "content": row["request"].format(examples=examples, src=src, tgt=tgt, sentence=sentence)}]


REPEATED = 8  # SPEC section 4


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
