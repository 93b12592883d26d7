"""p values, confidence intervals and their marks: those of sacreBLEU, or as their definitions have them."""

import csv
import json

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from comptra import evaluation_sets
from comptra.scores import metrics
from comptra.significance import compared, resampling
from comptra.tables import export
from comptra.verify import verify
from tests.support.evaluations import RUN, UDHR, ntrex_sides, original, paired, settings, udhr, worse, write
from tests.support.significance import randomization_p_values
from topxgen.text import languages


def test_p_values_are_sacrebleus(ntrex, tmp_path, score, monkeypatch):
    sources, references = ntrex_sides(ntrex, 120)
    base = worse(references, 0.25)
    systems = [worse(references, share, seed) for seed, share in ((1, 0.25), (2, 0.235), (3, 0.27))]
    trials = 1000
    expected = paired(base, systems, references, trials)
    assert any(0.01 < p < 0.9 for p in expected["bleu"] + expected["chrf"])
    files = [tmp_path / "src.txt", tmp_path / "ref.txt"]
    for path, side in zip(files, (sources, references), strict=True):
        path.write_text("\n".join(side) + "\n", encoding="utf-8")
    folders = [
        write(tmp_path / f"m{i}" / "run", sources, texts, settings("files")) for i, texts in enumerate([base, *systems])
    ]
    args = (
        *folders[1:],
        "--baseline",
        folders[0],
        "--test_files",
        *files,
        "--trials",
        trials,
        "--json",
        tmp_path / "out.json",
    )

    for block in (1 << 22, 1):  # trials in one block, then 32 at a time
        monkeypatch.setattr(resampling, "_BLOCK", block)
        code, _, said = score(*args)
        assert code == 0, said
        (group,) = json.loads((tmp_path / "out.json").read_text())["groups"]
        for name, column in expected.items():
            found = [system["scores"][name] for system in group["systems"][1:]]
            assert [value["p"] for value in found] == column
            assert [value["p_holm"] for value in found] == resampling.holm(column)


def test_p_is_exact_where_few_segments_differ():
    """Two segments that differ: four ways to swap them, and two of these are the systems themselves."""
    base = [np.array([[1.0, 1], [0, 1], [1, 1], [0, 1]])]
    other = [np.array([[0.0, 1], [0, 1], [0, 1], [0, 1]])]
    p_values = randomization_p_values(base, [other], [metrics.mean_scores], 20000)
    assert p_values[0, 0] == pytest.approx(0.5, abs=0.015)


def test_p_values_hold_their_level():
    """Under the null hypothesis p < 0.05 comes in about 5% of the tests."""
    chance = np.random.default_rng(5)
    found = []
    for _ in range(300):
        base, system = ([np.column_stack([chance.normal(size=40), np.ones(40)])] for _ in range(2))
        found.append(randomization_p_values(base, [system], [metrics.mean_scores], 400)[0, 0])
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.09


def test_equal_systems_and_one_sentence_are_no_difference(tmp_path, score):
    test = udhr()
    texts = worse(test.references, 0.2)
    for model in ("base", "same"):
        original(tmp_path, model, texts)
    write(tmp_path / "short-base" / "run", test.sources[:1], ["bai"], settings(max_samples=1))
    write(tmp_path / "short" / "run", test.sources[:1], test.references[:1], settings(max_samples=1))
    for base, system in (("base", "same"), ("short-base", "short")):
        out = tmp_path / "out.json"
        options = (*UDHR, "--baseline", tmp_path / base, "--trials", 500, "--bootstrap", 100, "--json", out)
        code, shown, said = score(tmp_path / system, *options)
        assert code == 0, said
        (group,) = json.loads(out.read_text())["groups"]
        values = group["systems"][1]["scores"].values()
        assert [value["p"] for value in values] == [1, 1, 1]
        row = next(line for line in shown.splitlines() if line.startswith(f"{system} "))
        assert "+" not in row and "]-" not in row
    assert values and all(value["interval"] == pytest.approx([value["score"]] * 2) for value in values)


