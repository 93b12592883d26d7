"""Few-shot MT: the k most similar pairs of the selection pool, the most similar last, then the sentence."""

from collections.abc import Iterator

from comptra.methods import Task


def translate(sentences: list[str], task: Task) -> Iterator[tuple[int, str]]:
    prompts = [task.prompt(*item) for item in zip(task.shots(sentences), sentences, strict=True)]
    return task.translate(sentences, prompts)
