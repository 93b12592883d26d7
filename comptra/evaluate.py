"""Score the translations of main.py: BLEU, chrF++ and language consistency, with significance against a baseline.

    python -m comptra.evaluate outputs/flores --baseline outputs/flores/Meta-Llama-3-8B --csv scores.csv --json scores.json

DIR is the folder of a run (`{model}/{src}_to_{tgt}_{k}_shot_…`, which holds translate_0.jsonl) or any folder above such,
of main.py or of the original code. For the original's, which do not say what they translated, name it:

    python -m comptra.evaluate original/outputs --dataset_name_or_path flores --benchmark_dir ~/benchmarks

A * marks a difference from the baseline with p < 0.05 by paired approximate randomisation (Riezler and Maxwell 2005), with
Holm's correction where several systems are compared. Only systems on the same sentences of the same direction are.
"""

import argparse
import csv
import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from comptra import languages, metrics, provenance, test_sets
from comptra.arguments import FLAG, whole
from comptra.errors import UserError
from comptra.files import read_json, write_atomic, write_json
from comptra.languages import Language
from comptra.ordered import UNANSWERED
from comptra.progress import printable
from comptra.provenance import TRANSLATE_MANIFEST as MANIFEST
from comptra.provenance import TRANSLATE_SETTINGS as SETTINGS

ALPHA = 0.05


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m comptra.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("dirs", nargs="+", type=Path, metavar="DIR", help="of runs, or above them")

    group = parser.add_argument_group("what was translated")
    group.add_argument("--dataset_name_or_path", choices=test_sets.DATASETS, help="[what main.py wrote down]")
    group.add_argument("--benchmark_dir", type=Path, metavar="DIR", help="local copies of benchmarks [the Hub]")
    group.add_argument(
        "--test_files", nargs=2, type=Path, metavar=("SRC", "REF"), help="of the data set files [the manifest's]"
    )
    group.add_argument("--languages_file", metavar="TSV", help="rows of your own, as in comptra/languages.tsv")
    group.add_argument(
        "--step", type=whole(0), default=0, help="which translate_{step}.jsonl; only 0 has references [%(default)s]"
    )
    group.add_argument("--allow_partial", **FLAG, help="score runs that are not done too, on what there is")

    group = parser.add_argument_group("metrics")
    group.add_argument("--metrics", nargs="+", choices=metrics.METRICS, metavar="METRIC", help="[bleu chrf lang]")
    group.add_argument(
        "--tokenize",
        choices=metrics.TOKENIZERS,
        default="auto",
        help="of BLEU; auto: flores200 where its model can be had, else 13a, or what the script needs [%(default)s]",
    )
    group.add_argument("--lid_model", default="cld2", metavar="CLD2_PATH_OR_ID", help="for lang [%(default)s]")

    group = parser.add_argument_group("significance")
    group.add_argument("--baseline", type=Path, metavar="DIR", help="what all others are compared to")
    group.add_argument("--trials", type=whole(1), default=10000, help="of the test [%(default)s]")
    group.add_argument("--bootstrap", type=whole(0), default=0, metavar="N", help="samples for 95%% intervals [none]")
    group.add_argument("--seed", type=whole(0), default=12345, help="[%(default)s, sacrebleu's]")

    group = parser.add_argument_group("files")
    group.add_argument("--csv", type=Path, metavar="FILE", help="one row a system")
    group.add_argument("--json", type=Path, metavar="FILE", help="everything: signatures, versions, fingerprints")
    return parser


@dataclass(frozen=True)
class System:
    """A folder with translations, and what they are translations of."""

    folder: Path
    dataset: str
    src: Language
    tgt: Language
    sentences: list[str]
    translations: list[str]
    references: list[str] | None
    missing: int  # sentences of the test set that have no translation yet
    unanswered: int  # lines that lack an answer: empty, or made without it
    settings: dict  # of main.py; {} for the original's
    facts: dict  # of the test set

    @property
    def short_name(self) -> str:
        """Model and settings; the direction is the same for all it is shown with."""
        direction = _DIRECTION.match(self.folder.name)
        return (
            f"{self.folder.parent.name}/{self.folder.name[direction.end(1) + 1 :] if direction else self.folder.name}"
        )

    @cached_property
    def test(self) -> tuple:
        """What must be equal for two systems to be comparable."""
        references = provenance.digest(self.references) if self.references is not None else ""
        digest = provenance.digest(self.sentences)
        return self.src.name, self.tgt.name, len(self.sentences), digest, references


