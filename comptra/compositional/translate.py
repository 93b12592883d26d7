"""Compositional translation (CompTra: Zebaze, Sagot and Bawden 2025): divide, translate the phrases, then the whole.

Each sentence is divided into short self-contained phrases. These are translated one by one, each with its own retrieved
demonstrations, and the pairs of phrase and translation are the demonstrations with which the sentence is translated.
`steps` nests it: phrases are divided again. With no steps it is the plain method.

Files (docs/files.md): divide_{r}.jsonl and parent_{r}.jsonl for the r-th division (1: that of the sentences),
translate_{s}.jsonl for the translations of level s (0: the sentences), draft_{s}.jsonl for what was refined to them, and
draft_{s}_{k}.jsonl for drafts after k of several refining steps.
"""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from comptra.methods import Method, Shots, Task, in_order
from comptra.ordered_jsonl import UNANSWERED, mark_undividable, marked, put_lines, resume_lines
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, write_atomic
from topxgen.common.lines import split_lines
from topxgen.prompting.style import Prompt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How to divide sentences and how to combine translations."""

    method: Method | None  # translates the lowest level; None: divide only
    divide: Callable[[list[str]], list[list[str]]]  # sentences -> phrases of each
    merge_prompts: Callable[[list[str], list[Shots]], list[Prompt]]  # sentences, phrase pairs of each -> prompts
    merge: Callable[[list[str], list[Shots]], Iterator[tuple[int, str]]]  # the same -> translations
    fits: Callable[[list[str]], list[bool]]  # whether phrase translations are in the target language
    refine: Callable[[list[str], list[str]], list[str]] | None = None  # (sentences, drafts) -> better ones
    number_of_refining_steps: int = 0  # of the lowest level
    refine_after_merge: int = 0  # refining steps of the levels above it
    steps: int = 0
    with_shots: bool = True  # the method shows demonstrations
    shots_by_sentence: bool = False  # phrases have the demonstrations of the sentence that they are parts of
    accepts_unanswered: bool = False  # translations that depend on a prompt without an answer are not made again
    resume_drafts: bool = (
        False  # the method's work is in no response cache: drafts in draft_{s}.jsonl are not made again
    )


@dataclass(frozen=True)
class Level:
    """Sentences or phrases, and for each the number of the one of the level above that it is a part of (-1 at the top)."""

    sentences: list[str]
    parents: list[int]


def divide(sentences: list[str], plan: Plan, task: Task, folder: Path) -> list[Level]:
    """The levels of a run, the sentences first; divisions that `folder` already has are not made again.

    Raises UsageError for sentences that the model could not be asked to divide. Those that fail again in the next run are
    translated whole, with a warning: one refused sentence must not block the rest.
    """
    levels = [Level(sentences, [-1] * len(sentences))]
    renumber_divisions(folder)
    for r in range(1, plan.steps + 1):
        above, path = levels[-1].sentences, folder / f"divide_{r}.jsonl"
        task.client.begin_stage(f"divide {r}")
        failed_before = marked(path, UNANSWERED)
        phrases = resume_lines(
            path,
            above,
            "propositions",
            lambda numbers, above=above: enumerate(plan.divide([above[i] for i in numbers])),
            task.client.marks,
            shared=True,
        )
        undivided = {number for number in marked(path, UNANSWERED) if number < len(above)}
        count = f"{len(undivided)} of {len(above)} sentences could not be divided"
        why = task.client.failure_reasons() or "the model gave no answer"
        if undivided - failed_before or len(undivided) == len(above):
            raise UsageError(
                f"{count}: {why}. If they are too long, raise --max_model_len, or lower --max_new_tokens_divide and pass "
                "another --output_dir. Re-run the same command to try them once more; those that fail again are translated whole"
            )
        if undivided:
            logger.warning(f"{count} in two runs and are translated whole: {why}")
            mark_undividable(path, undivided)
        flat = [(phrase, i) for i, parts in enumerate(phrases) for phrase in parts]
        if not flat:
            raise UsageError(f"{path} has no phrases; choose another --method_divide")
        levels.append(Level([phrase for phrase, _ in flat], [i for _, i in flat]))
        _record_parents(folder / f"parent_{r}.jsonl", {str(number): i for number, (_, i) in enumerate(flat)})
    return levels


def renumber_divisions(folder: Path) -> None:
    """Rename the files of older versions, which counted divisions from 0. If a run is killed here, the next one continues."""
    for kind in ("divide", "parent"):
        first_missing = next(r for r in count() if not (folder / f"{kind}_{r}.jsonl").is_file())
        for r in reversed(range(first_missing)):
            (folder / f"{kind}_{r}.jsonl").rename(folder / f"{kind}_{r + 1}.jsonl")


def has_divisions(folder: Path) -> bool:
    """Whether the folder has the first division, by today's name or that of older versions."""
    return any((folder / f"divide_{r}.jsonl").is_file() for r in (0, 1))


def _record_parents(path: Path, parents: dict[str, int]) -> None:
    """Raises UsageError if the file has other parents: phrases and translations would not belong together."""
    divisions = path.name.replace("parent", "divide")
    known = read_json(path, dict[str, int | str], f"remove it: it is made again from {divisions}")
    for number, parent in known.items():
        if str(parents.get(number, parent)) != str(parent):
            raise UsageError(
                f"{path} has phrase {number} in sentence {parent}, {divisions} in sentence {parents[number]}: remove "
                f"{path.name} if the divisions are right, or pass another --output_dir"
            )
    if known != known | parents:
        write_atomic(path, [json.dumps(known | parents) + "\n"])


