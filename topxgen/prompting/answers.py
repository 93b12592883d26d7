"""Extract the translation from a model's response."""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise

from topxgen.common.lines import separators_to_spaces, split_lines
from topxgen.prompting.announcements import (
    announces,
    behind_label,
    behind_preface,
    excuses,
    is_in_another_script,
    is_label,
    is_talk,
    thinks,
)
from topxgen.text.thoughts import without_thoughts
from topxgen.text.words import unicode_words

MIN_REPETITIONS = 8  # of a word bigram, as in the published system, which also cuts long texts at "de la"
_FENCED = re.compile(r"^[ \t]*(```+|~~~+)[^\n`]*\n(.*?)(?:^[ \t]*\1|\Z)", re.MULTILINE | re.DOTALL)
_FENCED_THOUGHTS = re.compile(
    r"\A\s*```(?:think|thinking|thoughts?|reasoning)[ \t]*\n.*?^```[ \t]*$", re.M | re.S | re.I
)
_NOTE = re.compile(r"[*_> ]*(?:[(\[（]|---|\*\*\*|(?:note|literal(?:ly)?|explanation|in english)\b)", re.IGNORECASE)
_NOTE_BEHIND = re.compile(
    r"(?<!\s)\s*(?:[—–-]\s*)?[(\[](?:lit\.|(?:note|literal(?:ly)?|in english)\b)[^()\[\]]*[)\]]\Z", re.IGNORECASE
)
_BLOCK_MARK, _BULLET = re.compile(r"(?:(?:>|#{1,6}|[-*•–—])\s+|—)(?=\S)"), re.compile(r"\s*[-*•]\s")
# Marks of chat templates that a server decodes as text: of a turn's beginning, and of its end.
_TOKEN = r"<[|｜][^|｜<>\n]{1,40}[|｜]>"  # <|im_end|>, <｜end▁of▁sentence｜>
_TURN_BEGINS = re.compile(
    rf"\A\s*(?:<(?:s|bos|pad)>\s*)*(?:(?:(?!<[|｜](?:user|human|system|im_end|end(?:[_▁]?of[_▁]?\w+)?[|｜]|eo|return)){_TOKEN}\s*(?:assistant\b\s*)?)+|<start_of_turn>\s*model"
    r"|\[/INST\]|<(?:s|bos|pad)>|<role>assistant</role>|(?-i:assistant)[ \t]*\n)\s*",
    re.IGNORECASE,
)
_TURN_ENDS = re.compile(
    rf"{_TOKEN}|<(?:end|start)_of_turn>|</s>|<eos>|<eoa>|<_end>|<turn\|>|<reserved_\d+>|\[unused10\]|\[\|endofturn\|\]|\[e~\[|<role>|\[/?INST\]|^### Instruction:",
    re.MULTILINE,
)
# "Thinking: ... Answer: ..." and the same as headings, "Step 1: Analysis", "Thinking..."
_STEP = r"[ \t*_#>]*(?:(?:step )?\d+[.:)] ?[*_]*)?"
_THOUGHT_LABEL = re.compile(
    rf"\A\s*[(\[]?{_STEP}(?:(?:think|thinking|thoughts?|reasoning|analysis|rationale)(?: process| for (?:a|\d)[\w ]{{1,20}})?|step[- ]by[- ]step[\w ]{{0,20}}|step 1\b[^\n]*)(?:\.\.\.|…)?[ \t*_]*([:：]|\n)",
    re.IGNORECASE,
)
_TOOL_CALL = re.compile(r"\s*(?:<tool_call>|\[TOOL_CALLS?\]|<\|python_tag\|>|<function)")
_TAGGED = re.compile(r"\A\s*<([\w-]+)(?:\s[^<>\n]*)?>(.*)</\1>\s*\Z", re.DOTALL)  # all of an answer
_TAGGED_PART, _END_TAG = re.compile(r"<([\w-]+)>(.*?)</\1>", re.DOTALL), re.compile(r"</([\w-]+)>\s*\Z")
# What is left of an answer in an unknown layout: a tag that stays open, or another text in one before the translation.
_TAG = re.compile(r"<([\w-]{3,})(?:\s[^<>\n]*)?>(?!.*</\1>)|<((?!strong|span|mark|code)[\w-]{4,})>.*</\2>")
_SEPARATOR = re.compile(r"\s*(?:[-*_=~]{3,}|\"{3}|'{3})\s*")
_ARROW = re.compile(r"\s*(?:→|⇒|[-=]+>|=)\s*(?=\S)")
_BEHIND_ECHO = re.compile(r"\s*(?:→|⇒|[-=]+>|=|\s[-–—|]\s|\|\||\t)\s*(?=\S)")
_INVISIBLE = "\u200b\u2060\ufeff"
_JSON = re.compile(r"""[\[\s]*\{\s*["'][^"'\n]*["']\s*:|\[\s*"[^\[\]]*"\s*\](?=\s*(?:\n|\Z))""")
# Keys of an answer in JSON.
_NO_TRANSLATION = (
    "error message refusal reason reasoning thought thoughts analysis source "
    "input original language english note notes explanation comment comments"
)
_NOT_TRANSLATIONS = frozenset(_NO_TRANSLATION.split())
_BOX, _BOXED_TEXT = re.compile(r"\\boxed\s*\{"), re.compile(r"\\(?:text|textbf|mathrm|mbox)\s*\{(.*)\}\Z", re.DOTALL)
_FIRST_ITEM, _SECOND_ITEM = re.compile(r"\(?(?:1[.)]|a\))\s+(?=\S)"), re.compile(r"[*_\s]*\(?(?:2[.)]|b\))\s")
_EMPHASIS = ('\\"', "''", "***", "**", "__", "``", "`", "*", "_")
_FENCE_MARKS = ("```", '"""', "'''")
_BRACKETS = {"[": "]", "(": ")", "{": "}", "【": "】", "<": ">"}
_PUNCTUATION = ' .!?…。！？।۔"“”'
_QUOTES = {  # beginning: ends
    '"': '"”',
    "“": '”"',
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
_MARK = re.compile(r"(?P<opens>[„«「『]|(?<![^\s(])[\"“”])|[\"“”»」』]")


def clean_answer(text: str, stop: str | None = None) -> str:
    """The translation in a model's answer: its first line, up to `stop`, without thoughts, a repetition at its end cut off."""
    text = without_thoughts(text)
    if stop:
        text = text.partition(stop)[0]
    return _first_line(split_lines(text))


def chat_answer(text: str, source: str = "", target: str = "") -> str:
    """The translation of `source` in the answer of a chat model, without what such models put around it.

    That is thoughts, a code fence, what only announces the translation (the name of the language `target`), notes below it, bold
    type, and what `source` does not have: quotation marks, brackets, a JSON object, \\boxed{}, the number of a list's only item.
    "" for an object, boxes or a list in which it is not clear what the translation is, and for thoughts or excuses alone.
    """
    text = _behind_thoughts(content(text, source, target), source, target)
    line = _first_line(_lines_of_translation(text, source, target))
    for fence in _FENCE_MARKS:
        line = line.removeprefix(fence).removesuffix(fence).strip()
    line = unwrapped(line, source, brackets=bool(source))
    echo = len(source) if line.startswith(source) else 0
    if (
        source
        and (arrow := (_BEHIND_ECHO if echo else _ARROW).match(line, echo))
        and (echo or not _ARROW.match(source))
    ):
        line = line[arrow.end() :]
    if not _BLOCK_MARK.match(source):
        is_dialogue = line[:1] in ("–", "—") and source[:1] in _QUOTE_MARKS  # —¿Vienes? —preguntó.
        line = line if is_dialogue else _behind(_BLOCK_MARK, line)
    if source:
        line = behind_preface(line, source, target)
        line = behind_label(line, source, target) or line
    line = _without_note(line, source, target)
    if line.endswith("#") and "#" not in source:
        line = re.sub(r"\s+#+\Z", "", line)  # of a heading; not C#
    line = unwrapped(line, source, brackets=bool(source))
    unread = ("<" not in source and _TAG.match(line)) or ("|" not in source and line.startswith("|"))
    return "" if unread else line


def _without_note(line: str, source: str, target: str) -> str:
    """`line` without a note in parentheses at its end, which may repeat the source or name the language."""
    if not line.endswith((")", "]")) or _NOTE_BEHIND.search(source):
        return line
    line = _NOTE_BEHIND.sub("", line)
    found = re.search(r"\s*[(\[]([^()\[\]]+)[)\]]\Z", line) if source and source[-1:] not in ")]" else None
    if found and found.start() and (source.strip(_PUNCTUATION) in found[1] or announces(found[1], source, target)):
        return line[: found.start()]
    return line


def _behind_thoughts(text: str, source: str, target: str) -> str:
    """What follows the last "Answer:" of a text that begins with "Thinking:"; "" if there is none, and `text` without thoughts."""
    label = _THOUGHT_LABEL.match(text)
    if not label or _THOUGHT_LABEL.match(f"{source}\n"):
        return text
    if label[1] != "\n" and re.match(r"[^:：]{1,30}[:：]", source):
        return text
    if (answer := behind_last_label(split_lines(text), "", target)) is not None:
        return answer
    if label[1] != "\n":
        return "" if target != "English" else text
    if len(unicode_words(source)) <= 3:
        return text
    rest = text[label.end() :].strip()  # Gemma 4 writes "thought" before answers without thoughts, too
    return rest if re.match(r"thought(?: for .*)?\n", label[0], re.I) and "\n" not in rest else ""


def behind_last_label(lines: list[str], source: str, target: str) -> str | None:
    """What follows the last "Translation:" or "Solution"; None if nothing does, as at the end of a repeated prompt, without one, or if
    `source` may have it."""
    for number in reversed(range(len(lines))):
        line = re.sub(rf"(?i)\A{_STEP}", "", lines[number])
        rest = behind_label(line, source, target)
        if rest is not None and not is_label(rest, target):  # "Target language: Basque" is a fact
            return "\n".join([rest, *lines[number + 1 :]]).strip() or None
    return None


def content(text: str, source: str = "", target: str = "") -> str:
    """What holds the translation: an answer without thoughts, marks of a chat template, a tag, box or fence around it; "" if it
    calls a tool."""
    text = without_thoughts(text)
    if not (_TURN_BEGINS.match(source) or _ends_turn(source)):
        text = _behind(_TURN_BEGINS, text)
        if end := _ends_turn(text):
            text = text[: end.start()]
    if _TOOL_CALL.match(text):
        return ""
    if "<" not in source:
        if tagged := _TAGGED.match(text):
            text = tagged[2]
        labelled = [tagged for tagged in _TAGGED_PART.finditer(text) if is_label(tagged[1].replace("_", " "), target)]
        text = labelled[-1][2] if labelled else text
        if (ends := _END_TAG.search(text)) and is_label(ends[1].replace("_", " "), target):
            text = text[: ends.start()]
    if not _BOX.search(source) and _BOX.search(text):
        text = _boxed(text)
    text = _behind(_FENCED_THOUGHTS, text)
    fenced = _FENCED.search(text) if "```" in text or "~~~" in text else None
    if not fenced or not fenced[2].strip():
        return text
    before = filter(str.strip, split_lines(text[: fenced.start()]))
    is_of_answer = all(_announces(line, "", source, target) or is_talk(line, source, target) for line in before)
    return fenced[2] if is_of_answer else text


def _ends_turn(text: str) -> re.Match | None:
    # Looked for only where its first character is: the search tries each alternative at each character.
    return _TURN_ENDS.search(text) if any(first in text for first in "<[#") else None


def _lines_of_translation(text: str, source: str, target: str) -> list[str]:
    """The lines of `text` from the translation on, taken out of a JSON object or a list of one; [] for a list of several."""
    lines = [line for line in split_lines(text) if line.strip()]
    if not _SEPARATOR.fullmatch(source):
        lines = [line for line in lines if not _SEPARATOR.fullmatch(line)] or lines
    while len(lines) > 1 and (_echoes(lines[0], lines[1], source) or _announces(lines[0], lines[1], source, target)):
        del lines[0]
    lines = _without_talk(lines, source, target)
    whole = "\n".join(lines).lstrip()
    if (
        ("{" in whole or "[" in whole)
        and (json := _JSON.search(whole))
        and not whole[: json.start()].strip("`json \n")
        and not source.startswith(json[0][0])
    ):
        lines = split_lines(_of_json(whole[json.start() :], source, target))
    first = unwrapped(lines[0].strip()) if lines else ""
    if not re.match(r"\W*\d", source) and _FIRST_ITEM.match(first):
        if any(map(_SECOND_ITEM.match, lines[1:])):
            return []
        lines[0] = _without_number(first, source, target)
    are_bullets = len(lines) > 1 and all(map(_BULLET.match, lines))
    return [] if are_bullets and not _BLOCK_MARK.match(source) else lines


def _without_talk(lines: list[str], source: str, target: str) -> list[str]:
    """`lines` that begin with English thoughts: what follows the last label, or the only line that is neither English nor a note."""
    if not lines or not source:
        return lines
    is_foreign = [is_in_another_script(line, source, target) for line in lines]
    if is_foreign[0] and not all(is_foreign):
        lines = lines[is_foreign.index(False) :]
    talks = is_talk(lines[0], source, target)
    if (talks or thinks(lines[0])) and (answer := behind_last_label(lines[1:], "", target)) is not None:
        return [line for line in split_lines(answer) if line.strip()]
    if not talks:
        return lines
    is_clear = target != "English"  # which of the lines are English talk
    if len(lines) == 1:
        rest = behind_preface(lines[0], source, target)
        is_all = is_clear and excuses(lines[0]) and (rest == lines[0] or is_talk(rest, source, target))
        return [] if is_all else lines
    if _NOTE.match(lines[1]):
        return lines
    others = [line for line in lines[1:] if not (is_talk(line, source, target) or _NOTE.match(line))]
    if is_clear and len(others) == 1:
        return others
    return [] if excuses(lines[0]) else lines


def _behind(beginning: re.Pattern, line: str) -> str:
    found = beginning.match(line)
    return line[found.end() :] if found else line


def _announces(line: str, following: str, source: str, target: str) -> bool:
    """Whether the line before `following` only announces the translation of `source`."""
    if _NOTE.match(following) and not (_NOTE.match(source) or _ends_in_colon(line)):
        return False
    if announces(line, source, target):  # followed by an explanation, it is a translation that speaks of one
        return target == "English" or not is_talk(following, source, target) or announces(following, source, target)
    is_of_source = _ends_in_colon(source) and not _ends_in_colon(following)  # a sentence may, too
    return _ends_in_colon(line) and not is_of_source and not _NOTE.match(following)


def _echoes(line: str, following: str, source: str) -> bool:
    """Whether the line before `following` is `source` behind a label, or a whole `source`: names are translated by themselves."""
    bare, bare_source = (text.strip(' \t*_>-•"“”«»') for text in (line, source))
    if not bare_source or not bare.endswith(bare_source) or _NOTE.match(following):
        return False
    label = bare.removesuffix(bare_source)
    return bool(re.fullmatch(r"[\w ()]{1,30}[:：][*_]*[\s\"“«]*", label)) if label else len(unicode_words(source)) > 3


def _of_json(text: str, source: str, target: str) -> str:
    """The translation in the JSON with which `text` begins: its only text that is none of the source or a note, or that of the key
    "translation"."""
    try:
        found, _ = json.JSONDecoder(strict=False).raw_decode(text)
    except (ValueError, RecursionError):  # cut short, or a dictionary of Python's
        try:
            found = ast.literal_eval(text[: text.rfind("}") + 1] or f"{text}}}")
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return ""
    texts = list(_texts_of(found))
    named = [text for key, text in texts if behind_label(key.replace("_", " "), "", target) == ""]
    others = [text for key, text in texts if key.casefold() not in _NOT_TRANSLATIONS and text.strip() != source]
    values = named or others
    return values[0] if len(values) == 1 and values[0] else ""


def _texts_of(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """The strings in JSON, each with its key; "" for other values that a key of translations has."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts_of(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts_of(inner, key)
    elif isinstance(value, str):
        yield key, value


def _boxed(text: str) -> str:
    """What stands in \\boxed{}; "" if boxes differ or the last one has no end."""
    found = set()
    for box in _BOX.finditer(text):
        depth, end = 1, box.end()
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        inner = text[box.end() : end - 1].strip()
        found.add(_BOXED_TEXT.sub(r"\1", inner) if not depth else "")
    return found.pop() if len(found) == 1 else ""


def _without_number(line: str, source: str, target: str) -> str:
    """`line` without "1." at its beginning, unless that may be an ordinal ("1. Liga") or a number of `source`."""
    number = _FIRST_ITEM.match(line)
    is_ordinal = "." in number[0] and target != "English" and re.search(r"1|\bfirst\b|\bone\b", source, re.IGNORECASE)
    follows_small = "." in number[0] and line[number.end() :][:1].islower()
    return line if is_ordinal or follows_small else line[number.end() :]


def is_cut(answer: str, translation: str) -> bool:
    """Whether a translation goes on to the end of an answer: if the answer is cut, the translation is."""
    return bool(translation) and " ".join(answer.split()).endswith(" ".join(translation.split()))


def _first_line(lines: Iterable[str]) -> str:
    line = next((line for line in lines if line.strip()), "")
    return cut_repetition(separators_to_spaces(line.strip().strip(_INVISIBLE).strip()))


def _ends_in_colon(line: str) -> bool:
    return line.rstrip(' *_"”»').endswith((":", "："))


def unwrapped(line: str, source: str = "", brackets: bool = False) -> str:
    """`line` without emphasis, quotation marks or `brackets` around the whole of it, unless `source` has them, too."""
    for mark in _EMPHASIS if line.startswith(_EMPHASIS) else ():
        inner = line[len(mark) : -len(mark)]
        if line == mark + inner + mark and inner.strip() and mark[0] not in inner and not source.startswith(mark):
            return unwrapped(inner.strip(), source, brackets)
    ends, inner = _QUOTES.get(line[:1], ""), line[1:-1].strip()
    quoted = len(line) > 2 and line[-1] in ends and (line[0] not in "'‘" or inner.endswith(tuple(".!?।۔።。")))
    if quoted and _is_quoted_alone(line[0] + ends, inner, source):
        return unwrapped(inner, source, brackets)
    closing = _BRACKETS.get(line[:1]) if brackets else None
    if closing and len(line) > 2 and line[-1] == closing and not {line[0], closing} & {*inner, *source}:
        return unwrapped(inner, source, brackets)
    return line


def _is_quoted_alone(marks: str, inner: str, source: str) -> bool:
    """Whether the quotation marks around `inner` belong together, and `source` lacks them: not "No," he said. "Never." """
    edges = sum(edge in _QUOTE_MARKS for edge in (source[:1], source[-1:]))
    if not {*marks} & {*inner}:
        return not edges
    depths = list(accumulate(1 if mark["opens"] else -1 for mark in _MARK.finditer(inner)))
    return edges < 2 and bool(depths) and min(depths) == depths[-1] == 0


def cut_repetition(text: str) -> str:
    """`text` up to the first pair of words that occurs MIN_REPETITIONS times or more from there on, where half of all pairs are
    repetitions."""
    words = text.split()
    if len(words) - len(set(words)) + 1 < MIN_REPETITIONS:  # no word is there as often
        return text
    pairs = list(pairwise(words))
    following: Counter[tuple[str, str]] = Counter()
    end = 0
    for i in reversed(range(len(pairs))):
        following[pairs[i]] += 1
        if following[pairs[i]] >= MIN_REPETITIONS and 2 * len(following) <= len(pairs) - i:
            end = i + 2
    return " ".join(words[:end]) if end else text
