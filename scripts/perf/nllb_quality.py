"""How the compute type affects translations of real text: chrF and BLEU of int8 against float32.

    python scripts/perf/nllb_quality.py --ntrex benchmarks/NTREX-128 --minutes 8

Runs without the Hub: a small NLLB (3 + 3 layers of width 256) is trained on --lines lines of NTREX-128 Basque-English until
it nearly memorises them, so that its translations of those are good and depend on every weight. Unseen lines show how int8
changes poor translations.
"""

import sys
import tempfile
import time
from pathlib import Path

from measuring import command_line, ntrex

from tests.support import tiny_models
from topxgen import translation
from topxgen.text import languages
from topxgen.translation import TranslatorSettings


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--ntrex", type=Path, required=True)
    parser.add_argument("--lines", type=int, default=300, help="to learn")
    parser.add_argument("--minutes", type=float, default=8)
    args = parser.parse_args()

    from sacrebleu import BLEU, CHRF

    pairs = list(zip(*ntrex(args.ntrex, "Basque", "English"), strict=True))
    learned, unseen = pairs[: args.lines], pairs[-100:]
    shape = dict(width=256, layers=3, vocabulary=3000, learning_rate=1e-3)
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        tiny_models.build_nllb(Path(folder) / "trial", learned, steps=10, **shape)
        steps = int(args.minutes * 60 / (time.monotonic() - began) * 10)
        model = tiny_models.build_nllb(Path(folder) / "model", learned, steps=steps, **shape)
        found = {}
        for compute_type in ("float32", "int8"):
            settings = TranslatorSettings(nllb_name_or_path=model, nllb_compute_type=compute_type, cache_dir=folder)
            translator = translation.create("nllb", settings)
            translator.load()
            for name, lines in (("learned", learned), ("unseen", unseen)):
                sources, references = map(list, zip(*lines, strict=True))
                output = translator.translate(sources, languages.find("Basque"), languages.find("English"))
                found[compute_type, name] = texts = [translation.text for translation in output]
                same = sum(a == b for a, b in zip(texts, found["float32", name], strict=True))
                print(
                    f"{compute_type}, {len(lines)} {name} lines: chrF {CHRF().corpus_score(texts, [references]).score:.2f}, "
                    f"BLEU {BLEU().corpus_score(texts, [references]).score:.2f}; {same} the same as float32, chrF between "
                    f"the two {CHRF().corpus_score(texts, [found['float32', name]]).score:.2f}",
                    flush=True,
                )
            translator.close()
        print(f"{steps} steps of training")
    return 0


if __name__ == "__main__":
    sys.exit(main())
