"""What is read of the files that main.py leaves beside translations, of all versions: settings, manifest."""

from typing import TypedDict

from topxgen.common import lineage
from topxgen.common.schemas import fields


class RunSettings(TypedDict, total=False):
    """Of settings_translate.json, and of "settings" in the manifest."""

    src: str
    tgt: str
    dataset_name_or_path: str
    max_samples: int | None
    model: str | None
    base_model: str | None
    weights: list[str]  # digests of the base model, and of the adapter if there is one
    method_translate: str | None
    steps: int | None
    method_divide: str | None
    mode_divide: str | None
    merge_prompt: str | None
    number_of_refining_steps: int | None
    refine_after_merge: int | bool | str | None
    k: int | None
    retriever_type: str | None
    prompt_style: str | None
    template_key: str | int | None
    selection_method: str | None
    num_return_sequences: int | None
    num_beams: int | None
    temperature: float | None
    top_p: float | None
    repetition_penalty: float | None
    seed: int | None
    ensembled_by: str  # of comptra.scores.ensemble
    ensemble_of: list[str]
    systems: list[str]


_Side = TypedDict("_Side", {"from": str, "sha256": str}, total=False)


_TestFacts = fields(test=fields(sources=_Side, references=_Side))


class Manifest(TypedDict, total=False):
    """Of manifest_translate.json."""

    model: str
    settings: RunSettings
    test_set: _TestFacts
    checksums: list[str]
    unanswered_prompts: int
    own_temperature: int


class TracedManifest(Manifest, total=False):
    """The same for those who follow where the translations come from."""

    lineage: lineage.Translations
