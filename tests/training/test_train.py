"""Complete training runs of small real models: what they learn, what they write, how they resume."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import train
from comptra.verify import verify
from tests.support.runs import ROOT, in_process, script, signalled
from tests.support.training_runs import flags, log, losses, timeless
from topxgen.common import checksums


@pytest.fixture(scope="module")
def finished(tiny_lm, tmp_path_factory):
    """A run with LoRA, dropout and noise, evaluated with translations: its directory and its output."""
    output = tmp_path_factory.mktemp("runs") / "undisturbed"
    result = in_process("train.py", *noisy(tiny_lm, output))
    assert result.returncode == 0, result.stderr
    return output, result


def noisy(model, output, **changed) -> list[str]:
    options = dict(use_peft=True, neftune_noise_alpha=5, lora_dropout=0.2, max_steps=14)
    options |= dict(num_eval_translations=1, per_device_eval_batch_size=2)
    return flags(model, output, **{**options, **changed})


def test_held_out_losses_are_the_means_over_the_tokens_of_the_targets(finished, tiny_lm):
    """Of each direction and of all; before training the adapter changes nothing."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from topxgen.training.tokenization import CausalTokenizer
    from topxgen.training.training_data import build_sets

    args = train.build_parser().parse_args(noisy(tiny_lm, "o"))
    model = AutoModelForCausalLM.from_pretrained(tiny_lm)
    tokenizer = CausalTokenizer(AutoTokenizer.from_pretrained(tiny_lm), args.template_key, model.config.vocab_size)
    sums: dict[str, list[float]] = {}
    for pair in build_sets(args)[1]:
        texts = tokenizer.encode([pair])
        ids, start = torch.as_tensor(texts[0].astype("int64")), int(texts.prompts[0])
        if len(ids) > args.max_length:
            continue
        with torch.no_grad():
            log_probabilities = model(ids[None]).logits[0].log_softmax(-1)
        own = sums.setdefault(pair.direction, [0.0, 0])
        own[0] -= sum(float(log_probabilities[i - 1, ids[i]]) for i in range(start, len(ids)))
        own[1] += len(ids) - start
    expected = {f"eval_loss_{name}": loss / tokens for name, (loss, tokens) in sums.items()}
    expected["eval_loss"] = sum(loss for loss, _ in sums.values()) / sum(tokens for _, tokens in sums.values())
    first = log(finished[0])[0]
    assert {key: first[key] for key in first if key.startswith("eval_loss")} == pytest.approx(expected, rel=1e-4)


def test_edited_claims_of_a_run_are_found(finished, tmp_path):
    """With checksums to match."""
    output = Path(shutil.copytree(finished[0], tmp_path / "run"))
    best = json.loads((output / "manifest_train.json").read_text())["best_checkpoint"]
    for name, old, new, said in (
        ("manifest_train.json", '"best_metric": ', '"best_metric": 1', "best_metric by train_log.jsonl: claimed 1"),
        ("manifest_train.json", '"steps": 14', '"steps": 15', "steps: claimed 15, is 14"),
        ("manifest_train.json", '"train_pairs": 46', '"train_pairs": 47', "data.train_pairs: claimed 47, is 46"),
        (
            "train_log.jsonl",
            '"learning_rate": ',
            '"learning_rate": 1',
            "train_log.jsonl: line 2 by checkpoint-14.learning_rate: claimed 1",
        ),
        ("README.md", "\n| loss | ", "\n| loss | 1", "README.md: the table of the held-out set"),
        ("tokenizer.json", "{", "{ ", f"tokenizer.json: the file of {best}"),
    ):
        path = output / name
        before, sums = path.read_text(encoding="utf-8"), (output / checksums.NAME).read_bytes()
        assert old in before
        path.write_text(before.replace(old, new, 1), encoding="utf-8")
        checksums.drop(path)
        checksums.claim_file(path)
        found = list(map(str, verify(output).problems))
        assert found and any(said in line for line in found), found
        path.write_text(before, encoding="utf-8")
        (output / checksums.NAME).write_bytes(sums)
    assert not verify(output).problems


