"""Everything that commands load from elsewhere, downloaded into one folder in the layout of HF_HOME, and verified.

The folder holds the Hub's cache (hub/), sacreBLEU's models (sacrebleu/), RECORD with the size and digest of each file, and ENVIRONMENT
for nodes without internet. Links in it are relative, so that it can be copied. What refs/main of a repository names is whole: it is
written last.
"""

import hashlib
import logging
import os
import re
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Required, TypedDict

import msgspec

from topxgen.common import hub, hub_files, needs
from topxgen.common.console import Progress
from topxgen.common.errors import UsageError, reason
from topxgen.common.files import read_json, replacing, write_atomic, write_json
from topxgen.common.schemas import fields
from topxgen.experiments.assets import Asset, assets, hub_cache, sentencepiece_file
from topxgen.experiments.chain import Command

logger = logging.getLogger(__name__)
RECORD = "prefetched.json"
ENVIRONMENT = "env.sh"
BLOB_NAMES = {64: "sha256", 40: "git"}  # the digest that the name of a blob in the Hub's cache is, by its length
AGAIN = "scripts/prefetch.py --hashes downloads it again"
CONNECT_S = 10.0
WORKERS = 4  # downloads at a time
MB = 1_000_000
Count = Annotated[int, msgspec.Meta(ge=0)]


class File(TypedDict):
    """A file as the Hub lists it. `digest`: sha256:… of what it keeps with Git LFS, git:… (of a blob) of the others."""

    size: Count
    digest: str


Repository = fields(commit=Required[str], files=Required[dict[str, File]])
# What has been verified: repositories by "models/org/name" or "datasets/org/name", other files by their path in the folder.
Record = fields(repositories=dict[str, Repository], files=dict[str, File])


@dataclass(frozen=True)
class Listing:
    """What an asset needs of a repository, at a commit."""

    asset: Asset
    commit: str
    files: dict[str, File]

    def place(self, folder: Path) -> Path:
        """The repository's folder in the cache."""
        return hub.repository(self.asset.key, hub_cache(folder))

    def path(self, folder: Path, name: str) -> Path:
        return self.place(folder) / "snapshots" / self.commit / name


def read_record(folder: Path) -> Record:
    """Raises UsageError if it is damaged."""
    record = read_json(folder / RECORD, Record, "remove it: all files are verified again")
    return {"repositories": record.get("repositories", {}), "files": record.get("files", {})}


