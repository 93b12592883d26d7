"""The steps of a CompTra translation: the tree of phrases, their translations, and drafts, from the files of a run.

comptra/compositional/translate.py says what the files hold. Phrases are those of translate_{s}.jsonl; the divisions, which runs
share, say of which sentence (or phrase) each is a part.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, pairwise
from pathlib import Path

from comptra import answer_parsing
from comptra.compositional import merge
from comptra.compositional.merge import MERGE_PROMPTS
from comptra.compositional.translate import draft_file
from comptra.ordered_jsonl import TRUNCATED, UNANSWERED, UNREADABLE, DivisionLine, TranslationLine
from comptra.scores.surface import identifier_of
from comptra.scores.systems import System
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, read_jsonl
from topxgen.common.translation_folders import RESPONSES
from topxgen.inference.response_cache import read_responses

MARKS = (UNANSWERED, UNREADABLE, TRUNCATED)
CLD2 = "cld2"  # the default of --lid_model
MAX_TEXT = 5000  # characters of an answer
LEFT_OUT = "left out"  # as `Plan.fits` says: not in the target language, or empty


@dataclass
class Level:
    """The lines of translate_{s}.jsonl, of which sentence or phrase above each is a part, and by number its drafts, the first one first."""

    lines: list[dict]
    parents: list[int]
    drafts: list[list[str]] = field(default_factory=list)

    @cached_property
    def parts(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for number, parent in enumerate(self.parents):
            found.setdefault(parent, []).append(number)
        return found


class Trees:
    """The trees of a system's sentences. `problem`: why phrases that are on disk are not shown; "" if they are, or there are none."""

    def __init__(self, system: System):
        self._system, self.problem = system, ""
        self._levels: list[Level] = []
        try:
            self._levels = _levels(system.folder)
        except (UsageError, OSError) as error:
            self.problem = " ".join(str(error).split())

    @property
    def has_any(self) -> bool:
        return len(self._levels) > 1 or any(map(any, (level.drafts for level in self._levels)))

    def of(self, number: int) -> dict | None:
        """The tree of a sentence: `s` source, `t` translation, `m` marks, `d` the drafts that were refined, `c` its phrases,
        `a` the answer in which the phrases were merged, if it says more; None if there is nothing more than its translation."""
        node = self._node(0, number) if self.has_any and number < len(self._levels[0].lines) else {}
        return node if "c" in node or "d" in node else None

    def _node(self, depth: int, number: int) -> dict:
        level = self._levels[depth]
        line = level.lines[number]
        text = line["translation"] or ""
        node: dict = {"s": line["sentence"], "t": text}
        marks = [mark for mark in MARKS if line.get(mark)]
        if depth and not (text and self._identify(text)):
            marks.append(LEFT_OUT)
        if marks:
            node["m"] = marks
        if number < len(level.drafts) and level.drafts[number]:
            node["d"] = level.drafts[number]
        if depth + 1 < len(self._levels) and (parts := self._levels[depth + 1].parts.get(number)):
            node["c"] = [self._node(depth + 1, part) for part in parts]
            merged = node.get("d", [text])[0]
            if len(found := self._merges.get(merged, ())) == 1:  # of several it is not known which
                node["a"] = next(iter(found))[:MAX_TEXT]
        return node

    @cached_property
    def _merges(self) -> dict[str, set[str]]:
        """By the translation that they gave, the model's answers to merge prompts with sections: what it made of the phrases."""
        name = str(self._system.settings.get("merge_prompt", "")).partition(" ")[0]  # "refine (version 2)"
        if len(self._levels) < 2 or name not in MERGE_PROMPTS:
            return {}
        found: dict[str, set[str]] = {}
        try:
            heading = merge.load(name).texts.get(merge.FINAL_SECTION)
            for record in read_responses(self._system.folder / RESPONSES) if heading else ():
                for text in record["texts"]:
                    if heading.lower() in text.lower() and (translation := answer_parsing.section(text, heading)):
                        found.setdefault(translation, set()).add(text)
        except (UsageError, OSError):
            return {}  # the phrases are shown without them
        return found

    @property
    def unchecked(self) -> str:
        """The model by which the run identified the language of phrases, if not CLD2: a model that a run names is never loaded here."""
        name = self._system.settings.get("lid_model") or CLD2
        return name if len(self._levels) > 1 and name != CLD2 else ""

    @cached_property
    def _identify(self) -> Callable[[str], bool]:
        """Whether a phrase is taken for one in the target language; true where it cannot be known."""
        identifier, language = identifier_of(CLD2), self._system.tgt
        if self.unchecked or not identifier.knows(language):
            return lambda text: True
        return lambda text: identifier.is_language([text], language)[0]


