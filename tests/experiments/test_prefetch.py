"""scripts/prefetch.py with the Hub's own client and a small Hub: what is fetched, verified, refused, resumed and found missing."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tests.support import hub_cache
from tests.support.hub_server import TOKEN, HubServer
from tests.support.runs import ROOT, in_process
from tests.support.tiny_models import sentencepiece_model, udhr_texts
from topxgen.common.errors import UsageError
from topxgen.experiments import fetching
from topxgen.inference.adapters import check_revision

RUN = """
output_dir: {out}
datagen:
  languages: [Basque, Hausa]
  model_name_or_path: org/writer
  inference_api: hf
  number_of_instructions: 4
  seed_topics_path: {topics}

  number_of_icl_phrases: 2
  number_of_icl_demonstrations: 0
  use_nllb: true
  nllb_name_or_path: org/nllb
  scorer: none
decontamination:
  input_dir: ${{output_dir}}/nllb
  benchmarks: [flores]
train:
  data_dir: ${{output_dir}}/nllb
  model_name_or_path: org/writer
  target_languages: [Basque, Hausa]
  max_steps: 1
main:
  model_name_or_path: ${{output_dir}}/train
  dataset_name_or_path: flores
  src: English
  tgt: Basque
evaluate:
  metrics: [chrf]
"""
CARD = """---
configs:
{}---
The card.
"""
CONFIG = """- config_name: {0}
  data_files:
  - split: dev
    path: dev/{0}.parquet
  - split: devtest
    path: devtest/{0}.parquet
"""
CODES = ("ace_Arab", "eng_Latn", "eus_Latn", "hau_Latn", "ibo_Latn")
SIZES = {"dev": 997, "devtest": 1012}


def make_flores(folder: Path) -> None:
    """FLORES+ as the Hub has it, with made-up sentences."""
    for split, size in SIZES.items():
        (folder / split).mkdir(parents=True)
        for code in CODES:
            texts = [f"{code} {split} sentence number {number} of these." for number in range(size)]
            pyarrow.parquet.write_table(
                pyarrow.table({"id": range(size), "text": texts}), folder / split / f"{code}.parquet"
            )
    (folder / "README.md").write_text(CARD.format("".join(map(CONFIG.format, CODES))))


def make_writer(model: str, folder: Path) -> None:
    """A model in three shards, with the copies that repositories of the Hub have."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(model, folder)
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(folder, max_shard_size="1MB")
    (folder / "original").mkdir()
    for name in ("pytorch_model.bin", "flax_model.msgpack", "model.gguf", "original/consolidated.00.pth", "README.md"):
        (folder / name).write_bytes(b"a copy, or not needed")
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}')


@pytest.fixture(scope="module")
def repositories(tmp_path_factory, tiny_lm, tiny_nllb) -> Path:
    root = tmp_path_factory.mktemp("repositories")
    make_writer(tiny_lm, root / "models" / "org" / "writer")
    shutil.copytree(tiny_nllb, root / "models" / "org" / "nllb")
    make_flores(root / "datasets" / "openlanguagedata" / "flores_plus")
    return root


@pytest.fixture
def hub(repositories):
    with HubServer(repositories) as server:
        yield server


