"""datagen.py in shards: each asks its own prompts of the one run's, under the one run's settings."""

import pytest

from tests.support.runs import in_process, records
from tests.support.writer import command, generate, shard

pytestmark = pytest.mark.usefixtures("answers")


def responses(folder):
    return {record["id"]: record for record in records(folder / "Basque_answers.jsonl")}


def test_each_prompt_is_asked_by_the_shard_of_its_number(server, tmp_path):
    generate(server, tmp_path / "one", "--number_of_instructions", 60)
    one, found = responses(tmp_path / "one"), {}
    for index in range(3):
        shard(server, tmp_path / "split", index, 3)
        folder = tmp_path / "split" / "shards" / f"000{index}-of-0003"
        own = responses(folder)
        assert {int(name[-6:]) % 3 for name in own} == {index}
        assert len(records(folder / "Basque.jsonl")) == 14  # a third of 40, rounded up
        found |= own
    shared = one.keys() & found.keys()
    assert len(shared) > 15 and all(one[name] == found[name] for name in shared)
    numbers = sorted(int(name[-6:]) for name in found)
    assert numbers[:15] == list(range(15))


def test_pipelines_that_show_earlier_texts_cannot_be_split(server, tmp_path):
    more = ("--data_generation_pipeline", "self-instruct", "--num_shards", 2, "--shard_index", 0)
    words = list(command(server, tmp_path, "--stages", "generate", *more))
    for flag in ("--number_of_icl_phrases", "--example_paragraphs", "--seed_topics_path"):
        at = words.index(flag)
        del words[at : at + 2]
    result = in_process("datagen.py", *words)
    assert result.returncode == 2 and "one process for each language" in result.stderr
    assert not (tmp_path / "shards").exists()


def test_other_settings_than_another_shard_are_refused(server, tmp_path):
    shard(server, tmp_path, 0, 2)
    refused = shard(server, tmp_path, 1, 2, "--seed", 5, check=2)
    assert "seed was 122, now 5" in refused.stderr and "0000-of-0002" in refused.stderr
    assert shard(server, tmp_path, 2, 2, check=2).stderr.count("\n") == 1


def test_a_new_split_asks_no_prompt_again(server, tmp_path):
    for index in range(2):
        shard(server, tmp_path, index, 2)
    before = server.given.copy()
    for index in range(4):
        shard(server, tmp_path, index, 4, "--number_of_instructions", 60)
    new = server.given - before
    asked = [responses(tmp_path / "shards" / f"000{i}-of-000{n}") for n in (2, 4) for i in range(n)]
    distinct = set().union(*asked)
    assert all(int(name[-6:]) % 4 == index for index in range(4) for name in asked[2 + index])
    assert new.total() == len(distinct) - len(asked[0]) - len(asked[1]) > 0
