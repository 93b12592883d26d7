"""Flags that several scripts share, so that each is named, explained and defaulted once."""

import argparse
from collections.abc import Callable
from pathlib import Path

from topxgen import distributed, inference, translation
from topxgen.common.cli import FLAG, choice, count, float_range, int_range, parse_bool
from topxgen.common.errors import UsageError
from topxgen.common.flag_rules import Rule
from topxgen.common.shards import MAX_SHARDS, SLURM
from topxgen.inference.costs import PRICE_FLAGS
from topxgen.inference.engine_args import parse
from topxgen.prompting.style import STYLES
from topxgen.quality import blaser, sonar
from topxgen.retrieval import encoders
from topxgen.translation import nllb

# A flag is a line or two, its help last.
# fmt: off

def add_language_flags(add) -> None:
    add("--languages_file", metavar="TSV",
        help="a table of additional languages, with the columns of topxgen/text/languages.tsv")


def add_benchmark_flags(add, default: str = "$TOPXGEN_BENCHMARK_DIR, else the Hub") -> None:
    add("--benchmark_dir", type=Path, metavar="DIR",
        help=f"local copies of benchmarks in their publishers' layout [{default}]")
    add_partial_benchmark_flag(add)


def add_partial_benchmark_flag(add) -> None:
    add("--allow_partial_benchmark", **FLAG,
        help="use incomplete copies of FLORES, NTREX, TICO and XQuAD [an incomplete copy is an error]")


def auto_or_count(maximum: int) -> Callable[[str], int | None]:
    """An argument type: a number from 1; None for auto."""
    return lambda value: None if value == "auto" else int_range(1, maximum)(value)


def engine_arg(word: str) -> str:
    """An argument type: KEY=VALUE of an option of vLLM's."""
    try:
        parse([word])
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return word


def shard_count(value: str) -> int | str:
    """An argument type: a number of shards, or slurm."""
    return value if value == SLURM else int_range(1, MAX_SHARDS)(value)


def add_shard_flags(add) -> None:
    add("--num_shards", type=shard_count, metavar="N",
        help="split the work into N shards and do one of them, in a folder of its own in OUTPUT_DIR/shards; scripts/merge.py merges them; "
             "slurm: the number of tasks of the SLURM array [no shards]")
    add("--shard_index", type=int_range(0, MAX_SHARDS - 1), metavar="I",
        help="which shard, from 0 to N - 1 [in a SLURM array: the place of the task in the array]")


SHARD_RULE = Rule(("shard_index",), "--num_shards", lambda args: args.num_shards is not None)


def add_run_flags(add) -> None:
    add("--seed", type=int_range(0, 2**32 - 1), default=122, help="seed of everything that is drawn at random")
    add("--verbose", **FLAG, help="print generated texts during the run")


def add_model_flags(add) -> None:
    """The LLM and the engine that runs it; --model_name_or_path is each script's own."""
    add("--tokenizer_name_or_path", metavar="MODEL", help="tokenizer, if it is not the model's own")
    add("--inference_api", **choice(inference.BACKENDS, "vllm", "what runs the LLM"))
    add("--request_batch_size",
        **count(1, "hf: prompts per batch; datagen.py: also topics per generation step", 4, 4096))
    add("--max_concurrent_requests", type=auto_or_count(4096), metavar="N",
        help="requests in flight at a time for vllm and APIs; auto: as many as vLLM has GPU memory for, 16 for APIs [auto]")
    add("--dtype", choices=("auto", "bfloat16", "float16", "float32"), default="auto",
        help="precision of the weights; auto: as the checkpoint was saved")
    add("--max_model_len", type=int_range(16), metavar="TOKENS",
        help="longest prompt and response together [8192, or less if the model reads less]")
    add("--gpu_memory_utilization", type=float_range(0.05, 1), default=0.9, metavar="SHARE",
        help="vllm: share of each GPU's memory to use")
    add("--tensor_parallel_size", type=int_range(1), metavar="GPUS",
        help="vllm: GPUs that hold one copy of the model [the fewest that leave room for the KV cache]")
    add("--data_parallel_size", type=auto_or_count(256), metavar="N",
        help="vllm and hf: copies of the model, each in its own process and on its own GPUs; auto: for vllm as "
             "many as the visible GPUs have room for, else 1; decides the speed, not the results [auto]")
    add("--engine_args", nargs="+", type=engine_arg, metavar="KEY=VALUE",
        help="vllm: its own options, such as quantization=fp8 kv_cache_dtype=fp8 enforce_eager=true; they are part of the settings [none]")
    add("--deterministic", **FLAG,
        help="vllm: responses do not depend on the other requests in a batch (batch invariance; slower; needs a GPU of compute "
             "capability 8.0 or more)")
    add("--lora_rank", type=int_range(1), default=16, help="largest rank of a LoRA adapter to load")
    add("--trust_remote_code", **FLAG,
        help="run Python code that comes with a model, or that --engine_args name; off by default")


