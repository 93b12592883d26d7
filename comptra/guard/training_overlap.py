"""Training data that may hold the test set: data in the chain of manifests that was not decontaminated against these texts.

Test sets are compared by the digests of their sides, so another split, a newer copy or a copy under another name counts as
what it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from topxgen.common.lineage import Link, Text


class Side(NamedTuple):
    """One side of a test set."""

    language: str
    benchmark: str  # "" for the user's own
    split: str
    sha256: str

    def __str__(self) -> str:
        what = f"{self.benchmark} {self.split}" if self.benchmark else "the test file in"
        return f"{what} {self.language}"


def sides_of(facts: Mapping, languages: Sequence[str], benchmark: str) -> list[Side]:
    """The sides of a test set by its facts (evaluation_sets.TestSet); [] for phrases, which have none."""
    test = facts.get("test", {})
    named = zip(languages, ("sources", "references"), strict=True)
    return [Side(lang, benchmark, test[side]["part"], test[side]["sha256"]) for lang, side in named if side in test]


def warning(sides: Sequence[Side], data: Sequence[Link], covers: Callable[[Text, Side], bool]) -> str | None:
    """One line on the training data that may hold the test set; None if none may.

    `covers`: whether a text that was removed holds all sentences of a side, whose digest is another (a slice, say).
    """
    problems: dict[str, list[str]] = {}
    for link in data if sides else ():
        if problem := _problem(sides, link, covers):
            problems.setdefault(problem, []).append(_name(link))
    listed = [f"{' and '.join(dict.fromkeys(names))}, {problem}" for problem, names in problems.items()]
    return f"trained on {'; '.join(listed)}" if listed else None


def _name(link: Link) -> str:
    languages = link.get("languages", ())[:1] if link.get("stage") == "decontaminate" else ()
    return link["name"] + "".join(f" ({language})" for language in languages)


def _problem(sides: Sequence[Side], link: Link, covers: Callable[[Text, Side], bool]) -> str | None:
    """What may be wrong with the data of a link, to be said after its name."""
    for text in link.get("texts", ()):
        for side in sides:
            if text["sha256"] == side.sha256:
                return f"which is this test set itself ({side})"
            split = text["benchmark"], text["split"], text["language"]
            if side.benchmark and split == (side.benchmark, side.split, side.language):
                return f"which is another copy of this test set ({side})"
    if link.get("stage") in ("datagen", "export"):  # read, then filtered; made of what was
        return None
    if "ends" in link:
        return f"of which it is not known whether it holds the test set: {link['ends']}"
    languages, missing = link.get("languages", ()), []
    for side in (side for side in sides if side.language in languages):
        removed = link.get("removed", ())
        if any(text["sha256"] == side.sha256 or covers(text, side) for text in removed):
            continue
        same = [text for text in removed if side.benchmark and text["benchmark"] == side.benchmark]
        same = [text for text in same if text["language"] == side.language]
        instead = next((" (another copy was)" for text in same if text["split"] == side.split), None)
        if instead is None and same:
            instead = f" (only {', '.join(dict.fromkeys(text['split'] for text in same))})"
        missing.append(f"{side}{instead or ''}")
    return f"which was not decontaminated against {' and '.join(missing)}" if missing else None