class Fetcher:
    """Fetches what commands need into `folder`; `problems` are the lines of what could not be had, by asset. `whole`: has_size or
    is_intact, of files that an earlier run has verified."""

    def __init__(self, folder: Path, whole: Callable[[Path, File], bool]):
        self.folder, self.record, self._whole = folder, read_record(folder), whole
        self.problems: dict[str, str] = {}
        self._done: set[tuple[str, str, str | None]] = set()

    def fetch(self, found: Sequence[Command]) -> list[Asset]:
        """All assets, in the state in which they are then. Raises UsageError if the Hub cannot be reached, or the disk is too small."""
        _check_connection()
        while True:  # adapters and COMET models name others when they are there
            keys = {(asset.kind, asset.name, asset.wanted_revision): asset for asset in assets(found, self.folder)}
            todo = [asset for key, asset in keys.items() if key not in self._done]
            self._done |= keys.keys()
            if not todo:
                return assets(found, self.folder)
            listings = [listing for asset in todo if asset.is_on_hub and (listing := self._list(asset))]
            self._check_space(listings)
            lacking = [self._lacking(listing) for listing in listings]
            missing = sum(file["size"] for files in lacking for file in files.values())
            with Progress("download", round(missing / MB), "MB") as progress:
                for listing, files in zip(listings, lacking, strict=True):
                    self._download(listing, files, progress)
            for asset in todo:
                if asset.kind == needs.SENTENCEPIECE:
                    self._fetch_sentencepiece(asset)

    def _list(self, asset: Asset) -> Listing | None:
        """The files of a repository to fetch; None, with a line, if it cannot be had."""
        from huggingface_hub import HfApi, hf_hub_download

        options, revision = {"repo_type": asset.repo_type}, asset.wanted_revision
        self.problems.pop(asset.name, None)  # of another revision
        with self._problems_of(asset):
            if revision and not hub.REVISION.fullmatch(revision):
                raise UsageError(f"an adapter names the revision {revision!r} of it; pass the base as a folder")
            info = HfApi().repo_info(asset.name, files_metadata=True, revision=revision, **options)
            if revision and asset.folder not in (None, self._at(asset, revision), self._at(asset, info.sha)):
                raise UsageError(
                    f"it is here at {asset.revision[:8]}, which other runs load, but an adapter was trained on its revision {revision}: pass "
                    "another --folder"
                )
            if info.gated:
                HfApi().auth_check(asset.name, **options)
            found: dict[str, File] = {}
            for file in info.siblings:
                digest = f"git:{file.blob_id}" if file.lfs is None else f"sha256:{file.lfs.sha256}"
                found[file.rfilename] = {"size": file.size, "digest": digest}
            card = ""
            if any(need.configs for need in asset.needs) and hub_files.CARD in found:
                options |= {"revision": info.sha, "cache_dir": hub_cache(self.folder)}
                card = Path(hf_hub_download(asset.name, hub_files.CARD, **options)).read_text(encoding="utf-8")
            names = {name for need in asset.needs for name in hub_files.wanted(need, found, card)}
            if not names:
                raise UsageError("the repository has none of the files that are needed")
            return Listing(asset, info.sha, {name: found[name] for name in sorted(names)})
        return None

    def _at(self, asset: Asset, revision: str) -> Path | None:
        return hub.snapshot(asset.repo_type, asset.name, hub_cache(self.folder), revision)

    def _lacking(self, listing: Listing) -> dict[str, File]:
        """The files that are not there with their size and digest."""
        known = self._verified(listing)
        return {
            name: file
            for name, file in listing.files.items()
            if known.get(name) != file or not self._whole(listing.path(self.folder, name), file)
        }

    def _verified(self, listing: Listing) -> dict[str, File]:
        """By earlier runs, of the same commit."""
        recorded = self.record["repositories"].get(listing.asset.key, {})
        return recorded["files"] if recorded.get("commit") == listing.commit else {}

    def _check_space(self, listings: list[Listing]) -> None:
        wanted = sum(
            file["size"]
            for one in listings
            for name, file in one.files.items()
            if not has_size(one.path(self.folder, name), file)
        )
        free = shutil.disk_usage(self.folder).free
        if wanted > free:
            raise UsageError(
                f"{self.folder} has {free / 1e9:.1f} GB free, but {wanted / 1e9:.1f} GB must be downloaded; pass a --folder on a "
                "larger disk"
            )

    def _download(self, listing: Listing, lacking: dict[str, File], progress: Progress) -> None:
        """The files of a repository that are lacking; refs/main last, if all are there."""
        asset, place = listing.asset, listing.place(self.folder)
        for part in place.glob("blobs/*.incomplete"):  # of a run that was killed; names are not used again
            part.unlink()
        verified: Repository = {"commit": listing.commit, "files": {**self._verified(listing)}}
        with self._problems_of(asset):
            with ThreadPoolExecutor(WORKERS) as pool:
                jobs = {name: pool.submit(self._get, listing, name, file) for name, file in lacking.items()}
                try:
                    for name, job in jobs.items():
                        job.result()
                        verified["files"][name] = lacking[name]
                        self.record["repositories"][asset.key] = verified
                        write_json(self.folder / RECORD, self.record)
                        progress.update(round(lacking[name]["size"] / MB), files=name)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
            # With the list of all files of the repository, its clients take a folder with the needed ones for half of one.
            (place / "trees" / f"{listing.commit}.json").unlink(missing_ok=True)
            (place / "refs").mkdir(exist_ok=True)
            for ref in filter(None, (asset.wanted_revision, "main")):  # main: what is loaded without a revision
                write_atomic(place / "refs" / ref, [listing.commit])
            size = sum(file["size"] for file in listing.files.values())
            logger.info(f"{asset.name}: {len(listing.files)} files, {size / 1e9:.2f} GB")

    def _get(self, listing: Listing, name: str, file: File) -> None:
        """Download a file and verify it, a second time if it is not what the Hub lists. Raises UsageError if it is not then."""
        from huggingface_hub import hf_hub_download

        options = {
            "repo_type": listing.asset.repo_type,
            "revision": listing.commit,
            "cache_dir": hub_cache(self.folder),
        }
        for _ in range(2):
            path = Path(hf_hub_download(listing.asset.name, name, **options))
            if is_intact(path, file):
                return
            for damaged in (path.resolve(), path):
                damaged.unlink(missing_ok=True)
        raise UsageError(f"{name} was downloaded twice and is not what the Hub lists (size or digest)")

    def _fetch_sentencepiece(self, asset: Asset) -> None:
        from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
        from sentencepiece import SentencePieceProcessor

        path = sentencepiece_file(asset.name, self.folder)
        name = path.relative_to(self.folder).as_posix()
        known = self.record["files"].get(name)
        if not asset.problem and (known is None or self._whole(path, known)):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._problems_of(asset):
            with urllib.request.urlopen(SPM_MODELS[asset.name]["url"], timeout=CONNECT_S) as response:
                data = response.read()
            with tempfile.TemporaryDirectory() as scratch:
                copy = Path(scratch) / path.name
                copy.write_bytes(data)
                SentencePieceProcessor(model_file=str(copy))  # its publishers list no digest
            with replacing(path, "wb") as file:
                file.write(data)
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            self.record["files"][name] = {"size": len(data), "digest": digest}
            write_json(self.folder / RECORD, self.record)

    @contextmanager
    def _problems_of(self, asset: Asset) -> Iterator[None]:
        """A block whose exceptions become the line of an asset; others go on."""
        try:
            yield
        except Exception as error:
            refusal = hub.refusal(error, asset.name, asset.repo_type)
            why = str(error) if isinstance(error, UsageError) else f"{reason(error)}; re-run to continue"
            self.problems[asset.name] = "; ".join(refusal) if refusal else why


