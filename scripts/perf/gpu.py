"""What one GPU makes of this project's training, scoring, translation and decontamination, in at most 8 minutes.

    bash scripts/perf/gpu.sh pack                 # once, where there is internet: the three small packages that are missing there
    bash scripts/perf/gpu.sh --output gpu.json      # on the GPU's machine
    bash scripts/perf/gpu.sh --tiny                 # the same code in small shapes, on any machine

Needs torch, transformers, accelerate, peft, sacrebleu, sentencepiece and what they bring, and no network. Models have the
shapes of the published ones and random weights. Each part is a process with a time limit of its own. Every figure is written
as soon as it is known, so that those of a run that fails, or is cut, are kept.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}

import train_gpu
from measuring import as_flags, command_line

from topxgen.common.files import read_json, write_json
from topxgen.doctor import arithmetic

FORMULA = (
    "MFU = FLOPs of the model per token x tokens/s / peak; per token 6 for each trained parameter and 4 for each frozen one (twice "
    "forward, twice for the gradient of the input, twice for that of the weight), the output layer only where there is a loss, "
    "6 x width x layers for each earlier token of its text; recomputation does not count"
)
LLAMA_8B = train_gpu.SHAPES["8b-lora"][1]
TINY = train_gpu.SHAPES["tiny"][1] | dict(vocab_size=1500)
Figures = Iterator[dict]


def words(seed: int = 0) -> Callable[[int], str]:
    """A function that makes up a sentence of so many words of the Universal Declaration."""
    from tests.support.tiny_models import udhr_texts

    rng, known = random.Random(seed), " ".join(udhr_texts("English") + udhr_texts("Basque")).split()
    return lambda count: " ".join(rng.choices(known, k=count))


def peak_flops() -> float | None:
    import torch

    card = arithmetic.card(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    return card and card.flops


def train_py(tiny: bool) -> Figures:
    """train.py itself at the shape of Llama-3-8B with LoRA, in bfloat16, packed rows of 2,048 tokens, flash attention, compiled."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    from tests.support.tiny_models import udhr_texts
    from topxgen.common.weights import free_memory

    yield {"formula": FORMULA}
    shape, steps, rows, length = (TINY, 4, 2, 256) if tiny else (LLAMA_8B, 16, 2, 2048)
    with tempfile.TemporaryDirectory() as place:
        folder, data, output = Path(place, "model"), Path(place, "pairs.jsonl"), Path(place, "out")
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            config = LlamaConfig(
                **shape, max_position_embeddings=8192, rope_theta=500000.0, eos_token_id=1, bos_token_id=None
            )
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False, dtype=torch.bfloat16)
        model.save_pretrained(folder, max_shard_size="4GB")
        body = sum(
            p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n and "lm_head" not in n
        )
        del model
        free_memory()
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=1400, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet)
        tokenizer.train_from_iterator(udhr_texts("English") + udhr_texts("Basque"), trainer)
        whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
        whole.save_pretrained(folder)
        sentence, rng = words(), random.Random(1)
        lines = (
            {"en": sentence(rng.randint(8, 30)), "eu": sentence(rng.randint(8, 30))} for _ in range(40 * steps * rows)
        )
        data.write_text("".join(json.dumps(line) + "\n" for line in lines))
        command = [sys.executable, "train.py", *as_flags(
            model_name_or_path=folder, dataset_name_or_path=data, output_dir=output, src="English", target_languages="Basque",
            input_column_name="en", output_column_name="eu", use_peft=True, lora_r=32, bf16=True, targets_only=True,
            max_length=length, max_steps=steps, per_device_train_batch_size=rows, gradient_accumulation_steps=1, logging_steps=1,
            test_size_ratio=0, save_steps=10**6, num_warmup_steps=2, use_flash_attn=True,
            **({} if tiny else dict(torch_compile=True)),  # on a CPU that takes minutes
        )]  # fmt: skip
        began = time.perf_counter()
        result = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        if result.returncode:
            raise SystemExit(result.stderr[-1500:])
        log = [json.loads(line) for line in (output / "train_log.jsonl").open()]
        speeds = sorted(entry["tokens_per_second"] for entry in log[steps // 2 :] if "loss" in entry)
        speed, head = speeds[len(speeds) // 2], config.vocab_size * config.hidden_size
        # Half of the tokens have a loss; attention reaches back half a text of about 110 tokens; adapters are under 1 %.
        flops = 4 * body + 4 * head / 2 + 6 * config.hidden_size * config.num_hidden_layers * 55
        seconds = round(time.perf_counter() - began, 1)
        yield {"tokens_per_second": speed, "command_seconds": seconds, "tflops": round(flops * speed / 1e12, 2)}
        if peak := peak_flops():
            yield {"mfu": round(flops * speed / peak, 4)}


def shapes(tiny: bool) -> Figures:
    """The Trainer of train.py, without files: LoRA at 8B, full at 1B and at Gemma's vocabulary, with and without chunks."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    # (shape, way, rows, --loss_chunk_size): what is the most important comes first
    plan = [
        ("8b-lora", "compiled", 4, 1024),
        ("8b-lora", "flash", 4, 1024),
        *(("270m-full", "flash", 8, chunk) for chunk in (1024, 0)),
        ("1b-full", "compiled", 8, 1024),
        *(("1b-full", "flash", 8, chunk) for chunk in (1024, 0)),
        ("8b-lora", "sdpa", 2, 1024),
        ("8b-lora", "checkpointing", 8, 1024),
    ]
    plan = [("tiny", "compiled", 2, 64), ("tiny", "checkpointing", 2, 0)] if tiny else plan
    peak = peak_flops()
    for shape, way, rows, chunk in plan:
        length, steps, found = *((256, 2) if tiny else (2048, 6)), None
        while found is None and rows:
            found = train_gpu.measure(shape, way, rows, length, steps, chunk)
            rows = rows if found else rows // 2
        name = f"{shape}, {way}, {rows} rows, chunk {chunk}"
        if found is None:
            yield {name: "out of memory"}
            continue
        speed, flops, memory = found
        mfu = round(flops / peak, 4) if peak else None
        yield {name: {"tokens_per_second": round(speed), "mfu": mfu, "peak_gib": round(memory, 2)}}
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def blaser(tiny: bool) -> Figures:
    """BLASER on SONAR's encoder: pairs/s in float32 and bfloat16, and how far the scores are apart."""
    from tests.support.tiny_sonar import build_blaser, build_sonar
    from topxgen.quality.blaser import Blaser
    from topxgen.text import languages

    width, layers, count = (64, 2, 64) if tiny else (1024, 24, 12_000)
    sentence, rng = words(), random.Random(2)
    sides = [[sentence(rng.randint(6, 24)) for _ in range(count)] for _ in range(2)]
    basque, english = languages.find("Basque"), languages.find("English")
    with tempfile.TemporaryDirectory() as place:
        sonar = build_sonar(Path(place, "sonar"), sides[0][:300] + sides[1][:300], width, layers)
        network = build_blaser(Path(place, "model.pt"), width)
        few, scores = slice(0, count // 6), {}
        for dtype, part in (("bfloat16", slice(None)), ("float32", few)):  # what must not be missing first
            scorer = Blaser(network, sonar, dtype=dtype)
            scorer.score(sides[0][-32:], sides[1][-32:], basque, english)  # to warm up
            scorer.forget()
            began = time.perf_counter()
            scores[dtype] = scorer.score(sides[0][part], sides[1][part], basque, english)
            yield {f"pairs_per_second_{dtype}": round(len(scores[dtype]) / (time.perf_counter() - began), 1)}
            scorer.close()
    yield {"largest_difference": max(abs(a - b) for a, b in zip(*scores.values(), strict=False))}


def nllb(tiny: bool) -> Figures:
    """NLLB-200-3.3B's shape through the transformers engine, 5 beams."""
    import nllb_speed
    import torch
    from transformers import M2M100ForConditionalGeneration

    from tests.support.tiny_models import nllb_tokenizer
    from topxgen import translation
    from topxgen.common.weights import free_memory
    from topxgen.text import languages
    from topxgen.translation import TranslatorSettings

    half = dict(encoder_attention_heads=2, decoder_attention_heads=2, encoder_layers=1, decoder_layers=1, d_model=64)
    full = dict(d_model=2048, encoder_layers=24, decoder_layers=24, encoder_ffn_dim=8192, decoder_ffn_dim=8192)
    sentence, rng = words(), random.Random(3)
    sentences = [sentence(rng.randint(6, 24)) for _ in range(8 if tiny else 256)]
    with tempfile.TemporaryDirectory() as place:
        tokenizer = nllb_tokenizer(sentences, 3000)
        size = dict(vocab_size=len(tokenizer)) if tiny else dict(vocab_size=256206)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = M2M100ForConditionalGeneration(nllb_speed.config(**(half if tiny else full), **size))
        model.to(torch.float32 if tiny else torch.bfloat16).save_pretrained(place)
        tokenizer.save_pretrained(place)
        del model
        free_memory()
        options = dict(
            nllb_name_or_path=place, nllb_engine="transformers", nllb_compute_type="float32" if tiny else "bfloat16"
        )
        translator = translation.create("nllb", TranslatorSettings(**options))
        translator.load()
        engine, made = translator._engine.translate, []

        def counted(*work):
            made.append(engine(*work))
            return made[-1]

        translator._engine.translate = counted
        for part in (8, len(sentences)):  # the first to warm up
            made.clear()
            began = time.perf_counter()
            translator.translate(sentences[:part], languages.find("English"), languages.find("Basque"))
        seconds = time.perf_counter() - began
        tokens = sum(len(ids) for bucket in itertools.chain(*made) for row in bucket for ids, _ in row)
        rates = round(len(sentences) / seconds, 2), round(tokens / seconds, 1)
        yield dict(zip(("sentences_per_second", "tokens_per_second"), rates, strict=True))
        translator.close()


def decontamination(tiny: bool) -> Figures:
    """decontamination.py on all cores and on one."""
    from decontamination_speed import measured, write_pairs

    from tests.support.tiny_models import udhr_texts

    pairs, texts = 3000 if tiny else 300_000, {name: udhr_texts(name) for name in ("Basque", "English")}
    known = {name: " ".join(own).split() for name, own in texts.items()}
    every = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, str(ROOT / "decontamination.py"), "--input_dir", place, "--benchmarks", "udhr"]
        for cores, count in {1: pairs // 5, every: pairs}.items():
            for file in Path(place).glob("Basque_translate_*"):
                file.unlink()
            write_pairs(Path(place, "Basque_translate.jsonl"), count, known, texts)
            seconds, peak = measured(command, cores)
            yield {f"pairs_per_second_{cores}_cores": round(count / seconds), f"peak_mib_{cores}_cores": round(peak)}


PARTS: dict[str, tuple[int, Callable[[bool], Figures]]] = {  # seconds at most, in all 445
    "shapes": (160, shapes),  # the others find what it compiled
    "train_py": (115, train_py),
    "blaser": (65, blaser),
    "nllb": (65, nllb),
    "decontamination": (40, decontamination),
}


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path(os.environ.get("OUT", "."), "gpu.json"), help="[%(default)s]"
    )
    parser.add_argument("--tiny", action="store_true", help="small shapes")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="[all]")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # to measure in this process
    args = parser.parse_args()
    if args.part:
        results = read_json(args.output)
        for more in PARTS[args.part][1](args.tiny):
            results[args.part] |= more
            write_json(args.output, results)
        return 0

    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "accelerate", "peft")}
    results = {"device": device, "cores": len(os.sched_getaffinity(0)), "tiny": args.tiny, "versions": versions}
    for name in args.parts:
        limit, function = PARTS[name]
        print(f"{name}: {function.__doc__}", flush=True)
        results[name], began = {}, time.perf_counter()
        write_json(args.output, results)
        command = [sys.executable, __file__, "--part", name, "--output", str(args.output), *["--tiny"] * args.tiny]
        problem = run_limited(command, limit)
        results = read_json(args.output)  # with the figures of the part
        results[name]["seconds"] = round(time.perf_counter() - began, 1)
        if problem:
            results[name]["problem"] = problem
        write_json(args.output, results)
        print(f"  {json.dumps(results[name])}", flush=True)
    print(f"{device}: {args.output}")
    return 1 if any("problem" in results[name] for name in args.parts) else 0


def run_limited(command: list[str], seconds: int) -> str | None:
    """What went wrong, if anything; a process that takes too long ends with all its children."""
    import signal

    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"not done after {seconds} s"
        log.seek(0)
        return None if code == 0 else log.read()[-1500:]


if __name__ == "__main__":
    sys.exit(main())
