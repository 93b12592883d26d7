"""What a model folder's generation_config.json says does not reach our translations."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support import tiny_models
from topxgen import inference, translation
from topxgen.inference import ModelSettings, Request, SamplingSettings, from_list
from topxgen.text import languages
from topxgen.training import eval_translation
from topxgen.training.pairs import Pair
from topxgen.training.tokenization import CausalTokenizer, Seq2SeqTokenizer
from topxgen.translation import TranslatorSettings
from topxgen.translation.language_tokens import LanguageTokens

BASQUE, ENGLISH = (languages.find(name) for name in ("Basque", "English"))
PAIRS = tiny_models.udhr_pairs("Basque")[:6]
OPINIONS = dict(
    repetition_penalty=3.0,
    no_repeat_ngram_size=1,
    min_new_tokens=20,
    suppress_tokens=list(range(100, 200)),
    begin_suppress_tokens=list(range(200, 700)),
    bad_words_ids=[[token] for token in range(300, 400)],
    length_penalty=-5.0,
    exponential_decay_length_penalty=[2, 1.5],
    encoder_repetition_penalty=2.0,
    num_beams=2,
    early_stopping=True,
    do_sample=True,
    temperature=5.0,
    top_k=3,
    forced_eos_token_id=5,
)


def opinionated(folder: str, copy: Path) -> str:
    shutil.copytree(folder, copy)
    path = copy / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **OPINIONS}))
    return str(copy)


@pytest.mark.parametrize("changes", [{"temperature": 0}, {"temperature": 0.8}, {"num_beams": 3}], ids=str)
def test_hf(changes, tiny_lm, tmp_path):
    requests = [Request(str(i), f"# Basque article\n{basque[:30]}", i) for i, (basque, _) in enumerate(PAIRS)]
    answers = []
    for model in (tiny_lm, opinionated(tiny_lm, tmp_path / "copy")):
        sampler = inference.load("hf", ModelSettings(model, dtype="float32"))
        settings = SamplingSettings(max_new_tokens=24, **changes)
        answers.append({answer.id: answer.texts for answer in sampler.generate(from_list(requests), settings)})
        sampler.close()
    assert answers[0] == answers[1] and len(answers[0]) == len(PAIRS)


@pytest.mark.parametrize("family", ["nllb", "marian"])
def test_encoder_decoders(family, tiny_nllb, tmp_path):
    model = tiny_nllb
    if family == "marian":
        model = tiny_models.build_marian(tmp_path / "eu-en", [text for pair in PAIRS for text in pair])
    texts = []
    for name in (model, opinionated(model, tmp_path / "copy")):
        settings = TranslatorSettings(nllb_name_or_path=name, nllb_engine="transformers", nllb_compute_type="float32")
        translator = translation.create("nllb", settings)
        translator.load()
        texts.append(translator.translate([basque for basque, _ in PAIRS], BASQUE, ENGLISH))
        translator.close()
    assert texts[0] == texts[1]


@pytest.mark.parametrize("peft", [False, True])
@pytest.mark.parametrize("kind", ["decoder", "nllb"])
def test_held_out_translations(kind, peft, tiny_lm, tiny_nllb, tmp_path):
    """The checkpoint keeps its own generation config."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    is_decoder = kind == "decoder"
    folder = tiny_lm if is_decoder else tiny_nllb
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = [Pair(basque, english, "Basque", "English", "") for basque, english in PAIRS]
    answers = []
    for name in (folder, opinionated(folder, tmp_path / "copy")):
        model = (AutoModelForCausalLM if is_decoder else AutoModelForSeq2SeqLM).from_pretrained(name).eval()
        before = model.generation_config.to_dict()
        if is_decoder:
            pair_tokenizer = CausalTokenizer(tokenizer, "11", model.config.vocab_size, None)
        else:
            pair_tokenizer = Seq2SeqTokenizer(tokenizer, LanguageTokens(name, model.config, tokenizer), 256)
        if peft:
            import peft as library

            task = "CAUSAL_LM" if is_decoder else "SEQ_2_SEQ_LM"
            model = library.get_peft_model(model, library.LoraConfig(target_modules=["q_proj"], task_type=task))
        answers.append(eval_translation.translate(model, tokenizer, pair_tokenizer, pairs))
        assert model.generation_config.to_dict() == before
    assert answers[0] == answers[1] and len(answers[0]) == len(pairs)
