"""scripts/run.py: what runs and what does not, and mistakes before anything runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from comptra.settings import flag_settings
from tests.support.run_files import CHECKED, SCORED, record, write
from tests.support.runs import ROOT, in_process
from topxgen.common.errors import UsageError
from topxgen.common.run_files import RunFile
from topxgen.experiments import chain
from topxgen.training import arguments

MODEL_FILES = ("code.py", "config.json", "model.safetensors", "source.spm", "special_tokens_map.json", "tekken.json")


def run(*words) -> subprocess.CompletedProcess:
    """scripts/run.py in this process; the stages are processes of their own."""
    return in_process("scripts.run", "run.yaml", *words)


def ran(result: subprocess.CompletedProcess) -> dict[str, str]:
    """What was said about each stage: "complete", or why it runs."""
    lines = [line.split("  ", 1)[1] for line in result.stderr.splitlines() if line.startswith("=== ")]
    return dict(line.split(": ", 1) for line in lines)


def test_a_stage_runs_once_and_again_when_what_it_depends_on_changes(place, monkeypatch):
    write(place, CHECKED)
    pairs, filtered = place / "in/Basque_translate.jsonl", place / "out/checked/Basque_translate_filtered.jsonl"
    result = run()
    assert result.returncode == 0 and ran(result) == {"decontamination": "not run yet"}, result.stderr
    first, results = record(place, "decontamination"), filtered.read_bytes()
    assert {"in/Basque_translate.jsonl", "in/bench.tsv"} <= first["inputs"].keys()
    assert "out/checked/Basque_translate_filtered.jsonl" in first["outputs"] and first["exit_code"] == 0

    assert ran(run()) == {"decontamination": "complete"} and record(place, "decontamination") == first
    os.utime(pairs)  # the content is what counts
    monkeypatch.setattr("topxgen.__version__", "99.0")
    assert ran(run()) == {"decontamination": "complete"}

    assert ran(run("--set", "decontamination.ngram_size=9")) == {"decontamination": "its flags have changed"}
    assert ran(run()) == {"decontamination": "its flags have changed"}
    with open(pairs, "ab") as file:
        file.write(pairs.read_bytes().splitlines(keepends=True)[0])
    assert ran(run()) == {"decontamination": "in/Basque_translate.jsonl has changed"}
    assert filtered.read_bytes() != results and ran(run()) == {"decontamination": "complete"}
    for change, how in ((filtered.unlink, "is gone"), (lambda: filtered.write_bytes(results), "has changed")):
        change()
        assert ran(run()) == {"decontamination": f"its result {filtered.relative_to(place)} {how}"}
    (place / "copies").mkdir()
    (place / "copies/a").write_text("")
    monkeypatch.setenv("TOPXGEN_BENCHMARK_DIR", "copies")
    assert ran(run()) == {"decontamination": "copies/a is new"}
    monkeypatch.delenv("TOPXGEN_BENCHMARK_DIR")
    assert ran(run()) == {"decontamination": "copies/a is no longer read"}
    monkeypatch.setenv("TOPXGEN_BENCHMARK_DIR", "none")
    assert "TOPXGEN_BENCHMARK_DIR is 'none', not a folder" in run("--dry_run").stderr
    monkeypatch.delenv("TOPXGEN_BENCHMARK_DIR")
    (place / "in/Hausa_translate.jsonl").write_bytes(results)
    assert ran(run()) == {"decontamination": "in/Hausa_translate.jsonl is new"}
    (place / "out/run/decontamination.json").unlink()
    assert ran(run()) == {"decontamination": "not run yet"}


@pytest.mark.medium
def test_evaluation_prints_its_table_each_time_and_changes_no_file(place, capfd):
    write(place, CHECKED, SCORED)
    states = []
    for expected in ("not run yet", "complete"):
        result = run()
        states.append({path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()})
        assert result.returncode == 0, result.stderr
        assert ran(result) == {"decontamination": expected, "evaluate": "its result is what it prints"}
        assert "chrF++" in capfd.readouterr().out
    assert states[0] == states[1]
    assert set(ran(run("--stages", "evaluate"))) == {"evaluate"}


def test_the_run_stops_at_the_first_failure(place, capfd):
    write(place, CHECKED.replace("in/bench.tsv", "in/damaged"), SCORED)
    (place / "in/damaged").mkdir()
    (place / "in/damaged/bench.tsv").write_bytes(b"\x1f\x8b\x00")
    result = run()
    assert result.returncode == 2 and set(ran(result)) == {"decontamination"}
    assert (
        "decontamination.py: error: " in capfd.readouterr().err and "error" not in result.stderr
    )  # the stage's own message
    assert not (place / "out/run/decontamination.json").exists() and not (place / "out/scores.json").exists()


def failures(place: Path) -> list[dict]:
    return json.loads(in_process("scripts/status.py", place / "out", "--json").stdout)["failures"]


def test_a_failure_is_shown_until_the_next_start(place):
    """The stage's own last error, without secrets; of one that was killed, the signal."""
    key = "sk-" + "a1B2" * 12
    (place / "in/damaged").mkdir()
    (place / f"in/damaged/{key}.tsv").write_bytes(b"\x1f\x8b\x00")
    write(place, CHECKED.replace("in/bench.tsv", "in/damaged"))
    assert run().returncode == 2
    (failure,) = failures(place)
    assert failure["exit_code"] == 2 and "in/damaged/***.tsv" in failure["error"], failure
    shown = in_process("scripts/status.py", place / "out").stdout
    assert "out: decontamination failed with exit code 2, 20" in shown and failure["error"] in shown
    assert key not in shown + (place / "out/run/failed/decontamination.json").read_text()
    result = in_process("scripts/report.py", place / "out", "-o", place / "page.html")
    assert result.returncode == 0, result.stderr
    write(place, CHECKED)
    assert run().returncode == 0 and failures(place) == []
    assert in_process("scripts/verify.py", place / "out").returncode == 0


