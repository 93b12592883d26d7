"""Iterative refinement (Chen et al. 2024, "Iterative translation refinement with large language models"): show the
model a translation and ask for a better one, again and again (--number_of_refining_steps)."""

from comptra.methods import Task, in_order
from comptra.methods.conversation import names, prompts_of, translations
from comptra.ordered_jsonl import Incomplete
from topxgen.prompting.toml_prompts import fill

NEEDED = {"refine": ("sentence", "draft")}


def refine(sentences: list[str], drafts: list[str | None], task: Task, steps: int) -> list[str | None]:
    """`drafts` after `steps` rounds; a draft that the model says nothing about stays, an empty one is not shown to it.

    One that lacks a round is Incomplete.
    """
    texts = check(task)
    best = list(drafts)
    lacking = {i for i, draft in enumerate(best) if isinstance(draft, Incomplete)}
    places = [i for i, draft in enumerate(best) if draft]
    for _ in range(steps):
        prompts = [
            task.asker.chat(fill(texts["refine"], **names(task), sentence=sentences[i], draft=best[i])) for i in places
        ]
        found = translations([sentences[i] for i in places], prompts, task, texts["marker"])
        for i, better in zip(places, in_order(found, len(places)), strict=True):
            best[i] = better or best[i]
            if better is None:
                lacking.add(i)
    return [Incomplete(text) if i in lacking else text for i, text in enumerate(best)]


def check(task: Task) -> dict[str, str]:
    """The prompts; raises UsageError when one is missing."""
    return prompts_of("refine", NEEDED)


refine.check = check
