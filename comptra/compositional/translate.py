"""Compositional translation (CompTra: Zebaze, Sagot and Bawden 2025): divide, translate the phrases, then the whole.

Each sentence is divided into short self-contained phrases. These are translated one by one, each with its own retrieved
demonstrations, and the pairs of phrase and translation are the demonstrations with which the sentence is translated.
`steps` nests it: phrases are divided again. With no steps it is the plain method.

Files, those of SPEC section 2: divide_{r}.jsonl and parent_{r}.jsonl for level r (0: the sentences), translate_{s}.jsonl for
what stands at level s.
"""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from comptra import ordered_jsonl
from comptra.methods import Method, Shots, Task, in_order
from comptra.ordered_jsonl import provisional
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, write_atomic
from topxgen.prompting.style import Prompt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How to take sentences apart and put translations together."""

    method: Method | None  # for what is translated by itself; None: divide only
    divide: Callable[[list[str]], list[list[str] | None]]  # sentences -> phrases of each; None: no answer
    # Sentences, phrase pairs of each -> what is asked, and the places of those that lack an answer they should rest on.
    merge_prompts: Callable[[list[str], list[Shots]], tuple[list[Prompt], set[int]]]
    fits: Callable[[list[str]], list[bool]]  # whether phrase translations are in the target language
    refine: Callable[[list[str], list[str]], list[str]] | None = None  # sentences, drafts -> better ones
    refine_after_merge: bool = False
    steps: int = 0
    with_shots: bool = True  # the method shows demonstrations
    keep_drafts: bool = False  # the method's work is in no journal: what is to be refined goes into draft_{s}.jsonl


@dataclass(frozen=True)
class Level:
    """Sentences, and the number of the one of the level above that each is a part of (-1 at the top)."""

    sentences: list[str]
    parents: list[int]


def divide(
    sentences: list[str],
    plan: Plan,
    folder: Path,
    begin: Callable[[str], None],
    why: Callable[[], str] = str,
) -> list[Level]:
    """The levels of a run, the sentences themselves first; what is in `folder` already is not divided again.

    Raises UsageError when a model gave no answer for some; `why` says the reason. Those that it gave none for when it was
    asked again stay whole, which is said: a sentence that an API refuses shall not keep the others waiting.
    """
    levels = [Level(sentences, [-1] * len(sentences))]
    for r in range(plan.steps):
        above, path = levels[-1].sentences, folder / f"divide_{r}.jsonl"
        begin(f"divide {r}")
        earlier = ordered_jsonl.unanswered(path)
        phrases = ordered_jsonl.fill(
            path,
            above,
            "propositions",
            lambda places, above=above: enumerate(plan.divide([above[i] for i in places])),
            instead=lambda sentence: [sentence],
            shared=True,
        )
        undivided = {number for number in ordered_jsonl.unanswered(path) if number < len(above)}
        if undivided - earlier or len(undivided) == len(above):
            raise UsageError(
                f"{len(undivided)} of {len(above)} sentences could not be divided: {why() or 'the model gave no answer'}. If they "
                "are too long, raise --max_model_len, or lower --max_new_tokens_divide and pass another --metadata_dir. The same "
                "command asks for these once more, and then leaves them whole for good"
            )
        if undivided:
            logger.info(f"{len(undivided)} of {len(above)} sentences stay whole, as they could not be divided: {why()}")
            ordered_jsonl.settle(path, undivided)
        flat = [(phrase, i) for i, found in enumerate(phrases) for phrase in found]
        if not flat:
            raise UsageError(f"{path} holds no phrase at all; choose another --method_divide")
        levels.append(Level([phrase for phrase, _ in flat], [i for _, i in flat]))
        _record_parents(folder / f"parent_{r}.jsonl", {str(number): i for number, (_, i) in enumerate(flat)})
    return levels


def _record_parents(path: Path, parents: dict[str, int]) -> None:
    """Raises UsageError when the file there says otherwise: phrases and translations would not belong together."""
    known = read_json(path)
    if not isinstance(known, dict):
        raise UsageError(
            f"{path} is no JSON object; remove it: it is made from {path.name.replace('parent', 'divide')}"
        )
    for number, parent in known.items():
        if str(parents.get(number, parent)) != str(parent):
            raise UsageError(
                f"{path} has phrase {number} in sentence {parent}, {path.name.replace('parent', 'divide')} in sentence "
                f"{parents[number]}: remove {path.name} if the divisions are right, or pass another --metadata_dir"
            )
    write_atomic(path, [json.dumps(known | parents) + "\n"])


def translate(
    levels: list[Level], plan: Plan, task: Task, folder: Path, begin: Callable[[str], None]
) -> list[list[str]]:
    """The translations of each level, from the lowest up; translate_0.jsonl holds the final ones."""
    lowest = len(levels) - 1
    found: list[list[str]] = [[] for _ in levels]
    for s in range(lowest, -1, -1):
        level = levels[s]
        begin(f"translate {s}" if s == lowest else f"merge {s}")

        def first(places: list[int], s=s, level=level) -> Iterator[tuple[int, str | None]]:
            rest = [level.sentences[i] for i in places]
            if s == lowest:
                return plan.method(rest, task)
            pairs = phrase_pairs(levels[s + 1], found[s + 1], len(level.sentences), plan.fits)
            prompts, lacking = plan.merge_prompts(rest, [pairs[i] for i in places])
            waiting = ordered_jsonl.unanswered(folder / f"translate_{s + 1}.jsonl")
            without = {levels[s + 1].parents[number] for number in waiting}
            lacking |= {place for place, number in enumerate(places) if number in without}
            return provisional(task.translate(rest, prompts), lacking)

        def work(places: list[int], s=s, level=level, first=first) -> Iterator[tuple[int, str | None]]:
            if plan.refine is None or (lowest and plan.refine_after_merge == (s == lowest)):
                return first(places)
            if s == lowest and plan.keep_drafts:
                path = folder / f"draft_{s}.jsonl"
                drafts = ordered_jsonl.fill(path, level.sentences, "translation", first, instead=lambda sentence: "")
                drafts = [drafts[i] for i in places]
            else:
                drafts = in_order(first(places), len(places))
            return enumerate(plan.refine([level.sentences[i] for i in places], drafts))

        path = folder / f"translate_{s}.jsonl"
        found[s] = ordered_jsonl.fill(path, level.sentences, "translation", work, instead=lambda sentence: "")
    return found


def phrase_pairs(
    below: Level, translations: list[str], count: int, fits: Callable[[list[str]], list[bool]]
) -> list[Shots]:
    """For each of `count` sentences the pairs of its phrases, without those whose translation is in no or another language."""
    pairs: list[Shots] = [[] for _ in range(count)]
    for phrase, parent, text, fit in zip(below.sentences, below.parents, translations, fits(translations), strict=True):
        if text and fit:
            pairs[parent].append((phrase, text))
    return pairs


def tree(
    levels: list[Level], found: list[list[str]], task: Task, plan: Plan, number: int, depth: int = 0
) -> Iterator[str]:
    """Lines that show how sentence `number` of level `depth` came to its translation: phrases, demonstrations, prompts."""
    indent, sentence = "    " * depth, levels[depth].sentences[number]
    yield f"{indent}{sentence}"
    if depth == len(levels) - 1:
        shots = task.shots([sentence])[0] if plan.with_shots else []
        for source, target in shots:
            yield f"{indent}  demonstration: {source} => {target}"
    else:
        below = levels[depth + 1]
        fits = plan.fits(found[depth + 1])
        for i, parent in enumerate(below.parents):
            if parent == number:
                yield from tree(levels, found, task, plan, i, depth + 1)
                if not fits[i]:
                    yield f"{indent}    (left out: not in {task.tgt.name})"
        pairs = phrase_pairs(below, found[depth + 1], len(levels[depth].sentences), plan.fits)[number]
        yield f"{indent}  prompt of the merge:"
        prompt = plan.merge_prompts([sentence], [pairs])[0][0]
        turns = [prompt] if isinstance(prompt, str) else [f"[{turn['role']}] {turn['content']}" for turn in prompt]
        for line in "\n".join(turns).splitlines():
            yield f"{indent}  | {line}"
    yield f"{indent}=> {found[depth][number]}"
