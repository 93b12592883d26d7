"""scripts/doctor.py as a user meets it: the screen, Python and packages, what a run lacks."""

import json
import os
import pty
import subprocess
import sys

import pytest

from scripts import doctor as doctor_script
from tests.support.doctor_runs import doctor, findings, llama_8b, of, write_run
from tests.support.runs import ROOT, in_process
from topxgen.doctor import software


def test_the_demo_has_no_problem_fits_the_screen_asks_no_network_and_leaves_nothing(tmp_path, tiny_lm):
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\ndef refuse(*_, **__): raise SystemExit('a socket was opened')\n"
        "socket.socket.connect = socket.socket.bind = socket.getaddrinfo = refuse\n"
    )
    run = write_run(tmp_path, tiny_lm)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.iterdir())}
    result = doctor(run, PYTHONPATH=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")
    assert result.returncode == 0 and not result.stderr, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    # The first line has the path of the run file, however long.
    assert max(map(len, lines[1:])) <= 100 and "\x1b" not in result.stdout and lines[-1].startswith("0 problems")
    assert any(line.startswith("datagen: generate ") for line in lines) and any(
        line.startswith("train ") for line in lines
    )
    assert {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.iterdir())} == before


def test_a_remedy_is_below_the_problems_that_have_it(capsys):
    found = [
        doctor_script.Finding(*row)
        for row in (
            ("problem", "a", "x", "fetch it"),
            ("problem", "b", "y", "fetch it"),
            ("note", "c", "z", "fetch it"),
            ("ok", "d", "fine"),
            ("ok", "e", "fine"),
        )
    ]
    doctor_script.show_findings(found)
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "problem a x", "problem b y", "-> these 2: fetch it", "note c z", "-> fetch it", "ok d fine", "ok e fine"
    ]  # fmt: skip


def test_the_published_recipe_fits_the_screen():
    lines = doctor(ROOT / "configs/runs/topxgen.yaml", HF_HUB_OFFLINE="1", HF_HOME="/nonexistent").stdout.splitlines()
    assert max(map(len, lines[1:])) <= 100 and len(lines) < 60
    assert any("these" in line and "scripts/prefetch.py downloads it" in line for line in lines)


def test_rounds_whose_models_are_yet_to_come(tmp_path):
    run = tmp_path / "run.yaml"
    run.write_text(
        (ROOT / "configs/runs/self_improvement.yaml")
        .read_text()
        .replace("models/gemma-3-270m", str(llama_8b(tmp_path / "llama")))
    )
    lines = doctor(run).stdout.splitlines()
    text = " ".join(" ".join(lines).split())
    assert "round-1-datagen: unknown: outputs/self-improvement/train is not trained yet" in text
    assert "existing folder" not in text and "0.00 GB" not in text
    rows = [line for line in lines if line.startswith("round-") and "is not trained yet" not in line]
    assert len(rows) == len({line.split("  ")[0] for line in rows}) == 29, "each row names its round"
    assert {row[:8] for row in rows} == {"round-0-", "round-1-", "round-2-"}


def test_the_machine_alone_needs_no_file():
    found = findings()
    assert {row["check"] for row in found} >= {"python", "gpus", "packages", "environments", "disk", "locks"}
    assert all(row["text"] and row["level"] in ("ok", "note", "problem") for row in found)
    assert not [row for row in found if row["text"].startswith("unknown") and row["level"] == "ok"]
    assert [row for row in found if row["level"] == "problem" and not row["remedy"]] == []


def test_colours_are_for_terminals():
    reader, writer = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "scripts/doctor.py"],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TERM": "xterm", "COLUMNS": "80"},
        stdout=writer,
        stderr=writer,
    ) as process:
        os.close(writer)
        text = b""
        while True:
            try:
                text += os.read(reader, 4096)
            except OSError:
                break
    os.close(reader)
    assert process.returncode == 0 and b"\x1b[32mok" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [("datagen: [", "run.yaml"), ("datagen:\n  no_such_flag: 1\n", "no_such_flag"), ("\0\1", "run.yaml")],
)
def test_garbage_is_one_line(tmp_path, text, says):
    path = tmp_path / "run.yaml"
    path.write_text(f"output_dir: {tmp_path}/out\n{text}")
    result = doctor(path)
    assert result.returncode == 2 and not result.stdout
    assert result.stderr.count("\n") == 1 and says in result.stderr, result.stderr


def test_a_model_that_is_missing(tmp_path):
    found = findings(write_run(tmp_path, model="org/none"), code=1)
    assert of(found, "assets", "problem") == [
        "org/none: model for datagen, train: not downloaded -> scripts/prefetch.py downloads it"
    ]
    assert "unknown: whether org/none fits" in of(found, "memory")[0] and "train writes" in "".join(
        of(found, "disk", "note")
    )
    assert "not checked: offline" in of(found, "access", "note")[0]


def test_comets_environment_is_missing(tmp_path, tiny_lm):
    run = write_run(tmp_path, tiny_lm, tail=f"evaluate:\n  dirs: [{tmp_path}/t]\n  metrics: [comet]\n")
    [text] = of(findings(run, COMET_PYTHON=f"{tmp_path}/python"), "environments", "problem")
    assert (
        f"no interpreter {tmp_path}/python" in text and "evaluate cannot score" in text and "setup.sh --comet" in text
    )
    [text] = of(findings(run, COMET_PYTHON="/usr/bin/python3"), "environments", "problem")
    assert "no package comet for /usr/bin/python3" in text


