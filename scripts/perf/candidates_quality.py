"""Whether selection by the LLM's own confidence helps: chrF++ of N sampled translations by rule of selection.

    python scripts/perf/candidates_quality.py --ntrex benchmarks/NTREX-128 --model models/gemma-3-270m

Back-translates lines of NTREX-128 as `datagen.py --back_translator llm` does: greedy (one candidate), and N samples, of
which the first, the most confident, the most confident that the filters let pass, and the one nearest to the reference count.
"""

import sys
from pathlib import Path

from measuring import command_line, ntrex

from topxgen import translation
from topxgen.generation.back_translation import judged
from topxgen.generation.candidates import choose
from topxgen.inference import ModelSettings
from topxgen.text import language_id, languages
from topxgen.translation import TranslatorSettings


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--ntrex", type=Path, required=True)
    parser.add_argument("--model", default="models/gemma-3-270m")
    parser.add_argument("--inference_api", default="vllm")
    parser.add_argument("--lines", type=int, default=60)
    parser.add_argument("--number_of_candidates", type=int, default=4)
    parser.add_argument("--candidate_temperature", type=float, default=0.7)
    args = parser.parse_args()

    from sacrebleu import CHRF

    sources, references = (lines[: args.lines] for lines in ntrex(args.ntrex, "Basque", "English"))
    basque, english, identifier = languages.find("Basque"), languages.find("English"), language_id.load("cld2")
    settings = TranslatorSettings(
        inference_api=args.inference_api,
        model=ModelSettings(args.model, max_model_len=2048),
        demonstration_pool="udhr",
        template_key="14",
        number_of_candidates=args.number_of_candidates,
        candidate_temperature=args.candidate_temperature,
    )
    translator = translation.create("llm", settings)
    translator.load()
    greedy = translator.translate(sources, basque, english)
    found = translator.candidates(sources, basque, english)
    translator.close()

    metric = CHRF(word_order=2)
    records = [judged(several, identifier, english) for several in found]
    confidences = [[one["confidence"] for one in several] for several in records]
    unfiltered = [[{"translation": one["translation"]} for one in several] for several in records]
    systems = {
        "greedy, one candidate": [one.text for one in greedy],
        "first sample": [several[0].text for several in found],
        "most confident": [pair[1]["translation"] for pair in choose(sources, unfiltered, confidences)[0]],
        "nearest to the reference (not a rule: it needs one)": [
            max((one.text for one in several), key=lambda text: metric.sentence_score(text, [reference]).score)
            for several, reference in zip(found, references, strict=True)
        ],
    }
    for name, texts in systems.items():
        passes = sum(
            "reason" not in one for one in judged([translation.Translation(t) for t in texts], identifier, english)
        )
        print(
            f"{name}: chrF++ {metric.corpus_score(texts, [references]).score:.2f}, {passes} of {len(texts)} pass the filters"
        )
    kept, rejected, _ = choose(sources, records, confidences)
    chosen = {source: candidate["translation"] for source, candidate, _ in kept}
    by_source = dict(zip(sources, systems["greedy, one candidate"], strict=True))
    for name, texts in {"most confident that passes": chosen, "the same lines, greedy": by_source}.items():
        lines = [
            (texts[source], reference)
            for source, reference in zip(sources, references, strict=True)
            if source in chosen
        ]
        score = metric.corpus_score([text for text, _ in lines], [[reference for _, reference in lines]]).score
        print(f"{name}: chrF++ {score:.2f}, {len(lines)} lines ({len(rejected)} without a candidate that passes)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
