"""What train.py and scripts/merge_lora.py claim: files of checkpoints, the best one, weights, data, tables of model cards."""

import argparse
import io
from contextlib import redirect_stderr
from itertools import zip_longest
from pathlib import Path

from comptra.tables.model_card import load
from comptra.verify import Audit
from topxgen.common.console import quiet
from topxgen.common.files import read_jsonl
from topxgen.common.lineage import GENERATED, KEY, MERGE_MANIFEST, TRAIN_MANIFEST
from topxgen.common.provenance import weights_id
from topxgen.experiments import stages
from topxgen.training import checkpoints, training_data
from topxgen.training.model_card import evaluations_table, held_out_results
from topxgen.training.named_datasets import NAMED


def check_checkpoint(audit: Audit, folder: Path, names: set[str]) -> None:
    path = folder / checkpoints.CHECKSUM_FILE
    if path.name not in names:
        return
    files = audit.attempt(path, lambda: checkpoints.file_list(folder)["files"]) or {}
    whole = {name: facts for name, facts in files.items() if len(facts[1]) > checkpoints.ENDS_DIGITS}
    audit.sha256_of_all(folder / name for name in whole)
    for name, (size, digest) in files.items():
        file = folder / name
        audit.claim(file)
        if not file.is_file():
            audit.problem(file, f"is missing, and {path.name} has it")
        elif name in whole:
            if audit.equal(file, f"bytes in {path.name}", size, file.stat().st_size):
                audit.equal(file, f"SHA-256 in {path.name}", digest, audit.sha256(file))
        elif change := checkpoints.find_change(file, [size, digest]):
            audit.problem(file, f"{change} in {path.name}")
        else:
            audit.skip(path, "of an older version: only the first and last 64 KiB of each file")
    if {checkpoints.STATE_FILE, checkpoints.CARD_FILE} <= files.keys():
        audit.attempt(folder / checkpoints.CARD_FILE, _check_card, audit, folder)


def _check_card(audit: Audit, folder: Path) -> None:
    """The table of a model card, by the log of the checkpoint."""
    state, card = audit.json(folder / checkpoints.STATE_FILE), folder / checkpoints.CARD_FILE
    _check_table(audit, card, state["log_history"], checkpoints.step_of(folder))


def _check_table(audit: Audit, card: Path, history: list[dict], step: int) -> None:
    results = [one for one in load(card.parent).data.eval_results or () if not one.metric_args]
    claimed, found = (  # scores of held-out pairs in `model-index`
        {f"{one.metric_name} {one.dataset_config}": one.metric_value for one in own}
        for own in (results, held_out_results(history, step, ""))
    )
    audit.equal(card, "model-index", claimed, found, "scores")
    lines = card.read_text(encoding="utf-8", errors="replace").split("\n")
    for line in evaluations_table(history, step).split("\n"):
        audit.checked["scores"] += 1
        if line not in lines:
            name = line.split("|")[1] if line.startswith("| ") else line
            there = next((one for one in lines if one.startswith(f"|{name}|")), "missing")
            audit.problem(card, "the table of the held-out set", there, line)


def check(audit: Audit, folder: Path, names: set[str]) -> None:
    for name in (TRAIN_MANIFEST, MERGE_MANIFEST):
        path = folder / name
        if name in names:
            manifest = audit.json(path)
            audit.attempt(path, _check_weights, audit, path, manifest)
            if name == TRAIN_MANIFEST:
                audit.attempt(path, _check_run, audit, path, manifest)
                audit.attempt(path, _check_data, audit, path, manifest, why="its data")


def _check_weights(audit: Audit, path: Path, manifest: dict) -> None:
    if claimed := manifest.get(KEY, {}).get("weights"):
        audit.equal(path, "digest of the weights", claimed, weights_id(path.parent))


def _check_run(audit: Audit, path: Path, manifest: dict) -> None:
    """Steps and the best score, by the log, which the last checkpoint has, too."""
    log = path.with_name("train_log.jsonl")
    history = list(read_jsonl(log))
    if not history:
        return audit.problem(log, f"is missing or empty, and {path.name} is of a finished run")
    audit.equal(path, "steps", manifest["steps"], max(entry["step"] for entry in history))
    for newest in checkpoints.all_checkpoints(path.parent)[-1:]:
        kept = audit.json(newest / checkpoints.STATE_FILE)["log_history"]
        for number, (entry, own) in enumerate(zip_longest(history[: len(kept)], kept), start=1):
            audit.equal(log, f"line {number} by {newest.name}", entry, own, "scores")
    best = path.parent / manifest["best_checkpoint"]
    step = checkpoints.step_of(best)
    if (claimed := manifest.get("best_metric")) is not None:
        key = f"eval_{manifest['metric_for_best_model']}"
        scores = [entry[key] for entry in history if entry["step"] == step and key in entry]
        audit.equal(path, f"best_metric by {log.name}", claimed, scores[-1] if scores else None, "scores")
    card = path.with_name(checkpoints.CARD_FILE)
    if card.is_file():
        _check_table(audit, card, history, step)
    if not best.is_dir():
        return audit.skip(best, "the checkpoint was removed")
    for name in sorted(checkpoints.file_list(best).get("files", {})):
        copy = path.parent / name
        if not name.startswith(checkpoints.RUN_STATE) and name != checkpoints.CARD_FILE and copy.is_file():
            audit.equal(copy, f"the file of {best.name}", audit.sha256(best / name), audit.sha256(copy))


def _check_data(audit: Audit, path: Path, manifest: dict) -> None:
    """Digests and counts of the training data, read and selected again as the command says, if its files are there."""
    data, command = manifest["data"], manifest.get("command") or []
    args = command and _parsed(command[1:])
    if not args:
        return audit.skip(path, "its data: the command is not known")
    if args.streaming:
        return audit.skip(path, "its data was streamed")
    args.data_dir = [audit.locate(str(folder), path) or folder for folder in args.data_dir]
    name = args.dataset_name_or_path
    if name not in (*GENERATED, "udhr") and not args.data_dir and (found := audit.locate(name, path)) is None:
        return audit.skip(path, f"its data: {name} is not on this machine")
    if name not in NAMED:
        args.dataset_name_or_path = str(found)
    with quiet():
        made = training_data.build_sets(args)[2]
    for direction, part in data["languages"].items():
        claimed = {key: value for key, value in part.items() if key not in ("path", "source_path")}
        audit.equal(path, f"data of {direction}", claimed, made["languages"].get(direction, {}))
    for key in ("train_pairs", "test_pairs", "sha256"):
        audit.equal(path, f"data.{key}", data[key], made[key])


def _parsed(words: list[str]) -> argparse.Namespace | None:
    try:
        with redirect_stderr(io.StringIO()):
            return stages.STAGES["train"].parser().parse_args(words)
    except SystemExit:  # of another version, or a file that it names is gone
        return None