def test_a_run_that_was_stopped_has_not_failed(place):
    for code in (130, 143):
        (place / "launch.py").write_text(f"import os; os._exit({code})")
        words = f"target_languages: Basque, launcher: [{sys.executable}, launch.py]"
        write(place, f"train: {{model_name_or_path: m, dataset_name_or_path: udhr, {words}}}")
        assert run().returncode == code
        assert not list((place / "out").rglob("run/failed/*"))


def test_an_incomplete_stage_stops_the_run_unless_that_is_allowed(place):
    write(place, CHECKED, SCORED)
    (place / "in/Basque_translate.jsonl").write_text("")
    result = run()
    assert result.returncode == 3 and set(ran(result)) == {"decontamination"}
    assert (
        "decontamination finished, but incomplete: run the same command again to retry, or pass --allow_incomplete"
        in result.stderr
    )
    result = run("--allow_incomplete")
    assert result.returncode == 3 and ran(result)["decontamination"] == "it ended with exit code 3"
    assert (place / "out/scores.json").exists()


ADAPTER = {"peft_type": "LORA", "r": 64, "lora_alpha": 1}
MISTAKES = [
    ((), "has no section of a stage"),
    (("evaluate: {dirs: in/runs, trails: 3}",), "section evaluate: unknown key trails (did you mean trials?)"),
    (("evaluate: {dirs: in/runs, trials: x}",), "argument --trials: 'x' is not a whole number"),
    (("evaluate: {dirs: in/runs, metrics: chrf, tokenize: 13a}",), "--tokenize has no effect without --metrics bleu"),
    (("evaluate: {dirs: in/runs, metrics: [chrf, gemba-mqm]}",), "--metrics gemba-mqm needs --judge_model_name_or_path"),
    (("evaluate: {}",), "the following arguments are required: DIR (run.yaml, section evaluate)"),
    (("datagen: {languages: Basque, number_of_instructions: 5}",), "section datagen: the generate stage needs --model_name_or_path"),
    (("datagen: {languages: Basque, model_name_or_path: m}",), "section datagen: set the number of paragraphs"),
    (("datagen: {languages: Basque, model_name_or_path: m, number_of_instructions: 5}",), "needs --seed_topics_path"),
    (("main: {tgt: Basqe, model_name_or_path: m}",), "section main: unknown language 'Basqe'"),
    (("main: {tgt: Basque, test_files: [in/a, in/b]}",), "--test_files in/a does not exist"),
    (("main: {tgt: Basque, benchmark_dir: in}",), "section main: cannot load flores in English: no dev/eng_Latn.dev or"),
    (("train: {model_name_or_path: m, dataset_name_or_path: flores, data_dir: in, target_languages: Basque}",), "or pass another --data_dir"),
    (("main: [{tgt: Basque}, {tgt: Basque, num_beams: 99}]",), "section main 2: --num_beams 99 is more than 32"),
    (("main: {tgt: Basque, num_beams: 2, inference_api: cohere}",), "section main: --num_beams 2: APIs have no beam search"),
    (("main: {tgt: Basque, model_name_or_path: m, num_shards: 2, shard_index: 0}",), "section main: --num_shards is a flag of single"),
    (("train: {model_name_or_path: m, bf16: true, fp16: true}",), "section train: --bf16 and --fp16 exclude each other"),
    (("train: {model_name_or_path: m, launcher: accelerate launch}",), "launcher is not a list of words"),
    (("train: {model_name_or_path: m, launcher: [accelerate, launch, --config_file=nope.yaml]}",), "launcher names nope.yaml, which does not"),
    (("train: {model_name_or_path: m, deepspeed: nope.json}",), "--deepspeed nope.json does not exist"),
    (("train: {model_name_or_path: m, target_languages: Basque, template_key: nope.toml}",), "section train: --template_key nope.toml does not exist"),
    (("train: {model_name_or_path: m, metric_for_best_model: chrf}",), "--metric_for_best_model chrf needs translations"),
    (("train: {model_name_or_path: ./nope, dataset_name_or_path: udhr}",), "train: model_name_or_path ./nope does not exist, and no stage"),
    (("main: {tgt: Basque, model_name_or_path: m, k: 1, demonstration_pool: [in/a, in/b]}",), "--demonstration_pool in/a does not exist"),
    (("main: {tgt: Basque, model_name_or_path: m, steps: 1, merge_prompt: nope}",), "--merge_prompt 'nope' does not exist"),
    (("main: {tgt: Basque, model_name_or_path: m, steps: 1, mode_divide: nope}",), "--mode_divide 'nope' does not exist"),
    (("main: {tgt: Basque, model_name_or_path: m, steps: 1, method_divide: 'no.py:F'}",), "no.py:F: there is no file no.py"),
    (("main: {tgt: [Basque, Hausa], model_name_or_path: m, metadata_dir: a}",), "--metadata_dir names the folder of one direction"),
    (("train: [{model_name_or_path: m}, {model_name_or_path: n}]",), "two entries of train have the same output_dir"),
    (("train: [{model_name_or_path: m}, {model_name_or_path: n, output_dir: in/../out/train}]",), "two entries of train have the same output_dir"),
    (("Train: {model_name_or_path: m}", "main: {tgt: Basque, model_name_or_path: '${train.output_dir}'}"), "Train is neither a section"),
    (("main: [{tgt: Basque, model_name_or_path: m}, {tgt: Basque, model_name_or_path: [a, b/m], dataset_name_or_path: ntrex}]",), "main-1 and main-2 have the same folder for their translations"),
    (("main: [{tgt: Basque, model_name_or_path: m}, {tgt: Basque, model_name_or_path: [a, b/m], output_dir: in/../out/translations}]",), "main-1 and main-2 have the same folder for their translations"),
    (("datagen: {languages: Basque, model_name_or_path: m, number_of_instructions: 5, scorer: confidence}",), "section datagen: --scorer confidence: an LLM gives"),
    (("train: {model_name_or_path: m, use_peft: true, lora_r: 32, output_dir: out/t}", "main: {tgt: Basque, model_name_or_path: [m, out/t/checkpoint-9]}"), "lora_rank 16 of main is less than lora_r 32 of train, which makes out/t/checkpoint-9: give main lora_rank: 32"),
    (("train: {model_name_or_path: m, use_peft: true, lora_r: 32, output_dir: in/../out/t}", "main: {tgt: Basque, model_name_or_path: [m, out/t/checkpoint-9]}"), "lora_rank 16 of main is less than lora_r 32 of train, which makes out/t/checkpoint-9: give main lora_rank: 32"),
    (("main: {tgt: Basque, model_name_or_path: in/adapter}",), "main: --lora_rank 16 is less than the rank of in/adapter: pass --lora_rank 64"),
    (("train: {model_name_or_path: in/seq2seq}", "main: {tgt: Basque}"), "in/seq2seq is an encoder-decoder model, so that out/train is no model_name_or_path of main: give main method_translate: nllb and"),
    (("train: {model_name_or_path: m, use_peft: true, use_dora: true}", "main: {tgt: Basque}"), "vLLM does not support DoRA (use_dora), by which train makes out/train: give main inference_api: hf"),
    (("datagen: {languages: Basque, stages: translate, use_nllb: true}", "train: {model_name_or_path: m, data_dir: in/../out/checked, target_languages: [Basque, Hausa]}"), "train has target_languages 'Hausa', of which no stage before it makes pairs (they make Basque), and there is no in/../out/checked/Hausa_translate_filtered.jsonl: add"),
    ((SCORED, "evalute: {dirs: in/runs}"), "evalute is neither a section nor a flag, and nothing refers to it (did you"),
    ((SCORED, "variants: {}"), "has variants: python scripts/compare.py run.yaml runs them"),
    ((SCORED, "sed: 3"), "sed is neither a section nor a flag, and nothing refers to it (did you mean seed?)"),
    ((SCORED, "api_key: sk-attack-51f0"), "api_key cannot be set in a file; keys come from the environment"),
    ((SCORED, "a: ${b}", "b: ${a}", "train: {model_name_or_path: '${a}'}"), "circle: a -> b -> a"),
    ((SCORED, "train: {model_name_or_path: '${modl}'}", "model: m"), "${modl} refers to nothing (did you mean model?)"),
]  # fmt: skip


