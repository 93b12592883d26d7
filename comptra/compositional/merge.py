"""How the translations of phrases help to translate the whole sentence (--merge_prompt; CompTra: Zebaze et al. 2025)."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from comptra import prompts
from comptra.methods import Shots, Task
from topxgen.common.errors import unknown_choice
from topxgen.common.registry import Choice
from topxgen.prompting import toml_prompts
from topxgen.prompting.style import CHAT, Prompt
from topxgen.prompting.toml_prompts import fill

VANILLA, REFINE, NOREFINE = "vanilla", "refine", "norefine"
MERGE_PROMPTS = {
    VANILLA: Choice("", "the phrase pairs are the demonstrations of the MT prompt"),
    REFINE: Choice("", "a prompt with the phrase pairs and a few-shot draft to improve"),
    NOREFINE: Choice("", "a prompt with the phrase pairs"),
}
PLACEHOLDERS = {
    "chat": ("phrases", "sentence"),
    "block": ("items",),
    "item": ("source", "target"),
    "examples": ("items",),
    "example": ("source", "target"),
    "raw": (),
}


@dataclass(frozen=True)
class MergePrompt:
    """A file of comptra/prompts/merge/ or of the user's; vanilla has none."""

    path: Path | None
    texts: dict[str, str]
    without_draft: "MergePrompt | None" = None  # prompts sentences whose draft is empty

    @property
    def name(self) -> str:
        return self.path.stem if self.path else VANILLA

    @property
    def files(self) -> list[Path]:
        """The files whose texts may be sent."""
        return [self.path, *(self.without_draft.files if self.without_draft else [])] if self.path else []

    @property
    def needs_draft(self) -> bool:
        """Whether it shows a translation of the sentence made without the phrases."""
        return any("{draft}" in self.texts.get(style, "") for style in ("chat", "raw"))

    def prompt(self, task: Task, sentence: str, pairs: Shots, extra: Shots, draft: str = "") -> Prompt:
        """What to send for a sentence. `pairs`: its (phrase, translation) pairs; `extra`: pairs of the selection pool, which
        precede them; `draft`: its translation without the phrases."""
        if self.without_draft and not draft:
            return self.without_draft.prompt(task, sentence, pairs, extra)
        if self.path is None:
            return task.prompt([*extra, *pairs], sentence)
        put = partial(fill, src=task.src.name, tgt=task.tgt.name, sentence=sentence, draft=draft)
        if task.client.style != CHAT:
            note = put(self.texts["raw"]) if draft or pairs else ""
            return note + task.prompt([*extra, *pairs], sentence)

        def block(name: str, item: str, shots: Shots) -> str:
            items = [put(self.texts[item], number=str(i), source=x, target=y) for i, (x, y) in enumerate(shots, 1)]
            return put(self.texts[name], items="".join(items)) if items else ""

        blocks = {"phrases": block("block", "item", pairs), "examples": block("examples", "example", extra)}
        return task.client.chat(put(self.texts["chat"], **blocks))


def load(name: str) -> MergePrompt:
    """The merge prompt of that name in comptra/prompts/merge/, or in the .toml file of that path.

    Raises UsageError if it does not exist or lacks a text or a placeholder.
    """
    if name == VANILLA:
        return MergePrompt(None, {})
    folder = prompts.FOLDER / "merge"
    if name not in MERGE_PROMPTS and not name.endswith(".toml") and not (folder / f"{name}.toml").is_file():
        others = sorted({file.stem for file in folder.glob("*.toml")} - set(MERGE_PROMPTS))
        raise unknown_choice("--merge_prompt", name, [*MERGE_PROMPTS, *others], ", or the path of a .toml file")
    path = toml_prompts.find(folder, name, None if name in MERGE_PROMPTS else "--merge_prompt")
    if name != REFINE:
        return MergePrompt(path, toml_prompts.load(path, PLACEHOLDERS))
    with_draft = PLACEHOLDERS | {"chat": (*PLACEHOLDERS["chat"], "draft"), "raw": ("draft",)}
    return MergePrompt(path, toml_prompts.load(path, with_draft), without_draft=load(NOREFINE))
