"""Responses of a model into texts: a template names the format as its `answer`."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import count, takewhile, zip_longest
from string import ascii_lowercase, ascii_uppercase

from topxgen.common.lines import split_lines, unix_lines
from topxgen.generation.closing_remarks import is_closing_remark
from topxgen.prompting.answers import unwrapped
from topxgen.text.thoughts import without_thoughts
from topxgen.text.words import unicode_words

# "1. ", "2) ", "**3.** ", "(4) ", "1、": a number that opens a line; \d takes the digits of every script.
_NUMBER = r"[ \t]*[*#_>•-]{0,3}[ \t]*\(?(\d{1,3})(?:\\?[.)]+[*_]{0,3}(?=\s|$)|[、．])"
_MARKER = re.compile(rf"^{_NUMBER}", re.MULTILINE)
# The same in mid-line: the first after a colon, the next after the end of a sentence, each before a capital letter.
_BETWEEN = r"(?:^|(?<=[:：.!?…。！？।۔։။።\"”»’)*]))(?:^|(?<=\S)\s+|(?=\d+[、．]))"
_INLINE = re.compile(_BETWEEN + _NUMBER, re.MULTILINE)
# "Text 1:", "**Testua 2**", "### Text 3", "[text 4]", "<text 5>"
_LABELLED = re.compile(
    r"^[ \t]*[*#_>\[<]{0,6}[ \t]*[^\s\d.,:;!?()\[\]<>#*_]{1,15}\.?[ \t](\d{1,3})[\]>]?[*_]{0,3}[ \t]*(?:[:：.)][*_]{0,3}|[-–—][ \t](?!\d)|$)",
    re.M,
)
# "1: ", "1.- ", "1 – ", "1º ", "1.Text", "[1] ", "१। ", "۱۔ ", "1️⃣ ": looked for where a response has no list as above
_ANY_NUMBER = (
    r"[ \t]*[*#_>]{0,3}[ \t]*[(（\[]?(?:[№#](?=\d+[ \t])|[#№]?)(\d{1,3})(?:(?<=[#№]\d)(?=[ \t])|[ \t]?[.:：)）\]।۔։።。/ºª°]{1,3}[-–—]?|[ \t]?[-–—](?=[ \t])|\ufe0f?\u20e3)"
    r"[*_]{0,3}(?=\s|$|[^\W\d_]|[\"“«*_])"
)
_ANY_MARKER = re.compile(rf"^{_ANY_NUMBER}", re.MULTILINE)
_ANY_INLINE = re.compile(_BETWEEN + r"(?!\[)" + _ANY_NUMBER, re.MULTILINE)  # [2] may be a footnote
# "[insert text 1 here]" as a line of its own
_FILLED_IN = re.compile(
    r"^[ \t]*[*_]{0,3}[\[<{][^\[\]<>{}\n\d]{1,30}(\d{1,3})[^\[\]<>{}\n\d]{0,30}[\]>}][*_]{0,3}[:：]?", re.MULTILINE
)
# "a) ", "ii. ", "**B.** ", "(IV) "
_LETTER = re.compile(r"^[ \t]*[*#_>]{0,3}[ \t]*\(?([a-z]|[ivx]{2,4}|[A-Z]|[IVX]{2,4})[.)]{1,2}[*_]{0,3}(?=\s)", re.M)
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")
_LABELS = (ascii_lowercase, ascii_uppercase, _ROMAN, [number.upper() for number in _ROMAN])
_ORDINALS = ("first", "one", "second", "two", "third", "three", "fourth", "four", "fifth", "five")
_ORDINAL = re.compile(
    rf"^([ \t*#_>]*)(?:({'|'.join(_ORDINALS[::2])})[ \t](?:text|passage|paragraph)|(?:text|passage|paragraph)[ \t]({'|'.join(_ORDINALS[1::2])}))\b",
    re.M | re.I,
)
_SEPARATOR = re.compile(r"[ \t]*#{2,}[ \t]*")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_LETTERS = re.compile(r"[\s*_\"“«]*([^\W\d_]{1,2})")

_FENCE = re.compile(r"[ \t]*(?:```+|~~~+)\w*[ \t]*")
_RULE = re.compile(r"[ \t]*(?:(?:[-*_=–—][ \t]*){3,}|⸻)")
_HEADING = re.compile(r"[ \t]*(?:#{1,6}[ \t].*|(\*\*|__)(?:(?!\1).)*[^.!?…。！？।۔։។။።*_](\1)[:：]?[ \t]*)")
# "Text" in languages of the world
_TEXT_WORDS = (
    "testua?|textos?|textes?|testo|tekst[aåui]?|tekstas|teksts|szöveg|metin|matn|текст|κείμενο|rubutu|matani|edemede|ederede|umwandiko|qoraal|"
    "téks|teks|nakala|matini|andiko|umbhalo|văn bản|متن|نص|پاٹھ|تحریر|טקסט|पाठ|লেখা|ਪਾਠ|લખાણ|உரை|వచనం|ಪಠ್ಯ|പാഠം|පෙළ|文本|テキスト|텍스트|"
    "ጽሑፍ|ტექსტი|տեքստ"
)
# [text 1], <text>, (Text 1), [Testua], Text 1: at the beginning; [/text 1], </text> at the end
_PLACEHOLDER = re.compile(
    r"\A[*_]*(?:[\[<({]\s*(?:text\d{0,3}|[^\W\d_]{1,15}\s+\d{1,3}|"
    rf"{_TEXT_WORDS})\s*[\])>}}][*_]*[:：]?|text\s+\d{{1,3}}\s*[*_]*[:：])[*_]*\s*",
    re.I,
)
_PLACEHOLDER_END = re.compile(
    rf"\s*(?:[\[<]\s*/\s*(?:text\d{{0,3}}|[^\W\d_]{{1,15}}\s+\d{{1,3}}|{_TEXT_WORDS})\s*[\]>]|\[\s*(?:the )?end\b[^\[\]]{{0,30}}\])\Z",
    re.I,
)
# [insert text 1 here], <your second paragraph>, anywhere
_TO_BE_FILLED = re.compile(
    r"\s*[\[<{]\s*(?:insert|write|place|put|add|enter|your|the|first|second|third)\b[^\[\]<>{}\n]{0,40}\b(?:texts?|paragraphs?|passage|content|here)\b"
    r"[^\[\]<>{}\n]{0,40}[\]>}][:：]?",
    re.I,
)
# With what all texts of a response begin if they were filled in behind a label: "[1. testua]", "Testua:"
_LABEL = re.compile(
    r"\A[*_]*(?:[\[<({]([^\[\]<>(){}\n!?]{0,40}[^\W\d_][^\[\]<>(){}\n!?]{0,40})[\])>}][*_]*[:：]?|([^\s\d.,:;!?()\[\]<>*_]{2,15})[*_]*(?:[:：]|\s[-–—](?=\s)))[*_]*\s*(?=\S)"
)
_BOLD = re.compile(r"(\*{2,3})(?=[^\s*])([^*]+)(?<=\S)\1")
_EMPHASIS = re.compile(r"(?<![\w*])(\*|__?)(?=[^\s*_])([^*_]+)(?<=\S)\1(?![\w*])")
# What a note begins with, in the languages of the world; a colon follows.
_NOTE_WORDS = (
    "notes?|nb|n\\.b\\.|p\\.?s\\.?|disclaimer|explanation|(?:english |literal )?translations?|glossary|word count|sources|vocabulary|key ?words|total words|(?:human|user)(?=[:：])|"
    "nota|notas|ohar(?:rak?)?|lura|rịba ama|icyitonderwa|ikitonderwa|fiiro gaar ah|ogow|catatan|catetan|cathetan|dokezo|kumbuka|angalizo|tanbihi|"
    "qaphela|phawula|akiyesi|anmerkung|hinweis|remarque|noot|opmerking|not|notă|notering|bemærk|merknad|obs|huomautus|huom|"
    "märkus|piezīme|pastaba|uwaga|poznámka|opomba|napomena|megjegyzés|shënim|athugasemd|nóta|nodyn|lưu ý|ghi chú|paunawa|tala|"
    "fanamarihana|примечание|примітка|забележка|белешка|напомена|заўвага|ескерту|эскертүү|σημείωση|ملاحظة|توجه|یادداشت|نکته|نوٹ|"
    "یادونه|הערה|नोट|टिप्पणी|टीप|নোট|দ্রষ্টব্য|ਨੋਟ|નોંધ|குறிப்பு|గమనిక|ಸೂಚನೆ|കുറിപ്പ്|සටහන|หมายเหตุ|ໝາຍເຫດ|မှတ်ချက်|ចំណាំ|შენიშვნა|"
    "ծանոթություն|ማስታወሻ|注|注意|备注|註|備註|注記|참고"
)
_NOTE = re.compile(rf"[\s>*_(\[（]*(?:{_NOTE_WORDS})(?![^\W\d_])[^:：\n]{{0,30}}[*_]*\s*[:：]", re.I)
_NOTE_AT_END = re.compile(
    rf"\s*[*_]*[(\[（]\s*(?:(?:{_NOTE_WORDS})(?![^\W\d_])[^:：()\n]{{0,30}}[:：][^()\n]*|[^()\n]{{0,15}}\d+ words)[)\]）]"
    r"[*_]*\s*\Z",
    re.I,
)
_PARENTHESIS = re.compile(r"[\s*_]*[(\[（].*[)\]）][\s*_]*")
_SYMBOL_RANGE = r"[\u2190-\u21ff\u2300-\u27bf\u2b00-\u2bff\U0001f300-\U0001faff]"
_SYMBOL = re.compile(rf"[\s*_]*{_SYMBOL_RANGE}")  # ✅
_SYMBOLS = rf"(?:{_SYMBOL_RANGE}[\ufe0f\u200d]*\s*)+"
_SYMBOLS_AROUND = re.compile(rf"\A{_SYMBOLS}|\s*{_SYMBOLS}\Z")
_PARAGRAPH_CHARACTERS = 20  # behind so many, two words alone are no paragraph, but a remark: "Done."


def numbered_texts(response: str, n: int) -> list[str] | None:
    """The `n` texts of a list numbered 1 to n, line breaks turned into spaces; None if it has not exactly n, none empty.

    Numbers open lines, or else stand between sentences or behind a label ("Text 1:"). A year or an ordinal ("20. mendean",
    before a small letter) is none of them. What is no text is left out: headings, notes, remarks to the user, markup.
    """
    response = without_thoughts(response)
    markers = _markers_of(response, n) or _markers_of(response := _with_numbers(response), n) or _lettered(response, n)
    if not markers:
        return None
    texts = _unlabelled([_text(item) for item in _items(response, markers)])
    return texts if all(texts) else None


def _markers_of(response: str, n: int) -> Sequence[re.Match]:
    """The numbers of a list of `n` items; [] if it is none."""
    for pattern in (_MARKER, _INLINE, _LABELLED, _FILLED_IN, _ANY_MARKER, _ANY_INLINE):
        markers = _markers(pattern, response)
        if len(markers) == n:
            return markers
    return []


def _with_numbers(response: str) -> str:
    """`response` with "Text 2:" for "Second text:" and "Text Two:", "2. " for ②, <2>…</2>, and the second <text>…</text>."""
    response = re.sub("[①-⑨]", lambda circled: f"{ord(circled[0]) - 0x245F}. ", response)
    response = _ORDINAL.sub(
        lambda found: f"{found[1]}Text {_ORDINALS.index((found[2] or found[3]).lower()) // 2 + 1}", response
    )
    response = re.sub(r"(?m)^[ \t]*<(\d{1,2})>(.*?)</\1>", r"\1. \2", response, flags=re.DOTALL)
    places = count(1)
    return re.sub(
        r"(?m)^[ \t]*<(text|paragraph)>(.*?)</\1>",
        lambda found: f"{next(places)}. {found[2]}",
        response,
        flags=re.DOTALL,
    )


def _unlabelled(texts: list[str]) -> list[str]:
    """The texts, without the label with which all of several begin, and the mark with which all end: alike but for their numbers,
    or in square or angle brackets."""
    for pattern, names_of in _LABELS_OF_ALL if len(texts) > 1 else ():
        if not pattern.search(texts[0]):
            continue
        found = list(takewhile(bool, map(pattern.search, texts)))
        names = {names_of(label, number) for number, label in enumerate(found, start=1)}
        if len(found) == len(texts) and len(names) == 1 and None not in names:
            texts = [
                text[label.end() :] if label.start() == 0 else text[: label.start()].rstrip()
                for text, label in zip(texts, found, strict=True)
            ]
    return texts


def _any(label: re.Match, number: int) -> str:
    return ""


def _name(label: re.Match, number: int) -> str:
    return re.sub(r"\d+", "", label[1] or label[2])


def _numbered_name(label: re.Match, number: int) -> str | None:
    return label[1].lower() if int(label[2]) == number else None


def _last_word(label: re.Match, number: int) -> str:
    return label[1].lower()


# How labels of all texts look, and what they must have in common
_LABELS_OF_ALL = (
    (re.compile(r"\A[*_\"“]*[\[<][^\[\]<>!?]{0,60}[\]>][*_\"”]*[:：]?\s*(?=\S)"), _any),
    (_LABEL, _name),
    (re.compile(r"\A[*_«\"]*([^\s\d.,:;!?()\[\]<>]+(?: [^\s\d.,:;!?()\[\]<>]+)?)[ _#]{0,2}(\d{1,3})(?![\d.,]\d)(?: \([^()]{1,20}\))?[*_»\"]*(?:[:：.]|\s[-–—](?=\s))?[*_]*\s*(?=\S)"), _numbered_name),
    (re.compile(r"\A[*_]*[^\s\d.,:;!?()]+ ([^\s\d.,:;!?()*_]+)[*_]*[:：][*_]*\s*(?=\S)"), _last_word),
    (re.compile(r"\A(?:\.{3}|…|[—–:])\s+(?=\S)"), _any),
    (re.compile(r"[\[<(](?:(?<!\()[^\[\]<>!?]{0,30}[\]>]|(?<=\()end\b[^()]{0,20}\))\Z", re.I), _any),  # a class first: searched for fast
)  # fmt: skip


def _matches(pattern: re.Pattern, text: str) -> Iterator[re.Match]:
    """As finditer, which would look for a line's beginning at each character."""
    if not pattern.pattern.startswith("^"):
        yield from pattern.finditer(text)
        return
    start = 0
    while True:
        if found := pattern.match(text, start):
            yield found
        start = text.find("\n", start) + 1
        if not start:
            return


