"""main.py with several languages: one command for a whole table, each direction as if it were run alone."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.comptra.test_main import make_adapters
from tests.support.api_server import KEY, ApiServer
from tests.support.main_runs import options, texts
from tests.support.runs import in_process, lines_in, records, script

TABLE = ("--src", "English", "--tgt", "Basque", "Swahili", "Hausa")


def folders(output: Path) -> dict[str, Path]:
    """The folders of runs by direction."""
    return {path.parent.name.partition("_2_shot")[0]: path.parent for path in output.glob("*/*/translate_0.jsonl")}


def without_times(path: Path) -> dict:
    return {
        name: value
        for name, value in json.loads(path.read_text()).items()
        if name not in ("started", "finished", "command")
    }


def check_equal(output: Path, other: Path) -> None:
    """The files of each direction are those of another output directory; manifests but for the times and the command."""
    found, expected = folders(output), folders(other)
    assert found.keys() == expected.keys()
    for direction, folder in found.items():
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            path.name for path in expected[direction].iterdir()
        )
        for path in folder.iterdir():
            twin = expected[direction] / path.name
            if path.name == "manifest_translate.json":
                assert without_times(path) == without_times(twin)
            elif path.name == "SHA256SUMS":  # the manifest's has its times
                assert claims(path) == claims(twin)
            else:
                assert path.read_bytes() == twin.read_bytes(), path


def claims(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if "manifest_translate.json" not in line]


@pytest.mark.medium
def test_a_table_loads_once_and_is_as_single_calls(main_here, tmp_path):
    together = main_here("--output_dir", tmp_path / "table", *TABLE)
    assert together.returncode == 0, together.stderr
    assert together.stderr.count("main.py: loading") + together.stderr.count("\nloading") == 1
    for language in TABLE[3:]:
        assert main_here("--output_dir", tmp_path / "single", "--tgt", language).returncode == 0
    assert len(folders(tmp_path / "table")) == 3
    check_equal(tmp_path / "table", tmp_path / "single")
    assert re.search(r"English to Swahili \(2 of 3\): translate 0: 4/4 answers", together.stderr)
    assert f"3 runs, 12 translations in {tmp_path / 'table'}; incomplete: 0" in together.stderr
    again = main_here("--output_dir", tmp_path / "table", *TABLE)
    assert again.returncode == 0 and "loading" not in again.stderr


def test_each_source_with_each_other_target(main_here, tmp_path):
    both = ("--src", "English", "Basque", "eus_Latn", "--tgt", "Basque", "English", "Swahili")
    result = main_here("--output_dir", tmp_path, *both, "--max_samples", 1)
    assert result.returncode == 0, result.stderr
    assert set(folders(tmp_path)) == {
        "English_to_Basque", "English_to_Swahili", "Basque_to_English", "Basque_to_Swahili"
    }  # fmt: skip
    none = main_here("--output_dir", tmp_path, "--src", "Basque", "eus_Latn", "--tgt", "Basque")
    assert none.returncode == 2 and "--src and --tgt are both Basque; choose two languages" in none.stderr
    named = main_here("--output_dir", tmp_path, *both, "--metadata_dir", "mine")
    assert named.returncode == 2 and "--metadata_dir names the folder of one direction" in named.stderr


def test_adapters_are_switched_in_each_direction(tiny_lm, tmp_path):
    adapters = make_adapters(tiny_lm, tmp_path / "run")
    flags = options(
        tiny_lm,
        *TABLE[:4],
        "Swahili",
        tgt=None,
        model_name_or_path=None,
        base_model_name_or_path=tiny_lm,
        max_samples=2,
    )
    result = in_process("main.py", *flags, "--model_name_or_path", *adapters, "--output_dir", tmp_path / "out")
    assert result.returncode == 0 and result.stderr.count("loading") == 1, result.stderr
    alone = in_process("main.py", *flags, "--model_name_or_path", adapters[1], "--output_dir", tmp_path / "one")
    assert alone.returncode == 0, alone.stderr
    for path in (tmp_path / "one" / "checkpoint-2").glob("*/translate_0.jsonl"):
        twin = tmp_path / "out" / "checkpoint-2" / path.parent.name / path.name
        other = tmp_path / "out" / "checkpoint-1" / path.parent.name / path.name
        assert path.read_bytes() == twin.read_bytes() != other.read_bytes()


@pytest.mark.medium
def test_demonstrations_by_sonar_do_not_cost_more_loads(main_here, tmp_path):
    """They are found for all directions before the LLM is in memory."""
    from tests.support.main_runs import udhr
    from tests.support.tiny_sonar import build_sonar

    data = udhr(None)
    sonar = build_sonar(tmp_path / "sonar", [*data.sources, *(source for source, _ in data.pool)])
    flags = ("--retriever_type", "SONAR", "--sonar_name_or_path", sonar, "--max_samples", 2)
    result = main_here(*flags, *TABLE[:2], "--tgt", "Basque", "Swahili", "--output_dir", tmp_path / "both")
    assert result.returncode == 0 and result.stderr.count("loading") == 1, result.stderr
    assert main_here(*flags, "--tgt", "Swahili", "--output_dir", tmp_path / "one").returncode == 0
    (path,) = (tmp_path / "one").glob("*/*_SONAR/translate_0.jsonl")
    assert (tmp_path / "both" / path.relative_to(tmp_path / "one")).read_bytes() == path.read_bytes()


def test_one_translation_model_for_all_directions(tiny_nllb, tmp_path, monkeypatch):
    from topxgen.translation import seq2seq_engines

    loads, load = [], seq2seq_engines.CTranslate2Engine.load
    monkeypatch.setattr(seq2seq_engines.CTranslate2Engine, "load", lambda engine: (loads.append(engine), load(engine)))
    command = (
        "main.py", "--method_translate", "nllb", "--nllb_name_or_path", tiny_nllb, "--dataset_name_or_path", "udhr",
        "--max_samples", 2, "--nllb_compute_type", "float32", "--cache_dir", tmp_path / "cache",
    )  # fmt: skip
    pairs = ("--src", "English", "Basque", "--tgt", "English", "Basque")
    assert in_process(*command, *pairs, "--output_dir", tmp_path / "both").returncode == 0
    assert len(loads) == 1
    assert in_process(*command, "--tgt", "Basque", "--output_dir", tmp_path / "one").returncode == 0
    (path,) = (tmp_path / "one").glob("*/English_to_Basque_*/translate_0.jsonl")
    assert (tmp_path / "both" / path.relative_to(tmp_path / "one")).read_bytes() == path.read_bytes()


@pytest.mark.medium
def test_what_one_direction_lacks_is_found_before_the_model_is_loaded(main_here, ntrex, tmp_path):
    flags = ("--dataset_name_or_path", "ntrex", "--benchmark_dir", ntrex.parent, "--output_dir", tmp_path / "out")
    result = main_here(*flags, "--tgt", "Basque", "Sundanese", "Hausa")
    assert result.returncode == 2 and "loading" not in result.stderr
    (error,) = [line for line in result.stderr.splitlines() if "error:" in line]
    assert "English to Sundanese: ntrex as published has no Sundanese" in error
    assert not (tmp_path / "out").exists()
    assert main_here(*flags, "--tgt", "Basque", "--max_samples", 2, "--k", 0).returncode == 0
    scored = in_process("comptra.evaluate", tmp_path / "out", "--metrics", "chrf")  # without --benchmark_dir
    assert scored.returncode == 0 and "ntrex from English into Basque, 2 sentences" in scored.stdout, scored.stderr
    shutil.rmtree(tmp_path / "out")
    two = main_here(*flags, "--tgt", "Basque", "Sundanese", "Luganda")
    assert two.returncode == 2 and "English to Sundanese: " in two.stderr and "also wrong: English to " in two.stderr


def test_files_of_one_direction_cannot_serve_others(main_here, tmp_path):
    for name, text in (("en.txt", "Bread.\nWater.\n"), ("eu.txt", "Ogia.\nUra.\n")):
        (tmp_path / name).write_text(text)
    files = ("--dataset_name_or_path", "files", "--k", 0, "--output_dir", tmp_path / "out", "--max_samples", 2)
    pair = ("--test_files", tmp_path / "en.txt", tmp_path / "eu.txt")
    result = main_here(*files, *pair, "--tgt", "Basque", "Hausa")
    assert result.returncode == 2 and "eu.txt is the same text in Basque and in Hausa" in result.stderr
    both = main_here(*files, *pair, "--src", "English", "Basque", "--tgt", "English", "Basque")
    assert both.returncode == 2 and "en.txt is the same text in English and in Basque" in both.stderr
    table = tmp_path / "t.tsv"
    table.write_text("English\tBasque\tHausa\nBread.\tOgia.\tBurodi.\nWater.\tUra.\tRuwa.\n")
    own = main_here(*files, "--test_files", table, table, "--tgt", "Basque", "Hausa")
    assert own.returncode == 0, own.stderr
    for target in ("Basque", "Hausa"):
        (path,) = (tmp_path / "out").glob(f"*/English_to_{target}_*/translate_0.jsonl")
        assert texts(path, "sentence") == ["Bread.", "Water."]


@pytest.mark.medium
@pytest.mark.parametrize("steps", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_in_the_second_direction_and_resumed(steps, main_here, tiny_lm, tmp_path):
    more = ("--steps", steps, "--method_divide", "space", "--number_of_subproblems", 2) * bool(steps)
    command = ("main.py", *options(tiny_lm, *more, tgt=None), *TABLE, "--request_batch_size", 1)
    assert in_process(*command, "--output_dir", tmp_path / "whole").returncode == 0
    answers = tmp_path / "killed" / "*" / "English_to_Swahili_*" / "answers.jsonl"
    script(*command, "--output_dir", tmp_path / "killed", killed_at=(answers, 2))
    done = folders(tmp_path / "killed")
    assert (done["English_to_Basque"] / "manifest_translate.json").is_file() and "English_to_Hausa" not in done
    first = (done["English_to_Basque"] / "manifest_translate.json").read_bytes()
    resumed = in_process(*command, "--output_dir", tmp_path / "killed")
    assert resumed.returncode == 0, resumed.stderr
    assert (done["English_to_Basque"] / "manifest_translate.json").read_bytes() == first
    check_equal(tmp_path / "killed", tmp_path / "whole")
    for folder in folders(tmp_path / "killed").values():
        ids = texts(folder / "answers.jsonl", "id")
        assert len(ids) == len(set(ids))


def test_incomplete_directions_are_named_at_the_end(main_here, tmp_path):
    flags = (*TABLE[:2], "--tgt", "Basque", "Swahili", "--output_dir", tmp_path)
    result = main_here(*flags, "--max_model_len", 64)
    assert result.returncode == 3, result.stderr
    assert "incomplete: tiny_lm, English to Basque: 4 prompts got no response" in result.stderr
    assert f"2 runs, 8 translations in {tmp_path}; incomplete: 2" in result.stderr
    assert main_here(*flags).returncode == 0


def test_divisions_of_two_source_languages(main_here, tiny_lm, tmp_path):
    """Each has a folder of its own; targets of one source share one."""
    flags = ("--steps", 1, "--method_divide", "space", "--number_of_subproblems", 2, "--max_samples", 2)
    result = main_here(*flags, "--src", "English", "Basque", "--tgt", "Swahili", "Hausa", "--output_dir", tmp_path)
    assert result.returncode == 0 and result.stderr.count("loading") == 1, result.stderr
    room = tmp_path / Path(tiny_lm).name
    (own,) = room.glob("divisions_*")
    assert json.loads((room / "settings_divide.json").read_text())["src"] == "English"
    assert json.loads((own / "settings_divide.json").read_text())["src"] == "Basque"
    for source, folder in (("English", room), ("Basque", own)):
        sentences = texts(folder / "divide_1.jsonl", "sentence")
        for path in room.glob(f"{source}_to_*/translate_0.jsonl"):
            assert texts(path, "sentence") == sentences and len(sentences) == 2


METHODS = [
    ((), ""),
    (("--method_translate", "TEaR"), "_TEaR"),
    (("--method_translate", "cot"), "_cot"),
    (("--retriever_type", "LCS"), "_LCS"),
    (("--template_key", 9), "_template-9"),
    (("--temperature", 1.0, "--num_return_sequences", 2, "--selection_method", "chrf"), "_chrf_2-candidates_T=1.0"),
    (("--num_beams", 2), "_2-beams"),
    (("--number_of_refining_steps", 1), None),
]


def scored_runs(folder: Path) -> dict[Path, dict]:
    """The runs that comptra.evaluate scores, with what tells them apart; each must have a row of its own in the table."""
    scored = in_process("comptra.evaluate", folder, "--metrics", "chrf", "--json", folder / "report.json")
    assert scored.returncode == 0, scored.stderr
    [group] = json.loads((folder / "report.json").read_text())["groups"]
    table = scored.stdout.split("\n\n")[0].splitlines()[2:]
    assert len({re.split(r"\s+\d+\.\d\d", row)[0] for row in table}) == len(group["systems"])
    return {Path(system["path"]): system["columns"] for system in group["systems"]}


@pytest.mark.medium
def test_methods_in_one_output_dir(main_here, tiny_lm, tmp_path):
    """The default has the original's name, in whatever order they are run; each is found again."""
    plain = "English_to_Basque_2_shot_seed_122_llm_vanilla_None_0_0"
    names = {flags: f"{plain}{suffix}" if suffix is not None else f"{plain[:-1]}1" for flags, suffix in METHODS}
    for flags in (*reversed(METHODS[1:4]), *METHODS[:1], *METHODS[4:]):
        result = main_here("--output_dir", tmp_path, "--max_samples", 1, *flags[0])
        assert result.returncode == 0, result.stderr
        assert lines_in(tmp_path / Path(tiny_lm).name / names[flags[0]] / "translate_0.jsonl") == 1
    assert {path.parent.name for path in tmp_path.glob("*/*/translate_0.jsonl")} == set(names.values())
    for flags in names:
        again = main_here("--output_dir", tmp_path, "--max_samples", 1, *flags)
        assert again.returncode == 0 and "loading" not in again.stderr, again.stderr
    assert {path.name for path in scored_runs(tmp_path)} == set(names.values())


