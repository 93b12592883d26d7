"""Models and files that are a folder or come from the Hugging Face Hub."""

import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cache
from importlib.util import find_spec
from os.path import expanduser
from pathlib import Path
from typing import TypeVar

from topxgen.common import checksums, hub_files, masks, schemas
from topxgen.common.console import ONCE
from topxgen.common.errors import Unreachable, UsageError, did_you_mean, reason
from topxgen.common.needs import COMET_PYTHON, DATASET, MODEL, SPACY, Need

logger = logging.getLogger(__name__)
Loaded = TypeVar("Loaded")
CONNECT_S = 5.0


@cache
def check_connection() -> None:
    """Go offline, with a warning, if the Hub cannot be reached: its clients would retry for minutes, file by file."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and (why := no_answer()):
        _go_offline(why)


def no_answer() -> str:
    """Why the Hub does not answer, asked twice; "" if it does."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    for _ in range(2):
        try:  # a file: some proxies answer HEAD, and then nothing
            get_session().get(f"{constants.ENDPOINT}/robots.txt", timeout=CONNECT_S)
            return ""
        except Exception as error:  # of the HTTP client, a proxy, TLS
            why = reason(error)
    return why


def _go_offline(why: str) -> None:
    logger.warning(f"the Hub cannot be reached ({why}): only what is in its cache is used")
    os.environ["HF_HUB_OFFLINE"] = "1"  # for libraries that are imported from now on, and for engine processes
    for module in _with_offline():
        module.HF_HUB_OFFLINE = True


def _with_offline() -> list:
    """The modules that have read the variable."""
    from huggingface_hub import constants

    return [constants, *([sys.modules["datasets"].config] if "datasets" in sys.modules else [])]


@contextmanager
def offline() -> Iterator[None]:
    """A block that asks no network for anything, whatever it loads: models are folders, or in the Hub's cache; others raise Unreachable."""
    loaded = _with_offline()
    before, variable = [module.HF_HUB_OFFLINE for module in loaded], os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    for module in loaded:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(loaded, before, strict=True):
            module.HF_HUB_OFFLINE = value
        if variable is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = variable


def hub_call(name: str, load: Callable[[], Loaded]) -> Loaded:
    """`load()`, which gets `name` from a folder or the Hub. Raises UsageError, in one line, whatever goes wrong in it."""
    if not Path(expanduser(name)).exists():
        check_connection()
    try:
        return load()
    except UsageError:
        raise
    except Exception as error:  # the Hub's client raises dozens of types; the cause is in the message
        from huggingface_hub import constants

        kind = Unreachable if constants.HF_HUB_OFFLINE and not _looks_local(name) else UsageError
        raise kind(cannot_load(name, error)) from None


# By the kind of what no Hub has: the command that installs it.
_INSTALL = {SPACY: "python -m spacy download {}", COMET_PYTHON: "scripts/setup.sh --comet"}


def is_installed(need: Need) -> bool:
    """Whether a spaCy pipeline or an interpreter is there."""
    if need.kind == COMET_PYTHON:
        return shutil.which(need.name) is not None
    return need.is_local or find_spec(need.name.replace("-", "_")) is not None


def require(needs: Iterable[Need], others: Iterable[Need] = ()) -> None:
    """Raise UsageError naming all of these on the Hub that are not in its cache, or not whole, if there is no Hub; with `others`,
    which the command can do without.

    So a node without internet is set up in one go. What is local is passed over.
    """
    needs = list(needs)
    every = list(dict.fromkeys([*needs, *others]))
    wanted = [need for need in every if need.is_on_hub]
    if not wanted:
        return
    from huggingface_hub import constants

    check_connection()
    missing = [(need, why) for need in wanted if (why := lacking(need))] if constants.HF_HUB_OFFLINE else []
    if any(need in needs for need, _ in missing):
        shown = dict.fromkeys(
            (need.repo_type, need.name, f" ({why})" if why != NOT_DOWNLOADED else near_folder(need.name))
            for need, why in missing
        )
        names = ", ".join(f"{'data set' if kind == 'dataset' else kind} {name}{why}" for kind, name, why in shown)
        options = {"model": "", "dataset": " --repo-type dataset"}
        commands = "; ".join(dict.fromkeys(f"hf download {name}{options[kind]}" for kind, name, _ in shown))
        for need in every:  # so that they are not missed next
            if need.kind in _INSTALL and not is_installed(need):
                names = f"{names}, {need.kind} {need.name}"
                commands = f"{commands}; {_INSTALL[need.kind].format(need.name)}"
        without = "".join(f", or {flag}" for flag in dict.fromkeys(need.instead for need, _ in missing if need.instead))
        raise Unreachable(
            f"without the Hub (no internet, or HF_HUB_OFFLINE), missing in its cache {constants.HF_HUB_CACHE}: {names}. On a "
            f"machine with internet, with HF_HOME on a shared disk (and HF_TOKEN for gated repositories): {commands}. Or pass folders{without}"
        )


