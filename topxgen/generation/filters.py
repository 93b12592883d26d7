"""Filters of generated texts, as rows: a new one is a function and a row, or a file of your own (`--filters`).

A filter is a function (text, language) -> a true value if the text is to be rejected. The reason code in
{Language}_rejects.jsonl and in the funnel is the row's name (your own filter: the function's); a string that a filter
returns follows it as a detail. Filters run in the order of `--filters`; the first that rejects a text decides.

The limits are those of the TopXGen pipeline: 75 = 25 for each of the at most 3 paragraphs of a text.
"""

import unicodedata
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from itertools import pairwise
from math import isqrt

from topxgen.common.registry import Choice, load_choice
from topxgen.text.languages import Language
from topxgen.text.words import UNSPACED_SCRIPTS, length, unicode_words

Filter = Callable[[str, Language], bool | str | None]

MIN_WORDS = 3
MIN_CHARS = 11
MAX_WORD_BIGRAM_COUNT = MAX_CHARACTER_BIGRAM_COUNT = 75  # this many and more are rejected
MAX_WORD_PAIR_COUNT = 150  # = 2 x 75; this many and more are rejected
MIN_LONG_WORD_CHARS = 5

FILTERS: dict[str, Choice] = {
    "binary": Choice("topxgen.generation.filters:binary", "non-text characters: control, private use, U+FFFD"),
    "too_few_words": Choice("topxgen.generation.filters:too_few_words", "fewer than 3 words"),
    "repeated_word_bigram": Choice(
        "topxgen.generation.filters:repeated_word_bigram", "two words follow each other 75 times or more"
    ),
    "repeated_character_bigram": Choice(
        "topxgen.generation.filters:repeated_character_bigram", "the same within the longest word for two characters"
    ),
    "repeated_word_pair": Choice(
        "topxgen.generation.filters:repeated_word_pair",
        "a word of 5 or more characters comes before another (or itself) 150 times or more, at any distance",
    ),
    "too_short": Choice("topxgen.generation.filters:too_short", "10 characters or fewer"),
}
TOPXGEN_FILTERS = tuple(name for name in FILTERS if name != "too_short")
PASSAGE_FILTERS = ("binary", "too_short")  # of passages of few sentences


def load_filters(names: Iterable[str]) -> dict[str, Filter]:
    """The filters by reason code, in order. Raises UsageError for a name that is neither a row nor the user's own."""
    return {name.rpartition(":")[2]: load_choice("--filters", name, FILTERS) for name in names}


def reject_reason(text: str, language: Language, filters: Mapping[str, Filter]) -> str | None:
    """The reason code of the first filter that rejects `text`, with the detail that it gives; None to keep the text."""
    for name, rejects in filters.items():
        if verdict := rejects(text, language):
            return f"{name} ({verdict})" if isinstance(verdict, str) else name
    return None


def _words(text: str, language: Language) -> list[str]:
    """Whitespace-separated words, or the characters of a script without spaces."""
    return _split(text, language.script in UNSPACED_SCRIPTS)


@lru_cache(maxsize=1)  # filters look at the same text one after another
def _split(text: str, is_unspaced: bool) -> list[str]:
    return unicode_words(text) if is_unspaced else text.split()


def _repeats(words: list[str], count: int) -> bool:
    """Whether one of the words is there `count` times or more."""
    # Counting takes three times as long as the first condition, which few texts meet.
    return len(words) - len(set(words)) + 1 >= count and _highest_count(words) >= count


def _highest_count(items: Iterable) -> int:
    return max(Counter(items).values(), default=0)


def binary(text: str, language: Language) -> bool:
    if text.isprintable() and "\ufffd" not in text:
        return False
    return any(map(_is_binary, set(text)))


@cache
def _is_binary(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Co", "Cn", "Cs") or char == "\ufffd"


def too_few_words(text: str, language: Language) -> bool:
    return len(_words(text, language)) < MIN_WORDS


def too_short(text: str, language: Language) -> bool:
    return length(text) < MIN_CHARS


def repeated_word_bigram(text: str, language: Language) -> bool:
    words = _words(text, language)
    return _repeats(words, MAX_WORD_BIGRAM_COUNT) and _highest_count(pairwise(words)) >= MAX_WORD_BIGRAM_COUNT


def repeated_character_bigram(text: str, language: Language) -> bool:
    words = _words(text, language)
    if max(map(len, words), default=0) <= MAX_CHARACTER_BIGRAM_COUNT:
        return False
    longest = max(words, key=len)
    return _highest_count(pairwise(longest)) >= MAX_CHARACTER_BIGRAM_COUNT


def repeated_word_pair(text: str, language: Language) -> bool:
    """Whether an ordered pair of long words, a before b, occurs MAX_WORD_PAIR_COUNT times or more.

    A pair can reach the limit only if count(a) * count(b) does, which leaves few pairs to count.
    """
    words = [word for word in _words(text, language) if len(word) >= MIN_LONG_WORD_CHARS]
    if not _repeats(words, isqrt(MAX_WORD_PAIR_COUNT - 1) + 1):
        return False
    positions = defaultdict(list)
    for position, word in enumerate(words):
        positions[word].append(position)
    by_count = sorted(positions.values(), key=len, reverse=True)
    for first in by_count:
        if len(first) * len(by_count[0]) < MAX_WORD_PAIR_COUNT:
            return False
        for second in by_count:
            if len(first) * len(second) < MAX_WORD_PAIR_COUNT:
                break
            if sum(len(second) - bisect_right(second, position) for position in first) >= MAX_WORD_PAIR_COUNT:
                return True
    return False
