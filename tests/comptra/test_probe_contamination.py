"""scripts/probe_contamination.py: a model that knows the test set by heart is found, its base and a model of other texts are not."""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from comptra.contamination import drop
from comptra.contamination.drop import Columns, drop_test, recall_test, sign_test
from comptra.contamination.twins import Sentence, Swap, make
from comptra.verify import verify
from tests.comptra.test_verify import claim_anew
from tests.support.flipped_bytes import flip_each
from tests.support.runs import in_process, lines_in, records, script
from tests.support.tiny_lm import built_once, trained_once
from tests.support.tiny_memorised import OTHER_FORMS, TEST_FORMS, build_memorised, pairs
from topxgen.corpora import benchmarks
from topxgen.text import languages

RUN = "Basque_to_English_0_shot_seed_122_llm_vanilla_None_0_0"


@pytest.fixture(scope="module")
def memorised(tiny_lm, tmp_path_factory) -> str:
    """The small model, which then learnt the test set by heart."""
    build = partial(build_memorised, tiny_lm, learnt=pairs(TEST_FORMS))
    return built_once(tmp_path_factory, "memorised", trained_once("memorised", build))


@pytest.fixture(scope="module")
def other(tiny_lm, tmp_path_factory) -> str:
    """The small model, which learnt as many other pairs by heart."""
    build = partial(build_memorised, tiny_lm, learnt=pairs(OTHER_FORMS))
    return built_once(tmp_path_factory, "other", trained_once("other", build))


def written(folder: Path, rows: list[tuple[str, str]]) -> list[Path]:
    paths = [folder / "test.eus", folder / "test.eng"]
    for path, side in zip(paths, zip(*rows, strict=True), strict=True):
        path.write_text("".join(f"{text}\n" for text in side), encoding="utf-8")
    return paths


@pytest.fixture(scope="module")
def whole(tiny_lm, tmp_path_factory) -> Path:
    """A finished folder."""
    folder = tmp_path_factory.mktemp("whole")
    assert probe(*flags_of(folder, tiny_lm)).returncode == 0
    return folder