_VLLM_FLAGS = ("gpu_memory_utilization", "tensor_parallel_size", "engine_args", "deterministic")
_LOCAL_FLAGS = ("dtype", "max_model_len", "data_parallel_size")
_API_FLAGS = ("base_url", "request_timeout", "max_retries")
# What LLMs as judges take of the flags of models, APIs and costs.
MODEL_FLAGS = (
    "inference_api", "tokenizer_name_or_path", "request_batch_size", "max_concurrent_requests", "trust_remote_code", "prices", "budget",
    *_VLLM_FLAGS, *_LOCAL_FLAGS, *_API_FLAGS,
)  # fmt: skip


def engine_rules(prefix: str = "", *, api: tuple[str, ...] = (), local: tuple[str, ...] = ()) -> tuple[Rule, ...]:
    """Which flags need which engine. `api` and `local`: flags of one script that need an API, or a model in this process; `prefix`
    begins the names of all. An engine of the user's own ("module:attribute") may use any flag."""
    chooser = f"{prefix}inference_api"

    def rule(flags: tuple[str, ...], needs: str, *others: str) -> Rule:
        return Rule(
            tuple(f"{prefix}{flag}" for flag in flags), needs, lambda args: getattr(args, chooser) not in others
        )

    return (
        rule((*_API_FLAGS, *api), f"--{chooser} openai, cohere or anthropic", "vllm", "hf"),
        rule((*_LOCAL_FLAGS, *local), f"a model in this process (--{chooser} vllm or hf)", *inference.REMOTE),
        rule(_VLLM_FLAGS, f"--{chooser} vllm", "hf", *inference.REMOTE),
        rule(("max_concurrent_requests",), f"--{chooser} vllm or an API", "hf"),
    )


def add_node_and_api_groups(parser: argparse.ArgumentParser) -> None:
    """Of the scripts whose models can run on many nodes: those flags, and those of API models."""
    add = parser.add_argument_group("many nodes (docs/cluster.md)").add_argument
    add("--distributed",
        **choice(distributed.SCHEDULERS, None, "run all models but those of APIs in workers on the nodes of a cluster", "off"))
    add("--num_workers",
        **count(1, "--distributed: workers, each with a model of its own [one for each GPU, or for as many as an engine of vLLM takes; "
                   "without GPUs one for each node]", maximum=4096))
    add = parser.add_argument_group("API models (--inference_api openai, cohere, anthropic)").add_argument
    add_api_flags(add)
    add_cost_flags(add)
    add("--accept_unanswered", **FLAG,
        help="go on without the sentences that got no answer, as from an API that refuses them: they are marked, counted, and not "
             "sent again [the run ends with exit code 3, and the next one sends them again]")


WORKER_RULES = (
    Rule(("num_workers",), "--distributed", lambda args: args.distributed),
    Rule(("data_parallel_size",), "one machine (--distributed has --num_workers)", lambda args: not args.distributed),
)  # fmt: skip


def add_api_flags(add) -> None:
    add("--api_key",
        help="API key; better: export OPENAI_API_KEY, CO_API_KEY or ANTHROPIC_API_KEY. Never logged or saved")
    add("--base_url", metavar="URL", help="an OpenAI-compatible server, such as http://localhost:8000/v1 of vllm serve")
    add("--request_timeout", type=float_range(0.1, 86400), default=600, metavar="SECONDS",
        help="time limit of one attempt at a request")
    add("--max_retries",
        **count(0, "attempts after the first for rate limits, server errors and broken connections", 8, 1000))


