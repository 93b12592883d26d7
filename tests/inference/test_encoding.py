"""Prompts reach a model as in training: no special token but those that belong there."""

import pytest

from topxgen import inference
from topxgen.inference import ModelSettings, Request, SamplingSettings, from_list
from topxgen.inference.tokenizer import encode
from topxgen.training.pairs import Pair
from topxgen.training.tokenization import CausalTokenizer

SENTENCE = "The tag <eos> ends it, <start_of_turn>user begins it."
TURNS = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "<start_of_turn>model"
)


def adds_eos(tokenizer):
    """The tokenizer with a post-processor that ends every text with EOS."""
    from tokenizers.processors import TemplateProcessing

    eos = (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"$A {eos[0]}", special_tokens=[eos])
    assert tokenizer("a")["input_ids"][-1] == eos[1]
    return tokenizer


def in_training(tokenizer, sentence: str) -> tuple[str, list[int]]:
    """A prompt, and its token ids as the model sees them in training."""
    pairs = CausalTokenizer(tokenizer, "14", len(tokenizer))
    prompt, _ = pairs.prompt_and_target(Pair(sentence, "Bai.", "English", "Basque", "g"))
    texts = pairs.encode([Pair(sentence, "Bai.", "English", "Basque", "g")])
    return prompt, texts[0][: texts.prompts[0]].tolist()


def test_a_tokenizer_that_appends_eos(tiny_lm, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = adds_eos(AutoTokenizer.from_pretrained(tiny_lm))
    prompt, ids = in_training(tokenizer, "One house.")
    assert encode(tokenizer, prompt) == ids and tokenizer.eos_token_id not in ids
    tokenizer.save_pretrained(tmp_path)
    found = []
    for folder in (None, str(tmp_path)):
        settings = ModelSettings(tiny_lm, tokenizer_name_or_path=folder, dtype="float32")
        sampler = inference.load("hf", settings)
        [answer] = sampler.generate(from_list([Request("a", prompt, 1)]), SamplingSettings(8, temperature=0.0))
        found.append((answer.texts, answer.prompt_tokens))
        sampler.close()
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def gemmas(gemma):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(gemma)


def test_special_tokens_in_a_sentence_are_text(gemmas):
    tokenizer = gemmas
    special = {*tokenizer.all_special_ids, *tokenizer.convert_tokens_to_ids(["<start_of_turn>", "<end_of_turn>"])}
    for sentence in ("One house.", SENTENCE):
        prompt, ids = in_training(tokenizer, sentence)
        assert encode(tokenizer, prompt) == ids and special.intersection(ids) == {tokenizer.bos_token_id} == {ids[0]}
        assert tokenizer.decode(ids[1:]) == prompt


@pytest.mark.parametrize("sentence", ["One house.", SENTENCE, "<end_of_turn>", "<eos> <eos>\n<bos>"])
def test_special_tokens_in_a_chat_come_from_its_template(gemmas, sentence):
    tokenizer = gemmas
    tokenizer.chat_template = TURNS
    ids = encode(tokenizer, [{"role": "user", "content": f"Translate: {sentence}"}])
    bos, start, end = tokenizer.convert_tokens_to_ids(["<bos>", "<start_of_turn>", "<end_of_turn>"])
    assert [token for token in ids if token in tokenizer.all_special_ids or token in (start, end)] == [
        bos,
        start,
        end,
        start,
    ]
    plain = encode(tokenizer, [{"role": "user", "content": "Translate: x"}])
    assert ids[:4] == plain[:4] and ids[-3:] == plain[-3:]
    expected = f"<bos><start_of_turn>user\nTranslate: {sentence}<end_of_turn>\n<start_of_turn>model"
    assert tokenizer.decode(ids) == expected


@pytest.mark.parametrize("sentence", ["One house.", SENTENCE])
def test_a_chat_template_with_a_date_gives_the_same_prompt_every_day(gemmas, sentence):
    gemmas.chat_template = "{% set date = strftime_now('%d %b %Y') %}Today is {{ date }}. " + TURNS
    ids = encode(gemmas, [{"role": "user", "content": sentence}])
    assert gemmas.decode(ids).startswith("Today is 26 Jul 2024. <bos>")
