"""What a command loads that does not come with the package: models, data sets, and files of other projects.

Each stage says what its flags need (topxgen.experiments.stages); topxgen.common.hub requires it of the Hub's cache, and
topxgen.experiments.assets finds and fetches it.
"""

import re
from dataclasses import dataclass
from os.path import expanduser
from pathlib import Path

MODEL = "model"  # configuration and weights; or a LoRA adapter
TOKENIZER = "tokenizer"  # with the configuration
FILES = "files"  # certain files of a repository
COMET = "COMET checkpoint"
COMET_PYTHON = "COMET environment"  # by its interpreter
DATASET = "data set"
SENTENCEPIECE = "sacreBLEU model"
SPACY = "spaCy pipeline"
APERTIUM = "Apertium pair"
UDHR_TEXT = "UDHR"
ON_HUB = (MODEL, TOKENIZER, FILES, COMET, DATASET)
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class Need:
    """`name` is a Hub id, a folder or a file, or what a package calls its own; `configs` those of a data set (none: all of it), `files`
    glob patterns of a repository's files. `fallback`: what happens if it is not there, "" if the run then ends. `revision`: a branch, tag or
    commit of a repository, "" for main. `instead`: the flag that does without, if there is one."""

    kind: str
    name: str
    configs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    fallback: str = ""
    revision: str = ""
    instead: str = ""

    @property
    def repo_type(self) -> str:
        """What the Hub calls it."""
        return "dataset" if self.kind == DATASET else "model"

    @property
    def is_local(self) -> bool:
        return Path(expanduser(self.name)).exists()

    @property
    def is_on_hub(self) -> bool:
        return self.kind in ON_HUB and not self.is_local and bool(HUB_ID.fullmatch(self.name))


def models(*names: str | None, tokenizer: str | None = None) -> list[Need]:
    """Models with their tokenizers, or with `tokenizer` in their place; None is a flag that was not given."""
    chosen = [name for name in dict.fromkeys(names) if name]
    return [Need(MODEL, name) for name in chosen] + tokenizers(*([tokenizer] if tokenizer and chosen else chosen))


def tokenizers(*names: str | None) -> list[Need]:
    return [Need(TOKENIZER, name) for name in dict.fromkeys(names) if name]
