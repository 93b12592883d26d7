"""BLASER-2.0-QE (Seamless Communication et al. 2023): reference-free quality estimation, from about 1 (unrelated) to 5 (the
same meaning).

A small network over the SONAR vectors of source and translation (topxgen.quality.sonar), each scaled to length 1:
[source, translation, source * translation, |translation - source|] -> Linear, Tanh, Linear, Tanh, Linear.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from topxgen.common.errors import UsageError
from topxgen.common.hub import hub_call, listed
from topxgen.common.needs import FILES, Need
from topxgen.common.weights import load_tensors
from topxgen.quality import sonar as sonar_encoder
from topxgen.quality.replicas import check_finite
from topxgen.quality.sonar import SonarEncoder, looks_local, read_checkpoint
from topxgen.text.languages import Language
from topxgen.text.words import is_blank

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT = "facebook/blaser-2.0-qe"
WEIGHT_FILES = ("model.pt", "model.safetensors")
CACHE_BYTES = 1 << 30
BLOCK_PAIRS = 8192  # pairs whose vectors are in memory together

_LAYERS = (1, 4, 7)  # linear layers; 0, 3 and 6 are dropout, 2 and 5 activations
_KEYS = tuple(f"mlp.{layer}.{kind}" for layer in _LAYERS for kind in ("weight", "bias"))


def needs(blaser: str = DEFAULT, sonar: str = sonar_encoder.DEFAULT) -> list[Need]:
    return [Need(FILES, blaser, files=WEIGHT_FILES[:1]), *sonar_encoder.needs(sonar)]


def preflight(blaser: str = DEFAULT, sonar: str = sonar_encoder.DEFAULT, languages: Iterable[Language] = ()) -> None:
    """Raise UsageError for what can be found out before the encoder's weights are loaded.

    Reads SONAR's tokenizer and configuration and BLASER's file (downloaded if it is a Hub id), and checks that they fit
    together and know `languages`.
    """
    checkpoint = read_checkpoint(sonar)
    for language in languages:
        checkpoint.check(language)
    read_weights(weight_file(blaser), checkpoint)


class PairScorer:
    """Scores of pairs by a network over the vectors of their texts."""

    def __init__(self, encode: Callable[[list[str], Language], "Tensor"], cache_bytes: int = CACHE_BYTES):
        self._vectors = VectorCache(encode, cache_bytes)

    def score(
        self, sentences: Sequence[str], translations: Sequence[str], source: Language, target: Language
    ) -> list[float | None]:
        """A score for each pair, in order; None if a side is blank.

        `sentences` are in `source`, `translations` in `target`, one for one (ValueError otherwise).
        """
        pairs = list(zip(sentences, translations, strict=True))
        scores: list[float | None] = [None] * len(pairs)
        nonblank = [i for i, (a, b) in enumerate(pairs) if not (is_blank(a) or is_blank(b))]
        for start in range(0, len(nonblank), BLOCK_PAIRS):
            block = nonblank[start : start + BLOCK_PAIRS]
            sides = ([pairs[i][side] for i in block] for side in (0, 1))
            values = self._network(*map(self._vectors.get, sides, (source, target)))
            for i, value in zip(block, values.tolist(), strict=True):
                scores[i] = value
        return scores

    def forget(self) -> None:
        """Forget the vectors of earlier calls: a text that is embedded again, in another batch, may differ in the last bits."""
        self._vectors.clear()

    def close(self) -> None:
        """Free the networks, the cache and their memory."""
        self._vectors.clear()


class Blaser(PairScorer):
    """Scores of translations.

    `blaser` is a Hub id, a folder with model.pt or model.safetensors, or such a file; `sonar`, `dtype` and
    `batch_tokens` are those of SonarEncoder. BLASER's own network always computes in float32. The most recently used
    vectors (with their texts up to `cache_bytes`) are kept between calls, so that a text is not embedded twice.

    Raises UsageError if a part does not load or the two do not fit together.
    """

    def __init__(
        self,
        blaser: str = DEFAULT,
        sonar: str = sonar_encoder.DEFAULT,
        *,
        dtype: str = "float32",
        batch_tokens: int | None = None,
        cache_bytes: int = CACHE_BYTES,
    ):
        checkpoint = read_checkpoint(sonar)
        weights = read_weights(weight_file(blaser), checkpoint)
        self._name, self._dtype = f"BLASER ({blaser}, {sonar})", dtype
        self._encoder = SonarEncoder(checkpoint, dtype=dtype, batch_tokens=batch_tokens)
        self._weights = [
            tuple(weights[f"mlp.{layer}.{kind}"].to(self._encoder.device).float() for kind in ("weight", "bias"))
            for layer in _LAYERS
        ]
        super().__init__(self._encoder.encode, cache_bytes)

    @property
    def truncated(self) -> int:
        """How many texts were truncated at SONAR's 514 tokens."""
        return self._encoder.truncated

    def check(self, source: Language, target: Language) -> None:
        """Raise UsageError if SONAR does not know one of the languages."""
        self._encoder.check(source)
        self._encoder.check(target)

    def score(self, sentences, translations, source, target) -> list[float | None]:
        """As above. Raises UsageError for scores that are no number."""
        scores = super().score(sentences, translations, source, target)
        check_finite(self._name, self._dtype, translations, (0.0 if score is None else score for score in scores))
        return scores

    def _network(self, source: "Tensor", translation: "Tensor") -> "Tensor":
        """Scores (n,) of vectors (n, width)."""
        import torch
        from torch.nn.functional import linear, normalize

        with torch.inference_mode():
            a, b = (normalize(side.to(self._encoder.device)) for side in (source, translation))
            features = torch.cat([a, b, a * b, (b - a).abs()], dim=1)
            first, second, last = self._weights
            hidden = linear(linear(features, *first).tanh(), *second).tanh()
            return linear(hidden, *last)[:, 0]

    def close(self) -> None:
        super().close()
        self._weights = None
        self._encoder.close()


