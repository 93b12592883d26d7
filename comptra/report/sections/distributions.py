"""Distributions: lengths, length ratios and scores of the pairs that are left, topics, near-duplicates, tokens and cost, speed.

Files are read as streams into histograms, so that memory does not grow with the number of pairs.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from comptra.report import Options
from comptra.report.histograms import Histogram, shared_bins
from topxgen.common.errors import UsageError
from topxgen.common.lineage import TRAIN_MANIFEST
from topxgen.common.provenance import TRANSLATE_MANIFEST, digest, values_of_flag
from topxgen.common.rates import NAME as RATES
from topxgen.common.records import FilteredLayout, ParagraphRecord, RejectRecord
from topxgen.common.schemas import fields
from topxgen.corpora.topics import read_categories, read_topics
from topxgen.inference.costs import COUNTED, Prices
from topxgen.runs.counts import responses
from topxgen.runs.folders import BackTranslation, Run, languages_of, layout_of, relative
from topxgen.runs.reading import Problems, read_file, read_lines
from topxgen.runs.rows import pairs_file, records
from topxgen.text import languages
from topxgen.text.words import UNSPACED_SCRIPTS, unicode_words

MAX_TOPICS = 100_000  # whose pairs are counted apart
MAX_NAMED_TOPICS = 15
INTERVALS = 25  # of prompt numbers
NO_SCORER = "unnamed scorer"
TOPICS = Path(__file__).resolve().parents[3] / "topics" / "wikipedia_vital_topics.jsonl"
# Bins of the measures of a pair, as narrow as they are counted.
WIDTHS = {
    "sentence_characters": 1, "translation_characters": 1, "sentence_words": 1, "translation_words": 1, "ratio": 0.01,
    "sentences_per_paragraph": 1, "confidence": 0.001,
}  # fmt: skip


def collect(run: Run, options: Options) -> dict | None:
    """`pairs` of each language in a folder: `measures`, `scores` by scorer, `topics`; `bins` that all share; `repetition` by
    prompt number; `usage`: tokens and USD by stage; `work`: how much was done in which time."""
    problems = Problems()
    measured = [_measured(one, language, problems) for one in run.back_translations for language in one.languages]
    measured = [one for one in measured if one.pairs or one.topics]
    generated = [(folder, language) for folder in run.generations for language in languages_of(folder)]
    repetition = [_repetition(run.root, folder, language, problems) for folder, language in generated]
    data: dict = {"repetition": list(filter(None, repetition))}
    data |= {"usage": list(_usage(run, problems)), "work": list(_work(run, problems))}
    bins = {name: shared_bins(one.measures[name] for one in measured) for name in WIDTHS}
    for scorer in dict.fromkeys(scorer for one in measured for scorer in one.scores):
        bins[f"score {scorer}"] = shared_bins(one.scores[scorer] for one in measured if scorer in one.scores)
    data["bins"] = {name: dict(zip(("start", "width", "bins"), values, strict=True)) for name, values in bins.items()}
    with_topics = dict.fromkeys(one.generation for one in measured if one.topics)
    lists = {generation: _topic_list(generation, problems) for generation in with_topics}
    data["pairs"] = [_pairs(run.root, one, bins, lists.get(one.generation, TopicList())) for one in measured]
    options.note_problems(problems)
    if not any(data[key] for key in ("pairs", "repetition", "usage", "work")):
        return None
    if any(part["topics"] and not part["topics"]["categories"] for part in data["pairs"]):
        options.notice("info", "the list of topics has no categories, or is not here: topics are shown by themselves")
    if any(step["usd"] is None for step in data["usage"]):
        options.notice("info", "tokens have no price: pass --prices to the scripts, and the page says what they cost")
    return data


@dataclass
class Measured:
    """The pairs of a language in a file, measured."""

    language: str
    target_language: str
    folder: Path
    generation: Path | None
    stage: str  # decontaminated or pairs
    pairs: int = 0
    unscored: int = 0
    measures: dict[str, Histogram] = field(default_factory=lambda: {name: Histogram(w) for name, w in WIDTHS.items()})
    scores: dict[str, Histogram] = field(default_factory=dict)
    topics: dict[str, list[int]] = field(default_factory=dict)  # [paragraphs, pairs]
    other_topics: list[int] = field(default_factory=lambda: [0, 0])  # beyond MAX_TOPICS
    without_topic: list[int] = field(default_factory=lambda: [0, 0])


def _measured(one: BackTranslation, language: str, problems: Problems) -> Measured:
    path, stage = pairs_file(one, language), "pairs"
    if one.filtered and FilteredLayout(one.filtered).filtered(language).exists():
        path, stage = FilteredLayout(one.filtered).filtered(language), "decontaminated"
    result = Measured(language, one.target_language, one.folder, one.generation, stage)
    count_words = [_word_counter(name) for name in (language, one.target_language)]
    measures = result.measures
    for *_, record in records(path, problems):
        sentences, scores, confidences = record["propositions"], record.get("scores"), record.get("confidences")
        count = len(sentences)
        result.pairs += count
        measures["sentences_per_paragraph"].add(count)
        _count_topic(result, record.get("topic"), count)
        for sentence, translation in zip(sentences, record["translations"], strict=True):
            measures["sentence_characters"].add(len(sentence))
            measures["translation_characters"].add(len(translation))
            measures["sentence_words"].add(count_words[0](sentence))
            measures["translation_words"].add(count_words[1](translation))
            if sentence:
                measures["ratio"].add(len(translation) / len(sentence))
        scored = [score for score in scores or () if score is not None]
        result.unscored += count - len(scored)
        if scored:
            scorer = record.get("scorer") or NO_SCORER
            histogram = result.scores.setdefault(scorer, Histogram(0.001))
            for score in scored:
                histogram.add(score)
        for value in confidences or ():
            if value is not None:
                measures["confidence"].add(value)
    return result


def _word_counter(language: str):
    """Words between white space; in scripts without spaces, letters."""
    try:
        unspaced = languages.find(language).script in UNSPACED_SCRIPTS
    except UsageError:  # of --languages_file
        unspaced = False
    return (lambda text: len(unicode_words(text))) if unspaced else (lambda text: len(text.split()))


def _count_topic(result: Measured, topic: str | None, pairs: int) -> None:
    if topic is None:
        counts = result.without_topic
    elif topic in result.topics or len(result.topics) < MAX_TOPICS:
        counts = result.topics.setdefault(topic, [0, 0])
    else:
        counts = result.other_topics
    counts[0] += 1
    counts[1] += pairs


def _pairs(root: Path, one: Measured, bins: dict[str, tuple], topics: "TopicList") -> dict:
    def shown(histogram: Histogram, name: str) -> dict:
        return histogram.summary() | {"bins": histogram.rebinned(*bins[name])}

    return {
        "language": one.language,
        "target_language": one.target_language,
        "folder": relative(root, one.folder),
        "stage": one.stage,
        "pairs": one.pairs,
        "unscored": one.unscored,
        "measures": {name: shown(histogram, name) for name, histogram in one.measures.items() if histogram.count},
        "scores": {scorer: shown(histogram, f"score {scorer}") for scorer, histogram in one.scores.items()},
        "topics": _topics(one, topics) if one.topics else None,
    }


# What is read of the manifest of any stage.
_Manifest = fields(
    stage=str, language=str, started=str, finished=str, command=list[str], settings=dict[str, Any], counts=dict,
    usage=dict[str, float], sentences=int, steps=int,
)  # fmt: skip


@dataclass
class TopicList:
    """A file of topics: how many it has, and in which categories."""

    name: str = ""
    size: int | None = None
    categories: dict[str, str] = field(default_factory=dict)


def _topic_list(generation: Path | None, problems: Problems) -> TopicList:
    """The list that a generation took its topics from, where a file here is that list; categories also of the embedded one."""
    manifest = read_file(layout_of(generation).manifest("generate"), _Manifest, problems) if generation else {}
    given = values_of_flag(manifest.get("command", []), "--seed_topics_path")
    recorded = manifest.get("settings", {}).get("topics_digest")
    result = TopicList()
    here = Path(given[0]) if given else TOPICS.with_suffix(".txt")
    ours = TOPICS.with_suffix(".txt"), TOPICS
    for path in dict.fromkeys((here, TOPICS.parents[1] / here, here.with_suffix(".jsonl"), *ours)):
        try:
            topics = read_topics(path) if path.is_file() else []
            if topics and digest(topics) == recorded and result.size is None:
                result.name, result.size = path.name, len(topics)
            if topics and not result.categories:
                result.categories = read_categories(path)
        except UsageError:  # a file of that name that is another one
            continue
    return result


def _topics(one: Measured, topics: TopicList) -> dict:
    """Paragraphs and pairs by category if the list has categories for most topics, and the topics with most pairs."""
    by_category: dict[str, list[int]] = {}
    known = sum(topic in topics.categories for topic in one.topics)
    if known * 2 > len(one.topics):
        for topic, (paragraphs, pairs) in one.topics.items():
            counts = by_category.setdefault(topics.categories.get(topic, "not in the list"), [0, 0])
            counts[0], counts[1] = counts[0] + paragraphs, counts[1] + pairs
    categories = [[name, *counts] for name, counts in by_category.items()]
    most = sorted(one.topics.items(), key=lambda item: (-item[1][1], -item[1][0], item[0]))[:MAX_NAMED_TOPICS]
    return {
        "distinct": len(one.topics),
        "with_pairs": sum(pairs > 0 for _, pairs in one.topics.values()),
        "beyond": one.other_topics,
        "without": one.without_topic,
        "list": topics.name,
        "of": topics.size,
        "categories": sorted(categories, key=lambda row: (-row[1], row[0])),
        "of_categories": dict(Counter(topics.categories.values())) if by_category else {},
        "most": [[topic, *counts] for topic, counts in most],
    }


def _repetition(root: Path, folder: Path, language: str, problems: Problems) -> dict | None:
    """Of texts by the number of their prompt (of native ones, of their row): how many were near-duplicates, rejected, or kept."""
    layout, number_in = layout_of(folder), re.compile(re.escape(language) + r"-(?:native-)?(\d+)\.\d+")
    histograms = {name: Histogram() for name in ("near_duplicate", "rejected", "kept")}

    def add(name: str, text_id: object) -> None:
        if match := number_in.fullmatch(str(text_id)):
            histograms[name].add(int(match[1]))

    for _, record in read_lines(layout.rejects(language), RejectRecord, problems):
        add("near_duplicate" if record["reason"].startswith("near_duplicate") else "rejected", record["id"])
    for _, record in read_lines(layout.paragraphs(language), ParagraphRecord, problems):
        add("kept", record.get("id"))
    start, width, bins = shared_bins(histograms.values(), INTERVALS)
    counts = {name: histogram.rebinned(start, width, bins) for name, histogram in histograms.items()}
    if not any(histogram.count for histogram in histograms.values()):
        return None
    return {"language": language, "folder": relative(root, folder), "start": start, "width": width, **counts}


def _usage(run: Run, problems: Problems) -> Iterator[dict]:
    """Tokens by stage, language and folder, with USD where the command had --prices or main.py recorded them."""

    def tokens(stage: str, folder: Path, language: str, path: Path, prices: Prices | None) -> Iterator[dict]:
        counts, lengths = Counter(), Histogram()
        for record in responses(path, problems):
            counts.update({name: record.get(name) or 0 for name in COUNTED})
            if not record.get("error"):  # a request that failed is no response: it may be sent again
                counts["responses"] += 1
                lengths.add(record["completion_tokens"])
        if counts["prompt_tokens"] or counts["completion_tokens"]:
            counted = {name: counts[name] for name in COUNTED}
            yield {
                "stage": stage, "folder": relative(run.root, folder), "language": language,
                "responses": counts["responses"], **counted,
                "usd": prices.cost(*counted.values()) if prices else None, "lengths": lengths.summary(),
            }  # fmt: skip

    for folder in run.generations:
        layout = layout_of(folder)
        prices = Prices.of_command(read_file(layout.manifest("generate"), _Manifest, problems).get("command", []))
        for language in languages_of(folder):
            yield from tokens("generate", folder, language, layout.responses(language), prices)
    for one in run.back_translations:
        layout = one.layout()
        prices = Prices.of_command(read_file(layout.manifest("translate"), _Manifest, problems).get("command", []))
        for language in one.languages:
            yield from tokens("back-translate", one.folder, language, layout.translation_responses(language), prices)
    for model in dict.fromkeys(folder.parent for folder in run.translations):
        folders = [folder for folder in run.translations if folder.parent == model]
        usages = [read_file(folder / TRANSLATE_MANIFEST, _Manifest, problems).get("usage") or {} for folder in folders]
        counts = {name: sum(usage.get(name) or 0 for usage in usages) for name in ("responses", *COUNTED)}
        if counts["prompt_tokens"]:
            usd = [usage.get("usd") for usage in usages if usage]
            yield {"stage": "translate test sets", "folder": relative(run.root, model), "language": "", **counts,
                   "usd": None if None in usd else sum(usd), "lengths": None}  # fmt: skip


def _work(run: Run, problems: Problems) -> Iterator[dict]:
    """From the manifests: when a stage began and ended, and how much it did; with the rate of rates.json, where there is one."""

    def stage(folder: Path, name: str, key: str, unit: str, rates: dict[str, float]) -> Iterator[dict]:
        where, rate = relative(run.root, folder), rates.get(name)
        for path in sorted(folder.glob(f"manifest_{name}_*.json")):
            manifest = read_file(path, _Manifest, problems)
            language = manifest.get("language") or path.stem.removeprefix(f"manifest_{name}_")
            yield from _done(name, where, language, manifest, manifest.get("counts", {}).get(key), unit, rate)

    for folder in run.generations:
        rates = read_file(folder / RATES, dict[str, float], problems)
        yield from stage(folder, "generate", "kept", "paragraphs", rates)
    for folder, generation in dict.fromkeys((one.folder, one.generation) for one in run.back_translations):
        rates = read_file(generation / RATES, dict[str, float], problems) if generation else {}
        yield from stage(folder, "translate", "paragraphs", "paragraphs", rates)
        yield from stage(folder, "score", "scored", "pairs", rates)
    for folder in dict.fromkeys(one.filtered for one in run.back_translations if one.filtered):
        yield from stage(folder, "decontaminate", "pairs", "pairs", {})
    for folders, manifest_name, name, unit in (
        (run.trainings, TRAIN_MANIFEST, "train", "steps"),
        (run.translations, TRANSLATE_MANIFEST, "translate test sets", "sentences"),
    ):
        for folder in folders:
            manifest = read_file(folder / manifest_name, _Manifest, problems)
            yield from _done(name, relative(run.root, folder), "", manifest, manifest.get(unit), unit, None)


def _done(
    stage: str, folder: str, language: str, manifest: _Manifest, count: int | None, unit: str, rate: float | None
) -> Iterator[dict]:
    """What a manifest says, if it has both times."""
    try:
        started, finished = (datetime.fromisoformat(manifest[name]) for name in ("started", "finished"))
        seconds = (finished - started).total_seconds()
    except (KeyError, ValueError, TypeError):
        return
    yield {
        "stage": stage, "folder": folder, "language": language, "started": manifest["started"],
        "finished": manifest["finished"], "seconds": seconds, "count": count, "unit": unit, "rate": rate,
    }  # fmt: skip