def _counts(marker: re.Match, markers: list[re.Match], doubtful: bool) -> bool:
    """Whether it is the next of the numbers 1, 2, 3 …"""
    return not doubtful and int(marker[1]) == len(markers) + 1


def _markers(
    pattern: re.Pattern, response: str, fits: Callable[[re.Match, list[re.Match], bool], bool] = _counts
) -> Sequence[re.Match]:
    """The numbers of a list that fit those before. Those before a small letter are doubtful, unless all of the list's are."""
    found: dict[bool, list[re.Match]] = {True: [], False: []}
    for marker in _matches(pattern, response):
        after = _LETTERS.match(response, marker.end())
        for small, markers in found.items():
            if fits(marker, markers, not small and bool(after) and _is_small(after[1])):
                markers.append(marker)
    return found[False] or found[True]


def _lettered(response: str, n: int) -> Sequence[re.Match]:
    """The letters or Roman numbers of a list of `n` items that opens the response, at most below a line with a colon.

    A list inside a text is none, nor are names that differ in their number: "I. Mundu Gerra", "II. Mundu Gerra".
    """
    if _MARKER.search(response) or _ANY_MARKER.search(response):
        return []
    for labels in _LABELS:

        def follows(marker: re.Match, markers: list[re.Match], doubtful: bool, labels=labels) -> bool:
            return not doubtful and marker[1] == "".join(labels[len(markers) : len(markers) + 1])

        markers = _markers(_LETTER, response, follows)
        if len(markers) == n:
            before = response[: markers[0].start()].rstrip()
            first_words = {next(iter(text.split(maxsplit=1)), "") for text in _items(response, markers)}
            return markers if len(first_words) > 1 and (not before or before.endswith((":", "："))) else []
    return []


