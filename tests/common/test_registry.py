"""Tables of choices: rows, a user's own implementations, and the errors for names that are neither."""

import argparse
import json

import pytest

from topxgen.common.cli import Parser, choices_help
from topxgen.common.errors import UsageError
from topxgen.common.registry import Choice, load_choice

TABLE = {"dumps": Choice("json:dumps", "to text"), "loads": Choice("json:loads", "from text")}


def refusal(name: str) -> str:
    with pytest.raises(UsageError) as error:
        load_choice("--kind", name, TABLE)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_row_or_an_implementation_of_ones_own(tmp_path):
    assert load_choice("--kind", "loads", TABLE) is json.loads
    assert load_choice("--kind", "json.decoder:JSONDecoder", TABLE) is json.JSONDecoder
    path = tmp_path / "json.py"  # hides no installed module, and is executed once
    path.write_text("from dataclasses import dataclass\n\n@dataclass\nclass Mine:\n    size: int = 3\n")
    own = load_choice("--kind", f"{path}:Mine", TABLE)
    assert own().size == 3 and own is load_choice("--kind", f"{path}:Mine", TABLE)
    assert load_choice("--kind", "loads", TABLE) is json.loads


def test_names_that_are_nothing(tmp_path):
    assert "--kind 'load' does not exist; choose one of dumps, loads, or your own as" in refusal("load")
    assert "(did you mean loads?)" in refusal("load")
    assert f"No such file or directory: '{tmp_path / 'none.py'}'" in refusal(f"{tmp_path / 'none.py'}:f")
    assert "No module named 'nosuchmodule'" in refusal("nosuchmodule:f")
    assert "choose one of dumps, loads" in refusal("nosuchmodule:f") and "cannot be loaded" in refusal(":f")
    assert refusal("json:lods") == "--kind 'json:lods': json has no 'lods' (did you mean loads?)"
    assert refusal("json:__name__") == "--kind 'json:__name__': __name__ is neither a class nor a function, but str"
    broken = tmp_path / "broken.py"
    broken.write_text("import nosuchmodule\n")
    for _ in range(2):  # a module that failed is not kept half-executed
        assert "No module named 'nosuchmodule'" in refusal(f"{broken}:f")


def test_flags_take_ones_own_where_the_table_is_loaded(capsys):
    parser = Parser("x")
    parser.add_argument("--kind", choices=TABLE, help=choices_help("kind", TABLE))
    parser.add_argument("--names", nargs="+", choices=TABLE)
    parser.add_argument("--style", choices={"a": Choice("", "not loaded")}, help=choices_help("style", {}))
    parser.add_argument("--size", choices=("s", "l"))
    args = parser.parse_args(["--kind", "my.module:f", "--names", "loads", "a/b.py:g"])
    assert args == argparse.Namespace(kind="my.module:f", names=["loads", "a/b.py:g"], style=None, size=None)
    assert "loads: from text; or your own as module:attribute or file.py:attribute" in " ".join(
        parser.format_help().split()
    )
    for flag, value in (("--kind", "lods"), ("--style", "a:b"), ("--size", "s:l")):
        with pytest.raises(SystemExit):
            parser.parse_args([flag, value])
        assert f"'{value}' is not one of" in capsys.readouterr().err
