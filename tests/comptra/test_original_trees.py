"""Trees and flags of the original's evaluation, and the best of two systems."""

import json
import shutil
from pathlib import Path

import pytest

from comptra import evaluation_sets
from comptra.scores import ensemble, original_flags, original_trees
from tests.support import evaluations
from tests.support.evaluations import settings, udhr, worse
from tests.support.main_runs import texts
from tests.support.runs import ROOT, in_process, records
from tests.support.tiny_metricx import build_metricx
from topxgen.common.errors import UsageError
from topxgen.text import languages

RUN = "English_to_Basque_2_shot_seed_122_llm_vanilla_None_0_0"


def scores(path: Path) -> dict[str, dict]:
    """The scores in a report by the path of the system, relative to the tree."""
    (group, *others) = json.loads(path.read_text())["groups"]
    assert not others
    return {
        system["path"]: {name: one["score"] for name, one in system["scores"].items()} for system in group["systems"]
    }


@pytest.fixture(scope="module")
def made(tiny_lm, tmp_path_factory) -> Path:
    """Small real runs by two methods into Basque, few-shot ones into Swahili, too."""
    from tests.support.main_runs import options

    output = tmp_path_factory.mktemp("made")
    for more in (("--tgt", "Basque", "Swahili"), ("--method_translate", "TEaR", "--tgt", "Basque")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("comptra.methods.conversation.THOUGHT_TOKENS", 24)
            result = in_process("main.py", *options(tiny_lm, *more, tgt=None), "--output_dir", output)
        assert result.returncode == 0, result.stderr
    return output


@pytest.fixture
def tree(made, tiny_lm, tmp_path) -> Path:
    """The same translations as the original leaves them: GENERATIONS/UDHR/{strategy}/{model}/{run}/translate_0.jsonl."""
    room = made / Path(tiny_lm).name
    for strategy, run, name in (
        ("few-shot", RUN, "checkpoint-10"),
        ("few-shot", RUN.replace("Basque", "Swahili"), "checkpoint-10"),
        ("TEaR", f"{RUN}_TEaR", "llama"),
    ):
        folder = tmp_path / "GENERATIONS" / "UDHR" / strategy / name / run.removesuffix("_TEaR")
        folder.mkdir(parents=True)
        shutil.copy(room / run / "translate_0.jsonl", folder)
    return tmp_path / "GENERATIONS"


@pytest.mark.medium
def test_a_tree_of_the_originals_is_scored_as_the_runs_are(made, tiny_lm, tree, tmp_path):
    direct = in_process(
        "comptra.evaluate",
        made / Path(tiny_lm).name / RUN,
        made / Path(tiny_lm).name / f"{RUN}_TEaR",
        "--json",
        tmp_path / "a.json",
    )
    assert direct.returncode == 0, direct.stderr
    flags = (
        "--data_dir",
        tree,
        "--dataset_name_or_path",
        "udhr",
        "--languages",
        "eus_Latn",
        "--strategies",
        "TEaR",
        "few-shot",
    )
    result = in_process("comptra.evaluate", *flags, "--json", tmp_path / "b.json", "--max_samples", 4)
    assert result.returncode == 0, result.stderr
    below = tree / "UDHR"
    expected = scores(tmp_path / "a.json")
    assert scores(tmp_path / "b.json") == {
        str(below / "few-shot" / "checkpoint-10" / RUN): expected[str(made / Path(tiny_lm).name / RUN)],
        str(below / "TEaR" / "llama" / RUN): expected[str(made / Path(tiny_lm).name / f"{RUN}_TEaR")],
    }
    (columns, other) = (
        system["columns"] for system in json.loads((tmp_path / "b.json").read_text())["groups"][0]["systems"]
    )
    assert {columns["method"], other["method"]} == {"few-shot", "TEaR"}
    assert {columns["checkpoint"], other["checkpoint"]} == {"10", ""}


def test_the_test_set_is_read_from_the_folders_and_said(tree):
    result = in_process("comptra.evaluate", tree, "--metrics", "chrf", "--max_samples", 4)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("by its name the test set is udhr") == 1
    (tree / "UDHR").rename(tree / "NTREX-128")
    wrong = in_process("comptra.evaluate", tree, "--metrics", "chrf", "--benchmark_dir", ROOT)
    assert wrong.returncode == 2 and "ntrex" in wrong.stderr, "the name alone is not believed"
    (tree / "NTREX-128").rename(tree / "mine")
    unnamed = in_process("comptra.evaluate", tree, "--metrics", "chrf", "--max_samples", 4)
    assert unnamed.returncode == 2 and "pass --dataset_name_or_path" in unnamed.stderr


@pytest.mark.parametrize(
    ("path", "dataset"),
    [
        ("GENERATIONS/FLORES/TEaR/llama", "flores"),
        ("GENERATIONS/FLORES-200/a/b/c/checkpoint-5", "flores"),
        ("NTREX/x/m", "ntrex"),
        ("TICO-19/m", "tico"),
        ("OOD/m", "ood"),
        ("GENERATIONS/x/flores", None),  # the model
        ("FLORES/1/2/3/4/5/6/m", None),
    ],
)
def test_names_of_folders(path, dataset):
    assert original_trees.dataset_of(Path("/a") / path / RUN) == dataset


def test_two_names_are_not_chosen_between():
    with pytest.raises(UsageError, match=r"several test sets \(ntrex, flores\); pass --dataset_name_or_path"):
        original_trees.dataset_of(Path("/flores/NTREX/m") / RUN)


def test_words_of_the_original(tree, caplog):
    caplog.set_level("INFO")
    below = tree / "UDHR"
    words = [
        "--data_dir",
        str(tree),
        "--names",
        "llama",
        "--number_of_predictions",
        "3",
        "--batch_size",
        "8",
        "--num_workers=2",
    ]
    words += [
        "--max_input_length",
        "1536",
        "--metric",
        "metricx",
        "--model_name_or_path",
        "google/metricx-23-qe-large-v2p0",
    ]
    assert original_flags.translated([*words, "--seed", "7", "--csv", "x.csv"]) == [
        str(below / "TEaR" / "llama" / RUN), "--metrics", "metricx-23-qe", "--metricx_name_or_path",
        "google/metricx-23-qe-large-v2p0", "--max_samples", "3", "--seed", "7", "--csv", "x.csv",
    ]  # fmt: skip
    for flag in ("max_input_length", "batch_size", "num_workers"):
        assert sum(f"--{flag} has no effect" in line for line in caplog.messages) == 1
    comet = ["out", "--metric", "comet", "bleu", "--model_name_or_path", "Unbabel/wmt22-cometkiwi-da"]
    assert original_flags.translated(comet) == [
        "--metrics", "cometkiwi", "bleu", "--comet_models", "cometkiwi=Unbabel/wmt22-cometkiwi-da", "out"
    ]  # fmt: skip
    assert original_flags.translated(["out", "--metrics", "bleu"]) == ["out", "--metrics", "bleu"]
    made = original_flags.translated(["out", "--ensembling", "--metric", "bleu", "--model_name_or_path", "m"])
    assert made[:2] == ["--metrics", "bleu"] and made[2:] == [
        "--ensemble_by",
        "blaser-qe",
        "--ensemble_dir",
        "best-of-two",
        "out",
    ]
    assert original_flags.translated(["out", "--ensembling", "false"]) == ["out"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--strategies", "cot"), "--strategies cot: no folder above the runs in"),
        (("--names", "gemma"), "has the name (TEaR, checkpoint-10, few-shot, llama)"),
        (("--languages", "Klingon"), "unknown language 'Klingon'"),
        (("--languages", "Hausa"), "are of the --strategies, --names and --languages that are given"),
        (("--number_of_predictions", 0), "'0' is not a whole number of 1 or more"),
        (("--metric", "bluu"), "'bluu' is not one of"),
    ],
)
def test_mistakes_in_flags_of_the_original(flags, message, tree):
    result = in_process("comptra.evaluate", "--data_dir", tree, "--dataset_name_or_path", "udhr", *flags)
    assert result.returncode == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr
    without = in_process("comptra.evaluate", tree, *flags[:1], "few-shot") if flags[0] == "--strategies" else None
    assert without is None or (without.returncode == 2 and "pass it" in without.stderr)


