"""Precision and recall of sentence boundaries in joined NTREX-128 lines, for each splitter.

    python scripts/perf/splitting_quality.py NTREX-128

Lines are joined by a space, five at a time; a line that does not end in a terminator of its language (a headline) is
excluded. A line can hold several sentences, so boundaries inside a line lower precision although most are right.
"""

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from topxgen.corpora.tables import read_lines
from topxgen.text import languages, sentence_splitting

GROUP = 5


def boundaries(pieces: list[str]) -> set[int]:
    """End offset of each piece, counted in characters that are not whitespace."""
    ends, offset = set(), 0
    for piece in pieces:
        offset += len(re.sub(r"\s", "", piece))
        ends.add(offset)
    return ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="NTREX-128 in its publishers' layout")
    parser.add_argument("--rules", action="store_true", help="list the rules for each language and exit")
    args = parser.parse_args()
    table = languages.load().values()
    if args.rules:
        for language in table:
            print(f"{language.flores}\t{language.name}\t{language.splitting_rules}\t{language.terminators}")
        return
    print(f"{'language':10} {'rules':20} {'splitter':10} {'precision':>9} {'recall':>7} {'lines':>6} {'of multi':>8}")
    for path in sorted(args.folder.glob("newstest2019-*.txt")):
        code = path.stem.rsplit(".", 1)[-1]
        language = next(row for row in table if row.ntrex.split("_")[0] == code)
        endings = tuple(mark + quote for mark in language.terminators for quote in ("", '"', "”", "’", "»", "'", ")"))
        lines = [line.strip() for line in read_lines(path)]
        lines = [line for line in lines if line.endswith(endings)]
        paragraphs = [lines[i : i + GROUP] for i in range(0, len(lines), GROUP)]
        texts = [" ".join(group) for group in paragraphs]
        for name in sentence_splitting.SPLITTERS:
            splitter = sentence_splitting.load(name, language, texts)
            right = found = true = 0
            for group, text in zip(paragraphs, texts, strict=True):
                predicted, gold = boundaries(splitter.split(text)), boundaries(group)
                last = max(gold)
                right += len((predicted & gold) - {last})
                found += len(predicted - {last})
                true += len(gold - {last})
            print(
                f"{language.name:10} {language.splitting_rules:20} {name:10} {right / max(found, 1):9.3f} "
                f"{right / max(true, 1):7.3f} {len(lines):6d} {found - right:8d}"
            )


if __name__ == "__main__":
    main()
