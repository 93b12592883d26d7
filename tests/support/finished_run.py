"""A small run made by the real scripts in this process: native or generated texts, candidates, a minimum score, decontamination."""

from pathlib import Path

from tests.support.runs import TOPICS, in_process, records
from tests.support.tiny_models import udhr_texts

NAME = "nllb-tiny"
LEAKED = 3  # of the paragraphs with pairs: the benchmark has them


def native_texts() -> list[str]:
    """Articles of the UDHR with what is rejected: doubles, a word, nothing; two on a line of one row are two paragraphs."""
    texts = [text for text in dict.fromkeys(udhr_texts("Basque")) if len(text) > 60][:36]
    return [*texts, texts[0], texts[3], "Bai.", ""]


def make(folder: Path, nllb: str, *flags, lm: str | None = None, cache: Path | None = None) -> Path:
    """Basque paragraphs, native or of the model `lm`, three candidates a sentence, decontaminated by texts of their own."""
    work = folder / "work"
    source, benchmark = work / "texts.txt", work / "benchmark.txt"
    work.mkdir(parents=True, exist_ok=True)
    source.write_text("".join(f"{text}\n" for text in native_texts()), encoding="utf-8")
    run = folder / "run"
    generation = ("--paragraphs", source)
    if lm is not None:
        generation = (
            "--model_name_or_path", lm, "--seed_topics_path", TOPICS, "--example_paragraphs", "udhr", "--example_sentences",
            "udhr", "--number_of_icl_demonstrations", 1, "--number_of_icl_phrases", 2, "--dtype", "float32",
            "--prompt_template", "continuation", "--inference_api", "hf", "--max_new_tokens", 48, "--request_batch_size", 8,
            "--number_of_instructions", 24,
        )  # fmt: skip
    result = in_process(
        "datagen.py", *generation, "--languages", "Basque", "--output_dir", run, "--use_nllb", "--nllb_name_or_path", nllb,
        "--cache_dir", cache or work / "cache", "--translate_dir", NAME, "--scorer", "confidence",
        "--number_of_candidates", 3, "--select_by", "confidence", *flags,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    paired = [r["sentence"] for r in records(run / NAME / "Basque_translate.jsonl") if r["propositions"]]
    benchmark.write_text("".join(f"{text}\n" for text in paired[-LEAKED:]), encoding="utf-8")
    decontaminate(run / NAME, benchmark)
    return run


def decontaminate(folder: Path, benchmark: Path, *flags) -> None:
    only = ("--benchmarks", f"{benchmark}:Basque", "--allow_missing", f"{benchmark}:Basque")
    result = in_process("decontamination.py", "--input_dir", folder, *only, *flags)
    assert result.returncode == 0, result.stderr
