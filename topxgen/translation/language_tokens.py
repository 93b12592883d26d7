"""How encoder-decoder MT models name their languages, and where the names go.

NLLB-200 (NLLB Team 2022), M2M-100 (Fan et al. 2021), MADLAD-400 (Kudugunta et al. 2023) and Marian name their
languages in different ways; a row of `FAMILIES` says how, and the vocabulary tells which one a checkpoint
belongs to.
"""

import re
from dataclasses import dataclass

from topxgen.common.errors import UsageError
from topxgen.text import languages
from topxgen.text.languages import Language


@dataclass(frozen=True)
class Family:
    """How a family of models names a language, and where the names go.

    `tokens` are tried in turn with the columns of the language table; `pattern` is what all of the family's
    language tokens look like.
    """

    name: str
    pattern: str
    tokens: tuple[str, ...]
    source_token: bool  # the source begins with the name of its own language ...
    target_token: str  # ... and that of the target stands at the start of the "target" or of the "source"


FAMILIES = (
    Family("NLLB", r"[a-z]{3}_[A-Z][a-z]{3}", ("{flores}",), True, "target"),
    Family("M2M-100", r"__[a-z]{2,3}__", ("__{iso639_1}__", "__{iso639_3}__"), True, "target"),
    Family(
        "MADLAD-400",
        r"<2[a-z]{2,3}(_\w+)?>",
        ("<2{iso639_1}_{script}>", "<2{iso639_3}_{script}>", "<2{iso639_1}>", "<2{iso639_3}>"),
        False,
        "source",
    ),
    Family(
        "multilingual Marian",
        r">>[\w-]+<<",
        (">>{iso639_3}<<", ">>{iso639_3}_{script}<<", ">>{iso639_1}<<"),
        False,
        "source",
    ),
)
BILINGUAL = Family("bilingual", "", (), False, "none")


class LanguageTokens:
    """The language tokens of one checkpoint. Raises UsageError when its vocabulary holds none that is known here."""

    def __init__(self, name: str, config, tokenizer):
        from topxgen.translation.seq2seq_engines import vocabulary

        self._name, self._config, self._tokenizer = name, config, tokenizer
        self._vocabulary = vocabulary(tokenizer)
        self.family = find_family(self._vocabulary, config.model_type, name)

    def prefixes(self, source: Language, target: Language) -> tuple[list[int], list[int]]:
        """Token ids that go before the source, and those that the target begins with."""
        family = self.family
        if family is BILINGUAL:
            for language, known in ((source, "source_lang"), (target, "target_lang")):
                code = getattr(self._tokenizer, known, None)
                # Codes of groups (mul, roa, bnt) say too little to judge by.
                if _is_language(code) and code not in (language.iso639_1, language.iso639_3, language.flores):
                    raise UsageError(
                        f"{self._name} translates from {self._tokenizer.source_lang} to {self._tokenizer.target_lang}, not "
                        f"from {source.name} to {target.name}; pass another checkpoint"
                    )
            return [], []
        before = [self._code(source)] if family.source_token else []
        to = [self._code(target)]
        return (before, to) if family.target_token == "target" else (to + before, [])

    def _code(self, language: Language) -> int:
        """The id of the token that names `language`; never <unk>."""
        vocabulary = self._vocabulary
        columns = vars(language)
        wanted = [token.format(**columns) for token in self.family.tokens]
        for token in wanted:
            if token in vocabulary and vocabulary[token] != self._tokenizer.unk_token_id:
                if vocabulary[token] >= self._config.vocab_size:
                    raise UsageError(
                        f"the tokenizer of {self._name} numbers {token} {vocabulary[token]}, but the model has only "
                        f"{self._config.vocab_size} embeddings: the tokenizer is not this model's"
                    )
                return vocabulary[token]
        known = sum(1 for token in vocabulary if re.fullmatch(self.family.pattern, token))
        raise UsageError(
            f"{self._name} ({self.family.name}) does not know {language.name}: none of {', '.join(wanted)} is among its "
            f"{known} languages; pass another checkpoint, or let an LLM translate"
        )


def _is_language(code: str | None) -> bool:
    """Whether a code is that of a language in our table."""
    rows = languages.load().values()
    return bool(code) and any(code in (row.iso639_1, row.iso639_3, row.flores) for row in rows)


def find_family(vocabulary: dict[str, int], model_type: str, name: str) -> Family:
    """The family whose language tokens the vocabulary holds.

    Raises UsageError when there are none and the model is not of a kind that has two languages and no tokens.
    """
    for family in FAMILIES:
        if any(re.fullmatch(family.pattern, token) for token in vocabulary):
            return family
    if model_type == "marian":
        return BILINGUAL
    raise UsageError(
        f"the tokenizer of {name} ({model_type}) names no languages in a way known here "
        f"({', '.join(family.name for family in FAMILIES)}, bilingual Marian); is its tokenizer.json missing?"
    )
