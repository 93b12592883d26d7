"""Write the model card saved with every checkpoint."""

import argparse
import json
import shlex
from dataclasses import dataclass

from topxgen.common import provenance
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
        """The card of the checkpoint at TrainerState `state`, in Markdown with the Hub's front matter."""
        args = self.args
        codes = {row.iso639_1 or row.iso639_3 for row in map(self._language, (args.src, *args.target_languages))}
        front_matter = [
            "---",
            f"base_model: {json.dumps(args.model_name_or_path)}",
            f"library_name: {'peft' if args.use_peft else 'transformers'}",
            "pipeline_tag: translation",
            "language:",
            *(f"- {code}" for code in sorted(codes)),
            "tags:",
            "- translation",
            "- topxgen",
            "---",
        ]
        purpose = f", trained to translate between {args.src} and {', '.join(args.target_languages)}"
        purpose += ", in both directions" if args.reverse else ""
        evaluations = evaluations_table(state.log_history, state.global_step)
        parts = [
            "\n".join(front_matter),
            f"# {args.output_dir.resolve().name}",
            f"{'A LoRA adapter of' if args.use_peft else 'A fine-tuned'} {args.model_name_or_path}"
            f"{purpose if args.target_languages else ''}. Step {state.global_step} of {state.max_steps}.",
            f"## Use\n\n{self._usage()}",
            f"## Evaluation\n\n{evaluations}" if evaluations else "",
            f"## Data\n\n{_fenced(json.dumps(self.data, ensure_ascii=False, indent=2), 'json')}",
            f"## Training\n\n{_fenced(shlex.join(self.command))}",
            _fenced(json.dumps(self.settings, ensure_ascii=False, indent=2), "json"),
            "## Versions\n\n" + ", ".join(f"{name} {version}" for name, version in provenance.versions().items()),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _language(self, name: str) -> languages.Language:
        return languages.find(name, self.args.languages_file)

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
    rows = ["| held-out | before training | this checkpoint |", "| --- | --- | --- |"]
    for name in names:
        label = name.removeprefix("eval_").replace("chrf", "chrF++").replace("bleu", "BLEU").replace("_", " ")
        start = f"{before[name]:.4g}" if name in before else "-"
        rows.append(f"| {label} | {start} | {after[name]:.4g} |")
    return "\n".join(rows)


def regressions(history: list[dict]) -> list[tuple[str, float, float]]:
    """(metric, now, before training) for each metric of the last evaluation that is worse than before training."""
    evaluations = [entry for entry in history if "eval_runtime" in entry]
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
