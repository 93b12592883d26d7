"""scripts/doctor.py with a small Hub: access, and sizes of what is not downloaded."""

import json
from pathlib import Path

import pytest

from tests.support.doctor_runs import doctor, findings_here, llama_8b, of, write_run
from tests.support.hub_server import TOKEN, HubServer
from tests.support.runs import in_process


@pytest.fixture
def gated(tmp_path):
    with HubServer(tmp_path / "repositories") as hub:
        for name in ("org/gated", "org/open"):
            folder = tmp_path / "repositories" / "models" / name
            folder.mkdir(parents=True)
            (folder / "config.json").write_text("{}")
        hub.gated.add("org/gated")
        yield hub


@pytest.fixture
def asked(gated, tmp_path, monkeypatch) -> Path:
    """This process reaches the small Hub, however slow the machine is; the folder of its cache."""
    home = tmp_path / "home"
    own = {"ENDPOINT": gated.url, "HUGGINGFACE_CO_URL_TEMPLATE": gated.url + "/{repo_id}/resolve/{revision}/{filename}"}
    own |= {"HF_HUB_OFFLINE": False, "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}
    for name, value in own.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    for name, value in (("HF_HUB_OFFLINE", "0"), ("no_proxy", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for module in ("situation", "downloads"):
        monkeypatch.setattr(f"topxgen.doctor.{module}.ANSWER_S", 120.0)
    return home


@pytest.mark.parametrize(
    ("model", "token", "level", "says"),
    [
        (
            "org/gated",
            "",
            "problem",
            "there is no token -> accept its terms at {hub}/org/gated and export HF_TOKEN",
        ),
        ("org/gated", "hf_other", "problem", "your token has no access"),
        ("org/gated", TOKEN, "ok", "1 of 1 may be downloaded with your token"),
        ("org/open", "", "ok", "without a token"),
        ("org/nowhere", "", "problem", "there is no {hub}/org/nowhere, or it is private"),
    ],
)
def test_access_to_gated_models(tmp_path, monkeypatch, gated, asked, model, token, level, says):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    found = findings_here(write_run(tmp_path, model=model), code=int(level == "problem"))
    [text] = of(found, "access", level)
    assert says.format(hub=gated.url) in text
    assert not any("resolve" in path for path in gated.asked), "nothing is downloaded"


def test_a_hub_that_cannot_be_reached_is_not_one_that_has_it(tmp_path):
    environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}
    result = doctor(write_run(tmp_path, model="org/none"), "--json", **environment)
    found = json.loads(result.stdout)["findings"]
    assert result.returncode == 1 and of(found, "assets", "problem")[0].startswith("org/none: ")
    assert "the Hub cannot be reached" in of(found, "access", "note")[0] and result.stderr.count("\n") == 1


def test_a_large_model_that_is_not_downloaded_does_not_fit_a_machine_without_a_gpu(tmp_path, gated, asked):
    """400 layers: 178 GB."""
    llama_8b(gated.root / "models" / "org" / "large", layers=400)
    found = findings_here(write_run(tmp_path, model="org/large"), code=1)
    writes, trains = of(found, "memory", "problem")
    assert (
        "org/large: datagen: weights 176.6 GB and a KV cache of 2.1 GB on the CPU" in writes and "do not fit" in writes
    )
    assert (
        "LoRA of rank 16 (524.3 M parameters) on weights of 353.2 GB in float32, one process" in trains
        and "does not fit" in trains
    )
    assert "the run downloads it, 176.58 GB" in of(found, "assets", "note")[0]
    [home] = [text for text in of(found, "disk") if text.startswith("HF_HOME")]
    assert "writes up to about 176.6 GB" in home
    assert not asked.exists(), "nothing is kept"


def test_a_data_set_at_the_hub_has_the_size_of_what_is_read_of_it(tmp_path, tiny_lm, gated, asked):
    folder, codes = gated.root / "datasets" / "openlanguagedata" / "flores_plus", ("eng_Latn", "eus_Latn", "hau_Latn")
    (folder / "dev").mkdir(parents=True)
    for code in codes:
        with open(folder / "dev" / f"{code}.parquet", "wb") as file:
            file.truncate(2 << 30)
    configs = "".join(f"- config_name: {code}\n  data_files: dev/{code}.parquet\n" for code in codes)
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    run = write_run(tmp_path, tiny_lm, tail=f"decontamination: {{input_dir: {tmp_path}, benchmarks: [flores]}}\n")
    [text] = [
        text for text in of(findings_here(run, "--gpu", "H100", code=1), "assets", "note") if "flores_plus" in text
    ]
    assert "the run downloads it, 4.29 GB" in text
    gated.gated.add("openlanguagedata/flores_plus")  # its card is not for us: which files are read is not known
    [text] = [
        text for text in of(findings_here(run, "--gpu", "H100", code=1), "assets", "note") if "flores_plus" in text
    ]
    assert "the run downloads it, unknown: its size" in text


def test_a_model_at_the_hub_is_measured_as_one_that_is_here(tmp_path, gated, asked):
    llama = llama_8b(gated.root / "models" / "org" / "llama")
    (llama / "original").mkdir()
    with open(llama / "original" / "consolidated.00.pth", "wb") as copy:  # not loaded
        copy.truncate(16 << 30)
    at_hub, here = (
        [
            f"{row['level']} {row['text']}"
            for row in findings_here(write_run(tmp_path, model), "--gpu", "H100", code=1)
            if row["check"] == "memory"
        ]
        for model in ("org/llama", llama)
    )
    assert at_hub == here and "LoRA of rank 16 (41.9 M parameters) on weights of 32.1 GB in float32" in here[1]
    gated.gated.add("org/llama")  # its files are not for us, but their sizes are
    memory = of(findings_here(write_run(tmp_path, "org/llama"), "--gpu", "H100", code=1), "memory")
    assert "weights 16.1 GB" in memory[0] and "unknown: its KV cache" in memory[0]
    assert "LoRA of rank 16 (unknown: its parameters) on weights of 32.1 GB in float32" in memory[1]


def test_what_is_not_known_is_counted_in_the_last_line(tmp_path, asked):
    """A repository without weights, so that nothing is known of what they take."""
    result = in_process("scripts/doctor.py", write_run(tmp_path, model="org/open"))
    assert result.returncode == 0, result.stdout
    assert "unknown: whether org/open fits: the weights are not here" in " ".join(result.stdout.split())
    last = result.stdout.splitlines()[-1]
    assert last.startswith("0 problems, 2 unknown, ") and last.endswith((" notes", " note")), last
