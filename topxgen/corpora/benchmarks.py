"""Benchmarks: every split of an evaluation set in a language, as its publishers wrote it.

LOADERS has a row for each published benchmark: FLORES-200 (https://github.com/facebookresearch/flores; on the Hub FLORES+),
NTREX-128 (https://github.com/MicrosoftTranslator/NTREX), TICO-19 (https://tico-19.github.io), XQuAD
(https://github.com/google-deepmind/xquad) and the embedded Universal Declaration of Human Rights. Your own benchmark is
a file, a folder or a Hub data set, with a mapping of its columns to languages where labels and names do not say
(rules: topxgen/corpora/tables.py), or a loader. What prompts show to a model comes from examples.py.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from topxgen.common import environment
from topxgen.common.errors import UsageError
from topxgen.common.needs import DATASET, UDHR_TEXT, Need
from topxgen.common.registry import Choice, load_choice
from topxgen.corpora import hub_sets, own_benchmarks, tables
from topxgen.corpora.splits import SIZES, Split, check_published
from topxgen.corpora.tables import SUFFIXES, name_parts, read_json, read_lines
from topxgen.text import languages
from topxgen.text.languages import Language

# One row a benchmark: "module:function". The function takes the name, a Language and the folder of --benchmark_dir (None: the
# Hub), and returns the splits in that language. It raises LacksLanguage, or UsageError for anything else that is wrong.
LOADERS: dict[str, Choice] = {
    "flores": Choice("topxgen.corpora.benchmarks:load_flores", "FLORES-200 dev (997 sentences) and devtest (1,012)"),
    "ntrex": Choice("topxgen.corpora.benchmarks:load_ntrex", "NTREX-128 test (the first 1,000 lines) and pool (997)"),
    "tico": Choice("topxgen.corpora.benchmarks:load_tico", "TICO-19 dev (971 sentences) and test (2,100)"),
    "xquad": Choice("topxgen.corpora.benchmarks:load_xquad", "XQuAD validation (240 paragraphs)"),
    "udhr": Choice("topxgen.corpora.benchmarks:load_udhr", "UDHR dev (preamble, articles 1 to 20) and test (21 to 30)"),
}
OWN = "your own as a file or folder (.txt .tsv .csv .json .jsonl .parquet; my.tsv:Basque=2,English=3) or Hub data set org/name"
UDHR = Path(__file__).parents[2] / "data" / "udhr"
UDHR_DEV = ("preamble", *map(str, range(1, 21)))  # articles that prompts may show; the others are the test set
# Rows of the language table that neither FLORES-200 nor (but for the last two) FLORES+ has.
NOT_IN_FLORES = (
    "div_Thaa", "fuc_Latn", "hmn_Latn", "mey_Arab", "nde_Latn", "shi_Arab", "tah_Latn", "ton_Latn", "ven_Latn", "nqo_Nkoo",
    "vmw_Latn",
)  # fmt: skip
REPOS = {
    "flores": "openlanguagedata/flores_plus",
    "ntrex": "mteb/NTREX",
    "tico": "gmnlp/tico19",
    "xquad": "google/xquad",
}
# FLORES-200 languages that FLORES+ renamed.
FLORES_PLUS = {
    "ajp_Arab": "apc_Arab_sout3123", "aka_Latn": "twi_Latn_asan1239", "apc_Arab": "apc_Arab_nort3139",
    "est_Latn": "ekk_Latn", "grn_Latn": "gug_Latn", "kon_Latn": "ktu_Latn", "sat_Beng": "sat_Olck",
    "tgl_Latn": "fil_Latn", "twi_Latn": "twi_Latn_akua1239", "tzm_Tfng": "zgh_Tfng",
    "zho_Hans": "cmn_Hans", "zho_Hant": "cmn_Hant",
}  # fmt: skip
XQUAD_CODES = {
    "arb_Arab": "ar", "deu_Latn": "de", "ell_Grek": "el", "eng_Latn": "en", "spa_Latn": "es", "hin_Deva": "hi",
    "ron_Latn": "ro", "rus_Cyrl": "ru", "tha_Thai": "th", "tur_Latn": "tr", "vie_Latn": "vi", "zho_Hans": "zh",
}  # fmt: skip
_NTREX_TEST_LINES = SIZES["ntrex"]["test"]
_REGION_SCRIPTS = {"CN": "Hans", "SG": "Hans", "TW": "Hant", "HK": "Hant", "MO": "Hant"}
_HUB_SOURCE = re.compile(r"(\w[\w.-]*/[\w.-]+)(?::([^:=]+))?(?::([^:]+=.*))?")  # org/name[:config][:mapping]


T, R = TypeVar("T"), TypeVar("R")
VARIABLE = "TOPXGEN_BENCHMARK_DIR"
MAX_ROOMS = 3  # folders above a file of a benchmark that can be its --benchmark_dir


class LacksLanguage(UsageError):
    """The benchmark as published has no such language."""


class CannotLoad(UsageError):
    """The benchmark has the language, but is missing or cannot be read."""


def folder_or_default(folder: Path | None) -> Path | None:
    """`folder`, else that of $TOPXGEN_BENCHMARK_DIR, if it is set. Raises UsageError if that is not a folder."""
    if folder is not None or not os.environ.get(VARIABLE):
        return folder
    if not (default := environment.folder(VARIABLE, "")).is_dir():
        raise UsageError(f"the environment variable {VARIABLE} is {str(default)!r}, not a folder; correct or unset it")
    return default


def existing_folder(folder: Path | None) -> Path | None:
    """As `folder_or_default`; raises UsageError, too, if `folder` (--benchmark_dir) is not a folder."""
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--benchmark_dir {folder} is not a folder; pass one with copies of benchmarks")
    return folder_or_default(folder)


def folders_of(source: str) -> list[Path]:
    """Which folders may be the --benchmark_dir that a recorded source of texts comes from: none if it is not here."""
    path = tables.split_source(source)[0]
    return list(path.parents)[:MAX_ROOMS] if path.is_file() else []


def from_first_of(folders: list[T], load: Callable[[T], R]) -> R:
    """`load` of the first folder that has what it reads. Raises its UsageError for the last one."""
    for folder in folders[:-1]:
        with suppress(UsageError):
            return load(folder)
    return load(folders[-1])


def load(
    name: str,
    language: Language,
    folder: Path | None = None,
    languages_file: str | None = None,
    allow_partial: bool = False,
) -> list[Split]:
    """All splits of a benchmark in `language`; `name` is one of LOADERS or a user's own (see tables.py).

    With `folder` (--benchmark_dir, or $TOPXGEN_BENCHMARK_DIR) the benchmarks of LOADERS are read from their publishers' layouts
    in it, never from the Hub; without it from the Hub. A user's own may be labelled with languages of `languages_file`, too. The splits of
    SIZES must have these numbers of texts, unless `allow_partial` (--allow_partial_benchmark).
    Raises LacksLanguage when the benchmark has no such language, CannotLoad when it is missing, broken or empty, and
    UsageError when `name` names no benchmark. The messages give the cause; the remedy depends on the script.
    """
    folder = folder if name == "udhr" else folder_or_default(folder)
    known = (language, *languages.load(languages_file).values())
    loader = load_choice("benchmark", name, LOADERS) if name in LOADERS else _own_loader(name, known)
    try:
        if folder is not None and name in LOADERS and not folder.is_dir():
            raise UsageError(f"{folder} is not a folder")
        splits = loader(name, language, folder)
        filled = {split.source for split in splits if any(text.strip() for text in split.texts)}
        english: list[Split] = []
        if folder is not None and name in SIZES and language.flores != "eng_Latn":
            with suppress(UsageError):  # the folder may lack them
                english = loader(name, languages.find("English"), folder)
        for split in splits:
            if split.source not in filled:
                raise UsageError(f"{split.source} is empty")
            if name != "udhr":  # embedded, and read at the start of each command
                check_published(split, language, english, allow_partial)
    except LacksLanguage:
        raise
    except UsageError as error:
        raise CannotLoad(f"cannot load {name} in {language.name}: {error}") from None
    if not splits:
        raise LacksLanguage(f"{name} has no {language.name}: its files and columns are in other languages")
    return splits


def check(name: str, languages_file: str | None = None) -> None:
    """Raise UsageError if `name` names no benchmark, a file or folder that is not there, or columns that its file does not have."""
    if name in LOADERS:
        return
    known = tuple(languages.load(languages_file).values())
    loader, (path, _, mapping) = _own_loader(name, known), tables.split_source(name)
    if path.suffix.lower() in SUFFIXES:
        if not path.exists():
            raise UsageError(f"benchmark {name!r}: there is no file or folder {path}")
        for code in tables.parse_mapping(mapping, known) or ("English",):
            loader(name, languages.find(code, languages_file), None)


def needs(name: str, chosen: Iterable[Language], folder: Path | None = None) -> list[Need]:
    """What `load` reads of a benchmark in some languages that comes from elsewhere: nothing where `folder` or a file of the user's has it.

    Languages that a benchmark lacks are left out where the table of languages says so. $TOPXGEN_BENCHMARK_DIR is the caller's to ask:
    examples in prompts come from the Hub whatever it says.
    """
    chosen = list(chosen)
    if name == "udhr":
        return [Need(UDHR_TEXT, str(UDHR))]
    if name in REPOS:
        return [] if folder is not None else [Need(DATASET, REPOS[name], *_parts_of(name, chosen))]
    hub = _HUB_SOURCE.fullmatch(name)
    if local_source(name) or not hub or tables.split_source(name)[0].suffix.lower() in SUFFIXES:
        return []
    return [Need(DATASET, hub[1], (hub[2],) if hub[2] else ())]


def _parts_of(name: str, chosen: list[Language]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(configurations, patterns of files) of a published benchmark's repository; neither: all of it."""
    if name == "flores":
        return tuple(flores_codes(row)[-1] for row in chosen if row.flores not in NOT_IN_FLORES), ()
    if name == "xquad":
        return tuple(f"xquad.{XQUAD_CODES[row.flores]}" for row in chosen if row.flores in XQUAD_CODES), ()
    if name == "tico":
        return (), tuple(pattern for row in chosen for pattern in tico_patterns(row))
    return (), ()


