"""Which files of a repository on the Hub a command needs, and what of them a folder lacks."""

import json
import re
import zipfile
from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from topxgen.common import schemas
from topxgen.common.needs import COMET, DATASET, FILES, MODEL, TOKENIZER, Need

CARD = "README.md"
# Configuration and tokenizer; *.py: --trust_remote_code.
SMALL = ("*.json", "*.jinja", "*.model", "*.spm", "*.txt", "*.codes", "*.tiktoken", "*.py")
# Each holds a vocabulary.
TOKENIZERS = ("tokenizer.json", "tekken.json", "*.model", "*.spm", "vocab[.-]*", "byte_maps.json", "*.tiktoken")
WITHOUT_VOCABULARY = ("ByT5Tokenizer", "auto_map")  # bytes; code of the repository
# The formats of weights; the first that there is. The others hold the same.
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.bin", "*.pt", "*.gguf")
LOADED_JSON = ("*config.json", "*.index.json", "tokenizer.json", "special_tokens_map.json", "vocab.json")
CHECKPOINT = ("hparams.yaml", "checkpoints/model.ckpt")
OTHER_FRAMEWORKS = ("flax_*", "tf_*", "rust_*")
_SHARD = re.compile(r"(?P<begin>.*-)(?P<number>\d+)-of-(?P<end>(?P<count>\d{1,6})\.\w+)")


def wanted(need: Need, files: Collection[str], card: str = "") -> list[str]:
    """Which of a repository's files `need` asks for: paths, sorted; `card` is the text of its README.md.

    Weights in one format, no copies for other frameworks; of data sets the files of the configurations.
    """
    top = [path for path in files if "/" not in path and not _matches(path, OTHER_FRAMEWORKS)]
    if need.kind in (MODEL, TOKENIZER):
        weights = _weights(top) if need.kind == MODEL else []
        indexes = {path for path in top if path.endswith(".index.json")}
        ending = "." + weights[0].rpartition(".")[2] if weights else None
        small = [path for path in top if _matches(path, SMALL) and path not in indexes]
        return sorted(
            {*small, *weights, *(path for path in indexes if ending and path.endswith(f"{ending}.index.json"))}
        )
    if need.kind == COMET:
        return [path for path in CHECKPOINT if path in files]
    if need.kind == FILES or need.files:
        return sorted({path for pattern in need.files for path in files if fnmatch(path, pattern)})
    patterns = config_patterns(need.configs, card) if need.configs else []
    if not patterns:  # all of it: its card does not say which files the configurations are in
        return sorted(files)
    metadata = (CARD, ".huggingface.yaml", "dataset_infos.json")
    return sorted({path for path in files if path in metadata or _matches(path, patterns)})


def weights(names: Iterable[str]) -> list[str]:
    """Which files of a model's folder are its weights, in the first of WEIGHTS that there is."""
    return _weights([name for name in names if not _matches(name, OTHER_FRAMEWORKS)])


def _weights(top: Collection[str]) -> list[str]:
    for pattern in WEIGHTS:
        found = sorted(path for path in top if fnmatch(path, pattern))
        if whole := [path for path in found if not path.startswith("consolidated")]:
            return whole
        if found:
            return found
    return []


def config_patterns(configs: Collection[str], card: str) -> list[str]:
    """Patterns of the files of these configurations; none if the card does not say. Those of its first configuration are among
    them: `datasets` takes the format of all from it."""
    listed = card_configs(card)
    chosen = dict(list(listed.items())[:1]) | {name: listed[name] for name in configs if name in listed}
    return [pattern for patterns in chosen.values() for pattern in patterns]


def card_configs(card: str) -> dict[str, list[str]]:
    """The configurations that the front matter of a data set's card lists, in its order, with patterns of their files."""
    rows, found = schemas.front_matter(card).get("configs"), {}
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and "config_name" in row:
            folder = f"{row['data_dir']}/" if row.get("data_dir") else ""
            everything = [f"{folder}*"] if folder else []
            patterns = [f"{folder}{path}" for path in _paths(row.get("data_files"))] or everything
            found[str(row["config_name"])] = patterns
    return found if all(found.values()) else {}


