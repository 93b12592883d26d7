"""scripts/verify.py computes every figure of data_stats.py again, or says in a line that it did not."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from comptra import verify
from tests.statistics.conftest import make_run
from tests.statistics.test_judge import Judge
from tests.support.api_server import KEY
from tests.support.runs import in_process

STATS = "stats.json"
# Figures, and the words by which a problem names them.
FIGURES = {
    "tokens_of_sentences": "counts of",
    "tokens_of_translations": "counts of",
    "vendi_score": "translations of",
    "self_bleu": "translations of",
    "covered": "topics of",
    "coverage": "topics of",
    "not_in_file": "topics of",
    "yes": "judge of",
    "share": "judge of",
    "low": "judge of",
}


@pytest.fixture(scope="module")
def original(tiny_lm, tmp_path_factory) -> Path:
    """A run with statistics of every kind: tokens, a Vendi score of the English side, a list of topics, a judge."""
    run_folder = make_run(tmp_path_factory.mktemp("described") / "run")
    topics = run_folder / "topics.jsonl"
    rows = [("Tides", "Nature"), ("Chess", "Games"), ("Go", "Games"), ("Basalt", "Nature")]
    topics.write_text("".join(json.dumps({"topic": topic, "category": name}) + "\n" for topic, name in rows))
    with Judge(run_folder) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        result = in_process(
            "scripts/data_stats.py", run_folder, "--stage", "pairs", "--json", run_folder / STATS, "--tokenizer", tiny_lm, "--encoder",
            "use", "--sample", 3, "--seed_topics_path", topics, "--judge_model_name_or_path", "judge-1", "--inference_api", "openai",
            "--base_url", server.url("openai"), "--output_dir", run_folder / "judge",
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    shutil.copytree(run_folder, run_folder.parent / "copy")
    return run_folder


@pytest.fixture
def described(original) -> Iterator[Path]:
    """At the place that its files name; whole again after the test."""
    yield original
    shutil.rmtree(original)
    shutil.copytree(original.parent / "copy", original)


def verified(folder: Path) -> tuple[list[str], list[str]]:
    """What does not hold, besides the SHA-256 of the edited file, and what was not checked."""
    audit = verify.verify(folder)
    found = [f"{one.what}: {one}" for one in audit.problems if one.file.endswith(STATS) and "SHA-256" not in one.what]
    return found, audit.unchecked.get(str(folder / STATS), [])


def edit_settings(folder: Path, **changes) -> None:
    content = json.loads((folder / STATS).read_text())
    content["settings"] |= changes
    (folder / STATS).write_text(json.dumps(content, indent=2))


@pytest.mark.medium
def test_a_changed_digit_of_any_figure_is_found(described):
    assert verified(described) == ([], [])
    text = (described / STATS).read_text()
    for figure in FIGURES:  # the last one: of the translations and of the judge's control
        places = list(re.finditer(rf'"{figure}": [0.]*(\d)', text))
        place = places[-1].start(1)
        text = f"{text[:place]}{2 if text[place] == '1' else 1}{text[place + 1 :]}"
    (described / STATS).write_text(text)
    found, _ = verified(described)
    for figure, words in FIGURES.items():
        assert any(line.startswith(words) and f".{figure}: " in line for line in found), (figure, found)


def test_a_changed_response_of_the_judge(described):
    edit_settings(described, encoder=None)  # quicker
    responses = next((described / "judge").glob("*.jsonl"))
    responses.write_text(responses.read_text().replace('"no"', '"yes"', 1))
    found, _ = verified(described)
    assert any(line.startswith("judge of ") for line in found)


def test_what_cannot_be_computed_again_is_a_line(described):
    edit_settings(described, encoder="use 0.1 other", tokenizer="no/such-model")
    shutil.rmtree(described / "judge")
    (described / "topics.jsonl").write_text('{"topic": "Tides"}\n')
    found, lines = verified(described)
    assert not found
    for what in ("Vendi scores", "numbers of tokens", "shares of a list of topics", "the judge's shares"):
        assert any(line.startswith(f"{what}: not computed again: ") for line in lines), (what, lines)
    result = in_process("scripts/verify.py", described)
    assert "Vendi scores: not computed again: the encoder was use 0.1 other, here it is use" in result.stdout


def test_an_encoder_that_is_code_is_not_run(described, tmp_path):
    code = tmp_path / "mine.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    edit_settings(described, encoder=f"{code}:Mine")
    found, lines = verified(described)
    assert any("is none of sonar, use" in line for line in lines) and not (tmp_path / "ran").exists()
    assert not found
