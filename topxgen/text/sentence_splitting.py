"""Paragraphs into sentences: sentencex's rules plus the terminators of the language's row, or Punkt."""

import re
from collections.abc import Iterable, Iterator

from topxgen.text.languages import Language
from topxgen.text.words import unicode_words

SPLITTERS = ("sentencex", "punkt")
MIN_CHARACTERS = 40  # SPEC section 4


_QUOTES = frozenset('"“”„«»‹›()[]')
_CLOSING = frozenset("\"“”»›)]'’")


class Sentencex:
    """Wikimedia's rule-based splitter, in the language's own rules, borrowed ones or its defaults.

    Three things are added to its rules, each measured in scripts/perf/splitting_quality.py. A terminator of
    the language's own script ends a sentence whatever rules apply: । in Nepali, ۔ in Urdu. Quotation marks
    and brackets are hidden from it, because it does not split inside them, and one unpaired mark then
    glues half a paragraph together. And a sentence does not begin with a lower-case letter, which mends
    ordinals and abbreviations ("17. mendean").
    """

    def __init__(self, language: Language):
        from sentencex import segment

        self._segment = segment
        self._code = language.sentencex or language.iso639_1 or "en"
        own = "".join(re.escape(mark) for mark in language.terminators if not mark.isascii() and mark != "…")
        # A run of terminators and closing quotes belongs to the sentence it ends.
        self._own = re.compile(rf"(?<=[{own}])(?![{own}\"'”’»)\]!?])\s*") if own else None

    def split(self, paragraph: str) -> list[str]:
        """The sentences of `paragraph`, in order, without surrounding whitespace."""
        pieces, start = [], 0
        for end in [*self._boundaries(paragraph), len(paragraph)]:
            pieces.append(paragraph[start:end])
            start = end
        if self._own is not None:
            pieces = [part for piece in pieces for part in self._own.split(piece)]
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
    """The splitter of that name; Punkt reads `paragraphs` once to train."""
    return Punkt(language, paragraphs) if name == "punkt" else Sentencex(language)


def sentence_reject_reasons(sentences: list[str], identifier, language: Language) -> list[str | None]:
    """For each sentence None, or why it does not stand as a source sentence (SPEC section 4)."""
    reasons: list[str | None] = ["too_short" if len(sentence) < MIN_CHARACTERS else None for sentence in sentences]
    for i, sentence in enumerate(sentences):
        if reasons[i] is None and not unicode_words(sentence):
            reasons[i] = "no_words"
    if identifier is not None and identifier.knows(language):
        for i, right in enumerate(identifier.is_language(sentences, language)):
            if reasons[i] is None and not right:
                reasons[i] = "other_language"
    return reasons
