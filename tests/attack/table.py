"""What is attacked: a row for each stage. Formats (formats.py) and flags (from the parsers) build on these rows."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.documentation import PARSERS
from tests.support.tiny_memorised import TEST_FORMS
from tests.support.tiny_memorised import pairs as memorised_pairs
from tests.support.tiny_models import udhr_pairs

PAIRS, TEST = 8, 6
API = (
    "--inference_api", "openai", "--base_url", "{url}", "--model_name_or_path", "stub-1", "--max_concurrent_requests", "4",
    "--max_retries", "1", "--request_timeout", "20",
)  # fmt: skip
DATAGEN = ("datagen.py", "--languages", "Basque", "--output_dir", "out", *API)
GENERATE = (
    "--seed_topics_path", "in/topics_wiki.txt", "--example_paragraphs", "udhr", "--example_sentences", "in/examples",
    "--number_of_icl_demonstrations", "1", "--number_of_icl_phrases", "2", "--number_of_instructions", "8",
)  # fmt: skip
SEEDS = ("--example_sentences", "in/examples", "--number_of_icl_demonstrations", "2", "--request_batch_size", "1")
FILES = (
    "--dataset_name_or_path", "files", "--test_files", "in/test.tsv:Basque=2,English=1", "in/test.tsv:Basque=2,English=1",
)  # fmt: skip
MAIN = (
    "main.py", "--tgt", "Basque", "--output_dir", "out", *API, *FILES, "--demonstration_pool", "in/pool.eng", "in/pool.eus",
)  # fmt: skip
TRAIN = (
    "train.py", "--model_name_or_path", "in/lm", "--output_dir", "out", "--dataset_name_or_path", "topxgen", "--data_dir", "in",
    "--target_languages", "Basque", "--max_length", "400", "--max_steps", "4", "--num_warmup_steps", "1", "--test_size_ratio", "2",
    "--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "1", "--eval_steps", "2", "--save_steps", "2",
    "--logging_steps", "1", "--num_workers", "0", "--learning_rate", "1e-3",
)  # fmt: skip


RUN = """output_dir: out
decontamination:
  input_dir: in
  output_dir: ${output_dir}
  benchmarks: [in/bench.tsv, udhr]
  num_workers: 1
evaluate:
  dirs: in/runs
  baseline: in/runs/stub-1
  trials: 50
  json: ${output_dir}/scores.json"""


# Attacked by flags alone. Its table has hours, which differ: tests/experiments/test_comparison_run.py kills it.
COMPARE = ("scripts/compare.py", "in/experiment.yaml", "--set", "main.base_url={url}", "--dry_run")
EXPERIMENT = """output_dir: out
seeds: [1]
baseline: zero
main:
  model_name_or_path: stub-1
  inference_api: openai
  max_concurrent_requests: 4
  max_retries: 1
  request_timeout: 20
  tgt: Basque
  dataset_name_or_path: files
  test_files: ["in/test.tsv:Basque=2,English=1", "in/test.tsv:Basque=2,English=1"]
evaluate: {tokenize: 13a}
variants:
  zero: {}
  two:
    main: {k: 2, demonstration_pool: [in/pool.eng, in/pool.eus]}"""

# A quality estimation without models.
SELECTOR = """
class Length:
    id, has_models, truncated = "length", False, 0

    def __init__(self, args): ...

    def preflight(self, languages, target): ...

    def load(self): ...

    def score(self, records, source, target):
        return [[float(len(text)) for text in record["translations"]] for record in records]

    def close(self): ...
