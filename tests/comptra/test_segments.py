"""Metrics of segments, from a user's own file through comptra.evaluate: the cache, what it survives, what is said."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from comptra import evaluate as evaluate_module
from comptra.scores import segments
from comptra.scores.metrics import Metric, Segment, Test
from comptra.scores.segment_cache import ScoreCache, key_of
from comptra.tables import variants
from tests.support.evaluations import RUN, UDHR, udhr, worse, write
from tests.support.runs import ROOT, in_process
from topxgen.common.errors import UsageError
from topxgen.text import languages

METRIC = '''
import os
import time
from pathlib import Path

from comptra.scores.metrics import Metric
from topxgen.common.errors import UnknownLanguage

HERE = Path(__file__).parent


class Length:
    """Characters per character of the source, up to 1."""

    row = Metric("", title="length", low=0, high=1, reads=("source",), of_segments=True)

    def __init__(self, settings):
        self.fingerprint = os.environ.get("LENGTH_WEIGHTS", "v1")
        self.signature = f"length|version:{self.fingerprint}"

    def score(self, segments, src, tgt):
        if tgt.name == "Hausa":
            raise UnknownLanguage("it does not know Hausa")
        with open(HERE / "scored.txt", "a") as file:
            file.writelines(segment.translation + "\\n" for segment in segments)
        time.sleep(float(os.environ.get("LENGTH_SLEEP", 0)))
        return [self.one(segment) for segment in segments]

    def one(self, segment):
        assert segment.reference is None, "it does not read references"
        if "null" in segment.translation:
            return None
        if "NaN" in segment.translation:
            return float("nan")
        return min(1.0, len(segment.translation) / len(segment.source))

    def close(self):
        (HERE / "closed.txt").touch()


class Broken(Length):
    def score(self, segments, src, tgt):
        raise RuntimeError("no memory for the weights")


class Missing(Length):
    def __init__(self, settings):
        raise OSError("the model cannot be downloaded")


class Better(Length):
    row = Metric("", title="better", low=0, high=1, reads=("rival",), of_segments=True)

    def one(self, segment):
        assert segment.source == "", "it does not read sources"
        return float(len(segment.translation) > len(segment.rival))


class Errors(Length):
    row = Metric("", title="errors", low=0, high=25, higher_is_better=False, reads=("source",), of_segments=True)
'''


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(METRIC)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def system(folder: Path, model: str, translations: list[str], tgt: str = "Basque") -> Path:
    return write(folder / "runs" / model / RUN.format("English", tgt), udhr("English", tgt).sources, translations)


def evaluate(*args, name: str = "own.py:Length", code: int = 0):
    """(report, stdout, stderr)."""
    flags = ("--metrics", "chrf", name, "--cache_dir", "cache", "--json", "out.json")
    result = in_process("comptra.evaluate", "runs", *UDHR, *flags, *args)
    assert result.returncode == code, result.stderr
    return json.loads(Path("out.json").read_text()), result.stdout, result.stderr


def scored(folder: Path) -> list[str]:
    """What the metric has scored since the last call."""
    path = folder / "scored.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def score_of(report: dict, name: str = "own.py:Length", system: int = 0, group: int = 0):
    return report["groups"][group]["systems"][system]["scores"][name]


def test_a_second_call_scores_only_what_is_new(workplace):
    test = udhr()
    first, second = worse(test.references, 0.2), worse(test.references, 0.3, 1)
    second[:3] = first[:3]
    system(workplace, "a", first)
    report, shown, _ = evaluate()
    assert sorted(scored(workplace)) == sorted(set(first)) and (workplace / "closed.txt").exists()
    expected = sum(min(1, len(t) / len(s)) for s, t in zip(test.sources, first, strict=True)) / len(first)
    assert score_of(report)["score"] == pytest.approx(expected) and f"{expected:.2f}" in shown
    assert score_of(report)["segments"] == len(first) and "unscored" not in score_of(report)
    assert report["groups"][0]["metrics"]["own.py:Length"]["high"] == 1
    again, _, _ = evaluate()
    assert scored(workplace) == [] and score_of(again) == score_of(report)
    system(workplace, "b", second)
    evaluate()
    assert sorted(scored(workplace)) == sorted(set(second[3:]) - set(first))
    # Another pair of texts with the same translation, as from another direction, is another segment.
    system(workplace, "c", first, tgt="Spanish")
    evaluate()
    assert sorted(scored(workplace)) == sorted(set(first))


def test_a_killed_run_keeps_its_blocks_and_a_parallel_one_is_not_disturbed(workplace):
    test = udhr()
    system(workplace, "a", [f"{i} {text}" for i, text in enumerate(test.references)])
    code = (
        "import sys; from comptra.scores import segments; segments.BLOCK = 4; from comptra import evaluate; "
        "sys.argv = ['evaluate', 'runs', *sys.argv[1:], '--cache_dir', 'cache', '--metrics', 'own.py:Length']; "
        "sys.exit(evaluate.main())"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LENGTH_SLEEP": "0.3"}
    process = subprocess.Popen([sys.executable, "-c", code, *UDHR], env=environment, stderr=subprocess.DEVNULL)
    path = workplace / "scored.txt"
    while process.poll() is None and (not path.exists() or len(path.read_text().splitlines()) < 9):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = scored(workplace)
    assert 8 <= len(before) < len(test.sources)
    (shard,) = workplace.glob("cache/own-py-Length-*/v1/*.jsonl")
    with shard.open("a") as file:
        file.write('{"key": "half a li')  # what a kill in a write leaves
    report, _, said = evaluate()
    after = scored(workplace)
    assert len(before) + len(after) - len(test.sources) in (0, 4), "at most the block that was being scored is lost"
    assert set(before) | set(after) == {f"{i} {text}" for i, text in enumerate(test.references)}
    assert score_of(report)["segments"] == len(test.sources) and "damaged" not in said
    evaluate()
    assert scored(workplace) == []


def test_several_processes_write_at_once(tmp_path):
    code = (
        "import sys; from pathlib import Path; from comptra.scores.segment_cache import ScoreCache\n"
        "kept = ScoreCache(Path(sys.argv[1])).open('m', 'f', 's')\n"
        "for i in range(40): kept.add([f'{sys.argv[2]}-{i}', f'both-{i}'], [float(i), -1.0])"
    )
    command = [sys.executable, "-c", code, tmp_path / "cache"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    workers = [subprocess.Popen([*command, str(worker)], env=environment) for worker in range(4)]
    assert [worker.wait() for worker in workers] == [0] * 4
    scores = ScoreCache(tmp_path / "cache").open("m", "f", "s").scores
    assert scores == {f"{w}-{i}": float(i) for w in range(4) for i in range(40)} | {
        f"both-{i}": -1.0 for i in range(40)
    }


@pytest.mark.parametrize("damage", ["flipped digit", "not JSON", "not UTF-8", "another shape"])
def test_a_corrupt_line_is_skipped_and_said(damage, workplace):
    system(workplace, "a", udhr().references)
    report, _, _ = evaluate()
    scored(workplace)
    (shard,) = workplace.glob("cache/*/v1/*.jsonl")
    first, *rest = shard.read_bytes().splitlines(keepends=True)
    record = json.loads(first)
    damaged = {
        "flipped digit": first.replace(str(record["score"]).encode(), b"0.25"),
        "not JSON": first[:30] + b"\n",
        "not UTF-8": b"\xff\xfe\n",
        "another shape": b'{"key": 3}\n',
    }[damage]
    shard.write_bytes(damaged + b"".join(rest))
    again, _, said = evaluate()
    assert len(scored(workplace)) == 1 and score_of(again) == score_of(report)
    (line,) = [line for line in said.splitlines() if "damaged" in line]
    assert line.startswith("WARNING: 1 damaged lines") and f"{shard.relative_to(workplace)}, line 1" in line


def test_what_is_no_file_in_the_cache_is_passed_over(workplace):
    system(workplace, "a", udhr().references)
    report, _, _ = evaluate()
    scored(workplace)
    (shard,) = workplace.glob("cache/*/v1/*.jsonl")
    os.mkfifo(shard.with_name("a.jsonl"))
    shard.with_name("b.jsonl").mkdir()
    shard.with_name("c.jsonl").symlink_to("nowhere")
    again, _, said = evaluate()
    assert scored(workplace) == [] and score_of(again) == score_of(report) and "damaged" not in said


def test_other_weights_under_one_name_are_said_and_share_nothing(workplace, monkeypatch):
    texts = udhr().references
    system(workplace, "a", texts)
    _, _, said = evaluate()
    assert "weights" not in said
    scored(workplace)
    monkeypatch.setenv("LENGTH_WEIGHTS", "v2")
    _, _, said = evaluate()
    assert "own.py:Length: other weights or settings than last time under this name" in said
    assert "fingerprint v1" in said and "fingerprint v2" in said
    assert len(scored(workplace)) == len(set(texts))
    _, _, said = evaluate()
    assert "weights" not in said and scored(workplace) == []


def test_a_folder_that_cannot_be_written_to_costs_the_cache_alone(workplace):
    system(workplace, "a", udhr().references)
    (workplace / "cache").mkdir()
    (workplace / "cache" / "own-py-Length-x").touch()
    evaluate()
    scored(workplace)
    (folder,) = (path for path in workplace.glob("cache/*/v1"))
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.touch()  # a file where the folder belongs
    _, _, said = evaluate()
    assert len(scored(workplace)) == len(set(udhr().references))
    assert said.count("are not kept in") == 1 and "pass another --cache_dir" in said


def test_an_empty_translation_is_the_worst_and_not_asked_for(workplace):
    texts = list(udhr().references)
    texts[0] = texts[1] = " "
    system(workplace, "a", texts)
    everything = sum(min(1, len(t) / len(s)) for s, t in zip(udhr().sources, texts, strict=True) if t.strip())
    report, _, _ = evaluate()
    assert score_of(report)["score"] == pytest.approx(everything / len(texts))
    assert score_of(report)["segments"] == len(texts) and not any(not line.strip() for line in scored(workplace))
    report, _, _ = evaluate(name="own.py:Errors")
    assert score_of(report, "own.py:Errors")["score"] == pytest.approx((everything + 2 * 25) / len(texts))


def test_segments_without_a_score_are_counted_not_averaged_away(workplace):
    texts = list(udhr().references)
    texts[0] = "null"
    system(workplace, "a", texts)
    system(workplace, "b", ["null"] * len(texts))
    report, shown, said = evaluate("--baseline", "runs/a", "--trials", 20, "--bootstrap", 10)
    total = len(texts)
    assert {key: score_of(report)[key] for key in ("segments", "unscored")} == {"segments": total - 1, "unscored": 1}
    assert score_of(report, system=1) is None, "no mean of nothing"
    assert f"1 of {total} translations of runs/a" in said and f"its mean is over the other {total - 1}" in said
    assert "it has no mean" in said and " nan" not in shown
    scored(workplace)
    evaluate()
    assert set(scored(workplace)) == {"null"}, "the next run asks again for what had no score"


def test_nan_is_an_error_of_this_metric_which_names_the_segment(workplace):
    texts = list(udhr().references)
    texts[3] = "a NaN of a translation"
    system(workplace, "a", texts)
    report, shown, said = evaluate(code=3)
    assert "own.py:Length gave nan for the translation 'a NaN of a translation'" in said
    assert score_of(report) is None and score_of(report, "chrf")["score"] > 90 and "length" in shown
    assert list(report["failed_metrics"]) == ["own.py:Length"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("Broken", "RuntimeError: no memory for the weights"), ("Missing", "OSError: the model cannot be downloaded")],
)
def test_a_metric_that_does_not_load_leaves_the_others(name, reason, workplace):
    system(workplace, "a", udhr().references)
    report, _, said = evaluate(name=f"own.py:{name}", code=3)
    lines = [line for line in said.splitlines() if "left out" in line]
    assert lines == [f"WARNING: own.py:{name} is left out: {reason}"]
    assert score_of(report, f"own.py:{name}") is None and score_of(report, "chrf")["score"] == pytest.approx(100)
    assert report["failed_metrics"] == {f"own.py:{name}": reason}
    alone = in_process("comptra.evaluate", "runs", *UDHR, "--metrics", f"own.py:{name}", "--cache_dir", "cache")
    assert alone.returncode == 2 and reason in alone.stderr and alone.stderr.count(reason) == 1


def test_a_language_that_the_metric_does_not_know_is_an_empty_cell(workplace):
    system(workplace, "a", udhr("English", "Hausa").references, tgt="Hausa")
    system(workplace, "a", udhr().references)
    report, shown, said = evaluate("--segments", "s.jsonl")
    cells = {group["tgt"]: group["systems"][0]["scores"]["own.py:Length"] for group in report["groups"]}
    assert cells["Hausa"] is None and cells["Basque"]["score"] > 0 and report["failed_metrics"] == {}
    assert "own.py:Length from English into Hausa has no scores: it does not know Hausa" in said
    header, row = next(part for part in shown.split("\n\n") if part.startswith("length")).splitlines()[1:]
    assert header.split()[:3] == ["model", "Basque", "Hausa"] and row.split()[0::2] == ["a", "-"]
    rows = [json.loads(line) for line in Path("s.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["direction"] for row in rows if row["own.py:Length"] is None} == {"eng_Latn-hau_Latn"}
    assert all(row["own.py:Length"] for row in rows if row["direction"] == "eng_Latn-eus_Latn")


def test_pairwise_metrics_get_the_translations_of_the_baseline(workplace):
    texts = udhr().references
    system(workplace, "base", [text[:20] for text in texts])
    longer = [text[:30] if i % 2 else text[:10] for i, text in enumerate(texts)]
    system(workplace, "other", longer)
    system(workplace, "other", udhr("English", "Afrikaans").references, "Afrikaans")
    name = "own.py:Better"
    report, _, _ = evaluate("--baseline", "runs/base", "--trials", 50, name=name)
    assert report["groups"].pop(0)["systems"][0]["scores"][name] is None, "the baseline lacks this direction"
    assert score_of(report, name)["score"] == 0.5, "against itself"
    expected = sum(len(a) > len(b[:20]) for a, b in zip(longer, texts, strict=True)) / len(texts)
    assert score_of(report, name, system=1)["score"] == pytest.approx(expected)
    assert len(scored(workplace)) == len(texts), "not the baseline against itself"
    _, _, said = evaluate(name=name, code=3)
    assert f"{name} compares with another translation; pass --baseline" in said


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_scores_of_segments_in_a_file(suffix, workplace):
    test = udhr()
    texts = [*worse(test.references, 0.2)[:-1], "null"]
    system(workplace, "a", texts)
    report, _, _ = evaluate("--segments", f"s.{suffix}")
    if suffix == "csv":
        rows = list(csv.DictReader(io.StringIO(Path("s.csv").read_text(encoding="utf-8"), newline="")))
    else:
        rows = [json.loads(line) for line in Path("s.jsonl").read_text(encoding="utf-8").splitlines()]
    assert list(rows[0]) == [
        *("dataset", "direction", "system", "index", "source", "translation", "reference", "chrf", "own.py:Length")
    ]
    assert [row["translation"] for row in rows] == texts and [row["reference"] for row in rows] == test.references
    assert [int(row["index"]) for row in rows] == list(range(len(texts)))
    assert {row["direction"] for row in rows} == {"eng_Latn-eus_Latn"}
    scores = [float(row["own.py:Length"]) for row in rows[:-1]]
    assert sum(scores) / len(scores) == pytest.approx(score_of(report)["score"]) and not rows[-1]["own.py:Length"]
    from sacrebleu.metrics import CHRF

    expected = [CHRF(word_order=2).corpus_score([t], [[r]]).score for t, r in zip(texts, test.references, strict=True)]
    assert [float(row["chrf"]) for row in rows] == pytest.approx(expected)


def test_what_a_metric_cannot_be_given():
    basque = languages.find("Basque")
    metric = type("M", (), {"fingerprint": "f", "signature": "s", "score": lambda self, segments, src, tgt: [1.0]})()
    with pytest.raises(UsageError, match=r"reads the source, and 'Bat.' has none"):
        segments._as_read("blaser-qe", Metric("", reads=("source",)), Segment("", "Bat."))
    with pytest.raises(UsageError, match="there are 1 references for 2 sentences"):
        Test(basque, basque, ["a", "b"], ["a"])
    with pytest.raises(UsageError, match="gave 1 scores for 2 segments"):
        segments._checked("m", [Segment("a", "b")] * 2, metric.score([], basque, basque))


def test_a_class_without_a_row_is_one_line(workplace):
    Path("rowless.py").write_text("class Rowless:\n    fingerprint = signature = 'x'\n")
    system(workplace, "a", udhr().references)
    result = in_process("comptra.evaluate", "runs", *UDHR, "--metrics", "chrf", "rowless.py:Rowless")
    assert result.returncode == 2 and "is a class without a row" in result.stderr and result.stderr.count("\n") == 1


def test_keys_tell_apart_what_differs():
    keys = {key_of("a", "b"), key_of("b", "a"), key_of("ab", ""), key_of("ab", None), key_of("a", "b", None)}
    assert len(keys) == 5


def test_names_of_folders_are_safe(tmp_path):
    for name in ("../../x.py:M", "/etc/y.py:M", "..", "a" * 300, "ä/ö"):
        ScoreCache(tmp_path / "cache").open(name, "../v1", "s").add(["k"], [1.0])
        assert ScoreCache(tmp_path / "cache").open(name, "../v1", "s").scores == {"k": 1.0}
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert len(list((tmp_path / "cache").glob("*/*/*.jsonl"))) == 5


def test_two_writers_never_share_a_file(tmp_path):
    """Also of one process, or of processes of one number on several machines: their appends could overwrite each other."""
    writers = [ScoreCache(tmp_path).open("m", "f", "s") for _ in range(2)]
    for i, writer in enumerate(writers):
        writer.add([str(i)], [float(i)])
    assert len(list(tmp_path.glob("m/f/*.jsonl"))) == 2


def test_nan_of_a_metric_of_ones_own_names_the_segment(workplace):
    Path("surface.py").write_text(
        "import numpy as np\nfrom comptra.scores.metrics import Scorer, mean_scores\n\n\ndef ratio(test, settings):\n"
        "    def statistics(translations):\n"
        "        return np.array([[float('nan') if 'NaN' in text else 1.0, 1.0] for text in translations])\n\n"
        "    return Scorer('ratio', 'ratio', statistics, mean_scores)\n"
    )
    texts = list(udhr().references)
    texts[3] = "a NaN of a translation"
    system(workplace, "a", texts)
    report, _, said = evaluate(name="surface.py:ratio", code=3)
    assert "surface.py:ratio gives nan for segment 4, 'a NaN of a translation'" in said
    assert score_of(report, "surface.py:ratio") is None and score_of(report, "chrf")["score"] > 90


def test_references_of_another_length_are_refused(workplace):
    test = udhr()
    Path("src.txt").write_text("\n".join(test.sources) + "\n", encoding="utf-8")
    Path("ref.txt").write_text("\n".join(test.references[:-1]) + "\n", encoding="utf-8")
    system(workplace, "a", test.references)
    result = in_process("comptra.evaluate", "runs", "--test_files", "src.txt", "ref.txt", "--cache_dir", "cache")
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert str(len(test.sources)) in result.stderr and str(len(test.sources) - 1) in result.stderr


def test_compare_scores_segments_over_seeds_and_knows_which_way_is_better(workplace):
    """The table of scripts/compare.py: through the cache, the baseline's first seed as the rival, lower errors better."""
    test = udhr()
    folders = {
        name: [[system(workplace, f"{name}{seed}", worse(test.references, share, seed))] for seed in (1, 2, 3)]
        for name, share in (("base", 0.4), ("good", 0.05))
    }
    names = ("own.py:Length", "own.py:Errors", "own.py:Better", "ter", "own.py:Broken")
    flags = ("runs", *UDHR, "--metrics", *names, "--cache_dir", "cache")
    args = evaluate_module.build_parser().parse_args(flags)
    ((group,), failed) = variants.score(folders, "base", args)
    scores = group["variants"]["good"]["scores"]
    assert list(failed) == ["own.py:Broken"] and list(scores) == list(names[:-1])
    assert {name: value["better"] for name, value in scores.items()} == {
        "own.py:Length": True,
        "own.py:Errors": False,  # as long as the source: this "error" rises
        "own.py:Better": True,
        "ter": True,
    }
    base = group["variants"]["base"]["scores"]
    assert base["own.py:Better"]["scores"][0] == 0.5 and scores["ter"]["difference"] < 0
    assert variants.score(folders, "base", args)[0] == [group] and len(set(scored(workplace))) > 0
    variants.score(folders, "base", args)
    assert scored(workplace) == []
