"""An encoder-decoder MT model instead of the LLM."""

from collections.abc import Iterator

from comptra.methods import Task


def translate(sentences: list[str], task: Task) -> Iterator[tuple[int, str]]:
    task.release_llm()
    task.nllb.load()
    progress = task.client.progress
    progress.expect(len(sentences))
    try:
        size = task.nllb.block_size  # a kill loses one block at most
        for start in range(0, len(sentences), size):
            block = sentences[start : start + size]
            for i, result in enumerate(task.nllb.translate(block, task.src, task.tgt, progress.on_done), start):
                yield i, result.text
    finally:
        if task.frees_nllb:
            task.nllb.close()