"""


@dataclass(frozen=True)
class Stage:
    """A command in a folder with inputs/ below `in`, which writes below `out`; `before` runs other stages first.

    Of a `heavy` one only the processes that have loaded torch take it in reasonable time. One that does not resume (`resumes`)
    refuses to replace what it has finished.
    """

    command: tuple[str, ...]
    before: tuple[str, ...] = ()
    heavy: bool = False
    resumes: bool = True
    prepare: Callable[[Path], object] = lambda folder: None
    needs: str | None = None  # a program

    @property
    def is_available(self) -> bool:
        return self.needs is None or shutil.which(self.needs) is not None


STAGES = {
    "generate": Stage((*DATAGEN, *GENERATE, "--stages", "generate")),
    "native": Stage(("datagen.py", "--languages", "Basque", "--output_dir", "out", "--paragraphs", "in/native.jsonl", "--stages", "generate")),
    "self-instruct": Stage(  # from the ninth of about 14 prompts on, prompts show passages that were kept before
        (
            *DATAGEN, *SEEDS, "--data_generation_pipeline", "self-instruct", "--number_of_icl_synthetic_demonstrations", "1",
            "--number_of_instructions", "40", "--stages", "generate",
        )
    ),
    "knn-instruct": Stage(
        (
            *DATAGEN, *SEEDS, "--data_generation_pipeline", "knn-instruct", "--number_of_rounds", "2", "--encoder", "in/encoder.py:Encoder",
            "--max_samples", "5", "--stages", "generate",
        )
    ),
    "translate": Stage((*DATAGEN, "--stages", "translate", "--demonstration_pool", "udhr"), before=("generate",)),
    "candidates": Stage(
        (
            *DATAGEN, "--stages", "translate", "--demonstration_pool", "udhr", "--translate_dir", "best", "--number_of_candidates", "3",
            "--select_by", "in/selector.py:Length",
        ),
        before=("generate",),
    ),
    "score": Stage(
        (*DATAGEN, "--stages", "translate", "score", "--back_translator", "apertium", "--min_score", "0.8"), before=("generate",),
        needs="apertium",
    ),
    "decontaminate": Stage(
        (
            "decontamination.py", "--input_dir", "in", "--output_dir", "out", "--benchmarks", "in/bench.tsv", "udhr", "--num_workers", "1",
            "--near_duplicate_threshold", "0.6", "--demonstration_pool", "in/bench.jsonl",
        )
    ),
    "audit": Stage(("decontamination.py", "--input_dir", "in", "--output_dir", "out", "--benchmarks", "udhr", "--num_workers", "1", "--audit")),
    "few-shot": Stage((*MAIN, "--k", "2")),
    "comptra": Stage((*MAIN, "--k", "1", "--steps", "1", "--refine_after_merge", "--merge_prompt", "in/merge.toml", "--mode_divide", "in/divide.toml")),
    "evaluate": Stage(
        (
            "comptra.evaluate", "in/runs", "--baseline", "in/runs/stub-1", "--trials", "50", "--bootstrap", "20", "--csv", "out/scores.csv",
            "--json", "out/scores.json", "--segments", "out/segments.jsonl", "--markdown", "out/scores.md", "--latex", "out/scores.tex",
        ),
        prepare=lambda folder: (folder / "out").mkdir(),
    ),
    "statistics": Stage(
        (
            "scripts/data_stats.py", "in", "--stage", "pairs", "--seed_topics_path", "in/topics_wiki.txt", "--judge_sample", "3", "--output_dir",
            "out", "--csv", "out/stats.csv", "--json", "out/stats.json", "--markdown", "out/stats.md", "--judge_prompt", "in/judge.toml",
            "--judge_model_name_or_path", "stub-1", *(word for word in API if word not in ("--model_name_or_path", "stub-1")),
        ),
        prepare=lambda folder: (folder / "out").mkdir(),
    ),
    "probe": Stage(
        (
            "scripts/probe_contamination.py", "--src", "Basque", "--tgt", "English", "--output_dir", "out", *API, "--dataset_name_or_path",
            "files", "--test_files", "in/probe.tsv", "in/probe.tsv", "--twins", "1",
        )
    ),
    "report": Stage(("scripts/report.py", "in", "-o", "out/report.html"), prepare=lambda folder: (folder / "out").mkdir()),
    "publish": Stage(("scripts/publish.py", "in", "--out", "out/pairs", "--formats", "tmx", "moses", "--allow_undecontaminated")),
    "train": Stage(TRAIN, heavy=True),
    "lora": Stage((*TRAIN, "--use_peft", "--lora_r", "4", "--num_eval_translations", "1"), heavy=True),
    "export": Stage((*TRAIN, "--export_dir", "out/export"), heavy=True),
    "run": Stage(("scripts/run.py", "in/run.yaml")),
    "shard": Stage((*DATAGEN, *GENERATE, "--stages", "generate", "--num_shards", "1", "--shard_index", "0")),
    "merge shards": Stage(("scripts/merge.py", "out"), before=("shard",)),
    "merge": Stage(("scripts/merge_lora.py", "in/adapter", "out/merged", "--base_model_name_or_path", "in/lm"), heavy=True, resumes=False),
}  # fmt: skip
# Rows with faults that are known and not fixed yet: their tests may fail. A line goes when its faults do.
OPEN: dict[str, str] = {
    "files: audit: in/bench.json": "null, a missing key or {} is no text: one line counts them, and the report differs"
}
# Scripts without a row, and why.
NO_ROW = {
    "scripts/build_topics.py": "made topics/ once, from a package's file",
    "scripts/build_udhr.py": "made data/udhr once, from a package's file",
    "scripts/inject_faults.py": "a tool for the tests",
    "scripts/prepare_gemma.py": "unpacks a package for the demo",
}
SCRIPTS = tuple(PARSERS)


def make_inputs(folder: Path) -> None:
    """The inputs of all stages but the heavy ones, below folder/in."""
    inputs = folder / "in"
    inputs.mkdir(parents=True)
    pairs = [pair for pair in udhr_pairs("Basque") if min(map(len, pair)) > 60]
    generated, test, pool = pairs[:PAIRS], pairs[PAIRS : PAIRS + TEST], pairs[PAIRS + TEST : 2 * PAIRS + TEST]
    topics = ["Ada Lovelace", "Sourdough", "Tides", "Chess", "Basalt", "Olive oil", "Gravity", "The Silk Road"]
    write(inputs / "topics_wiki.txt", "\n".join(topics))
    write_jsonl(inputs / "topics.jsonl", [{"topic": topic} for topic in topics])
    for name, sides in (("test.tsv", test), ("bench.tsv", test)):
        header = ["English\tBasque"] if name == "bench.tsv" else []
        write(inputs / name, "\n".join([*header, *(f"{english}\t{basque}" for basque, english in sides)]))
    write(inputs / "probe.tsv", "\n".join(map("\t".join, [("Basque", "English"), *memorised_pairs(TEST_FORMS)[:30]])))
    write_jsonl(inputs / "bench.jsonl", [{"English": english, "Basque": basque} for basque, english in test])
    write(inputs / "bench.json", json.dumps([{"English": english, "Basque": basque} for basque, english in test]))
    write_parquet(inputs / "bench.parquet", [{"Basque": basque, "English": english} for basque, english in test])
    make_benchmarks(inputs / "benchmarks", test)
    write(inputs / "bench.csv", "English,Basque\n" + "\n".join(f'"{english}","{basque}"' for basque, english in test))
    write(inputs / "pool.eus", "\n".join(basque for basque, _ in pool))
    write(inputs / "pool.eng", "\n".join(english for _, english in pool))
    documents = [
        {"text": f"{basque}\n{' '.join(reversed(basque.split()))}\nBi hitz", "topic": "Tides"}
        for basque, _ in pairs[: 2 * PAIRS]
    ]
    write_jsonl(inputs / "native.jsonl", [*documents, *documents[::3]])
    write_parquet(inputs / "native.parquet", documents)
    write(inputs / "native.txt", "\n".join(basque for basque, _ in pairs[: 2 * PAIRS]))
    (inputs / "examples").mkdir()
    write(inputs / "examples" / "eus_Latn.txt", "\n".join(basque for basque, _ in pool))
    records = [
        {
            "sentence": f"{basque} {other}", "topic": "Tides", "propositions": [basque, other],
            "translations": [english, other_english], "scores": [0.5, 0.25], "id": f"Basque-{i}.1",
        }
        for i, ((basque, english), (other, other_english)) in enumerate(zip(generated, reversed(generated), strict=True))
    ]  # fmt: skip
    write_jsonl(inputs / "Basque_translate.jsonl", records)
    write_jsonl(inputs / "Basque_translate_filtered.jsonl", records)
    for model, shift in (("stub-1", 0), ("stub-2", 1)):
        run = inputs / "runs" / model / "English_to_Basque_2_shot_seed_122_llm_vanilla_None_0_0"
        run.mkdir(parents=True)
        texts = [test[(i + shift) % len(test)][0] for i in range(len(test))]
        rows = [{"sentence": english, "translation": text} for (_, english), text in zip(test, texts, strict=True)]
        write_jsonl(run / "translate_0.jsonl", rows)
        settings = {"dataset_name_or_path": "files", "src": "English", "tgt": "Basque"}
        sides = {"from": str(Path("in/test.tsv:Basque=2,English=1"))}
        manifest = {"settings": settings, "test_set": {"test": {"sources": sides, "references": sides}}}
        write(run / "manifest_translate.json", json.dumps(manifest, indent=2))
        write(run / "settings_translate.json", json.dumps(settings, indent=2))
    root = Path(__file__).resolve().parents[2]
    shutil.copy(root / "comptra/prompts/divide/vanilla.toml", inputs / "divide.toml")
    shutil.copy(root / "comptra/prompts/merge/refine.toml", inputs / "merge.toml")
    shutil.copy(root / "topxgen/generation/prompts/instruct.toml", inputs / "prompt.toml")
    shutil.copy(root / "topxgen/statistics/prompts/topic_judge.toml", inputs / "judge.toml")
    shutil.copy(root / "topxgen/generation/prompts/passages.toml", inputs / "passages.toml")
    shutil.copy(root / "topxgen/generation/prompts/neighbours.toml", inputs / "neighbours.toml")
    shutil.copy(root / "tests/support/knn_parts.py", inputs / "encoder.py")
    write(inputs / "run.yaml", RUN)
    write(inputs / "experiment.yaml", EXPERIMENT)
    write(inputs / "flags.yaml", "near_duplicate_threshold: 0.6\nbenchmarks: [in/bench.tsv, udhr]")
    write(inputs / "selector.py", SELECTOR)
    write(inputs / "template.toml", 'prefix = "{src}: "\nmiddle = "\\n{tgt}: "\nsuffix = "\\n\\n"')
    write(inputs / "languages.tsv", "name\tflores\tiso639_1\nKlingon\ttlh_Latn\teu")


def make_benchmarks(folder: Path, pairs: list[tuple[str, str]]) -> None:
    """Small benchmarks in their publishers' layouts."""
    names = {
        "flores200_dataset/{split}/{code}.{split}": ("eus_Latn", "eng_Latn"),
        "NTREX-128/newstest2019-{code}.txt": ("ref.eus", "src.eng"),
    }
    for name, codes in names.items():
        for side, code in enumerate(codes):
            for split in ("dev", "devtest"):
                path = folder / name.format(split=split, code=code)
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, "\n".join(pair[side] for pair in pairs))
    paragraphs = [{"context": english, "qas": [{"id": "1", "question": "?", "answers": []}]} for _, english in pairs]
    (folder / "xquad").mkdir()
    write(
        folder / "xquad/xquad.en.json",
        json.dumps({"version": "1.1", "data": [{"title": "x", "paragraphs": paragraphs}]}),
    )


def make_models(inputs: Path, lm: str) -> None:
    """The inputs of the heavy stages: the small model, and an adapter of it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    shutil.copytree(lm, inputs / "lm")
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(lm), LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(inputs / "adapter")
    config = json.loads((inputs / "adapter" / "adapter_config.json").read_text())
    (inputs / "adapter" / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "in/lm"}))


def write(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def write_jsonl(path: Path, records: list[dict]) -> None:
    write(path, "\n".join(json.dumps(record, ensure_ascii=False) for record in records))


def write_parquet(path: Path, records: list[dict]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(records), path)


def has_apertium() -> bool:
    if not shutil.which("apertium"):
        return False
    return "eu-en" in subprocess.run(["apertium", "-l"], capture_output=True, text=True).stdout
