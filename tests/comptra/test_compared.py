"""Significance in the report of comptra.evaluate: both tests, intervals, directions, clusters, languages, seeds, missing scores."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from comptra.scores import metrics
from comptra.scores.systems import system_names
from comptra.significance import over_seeds, resampling, seeds
from comptra.significance.compared import top_cluster
from comptra.significance.resampling import Pair
from scripts.perf import level
from tests.comptra.test_evaluate import RUN, UDHR, ntrex_sides, settings, udhr, worse, write
from tests.support.runs import ROOT, in_process
from topxgen.text import languages

LENGTHS = '''
"""Metrics of segments: characters of the translation per character of the source, none for "null"; and the same, lower is better."""
from comptra.scores.metrics import Metric


class Length:
    row = Metric("", title="length", low=0, high=9, reads=("source",), of_segments=True)

    def __init__(self, settings):
        self.fingerprint = self.signature = "length"

    def score(self, segments, src, tgt):
        return [None if "null" in one.translation else len(one.translation) / len(one.source) for one in segments]

    def close(self):
        pass


class Excess(Length):
    row = Metric("", title="excess", low=0, high=9, higher_is_better=False, reads=("source",), of_segments=True)


def digits(test, settings):
    """A user's own metric of sums, most of which are zero."""
    import numpy as np
    from comptra.scores.metrics import Scorer

    count = lambda texts: np.array([[float(sum(map(str.isdigit, text)))] for text in texts])
    return Scorer("digits", "digits", count, lambda sums: sums[..., 0])
