"""The tables of attacks are complete, and the attacks find what they look for."""

import re
from pathlib import Path

import pytest

from tests.attack import faults, flags, formats
from tests.attack.campaign import COLUMNS, KINDS
from tests.attack.file_operations import ACTIONS
from tests.attack.shooting_range import CODES, Range, differences
from tests.attack.table import NO_ROW, OPEN, SCRIPTS, STAGES, Stage
from tests.support.documentation import parser_of
from tests.support.runs import ROOT
from topxgen.generation.manifests import STAGES as DATAGEN_STAGES

FILES_MD = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")


def test_every_script_with_flags_has_a_row():
    scripts = [
        path
        for path in (*ROOT.glob("*.py"), *(ROOT / "scripts").glob("*.py"), *(ROOT / "scripts/slurm").glob("*.py"))
        if "argparse" in path.read_text() or "Parser(" in path.read_text()
    ]
    names = {str(path.relative_to(ROOT)) for path in scripts} | {"comptra.evaluate"}
    assert names - set(NO_ROW) == set(flags.BASES) == set(SCRIPTS)


def test_every_flag_is_given_hostile_values():
    for script in SCRIPTS:
        parser = parser_of(script)
        words = [word for attack in flags.attacks(script, faults.random.Random(0), 1, 0) for word in attack]
        given = {word.split("=")[0] for word in words}
        for action in parser._actions:
            if action.option_strings and action.dest not in ("help", "version"):
                assert set(action.option_strings) & given, f"{script} {action.option_strings[0]}"


def test_every_stage_of_datagen_is_killed():
    stages = {word for stage in STAGES.values() if "--stages" in stage.command for word in stage.command}
    assert set(DATAGEN_STAGES) <= stages


def test_every_file_of_the_documentation_has_a_row():
    """Names in the headings and in the first columns of the tables of docs/files.md."""
    places = re.findall(r"^(?:### |\| )(`[^|:]*)", FILES_MD, re.M)
    named = {name for place in places for name in re.findall(r"`([\w{}/.-]+\.(?:jsonl|json|png|log|md|tsv))`", place)}
    documented = {name for row in formats.FORMATS for name in row.documented} | set(formats.ONLY_WRITTEN)
    assert len(named) >= 20
    assert {name for name in named if not _known(name, documented)} == set()


def _known(name: str, documented: set[str]) -> bool:
    return any(name == entry or name == entry.split("/")[-1] or name.split("/")[-1] == entry for entry in documented)


def test_open_rows_exist():
    rows = {
        *(f"{kind}: {stage}" for kind in KINDS for stage in STAGES),
        *(f"files: {row.id}" for row in formats.FORMATS),
        *(f"flags: {script}" for script in flags.BASES),
    }
    assert [entry for entry in OPEN if not any(row.startswith(entry) for row in rows)] == []


def test_exit_codes_are_those_of_the_documentation():
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", FILES_MD, re.M)} == set(CODES)


# The harness itself, on scripts with faults

FAULTY = """
import json, os, sys, time
from pathlib import Path


def main():
    what, out = sys.argv[1], Path("out")
    out.mkdir(exist_ok=True)
    if what == "traceback":
        raise ValueError("x")
    if what == "hang":
        time.sleep(60)
    if what == "outside":
        Path("../elsewhere").write_text("x")
    if what == "appends":  # doubles what was there
        with open(out / "a.jsonl", "a") as file:
            for i in range(4):
                file.write("x" * 9000)
                file.flush()
    if what == "direct":  # takes a half-written file for a whole one
        path = out / "b.jsonl"
        if not path.exists():
            with open(path, "w") as file:
                file.write("y" * 100_000)
    if what == "swallows":  # an error is no error
        try:
            with open(out / "c.jsonl", "w") as file:
                file.write("z" * 100_000)
        except OSError:
            pass
    if what == "sound":
        with open(out / "d.partial", "w") as file:
            file.write("z" * 100_000)
        os.replace(out / "d.partial", out / "d.jsonl")
    print("done")
    return 0
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("range")
    (folder / "clean" / "in").mkdir(parents=True)
    (folder / "scripts").mkdir()
    (folder / "scripts" / "faulty_script.py").write_text(FAULTY)
    place = Range(folder, modules=folder / "scripts")
    yield place
    place.close()


@pytest.mark.parametrize("what", ["traceback", "hang", "outside"])
def test_faults_are_found(place, what):
    folder = place.new_folder(place.folder / "clean")
    outcome = place.run(folder, ["faulty_script", what], timeout=0.3 if what == "hang" else 60)
    problem = {"outside": "writes outside"}.get(what, what)
    assert any(found.startswith(problem) for found in outcome.problems), outcome.problems
    assert not (place.folder / "elsewhere").exists()


@pytest.mark.parametrize(
    "what, actions",
    [
        ("appends", {"kill", "torn", "SIGTERM", "SIGINT"}),
        ("direct", {"kill", "torn"}),
        ("swallows", {"ENOSPC", "EIO", "EDQUOT"}),
        ("sound", set()),
    ],
)
@pytest.mark.medium
def test_lost_and_doubled_records_are_found(place, monkeypatch, what, actions):
    monkeypatch.setitem(STAGES, what, Stage(("faulty_script", what)))
    stage = faults.undisturbed(place, place.folder / "clean", what, ("faulty_script", what))
    found = set()
    for plan in stage.plans:
        problems = [problem for outcome in faults.attack(place, stage, plan) for problem in outcome.problems]
        if any(problem.startswith(COLUMNS["results lost, doubled or different"]) for problem in problems):
            found.add(plan["action"])
    assert actions <= found <= {*actions, *(ACTIONS if actions else ())}, found


def test_every_action_happens(place, monkeypatch):
    """At the write of a script whose file is renamed: each leaves the process as it should."""
    monkeypatch.setitem(STAGES, "sound", Stage(("faulty_script", "sound")))
    stage = faults.undisturbed(place, place.folder / "clean", "sound", ("faulty_script", "sound"))
    at = next(i for i, (operation, _) in enumerate(stage.outcome.seen) if operation == "write")
    codes = {}
    for action in ACTIONS:
        folder = place.new_folder(stage.ready)
        outcome = place.run(folder, ["faulty_script", "sound"], fault={"at": at, "action": action})
        codes[action] = outcome.code
        left = Path(folder / "out" / "d.partial")
        if action == "torn":
            assert left.stat().st_size == 50_000
    assert codes == {
        "kill": -9, "torn": -9, "SIGTERM": -15, "SIGINT": 1, "ENOSPC": 1, "EIO": 1, "EDQUOT": 1, "EROFS": 1, "lost": 1, "gone": 1, "short": 0
    }  # fmt: skip


def test_differences():
    whole = {"a": "1", "b": "2", "x_answers.jsonl": "p\nq"}
    assert differences(whole, dict(whole)) == []
    assert differences(whole, {"a": "1", "b": "3", "c": "4", "x_answers.jsonl": "q\np\nr"}) == [
        "b is different: '3' for '2'", "c is left behind"
    ]  # fmt: skip
    assert len(differences(whole, {**whole, "x_answers.jsonl": "p\nq\nq"})) == 1
