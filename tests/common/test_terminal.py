"""What reaches the terminal: no control characters and no secrets from outside, whatever its encoding."""

import ast
import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.support.documentation import parser_of
from tests.support.main_runs import options
from tests.support.runs import ROOT, in_process
from topxgen.common import provenance
from topxgen.common.console import without_secrets

KEY = "sk-live-0123456789abcdefABCDEF"
SCRIPTS = ("datagen.py", "decontamination.py", "main.py", "train.py", "-m comptra.evaluate")
EVIL = "a\x1b]0;owned\x07\x1b[31mb\u202ec\rd\ne"


def run(command: str, *args, cwd=ROOT, **env) -> subprocess.CompletedProcess:
    words = [ROOT / word if word.endswith(".py") else word for word in command.split()]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run([sys.executable, *words, *map(str, args)], cwd=cwd, env=env, capture_output=True, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "words",
    [
        ["--api_ke", KEY],
        [f"--api_ke={KEY}"],
        [f"--api-key={KEY}"],
        ["--api-key", KEY],
        ["-api_key", KEY],
        ["-k", KEY],
        ["--token", KEY],
        ["--api_key", "--my-0123456789-key"],
        ["-api_key", "--my-0123456789-key"],
        [f"--api_key{KEY}"],
        [KEY],
        ["--seed", KEY],
        ["--languages", "Basque", KEY, "--nonsense"],
    ],
    ids=" ".join,
)
def test_a_mistyped_key_is_never_shown(script, words):
    result = in_process(script.removeprefix("-m "), *words)
    assert result.returncode == 2 and "0123456789" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    "words, says",
    [
        (["--seed_topics_path", "a.txt", "b.txt"], "'b.txt' (--seed_topics_path takes one value); see"),
        (["--max_new_tokens=9", "b"], "'b' (--max_new_tokens takes one value); see"),
        (["--api_key", "sk", "b"], "1 unexpected argument (--api_key takes one value); see"),
    ],
)
def test_a_stray_word_is_shown_with_the_flag_before_it(words, says):
    assert says in in_process("datagen.py", "--languages", "Basque", "--output_dir", "o", *words).stderr


def test_secrets_in_urls():
    shown = without_secrets(f"at https://me:pass@host/v1?api_key=abc&model=x&X-Amz-Signature=def#top and key {KEY}")
    assert shown == "at https://***@host/v1?api_key=***&model=x&X-Amz-Signature=***#top and key ***"
    plain = "https://host/v1?model=x&template=2 sk-learn a@b.c user@host: x"
    assert without_secrets(plain) == plain


def test_secrets_in_urls_reach_no_settings(tmp_path, monkeypatch):
    path = tmp_path / "settings.json"
    path.write_text('{"base_url": "http://host#api_key=old"}')  # of an older version
    settings = {"base_url": "http://host#api_key=new"}
    provenance.check_settings(path, settings)
    provenance.record_settings(path, settings)
    assert path.read_text() == '{\n  "base_url": "http://host#api_key=***"\n}\n'
    monkeypatch.setattr("sys.argv", ["main.py", "--base_url", "http://host?api_key=new", "--api_key", "x"])
    assert provenance.command_line(("--api_key",))[2:] == ["http://host?api_key=***", "--api_key", "***"]


