"""One record a sentence in a JSONL file, in the order of the sentences, that a killed run goes on with."""

from collections.abc import Callable, Iterator
from pathlib import Path

from comptra.errors import UserError
from comptra.files import Appender, read_jsonl, repair_tail


def read(path: Path, sentences: list[str], key: str) -> list:
    """The values of `key` for the first sentences, as many as the file has.

    Raises UserError when a line lacks it, stands for another sentence than the one of its place, or is one too many.
    """
    values = []
    for number, record in enumerate(read_jsonl(path), start=1):
        if number > len(sentences):
            raise UserError(
                f"{path} has more lines than the {len(sentences)} sentences of this run; pass another --output_dir, or the "
                "--max_samples that it was made with"
            )
        if record.get("sentence") != sentences[number - 1] or key not in record:
            raise UserError(
                f"{path}, line {number} holds {_short(record.get('sentence'))}, this run has {_short(sentences[number - 1])} "
                "there: another data set or direction; pass another --output_dir (divisions: --metadata_dir)"
            )
        values.append(record[key])
    return values


def fill(path: Path, sentences: list[str], key: str, work: Callable[[list[str]], Iterator[tuple[int, object]]]) -> list:
    """A value for each sentence: those in the file, and for the rest those of `work`, which go into it.

    `work` gets the sentences that have none and yields (number among them, value) as they come; lines are written as soon
    as all before them are there.
    """
    repair_tail(path)
    values = read(path, sentences, key)
    rest = sentences[len(values) :]
    if not rest:
        return values
    waiting: dict[int, object] = {}
    start = written = len(values)
    with Appender(path) as out:
        for i, value in work(rest):
            waiting[start + i] = value
            while written in waiting:
                value = waiting.pop(written)
                out.write({"sentence": sentences[written], key: value})
                values.append(value)
                written += 1
    if written < len(sentences):
        raise RuntimeError(f"no {key} for {len(sentences) - written} sentences")
    return values


def _short(text) -> str:
    if not isinstance(text, str):
        return "no sentence"
    return repr(text if len(text) <= 60 else text[:60] + "…")
