"""Lengths at the limit, and what EOS ids are accepted; over a tokenizer of one character a token."""

from types import SimpleNamespace

import pytest

from topxgen.common.errors import UsageError
from topxgen.training.pairs import Pair
from topxgen.training.tokenization import CausalTokenizer, Seq2SeqTokenizer

BOS, EOS = 1, 2


class Characters:
    """One token a character, its code point; BOS in front where special tokens are wanted."""

    eos_token_id, unk_token_id = EOS, None

    def __call__(self, text=None, add_special_tokens=True, text_target=None, **_):
        texts = text_target if text is None else text
        if isinstance(texts, str):
            return {"input_ids": [BOS, *map(ord, texts)]}
        assert not add_special_tokens
        return {"input_ids": [list(map(ord, text)) for text in texts]}

    def decode(self, ids):
        return "".join(map(chr, ids))


class Merging(Characters):
    """As before, but "ab" is one token, also where the prompt ends with "a" and the answer begins with "b"."""

    def __call__(self, text, add_special_tokens=True, **options):
        ids = super().__call__(text, add_special_tokens, **options)["input_ids"]
        return {"input_ids": self._merge(ids) if isinstance(text, str) else [self._merge(row) for row in ids]}

    def _merge(self, ids):
        return [ord(c) for c in "".join(map(chr, ids)).replace("ab", "\ue000")]

    def decode(self, ids):
        return super().decode(ids).replace("\ue000", "ab")


def pair(source: str, target: str) -> Pair:
    return Pair(source, target, "English", "Basque", "g")


def causal(tokenizer=None, **options) -> CausalTokenizer:
    return CausalTokenizer(tokenizer or Characters(), "none", 300, **options)


def test_pairs_of_exactly_the_longest_length_are_kept():
    encoded = causal().encode([pair("xy", "z"), pair("xy", "zz"), pair("", "")], max_length=5)
    assert encoded.ids.tolist() == [BOS, *map(ord, "xyz"), EOS, BOS, EOS]
    assert encoded.ends.tolist() == [5, 7] and encoded.prompts.tolist() == [3, 1]
    assert encoded.too_long == ((1, 6),)


def test_a_prompt_keeps_its_own_tokens_where_the_tokenizer_would_merge():
    encoded = causal(Merging()).encode([pair("xa", "bz")])
    assert encoded.ids.tolist() == [BOS, *map(ord, "xabz"), EOS] and encoded.prompts.tolist() == [3]


def test_eos_has_to_be_a_token_of_the_model():
    assert causal(eos_token_id=299).eos == 299 and causal(eos_token_id=0).eos == 0 and causal().eos == EOS
    for number in (-1, 300):
        with pytest.raises(UsageError, match=f"--eos_token_id {number}"):
            causal(eos_token_id=number)


def test_sides_of_an_encoder_decoder_are_cut_at_the_longest_length():
    tokens = SimpleNamespace(prefixes=lambda source, target: ([7], [8, 9]), ids=frozenset())
    encoder = Seq2SeqTokenizer(Characters(), tokens, 6)
    encoded = encoder.encode([pair("abcd", "xyz"), pair("abcde", "wxyz")])
    assert [encoded[0].tolist(), encoded[1].tolist()] == [
        [7, *map(ord, "abcd"), EOS, 8, 9, *map(ord, "xyz"), EOS],
        [7, *map(ord, "abcd"), EOS, 8, 9, *map(ord, "wxy"), EOS],
    ]
    assert encoded.prompts.tolist() == [6, 6] and encoder.truncated == 2
    short = encoder.encode([pair("a", "xyz")])
    assert short.prompts.tolist() == [3] and short.ends.tolist() == [9]
    assert encoder.source_ids(pair("ab", "")) == [7, *map(ord, "ab"), EOS]


def test_no_text_before_a_decoder_without_bos():
    class Bare(Characters):
        def __call__(self, text, add_special_tokens=True, **options):
            return {"input_ids": list(map(ord, text))} if isinstance(text, str) else super().__call__(text, False)

    assert causal(Bare()).encode([pair("x", "y")]).ids.tolist() == [ord("x"), ord("y"), EOS]
