"""Weights as they are loaded: whole, finite, and read in one way by all engines.

transformers and vLLM load much that is no model in silence: what is missing becomes random numbers, NaN stays NaN, and of two
tensors that should be one each engine takes another.
"""

import gc
import json
import logging
import re
import zipfile
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from topxgen.common.console import ONCE
from topxgen.common.errors import UsageError, reason
from topxgen.common.hub import listed, snapshot
from topxgen.common.lines import split_lines

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")  # of a layer
_LAYER = re.compile(r".*?\.\d+\.")
# The matrices that config.json's tie_word_embeddings makes one.
_TIED = re.compile(r"(.*\.)?(lm_head|embed_out|embed_tokens|embed_in|shared|wte|word_embeddings)\.weight")

# The parts of a multimodal model, such as gemma-3-27b-it, that read images or sound: text takes another way.
PARTS = ("vision_tower", "vision_model", "visual", "audio_tower", "multi_modal_projector")


def load_weights(model_class, name: str, trust_remote_code: bool = False, **options):
    """The model `name` by `model_class.from_pretrained`, with all its weights from the checkpoint.

    transformers fills the parameters that a checkpoint lacks, or has in another shape, with random numbers. Raises UsageError
    for such a checkpoint, except for parameters that the architecture itself computes or shares (tied weights), for one of which
    it would leave out layers or biases, and as `check_weights`.
    """
    model = _loaded_whole(model_class, name, trust_remote_code=trust_remote_code, **options)
    check_weights(name, model.config, options.get("revision") or "")
    # T5 configurations of transformers 5 always say that matrices are tied, and here what their file says: of MADLAD-400 that they are
    # not. So it is saved, and read by CTranslate2's converter.
    if (is_tied := getattr(model.config, "scale_decoder_outputs", None)) is not None:
        model.config.tie_word_embeddings = is_tied
    _make_saveable(model, name)
    return model


def check_complete(name: str, config) -> None:
    """Raise UsageError, as `load_weights`, for a checkpoint that does not fit `config`: vLLM leaves what memory held in the matrices
    that it lacks, and drops rows and biases that are too many.

    Reads shapes alone. A model passes that is neither a folder nor in the Hub's cache, is quantized, or has another architecture in
    transformers.
    """
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

    folder = _folder(name)
    if folder is None or not _files(folder) or (folder / "hf_quant_config.json").is_file():
        return
    known = CLASSES.get(config.model_type) in (getattr(config, "architectures", None) or ())
    if known and not getattr(config, "quantization_config", None):
        _loaded_whole(AutoModelForCausalLM, name, config=deepcopy(config), device_map="meta")


