"""A random part of the attacks of campaign.py; the long version of all is marked slow.

    ATTACK_SEED=7 ATTACK_ROUNDS=20 pytest tests/attack
    pytest -m slow tests/attack

ATTACK_SEED (0) decides which attacks, ATTACK_ROUNDS how many there are per row. Each failure shows the command that repeats it.
"""

import os
import random

import pytest

from tests.attack.campaign import Campaign, described
from tests.attack.formats import FORMATS
from tests.attack.table import COMPARE, OPEN, SCRIPTS, STAGES

SEED = int(os.environ.get("ATTACK_SEED", 0))
ROUNDS = int(os.environ.get("ATTACK_ROUNDS", 0))
LIGHT = [name for name, stage in STAGES.items() if not stage.heavy]
HEAVY = [name for name, stage in STAGES.items() if stage.heavy]
FILES = [row.id for row in FORMATS if row.stage in LIGHT]
FILES_IN_SHORT_RUN = random.Random(SEED).sample(FILES, 6)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    campaign = Campaign(tmp_path_factory.mktemp("attack"), SEED)
    yield campaign
    campaign.close()


@pytest.fixture(scope="module")
def heavy_campaign(tmp_path_factory, tiny_lm):
    campaign = Campaign(tmp_path_factory.mktemp("attack"), SEED, tiny_lm)
    yield campaign
    campaign.close()


def survives(campaign: Campaign, kind: str, row: str, rounds: int) -> None:
    if row not in campaign.rows(kind):
        pytest.skip(f"{row} needs a program that is not installed")
    tried, wrong = 0, []
    for name, outcomes in campaign.run(kind, row, ROUNDS or rounds):
        tried += 1
        wrong += [described(campaign, kind, row, name, outcome) for outcome in outcomes]
    assert tried, "nothing was attacked"
    if wrong and not is_open(kind, row):
        pytest.fail(f"{len(wrong)} of {tried} attacks, seed {SEED}:\n\n" + "\n".join(wrong), pytrace=False)
    if wrong:
        pytest.xfail(f"{len(wrong)} of {tried}: known")


def is_open(kind: str, row: str) -> bool:
    return any(f"{kind}: {row}".startswith(entry) for entry in OPEN)


@pytest.mark.medium
@pytest.mark.parametrize("stage", LIGHT)
def test_killed_stages_end_as_if_nothing_had_happened(campaign, stage):
    survives(campaign, "kills", stage, 1)


@pytest.mark.parametrize("stage", ["generate", "evaluate"])
@pytest.mark.medium
def test_stages_at_once_in_one_folder_end_as_if_one_had_run(campaign, stage):
    survives(campaign, "races", stage, 2)


@pytest.mark.medium
@pytest.mark.parametrize("stage", LIGHT)
def test_failing_file_operations_and_signals_lose_nothing(campaign, stage):
    survives(campaign, "faults", stage, 2)


@pytest.mark.parametrize("row", FILES_IN_SHORT_RUN)
def test_hostile_files_are_refused_in_one_line_or_read_right(campaign, row):
    survives(campaign, "files", row, 1)


@pytest.mark.parametrize("stage", ["generate", "decontaminate", "few-shot"])
def test_what_lies_where_a_stage_writes_stays_as_it_is(campaign, stage):
    survives(campaign, "links", stage, 2)


@pytest.mark.parametrize("stage", ["translate", "few-shot, cohere", "few-shot, anthropic"])
@pytest.mark.medium
def test_hostile_responses_leave_nothing_behind(campaign, stage):
    survives(campaign, "answers", stage, 1)


@pytest.mark.parametrize("script", ["datagen.py", "decontamination.py", "main.py", "comptra.evaluate"])
def test_hostile_flags_are_refused_in_one_line(campaign, script):
    survives(campaign, "flags", script, 5)


# The long version


@pytest.mark.slow
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("kind", ["kills", "races", "faults", "files", "answers", "flags", "links"])
def test_many_attacks(campaign, kind):
    for row in campaign.rows(kind):
        survives(campaign, kind, row, 60)


@pytest.mark.slow
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("kind", ["kills", "races", "faults", "files", "flags", "links"])
def test_many_attacks_on_training_and_merging(heavy_campaign, kind):
    for row in heavy_campaign.rows(kind):
        survives(heavy_campaign, kind, row, 10)


def test_every_script_is_attacked():
    """Those that write nothing cannot lose anything by a kill or a fault: they meet hostile flags and files alone. What prefetch.py
    downloads, and how it is killed, is in tests/experiments/test_prefetch.py, and what submit.py writes, in test_slurm.py."""
    only_read = {
        "scripts/status.py",
        "scripts/sample.py",
        "scripts/verify.py",
        "scripts/prefetch.py",
        "scripts/doctor.py",
        "scripts/slurm/submit.py",
    }
    assert {stage.command[0] for stage in STAGES.values()} | {COMPARE[0]} == set(SCRIPTS) - only_read