@pytest.mark.parametrize("sections, message", MISTAKES)
def test_a_mistake_is_one_line_before_anything_runs(place, sections, message):
    for name, config in (("adapter/adapter_config", ADAPTER), ("seq2seq/config", {"is_encoder_decoder": True})):
        (place / f"in/{name}.json").parent.mkdir()
        (place / f"in/{name}.json").write_text(json.dumps(config))
    write(place, CHECKED, *sections) if sections else write(place)
    before = sorted(place.rglob("*"))
    for words in ((), ("--dry_run",)):
        result = run(*words)
        assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
        assert result.stderr.startswith("scripts.run: error: ") and message in result.stderr, result.stderr
        assert "sk-attack" not in result.stderr
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    "benchmark, message",
    [
        ("my.tsv:Basque=1,English=2", "section decontamination: benchmark 'English=2' does not exist"),  # not in quotes
        (
            "in/other.jsonl",
            "section decontamination: benchmark 'in/other.jsonl': there is no file or folder in/other.jsonl",
        ),
        ("udhrr", "benchmark 'udhrr' does not exist; choose one of flores, ntrex"),
        ("in/bench.tsv], allow_missing: [Basque", "section decontamination: --allow_missing 'Basque' does not exist"),
        ("ntrex], benchmark_dir: in, languages: [Basque", "in in; copy it there, or pass another --benchmark_dir"),
        ("my.tsv:Basque", "section decontamination: my.tsv has 2 columns (column 1, column 2); name one as in my.tsv:"),
    ],
)
def test_what_is_no_benchmark_is_found_before_anything_runs(place, benchmark, message):
    (place / "my.tsv").write_text("a\tb\n")
    write(place, CHECKED.replace("in/bench.tsv", benchmark))
    result = run("--dry_run")
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr


