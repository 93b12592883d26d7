"""datagen.py --paragraphs: native texts through the stages, in every format, however often the run is stopped."""

import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import number_translator
from tests.support.native_runs import GENERATE, UDHR, kept, refusal, rejects, run, write
from tests.support.runs import BENCHMARKS, TOPICS, in_process, records, script, signalled
from tests.support.tiny_models import udhr_texts
from topxgen.generation import native

needs_apertium = pytest.mark.skipif(
    not shutil.which("apertium")
    or "eu-en" not in subprocess.run(["apertium", "-l"], capture_output=True, text=True).stdout,
    reason="Apertium with its Basque-English pair is not installed (scripts/setup.sh does it)",
)


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet"])
def test_texts_of_each_format_are_cleaned_and_counted(tmp_path, suffix):
    long = "Hitz bat, eta beste bat. " * 1000
    texts = [
        UDHR[0],
        "Bi hitz",
        UDHR[1],
        "",
        UDHR[0].replace(",", ";"),
        "Hiru\thitz  dira\u2028hemen.",
        long,
        "a\x00 b c d",
    ]
    source = write(tmp_path / f"source{suffix}", texts)
    result = run(tmp_path / "out", source)
    assert kept(tmp_path / "out") == [
        {"text": UDHR[0], "id": "Basque-native-1.0"},
        {"text": UDHR[1], "id": "Basque-native-3.0"},
        {"text": "Hiru hitz dira hemen.", "id": "Basque-native-6.0"},
    ]
    assert rejects(tmp_path / "out") == {
        "2.0": "too_few_words",
        **({} if suffix == ".txt" else {"4.0": "empty"}),  # an empty line of a text file is no text
        "5.0": "near_duplicate of Basque-native-1.0 (ROUGE-L F1 1.000)",
        "7.0": f"too_long ({len(long.strip())} characters)",
        "8.0": "binary",
    }
    read = 7 if suffix == ".txt" else 8
    manifest = json.loads((tmp_path / "out/manifest_generate.json").read_text())
    assert (
        manifest["complete"]
        and manifest["counts"]["Basque"]["kept"] == 3
        and manifest["counts"]["Basque"]["native"] == read
    )
    shown = " ".join(result.stdout.split())
    assert f"native paragraphs read {read} after empty" in shown and "paragraphs kept 3 " in shown
    settings = json.loads((tmp_path / "out/settings_generate.json").read_text())
    assert settings["pipeline"] == "paragraphs" and settings["paragraphs Basque"].startswith(f"{read} texts, SHA-256 ")


def test_killed_anywhere_and_resumed(tmp_path):
    """Cut at every kind of place, a torn last line included, the files become those of an uninterrupted run."""
    texts = [*UDHR, "Bi hitz", *reversed(UDHR), *(" ".join(text.split()[::-1]) for text in UDHR)]
    source = write(tmp_path / "source.jsonl", ["\n".join(texts[i : i + 3]) for i in range(0, len(texts), 3)])
    run(tmp_path / "whole", source)
    whole = {name: (tmp_path / "whole" / name).read_bytes() for name in ("Basque.jsonl", "Basque_rejects.jsonl")}
    order = [record["id"] for record in [*kept(tmp_path / "whole"), *records(tmp_path / "whole/Basque_rejects.jsonl")]]
    order.sort(key=lambda id_: tuple(map(int, id_.removeprefix("Basque-native-").split("."))))
    rng = random.Random(1)
    for number in range(12):
        folder = tmp_path / f"killed-{number}"
        shutil.copytree(tmp_path / "whole", folder)
        (folder / "manifest_generate.json").unlink()
        (folder / "manifest_generate_Basque.json").unlink()
        done = set(order[: rng.randrange(len(order))])
        for name, content in whole.items():
            lines = content.splitlines(keepends=True)
            before = [line for line in lines if json.loads(line)["id"] in done]
            torn = (
                lines[len(before)][: rng.randrange(1, 30)]
                if name == "Basque.jsonl" and len(before) < len(lines)
                else b""
            )
            (folder / name).write_bytes(b"".join(before) + torn)
        run(folder, source)
        assert {name: (folder / name).read_bytes() for name in whole} == whole, number
    (folder / "Basque_rejects.jsonl").unlink()
    run(folder, source)
    assert {name: (folder / name).read_bytes() for name in whole} == whole


