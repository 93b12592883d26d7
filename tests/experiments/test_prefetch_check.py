"""scripts/prefetch.py --check: what is missing, cut off or damaged, in what it has fetched and in other caches."""

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from tests.support import hub_cache
from tests.support.hub_server import HubServer
from tests.support.prefetch_runs import RUN, prefetch, whole
from tests.support.runs import ROOT, in_process
from tests.support.tiny_models import sentencepiece_model, udhr_texts
from topxgen.experiments import fetching


def test_all_that_is_missing_is_said_at_once_without_a_network(run_file, tmp_path):
    began = time.monotonic()
    result = prefetch(None, run_file, "--folder", tmp_path / "none", "--check")
    assert result.returncode == 3 and time.monotonic() - began < 120
    assert "3 of 3 missing" in result.stdout
    for line in (
        "model org/writer (for datagen, train): not downloaded; scripts/prefetch.py downloads it",
        "model org/nllb (for datagen): not downloaded",
        "data set openlanguagedata/flores_plus (for datagen, decontamination, main): not downloaded",
    ):
        assert line in result.stdout
    assert not (tmp_path / "none").exists() and result.stderr == ""


def test_all_that_a_cache_made_by_hand_lacks_is_said_at_once(run_file, tmp_path):
    """Copies that are not whole: a shard of the weights, a snapshot that the reference names, the reference, what a link points to."""
    run_file.write_text(run_file.read_text().replace("${output_dir}/train", "org/other"))
    hub, commit = tmp_path / "home" / "hub", "0" * 40

    def snapshot(place: str, reference: bool = True) -> Path:
        folder = hub / place / "snapshots" / commit
        folder.mkdir(parents=True)
        if reference:
            (hub / place / "refs").mkdir()
            (hub / place / "refs" / "main").write_text(commit)
        return folder

    writer, flores = snapshot("models--org--writer"), snapshot("datasets--openlanguagedata--flores_plus")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (writer / "config.json").write_text("{}")
    (writer / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (writer / shards["a"]).write_bytes(b"\2\0\0\0\0\0\0\0{}")
    snapshot("models--org--nllb").rmdir()
    (snapshot("models--org--other", reference=False) / "config.json").write_text("{}")
    (flores / "README.md").symlink_to("../../blobs/none")
    result = in_process("scripts/prefetch.py", run_file, "--folder", hub.parent, "--check")
    assert result.returncode == 3 and not result.stderr, result.stderr
    for line in (
        "model org/writer (for datagen, train): it lacks model-00002-of-00002.safetensors",
        "model org/nllb (for datagen): not downloaded",
        "model org/other (for main): not downloaded",
        "flores_plus (for datagen, decontamination, main): README.md is not there, where a link points",
    ):
        assert line in result.stdout, result.stdout
    assert "-" in next(line for line in result.stdout.split("\n") if "org/nllb" in line).split()  # no "0.0 MB"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", '{"model_type": "lla'),
        ("config.json", ""),
        ("tokenizer.json", None),
        ("tokenizer.json", "<html>Access denied</html>"),
        ("tokenizer_config.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    ],
)
def test_configuration_and_tokenizer_that_are_half_there(run_file, tiny_lm, tmp_path, name, content):
    """As git without LFS, a proxy and a copy that was broken off leave them; the job would be the first to notice."""
    folder = tmp_path / "writer"
    shutil.copytree(tiny_lm, folder)
    run_file.write_text(run_file.read_text().replace("org/writer", str(folder)))
    before = in_process("scripts/prefetch.py", run_file, "--folder", tmp_path / "home", "--check").stdout
    assert "2 of 3 missing" in before and f"{folder} (for" not in before
    problem = "it has no tokenizer" if content is None else f"{name} is cut off or damaged"
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    result = in_process("scripts/prefetch.py", run_file, "--folder", tmp_path / "home", "--check")
    assert result.returncode == 3 and f"{folder} (for datagen, train): {problem}" in result.stdout


@pytest.fixture(scope="module")
def fetched(repositories, tmp_path_factory) -> tuple[Path, Path]:
    """(run file, folder) after a complete download."""
    place = tmp_path_factory.mktemp("fetched")
    run = place / "run.yaml"
    run.write_text(RUN.format(out=place / "out", topics=ROOT / "topics" / "wikipedia_vital_topics.txt"))
    with HubServer(repositories) as server:
        assert prefetch(server, run, "--folder", place / "folder").returncode == 0
    return run, place / "folder"


@pytest.mark.medium
def test_what_was_damaged_since_is_found_and_fetched_again(hub, fetched, tmp_path):
    run, folder = fetched[0], tmp_path / "copy"
    shutil.copytree(fetched[1], folder, symlinks=True)
    shards = sorted(whole(folder, "org/writer").glob("*.safetensors"))
    with open(shards[0], "r+b") as file:  # one bit, so that size and header are the same
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    assert prefetch(None, run, "--folder", folder, "--check").returncode == 0
    result = prefetch(None, run, "--folder", folder, "--check", "--hashes")
    assert result.returncode == 3 and f"{shards[0].name} is damaged; scripts/prefetch.py --hashes" in result.stdout
    assert prefetch(hub, run, "--folder", folder, "--hashes").returncode == 0
    original = hub.root / "models" / "org" / "writer" / shards[0].name
    assert shards[0].read_bytes() == original.read_bytes()
    shards[1].resolve().unlink()
    result = prefetch(None, run, "--folder", folder, "--check")
    assert (
        result.returncode == 3
        and f"model org/writer (for datagen, train): {shards[1].name} is not there" in result.stdout
    )
    (folder / fetching.RECORD).unlink()  # a cache that something else has made
    result = prefetch(None, run, "--folder", folder, "--check")
    assert result.returncode == 3 and f"{shards[1].name} is not there, where a link points" in result.stdout
    shards[1].unlink()
    result = prefetch(None, run, "--folder", folder, "--check")
    assert result.returncode == 3 and f"it lacks {shards[1].name}" in result.stdout
    assert prefetch(hub, run, "--folder", folder).returncode == 0
    assert prefetch(None, run, "--folder", folder, "--check", "--hashes").returncode == 0
    with open(shards[2], "r+b") as file:
        file.truncate(shards[2].stat().st_size - 5)
    (folder / fetching.RECORD).unlink()
    result = prefetch(None, run, "--folder", folder, "--check")
    assert result.returncode == 3 and f"{shards[2].name} is cut off or damaged" in result.stdout


@pytest.mark.parametrize("git", [False, True], ids=["LFS", "git"])
def test_digests_of_a_cache_that_another_program_has_made(tmp_path, tiny_lm, git, caplog):
    """The Hub's client names a blob after its digest: SHA-256 of large files, git's of others."""
    snapshot = hub_cache.add(tmp_path / "home" / "hub", "org/writer", Path(tiny_lm))
    link = snapshot / "tokenizer.json"
    content = link.read_bytes()
    if git:
        blob = link.resolve()
        name = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        blob.rename(blob.with_name(name))
        link.unlink()
        link.symlink_to(f"../../blobs/{name}")
    run = tmp_path / "run.yaml"
    run.write_text(
        f"output_dir: {tmp_path}/out\nmain:\n  model_name_or_path: org/writer\n  inference_api: hf\n  k: 0\n"
        "  dataset_name_or_path: udhr\n  src: English\n  tgt: Basque\n"
    )
    words = ("scripts/prefetch.py", run, "--folder", tmp_path / "home", "--check")
    assert in_process(*words, "--hashes").returncode == 0 and not caplog.text
    link.resolve().write_bytes(content.replace(b"e", b"o", 1))
    assert in_process(*words).returncode == 0
    result = in_process(*words, "--hashes")
    assert result.returncode == 3 and "model org/writer (for main): tokenizer.json is damaged" in result.stdout
    link.unlink()
    link.write_bytes(content)
    result = in_process(*words, "--hashes")
    assert result.returncode == 0 and "org/writer: tokenizer.json was not compared" in result.stderr + caplog.text


@pytest.mark.medium
def test_a_record_that_is_damaged_is_one_line(fetched, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(fetched[1], folder, symlinks=True)
    for text in ("{", '{"repositories": []}', '{"files": {"a": {"size": -1, "digest": ""}}}'):
        (folder / fetching.RECORD).write_text(text)
        result = prefetch(None, fetched[0], "--folder", folder, "--check")
        assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and fetching.RECORD in result.stderr


@pytest.fixture
def spm(hub, tmp_path, monkeypatch):
    """sacreBLEU's models from the small Hub: (prefetch in this process, the run file, the folder, path of flores200's model there)."""
    from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("flores200", "flores101"):
        page = f"/{name}spm"
        monkeypatch.setitem(SPM_MODELS, name, SPM_MODELS[name] | {"url": f"{hub.url}{page}"})
        path = sentencepiece_model(tmp_path, name, udhr_texts("Basque"), 300)
        hub.pages[page] = Path(path).read_bytes()
    run, folder = tmp_path / "run.yaml", tmp_path / "folder"
    run.write_text(f"output_dir: {tmp_path}/out\nevaluate:\n  dirs: [{tmp_path}/none]\n  metrics: [bleu]\n")
    words = ("scripts/prefetch.py", run, "--folder", folder)
    return lambda *more: in_process(*words, *more), run, folder, folder / "sacrebleu" / "models" / "flores200spm"


def test_the_tokenizer_of_sacrebleu_is_fetched_verified_and_used(spm, hub, monkeypatch):
    prefetch_here, _, folder, model = spm
    result = prefetch_here()
    assert result.returncode == 0 and "all 1 are there" in result.stdout, result.stdout + result.stderr
    assert model.read_bytes() == hub.pages["/flores200spm"]
    record = json.loads((folder / fetching.RECORD).read_text())["files"]["sacrebleu/models/flores200spm"]
    assert record["digest"] == f"sha256:{hashlib.sha256(model.read_bytes()).hexdigest()}"
    asked = len(hub.asked)
    assert prefetch_here("--check", "--hashes").returncode == 0 and len(hub.asked) == asked
    monkeypatch.setattr(
        "sacrebleu.tokenizers.tokenizer_spm.SACREBLEU_DIR", str(folder / "sacrebleu")
    )  # as env.sh has it
    from sacrebleu.metrics import BLEU

    assert (
        "tok:flores200" in str(BLEU(tokenize="flores200", references=[["bat bi"]]).get_signature())
        and len(hub.asked) == asked
    )
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    assert prefetch_here("--check").returncode == 0
    damaged = prefetch_here("--check", "--hashes")
    assert damaged.returncode == 3 and "flores200 (for evaluate): it is damaged or not there" in damaged.stdout
    assert prefetch_here("--hashes").returncode == 0 and model.read_bytes() == hub.pages["/flores200spm"]


@pytest.mark.parametrize("fault", ["cut", "page"])
def test_a_tokenizer_that_is_no_model_is_not_kept(spm, hub, fault):
    """Cut off, or a page of a portal in its place."""
    prefetch_here, run, _, model = spm
    run.write_text(run.read_text() + "  tokenize: flores200\n")
    if fault == "cut":
        hub.cut["/flores200spm"] = 1
    else:
        hub.pages["/flores200spm"], whole = b"<html>Log in first</html>", hub.pages["/flores200spm"]
    result = prefetch_here()
    assert result.returncode == 3 and "1 of 1 missing" in result.stdout and "re-run to continue" in result.stdout
    assert not model.exists()
    if fault == "page":
        hub.pages["/flores200spm"] = whole
    assert prefetch_here().returncode == 0 and model.read_bytes() == hub.pages["/flores200spm"]


@pytest.mark.parametrize(("tokenize", "code"), [("auto", 0), ("flores200", 3), ("flores101", 3)])
def test_prefetch_and_doctor_agree_about_a_tokenizer_that_is_not_there(spm, monkeypatch, tokenize, code):
    """BLEU can do without flores200's, unless --tokenize names it."""
    prefetch_here, run, folder, _ = spm
    run.write_text(run.read_text() + f"  tokenize: {tokenize}\n")
    check = prefetch_here("--check")
    assert check.returncode == code
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(folder / "sacrebleu"))
    result = in_process("scripts/doctor.py", run, "--json")
    [row] = [row for row in json.loads(result.stdout)["findings"] if row["check"] == "assets"]
    assert row["level"] == ("problem" if code else "note")
    for text in (check.stdout, row["text"]):
        assert ("BLEU falls back to 13a" in text) == (not code), text