@pytest.mark.parametrize(
    "words, message",
    [
        (("--stages", "train"), "--stages 'train' does not exist; choose one of decontamination"),
        (("--stages", "trian"), "--stages 'trian' does not exist; choose one of decontamination"),
        (("--set", "decontamination.ngram=3"), "unknown key ngram (did you mean ngram_size?)"),
        (("--set", "ngram_size"), "is not name=value"),
        (("--set", "train.api_key=S3cret"), "--set 'train.api_key=***' is not name=value"),
        (("--set", "train.seed=1"), "is not name=value or section.flag=value with a section of run.yaml"),
        (("--set", "output_dir=null"), "needs output_dir at the top"),
        (
            ("--dry_run", "--set", "decontamination.input_dir=out/nope"),
            "decontamination: input_dir out/nope does not exist, and no stage",
        ),
    ],
)
def test_mistakes_of_the_command_line(place, words, message):
    write(place, CHECKED)
    result = run(*words)
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert not (place / "out").exists()


@pytest.mark.medium
def test_a_dry_run_shows_commands_that_run_as_they_stand(place):
    write(place, CHECKED, SCORED)
    result = run("--dry_run")
    assert result.returncode == 0 and not (place / "out").exists()
    states, commands = result.stdout.splitlines()[::2], result.stdout.splitlines()[1::2]
    assert states[0] == "# decontamination: will run (not run yet)"
    subprocess.run(commands[0], shell=True, check=True, capture_output=True)
    assert (place / "out/checked/Basque_translate_filtered.jsonl").exists()
    assert run().returncode == 0
    assert run("--dry_run").stdout.splitlines()[0] == "# decontamination: complete"


