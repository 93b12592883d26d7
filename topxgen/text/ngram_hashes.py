"""Tokens and token n-grams of texts, as strings or, for thousands of texts at once, as 64-bit hashes.

Two tokenizers (TOKENIZERS). "original" is TopXGen's published rule: `\\w+` of the NFD-normalised, mark-stripped,
lower-cased text. "unicode" folds only what differs between two copies of one sentence: case, compatibility forms, marks of
Latin, Greek, Cyrillic, Arabic and Hebrew, apostrophes, joiners, the digits of each script, spellings of one letter
(_VARIANTS). Other marks of Indic scripts are parts of words and are kept; in scripts written without spaces each character
with its marks is a token.

Both fold one character at a time, which makes them fast: one table look-up per code point over an array of texts. Hashes
are polynomials modulo 2**64 over random values of characters (of a token) or tokens (of an n-gram), computed from running
sums (Karp and Rabin 1987, "Efficient randomized pattern-matching algorithms"), so their cost does not depend on n. Equal
hashes can be a collision: compare `tokens` to be certain.
"""

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

CODE_POINTS = 0x110000
SEPARATOR, LETTER, CHARACTER, CHARACTER_MARK, DROPPED, SEVERAL, UNKNOWN = 0, 1, 2, 3, 4, 5, 255
# A character folds to one of the first four kinds, to nothing (DROPPED) or to more than one character (SEVERAL).

# Tokens per English token in the same paragraphs of the UDHR, for scripts written without spaces: n-grams of characters
# must be longer to be as specific.
TOKENS_PER_WORD = dict(Hans=1.5, Hant=1.5, Jpan=2.3, Thai=4.2, Laoo=4.3, Khmr=3.6, Mymr=3.6, Tibt=1.8)

_APOSTROPHES = set("'’‘ʼʻʹʽʾʿ`´′＇ꞌ՚׳")
# Spellings of one letter: Latin letters that Unicode does not decompose, as typed without their hook or stroke (Hausa ɗ),
# Turkish dotless i (its capital folds to i), Arabic and Persian forms (tatweel is dropped), and signs of Devanagari that are
# often left out (nukta, visarga) or exchanged (candrabindu, anusvara).
_VARIANTS = str.maketrans(
    dict(zip("ıɓɗđɖƙłøɔɛƴ", "ibdddklooey", strict=True))
    | dict(zip("يىكهھةۃەٱ", "ییکہہہہہا", strict=True))
    | {"ـ": "", "\u093c": "", "\u0903": "", "\u0901": "\u0902"}
)
_POWER = 0x9E3779B97F4A7C15  # any odd number has an inverse modulo 2**64


class _CharacterFolding(dict):
    """A table for str.translate, filled as characters turn up; separators become spaces."""

    def __init__(self, fold: Callable[[str], str], kind: Callable[[str], int]):
        self._fold, self._kind = fold, kind
        self.unspaced: set[str] = set()  # folded characters that begin or end a token without a separator

    def __missing__(self, code: int) -> str:
        kinds = [(character, self._kind(character)) for character in self._fold(chr(code))]
        self.unspaced.update(c for c, kind in kinds if kind in (CHARACTER, CHARACTER_MARK))
        folded = "".join(" " if kind == SEPARATOR else c for c, kind in kinds)
        self[code] = folded = " " if folded.isspace() else folded  # an ellipsis is one separator, not three
        return folded


