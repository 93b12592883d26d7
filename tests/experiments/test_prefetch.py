"""scripts/prefetch.py with the Hub's own client and a small Hub: what is fetched, verified, refused and resumed."""

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

import pytest

from tests.support.hub_server import TOKEN, HubServer
from tests.support.prefetch_runs import CODES, SIZES, command, prefetch, sent, whole
from tests.support.runs import ROOT
from topxgen.common.errors import UsageError
from topxgen.inference.adapters import check_revision


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
    # As in a shell whose user has changed what cd does.
    line = 'cd() { builtin cd "$@" && ls; }; CDPATH="$PLACE"; builtin cd "$PLACE"; source moved/env.sh; builtin cd "$HERE"\n'
    line += '"$PYTHON" -c "$CODE" && echo "$HF_HOME $SACREBLEU"'
    result = subprocess.run(
        ["bash", "-euc", line],
        env=env | {"PYTHON": sys.executable, "CODE": code, "PLACE": str(tmp_path), "HERE": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    loaded, places = result.stdout.splitlines()[-2:]
    assert loaded.startswith(f"{tmp_path}/moved/hub/models--org--writer/snapshots/") and loaded.endswith("[997, 1012]")
    assert places == f"{tmp_path}/moved {tmp_path}/moved/sacrebleu"


def test_without_a_hub_one_line_in_seconds(run_file, tmp_path):
    began = time.monotonic()
    result = prefetch(None, run_file, "--folder", tmp_path / "folder")
    assert result.returncode == 2 and time.monotonic() - began < 120
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
    assert (
        f"model org/writer (for datagen, train): it is gated, and there is no token; {page}org/writer and export"
        in result.stdout
    )
    assert f"{page}datasets/openlanguagedata/flores_plus and export HF_TOKEN" in result.stdout
    assert f"model org/none (for datagen): there is no {hub.url}/org/none, or it is private" in result.stdout
    run_file.write_text(text.replace("org/none", "org/nllb"))
    result = prefetch(hub, run_file, "--folder", tmp_path / "folder", HF_TOKEN=TOKEN)
    assert result.returncode == 0, result.stdout
    assert not any(
        TOKEN in path.read_text(errors="replace") for path in (tmp_path / "folder").glob("*") if path.is_file()
    )


@pytest.mark.medium
def test_killed_in_the_middle_and_started_again(hub, run_file, tmp_path):
    folder = tmp_path / "folder"
    shards = sorted(path.name for path in (hub.root / "models" / "org" / "writer").glob("*.safetensors"))
    last = shards[-1]
    hub.stalled[last] = threading.Event()
    line, env = command(hub, run_file, "--folder", folder)
    process = subprocess.Popen(line, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert hub.waiting.wait(300)
    deadline = time.monotonic() + 120
    repository = folder / "hub" / "models--org--writer"
    while not {*shards[:-1]} <= {path.name for path in repository.glob("snapshots/*/*")}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = {f"org/writer/{path.name}" for path in repository.glob("snapshots/*/*")}
    assert list(repository.glob("blobs/*.incomplete"))
    assert not (repository / "refs").exists()  # no client takes it for a model
    check = prefetch(None, run_file, "--folder", folder, "--check")
    assert check.returncode == 3 and "model org/writer (for datagen, train): not downloaded" in check.stdout
    hub.stalled.pop(last).set()
    before = len(sent(hub))
    result = prefetch(hub, run_file, "--folder", folder)
    assert result.returncode == 0, result.stdout
    assert not there & set(sent(hub)[before:])  # it is not sent again
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
