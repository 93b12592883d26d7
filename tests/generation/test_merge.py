"""scripts/merge.py over shards of datagen.py: what one run would have left."""

import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support import api_server
from tests.support.flipped_bytes import flip_each
from tests.support.merges import check_like_one, files, merge, number, verified
from tests.support.runs import datagen, in_process, records
from tests.support.writer import TEXTS, Writer, answer, command, generate, serve, shard
from topxgen.common import checksums

pytestmark = pytest.mark.usefixtures("answers")


@pytest.fixture(scope="module")
def one(server, tmp_path_factory):
    """One run, of more than the shards are asked for."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        serve(patch)
        generate(server, folder, "--number_of_instructions", 70)
    return folder


def test_shards_are_the_one_run_up_to_the_first_prompt_that_none_has_answered(server, one, tmp_path):
    for index in range(3):
        shard(server, tmp_path, index, 3)
    assert "has no shards folder" in merge(one, check=2).stderr
    merge(tmp_path)
    check_like_one(tmp_path, one)
    assert len(records(tmp_path / "Basque.jsonl")) == 40
    manifest = json.loads((tmp_path / "manifest_generate_Basque.json").read_text())
    assert manifest["complete"] and manifest["shards"] == ["0000-of-0003", "0001-of-0003", "0002-of-0003"]
    assert "shard" not in manifest["settings"]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()}
    merge(tmp_path)  # nothing to do: nothing is written
    assert before == {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()
    }
    assert {"{Language}.jsonl", "{Language}_answers.jsonl", "manifest_generate_{Language}.json"} <= flip_each(
        tmp_path, 1
    )


def test_lost_shards_are_named_and_merging_again_gives_what_merging_once_gives(server, one, tmp_path):
    for index in (0, 2):
        shard(server, tmp_path, index, 3)
    said = merge(tmp_path, check=3).stderr
    assert "shard 0001-of-0003 is missing (generate of Basque): python datagen.py" in said
    assert "--num_shards 3 --shard_index 1" in said
    first = files(tmp_path)
    words = said.partition("python datagen.py ")[2].partition("\n")[0]
    result = in_process("datagen.py", *words.replace("'", "").split())  # the command that the message gives
    assert result.returncode == 0, result.stderr
    merge(tmp_path)
    check_like_one(tmp_path, one)
    twice = files(tmp_path)
    assert first != twice
    for path in tmp_path.glob("*"):
        if path.name != "shards":
            path.unlink()
    merge(tmp_path)
    assert files(tmp_path) == twice


def test_a_prompt_that_two_shards_paid_for_costs_twice(server, tmp_path, monkeypatch):
    """Shards of two splits that did not know of each other, and a later one that takes over what was merged."""
    paths = [tmp_path / name / "Basque_answers.jsonl" for name in ("", "shards/0000-of-0002", "shards/0000-of-0003")]
    shard(server, tmp_path, 0, 2)

    def others(path, body, more):
        return answer(path, body | {"messages": [{"content": f"{body['messages'][-1]['content']} "}]}, more)

    with monkeypatch.context() as patch:
        patch.setattr(api_server, "answer", others)
        shard(server, tmp_path / "elsewhere", 0, 3)
    shutil.move(tmp_path / "elsewhere/shards/0000-of-0003", tmp_path / "shards")
    merge(tmp_path, check=3)
    merged, *own = map(records, paths)
    assert sorted(map(str, merged)) == sorted(map(str, own[0] + own[1]))
    ids = Counter(response["id"] for response in merged)
    assert 1 < list(ids.values()).count(2) < len(ids)
    manifest = json.loads((tmp_path / "manifest_generate_Basque.json").read_text())
    assert manifest["counts"]["prompts"] == len(ids) and manifest["counts"]["prompt_tokens"] == 100 * len(merged)
    assert (
        f"{(100 * 2 + 50 * 10) * len(merged) / 1e6:,.2f} USD"
        in in_process("scripts/status.py", tmp_path, "--prices", 2, 10).stdout
    )
    # One of each prompt counts, the same for all.
    counting = {response["id"]: response for response in merged}
    assert counting == {response["id"]: response for response in own[1] + own[0]}
    before = paths[0].read_bytes()
    merge(tmp_path, check=3)
    assert paths[0].read_bytes() == before
    shard(server, tmp_path, 0, 6)
    taken = records(tmp_path / "shards/0000-of-0006/Basque_answers.jsonl")
    assert len(taken) == len(ids) - sum(number(response) % 6 > 0 for response in counting.values())
    assert all(response == counting[response["id"]] for response in taken)
    merge(tmp_path, check=3)
    assert paths[0].read_bytes() == before


def test_a_merged_directory_goes_on_with_exactly_the_next_prompts(server, tmp_path):
    for index in range(2):
        shard(server, tmp_path, index, 2)
    merge(tmp_path)
    asked, before = server.given.copy(), {r["id"] for r in records(tmp_path / "Basque_answers.jsonl")}
    generate(server, tmp_path, "--number_of_instructions", 60)
    after = [r["id"] for r in records(tmp_path / "Basque_answers.jsonl")]
    assert len(after) == len(set(after)) and before < set(after)
    assert (server.given - asked).total() == len(after) - len(before)
    assert len(records(tmp_path / "Basque.jsonl")) == 60
    # The shards go on, too, and ask nothing that the directory has; a merge has all of it, once.
    for index in range(2):
        shard(server, tmp_path, index, 2, "--number_of_instructions", 80)
    answered = {
        r["id"]
        for folder in (tmp_path, *tmp_path.glob("shards/*-of-*"))
        for r in records(folder / "Basque_answers.jsonl")
    }
    assert (server.given - asked).total() == len(answered) - len(before)
    said = merge(tmp_path, check=3).stderr  # a near-duplicate of the other shard's
    assert "fewer paragraphs than were asked for" in said
    kept = [record["id"] for record in records(tmp_path / "Basque.jsonl")]
    assert len(kept) == len(set(kept)) == 79
    generate(server, tmp_path, "--number_of_instructions", 80)
    assert len(records(tmp_path / "Basque.jsonl")) == 80


@pytest.mark.medium
def test_a_larger_number_and_another_split(server, one, tmp_path):
    for index in range(2):
        shard(server, tmp_path, index, 2, "--number_of_instructions", 20)
    merge(tmp_path)
    shard(server, tmp_path, 0, 2)
    said = merge(tmp_path, check=3).stderr
    assert "shard 0001-of-0002 is not finished" in said  # it was asked for fewer
    assert "fewer paragraphs" not in said, "finishing the shard comes first"
    for index in range(4):
        shard(server, tmp_path, index, 4)
    merge(tmp_path)  # the newest split counts
    check_like_one(tmp_path, one)
    assert len(records(tmp_path / "Basque.jsonl")) == 40


def test_shards_that_cannot_be_merged(server, tmp_path):
    for index in range(2):
        shard(server, tmp_path, index, 2)
    copy = tmp_path / "shards" / "0001-of-0004"
    shutil.copytree(tmp_path / "shards" / "0001-of-0002", copy)
    said = merge(tmp_path, check=2).stderr
    assert "is a copy of shard 0001-of-0002" in said
    shutil.rmtree(copy)
    settings = tmp_path / "shards" / "0001-of-0002" / "settings_generate.json"
    settings.write_text(settings.read_text().replace('"seed": 122', '"seed": 5'))
    checksums.drop(settings)
    said = merge(tmp_path, check=2).stderr
    assert "seed" in said and "cannot be merged" in said
    assert not (tmp_path / "Basque.jsonl").exists()


def test_settings_of_one_run_that_left_nothing_keep_no_shards_from_being_merged(server, tmp_path):
    with Writer(quota=0) as spent:
        generate(spent, tmp_path, "--temperature", 0.5, check=4)
    for index in range(2):
        shard(server, tmp_path, index, 2)
    assert "holds no results yet" in merge(tmp_path).stderr
    assert '"temperature": 0.5' not in (tmp_path / "settings_generate.json").read_text()


def test_paragraphs_that_came_with_the_directory_stay_first(server, tmp_path):
    brought = [
        {"text": f"Testu hau {i} beste norbaitek idatzi zuen, duela urte asko, etxe zahar batean."} for i in range(3)
    ]
    (tmp_path / "Basque.jsonl").write_text("".join(json.dumps(line) + "\n" for line in brought))
    for index in range(2):
        shard(server, tmp_path, index, 2)
    merge(tmp_path)
    merge(tmp_path)
    found = records(tmp_path / "Basque.jsonl")
    assert found[:3] == brought and len(found) == 40


def test_near_duplicates_of_other_shards_are_rejected_as_in_one_run(tmp_path, monkeypatch):
    def few_texts(path: str, body: dict, _) -> dict:
        found = answer(path, body, None)
        rng = random.Random(body["messages"][-1]["content"])
        found["choices"][0]["message"]["content"] = "\n".join(
            f"{i}. {rng.choice(TEXTS['Basque'][:30])}" for i in (1, 2)
        )
        return found

    monkeypatch.setattr(api_server, "answer", few_texts)
    with Writer(delay=0) as server:
        generate(server, tmp_path / "one", "--number_of_instructions", 26)
        for index in range(3):
            shard(server, tmp_path / "split", index, 3, "--number_of_instructions", 30)
        merge(tmp_path / "split", check=3)
    check_like_one(tmp_path / "split", tmp_path / "one")
    rejects = records(tmp_path / "split" / "Basque_rejects.jsonl")
    across = [
        r
        for r in rejects
        if "near_duplicate" in r["reason"] and number(r) % 3 != int(r["reason"].split(".")[0][-6:]) % 3
    ]
    assert len(across) > 5


def test_two_languages_that_share_a_number_and_two_that_do_not(server, tmp_path):
    both = ("--languages", "Basque", "Hausa", "--number_of_instructions", 40)
    generate(server, tmp_path / "one", *both)
    for index in range(2):
        shard(server, tmp_path / "together", index, 2, *both)
    merge(tmp_path / "together")
    for name in ("Basque", "Hausa"):
        ours, theirs = (lines_of_language(tmp_path / folder, name) for folder in ("together", "one"))
        shared = min(len(ours), len(theirs))
        assert shared > 8 and ours[:shared] == theirs[:shared]
    assert sum(len(lines_of_language(tmp_path / "together", name)) for name in ("Basque", "Hausa")) == 40
    # Side by side, with commands of their own, in the same shards; merged, both are in the manifest of the directory.
    for name in ("Basque", "Hausa"):
        for index in range(2):
            shard(server, tmp_path / "apart", index, 2, "--languages", name, "--number_of_instructions", 12)
    merge(tmp_path / "apart")
    manifest = json.loads((tmp_path / "apart" / "manifest_generate.json").read_text())
    assert {name: counts["kept"] for name, counts in manifest["counts"].items()} == {"Basque": 12, "Hausa": 12}


def lines_of_language(folder: Path, name: str) -> list[str]:
    return (folder / f"{name}.jsonl").read_text().splitlines()


def place(text_id: str) -> tuple[int, ...]:
    return tuple(map(int, text_id.removeprefix("Basque-native-").split(".")))


def first_missing(folder: Path) -> tuple[int, ...]:
    """The first text that one run has judged and the merged one has not."""
    judged = [
        {
            place(record["id"])
            for name in ("Basque", "Basque_rejects")
            for record in records(folder / run / f"{name}.jsonl")
        }
        for run in ("one", "split")
    ]
    return min(judged[0] - judged[1])


@pytest.mark.parametrize("limit", [(), ("--number_of_instructions", 20)], ids=["all", "limited"])
def test_native_texts(tmp_path, limit):
    rng = random.Random(1)
    texts = [rng.choice(TEXTS["Basque"]) + rng.choice(["", " Bai.", "\x00"]) for _ in range(90)]
    texts = ["\n".join(texts[i : i + 2]) if i % 5 else "hi" for i in range(0, 90, 2)]
    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps({"text": text, "topic": f"t{i}"}) + "\n" for i, text in enumerate(texts)))
    words = ("--paragraphs", source, "--languages", "Basque", "--stages", "generate")
    datagen(*words, *limit, "--output_dir", tmp_path / "one")
    for index, *more in ((0, "--output_filenames", "eu"), (1,), (2,), (0,)):
        if index == 0 and not more:
            assert "0000-of-0003/Basque.jsonl is missing" in merge(tmp_path / "split", check=2).stderr
        datagen(*words, *limit, *more, "--output_dir", tmp_path / "split", "--num_shards", 3, "--shard_index", index)
    merge(tmp_path / "split", check=3 if limit else 0)  # limited: near-duplicates of other shards' leave fewer
    for name in ("Basque.jsonl", "Basque_rejects.jsonl"):
        one, ours = ((tmp_path / folder / name).read_text().splitlines() for folder in ("one", "split"))
        if limit:  # up to the first text that no shard has read
            shared = [line for line in one if place(json.loads(line)["id"]) < first_missing(tmp_path)]
            assert len(shared) > 2 and ours[: len(shared)] == shared
        else:
            assert ours == one and len(ours) > 10
    assert any("near_duplicate" in line for line in ours)
    verified(tmp_path / "split")
    datagen(*words, *limit, "--output_dir", tmp_path / "split")  # one run goes on with it
    if limit:
        assert len(records(tmp_path / "split" / "Basque.jsonl")) == 20
    else:
        assert files(tmp_path / "split") == files(tmp_path / "one") | {"Basque_answers.jsonl": b""}


def test_a_language_without_a_paragraph(server, tmp_path):
    """Merged shards end with the exit code and the warnings of one run."""
    source = tmp_path / "source.txt"
    source.write_text("hi\n" * 9)
    words = ("--paragraphs", source, "--languages", "Basque", "--stages", "generate", "--output_dir")
    one = datagen(*words, tmp_path / "one", check=3)
    for index in (0, 1):
        datagen(*words, tmp_path / "split", "--num_shards", 2, "--shard_index", index, check=3)
    merged = merge(tmp_path / "split", check=3)
    assert all("no paragraphs were kept in Basque; see the reasons" in result.stderr for result in (one, merged))
    datagen(*command(server, tmp_path / "one", "--stages", "translate"), check=3)
    for index in (0, 1):
        datagen(
            *command(server, tmp_path / "split", "--stages", "translate", "--num_shards", 2, "--shard_index", index)
        )
    assert "no pairs were kept in Basque" in merge(tmp_path / "split", "--stages", "translate", check=3).stderr


@pytest.mark.medium
def test_a_merge_that_is_stopped_anywhere_is_begun_again(server, tmp_path, monkeypatch):
    """At every file that it replaces or begins, as a kill could stop it."""
    for index in range(2):
        shard(server, tmp_path / "split", index, 2)
    merge(tmp_path / "split")
    expected = files(tmp_path / "split")
    for path in (tmp_path / "split").glob("*.json*"):
        path.unlink()
    (tmp_path / "split" / "SHA256SUMS").unlink()
    replace, calls = os.replace, 0
    stop_at = 0
    while True:
        stop_at, calls = stop_at + 1, 0
        folder = tmp_path / f"stopped-{stop_at}"
        shutil.copytree(tmp_path / "split", folder)

        def stopping(*paths, stop_at=stop_at, **more):
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise KeyboardInterrupt
            return replace(*paths, **more)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", stopping)
            result = in_process("scripts/merge.py", folder)
        if result.returncode == 0:
            break
        assert result.returncode == 130
        merge(folder)
        assert files(folder) == expected
        verified(folder)
    assert stop_at > 8


def test_files_that_were_changed_and_lines_that_a_kill_has_cut(server, tmp_path):
    for index in range(2):
        shard(server, tmp_path, index, 2)
    folder = tmp_path / "shards" / "0001-of-0002"
    path = folder / "Basque_answers.jsonl"
    content = path.read_bytes()
    path.write_bytes(b"".join(content.splitlines(True)[:3]))
    assert f"{path} was changed after its run" in merge(tmp_path, check=2).stderr
    assert not (tmp_path / "Basque.jsonl").exists()
    # Of a run that goes on nothing is claimed: what is there counts, without a line that was cut off.
    (folder / "SHA256SUMS").unlink()
    (folder / "manifest_generate_Basque.json").unlink()
    path.write_bytes(content[:-30])
    assert "shard 0001-of-0002 is not finished" in merge(tmp_path, check=3).stderr
    assert len(records(tmp_path / "Basque_answers.jsonl")) == len(
        [*records(tmp_path / "shards" / "0000-of-0002" / "Basque_answers.jsonl"), *content.splitlines()[:-1]]
    )
    shard(server, tmp_path, 1, 2)
    merge(tmp_path)


def test_a_command_is_as_new_as_the_last_shard_that_was_started_with_it():
    """Which one counts for a language that has had two."""
    from scripts.merge import _newest

    notes = [
        {"started": started, "command": ["--seed", seed]} for started, seed in (("1", "a"), ("2", "b"), ("3", "a"))
    ]
    works = [SimpleNamespace(newest=SimpleNamespace(note=note)) for note in notes]
    assert [_newest(works, work) for work in works] == ["3", "2", "3"]


def test_languages_that_had_one_command_together_and_another_alone(server, tmp_path):
    def run(folder, *more):
        for index in range(2):
            shard(server, folder, index, 2, *more)

    both = ("--languages", "Hausa", "Basque", "--number_of_instructions", 40)
    alone = ("--languages", "Hausa", "--number_of_instructions", 50)
    for name, commands in (("first", [both]), ("then", [both, alone])):
        for more in commands:
            run(tmp_path / name, *more)
        merge(tmp_path / name)
    first, then = (files(tmp_path / name) for name in ("first", "then"))
    assert len(first["Basque.jsonl"]) > 0 and first["Basque.jsonl"] == then["Basque.jsonl"]
    assert len(records(tmp_path / "then" / "Hausa.jsonl")) == 50
    assert then["Hausa.jsonl"].startswith(first["Hausa.jsonl"][: first["Hausa.jsonl"].index(b"\n")])
    merge(tmp_path / "then")
    assert files(tmp_path / "then") == then
    assert in_process("scripts/verify.py", tmp_path / "then").returncode == 0
