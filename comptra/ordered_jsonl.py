"""One record a sentence in a JSONL file, in the order of the sentences, that a killed run goes on with."""

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_jsonl, repair_tail, to_line, write_atomic

# An extra key of lines that lack an answer, or rest on something that does: they are made again.
UNANSWERED = "unanswered"
UNDIVIDED = "undivided"  # an extra key of lines that got no division, twice, and stand for their sentence


class Incomplete(str):
    """A text made without an answer that it should rest on: it stands, and the next run makes it again."""


def provisional(found: Iterable[tuple[int, str | None]], places: Collection[int]) -> Iterator[tuple[int, str | None]]:
    """`found` (place, text), those at `places` Incomplete."""
    for place, text in found:
        yield place, text if text is None or place not in places else Incomplete(text)


def resume(path: Path, sentences: list[str], key: str, shared: bool = False) -> list[dict]:
    """The records of the first sentences, as many as the file has; a half-written last line is dropped from it.

    A null under `key` counts as unanswered. A `shared` file may have more lines, for more sentences: they are given, too.
    Raises UsageError when a line lacks `key`, has something else there, stands for another sentence than the one of its
    place (white space aside), or is one too many.
    """
    expected = list if key == "propositions" else str
    repair_tail(path)
    found = []
    for number, record in enumerate(read_jsonl(path), start=1):
        if number > len(sentences) and shared:
            found.append(record)
            continue
        if number > len(sentences):
            raise UsageError(
                f"{path} has more lines than the {len(sentences)} sentences of this run; pass another --output_dir, or the "
                "--max_samples that it was made with"
            )
        text = record.get("sentence")
        if not isinstance(text, str) or text.split() != sentences[number - 1].split() or key not in record:
            raise UsageError(
                f"{path}, line {number} holds {_short(text)}, this run has {_short(sentences[number - 1])} there: another data "
                "set or direction; pass another --output_dir (divisions: --metadata_dir)"
            )
        if record[key] is None:
            record[UNANSWERED] = True
        elif not isinstance(record[key], expected):
            raise UsageError(f"{path}, line {number}: {key} is {_short(str(record[key]))}; mend or remove the line")
        found.append(record)
    return found


def fill(
    path: Path,
    sentences: list[str],
    key: str,
    work: Callable[[list[int]], Iterator[tuple[int, object]]],
    instead: Callable[[str], object],
    shared: bool = False,
) -> list:
    """A value for each sentence: those in the file, and for the rest those of `work`, which go into it.

    `work` gets the numbers of the sentences that have none and yields (place in that list, value) as they come; lines are
    written as soon as all before them are there. None stands for no answer: `instead` gives what is written for the
    sentence, and the next run asks again, as it does for what is Incomplete. `shared`: see resume.
    """

    def record(number: int, value: object) -> dict:
        line = {"sentence": sentences[number], key: instead(sentences[number]) if value is None else value}
        return line | {UNANSWERED: True} if value is None or isinstance(value, Incomplete) else line

    found = resume(path, sentences, key, shared)
    again = [number for number, line in enumerate(found[: len(sentences)]) if line.get(UNANSWERED)]
    if again:
        for place, value in work(again):
            found[again[place]] = record(again[place], value)
        write_atomic(path, map(to_line, found))
    rest = list(range(len(found), len(sentences)))
    if rest:
        waiting: dict[int, object] = {}
        with Appender(path) as out:
            for place, value in work(rest):
                waiting[rest[place]] = value
                while len(found) in waiting:
                    line = record(len(found), waiting.pop(len(found)))
                    out.write(line)
                    found.append(line)
    if len(found) < len(sentences):
        raise RuntimeError(f"no {key} for {len(sentences) - len(found)} sentences")
    return [line[key] for line in found[: len(sentences)]]


def settle(path: Path, numbers: Collection[int]) -> None:
    """Take what stands for these sentences as it is, UNDIVIDED: they are not asked again."""
    lines = list(read_jsonl(path))
    for number in numbers:
        kept = {key: value for key, value in lines[number].items() if key != UNANSWERED}
        lines[number] = {**kept, UNDIVIDED: True}
    write_atomic(path, map(to_line, lines))


def complete(path: Path, count: int) -> bool:
    """Whether nothing is left to be asked for `count` sentences."""
    lines = list(read_jsonl(path))
    return len(lines) == count and not any(line.get(UNANSWERED) or None in line.values() for line in lines)


def unanswered(path: Path) -> set[int]:
    """The numbers of the sentences that are to be asked again."""
    return marked(path, UNANSWERED)


def marked(path: Path, key: str) -> set[int]:
    """The numbers of the lines that have the extra key."""
    repair_tail(path)
    return {number for number, line in enumerate(read_jsonl(path)) if line.get(key)}


def _short(text) -> str:
    if not isinstance(text, str):
        return "no sentence"
    return repr(text if len(text) <= 60 else text[:60] + "…")
