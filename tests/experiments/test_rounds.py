"""Self-improvement with a small model: real stages, in this process where libraries are loaded already."""

import json
import random
import re
import shutil
from pathlib import Path
from statistics import fmean

import pytest

from comptra import verify
from tests.support import number_translator
from tests.support.flipped_bytes import flip_each
from tests.support.processes import kill_when, start
from tests.support.runs import in_process, records
from topxgen.common import translation_folders
from topxgen.common.errors import UsageError
from topxgen.common.run_files import read
from topxgen.experiments import chain, rounds
from topxgen.training import arguments

RUN = """
output_dir: {out}
model: {model}
rounds:
  number: 2
  patience: 1
  held_out: {{dataset_name_or_path: udhr-dev}}
  datagen: {{demonstration_pool: udhr}}
datagen:
  model_name_or_path: ${{model}}
  inference_api: hf
  languages: Basque
  seed_topics_path: topics/wikipedia_vital_topics.txt
  example_paragraphs: udhr
  example_sentences: udhr
  number_of_icl_demonstrations: 1
  number_of_icl_phrases: 2
  prompt_template: continuation
  dtype: float32
  max_new_tokens: 96
  request_batch_size: 8
  number_of_instructions: 12
  back_translator: {translator}
  scorer: none
decontamination: {{benchmarks: udhr}}
train:
  model_name_or_path: ${{model}}
  reverse: true
  targets_only: true
  max_length: 256
  max_steps: 30
  per_device_train_batch_size: 2
  gradient_accumulation_steps: 1
  num_warmup_steps: 4
  learning_rate: 3e-3
  test_size_ratio: 0
  save_steps: 30
main:
  - &pair {{dataset_name_or_path: udhr, src: Basque, tgt: English, inference_api: hf, k: 0, max_samples: 4, max_new_tokens: 24, dtype: float32}}
  - {{<<: *pair, src: English, tgt: Basque}}
evaluate: {{metrics: [chrf, bleu], tokenize: 13a}}
"""  # fmt: skip


STAGES = ["datagen.py", "decontamination.py", "train.py", *2 * ["main.py", "main.py", "comptra.evaluate"]]


def starter(scripts: list[str], stop_before: int | None = None):
    """In place of starting a process: the script in this one. Ctrl-C before the script of that number."""

    def run(line: list[str], *_) -> int:
        if len(scripts) == stop_before:
            raise KeyboardInterrupt
        scripts.append(line[2] if line[1] == "-m" else Path(line[1]).name)
        result = in_process(scripts[-1], *line[3 if line[1] == "-m" else 2 :])
        assert not result.returncode, result.stderr
        return result.returncode

    return run


@pytest.fixture
def started(monkeypatch) -> list[str]:
    scripts = []
    monkeypatch.setattr("topxgen.experiments.chain._run", starter(scripts))
    return scripts


@pytest.fixture
def nothing_starts(monkeypatch) -> None:
    monkeypatch.setattr("topxgen.experiments.chain._run", starter([], stop_before=0))


def write(folder: Path, model: str, **changed: str) -> Path:
    folder.mkdir(exist_ok=True)
    text = RUN.format(out=folder / "out", model=model, translator=number_translator.NAME)
    for old, new in changed.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "run.yaml").write_text(text, encoding="utf-8")
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def whole(tiny_lm, tmp_path_factory):
    """The folder of a run of two rounds that was interrupted twice, its last output, and the scripts that ran.

    With the first seed whose models write English: which one does depends on the processor, by its rounding."""
    for seed in range(1, 13):
        seeded = {"  learning_rate: 3e-3": f"  learning_rate: 3e-3\n  seed: {seed}"}
        path, scripts = write(tmp_path_factory.mktemp("rounds") / "run", tiny_lm, **seeded), []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("topxgen.experiments.chain._run", starter(scripts, stop_before=2))
            assert in_process("scripts.run", path).returncode == 130
            patch.setattr("topxgen.experiments.chain._run", starter(scripts, stop_before=11))
            try:
                assert in_process("scripts.run", path).returncode == 130
                patch.setattr("topxgen.experiments.chain._run", starter(scripts))
                result = in_process("scripts.run", path)
            except AssertionError as error:
                if "holds no pairs" not in str(error):
                    raise
                continue
        assert result.returncode == 0, result.stderr
        return path.parent / "out", result, scripts
    pytest.fail("no model of these seeds writes English")