@pytest.fixture
def finished(whole, tmp_path) -> dict:
    """A copy of it in this test's folder; its report."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return report(tmp_path)


def flags_of(folder: Path, model: str, *more, rows=None) -> list:
    """The flags for a model, with later ones that override them."""
    files = written(folder, rows or pairs(TEST_FORMS))
    return [
        "--model_name_or_path", model, "--inference_api", "hf", "--dtype", "float32", "--dataset_name_or_path", "files", "--test_files",
        *files, "--src", "Basque", "--tgt", "English", "--max_new_tokens", 4, "--twins", 2, "--output_dir", folder / "out", *more,
    ]  # fmt: skip


@pytest.fixture
def flags(tmp_path):
    return partial(flags_of, tmp_path)


probe = partial(in_process, "scripts.probe_contamination")


def report(folder: Path) -> dict:
    return json.loads((folder / "out" / "contamination_report.json").read_text())


@pytest.mark.medium
def test_a_memorised_test_set_is_found_and_nothing_else(flags, memorised, other, tiny_lm, tmp_path):
    words = flags(memorised, "--base_model_name_or_path", f"{tiny_lm}/", "--max_new_tokens", 24)
    words[2:2] = [other]
    result = probe(*words)
    assert result.returncode == 0, result.stderr
    by_name = {Path(system["name"]).name: system for system in report(tmp_path)["systems"]}
    assert {name: system["suspicious"] for name, system in by_name.items()} == {
        Path(tiny_lm).name: False, "memorised": True, "other": False,
    }  # fmt: skip
    chrf = by_name["memorised"]["chrf"]
    assert chrf["original"] > 60 and chrf["drop"] > 10 and chrf["interval"][0] > 5
    assert chrf["interval"][0] < chrf["excess"] < chrf["interval"][1]
    assert chrf["drop"] == pytest.approx(chrf["original"] - sum(chrf["twins"]) / 2)
    base = by_name[Path(tiny_lm).name]
    assert base["baseline"] is None and chrf["excess"] == pytest.approx(chrf["drop"] - base["chrf"]["drop"])
    assert by_name["memorised"]["recall"]["recalled"] > 0 == by_name["memorised"]["recall"]["by_chance"]
    out, path = tmp_path / "out", tmp_path / "out" / "contamination_report.json"
    assert not verify(out).problems and str(path) not in verify(out).unchecked
    text = path.read_text()
    for old in ('"sentences": ', '"original": ', '"p": ', '"recalled": ', '"suspicious": ', '"verdict": "'):
        path.write_text(re.sub(f"{old}(true|false)?", f"{old}1", text, count=1))
        claim_anew(out)
        found = [problem.what for problem in verify(out).problems]
        assert any(what.endswith(old.strip('": ')) for what in found), (old, found)
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == list(by_name)
    assert ["signs that" in line for line in lines] == [system["suspicious"] for system in by_name.values()]
    assert ["does not prove" in line for line in lines] == [not system["suspicious"] for system in by_name.values()]


@pytest.mark.slow
def test_real_sentences_that_were_learnt_by_heart(flags, ntrex, tiny_lm, tmp_path):
    """36 short sentences of NTREX-128, and as many others of it, on which the control was trained."""
    sides = [benchmarks.load("ntrex", languages.find(name), ntrex.parent) for name in ("Basque", "English")]
    rows = list(zip(*([text for split in side for text in split.texts] for side in sides), strict=True))
    rows = [row for row in rows if max(map(len, row)) <= 70]
    changed = [rows[number - 1] for number in make(rows, ("eus", "eng"), 2, 122).numbers]
    seen, unseen = changed[0:72:2], changed[1:72:2]
    for name, learnt in (("seen", seen), ("unseen", unseen)):
        build_memorised(tiny_lm, tmp_path / name, learnt, steps=200)
    words = flags(tmp_path / "seen", "--base_model_name_or_path", tiny_lm, "--max_new_tokens", 48, rows=seen)
    words[2:2] = [tmp_path / "unseen"]
    result = probe(*words)
    assert result.returncode == 0, result.stderr
    print(result.stdout)
    suspicious = {system["name"]: system["suspicious"] for system in report(tmp_path)["systems"]}
    assert suspicious == {Path(tiny_lm).name: False, "unseen": False, "seen": True}


def test_the_files(flags, tiny_lm, tmp_path):
    rows = [*pairs(TEST_FORMS), ("Egun on.", "Good morning.")]
    result = probe(*flags(tiny_lm, rows=rows))
    assert result.returncode == 0, result.stderr
    assert "36 of 37 sentences have a number or a name" in result.stderr
    out = tmp_path / "out"
    sentences = records(out / "twins.jsonl")
    assert [tuple(row.values()) for row in sentences[:36]] == rows[:36] and len(sentences) == 108
    assert [list(row) for row in sentences[:1]] == [["Basque", "English"]]
    swaps = records(out / "swaps.jsonl")
    assert [(row["sentence"], row["twin"]) for row in swaps] == [(n, t) for t in (1, 2) for n in range(1, 37)]
    for row, twin in zip(swaps, sentences[36:], strict=True):
        for swap in row["swaps"]:
            assert swap["new"] in twin["Basque"] and swap["new"] in twin["English"]
            assert swap["old"] in rows[row["sentence"] - 1][0]
    done = records(out / "translations" / Path(tiny_lm).name / RUN / "translate_0.jsonl")
    assert [row["sentence"] for row in done] == [row["Basque"] for row in sentences]
    facts = report(tmp_path)
    assert (facts["sentences"], facts["left_out"], facts["margin"], facts["settings"]["twins"]) == (36, 1, 1.0, 2)
    assert facts["swapped"] == {"year": 0, "number": 24, "name": 60, "left": 0}
    assert {"twins.jsonl", "swaps.jsonl", "contamination_report.json", "translate_0.jsonl"} <= flip_each(out, 7)


@pytest.mark.medium
def test_a_killed_probe_resumes(flags, memorised, tmp_path):
    words = flags(memorised, "--request_batch_size", 1)
    answers = tmp_path / "out" / "translations" / Path(memorised).name / RUN / "answers.jsonl"
    script("scripts/probe_contamination.py", *words, killed_at=(answers, 20))
    assert 20 <= lines_in(answers) < 108 and not (tmp_path / "out" / "contamination_report.json").exists()
    kept = answers.read_bytes().rpartition(b"\n")[0]
    assert probe(*words).returncode == 0
    assert answers.read_bytes().startswith(kept)
    resumed, ids = report(tmp_path), sorted(row["id"] for row in records(answers))
    assert len(set(ids)) == len(ids)
    (tmp_path / "out").rename(tmp_path / "killed")
    assert probe(*words).returncode == 0
    assert report(tmp_path) == resumed and sorted(row["id"] for row in records(answers)) == ids
    for name in ("twins.jsonl", "swaps.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    before = answers.stat().st_mtime_ns
    assert probe(*words).returncode == 0 and answers.stat().st_mtime_ns == before  # nothing is translated again


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--twins", 3), "twins was 2, now 3"),
        (("--seed", 7), "seed was 122, now 7"),
        (("--max_new_tokens", 8), "max_new_tokens was 4, now 8"),
    ],
)
def test_a_folder_of_other_flags_is_refused(flags, tiny_lm, finished, tmp_path, more, message):
    result = probe(*flags(tiny_lm, *more))
    assert result.returncode == 2 and message in result.stderr
    assert report(tmp_path) == finished


def test_a_folder_of_another_test_set_is_refused_and_another_margin_is_not(flags, tiny_lm, finished, tmp_path):
    result = probe(*flags(tiny_lm, rows=pairs(TEST_FORMS)[:-1]))
    assert result.returncode == 2 and "test_set_digest was" in result.stderr
    assert probe(*flags(tiny_lm, "--margin", 0)).returncode == 0
    assert report(tmp_path)["margin"] == 0


def test_too_few_sentences_that_change_are_refused(flags, tiny_lm, tmp_path):
    rows = [*pairs(TEST_FORMS)[:29], *[("Egun on.", "Good morning.")] * 20]
    result = probe(*flags(tiny_lm, rows=rows))
    assert result.returncode == 2 and "only 29 of 49 sentences" in result.stderr and "fewer than 30" in result.stderr
    assert not (tmp_path / "out").exists()
    assert probe(*flags(tiny_lm, rows=[*rows, pairs(TEST_FORMS)[29]])).returncode == 0


def test_names_that_no_script_shares_are_not_swapped(flags, tiny_lm):
    rows = [("ओबामा यहाँ आए।", "Obama came here.")] * 40
    result = probe(*flags(tiny_lm, "--src", "Nepali", rows=rows))
    assert result.returncode == 2 and "only 0 of 40" in result.stderr and "Latin letters" in result.stderr


def test_sides_that_are_not_parallel_are_refused(flags, tiny_lm, tmp_path):
    words = flags(tiny_lm)
    (tmp_path / "test.eng").write_text("One line.\n")
    result = probe(*words)
    assert result.returncode == 2 and "must be parallel" in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--method_translate", "none", "--steps", "1"), "translates nothing"),
        (("--method_translate", "nllb", "--base_model_name_or_path", "x"), "--base_model_name_or_path is for LLMs"),
        (("--twins", "6"), "from 1 to 5"),
        (("--tgt", "English", "Hausa"), "one direction at a time"),
        (("--margin", "-1"), "-1"),
    ],
)
def test_flags_that_make_no_sense(flags, tiny_lm, more, message):
    result = probe(*flags(tiny_lm, *more))
    assert result.returncode == 2 and message in result.stderr


def test_without_all_translations_there_is_no_report(flags, tiny_lm, tmp_path):
    result = probe(*flags(tiny_lm, "--max_model_len", 60))  # some prompts are too long
    assert result.returncode == 3 and "no report" in result.stderr
    assert not (tmp_path / "out" / "contamination_report.json").exists()
    assert probe(*flags(tiny_lm)).returncode == 0 and report(tmp_path)["sentences"] == 36


@pytest.mark.medium
def test_demonstrations_and_a_dry_run(flags, tiny_lm, tmp_path):
    pool = [tmp_path / "pool.eus", tmp_path / "pool.eng"]
    for path, side in zip(pool, zip(*pairs(OTHER_FORMS), strict=True), strict=True):
        path.write_text("\n".join(side))
    words = flags(tiny_lm, "--k", 2, "--demonstration_pool", *pool)
    shown = probe(*words, "--dry_run")
    assert shown.returncode == 0 and "twin 2" in shown.stdout and not (tmp_path / "out").exists()
    assert probe(*words).returncode == 0
    assert len(records(tmp_path / "out" / "pool.jsonl")) == 36
    folder = tmp_path / "out" / "translations" / Path(tiny_lm).name
    assert {path.name for path in folder.iterdir()} - {"rates.json"} == {RUN.replace("_0_shot", "_2_shot")}


# The statistics


def means(rng, count: int, variants: int, lift: float = 0.0) -> Columns:
    """Scores of sentences, some of which are harder than others; the original's are `lift` higher."""
    hardness = rng.normal(40, 15, count)
    columns = [
        np.column_stack([hardness + rng.normal(0, 6, count) + lift * (v == 0), np.ones(count)]) for v in range(variants)
    ]
    return Columns(columns, lambda sums: sums[..., 0] / sums[..., 1])