@pytest.mark.parametrize(
    "script, flags",
    [
        ("datagen.py", ("--languages", EVIL, "--output_dir", "o")),
        ("datagen.py", ("--languages", "Basque", "--output_dir", "o", "--seed", EVIL)),
        ("datagen.py", ("--languages", "Basque", "--output_dir", "o", "--scorer", EVIL)),
        ("datagen.py", (f"--{EVIL}",)),
        ("datagen.py", ("--languages", "Basque", EVIL)),
        ("decontamination.py", ("--input_dir", EVIL)),
        ("decontamination.py", ("--input_dir", "in", "--benchmarks", EVIL)),
        pytest.param("main.py", ("--model_name_or_path", EVIL, "--inference_api", "hf", "--dataset_name_or_path", "udhr", "--tgt", "Basque", "--output_dir", "o"), marks=pytest.mark.medium),
        ("main.py", ("--tgt", EVIL, "--output_dir", "o")),
        pytest.param("train.py", ("--model_name_or_path", "m", "--dataset_name_or_path", EVIL, "--output_dir", "o", "--target_languages", "Basque"), marks=pytest.mark.medium),
        ("-m comptra.evaluate", (EVIL,)),
        ("-m comptra.evaluate", ("in", "--metrics", EVIL)),
    ],
)  # fmt: skip
def test_control_characters_never_reach_the_terminal(tmp_path, monkeypatch, script, flags):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"{EVIL}_translate.jsonl").write_text("{")
    monkeypatch.chdir(tmp_path)
    result = in_process(script.removeprefix("-m "), *flags)
    assert result.returncode == 2
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", result.stdout + result.stderr)
    assert result.stderr.count("\n") <= 2, result.stderr


TERMINALS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "C": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.mark.parametrize(
    "terminal",
    [
        pytest.param(name, marks=pytest.mark.medium if name in ("ascii", "C") else pytest.mark.slow)
        for name in TERMINALS
    ],
)
def test_terminals_that_are_not_utf_8(tmp_path, terminal):
    env = TERMINALS[terminal]
    (tmp_path / "topics.txt").write_text("Euskal Herria, ñ, नेपाली, 中文\n", encoding="utf-8")
    for script in SCRIPTS:
        assert run(script, "--help", **env).returncode == 0
        result = run(script, "--नेपाली", **env)
        assert result.returncode == 2 and b"Traceback" not in result.stderr
    folder = tmp_path / "नेपाली ñ"
    dry = run(
        "datagen.py", "--dry_run", "--languages", "Nepali", "Basque", "--inference_api", "openai", "--api_key", "x", "--number_of_instructions", 4,
        "--model_name_or_path", "writer", "--seed_topics_path", tmp_path / "topics.txt", "--output_dir", folder, "--example_paragraphs", "udhr",
        "--number_of_icl_demonstrations", 1, "--use_nllb", "--scorer", "none", "--stages", "generate", **env,
    )  # fmt: skip
    assert dry.returncode == 0, dry.stderr
    run_folder = folder / "model" / "English_to_Nepali_0_shot_seed_1_llm_vanilla_None_0_0"
    run_folder.mkdir(parents=True)
    (run_folder / "translate_0.jsonl").write_text("", encoding="utf-8")
    evaluated = run("-m comptra.evaluate", folder, "--dataset_name_or_path", "udhr", "--allow_partial", **env)
    assert evaluated.returncode in (0, 2, 3) and b"Traceback" not in evaluated.stderr
    pairs = '{"sentence": "नेपाली", "propositions": ["नेपाली"], "translations": ["ñ"]}\n'
    (folder / "Nepali_translate.jsonl").write_text(pairs, encoding="utf-8")
    cleaned = run("decontamination.py", "--input_dir", folder, "--benchmarks", "udhr", **env)
    assert cleaned.returncode in (0, 3), cleaned.stderr
    trained = run(
        "train.py", "--dry_run", "--model_name_or_path", folder, "--dataset_name_or_path", "udhr", "--target_languages", "Nepali",
        "--output_dir", folder / "t", **env,
    )  # fmt: skip
    assert trained.returncode == 2 and b"Traceback" not in trained.stderr
    shown = run("main.py", *options(str(folder), "--dry_run", tgt="Nepali"), "--output_dir", folder / "o", **env)
    assert shown.returncode in (0, 2) and b"Traceback" not in shown.stderr


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&- <&-"])
def test_closed_streams(tmp_path, closed):
    """Their numbers are those of the next files that are opened: nothing may be printed there."""
    code = (
        "import os, sys; from topxgen.common.console import setup_logging, show; setup_logging('x'); "
        "file = open('data', 'w'); assert file.fileno() > 2; os.system('echo engine'); show('shown')"
    )
    command = f"{sys.executable} -c {shlex.quote(code)} {closed}"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, check=False)
    assert result.returncode == 0 and (tmp_path / "data").read_text() == "", result.stderr


