"""YAML files of flags and run files: what each script gets of them, and each kind of mistake in one line."""

import importlib
import json
import sys

import pytest

import comptra.evaluate
import datagen
import decontamination
import main
import train
from tests.support.runs import in_process
from topxgen.common import provenance, run_files
from topxgen.common.errors import UsageError
from topxgen.common.run_files import RunFile

SCRIPTS = {"datagen": datagen, "decontamination": decontamination, "train": train, "main": main}
SCRIPTS["evaluate"] = comptra.evaluate


def parse(section: str, path, text: str, *words, monkeypatch=None):
    path.write_text(text, encoding="utf-8")
    return SCRIPTS[section].build_parser().parse_args(["--config", str(path), *map(str, words)])


def refused(capsys, section: str, path, text: str, *words) -> str:
    """The message, which is one line, after exit code 2."""
    with pytest.raises(SystemExit) as end:
        parse(section, path, text, *words)
    err = capsys.readouterr().err
    assert end.value.code == 2 and err.count("\n") == 1 and ": error: " in err, err
    return err


def test_values_mean_what_is_written(tmp_path):
    text = """
model_name_or_path: base
output_dir: out
learning_rate: 1e-5
target_languages: [no, on, y]
reverse: true
bf16: false
lr_scheduler_type: polynomial
lr_scheduler_kwargs: {power: 2, lr_end: 1e-7, name: "3", deep: {on: true, off: null}}
dataset_size: -1
subset: null
template_key: 0x1F
split: "null"
hub_model_id: 2026-01-02
"""
    args = parse("train", tmp_path / "flags.yaml", text)
    assert (args.learning_rate, args.target_languages) == (1e-5, ["no", "on", "y"])
    assert (args.reverse, args.bf16, args.dataset_size, args.subset) == (True, False, -1, None)
    assert args.lr_scheduler_kwargs == {"power": 2, "lr_end": 1e-7, "name": "3", "deep": {"on": True, "off": None}}
    assert (args.template_key, args.split, args.hub_model_id) == ("0x1F", "null", "2026-01-02")
    assert args.given >= {"learning_rate", "bf16", "dataset_size"} and "subset" not in args.given
    assert "config" not in vars(args), "a file's name is no setting"


def test_the_command_line_wins_also_for_lists_and_positionals(tmp_path):
    text = "dirs: [a, b]\nmetrics: [bleu, chrf]\nbaseline: a\nseed: 1"
    args = parse("evaluate", tmp_path / "e.yaml", text, "c", "--metrics", "lang", "--seed=2")
    assert ([str(path) for path in args.dirs], args.metrics, args.seed) == (["c"], ["lang"], 2)
    assert str(args.baseline) == "a"
    args = parse("evaluate", tmp_path / "e.yaml", text, "--trials", 5)
    assert ([str(path) for path in args.dirs], args.metrics, args.trials) == (["a", "b"], ["bleu", "chrf"], 5)
    args = parse("evaluate", tmp_path / "e.yaml", text, "--", "c", "d")
    assert ([str(path) for path in args.dirs], args.metrics) == (["c", "d"], ["bleu", "chrf"])


def test_a_flag_by_its_other_name_is_the_same_flag(tmp_path, capsys):
    base = "output_dir: out\nlanguages: Basque\n"
    text = f"{base}dataset_generation_pipeline: topxgen"
    args = parse("datagen", tmp_path / "d.yaml", text, "--data_generation_pipeline", "topxgen")
    assert args.data_generation_pipeline == "topxgen"
    both = f"{text}\ndata_generation_pipeline: topxgen"
    assert "are the same flag" in refused(capsys, "datagen", tmp_path / "d.yaml", both)


def test_the_recorded_command_repeats_the_run_without_the_file(tmp_path, monkeypatch):
    """Manifests have the flags, not the name of a file that may change."""
    (tmp_path / "flags.yaml").write_text("benchmarks: [udhr]\nngram_size: 12\ninput_dir: elsewhere")
    monkeypatch.setattr(
        sys, "argv", ["decontamination.py", "--config", str(tmp_path / "flags.yaml"), "--input_dir", "in"]
    )
    args = decontamination.build_parser().parse_args()
    words = provenance.command_line(())
    assert words == ["decontamination.py", "--input_dir", "in", "--benchmarks", "udhr", "--ngram_size", "12"]
    assert vars(decontamination.build_parser().parse_args(words[1:])) == vars(args)


