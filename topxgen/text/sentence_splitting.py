"""Splits paragraphs into sentences, by sentencex's rules and the language's terminators or by Punkt; filters sentences."""

import re
from collections.abc import Iterable, Iterator

from topxgen.common.registry import Choice, load_choice
from topxgen.text.languages import Language
from topxgen.text.words import unicode_words

# Classes built of (language, paragraphs), with split(paragraph) -> sentences.
SPLITTERS: dict[str, Choice] = {
    "sentencex": Choice("topxgen.text.sentence_splitting:Sentencex", "Wikimedia's rules for each language"),
    "punkt": Choice("topxgen.text.sentence_splitting:Punkt", "NLTK's Punkt, trained on the paragraphs themselves"),
}
MIN_CHARACTERS = 40  # of a sentence, as in the published system (docs/generation.md)
_QUOTES = frozenset('"“”„«»‹›()[]')
_CLOSING = frozenset("\"“”»›)]'’")


class Sentencex:
    """Wikimedia's rule-based splitter, with the rules of the language, of a relative, or its defaults.

    Three rules are added, each measured in scripts/perf/splitting_quality.py. A terminator of the language's own script
    ends a sentence whatever rules apply: । in Nepali, ۔ in Urdu. Quotation marks and brackets are hidden from sentencex,
    which does not split inside them: one unpaired mark would join half a paragraph. And a sentence does not begin with a
    lower-case letter, which keeps ordinals and abbreviations together ("17. mendean").
    """

    def __init__(self, language: Language, paragraphs: Iterable[str] = ()):
        from sentencex import segment

        self._segment = segment
        self._code = language.sentencex or language.iso639_1 or "en"
        marks = "".join(re.escape(mark) for mark in language.terminators if not mark.isascii() and mark != "…")
        # A run of terminators and closing quotes belongs to the sentence it ends.
        self._after_mark = re.compile(rf"(?<=[{marks}])(?![{marks}\"'”’»)\]!?])\s*") if marks else None

    def split(self, paragraph: str) -> list[str]:
        """The sentences of `paragraph`, in order, without surrounding whitespace."""
        pieces, start = [], 0
        for end in [*self._boundaries(paragraph), len(paragraph)]:
            pieces.append(paragraph[start:end])
            start = end
        if self._after_mark is not None:
            pieces = [part for piece in pieces for part in self._after_mark.split(piece)]
        return [stripped for piece in pieces if (stripped := piece.strip())]

    def _boundaries(self, paragraph: str) -> Iterator[int]:
        """Offsets at which a sentence ends and another begins."""
        visible = [i for i, char in enumerate(paragraph) if char not in _QUOTES]
        plain = "".join(paragraph[i] for i in visible)
        offset = 0
        for piece in self._segment(self._code, plain):
            last = offset + len(piece.rstrip()) - 1
            offset += len(piece)
            if last < 0 or offset >= len(plain):
                continue
            end = visible[last] + 1
            while end < len(paragraph) and paragraph[end] in _CLOSING and not paragraph[end + 1 : end + 2].isalnum():
                end += 1
            following = next((char for char in paragraph[end:] if char.isalnum()), "")
            if not following.islower():
                yield end


class Punkt:
    """NLTK's unsupervised splitter (Kiss and Strunk 2006), trained on the paragraphs themselves."""

    def __init__(self, language: Language, paragraphs: Iterable[str]):
        from nltk.tokenize.punkt import PunktLanguageVars, PunktSentenceTokenizer, PunktTrainer

        class Variables(PunktLanguageVars):
            sent_end_chars = tuple(mark for mark in language.terminators if mark != "…")

        variables = Variables()
        trainer = PunktTrainer(lang_vars=variables)
        for paragraph in paragraphs:
            trainer.train(paragraph, finalize=False)
        trainer.finalize_training()
        self._tokenizer = PunktSentenceTokenizer(trainer.get_params(), lang_vars=variables)

    def split(self, paragraph: str) -> list[str]:
        return [stripped for piece in self._tokenizer.tokenize(paragraph) if (stripped := piece.strip())]


def load(name: str, language: Language, paragraphs: Iterable[str]):
    """The splitter of that name; Punkt iterates over `paragraphs` once."""
    return load_choice("--splitter", name, SPLITTERS)(language, paragraphs)


def sentence_reject_reasons(sentences: list[str], identifier, language: Language) -> list[str | None]:
    """For each sentence None if it is kept, or too_short, no_words or other_language."""
    reasons: list[str | None] = ["too_short" if len(sentence) < MIN_CHARACTERS else None for sentence in sentences]
    for i, sentence in enumerate(sentences):
        if reasons[i] is None and not unicode_words(sentence):
            reasons[i] = "no_words"
    if identifier is not None and identifier.knows(language):
        for i, is_right in enumerate(identifier.is_language(sentences, language)):
            if reasons[i] is None and not is_right:
                reasons[i] = "other_language"
    return reasons
