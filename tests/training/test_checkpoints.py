"""Checkpoints that are damaged, or made to run code: training resumes from the one before, or says why it cannot."""

import json
import os
import pickle
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.runs import in_process
from tests.support.training_runs import flags, log, losses, timeless
from topxgen.common.errors import UsageError
from topxgen.inference import adapters
from topxgen.training import checkpoints

STATE_FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt", "model.safetensors", "trainer_state.json")


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def scrambled(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


def zeroed_inside(path: Path) -> None:
    """As after a power cut: the size and both ends are right."""
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[: middle - 100] + bytes(200) + data[middle + 100 :])


def torch_bomb(path: Path) -> None:
    torch.save({"state": Bomb(path.parent.parent / "ran")}, path)


def plain_bomb(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(path.parent.parent / "ran")))


def other_values(path: Path) -> None:
    torch.save({"state": [1, None], "param_groups": "x"}, path)


DAMAGES = (truncated, emptied, scrambled, zeroed_inside, torch_bomb, plain_bomb)


@pytest.fixture(scope="module")
def trained(tiny_lm, tmp_path_factory):
    """A short run without adapters, and its folder."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    result = in_process("train.py", *words(tiny_lm, output))
    assert result.returncode == 0, result.stderr
    return output


def words(model, output) -> list[str]:
    return flags(model, output, max_steps=4, save_steps=2, eval_steps=2, logging_steps=3, test_size_ratio=3)


def unfinished(trained: Path, output: Path) -> Path:
    """A copy of the run as it was when the machine went down after the last checkpoint."""
    shutil.copytree(trained, output)
    for path in output.iterdir():
        if path.is_file() and path.name not in ("settings_train.json", "train_log.jsonl"):
            path.unlink()
    return output


def test_killed_after_the_last_checkpoint_all_files_are_made_again(trained, tiny_lm, tmp_path):
    output = unfinished(trained, tmp_path / "run")
    assert in_process("train.py", *words(tiny_lm, output)).returncode == 0
    names = [{path.name for path in folder.iterdir()} - {"rates.json"} for folder in (trained, output)]
    assert names[0] == names[1]
    assert (output / "loss_curves.png").read_bytes() == (trained / "loss_curves.png").read_bytes()


@pytest.mark.parametrize("is_listed", [False, True], ids=["changed", "changed with its list"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", STATE_FILES)
def test_damage_is_found_and_code_never_runs(trained, tmp_path, name, damage, is_listed):
    if is_listed and damage is zeroed_inside:
        pytest.skip("then it is what the list says")
    output = unfinished(trained, tmp_path / "run")
    if name == "scaler.pt":  # of a run with --fp16 on a GPU
        torch.save({"scale": 65536.0, "growth_factor": 2.0}, output / "checkpoint-4" / name)
        checkpoints.mark_complete(output / "checkpoint-4", processes=1, sharding="none")
        assert checkpoints.find_unloadable(output / "checkpoint-4") is None
    damage(output / "checkpoint-4" / name)
    if is_listed:
        checkpoints.mark_complete(output / "checkpoint-4", processes=1, sharding="none")
    assert checkpoints.newest_complete(output) == output / "checkpoint-2"
    assert (output / "unusable-checkpoint-4").is_dir() and not (output / "ran").exists()


@pytest.mark.parametrize(
    "content", [b"{}", b"[]", b"null", b'{"files": {}}', b'{"files": {"a": 1}}', b"[" * 100_000, b"\xff"]
)
def test_a_list_that_is_none(trained, tmp_path, content):
    output = unfinished(trained, tmp_path / "run")
    (output / "checkpoint-4" / "checkpoint_files.json").write_bytes(content)
    assert checkpoints.newest_complete(output) == output / "checkpoint-2"


@pytest.mark.parametrize(
    "changed",
    [
        {"global_step": "4"},
        {"max_steps": None},
        {"log_history": {"step": 1}},
        {"log_history": [{"loss": 1.0}]},
        {"log_history": [3]},
        {"best_metric": "0.5"},
        {"stateful_callbacks": []},
        {"stateful_callbacks": {"PairTrainer": {"unlogged": [], "logged": 1.0, "last_logged_step": 3}}},
        {"unknown": 1},
    ],
)
def test_a_state_of_other_types(trained, tmp_path, changed):
    output = unfinished(trained, tmp_path / "run")
    path = output / "checkpoint-4" / "trainer_state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    checkpoints.mark_complete(path.parent, processes=1, sharding="none")
    assert checkpoints.newest_complete(output) == output / "checkpoint-2"


def test_checkpoints_of_earlier_versions_are_accepted(trained, tmp_path):
    output = unfinished(trained, tmp_path / "run")
    path = output / "checkpoint-4" / "checkpoint_files.json"
    saved = json.loads(path.read_text())
    saved["files"] = {name: checkpoints._checksum(path.parent / name, ends_only=True) for name in saved["files"]}
    path.write_text(json.dumps(saved))
    assert checkpoints.newest_complete(output) == path.parent


def test_objects_of_deepspeed_are_accepted_and_no_others(tmp_path):
    """Its files name classes, which the check must let pass without DeepSpeed being installed."""
    import sys
    import types

    module = types.ModuleType("deepspeed.runtime.zero.config")
    stage = type("ZeroStageEnum", (int,), {"__module__": module.__name__})
    module.ZeroStageEnum = stage
    parts = ["deepspeed", "deepspeed.runtime", "deepspeed.runtime.zero"]
    sys.modules |= {name: types.ModuleType(name) for name in parts} | {module.__name__: module}
    try:
        torch.save({"zero_stage": stage(3), "states": torch.zeros(3)}, tmp_path / "optim_states.pt")
        stage.__qualname__ = stage.__name__ = "Other"
        module.Other = stage
        torch.save({"zero_stage": stage(3)}, tmp_path / "other.pt")
    finally:
        for name in (*parts, module.__name__):
            del sys.modules[name]
    assert (problem := checkpoints.find_unloadable(tmp_path)).startswith("other.pt cannot be loaded")
    (tmp_path / "other.pt").unlink()
    assert checkpoints.find_unloadable(tmp_path) is None, problem


def zero_checkpoint(folder: Path, step: int, stage: int = 3, processes: int = 2) -> Path:
    """The files that train.py with DeepSpeed 0.19 leaves, as tests/training/test_zero3.py sees them, with small tensors."""
    states = folder / f"global_step{step}"
    states.mkdir(parents=True)
    for rank in range(processes):
        torch.save(
            {"optimizer_state_dict": torch.ones(3)}, states / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        )
        name = f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt" if stage == 3 else "mp_rank_00_model_states.pt"
        torch.save({"module": torch.ones(3)}, states / name)
    (folder / "latest").write_text(states.name)
    log = {"global_step": step, "max_steps": 9, "log_history": []}
    (folder / "trainer_state.json").write_text(json.dumps(log))
    checkpoints.mark_complete(folder, processes=processes, sharding=f"ZeRO-{stage}")
    return folder


OPTIMIZER = "global_step4/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
MODEL = "global_step4/zero_pp_rank_1_mp_rank_00_model_states.pt"
LACKS = "checkpoint_files.json lists no "
ZERO_DAMAGES = [
    # the file, what happens to it, whether the list of files is made after that, the message
    *((name, Path.unlink, False, f"{name} is missing") for name in (OPTIMIZER, MODEL, "latest")),
    (OPTIMIZER, Path.unlink, True, f"{LACKS}global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt"),
    (MODEL, Path.unlink, True, f"{LACKS}{MODEL}"),
    ("latest", Path.unlink, True, f"{LACKS}latest"),
    ("latest", emptied, True, f"{LACKS}/zero_pp_rank_0_mp_rank_00_optim_states.pt"),
    ("latest", scrambled, True, LACKS),
    ("latest", lambda path: path.write_text("../checkpoint-2/global_step2"), True, LACKS),
    *((name, truncated, False, "bytes instead of") for name in (OPTIMIZER, MODEL)),
    *((name, damage, True, f"{name} cannot be loaded") for name in (OPTIMIZER, MODEL) for damage in DAMAGES if damage is not zeroed_inside),
]  # fmt: skip


@pytest.mark.parametrize("name, damage, listed, says", ZERO_DAMAGES)
def test_damaged_checkpoints_of_zero(name, damage, listed, says, tmp_path, caplog):
    earlier = zero_checkpoint(tmp_path / "checkpoint-2", 2)
    newest = zero_checkpoint(tmp_path / "checkpoint-4", 4)
    assert checkpoints.newest_complete(tmp_path) == newest
    damage(newest / name)
    if listed:
        checkpoints.mark_complete(newest, processes=2, sharding="ZeRO-3")
    assert checkpoints.newest_complete(tmp_path) == earlier
    assert f"skipping {newest}: " in caplog.text and says in caplog.text
    assert not list(tmp_path.rglob("ran")) and (tmp_path / "unusable-checkpoint-4").is_dir()


@pytest.mark.parametrize("stage, processes", [(1, 1), (2, 2), (3, 3)])
def test_whole_checkpoints_of_zero(stage, processes, tmp_path):
    folder = zero_checkpoint(tmp_path / "checkpoint-2", 2, stage, processes)
    assert checkpoints.newest_complete(tmp_path) == folder


def test_a_damaged_run_resumes_from_the_checkpoint_before(trained, tiny_lm, tmp_path):
    output = unfinished(trained, tmp_path / "run")
    zeroed_inside(output / "checkpoint-4" / "optimizer.pt")
    result = in_process("train.py", *words(tiny_lm, output))
    assert result.returncode == 0 and "Traceback" not in result.stderr
    assert (
        "WARNING: skipping" in result.stderr
        and "checkpoint-4: optimizer.pt does not match its checksum" in result.stderr
    )
    assert f"resuming from {output / 'checkpoint-2'}" in result.stderr
    assert timeless(log(output)) == timeless(log(trained)), "the loss of step 3 is the mean of all three steps"


def test_without_a_usable_checkpoint_training_starts_again_and_says_so(trained, tiny_lm, tmp_path):
    output = unfinished(trained, tmp_path / "run")
    torch_bomb(output / "checkpoint-4" / "scheduler.pt")
    emptied(output / "checkpoint-2" / "trainer_state.json")
    result = in_process("train.py", *words(tiny_lm, output))
    assert result.returncode == 0 and "Traceback" not in result.stderr
    assert f"{output} has no usable checkpoint: training starts from the beginning" in result.stderr
    assert timeless(log(output)) == timeless(log(trained)) and not (output / "ran").exists()


def test_a_checkpoint_under_the_name_of_another_step(trained, tmp_path, caplog):
    """Whole in itself: the weights of step 2 would be exported as those of step 4."""
    output = unfinished(trained, tmp_path / "run")
    shutil.rmtree(output / "checkpoint-4")
    (output / "checkpoint-2").rename(output / "checkpoint-4")
    with pytest.raises(UsageError, match="it is of step 2"):
        checkpoints.copy_best_model(output / "checkpoint-4", output)
    assert not (output / "model.safetensors").exists()
    assert checkpoints.newest_complete(output) is None
    assert "checkpoint-4: trainer_state.json cannot be loaded (it is of step 2)" in caplog.text


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt", "model.safetensors"])
def test_files_of_another_run_end_in_one_line(trained, tiny_lm, tmp_path, name):
    """Sound in themselves and listed, but not of this model."""
    from safetensors.torch import load_file, save_file

    output = unfinished(trained, tmp_path / "run")
    path = (output / "checkpoint-4").rename(output / "checkpoint-3") / name
    if path.suffix == ".safetensors":
        save_file(dict(list(load_file(path).items())[:3]), path, metadata={"format": "pt"})
    else:
        other_values(path)
    shutil.rmtree(output / "checkpoint-2")
    state = json.loads((path.parent / "trainer_state.json").read_text()) | {"max_steps": 4, "global_step": 3}
    (path.parent / "trainer_state.json").write_text(json.dumps(state))
    checkpoints.mark_complete(path.parent, processes=1, sharding="none")
    result = in_process("train.py", *words(tiny_lm, output))
    assert result.returncode == 2 and "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert f"train.py: error: {path.parent} does not fit this run" in last and "remove it and re-run" in last


@pytest.mark.medium
def test_killed_at_every_checkpoint_the_log_is_that_of_a_whole_run(trained, tiny_lm, tmp_path):
    """Also where logging, saving and the end of an epoch do not coincide; train_loss is of all steps."""
    options = dict(max_steps=13, save_steps=2, eval_steps=4, logging_steps=5, save_total_limit=20)
    whole = tmp_path / "whole"
    in_process("train.py", *flags(tiny_lm, whole, **options))
    assert losses(whole) and len(losses(whole)) == 2
    summary = log(whole)[-1]
    every = tmp_path / "every"
    in_process("train.py", *flags(tiny_lm, every, **options | {"logging_steps": 1}))
    assert summary["train_loss"] == pytest.approx(sum(losses(every)) / 13, rel=1e-5)
    for step in (2, 6, 10, 12):
        output = tmp_path / f"from-{step}"
        shutil.copytree(whole, output)
        (output / "manifest_train.json").unlink()
        for folder in checkpoints.all_checkpoints(output):
            if checkpoints.step_of(folder) > step:
                shutil.rmtree(folder)
        result = in_process("train.py", *flags(tiny_lm, output, **options))
        assert f"resuming from {output / f'checkpoint-{step}'}" in result.stderr
        assert timeless(log(output)) == timeless(log(whole))


@pytest.mark.medium
def test_an_adapter_of_which_peft_would_skip_tensors_is_not_resumed_from(tiny_lm, tmp_path):
    output = tmp_path / "run"
    lora = flags(tiny_lm, output, use_peft=True, lora_r=4, max_steps=4, save_steps=2, eval_steps=2, test_size_ratio=3)
    assert in_process("train.py", *lora).returncode == 0
    (output / "manifest_train.json").unlink()
    shutil.rmtree(output / "checkpoint-4")
    path = output / "checkpoint-2" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name.replace("q_proj", "query_proj"): tensor for name, tensor in tensors.items()}, path)
    checkpoints.mark_complete(path.parent, processes=1, sharding="none")
    adapters.check_fits.cache_clear()  # as in a process of its own
    result = in_process("train.py", *lora)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert f"the adapter {path.parent} does not match {tiny_lm}: the adapter lacks " in result.stderr


@pytest.mark.medium
def test_models_that_share_weights_resume(tiny_nllb, tmp_path):
    """Their checkpoints do not have each weight under each of its names."""
    from tests.support import tiny_models

    marian = tiny_models.build_marian(
        tmp_path / "marian", [text for pair in tiny_models.udhr_pairs("Basque") for text in pair]
    )
    options = dict(targets_only=None, max_steps=4, save_steps=2, eval_steps=2)
    one_way = dict(reverse=None, src="Basque", target_languages="English")
    for name, model, more in (("nllb", tiny_nllb, {}), ("marian", marian, one_way)):
        whole, output = tmp_path / "whole" / name, tmp_path / "resumed" / name
        assert in_process("train.py", *flags(model, whole, **options, **more)).returncode == 0
        shutil.copytree(whole, output)
        (output / "manifest_train.json").unlink()
        shutil.rmtree(output / "checkpoint-4")
        result = in_process("train.py", *flags(model, output, **options, **more))
        assert f"resuming from {output / 'checkpoint-2'}" in result.stderr
        assert timeless(log(output)) == timeless(log(whole))
        weights = [(folder / "model.safetensors").read_bytes() for folder in (whole, output)]
        assert weights[0] == weights[1]
