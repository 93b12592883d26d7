"""Shards of a run: status sums them until they are merged; nothing counts them twice."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.support.runs import ROOT, datagen, in_process
from tests.support.writer import Writer, command, serve
from topxgen.common.errors import UsageError
from topxgen.common.locks import OutputLock
from topxgen.runs.folders import find
from topxgen.statistics.corpus import Sources, read_all


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Paragraphs and pairs of two shards, of which one has not scored them."""
    folder = tmp_path_factory.mktemp("split")
    with pytest.MonkeyPatch.context() as patch, Writer(delay=0) as server:
        serve(patch)
        datagen(*command(server, folder, "--num_shards", 2, "--shard_index", 0))
        datagen(*command(server, folder, "--num_shards", 2, "--shard_index", 1, "--stages", "generate", "translate"))
    return folder


def status(folder):
    result = in_process("scripts/status.py", folder, "--json")
    assert result.returncode == 0, result.stderr
    return {(stage["stage"], stage["folder"]): stage for stage in json.loads(result.stdout)["stages"]}


def test_status_sums_shards_until_they_are_merged(split, tmp_path):
    stages = status(split)
    own = stages["generate", "shards/*-of-0002"]
    assert (own["done"], own["of"], own["state"], own["process"]) == (40, 40, "finished", "2 shards: 2 finished")
    assert stages["translate", "shards/*-of-0002/writer-1"]["done"] == 40
    assert len(stages) == 2
    run = find(split)
    assert not run.generations and not run.back_translations
    assert any("has 2 shards that are not merged, and not shown" in problem for problem in run.problems)

    for script, *flags in (("sample.py",), ("publish.py", "--out", tmp_path / "published")):
        refused = in_process(f"scripts/{script}", split, *flags)
        assert refused.returncode == 2 and not (tmp_path / "published").exists()
        assert "has 2 shards that are not merged, and not shown: python scripts/merge.py" in refused.stderr

    merged = in_process("scripts/merge.py", split)
    assert merged.returncode == 0, merged.stderr
    stages = status(split)
    usd = sum(stage["usd"] or 0 for stage in stages.values())
    assert usd > 0 and f"cost so far: {usd:.2f} USD\n" in in_process("scripts/status.py", split).stdout
    assert stages["generate", "."]["done"] == 40 and stages["translate", "writer-1"]["done"] == 40
    assert not any("shards" in folder for _, folder in stages)
    run = find(split)
    assert run.generations == (split,) and [one.folder for one in run.back_translations] == [split / "writer-1"]
    assert run.problems == ()
    sample = in_process("scripts/sample.py", split, "-n", 1000)
    counts = json.loads((split / "writer-1" / "manifest_translate_Basque.json").read_text())["counts"]
    assert sample.returncode == 0 and "not read" not in sample.stderr
    assert len(sample.stdout.splitlines()) == counts["pairs"] > 40
    published = in_process("scripts/publish.py", split, "--out", tmp_path / "published", "--allow_undecontaminated")
    assert published.returncode == 0 and "not merged" not in published.stderr, published.stderr
    assert "pairs of 40 paragraphs" in published.stdout
    with OutputLock(split / "shards" / "0001-of-0002", "Basque", note={"stages": ["generate"], "paragraphs": 30}):
        stages = status(split)
        assert stages["generate", "shards/*-of-0002"]["done"] == 20  # at work again
        cost = in_process("scripts/status.py", split).stdout.rpartition("cost so far: ")[2]
    assert cost == f"{usd:.2f} USD, without what shards have cost since their last merge\n"
    shard = find(split / "shards" / "0001-of-0002")  # what is asked for is shown
    assert len(shard.generations) == 1


def test_a_merge_that_came_too_early_hides_nothing(split, tmp_path):
    """What shards do after it is shown until the next merge: also scores of pairs that are merged."""
    folder = tmp_path / "run"
    shutil.copytree(split, folder)
    for path in folder.glob("*"):
        if path.name != "shards":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(folder / "shards/0001-of-0002")
    for path in folder.glob("shards/merged_*"):
        path.unlink()
    assert in_process("scripts/merge.py", folder).returncode == 3
    assert not any("shards" in name for _, name in status(folder))
    own = folder / "shards/0000-of-0002"
    manifest = own / "manifest_generate_Basque.json"
    later = json.loads(manifest.read_text()) | {"finished": "2100-01-01T00:00:00+00:00"}
    manifest.write_text(json.dumps(later))  # it has gone on and finished
    assert ("generate", "shards/*-of-0002") in status(folder)
    assert any("1 shards that are not merged" in problem for problem in find(folder).problems)
    for path in (manifest, own / "manifest_generate.json"):  # it goes on and was stopped
        path.unlink()
    with open(own / "Basque_rejects.jsonl", "a") as file:
        file.write("{}\n")
    assert status(folder)["generate", "shards/*-of-0002"]["state"] == "stopped"


