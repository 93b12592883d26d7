"""Iterative refinement (Chen et al. 2024, "Iterative translation refinement with large language models"): show the
model a translation and ask for a better one, in each of --number_of_refining_steps."""

from functools import partial

from comptra.methods import Task, in_order
from comptra.methods.conversation import instructions, translations

check = partial(instructions, "refine", {"refine": ("sentence", "draft")})


def refine(sentences: list[str], drafts: list[str], task: Task) -> list[str]:
    """`drafts` after a round. An empty draft is not shown to the model; an empty answer keeps the draft, with its marks."""
    text = check(task)
    best = list(drafts)
    drafted = [i for i, draft in enumerate(best) if draft]
    talks = [(text("refine", sentence=sentences[i], draft=best[i]),) for i in drafted]
    refined = translations(task.with_room_for_merges, [sentences[i] for i in drafted], talks, text.marker)
    for i, better in zip(drafted, in_order(refined, len(drafted)), strict=True):
        best[i] = better or task.client.chosen(sentences[i], best[i])
    return best