def dataset_revision(name: str) -> tuple[str, str]:
    """What to load of a data set on the Hub, and its commit: its id, or the folder in the cache where there is no Hub.

    Raises UsageError as hub_call does.
    """
    from huggingface_hub import HfApi, constants

    check_connection()
    if not constants.HF_HUB_OFFLINE:
        return name, hub_call(name, lambda: HfApi().dataset_info(name)).sha
    folder = snapshot("dataset", name)
    if folder is None:
        raise Unreachable(cannot_load(name, FileNotFoundError("it is not in the Hub's cache")))
    return str(folder), folder.name


def local_folder(name: str) -> Path:
    """The folder (or file) `name`, or of a Hub id that of its files in the cache, downloaded if necessary: tokenizer,
    configuration, and the weights in one format. Raises UsageError if it does not exist or cannot be downloaded."""
    path = Path(expanduser(name))
    if path.exists():
        return path
    if _looks_local(name):
        raise UsageError(cannot_load(name, FileNotFoundError(name)))
    require([Need(MODEL, name)])
    from huggingface_hub import HfApi, constants, snapshot_download

    def load() -> str:
        if constants.HF_HUB_OFFLINE:
            return str(snapshot("model", name))
        files = hub_files.wanted(Need(MODEL, name), HfApi().list_repo_files(name))
        return snapshot_download(name, allow_patterns=files)

    return Path(hub_call(name, load))


NOT_DOWNLOADED = "not downloaded"


def lacking(need: Need) -> str:
    """Why what `need` names cannot be loaded from the Hub's cache; "" if it can. No network is asked."""
    from huggingface_hub import constants

    folder = snapshot(need.repo_type, need.name, revision=need.revision)
    if need.kind == DATASET:  # `datasets` keeps what it has loaded, in a format of its own
        place = os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets"
        if any(Path(place, need.name.replace("/", "___")).glob("*")):
            return ""
    return hub_files.problem(need, folder) if folder is not None else NOT_DOWNLOADED


REVISION = re.compile(r"\w[\w.-]*")  # a branch, tag or commit that may be a file's name


def repository(key: str, cache: Path) -> Path:
    """The folder in the Hub's cache of "models/org/name" or "datasets/org/name"."""
    return cache / key.replace("/", "--")


