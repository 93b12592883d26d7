"""Flags of train.py that do nothing, exclude each other or are out of range: one line before any work, also in a dry run."""

import re
import shlex
from types import SimpleNamespace

import pytest

import train
from tests.support.runs import ROOT, in_process
from tests.support.training_runs import flags
from topxgen.common import run_files
from topxgen.experiments import chain, rounds
from topxgen.training import flag_rules

IDLE = [
    (dict(lora_r=16), "--lora_r has no effect without --use_peft"),
    (dict(lora_alpha=64), "--lora_alpha has no effect without --use_peft"),
    (dict(lora_dropout=0.1), "--lora_dropout has no effect without --use_peft"),
    (dict(target_modules=["q_proj"]), "--target_modules has no effect without --use_peft"),
    (dict(use_dora=True), "--use_dora has no effect without --use_peft"),
    (dict(load_in_4bit=True), "--load_in_4bit has no effect without --use_peft"),
    (dict(lora_dropout=0.1, lora_r=8), "--lora_r, --lora_dropout have no effect without --use_peft"),
    (dict(load_in_8bit=True), "--load_in_8bit has no effect without --use_peft (quantized"),
    (dict(percentile=50), "--percentile has no effect without scores"),
    (dict(strategy="highest", dataset_size=5), "--strategy has no effect without scores"),
    (dict(strategy="random"), "--strategy has no effect without --dataset_size N"),
    (
        dict(percentile=50, dataset_size=5, dataset_name_or_path="topxgen"),
        "--percentile and --dataset_size exclude each other",
    ),
    (
        dict(percentile=50, strategy="random", dataset_name_or_path="ours"),
        "--percentile and --strategy exclude each other",
    ),
    (dict(streaming=True), "--streaming and --test_size_ratio exclude each other"),
    (dict(size_valid_set=5), "--size_valid_set has no effect without --streaming"),
    (dict(shuffle_buffer=5), "--shuffle_buffer has no effect without --streaming"),
    (dict(num_of_sequences=5), "--num_of_sequences has no effect without --streaming"),
    (dict(export_formats="text"), "--export_formats has no effect without --export_dir"),
    (dict(hub_model_id="me/mine"), "--hub_model_id has no effect without --push_to_hub"),
    (dict(input_column_name="en"), "--input_column_name has no effect without a table of your own"),
    (dict(output_column_name="eu"), "--output_column_name has no effect without a table of your own"),
    (dict(subset="smolsent"), "--subset has no effect without --dataset_name_or_path smol or"),
    (dict(data_dir="."), "--data_dir has no effect without --dataset_name_or_path topxgen"),
    (dict(split="dev", dataset_name_or_path="topxgen"), "--split has no effect without"),
    (
        dict(allow_partial_benchmark=True, dataset_name_or_path="smol"),
        "--allow_partial_benchmark has no effect without",
    ),
    (
        dict(dataset_name_or_path="me/data", data_dir="x"),
        "--data_dir has no effect without --dataset_name_or_path topxgen",
    ),
    (
        dict(test_size_ratio=0, eval_steps=None, per_device_eval_batch_size=8),
        "--per_device_eval_batch_size has no effect without held-out",
    ),
    (
        dict(test_size_ratio=0, eval_steps=None, metric_for_best_model="loss"),
        "--metric_for_best_model has no effect without held-out",
    ),
    (
        dict(test_size_ratio=0, eval_steps=None, num_eval_translations=5),
        "--num_eval_translations has no effect without held-out",
    ),
    (
        dict(test_size_ratio=0, eval_steps=None, early_stopping_patience=5),
        "--early_stopping_patience has no effect without held-out",
    ),
    (
        dict(lr_scheduler_type="constant_with_warmup", lr_scheduler_kwargs='{"lr_end": 1}'),
        "--lr_scheduler_kwargs has no effect without a --lr_scheduler_type that has options",
    ),
    (dict(max_steps=-1), "--max_steps -1 trains by epochs; pass --num_train_epochs N, too"),
    (dict(bf16=True, fp16=True), "--bf16 and --fp16 exclude each other"),
    (dict(use_peft=True, load_in_8bit=True, load_in_4bit=True), "--load_in_8bit and --load_in_4bit exclude each other"),
]
OUT_OF_RANGE = [
    (name, value)
    for name, values in {
        "max_steps": [-2, 10**30, "nan"],
        "per_device_train_batch_size": [0, -1, 10**12],
        "per_device_eval_batch_size": [0, 10**12],
        "gradient_accumulation_steps": [0, 10**12],
        "seed": [-1, 2**32, 10**400],
        "neftune_noise_alpha": ["inf", "nan", -1],
        "learning_rate": [0, "inf", "nan", -1],
        "min_learning_rate": ["inf", "nan"],
        "weight_decay": ["inf", "nan", -1],
        "lora_r": [0, 10**9],
        "lora_alpha": [0, "inf"],
        "lora_dropout": [1, "nan"],
        "max_length": [7, 10**9],
        "num_train_epochs": [0, "inf", "nan"],
        "num_warmup_steps": [-1, 10**400],
        "test_size_ratio": ["inf", "nan", -1],
        "percentile": ["nan", 101],
        "num_workers": [-1, 10**12],
        "logging_steps": [0],
        "eval_steps": [0],
        "save_steps": [0],
        "save_total_limit": [0],
        "dataset_size": [-2, 10**30],
        "eos_token_id": [-1, 10**30],
    }.items()
    for value in values
]


