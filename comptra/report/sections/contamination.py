"""What the pairs share with test sets: hits by benchmark, split and side, with both texts, and what was not checked."""

import heapq
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from comptra.evaluation_sets import DATASETS
from comptra.report import Options
from topxgen.common import checksums
from topxgen.common.errors import UsageError
from topxgen.common.provenance import hash64
from topxgen.common.records import FilteredLayout
from topxgen.common.schemas import fields
from topxgen.runs import overlaps
from topxgen.runs.folders import BackTranslation, Run, relative
from topxgen.runs.reading import Problems
from topxgen.runs.rows import pairs_file, records
from topxgen.text import languages
from topxgen.text.ngram_hashes import TOKENIZERS, tokens_per_ngram

MAX_HITS = 1000  # in the page, with their texts
MAX_SHARED = 200  # pairs of texts that two splits of benchmarks share
MAX_TEXT = 5000  # characters of a text in the page
SIDES = ("sentence", "translation")
Spans = list[tuple[int, int]]


def collect(run: Run, options: Options) -> dict | None:
    """Per folder and language what was checked and found, a sample of the hits, and what was not checked.

    None where there are no pairs.
    """
    if not run.back_translations:
        return None
    found = _Found(run, options)
    for folder in run.back_translations:
        found.add_folder(folder)
    hits = found.named(found.hits.chosen())
    options.note_problems(found.problems)
    return {
        "languages": found.languages,
        "unchecked": found.unchecked,
        "rows": list(found.rows.values()),
        "hits": [_shown(hit, found.rules_of) for hit in hits],
        "total": found.hits.total,
        "between": found.between,
        "tests": _test_sets(run, options),
    }


class HitSample:
    """Of hits in any number a sample in which each row of the table (folder, language, side, benchmark, split) is represented.

    Hits are taken by a digest of their paragraph, the same in each run: those with the lowest.
    """

    def __init__(self, seed: int, limit: int = MAX_HITS):
        self.total, self._seed, self._limit = 0, seed, limit
        self._of_row: dict[tuple, list] = {}

    def add(self, row: tuple, hit: dict) -> None:
        self.total += 1
        heap = self._of_row.setdefault(row, [])
        item = (-order(self._seed, str(hit.get("id"))), -self.total, hit)
        (heapq.heappush if len(heap) < self._limit else heapq.heappushpop)(heap, item)

    def chosen(self) -> list[dict]:
        """Row by row, in the order of the files; at most `limit`, as many of each row as there is room for."""
        heaps = {row: sorted(heap, reverse=True) for row, heap in self._of_row.items()}
        count = sum(map(len, heaps.values()))
        each = self._limit
        while count > self._limit and each > 1:
            each = each * 3 // 4
            count = sum(min(len(heap), each) for heap in heaps.values())
        return [hit for heap in heaps.values() for _, _, hit in sorted(heap[:each], key=lambda item: -item[1])]


def order(seed: int, paragraph_id: str) -> int:
    """A number that decides which paragraphs the page shows if it cannot show all: those with the lowest."""
    return hash64(f"{seed} {paragraph_id}")


