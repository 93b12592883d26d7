"""NLLB and other encoder-decoder MT models, through CTranslate2 or transformers.

NLLB-200 (NLLB Team 2022), M2M-100 (Fan et al. 2021), MADLAD-400 (Kudugunta et al. 2023) and Marian name their
languages in different ways; a row of `FAMILIES` says how, and the vocabulary tells which one a checkpoint
belongs to. Beam search with 5 beams and no sampling, as published.

An answer is at most twice as long as the longest source in its batch (SPEC section 4). Batches here hold
sources of like length, so that this limit, and with it every translation, depends on the sentence alone and
not on what else happens to be translated with it.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from comptra import languages
from comptra.errors import UserError
from comptra.languages import Language
from comptra.translators import Translation, TranslatorSettings, no_tick
from comptra.words import unicode_words

NUM_BEAMS = 5
LENGTH_STEP = 32  # sources whose lengths round up to the same multiple share a limit
ENGINES = {"ctranslate2": "CTranslate2Engine", "transformers": "TransformersEngine"}  # of comptra.translators.seq2seq
COMPUTE_TYPES = ("auto", "int8", "int8_float16", "int8_bfloat16", "float16", "bfloat16", "float32")


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


class NLLB:
    """See comptra.translators for the interface; the confidence is exp(mean log-probability) of the tokens."""

    def __init__(self, settings: TranslatorSettings):
        from comptra.translators import seq2seq

        self.name = settings.nllb
        self._config, self._tokenizer, self._max_tokens = seq2seq.read(settings.nllb, settings.trust_remote_code)
        self._vocabulary = seq2seq.vocabulary(self._tokenizer)
        self.family = find_family(self._vocabulary, self._config.model_type, settings.nllb)
        engine = getattr(seq2seq, ENGINES[settings.nllb_engine])
        self._engine_name = settings.nllb_engine
        self._engine = engine(settings, self._config, self._tokenizer)

    def load(self) -> None:
        """Load the weights (and convert them the first time)."""
        self._engine.load()

    @property
    def block_size(self) -> int:
        return self._engine.block_size

    @property
    def version(self) -> str:
        return f"{self.name}, {self.family.name}, {self._engine.version}, {NUM_BEAMS} beams"

    @property
    def settings(self) -> dict:
        """What decides the translations."""
        return {
            "nllb_name_or_path": self.name,
            "nllb_engine": self._engine_name,
            "nllb_compute_type": self._engine.compute_type,
        }

    def check(self, source: Language, target: Language) -> None:
        self._prefixes(source, target)

    def translate(
        self, sentences: list[str], source: Language, target: Language, tick: Callable[[int], None] = no_tick
    ) -> list[Translation]:
        before, prefix = self._prefixes(source, target)
        distinct = list(dict.fromkeys(sentence for sentence in sentences if unicode_words(sentence)))
        room = self._max_tokens - len(before) - 1
        pieces = [
            split_long(text, ids, self._ids, room) for text, ids in zip(distinct, self._ids(distinct), strict=True)
        ]
        rows = [before + ids + [self._tokenizer.eos_token_id] for parts in pieces for ids in self._ids(parts)]
        outputs = iter(self._decode(rows, prefix, tick))
        joint = "" if target.script in ("Hans", "Hant", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt") else " "
        found = {}
        for text, parts in zip(distinct, pieces, strict=True):
            answers = [next(outputs) for _ in parts]
            confidence = math.exp(sum(score for _, score in answers) / len(answers))
            found[text] = Translation(joint.join(a for a, _ in answers), round(min(confidence, 1.0), 4), len(parts))
        # Nothing to say about a sentence without words.
        return [found.get(sentence, Translation("", 0.0)) for sentence in sentences]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        # A "</s>" that stands in a text is text.
        options = dict(add_special_tokens=False, split_special_tokens=True, verbose=False)
        return self._tokenizer(texts, **options)["input_ids"]

    def _decode(self, rows: list[list[int]], prefix: list[int], tick: Callable[[int], None]) -> list[tuple[str, float]]:
        """(text, mean log-probability) of each row, in order."""
        if not rows:
            return []
        buckets: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            buckets.setdefault(-(-len(row) // LENGTH_STEP) * LENGTH_STEP, []).append(i)
        work = [(min(2 * longest, self._max_tokens), [rows[i] for i in buckets[longest]]) for longest in buckets]
        outputs: list = [None] * len(rows)
        for indices, results in zip(
            buckets.values(), self._engine.translate(work, prefix, NUM_BEAMS, tick), strict=True
        ):
            for i, result in zip(indices, results, strict=True):
                outputs[i] = result
        texts = self._tokenizer.batch_decode([ids for ids, _ in outputs], skip_special_tokens=True)
        return [(text.strip(), score) for text, (_, score) in zip(texts, outputs, strict=True)]

    def _prefixes(self, source: Language, target: Language) -> tuple[list[int], list[int]]:
        """Token ids that go before the source, and those that the target begins with."""
        family = self.family
        if family is BILINGUAL:
            for language, known in ((source, "source_lang"), (target, "target_lang")):
                code = getattr(self._tokenizer, known, None)
                # Codes of groups (mul, roa, bnt) say too little to judge by.
                if _is_language(code) and code not in (language.iso639_1, language.iso639_3, language.flores):
                    raise UserError(
                        f"{self.name} translates from {self._tokenizer.source_lang} to {self._tokenizer.target_lang}, not "
                        f"from {source.name} to {target.name}; pass another --nllb_name_or_path"
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
                    raise UserError(
                        f"the tokenizer of {self.name} numbers {token} {vocabulary[token]}, but the model has only "
                        f"{self._config.vocab_size} embeddings: the tokenizer is not this model's"
                    )
                return vocabulary[token]
        known = sum(1 for token in vocabulary if re.fullmatch(self.family.pattern, token))
        raise UserError(
            f"{self.name} ({self.family.name}) does not know {language.name}: none of {', '.join(wanted)} is among its "
            f"{known} languages; pass another --nllb_name_or_path or, without --use_nllb, let the LLM back-translate"
        )

    def close(self) -> None:
        """Free the model; the object is of no use afterwards."""
        self._engine.close()


def _is_language(code: str | None) -> bool:
    """Whether a code is that of a language in our table."""
    rows = languages.load().values()
    return bool(code) and any(code in (row.iso639_1, row.iso639_3, row.flores) for row in rows)


def find_family(vocabulary: dict[str, int], model_type: str, name: str) -> Family:
    """The family whose language tokens the vocabulary holds.

    Raises UserError when there are none and the model is not of a kind that has two languages and no tokens.
    """
    for family in FAMILIES:
        if any(re.fullmatch(family.pattern, token) for token in vocabulary):
            return family
    if model_type == "marian":
        return BILINGUAL
    raise UserError(
        f"the tokenizer of {name} ({model_type}) names no languages in a way known here "
        f"({', '.join(family.name for family in FAMILIES)}, bilingual Marian); is its tokenizer.json missing?"
    )


# From strong to weak; a piece ends after what matches.
_JOINTS = tuple(map(re.compile, (r"[.!?…।॥۔؟。！？]+[\"'”’»)\]]*\s*", r"[;:؛；：]\s*", r"[,،、，]\s*", r"\s+")))


def split_long(text: str, ids: list[int], tokenize: Callable[[list[str]], list[list[int]]], limit: int) -> list[str]:
    """`text` in pieces of at most `limit` tokens, cut after the strongest mark near its middle."""
    if len(ids) <= limit or len(text) < 2:
        return [text]
    middle, cut = len(text) // 2, None
    for joint in _JOINTS:
        ends = [match.end() for match in joint.finditer(text) if len(text) // 4 < match.end() <= 3 * len(text) // 4]
        if ends:
            cut = min(ends, key=lambda end: abs(end - middle))
            break
    halves = [text[: cut or middle].strip(), text[cut or middle :].strip()]
    return [
        piece
        for half, half_ids in zip(halves, tokenize(halves), strict=True)
        for piece in split_long(half, half_ids, tokenize, limit)
        if piece
    ]