def summary(folder: Path) -> dict:
    return json.loads((folder / "rounds.json").read_text())


@pytest.mark.medium
def test_each_round_back_translates_with_the_model_of_the_round_before(whole, tiny_lm):
    out, _, scripts = whole
    paragraphs = [record["text"] for record in records(out / "Basque.jsonl")]
    for number, model in ((1, out / "train"), (2, out / "round-1" / "train")):
        folder = out / f"round-{number}"
        assert [record["sentence"] for record in records(folder / "Basque_translate.jsonl")] == paragraphs
        settings = json.loads((folder / "settings_translate.json").read_text())
        chosen = {name: settings[name] for name in ("back_translator", "template_key", "number_of_demonstrations")}
        assert chosen == {"back_translator": "llm", "template_key": "14", "number_of_demonstrations": 5}
        manifest = json.loads((folder / "manifest_translate_Basque.json").read_text())
        assert str(model) in json.dumps(manifest)
        training = json.loads((folder / "train" / "settings_train.json").read_text())
        assert training["model_name_or_path"] == tiny_lm, "not the model of the round before"
    pairs = [record["translations"] for record in records(out / "round-1" / "Basque_translate.jsonl")]
    assert pairs != [record["translations"] for record in records(out / "round-2" / "Basque_translate.jsonl")]
    # Interrupted in rounds 0 and 1: nothing was done twice, apart from the evaluations of round 0.
    assert scripts == STAGES + STAGES[:2] + ["comptra.evaluate"] * 2 + STAGES[2:] + STAGES


@pytest.mark.medium
def test_what_is_recorded_and_shown(whole):
    out, result, _ = whole
    found = summary(out)
    assert (found["number"], found["patience"], found["metric"], found["stopped"]) == (2, 1, "chrf", None)
    assert found["held_out_set"] == {"dataset_name_or_path": "udhr-dev"}
    assert [one["round"] for one in found["rounds"]] == [0, 1, 2]
    for one, data in zip(found["rounds"], ("number_translator.py:Numbers", "round-1", "round-2"), strict=True):
        lines = records(out / data / "Basque_translate_filtered.jsonl")
        assert one["pairs"] == sum(len(line["propositions"]) for line in lines) > 0
        assert one["mean_score"] is None  # --scorer none
        folder = Path(one["directory"])
        held_out, test = (
            json.loads((folder / name / "scores.json").read_text())["groups"] for name in ("held_out", ".")
        )
        assert {group["dataset"] for group in held_out} == {"udhr-dev"} and {group["dataset"] for group in test} == {
            "udhr"
        }
        scores = [group["systems"][0]["scores"]["chrf"]["score"] for group in held_out]
        assert len(scores) == 2 and one["held_out"] == fmean(scores)
        assert one["test"]["English to Basque chrf"] == next(
            group["systems"][0]["scores"]["chrf"]["score"] for group in test if group["tgt"] == "Basque"
        )
    best = max(found["rounds"], key=lambda one: one["held_out"])["round"]
    assert found["best_round"] == best and f"best round: {best}" in result.stderr + result.stdout
    rows = result.stdout[result.stdout.rindex("round  pairs") :].splitlines()
    assert rows[0].split()[:6] == ["round", "pairs", "mean", "score", "held-out", "chrf"]
    assert [row.split()[0] for row in rows[1:4]] == ["0", "1", "2"] and " *" in rows[1 + best]


@pytest.mark.medium
def test_a_finished_run_only_shows_its_table(whole, started):
    out, result, _ = whole
    before = (out / "rounds.json").read_bytes()
    again = in_process("scripts.run", out.parent / "run.yaml")
    assert again.returncode == 0 and set(started) == {"comptra.evaluate"}
    assert (out / "rounds.json").read_bytes() == before
    table = result.stdout[result.stdout.rindex("round  pairs") :]
    assert again.stdout[again.stdout.rindex("round  pairs") :] == table