@pytest.mark.slow
@needs_apertium
def test_killed_by_signal_and_resumed_through_all_stages(tmp_path):
    texts = [" ".join(random.Random(i).sample(" ".join(UDHR).split(), 30)) + "." for i in range(800)]
    source = write(tmp_path / "source.txt", texts)
    flags = ("--paragraphs", source, "--languages", "Basque", "--back_translator", "apertium")
    script("datagen.py", *flags, "--output_dir", tmp_path / "whole")
    written = tmp_path / "killed" / "Basque.jsonl"
    for lines in (1, 300, 600):
        script("datagen.py", *flags, "--output_dir", tmp_path / "killed", killed_at=(written, lines))
    result = script("datagen.py", *flags, "--output_dir", tmp_path / "killed")
    assert "800/800 paragraphs" in result.stderr
    for name in (
        "Basque.jsonl",
        "Basque_rejects.jsonl",
        "apertium/Basque_translate.jsonl",
        "apertium/Basque_translate_rejects.jsonl",
    ):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_limit_and_a_larger_one(tmp_path):
    source = write(tmp_path / "source.txt", [*UDHR, *UDHR])
    whole = tmp_path / "whole"
    run(whole, source)
    run(tmp_path / "out", source, "--number_of_instructions", 3)
    assert kept(tmp_path / "out") == kept(whole)[:3]
    run(tmp_path / "out", source, "--number_of_instructions_per_language", 5)
    assert kept(tmp_path / "out") == kept(whole)[:5]
    result = run(tmp_path / "out", source, "--number_of_instructions", 1000, code=3)
    assert "fewer than the 1000 that were asked for" in result.stderr
    assert kept(tmp_path / "out") == kept(whole)
    documents = write(tmp_path / "source.jsonl", ["\n".join(UDHR[i : i + 4]) for i in range(0, len(UDHR), 4)])
    run(tmp_path / "documents", documents)
    for limit in (6, 9):  # in the middle of a document
        run(tmp_path / "part", documents, "--number_of_instructions", limit)
        assert kept(tmp_path / "part") == kept(tmp_path / "documents")[:limit]


def test_slices_and_what_tells_sources_apart(tmp_path):
    source, out = write(tmp_path / "source.txt", UDHR), tmp_path / "out"
    run(out, f"{source}[2:5]")
    assert [record["id"] for record in kept(out)] == [f"Basque-native-{i}.0" for i in (3, 4, 5)]
    assert "paragraphs Basque was '3 texts, SHA-256" in refusal(out, f"{source}[2:6]")
    assert "paragraphs Basque was '3 texts" in refusal(out, f"{source}[3:6]")
    assert "threshold was 0.7, now 0.5" in refusal(out, f"{source}[2:5]", "--threshold", 0.5)
    assert f"{source}[2:999] goes beyond the end: {source} has {len(UDHR)} lines" in refusal(
        tmp_path / "new", f"{source}[2:999]"
    )
    assert "paragraphs Basque was" in refusal(out, write(tmp_path / "cut.txt", UDHR[2:5]))  # ids would be others
    run(out, f"{write(tmp_path / 'moved.jsonl', UDHR)}[2:5]")  # the same texts, in whatever file
    assert len(kept(out)) == 3 and rejects(out) == {}


