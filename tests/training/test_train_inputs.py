"""What train.py is given: ways to train, own files, mistakes in one line, dry runs, schedules."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.support.tiny_models import without_weights
from tests.support.training_runs import flags, log, timeless


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(packing="concat"), "padding;"),
        (
            dict(packing="concat", max_length=160),
            "3 held-out English to Basque pairs longer than --max_length 160 tokens are skipped",
        ),
        (dict(packing="none"), "steps per epoch;"),
        (dict(targets_only=None, reverse=None), "parameters, attention"),
        (dict(use_peft=True, use_dora=True, target_modules=["q_proj", "down_proj"]), "parameters, attention"),
        (dict(gradient_checkpointing=True, bf16=True), "parameters, attention"),
        (dict(use_flash_attn=True), "using torch's SDPA"),
        (dict(num_train_epochs=1, max_steps=-1), "1.0 epochs"),
        (dict(num_train_epochs=1), "--max_steps 2 overrides --num_train_epochs 1"),
        (dict(lr_scheduler_type="warmup_stable_decay"), "parameters, attention"),
        (dict(lr_scheduler_type="greedy", num_eval_translations=1), "parameters, attention"),
        (dict(test_size_ratio=0), "0 held-out pairs"),
        (dict(lr_scheduler_type="reduce_lr_on_plateau"), "parameters, attention"),
        (dict(template_key="11"), "parameters, attention"),
    ],
)
@pytest.mark.medium
def test_ways_to_train(changed, message, tiny_lm, tmp_path, train_here):
    result = train_here(
        *flags(tiny_lm, tmp_path / "run", **{"max_steps": 2, "save_steps": 2, "eval_steps": 2, **changed})
    )
    assert message in result.stderr
    assert (tmp_path / "run" / "manifest_train.json").exists()


@pytest.mark.medium
def test_own_files_streamed_or_not(tiny_lm, tmp_path, train_here):
    from tests.support.tiny_models import udhr_pairs

    rows = [{"en": b, "eu": a} for a, b in udhr_pairs("Basque")]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    own = dict(dataset_name_or_path=data, input_column_name="en", output_column_name="eu", max_steps=4)
    result = train_here(*flags(tiny_lm, tmp_path / "whole", export_dir=tmp_path / "export", **own))
    assert "exported" in result.stderr and (tmp_path / "export" / "train.parquet").is_file()
    streamed = dict(own, streaming=True, test_size_ratio=None, size_valid_set=5, shuffle_buffer=20, num_of_sequences=16)
    for name in ("streamed", "again"):
        train_here(*flags(tiny_lm, tmp_path / name, **streamed))
    assert timeless(log(tmp_path / "streamed")) == timeless(log(tmp_path / "again"))
    again = flags(tiny_lm, tmp_path / "again", **streamed)
    read = data.read_text(encoding="utf-8")
    data.write_text(read + json.dumps({"en": "A line more.", "eu": "Lerro bat gehiago."}) + "\n", encoding="utf-8")
    assert "(streamed_files was " in train_here(*again, check=2).stderr, (
        "the rows already trained on would be skipped in another order"
    )
    data.write_text(read, encoding="utf-8")
    recorded = tmp_path / "again" / "settings_train.json"
    older = {name: value for name, value in json.loads(recorded.read_text()).items() if name != "streamed_files"}
    recorded.write_text(json.dumps(older))
    assert "already finished" in train_here(*again).stderr, "older versions did not record the files"
    (tmp_path / "again" / "manifest_train.json").unlink()
    (tmp_path / "again" / "checkpoint-4" / "trainer_state.json").unlink()
    too_few = flags(tiny_lm, tmp_path / "few", **{**streamed, "size_valid_set": 1000})
    assert "after the first --size_valid_set 1000 pairs" in train_here(*too_few, check=2).stderr
    text = flags(
        tiny_lm, tmp_path / "text", **{**own, "output_column_name": None, "reverse": None, "targets_only": None}
    )
    train_here(*text)
    learned = flags(tiny_lm, tmp_path / "learned", **{**own, "output_column_name": None, "reverse": None})
    assert "--targets_only has no effect without a target column" in train_here(*learned, check=2).stderr
    assert "trainer_state.json is missing" in train_here(*again).stderr


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(max_steps=0), "--max_steps 0 trains nothing"),
        (dict(bf16=True, fp16=True), "--bf16 and --fp16 exclude each other"),
        (
            dict(load_in_4bit=True),
            "--load_in_4bit has no effect without --use_peft (quantized weights cannot be trained)",
        ),
        (
            dict(metric_for_best_model="chrf"),
            "--metric_for_best_model chrf needs translations; pass --num_eval_translations N",
        ),
        (dict(min_learning_rate=1), "--min_learning_rate 1 is not below --learning_rate 0.002"),
        (dict(min_learning_rate=1e-5, lr_scheduler_type="constant"), "has no minimum learning rate; drop"),
        (dict(lr_scheduler_type="cosine_with_min_lr"), "needs --min_learning_rate"),
        (dict(max_length=8), "all pairs are longer than --max_length 8 tokens; the shortest has"),
        (
            dict(early_stopping_patience=2, test_size_ratio=0),
            "--early_stopping_patience has no effect without held-out pairs",
        ),
        (
            dict(num_eval_translations=2, test_size_ratio=0),
            "--num_eval_translations has no effect without held-out pairs (raise --test_size_ratio",
        ),
        (dict(lr_scheduler_type="greedy", test_size_ratio=0), "greedy depends on evaluations, but nothing is held out"),
        (dict(lr_scheduler_kwargs='{"foo": 1}'), "--lr_scheduler_type cosine with {'foo': 1}"),
        (dict(lr_scheduler_kwargs="[1]"), "'[1]' is not a JSON object"),
        (dict(lr_scheduler_kwargs='{"num_cycles": "x"}'), "--lr_scheduler_type cosine with {'num_cycles': 'x'}"),
        (dict(learning_rate="1e300"), "'1e300' is not a number from 1e-12 to 100"),
        (dict(weight_decay="1e300"), "'1e300' is not a number from 0 to 100"),
        (dict(deepspeed="configs/deepspeed_zero3.json"), "pip install 'deepspeed"),
        (
            dict(deepspeed="configs/deepspeed_zero3.json", torch_compile=True),
            "--torch_compile does not compile layers whose weights DeepSpeed shares out",
        ),
        (
            dict(loss_chunk_size=64, use_liger_kernel=True),
            "--loss_chunk_size has no effect without dropping --use_liger_kernel",
        ),
        (dict(loss_chunk_size=-1), "'-1' is not a whole number of 0 or more"),
        (dict(test_size_ratio=1000), "--test_size_ratio"),
        (dict(max_length=128, test_size_ratio=2), "all held-out pairs are longer than --max_length 128 tokens"),
        (dict(max_length=4096), "--max_length 4096 exceeds the 2048 tokens"),
        (dict(eos_token_id=800), "--eos_token_id 800 is not in the model's vocabulary"),
        (dict(target_languages="Bask"), "did you mean Bashkir, Basque"),
        (dict(dataset_name_or_path="topxgn"), "did you mean topxgen"),
        (dict(dataset_name_or_path="topxgen"), "--data_dir"),
        (dict(template_key="99"), "--template_key '99' does not exist"),
        (dict(use_peft=True, target_modules=["q_prj"]), "choose from down_proj, gate_proj"),
        (dict(lr_scheduler_type="cosinus"), "'cosinus' is not one of"),
        (dict(streaming=True, test_size_ratio=None), "drop --streaming"),
    ],
)
def test_bad_input_is_one_line(changed, message, tiny_lm, tmp_path, train_here):
    error = train_here(*flags(tiny_lm, tmp_path / "run", **changed), check=2).stderr
    assert message in error and "Traceback" not in error
    assert not list((tmp_path / "run").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(dataset_name_or_path="nowhere/x.tsv"), "nowhere/x.tsv: no such file or folder"),
        (
            dict(dataset_name_or_path="tests/prompting/golden_templates.jsonl", input_column_name="eu"),
            "jsonl has no column eu",
        ),
        (dict(dataset_name_or_path="topxgen", data_dir="data"), "data has no Basque_translate_filtered.jsonl"),
        (dict(split="tset"), "udhr has no split 'tset'"),
        (dict(test_size_ratio=1000), "holds out 1,000 of"),
        (dict(template_key="99"), "--template_key '99' does not exist"),
        (dict(min_learning_rate=1), "is not below --learning_rate"),
    ],
)
def test_what_needs_no_torch_is_found_before_it_is_imported(
    changed, message, tiny_lm, tmp_path, train_here, monkeypatch
):
    for name in ("torch", "transformers", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    assert message in train_here(*flags(tiny_lm, tmp_path / "run", **changed), check=2).stderr


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [("ACCELERATE_USE_FSDP", "true", "FSDP"), ("ACCELERATE_MIXED_PRECISION", "fp8", "fp8")],
)
def test_launches_that_train_py_does_not_support(variable, value, named, tiny_lm, tmp_path, train_here, monkeypatch):
    monkeypatch.setenv(variable, value)
    error = train_here(*flags(tiny_lm, tmp_path / "run"), check=2).stderr
    assert f"the config of accelerate launch asks for {named}, which train.py does not support" in error


def test_folders_that_are_not_a_model(tmp_path, tiny_lm, train_here):
    (tmp_path / "empty").mkdir()
    error = train_here(*flags(tmp_path / "empty", tmp_path / "run"), check=2).stderr
    assert "empty' is not a model folder: it has no config.json" in error
    (tmp_path / "empty" / "adapter_config.json").write_text("{}")
    error = train_here(*flags(tmp_path / "empty", tmp_path / "run"), check=2).stderr
    assert "is a LoRA adapter: merge it first (scripts/merge_lora.py)" in error
    error = train_here(*flags(tiny_lm, tiny_lm), check=2).stderr
    assert "is the folder of the base model; pass another one" in error
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my notes")
    error = train_here(*flags(tiny_lm, tmp_path / "mine"), check=2).stderr
    assert "mine holds README.md, which the trained model would overwrite" in error
    (tmp_path / "other" / "checkpoint-3").mkdir(parents=True)
    error = train_here(*flags(tiny_lm, tmp_path / "other"), check=2).stderr
    assert "holds checkpoints but no settings_train.json" in error


def test_a_checkpoint_that_lacks_a_layer_is_not_trained(tiny_lm, tiny_nllb, tmp_path, train_here):
    for base in (tiny_lm, tiny_nllb):
        folder = without_weights(base, tmp_path / f"incomplete-{Path(base).name}", "layers.1.")
        output = tmp_path / f"run-{Path(base).name}"
        error = train_here(*flags(str(folder), output), check=2).stderr
        assert f"the weights of {folder} do not fit" in error and "layers.1." in error and "Traceback" not in error
        assert not list(output.glob("checkpoint-*"))


def test_a_dry_run_shows_texts_and_loads_no_weights(tiny_lm, tmp_path, train_here):
    result = train_here(*flags(tiny_lm, tmp_path / "run", dry_run=True))
    assert "--- (loss on this part only)" in result.stderr and "Translate this from" in result.stderr
    assert not (tmp_path / "run").exists() and "epochs over the same" not in result.stderr
    longer = train_here(*flags(tiny_lm, tmp_path / "run", dry_run=True, max_steps=1000))
    assert re.search(r"\d\d+ epochs over the same \d+ texts: .*; lower --max_steps, or add data", longer.stderr)


def test_all_schedules_of_transformers_are_choices():
    from transformers.trainer_utils import SchedulerType

    from topxgen.training.arguments import SCHEDULERS

    assert set(SCHEDULERS) == {kind.value for kind in SchedulerType}


@pytest.mark.parametrize("name", ["linear", "cosine", "polynomial", "warmup_stable_decay", "cosine_warmup_with_min_lr"])
def test_schedules_end_at_the_minimum_rate(name):
    import argparse

    import torch
    from transformers import get_scheduler

    from topxgen.training.arguments import schedule

    args = argparse.Namespace(
        lr_scheduler_type=name, lr_scheduler_kwargs=None, min_learning_rate=1e-4, learning_rate=1e-3, max_steps=200
    )
    kind, options = schedule(args)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    rates = get_scheduler(kind, optimizer, 10, 200, scheduler_specific_kwargs=options)
    seen = []
    for _ in range(200):
        optimizer.step()
        rates.step()
        seen.append(optimizer.param_groups[0]["lr"])
    assert max(seen) == pytest.approx(1e-3) and seen[-1] == pytest.approx(1e-4, rel=0.02)
