"""An LLM as a translator: few-shot prompts with demonstrations retrieved by BM25."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence

from topxgen import inference, retrieval
from topxgen.common import provenance
from topxgen.common.errors import UsageError
from topxgen.corpora import examples
from topxgen.inference import Answer, Request, SamplingSettings
from topxgen.inference.response_cache import CachedSampler, request_id
from topxgen.prompting.answers import chat_answer, is_cut
from topxgen.prompting.mt_templates import MTTemplate, chat_prompt, get_template
from topxgen.prompting.one_line import Candidates, one_line_answers
from topxgen.prompting.style import CHAT, RAW, style_and_template
from topxgen.retrieval import Retriever
from topxgen.text.languages import Language
from topxgen.text.words import unicode_words
from topxgen.translation import Translation, TranslatorSettings, WithCandidates, by_steps

logger = logging.getLogger(__name__)

MAX_NEW_TOKENS = 500  # of a translation


class LLM(WithCandidates):
    """See topxgen.translation for the interface. Only sampled candidates of a local model have a confidence: exp(mean
    log-probability) of the tokens.

    A model with a chat template is prompted through it, any other with the raw few-shot template; `prompt_style` overrides
    this, as for a chat model that was fine-tuned on a template. Responses are saved in `response_cache` as they arrive.
    """

    block_size = 2048

    def __init__(self, settings: TranslatorSettings):
        """Raises UsageError for a missing model, key or template."""
        if settings.model is None or not settings.model.model_name_or_path:
            raise UsageError("back-translation by an LLM needs --model_name_or_path (or pass --use_nllb)")
        self._settings, self._model = settings, settings.model
        count = self.number_of_candidates = settings.number_of_candidates
        if count > 1 and settings.inference_api in inference.CHAT_ONLY:
            raise UsageError(
                f"--number_of_candidates {count}: --inference_api {settings.inference_api} gives one answer to a prompt; pass 1, or "
                "choose openai, vllm or hf"
            )
        if 1 < settings.num_beams < count:
            raise UsageError(
                f"--number_of_candidates {count} is more than --num_beams {settings.num_beams}: pass as many beams, or 1 to sample"
            )
        inference.check(settings.inference_api, settings.model, self._sampling(count))
        self._style, self._chat_template = style_and_template(
            settings.prompt_style, settings.inference_api, self._model
        )
        get_template(settings.template_key, "English", "French")  # raises if it does not exist
        if self._style == CHAT and settings.template_key != "11":
            logger.info(
                f"{self._model.model_name_or_path} is prompted through its chat template, so --template_key {settings.template_key} "
                "is not used; if the model was fine-tuned on that template, pass --prompt_style raw"
            )
        self._pools: dict[tuple[str, str], tuple[list[tuple[str, str]], Retriever]] = {}
        self._sampler, self._cached = None, {}

    @property
    def _samples(self) -> bool:
        """Whether candidates are samples, not beams."""
        return self._settings.number_of_candidates > 1 and self._settings.num_beams == 1

    def _sampling(self, count: int, stop: tuple[str, ...] = ()) -> SamplingSettings:
        return SamplingSettings(
            MAX_NEW_TOKENS,
            temperature=self._settings.candidate_temperature if count > 1 and self._settings.num_beams == 1 else 0.0,
            num_return_sequences=count,
            num_beams=self._settings.num_beams,
            stop=stop,
        )

    def load(self) -> None:
        sampler = inference.load(self._settings.inference_api, self._model)
        if self._settings.meter is not None:
            sampler = self._settings.meter.wrap(sampler, "translate")
        self._sampler = sampler

    def _sampler_for(self, source: Language):
        """The sampler, with the responses of earlier runs for `source`."""
        settings = self._settings
        if settings.response_cache is None:
            return self._sampler
        if source.name not in self._cached:
            path, paid = settings.response_cache(source.name), settings.inference_api in inference.REMOTE
            self._cached[source.name] = CachedSampler(self._sampler, path, paid)
        return self._cached[source.name]

    @property
    def version(self) -> str:
        how = "chat" if self._style == CHAT else f"template {self._settings.template_key}"
        adapter = f" + {self._model.adapter_name_or_path}" if self._model.adapter_name_or_path else ""
        shots, beams = self._settings.number_of_demonstrations, self._settings.num_beams
        return (
            f"{self._model.model_name_or_path}{adapter} through {self._settings.inference_api}, {how}, {shots} "
            f"demonstration{'s' * (shots != 1)} from {self._settings.demonstration_pool}, {beams} beam{'s' * (beams != 1)}"
        )

    @property
    def settings(self) -> dict:
        """What decides the translations; with digests of the demonstrations once `check` has read them."""
        shot = ("S", "T")
        template = self._digested().get_prompt([shot], "X")
        prompt = template if self._style == RAW else chat_prompt("A", "B", [shot], "X")
        return {
            "inference_api": self._settings.inference_api,
            "model": self._model.model_name_or_path,
            "tokenizer": self._model.tokenizer_name_or_path,
            "adapter": self._model.adapter_name_or_path,
            **provenance.weights_of(model=self._model.model_name_or_path, adapter=self._model.adapter_name_or_path),
            **provenance.config_of(tokenizer=self._model.tokenizer_name_or_path),
            "dtype": self._model.dtype,
            "max_model_len": self._model.max_model_len,
            "prompt_digest": request_id(prompt),
            **{f"demonstrations_digest {name}": request_id(pairs) for (name, _), (pairs, _) in self._pools.items()},
            "prompt_style": self._style,
            **self._chat_template,
            "template_key": str(self._settings.template_key),
            "number_of_demonstrations": self._settings.number_of_demonstrations,
            "demonstration_pool": self._settings.demonstration_pool,
            "retriever_tokens": self._settings.retriever_tokens,
            "num_beams": self._settings.num_beams,
            **(
                {"candidate_temperature": self._settings.candidate_temperature, "seed": self._model.seed}
                if self._samples
                else {}
            ),
            "decoding": inference.decoding(self._settings.inference_api, self._model),
        }

    def _digested(self) -> MTTemplate:
        """The template with placeholders for languages, or with two languages if it needs their endonyms."""
        try:
            return get_template(self._settings.template_key, "A", "B")
        except UsageError:
            return get_template(self._settings.template_key, "English", "French")

    def check(self, source: Language, target: Language) -> None:
        """Raises UsageError if there are too few demonstrations."""
        if self._settings.number_of_demonstrations:
            pairs, _ = self._pool(source, target)
            if self._settings.number_of_demonstrations >= len(pairs):
                raise UsageError(
                    f"--number_of_demonstrations {self._settings.number_of_demonstrations} leaves nothing to choose from the "
                    f"{len(pairs)} pairs of {self._settings.demonstration_pool} from {source.name} to {target.name}; pass "
                    "fewer"
                )

    def _pool(self, source: Language, target: Language) -> tuple[list[tuple[str, str]], Retriever]:
        key = (source.flores, target.flores)
        if key not in self._pools:
            settings = self._settings
            pairs = examples.parallel_sentences(
                settings.demonstration_pool, source, target, settings.allow_partial_benchmark
            )
            tokens = retrieval.RetrieverSettings(retriever_tokens=settings.retriever_tokens)
            self._pools[key] = (pairs, retrieval.create("bm25s", [text for text, _ in pairs], source, tokens))
        return self._pools[key]

    def sample(self, source: Language, target: Language, count: int) -> list[tuple[str, str]]:
        """Pairs from all over the pool of demonstrations, for estimates."""
        pairs, _ = self._pool(source, target)
        return pairs[:: max(1, len(pairs) // count)][:count]

    def prompts(self, sentences: list[str], source: Language, target: Language) -> list[str | list[dict[str, str]]]:
        """The prompt for each sentence, with the most similar demonstration last."""
        shots: list[list[tuple[str, str]]] = [[] for _ in sentences]
        if self._settings.number_of_demonstrations:
            pairs, retriever = self._pool(source, target)
            nearest = retriever.nearest(sentences, self._settings.number_of_demonstrations)
            shots = [[pairs[i] for i in reversed(row)] for row in nearest]
        if self._style == CHAT:
            return [chat_prompt(source.name, target.name, *item) for item in zip(shots, sentences, strict=True)]
        template = get_template(self._settings.template_key, source.name, target.name)
        return [template.get_prompt(*item) for item in zip(shots, sentences, strict=True)]

    @property
    def retries(self):
        """Retries of API requests by cause; None for a local model."""
        return getattr(self._sampler, "retries", None)

    def translations(
        self, sentences: list[str], source: Language, target: Language, count: int, on_done: Callable[[int], None]
    ) -> list[list[Translation]]:
        """Samples with a seed of their own each, or the best beams."""
        distinct = list(dict.fromkeys(s for s in (" ".join(s.split()) for s in sentences) if unicode_words(s)))
        prompts = self.prompts(distinct, source, target)
        raw = get_template(self._settings.template_key, source.name, target.name) if self._style == RAW else None
        stops = raw.stops if raw else ()
        read_answers: dict[int, list[Translation]] = {}

        def read(answer: Answer, sentence: str) -> list[Translation]:
            """The translations in an answer; one without text, with the error, if there is none."""
            if not answer.texts:
                return [
                    Translation("", error=answer.error, unanswered=self._settings.inference_api in inference.REMOTE)
                ]
            translations = []
            for i, whole in enumerate(answer.texts):
                was_cut = answer.finish_reasons[i : i + 1] == ("length",)
                text = raw.translation(whole, was_cut) if raw else chat_answer(whole, sentence, target.name)
                error = answer.error
                if whole.strip() and not text:
                    error = f"the answer cannot be read: {whole.strip()[:80]!r}"
                elif was_cut and is_cut(whole, text):
                    error = f"cut at the limit of {MAX_NEW_TOKENS} new tokens"
                confidence = None
                if answer.log_probabilities:
                    confidence = round(math.exp(answer.log_probabilities[i]), 4)
                translations.append(Translation(text, confidence, error=error))
            return translations

        def request(numbers: Sequence[int], stop: tuple[str, ...]) -> Iterator[Candidates]:
            sampling = self._sampling(count, stop)
            ids = {self._request_id(prompts[i], sampling, stop == stops): i for i in numbers}
            requests = [
                Request(key, prompts[i], self._seed(key, count), log_probabilities=count > 1) for key, i in ids.items()
            ]
            for answer in self._sampler_for(source).generate(inference.from_list(requests), sampling):
                i = ids[answer.id]
                read_answers[i] = read(answer, distinct[i])
                yield i, [translation.text for translation in read_answers[i]] if answer.texts else []

        total = len(distinct)
        on_answer = by_steps(on_done, len(sentences), total)
        translations = {}
        for i, _ in one_line_answers(raw, total, request) if raw else request(range(total), ()):
            translations[distinct[i]] = read_answers[i]
            on_answer(1)
        return [translations.get(" ".join(sentence.split()), [Translation("")]) for sentence in sentences]

    @staticmethod
    def _request_id(prompt: str | list, sampling: SamplingSettings, is_first: bool) -> str:
        """A prompt that is sent again, with another stop string, has a second response in the cache; candidates have others."""
        more = [] if is_first else list(sampling.stop)
        if sampling.num_return_sequences > 1:
            more += [sampling.num_return_sequences, sampling.temperature]
        return request_id([prompt, *more] if more else prompt)

    def _seed(self, key: str, count: int) -> int:
        """The seed of a request: candidates of two sentences must not share their random numbers."""
        return self._model.seed if count == 1 else (self._model.seed + int(key[:8], 16)) % (1 << 31)

    def close(self) -> None:
        """Free the model; the object cannot be used afterwards."""
        for cached in self._cached.values():
            cached.close_file()
        self._cached = {}
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None
