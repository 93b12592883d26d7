"""Run a network over rows of token ids: batched by length, on all GPUs, the results in order."""

import copy
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from itertools import chain
from typing import TYPE_CHECKING

from topxgen.common.errors import UsageError
from topxgen.common.weights import free_memory

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


MOST_ON_CPU = 16  # threads that work side by side


def default_devices() -> list[str]:
    """All GPUs that this process sees, else the CPU once per thread of torch: side by side, a batch each, they wait less for one
    another than they do within each matrix product."""
    import torch

    if torch.cuda.is_available():
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["cpu"] * min(torch.get_num_threads(), MOST_ON_CPU)


def default_dtype() -> str:
    """bfloat16 on a GPU, else float32."""
    import torch

    return "bfloat16" if torch.cuda.is_available() else "float32"


class Replicas:
    """A network on each of `devices` (such as cuda:0), by default on all GPUs; a device that is named twice shares one copy.

    One thread works on each device and takes the next batch as soon as it is free: torch releases the interpreter's lock while
    it computes. Processes would gain nothing on one machine (docs/results.md, "A thread or a process for each device").
    `model` itself becomes the first copy.
    """

    def __init__(self, model: "Module", devices: Sequence[str] | None = None):
        devices = devices or default_devices()
        first, *others = dict.fromkeys(devices)
        copies = {device: copy.deepcopy(model).to(device) for device in others}
        copies[first] = model.to(first)
        self.models = [copies[device] for device in devices]

    @property
    def device_type(self) -> str:
        """cuda or cpu."""
        return next(self.models[0].parameters()).device.type

    def run(
        self,
        rows: Sequence[Sequence[int]],
        compute: Callable[["Module", "Tensor", "Tensor"], "Tensor"],
        batch_tokens: int,
        pad: int = 0,
    ) -> Iterable["Tensor"]:
        """For each of `rows`, in order, its part of compute(copy, ids, mask): (n, longest row) -> (n, ...), on its device.

        `batch_tokens` limits rows times longest row of a batch. The results are float32, on the CPU.
        """
        import torch

        # The batches are the same on any number of devices, and so are the results: what else is in a batch changes the last bits.
        waiting = deque(by_length([len(row) for row in rows], batch_tokens))
        results: list[Tensor | None] = [None] * len(rows)
        threads = torch.get_num_threads()

        def work(model: "Module") -> None:
            device = next(model.parameters()).device
            if device.type == "cpu" and len(self.models) > 1:
                torch.set_num_threads(max(1, threads // len(self.models)))  # of this thread
            with torch.inference_mode():
                while waiting:
                    try:
                        batch = waiting.popleft()
                    except IndexError:  # another thread took the last
                        return
                    ids, mask = padded([rows[i] for i in batch], pad)
                    values = compute(model, ids.to(device), mask.to(device)).float().cpu()
                    for i, value in zip(batch, values, strict=True):
                        results[i] = value

        if len(self.models) == 1:
            work(self.models[0])
            return results
        with ThreadPoolExecutor(len(self.models)) as pool:
            try:
                running = [pool.submit(work, model) for model in self.models]
                wait(running, return_when=FIRST_EXCEPTION)
            finally:
                waiting.clear()  # after an error or Ctrl-C the other threads stop, too
        torch.set_num_threads(threads)  # for threads that start from now on
        for one in running:
            one.result()
        return results

    def close(self) -> None:
        """Free the copies and their memory."""
        self.models = []
        free_memory()


def by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices grouped by length, longest first (so that a lack of memory shows at once), within `batch_tokens`."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]], pad: int = 0) -> tuple["Tensor", "Tensor"]:
    """Token ids (n, longest row), and which of them are no padding (bool)."""
    import numpy as np
    import torch

    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.full(mask.shape, pad)
    ids[mask] = torch.from_numpy(np.fromiter(chain.from_iterable(rows), dtype=np.int64))
    return ids, mask


def check_finite(name: str, dtype: str, texts: Iterable[str], values: Iterable[float]) -> None:
    """Raise UsageError, naming the first text, if a score is not a number: weights are damaged, or overflow in bfloat16."""
    for text, value in zip(texts, values, strict=True):
        if not math.isfinite(value):
            raise UsageError(
                f"{name} in {dtype} gives {value} for {text[:80]!r}: "
                + ("try float32, or " if dtype != "float32" else "its weights are damaged; ")
                + "download or save it again"
            )
