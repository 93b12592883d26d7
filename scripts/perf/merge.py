"""Time and memory of putting shards together: responses in the order of their prompts, and scripts/merge.py of pairs.

    python scripts/perf/merge.py --records 10000000 --shards 16
    python scripts/perf/merge.py --judged 52000 --shards 16

Records are short (a pair of about 60 characters), so that they fit a disk. The judging of texts is not in it, which a merge of
paragraphs does as one run does: `--judged` measures that alone, of so many responses of two paragraphs as coordinator.py makes them.
Each measurement is a process of its own; the output is JSON.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from coordinator import Texts
from measuring import as_flags, command_line, run_measured

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
        names = f"shard_translate_{NAME}", "settings_translate", f"manifest_translate_{NAME}"
        for name, value in zip(names, (note, settings, manifest), strict=True):
            write(pairs / f"{name}.json", iter([json.dumps(value)]))


def make_generated(folder: Path, responses: int, count: int) -> None:
    """Shards that were stopped, in one language."""
    texts = Texts(0)
    words = as_flags(
        model_name_or_path="none", inference_api="openai", output_dir=folder, number_of_instructions=4 * responses, languages=NAME,
        seed_topics_path="topics/wikipedia_vital_topics.txt", number_of_icl_demonstrations=0, number_of_icl_phrases=0,
        prompt_template="instruct", stages="generate",
    )  # fmt: skip

    def response_of(number: int) -> str:
        text = "\n\n".join(f"{i + 1}. {texts(2 * number + i)}" for i in range(2))
        record = {"id": f"{NAME}-{number:06d}", "texts": [text], "prompt_tokens": 9, "completion_tokens": 9}
        return json.dumps(record) + "\n"

    for shard in (Shard(index, count) for index in range(count)):
        own = shard.folder(folder)
        write(own / f"{NAME}_answers.jsonl", in_order_of_arrival(shard, responses, response_of))
        note = {"script": "datagen", "shard": shard.name, "started": "2026-01-01", "command": words}
        write(own / f"shard_generate_{NAME}.json", iter([json.dumps(note)]))
        write(own / "settings_generate.json", iter(["{}"]))


def order_responses(folder: Path) -> None:
    paths = sorted(folder.glob(f"shards/*/{NAME}_answers.jsonl"))
    responses_in_order(NAME, paths, folder / f"{NAME}_answers.jsonl")


def measured(words: list[str], read: list[Path], written: list[Path], records: int, fine=(0,)) -> dict:
    found = run_measured(words, fine)
    sizes = [sum(path.stat().st_size for path in paths) for paths in (read, written)]
    rate = round(records / found["seconds"])
    return {"records": records, **found, "records_per_second": rate, "bytes_read": sizes[0], "bytes_written": sizes[1]}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--judged", type=int, metavar="RESPONSES", help="measure a merge of paragraphs instead")
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--order_responses", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.order_responses is not None:
        return order_responses(args.order_responses)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.judged:
            make_generated(folder, args.judged, args.shards)
            answers, merged = sorted(folder.glob(f"shards/*/{NAME}_answers.jsonl")), folder / f"{NAME}.jsonl"
            result = measured(["scripts/merge.py", name], answers, [merged], args.judged, (3,))
            with open(merged, "rb") as file:
                print(json.dumps({"judged": result | {"kept": sum(1 for _ in file)}}, indent=1))
            return None
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
