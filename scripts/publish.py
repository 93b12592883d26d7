"""Publish generated pairs: a data set that `datasets` and the Hub read, with a card, and files for MT tools.

    python scripts/publish.py outputs/demo --out outputs/demo-pairs
    python scripts/publish.py outputs/topxgen --out topxgen-eu --languages Basque --percentile 20 --formats tmx moses
    python scripts/publish.py outputs/topxgen --out topxgen-pairs --push_to_hub my-org/topxgen-pairs

DIR is the output directory of datagen.py, or a folder above several. FOLDER gets {Language}/train.parquet and
validation.parquet, the card README.md, manifest_publish.json and SHA256SUMS, so that

    datasets.load_dataset("FOLDER", "Basque")

loads them. Pairs are those that decontamination.py left. The splits share no paragraph and no sentence, nor nearly equal ones.
docs/publishing.md says what each column and each file holds.
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from topxgen.common import flag_rules, hub
from topxgen.common.cli import EXIT_INCOMPLETE, FLAG, Parser, choices_help, count, float_range, int_range, run_main
from topxgen.common.console import show
from topxgen.common.errors import UsageError
from topxgen.common.flag_rules import Rule
from topxgen.flags import add_encoder_flags, add_language_flags
from topxgen.publication import dataset
from topxgen.publication.dataset import FORMATS, Options, Published
from topxgen.publication.sources import Selection
from topxgen.quality import sonar
from topxgen.retrieval import encoders
from topxgen.retrieval.encoders import EncoderSettings
from topxgen.runs.folders import find

logger = logging.getLogger("topxgen.publish")
RULES = (
    Rule(("encoder", "atlas_pairs"), "--atlas", lambda args: args.atlas),
    Rule(
        ("sonar_name_or_path", "encoder_device"),
        "--atlas --encoder sonar",
        lambda args: args.atlas and args.encoder == "sonar",
    ),
)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__, incomplete="the last line of a file is not complete, and left out")
    parser.add_argument("dir", type=Path, metavar="DIR", help="output directory of a run")

    add = parser.add_argument_group("what is written").add_argument
    add("--out", type=Path, required=True, metavar="FOLDER", help="new or empty folder of the data set")
    # fmt: off
    add("--formats", nargs="+", choices=FORMATS, default=[], metavar="NAME",
        help=choices_help("formats besides parquet", FORMATS, "none"))
    add("--push_to_hub", metavar="ORG/NAME",
        help="upload the folder to a new or existing private repository of data [not uploaded]")

    add = parser.add_argument_group("which pairs").add_argument
    add("--languages", nargs="+", metavar="LANGUAGE", help="English names or codes [all that the run has]")
    add_language_flags(add)
    add("--min_score", type=float_range(float("-inf")), metavar="S",
        help="only pairs with at least this quality score [all pairs]")
    add("--percentile", type=float_range(0, 100), metavar="P",
        help="only pairs with a score above this percentile of their language, as in train.py [all pairs]")
    add("--allow_undecontaminated", **FLAG,
        help="publish languages that decontamination.py has not run on; the card says so in bold")

    add = parser.add_argument_group("splits").add_argument
    add("--validation_size", type=float_range(0), metavar="SIZE",
        help="validation split of each language: a share of its pairs up to 1, else their number; 0: none [0.05, at most 1,000 pairs]")
    # fmt: on
    add("--seed", type=int_range(0, 2**32 - 1), default=122, help="seed of the split and of the samples")

    add = parser.add_argument_group("a map of the pairs, for Embedding Atlas").add_argument
    add("--atlas", **FLAG, help="write atlas/pairs.parquet: sentence vectors, x and y by UMAP, nearest neighbours")
    add_encoder_flags(add, "use", "encoder of the vectors")
    add("--atlas_pairs", **count(1, "pairs on the map at most, drawn with --seed", 20_000))
    return parser


def run(args: argparse.Namespace) -> int:
    flag_rules.check(RULES, args)
    if args.min_score is not None and args.percentile is not None:
        raise UsageError("--min_score and --percentile both select by score: pass one of them")
    if args.validation_size is not None and args.validation_size > 1 and args.validation_size % 1:
        raise UsageError(
            f"--validation_size {args.validation_size} is neither a share up to 1 nor a whole number of pairs"
        )
    if args.push_to_hub:
        hub.check_repository_name(args.push_to_hub)
        hub.check_token()
    options = Options(
        args.languages,
        args.languages_file,
        Selection(args.min_score, args.percentile),
        args.validation_size,
        args.seed,
        args.formats,
        make_atlas(args) if args.atlas else None,
        args.allow_undecontaminated,
        args.push_to_hub,
    )
    found = find(args.dir)
    for problem in found.problems:
        logger.warning(problem)
    cut = []
    if dataset.is_published(found, args.out, options):
        show(f"{args.out} already has this data set")
    else:
        published = dataset.publish(found, args.out, options)
        show(summary(published, args.out))
        cut = published.cut
    for path in cut:
        logger.warning(f"{path}: the last line is not complete and left out; a run is writing the file, or was killed")
    if args.push_to_hub:
        show(f"uploaded to {hub.upload(args.out, args.push_to_hub, 'dataset')}")
    return EXIT_INCOMPLETE if cut else 0


def make_atlas(args: argparse.Namespace):
    from topxgen.publication.atlas import Atlas

    if args.encoder == "sonar":
        hub.require(sonar.needs(args.sonar_name_or_path))
    return Atlas(encoders.create(args.encoder, EncoderSettings.from_args(args)), args.atlas_pairs, args.seed)


def summary(published: Published, out: Path) -> str:
    lines = []
    for part in published.parts:
        splits = ", ".join(f"{rows:,} {split}" for split, rows in part.rows.items())
        lines.append(f"{part.config.name}: {splits} pairs of {part.paragraphs:,} paragraphs")
        left_out = part.measured.pairs - part.pairs, part.measured.without_pairs
        for number, what in zip(left_out, ("pairs", "paragraphs without pairs"), strict=True):
            lines[-1] += f"; {number:,} {what} left out" if number else ""
        if any(source.filtered is None for source in part.config.sources):
            lines.append(f"  WARNING: {part.config.name} was not decontaminated; the card says so")
    return "\n".join([*lines, f"{out}: data set, card and checksums"])


def main() -> int:
    return run_main(build_parser(), run, "nothing was published; fix the problem and re-run")


if __name__ == "__main__":
    sys.exit(main())
