"""Who may import whom, what importing costs, and the command lines: quick help, a sentence for every flag."""

import argparse
import ast
import functools
import importlib
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runs import ROOT, in_process
from topxgen.experiments.stages import STAGES as STAGE_ROWS

STAGES = ("generation", "decontamination", "training")
# The room above the scripts: it starts them as processes of their own, and reads their flags.
EXPERIMENTS = ROOT / "topxgen" / "experiments"
DOCTOR = ROOT / "topxgen" / "doctor"  # above the experiments: what they need, against this machine
# Rooms above the stages, which read what these leave; beside scripts, only these rooms and the page know the first.
ABOVE = ("runs", "publication")
READERS = {*(ROOT / "topxgen" / room for room in ABOVE), ROOT / "comptra" / "report", ROOT / "comptra" / "verify"}
MODULES = [*ROOT.glob("comptra/**/*.py"), *ROOT.glob("topxgen/**/*.py")]
# Module of each parser, and the command that prints its help.
VERIFY = ROOT / "comptra" / "verify"  # reads what all rooms write: of all, it may import all
PARSERS = {
    "datagen": ["datagen.py"],
    "decontamination": ["decontamination.py"],
    "train": ["train.py"],
    "main": ["main.py"],
    "comptra.evaluate": ["-m", "comptra.evaluate"],
    "scripts.merge_lora": ["scripts/merge_lora.py"],
    "scripts.data_stats": ["scripts/data_stats.py"],
    "scripts.run": ["scripts/run.py"],
    "scripts.slurm.submit": ["scripts/slurm/submit.py"],
    "scripts.compare": ["scripts/compare.py"],
    "scripts.probe_contamination": ["scripts/probe_contamination.py"],
    "scripts.report": ["scripts/report.py"],
    "scripts.status": ["scripts/status.py"],
    "scripts.publish": ["scripts/publish.py"],
    "scripts.sample": ["scripts/sample.py"],
    "scripts.verify": ["scripts/verify.py"],
    "scripts.prefetch": ["scripts/prefetch.py"],
    "scripts.doctor": ["scripts/doctor.py"],
}
HELP_LIMIT_S, NUMPY_S = 1.0, 0.1  # of a help text, and of `import numpy` on the same machine


@functools.cache
def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} line {node.lineno}: a relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and re.fullmatch(r"\w+(\.\w+)*:\w+", str(node.value)):
            names.add(node.value.partition(":")[0])  # a row of a registry
    return names


def rooms(path: Path) -> set[str]:
    """What of topxgen a file imports, by room: topxgen.text, ..."""
    return {".".join(name.split(".")[:2]) for name in imports(path) if name.startswith("topxgen.")}


def test_no_module_imports_a_root_script():
    scripts = {path.stem for path in ROOT.glob("*.py")}
    for path in MODULES:
        if path != EXPERIMENTS / "stages.py":
            assert not {name.split(".")[0] for name in imports(path)} & scripts, path


def test_topxgen_never_imports_comptra():
    for path in ROOT.glob("topxgen/**/*.py"):
        if path != EXPERIMENTS / "stages.py":
            assert not any(name.split(".")[0] == "comptra" for name in imports(path)), path


