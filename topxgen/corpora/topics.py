"""Files of topics to write about: text (one per line) or jsonl."""

import json
from collections.abc import Iterator
from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.common.files import encoding_hint, refuse_stand_in
from topxgen.common.lines import split_lines


def read_topics(path: Path) -> list[str]:
    """The distinct topics of a file, in its order.

    In a text file without "wiki" in its name, a line is a comma-separated word list, whose last comma
    becomes " and ". A line of a jsonl or json file is a string or an object with "topic", and perhaps "category".
    Raises UsageError when the file is missing, empty or malformed.
    """
    if _is_json(path):
        topics = [topic for _, topic, _ in _json_topics(path)]
    elif "wiki" in path.name.lower():
        topics = [line.strip() for line in _lines(path)]
    else:
        topics = [_word_list(line) for line in _lines(path)]
    topics = list(dict.fromkeys(topic for topic in topics if topic))
    if not topics:
        raise UsageError(f"the topics file {path} holds no topic; it needs one topic per line")
    return topics


def read_categories(path: Path) -> dict[str, str]:
    """The category of each topic of a json or jsonl file that has one; {} for other files. Raises UsageError as `read_topics` does."""
    categories = {}
    for where, topic, category in _json_topics(path) if _is_json(path) else ():
        if category is not None and not isinstance(category, str):
            raise UsageError(f'{where}: "category" is no text')
        if topic and category:
            categories.setdefault(topic, category)
    return categories


def _is_json(path: Path) -> bool:
    return path.suffix.lower() in (".jsonl", ".json")


def _json_topics(path: Path) -> Iterator[tuple[str, str, object]]:
    """(file and line, topic, category) of each line."""
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, line {number}"
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{where}: {error}; a line is a JSON string or object") from None
            row = value if isinstance(value, dict) else {"topic": value}
            if not isinstance(topic := row.get("topic"), str):
                raise UsageError(f'{where}: needs a string or an object with "topic"')
            yield where, topic.strip(), row.get("category")


def _lines(path: Path) -> list[str]:
    if path.suffix.lower() in (".csv", ".tsv", ".parquet"):
        raise UsageError(
            f'the topics file {path} is a table: write a .txt file (one topic per line), or .jsonl with "topic"'
        )
    try:
        refuse_stand_in(path)
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise UnicodeError
        return split_lines(text)
    except (OSError, UnicodeError) as error:
        is_unreadable = isinstance(error, OSError)
        reason = f": {error.strerror}" if is_unreadable else encoding_hint(path) or ": it is not UTF-8 text"
        raise UsageError(
            f"cannot read the topics file {path}{reason}; pass --seed_topics_path a txt (one topic per line) or "
            "jsonl file, such as topics/wikipedia_vital_topics.txt"
        ) from None


def _word_list(line: str) -> str:
    words = [word.strip() for word in line.split(",") if word.strip()]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