def test_not_continued_by_an_llm_and_no_generated_folder_is_continued(tmp_path):
    source = write(tmp_path / "source.txt", UDHR)
    run(tmp_path / "native", source)
    llm = ("--model_name_or_path", "gpt-x", "--inference_api", "openai", "--api_key", "k", "--seed_topics_path", TOPICS,
           "--number_of_instructions", 5, "--number_of_icl_demonstrations", 0, "--languages", "Basque", *GENERATE)  # fmt: skip
    result = in_process("datagen.py", *llm, "--output_dir", tmp_path / "native")
    assert result.returncode == 2 and "pipeline was 'paragraphs', now 'topxgen'" in result.stderr
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm/settings_generate.json").write_text('{"pipeline": "topxgen"}')
    (tmp_path / "llm/Basque_answers.jsonl").write_text('{"id": "Basque-0"}\n')  # settings alone would be replaced
    assert "pipeline was 'topxgen', now 'paragraphs'" in refusal(tmp_path / "llm", source)
    (tmp_path / "native/settings_generate.json").unlink()
    assert "has paragraphs of another run" in refusal(tmp_path / "native", source)


def test_published_paragraphs_count_and_are_not_taken_twice(tmp_path):
    out = tmp_path / "out"
    published = write(out / "Basque.jsonl", UDHR[:2], topic=["itsasoa"] * 2).read_text()
    result = run(out, write(tmp_path / "source.txt", UDHR[:5]), "--number_of_instructions", 4)
    assert (out / "Basque.jsonl").read_text().startswith(published)
    assert [record["text"] for record in kept(out)] == UDHR[:4]
    assert set(rejects(out)) == {"1.0", "2.0"}
    assert "native paragraphs read 4 after" in " ".join(result.stdout.split()) and "paragraphs kept" in result.stdout


def test_several_languages(tmp_path):
    folder = tmp_path / "texts"
    write(folder / "Basque.txt", UDHR)
    write(folder / "hau_Latn.jsonl", udhr_texts("Hausa"))
    both = ("Basque", "Hausa")
    run(tmp_path / "one", folder, languages=both)
    run(tmp_path / "two", [folder / "Basque.txt", folder / "hau_Latn.jsonl"], languages=both)
    for name in both:
        assert kept(tmp_path / "one", name) == kept(tmp_path / "two", name) != []
    run(tmp_path / "one", folder, "--number_of_instructions_per_language", 2, 3, languages=both)
    assert "for one language: pass --number_of_instructions_per_language" in refusal(
        tmp_path / "new", folder, "--number_of_instructions", 2, languages=both
    )
    assert "is no folder with Basque.txt or Basque.jsonl" in refusal(
        tmp_path / "new", folder / "Basque.txt", languages=both
    )
    assert "has 3 sources for 2 languages" in refusal(tmp_path / "new", [folder] * 3, languages=both)
    write(folder / "Basque.jsonl", UDHR)
    assert "has Basque.txt and Basque.jsonl; pass one" in refusal(tmp_path / "new", folder)


def test_the_progress_counts_the_sentences_of_all_languages(tmp_path):
    folder = tmp_path / "texts"
    write(folder / "Basque.txt", UDHR)
    write(folder / "Hausa.txt", udhr_texts("Hausa")[:2])
    translator = ("--back_translator", number_translator.NAME, "--translate_dir", "numbers")
    result = run(
        tmp_path, folder, *translator, languages=("Basque", "Hausa"), stages=("--stages", "generate", "translate")
    )
    shown = int(re.findall(r"translate: .* (\d+) sentences \(", result.stderr)[-1])
    assert shown > len(UDHR)


def test_a_finished_run_again_changes_no_file(tmp_path):
    """Nor the rate, which would be that of reading its own files."""
    path, folder = write(tmp_path / "in.txt", UDHR[:8]), tmp_path / "out"
    run(folder, path)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert json.loads(before["rates.json"])["generate"] > 0
    run(folder, path)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def purging(folder: Path, method: str, name: str) -> tuple:
    """Flags of a back-translator that removes a file of folder/out when it is loaded or closed, as a purge of scratch files may."""
    path = folder / "purging.py"
    path.write_text(
        "from pathlib import Path\nfrom tests.support.number_translator import Numbers\n\n\nclass Purging(Numbers):\n"
        f"    def {method}(self):\n        for path in Path({str(folder / 'out')!r}).rglob({name!r}):\n            path.unlink()\n"
    )
    return "--back_translator", f"{path}:Purging", "--translate_dir", "numbers", "--stages", "generate", "translate"


