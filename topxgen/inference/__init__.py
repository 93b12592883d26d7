"""Text generation behind one interface: requests stream in, responses stream out as they finish.

A sampler has
    encode(prompt) -> list[int]                  token ids as the model will read them
    generate(next_request, settings) -> iterator of Answer, in the order in which they finish
    use_adapter(folder or None)                  local models: switch the LoRA adapter
    capacity                                     optional: how many requests it takes in at a time
    finish()                                     APIs: `generate` sends nothing more, yields what is in flight, and ends
    close()                                      free the model and its memory

`next_request()` returns the next Request, or None if no request is ready. The sampler calls it whenever it has room, so
that the engine decodes while the caller works on finished answers; after a None it calls again when an answer has
finished, and returns when nothing is in flight.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from topxgen.common import signals
from topxgen.common.console import ONCE, library_output_to
from topxgen.common.errors import UsageError
from topxgen.common.hub import hub_call
from topxgen.common.registry import Choice, load_choice
from topxgen.common.settings import Settings
from topxgen.inference.engine_args import check_names, names_in_source, parse

logger = logging.getLogger(__name__)

BACKENDS: dict[str, Choice] = {
    "vllm": Choice("topxgen.inference.vllm:VLLMSampler", "vLLM, on all visible GPUs"),
    "hf": Choice("topxgen.inference.hf:HFSampler", "transformers, slower, for small models and checks"),
    "openai": Choice("topxgen.inference.openai:OpenAISampler", "OpenAI, or any compatible server (--base_url)"),
    "cohere": Choice("topxgen.inference.cohere:CohereSampler", "Cohere"),
    "anthropic": Choice("topxgen.inference.anthropic:AnthropicSampler", "Anthropic"),
}
# APIs: their classes report a missing key, client or address (check) and unsupported decoding (check_sampling) before
# anything is loaded.
REMOTE = ("openai", "cohere", "anthropic")
CHAT_ONLY = ("cohere", "anthropic")
MAX_BEAMS = 32
CAPACITY = 64  # requests in flight, of a sampler that has no `capacity`
# Requests that go to one of several engines together: those of the topxgen pipeline that follow one another show the same examples,
# and the second finds them in the engine's prefix cache.
TOGETHER = 4
_SURROGATE = re.compile("[\ud800-\udfff]")
# Decoding that no flag sets, switched off by every backend that knows it; recorded with the settings of a run.
NEUTRAL = {"top_k": -1, "min_p": 0.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
ENGINE_LOG = "engine.log"  # in the output directory: what vLLM and transformers print


@dataclass(frozen=True)
class Request:
    """A prompt (text, or a chat as a list of {"role", "content"}) and the seed of its sampling.

    `log_probabilities`: whether its answer is to have them; only local models sampling have any.
    """

    id: str
    prompt: str | list[dict[str, str]]
    seed: int
    log_probabilities: bool = False


@dataclass(frozen=True)
class Answer:
    """The texts for one request: `num_return_sequences` of them, best beam first; `error` says why there is none."""

    id: str
    texts: list[str]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None
    cached_tokens: int = 0  # those of the prompt that an API had in its cache
    finish_reasons: tuple[str, ...] = ()  # of each text: "length" if it was cut at max_new_tokens, else the backend's
    server_defaults: bool | None = None  # whether a server that refuses NEUTRAL used its own values
    own_temperature: bool = False  # whether an API that refuses a temperature used its own
    log_probabilities: tuple[float, ...] = ()  # of each text: the mean over its tokens, by the model before temperature

    def __post_init__(self):
        # Lone surrogates cannot be saved: what is judged now must be what a resumed run reads.
        texts = [_SURROGATE.sub("\ufffd", text) for text in self.texts]
        reasons = chain(self.finish_reasons, repeat(""))
        # The limit may fall inside a character, of which transformers decodes the first bytes, too.
        texts = [
            text.rstrip("\ufffd") if reason == "length" else text for text, reason in zip(texts, reasons, strict=False)
        ]
        object.__setattr__(self, "texts", texts)


@dataclass(frozen=True)
class SamplingSettings(Settings):
    """How to decode. `temperature` 0 is greedy; `num_beams` above 1 is beam search (then nothing is sampled)."""

    max_new_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    num_return_sequences: int = 1
    num_beams: int = 1
    stop: tuple[str, ...] = ()

    @classmethod
    def from_args(cls, args, **chosen):
        """See Settings.from_args; --do_sample false is a temperature of 0."""
        return super().from_args(args, **({} if args.do_sample else {"temperature": 0.0}) | chosen)


@dataclass(frozen=True)
class ModelSettings(Settings):
    """What to load and how; a backend ignores the fields that it has no use for."""

    model_name_or_path: str
    tokenizer_name_or_path: str | None = None  # None: the model's own
    dtype: str = "auto"
    max_model_len: int | None = None  # tokens
    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int | None = None  # None: by the weights and the GPUs' memory (gpu_groups.py)
    data_parallel_size: int | None = None  # engines side by side; None: as many as the GPUs have room for
    adapter_name_or_path: str | None = None  # a LoRA adapter on top of the model
    reserve_lora: bool = False  # vllm: make room for adapters that come later
    lora_rank: int = 16
    seed: int = 122
    request_batch_size: int = 4  # hf: sequences decoded together
    max_concurrent_requests: int | None = None  # vllm and APIs; None: as the engine has room, or by the API
    trust_remote_code: bool = False
    engine_args: tuple[str, ...] = ()  # vllm: KEY=VALUE, see engine_args.py
    deterministic: bool = False  # vllm: batch invariance
    distributed: str | None = None  # local models: a name in topxgen.distributed.SCHEDULERS, for engines on many nodes
    num_workers: int | None = None  # with it
    engine_log: Path | None = field(default=None, compare=False)  # gets what a local engine prints; None: the terminal
    # APIs only
    api_key: str | None = field(default=None, repr=False)  # None: the provider's environment variable
    base_url: str | None = None  # None: the provider's own
    request_timeout: float = 600.0  # seconds for one attempt at a request
    max_retries: int = 8  # attempts after the first

    def __post_init__(self):
        object.__setattr__(self, "engine_args", tuple(self.engine_args or ()))


def load(backend: str, settings: ModelSettings):
    """The sampler of that name, with its model loaded. Raises UsageError if it cannot be loaded."""
    if settings.distributed is not None and backend not in REMOTE:
        from topxgen.distributed.sampler import DistributedSampler

        return _finishing(DistributedSampler(backend, settings))
    sampler = load_choice("--inference_api", backend, BACKENDS)
    if backend not in REMOTE:
        from topxgen.inference import data_parallel, gpu_groups

        settings, groups = gpu_groups.plan(backend, settings)
        if groups:
            sampler = partial(data_parallel.DataParallelSampler, backend, groups=groups)
    if settings.engine_log is None:
        return _finishing(sampler(settings))
    with library_output_to(settings.engine_log):
        return _finishing(sampler(settings))


def _finishing(sampler):
    """`sampler`, which on a signal sends no new requests and ends after the answers to those in flight."""
    generate = sampler.generate

    def finish(next_request: Callable[[], Request | None], settings: SamplingSettings) -> Iterator[Answer]:
        with signals.finishing():
            yield from generate(lambda: None if signals.stop_requested() else next_request(), settings)

    sampler.generate = finish
    return sampler


def describe(backend: str, settings: ModelSettings) -> str:
    """What runs the model, and where its messages go, for a log line."""
    return f"{backend}; its messages: {settings.engine_log}" if settings.engine_log else backend


def check(backend: str, settings: ModelSettings, sampling: SamplingSettings | None = None) -> None:
    """Raise UsageError if `backend` does not exist, or is an API without a key, client or address, or one that cannot decode
    as `sampling` says; for a local model if its adapter does not fit."""
    chosen = engine_options(settings).get("engine_args", ())
    if chosen and (known := names_in_source()):
        check_names(chosen, known)
    if sampling is not None and (problem := beam_problem(backend, sampling)):
        raise UsageError(problem)
    if backend in BACKENDS and backend not in REMOTE:
        if settings.adapter_name_or_path is not None:
            from topxgen.inference.adapters import check_adapter, check_tokenizer, check_vllm_supports

            base, trust = settings.model_name_or_path, settings.trust_remote_code
            folder = check_adapter(settings.adapter_name_or_path, base, settings.lora_rank, trust)
            if backend == "vllm":
                check_vllm_supports(folder)
            check_tokenizer(folder, settings)
        return
    for name in (settings.adapter_name_or_path, settings.model_name_or_path):
        if name and (name == settings.adapter_name_or_path or (Path(name) / "adapter_config.json").is_file()):
            raise adapter_is_local(name, backend)
    sampler = load_choice("--inference_api", backend, BACKENDS)
    if hasattr(sampler, "check"):  # a user's own backend may have none
        sampler.check(settings)
        if sampling is not None:
            sampler.check_sampling(sampling, settings)
            if not getattr(sampler, "has_seed", True):
                text = f"{sampler.provider}'s API has no seed: --seed decides the prompts alone, not the responses"
                logger.info(text, extra=ONCE)


def beam_problem(backend: str, flags: Any) -> str:
    """Which of `flags` (SamplingSettings, or a command's) the backend's beam search would ignore, or that there is none."""
    if flags.num_beams > 1 and backend in REMOTE:
        return f"--num_beams {flags.num_beams}: APIs have no beam search; pass 1, or choose --inference_api vllm or hf"
    if backend != "vllm" or flags.num_beams == 1 or flags.repetition_penalty == 1:
        return ""
    return (
        f"--repetition_penalty {flags.repetition_penalty:g}: vLLM's beam search does not support it; pass 1, or "
        "--inference_api hf"
    )


def decoding(backend: str, settings: ModelSettings) -> dict:
    """The values of NEUTRAL that a backend decodes with; others have the provider's defaults. And what is special of vLLM."""
    if backend in REMOTE:
        return load_choice("--inference_api", backend, BACKENDS).decoding(settings)
    return (dict(NEUTRAL) if backend in BACKENDS else {}) | engine_options(settings)


def engine_options(settings: ModelSettings) -> dict:
    """What --engine_args and --deterministic change of vLLM, as settings record it; {} if nothing. Raises UsageError."""
    options = {"engine_args": parse(settings.engine_args, settings.trust_remote_code)} if settings.engine_args else {}
    return options | ({"deterministic": True} if settings.deterministic else {})


def adapter_is_local(name: str, backend: str) -> UsageError:
    """The error for an adapter with an API, which would answer without it."""
    return UsageError(
        f"{name} is a LoRA adapter, which --inference_api {backend} cannot load: serve it (vllm serve BASE --enable-lora "
        "--lora-modules NAME=FOLDER) and pass the name it is served under as --model_name_or_path"
    )


def adapter_folder(name: str) -> str:
    """The folder of a LoRA adapter, downloaded if `name` is a Hub id. Raises UsageError if it is not an adapter."""
    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(hub_call(name, lambda: snapshot_download(name)))
    if not (folder / "adapter_config.json").is_file():
        raise UsageError(f"{folder} holds no LoRA adapter (no adapter_config.json); is it a full model?")
    return str(folder)


def gather(
    next_request: Callable[[], Request | None],
    count: int,
    encode: Callable[[str | list[dict[str, str]]], list[int]],
    settings: SamplingSettings,
    max_model_len: int,
) -> tuple[list[tuple[Request, list[int]]], list[Answer]]:
    """Up to `count` requests with their token ids, and the answers (errors) to those that exceed `max_model_len`.

    Both are empty if no request is ready.
    """
    taken, rejected = [], []
    while len(taken) < count and (request := next_request()) is not None:
        tokens = encode(request.prompt)
        if len(tokens) + settings.max_new_tokens <= max_model_len:
            taken.append((request, tokens))
        else:
            asked = settings.max_new_tokens
            error = f"{len(tokens)} prompt + {asked} new tokens exceed --max_model_len {max_model_len}"
            rejected.append(Answer(request.id, [], len(tokens), error=error))
    return taken, rejected


def cut_at_stop(text: str, stop: Iterable[str]) -> str:
    """`text` up to the first stop string."""
    return text[: min((at for s in stop if (at := text.find(s)) >= 0), default=len(text))]


def from_list(requests: Iterable[Request]) -> Callable[[], Request | None]:
    """A `next_request` over a fixed collection."""
    iterator = iter(requests)
    return lambda: next(iterator, None)
