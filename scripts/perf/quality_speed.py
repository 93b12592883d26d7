"""Pairs per second of topxgen.quality against other ways to run the same network with random weights.

    python scripts/perf/quality_speed.py blaser --pairs 96
    python scripts/perf/quality_speed.py metricx --pairs 50 --shape tiny --rounds 3

blaser: a network of SONAR's size, against a plain loop of 32 pairs at a time in file order, each side padded to its longest text
(it also embeds repeated texts again). metricx: against its publisher's program (google-research/metricx, batch size 1, which its
README advises), which runs the whole model, with the output layer over 250,112 tokens, on a segment after the other. Both sides
run in the same process, in alternating rounds. Texts are those of the UDHR in Basque and English; candidates of MetricX are the
references with words left out. Tokenizers are trained on the texts, so their vocabularies are small; this does not affect the speed.
"""

import random
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from measuring import command_line, in_turns

from tests.support.tiny_metricx import build_metricx
from tests.support.tiny_models import udhr_pairs
from tests.support.tiny_sonar import build_blaser, build_sonar
from topxgen.quality import metricx
from topxgen.quality.blaser import Blaser
from topxgen.text import languages

BATCH = 32  # of the plain loop
WIDTH, LAYERS = 1024, 24  # of SONAR
SHAPES = {
    "tiny": {},
    "small": {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6},
    "base": {"d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12},
}
Sides = dict[str, Callable[[], list[float]]]  # two ways to score the same pairs


def plain_loop(scorer: Blaser, tokenizer, pairs: list[tuple[str, str]]) -> list[float]:
    """BLASER's scores as a script would compute them."""
    import torch

    model, device = scorer._encoder._replicas.models[0], scorer._encoder.device
    scores = []
    for start in range(0, len(pairs), BATCH):
        sides = []
        for texts, code in zip(zip(*pairs[start : start + BATCH], strict=True), ("eus_Latn", "eng_Latn"), strict=True):
            tokenizer.src_lang = code
            inputs = tokenizer(list(texts), padding=True, truncation=True, max_length=514, return_tensors="pt")
            with torch.inference_mode():
                hidden = model(**inputs.to(device)).last_hidden_state
            mask = inputs["attention_mask"].to(device).unsqueeze(-1)
            sides.append((hidden * mask).sum(dim=1) / mask.sum(dim=1))
        scores += scorer._network(*sides).tolist()
    return scores


def publishers_way(model, tokenizer, texts: list[str]) -> list[float]:
    """MetricX's logit of each text, not clipped: batch size 1, all logits."""
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


def blaser_sides(folder: Path, count: int) -> Sides:
    from transformers import AutoTokenizer

    pairs = udhr_pairs("Basque")
    sonar = build_sonar(folder / "sonar", [text for pair in pairs for text in pair], WIDTH, LAYERS)
    scorer = Blaser(build_blaser(folder / "model.pt", WIDTH), sonar)
    tokenizer = AutoTokenizer.from_pretrained(sonar, trust_remote_code=False)
    pairs, basque, english = pairs[:count], *map(languages.find, ("Basque", "English"))
    show_lengths([len(ids) for ids in tokenizer([text for pair in pairs for text in pair])["input_ids"]])

    def ours() -> list[float]:
        scorer.forget()  # what is known from the round before
        return scorer.score(*map(list, zip(*pairs, strict=True)), basque, english)

    return {"plain loop": lambda: plain_loop(scorer, tokenizer, pairs), "ours": ours}


def metricx_sides(folder: Path, count: int, shape: str) -> Sides:
    import torch
    from transformers import MT5ForConditionalGeneration

    pairs, drop = udhr_pairs("Basque"), random.Random(1)
    scale = 0.3 if shape == "tiny" else 0.02
    training = [text for pair in pairs for text in pair]
    name = build_metricx(folder / "metricx-24", training, scale=scale, pieces=1500, **SHAPES[shape])
    scorer = metricx.MetricX(name, dtype="float32")
    whole = MT5ForConditionalGeneration.from_pretrained(name, dtype=torch.float32).eval()
    references, sources = zip(*random.Random(0).sample(pairs, min(count, len(pairs))), strict=True)
    candidates = [" ".join(word for word in text.split() if drop.random() > 0.15) for text in references]
    texts = metricx.model_inputs(24, sources, candidates, references)
    show_lengths([len(row) for row in scorer._token_ids(texts)])
    print(f"{sum(parameter.numel() for parameter in whole.parameters()) / 1e6:.0f}M parameters")
    return {
        "batch size 1": lambda: publishers_way(whole, scorer._checkpoint.tokenizer, texts),
        "ours": lambda: scorer.logits(scorer._token_ids(texts)),
    }


def show_lengths(lengths: list[int]) -> None:
    median = statistics.median(lengths)
    print(f"{len(lengths)} texts of {min(lengths)} to {max(lengths)} tokens (median {median:.0f})")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("metric", choices=("blaser", "metricx"))
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shape", choices=SHAPES, default="small", help="of MetricX [%(default)s]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, count = Path(place), args.pairs
        sides = blaser_sides(folder, count) if args.metric == "blaser" else metricx_sides(folder, count, args.shape)
        scores = {name: score() for name, score in sides.items()}  # to warm up
        in_turns({name: lambda score=score: len(score()) for name, score in sides.items()}, args.rounds, "pairs")
        off = max(abs(a - b) for a, b in zip(*scores.values(), strict=True))
        print(f"scores differ by {off:.1e} at most")


if __name__ == "__main__":
    main()
