"""What stages read was changed between two runs: by hand, by a run with other texts under the same ids, by another model in its place."""

import json
import os
from pathlib import Path

import pytest

from tests.support.runs import TOPICS, datagen
from tests.support.tiny_models import udhr_texts

TEXTS = udhr_texts("Basque")[:4]


def write(path: Path, lines: list[dict]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def folder(tmp_path):
    """Three paragraphs, all of them translated."""
    write(tmp_path / "Basque.jsonl", [{"text": text, "id": f"a{i}"} for i, text in enumerate(TEXTS[:3])])
    records = (
        {"sentence": text, "propositions": [], "translations": [], "id": f"a{i}"} for i, text in enumerate(TEXTS[:3])
    )
    write(tmp_path / "t/Basque_translate.jsonl", list(records))
    return tmp_path


def translate(folder, *model, **options):
    place = ("--languages", "Basque", "--output_dir", folder, "--translate_dir", "t", "--stages", "translate")
    return datagen(*place, "--lid_model", "langid", *model, **options)


def test_the_translation_of_a_text_that_was_changed_is_refused(folder, tiny_nllb):
    write(folder / "Basque.jsonl", [{"text": TEXTS[i], "id": f"a{min(i, 1)}"} for i in (0, 3)])
    before = (folder / "t/Basque_translate.jsonl").read_text()
    result = translate(folder, "--use_nllb", "--nllb_name_or_path", tiny_nllb, check=2)
    (line,) = result.stderr.strip().splitlines()
    assert "Basque_translate.jsonl, line 2: paragraph a1 has another text in" in line and "--translate_dir" in line
    assert (folder / "t/Basque_translate.jsonl").read_text() == before


def test_pairs_without_their_paragraph_stay_with_a_warning(folder, tiny_nllb, caplog):
    write(folder / "Basque.jsonl", [{"text": TEXTS[0], "id": "a0"}])
    translate(folder, "--use_nllb", "--nllb_name_or_path", tiny_nllb)
    assert "has the pairs of 2 paragraphs, such as a1, that" in caplog.text


@pytest.mark.parametrize("name", ["Hausa-000001.0", "Hausa-native-1.0"])
def test_paragraphs_of_another_language_are_refused(folder, tiny_nllb, name):
    """As with --output_filenames in another order than before."""
    write(folder / "a.jsonl", [{"text": TEXTS[0], "id": name}])
    (folder / "Hausa_rejects.jsonl").touch()
    result = translate(folder, "--use_nllb", "--nllb_name_or_path", tiny_nllb, "--output_filenames", "a", check=2)
    assert "a.jsonl has paragraphs of Hausa, not of Basque" in result.stderr


def other_weights(model: Path, folder: Path) -> Path:
    """A copy of a model, as it may be trained further in its place."""
    import torch
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    for file in model.iterdir():
        os.link(file, folder / file.name)
    path = folder / "model.safetensors"
    weights = {name: tensor + torch.full_like(tensor, 0.01) for name, tensor in load_file(path).items()}
    path.unlink()
    save_file(weights, path, {"format": "pt"})
    return folder


def replace_weights(model: Path) -> None:
    changed = other_weights(model, model.with_name("changed")) / "model.safetensors"
    changed.replace(model / "model.safetensors")


def test_a_translation_model_that_was_replaced_in_its_folder_is_another_one(folder, tiny_nllb, tmp_path):
    nllb = other_weights(Path(tiny_nllb), tmp_path / "nllb")
    flags = ("--use_nllb", "--nllb_name_or_path", nllb)
    translate(folder, *flags)
    replace_weights(nllb)
    assert "holds results of other settings (nllb_weights was" in translate(folder, *flags, check=2).stderr


@pytest.mark.parametrize("stage, code", [("generate", 3), ("translate", 0)])  # it writes no numbered texts
@pytest.mark.medium
def test_an_llm_that_was_replaced_in_its_folder_is_another_one(folder, tiny_lm, tmp_path, stage, code):
    """Also one that sees its prompts in another chat template."""
    model = other_weights(Path(tiny_lm), tmp_path / "lm")
    template, turns = (
        model / "chat_template.jinja",
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}",
    )
    template.write_text(turns)
    flags = ("--inference_api", "hf", "--model_name_or_path", model, "--stages", stage, "--demonstration_pool", "udhr")
    flags += ("--number_of_demonstrations", 1, "--seed_topics_path", TOPICS, "--number_of_icl_demonstrations", 0)
    flags += ("--number_of_instructions", 4, "--max_new_tokens", 8, "--temperature", 1, "--request_batch_size", 1)
    translate(folder, *flags, check=code)
    template.write_text(f"{turns}[assistant]")
    assert "holds results of other settings (chat_template_digest was" in translate(folder, *flags, check=2).stderr
    template.write_text(turns)
    translate(folder, *flags, check=code)
    for name in ("config.json", "tokenizer.json"):
        (before := model / name).rename(model / "before")
        before.write_text((model / "before").read_text() + " ")
        assert "holds results of other settings (model_config was" in translate(folder, *flags, check=2).stderr
        (model / "before").rename(before)
    replace_weights(model)
    assert "holds results of other settings (model_weights was" in translate(folder, *flags, check=2).stderr


def test_a_manifest_that_names_another_language_than_its_file_is_refused(folder, tiny_nllb):
    """The counts of one language would be those of another, or of none."""
    flags = ("--use_nllb", "--nllb_name_or_path", tiny_nllb, "--scorer", "confidence", "--stages", "translate", "score")
    translate(folder, *flags)
    for stage in ("translate", "score"):
        path = folder / f"t/manifest_{stage}_Basque.json"
        whole = path.read_text()
        path.write_text(json.dumps(json.loads(whole) | {"language": "Hausa"}))
        result = translate(folder, *flags, check=2)
        assert f"{path}: field language: expected 'Basque', as in its name, got 'Hausa'" in result.stderr
        path.write_text(whole)


def test_scores_of_pairs_that_were_edited_are_warned_of(folder, tiny_nllb, caplog):
    flags = ("--use_nllb", "--nllb_name_or_path", tiny_nllb, "--scorer", "confidence", "--stages", "translate", "score")
    path = folder / "t/Basque_translate.jsonl"
    for _ in range(2):
        translate(folder, *flags)
    warning = f"{path} was changed after it had been written"
    assert warning not in caplog.text
    pair = {"propositions": [TEXTS[0]], "translations": ["Edited."], "scores": [0.9], "scorer": "confidence"}
    write(path, [json.loads(line) | pair for line in path.read_text().splitlines()])
    translate(folder, *flags)
    assert warning in caplog.text


def test_a_scored_folder_may_be_scored_by_another_scorer(folder, tiny_nllb):
    flags = ("--use_nllb", "--nllb_name_or_path", tiny_nllb, "--stages", "translate", "score")
    for scorer in ("confidence", "none", "confidence"):
        translate(folder, *flags, "--scorer", scorer)
    assert [path.name for path in folder.glob("t/settings_*.json")] == ["settings_translate.json"]
