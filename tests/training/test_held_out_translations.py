"""Translations of held-out pairs: what is generated from, what is cut from it, which process makes it, how it is scored."""

import pytest
import torch

from tests.support.tiny_models import build_nllb, udhr_pairs
from topxgen.inference.tokenizer import plain_ids
from topxgen.training import eval_translation
from topxgen.training.pairs import Pair
from topxgen.training.tokenization import CausalTokenizer, Seq2SeqTokenizer
from topxgen.translation.language_tokens import LanguageTokens

PAIRS = [
    Pair("All of us.", "Guztiok.", "English", "Basque", "1"),
    Pair("All of us are born free and equal.", "Guztiok aske jaiotzen gara.", "English", "Basque", "2"),
    Pair("Guztiok.", "All of us.", "Basque", "English", "1"),
    Pair("All of us.", "Dukanmu.", "English", "Hausa", "1"),
]


def saying(model, ids: list[int]) -> list[dict]:
    """The options of each later call of `model.generate`, which then makes `ids` after each row."""
    generate, calls = type(model).generate.__get__(model), []

    def said(**options):
        if "output_logits" in options:  # the look at whether it answers in a batch as it does alone
            return generate(**options)
        calls.append(options)
        begun = options.get("decoder_input_ids", options["input_ids"])
        return torch.cat([begun, torch.tensor([ids] * len(begun))], 1)

    model.generate = said
    return calls


@pytest.fixture(scope="module")
def encoder_decoder(tmp_path_factory):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = build_nllb(tmp_path_factory.mktemp("nllb"), udhr_pairs("Basque"), width=16, layers=1, vocabulary=300)
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    return model, tokenizer, Seq2SeqTokenizer(tokenizer, LanguageTokens(folder, model.config, tokenizer), 64)


@pytest.mark.parametrize("eos, more", [("<eos>", "\nEnglish: Hello."), ("~", "~~ Hello.")])
def test_an_answer_of_a_decoder_is_one_line_after_the_prompt(eos, more, tiny_lm):
    """--eos_token_id may be no special token of the tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_lm).eval(), AutoTokenizer.from_pretrained(tiny_lm)
    pair_tokenizer = CausalTokenizer(tokenizer, "14", len(tokenizer), tokenizer.convert_tokens_to_ids(eos))
    calls = saying(model, plain_ids(tokenizer, [f" Guztiok aske.{more}"])[0])
    answers = eval_translation.translate(model, tokenizer, pair_tokenizer, PAIRS)
    assert answers == dict.fromkeys(range(4), "Guztiok aske.")
    prompts = [
        row[mask > 0].tolist()
        for call in calls
        for row, mask in zip(call["input_ids"], call["attention_mask"], strict=True)
    ]
    expected = pair_tokenizer.prompt_ids([pair_tokenizer.prompt_and_target(pair)[0] for pair in PAIRS])
    assert sorted(prompts) == sorted(expected)
    assert {tokenizer.decode(id) for id in calls[0]["eos_token_id"]} == {eos, "\n"}


def test_a_tokenizer_without_line_breaks_ends_an_answer_at_eos_alone(tiny_lm):
    """XGLM's reads one as a space, which it writes before digits, too."""
    from tokenizers import normalizers
    from transformers import AutoModelForCausalLM, XGLMTokenizer

    words = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"19"]
    tokenizer = XGLMTokenizer(vocab=[(word, -float(i > 3)) for i, word in enumerate(words)])
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\n", " ")
    assert tokenizer.tokenize("\n")[-1] == "▁" == tokenizer.tokenize(" 19")[-3]
    model = AutoModelForCausalLM.from_pretrained(tiny_lm).eval()
    calls = saying(model, [4, 5, 6])
    answers = eval_translation.translate(model, tokenizer, CausalTokenizer(tokenizer, "14", 99), PAIRS[:1])
    assert answers == {0: "19"} and calls[0]["eos_token_id"] == [2]


def test_an_answer_of_an_encoder_decoder_is_after_the_code_of_its_language(encoder_decoder):
    model, tokenizer, _ = encoder_decoder
    calls = saying(model, tokenizer.convert_tokens_to_ids(["z", "e", "r"]))
    assert eval_translation.translate(*encoder_decoder, PAIRS) == dict.fromkeys(range(4), "zer")
    begun = [tokenizer.convert_ids_to_tokens(call["decoder_input_ids"][0]) for call in calls]
    assert begun == [["</s>", "eng_Latn"], ["</s>", "eus_Latn"], ["</s>", "hau_Latn"]]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_processes_decode_as_many_batches_and_together_all(world, encoder_decoder):
    answers, counts = set(), set()
    for rank in range(world):
        calls = saying(encoder_decoder[0], [5])
        answers |= eval_translation.translate(*encoder_decoder, PAIRS, rank, world).keys()
        counts.add(len(calls))
    assert answers == {0, 1, 2, 3} and counts == {-(-3 // world)}, "of the three batches, one for each direction"


def test_scores_are_those_of_sacrebleu():
    """As `sacrebleu -m chrf bleu --chrf-word-order 2 -w 2` gives them."""
    pairs = [
        Pair("", "Guztiok aske jaiotzen gara.", "English", "Basque", ""),
        Pair("", "Qo'noS Daq yIn, tlhIngan Hol.", "English", "Klingon", ""),  # a language of the user's own
    ]
    assert eval_translation.score(pairs, ["Guztiok aske jaio gara hemen.", "Qo'noS Daq yIn tlhIngan Hol"]) == {
        "chrf_English to Basque": 63.12,
        "bleu_English to Basque": 19.3,
        "chrf_English to Klingon": 76.86,
        "bleu_English to Klingon": 33.52,
        "chrf": 69.99,
        "bleu": 26.41,
    }
