"""Assemble the page: template, styles, scripts and the compressed data of the sections, in one file that asks for no other."""

import base64
import gzip
import hashlib
import html
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path, PurePath

import topxgen
from comptra.report import LEVELS, LIBRARIES, SECTIONS, Notice, Options, Section, packing
from comptra.report.sources import Sources
from topxgen.common import provenance
from topxgen.common.errors import UsageError
from topxgen.runs.folders import PAIRS, Run
from topxgen.text import languages

HERE = Path(__file__).parent
# Bytes kept free for what is known last: the list of files, and notices of sections that are collected last.
ROOM_FOR_REST = 60_000
MAX_OPEN_NOTICES = 4  # of a level, in a section
LEVEL_NAMES = {"problem": "Problem", "warning": "Warning", "missing": "Not here", "info": "Note"}


def build(
    run: Run,
    sources: Sources,
    options: Options,
    max_bytes: int,
    command: list[str],
    sections: Mapping[str, Section] = SECTIONS,
    started: str | None = None,
) -> list[str]:
    """The page in pieces. A section that cannot be made from its files is a notice.

    `max_bytes` is the limit of the page's size: sections that are `is_large` get what the others leave. `started`: when it was made;
    now by default.
    """
    started, options.page_bytes = started or provenance.now(), max_bytes
    data = {}
    for problem in run.problems:
        options.notice("problem", problem)
    for name in sorted(sections, key=lambda name: sections[name].is_large):
        if sections[name].is_large:
            left = max_bytes - ROOM_FOR_REST - _size_without(run, options, sections)
            left -= sum(packing.packed_size(len(part)) for part in data.values())
            options.max_bytes = max(0, left) // 4 * 3
        options.section = name
        try:
            value = sections[name].load()(run, options)
        except (UsageError, OSError) as error:
            options.notice("problem", f"this section could not be made: {error}")
            value = None
        if value is not None:
            data[name] = packing.compressed(value)
    options.section = ""
    for name in data:  # its numbers lack that, too
        for problem in run.problems:
            options.notice("problem", problem, name)
    listing = sources.listing()
    if changed := sum("changed" in file for file in listing):
        options.notice("info", f"{changed:,} files were written to while this page was made: the run goes on")
    for name, first in _copies(listing):
        options.notice("warning", f"{name} is a copy of {first}: its pairs are counted twice")
    meta = {"root": str(run.root), "started": started, "command": command, "sources": listing}
    settings = {name: getattr(options, name) for name in ("seed", "max_examples", "page_bytes")}
    settings |= {"benchmark_dir": str(options.benchmark_dir or ""), "folders": list(map(str, sources.roots[1:]))}
    data["page"] = packing.compressed(meta | made_by() | {"settings": settings})
    return list(_pieces(run, options, sections, data, started))


def made_by() -> dict:
    """What of this machine decides the numbers of a page: the program and its packages."""
    versions = provenance.versions() | {"topxgen": topxgen.__version__}
    return {"versions": versions, "code": provenance.code_id("topxgen", "comptra")}


def _copies(listing: Iterable[Mapping]) -> Iterator[tuple[str, str]]:
    """Files of pairs that have the name and content of another one, as in a copy of the run: (path, path of the other)."""
    seen: dict[tuple, str] = {}
    for file in listing:
        key = PurePath(file["path"]).name, file["sha256"]
        if key[0].endswith(PAIRS) and file["sha256"] and file["size"]:
            if key in seen:
                yield file["path"], seen[key]
            seen.setdefault(key, file["path"])


def _pieces(
    run: Run, options: Options, sections: Mapping[str, Section], data: Mapping[str, bytes], made: str
) -> Iterator[str]:
    names = [name for name in sections if name in data]
    of_section = {name: [notice for notice in options.notices if notice.section == name] for name in sections}
    broken = [name for name in sections if name not in data and any(n.level == "problem" for n in of_section[name])]
    shown = [name for name in sections if name in names or name in broken]
    script = _script(names)
    needed = {key for name in names for key in sections[name].libraries}
    libraries = _library_files(needed)
    hashes = [_hash(script), *(_hash(_vendor(file)) for file in libraries)]
    title = f"{run.root.resolve().name or run.root} · TopXGen run"
    values = {
        "csp": f"default-src 'none'; script-src {' '.join(hashes)}; style-src 'unsafe-inline'; img-src data:; "
        "font-src 'none'; base-uri 'none'; form-action 'none'",
        "version": topxgen.__version__,
        "title": escaped(title),
        "name": escaped(run.root.resolve().name or str(run.root)),
        "made": f"Made {escaped(made)} by TopXGen {topxgen.__version__} from "
        f"<span class=path>{escaped(str(run.root))}</span>",
        "style": _style(names, "tabulator" in needed),
        "nav": "".join(f'<li><a href="#{name}">{escaped(sections[name].title)}</a></li>' for name in shown),
        "headlines": _headlines(options),
        "notices": _notices(run, [notice for notice in options.notices if notice.section not in shown]),
        "sections": "".join(
            _section(name, sections[name], _notices(run, of_section[name]), name in names) for name in shown
        )
        or "<p>Nothing in this folder is of a run.</p>",
    }
    template = (HERE / "page" / "page.html").read_text(encoding="utf-8")
    for i, part in enumerate(re.split("{{(.*?)}}", template)):
        if not i % 2:
            yield part
        elif part == "data":
            for key, packed in {
                **{f"data-{n}": p for n, p in data.items()},
                **_tables(),
                **{f"library-{file}": _compressed_vendor(file) for file in libraries},
            }.items():
                yield f'<script type="application/gzip;base64" id="{key}">{packing.packed(packed)}</script>\n'
        else:
            yield f"<script>{script}</script>" if part == "script" else values[part]


