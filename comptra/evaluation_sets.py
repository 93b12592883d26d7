"""What main.py translates: a test set in two languages, and the pairs that demonstrations are taken from."""

import argparse
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from topxgen.common import freshness
from topxgen.common.checksums import sha256_of
from topxgen.common.errors import UsageError, unknown_choice
from topxgen.common.lines import on_one_line
from topxgen.common.records import FilteredLayout, read_translations, target_language_of, translations_name
from topxgen.corpora import benchmarks, examples, tables
from topxgen.corpora.benchmarks import CannotLoad, LacksLanguage
from topxgen.corpora.slices import ALL
from topxgen.corpora.splits import Split, refuse_copies, warn_of_language
from topxgen.corpora.tables import ROLES, TABLE_SUFFIXES, Column, language_of
from topxgen.text.languages import Language
from topxgen.text.words import is_blank


class Dataset(NamedTuple):
    """A choice of --dataset_name_or_path: a sentence for --help, and the (benchmark, split) of test set and pool.

    Without a split the user's files hold the test set, and there is no pool, or it is the user's, too.
    """

    help: str
    test: tuple[str, str] | None = None
    pool: tuple[str, str] | None = None


# fmt: off
DATASETS = {
    "flores": Dataset("FLORES-200 devtest, demonstrations from dev", ("flores", "devtest"), ("flores", "dev")),
    "ntrex": Dataset("the first 1,000 lines of NTREX-128, demonstrations from the rest", ("ntrex", "test"), ("ntrex", "pool")),
    "tico": Dataset("TICO-19 test, demonstrations from dev", ("tico", "test"), ("tico", "dev")),
    "ood": Dataset("TICO-19 test, demonstrations from FLORES-200 dev", ("tico", "test"), ("flores", "dev")),
    "validation": Dataset("FLORES-200 dev, no demonstrations", ("flores", "dev")),
    "topxgen": Dataset("FLORES-200 devtest, demonstrations from generated pairs (--data_dir)", ("flores", "devtest")),
    "udhr": Dataset("articles 21 to 30 of the UDHR (embedded), demonstrations from the others", ("udhr", "test"), ("udhr", "dev")),
    "udhr-dev": Dataset("articles 1 to 20 of the UDHR (embedded), no demonstrations", ("udhr", "dev")),
    "files": Dataset("your own --test_files and --demonstration_pool"),
}
# fmt: on
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class TestSet:
    """A test set from `src` into `tgt`. `sources` and `references` are one for one, in the order of the benchmark."""

    name: str
    src: Language
    tgt: Language
    sources: list[str]
    references: list[str]
    pool: Pairs  # (source, target), may be empty
    facts: dict  # for a manifest: where both come from, SHA-256 of the texts, counts
    # Of each source, the pairs of the pool that give its translation away (topxgen/text/leak_guard.py).
    leaks: dict[str, frozenset[int]] = field(default_factory=dict)

    @cached_property
    def _all_leaks(self) -> frozenset[int]:
        return frozenset().union(*self.leaks.values())

    def leaks_for(self, query: str) -> Collection[int]:
        """The pairs not to show with `query`; if it is a phrase, which may be of any sentence, those of all of them."""
        return self.leaks.get(query, self._all_leaks)


def of_flags(args: argparse.Namespace, src: Language, tgt: Language, need_pool: bool) -> TestSet:
    """The test set that the flags of main.py name; see `load`."""
    return load(
        args.dataset_name_or_path,
        src,
        tgt,
        folder=args.benchmark_dir,
        allow_partial=args.allow_partial_benchmark,
        max_samples=args.max_samples,
        data_dir=args.data_dir,
        test_files=args.test_files and tuple(args.test_files),
        pool_files=args.demonstration_pool and tuple(args.demonstration_pool),
        need_pool=need_pool,
    )


