"""Training sets with a name: generated pairs, FLORES-200, SMOL and the UDHR.

topxgen (alias ours): what decontamination.py left. flores: FLORES-200 dev. smol: SMOL
(https://huggingface.co/datasets/google/smol). udhr: the embedded Universal Declaration of Human Rights.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, read_jsonl
from topxgen.common.records import FilteredLayout, translations_name, with_ids
from topxgen.corpora import benchmarks, examples
from topxgen.corpora.benchmarks import Split
from topxgen.text.languages import Language
from topxgen.training.file_datasets import replace_surrogates
from topxgen.training.pairs import Pair, direction

SCORED = ("topxgen", "ours")
SMOL_REPO = "google/smol"
SMOL_SIDES = {"smolsent": ("src", "trg"), "smoldoc": ("srcs", "trgs")}
MIN_SIDE_CHARS = 10  # characters of a side (SPEC section 6)
FORBIDDEN_CHARS = "#>"  # of headings, quotations and markup: a side that holds one is dropped (SPEC section 6)


@dataclass(frozen=True)
class DatasetSpec:
    """What to read, and which of it to take."""

    name: str  # one of NAMED, a path, or a Hub id
    src: Language
    targets: tuple[Language, ...]
    data_dir: Path | None = None  # topxgen: what holds the pairs; flores, smol: a copy in its publishers' layout
    subset: str | None = None  # a config of the Hub; smol: smolsent or smoldoc
    split: str | None = None  # [train; flores and udhr: dev]
    input_column: str = "prompt"
    output_column: str | None = None
    percentile: float | None = None
    dataset_size: int = -1
    strategy: str = "soonest"
    seed: int = 122


@dataclass
class LoadedPairs:
    """What a source holds: `pairs`, `scores` and `scorers` are parallel; the dicts are by direction."""

    pairs: list[Pair] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)
    scorers: list[str | None] = field(default_factory=list)
    counts: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    origins: dict[str, dict] = field(default_factory=dict)  # "path", and "sha256" of the file or of texts

    def add(self, pair: Pair, score: float | None = None, scorer: str | None = None) -> None:
        self.pairs.append(pair)
        self.scores.append(score)
        self.scorers.append(scorer)

    def add_texts(self, src: Language, tgt: Language, rows: Iterable[tuple[str, str, str]]) -> None:
        """Pairs out of (source, target, group), those with an empty side counted and left out."""
        counts = self.counts[direction(src.name, tgt.name)]
        for source, target, group in rows:
            counts["read"] += 1
            if source.strip() and target.strip():
                self.add(Pair(source.strip(), target.strip(), src.name, tgt.name, group))
            else:
                counts["empty"] += 1


def _topxgen(source: DatasetSpec) -> LoadedPairs:
    read, folder = LoadedPairs(), source.data_dir
    if folder is None:
        raise UsageError(
            f"{source.name} reads {{Language}}_translate_filtered.jsonl: pass --data_dir FOLDER, where decontamination.py "
            "left them"
        )
    into = read_json(folder / "settings_translate.json").get("target_language", source.src.name)
    if into != source.src.name:
        raise UsageError(f"the translations in {folder} are into {into}, not {source.src.name}: pass --src {into!r}")
    for language in source.targets:
        path = FilteredLayout(folder).filtered(language.name)
        if not path.is_file():
            raise _missing(folder, language)
        key = direction(source.src.name, language.name)
        counts = read.counts[key]
        for number, (id_, record) in enumerate(with_ids(read_jsonl(path), "sentence"), start=1):
            for sentence, translation, score in _parallel(record, f"{path}, record {number}"):
                counts["read"] += 1
                if reason := drop_reason(translation, sentence):
                    counts[reason] += 1
                    continue
                pair = Pair(translation, sentence, source.src.name, language.name, f"{language.name} {id_}")
                read.add(pair, score, record.get("scorer"))
        read.origins[key] = {"path": str(path), "sha256": sha256(path)}
    return read


def _missing(folder: Path, language: Language) -> UsageError:
    if not folder.is_dir():
        return UsageError(
            f"there is no folder {folder}; pass as --data_dir the one where decontamination.py left its files"
        )
    ending = FilteredLayout(folder).filtered("").name
    there = sorted(path.name.removesuffix(ending) for path in folder.glob(f"*{ending}"))
    remedy = "pass another --data_dir or --target_languages"
    if (folder / translations_name(language.name)).is_file():
        remedy = f"run decontamination.py --input_dir {folder} --languages {language.name!r} first"
    return UsageError(
        f"{folder} holds no {language.name}{ending}, only {', '.join(there) or 'no language at all'}; {remedy}"
    )


def _parallel(record: dict, where: str) -> Iterator[tuple[str, str, float | None]]:
    """(sentence, translation, score) of each pair of a record; the original's files may lack scores, or have an empty list."""
    sides = [record.get(key) for key in ("propositions", "translations")]
    for key, side in zip(("propositions", "translations"), sides, strict=True):
        if not isinstance(side, list) or not all(isinstance(text, str) for text in side):
            raise UsageError(f"{where}: {key!r} is no list of texts; mend or remove the line")
    scores = record.get("scores") or [None] * len(sides[0])
    if not isinstance(scores, list) or not {int, float, type(None)}.issuperset(map(type, scores)):
        raise UsageError(f"{where}: 'scores' is no list of numbers; mend or remove the line")
    if not len(sides[0]) == len(sides[1]) == len(scores):
        raise UsageError(
            f"{where}: {len(sides[0])} propositions, {len(sides[1])} translations and {len(scores)} scores; mend or remove "
            "the line"
        )
    for sentence, translation, score in zip(*sides, scores, strict=True):
        finite = score is not None and math.isfinite(score)
        yield *map(replace_surrogates, (sentence, translation)), score if finite else None


