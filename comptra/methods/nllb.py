"""An encoder-decoder MT model in the place of the LLM."""

from collections.abc import Iterator

from comptra.methods import Task


def translate(sentences: list[str], task: Task) -> Iterator[tuple[int, str]]:
    task.rest()
    task.nllb.load()
    try:
        found = task.nllb.translate(sentences, task.src, task.tgt, task.asker.tick)
    finally:
        task.nllb.close()
    for i, translation in enumerate(found):
        yield i, translation.text
