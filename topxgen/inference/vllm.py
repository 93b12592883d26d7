"""vLLM: requests enter the engine as it has room, responses come back as they finish."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import InvalidStateError
from copy import deepcopy
from multiprocessing import connection
from signal import SIGUSR1

from topxgen.common import signals
from topxgen.common.errors import UsageError, reason
from topxgen.common.hub import hub_call
from topxgen.common.weights import check_complete, check_weights, free_memory
from topxgen.inference import (
    NEUTRAL,
    Answer,
    ModelSettings,
    Request,
    SamplingSettings,
    cut_at_stop,
    engine_args,
    engine_log,
    gather,
)
from topxgen.inference.adapters import check_adapter, check_vllm_supports, end_tokens, end_tokens_of_model
from topxgen.inference.beam_search import BeamSearch
from topxgen.inference.engine_guard import EngineGuard
from topxgen.inference.tokenizer import begun_thoughts, check_vocabulary, decode, encode, thought_marks

DEFAULT_MODEL_LEN = 8192  # tokens; the full context of a model may not fit into the KV cache
WAITING_SHARE = 0.25  # of what the engine decodes at a time: more requests wait in it, so that no place stays empty
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vllm.config.lora


def _options(settings: ModelSettings, max_model_len: int, tensor_parallel_size: int, on_cpu: bool) -> dict:
    """Of vLLM's LLM, before those of --engine_args."""
    options = dict(
        model=settings.model_name_or_path,
        tokenizer=settings.tokenizer_name_or_path or settings.model_name_or_path,
        dtype=settings.dtype,
        max_model_len=max_model_len,
        seed=settings.seed,
        tensor_parallel_size=tensor_parallel_size,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        enable_prefix_caching=True,
        enable_lora=settings.reserve_lora or settings.adapter_name_or_path is not None,
        language_model_only=True,  # no vision tower of gemma-3-27b-it and the like
        trust_remote_code=settings.trust_remote_code,
        disable_log_stats=True,
        use_tqdm_on_load=False,
        shutdown_timeout=int(signals.FINISH_S),  # after a SIGTERM to all processes: finish what is in flight
        max_logprobs=-1,  # no limit: beam search reads several per beam
    )
    if settings.max_concurrent_requests:
        options["max_num_seqs"] = settings.max_concurrent_requests
    if options["enable_lora"]:
        # The engine supports certain ranks only; one larger than the adapter's works.
        options["max_lora_rank"] = next((rank for rank in LORA_RANKS if rank >= settings.lora_rank), LORA_RANKS[-1])
    if on_cpu:
        # On CPU, per-request random generators do not work with chunked prefill.
        options |= dict(enforce_eager=True, enable_chunked_prefill=False)
        options["max_num_batched_tokens"] = max(max_model_len, 4096)
        options.pop("gpu_memory_utilization")
    return options


