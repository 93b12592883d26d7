"""Recall of decontamination on planted benchmark lines, and its hits in text without benchmark lines.

    python scripts/perf/decontamination_quality.py --benchmark_dir ../shared/benchmarks [--near_duplicate_threshold 0.6]

Planted: the 1,000 test lines of NTREX-128 in six languages, verbatim and altered (ALTERATIONS). Clean: the lines of
NTREX-128 that are not in its test part, and the UDHR, checked against the test part; `--clean FILE`, one text per line,
adds others (such as summaries of Wikipedia), whose sentences are checked against all English benchmarks. Hits in clean text
are printed. `--leak_guard` measures in the same way what main.py leaves out of a pool of demonstrations, and compares
FLORES-200 dev with devtest.
"""

import random
import unicodedata
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

from measuring import command_line

from topxgen.corpora import benchmarks
from topxgen.corpora.tables import read_lines
from topxgen.decontamination.benchmark_texts import BenchmarkTexts
from topxgen.text import languages, leak_guard, sentence_splitting
from topxgen.text.ngram_index import ContaminationIndex

LANGUAGES = ("Basque", "Hausa", "Nepali", "Swahili", "Urdu", "English")
_APOSTROPHES = "'’‘ʼ"


def changed(words_changed: int) -> Callable:
    """Replace so many words by other words of the language."""

    def alter(text: str, rng: random.Random, vocabulary: list[str]) -> str:
        words = text.split()
        for place in rng.sample(range(len(words)), min(words_changed, len(words))):
            words[place] = rng.choice(vocabulary)
        return " ".join(words)

    return alter


def repunctuated(text: str, rng: random.Random, vocabulary: list[str]) -> str:
    """Drop or replace every punctuation mark (inside a word or number: replace), insert commas."""
    out = []
    for place, char in enumerate(text):
        if not unicodedata.category(char).startswith("P"):
            out.append(char)
        elif char in _APOSTROPHES:
            out.append(rng.choice([*_APOSTROPHES, ""]))
        elif place and wordly(text[place - 1]) and wordly(text[place + 1 : place + 2] or " "):
            out.append(rng.choice(" -–/,;:"))
        else:
            out.append(rng.choice(["", "", ",", ";", ":", "!", "…", "“", "”", " –"]))
    return " ".join(word + ("," if rng.random() < 0.1 else "") for word in "".join(out).split())


def wordly(char: str) -> bool:
    return unicodedata.category(char)[0] in "LMN"


def halved(text: str, rng: random.Random, vocabulary: list[str]) -> str:
    words = text.split()
    middle = len(words) // 2
    return " ".join(rng.choice([words[:middle], words[middle:]]))


def respelled(text: str, rng: random.Random, vocabulary: list[str]) -> str:
    """One letter of every third word, on average, lost, doubled or swapped with the next."""
    words = text.split()
    for i, word in enumerate(words):
        if len(word) > 3 and rng.random() < 1 / 3:
            place = rng.randrange(1, len(word) - 1)
            words[i] = rng.choice(
                [
                    word[:place] + word[place + 1 :],
                    word[:place] + word[place] + word[place:],
                    word[:place] + word[place + 1] + word[place] + word[place + 2 :],
                ]
            )
    return " ".join(words)


ALTERATIONS = {
    "verbatim": lambda text, rng, vocabulary: text,
    "re-cased": lambda text, rng, vocabulary: rng.choice([str.upper, str.lower, str.title, str.swapcase])(text),
    "re-punctuated": repunctuated,
    "1 word changed": changed(1),
    "2 words changed": changed(2),
    "3 words changed": changed(3),
    "cut in half": halved,
    "respelled": respelled,
}


def planted(test: benchmarks.Split, clean: list[str], language: languages.Language) -> dict[str, list[list[str]]]:
    """For each kind of planting, the texts in which each benchmark line should be found."""
    rng = random.Random(7)
    vocabulary = [word for text in clean for word in text.split()]
    split = sentence_splitting.Sentencex(language).split
    kinds = {kind: [[alter(text, rng, vocabulary)] for text in test.texts] for kind, alter in ALTERATIONS.items()}
    paragraphs = [" ".join([rng.choice(clean), text, rng.choice(clean)]) for text in test.texts]
    sentences = [split(paragraph) for paragraph in paragraphs]
    return {
        "verbatim": kinds.pop("verbatim"),
        # A paragraph is checked with its sentences, translations as sentences only.
        "inside a paragraph": [[paragraph, *parts] for paragraph, parts in zip(paragraphs, sentences, strict=True)],
        "in its sentences": sentences,
        **kinds,
    }


