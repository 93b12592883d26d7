"""What decides the results of a run: recorded beside them, and compared before a run continues in a directory."""

import argparse
import json
from pathlib import Path

from comptra import checks, prompts
from comptra.compositional import divide
from comptra.config import EvaluationConfig
from comptra.models import Model
from topxgen import inference, retrieval
from topxgen.common import provenance, shards
from topxgen.prompting import toml_prompts
from topxgen.prompting.mt_templates import chat_prompt
from topxgen.prompting.style import CHAT
from topxgen.quality import comet_models
from topxgen.text import languages, leak_guard

# Flags that say where files are, how fast to run and what to show.
NOT_PART_OF_THE_RESULT = (
    "output_dir", "metadata_dir", "num_shards", "shard_index", "shard", "benchmark_dir", "allow_partial_benchmark", "data_dir", "cache_dir", "comet_python", "verbose", "dry_run",
    "max_samples", "api_key", "base_url", "request_timeout", "max_retries", "request_batch_size", "max_concurrent_requests",
    "prices", "budget", "accept_unanswered", "max_model_len", "gpu_memory_utilization", "tensor_parallel_size",
    "data_parallel_size", "trust_remote_code", "distributed", "num_workers",
)  # fmt: skip
# Flags recorded by what they name: a language, the texts of a template or a pool, the weights of a model, options (`decoding`).
RECORDED_BY_CONTENT = (
    "engine_args", "deterministic", "languages_file", "test_files", "demonstration_pool", "template_key", "prompt_style", "do_sample", "enable_lora", "lora_rank",
    "model_name_or_path", "base_model_name_or_path", "tokenizer_name_or_path", "sonar_name_or_path", "blaser_name_or_path",
    "comet_name_or_path", "nllb_name_or_path", "nllb_engine", "nllb_compute_type",
)  # fmt: skip
LLM_FLAGS = (
    "inference_api", "dtype", "spacy_model", "retriever_type", "retriever_tokens", "max_new_tokens", "top_p", "repetition_penalty",
    "num_return_sequences", "num_beams", "selection_method",
)  # fmt: skip
OWN_CODE = (
    "retriever_type",
    "inference_api",
    "method_translate",
    "selection_method",
    "nllb_engine",
)  # may name code of the user's own
DIVISION_FLAGS = ("method_divide", "mode_divide", "number_of_subproblems", "number_of_repetitions", "spacy_model")


def flag_settings(args: argparse.Namespace) -> dict:
    """Of `run_settings`, what flags alone say."""
    more = ("src", "tgt", "temperature", "merge_prompt", "shard")  # recorded in another form
    return provenance.result_settings(args, (*NOT_PART_OF_THE_RESULT, *RECORDED_BY_CONTENT, *more))


def run_settings(config: EvaluationConfig, model: Model) -> dict:
    """What decides the translations with `model`, except how many there are."""
    args = config.args
    unused = [*(() if config.uses_llm else LLM_FLAGS), *(() if args.steps else checks.STEPS_FLAGS)]
    if not (args.steps or args.number_of_refining_steps):
        unused.append("max_new_tokens_merge")
    pool = [text for pair in config.test_set.pool for text in pair] if config.max_demonstrations else []
    settings = provenance.result_settings(args, (*NOT_PART_OF_THE_RESULT, *RECORDED_BY_CONTENT, *unused))
    settings |= {
        "src": config.src.name,
        "tgt": config.tgt.name,
        **{f"language {one.name}": languages.row_id(one) for one in (config.src, config.tgt)},
        **provenance.code_of(**{name: [getattr(args, name)] for name in OWN_CODE}),
        "temperature": config.sampling.temperature,
        "model": _identity(model.path),
        "base_model": _identity(model.base),
        "weights": _weights(model),
        **provenance.config_of(base_model=model.base, adapter=model.adapter, tokenizer=args.tokenizer_name_or_path),
        **_model_flag(config, "tokenizer_name_or_path"),
        "prompt_style": config.style.get(model.path),
        "template_key": Path(config.template(model).key).name,  # a file is recorded by its texts
        "template_digest": provenance.digest(_example_prompt(config, model)),
        "pool_digest": provenance.digest(pool),
        **(leak_guard_settings(config) if config.max_demonstrations else {}),
        "instructions_digest": _digest_of_prompts(_instruction_files(config)),
    }
    if args.shard is not None:
        settings[shards.SETTING] = args.shard.name
    by_quality = checks.judges_quality(args)
    if config.uses_llm:
        settings["decoding"] = inference.decoding(args.inference_api, config.model_settings(model))
    if by_quality or (args.retriever_type in retrieval.NEEDS_MODEL and config.max_demonstrations):
        settings |= _model_flag(config, "sonar_name_or_path")
    if by_quality:
        settings |= _model_flag(config, "blaser_name_or_path")
    if args.selection_method == "comet-qe":
        settings |= comet_models.settings(args.comet_name_or_path)
    if args.method_translate == "nllb":
        settings |= config.nllb.settings | _model_flag(config, "nllb_name_or_path")
    if config.shots_by_sentence and args.k:
        settings["demonstrations_of"] = "sentence"
    if args.steps:
        settings |= provenance.weights_of(lid_model=args.lid_model)
        settings |= {"merge_prompt": config.merge_prompt.recorded_name} | division_settings(config, model)
    return settings