@pytest.mark.medium
def test_rounds_are_verified(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    path = run / "rounds.json"
    quick, before = verify.Options(with_scores=False), path.read_bytes()
    assert not verify.verify(run, quick).problems
    for key, change in (
        ("held_out", lambda one: one | {"held_out": one["held_out"] + 0.01}),
        ("test of round 1", lambda one: one | {"test": {name: score + 0.01 for name, score in one["test"].items()}}),
    ):
        content = json.loads(before)
        content["rounds"][1] = change(content["rounds"][1])
        path.write_text(json.dumps(content))
        assert any(key in str(problem) for problem in verify.verify(run, quick).problems)
    path.write_text(json.dumps(json.loads(before) | {"best_round": 7}))
    assert any("best_round: claimed 7" in str(problem) for problem in verify.verify(run, quick).problems)
    path.write_bytes(before)
    found = flip_each(run, 3)
    assert {"rounds.json", "train.json", "manifest_train.json", "scores.json", "{Language}_translate.jsonl"} <= found


@pytest.mark.medium
def test_a_resumed_run_stops_where_the_scores_fell(whole, started, tmp_path):
    """With less patience: the rounds that are there are not counted once the held-out score has not risen."""
    out, _, _ = whole
    scores = [one["held_out"] for one in summary(out)["rounds"]]
    expected = 2 if scores[1] <= scores[0] else 3
    shutil.copytree(out, tmp_path / "kept")
    try:
        for _ in range(2):
            assert in_process("scripts.run", out.parent / "run.yaml", "--patience", 0).returncode == 0
            found = summary(out)
            assert [one["held_out"] for one in found["rounds"]] == scores[:expected] and found["patience"] == 0
            assert (found["stopped"] is not None) == (expected == 2)
    finally:
        shutil.rmtree(out)
        shutil.move(tmp_path / "kept", out)


# Decisions


def test_a_metric_that_should_fall_is_refused(tmp_path):
    group = {"dataset": "udhr", "src": "English", "tgt": "Basque", "systems": []}
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"groups": [group | {"metrics": {"ter": {"higher_is_better": False}, "chrf": {}}}]}))
    rounds.check_rises(path, "chrf")
    with pytest.raises(UsageError, match="a lower ter is better; choose another metric"):
        rounds.check_rises(path, "ter")
    path.write_text(json.dumps({"groups": [group]}))  # of an older version
    rounds.check_rises(path, "chrf")


def results(*scores: float) -> list[dict]:
    return [{"round": number, "held_out": score} for number, score in enumerate(scores)]


@pytest.mark.parametrize(
    "scores, patience, stops",
    [
        ([], 0, False),
        ([5.0], 0, False),
        ([5.0, 6.0], 0, False),
        ([5.0, 4.9], 0, True),
        ([5.0, 5.0], 0, True),  # not risen
        ([5.0, 4.0], 1, False),
        ([5.0, 4.0, 4.5], 1, True),
        ([5.0, 4.0, 6.0, 5.0], 1, False),
        ([5.0, 4.0, 6.0, 5.0, 6.0], 1, True),
    ],
)
def test_when_it_stops(scores, patience, stops):
    reason = rounds.reason_to_stop(results(*scores), rounds.Settings(9, patience))
    assert bool(reason) == stops
    if stops:
        assert re.search(rf"held-out chrf has not risen for \d rounds? \(patience {patience}\)", reason)


def words(command) -> dict[str, str]:
    flags = [*command.words, "--"]
    return {word: flags[i + 1] for i, word in enumerate(flags) if word.startswith("--") and word != "--"}


def plan(tmp_path, tiny_lm, **changed):
    path = write(tmp_path / "run", tiny_lm, **changed)
    return rounds.plan(read(path), path)