@pytest.mark.medium
def test_a_shard_that_came_after_the_merge_is_in_no_result(split, tmp_path, tiny_lm):
    """A shard that was copied here after a merge, though finished before it: no result is made without its pairs, and in the report
    of a run each section says what it lacks."""
    folder, late = tmp_path / "run", "shards/0000-of-0002"
    shutil.copytree(split, folder)
    for path in (folder / "writer-1", *folder.glob("shards/merged_*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink() if path.exists() else None
    shutil.move(folder / late, tmp_path / "late")
    assert in_process("scripts/merge.py", folder).returncode == 3
    pairs, filtered = (folder / "writer-1" / f"Basque_translate{end}.jsonl" for end in ("", "_filtered"))
    of_data = ("--dataset_name_or_path", "topxgen", "--data_dir", folder / "writer-1", "--model_name_or_path", tiny_lm)
    readers = {
        "scripts/publish.py": (folder, "--out", tmp_path / "out", "--allow_undecontaminated"),
        "scripts/sample.py": (folder, "-n", 1000),
        "scripts/data_stats.py": (folder,),
        "decontamination.py": ("--input_dir", folder / "writer-1", "--benchmarks", "udhr", "--audit"),
        "train.py": (*of_data, "--target_languages", "Basque", "--output_dir", tmp_path / "model", "--dry_run"),
    }

    def results():
        shutil.copy(pairs, filtered)
        return {name: in_process(name, *words) for name, words in readers.items()}

    before = len(pairs.read_text().splitlines())
    assert {name: "lacks what shard" in one.stderr for name, one in results().items()} == dict.fromkeys(readers, False)
    shutil.rmtree(tmp_path / "out")
    shutil.move(tmp_path / "late", folder / late)
    assert any("1 shards that are not merged" in problem for problem in find(folder).problems)
    page = in_process("scripts/report.py", folder, "-o", tmp_path / "page.html")
    assert page.returncode == 3 and page.stderr.count("has 1 shards that are not merged") == 1, page.stderr
    html = (tmp_path / "page.html").read_text()
    sections = html.count("<section")
    assert sections >= 3 and html.count("has 1 shards that are not merged") == 1 + sections
    for name, one in results().items():
        if name == "scripts/data_stats.py":
            assert one.returncode == 2 and f"Basque.jsonl lacks what shard {late[7:]} has done" in one.stderr, (
                one.stderr
            )
            continue
        assert one.returncode == 2 and not one.stdout, (name, one.stderr)
        said = (
            f"lacks what shard 0000-of-0002 has done since the last merge (translate): python scripts/merge.py {folder}"
        )
        assert said in one.stderr and not (tmp_path / "out").exists(), (name, one.stderr)
    assert in_process("scripts/merge.py", folder).returncode == 0
    assert len(pairs.read_text().splitlines()) > before
    for name, one in results().items():
        assert one.returncode == 0, (name, one.stderr)
    corpora = read_all([str(folder)], Sources(stages=("paragraphs", "pairs")))  # of the whole, not also of its parts
    assert [corpus.stage for corpus in corpora] == ["paragraphs", "pairs"] and len(corpora[0].paragraphs) == 40
    (folder / "Basque.jsonl").unlink()  # what shards have and no merge has made is not passed over
    for path in (*folder.glob("shards/merged_*"), *folder.glob("writer-1/Basque*")):
        path.unlink()
    for stage, file in {"paragraphs": "Basque.jsonl", "pairs": "writer-1/Basque_translate.jsonl"}.items():
        with pytest.raises(UsageError, match=f"{file} lacks what shard 0000-of-0002 has done"):
            read_all([str(folder)], Sources(stages=(stage,)))
    one = read_all([str(folder / late)], Sources(stages=("paragraphs",)))
    assert 20 <= len(one[0].paragraphs) < 40


HOLD = """
import sys, time
from pathlib import Path
from topxgen.common.locks import OutputLock
lock = OutputLock(Path(sys.argv[1]), "Basque")
print("held", flush=True)
time.sleep(600)
"""


def test_nothing_is_merged_while_a_shard_is_at_work(split):
    folder = split / "shards" / "0001-of-0002"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "held\n"
            refused = in_process("scripts/merge.py", split)
        finally:
            process.kill()
    assert refused.returncode == 2
    assert f"Basque in {folder} is in use by process {process.pid}" in refused.stderr
