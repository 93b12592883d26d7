"""COMET: the real package on tiny random checkpoints of its own classes, where .venv-comet is; what else can go wrong, quickly."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from comptra.candidate_selection import SelectionSettings, create
from comptra.scores.comet import CometMetric
from comptra.scores.metrics import METRICS, MetricSettings, Segment
from tests.support.evaluations import original, udhr, worse
from tests.support.main_runs import options
from tests.support.runs import ROOT, in_process, records, script
from topxgen.common.errors import UsageError
from topxgen.quality import comet_models
from topxgen.quality.comet_models import Comet, python_of, read_checkpoint
from topxgen.text import languages

PYTHON = os.environ.get(comet_models.PYTHON) or str(ROOT / ".venv-comet" / "bin" / "python")
ENGLISH, BASQUE = languages.find("English"), languages.find("Basque")
TINY = str(ROOT / "tests" / "support" / "tiny_comet.py")
needs_comet = pytest.mark.skipif(
    not shutil.which(PYTHON), reason="COMET's environment .venv-comet is missing (scripts/setup.sh --comet makes it)"
)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """The checkpoints of tests/support/tiny_comet.py."""
    folder = tmp_path_factory.mktemp("comet")
    test = udhr()
    texts = "\n".join([*test.sources, *test.references])
    subprocess.run([PYTHON, TINY, folder], input=texts, text=True, check=True, capture_output=True)
    return folder


def own_scores(folder: Path, segments: list[dict]) -> list[float]:
    """Those of COMET's own loader and `predict`."""
    done = subprocess.run([PYTHON, TINY, folder, "scores"], input=json.dumps(segments), text=True, capture_output=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("scores "))
    return json.loads(line.removeprefix("scores "))


@pytest.mark.slow
@needs_comet
def test_evaluate_gives_the_scores_of_comets_own_predict(tiny, tmp_path):
    test = udhr()
    original(tmp_path / "runs", "a", worse(test.references, 0.2))
    original(tmp_path / "runs", "b", worse(test.references, 0.5, seed=1))
    log, wrapper = tmp_path / "log", tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {PYTHON} "$@"\n')
    wrapper.chmod(0o755)
    models = {"comet": "comet", "xcomet": "xcomet", "cometkiwi": "kiwi", "africomet-qe": "qe"}
    paths = {name: tiny / folder for name, folder in models.items()}
    paths["cometkiwi"] = tiny / "kiwi" / "checkpoints" / "model.ckpt"  # the file itself
    command = (
        *("-m", "comptra.evaluate", tmp_path / "runs", "--dataset_name_or_path", "udhr", "--metrics", *models),
        *("--comet_models", *(f"{name}={path}" for name, path in paths.items())),
        *("--comet_python", wrapper, "--cache_dir", tmp_path / "cache"),
        *("--segments", tmp_path / "segments.jsonl", "--json", tmp_path / "report.json"),
    )
    script(*command)
    rows = records(tmp_path / "segments.jsonl")
    assert len(rows) == 2 * len(test.sources)
    for name, folder in models.items():
        with_reference = "reference" in METRICS[name].reads
        segments = [
            {"src": row["source"], "mt": row["translation"]} | ({"ref": row["reference"]} if with_reference else {})
            for row in rows
        ]
        expected = own_scores(tiny / folder, segments)
        assert [row[name] for row in rows] == pytest.approx(expected, abs=1e-6)
        assert len(set(expected)) > len(test.sources)
    report = json.loads((tmp_path / "report.json").read_text())
    for system in report["groups"][0]["systems"]:
        for name in models:
            own = [row[name] for row in rows if row["system"] == system["name"]]
            assert system["scores"][name]["score"] == pytest.approx(math.fsum(own) / len(own))
    assert "COMET|model:comet|weights:" in report["groups"][0]["signatures"]["comet"]
    # A second call reads the scores: COMET is imported once, to see that it is there, and loads no model.
    first = (tmp_path / "segments.jsonl").read_text()
    log.unlink()
    script(*command)
    assert len(log.read_text().splitlines()) == 1 and ".ckpt" not in log.read_text()
    assert (tmp_path / "segments.jsonl").read_text() == first


@pytest.mark.slow
@needs_comet
@pytest.mark.parametrize(("name", "folder"), [("comet", "comet"), ("cometkiwi", "kiwi")])
def test_segments_that_are_cut_are_counted(name, folder, tiny, caplog):
    """COMET does not say so. Models that read one sequence have room for all texts together, the others for each."""
    metric = create_metric(name, tiny / folder)
    long, half = "Gizon-emakume guztiak aske jaiotzen dira. " * 200, "Gizon-emakume " * 45
    reference = "All human beings" if name == "comet" else None
    segments = [Segment("Kaixo", text, reference) for text in ("Hello", long)] + [Segment(half, half, reference)]
    assert None not in metric.score(segments, BASQUE, ENGLISH)
    metric.close()
    cut = 1 if name == "comet" else 2
    assert f"{cut} inputs are longer than the encoder of {tiny / folder} reads and were cut there" in caplog.text


