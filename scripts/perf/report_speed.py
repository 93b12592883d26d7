"""Size of the page of a run, time and memory to make it, and how fast it is in Chromium.

    python scripts/perf/report_speed.py --pairs 100000
    python scripts/perf/report_speed.py --pairs 10000000 --no_browser
    python scripts/perf/report_speed.py --run outputs/demo

Without --run a synthetic run is made, in ten languages, by tests/support/synthetic_run.py; of 1,000,000 pairs and more, stages 1 to
3 alone without the responses. Times in the browser are medians, from the event to the frame in which the result is painted.
"""

import argparse
import gzip
import json
import statistics
import tempfile
import time
from pathlib import Path

from measuring import command_line, run_measured

from tests.support import browser, pages, synthetic_run

LARGE = 1_000_000
ROUNDS = 5
SAMPLE_BYTES = 1_000_000
# Runs before any script of the page: when it could first be used, and how long a change takes until it is painted.
PROBE = """
window.probe = {ready: null};
new MutationObserver(() => {
  if (probe.ready === null && document.documentElement && document.documentElement.dataset.ready) probe.ready = performance.now();
}).observe(document, {attributes: true, subtree: true, attributeFilter: ["data-ready"]});
"""


def build(run: Path, page: Path, *flags: str) -> dict:
    """Make a page in a process of its own: its size, seconds of time and of processor, and the peak of memory."""
    found = run_measured(["scripts/report.py", run.absolute(), "-o", page.absolute(), *flags], fine=(0, 3))
    return {"mb": round(page.stat().st_size / 1e6, 2), "build_seconds": round(found.pop("seconds"), 1), **found}


def compression(run: Path) -> dict[str, float]:
    """How many times smaller gzip makes the first texts of each language: real text of this length is 2.3 to 5 times smaller."""
    found = {}
    for path in sorted(run.glob("*/*_translate.jsonl")):
        with open(path, encoding="utf-8") as file:
            text = "\n".join(
                t for line in file.readlines(SAMPLE_BYTES) for t in json.loads(line)["propositions"]
            ).encode()
        if text:
            found[path.name.removesuffix("_translate.jsonl")] = round(len(text) / len(gzip.compress(text)), 2)
    return found


def median(values: list[float]) -> float:
    return round(statistics.median(values), 1)


def loading(opened: browser.Browser, page: Path, rounds: int) -> dict:
    """Milliseconds from the navigation to the first paint with text, and until the page can be used."""
    painted, ready = [], []
    for _ in range(rounds):
        pages.opened(opened, page)
        ready.append(opened.run("return probe.ready"))
        painted.append(
            opened.wait("const e = performance.getEntriesByName('first-contentful-paint')[0]; return e && e.startTime")
        )
    return {"first_paint_ms": median(painted), "usable_ms": median(ready)}


def sections(opened: browser.Browser, page: Path) -> dict[str, float]:
    """Milliseconds to show each section when a reader comes to it first."""
    pages.opened(opened, page)
    names, found = pages.sections(opened), {}
    for name in names:
        pages.opened(opened, page)
        found[name] = opened.run_async(
            "const section = document.getElementById(arguments[0]), start = performance.now();"
            "page.show(arguments[0]);"
            "while (section.querySelector('[aria-busy=true], .wait')) await new Promise(r => setTimeout(r));"
            "await new Promise(r => requestAnimationFrame(() => setTimeout(r)));"
            "return Math.round(performance.now() - start)",
            name,
        )
    return found