class Tokenizer:
    """`fold`: a character to characters, idempotent; `kind`: the kind of a folded character."""

    def __init__(self, name: str, fold: Callable[[str], str], kind: Callable[[str], int]):
        self.name, self._kind = name, kind
        self._folds = _CharacterFolding(fold, kind)
        self._kinds = np.full(CODE_POINTS, UNKNOWN, np.uint8)  # of characters before folding
        self._values = np.zeros(CODE_POINTS, np.uint64)  # untouched pages take no memory

    def __reduce__(self):
        return _named, (self.name,)  # each process fills its own tables

    def tokens(self, text: str) -> list[str]:
        """The tokens of a text, folded."""
        folded = unicodedata.normalize("NFC", text).translate(self._folds)
        if self._folds.unspaced.isdisjoint(folded):
            return folded.split()
        return [token for token, _, _ in self.spans(text)]

    def spans(self, text: str) -> list[tuple[str, int, int]]:
        """The tokens of a text, each with its start and end in the text in normalization form C; characters that fold to
        nothing, such as vowel signs of Arabic, belong to the token before them."""
        tokens: list[tuple[str, int, int]] = []
        before = SEPARATOR
        for place, character in enumerate(unicodedata.normalize("NFC", text)):
            folded = self._folds[ord(character)]
            for part in folded:
                kind = self._kind(part)
                if kind == CHARACTER or (kind == LETTER != before) or (kind == CHARACTER_MARK and before == SEPARATOR):
                    tokens.append((part, place, place + 1))
                elif kind != SEPARATOR:
                    token, start, _ = tokens[-1]
                    tokens[-1] = (token + part, start, place + 1)
                before = kind
            if not folded and before != SEPARATOR:
                tokens[-1] = (*tokens[-1][:2], place + 1)
        return tokens

    def hash_tokens(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(hashes, bounds): the token hashes of all texts; those of text i are hashes[bounds[i] : bounds[i + 1]]."""
        joined = "\n".join(texts) + "\n"
        if not unicodedata.is_normalized("NFC", joined):
            texts = [unicodedata.normalize("NFC", text) for text in texts]
            joined = "\n".join(texts) + "\n"
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.intp)
        kinds = self._kinds[codes]
        if kinds.max(initial=0) == UNKNOWN:
            self._learn(np.unique(codes[kinds == UNKNOWN]))
            kinds = self._kinds[codes]
        if kinds.max(initial=0) == SEVERAL:  # few characters
            for code in np.unique(codes[kinds == SEVERAL]).tolist():
                texts = [text.replace(chr(code), self._folds[code]) for text in texts]
            return self.hash_tokens(texts)
        bounds = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1, out=bounds[1:])
        kept = kinds != DROPPED
        if not kept.all():
            codes, kinds = codes[kept], kinds[kept]
            bounds -= np.searchsorted(np.flatnonzero(~kept), bounds)
        before = np.empty_like(kinds)
        before[:1], before[1:] = SEPARATOR, kinds[:-1]
        starts = np.flatnonzero(
            ((kinds == LETTER) & (before != LETTER))
            | (kinds == CHARACTER)
            | ((kinds == CHARACTER_MARK) & (before == SEPARATOR))
        )
        # A separator's value is 0, so the sum of a token may extend to the start of the next one.
        powers, inverses = _powers(len(codes))
        terms = self._values[codes] * powers
        sums = np.cumsum(terms)
        sums_before = np.append(sums[starts] - terms[starts], sums[-1:])
        return _mixed((sums_before[1:] - sums_before[:-1]) * inverses[starts]), np.searchsorted(starts, bounds)

    def _learn(self, codes: np.ndarray) -> None:
        for code in codes.tolist():
            folded = self._folds[code]
            self._kinds[code] = DROPPED if not folded else SEVERAL if len(folded) > 1 else self._kind(folded)
            if self._kinds[code] in (LETTER, CHARACTER, CHARACTER_MARK):
                self._values[code] = _mixed(np.array([ord(folded) + 1], np.uint64))[0]


def tokens_per_ngram(words: int, script: str, tokenizer: str = "unicode") -> int:
    """The n of n-grams as long as `words` words, for a language written in `script` (ISO 15924)."""
    return round(words * TOKENS_PER_WORD.get(script, 1)) if tokenizer == "unicode" else words


def ngram_hashes(hashes: np.ndarray, n: int) -> np.ndarray:
    """Hashes of the n-grams that start at each token but the last n - 1; they may cross the bounds of texts."""
    if len(hashes) < n:
        return np.empty(0, np.uint64)
    powers, inverses = _powers(len(hashes))
    sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(hashes * powers)))
    return (sums[n:] - sums[:-n]) * inverses[: len(hashes) - n + 1]


def range_hashes(hashes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Hashes of the tokens from each start up to, not including, its end; 0 for an empty range."""
    powers, inverses = _powers(len(hashes) + 1)
    sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(hashes * powers[:-1])))
    return (sums[ends] - sums[starts]) * inverses[starts]


@cache
def _powers_upto(length: int) -> tuple[np.ndarray, np.ndarray]:
    powers = np.full((2, length), 1, np.uint64)
    powers[0, 1:], powers[1, 1:] = _POWER, pow(_POWER, -1, 2**64)
    np.multiply.accumulate(powers, axis=1, out=powers)
    return powers[0], powers[1]


def _powers(length: int) -> tuple[np.ndarray, np.ndarray]:
    size = 1 << max(length - 1, 1).bit_length()
    # The tables of a text of many megabytes are not kept.
    powers, inverses = (_powers_upto if size <= 1 << 20 else _powers_upto.__wrapped__)(size)
    return powers[:length], inverses[:length]


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014): every bit depends on every input bit."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _fold_original(character: str) -> str:
    decomposed = unicodedata.normalize("NFD", character)
    # str.lower() writes another sigma at the end of a word.
    bare = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
    return unicodedata.normalize("NFC", bare.lower().replace("ς", "σ"))


def _kind_original(character: str) -> int:
    return LETTER if character.isalnum() or character == "_" else SEPARATOR


_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_CHARACTER = rf"[[{_UNSPACED}]&&[\p{{L}}\p{{N}}]]"
_CHARACTER_MARK = rf"[[{_UNSPACED}\u3099\u309A]&&\p{{M}}]"
_LETTER = rf"[[\p{{L}}\p{{N}}\p{{M}}]--[{_UNSPACED}\u3099\u309A]]"
_IGNORED = r"[[\p{Script=Inherited}--[\u3099\u309A]][[\p{Arabic}\p{Hebrew}]&&\p{M}]\p{Cf}]"


@cache
def _class(pattern: str):
    import regex

    return regex.compile(pattern, regex.V1)


def _fold_unicode(character: str) -> str:
    if character in _APOSTROPHES:
        return ""
    folded = unicodedata.normalize("NFKD", character).casefold()
    folded = _class(_IGNORED).sub("", folded).translate(_VARIANTS)
    folded = "".join(str(unicodedata.decimal(c, c)) for c in folded if c not in _APOSTROPHES)
    return unicodedata.normalize("NFC", folded)


def _kind_unicode(character: str) -> int:
    for kind, pattern in ((LETTER, _LETTER), (CHARACTER, _CHARACTER), (CHARACTER_MARK, _CHARACTER_MARK)):
        if _class(pattern).match(character):
            return kind
    return SEPARATOR


TOKENIZERS = {
    tokenizer.name: tokenizer
    for tokenizer in (
        Tokenizer("unicode", _fold_unicode, cache(_kind_unicode)),
        Tokenizer("original", _fold_original, _kind_original),
    )
}


def _named(name: str) -> Tokenizer:
    return TOKENIZERS[name]
