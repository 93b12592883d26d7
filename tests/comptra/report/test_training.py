"""The training section: what train.py wrote is what the page has; runs that go on, became worse or are damaged say so."""

import json
from pathlib import Path

import pytest

from comptra.report import Options
from comptra.report.sections import training as section
from tests.support import pages
from tests.support.runs import in_process, records
from topxgen.runs import trainings
from topxgen.runs.folders import find
from topxgen.runs.reading import Problems

SETTINGS = {"model_name_or_path": "base", "dataset_name_or_path": "udhr", "max_steps": 40}


def log_of(losses: dict[int, float | None], held_out: dict[int, dict[str, float | None]] | None = None) -> list[dict]:
    """Lines as train.py writes them."""
    lines = [
        {"loss": loss, "grad_norm": 1.5, "learning_rate": 1e-5, "tokens_per_second": 100.0, "step": step}
        for step, loss in losses.items()
    ]
    for step, figures in (held_out or {}).items():
        lines.append(
            {
                **{f"eval_{name}": value for name, value in figures.items()},
                "eval_runtime": 0.1,
                "epoch": 0,
                "step": step,
            }
        )
    return sorted(lines, key=lambda line: line["step"])


def written(folder: Path, log: list[dict], tail: str = "", settings: dict = SETTINGS, **manifest) -> Path:
    folder.mkdir(parents=True)
    (folder / "train_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log) + tail, encoding="utf-8")
    (folder / "settings_train.json").write_text(json.dumps(settings), encoding="utf-8")
    if manifest:
        whole = {"stage": "train", "complete": True, "settings": settings, **manifest}
        (folder / "manifest_train.json").write_text(json.dumps(whole), encoding="utf-8")
    return folder


def collected(root: Path) -> tuple[list[dict], list[tuple[str, str]]]:
    options = Options()
    data = section.collect(find(root), options)
    return data and data["trainings"], [(notice.level, notice.text) for notice in options.notices]


@pytest.mark.medium
def test_a_real_training_is_shown_as_its_files_have_it(tiny_lm, tmp_path):
    folder = tmp_path / "run" / "train"
    result = in_process(
        "train.py", "--model_name_or_path", tiny_lm, "--output_dir", folder, "--dataset_name_or_path", "udhr", "--target_languages",
        "Basque", "--reverse", "--targets_only", "--max_length", 160, "--max_steps", 4, "--num_warmup_steps", 0, "--learning_rate",
        2e-3, "--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 1, "--logging_steps", 1, "--eval_steps", 2,
        "--save_steps", 2, "--test_size_ratio", 6, "--num_eval_translations", 2,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    [shown], _ = collected(tmp_path / "run")
    manifest = json.loads((folder / "manifest_train.json").read_text())
    log = records(folder / "train_log.jsonl")
    assert shown["folder"] == "train" and shown["is_complete"] and shown["steps"] == shown["max_steps"] == 4
    assert shown["metric"] == "chrF++" and f"checkpoint-{shown['chosen']}" == manifest["best_checkpoint"]
    assert shown["pairs"] == [manifest["data"]["train_pairs"], manifest["data"]["test_pairs"]]
    for name in trainings.CURVES:
        assert [value for _, value in shown["curves"][name]] == pytest.approx(
            [e[name] for e in log if "loss" in e], rel=1e-5
        )
    evaluations = [entry for entry in log if "eval_runtime" in entry]
    assert [entry["step"] for entry in evaluations] == [0, 2, 4]
    for metric, name in section.METRICS.items():
        for label, direction in (("", ""), ("English to Basque", "_English to Basque")):
            points = shown["held_out"][name][label]
            expected = [
                [entry["step"], pytest.approx(entry[f"eval_{metric}{direction}"], rel=1e-5)] for entry in evaluations
            ]
            assert points == expected, (name, label)
    left_out = records(folder / "left_out_pairs.jsonl")
    assert left_out and sum(shown["left_out"].values()) == len(left_out)
    assert manifest["data"]["too_long"] == sum(one["set"] == "training" for one in left_out)
    assert {section._label(name) for name in manifest["worse_than_before_training"]} == {
        name for name, *_ in shown["worse"]
    }
    assert shown["checkpoints"] == (2, 4)


def test_what_became_worse_is_that_of_the_chosen_checkpoint(tmp_path):
    held_out = {
        0: {"loss": 2.0, "loss_English to Basque": 2.0, "chrf": 20.0},
        10: {"loss": 1.5, "loss_English to Basque": 2.5, "chrf": 25.0},
        20: {"loss": 3.0, "loss_English to Basque": 3.0, "chrf": 5.0},
    }
    log = log_of({10: 1.0, 20: 0.5}, held_out)
    written(tmp_path / "good", log, best_checkpoint="checkpoint-10", steps=20)
    written(tmp_path / "last", log, best_checkpoint="checkpoint-20", steps=20)
    (good, last), notices = collected(tmp_path)
    assert good["worse"] == [["loss of English to Basque", 2.5, 2.0]]
    assert {name for name, *_ in last["worse"]} == {"loss", "loss of English to Basque", "chrF++"}
    assert [text for level, text in notices if level == "warning"] == [
        "good: held-out loss of English to Basque is 2.5 at the checkpoint, worse than 2 before training",
        "last: held-out loss is 3 at the checkpoint, worse than 2 before training",
        "last: held-out chrF++ is 5 at the checkpoint, worse than 20 before training",
    ]


def test_a_training_that_runs_is_shown_as_far_as_it_is(tmp_path):
    folder = written(
        tmp_path / "train", log_of({10: 2.0, 20: 1.9}, {0: {"loss": 3.0}, 20: {"loss": 2.5}}), tail='{"loss": 1.8, "st'
    )
    for step in (10, 20):
        (folder / f"checkpoint-{step}").mkdir()
    (folder / "checkpoint-20" / "trainer_state.json").write_text(
        '{"best_global_step": 20, "max_steps": 60, "log_history": []}'
    )
    [shown], notices = collected(tmp_path)
    assert not shown["is_complete"] and (shown["steps"], shown["max_steps"], shown["chosen"]) == (20, 60, 20)
    assert [step for step, _ in shown["curves"]["loss"]] == [10, 20]
    assert ("missing", "train has no manifest: at step 20 of 60 it is running, or was interrupted") in notices
    assert any(level == "info" and "line of train_log.jsonl is being written" in text for level, text in notices)


def test_damaged_and_missing_files_are_named_and_the_rest_is_shown(tmp_path):
    folder = written(tmp_path / "a", log_of({10: None, 20: 1.0}, {0: {"loss": None}, 20: {"loss": 2.0}}))
    (folder / "manifest_train.json").write_text("{not json")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "settings_train.json").write_text(json.dumps(SETTINGS))
    written(tmp_path / "c", log_of({10: 1.0}), best_checkpoint="checkpoint-10")
    (tmp_path / "c" / "train_log.jsonl").write_text('[1]\n"x"\n{"step": "ten"}\n{"loss": 1.0, "step": 10}\n')
    (a, b, c), notices = collected(tmp_path)
    text = "\n".join(line for _, line in notices)
    assert (
        a["curves"]["loss"] == [[10, None], [20, 1.0]]
        and a["worse"] == []
        and a["held_out"]["loss"][""] == [[0, None], [20, 2.0]]
    )
    assert "a/manifest_train.json is left out: not JSON" in text and "a: the loss was not a finite number" in text
    assert b["curves"] == {} and "b has no log of its steps" in text
    assert [point[0] for point in c["curves"]["loss"]] == [10] and "c: nothing was held out" in text
    assert "c/train_log.jsonl, line 1 is left out" in text and "2 more lines of it are left out" in text


def test_long_logs_become_means_of_steps_and_keep_their_ends(tmp_path):
    written(tmp_path / "train", log_of({step: float(step) for step in range(1, 10_001)}))
    training = trainings.read(tmp_path / "train", Problems())
    points = training.curves["loss"]
    assert training.averaged == 25 and len(points) == 400 == trainings.MAX_POINTS
    assert points[0] == (13.0, 13.0) and points[-1] == (9988.0, 9988.0)
    assert trainings._curves(log_of(dict.fromkeys(range(1, 401), 1.0)))[1] == 1
    assert [len(points) for points in trainings._curves(log_of(dict.fromkeys(range(1, 402), 1.0)))[0].values()] == [
        201
    ] * 4


def test_no_training_is_no_section(tmp_path):
    assert collected(tmp_path) == (None, [])


@pytest.mark.medium
def test_charts_and_warnings_in_a_browser(browser, tmp_path):
    held_out = {step: {"loss": 2 + step / 100, "loss_<b>x</b> to Basque": 1.5} for step in (0, 10, 20)}
    for name in ("train-a", "train-b", "<i>c"):
        written(
            tmp_path / "run" / name, log_of({10: 1.0, 20: 0.5}, held_out), best_checkpoint="checkpoint-20", steps=20
        )
    pages.build(tmp_path / "run", tmp_path / "page.html")
    pages.opened(browser, tmp_path / "page.html", "training?folder=train-b")
    pages.render(browser, "training")
    opened = browser.run("return document.activeElement.closest('details').querySelector('summary').textContent")
    assert opened == "train-b"
    seen = browser.text("#training")
    assert "train-b: held-out loss is 2.2 at the checkpoint, worse than 2 before training" in seen
    assert "2 → 2.2 worse" in seen and "<i>c" in seen and not browser.all("#training i, #training svg b")
    titles = [element.text for element in browser.all("#training details[open] > .grid > figure > figcaption")]
    assert titles[:2] == ["Loss", "Held-out loss by direction"] and browser.all(
        "#training details[open] figure svg path"
    )
    browser.click("#training figure details.screen summary")
    assert "2.1" in browser.one("#training figure details[open] table").text
    assert browser.faults() == []


def test_more_directions_than_colours_have_a_panel_each(browser, tmp_path):
    held_out = {
        step: {"loss": 2.0, **{f"loss_English to {i}": 1.5 + step for i in range(12)}} for step in (0, 1000, 2000)
    }
    written(tmp_path / "run" / "train", log_of({1000: 1.0}, held_out), best_checkpoint="checkpoint-2000", steps=2000)
    pages.build(tmp_path / "run", tmp_path / "page.html")
    pages.opened(browser, tmp_path / "page.html", "training")
    pages.render(browser, "training")
    labels = browser.run("return [...document.querySelectorAll('#training svg text')].map(text => text.textContent)")
    assert {f"English to {i}" for i in range(12)} <= {*labels} and {"0", "1k", "2k"} <= {*labels}
    assert "0k" not in labels
