"""Filters on a generated paragraph: each rule keeps it (None) or says why not (SPEC section 3).

The limits are the original system's: 75 = 25 for each of the at most 3 paragraphs of a text.
"""

import unicodedata
from bisect import bisect_right
from collections import Counter, defaultdict
from itertools import pairwise

from topxgen.text.words import unicode_words

MIN_WORDS = 3
MAX_BIGRAM = 75
MAX_COOCCURRENCE = 150
LONG_WORD = 5
UNSPACED_SCRIPTS = {"Thai", "Laoo", "Khmr", "Mymr", "Tibt", "Jpan", "Hans", "Hant"}


def words(text: str, script: str = "Latn") -> list[str]:
    """Whitespace-separated words, or the characters of a script that has no spaces."""
    return unicode_words(text) if script in UNSPACED_SCRIPTS else text.split()


def reject_reason(text: str, script: str = "Latn") -> str | None:
    """The first rule that `text` breaks, or None when it may be kept."""
    if not text.strip():
        return "empty"
    if any(unicodedata.category(char) in ("Cc", "Co", "Cn", "Cs") or char == "\ufffd" for char in set(text)):
        return "binary"
    tokens = words(text, script)
    if len(tokens) < MIN_WORDS:
        return "too_few_words"
    if _highest(pairwise(tokens)) >= MAX_BIGRAM:
        return "repeated_word_bigram"
    if _highest(pairwise(max(tokens, key=len))) >= MAX_BIGRAM:
        return "repeated_character_bigram"
    if _cooccurs(tokens):
        return "repeated_word_pair"
    return None


def _highest(items) -> int:
    return max(Counter(items).values(), default=0)


def _cooccurs(tokens: list[str]) -> bool:
    """Whether some ordered pair of long words (a before b) occurs MAX_COOCCURRENCE times or more.

    A pair can reach the limit only if count(a) * count(b) does, which leaves few pairs to count.
    """
    positions = defaultdict(list)
    for position, word in enumerate(tokens):
        if len(word) >= LONG_WORD:
            positions[word].append(position)
    by_count = sorted(positions.values(), key=len, reverse=True)
    for first in by_count:
        if len(first) * len(by_count[0]) < MAX_COOCCURRENCE:
            return False
        for second in by_count:
            if len(first) * len(second) < MAX_COOCCURRENCE:
                break
            if sum(len(second) - bisect_right(second, position) for position in first) >= MAX_COOCCURRENCE:
                return True
    return False
