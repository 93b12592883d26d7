"""How the translations of phrases help to translate the whole sentence (--merge_prompt; CompTra: Zebaze et al. 2025)."""

from functools import partial

from comptra import prompts as prompt_files
from comptra.methods import Shots, Task
from topxgen.common.errors import UsageError, closest
from topxgen.common.registry import Choice
from topxgen.prompting import toml_prompts
from topxgen.prompting.style import CHAT, Prompt
from topxgen.prompting.toml_prompts import fill

# vanilla: the pairs are the demonstrations of the MT prompt. The others are files of comptra/prompts/merge/.
VANILLA, REFINE, NOREFINE = "vanilla", "refine", "norefine"
MERGE_PROMPTS = {
    VANILLA: Choice("", "the phrase pairs are the demonstrations of the MT prompt"),
    REFINE: Choice("", "a prompt with the phrase pairs and a draft to improve"),
    NOREFINE: Choice("", "a prompt with the phrase pairs"),
}
NEEDED = {
    "chat": ("phrases", "sentence"),
    "block": ("items",),
    "item": ("source", "target"),
    "examples": ("items",),
    "example": ("source", "target"),
    "raw": (),
}


def prompts(
    sentences: list[str],
    phrase_pairs: list[Shots],
    drafts: list[str] | None,
    task: Task,
    merge_prompt: str = VANILLA,
    extra: list[Shots] | None = None,
) -> list[Prompt]:
    """What to ask for each sentence, for `task.translate`: its answers are translations as those to `task.prompt` are.

    `phrase_pairs`: (phrase, translation) of each sentence; `drafts`: its translation without them, for `refine` ("": there
    is none, and it is asked as by norefine); `extra`: pairs of the pool, which stand before the phrases.
    """
    extra = extra or [[] for _ in sentences]
    if merge_prompt == VANILLA:
        return [
            task.prompt([*more, *pairs], sentence)
            for sentence, pairs, more in zip(sentences, phrase_pairs, extra, strict=True)
        ]
    plain = check(NOREFINE)
    drafted = check(REFINE) if merge_prompt == REFINE else plain
    if merge_prompt == NOREFINE or drafts is None:
        drafts = [""] * len(sentences)
    return [
        _prompt(drafted if draft else plain, sentence, pairs, more, draft, task)
        for sentence, pairs, more, draft in zip(sentences, phrase_pairs, extra, drafts, strict=True)
    ]


def _prompt(texts: dict[str, str], sentence: str, pairs: Shots, extra: Shots, draft: str, task: Task) -> Prompt:
    put = partial(fill, src=task.src.name, tgt=task.tgt.name, sentence=sentence, draft=draft)
    if task.asker.style != CHAT:
        note = put(texts["raw"]) if draft or pairs else ""
        return note + task.prompt([*extra, *pairs], sentence)
    blocks = {}
    for name, block, item, shots in (("phrases", "block", "item", pairs), ("examples", "examples", "example", extra)):
        lines = [
            put(texts[item], number=str(i), source=source, target=target) for i, (source, target) in enumerate(shots, 1)
        ]
        blocks[name] = put(texts[block], items="".join(lines)) if lines else ""
    return task.asker.chat(put(texts["chat"], **blocks))


def check(merge_prompt: str) -> dict[str, str]:
    """The texts of a merge prompt, none of vanilla. Raises UsageError when it does not exist or lacks something."""
    if merge_prompt not in MERGE_PROMPTS:
        near = closest(merge_prompt, MERGE_PROMPTS, n=1)
        raise UsageError(
            f"--merge_prompt {merge_prompt!r} does not exist; choose one of {', '.join(MERGE_PROMPTS)}"
            + (f" (did you mean {near[0]}?)" if near else "")
        )
    if merge_prompt == VANILLA:
        return {}
    needed = NEEDED | {"chat": (*NEEDED["chat"], "draft"), "raw": ("draft",)} if merge_prompt == REFINE else NEEDED
    return toml_prompts.load(toml_prompts.find(prompt_files.FOLDER / "merge", merge_prompt), needed)