def translate(levels: list[Level], plan: Plan, task: Task, folder: Path) -> list[list[str]]:
    """The translations of each level, from the lowest up; translate_0.jsonl has the final ones."""
    translations: list[list[str]] = [[] for _ in levels]
    for s in reversed(range(len(levels))):
        translations[s] = _translate_level(s, levels, translations, plan, task, folder)
    return translations


def _translate_level(
    s: int, levels: list[Level], translations: list[list[str]], plan: Plan, task: Task, folder: Path
) -> list[str]:
    """The translations of level s, by those of the level below it."""
    sentences, is_lowest = levels[s].sentences, s == len(levels) - 1
    steps = plan.number_of_refining_steps if is_lowest else plan.refine_after_merge
    task.client.begin_stage(f"translate {s}" if is_lowest else f"merge {s}")

    def lines(path: Path, work) -> list[str]:
        accepts = plan.accepts_unanswered
        return resume_lines(path, sentences, "translation", work, task.client.marks, accepts_unanswered=accepts)

    def draft(numbers: list[int]) -> Iterator[tuple[int, str]]:
        chosen = [sentences[i] for i in numbers]
        if is_lowest:
            return plan.method(chosen, _showing(levels, s, numbers, task, plan))
        below = levels[s + 1]
        pairs = phrase_pairs(below, translations[s + 1], len(sentences), plan.fits)
        missing_phrases = marked(folder / f"translate_{s + 1}.jsonl", UNANSWERED)
        task.client.unanswered.update(sentences[below.parents[number]] for number in missing_phrases)
        return plan.merge(chosen, [pairs[i] for i in numbers])

    def work(numbers: list[int]) -> Iterator[tuple[int, str]]:
        if not steps:
            return draft(numbers)
        if is_lowest and plan.resume_drafts:
            every = lines(draft_file(folder, s), draft)
            texts = [every[i] for i in numbers]
        else:
            texts = in_order(draft(numbers), len(numbers))
            put_lines(draft_file(folder, s), sentences, numbers, texts)
        for k in range(1, steps + 1):
            texts = plan.refine([sentences[i] for i in numbers], texts)
            if k < steps:
                put_lines(draft_file(folder, s, k), sentences, numbers, texts)
        return enumerate(texts)

    return lines(folder / f"translate_{s}.jsonl", work)


def _showing(levels: list[Level], s: int, numbers: list[int], task: Task, plan: Plan) -> Task:
    """`task` with the demonstrations for those `numbers` of level s: by default the nearest ones to each phrase itself."""
    if not (s and plan.shots_by_sentence):
        return task
    for level in range(s, 0, -1):
        numbers = [levels[level].parents[i] for i in numbers]
    sentences = [levels[0].sentences[i] for i in numbers]
    return replace(task, nearest=lambda _, k: task.nearest(sentences, k))


def draft_file(folder: Path, s: int, k: int = 0) -> Path:
    """The drafts of level s, after k refining steps."""
    return folder / (f"draft_{s}_{k}.jsonl" if k else f"draft_{s}.jsonl")


def phrase_pairs(
    below: Level, translations: list[str], count: int, fits: Callable[[list[str]], list[bool]]
) -> list[Shots]:
    """For each of `count` sentences the pairs of its phrases, without empty translations and those in another language."""
    pairs: list[Shots] = [[] for _ in range(count)]
    for phrase, parent, text, fit in zip(below.sentences, below.parents, translations, fits(translations), strict=True):
        if text and fit:
            pairs[parent].append((phrase, text))
    return pairs


def tree(
    levels: list[Level], translations: list[list[str]], task: Task, plan: Plan, number: int, depth: int = 0
) -> Iterator[str]:
    """Lines that show how sentence `number` of level `depth` was translated: phrases, demonstrations, prompts."""
    indent, sentence = "    " * depth, levels[depth].sentences[number]
    yield f"{indent}{sentence}"
    if depth == len(levels) - 1:
        shown = _showing(levels, depth, [number], task, plan)
        for source, target in shown.shots([sentence])[0] if plan.with_shots else []:
            yield f"{indent}  demonstration: {source} => {target}"
    else:
        below = levels[depth + 1]
        fits = plan.fits(translations[depth + 1])
        for i, parent in enumerate(below.parents):
            if parent == number:
                yield from tree(levels, translations, task, plan, i, depth + 1)
                if not fits[i]:
                    yield f"{indent}    (left out: not in {task.tgt.name})"
        pairs = phrase_pairs(below, translations[depth + 1], len(levels[depth].sentences), plan.fits)[number]
        yield f"{indent}  prompt of the merge:"
        prompt = plan.merge_prompts([sentence], [pairs])[0]
        turns = [prompt] if isinstance(prompt, str) else [f"[{turn['role']}] {turn['content']}" for turn in prompt]
        for line in split_lines("\n".join(turns)):
            yield f"{indent}  | {line}"
    yield f"{indent}=> {translations[depth][number]}"
