"""A fine-tuned encoder-decoder as a folder that CTranslate2 loads, and whether it still translates as transformers does."""

from pathlib import Path
from typing import NamedTuple

from topxgen.common.errors import UsageError
from topxgen.corpora import benchmarks
from topxgen.text.languages import Language
from topxgen.translation import TranslatorSettings
from topxgen.translation.nllb import COMPUTE_TYPES, NLLB

TYPES = tuple(name for name in COMPUTE_TYPES if name != "auto")
MIN_CHARS, MAX_CHARS = 40, 300  # of a sentence that is translated to compare


class Compared(NamedTuple):
    """A sentence, and its translations by transformers in float32 and by CTranslate2."""

    sentence: str
    reference: str
    translation: str


def convert(model: str, folder: Path, compute_type: str, trust_remote_code: bool = False) -> None:
    """Write `model`, a folder or Hub id, to `folder`: the CTranslate2 model, and the tokenizer beside it.

    Raises UsageError for a model that is no encoder-decoder, or incomplete.
    """
    from topxgen.translation import seq2seq_engines

    _, tokenizer, _ = seq2seq_engines.read_checkpoint(model, trust_remote_code)
    seq2seq_engines.convert(model, folder, compute_type, trust_remote_code)
    tokenizer.save_pretrained(folder)


def compare(
    model: str,
    folder: Path,
    compute_type: str,
    source: Language,
    target: Language,
    count: int,
    trust_remote_code: bool = False,
) -> list[Compared]:
    """Translations of the first `count` sentences of the Universal Declaration of Human Rights by both engines.

    Raises UsageError if the model or the Declaration does not know a language, or this machine cannot run `compute_type`.
    """
    texts = [text for split in benchmarks.load("udhr", source) for text in split.texts]
    sentences = [text for text in texts if MIN_CHARS <= len(text) <= MAX_CHARS][:count]
    if not sentences:
        raise UsageError(f"the Universal Declaration has no sentences in {source.name}")
    found = []
    for engine, kind, converted in (("transformers", "float32", None), ("ctranslate2", compute_type, folder)):
        settings = TranslatorSettings(
            nllb_name_or_path=model, nllb_engine=engine, nllb_compute_type=kind, trust_remote_code=trust_remote_code
        )
        translator = NLLB(settings, converted)
        translator.check(source, target)
        translator.load()
        found.append([one.text for one in translator.translate(sentences, source, target)])
        translator.close()
    return [Compared(*texts) for texts in zip(sentences, *found, strict=True)]