def test_a_folder_of_an_older_version_keeps_its_name(main_here, tiny_lm, tmp_path, monkeypatch):
    """It has the plain name whatever its method; another method then has one of its own, the default too."""
    monkeypatch.setattr("comptra.methods.conversation.THOUGHT_TOKENS", 24)
    flags = ("--output_dir", tmp_path, "--max_samples", 1)
    plain = tmp_path / Path(tiny_lm).name / "English_to_Basque_2_shot_seed_122_llm_vanilla_None_0_0"
    assert main_here(*flags, "--method_translate", "TEaR").returncode == 0
    plain.with_name(f"{plain.name}_TEaR").rename(plain)
    again = main_here(*flags, "--method_translate", "TEaR")
    assert again.returncode == 0 and "loading" not in again.stderr
    assert main_here(*flags).returncode == 0
    assert {path.name for path in plain.parent.iterdir() if path.is_dir()} == {plain.name, f"{plain.name}_vanilla"}
    assert main_here(*flags).returncode == 0, "it is found again"
    methods = {path.name: columns["method"] for path, columns in scored_runs(tmp_path).items()}
    assert methods == {plain.name: "TEaR", f"{plain.name}_vanilla": "few-shot"}


def test_a_dry_run_shows_all_directions(main_here, tmp_path):
    result = main_here("--output_dir", tmp_path / "out", *TABLE, "--dry_run")
    assert result.returncode == 0 and not (tmp_path / "out").exists()
    rows = re.findall(r"^tiny_lm, English to (\w+): translate 0 +4 prompts +(\S+)", result.stdout, re.M)
    assert [row[0] for row in rows] == list(TABLE[3:])
    assert re.search(r"^total ", result.stdout, re.M)
    assert result.stdout.count("sentences to") == 3 and result.stdout.count("English sentence\n") >= 3
    for language in TABLE[3:]:
        assert f"\n{language} translation" in result.stdout
    shared = main_here("--output_dir", tmp_path / "out", *TABLE, "--dry_run", "--steps", 1, "--max_samples", 2)
    assert shared.returncode == 0 and len(re.findall(r": divide 1 ", shared.stdout)) == 1, "divisions are shared"


