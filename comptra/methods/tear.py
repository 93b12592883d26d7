"""TEaR (Feng et al. 2024, "TEaR: improving LLM-based machine translation with systematic self-refinement").

Translate with demonstrations; have the model list the errors of the draft, as MQM annotators do; correct them. A draft
without errors is kept.
"""

from collections.abc import Iterator
from functools import partial

from comptra.methods import Task, in_order, vanilla
from comptra.methods.conversation import instructions, think, translations

PLACEHOLDERS = {"estimate": ("sentence", "draft"), "no_error": (), "refine": ("sentence", "draft", "errors")}
check = partial(instructions, "tear", PLACEHOLDERS)


def translate(sentences: list[str], task: Task) -> Iterator[tuple[int, str]]:
    text = check(task)
    drafts = in_order(vanilla.translate(sentences, task), len(sentences))
    drafted = [i for i, draft in enumerate(drafts) if draft]
    talks = [(text("estimate", sentence=sentences[i], draft=drafts[i]),) for i in drafted]
    estimates = think(task, [sentences[i] for i in drafted], talks)
    no_error = text.texts["no_error"]
    errors = {i: estimate for i, estimate in zip(drafted, estimates, strict=True) if has_errors(estimate, no_error)}
    yield from ((i, draft) for i, draft in enumerate(drafts) if i not in errors)
    talks = [(text("refine", sentence=sentences[i], draft=drafts[i], errors=errors[i]),) for i in errors]
    numbers = list(errors)
    for place, refined in translations(task, [sentences[i] for i in numbers], talks, text.marker):
        i = numbers[place]
        yield i, refined or task.client.chosen(sentences[i], drafts[i])


def has_errors(estimate: str, no_error: str) -> bool:
    """Whether an estimate lists errors: it is not empty, and does not begin with `no_error`."""
    start = estimate.lstrip(" *_#>-\"'“").casefold()
    return bool(start) and not start.startswith(no_error.strip().casefold())


translate.check = check
