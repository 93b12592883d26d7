"""What main.py translates: a test set in two languages, and the pairs that demonstrations come from (SPEC section 7).

flores, ntrex, tico, udhr: a benchmark's own test set and selection pool. ood: TICO-19 with FLORES demonstrations.
validation: FLORES dev, no pool. topxgen: FLORES with generated pairs as the pool. files: the user's own.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from topxgen.common.errors import UsageError, closest
from topxgen.common.files import read_json, read_jsonl
from topxgen.common.registry import Choice
from topxgen.corpora import benchmarks, examples
from topxgen.corpora.benchmarks import CannotLoad, LacksLanguage, Split
from topxgen.corpora.tables import KINDS, ROLES, Column, languages_named, read_columns
from topxgen.text.languages import Language

# The (benchmark, split) of the test set and of the selection pool.
_PARTS = {
    "flores": (("flores", "devtest"), ("flores", "dev")),
    "ntrex": (("ntrex", "test"), ("ntrex", "pool")),
    "tico": (("tico", "test"), ("tico", "dev")),
    "ood": (("tico", "test"), ("flores", "dev")),
    "validation": (("flores", "dev"), None),
    "topxgen": (("flores", "devtest"), None),
    "udhr": (("udhr", "test"), ("udhr", "dev")),
}
DATASETS = {
    "flores": Choice("", "FLORES-200 devtest; demonstrations from dev"),
    "ntrex": Choice("", "the first 1,000 lines of NTREX-128; demonstrations from the rest"),
    "tico": Choice("", "TICO-19 test; demonstrations from dev"),
    "ood": Choice("", "TICO-19 test; demonstrations from FLORES-200 dev"),
    "validation": Choice("", "FLORES-200 dev; no demonstrations"),
    "topxgen": Choice("", "FLORES-200 devtest; demonstrations from generated pairs (--data_dir)"),
    "udhr": Choice("", "articles 21 to 30 of the UDHR (embedded); demonstrations from the others"),
    "files": Choice("", "your own --test_files and --demonstration_pool"),
}
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
) -> TestSet:
    """One of DATASETS, its first `max_samples` sentences (None: all) and its pool where one is needed.

    `folder` (--benchmark_dir) is as for benchmarks.load, `data_dir` holds the generated pairs of topxgen. Of the two
    `test_files` and `pool_files` the first is in `src`, the second in `tgt`: one sentence a line, or a table whose columns
    are named after the languages (or, in JSON, source and target), which may be the same file twice. An empty line of
    a test set is an error, one of a pool leaves its pair out.
    Raises UsageError when something is missing, or not parallel, or does not go with `name`.
    """
    if name not in DATASETS:
        near = closest(name, DATASETS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"unknown --dataset_name_or_path {name!r}: {hint}choose from {', '.join(DATASETS)}")
    for flag, value, needs in (
        ("--data_dir", data_dir, "topxgen"),
        ("--test_files", test_files, "files"),
        ("--demonstration_pool", pool_files, "files"),
    ):
        if value is not None and name != needs:
            raise UsageError(f"{flag} is for --dataset_name_or_path {needs}, not {name}: drop one of them")
    if name == "files":
        if test_files is None:
            raise UsageError("--dataset_name_or_path files needs --test_files SOURCE REFERENCE")
        test = _own("--test_files", test_files, src, tgt)
        pool = _own("--demonstration_pool", pool_files, src, tgt) if need_pool and pool_files else None
    else:
        of_test, of_pool = _PARTS[name]
        test = _published(*of_test, src, tgt, folder)
        pool = _published(*of_pool, src, tgt, folder) if need_pool and of_pool else None
    for split in test:
        _refuse_empty(split)
    pairs, facts = _aligned(*test)
    if not pairs:
        raise UsageError(
            f"no article of {name} has as many paragraphs in {src.name} as in {tgt.name}; choose another one"
        )
    pairs = pairs[:max_samples]
    found: Pairs = []
    pool_facts = None
    if pool is not None:
        found, pool_facts = _filled(*_aligned(*pool))
    elif name == "topxgen" and need_pool:
        found, pool_facts = _filled(*_generated(data_dir, src, tgt))
    return TestSet(
        name=name,
        src=src,
        tgt=tgt,
        sources=[source for source, _ in pairs],
        references=[reference for _, reference in pairs],
        pool=found,
        facts={"dataset": name, "test": {**facts, "pairs": len(pairs)}, "pool": pool_facts},
    )


def _published(benchmark: str, part: str, src: Language, tgt: Language, folder: Path | None) -> tuple[Split, Split]:
    """Both sides of the split of that name, the main one of its variants. Raises UsageError saying what else can be had."""
    embedded = all((benchmarks.UDHR / f"{language.flores}.tsv").is_file() for language in (src, tgt))
    sides = []
    for language in (src, tgt):
        try:
            splits = {split.name: split for split in benchmarks.load(benchmark, language, folder)}
        except LacksLanguage as error:
            others = [name for name, there in (("flores", True), ("udhr", embedded)) if there and name != benchmark]
            copy = (
                "--benchmark_dir FOLDER with a copy that has it, or " if folder is None and benchmark != "udhr" else ""
            )
            raise UsageError(
                f"{error}; pass {copy}--dataset_name_or_path {' or '.join([*others, 'files'])} (--test_files of your own)"
            ) from None
        except CannotLoad as error:
            other = ", or --dataset_name_or_path udhr, which is embedded" if embedded and benchmark != "udhr" else ""
            raise UsageError(f"{error}; pass --benchmark_dir FOLDER with a copy of it{other}") from None
        sides.append(splits[part])
    return sides[0], sides[1]


def _own(flag: str, paths: tuple[Path, Path], src: Language, tgt: Language) -> tuple[Split, Split]:
    if paths[0] == paths[1] and not _is_table(paths[0]):
        raise UsageError(f"{flag}: {paths[0]} stands for both sides; pass one file for each, or a table of two columns")
    first, second = (
        _own_side(path, language, roles) for path, language, roles in zip(paths, (src, tgt), ROLES, strict=True)
    )
    return first, second


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in KINDS


def _own_side(path: Path, language: Language, roles: tuple[str, ...]) -> Split:
    columns = read_columns(path, nulls=True)
    if _is_table(path):
        chosen = [column for column in columns if language.flores in languages_named(column[0], language)]
        chosen = chosen or [column for column in columns if column[0].strip() in roles]
        if len(chosen) != 1:
            there = ", ".join(label[:40] for label, _ in columns) or "none"
            many = "several columns" if chosen else "no column"
            raise UsageError(
                f"{path} has {many} in {language.name} (there are: {there}); name one {language.name} or {language.flores}, "
                "or pass one sentence a line as .txt"
            )
        without = _records(columns) - _records(chosen)
        if without:  # the other side would be paired with the wrong records
            raise UsageError(
                f"{path}, record {min(without, key=int)}: it has no text in {language.name}; add it, or null"
            )
        columns = chosen
    rows = columns[0][1] if columns else []
    if not rows:
        raise UsageError(f"{path} is empty")
    return Split("files", columns[0][0], language.name, *map(list, zip(*rows, strict=True)), str(path))


def _records(columns: list[Column]) -> set[str]:
    """The numbers of the records that have a text in them."""
    return {place.partition(".")[0] for _, rows in columns for place, _ in rows}


def _refuse_empty(split: Split) -> None:
    for i, text in enumerate(split.texts):
        if not text.strip():
            # TICO-19's ids are no numbers; its first line is a header.
            line = i + 2 if split.benchmark == "tico" else split.ids[i]
            raise UsageError(
                f"{split.source}, line {line}: it is empty, and there is nothing to translate; mend the file"
            )


def _aligned(first: Split, second: Split) -> tuple[Pairs, dict]:
    """The pairs of two parallel sides, stripped, and facts. Raises UsageError when they are not parallel."""
    facts = {
        side: {"from": split.source, "part": split.name, "sha256": split.fingerprint}
        for side, split in (("sources", first), ("references", second))
    }
    if first.benchmark == "udhr":  # not all articles have the same paragraphs in all languages
        pairs = examples.align_articles(first, second)
        facts["unaligned"] = len(first.texts) - len(pairs)
    else:
        _check_parallel(first, second)
        pairs = zip(first.texts, second.texts, strict=True)
    return [(source.strip(), target.strip()) for source, target in pairs], facts


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


def _generated(folder: Path | None, src: Language, tgt: Language) -> tuple[Pairs, dict]:
    """The pairs that datagen.py made and decontamination.py left, in the direction asked for."""
    if folder is None:
        raise UsageError(
            "--dataset_name_or_path topxgen takes its demonstrations from generated pairs: pass --data_dir FOLDER with "
            "{Language}_translate_filtered.jsonl"
        )
    into = read_json(folder / "settings_translate.json").get("target_language", "English")
    if into not in (src.name, tgt.name):
        raise UsageError(
            f"--data_dir {folder} has pairs with {into} (its settings_translate.json tells, else English), not of {src.name} and "
            f"{tgt.name}: choose {into} as --src or --tgt"
        )
    language = tgt if src.name == into else src
    names = [f"{language.name}_translate_filtered.jsonl", f"{language.name}_translate.jsonl"]
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        there = sorted({file.name.partition("_translate")[0] for file in folder.glob("*_translate*.jsonl")})
        raise UsageError(
            f"no {' or '.join(names)} in {folder}, only files of {', '.join(there) or 'no language at all'}; pass another "
            "--data_dir"
        )
    pairs = [
        (translation, sentence) if language is tgt else (sentence, translation)
        for sentence, translation in _pairs_in(path)
    ]
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return pairs, {"from": str(path), "sha256": sha256, "decontaminated": path.name == names[0]}


def _pairs_in(path: Path) -> Iterator[tuple[str, str]]:
    """(sentence, back-translation) of each pair of a file of SPEC section 2, stripped."""
    for number, record in enumerate(read_jsonl(path), start=1):
        sides = [record.get("propositions"), record.get("translations")]
        if not all(isinstance(side, list) and all(isinstance(text, str) for text in side) for side in sides):
            raise UsageError(f"{path}, record {number}: propositions and translations are no lists of texts; mend it")
        if len(sides[0]) != len(sides[1]):
            raise UsageError(
                f"{path}, record {number}: {len(sides[0])} propositions but {len(sides[1])} translations; mend it"
            )
        for pair in zip(*sides, strict=True):
            # Half a character, as JSON can hold it, is nothing that a tokenizer takes.
            sentence, translation = (text.encode("utf-8", "replace").decode("utf-8").strip() for text in pair)
            yield sentence, translation