def test_what_a_run_leaves(finished, tiny_lm):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    output, result = finished
    steps = [entry["step"] for entry in log(output) if "loss" in entry]
    assert steps == list(range(1, 15))
    assert [entry["step"] for entry in log(output) if "eval_loss" in entry] == [0, 4, 8, 12, 14], "the start, too"
    last = [entry for entry in log(output) if "eval_loss" in entry][-1]
    assert {"eval_loss_English to Basque", "eval_chrf_Basque to English", "eval_bleu", "eval_chrf"} <= last.keys()
    manifest = json.loads((output / "manifest_train.json").read_text())
    assert manifest["complete"] and manifest["steps"] == 14 and manifest["data"]["train_pairs"] == 46
    by_chrf = {entry["step"]: entry["eval_chrf"] for entry in log(output) if "eval_chrf" in entry and entry["step"]}
    assert manifest["best_checkpoint"] == f"checkpoint-{max(by_chrf, key=by_chrf.get)}"
    best = output / manifest["best_checkpoint"]
    names = {path.name for path in best.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md"} <= names
    assert {"data_manifest.json", "checkpoint_files.json", "optimizer.pt", "rng_state.pth"} <= names
    assert "training_args.bin" not in names, "no pickle is saved with a model"
    for name in ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md"):
        assert (output / name).read_bytes() == (best / name).read_bytes(), (
            "the best one is copied to the directory itself"
        )
    assert not (output / "optimizer.pt").exists()
    card = (output / "README.md").read_text()
    assert (
        card.startswith("---\n")
        and "\nmodel-index:\n" in card
        and "\nlibrary_name: peft\n" in card
        and "\n- eu\n" in card
        and "--neftune_noise_alpha 5" in card
    )
    assert "| loss |" in card and "Translate this from English to Basque:" in card and '"sha256"' in card
    assert (output / "loss_curves.png").read_bytes().startswith(b"\x89PNG")
    assert "23 read" not in result.stderr and "29 read, 11 unaligned, 29 pairs" in result.stderr
    assert "4 rows per step (2 per device x 2 accumulated x 1 process)" in result.stderr
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_lm), output)
    assert any("lora_B" in name and p.abs().sum() > 0 for name, p in model.named_parameters())
    assert AutoTokenizer.from_pretrained(output).eos_token == "<eos>"


def test_the_hours_of_an_estimate_are_those_of_the_last_run(finished, tiny_lm, train_here):
    output, _ = finished
    words = noisy(tiny_lm, output)
    seconds = 14 / json.loads((output / "rates.json").read_text())["train"]
    said = re.search(
        r"14 steps take (\S+) hours at the speed of the last run in", train_here(*words, "--dry_run").stderr
    )
    assert float(said[1]) == pytest.approx(seconds / 3600, rel=0.06)
    (estimate,) = train.estimates(train.build_parser().parse_args(words))
    assert estimate.hours == pytest.approx([seconds / 3600] * 2)


def test_a_finished_run_is_not_changed_and_other_settings_are_rejected(finished, tiny_lm, train_here):
    output, _ = finished
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file() and path.name != ".lock"}
    assert "already finished at step 14" in train_here(*noisy(tiny_lm, output)).stderr
    error = train_here(*noisy(tiny_lm, output, learning_rate=1e-3), check=2).stderr
    assert "learning_rate was 0.002, now 0.001" in error
    error = train_here(*noisy(tiny_lm, output, target_languages="Urdu"), check=2).stderr
    assert "target_languages was ['Basque'], now ['Urdu']" in error and "Traceback" not in error
    after = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file() and path.name != ".lock"}
    assert before == after


