"""Step by step (Briakou et al. 2024, "Translating step-by-step: decomposing the translation process for improved
translation quality of long-form texts"): research, draft and refinement in one growing conversation, then a
proofreader who sees the sentence and both versions afresh."""

from collections.abc import Iterator

from comptra.methods import Task, unanswered
from comptra.methods.conversation import drafts, names, prompts_of, thoughts, translations
from comptra.ordered_jsonl import provisional
from topxgen.prompting.toml_prompts import fill

NEEDED = {"research": ("sentence",), "draft": (), "refine": (), "proofread": ("sentence", "draft", "refined")}


def translate(sentences: list[str], task: Task) -> Iterator[tuple[int, str]]:
    texts = prompts_of("step_by_step", NEEDED)
    marker, known = texts["marker"], names(task)
    talks = [(fill(texts["research"], **known, sentence=sentence),) for sentence in sentences]
    found = thoughts(task, [task.asker.chat(*talk) for talk in talks])
    lacking = unanswered(found)
    versions = []
    for step in ("draft", "refine"):
        turns = [fill(texts[step], **known, sentence=sentence) for sentence in sentences]
        talks = [(*talk, answer or "", turn) for talk, answer, turn in zip(talks, found, turns, strict=True)]
        found = drafts(task, [task.asker.chat(*talk) for talk in talks], marker)
        lacking |= unanswered(found)
        versions.append([text or "" for text in found])
    prompts = [
        task.asker.chat(fill(texts["proofread"], **known, sentence=sentence, draft=draft, refined=refined))
        for sentence, draft, refined in zip(sentences, *versions, strict=True)
    ]
    return provisional(translations(sentences, prompts, task, marker), lacking)


translate.check = lambda task: prompts_of("step_by_step", NEEDED)
