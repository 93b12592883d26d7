"""docs/differences.md: complete, about flags that exist, with the defaults that they have."""

import argparse
import re

import pytest

from tests.support.documentation import parser_of
from tests.support.runs import ROOT

PAGE = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
SCRIPTS = ("datagen.py", "decontamination.py", "train.py", "main.py")


def rows(heading: str) -> list[list[str]]:
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.split("\n") if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


# (script, flag, default as the page gives it)
DIFFERING = [(row[0].strip("`"), row[1].strip("`"), row[3]) for row in rows("Flags of the original that differ")]
NEW = [
    (script, row[1].strip("`"), row[2]) for row in rows("New flags") for script in re.findall(r"`(\w+\.py)`", row[0])
]
SAME = [
    (script, flag)
    for script, flags in re.findall(r"^`(\w+\.py)`: ((?:`--\w+`[,.]\s)+)", PAGE, re.M)
    for flag in re.findall(r"--\w+", flags)
]


def actions(script: str) -> dict[str, argparse.Action]:
    known = [action for action in parser_of(script)._actions if action.dest not in ("help", "version")]
    return {action.option_strings[0]: action for action in known}


def shown(action: argparse.Action) -> str:
    value = action.default
    if action.required:
        return "`required`"
    if value in (None, argparse.SUPPRESS, []):
        return "`none`"
    if isinstance(value, bool):
        return "`on`" if value else "`off`"
    return f"`{' '.join(map(str, value)) if isinstance(value, list | tuple) else value}`"


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_of_a_script_is_on_the_page_once(script):
    named = [flag for name, flag, *_ in [*DIFFERING, *NEW, *SAME] if name == script]
    assert sorted(named) == sorted(actions(script)), (
        "docs/differences.md: say whether the flag is new or differs, and why"
    )


@pytest.mark.parametrize(("script", "flag", "default"), [*DIFFERING, *NEW])
def test_its_defaults_are_the_parsers(script, flag, default):
    assert default == shown(actions(script)[flag])
