"""--dry_run: the checks of a real run, the first prompts, and what each stage is going to need."""

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, islice, takewhile

from topxgen import inference
from topxgen.common import rates
from topxgen.common.console import ONCE, show
from topxgen.common.errors import Unreachable
from topxgen.common.files import leaving_out_cut_lines
from topxgen.generation import funnel, native
from topxgen.generation.back_translation import UNANSWERED, translated_ids
from topxgen.generation.candidates import collected_ids
from topxgen.generation.plan import GenerationConfig
from topxgen.generation.run import check_settings, kept_on_disk, preflight
from topxgen.inference.costs import Estimate, estimate_table
from topxgen.inference.tokenizer import count_tokens, load_tokenizer

logger = logging.getLogger(__name__)

DRY_RUN_PROMPTS = 2  # and native texts, of each the first
MAX_SHOWN = 1000  # characters
SAMPLE_PROMPTS, SAMPLE_SENTENCES = 32, 16
# What is assumed, (low, high), until the directory has files that tell; what pipelines' texts are like, they say themselves.
NATIVE_SENTENCES = (1, 12)  # in a native text, which may be a sentence on a line
ANSWER_TO_SENTENCE = (0.8, 1.5)  # tokens of a back-translation to those of its sentence's own translation in the pool


@leaving_out_cut_lines()
def dry_run(config: GenerationConfig) -> int:
    """Check as a real run does, and print the plan. What the Hub has is not checked where it cannot be reached."""
    args = config.args
    preflight(config, on_unreachable=lambda error: logger.info(f"not checked: {error}", extra=ONCE))
    show(f"stages: {' -> '.join(args.stages)}; languages: {', '.join(config.languages)}; output: {args.output_dir}")
    tokenizer = _tokenizer(config)
    wanted, found = _first_stage(config, tokenizer, show)
    if {"translate", "score"} & set(args.stages):
        show(
            f"back-translator {config.back_translator} into {config.target_language.name}, files in "
            f"{config.layout.translate_dir}, sentences by {args.splitter}, languages by {args.lid_model}, scores by "
            f"{config.scorer_name}"
        )
        found += _later_stages(config, wanted, tokenizer)
    is_remote = args.inference_api in inference.REMOTE
    table = estimate_table(found, config.meter.prices, args.budget, is_remote)
    show(f"\nestimate, lowest to highest:\n{table}")
    if spent := config.meter.spent():
        show(f"spent so far: {spent:,.2f} USD for {config.meter.responses():,} responses of this directory")
    if not rates.read(args.output_dir):
        show("hours are unknown until a first run has measured the speed: try a few paragraphs in this directory")
    with contextlib.suppress(Unreachable):
        check_settings(config)
    return 0


@leaving_out_cut_lines()
def estimates(config: GenerationConfig) -> list[Estimate]:
    """What dry_run prints at its end, without a tokenizer; prompts are counted for APIs alone, whose tokens are paid. Raises UsageError for
    what prompts are made of and is not there."""
    if "generate" in config.args.stages and config.prompts and config.args.inference_api not in inference.REMOTE:
        kept = kept_on_disk(config)
        missing = config.target.missing(kept)
        wanted, found = kept.total() + missing, [_answers(config, missing)]
    else:
        wanted, found = _first_stage(config, None, lambda text: None)
    return [*found, *_later_stages(config, wanted, None)]


def _answers(config: GenerationConfig, wanted: int) -> Estimate:
    """The generate stage by its paragraphs: all texts are kept, or half of them; as earlier ones of the directory were."""
    few, many = (wanted * min(n, config.args.max_new_tokens) for n in config.pipeline_class.tokens_per_text)
    tokens = few, 2 * many
    earlier = [funnel.generation_counts(config.layout, name) for name in config.languages]
    if done := sum(count["kept"] - count["brought_along"] for count in earlier):
        tokens = (wanted * sum(count["completion_tokens"] for count in earlier) / done,) * 2
    hours = _hours(config, "generate", wanted)
    return Estimate("generate", f"{wanted:,} paragraphs", completion_tokens=tokens, hours=hours)


