"""Pairs per second of topxgen.quality.blaser against a plain loop, on a network of SONAR's size with random weights.

    python scripts/perf/blaser_speed.py                                # Basque and English of data/udhr
    python scripts/perf/blaser_speed.py --source eus.txt --target eng.txt --pairs 64

The loop takes 32 pairs at a time in file order, each side padded to its longest text. Both run the same network in the same
process, in alternating rounds; they differ in padding and batch size (and the loop embeds repeated texts again). The
tokenizer is trained on the texts, so its vocabulary is small; this does not affect the speed.
"""

import statistics
import tempfile
from pathlib import Path

from measuring import command_line, in_turns, parallel

from tests.support.tiny_sonar import build_blaser, build_sonar
from topxgen.quality.blaser import Blaser
from topxgen.text import languages


def plain_loop(scorer: Blaser, tokenizer, pairs, source: str, target: str, batch: int) -> list[float]:
    """Scores as a script would compute them."""
    import torch

    model, device = scorer._encoder._replicas.models[0], scorer._encoder.device
    scores = []
    for start in range(0, len(pairs), batch):
        sides = []
        for texts, code in zip(zip(*pairs[start : start + batch], strict=True), (source, target), strict=True):
            tokenizer.src_lang = code
            inputs = tokenizer(list(texts), padding=True, truncation=True, max_length=514, return_tensors="pt").to(
                device
            )
            with torch.inference_mode():
                hidden = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            sides.append((hidden * mask).sum(dim=1) / mask.sum(dim=1))
        scores += scorer._network(*sides).tolist()
    return scores


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--source", type=Path, help="text file, a sentence a line [the UDHR]")
    parser.add_argument("--target", type=Path, help="its translations, line by line")
    parser.add_argument("--languages", nargs=2, default=["Basque", "English"])
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32, help="pairs in a batch of the plain loop")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    import torch
    from transformers import AutoTokenizer

    source, target = map(languages.find, args.languages)
    pairs = parallel((args.source, args.target), (source.name, target.name))
    training, pairs = [text for pair in pairs for text in pair], pairs[: args.pairs]
    with tempfile.TemporaryDirectory() as folder:
        sonar = build_sonar(Path(folder) / "sonar", training, args.width, args.layers)
        blaser = build_blaser(Path(folder) / "model.pt", args.width)
        scorer = Blaser(blaser, sonar, dtype=args.dtype)
        tokenizer = AutoTokenizer.from_pretrained(sonar, trust_remote_code=False)
        lengths = sorted(len(ids) for ids in tokenizer([text for pair in pairs for text in pair])["input_ids"])
        distinct = len({a for a, _ in pairs}) + len({b for _, b in pairs})
        print(
            f"{len(pairs)} pairs, {distinct} distinct texts of {lengths[0]} to {lengths[-1]} tokens (median "
            f"{statistics.median(lengths):.0f}); {args.layers} layers of {args.width}, {args.dtype}, "
            f"{scorer._encoder.device}, {torch.get_num_threads()} threads"
        )
        plain_loop(scorer, tokenizer, pairs[:4], source.flores, target.flores, args.batch)  # to warm up
        scores, tokens, running = {}, {"plain loop": 0, "scorer": 0}, ""

        def count(_, args, kwargs) -> None:
            tokens[running] += kwargs["input_ids"].numel()

        def loop() -> int:
            nonlocal running
            running = "plain loop"
            scores[running] = plain_loop(scorer, tokenizer, pairs, source.flores, target.flores, args.batch)
            return len(pairs)

        def ours() -> int:
            nonlocal running
            running = "scorer"
            scorer.forget()  # what is known from the round before
            scores[running] = scorer.score([a for a, _ in pairs], [b for _, b in pairs], source, target)
            return len(pairs)

        scorer._encoder._replicas.models[0].register_forward_pre_hook(count, with_kwargs=True)
        in_turns({"plain loop": loop, "scorer": ours}, args.rounds, "pairs")
        for name, run in tokens.items():
            print(f"{name}: {1 - sum(lengths) * args.rounds / run:.0%} of the tokens that it runs are padding")
        off = max(abs(a - b) for a, b in zip(*scores.values(), strict=True))
        print(f"scores differ by {off:.1e} at most")
        scorer.close()


if __name__ == "__main__":
    main()
