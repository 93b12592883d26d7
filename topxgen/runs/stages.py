"""Stages of a run as topxgen.runs.status finds them: what is known of each, and those of shards summed."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

FINISHED, INCOMPLETE, RUNNING, WAITING = "finished", "incomplete", "running", "waiting"
FAILED, KILLED, STOPPED, UNKNOWN, NO_RECORD = "failed", "killed", "stopped", "unknown", "no record"
STATES = {
    FINISHED: "its manifest is there",
    INCOMPLETE: "finished short of its target",
    RUNNING: "a process holds it",
    WAITING: "its process is at another stage or language",
    FAILED: "it ended with an error",
    KILLED: "its process ended without releasing the lock",
    STOPPED: "no process holds it: it was interrupted, or failed without scripts/run.py or a job that notes it",
    UNKNOWN: "of another machine, whose locks this file system may not show",
    NO_RECORD: "files of another program, or of a run whose settings are missing",
}


@dataclass
class Stage:
    """A stage of a language, or of a folder. `done` `of` so many `unit`; `rate` per second, measured as `rate_from` says."""

    stage: str
    folder: str
    language: str = ""
    state: str = NO_RECORD
    unit: str = ""
    done: int | None = None
    of: int | None = None
    rate: float | None = None
    rate_from: str = ""
    seconds_left: float | None = None
    of_all: int | None = None  # `of` all languages of the process together, where none has a number of its own
    changed: float | None = None  # when something was last written
    process: str = ""
    counts: dict[str, Any] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    last_rejects: dict[str, int] = field(default_factory=dict)  # of the last RECENT, the most frequent first
    tokens: dict[str, int] = field(default_factory=dict)
    usd: float | None = None


@dataclass
class Status:
    root: str
    at: float
    host: str
    processes: list[dict[str, Any]]
    stages: list[Stage]
    usd: float | None
    records: list[dict[str, Any]]  # of scripts/run.py and compare.py
    failures: list[dict[str, Any]]
    problems: list[str]


_OF_SHARD = re.compile(r"(^|/)shards/[^/]+-of-\d{4}(?=/|$)")


def merged_before(stages: Sequence[Stage]) -> list[Stage]:
    """Those of shards that go on after a merge: what they cost before it is also that of the directory."""
    places = {(stage.stage, stage.language, stage.folder) for stage in stages if stage.usd is not None}
    return [
        stage
        for stage in stages
        if stage.usd is not None
        and _OF_SHARD.search(stage.folder)
        and (stage.stage, stage.language, os.path.normpath(f"./{_OF_SHARD.sub('', stage.folder)}")) in places
    ]


# The first that a shard has is the state of all.
BY_URGENCY = (RUNNING, UNKNOWN, FAILED, KILLED, STOPPED, NO_RECORD, WAITING, INCOMPLETE, FINISHED)


def with_shards_summed(stages: Sequence[Stage]) -> list[Stage]:
    """The stages, those of shards of one run as one."""
    together: dict[tuple[str, str, str], list[Stage]] = {}
    for stage in stages:
        folder = re.sub(r"((?:^|/)shards/)\d{4}(-of-\d{4}(?:/|$))", r"\1*\2", stage.folder)
        together.setdefault((stage.stage, folder, stage.language), []).append(stage)
    return [
        own[0] if folder == own[0].folder else _sum(own, name, folder, language)
        for (name, folder, language), own in together.items()
    ]


def _sum(own: Sequence[Stage], name: str, folder: str, language: str) -> Stage:
    """Of shards: the state is the first of BY_URGENCY that one has; they end when the slowest of them does."""
    sums = {key: Counter() for key in ("counts", "rejected", "last_rejects", "tokens")}
    for one in own:
        for key, total in sums.items():  # zeros remain, as of one stage
            total.update({what: value for what, value in getattr(one, key).items() if isinstance(value, int)})
    by_state = Counter(one.state for one in own)
    parts = ", ".join(f"{by_state[state]} {state}" for state in BY_URGENCY if by_state[state])
    usd, left = (
        [value for one in own if (value := getattr(one, field)) is not None] for field in ("usd", "seconds_left")
    )
    rates = [one.rate for one in own if one.rate]
    return Stage(
        name,
        folder,
        language,
        state=next(state for state in BY_URGENCY if by_state[state]),
        unit=own[0].unit,
        done=sum(one.done or 0 for one in own),
        of=sum(one.of for one in own) if all(one.of is not None for one in own) else None,
        rate=sum(rates) if rates else None,
        rate_from="the sum of the shards" if rates else "",
        seconds_left=max(left, default=None),
        changed=max((one.changed for one in own if one.changed), default=None),
        process=f"{len(own)} shards: {parts}",
        usd=sum(usd) if usd else None,
        **{key: dict(total) for key, total in sums.items()},
    )
