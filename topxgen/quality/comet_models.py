"""COMET models (Rei et al. 2020, 2022; XCOMET: Guerreiro et al. 2024), which run in an environment of their own.

COMET needs older versions of numpy, transformers and huggingface_hub than the rest. comet_worker.py runs there, as one process that
loads the model once and reads and writes lines of JSON.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from os.path import expanduser
from pathlib import Path
from typing import NotRequired, TypedDict

from topxgen.common import hub, schemas
from topxgen.common.errors import UsageError
from topxgen.common.lines import split_lines
from topxgen.common.needs import COMET, COMET_PYTHON, TOKENIZER, Need
from topxgen.common.provenance import digest, weights_id
from topxgen.common.records import replace_surrogates

QE = "Unbabel/wmt22-cometkiwi-da"
PYTHON = "COMET_PYTHON"  # environment variable: the interpreter that has COMET
_ROOT = Path(__file__).resolve().parent.parent.parent
_WORKER = Path(__file__).with_name("comet_worker.py")
# Classes of checkpoints by what they can read beside the translation; input_segments decides for the unified ones.
_WITH_REFERENCE = ("regression_metric", "xcomet_metric")
_WITHOUT_REFERENCE = ("referenceless_regression_metric", "xcomet_metric")


class Hparams(TypedDict):
    """What we read of a checkpoint's hparams.yaml."""

    class_identifier: str
    pretrained_model: str  # the encoder, whose tokenizer and configuration are not in the checkpoint
    input_segments: NotRequired[list[str]]


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a model before its weights are loaded."""

    name: str
    hparams_file: Path
    hparams: Hparams

    def reads(self, reference: bool) -> bool:
        """Whether the model scores with a reference, or without one."""
        kind, segments = self.hparams["class_identifier"], self.hparams.get("input_segments", ["mt", "src", "ref"])
        if kind == "unified_metric":
            return ("ref" in segments) if reference else ("src" in segments)
        return kind in (_WITH_REFERENCE if reference else _WITHOUT_REFERENCE)

    def file(self) -> Path:
        """The weights, downloaded if necessary. Raises UsageError if they cannot be had."""
        if Path(self.name).is_file():
            return Path(self.name)
        if Path(self.name).is_dir():
            found = sorted(Path(self.name, "checkpoints").glob("*.ckpt"))
            if len(found) != 1:
                names = ", ".join(path.name for path in found) or "none"
                raise UsageError(
                    f"{self.name}/checkpoints must hold one .ckpt file and holds {names}; pass the file that is meant"
                )
            return found[0]
        return hub.hub_call(self.name, lambda: _from_hub(self.name, "checkpoints/model.ckpt"))

    def fingerprint(self) -> str:
        """A digest of the weights and of hparams.yaml."""
        return digest([weights_id(self.file()), self.hparams_file.read_text(encoding="utf-8", errors="replace")])


def read_checkpoint(name: str) -> Checkpoint:
    """`name`: a Hub id, a folder with hparams.yaml and checkpoints/, or a .ckpt file in such a folder.

    Only hparams.yaml is downloaded. Raises UsageError if it is missing, damaged or out of reach, or if the encoder that it names is
    neither in the Hub's cache nor to be had.
    """
    path = Path(expanduser(name))
    if path.exists():
        file = (path.parent.parent if path.is_file() else path) / "hparams.yaml"
        if not file.is_file():
            raise UsageError(
                f"{file} does not exist: a COMET model is a folder with hparams.yaml and checkpoints/model.ckpt, or that .ckpt file"
            )
        name = str(path)
    else:
        hub.require([Need(COMET, name)])
        file = hub.hub_call(name, lambda: _from_hub(name, "hparams.yaml"))
    hparams = read_hparams(file)
    hub.require([encoder_of(hparams)])
    return Checkpoint(name, file, hparams)


def settings(name: str) -> dict[str, str]:
    """What a run records of the model: a Hub id, or a folder's name and a digest of its content."""
    if not Path(expanduser(name)).exists():
        return {"comet_name_or_path": name}
    checkpoint = read_checkpoint(name)
    return {"comet_name_or_path": Path(checkpoint.name).resolve().name, "comet_weights": checkpoint.fingerprint()}