def test_help_has_the_exit_codes():
    assert "  1    at least one problem" in doctor("--help").stdout


def test_a_broken_package_is_found_and_hides_nothing(tmp_path, tiny_lm):
    (tmp_path / "liger_kernel").mkdir()
    (tmp_path / "liger_kernel" / "__init__.py").write_text("raise RuntimeError('built for another torch')\n")
    found = findings("--imports", "liger_kernel", code=1, PYTHONPATH=str(tmp_path))
    assert of(found, "imports") == [
        "liger_kernel: is installed but cannot be imported: RuntimeError: built for another torch -> pip install --force-reinstall liger_kernel"
    ]
    # One that the checks themselves stand on.
    (tmp_path / "psutil.py").write_text("def virtual_memory(): raise TypeError('broken')\n")
    found = findings(write_run(tmp_path, tiny_lm), PYTHONPATH=str(tmp_path))
    assert "the check failed (TypeError: broken)" in of(found, "memory", "problem")[0] and of(found, "locks", "ok")


WITHOUT_CLD2 = """
import sys


class Gone:
    def find_spec(self, name, *_):
        if name == "pycld2":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Gone())
"""


def test_the_language_identifier_that_has_no_wheel_for_aarch64(tmp_path, tiny_lm):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_CLD2)
    found = findings(write_run(tmp_path, tiny_lm), code=1, PYTHONPATH=str(tmp_path))
    [text] = of(found, "packages", "problem")
    assert text.startswith("pycld2: not installed; ") and "--lid_model langid" in text, text


def test_packages_that_flags_need(tmp_path, tiny_lm):
    found = findings(
        write_run(tmp_path, tiny_lm, train="use_peft: true\n  use_liger_kernel: true\n  bf16: true"),
        code=1,
    )
    [text] = of(found, "packages", "problem")
    assert not of(found, "inputs") and text.startswith(
        "liger_kernel: not installed; train cannot run without it -> pip install liger-kernel"
    )


def test_a_model_with_code_of_its_own_needs_a_flag(tmp_path):
    model = llama_8b(tmp_path / "own", layers=1)
    config = json.loads((model / "config.json").read_text()) | {"auto_map": {"AutoConfig": "code.Config"}}
    for model_type, trusts, count in (("planted", False, 1), ("planted", True, 0), ("llama", False, 0)):
        (model / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
        flag = f"trust_remote_code: {str(trusts).lower()}"
        path = write_run(tmp_path, model, more=flag, train=flag)
        found = json.loads(in_process("scripts/doctor.py", path, "--json").stdout)["findings"]
        named = [text for text in of(found, "inputs", "problem") if "train cannot load it without" in text]
        assert len(named) == count and all("--trust_remote_code" in text for text in named)


def test_what_ends_the_first_stage_at_once_is_a_problem(tmp_path):
    keyless = of(
        findings(write_run(tmp_path, "gpt", more="inference_api: openai"), code=1, OPENAI_API_KEY=""), "inputs"
    )
    assert len(keyless) == 1 and "datagen: --inference_api openai needs a key: export OPENAI_API_KEY" in keyless[0]
    judged = (
        "evaluate: {dirs: d, metrics: [gemba-da], judge_model_name_or_path: claude, judge_inference_api: anthropic}\n"
    )
    found = of(findings(write_run(tmp_path, "org/none", tail=judged), code=1, ANTHROPIC_API_KEY=""), "inputs")
    assert len(found) == 1 and "evaluate: --inference_api anthropic needs a key: export ANTHROPIC_API_KEY" in found[0]
    own, text = tmp_path / "own.yaml", tmp_path / "texts.txt"
    text.write_text("Itsasoa lasai zegoen.\n", encoding="utf-8")
    own.write_text(
        f"output_dir: {tmp_path}/out\n"
        "datagen: {languages: Basque, back_translator: apertium, scorer: confidence, distributed: ray}\n"
        "train: {model_name_or_path: m}\nmain: {dataset_name_or_path: udhr, src: Basque, tgt: English}\n"
        f"seeds: [1]\nbaseline: one\nvariants: {{one: {{datagen: {{paragraphs: {text}}}}}, two: {{datagen: {{paragraphs: {tmp_path}}}}}}}\n"
    )
    found = findings(own, code=1)
    [problem] = of(found, "inputs", "problem")
    assert "has no Basque.txt or Basque.jsonl" in problem
    assert not of(found, "environments"), "COMET is not used"


def test_python_that_is_not_supported(monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.14.0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = in_process("scripts/doctor.py", "--json")
    [text] = of(json.loads(result.stdout)["findings"], "python", "problem")
    assert result.returncode == 1 and "3.14.0 is not supported" in text


def test_versions_of_a_build_are_compared_as_pip_does():
    from packaging.specifiers import SpecifierSet

    assert software._fits("2.13.0+cu130", SpecifierSet(">=2.13,<2.15")) and not software._fits(
        "2.15.0+cu130", SpecifierSet("<2.15")
    )
    assert not software._fits("2.13.0", SpecifierSet("==2.13.0+cpu"))