def _items(response: str, markers: Sequence[re.Match]) -> Iterator[str]:
    """What stands behind each number, without a title in its line."""
    for marker, following in zip_longest(markers, markers[1:]):
        end = following.start() if following else len(response)
        first_line, _, rest = response[marker.start() : end].lstrip("\n").partition("\n")
        is_title = rest.strip() and _HEADING.fullmatch(first_line)  # "### 1. Title"
        yield rest if is_title else response[marker.end() : end]


def _is_small(letters: str) -> bool:
    # Not uMandela; Georgian letters are lower-case and have no capitals.
    return letters.islower() and letters != letters.title()


def first_line(response: str, number: int, closed: bool = False) -> str:
    """The first line of a response that has text, "" if none has: without the `number` that the prompt asked for ("4.",
    "Passage 4:"), markup, or a line that announces it. `closed`: of the lines that have their end."""
    lines = split_lines(without_thoughts(response.rpartition("\n")[0] if closed else response))
    for place, line in enumerate(lines):
        markers = (pattern.match(line) for pattern in (_MARKER, _LABELLED, _ANY_MARKER))
        end = next((marker.end() for marker in markers if marker and int(marker[1]) == number), 0)
        line = line[end:]
        text = "" if _RULE.fullmatch(line) else _text(line.lstrip("# \t"))
        announces = text.endswith((":", "：")) and any(map(str.strip, lines[place + 1 :]))
        if text and not announces:
            return text
    return ""


