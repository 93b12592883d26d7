"""The benchmarks that the texts of one language are held against."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.corpora import benchmarks
from topxgen.corpora.benchmarks import Split
from topxgen.decontamination.ngram_hashes import tokens_per_ngram
from topxgen.decontamination.ngram_index import BenchmarkText, ContaminationIndex
from topxgen.text.languages import Language
from topxgen.text.sentence_splitting import Sentencex


@dataclass
class BenchmarkTexts:
    """What the benchmarks hold in `language`; which ones lack it, and which are missing though they should have it."""

    language: Language
    splits: list[Split] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    pool: list[Split] = field(default_factory=list)  # demonstrations, only to be told of

    def n(self, settings: dict) -> int:
        """Tokens of an n-gram in this language."""
        return tokens_per_ngram(settings["ngram_size"], self.language.script, settings["tokenizer"])

    def index(self, settings: dict, pool: bool = False) -> ContaminationIndex:
        """Of the benchmarks, and with `pool` of the demonstrations that are none of these as well."""
        known = {(split.benchmark, split.name) for split in self.splits}
        others = [split for split in self.pool if pool and (split.benchmark, split.name) not in known]
        return ContaminationIndex(
            self.entries([*self.splits, *others]),
            self.n(settings),
            settings["tokenizer"],
            settings["near_duplicates"],
            settings["short_texts"],
            Sentencex(self.language).split,
        )

    def entries(self, splits: Iterable[Split]) -> list[BenchmarkText]:
        """The texts of splits, but empty ones; a file that names no language counts as this one."""
        return [
            BenchmarkText(split.benchmark, split.name, split.language or self.language.name, id, text)
            for split in splits
            for id, text in zip(split.ids, split.texts, strict=True)
            if text.strip()
        ]

    def facts(self) -> list[dict]:
        """What a third person needs to tell whether they have the same benchmarks."""
        return [
            {
                "benchmark": split.benchmark,
                "split": split.name,
                "language": split.language,
                "texts": len(split.texts),
                "source": split.source,
                "sha256": split.fingerprint,
            }
            for split in self.splits
        ]

    def __str__(self) -> str:
        def listed(splits: list[Split]) -> str:
            return ", ".join(f"{split.benchmark} {split.name} {len(split.texts):,}" for split in splits) or "nothing"

        lacking = f"; not in {', '.join(self.lacking)}" if self.lacking else ""
        missing = f"; MISSING, allowed: {', '.join(self.missing)}" if self.missing else ""
        pool = f"; demonstrations: {listed(self.pool)}" if self.pool else ""
        return f"benchmarks in {self.language.name}: {listed(self.splits)}{lacking}{missing}{pool}"


def load(
    languages: Iterable[Language], names: list[str], pools: list[str], folder: Path | None, allow_missing: list[str]
) -> dict[str, BenchmarkTexts]:
    """The benchmarks `names` in each language, by its name, and the demonstrations `pools`.

    Raises UsageError when a benchmark that is not in `allow_missing`, or a pool, cannot be loaded.
    """
    sides: dict[str, BenchmarkTexts] = {}
    errors: dict[str, UsageError] = {}
    for language in languages:
        side = sides[language.name] = BenchmarkTexts(language)
        for name in names:
            try:
                side.splits += benchmarks.load(name, language, folder)
            except benchmarks.LacksLanguage:
                side.lacking.append(name)
            except benchmarks.CannotLoad as error:
                if name in allow_missing:
                    side.missing.append(name)
                else:
                    errors.setdefault(name, error)
        for name in pools:
            try:
                side.pool += benchmarks.load(name, language, folder)
            except benchmarks.LacksLanguage:
                continue
            except benchmarks.CannotLoad as error:
                raise UsageError(f"--pool: {error}") from None
    for name in pools:
        if not any(split.benchmark == name for side in sides.values() for split in side.pool):
            raise UsageError(f"--pool {name} has no text in {' or '.join(sides)}")
    if errors:
        first, *others = errors
        also = f" (nor can {', '.join(others)} be loaded)" if others else ""
        copy = "--benchmark_dir FOLDER with a copy of it, " if first in benchmarks.LOADERS else ""
        raise UsageError(f"{errors[first]}; pass {copy}--allow_missing {first}, or drop it from --benchmarks{also}")
    return sides
