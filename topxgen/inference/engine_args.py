"""Options of vLLM beyond our flags: `--engine_args KEY=VALUE …`, and `--deterministic`.

Whatever may change a response is part of a run's settings (`inference.decoding`), so that responses of two engines do not mix.
"""

import ast
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from topxgen.common.errors import UsageError, did_you_mean

# Options that flags of ours set; {option: flag}. max_num_seqs is how many requests the engine decodes at a time.
FLAGS = {
    "model": "--model_name_or_path",
    "tokenizer": "--tokenizer_name_or_path",
    "dtype": "--dtype",
    "max_model_len": "--max_model_len",
    "seed": "--seed",
    "tensor_parallel_size": "--tensor_parallel_size",
    "data_parallel_size": "--data_parallel_size",
    "gpu_memory_utilization": "--gpu_memory_utilization",
    "enable_lora": "--adapter_name_or_path or a LoRA adapter as the model",
    "max_lora_rank": "--lora_rank",
    "max_num_seqs": "--max_concurrent_requests",
    "trust_remote_code": "--trust_remote_code",
}
# Options with which responses, or numbers, would not be what this program says of them.
MISLEADING = {
    "lora_target_modules": "modules of an adapter that it leaves out are silently not used",
    "logprobs_mode": "confidences are computed from the model's own log probabilities",
    "model_weights": "the weights are those of --model_name_or_path, whose digest is recorded",
}
# Options, at any depth, whose values are names of Python code that vLLM imports or runs; of a backend those with a dot are.
CODE = re.compile(
    r"trust_remote_code|auto_map|logits_processors|model_class_overrides|log(ging)?_config(_file)?|\w*_plugin|\w*_cls|\w*cls_path"
    r"|\w*module_path|\w*_passes|\w*backend=.*\..*"
)
BATCH_INVARIANT = "VLLM_BATCH_INVARIANT"
MIN_CAPABILITY = (8, 0)  # of NVIDIA GPUs, for batch invariance (docs.vllm.ai, features/batch_invariance, vLLM 0.32)


def parse(words: Iterable[str], may_run_code: bool = True) -> dict:
    """{option: value} of words such as quantization=fp8, enforce_eager=true and speculative_config={"method": "ngram"}: JSON, else text.

    Raises UsageError for a word without "=", an option that is given twice, one that a flag of ours sets, one of MISLEADING,
    random weights, and, unless `may_run_code`, one that names Python code.
    """
    options: dict = {}
    for word in words:
        key, sign, value = word.partition("=")
        key = key.strip().removeprefix("--").replace("-", "_")
        if not (sign and key.isidentifier()):
            raise UsageError(f"{word!r} is not KEY=VALUE: write an option of vLLM, such as quantization=fp8")
        if key in FLAGS:
            raise UsageError(f"{word!r} has a flag of its own: pass {FLAGS[key]}")
        if key in MISLEADING:
            raise UsageError(f"--engine_args {key} cannot be set ({MISLEADING[key]}); drop it")
        if key in options:
            raise UsageError(f"--engine_args sets {key} twice; pass it once")
        try:
            options[key] = json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
        except (ValueError, RecursionError):
            options[key] = value
        if (key, options[key]) == ("load_format", "dummy"):
            raise UsageError("--engine_args load_format=dummy: the model would have random weights; drop it")
        if not may_run_code and (code := next(_code_in(key, options[key]), None)):
            raise UsageError(
                f"--engine_args {key}: {code} may run Python code; pass --trust_remote_code if you trust it"
            )
    return options


def _code_in(key: str, value: object) -> Iterator[str]:
    if CODE.fullmatch(key) or CODE.fullmatch(f"{key}={value}") or (key == "method" and value == "custom_class"):
        yield key
    items = value.items() if isinstance(value, dict) else ()
    for name, item in ((key, item) for item in value) if isinstance(value, list) else items:
        yield from _code_in(str(name), item)


def check_names(options: Collection[str], known: Collection[str]) -> None:
    """Raise UsageError for an option that vLLM does not have."""
    for name in options:
        if name not in known:
            raise UsageError(
                f"--engine_args: the installed vLLM has no option {name!r}{did_you_mean(name, known)}; its engine arguments are listed at "
                "docs.vllm.ai (configuration, engine arguments)"
            )


def names_in_source() -> set[str]:
    """The options of the installed vLLM, which takes ten seconds to import; none if it is not installed or has another form."""
    vllm = find_spec("vllm")
    folders = vllm.submodule_search_locations if vllm else None
    try:
        tree = ast.parse(Path(folders[0], "engine", "arg_utils.py").read_bytes()) if folders else ast.Module([])
    except (OSError, SyntaxError):
        return set()
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "EngineArgs")
    return {field.target.id for node in classes for field in node.body if isinstance(field, ast.AnnAssign)}


def switch_on_batch_invariance() -> None:
    """Make vLLM, before it is loaded, compute a response without regard to the others in its batch.

    Raises UsageError where vLLM cannot.
    """
    import torch

    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    if capability is None or capability < MIN_CAPABILITY:
        have = "there is no NVIDIA GPU here" if capability is None else f"this one has {'.'.join(map(str, capability))}"
        raise UsageError(
            f"--deterministic is vLLM's batch invariance, which needs a GPU of compute capability {'.'.join(map(str, MIN_CAPABILITY))} or "
            f"more, and {have}: drop it; --dtype float32 makes differences between runs rare"
        )
    os.environ[BATCH_INVARIANT] = "1"
