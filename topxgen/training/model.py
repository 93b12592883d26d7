"""The model that is fine-tuned: its tokenizer, its training rows, and its weights, quantized or with adapters.

The architecture decides how it is trained, not the name: an encoder-decoder on sources and targets with language tokens,
any other model as a decoder LM on texts of an MT template.
"""

import argparse
import functools
import inspect
import logging
from pathlib import Path

from topxgen.common import environment, flag_rules
from topxgen.common.errors import UsageError, reason
from topxgen.common.files import Appender
from topxgen.common.hub import cannot_load, hub_call
from topxgen.common.weights import load_weights, parts_not_for_text
from topxgen.inference import ModelSettings
from topxgen.inference.tokenizer import check_vocabulary, load_tokenizer, replace_missing_padding
from topxgen.training.arguments import launched_with_deepspeed
from topxgen.training.flag_rules import DECODER_RULES
from topxgen.training.packing import DecoderCollator, Seq2SeqCollator, Seq2SeqRows, decoder_rows
from topxgen.training.pairs import Pair
from topxgen.training.tokenization import CausalTokenizer, Seq2SeqTokenizer, TokenizedTexts

logger = logging.getLogger(__name__)

SKIPPED_PAIRS_FILE = "left_out_pairs.jsonl"  # in the output directory
DECODER, ENCODER_DECODER = "decoder", "encoder-decoder"