class VLLMSampler:
    """See topxgen.inference for the interface."""

    def __init__(self, settings: ModelSettings):
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        # A forked engine cannot use CUDA once this process has (CTranslate2's early check looks for GPUs).
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB; only the CPU build reads it
        chosen = engine_args.parse(settings.engine_args, settings.trust_remote_code)
        if "distributed_executor_backend" not in chosen:  # then all its processes are on this machine
            os.environ.setdefault("VLLM_HOST_IP", "127.0.0.1")  # vLLM would look for an address by way of 8.8.8.8
        if settings.deterministic:
            engine_args.switch_on_batch_invariance()
        try:
            import vllm
            from vllm.engine.arg_utils import EngineArgs
            from vllm.platforms import current_platform
        except ImportError as error:
            raise UsageError(
                f"--inference_api vllm needs vLLM ({error}): pip install -r requirements.txt (GPU) or run "
                "scripts/setup.sh (CPU), or pass --inference_api hf"
            ) from None
        engine_args.check_names(chosen, EngineArgs.__dataclass_fields__)
        import torch
        from transformers import AutoConfig
        from vllm.v1.engine.exceptions import EngineDeadError

        self._vllm, self._dead = vllm, EngineDeadError
        self._settings = settings
        name, trust = settings.model_name_or_path, settings.trust_remote_code
        config = hub_call(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=trust))
        limit = getattr(config.get_text_config(), "max_position_embeddings", None) or DEFAULT_MODEL_LEN
        self._max_model_len = min(settings.max_model_len or DEFAULT_MODEL_LEN, limit)
        parallel = settings.tensor_parallel_size or max(1, torch.cuda.device_count())
        options = _options(settings, self._max_model_len, parallel, current_platform.is_cpu()) | chosen
        if settings.adapter_name_or_path is not None:
            self._check_adapter(settings.adapter_name_or_path)  # fails before minutes of loading
        if "hf_overrides" not in chosen:
            hub_call(name, lambda: check_complete(name, config))
        self._guard = EngineGuard()
        log_size = engine_log.size(settings.engine_log)
        try:
            with signals.blocked_in_children(SIGUSR1):  # SIGTERM is how vLLM ends its processes
                self._llm = vllm.LLM(**options)
        except Exception as error:  # vLLM wraps every start-up failure; its engine prints the cause
            raise UsageError(
                f"vLLM could not load {name!r} ({engine_log.cause(error, settings.engine_log, log_size)}); if memory ran out, lower "
                "--max_model_len or --gpu_memory_utilization, or raise --tensor_parallel_size"
                + (f"; --engine_args {' '.join(settings.engine_args)} may be the cause" if chosen else "")
                + (f"; see {settings.engine_log}" if settings.engine_log else "")
            ) from None
        self._engine = self._llm.llm_engine
        self._report_death()
        self._adapters: dict[str, int] = {}
        try:
            self._check_loaded(config, "hf_overrides" in chosen)
            self.use_adapter(settings.adapter_name_or_path)
        except UsageError:
            self.close()
            raise
        room = self._engine.vllm_config.scheduler_config.max_num_seqs
        self.capacity = settings.max_concurrent_requests or room + int(WAITING_SHARE * room)

    def _check_loaded(self, config, overridden: bool) -> None:
        """Raise UsageError for weights that are not those of `config`: now they are in the Hub's cache, and in memory."""
        name = self._settings.model_name_or_path
        # The engine's configuration also knows hf_quant_config.json, but no longer that embeddings are tied where the
        # checkpoint's differ.
        loaded = deepcopy(self._engine.vllm_config.model_config.hf_config)
        if not overridden:
            loaded.tie_word_embeddings = getattr(config, "tie_word_embeddings", False)
        hub_call(name, lambda: check_complete(name, loaded))
        check_weights(name, loaded)

    def _report_death(self) -> None:
        """Have `step` and `add_lora` raise if the engine's process is killed, by a lack of memory, say: vLLM 0.32 would wait for it
        forever."""
        core = self._engine.engine_core
        manager = getattr(getattr(core, "resources", None), "engine_manager", None)
        if manager is None or not hasattr(core, "outputs_queue"):
            return
        sentinels, outputs, dead = [process.sentinel for process in manager.processes], core.outputs_queue, self._dead

        def watch() -> None:
            connection.wait(sentinels)
            outputs.put(dead())
            for future in list(getattr(core, "utility_results", {}).values()):
                with contextlib.suppress(InvalidStateError):  # answered meanwhile
                    future.set_exception(dead())

        threading.Thread(target=watch, name="engine", daemon=True).start()

    def use_adapter(self, adapter: str | None) -> None:
        from vllm.lora.request import LoRARequest

        # Besides those of the tokenizer and the generation config that the engine reads.
        self._end_tokens = end_tokens_of_model(self._settings)
        if adapter is None:
            self._lora = None
            return
        folder = self._check_adapter(adapter)
        self._end_tokens |= end_tokens(folder, self._settings.trust_remote_code)
        number = self._adapters.setdefault(folder, len(self._adapters) + 1)  # the engine's key for it
        self._lora = LoRARequest(folder, number, folder)
        try:  # now: with the first request, the engine would die of what it does not support
            self._engine.add_lora(self._lora)
        except Exception as error:  # whatever the engine raises comes as one type
            raise UsageError(
                f"vLLM cannot use the adapter {adapter} ({reason(error)}): merge it into its base (scripts/merge_lora.py), or pass "
                "--inference_api hf"
            ) from None

    def _check_adapter(self, adapter: str) -> str:
        """The adapter's folder. Raises UsageError if it does not fit, or has parts that vLLM does not support."""
        settings = self._settings
        folder = check_adapter(adapter, settings.model_name_or_path, settings.lora_rank, settings.trust_remote_code)
        check_vllm_supports(folder)
        return folder

    def encode(self, prompt: str | list[dict[str, str]]) -> list[int]:
        tokens = encode(self._llm.get_tokenizer(), prompt)
        check_vocabulary(tokens, self._engine.vllm_config.model_config.hf_config, self._settings.model_name_or_path)
        return tokens

    def generate(self, next_request: Callable[[], Request | None], settings: SamplingSettings) -> Iterator[Answer]:
        with self._reporting_death():
            yield from (self._beam_search if settings.num_beams > 1 else self._decode)(next_request, settings)

    def _decode(self, next_request: Callable[[], Request | None], settings: SamplingSettings) -> Iterator[Answer]:
        engine, in_flight = self._engine, {}
        try:
            while True:
                # One at a time: the engine starts on the first while the next is tokenized.
                while len(in_flight) < self.capacity:
                    taken, rejected = gather(next_request, 1, self.encode, settings, self._max_model_len)
                    yield from rejected
                    if not taken and not rejected:
                        break
                    for request, tokens in taken:
                        params = self._params(request, settings)
                        prompt = {"prompt_token_ids": tokens}
                        in_flight[request.id] = engine.add_request(request.id, prompt, params, lora_request=self._lora)
                if not in_flight:
                    return
                for output in self._engine.step():
                    if output.finished:
                        del in_flight[output.request_id]
                        begun = begun_thoughts(self._llm.get_tokenizer(), output.prompt_token_ids)
                        texts = [begun + self._text(completion, settings) for completion in output.outputs]
                        reasons = [completion.finish_reason or "stop" for completion in output.outputs]
                        # By an engine that a signal ends: half an answer is none.
                        if not {"abort", "error"}.isdisjoint(reasons):
                            continue
                        n = settings.num_return_sequences
                        yield Answer(
                            output.request_id,
                            (texts * n)[:n],
                            len(output.prompt_token_ids),
                            sum(len(completion.token_ids) for completion in output.outputs),
                            finish_reasons=tuple((reasons * n)[:n]),
                            log_probabilities=tuple(
                                completion.cumulative_logprob / max(1, len(completion.token_ids))
                                for completion in output.outputs
                                if completion.cumulative_logprob is not None
                            ),
                        )
        finally:
            self._abort(list(in_flight.values()))

    @contextlib.contextmanager
    def _reporting_death(self) -> Iterator[None]:
        """Turn the death of the engine, as by a lack of memory, into a UsageError."""
        try:
            yield
        except self._dead as error:
            log = self._settings.engine_log
            raise UsageError(
                f"vLLM's engine has died ({reason(error)}){f'; see the end of {log}' if log else ''}; all finished responses are saved: re-run "
                "the same command to resume"
            ) from None

    def _text(self, completion, settings: SamplingSettings) -> str:
        """The text of a completion, with the special tokens that mark thoughts, which the engine drops."""
        if thought_marks(self._llm.get_tokenizer()).keys().isdisjoint(completion.token_ids):
            return completion.text
        ids = self._without(list(completion.token_ids), self._end_tokens)
        return cut_at_stop(decode(self._llm.get_tokenizer(), [ids])[0], settings.stop)

    @staticmethod
    def _without(ids: list[int], ends: frozenset[int]) -> list[int]:
        """`ids` without a token of `ends` at their end."""
        return ids[:-1] if ids and ids[-1] in ends else ids

    def _params(self, request: Request, settings: SamplingSettings):
        return self._vllm.SamplingParams(
            # Greedy answers are all equal, and the engine rejects n > 1 for them.
            n=settings.num_return_sequences if settings.temperature > 0 else 1,
            temperature=settings.temperature,
            top_p=settings.top_p,
            repetition_penalty=settings.repetition_penalty,
            max_tokens=settings.max_new_tokens,
            stop=list(settings.stop),
            stop_token_ids=sorted(self._end_tokens),
            seed=request.seed,
            logprobs=0 if request.log_probabilities else None,  # 0: of the sampled token alone
            **NEUTRAL,
            output_kind=self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        )

    def _beam_search(self, next_request: Callable[[], Request | None], settings: SamplingSettings) -> Iterator[Answer]:
        """Each beam of each prompt requests one token at a time; the prefix cache makes that cheap."""
        tokenizer, eos = self._llm.get_tokenizer(), self._eos()
        searches: dict[str, tuple[list[int], BeamSearch]] = {}  # by request id: prompt, search
        expected: dict[str, list] = {}  # by request id: the likeliest tokens of each live beam, None while in flight
        in_flight: dict[str, tuple[str, str, int]] = {}  # by our name: the engine's id, request id, beam

        def stops(tokens: list[int]) -> bool:
            [text] = decode(tokenizer, [tokens])
            return any(stop in text for stop in settings.stop)

        def extend(key: str) -> None:
            prompt, search = searches[key]
            expected[key] = [None] * len(search.live)
            params = self._vllm.SamplingParams(temperature=0.0, max_tokens=1, logprobs=search.width, detokenize=False)
            for beam, (tokens, _) in enumerate(search.live):
                name = f"{key}/{len(tokens)}/{beam}"
                inputs = {"prompt_token_ids": prompt + tokens}
                in_flight[name] = self._engine.add_request(name, inputs, params, lora_request=self._lora), key, beam

        try:
            while True:
                while len(searches) < max(1, self.capacity // settings.num_beams):
                    taken, rejected = gather(next_request, 1, self.encode, settings, self._max_model_len)
                    yield from rejected
                    if not taken and not rejected:
                        break
                    for request, tokens in taken:
                        limits = settings.num_beams, settings.max_new_tokens
                        search = BeamSearch(*limits, eos, stops if settings.stop else None)
                        searches[request.id] = tokens, search
                        extend(request.id)
                if not searches:
                    return
                for output in self._engine.step():
                    _, key, beam = in_flight.pop(output.request_id)
                    if output.outputs[0].finish_reason in ("abort", "error"):
                        raise UsageError("vLLM's engine was stopped; re-run the same command to resume")
                    likeliest = output.outputs[0].logprobs[0]
                    expected[key][beam] = [(token, entry.logprob) for token, entry in likeliest.items()]
                    if None in expected[key]:
                        continue
                    prompt, search = searches[key]
                    search.advance(expected.pop(key))
                    if not search.done:
                        extend(key)
                        continue
                    del searches[key]
                    best = search.best(settings.num_return_sequences)
                    begun, texts, reasons = begun_thoughts(tokenizer, prompt), [], []
                    wholes = decode(tokenizer, [self._without(ids, eos) for ids in best])
                    for ids, whole in zip(best, wholes, strict=True):
                        text = cut_at_stop(whole, settings.stop)
                        texts.append(begun + text)
                        cut = len(ids) == settings.max_new_tokens and ids[-1] not in eos and text == whole
                        reasons.append("length" if cut else "stop")
                    yield Answer(key, texts, len(prompt), sum(map(len, best)), finish_reasons=tuple(reasons))
        finally:
            self._abort([engine_id for engine_id, _, _ in in_flight.values()])

    def _eos(self) -> frozenset[int]:
        """The tokens that end an answer, by the tokenizer and the generation config, the adapter's too."""
        listed = self._engine.model_config.try_get_generation_config().get("eos_token_id") or []
        tokens = {self._llm.get_tokenizer().eos_token_id, *([listed] if isinstance(listed, int) else listed)}
        return frozenset(tokens - {None}) | self._end_tokens

    def _abort(self, engine_ids: list[str]) -> None:
        if engine_ids:
            # A Ctrl-C at the terminal reaches the engine's processes too, so they may have exited.
            with contextlib.suppress(self._dead):
                self._engine.abort_request(engine_ids, internal=True)

    def close(self) -> None:
        """Shut the engine down and give its memory back."""
        self._guard.release()
        self._engine.engine_core.shutdown()
        del self._engine, self._llm
        free_memory()
