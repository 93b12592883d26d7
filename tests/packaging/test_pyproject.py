"""pyproject.toml: the same requirements as requirements*.txt, all data files, and commands that run from any folder."""

import importlib
import itertools
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import quote

import pytest

import topxgen
from tests.support.runs import ROOT
from topxgen.common.errors import UsageError
from topxgen.corpora import benchmarks, examples
from topxgen.text import languages

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]
EXTRAS = PROJECT["optional-dependencies"]


def listed(file: str) -> list[str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    packages = (re.split("[#;]", line)[0].strip() for line in lines)  # without comments and markers of platforms
    return [package for package in packages if package]


def required(*extras: str) -> set[str]:
    """The requirements of an environment; an extra's bounds replace those of the base for the same package."""
    requirements = {}
    for extra in extras:
        for line in PROJECT["dependencies"] if extra == "base" else EXTRAS[extra]:
            line = line.partition(";")[0]
            requirements[line.split("[")[0] if "[" in line else name_of(line)] = line
    requirements.pop("topxgen", None)
    return set(requirements.values())


def name_of(requirement: str) -> str:
    return requirement[: next((i for i, char in enumerate(requirement) if char in "<>=!~ "), len(requirement))]


@pytest.mark.parametrize(
    "file, extras, extra_lines",
    [
        ("requirements.txt", ("base", "models", "gpu"), set()),
        ("requirements-cpu.txt", ("base", "models", "cpu", "dev"), set()),
        ("requirements-comet.txt", ("comet",), set()),
        ("requirements-sonar.txt", ("sonar",), {"msgspec>=0.20", "tqdm>=4.67"}),
    ],
)
def test_requirements_files_list_what_pyproject_requires(file, extras, extra_lines):
    lines = listed(file)
    assert len(set(lines)) == len(lines)
    assert set(lines) == required(*extras) | extra_lines


def test_lower_bounds_are_not_above_what_is_installed():
    from importlib.metadata import version

    from packaging.requirements import Requirement

    for line in required("base", "models", "cpu", "dev"):
        requirement = Requirement(line)
        assert requirement.specifier.contains(version(requirement.name), prereleases=True), line


def test_extras_that_cannot_share_an_environment_are_declared_as_conflicts():
    """uv resolves all extras at once, unless they are declared; COMET and sonar-space pin older versions of what the others need."""
    apart = {
        frozenset(one["extra"] for one in pair) for row in PYPROJECT["tool"]["uv"]["conflicts"] for pair in pairs(row)
    }
    assert {name for pair in apart for name in pair} <= set(EXTRAS)
    judges = {"comet", "sonar"}
    assert {frozenset(("gpu", "cpu")), frozenset(judges)} <= apart
    for extra in EXTRAS.keys() - judges - {"ray"}:  # Ray needs nothing that is pinned
        assert {frozenset((extra, judge)) for judge in judges} <= apart, extra
    # The base is in all environments, COMET's with NumPy 1, too.
    assert "py3langid" not in map(name_of, PROJECT["dependencies"])


def pairs(row: list) -> list[tuple]:
    return list(itertools.combinations(row, 2))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed: pip install uv")
def test_uv_resolves_all_extras_for_every_python(tmp_path):
    """`uv lock`, which `uv sync` begins with, what `uv sync --extra cpu` installs, and `uv pip compile`.

    The index of PyTorch's CPU builds is a local one, whose wheels have the metadata of the installed torch and no code.
    """
    for name in ("topxgen", "comptra"):
        (tmp_path / name).mkdir()
        shutil.copy(ROOT / name / "__init__.py", tmp_path / name)
    for path in (*ROOT.glob("*.py"), ROOT / "README.md", ROOT / "LICENSE"):
        shutil.copy(path, tmp_path)
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (index,) = PYPROJECT["tool"]["uv"]["index"]
    local = text.replace(index["url"], (tmp_path / "index").as_uri())
    (tmp_path / "pyproject.toml").write_text(local, encoding="utf-8")
    (torch,) = (line.partition("==")[2] for line in EXTRAS["cpu"] if line.startswith("torch=="))
    write_index_of_torch(tmp_path / "index" / "torch", torch)

    def uv(*words: str) -> str:
        result = subprocess.run(["uv", *words], cwd=tmp_path, capture_output=True, text=True)
        if "dns error" in result.stderr or "Failed to fetch" in result.stderr:
            pytest.skip("no package index can be reached")
        assert result.returncode == 0, f"uv {' '.join(words)}: {result.stderr}"
        return result.stdout + result.stderr

    uv("lock")
    assert f"torch=={torch}" in uv("sync", "--dry-run", "--extra", "cpu", "--python", sys.executable)
    for python in ("3.11", "3.12", "3.13"):
        for extra in EXTRAS:
            uv("pip", "compile", "--quiet", "pyproject.toml", "--extra", extra, "--python-version", python)


def write_index_of_torch(folder: Path, version: str) -> None:
    """A package index with wheels of torch for three Pythons, as far as a resolver reads them."""
    folder.mkdir(parents=True)
    metadata = distribution("torch").read_text("METADATA")
    metadata = re.sub(r"(?m)^Version: .*$", f"Version: {version}", metadata, count=1)
    links = []
    for python in ("cp311", "cp312", "cp313"):
        name = f"torch-{version}-{python}-{python}-manylinux_2_28_x86_64.whl"
        with zipfile.ZipFile(folder / name, "w") as wheel:
            wheel.writestr(f"torch-{version}.dist-info/METADATA", metadata)
            wheel.writestr(f"torch-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n")
            wheel.writestr(f"torch-{version}.dist-info/RECORD", "")
        links.append(f'<a href="{quote(name)}">{name}</a>')
    (folder / "index.html").write_text("".join(links), encoding="utf-8")


def test_ci_runs_all_tests_but_the_slow_ones():
    options = PYPROJECT["tool"]["pytest"]["ini_options"]
    assert "-m 'not slow and not medium'" in options["addopts"]
    assert [line.partition(":")[0] for line in options["markers"]] == ["medium", "slow"]
    commands = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert commands[2] == "set -euo pipefail", "no tests at all (exit code 5) is a failure, too"
    assert commands[-2:] == ["bash scripts/test.sh", "bash scripts/test.sh -m 'medium and not slow'"]


def test_version_and_pythons():
    assert PROJECT["dynamic"] == ["version"] and SETUPTOOLS["dynamic"]["version"] == {"attr": "topxgen.__version__"}
    cff = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert "\nversion:" not in cff or f"\nversion: {topxgen.__version__}\n" in cff.replace('"', "")
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    assert (
        "python3.13" in (ROOT / "scripts/setup.sh").read_text()
        and PYPROJECT["tool"]["ruff"]["target-version"] == "py311"
    )


def test_every_script_and_data_file_is_packaged():
    assert sorted(SETUPTOOLS["py-modules"]) == sorted(path.stem for path in ROOT.glob("*.py"))
    globs = SETUPTOOLS["package-data"]["*"]
    for package in ("topxgen", "comptra"):
        for path in (ROOT / package).rglob("*"):
            if path.suffix == ".py" and path.parent.name != "prompts":
                assert (path.parent / "__init__.py").is_file(), (
                    f"{path.parent} is not a package: its files are not installed"
                )
            elif path.is_file() and path.suffix not in (".py", ".pyc"):
                folder = path.parent
                while not (folder / "__init__.py").is_file():
                    folder = folder.parent
                name = str(path.relative_to(folder))
                assert any(fnmatch(name, glob.replace("**/", "")) for glob in globs), (
                    f"{path} matches no package-data glob"
                )


@pytest.mark.parametrize("command", sorted(PROJECT["scripts"]))
def test_commands_run_from_any_folder(command, tmp_path):
    """As the installed command does it: import the function and call it. The project is on the path as if installed."""
    module, function = PROJECT["scripts"][command].split(":")
    assert callable(getattr(importlib.import_module(module), function))
    code = f"import sys; from {module} import {function} as run; sys.argv = [{command!r}, '--help']; sys.exit(run())"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert result.returncode == 0 and result.stdout.startswith("usage: "), result.stderr
    assert not list(Path(tmp_path).iterdir())


def test_evaluation_runs_as_a_module_from_any_folder(tmp_path):
    command = [sys.executable, "-m", "comptra.evaluate", "--help"]
    result = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert result.returncode == 0 and "usage: python -m comptra.evaluate" in result.stdout, result.stderr


def test_a_wheel_without_the_udhr_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmarks, "UDHR", tmp_path / "data" / "udhr")
    with pytest.raises(UsageError, match="a wheel does not; clone the repository"):
        examples.example_sentences("udhr", languages.find("Basque"))
