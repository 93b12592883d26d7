"""The model card that lies in every checkpoint, in the Hub's format, and the upload of the best one."""

import argparse
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from topxgen.common import provenance
from topxgen.common.errors import UsageError, reason
from topxgen.prompting.mt_templates import get_template
from topxgen.text import languages
from topxgen.training.model import DECODER
from topxgen.training.tokenization import NO_TEMPLATE


@dataclass(frozen=True)
class RunInfo:
    """What a card tells of a run besides its log: flags, the kind of model, data, decisive settings, command."""

    args: argparse.Namespace
    kind: str
    data: dict
    settings: dict
    command: list[str]

    def card(self, state) -> str:
        """The card of the checkpoint at the Trainer's `state`."""
        args, both = self.args, ", in both directions" if self.args.reverse else ""
        what = "A LoRA adapter of" if args.use_peft else "A fine-tuned"
        between = f", trained to translate between {args.src} and {', '.join(args.target_languages)}{both}"
        front = [
            "---",
            f"base_model: {json.dumps(args.model_name_or_path)}",
            f"library_name: {'peft' if args.use_peft else 'transformers'}",
            "pipeline_tag: translation",
            "language:",
            *(f"- {code}" for code in self._codes()),
            "tags:",
            "- translation",
            "- topxgen",
            "---",
        ]
        table = evaluations_table(state.log_history, state.global_step)
        parts = [
            "\n".join(front),
            f"# {args.output_dir.resolve().name}",
            f"{what} {args.model_name_or_path}{between if args.target_languages else ''}. Step {state.global_step} of "
            f"{state.max_steps}.",
            f"## Use\n\n{self._use()}",
            f"## Evaluation\n\n{table}" if table else "",
            f"## Data\n\n{_fenced(json.dumps(self.data, ensure_ascii=False, indent=2), 'json')}",
            f"## Training\n\n{_fenced(shlex.join(self.command))}",
            _fenced(json.dumps(self.settings, ensure_ascii=False, indent=2), "json"),
            "## Versions\n\n" + ", ".join(f"{name} {version}" for name, version in provenance.versions().items()),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _codes(self) -> list[str]:
        rows = [languages.find(name, self.args.languages_file) for name in (self.args.src, *self.args.target_languages)]
        return sorted({row.iso639_1 or row.iso639_3 for row in rows})

    def _use(self) -> str:
        if self.kind != DECODER:
            return "Load it with transformers (`AutoModelForSeq2SeqLM`); language codes as for the base model."
        key = self.args.template_key
        if key == NO_TEMPLATE or not self.args.target_languages:
            return "Text as it stood in the data; an answer ends with EOS."
        prompt = get_template(
            key, self.args.src, self.args.target_languages[0], extra=self.args.languages_file
        ).get_prompt([], "...")
        return f"The prompt is template {key}; an answer ends with EOS.\n\n{_fenced(prompt)}"


def _fenced(text: str, kind: str = "") -> str:
    return f"```{kind}\n{text}\n```"


def evaluations_table(history: list[dict], chosen_step: int) -> str:
    """Before training and at `chosen_step`, as a Markdown table; empty when nothing was evaluated."""
    evaluations = {entry["step"]: entry for entry in history if "eval_runtime" in entry}
    first, chosen = evaluations.get(0, {}), evaluations.get(chosen_step, {})
    names = [name for name in chosen if name.startswith("eval_") and name != "eval_runtime"]
    if not names:
        return ""
    rows = ["| held out | before training | this checkpoint |", "| --- | --- | --- |"]
    for name in names:
        before = f"{first[name]:.4g}" if name in first else "-"
        rows.append(
            f"| {name.removeprefix('eval_').replace('chrf', 'chrF++').replace('bleu', 'BLEU').replace('_', ' ')} | {before} | {chosen[name]:.4g} |"
        )
    return "\n".join(rows)


def regressions(history: list[dict]) -> list[tuple[str, float, float]]:
    """(metric, now, before training) for each metric of the last evaluation that is worse than before training."""
    evaluations = [entry for entry in history if "eval_runtime" in entry]
    if len(evaluations) < 2 or evaluations[0].get("step"):
        return []
    first, last = evaluations[0], evaluations[-1]
    worse = []
    for name, now in last.items():
        if name not in first or name == "eval_runtime" or not name.startswith("eval_"):
            continue
        smaller_is_better = name.startswith("eval_loss")
        if (now > first[name]) if smaller_is_better else (now < first[name]):
            worse.append((name.removeprefix("eval_"), now, first[name]))
    return worse


def check_hub() -> None:
    """Raise UsageError now when the Hub would refuse the upload for want of a token."""
    from huggingface_hub import HfApi

    try:
        HfApi().whoami()
    except Exception as error:  # the Hub client raises dozens of types; the cause is in the message
        raise UsageError(
            f"--push_to_hub: the Hub does not know you ({reason(error)}); export HF_TOKEN with write access, or leave the "
            "flag out and upload later"
        ) from None


def push(output_dir: Path, name: str) -> None:
    """Upload the best model to a private repository of the user's. Raises UsageError with the Hub's reason."""
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        repo = api.create_repo(name, private=True, exist_ok=True).repo_id
        api.upload_folder(
            repo_id=repo, folder_path=output_dir, ignore_patterns=["checkpoint-*", "unusable-*", ".lock", "*.partial"]
        )
    except Exception as error:  # as above
        raise UsageError(
            f"the Hub did not take {name} ({reason(error)}); the model is whole in {output_dir}: upload it by hand"
        ) from None
    print(f"uploaded to https://huggingface.co/{repo} (private)")
