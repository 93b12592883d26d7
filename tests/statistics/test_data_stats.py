"""scripts/data_stats.py as a user runs it: the table, the files, mistakes."""

import csv
import json
import shutil

import pytest

from tests.support.runs import BENCHMARKS, in_process
from tests.support.tiny_models import udhr_pairs
from tests.support.tiny_sonar import build_sonar
from topxgen.retrieval.encoders import EncoderSettings, create
from topxgen.statistics.corpus import Sources, read_all
from topxgen.statistics.diversity import vendi_score
from topxgen.text import languages


def stats(*words, check: int = 0):
    result = in_process("scripts.data_stats", *words)
    assert result.returncode == check, result.stderr
    return result


def test_a_run_side_by_side_with_native_text(run_folder, tmp_path):
    files = {name: tmp_path / f"stats.{name}" for name in ("csv", "json", "markdown")}
    topics = tmp_path / "topics_wiki.txt"
    topics.write_text("Tides\nChess\nBasalt\nWine\n", encoding="utf-8")
    flags = [word for name, path in files.items() for word in (f"--{name}", path)]
    result = stats(run_folder, "udhr", "--languages", "Basque", "--seed_topics_path", topics, *flags)
    lines = {line[:30].strip(): line[30:].split() for line in result.stdout.splitlines()}
    header = result.stdout.splitlines()[0]
    assert [name in header for name in ("run (paragraphs)", "nllb (pairs)", "nllb (filtered)", "udhr (native)")] == [
        True
    ] * 4
    assert lines["pairs"] == ["-", "22", "18", "-"] and lines["paragraphs"] == ["12", "11", "9", "61"]
    assert lines["paragraphs on other topics"] == ["6", "5", "3", "-"]
    assert "20.5 (9 to 35)" in result.stdout and "0.500 (0.050 to 0.950)" in result.stdout
    assert lines["pairs scored"] == ["-", "11", "9", "-"]
    corpora = json.loads(files["json"].read_text(encoding="utf-8"))["corpora"]
    assert [part["stage"] for part in corpora] == ["paragraphs", "pairs", "filtered", "native"]
    samples = {part["sentences"]["sample"] for part in corpora}
    assert samples == {18} and len({part["sentences"]["sample_words"] for part in corpora}) == 1
    assert corpora[1]["scores"]["confidence"]["scored"] == 11 and corpora[0]["topics"]["coverage"] == 0.75
    assert corpora[3]["translations"] is None and corpora[1]["translations"]["self_bleu"] > 0
    rows = list(csv.DictReader(files["csv"].open(encoding="utf-8")))
    assert [row["counts.pairs"] for row in rows] == ["", "22", "18", ""]
    assert float(rows[1]["sentences.distinct_2"]) == corpora[1]["sentences"]["distinct_2"]
    table = files["markdown"].read_text(encoding="utf-8").splitlines()
    assert {line.count("|") for line in table} == {6} and "| pairs | - | 22 | 18 | - |" in table


def test_coverage_by_category(run_folder, tmp_path):
    topics = tmp_path / "topics.jsonl"
    lines = [
        {"topic": "Tides", "category": "Nature"},
        {"topic": "Wine", "category": "Food"},
        {"topic": "Basalt"},
        "Chess",
    ]
    topics.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    result = stats(run_folder, "udhr", "--languages", "Basque", "--seed_topics_path", topics)
    table = result.stdout.partition("by category\n")[2].splitlines()
    assert [line.split() for line in table[:2]] == [["Food", *["0.0%"] * 3, "-"], ["Nature", *["100.0%"] * 3, "-"]]


def test_the_same_command_gives_the_same_figures(run_folder, tmp_path):
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        stats(run_folder, "--sample", 8, "--seed", seed, "--csv", tmp_path / name)
        found.append((tmp_path / name).read_bytes())
    assert found[0] == found[1] != found[2]


def test_published_folders_are_compared_language_by_language(published_folder):
    result = stats(published_folder)
    tables = result.stdout.split("\n\n")
    assert [table.split()[0].rstrip(",") for table in tables] == ["Hausa", "Luganda"]
    assert tables[0].splitlines()[:3] == [
        "Hausa, columns:",
        "  1: gemma/topxgen/T=1.0/nllb-200-3.3B (pairs)",
        "  2: llama/topxgen/T=1.0/nllb-200-3.3B (pairs)",
    ]
    assert tables[0].splitlines()[3].split() == ["Hausa", "1", "2"]
    assert "quality scores" not in result.stdout and "topics" not in result.stdout


def test_tokens_are_those_of_a_tokenizer(run_folder, tiny_lm):
    result = stats(run_folder, "--stage", "pairs", "--tokenizer", tiny_lm)
    lines = {line[:24].strip(): line.split()[-1] for line in result.stdout.splitlines()}
    from topxgen.inference import ModelSettings
    from topxgen.inference.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(ModelSettings(tiny_lm))
    records = [json.loads(line) for line in (run_folder / "nllb/Basque_translate.jsonl").open(encoding="utf-8")]
    texts = [text for record in records for text in record["propositions"]]
    assert (
        lines["tokens, sentences"]
        == f"{sum(len(tokenizer(text, add_special_tokens=False)['input_ids']) for text in texts):,}"
    )


