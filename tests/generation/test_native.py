"""datagen.py --paragraphs: native texts through the stages, in every format, however often the run is stopped."""

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.runs import BENCHMARKS, TOPICS, in_process, lines_in, records, script
from tests.support.tiny_models import udhr_texts

needs_apertium = pytest.mark.skipif(
    not shutil.which("apertium")
    or "eu-en" not in subprocess.run(["apertium", "-l"], capture_output=True, text=True).stdout,
    reason="Apertium with its Basque-English pair is not installed (scripts/setup.sh does it)",
)
UDHR = udhr_texts("Basque")
GENERATE = ("--stages", "generate")


def run(folder, source, *more, code=0, languages=("Basque",), stages=GENERATE):
    sources = source if isinstance(source, (list, tuple)) else [source]
    result = in_process(
        "datagen.py", "--paragraphs", *sources, "--languages", *languages, "--output_dir", folder, *stages, *more
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result


def refusal(folder, source, *more, **options) -> str:
    """The one line on stderr of a command that is refused before it writes anything."""
    existed = folder.exists()
    result = run(folder, source, *more, code=2, **options)
    (line,) = result.stderr.strip().splitlines()
    assert folder.exists() == existed
    return line


def write(path: Path, texts, column="text", **columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [dict(zip([column, *columns], row, strict=True)) for row in zip(texts, *columns.values(), strict=True)]
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def kept(folder, language="Basque") -> list[dict]:
    return records(folder / f"{language}.jsonl")


def rejects(folder) -> dict[str, str]:
    return {
        record["id"].removeprefix("Basque-native-"): record["reason"]
        for record in records(folder / "Basque_rejects.jsonl")
    }


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


@needs_apertium
def test_killed_by_signal_and_resumed_through_all_stages(tmp_path):
    texts = [" ".join(random.Random(i).sample(" ".join(UDHR).split(), 30)) + "." for i in range(800)]
    source = write(tmp_path / "source.txt", texts)
    flags = ("--paragraphs", source, "--languages", "Basque", "--back_translator", "apertium")
    script("datagen.py", *flags, "--output_dir", tmp_path / "whole")
    written = tmp_path / "killed" / "Basque.jsonl"
    for lines in (1, 300, 600):
        script(
            "datagen.py", *flags, "--output_dir", tmp_path / "killed", kill_when=lambda n=lines: lines_in(written) >= n
        )
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
    assert "pipeline was 'topxgen', now 'paragraphs'" in refusal(tmp_path / "llm", source)
    (tmp_path / "native/settings_generate.json").unlink()
    assert "has paragraphs of another run" in refusal(tmp_path / "native", source)


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
