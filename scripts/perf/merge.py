"""Time and memory of putting shards together: responses in the order of their prompts, and scripts/merge.py of pairs.

    python scripts/perf/merge.py --records 10000000 --shards 16

Records are short (a pair of about 60 characters), so that they fit a disk. The judging of texts is not in it, which a merge of
paragraphs does as one run does: scripts/perf/coordinator.py and dedup_speed.py measure that. Each of the two is a process of its
own; the output is JSON.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from measuring import command_line, run_measured

from topxgen.common.shards import Shard
from topxgen.generation.merge import responses_in_order

NAME = "Basque"
SENTENCE, TRANSLATION = (
    "Itsasoa lasai zegoen eta haizea hegotik zetorren, {}.",
    "The sea was calm and the wind came from the south, {}.",
)


def write(path: Path, lines: Iterator[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", buffering=1 << 20) as file:
        file.writelines(lines)


def paragraph(number: int) -> str:
    return f'{{"text": "{SENTENCE.format(number)}", "id": "{NAME}-{number:08d}.0"}}\n'


def pair(number: int) -> str:
    return (
        f'{{"sentence": "{SENTENCE.format(number)}", "propositions": ["{SENTENCE.format(number)}"], "translations": '
        f'["{TRANSLATION.format(number)}"], "scores": [3.5], "id": "{NAME}-{number:08d}.0", "confidences": [0.5], "scorer": "x"}}\n'
    )


def response(number: int) -> str:
    return f'{{"id": "{NAME}-{number:08d}", "texts": ["1. {SENTENCE.format(number)}"], "prompt_tokens": 9, "completion_tokens": 9}}\n'


def in_order_of_arrival(shard: Shard, records: int, line: Callable[[int], str]) -> Iterator[str]:
    """A shard's lines; responses arrive in another order than they were asked for."""
    numbers = range(shard.index, records, shard.count)
    for first in range(0, len(numbers), 256):
        yield from map(line, reversed(numbers[first : first + 256]))


def make(folder: Path, records: int, count: int) -> None:
    words = ["--languages", NAME, "--stages", "translate", "--use_nllb", "--output_dir", str(folder)]
    write(folder / f"{NAME}.jsonl", map(paragraph, range(records)))
    for shard in (Shard(index, count) for index in range(count)):
        own = shard.folder(folder)
        pairs = own / "nllb-200-3.3B"
        write(own / f"{NAME}_answers.jsonl", in_order_of_arrival(shard, records, response))
        write(pairs / f"{NAME}_translate.jsonl", map(pair, range(shard.index, records, count)))
        day, settings = "2026-01-01", {"target_language": "English"}
        note = {"script": "datagen", "shard": shard.name, "started": day, "command": words}
        manifest = {
            "stage": "translate",
            "language": NAME,
            "settings": settings,
            "translator_version": "x",
            "command": [],
        }
        manifest |= {"started": day, "finished": day, "seed": 1, "versions": {}, "counts": {"rejected": {}}}
        files = {
            f"shard_translate_{NAME}": note,
            "settings_translate": settings,
            f"manifest_translate_{NAME}": manifest,
        }
        for name, value in files.items():
            write(pairs / f"{name}.json", iter([json.dumps(value)]))


def order_responses(folder: Path) -> None:
    paths = sorted(folder.glob(f"shards/*/{NAME}_answers.jsonl"))
    responses_in_order(NAME, paths, folder / f"{NAME}_answers.jsonl")


def measured(words: list[str], read: list[Path], written: list[Path], records: int) -> dict:
    found = run_measured(words)
    sizes = [sum(path.stat().st_size for path in paths) for paths in (read, written)]
    rate = round(records / found["seconds"])
    return {"records": records, **found, "records_per_second": rate, "bytes_read": sizes[0], "bytes_written": sizes[1]}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--dir", type=Path, help="where the files are made [the system's temporary folder]")
    parser.add_argument("--order_responses", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.order_responses is not None:
        return order_responses(args.order_responses)
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name)
        make(folder, args.records, args.shards)
        answers, pairs = (
            sorted(folder.glob(f"shards/*/{file}")) for file in (f"{NAME}_answers.jsonl", f"*/{NAME}_translate.jsonl")
        )
        ordered, merged = folder / answers[0].name, folder / pairs[0].parent.name / pairs[0].name
        result = {
            "responses": measured([__file__, "--order_responses", name], answers, [ordered], args.records),
            "pairs": measured(["scripts/merge.py", name], [*pairs, folder / f"{NAME}.jsonl"], [merged], args.records),
        }
        with open(merged, encoding="utf-8") as file:
            if any(line != pair(number) for number, line in enumerate(file)):
                raise SystemExit("the merged pairs are not those of the shards in order")
    print(json.dumps(result, indent=1))
    return None


if __name__ == "__main__":
    main()
