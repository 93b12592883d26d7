"""Few-shot MT: the k pairs of the pool most like the sentence, then the sentence (SPEC section 7)."""

from collections.abc import Iterator

from comptra.methods import Task


def translate(sentences: list[str], task: Task) -> Iterator[tuple[int, str]]:
    shots = task.shots(sentences)
    prompts = [task.prompt(*item) for item in zip(shots, sentences, strict=True)]
    return task.translate(sentences, prompts)
