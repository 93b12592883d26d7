"""scripts/merge.py over shards of datagen.py: what one run would have left."""

import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.support import api_server
from tests.support.flipped_bytes import flip_each
from tests.support.runs import datagen, in_process, records
from tests.support.writer import TEXTS, Writer, answer, command, digest, generate, serve, shard

pytestmark = pytest.mark.usefixtures("answers")


def merge(*folders, check=0):
    result = in_process("scripts/merge.py", *folders)
    assert result.returncode == check, result.stderr
    assert "Traceback" not in result.stderr
    return result


def files(folder: Path) -> dict[str, bytes]:
    """The data files and checksums of a directory, without its shards and manifests."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*.jsonl")}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith("shards/")}


def number(line: dict) -> int:
    return int(line["id"].removeprefix("Basque-").partition(".")[0])


def lines(path: Path, below: int = 10**9) -> list[str]:
    return [line for line in path.read_text().splitlines() if number(json.loads(line)) < below]


@pytest.fixture(scope="module")
def one(server, tmp_path_factory):
    """One run, of more than the shards are asked for."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        serve(patch)
        generate(server, folder, "--number_of_instructions", 70)
    return folder


def check_like_one(folder: Path, one: Path) -> None:
    """Equal up to the first prompt without a response; then in the same order. All texts of all responses judged once."""
    asked = [number(response) for response in records(folder / "Basque_answers.jsonl")]
    assert asked == sorted(set(asked))
    gap = next(n for n in range(len(asked) + 1) if n >= len(asked) or asked[n] != n)
    assert gap > 10
    for kind in ("", "_rejects"):
        path = f"Basque{kind}.jsonl"
        ours, theirs = lines(folder / path, gap), lines(one / path, gap)
        has_enough = len(records(folder / "Basque.jsonl")) == 40 and number(records(folder / "Basque.jsonl")[-1]) < gap
        assert (ours or kind) and ours == (theirs[: len(ours)] if has_enough else theirs)
        assert [number(line) for line in records(folder / path)] == sorted(
            number(line) for line in records(folder / path)
        )
    judged = Counter(line["id"] for kind in ("", "_rejects") for line in records(folder / f"Basque{kind}.jsonl"))
    assert set(judged.values()) == {1}
    one_answers = {response["id"]: response for response in records(one / "Basque_answers.jsonl")}
    shared = [response for response in records(folder / "Basque_answers.jsonl") if response["id"] in one_answers]
    assert shared == [one_answers[response["id"]] for response in shared]


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
    settings.with_name("SHA256SUMS").unlink()
    said = merge(tmp_path, check=2).stderr
    assert "seed" in said and "cannot be merged" in said
    assert not (tmp_path / "Basque.jsonl").exists()


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


SCORER = """
class Lengths:
    id, has_models, truncated, scale = "lengths", False, 0, (0.0, 1000.0)
    def __init__(self, args): pass
    def preflight(self, languages, target): pass
    def load(self): pass
    def close(self): pass
    def score(self, records, source, target):
        return [[float(len(text)) for text in record["translations"]] for record in records]
"""


@pytest.fixture
def scored(tmp_path, monkeypatch):
    """Flags of a scorer; blocks are small, so that each shard has some."""
    monkeypatch.setattr("topxgen.translation.llm.LLM.block_size", 12)
    monkeypatch.setattr("topxgen.generation.scoring.RECORDS_PER_BLOCK", 8)
    monkeypatch.setattr("topxgen.generation.sharded.RECORDS_PER_BLOCK", 8)
    (tmp_path / "lengths.py").write_text(SCORER)
    return ("--scorer", f"{tmp_path / 'lengths.py'}:Lengths", "--min_score", 60)


LATER = ("--stages", "translate", "score")


def translated(folder: Path) -> dict[str, bytes]:
    """The files of the pairs; responses as a set."""
    found = {name: content for name, content in files(folder).items() if name.startswith("writer-1/")}
    return {name: sorted({*content.splitlines()}) if "answers" in name else content for name, content in found.items()}