@pytest.mark.medium
def test_killed_runs_give_the_same_losses(finished, tiny_lm, tmp_path, train_here):
    undisturbed, _ = finished
    output = tmp_path / "killed"
    script("train.py", *noisy(tiny_lm, output), killed_at=(output / "train_log.jsonl", 8))
    assert (output / "checkpoint-4").is_dir() and not (output / "manifest_train.json").exists()
    # In the second epoch, which begins after 9 steps, and while a checkpoint is written.
    script("train.py", *noisy(tiny_lm, output), killed_at=(output / "checkpoint-14" / "optimizer.pt", 0))
    result = train_here(*noisy(tiny_lm, output))
    assert f"resuming from {output / 'checkpoint-1'}" in result.stderr
    assert timeless(log(output)) == timeless(log(undisturbed))
    weights = "checkpoint-14/adapter_model.safetensors"
    assert (output / weights).read_bytes() == (undisturbed / weights).read_bytes()
    best = [
        json.loads((folder / "manifest_train.json").read_text())["best_checkpoint"] for folder in (output, undisturbed)
    ]
    assert best[0] == best[1]


@pytest.mark.medium
def test_incomplete_checkpoints_are_skipped_with_a_warning(finished, tiny_lm, tmp_path, train_here):
    undisturbed, _ = finished
    output = tmp_path / "damaged"
    shutil.copytree(undisturbed, output)
    (output / "manifest_train.json").unlink()
    state = output / "checkpoint-14" / "optimizer.pt"
    state.write_bytes(bytes(len(state.read_bytes())))  # as after a power cut
    weights = output / "checkpoint-12" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    others = [
        path for path in output.glob("checkpoint-*") if path not in (state.parent, weights.parent)
    ]  # the best one
    for path in others:
        (path / "checkpoint_files.json").unlink()
    result = train_here(*noisy(tiny_lm, output))
    assert "checkpoint-14: optimizer.pt does not match its checksum" in result.stderr
    assert "checkpoint-12: adapter_model.safetensors has" in result.stderr
    assert others and all(f"{path.name}: it is incomplete" in result.stderr for path in others)
    assert "resuming from" not in result.stderr
    assert timeless(log(output)) == timeless(log(undisturbed)), "from the start, then"
    assert (output / "unusable-checkpoint-14").is_dir() and (output / "checkpoint-14").is_dir()


def test_a_run_killed_before_its_best_model_was_copied_only_copies_it(finished, tiny_lm, tmp_path, train_here):
    undisturbed, _ = finished
    output = tmp_path / "unpublished"
    shutil.copytree(undisturbed, output)
    (output / "manifest_train.json").unlink()
    (output / "adapter_model.safetensors").unlink()
    train_here(*noisy(tiny_lm, output))
    manifests = [json.loads((folder / "manifest_train.json").read_text()) for folder in (output, undisturbed)]
    assert manifests[0]["steps"] == manifests[1]["steps"] == 14
    assert manifests[0]["best_checkpoint"] == manifests[1]["best_checkpoint"]
    assert (output / "adapter_model.safetensors").is_file() and not (output / "checkpoint-15").exists()


@pytest.mark.medium
def test_a_signal_saves_and_the_run_resumes(finished, tiny_lm, tmp_path, train_here):
    undisturbed, _ = finished
    output = tmp_path / "signalled"
    stop = signalled(output / "train_log.jsonl", 4, "SIGTERM")
    err = script(*stop, "train.py", *noisy(tiny_lm, output), check=143).stderr
    saved = max(int(path.name.rpartition("-")[2]) for path in output.glob("checkpoint-*"))
    assert f"stopped by a signal after saving step {saved}" in err
    train_here(*noisy(tiny_lm, output))
    assert losses(output) == losses(undisturbed)


