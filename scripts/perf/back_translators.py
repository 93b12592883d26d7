"""chrF++, BLEU and sentences/s of the back-translators that need no network, on NTREX-128 into English.

    python scripts/perf/back_translators.py --ntrex benchmarks/NTREX-128 --model models/gemma-3-270m --sentences 100

Apertium and a local LLM with 5 demonstrations from the last 997 lines (the published pool); the first lines are translated.
"""

import sys
import tempfile
import time
from pathlib import Path

from measuring import command_line, ntrex

from topxgen import translation
from topxgen.inference import ModelSettings
from topxgen.text import languages
from topxgen.translation import TranslatorSettings

POOL = 997


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--ntrex", type=Path, required=True)
    parser.add_argument("--model", default="models/gemma-3-270m")
    parser.add_argument("--inference_api", default="vllm")
    parser.add_argument("--language", default="Basque")
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--shots", type=int, default=5)
    args = parser.parse_args()

    from sacrebleu import BLEU, CHRF

    source, target = languages.find(args.language), languages.find("English")
    lines = dict(zip((source, target), ntrex(args.ntrex, source.name, target.name), strict=True))
    with tempfile.TemporaryDirectory() as pool:
        for language, texts in lines.items():
            (Path(pool) / f"{language.flores}.txt").write_text("\n".join(texts[-POOL:]) + "\n", encoding="utf-8")
        settings = TranslatorSettings(
            inference_api=args.inference_api,
            model=ModelSettings(args.model, max_model_len=4096),
            number_of_demonstrations=args.shots,
            demonstration_pool=pool,
        )
        for name in ("apertium", "llm"):
            translator = translation.create(name, settings)
            translator.check(source, target)
            translator.load()
            began = time.monotonic()
            translations = translator.translate(lines[source][: args.sentences], source, target)
            seconds = time.monotonic() - began
            texts = [translation.text for translation in translations]
            references = [lines[target][: args.sentences]]
            print(
                f"{name}: chrF++ {CHRF(word_order=2).corpus_score(texts, references).score:.1f}, "
                f"BLEU {BLEU().corpus_score(texts, references).score:.1f}, {len(texts) / seconds:.1f} sentences/s; "
                f"{sum(not text for text in texts)} empty ({translator.version})",
                flush=True,
            )
            translator.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
