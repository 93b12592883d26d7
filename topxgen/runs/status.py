"""How far the stages of a run are, who works on them, how fast, and what they cost: from their files, which may be growing.

Nothing is written, and no lock is taken (topxgen.common.locks.holders only asks for them).
"""

import math
import os
import shlex
import socket
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from topxgen.common import lineage
from topxgen.common.failures import Failure
from topxgen.common.files import partial, walk
from topxgen.common.locks import Holder, holders
from topxgen.common.provenance import TRANSLATE_MANIFEST, TRANSLATE_SETTINGS, values_of_flag
from topxgen.common.records import FilteredLayout, Layout
from topxgen.common.schemas import fields
from topxgen.common.shards import Shard
from topxgen.common.translation_folders import RESPONSES
from topxgen.inference.costs import COUNTED, Prices
from topxgen.runs.folders import BackTranslation, Run, find, languages_of, layout_of
from topxgen.runs.growing import Tally
from topxgen.runs.reading import Problems, read_file
from topxgen.runs.stages import (
    FAILED,
    FINISHED,
    INCOMPLETE,
    KILLED,
    RUNNING,
    STOPPED,
    UNKNOWN,
    WAITING,
    Stage,
    Status,
    merged_before,
    with_shards_summed,
)  # fmt: skip

WINDOW_S = 600.0  # of the looks that a rate is measured over
HELD = {"held": RUNNING, "left": KILLED, "unknown": UNKNOWN}  # by the state of a lock
DATAGEN = ("generate", "translate", "score")
SCRIPTS = {
    "datagen.py": DATAGEN,
    "decontamination.py": ("decontaminate",),
    "train.py": ("train",),
    "main.py": ("main",),
}
# Written when a stage begins to have results.
SETTINGS = {stage: f"settings_{stage}.json" for stage in ("generate", "translate", "train")}
SETTINGS["main"] = TRANSLATE_SETTINGS


# What is read of the manifest of any stage.
_Manifest = fields(
    complete=bool, command=list[str] | None, counts=dict[str, Any], sentences=int, unanswered_prompts=int
)
# Of the settings of a training, and of the state in its checkpoints.
_Steps = fields(max_steps=int | None)
# What is read of the settings of main.py.
_RunSettings = fields(method_translate=str, steps=int, number_of_refining_steps=int)
_Record = fields(exit_code=int, hours=float, finished=str)


