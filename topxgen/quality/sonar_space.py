"""BLASER-2.0-QE through Meta's own sonar-space package: the reference for topxgen.quality.blaser, in a separate environment.

tests/quality/test_sonar_space_parity.py compares the two on random weights. Not tested with the published weights: the
compiled part of sonar-space needs a CUDA build of torch, and the checkpoints come from Meta's servers.
"""

import re
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

from topxgen.common.errors import UsageError, reason
from topxgen.common.weights import free_memory
from topxgen.quality.blaser import PairScorer
from topxgen.quality.sonar import BATCH_TOKENS, torch_device
from topxgen.text.languages import Language

if TYPE_CHECKING:
    from torch import Tensor

ENCODER, BLASER = "text_sonar_basic_encoder", "blaser_2_0_qe"  # names of sonar-space's model cards
_CUT = re.compile(r"For (\d+) input tensors")  # in the truncation warning of sonar-space


def preflight(languages: Iterable[Language] = ()) -> None:
    """Raise UsageError if sonar-space does not import. `languages` are not checked: that needs its tokenizer."""
    _import()


def _import():
    """(text pipeline class, BLASER loader, fairseq2's tokenizer loader)."""
    try:
        from fairseq2.data.tokenizers import load_tokenizer
        from sonar.inference_pipelines.text import TextToEmbeddingModelPipeline
        from sonar.models.blaser.loader import load_blaser_model
    except Exception as error:  # fairseq2n raises its own types for an incompatible torch
        raise UsageError(
            f"the sonar-space engine does not import ({reason(error)}): install requirements-sonar.txt in a separate environment, "
            "or pass --scorer blaser"
        ) from None
    return TextToEmbeddingModelPipeline, load_blaser_model, load_tokenizer


class SonarSpace(PairScorer):
    """Scores of translations, as topxgen.quality.blaser.Blaser; sonar-space downloads the weights.

    Raises UsageError if the package or its weights do not load.
    """

    def __init__(self, *, dtype: str = "float32"):
        pipeline, load_blaser_model, load_tokenizer = _import()
        import torch

        self.device = torch_device(None, dtype)
        try:
            self._tokenizer = load_tokenizer(ENCODER)
            self._pipeline = pipeline(ENCODER, self._tokenizer, device=self.device, dtype=getattr(torch, dtype))
            self._blaser = load_blaser_model(BLASER).to(self.device, torch.float32).eval()
        except Exception as error:  # fairseq2 raises many types; the cause is in the message
            raise UsageError(
                f"sonar-space cannot load {ENCODER} and {BLASER} ({reason(error)}); it fetches them from "
                "dl.fbaipublicfiles.com and the Hub, or takes them from its cache"
            ) from None
        super().__init__(self._encode)
        self.truncated = 0

    def check(self, source: Language, target: Language) -> None:
        """Raise UsageError if SONAR does not know one of the languages."""
        for language in (source, target):
            try:
                self._tokenizer.create_encoder(lang=language.flores)
            except Exception as error:
                raise UsageError(
                    f"SONAR does not know {language.flores!r} ({language.name}; {reason(error)}); it knows the 202 languages "
                    f"of NLLB; omit {language.name}, or choose another scorer"
                ) from None

    def score(self, sentences, translations, source, target) -> list[float | None]:
        self.check(source, target)
        return super().score(sentences, translations, source, target)

    def _encode(self, texts: list[str], language: Language) -> "Tensor":
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            vectors = self._pipeline.predict(
                texts, source_lang=language.flores, batch_size=None, batch_max_tokens=BATCH_TOKENS[self.device.type]
            )
        self.truncated += sum(int(match[1]) for item in caught if (match := _CUT.match(str(item.message))))
        return vectors.float().cpu()

    def _network(self, source: "Tensor", translation: "Tensor") -> "Tensor":
        import torch

        with torch.inference_mode():
            return self._blaser(src=source.to(self.device), mt=translation.to(self.device))[:, 0]

    def close(self) -> None:
        super().close()
        self._pipeline = self._blaser = None
        free_memory()
