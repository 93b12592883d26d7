"""Python code that comes with a model runs only with --trust_remote_code, whatever stands on stdin."""

import ast
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runs import ROOT, TOPICS, in_process
from tests.support.tiny_sonar import build_blaser
from tests.support.training_runs import flags
from tests.training.test_checkpoints import torch_bomb

CODE = """
import pathlib
pathlib.Path({marker!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig):
    model_type = "planted"
class Model(LlamaForCausalLM):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


def loads(path: Path):
    """The calls in a file that may load a model's own code: of an Auto class, or a class that is computed."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            if node.func.attr in ("from_pretrained", "from_config") and owner.split(".")[-1].lower().startswith(
                ("auto", "model_class", "self._model_class")
            ):
                yield node


def test_every_load_says_whether_code_is_trusted():
    calls = {
        (path, node.lineno): {keyword.arg for keyword in node.keywords}
        for folder in ("topxgen", "comptra", "scripts", ".")
        for path in (ROOT / folder).glob("*.py" if folder == "." else "**/*.py")
        for node in loads(path)
    }
    assert len(calls) > 15
    for (path, line), keywords in calls.items():
        # None: options that the caller computes, which hold it
        assert keywords & {"trust_remote_code", None}, f"{path}, line {line}: pass trust_remote_code"


@pytest.fixture
def planted(tiny_lm, tmp_path, monkeypatch):
    """A model folder with code of its own, a user who would answer y, and the file that the code creates."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 50))
    folder, marker = tmp_path / "planted", tmp_path / "ran"
    shutil.copytree(tiny_lm, folder)
    (folder / "code.py").write_text(CODE.format(marker=str(marker)))
    own = {"AutoConfig": "code.Config", "AutoModel": "code.Model", "AutoModelForCausalLM": "code.Model"}
    own |= {"AutoModelForSeq2SeqLM": "code.Model", "AutoTokenizer": ["code.Tokenizer", "code.Tokenizer"]}
    for name, changes in (
        ("config.json", {"model_type": "planted", "architectures": ["Model"]}),
        ("tokenizer_config.json", {"tokenizer_class": "Tokenizer"}),
    ):
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**config, **changes, "auto_map": own}))
    return folder, marker


@pytest.fixture
def adapter(tiny_lm, planted, tmp_path):
    """A LoRA adapter whose folder has the planted tokenizer."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "adapter"
    model = AutoModelForCausalLM.from_pretrained(tiny_lm)
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).save_pretrained(folder)
    for name in ("code.py", "tokenizer_config.json", "tokenizer.json"):
        shutil.copy(planted[0] / name, folder)
    return folder


def commands(planted: Path, tiny_lm: str, adapter: Path, out: Path) -> dict[str, list]:
    generation = ["--languages", "Basque", "--seed_topics_path", TOPICS, "--number_of_instructions", 2]
    generation += ["--example_paragraphs", "udhr", "--example_sentences", "udhr", "--demonstration_pool", "udhr"]
    generation += ["--number_of_icl_phrases", 1, "--inference_api", "hf", "--dtype", "float32", "--max_new_tokens", 8]
    generation += ["--output_dir", out / "generated"]
    evaluation = ["--dataset_name_or_path", "udhr", "--tgt", "Basque", "--max_samples", 1, "--inference_api", "hf"]
    evaluation += ["--output_dir", out / "evaluated", "--prompt_style", "raw", "--max_new_tokens", 8]
    quality = ["--blaser_name_or_path", build_blaser(out / "blaser.pt"), "--sonar_name_or_path", planted]
    return {
        "train": ["train.py", *flags(planted, out / "run")],
        "train, dry run": ["train.py", *flags(planted, out / "run"), "--dry_run"],
        "train, tokenizer": ["train.py", *flags(tiny_lm, out / "run", tokenizer_name_or_path=planted)],
        "merge, base": ["scripts.merge_lora", adapter, out / "merged", "--base_model_name_or_path", planted],
        "merge, tokenizer": ["scripts.merge_lora", adapter, out / "merged", "--base_model_name_or_path", tiny_lm],
        "main": ["main.py", *evaluation, "--model_name_or_path", planted],
        "main, tokenizer": ["main.py", *evaluation, "--model_name_or_path", tiny_lm, "--tokenizer_name_or_path", planted],
        "main, adapter": ["main.py", *evaluation, "--model_name_or_path", adapter, "--base_model_name_or_path", tiny_lm, "--enable_lora"],
        "main, nllb": ["main.py", *evaluation[:6], "--output_dir", out / "n", "--method_translate", "nllb",
                       "--nllb_name_or_path", planted],
        "main, SONAR": ["main.py", *evaluation, "--model_name_or_path", tiny_lm, "--k", 1, "--retriever_type", "SONAR",
                        "--sonar_name_or_path", planted],
        "main, BLASER": ["main.py", *evaluation, "--model_name_or_path", tiny_lm, "--num_return_sequences", 2, "--temperature", 1,
                         "--selection_method", "blaser", *quality],
        "datagen": ["datagen.py", *generation, "--scorer", "none", "--model_name_or_path", planted],
        "datagen, dry run": ["datagen.py", *generation, "--model_name_or_path", planted, "--dry_run"],
        "datagen, tokenizer": ["datagen.py", *generation, "--scorer", "none", "--model_name_or_path", tiny_lm, "--tokenizer_name_or_path", planted],
        "datagen, nllb": ["datagen.py", *generation, "--model_name_or_path", tiny_lm, "--scorer", "confidence", "--use_nllb", "--nllb_name_or_path", planted],
        "datagen, nllb by transformers": ["datagen.py", *generation, "--model_name_or_path", tiny_lm, "--scorer", "confidence", "--use_nllb",
                                          "--nllb_name_or_path", planted, "--nllb_engine", "transformers"],
        "statistics, tokenizer": ["scripts.data_stats", "udhr", "--languages", "Basque", "--tokenizer", planted],
        "statistics, judge": ["scripts.data_stats", "udhr", "--languages", "Basque", "--judge_model_name_or_path", planted,
                              "--inference_api", "hf", "--output_dir", out / "judge"],
        "statistics, SONAR": ["scripts.data_stats", "udhr", "--languages", "Basque", "--encoder", "sonar", "--sonar_name_or_path", planted],
        "datagen, SONAR": ["datagen.py", *generation, "--model_name_or_path", tiny_lm, "--scorer", "blaser", *quality],
    }  # fmt: skip