def test_bootstrap_intervals_are_sacrebleus(ntrex):
    sources, references = ntrex_sides(ntrex)
    texts = worse(references, 0.3)
    test = metrics.Test(languages.find("English"), languages.find("Basque"), sources, references)
    for name, metric in (("bleu", BLEU(tokenize="13a")), ("chrf", CHRF(word_order=2))):
        scorer = metrics.create(name, test, metrics.MetricSettings(tokenize="13a"))
        low, high = resampling.interval(
            resampling.resampled_scores([scorer.statistics(texts)], [scorer.scores], 1000)[0]
        )
        expected = metric.corpus_score(texts, [references], n_bootstrap=1000)
        assert (high - low) / 2 == pytest.approx(expected._ci, rel=0.1)
        assert (high + low) / 2 == pytest.approx(expected._mean, abs=0.1)


def test_holm_by_hand():
    assert resampling.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert resampling.holm([0.9, 0.8]) == [1, 1]
    assert resampling.holm([0.2]) == [0.2]
    # The smallest by the number of tests, the next by one less; none smaller than a smaller one's.
    assert resampling.holm([0.02, 0.011, 0.03, 0.5]) == pytest.approx([0.06, 0.044, 0.06, 0.5])
    assert resampling.holm([0.01, 0.01]) == pytest.approx([0.02, 0.02])
    assert resampling.holm([]) == []


def random_statistics(segments: int, seed: int) -> np.ndarray:
    return np.column_stack([np.random.default_rng(seed).normal(size=segments), np.ones(segments)])


@pytest.mark.parametrize("block", [1 << 22, 1])
def test_p_counts_the_trials_that_differ_at_least_as_much(monkeypatch, block):
    """Each trial by itself, in a loop; two systems and two metrics, of which one is the other upside down."""
    monkeypatch.setattr(resampling, "_BLOCK", block)
    trials, segments = 200, 7
    base, *systems = (random_statistics(segments, seed) for seed in range(3))
    functions = [metrics.mean_scores, lambda sums: -metrics.mean_scores(sums)]
    p_values = randomization_p_values([base] * 2, [[s] * 2 for s in systems], functions, trials, seed=3)
    swaps = np.random.default_rng(3).integers(2, size=(trials, segments), dtype=bool)
    for row, system in zip(p_values, systems, strict=True):
        observed = abs(base[:, 0].mean() - system[:, 0].mean())
        extreme = 0
        for swap in swaps:
            one, other = (
                np.where(swap, a, b).mean() for a, b in ((base[:, 0], system[:, 0]), (system[:, 0], base[:, 0]))
            )
            extreme += abs(one - other) >= observed - 1e-12
        assert 1 < extreme < trials - 1
        assert row.tolist() == [(extreme + 1) / (trials + 1)] * 2


def test_p_is_never_zero_and_one_for_equal_systems():
    """Add-one smoothing: with no trial as extreme, p is 1 / (trials + 1)."""
    low, high = (np.column_stack([np.full(60, value), np.ones(60)]) for value in (0.0, 1.0))
    p_values = randomization_p_values([low], [[high], [low]], [metrics.mean_scores], 99)
    assert p_values.tolist() == [[0.01], [1.0]]


@pytest.mark.parametrize("block", [1 << 22, 1])
def test_bootstrap_intervals_are_percentiles_of_resampled_scores(monkeypatch, block):
    monkeypatch.setattr(resampling, "_BLOCK", block)
    stats, samples = random_statistics(9, 1), 40
    drawn = np.random.default_rng(5).integers(9, size=(samples, 9))
    expected = np.percentile([100 * stats[rows, 0].mean() for rows in drawn], (2.5, 97.5))
    low, high = resampling.interval(resampling.resampled_scores([stats], [metrics.mean_scores], samples, seed=5)[0])
    assert (low, high) == pytest.approx(tuple(expected)) and low < 100 * stats[:, 0].mean() < high