def test_the_first_predictions_alone(tree, tmp_path):
    flags = ("--data_dir", tree, "--strategies", "TEaR", "--metric", "chrf", "--json", tmp_path / "x.json")
    assert in_process("comptra.evaluate", *flags, "--number_of_predictions", 3).returncode == 0
    (group,) = json.loads((tmp_path / "x.json").read_text())["groups"]
    assert group["sentences"] == 3 and group["systems"][0]["missing"] == 0
    import sacrebleu

    hypotheses = texts(tree / "UDHR" / "TEaR" / "llama" / RUN / "translate_0.jsonl")[:3]
    expected = sacrebleu.corpus_chrf(hypotheses, [udhr().references[:3]], word_order=2).score
    assert group["systems"][0]["scores"]["chrf"]["score"] == pytest.approx(expected)


def test_eval_sh_takes_the_originals_flags(tree):
    import subprocess

    command = [
        "bash",
        ROOT / "scripts" / "eval.sh",
        "--data_dir",
        tree,
        "--strategies",
        "TEaR",
        "--metric",
        "chrf",
        "--max_samples",
        4,
    ]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tree)
    assert result.returncode == 0 and "chrF++" in result.stdout, result.stderr


@pytest.fixture(scope="module")
def metricx(tmp_path_factory) -> str:
    test = udhr()
    return build_metricx(tmp_path_factory.mktemp("models") / "metricx-24-tiny", test.sources + test.references)