def test_planted_code_never_runs(planted, tiny_lm, adapter, tmp_path):
    folder, marker = planted
    for name, command in commands(folder, tiny_lm, adapter, tmp_path).items():
        result = in_process(*command)
        assert not marker.exists(), name
        assert result.returncode == 2 and "Traceback" not in result.stderr, (
            name,
            result.stderr[-800:],
        )
        assert "contains custom code" in result.stderr, (name, result.stderr[-800:])


def test_the_planted_code_would_run_if_it_were_trusted(planted, tiny_lm, tmp_path):
    folder, marker = planted
    in_process("train.py", *flags(folder, tmp_path / "run"), "--dry_run", "--trust_remote_code")
    assert marker.exists()


@pytest.mark.slow
def test_planted_code_never_runs_in_vllm(planted, tiny_lm, tmp_path):
    """In this process, in engines of their own, as a draft model, and as pickled weights."""
    pytest.importorskip("vllm", reason="vLLM is not installed here (scripts/setup.sh tries)")
    folder, marker = planted
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny_lm, pickled, ignore=shutil.ignore_patterns("*.safetensors"))
    torch_bomb(pickled / "pytorch_model.bin")  # it would create tmp_path / "ran"
    draft = {"method": "draft_model", "model": str(folder), "num_speculative_tokens": 2}
    own_tokenizer = [tiny_lm, "--tokenizer_name_or_path", folder]
    models = {
        "model": [folder],
        "tokenizer": own_tokenizer,
        "model, engines": [folder, "--data_parallel_size", 2],
        "tokenizer, engines": [*own_tokenizer, "--data_parallel_size", 2],
        "draft model": [tiny_lm, "--engine_args", f"speculative_config={json.dumps(draft)}"],
        "pickled weights": [pickled],
        "pickled weights, as wished": [pickled, "--engine_args", "load_format=pt"],
    }
    for name, words in models.items():
        command = [
            "main.py",
            "--inference_api",
            "vllm",
            "--dataset_name_or_path",
            "udhr",
            "--tgt",
            "Basque",
            "--max_samples",
            1,
        ]
        command += [
            "--prompt_style",
            "raw",
            "--max_new_tokens",
            8,
            "--max_model_len",
            512,
            "--output_dir",
            tmp_path / name,
        ]
        command = [sys.executable, *map(str, command), "--model_name_or_path", *map(str, words)]
        result = subprocess.run(command, input="y\n" * 50, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert not marker.exists() and not (tmp_path / "ran").exists(), name
        assert result.returncode == 2 and "Traceback" not in result.stderr, (name, result.stderr[-1500:])
        print(name, result.stderr.rstrip().rpartition("\n")[2])