def test_the_drop_test_keeps_its_level_and_finds_what_is_there():
    rng = np.random.default_rng(3)
    level = drop.LEVEL / drop.SIGNALS
    p = [drop_test(means(rng, 60, 4), None, 0.0, seed)["p"] for seed in range(150)]
    assert 0.005 < np.mean(np.array(p) <= level) < 0.06  # 0.025
    with_baseline = [drop_test(means(rng, 60, 3), means(rng, 60, 3), 0.0, seed)["p"] for seed in range(80)]
    assert np.mean(np.array(with_baseline) <= level) < 0.07
    lifted = [drop_test(means(rng, 60, 4, lift=6.0), None, 1.0, seed) for seed in range(10)]
    assert all(result["p"] <= level and result["interval"][0] > 1 for result in lifted)


def test_the_margin_is_what_the_original_may_be_easier():
    columns = means(np.random.default_rng(5), 200, 3, lift=3.0)
    assert drop_test(columns, None, 1.0, 1)["p"] < 0.01 < 0.9 < drop_test(columns, None, 5.0, 1)["p"]


def test_what_the_baseline_drops_too_is_no_sign():
    rng = np.random.default_rng(8)
    harder = drop_test(means(rng, 100, 3, lift=5.0), means(rng, 100, 3, lift=5.0), 1.0, 1)
    assert harder["drop"] > 3 and abs(harder["excess"]) < 3 and harder["p"] > 0.05