def add_cost_flags(add) -> None:
    add(*PRICE_FLAGS, nargs="+", type=float_range(0), metavar="USD",
        help="IN OUT [CACHED]: USD for a million prompt tokens, new tokens, and prompt tokens that the provider had cached "
             "[CACHED as IN]; for estimates, the running total and --budget")
    add("--budget", type=float_range(0), metavar="USD",
        help="send no request that would make the responses of the output directory, those of earlier runs included, cost more, at the "
             "cost of the most expensive one so far: the run ends with exit code 4 and can be resumed; needs --prices")


def add_decoding_flags(add, *, max_new_tokens: int, temperature: float) -> None:
    add("--max_new_tokens", **count(1, "longest response, in tokens", max_new_tokens, 1 << 20))
    add("--temperature", type=float_range(0), default=temperature, help="sampling temperature; 0 is greedy")
    add("--top_p", type=float_range(0.001, 1), default=1.0, help="nucleus sampling: probability mass")
    add("--repetition_penalty", type=float_range(0.01), default=1.0, help="above 1 discourages repetition")
    add("--num_return_sequences", **count(1, "responses per prompt", 1, maximum=1024))
    add("--num_beams", **count(1, "above 1: beam search", 1, maximum=1024))
    add("--do_sample", type=parse_bool, nargs="?", const=True, default=True,
        help="false: greedy decoding, whatever --temperature says")


def add_prompt_style_flag(add) -> None:
    add("--prompt_style", choices=STYLES, default="auto",
        help="how the LLM is prompted to translate; raw: the template as plain text; chat: an instruction through the chat "
             "template; auto: chat where the tokenizer has a chat template")


def add_nllb_flags(add, *, default: str) -> None:
    add("--nllb_name_or_path", default=default, metavar="MODEL",
        help="translation model: NLLB, M2M-100, SMaLL-100, MADLAD-400 or Marian")
    add("--nllb_engine", choices=nllb.ENGINES, default="ctranslate2",
        help="ctranslate2 is fast; transformers is the slow reference")
    add("--nllb_compute_type", choices=nllb.COMPUTE_TYPES, default="auto",
        help="precision of the translation model; auto: float16 on GPU, int8 on CPU")
    add("--cache_dir", default=translation.CACHE_DIR, metavar="DIR", help="where converted CTranslate2 models are kept")


def add_quality_flags(add) -> None:
    add("--blaser_name_or_path", default=blaser.DEFAULT, metavar="MODEL",
        help="BLASER-2.0-QE model, a folder or Hub id")
    add("--sonar_name_or_path", default=sonar.DEFAULT, metavar="MODEL", help="SONAR text encoder, a folder or Hub id")


def add_language_id_flag(add) -> None:
    add("--lid_model", default="cld2", metavar="NAME_PATH_OR_ID",
        help="language identification: cld2 or langid (with their models), or a fastText model by path or Hub id")


def add_encoder_flags(add, default: str | None, intro: str, shown: str = "%(default)s") -> None:
    add("--encoder", **choice(encoders.ENCODERS, default, intro, shown))
    add("--sonar_name_or_path", default=sonar.DEFAULT, metavar="MODEL", help="SONAR text encoder, a folder or Hub id")
    add("--encoder_device", metavar="DEVICE", help="where SONAR runs: cpu, cuda or cuda:N [a GPU if there is one]")


def add_judging_flags(add, max_new_tokens: int) -> None:
    """How an LLM that judges is prompted."""
    add("--prompt_style", choices=STYLES, default="auto",
        help="raw: text that a base model continues; chat: a message; auto: chat where the tokenizer has a chat template")
    add("--max_new_tokens",
        **count(1, "longest answer, in tokens; reasoning models need room for their thoughts", max_new_tokens, 1 << 20))


def add_reported_prices_flag(add) -> None:
    """Of scripts that run nothing."""
    add("--prices", nargs="+", type=float_range(0), metavar="USD",
        help="IN OUT [CACHED]: USD per million tokens of prompts, answers and cached prompts [those of the commands]")