TRAIN = "train: {{model_name_or_path: m, data_dir: in, target_languages: Basque, max_steps: {steps}, {more}: 5}}"
MAIN = "main: {{model_name_or_path: m, tgt: Basque, max_new_tokens: {tokens}, {more}: 5}}"


def test_results_of_other_flags_are_refused_before_anything_runs(place):
    """Flags that decide no result may change, and translations with another template have a folder of their own."""
    write(place, TRAIN.format(steps=9, more="num_workers"), MAIN.format(tokens=9, more="max_samples"))
    train, main = (command.args for command in chain.commands(RunFile.read(place / "run.yaml")))
    arguments.set_defaults(train)
    folder = place / "out/translations/m/English_to_Basque_0_shot_seed_122_llm_vanilla_None_0_0"
    for path, settings in (
        (place / "out/train/settings_train.json", arguments.result_settings(train, "data") | {"bf16": True}),
        (folder / "settings_translate.json", flag_settings(main) | {"template_key": "14"}),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(settings))
    changed = {
        (
            "train",
            TRAIN.format(steps=10, more="num_workers"),
        ): "out/train holds results of other settings (max_steps was 9, now 10)",
        (
            "train",
            TRAIN.format(steps=-1, more="num_train_epochs"),
        ): "(max_steps was 9, now None; num_train_epochs was None",
        ("train", TRAIN.format(steps=9, more="save_total_limit")): "",
        (
            "main",
            MAIN.format(tokens=8, more="max_samples"),
        ): "_0_0 holds results of other settings (max_new_tokens was 9, now 8)",
        ("main", MAIN.format(tokens=9, more="request_batch_size")): "",
        ("main", MAIN.format(tokens=8, more="template_key")): "",
    }
    for has_results in (False, True):
        for (stage, section), message in changed.items():
            write(place, section)
            result = run("--dry_run")
            if message and has_results:
                assert result.returncode == run().returncode == 2 and result.stderr.count("\n") == 1
                assert f": {stage}: " in result.stderr and message in result.stderr
            else:
                assert result.returncode == 0 and "will run (not run yet)" in result.stdout, result.stderr
        (place / "out/train/model.safetensors").write_text("x")
        (folder / "translate_0.jsonl").write_text("{}\n")
    assert not (place / "out/run").exists()


def test_results_of_a_schedule_that_follows_the_metric_are_continued(place):
    """Its settings name the metric that is the default."""
    write(
        place, TRAIN.format(steps=9, more="num_workers").replace("{", "{lr_scheduler_type: reduce_lr_on_plateau, ", 1)
    )
    (train,) = (command.args for command in chain.commands(RunFile.read(place / "run.yaml")))
    (place / "out/train").mkdir(parents=True)
    arguments.set_defaults(train)
    settings = arguments.result_settings(train, "data")
    (place / "out/train/settings_train.json").write_text(json.dumps(settings))
    (place / "out/train/model.safetensors").write_text("x")
    assert run("--dry_run").returncode == 0


def test_what_a_stage_reads(place, monkeypatch):
    """Files that flags name, with lines and columns behind them, and what of a folder is read; no names of data sets."""
    for name in (
        "topxgen/code.py",
        "udhr/x.txt",
        "Basque/x.txt",  # has the name of a language
        "limits.py",
        *(model := [f"model/{name}" for name in MODEL_FILES]),
        "model/manifest_train.json",
        "model/notes/log.txt",
    ):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("x")
    (place / "mine.py").write_text("import limits")
    test_files = "k: 1, retriever_type: 'mine.py:Own', test_files: ['in/test.tsv[2:]:Basque=2', 'in/pool.eng[:5]']"
    write(
        place,
        "train: {model_name_or_path: model, dataset_name_or_path: topxgen, data_dir: in, target_languages: Basque}",
        f"main: {{model_name_or_path: model, tgt: Basque, dataset_name_or_path: files, {test_files}}}",
        "evaluate: {dirs: in/runs}",
    )
    commands = chain.commands(RunFile.read(place / "run.yaml"))
    read = [[str(path) for path in chain.stages.inputs(command.stage, command.args)] for command in commands]
    pairs = ["in/Basque_translate.jsonl", "in/Basque_translate_filtered.jsonl"]
    assert read[:2] == [[*pairs, *model], ["in/pool.eng", "in/test.tsv", "limits.py", "mine.py", *model]]
    assert {Path(path).name for path in read[2]} == {"translate_0.jsonl"}
    monkeypatch.setenv("TOPXGEN_BENCHMARK_DIR", str(place / "in/runs"))
    of_main = chain.stages.inputs("main", commands[1].args)
    assert any(path.is_relative_to(place / "in/runs") for path in of_main)


