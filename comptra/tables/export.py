"""Tables of scores for the terminal, in Markdown, as LaTeX (booktabs) and as CSV."""

import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence

from comptra.scores.columns import COLUMNS
from comptra.tables import BEST, TIED, Cell, Table, finite, mark, marks_of, matrix, reliability_of
from topxgen.common import files
from topxgen.common.console import aligned, markdown_table, printable
from topxgen.common.console import width as width_of

_OF_GROUP, _OF_SYSTEM = ("dataset", "src", "tgt", "step"), ("sentences", "missing", "unanswered", "empty", "edited")
_OF_SCORE = (
    *("", "_segments", "_low", "_high", "_difference", "_p", "_p_holm", "_p_bootstrap", "_mark", "_top"),
    *("_reliability", "_interference", "_signature"),
)
Row = list[str | Cell]


def _line(text: str) -> str:
    """One line, whatever a name holds."""
    return " ".join(printable(text).split())


def _explained(made: Sequence[Table], names: dict[str, str]) -> list[str]:
    """Each mark of the tables, by the name that `names` has for it, or as it is."""
    return [f"{names.get(mark, mark)} {text}" for mark, text in marks_of(made).items()]


def _notes(made: Sequence[Table], report: dict) -> list[str]:
    """Each once, warnings last."""
    lines = dict.fromkeys(map(_line, [*(note for table in made for note in table.notes), *report.get("notes", ())]))
    return sorted(lines, key=lambda line: line.startswith("warning:"))


# Terminal


def terminal(report: dict, width: int | None = None) -> str:
    """The tables for a terminal of `width` columns (None: any), and what they need to be understood, once.

    A table that is wider continues below, with the systems again. These have numbers, and a list at the top, if they would
    take half of the width.
    """
    made = matrix.tables(report, detailed=True)
    headings = tuple(made[0].header[: made[0].described])
    alike = [table for table in made if tuple(table.header[: table.described]) == headings]
    systems = list(dict.fromkeys(_described(table, row) for table in alike for row in table.rows))
    shown: dict[tuple, tuple] = {}
    blocks = []
    if width is not None and max(map(width_of, aligned([headings, *systems], left=len(headings)))) > width // 2:
        shown = {cells: (str(number),) for number, cells in enumerate(systems, start=1)} | {headings: ("system",)}
        numbered = [("", *headings), *((*shown[cells], *cells) for cells in systems)]
        blocks.append("\n".join(aligned(numbered, left=len(headings) + 1)))
    blocks += ["\n".join([_line(table.title), *_text(table, shown, width)]) for table in made]
    if below := "\n".join([*_notes(made, report), *_explained(made, {})]):
        blocks.append(below)
    return "\n\n".join(blocks)


def _described(table: Table, row: Row) -> tuple[str, ...]:
    return tuple(map(_line, row[: table.described]))


def _text(table: Table, shown: dict[tuple, tuple], width: int | None) -> list[str]:
    """The lines of a table, with the systems as `shown` has them, or as they are."""
    described = [_described(table, row) for row in (table.header, *table.rows)]
    left = [shown.get(cells, cells) for cells in described]
    columns = [
        _column(_line(heading), [row[i] for row in table.rows])
        for i, heading in enumerate(table.header[table.described :], start=table.described)
    ]
    lines: list[str] = []
    while columns:
        chosen = columns[: _fitting(left, columns, width)]
        columns = columns[len(chosen) :]
        rows = [[*cells, *(column[n] for column in chosen)] for n, cells in enumerate(left)]
        lines += aligned(rows, left=len(left[0])) + [""] * bool(columns)
    return lines


def _column(heading: str, cells: Sequence[str | Cell]) -> list[str]:
    """Numbers stand under each other whatever marks are behind them."""
    shown = [(cell.text, cell.all_marks) if isinstance(cell, Cell) else (cell, "") for cell in cells]
    marks = max((len(marks) for _, marks in shown), default=0)
    return [heading, *(text + own.ljust(marks) for text, own in shown)]