def load_flores(name: str, language: Language, folder: Path | None) -> list[Split]:
    in_table = language.flores not in NOT_IN_FLORES and any(
        row.flores == language.flores for row in languages.load().values()
    )
    lacks = None if in_table else _lacks(name, language, "the languages of topxgen/text/languages.tsv")
    splits = ("dev", "devtest")
    if folder is not None:
        files = _files(folder, {split: flores_files(language, split) for split in splits}, lacks)
        return [lines_of(name, split, language, read_lines(path), str(path)) for split, path in files.items()]
    code = flores_codes(language)[-1]
    try:
        sides = {split: hub_sets.column(REPOS[name], code, split, "text") for split in splits}
    except UsageError as error:
        # The Hub lists its configs: FLORES+ has languages that the table lacks, but not this one.
        raise lacks if lacks and "BuilderConfig" in str(error) else error from None
    return [lines_of(name, split, language, *side) for split, side in sides.items()]


def flores_codes(language: Language) -> list[str]:
    """The code in FLORES-200, and the one in FLORES+ where it is another."""
    return list(dict.fromkeys((language.flores, FLORES_PLUS.get(language.flores, language.flores))))


def flores_files(language: Language, split: str) -> list[str]:
    """Where a folder may hold a split of FLORES: as published, or without the outermost folder."""
    codes = flores_codes(language)
    return [f"{room}{split}/{code}.{split}" for room in ("", "flores200_dataset/") for code in codes]