# Each interaction as a function of the page, and its time from the event to the painted result.
INTERACTIONS = """
const frame = () => new Promise(r => requestAnimationFrame(() => setTimeout(r)));
const status = document.getElementById("pairs-status"), holder = document.querySelector("#pairs .tabulator-tableholder");
let said = 0; // how often the status was written: a search that finds every row says the same again
new MutationObserver(() => { said += !status.textContent.startsWith("Preparing"); }).observe(status, {childList: true});
const settled = async (before) => {
  const end = performance.now() + 30000;
  while (said === before && performance.now() < end) await new Promise(r => setTimeout(r));
};
async function change(id, value) {
  const control = document.getElementById(id), before = said, start = performance.now();
  control.value = value;
  control.dispatchEvent(new Event(control.tagName === "SELECT" ? "change" : "input", {bubbles: true}));
  await settled(before);
  await frame();
  return Math.round(performance.now() - start);
}
async function sort(field) {
  const head = () => document.querySelector(`#pairs .tabulator-col[tabulator-field=${field}]`), before = head().ariaSort, start = performance.now();
  head().click();
  while (head().ariaSort === before && performance.now() < start + 30000) await new Promise(r => setTimeout(r));
  await frame();
  return Math.round(performance.now() - start);
}
async function scroll() {
  const times = [], steps = 60;
  for (let i = 1; i <= steps; i++) {
    const start = performance.now();
    holder.scrollTop = holder.scrollHeight * (i % 2 ? i / steps : 1 - i / steps);
    await frame();
    times.push(performance.now() - start);
  }
  holder.scrollTop = 0;
  await frame();
  times.sort((a, b) => a - b);
  return {median: Math.round(times[steps / 2]), worst: Math.round(times[steps - 1])};
}
const found = {rows: Number(status.dataset.count)}, has = (id) => document.getElementById(id) !== null, first = (id) => [...document.getElementById(id).options].find(o => o.value).value;
await change("pairs-q", "warm up");
await change("pairs-q", "");
for (const [name, term] of Object.entries(terms)) {
  found[`search: ${name}`] = await change("pairs-q", term);
  found[`search: ${name}, rows`] = Number(status.dataset.count);
  await change("pairs-q", "");
}
for (const [name, id] of [["language", "pairs-language"], ["reason", "pairs-reason"], ["score from 4", "pairs-min"]]) {
  if (!has(id)) continue; // a run of one language, or without scores
  found[`filter: ${name}`] = await change(id, id === "pairs-min" ? "4" : first(id));
  await change(id, "");
}
found["sort: score"] = await sort("score");
found["sort: length"] = await sort("length");
found["sort: id"] = await sort("i");
found["a jump in the rows"] = await scroll();
const start = performance.now();
document.querySelector("#pairs .tabulator-row").click();
await frame();
found["open a row"] = Math.round(performance.now() - start);
return found;
"""
TERMS = {
    "a word of many rows": "everyone",
    "a word of few rows": "xylophone-like",
    "one letter": "e",
    "two words": "right human",
}


def interactions(opened: browser.Browser, page: Path, rounds: int) -> dict:
    """Milliseconds of what a reader does with the pairs; the delay of 120 ms after the last key of a search is part of them."""
    found = []
    for _ in range(rounds):
        pages.opened(opened, page, "pairs")
        opened.wait("const s = document.getElementById('pairs-status'); return s && s.dataset.count", 120)
        found.append(opened.run_async(f"const terms = arguments[0];{INTERACTIONS}", TERMS))
    return {
        name: {key: median([one[name][key] for one in found]) for key in first}
        if isinstance(first := found[0][name], dict)
        else median([one[name] for one in found])
        for name in found[0]
    }


def measure(run: Path, folder: Path, args: argparse.Namespace) -> dict:
    result = {"compression": compression(run)}
    kinds = {"default": (), "all_pairs": ("--max_mb", "60")}
    for kind, flags in kinds.items():
        page = folder / f"{kind}.html"
        result[kind] = build(run, page, *flags)
        print(kind, result[kind], flush=True)
    if args.no_browser:
        return result
    with browser.chromium() as opened:
        opened.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": PROBE})
        for kind in kinds:
            page = folder / f"{kind}.html"
            result[kind] |= loading(opened, page, ROUNDS) | {"sections_ms": sections(opened, page)}
            if "pairs" in result[kind]["sections_ms"]:
                result[kind]["pairs_ms"] = interactions(opened, page, 3)
            result[kind]["faults"] = opened.faults()
            print(kind, result[kind], flush=True)
    return result


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--run", type=Path, help="measure this run instead of a synthetic one")
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--no_browser", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, run, result = Path(scratch), args.run, {}
        if run is None:
            run, whole, started = folder / "run", args.pairs < LARGE, time.monotonic()
            made = synthetic_run.make(run, args.pairs, responses=whole, later_stages=whole)
            result = {"pairs": made.pairs.total(), "rejects": made.outcomes.total()}
            result["mb_of_files"] = round(sum(f.stat().st_size for f in run.rglob("*") if f.is_file()) / 1e6)
            print(result, f"made in {time.monotonic() - started:.0f} s", flush=True)
        result |= measure(run, folder, args)
    print(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
