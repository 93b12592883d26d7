"""What the tests of comptra share."""

import pytest

from comptra import evaluate
from tests.support.compared_runs import LENGTHS


@pytest.fixture
def score(monkeypatch, capsys):
    """Run the command in this process: (exit code, what it printed, what it said)."""

    def run(*args):
        monkeypatch.setattr("sys.argv", ["evaluate.py", *map(str, args)])
        try:
            code = evaluate.main()
        except SystemExit as end:  # argparse
            code = end.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(LENGTHS)
    monkeypatch.chdir(tmp_path)
    return tmp_path
