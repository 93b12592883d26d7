"""Scores of translations by a reference-free COMET model (Rei et al. 2022), in a separate environment.

    .venv-comet/bin/python topxgen/quality/comet_qe.py pairs.jsonl scores.jsonl --model Unbabel/wmt22-cometkiwi-da

Reads lines {"id", "src", "mt"} and appends lines {"id", "score"}; ids that have a score are skipped, so that a run can be
resumed. Needs requirements-comet.txt and nothing else of this project.
"""

import argparse
import json
import os

CHUNK_PAIRS = 2048


def records(path: str) -> list[dict]:
    """The complete lines of a JSONL file; a last line that a kill cut off is dropped."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs")
    parser.add_argument("scores")
    parser.add_argument("--model", default="Unbabel/wmt22-cometkiwi-da", help="Hub id or checkpoint file [%(default)s]")
    parser.add_argument("--batch_size", type=int, default=16, help="[%(default)s]")
    parser.add_argument("--chunk", type=int, default=CHUNK_PAIRS, help="pairs between two writes [%(default)s]")
    args = parser.parse_args()

    done = {record["id"] for record in records(args.scores)} if os.path.exists(args.scores) else set()
    todo = [record for record in records(args.pairs) if record["id"] not in done]
    if not todo:
        return
    import torch
    from comet import download_model, load_from_checkpoint

    path = args.model if os.path.isfile(args.model) else download_model(args.model)
    model = load_from_checkpoint(path)
    gpus = int(torch.cuda.is_available())
    todo.sort(
        key=lambda record: len(record["src"]) + len(record["mt"]), reverse=True
    )  # so that a lack of memory shows at once
    with open(args.scores, "a", encoding="utf-8") as out:
        for start in range(0, len(todo), args.chunk):
            chunk = todo[start : start + args.chunk]
            pairs = [{"src": record["src"], "mt": record["mt"]} for record in chunk]
            scores = model.predict(pairs, batch_size=args.batch_size, gpus=gpus, progress_bar=False).scores
            for record, score in zip(chunk, scores, strict=True):
                out.write(json.dumps({"id": record["id"], "score": float(score)}) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