def _library_files(names: Collection[str]) -> list[str]:
    return [file for key in LIBRARIES if key in names for file in LIBRARIES[key]]


def _size_without(run: Run, options: Options, sections: Mapping[str, Section]) -> int:
    """Bytes of a page whose sections hold nothing."""
    pieces = _pieces(run, options, sections, dict.fromkeys(sections, b""), "")
    return sum(len(piece.encode("utf-8", "replace")) for piece in pieces)


def _section(name: str, section: Section, notices: str, has_data: bool) -> str:
    large = ' data-large="1"' if section.is_large else ""
    libraries = " ".join(_library_files(section.libraries))
    body = '<div class="body" aria-busy="true"><p class="wait">…</p></div>' if has_data else ""
    return (
        f'<section id="{name}" aria-labelledby="title-{name}" data-libraries="{libraries}"{large}>'
        f'<h2 id="title-{name}"><a href="#{name}">{escaped(section.title)}</a></h2>{notices}{body}</section>\n'
    )


def _notices(run: Run, notices: Iterable[Notice]) -> str:
    """A list of notices, the worst first. Of many of a level the first are shown, and the others on a click."""
    lines = []
    for level in LEVELS:
        texts = [escaped(notice.text.replace(f"{run.root}/", "")) for notice in notices if notice.level == level]
        own = [f'<li class="{level}"><b>{LEVEL_NAMES[level]}</b> <span>{text}</span></li>' for text in texts]
        first = own if len(own) <= MAX_OPEN_NOTICES + 1 else own[:MAX_OPEN_NOTICES]
        lines += first
        if rest := own[len(first) :]:
            more = f"<summary>{len(rest):,} more of this kind</summary><ul>{''.join(rest)}</ul>"
            lines.append(f'<li class="{level}"><details>{more}</details></li>')
    return f'<ul class="notices">{"".join(lines)}</ul>' if lines else ""


def _headlines(options: Options) -> str:
    parts = []
    for one in options.headlines:
        form = ",d" if isinstance(one.value, int) else ".2f" if isinstance(one.value, float) else ""
        value = escaped(format(one.value, form))
        if one.link.startswith("#"):
            value = f'<a href="{escaped(one.link)}">{value}</a>'
        parts.append(f"<div><dt>{escaped(one.label)}</dt><dd>{value}</dd></div>")
    return f'<dl class="headlines">{"".join(parts)}</dl>' if parts else ""


def escaped(text: str) -> str:
    """A text of one line for HTML that Python writes. Characters that show nothing, or change the direction, become escapes."""
    return html.escape("".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text))


@cache
def _vendor(name: str) -> str:
    return (HERE / "vendor" / name).read_text(encoding="utf-8")


def _script(names: Iterable[str]) -> str:
    """The page's script: page.js and the scripts of the sections (NAME.js, after NAME_*.js), each in a scope of its own."""
    folder = HERE / "page"
    files = [file for name in names for file in (*sorted(folder.glob(f"{name}_*.js")), folder / f"{name}.js")]
    parts = [f"(() => {{\n{path.read_text(encoding='utf-8')}\n}})();" for path in files]
    return "\n".join([(folder / "page.js").read_text(encoding="utf-8"), *parts, "page.start();\n"])


def _style(names: Iterable[str], has_tables: bool) -> str:
    """The page's style, and those of the sections that have one."""
    files = [HERE / "page" / f"{name}.css" for name in ("page", *names)]
    parts = [path.read_text(encoding="utf-8") for path in files if path.exists()]
    return "\n".join([*([_vendor("tabulator.min.css")] if has_tables else []), *parts])


def _hash(script: str) -> str:
    """Of a script that the page may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@cache
def _compressed_vendor(name: str) -> bytes:
    return gzip.compress(_vendor(name).encode(), 9, mtime=0)


@cache
def _tables() -> dict[str, bytes]:
    """Data that every page has: the languages, by name."""
    table = {
        one.name: [one.iso639_1 or one.iso639_3, one.script, one.direction, one.flores, one.endonym]
        for one in languages.load().values()
    }
    names = {name: code for name, code in languages.other_names().items() if name not in table}
    return {"data-languages": packing.compressed({"languages": table, "names": names})}