def load_ntrex(name: str, language: Language, folder: Path | None) -> list[Split]:
    """All translations into the language in its script: fra and fra-CA, but zho-CN without zho-TW."""
    lacks = None if language.ntrex else _lacks(name, language, "those with a code for it in topxgen/text/languages.tsv")
    if folder is not None:
        sides = {tag: (read_lines(path), str(path)) for tag, path in _ntrex_files(folder, language, lacks).items()}
    elif lacks:
        raise lacks
    else:
        data = hub_sets.dataset(REPOS[name], None, "test")
        columns = _ntrex_columns(data.column_names, language)
        sides = {
            tag: (hub_sets.texts(data, column), hub_sets.source(REPOS[name], column, "test"))
            for tag, column in columns.items()
        }
    splits = []
    for tag, (texts, source) in sides.items():
        splits.append(lines_of(name, f"test{tag}", language, texts[:_NTREX_TEST_LINES], source))
        splits.append(lines_of(name, f"pool{tag}", language, texts[_NTREX_TEST_LINES:], source, _NTREX_TEST_LINES + 1))
    return splits


def _ntrex_files(folder: Path, language: Language, lacks: LacksLanguage | None) -> dict[str, Path]:
    """Files by what follows the name of a split: "" for the main one, " (fra-CA)", " (spa-2)" (a second translation)."""
    codes = _codes(language, "ntrex")
    regions = (region for region, script in _REGION_SCRIPTS.items() if script == language.script)
    suffixes = ("", language.script, *regions)
    names = [
        f"newstest2019-{'src' if code == 'eng' else 'ref'}.{'-'.join(filter(None, (code, suffix)))}.txt"
        for code in codes
        for suffix in suffixes
    ]
    variants = {}
    for path in sorted([*folder.glob("NTREX-128/newstest2019-ref*.txt"), *folder.glob("newstest2019-ref*.txt")]):
        match = re.fullmatch(r"newstest2019-ref(-\d)?\.(([a-z]+)(?:-\w+)?)\.txt", path.name)
        if match and match[3] in codes and _same_script(match[2], language):
            variants[f" ({match[2]}{match[1] or ''})"] = path
    rooms = [room + name for room in ("NTREX-128/", "") for name in names]
    main = _files(folder, {"": rooms}, None if variants else lacks)
    return main | {tag: path for tag, path in variants.items() if path != main[""]}