RUN = """
output_dir: D
languages: [Basque]
model: google/gemma-3-27b-it
datagen: {model_name_or_path: "${model}", use_nllb: true}
decontamination: {}
train: {model_name_or_path: base, launcher: [accelerate, launch]}
main: [{src: English, tgt: Basque}, {src: Basque, tgt: English}]
evaluate: {json: "${output_dir}/scores.json"}
"""


def tree(text: str, tmp_path) -> RunFile:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return RunFile.read(path)


def values(file: RunFile, section: str) -> list[dict]:
    return file.stage(section, SCRIPTS[section].build_parser().flags())


def test_the_stages_of_a_run_lead_to_each_other(tmp_path):
    file = tree(RUN, tmp_path)
    pairs = "D/nllb-200-3.3B"
    assert values(file, "datagen")[0]["output_dir"] == "D"
    assert values(file, "decontamination") == [{"languages": ["Basque"], "input_dir": pairs}]
    (training,) = values(file, "train")
    assert training["data_dir"] == pairs and training["output_dir"] == "D/train"
    assert training["target_languages"] == ["Basque"] and training["launcher"] == ["accelerate", "launch"]
    for entry, src in zip(values(file, "main"), ("English", "Basque"), strict=True):
        assert (entry["src"], entry["model_name_or_path"], entry["output_dir"]) == (src, "D/train", "D/translations")
    assert values(file, "evaluate") == [{"json": "D/scores.json", "dirs": "D/translations"}]


@pytest.mark.parametrize(
    "flags, folder",
    [
        ("back_translator: apertium", "apertium"),
        ("use_nllb: true, nllb_name_or_path: org/small", "small"),
        ("use_nllb: false", "gemma-3-27b-it"),
        ("adapter_name_or_path: a/lora", "lora"),
        ("translate_dir: mine", "mine"),
        ("translate_dir: null, use_nllb: TRUE", "nllb-200-3.3B"),
    ],
)
def test_the_folder_of_the_pairs_is_that_of_datagen(tmp_path, flags, folder):
    from topxgen.generation.plan import GenerationConfig

    file = tree(RUN.replace("use_nllb: true", f"seed_topics_path: t.txt, number_of_instructions: 1, {flags}"), tmp_path)
    assert values(file, "decontamination")[0]["input_dir"] == f"D/{folder}"
    args = datagen.build_parser().parse_args(["--config", str(tmp_path / "run.yaml")])
    assert str(GenerationConfig(args).layout.translate_dir) == f"D/{folder}"


def test_what_is_given_counts_instead_of_the_defaults(tmp_path):
    file = tree(RUN.replace("decontamination: {}", "decontamination: {output_dir: clean, languages: null}"), tmp_path)
    assert values(file, "train")[0]["data_dir"] == "clean"
    assert values(file, "decontamination")[0]["languages"] is None
    file = tree(RUN.replace("decontamination: {}", "decontamination: null"), tmp_path)
    assert values(file, "decontamination") == [] and values(file, "train")[0]["data_dir"] == "D/nllb-200-3.3B"
    file = tree(
        RUN.replace("model_name_or_path: base", "model_name_or_path: base, dataset_name_or_path: udhr"), tmp_path
    )
    assert "data_dir" not in values(file, "train")[0]
    file = tree(RUN + "data_dir: null", tmp_path)
    assert values(file, "train")[0]["data_dir"] == "D/nllb-200-3.3B"
    file = tree(RUN.replace("train: {", "train: null\nold: {"), tmp_path)
    assert "model_name_or_path" not in values(file, "main")[0]


def test_a_value_at_the_top_may_be_the_default(tmp_path):
    text = RUN.replace("decontamination: {}", "decontamination: {output_dir: clean}\ndata_dir: clean")
    assert values(tree(text, tmp_path), "train")[0]["data_dir"] == "clean"


def test_a_reference_to_several_entries_is_their_list(tmp_path):
    several = "train: [{model_name_or_path: a, output_dir: t1}, {model_name_or_path: b, output_dir: t2}]"
    text = RUN.replace("train: {model_name_or_path: base, launcher: [accelerate, launch]}", several)
    assert values(tree(text, tmp_path), "main")[0]["model_name_or_path"] == ["t1", "t2"]
    schedules = text.replace("name_or_path: a,", "name_or_path: a, lr_scheduler_kwargs: {power: 1},")
    schedules = schedules.replace("name_or_path: b,", "name_or_path: b, lr_scheduler_kwargs: {power: 2},")
    schedules = schedules.replace(
        "{src: English,", '{model_name_or_path: "${train.lr_scheduler_kwargs}", src: English,'
    )
    assert values(tree(schedules, tmp_path), "main")[0]["model_name_or_path"] == [{"power": "1"}, {"power": "2"}]
    text = text.replace("{src: English,", '{model_name_or_path: [base, "${train.output_dir}"], src: English,')
    assert values(tree(text, tmp_path), "main")[0]["model_name_or_path"] == ["base", "t1", "t2"]


