"""Scores in the cards of the models that translated: `model-index` in the front matter, which the Hub shows, and a table to read."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from comptra.manifest import TracedManifest
from comptra.tables import finite, metric_info, own_file
from comptra.tables.matrix import metric_names
from topxgen.common.console import markdown_table
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, write_atomic
from topxgen.common.locks import OutputLock
from topxgen.common.provenance import TRANSLATE_MANIFEST, weights_id
from topxgen.corpora import benchmarks

CARD = "README.md"
BEGIN, END = "<!-- comptra.evaluate: begin -->", "<!-- comptra.evaluate: end -->"
EVALUATED_BY = "comptra.evaluate"
PARTIAL = ("missing", "unanswered", "edited")  # translations with these are not what the model makes of the test set


def check(folders: Sequence[Path]) -> None:
    """Raise UsageError, before anything is scored, for folders without a card, and if the Hub's library is not installed."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise UsageError("--model_card needs huggingface_hub: pip install huggingface_hub") from None
    for folder in folders:
        if not (folder / CARD).is_file():
            raise UsageError(
                f"--model_card {folder} has no {CARD}; pass the --output_dir of train.py, or a folder of merge_lora.py"
            )
        load(folder)


def write(report: dict, folders: Sequence[Path]) -> list[str]:
    """Add the scores of each folder's model to its card. Those that it has of the same test set, direction, system and metric are
    replaced. Returns a line for each folder whose model translated nothing that was scored."""
    without = []
    for folder in folders:
        if results := list(_results(report, folder)):
            with OutputLock(folder, flag="--model_card"):
                _update(folder, results)
        else:
            without.append(f"{folder}: no complete translations of this model were scored, and its card is unchanged")
    return without


def load(folder: Path):
    """The card, as huggingface_hub.ModelCard. Raises UsageError for one that it cannot read."""
    from huggingface_hub import ModelCard

    try:
        text = (folder / CARD).read_text(encoding="utf-8")
        return ModelCard(text if text.startswith("---") else f"---\n\n---\n{text}", ignore_metadata_errors=False)
    except Exception as error:  # of YAML and of the Hub's checks
        raise UsageError(
            f"{folder / CARD} is not a model card that can be read ({error}); repair its front matter"
        ) from None


def _results(report: dict, folder: Path) -> Iterator:
    """huggingface_hub.EvalResults of the systems whose translations are of the model in `folder`."""
    from huggingface_hub import EvalResult

    for group in report["groups"]:
        whole = [row for row in group["systems"] if not (group["step"] or any(map(row.get, PARTIAL)))]
        related = [(row, found) for row in whole if (found := _relation(Path(row["path"]), folder)) is not None]
        systems = [", ".join(filter(None, (relation, _system(row)))) for row, relation in related]
        for (row, _), system in zip(related, systems, strict=True):
            if systems.count(system) > 1:  # they differ in what the columns do not show
                system = f"{system}, {Path(row['path']).name}"
            for name in metric_names([group]):
                value = row["scores"].get(name) or {}
                score = finite(value.get("score"))
                if score is None:
                    continue
                info = group["metrics"][name]
                low, high = value.get("interval") or (None, None)
                facts = {
                    "evaluated_by": EVALUATED_BY,
                    "signature": group["signatures"][name],
                    "segments": value.get("segments"),
                    "interval": None if low is None else [round(low, 4), round(high, 4)],
                    "translations": row["translations_digest"],
                    "interference": value.get("interference") or None,
                }
                yield EvalResult(
                    task_type="translation",
                    dataset_type=benchmarks.REPOS.get(group["dataset"], group["dataset"]),
                    dataset_name=own_file(group) or group["dataset"],
                    dataset_revision=group["references_digest"] if own_file(group) else None,
                    dataset_config=f"{group['src']} to {group['tgt']}",
                    dataset_split=_split(group),
                    metric_type=name,
                    metric_name=info["title"] + f" ({system})" * bool(system),
                    metric_value=round(score, 4),
                    metric_args={key: value for key, value in facts.items() if value is not None},
                )


