"""Ways to divide a sentence into short phrases for CompTra (--method_divide; Zebaze, Sagot and Bawden 2025).

    divide(sentences, task, settings) -> the phrases of each sentence, in the source language

Phrases come in the order of the sentence, each once; a sentence that cannot be divided is its own phrase. The phrases of a
sentence depend on that sentence alone.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log
from pathlib import Path

from comptra import answer_parsing, prompts
from comptra.methods import Task
from topxgen.common.errors import UsageError
from topxgen.common.registry import Choice, load_choice
from topxgen.common.settings import Settings
from topxgen.prompting import toml_prompts
from topxgen.prompting.style import CHAT, RAW, Prompt
from topxgen.text import spacy_pipelines
from topxgen.text.languages import Language
from topxgen.text.words import UNSPACED_SCRIPTS, unicode_words

DEFAULT_SEGMENTS = 4  # of space and char without --number_of_subproblems
MAX_PHRASE_RATIO = 3  # length of a phrase by that of its sentence, in characters; what is longer is not a part of it
MAX_PHRASES = 32  # phrases in an answer of an LLM; more are a repetition loop
MAX_KEYWORD_WORDS = 3
MIN_SUBTREE_WORDS, MAX_SUBTREE_WORDS = 2, 8
PHRASE_PUNCTUATION = ",;:.!?…،؛؟۔।"
QUOTES = "\"“”„«»'‘’()[]"

# One row per divider: "module:function", imported when it is chosen.
DIVIDERS: dict[str, Choice] = {
    "llm": Choice("comptra.compositional.divide:llm", "the LLM writes self-contained phrases"),
    "sentence": Choice("comptra.compositional.divide:sentence", "sentences of the text"),
    "structural": Choice("comptra.compositional.divide:structural", "subtrees of the dependency tree (spaCy)"),
    "keyword": Choice("comptra.compositional.divide:keyword", "rare words with their neighbours (RAKE)"),
    "space": Choice("comptra.compositional.divide:space", "runs of words of equal length"),
    "char": Choice("comptra.compositional.divide:char", "runs of characters of equal length"),
    "identity": Choice("comptra.compositional.divide:identity", "the sentence itself, --number_of_repetitions times"),
}


@dataclass(frozen=True)
class DividerSettings(Settings):
    """How to divide; a divider ignores the fields that it has no use for."""

    number_of_subproblems: int = -1  # most phrases; -1: no limit
    number_of_repetitions: int = 4  # identity
    mode_divide: str = "vanilla"  # llm: a file of comptra/prompts/divide/ or a path
    max_new_tokens_divide: int = 1500  # llm
    spacy_model: str | None = None  # structural
    pool: tuple[str, ...] = ()  # keyword: sentences by which rare words are known


Divider = Callable[[list[str], Task, DividerSettings], list[list[str]]]


def load(name: str) -> Divider:
    return load_choice("--method_divide", name, DIVIDERS)


def check(name: str, language: Language, settings: DividerSettings) -> None:
    """Raise UsageError, before any model is loaded, if the divider, its prompt file, its parser or what it divides at is missing."""
    load(name)
    if name in ("space", "keyword") and language.script in UNSPACED_SCRIPTS:
        raise UsageError(
            f"--method_divide {name} divides at spaces, and {language.name} is written without: pass char or llm"
        )
    if name == "llm":
        _prompts(settings)
    if name == "structural":
        _parser(language, settings)


def identity(sentences: list[str], task: Task, settings: DividerSettings) -> list[list[str]]:
    """The sentence itself, several times: a baseline whose demonstrations add nothing new."""
    return [[sentence] * settings.number_of_repetitions for sentence in sentences]


def sentence(sentences: list[str], task: Task, settings: DividerSettings) -> list[list[str]]:
    """Sentences of a longer text."""
    from topxgen.text.sentence_splitting import Sentencex

    splitter = Sentencex(task.src)
    return [clean_phrases(text, splitter.split(text), settings) for text in sentences]


def space(sentences: list[str], task: Task, settings: DividerSettings) -> list[list[str]]:
    """Words in segments of about equal length. For scripts without spaces, see `char`."""
    return [clean_phrases(text, map(" ".join, _segments(text.split(), settings)), settings) for text in sentences]


def char(sentences: list[str], task: Task, settings: DividerSettings) -> list[list[str]]:
    """Characters in segments of about equal length; a letter keeps its combining marks."""
    import regex

    units = [_segments(regex.findall(r"\X", text), settings) for text in sentences]
    return [clean_phrases(text, map("".join, own), settings) for text, own in zip(sentences, units, strict=True)]


def keyword(sentences: list[str], task: Task, settings: DividerSettings) -> list[list[str]]:
    """Runs of up to three keywords, as RAKE (Rose et al. 2010) finds them between stop words.

    Keywords are the words that weigh more than half of the words of the sentence: by their inverse document frequency in
    the pool, or without a pool by their length. If there are more runs than wanted, the heaviest are kept.
    """
    frequency = Counter(word for text in settings.pool for word in set(unicode_words(text)))

    def weight(word: str) -> float:
        if not settings.pool:
            return float(sum(map(len, unicode_words(word))))
        return max((log((len(settings.pool) + 1) / (frequency[part] + 1)) for part in unicode_words(word)), default=0)

    limit, phrases = settings.number_of_subproblems, []
    for text in sentences:
        words = text.split()
        weights = [weight(word) for word in words]
        runs = _keyword_runs(words, weights)
        if limit > 0:
            runs = sorted(sorted(runs, key=lambda run: -sum(weights[i] for i in run))[:limit])
        texts = (" ".join(words[i] for i in run).strip(" " + PHRASE_PUNCTUATION + QUOTES) for run in runs)
        phrases.append(clean_phrases(text, texts, settings))
    return phrases


def _keyword_runs(words: list[str], weights: list[float]) -> list[list[int]]:
    """The numbers of the words of each run of keywords."""
    median = sorted(weights)[(len(weights) - 1) // 2] if weights else 0.0
    runs: list[list[int]] = [[]]
    for i, word in enumerate(words):
        ends_run = True
        if weights[i] > median:
            if len(runs[-1]) == MAX_KEYWORD_WORDS:
                runs.append([])
            runs[-1].append(i)
            ends_run = word[-1] in PHRASE_PUNCTUATION
        if ends_run and runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def structural(sentences: list[str], task: Task, settings: DividerSettings) -> list[list[str]]:
    """Clauses, noun phrases, and verbs with what follows or precedes them, of two to eight words: subtrees of the
    dependency tree. If there are more than wanted, the longest are kept."""
    parser = _parser(task.src, settings)
    docs = parser.pipe([" ".join(text.split()) for text in sentences], disable=["ner", "lemmatizer"])
    limit = settings.number_of_subproblems
    return [
        clean_phrases(text, (doc[a:b].text for a, b in phrase_subtrees(doc, limit)), settings)
        for text, doc in zip(sentences, docs, strict=True)
    ]


def phrase_subtrees(doc, limit: int = -1) -> list[tuple[int, int]]:
    """Where the phrases of a parsed text begin and end, in order; at most `limit` of them if it is above 0.

    None is the whole text, and none lies in another, so that no part is translated twice.
    """
    max_words = min(MAX_SUBTREE_WORDS, sum(map(_is_word, doc)) - 1)
    sizes: dict[tuple[int, int], int] = {}  # words of each phrase
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
            if MIN_SUBTREE_WORDS <= words <= max_words:
                sizes[start, end] = words
    kept: list[tuple[int, int]] = []
    for start, end in sorted(sizes, key=lambda span: (-sizes[span], span)):
        if not any(a <= start and end <= b for a, b in kept):
            kept.append((start, end))
    return sorted(kept[:limit] if limit > 0 else kept)


def _is_word(token) -> bool:
    return not (token.is_punct or token.is_space or token.pos_ == "PUNCT")


def _parser(language: Language, settings: DividerSettings):
    return spacy_pipelines.load(language, settings.spacy_model, "dependencies", "--method_divide structural")


def llm(sentences: list[str], task: Task, settings: DividerSettings) -> list[list[str]]:
    """Phrases that the LLM writes after examples; they need not be literal parts of the sentence.

    Phrases copied from the examples, as weak models write them, are dropped, and the last one of an answer that was cut.
    """
    texts = _prompts(settings)
    style = CHAT if task.client.style == CHAT else RAW
    sampling = task.greedy(settings.max_new_tokens_divide, () if style == CHAT else (texts["stop"],))
    prompts = [_prompt(text, texts, task, style) for text in sentences]
    shown = {_bare(phrase): set(unicode_words(phrase)) for row in texts["examples"] for phrase in row["phrases"]}
    divided = []
    for text, answers in zip(sentences, task.client.generate_all(sentences, prompts, sampling), strict=True):
        words = set(unicode_words(text))
        phrases = answer_parsing.list_items(answer := "".join(answers))
        if task.client.was_cut(answer) and not answer.endswith("\n"):
            del phrases[-1:]
        own = [phrase for phrase in phrases[:MAX_PHRASES] if shown.get(_bare(phrase), words) <= words]
        divided.append(clean_phrases(text, own, settings))
    return divided


def _prompts(settings: DividerSettings) -> dict:
    path = prompt_file(settings.mode_divide)
    prompt, example = ("examples", "sentence"), ("sentence", "phrases")
    texts = toml_prompts.load(path, {"chat": prompt, "raw": prompt, "example": example, "stop": ()})
    known = dict.fromkeys(("chat", "raw"), (*prompt, "src", "tgt")) | {"example": (*example, "number")}
    toml_prompts.refuse_unknown(path, texts, known, ("stop", "examples"))
    for row in texts.setdefault("examples", []):
        sentence, phrases = (row.get("sentence"), row.get("phrases")) if isinstance(row, dict) else (None, None)
        are_texts = isinstance(phrases, list) and phrases and all(isinstance(phrase, str) for phrase in phrases)
        if not isinstance(sentence, str) or not are_texts:
            raise UsageError(f'{path}: an [[examples]] needs sentence = "..." and phrases = ["...", "..."]')
    return texts


def prompt_file(mode_divide: str) -> Path:
    """The path of a prompt file. Raises UsageError if it does not exist."""
    return toml_prompts.find(prompts.FOLDER / "divide", mode_divide, "--mode_divide")


def _prompt(text: str, texts: dict, task: Task, style: str) -> Prompt:
    examples = ""
    for i, row in enumerate(texts["examples"], 1):
        items = "\n".join(f"{j}. {phrase}" for j, phrase in enumerate(row["phrases"], 1))
        examples += toml_prompts.fill(texts["example"], number=str(i), sentence=row["sentence"], phrases=items)
    filled = toml_prompts.fill(texts[style], src=task.src.name, tgt=task.tgt.name, examples=examples, sentence=text)
    return task.client.chat(filled) if style == CHAT else filled


def clean_phrases(text: str, phrases: Iterable[str], settings: DividerSettings) -> list[str]:
    """`phrases`, each on one line, without those that are not phrases of `text`; [text] if none is left.

    Dropped are those without words, those that came before (letter case and marks at the end ignored), the whole text, and
    those too long to be a part of it.
    """
    kept: dict[str, str] = {}
    for phrase in phrases:
        phrase = " ".join(phrase.split())
        if unicode_words(phrase) and len(phrase) <= MAX_PHRASE_RATIO * len(text) and _bare(phrase) != _bare(text):
            kept.setdefault(_bare(phrase), phrase)
    limit = settings.number_of_subproblems
    return list(kept.values())[: limit if limit > 0 else None] or [text]


def _bare(text: str) -> str:
    return " ".join(text.casefold().split()).strip(PHRASE_PUNCTUATION + QUOTES)


def _segments(units: Sequence[str], settings: DividerSettings) -> list[Sequence[str]]:
    limit = settings.number_of_subproblems if settings.number_of_subproblems > 0 else DEFAULT_SEGMENTS
    count = min(len(units), limit)
    bounds = [round(i * len(units) / count) for i in range(count + 1)] if count else [0]
    return [units[a:b] for a, b in pairwise(bounds)]