def test_a_script_takes_its_section(tmp_path):
    args = parse("train", tmp_path / "run.yaml", RUN, "--seed", 5)
    assert (list(map(str, args.data_dir)), args.seed, args.model_name_or_path) == (["D/nllb-200-3.3B"], 5, "base")


def test_entries_share_flags_as_in_yaml(tmp_path):
    text = "output_dir: D\ntrain:\n  - &a {model_name_or_path: m, seed: 1}\n  - {<<: *a, seed: 2}"
    assert [entry["seed"] for entry in values(tree(text, tmp_path), "train")] == ["1", "2"]


@pytest.mark.parametrize(
    "section, text, message",
    [
        ("train", "learning_rat: 1", "unknown key learning_rat (did you mean learning_rate?)"),
        ("train", "output_dir: D\ntrain: {learning_rat: 1}", "section train: unknown key learning_rat"),
        ("train", "train: {model_name_or_path: m, seed: x}", "argument --seed: 'x' is not a whole number"),
        ("train", "train: {model_name_or_path: m, seed: x}", "section train)"),
        ("train", "seed: 1\nseed: 2", "line 2: seed is there twice"),
        ("train", "train: {seed: 1, seed: 2}", "line 1: seed is there twice"),
        ("train", "- seed", "is not a mapping"),
        ("train", "seed", "is not a mapping"),
        ("train", "a: [1", "line 1: expected"),
        ("train", "train: {model_name_or_path: [${m}]}", 'quote a reference: "${…}"'),
        ("train", "seed: !!python/object:os.system x", "is not supported; write the value without a tag"),
        ("train", "[1]: 2", "a key is a list or a mapping"),
        ("train", "seed: &a [*a]", "nested too deeply"),
        ("train", "<<: 3", "<< takes a mapping"),
        ("train", "seed: [1, 2]", "seed takes one value, not a list of 2"),
        ("train", "seed: {a: 1}", "seed takes no mapping"),
        ("train", "seed: ''", "seed is empty"),
        ("train", "target_languages: []", "target_languages is []"),
        ("train", "target_languages: [a, null]", "write a list of values"),
        ("train", "target_languages: [a, [b]]", "write a list of values"),
        ("train", "target_languages: [--seed, 3]", "has the value '--seed', which looks like a flag"),
        ("evaluate", "dirs: [-x]", "has the value '-x', which looks like a flag"),
        ("datagen", "api_key: secret-51f0", "api_key cannot be set in a file; keys come from the environment"),
        ("datagen", "datagen: {api_key: secret-51f0}", "api_key cannot be set in a file"),
        ("datagen", "api_key: secret-51f0\ndatagen: {}", "api_key cannot be set in a file"),
        ("train", "dry_run: true", "dry_run cannot be set in a file"),
        ("train", "config: x.yaml", "config cannot be set in a file"),
        ("train", "seed: ${sed}\nseeds: 1", "${sed} refers to nothing (did you mean"),
        ("train", "a: ${b}\nb: x ${a}\nseed: ${a}", "circle: a -> b -> a"),
        ("train", "train: {seed: '${train.seed}'}", "circle: train.seed -> train.seed"),
        (
            "train",
            "main: {}\ntrain: {dataset_name_or_path: '${main.model_name_or_path}', output_dir: '${train.data_dir}'}",
            "the references lead in a circle",
        ),
        (
            "decontamination",
            "output_dir: D\ndatagen: {model_name_or_path: '${decontamination.input_dir}'}\ndecontamination: {}",
            "circle: ",
        ),
        ("train", "train: {seed: '${main.k}'}", "refers to section main, which the file does not have"),
        ("train", "train: {seed: '${train.sed}'}", "refers to a value that is not given (did you mean train.seed?)"),
        ("train", "train: {seed: '${train}'}", "write ${train.FLAG}"),
        ("train", "a: [1]\nseed: x${a}", "${a} is a list, which cannot be a part of"),
        ("train", "a: null\nseed: x${a}", "${a} is null"),
        ("train", "lr_scheduler_kwargs: {lr_end: [-.inf]}", "has a number that JSON does not have"),
        ("train", "output_dir: ~/out", "output_dir is ~/out; only a shell expands ~"),
        ("train", "main: {tgt: Basque}", "has no section train (it has main)"),
        ("train", "train: null", "has no section train (it has no section that is not null)"),
        ("train", "train: [1]", "train is not a mapping of flags to values, or a list of such mappings"),
        ("datagen", "datagen: [{}]", "datagen is not a mapping of flags to values;"),
        ("main", "main: [{tgt: Basque}, {tgt: Hausa}]", "scripts/run.py"),
        ("main", "output_dir: D\nmodel_name_or_path: m\ntrain: {}\nmain: {}", "write in the section which it is"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, section, text, message):
    err = refused(capsys, section, tmp_path / "run.yaml", text)
    assert message in err and "secret-51f0" not in err and "run.yaml" in err, err


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: \xe9", b"a: \x00", b"\x1f\x8b", b"a: " + b"[" * 5000])
def test_a_file_that_is_no_yaml_is_one_line(tmp_path, capsys, content):
    (tmp_path / "x.yaml").write_bytes(content)
    for path in ("x.yaml", "nowhere.yaml", ".", "/dev/zero"):
        with pytest.raises(SystemExit) as end:
            train.build_parser().parse_args(["--config", str(tmp_path / path)])
        err = capsys.readouterr().err
        assert end.value.code == 2 and err.count("\n") == 1, err


def test_aliases_of_aliases_do_not_grow_without_end(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    with pytest.raises(UsageError, match="more than 100,000 values"):
        run_files.read(tmp_path / "x.yaml")


def test_config_twice_or_without_a_file(tmp_path, capsys):
    (tmp_path / "x.yaml").write_text("seed: 1")
    for words in (["--config"], ["--config", "--seed", "1"], [f"--config={tmp_path}/x.yaml", "--config", "y.yaml"]):
        with pytest.raises(SystemExit):
            train.build_parser().parse_args(words)
        assert "argument --config: " in capsys.readouterr().err


def test_a_script_runs_from_a_file(tmp_path):
    """Decontamination of a real file, its manifest included."""
    pairs = {"sentence": "Kaixo.", "propositions": ["Kaixo mundua."], "translations": ["Hello world."]}
    (tmp_path / "Basque_translate.jsonl").write_text(json.dumps(pairs) + "\n")
    (tmp_path / "flags.yaml").write_text(f"input_dir: {tmp_path}\nbenchmarks: udhr\nnum_workers: 1\nngram_size: 9")
    result = in_process("decontamination.py", "--config", tmp_path / "flags.yaml", "--ngram_size", 8)
    assert result.returncode == 0, result.stderr
    manifest = json.loads((tmp_path / "manifest_decontaminate_Basque.json").read_text())
    assert manifest["settings"]["ngram_size"] == 8
    assert "--config" not in manifest["command"] and "udhr" in manifest["command"]


def test_changed_values_are_written_as_in_the_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("seeds: [1]\nmain: [{k: 0}, {k: 1}]\ntrain: {seed: 1}\n", encoding="utf-8")
    changes = ["seeds=[2, 3]", "main.test_files=['${a}[1:]', b]", "train.seed=null", "a=x:y", "b=1e-5"]
    tree = run_files.read_changed(path, changes)
    assert tree["seeds"] == ["2", "3"] and tree["train"] == {"seed": None} and (tree["a"], tree["b"]) == ("x:y", "1e-5")
    assert tree["main"] == [{"k": k, "test_files": ["${a}[1:]", "b"]} for k in "01"]
    for change, says in {
        "seeds=[1": "--set 'seeds=[1', line 1: ",
        "train.seed=": "is not name=value",  # of a shell variable that is not set
        "a=[1, !x 2]": "is not supported; write the value without a tag",
        "a={b: 1, b: 2}": "b is there twice",
    }.items():
        with pytest.raises(UsageError) as error:
            run_files.read_changed(path, [change])
        assert says in str(error.value)


@pytest.mark.parametrize("name", ["run", "compare"])
def test_no_change_is_lost_where_set_is_given_twice(name):
    parser = importlib.import_module(f"scripts.{name}").build_parser()
    assert parser.parse_args(["x.yaml", "--set", "a=1", "b=2", "--set", "c=3"]).set == ["a=1", "b=2", "c=3"]
    assert parser.parse_args(["x.yaml"]).set == []
