"""Hours of each stage on this machine, or on the GPUs of --gpu, where neither a stage nor earlier runs say them."""

import os
from pathlib import Path
from typing import NamedTuple

from topxgen.common.records import back_translator_of, default_translate_dir, scorer_of
from topxgen.doctor import arithmetic
from topxgen.doctor.checkpoints import Checkpoint
from topxgen.doctor.memory import float_bytes
from topxgen.doctor.rates import H100, RATES
from topxgen.doctor.situation import Situation
from topxgen.experiments.chain import Command
from topxgen.inference.costs import Estimate, Prices

NLLB = "nllb-200-3.3B"  # the model of RATES["nllb_tokens"]
# Tokens of prompts for each new one, where prompts were not counted.
PROMPT_SHARE = RATES["prompt_tokens"].value / (
    RATES["paragraphs_per_response"].value * RATES["tokens_per_paragraph"].value
)
Span = tuple[float, float]


class Needed(NamedTuple):
    """Of a stage, (fewest, most) of each; None: not known. `by`: where the hours come from; `usd`: of tokens that an API is paid for."""

    stage: str
    work: str
    prompt_tokens: Span | None
    completion_tokens: Span | None
    hours: Span | None
    by: str | None
    usd: Span | None


def needed(situation: Situation, prices: Prices | None) -> list[Needed]:
    """What each stage needs; `prices` instead of the commands' own."""
    found = []
    for command, estimate in situation.estimates:
        about = estimate.stage.removeprefix(command.stage)
        stage = f"{command.name}: {about.removeprefix(': ')}" if about else command.name
        if command.stage == "decontamination":
            estimate = _decontaminated(command, estimate, situation)
        if command.stage == "train":
            estimate = _trained(command, estimate, situation)
        hours, by = estimate.hours, "rates.json"
        if hours is None:
            hours, by = _hours(command, estimate, situation), "estimate"
        tokens = [pair if pair[1] else None for pair in (estimate.prompt_tokens, estimate.completion_tokens)]
        own = prices or Prices.of(getattr(command.args, "prices", None))
        usd = None
        if own and estimate.completion_tokens[1] and tokens_are_paid(command):
            pairs = zip(estimate.prompt_tokens, estimate.completion_tokens, strict=True)
            low, high = (own.cost(*pair) for pair in pairs)
            usd = low, high
        found.append(Needed(stage, estimate.work, *tokens, hours, by if hours else None, usd))
    return found


def _decontaminated(command: Command, estimate: Estimate, situation: Situation) -> Estimate:
    """With the pairs that the run's translations are going to be, if these are what it reads."""
    source = command.args.input_dir.absolute()
    made = [
        one.items
        for other, one in situation.estimates
        if one.stage == "translate" and one.items and _translate_dir(other).absolute() == source
    ]
    if not made:
        return estimate
    few, many = map(sum, zip(*made, strict=True))
    return estimate._replace(work=f"up to {many:,} pairs", items=(few, many))


def _translate_dir(command: Command) -> Path:
    args = command.args
    return args.output_dir / (args.translate_dir or default_translate_dir(vars(args)))


def _trained(command: Command, estimate: Estimate, situation: Situation) -> Estimate:
    """With the rows of all processes; those that are not packed (--packing none, encoder-decoders) have one pair, of two sentences at least."""
    checkpoint = situation.checkpoint(command.args.model_name_or_path)
    processes, work = situation.launch(command).processes, estimate.work
    few = tokens = estimate.prompt_tokens[1] * processes
    if command.args.packing == "none" or checkpoint is None or checkpoint.attention is None:
        few *= min(1, 2 * RATES["tokens_per_sentence"].value / command.args.max_length)
    if processes > 1:
        work = work.replace(" steps of ", f" steps of {processes} x ")
    return estimate._replace(work=work, prompt_tokens=(few, tokens))


def tokens_are_paid(command: Command) -> bool:
    return getattr(command.args, "inference_api", None) not in (None, "vllm", "hf")


def _hours(command: Command, estimate: Estimate, situation: Situation) -> Span | None:
    if estimate.stage in ("translate", "score", "decontamination"):
        rate = _rate(command, estimate.stage, situation)
        return None if rate is None or estimate.items is None else tuple(n / rate / 3600 for n in estimate.items)
    gpus, names = situation.gpus.usable, getattr(command.args, "model_name_or_path", None)
    names = names if isinstance(names, list) else [names]
    loaded, card = [situation.checkpoint_behind(name) for name in names], _card(situation)
    if None in loaded or card is None or tokens_are_paid(command):
        return None
    if command.stage == "train":
        if not estimate.prompt_tokens[1] or not loaded[0].parameters or card.flops is None:
            return None
        args, size, processes = command.args, loaded[0].active_parameters, situation.launch(command).processes
        ways = {"checkpointing": args.gradient_checkpointing, "lora": args.use_peft}
        return tuple(arithmetic.training_hours(size, n / processes, card, **ways) for n in estimate.prompt_tokens)
    if not estimate.completion_tokens[1] or command.args.inference_api != "vllm" or card.flops is None:
        return None
    asked, new = estimate.prompt_tokens, estimate.completion_tokens
    asked = asked if asked[1] else tuple(n * PROMPT_SHARE for n in new)

    def of_model(checkpoint: Checkpoint, tokens: float, prompts: float) -> float:
        weights = checkpoint.loaded_bytes(float_bytes(command))
        decoding = arithmetic.decoding_hours(weights, tokens, card, len(gpus))
        return decoding + arithmetic.reading_hours(
            checkpoint.active_parameters or weights / 2, prompts, card, len(gpus)
        )

    # main.py's models, one after the other, have equal shares of its tokens.
    share = len(loaded)
    return tuple(
        sum(of_model(checkpoint, tokens / share, prompts / share) for checkpoint in loaded)
        for tokens, prompts in zip(new, asked, strict=True)
    )


def _card(situation: Situation) -> arithmetic.Card | None:
    """That of all visible GPUs; None where they are of several kinds, or divided into instances (MIG)."""
    gpus = situation.gpus.usable
    one_kind = len({gpu.name for gpu in gpus}) == 1 and not gpus[0].mig
    return arithmetic.card(gpus[0].name) if one_kind else None


def _rate(command: Command, stage: str, situation: Situation) -> float | None:
    """Items a second, by RATES; those of GPUs are shares of the peak, so that they follow the card's. None where RATES has none."""
    args, value = command.args, {name: rate.value for name, rate in RATES.items()}
    if stage == "decontamination":
        here = None if situation.gpus.given else len(os.sched_getaffinity(0))  # cores of another machine are not known
        cores = args.num_workers or here
        known = cores is not None and args.near_duplicate_threshold is None
        return value["decontaminated_pairs"] * cores if known else None
    gpus = situation.gpus.usable
    card = _card(situation)
    if card is None or card.flops is None:
        return None
    share = card.flops / H100
    if stage == "score":
        return value["scored_pairs"] * share * len(gpus) if scorer_of(vars(args)) == "blaser" else None
    if back_translator_of(vars(args)) != "nllb" or not str(args.nllb_name_or_path).endswith(NLLB):
        return None
    used = len(gpus) if args.nllb_engine == "ctranslate2" else 1
    return value["nllb_tokens"] / value["tokens_per_sentence"] * share * used
