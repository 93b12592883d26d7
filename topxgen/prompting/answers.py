"""The translation in a model's answer."""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from topxgen.common.lines import separators_to_spaces, split_lines
from topxgen.text.thoughts import without_thoughts

MIN_REPETITIONS = 8  # of a word bigram, as in the published system
_FENCED = re.compile(r"\A(?:[^\n]*\n)?\s*(```+|~~~+)[^\n`]*\n(.*?)(?:^[ \t]*\1|\Z)", re.MULTILINE | re.DOTALL)
_NOTE = re.compile(r"[*_> ]*(?:[(\[（]|---|\*\*\*|(?:note|literal(?:ly)?|explanation|in english)\b)", re.IGNORECASE)
# What English-speaking models say before a translation: on a line of its own, or before a colon
_COURTESY = r"(?:(?:sure|certainly|of course|absolutely|okay|ok|alright|great)\b(?: thing)?[!.,]+[*_]*(?:\s+|$))"
_HERE_IS = r"(?:here(?:['’]s| is| are)|this is|below is|the)\b[^\n:：]{0,60}\btranslat(?:ion|ed)\b[^\n:：]{0,60}"
_ANNOUNCEMENT = re.compile(rf"{_COURTESY}|{_COURTESY}?{_HERE_IS}\.", re.IGNORECASE)
_PREFACE = re.compile(rf"[*_]*{_COURTESY}?{_HERE_IS}[:：][*_]*\s*(?=\S)", re.IGNORECASE)
_BLOCK_MARK = re.compile(r"(?:>|#{1,6})\s+(?=\S)")
_EMPHASIS = ("**", "__", "`", "*", "_")
_QUOTES = {  # beginning: ends
    '"': '"',
    "“": "”",
    "”": "”",
    "«": "»",
    "»": "«",
    "„": "“”",
    "‹": "›",
    "「": "」",
    "『": "』",
    "‘": "’",
    "'": "'",
}
_QUOTE_MARKS = {*_QUOTES, *"".join(_QUOTES.values())}


def clean_answer(text: str, stop: str | None = None) -> str:
    """The translation in a model's answer: its first line, up to `stop`, without thoughts, a repetition at its end cut off."""
    text = without_thoughts(text)
    if stop:
        text = text.partition(stop)[0]
    return _first_line(split_lines(text))


def chat_answer(text: str, source: str = "", target: str = "") -> str:
    """The translation of `source` in the answer of a chat model, without what such models put around it.

    That is thoughts, a code fence, what only announces the translation (the name of the language `target`), notes below it, bold
    type, and quotation marks that `source` does not have.
    """
    text = without_thoughts(text)
    if fenced := _FENCED.match(text):
        text = fenced[2] if fenced[2].strip() else text
    own = rf"{re.escape(target)}\b(?: translation\b)?|" if target else ""
    names = rf"(?:{own}translation\b) ?(?:\([^()\n]{{1,30}}\))?"
    lines = [line for line in split_lines(text) if line.strip()]
    while len(lines) > 1 and _announces(lines[0], lines[1], source, names):
        del lines[0]
    line = unwrapped(_first_line(lines).removeprefix("```").removesuffix("```"), source)
    if not _BLOCK_MARK.match(source):
        line = re.sub(rf"\A{_BLOCK_MARK.pattern}", "", line)
    if target != "English" and not _PREFACE.match(source):
        line = re.sub(rf"\A{_PREFACE.pattern}", "", line, flags=re.IGNORECASE)
    if source and not re.search("[:：]", source):
        line = re.sub(rf"^[*_]*{names}[*_]*\s*[:：][*_]*\s*(?=\S)", "", line, flags=re.IGNORECASE)
    return unwrapped(line, source)


def _announces(line: str, following: str, source: str, names: str) -> bool:
    """Whether the line before `following` only announces the translation of `source`."""
    if _NOTE.match(following):
        return False
    bare = line.strip(" \t*_#:：")
    if re.fullmatch(names, bare, re.IGNORECASE) or (_ANNOUNCEMENT.fullmatch(bare) and not _ANNOUNCEMENT.match(source)):
        return True
    return _ends_in_colon(line) and (not _ends_in_colon(source) or _ends_in_colon(following))  # a sentence may, too


def is_cut(answer: str, translation: str) -> bool:
    """Whether a translation goes on to the end of an answer: if the answer is cut, the translation is."""
    return bool(translation) and " ".join(answer.split()).endswith(" ".join(translation.split()))


def _first_line(lines: Iterable[str]) -> str:
    return cut_repetition(separators_to_spaces(next((line.strip() for line in lines if line.strip()), "")))


def _ends_in_colon(line: str) -> bool:
    return line.rstrip(' *_"”»').endswith((":", "："))


def unwrapped(line: str, source: str = "") -> str:
    """`line` without emphasis or quotation marks around the whole of it, unless `source` has them, too."""
    for mark in _EMPHASIS:
        inner = line[len(mark) : -len(mark)]
        if line == mark + inner + mark and inner.strip() and mark[0] not in inner and not source.startswith(mark):
            return unwrapped(inner.strip(), source)
    ends, inner = _QUOTES.get(line[:1], ""), line[1:-1].strip()
    quoted = len(line) > 2 and line[-1] in ends and not {line[0], *ends} & set(inner)
    if (
        quoted
        and not {source[:1], source[-1:]} & _QUOTE_MARKS
        and (line[0] not in "'‘" or inner.endswith((".", "!", "?")))
    ):
        return unwrapped(inner, source)
    return line


def cut_repetition(text: str) -> str:
    """`text` up to the first occurrence of the first pair of words that occurs MIN_REPETITIONS times or more."""
    words = text.split()
    pairs = list(pairwise(words))
    counts = Counter(pairs)
    for i, pair in enumerate(pairs):
        if counts[pair] >= MIN_REPETITIONS:
            return " ".join(words[: i + 2])
    return text
