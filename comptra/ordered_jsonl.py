"""JSONL files with one record per sentence, in the order of the sentences, that a killed run resumes."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Required

from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_jsonl, repair_tail, to_line, write_atomic
from topxgen.common.schemas import fields

# Lines of translate_{s}.jsonl and of divide_{r}.jsonl; null: the model gave no answer.
TranslationLine = fields(sentence=Required[str], translation=Required[str | None])
DivisionLine = fields(sentence=Required[str], propositions=Required[list[str] | None])
SCHEMAS = {"translation": TranslationLine, "propositions": DivisionLine}  # by the key of the value
# Extra keys of a line.
UNANSWERED = "unanswered"  # depends on a prompt that got no answer: the next run makes the line again
TRUNCATED = "truncated"  # the translation is cut at the limit of new tokens
UNREADABLE = "unreadable"  # the answer holds no translation; it is not asked for again
UNDIVIDED = "undivided"  # a sentence that could not be divided in two runs: its line is final


def resume_lines(
    path: Path,
    sentences: list[str],
    key: str,
    work: Callable[[list[int]], Iterator[tuple[int, object]]],
    marks: Mapping[str, Collection[str]],
    shared: bool = False,
    accepts_unanswered: bool = False,
) -> list:
    """The value of each sentence: from the file where it has one, else from `work`, which is then written to the file.

    `work` takes the numbers of sentences and yields (place in that list, value) as they finish; a line is written as soon
    as all lines before it are. `marks`: extra keys, and the sentences whose lines get them; a line that is marked as
    unanswered is made again by the next run, unless that accepts it as it is.
    `shared`: see read_lines.
    """

    def record(number: int, value: object) -> dict:
        extra = {mark: True for mark, texts in marks.items() if sentences[number] in texts}
        return {"sentence": sentences[number], key: value, **extra}

    lines = read_lines(path, sentences, key, shared)
    again = [number for number, line in enumerate(lines[: len(sentences)]) if _is_open(line, accepts_unanswered)]
    if again:
        for place, value in work(again):
            lines[again[place]] = record(again[place], value)
        write_atomic(path, map(to_line, lines))
    missing = list(range(len(lines), len(sentences)))
    if missing:
        finished: dict[int, object] = {}
        with Appender(path) as out:
            for place, value in work(missing):
                finished[missing[place]] = value
                while len(lines) in finished:
                    line = record(len(lines), finished.pop(len(lines)))
                    out.write(line)
                    lines.append(line)
    if len(lines) < len(sentences):
        raise RuntimeError(f"no {key} for {len(sentences) - len(lines)} sentences")
    return [line[key] for line in lines[: len(sentences)]]


def _is_open(line: dict, accepts_unanswered: bool) -> bool:
    """Whether the next run makes the line again."""
    return None in line.values() or bool(line.get(UNANSWERED) and not accepts_unanswered)


def unfinished(path: Path, count: int, accepts_unanswered: bool) -> list[int]:
    """The numbers of those of `count` sentences whose lines the next run makes."""
    lines = list(read_jsonl(path, on_cut=lambda _: None))[:count]
    again = [number for number, line in enumerate(lines) if _is_open(line, accepts_unanswered)]
    return [*again, *range(len(lines), count)]


def read_lines(path: Path, sentences: list[str], key: str, shared: bool = False) -> list[dict]:
    """The records of the first sentences, as many as the file has; a half-written last line is dropped from it.

    A null under `key` counts as unanswered. A `shared` file may go on with lines of more sentences; they are returned, too.
    Raises UsageError for a line that does not fit the schema of `key`, for a line of another sentence than the one of the
    same number (white space aside), and for more lines than sentences.
    """
    repair_tail(path)
    lines = []
    for number, line in enumerate(read_jsonl(path, SCHEMAS[key]), start=1):
        if number > len(sentences) and shared:
            lines.append(line)
            continue
        if number > len(sentences):
            raise UsageError(
                f"{path} has more lines than the {len(sentences)} sentences of this run; pass another --output_dir, or the "
                "--max_samples of the earlier run"
            )
        if line["sentence"].split() != sentences[number - 1].split():
            raise UsageError(
                f"{path}, line {number} holds {shortened(line['sentence'])}, but sentence {number} of this run is "
                f"{shortened(sentences[number - 1])}: the file is of another data set or direction; pass another --output_dir"
            )
        if line[key] is None:
            line[UNANSWERED] = True
        lines.append(line)
    return lines


def put_lines(path: Path, sentences: list[str], numbers: Sequence[int], translations: Sequence[str]) -> None:
    """Write the translations of some sentences over the lines that the file has; others, as of an older version, are null."""
    lines = read_lines(path, sentences, "translation")
    lines += [{"sentence": text, "translation": None} for text in sentences[len(lines) : max(numbers) + 1]]
    for number, translation in zip(numbers, translations, strict=True):
        lines[number] = {"sentence": sentences[number], "translation": translation}
    write_atomic(path, [to_line({key: value for key, value in line.items() if key != UNANSWERED}) for line in lines])


def is_torn(path: Path) -> bool:
    """Whether the last line is half-written, which `read_lines` would repair."""
    return path.is_file() and path.read_bytes()[-1:] not in (b"", b"\n")


def mark_undividable(path: Path, numbers: Collection[int]) -> None:
    """Mark the lines of these sentences as final, so that their division is not tried again."""
    lines = list(read_jsonl(path))
    for number in numbers:
        lines[number] = {name: value for name, value in lines[number].items() if name != UNANSWERED} | {UNDIVIDED: True}
    write_atomic(path, map(to_line, lines))


def is_complete(path: Path, count: int, accepts_unanswered: bool = False) -> bool:
    """Whether the file has an answered line for each of `count` sentences."""
    lines = list(read_jsonl(path))
    return len(lines) == count and not any(_is_open(line, accepts_unanswered) for line in lines)


def marked(path: Path, mark: str) -> set[int]:
    """The numbers (from 0) of the lines with the extra key `mark`."""
    repair_tail(path)
    return {number for number, line in enumerate(read_jsonl(path)) if line.get(mark)}


def shortened(text: str) -> str:
    """`text`, or its beginning, quoted for an error message."""
    return repr(text if len(text) <= 60 else text[:60] + "…")
