"""Write the model card saved with every checkpoint."""

import argparse
import json
import math
from dataclasses import dataclass

from topxgen.common import ancestry, licences, lineage, provenance
from topxgen.common.console import markdown_table
from topxgen.common.masks import masked, masked_command, masked_json
from topxgen.prompting.mt_templates import get_template
from topxgen.text import languages
from topxgen.training.tokenization import NO_TEMPLATE


@dataclass(frozen=True)
class RunInfo:
    """What a model card and a manifest say about a run besides its log."""

    args: argparse.Namespace
    is_decoder: bool
    data: dict  # facts of the training data
    settings: dict  # that decide the result
    command: list[str]
    lineage: dict  # topxgen.common.lineage.Link

    def card(self, state) -> str:
        """The card of the checkpoint at TrainerState `state`, in Markdown with the Hub's front matter; without paths of the machine."""
        args = self.args
        purpose = f", trained to translate between {args.src} and {', '.join(args.target_languages)}"
        purpose += ", in both directions" if args.reverse else ""
        evaluations = evaluations_table(state.log_history, state.global_step)
        parts = [
            self._front_matter(state),
            f"# {args.output_dir.resolve().name}",
            f"{'A LoRA adapter of' if args.use_peft else 'A fine-tuned'} {masked(args.model_name_or_path)}"
            f"{purpose if args.target_languages else ''}. Step {state.global_step} of {state.max_steps}.",
            f"## Use\n\n{self._usage()}",
            f"## Evaluation\n\n{evaluations}" if evaluations else "",
            f"## Licence\n\n{self._terms()}",
            f"## Data\n\n{_fenced(json.dumps(masked_json(self.data), ensure_ascii=False, indent=2), 'json')}",
            f"## Training\n\n{_fenced(masked_command(self.command))}",
            _fenced(json.dumps(masked_json(self.settings), ensure_ascii=False, indent=2), "json"),
            "## Versions\n\n" + ", ".join(f"{name} {version}" for name, version in provenance.versions().items()),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _front_matter(self, state) -> str:
        """YAML that the Hub reads: the licence, the base model on the Hub and the scores on held-out pairs, as far as they are known."""
        from huggingface_hub import ModelCardData

        args = self.args
        rows = [languages.find(name, args.languages_file) for name in (args.src, *args.target_languages)]
        codes = {row.iso639_1 or row.iso639_3 for row in rows}
        base = self._base()
        data = ModelCardData(
            base_model=base,
            base_model_relation=("adapter" if args.use_peft else "finetune") if base else None,
            library_name="peft" if args.use_peft else "transformers",
            pipeline_tag="translation",
            language=sorted(codes),
            tags=["translation", "topxgen"],
            **self._licence(),
            model_name=args.output_dir.resolve().name,
            eval_results=held_out_results(state.log_history, state.global_step, masked(args.dataset_name_or_path))
            or None,
        )
        return f"---\n{data.to_yaml().rstrip()}\n---"

    def _base(self) -> str | None:
        return ancestry.hub_name(self.args.model_name_or_path, self._base_link())

    def _base_link(self) -> lineage.Link | None:
        return next((link for link in self.lineage.get("links", ()) if link["kind"] == "model"), None)

    def _sources(self) -> list[tuple[str, str, licences.Licence | None]]:
        """(what it is, its name, its terms) of what the model was made from: the base model, who wrote the texts, the data set."""
        args = self.args
        terms = ancestry.licence_of(args.model_name_or_path, self._base_link())
        found = [("base model", self._base() or args.model_name_or_path, terms)]
        for link in lineage.walk(self.lineage.get("links", ())):
            for writer in link.get("writers", ()):
                name = ancestry.hub_name(writer["name"], writer) or writer["name"]
                found.append(("writer of training data", name, ancestry.licence_of(writer["name"], writer)))
        if not found[1:] and args.dataset_name_or_path not in lineage.GENERATED:
            found.append(("training data", args.dataset_name_or_path, licences.of(args.dataset_name_or_path)))
        return [source for i, source in enumerate(found) if source not in found[:i]]

    def _licence(self) -> dict[str, str]:
        """The licence as the Hub has it: that of the base model, or "other" where terms of the data's writers come on top; none if
        that of the base model is not known."""
        (_, _, base), *others = self._sources()
        if base is None:
            return {}
        binding = [terms for what, _, terms in others if terms and terms.restricts and what != "training data"]
        hubs = list(dict.fromkeys([base.hub, *(terms.hub for terms in binding)]))
        if hubs == ["other"]:
            return {"license": "other", "license_name": base.title, "license_link": base.url}
        if len(hubs) == 1:
            return {"license": hubs[0]}
        return {"license": "other", "license_name": " and ".join(hubs), "license_link": binding[0].url}

    def _terms(self) -> str:
        lines = ["What this model was made from, and what the terms say of that; not legal advice. Read the terms.", ""]
        for what, name, terms in self._sources():
            name = masked(name)
            if terms is None:
                lines.append(f"- {what} `{name}`: its terms are not known to this software.")
            else:
                lines.append(f"- {what} `{name}`: [{terms.name}]({terms.url}). {terms.binds_outputs}")
        return "\n".join(lines)

    def _usage(self) -> str:
        args = self.args
        if not self.is_decoder:
            return "Load it with transformers (`AutoModelForSeq2SeqLM`); language codes are those of the base model."
        if args.template_key == NO_TEMPLATE or not args.target_languages:
            return "It was trained on raw text; an answer ends with EOS."
        template = get_template(args.template_key, args.src, args.target_languages[0], extra=args.languages_file)
        prompt = _fenced(template.get_prompt([], "..."))
        return f"The prompt is template {args.template_key}; an answer ends with EOS.\n\n{prompt}"


def _fenced(text: str, kind: str = "") -> str:
    return f"```{kind}\n{text}\n```"


def evaluations_table(history: list[dict], step: int) -> str:
    """The evaluations before training and at `step` as a Markdown table; "" if there are none."""
    evaluations = {entry["step"]: entry for entry in history if "eval_runtime" in entry}
    before, after = evaluations.get(0, {}), evaluations.get(step, {})
    names = [name for name in after if name.startswith("eval_") and name != "eval_runtime"]
    if not names:
        return ""
    rows = []
    for name in names:
        label = name.removeprefix("eval_").replace("chrf", "chrF++").replace("bleu", "BLEU").replace("_", " ")
        start = f"{before[name]:.4g}" if name in before else "-"
        rows.append([label, start, f"{after[name]:.4g}"])
    return markdown_table(["held-out", "before training", "this checkpoint"], rows)


# How the Hub calls metrics of held-out pairs, and their names in tables.
HELD_OUT_METRICS = {"chrf": "chrF++", "bleu": "BLEU", "loss": "loss"}


def held_out_results(history: list[dict], step: int, dataset: str) -> list:
    """The scores on held-out pairs at `step` as huggingface_hub.EvalResults, for `model-index`."""
    from huggingface_hub import EvalResult

    entry = next((one for one in reversed(history) if "eval_runtime" in one and one["step"] == step), {})
    results = []
    for name, value in entry.items():
        metric, _, direction = name.removeprefix("eval_").partition("_")
        if name.startswith("eval_") and metric in HELD_OUT_METRICS and math.isfinite(value):
            results.append(
                EvalResult(
                    task_type="translation",
                    dataset_type=dataset,
                    dataset_name=f"held-out pairs of {dataset}",
                    dataset_config=direction or None,
                    metric_type=metric,
                    metric_name=HELD_OUT_METRICS[metric],
                    metric_value=round(value, 4),
                )
            )
    return results


def regressions(history: list[dict], step: float = math.inf) -> list[tuple[str, float, float]]:
    """(metric, now, before training) for each metric of the last evaluation up to `step` that is worse than before training."""
    evaluations = [entry for entry in history if "eval_runtime" in entry and entry["step"] <= step]
    if len(evaluations) < 2 or evaluations[0].get("step"):
        return []
    first, last = evaluations[0], evaluations[-1]
    worse = []
    for name, now in last.items():
        if name.startswith("eval_") and name != "eval_runtime" and name in first:
            before = first[name]
            if (now > before) if name.startswith("eval_loss") else (now < before):
                worse.append((name.removeprefix("eval_"), now, before))
    return worse