def recall(index: ContaminationIndex, test: benchmarks.Split, texts: list[list[str]]) -> float:
    """Percentage of the benchmark lines that are found where they were planted."""
    owners = [number for number, group in enumerate(texts) for _ in group]
    ends = [end for group, end in zip(texts, accumulate(map(len, texts)), strict=True) for _ in group]
    found = {
        owners[place]
        for place, matches in index.find([text for group in texts for text in group], ends).items()
        if any(match.entry.id == test.ids[owners[place]] for match in matches)
    }
    return 100 * len(found) / len(test.texts)


def show(title: str, index: ContaminationIndex, texts: list[str]) -> None:
    """Print the hits in clean text."""
    found = index.find(texts)
    print(f"\n{title}: {len(found)} of {len(texts):,} clean texts")
    for number, matches in found.items():
        match = matches[0]
        how = match.shared_ngram or f"F1 {match.similarity:.2f}"
        print(f"  {match.kind} ({how}), {match.entry.benchmark} {match.entry.split} {match.entry.id}")
        print(f"    clean:     {texts[number][:200]}\n    benchmark: {match.entry.text[:200]}")


def guarded(name: str, folder: Path | None) -> None:
    """Print the row of a language for the leak guard, and what it reports in clean text."""
    language = languages.find(name)
    test, pool = benchmarks.load("ntrex", language, folder)[:2]
    clean = [text for text in pool.texts if text.strip()]
    row = []
    for texts in planted(test, clean, language).values():
        owners = [number for number, group in enumerate(texts) for _ in group]
        found = leak_guard.leaks(test.texts, [text for group in texts for text in group], language.script)
        row.append(100 * len({i for i, place in found if owners[place] == i}) / len(test.texts))
    print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in row) + " |")
    sets = {"ntrex": (test.texts, clean)}
    if name == "English":
        sets["flores"] = [split.texts for split in reversed(benchmarks.load("flores", language, folder))]
    for benchmark, (test_texts, others) in sets.items():
        for (i, place), kind in leak_guard.leaks(test_texts, others, language.script).items():
            print(f"{benchmark}, {kind}:\n    {others[place]}\n    {test_texts[i]}")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--benchmark_dir", type=Path)
    parser.add_argument("--near_duplicate_threshold", type=float)
    parser.add_argument("--clean", type=Path)
    parser.add_argument("--leak_guard", action="store_true")
    parser.set_defaults(tokenizer="unicode", ngram_size=10, short_text_rule="inside")  # as decontamination.py
    args = parser.parse_args()
    if args.leak_guard:
        for name in LANGUAGES:
            guarded(name, args.benchmark_dir)
        return
    rows, indexes = {}, {}
    for name in LANGUAGES:
        language = languages.find(name)
        test, pool = benchmarks.load("ntrex", language, args.benchmark_dir)[:2]
        index = BenchmarkTexts(language, args, [test]).index
        clean = [text for text in pool.texts if text.strip()]
        kinds = planted(test, clean, language)
        rows[name] = [recall(index, test, texts) for texts in kinds.values()]
        indexes[name] = index, clean + [text for part in benchmarks.load("udhr", language) for text in part.texts]
    print("| language | " + " | ".join(kinds) + " |")
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in values) + " |")
    for name, (index, clean) in indexes.items():
        show(name, index, clean)
    if args.clean:
        splits = [s for b in ("flores", "ntrex", "xquad") for s in benchmarks.load(b, language, args.benchmark_dir)]
        index = BenchmarkTexts(language, args, splits).index
        split = sentence_splitting.Sentencex(language).split
        show(str(args.clean), index, [s for text in read_lines(args.clean) for s in split(text)])


if __name__ == "__main__":
    main()