def test_only_scripts_know_the_experiments_which_know_of_scripts_their_flags_alone():
    for path in MODULES:
        if path.parent not in (EXPERIMENTS, DOCTOR, VERIFY):
            assert "topxgen.experiments" not in rooms(path), path
        if path.parent != DOCTOR:
            assert "topxgen.doctor" not in rooms(path), path
    scripts = {path.stem for path in ROOT.glob("*.py")} | {"comptra"}
    tree = ast.parse((EXPERIMENTS / "stages.py").read_text(encoding="utf-8"))
    statements = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    statements |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in statements} & scripts
    constants = {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert not [name for name in constants if re.fullmatch(r"\w+(\.\w+)*:\w+", name)]
    assert {row.script[-1] for row in STAGE_ROWS.values()} == {
        *(f"{name}.py" for name in scripts - {"comptra"}),
        "comptra.evaluate",
        "scripts/merge_lora.py",
    }
    assert all(row.function(name) for row in STAGE_ROWS.values() for name in ("build_parser", "needs"))
    assert {name for name, row in STAGE_ROWS.items() if row.function("estimates")} == {"datagen", "train", "main"}
    assert {name for name, row in STAGE_ROWS.items() if row.function("check_results")} == {"train", "main"}


def test_stages_do_not_import_each_other_nor_shared_rooms_a_stage():
    stages = {f"topxgen.{stage}" for stage in STAGES}
    for path in MODULES:
        package, room = path.relative_to(ROOT).parts[:2]
        if (package, room) not in {("topxgen", above) for above in ABOVE} and path.parent != VERIFY:
            assert not rooms(path) & (stages - {f"topxgen.{room}"}), f"{path} imports a stage"


def test_rooms_that_read_runs_are_above_the_stages_and_below_the_page():
    for path in MODULES:
        if not READERS & set(path.parents):
            assert not rooms(path) & {f"topxgen.{room}" for room in ABOVE}, path


def test_the_common_room_imports_no_other_room():
    for path in ROOT.glob("topxgen/common/*.py"):
        if path.name != "flags.py":  # the flags take their choices from the rooms' tables
            assert rooms(path) <= {"topxgen.common"}, path


def test_importing_loads_nothing_heavy():
    # These subclass torch's and transformers' classes; what imports them does so when it runs.
    backends = {
        ROOT / "topxgen" / "training" / name
        for name in ("streaming.py", "token_loss.py", "trainer.py", "log.py", "varlen.py")
    }
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in [*MODULES, *ROOT.glob("*.py")]
        if path not in backends
    ]
    heavy = [
        *(
            "torch",
            "transformers",
            "vllm",
            "datasets",
            "pyarrow",
            "ray",
            "nltk",
            "huggingface_hub",
            "fasttext",
            "pycld2",
            "spacy",
        ),
        *("scipy", "matplotlib", "sacrebleu", "ctranslate2", "peft", "accelerate", "deepspeed", "openai", "cohere"),
        *("anthropic", "bm25s", "Stemmer", "rapidfuzz", "ruamel"),
    ]
    script = (
        f"import importlib, json, sys\nfor m in {modules!r}: importlib.import_module(m)\n"
        f"print(json.dumps([h for h in {heavy!r} if h in sys.modules]))"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []


def test_templates_are_importable_where_they_were_published():
    from comptra.prompts.templates import get_template

    assert get_template.__module__ == "topxgen.prompting.mt_templates"


def processor_time(*words: str) -> tuple[float, subprocess.CompletedProcess]:
    """Of Python with these words, in seconds; it hardly depends on what else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, result


@pytest.mark.parametrize("module", PARSERS)
def test_help_is_quick(module):
    for _ in range(3):
        seconds, result = processor_time(*PARSERS[module], "--help")
        if seconds < HELP_LIMIT_S:
            break
    else:  # a slow machine?
        assert seconds < HELP_LIMIT_S * processor_time("-c", "import numpy")[0] / NUMPY_S
    assert result.stdout.startswith("usage: ") and "exit codes:" in result.stdout and not result.stderr


@pytest.mark.parametrize("module", PARSERS)
def test_every_flag_has_a_help_text(module):
    """At least three words besides the default in brackets."""
    parser = importlib.import_module(module).build_parser()
    bare = []
    for action in parser._actions:
        text = re.sub(r"\[[^]]*\]", "", action.help or "")
        if action.help == argparse.SUPPRESS or len(text.split()) < 3:
            bare.append(action.option_strings[-1:] or action.dest)
    assert not bare, f"without a help text: {bare}"


@pytest.mark.parametrize("module", PARSERS)
def test_a_mistyped_flag_is_one_line_with_the_nearest_one(module):
    parser = importlib.import_module(module).build_parser()
    flag = max((name for action in parser._actions for name in action.option_strings), key=len)
    result = in_process(module, f"{flag[:-1]}x", "1")
    assert result.returncode == 2 and not result.stdout
    assert flag in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_the_repository_has_no_links():
    """A link to an environment deletes the folder of that name wherever the commit is checked out, since that is ignored."""
    tracked = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True).stdout
    assert [line for line in tracked.split("\n") if line.startswith("120000")] == []


def test_no_test_forks_its_own_process():
    """A fork of a process with threads can wait for ever; tests.support.processes starts others."""
    word = "os." + "fork("
    forking = {
        str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py") if word in path.read_text("utf-8")
    }
    assert forking == {"tests/attack/child.py"}, "tests/attack/child.py has no threads"
