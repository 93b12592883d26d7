"""Which flags of a command line ask for something, and what becomes of those without effect."""

from argparse import Namespace

import pytest

from topxgen.common.errors import UsageError
from topxgen.common.flag_rules import Rule, asked_for, check


def test_flags_that_are_off_or_neutral_ask_for_nothing():
    values = {"use_dora": False, "use_peft": True, "k": 0, "seed": 0, "lora_r": 8, "num_beams": 1, "top_p": 0.9}
    args = Namespace(**values, given=frozenset(values) - {"lora_r"})
    assert asked_for(args) == {"use_peft", "seed", "top_p"}


@pytest.mark.parametrize(
    ("harmless", "given", "refused"),
    [(False, {"a"}, True), (False, {"a", "on"}, False), (True, {"a"}, False), (False, {"on"}, None)],
)
def test_a_flag_without_effect(harmless, given, refused, caplog):
    rule = Rule(("a",), "--on 1 or more", lambda args: args.on > 0, "on", harmless)
    args = Namespace(a=2, on=0, given=frozenset(given))
    caplog.set_level("INFO")
    if refused:
        with pytest.raises(UsageError, match="--a has no effect without --on 1 or more: pass that, or drop it"):
            check([rule], args)
    else:
        check([rule], args)
        assert ("--a has no effect" in caplog.text) == (refused is False)