def snapshot(kind: str, name: str, cache: Path | None = None, revision: str = "") -> Path | None:
    """The folder in the Hub's cache with the files of a repository ("model" or "dataset"), at the commit that `revision` [main] was when
    it was last downloaded; None if there is none."""
    from huggingface_hub import constants

    if revision and not REVISION.fullmatch(revision):
        return None
    place = repository(f"{kind}s/{name}", cache or Path(constants.HF_HUB_CACHE))
    try:
        commit = (place / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        commit = revision
    folder = place / "snapshots" / commit
    return folder if REVISION.fullmatch(commit) and any(folder.glob("*")) else None


def model_file(model: str, name: str) -> Path | None:
    """The local path of file `name` of `model`, downloaded if necessary; None if the model has no such file.

    If the Hub is unreachable, warn once per model and return None.
    """
    if Path(model).is_dir():
        path = Path(model) / name
        return path if path.is_file() else None
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    check_connection()
    try:
        return Path(hf_hub_download(model, name))
    except LocalEntryNotFoundError as error:  # not in the cache
        if not constants.HF_HUB_OFFLINE:
            _warn(model, reason(error))
    except (EntryNotFoundError, HFValidationError):
        pass
    except Exception as error:  # what is not a model at all is reported when it is loaded
        _warn(model, reason(error))
        if "Timeout" in type(error).__name__:  # its clients have tried for a minute, and would for each file
            _go_offline(reason(error))
    return None


def _warn(model: str, why: str) -> None:
    logger.warning(
        f"cannot look up {model} on the Hub ({why}): whether it was fine-tuned on a template is not known; --template_key and "
        "--prompt_style say how to prompt it",
        extra=ONCE,
    )


def _looks_local(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def near_folder(name: str) -> str:
    """A hint for a Hub id that is more likely a misspelt path: another folder in the one that it begins with; else ""."""
    path = Path(expanduser(name))
    return did_you_mean(str(path), map(str, path.parent.glob("*/"))) if len(path.parts) > 1 else ""


def cannot_load(name: str, error: Exception) -> str:
    """One line for a model or tokenizer that did not load."""
    if _looks_local(name):
        if not Path(expanduser(name.split(", ")[0])).exists():  # data sets are named with their configuration
            return f"cannot load {name!r}: it does not exist{near_folder(name)}; pass an existing folder or a Hub id"
        return f"cannot load {name!r} ({reason(error)}); is it the folder of a model with its config.json and tokenizer files?"
    gated = "a gated repository needs its terms accepted and HF_TOKEN exported"
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        remedy = "without the Hub (HF_HUB_OFFLINE): pass a local folder, or download it on a machine with internet"
    else:
        remedy = "pass a local folder or a Hub id that this machine can reach, or download it elsewhere and set HF_HUB_OFFLINE=1"
    return f"cannot load {name!r}{near_folder(name)} ({reason(error)}); {remedy} ({gated})"


def check_repository_name(name: str) -> None:
    """Raise UsageError for a name that the Hub would reject."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UsageError(
            f"--push_to_hub: {name!r} is not a repository name ({reason(error)}); pass --push_to_hub NAME or OWNER/NAME"
        ) from None


def check_token() -> None:
    """Raise UsageError, before any work, if the Hub cannot be reached or would reject an upload."""
    from huggingface_hub import HfApi, constants

    check_connection()
    if constants.HF_HUB_OFFLINE:
        raise UsageError(
            "--push_to_hub needs the Hub (no internet, or HF_HUB_OFFLINE): run this on a machine with internet, or drop the flag "
            "and upload later"
        )
    try:
        HfApi().whoami()
    except Exception as error:  # the Hub client raises dozens of types; the cause is in the message
        raise UsageError(
            f"--push_to_hub: the Hub does not accept your token ({reason(error)}); export HF_TOKEN with write access, or drop "
            "the flag and upload later"
        ) from None


# Files that say what a run was started with. In what is uploaded, paths of the machine, and so the user's name, are masked in them.
NAMES_PATHS = ("*manifest*.json", "settings*.json", "adapter_config.json", "config.json")


def upload(folder: Path, name: str, kind: str, ignore: Sequence[str] = ()) -> str:
    """Upload a complete folder, with paths masked, to the repository `name` of a `kind` ("model", "dataset"), which is private if
    it is new; its address, and whether it is private. Raises UsageError with the Hub's reason."""
    from huggingface_hub import HfApi

    ignore = [".lock*", "*.partial", "rates.json", *ignore]
    try:
        api = HfApi()
        repository = api.create_repo(name, repo_type=kind, private=True, exist_ok=True).repo_id
        with _without_paths(folder, ignore) as copy:
            api.upload_folder(repo_id=repository, repo_type=kind, folder_path=copy, ignore_patterns=ignore)
        private = api.repo_info(repository, repo_type=kind).private
    except Exception as error:  # as above
        raise UsageError(
            f"the Hub rejected the upload to {name} ({reason(error)}); the {kind} is complete in {folder}: upload it by hand "
            "(its manifests and settings name folders of this machine)"
        ) from None
    return f"{page(repository, kind)} ({'private' if private else 'public'})"


def page(name: str, kind: str) -> str:
    """The address of a repository's page."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"


def refusal(error: Exception, name: str, kind: str) -> tuple[str, str] | None:
    """(why the Hub refuses a repository, the remedy), if it is gated, private or missing; None for other errors."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        why = "there is no token" if get_token() is None else "your token has no access"
        return f"it is gated, and {why}", f"accept its terms at {page(name, kind)} and export HF_TOKEN of that account"
    if isinstance(error, RepositoryNotFoundError):
        remedy = "check the name, or export HF_TOKEN of an account that sees it"
        return f"there is no {page(name, kind)}, or it is private", remedy
    return None


@contextmanager
def _without_paths(folder: Path, ignore: Sequence[str]) -> Iterator[Path]:
    """`folder` if there is nothing to mask; else links to its files, masked copies of NAMES_PATHS, and SHA256SUMS of these."""
    from huggingface_hub.utils import filter_repo_objects

    paths = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    names = list(filter_repo_objects(paths, ignore_patterns=ignore))
    changed = {name: data for name in names if (data := _masked_file(folder / name)) is not None}
    if not changed:
        yield folder
        return
    for sums in [name for name in names if Path(name).name == checksums.NAME]:
        place, data = Path(sums).parent, (folder / sums).read_bytes()
        for name, digest in checksums.read(folder / place).items():
            masked = changed.get((place / name).as_posix())
            if masked is not None and digest == checksums.sha256_of(folder / place / name):  # others stay wrong
                data = data.replace(digest.encode(), hashlib.sha256(masked).hexdigest().encode())
        changed[sums] = data
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            copy = Path(scratch, name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if name in changed:
                copy.write_bytes(changed[name])
            else:
                copy.symlink_to((folder / name).resolve())
        yield Path(scratch)


def _masked_file(path: Path) -> bytes | None:
    """None: there is nothing to mask."""
    if not any(fnmatch(path.name, pattern) for pattern in NAMES_PATHS):
        return None
    data = path.read_bytes()
    try:
        value = schemas.decode(data)
    except ValueError:  # torn, or not ours
        return masks.masked(data.decode("utf-8", "replace")).encode()
    masked = masks.masked_json(value, masks.masked_word)
    return None if masked == value else json.dumps(masked, ensure_ascii=False, indent=2).encode()


def listed(names: Sequence[str], most: int = 6) -> str:
    """`names` for an error message: the first ones, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
