"""Prompts reach a model as in training: no special token but those that belong there."""

import pytest

from tests.support.main_runs import options
from tests.support.runs import TOPICS, in_process
from tests.support.tiny_models import udhr_pairs
from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.inference import ModelSettings, Request, SamplingSettings, from_list
from topxgen.inference.tokenizer import _chat_ids, encode, load_tokenizer, special_tokens
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


def test_a_special_token_that_is_a_word_is_read_as_without_it(tiny_lm):
    from transformers import AutoTokenizer

    tokenizer, other = AutoTokenizer.from_pretrained(tiny_lm), AutoTokenizer.from_pretrained(tiny_lm)
    other.add_special_tokens({"additional_special_tokens": ["eskubide"]})
    text = "Gizon-emakume guztiak eskubide berberak dituztela"
    assert encode(other, text) == encode(tokenizer, text) and len(encode(other, text)) < len(text)


@pytest.fixture(scope="module")
def gemmas(gemma):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(gemma)


@pytest.mark.medium
def test_special_tokens_in_a_sentence_are_text(gemmas):
    tokenizer = gemmas
    special = {*tokenizer.all_special_ids, *tokenizer.convert_tokens_to_ids(["<start_of_turn>", "<end_of_turn>"])}
    for sentence in ("One house.", SENTENCE):
        prompt, ids = in_training(tokenizer, sentence)
        assert encode(tokenizer, prompt) == ids and special.intersection(ids) == {tokenizer.bos_token_id} == {ids[0]}
        assert tokenizer.decode(ids[1:]) == prompt


@pytest.mark.medium
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


@pytest.mark.parametrize("scheme", ["first", "always"])
def test_a_special_token_in_a_chat_changes_no_other_token(scheme, tmp_path):
    """SentencePiece begins a word at the beginning of a text, and some tokenizers behind a special token, too."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=False)
    texts = [f"user\nTranslate: {text}\nassistant\n" for pair in udhr_pairs("Basque") for text in pair]
    trained.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=500, special_tokens=special))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained, bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": special[3:]})
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n"
    )
    messages = [{"role": "user", "content": "Translate: gizon"}]
    expected = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert _chat_ids(tokenizer, messages, special_tokens(tokenizer)) == expected == encode(tokenizer, messages)
    ids = encode(tokenizer, [{"role": "user", "content": "Translate: gizon </s>"}])
    assert ids[:4] == expected[:4] and ids[-4:] == expected[-4:] and tokenizer.eos_token_id not in ids


def test_special_tokens_that_are_not_flagged_are_text_in_a_chat():
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}{{ eos_token }}"
    assert not tokenizer.added_tokens_decoder[tokenizer.eos_token_id].special
    ids = encode(tokenizer, [{"role": "user", "content": "Bai </s> ez"}])
    assert ids == [*tokenizer("Bai <", add_special_tokens=False)["input_ids"], *ids[5:-1], tokenizer.eos_token_id]
    assert tokenizer.eos_token_id not in ids[:-1] and len(ids) == len("Bai </s> ez") + 1


@pytest.mark.medium
@pytest.mark.parametrize("sentence", ["One house.", SENTENCE])
def test_a_chat_template_with_a_date_gives_the_same_prompt_every_day(gemmas, sentence):
    gemmas.chat_template = "{% set date = strftime_now('%d %b %Y') %}Today is {{ date }}. " + TURNS
    ids = encode(gemmas, [{"role": "user", "content": sentence}])
    assert gemmas.decode(ids).startswith("Today is 26 Jul 2024. <bos>")


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{{ '' }}{% endfor %}{% endfor %}"
HOSTILE = {
    LOOP: "it took more than 0.3 s",
    "{% for %}": "TemplateSyntaxError: Expected an expression",
    "{{ 1 / 0 }}": "ZeroDivisionError",
    f"{{{{ {'(' * 3000}1{')' * 3000} }}}}": "RecursionError",
    "{% if 1 %}" * 200 + "x" + "{% endif %}" * 200: "IndentationError: too many levels",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "RecursionError",
    "{{ 'x' * 2000000 }}{{ messages[0].content }}": "it writes 2,000,005 characters",
    "{{ 'x' * 20000000000 }}": "MemoryError",
    "{{ messages.__class__.__mro__[1].__subclasses__() }}": "SecurityError: access to attribute '__class__'",
    "<s>[INST]": "it writes 9 characters for the message 'Kaixo', '<s>[INST]'",
    "{{ raise_exception('no roles') }}": "TemplateError: no roles",
}


@pytest.mark.parametrize("template", HOSTILE, ids=lambda template: template[:30])
@pytest.mark.parametrize("script", ["main.py", "datagen.py"])
def test_a_chat_template_that_cannot_be_used(script, template, tiny_lm, tmp_path, monkeypatch):
    if template == LOOP:
        monkeypatch.setattr("topxgen.inference.tokenizer.TEMPLATE_S", 0.3)
    tokenizer = load_tokenizer(ModelSettings(tiny_lm))
    tokenizer.save_pretrained(tmp_path / "chat")
    (tmp_path / "chat" / "chat_template.jinja").write_text(template)
    flags = ["--tokenizer_name_or_path", tmp_path / "chat", "--output_dir", tmp_path / "out", "--dry_run"]
    if script == "main.py":
        flags += options(tiny_lm, prompt_style=None)
    else:
        flags += ["--model_name_or_path", tiny_lm, "--languages", "Basque", "--seed_topics_path", TOPICS]
        flags += ["--inference_api", "hf", "--example_paragraphs", "udhr", "--example_sentences", "udhr"]
        flags += ["--number_of_instructions", 2]
    result = in_process(script, *flags)
    message = f"the chat template of {tmp_path / 'chat'} cannot be used ({HOSTILE[template]}"
    assert result.returncode == 2 and message in result.stderr.rstrip().rpartition("\n")[2], result.stderr


def test_a_chat_template_that_fails_on_some_prompts(tiny_chat):
    tokenizer = load_tokenizer(ModelSettings(tiny_chat))
    tokenizer.chat_template = "{{ messages[0].content }}{{ messages[1].content.x.y }}"
    with pytest.raises(UsageError, match=r"chat template of .* cannot be used \(UndefinedError"):
        encode(tokenizer, [{"role": "user", "content": "a"}])
