"""What reasoning models write before an answer: found by the marks that they put around it, and removed.

The marks are of the models' chat templates, as their authors publish them. Some come without their special tokens, because
a server decodes without these.
"""

import re

from topxgen.common.lines import unix_lines

# <think>, [THINK], ◁think▷, <|think|>, <seed:think>, <ifm|think>, <longcat_think>, <think:6124c78e>, <thinking effort="low"> and,
# with a slash, the end of each
_TAG = (
    r"(?:<\|?|◁) ?(?P<end>/?) ?(?:\w+[:_|-])?(?P<tag>think|thinking|thoughts?|reason|reasoning|reflection|rationale|analysis|scratchpad"
    r"|monologue|planning|cot|思考)(?:_(?:process|steps|content|fast(?:er)?)|:\w+)?(?:\s[^<>\n]*)?(?:\|?>|▷)"
    r"|\[(?P<end2>/?)(?P<tag2>think|thinking|thoughts?|reasoning)\]"
)
_THOUGHT, _BEGIN, _END = r"(?:think|thinking|thoughts?|reasoning)", r"(?:begin[_▁]of|begin|start)", r"end(?:[_▁]of)?"
_PAIRS = (  # beginning, end
    # Sky-T1: <|begin_of_thought|>, Command A Reasoning: <|START_THINKING|>; <|thinking_start|>, <｜begin▁of▁thought｜>,
    # PLaMo 3: <|plamo:begin_think:plamo|>
    tuple(rf"<[|｜](?:\w+:)?(?:{word}[_▁]{_THOUGHT}|{_THOUGHT}_{word})(?::\w+)?[|｜]>" for word in (_BEGIN, _END)),
    (r"<\|im_start\|>\s*think\b", r"<\|im_start\|>\s*answer\b"),  # s1
    (r"<\|im_start\|>assistant/think\b", r"(?!)"),  # HyperCLOVA X Think, without an end
    (r"(?m:^)[ \t]*<details\b[^<>\n]*>", r"</details>[ \t]*(?m:$)"),  # Open WebUI
    (r"(?m:^)Here are my reasoning steps:[ \t]*(?m:$)", r"\[BEGIN FINAL RESPONSE\]"),  # Apriel
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),  # Apertus
    (r"<\|channel>", r"<channel\|>"),  # Gemma 4
    (r"<unused94>", r"<unused95>"),  # MedGemma
    (r"\[unused16\]", r"\[unused17\]"),  # openPangu
    (r"<\|open\|>\s*think\s*<\|sep\|>", r"<\|close\|>\s*think\s*<\|sep\|>"),  # Kimi K3
    (r"<\|content_thinking\|>", r"<\|content_text\|>"),  # Inkling
    (r"\bto=self<\|message\|>", r"\bto=user<\|message\|>"),  # Muse Glimmer
    (r"(?m:^)[*# ]*Here(?: is|['’]s) my thought process:", r"(?m:^)[*# ]*Here(?: is|['’]s) my response:\**"),  # Granite
)
_MARK = re.compile(
    "|".join([*(f"(?P<open_{i}>{a})|(?P<close_{i}>{b})" for i, (a, b) in enumerate(_PAIRS)), _TAG]), re.IGNORECASE
)
# Of all marks, those around answers included: most texts have none.
_BEGINNINGS, _HERE = ("<", "[", "◁"), re.compile(r"[hH](?i:ere(?: is| are|['’]s) my )")  # a class first is fast
# gpt-oss: <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w*)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_CHANNEL_OPEN = re.compile(r"<\|channel\|>(?!\s*final)[^<]*(?:<\|message\|>)?\s*$")
_CHANNEL_TOKENS = ("<|channel|>", "<|message|>", "<|constrain|>", "<|content|>", "<|open|>", "<|close|>", "<|sep|>")
# Thoughts in a turn of their own: Solar Open's <|think|>…<|end|><|begin|>assistant<|content|>Kaixo, and HyperCLOVA X's.
_TURN_OF_THOUGHTS = re.compile(
    r"<\|think\|>.*?(?:<\|end\|>\s*<\|begin\|>)?assistant<\|content\|>"
    r"|<\|im_start\|>assistant/think\b.*?<\|im_end\|>\s*<\|im_start\|>assistant\b(?!/)",
    re.DOTALL,
)
# The same decoded without special tokens: analysisThe user wants …assistantfinalKaixo.
_BARE_CHANNEL = re.compile(r"\s*(?:assistant)?(?:analysis|commentary)(?=(\s*\S))")
_BARE_FINAL = re.compile(r"\s*(?:assistant)?final(?=([^\W\d_]))")
# Marks around the answer itself, alone or after a preface.
_ANSWER = re.compile(
    r"(?:(?:^|(?<=>))[ \t]*(?:<((?:final_)?(?:answer|translation|response)|final|output|solution|result|conclusion)>"
    r"|<\|(?:begin_of_solution|START_RESPONSE|START_TEXT)\|>|<\|open\|>\s*response\s*<\|sep\|>)|<\|begin_of_box\|>)"
    r"(.*?)(?:</\1>|<\|(?:end_of_solution|END_RESPONSE|END_TEXT|end_of_box|close)\|>|\[END FINAL RESPONSE\]|\Z)",
    re.IGNORECASE | re.DOTALL | re.MULTILINE,
)
_ANSWER_TOKEN = re.compile(r"<\|(?:begin_of_solution|end_of_solution|(?:START|END)_(?:RESPONSE|TEXT))\|>")


