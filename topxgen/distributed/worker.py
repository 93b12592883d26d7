"""What runs in a worker's process, whatever started it."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

from topxgen.common.console import library_output_to
from topxgen.common.errors import UsageError
from topxgen.distributed import CAPACITY

# Variables of the driver's environment that its workers take over; keys and tokens are not among them.
ENVIRONMENT = ("HF_HUB_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "TOPXGEN_CACHE", "OMP_NUM_THREADS", "TRANSFORMERS_OFFLINE")
PREFIXES = ("VLLM_", "RAYON_", "TOKENIZERS_")


def environment() -> dict[str, str]:
    """What workers take over of this process's environment."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in ENVIRONMENT or (name.startswith(PREFIXES) and "KEY" not in name and "TOKEN" not in name)
    }


class Worker:
    """Holds an object and answers calls of its methods."""

    async def load(self, build: Callable[[], Any], folder: str, environ: dict[str, str], log: Path | None) -> int:
        """Make the object, in the driver's folder, by which it names files; its capacity."""
        self._thread = ThreadPoolExecutor(1)

        def make() -> Any:
            os.environ.update(environ)
            try:
                os.chdir(folder)
            except OSError as error:
                raise UsageError(
                    f"a worker on {os.uname().nodename} does not have {folder} ({error.strerror}): all nodes must see the project, the "
                    "models and the data under the same paths"
                ) from None
            with library_output_to(log) if log is not None and log.parent.is_dir() else nullcontext():
                return build()

        self._object = await self._in_thread(make)
        return getattr(self._object, "capacity", CAPACITY)

    async def call(self, method: str, *arguments) -> Any:
        function = getattr(self._object, method)
        if iscoroutinefunction(function):
            return await function(*arguments)
        return await self._in_thread(partial(function, *arguments))

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)
