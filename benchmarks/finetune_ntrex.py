"""Fine-tune a decoder (LoRA) on the first 900 lines of NTREX-128 in both directions for so many minutes; chrF++ on the last 200.

    python benchmarks/finetune_ntrex.py models/gemma-3-270m --ntrex ../benchmarks/NTREX-128 --language Basque --minutes 20

train.py trains, with as many steps as fit into the minutes by the speed of a short run before; then vLLM (or --api hf)
loads the base model and the adapter as they stand and translates 200 lines that were in no training or held-out set.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from comptra import languages, samplers
from comptra.prompts.templates import clean_answer, get_template
from topxgen import held_out
from topxgen.pairs import Pair, reverse

TRAIN, TEST = slice(0, 900), slice(-200, None)


def sides(args: argparse.Namespace) -> list[tuple[str, str]]:
    code = languages.find(args.language).ntrex.split("_")[0]
    names = ("newstest2019-src.eng.txt", f"newstest2019-ref.{code}.txt")
    texts = [(args.ntrex / name).read_text(encoding="utf-8").rstrip("\n").split("\n") for name in names]
    return list(zip(*texts, strict=True))


def train(args: argparse.Namespace, data: Path, output: Path, steps: int, **more) -> float:
    """Seconds between the first logged step and the last; the whole command's time is more."""
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
    for name, value in options.items():
        command += [f"--{name}", value]
    started = time.perf_counter()
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
    return time.perf_counter() - started


def translate(args: argparse.Namespace, pairs: list[Pair], adapter: Path | None) -> dict[str, float]:
    settings = samplers.ModelSettings(
        args.model, adapter=str(adapter) if adapter else None, lora_rank=args.rank, max_model_len=1024, batch_size=16
    )
    sampler = samplers.load(args.api, settings)
    requests = []
    for i, pair in enumerate(pairs):
        prompt = get_template("14", pair.src, pair.tgt).get_prompt([], pair.source)
        requests.append(samplers.Request(str(i), prompt, seed=i))
    sampling = samplers.SamplingSettings(max_new_tokens=160, temperature=0, stop=("\n",))
    answers = {a.id: a.texts[0] for a in sampler.generate(samplers.from_list(requests), sampling)}
    sampler.close()
    texts = [clean_answer(answers[str(i)], "###") for i in range(len(pairs))]
    for pair, text in list(zip(pairs, texts, strict=True))[:: len(pairs) // 4]:
        print(f"  {pair.source}\n  -> {text}")
    return held_out.score(pairs, texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--ntrex", type=Path, required=True)
    parser.add_argument("--language", default="Basque")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--max_length", type=int, default=512)
    parser.add_argument("--api", choices=("vllm", "hf"), default="vllm")
    parser.add_argument("--output_dir", type=Path, help="keep the run there")
    args = parser.parse_args()
    lines = sides(args)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        data = folder / "train.jsonl"
        rows = [{"source": a, "target": b} for a, b in lines[TRAIN]]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        train(args, data, folder / "trial", 12, eval_steps=100, save_steps=100, logging_steps=1, test_size_ratio=0)
        log = [json.loads(line) for line in (folder / "trial" / "train_log.jsonl").read_text().splitlines()]
        speeds = sorted(entry["tokens_per_second"] for entry in log if "loss" in entry)
        seconds = args.max_length / speeds[len(speeds) // 2]
        steps = int(60 * args.minutes * 0.95 / seconds)
        print(f"{seconds:.2f} s a step: {steps} steps", flush=True)
        output = args.output_dir or folder / "run"
        spent = train(args, data, output, steps)
        print(f"trained for {spent / 60:.1f} minutes, with loading and evaluation", flush=True)
        pairs = reverse([Pair(a, b, "English", args.language, "") for a, b in lines[TEST]])
        before, after = translate(args, pairs, None), translate(args, pairs, output)
    for name in before:
        print(f"{name}: {before[name]:.2f} -> {after[name]:.2f}")


if __name__ == "__main__":
    main()
