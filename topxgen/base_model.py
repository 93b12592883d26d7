"""The checkpoint that is fine-tuned: its tokenizer, how pairs become its rows, and its weights, quantised or adapted.

The architecture decides the path, not the name: an encoder-decoder model is trained on sources and targets with
language codes, any other on template texts.
"""

import argparse
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from comptra.errors import UserError, reason
from comptra.samplers import ModelSettings, cannot_load, load_tokenizer
from topxgen.encoding import DecoderEncoder, Encoded, PairEncoder
from topxgen.packing import DecoderCollator, PairCollator, PairRows, decoder_rows
from topxgen.pairs import Pair

Say = Callable[[str], None]
DECODER, ENCODER_DECODER = "decoder", "encoder-decoder"


class BaseModel:
    """A checkpoint's config and tokenizer, and how pairs are encoded for it; its weights are loaded by `load`."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        name, trust = args.model_name_or_path, args.trust_remote_code
        self.config = read_config(name, trust)
        self.kind = ENCODER_DECODER if self.config.is_encoder_decoder else DECODER
        if self.kind == DECODER:
            self.tokenizer = load_tokenizer(
                ModelSettings(name, tokenizer=args.tokenizer_name_or_path, trust_remote_code=trust)
            )
            text = self.config.get_text_config()
            self.encoder = DecoderEncoder(self.tokenizer, args.template_key, text.vocab_size, args.eos_token_id)
            limit = getattr(text, "max_position_embeddings", None)
        else:
            from comptra.translators import seq2seq
            from comptra.translators.families import LanguageTokens

            _, self.tokenizer, limit = seq2seq.read(args.tokenizer_name_or_path or name, trust)
            tokens = LanguageTokens(name, self.config, self.tokenizer)
            length = min(args.max_length, limit)
            self.encoder = PairEncoder(self.tokenizer, tokens, length, args.languages_file)
            limit = None
        if limit and args.max_length > limit:
            raise UserError(
                f"--max_length {args.max_length} is more than the {limit} tokens that {name} reads; pass {limit} or less"
            )
        pad = self.tokenizer.pad_token_id
        self.pad = pad if pad is not None else self.tokenizer.eos_token_id or 0

    def encode(self, pairs: list[Pair], packing: str | None = None) -> Encoded:
        """Those pairs that fit in a row (all of them where rows are cut)."""
        if self.kind == ENCODER_DECODER:
            return self.encoder.encode(pairs)
        cut = (packing or self.args.packing) == "original"
        return self.encoder.encode(pairs, None if cut else self.args.max_length)

    def left_out(self, encoded: Encoded, which: str) -> list[str]:
        """What to say about pairs that are too long: nothing is cut or dropped without a word."""
        limit, lines = self.args.max_length, []
        if encoded.left_out:
            lines.append(
                f"{encoded.left_out} {which} pairs longer than --max_length {limit} tokens are left out (longest "
                f"{encoded.longest})"
            )
        if self.kind == ENCODER_DECODER and self.encoder.cut:
            lines.append(f"{self.encoder.cut} {which} texts longer than {self.encoder.max_length} tokens are cut")
            self.encoder.cut = 0
        return lines

    def rows(self, encoded: Encoded, packing: str | None = None):
        if self.kind == ENCODER_DECODER:
            return PairRows(encoded)
        args = self.args
        return decoder_rows(encoded, packing or args.packing, args.max_length, args.targets_only, args.seed)

    def streamed(self, stream):
        """Rows out of a stream of pairs."""
        from topxgen.streaming import StreamedRows

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
        )

    def collator(self, flat: bool = False):
        if self.kind == ENCODER_DECODER:
            return PairCollator(self.pad, self.config.decoder_start_token_id)
        return DecoderCollator(self.pad, flat)

    def load(self, say: Say):
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
            if torch.cuda.is_available():
                options["device_map"] = {"": int(os.environ.get("LOCAL_RANK", 0))}
        kind = AutoModelForSeq2SeqLM if self.kind == ENCODER_DECODER else AutoModelForCausalLM
        try:
            model = kind.from_pretrained(
                args.model_name_or_path,
                dtype=dtype,
                attn_implementation=self.attention(say),
                trust_remote_code=args.trust_remote_code,
                **options,
            )
        except Exception as error:  # the Hub client raises dozens of types; the cause is in the message
            raise UserError(cannot_load(args.model_name_or_path, error)) from None
        if self.kind == DECODER and self.encoder.eos != self.tokenizer.eos_token_id:
            model.generation_config.eos_token_id = self.encoder.eos  # so that vLLM ends answers there, too
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
            names = sorted(
                {name.rpartition(".")[2] for name, m in model.named_modules() if "Linear" in type(m).__name__}
            )
            raise UserError(
                f"--target_modules {' '.join(args.target_modules or [])}: {reason(error)}; choose from {', '.join(names)}"
            ) from None

    def attention(self, say: Say | None = None) -> str:
        from transformers.utils import is_flash_attn_2_available

        if not self.args.use_flash_attn:
            return "sdpa"
        if is_flash_attn_2_available():
            return "flash_attention_2"
        if say:
            say("flash-attn is not installed or finds no GPU (pip install flash-attn): torch's SDPA is used")
        return "sdpa"


def read_config(name: str, trust_remote_code: bool):
    from transformers import AutoConfig

    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        adapter = (Path(name) / "adapter_config.json").is_file()
        why = "a LoRA adapter: merge it first (scripts/merge_lora.py)" if adapter else "no model: it has no config.json"
        raise UserError(f"--model_name_or_path {name} is {why}")
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    except Exception as error:  # the Hub client raises dozens of types; the cause is in the message
        raise UserError(cannot_load(name, error)) from None


def launched_with_deepspeed() -> bool:
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def need(module: str, requirement: str, flag: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{flag} needs {module}, which is not installed: pip install '{requirement}'")


def parameters(model) -> tuple[int, int]:
    """(trained, all) parameters; sharded ones (ZeRO-3) by their whole size."""
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