def verified(folder: Path) -> None:
    result = in_process("scripts/verify.py", folder)
    assert result.returncode == 0, result.stdout


def test_pairs_of_merged_paragraphs_are_those_of_one_run(server, scored, tmp_path):
    split = tmp_path / "split"
    for index in range(3):
        shard(server, split, index, 3)
    refused = datagen(
        *command(server, split, *LATER, *scored, "--num_shards", 3, "--shard_index", 0, "--languages", "Hausa"), check=2
    )
    assert "no paragraphs to translate" in refused.stderr
    merge(split)
    shutil.copytree(split, tmp_path / "one", ignore=shutil.ignore_patterns("shards"))
    datagen(*command(server, tmp_path / "one", *LATER, *scored))
    expected = translated(tmp_path / "one")
    assert len(expected) == 3 and all(expected.values())

    words, given = command(server, split, *LATER, *scored), server.given.total()
    for index in (0, 2):
        datagen(*words, "--num_shards", 3, "--shard_index", index)
    said = merge(split, check=3).stderr
    assert "shard 0001-of-0003 is missing (translate of Basque)" in said and "(score of Basque)" in said
    assert not (split / "writer-1" / "manifest_translate_Basque.json").exists()
    funnel = datagen(*words, "--num_shards", 3, "--shard_index", 1).stdout.split("Funnel, Basque:\n")[1]
    assert funnel.startswith("  sentences "), "the shard's own prompts did not write the paragraphs that it translates"
    taken = [len(records(path)) for path in split.glob("shards/*/writer-1/Basque_paragraphs.jsonl")]
    assert sum(taken) == 40 and all(taken)
    merge(split)
    assert translated(split) == expected
    # A sentence in the paragraphs of two shards was paid for twice.
    paid = records(split / "writer-1" / "Basque_translate_answers.jsonl")
    assert len(paid) == server.given.total() - given > len(expected["writer-1/Basque_translate_answers.jsonl"])
    one, merged = (
        json.loads((f / "writer-1" / "manifest_score_Basque.json").read_text()) for f in (tmp_path / "one", split)
    )
    assert (one["counts"], one["settings"]) == (merged["counts"], merged["settings"])
    verified(split)
    before = {path: path.stat().st_mtime_ns for path in split.rglob("*") if path.is_file()}
    merge(split)
    datagen(*words)  # nothing is left to do
    after = {path: path.stat().st_mtime_ns for path in split.rglob("*") if path.is_file()}
    assert before == {path: after[path] for path in before}
    datagen(*words, "--num_shards", 50, "--shard_index", 49)  # there is nothing for it to do


def test_shards_that_run_all_stages(server, scored, tmp_path):
    split, flags = tmp_path / "split", ("--stages", "generate", *LATER[1:], *scored)
    for index in range(3):
        datagen(*command(server, split, *flags, "--num_shards", 3, "--shard_index", index))
    merge(split)
    shutil.copytree(split, tmp_path / "one", ignore=shutil.ignore_patterns("shards", "writer-1"))
    datagen(*command(server, tmp_path / "one", *LATER, *scored))
    assert {name: content for name, content in translated(split).items() if "answers" not in name} == {
        name: content for name, content in translated(tmp_path / "one").items() if "answers" not in name
    }
    verified(split)
    # Its pairs are in the settings of the shard's own paragraphs: the merged ones are another thing.
    refused = datagen(*command(server, split, *LATER, *scored, "--num_shards", 3, "--shard_index", 0), check=2)
    assert "of the whole" in refused.stderr


def test_scores_by_shards_of_pairs_of_one_run(server, scored, tmp_path):
    whole, flags = tmp_path / "whole", ("--stages", "score", *scored)
    datagen(*command(server, whole, "--stages", "generate", "translate"))
    shutil.copytree(whole, tmp_path / "one")
    datagen(*command(server, tmp_path / "one", *flags))
    for index in range(3):
        datagen(*command(server, whole, *flags, "--num_shards", 3, "--shard_index", index))
    taken = [len(records(path)) for path in whole.glob("shards/*/writer-1/Basque_translate.jsonl")]
    assert sum(taken) == 40 and all(taken)
    merge(whole)
    assert translated(whole) == translated(tmp_path / "one")
    verified(whole)


