"""An encoder-decoder MT model in the place of the LLM."""

from collections.abc import Iterator

from comptra.methods import Task


def translate(sentences: list[str], task: Task) -> Iterator[tuple[int, str]]:
    task.rest()
    task.asker.begin(len(sentences))
    task.nllb.load()
    try:
        size = task.nllb.block_size  # a kill costs so many at most
        for start in range(0, len(sentences), size):
            block = sentences[start : start + size]
            for i, found in enumerate(task.nllb.translate(block, task.src, task.tgt, task.asker.tick), start):
                yield i, found.text
    finally:
        task.nllb.close()
