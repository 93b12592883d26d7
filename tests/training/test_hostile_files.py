"""Damaged and foreign files that train.py and merge_lora.py read: one line that names the file, never a traceback."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.support.runs import in_process
from tests.support.training_runs import flags
from topxgen.inference import adapters

DEEP = b"[" * 200 + b"]" * 200
DEEPER = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
VALUES = [None, [], {}, "text", "", -1, 1.5, 1e300, True, [None], {"a": None}, 10**30, "\ud800"]
WHOLE_FILES = [b"", b"null", b"[]", b"{}", b"3", b'"x"', b"NaN", b"\xff\xfe\x00", b"{", DEEP, DEEPER, b"\x1f\x8b\x08"]


def changed_fields(content: dict, names=None):
    """The JSON of `content` with each field in turn missing, or of another type."""
    for name in names or content:
        yield f"no {name}", json.dumps({key: value for key, value in content.items() if key != name}).encode()
        for value in VALUES:
            yield f"{name}={value!r}"[:60], json.dumps({**content, name: value}).encode()
        yield f"{name} deep", json.dumps({**content, name: "DEEP"}).encode().replace(b'"DEEP"', DEEP)
        yield f"{name} NaN", json.dumps({**content, name: float("nan")}).encode()


def variants(path: Path, names=None):
    content = path.read_bytes()  # now: the caller overwrites it
    yield from ((f"all {data[:12]!r}", data) for data in WHOLE_FILES)
    yield "half", content[: len(content) // 2]
    if path.suffix == ".json":
        yield from changed_fields(json.loads(content), names)


class Failures:
    """What is wrong with the results of many runs, all of it."""

    def __init__(self):
        self.runs, self.wrong = 0, []

    def check(self, what: str, result, may_succeed: bool, path: Path | None = None) -> None:
        self.runs += 1
        last = result.stderr.strip().splitlines()[-1:] or [""]
        if "Traceback" in result.stderr or result.returncode not in ((0, 2) if may_succeed else (2,)):
            self.wrong.append((what, result.returncode, last[0][:300]))
        elif result.returncode == 2 and not re.match(r"\S+: error: .{10,}", last[0]):
            self.wrong.append((what, "not one line", result.stderr[-300:]))


@pytest.fixture
def run_safely():
    """As in_process, with a traceback in place of an exception."""
    import subprocess
    import traceback

    def run(*words):
        try:
            return in_process(*words)
        except BaseException:
            return subprocess.CompletedProcess(words, 1, "", traceback.format_exc())

    return run


MODEL_FILES = {
    "config.json": ("vocab_size", "model_type", "architectures", "max_position_embeddings", "is_encoder_decoder", "hidden_size",
                    "eos_token_id", "quantization_config", "num_hidden_layers"),
    "tokenizer_config.json": None,
    "tokenizer.json": ("model", "added_tokens", "post_processor", "pre_tokenizer", "version"),
    "generation_config.json": None,
    "chat_template.jinja": None,
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.medium] * ("config.json" in n)) for n in MODEL_FILES]
)
def test_files_of_a_model(name, tiny_lm, tmp_path, run_safely):
    failures = Failures()
    whole = Path(tiny_lm) / name
    model = tmp_path / "model"
    shutil.copytree(tiny_lm, model)
    contents = (
        variants(whole, MODEL_FILES[name]) if whole.exists() else [("error", b"{% for %}"), ("raises", b"{{ 1 / 0 }}")]
    )
    for what, data in contents:
        (model / name).write_bytes(data)
        failures.check(what, run_safely("train.py", *flags(model, tmp_path / "run"), "--dry_run"), may_succeed=True)
    assert not failures.wrong, (failures.runs, failures.wrong)
    assert not (tmp_path / "run").exists()


RECORD = {
    "sentence": "Lehen esaldia da. Bigarrena da hau.",
    "propositions": ["Lehen esaldia da.", "Bigarrena da hau."],
    "translations": ["This is the first.", "This is the second."],
    "scores": [3.5, 4.0],
    "topic": "x",
    "id": "1",
    "scorer": "blaser",
}


@pytest.mark.medium
def test_generated_pairs(tiny_lm, tmp_path, run_safely):
    failures = Failures()
    path = tmp_path / "Basque_translate_filtered.jsonl"

    def texts(i):
        return {
            "propositions": [f"Esaldi luze {i}.", f"Bigarrena {i}."],
            "translations": [f"The first {i}.", f"Second {i}."],
        }

    good = "".join(json.dumps({**RECORD, **texts(i), "id": str(i)}) + "\n" for i in range(9))
    words = flags(tiny_lm, tmp_path / "run", dataset_name_or_path="topxgen", data_dir=tmp_path)
    for more in ([], ["--percentile", 50], ["--dataset_size", 3, "--strategy", "highest"]):
        names = ("propositions", "translations", "scores") if more else RECORD
        for what, data in (*((str(data[:12]), data) for data in WHOLE_FILES), *changed_fields(RECORD, names)):
            path.write_bytes(good.encode() + data + b"\n")
            result = run_safely("train.py", *words, *more, "--dry_run")
            failures.check(what, result, may_succeed=True)
            if result.returncode == 2 and not more and "line 10" not in result.stderr:
                failures.wrong.append((what, "names no line", result.stderr[-300:]))
    (tmp_path / "settings_translate.json").write_text("{}")
    path.write_text(good)
    for what, data in variants(tmp_path / "settings_translate.json"):
        (tmp_path / "settings_translate.json").write_bytes(data)
        failures.check(f"settings {what}", run_safely("train.py", *words, "--dry_run"), may_succeed=True)
    assert not failures.wrong, (failures.runs, failures.wrong)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "parquet"])
@pytest.mark.medium
def test_tables(suffix, tiny_lm, tmp_path, run_safely):
    failures = Failures()
    path = tmp_path / f"pairs.{suffix}"
    rows = [
        {"source": f"The first {i}.", "target": f"Lehena da {i}.", "src": "English", "tgt": "Basque", "group": "1"}
        for i in range(9)
    ]
    own = dict(dataset_name_or_path=path, test_size_ratio=0, eval_steps=None)
    names = rows[0] if suffix == "jsonl" else ["source"]  # records of all formats are checked by the same code
    for what, data in (*((str(data[:12]), data) for data in WHOLE_FILES), *changed_fields(rows[0], names)):
        lines = [*(json.dumps(row).encode() for row in rows), data]
        if suffix == "json":
            path.write_bytes(b"[" + b",".join(lines) + b"]")
        elif suffix == "jsonl":
            path.write_bytes(b"\n".join(lines))
        else:
            path.write_bytes(b"source,target\n" + data)
        for more in ([], ["--streaming", "--size_valid_set", 1]):
            result = run_safely(
                "train.py",
                *flags(tiny_lm, tmp_path / "run", **own | ({"test_size_ratio": None} if more else {})),
                *more,
                "--dry_run",
            )
            failures.check(f"{what} {more[:1]}", result, may_succeed=True)
    assert not failures.wrong, (failures.runs, failures.wrong)


@pytest.mark.medium
def test_smol(tiny_lm, tmp_path, run_safely):
    failures = Failures()
    for subset, row in (
        ("smolsent", {"src": "One.", "trg": "Bat."}),
        ("smoldoc", {"srcs": ["One."], "trgs": ["Bat."]}),
    ):
        path = tmp_path / subset / "en_eu.jsonl"
        path.parent.mkdir()
        for what, data in (*((str(data[:12]), data) for data in WHOLE_FILES), *changed_fields(row)):
            path.write_bytes(b"\n".join([json.dumps(row).encode()] * 3 + [data]))
            words = flags(
                tiny_lm,
                tmp_path / "run",
                dataset_name_or_path="smol",
                subset=subset,
                data_dir=tmp_path,
                test_size_ratio=0,
            )
            failures.check(what, run_safely("train.py", *words, "--dry_run"), may_succeed=True)
    assert not failures.wrong, (failures.runs, failures.wrong)


@pytest.mark.medium
def test_manifest_and_settings_of_a_run(tiny_lm, tmp_path, run_safely):
    failures = Failures()
    output = tmp_path / "run"
    words = flags(tiny_lm, output, max_steps=1, save_steps=1, eval_steps=1)
    assert run_safely("train.py", *words).returncode == 0
    for name in ("manifest_train.json", "settings_train.json"):
        path = output / name
        whole = path.read_bytes()
        for what, data in variants(
            path, ("complete", "steps", "seed", "learning_rate") if "manifest" not in name else ("steps", "complete")
        ):
            path.write_bytes(data)
            failures.check(f"{name} {what}", run_safely("train.py", *words), may_succeed=True)
            path.write_bytes(whole)
    assert not failures.wrong, (failures.runs, failures.wrong)


@pytest.mark.medium
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_files_of_an_adapter(tiny_lm, tmp_path, run_safely, step):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    failures = Failures()
    adapter = tmp_path / "adapter"
    model = AutoModelForCausalLM.from_pretrained(tiny_lm)
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).save_pretrained(adapter)
    for name, names in (("adapter_config.json", None), ("README.md", None), ("adapter_model.safetensors", None)):
        path = adapter / name
        whole = path.read_bytes()
        for what, data in list(variants(path, names))[::step]:
            path.write_bytes(data)
            adapters.check_fits.cache_clear()  # a command is a process of its own
            output = tmp_path / "merged"
            result = run_safely("scripts.merge_lora", adapter, output, "--base_model_name_or_path", tiny_lm)
            failures.check(f"{name} {what}", result, may_succeed=True)
            shutil.rmtree(output, ignore_errors=True)
        path.write_bytes(whole)
    assert not failures.wrong, (failures.runs, failures.wrong)