def drop_reason(*sides: str) -> str | None:
    """Why no model should learn from the pair (SPEC section 6), or None."""
    if min(len(side.strip()) for side in sides) < MIN_SIDE_CHARS:
        return "too_short"
    return "marks" if any(mark in side for side in sides for mark in FORBIDDEN_CHARS) else None


def _flores(source: DatasetSpec) -> LoadedPairs:
    read, part = LoadedPairs(), source.split or "dev"
    first = _part_of("flores", source.src, part, source.data_dir)
    for language in source.targets:
        second = _part_of("flores", language, part, source.data_dir)
        if len(first.texts) != len(second.texts):
            raise UsageError(f"{first.source} has {len(first.texts)} lines, but {second.source} {len(second.texts)}")
        # Lines are parallel in all languages: those of one number stay together.
        groups = [f"flores {part} {id_}" for id_ in first.ids]
        read.add_texts(source.src, language, zip(first.texts, second.texts, groups, strict=True))
        read.origins[direction(source.src.name, language.name)] = _origin(first, second)
    return read


def _udhr(source: DatasetSpec) -> LoadedPairs:
    read, part = LoadedPairs(), source.split or "dev"
    first = _part_of("udhr", source.src, part)
    for language in source.targets:
        second = _part_of("udhr", language, part)
        pairs = examples.aligned_articles(first, second)
        read.add_texts(source.src, language, ((*pair, f"udhr {article}") for article, pair in pairs))
        read.counts[direction(source.src.name, language.name)]["unaligned"] = len(second.texts) - len(pairs)
        read.origins[direction(source.src.name, language.name)] = _origin(first, second)
    return read


def _part_of(name: str, language: Language, part: str, folder: Path | None = None) -> Split:
    try:
        splits = {split.name: split for split in benchmarks.load(name, language, folder)}
    except benchmarks.CannotLoad as error:
        raise UsageError(f"{error}; pass --data_dir FOLDER with a copy of it, or train on udhr (embedded)") from None
    if part not in splits:
        raise UsageError(f"{name} has no split {part!r}, only {', '.join(splits)}; pass one of them as --split")
    return splits[part]


def _origin(source: Split, target: Split) -> dict:
    return {
        "path": target.source,
        "sha256": target.fingerprint,
        "source_path": source.source,
        "source_sha256": source.fingerprint,
    }


def _smol(source: DatasetSpec) -> LoadedPairs:
    read, subset = LoadedPairs(), source.subset or "smolsent"
    if subset not in SMOL_SIDES:
        raise UsageError(f"smol has no subset {subset!r}: choose from {', '.join(SMOL_SIDES)}")
    if source.src.flores != "eng_Latn":
        raise UsageError(f"smol is translated from English, not {source.src.name}: pass --src English")
    for language in source.targets:
        codes = [code for code in (language.iso639_1, language.iso639_3) if code]
        if source.data_dir is not None:
            files = [source.data_dir / subset / f"en_{code}.jsonl" for code in codes]
            path = next((file for file in files if file.is_file()), None)
            if path is None:
                raise UsageError(
                    f"no {subset}/{' or '.join(file.name for file in files)} in {source.data_dir}: SMOL may lack "
                    f"{language.name}, or lie in another --data_dir"
                )
            rows, where, known = read_jsonl(path), str(path), sha256(path)
        else:
            config, part = f"{subset}__en_{codes[0]}", source.split or "train"
            try:
                rows = list(benchmarks.hub_dataset(SMOL_REPO, config, part))
            except UsageError as error:
                raise UsageError(
                    f"{error}; without internet pass --data_dir FOLDER with {subset}/en_{codes[0]}.jsonl"
                ) from None
            where = benchmarks.hub_name(SMOL_REPO, config, part)
            known = None
        key = direction(source.src.name, language.name)
        counts = read.counts[key]
        texts = list(smol_texts(rows, subset, where, counts))
        read.add_texts(source.src, language, texts)
        read.origins[key] = {"path": where, "sha256": known or sha256_of_texts(texts)}
    return read


def smol_texts(rows: Iterable[dict], subset: str, where: str, counts: Counter) -> Iterator[tuple[str, str, str]]:
    """(source, target, group) of each pair; a document whose sides differ in length is counted and left out.

    Raises UsageError when a row has not the columns of the subset, or no texts in them.
    """
    columns = SMOL_SIDES[subset]
    for number, row in enumerate(rows, start=1):
        if not set(columns) <= row.keys():
            raise UsageError(f"{where}, row {number}: no columns {' and '.join(columns)}, only {', '.join(row)}")
        sides = [row[column] if subset == "smoldoc" else [row[column]] for column in columns]
        if not all(isinstance(side, list) and all(isinstance(text, str | None) for text in side) for side in sides):
            raise UsageError(f"{where}, row {number}: {' and '.join(columns)} hold no texts")
        if len(sides[0]) != len(sides[1]):
            counts["unaligned_documents"] += 1
            continue
        for source, target in zip(*sides, strict=True):
            yield source or "", target or "", f"{where} {number}"


def sha256(*paths: Path) -> str:
    """Of the bytes of the files, one behind the other."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def sha256_of_texts(rows: Iterable[tuple[str, ...]]) -> str:
    """Of all texts, a line feed behind each."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update("".join(f"{text}\n" for text in row).encode("utf-8", "replace"))
    return digest.hexdigest()


NAMED: dict[str, Callable[[DatasetSpec], LoadedPairs]] = {
    "topxgen": _topxgen,
    "ours": _topxgen,
    "flores": _flores,
    "smol": _smol,
    "udhr": _udhr,
}