def _ntrex_columns(columns: list[str], language: Language) -> dict[str, str]:
    """Columns by what follows the name of a split: fra_Latn under "", fra-CA_Latn under " (fra-CA)"."""
    if language.ntrex not in columns:
        raise UsageError(f"{REPOS['ntrex']} has no column {language.ntrex}, only {', '.join(columns)}")
    code, script = language.ntrex.split("_")
    matches = (re.fullmatch(rf"({code}-\w+)_{script}", column) for column in columns)
    return {"": language.ntrex} | {f" ({match[1]})": match[0] for match in matches if match}


def load_tico(name: str, language: Language, folder: Path | None) -> list[Split]:
    """All translations into the language, as ti, ti_ER and ti_ET; English from one file, as all have the same."""
    english = language.flores == "eng_Latn"
    known = english or language.tico
    lacks = None if known else _lacks(name, language, "those with a code for it in topxgen/text/languages.tsv")
    codes = _codes(language, "tico")
    root = folder
    if root is None:
        if lacks:
            raise lacks
        # `datasets` no longer runs loading scripts, which this repository has; its files are the published ones.
        root = hub_sets.files(REPOS[name], tico_patterns(language))
    files_of: dict[str, dict[str, Path]] = {}  # by split and code
    for split in ("dev", "test"):
        paths = [path for room in (".", "tico19-testset") for path in root.glob(f"{room}/{split}/{split}.en-*.tsv")]
        files = {path.name.removeprefix(f"{split}.en-").removesuffix(".tsv"): path for path in sorted(paths)}
        matching = [code for code in files if name_parts(code)[0] in codes and _same_script(code, language)]
        matching.sort(key=lambda code: code != language.tico)  # the one in the table of languages first
        if english:
            matching = (matching or list(files))[:1]
        files_of[split] = {code: files[code] for code in matching}
    if lacks and not any(files_of.values()):
        raise lacks
    splits = []
    for split, files in files_of.items():
        if not files:
            raise UsageError(f"no tico19-testset/{split}/{split}.en-{language.tico or '*'}.tsv in {root}")
        for i, (code, path) in enumerate(files.items()):
            ids, texts = _read_tico(path, "sourceString" if english else "targetString")
            source = str(path) if folder else hub_sets.source(REPOS[name], f"en-{code}", split)
            splits.append(Split(name, f"{split} ({code})" if i else split, language.name, ids, texts, source))
    return splits


