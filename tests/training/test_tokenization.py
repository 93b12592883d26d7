"""Token boundaries of training texts, over tokenizers of every kind."""

from types import SimpleNamespace

import pytest

from tests.support.tiny_models import nllb_tokenizer, pieces_in, sentencepiece_model, udhr_pairs, udhr_texts
from topxgen.common.errors import UsageError
from topxgen.inference.tokenizer import encode, plain_ids, tokens_before
from topxgen.text import languages
from topxgen.training.pairs import Pair
from topxgen.training.tokenization import CausalTokenizer, Seq2SeqTokenizer

PAIRS = [
    Pair("All human beings are born free.", "Gizon-emakume guztiak aske jaiotzen dira.", "English", "Basque", "a"),
    Pair("Everyone has the right to life.", "ہر شخص کو زندگی کا حق حاصل ہے۔", "English", "Urdu", "b"),
    Pair("ہر شخص کو زندگی کا حق حاصل ہے۔", "Everyone has the right to life.", "Urdu", "English", "b"),
    Pair("In 1948 </s> <eos> it was so.", "1948an izan zen.", "English", "Basque", "c"),
    Pair("It said so.", "“Hori” esan zuen.", "English", "Basque", "d"),
]


def trained(model, pre_tokenizer, decoder, trainer, **special):
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    texts = [text for name in ("Basque", "Urdu", "English") for text in udhr_texts(name)]
    # In the layout of the template, so that whatever may merge at the joint does.
    texts += [f"English: {b}\nBasque: {a}" for a, b in udhr_pairs("Basque")]
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoder
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


