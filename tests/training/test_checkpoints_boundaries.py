"""Checkpoints to the byte and the number: which are damaged, which one a run resumes from, which are kept."""

import json
from types import SimpleNamespace

import pytest
import torch

from topxgen.common.errors import UsageError
from topxgen.training import checkpoints
from topxgen.training.trainer import find_best


def checkpoint(output, step: int, **files: bytes):
    from safetensors.torch import save_file
    from transformers import TrainerState

    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"weights": torch.zeros(1)}, folder / "model.safetensors")
    torch.save({"state": {}}, folder / "optimizer.pt")
    TrainerState(global_step=step, max_steps=9).save_to_json(str(folder / "trainer_state.json"))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    checkpoints.mark_complete(folder, processes=2)
    return folder


@pytest.mark.parametrize("by_earlier_version", [False, True])
def test_corruption_is_found(tmp_path, by_earlier_version):
    large = bytes(3 * checkpoints.ENDS_BYTES)
    folder = checkpoint(tmp_path, 1, large=large)
    if by_earlier_version:  # with digests of both ends alone
        saved = json.loads((folder / checkpoints.CHECKSUM_FILE).read_text())
        saved["files"] = {name: checkpoints._checksum(folder / name, ends_only=True) for name in saved["files"]}
        (folder / checkpoints.CHECKSUM_FILE).write_text(json.dumps(saved))
    assert checkpoints.find_corruption(folder) is None
    assert json.loads((folder / checkpoints.CHECKSUM_FILE).read_text())["processes"] == 2
    ends = (0, checkpoints.ENDS_BYTES - 1, len(large) - checkpoints.ENDS_BYTES, len(large) - 1)
    for position in (*ends, *(() if by_earlier_version else (checkpoints.ENDS_BYTES, len(large) // 2))):
        changed = bytearray(large)
        changed[position] = 1
        (folder / "large").write_bytes(changed)
        assert checkpoints.find_corruption(folder) == "large does not match its checksum", position
    (folder / "large").write_bytes(large[:-1])
    assert checkpoints.find_corruption(folder) == f"large has {len(large) - 1} bytes instead of {len(large)}"
    (folder / "large").unlink()
    assert checkpoints.find_corruption(folder) == "large is missing"
    (folder / checkpoints.CHECKSUM_FILE).write_text("{")
    assert "not JSON: cut off" in checkpoints.find_corruption(folder)
    (folder / checkpoints.CHECKSUM_FILE).unlink()
    assert checkpoints.find_corruption(folder) == "it is incomplete (no checkpoint_files.json)"


def test_the_newest_complete_checkpoint_by_number(tmp_path):
    for step in (9, 10, 100):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-x").mkdir()
    (tmp_path / "checkpoint-101").touch()
    assert [path.name for path in checkpoints.all_checkpoints(tmp_path)] == [f"checkpoint-{n}" for n in (9, 10, 100)]
    (tmp_path / "checkpoint-100" / "optimizer.pt").unlink()
    assert checkpoints.newest_complete(tmp_path).name == "checkpoint-10"
    assert (tmp_path / "unusable-checkpoint-100").is_dir() and not (tmp_path / "checkpoint-100").exists()
    assert checkpoints.newest_complete(tmp_path / "none") is None


@pytest.mark.parametrize(
    "limit, best, kept",
    [(2, None, [3, 4]), (2, 1, [1, 4]), (1, None, [4]), (1, 2, [2, 4]), (3, 4, [2, 3, 4]), (4, None, [1, 2, 3, 4])],
)
def test_rotation(tmp_path, limit, best, kept):
    for step in (1, 2, 3, 4):
        checkpoint(tmp_path, step)
    checkpoints.rotate(tmp_path, None, best)
    assert len(checkpoints.all_checkpoints(tmp_path)) == 4
    checkpoints.rotate(tmp_path, limit, best)
    assert [checkpoints.step_of(path) for path in checkpoints.all_checkpoints(tmp_path)] == kept


def test_the_best_model_is_copied_without_the_state_of_the_run(tmp_path):
    names = ("config.json", "scheduler.pt", "rng_state_0.pth", "zero_to_fp32.py", "README.md")
    folder = checkpoint(tmp_path, 1, **dict.fromkeys(names, b"x"))
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"a shard of another model")
    assert checkpoints.conflicting_files(tmp_path) == ["model-00002-of-00002.safetensors"]
    checkpoints.copy_best_model(folder, tmp_path)
    copied = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert copied == {"model.safetensors", "config.json", "README.md"}
    (folder / "config.json").unlink()
    with pytest.raises(UsageError, match=r"config\.json is missing"):
        checkpoints.copy_best_model(folder, tmp_path)


def test_the_best_checkpoint_may_move_or_be_deleted(tmp_path, caplog):
    state = SimpleNamespace(best_global_step=3, best_model_checkpoint="elsewhere", best_metric=1.0)
    checkpoint(tmp_path, 3)
    find_best(state, tmp_path)
    assert state.best_model_checkpoint == str(tmp_path / "checkpoint-3") and not caplog.messages
    find_best(state, tmp_path / "empty")
    assert state.best_model_checkpoint is state.best_global_step is state.best_metric is None
    assert "was deleted; continuing without it" in caplog.text