def tico_patterns(language: Language) -> list[str]:
    """The files of the Hub's repository with texts in a language; English is in all of them, and so in the French ones."""
    codes = _codes(language, "tico") if language.tico else ["fr"]
    return [f"*/*.en-{code}*.tsv" for code in codes]


def _read_tico(path: Path, column: str) -> tuple[list[str], list[str]]:
    header, *rows = [line.split("\t") for line in read_lines(path)] or [[]]  # nothing in it is quoted
    if column not in header:
        raise UsageError(f"{path} has no column {column}, only {', '.join(header)}")
    ids, texts = [], []
    for number, row in enumerate(rows, start=2):
        if len(row) <= header.index(column):
            raise UsageError(f"{path}, line {number}: {len(row)} columns instead of {len(header)}")
        cells = dict(zip(header, row, strict=False))
        ids.append(cells.get("stringID") or str(number))
        texts.append(cells[column])
    return ids, texts


def load_xquad(name: str, language: Language, folder: Path | None) -> list[Split]:
    code = XQUAD_CODES.get(language.flores)
    names = ", ".join(languages.find(flores).name for flores in XQUAD_CODES)
    lacks = None if code else _lacks(name, language, names)
    if folder is not None:
        codes = [code] if code else {language.iso639_1, language.iso639_3} - {"", *XQUAD_CODES.values()}
        files = _files(folder, {"": [file for code in sorted(codes) for file in xquad_files(code)]}, lacks)
        pairs, source = read_squad(files[""]), str(files[""])
    elif lacks:
        raise lacks
    else:
        texts, source = hub_sets.column(REPOS[name], f"xquad.{code}", "validation", "context")  # once for each question
        pairs = [(str(number), text) for number, text in enumerate(dict.fromkeys(texts), start=1)]
    ids: dict[str, str] = {}
    for id_, text in pairs:
        ids.setdefault(text, id_)
    return [Split(name, "validation", language.name, list(ids.values()), list(ids), source)]


def xquad_files(code: str) -> list[str]:
    """Where a folder may hold XQuAD in a language: as published, or without the folder."""
    return [f"xquad/xquad.{code}.json", f"xquad.{code}.json"]


def load_udhr(name: str, language: Language, folder: Path | None) -> list[Split]:
    path = UDHR / f"{language.flores}.tsv"
    if not path.is_file():
        if not UDHR.is_dir():
            raise CannotLoad(
                f"{UDHR}: a clone has the UDHR, a wheel does not; clone the repository and pip install -e ."
            )
        raise _lacks(name, language, "the languages of data/udhr")
    parts: dict[str, tuple[list[str], list[str]]] = {"dev": ([], []), "test": ([], [])}
    paragraphs: Counter = Counter()
    for line in read_lines(path):
        article, text = line.split("\t", 1)
        paragraphs[article] += 1
        ids, texts = parts["dev" if article in UDHR_DEV else "test"]
        ids.append(f"{article} {paragraphs[article]}")
        texts.append(text)
    return [Split(name, part, language.name, *sides, str(path)) for part, sides in parts.items()]


def _lacks(name: str, language: Language, choices: str) -> LacksLanguage:
    return LacksLanguage(f"{name} as published has no {language.name} ({language.flores}), only {choices}")


