"""How often published translations, which have none of them, are counted as faulty (comptra.scores.output_faults).

    python scripts/perf/output_faults.py ../shared/benchmarks

Reads NTREX-128, XQuAD and FLORES-200 in their publishers' layouts, as far as they are there. Each translation is taken for the
output of a system, in both directions, without a reference: the source alone says what is expected, which is harder than
with the reference that evaluations have. FLORES-200's English is only checked for what needs no translation.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from measuring import command_line

from comptra.scores import output_faults
from comptra.scores.metrics import Test
from comptra.scores.output_faults import FAULTS
from topxgen.common.console import show
from topxgen.corpora.tables import read_lines
from topxgen.text import languages
from topxgen.text.languages import Language

# Of macrolanguages.
CODES = {"ar": "Modern Standard Arabic", "zh": "Chinese (Simplified)", "nep": "Nepali", "swa": "Swahili"}


def corpora(folder: Path) -> Iterator[tuple[str, Language, list[str], list[str]]]:
    """(name, language, English, translations) of each."""
    for path in sorted(folder.glob("NTREX-128/newstest2019-ref.*.txt")):
        english = read_lines(path.with_name("newstest2019-src.eng.txt"))
        yield "NTREX-128", language_of(path), english, read_lines(path)
    for path in sorted(folder.glob("xquad/xquad.*.json")):
        if path.stem != "xquad.en":
            yield "XQuAD", language_of(path), paragraphs(path.with_name("xquad.en.json")), paragraphs(path)
    for path in sorted(folder.glob("flores200_dataset/*/eng_Latn.*")):
        english = read_lines(path)
        yield f"FLORES-200 {path.parent.name}", languages.find("English"), english, english


def language_of(path: Path) -> Language:
    code = path.stem.split(".")[1]
    return languages.find(CODES.get(code, code))


def paragraphs(path: Path) -> list[str]:
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    return [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path, help="as --benchmark_dir of main.py")
    args = parser.parse_args()
    english = languages.find("English")
    show(f"{'corpus':20} {'language':24} {'texts':>5}  " + "  ".join(f"{fault:>14}" for fault in FAULTS) + "   (%)")
    for name, language, texts, translations in corpora(args.folder):
        sides = ((english, language, texts, translations), (language, english, translations, texts))
        for src, tgt, sources, outputs in sides[: 1 if language == english else 2]:
            counts = output_faults.count(Test(src, tgt, sources, None), outputs, (), "cld2")
            if src == tgt:
                counts["copied"] = None
            cells = ["-" if n is None else f"{100 * n / len(outputs):.2f}" for n in counts.values()]
            show(f"{name:20} into {tgt.name:19} {len(outputs):5}  " + "  ".join(f"{cell:>14}" for cell in cells))


if __name__ == "__main__":
    main()
