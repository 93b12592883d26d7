"""TEaR (Feng et al. 2024, "TEaR: improving LLM-based machine translation with systematic self-refinement").

Translate with demonstrations; have the errors of the draft listed as MQM annotators do; correct them. A draft without
errors stays.
"""

from collections.abc import Iterator

from comptra.methods import Task, in_order, unanswered, vanilla
from comptra.methods.conversation import names, prompts_of, thoughts, translations
from comptra.ordered_jsonl import Incomplete, provisional
from topxgen.prompting.toml_prompts import fill

NEEDED = {"estimate": ("sentence", "draft"), "no_error": (), "refine": ("sentence", "draft", "errors")}


def translate(sentences: list[str], task: Task) -> Iterator[tuple[int, str]]:
    texts, known = prompts_of("tear", NEEDED), names(task)
    drafts = in_order(vanilla.translate(sentences, task), len(sentences))
    drafted = [i for i, draft in enumerate(drafts) if draft]
    estimates = thoughts(
        task,
        [task.asker.chat(fill(texts["estimate"], **known, sentence=sentences[i], draft=drafts[i])) for i in drafted],
    )
    lacking = {drafted[place] for place in unanswered(estimates)}
    faulty = {
        i: found for i, found in zip(drafted, estimates, strict=True) if has_errors(found or "", texts["no_error"])
    }
    yield from provisional(((i, draft) for i, draft in enumerate(drafts) if i not in faulty), lacking)
    prompts = [
        task.asker.chat(fill(texts["refine"], **known, sentence=sentences[i], draft=drafts[i], errors=errors))
        for i, errors in faulty.items()
    ]
    places = list(faulty)
    for j, text in translations([sentences[i] for i in places], prompts, task, texts["marker"]):
        draft = drafts[places[j]]
        yield places[j], Incomplete(draft) if text is None else text or draft


def has_errors(estimate: str, no_error: str) -> bool:
    """Whether an estimate lists errors: it says something, and does not begin with `no_error`."""
    said = estimate.lstrip(" *_#>-\"'“").casefold()
    return bool(said) and not said.startswith(no_error.strip().casefold())


translate.check = lambda task: prompts_of("tear", NEEDED)
