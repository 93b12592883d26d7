"""The stages of datagen.py and their manifests, which say that one is complete."""

from topxgen.common.files import read_json, write_json
from topxgen.common.provenance import now, versions
from topxgen.common.records import Layout

STAGES = ("generate", "translate", "score")


def begin(layout: Layout, stage: str) -> None:
    """Take back the manifests of a stage that has work to do, and of those that build on it."""
    for later in STAGES[STAGES.index(stage) :]:
        layout.manifest(later).unlink(missing_ok=True)


def write_manifest(
    layout: Layout, stage: str, *, started: str, seed: int, settings: dict, command: list[str], **facts
) -> None:
    """Written last: it stands for a stage that came to its end. One that had nothing to do leaves it alone."""
    path = layout.manifest(stage)
    earlier = read_json(path)
    if earlier and all(earlier.get(name) == value for name, value in {**facts, "settings": settings}.items()):
        return
    write_json(
        path,
        {
            "stage": stage,
            "started": started,
            "finished": now(),
            "command": command,
            "seed": seed,
            "settings": settings,
            "versions": versions(),
            **facts,
        },
    )
