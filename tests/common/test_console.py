"""What reaches the user's terminal."""

import logging
import os
import subprocess
import sys
import warnings

import pytest

from tests.support.runs import ROOT
from topxgen.common.console import ONCE, Progress, aligned, library_output_to, printable, setup_logging, width

logger = logging.getLogger("topxgen.test")


@pytest.fixture(autouse=True)
def restored_logging():
    root = logging.getLogger()
    handlers, factory, formatted = list(root.handlers), logging.getLogRecordFactory(), warnings.formatwarning
    yield
    root.handlers = handlers
    logging.setLogRecordFactory(factory)
    warnings.formatwarning = formatted


def test_control_characters_of_other_peoples_texts_are_escaped(capsys):
    assert printable("a\x1b[31mb\x07\u202ec\u2028\x85\nd\te") == "a\\x1b[31mb\\x07\\u202ec\\u2028\\x85\nd\te"
    written_with_joiners = "नेपा\u200dली می\u200cخواهم 10\u00a0km"
    assert printable(written_with_joiners) == written_with_joiners
    setup_logging("script.py")
    logger.info("topic \x1b]0;owned\x07")
    logger.error("--languages 'a\x1b[2J'")
    assert capsys.readouterr().err == "topic \\x1b]0;owned\\x07\nscript.py: error: --languages 'a\\x1b[2J'\n"


def test_control_characters_that_libraries_print_are_escaped(capsys):
    """transformers warns by a handler of its own, with values of a config.json; others by Python's warnings."""
    setup_logging("script.py")
    library = logging.getLogger("somebody.with.a.handler")
    library.propagate, handler = False, logging.StreamHandler()
    library.addHandler(handler)
    library.warning("a model of type %s", "\x1b]0;owned\x07")
    library.removeHandler(handler)
    assert capsys.readouterr().err == "a model of type \\x1b]0;owned\\x07\n"
    shown = warnings.formatwarning("a \x1b[31mdtype", UserWarning, "model.py", 1, line="x")  # as Python shows it
    assert shown == "model.py:1: UserWarning: a \\x1b[31mdtype\n  x\n"


def test_what_is_shown_of_whom(capsys, monkeypatch):
    setup_logging("script.py")
    logger.debug("detail")
    logger.warning("careful")
    for _ in range(2):
        logger.info("only once", extra=ONCE)
    other = logging.getLogger("somebody.else")
    other.info("chatter")
    other.warning("trouble")
    assert capsys.readouterr().err == "WARNING: careful\nonly once\nWARNING: trouble\n"
    setup_logging("script.py")  # the next run in one process
    logger.info("only once", extra=ONCE)
    assert capsys.readouterr().err == "only once\n"
    monkeypatch.setenv("RANK", "1")
    setup_logging("train.py")
    logger.warning("careful")
    logger.error("no memory")
    assert capsys.readouterr().err == "rank 1: train.py: error: no memory\n"


def test_a_message_with_an_endless_value_keeps_its_ends(capsys):
    setup_logging("script.py")
    logger.error(f"x.json: field a is {'x' * 200_000!r}; restore it or remove it")
    line = capsys.readouterr().err
    assert line.startswith("script.py: error: x.json: field a is 'xxx") and line.endswith("; restore it or remove it\n")
    assert 1000 < len(line) < 9000


def test_a_terminal_that_is_not_utf8_shows_escapes():
    code = "from topxgen.common.console import setup_logging\nsetup_logging('x')\nprint('Urdu: اردو')"
    env = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "Urdu: \\u0627\\u0631\\u062f\\u0648\n"), result.stderr


def test_lines_do_not_break_an_open_bar(capsys):
    setup_logging("script.py")
    with Progress("translate", 10, "sentences") as bar:
        bar.update(4, rejected=1)
        logger.info("loading a model")
    first, last = capsys.readouterr().err.splitlines()
    assert first == "loading a model"
    assert last.startswith("translate: 4/10 sentences, 1 rejected (") and last.endswith(" elapsed)")


def test_what_libraries_print_goes_to_the_log(tmp_path):
    log = tmp_path / "logs" / "engine.log"
    code = f"""
import logging, os, pathlib, warnings
from topxgen.common.console import library_output_to, setup_logging
setup_logging("x.py")
logger = logging.getLogger("topxgen.x")
with library_output_to(pathlib.Path({str(log)!r})):
    print("engine on stdout")
    os.system("echo a process of its own >&2")
    warnings.warn("deprecated", FutureWarning)
    logger.info("loading")
print("result")
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "result\n", "loading\n")
    written = log.read_text()
    assert all(words in written for words in ("engine on stdout", "a process of its own", "FutureWarning: deprecated"))


def test_the_log_is_never_opened_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("do not lose me")
    (tmp_path / "engine.log").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"), library_output_to(tmp_path / "engine.log"):
        pass
    assert (tmp_path / "precious").read_text() == "do not lose me"


def test_columns_are_aligned_in_every_script():
    rows = [["name", "n"], ["日本語", "1"], ["नेपाली", "22"], ["ߒߞߏ", "-"], ["longest", "333"]]
    lines = aligned(rows)
    assert {width(line) for line in lines} == {len("longest") + 2 + 3}
    assert (
        lines[0] == "name       n"
        and lines[1] == "日本語     1"
        and lines[2].startswith("नेपाली")
        and lines[2].endswith(" 22")
    )
    assert aligned(rows[:1] + rows[4:], left=0) == ["   name    n", "longest  333"]
    assert aligned([["a", "b"], ["c", ""]], left=2) == ["a  b", "c"]