def test_a_file_that_is_being_written_ends_in_exit_code_3(run_folder, tmp_path):
    with open(run_folder / "Basque.jsonl", "a") as file:
        file.write('{"text": "Gizon-emakume')
    result = stats(run_folder, "--json", tmp_path / "stats.json", check=3)
    assert "WARNING" in result.stderr and "the last line is not complete" in result.stderr and "12" in result.stdout
    assert [part["is_cut"] for part in json.loads((tmp_path / "stats.json").read_text())["corpora"]] == [
        True,
        False,
        False,
    ]


def test_an_empty_file_is_a_column_of_dashes(run_folder):
    (run_folder / "nllb" / "Basque_translate_filtered.jsonl").write_text("")
    result = stats(run_folder)
    row = next(line for line in result.stdout.splitlines() if "distinct-1" in line)
    assert row.split()[-1] == "-" and row.split()[-2] != "-"


@pytest.mark.parametrize(
    "words, message",
    [
        (["nowhere"], "no {Language}_translate_filtered.jsonl or {Language}_translate.jsonl"),
        (["{run}", "--languages", "Basq"], "unknown language 'Basq': did you mean Basque"),
        (["{run}", "--languages", "Hausa"], "has none of --languages Hausa, only Basque"),
        (["{run}", "--stage", "scored"], "'scored' is not one of filtered, pairs, paragraphs"),
        (["{run}", "--sample", "1"], "'1' is not a whole number of 2 or more"),
        (["{run}", "--seed_topics_path", "nowhere.txt"], "cannot read the topics file nowhere.txt"),
        (["{run}", "--tokenizer", "{run}"], "run"),
        (["{run}", "--tokenizer", "~nobody-here/x"], "~nobody-here/x"),
        (["{run}", "--csv", "{run}"], "is a directory; pass the name of a file"),
        (["{run}", "--csv", "{run}/x", "--json", "{run}/x"], "--csv and --json name the same file"),
        (["{run}", "--judge_sample", "3"], "--judge_sample has no effect without --judge_model_name_or_path"),
        (["{run}", "--judge_model_name_or_path", "m"], "--judge_model_name_or_path needs --output_dir"),
        (["{run}", "--judge_model_name_or_path", "m", "--lora_rank", "8", "--output_dir", "o"], "merge it"),
        (["{run}", "--judge_model_name_or_path", "m", "--output_dir", "o", "--judge_prompt", "no.toml"], "--judge_prompt no.toml does not exist; choose one of topic_judge"),
        (["{run}", "--judge_model_name_or_path", "m", "--output_dir", "o", "--base_url", "http://x"], "--base_url has no effect"),
        *((["{run}", "--judge_model_name_or_path", "m", "--output_dir", "o", "--inference_api", "openai", *flag], "no effect")
          for flag in (("--tokenizer_name_or_path", "x"), ("--request_batch_size", "9"))),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(run_folder, words, message):
    result = stats(*(word.format(run=run_folder) for word in words), check=2)
    assert message in result.stderr and result.stderr.count("error:") == 1 and not result.stdout, result.stderr


def test_names_cannot_drive_the_terminal(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "a\x1b[31m" / "run|1")
    result = stats(run_folder, tmp_path / "a\x1b[31m", "--markdown", tmp_path / "t.md")
    assert "\x1b" not in result.stdout and "\\x1b" in result.stdout
    assert "run\\|1" in (tmp_path / "t.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="NTREX-128 is not on this machine")
def test_native_benchmarks_in_their_publishers_layout(run_folder):
    result = stats(run_folder, "ntrex", "--languages", "Basque", "--benchmark_dir", BENCHMARKS, "--stage", "pairs")
    assert "ntrex (native)" in result.stdout and "1,997" in result.stdout


def test_vendi_scores_of_both_sides_by_sonar(run_folder, tmp_path):
    texts = [text for pair in udhr_pairs("Basque")[:30] for text in pair]
    folder = build_sonar(tmp_path / "sonar", texts)
    flags = ["--encoder", "sonar", "--sonar_name_or_path", folder, "--encoder_device", "cpu", "--stage", "pairs"]
    stats(run_folder, *flags, "--json", tmp_path / "stats.json")
    found = json.loads((tmp_path / "stats.json").read_text())
    pairs = read_all([str(run_folder)], Sources(stages=["pairs"]))[0].pairs
    encoder = create("sonar", EncoderSettings(sonar_name_or_path=folder, encoder_device="cpu"))
    for side, language in (("sentence", "Basque"), ("translation", "English")):
        vectors = encoder.encode([getattr(pair, side) for pair in pairs], languages.find(language))
        score = found["corpora"][0][f"{side}s"]["vendi_score"]
        assert score == pytest.approx(vendi_score(vectors), rel=1e-4) and 1 < score < 22
    assert found["settings"]["encoder"] == encoder.version


@pytest.mark.medium
def test_the_embedded_encoder_scores_languages_that_it_knows(run_folder):
    result = stats(run_folder, "--encoder", "use", "--stage", "pairs", "--sample", 12)
    before, after = result.stdout.split("diversity of the translations")
    assert "Vendi score" in after and "Vendi score" not in before
    assert "no Vendi score of Basque, which the encoder was not trained on" in result.stderr


def test_vectors_of_an_encoder_of_ones_own_without_direction(run_folder, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy as np\nclass Zeros:\n    version = 'zeros'\n    def __init__(self, settings): ...\n"
        "    def check(self, language): ...\n    def close(self): ...\n"
        "    def encode(self, texts, language, tick): return np.zeros((len(texts), 3), np.float32)\n"
    )
    result = stats(run_folder, "--encoder", f"{path}:Zeros", check=2)
    assert "no Vendi score of Basque: a vector has length 0" in result.stderr and not result.stdout