def _fitting(left: list[tuple[str, ...]], columns: list[list[str]], width: int | None) -> int:
    """How many of `columns` fit beside `left`, one at least."""
    if width is None:
        return len(columns)
    free = width - sum(2 + max(map(width_of, cells)) for cells in zip(*left, strict=True)) + 2
    for number, column in enumerate(columns):
        free -= 2 + max(map(width_of, column))
        if free < 0:
            return max(number, 1)
    return len(columns)


# Markdown and LaTeX


def _cells(table: Table, escape: Callable[[str], str], score: Callable[[Cell], str]) -> list[list[str]]:
    """The rows, header included, as a format writes them."""
    rows = (table.header, *table.rows)
    return [[score(cell) if isinstance(cell, Cell) else escape(_line(cell)) for cell in row] for row in rows]


def markdown(report: dict) -> str:
    """The tables in Markdown: the best in bold, what is not significantly worse in italics."""
    made = matrix.tables(report)
    parts = [f"## {markdown_text(_line(table.title))}\n\n{markdown_of(table)}\n" for table in made]
    notes = [*_notes(made, report), *_explained(made, {BEST: "bold:", TIED: "italics:"})]
    return "\n".join([*parts, *markdown_items(notes)]) + "\n"


def markdown_items(lines: Sequence[str]) -> list[str]:
    """The items of a list: what begins with + or - is no list in it."""
    return ["- " + re.sub("^[+-]", r"\\\g<0>", markdown_text(line)) for line in lines]


def markdown_of(table: Table) -> str:
    header, *rows = _cells(table, markdown_text, _markdown_score)
    return markdown_table(header, rows, right=len(header) - table.described)


def markdown_text(text: str) -> str:
    return re.sub(r"([\\`*_<>|~#$&!]|\](?=\())", r"\\\1", text)


def _markdown_score(cell: Cell) -> str:
    around = {BEST: "**", TIED: "*"}.get(cell.rank, "")
    return f"{around}{cell.text}{around}{markdown_text(cell._replace(rank='').all_marks)}"


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}", '"': "{''}",
    "[": "{[}", "*": "{*}",  # not an argument of the \\ before them
}  # fmt: skip
_ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
_COMMON = "ßæÆœŒøØłŁ–—‘’“”…"
_LATEX_MARKS = {"+": "+", "-": "$-$", "~": r"$\sim$", "!": "!", "<": "$<$"}
# What pdfLaTeX has no letter for is printed by its code there, and as it is by XeLaTeX and LuaLaTeX.
_LATEX_HEAD = r"""% \usepackage{booktabs,graphicx}
% Names in other scripts: XeLaTeX or LuaLaTeX with a font that has them; pdfLaTeX prints their code points.
\DeclareRobustCommand{\othertext}[2]{\ifdefined\Umathchar#1\else#2\fi}
"""


def latex(report: dict) -> str:
    """The tables in LaTeX, each a float: the best in bold, what is not significantly worse underlined, marks as superscripts."""
    parts = [_LATEX_HEAD]
    for number, table in enumerate(matrix.tables(report), start=1):
        ranks = {BEST: r"\textbf{bold}:", TIED: r"\underline{underlined}:"}
        ranks |= {mark: rf"\textsuperscript{{{shown}}}" for mark, shown in _LATEX_MARKS.items()}
        used = [line.partition(" ") for line in _explained([table], {})]
        notes = [_latex(_line(note)) for note in table.notes]
        notes += [f"{ranks[mark]} {_latex(text)}" for mark, _, text in used]
        parts += [
            r"\begin{table*}",
            r"\centering",
            rf"\caption{{{_latex(_line(table.title))}}}",
            rf"\label{{tab:scores-{number}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"{_latex_tabular(table)}}}",
            r"\par\smallskip",
            r"{\footnotesize\raggedright",
            *(rf"{note}\par" for note in notes),
            "}",
            "\\end{table*}\n",
        ]
    return "\n".join(parts)


