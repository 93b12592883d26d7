"""Merges of shards of datagen.py, and what they have in common with one run."""

import json
from collections import Counter
from pathlib import Path

from tests.support.runs import in_process, records


def merge(*folders, check=0):
    result = in_process("scripts/merge.py", *folders)
    assert result.returncode == check, result.stderr
    assert "Traceback" not in result.stderr
    return result


def files(folder: Path) -> dict[str, bytes]:
    """The data files and checksums of a directory, without its shards and manifests."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*.jsonl")}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith("shards/")}


def number(line: dict) -> int:
    return int(line["id"].removeprefix("Basque-").partition(".")[0])


def lines(path: Path, below: int = 10**9) -> list[str]:
    return [line for line in path.read_text().splitlines() if number(json.loads(line)) < below]


def check_like_one(folder: Path, one: Path) -> None:
    """Equal up to the first prompt without a response; then in the same order. All texts of all responses judged once."""
    asked = [number(response) for response in records(folder / "Basque_answers.jsonl")]
    assert asked == sorted(set(asked))
    gap = next(n for n in range(len(asked) + 1) if n >= len(asked) or asked[n] != n)
    assert gap > 10
    for kind in ("", "_rejects"):
        path = f"Basque{kind}.jsonl"
        ours, theirs = lines(folder / path, gap), lines(one / path, gap)
        has_enough = len(records(folder / "Basque.jsonl")) == 40 and number(records(folder / "Basque.jsonl")[-1]) < gap
        assert (ours or kind) and ours == (theirs[: len(ours)] if has_enough else theirs)
        assert [number(line) for line in records(folder / path)] == sorted(
            number(line) for line in records(folder / path)
        )
    judged = Counter(line["id"] for kind in ("", "_rejects") for line in records(folder / f"Basque{kind}.jsonl"))
    assert set(judged.values()) == {1}
    one_answers = {response["id"]: response for response in records(one / "Basque_answers.jsonl")}
    shared = [response for response in records(folder / "Basque_answers.jsonl") if response["id"] in one_answers]
    assert shared == [one_answers[response["id"]] for response in shared]


def verified(folder: Path) -> None:
    result = in_process("scripts/verify.py", folder)
    assert result.returncode == 0, result.stdout