def _split(group: dict) -> str | None:
    """The part of the benchmark, as the facts of the test set name it; test[:100] if only its first sentences were translated or
    scored."""
    test = (group.get("test_set") or {}).get("test", {})
    part, count = test.get("references", {}).get("part"), group["sentences"]
    return f"{part or ''}[:{count}]" if count < test.get("of", count) else part


def _system(row: dict) -> str:
    """How the model translated: the columns of the tables that say more than the model."""
    columns = row["columns"]
    retrieved = f"{columns['k']}-shot" if columns.get("k") not in (None, "", "0") else ""
    template = f"template {columns['template']}" if columns.get("template") else ""
    method, *others = (columns.get(name) for name in ("method", "retriever", "selection", "decoding"))
    return ", ".join(dict.fromkeys(filter(None, (method, retrieved, *others, template))))


def _relation(run: Path, folder: Path) -> str | None:
    """Whose translations are in `run`: "" of the model in `folder`, "merged" of one that it, an adapter, was merged into; None of
    others. By the digests of weights, else by the path."""
    manifest = read_json(run / TRANSLATE_MANIFEST, TracedManifest)
    own = manifest.get("lineage", {}).get("models", [])[:1]  # behind it, the base model of an adapter
    adapters = [link for model in own if model.get("stage") == "merge" for link in model.get("links", ())[:1]]
    known = [{link["weights"] for link in links if link.get("weights")} for links in (own, adapters)]
    known[0].update(filter(None, manifest.get("settings", {}).get("weights", [])[-1:]))
    if any(known):
        weights = weights_id(folder)
        return "" if weights in known[0] else "merged" if weights in known[1] else None
    name = manifest.get("model")
    return "" if name is not None and Path(name).resolve() == folder.resolve() else None


def _update(folder: Path, results: list) -> None:
    card = load(folder)
    new = {_key(result) for result in results}
    kept = [result for result in card.data.eval_results or [] if _key(result) not in new]
    card.data.eval_results = [*kept, *results]
    card.data.model_name = card.data.model_name or folder.resolve().name
    ours = [one for one in card.data.eval_results if (one.metric_args or {}).get("evaluated_by") == EVALUATED_BY]
    block = f"{BEGIN}\n{_table(ours)}\n{END}"
    body = card.text
    if BEGIN in body and END in body.partition(BEGIN)[2]:
        before, _, rest = body.partition(BEGIN)
        body = before + block + rest.partition(END)[2]
    else:  # before the section of the data, or at the end
        place = re.search(r"^## (Licence|Data)$", body, re.MULTILINE)
        at = place.start() if place else len(body)
        body = f"{body[:at].rstrip()}\n\n{block}\n\n{body[at:]}"
    write_atomic(folder / CARD, [f"---\n{card.data.to_yaml().rstrip()}\n---\n{body}"])


def _key(result) -> tuple:
    return (*result.unique_identifier, result.metric_type, result.metric_name)


def _table(results: list) -> str:
    """The section for readers, a row for each result."""
    rows, notes = [], {}
    for one in results:
        facts, info = one.metric_args, metric_info({"titles": {}}, one.metric_type)
        interval = " to ".join(map(info.format, facts.get("interval") or ()))
        dataset, title = f"{one.dataset_name} {one.dataset_split or ''}".strip(), one.metric_name.partition(" (")[0]
        score = info.format(one.metric_value)
        cells = [dataset, one.dataset_config, one.metric_name, score, interval, facts.get("segments")]
        rows.append(map(_cell, cells))
        notes[f"{title}: `{facts.get('signature')}`"] = None
        for reason in facts.get("interference") or ():
            notes[f"Not comparable with other systems, {title}: {reason}"] = None
    head = ["test set", "direction", "metric", "score", "95 % interval", "segments"]
    lines = ["## Translation quality", "", markdown_table(head, rows), "", *(f"- {note}" for note in notes)]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
