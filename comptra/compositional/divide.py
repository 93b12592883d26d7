"""Ways to divide a sentence into short phrases for CompTra (--method_divide; Zebaze, Sagot and Bawden 2025).

    divide(sentences, task, settings) -> the phrases of each sentence, in the source language

Phrases come in the order of the sentence, each once; a sentence that cannot be divided is its own phrase. What a phrase is
depends on its sentence alone, not on the others.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log

from comptra import answer_parsing, prompts
from comptra.methods import Task
from topxgen.common.errors import UsageError
from topxgen.common.registry import Choice
from topxgen.prompting import toml_prompts
from topxgen.prompting.style import CHAT, Prompt
from topxgen.text import spacy_pipelines
from topxgen.text.languages import Language
from topxgen.text.words import unicode_words

DEFAULT_PIECES = 4  # of space and char when no number is given
MAX_PHRASE_RATIO = 3  # a phrase of more than so many times the sentence's length is no part of it
MAX_PHRASES = 32  # phrases of a model; more are a loop
KEYWORDS = 3  # words in a row at most
SUBTREE = 2, 8  # words of a phrase of structural, at least and at most
PHRASE_PUNCTUATION = ",;:.!?…،؛؟۔।"
QUOTES = "\"“”„«»'‘’()[]"


@dataclass(frozen=True)
class DividerSettings:
    """How to divide; a field that a divider has no use for is ignored by it."""

    number_of_subproblems: int = -1  # phrases at most; -1: as many as there are
    number_of_repetitions: int = 4  # identity
    mode_divide: str = "vanilla"  # llm: a file of comptra/prompts/divide/ or a path
    max_new_tokens: int = 1500  # llm
    spacy_model: str | None = None  # structural
    pool: tuple[str, ...] = ()  # keyword: sentences that tell rare words from common ones


Divider = Callable[[list[str], Task, DividerSettings], list[list[str] | None]]


def identity(sentences: list[str], task: Task, settings: DividerSettings) -> list[list[str]]:
    """The sentence itself, several times; equal copies get equal translations. What demonstrations of no new content give."""
    return [[sentence] * settings.number_of_repetitions for sentence in sentences]


def sentence(sentences: list[str], task: Task, settings: DividerSettings) -> list[list[str]]:
    """Sentences of a longer text."""
    from topxgen.text.sentence_splitting import Sentencex

    splitter = Sentencex(task.src)
    return [settled(text, splitter.split(text), settings) for text in sentences]


def space(sentences: list[str], task: Task, settings: DividerSettings) -> list[list[str]]:
    """Words in pieces of about equal length. Where a script has no spaces, see `char`."""
    return [settled(text, map(" ".join, _pieces(text.split(), settings)), settings) for text in sentences]


def char(sentences: list[str], task: Task, settings: DividerSettings) -> list[list[str]]:
    """Characters in pieces of about equal length; a letter keeps its marks."""
    import regex

    return [settled(text, map("".join, _pieces(regex.findall(r"\X", text), settings)), settings) for text in sentences]


def keyword(sentences: list[str], task: Task, settings: DividerSettings) -> list[list[str]]:
    """Runs of up to three words that say much, as RAKE (Rose et al. 2010) has them between stop words.

    Those are words that say more than half of the words of the sentence do: by their inverse document frequency
    in the pool, or where there is none by their length. Of more runs than are wanted those that say most.
    """
    frequency = Counter(word for text in settings.pool for word in set(unicode_words(text)))

    def weight(word: str) -> float:
        if not settings.pool:
            return float(sum(map(len, unicode_words(word))))
        return max((log((len(settings.pool) + 1) / (frequency[part] + 1)) for part in unicode_words(word)), default=0)

    found, most = [], settings.number_of_subproblems
    for text in sentences:
        words = text.split()
        weights = [weight(word) for word in words]
        middle = sorted(weights)[(len(weights) - 1) // 2] if weights else 0.0
        runs: list[list[int]] = [[]]
        for i, word in enumerate(words):
            if weights[i] > middle:
                if len(runs[-1]) == KEYWORDS:
                    runs.append([])
                runs[-1].append(i)
                ends = word[-1] in PHRASE_PUNCTUATION
            else:
                ends = True
            if ends and runs[-1]:
                runs.append([])
        runs = [run for run in runs if run]
        if most > 0:
            runs = sorted(sorted(runs, key=lambda run: -sum(weights[i] for i in run))[:most])
        phrases = (" ".join(words[i] for i in run).strip(" " + PHRASE_PUNCTUATION + QUOTES) for run in runs)
        found.append(settled(text, phrases, settings))
    return found


def structural(sentences: list[str], task: Task, settings: DividerSettings) -> list[list[str]]:
    """Clauses, noun phrases, and verbs with what follows or precedes them, of two to eight words: subtrees of the
    dependency tree. The longest of them when more are there than are wanted."""
    parser = _parser(task.src, settings)
    texts = [" ".join(text.split()) for text in sentences]
    docs = parser.pipe(texts, disable=["ner", "lemmatizer"])
    most = settings.number_of_subproblems
    return [
        settled(text, (doc[a:b].text for a, b in phrase_subtrees(doc, most)), settings)
        for text, doc in zip(sentences, docs, strict=True)
    ]


def phrase_subtrees(doc, most: int = -1) -> list[tuple[int, int]]:
    """Where the phrases of a parsed text begin and end, in order.

    None is the whole text, and none lies in another, so that nothing is said twice.
    """
    at_most = min(SUBTREE[1], sum(map(_is_word, doc)) - 1)
    found: dict[tuple[int, int], int] = {}
    for head in doc:
        left, right = head.left_edge.i, head.right_edge.i + 1
        spans = []
        if head.pos_ in ("NOUN", "PROPN"):
            spans = [(left, right)]
        elif head.pos_ in ("VERB", "AUX", ""):  # "": a parser without a tagger
            spans = [(left, right), (head.i, right)]
            if any(token.pos_ in ("NOUN", "PROPN", "PRON", "") for token in doc[left : head.i]):  # not "to go" alone
                spans.append((left, head.i + 1))
        for start, end in spans:
            while start < end and (not _is_word(doc[start]) or doc[start].dep_ == "cc"):
                start += 1
            while start < end and not _is_word(doc[end - 1]):
                end -= 1
            words = sum(map(_is_word, doc[start:end]))
            if SUBTREE[0] <= words <= at_most:
                found[start, end] = words
    kept: list[tuple[int, int]] = []
    for start, end in sorted(found, key=lambda span: (-found[span], span)):
        if not any(a <= start and end <= b for a, b in kept):
            kept.append((start, end))
    return sorted(kept[:most] if most > 0 else kept)


def _is_word(token) -> bool:
    return not (token.is_punct or token.is_space or token.pos_ == "PUNCT")


def llm(sentences: list[str], task: Task, settings: DividerSettings) -> list[list[str] | None]:
    """Phrases that the model writes, after examples; they need not keep to the words of the sentence. None: no answer.

    Those of the examples themselves, which weak models say again, are left out.
    """
    texts = _prompts(settings)
    sampling = task.greedy(settings.max_new_tokens, () if task.asker.style == CHAT else (texts["stop"],))
    found = task.asker.answers([_prompt(text, texts, task) for text in sentences], sampling)
    shown = {_bare(phrase): set(unicode_words(phrase)) for row in texts["examples"] for phrase in row["phrases"]}
    divided = []
    for text, said in zip(sentences, found, strict=True):
        if not said:
            divided.append(None)
            continue
        words = set(unicode_words(text))
        phrases = answer_parsing.list_items(said[0], task.thinks)[:MAX_PHRASES]
        own = [phrase for phrase in phrases if shown.get(_bare(phrase), words) <= words]
        divided.append(settled(text, own, settings))
    return divided


DIVIDERS: dict[str, Choice] = {
    "llm": Choice("comptra.compositional.divide:llm", "the LLM writes self-contained phrases"),
    "sentence": Choice("comptra.compositional.divide:sentence", "sentences of the text"),
    "structural": Choice("comptra.compositional.divide:structural", "subtrees of the dependency tree (spaCy)"),
    "keyword": Choice("comptra.compositional.divide:keyword", "rare words with their neighbours (RAKE)"),
    "space": Choice("comptra.compositional.divide:space", "runs of words of equal length"),
    "char": Choice("comptra.compositional.divide:char", "runs of characters of equal length"),
    "identity": Choice("comptra.compositional.divide:identity", "the sentence itself, --number_of_repetitions times"),
}


def check(name: str, language: Language, settings: DividerSettings) -> None:
    """Raise UsageError for a prompt file or parser that is missing, before any model is loaded."""
    if name == "llm":
        _prompts(settings)
    if name == "structural":
        _parser(language, settings)


def settled(text: str, phrases: Iterable[str], settings: DividerSettings) -> list[str]:
    """`phrases`, each on one line, without what is no phrase of `text`; itself when none is left.

    That is: no words, what came before (letter case and marks at its end ignored), the whole text again, and what is too
    long to be a part of it.
    """
    found: dict[str, str] = {}
    for phrase in phrases:
        phrase = " ".join(phrase.split())
        if unicode_words(phrase) and len(phrase) <= MAX_PHRASE_RATIO * len(text) and _bare(phrase) != _bare(text):
            found.setdefault(_bare(phrase), phrase)
    kept = list(found.values())
    if settings.number_of_subproblems > 0:
        kept = kept[: settings.number_of_subproblems]
    return kept or [text]


def _bare(text: str) -> str:
    return " ".join(text.casefold().split()).strip(PHRASE_PUNCTUATION + QUOTES)


def _pieces(units: Sequence[str], settings: DividerSettings) -> list[Sequence[str]]:
    count = min(len(units), settings.number_of_subproblems if settings.number_of_subproblems > 0 else DEFAULT_PIECES)
    bounds = [round(i * len(units) / count) for i in range(count + 1)] if count else [0]
    return [units[a:b] for a, b in pairwise(bounds)]


def _parser(language: Language, settings: DividerSettings):
    return spacy_pipelines.load(language, settings.spacy_model, "dependencies", "--method_divide structural")


def _prompts(settings: DividerSettings) -> dict:
    path = toml_prompts.find(prompts.FOLDER / "divide", settings.mode_divide, "--mode_divide")
    prompt, example = ("examples", "sentence"), ("sentence", "phrases")
    texts = toml_prompts.load(path, {"chat": prompt, "raw": prompt, "example": example, "stop": ()})
    for row in texts.setdefault("examples", []):
        sentence, phrases = (row.get("sentence"), row.get("phrases")) if isinstance(row, dict) else (None, None)
        listed = isinstance(phrases, list) and phrases and all(isinstance(phrase, str) for phrase in phrases)
        if not isinstance(sentence, str) or not listed:
            raise UsageError(f'{path}: an [[examples]] needs sentence = "..." and phrases = ["...", "..."]')
    return texts


def _prompt(text: str, texts: dict, task: Task) -> Prompt:
    examples = ""
    for i, row in enumerate(texts["examples"], 1):
        items = "\n".join(f"{j}. {phrase}" for j, phrase in enumerate(row["phrases"], 1))
        examples += toml_prompts.fill(texts["example"], number=str(i), sentence=row["sentence"], phrases=items)
    style = CHAT if task.asker.style == CHAT else "raw"
    filled = toml_prompts.fill(texts[style], src=task.src.name, tgt=task.tgt.name, examples=examples, sentence=text)
    return task.asker.chat(filled) if style == CHAT else filled
