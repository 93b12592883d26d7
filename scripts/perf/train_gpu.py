"""Training speed on one GPU with random weights: tokens/s, MFU and peak memory by model shape.

    python scripts/perf/train_gpu.py                     # Llama-3-8B-shaped with LoRA and a 1B-shaped one in full
    python scripts/perf/train_gpu.py --shapes tiny       # the same code on any machine

Rows of 2,048 tokens are packed with texts as long as translation pairs (mean 90 tokens); with SDPA, and flash attention if
installed; with and without gradient checkpointing. MFU is model FLOPs over peak FLOPs of the GPU's data sheet. Model FLOPs
per token: 6 per trained parameter, 4 per frozen one (gradients pass through, none are computed for it), the output layer only
at tokens that have a loss, and attention within texts; recomputation does not count (Chowdhery et al. 2022, appendix B).
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from topxgen.common.memory import free_memory
from topxgen.training.packing import IGNORED, DecoderCollator, decoder_rows
from topxgen.training.tokenization import TokenizedTexts

PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312, "L40S": 362, "4090": 165}  # bf16, dense, by NVIDIA's data sheets
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
    attention = (
        3 * 2 * squares * config.hidden_size * config.num_hidden_layers
    )  # causal: half of 4; forward, and twice that backward
    return tokens * (6 * trained + 4 * frozen) + learned * head * (4 if lora else 6) + attention


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["8b-lora", "1b-full"], help="[%(default)s]")
    parser.add_argument("--max_length", type=int, default=2048, help="tokens per row [%(default)s]")
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[2, 4, 8],
        help="rows per batch; the fastest that fits is shown [%(default)s]",
    )
    parser.add_argument("--steps", type=int, default=8, help="timed steps, after two untimed ones [%(default)s]")
    args = parser.parse_args()

    import torch
    from transformers.utils import is_flash_attn_2_available

    cuda = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if cuda else "CPU"
    peak = next((value for key, value in PEAK_TFLOPS.items() if key in name), None)
    kernels = ["sdpa", *(["flash_attention_2"] if is_flash_attn_2_available() else [])]
    print(f"{name}, torch {torch.__version__}")
    for shape in args.shapes:
        for kernel in kernels:
            for checkpointing in (False, True):
                best = None
                for rows in args.rows:
                    result = measure(shape, kernel, checkpointing, rows, args)
                    if result is None:
                        break
                    best = max(filter(None, (best, result)))
                if best is None:
                    print(
                        f"{shape}, {kernel}, checkpointing {checkpointing}: out of memory at {args.rows[0]} rows",
                        flush=True,
                    )
                    continue
                speed, flops, memory, rows = best
                mfu = f", MFU {flops / peak / 1e12:.1%}" if peak else ""
                print(
                    f"{shape}, {kernel}, checkpointing {checkpointing}, {rows} rows: {speed:,.0f} tokens/s, "
                    f"{flops / 1e12:.1f} TFLOP/s{mfu}, peak {memory:.1f} GiB",
                    flush=True,
                )


def measure(
    shape: str, kernel: str, checkpointing: bool, rows: int, args, chunk: int = 1024
) -> tuple[float, float, float, int] | None:
    """(tokens/s, model FLOP/s, peak GiB, rows), or None if memory is too small; `chunk` is --loss_chunk_size."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig, PrinterCallback, TrainerCallback, TrainingArguments
    from transformers.utils import logging

    from topxgen.training.trainer import EvalSets, PairTrainer

    logging.set_verbosity_error()
    lora, options = SHAPES[shape]
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    encoded = texts(args.max_length * rows * (args.steps + 3), options["vocab_size"])
    layout = decoder_rows(encoded, "bestfit", args.max_length, True)
    learned = sum(int((layout[i]["labels"] != IGNORED).sum()) for i in range(len(layout)))
    times = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            if cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter())

    try:
        with torch.device(device):
            config = LlamaConfig(**options, max_position_embeddings=8192, rope_theta=500000.0)
            dtype = torch.bfloat16 if lora else torch.float32
            model = AutoModelForCausalLM.from_config(
                config, trust_remote_code=False, dtype=dtype, attn_implementation=kernel
            )
        if lora:
            adapter = LoraConfig(task_type="CAUSAL_LM", r=32, lora_alpha=64, target_modules="all-linear")
            model = get_peft_model(model, adapter)
        flops = model_flops(model, lora, encoded, learned)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder, per_device_train_batch_size=rows, max_steps=args.steps + 2, bf16=True, use_cpu=not cuda,
                gradient_checkpointing=checkpointing,
                gradient_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
                report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
                remove_unused_columns=False, label_names=["labels"],
            )  # fmt: skip
            trainer = PairTrainer(
                model=model, args=arguments, train_dataset=layout, callbacks=[Clock()], decoder=True, pad=0,
                loss_chunk_size=chunk, data_collator=DecoderCollator(0, flat=kernel.startswith("flash")), eval_sets=EvalSets(),
                save_total_limit=None, finish=lambda *_: None,
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        seconds = (times[-1] - times[1]) / (len(times) - 2)
        speed = encoded.lengths.sum() / len(layout) * rows / seconds
        memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
        return speed, flops / encoded.lengths.sum() * speed, memory, rows
    except torch.OutOfMemoryError:
        return None
    finally:
        model = trainer = None
        free_memory()


if __name__ == "__main__":
    main()
