"""The language tokens of encoder-decoder MT models, and where they are placed.

NLLB-200 (NLLB Team 2022), M2M-100 (Fan et al. 2021), MADLAD-400 (Kudugunta et al. 2023) and Marian each have their own
language tokens, a row of `FAMILIES`; the vocabulary of a checkpoint tells its family. SMaLL-100 (Mohammadshahi et al. 2022),
distilled from M2M-100, has the same tokens in another place.
"""

import logging
import re
from dataclasses import dataclass, replace

from topxgen.common.console import ONCE
from topxgen.common.errors import UsageError
from topxgen.text import languages
from topxgen.text.languages import Language

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Family:
    """The language tokens of a family of models.

    `tokens` are tried in order, filled with the columns of the language table; `pattern` matches all language tokens of the
    family.
    """

    name: str
    pattern: str
    tokens: tuple[str, ...]
    source_token: bool  # whether the source begins with the token of its language
    target_token: str  # where the token of the target language is: at the start of the "target" or of the "source"


# fmt: off
FAMILIES = (
    Family("NLLB", r"[a-z]{3}_[A-Z][a-z]{3}", ("{flores}",), True, "target"),
    Family("M2M-100", r"__[a-z]{2,3}__", ("__{iso639_1}__", "__{iso639_3}__", "__{other}__"), True, "target"),
    Family("MADLAD-400", r"<2[a-z]{2,3}(_\w+)?>",
           ("<2{iso639_1}_{script}>", "<2{iso639_3}_{script}>", "<2{iso639_1}>", "<2{iso639_3}>", "<2{other}>"), False, "source"),
    Family("multilingual Marian", r">>[\w-]+<<", (">>{iso639_3}_{script}<<", ">>{iso639_3}<<", ">>{iso639_1}<<"), False, "source"),
)
# fmt: on
# Codes that are not in the language table: Norwegian for Bokmål, one of M2M-100's own, and some of MADLAD-400's.
OTHER_CODES = {
    "nob_Latn": "no",
    "nso_Latn": "ns",
    "tgl_Latn": "fil",
    "dik_Latn": "din",
    "knc_Arab": "kr_Arab",
    "twi_Latn": "ak",
}
# Of languages with several rows in the table: the script that a token without one stands for.
MAIN_SCRIPTS = dict(ace="Latn", arb="Arab", bjn="Latn", kas="Arab", knc="Latn", min="Latn", taq="Latn", zho="Hans")
BILINGUAL = Family("bilingual", "", (), False, "none")
_M2M_100 = next(family for family in FAMILIES if family.name == "M2M-100")
SMALL_100 = replace(_M2M_100, name="SMaLL-100", source_token=False, target_token="source")


class LanguageTokens:
    """The language tokens of one checkpoint. Raises UsageError if its vocabulary has those of no family."""

    def __init__(self, name: str, config, tokenizer):
        from topxgen.translation.seq2seq_engines import vocabulary

        self._name, self._config, self._tokenizer = name, config, tokenizer
        self._vocabulary = vocabulary(tokenizer)
        self.family = find_family(self._vocabulary, config, name)
        if self.family is SMALL_100:
            logger.info(
                f"{name} has fewer layers in its decoder than in its encoder, as SMaLL-100, so the token of the target language is put "
                "before the source",
                extra=ONCE,
            )
        names = re.compile(self.family.pattern or "$^")
        self.ids = frozenset(number for token, number in self._vocabulary.items() if names.fullmatch(token))
        if getattr(tokenizer, "legacy_behaviour", False):
            logger.warning(
                f"the tokenizer of {name} has legacy_behaviour: a model that was fine-tuned with the language token behind the "
                "text gets it in front of the text here, as NLLB-200 was trained, and translates worse",
                extra=ONCE,
            )

    def prefixes(self, source: Language, target: Language) -> tuple[list[int], list[int]]:
        """Token ids that precede the source, and those that the target begins with."""
        family = self.family
        if family is BILINGUAL:
            for language, attribute in ((source, "source_lang"), (target, "target_lang")):
                code = getattr(self._tokenizer, attribute, None)
                # Codes of language groups (mul, roa, bnt) are not checked.
                if _is_language(code) and code not in (language.iso639_1, language.iso639_3, language.flores):
                    raise UsageError(
                        f"{self._name} translates from {self._tokenizer.source_lang} to {self._tokenizer.target_lang}, not "
                        f"from {source.name} to {target.name}; pass another checkpoint"
                    )
            return [], []
        before = [self._code(source)] if family.source_token else []
        to = [self._code(target)]
        self._check_script(target, to[0])
        return (before, to) if family.target_token == "target" else (to + before, [])

    def _check_script(self, target: Language, id: int) -> None:
        """Warn if the token of `target`, as __zh__, stands for the language in another script."""
        token = next(token for token, number in self._vocabulary.items() if number == id)
        of_table = [row.script for row in languages.load().values() if row.iso639_3 == target.iso639_3]
        main = MAIN_SCRIPTS.get(target.iso639_3, *of_table[:1] or [target.script])
        if target.script not in (main, "") and target.script not in token:
            logger.warning(
                f"{token} of {self._name} names no script, and {target.name} is not written in that of most texts ({main}): "
                "translations into it are likely to be in the wrong script, unless the model was fine-tuned",
                extra=ONCE,
            )

    def _code(self, language: Language) -> int:
        """The id of the token that names `language`; never <unk>."""
        vocabulary = self._vocabulary
        columns = {**vars(language), "other": OTHER_CODES.get(language.flores, "")}
        candidates = [
            token.format(**columns) for token in self.family.tokens if columns["other"] or "{other}" not in token
        ]
        for token in candidates:
            if token in vocabulary and vocabulary[token] != self._tokenizer.unk_token_id:
                if vocabulary[token] >= self._config.vocab_size:
                    raise UsageError(
                        f"{token} is token {vocabulary[token]} of the tokenizer, but {self._name} has only "
                        f"{self._config.vocab_size} embeddings: the tokenizer is not this model's"
                    )
                return vocabulary[token]
        known = sum(1 for token in vocabulary if re.fullmatch(self.family.pattern, token))
        raise UsageError(
            f"{self._name} ({self.family.name}) does not know {language.name}: none of {', '.join(candidates)} is among its "
            f"{known} languages; pass another checkpoint, or let an LLM translate"
        )


def _is_language(code: str | None) -> bool:
    rows = languages.load().values()
    return bool(code) and any(code in (row.iso639_1, row.iso639_3, row.flores) for row in rows)


def find_family(vocabulary: dict[str, int], config, name: str) -> Family:
    """The family whose language tokens the vocabulary has; SMaLL-100 is M2M-100 with a shallow decoder (12 and 3 layers).

    Raises UsageError if it has none and the model is not Marian, which alone has checkpoints for one pair without tokens.
    """
    for family in FAMILIES:
        if any(re.fullmatch(family.pattern, token) for token in vocabulary):
            shallow = family is _M2M_100 and config.decoder_layers < config.encoder_layers
            return SMALL_100 if shallow else family
    if config.model_type == "marian":
        return BILINGUAL
    raise UsageError(
        f"the tokenizer of {name} ({config.model_type}) has no known language tokens "
        f"({', '.join(family.name for family in FAMILIES)}, bilingual Marian); is its tokenizer.json missing?"
    )