def test_an_adapter_is_loaded_on_its_base_model(tmp_path, tiny_lm):
    changed = {
        "  max_steps: 30": "  use_peft: true\n  lora_r: 24\n  template_key: 9\n  max_steps: 30",
        "max_samples: 4": "lora_rank: 24, max_samples: 4",
    }
    _, planned = plan(tmp_path, tiny_lm, **changed)
    flags = words(planned[2].data[0])
    out = tmp_path / "run" / "out"
    assert flags["--model_name_or_path"] == tiny_lm and flags["--adapter_name_or_path"] == str(
        out / "round-1" / "train"
    )
    assert (flags["--lora_rank"], flags["--template_key"], flags["--prompt_style"]) == ("24", "9", "raw")
    assert "--paragraphs" not in flags and flags["--translate_dir"] == "round-2"


def test_the_pairs_of_a_round_are_those_that_it_trains_on(tmp_path, tiny_lm):
    lines = {"languages: Basque": "languages: [Basque, Hausa]", "train:\n": "train:\n  target_languages: Basque\n"}
    _, (_, second, _) = plan(tmp_path, tiny_lm, **lines)
    (folder,) = second.data[-1].args.data_dir
    folder.mkdir(parents=True)
    for language in ("Basque", "Hausa"):
        (folder / f"{language}_translate_filtered.jsonl").touch()
    assert list(rounds._files_of_pairs(second)) == [folder / "Basque_translate_filtered.jsonl"]


def test_test_sets_of_one_direction_have_scores_of_their_own_and_the_held_out_set_counts_once(tmp_path, tiny_lm):
    more = "{<<: *pair, src: English, tgt: Basque}\n  - {<<: *pair, dataset_name_or_path: ntrex, metadata_dir: news}"
    _, (first, *_) = plan(
        tmp_path, tiny_lm, **{"{<<: *pair, src: English, tgt: Basque}": f"{more}\n  - {{<<: *pair, k: 1}}"}
    )
    assert [command.args.k for command in first.held_out[:-1]] == [0, 0, 1]
    names = []
    for commands, scores in ((first.held_out, (10, 50, 20)), (first.test, (1, 2, 3, 4))):
        groups = []
        for command, score in zip(commands[:-1], scores, strict=True):
            args = command.args
            name = args.metadata_dir or translation_folders.original_name(*args.src, *args.tgt, args, "vanilla")
            names += [name] if commands is first.test else []
            folder = args.output_dir / "train" / name
            folder.mkdir(parents=True)
            (folder / "translate_0.jsonl").touch()
            system = {"path": str(folder), "scores": {"chrf": {"score": score}}}
            same = {"dataset": args.dataset_name_or_path, "src": args.src[0], "tgt": args.tgt[0]}
            group = next((one for one in groups if same.items() <= one.items()), same | {"systems": []})
            group["systems"].append(system)
            groups += [group] if group not in groups else []
        commands[-1].args.json.parent.mkdir(exist_ok=True)
        commands[-1].args.json.write_text(json.dumps({"groups": groups}))
    found = rounds.result(0, first, "chrf")
    assert found["held_out"] == fmean([fmean([10, 20]), 50])
    assert found["test"] == {
        f"Basque to English, {names[0]} chrf": 1,
        "English to Basque chrf": 2,
        "Basque to English, ntrex chrf": 3,
        f"Basque to English, {names[3]} chrf": 4,
    }


def test_flags_of_the_rounds_win_and_an_encoder_decoder_translates_itself(tmp_path, tiny_lm):
    _, planned = plan(
        tmp_path, tiny_lm, **{"{demonstration_pool: udhr}": "{back_translator: nllb, max_new_tokens: 99}"}
    )
    flags = words(planned[1].data[0])
    assert flags["--nllb_name_or_path"] == str(tmp_path / "run" / "out" / "train") and flags["--max_new_tokens"] == "99"
    assert "--template_key" not in flags and "--prompt_style" not in flags


@pytest.mark.parametrize("datagen", ["{demonstration_pool: udhr}", "{inference_api: hf}", "{back_translator: nllb}"])
def test_the_paragraphs_may_be_those_of_an_api(tmp_path, tiny_lm, datagen):
    """Which does not run the models that are trained: its flags are those of round 0 alone."""
    own = "  inference_api: openai\n  base_url: http://127.0.0.1:9/v1\n  max_retries: 2\n  budget: 1\n  prices: [1, 1]\n  languages"
    changed = {
        "  inference_api: hf\n  languages": own,
        "  dtype: float32\n": "",
        "max_new_tokens: 96\n  request_batch_size: 8\n": "max_new_tokens: 48\n",
    }
    changed |= {"{demonstration_pool: udhr}": datagen}
    _, planned = plan(tmp_path, tiny_lm, **changed)
    assert planned[0].data[0].args.inference_api == "openai"
    assert {one.data[0].args.inference_api for one in planned[1:]} == {"hf" if "hf" in datagen else "vllm"}


