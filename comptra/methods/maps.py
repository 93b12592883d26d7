"""MAPS (He et al. 2024, "Exploring human-like translation strategy with large language models", TACL).

Three kinds of knowledge are asked for: keywords with their translations, topics, and a related sentence with its
translation. Each helps to one translation; with the zero-shot one that makes four candidates, and quality estimation
chooses.
"""

from collections.abc import Iterator

from comptra import answer_parsing
from comptra.methods import Task, unanswered
from comptra.methods.conversation import names, prompts_of, thoughts
from comptra.ordered_jsonl import provisional
from topxgen.common.errors import UsageError
from topxgen.prompting.toml_prompts import fill

KINDS = ("keywords", "topics", "demonstration")
NEEDED = dict.fromkeys(KINDS, ("sentence",)) | {f"translate_{kind}": ("sentence", "knowledge") for kind in KINDS}
KNOWLEDGE_TOKENS = 256


def translate(sentences: list[str], task: Task) -> Iterator[tuple[int, str]]:
    check(task)
    texts, known = prompts_of("maps", NEEDED), names(task)
    asked = [(kind, sentence) for sentence in sentences for kind in KINDS]
    questions = [task.asker.chat(fill(texts[kind], **known, sentence=sentence)) for kind, sentence in asked]
    knowledge = thoughts(task, questions, KNOWLEDGE_TOKENS)
    lacking = {i // len(KINDS) for i in unanswered(knowledge)}
    prompts = [
        task.asker.chat(fill(texts[f"translate_{kind}"], **known, sentence=sentence, knowledge=found or ""))
        for (kind, sentence), found in zip(asked, knowledge, strict=True)
    ]
    candidates: list[list[str]] = [[] for _ in sentences]
    for i, found in enumerate(task.asker.answers(prompts, task.sampling)):
        candidates[i // len(KINDS)] += [
            answer_parsing.translation(text, texts["marker"], task.thinks) for text in found
        ]
        if not found:
            lacking.add(i // len(KINDS))
    zero_shot = [task.prompt([], sentence) for sentence in sentences]
    for i, found in enumerate(task.asker.answers(zero_shot, task.mt_sampling)):
        candidates[i] += map(task.clean, found)
        if not found:
            lacking.add(i)
    candidates = [list(dict.fromkeys(filter(None, found))) for found in candidates]
    yield from provisional(enumerate(task.best_by_quality(sentences, candidates)), lacking)


def check(task: Task) -> None:
    """Raise UsageError when nothing can choose among the candidates, or a prompt is missing."""
    prompts_of("maps", NEEDED)
    if task.best_by_quality is None:
        raise UsageError(
            "--method_translate maps chooses among four candidates by quality estimation: pass --selection_method blaser or comet-qe"
        )


translate.check = check
