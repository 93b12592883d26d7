"""Training speed on one GPU with random weights, for gpu.py: tokens/s, FLOPs and peak memory by model shape.

Rows are packed with texts as long as translation pairs (mean 90 tokens). Model FLOPs per token: 6 per trained parameter, 4 per
frozen one (gradients pass through, none are computed for it), the output layer only at tokens that have a loss, and attention
within texts; recomputation does not count (Chowdhery et al. 2022, appendix B).
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from topxgen.common.weights import free_memory
from topxgen.training.packing import IGNORED, DecoderCollator, decoder_rows
from topxgen.training.tokenization import TokenizedTexts

# All but the first with --use_flash_attn; "compiled" with --torch_compile, "checkpointing" with --gradient_checkpointing.
WAYS = ("sdpa", "flash", "compiled", "checkpointing")
SHAPES = {  # name: (LoRA?, shape)
    "8b-lora": (
        True,
        dict(vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
             num_key_value_heads=8),
    ),
    "1b-full": (
        False,
        dict(vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
             num_key_value_heads=8, tie_word_embeddings=True),
    ),
    "270m-full": (  # the vocabulary of Gemma
        False,
        dict(vocab_size=262144, hidden_size=640, intermediate_size=2048, num_hidden_layers=18, num_attention_heads=4,
             num_key_value_heads=1, head_dim=256, tie_word_embeddings=True),
    ),
    "tiny": (
        False,
        dict(vocab_size=1000, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2),
    ),
}  # fmt: skip


def texts(tokens: int, vocabulary: int) -> TokenizedTexts:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.gamma(4, 22.5, size=tokens // 90), 20, 400).astype(int)
    ids = rng.integers(10, vocabulary, lengths.sum()).astype(np.int32)
    return TokenizedTexts(ids, np.cumsum(lengths), (lengths // 2).astype(np.int32))


def model_flops(model, lora: bool, encoded: TokenizedTexts, learned: int) -> float:
    """FLOPs of one epoch over `encoded`, of which `learned` tokens have a loss."""
    config = model.config
    head = config.vocab_size * config.hidden_size
    body = sum(p.numel() for n, p in model.named_parameters() if "lora_" not in n and p.dim() == 2)
    body -= head if config.tie_word_embeddings else 2 * head  # an embedding look-up is no matrix product
    adapters = sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)
    tokens, squares = int(encoded.lengths.sum()), int((encoded.lengths.astype(np.int64) ** 2).sum())
    trained, frozen = (adapters, body) if lora else (body, 0)
    # Causal: half of 4; forward, and twice that backward.
    attention = 3 * 2 * squares * config.hidden_size * config.num_hidden_layers
    return tokens * (6 * trained + 4 * frozen) + learned * head * (4 if lora else 6) + attention


def pair_trainer(**options):
    """The Trainer of train.py, without held-out data."""
    from topxgen.training.trainer import EvalSets, PairTrainer

    return PairTrainer(**options, eval_sets=EvalSets(), decoder=True, save_total_limit=None, finish=lambda *_: None)


def step_times(make: Callable, model, rows, collator: Callable, **options) -> list[float]:
    """When each step of training ended. `make` makes the Trainer, `options` are TrainingArguments."""
    import torch
    from transformers import PrinterCallback, TrainerCallback, TrainingArguments

    times, cuda = [], torch.cuda.is_available()

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            if cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, bf16=True, use_cpu=not cuda, report_to="none", save_strategy="no", logging_strategy="no",
            disable_tqdm=True, remove_unused_columns=False, label_names=["labels"], **options,
        )  # fmt: skip
        trainer = make(model=model, args=arguments, data_collator=collator, train_dataset=rows, callbacks=[Clock()])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    if hasattr(trainer, "token_loss"):
        trainer.token_loss.remove()  # the next Trainer has the model's own
    return times


def measure(shape: str, way: str, rows: int, length: int, steps: int, chunk: int) -> tuple[float, float, float] | None:
    """(tokens/s, model FLOP/s, peak GiB) at the median of `steps` timed steps after two untimed ones, or None if memory is too
    small; `way`: one of WAYS; `length`: tokens of a row; `chunk` is --loss_chunk_size."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig
    from transformers.utils import logging

    from topxgen.training import varlen
    from topxgen.training.token_loss import compile_layers

    logging.set_verbosity_error()
    lora, options = SHAPES[shape]
    cuda, checkpointing = torch.cuda.is_available(), way == "checkpointing"
    device = "cuda" if cuda else "cpu"
    flash = way != "sdpa" and varlen.is_available(torch.bfloat16)
    varlen.register()
    encoded = texts(length * rows * (steps + 3), options["vocab_size"])
    layout = decoder_rows(encoded, "bestfit", length, True)
    learned = sum(int((layout[i]["labels"] != IGNORED).sum()) for i in range(len(layout)))
    try:
        with torch.device(device):
            config = LlamaConfig(**options, max_position_embeddings=8192, rope_theta=500000.0)
            dtype = torch.bfloat16 if lora else torch.float32
            model = AutoModelForCausalLM.from_config(
                config, trust_remote_code=False, dtype=dtype, attn_implementation=varlen.NAME if flash else "sdpa"
            )
        if flash:
            varlen.pass_boundaries(model)
        if lora:
            adapter = LoraConfig(task_type="CAUSAL_LM", r=32, lora_alpha=64, target_modules="all-linear")
            model = get_peft_model(model, adapter)
        flops = model_flops(model, lora, encoded, learned)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        if way == "compiled":
            compile_layers(model)
        saving = {"gradient_checkpointing_kwargs": {"use_reentrant": False}} if checkpointing else {}
        train = partial(pair_trainer, pad=0, loss_chunk_size=chunk)
        options = dict(
            per_device_train_batch_size=rows, max_steps=steps + 2, gradient_checkpointing=checkpointing, **saving
        )
        times = step_times(train, model, layout, DecoderCollator(0), **options)
        seconds = float(np.median(np.diff(times[1:])))  # a step that compiles anew is none of training's
        speed = encoded.lengths.sum() / len(layout) * rows / seconds
        memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
        return speed, flops / encoded.lengths.sum() * speed, memory
    except torch.OutOfMemoryError:
        return None
    finally:
        model = None
        free_memory()