def _files(folder: Path, wanted: dict[str, list[str]], lacks: LacksLanguage | None) -> dict[str, Path]:
    """The first existing file for each key. Raises `lacks` if there is none for any."""
    existing = {key: [folder / name for name in names if (folder / name).is_file()] for key, names in wanted.items()}
    if lacks and not any(existing.values()):
        raise lacks
    for key, paths in existing.items():
        if not paths:
            raise UsageError(f"no {' or '.join(wanted[key])} in {folder}")
    return {key: paths[0] for key, paths in existing.items()}


def _codes(language: Language, column: str) -> list[str]:
    """Codes that a benchmark may use for a language: the table's, else ISO codes that mean no other language there."""
    if code := getattr(language, column):
        return [name_parts(code)[0]]
    taken = {name_parts(getattr(row, column))[0] for row in languages.load().values()}
    isos = (language.flores.partition("_")[0], language.iso639_3, language.iso639_1)
    return [code for code in dict.fromkeys(isos) if code and code not in taken]


def _same_script(code: str, language: Language) -> bool:
    """Whether a code such as srp-Latn, zho-TW or fra-CA is compatible with the script of `language`."""
    for part in name_parts(code)[1:]:
        chinese = _REGION_SCRIPTS.get(part) if language.script in _REGION_SCRIPTS.values() else None
        script = part if len(part) == 4 and part.istitle() else chinese
        if script and script != language.script:
            return False
    return True


def lines_of(name: str, split: str, language: Language, texts: list[str], source: str, first: int = 1) -> Split:
    return Split(name, split, language.name, [str(first + i) for i in range(len(texts))], texts, source)


def read_squad(path: Path) -> list[tuple[str, str]]:
    """(title of the article and number in it, context) for each context of a file in SQuAD's format. Raises UsageError."""
    try:
        pairs = [
            (f"{article.get('title', number)} {i}", paragraph["context"])
            for number, article in enumerate(read_json(path)["data"], start=1)
            for i, paragraph in enumerate(article["paragraphs"], start=1)
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not SQuAD JSON: {error!r}") from None
    if not all(isinstance(text, str) for _, text in pairs):
        raise UsageError(f"{path} is not SQuAD JSON: a context is not a text")
    return pairs


def local_source(name: str) -> Path | None:
    """The file or folder of a user's own benchmark; None if `name` is not one."""
    path = tables.split_source(name)[0]
    return path if name and name not in LOADERS and path.exists() else None


def _own_loader(name: str, known: tuple[Language, ...]) -> Callable[[str, Language, Path | None], list[Split]]:
    """The loader of a user's own benchmark. Raises UsageError if `name` is not one."""
    path, cut, mapping_text = tables.split_source(name)
    hub = _HUB_SOURCE.fullmatch(name)
    if re.search(r"\.py:\w+$", name):
        return load_choice("benchmark", name, LOADERS)
    if local_source(name) or path.suffix.lower() in SUFFIXES or ("/" in name and not hub):
        repo, config = "", ""
    elif hub:
        repo, config, mapping_text = hub.groups("")
    else:  # module:function, or nothing
        return load_choice("benchmark", name, LOADERS, OWN)

    def load_own(name: str, language: Language, folder: Path | None) -> list[Split]:
        mapping = tables.parse_mapping(mapping_text, known)
        splits = []
        if repo:
            parts = own_benchmarks.hub_parts(name, repo, config)
        else:
            parts = own_benchmarks.file_parts(path, cut, mapping, known)
        for part in parts:
            title = config or part.name
            named: Counter[str] = Counter()  # labels can be equal
            for label, rows in tables.columns_in(language, part.columns, part.where, mapping, title, known):
                named[label] += 1
                number = f" {named[label]}" if named[label] > 1 else ""
                split = f"{part.name} ({label}{number})" if label else part.name
                splits.append(Split(name, split, language.name, *map(list, zip(*rows, strict=True)), part.source))
        return splits

    return load_own
