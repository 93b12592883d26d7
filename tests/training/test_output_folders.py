"""What train.py writes where, and when: nothing in a dry run, one process at a time, settings that count once something is learned."""

import json
import shutil

import pytest

from tests.support.processes import locked
from tests.support.runs import in_process
from tests.support.training_runs import flags, log
from topxgen.text import languages


def files_in(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.medium
def test_a_run_interrupted_before_its_first_checkpoint_binds_no_one(tiny_lm, tmp_path, monkeypatch):
    """Ctrl-C while the untrained model is evaluated: another learning rate may follow in the same folder."""
    from topxgen.training.trainer import PairTrainer

    output = tmp_path / "run"

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PairTrainer, "_eval_losses", interrupt)
        assert in_process("train.py", *flags(tiny_lm, output)).returncode == 130
    assert json.loads((output / "settings_train.json").read_text())["learning_rate"] == 2e-3
    options = dict(learning_rate=1e-3, max_steps=2, save_steps=2, eval_steps=2)
    assert in_process("train.py", *flags(tiny_lm, output, **options)).returncode == 0
    assert json.loads((output / "settings_train.json").read_text())["learning_rate"] == 1e-3
    (output / "manifest_train.json").unlink()
    result = in_process("train.py", *flags(tiny_lm, output, **options | {"learning_rate": 3e-3}))
    assert result.returncode == 2 and "learning_rate was 0.001, now 0.003" in result.stderr


def test_files_that_are_changed_under_one_name_are_other_settings(tiny_lm, tmp_path):
    """Rows of --languages_file, and a template."""
    rows, template = tmp_path / "rows.tsv", tmp_path / "mine.toml"
    rows.write_text("name\tflores\tendonym\nBasque\teus_Latn\tEuskara\n")
    template.write_text('prefix = "{src}: "\nmiddle = "\\n{tgt_endonym}: "\n')
    more = dict(languages_file=rows, template_key=template, max_steps=1, save_steps=1, eval_steps=1)
    words = flags(tiny_lm, tmp_path / "run", **more)
    result = in_process("train.py", *words)
    assert result.returncode == 0, result.stderr
    for file, old, new, name in (
        (rows, "Euskara", "Euskera", "language Basque"),
        (template, ": ", " - ", "template_sha256"),
    ):
        text = file.read_text()
        file.write_text(text.replace(old, new))
        languages.load.cache_clear()
        refused = in_process("train.py", *words)
        assert refused.returncode == 2 and f"({name} was " in refused.stderr
        file.write_text(text)
        languages.load.cache_clear()
    assert in_process("train.py", *words).returncode == 0


@pytest.mark.medium
def test_a_log_cut_after_the_last_checkpoint_is_completed(tiny_lm, tmp_path):
    output = tmp_path / "run"
    words = flags(tiny_lm, output, max_steps=3, save_steps=3, eval_steps=3, logging_steps=2)
    assert in_process("train.py", *words).returncode == 0
    whole = log(output)
    text = (output / "train_log.jsonl").read_text()
    for left in (text[:-1], text[: text[:-1].rindex("\n") + 1]):  # without the end of the last line, without that line
        (output / "manifest_train.json").unlink()
        (output / "train_log.jsonl").write_text(left)
        assert in_process("train.py", *words).returncode == 0
        assert log(output)[:-1] == whole[:-1] and (output / "train_log.jsonl").read_text().endswith("\n")
        assert log(output)[-1] == {key: whole[-1][key] for key in ("total_flos", "train_loss", "epoch", "step")}


def test_a_dry_run_writes_nothing_and_finds_what_an_export_would_overwrite(tiny_lm, tmp_path):
    export = tmp_path / "export"
    words = [*flags(tiny_lm, tmp_path / "run", export_dir=export), "--dry_run"]
    assert in_process("train.py", *words).returncode == 0
    assert files_in(tmp_path) == set()
    export.mkdir()
    (export / "notes.txt").write_text("mine")
    result = in_process("train.py", *words)
    assert (
        result.returncode == 2 and "--export_dir" in result.stderr and "holds other files (notes.txt)" in result.stderr
    )
    (tmp_path / "file").write_text("")
    words = [*flags(tiny_lm, tmp_path / "run", export_dir=tmp_path / "file" / "export"), "--dry_run"]
    assert (
        f"--export_dir {tmp_path / 'file' / 'export'}: {tmp_path / 'file'} is not a directory"
        in in_process("train.py", *words).stderr
    )


def test_one_process_at_a_time_exports_to_a_folder(tiny_lm, tmp_path):
    export = tmp_path / "export"
    with locked(export) as process:
        result = in_process("train.py", *flags(tiny_lm, tmp_path / "run", export_dir=export))
        assert result.returncode == 2 and f"{export} is in use by process {process.pid}" in result.stderr
        assert files_in(export) == {".lock"}


@pytest.mark.medium
def test_no_file_is_written_through_a_link(tiny_lm, tmp_path):
    """A folder that others write to may hold links of the names that files have until they are complete."""
    mine = tmp_path / "mine.txt"
    words = flags(tiny_lm, tmp_path / "run", max_steps=1, save_steps=1, eval_steps=1)
    for name in ("config.json", "model.safetensors", "loss_curves.png", "train_log.jsonl", "manifest_train.json"):
        mine.write_text("my only copy")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / f"{name}.partial").symlink_to(mine)
        result = in_process("train.py", *words)
        assert result.returncode == 2 and "Traceback" not in result.stderr, (name, result.stderr[-300:])
        assert mine.read_text() == "my only copy", name
        shutil.rmtree(tmp_path / "run")


def test_one_process_at_a_time_merges_into_a_folder(tiny_lm, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_lm)
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).save_pretrained(
        tmp_path / "adapter"
    )
    words = ["scripts.merge_lora", tmp_path / "adapter", tmp_path / "merged", "--base_model_name_or_path", tiny_lm]
    with locked(tmp_path, "merged") as process:
        result = in_process(*words)
        assert result.returncode == 2 and f"in use by process {process.pid}" in result.stderr
    assert in_process(*words).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "merged"}