def load(
    name: str,
    src: Language,
    tgt: Language,
    *,
    folder: Path | None,
    max_samples: int | None,
    data_dir: Path | None = None,
    test_files: tuple[Path, Path] | None = None,
    pool_files: tuple[Path, Path] | None = None,
    need_pool: bool = True,
    allow_partial: bool = False,
) -> TestSet:
    """One of DATASETS, its first `max_samples` sentences (None: all) and its pool where one is needed.

    `folder` (--benchmark_dir) and `allow_partial` are as for benchmarks.load, `data_dir` holds the generated pairs of topxgen. Of the two
    `test_files` and `pool_files` the first is in `src`, the second in `tgt`: one sentence a line, or a table whose columns
    are labelled with the languages or with ROLES, or mapped to them (t.tsv:Basque=2); both may be the same table. An empty
    line is an error in a test set; in a pool its pair is left out.
    Raises UsageError when something is missing, or not parallel, or does not go with `name`.
    """
    _check_flags(name, data_dir, test_files, pool_files)
    dataset = DATASETS[name]
    published = partial(_published, src=src, tgt=tgt, folder=folder, allow_partial=allow_partial)
    test = published(*dataset.test) if dataset.test else _own("--test_files", test_files, src, tgt)
    refuse_copies(test)
    _refuse_blank(test)
    pairs, facts = _aligned(*test)
    if not pairs:
        raise UsageError(
            f"no article of {name} has as many paragraphs in {src.name} as in {tgt.name}; choose another one"
        )
    test_pairs, pairs = pairs, pairs[:max_samples]
    pool: Pairs = []
    pool_facts = None
    if need_pool and dataset.pool:
        pool, pool_facts = _filled(*_aligned(*published(*dataset.pool)))
    elif need_pool and pool_files:
        pool, pool_facts = _filled(*_aligned(*_own("--demonstration_pool", pool_files, src, tgt)))
    elif need_pool and name == "topxgen":
        pool, pool_facts = _filled(*_generated(data_dir, src, tgt))
    leaks, guard_facts = _leaks(test_pairs, pool, src, tgt)
    facts = {
        "dataset": name,
        "test": {**facts, "pairs": len(pairs), "of": len(test_pairs)},
        "pool": pool_facts,
        "leak_guard": guard_facts,
    }
    sources, references = ([pair[side] for pair in pairs] for side in (0, 1))
    return TestSet(name, src, tgt, sources, references, pool, facts, leaks)


def _check_flags(name: str, data_dir: Path | None, test_files: object, pool_files: object) -> None:
    if name not in DATASETS:
        raise unknown_choice("--dataset_name_or_path", name, DATASETS)
    for flag, value, needs in (
        ("--data_dir", data_dir, "topxgen"),
        ("--test_files", test_files, "files"),
        ("--demonstration_pool", pool_files, "files"),
    ):
        if value is not None and name != needs:
            raise UsageError(f"{flag} is for --dataset_name_or_path {needs}, not {name}: pass that, or drop {flag}")
    if name == "files" and test_files is None:
        raise UsageError("--dataset_name_or_path files needs --test_files SOURCE REFERENCE")


def _refuse_blank(test: Iterable[Split]) -> None:
    for split in test:
        for i, text in enumerate(split.texts):
            if is_blank(text):
                # TICO-19's ids are no numbers; its first line is a header.
                line = i + 2 if split.benchmark == "tico" else split.ids[i]
                raise UsageError(
                    f"{split.source}, line {line}: it is empty, so there is nothing to translate; fix the file"
                )


