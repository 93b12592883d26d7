"""Counts of the stages of datagen.py, from their files; vectors of knn-instruct."""

import re
from pathlib import Path

from comptra.verify import Audit
from topxgen.common.files import read_jsonl
from topxgen.common.provenance import digest
from topxgen.common.records import Layout, ParagraphRecord, read_translations
from topxgen.generation import deduplication, funnel
from topxgen.generation.manifests import STAGES, SUMS
from topxgen.runs.folders import layout_of

_MANIFEST = re.compile(rf"manifest_({'|'.join(STAGES)})(?:_(.+))?\.json")


def check(audit: Audit, folder: Path, names: set[str]) -> None:
    of_languages: dict[str, dict[str, dict]] = {}
    for name in sorted(names):
        if (match := _MANIFEST.fullmatch(name)) and match[2]:
            stage, language = match.groups()
            manifest = audit.json(folder / name)
            of_languages.setdefault(stage, {})[language] = manifest
            audit.attempt(folder / name, _check_counts, audit, folder / name, stage, language, manifest)
    for name in sorted(names):
        if (match := _MANIFEST.fullmatch(name)) and not match[2]:
            path = folder / name
            audit.attempt(path, _check_whole, audit, path, match[1], of_languages.get(match[1], {}))
        elif name.endswith(".bin.json"):
            audit.attempt(folder / name, _check_vectors, audit, folder / name)


def _check_counts(audit: Audit, path: Path, stage: str, language: str, manifest: dict) -> None:
    folder = path.parent
    layout = layout_of(folder) if stage == "generate" else Layout(folder.parent, folder.name)
    if stage == "generate":
        found = funnel.generation_counts(layout, language)
        if (recall := manifest.get(deduplication.RECALL)) is not None:
            rules = (manifest["settings"][name] for name in ("threshold", "rouge_tokenizer"))
            counted, _ = deduplication.measured_recall(layout, language, *rules)
            audit.equal(path, f"{deduplication.RECALL} of {language}", recall, counted)
    else:
        for _ in read_translations(layout.translations(language)):
            pass  # raises for lists that are not parallel
        found = funnel.translation_counts(layout, language)
        if stage == "translate":
            found = funnel.before_scores(found)
    if other := manifest["counts"].keys() - found.keys():
        audit.skip(path, f"{', '.join(sorted(other))}: counts of an older version")
    audit.equal(path, f"counts of {language}", {key: n for key, n in manifest["counts"].items() if key in found}, found)


def _check_whole(audit: Audit, path: Path, stage: str, of_languages: dict[str, dict]) -> None:
    """The manifest of all languages: what those of the languages say."""
    whole = audit.json(path)
    if "test_set" in whole:  # of main.py
        return
    for language, counts in whole["counts"].items():
        if language not in of_languages:
            audit.problem(path, f"has counts of {language}, but manifest_{stage}_{language}.json is missing")
        else:
            audit.equal(path, f"counts of {language}", counts, of_languages[language].get("counts"))
    for language in of_languages.keys() - whole["counts"].keys():
        audit.problem(path, f"lacks {language}, of which there is a manifest")
    for language, recall in whole.get(deduplication.RECALL, {}).items():
        if language in of_languages:
            found = of_languages[language].get(deduplication.RECALL)
            audit.equal(path, f"{deduplication.RECALL} of {language}", recall, found)
    for name in SUMS:
        parts = [part[name] for part in of_languages.values() if part.get(name) is not None]
        if parts and name in whole:
            audit.equal(path, name, whole[name], sum(parts))


def _check_vectors(audit: Audit, path: Path) -> None:
    import hashlib

    manifest, vectors = audit.json(path), path.with_name(path.name.removesuffix(".json"))
    if not vectors.is_file():
        return audit.problem(vectors, f"is missing, and {path.name} has it")
    data = vectors.read_bytes()
    audit.claim(vectors)
    audit.equal(path, "vectors_digest", manifest["vectors_digest"], hashlib.sha256(data).hexdigest()[:16])
    audit.equal(path, "bytes of the vectors", manifest["texts"] * manifest["dimension"] * 4, len(data))
    texts = vectors.with_suffix(".jsonl")
    if texts.is_file():
        found = [record["text"] for record in read_jsonl(texts, ParagraphRecord)]
        audit.equal(path, "texts", manifest["texts"], len(found))
        audit.equal(path, "texts_digest", manifest["texts_digest"], digest(found))
