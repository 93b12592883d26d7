"""datagen.py in shards: each asks its own prompts of the one run's, under the one run's settings."""

import pytest

from tests.support.runs import TOPICS, datagen, in_process, records
from tests.support.writer import command, generate, shard

pytestmark = pytest.mark.usefixtures("answers")


@pytest.mark.slow
def test_shards_of_a_real_model(gemma, tmp_path):
    """Gemma 3 270M on transformers, in float32 and without batches: responses, paragraphs and translations are those of one run."""
    model = ("--model_name_or_path", gemma, "--inference_api", "hf", "--dtype", "float32", "--request_batch_size", 1)
    words = (
        *model, "--languages", "Basque", "--seed_topics_path", TOPICS, "--example_paragraphs", "udhr", "--example_sentences", "udhr",
        "--number_of_icl_demonstrations", 1, "--number_of_icl_phrases", 2, "--max_new_tokens", 64, "--temperature", 0.7,
        "--stages", "generate", "--output_dir",
    )  # fmt: skip
    split = [("--num_shards", 2, "--shard_index", index) for index in range(2)]
    for index in range(2):
        datagen(*words, tmp_path / "split", "--number_of_instructions", 4, *split[index])
    merged = in_process("scripts/merge.py", tmp_path / "split")
    assert merged.returncode == 0, merged.stderr
    answered = responses(tmp_path / "split")
    datagen(*words, tmp_path / "one", "--number_of_instructions", 4)
    one = responses(tmp_path / "one")
    shared = one.keys() & answered.keys()
    assert len(shared) > 3 and all(one[name] == answered[name] for name in shared)
    # Shards stop at different prompts: what is judged is equal up to the first that none has answered.
    gap = next(n for n in range(len(answered) + 1) if f"Basque-{n:06d}" not in answered)

    def judged(folder, kind):
        return [r for r in records(folder / f"Basque{kind}.jsonl") if int(r["id"].split("-")[1].split(".")[0]) < gap]

    for kind in ("", "_rejects"):
        ours, theirs = (judged(tmp_path / name, kind) for name in ("split", "one"))
        assert ours[: len(theirs)] == theirs[: len(ours)] and (ours or kind)

    pair = ("--dataset_name_or_path", "udhr", "--src", "Basque", "--tgt", "English", "--k", 1, "--template_key", 14)
    words = (*model, *pair, "--max_samples", 2, "--max_new_tokens", 8, "--output_dir")
    for folder, more in {"alone": [()], "parts": split}.items():
        for shard_flags in more:
            result = in_process("main.py", *words, tmp_path / folder, *shard_flags)
            assert result.returncode == 0, result.stderr
    assert in_process("scripts/merge.py", tmp_path / "parts").returncode == 0
    alone, parts = (next((tmp_path / name).glob("*/*/translate_0.jsonl")) for name in ("alone", "parts"))
    assert alone.read_bytes() == parts.read_bytes() and len(records(alone)) == 2


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
