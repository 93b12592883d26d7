"""An LLM as a translator: k-shot prompts with demonstrations retrieved by BM25 (SPEC section 4)."""

import logging
from collections.abc import Callable

from topxgen import inference, retrieval
from topxgen.common.errors import UsageError
from topxgen.corpora import examples
from topxgen.inference import Request, SamplingSettings
from topxgen.inference.response_cache import Journal, request_id
from topxgen.prompting.mt_templates import MTTemplate, chat_prompt, clean_answer, get_template
from topxgen.prompting.style import Prompt, style_of
from topxgen.retrieval import Retriever
from topxgen.text.languages import Language
from topxgen.text.words import unicode_words
from topxgen.translation import Translation, TranslatorSettings, no_tick

logger = logging.getLogger(__name__)

MAX_NEW_TOKENS = 500


class LLM:
    """See topxgen.translation for the interface; there is no confidence.

    A model with a chat template is asked in words, any other gets the raw few-shot template; `prompt_style`
    overrides, as for a chat model that was fine-tuned on a template. Answers go to the journal as they come.
    """

    block_size = 2048

    def __init__(self, settings: TranslatorSettings):
        """Raises UsageError for a model or key that cannot be had, and for a template that does not exist."""
        if settings.model is None or not settings.model.model_name_or_path:
            raise UsageError("back-translation by an LLM needs --model_name_or_path (or pass --use_nllb)")
        self._settings, self._model = settings, settings.model
        sampling = SamplingSettings(temperature=0.0, num_beams=settings.num_beams)
        inference.check(settings.inference_api, settings.model, sampling)
        self._style = style_of(settings.prompt_style, settings.inference_api, settings.model)
        get_template(settings.template_key, "English", "French")  # does it exist?
        if self._style == "chat" and settings.template_key != "11":
            logger.info(
                f"{self._model.model_name_or_path} is asked through its chat template, so --template_key {settings.template_key} is not used; "
                "if it was fine-tuned on that template pass --prompt_style raw"
            )
        self._pools: dict[tuple[str, str], tuple[list[tuple[str, str]], Retriever]] = {}
        self._sampler = None

    def load(self) -> None:
        sampler = inference.load(self._settings.inference_api, self._model)
        if self._settings.response_cache is not None:
            paid = self._settings.inference_api in inference.REMOTE
            sampler = Journal(sampler, self._settings.response_cache, sync_each=paid)
        self._sampler = sampler

    @property
    def version(self) -> str:
        how = "chat" if self._style == "chat" else f"template {self._settings.template_key}"
        adapter = f" + {self._model.adapter_name_or_path}" if self._model.adapter_name_or_path else ""
        return (
            f"{self._model.model_name_or_path}{adapter} through {self._settings.inference_api}, {how}, {self._settings.number_of_demonstrations} "
            f"demonstrations from {self._settings.demonstration_pool}, {self._settings.num_beams} beams"
        )

    @property
    def settings(self) -> dict:
        """What decides the translations; that of the demonstrations once `check` has read them."""
        shot = ("S", "T")
        template = self._digested().get_prompt([shot], "X")
        prompt = template if self._style == "raw" else chat_prompt("A", "B", [shot], "X")
        return {
            "inference_api": self._settings.inference_api,
            "model": self._model.model_name_or_path,
            "tokenizer": self._model.tokenizer_name_or_path,
            "adapter": self._model.adapter_name_or_path,
            "dtype": self._model.dtype,
            "max_model_len": self._model.max_model_len,
            "prompt_digest": request_id(prompt),
            **{f"demonstrations_digest {name}": request_id(pairs) for (name, _), (pairs, _) in self._pools.items()},
            "prompt_style": self._style,
            "template_key": str(self._settings.template_key),
            "number_of_demonstrations": self._settings.number_of_demonstrations,
            "demonstration_pool": self._settings.demonstration_pool,
            "num_beams": self._settings.num_beams,
        }

    def _digested(self) -> MTTemplate:
        """The template for two languages of no importance."""
        try:
            return get_template(self._settings.template_key, "A", "B")
        except UsageError:  # it writes their own names for themselves
            return get_template(self._settings.template_key, "English", "French")

    def check(self, source: Language, target: Language) -> None:
        """Raises UsageError when there are no or too few demonstrations."""
        if self._settings.number_of_demonstrations:
            pairs, _ = self._pool(source, target)
            if self._settings.number_of_demonstrations >= len(pairs):
                raise UsageError(
                    f"--number_of_demonstrations {self._settings.number_of_demonstrations} leaves nothing to choose from the "
                    f"{len(pairs)} pairs of {self._settings.demonstration_pool} from {source.name} to {target.name}; ask for fewer"
                )

    def _pool(self, source: Language, target: Language) -> tuple[list[tuple[str, str]], Retriever]:
        key = (source.flores, target.flores)
        if key not in self._pools:
            pairs = examples.parallel_sentences(self._settings.demonstration_pool, source, target)
            self._pools[key] = (pairs, retrieval.create("bm25s", [text for text, _ in pairs], source))
        return self._pools[key]

    def prompts(self, sentences: list[str], source: Language, target: Language) -> list[str | list[dict[str, str]]]:
        """What is asked for each sentence; the most similar demonstration stands next to it."""
        shots: list[list[tuple[str, str]]] = [[] for _ in sentences]
        if self._settings.number_of_demonstrations:
            pairs, retriever = self._pool(source, target)
            nearest = retriever.nearest(sentences, self._settings.number_of_demonstrations)
            shots = [[pairs[i] for i in reversed(row)] for row in nearest]
        if self._style == "chat":
            return [chat_prompt(source.name, target.name, *item) for item in zip(shots, sentences, strict=True)]
        template = get_template(self._settings.template_key, source.name, target.name)
        return [template.get_prompt(*item) for item in zip(shots, sentences, strict=True)]

    @property
    def retries(self):
        """What an API made us do again, by kind; nothing for a model of our own."""
        return getattr(self._sampler, "retries", None)

    def translate(
        self, sentences: list[str], source: Language, target: Language, tick: Callable[[int], None] = no_tick
    ) -> list[Translation]:
        distinct = list(dict.fromkeys(s for s in (" ".join(s.split()) for s in sentences) if unicode_words(s)))
        raw = get_template(self._settings.template_key, source.name, target.name) if self._style == "raw" else None
        prompts = dict(zip(distinct, self.prompts(distinct, source, target), strict=True))
        ids = {sentence: request_id(prompt) for sentence, prompt in prompts.items()}
        found = self._ask(prompts, ids, raw, raw.stops if raw else (), tick)
        if raw and "\n" in raw.stops:  # an answer that begins with a line break is asked for whole
            again = [
                sentence for sentence, translation in found.items() if not translation.text and not translation.error
            ]
            ids = {sentence: request_id([prompts[sentence], raw.stop]) for sentence in again}
            found |= self._ask(prompts, ids, raw, (raw.stop,), no_tick)
        return [found.get(" ".join(sentence.split()), Translation("")) for sentence in sentences]

    def _ask(
        self,
        prompts: dict[str, Prompt],
        ids: dict[str, str],
        raw: MTTemplate | None,
        stop: tuple[str, ...],
        tick: Callable[[int], None],
    ) -> dict[str, Translation]:
        """The translations of the sentences in `ids`, which tells requests apart."""
        settings = SamplingSettings(
            max_new_tokens=MAX_NEW_TOKENS, temperature=0.0, num_beams=self._settings.num_beams, stop=stop
        )
        requests = [Request(ids[sentence], prompts[sentence], self._model.seed) for sentence in ids]
        answers = {}
        for answer in self._sampler.generate(inference.from_list(requests), settings):
            answers[answer.id] = answer
            tick(1)
        found = {}
        for sentence, key in ids.items():
            text = ""
            if answers[key].texts:
                text = clean_answer(answers[key].texts[0], raw.stop if raw else None, raw is not None and raw.thinking)
            found[sentence] = Translation(text, error=answers[key].error)
        return found

    def close(self) -> None:
        """Free the model; the object is of no use afterwards."""
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None