def test_what_training_reads_of_named_data_sets(place, monkeypatch):
    for name in ("copies/dev/eus_Latn.dev", "other/dev/eus_Latn.dev", "smolsent/en_eu.jsonl"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("")
    monkeypatch.setenv("TOPXGEN_BENCHMARK_DIR", "other")
    for flags, expected in (
        ("flores", "other/dev/eus_Latn.dev"),
        ("flores --data_dir copies", "copies/dev/eus_Latn.dev"),
        ("smol --data_dir .", "smolsent/en_eu.jsonl"),
    ):
        words = (
            f"--model_name_or_path m --target_languages Basque --output_dir out/model --dataset_name_or_path {flags}"
        )
        args = chain.stages.STAGES["train"].parser().parse_args(words.split())
        assert [str(path) for path in chain.stages.inputs("train", args)] == [expected]


def test_what_main_writes_is_of_its_own_flags(place):
    """Translations with other flags may be in the same folder, from before."""
    text = "main: [{{tgt: Basque, model_name_or_path: m, k: {k}}}, {{tgt: Basque, model_name_or_path: m, k: {k}, metadata_dir: x}}]"
    for name in (
        "English_to_Basque_0_shot_seed_122_llm_vanilla_None_0_0",
        "English_to_Basque_5_shot_seed_122_llm_vanilla_None_0_0",
        "x",
    ):
        (place / "out/translations/m" / name).mkdir(parents=True)
        (place / "out/translations/m" / name / "translate_0.jsonl").write_text("")
    for k in (0, 5):
        write(place, text.format(k=k))
        written = [chain.stages.outputs("main", one.args) for one in chain.commands(RunFile.read(place / "run.yaml"))]
        names = [[path.parent.name for path in paths] for paths in written]
        assert names == [[f"English_to_Basque_{k}_shot_seed_122_llm_vanilla_None_0_0"], ["x"]]


def test_entries_of_main_may_differ_in_the_method(place):
    """Each has its folder, by the name of today or, from an older version, by its settings."""
    room, name = place / "out/translations/m", "English_to_Basque_0_shot_seed_122_llm_vanilla_None_0_0"
    for folder, settings in {
        name: {"method_translate": "TEaR"},
        f"{name}_vanilla": {"method_translate": "vanilla", "template_key": "11"},
        f"{name}_template-9": {"method_translate": "vanilla", "template_key": "9"},
        f"{name}_cot": {"method_translate": "cot"},
        f"{name}1": {"method_translate": "vanilla"},
        "English_to_Hausa_0_shot_seed_122_llm_vanilla_None_0_0": {"method_translate": "vanilla"},
    }.items():
        (room / folder).mkdir(parents=True)
        (room / folder / "translate_0.jsonl").write_text("")
        (room / folder / "settings_translate.json").write_text(json.dumps(settings))
    entries = (
        "tgt: [Basque, Hausa], template_key: 11",
        "tgt: Basque, template_key: 9",
        "tgt: Basque, method_translate: cot",
    )
    entries = (*entries, "tgt: Basque, method_translate: TEaR")
    write(place, f"main: [{', '.join(f'{{model_name_or_path: m, k: 0, {entry}}}' for entry in entries)}]")
    commands = chain.commands(RunFile.read(place / "run.yaml"))
    found = [[path.parent.name for path in chain.stages.outputs("main", one.args)] for one in commands]
    hausa = "English_to_Hausa_0_shot_seed_122_llm_vanilla_None_0_0"
    assert found == [[f"{name}_vanilla", hausa], [f"{name}_template-9"], [f"{name}_cot"], [name]]
    write(place, "main: [{tgt: [Basque, Hausa], model_name_or_path: m}, {tgt: Hausa, model_name_or_path: m}]")
    with pytest.raises(UsageError, match="main-1 and main-2 have the same folder"):
        chain.commands(RunFile.read(place / "run.yaml"))


def test_what_datagen_writes(place):
    (place / "t.txt").write_text("bread\n")
    flags = "languages: [Basque, Hausa], model_name_or_path: m, seed_topics_path: t.txt, number_of_instructions: 1"
    write(place, f"datagen: {{{flags}, use_nllb: true, output_filenames: [eu, ha.jsonl]}}")
    (command,) = chain.commands(RunFile.read(place / "run.yaml"))
    (place / "out/nllb-200-3.3B").mkdir(parents=True)
    files = [
        "out/eu.jsonl",
        "out/ha.jsonl",
        "out/manifest_generate_Hausa.json",
        "out/nllb-200-3.3B/Basque_translate.jsonl",
    ]
    for name in (*files, "out/Basque.jsonl", "out/engine.log", "out/nllb-200-3.3B/Igbo_translate.jsonl"):
        (place / name).write_text("")
    assert [str(path) for path in chain.stages.outputs("datagen", command.args)] == files
    write(place, f"datagen: {{{flags}, output_filenames: [eu]}}")
    result = run()
    assert result.returncode == 2 and ran(result) == {} and "needs one distinct name for each of the 2" in result.stderr


def test_speeds_are_no_part_of_a_trained_model(place):
    write(place, "train: {model_name_or_path: m, dataset_name_or_path: udhr, target_languages: Basque}")
    (command,) = chain.commands(RunFile.read(place / "run.yaml"))
    folder = command.args.output_dir
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "rates.json", "README.md"):
        (folder / name).write_text("{}")
    assert chain.stages.outputs("train", command.args) == [folder / "model.safetensors"]


