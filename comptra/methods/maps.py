"""MAPS (He et al. 2024, "Exploring human-like translation strategy with large language models", TACL).

The model writes three kinds of knowledge about the sentence: keywords with their translations, topics, and a related sentence
with its translation. Each gives one candidate translation, a zero-shot prompt the fourth, and quality estimation chooses.
"""

from collections.abc import Iterator

from comptra.methods import Task
from comptra.methods.conversation import Instructions, candidates, instructions, think
from topxgen.common.errors import UsageError

KINDS = ("keywords", "topics", "demonstration")
PLACEHOLDERS = dict.fromkeys(KINDS, ("sentence",)) | {f"translate_{kind}": ("sentence", "knowledge") for kind in KINDS}
KNOWLEDGE_TOKENS = 256


def translate(sentences: list[str], task: Task) -> Iterator[tuple[int, str]]:
    text = check(task)
    kinds = list(KINDS) * len(sentences)
    repeated = [sentence for sentence in sentences for _ in KINDS]
    questions = [(text(kind, sentence=sentence),) for kind, sentence in zip(kinds, repeated, strict=True)]
    knowledge = think(task, repeated, questions, KNOWLEDGE_TOKENS)
    talks = [
        (text(f"translate_{kind}", sentence=sentence, knowledge=known),)
        for kind, sentence, known in zip(kinds, repeated, knowledge, strict=True)
    ]
    informed = dict(candidates(task, repeated, talks, text.marker))
    zero_shot = dict(task.candidates(sentences, [task.prompt([], sentence) for sentence in sentences]))
    choices = []
    for i in range(len(sentences)):
        texts = [text for j in range(len(KINDS)) for text in informed[len(KINDS) * i + j]]
        choices.append(list(dict.fromkeys(filter(None, [*texts, *zero_shot[i]]))))
    yield from enumerate(map(task.client.chosen, sentences, task.best_by_quality(sentences, choices)))


def check(task: Task) -> Instructions:
    """Raise UsageError if nothing can choose among the candidates."""
    if task.best_by_quality is None:
        raise UsageError(
            "--method_translate maps chooses among four candidates by quality estimation: pass --selection_method blaser or comet-qe"
        )
    return instructions("maps", PLACEHOLDERS, task)


translate.check = check