def test_a_signal_does_not_change_which_checkpoint_is_the_best(tiny_lm, tmp_path, train_here, monkeypatch):
    """Without it, step 1 would have been evaluated but not saved."""
    rising = dict(learning_rate=30, num_warmup_steps=100, max_steps=2, eval_steps=1, save_steps=2)
    words = flags(tiny_lm, tmp_path / "run", test_size_ratio=2, **rising)
    with monkeypatch.context() as patch:
        patch.setattr("topxgen.common.signals.stop_requested", lambda: True)
        assert "stopped by a signal after saving step 1" in train_here(*words, check=143).stderr
    train_here(*words)
    evaluated = [entry["eval_loss"] for entry in log(tmp_path / "run") if "eval_loss" in entry]
    manifest = json.loads((tmp_path / "run" / "manifest_train.json").read_text())
    assert evaluated[1] < evaluated[2] == manifest["best_metric"] and manifest["best_checkpoint"] == "checkpoint-2"


def test_full_training_learns_and_keeps_the_limit(tiny_lm, tmp_path, train_here):
    from transformers import AutoModelForCausalLM

    output = tmp_path / "full"
    result = train_here(*flags(tiny_lm, output, save_steps=2, save_total_limit=2, min_learning_rate=1e-4))
    assert losses(output)[-1] < losses(output)[0] - 1
    rates = [entry["learning_rate"] for entry in log(output) if "loss" in entry]
    assert max(rates) == pytest.approx(2e-3) and rates[-1] < 4e-4
    kept = sorted(path.name for path in output.glob("checkpoint-*"))
    assert "checkpoint-8" in kept and len(kept) == 2
    model = AutoModelForCausalLM.from_pretrained(output)
    assert model.num_parameters() == AutoModelForCausalLM.from_pretrained(tiny_lm).num_parameters()
    assert "parameters, attention" in result.stderr


@pytest.mark.medium
def test_accumulation_and_batches_do_not_change_the_loss(tiny_lm, tmp_path, train_here):
    """The loss of a step is the mean over its tokens, however its rows are cut into batches."""
    results = []
    for name, batch, accumulated in (("a", 4, 1), ("b", 1, 4), ("c", 2, 2)):
        words = flags(
            tiny_lm,
            tmp_path / name,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulated,
            max_steps=4,
        )
        train_here(*words)
        results.append(losses(tmp_path / name))
    for other in results[1:]:
        assert other == pytest.approx(results[0], rel=1e-4)


@pytest.mark.medium
@pytest.mark.parametrize("way", ["full", "adapter", "checkpointing", "encoder-decoder"])
def test_a_loss_in_chunks_trains_the_same(way, request, tmp_path, train_here):
    """The whole curve; also when a run that was begun without chunks, as by an earlier version, goes on with them."""
    model = request.getfixturevalue("tiny_nllb" if way == "encoder-decoder" else "tiny_lm")
    options = {
        "full": {},
        "adapter": dict(use_peft=True, lora_dropout=0.1),
        "checkpointing": dict(gradient_checkpointing=True, targets_only=None),
        "encoder-decoder": dict(targets_only=None),
    }[way]
    for name, size in (("whole", 0), ("chunked", 13)):
        train_here(*flags(model, tmp_path / name, loss_chunk_size=size, **options))
    whole, chunked = log(tmp_path / "whole"), log(tmp_path / "chunked")
    assert len(whole) == len(chunked)
    for a, b in zip(whole, chunked, strict=True):
        for key in ("loss", "eval_loss", "grad_norm"):
            if key in a:
                assert b[key] == pytest.approx(a[key], rel=2e-4 if key == "grad_norm" else 2e-5), (key, a["step"])
    (tmp_path / "whole" / "manifest_train.json").unlink()
    shutil.rmtree(tmp_path / "whole" / "checkpoint-8")
    result = train_here(*flags(model, tmp_path / "whole", loss_chunk_size=13, **options))
    assert "resuming from" in result.stderr
    assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / "chunked"), rel=2e-5)