@pytest.mark.parametrize(("changed", "message"), IDLE)
def test_flags_without_effect_end_the_run(changed, message, tiny_lm, tmp_path):
    result = in_process("train.py", *flags(tiny_lm, tmp_path / "run", **changed), "--dry_run")
    assert result.returncode == 2 and message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_numbers_out_of_range(name, value, tiny_lm, tmp_path):
    result = in_process("train.py", *flags(tiny_lm, tmp_path / "run", **{name: value}), "--dry_run")
    assert result.returncode == 2 and f"--{name}" in result.stderr and str(value)[:20] in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (dict(test_size_ratio=0), "--eval_steps has no effect without held-out pairs"),
        (
            dict(lr_scheduler_type="constant"),
            "--num_warmup_steps has no effect without a --lr_scheduler_type that warms up",
        ),
        (dict(use_peft="false", lora_r=8), "--lora_r has no effect without --use_peft"),
        (dict(dataset_size=-1, strategy="soonest", num_eval_translations=0), None),
    ],
)
def test_flags_of_published_commands_are_only_mentioned(changed, line, tiny_lm, tmp_path):
    """scripts/train.sh gives some whatever is added to it; others are switched off by name."""
    result = in_process("train.py", *flags(tiny_lm, tmp_path / "run", **changed), "--dry_run")
    assert result.returncode == 0, result.stderr
    assert sum("has no effect" in said for said in result.stderr.splitlines()) == (line is not None)
    assert line is None or line in result.stderr


def test_the_published_recipe_trains_an_encoder_decoder(tiny_nllb, tmp_path):
    """--targets_only is one of its flags; what only a decoder LM has is refused."""
    result = in_process("train.py", *flags(tiny_nllb, tmp_path / "run"), "--dry_run")
    assert result.returncode == 0 and "--targets_only has no effect without a decoder LM" in result.stderr
    for changed in (dict(packing="none"), dict(template_key="11"), dict(eos_token_id=3), dict(neftune_noise_alpha=5)):
        result = in_process("train.py", *flags(tiny_nllb, tmp_path / "run", **changed), "--dry_run")
        assert result.returncode == 2 and f"--{next(iter(changed))} has no effect without a decoder LM" in result.stderr


def test_the_commands_of_the_documents_have_no_idle_flags():
    """Those of scripts/train.sh, the README and train.py's own help, and of the run files."""
    recipe = (ROOT / "scripts" / "train.sh").read_text()
    recipe = recipe[recipe.index("--model_name_or_path") :].partition('"$@"')[0]
    for variable in ("MODEL", "DATA_DIR", "OUTPUT_DIR"):
        recipe = recipe.replace(f'"${variable}"', variable)
    commands = [recipe]
    for text in (
        train.__doc__,
        *((ROOT / name).read_text() for name in ("README.md", "docs/training.md")),
    ):
        joined = text.replace("\\\n", " ")
        commands += [words for words in re.findall(r"train\.py +(--[^\n]*)", joined) if "..." not in words]
    assert len(commands) >= 5
    commands = [shlex.split(command) for command in commands]
    for path in sorted((ROOT / "configs" / "runs").glob("*.yaml")):
        tree = {name: value for name, value in run_files.read(path).items() if name != rounds.KEY}
        commands += [command.words for command in chain.commands(run_files.RunFile(tree, path), ["train"])]
    for command in commands:
        args = train.build_parser().parse_args(list(command))
        flag_rules.check_flags(args)


def test_every_flag_of_the_rules_exists():
    names = vars(train.build_parser().parse_args(["--model_name_or_path", "m", "--output_dir", "o"]))
    rules = (*flag_rules.RULES, *flag_rules.DECODER_RULES, *flag_rules.RAW_TEXT_RULES)
    mentioned = {flag for rule in rules for flag in (*rule.flags, *([rule.switch] if rule.switch else []))}
    mentioned |= {flag for pair in flag_rules.EXCLUSIVE for flag in pair}
    assert mentioned <= names.keys()
    for rule in flag_rules.RULES:  # with the defaults alone, no rule may fail
        rule.holds(SimpleNamespace(**names))


def test_a_dry_run_finds_what_needs_no_weights(tiny_lm, tmp_path):
    """The folder of another run, a held-out set that cannot be used, a file in the way, a missing configuration."""
    (tmp_path / "file").write_text("")
    for changed, message in (
        (dict(output_dir=tmp_path / "file"), "file is not a directory"),
        (dict(output_dir=tmp_path / "file" / "run"), "file is not a directory"),
        (dict(deepspeed=tmp_path / "none.json"), "none.json does not exist"),
        (dict(deepspeed=tmp_path / "file"), "file: it is empty"),
        (dict(lr_scheduler_type="greedy", test_size_ratio=0), "depends on evaluations, but nothing is held out"),
        (dict(use_peft=True, target_modules=["q_prj"]), "choose from down_proj, gate_proj"),
    ):
        result = in_process("train.py", *flags(tiny_lm, tmp_path / "run", **changed), "--dry_run")
        assert result.returncode == 2 and message in result.stderr, (changed, result.stderr)
    (tmp_path / "other" / "checkpoint-3").mkdir(parents=True)
    result = in_process("train.py", *flags(tiny_lm, tmp_path / "other"), "--dry_run")
    assert result.returncode == 2 and "holds checkpoints but no settings_train.json" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"file", "other"}