def _loaded_whole(model_class, name: str, **options):
    """The model, if its checkpoint fits its configuration. Raises UsageError."""
    model, info = model_class.from_pretrained(name, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    problems = []
    if getattr(model.config, "quantization_config", None) is not None and getattr(model, "hf_quantizer", None) is None:
        problems.append("is quantized in a way that transformers does not know")
    if missing := sorted(info["missing_keys"]):
        problems.append(f"lacks {listed(missing)}")
    if mismatched := sorted(info["mismatched_keys"]):
        shapes = [f"{key} ({tuple(saved)}, not {tuple(wanted)})" for key, saved, wanted in mismatched]
        problems.append(f"has other shapes in {listed(shapes)}")
    unexpected = sorted(info["unexpected_keys"])
    if left_out := _left_out(unexpected, model.state_dict()):
        problems.append(f"has layers or parameters that the model would ignore, {listed(left_out, 3)}")
        unexpected = []
    if problems:
        also = f"; it also holds {listed(unexpected, 3)}, which the model does not have" if unexpected else ""
        raise UsageError(
            f"the weights of {name} do not fit its config.json ({type(model).__name__}): the checkpoint "
            f"{' and '.join(problems)}{also}; download or save it again"
        )
    return model


def _left_out(unexpected: Iterable[str], known: Iterable[str]) -> list[str]:
    """Of the tensors that a model does not have those without which it answers in another way: layers like its own, biases, and
    parameters of a layer that it has, as those of another architecture."""
    known = list(known)
    alike = {_NUMBER.sub("#", key) for key in known}
    modules = {key.rpartition(".")[0] for key in known}
    layers = {match[0] for key in known if (match := _LAYER.match(key))}
    return [
        key
        for key in unexpected
        if _NUMBER.sub("#", key) in alike
        or (key.endswith(".bias") and key.rpartition(".")[0] in modules)
        or (key.endswith(".weight") and (match := _LAYER.match(key)) and match[0] in layers)
    ]


def check_weights(name: str, config, revision: str = "") -> None:
    """Raise UsageError for weights that an engine would load wrongly and silently: NaN and infinities, zeros in neighbouring
    matrices (as holes in a file are read), one tensor in two files, quantized ones of which config.json says nothing, tied
    matrices that differ, an architecture that is not that of model_type. A single matrix of zeros, as layers that were added
    and not trained have them, is a warning.

    Reads each tensor once, which takes about as long as copying it (270M parameters: 0.04 s). A model that is neither a folder nor
    in the Hub's cache passes.
    """
    folder = _folder(name, revision)
    owners: dict[str, str] = {}
    tied: dict[str, Tensor] = {}
    for file in _files(folder) if folder is not None else ():
        empty = ""  # the matrix before this one, if it has only zeros
        for key, tensor in load_tensors(file).items():
            problem, before = None, empty
            if tensor.ndim > 1 and len(tensor) > 1 and is_float(tensor):  # unlike Marian's bias of the logits
                empty = key if not tensor[0].any() and not tensor.any() else ""
            if key in owners:
                problem = f"has {key} in both {owners[key]} and {file.name}"
            elif before and empty == key:
                problem = f"has only zeros in {before} and {key}"
            elif not is_float(tensor) and key.endswith("weight") and not getattr(config, "quantization_config", None):
                problem = f"has {key} quantized ({str(tensor.dtype).removeprefix('torch.')}), of which config.json says nothing"
            if problem:
                raise UsageError(
                    f"the weights of {name}: the checkpoint {problem}; download or save it again, to an empty folder"
                )
            if empty == key:
                logger.warning(f"the weights of {name}: {key} has only zeros", extra=ONCE)
            owners[key] = file.name
            if _TIED.fullmatch(key):
                tied[key] = tensor
    from transformers import PretrainedConfig

    saved, _ = PretrainedConfig.get_config_dict(name, **({"revision": revision} if revision else {}))
    _check_architecture(name, saved)
    if getattr(config, "tie_word_embeddings", False):
        # T5's configurations always say so in transformers 5; then their file counts.
        check = _check_both if saved.get("tie_word_embeddings") is False else _check_equal
        check(name, tied)


def _folder(name: str, revision: str = "") -> Path | None:
    return Path(name) if Path(name).is_dir() else snapshot("model", name, revision=revision)


def _check_architecture(name: str, saved: Mapping) -> None:
    """Raise UsageError if config.json names the class of a decoder of another type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

    architecture, model_type = next(iter(saved.get("architectures") or ()), ""), saved.get("model_type")
    types = {known.removesuffix("_text") for known, class_name in CLASSES.items() if class_name == architecture}
    if types and model_type in CLASSES and model_type.removesuffix("_text") not in types:
        raise UsageError(
            f"the weights of {name}: config.json names the architecture {architecture}, but model_type {model_type}: vLLM goes by the one, "
            "transformers by the other; write the right ones into config.json"
        )


def _check_equal(name: str, tied: Mapping[str, "Tensor"]) -> None:
    import torch

    for first, second in zip(tied, list(tied)[1:], strict=False):
        if tied[first].shape == tied[second].shape and not torch.equal(tied[first], tied[second]):
            raise UsageError(
                f"the weights of {name}: {first} and {second} differ, but are one matrix by config.json (tie_word_embeddings): "
                "transformers and vLLM use both or the embeddings alone, depending on their versions. If both are meant, write tie_word_embeddings: false into "
                "config.json; else remove the wrong one"
            )


def _check_both(name: str, untied: Mapping[str, "Tensor"]) -> None:
    """Raise UsageError if a T5 lacks its output layer or its embeddings: transformers would take the one for the other."""
    kinds = {key.rpartition(".weight")[0].rpartition(".")[2] for key in untied} & {"lm_head", "shared"}
    if len(kinds) == 1:
        raise UsageError(
            f"the weights of {name} do not fit its config.json: the checkpoint has {kinds.pop()}.weight alone, though its embeddings and "
            "its output layer are two matrices (tie_word_embeddings: false); download or save it again"
        )


def _files(folder: Path) -> list[Path]:
    """The weights that transformers or vLLM loads from a folder, if they are in transformers' formats."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        files = {folder / name}
        if index.is_file():  # vLLM goes by it, transformers by the one file
            files |= {folder / shard for shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        elif name.endswith("safetensors"):
            files |= set(folder.glob("model*.safetensors"))  # vLLM loads them all, one over the other
        if files := sorted(file for file in files if file.is_file()):
            return files
    return []


def is_float(tensor: "Tensor") -> bool:
    return tensor.is_floating_point() and tensor.itemsize > 1  # of 8 bits: quantized


def load_tensors(path: Path) -> dict[str, "Tensor"]:
    """The named tensors of a .safetensors or torch file (perhaps under "model"), on the CPU, memory-mapped.

    Only tensors are unpickled. Raises UsageError if the file is damaged, has other pickled objects, no named tensors, or NaN or
    infinities in them.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            loaded = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # of pickle, zip, safetensors; torch's advice to disable the check is dropped
        lines = [line.strip() for line in split_lines(str(error))]
        cause = next((line for line in lines if "GLOBAL" in line or "Unsupported" in line), None)
        if cause is None and "Weights only" not in str(error):
            cause = reason(error)
        raise UsageError(
            f"{path} does not load as plain tensors ({cause or 'not a checkpoint'}): it is damaged, or a pickle that could run "
            "code; download the published file again, or save a state dict"
        ) from None
    if isinstance(loaded, dict) and isinstance(loaded.get("model"), dict):
        loaded = loaded["model"]
    values = loaded if isinstance(loaded, dict) else {}
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise UsageError(f"{path} holds no named tensors; download the published file again, or save a state dict")
    if bad := sorted(name for name, tensor in tensors.items() if not _is_finite(tensor)):
        raise UsageError(
            f"{path} holds NaN or infinities in {listed(bad, 3)}: its training diverged, or it is damaged; pass another checkpoint, "
            "or download it again"
        )
    return tensors


def _is_finite(tensor: "Tensor") -> bool:
    """A sum is infinite or NaN if a number is: much faster than a look at each, and only float16's may overflow besides. A single
    number, such as the limit of a clipped layer, may be infinite."""
    if not is_float(tensor) or tensor.ndim == 0 or tensor.sum().isfinite():
        return True
    return bool(tensor.isfinite().all())


def _make_saveable(model, name: str) -> None:
    """transformers loads a generation config that contradicts itself (a temperature without sampling), and then refuses to save it."""
    own = getattr(model, "generation_config", None)
    try:
        if own is not None:
            own.validate(strict=True)
    except ValueError:
        tokens = {key: value for key, value in own.to_dict().items() if key.endswith("_token_id")}
        model.generation_config = type(own)(**tokens)
        logger.info(
            f"{name}: generation_config.json contradicts itself; what is saved keeps its special tokens", extra=ONCE
        )


def parts_not_for_text(model) -> list[str]:
    """The names of PARTS within `model.model`, of a model of transformers; none of a language model."""
    return [name for name in PARTS if getattr(getattr(model, "model", None), name, None) is not None]


def drop_parts_not_for_text(model) -> None:
    """Free their memory. What is left keeps its names, so that LoRA adapters fit as before."""
    for name in parts_not_for_text(model):
        setattr(model.model, name, None)


def free_memory() -> None:
    """Give back what models held that nothing refers to any more: objects in cycles, and torch's cache on the GPU."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