@pytest.mark.slow
def test_compiled_layers_train_the_same_and_resume_without(tiny_lm, tmp_path, train_here):
    options = dict(max_steps=6, save_steps=3, eval_steps=3, num_eval_translations=1)
    train_here(*flags(tiny_lm, tmp_path / "plain", **options))
    train_here(*flags(tiny_lm, tmp_path / "compiled", torch_compile=True, **options))
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    scores = [
        [entry["eval_chrf"] for entry in log(tmp_path / name) if "eval_chrf" in entry] for name in ("plain", "compiled")
    ]
    assert scores[0][0] == scores[1][0]
    (tmp_path / "compiled" / "manifest_train.json").unlink()
    shutil.rmtree(tmp_path / "compiled" / "checkpoint-6")
    train_here(*flags(tiny_lm, tmp_path / "compiled", **options))
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)


@pytest.mark.medium
def test_two_processes_equal_one_with_doubled_accumulation(tiny_lm, tmp_path, train_here):
    """Also with a loss in chunks, and when they are killed in the second epoch, which begins after five steps."""
    common = dict(num_eval_translations=3, max_steps=8, save_steps=3, eval_steps=3)
    train_here(*flags(tiny_lm, tmp_path / "one", gradient_accumulation_steps=4, **common))
    accelerate = Path(sys.executable).with_name("accelerate")
    command = [accelerate, "launch", "--config_file", "configs/two_cpu_processes.yaml", "train.py"]
    words = flags(tiny_lm, tmp_path / "two", gradient_accumulation_steps=2, loss_chunk_size=17, **common)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    for part in ("whole", "resumed"):
        result = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stderr
        assert "x 2 processes" in result.stderr and result.stderr.count("parameters, attention") == 1
        one, two = (timeless(log(tmp_path / name)) for name in ("one", "two"))
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert a.keys() == b.keys()
            for key in ("loss", "grad_norm", "eval_loss", "learning_rate", "train_loss"):
                if key in a:
                    assert a[key] == pytest.approx(b[key], rel=1e-3), (part, key, a["step"])
        (tmp_path / "two" / "manifest_train.json").unlink()
        shutil.rmtree(tmp_path / "two" / "checkpoint-8")


@pytest.mark.medium
def test_an_encoder_decoder_learns_both_directions(tiny_nllb, tmp_path, train_here):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    output = tmp_path / "nllb"
    result = train_here(
        *flags(tiny_nllb, output, targets_only=None, max_steps=40, eval_steps=20, num_eval_translations=1)
    )
    assert "encoder-decoder" in result.stderr
    first, last = (entry for entry in (log(output)[0], [e for e in log(output) if "eval_loss" in e][-1]))
    assert last["eval_loss_English to Basque"] < first["eval_loss_English to Basque"] - 1, "a direction it did not know"
    AutoModelForSeq2SeqLM.from_pretrained(output)
    assert "eng_Latn" in AutoTokenizer.from_pretrained(output).get_vocab()
    one, four = (
        train_here(*flags(tiny_nllb, tmp_path / name, targets_only=None, max_steps=1, per_device_eval_batch_size=size))
        and log(tmp_path / name)[0]["eval_loss"]
        for name, size in (("one", 1), ("four", 4))
    )
    assert one == pytest.approx(four, rel=1e-5), "padding has no part in the loss"


@pytest.mark.parametrize("family", ["m2m100", "madlad", "marian"])
@pytest.mark.medium
def test_relatives_of_nllb_train(family, tmp_path, train_here):
    from tests.support import tiny_models

    texts = tiny_models.udhr_texts("Basque") + tiny_models.udhr_texts("English")
    model = getattr(tiny_models, f"build_{family}")(tmp_path / "model", texts)
    both = {
        "m2m100": dict(target_languages="Swahili"),  # it has no Basque
        "marian": dict(reverse=None, src="Basque", target_languages="English"),
    }.get(family, {})
    words = flags(
        model, tmp_path / "run", targets_only=None, max_steps=4, save_steps=4, num_eval_translations=1, **both
    )
    train_here(*words)
    first, last = (entry["eval_loss"] for entry in log(tmp_path / "run") if "eval_loss" in entry)
    assert last < first