class _Found:
    def __init__(self, run: Run, options: Options):
        self.run, self.options = run, options
        self.languages, self.unchecked, self.between = [], [], []
        self.rows: dict[tuple, dict] = {}
        self.rules_of: dict[tuple[str, str], dict] = {}  # by folder and language
        self.hits, self.problems = HitSample(options.seed), Problems()

    def _name(self, folder: Path) -> str:
        return relative(self.run.root, folder)

    def _not_checked(self, folder: BackTranslation, language: str, text: str) -> None:
        self.unchecked.append({"folder": self._name(folder.folder), "language": language, "text": text})

    def add_folder(self, folder: BackTranslation) -> None:
        filtered = folder.filtered and FilteredLayout(folder.filtered)
        report, audit = overlaps.report(folder, self.problems), overlaps.audit(folder, self.problems)
        for source in (report, audit):
            self.between += [row for row in _between(source) if row not in self.between] if source else []
        for language in folder.languages:
            if filtered and filtered.filtered(language).exists():
                self._filtered(folder, language, report)
            elif audit and language in audit.languages:
                part = audit.languages[language]
                self._language(folder, language, "audit", part.get("settings", audit.settings), part)
                self._not_checked(folder, language, "checked by --audit only: nothing was dropped")
                self._add_hits(folder, language, audit.hits.get(language, []))
            else:
                self._not_checked(folder, language, "never went through decontamination.py")
                name = self._name(folder.folder)
                self.languages.append({"folder": name, "language": language, "status": "never", "counts": {}})

    def _filtered(self, folder: BackTranslation, language: str, report: overlaps.Report | None) -> None:
        manifest = overlaps.manifest(folder, language, self.problems)
        part = report.languages.get(language, {}) if report else {}
        if manifest and part.get("input_sha256") != manifest.get("input_sha256"):
            part = {}  # of an earlier run
        elif manifest and part.get("counts") != manifest.get("counts"):
            part = {}
            text = "decontamination_report.json counts otherwise than the manifest, which is shown"
            self._not_checked(folder, language, text)
        settings = manifest.get("settings") or part.get("settings") or (report.settings if part else {})
        if not settings:
            text = "filtered, but without a manifest or report: it is not known what it was checked against"
            self._not_checked(folder, language, text)
        if changed := _has_changed(folder.layout().translations(language), manifest, part):
            self._not_checked(folder, language, changed)
        self._language(folder, language, "filtered", settings, {**manifest, **part})
        self._add_hits(folder, language, overlaps.hits(folder, language, self.problems))

    def _language(self, folder: BackTranslation, language: str, status: str, settings: dict, part: dict) -> None:
        """Note what a language was checked against, from its settings and its part of a report or its manifest."""
        name = self._name(folder.folder)
        counts = Counter(part.get("counts") or {})
        rules = {key: value for key, value in settings.items() if isinstance(value, str | int | float | None)}
        self.rules_of[name, language] = settings
        facts = {"status": status, "counts": counts, "rules": rules, "finished": part.get("finished")}
        self.languages.append({"folder": name, "language": language, **facts})
        for reason in _unchecked(part, settings, counts, language, folder.target_language):
            self._not_checked(folder, language, reason)
        for split in part.get("overlaps") or _splits(settings):
            row = self._row(name, language, split["side"], split["benchmark"], split["split"])
            row["benchmark_texts"] = split.get("benchmark_texts", split.get("texts"))

    def _row(self, folder: str, language: str, side: str, benchmark: str, split: str) -> dict:
        key = (folder, language, side, benchmark, split)
        fields = dict(zip(("folder", "language", "side", "benchmark", "split"), key, strict=True))
        empty = {"hits": 0, "dropped": Counter(), "kinds": Counter(), "texts_hit": 0, "benchmark_texts": None}
        return self.rows.setdefault(key, {**fields, **empty})

    def _add_hits(self, folder: BackTranslation, language: str, hits: Iterable[dict]) -> None:
        name = self._name(folder.folder)
        last: dict[tuple, tuple] = {}
        benchmark_ids: dict[tuple, set] = {}
        for hit in hits:
            key = (name, language, hit["side"], hit["benchmark"], hit["split"])
            row = self._row(*key)
            # Hits of a text are consecutive: a text that overlaps several texts of a split counts once.
            if last.get(key) != (text := (hit["line"], hit["pair"])):
                row["hits"] += 1
                row["dropped"][hit["dropped"]] += 1
                row["kinds"][hit["match"]] += 1
                last[key] = text
            benchmark_ids.setdefault(key, set()).add(hit["benchmark_id"])
            self.hits.add(key, {**hit, "folder": name, "data_language": language})
        for key, ids in benchmark_ids.items():
            self.rows[key]["texts_hit"] = len(ids)

    def named(self, hits: list[dict]) -> list[dict]:
        """Hits with the ids by which the browser of pairs knows their paragraphs; published records have none."""
        for folder in self.run.back_translations:
            for language in folder.languages:
                key = self._name(folder.folder), language
                of_file = [hit for hit in hits if (hit["folder"], hit["data_language"]) == key]
                if not any(hit.get("id") is None for hit in of_file):
                    continue
                lines = {hit["line"] for hit in of_file}
                names = {n: name for n, name, _ in records(pairs_file(folder, language), self.problems) if n in lines}
                for hit in of_file:
                    hit["id"] = names.get(hit["line"], hit.get("id"))
        return hits


