"""scripts/merge_lora.py --ctranslate2: the converted model translates as transformers does."""

import json
import shutil

import pytest

from tests.support.runs import in_process
from tests.support.tiny_models import adapter_of
from topxgen.common import lineage, provenance
from topxgen.text import languages
from topxgen.translation import conversion, seq2seq_engines

BASQUE, ENGLISH = languages.find("Basque"), languages.find("English")


def export(*args, check: int = 0):
    result = in_process("scripts/merge_lora.py", *args)
    assert result.returncode == check, f"{result.stdout}\n{result.stderr}"
    return result


@pytest.fixture(scope="module")
def adapter(tiny_nllb, tmp_path_factory) -> str:
    """A LoRA adapter of the tiny NLLB, with weights that change its translations."""
    folder = tmp_path_factory.mktemp("conversion") / "adapter"
    adapter_of(tiny_nllb, folder, ["q_proj", "v_proj", "fc1", "fc2"])
    facts = {"name": "udhr", "languages": {"Basque to English": {"path": "x", "sha256": "y", "counts": {}}}}
    (folder / "data_manifest.json").write_text(json.dumps(facts))
    (folder / "README.md").write_text("---\nbase_model: x\nlibrary_name: peft\n---\n# Card\n")
    return str(folder)


def translations(folder, sentences: list[str]) -> list[str]:
    """By CTranslate2 and the tokenizer that lie in the folder, as a user of it would."""
    import ctranslate2
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, src_lang="eus_Latn")
    translator = ctranslate2.Translator(str(folder), device="cpu")
    rows = [tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) for text in sentences]
    results = translator.translate_batch(
        rows, target_prefix=[["eng_Latn"]] * len(rows), beam_size=5, max_decoding_length=256
    )
    ids = [tokenizer.convert_tokens_to_ids(result.hypotheses[0][1:]) for result in results]
    return [tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids]


@pytest.mark.medium
def test_an_adapter_is_merged_converted_and_compared(adapter, tiny_nllb, tmp_path):
    out = tmp_path / "ct2"
    result = export(adapter, out, "--ctranslate2", "float32", "--check_sentences", "6")
    assert "6 of 6 sentences from Basque into English are translated as by transformers in float32" in result.stdout
    assert (
        not list(tmp_path.glob("*.partial"))
        and not list(tmp_path.glob("*.merged*"))
        and not list(tmp_path.glob(".lock*"))
    )
    manifest = json.loads((out / "manifest_merge.json").read_text())
    assert manifest["ctranslate2"] == "float32" and manifest["lineage"]["weights"] == provenance.weights_id(out) != ""
    assert [one["name"] for one in lineage.of_model(str(out))["links"]] == [adapter, tiny_nllb]
    assert "library_name: ctranslate2" in (out / "README.md").read_text()
    # The merged weights, not the base's: what the folder says is what transformers says of the merged model.
    export(adapter, tmp_path / "merged")
    found = conversion.compare(str(tmp_path / "merged"), out, "float32", BASQUE, ENGLISH, 4)
    base = conversion.compare(tiny_nllb, out, "float32", BASQUE, ENGLISH, 4)
    assert [one.reference for one in found] == [one.translation for one in found]
    assert [one.reference for one in base] != [one.reference for one in found]
    mine = translations(out, [one.sentence for one in found])
    assert sum(a == one.translation for a, one in zip(mine, found, strict=True)) >= 3