@pytest.fixture
def run_file(tmp_path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(RUN.format(out=tmp_path / "out", topics=ROOT / "topics" / "wikipedia_vital_topics.txt"))
    return path


def command(hub: HubServer | None, *words, **environment) -> tuple[list, dict]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_ENDPOINT": hub.url if hub else "http://127.0.0.1:9", "no_proxy": "127.0.0.1", **environment}
    return [sys.executable, ROOT / "scripts" / "prefetch.py", *map(str, words)], env


def prefetch(hub: HubServer | None, *words, **environment) -> subprocess.CompletedProcess:
    line, env = command(hub, *words, **environment)
    return subprocess.run(line, env=env, cwd=ROOT, capture_output=True, text=True, check=False)


def sent(hub: HubServer) -> list[str]:
    return [path for path in hub.sent if not path.endswith("README.md")]


def whole(folder: Path, name: str, kind: str = "model") -> Path:
    place = folder / "hub" / f"{kind}s--{name.replace('/', '--')}"
    return place / "snapshots" / (place / "refs" / "main").read_text()


def test_only_what_is_used_is_fetched_and_then_it_is_there(hub, run_file, repositories, tmp_path):
    folder = tmp_path / "folder"
    result = prefetch(hub, run_file, "--folder", folder)
    assert result.returncode == 0, result.stderr + result.stdout
    writer = whole(folder, "org/writer")
    names = {path.name for path in writer.iterdir()}
    assert "model.safetensors.index.json" in names and sum(name.endswith(".safetensors") for name in names) >= 2
    assert not names & {"pytorch_model.bin", "flax_model.msgpack", "model.gguf", "original", "README.md"}
    assert "pytorch_model.bin.index.json" not in names
    flores = whole(folder, "openlanguagedata/flores_plus", "dataset")
    found = {path.relative_to(flores).as_posix() for path in flores.rglob("*.parquet")}
    assert found == {
        f"{split}/{code}.parquet" for split in SIZES for code in CODES[:4]
    }  # the first is that of its card
    copies = {path: repositories / "models" / "org" / "writer" / path.name for path in writer.iterdir()}
    source = repositories / "datasets" / "openlanguagedata" / "flores_plus"
    copies |= {path: source / path.relative_to(flores) for path in flores.rglob("*.parquet")}
    for path, original in copies.items():
        assert path.read_bytes() == original.read_bytes()
        assert not os.path.isabs(os.readlink(path))
    asked = len(hub.asked)
    check = prefetch(None, run_file, "--folder", folder, "--check")
    assert check.returncode == 0 and "all 3 are there" in check.stdout and len(hub.asked) == asked
    again = prefetch(hub, run_file, "--folder", folder)
    assert again.returncode == 0 and len(sent(hub)) == len(set(sent(hub)))  # nothing twice


@pytest.mark.medium
def test_the_environment_of_a_copied_folder_loads_models_and_data_without_the_hub(hub, run_file, tmp_path):
    assert prefetch(hub, run_file, "--folder", tmp_path / "folder").returncode == 0
    shutil.move(tmp_path / "folder", tmp_path / "moved")
    code = (
        "import os; from transformers import AutoModelForCausalLM, AutoTokenizer; from topxgen.common import hub, needs\n"
        "from topxgen.corpora import benchmarks; from topxgen.text import languages\n"
        "hub.require(needs.models('org/writer', 'org/nllb'))\n"
        "AutoModelForCausalLM.from_pretrained('org/writer'); AutoTokenizer.from_pretrained('org/nllb')\n"
        "print(hub.local_folder('org/writer'), [len(s.texts) for s in benchmarks.load('flores', languages.find('Hausa'))])\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    line = f'source {tmp_path}/moved/env.sh && "$PYTHON" -c "$CODE" && echo "$HF_HOME $SACREBLEU"'
    result = subprocess.run(
        ["bash", "-euc", line],
        env=env | {"PYTHON": sys.executable, "CODE": code},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    loaded, places = result.stdout.splitlines()[-2:]
    assert loaded.startswith(f"{tmp_path}/moved/hub/models--org--writer/snapshots/") and loaded.endswith("[997, 1012]")
    assert places == f"{tmp_path}/moved {tmp_path}/moved/sacrebleu"


def test_all_that_is_missing_is_said_at_once_without_a_network(run_file, tmp_path):
    began = time.monotonic()
    result = prefetch(None, run_file, "--folder", tmp_path / "none", "--check")
    assert result.returncode == 3 and time.monotonic() - began < 30
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


def test_without_a_hub_one_line_in_seconds(run_file, tmp_path):
    began = time.monotonic()
    result = prefetch(None, run_file, "--folder", tmp_path / "folder")
    assert result.returncode == 2 and time.monotonic() - began < 40
    (line,) = result.stderr.splitlines()
    assert "http://127.0.0.1:9 cannot be reached (ConnectError" in line and "--check lists what is missing" in line
    offline = prefetch(None, run_file, "--folder", tmp_path / "folder", HF_HUB_OFFLINE="1")
    assert offline.returncode == 2 and "HF_HUB_OFFLINE is set: unset it" in offline.stderr


def test_gated_and_unknown_repositories_are_lines_beside_what_is_fetched(hub, run_file, tmp_path):
    hub.gated = {"org/writer", "openlanguagedata/flores_plus"}
    text = run_file.read_text().replace("org/nllb", "org/none")
    run_file.write_text(text)
    result = prefetch(hub, run_file, "--folder", tmp_path / "folder")
    assert result.returncode == 3 and "3 of 3 missing" in result.stdout and "Traceback" not in result.stderr
    assert not [line for line in hub.asked if "/resolve/" in line]  # known before anything is downloaded
    page = f"accept its terms at {hub.url}/"
    assert f"model org/writer (for datagen, train): gated: {page}org/writer and export HF_TOKEN" in result.stdout
    assert f"gated: {page}datasets/openlanguagedata/flores_plus and export" in result.stdout
    assert f"model org/none (for datagen): there is no {hub.url}/org/none, or it is private" in result.stdout
    run_file.write_text(text.replace("org/none", "org/nllb"))
    result = prefetch(hub, run_file, "--folder", tmp_path / "folder", HF_TOKEN=TOKEN)
    assert result.returncode == 0, result.stdout
    assert not any(
        TOKEN in path.read_text(errors="replace") for path in (tmp_path / "folder").glob("*") if path.is_file()
    )


def test_killed_in_the_middle_and_started_again(hub, run_file, tmp_path):
    folder = tmp_path / "folder"
    shards = sorted(path.name for path in (hub.root / "models" / "org" / "writer").glob("*.safetensors"))
    last = shards[-1]
    hub.stalled[last] = threading.Event()
    line, env = command(hub, run_file, "--folder", folder)
    process = subprocess.Popen(line, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert hub.waiting.wait(60)
    deadline = time.monotonic() + 30
    while not {f"org/writer/{name}" for name in shards[:-1]} <= set(hub.sent) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(folder.glob("hub/models--org--writer/blobs/*.incomplete"))
    assert not (folder / "hub" / "models--org--writer" / "refs").exists()  # no client takes it for a model
    check = prefetch(None, run_file, "--folder", folder, "--check")
    assert check.returncode == 3 and "model org/writer (for datagen, train): not downloaded" in check.stdout
    hub.stalled.pop(last).set()
    before = sent(hub)
    result = prefetch(hub, run_file, "--folder", folder)
    assert result.returncode == 0, result.stdout
    assert not set(before) & set(sent(hub)[len(before) :]) - {f"org/writer/{last}"}  # what was there is not sent again
    assert not list(folder.glob("hub/*/blobs/*.incomplete"))
    for shard in shards:
        original = hub.root / "models" / "org" / "writer" / shard
        assert (whole(folder, "org/writer") / shard).read_bytes() == original.read_bytes()


def test_transfers_that_are_cut_off_or_damaged_are_repeated(hub, run_file, tmp_path):
    shards = sorted(path.name for path in (hub.root / "models" / "org" / "writer").glob("*.safetensors"))
    hub.cut[shards[0]], hub.damaged[shards[1]], hub.damaged["config.json"] = 1, 1, 1
    result = prefetch(hub, run_file, "--folder", tmp_path / "folder")
    assert result.returncode == 0, result.stdout + result.stderr
    for name in (*shards, "config.json"):
        original = hub.root / "models" / "org" / "writer" / name
        assert (whole(tmp_path / "folder", "org/writer") / name).read_bytes() == original.read_bytes()


def test_a_file_that_is_never_what_the_hub_lists_is_said_and_not_kept(hub, run_file, tmp_path):
    shards = sorted(path.name for path in (hub.root / "models" / "org" / "writer").glob("*.safetensors"))
    hub.damaged[shards[0]] = 100
    result = prefetch(hub, run_file, "--folder", tmp_path / "folder")
    assert result.returncode == 3 and "1 of 3 missing" in result.stdout
    assert f"{shards[0]} was downloaded twice and is not what the Hub lists" in result.stdout
    assert not (tmp_path / "folder" / "hub" / "models--org--writer" / "refs").exists()


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
    assert result.returncode == 3 and f"{shards[0].name} is damaged" in result.stdout
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
    original = hub.root / "models" / "org" / "writer" / shards[0].name
    assert shards[0].read_bytes() == original.read_bytes()  # without a record, files of the right size are read again
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


def test_an_adapter_brings_its_base_model(repositories, run_file, tmp_path, tiny_lm):
    root = tmp_path / "repositories"
    shutil.copytree(repositories, root)
    adapter = root / "models" / "org" / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/nllb"})
    )
    shutil.copy(Path(tiny_lm) / "model.safetensors", adapter / "adapter_model.safetensors")
    text = (
        run_file.read_text()
        .split("main:")[0]
        .replace("  nllb_name_or_path: org/nllb\n", "  nllb_name_or_path: org/writer\n")
    )
    run_file.write_text(
        text + "main:\n  model_name_or_path: org/adapter\n  dataset_name_or_path: udhr\n  src: English\n  tgt: Basque\n"
    )
    with HubServer(root) as server:
        result = prefetch(server, run_file, "--folder", tmp_path / "folder")
    assert result.returncode == 0, result.stdout
    assert (whole(tmp_path / "folder", "org/nllb") / "model.safetensors").is_file()


@pytest.mark.medium
def test_an_adapter_brings_the_revision_that_it_names(repositories, run_file, tmp_path, tiny_lm, monkeypatch):
    """It is main of the folder then, as main.py loads no other; a folder that has main of another run is left as it is."""
    root, settings = tmp_path / "repositories", {"peft_type": "LORA", "base_model_name_or_path": "org/nllb"}
    shutil.copytree(repositories, root)
    base, adapter = root / "models/org/nllb@v1", root / "models/org/adapter"
    shutil.copytree(root / "models/org/nllb", base)
    (base / "generation_config.json").write_text('{"max_length": 77}')
    adapter.mkdir()
    shutil.copy(Path(tiny_lm) / "model.safetensors", adapter / "adapter_model.safetensors")
    with_nllb, here, other = run_file.with_name("nllb.yaml"), tmp_path / "here", tmp_path / "other"
    with_nllb.write_text(run_file.read_text())
    run_file.write_text(
        f"output_dir: {tmp_path}/out\nmain:\n  model_name_or_path: org/adapter\n  dataset_name_or_path: udhr\n  src: English\n  tgt: Basque\n"
    )
    with HubServer(root) as server:
        for revision, said in {"../../x": "names the revision '../../x'", "v1": "all 3 are there"}.items():
            (adapter / "adapter_config.json").write_text(json.dumps(settings | {"revision": revision}))
            result = prefetch(server, run_file, "--folder", here)
            assert said in result.stdout and result.returncode == (0 if revision == "v1" else 3), result.stdout
        assert prefetch(server, with_nllb, "--folder", other).returncode == 0
        refused = prefetch(server, run_file, "--folder", other)
    assert (whole(here, "org/nllb") / "generation_config.json").read_text() == '{"max_length": 77}'
    assert (
        refused.returncode == 3
        and "which other runs load, but an adapter was trained on its revision v1" in refused.stdout
    )
    assert "77" not in (whole(other, "org/nllb") / "generation_config.json").read_text()
    for folder, code in {here: 0, other: 3}.items():
        assert prefetch(None, run_file, "--folder", folder, "--check").returncode == code
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(UsageError, match="revision v1 of org/nllb") if code else nullcontext():
            check_revision("org/adapter", settings | {"revision": "v1"})


def test_a_disk_that_is_too_small_is_said_before_the_download(run_file, tmp_path, monkeypatch, hub):
    sitecustomize = tmp_path / "site" / "sitecustomize.py"
    sitecustomize.parent.mkdir()
    sitecustomize.write_text("import shutil\nshutil.disk_usage = lambda path: shutil._ntuple_diskusage(10, 10, 5)\n")
    result = prefetch(hub, run_file, "--folder", tmp_path / "folder", PYTHONPATH=str(sitecustomize.parent))
    assert result.returncode == 2 and "must be downloaded; pass a --folder on a larger disk" in result.stderr
    assert not [path for path in hub.sent if path.endswith(".safetensors")]
