"""How much of what is planted decontamination finds, and what it finds in text that holds no benchmark.

    python benchmarks/decontamination_quality.py --benchmark_dir ../shared/benchmarks [--tokenizer original] [--near_duplicates 0.6]

Planted: the 1,000 test lines of NTREX-128 in six languages, as they are and altered (ALTERATIONS). Clean: the lines
of NTREX-128 that are not in its test part, FLORES-200 and XQuAD contexts (English), and the UDHR: other texts, other
years, found by nobody's searching for the planted ones; what is reported there is printed in full. `--ratios` prints
instead how many tokens the UDHR has in each language for one in English.
"""

import argparse
import random
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from comptra import benchmarks, examples, languages
from topxgen import splitting
from topxgen.contamination_report import entries
from topxgen.ngrams import TOKENIZERS, tokens_per_ngram
from topxgen.overlap import Index

LANGUAGES = ("Basque", "Hausa", "Nepali", "Swahili", "Urdu", "English")
_APOSTROPHES = "'’‘ʼ"


def changed(words_changed: int) -> Callable:
    """Put other words of the language in so many places."""

    def alter(text: str, rng: random.Random, vocabulary: list[str]) -> str:
        words = text.split()
        for place in rng.sample(range(len(words)), min(words_changed, len(words))):
            words[place] = rng.choice(vocabulary)
        return " ".join(words)

    return alter


def repunctuated(text: str, rng: random.Random, vocabulary: list[str]) -> str:
    """Every mark dropped or made another one (inside a word or a number: made another one), commas put in."""
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


def recased(text: str, rng: random.Random, vocabulary: list[str]) -> str:
    return rng.choice([str.upper, str.lower, str.title, str.swapcase])(text)


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
    "re-cased": recased,
    "re-punctuated": repunctuated,
    "1 word changed": changed(1),
    "2 words changed": changed(2),
    "3 words changed": changed(3),
    "cut in half": halved,
    "respelled": respelled,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark_dir", type=Path, required=True)
    parser.add_argument("--tokenizer", choices=TOKENIZERS, default="unicode")
    parser.add_argument("--near_duplicates", type=float)
    parser.add_argument("--ngram_size", type=int, default=10)
    args = parser.parse_args()
    for name in LANGUAGES:
        language = languages.find(name)
        test, pool = benchmarks.load("ntrex", language, args.benchmark_dir)[:2]
        n = tokens_per_ngram(args.ngram_size, language.script, args.tokenizer)
        index = Index(entries([test], name), n, args.tokenizer, args.near_duplicates)
        vocabulary = [word for text in pool.texts for word in text.split()]
        rng = random.Random(7)
        clean = [text for text in pool.texts if text.strip()]
        line = []
        for alteration, alter in ALTERATIONS.items():
            planted = [alter(text, rng, vocabulary) for text in test.texts]
            found = index.find(planted)
            right = sum(any(match.entry.id == test.ids[i] for match in found.get(i, ())) for i in range(len(planted)))
            line.append((alteration, 100 * right / len(planted)))
        splitter = splitting.Sentencex(language)
        paragraphs, sentences, owners = [], [], []
        for i, text in enumerate(test.texts):
            paragraphs.append(" ".join([rng.choice(clean), text, rng.choice(clean)]))
            pieces = splitter.split(paragraphs[-1])
            sentences += pieces
            owners += [i] * len(pieces)
        reached = {i for i, found in index.find(paragraphs).items() if any(m.entry.id == test.ids[i] for m in found)}
        for place, found in index.find(sentences).items():
            if any(match.entry.id == test.ids[owners[place]] for match in found):
                reached.add(owners[place])
        line.insert(1, ("inside a paragraph", 100 * len(reached) / len(test.texts)))
        print(name, "; ".join(f"{kind} {value:.1f}" for kind, value in line))
        others = clean + examples.udhr(language)
        if name == "English":
            others += [
                t
                for other in ("flores", "xquad")
                for s in benchmarks.load(other, language, args.benchmark_dir)
                for t in s.texts
            ]
        false = index.find(others)
        print(f"  clean: {len(false)} of {len(others)} texts")
        for i, matches in false.items():
            print(
                f"    {others[i]!r}\n    = {matches[0].how} {matches[0].shared!r} {matches[0].entry.text!r} {matches[0].similarity}"
            )


if __name__ == "__main__":
    main()