class TrainableModel:
    """A model's config and tokenizer, and how pairs become its rows; `load` loads the weights."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        name, trust = args.model_name_or_path, args.trust_remote_code
        self.config = _read_config(name, trust)
        self.kind = ENCODER_DECODER if self.config.is_encoder_decoder else DECODER
        if self.is_decoder:
            self.tokenizer = load_tokenizer(ModelSettings.from_args(args))
            text_config = self.config.get_text_config()
            self.pair_tokenizer = CausalTokenizer(
                self.tokenizer, args.template_key, text_config.vocab_size, args.eos_token_id, args.languages_file
            )
            if self.pair_tokenizer.eos != self.tokenizer.eos_token_id:  # saved with the model, for decoding
                self.tokenizer.eos_token = self.tokenizer.convert_ids_to_tokens(self.pair_tokenizer.eos)
            replace_missing_padding(self.tokenizer, self.config)
            limit = getattr(text_config, "max_position_embeddings", None)
            if limit and args.max_length > limit:
                raise UsageError(
                    f"--max_length {args.max_length} exceeds the {limit} tokens that {name} reads; pass {limit} or less"
                )
        else:
            from topxgen.translation import seq2seq_engines
            from topxgen.translation.language_tokens import LanguageTokens

            flag_rules.check(DECODER_RULES, args)
            _, self.tokenizer, limit = seq2seq_engines.read_checkpoint(args.tokenizer_name_or_path or name, trust)
            language_tokens = LanguageTokens(name, self.config, self.tokenizer)
            max_length = min(args.max_length, limit)
            self.pair_tokenizer = Seq2SeqTokenizer(self.tokenizer, language_tokens, max_length, args.languages_file)
        pad = self.tokenizer.pad_token_id
        self.pad = pad if pad is not None else self.tokenizer.eos_token_id or 0

    @property
    def is_decoder(self) -> bool:
        return self.kind == DECODER

    def encode(self, pairs: list[Pair], packing: str | None = None) -> TokenizedTexts:
        """The pairs as token ids; those of a decoder LM that are too long for a row are skipped, unless rows are cut.

        Raises UsageError if the tokenizer has tokens that the model does not have.
        """
        if self.is_decoder:
            is_cut = (packing or self.args.packing) == "concat"
            texts = self.pair_tokenizer.encode(pairs, None if is_cut else self.args.max_length)
        else:
            texts = self.pair_tokenizer.encode(pairs)
        check_vocabulary([int(texts.ids.max(initial=0))], self.config, self.args.model_name_or_path)
        return texts

    def report_too_long(self, texts: TokenizedTexts, pairs: list[Pair], which: str) -> None:
        """Log how many of `which` pairs were too long, and list them in the output directory, unless in a dry run."""
        if texts.too_long:
            path, lists = self.args.output_dir / SKIPPED_PAIRS_FILE, not self.args.dry_run
            longest = max(tokens for _, tokens in texts.too_long)
            logger.info(
                f"{len(texts.too_long)} {which} pairs longer than --max_length {self.args.max_length} tokens are skipped "
                f"(longest {longest}{f'; listed in {path}' if lists else ''})"
            )
            if environment.is_main_process() and lists:
                with Appender(path) as file:
                    for i, tokens in texts.too_long:
                        columns = {
                            name: getattr(pairs[i], name) for name in ("src", "tgt", "group", "source", "target")
                        }
                        file.write({"set": which, "tokens": tokens, **columns})
        if not self.is_decoder and self.pair_tokenizer.truncated:
            tokenizer = self.pair_tokenizer
            logger.info(f"{tokenizer.truncated} {which} texts longer than {tokenizer.max_length} tokens are truncated")
            tokenizer.truncated = 0

    def rows(self, texts: TokenizedTexts, packing: str | None = None):
        """The rows of a training or test set; `packing` overrides --packing."""
        if not self.is_decoder:
            return Seq2SeqRows(texts)
        args = self.args
        return decoder_rows(texts, packing or args.packing, args.max_length, args.targets_only, args.seed)

    def collator(self):
        if self.is_decoder:
            return DecoderCollator(self.pad, self.attention == "flash_attention_2", self.args.packing == "bestfit")
        return Seq2SeqCollator(self.pad, self.config.decoder_start_token_id)

    def check_modules(self) -> None:
        """Raise UsageError if the architecture lacks --target_modules; it is built without weights."""
        import torch

        if self.args.use_peft and not self.args.trust_remote_code:
            with torch.device("meta"):
                self._with_adapters(self._model_class.from_config(self.config, trust_remote_code=False))

    @property
    def _model_class(self):
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

        return AutoModelForCausalLM if self.is_decoder else AutoModelForSeq2SeqLM

    def load(self):
        """The weights, quantized and with adapters according to the flags."""
        import torch
        from transformers import BitsAndBytesConfig
        from transformers.utils.logging import disable_progress_bar

        from topxgen.training import varlen

        disable_progress_bar()
        args, options = self.args, {}
        half = self.precision
        # Trained weights stay float32 unless DeepSpeed keeps float32 copies; frozen ones need not.
        dtype = half if args.use_peft or args.deepspeed or launched_with_deepspeed() else torch.float32
        if args.load_in_8bit or args.load_in_4bit:
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_8bit=args.load_in_8bit,
                load_in_4bit=args.load_in_4bit,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=half,
            )
            if torch.cuda.is_available():
                options["device_map"] = {"": environment.number("LOCAL_RANK", 0)}
            else:
                logger.warning("quantized training without a GPU works but is slow: use it for tests only")
        if self.attention:
            options["attn_implementation"] = self.attention
        elif args.use_flash_attn:
            logger.warning(
                "flash attention needs flash-attn, or --bf16 or --fp16, packed rows and a GPU of capability 8.0 or more: using "
                "torch's SDPA"
            )
        try:
            model = load_weights(
                self._model_class,
                args.model_name_or_path,
                dtype=dtype,
                trust_remote_code=args.trust_remote_code,
                **options,
            )
        except (torch.OutOfMemoryError, UsageError):
            raise
        except Exception as error:  # the Hub client raises dozens of types; the cause is in the message
            if self.attention and "flash" in str(error).lower():
                raise UsageError(f"{args.model_name_or_path}: {reason(error)}; drop --use_flash_attn") from None
            raise UsageError(cannot_load(args.model_name_or_path, error)) from None
        takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        if self.is_decoder and args.packing == "bestfit" and not takes_positions:
            raise UsageError(
                f"{type(model).__name__} takes no position ids, so pairs cannot be packed: pass --packing none"
            )
        if self.attention == varlen.NAME:
            varlen.pass_boundaries(model)
        return self._with_adapters(model) if args.use_peft else model

    def _with_adapters(self, model):
        from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

        args = self.args
        if args.load_in_8bit or args.load_in_4bit:
            model = prepare_model_for_kbit_training(
                model,
                use_gradient_checkpointing=args.gradient_checkpointing,
                gradient_checkpointing_kwargs={"use_reentrant": False},
            )
        targets = args.target_modules
        config = LoraConfig(
            task_type="CAUSAL_LM" if self.is_decoder else "SEQ_2_SEQ_LM",
            r=args.lora_r,
            lora_alpha=args.lora_alpha,
            lora_dropout=args.lora_dropout,
            target_modules="all-linear" if targets in (None, ["all-linear"], ["all"]) else targets,
            use_dora=args.use_dora,
            # vLLM loads no adapters of parts that it leaves out, and text would not train them.
            exclude_modules=rf".*\b({'|'.join(parts)})\b.*" if (parts := parts_not_for_text(model)) else None,
        )
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            if "lora_dropout" in str(error):  # experts are one parameter of three dimensions
                raise UsageError(
                    f"{type(model).__name__} has experts, whose adapters take no dropout: pass --lora_dropout 0, or other "
                    "--target_modules, such as q_proj k_proj v_proj o_proj"
                ) from None
            if "target modules" not in str(error).lower():
                raise
            linear = [name for name, module in model.named_modules() if "Linear" in type(module).__name__]
            choices = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise UsageError(
                f"--target_modules {' '.join(targets or [])}: {reason(error)}; choose from {choices}"
            ) from None

    @property
    def precision(self):
        """The dtype of matrix products."""
        import torch

        return torch.bfloat16 if self.args.bf16 else torch.float16 if self.args.fp16 else torch.float32

    @functools.cached_property
    def attention(self) -> str | None:
        """transformers' name of the flash attention that --use_flash_attn requests: flash-attn's, if it is installed, else that of torch.
        None if there is none: transformers chooses (SDPA where it can)."""
        from transformers.utils import is_flash_attn_2_available

        from topxgen.training import varlen

        if not self.args.use_flash_attn:
            return None
        if is_flash_attn_2_available():
            return "flash_attention_2"
        if not (self.is_decoder and self.args.packing == "bestfit" and varlen.is_available(self.precision)):
            return None
        varlen.register()
        return varlen.NAME

    @property
    def has_unused_parameters(self) -> bool:
        """Whether a step may leave parameters without a gradient, which DDP has to know."""
        drops = any(getattr(self.config, name, 0) for name in ("encoder_layerdrop", "decoder_layerdrop", "layerdrop"))
        return drops or hasattr(self.config, "vision_config") or hasattr(self.config, "audio_config")


def _read_config(name: str, trust_remote_code: bool):
    from transformers import AutoConfig

    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        is_adapter = (Path(name) / "adapter_config.json").is_file()
        problem = "not a model folder: it has no config.json"
        if is_adapter:
            problem = "a LoRA adapter: merge it first (scripts/merge_lora.py)"
        raise UsageError(f"--model_name_or_path {name!r} is {problem}")
    return hub_call(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code))


def count_parameters(model) -> tuple[int, int]:
    """(trained, all) parameters; those sharded by ZeRO-3 with their full size."""
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
