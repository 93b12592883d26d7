"""main.py in shards: merged, its translations are those of one run, and no model is loaded for that."""

import json
import shutil

import pytest

from comptra import evaluate
from comptra.tables import variants
from tests.support.main_runs import folder_of, options
from tests.support.runs import in_process
from topxgen import inference
from topxgen.common.errors import UsageError


def main(output, model, *more, check=0, **changes):
    words = options(model, "--output_dir", output, "--request_batch_size", 1, *more, **changes)
    result = in_process("main.py", *words)
    assert result.returncode == check, result.stderr
    return result


def merge(*folders, check=0):
    result = in_process("scripts/merge.py", *folders)
    assert result.returncode == check, result.stderr
    return result.stderr


@pytest.mark.medium
@pytest.mark.parametrize(
    "changes",
    [
        {"max_samples": 5},
        {"max_samples": 5, "steps": 2, "method_divide": "space", "number_of_subproblems": 3},
        {"max_samples": 3, "number_of_refining_steps": 2},
        {"max_samples": 5, "steps": 1, "method_divide": "sentence", "method_translate": "nllb"},
    ],
    ids=["few-shot", "comptra", "refined", "comptra of nllb"],
)
def test_translations_are_those_of_one_run(tmp_path, tiny_lm, tiny_nllb, monkeypatch, changes):
    if "method_translate" in changes:
        changes |= {"nllb_name_or_path": tiny_nllb}
    main(tmp_path / "one", tiny_lm, **changes)
    for index in (0, 2):
        main(tmp_path / "split", tiny_lm, "--num_shards", 3, "--shard_index", index, **changes)
    said = merge(tmp_path / "split", check=3)
    assert "shard 0001-of-0003 is missing" in said and "python main.py" in said
    main(tmp_path / "split", tiny_lm, "--num_shards", 3, "--shard_index", 1, **changes)
    with monkeypatch.context() as patch:
        for place in ("topxgen.inference.load", "topxgen.translation.nllb.NLLB.load", "comptra.methods.Task.shots"):
            patch.setattr(place, lambda *_: pytest.fail("something was translated again"))
        merge(tmp_path / "split")
    runs = [next((tmp_path / name / tiny_lm_name(tiny_lm)).glob("English*")) for name in ("one", "split")]
    names = [sorted(path.name for path in run.glob("*_[0-9]*.jsonl")) for run in runs]
    drafts = range(changes.get("number_of_refining_steps", 0))
    assert (
        names[0]
        == names[1]
        == [
            *(f"draft_0_{k}.jsonl" if k else "draft_0.jsonl" for k in drafts),
            *(f"translate_{s}.jsonl" for s in range(changes.get("steps", 0) + 1)),
        ]
    )
    for name in names[0]:
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()
    one, merged = (json.loads((run / "manifest_translate.json").read_text()) for run in runs)
    assert one.keys() == merged.keys()
    for key in (
        "settings",
        "test_set",
        "sentences",
        "lines_from_original",
        "phrases",
        "truncated_answers",
        "unanswered_prompts",
    ):
        assert one[key] == merged[key], key
    answers = [sorted((run / "answers.jsonl").read_text().splitlines()) for run in runs]
    assert answers[0] == answers[1]
    before = {path: path.read_bytes() for path in runs[1].iterdir()}
    merge(tmp_path / "split")
    assert before == {path: path.read_bytes() for path in runs[1].iterdir()}
    main(tmp_path / "split", tiny_lm, **changes)  # one run goes on with it: nothing to do
    assert before == {path: path.read_bytes() for path in runs[1].iterdir()}
    verified = in_process("scripts/verify.py", tmp_path / "split", "--verbose")
    assert verified.returncode == 0 and "the texts of a shard" in verified.stdout, verified.stdout
    scored = [in_process("comptra/evaluate.py", tmp_path / name, "--metrics", "chrf++") for name in ("one", "split")]
    assert scored[0].returncode == 0 and scored[0].stdout == scored[1].stdout


def tiny_lm_name(model: str) -> str:
    return str(model).rstrip("/").rpartition("/")[2]


def test_more_shards_than_sentences(tmp_path, tiny_lm):
    said = main(tmp_path, tiny_lm, "--num_shards", 5, "--shard_index", 4, check=2).stderr
    assert "--num_shards 5 is more than the 4 sentences" in said


def test_other_settings_are_refused(tmp_path, tiny_lm):
    run = ("--metadata_dir", "run")
    main(tmp_path, tiny_lm, "--num_shards", 2, "--shard_index", 0, *run)
    main(tmp_path, tiny_lm, "--num_shards", 2, "--shard_index", 1, *run, k=1)
    assert "has other settings than" in merge(tmp_path, check=2)
    assert not folder_of(tmp_path, tiny_lm).exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_lm):
    """Two shards of six sentences."""
    folder = tmp_path_factory.mktemp("finished")
    for index in range(2):
        main(folder, tiny_lm, "--num_shards", 2, "--shard_index", index, max_samples=6)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copied")