def test_the_short_form_holds_out_the_dev_set(tmp_path, tiny_lm):
    text = write(tmp_path / "run", tiny_lm).read_text()
    short = re.sub(r"rounds:\n(  .*\n)+", "rounds: 3\n", text)
    (tmp_path / "run" / "run.yaml").write_text(short)
    settings, planned = rounds.plan(read(tmp_path / "run" / "run.yaml"), "run.yaml")
    assert (settings.number, settings.patience, settings.metric, len(planned)) == (3, 0, "chrf", 4)
    assert {words(command)["--dataset_name_or_path"] for command in planned[1].held_out[:2]} == {"validation"}


def test_rounds_may_refer_to_values_at_the_top(tmp_path, tiny_lm):
    changed = {"{dataset_name_or_path: udhr-dev}": "{dataset_name_or_path: '${kept}'}"}
    changed |= {"{demonstration_pool: udhr}": "{demonstration_pool: '${pool}'}"}
    changed |= {"rounds:": "kept: udhr-dev\npool: udhr\nrounds:"}
    assert plan(tmp_path, tiny_lm, **changed)[1] == plan(tmp_path, tiny_lm)[1]


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("  number: 2", "  number: 0", "rounds, number: 0 is not a whole number from 1 to 100"),
        ("  number: 2", "  number: 1.5", "rounds, number: 1.5 is not a whole number"),
        ("  number: 2", "  numbers: 2", "rounds has no key numbers (did you mean number?)"),
        ("  number: 2\n", "", "rounds, number: null is not a whole number"),
        ("  patience: 1", "  patience: -1", "rounds, patience: -1 is not a whole number from 0"),
        ("{dataset_name_or_path: udhr-dev}", "null", "rounds, held_out is not a mapping of flags of main.py"),
        ("{dataset_name_or_path: udhr-dev}", "{max_samples: 2}", "the held-out set of rounds, udhr, is the test set"),
        ("{dataset_name_or_path: udhr-dev}", "{datset_name_or_path: udhr-dev}", "unknown key datset_name_or_path"),
        ("{demonstration_pool: udhr}", "{demonstration_pol: udhr}", "unknown key demonstration_pol (did you mean demonstration_pool?)"),
        ("{demonstration_pool: udhr}", "{inference_api: openai, dtype: null}", "openai cannot run the model that a round trains"),
        ("decontamination: {benchmarks: udhr}\ntrain:", "train: null\nold: &old", "rounds needs a section train"),
        ("  scorer: none", "  scorer: none\n  output_dir: elsewhere", "rounds needs the paragraphs in output_dir"),
        ("  reverse: true", "  reverse: true\n  output_dir: there", "train.output_dir would be the same in all rounds"),
        ("k: 0, max_samples: 4", "output_dir: there, k: 0, max_samples: 4", "main.output_dir would be the same in all rounds"),
        ("  reverse: true", "  reverse: true\n  data_dir: there", "train.data_dir would be the same in all rounds"),
        ("{demonstration_pool: udhr}", "{stages: [generate]}", "rounds, datagen: stages cannot be set; each round sets it"),
        ("{demonstration_pool: udhr}", "{model_name_or_path: m}", "rounds, datagen: model_name_or_path cannot be set"),
        ("{dataset_name_or_path: udhr-dev}", "{output_dir: x}", "rounds, held_out: output_dir cannot be set"),
        ("  reverse: true", "  reverse: true\n  dataset_name_or_path: udhr", "rounds needs a training on the generated pairs"),
    ],
)  # fmt: skip
def test_bad_input_ends_in_one_line_before_anything_runs(tmp_path, tiny_lm, nothing_starts, old, new, says):
    result = in_process("scripts.run", write(tmp_path / "run", tiny_lm, **{old: new}))
    assert result.returncode == 2 and says in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1 and not (tmp_path / "run" / "out").exists()


