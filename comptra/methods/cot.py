"""Chain of thought: reason about the sentence, then the same conversation goes on and asks for the translation."""

from collections.abc import Iterator

from comptra.methods import Task, unanswered
from comptra.methods.conversation import names, prompts_of, thoughts, translations
from comptra.ordered_jsonl import provisional
from topxgen.prompting.toml_prompts import fill

NEEDED = {"reason": ("sentence",), "extract": ()}


def translate(sentences: list[str], task: Task) -> Iterator[tuple[int, str]]:
    texts = prompts_of("cot", NEEDED)
    questions = [fill(texts["reason"], **names(task), sentence=sentence) for sentence in sentences]
    reasons = thoughts(task, [task.asker.chat(question) for question in questions])
    prompts = []
    for sentence, question, reason in zip(sentences, questions, reasons, strict=True):
        extract = fill(texts["extract"], **names(task), sentence=sentence)
        prompts.append(task.asker.chat(question, reason or "", extract))
    return provisional(translations(sentences, prompts, task, texts["marker"]), unanswered(reasons))


translate.check = lambda task: prompts_of("cot", NEEDED)
