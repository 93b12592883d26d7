"""Neural metrics on transformers, as SegmentMetrics: BLASER-2.0-QE, MetricX and MT-Ranker (--metrics of comptra.evaluate).

A model is known by a digest of its weights, configuration and tokenizer, not by its name: other weights under one name have
scores of their own in the cache, and copies of one model share theirs. All GPUs are used (topxgen.quality.replicas).
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from comptra.scores.metrics import MetricSettings, Segment
from topxgen.common import provenance
from topxgen.common.errors import UsageError
from topxgen.common.hub import local_folder, require
from topxgen.quality import metricx, mt5, mt_ranker
from topxgen.quality.replicas import default_dtype
from topxgen.text.languages import Language

logger = logging.getLogger(__name__)
VERSION = 1  # of what the models get to read; part of each fingerprint
METRICX = {  # the model of a row of METRICS if --metricx_name_or_path is not given, by (version, reads references)
    (23, True): "google/metricx-23-large-v2p0",
    (23, False): "google/metricx-23-qe-large-v2p0",
    (24, True): metricx.DEFAULT,
    (24, False): metricx.DEFAULT,
}


class _NeuralMetric:
    """What the metrics share. `models` are the names for the signature, `digests` those of all that decides a score, `places` the
    folders or files of the weights."""

    max_tokens = 0

    def __init__(self, title: str, models: Sequence[str], digests: Sequence[str], dtype: str, places: Sequence[Path]):
        self._title, self._model = title, None
        self.weights = [file for place in places for file in provenance.weight_files(place)]
        identity = provenance.digest([*digests])
        self.fingerprint = provenance.digest([title, identity, dtype, str(VERSION)])
        names = ",".join(Path(name.rstrip("/")).name for name in models)
        self.signature = f"{title}|model:{names}|weights:{identity}|dtype:{dtype}|version:{VERSION}"

    @property
    def truncated(self) -> int:
        """How many inputs were too long for the model and were cut, since it was loaded."""
        return self._model.truncated if self._model is not None else 0

    def close(self) -> None:
        """Report what was cut, and free the model and its memory."""
        if self._model is not None:
            if self.truncated:
                logger.warning(
                    f"{self._title}: {self.truncated} inputs are longer than {self.max_tokens} tokens and were cut there"
                )
            self._model.close()
            self._model = None


class BlaserQE(_NeuralMetric):
    """BLASER-2.0-QE on SONAR vectors, about 1 to 5 (Seamless Communication et al. 2023). SONAR is in float32 unless
    --metric_dtype is given."""

    def __init__(self, settings: MetricSettings):
        from topxgen.quality import blaser, sonar

        names = settings.blaser_name_or_path, settings.sonar_name_or_path
        require(blaser.needs(*names))
        file = blaser.weight_file(names[0])
        encoder = local_folder(names[1])
        checkpoint = sonar.read_checkpoint(str(encoder))
        blaser.read_weights(file, checkpoint)
        dtype = settings.metric_dtype or "float32"
        self.max_tokens = sonar.MAX_TOKENS
        options = {"dtype": dtype, "batch_tokens": settings.metric_batch_tokens}
        self._load = partial(blaser.Blaser, str(file), str(encoder), **options)
        self._check = checkpoint.check
        digests = provenance.content_id(file), _digest(encoder, checkpoint.tokenizer)
        super().__init__("BLASER-2.0-QE", names, digests, dtype, (file, encoder))

    def score(self, segments: Sequence[Segment], src: Language, tgt: Language) -> list[float | None]:
        self._check(src)
        self._check(tgt)
        self._model = self._model or self._load()
        self._model.forget()
        return self._model.score([s.source for s in segments], [s.translation for s in segments], src, tgt)


class _MT5Metric(_NeuralMetric):
    """A metric of one model on mT5: `read` reads its checkpoint, `make` loads it."""

    def __init__(self, title: str, name: str, read: Callable, make: Callable, settings: MetricSettings):
        mt5.refuse_adapter(name)
        require(mt5.needs(name))
        folder = local_folder(name)
        checkpoint = read(str(folder))
        dtype = settings.metric_dtype or default_dtype()
        self._load = partial(make, checkpoint, dtype=dtype, batch_tokens=settings.metric_batch_tokens)
        super().__init__(title, [name], [_digest(folder, checkpoint.tokenizer)], dtype, [folder])


class MetricX(_MT5Metric):
    """MetricX-23 or -24 (Juraska et al. 2023, 2024), with or without references: errors, 0 to 25."""

    def __init__(self, settings: MetricSettings, *, version: int, with_reference: bool):
        name = metricx_model(settings.metricx_name_or_path, version, with_reference)
        self._with_reference, self.max_tokens = with_reference, metricx.MAX_TOKENS[version]
        title = f"MetricX-{version}" + ("" if with_reference else "-QE")
        super().__init__(title, name, metricx.read_checkpoint, metricx.MetricX, settings)

    def score(self, segments: Sequence[Segment], src: Language, tgt: Language) -> list[float | None]:
        references = [s.reference for s in segments] if self._with_reference else None
        self._model = self._model or self._load()
        return self._model.score([s.source for s in segments], [s.translation for s in segments], references)


class MTRanker(_MT5Metric):
    """MT-Ranker (Moosa et al. 2024): the probability, 0 to 1, that a translation is better than the baseline's; no reference."""

    max_tokens = mt_ranker.MAX_TOKENS

    def __init__(self, settings: MetricSettings):
        name = settings.mt_ranker_name_or_path
        super().__init__("MT-Ranker", name, mt_ranker.read_checkpoint, mt_ranker.MTRanker, settings)

    def score(self, segments: Sequence[Segment], src: Language, tgt: Language) -> list[float | None]:
        self._model = self._model or self._load()
        columns = zip(*((s.source, s.translation, s.rival) for s in segments), strict=True)
        return self._model.score(*map(list, columns)) if segments else []


# The rows of METRICS.
metricx_23 = partial(MetricX, version=23, with_reference=True)
metricx_23_qe = partial(MetricX, version=23, with_reference=False)
metricx_24 = partial(MetricX, version=24, with_reference=True)
metricx_24_qe = partial(MetricX, version=24, with_reference=False)


def metricx_model(names: Sequence[str], version: int, with_reference: bool) -> str:
    """Which of the given models the row of METRICS is for; the published one if none is given."""
    if not names:
        return METRICX[version, with_reference]
    fitting = [name for name in names if metricx.kind_of(name) in ((version, None), (version, with_reference))]
    kind = f"MetricX-{version} that scores {'with' if with_reference else 'without'} references"
    if len(fitting) != 1:
        raise UsageError(
            f"--metricx_name_or_path {' '.join(names)}: {'no' if not fitting else 'more than one'} {kind}; pass one, such as "
            f"{METRICX[version, with_reference]}"
        )
    return fitting[0]


def _digest(model: Path, tokenizer) -> str:
    """Of weights, configuration and tokenizer. Raises UsageError if there are no weights."""
    weights = provenance.content_id(model)
    if not weights:
        raise UsageError(f"{model} holds no weights (model.safetensors or pytorch_model.bin); download the whole model")
    config = model / "config.json"
    fast = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = fast.to_str() if fast is not None else str(sorted(tokenizer.get_vocab().items()))
    return provenance.digest([weights, config.read_text(encoding="utf-8") if config.is_file() else "", vocabulary])