def test_flags_of_the_command_that_do_not_go_with_the_file(tmp_path, tiny_lm, nothing_starts):
    path = write(tmp_path / "run", tiny_lm)
    assert "--stages has no effect on a run with rounds" in in_process("scripts.run", path, "--stages", "train").stderr
    assert "whole number" in in_process("scripts.run", path, "--patience", -1).stderr
    text = re.sub(r"rounds:\n(  .*\n)+", "", path.read_text())
    path.write_text(text)
    assert "--patience has no effect" in in_process("scripts.run", path, "--patience", 1).stderr


def test_a_dry_run_shows_all_rounds(tmp_path, tiny_lm, nothing_starts):
    result = in_process("scripts.run", write(tmp_path / "run", tiny_lm), "--dry_run")
    assert result.returncode == 0 and not (tmp_path / "run" / "out").exists()
    titles = re.findall(r"^# (.*): will run", result.stdout, re.M)
    assert len(titles) == 27 and titles[0] == "round 0, datagen" and titles[12] == "round 1, held-out set, main-1"


def test_a_round_that_was_trained_with_other_flags_is_refused(tmp_path, tiny_lm, nothing_starts):
    path = write(tmp_path / "run", tiny_lm)
    train = rounds.plan(read(path), path)[1][1].data[-1].args
    train.output_dir.mkdir(parents=True)
    (train.output_dir / "model.safetensors").write_text("x")
    arguments.set_defaults(train)
    settings = arguments.result_settings(train, "data")
    (train.output_dir / "settings_train.json").write_text(json.dumps(settings))
    assert in_process("scripts.run", path, "--dry_run").returncode == 0
    result = in_process("scripts.run", path, "--dry_run", "--set", "train.learning_rate=0.5")
    assert (
        result.returncode == 2 and "round-1/train holds results of other settings (learning_rate was" in result.stderr
    )


# Kills


def run_here(path: Path) -> None:
    chain._run = starter([])
    in_process("scripts.run", path)


def killed(path: Path, out: Path, done: int, delay: float) -> bool:
    """Run the file in a process of its own; kill -9 it some time after `done` stages are recorded. Whether it was at work."""
    process = start(run_here, path, with_libraries=True)
    return kill_when(process, lambda: len([*out.glob("**/run/*.json")]) >= done, delay)


@pytest.mark.medium
def test_killed_at_random_moments_the_files_are_those_of_an_undisturbed_run(whole, tiny_lm, tmp_path, started):
    undisturbed, _, _ = whole
    path, out = tmp_path / "run" / "run.yaml", tmp_path / "run" / "out"
    path.parent.mkdir()
    path.write_text((undisturbed.parent / "run.yaml").read_text().replace(str(undisturbed), str(out)))
    chance = random.Random(7)
    kills = [killed(path, out, done, chance.uniform(0, 2)) for done in sorted(chance.sample(range(20), 10))]
    assert sum(kills) >= 8
    assert in_process("scripts.run", path).returncode == 0

    def content(folder: Path) -> dict[str, bytes]:
        names = (
            "Basque.jsonl",
            "rounds.json",
            "scores.json",
            "*_translate*.jsonl",
            "translate_0.jsonl",
            "model.safetensors",
        )
        files = sorted({path for name in names for path in folder.rglob(name) if "answers" not in path.name})
        own = str(folder.parent).encode()
        return {
            str(path.relative_to(folder)): without_marks(path.read_bytes().replace(own, b""), path) for path in files
        }

    def without_marks(content: bytes, path: Path) -> bytes:
        """Scores of an evaluation that another test repeats after the last round know which round was chosen."""
        if path.name != "scores.json":
            return content
        return re.sub(rb'"interference": \[[^\]]*\]', b'"interference": []', content)

    one, other = content(out), content(undisturbed)
    assert one.keys() == other.keys() and len(one) == 38
    assert [name for name in one if one[name] != other[name]] == []