def _unchecked(part: dict, settings: dict, counts: Counter, language: str, target: str) -> Iterator[str]:
    """What of a language was compared with nothing, and why."""
    yield from part.get("not_checked") or []
    of_side = settings.get("benchmarks")
    if of_side is not None and "not_checked" not in part:  # no report: its manifest alone
        for side, name in zip(SIDES, (language, target), strict=True):
            if not of_side.get(side):
                yield f"the {side}s: no benchmark in {name} was loaded"
    for key, text in (
        ("not_loaded", "{} in {} was not loaded"),
        ("language_not_covered", "{} has no texts in {}"),
        ("partial", "{} in {} is a partial copy: the rest of it was not compared"),
    ):
        for name, where in part.get(key) or settings.get(key) or ():
            yield text.format(name, where)
    if "partial" not in part:
        for row in _splits(settings):
            if row.get("published_texts"):
                yield (
                    f"{row['benchmark']} {row['split']} in {row['language']} is a partial copy "
                    f"({row.get('texts')} of {row['published_texts']} texts): the rest of it was not compared"
                )
    if counts["malformed"]:
        yield f"{counts['malformed']:,} malformed lines, which are left out of the filtered file"


def _splits(settings: dict) -> list[dict]:
    """The splits that a manifest names, with their side."""
    of_side = settings.get("benchmarks", {})
    return [{"side": side, **split} for side in SIDES for split in of_side.get(side, ())]


def _has_changed(path: Path, manifest: dict, part: dict) -> str | None:
    size, digest = (manifest.get("input") or {}).get("bytes"), part.get("input_sha256")
    if size is None and digest and path.exists() and checksums.sha256_of(path) != digest:
        return f"{path.name} has changed since"
    if size is None or not path.exists() or path.stat().st_size == size:
        return None
    return f"{path.name} has changed since: it had {size:,} bytes, and has {path.stat().st_size:,}"


def _between(report: overlaps.Report) -> list[dict]:
    """What benchmarks share with each other, with the texts of some pairs."""
    rows = []
    for row in report.between_benchmarks:
        pairs = []
        for pair in row["pairs"][:MAX_SHARED]:
            rules = {"ngram_size": 10, "tokenizer": "unicode", **report.settings}
            texts = _pair(pair["first_text"], pair["second_text"], pair.get("match", "ngram"), rules, row["language"])
            pairs.append({**{key: pair[key] for key in ("first_id", "second_id")}, **texts})
        rows.append(
            {**{key: value for key, value in row.items() if key != "pairs"}, "pairs": pairs, "count": len(row["pairs"])}
        )
    return rows


def _shown(hit: dict, rules_of: dict[tuple[str, str], dict]) -> dict:
    """A hit for the page: both texts, cut, with the spans that they share."""
    rules = rules_of[hit["folder"], hit["data_language"]]
    language = hit.get("language") or hit["data_language"]
    left_out = {"text", "benchmark_text", "shared_ngram", "language", "data_language"}
    return {
        **{key: value for key, value in hit.items() if key not in left_out},
        "language": hit["data_language"],
        "text_language": language,
        **_pair(hit["text"], hit["benchmark_text"], hit["match"], rules, language),
    }


def _pair(text: str, other: str, kind: str, rules: dict, language: str) -> dict:
    spans, others = shared_spans(text, other, kind, rules, language)
    return {"text": _cut(text, spans), "other": _cut(other, others)}