def test_shared_values_go_where_they_have_an_effect(place):
    """--tokenize of the evaluation is for BLEU alone."""
    evaluate = "evaluate: {dirs: in/runs, metrics: chrf}"
    write(place, "seed: 7", "languages: Basque", "tokenize: 13a", CHECKED, evaluate, "main: {tgt: Basque}")
    words = {command.name: command.words for command in chain.commands(RunFile.read(place / "run.yaml"))}
    assert words["main"][-4:-2] == ("--seed", "7") and words["evaluate"][-2:] == ("--seed", "7")
    assert "--tokenize" not in words["evaluate"]
    assert words["decontamination"][-2:] == ("--languages", "Basque")


def test_the_launcher_starts_train(place):
    (place / "launch.py").write_text("import sys, json; json.dump(sys.argv[1:], open('launched.json', 'w'))")
    words = f"launcher: [{sys.executable}, launch.py, --num_processes, 2]"
    write(place, f"train: {{model_name_or_path: m, dataset_name_or_path: udhr, target_languages: Basque, {words}}}")
    assert run().returncode == 0
    words = json.loads((place / "launched.json").read_text())
    assert words[:3] == ["--num_processes", "2", str(ROOT / "train.py")] and "--model_name_or_path" in words
    write(place, "train: {model_name_or_path: m, launcher: [no-such-program]}")
    result = run()
    assert result.returncode == 2 and "cannot start no-such-program" in result.stderr


def test_one_entry_of_a_section_runs_alone(place):
    entries = ", ".join(f"{{model_name_or_path: m, dataset_name_or_path: udhr, output_dir: out/{i}}}" for i in (1, 2))
    write(place, f"target_languages: Basque\ntrain: [{entries}]", CHECKED)
    lines = run("--stages", "train-2", "--dry_run").stdout.splitlines()
    assert [line for line in lines if line.startswith("#")] == ["# train-2: will run (not run yet)"]
    lines = run("--stages", "decontamination", "train", "--dry_run").stdout.splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == ["# decontamination", "# train-1", "# train-2"]
    result = run("--stages", "train-3")
    assert result.returncode == 2 and "--stages 'train-3' does not exist; choose one of" in result.stderr


def test_a_stage_that_is_killed_ends_the_run(place):
    (place / "launch.py").write_text("import os; os.kill(os.getpid(), 9)")
    words = f"target_languages: Basque, launcher: [{sys.executable}, launch.py]"
    write(place, f"train: {{model_name_or_path: m, dataset_name_or_path: udhr, {words}}}", SCORED)
    result = run()
    assert result.returncode == 137 and "train was ended by signal 9" in result.stderr, result.stderr
    (failure,) = failures(place)
    assert (failure["stage"], failure["exit_code"], failure["error"]) == ("train", 137, "ended by signal 9")
    assert result.stderr.count("===") == 1
