"""train.py --push_to_hub with the Hub's own client and a small Hub: what leaves the machine."""

import getpass
import json
from pathlib import Path

import pytest

from tests.support.hub_server import HubServer, client_of
from tests.support.runs import in_process
from tests.support.training_runs import flags, parsed
from topxgen.common import checksums, hub
from topxgen.common.errors import UsageError
from topxgen.training import arguments


@pytest.fixture
def server(tmp_path, monkeypatch):
    with client_of(tmp_path / "hub", monkeypatch) as server:
        yield server


def uploaded(server: HubServer, name: str, kind: str = "models") -> dict[str, bytes]:
    return {path: file.read_bytes() for path, file in server.files(kind, name).items()}


@pytest.mark.slow
def test_nothing_that_is_uploaded_names_a_folder_of_the_machine(tiny_lm, tmp_path, server):
    out = tmp_path / "some one" / "my-model"
    words = flags(tiny_lm, out, use_peft=True, max_steps=1, num_warmup_steps=0, eval_steps=1, save_steps=1)
    result = in_process("train.py", *words, "--push_to_hub")
    assert result.returncode == 0, result.stderr
    assert f"uploaded to {server.url}/me/my-model (" in result.stdout
    sent = uploaded(server, "me/my-model")
    names = {"README.md", "SHA256SUMS", "adapter_config.json", "adapter_model.safetensors", "manifest_train.json", "settings_train.json", "tokenizer.json", "train_log.jsonl"}  # fmt: skip
    assert names <= set(sent) and not [name for name in sent if name.startswith((".lock", "checkpoint-"))]
    for name, data in sent.items():
        for private in (
            str(tmp_path),
            str(Path(tiny_lm).parent),
            str(Path.home()) + "/",
            "some one",
            f"/{getpass.getuser()}/",
        ):
            assert private.encode() not in data, f"{name} has {private}"
    manifest, here = json.loads(sent["manifest_train.json"]), json.loads((out / "manifest_train.json").read_text())
    base = f"…/{Path(tiny_lm).name}"
    assert manifest["settings"]["model_name_or_path"] == base and here["settings"]["model_name_or_path"] == tiny_lm
    assert json.loads(sent["adapter_config.json"])["base_model_name_or_path"] == base
    assert f"--output_dir {out}".split(" ", 1)[1] in here["command"] and "…/my-model" in manifest["command"]
    assert manifest["lineage"]["weights"] == here["lineage"]["weights"]
    assert sent["adapter_model.safetensors"] == (out / "adapter_model.safetensors").read_bytes()
    place = server.root / "models" / "me" / "my-model"
    for name, digest in checksums.read(place).items():
        if name in sent:  # not those of checkpoints
            assert checksums.sha256_of(place / name) == digest, name
    assert checksums.read(out)["manifest_train.json"] == checksums.sha256_of(out / "manifest_train.json")


def test_an_upload_leaves_the_folder_as_it_is_and_hides_no_change(tmp_path, server):
    folder = tmp_path / "model"
    folder.mkdir()
    home = f"/home/{getpass.getuser()}"
    texts = {
        "settings_train.json": json.dumps({"data_dir": f"{home}/corpus of mine/pairs", "src": "English", "n": 1e-5}),
        "config.json": json.dumps({"_name_or_path": f"{home}/llama", "act": "gelu"}),
        "manifest_x.json": "{ torn /home/someone/x",
        "tokenizer.json": json.dumps({"vocab": {"/usr/bin": 1}}),
        "data.jsonl": json.dumps({"text": "/usr/bin/env is a text"}) + "\n",
        ".lock": home,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    checksums.claim(folder, [*texts])
    (folder / "config.json").write_text(texts["config.json"] + " ")  # changed since
    hub.upload(folder, "me/model", "model")
    sent = uploaded(server, "me/model")
    assert json.loads(sent["settings_train.json"]) == {"data_dir": "…/pairs", "src": "English", "n": 1e-5}
    assert json.loads(sent["config.json"]) == {"_name_or_path": "…/llama", "act": "gelu"}
    assert sent["manifest_x.json"].decode() == "{ torn …/x" and ".lock" not in sent
    for name in ("tokenizer.json", "data.jsonl"):
        assert sent[name].decode() == texts[name]
    place = server.root / "models" / "me" / "model"
    wrong = [name for name, digest in checksums.read(place).items() if name != ".lock" and checksums.sha256_of(place / name) != digest]  # fmt: skip
    assert wrong == ["config.json"]
    for name, text in texts.items():
        assert (folder / name).read_text() == text + " " * (name == "config.json")


def test_a_token_that_may_not_upload_is_one_line(tmp_path, server, monkeypatch):
    (tmp_path / "settings.json").write_text("{}")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(UsageError, match=r"the Hub rejected the upload to me/model .* the model is complete in"):
        hub.upload(tmp_path, "me/model", "model", ["hub/*"])
    with pytest.raises(UsageError, match="--push_to_hub: the Hub does not accept your token"):
        hub.check_token()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    words = flags(tmp_path / "no-model", tmp_path / "out", max_steps=1)
    words[words.index("--dataset_name_or_path") + 1] = tmp_path / "empty.jsonl"
    (tmp_path / "empty.jsonl").write_text("")
    result = in_process("train.py", *words, "--push_to_hub")
    assert result.returncode == 2 and "--push_to_hub needs the Hub (no internet, or HF_HUB_OFFLINE)" in result.stderr
    assert result.stderr.count("\n") == 1, "no data are read before"


@pytest.mark.parametrize(
    ("words", "repository"),
    [
        ("", None),
        ("--push_to_hub false", None),
        ("--push_to_hub", "model"),
        ("--push_to_hub true --hub_model_id me/it", "me/it"),
        ("--push_to_hub me/it", "me/it"),
        ("--push_to_hub it --hub_model_id it", "it"),
    ],
)
def test_push_to_hub_takes_the_name_of_a_repository(words, repository, tmp_path):
    args = parsed(*words.split(), "--output_dir", str(tmp_path / "model"))
    arguments.resolve(args)
    assert args.push_to_hub is (repository is not None)
    assert (args.hub_model_id or args.output_dir.name) == (repository or "model")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--push_to_hub a/b/c", "'a/b/c' is not a repository name .*; pass --push_to_hub NAME or OWNER/NAME"),
        ("--push_to_hub a --hub_model_id b", "--push_to_hub a and --hub_model_id b name two repositories"),
        ("--push_to_hub --hub_model_id -b-", "'-b-' is not a repository name"),
    ],
)
def test_names_that_the_hub_would_reject_after_the_training(words, message):
    with pytest.raises(UsageError, match=message):
        arguments.resolve(parsed(*words.replace(" -b-", "=-b-").split()))
    with pytest.raises(SystemExit):
        parsed("--push_to_hub", "")
