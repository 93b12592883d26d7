"""Step by step (Briakou et al. 2024, "Translating step-by-step: decomposing the translation process for improved
translation quality of long-form texts"): research, draft and refinement in one growing conversation, then a
proofreader in a new one, who sees the sentence and both versions."""

from collections.abc import Iterator
from functools import partial

from comptra.methods import Task
from comptra.methods.conversation import draft, instructions, think, translations

PLACEHOLDERS = {"research": ("sentence",), "draft": (), "refine": (), "proofread": ("sentence", "draft", "refined")}
check = partial(instructions, "step_by_step", PLACEHOLDERS)


def translate(sentences: list[str], task: Task) -> Iterator[tuple[int, str]]:
    text = check(task)
    talks = [(text("research", sentence=sentence),) for sentence in sentences]
    answers = think(task, sentences, talks)
    versions = []
    for step in ("draft", "refine"):
        turns = [text(step, sentence=sentence) for sentence in sentences]
        talks = [(*talk, answer, turn) for talk, answer, turn in zip(talks, answers, turns, strict=True)]
        answers = draft(task, sentences, talks, text.marker)
        versions.append(answers)
    talks = [
        (text("proofread", sentence=sentence, draft=drafted, refined=refined),)
        for sentence, drafted, refined in zip(sentences, *versions, strict=True)
    ]
    return translations(task, sentences, talks, text.marker)


translate.check = check