def test_float32_is_that_of_the_weights_and_of_the_sum(tiny_nllb, tmp_path):
    """Whatever precision config.json names, and that of the base of an adapter."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(tiny_nllb, base)
    AutoModelForSeq2SeqLM.from_pretrained(tiny_nllb, dtype=torch.bfloat16).save_pretrained(base)
    adapter_of(str(base), adapter, ["q_proj", "fc1"])
    convert = ("--ctranslate2", "float32", "--check_sentences", "0")
    export(adapter, tmp_path / "at once", *convert)
    export(adapter, tmp_path / "merged", "--dtype", "float32")
    export(tmp_path / "merged", tmp_path / "exact", *convert)
    path = tmp_path / "merged" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": "bfloat16"}))
    export(tmp_path / "merged", tmp_path / "named otherwise", *convert)
    exact = (tmp_path / "exact" / "model.bin").read_bytes()
    for name in ("at once", "named otherwise"):
        assert (tmp_path / name / "model.bin").read_bytes() == exact, name


def test_int8_is_rounded_from_the_weights_and_not_from_their_half_precision(tiny_nllb, tmp_path):
    import torch
    from transformers import AutoModelForSeq2SeqLM

    rounded = tmp_path / "rounded"
    shutil.copytree(tiny_nllb, rounded)
    AutoModelForSeq2SeqLM.from_pretrained(tiny_nllb, dtype=torch.float16).save_pretrained(rounded)
    written = []
    for name in (tiny_nllb, str(rounded)):
        seq2seq_engines.convert(name, tmp_path / "int8", "int8")
        written.append((tmp_path / "int8" / "model.bin").read_bytes())
    assert len(written[0]) == len(written[1]) and written[0] != written[1]


@pytest.mark.medium
def test_a_whole_model_in_int8_is_smaller_and_nearly_the_same(tiny_nllb, tmp_path):
    for kind in ("float32", "int8"):
        result = export(
            tiny_nllb,
            tmp_path / kind,
            "--ctranslate2",
            kind,
            "--src",
            "Basque",
            "--tgt",
            "English",
            "--check_sentences",
            "8",
        )
        assert (
            f"a CTranslate2 model ({kind})" in result.stdout
            and "of 8 sentences from Basque into English" in result.stdout
        )
    sizes = {kind: (tmp_path / kind / "model.bin").stat().st_size for kind in ("float32", "int8")}
    assert sizes["int8"] < 0.5 * sizes["float32"]


@pytest.mark.medium
def test_engines_that_differ_are_shown(tiny_nllb, tmp_path, capsys):
    """The folder is another model than the one it is compared with."""
    from tests.support.tiny_models import build_nllb, udhr_pairs

    other = build_nllb(tmp_path / "other", udhr_pairs("Basque"), steps=2, seed=3)
    export(other, tmp_path / "ct2", "--ctranslate2", "float32", "--check_sentences", "0")
    found = conversion.compare(tiny_nllb, tmp_path / "ct2", "float32", BASQUE, ENGLISH, 3)
    assert [one for one in found if one.reference != one.translation]


def test_what_is_refused_or_not_compared(tiny_lm, tiny_nllb, adapter, tmp_path):
    assert "not an encoder-decoder" in export(tiny_lm, tmp_path / "x", "--ctranslate2", "int8", check=2).stderr
    assert (
        "--src has no effect without --ctranslate2"
        in export(adapter, tmp_path / "x", "--src", "Basque", check=2).stderr
    )
    assert "is not one of int8" in export(adapter, tmp_path / "x", "--ctranslate2", "int9", check=2).stderr
    assert not (tmp_path / "x").exists()
    assert "pass --src and --tgt" in export(tiny_nllb, tmp_path / "no", "--ctranslate2", "int8").stdout
    words = ["--ctranslate2", "int8", "--src", "Basque", "--tgt", "Basqe"]
    assert "not compared with transformers: unknown language" in export(tiny_nllb, tmp_path / "bad", *words).stdout
    broken = tmp_path / "broken"
    shutil.copytree(tiny_nllb, broken)
    (broken / "model.safetensors").write_bytes(b"damaged")
    assert "cannot convert" in export(broken, tmp_path / "y", "--ctranslate2", "int8", check=2).stderr
    assert not (tmp_path / "y").exists() and not (tmp_path / "y.partial").exists()
