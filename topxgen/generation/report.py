"""What datagen.py prints at its end: what became of the texts and pairs, their tokens, a few pairs, and where the files are."""

from collections.abc import Collection
from pathlib import Path

from topxgen.common.console import show
from topxgen.common.errors import UsageError
from topxgen.generation import funnel
from topxgen.generation.manifests import STAGES, language_manifest, whole_manifest
from topxgen.generation.plan import GenerationConfig


def report(config: GenerationConfig) -> bool:
    """Print the report; whether each language has paragraphs."""
    layout, translation = config.layout, {}
    # A shard that translates merged paragraphs wrote others itself: its responses are not where these come from.
    own = [] if layout.translates_taken else config.languages
    generated = [name for name in own if layout.responses(name).exists() or layout.rejects(name).exists()]
    generation = {name: funnel.generation_counts(layout, name) for name in generated}
    for name in config.languages:
        if layout.translations(name).exists():
            translation[name] = funnel.translation_counts(layout, name)
    _check_unchanged(config, generation, translation)
    sent = sum(
        language_manifest(layout, "generate", name).get("prompts_asked") or counts["prompts"]
        for name, counts in generation.items()
    )
    table = funnel.render(sent or None, generation.values(), translation.values(), config.filter_names)
    show(f"\nFunnel, {', '.join(config.languages)}:\n{table}\n")
    whole = [whole_manifest(layout, stage) for stage in STAGES]
    others = sorted({name for manifest in whole for name in manifest.get("counts", {})} - config.languages.keys())
    if others:
        rows = [manifest.get("counts", {}).values() for manifest in (whole[0], whole[2] or whole[1])]
        show(f"With {', '.join(others)}, as far as finished:\n{funnel.render(whole[0].get('prompts_asked'), *rows)}\n")
    for stage in ("generate", "translate"):
        if usage := config.meter.usage(stage):
            show(usage)
    _show_files(config, translation)
    # A shard has no blocks of the merged paragraphs or pairs if there are fewer than shards.
    if config.shard is not None and "generate" not in config.args.stages:
        return True
    if config.shard is not None and config.args.stages == ["generate"]:
        translation = {}  # what it has translated are blocks of the merged paragraphs
    without_paragraphs = {name for name, counts in generation.items() if not counts["kept"]}
    without_paragraphs |= {name for name, counts in translation.items() if not counts["paragraphs"]}
    funnel.warn_of_none("paragraphs", without_paragraphs)
    funnel.warn_of_none("pairs", {name for name, counts in translation.items() if not counts["pairs"]})
    return not without_paragraphs


def _show_files(config: GenerationConfig, translated: Collection[str]) -> None:
    """Some pairs of each language, and where its files are."""
    layout = config.layout
    for name in translated:
        for sentence, text, value in funnel.sample_pairs(layout.translations(name)):
            shown = "no score" if value is None else f"score {value:.2f}"
            show(f"  {name}: {sentence}\n  {config.target_language.name}: {text}  ({shown})\n")
    for name in config.languages:
        paths = [layout.paragraphs(name), *([layout.translations(name)] if name in translated else [])]
        files = ", ".join(map(str, paths))
        show(f"{name}: {files}; rejected texts and pairs with reasons: *_rejects.jsonl beside them")


def _check_unchanged(config: GenerationConfig, generation: dict[str, dict], translation: dict[str, dict]) -> None:
    """Raise UsageError if the files do not have what the manifests of this run say: some were removed or changed meanwhile."""
    for stage in config.args.stages:
        if stage == "score" and config.scorer is None:
            continue
        for name in config.languages:
            counts = language_manifest(config.layout, stage, name).get("counts", {})
            now = (generation if stage == "generate" else translation).get(name, {})
            if now and stage == "translate":
                now = funnel.before_scores(now)
            if not counts or any(now.get(key) != value for key, value in counts.items()):
                raise removed(config.layout.manifest(stage), name)


def removed(path: Path, name: str) -> UsageError:
    return UsageError(
        f"the files of {name} in {path.parent} were removed or changed while this run was going on: re-run the same command"
    )
