"""Every example of docs/extending.md, in a folder of its own: the files that it shows, then its command."""

import contextlib
import json
import re
from pathlib import Path

import pytest

from tests.support.documentation import make_workplace, script_and_arguments, words_of
from tests.support.runs import ROOT, in_process, records
from topxgen.text import languages

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_lm) -> Path:
    folder = tmp_path_factory.mktemp("extending")
    make_workplace(folder, tiny_lm)
    return folder


@pytest.fixture(scope="module")
def run(workplace):
    """Run the example of a section; its output."""
    paragraphs = workplace / "outputs" / "mine" / "Basque.jsonl"
    paragraphs.parent.mkdir(parents=True)
    texts = [line.split("\t")[1] for line in (ROOT / "data/udhr/eus_Latn.tsv").read_text("utf-8").splitlines()[:9]]
    paragraphs.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")

    def run(title: str) -> str:
        section = SECTIONS[title]
        for name, content in re.findall(r"^```\w+ (\S+)\n(.*?)^```$", section, re.M | re.S):
            (workplace / name).write_text(content, encoding="utf-8")
        (command,) = re.findall(r"^```bash\n(.*?)^```$", section, re.M | re.S)
        script, words = script_and_arguments(words_of(command.replace("\\\n", " ")))
        with contextlib.chdir(workplace):
            result = in_process(script, *words)
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        return result.stdout + result.stderr

    return run


def test_the_page_shows_all_nine():
    kinds = ["filter", "pipeline", "merge prompt", "metric", "metric of segments", "retriever", "back-translator"]
    kinds += ["benchmark", "language"]
    assert [title.split(maxsplit=1)[1].removeprefix("generation ") for title in SECTIONS][:9] == kinds
    for section in list(SECTIONS.values())[:9]:
        code = re.findall(r"^```(?:python|toml|tsv) .*?\n(.*?)^```$", section, re.M | re.S)
        assert code and all(len(block.splitlines()) <= 20 for block in code)


def test_a_filter(run, workplace):
    run("A generation filter")
    folder = workplace / "outputs" / "filter"
    assert len(records(folder / "Basque.jsonl")) >= 4
    settings = json.loads((folder / "settings_generate.json").read_text())
    assert any("too_many_digits" in str(value) for value in settings.values())
    from topxgen.generation.filters import load_filters, reject_reason

    filters = load_filters([f"{workplace / 'my_filters.py'}:too_many_digits"])
    reason = reject_reason("1848 1849 1850", languages.find("Basque"), filters)
    assert reason == "too_many_digits (86% digits)"


def test_a_pipeline(run, workplace):
    run("A generation pipeline")
    kept = records(workplace / "outputs" / "pipeline" / "Basque.jsonl")
    assert len(kept) >= 4 and all(record["topic"].startswith("story ") for record in kept)


def test_a_merge_prompt(run, workplace):
    run("A merge prompt")
    (folder,) = (workplace / "outputs" / "merge").glob("*/English_to_Basque_*_my_merge_*")
    assert len(records(folder / "translate_0.jsonl")) == 2
    settings = (folder / "settings_translate.json").read_text()
    assert "my_merge" in settings


def test_a_metric(run):
    assert re.search(r"chrF\+\+.*words %", run("A metric"))


def test_a_metric_of_segments(run, workplace):
    assert re.search(r"chrF\+\+.*length", run("A metric of segments"))
    rows = records(workplace / "segments.jsonl")
    assert rows and all(0 < row["my_neural_metric.py:LengthRatio"] <= 1 for row in rows if row["translation"])


def test_a_retriever(run, workplace):
    run("A retriever")
    (path,) = (workplace / "outputs" / "retriever").glob("*/*/translate_0.jsonl")
    assert len(records(path)) == 2
    assert "SimilarLength" in (path.parent / "settings_translate.json").read_text()


def test_a_back_translator(run, workplace):
    run("A back-translator")
    folder = workplace / "outputs" / "mine" / "word-list"
    assert len(records(folder / "Basque_translate.jsonl")) == 9
    assert '"word_list": 1' in (folder / "settings_translate.json").read_text()


def test_a_benchmark(run, workplace):
    output = run("A benchmark")
    assert re.search(r"my\.tsv", output)
    report = json.loads((workplace / "outputs/demo/apertium/decontamination_audit.json").read_text())
    assert {row["benchmark"] for row in report["benchmarks"]["Basque"]} == {"udhr", "my.tsv:Basque=2,English=3"}


def test_a_language(run):
    assert "Lower Sorbian" in run("A language")
