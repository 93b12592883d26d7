"""Which metrics the guard marks, and why."""

from pathlib import Path

from comptra.guard import chains, interference


def reasons(folder: Path, *metrics: str) -> dict[str, list[str]]:
    chain = chains.read(folder)
    return {name: found for name in metrics if (found := interference.reasons(name, chain))}
