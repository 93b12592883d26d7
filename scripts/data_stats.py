"""Statistics of generated, published or native data: size, lengths, diversity, topics, quality scores; side by side.

    python scripts/data_stats.py outputs/demo
    python scripts/data_stats.py outputs/gemma outputs/llama udhr --languages Basque --csv stats.csv
    python scripts/data_stats.py data/wiki --languages Hausa --stage pairs filtered --seed_topics_path topics/wikipedia_vital_topics.txt

DIR is a folder of datagen.py or decontamination.py, of published data, or a folder above some: each {Language}.jsonl,
{Language}_translate.jsonl and {Language}_translate_filtered.jsonl is a column. Or it is native text as --benchmarks of
decontamination.py takes it: udhr, ntrex, a file or folder of texts. Files that a run is still writing may be read.

Measures of diversity depend on how much text they see, so all columns of a language get the same number of sentences and of
words, drawn with --seed; compare only figures of one command. docs/statistics.md says what each figure means.

With an LLM as a judge, the share of paragraphs that discuss their topic; its responses are kept in --output_dir:

    python scripts/data_stats.py outputs/gemma --judge_model_name_or_path google/gemma-3-27b-it --output_dir outputs/gemma-judge
"""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from topxgen import flags, inference
from topxgen.common import checksums, flag_rules, hub, needs, provenance
from topxgen.common.cli import EXIT_INCOMPLETE, Parser, count, int_range, run_main
from topxgen.common.console import Progress, show
from topxgen.common.errors import UsageError
from topxgen.common.files import check_output_files, write_atomic, write_json
from topxgen.common.flag_rules import Rule
from topxgen.common.locks import OutputLock
from topxgen.corpora.topics import read_categories, read_topics
from topxgen.inference import ENGINE_LOG, ModelSettings
from topxgen.inference.costs import Meter, Prices
from topxgen.prompting import style
from topxgen.quality import sonar
from topxgen.retrieval import encoders
from topxgen.retrieval.encoders import EncoderSettings
from topxgen.statistics import judge, tables
from topxgen.statistics.corpus import STAGES, Corpus, Sources, read_all
from topxgen.statistics.describe import Options, describe, encoding, token_counter

logger = logging.getLogger("topxgen.data_stats")
JUDGE_FLAGS = ("output_dir", "judge_prompt", "judge_sample", "max_new_tokens", "prompt_style", *flags.MODEL_FLAGS)
RECORDED = (
    *("sample", "seed", "tokenizer", "sonar_name_or_path"),
    *("judge_model_name_or_path", "inference_api", "judge_prompt", "judge_sample"),
)
# Of the files to write: an earlier one is replaced, another file is not.
BEGINNINGS = {
    "--csv": "path,stage,language,",
    "--json": r'\{\s*"settings": \{\s*"sample": ',
    "--markdown": r"\| [^\n]+ \|\n\| --- \|",
}
# fmt: off
RULES = (
    Rule(("sonar_name_or_path", "encoder_device"), "--encoder sonar", lambda args: args.encoder == "sonar" or ":" in (args.encoder or "")),
    Rule(JUDGE_FLAGS, "--judge_model_name_or_path", lambda args: args.judge_model_name_or_path),
    Rule(("lora_rank",), "an adapter, which the judge does not take: merge it (scripts/merge_lora.py)", lambda _: False),
    Rule(("api_key",), "--judge_model_name_or_path", lambda args: args.judge_model_name_or_path, harmless=True),
    *flags.engine_rules(api=("budget",), local=("tokenizer_name_or_path", "trust_remote_code")),
    Rule(("request_batch_size",), "--inference_api hf", lambda args: args.inference_api not in ("vllm", *inference.REMOTE)),
)
# fmt: on


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        __doc__,
        incomplete="files whose last line is not complete, paragraphs that the judge did not answer",
        uses_apis=True,
    )
    parser.add_argument("dirs", nargs="+", metavar="DIR", help="folders of data, or native text")

    add = parser.add_argument_group("what is read").add_argument
    add("--languages", nargs="+", metavar="LANGUAGE", help="English names or codes [all that the folders have]")
    flags.add_language_flags(add)
    # fmt: off
    add("--stage", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE",
        help="paragraphs: what was kept of the responses; pairs: translated; filtered: decontaminated [all that are there]")
    flags.add_benchmark_flags(add)

    add = parser.add_argument_group("what is computed").add_argument
    add("--sample", type=int_range(2), default=1000, metavar="N",
        help="sentences that the diversity is computed on; fewer if a column has fewer")
    add("--seed", type=int_range(0, 2**32 - 1), default=122, help="seed of the samples")
    flags.add_encoder_flags(add, None, "encoder for the Vendi score", "no Vendi score")
    add("--tokenizer", metavar="MODEL", help="count tokens with this model's tokenizer, beside words [words only]")
    add("--seed_topics_path", type=Path, metavar="FILE",
        help="topics, as for datagen.py: which share of them is covered, by category if a jsonl file names them [not computed]")

    add = parser.add_argument_group("an LLM that judges whether paragraphs discuss their topics").add_argument
    add("--judge_model_name_or_path", metavar="MODEL",
        help="Hub id, folder or name of an API's model [nothing is judged]")
    add("--output_dir", type=Path, metavar="DIR",
        help="where its responses are kept, so that none is asked for twice; needed with it")
    add("--judge_sample", **count(1, "paragraphs of each column that are judged, drawn with --seed", 200))
    add("--judge_prompt", default="topic_judge", metavar="TOML",
        help="the prompts: a .toml file, such as an edited copy of topxgen/statistics/prompts/topic_judge.toml")
    # fmt: on
    flags.add_judging_flags(add, max_new_tokens=512)
    flags.add_model_flags(add)
    flags.add_api_flags(parser.add_argument_group("the judge through an API").add_argument)
    flags.add_cost_flags(parser.add_argument_group("what the judge costs").add_argument)

    add = parser.add_argument_group("files to write").add_argument
    add("--csv", type=Path, metavar="FILE", help="all figures, one row per column of the table")
    add("--json", type=Path, metavar="FILE", help="all figures, with percentiles, settings and versions")
    add("--markdown", type=Path, metavar="FILE", help="the table in Markdown")
    return parser


