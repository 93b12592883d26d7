"""How the translations of phrases help to translate the whole sentence (--merge_prompt; CompTra: Zebaze et al. 2025)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from comptra import answer_parsing, prompts
from comptra.methods import Shots, Task
from topxgen.common.errors import UsageError, unknown_choice
from topxgen.common.registry import Choice
from topxgen.prompting import toml_prompts
from topxgen.prompting.style import CHAT, Prompt
from topxgen.prompting.toml_prompts import fill

VANILLA = "vanilla"
MERGE_PROMPTS = {
    VANILLA: Choice("", "the phrase pairs are the demonstrations of the MT prompt"),
    "refine": Choice("", "the LLM refines the phrase translations in their context, recombines them, then translates"),
    "norefine": Choice("", "the LLM reasons how the phrase translations combine, then translates"),
}
PLACEHOLDERS = {
    "chat": ("phrases", "sentence"),
    "block": ("items",),
    "item": ("source", "target"),
    "examples": ("items",),
    "example": ("source", "target"),
}
ALWAYS_KNOWN = ("src", "tgt", "sentence")
FINAL_SECTION = "final_section"  # the part that names the section with the translation


@dataclass(frozen=True)
class MergePrompt:
    """A file of comptra/prompts/merge/ or of the user's; vanilla has none."""

    path: Path | None
    texts: dict[str, str]

    @property
    def name(self) -> str:
        return self.path.stem if self.path else VANILLA

    @property
    def recorded_name(self) -> str:
        """Its name in settings. Version 1 of prompts with sections asked for the translation alone, or to improve a draft."""
        return f"{self.name} (version 2)" if self.has_sections else self.name

    @property
    def has_sections(self) -> bool:
        """Whether answers have several sections, the last one with the translation."""
        return FINAL_SECTION in self.texts

    def prompt(self, task: Task, sentence: str, pairs: Shots, extra: Shots) -> Prompt:
        """What to send for a sentence. `pairs`: its (phrase, translation) pairs; `extra`: pairs of the selection pool, which
        precede them."""
        if self.path is None or not pairs:
            return task.prompt([*extra, *pairs], sentence)
        put = partial(fill, src=task.src.name, tgt=task.tgt.name, sentence=sentence)
        if task.client.style != CHAT and "raw" in self.texts:
            return put(self.texts["raw"]) + task.prompt([*extra, *pairs], sentence)

        def block(name: str, item: str, shots: Shots) -> str:
            items = [put(self.texts[item], number=str(i), source=x, target=y) for i, (x, y) in enumerate(shots, 1)]
            return put(self.texts[name], items="".join(items)) if items else ""

        blocks = {"phrases": block("block", "item", pairs), "examples": block("examples", "example", extra)}
        return task.client.chat(put(self.texts["chat"], **blocks))

    def translate(
        self, task: Task, sentences: list[str], pairs: list[Shots], prompts: list[Prompt]
    ) -> Iterator[tuple[int, str]]:
        """Yield (number of the sentence, translation) for the prompts that `prompt` made.

        An answer without the section of the final translation gives none: the line is empty and marked as unreadable.
        """
        in_sections = [i for i, own in enumerate(pairs) if own and self.has_sections]
        others = sorted(set(range(len(sentences))) - set(in_sections))
        for place, text in task.translate([sentences[i] for i in others], [prompts[i] for i in others]):
            yield others[place], text
        asked = [sentences[i] for i in in_sections]

        def candidates() -> Iterator[tuple[int, list[str]]]:
            for place, answers in task.client.generate(asked, [prompts[i] for i in in_sections], task.sampling):
                name, sentence = self.texts[FINAL_SECTION], asked[place]
                read = (answer_parsing.section(text, name, sentence, task.tgt.name) for text in answers)
                yield place, [task.client.read(sentence, *pair) for pair in zip(answers, read, strict=True)]

        for place, text in task.best(asked, candidates()):
            yield in_sections[place], text


def load(name: str) -> MergePrompt:
    """The merge prompt of that name in comptra/prompts/merge/, or in the .toml file of that path.

    Raises UsageError if it does not exist, has the name of another one, or lacks a text or a placeholder.
    """
    if name == VANILLA:
        return MergePrompt(None, {})
    folder = prompts.FOLDER / "merge"
    if name not in MERGE_PROMPTS and not name.endswith(".toml") and not (folder / f"{name}.toml").is_file():
        others = sorted({file.stem for file in folder.glob("*.toml")} - set(MERGE_PROMPTS))
        raise unknown_choice("--merge_prompt", name, [*MERGE_PROMPTS, *others], ", or the path of a .toml file")
    path = toml_prompts.find(folder, name, None if name in MERGE_PROMPTS else "--merge_prompt")
    if path.stem in MERGE_PROMPTS and path.resolve().parent != folder.resolve():
        raise UsageError(
            f"--merge_prompt {name}: folders and tables would call it {path.stem!r}, which is the name of another prompt; rename the file"
        )
    texts = toml_prompts.load(path, PLACEHOLDERS)
    toml_prompts.load(path, {part: () for part in ("raw", FINAL_SECTION) if part in texts})  # must be texts, too
    more = {"chat": ("examples",), "item": ("number",), "example": ("number",)}
    known = {part: (*ALWAYS_KNOWN, *PLACEHOLDERS.get(part, ()), *more.get(part, ())) for part in (*PLACEHOLDERS, "raw")}
    toml_prompts.refuse_unknown(path, texts, known | {FINAL_SECTION: ()})
    if not texts.get(FINAL_SECTION, "-").strip():
        raise UsageError(f"{path}: {FINAL_SECTION} is empty; drop it if the whole answer is the translation")
    if "raw" in texts and FINAL_SECTION in texts:
        raise UsageError(
            f"{path} has both raw and {FINAL_SECTION}: the answer to a few-shot prompt has no sections; drop one"
        )
    return MergePrompt(path, texts)
