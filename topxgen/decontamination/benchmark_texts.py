"""The benchmark texts to check one language's data against."""

import argparse
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial

from topxgen.common.errors import UsageError
from topxgen.corpora import benchmarks
from topxgen.corpora.splits import Split, refuse_copies
from topxgen.text import languages
from topxgen.text.languages import Language
from topxgen.text.ngram_hashes import tokens_per_ngram
from topxgen.text.ngram_index import BenchmarkText, ContaminationIndex
from topxgen.text.sentence_splitting import Sentencex
from topxgen.text.words import is_blank

logger = logging.getLogger(__name__)


@dataclass
class BenchmarkTexts:
    """The splits of the benchmarks in `language`; which benchmarks do not cover it, and which could not be loaded.

    `args` has the flags that decide what overlaps.
    """

    language: Language
    args: argparse.Namespace
    splits: list[Split] = field(default_factory=list)
    language_not_covered: list[str] = field(default_factory=list)
    not_loaded: list[str] = field(default_factory=list)
    demonstration_pool: list[Split] = field(default_factory=list)

    @property
    def tokens_per_ngram(self) -> int:
        return tokens_per_ngram(self.args.ngram_size, self.language.script, self.args.tokenizer)

    @cached_property
    def index(self) -> ContaminationIndex:
        """The index that generated text is checked with."""
        return ContaminationIndex(
            self.entries(self.splits),
            self.tokens_per_ngram,
            self.args.tokenizer,
            self.args.near_duplicate_threshold,
            self.args.short_text_rule,
            Sentencex(self.language).split,
        )

    @property
    def index_with_pool(self) -> ContaminationIndex:
        """The index to compare the benchmarks and the demonstration pool with each other, without near-duplicates."""
        known = {(split.benchmark, split.name) for split in self.splits}
        pool = [split for split in self.demonstration_pool if (split.benchmark, split.name) not in known]
        entries = self.entries([*self.splits, *pool])
        rule = self.args.short_text_rule
        return ContaminationIndex(entries, self.tokens_per_ngram, self.args.tokenizer, short_text_rule=rule)

    def entries(self, splits: Iterable[Split]) -> list[BenchmarkText]:
        """The non-empty texts of splits; a file that names no language is taken for this one."""
        return [
            BenchmarkText(split.benchmark, split.name, split.language, id, text)
            for split in splits
            for id, text in zip(split.ids, split.texts, strict=True)
            if not is_blank(text)
        ]

    def unchecked(self, what: str) -> str | None:
        """Why `what`, the texts in this language, overlap nothing whatever they are; None if they can.

        No benchmark in the language is right if --allow_missing names one.
        """
        if not self.splits:
            excused = set(self.args.allow_missing) & {*self.language_not_covered, *self.not_loaded}
            reason = f"no benchmark has {self.language.name} (to accept that, name one in --allow_missing)"
            return None if excused else f"the {what}: {reason}"
        if not self.index.can_match:
            return f"the {what}: no text of the benchmarks in {self.language.name} is long enough for --ngram_size and --short_text_rule"
        return None

    def provenance(self) -> list[dict]:
        """What identifies the benchmarks: source, number of texts and SHA-256 of each split."""
        return [
            {
                "benchmark": split.benchmark,
                "split": split.name,
                "language": split.language,
                "texts": split.size,
                **({"published_texts": split.published_size} if split.is_partial else {}),
                "source": split.source,
                "sha256": split.fingerprint,
            }
            for split in self.splits
        ]

    def __str__(self) -> str:
        def listed(splits: list[Split]) -> str:
            return ", ".join(f"{split.benchmark} {split.name} {split.count}" for split in splits) or "none"

        not_covered = f"; not in {', '.join(self.language_not_covered)}" if self.language_not_covered else ""
        not_loaded = f"; NOT LOADED (--allow_missing): {', '.join(self.not_loaded)}" if self.not_loaded else ""
        pool = f"; demonstration pool: {listed(self.demonstration_pool)}" if self.demonstration_pool else ""
        return f"benchmarks in {self.language.name}: {listed(self.splits)}{not_covered}{not_loaded}{pool}"


def load(names: Collection[str], args: argparse.Namespace) -> dict[str, BenchmarkTexts]:
    """--benchmarks and --demonstration_pool in the languages `names` and --target_language, by the language's name.

    Raises UsageError if a benchmark that is not in --allow_missing, or a pool, cannot be loaded, or if no benchmark covers
    one of `names` and the target language.
    """
    load_splits = partial(
        benchmarks.load,
        folder=args.benchmark_dir,
        languages_file=args.languages_file,
        allow_partial=args.allow_partial_benchmark,
    )
    texts_of: dict[str, BenchmarkTexts] = {}
    errors: dict[str, UsageError] = {}
    target = languages.find(args.target_language, args.languages_file)
    for language in dict.fromkeys([*(languages.find(name, args.languages_file) for name in names), target]):
        texts = texts_of[language.name] = BenchmarkTexts(language, args)
        for name in args.benchmarks:
            try:
                texts.splits += load_splits(name, language)
            except benchmarks.LacksLanguage:
                texts.language_not_covered.append(name)
            except benchmarks.CannotLoad as error:
                if name in args.allow_missing:
                    texts.not_loaded.append(name)
                else:
                    errors.setdefault(name, error)
        for name in args.demonstration_pool:
            try:
                texts.demonstration_pool += load_splits(name, language)
            except benchmarks.LacksLanguage:
                continue
            except benchmarks.CannotLoad as error:
                raise UsageError(f"--demonstration_pool: {error}") from None
    for name in args.demonstration_pool:
        if not any(split.benchmark == name for texts in texts_of.values() for split in texts.demonstration_pool):
            raise UsageError(f"--demonstration_pool {name} has no text in {' or '.join(texts_of)}")
    if errors:
        first, *others = errors
        also = f" ({', '.join(others)} cannot be loaded either)" if others else ""
        copy = "--benchmark_dir DIR with a copy of it, " if first in benchmarks.LOADERS else ""
        raise UsageError(f"{errors[first]}; pass {copy}--allow_missing {first}, or drop it from --benchmarks{also}")
    # A file of one's own that names no language is read in each.
    splits = (split for texts in texts_of.values() for split in texts.splits)
    refuse_copies(split for split in splits if split.benchmark in benchmarks.SIZES)
    for texts in texts_of.values():
        logger.info("%s", texts)
    for name in names:
        if not texts_of[name].splits and not texts_of[target.name].splits:
            raise UsageError(
                f"no benchmark covers {name}: none of {', '.join(args.benchmarks)} has it or {target.name}"
            )
    return texts_of
