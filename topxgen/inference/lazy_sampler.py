"""A model that is loaded when it is needed."""

from collections.abc import Callable, Sequence

from topxgen.inference import Request, SamplingSettings


class LazySampler:
    """A sampler (see topxgen.inference) whose model is loaded at the first request: not if a response cache answers them all."""

    def __init__(
        self,
        load: Callable[[], object],
        on_ready: Callable[[], None] = lambda: None,
        adapters: Sequence[str | None] = (),
    ):
        """`on_ready` is called before each batch of requests, once the model is loaded. `adapters`: those to come; the engine
        refuses one before it answers with another."""
        self._load, self._on_ready, self._sampler, self._adapters = load, on_ready, None, adapters
        self._adapter: str | None = None

    def use_adapter(self, adapter: str | None) -> None:
        """Answer with this LoRA adapter (None: the base model) from now on; the base model stays loaded."""
        self._adapter = adapter
        if hasattr(self._sampler, "use_adapter"):
            self._sampler.use_adapter(adapter)

    def generate(self, next_request: Callable[[], Request | None], settings: SamplingSettings):
        first = next_request()
        if first is None:
            return
        if self._sampler is None:
            self._sampler = self._load()
            for adapter in (self._adapter, *self._adapters, self._adapter):
                self.use_adapter(adapter)
        self._on_ready()
        waiting = [first]
        yield from self._sampler.generate(lambda: waiting.pop() if waiting else next_request(), settings)

    def close(self) -> None:
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None