def report_of(p: float, p_holm: float, difference: float) -> dict:
    """Two systems; the second differs from the first with these p-values."""
    row = {"path": "a", "sentences": 2, "missing": 0, "unanswered": 0, "empty": 0, "scores": {"bleu": {"score": 20.0}}}
    value = {"score": 20 + difference, "difference": difference, "p": p, "p_holm": p_holm}
    value["better"] = compared.better(value, True)
    other = row | {
        "name": "b",
        "path": "b",
        "scores": {"bleu": value},
    }
    group = {"dataset": "d", "src": "s", "tgt": "t", "step": 0, "sentences": 2, "baseline": "a"}
    group |= {"titles": {"bleu": "BLEU"}, "signatures": {"bleu": "x"}, "systems": [row | {"name": "a"}, other]}
    return {"trials": 9, "bootstrap": 0, "seed": 1, "groups": [group]}


@pytest.mark.parametrize("p, p_holm, is_marked", [(0.0499, 0.0499, True), (0.05, 0.05, False), (0.01, 0.06, False)])
@pytest.mark.parametrize("difference, mark", [(1.0, "+"), (0.001, "+"), (-1.0, "-"), (-0.001, "-")])
def test_better_and_worse_scores_have_marks_of_their_own(p, p_holm, is_marked, difference, mark):
    """Only with a corrected p below 5 percent."""
    report = report_of(p, p_holm, difference)
    shown = export.terminal(report)
    (row,) = [line for line in shown.splitlines() if line.startswith("b ")]
    assert row.split()[1].rstrip("^") == f"{20 + difference:.2f}{mark if is_marked else ''}"
    assert (
        f"{mark} significantly {'better' if mark == '+' else 'worse'} than the baseline (p < 0.05)" in shown
    ) == is_marked
    (_, other) = csv.DictReader(export.csv_text(report).splitlines())
    assert float(other["bleu_difference"]) == difference and float(other["bleu_p"]) == p
    assert other["bleu_mark"] == (mark if is_marked else "")


def test_a_worse_system_is_not_marked_as_a_better_one(score, tmp_path):
    test = evaluation_sets.load("udhr", *map(languages.find, ("English", "Basque")), folder=None, max_samples=None)
    write(tmp_path / "good" / "run", test.sources, test.references, settings())
    write(tmp_path / "bad" / "run", test.sources, ["bai"] * len(test.sources), settings())
    for system, base, mark, other in (("good", "bad", "+", "-"), ("bad", "good", "-", "+")):
        out = tmp_path / "out.json"
        options = ("--metrics", "bleu", "chrf", "--trials", 200, "--json", out)
        code, shown, said = score(tmp_path / system, *UDHR, "--baseline", tmp_path / base, *options)
        assert code == 0, said
        row = next(line for line in shown.splitlines() if line.startswith(f"{system} "))
        assert row.count(mark) == 2 and f"{other} " not in row
        (group,) = json.loads(out.read_text())["groups"]
        assert all((value["difference"] > 0) == (mark == "+") for value in group["systems"][1]["scores"].values())


def test_means_over_directions_and_parts_of_a_test_set_are_computed_again(tmp_path, score):
    for model, tgt, lines in (("m", "Basque", None), ("m", "Hausa", None), ("unfinished", "Basque", 5)):
        test = udhr(tgt=tgt)
        folder = tmp_path / model / RUN.format("English", tgt)
        write(folder, test.sources[:lines], worse(test.references, 0.2)[:lines])
        (folder / "settings_translate.json").write_text(json.dumps(settings(tgt=tgt)))
    report = tmp_path / "scores.json"
    code, *_ = score(
        tmp_path, "--metrics", "chrf", "--max_samples", 9, "--trials", 20, "--allow_partial", "--json", report
    )
    assert code == 0
    (summary,) = json.loads(report.read_text())["summary"]
    assert len(summary["systems"]) == 1 and summary["groups"] == summary["of"] == 2
    audit = verify(tmp_path)
    assert not audit.problems and not audit.unchecked
    content = json.loads(report.read_text())
    (name,) = summary["systems"]
    both = {name: {"groups": 0}, name.replace("m/", "unfinished/", 1): {"groups": 0}}
    content["summary"][0] |= {"of": 3, "systems": both}
    (tmp_path / "older.json").write_text(json.dumps(content))  # of a version that counted parts of a test set
    assert len(content["groups"]) == 3 and not verify(tmp_path).problems
    report.write_text(report.read_text().replace('"mean": ', '"mean": 1', 1))
    assert any(".mean: claimed 1" in str(problem) for problem in verify(tmp_path).problems)
