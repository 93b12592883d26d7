"""Ways to translate, each a plain function from sentences to translations over a Task (--method_translate).

    translate(sentences, task) -> iterator of (number of the sentence, translation), as they finish

A method asks for all sentences at once: batches are the sampler's business. What it asks of a model in words stands in a
file of comptra/prompts/methods/, for users to edit.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from comptra import answer_parsing
from comptra.llm_calls import LLMClient
from topxgen.common.registry import Choice, load_choice
from topxgen.inference import SamplingSettings
from topxgen.prompting.mt_templates import MTTemplate, chat_prompt, clean_answer
from topxgen.prompting.style import CHAT, Prompt
from topxgen.text.languages import Language

# One row a method: "module:function", imported when it is chosen.
METHODS: dict[str, Choice] = {
    "vanilla": Choice("comptra.methods.vanilla:translate", "few-shot, --k demonstrations"),
    "nllb": Choice("comptra.methods.nllb:translate", "the translation model of --nllb_name_or_path"),
    "cot": Choice("comptra.methods.cot:translate", "chain of thought: reason, then extract the translation"),
    "maps": Choice(
        "comptra.methods.maps:translate",
        "MAPS: translate with keywords, topics and a related example, keep the best by quality estimation",
    ),
    "step_by_step": Choice("comptra.methods.step_by_step:translate", "research, draft, refine, proofread"),
    "TEaR": Choice("comptra.methods.tear:translate", "translate, estimate the errors, refine"),
    "pos": Choice("comptra.methods.annotated:pos", "few-shot with parts of speech (spaCy)"),
    "morph": Choice("comptra.methods.annotated:morph", "few-shot with morphology (spaCy)"),
    "dep": Choice("comptra.methods.annotated:dep", "few-shot with dependency relations (spaCy)"),
    "ner": Choice("comptra.methods.annotated:ner", "few-shot with named entities (spaCy)"),
}

CHOICES = {**METHODS, "none": Choice("", "only divide, translate nothing")}
WITH_SHOTS = ("vanilla", "TEaR", "pos", "morph", "dep", "ner")  # these show k demonstrations
IN_WORDS = ("cot", "maps", "step_by_step", "TEaR")  # these give instructions

# A translation is None where a prompt got no answer, ordered.Incomplete where it should rest on one that did not come:
# the next run makes it again.
Method = Callable[[list[str], "Task"], Iterator[tuple[int, str | None]]]
Shots = list[tuple[str, str]]  # (source, target) demonstrations


def load(name: str) -> Method:
    return load_choice("--method_translate", name, METHODS)


def check(name: str, task: "Task") -> None:
    """Raise UsageError for what a method needs and lacks, before a model is loaded: its `check`, where it has one, says."""
    if name in METHODS and hasattr(method := load(name), "check"):
        method.check(task)


@dataclass(frozen=True)
class Task:
    """A direction, a model to ask, and what the user wants of translations into `tgt`."""

    src: Language
    tgt: Language
    asker: LLMClient
    template: MTTemplate  # the raw prompt; a model with a chat template is asked in words
    sampling: SamplingSettings  # of translations
    k: int = 0  # demonstrations
    # Sentences, k -> for each the pairs of the selection pool most like it, the most similar last.
    nearest: Callable[[list[str], int], list[Shots]] = lambda sentences, k: [[] for _ in sentences]
    # Sentences, candidates of each -> the best of each; None: the first.
    select: Callable[[list[str], list[list[str]]], list[str]] | None = None
    # Sentences, candidates of each -> the best by quality estimation, where a method needs that (maps).
    best_by_quality: Callable[[list[str], list[list[str]]], list[str]] | None = None
    nllb: object = None  # a translator (topxgen.translation), its model not loaded
    rest: Callable[[], None] = lambda: None  # gives the LLM's memory back until it is asked again
    spacy_model: str | None = None
    thinks: bool = False  # the model's chat template opens its thoughts

    def prompt(self, shots: Shots, sentence: str) -> Prompt:
        """The few-shot MT prompt for `sentence`."""
        if self.asker.style == CHAT:
            return chat_prompt(self.src.name, self.tgt.name, shots, sentence)
        return self.template.get_prompt(shots, sentence)

    @property
    def mt_sampling(self) -> SamplingSettings:
        """How to decode the answer to `prompt`: it ends where the raw template does."""
        return self.sampling if self.asker.style == CHAT else replace(self.sampling, stop=self.template.stops)

    def greedy(self, max_new_tokens: int, stop: tuple[str, ...] = ()) -> SamplingSettings:
        """How to decode what is no translation: one answer, the likeliest."""
        return replace(
            self.sampling,
            max_new_tokens=max_new_tokens,
            temperature=0.0,
            top_p=1.0,
            num_return_sequences=1,
            num_beams=1,
            stop=stop,
        )

    def clean(self, answer: str) -> str:
        """The translation in the answer to `prompt`."""
        if self.asker.style == CHAT:
            return answer_parsing.line(answer, self.thinks)
        return clean_answer(answer, self.template.stop, self.template.thinking)

    def shots(self, sentences: list[str]) -> list[Shots]:
        """The k demonstrations of each sentence, the most similar last."""
        return self.nearest(sentences, self.k) if self.k else [[] for _ in sentences]

    def translate(
        self,
        sentences: list[str],
        prompts: Sequence[Prompt],
        sampling: SamplingSettings | None = None,
        clean: Callable[[str], str] | None = None,
    ) -> Iterator[tuple[int, str | None]]:
        """The translations that `prompts` ask for, cleaned, and the best of several candidates chosen; None: no answer.

        Prompts that are not of `prompt` bring their own `sampling`, and `clean`, which finds the translation in an answer.
        """
        clean = clean or self.clean
        found = self._cleaned(prompts, sampling, clean)
        if self.select is None:
            for i, texts in found:
                yield i, texts[0] if texts else None
            return
        candidates: list[list[str]] = [[] for _ in prompts]
        for i, texts in found:
            candidates[i] = texts
        for i, best in enumerate(self.select(sentences, candidates)):
            yield i, best if candidates[i] else None

    def _cleaned(
        self, prompts: Sequence[Prompt], sampling: SamplingSettings | None, clean: Callable[[str], str]
    ) -> Iterator[tuple[int, list[str]]]:
        """The candidates of each prompt; of `prompt`'s, those that ended at once are asked for whole.

        An answer may end at its first line break, which saves what base models say after it, unless it begins with one.
        """
        again = []
        for i, texts in self.asker.ask(prompts, sampling or self.mt_sampling):
            texts = [clean(text) for text in texts]
            if sampling is None and "\n" in self.mt_sampling.stop and texts and not any(texts):
                again.append(i)
            else:
                yield i, texts
        if again:
            whole = replace(self.mt_sampling, stop=(self.template.stop,))
            for place, texts in self.asker.ask([prompts[i] for i in again], whole):
                yield again[place], [clean(text) for text in texts]


def in_order(found: Iterator[tuple[int, str | None]], count: int) -> list[str | None]:
    """The translations of a method in the order of its sentences."""
    texts: list[str | None] = [None] * count
    for i, text in found:
        texts[i] = text
    return texts


def unanswered(found: list[str | None]) -> set[int]:
    """The places without an answer: what is made of them is Incomplete."""
    return {i for i, text in enumerate(found) if text is None}