_DIRECTION = re.compile(r"(.+_to_.+)_\d+_shot_seed_")


def find_runs(folders: list[Path], step: int) -> list[Path]:
    """The folders that hold translate_{step}.jsonl, in `folders` or below, each once. Raises UserError where there is none."""
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; pass the --output_dir of main.py, or a folder of a run in it")
        files = sorted(folder.rglob(f"translate_{step}.jsonl"))
        if not files:
            raise UserError(f"there is no translate_{step}.jsonl in {folder} nor below; main.py writes it")
        for file in files:
            found.setdefault(file.parent.resolve(), file.parent)
    return list(found.values())


def direction_of(name: str, languages_file: str | None = None) -> tuple[Language, Language]:
    """The languages in the name of a run's folder, English names or FLORES codes. Raises UserError when it has none."""
    match = _DIRECTION.match(name)
    if not match:
        raise UserError(
            f"{name!r} does not say what was translated: there is no {MANIFEST} in it, and it is not named "
            "{src}_to_{tgt}_{k}_shot_seed_…"
        )
    words = match[1].split("_to_")
    failure = None
    for i in range(1, len(words)):
        try:
            src, tgt = (_language("_to_".join(side), languages_file) for side in (words[:i], words[i:]))
            return src, tgt
        except UserError as error:
            failure = error
    raise UserError(f"{name!r}: {failure}")


def _language(name: str, languages_file: str | None) -> Language:
    try:
        return languages.find(name, languages_file)
    except UserError:
        if "_" not in name:
            raise
        return languages.find(name.replace("_", " "), languages_file)


