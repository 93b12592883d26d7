"""The page of a run: the files that it was made from, and its numbers, by making it again of these files."""

from pathlib import Path

from comptra.report import Options, packing
from comptra.report import page as pages
from comptra.report.sources import watching
from comptra.scores.metrics import METRICS
from comptra.verify import Audit, why_unclaimed
from topxgen.common import hub
from topxgen.common.console import quiet
from topxgen.runs.folders import find


def check(audit: Audit, folder: Path, names: set[str]) -> None:
    for name in sorted(names):
        path = folder / name
        if name.endswith(".html") and packing.is_page(path):
            audit.attempt(path, _check_page, audit, path)


def _check_page(audit: Audit, path: Path) -> None:
    page = packing.read(path, "page")
    same = []
    for source in page["sources"]:
        named = Path(page["root"]) / source["path"]
        if why_unclaimed(named):  # it may change later
            continue
        file = audit.locate(str(named), path)
        if source["sha256"] is None:
            audit.skip(path, f"{source['path']} changed while the page was made")
        elif file is None:
            audit.problem(path, f"was made from {source['path']}, which is missing")
        else:
            what = f"SHA-256 of {source['path']}, which it was made from"
            same.append(audit.equal(path, what, source["sha256"], audit.sha256(file)))
    if audit.options.with_scores and all(same):
        if why := _why_not(page):
            audit.skip(path, f"its numbers: not computed again: {why}")
        else:
            audit.attempt(path, _make_again, audit, path, page)


def _why_not(page: dict) -> str:
    """Why a page cannot be made again; "" if it can."""
    if any(page.get(key) != value for key, value in pages.made_by().items()):
        return "it was made by another version of this program or of its packages"
    missing = [folder for folder in (page["root"], *page["settings"]["folders"]) if not Path(folder).is_dir()]
    return f"{missing[0]} is not there" if missing else ""


def _make_again(audit: Audit, path: Path, page: dict) -> None:
    settings, root, others = page["settings"], Path(page["root"]), map(Path, page["settings"]["folders"])
    folder = settings["benchmark_dir"]
    options = Options(settings["seed"], settings["max_examples"], benchmark_dir=Path(folder) if folder else None)
    with hub.offline(), quiet(), watching(root, *others) as sources:
        run = find(root, *sources.roots[1:])
        pieces = pages.build(run, sources, options, settings["page_bytes"], page["command"], started=page["started"])
    texts = "".join(pieces), path.read_text(encoding="utf-8", errors="replace")
    made, found = map(packing.elements, texts)
    if made["page"] != found["page"]:
        return audit.skip(path, "its numbers: not computed again: other files are there than it was made from")
    for name in made | found:
        audit.checked["scores"] += 1
        if made.get(name) == found.get(name):
            continue
        if name == "evaluation" and _has_kept_scores(audit):
            audit.skip(path, "its scores of sentences: not computed again: they come from a cache that changes")
        else:
            what = f"its section {name}" if name else "its text"
            audit.problem(path, f"{what} is not what the files say that it was made from")


def _has_kept_scores(audit: Audit) -> bool:
    """Whether scores of models, which are kept outside the run, are in the reports."""
    titles = {name for report in audit.reports.values() for group in report["groups"] for name in group["titles"]}
    return any(METRICS[name].of_segments for name in titles & METRICS.keys())