class VectorCache:
    """An LRU cache of text vectors by language, made by `encode(texts, language)` -> (n, width); `limit` in bytes."""

    def __init__(self, encode: Callable[[list[str], Language], "Tensor"], limit: int = CACHE_BYTES):
        self._encode, self._limit = encode, limit
        self._kept: OrderedDict[tuple[str, str], Tensor] = OrderedDict()
        self._size = 0

    def get(self, texts: Sequence[str], language: Language) -> "Tensor":
        """(len(texts), width), float32, in the given order."""
        import torch

        vectors = {}
        missing = []
        for text in dict.fromkeys(texts):
            key = (language.flores, text)
            if key in self._kept:
                self._kept.move_to_end(key)
                vectors[text] = self._kept[key]
            else:
                missing.append(text)
        if missing:
            for text, vector in zip(missing, self._encode(missing, language), strict=True):
                vectors[text] = vector = vector.clone()  # a view would keep the whole batch in memory
                self._kept[language.flores, text] = vector
                self._size += _bytes(text, vector)
            while self._size > self._limit:
                (_, text), vector = self._kept.popitem(last=False)
                self._size -= _bytes(text, vector)
        return torch.stack([vectors[text] for text in texts])

    def clear(self) -> None:
        self._kept.clear()
        self._size = 0


def _bytes(text: str, vector: "Tensor") -> int:
    return sys.getsizeof(text) + vector.nbytes


def weight_file(name: str) -> Path:
    """The file of BLASER's weights, downloaded if `name` is a Hub id."""
    path = Path(name)
    if path.is_dir():
        for file in WEIGHT_FILES:
            if (path / file).is_file():
                return path / file
        raise UsageError(
            f"{path} holds no BLASER weights ({' or '.join(WEIGHT_FILES)}); copy model.pt of {DEFAULT} there"
        )
    if path.is_file():
        return path
    if looks_local(name):
        raise UsageError(f"{name!r} does not exist; pass BLASER's model.pt, its folder, or a Hub id such as {DEFAULT}")
    return hub_call(name, lambda: _download(name))


def _download(name: str) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    first, second = WEIGHT_FILES
    try:
        return Path(hf_hub_download(name, first))
    except EntryNotFoundError as error:
        # Unreachable, not absent: do not wait for the retries of another download.
        if isinstance(error, LocalEntryNotFoundError) and not constants.HF_HUB_OFFLINE:
            raise
        try:
            return Path(hf_hub_download(name, second))
        except EntryNotFoundError:
            raise error from None


def read_weights(path: Path, checkpoint: sonar_encoder.Checkpoint) -> dict[str, "Tensor"]:
    """The tensors of BLASER-2.0-QE for vectors of this encoder. Raises UsageError for another file."""
    weights = load_tensors(path)
    if set(weights) != set(_KEYS):
        raise UsageError(
            f"{path} is not a BLASER-2.0-QE checkpoint: it holds {listed(sorted(weights))}; expected exactly {', '.join(_KEYS)}; "
            f"pass model.pt of {DEFAULT}"
        )
    width = checkpoint.width
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    features = shapes["mlp.1.weight"][-1]
    if features == 6 * width:
        raise UsageError(
            f"{path} is the reference-based BLASER (first layer {features} = 6 x {width} wide); pass "
            f"model.pt of {DEFAULT}, which needs no reference"
        )
    if features != 4 * width:
        raise UsageError(
            f"{path} does not fit SONAR {checkpoint.name}: its first layer takes {features} numbers, vectors of width {width} "
            f"give {4 * width}; pass model.pt of {DEFAULT} and {sonar_encoder.DEFAULT}"
        )
    inner, outer = shapes["mlp.1.weight"][0], shapes["mlp.4.weight"][0]
    layers = ((inner, features), (outer, inner), (1, outer))
    expected = {}
    for layer, shape in zip(_LAYERS, layers, strict=True):
        expected |= {f"mlp.{layer}.weight": shape, f"mlp.{layer}.bias": shape[:1]}
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise UsageError(
                f"{path}: {name} has the shape {list(shapes[name])}, expected {list(shape)}; pass model.pt of {DEFAULT}"
            )
    return weights
