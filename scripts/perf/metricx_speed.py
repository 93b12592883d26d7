"""Segments per second of topxgen.quality.metricx against its publisher's way of running it, on random weights.

    python scripts/perf/metricx_speed.py                      # mt5-small's shape (300M), the UDHR in Basque and English
    python scripts/perf/metricx_speed.py --source newstest2019-src.eng.txt --reference newstest2019-ref.eus.txt

The publisher's program (google-research/metricx, batch size 1, which its README advises) runs the whole model, with the output
layer over 250,112 tokens, on a segment after the other. Both run the same weights in the same process, in alternating rounds.
Candidates are the references with words left out.
"""

import random
import statistics
import tempfile
from pathlib import Path

from measuring import command_line, in_turns, parallel

from tests.support.tiny_metricx import build_metricx
from topxgen.quality import metricx

SHAPES = {
    "tiny": {},
    "small": {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6},
    "base": {"d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12},
}


def publishers_way(model, tokenizer, texts: list[str]) -> list[float]:
    """The logit of each text, not clipped: batch size 1, all logits."""
    import torch

    scores = []
    for text in texts:
        ids = tokenizer(text, max_length=1536, truncation=True, return_tensors="pt")["input_ids"][:, :-1]
        with torch.no_grad():
            output = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                decoder_input_ids=torch.zeros((1, 1), dtype=torch.long),
                use_cache=False,
            )
        scores.append(float(output.logits[0, 0, metricx.SCORE_TOKEN]))
    return scores


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--source", type=Path, help="text file, a sentence a line [the UDHR in English]")
    parser.add_argument("--reference", type=Path, help="its references, line by line [in Basque]")
    parser.add_argument("--segments", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", choices=SHAPES, default="small", help="[%(default)s]")
    parser.add_argument("--batch_tokens", type=int, help="[as for users]")
    parser.add_argument("--without_references", action="store_true")
    args = parser.parse_args()
    import torch
    from transformers import MT5ForConditionalGeneration

    pairs = parallel((args.source, args.reference), ("English", "Basque"))
    training = [text for pair in pairs for text in pair]
    chosen = random.Random(0).sample(pairs, min(args.segments, len(pairs)))
    sources, references = [a for a, _ in chosen], [b for _, b in chosen]
    drop = random.Random(1)
    candidates = [" ".join(word for word in text.split() if drop.random() > 0.15) for text in references]
    given = None if args.without_references else references
    with tempfile.TemporaryDirectory() as folder:
        scale = 0.3 if args.shape == "tiny" else 0.02
        name = build_metricx(Path(folder) / "metricx-24", training, scale=scale, pieces=1500, **SHAPES[args.shape])
        scorer = metricx.MetricX(name, dtype="float32", batch_tokens=args.batch_tokens)
        whole = MT5ForConditionalGeneration.from_pretrained(name, dtype=torch.float32).eval()
        tokenizer = scorer._checkpoint.tokenizer
        texts = metricx.model_inputs(24, sources, candidates, given)
        lengths = sorted(len(row) for row in scorer._token_ids(texts))
        millions = sum(parameter.numel() for parameter in whole.parameters()) / 1e6
        print(
            f"{len(texts)} segments of {lengths[0]} to {lengths[-1]} tokens (median {statistics.median(lengths):.0f}); "
            f"{millions:.0f}M parameters, float32, {torch.get_num_threads()} threads"
        )
        publishers_way(whole, tokenizer, texts[:2])  # to warm up
        scorer.score(sources[:2], candidates[:2], given and given[:2])
        sides = {
            "batch size 1": lambda: len(publishers_way(whole, tokenizer, texts)),
            "ours": lambda: len(scorer.score(sources, candidates, given)),
        }
        in_turns(sides, args.rounds, "segments")
        theirs, logits = publishers_way(whole, tokenizer, texts), scorer.logits(scorer._token_ids(texts))
        off = max(abs(a - b) for a, b in zip(logits, theirs, strict=True))
        print(f"scores from {min(theirs):.2f} to {max(theirs):.2f} differ by {off:.1e} at most")
        scorer.close()


if __name__ == "__main__":
    main()
