"""Scores of checkpoints against steps."""

import json

import pytest

from comptra.tables import series
from tests.support.evaluations import settings, udhr, worse, write
from tests.support.runs import in_process
from tests.support.score_reports import group, report, system, value
from topxgen.common.errors import UsageError

RUN = "English_to_{}_0_shot_seed_122_llm_vanilla_None_0_0"


def checkpoints(training: str, language: str, scores: dict[int, float | None], interval: bool = False) -> list[dict]:
    rows = []
    for step, score in scores.items():
        more = {"interval": [score - 1, score + 2]} if interval else {}
        row = system("few-shot", "English", language, {"chrf": None if score is None else value(score, **more)})
        rows.append(row | {"path": f"{training}/checkpoint-{step}/{RUN.format(language)}"})
    return rows


def test_points_are_in_the_order_of_steps_with_intervals():
    base, other = (system(name, "English", "Igbo", {"chrf": value(n)}) for name, n in (("zero-shot", 20), ("nllb", 10)))
    rows = checkpoints("o/$a_b", "Igbo", {1000: 40.0, 200: 30.0}, interval=True)
    (panel,) = series.panels(report(group("English", "Igbo", [base, other, *rows], ["chrf"])))
    (one,) = panel.series
    assert (panel.title, panel.axis, one.label) == ("chrF++, flores", "chrF++", "English to Igbo")
    assert one.points == [(200, 30.0, 29.0, 32.0), (1000, 40.0, 39.0, 42.0)] and panel.baselines == {
        "English to Igbo": 20
    }


@pytest.mark.parametrize("more", [{}, {"dataset": "files", "sentences": 100}], ids=["parts", "files"])
def test_test_sets_of_one_direction_have_baselines_of_their_own(more):
    groups = []
    for count, score in ((100, 20), (1012, 30)):
        facts = {"test": {"sources": {"from": f"/{count}.txt"}}}
        rows = [
            system("zero-shot", "English", "Igbo", {"chrf": value(score)}),
            *checkpoints("o/a", "Igbo", {1: 1.0, 2: 2.0}),
        ]
        described = {"sentences": count, "sources_digest": str(count), "test_set": facts} | more
        groups.append(group("English", "Igbo", rows, ["chrf"], **described))
    (panel,) = series.panels(report(*groups))
    assert [panel.baselines[one.direction] for one in panel.series] == [20, 30]


def test_trainings_and_directions_are_lines_of_their_own():
    rows = [*checkpoints("o/a/t", "Igbo", {1: 1.0, 2: 2.0}), *checkpoints("o/b/t", "Igbo", {1: 3.0, 2: None, 3: 4.0})]
    made = report(
        group("English", "Igbo", rows, ["chrf"]), group("English", "Urdu", checkpoints("o/a/t", "Urdu", {1: 5.0}))
    )
    (panel,) = series.panels(made)
    assert [[point[:2] for point in one.points] for one in panel.series] == [[(1, 1.0), (2, 2.0)], [(1, 3.0), (3, 4.0)]]
    assert [one.label.split(", ")[1] for one in panel.series] == ["a/t", "b/t"]


def test_without_checkpoints_there_is_a_line_of_explanation(tmp_path):
    rows = [system("few-shot", "English", "Igbo", {"chrf": value(1)}), *checkpoints("o/a", "Igbo", {1: 1.0})]
    with pytest.raises(UsageError, match="no two of the systems are checkpoints of one training"):
        series.plot(report(group("English", "Igbo", rows, ["chrf"])), tmp_path / "p.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_command_plots_what_it_scores(tmp_path, suffix, start):
    test, runs = udhr(), tmp_path / "a$b_c"
    for step, share in ((10, 0.5), (20, 0.2), (100, 0.1)):
        write(
            runs / f"checkpoint-{step}" / RUN.format("Basque"), test.sources, worse(test.references, share), settings()
        )
    files = tmp_path / f"p{suffix}", tmp_path / "s.json"
    result = in_process("comptra.evaluate", runs, "--metrics", "bleu", "chrf", "--bootstrap", "50", "--trials", "50",
                        "--plot", files[0], "--json", files[1])  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert files[0].read_bytes().startswith(start)
    made = series.panels(json.loads(files[1].read_text()))
    assert [panel.title for panel in made] == ["chrF++, udhr", "BLEU, udhr"]
    steps, scores, low, high = zip(*made[0].series[0].points, strict=True)
    assert steps == (10, 20, 100) and sorted(scores) == list(scores) and low < scores < high


def test_a_plot_that_cannot_be_is_refused_and_loses_nothing(tmp_path):
    test = udhr()
    write(tmp_path / "m" / RUN.format("Basque"), test.sources, test.references, settings())
    result = in_process("comptra.evaluate", tmp_path, "--plot", tmp_path / "p.jpeg")
    assert result.returncode == 2 and "a plot is .png, .svg, .pdf" in result.stderr and not result.stdout
    options = ("--plot", tmp_path / "p.png", "--csv", tmp_path / "s.csv")
    result = in_process("comptra.evaluate", tmp_path, "--metrics", "chrf", *options)
    assert result.returncode == 2 and "is not written" in result.stderr and (tmp_path / "s.csv").is_file()
