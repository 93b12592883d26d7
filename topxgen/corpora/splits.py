"""A split of a benchmark in one language, and whether a file is the one that was published."""

import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from topxgen.common import provenance
from topxgen.common.blocks import in_blocks
from topxgen.common.console import ONCE
from topxgen.common.errors import UsageError
from topxgen.text.languages import Language
from topxgen.text.words import is_blank

logger = logging.getLogger(__name__)

# The texts of each split as published; "test (fra-CA)" is a test.
SIZES = {
    "flores": {"dev": 997, "devtest": 1012},
    "ntrex": {"test": 1000, "pool": 997},
    "tico": {"dev": 971, "test": 2100},
    "xquad": {"validation": 240},
}
MIN_FILLED = 0.95  # of a published split's texts; no file at hand has an empty one
MIN_DISTINCT = 0.8  # likewise; in the files at hand 0.999 of the texts are
MAX_ENGLISH = 0.5  # of a split in another language, texts equal to the English ones; in the files at hand 0.001
# Of 50 texts in a row with numbers where the English ones have some, too, those with one in common; in the files at hand 0.9 or more, and
# 0.36 or less where lines are shifted by one.
MIN_SAME_NUMBERS, WITH_NUMBERS = 0.5, 50


@dataclass(frozen=True)
class Split:
    """The unchanged texts of one split in one language; empty ones too, so that parallel sides keep their line numbers.

    `ids` are line numbers in the publishers' file, from 1; for TICO-19 its stringID, for XQuAD and udhr the article and
    the number of the paragraph in it (the Hub's XQuAD has no articles: the number alone).
    """

    benchmark: str  # "flores", or a user's own as named on the command line
    name: str  # dev, devtest, test, pool, validation, "test (fra-CA)"; for a user's own the file and column
    language: str  # English name
    ids: list[str]
    texts: list[str]
    source: str  # the file, or "hub: repository, config, split"

    @property
    def published_size(self) -> int | None:
        return SIZES.get(self.benchmark, {}).get(self.name.partition(" (")[0])

    @property
    def is_partial(self) -> bool:
        return self.published_size not in (None, self.size)

    @property
    def size(self) -> int:
        """The number of texts, without the empty and the repeated ones where they are many: a copy with gaps is a partial one."""
        filled = [text for text in self.texts if not is_blank(text)]
        if len(set(filled)) < MIN_DISTINCT * len(filled):
            return len(set(filled))
        return len(filled) if len(filled) < MIN_FILLED * len(self.texts) else len(self.texts)

    @property
    def count(self) -> str:
        """The number of texts, for people."""
        of = f" of {self.published_size:,} (PARTIAL)" if self.is_partial else ""
        return f"{self.size:,}{of}"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the texts joined by line feeds."""
        return provenance.texts_sha256(self.texts)


def check_published(split: Split, language: Language, english: Sequence[Split], allow_partial: bool) -> None:
    """Raise UsageError if a split is not the published one; `english`: the splits of its benchmark in English. Warn of another language."""
    check_size(split, allow_partial)
    warn_of_language(split, language)
    if english:
        check_not_english(split, [text for other in english for text in other.texts])
    for other in english:
        if other.name == split.name.partition(" (")[0]:
            check_order(split, other.texts)


def check_size(split: Split, allow_partial: bool) -> None:
    """Raise UsageError if a split of a published benchmark has another number of texts than published, or rows of a table as texts."""
    rows = sum("\t" in text or text[:1] + text[-1:] in ('""', "<>") for text in split.texts)
    if split.published_size and rows > len(split.texts) / 2:
        raise UsageError(
            f"{split.source} is not the published file: {rows:,} of its texts are in quotation marks or tags, or hold a tab, as rows of a table"
        )
    if split.is_partial and not allow_partial:
        raise UsageError(
            f"{split.source} is not the published file: {split.benchmark} {split.name} has {split.size:,} texts instead of "
            f"{split.published_size:,} (--allow_partial_benchmark takes it as it is)"
        )


def warn_of_language(split: Split, language: Language) -> None:
    """Warn of a split that is, as a whole, not in its language."""
    from topxgen.text.language_id import doubts

    if problem := doubts(split.texts, language):
        logger.warning(f"{', '.join(filter(None, (split.source, split.name)))}: {problem}", extra=ONCE)


def check_not_english(split: Split, english: Iterable[str]) -> None:
    """Raise UsageError if a split in another language has the texts of `english`, in whatever spelling or order."""
    from topxgen.text.leak_guard import text_key  # numpy; --help needs none

    texts = set(map(text_key, split.texts))
    equal = len(texts.intersection(map(text_key, english)))
    if equal > MAX_ENGLISH * len(texts):
        raise UsageError(
            f"{split.source} is not the published file: {equal:,} of {len(texts):,} texts of {split.benchmark} {split.name} are the "
            f"English ones, not {split.language}"
        )


def check_order(split: Split, english: Sequence[str]) -> None:
    """Raise UsageError if the texts of a split are not translations of the English ones in the same places, by their numbers."""
    if len(split.texts) != len(english):
        return
    pairs = [(_numbers(text), _numbers(other)) for text, other in zip(split.texts, english, strict=True)]
    pairs = [pair for pair in pairs if all(pair)]
    for row in in_blocks(pairs, WITH_NUMBERS):
        same = sum(not own.isdisjoint(others) for own, others in row)
        if len(row) > WITH_NUMBERS / 2 and same < MIN_SAME_NUMBERS * len(row):
            raise UsageError(
                f"{split.source} is not the published file: only {same} of {len(row)} texts in a row of {split.benchmark} {split.name} with "
                "numbers have one of the English text in the same place; its lines are shifted or in another order"
            )


def _numbers(text: str) -> set[str]:
    """Runs of digits, in whichever script, as ASCII."""
    return {"".join(str(unicodedata.decimal(digit)) for digit in run) for run in re.findall(r"\d+", text)}


def refuse_copies(splits: Iterable[Split]) -> None:
    """Raise UsageError if files in two languages hold the same texts."""
    seen: dict[str, Split] = {}
    for split in splits:
        if not split.size:  # its lines are beyond the end of a partial copy
            continue
        other = seen.setdefault(split.fingerprint, split)
        if other.language != split.language and other.source != split.source:
            raise UsageError(
                f"{other.source} ({other.language}) and {split.source} ({split.language}) hold the same texts: one of them is not "
                "in its language"
            )