def write(folder: Path, translations: list[str], **settings) -> Path:
    test = udhr()
    folder.mkdir(parents=True)
    lines = zip(test.sources, translations, strict=False)
    (folder / "translate_0.jsonl").write_text(
        "".join(json.dumps({"sentence": a, "translation": b}) + "\n" for a, b in lines)
    )
    known = {
        "src": "English",
        "tgt": "Basque",
        "dataset_name_or_path": "udhr",
        "max_samples": len(translations),
        **settings,
    }
    (folder / "manifest_translate.json").write_text(json.dumps({"settings": known, "model": folder.parent.name}))
    return folder


def test_the_best_of_two_is_a_system_of_its_own(metricx, tmp_path):
    test, count = udhr(), 12
    first = write(tmp_path / "out" / "a" / RUN, worse(test.references[:count], 0.3))
    second = write(tmp_path / "out" / "b" / RUN, [*worse(test.references[: count - 1], 0.3, seed=1), ""])
    lines = [{**line, "unanswered": True} for line in records(second / "translate_0.jsonl")]
    (second / "translate_0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ("--metricx_name_or_path", metricx, "--metric_dtype", "float32", "--cache_dir", tmp_path / "cache")
    flags = (
        *flags,
        "--metrics",
        "chrf",
        "metricx-24-qe",
        "--ensemble_by",
        "metricx-24-qe",
        "--ensemble_dir",
        tmp_path / "out" / "best",
    )
    for _ in range(2):  # again: what is there is no member, and not there twice
        result = in_process(
            "comptra.evaluate",
            tmp_path / "out",
            *flags,
            "--json",
            tmp_path / "s.json",
            "--segments",
            tmp_path / "s.jsonl",
        )
        assert result.returncode == 0, result.stderr
        (group,) = json.loads((tmp_path / "s.json").read_text())["groups"]
        assert len(group["systems"]) == 3
        (path,) = (tmp_path / "out" / "best").glob("*/English_to_Basque/translate_0.jsonl")
        by_name: dict[str, list[dict]] = {}
        for row in records(tmp_path / "s.jsonl"):
            by_name.setdefault(row["system"], []).append(row)
        name = f"best of a/{RUN[18:]} and b/{RUN[18:]} by metricx-24-qe"
        pairs = zip(by_name[f"a/{RUN[18:]}"], by_name[f"b/{RUN[18:]}"], strict=True)
        best = [b if b["metricx-24-qe"] < a["metricx-24-qe"] else a for a, b in pairs]
        assert [row["translation"] for row in by_name[name]] == texts(path) == [row["translation"] for row in best]
        assert {row["system"] for row in best} == {f"a/{RUN[18:]}", f"b/{RUN[18:]}"}, "of both"
        manifest = json.loads(path.with_name("manifest_translate.json").read_text())
        assert sum(manifest["chosen"]) == count and manifest["settings"]["ensembled_by"] == "metricx-24-qe"
        assert manifest["settings"]["ensemble_of"] == [str(first.resolve()), str(second.resolve())]
        unanswered = {system["name"]: system["unanswered"] for system in group["systems"]}
        assert unanswered[name] == manifest["chosen"][1] > 0, "marks of lines stay"
        assert sum(bool(line.get("unanswered")) for line in records(path)) == manifest["chosen"][1]
        systems = {system["name"]: system["scores"] for system in group["systems"]}
        assert "--ensemble_by metricx-24-qe" in systems[name]["metricx-24-qe"]["interference"][0]
        assert (
            not systems[name]["chrf"]["interference"] and not systems[f"a/{RUN[18:]}"]["metricx-24-qe"]["interference"]
        )
        mean = sum(row["metricx-24-qe"] for row in best) / count
        assert systems[name]["metricx-24-qe"]["score"] == pytest.approx(mean)
    alone = in_process("comptra.evaluate", path.parent, "--metrics", "chrf", "--json", tmp_path / "alone.json")
    assert alone.returncode == 0
    assert scores(tmp_path / "alone.json")[str(path.parent)]["chrf"] == systems[name]["chrf"]["score"]


OWN_METRIC = """from comptra.scores.metrics import Metric

class Longest:
    row = Metric("", reads=("source",), of_segments=True)
    signature = fingerprint = "longest"

    def __init__(self, settings):
        pass

    def score(self, segments, src, tgt):
        return [float(len(segment.translation)) for segment in segments]

    def close(self):
        pass
"""


def test_test_sets_and_parts_of_them_have_ensembles_of_their_own(tmp_path):
    (tmp_path / "own.py").write_text(OWN_METRIC)
    texts_of = evaluation_sets.load(
        "udhr-dev", *map(languages.find, ("English", "Basque")), folder=None, max_samples=None
    )
    for dataset, test in (("udhr", udhr()), ("udhr-dev", texts_of)):
        for model, share in (("a", 0.3), ("b", 0.2)):
            more = settings(dataset, model=model)
            evaluations.write(tmp_path / dataset / model / RUN, test.sources, worse(test.references, share), more)
    flags = (
        "--ensemble_by",
        f"{tmp_path / 'own.py'}:Longest",
        "--ensemble_dir",
        tmp_path / "udhr",
        "--metrics",
        "chrf",
    )
    for more in ((), ("--max_samples", 9), ()):  # the last finds those of both
        result = in_process("comptra.evaluate", tmp_path, *flags, *more, "--json", tmp_path / "s.json")
        assert result.returncode == 0, result.stderr
    counts = sorted(len(records(path)) for path in (tmp_path / "udhr").glob("*/English_to_Basque/*.jsonl"))
    assert counts == [9, 9, 21, 29]
    sizes = [len(group["systems"]) for group in json.loads((tmp_path / "s.json").read_text())["groups"]]
    assert sorted(sizes) == [1, 1, 3, 3]


def test_ties_and_missing_scores():
    assert ensemble.second_is_better([1.0, 1.0, None, None, 2.0], [1.0, 2.0, 0.5, None, None], True) == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert ensemble.second_is_better([1.0, 2.0], [2.0, 1.0], False) == [False, True]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--ensemble_by", "comet"), "--ensemble_by comet does not judge a translation by its source alone"),
        (("--ensemble_by", "mt-ranker"), "does not judge a translation by its source alone"),
        (("--ensemble_by", "chrf"), "does not judge a translation by its source alone"),
        (("--ensemble_by", "metricx-24-qe"), "it has 1 ("),
        (("--ensemble_by", "nothing"), "'nothing'"),
    ],
)
def test_what_cannot_be_an_ensemble(flags, message, tmp_path):
    write(tmp_path / "out" / "a" / RUN, udhr().references[:3])
    result = in_process(
        "comptra.evaluate", tmp_path / "out", *flags, "--ensemble_dir", tmp_path / "e", "--metrics", "chrf"
    )
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert not (tmp_path / "e").exists()
    nowhere = in_process("comptra.evaluate", tmp_path / "out", *flags)
    assert nowhere.returncode == 2 and "--ensemble_by has no effect without --ensemble_dir" in nowhere.stderr


def test_an_ensemble_by_a_metric_in_another_folder_stays_in_its_own(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "mine.py").write_text(
        "from comptra.scores.metrics import Metric\n\n\nclass Length:\n"
        "    row = Metric('', title='length', high=1e6, reads=('source',), of_segments=True)\n"
        "    fingerprint = signature = 'length'\n\n    def __init__(self, settings): ...\n\n"
        "    def score(self, segments, src, tgt):\n        return [float(len(s.translation)) for s in segments]\n\n"
        "    def close(self): ...\n"
    )
    monkeypatch.chdir(tmp_path / "here")
    for name, share in (("a", 0.3), ("b", 0.5)):
        write(tmp_path / "out" / name / RUN, worse(udhr().references[:5], share))
    flags = (
        "--ensemble_by",
        "../mine.py:Length",
        "--ensemble_dir",
        "best",
        "--cache_dir",
        "cache",
        "--metrics",
        "chrf",
    )
    result = in_process("comptra.evaluate", tmp_path / "out", *flags)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob("here/best/*/English_to_Basque/translate_0.jsonl"))) == 1