'''


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(LENGTHS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def system(model: str, translations: list[str], tgt: str = "Basque", **more) -> Path:
    folder = Path("runs", model, RUN.format("English", tgt))
    return write(folder, udhr("English", tgt).sources[: len(translations)], translations, settings(tgt=tgt, **more))


def evaluate(*args, code: int = 0, names=("chrf",)) -> tuple[dict, str]:
    """The report, and all that was printed."""
    result = in_process(
        "comptra.evaluate", "runs", *UDHR, "--metrics", *names, "--trials", 500, "--json", "out.json", *args
    )
    assert result.returncode == code, result.stderr
    return json.loads(Path("out.json").read_text()) if code == 0 else {}, result.stdout + result.stderr


def means(values) -> np.ndarray:
    return np.column_stack([np.array(values, float), np.ones(len(values))])


def mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


# The tests themselves


def test_the_samples_are_sacrebleus_and_p_is_of_both_sides(ntrex):
    """From these samples sacreBLEU's p follows to the last digit; its own counts one side and is about half of ours."""
    sources, references = ntrex_sides(ntrex, 150)
    base, texts = worse(references, 0.25), worse(references, 0.235, seed=2)
    test = metrics.Test(languages.find("English"), languages.find("Basque"), sources, references)
    for name, metric in (("bleu", BLEU(tokenize="13a")), ("chrf", CHRF(word_order=2))):
        _, found = PairedTest([("a", base), ("b", texts)], {name: metric}, [references], "bs", n_samples=1000)()
        expected = next(column for key, column in found.items() if key != "System")[1].p_value
        scorer = metrics.create(name, test, metrics.MetricSettings(tokenize="13a"))
        both = [scorer.statistics(one) for one in (base, texts)]
        one, other = resampling.resampled_scores(both, [scorer.scores] * 2, 1000)
        observed = float(np.diff([scorer.scores(stats.sum(axis=0)) for stats in both])[0])
        assert level.sacrebleus(observed, np.abs(other - one)) == expected
        ours = resampling.bootstrap_p_value(observed, other - one, 150)
        assert 0.001 < expected < 0.3 and 1.4 * expected < ours < 2.8 * expected


def test_the_bootstrap_by_hand():
    drawn = np.array([-1.0, 0, 1, 2, 3, 4, 5, 6])  # their mean is 2.5
    assert resampling.bootstrap_p_value(2.5, drawn, 100) == 5 / 9  # -1, 0, 5, 6
    assert resampling.bootstrap_p_value(-2.5, drawn, 100) == 5 / 9
    assert resampling.bootstrap_p_value(9, drawn, 100) == 1 / 9
    assert resampling.bootstrap_p_value(0, np.zeros(9), 0) == 1
    assert resampling.bootstrap_p_value(2.5, np.append(drawn, np.nan), 100) == 5 / 9


@pytest.mark.parametrize("segments, least", [(1, 1.0), (2, 0.5), (3, 0.25), (5, 1 / 16)])
def test_few_segments_are_no_proof(segments, least):
    """A system that is ahead in each of so few: no test calls it better, whichever number of trials says so."""
    pair = Pair(means(np.zeros(segments)), means(np.linspace(1, 1.001, segments)), mean)
    (observed,), drawn = resampling.randomized([pair], 4000)
    assert resampling.randomization_p_value(observed, drawn[0]) == pytest.approx(least, abs=0.03)
    one, other = resampling.resampled_scores(pair[:2], [mean] * 2, 4000)
    assert resampling.bootstrap_p_value(observed, other - one, segments) == pytest.approx(least, abs=0.001)


def test_one_trial():
    pair = Pair(means([0, 0, 0, 0]), means([1, 1, 1, 1]), mean)
    (observed,), drawn = resampling.randomized([pair], 1)
    assert resampling.randomization_p_value(observed, drawn[0]) in (0.5, 1.0)


@pytest.mark.parametrize("scores", [level.metrics.mean_scores, lambda sums: 0 * sums[..., 0]])
def test_statistics_of_zeros_are_no_difference(scores):
    zeros = np.tile([0.0, 1.0], (5, 1))
    observed, drawn = resampling.randomized([Pair(zeros, zeros.copy(), scores)], 20)
    assert observed[0] == 0 and resampling.randomization_p_value(observed[0], drawn[0]) == 1


def test_sums_are_exact_for_counts_and_numbers_of_any_size():
    """Against Python's whole numbers and fractions; float32 alone would round the second, float64 the third."""
    rng = np.random.default_rng(0)
    small, large = rng.integers(0, 50, 400).astype(float), rng.integers(0, 2**30, 400).astype(float)
    reals = rng.normal(0, 1e6, 400)
    columns = resampling._Columns([np.column_stack([small, large]), np.column_stack([reals, small])])
    weights = rng.multinomial(400, np.full(400, 1 / 400), 9)
    one, other = columns.sums(weights)
    for row in range(9):
        assert one[row, 0] == other[row, 1] == sum(int(a) * int(b) for a, b in zip(weights[row], small, strict=True))
        assert one[row, 1] == sum(int(a) * int(b) for a, b in zip(weights[row], large, strict=True))
        assert other[row, 0] == pytest.approx(float(weights[row] @ reals), rel=1e-9)
    order = rng.permutation(400)  # another order of addition is what threads make
    shuffled = resampling._Columns([np.column_stack([reals, small])[order]]).sums(weights[:, order])[0]
    assert (shuffled == other).all()


def test_p_values_do_not_depend_on_the_threads():
    code = """
import numpy as np
from comptra.significance import resampling
rng = np.random.default_rng(1)
stats = [np.column_stack([rng.normal(size=700), np.ones(700)]) for _ in range(9)]
mean = lambda sums: sums[..., 0] / sums[..., 1]
print(resampling.randomized([resampling.Pair(stats[0], one, mean) for one in stats[1:]], 300)[1].tobytes().hex())
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "3")
    }
    assert len(found) == 1 and len(found.pop()) > 1000


def test_memory_is_bounded_with_few_segments_and_many_systems(monkeypatch):
    monkeypatch.setattr(resampling, "_BLOCK", 1 << 12)
    for make in (resampling._swaps, resampling._resamples):
        sizes = [len(block) for block in make(3, 5000, 1, width=100)]
        assert sum(sizes) == 5000 and max(sizes) * 100 <= 1 << 12


# Their level


@pytest.fixture(scope="module")
def population():
    """Of the embedded Basque: 60 sentences or so, 6 versions of each kind."""
    return level.population(udhr().references, versions=6)


@pytest.mark.parametrize("name", ["bleu", "chrf", "mean of sentences"])
def test_equal_systems_differ_in_one_of_twenty_cases(population, name):
    metric, same = population[name], level.pure(level.REPLACED)
    by_swaps, by_samples, by_sacrebleu = level.rejections(metric, [same] * 2, 100, 300)
    assert 0.02 <= by_swaps <= 0.08 and 0.02 <= by_samples <= 0.08  # 300 simulations; docs/results.md has 1,000
    assert by_sacrebleu > 1.4 * by_samples, "it counts one side"
    other = level.mixture(metric, metric.of_population(same), level.FEW_LOST, level.MANY_LOST)
    assert metric.of_population(other) == pytest.approx(metric.of_population(same), abs=1e-6)
    assert level.rejections(metric, [same, other], 100, 300)[0] <= 0.08


def test_holm_holds_the_level_of_many_comparisons(population):
    same = level.pure(level.REPLACED)
    assert level.rejections(population["mean of sentences"], [same] * 6, 60, 150)[0] <= 0.07


def test_a_difference_is_found(population):
    metric, same = population["chrf"], level.pure(level.REPLACED)
    worse_by_4 = level.mixture(metric, metric.of_population(same) - 4, level.REPLACED, level.WORSE)
    assert min(level.rejections(metric, [same, worse_by_4], 300, 20)) > 0.9


def test_the_best_system_is_in_the_top_cluster(population):
    metric, same = population["mean of sentences"], level.pure(level.REPLACED)
    left_out, _, size = level.exclusions(metric, [same] * 6, 60, 150)
    assert left_out <= 0.05 and size > 5
    far = level.mixture(metric, metric.of_population(same) - 8, level.REPLACED, level.WORSE)
    left_out, _, size = level.exclusions(metric, [same, same, far, far, far], 200, 60)
    assert left_out <= 0.06 and size < 2.5


def test_the_cluster_is_corrected_for_the_number_of_systems():
    assert top_cluster(list("abcd"), [0.02, 0.03, 0.5]) == list("abcd")
    assert top_cluster(list("abcd"), [0.5, 0.016, 0.001]) == ["a", "b"]
    assert top_cluster(["a"], []) == ["a"]


def test_the_level_holds_for_means_over_languages_whose_sentences_are_the_same():
    """Two equal systems that each misread some sentences, in all languages alike. Swaps of their own in each language would
    call them different in every fourth case or so."""
    rng, found = np.random.default_rng(6), np.zeros(2)
    for _ in range(300):
        misread = rng.normal(size=(2, 60))
        pairs = [Pair(*(means(own + 0.5 * rng.normal(size=60)) for own in misread), mean) for _ in range(4)]
        for which, numbers in enumerate([[1] * 4, [1, 2, 3, 4]]):
            tested = [resampling.randomized([pair], 200, seed) for pair, seed in zip(pairs, numbers, strict=True)]
            observed, drawn = (sum(values) for values in zip(*tested, strict=True))
            found[which] += resampling.randomization_p_value(observed[0], drawn[0]) < 0.05
    together, apart = found / 300
    assert 0.02 <= together <= 0.08 and apart > 0.2


# In the report


def test_both_tests_and_all_intervals_are_in_the_report(workplace):
    references = udhr().references
    for model, share in (("base", 0.4), ("good", 0.05), ("same", 0.4)):
        system(model, worse(references, share, seed=len(model)))
    report, _ = evaluate("--baseline", "runs/base", "--bootstrap", 300, names=("chrf", "ter"))
    (group,) = report["groups"]
    rows = {Path(row["path"]).parts[1]: row["scores"] for row in group["systems"]}
    for name in ("chrf", "ter"):
        value = rows["good"][name]
        low, high = value["difference_interval"]
        assert low < value["difference"] < high and not low < 0 < high
        assert value["p"] == pytest.approx(1 / 501) and value["p_bootstrap"] == pytest.approx(1 / 301)
        assert value["better"] is True and rows["same"][name]["better"] is None
        assert value["interval"][0] < value["score"] < value["interval"][1]
        assert group["clusters"][name] == [row["path"] for row in group["systems"] if "good" in row["path"]]
        assert "p" not in rows["base"][name]
    assert rows["good"]["chrf"]["difference"] > 0 > rows["good"]["ter"]["difference"]
    assert report["trials"] == 500 and report["summary"] == [] and report["notes"] == []


def test_where_lower_is_better_a_lower_score_is_marked_as_better(workplace):
    references = udhr().references
    system("long", references)
    system("short", [text[: len(text) // 2] for text in references])
    report, shown = evaluate("--baseline", "runs/long", names=("own.py:Length", "own.py:Excess"))
    (group,) = report["groups"]
    length, excess = group["systems"][1]["scores"].values()
    assert length["difference"] == excess["difference"] < 0
    assert (length["better"], excess["better"]) == (False, True)
    long, short = (row["path"] for row in group["systems"])
    assert group["clusters"] == {"own.py:Length": [long], "own.py:Excess": [short]}
    cells = next(line for line in shown.splitlines() if line.startswith("short")).split()
    assert [cells[i].strip("0123456789.~^=") for i in (1, 3)] == ["-", "+"]


def test_clusters_need_no_baseline_and_one_system_has_none(workplace):
    references = udhr().references
    first = system("one", worse(references, 0.1))
    report, _ = evaluate("--bootstrap", 50)
    assert "clusters" not in report["groups"][0] and report["trials"] == 0
    assert "interval" in report["groups"][0]["systems"][0]["scores"]["chrf"]
    system("two", worse(references, 0.6))
    third = system("three", worse(references, 0.1, seed=9))
    report, _ = evaluate()
    assert set(report["groups"][0]["clusters"]["chrf"]) == {str(first), str(third)}
    assert all("p" not in row["scores"]["chrf"] for row in report["groups"][0]["systems"])


def test_segments_without_a_score_are_left_out_for_both_and_said(workplace):
    """As if the test set lacked them, for that comparison alone."""
    references = udhr().references
    short = [text[: 2 * len(text) // 3] for text in references]
    system("base", references)
    system("partly", ["null"] * 5 + short[5:])
    system("none", ["null"] * len(short))
    system("whole", short)
    report, _ = evaluate("--baseline", "runs/base", "--bootstrap", 100, names=("own.py:Length",))
    (group,) = report["groups"]
    rows = {Path(row["path"]).parts[1]: row["scores"]["own.py:Length"] for row in group["systems"]}
    assert rows["none"] is None
    ratio = [len(text) / len(source) for text, source in zip(references, udhr().sources, strict=True)]
    cut = [len(text) / len(source) for text, source in zip(short, udhr().sources, strict=True)]
    assert rows["partly"]["difference"] == pytest.approx(np.mean(cut[5:]) - np.mean(ratio[5:]))
    assert rows["whole"]["difference"] == pytest.approx(np.mean(cut) - np.mean(ratio))
    assert rows["partly"]["segments_compared"] == len(short) - 5 and "segments_compared" not in rows["whole"]
    low, high = rows["partly"]["difference_interval"]
    assert low < rows["partly"]["difference"] < high < 0
    (warning,) = [line for line in group["warnings"] if "both systems" in line]
    assert f"of {len(short)} segments" in warning and f"by length on {len(short) - 5}" in warning


def test_systems_without_a_common_score_are_not_compared(workplace):
    references = udhr().references
    half = len(references) // 2
    system("base", ["null"] * half + references[half:])
    system("other", references[:half] + ["null"] * (len(references) - half))
    report, _ = evaluate("--baseline", "runs/base", "--bootstrap", 20, names=("own.py:Length",))
    (group,) = report["groups"]
    assert all("p" not in row["scores"]["own.py:Length"] for row in group["systems"])


def test_a_sum_of_zero_is_a_score(workplace):
    """Of a metric that is a function of a Test each segment counts, also where its statistics are all zero."""
    references = udhr().references
    system("base", ["bat"] * len(references))
    system("other", ["1"] * 20 + ["bat"] * (len(references) - 20))
    report, _ = evaluate("--baseline", "runs/base", "--bootstrap", 20, names=("own.py:digits",))
    value = report["groups"][0]["systems"][1]["scores"]["own.py:digits"]
    assert value["difference"] == 20 and value["p"] == pytest.approx(1 / 501)
    assert "segments_compared" not in value


# Over languages


def test_wins_losses_and_means_over_languages(workplace):
    for tgt, shares in (("Basque", (0.4, 0.1, 0.4)), ("Hausa", (0.3, 0.1, 0.3)), ("Swahili", (0.1, 0.4, 0.1))):
        for model, share in zip(("base", "mixed", "alike"), shares, strict=True):
            system(model, worse(udhr("English", tgt).references, share, seed=len(model)), tgt)
    report, _ = evaluate("--baseline", "runs/base")
    (entry,) = report["summary"]
    assert (entry["metric"], entry["direction"], entry["groups"], entry["of"]) == ("chrf", "eng->xx", 3, 3)
    assert entry["segments"] == sum(len(udhr("English", tgt).sources) for tgt in ("Basque", "Hausa", "Swahili"))
    systems = {name.split("/")[0]: value for name, value in entry["systems"].items()}
    assert [systems["mixed"][key] for key in ("wins", "losses", "ties")] == [2, 1, 0]
    assert [systems["alike"][key] for key in ("wins", "losses", "ties")] == [0, 0, 3]
    for model, value in systems.items():
        scores = [
            row["scores"]["chrf"]["score"]
            for group in report["groups"]
            for row in group["systems"]
            if f"/{model}/" in row["path"]
        ]
        assert value["mean"] == pytest.approx(np.mean(scores)) and value["groups"] == 3
    assert "p" not in systems["base"] and systems["alike"]["better"] is None and systems["alike"]["p"] > 0.05
    assert systems["mixed"]["difference"] == pytest.approx(systems["mixed"]["mean"] - systems["base"]["mean"])
    expected = by_hand(report, ("base", "mixed"))
    assert systems["mixed"]["p"] == pytest.approx(expected) and report["notes"] == []


def by_hand(report: dict, models: tuple[str, str], trials: int = 500) -> float:
    """Each trial in a loop: the swaps of a language are those of its own generator, equal for equal numbers of segments."""
    observed, totals = 0.0, np.zeros(trials)
    for group in report["groups"]:
        test = udhr("English", group["tgt"])
        scorer = metrics.create(
            "chrf", metrics.Test(*map(languages.find, ("English", group["tgt"])), test.sources, test.references)
        )
        one, other = (
            scorer.statistics([json.loads(line)["translation"] for line in file.read_text().splitlines()])
            for model in models
            for file in Path("runs", model, RUN.format("English", group["tgt"])).glob("translate_0.jsonl")
        )  # fmt: skip
        observed += float(scorer.scores(other.sum(axis=0)) - scorer.scores(one.sum(axis=0)))
        swaps = np.random.default_rng(resampling.SEED).integers(2, size=(trials, len(one)), dtype=bool)
        for trial, swap in enumerate(swaps):
            swapped = (np.where(swap[:, None], *pair).sum(axis=0) for pair in ((one, other), (other, one)))
            totals[trial] += float(np.subtract(*(scorer.scores(sums) for sums in swapped)))
    return ((np.abs(totals) >= abs(observed) - 1e-9).sum() + 1) / (trials + 1)


def test_means_are_over_the_languages_that_all_systems_have_and_say_so(workplace):
    for tgt in ("Basque", "Hausa", "Swahili"):
        for model in ("base", "other", *(("new",) if tgt != "Hausa" else ())):
            system(model, worse(udhr("English", tgt).references, 0.1 * len(model), seed=len(model)), tgt)
    report, _ = evaluate("--baseline", "runs/base")
    (entry,) = report["summary"]
    assert (entry["groups"], entry["of"]) == (2, 3)
    (name, without), *others = entry["lacking"].items()
    assert name.startswith("new/") and without == ["English-Hausa"] and not others
    assert {value["groups"] for value in entry["systems"].values()} == {2}
    (note,) = report["notes"]
    assert "over the 2 of 3 directions" in note and "English-Hausa" in note
    systems = {name.split("/")[0]: value for name, value in entry["systems"].items()}
    assert sum(systems["other"][key] for key in ("wins", "losses", "ties")) == 3
    assert systems["other"]["difference"] == pytest.approx(systems["other"]["mean"] - systems["base"]["mean"])


def test_no_language_in_common(workplace):
    for model, tgt in (("one", "Basque"), ("two", "Hausa")):
        system(model, udhr("English", tgt).references, tgt)
    report, _ = evaluate()
    (entry,) = report["summary"]
    assert entry["groups"] == 0 and [value["mean"] for value in entry["systems"].values()] == [None, None]
    assert "over the 0 of 2 directions" in report["notes"][0]


# Over seeds


def trained(folder: str, seed: int, **more) -> Path:
    """What train.py leaves beside the weights."""
    path = Path(folder)
    path.mkdir(parents=True)
    (path / "settings_train.json").write_text(json.dumps({"seed": seed, "max_steps": 5, "data": str(seed), **more}))
    facts = {"languages": {"English to Basque": {"path": "x", "sha256": "abc", "counts": {"pairs": 3}}}}
    (path / "data_manifest.json").write_text(json.dumps(facts))
    return path.resolve()


def translated(name: str, model: Path, translations: list[str], **more) -> Path:
    folder = Path("runs", name, RUN.format("English", "Basque"))
    described = settings(seed=122, model=model.name, base_model=model.name, weights=[str(model)], **more)
    write(folder, udhr().sources, translations, described)
    (folder / "manifest_translate.json").write_text(json.dumps({"model": str(model), "settings": described}))
    return folder


def test_runs_that_differ_in_the_seed_of_the_training_are_one_system(workplace):
    references, folders = udhr().references, {}
    for method, share in (("plain", 0.35), ("ours", 0.2)):
        for seed in (1, 2, 3):
            model = trained(f"{method}/seed-{seed}", seed, method=method)
            texts = worse(references, share + 0.01 * seed, seed=10 * seed + len(method))
            folders.setdefault(method, []).append(translated(f"{method}-{seed}", model, texts))
    folders["untrained"] = [system("untrained", worse(references, 0.5))]
    report, _ = evaluate("--baseline", "runs/plain-1")
    found = report["groups"][0]["over_seeds"]
    by_method = {Path(one["name"]).parts[1].rstrip("-*"): one for one in found["systems"]}
    assert {name: one["paths"] for name, one in by_method.items()} == {
        name: [str(folder) for folder in own] for name, own in folders.items()
    }
    assert by_method["ours"]["seeds"] == [[1, 122], [2, 122], [3, 122]]
    assert found["baseline"] == by_method["plain"]["name"] == str(folders["plain"][0]).replace("plain-1", "plain-*")
    test = metrics.Test(*map(languages.find, ("English", "Basque")), udhr().sources, references)
    scorer = metrics.create("chrf", test)
    statistics = {
        name: [
            scorer.statistics([json.loads(line)["translation"] for line in (folder / "translate_0.jsonl").open()])
            for folder in own
        ]
        for name, own in folders.items()
    }
    expected = over_seeds.compare_all(statistics, "plain", scorer.scores, 2000, resampling.SEED)
    for name, one in by_method.items():
        assert one["scores"]["chrf"]["mean"] == pytest.approx(expected[name]["mean"])
        assert one["scores"]["chrf"].get("p_holm") == pytest.approx(expected[name].get("p_holm"))
    assert (
        by_method["ours"]["scores"]["chrf"]["better"] is True and by_method["untrained"]["scores"]["chrf"]["sd"] is None
    )

    # All runs of the baseline may be named; single runs are then compared with the first.
    for seed in (2, 3):
        Path("runs", f"plain-{seed}").rename(Path("runs", f"p{seed}"))
    Path("base").mkdir()
    for name in ("plain-1", "p2", "p3"):
        Path("runs", name).rename(Path("base", name))
    again, said = evaluate("--baseline", "base")
    value = next(one for one in again["groups"][0]["over_seeds"]["systems"] if "ours" in one["name"])
    assert value["scores"]["chrf"]["p"] == pytest.approx(expected["ours"]["p"], rel=0.2)
    assert again["groups"][0]["baseline"].startswith("base/plain-1") and "3 seeds of the baseline" in said


def test_runs_that_differ_in_the_seed_of_main_are_one_system(workplace):
    references = udhr().references
    for seed in (1, 2):
        system(f"m{seed}", worse(references, 0.2, seed), seed=seed, temperature=1.0, weights=["same"])
    system("other", worse(references, 0.2, 7), seed=3, temperature=1.0, weights=["other"])
    trained("here", 5).joinpath("settings_train.json").rename("settings_train.json")  # of no model of these runs
    report, _ = evaluate()
    named = [(one["name"], one["seeds"]) for one in report["groups"][0]["over_seeds"]["systems"]]
    assert named[0] == (f"runs/m*/{RUN.format('English', 'Basque')}", [[None, 1], [None, 2]]) and len(named) == 2


@pytest.mark.parametrize(
    "change",
    [
        "the settings of the training",
        "the data",
        "the flags of main.py",
        "the checkpoint",
        "what chose the checkpoint",
        "weights that were trained anew after the translation",
        "no seed: the same twice",
        "a damaged manifest",
    ],
)
def test_runs_that_differ_in_more_are_not_averaged(workplace, change):
    references, models = udhr().references, []
    for seed in (1, 2):
        number = 1 if "no seed" in change else seed
        more = {"learning_rate": seed} if "settings" in change else {}
        model = trained(f"seed-{seed}", number, **more)
        if change == "the data":
            (model / "data_manifest.json").write_text(json.dumps({"languages": {"a": {"sha256": str(seed)}}}))
        if change == "the checkpoint":
            model = model / f"checkpoint-{seed}00"
        if change == "what chose the checkpoint":
            (model / "manifest_train.json").write_text(
                json.dumps({"metric_for_best_model": ["loss", "chrf"][seed - 1]})
            )
        if "anew" in change and seed == 1:
            (model / "model.safetensors").write_bytes(b"other weights than those that translated")
        if change == "a damaged manifest":
            (model / "settings_train.json").write_text("{")
        models.append(model)
    for model, k in zip(models, (0, 1), strict=True):
        translated(model.name, model, worse(references, 0.2, k), k=k if "flags" in change else 0)
    assert "over_seeds" not in evaluate()[0]["groups"][0]


def test_merged_models_are_recognised_by_their_adapters(workplace):
    references = udhr().references
    for seed in (1, 2):
        adapter, merged = trained(f"seed-{seed}/train", seed), Path(f"seed-{seed}/merged")
        merged.mkdir()
        chain = {"lineage": {"links": [{"name": str(adapter)}, {"name": "base"}]}}
        (merged / "manifest_merge.json").write_text(json.dumps(chain))
        translated(f"seed-{seed}", merged.resolve(), worse(references, 0.2, seed))
    (one,) = evaluate()[0]["groups"][0]["over_seeds"]["systems"]
    assert one["seeds"] == [[1, 122], [2, 122]]


def test_systems_of_one_test_set_have_different_names():
    run = "{}_0_shot_seed_1"
    basque, coded = (f"a/m/{run.format(way)}" for way in ("English_to_Basque", "eng_Latn_to_eus_Latn"))
    igbo, elsewhere = (f"{folder}/m/{run.format('English_to_Igbo')}" for folder in "ab")
    names = system_names([[(basque, {})], [(igbo, {})]])
    assert names[basque] == names[igbo] == "m/0_shot_seed_1"
    names = system_names([[(basque, {})], [(igbo, {}), (elsewhere, {})]])
    assert names == {basque: "a/m/0_shot_seed_1", igbo: "a/m/0_shot_seed_1", elsewhere: "b/m/0_shot_seed_1"}
    assert system_names([[(basque, {}), (coded, {})]]) == {basque: basque, coded: coded}


def test_names_of_several_runs():
    assert seeds.name_of(["a/seed-1/b", "a/seed-2/b"]) == "a/seed-*/b"
    assert seeds.name_of(["a/b"]) == "a/b" and seeds.name_of(["x", "y"]) == "*"
    assert seeds.name_of(["a1", "a12"]) == "a1*" and seeds.name_of(["11", "1"]) == "1*"


def test_segments_without_a_score_are_left_out_for_all_seeds():
    rng = np.random.default_rng(2)
    stats = {name: [means(rng.normal(size=40)) for _ in range(2)] for name in ("base", "new")}
    has = np.arange(40) % 4 > 0
    found = over_seeds.compare_all(stats, "base", mean, has_score=has)
    kept = {name: [one[has] for one in own] for name, own in stats.items()}
    assert found == over_seeds.compare_all(kept, "base", mean) and found["new"]["segments"] == 30
    assert over_seeds.compare_all(stats, "base", mean, has_score=np.zeros(40, bool)) == {}


def test_the_test_over_seeds_knows_which_direction_is_better():
    stats = {name: [means(np.arange(60) % 7 + shift)] * 2 for name, shift in (("base", 0), ("lower", -3))}
    for higher, expected in ((True, False), (False, True)):
        assert over_seeds.compare_all(stats, "base", mean, higher_is_better=higher)["lower"]["better"] is expected


def test_all_pairs_share_the_swaps_of_one_pair():
    """Twenty systems at once give what each gives alone."""
    rng = np.random.default_rng(3)
    stats = [means(rng.integers(0, 9, 30)) for _ in range(4)]
    pairs = [Pair(one, other, mean) for one, other in itertools.combinations(stats, 2)]
    observed, drawn = resampling.randomized(pairs, 70, 5)
    for i, pair in enumerate(pairs):
        alone = resampling.randomized([pair], 70, 5)
        assert alone[0][0] == observed[i] and (alone[1][0] == drawn[i]).all()