def _levels(folder: Path) -> list[Level]:
    """The levels of a run, the sentences first; one if it has no phrases. Raises UsageError."""
    lines: list[list[dict]] = []
    for s in count():
        if not (folder / f"translate_{s}.jsonl").is_file():
            break
        lines.append(_read(folder / f"translate_{s}.jsonl", TranslationLine))
    levels = [Level(own, []) for own in lines]
    for s, level in enumerate(levels):
        level.drafts = [[] for _ in level.lines]
        for k in count():
            drafts = _read(draft_file(folder, s, k), TranslationLine)
            both = zip(drafts, level.lines, strict=False)
            if not drafts or any(draft["sentence"] != line["sentence"] for draft, line in both):
                break
            for own, line in zip(level.drafts, drafts, strict=False):
                own += [] if line["translation"] is None else [line["translation"]]
    if len(levels) > 1:
        for level, parents in zip(levels[1:], _parents(folder, lines), strict=True):
            level.parents = parents
    return levels


def _read(path: Path, schema: type) -> list[dict]:
    """The lines of a file that may be being written; none if there is no file."""
    return list(read_jsonl(path, schema, on_cut=lambda _: None))


def _parents(folder: Path, lines: Sequence[list[dict]]) -> list[list[int]]:
    """For each level below the sentences the parent of each phrase. Raises UsageError if no division has these phrases."""
    rooms = [folder.parent, *sorted(folder.parent.glob("divisions_*")), folder]
    for room in rooms:
        first = 0 if (room / "divide_0.jsonl").is_file() or (room / "parent_0.jsonl").is_file() else 1  # older versions
        found = []
        for r, (above, own) in enumerate(pairwise(lines), start=first):
            phrases = [line["sentence"] for line in own]
            parents = _divided(room / f"divide_{r}.jsonl", above, phrases) or _recorded(room, r, above, phrases)
            if parents is None:
                break
            found.append(parents)
        else:
            return found
    raise UsageError(f"the phrases of {folder} are of no division in {folder.parent} (divide_1.jsonl, parent_1.jsonl)")


def _divided(path: Path, above: Sequence[Mapping], phrases: list[str]) -> list[int] | None:
    """The parents by divide_{r}.jsonl; None if it is not the division that gave these phrases."""
    divisions = _read(path, DivisionLine)[: len(above)]
    pairs = [(phrase, number) for number, line in enumerate(divisions) for phrase in line["propositions"] or ()]
    if [phrase for phrase, _ in pairs[: len(phrases)]] != phrases or not pairs:
        return None
    if any(one["sentence"].split() != other["sentence"].split() for one, other in zip(divisions, above, strict=False)):
        return None
    return [parent for _, parent in pairs[: len(phrases)]]


def _recorded(room: Path, r: int, above: Sequence[Mapping], phrases: list[str]) -> list[int] | None:
    """The parents by parent_{r}.jsonl, where the division itself is gone; None if it does not fit."""
    if (room / f"divide_{r}.jsonl").exists():
        return None
    known = read_json(room / f"parent_{r}.jsonl", dict[str, int | str])
    parents = [int(known.get(str(number), -1)) for number in range(len(phrases))]
    return parents if parents and all(0 <= parent < len(above) for parent in parents) else None
