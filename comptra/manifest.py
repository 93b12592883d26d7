"""What is read of the files that main.py leaves beside translations, of all versions: settings, manifest."""

from topxgen.common import lineage
from topxgen.common.schemas import fields

# Of settings_translate.json, and of "settings" in the manifest. `weights`: digests of the base model, and of the adapter if there
# is one; `ensembled_by`, `ensemble_of` and `systems`: of comptra.scores.ensemble.
RunSettings = fields(
    src=str, tgt=str, dataset_name_or_path=str, max_samples=int | None, model=str | None, base_model=str | None,
    weights=list[str], method_translate=str | None, steps=int | None, method_divide=str | None, mode_divide=str | None,
    merge_prompt=str | None, number_of_refining_steps=int | None, refine_after_merge=int | bool | str | None, k=int | None,
    retriever_type=str | None, prompt_style=str | None, template_key=str | int | None, selection_method=str | None,
    num_return_sequences=int | None, num_beams=int | None, temperature=float | None, top_p=float | None,
    repetition_penalty=float | None, seed=int | None, ensembled_by=str, ensemble_of=list[str], systems=list[str],
)  # fmt: skip
_Side = fields(**{"from": str}, sha256=str)
# Of manifest_translate.json; `lineage` only for those who follow where the translations come from.
_MANIFEST = {
    "model": str, "settings": RunSettings, "test_set": fields(test=fields(sources=_Side, references=_Side)),
    "checksums": list[str], "unanswered_prompts": int, "own_temperature": int,
}  # fmt: skip
Manifest = fields(**_MANIFEST)
TracedManifest = fields(**_MANIFEST, lineage=lineage.Translations)
