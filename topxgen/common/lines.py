"""Lines of texts: LF, CR LF or CR end one. str.splitlines ends lines at U+2028, form feeds and six more characters, too, and
so cuts translations; tests/common/test_lines.py bans it."""

import re

# What str.splitlines takes for ends of lines besides LF and CR, with the spaces around it.
_SEPARATORS = re.compile("[ \\t]*[\v\f\x1c-\x1e\x85\u2028\u2029]+[ \\t]*")


def unix_lines(text: str) -> str:
    """`text` with LF at the end of each line."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def split_lines(text: str) -> list[str]:
    """The lines of `text`, without their ends."""
    lines = unix_lines(text).split("\n")
    return lines if lines[-1] else lines[:-1]


def on_one_line(text: str) -> str:
    """`text` with spaces for its line breaks, as a translation is one line."""
    return " ".join(filter(None, map(str.strip, split_lines(text))))


def separators_to_spaces(line: str) -> str:
    """`line` with spaces for U+2028 and the like, at which other programs would cut it."""
    return line if line.isprintable() else _SEPARATORS.sub(" ", line)  # none of them is printable
