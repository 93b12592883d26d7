"""Peak memory, time and losses of training with the loss in chunks and all at once, as ratios, each in a process of its own.

    python scripts/perf/chunked_loss.py models/gemma-3-270m
    python scripts/perf/chunked_loss.py models/gemma-3-270m --chunks 256 1024 --tokens 2048 --ways lora

Every step trains the same tokens, all with a loss. On a GPU the peak is what torch allocated, else the largest resident size of
the process, in both cases weights and optimizer included.
"""

import argparse
import os
import time

from measuring import command_line, in_child, peak_mib

GIB = 1 << 30


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("model", help="a decoder LM: a folder or a Hub id")
    parser.add_argument("--ways", nargs="+", choices=("lora", "full"), default=["lora", "full"], help="[%(default)s]")
    parser.add_argument("--chunks", nargs="+", type=int, default=[1024, 256], help="tokens per chunk [%(default)s]")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens per step, in rows of 512 [%(default)s]")
    parser.add_argument("--steps", type=int, default=3, help="[%(default)s]")
    parser.add_argument("--bf16", action="store_true", help="mixed precision")
    args = parser.parse_args()
    for way in args.ways:
        whole = in_child(measure, args, way, 0)
        print(f"{way}, all at once: {shown(whole)}", flush=True)
        for chunk in args.chunks:
            part = in_child(measure, args, way, chunk)
            apart = max(abs(a - b) for a, b in zip(part["losses"], whole["losses"], strict=True))
            print(
                f"{way}, {chunk} tokens at a time: {shown(part)}; memory {part['peak'] / whole['peak']:.2f} times, time "
                f"{part['seconds'] / whole['seconds']:.2f} times, losses at most {apart:.1e} apart, norm of the first "
                f"gradient {abs(part['norm'] / whole['norm'] - 1):.1e}",
                flush=True,
            )


def shown(result: dict) -> str:
    return f"peak {result['peak'] / GIB:.2f} GiB, {result['seconds']:.1f} s a step, loss {result['losses'][-1]:.4f}"


def measure(args: argparse.Namespace, way: str, chunk: int) -> dict:
    """{"losses" of each step, "norm" of the first gradient, "seconds" of a step, "peak" in bytes}."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from topxgen.training.token_loss import TokenLoss

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    dtype = torch.bfloat16 if args.bf16 and way == "lora" else torch.float32
    options = dict(dtype=dtype, attn_implementation="sdpa", trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(args.model, **options).to(device)
    inner = model
    if way == "lora":
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=32, target_modules="all-linear"))
    TokenLoss(inner, True, chunk)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    ids = torch.randint(10, 5000, (args.steps, args.tokens // 512, 512), device=device)
    losses, norm, times = [], None, []
    for step in ids:
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=args.bf16):
            loss = model(input_ids=step, labels=step).loss / step[:, 1:].numel()
        loss.backward()
        losses.append(loss.item())
        norm = norm or float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else peak_mib() << 20
    return {"losses": losses, "norm": norm, "seconds": min(times[1:] or times), "peak": peak}


if __name__ == "__main__":
    main()
