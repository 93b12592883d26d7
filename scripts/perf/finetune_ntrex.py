"""Fine-tune a decoder LM (LoRA) on the first 900 lines of NTREX-128, both directions, for N minutes; chrF++ on the last 200.

    python scripts/perf/finetune_ntrex.py models/gemma-3-270m --ntrex ../benchmarks/NTREX-128 --language Basque --minutes 20

A short run of train.py measures the speed, from which the number of steps follows; --bare trains with a plain loop instead
(batches of 4 padded pairs, constant learning rate), for comparison. Then vLLM (or --api hf) translates 200 held-out lines,
with the base model and with the adapter merged into it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import ROOT, as_flags, command_line, ntrex

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from topxgen import inference
from topxgen.common.files import read_jsonl
from topxgen.prompting.answers import clean_answer
from topxgen.prompting.mt_templates import get_template
from topxgen.training import eval_translation
from topxgen.training.pairs import Pair, reverse

TRAIN, TEST = slice(0, 900), slice(-200, None)


def train(args: argparse.Namespace, data: Path, output: Path, steps: int, **more) -> float:
    """Run train.py; seconds that it took."""
    options = {
        "model_name_or_path": args.model,
        "dataset_name_or_path": data,
        "target_languages": args.language,
        "max_length": args.max_length,
        "max_steps": steps,
        "num_warmup_steps": min(30, steps - 1),
        "learning_rate": args.learning_rate,
        "min_learning_rate": args.learning_rate / 10,
        "weight_decay": 0.01,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "lora_r": args.rank,
        "lora_alpha": 2 * args.rank,
        "lora_dropout": 0,
        "test_size_ratio": 40,
        "logging_steps": 10,
        "eval_steps": max(1, steps // 4),
        "save_steps": max(1, steps // 4),
        "output_dir": output,
        **more,
    }
    command = [sys.executable, "train.py", "--reverse", "--targets_only", "--use_peft", "--bf16"]
    started = time.perf_counter()
    subprocess.run(command + as_flags(**options), cwd=ROOT, check=True)
    return time.perf_counter() - started


def train_for_minutes(args: argparse.Namespace, lines: list[tuple[str, str]], folder: Path, output: Path) -> float:
    data = folder / "train.jsonl"
    rows = [{"source": a, "target": b} for a, b in lines]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    train(args, data, folder / "trial", 12, eval_steps=100, save_steps=100, logging_steps=1, test_size_ratio=0)
    log = list(read_jsonl(folder / "trial" / "train_log.jsonl"))
    speeds = sorted(entry["tokens_per_second"] for entry in log if "loss" in entry)
    seconds = args.max_length / speeds[len(speeds) // 2]
    steps = int(60 * args.minutes * 0.95 / seconds)
    print(f"{seconds:.2f} s per step: {steps} steps", flush=True)
    return train(args, data, output, steps)


def train_bare(args: argparse.Namespace, pairs: list[Pair], output: Path) -> float:
    """A plain loop: 4 padded pairs per step, no packing, no schedule, no choice of a checkpoint; stops after --minutes.

    Seconds that it took, with loading.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    started = time.perf_counter()
    torch.manual_seed(122)
    tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(args.model, trust_remote_code=False, dtype=torch.bfloat16)
    linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    lora = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules=linears, task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=args.learning_rate)
    examples = []
    for pair in pairs:
        prompt = tokenizer(get_template("14", pair.src, pair.tgt).get_prompt([], pair.source))["input_ids"]
        answer = tokenizer(" " + pair.target, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        examples.append((prompt + answer, [-100] * len(prompt) + answer))
    steps = 0
    while True:
        order = torch.randperm(len(examples)).tolist()
        for start in range(0, len(order), 4):
            batch = [examples[i] for i in order[start : start + 4]]
            longest = max(len(ids) for ids, _ in batch)
            ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in batch])
            mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in batch])
            labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in batch])
            model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            steps += 1
            if time.perf_counter() - started > 60 * args.minutes:
                model.save_pretrained(output)
                print(f"bare loop: {steps} steps, {steps * 4 / len(examples):.2f} epochs", flush=True)
                return time.perf_counter() - started


def translate(args: argparse.Namespace, pairs: list[Pair], adapter: Path | None, merged: Path) -> dict[str, float]:
    model = args.model
    if adapter:  # vLLM on a CPU is several times slower with an adapter
        command = [sys.executable, "scripts/merge_lora.py", str(adapter.resolve()), str(merged)]
        subprocess.run(command, cwd=ROOT, check=True)
        model = str(merged)
    settings = inference.ModelSettings(model, max_model_len=1024, request_batch_size=16)
    sampler = inference.load(args.api, settings)
    requests = []
    for i, pair in enumerate(pairs):
        prompt = get_template("14", pair.src, pair.tgt).get_prompt([], pair.source)
        requests.append(inference.Request(str(i), prompt, seed=i))
    answers: dict[str, str] = {}
    for stop in ("\n", "###"):  # an answer that begins with a line break is requested again without that stop string
        sampling = inference.SamplingSettings(max_new_tokens=160, temperature=0, stop=(stop,))
        missing = [request for request in requests if not answers.get(request.id, "").strip()]
        answers |= {a.id: a.texts[0] for a in sampler.generate(inference.from_list(missing), sampling)}
    sampler.close()
    texts = [clean_answer(answers[str(i)], "###") for i in range(len(pairs))]
    if args.output_dir:
        name = "after.json" if adapter else "before.json"
        (args.output_dir / name).write_text(
            json.dumps([[answers[str(i)], text] for i, text in enumerate(texts)]), encoding="utf-8"
        )
    for pair, text in list(zip(pairs, texts, strict=True))[:: len(pairs) // 4]:
        print(f"  {pair.source}\n  -> {text}")
    return eval_translation.score(pairs, texts)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("model", help="base model: a folder or a Hub id")
    parser.add_argument("--ntrex", type=Path, required=True, metavar="DIR", help="folder NTREX-128 of its repository")
    parser.add_argument("--language", default="Basque", help="target language [%(default)s]")
    parser.add_argument("--minutes", type=float, default=20, help="training time [%(default)s]")
    parser.add_argument("--learning_rate", type=float, default=5e-4, help="peak learning rate [%(default)s]")
    parser.add_argument("--rank", type=int, default=32, help="LoRA rank [%(default)s]")
    parser.add_argument("--max_length", type=int, default=512, help="tokens per row [%(default)s]")
    parser.add_argument("--bare", action="store_true", help="train with the plain loop")
    parser.add_argument("--api", choices=("vllm", "hf"), default="vllm", help="what translates [%(default)s]")
    parser.add_argument("--output_dir", type=Path, help="keep the run in this folder")
    args = parser.parse_args()
    lines = list(zip(*ntrex(args.ntrex, "English", args.language), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        output = args.output_dir or folder / "run"
        if args.bare:
            pairs = [Pair(a, b, "English", args.language, "") for a, b in lines[TRAIN]]
            spent = train_bare(args, reverse(pairs), output)
        else:
            spent = train_for_minutes(args, lines[TRAIN], folder, output)
        print(f"trained for {spent / 60:.1f} minutes, with loading and evaluation", flush=True)
        pairs = reverse([Pair(a, b, "English", args.language, "") for a, b in lines[TEST]])
        before, after = translate(args, pairs, None, folder), translate(args, pairs, output, folder / "merged")
    for name in before:
        print(f"{name}: {before[name]:.2f} -> {after[name]:.2f}")


if __name__ == "__main__":
    main()