def test_a_later_answer_counts_for_more_than_an_earlier_score(server, scored, tmp_path, monkeypatch):
    """A merge of what was answered so far, and another after the shards were run again."""

    def some(path, body, _):
        response = answer(path, body, _)
        if "Translate this sentence" in body["messages"][-1]["content"] and int(digest(body), 16) % 3 == 0:
            response["choices"][0]["message"]["content"] = ""
        return response

    split = tmp_path / "split"
    for index in range(2):
        shard(server, split, index, 2)
    merge(split)
    shutil.copytree(split, tmp_path / "one", ignore=shutil.ignore_patterns("shards"))
    datagen(*command(server, tmp_path / "one", *LATER, *scored))
    words = (*command(server, split, *scored), "--num_shards", 2, "--shard_index")
    with monkeypatch.context() as patch:
        patch.setattr(api_server, "answer", some)
        for index in range(2):
            datagen(*words, index, *LATER, check=3)
    merge(split, check=3)
    assert b"translation_unanswered" in (split / "writer-1" / "Basque_translate_rejects.jsonl").read_bytes()
    for index, stages in enumerate((LATER, LATER[:2])):  # the second one has no scores for the new answers yet
        datagen(*words, index, *stages)
    said = merge(split, check=3).stderr
    assert "score of Basque" in said or "to score them" in said
    assert b"translation_unanswered" not in (split / "writer-1" / "Basque_translate_rejects.jsonl").read_bytes()
    datagen(*words, 1, *LATER)
    merge(split)
    for kind in ("translate", "translate_rejects"):
        name = f"writer-1/Basque_{kind}.jsonl"
        assert records(split / name) == records(tmp_path / "one" / name)


def test_candidates(server, scored, tmp_path):
    more = ("--number_of_candidates", 3, "--select_by", scored[1])
    split = tmp_path / "split"
    for index in range(2):
        shard(server, split, index, 2)
    merge(split)
    shutil.copytree(split, tmp_path / "one", ignore=shutil.ignore_patterns("shards"))
    words = (*LATER, *scored[:2], *more)
    datagen(*command(server, tmp_path / "one", *words))
    for index in range(2):
        datagen(*command(server, split, *words, "--num_shards", 2, "--shard_index", index))
    merge(split)
    assert translated(split) == translated(tmp_path / "one")
    verified(split)


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
    for index in (1, 2, 0):
        datagen(*words, *limit, "--output_dir", tmp_path / "split", "--num_shards", 3, "--shard_index", index)
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


def test_a_split_run_grows_stage_by_stage(server, tmp_path):
    """With more paragraphs, of which near-duplicates of other shards' are missing until one process adds them."""
    for number in ("60", "90"):
        words = ("--number_of_instructions", number)
        for index in range(2):
            shard(server, tmp_path, index, 2, *words)
        assert "fewer paragraphs" in in_process("scripts/merge.py", tmp_path, "--stages", "generate").stderr
        generate(server, tmp_path, *words)
        assert len(records(tmp_path / "Basque.jsonl")) >= int(number)
        for index in range(2):
            datagen(*command(server, tmp_path, "--stages", "translate", *split(index, 2), *words))
        said = in_process("scripts/merge.py", tmp_path, "--stages", "translate")
        assert said.returncode == 0 and "paragraphs from" not in said.stderr, said.stderr
        pairs = records(next(tmp_path.glob("*/Basque_translate.jsonl")))
        assert [pair["id"] for pair in pairs] == [text["id"] for text in records(tmp_path / "Basque.jsonl")]
    assert in_process("scripts/verify.py", tmp_path).returncode == 0
    assert "no shards of main" in in_process("scripts/merge.py", tmp_path, "--stages", "main").stderr


def split(index, count):
    return "--num_shards", count, "--shard_index", index