def listed_passages(response: str, first: int | None = None) -> list[str]:
    """The passages of a list numbered from anywhere: each is what stands behind a number, up to the next number, a blank line
    or "##".

    Numbers open lines; one within a line counts if it goes on counting, after the end of a sentence. Of their markup, passages
    lose what the texts of numbered_texts lose, and each "#". `first`: the number with which the prompt ended, if it did.
    """
    response = _prepared(response, first)
    items = (_BLANK_LINE.split(item.strip(), 1)[0] for item in _items(response, _passage_markers(response)))
    passages = (" ".join(_text(item).replace("#", "").strip("*_").split()) for item in items)
    return [passage for passage in passages if passage]


def finished_passages(response: str, first: int | None = None) -> str:
    """A response that was cut, up to the last place where a passage ends."""
    response = _prepared(response, first)
    ends = [match.start() for match in (*_BLANK_LINE.finditer(response), *_passage_markers(response)[1:])]
    return response[: max(ends, default=0)]


def _prepared(response: str, first: int | None) -> str:
    """A response without thoughts, the "##" between passages as blank lines, that begins with the number that it goes on behind."""
    response = _SEPARATOR.sub("\n\n", unix_lines(response))
    end = "\n\n" if _BLANK_LINE.search(response[len(response.rstrip()) :]) else ""
    response = without_thoughts(response).strip() + end
    opening = _MARKER.match(response)
    return response if first is None or (opening and int(opening[1]) == first) else f"{first}. {response}"


