"""The published recipe, an LLM writes, NLLB back-translates, BLASER scores, with small checkpoints of each."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.support import tiny_models, tiny_sonar
from tests.support.runs import TOPICS, contents, datagen, records
from topxgen.text import languages

LANGUAGES = ("Basque", "Swahili")
DIRECTORY = "nllb-tiny"


@pytest.fixture(scope="module")
def scorers(tmp_path_factory) -> tuple[str, str]:
    """Folders of a SONAR encoder and a BLASER with random weights."""
    folder = tmp_path_factory.mktemp("scorers")
    texts = [text for pair in tiny_models.udhr_pairs("Basque") for text in pair]
    (folder / "blaser-2.0-qe").mkdir()
    tiny_sonar.build_blaser(folder / "blaser-2.0-qe" / "model.pt")
    return tiny_sonar.build_sonar(folder / "sonar", texts), str(folder / "blaser-2.0-qe")


def published(model, nllb, scorers, cache, output, *more):
    """The command of the TopXGen paper, on small checkpoints."""
    sonar, blaser = scorers
    return (
        "--dataset_generation_pipeline", "topxgen", "--model_name_or_path", model, "--languages", *LANGUAGES,
        "--seed_topics_path", TOPICS, "--output_dir", output, "--example_paragraphs", "udhr", "--example_sentences", "udhr",
        "--number_of_icl_demonstrations", 1, "--number_of_icl_phrases", 2, "--temperature", 1.0, "--top_p", 1.0,
        "--use_nllb", "--nllb_name_or_path", nllb, "--translate_dir", DIRECTORY, "--cache_dir", cache,
        "--sonar_name_or_path", sonar, "--blaser_name_or_path", blaser, "--dtype", "float32", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tiny_lm, tiny_nllb, scorers, tmp_path_factory):
    """An undisturbed run; the tiny model writes something like Basque for either language."""
    folder, cache = tmp_path_factory.mktemp("published"), tmp_path_factory.mktemp("cache")
    arguments = published(
        tiny_lm, tiny_nllb, scorers, cache, folder, "--inference_api", "hf", "--max_new_tokens", 48,
        "--request_batch_size", 8, "--number_of_instructions_per_language", 12, "--prompt_template", "continuation",
    )  # fmt: skip
    result = datagen(*arguments)
    return folder, arguments, result


def check_run(folder: Path, scorers) -> int:
    """What must hold of the files of a run; the number of its pairs."""
    from topxgen.quality.blaser import Blaser

    scorer = Blaser(scorers[1], scorers[0])
    count = 0
    for name in LANGUAGES:
        translated = records(folder / DIRECTORY / f"{name}_translate.jsonl")
        assert [record["sentence"] for record in translated] == [
            record["text"] for record in records(folder / f"{name}.jsonl")
        ]
        for record in translated:
            pairs = (record["propositions"], record["translations"])
            assert len(pairs[0]) == len(pairs[1]) == len(record["scores"]) == len(record["confidences"])
            assert all(isinstance(score, float) for score in record["scores"])
            assert all(len(text) >= 40 and text.endswith(".") for text in record["translations"])
            expected = scorer.score(*pairs, languages.find(name), languages.find("English"))
            assert record["scores"] == pytest.approx(expected, abs=1e-5)
            count += len(record["scores"])
    scorer.close()
    return count


def test_from_topics_to_scored_pairs(whole, scorers):
    folder, _, result = whole
    assert check_run(folder, scorers) > 0
    assert (
        "NLLB, CTranslate2"
        in json.loads((folder / DIRECTORY / "manifest_translate.json").read_text())["translator_version"]
    )
    score = json.loads((folder / DIRECTORY / "manifest_score.json").read_text())
    assert score["settings"]["scorer"] == "blaser (blaser-2.0-qe, sonar, float32)" and score["truncated_texts"] == 0
    assert re.fullmatch("[0-9a-f]{16}", score["settings"]["scorer_weights"])
    assert re.findall(r"\n(\w+): .*; loading ", "\n" + result.stderr) == ["generate", "translate", "score"]
    pairs = sum(
        len(record["scores"])
        for name in LANGUAGES
        for record in records(folder / DIRECTORY / f"{name}_translate.jsonl")
    )
    order = [
        "generate: kept 24 paragraphs from ",
        f"translate: kept {pairs} pairs from ",
        f"score: {pairs} pairs with a score",
    ]
    assert sorted(map(result.stderr.index, order)) == list(map(result.stderr.index, order))


def scores(found: list[dict]) -> list[list[float]]:
    """Rounded: with other texts in a batch the last bits may differ."""
    return [[round(score, 6) for score in record["scores"]] for record in found]


@pytest.mark.medium
def test_killed_in_the_later_stages(whole, tmp_path):
    folder, arguments, _ = whole
    copy = tmp_path / "run"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(DIRECTORY))
    arguments = [copy if argument == folder else argument for argument in arguments]
    later = copy / DIRECTORY
    datagen(*arguments, killed_at=(later / "Basque_translate.jsonl", 1))
    datagen(*arguments, killed_at=(later / "manifest_translate.json", 0))  # while the scorer loads
    datagen(*arguments)
    found, wanted = contents(copy), contents(folder)
    for files in (found, wanted):
        del files[f"{DIRECTORY}/Basque_translate.jsonl"]
    assert found == wanted
    pairs = [records(run / DIRECTORY / "Basque_translate.jsonl") for run in (copy, folder)]
    assert scores(pairs[0]) == scores(pairs[1])
    for record in (*pairs[0], *pairs[1]):
        del record["scores"]
    assert pairs[0] == pairs[1]


def test_another_scorer_scores_again_and_the_same_does_not(whole, tmp_path, datagen_here):
    folder, arguments, _ = whole
    copy, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(folder, copy)
    other.mkdir()
    tiny_sonar.build_blaser(other / "model.pt", hidden=(32, 16))
    arguments = [copy if argument == folder else argument for argument in arguments]
    assert "loading" not in datagen_here(*arguments).stderr
    datagen_here(*arguments, "--stages", "score", "--blaser_name_or_path", other)
    new, old = (records(path / DIRECTORY / "Basque_translate.jsonl") for path in (copy, folder))
    assert {record["scorer"] for record in new if record["scores"]} == {"blaser (other, sonar, float32)"}
    assert [r["translations"] for r in new] == [r["translations"] for r in old]
    assert any(a["scores"] != b["scores"] for a, b in zip(new, old, strict=True))
    result = datagen_here(*arguments, "--stages", "score", "--scorer", "confidence")
    assert " by confidence" in result.stderr and "loading" not in result.stderr, "it loads nothing"
    new = records(copy / DIRECTORY / "Basque_translate.jsonl")
    assert all(record["scores"] == record["confidences"] for record in new)


def test_a_score_is_never_given_to_other_texts(whole, tmp_path, datagen_here):
    """A journal that a kill left, of other translations with the same ids; and a target language that is not theirs."""
    folder, arguments, _ = whole
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    path = copy / DIRECTORY / "Basque_translate.jsonl"
    unscored = [dict(record, scores=[None] * len(record["scores"]), scorer=None) for record in records(path)]
    path.write_text("".join(json.dumps(record) + "\n" for record in unscored))
    stale = [
        {"id": record["id"], "scorer": "blaser (blaser-2.0-qe, sonar, float32)", "scores": [9.0]} for record in unscored
    ]
    (copy / DIRECTORY / "Basque_scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in stale))
    arguments = [copy if argument == folder else argument for argument in arguments]
    refused = datagen_here(*arguments, "--stages", "score", "--target_language", "French")
    assert "are into English; pass --target_language 'English'" in refused.stderr
    datagen_here(*arguments, "--stages", "score")
    assert scores(records(path)) == scores(records(folder / DIRECTORY / "Basque_translate.jsonl"))


def test_a_paragraph_that_takes_the_place_of_another_is_translated(whole, tmp_path, datagen_here):
    """Paragraphs are done by their ids, not by counting lines."""
    folder, arguments, _ = whole
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    path = copy / "Basque.jsonl"
    changed = records(path)
    changed[0] = {"text": " ".join(text for text, _ in tiny_models.udhr_pairs("Basque")[:3]), "id": "mine"}
    path.write_text("".join(json.dumps(record) + "\n" for record in changed))
    arguments = [copy if argument == folder else argument for argument in arguments]
    datagen_here(*arguments, "--stages", "translate")
    assert "mine" in {record["id"] for record in records(copy / DIRECTORY / "Basque_translate.jsonl")}


def test_another_compute_type_may_not_mix_in(whole, datagen_here):
    _, arguments, _ = whole
    result = datagen_here(*arguments, "--nllb_compute_type", "float32")
    assert result.returncode == 2 and "nllb_compute_type was 'int8', now 'float32'" in result.stderr


def test_a_broken_pair_of_lists_is_named(whole, tmp_path, datagen_here):
    folder, arguments, _ = whole
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    path = copy / DIRECTORY / "Basque_translate.jsonl"
    broken = [dict(record, scores=[]) for record in records(path)]
    record = next(record for record in broken if record["translations"])
    record["translations"] = record["translations"][1:]
    record["scores"] = [None] * len(record["translations"]) or None
    path.write_text("".join(json.dumps(record) + "\n" for record in broken))
    arguments = [copy if argument == folder else argument for argument in arguments]
    result = datagen_here(*arguments, "--stages", "score")
    line = 1 + broken.index(record)
    assert (
        result.returncode == 2 and f"Basque_translate.jsonl, line {line}: field translations: expected" in result.stderr
    )


@pytest.mark.slow
def test_with_gemma_through_vllm(gemma, tiny_nllb, scorers, tmp_path):
    pytest.importorskip("vllm")
    output, cache = tmp_path / "out", tmp_path / "cache"
    result = datagen(
        *published(gemma, tiny_nllb, scorers, cache, output), "--max_new_tokens", 128, "--max_model_len", 2048,
        "--number_of_instructions_per_language", 12, "--inference_api", "vllm",
    )  # fmt: skip
    print(result.stdout)
    assert check_run(output, scorers) > 5