def leak_guard_settings(config: EvaluationConfig) -> dict:
    """The version of the leak guard, and how often it leaves out a pair that versions without it could show."""
    test_set, with_phrases = config.test_set, bool(config.args.steps)
    pairs = [(source, i) for source, indices in test_set.leaks.items() for i in indices]
    excluded = sum(with_phrases or test_set.pool[i][0] != source for source, i in pairs)
    return {"leak_guard": leak_guard.VERSION, "leaks_excluded": excluded}


def division_settings(config: EvaluationConfig, model: Model) -> dict:
    """What decides how sentences are divided."""
    args = config.args
    settings = {"src": config.src.name, **{name: getattr(args, name) for name in DIVISION_FLAGS}}
    settings |= provenance.code_of(method_divide=[args.method_divide])
    if args.method_divide == "llm":
        settings |= provenance.code_of(inference_api=[args.inference_api])
        for name in ("max_new_tokens_divide", "inference_api", "dtype", "repetition_penalty"):
            settings[name] = getattr(args, name)
        settings |= _model_flag(config, "tokenizer_name_or_path")
        settings["decoding"] = inference.decoding(args.inference_api, config.model_settings(model))
        settings |= {"divided_by": _identity(model.path), "weights": _weights(model)}
        settings["prompt_style"] = config.style[model.path]
        if config.style[model.path] == CHAT:
            settings["chat_template_digest"] = provenance.digest(_chat_template(config, model))
        settings["divide_instructions_digest"] = _digest_of_prompts([divide.prompt_file(args.mode_divide)])
    if args.method_divide == "keyword":
        settings["pool_of_keywords"] = provenance.digest([source for source, _ in config.test_set.pool])
    return settings


def _instruction_files(config: EvaluationConfig) -> list[Path]:
    """The prompt files whose texts this run may send."""
    args = config.args
    names = ["annotated" if args.method_translate in checks.ANNOTATED else args.method_translate.lower()]
    names += ["refine"] * bool(args.number_of_refining_steps or args.refine_after_merge)
    paths = [prompts.FOLDER / "methods" / f"{name}.toml" for name in names]
    merge_prompts = [config.merge_prompt.path] if args.steps and config.merge_prompt.path else []
    return [*filter(Path.is_file, paths), *merge_prompts]


def _digest_of_prompts(paths: list[Path]) -> str:
    """A digest of the texts in prompt files; comments do not count."""
    return provenance.digest(json.dumps([toml_prompts.load(path, {}) for path in paths]))


def _model_flag(config: EvaluationConfig, flag: str) -> dict:
    """The model that a flag names, and the id of its weights if it is a local one."""
    name = getattr(config.args, flag)
    if name is None:
        return {flag: None}
    weights = provenance.weights_id(name)
    return {flag: _identity(name)} | ({f"{flag.removesuffix('_name_or_path')}_weights": weights} if weights else {})


def _identity(name: str) -> str:
    """A Hub id as it is; a folder with weights by its name alone, since they have an id; another folder by its path."""
    path = Path(name)
    if not path.exists():
        return name
    return path.resolve().name if provenance.weights_id(name) else str(path.resolve())


def _weights(model: Model) -> list[str]:
    return [provenance.weights_id(path) for path in dict.fromkeys((model.base, model.adapter or model.base))]


def _example_prompt(config: EvaluationConfig, model: Model) -> str:
    """The prompt for one sentence with one demonstration, which changes when a template is edited."""
    if config.style.get(model.path) == CHAT:
        messages = chat_prompt(config.src.name, config.tgt.name, [("a", "b")], "c")
        return json.dumps([messages, _chat_template(config, model)])
    return config.template(model).get_prompt([("a", "b")], "c")


def _chat_template(config: EvaluationConfig, model: Model) -> str:
    """The template itself, since what it renders may contain the date; "" where only a server knows it."""
    return "" if config.args.inference_api in inference.REMOTE else json.dumps(config.tokenizer(model).chat_template)
