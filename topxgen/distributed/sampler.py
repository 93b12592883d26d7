"""A sampler whose engines are the workers of a pool, and what a worker has for it."""

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property, partial

from topxgen import distributed
from topxgen.distributed import Call, Plan
from topxgen.inference import CAPACITY, TOGETHER, Answer, ModelSettings, Request, SamplingSettings, gpu_groups
from topxgen.inference.tokenizer import encode, load_tokenizer


class DistributedSampler:
    """See topxgen.inference for the interface. A request brings its seed, so that its answer does not depend on the worker."""

    def __init__(self, backend: str, settings: ModelSettings):
        self._settings, self._adapter = settings, settings.adapter_name_or_path
        log = settings.engine_log and settings.engine_log.absolute()
        # Without a tensor_parallel_size an engine takes all GPUs that its worker has.
        of_worker = replace(
            settings, distributed=None, num_workers=None, data_parallel_size=1, api_key=None, engine_log=None
        )
        gpus = gpu_groups.gpus_of_worker(backend, settings)
        plan = Plan(settings.distributed, "generation", settings.num_workers, gpus, log)
        self._pool = distributed.start(partial(SamplerWorker, backend, of_worker), plan)

    @property
    def capacity(self) -> int:
        return self._pool.capacity

    @cached_property
    def _tokenizer(self):
        return load_tokenizer(self._settings)

    def encode(self, prompt: str | list[dict[str, str]]) -> list[int]:
        return encode(self._tokenizer, prompt)

    def use_adapter(self, adapter: str | None) -> None:
        self._adapter = adapter

    def generate(self, next_request: Callable[[], Request | None], settings: SamplingSettings) -> Iterator[Answer]:
        def next_call() -> Call | None:
            requests: list[Request] = []
            while len(requests) < TOGETHER and (request := next_request()) is not None:
                requests.append(request)
            return Call("answer", (requests, settings, self._adapter), len(requests)) if requests else None

        for _, answers in self._pool.run(next_call):
            yield from answers

    def close(self) -> None:
        self._pool.close()


class SamplerWorker:
    """One sampler for many calls at a time: their requests share its engine's batches."""

    def __init__(self, backend: str, settings: ModelSettings):
        self._backend, self._settings = backend, settings
        threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
        if not threads.isdecimal() or int(threads) < len(os.sched_getaffinity(0)):
            # vLLM's CPU build would bind the engines of all workers of a node to the same cores.
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        self._queue: queue.SimpleQueue = queue.SimpleQueue()  # of (request, (its decoding, its adapter), future)
        loaded: Future[int] = Future()
        threading.Thread(target=self._serve, args=(loaded,), daemon=True).start()
        self.capacity = loaded.result()

    async def answer(self, requests: list[Request], settings: SamplingSettings, adapter: str | None) -> list[Answer]:
        futures: list[Future[Answer]] = [Future() for _ in requests]
        for request, future in zip(requests, futures, strict=True):
            self._queue.put((request, (settings, adapter), future))
        return await asyncio.gather(*map(asyncio.wrap_future, futures))

    def _serve(self, loaded: "Future[int]") -> None:
        """Load the sampler and answer, in a thread: engines stay in the one that made them."""
        from topxgen import inference

        try:
            sampler = inference.load(self._backend, self._settings)
        except BaseException as error:
            loaded.set_exception(error)
            return
        loaded.set_result(getattr(sampler, "capacity", CAPACITY))
        adapter, waiting = self._settings.adapter_name_or_path, None
        while True:
            (request, kind, future), waiting = waiting or self._queue.get(), None
            first, in_work = [request], {request.id: future}

            def next_request(kind=kind, first=first, in_work=in_work) -> Request | None:
                nonlocal waiting
                if first:
                    return first.pop()
                try:
                    item = waiting or self._queue.get_nowait()
                except queue.Empty:
                    return None
                if item[1] != kind:  # of another adapter or decoding: once these are finished
                    waiting = item
                    return None
                in_work[item[0].id] = item[2]
                return item[0]

            settings, wanted = kind
            error: BaseException = RuntimeError("the engine dropped a request")
            try:
                if wanted != adapter:
                    sampler.use_adapter(wanted)
                    adapter = wanted
                for answer in sampler.generate(next_request, settings):
                    in_work.pop(answer.id).set_result(answer)
            except BaseException as raised:
                error = raised
            for future in in_work.values():
                future.set_exception(error)