def _latex_tabular(table: Table) -> str:
    """The rows are the systems, or the languages where that is narrower."""
    from tabulate import tabulate

    rows, above, left = _cells(table, _latex, _latex_score), 1, table.described
    if len(rows) < len(rows[0]):
        rows, above, left = [list(column) for column in zip(*rows, strict=True)], table.described, 1
    sides = ["left"] * left + ["right"] * (len(rows[0]) - left)
    begin, _, *lines, _, end = tabulate(rows, tablefmt="latex_raw", disable_numparse=True, colalign=sides).split("\n")
    return "\n".join([begin, r"\toprule", *lines[:above], r"\midrule", *lines[above:], r"\bottomrule", end])


def _latex(text: str) -> str:
    escaped = re.sub(r"[\\{}&%$#_~^<>|`\"\[*]", lambda char: _LATEX[char[0]], text).replace("--", "-{}-")
    return re.sub(r"[^\x00-\x7f]+", _other_text, escaped)


def _other_text(found: re.Match) -> str:
    """What every engine has as it is; the rest with its codes, for engines that have no letters for it."""
    written = []
    for is_common, part in itertools.groupby(found[0], _is_common):
        text = "".join(part)
        codes = " ".join(f"U+{ord(char):04X}" for char in text)
        written.append(text if is_common else rf"\othertext{{{text}}}{{{{[}}{codes}{{]}}}}")
    return "".join(written)


def _is_common(char: str) -> bool:
    parts = unicodedata.normalize("NFD", char)
    is_accented = "À" <= char <= "ž" and len(parts) == 2 and parts[0].isascii() and parts[1] in _ACCENTS
    return is_accented or char in _COMMON


def _latex_score(cell: Cell) -> str:
    around = {BEST: r"\textbf{%s}", TIED: r"\underline{%s}"}.get(cell.rank, "%s")
    marks = "".join(shown for mark, shown in _LATEX_MARKS.items() if mark in cell.marks)
    return around % _latex(cell.text) + (rf"\textsuperscript{{{marks}}}" if marks else "")


# CSV


def csv_text(report: dict) -> str:
    """The report as CSV: one row for each system and direction, with what the system is and all scores."""
    names = matrix.metric_names(report["groups"])
    rows = (row for group in report["groups"] for row in group["systems"])
    faults = list(dict.fromkeys(key for row in rows for key in row.get("faults") or ()))
    columns = [*_OF_GROUP, "system", "path", "baseline", *COLUMNS, *_OF_SYSTEM, *(f"faults_{key}" for key in faults)]
    for name in names:
        columns += [f"{name}{end}" for end in _OF_SCORE]
    lines = []
    systems = matrix.Systems(report["groups"])
    for group in report["groups"]:
        for row in group["systems"]:
            cells = {key: group[key] for key in _OF_GROUP} | {key: row.get(key, "") for key in _OF_SYSTEM}
            cells |= {"system": row["name"], "path": row["path"], "baseline": group.get("baseline") or ""}
            cells |= systems.columns[systems.key(row)]
            cells |= {f"faults_{key}": n for key, n in (row.get("faults") or {}).items()}
            for name, value in row["scores"].items():
                if value and finite(value.get("score")) is not None:
                    cells |= {f"{name}{end}": cell for end, cell in _score_cells(group, name, row, value).items()}
            lines.append(cells)
    return files.csv_text(lines, columns)


def _score_cells(group: dict, name: str, row: dict, value: dict) -> dict[str, object]:
    """By the ends of the columns' names; numbers that do not exist are empty."""
    low, high = map(finite, value.get("interval") or (None, None))
    clusters = (group.get("clusters") or {}).get(name)
    top = "" if clusters is None else int(row["path"] in clusters)
    cells = {f"_{key}": finite(value.get(key)) for key in ("difference", "p", "p_holm", "p_bootstrap")}
    cells |= {
        "": value["score"], "_segments": value.get("segments", row["sentences"]), "_low": low, "_high": high, "_mark": mark(value),
        "_top": top, "_reliability": reliability_of(group, name).get("status", ""),
        "_interference": "; ".join(value.get("interference") or ()), "_signature": group["signatures"].get(name, ""),
    }  # fmt: skip
    return {end: "" if cell is None else cell for end, cell in cells.items()}