@pytest.mark.medium
def test_a_sentence_that_two_shards_translated_costs_twice(tmp_path, tiny_lm):
    sides = [tmp_path / "en.txt", tmp_path / "eu.txt"]
    for path, lines in zip(
        sides,
        (["The sea.", "A house.", "A road.", "The sea."], ["Itsasoa.", "Etxe bat.", "Bide bat.", "Itsasoa."]),
        strict=True,
    ):
        path.write_text("".join(f"{line}\n" for line in lines))
    words, changes = ("--test_files", *sides), {"dataset_name_or_path": "files", "k": 0, "max_samples": None}
    main(tmp_path / "one", tiny_lm, *words, **changes)
    for index in range(2):
        main(tmp_path / "split", tiny_lm, *words, "--num_shards", 2, "--shard_index", index, **changes)
    merge(tmp_path / "split")
    one, merged = (folder_of(tmp_path / name, tiny_lm, k=0) for name in ("one", "split"))
    answers = [(run / "answers.jsonl").read_text().splitlines() for run in (one, merged)]
    assert [len(lines) for lines in answers] == [3, 4] and {*answers[0]} == {*answers[1]}
    usages = [json.loads((run / "manifest_translate.json").read_text())["usage"] for run in (one, merged)]
    assert [usage["responses"] for usage in usages] == [3, 4]
    before = {path: path.read_bytes() for path in merged.iterdir()}
    merge(tmp_path / "split")
    assert before == {path: path.read_bytes() for path in merged.iterdir()}
    verified = in_process("scripts/verify.py", tmp_path / "split")
    assert verified.returncode == 0, verified.stdout


def lines_in(folder, model):
    return (folder_of(folder, model) / "translate_0.jsonl").read_text().splitlines()


@pytest.mark.medium
def test_shards_of_other_numbers_of_sentences(copied, tiny_lm):
    main(copied, tiny_lm, "--num_shards", 2, "--shard_index", 0, max_samples=8)
    said = merge(copied, check=3)
    assert "shard 0001-of-0002 is not finished" in said and "--max_samples 8" in said
    assert not any(folder_of(copied, tiny_lm).glob("*.json*"))
    main(copied, tiny_lm, "--num_shards", 2, "--shard_index", 1, max_samples=8)
    merge(copied)
    assert len(lines_in(copied, tiny_lm)) == 8
    main(copied, tiny_lm, "--num_shards", 2, "--shard_index", 0, max_samples=10)
    stale = in_process("comptra/evaluate.py", copied, "--metrics", "chrf++")
    assert stale.returncode == 2 and "lacks what shard 0000-of-0002 has done since the last merge" in stale.stderr
    args = evaluate.build_parser().parse_args([str(copied), "--metrics", "chrf++"])
    with pytest.raises(UsageError, match="lacks what shard 0000-of-0002 has done since the last merge"):
        variants.score({"one": [[folder_of(copied, tiny_lm)]]}, None, args)  # as scripts/compare.py does


def test_lines_of_the_directory_are_not_lost(copied, tiny_lm):
    main(copied, tiny_lm, max_samples=8)
    assert "has more lines than the 6 sentences" in merge(copied, check=2)
    assert len(lines_in(copied, tiny_lm)) == 8
    for name in ("settings_translate.json", "SHA256SUMS"):
        (folder_of(copied, tiny_lm) / name).unlink()
    path = folder_of(copied, tiny_lm) / "translate_0.jsonl"
    path.write_text("".join(path.read_text().splitlines(True)[:2]))
    assert "has lines of another program" in merge(copied, check=2)
    assert len(lines_in(copied, tiny_lm)) == 2


@pytest.mark.parametrize("change", ["cut", "torn", "edited", "removed"])
def test_a_file_that_was_changed_after_its_run(copied, tiny_lm, change):
    path = next((copied / "shards" / "0001-of-0002").rglob("translate_0.jsonl"))
    content = path.read_bytes()
    if change == "removed":
        path.unlink()
    else:
        cut = {"cut": content[: content.index(b"\n") + 1], "torn": content[:-9], "edited": content.replace(b"a", b"e")}
        path.write_bytes(cut[change])
    said = merge(copied, check=2)
    assert f"{path} {'is missing' if change == 'removed' else 'was changed'} after its run" in said
    assert not any(folder_of(copied, tiny_lm).glob("*.json*"))


@pytest.mark.parametrize("kept", [None, 0, 1])
def test_checksums_that_are_missing_or_cut_off(copied, tiny_lm, kept):
    path = next((copied / "shards" / "0001-of-0002").rglob("SHA256SUMS"))
    lines = path.read_bytes().splitlines(True)
    path.unlink() if kept is None else path.write_bytes(b"".join(lines[:kept]) + lines[kept][:40])
    said = merge(copied, check=2)
    assert f"{path} {'is missing' if kept is None else 'lacks '}" in said and "copy the shard again with it" in said
    assert not any(folder_of(copied, tiny_lm).glob("*.json*"))


def test_a_direction_that_no_shard_has_begun(copied, tiny_lm, monkeypatch):
    for path in copied.rglob("shard_translate_main.json"):
        note = json.loads(path.read_text())
        at = note["command"].index("--tgt")
        note["command"][at + 1 : at + 2] = ["Basque", "Spanish"]
        path.write_text(json.dumps(note))
    monkeypatch.setattr(inference, "load", lambda *_: pytest.fail("a model was loaded"))
    said = merge(copied, check=3)
    assert "no shard has started" in said and "English_to_Spanish" in said
