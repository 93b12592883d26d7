"""An encoder-decoder MT model instead of the LLM."""

from collections.abc import Iterator
from itertools import chain

from comptra.methods import Task
from topxgen.translation import translate_lists


def translate(sentences: list[str], task: Task) -> Iterator[tuple[int, str]]:
    task.release_llm()
    task.nllb.load()
    progress = task.client.progress
    progress.expect(len(sentences))
    try:
        size = task.nllb.block_size  # a kill loses one block at most
        blocks = (sentences[start : start + size] for start in range(0, len(sentences), size))
        results = translate_lists(task.nllb, "translate", blocks, task.src, task.tgt, progress.on_done)
        for i, result in enumerate(chain.from_iterable(results)):
            if result.truncated:
                task.client.truncated.add(sentences[i])
            yield i, result.text
    finally:
        if task.frees_nllb:
            task.nllb.close()