def test_a_regression_is_reported_and_patience_ends_the_run(tiny_lm, tmp_path, train_here):
    output = tmp_path / "worse"
    words = flags(
        tiny_lm, output, learning_rate=0.3, eval_steps=1, save_steps=1, early_stopping_patience=2, max_steps=30
    )
    result = train_here(*words)
    manifest = json.loads((output / "manifest_train.json").read_text())
    assert manifest["stopped_early"] and manifest["steps"] < 30
    assert "worse than" in result.stderr and "before training" in result.stderr


def test_a_loss_that_is_not_finite_ends_the_run(tiny_lm, tmp_path, train_here):
    result = train_here(*flags(tiny_lm, tmp_path / "nan", learning_rate=100, num_warmup_steps=0, max_steps=6), check=2)
    assert "training has diverged. Lower --learning_rate" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.medium
def test_weights_that_are_not_finite_are_not_translated_with(tiny_lm, tmp_path, train_here):
    options = dict(learning_rate=100, num_warmup_steps=0, max_steps=6, logging_steps=6, eval_steps=1, save_steps=6)
    result = train_here(*flags(tiny_lm, tmp_path / "nan", num_eval_translations=1, **options), check=2)
    assert "the eval_loss at step" in result.stderr and "training has diverged" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [True, False])
def test_checkpoints_of_gemma_load_in_vllm_and_transformers(adapter, gemma, tmp_path):
    from topxgen import inference

    output = tmp_path / "run"
    options = dict(use_peft=True, lora_r=8) if adapter else {}
    script("train.py", *flags(gemma, output, bf16=True, max_steps=2, per_device_train_batch_size=1, **options))
    model = (
        dict(model_name_or_path=gemma, adapter_name_or_path=str(output))
        if adapter
        else dict(model_name_or_path=str(output))
    )
    prompts = ["Translate this from English to Basque:\nEnglish: Everyone has the right to life.\nBasque:"]
    answers = {}
    for api in ("hf", "vllm"):
        sampler = inference.load(api, inference.ModelSettings(**model, dtype="float32", max_model_len=512, lora_rank=8))
        requests = inference.from_list(inference.Request(str(i), prompt, 0) for i, prompt in enumerate(prompts))
        settings = inference.SamplingSettings(max_new_tokens=24, temperature=0)
        answers[api] = [answer.texts for answer in sampler.generate(requests, settings)]
        sampler.close()
    assert answers["hf"] == answers["vllm"]
    assert answers["hf"][0][0].strip()


def test_a_generation_config_that_contradicts_itself_does_not_stop_the_saving(tiny_lm, tmp_path):
    """transformers loads it, but saves none: a run would end at its first checkpoint."""
    folder = shutil.copytree(tiny_lm, tmp_path / "lm")
    before = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**before, "do_sample": False, "temperature": 0.6}))
    result = in_process("train.py", *flags(folder, tmp_path / "run", max_steps=2, num_warmup_steps=0))
    assert result.returncode == 0, result.stderr
    [saved] = (tmp_path / "run").glob("checkpoint-2/generation_config.json")
    after = json.loads(saved.read_text())
    assert "temperature" not in after and after["eos_token_id"] == before["eos_token_id"]


@pytest.mark.medium
def test_adapters_learn_the_same_without_casts_of_their_inputs(tiny_lm, tmp_path, train_here, monkeypatch):
    """In half precision, inputs of adapters are not cast to float32 and back: the weights are the same to the last bit."""
    from contextlib import contextmanager

    from safetensors.numpy import load_file

    options = dict(use_peft=True, bf16=True, max_steps=4, save_steps=4, eval_steps=4, lora_dropout=0)
    calls, weights = [], []
    for name in ("as they are", "cast"):
        if name == "cast":
            monkeypatch.setattr(
                "peft.helpers.disable_input_dtype_casting", contextmanager(lambda model: (yield calls.append(model)))
            )
        train_here(*flags(tiny_lm, tmp_path / name, **options))
        weights.append(load_file(tmp_path / name / "checkpoint-4" / "adapter_model.safetensors"))
    assert len(calls) == 4 * 2  # steps x batches
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[1])
