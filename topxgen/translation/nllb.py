"""NLLB and other encoder-decoder MT models, through CTranslate2 or transformers.

How a checkpoint names its languages: see language_tokens.py. Beam search with 5 beams and no sampling, as published.

A translation has at most twice as many tokens as the longest source in its batch, as in the published system. Here a batch
holds sources of similar length, so that this limit, and with it every translation, depends on the sentence alone and not on
what else is in the batch.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path

from topxgen.common import provenance
from topxgen.common.registry import Choice, load_choice
from topxgen.inference.tokenizer import decode, plain_ids
from topxgen.text.languages import Language
from topxgen.text.words import UNSPACED_SCRIPTS, unicode_words
from topxgen.translation import Translation, TranslatorSettings, WithCandidates, by_steps
from topxgen.translation.language_tokens import LanguageTokens

NUM_BEAMS = 5
LENGTH_STEP = 32  # tokens; sources whose lengths round up to the same multiple share a limit
ENGINES: dict[str, Choice] = {
    "ctranslate2": Choice("topxgen.translation.seq2seq_engines:CTranslate2Engine", "fast"),
    "transformers": Choice("topxgen.translation.seq2seq_engines:TransformersEngine", "the slow reference"),
}
COMPUTE_TYPES = ("auto", "int8", "int8_float16", "int8_bfloat16", "float16", "bfloat16", "float32")


class NLLB(WithCandidates):
    """See topxgen.translation for the interface.

    The confidence is exp(mean log-probability) of the tokens as both engines score beams: EOS is one of them, and so is the
    language token, which is given and so has a probability of 1.
    """

    def __init__(self, settings: TranslatorSettings, converted: Path | None = None):
        """`converted`: a folder with the checkpoint as a CTranslate2 model, instead of one in `cache_dir`."""
        from topxgen.translation.seq2seq_engines import read_checkpoint

        self.name, self._engine_name = settings.nllb_name_or_path, settings.nllb_engine
        config, self._tokenizer, self._max_tokens = read_checkpoint(self.name, settings.trust_remote_code)
        self._languages = LanguageTokens(self.name, config, self._tokenizer)
        self.family = self._languages.family
        self.number_of_candidates = settings.number_of_candidates
        self._num_beams = max(NUM_BEAMS, self.number_of_candidates)
        self._engine = load_choice("--nllb_engine", self._engine_name, ENGINES)(
            settings, config, self._tokenizer, *([converted] if converted else [])
        )
        self._is_loaded = False

    def load(self) -> None:
        """Load the weights (and convert them the first time), unless they are."""
        if not self._is_loaded:
            self._engine.load()
            self._is_loaded = True

    @property
    def block_size(self) -> int:
        return self._engine.block_size

    @property
    def version(self) -> str:
        return f"{self.name}, {self.family.name}, {self._engine.version}, {self._num_beams} beams"

    @property
    def settings(self) -> dict:
        return {
            "nllb_name_or_path": self.name,
            **provenance.weights_of(nllb=self.name),
            "nllb_engine": self._engine_name,
            "nllb_compute_type": self._engine.compute_type,
        }

    def check(self, source: Language, target: Language) -> None:
        self._languages.prefixes(source, target)

    def translations(
        self, sentences: list[str], source: Language, target: Language, count: int, on_done: Callable[[int], None]
    ) -> list[list[Translation]]:
        """The best beams of each sentence."""
        before, prefix = self._languages.prefixes(source, target)
        distinct = list(dict.fromkeys(sentence for sentence in sentences if unicode_words(sentence)))
        limit = self._max_tokens - len(before) - 1
        pieces = [
            split_long(text, ids, self._ids, limit) for text, ids in zip(distinct, self._ids(distinct), strict=True)
        ]
        rows = [before + ids + [self._tokenizer.eos_token_id] for parts in pieces for ids in self._ids(parts)]
        outputs = iter(self._decode(rows, prefix, count, by_steps(on_done, len(sentences), len(rows))))
        joint = "" if target.script in UNSPACED_SCRIPTS else " "
        translations = {}
        for text, parts in zip(distinct, pieces, strict=True):
            translations[text] = []
            # Of a sentence in pieces the first candidate has the best beam of each, the second the second best ...
            for answers in zip(*(next(outputs) for _ in parts), strict=True):
                confidence = round(min(math.exp(sum(score for _, score, _ in answers) / len(answers)), 1.0), 4)
                joined, is_cut = joint.join(answer for answer, _, _ in answers), any(cut for _, _, cut in answers)
                translations[text].append(Translation(joined, confidence, len(parts), truncated=is_cut))
        # A sentence without words has no translation.
        return [translations.get(sentence, [Translation("", 0.0)]) for sentence in sentences]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return plain_ids(self._tokenizer, texts, self._languages.ids)

    def _decode(
        self, rows: list[list[int]], prefix: list[int], count: int, on_done: Callable[[int], None]
    ) -> list[list[tuple[str, float, bool]]]:
        """The `count` best (text, mean log-probability, whether it was cut at the limit) for each row, in order."""
        if not rows:
            return []
        buckets: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            buckets.setdefault(-(-len(row) // LENGTH_STEP) * LENGTH_STEP, []).append(i)
        for indices in buckets.values():
            indices.sort(key=lambda i: len(rows[i]), reverse=True)  # the order in which CTranslate2 finishes them
        work = [(min(2 * longest, self._max_tokens), [rows[i] for i in buckets[longest]]) for longest in buckets]
        outputs: list = [None] * len(rows)
        cut: list = [None] * len(rows)
        results = self._engine.translate(work, prefix, self._num_beams, count, on_done)
        for indices, bucket, (limit, _) in zip(buckets.values(), results, work, strict=True):
            for i, output in zip(indices, bucket, strict=True):
                outputs[i] = output
                cut[i] = [
                    len(prefix) + len(ids) >= limit and self._tokenizer.eos_token_id not in ids for ids, _ in output
                ]
        texts = iter(decode(self._tokenizer, [ids for output in outputs for ids, _ in output]))
        return [
            [(next(texts).strip(), score, is_cut) for (_, score), is_cut in zip(output, marks, strict=True)]
            for output, marks in zip(outputs, cut, strict=True)
        ]

    def close(self) -> None:
        """Free the model; the object cannot be used afterwards."""
        self._engine.close()
        self._is_loaded = False


# From strong to weak; a piece ends after the match.
_BOUNDARIES = tuple(
    map(re.compile, (r"[.!?…।॥۔؟。！？။។።།։᱾᱿]+[\"'”’»)\]]*\s*", r"[;:؛；：]\s*", r"[,،、，၊፣]\s*", r"\s+"))
)


def split_long(text: str, ids: list[int], tokenize: Callable[[list[str]], list[list[int]]], limit: int) -> list[str]:
    """`text` in pieces of at most `limit` tokens, cut after the strongest boundary near its middle, recursively."""
    if len(ids) <= limit or len(text) < 2:
        return [text]
    middle, cut = len(text) // 2, None
    for boundary in _BOUNDARIES:
        ends = [match.end() for match in boundary.finditer(text) if len(text) // 4 < match.end() <= 3 * len(text) // 4]
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
