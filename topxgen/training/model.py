"""The checkpoint that is fine-tuned: its tokenizer, how pairs become its rows, and its weights, quantised or adapted.

The architecture decides the path, not the name: an encoder-decoder model is trained on sources and targets with
language codes, any other on template texts.
"""

import argparse
import importlib.util
import inspect
import logging
import os
from collections.abc import Callable
from pathlib import Path

from topxgen.common.errors import UsageError, reason
from topxgen.common.hub import cannot_load
from topxgen.inference import ModelSettings
from topxgen.inference.tokenizer import load_tokenizer
from topxgen.training.packing import DecoderCollator, PairCollator, Seq2SeqRows, decoder_rows
from topxgen.training.pairs import Pair
from topxgen.training.tokenization import CausalTokenizer, Seq2SeqTokenizer, TokenizedTexts

logger = logging.getLogger(__name__)

Say = Callable[[str], None]
LEFT_OUT_FILE = "left_out_pairs.jsonl"  # in the output directory
DECODER, ENCODER_DECODER = "decoder", "encoder-decoder"


class TrainableModel:
    """A checkpoint's config and tokenizer, and how pairs are encoded for it; its weights are loaded by `load`."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        name, trust = args.model_name_or_path, args.trust_remote_code
        self.config = read_config(name, trust)
        self.kind = ENCODER_DECODER if self.config.is_encoder_decoder else DECODER
        if self.kind == DECODER:
            self.tokenizer = load_tokenizer(ModelSettings.from_args(args))
            text = self.config.get_text_config()
            self.encoder = CausalTokenizer(
                self.tokenizer, args.template_key, text.vocab_size, args.eos_token_id, args.languages_file
            )
            if self.encoder.eos != self.tokenizer.eos_token_id:  # saved with the model, for those that decode with it
                self.tokenizer.eos_token = self.tokenizer.convert_ids_to_tokens(self.encoder.eos)
            limit = getattr(text, "max_position_embeddings", None)
        else:
            from topxgen.translation import seq2seq_engines
            from topxgen.translation.language_tokens import LanguageTokens

            for flag in ("eos_token_id", "use_liger_kernel"):
                if getattr(args, flag):
                    raise UsageError(f"--{flag} is for decoders, and {name} is an encoder-decoder: leave it out")
            _, self.tokenizer, limit = seq2seq_engines.read(args.tokenizer_name_or_path or name, trust)
            tokens = LanguageTokens(name, self.config, self.tokenizer)
            length = min(args.max_length, limit)
            self.encoder = Seq2SeqTokenizer(self.tokenizer, tokens, length, args.languages_file)
            limit = None
        if limit and args.max_length > limit:
            raise UsageError(
                f"--max_length {args.max_length} is more than the {limit} tokens that {name} reads; pass {limit} or less"
            )
        pad = self.tokenizer.pad_token_id
        self.pad = pad if pad is not None else self.tokenizer.eos_token_id or 0

    def encode(self, pairs: list[Pair], packing: str | None = None) -> TokenizedTexts:
        """Those pairs that fit in a row (all of them where rows are cut).

        Raises UsageError when the tokenizer has tokens that the model has not.
        """
        if self.kind == ENCODER_DECODER:
            encoded = self.encoder.encode(pairs)
        else:
            cut = (packing or self.args.packing) == "original"
            encoded = self.encoder.encode(pairs, None if cut else self.args.max_length)
        known, most = self.config.get_text_config().vocab_size, int(encoded.ids.max(initial=0))
        if most >= known:
            raise UsageError(
                f"the tokenizer has a token {most}, but {self.args.model_name_or_path} has only {known}: it is not this "
                "model's; mend --tokenizer_name_or_path"
            )
        return encoded

    def left_out(self, encoded: TokenizedTexts, which: str) -> list[str]:
        """What to say about pairs that are too long: nothing is cut or dropped without a word."""
        limit, lines = self.args.max_length, []
        if encoded.too_long:
            lines.append(
                f"{len(encoded.too_long)} {which} pairs longer than --max_length {limit} tokens are left out (longest "
                f"{max(tokens for _, tokens in encoded.too_long)}; all are listed in {LEFT_OUT_FILE})"
            )
        if self.kind == ENCODER_DECODER and self.encoder.cut:
            lines.append(
                f"{self.encoder.cut} {which} texts longer than {self.encoder.max_length} tokens are cut at their end"
            )
            self.encoder.cut = 0
        return lines

    def rows(self, encoded: TokenizedTexts, packing: str | None = None):
        if self.kind == ENCODER_DECODER:
            return Seq2SeqRows(encoded)
        args = self.args
        return decoder_rows(encoded, packing or args.packing, args.max_length, args.targets_only, args.seed)

    def streamed(self, stream, held_out: list[Pair]):
        """Rows out of a stream of pairs."""
        from topxgen.training.streaming import StreamedRows

        args = self.args
        return StreamedRows(
            stream,
            self.encoder,
            window=args.num_of_sequences,
            packing=args.packing,
            max_length=args.max_length,
            targets_only=args.targets_only,
            seed=args.seed,
            both_ways=args.reverse,
            held_out=held_out,
        )

    def collator(self):
        if self.kind == ENCODER_DECODER:
            return PairCollator(self.pad, self.config.decoder_start_token_id)
        return DecoderCollator(self.pad, self.flash, self.args.packing == "bestfit")

    def load(self):
        """The weights, quantised and with adapters as the flags say."""
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, BitsAndBytesConfig
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        args, options = self.args, {}
        half = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else torch.float32
        # Weights that are trained stay float32 unless DeepSpeed keeps float32 copies; frozen ones need not.
        dtype = half if args.use_peft or args.deepspeed or launched_with_deepspeed() else torch.float32
        if args.load_in_8bit or args.load_in_4bit:
            need("bitsandbytes", "bitsandbytes>=0.48", f"--load_in_{8 if args.load_in_8bit else 4}bit")
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_8bit=args.load_in_8bit,
                load_in_4bit=args.load_in_4bit,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=half,
            )
            if not torch.cuda.is_available():
                logger.info("quantised training without a GPU works, but is slow: it is for trying things out")
            else:
                options["device_map"] = {"": int(os.environ.get("LOCAL_RANK", 0))}
        if self.flash:
            options["attn_implementation"] = "flash_attention_2"
        elif args.use_flash_attn:
            logger.info("flash-attn is not installed or finds no GPU (pip install flash-attn): torch's SDPA is used")
        kind = AutoModelForSeq2SeqLM if self.kind == ENCODER_DECODER else AutoModelForCausalLM
        try:
            model = kind.from_pretrained(
                args.model_name_or_path,
                dtype=dtype,
                trust_remote_code=args.trust_remote_code,
                **options,
            )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the Hub client raises dozens of types; the cause is in the message
            if self.flash and "flash" in str(error).lower():
                raise UsageError(f"{args.model_name_or_path}: {reason(error)}; leave --use_flash_attn out") from None
            raise UsageError(cannot_load(args.model_name_or_path, error)) from None
        if self.kind == DECODER and args.packing == "bestfit" and not _takes_positions(model):
            raise UsageError(
                f"{type(model).__name__} takes no position ids, so pairs cannot be packed: pass --packing none"
            )
        return self._adapted(model) if args.use_peft else model

    def _adapted(self, model):
        from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

        args = self.args
        if args.load_in_8bit or args.load_in_4bit:
            model = prepare_model_for_kbit_training(
                model,
                use_gradient_checkpointing=args.gradient_checkpointing,
                gradient_checkpointing_kwargs={"use_reentrant": False},
            )
        targets = args.target_modules or "all-linear"
        if targets in (["all-linear"], ["all"]):
            targets = "all-linear"
        try:
            return get_peft_model(
                model,
                LoraConfig(
                    task_type="SEQ_2_SEQ_LM" if self.kind == ENCODER_DECODER else "CAUSAL_LM",
                    r=args.lora_r,
                    lora_alpha=args.lora_alpha,
                    lora_dropout=args.lora_dropout,
                    target_modules=targets,
                    use_dora=args.use_dora,
                ),
            )
        except ValueError as error:
            if "target modules" not in str(error).lower():
                raise
            names = sorted(
                {name.rpartition(".")[2] for name, m in model.named_modules() if "Linear" in type(m).__name__}
            )
            raise UsageError(
                f"--target_modules {' '.join(args.target_modules or [])}: {reason(error)}; choose from {', '.join(names)}"
            ) from None

    @property
    def flash(self) -> bool:
        """Whether flash attention is wanted and can be had; else transformers chooses, SDPA where the model has it."""
        from transformers.utils import is_flash_attn_2_available

        return self.args.use_flash_attn and is_flash_attn_2_available()

    @property
    def leaves_parameters_unused(self) -> bool:
        """Whether a step may give some parameters no gradient, which DDP must be told."""
        drops = any(getattr(self.config, name, 0) for name in ("encoder_layerdrop", "decoder_layerdrop", "layerdrop"))
        return drops or hasattr(self.config, "vision_config") or hasattr(self.config, "audio_config")


def _takes_positions(model) -> bool:
    parameters = inspect.signature(model.forward).parameters
    return "position_ids" in parameters


def read_config(name: str, trust_remote_code: bool):
    from transformers import AutoConfig

    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        adapter = (Path(name) / "adapter_config.json").is_file()
        why = "a LoRA adapter: merge it first (scripts/merge_lora.py)" if adapter else "no model: it has no config.json"
        raise UsageError(f"--model_name_or_path {name} is {why}")
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    except Exception as error:  # the Hub client raises dozens of types; the cause is in the message
        raise UsageError(cannot_load(name, error)) from None


def launched_with_deepspeed() -> bool:
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def need(module: str, requirement: str, flag: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise UsageError(f"{flag} needs {module}, which is not installed: pip install '{requirement}'")


def parameters(model) -> tuple[int, int]:
    """(trained, all) parameters; sharded ones (ZeRO-3) by their whole size."""
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
