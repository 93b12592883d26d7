"""A plan past one machine: hours, cost and disk of a corpus, from rates; what limits each stage.

    python scripts/perf/scale.py
    python scripts/perf/scale.py --tokens 1e9 --gpus 4 32 --rates llm_tokens=9000 usd_per_gpu_hour=1.8 --languages 3
    python scripts/perf/scale.py --list

A table in Markdown: each size on each number of GPUs. Stages run one after the other; what a process does alone beside GPUs or cores is its
limit only if it is slower. `--list` shows the rates and where they come from; put in your own with `--rates`.
"""

import argparse
from collections.abc import Mapping
from typing import NamedTuple

from measuring import command_line

from topxgen.common.console import markdown_table, show
from topxgen.doctor.rates import RATES, USER


class Stage(NamedTuple):
    name: str
    hours: float
    limit: str  # what is busy all the time


def dedup_hours(kept: float, rates: Mapping[str, float], how: str) -> float:
    """Of one process with `kept` paragraphs of one language: each is compared with those before."""
    mean = rates[f"{how}_us"] + rates[f"{how}_us_per_100k"] * kept / 100_000 / 2
    return kept * mean * 1e-6 / 3600


def plan(tokens: float, gpus: int, languages: int, rates: Mapping[str, float]) -> list[Stage]:
    """The stages of a corpus for which the LLM writes `tokens` tokens, shared evenly by the languages, each a process of its own."""
    paragraphs = tokens / rates["tokens_per_paragraph"]
    kept = paragraphs / languages
    pairs = paragraphs * rates["sentences_per_paragraph"]
    how = dedup_method(kept, rates)
    responses = kept / rates["paragraphs_per_response"]
    loop = responses * rates["loop_ms"] * 1e-3 / 3600 + dedup_hours(kept, rates, how)
    merge = loop + (responses / rates["merged_responses"] + kept / rates["merged_lines"]) / 3600
    english = pairs * rates["tokens_per_sentence"]
    prompts = paragraphs / rates["paragraphs_per_response"] * rates["prompt_tokens"]

    def on_gpus(name: str, work: float, rate: str, one_process: float = 0.0, before: float = 0.0) -> Stage:
        hours = (work / rates[rate] + before) / gpus / 3600
        return Stage(name, max(hours, one_process), "GPUs" if hours >= one_process else "loop of a language")

    cores = gpus * rates["cores_per_gpu"]
    return [
        on_gpus("generate", tokens, "llm_tokens", loop, prompts / rates["prefilled_tokens"]),
        Stage("merge", merge, "one process a language"),
        on_gpus("translate", english, "nllb_tokens"),
        on_gpus("score", pairs, "scored_pairs"),
        Stage("decontaminate", pairs / (rates["decontaminated_pairs"] * cores) / 3600, "cores"),
        on_gpus("train, an epoch", 2 * (tokens + english), "trained_tokens"),
    ]


def dedup_method(kept: float, rates: Mapping[str, float]) -> str:
    """The exact search while it takes an hour at most."""
    return "exact" if dedup_hours(kept, rates, "exact") <= 1 else "minhash"


def table(sizes: list[float], numbers: list[int], languages: int, rates: Mapping[str, float]) -> list[list[str]]:
    """A header and a row for each size and number of GPUs."""
    rows = []
    for tokens in sizes:
        for gpus in numbers:
            stages = plan(tokens, gpus, languages, rates)
            paragraphs = tokens / rates["tokens_per_paragraph"]
            kept = paragraphs / languages
            how = dedup_method(kept, rates)
            disk = paragraphs * (rates["generated_bytes"] + 2 * rates["sentences_per_paragraph"] * rates["pair_bytes"])
            hours = sum(stage.hours for stage in stages)
            cost = hours * gpus * rates["usd_per_gpu_hour"]
            slowest = max(stages, key=lambda stage: stage.hours)
            rows.append([_count(tokens), str(gpus), *(_time(stage.hours) for stage in stages), _time(hours)])
            rows[-1] += [f"{slowest.name}: {slowest.limit}", f"{cost:,.{0 if cost >= 10 else 2}f}"]
            rows[-1] += [_size(disk), f"{how}, {_size(kept * rates[f'{how}_bytes'])}"]
    names = [stage.name for stage in stages]
    return [["tokens", "GPUs", *names, "all", "longest", "USD", "disk", "near-duplicates, memory a language"], *rows]


def _time(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:,.1f} h" if hours < 48 else f"{hours / 24:,.0f} days"


def _count(number: float) -> str:
    unit, name = next(((unit, name) for unit, name in ((1e9, " G"), (1e6, " M")) if number >= unit), (1, ""))
    return f"{number / unit:.4g}{name}"


def _size(size: float) -> str:
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.3g} {unit}"
    return f"{size / 1000:.3g} TB"


def _rate(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    if name not in RATES:
        raise argparse.ArgumentTypeError(f"there is no rate {name!r}: one of {', '.join(RATES)}")
    try:
        number = float(value)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{name}={value!r} is no number above 0")
    return name, number


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--tokens", type=float, nargs="+", default=[1e6, 1e8, 1e10], help="that the LLM writes")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--languages", type=int, default=10)
    parser.add_argument(
        "--rates", type=_rate, nargs="+", default=[], metavar="NAME=VALUE", help="in place of the listed ones"
    )
    parser.add_argument("--list", action="store_true", help="the rates, and where they come from")
    args = parser.parse_args()
    if min(*args.tokens, *args.gpus, args.languages, 1) < 1:
        parser.error("--tokens, --gpus and --languages are numbers of 1 or more")
    rates = {name: rate.value for name, rate in RATES.items()} | dict(args.rates)
    if args.list:
        given = dict(args.rates)
        rows = [
            [name, f"{rates[name]:,.6g}", rate.unit, USER if name in given else rate.source]
            for name, rate in RATES.items()
        ]
        rows.insert(0, ["rate", "value", "unit", "source"])
    else:
        rows = table(args.tokens, args.gpus, args.languages, rates)
    show(markdown_table(rows[0], rows[1:]))


if __name__ == "__main__":
    main()