class Watcher:
    """Looks at a run, again and again: what was read is read on, and rates are those between the looks."""

    def __init__(self, root: Path, prices: Prices | None = None):
        self._root, self._prices = root, prices
        self._tallies: dict[tuple[Path, str], Tally] = {}
        self._looks: dict[tuple[str, str, str], deque[tuple[float, int]]] = {}

    def look(self) -> Status:
        """Raises UsageError if the root is not a directory."""
        self._problems, self._now = Problems(), time.time()
        run = find(self._root, shows_shard=lambda folder: any(one.state == "held" for one in holders(folder)))
        # By process: its total and the languages that share it.
        self._together: dict[tuple, tuple[int, list[Stage]]] = {}
        self._holders = {folder: holders(folder) for folder in _folders(self._root)}
        stages = [*self._data(run), *self._trainings(run), *self._translations(run)]
        self._settle(stages)
        failed = list(self._failures(run, stages))
        for stage in stages:
            self._measure(stage)
        for total, together in self._together.values():
            _measure_together(total, together)
        again = merged_before(stages)
        costs = [stage.usd for stage in stages if stage.usd is not None and stage not in again]
        return Status(
            root=str(self._root),
            at=self._now,
            host=socket.gethostname(),
            processes=self._processes(stages),
            stages=with_shards_summed(stages),
            usd=sum(costs) if costs else None,
            records=[record for folder in run.records for record in self._records(folder)],
            failures=failed,
            problems=[*run.problems, *self._problems.lines()],
        )

    # Who

    def _processes(self, stages: Sequence[Stage]) -> list[dict[str, Any]]:
        """One for each process and folder, with the parts of it that it holds; killed ones if they have left work."""
        found: dict[tuple, dict[str, Any]] = {}
        killed = {stage.process for stage in stages if stage.state == KILLED}
        for folder, here in self._holders.items():
            for holder in here:
                if holder.state == "left" and _name(holder) not in killed:
                    continue
                process = found.setdefault(
                    (folder, holder.host, holder.process, holder.state),
                    {
                        "process": holder.process,
                        "host": holder.host,
                        "state": HELD[holder.state],
                        "since": holder.since,
                        "command": shlex.join(holder.note.get("command") or []),
                        "folder": str(folder),
                        "holds": [],
                    },
                )
                process["holds"].append(holder.part)
        return list(found.values())

    def _holder(self, folder: Path, part: str | None) -> Holder | None:
        if folder not in self._holders:  # above the root, say
            self._holders[folder] = holders(folder)
        return next((one for one in self._holders[folder] if one.part == part), None)

    # Which stages

    def _data(self, run: Run) -> Iterable[Stage]:
        alone = [one for one in run.back_translations if one.generation is None]
        for folder in run.generations:
            layout = layout_of(folder)
            parts = {holder.part for holder in self._holders.get(folder, ()) if holder.part and "stages" in holder.note}
            files = {layout.paragraphs(name).stem for name in layout.output_filenames}
            below = [one for one in run.back_translations if one.generation == folder]
            for language in sorted({*languages_of(folder), *parts} - files | {*layout.output_filenames}):
                paragraphs = self._tally(layout.paragraphs(language), "lines")
                yield self._generate(layout, language, paragraphs)
                of_language = [one for one in below if language in one.languages]
                if coming := self._coming(layout, language, {one.folder for one in of_language}):
                    of_language.append(coming)
                for one in of_language:
                    yield from self._pairs(one, language, paragraphs.lines)
        for one in alone:
            for language in one.languages:
                yield from self._pairs(one, language, None)

    def _coming(self, layout: Layout, language: str, known: set[Path]) -> BackTranslation | None:
        """The pairs of a process that has not written any yet."""
        note = holder.note if (holder := self._holder(layout.output_dir, language)) else {}
        folder = layout.output_dir / Path(note.get("translate_dir") or "").name
        if "translate" not in note.get("stages", ()) or not note.get("translate_dir") or folder in known:
            return None
        return BackTranslation(folder, layout.output_dir, (language,), "", None)

    def _generate(self, layout: Layout, language: str, paragraphs: Tally) -> Stage:
        folder = layout.output_dir
        holder, manifest = self._holder(folder, language), self._manifest(layout, "generate", language)
        stage = self._stage("generate", folder, language, manifest, holder, layout.settings("generate"))
        responses = self._tally(layout.responses(language), "responses")
        rejects = self._tally(layout.rejects(language), "rejects")
        stage.unit, stage.done = "paragraphs", paragraphs.lines
        stage.of = (holder.note.get("paragraphs") if holder else None) or _paragraphs_asked(manifest, language)
        if holder is None and stage.of and (shard := Shard.of_folder(folder)):
            stage.of = shard.share(stage.of)
        if holder is not None and (total := holder.note.get("paragraphs_of_all")):
            process = folder, holder.host, holder.process
            self._together.setdefault(process, (total, []))[1].append(stage)
        stage.counts = {"responses": responses.totals["responses"], "failed": responses.totals["failed"]}
        self._describe(stage, [paragraphs, responses, rejects], rejects, [responses], holder, manifest)
        return stage

    def _pairs(self, one: BackTranslation, language: str, paragraphs: int | None) -> Iterable[Stage]:
        layout, folder = one.layout(), one.folder
        holder = self._holder(folder.parent, language)
        if holder and Path(holder.note.get("translate_dir") or folder).name != folder.name:
            holder = None  # it works on the pairs of another back-translator
        pairs = self._tally(layout.translations(language), "pairs")
        rejects = self._tally(layout.translation_rejects(language), "pair_rejects")
        responses = self._tally(layout.translation_responses(language), "responses")
        candidates = self._tally(layout.candidates(language), "lines")
        manifest = self._manifest(layout, "translate", language)
        stage = self._stage("translate", folder, language, manifest, holder, layout.settings("translate"))
        stage.unit, stage.done, stage.of = "paragraphs", pairs.lines, paragraphs
        stage.counts = {"pairs": pairs.totals["pairs"]}
        if candidates.lines:
            stage.counts["paragraphs_with_candidates"] = candidates.lines
        files = [pairs, rejects, responses, candidates]
        self._describe(stage, files, rejects, [responses], holder, manifest)
        if stage.state == FINISHED:
            stage.of = stage.of and pairs.lines
        # A folder of --output_dir of decontamination.py has no pairs of its own.
        if holder or manifest or any(one.modified for one in files):
            yield stage
        yield from self._score(layout, language, pairs, holder, stage.state)
        yield from self._decontaminate(one, language, pairs)

    def _score(
        self, layout: Layout, language: str, pairs: Tally, holder: Holder | None, before: str
    ) -> Iterable[Stage]:
        scores = self._tally(layout.score_cache(language), "scores")
        manifest = self._manifest(layout, "score", language)
        wanted = holder is not None and "score" in holder.note.get("stages", ())
        if not (manifest or scores.lines or pairs.totals["scored"] or wanted):
            return
        stage = self._stage("score", layout.translate_dir, language, manifest, holder, layout.settings("translate"))
        stage.unit, stage.of = "pairs", pairs.totals["pairs"]
        stage.done = max(scores.totals["scored"], pairs.totals["scored"])
        if not manifest and before in (RUNNING, WAITING):
            stage.state = WAITING
        self._describe(stage, [scores], None, [], holder, manifest)
        yield stage

    def _decontaminate(self, one: BackTranslation, language: str, pairs: Tally) -> Iterable[Stage]:
        folder = one.filtered or one.folder
        layout, holder = FilteredLayout(folder), self._holder(folder, language)
        writing = self._tally(partial(layout.filtered(language)), "lines")
        if not (layout.filtered(language).exists() or writing.modified):
            return
        manifest = read_file(layout.manifest(language), _Manifest, self._problems)
        filtered = self._tally(layout.filtered(language), "pairs")
        stage = self._stage("decontaminate", folder, language, manifest, holder, layout.manifest(language))
        stage.unit, stage.of = "paragraphs", pairs.lines or None
        stage.done = (pairs.lines or filtered.lines) if manifest else writing.lines
        stage.counts = {"pairs_left": filtered.totals["pairs"]} if manifest else {}
        if writing.modified and not manifest:
            stage.state = RUNNING if holder and holder.state == "held" else KILLED
        self._describe(stage, [filtered, writing], None, [], holder, manifest)
        yield stage

    def _trainings(self, run: Run) -> Iterable[Stage]:
        for folder in run.trainings:
            log, holder = self._tally(folder / "train_log.jsonl", "log"), self._holder(folder, None)
            manifest = read_file(folder / lineage.TRAIN_MANIFEST, _Manifest, self._problems)
            settings = folder / "settings_train.json"
            stage = self._stage("train", folder, "", manifest, holder, settings)
            checkpoints = _checkpoints(folder)
            steps = read_file(checkpoints[-1][2] / "trainer_state.json", _Steps, self._problems) if checkpoints else {}
            stage.unit, stage.done = "steps", int(log.last.get("step", 0))
            known = (
                read_file(settings, _Steps, self._problems).get("max_steps"),
                steps.get("max_steps"),
                holder.note.get("steps") if holder else None,
            )
            stage.of = next((number for number in known if number and number >= stage.done), None)
            stage.counts = {name: value for name, value in log.last.items() if name != "step"}
            stage.counts |= {"checkpoint": checkpoints[-1][0]} if checkpoints else {}
            self._describe(stage, [log], None, [], holder, manifest)
            if stage.state == RUNNING and len(checkpoints) > 1:
                (first, then, _), (last, at, _) = checkpoints[-2:]
                if at > then:
                    stage.rate = (last - first) / (at - then)
                    stage.rate_from = f"checkpoint-{first} to checkpoint-{last}"
            yield stage

    def _translations(self, run: Run) -> Iterable[Stage]:
        begun = {folder for folder, here in self._holders.items() if any("sentences" in one.note for one in here)}
        for folder in sorted({*run.translations, *begun}):
            holder = self._holder(folder, None)
            manifest = read_file(folder / TRANSLATE_MANIFEST, _Manifest, self._problems)
            stage = self._stage("main", folder, "", manifest, holder, folder / TRANSLATE_SETTINGS)
            levels = sorted(folder.glob("translate_*.jsonl"))
            done, responses = (
                self._tally(folder / "translate_0.jsonl", "lines"),
                self._tally(folder / RESPONSES, "responses"),
            )
            stage.unit, stage.done = "sentences", done.lines
            stage.of = manifest.get("sentences") or (holder.note.get("sentences") if holder else None)
            if stage.state != FINISHED:
                settings = read_file(folder / TRANSLATE_SETTINGS, _RunSettings, self._problems)
                several = settings.get("steps") or settings.get("number_of_refining_steps")
                if settings.get("method_translate") == "vanilla" and not several:  # a request for each sentence
                    # Lines are in the order of the test set, responses in any.
                    stage.done = max(stage.done, min(responses.totals["responses"], stage.of or math.inf))
            if manifest.get("unanswered_prompts"):
                stage.state = INCOMPLETE
                stage.counts["unanswered"] = manifest["unanswered_prompts"]
            stage.counts |= {"responses": responses.totals["responses"], "failed": responses.totals["failed"]}
            others = [self._tally(path, "lines") for path in levels]
            self._describe(stage, [done, responses, *others], None, [responses], holder, manifest)
            yield stage

    def _records(self, folder: Path) -> Iterable[dict[str, Any]]:
        for path in sorted(folder.glob("*.json")):
            record = read_file(path, _Record, self._problems)
            yield {
                "folder": str(folder.parent),
                "stage": path.stem,
                **{key: record.get(key) for key in ("exit_code", "hours", "finished")},
            }

    def _failures(self, run: Run, stages: Sequence[Stage]) -> Iterable[dict[str, Any]]:
        """Of stages and of their parts that are jobs of their own; what they were at has failed and was not stopped."""
        for path in run.failures:
            failure = read_file(path, Failure, self._problems)
            if not failure:
                continue
            if "folder" in failure:
                folder = os.path.normpath(path.parent / failure["folder"])
                for stage in stages:
                    own = os.path.normpath(self._root / stage.folder)
                    if stage.stage in SCRIPTS.get(failure.get("script", ""), ()) and f"{own}/".startswith(f"{folder}/"):
                        stage.state = FAILED if stage.state == STOPPED else stage.state
            yield {
                "folder": str(path.parents[2]),
                "stage": path.stem.rpartition(".")[2],
                **{key: failure.get(key) for key in ("exit_code", "failed", "error")},
            }

    # What is said of each

    def _tally(self, path: Path, kind: str) -> Tally:
        return self._tallies.setdefault((path, kind), Tally(path, kind)).read()

    def _manifest(self, layout: Layout, stage: str, language: str) -> dict:
        return read_file(layout.manifest(stage, language), _Manifest, self._problems)

    def _stage(
        self, name: str, folder: Path, language: str, manifest: dict, holder: Holder | None, settings: Path
    ) -> Stage:
        stage = Stage(name, os.path.relpath(folder, self._root), language)
        if holder is not None and name in DATAGEN and name not in holder.note.get("stages", DATAGEN):
            holder = None  # it works on other stages
        if manifest:
            stage.state = INCOMPLETE if manifest.get("complete") is False else FINISHED
        elif holder is not None:
            stage.state = HELD[holder.state]
        elif settings.exists():
            stage.state = STOPPED
        return stage

    def _describe(
        self,
        stage: Stage,
        files: Sequence[Tally],
        rejects: Tally | None,
        responses: Sequence[Tally],
        holder: Holder | None,
        manifest: _Manifest,
    ) -> None:
        stage.changed = max((file.modified for file in files if file.modified is not None), default=None)
        if unreadable := sum(file.totals["unreadable"] for file in files):
            stage.counts["unreadable_lines"] = unreadable
        if rejects is not None:
            stage.rejected = dict(rejects.reasons.most_common())
            recent = list(rejects.recent)
            stage.last_rejects = dict(
                sorted(((code, recent.count(code)) for code in set(recent)), key=lambda pair: (-pair[1], pair[0]))
            )
        tokens = {name: sum(one.totals[name] for one in responses) for name in COUNTED}
        if any(tokens.values()):
            stage.tokens = tokens
            noted = holder.note.get("prices") if holder else None
            prices = self._prices or (Prices.of(noted) if noted else Prices.of_command(manifest.get("command") or []))
            stage.usd = None if prices is None else prices.cost(*tokens.values())
        if holder is not None and stage.state in (RUNNING, WAITING, KILLED, UNKNOWN):
            stage.process = _name(holder)
            self._began(stage, holder)

    def _began(self, stage: Stage, holder: Holder) -> None:
        """The mean rate of a stage that this process began: its settings are not older than the lock."""
        path = self._root / stage.folder / SETTINGS.get(stage.stage, "")
        try:
            began = path.stat().st_mtime if stage.stage in SETTINGS else math.inf
        except OSError:
            return
        if holder.since - 1 <= began < (stage.changed or 0) and stage.state == RUNNING and stage.done:
            stage.rate = stage.done / (stage.changed - began)
            stage.rate_from = f"the mean since it began at {time.strftime('%H:%M:%S', time.localtime(began))}"

    def _settle(self, stages: Sequence[Stage]) -> None:
        """A process works on one stage of one language at a time: on the first that is not complete, or that it wrote last."""
        by_process: dict[str, list[Stage]] = defaultdict(list)
        for stage in stages:
            if stage.process and stage.state == RUNNING and stage.stage in DATAGEN:
                by_process[stage.process].append(stage)
        for own in by_process.values():
            current = min((stage.stage for stage in own), key=DATAGEN.index)
            latest = max(stage.changed or 0 for stage in own if stage.stage == current)
            for stage in own:
                together = current == "generate" or (stage.changed or 0) == latest
                if stage.stage != current or not together:
                    stage.state, stage.rate, stage.rate_from = WAITING, None, ""

    def _measure(self, stage: Stage) -> None:
        """The rate between looks, if there were several, and the time that is left."""
        key = stage.stage, stage.folder, stage.language
        if stage.state not in (RUNNING, UNKNOWN) or stage.done is None:
            self._looks.pop(key, None)
            return
        looks = self._looks.setdefault(key, deque())
        if looks and stage.done < looks[-1][1]:
            looks.clear()
        looks.append((self._now, stage.done))
        while len(looks) > 2 and self._now - looks[1][0] > WINDOW_S:
            looks.popleft()
        (then, before), (now, done) = looks[0], looks[-1]
        if now > then and done > before:
            stage.rate = (done - before) / (now - then)
            stage.rate_from = f"the last {now - then:.0f} s"
        if stage.rate and stage.of is not None:
            stage.seconds_left = max(stage.of - stage.done, 0) / stage.rate


