"""Hostile responses of an API server; then the same command with a good server, which must end as if nothing had happened."""

import functools
import gzip
import re
from collections.abc import Iterator

from tests.attack.faults import Undisturbed
from tests.attack.hostile import VALUES, json_instead
from tests.attack.shooting_range import Outcome, Range, differences, results, shaped
from tests.attack.table import STAGES

_FAILED = re.compile(r'(?<="usage": \{)"failed": \d+, ')
# Rows: (stage, API).
ROWS = {stage: (stage, "openai") for stage in ("translate", "candidates", "few-shot", "comptra")}
ROWS |= {f"{stage}, {api}": (stage, api) for stage in ("translate", "few-shot") for api in ("cohere", "anthropic")}
_OPENAI = {
    "id": "x", "object": "o", "created": 1, "model": "stub-1",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Kaixo."}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip
_ANSWERS = {
    api: shaped(path, _OPENAI) for api, path in (("openai", ""), ("cohere", "/v2/chat"), ("anthropic", "/v1/messages"))
}


@functools.cache  # half a second for the bomb
def _bodies() -> dict[str, tuple[bytes, dict]]:
    return {
        "an empty body": (b"", {}),
        "no JSON": (b"<html>busy</html>", {}),
        "bad UTF-8": (b'{"id": "\xff\xfe"}', {}),
        "a gzip bomb": (gzip.compress(b" " * 200_000_000), {"Content-Encoding": "gzip"}),
        "broken gzip": (b"\x1f\x8b\x08\x00xx", {"Content-Encoding": "gzip"}),
        "an unknown encoding": (b"x", {"Content-Encoding": "zip"}),
    }


def command_of(row: str) -> tuple[str, ...]:
    stage, api = ROWS[row]
    words = {"openai": api, "{url}": "{url}" if api == "openai" else "{root}"}
    return tuple(words.get(word, word) for word in STAGES[stage].command)


def attacks(api: str) -> Iterator[tuple[str, tuple[bytes, dict]]]:
    yield from _bodies().items()
    for what, raw in json_instead(_ANSWERS[api]):
        yield what, (raw.encode("utf-8", "surrogatepass"), {})


def attack(
    place: Range, stage: Undisturbed, command: tuple[str, ...], what: str, response: tuple[bytes, dict]
) -> list[Outcome]:
    """The outcomes with something wrong, of a run that gets nothing but `response` and of the one after it."""
    folder = place.new_folder(stage.ready)
    place.stub.hostile = lambda _: response
    try:
        hit = place.run(folder, command, expect=(0, 2, 3, 4))
    finally:
        place.stub.hostile = None
    again = place.run(folder, command, expect=(0, 3))
    # What the first run has paid for stays counted.
    found = {name: _FAILED.sub("", text) for name, text in results(folder / "out").items()}
    if again.code == 0 and not _is_an_answer(what) and (wrong := differences(stage.results, found)):
        again.problems.append(f"after it, {'; '.join(wrong)}")
    return [outcome for outcome in (hit, again) if outcome.problems]


def _is_an_answer(what: str) -> bool:
    """Whether a server may answer so: the results are then others."""
    place, _, value = what.partition(" is ")
    if place.removesuffix(".0").rpartition(".")[2] not in ("content", "text"):
        is_inside = place.split(".")[0] in ("choices", "message", "content")
        return not is_inside or place.endswith(("index", "role", "finish_reason", "type"))
    return VALUES.get(value, "").startswith('"') or value == "list of text parts"
