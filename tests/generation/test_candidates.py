"""--number_of_candidates: which candidate is kept, where the others are, kills, refusals."""

import contextlib
import json
import random
import shutil
import subprocess
import sys
import time

import pytest

from datagen import build_parser
from tests.support.runs import ROOT, datagen, records
from tests.support.tiny_metricx import build_metricx
from tests.support.tiny_models import udhr_pairs
from tests.support.tiny_sonar import build_blaser, build_sonar
from topxgen import translation
from topxgen.common.errors import UsageError
from topxgen.common.records import Layout
from topxgen.generation import candidates
from topxgen.generation.candidates import choose
from topxgen.generation.dry_run import _later_stages, _tokenizer
from topxgen.generation.plan import GenerationConfig
from topxgen.text import languages

BASQUE, ENGLISH = languages.find("Basque"), languages.find("English")
PAIRS = udhr_pairs("Basque")
TEXTS = [a for a, _ in PAIRS if len(a) > 60]


def write_paragraphs(folder, count: int = 12):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"text": " ".join([*TEXTS[2 * i : 2 * i + 2], "Bai."]), "topic": f"t{i}", "id": f"Basque-{i:06}.0"}
        for i in range(count)
    ]
    (folder / "Basque.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def files(folder, name="t"):
    return {
        path.name: path.read_bytes()
        for path in sorted((folder / name).iterdir())
        if path.suffix == ".jsonl" and not path.name.endswith("_answers.jsonl")
    }


# Which is chosen


def one(text: str, reason: str | None = None, **more) -> dict:
    return {"translation": text, "confidence": 0.5, **({"reason": reason} if reason else {}), **more}


@pytest.mark.parametrize(
    "several, scores, expected",
    [
        ([one("a"), one("b"), one("c")], [1.0, 3.0, 2.0], "b"),
        ([one("a"), one("b")], [2.0, 2.0], "a"),
        ([one("a"), one("b")], [-3.0, -1.0], "b"),
        ([one("a"), one("b")], [None, -9.0], "b"),
        ([one("a"), one("b")], [float("nan"), -9.0], "b"),
        ([one("a"), one("b")], [None, None], "a"),
        ([one("a", "translation_too_short"), one("b")], [None, -9.0], "b"),
    ],
)
def test_the_best_of_those_that_may_be_chosen(several, scores, expected):
    [(sentence, best, score)], rejected, others = choose(["S"], [several], [scores])
    assert (sentence, best["translation"], rejected) == ("S", expected, [])
    assert score is scores[[item["translation"] for item in several].index(expected)]
    assert [other["translation"] for other in others] == [i["translation"] for i in several if i is not best]
    assert all(other["sentence"] == "S" and "score" in other for other in others)


def test_a_sentence_whose_candidates_are_all_rejected():
    several = [one("a", "translation_failed", detail="cut", segments=2), one("b", "translation_too_short")]
    kept, rejected, others = choose(["S"], [several], [[None, None]])
    assert kept == []
    assert rejected == [
        {"sentence": "S", "translation": "a", "reason": "translation_failed", "detail": "cut", "segments": 2}
    ]
    assert others == [{"sentence": "S", **several[1], "score": None}]


def test_equal_candidates_are_merged():
    translations = [
        translation.Translation(text, confidence) for text, confidence in (("a", 0.3), ("b", 0.2), ("a", 0.9))
    ]
    assert candidates._without_duplicates(translations) == translations[:2]


# The stage


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    texts = [text for pair in PAIRS for text in pair]
    blaser = build_blaser(folder / "model.pt", 64)
    return {
        "blaser": ("--sonar_name_or_path", build_sonar(folder / "sonar", texts), "--blaser_name_or_path", blaser),
        "metricx-qe": ("--metricx_name_or_path", build_metricx(folder / "metricx-24-tiny", texts)),
        "confidence": (),
    }


def flags(folder, nllb, *more, stages=("translate", "score")):
    return (
        "--languages", "Basque", "--output_dir", folder, "--translate_dir", "t", "--stages", *stages, "--use_nllb",
        "--nllb_name_or_path", nllb, "--nllb_compute_type", "float32", "--cache_dir", folder.parent / "cache", *more,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["blaser", "metricx-qe", "confidence"])
def test_selection_by_each(models, tiny_nllb, tmp_path, name):
    folder = write_paragraphs(tmp_path / "run")
    command = flags(
        folder, tiny_nllb, "--number_of_candidates", 4, "--select_by", name, "--scorer", name, *models[name]
    )
    result = datagen(*command)
    kept, others = records(folder / "t/Basque_translate.jsonl"), records(folder / "t/Basque_translate_others.jsonl")
    assert [record["id"] for record in kept] == [f"Basque-{i:06}.0" for i in range(12)] and kept[0]["topic"] == "t0"
    losers = {}
    for line in others:
        for other in line["others"]:
            losers.setdefault((line["id"], other["sentence"]), []).append(other)
    pairs = 0
    for record in kept:
        assert len(record["scores"]) == len(record["propositions"]) == len(record["confidences"])
        for sentence, text, score in zip(
            *(record[key] for key in ("propositions", "translations", "scores")), strict=True
        ):
            pairs += 1
            of_sentence = losers.get((record["id"], sentence), [])
            assert text not in [other["translation"] for other in of_sentence] and len(of_sentence) <= 3
            assert all(other["score"] <= score for other in of_sentence if "reason" not in other)
            assert all(other["score"] is None for other in of_sentence if "reason" in other)
    assert pairs > 5 and len(others) > 5
    assert {record["scorer"].split()[0] for record in kept} == {name}
    assert not (folder / "t/Basque_candidates.jsonl").exists()
    assert "loading " not in result.stderr.partition("select:")[2], "the scores are there already"
    manifest = json.loads((folder / "t/manifest_translate.json").read_text())
    assert manifest["settings"]["number_of_candidates"] == 4
    assert manifest["settings"]["select_by"].split()[0] == name == manifest["settings"]["select_by"].split(" (")[0]
    assert json.loads((folder / "t/settings_translate.json").read_text())["select_by"] == kept[0]["scorer"]
    before = {path: path.read_bytes() for path in folder.rglob("*.json*")}
    datagen(*command)
    assert {path: path.read_bytes() for path in folder.rglob("*.json*")} == before


def test_confidence_takes_the_likeliest_that_the_filters_let_pass(tiny_nllb, tmp_path):
    """With one candidate the best beam is rejected or kept; with several the next one that passes is kept."""
    single, several = write_paragraphs(tmp_path / "1"), write_paragraphs(tmp_path / "4")
    datagen(*flags(single, tiny_nllb, "--scorer", "confidence"))
    datagen(
        *flags(several, tiny_nllb, "--scorer", "confidence", "--number_of_candidates", 4, "--select_by", "confidence")
    )
    ours, theirs = (
        {sentence: text for record in records(folder / "t/Basque_translate.jsonl")
         for sentence, text in zip(record["propositions"], record["translations"], strict=True)}
        for folder in (several, single)
    )  # fmt: skip
    assert theirs.items() <= ours.items() and len(ours) > len(theirs)
    counts = [
        json.loads((folder / "t/manifest_translate_Basque.json").read_text())["counts"] for folder in (single, several)
    ]
    assert counts[0]["sentences"] == counts[1]["sentences"] and counts[1]["pairs"] == len(ours)
    assert counts[1]["rejected"]["sentence_too_short"] == counts[0]["rejected"]["sentence_too_short"] == 12


def test_one_candidate_is_the_path_without(tiny_nllb, tmp_path):
    folders = [write_paragraphs(tmp_path / name) for name in ("without", "one")]
    for folder, more in zip(folders, ((), ("--number_of_candidates", 1)), strict=True):
        datagen(*flags(folder, tiny_nllb, "--scorer", "confidence", *more))
    assert files(folders[0]) == files(folders[1]) and "Basque_translate_others.jsonl" not in files(folders[0])


def test_paragraphs_that_come_later(tiny_nllb, tmp_path):
    folder = write_paragraphs(tmp_path / "run", 5)
    command = flags(
        folder, tiny_nllb, "--scorer", "confidence", "--number_of_candidates", 3, "--select_by", "confidence"
    )
    datagen(*command)
    first = files(folder)
    datagen(*(command if write_paragraphs(folder) else ()))
    for name, content in files(folder).items():
        assert content.startswith(first[name]), name
    assert len(records(folder / "t/Basque_translate.jsonl")) == 12


@pytest.mark.medium
@pytest.mark.parametrize("seed", range(2))
def test_a_cut_anywhere_changes_nothing(models, tiny_nllb, tmp_path, monkeypatch, seed):
    """Files cut at random places, as kills leave them: of the collection, or of the selection."""
    monkeypatch.setattr(candidates, "PARAGRAPHS_PER_BLOCK", 4)
    more = ("--number_of_candidates", 3, "--select_by", "blaser", *models["blaser"])
    whole = write_paragraphs(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr("topxgen.generation.run.write_manifests", _interrupted)
        datagen(*flags(whole, tiny_nllb, *more), check=130)
    collected = (whole / "t/Basque_candidates.jsonl").read_bytes()
    datagen(*flags(whole, tiny_nllb, *more))
    finished, rng = files(whole), random.Random(seed)
    for trial in range(4):
        folder = tmp_path / f"{trial}"
        shutil.copytree(whole, folder)
        for path in (folder / "t").iterdir():
            if path.name != "settings_translate.json":
                path.unlink()
        if trial % 2:  # within the collection
            (folder / "t/Basque_candidates.jsonl").write_bytes(collected[: rng.randrange(len(collected))])
        else:  # within the selection: the files are written in this order, paragraph by paragraph
            (folder / "t/Basque_candidates.jsonl").write_bytes(collected)
            _cut_selection(folder, finished, rng)
        estimate = datagen(*flags(folder, tiny_nllb, *more), "--dry_run").stdout
        assert trial % 2 or "translate  0 sentences" in estimate, "all candidates are there"
        datagen(*flags(folder, tiny_nllb, *more))
        for torn in (folder / "t").glob("*.torn"):
            torn.unlink()
        assert files(folder) == finished


def _interrupted(*_):
    raise KeyboardInterrupt


def _cut_selection(folder, finished: dict[str, bytes], rng: random.Random) -> None:
    names = ("Basque_translate_rejects.jsonl", "Basque_translate_others.jsonl", "Basque_translate.jsonl")
    lines = {
        name: {json.loads(line)["id"]: line for line in finished[name].splitlines(keepends=True)} for name in names
    }
    order = [(name, key) for key in lines[names[2]] for name in names if key in lines[name]]
    whole = rng.randrange(len(order))
    for i, (name, key) in enumerate(order[: whole + 1]):
        with open(folder / "t" / name, "ab") as file:
            file.write(lines[name][key] if i < whole else lines[name][key][: rng.randrange(len(lines[name][key]))])


@pytest.mark.slow
def test_killed_at_random(models, tiny_nllb, tmp_path):
    """kill -9 of real processes during translation, selection, scoring and dropping."""
    more = ("--number_of_candidates", 3, "--select_by", "blaser", *models["blaser"], "--min_score", "0.025")
    whole = write_paragraphs(tmp_path / "whole")
    datagen(*flags(whole, tiny_nllb, *more))
    assert "score_below_min" in (whole / "t/Basque_translate_rejects.jsonl").read_text()
    expected, rng, kills, trials = files(whole), random.Random(5), 0, 0
    while kills < 15:
        folder = write_paragraphs(tmp_path / str(trials))
        while _is_killed(flags(folder, tiny_nllb, *more), folder / "t", rng):
            kills += 1
        for torn in (folder / "t").glob("*.torn"):
            torn.unlink()
        assert files(folder) == expected, trials
        trials += 1


def _is_killed(command, folder, rng: random.Random) -> bool:
    """Run datagen.py and kill it once it has written so many bytes more; False if it ended before."""

    def size():
        return sum(path.stat().st_size for path in folder.glob("*.json*")) if folder.exists() else 0

    limit = size() + rng.randrange(12_000)
    with subprocess.Popen(
        [sys.executable, "datagen.py", *map(str, command)], cwd=ROOT, stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None:
            with contextlib.suppress(FileNotFoundError):  # renamed just now
                if size() > limit:
                    process.kill()
                    process.wait()
            time.sleep(0.001)  # a core of its own would slow down what it watches
        assert process.returncode in (0, -9), process.stderr.read()
        return process.returncode != 0


# What is refused


@pytest.mark.parametrize(
    "more, message",
    [
        (("--back_translator", "apertium", "--number_of_candidates", 2), "--back_translator apertium gives one translation of a sentence"),
        (("--use_nllb", "--select_by", "blaser"), "--select_by has no effect without --number_of_candidates 2 or more"),
        (("--use_nllb", "--number_of_candidates", 2, "--candidate_temperature", 1), "--candidate_temperature has no effect without an LLM"),
        (("--number_of_candidates", 2, "--inference_api", "openai", "--select_by", "confidence"), "returns no token probabilities"),
        (("--number_of_candidates", 2, "--inference_api", "cohere"), "--number_of_candidates 2: --inference_api cohere gives one answer"),
        (("--number_of_candidates", 4, "--inference_api", "hf", "--num_beams", 3), "--number_of_candidates 4 is more than --num_beams 3"),
        (("--number_of_candidates", 2, "--inference_api", "hf", "--num_beams", 3, "--select_by", "confidence"), "is always the likeliest"),
        (("--use_nllb", "--number_of_candidates", 0), "'0' is not a whole number from 1 to 32"),
        (("--use_nllb", "--number_of_candidates", 33), "'33' is not a whole number from 1 to 32"),
        (("--use_nllb", "--number_of_candidates", 2, "--select_by", "blazer"), "did you mean blaser?" ),
        (("--use_nllb", "--number_of_candidates", 2, "--select_by", "confidence", "--metricx_name_or_path", "x"), "--metricx_name_or_path has no effect without --scorer or --select_by metricx-qe"),
        (("--use_nllb", "--number_of_candidates", 2, "--select_by", "metricx-qe", "--metricx_name_or_path", "/none/metricx-24"), "does not exist"),
    ],
)  # fmt: skip
def test_bad_combinations(datagen_here, tiny_lm, tiny_nllb, tmp_path, monkeypatch, more, message):
    monkeypatch.setenv("OPENAI_API_KEY", "k" * 20)
    monkeypatch.setenv("CO_API_KEY", "k" * 20)
    folder = write_paragraphs(tmp_path)
    nllb = ("--nllb_name_or_path", tiny_nllb) if "--use_nllb" in more else ()
    model = (
        ()
        if "--use_nllb" in more or "apertium" in more
        else ("--model_name_or_path", tiny_lm, "--demonstration_pool", "udhr")
    )
    place = ("--languages", "Basque", "--output_dir", folder, "--stages", "translate", "score")
    result = datagen_here(*place, *nllb, *model, *more)
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert not list(folder.glob("*/*.jsonl"))


def test_other_numbers_and_selectors_do_not_mix(models, tiny_nllb, tmp_path):
    folder = write_paragraphs(tmp_path / "run", 3)
    several = ("--number_of_candidates", 3, "--select_by", "confidence")
    datagen(*flags(folder, tiny_nllb, "--scorer", "confidence", *several))
    for more, message in (
        ((), "number_of_candidates was 3, now 1; select_by was 'confidence', now None"),
        (("--number_of_candidates", 3, *models["blaser"]), "select_by was 'confidence', now 'blaser (model.pt"),
    ):
        result = datagen(*flags(folder, tiny_nllb, "--scorer", "confidence", *more), check=2)
        assert message.split(" (")[0] in result.stderr
    older = write_paragraphs(tmp_path / "older", 3)
    datagen(*flags(older, tiny_nllb, "--scorer", "confidence"))
    path = older / "t/settings_translate.json"
    settings = json.loads(path.read_text())
    del settings["number_of_candidates"], settings["select_by"]
    path.write_text(json.dumps(settings))
    datagen(*flags(older, tiny_nllb, "--scorer", "confidence"))
    result = datagen(*flags(older, tiny_nllb, "--scorer", "confidence", *several), check=2)
    assert "number_of_candidates was 1, now 3" in result.stderr


@pytest.mark.medium
def test_damaged_candidates_end_in_one_line(tiny_nllb, tmp_path, monkeypatch):
    folder = write_paragraphs(tmp_path / "run", 3)
    command = flags(
        folder, tiny_nllb, "--scorer", "confidence", "--number_of_candidates", 2, "--select_by", "confidence"
    )
    with monkeypatch.context() as patched:
        patched.setattr("topxgen.generation.run.select", _interrupted)
        datagen(*command, check=130)
    path = Layout(folder, "t").candidates("Basque")
    good = records(path)
    for change, message in (
        ({"sentences": []}, "field candidates: expected 0 items, one per sentence, got"),
        ({"candidates": [[]]}, "field candidates[0]: expected list of length >= 1"),
        ({"candidates": [[{"confidence": 1}]]}, "field candidates[0][0]: object missing required field"),
        ({"id": "Basque-7.0"}, "has the paragraph Basque-7.0, which"),
    ):
        path.write_text("".join(json.dumps(line) + "\n" for line in [*good[:-1], good[-1] | change]))
        if "id" in change:
            path.write_text("".join(json.dumps(line) + "\n" for line in [*good, good[-1] | change]))
        result = datagen(*command, check=2)
        assert message in result.stderr and result.stderr.rstrip().splitlines()[-1].count(str(path)) >= 1


NO_CONFIDENCE = """
from topxgen.translation import Translation

class Two:
    version, block_size, settings = "two", 1000, {}
    def __init__(self, settings): ...
    def check(self, source, target): ...
    def load(self): ...
    def close(self): ...
    def candidates(self, sentences, source, target, on_done):
        on_done(len(sentences))
        return [[Translation(f"This is one translation of {len(s)} letters, {i}.") for i in "ab"] for s in sentences]
"""


def test_a_translator_of_ones_own_needs_a_confidence_to_select_by(models, tmp_path):
    folder = write_paragraphs(tmp_path / "run", 3)
    (tmp_path / "two.py").write_text(NO_CONFIDENCE)
    command = (
        "--languages", "Basque", "--output_dir", folder, "--translate_dir", "t", "--stages", "translate", "--back_translator",
        f"{tmp_path / 'two.py'}:Two", "--number_of_candidates", 2,
    )  # fmt: skip
    result = datagen(*command, "--select_by", "confidence", check=2)
    assert "no candidate has a score by confidence, so nothing can be chosen" in result.stderr
    for name in ("settings_translate.json", "SHA256SUMS"):
        (folder / "t" / name).unlink()
    datagen(*command, *models["blaser"])
    assert {len(line["others"]) for line in records(folder / "t/Basque_translate_others.jsonl")} == {2}


def test_paragraphs_without_candidates_do_not_hide_that_the_selector_gives_no_score():
    block = [
        {"sentences": ["a"], "candidates": [[{"translation": "b"}, {"translation": "c", **more}]]}
        for more in ({}, {"reason": "translation_too_short"})
    ]
    block[1]["candidates"][0][0]["reason"] = "translation_too_short"

    class NoScores:
        id = "mine"

        def score(self, records, source, target):
            return [[None] * len(record["translations"]) for record in records]

    with pytest.raises(UsageError, match="no candidate has a score by mine"):
        candidates._scores(NoScores(), block, BASQUE, ENGLISH)


def test_a_dry_run_counts_the_candidates(tiny_lm, tmp_path):
    folder = write_paragraphs(tmp_path / "run")
    command = (
        "--languages", "Basque", "--output_dir", folder, "--stages", "translate", "score", "--model_name_or_path", tiny_lm, "--inference_api",
        "hf", "--demonstration_pool", "udhr", "--scorer", "none", "--dry_run",
    )  # fmt: skip
    estimates = []
    for more in ((), ("--number_of_candidates", 5, "--select_by", "confidence")):
        out = datagen(*command, *more).stdout
        config = GenerationConfig(build_parser().parse_args([*map(str, command), *map(str, more)]))
        estimates.append(next(_later_stages(config, 12, _tokenizer(config))))
    assert "5 candidates each" in out and "select     at most 720 candidates" in out
    assert estimates[1].prompt_tokens == estimates[0].prompt_tokens
    one, five = (estimate.completion_tokens for estimate in estimates)
    assert five == pytest.approx([5 * tokens for tokens in one]) and one > (0, 0)
    assert not (folder / Layout(folder, "tiny_lm").translate_dir_name).exists()


def test_an_llm_resumes_from_its_responses(tiny_lm, tmp_path):
    folder = write_paragraphs(tmp_path / "run", 3)
    command = (
        "--languages", "Basque", "--output_dir", folder, "--translate_dir", "t", "--stages", "translate", "--model_name_or_path", tiny_lm,
        "--inference_api", "hf", "--dtype", "float32", "--demonstration_pool", "udhr", "--number_of_demonstrations", 1,
        "--number_of_candidates", 3, "--select_by", "confidence",
    )  # fmt: skip
    datagen(*command)
    answers, whole = (folder / "t/Basque_translate_answers.jsonl").read_bytes(), files(folder)
    first = json.loads(answers.splitlines()[0])
    assert len(first["texts"]) == len(first["log_probabilities"]) == 3
    for name in ("Basque_translate.jsonl", "Basque_translate_rejects.jsonl", "Basque_translate_others.jsonl"):
        (folder / "t" / name).unlink()
    datagen(*command)
    assert (folder / "t/Basque_translate_answers.jsonl").read_bytes() == answers and files(folder) == whole
    result = datagen(*command, "--seed", 7, check=2)  # samples of another seed, and the saved ones of this
    assert "settings (seed was 122, now 7)" in result.stderr and files(folder) == whole