def create_metric(name: str, model: Path) -> CometMetric:
    return CometMetric(name, "", MetricSettings(comet_models=((name, str(model)),), comet_python=PYTHON))


@pytest.mark.slow
@needs_comet
def test_main_selects_by_it_and_goes_on_after_a_kill(tiny, tiny_lm, tmp_path):
    command = (
        *("main.py", *options(tiny_lm, max_samples=6), "--num_return_sequences", 3, "--temperature", 1.0),
        *("--selection_method", "comet-qe", "--comet_name_or_path", tiny / "kiwi", "--output_dir", tmp_path),
    )
    run = script(*command)
    (translations,) = tmp_path.rglob("translate_0.jsonl")
    kept = {record["sentence"]: record["translation"] for record in records(translations)}
    (answers,) = tmp_path.rglob("answers.jsonl")
    scores = [record for path in tmp_path.rglob("scores/cometkiwi/*/*.jsonl") for record in records(path)]
    assert scores and "cometkiwi" in run.stderr
    settings = json.loads(next(tmp_path.rglob("settings_translate.json")).read_text())
    assert settings["comet_name_or_path"] == "kiwi" and len(settings["comet_weights"]) == 16
    # What was kept is the best by COMET's own predict, of the candidates of some prompt.
    groups = [list(dict.fromkeys(t.split("\n")[0].strip() for t in record["texts"])) for record in records(answers)]
    choices = []
    for sentence, translation in kept.items():
        candidates = next((texts for texts in groups if translation in texts), None)
        candidates = [text for text in candidates or () if text]
        if len(candidates) > 1:
            choices.append((sentence, translation, candidates))
    segments = [{"src": sentence, "mt": text} for sentence, _, candidates in choices for text in candidates]
    own, chosen = iter(own_scores(tiny / "kiwi", segments)), 0
    for _, translation, candidates in choices:
        scores = [next(own) for _ in candidates]
        assert scores[candidates.index(translation)] == pytest.approx(max(scores), abs=1e-6)
        chosen += translation != candidates[0]
    assert chosen, "not always the first"
    # With the translations gone, as after a kill while COMET was scoring, the scores are still there.
    before = translations.read_bytes()
    translations.unlink()
    for path in tmp_path.rglob("manifest_translate.json"):
        path.unlink()
    again = script(*command)
    assert translations.read_bytes() == before and "cometkiwi" not in again.stderr
    other = script(*command[:-4], "--comet_name_or_path", tiny / "qe", "--output_dir", tmp_path, check=2)
    assert "comet_name_or_path was 'kiwi', now 'qe'" in other.stderr


MAKE_BAD = """
import collections, os, pathlib, sys, torch
path, kind, marker = sys.argv[1:]
saved = torch.load(path, weights_only=False)
class Bad:
    def __reduce__(self):
        return (os.system, ("touch " + marker,)) if kind == "code" else (pathlib.PurePosixPath, ("x",))
if kind == "missing":
    del saved["state_dict"]["estimator.ff.0.weight"]
else:
    saved["callbacks"] = {"early_stopping": Bad()}
torch.save(saved, path)
"""


@pytest.mark.slow
@needs_comet
@pytest.mark.parametrize(
    "kind, says",
    [("code", "GLOBAL .*system"), ("missing", "lacks 1 weights of the model, estimator.ff.0.weight"), ("class", None)],
)
def test_a_checkpoint_cannot_run_code_nor_leave_weights_random(kind, says, tiny, tmp_path):
    shutil.copytree(tiny / "kiwi", tmp_path / "kiwi")
    path, marker = tmp_path / "kiwi" / "checkpoints" / "model.ckpt", tmp_path / "ran"
    subprocess.run([PYTHON, "-c", MAKE_BAD, path, kind, marker], check=True, capture_output=True)
    model = Comet(read_checkpoint(str(tmp_path / "kiwi")), PYTHON)
    if says:
        with pytest.raises(UsageError, match=says):
            model.score([("a", "b", None)])
    else:  # a harmless class of another package: ignored
        assert len(model.score([("a", "b", None), ("a", "\ud800", None)])) == 2
    model.close()
    assert not marker.exists()


# Without COMET