def _published(
    benchmark: str, part: str, src: Language, tgt: Language, folder: Path | None, allow_partial: bool
) -> tuple[Split, Split]:
    """Both sides of the split of that name, the main one of its variants. Raises UsageError saying what else can be had."""
    embedded = all((benchmarks.UDHR / f"{language.flores}.tsv").is_file() for language in (src, tgt))
    sides = []
    for language in (src, tgt):
        try:
            splits = benchmarks.load(benchmark, language, folder, allow_partial=allow_partial)
        except LacksLanguage as error:
            others = [name for name, there in (("flores", True), ("udhr", embedded)) if there and name != benchmark]
            copy = "--benchmark_dir FOLDER with a copy that has it, or " * (folder is None and benchmark != "udhr")
            raise UsageError(
                f"{error}; pass {copy}--dataset_name_or_path {' or '.join([*others, 'files'])} (--test_files of your own)"
            ) from None
        except CannotLoad as error:
            other = ", or --dataset_name_or_path udhr, which is embedded" if embedded and benchmark != "udhr" else ""
            raise UsageError(f"{error}; pass --benchmark_dir FOLDER with a copy of it{other}") from None
        sides.append(next(split for split in splits if split.name == part))
    return sides[0], sides[1]


def _own(flag: str, paths: tuple[Path, Path], src: Language, tgt: Language) -> tuple[Split, Split]:
    (path, *first), (_, *second) = (tables.split_source(str(path))[:2] for path in paths)
    if paths[0] == paths[1] and path.suffix.lower() not in TABLE_SUFFIXES:
        raise UsageError(f"{flag}: {paths[0]} stands for both sides; pass one file for each, or a table of two columns")
    if first != second and [ALL] not in (first, second):
        raise UsageError(
            f"{flag}: {paths[0]} and {paths[1]} are different slices; the sides of a parallel text need the same"
        )
    return _own_side(paths[0], src, tgt, ROLES[0]), _own_side(paths[1], tgt, src, ROLES[1])


def _own_side(path: Path, language: Language, other: Language, roles: tuple[str, ...]) -> Split:
    source, part, text = tables.split_source(str(path))
    mapping, known = tables.parse_mapping(text, (language, other)), (language, other)
    columns = tables.read_columns(source, mapping, known, nulls=True, part=part)
    if mapping:
        chosen = tables.columns_in(language, columns, str(source), mapping)
    elif source.suffix.lower() in TABLE_SUFFIXES:
        chosen = [column for column in columns if language_of(column[0], known) == language.flores]
        chosen = chosen or [column for column in columns if column[0].strip().casefold() in roles]
    else:
        chosen = columns
    if len(chosen) != 1:
        labels = ", ".join(label[:40] for label, _ in columns) or "none"
        raise UsageError(
            f"{path} has {'several columns' if chosen else 'no column'} in {language.name} (columns: {labels}); label one "
            f"{language.name} or {language.flores}, or pass {source}{part}:{language.name}=COLUMN"
        )
    (_, rows) = chosen[0]
    if not rows:
        raise UsageError(f"{path} is empty")
    if without := _records(columns) - _records(chosen):  # the other side would be paired with the wrong records
        raise UsageError(f"{path}, record {min(without, key=int)}: it has no text in {language.name}; add it, or null")
    split = Split("files", chosen[0][0], language.name, *map(list, zip(*rows, strict=True)), str(path))
    warn_of_language(split, language)
    return split


def _records(columns: list[Column]) -> set[str]:
    """The numbers of the records that have a text in them."""
    return {place.partition(".")[0] for _, rows in columns for place, _ in rows}


def _aligned(first: Split, second: Split) -> tuple[Pairs, dict]:
    """The pairs of two parallel sides, each text on one line, as a translation is, and facts. Raises UsageError when they are not parallel."""
    facts = {
        side: {"from": _absolute(split), "part": split.name, "sha256": split.fingerprint}
        | ({"published_texts": split.published_size} if split.is_partial else {})
        for side, split in (("sources", first), ("references", second))
    }
    if first.benchmark == "udhr":  # not all articles have the same paragraphs in all languages
        pairs = [pair for _, pair in examples.aligned_articles(first, second)]
        facts["unaligned"] = len(first.texts) - len(pairs)
    else:
        _check_parallel(first, second)
        pairs = zip(first.texts, second.texts, strict=True)
    return [(on_one_line(source), on_one_line(target)) for source, target in pairs], facts