def _passage_markers(response: str) -> Sequence[re.Match]:
    def fits(marker: re.Match, markers: list[re.Match], doubtful: bool) -> bool:
        before = response[max(marker.start(1) - 20, 0) : marker.start(1)]  # the whole line may be huge
        opens_line = not before.rpartition("\n")[2].strip(" \t*#_>(")
        goes_on = int(marker[1]) == int(markers[-1][1]) + 1 if markers else marker.start() == 0
        return opens_line + goes_on + (not doubtful) >= 2

    return _markers(_INLINE, response, fits) or list(_LABELLED.finditer(response))


def whole_text(response: str, n: int = 1) -> list[str] | None:
    """The whole response as one text, as a base model continues a document; None if it is empty."""
    text = _text(without_thoughts(response))
    return [text] if text else None


def _text(item: str) -> str:
    """The text in an item of the list, on one line."""
    lines = _without_closing(split_lines(item))
    lines = [line for line in lines if line.strip() and not _FENCE.fullmatch(line)]
    while lines and _RULE.fullmatch(lines[0]):
        del lines[0]
    for number, line in enumerate(lines):
        if number and (_RULE.fullmatch(line) or _NOTE.match(line) or is_closing_remark(line)):
            del lines[number:]
            break
    while len(lines) > 1 and _PARENTHESIS.fullmatch(lines[-1]):
        del lines[-1]
    lines = [line for line in lines if not _HEADING.fullmatch(line)] or lines
    text = " ".join(" ".join(lines).split())
    if any(bracket in text for bracket in "[<{"):  # most have none, and searching takes long
        text = _TO_BE_FILLED.sub("", text).strip()
    if opening := _PLACEHOLDER.match(text):
        text = text[opening.end() :]
    if text.endswith((")", "]", "）", ">", "*", "_")):
        text = _NOTE_AT_END.sub("", _PLACEHOLDER_END.sub("", text))
    if text[:1] == "[" and text[-1:] == "]" and "]" not in text[:-1]:  # the text in place of the placeholder
        text = text[1:-1]
    if "*" in text or "_" in text:
        text = _EMPHASIS.sub(r"\2", _BOLD.sub(r"\2", text))
    text = text.strip()
    if max(text[:1], text[-1:]) > "\u2000":
        text = _SYMBOLS_AROUND.sub("", text)
    return unwrapped(text)


def _without_closing(lines: list[str]) -> list[str]:
    """The lines without those at the end that only say that it is the end: two words behind a blank line, or a remark behind ✅."""
    filled = [number for number, line in enumerate(lines) if line.strip() and not _FENCE.fullmatch(line)]
    if sum(len(lines[number]) for number in filled[:-1]) < _PARAGRAPH_CHARACTERS:
        return lines
    with_symbol = {number for number in filled if _SYMBOL.match(lines[number])}  # several are a list
    while len(filled) > 1:
        *_, before, last = filled
        is_short = last - before > 1 and len(unicode_words(lines[last])) < 3
        if not is_short and with_symbol != {last}:
            break
        with_symbol.discard(filled.pop())
    return lines[: filled[-1] + 1]


PARSERS = {"numbered": numbered_texts, "text": whole_text}
