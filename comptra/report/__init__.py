"""The page of a run: one HTML file with its data inside (scripts/report.py). A section is a row of SECTIONS.

Each section has a function that collects its data in Python, and a file page/{name}.js that shows them (page/page.js says how).
"""

from dataclasses import dataclass, field
from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.common.files import read_json
from topxgen.common.registry import Choice
from topxgen.runs.reading import Problems


@dataclass(frozen=True)
class Section(Choice):
    """A section: `target` is its function collect(Run, Options) -> dict | None, None where no files are there for it; `title`;
    `libraries`: names of LIBRARIES that its script needs; `is_large`: collected last, with what is left of the size, and shown
    only when a reader comes to it."""

    title: str = ""
    libraries: tuple[str, ...] = ()
    is_large: bool = False


# In the order of the page.
# fmt: off
SECTIONS = {
    "funnel": Section("comptra.report.sections.funnel:collect", "what became of every prompt, text, sentence and pair", "Funnel",
                      ("plot",)),
    "pairs": Section("comptra.report.sections.pairs:collect", "pairs, rejects and candidates with their paragraphs, to search and to filter",
                     "Pairs", ("tabulator",), is_large=True),
    "distributions": Section("comptra.report.sections.distributions:collect", "lengths, scores, topics, repetition, tokens, times",
                             "Distributions", ("plot",)),
    "contamination": Section("comptra.report.sections.contamination:collect", "overlaps with test sets, and what was not checked",
                             "Contamination", libraries=("plot",)),
    "training": Section("comptra.report.sections.training:collect", "loss, held-out scores, the checkpoint", "Training", ("plot",)),
    "evaluation": Section("comptra.report.sections.evaluation:collect", "scores with intervals and marks, against steps, and two systems "
                          "side by side by sentence", "Evaluation", ("plot", "diff")),
    "provenance": Section("comptra.report.sections.provenance:collect", "commands, settings, versions, digests, times", "Provenance"),
}
# fmt: on
# In vendor/, in the order in which they are loaded.
LIBRARIES = {"plot": ("d3.min.js", "plot.min.js"), "tabulator": ("tabulator.min.js",), "diff": ("diff.min.js",)}
# problem: something could not be read, and the page is incomplete; warning: what was read points to a fault of the run.
LEVELS = ("problem", "warning", "missing", "info")


@dataclass(frozen=True)
class Notice:
    """A line about what the page shows, or does not. `level` is one of LEVELS; `section` a name in SECTIONS, or ""."""

    level: str
    section: str
    text: str


@dataclass(frozen=True)
class Headline:
    """A number at the top of the page: `value` is a number or a short text, `link` a fragment such as "#pairs?language=Basque"."""

    label: str
    value: float | str
    link: str = ""


@dataclass
class Options:
    """What collecting functions are given, and what they return to the page besides their data.

    `max_bytes`: what the data of the section may take, compressed (packing.size_of); None: no limit. `page_bytes`: the limit of the
    page's size, `section`: the section that is being collected, "" none.
    """

    seed: int = 122
    max_examples: int = 20  # of each reason and language, where a section shows some
    max_bytes: int | None = None
    page_bytes: int = 5_000_000
    benchmark_dir: Path | None = None
    notices: list[Notice] = field(default_factory=list)
    headlines: list[Headline] = field(default_factory=list)
    section: str = ""

    def notice(self, level: str, text: str, section: str | None = None) -> None:
        """Tell the reader something once, in this section or another one; `level` is one of LEVELS."""
        if (notice := Notice(level, self.section if section is None else section, text)) not in self.notices:
            self.notices.append(notice)

    def read(self, path: Path, schema: type, remedy: str = "restore it or remove it") -> dict | None:
        """A JSON object; None, and a notice, for a file that is damaged or went away."""
        try:
            return read_json(path, schema, remedy)
        except (OSError, UsageError) as error:
            return self.notice("problem", str(error))

    def note_problems(self, problems: Problems) -> None:
        """What reading left out; lines that are still being written are none of the problems."""
        for line in problems.lines(with_cut=False):
            self.notice("problem", line)
        if names := [path.name for path in problems.cut]:
            more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
            text = f"the last line of {', '.join(names[:3])}{more} is being written, or a killed run left it so: it is not counted"
            self.notice("info", text)

    def headline(self, label: str, value: float | str, link: str = "") -> None:
        self.headlines.append(Headline(label, value, link))
