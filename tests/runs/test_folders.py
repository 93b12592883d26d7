"""Which folders of a tree are of which stage: ours, the original's, moved, damaged, half-written ones."""

import json
import os
from pathlib import Path

import pytest

from topxgen.common.errors import UsageError
from topxgen.runs import folders
from topxgen.runs.folders import BackTranslation, find, languages_of

PAIR = {"sentence": "Kaixo denoi.", "propositions": ["Kaixo denoi."], "translations": ["Hello all."]}


def tree(root: Path, files: dict[str, object]) -> Path:
    """Files by their paths: texts as they are, other values as JSON."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content if isinstance(content, str) else json.dumps(content) + "\n", encoding="utf-8")
    return root


def relative(root: Path, paths) -> list[str]:
    return [str(path.relative_to(root)) for path in paths]


def shown(root: Path) -> list[tuple]:
    """The back-translations as (folder, generation, languages, filtered), relative to the root."""

    def name(path):
        return None if path is None else os.path.relpath(path, root)

    found = find(root).back_translations
    return [(name(one.folder), name(one.generation), one.languages, name(one.filtered)) for one in found]


def test_a_run_with_all_stages(tmp_path):
    tree(
        tmp_path,
        {
            "Basque.jsonl": {"text": "Kaixo denoi."},
            "Basque_answers.jsonl": "",
            "Hausa_rejects.jsonl": "",
            "topics.jsonl": {"no": "language"},
            "Basque_1.jsonl": {"text": "of a round"},
            "nllb/Basque_translate.jsonl": PAIR,
            "nllb/Basque_translate_rejects.jsonl": "",
            "nllb/Basque_translate_answers.jsonl": "",
            "nllb/Basque_translate_filtered.jsonl": PAIR,
            "nllb/settings_translate.json": {"target_language": "French"},
            "apertium/Basque_translate.jsonl": PAIR,
            "apertium/topic_judge_answers.jsonl": "",
            "train/manifest_train.json": {},
            "train/checkpoint-5/train_log.jsonl": "",
            "train/checkpoint-5/checkpoint_files.json": {},
            "translations/checkpoint-5/eng_to_eus_0_shot/translate_0.jsonl": "",
            "train/merged/manifest_merge.json": {},
            "train/tokenizer.json": {"groups": []},
            "export/manifest_export.json": {},
            "export/train/Basque_translate.jsonl": PAIR,
            ".cache/Basque_translate.jsonl": PAIR,
            "translations/m/eng_to_eus_0_shot/translate_0.jsonl": "",
            "translations/m/eng_to_eus_0_shot/answers.jsonl": "",
            "scores.json": {"groups": [], "trials": 0},
            "comparison.json": {"experiment": "e", "groups": [], "variants": []},
            "run/train.json": {"words": [], "outputs": {}, "inputs": {}, "exit_code": 0},
        },
    )
    os.symlink(tmp_path / "nllb", tmp_path / "link")
    run = find(tmp_path)
    assert run.problems == () and run.languages == ("Basque", "Hausa") == languages_of(tmp_path)
    assert run.generations == (tmp_path,)
    assert run.back_translations == (
        BackTranslation(tmp_path / "apertium", tmp_path, ("Basque",), "English", None),
        BackTranslation(tmp_path / "nllb", tmp_path, ("Basque",), "French", tmp_path / "nllb"),
    )
    assert relative(tmp_path, run.trainings) == ["train"] and relative(tmp_path, run.merges) == ["train/merged"]
    assert relative(tmp_path, run.translations) == [
        "translations/checkpoint-5/eng_to_eus_0_shot",
        "translations/m/eng_to_eus_0_shot",
    ]
    assert relative(tmp_path, run.evaluations) == ["scores.json"]
    assert relative(tmp_path, run.experiments) == ["comparison.json"]
    assert relative(tmp_path, run.records) == ["run"]
    assert find(tmp_path, tmp_path / "train" / ".." / "nllb", tmp_path) == run


def test_folders_behind_links_are_part_of_a_run(tmp_path):
    """A language on another disk; a link that leads upwards ends."""
    tree(tmp_path, {"run/Basque.jsonl": {"text": "Kaixo."}, "disk/nllb/Basque_translate.jsonl": PAIR})
    os.symlink(tmp_path / "disk/nllb", tmp_path / "run/nllb")
    os.symlink(tmp_path, tmp_path / "disk/nllb/above")
    assert shown(tmp_path / "run")[0] == ("nllb", ".", ("Basque",), None)


def test_the_original_tree_and_a_folder_of_pairs_alone(tmp_path):
    place = "data/wiki/gemma/topxgen/T=1.0"
    tree(
        tmp_path,
        {f"{place}/Basque.jsonl": {"text": "a"}, f"{place}/nllb/Basque_translate.jsonl": PAIR, "README.md": "Data."},
    )
    assert shown(tmp_path) == [(f"{place}/nllb", place, ("Basque",), None)]
    pairs = tmp_path / place / "nllb"
    assert find(pairs).generations == (tmp_path / place,)  # above the root
    os.remove(tmp_path / place / "Basque.jsonl")
    assert shown(pairs) == [(".", None, ("Basque",), None)]


def decontaminated(folder: str, language: str, source: str, finished: str = "2026-01-01") -> dict:
    manifest = {"lineage": {"kind": "data", "name": source}, "finished": finished}
    return {
        f"{folder}/{language}_translate_filtered.jsonl": PAIR,
        f"{folder}/manifest_decontaminate_{language}.json": manifest,
    }


def test_filtered_folders_elsewhere_are_found_by_their_manifests(tmp_path):
    """Also after the whole tree has moved; a language without a decontamination goes with the others."""
    pairs = {
        f"{name}/nllb/{language}_translate.jsonl": PAIR for name in "ab" for language in ("Basque", "Hausa", "Igbo")
    }
    tree(tmp_path, pairs)
    tree(tmp_path, decontaminated("clean/one", "Basque", "/old/place/b/nllb"))
    tree(tmp_path, decontaminated("clean/two", "Hausa", "/old/place/b/nllb"))
    tree(tmp_path, decontaminated("clean/three", "Basque", "a/nllb"))
    assert shown(tmp_path) == [
        ("a/nllb", None, ("Basque", "Hausa", "Igbo"), "clean/three"),
        ("b/nllb", None, ("Basque", "Igbo"), "clean/one"),
        ("b/nllb", None, ("Hausa",), "clean/two"),
    ]


def test_of_two_decontaminations_one_is_shown_and_the_other_named(tmp_path):
    tree(tmp_path, {"nllb/Basque_translate.jsonl": PAIR})
    tree(tmp_path, decontaminated("first", "Basque", "nllb", "2026-01-01"))
    tree(tmp_path, decontaminated("second", "Basque", "nllb", "2026-01-02"))
    assert shown(tmp_path) == [("nllb", None, ("Basque",), "second")]
    assert find(tmp_path).problems == (
        f"{tmp_path}/first: another decontamination of Basque in {tmp_path}/nllb, not shown",
    )
    tree(tmp_path, decontaminated("nllb", "Basque", "nllb", "2025-01-01"))
    assert shown(tmp_path) == [("nllb", None, ("Basque",), "nllb")]


def test_filtered_files_whose_pairs_are_not_here(tmp_path):
    tree(
        tmp_path,
        decontaminated("clean", "Basque", "/elsewhere/nllb") | decontaminated("clean", "Hausa", "/elsewhere/nllb"),
    )
    assert shown(tmp_path) == [("clean", None, ("Basque", "Hausa"), "clean")]
    tree(
        tmp_path, {"a/nllb/Igbo_translate.jsonl": PAIR, "Igbo_translate_filtered.jsonl": PAIR}
    )  # no manifest, one source
    assert ("a/nllb", None, ("Igbo",), ".") in shown(tmp_path)


def test_renamed_paragraphs_are_known_by_the_settings(tmp_path):
    tree(tmp_path, {"settings_generate.json": {}, "my_texts.jsonl": {"text": "a"}, "nllb/Basque_translate.jsonl": PAIR})
    assert shown(tmp_path) == [("nllb", ".", ("Basque",), None)]


def test_what_cannot_be_read_is_a_line_and_the_rest_is_found(tmp_path):
    tree(
        tmp_path,
        {
            "nllb/Basque_translate.jsonl": '{"sentence": "cut',
            "nllb/settings_translate.json": '{"target_language": 7}',
            "scores.json": '{"groups": [',
            "nllb/manifest_decontaminate_Basque.json": "[]",
            "nllb/Basque_translate_filtered.jsonl": "",
        },
    )
    run = find(tmp_path)
    assert shown(tmp_path) == [("nllb", None, ("Basque",), "nllb")]
    assert run.evaluations == () and run.back_translations[0].target_language == "English"
    assert len(run.problems) == 3 and not any("\n" in line for line in run.problems)
    for name in ("scores.json", "settings_translate.json", "manifest_decontaminate_Basque.json"):
        assert sum(name in line for line in run.problems) == 1
    assert find(tmp_path / "nllb" / "..").languages == ("Basque",)
    for path in (tmp_path / "none", tmp_path / "scores.json"):
        with pytest.raises(UsageError, match="is not a directory"):
            find(path)


def test_pipes_devices_and_files_that_are_too_large_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "MAX_JSON", 100)
    tree(tmp_path, {"scores.json": '{"groups": []}', "large.json": '{"groups": []}' + " " * 100})
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "device.json").symlink_to("/dev/zero")
    (tmp_path / "loop.json").symlink_to("loop.json")
    run = find(tmp_path)
    assert run.evaluations == (tmp_path / "scores.json",)
    (problem,) = run.problems
    assert "large.json is larger than" in problem