def test_the_budget_is_of_all_directions(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    chosen = {"prompt_style": None, "inference_api": "openai", "dtype": None, "k": None, "max_new_tokens_merge": None}
    flags = options("org/chat", "--output_dir", tmp_path / "out", *TABLE, tgt=None, **chosen)
    with ApiServer(respond=lambda prompt: "Egun on guztioi.") as server:
        run = ("main.py", *flags, "--base_url", server.url("openai"), "--prices", 2.0, 8.0)
        probe = in_process(*run, "--max_samples", 1)
        assert probe.returncode == 0, probe.stderr
        assert re.search(r"^all: [\d,]+ prompt tokens, [\d,]+ new tokens; 0.00 USD", probe.stderr, re.M)
        manifests = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/*/manifest_translate.json")]
        each = sum(manifest["usage"]["usd"] for manifest in manifests) / 3
        ended = in_process(*run, "--budget", 6.5 * each)
        assert ended.returncode == 4 and "could exceed --budget" in ended.stderr
        assert 5 <= sum(lines_in(path) for path in (tmp_path / "out").glob("*/*/answers.jsonl")) <= 7
        assert in_process(*run, "--budget", 100 * each).returncode == 0
        assert all(len(records(path)) == 4 for path in (tmp_path / "out").glob("*/*/translate_0.jsonl"))