def read_translations(path: Path) -> tuple[list[tuple[str, str, bool]], str | None]:
    """(sentence, translation, whether it lacks an answer) a line, and what is wrong with the last line, if it is (left out then).

    A line in the middle that is not {"sentence": text, "translation": text} raises UserError.
    """
    pairs = []
    lines = path.read_bytes().split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            pair = record["sentence"], record["translation"], bool(record.get(UNANSWERED))
            if pair[1] is None:  # as some programs write where a model said nothing
                pair = pair[0], "", True
            if not all(isinstance(text, str) for text in pair[:2]):
                raise TypeError("sentence and translation must be texts")
        except (ValueError, KeyError, TypeError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            problem = f"{path}, line {number}: not a sentence with its translation ({what})"
            if number < len(lines):
                raise UserError(f"{problem}; mend or remove the line") from None
            return pairs, f"{problem}, half-written by a run that was stopped or goes on"
        pairs.append(pair)
    return pairs, None


def read_system(
    folder: Path, args: argparse.Namespace, load_test_set: Callable, say: Callable[[str], None]
) -> System | None:
    """The translations in `folder`, held against the test set line by line; None: nothing in it yet, which is said.

    Raises UserError when they are of another test set, or not complete without --allow_partial.
    """
    manifest = read_json(folder / MANIFEST)
    settings = manifest.get("settings") or read_json(folder / SETTINGS)
    if "src" in settings and "tgt" in settings:
        src, tgt = (languages.find(settings[side], args.languages_file) for side in ("src", "tgt"))
    else:
        src, tgt = direction_of(folder.name, args.languages_file)
    path = folder / f"translate_{args.step}.jsonl"
    pairs, problem = read_translations(path)
    if problem and not args.allow_partial:
        raise UserError(f"{problem}; let main.py finish it, or pass --allow_partial")
    if problem:
        say(f"{problem}: left out")
    sentences, translations = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    unanswered = sum(pair[2] for pair in pairs)
    if unanswered:
        say(
            f"WARNING: {unanswered} lines of {path} lack an answer (a prompt too long, refused by an API) and count as they "
            "stand; main.py asks again"
        )
    dataset = args.dataset_name_or_path or ("files" if args.test_files else settings.get("dataset_name_or_path"))
    references, missing, facts = None, 0, {}
    if args.step == 0:
        if not dataset:
            raise UserError(
                f"{folder} does not say which test set it is of (no {MANIFEST}); pass --dataset_name_or_path, one of "
                + ", ".join(test_sets.DATASETS)
            )
        files = args.test_files or (_files_of(manifest) if dataset == "files" else None)
        test_set = load_test_set(dataset, src, tgt, settings.get("max_samples"), files and tuple(files))
        what = f"{dataset} from {src.name} into {tgt.name}"
        _check_sentences(path, sentences, test_set.sources, what)
        missing = len(test_set.sources) - len(sentences)
        if missing and not args.allow_partial:
            raise UserError(
                f"{path} has {len(sentences)} translations, {missing} of {len(test_set.sources)} sentences of {what} are missing; let "
                "main.py finish it, or pass --allow_partial"
            )
        sentences, references = test_set.sources[: len(pairs)], test_set.references[: len(pairs)]
        facts = test_set.facts
        if _references_digest(manifest.get("test_set", {})) not in (None, _references_digest(facts)):
            say(
                f"WARNING: {what} has other references now than when main.py finished {folder} (another release, an edited "
                "file?): scores are against those of now"
            )
    if not pairs:
        if not args.allow_partial:
            raise UserError(f"{path} is empty")
        say(f"{path} has no translations yet: left out")
        return None
    return System(
        folder, dataset or "", src, tgt, sentences, translations, references, missing, unanswered, settings, facts
    )


def _references_digest(facts: dict) -> str | None:
    """Of a test set's facts, as in a manifest."""
    return facts.get("test", {}).get("references", {}).get("sha256")


def _files_of(manifest: dict) -> list[Path] | None:
    """The test files of a run with --dataset_name_or_path files; None where it does not tell (yet)."""
    sides = manifest.get("test_set", {}).get("test", {})
    paths = [Path(sides[side]["from"]) for side in ("sources", "references") if "from" in sides.get(side, {})]
    return paths if len(paths) == 2 else None


def _check_sentences(path: Path, sentences: list[str], sources: list[str], what: str) -> None:
    for number, (sentence, source) in enumerate(zip(sentences, sources, strict=False), start=1):
        if sentence.split() != source.split():
            raise UserError(
                f"{path}, line {number} translates {_short(sentence)}, {what} has {_short(source)} there: another data set or "
                "direction; see --dataset_name_or_path"
            )
    if len(sentences) > len(sources):
        raise UserError(f"{path} has {len(sentences)} lines, {what} only {len(sources)} sentences: another data set?")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")


def evaluate(args: argparse.Namespace, say: Callable[[str], None]) -> dict:
    """All that --json holds: for each test set and direction, the systems with their scores. Raises UserError."""
    names = list(dict.fromkeys(args.metrics or metrics.METRICS))
    if args.step:
        if args.metrics and set(names) - metrics.NEED_NO_REFERENCES:
            raise UserError(
                f"--step {args.step}: phrases have no references; choose --metrics {' '.join(metrics.NEED_NO_REFERENCES)}"
            )
        names = [name for name in names if name in metrics.NEED_NO_REFERENCES]
    say = once(say)
    baselines = find_runs([args.baseline], args.step) if args.baseline else []
    folders = {folder.resolve(): folder for folder in baselines + find_runs(args.dirs, args.step)}

    @cache
    def load_test_set(dataset, src, tgt, max_samples, test_files):
        return test_sets.load(
            dataset,
            src,
            tgt,
            folder=args.benchmark_dir,
            max_samples=max_samples,
            test_files=test_files,
            need_pool=False,
        )

    groups: dict[tuple, list[System]] = {}
    for folder in folders.values():
        system = read_system(folder, args, load_test_set, say)
        if system is not None:
            groups.setdefault(system.test, []).append(system)
    if not groups:
        raise UserError("nothing is translated yet")
    ordered = sorted(
        groups.values(), key=lambda systems: (systems[0].dataset, systems[0].src.name, systems[0].tgt.name)
    )
    settings = metrics.MetricSettings(args.tokenize, args.lid_model, say)
    resolved = {folder.resolve() for folder in baselines}
    report = {
        "trials": args.trials if args.baseline else 0,
        "bootstrap": args.bootstrap,
        "seed": args.seed,
        "versions": provenance.versions(),
        "groups": [score_group(systems, names, resolved, args, settings) for systems in ordered],
    }
    if args.baseline:
        for group in report["groups"]:
            if not group["baseline"]:
                others = ", ".join(system["path"] for system in group["systems"])
                say(
                    f"--baseline {args.baseline} has not the same sentences of {title_of(group)} as {others}: not compared"
                )
    return report


def score_group(
    systems: list[System],
    names: list[str],
    baselines: set[Path],
    args: argparse.Namespace,
    settings: metrics.MetricSettings,
) -> dict:
    """The scores of systems on one test set, and their differences from the one that is in `baselines`."""
    from comptra import significance

    systems = sorted(systems, key=lambda system: system.folder.resolve() not in baselines)
    first = systems[0]
    bases = [system for system in systems if system.folder.resolve() in baselines]
    if len(bases) > 1:
        raise UserError(
            f"--baseline {args.baseline} holds several systems for {first.dataset} from {first.src.name} into {first.tgt.name}; "
            f"name one: {', '.join(str(system.folder) for system in bases)}"
        )
    test = metrics.Test(first.src, first.tgt, first.sentences, first.references)
    scorers = {name: scorer for name in names if (scorer := metrics.create(name, test, settings))}
    functions = [scorer.scores for scorer in scorers.values()]
    statistics = [[scorer.statistics(system.translations) for scorer in scorers.values()] for system in systems]

    rows = []
    for system, its_statistics in zip(systems, statistics, strict=True):
        values = {
            name: {"score": float(scorer.scores(stats.sum(axis=0)[None])[0])}
            for (name, scorer), stats in zip(scorers.items(), its_statistics, strict=True)
        }
        if args.bootstrap and scorers:
            intervals = significance.bootstrap_intervals(its_statistics, functions, args.bootstrap, args.seed)
            for value, interval in zip(values.values(), intervals, strict=True):
                value["interval"] = list(interval)
        rows.append(
            {
                "name": system.short_name,
                "path": str(system.folder),
                "sentences": len(system.translations),
                "missing": system.missing,
                "unanswered": system.unanswered,
                "empty": sum(not text.strip() for text in system.translations),
                "translations_digest": provenance.digest(system.translations),
                "scores": {name: values.get(name) for name in names},
                "settings": system.settings,
            }
        )
    shown = [row["name"] for row in rows]
    for row in rows:  # two outputs of one model
        if shown.count(row["name"]) > 1:
            row["name"] = row["path"]
    if bases and len(systems) > 1 and scorers:
        p_values = significance.randomization_p_values(statistics[0], statistics[1:], functions, args.trials, args.seed)
        for name, column in zip(scorers, p_values.T.tolist(), strict=True):
            for row, p, corrected in zip(rows[1:], column, significance.holm(column), strict=True):
                row["scores"][name] |= {"p": p, "p_holm": corrected}
    return {
        "dataset": "/".join(dict.fromkeys(system.dataset for system in systems)),  # of one test set: flores/topxgen
        "src": first.src.name,
        "tgt": first.tgt.name,
        "step": args.step,
        "sentences": len(first.sentences),
        "test_set": first.facts,
        "sources_digest": provenance.digest(first.sentences),
        "references_digest": provenance.digest(first.references) if first.references is not None else None,
        "baseline": str(bases[0].folder) if bases else None,
        "titles": {name: scorers[name].title if name in scorers else name for name in names},
        "signatures": {name: scorer.signature for name, scorer in scorers.items()},
        "systems": rows,
    }


def once(say: Callable[[str], None]) -> Callable[[str], None]:
    """`say` that says nothing twice."""
    told = set()

    def say_once(line: str) -> None:
        if line not in told:
            told.add(line)
            say(line)

    return say_once


def title_of(group: dict) -> str:
    what = (
        f"{group['sentences']} phrases of step {group['step']}" if group["step"] else f"{group['sentences']} sentences"
    )
    return f"{group['dataset']} from {group['src']} into {group['tgt']}, {what}".strip()


def table(report: dict) -> str:
    """The report for the terminal: one aligned table for each test set and direction."""
    return "\n\n".join(_group_table(group, report) for group in report["groups"])


def _group_table(group: dict, report: dict) -> str:
    compared = len(group["systems"]) - 1 if group["baseline"] else 0
    header = ["system"]
    for title in group["titles"].values():
        header += [title] + (["p"] if compared else []) + (["Holm"] if compared > 1 else [])
    rows = [[*header, "empty"]]
    for system in group["systems"]:
        marks = [" (baseline)"] if system["path"] == group["baseline"] else []
        if system["missing"]:
            marks.append(f" (partial: {system['missing']} of {system['missing'] + system['sentences']} are missing)")
        if system["unanswered"]:
            marks.append(f" ({system['unanswered']} unanswered)")
        row = [printable(system["name"]) + "".join(marks)]
        for value in system["scores"].values():
            row.append(_cell(value))
            if compared:
                row.append(_p_cell(value, "p"))
            if compared > 1:
                row.append(_p_cell(value, "p_holm"))
        rows.append([*row, str(system["empty"])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [title_of(group)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]))
    for name, signature in group["signatures"].items():
        lines.append(f"{group['titles'][name]}: {signature}")
    if compared:
        corrected = f", Holm's correction over {compared} systems" if compared > 1 else ""
        lines.append(
            f"* p < {ALPHA}: approximate randomisation, {report['trials']} trials, seed {report['seed']}{corrected}"
        )
    if report["bootstrap"]:
        lines.append(f"[95% interval]: bootstrap, {report['bootstrap']} samples, seed {report['seed']}")
    return "\n".join(lines)


def _cell(value: dict | None) -> str:
    if value is None:
        return "-"
    interval = f" [{value['interval'][0]:.1f}, {value['interval'][1]:.1f}]" if "interval" in value else ""
    star = "*" if value.get("p_holm", 1) < ALPHA else " "  # with one system the corrected p is the p
    return f"{value['score']:.2f}{interval}{star}"


def _p_cell(value: dict | None, key: str) -> str:
    return f"{value[key]:.4f}" if value and key in value else "-"


def csv_text(report: dict) -> str:
    """The report with one row a system."""
    names = list(dict.fromkeys(name for group in report["groups"] for name in group["titles"]))
    columns = ["dataset", "src", "tgt", "step", "system", "path", "baseline", "sentences", "missing"]
    columns += ["unanswered", "empty"]
    for name in names:
        columns += [name, f"{name}_low", f"{name}_high", f"{name}_p", f"{name}_p_holm", f"{name}_signature"]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for group in report["groups"]:
        for system in group["systems"]:
            row = {key: group[key] for key in ("dataset", "src", "tgt", "step")}
            row |= {key: system[key] for key in ("path", "sentences", "missing", "unanswered", "empty")}
            row |= {"system": system["name"], "baseline": group["baseline"] or ""}
            for name, value in system["scores"].items():
                if value is None:
                    continue
                low, high = value.get("interval", ("", ""))
                row |= {name: value["score"], f"{name}_low": low, f"{name}_high": high}
                row |= {f"{name}_{key}": value.get(key, "") for key in ("p", "p_holm")}
                row[f"{name}_signature"] = group["signatures"][name]
            writer.writerow(row)
    return out.getvalue()


def main() -> int:
    args = build_parser().parse_args()
    try:
        report = evaluate(args, say)
        print(table(report))
        if args.csv:
            write_atomic(args.csv, [csv_text(report)])
        if args.json:
            write_json(args.json, report)
        return 0
    except UserError as error:
        say(f"error: {error}")
        return error.exit_code
    except OSError as error:  # a folder that cannot be read, a --csv or --json that cannot be written
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        return 130


def say(line: str) -> None:
    print(f"evaluate: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
