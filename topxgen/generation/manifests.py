"""The stages of datagen.py and their manifests. A stage has a manifest when it is complete."""

from topxgen.common.files import read_json, write_json
from topxgen.common.provenance import command_line, now, versions
from topxgen.common.records import Layout

STAGES = ("generate", "translate", "score")


def remove_manifests(layout: Layout, stage: str) -> None:
    """Remove the manifests of a stage that has work to do, and of the stages after it."""
    for later in STAGES[STAGES.index(stage) :]:
        layout.manifest(later).unlink(missing_ok=True)


def write_manifest(layout: Layout, stage: str, started: str, seed: int, settings: dict, **results) -> None:
    """Write the manifest of a stage, last of its files. One with the same settings and results stays as it is."""
    path = layout.manifest(stage)
    earlier = read_json(path)
    if earlier and all(earlier.get(name) == value for name, value in {**results, "settings": settings}.items()):
        return
    write_json(
        path,
        {
            "stage": stage,
            "started": started,
            "finished": now(),
            "command": command_line(("--api_key",)),
            "seed": seed,
            "settings": settings,
            "versions": versions(),
            **results,
        },
    )
