"""The COMET family as metrics. A new one is a row of METRICS, a line of MODELS and its name below that.

wmt22-comet-da and wmt22-cometkiwi-da (Rei et al. 2022), XCOMET (Guerreiro et al. 2024), AfriCOMET (Wang et al. 2024),
SSA-COMET (Li et al. 2025). Scores are about 0 to 1, higher is better; texts are cut at the encoder's 512 tokens.
"""

import logging
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

from comptra.scores.metrics import METRICS, MetricSettings, Segment
from topxgen.common.errors import UsageError
from topxgen.quality import comet_models
from topxgen.quality.comet_models import Comet, read_checkpoint
from topxgen.text.languages import Language

logger = logging.getLogger(__name__)


class CometMetric:
    """The metric `name` of METRICS (see SegmentMetric) with the model `default`, or that of --comet_models.

    Raises UsageError if COMET cannot be imported, hparams.yaml is out of reach, or the model does not read what the metric reads.
    The checkpoint is downloaded when the fingerprint or a score is first asked for.
    """

    def __init__(self, name: str, default: str, settings: MetricSettings):
        self._title, self._model = METRICS[name].title, settings.model_of(name, default)
        self._checkpoint = read_checkpoint(self._model)
        self._reads_reference = "reference" in METRICS[name].reads
        if not self._checkpoint.reads(self._reads_reference):
            with_one, without = ("with", "without") if self._reads_reference else ("without", "with")
            raise UsageError(
                f"{self._model} scores {without} references, and --metrics {name} {with_one}: pass a model of that kind, such as "
                f"{default}"
            )
        self._python = comet_models.python_of(settings.comet_python)
        self._comet = Comet(self._checkpoint, self._python)

    @cached_property
    def fingerprint(self) -> str:
        return f"{self._checkpoint.fingerprint()}-{comet_models.version(self._python)}"

    @cached_property
    def signature(self) -> str:
        model = Path(self._model).name if Path(self._model).exists() else self._model
        weights, version = self._checkpoint.fingerprint(), comet_models.version(self._python)
        return f"COMET|model:{model}|weights:{weights}|version:{version}"

    @property
    def weights(self) -> list[Path]:
        """The file of the model, downloaded if necessary."""
        return [self._checkpoint.file()]

    def score(self, segments: Sequence[Segment], src: Language, tgt: Language) -> list[float | None]:
        rows = [(one.source, one.translation, one.reference if self._reads_reference else None) for one in segments]
        return self._comet.score(rows)

    def close(self) -> None:
        """Report what was cut, and free the model."""
        if self._comet.truncated:
            logger.warning(
                f"{self._title}: {self._comet.truncated} inputs are longer than the encoder of {self._model} reads and were cut there"
            )
            self._comet.truncated = 0
        self._comet.close()


MODELS = {  # the published model of each metric
    "comet": "Unbabel/wmt22-comet-da",
    "xcomet": "Unbabel/XCOMET-XL",
    "cometkiwi": comet_models.QE,
    "ssa-comet": "McGill-NLP/ssa-comet-mtl",
    "ssa-comet-qe": "McGill-NLP/ssa-comet-qe",
    "africomet": "masakhane/africomet-mtl",
    "africomet-qe": "masakhane/africomet-qe-stl",
}
comet, xcomet, cometkiwi, ssa_comet, ssa_comet_qe, africomet, africomet_qe = (
    partial(CometMetric, name, model) for name, model in MODELS.items()
)
