"""The commands of README.md and docs/, and a folder that they run in."""

import argparse
import importlib
import json
import re
import shlex
import sys
from functools import cache
from pathlib import Path

from tests.support.runs import ROOT
from topxgen.corpora import benchmarks
from topxgen.text import languages

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]

# Scripts of ours by the words that start them, and the module whose build_parser() reads their flags.
PARSERS = {
    "datagen.py": "datagen",
    "decontamination.py": "decontamination",
    "train.py": "train",
    "main.py": "main",
    "comptra.evaluate": "comptra.evaluate",
    "scripts/merge.py": "scripts.merge",
    "scripts/merge_lora.py": "scripts.merge_lora",
    "scripts/data_stats.py": "scripts.data_stats",
    "scripts/run.py": "scripts.run",
    "scripts/slurm/submit.py": "scripts.slurm.submit",
    "scripts/compare.py": "scripts.compare",
    "scripts/probe_contamination.py": "scripts.probe_contamination",
    "scripts/report.py": "scripts.report",
    "scripts/status.py": "scripts.status",
    "scripts/publish.py": "scripts.publish",
    "scripts/sample.py": "scripts.sample",
    "scripts/verify.py": "scripts.verify",
    "scripts/prefetch.py": "scripts.prefetch",
    "scripts/doctor.py": "scripts.doctor",
}
# Shell scripts of ours whose arguments go to one of them.
WRAPPERS = {"scripts/train.sh": "train.py", "scripts/train.slurm": "train.py", "scripts/eval.sh": "comptra.evaluate"}
WRAPPERS_WITHOUT_FLAGS = ("scripts/demo.sh", "scripts/test.sh", "scripts/setup.sh", "scripts/perf/gpu.sh")
# Commands of other programs: only listed here, never run.
FOREIGN = (
    ("source",),
    ("pip", "install"),
    ("uv", "pip"),
    ("uv", "sync"),
    ("git", "clone"),
    ("cd",),
    ("export",),
    ("hf", "download"),
    ("embedding-atlas",),
    ("vllm", "serve"),
    ("python", "-m", "vllm.entrypoints.openai.api_server"),
    ("python", "-m", "spacy", "download"),
    ("python", "-m", "tests.support.synthetic_run"),
    ("python3.11", "-m", "venv"),
    ("python3.12", "-m", "venv"),
    (".venv-comet/bin/pip", "install"),
    (".venv-sonar/bin/pip", "install"),
    ("sudo", "apt-get", "install"),
    ("pytest",),
    ("squeue", "--me"),
)


def fences(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}(?: \S+)?\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def without_fences(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def commands(page: Path) -> list[str]:
    """The commands of its bash blocks, each on one line, without comments."""
    text = "\n".join(fences(page, "bash")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


ALL_COMMANDS = [(page.name, command) for page in PAGES for command in commands(page)]


def words_of(command: str) -> list[str]:
    """Its words without settings of environment variables in front and comments behind."""
    words = shlex.split(command, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    return words


@cache
def parser_of(script: str) -> argparse.ArgumentParser:
    return importlib.import_module(PARSERS[script]).build_parser()


def script_and_arguments(words: list[str]) -> tuple[str, list[str]] | None:
    """The script of ours that `words` start and its arguments; None for a command of another program."""
    if words[:2] == ["python", "-m"] and words[2] in PARSERS:
        return words[2], words[3:]
    if words[0] == "python" and words[1].endswith(".py"):
        return words[1], words[2:]
    if words[0] == "bash":
        return words[1], words[2:]
    if words[0] == "sbatch":
        place = next(i for i, word in enumerate(words) if word.endswith(".slurm") or word == "--wrap")
        if words[place] == "--wrap":
            return script_and_arguments(words_of(words[place + 1]))
        return words[place], words[place + 1 :]
    if words[:2] == ["accelerate", "launch"]:
        place = words.index("train.py")
        return words[place], words[place + 1 :]
    return None


@cache
def flags_of(script: str) -> frozenset[str]:
    """The flags of a script: its parser's, or those that stand in its text."""
    if script in PARSERS:
        return frozenset(parser_of(script)._option_string_actions)
    return frozenset(re.findall(r'add_argument\(\s*"(--[\w-]+)"', (ROOT / script).read_text(encoding="utf-8")))


def command_line(command: str, more: tuple[str, ...] = ()) -> list[str]:
    """A command as this Python runs it from any folder."""
    script, arguments = script_and_arguments(words_of(command.replace("\\\n", " ")))
    start = [str(ROOT / script)] if script.endswith(".py") else ["-m", script]
    return [sys.executable, *start, *arguments, *more]


def make_workplace(folder: Path, model: str) -> None:
    """Fill a folder as the README's commands find it: a model, topics, generated pairs, and two systems' translations."""
    (folder / "models").mkdir()
    (folder / "models" / "gemma-3-270m").symlink_to(model)
    for name in ("topics", "data"):
        (folder / name).symlink_to(ROOT / name)
    dev, test = (
        {split.name: split for split in benchmarks.load("udhr", languages.find(name))} for name in ("Basque", "English")
    )
    pairs = folder / "outputs" / "demo" / "apertium"
    pairs.mkdir(parents=True)
    with open(pairs / "Basque_translate.jsonl", "w", encoding="utf-8") as file:
        for basque, english in zip(dev["dev"].texts, test["dev"].texts, strict=False):
            record = {"sentence": basque, "propositions": [basque], "translations": [english], "scores": [None]}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    sources, references = dev["test"].texts, test["test"].texts
    for model, texts in (("gemma-3-270m", sources), ("lora", references)):
        run = (
            folder
            / "outputs"
            / "demo"
            / "translations"
            / model
            / "Basque_to_English_0_shot_seed_122_llm_vanilla_None_0_0"
        )
        run.mkdir(parents=True)
        lines = zip(sources, texts, strict=True)
        records = [json.dumps({"sentence": source, "translation": text}, ensure_ascii=False) for source, text in lines]
        (run / "translate_0.jsonl").write_text("\n".join(records) + "\n", encoding="utf-8")
