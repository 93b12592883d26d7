"""transformers' `generate` in length-sorted batches: slower than vLLM, but runs anywhere."""

import logging
import warnings
from collections.abc import Callable, Iterator

from topxgen.common.errors import UsageError, reason
from topxgen.common.hub import hub_call, listed
from topxgen.common.weights import drop_parts_not_for_text, free_memory, load_weights
from topxgen.inference import Answer, ModelSettings, Request, SamplingSettings, cut_at_stop, gather
from topxgen.inference.adapters import check_adapter, end_tokens, end_tokens_of_model
from topxgen.inference.batching import batching
from topxgen.inference.neutral_decoding import neutral_decoding
from topxgen.inference.tokenizer import (
    begun_thoughts,
    check_vocabulary,
    decode,
    encode,
    load_tokenizer,
    replace_missing_padding,
    up_to_end,
)

logger = logging.getLogger(__name__)
POOL_BATCHES = 8  # requests for this many batches are sorted by length together


class HFSampler:
    """See topxgen.inference for the interface."""

    def __init__(self, settings: ModelSettings):
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        self._torch = torch
        self._settings = settings
        self._tokenizer = load_tokenizer(settings)
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        if self._tokenizer.pad_token_id is None:
            raise UsageError(
                f"the tokenizer of {settings.model_name_or_path} has neither a padding nor an end token; is its "
                "tokenizer_config.json missing? Copy it back, or pass another --tokenizer_name_or_path"
            )
        model = hub_call(
            settings.model_name_or_path,
            lambda: load_weights(
                AutoModelForCausalLM,
                settings.model_name_or_path,
                dtype=settings.dtype,
                device_map="auto" if torch.cuda.is_available() else None,
                trust_remote_code=settings.trust_remote_code,
            ),
        )
        replace_missing_padding(self._tokenizer, model.config)
        drop_parts_not_for_text(model)
        self._model = model.eval()
        self._batching = batching(model)
        self._batch_size = settings.request_batch_size if self._batching.prompts else 1
        if self._batch_size < settings.request_batch_size:
            logger.warning(f"{type(model).__name__} answers otherwise in a batch than alone: one prompt at a time")
        listed = model.generation_config.eos_token_id
        eos = {self._tokenizer.eos_token_id, *(listed if isinstance(listed, list) else [listed])}
        self._end_tokens = self._own_end_tokens = frozenset(eos - {None}) | end_tokens_of_model(settings)
        self._adapters: dict[str, str] = {}
        if settings.adapter_name_or_path is not None:
            self.use_adapter(settings.adapter_name_or_path)
        self.capacity = 2 * POOL_BATCHES * self._batch_size  # a pool in work and one to follow
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
        self._max_model_len = min(settings.max_model_len or limit, limit)

    def use_adapter(self, adapter: str | None) -> None:
        if adapter is None:
            self._end_tokens = self._own_end_tokens
            if self._adapters:
                self._model.base_model.disable_adapter_layers()
            return
        from peft import PeftModel

        settings = self._settings
        folder = check_adapter(adapter, settings.model_name_or_path, settings.lora_rank, settings.trust_remote_code)
        self._end_tokens = self._own_end_tokens | end_tokens(folder, settings.trust_remote_code)
        known = folder in self._adapters
        name = self._adapters.setdefault(folder, f"adapter_{len(self._adapters)}")
        # Adapters of train.py exclude the parts that are dropped here.
        warnings.filterwarnings("ignore", message=".*exclude_modules=.* but no modules were excluded")
        if not known and len(self._adapters) == 1:
            self._model = PeftModel.from_pretrained(self._model, folder, adapter_name=name).eval()
        elif not known:
            try:
                self._model.load_adapter(folder, adapter_name=name)
            except (TypeError, ValueError) as error:  # a module that one adapter replaces and another one adds to
                raise UsageError(
                    f"the adapter {adapter} cannot be loaded after {listed(list(self._adapters)[:-1], 3)} ({reason(error)}): "
                    "pass it in a command of its own, or merge it into its base (scripts/merge_lora.py)"
                ) from None
        self._model.base_model.enable_adapter_layers()
        self._model.set_adapter(name)

    def encode(self, prompt: str | list[dict[str, str]]) -> list[int]:
        tokens = encode(self._tokenizer, prompt)
        check_vocabulary(tokens, self._model.config, self._settings.model_name_or_path)
        return tokens

    def generate(self, next_request: Callable[[], Request | None], settings: SamplingSettings) -> Iterator[Answer]:
        if not self._batching.rows and settings.num_return_sequences * settings.num_beams > 1:
            raise UsageError(
                f"{self._settings.model_name_or_path} mixes the rows of a batch in transformers: pass --num_beams 1 and "
                "--num_return_sequences 1, or --inference_api vllm"
            )
        size = POOL_BATCHES * self._batch_size
        while True:
            pool, rejected = gather(next_request, size, self.encode, settings, self._max_model_len)
            yield from rejected
            if not pool and not rejected:
                return
            pool.sort(key=lambda item: len(item[1]))
            for start in range(0, len(pool), self._batch_size):
                yield from self._batch(pool[start : start + self._batch_size], settings)

    def _batch(self, batch: list[tuple[Request, list[int]]], settings: SamplingSettings) -> Iterator[Answer]:
        torch = self._torch
        n = settings.num_return_sequences
        sampled = settings.temperature > 0 and settings.num_beams == 1
        rows = [tokens for _, tokens in batch for _ in range(n if sampled else 1)]
        inputs = self._tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(self._model.device)
        # A repetition penalty counts padding, too, which may be the end token: it is made a token that the prompt has.
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        inputs["input_ids"] = ids.where(mask > 0, ids[:, -1:])
        options = dict(
            max_new_tokens=settings.max_new_tokens,
            num_beams=settings.num_beams,
            num_return_sequences=n if settings.num_beams > 1 else 1,
            repetition_penalty=settings.repetition_penalty,
            do_sample=False,
            pad_token_id=self._tokenizer.pad_token_id,
            eos_token_id=sorted(self._end_tokens) or None,
        )
        if settings.stop:
            options["stopping_criteria"] = self._stopping_criteria(settings.stop, inputs["input_ids"].shape[1])
        if sampled:
            seeds = [request.seed + i for request, _ in batch for i in range(n)]
            wanted = any(request.log_probabilities for request, _ in batch)
            sampling = _SeededSampling(seeds, settings.temperature, settings.top_p, wanted)
            options["logits_processor"] = [sampling]
        with torch.inference_mode(), neutral_decoding(self._model):
            output = self._model.generate(**inputs, **options)
        new = output[:, inputs["input_ids"].shape[1] :]
        per_request = len(new) // len(batch)
        for i, (request, tokens) in enumerate(batch):
            ids = new[i * per_request : (i + 1) * per_request]
            # The base model's tokenizer may take an adapter's end token for text.
            rows = [up_to_end(row, self._end_tokens) for row in ids.tolist()]
            begun, texts, reasons, stopped = begun_thoughts(self._tokenizer, tokens), [], [], []
            for row, whole in zip(rows, decode(self._tokenizer, rows), strict=True):
                text = cut_at_stop(whole, settings.stop)
                texts.append(begun + text)
                stopped.append(text != whole)
                reasons.append("length" if len(row) == settings.max_new_tokens and text == whole else "stop")
            lengths = list(map(self._length, ids.tolist(), stopped))
            means = ()
            if sampled and request.log_probabilities:
                drawn = zip(sampling.log_probabilities(i * n, n), lengths, strict=True)
                means = tuple(sum(row[:length]) / max(1, length) for row, length in drawn)
            reasons = tuple((reasons * n)[:n])
            texts = (texts * n)[:n]
            counts = len(tokens), sum(lengths)
            yield Answer(request.id, texts, *counts, finish_reasons=reasons, log_probabilities=means)

    def _stopping_criteria(self, stop: tuple[str, ...], start: int) -> list:
        """Stops at strings in what follows the first `start` tokens; `generate`'s own stop_strings may begin in the prompt, and fail
        with a vocabulary that cannot write them."""
        from transformers import StoppingCriteriaList

        tail = 1 + max(len(string.encode()) for string in stop)  # tokens: each has a byte or more

        def found(ids, scores, **_):
            texts = decode(self._tokenizer, ids[:, start:][:, -tail:].tolist())
            return self._torch.tensor([cut_at_stop(text, stop) != text for text in texts], device=ids.device)

        return StoppingCriteriaList([found])

    def _length(self, row: list[int], is_stopped: bool) -> int:
        """How many tokens an answer has, with the token that ended it. `is_stopped`: a stop string did, so that what follows is
        padding, which may be an end token, too."""
        ends = self._end_tokens | {self._tokenizer.pad_token_id}
        length = len(up_to_end(row, ends))
        return length + (length < len(row) and not is_stopped)

    def close(self) -> None:
        del self._model
        free_memory()