def encoder_of(hparams: Hparams) -> Need:
    return Need(TOKENIZER, hparams["pretrained_model"])


def read_hparams(file: Path) -> Hparams:
    """Raises UsageError if it is not that of a COMET model."""
    try:
        return schemas.decode_yaml(file.read_text(encoding="utf-8"), Hparams)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} is not the hparams.yaml of a COMET model ({error}); download it again") from None


def _from_hub(name: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(name, file))


def needs(name: str, python: str | None) -> list[Need]:
    return [Need(COMET, name), Need(COMET_PYTHON, interpreter(python))]


def python_of(flag_value: str | None) -> str:
    """The interpreter that has COMET: --comet_python, $COMET_PYTHON, or .venv-comet. Raises UsageError if it cannot import COMET."""
    python = interpreter(flag_value)
    path = shutil.which(python)
    if path is None:
        raise UsageError(f"COMET needs its own environment, and there is no interpreter {python}; {REMEDY}")
    version(path)
    return path


def interpreter(flag_value: str | None) -> str:
    """Where the interpreter that has COMET is looked for."""
    return flag_value or os.environ.get(PYTHON) or str(_ROOT / ".venv-comet" / "bin" / "python")


REMEDY = f"make it with scripts/setup.sh --comet (elsewhere: --comet_python PATH or ${PYTHON})"


@cache
def version(python: str) -> str:
    """The version of COMET that `python` imports, in a process of its own. Raises UsageError if it does not import."""
    worker = _Worker(python)
    try:
        return worker.receive("ready")["ready"]
    finally:
        worker.close()


class Comet:
    """Scores of translations. `python` has COMET (`python_of`); `truncated` counts segments that were longer than the encoder's limit.

    The worker starts and loads the model at the first call. Raises UsageError, with the worker's own message, if it fails.
    """

    def __init__(self, checkpoint: Checkpoint, python: str):
        self._checkpoint, self._python = checkpoint, python
        self._worker: _Worker | None = None
        self.truncated = 0

    def score(self, segments: Sequence[tuple[str, str, str | None]]) -> list[float]:
        """The score of each (source, translation, reference), in order; references are None for models that read none."""
        if not segments:
            return []
        if self._worker is None:
            self._worker = _Worker(self._python, str(self._checkpoint.file()))
            self._worker.receive("ready")
        rows = [
            {
                key: replace_surrogates(text)
                for key, text in zip(("src", "mt", "ref"), segment, strict=True)
                if text is not None
            }
            for segment in segments
        ]
        self._worker.send({"segments": rows})
        message = self._worker.receive("scores")
        self.truncated += message["truncated"]
        return message["scores"]

    def close(self) -> None:
        """End the worker, which frees its memory."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None


class _Worker:
    """The process. When this one dies its standard input ends, and so does it."""

    def __init__(self, python: str, *arguments: str):
        self._python, self._log = python, tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        command = [python, str(_WORKER), *arguments]
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log)
        except OSError as error:
            raise UsageError(f"COMET failed in {python} ({error.strerror}); {REMEDY}") from None

    def send(self, message: dict) -> None:
        with contextlib.suppress(BrokenPipeError):  # `receive` says why
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self, key: str) -> dict:
        """The worker's next line, which has `key`. Raises UsageError if it says what went wrong, or has died."""
        message = self._next_message()
        if key in message:
            return message
        self.close()
        remedy = REMEDY if key == "ready" else "what is scored is kept: re-run the same command when the cause is gone"
        raise UsageError(f"COMET failed in {self._python} ({message['error']}); {remedy}")

    def _next_message(self) -> dict:
        """Other lines, of a start script of the interpreter, say, are passed over."""
        while line := self._process.stdout.readline():
            with contextlib.suppress(ValueError):
                if isinstance(message := json.loads(line), dict):
                    return message
        return {"error": self._last_words()}

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = split_lines(self._log.read().decode("utf-8", "replace"))
        said = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
        return f"it ended with signal {-code}" if code < 0 else said[:300]

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.terminate()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()