def checkpoint(folder: Path, **hparams) -> str:
    """A COMET model without weights."""
    values = {"class_identifier": "unified_metric", "pretrained_model": "/encoder"} | hparams
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "model.ckpt").write_bytes(b"weights")
    (folder / "hparams.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()))
    return str(folder)


@pytest.mark.parametrize(
    "hparams, with_reference, without",
    [
        ({"class_identifier": "regression_metric"}, True, False),
        ({"class_identifier": "referenceless_regression_metric"}, False, True),
        ({"class_identifier": "xcomet_metric"}, True, True),
        ({"input_segments": ["mt", "src"]}, False, True),
        ({"input_segments": ["mt", "ref"]}, True, False),
        ({}, True, True),  # COMET's default: mt, src, ref
        ({"class_identifier": "ranking_metric"}, False, False),
    ],
)
def test_what_a_model_reads(hparams, with_reference, without, tmp_path):
    model = read_checkpoint(checkpoint(tmp_path / "m", **hparams))
    assert (model.reads(True), model.reads(False)) == (with_reference, without)


def test_metrics_and_models_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(comet_models, "python_of", lambda _: "python")
    reads_both = checkpoint(tmp_path / "both", class_identifier="regression_metric")
    settings = MetricSettings(
        comet_models=(("cometkiwi", reads_both), ("comet", checkpoint(tmp_path / "qe", input_segments=["mt", "src"])))
    )
    with pytest.raises(
        UsageError, match=r"both scores with references, and --metrics cometkiwi without: .*wmt22-cometkiwi-da"
    ):
        METRICS["cometkiwi"].load()(settings)
    with pytest.raises(UsageError, match=r"qe scores without references, and --metrics comet with: .*wmt22-comet-da"):
        METRICS["comet"].load()(settings)


@pytest.mark.parametrize(
    "text, says",
    [
        (None, "hparams.yaml does not exist: a COMET model is a folder with hparams.yaml and checkpoints/model.ckpt"),
        ("class_identifier: [", "is not the hparams.yaml of a COMET model"),
        ("class_identifier: unified_metric\n", "object missing required field pretrained_model"),
        ("class_identifier: !!python/object/apply:os.system [id]\npretrained_model: x\n", "is not the hparams.yaml"),
        ("- a\n", "is not the hparams.yaml"),
        ("", "is not the hparams.yaml"),
    ],
)
def test_a_damaged_model_is_named(text, says, tmp_path):
    folder = Path(checkpoint(tmp_path / "m"))
    (folder / "hparams.yaml").unlink()
    if text is not None:
        (folder / "hparams.yaml").write_text(text)
    with pytest.raises(UsageError) as error:
        read_checkpoint(str(folder))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_folder_of_several_checkpoints_must_be_told_which(tmp_path):
    folder = Path(checkpoint(tmp_path / "m"))
    other = folder / "checkpoints" / "other.ckpt"
    other.write_bytes(b"other")
    with pytest.raises(UsageError, match=r"must hold one .ckpt file and holds model.ckpt, other.ckpt; pass the file"):
        read_checkpoint(str(folder)).fingerprint()
    one = read_checkpoint(str(other)).fingerprint()
    other.write_bytes(b"trained again")
    assert one != (again := read_checkpoint(str(other)).fingerprint())
    (folder / "hparams.yaml").write_text((folder / "hparams.yaml").read_text() + "layer: mix\n")
    assert again != read_checkpoint(str(other)).fingerprint()


def test_models_of_the_hub_that_are_not_in_its_cache_are_named():
    with pytest.raises(UsageError, match=r"missing in its cache .*: model Unbabel/none.* hf download Unbabel/none"):
        read_checkpoint("Unbabel/none")


def test_an_encoder_that_is_not_in_the_cache_is_named(tmp_path):
    """COMET reads its tokenizer and configuration."""
    with pytest.raises(UsageError, match=r"missing in its cache .*: model nowhere/encoder-large"):
        read_checkpoint(checkpoint(tmp_path / "m", pretrained_model="nowhere/encoder-large"))


def test_what_comet_lacks_is_said_before_anything_is_translated(tmp_path, monkeypatch, tiny_lm):
    monkeypatch.delenv(comet_models.PYTHON, raising=False)
    settings = {"comet_name_or_path": checkpoint(tmp_path / "m", input_segments=["mt", "src"])}
    with pytest.raises(UsageError, match=r"no interpreter /nowhere/python; make it with scripts/setup.sh --comet"):
        create("comet-qe", ENGLISH, BASQUE, SelectionSettings(comet_python="/nowhere/python", **settings))
    monkeypatch.setenv(comet_models.PYTHON, "/elsewhere/python")
    with pytest.raises(UsageError, match="no interpreter /elsewhere/python"):
        create("comet-qe", ENGLISH, BASQUE, SelectionSettings(**settings))
    # An interpreter that finds a package `comet` that does not import, as without setuptools<81.
    (tmp_path / "comet").mkdir()
    (tmp_path / "comet" / "__init__.py").write_text("import pkg_resources_that_is_gone")
    (tmp_path / "unbabel_comet-2.2.7.dist-info").mkdir()
    (tmp_path / "unbabel_comet-2.2.7.dist-info" / "METADATA").write_text("Name: unbabel-comet\nVersion: 2.2.7\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    flags = options(
        tiny_lm, num_return_sequences=2, temperature=1.0, selection_method="comet-qe", comet_python=sys.executable
    )
    run = in_process(
        "main.py", *flags, "--comet_name_or_path", settings["comet_name_or_path"], "--output_dir", tmp_path / "out"
    )
    assert run.returncode == 2 and not list(tmp_path.rglob("answers.jsonl"))
    assert "No module named 'pkg_resources_that_is_gone'); make it with scripts/setup.sh --comet" in run.stderr


def test_a_missing_environment_is_in_the_list_of_all_that_is_missing(tmp_path):
    more = dict(num_return_sequences=2, temperature=1.0, selection_method="comet-qe")
    for python, is_named in ((tmp_path / "python", True), (sys.executable, False)):
        flags = options("nobody/nothing", comet_name_or_path="nobody/qe", comet_python=python, **more)
        run = in_process("main.py", *flags, "--output_dir", tmp_path / "out")
        assert run.returncode == 2 and "model nobody/nothing" in run.stderr and "model nobody/qe" in run.stderr
        assert (f"COMET environment {python}" in run.stderr) == ("scripts/setup.sh --comet" in run.stderr) == is_named


@pytest.mark.parametrize(
    "script_text, says",
    [
        ("exit 3", "COMET failed in .*no message"),
        ("echo Killed by the kernel >&2; exit 1", "Killed by the kernel"),
        ("kill -9 $$", "it ended with signal 9"),
        ("echo Welcome to the cluster; echo 7; exit 1", "COMET failed in .*no message"),
        ('echo \'{"ready": "1"}\'; read line; echo half >&2; printf \'{"sco\'', "half.*what is scored is kept"),
    ],
)
def test_a_process_that_dies_is_one_line(script_text, says, tmp_path):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script_text}\n")
    python.chmod(0o755)
    model = Comet(read_checkpoint(checkpoint(tmp_path / "m")), str(python))
    with pytest.raises(UsageError, match=says):
        model.score([("a", "b" * 200_000, None)])
    model.close()