class _SeededSampling:
    """A logits processor that samples with one random generator per row, under greedy decoding.

    The argmax of log p + Gumbel noise is a draw from p (the Gumbel-max trick). So an answer does not depend on what else
    is in its batch, as it would with one generator for all rows.
    """

    def __init__(self, seeds: list[int], temperature: float, top_p: float, keeps_log_probabilities: bool = False):
        import torch
        from transformers import TopPLogitsWarper

        self._torch = torch
        self._temperature = temperature
        self._warper = TopPLogitsWarper(top_p) if top_p < 1 else None
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        # For each token (rows,): the log probabilities, by the model itself, of what was drawn.
        self._drawn: list | None = [] if keeps_log_probabilities else None

    def __call__(self, input_ids, scores):
        torch = self._torch
        by_model, scores = scores.float(), scores.float() / self._temperature
        if self._warper is not None:
            scores = self._warper(input_ids, scores)
        exponential = torch.empty(scores.shape)
        for row, generator in zip(exponential, self._generators, strict=True):
            row.exponential_(generator=generator)
        noisy = scores.log_softmax(-1) - exponential.log().to(scores.device)
        if self._drawn is not None:
            self._drawn.append(by_model.log_softmax(-1).gather(1, noisy.argmax(-1, keepdim=True))[:, 0])
        return noisy

    def log_probabilities(self, first: int, count: int) -> list[list[float]]:
        """Of the tokens of `count` rows from `first` on."""
        return self._torch.stack(self._drawn, dim=1)[first : first + count].tolist()
