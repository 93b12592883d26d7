"""Translation methods (--method_translate), each a plain function over a Task.

    translate(sentences, task) -> iterator of (number of the sentence, translation), as they finish

A method sends its prompts for all sentences at once; the sampler makes the batches. It names with each prompt the sentence
that the prompt is for, and continues with an empty text if there is no answer: the client keeps track of the sentences that
are to be translated again. Instructions are in comptra/prompts/methods/, for users to edit.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from comptra.llm_calls import LLMClient
from topxgen.common.registry import Choice, load_choice
from topxgen.inference import SamplingSettings
from topxgen.prompting.answers import chat_answer
from topxgen.prompting.mt_templates import MTTemplate, chat_prompt
from topxgen.prompting.one_line import Candidates, one_line_answers
from topxgen.prompting.style import CHAT, Prompt
from topxgen.text.languages import Language

# One row per method: "module:function", imported when it is chosen.
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
DIVIDE_ONLY = "none"
CHOICES = {**METHODS, DIVIDE_ONLY: Choice("", "only divide, translate nothing")}
WITH_INSTRUCTIONS = ("cot", "maps", "step_by_step", "TEaR")
WITHOUT_DEMONSTRATIONS = ("nllb", "cot", "maps", "step_by_step", DIVIDE_ONLY)

Method = Callable[[list[str], "Task"], Iterator[tuple[int, str]]]
Shots = list[tuple[str, str]]  # (source, target) demonstrations


def load(name: str) -> Method | None:
    """The method of that name; None for the one that only divides."""
    return None if name == DIVIDE_ONLY else load_choice("--method_translate", name, METHODS)


def check(name: str, task: "Task") -> None:
    """Raise UsageError, before a model is loaded, for what a method needs and lacks: its `check` attribute, if any, tests it."""
    getattr(load(name), "check", lambda task: None)(task)


@dataclass(frozen=True)
class Task:
    """A direction, a model to prompt, and the user's choices for translations into `tgt`."""

    src: Language
    tgt: Language
    client: LLMClient
    template: MTTemplate  # for raw prompts
    sampling: SamplingSettings  # of translations
    k: int = 0  # demonstrations
    # Sentences, k -> for each sentence the k most similar pairs of the selection pool, the most similar last.
    nearest: Callable[[list[str], int], list[Shots]] = lambda sentences, k: [[] for _ in sentences]
    # Sentences, candidates of each -> the best of each; None: the first.
    select: Callable[[list[str], list[list[str]]], list[str]] | None = None
    # Sentences, candidates of each -> the best by quality estimation, for methods that need it (maps).
    best_by_quality: Callable[[list[str], list[list[str]]], list[str]] | None = None
    nllb: object = None  # a translator (topxgen.translation), its model not loaded
    frees_nllb: bool = True  # whether the method frees it after use, for the LLM
    release_llm: Callable[[], None] = lambda: None  # frees the LLM's memory until the next prompt
    spacy_model: str | None = None
    max_new_tokens_merge: int = 0  # of merges and refinements, if above that of `sampling`

    def prompt(self, shots: Shots, sentence: str) -> Prompt:
        """The few-shot MT prompt for `sentence`."""
        if self.client.style == CHAT:
            return chat_prompt(self.src.name, self.tgt.name, shots, sentence)
        return self.template.get_prompt(shots, sentence)

    @property
    def with_room_for_merges(self) -> "Task":
        """The same task for merges and refinements, whose answers may be longer."""
        tokens = max(self.sampling.max_new_tokens, self.max_new_tokens_merge)
        return replace(self, sampling=replace(self.sampling, max_new_tokens=tokens))

    def greedy(self, max_new_tokens: int, stop: tuple[str, ...] = ()) -> SamplingSettings:
        """Greedy decoding settings for intermediate (non-translation) outputs."""
        plain = {"temperature": 0.0, "top_p": 1.0, "num_return_sequences": 1, "num_beams": 1}
        return replace(self.sampling, max_new_tokens=max_new_tokens, stop=stop, **plain)

    def clean(self, answer: str, sentence: str) -> str:
        """The translation of `sentence` in the answer to a few-shot prompt."""
        if self.client.style == CHAT:
            text = chat_answer(answer, sentence, self.tgt.name)
        else:
            text = self.template.translation(answer, self.client.was_cut(answer))
        return self.client.read(sentence, answer, text)

    def shots(self, sentences: list[str]) -> list[Shots]:
        """The k demonstrations of each sentence, the most similar last."""
        return self.nearest(sentences, self.k) if self.k else [[] for _ in sentences]

    def translate(self, sentences: list[str], prompts: Sequence[Prompt]) -> Iterator[tuple[int, str]]:
        """Yield (number of the sentence, translation) for few-shot prompts (see `prompt`), the best of several candidates."""
        return self.best(sentences, self.candidates(sentences, prompts))

    def candidates(self, sentences: list[str], prompts: Sequence[Prompt]) -> Iterator[Candidates]:
        """Yield (number of the sentence, its translations) for few-shot prompts; an answer to a raw one ends where its template does."""

        def ask(numbers: Sequence[int], stop: tuple[str, ...]) -> Iterator[Candidates]:
            sampling = replace(self.sampling, stop=stop)
            chosen = [sentences[i] for i in numbers]
            for place, texts in self.client.generate(chosen, [prompts[i] for i in numbers], sampling):
                yield numbers[place], [self.clean(text, chosen[place]) for text in texts]

        numbers = range(len(prompts))
        return ask(numbers, ()) if self.client.style == CHAT else one_line_answers(self.template, len(numbers), ask)

    def best(self, sentences: list[str], answers: Iterable[Candidates]) -> Iterator[tuple[int, str]]:
        """Yield (number of the sentence, its best candidate by `select`), "" where there is no candidate."""
        if self.select is None:
            yield from ((i, self.client.chosen(sentences[i], texts[0] if texts else "")) for i, texts in answers)
            return
        candidates: list[list[str]] = [[] for _ in sentences]
        for i, texts in answers:
            candidates[i] = texts
        yield from enumerate(map(self.client.chosen, sentences, self.select(sentences, candidates)))


def in_order(results: Iterable[tuple[int, str]], count: int) -> list[str]:
    """The translations of a method in the order of its `count` sentences."""
    texts = [""] * count
    for i, text in results:
        texts[i] = text
    return texts