def _absolute(split: Split) -> str:
    """Where a split comes from, in words that hold in any working directory."""
    own = split.benchmark == "files"
    path, part, mapping = tables.split_source(split.source) if own else (Path(split.source), ALL, "")
    if not path.exists():  # it comes from the Hub
        return split.source
    return f"{path.absolute()}{part}" + (f":{mapping}" if mapping else "")


def _check_parallel(first: Split, second: Split) -> None:
    if len(first.texts) != len(second.texts):
        raise UsageError(
            f"{first.source} has {len(first.texts)} sentences in {first.language}, but {second.source} {len(second.texts)} in "
            f"{second.language}: the two sides of a test set or a pool must be parallel"
        )
    if first.benchmark == "files" and first.source != second.source:
        return  # numbers of lines, which a table may count in another way
    for a, b in zip(first.ids, second.ids, strict=True):
        if a != b:
            raise UsageError(f"{first.source} has sentence {a} where {second.source} has {b}: they are not parallel")


def _filled(pairs: Pairs, facts: dict) -> tuple[Pairs, dict]:
    """The pairs without an empty side, and facts that count the others."""
    filled = [pair for pair in pairs if all(pair)]
    return filled, {**facts, "pairs": len(filled), "empty": len(pairs) - len(filled)}


def _leaks(test: Pairs, pool: Pairs, src: Language, tgt: Language) -> tuple[dict[str, frozenset[int]], dict | None]:
    """Of each source the pairs of the pool that leak it, on either side; facts, None without a pool."""
    from topxgen.text import leak_guard

    if not pool:
        return {}, None
    leaks: dict[str, set[int]] = {source: set() for source, _ in test}
    kinds: dict[int, str] = {}  # of each pair of the pool that leaks, the strongest
    for side, language in enumerate((src, tgt)):
        found = leak_guard.leaks([pair[side] for pair in test], [pair[side] for pair in pool], language.script)
        for (number, i), kind in found.items():
            leaks[test[number][0]].add(i)
            kinds[i] = min(kind, kinds.get(i, kind), key=leak_guard.KINDS.index)
    facts = {"version": leak_guard.VERSION, "leaking_pairs": len(kinds)}
    return {source: frozenset(pairs) for source, pairs in leaks.items()}, facts | Counter(kinds.values())


def _generated(folder: Path | None, src: Language, tgt: Language) -> tuple[Pairs, dict]:
    """The pairs of datagen.py, decontaminated ones first choice, in the direction asked for."""
    if folder is None:
        raise UsageError(
            "--dataset_name_or_path topxgen takes its demonstrations from generated pairs: pass --data_dir FOLDER with "
            "{Language}_translate_filtered.jsonl"
        )
    into = target_language_of(folder)
    if into not in (src.name, tgt.name):
        raise UsageError(
            f"--data_dir {folder} has pairs with {into} (by its settings_translate.json, else English), not of {src.name} "
            f"and {tgt.name}: choose {into} as --src or --tgt"
        )
    language = tgt if src.name == into else src
    names = [FilteredLayout(folder).filtered(language.name).name, translations_name(language.name)]
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        others = sorted({file.name.partition("_translate")[0] for file in folder.glob("*_translate*.jsonl")})
        raise UsageError(
            f"no {' or '.join(names)} in {folder}, only files of {', '.join(others) or 'no language at all'}; pass another "
            "--data_dir"
        )
    freshness.check(path)
    pairs = [
        tuple(map(on_one_line, (translation, sentence) if language is tgt else (sentence, translation)))
        for _, record in read_translations(path)
        for sentence, translation in zip(record["propositions"], record["translations"], strict=True)
    ]
    return pairs, {"from": str(path.absolute()), "sha256": sha256_of(path), "decontaminated": path.name == names[0]}