def test_among_twins_are_the_drops_of_texts_that_nobody_has_seen():
    result = drop_test(means(np.random.default_rng(9), 100, 4, lift=9.0), None, 1.0, 1)
    assert len(result["among_twins"]) == 3 and max(map(abs, result["among_twins"])) < 3 < result["drop"]
    assert drop_test(means(np.random.default_rng(9), 100, 2), None, 1.0, 1)["among_twins"] == []


def test_the_sign_test():
    assert sign_test(0, 0) == 1
    assert sign_test(5, 0) == 1 / 32
    assert sign_test(6, 0) <= drop.LEVEL / drop.SIGNALS < sign_test(5, 0)
    assert sign_test(3, 3) == pytest.approx(42 / 64)


def variants(*swaps: tuple[str, str, str]) -> list[list[Sentence]]:
    original = Sentence(
        " ".join(s[1] for s in swaps), " ".join(s[1] for s in swaps), tuple(Swap(k, o, o) for k, o, _ in swaps)
    )
    twin = Sentence(" ".join(s[2] for s in swaps), " ".join(s[2] for s in swaps), tuple(Swap(*s) for s in swaps))
    return [[original], [twin]]


def test_values_of_the_original_that_come_back_are_counted():
    both = variants(("name", "Obama", "Merkel"), ("number", "45", "73"), ("number", "7", "8"), ("year", "2018", "1998"))
    of = lambda original, twin, base=None: recall_test(both, [[original], [twin]], base)  # noqa: E731
    clean = of("Obama 45 7 2018", "Merkel 73 8 1998")
    assert (clean["recalled"], clean["by_chance"], clean["of"], clean["p"]) == (0, 0, 2, 1)
    found = of("Obama 45 7 2018", "Obama's 45 7 2018")  # a digit and a year are often right by chance
    assert (found["recalled"], found["by_chance"], found["sentences_more"], found["p"]) == (2, 0, 1, 0.5)
    reverse = of("Merkel 45", "Merkel 73")
    assert (reverse["recalled"], reverse["by_chance"], reverse["sentences_less"]) == (0, 1, 1)
    same_as_base = of("Obama 45", "Obama 45", [["Obama 45"], ["Obama 45"]])
    assert (same_as_base["recalled"], same_as_base["sentences_more"], same_as_base["p"]) == (2, 0, 1)
    more_than_base = of("Obama 45", "Obama 45", [["Merkel 45"], ["Merkel 45"]])
    assert (more_than_base["sentences_more"], more_than_base["sentences_less"]) == (1, 0)
    chance_of_base = of(
        "Merkel", "Obama", [["Merkel"], ["Merkel"]]
    )  # it brings a value of the twin for the original, too
    assert (chance_of_base["recalled"], chance_of_base["by_chance"], chance_of_base["sentences_more"]) == (1, 1, 1)


def test_a_value_that_the_twin_has_in_another_place_is_not_recalled():
    both = variants(("name", "Obama", "Merkel"), ("name", "Merkel", "Obama"))
    assert recall_test(both, [["Obama Merkel"], ["Merkel Obama"]], None)["recalled"] == 0
