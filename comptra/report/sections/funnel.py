"""The funnel: what became of every prompt, text, sentence and pair, and why, with examples of each reason."""

import random
from dataclasses import asdict
from pathlib import Path

from comptra.report import Options
from topxgen.common.reservoir import Reservoir
from topxgen.runs.counts import Funnel, funnels
from topxgen.runs.folders import Run, code_of, relative
from topxgen.runs.reading import Problems
from topxgen.runs.rows import NOT_CHOSEN, Row
from topxgen.runs.training_data import TrainingData, training_data

MAX_CHARS = 500  # of an example
MAX_SHOWN = 1_200  # examples of all languages and reasons together; fewer of each where there are many of these

# What each reason means (docs/files.md has the rules).
REASONS = {
    "no_response": "sent, but the run had enough before the response came, or it was stopped",
    "prompt_too_long": "the prompt is longer than the model reads",
    "answer_failed": "the engine or the API gave no response",
    "empty": "no text",
    "unparseable": "not in the form that the prompt asks for",
    "not_needed": "the run had enough texts before this one's turn came",
    "too_long": "more than 20,000 characters on a line",
    "unfinished": "cut at the limit of new tokens",
    "binary": "control characters or bytes that are no text",
    "too_few_words": "fewer than 3 words",
    "too_short": "10 characters or fewer",
    "repeated_word_bigram": "one pair of neighbouring words 75 times or more",
    "repeated_character_bigram": "one pair of characters 75 times or more in a word",
    "repeated_word_pair": "one pair of words 150 times or more",
    "near_duplicate": "nearly the same as a text that was kept before",
    "brought_along": "in the file without having been generated here",
    "not_translated": "not back-translated yet",
    "without_pairs_here": "its pairs are not among the filtered ones, and the file of all pairs is not here",
    "sentence_too_short": "a sentence of fewer than 40 characters",
    "sentence_no_words": "a sentence without words",
    "sentence_other_language": "the sentence is in another language",
    "sentence_unfinished": "cut at the limit of new tokens",
    "translation_unanswered": "the API gave no answer: the next run asks again",
    "translation_failed": "no translation, or one that cannot be read or is cut",
    "translation_too_short": "a translation of fewer than 40 characters",
    "translation_no_words": "a translation without words",
    "translation_other_language": "the translation is in another language",
    "translation_no_full_stop": "the translation does not end with a full stop",
    "score_below_min": "a score below --min_score",
    "score_missing": "no score, with --min_score",
    "overlap_in_sentence": "the sentence overlaps a text of a benchmark",
    "overlap_in_translation": "the translation overlaps a text of a benchmark",
    "overlap_in_paragraph": "its paragraph overlaps a text of a benchmark",
    "not_in_filtered_file": "not in the decontaminated file, which has no list of hits",
    NOT_CHOSEN: "another candidate had a higher score",
    "forbidden_characters": "a side has # or >, as headings and quotations have",
    "duplicates": "both sides are those of an earlier pair",
    "not_selected": "not among those that --percentile or --dataset_size selects",
}


def collect(run: Run, options: Options) -> dict | None:
    """`funnels`: of each language in a folder its `steps` (name, count, removed and added by reason, several) and `examples` by
    reason; `trainings`; `reasons` in words, of those that occur."""
    problems, examples = Problems(), Examples(options.seed, options.max_examples)
    found = funnels(run, problems, examples.add)
    trained = training_data(run, found, problems)
    options.note_problems(problems)
    for line in (line for part in (*found, *trained) for line in part.problems):
        options.notice("warning", line)
    found, trained = [one for one in found if any(s.count for s in one.steps)], [t for t in trained if t.directions]
    if not found and not trained:
        return None
    _headlines(found, options)
    limit = examples.limit()
    data = {
        "funnels": [_funnel(run.root, one, examples.of(one, limit)) for one in found],
        "trainings": [_training(run.root, one, found) for one in trained],
    }
    steps = [step for one in data["funnels"] for step in one["steps"]]
    names = {reason for step in steps for reason in (*step["removed"], *step["added"])}
    names |= {reason for one in data["funnels"] for reason in one["examples"]}
    names |= {reason for one in trained for steps in one.directions.values() for reason in steps[0].removed}
    return data | {"reasons": {name: REASONS[name] for name in REASONS if name in names}}


class Examples:
    """Some rows of each language and reason, each with the same chance."""

    def __init__(self, seed: int, size: int):
        self._random, self._size = random.Random(seed), size
        self._rows: dict[tuple[Path, str, str], Reservoir[Row]] = {}

    def add(self, folder: Path, row: Row) -> None:
        if not row.reason:
            return
        # A candidate that was not chosen may have the reason of a reject, which it is not.
        key = folder, row.language, NOT_CHOSEN if row.state == "not_chosen" else row.reason
        if key not in self._rows:
            self._rows[key] = Reservoir(self._size, self._random)
        self._rows[key].add(row)

    def limit(self) -> int:
        """How many of each can be shown."""
        return max(1, MAX_SHOWN // max(1, len(self._rows)))

    def of(self, one: Funnel, limit: int) -> dict[str, list[dict]]:
        folders = {one.generation, one.back_translation and one.back_translation.folder}
        return {
            reason: [_example(row) for row in rows.items()[:limit]]
            for (folder, language, reason), rows in self._rows.items()
            if folder in folders and language == one.language
        }


def _example(row: Row) -> dict:
    """Without what it does not have."""
    facts = {
        "id": row.id,
        "sentence": _shortened(row.sentence),
        "translation": None if row.translation is None else _shortened(row.translation),
        "reason": row.reason if row.state == "not_chosen" and row.reason != NOT_CHOSEN else None,
        "detail": _shortened(row.detail),
        "topic": row.topic,
        "score": row.score,
        "state": row.state,
    }
    return {key: value for key, value in facts.items() if value not in (None, "")}


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} … ({len(text):,} characters)"


def _funnel(root: Path, one: Funnel, examples: dict[str, list[dict]]) -> dict:
    back = one.back_translation
    return {
        "language": one.language,
        "target_language": back.target_language if back else "",
        "folder": relative(root, back.folder if back else one.generation),
        "texts_folder": relative(root, one.generation) if one.generation else "",
        "steps": list(map(asdict, one.steps)),
        "not_chosen": one.not_chosen,
        "examples": examples,
    }


def _training(root: Path, one: TrainingData, found: list[Funnel]) -> dict:
    """`sources`: by direction the places in `funnels` whose pairs it read."""
    return {
        "folder": relative(root, one.folder),
        "name": one.name,
        "directions": {name: list(map(asdict, steps)) for name, steps in one.directions.items()},
        "sources": {
            name: [found.index(source) for source in sources if source in found]
            for name, sources in one.sources.items()
        },
        "train": one.train,
        "test": one.test,
        "both_directions": one.both_directions,
    }


def _headlines(found: list[Funnel], options: Options) -> None:
    options.headline("languages", len({code_of(one.language) for one in found}), "#funnel")
    seen, paragraphs, pairs = set(), 0, 0
    for one in found:
        shared = one.generation, one.language  # by several back-translators
        if one.generation is None or shared not in seen:
            paragraphs += next((s.count for s in one.steps if s.name == "paragraphs"), 0)
        seen.add(shared)
        pairs += next((s.count for s in reversed(one.steps) if s.name in ("decontaminated", "pairs")), 0)
    options.headline("paragraphs", paragraphs, "#funnel")
    options.headline("pairs", pairs, "#pairs?state=kept")