def _measure_together(total: int, stages: Sequence[Stage]) -> None:
    """The time that is left of languages that share a number of paragraphs."""
    left = max(total - sum(stage.done or 0 for stage in stages), 0)
    rate = sum(stage.rate or 0 for stage in stages)
    for stage in stages:
        if stage.of is None and stage.state in (RUNNING, UNKNOWN):
            stage.of_all, stage.seconds_left = total, left / rate if rate else None


def _paragraphs_asked(manifest: _Manifest, language: str) -> int | None:
    """How many datagen.py was to keep in a language, by its command; None if that is not known."""
    languages, each, together = (
        values_of_flag(manifest.get("command") or [], flag)
        for flag in ("--languages", "--number_of_instructions_per_language", "--number_of_instructions")
    )
    numbers, total = ([int(value) for value in values if value.isdigit()] for values in (each, together))
    if len(languages) == 1:
        return max(total[:1] + numbers[:1], default=None)
    if len(numbers) == len(languages) and language in languages:
        return numbers[languages.index(language)]
    return numbers[0] if len(numbers) == 1 and not total else None


def _name(holder: Holder) -> str:
    return f"process {holder.process or '?'} on {holder.host or '?'}"


def _folders(root: Path) -> Iterable[Path]:
    """All folders that may have locks."""
    for name, folders, _ in walk(root):
        folders[:] = [one for one in folders if not one.startswith((".", "checkpoint-"))]
        yield Path(name)


def _checkpoints(folder: Path) -> list[tuple[int, float, Path]]:
    """(step, when it was complete, folder) of the complete checkpoints, in the order of their steps."""
    found = []
    for path in folder.glob("checkpoint-*"):
        step = path.name.removeprefix("checkpoint-")
        try:
            if step.isdigit():
                found.append((int(step), (path / "checkpoint_files.json").stat().st_mtime, path))
        except OSError:
            continue
    return sorted(found)
