"""What the metrics on mT5 (Xue et al. 2021) share: its tokenizer, and the languages that it has seen."""

from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.inference import ModelSettings
from topxgen.inference.tokenizer import load_tokenizer
from topxgen.text.languages import Language

TOKENIZER = "google/mt5-xl"  # that of all sizes
# The 101 languages of mC4 (Xue et al. 2021, table 6), its six romanised varieties aside; he, nb and tl are its iw, no and fil.
_CODES = """
    af am ar az be bg bn ca ceb co cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha haw he hi hmn ht hu hy id ig is it ja
    jv ka kk km kn ko ku ky la lb lo lt lv mg mi mk ml mn mr ms mt my nb ne nl ny pa pl ps pt ro ru sd si sk sl sm sn so sq sr st
    su sv sw ta te tg th tl tr uk ur uz vi xh yi yo zh zu
"""
LANGUAGES = frozenset(_CODES.split())
_OTHER_SCRIPTS = ("arb_Latn", "azb_Arab")  # the code of a language of mC4, written as it is not there


def knows(language: Language) -> bool:
    """Whether mT5 was pretrained on text in `language`."""
    return (language.iso639_1 or language.iso639_3) in LANGUAGES and language.flores not in _OTHER_SCRIPTS


def tokenizer_of(name: str, vocabulary: int):
    """The tokenizer in the folder of a model, else mT5's own. Raises UsageError if it has more tokens than `vocabulary`."""
    beside = any((Path(name) / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json", "spiece.model"))
    tokenizer = load_tokenizer(ModelSettings(name if beside else TOKENIZER))
    if len(tokenizer) > vocabulary:
        raise UsageError(
            f"{name} does not fit its tokenizer: {len(tokenizer)} tokens, but {vocabulary} embeddings; put that of {TOKENIZER} there"
        )
    return tokenizer


def refuse_adapter(name: str) -> None:
    """Raise UsageError for the folder of an adapter, which transformers would load onto another model."""
    if (Path(name) / "adapter_config.json").is_file():
        raise UsageError(
            f"{name} holds an adapter, not a whole model; merge it into its base model (peft: merge_and_unload)"
        )
