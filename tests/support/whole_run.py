"""A small run through the stages by the real scripts in this process: what scripts/verify.py is tested on."""

from pathlib import Path

from tests.support import finished_run
from tests.support.main_runs import options
from tests.support.runs import in_process


def call(name: str, *words, code: int = 0) -> None:
    result = in_process(name, *words)
    assert result.returncode == code, result.stderr


def make(folder: Path, nllb: str, lm: str) -> Path:
    """Native text to pairs, decontaminated; two systems that translate the UDHR, scored into every kind of table."""
    run = finished_run.make(folder, nllb, "--min_score", "0.45")
    translate(run, lm)
    score(run)
    return run


def translate(run: Path, *models: str) -> None:
    """Few-shot, and CompTra with the phrases of a divider that needs no model."""
    for model in models:
        for more in (("--k", 2), ("--k", 0, "--steps", 1, "--method_divide", "identity", "--number_of_repetitions", 2)):
            call("main.py", *options(model, *more, k=None), "--output_dir", run / "translations")


def score(run: Path) -> None:
    files = {
        flag: run / f"scores.{ending}"
        for flag, ending in (("json", "json"), ("csv", "csv"), ("markdown", "md"), ("latex", "tex"))
    }
    first = next(iter(sorted(path.parent for path in (run / "translations").rglob("translate_0.jsonl"))))
    words = [word for flag, path in files.items() for word in (f"--{flag}", path)]
    call(
        "comptra.evaluate", run / "translations", *words, "--segments", run / "segments.jsonl", "--baseline", first,
        "--trials", 50, "--bootstrap", 20, "--every_eval_ever", run / "every_eval_ever",
    )  # fmt: skip


def finish(run: Path, lm: str) -> None:
    """The rest: a model with checkpoints, its data exported, merged, translating; statistics, the page."""
    train = run / "train"
    call(
        "train.py", "--model_name_or_path", lm, "--dataset_name_or_path", "topxgen", "--data_dir", run / finished_run.NAME,
        "--target_languages", "Basque", "--use_peft", "--test_size_ratio", 3, "--max_steps", 4, "--save_steps", 2, "--eval_steps", 2,
        "--logging_steps", 1, "--num_warmup_steps", 1, "--max_length", 256, "--per_device_train_batch_size", 2,
        "--gradient_accumulation_steps", 1, "--num_workers", 0, "--output_dir", train, "--export_dir", run / "export",
    )  # fmt: skip
    call("scripts/merge_lora.py", train, run / "merged")
    translate(run, str(run / "merged"))
    score(run)
    call("scripts/data_stats.py", run, "--json", run / "stats.json", "--csv", run / "stats.csv")
    call("scripts/report.py", run, "-o", run / "report.html")
    call("scripts/publish.py", run / finished_run.NAME, "--out", run / "published", "--formats", "tmx", "moses")