KINDS = [
    "bpe",
    "bpe that merges across words",
    "sentencepiece",
    "bytes",
    pytest.param("gemma", marks=pytest.mark.medium),
]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    if request.param == "gemma":
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(request.getfixturevalue("gemma"))
    if request.param == "bytes":
        from transformers import ByT5Tokenizer

        return ByT5Tokenizer()
    if request.param == "sentencepiece":
        special = ["<pad>", "</s>", "<s>", "<unk>"]
        letters = sorted({char for pair in PAIRS for char in pair.source + pair.target + "\n:"})
        tokenizer = trained(
            models.Unigram(),
            pre_tokenizers.Metaspace("▁", prepend_scheme="first"),
            decoders.Metaspace("▁", prepend_scheme="first"),
            trainers.UnigramTrainer(
                vocab_size=900, special_tokens=special, unk_token="<unk>", initial_alphabet=letters
            ),
            pad_token="<pad>",
            eos_token="</s>",
            bos_token="<s>",
            unk_token="<unk>",
        )
        # As T5 and others do, EOS after every text: it must not stand between prompt and answer.
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 1)]
        )
        return tokenizer
    return trained(
        models.BPE(),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=request.param == "bpe"),
        decoders.ByteLevel(),
        trainers.BpeTrainer(
            vocab_size=1500,
            special_tokens=["<pad>", "<eos>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
        pad_token="<pad>",
        eos_token="<eos>",
    )


@pytest.mark.parametrize("template", ["14", "11", "15", "16", "none"])
def test_prompt_tokens_are_those_of_inference_and_the_rest_is_the_answer(tokenizer, template):
    encoder = CausalTokenizer(tokenizer, template, 10**6)
    encoded = encoder.encode(PAIRS)
    for i, pair in enumerate(PAIRS):
        ids, prompt = encoded[i].tolist(), int(encoded.prompts[i])
        asked, answer = encoder.prompt_and_target(pair)
        assert ids[:prompt] == encoder.prompt_ids([asked])[0], "what inference sends, token by token"
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token_id not in ids[:-1]
        texts = plain_ids(tokenizer, [asked + answer])[0]
        assert tokenizer.decode(ids[:-1], skip_special_tokens=True) == tokenizer.decode(
            texts, skip_special_tokens=True
        ), "and with the answer's tokens nothing but the text"
        assert pair.target.strip("“") in tokenizer.decode(ids[prompt:-1]) or "<unk>" in tokenizer.decode(ids)


def test_special_tokens_in_a_text_are_text(tokenizer):
    names = [name for name in tokenizer.all_special_tokens if name != tokenizer.unk_token]
    before, encoder = tokens_before(tokenizer), CausalTokenizer(tokenizer, "14", len(tokenizer))
    for text in ("".join(names), "a {} b".format(" ".join(names)), f"x{names[-1]}y"):
        pair = Pair(text, text, "English", "Basque", "g")
        encoded = encoder.encode([pair])
        ids = encoded[0].tolist()
        assert not {*ids[len(before) : -1]} & {*tokenizer.convert_tokens_to_ids(names)}
        assert encode(tokenizer, encoder.prompt_and_target(pair)[0]) == ids[: encoded.prompts[0]]


def test_pairs_are_learnt_on_one_line_as_main_py_sends_and_reads_them(tokenizer):
    """Without a template the texts are the user's own, line breaks included."""
    first = PAIRS[0]
    torn = Pair(f" {first.source} \r\nSo it is. ", f"{first.target}\n\nHala da.\n", first.src, first.tgt, "a")
    joined = Pair(f"{first.source} So it is.", f"{first.target} Hala da.", first.src, first.tgt, "a")
    learnt = CausalTokenizer(tokenizer, "14", len(tokenizer), tokenizer.eos_token_id)
    assert learnt.encode([torn]).ids.tolist() == learnt.encode([joined]).ids.tolist()
    as_it_is = CausalTokenizer(tokenizer, "none", len(tokenizer), tokenizer.eos_token_id)
    assert as_it_is.prompt_and_target(torn) == (torn.source, torn.target)


def test_template_14_is_the_published_string(tokenizer):
    encoder = CausalTokenizer(tokenizer, "14", 10**6)
    assert "".join(encoder.prompt_and_target(PAIRS[0])) == (
        "Translate this from English to Basque:\nEnglish: All human beings are born free.\n"
        "Basque: Gizon-emakume guztiak aske jaiotzen dira."
    )
    assert encoder.prompt_and_target(PAIRS[0])[0].endswith("\nBasque:"), (
        "the prompt as get_prompt gives it, without its last space"
    )


def test_long_pairs_are_left_out_whole(tiny_lm):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    encoder = CausalTokenizer(tokenizer, "14", len(tokenizer))
    lengths = encoder.encode(PAIRS).lengths.tolist()
    limit = sorted(set(lengths))[-2]
    encoded = encoder.encode(PAIRS, limit)
    assert encoded.lengths.max() == limit, "exactly as long as allowed stays"
    assert encoded.too_long == tuple((i, n) for i, n in enumerate(lengths) if n > limit)
    assert len(encoder.encode([])) == 0


def test_eos_must_be_a_token(tiny_lm):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    assert CausalTokenizer(tokenizer, "14", 800, eos_token_id=7).encode(PAIRS)[0][-1] == 7
    with pytest.raises(UsageError, match="--eos_token_id 800 is not in the model's vocabulary of 800 tokens"):
        CausalTokenizer(tokenizer, "14", 800, eos_token_id=800)
    tokenizer.eos_token = None
    with pytest.raises(UsageError, match="pass --eos_token_id"):
        CausalTokenizer(tokenizer, "14", 800)


def test_encoder_decoder_sides_carry_their_languages():
    from topxgen.translation.language_tokens import LanguageTokens

    tokenizer = nllb_tokenizer([text for pair in PAIRS for text in (pair.source, pair.target)], 300)
    config = SimpleNamespace(model_type="m2m_100", vocab_size=len(tokenizer))
    encoder = Seq2SeqTokenizer(tokenizer, LanguageTokens("nllb", config, tokenizer), 64)
    encoded = encoder.encode(PAIRS)
    for i, pair in enumerate(PAIRS):
        tokenizer.src_lang, tokenizer.tgt_lang = (languages.find(name).flores for name in (pair.src, pair.tgt))
        reference = tokenizer(pair.source, text_target=pair.target, split_special_tokens=True)
        ids, source = encoded[i].tolist(), int(encoded.prompts[i])
        assert ids[:source] == reference["input_ids"], "as transformers' own tokenizer does it, for each example"
        assert ids[source:] == reference["labels"]
    assert encoder.truncated == 0
    short = Seq2SeqTokenizer(tokenizer, LanguageTokens("nllb", config, tokenizer), 6)
    encoded = short.encode(PAIRS[:1])
    ids, source = encoded[0].tolist(), int(encoded.prompts[0])
    assert len(ids) == 12 and source == 6 and ids[5] == ids[11] == tokenizer.eos_token_id and short.truncated == 2
    with pytest.raises(UsageError, match="unknown language"):
        encoder.encode([Pair("a", "b", "English", "Klingon", "e")])


def test_a_target_is_tokenized_by_the_model_of_its_own_side(tmp_path):
    """Of Marian, which has two."""
    import json

    from transformers import MarianTokenizer

    sides = udhr_texts("English"), udhr_texts("Basque")
    files = [sentencepiece_model(tmp_path, name, texts, 400) for name, texts in zip("ab", sides, strict=True)]
    pieces = dict.fromkeys(["</s>", "<unk>", "<pad>", *(piece for file in files for piece in pieces_in(file))])
    (tmp_path / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    tokenizer = MarianTokenizer(*map(str, files), str(tmp_path / "vocab.json"))
    languages_ = SimpleNamespace(prefixes=lambda source, target: ([], []), ids=frozenset())
    encoded = Seq2SeqTokenizer(tokenizer, languages_, 64).encode(PAIRS[:1])
    ids, source = encoded[0].tolist(), int(encoded.prompts[0])
    reference = tokenizer(PAIRS[0].source, text_target=PAIRS[0].target)
    assert (ids[:source], ids[source:]) == (reference["input_ids"], reference["labels"])
    assert ids[source:] != tokenizer(PAIRS[0].target)["input_ids"]