def _paths(value) -> Iterator[str]:
    """The patterns in data_files: a text, a list, or a mapping from splits, also of {split, path}."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _paths(item)
    elif isinstance(value, dict):
        yield from _paths(value["path"] if "path" in value else list(value.values()))


def problem(need: Need, folder: Path) -> str:
    """What a folder lacks of what `need` asks for, or what is damaged; "" if nothing. Reads names, sizes, headers and ends only."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    if broken := sorted(name for name, path in files.items() if not path.exists()):
        return f"{broken[0]} is not there, where a link points"
    if need.kind == DATASET:
        return _problem_of_data(need, files)
    patterns = {COMET: ("*.ckpt",), FILES: need.files}.get(need.kind, ())
    if cut := sorted(name for name, path in files.items() if _matches(name, patterns) and not is_whole(path)):
        return f"{cut[0]} is cut off or damaged"
    if need.kind == COMET:
        if "hparams.yaml" not in files:
            return "it has no hparams.yaml"
        checkpoints = [path for name, path in files.items() if name.endswith(".ckpt")]
        return "" if any(path.stat().st_size for path in checkpoints) else "it has no checkpoints/model.ckpt"
    if need.kind == FILES:
        lacking = [pattern for pattern in need.files if not any(fnmatch(name, pattern) for name in files)]
        return f"it has no {lacking[0]}" if lacking else ""
    top = {name: path for name, path in files.items() if "/" not in name}
    if cut := sorted(name for name, path in top.items() if _matches(name, LOADED_JSON) and not _is_closed(path)):
        return f"{cut[0]} is cut off or damaged"
    if need.kind == TOKENIZER:
        return "" if has_tokenizer(top) or "adapter_config.json" in top else "it has no tokenizer"
    return _problem_of_weights(top)


def has_tokenizer(files: dict[str, Path]) -> bool:
    """Whether the files of a model, by name, hold a tokenizer: a vocabulary (GGUF weights have it in them), or one without a vocabulary."""
    if any(_matches(name, (*TOKENIZERS, "*.gguf")) for name in files):
        return True
    config = files.get("tokenizer_config.json")
    text = config.read_text(encoding="utf-8", errors="replace") if config else ""
    return any(name in text for name in WITHOUT_VOCABULARY)


def _problem_of_data(need: Need, files: dict[str, Path]) -> str:
    card = files[CARD].read_text(encoding="utf-8", errors="replace") if CARD in files else ""
    listed = card_configs(card) if need.configs else {}
    for config in need.configs:
        lacking = [p for p in listed.get(config, ()) if not any(fnmatch(name, p) for name in files)]
        if lacking:
            return f"it has no {lacking[0]} of {config}"
    for pattern in need.files:
        if not any(fnmatch(name, pattern) for name in files):
            return f"it has no {pattern}"
    return "" if set(files) - {CARD} else "it has no data"


def _problem_of_weights(top: dict[str, Path]) -> str:
    weights, needed = _weights(top), set()
    if not weights:
        return "it has no weights"
    if {"config.json", "adapter_config.json"}.isdisjoint(top) and not _matches(weights[0], ("*.pt", "*.gguf")):
        return "it has no config.json"
    if {"model.safetensors", "pytorch_model.bin"}.isdisjoint(weights):  # else these are read, and no shards
        ending = weights[0].rpartition(".")[2]
        indexes = [
            name for name in top if name.endswith(f".{ending}.index.json") and not _matches(name, OTHER_FRAMEWORKS)
        ]
        for name in sorted(indexes):
            try:
                needed |= set(map(str, json.loads(top[name].read_text(encoding="utf-8"))["weight_map"].values()))
            except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
                return f"{name} is damaged"
        shards = [] if indexes else [shard for name in weights if (shard := _SHARD.fullmatch(name))]
        for shard in shards:
            width, count = len(shard["number"]), int(shard["count"])
            needed |= {f"{shard['begin']}{i:0{width}}-of-{shard['end']}" for i in range(1, count + 1)}
    if lacking := sorted(needed - top.keys()):
        return f"it lacks {lacking[0]}" + (f" and {len(lacking) - 1} other shards" if lacking[1:] else "")
    for name in weights:
        if not is_whole(top[name]):
            return f"{name} is cut off or damaged"
        if not top[name].stat().st_size:
            return f"{name} is empty"
    return ""


def is_whole(path: Path) -> bool:
    """Whether a .safetensors file has the size that its header says, and a zip file, as those of torch are, its end."""
    if path.suffix == ".safetensors":
        return tensors(path) is not None
    with open(path, "rb") as file:
        return file.read(2) != b"PK" or zipfile.is_zipfile(file)


def _is_closed(path: Path) -> bool:
    """Whether a .json file begins and ends as an object or a list: half of one does not, nor does a page that says why there is none."""
    with open(path, "rb") as file:
        first = file.read(64).lstrip()[:1]
        file.seek(max(0, path.stat().st_size - 64))
        return first + file.read().rstrip()[-1:] in (b"{}", b"[]")


def tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...]]] | None:
    """(dtype, shape) of the tensors in a .safetensors file, by its header; None if it is cut off or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            return {name: (tensor.get_dtype(), tuple(tensor.get_shape())) for name, tensor in found.items()}
    except SafetensorError:
        return None


def _matches(path: str, patterns: Collection[str]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)