def run(args: argparse.Namespace) -> int:
    flag_rules.check(RULES, args)
    check_output_files({"--csv": args.csv, "--json": args.json, "--markdown": args.markdown}, BEGINNINGS)
    is_remote = args.inference_api in inference.REMOTE
    hub.require(
        [
            *needs.tokenizers(args.tokenizer),
            *(() if is_remote else needs.models(args.judge_model_name_or_path, tokenizer=args.tokenizer_name_or_path)),
            *(sonar.needs(args.sonar_name_or_path) if args.encoder == "sonar" else ()),
        ]
    )
    topics = read_topics(args.seed_topics_path) if args.seed_topics_path else None
    categories = read_categories(args.seed_topics_path) if args.seed_topics_path else {}
    ask_judge = make_judge(args) if args.judge_model_name_or_path else None
    encoder = encoders.create(args.encoder, EncoderSettings.from_args(args)) if args.encoder else None
    encode = encoding(encoder) if encoder else None
    count_tokens = token_counter(args.tokenizer) if args.tokenizer else None
    options = Options(args.sample, args.seed, encode, count_tokens, topics, categories)
    names = tuple(args.languages) if args.languages else None
    sources = Sources(names, args.stage, args.languages_file, args.benchmark_dir, args.allow_partial_benchmark)
    groups: dict[str, list[Corpus]] = {}
    for corpus in read_all(args.dirs, sources):
        groups.setdefault(corpus.language.flores, []).append(corpus)
    described = []
    with Progress("statistics", len(groups), "languages") as bar:
        for corpora in groups.values():
            described += describe(corpora, options)
            bar.update(1)
    if encoder:
        encoder.close()
    question = None
    if ask_judge:
        corpora = [corpus for group in groups.values() for corpus in group]
        found, question = ask_judge(corpora)
        for part, judged in zip(described, found, strict=True):
            part["judge"] = judged
    show(tables.table(described))
    write_files(args, described, {"encoder": encoder.version if encoder else None, "judge": question})
    unanswered = warn_of_judge(
        args.judge_model_name_or_path, [part["judge"] for part in described if part.get("judge")]
    )
    return EXIT_INCOMPLETE if unanswered or any(part["is_cut"] for part in described) else 0


def write_files(args: argparse.Namespace, described: list[dict], more: dict) -> None:
    """`more`: settings beside the flags."""
    if args.csv:
        write_atomic(args.csv, [tables.csv_text(described)])
    if args.markdown:
        write_atomic(args.markdown, [tables.markdown(described)])
    if args.json:
        settings = {flag: getattr(args, flag) for flag in RECORDED} | more
        if path := args.seed_topics_path:
            settings["topics"] = {"path": str(path), "sha256": checksums.sha256_of(path)}
        write_json(args.json, {"settings": settings, "versions": provenance.versions(), "corpora": described})
    for path in filter(None, (args.csv, args.markdown, args.json)):
        checksums.claim_file(path)


def warn_of_judge(model: str, judged: list[dict]) -> int:
    """Warn of a judge whose verdicts mean nothing, and of requests without a response; returns their number."""
    if not all(map(judge.tells_apart, judged)):
        logger.warning(
            f"the judge {model} does not say yes more often to the paragraphs' own topics than to those of others (control): its share "
            "says nothing; pass a stronger model, or more paragraphs (--judge_sample)"
        )
    unanswered = sum(counts["unanswered"] for of_corpus in judged for counts in of_corpus.values())
    if unanswered:
        logger.warning(
            f"{unanswered} requests to the judge got no response; re-run the same command to send them again"
        )
    return unanswered


def make_judge(args: argparse.Namespace) -> Callable[[list[Corpus]], tuple[list[dict | None], dict]]:
    """A function of corpora that asks the judge, and says what decided its requests. Raises UsageError, before anything is read, for
    what it lacks."""
    if args.output_dir is None:
        raise UsageError("--judge_model_name_or_path needs --output_dir, where its responses are kept")
    prompt = judge.load_prompt(args.judge_prompt)
    log = args.output_dir / ENGINE_LOG
    model = ModelSettings.from_args(args, model_name_or_path=args.judge_model_name_or_path, engine_log=log)
    inference.check(args.inference_api, model)
    prompt_style = style.style_and_template(args.prompt_style, args.inference_api, model)
    meter = Meter(Prices.of(args.prices), args.budget)

    def ask(corpora: list[Corpus]) -> tuple[list[dict | None], dict]:
        with OutputLock(args.output_dir):
            asked, numbers = (*prompt_style, prompt), (args.max_new_tokens, args.judge_sample, args.seed)
            topic_judge = judge.TopicJudge(args.inference_api, model, *asked, *numbers, args.output_dir, meter)
            try:
                judged = topic_judge.judge(corpora)
            finally:
                topic_judge.close()
        if usage := meter.usage(judge.STAGE):
            logger.info(usage)
        question = topic_judge.question._asdict()
        return judged, {**question, "responses": str(args.output_dir / judge.RESPONSES)}

    return ask


def main() -> int:
    return run_main(build_parser(), run, "the data is unchanged; fix the problem and re-run")


if __name__ == "__main__":
    sys.exit(main())