def without_thoughts(text: str) -> str:
    """The answer in `text`; "" if its thoughts have no end, as when they took all tokens.

    An end without a beginning (the prompt began the thoughts) ends all that stands before it. A beginning in mid-line is
    text if nothing ends it on that last line: a sentence may be about such marks.
    """
    text = _TURN_OF_THOUGHTS.sub("", _of_final_channel(unix_lines(text)))
    if not any(begins in text for begins in _BEGINNINGS) and not _HERE.search(text):
        return text.strip()
    answers, start, open_marks = [], 0, []
    for match in _MARK.finditer(text):
        name, ends = _read(match)
        if ends and name in open_marks:
            del open_marks[open_marks.index(name) :]
        elif ends and not open_marks:
            answers.clear()
        elif ends or name in open_marks:
            continue
        elif open_marks:
            open_marks.append(name)
        elif not _is_text(text, start, match, name):
            answers.append(text[start : match.start()])
            open_marks.append(name)
        if ends and not open_marks:
            start = match.end()
    if not open_marks:
        answers.append(text[start:])
    answer = next((part for part in reversed(answers) if part.strip()), "")
    while marked := list(_ANSWER.finditer(answer)):
        answer = marked[-1][2]
    return answer.partition("[END FINAL RESPONSE]")[0].strip()


def begun_in(prompt: str) -> str:
    """The mark with which `prompt` ends, if that begins thoughts: the answer goes on inside them. Else ""."""
    *_, last = (None, *_MARK.finditer(prompt))
    if last and not _read(last)[1] and not prompt[last.end() :].strip():
        return last[0]
    channel = _CHANNEL_OPEN.search(prompt)
    return channel[0] if channel else ""


def has_marks(text: str) -> bool:
    return bool(_MARK.search(text)) or "<|channel|>" in text


def is_mark(token: str) -> bool:
    """Whether a special token is a mark, which must not get lost in decoding."""
    return token in _CHANNEL_TOKENS or bool(_MARK.fullmatch(token) or _ANSWER_TOKEN.fullmatch(token))


def _read(match: re.Match) -> tuple[str, bool]:
    """The name of a mark, and whether it ends thoughts."""
    tag = match["tag"] or match["tag2"]
    if tag:
        return tag.lower(), bool(match["end"] or match["end2"])
    kind, _, number = match.lastgroup.partition("_")
    return number, kind == "close"


def _is_text(text: str, start: int, opening: re.Match, name: str) -> bool:
    if not text[start : opening.start()].rpartition("\n")[2].strip() or "\n" in text[opening.end() :].strip():
        return False
    return not any(_read(match) == (name, True) for match in _MARK.finditer(text, opening.end()))


def _of_final_channel(text: str) -> str:
    """What gpt-oss writes into its channel "final"; "" if it has others only; `text` if it has no channels."""
    if "<|channel|>" in text:
        finals = [match for match in _CHANNEL.finditer(text) if match[1].lower() == "final"]
        return re.split(r"<\|\w+\|>", text[finals[-1].end() :])[0] if finals else ""
    if bare := _BARE_CHANNEL.match(text):
        _, final, answer = text.rpartition("assistantfinal")
        if final:
            return answer
        if _begins_a_word(bare[1]):
            return ""
    elif (bare := _BARE_FINAL.match(text)) and _begins_a_word(bare[1]):
        return text[bare.end() :]
    return text


def _begins_a_word(char: str) -> bool:
    """Whether `char` cannot go on the lower-case word before it, as in "analysisThe"."""
    return char in '"“' or (char.isalpha() and not char.islower())