def _first_stage(config: GenerationConfig, tokenizer, say: Callable[[str], None]) -> tuple[int, list[Estimate]]:
    """(the paragraphs of all later stages, the estimate of the generate stage, if it is one of this run)."""
    kept = kept_on_disk(config)
    if "generate" not in config.args.stages:
        if config.shard is not None:  # its part of the merged paragraphs is written when it begins
            whole = kept_on_disk(config, config.whole)
            kept |= {name: config.shard.share(whole[name]) for name in config.languages if not kept[name]}
        return kept.total(), []
    wanted, estimate = _generation(config, kept, tokenizer, say) if config.prompts else _native(config, kept, say)
    return kept.total() + wanted, [estimate]


def _hours(config: GenerationConfig, stage: str, paragraphs: float) -> tuple[float, float] | None:
    """By the rate of the last run in the directory."""
    return rates.hours(rates.read(config.args.output_dir).get(stage), paragraphs, paragraphs)


def _generation(config: GenerationConfig, kept: Counter, tokenizer, say: Callable[[str], None]) -> tuple[int, Estimate]:
    """Show the first prompts; the paragraphs still wanted, and the estimate."""
    args, pipeline = config.args, config.pipeline
    steps = config.steps()
    counts = []
    for prompt in islice(chain.from_iterable(takewhile(bool, steps)), SAMPLE_PROMPTS):
        if (built := pipeline.build(prompt)) is None:
            break
        content, topic = built
        counts.append(count_tokens(tokenizer, content))
        if len(counts) <= DRY_RUN_PROMPTS:
            text = content if isinstance(content, str) else content[0]["content"]
            about = "" if topic is None else f", topic {topic!r}"
            say(f"\n--- prompt {prompt.id}{about}, {counts[-1]} tokens\n{text}\n---")
    if text := pipeline.later_prompt(config.target.languages[0]):
        say(f"\n--- a later prompt\n{text}\n---")
    wanted, mean = config.target.missing(kept), sum(counts) / max(len(counts), 1)
    earlier = [funnel.generation_counts(config.layout, name) for name in config.languages]
    texts = pipeline.texts_per_prompt * args.num_return_sequences
    few = -(-wanted // texts)
    many = 2 * few
    answers = tuple(
        min(n * pipeline.texts_per_prompt, args.max_new_tokens) * args.num_return_sequences
        for n in pipeline.tokens_per_text
    )
    if prompts := sum(count["prompts"] for count in earlier):
        done = sum(count["kept"] - count["brought_along"] for count in earlier)
        few = many = round(wanted * prompts / done) if done else many
        answers = (sum(count["completion_tokens"] for count in earlier) / prompts,) * 2
        mean = sum(count["prompt_tokens"] for count in earlier) / prompts or mean  # 0: the API does not count them
    if pipeline.ends:  # each of its prompts is sent once, whatever it brings
        few = many = min(few, max(pipeline.prompts - prompts, 0))
    say(
        f"\n{wanted} paragraphs wanted, {pipeline.texts_per_prompt} a prompt: {-(-wanted // texts)} prompts if all are kept\n"
        f"about {mean:.0f} tokens a prompt, answers of at most {args.max_new_tokens}\n"
        f"{pipeline.summary}\nmodel {args.model_name_or_path} through {args.inference_api}, temperature "
        f"{args.temperature if args.do_sample else 0:g}, seed {args.seed}"
    )
    tokens = (few * mean, many * mean), (few * answers[0], many * answers[1])
    return wanted, Estimate("generate", f"{_span(few, many)} prompts", *tokens, _hours(config, "generate", wanted))


def _native(config: GenerationConfig, kept: Counter, say: Callable[[str], None]) -> tuple[int, Estimate]:
    """Show the first texts of --paragraphs; the paragraphs still wanted, at most, and the estimate."""
    try:
        for name, source in config.sources.items():
            say(f"\n{name}: {source.name}, {source.fingerprint}")
            for row in islice(source.rows(0), DRY_RUN_PROMPTS):
                say(f"--- text {row.number}\n{(row.text or '')[:MAX_SHOWN]}\n---")
        texts = native.total(config)
    except Unreachable as error:
        logger.info(f"not checked: {error}", extra=ONCE)
        texts = native.total(config) if config.limited else None
    wanted = max((texts or 0) - kept.total(), 0)
    work = "texts of unknown number" if texts is None else f"up to {wanted:,} paragraphs"
    return wanted, Estimate("generate", work, hours=_hours(config, "generate", wanted) if texts else None)


def _later_stages(config: GenerationConfig, paragraphs: int, tokenizer) -> Iterator[Estimate]:
    """Of back-translation and scoring, as far as they are not done."""
    counts = [funnel.translation_counts(config.layout, name) for name in config.languages]
    done, sentences = (sum(count[key] for count in counts) for key in ("paragraphs", "sentences"))
    scored = sum(count["scored"] for count in counts)
    each, kept = _sentences_per_text(config), (0.5, 1.0)
    if done:
        each = (sentences / done,) * 2
        kept = (sum(count["pairs"] for count in counts) / max(sentences, 1),) * 2
    if "translate" in config.args.stages:
        todo, again = max(paragraphs - done, 0), 0
        if not config.args.accept_unanswered:
            again = sum(count["rejected"].get(UNANSWERED, 0) for count in counts)
        candidates, layout = config.args.number_of_candidates, config.layout
        waiting = 0  # for the selection alone
        if candidates > 1:
            languages = config.languages.values()
            waiting = sum(len(collected_ids(layout, one) - translated_ids(layout, one)) for one in languages)
        few, many = (round(max(todo - waiting, 0) * n) + again for n in each)
        prompt, answer = 0.0, (0.0, 0.0)
        if config.back_translator == "llm":
            prompt, answer = _translation_tokens(config, tokenizer)
        tokens = (few * prompt, many * prompt), (few * answer[0], many * answer[1])
        what = f"{_span(few, many)} sentences" + (f", {candidates} candidates each" if candidates > 1 else "")
        what += f", {again:,} of them again" if again else ""
        yield Estimate(
            "translate",
            what,
            *tokens,
            _hours(config, "translate", todo - waiting),
            (few * candidates, many * candidates),
        )
        if candidates > 1:
            most = f"at most {round(todo * each[1]) * candidates:,} candidates"
            yield Estimate("select", most, hours=_hours(config, "select", todo))
    if "score" in config.args.stages and config.scorer is not None:
        few, many = (max(round(paragraphs * n * share) - scored, 0) for n, share in zip(each, kept, strict=True))
        unscored = paragraphs * many / (many + scored) if many else 0
        yield Estimate("score", f"{_span(few, many)} pairs", hours=_hours(config, "score", unscored), items=(few, many))


def _sentences_per_text(config: GenerationConfig) -> tuple[float, float]:
    """(few, many); a response that --max_new_tokens ends early has room for few."""
    if not config.prompts:
        return NATIVE_SENTENCES
    few, many = config.pipeline_class.sentences_per_text
    room = config.args.max_new_tokens / config.pipeline_class.tokens_per_text[1]
    return (few, many) if room >= 1 else (1, max(1, many * room))


def _translation_tokens(config: GenerationConfig, tokenizer) -> tuple[float, tuple[float, float]]:
    """(tokens of a prompt, (few, many) of the answers to it), as they were so far, else by the mean over sentences of the pool, in each
    language."""
    earlier = config.meter.totals("translate")
    if earlier.get("responses") and earlier["completion_tokens"]:
        prompt, answer = (earlier[name] / earlier["responses"] for name in ("prompt_tokens", "completion_tokens"))
        return prompt, (answer, answer)
    prompts, answers = [], []
    for language in config.languages.values():
        try:
            pairs = config.translator.sample(language, config.target_language, SAMPLE_SENTENCES)
            contents = config.translator.prompts([a for a, _ in pairs], language, config.target_language)
        except Unreachable as error:
            logger.info(f"the tokens of back-translation in {language.name} are not known: {error}", extra=ONCE)
            continue
        prompts += [count_tokens(tokenizer, content) for content in contents]
        answers += [count_tokens(tokenizer, text) for _, text in pairs]
    if not prompts:
        return 0.0, (0.0, 0.0)
    mean = config.args.number_of_candidates * sum(answers) / len(answers)
    return sum(prompts) / len(prompts), tuple(mean * factor for factor in ANSWER_TO_SENTENCE)


def _tokenizer(config: GenerationConfig):
    """The LLM's; None without one (native text, say), for an API's, and where it cannot be reached."""
    if not config.args.model_name_or_path or config.args.inference_api in inference.REMOTE:
        return None
    try:
        return load_tokenizer(config.model_settings())
    except Unreachable:
        return None


def _span(few: int, many: int) -> str:
    return f"{few:,}" if few == many else f"{few:,} to {many:,}"
