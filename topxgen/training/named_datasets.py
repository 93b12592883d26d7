"""Training sets with a name.

topxgen (alias ours): generated pairs, as decontamination.py wrote them. flores: FLORES-200 dev. smol: SMOL
(https://huggingface.co/datasets/google/smol). udhr: the embedded Universal Declaration of Human Rights.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from topxgen.common import freshness
from topxgen.common.errors import UsageError
from topxgen.common.files import read_jsonl
from topxgen.common.needs import DATASET, Need
from topxgen.common.records import (
    FilteredLayout,
    folders_below,
    read_translations,
    target_language_of,
    translations_name,
)
from topxgen.corpora import benchmarks, examples, hub_sets
from topxgen.corpora.splits import Split, refuse_copies
from topxgen.text.language_id import is_in_script
from topxgen.text.languages import Language
from topxgen.text.words import length
from topxgen.training.dataset_spec import DatasetSpec, LoadedPairs, sha256_of_files, sha256_of_texts
from topxgen.training.pairs import Pair, direction

SCORED = ("topxgen", "ours")  # the names of data whose pairs have scores
SMOL_REPO = "google/smol"
SMOL_COLUMNS = {"smolsent": ("src", "trg"), "smoldoc": ("srcs", "trgs")}  # of source and target, by subset
# TopXGen's filter for training pairs (docs/training.md). The characters are those of headings, quotations and markup.
MIN_SIDE_CHARS = 10
FORBIDDEN_CHARS = "#>"


def _topxgen(spec: DatasetSpec) -> LoadedPairs:
    data = LoadedPairs()
    if not spec.data_dir:
        raise UsageError(
            f"--dataset_name_or_path {spec.dataset_name_or_path} reads {{Language}}_translate_filtered.jsonl: pass "
            "--data_dir, the folder that decontamination.py wrote to"
        )
    for folder in spec.data_dir:
        if not folder.is_dir():
            raise UsageError(f"--data_dir {folder} does not exist; pass the folder that decontamination.py wrote to")
        written_in = target_language_of(folder, spec.src.name)
        if written_in != spec.src.name:
            raise UsageError(
                f"the translations in {folder} are into {written_in}, not {spec.src.name}: pass --src {written_in!r}"
            )
    for language in spec.target_languages:
        paths = [FilteredLayout(folder).filtered(language.name) for folder in spec.data_dir]
        key = direction(spec.src.name, language.name)
        for number, (folder, path) in enumerate(zip(spec.data_dir, paths, strict=True)):
            if not path.is_file():
                raise _missing_language(folder, language)
            freshness.check(path)
            _read_pairs(path, number, language, spec, data)
        data.origins[key] = {"path": ", ".join(map(str, paths)), "sha256": sha256_of_files(*paths)}
    return data


def _read_pairs(path: Path, folder: int, language: Language, spec: DatasetSpec, data: LoadedPairs) -> None:
    """Add the pairs of the `folder`-th of --data_dir. Ids are unique within one folder."""
    counts = data.counts[direction(spec.src.name, language.name)]
    prefix = f"{language.name} {folder}:" if folder else f"{language.name} "
    for id_, record in read_translations(path, ("scores",)):
        sentences, scores = record["propositions"], record.get("scores") or [None] * len(record["propositions"])
        for sentence, translation, score in zip(sentences, record["translations"], scores, strict=True):
            counts["read"] += 1
            if reason := drop_reason(translation, sentence):
                counts[reason] += 1
                continue
            pair = Pair(translation, sentence, spec.src.name, language.name, f"{prefix}{id_}")
            data.add(pair, score, record.get("scorer"), folder)


def _missing_language(folder: Path, language: Language) -> UsageError:
    ending = FilteredLayout(folder).filtered("").name
    present = sorted(path.name.removesuffix(ending) for path in folder.glob(f"*{ending}"))
    remedy = "pass another --data_dir or --target_languages"
    if below := folders_below(folder, f"{language.name}{ending}"):
        remedy = f"pass --data_dir {below}"
    elif (folder / translations_name(language.name)).is_file():
        remedy = f"run decontamination.py --input_dir {folder} --languages {language.name!r} first"
    return UsageError(
        f"{folder} has no {language.name}{ending} (languages present: {', '.join(present) or 'none'}); {remedy}"
    )


def drop_reason(*sides: str) -> str | None:
    """Why a pair is not fit for training, or None."""
    if min(length(side.strip()) for side in sides) < MIN_SIDE_CHARS:
        return "too_short"
    return "forbidden_characters" if any(char in side for side in sides for char in FORBIDDEN_CHARS) else None


def _flores(spec: DatasetSpec) -> LoadedPairs:
    data, split = LoadedPairs(), spec.split or "dev"
    source = _load_split("flores", spec.src, split, spec)
    for language in spec.target_languages:
        target = _load_split("flores", language, split, spec)
        refuse_copies([source, target])
        if len(source.texts) != len(target.texts):
            raise UsageError(f"{source.source} has {len(source.texts)} lines, but {target.source} {len(target.texts)}")
        # Lines are parallel in all languages, so the pairs of one line number are a group.
        groups = [f"flores {split} {id_}" for id_ in source.ids]
        data.add_texts(spec.src, language, zip(source.texts, target.texts, groups, strict=True))
        data.origins[direction(spec.src.name, language.name)] = _origin(source, target)
    return data


def _udhr(spec: DatasetSpec) -> LoadedPairs:
    data, split = LoadedPairs(), spec.split or "dev"
    source = _load_split("udhr", spec.src, split, spec)
    for language in spec.target_languages:
        target = _load_split("udhr", language, split, spec)
        aligned, key = examples.aligned_articles(source, target), direction(spec.src.name, language.name)
        data.add_texts(spec.src, language, ((*texts, f"udhr {article}") for article, texts in aligned))
        data.counts[key]["unaligned"] = len(target.texts) - len(aligned)
        data.origins[key] = _origin(source, target)
    return data


def _load_split(name: str, language: Language, split: str, spec: DatasetSpec) -> Split:
    folder, allow_partial = next(iter(spec.data_dir), None), spec.allow_partial_benchmark
    try:
        splits = {
            loaded.name: loaded for loaded in benchmarks.load(name, language, folder, allow_partial=allow_partial)
        }
    except benchmarks.CannotLoad as error:
        raise UsageError(f"{error}; pass --data_dir FOLDER with a copy of it, or train on udhr (embedded)") from None
    if split not in splits:
        raise UsageError(f"{name} has no split {split!r}, only {', '.join(splits)}; pass one of them as --split")
    return splits[split]


def _origin(source: Split, target: Split) -> dict:
    return {
        "path": target.source,
        "sha256": target.fingerprint,
        "source_path": source.source,
        "source_sha256": source.fingerprint,
        **({"published_texts": target.published_size} if target.is_partial else {}),
    }


def needs(spec: DatasetSpec) -> list[Need]:
    """What the data set of --dataset_name_or_path gets from the Hub."""
    name, folder = spec.dataset_name_or_path, next(iter(spec.data_dir), None)
    if name == "smol":
        subset = spec.subset or "smolsent"
        configs = (f"{subset}__en_{row.iso639_1 or row.iso639_3}" for row in spec.target_languages)
        return [] if folder else [Need(DATASET, SMOL_REPO, tuple(configs))]
    if name in NAMED:
        if name not in benchmarks.LOADERS:
            return []
        return benchmarks.needs(name, [spec.src, *spec.target_languages], benchmarks.folder_or_default(folder))
    return [Need(DATASET, name, (spec.subset,) if spec.subset else ())]


def _smol(spec: DatasetSpec) -> LoadedPairs:
    data, subset = LoadedPairs(), spec.subset or "smolsent"
    if subset not in SMOL_COLUMNS:
        raise UsageError(f"smol has no subset {subset!r}: pass one of {', '.join(SMOL_COLUMNS)} as --subset")
    if spec.src.flores != "eng_Latn":
        raise UsageError(f"smol is translated from English, not {spec.src.name}: pass --src English")
    for language in spec.target_languages:
        codes = [code for code in (language.iso639_1, language.iso639_3) if code]
        sha256 = None
        if spec.data_dir:
            folder = spec.data_dir[0]
            files = [folder / subset / f"en_{code}.jsonl" for code in codes]
            path = next((file for file in files if file.is_file()), None)
            if path is None:
                raise UsageError(
                    f"no {subset}/{' or '.join(file.name for file in files)} in {folder}: pass another --data_dir, "
                    f"if SMOL has {language.name} at all"
                )
            rows, where, sha256 = read_jsonl(path), str(path), sha256_of_files(path)
        else:
            config, split = f"{subset}__en_{codes[0]}", spec.split or "train"
            try:
                rows = list(hub_sets.dataset(SMOL_REPO, config, split))
            except UsageError as error:
                raise UsageError(
                    f"{error}; without internet pass --data_dir FOLDER with {subset}/en_{codes[0]}.jsonl"
                ) from None
            where = hub_sets.source(SMOL_REPO, config, split)
        key = direction(spec.src.name, language.name)
        texts = list(smol_texts(rows, subset, where, data.counts[key]))
        # SMOL's crh is in Cyrillic letters, crh-Latn is FLORES-200's.
        if not is_in_script(" ".join(target for _, target, _ in texts), language.script):
            raise UsageError(f"{where} is in another script than {language.name} ({language.flores})")
        data.add_texts(spec.src, language, texts)
        data.origins[key] = {"path": where, "sha256": sha256 or sha256_of_texts(texts)}
    return data


def smol_texts(rows: Iterable[dict], subset: str, where: str, counts: Counter) -> Iterator[tuple[str, str, str]]:
    """(source, target, group) of each pair; documents whose sides differ in length are counted and skipped.

    Raises UsageError for a row without the subset's columns or without texts in them.
    """
    columns = SMOL_COLUMNS[subset]
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


NAMED: dict[str, Callable[[DatasetSpec], LoadedPairs]] = {
    "topxgen": _topxgen,
    "ours": _topxgen,
    "flores": _flores,
    "smol": _smol,
    "udhr": _udhr,
}