def test_settings_that_are_removed_in_mid_run_are_written_again(tmp_path):
    """Without them the finished run could not be continued."""
    out, path = tmp_path / "out", write(tmp_path / "in.txt", UDHR[:8])
    flags = purging(tmp_path, "load", "settings_translate.json")
    run(out, path, *flags, stages=())
    assert json.loads((out / "numbers" / "settings_translate.json").read_text())["target_language"] == "English"
    assert "numbers/Basque_translate.jsonl" in run(out, path, *flags, stages=()).stdout


def test_translations_that_are_removed_before_they_are_counted(tmp_path):
    """After their file has been closed: the run does not end with a warning that no pairs were kept."""
    flags = purging(tmp_path, "close", "Basque_translate.jsonl")
    result = run(tmp_path / "out", write(tmp_path / "in.txt", UDHR[:8]), *flags, stages=(), code=2)
    assert "files of Basque in" in result.stderr and "were removed or changed" in result.stderr


def test_a_language_that_is_added_leaves_the_finished_one_alone(tmp_path):
    """Also one that falls short of what was asked for."""
    folder, out, stages = tmp_path / "texts", tmp_path / "out", ("--stages", "generate", "translate")
    write(folder / "Basque.txt", UDHR)
    write(folder / "Hausa.txt", udhr_texts("Hausa"))
    translator = ("--back_translator", number_translator.NAME, "--translate_dir", "numbers")
    run(out, folder, *translator, stages=stages)
    finished = [out / "manifest_generate_Basque.json", out / "numbers/manifest_translate_Basque.json"]
    before = [path.read_bytes() for path in finished]
    few = ("--number_of_instructions_per_language", len(kept(out)), 1000)
    run(out, folder, *few, languages=("Basque", "Hausa"), code=3)
    assert [path.read_bytes() for path in finished] == before
    complete = {
        name: json.loads((out / f"manifest_generate_{name}.json").read_text())["complete"]
        for name in ("Basque", "Hausa")
    }
    assert complete == {"Basque": True, "Hausa": False} and kept(out, "Hausa")
    assert not json.loads((out / "manifest_generate.json").read_text())["complete"]


@pytest.mark.parametrize(
    "flags",
    [
        ("--seed_topics_path", TOPICS),
        ("--data_generation_pipeline", "topxgen"),
        ("--prompt_template", "instruct"),
        ("--number_of_icl_phrases", 2),
        ("--temperature", 0.5),
        ("--max_new_tokens", 10),
        ("--back_translator", "apertium", "--model_name_or_path", "gpt-x"),
        ("--use_nllb", "--inference_api", "hf"),
        ("--back_translator", "apertium", "--adapter_name_or_path", "lora"),
        ("--back_translator", "apertium", "--engine_args", "quantization=fp8"),
        ("--use_nllb", "--data_parallel_size", 2),
    ],
)
def test_flags_of_an_llm_have_no_effect(tmp_path, flags):
    line = refusal(tmp_path / "out", write(tmp_path / "a.txt", UDHR), *flags)
    assert "no effect without an LLM that writes" in line


