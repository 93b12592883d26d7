"""Count obviously faulty translations of every system: a mean score hides a few hundred of them.

False alarms on published translations: docs/results.md, measured by scripts/perf/output_faults.py.
"""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from functools import lru_cache

import regex

from comptra.scores.metrics import Test
from comptra.scores.surface import identifier_of
from topxgen.common.console import ONCE
from topxgen.common.errors import UsageError
from topxgen.text.languages import Language
from topxgen.text.sentence_splitting import UNMARKED_SCRIPTS
from topxgen.text.words import UNSPACED_SCRIPTS, is_blank, length, unicode_words

logger = logging.getLogger(__name__)
FAULTS = ("empty", "copied", "truncated", "wrong_language", "repeated", "over_long")
# Of the letters and digits of source and translation: 1 - insertions and deletions / both lengths.
COPY_SIMILARITY = 0.9
MIN_LETTERS = 20  # of a text whose language is identified
MAX_PERIOD, MIN_REPETITIONS = 20, 4  # a run of up to so many words that follows itself: so many times in all
OVER_LONG, OVER_LONG_CHARS = 2.0, 40  # times the length of the reference, and so many characters more
_ENDS = frozenset(".!?…:;。！？।|")
_AFTER_END = "\"'”’»›)]}」』】）*_ \u200e\u200f"
# A group of letters, with their marks, inside a word, ten times in a row.
_IN_WORD = regex.compile(r"([\p{L}\p{M}]{1,4})\1{9}")


def find(test: Test, translations: Sequence[str], cut: Collection[int], lid_model: str) -> dict[str, list[bool] | None]:
    """Which translations have each of FAULTS; None where that cannot be determined (`lid_model` does not know the language).

    `cut`: the indices of translations that are marked as cut at the limit of new tokens. What the reference does, too, is no
    fault: being equal to the source, having no mark at its end, being taken for another language.
    """
    references = test.references
    by_source = references is None
    expected = test.sources if by_source else references
    expected_in = test.src if by_source else test.tgt
    found: dict[str, list[bool] | None] = {
        "empty": list(map(is_blank, translations)),
        "copied": list(map(is_copy, test.sources, translations)),
        "truncated": [
            i in cut or lacks_end(model, text, expected_in, test.tgt)
            for i, (model, text) in enumerate(zip(expected, translations, strict=True))
        ],
        "wrong_language": wrong_language(tuple(translations), test.tgt, lid_model),
        "repeated": [is_repeated(text, test.tgt) for text in translations],
        "over_long": list(map(is_over_long, expected, translations)),
    }
    if references is not None:
        alike = {"copied": list(map(is_copy, test.sources, references))}
        alike["wrong_language"] = wrong_language(tuple(references), test.tgt, lid_model)
        for fault, same in alike.items():
            if found[fault] is not None:
                found[fault] = [ours and not theirs for ours, theirs in zip(found[fault], same, strict=True)]
    return found


def count(test: Test, translations: Sequence[str], cut: Collection[int], lid_model: str) -> dict[str, int | None]:
    """How many translations have each of FAULTS; see `find`."""
    found = find(test, translations, cut, lid_model)
    return {fault: None if flags is None else sum(flags) for fault, flags in found.items()}


def is_copy(source: str, translation: str) -> bool:
    """Whether the letters (with their marks) and digits of both are nearly the same, letter case ignored."""
    from rapidfuzz.distance import Indel

    ours, theirs = _letters(translation), _letters(source)
    return bool(ours) and Indel.normalized_similarity(ours, theirs, score_cutoff=COPY_SIMILARITY) > 0


@lru_cache(1 << 16)
def _letters(text: str) -> str:
    return "".join(unicode_words(text))


def lacks_end(model: str, translation: str, model_language: Language, language: Language) -> bool:
    """Whether the source or reference `model` ends with a mark, as sentences do, and the translation does not."""
    if language.script in UNMARKED_SCRIPTS and model_language != language:
        return False
    return not is_blank(translation) and _ends(model, model_language) and not _ends(translation, language)


def _ends(text: str, language: Language) -> bool:
    return text.rstrip().rstrip(_AFTER_END)[-1:] in _ENDS.union(language.terminators)


@lru_cache(2)  # the references are the same for all systems
def wrong_language(texts: tuple[str, ...], language: Language, lid_model: str) -> list[bool] | None:
    """Whether texts of MIN_LETTERS or more are identified as another language; None if `lid_model` cannot tell."""
    try:
        identifier = identifier_of(lid_model)
    except UsageError as error:
        logger.info(f"no counts of translations in the wrong language: {error}", extra=ONCE)
        return None
    if not identifier.knows(language):
        return None
    return [
        not is_right and sum(map(str.isalpha, text)) >= MIN_LETTERS
        for text, is_right in zip(texts, identifier.is_language(list(texts), language), strict=True)
    ]


def is_repeated(text: str, language: Language) -> bool:
    """Whether a run of 1 to MAX_PERIOD words (characters, in scripts without spaces) occurs MIN_REPETITIONS times in a row, or a
    group of letters ten times inside a word."""
    if _IN_WORD.search(text):
        return True
    words = unicode_words(text) if language.script in UNSPACED_SCRIPTS else text.split()
    words = [letters for word in words if (letters := _letters(word))]
    if max(Counter(words).values(), default=0) < MIN_REPETITIONS:
        return False
    for period in range(1, MAX_PERIOD + 1):
        run = 0
        for first, second in zip(words, words[period:], strict=False):
            run = run + 1 if first == second else 0
            if run >= period * (MIN_REPETITIONS - 1):
                return True
    return False


def is_over_long(model: str, translation: str) -> bool:
    """Whether the translation is OVER_LONG times as long as the reference, or without one the source."""
    expected = length(model.strip())
    return length(translation.strip()) > max(OVER_LONG * expected, expected + OVER_LONG_CHARS)