def _check_connection() -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise UsageError("HF_HUB_OFFLINE is set: unset it to download, or pass --check to see what is missing")
    if why := hub.no_answer():
        raise UsageError(
            f"{constants.ENDPOINT} cannot be reached ({why}); run this on a machine with internet, such as the login node; "
            "--check lists what is missing without a network"
        )


def has_size(path: Path, file: File) -> bool:
    return path.is_file() and path.stat().st_size == file["size"]


def is_intact(path: Path, file: File) -> bool:
    """Whether a file has the size and digest that are listed."""
    if not has_size(path, file):
        return False
    kind, _, digest = file["digest"].partition(":")
    found = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % file["size"], usedforsecurity=False)
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, lambda: found).hexdigest() == digest


def damaged(folder: Path, whole: Callable[[Path, File], bool] = has_size) -> Iterator[tuple[str, str]]:
    """(name of the repository or file, what is wrong) for what was fetched into `folder` and is not as it was; `whole`: has_size or is_intact."""
    record = read_record(folder)
    for key, repository in record["repositories"].items():
        place = hub.repository(key, hub_cache(folder)) / "snapshots" / repository["commit"]
        for file, facts in repository["files"].items():
            if not whole(place / file, facts):
                state = "damaged" if (place / file).exists() else "not there"
                yield key.partition("/")[2], f"{file} is {state}; {AGAIN}"
                break
    if record["files"]:
        from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS

        names = {sentencepiece_file(key, folder): key for key in SPM_MODELS}
        for file, facts in record["files"].items():
            if not whole(folder / file, facts):
                yield names.get(folder / file, file), f"it is damaged or not there; {AGAIN}"


def damaged_blobs(folder: Path, rows: Iterable[Asset]) -> Iterator[tuple[str, str]]:
    """The same, by digests, for what another program has downloaded into the Hub's cache, whose blobs are named after their digest."""
    fetched = read_record(folder)["repositories"]
    for row in rows:
        if row.problem or not row.is_on_hub or row.folder is None or row.key in fetched:
            continue
        for path in sorted(path for path in row.folder.rglob("*") if path.is_file()):
            name, file = path.resolve().name, path.relative_to(row.folder)
            kind = BLOB_NAMES.get(len(name)) if re.fullmatch("[0-9a-f]+", name) else None
            if kind is None:
                logger.warning(
                    f"{row.name}: {file} was not compared: neither prefetch.py nor the Hub's cache has its digest"
                )
            elif not is_intact(path, File(size=path.stat().st_size, digest=f"{kind}:{name}")):
                yield row.name, f"{file} is damaged; {AGAIN}"
                break


VARIABLES = {  # of ENVIRONMENT, after the folder
    "HF_HUB_CACHE": "$HF_HOME/hub",
    "SACREBLEU": "$HF_HOME/sacrebleu",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "WANDB_MODE": "offline",
}


def environment() -> str:
    """A script for bash that sets what nodes without internet need; the folder is the one that it is in."""
    lines = [f'export {name}="{value}"' for name, value in VARIABLES.items()]
    return "\n".join(
        [
            "# Written by scripts/prefetch.py; source it in jobs on nodes without internet. The folder may be copied or moved.",
            # A function cd of the user's, and cd itself with CDPATH, may print.
            'export HF_HOME="$(CDPATH= builtin cd -- "$(dirname -- "${BASH_SOURCE[0]:-$0}")" && pwd)"',
            *lines,
            '[ -w "$HF_HOME" ] || export HF_DATASETS_CACHE="${HF_DATASETS_CACHE:-${TMPDIR:-/tmp}/datasets-$(id -u)}"',
            "",
        ]
    )


def write_environment(folder: Path) -> Path:
    write_atomic(folder / ENVIRONMENT, [environment()])
    return folder / ENVIRONMENT


def quiet_downloads() -> None:
    """No bars of the Hub's client where nobody sees them move."""
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