def _cut(text: str, spans: Spans) -> dict:
    """A text in normalization form C, at most MAX_TEXT characters of it, with spans as JavaScript counts them."""
    text = unicodedata.normalize("NFC", text)
    length, text = len(text), text[:MAX_TEXT]
    at = units_before(text)
    spans = [(at(start), at(min(end, len(text)))) for start, end in spans if start < len(text)]
    return {"text": text, "spans": spans} | ({"length": length} if length > MAX_TEXT else {})


def units_before(text: str) -> Callable[[int], int]:
    """A function from a place in a text to that place as JavaScript counts it."""
    if text.isascii() or max(text) <= "\uffff":
        return lambda place: place
    return lambda place: len(text[:place].encode("utf-16-le", "surrogatepass")) // 2


def shared_spans(text: str, other: str, kind: str, rules: dict, language: str) -> tuple[Spans, Spans]:
    """Where the words lie that a text and a benchmark text share: (start, end) in both, in normalization form C.

    `kind`: `match` of a hit. All n-grams that both have, by the tokens and lengths of `rules`, those of decontamination.py; of a
    benchmark text shorter than an n-gram all its tokens in a row; of near-duplicates the longest common subsequence, as in
    ROUGE-L.
    """
    tokenizer = TOKENIZERS.get(rules.get("tokenizer"), TOKENIZERS["unicode"])
    n = rules.get("tokens_per_ngram", {}).get(language)
    n = n or tokens_per_ngram(rules.get("ngram_size", 10), _script(language), tokenizer.name)
    spans, other_spans = tokenizer.spans(text), tokenizer.spans(other)
    tokens, other_tokens = ([token for token, _, _ in one] for one in (spans, other_spans))
    if kind == "near_duplicate":
        from rapidfuzz.distance import LCSseq

        blocks = [block for block in LCSseq.opcodes(tokens, other_tokens) if block.tag == "equal"]
        first = set(chain.from_iterable(range(block.src_start, block.src_end) for block in blocks))
        second = set(chain.from_iterable(range(block.dest_start, block.dest_end) for block in blocks))
    else:
        n = max(1, min(n, len(other_tokens)))
        first, second = _shared(tokens, other_tokens, n), _shared(other_tokens, tokens, n)
    return _joined(spans, first), _joined(other_spans, second)


def _shared(tokens: list[str], others: list[str], n: int) -> set[int]:
    """The tokens in n-grams that the others have, too."""
    ngrams = {tuple(others[i : i + n]) for i in range(len(others) - n + 1)}
    places = [i for i in range(len(tokens) - n + 1) if tuple(tokens[i : i + n]) in ngrams]
    return {i for place in places for i in range(place, place + n)}


def _joined(spans: list[tuple[str, int, int]], marked: set[int]) -> Spans:
    """The spans of tokens, those of neighbours as one."""
    joined: Spans = []
    for number, (_, start, end) in enumerate(spans):
        if number not in marked:
            continue
        if joined and number - 1 in marked:
            start = joined.pop()[0]
        joined.append((start, end))
    return joined


def _script(language: str) -> str:
    try:
        return languages.find(language).script
    except UsageError:  # of the user's own table
        return ""


_Scores = fields(groups=list[fields(dataset=str, src=str, tgt=str, systems=list[dict])])


def _test_sets(run: Run, options: Options) -> list[dict]:
    """The test sets on which systems of this run were evaluated: benchmark and split, dataset, direction, number of systems."""
    tests: dict[tuple, dict] = {}
    for path in run.evaluations:
        report = options.read(path, _Scores) or {}
        for group in report.get("groups", []):
            for name in group.get("dataset", "").split("/"):
                if (dataset := DATASETS.get(name)) and dataset.test:
                    key = (*dataset.test, group.get("src"), group.get("tgt"))
                    new = dict(zip(("benchmark", "split", "src", "tgt"), key, strict=True))
                    test = tests.setdefault(key, {**new, "dataset": group["dataset"], "systems": 0})
                    test["systems"] = max(test["systems"], len(group.get("systems", [])))
    return list(tests.values())
