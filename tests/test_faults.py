"""scripts/inject_faults.py: its table fits the code; what it reports, over a project of one file."""

import pytest

from scripts import inject_faults
from scripts.inject_faults import Fault, read_table

CODE = 'LIMIT = 3\n\n\ndef enough(number):\n    return number >= LIMIT  # "LIMIT"\n'
TESTS = "from code_under_test import enough\n\n\ndef test_enough():\n    assert enough(3) and not enough(2)\n"


def test_every_row_of_the_table_fits_the_code():
    faults = read_table(inject_faults.TABLE, inject_faults.ROOT)
    assert len(faults) >= 60 and len({str(fault) for fault in faults}) > 0.9 * len(faults)


@pytest.fixture
def project(tmp_path, monkeypatch):
    root = tmp_path / "project"
    (root / "scripts").mkdir(parents=True)
    (root / "code_under_test.py").write_text(CODE)
    (root / "test_it.py").write_text(TESTS)
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    monkeypatch.setattr(inject_faults, "ROOT", root)
    return root


def table(root, *faults, tests=("test_it.py",)):
    path = root / "faults.toml"
    rows = ", ".join(f"['{old}', '{new}']" for old, new in faults)
    path.write_text(f'[[file]]\npath = "code_under_test.py"\ntests = {list(tests)}\nfaults = [{rows}]\n')
    return path


def run(root, monkeypatch, *arguments) -> int:
    monkeypatch.setattr(
        "sys.argv", ["inject_faults.py", "--table", str(root / "faults.toml"), "--jobs", "1", *arguments]
    )
    return inject_faults.main()


def test_caught_and_survived(project, monkeypatch, capsys):
    table(project, ("LIMIT = 3", "LIMIT = 4"), ("return number >=", "return number > 2 and number >="))
    assert run(project, monkeypatch) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("caught") and "LIMIT = 3 -> LIMIT = 4" in lines[0] and lines[1].startswith("SURVIVED")
    assert lines[-1].split() == ["all", "2", "1"]
    assert (project / "code_under_test.py").read_text() == CODE, "faults go into a copy"
    assert run(project, monkeypatch, "--only", "LIMIT = 4", "--check") == 0
    assert capsys.readouterr().out == "1 faults\n"


def test_tests_that_fail_without_a_fault_prove_nothing(project, monkeypatch, capsys):
    table(project, ("LIMIT = 3", "LIMIT = 4"))
    (project / "test_it.py").write_text(TESTS.replace("not enough(2)", "enough(2)"))
    assert run(project, monkeypatch) == 2
    assert "without any fault, test_it.py fails" in capsys.readouterr().err


@pytest.mark.parametrize(
    "fault, tests, message",
    [
        (("LIMIT", "M"), ("test_it.py",), "occurs 3 times, not once"),
        (("LIMITS", "M"), ("test_it.py",), "occurs 0 times"),
        (("LIMIT = 3", "LIMIT ="), ("test_it.py",), "not Python"),
        (("LIMIT = 3", "LIMIT = 4"), ("test_no.py",), "test_no.py: no such test file"),
    ],
)
def test_rows_that_do_not_fit(project, monkeypatch, capsys, fault, tests, message):
    path = table(project, fault, tests=tests)
    with pytest.raises(ValueError, match=message):
        read_table(path, project)
    assert run(project, monkeypatch) == 2 and message in capsys.readouterr().err


def test_a_fault_is_named_in_one_line():
    assert str(Fault("a.py", "x\n    y", "z" * 99, ())) == f"a.py: x y -> {'z' * 59}…"
