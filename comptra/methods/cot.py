"""Chain of thought: reason about the sentence; then the same conversation asks for the translation."""

from collections.abc import Iterator
from functools import partial

from comptra.methods import Task
from comptra.methods.conversation import instructions, think, translations

check = partial(instructions, "cot", {"reason": ("sentence",), "extract": ()})


def translate(sentences: list[str], task: Task) -> Iterator[tuple[int, str]]:
    text = check(task)
    questions = [text("reason", sentence=sentence) for sentence in sentences]
    reasons = think(task, sentences, [(question,) for question in questions])
    talks = [
        (question, reason, text("extract", sentence=sentence))
        for question, reason, sentence in zip(questions, reasons, sentences, strict=True)
    ]
    return translations(task, sentences, talks, text.marker)


translate.check = check