def test_a_dry_run_shows_the_source_and_counts_it(tmp_path, monkeypatch):
    source = write(tmp_path / "a.txt", UDHR)
    flags = ("--back_translator", "llm", "--inference_api", "openai", "--api_key", "k", "--model_name_or_path", "gpt-x",
             "--demonstration_pool", "udhr", "--scorer", "none", "--dry_run")  # fmt: skip
    result = run(tmp_path / "out", f"{source}[:20]", *flags, stages=())
    assert f"Basque: {source}[:20], 20 texts, SHA-256 " in result.stdout and not (tmp_path / "out").exists()
    assert f"--- text 2\n{UDHR[1]}\n---" in result.stdout and UDHR[2] not in result.stdout
    assert "up to 20 paragraphs" in result.stdout and "20 to 240 sentences" in result.stdout
    result = run(tmp_path / "out", source, *flags, "--number_of_instructions", 5, stages=())
    assert "up to 5 paragraphs" in result.stdout
    assert "up to 40 paragraphs" in run(tmp_path / "out", f"{source}[:40]", "--dry_run").stdout  # no LLM at all
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = run(tmp_path / "out", "org/native:eu", *flags)
    assert "not checked: " in result.stderr and "texts of unknown number" in result.stdout


def test_a_signal_stops_it_in_order(tmp_path):
    """Exit code 143, whole files, and the same command goes on."""
    words = " ".join(UDHR).split()
    source = write(tmp_path / "a.txt", [" ".join(random.Random(i).sample(words, 40)) for i in range(3000)])
    command = (
        "datagen.py",
        "--paragraphs",
        source,
        "--languages",
        "Basque",
        *GENERATE,
        "--output_dir",
        tmp_path / "out",
    )
    stopped = script(*signalled(tmp_path / "out/Basque.jsonl", 100, "SIGTERM"), *command, check=143)
    assert "re-run the same command" in stopped.stderr
    first = (tmp_path / "out/Basque.jsonl").read_bytes()
    assert 100 <= first.count(b"\n") < 3000 and first.endswith(b"\n")
    run(tmp_path / "out", source)
    run(tmp_path / "whole", source)
    assert (tmp_path / "out/Basque.jsonl").read_bytes() == (tmp_path / "whole/Basque.jsonl").read_bytes()
    assert (tmp_path / "out/Basque.jsonl").read_bytes().startswith(first)


@needs_apertium
@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="no copies of the benchmarks here")
def test_lines_of_ntrex_through_all_stages_and_decontamination(tmp_path):
    ntrex = BENCHMARKS / "NTREX-128" / "newstest2019-ref.eus.txt"
    result = run(tmp_path, f"{ntrex}[:60]", "--back_translator", "apertium", stages=())
    pairs = sum(len(record["propositions"]) for record in records(tmp_path / "apertium/Basque_translate.jsonl"))
    assert pairs > 40 and f"pairs scored {pairs} " in " ".join(result.stdout.split())
    flags = ("decontamination.py", "--input_dir", tmp_path / "apertium", "--num_workers", 1, "--benchmarks")
    result = in_process(*flags, f"{ntrex}[1000:]:Basque")
    assert result.returncode == 3 and f"{pairs} of {pairs} pairs kept" in result.stdout, (
        result.stderr
    )  # English: unchecked
    result = in_process(*flags, f"{ntrex}[30:1000]:Basque")
    filtered = records(tmp_path / "apertium/Basque_translate_filtered.jsonl")
    assert filtered and all(int(record["id"].split("-")[-1].split(".")[0]) <= 30 for record in filtered)
    report = json.loads((tmp_path / "apertium/decontamination_report.json").read_text())
    assert f'"source": "{ntrex}[30:1000]"' in json.dumps(report)


@pytest.mark.parametrize(
    "judged, shards, done",
    [((), 1, 0), ((1, 2, 3, 5), 1, 2), ((1, 4, 10), 3, 3), ((1, 7), 3, 0), ((), 3, 0)],
)
def test_rows_that_a_resumed_run_does_not_read_again(judged, shards, done):
    """Those before the last one that is judged as far as nothing is missing, of a shard those of its own."""
    ids = {native.native_id("Basque", number, 0) for number in judged}
    assert native._rows_done("Basque", ids, lambda number: number % shards == 1 % shards) == done