def test_nothing_else_prints():
    standalone = {"console.py", "comet_worker.py", "sonar_space.py"}  # the last two run in an environment of their own
    for path in [*ROOT.glob("topxgen/**/*.py"), *ROOT.glob("comptra/**/*.py"), *ROOT.glob("*.py")]:
        calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        assert path.name in standalone or not any(getattr(call, "id", "") == "print" for call in calls), path


@pytest.mark.parametrize(
    "script, codes",
    [
        ("datagen.py", [0, 2, 3, 4, 130, 141, 143]),
        ("main.py", [0, 2, 3, 4, 130, 141, 143]),
        ("decontamination.py", [0, 2, 3, 130, 141, 143]),
        ("train.py", [0, 2, 130, 141, 143]),
        ("-m comptra.evaluate", [0, 2, 3, 130, 141, 143]),
    ],
)
def test_help_lists_the_exit_codes_of_the_script(script, codes):
    _, _, listed = in_process(script.removeprefix("-m "), "--help").stdout.partition("exit codes:\n")
    assert [int(line.split()[0]) for line in listed.splitlines()] == codes


@pytest.mark.parametrize(
    "script, words, says",
    [
        ("datagen.py", ["--languages_file", ""], "--languages_file is empty"),
        ("datagen.py", ["--languages", "Basque", ""], "--languages is empty"),
        ("datagen.py", ["--cache_dir="], "--cache_dir is empty"),
        ("main.py", ["--base_url", ""], "--base_url is empty"),
        ("decontamination.py", ["--input_dir", "x", "--tokenizer=--"], "argument --tokenizer: '--' is no value"),
        ("scripts/sample.py", ["x", "-n=--"], "argument -n: '--' is no value"),
        ("train.py", ["--lr_scheduler_kwargs", "[" * 5000], "is not a JSON object"),
        ("-m comptra.evaluate", ["outputs", ""], "an argument is empty"),
        ("-m comptra.evaluate", ["outputs", "--baseline", ""], "--baseline is empty"),
        ("main.py", ["--seed", str(2**32)], "is not a whole number from 0 to 4294967295"),
        ("main.py", ["--top_p", "nan"], "is not a number from 0.001 to 1"),
        ("main.py", ["--temperature", "inf"], "is not a number of 0 or more"),
        ("main.py", ["--num_beams", "99999999"], "is not a whole number from 1 to 1024"),
        ("main.py", ["--max_new_tokens", "9" * 5000], "is not a whole number"),
        ("main.py", ["--k", "-1"], "is not a whole number of 0 or more"),
        ("main.py", ["--request_batch_size", "0"], "is not a whole number from 1 to"),
        ("main.py", ["--max_new_tokens", "1e3"], "is not a whole number from 1 to"),
    ],
)  # fmt: skip
def test_values_out_of_bounds_and_empty_ones(script, words, says):
    result = in_process(script.removeprefix("-m "), *words)
    error = result.stderr
    assert result.returncode == 2 and says in error and error.count("\n") == 1 and len(error) < 1200


@pytest.mark.parametrize(
    "script, words, dest",
    [
        ("comptra.evaluate", ["--allow_partial", "outputs"], "dirs"),
        ("scripts/run.py", ["--dry_run", "run.yaml", "--allow_incomplete", "false"], "file"),
        ("scripts/prefetch.py", ["--check", "a.yaml", "b.yaml"], "files"),
    ],
)
def test_a_switch_leaves_a_positional_argument_behind_it_alone(script, words, dest):
    parsed = parser_of(script).parse_args(words)
    values = getattr(parsed, dest)
    assert getattr(parsed, words[0][2:]) is True and getattr(parsed, "allow_incomplete", False) is False
    given = words[1 : words.index("--allow_incomplete") if "--allow_incomplete" in words else None]
    assert list(map(str, values if isinstance(values, list) else [values])) == given
