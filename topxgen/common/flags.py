"""Flags that several scripts share, so that each is named, explained and defaulted once."""

from topxgen import inference, translation
from topxgen.common.cli import FLAG, choices_help, float_range, int_range, parse_bool
from topxgen.prompting.style import STYLES
from topxgen.quality import blaser, sonar
from topxgen.translation import nllb


def add_language_flags(group) -> None:
    group.add_argument(
        "--languages_file",
        metavar="TSV",
        help="a table of additional languages, with the columns of topxgen/text/languages.tsv",
    )


def add_run_flags(group) -> None:
    group.add_argument(
        "--seed", type=int_range(0), default=122, help="seed of everything that is drawn at random [%(default)s]"
    )
    group.add_argument("--verbose", **FLAG, help="print generated texts while the run goes on")


def add_model_flags(group) -> None:
    """The LLM and the engine that runs it; --model_name_or_path is each script's own."""
    group.add_argument("--tokenizer_name_or_path", metavar="MODEL", help="tokenizer, if it is not the model's own")
    group.add_argument(
        "--inference_api",
        choices=inference.BACKENDS,
        default="vllm",
        metavar="BACKEND",
        help=choices_help("what runs the LLM", inference.BACKENDS),
    )
    group.add_argument(
        "--request_batch_size",
        type=int_range(1),
        default=4,
        metavar="N",
        help="topics per generation step; with hf also prompts per batch [%(default)s]",
    )
    group.add_argument(
        "--max_concurrent_requests",
        type=int_range(1),
        metavar="N",
        help="requests in flight at a time for vllm and APIs [vllm 256, APIs 16]",
    )
    group.add_argument(
        "--dtype",
        choices=("auto", "bfloat16", "float16", "float32"),
        default="auto",
        help="precision of the weights; auto: as the checkpoint was saved [%(default)s]",
    )
    group.add_argument(
        "--max_model_len",
        type=int_range(16),
        metavar="TOKENS",
        help="longest prompt and answer together [8192, or less if the model reads less]",
    )
    group.add_argument(
        "--gpu_memory_utilization",
        type=float_range(0.05, 1),
        default=0.9,
        metavar="SHARE",
        help="vllm: share of each GPU's memory to use [%(default)s]",
    )
    group.add_argument(
        "--tensor_parallel_size",
        type=int_range(1),
        metavar="GPUS",
        help="vllm: GPUs that hold one copy of the model [all visible GPUs]",
    )
    group.add_argument(
        "--lora_rank", type=int_range(1), default=16, help="largest rank of a LoRA adapter to load [%(default)s]"
    )
    group.add_argument("--trust_remote_code", **FLAG, help="run Python code that comes with a model; off by default")


def add_api_flags(group) -> None:
    group.add_argument(
        "--api_key",
        help="API key; better: export OPENAI_API_KEY, CO_API_KEY or ANTHROPIC_API_KEY. Never logged or saved",
    )
    group.add_argument(
        "--base_url", metavar="URL", help="an OpenAI-compatible server, such as http://localhost:8000/v1 of vllm serve"
    )
    group.add_argument(
        "--request_timeout",
        type=float_range(0.1),
        default=600,
        metavar="SECONDS",
        help="time limit of one attempt at a request [%(default)s]",
    )
    group.add_argument(
        "--max_retries",
        type=int_range(0),
        default=8,
        metavar="N",
        help="attempts after the first for rate limits, server errors and broken connections [%(default)s]",
    )


def add_decoding_flags(group, *, max_new_tokens: int, temperature: float) -> None:
    group.add_argument(
        "--max_new_tokens", type=int_range(1), default=max_new_tokens, metavar="N", help="longest answer [%(default)s]"
    )
    group.add_argument(
        "--temperature",
        type=float_range(0),
        default=temperature,
        help="sampling temperature; 0 is greedy [%(default)s]",
    )
    group.add_argument(
        "--top_p", type=float_range(0.001, 1), default=1.0, help="nucleus sampling: probability mass [%(default)s]"
    )
    group.add_argument(
        "--repetition_penalty", type=float_range(0.01), default=1.0, help="above 1 discourages repetition [%(default)s]"
    )
    group.add_argument(
        "--num_return_sequences", type=int_range(1), default=1, metavar="N", help="answers per prompt [%(default)s]"
    )
    group.add_argument(
        "--num_beams", type=int_range(1), default=1, metavar="N", help="above 1: beam search [%(default)s]"
    )
    group.add_argument(
        "--do_sample",
        type=parse_bool,
        nargs="?",
        const=True,
        default=True,
        help="false: greedy decoding, whatever --temperature says [%(default)s]",
    )


def add_prompt_style_flag(group) -> None:
    group.add_argument(
        "--prompt_style",
        choices=STYLES,
        default="auto",
        help="how the LLM is prompted to translate; raw: the template as plain text; chat: an instruction through the chat "
        "template; auto: chat where the tokenizer has a chat template [%(default)s]",
    )


def add_nllb_flags(group, *, default: str) -> None:
    group.add_argument(
        "--nllb_name_or_path",
        default=default,
        metavar="MODEL",
        help="translation model: NLLB, M2M-100, MADLAD-400 or Marian [%(default)s]",
    )
    group.add_argument(
        "--nllb_engine",
        choices=nllb.ENGINES,
        default="ctranslate2",
        help="ctranslate2 is fast; transformers is the slow reference [%(default)s]",
    )
    group.add_argument(
        "--nllb_compute_type",
        choices=nllb.COMPUTE_TYPES,
        default="auto",
        help="precision of the translation model; auto: float16 on GPU, int8 on CPU [%(default)s]",
    )
    group.add_argument(
        "--cache_dir",
        default=translation.CACHE_DIR,
        metavar="DIR",
        help="where converted CTranslate2 models are kept [%(default)s]",
    )


def add_quality_flags(group) -> None:
    group.add_argument(
        "--blaser_name_or_path", default=blaser.DEFAULT, metavar="MODEL", help="BLASER-2.0-QE model [%(default)s]"
    )
    group.add_argument(
        "--sonar_name_or_path", default=sonar.DEFAULT, metavar="MODEL", help="SONAR text encoder [%(default)s]"
    )


def add_language_id_flag(group) -> None:
    group.add_argument(
        "--lid_model",
        default="cld2",
        metavar="CLD2_PATH_OR_ID",
        help="language identification: cld2 (embedded), or a fastText model by path or Hub id [%(default)s]",
    )
