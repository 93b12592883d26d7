"""The run files of the documentation, the published recipe and the demo."""

import shlex

from tests.support.documentation import fences
from tests.support.runs import ROOT
from topxgen.common.run_files import RunFile
from topxgen.experiments import chain


def test_the_examples_of_the_documentation_have_no_mistakes(tmp_path):
    """docs/experiments.md: the file of flags, and the run file."""
    blocks = {block.partition("\n")[0]: block for block in fences(ROOT / "docs/experiments.md", "yaml")}
    (tmp_path / "flags.yaml").write_text(blocks["# flags.yaml"])
    parser = chain.stages.STAGES["decontamination"].parser()
    args = parser.parse_args(["--config", str(tmp_path / "flags.yaml"), "--input_dir", "in"])
    assert (args.benchmarks, args.near_duplicate_threshold, args.drop_on_sentence_overlap) == (
        ["flores", "ntrex"],
        0.6,
        "pair",
    )
    (tmp_path / "run.yaml").write_text(blocks["# run.yaml"])
    commands = chain.commands(RunFile.read(tmp_path / "run.yaml"))
    assert [command.name for command in commands] == [
        "datagen",
        "decontamination",
        "train",
        "main-1",
        "main-2",
        "evaluate",
    ]
    assert commands[2].line[:2] == ["accelerate", "launch"]


def test_the_published_recipe_has_no_mistakes():
    """configs/runs/topxgen.yaml: flags and values as scripts/train.sh and docs/generation.md have them."""
    commands = chain.commands(RunFile.read(ROOT / "configs/runs/topxgen.yaml"))
    assert [command.stage for command in commands] == [
        "datagen",
        "decontamination",
        "train",
        "main",
        "evaluate",
    ]
    assert commands[3].args.tgt == commands[0].args.languages and len(commands[3].args.tgt) == 10
    training, first = vars(commands[2].args), vars(commands[0].args)
    recipe = (ROOT / "scripts/train.sh").read_text()
    recipe = shlex.split(recipe[recipe.index("--dataset_name_or_path") : recipe.index("--output_dir")])
    published = vars(
        chain.stages.STAGES["train"].parser().parse_args([*recipe, "--model_name_or_path", "m", "--output_dir", "o"])
    )
    lora = {"use_peft", "lora_r", "lora_alpha", "learning_rate"}
    assert {name for name, value in training.items() if value != published[name]} == lora | {
        "model_name_or_path",
        "output_dir",
        "data_dir",
    }
    text = (ROOT / "docs/generation.md").read_text().replace("\\\n", " ")
    (words,) = [shlex.split(line)[2:] for line in text.splitlines() if "gemma-3-27b-it" in line and "5000" in line]
    assert vars(chain.stages.STAGES["datagen"].parser().parse_args(words)) == first


def test_the_demo_is_the_commands_of_the_readme():
    """configs/runs/demo.yaml and README.md: the same flags with the same values."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    shown = [shlex.split(line) for line in readme.splitlines() if line.startswith("python ")]
    commands = chain.commands(RunFile.read(ROOT / "configs/runs/demo.yaml"))
    found = []
    for command in commands:
        script = "comptra.evaluate" if command.stage == "evaluate" else f"{command.stage}.py"
        words = next(line[line.index(script) + 1 :] for line in shown if script in line)
        parser = chain.stages.STAGES[command.stage].parser()
        flags = vars(parser.parse_args(words))
        found.append({name for name, value in vars(command.args).items() if value != flags[name]})
    # The README shows one of two runs of train.py and main.py.
    assert found == [
        set(),
        set(),
        {"dataset_name_or_path", "data_dir", "output_dir"},
        set(),
        {"src", "tgt"},
        set(),
        set(),
    ]