def test_a_start_script_may_print_and_must_start(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho Welcome to the cluster\necho \'{"ready": "1"}\'\n')
    python.chmod(0o755)
    assert python_of(str(python)) == str(python)
    (tmp_path / "text").write_text("not a program\n")
    (tmp_path / "text").chmod(0o755)
    with pytest.raises(
        UsageError, match=r"COMET failed in .*text \(Exec format error\); make it with scripts/setup.sh"
    ):
        python_of(str(tmp_path / "text"))


def test_models_are_named_by_metric(tmp_path):
    original(tmp_path, "a")
    for flags, says in (
        (("--comet_models", "kiwi=x"), "'kiwi=x' is not METRIC=MODEL with a metric of comet, "),
        (("--comet_models", "chrf=x"), "is not METRIC=MODEL"),
        (("--comet_models", "cometkiwi"), "is not METRIC=MODEL"),
        (("--comet_models", "cometkiwi=x"), "--comet_models has no effect without --metrics that name each"),
        (("--comet_python", "x"), "--comet_python has no effect without --metrics comet or a relative"),
    ):
        run = in_process("comptra.evaluate", tmp_path, "--dataset_name_or_path", "udhr", *flags)
        assert run.returncode == 2 and says in run.stderr, run.stderr


def test_a_metric_without_its_environment_leaves_the_others(tmp_path):
    original(tmp_path / "runs", "a")
    run = in_process(
        *("comptra.evaluate", tmp_path / "runs", "--dataset_name_or_path", "udhr", "--metrics", "chrf", "comet"),
        *("--comet_models", f"comet={checkpoint(tmp_path / 'm', class_identifier='regression_metric')}"),
        *("--comet_python", "/nowhere/python", "--json", tmp_path / "report.json"),
    )
    assert run.returncode == 3 and "there is no interpreter /nowhere/python" in run.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["groups"][0]["systems"][0]["scores"]["comet"] is None
    assert report["groups"][0]["systems"][0]["scores"]["chrf"]["score"] > 0
