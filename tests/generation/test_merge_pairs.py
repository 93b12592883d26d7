"""scripts/merge.py: pairs and scores of shards are those of one run."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support import api_server
from tests.support.merges import files, merge, verified
from tests.support.runs import datagen, in_process, records
from tests.support.writer import answer, command, digest, generate, shard
from topxgen.common.records import Layout
from topxgen.generation.merge import _staging

pytestmark = pytest.mark.usefixtures("answers")


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


@pytest.mark.medium
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
    estimate = datagen(*words, "--num_shards", 3, "--shard_index", 0, "--dry_run").stdout
    assert "  14 to 168 sentences" in estimate, "14 of the 40 paragraphs"
    for index in (0, 2):
        datagen(*words, "--num_shards", 3, "--shard_index", index)
    said = merge(split, check=3).stderr
    assert "shard 0001-of-0003 is missing (translate of Basque)" in said and "(score of Basque)" in said
    assert not (split / "writer-1" / "manifest_translate_Basque.json").exists()
    assert (split / "writer-1" / "settings_translate.json").exists(), "what is merged so far goes on with its settings"
    funnel = datagen(*words, "--num_shards", 3, "--shard_index", 1).stdout.split("Funnel, Basque:\n")[1]
    assert funnel.startswith("  sentences "), "the shard's own prompts did not write the paragraphs that it translates"
    taken = [len(records(path)) for path in split.glob("shards/*/writer-1/Basque_paragraphs.jsonl")]
    assert sum(taken) == 40 and all(taken)
    stale = datagen(*command(server, split, "--stages", "score", *scored), check=2)
    assert "Basque_translate.jsonl lacks what shard 0001-of-0003 has done since the last merge" in stale.stderr
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


@pytest.mark.medium
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
    manifest = whole / "writer-1" / "manifest_translate_Basque.json"
    before = manifest.read_bytes()
    merge(whole)
    assert translated(whole) == translated(tmp_path / "one") and manifest.read_bytes() == before
    verified(whole)


def test_scores_by_shards_of_an_earlier_split_of_the_translation_are_refused(server, scored, tmp_path):
    """Of three shards one translated; then two did all."""
    datagen(*command(server, tmp_path, "--stages", "generate"))
    for index, count in ((0, 3), (0, 2), (1, 2)):
        datagen(*command(server, tmp_path, "--stages", "translate", *split(index, count)))
    merge(tmp_path)
    score = command(server, tmp_path, "--stages", "score", *scored)
    refused = datagen(*score, *split(1, 3), check=2)
    assert "0000-of-0003 has pairs of an earlier split" in refused.stderr and "pass --num_shards 2 or" in refused.stderr
    for index in range(4):
        datagen(*score, *split(index, 4))
    merge(tmp_path)
    assert all("scorer" in record for record in records(tmp_path / "writer-1/Basque_translate.jsonl"))


@pytest.mark.medium
def test_a_later_answer_counts_for_more_than_an_earlier_score(server, scored, tmp_path, monkeypatch):
    """A merge of what was answered so far, and another after the shards were run again."""

    def some(path, body, _):
        response = answer(path, body, _)
        if "Translate this sentence" in body["messages"][-1]["content"] and int(digest(body), 16) % 3 == 0:
            for choice in response["choices"]:
                choice["message"]["content"] = ""
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
        accepted = shutil.copytree(split, tmp_path / "accepted")
        for index in range(2):
            flags = (*command(server, accepted, *scored), "--num_shards", 2, "--shard_index", index, "--stages")
            datagen(*flags, "translate", "--accept_unanswered")
            datagen(*flags, "score")
    merge(accepted)  # although the command of the scores does not accept anything
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


@pytest.mark.medium
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


@pytest.mark.medium
def test_a_split_run_grows_stage_by_stage(server, tmp_path):
    """With more paragraphs, of which near-duplicates of other shards' are missing until one process adds them."""
    for number in ("60", "90"):
        words = ("--number_of_instructions", number)
        for index in range(2):
            shard(server, tmp_path, index, 2, *words)
        if number == "90":
            stale = datagen(*command(server, tmp_path, "--stages", "translate", *words), check=2)
            assert "Basque.jsonl lacks what shard 0000-of-0002 has done since the last merge (generate)" in stale.stderr
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


def test_pairs_whose_paragraphs_are_not_merged_are_refused_not_lost(server, tmp_path):
    """Also under another name, of which nothing says whose paragraphs it has."""
    named, lacks = ("--output_filenames", "euskara.jsonl"), "has done since the last merge (generate)"
    for words in ((), ("--number_of_instructions", "60")):
        for index in range(2):
            datagen(*command(server, tmp_path, *named, *split(index, 2), *words))
        refused = in_process("scripts/merge.py", tmp_path, "--stages", "translate")
        assert refused.returncode == 2 and f"euskara.jsonl lacks what shard 0000-of-0002 {lacks}" in refused.stderr
        if words:
            assert lacks in datagen(*command(server, tmp_path, *named, "--stages", "translate"), check=2).stderr
        else:
            assert not (tmp_path / "writer-1").exists()
        assert in_process("scripts/merge.py", tmp_path).returncode in (0, 3)
        assert len(records(tmp_path / "writer-1/Basque_translate.jsonl")) >= (50 if words else 30)


def test_merges_of_two_languages_at_a_time_leave_each_other_s_files(tmp_path):
    """The second one removed what the first had written, which then noted pairs that it did not have."""
    (tmp_path / "shards").mkdir()
    layout = Layout(tmp_path, "nllb")
    first = _staging(layout, "Basque")
    (first / "Basque_translate.jsonl").touch()
    assert _staging(layout, "Hausa") != first and (first / "Basque_translate.jsonl").exists()
    assert not list(_staging(layout, "Basque").iterdir()), "what a merge that was killed has left"


def split(index, count):
    return "--num_shards", count, "--shard_index", index
