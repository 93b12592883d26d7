"""Sentences that prompts show, and the pools of seed sentences that pipelines grow from."""

import logging

from topxgen.common.errors import Unreachable, UsageError
from topxgen.corpora import benchmarks, examples
from topxgen.generation.prompt_templates import only_in_a_dry_run
from topxgen.text.languages import Language

logger = logging.getLogger(__name__)

STAND_IN = "[an example"  # begins what a dry run shows for sources that it cannot reach


def example_sentences(args, language: Language) -> list[str]:
    """The first --max_samples sentences of --example_sentences; as many stand-ins in a dry run that cannot reach them."""
    try:
        sentences = examples.example_sentences(
            args.example_sentences, language, allow_partial=args.allow_partial_benchmark
        )
    except Unreachable as error:
        only_in_a_dry_run(args, error)
        sentences = [f"{STAND_IN} sentence, {number}]" for number in range(1, benchmarks.SIZES["flores"]["dev"] + 1)]
    return sentences[: args.max_samples]


def seed_sentences(args, language: Language, count: int) -> list[str]:
    """The pool of a language: those sentences, each once.

    Raises UsageError if there are fewer than `count`, or if a source of the user's own has one twice: it would be shown
    twice as often, and beside itself. In public sets repetitions are left out.
    """
    sentences = example_sentences(args, language)
    seeds = list(dict.fromkeys(sentences))
    if repeated := len(sentences) - len(seeds):
        twice = next(text for text in seeds if sentences.count(text) > 1)
        problem = (
            f"{repeated} of the {len(sentences)} seed sentences in {language.name} are there twice, such as {twice!r}"
        )
        if args.example_sentences not in examples.SENTENCE_SOURCES:
            raise UsageError(f"{args.example_sentences}: {problem}: remove them")
        logger.info(f"{problem}: they are used once")
    if len(seeds) < count:
        cap = f" (--max_samples {args.max_samples})" if args.max_samples is not None else ""
        raise UsageError(
            f"{args.example_sentences} has {len(seeds)} seed sentences in {language.name}{cap}, but a prompt shows {count}: pass "
            "more, or a smaller --number_of_icl_demonstrations"
        )
    return seeds
