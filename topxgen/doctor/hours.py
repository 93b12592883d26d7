"""Hours of each stage on this machine's GPUs, where neither a stage nor earlier runs say them."""

from typing import NamedTuple

from topxgen.doctor import arithmetic
from topxgen.doctor.memory import float_bytes
from topxgen.doctor.situation import Situation, launch
from topxgen.experiments.chain import Command
from topxgen.inference.costs import Estimate, Prices


class Needed(NamedTuple):
    """Of a stage, (fewest, most) of each; None: not known. `usd`: of tokens that an API is paid for."""

    stage: str
    work: str
    prompt_tokens: tuple[float, float] | None
    completion_tokens: tuple[float, float] | None
    hours: tuple[float, float] | None
    usd: tuple[float, float] | None


def needed(situation: Situation, prices: Prices | None) -> list[Needed]:
    """What each stage needs; `prices` instead of the commands' own."""
    found = []
    for command, estimate in situation.estimates:
        about = estimate.stage.removeprefix(command.stage)
        stage = f"{command.name}: {about.removeprefix(': ')}" if about else command.name
        hours = estimate.hours or _hours(command, estimate, situation)
        tokens = [pair if pair[1] else None for pair in (estimate.prompt_tokens, estimate.completion_tokens)]
        own = prices or Prices.of(getattr(command.args, "prices", None))
        usd = None
        if own and estimate.completion_tokens[1] and tokens_are_paid(command):
            pairs = zip(estimate.prompt_tokens, estimate.completion_tokens, strict=True)
            low, high = (own.cost(*pair) for pair in pairs)
            usd = low, high
        found.append(Needed(stage, estimate.work, *tokens, hours, usd))
    return found


def tokens_are_paid(command: Command) -> bool:
    return getattr(command.args, "inference_api", None) not in (None, "vllm", "hf")


def _hours(command: Command, estimate: Estimate, situation: Situation) -> tuple[float, float] | None:
    gpus, name = situation.gpus.visible, getattr(command.args, "model_name_or_path", None)
    name = name[0] if isinstance(name, list) else name
    checkpoint, card = situation.checkpoint(name), arithmetic.card(gpus[0].name) if gpus else None
    if checkpoint is None or card is None or tokens_are_paid(command):
        return None
    if command.stage == "train":
        args, tokens, processes = command.args, estimate.prompt_tokens[1], launch(command).processes
        if not tokens or not checkpoint.parameters:
            return None
        hours = arithmetic.training_hours(
            checkpoint.parameters,
            tokens * processes,
            card,
            processes,
            checkpointing=args.gradient_checkpointing,
            lora=args.use_peft,
        )
        return hours, hours
    if not estimate.completion_tokens[1] or command.args.inference_api != "vllm":
        return None
    weights = checkpoint.loaded_bytes(float_bytes(command))
    low, high = (arithmetic.decoding_hours(weights, tokens, card, len(gpus)) for tokens in estimate.completion_tokens)
    return low, high
