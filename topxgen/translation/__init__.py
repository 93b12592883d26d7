"""Sentence translation behind one interface.

A translator has
    load()                               load its model
    translate(sentences, source, target, tick)  -> list of Translation, in the order of the sentences; tick(n) is
                                         called when n more are done
    version                              what a manifest should say of it
    settings                             what decides its translations, as a dict
    block_size                           how many sentences it likes at once (a kill undoes that many at most)
    check(source, target)                raise UsageError when it cannot translate between the two; before `load` too
    close()                              free the model and its memory
It sorts and batches the sentences it is given itself.
"""

from dataclasses import dataclass
from pathlib import Path

from topxgen.common.registry import Choice, load_choice
from topxgen.common.settings import Settings
from topxgen.inference import ModelSettings

# One row a translator: "module:class", imported when it is chosen.
TRANSLATORS: dict[str, Choice] = {
    "nllb": Choice("topxgen.translation.nllb:NLLB", "the translation model of --nllb_name_or_path"),
    "llm": Choice("topxgen.translation.llm:LLM", "the LLM of --model_name_or_path, few-shot"),
    "apertium": Choice(
        "topxgen.translation.apertium:Apertium", "Apertium's rules, where its language pair is installed"
    ),
}
CACHE_DIR = "~/.cache/topxgen"


@dataclass(frozen=True)
class Translation:
    """`confidence` is the translator's own estimate of quality from 0 to 1, None if it has none; `pieces` is in
    how many pieces a sentence longer than the model takes was translated; `error` is why there is no text."""

    text: str
    confidence: float | None = None
    pieces: int = 1
    error: str | None = None


@dataclass(frozen=True)
class TranslatorSettings(Settings):
    """What to load and how; a translator ignores the fields that it has no use for."""

    nllb_name_or_path: str = "facebook/nllb-200-3.3B"
    nllb_engine: str = "ctranslate2"
    nllb_compute_type: str = "auto"
    cache_dir: str = CACHE_DIR
    trust_remote_code: bool = False
    # LLM
    inference_api: str = "vllm"
    model: ModelSettings | None = None
    num_beams: int = 1
    template_key: str = "11"
    prompt_style: str = "auto"
    number_of_demonstrations: int = 5
    demonstration_pool: str = "flores"
    response_cache: Path | None = None  # where responses are kept


def no_tick(_: int) -> None:
    """For callers who do not want to know."""


def create(name: str, settings: TranslatorSettings):
    """The translator of that name, its model not loaded yet. Raises UsageError when it cannot be had."""
    return load_choice("--back_translator", name, TRANSLATORS)(settings)
