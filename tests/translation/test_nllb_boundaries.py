"""Limits of translations and of sources, without a model."""

import math
from types import SimpleNamespace
from typing import ClassVar

from topxgen.text import languages
from topxgen.translation import by_steps
from topxgen.translation.nllb import NLLB, split_long


class Tokenizer:
    eos_token_id = 2
    all_special_tokens = ()
    added_tokens_decoder: ClassVar = {}

    def batch_decode(self, ids, **_):
        return [f" {row[0]} " for row in ids]


def test_a_limit_depends_on_the_length_of_the_source_alone():
    works = []

    def translate(work, prefix, num_beams, count, on_done):
        works.append((work, num_beams))
        return [[[([len(row) + i], -float(len(row))) for i in range(count)] for row in rows] for _, rows in work]

    nllb = object.__new__(NLLB)
    nllb._max_tokens, nllb._num_beams = 100, 5
    nllb._engine = SimpleNamespace(translate=translate)
    nllb._tokenizer = Tokenizer()
    lengths = [1, 33, 32, 51, 65]
    outputs = nllb._decode([[0] * n for n in lengths], [], 2, lambda n: None)
    assert outputs == [[(str(n), -float(n), False), (str(n + 1), -float(n), False)] for n in lengths], "in order"
    ((work, num_beams),) = works
    assert num_beams == 5
    # Twice the length rounded up to 32s, at most what the model takes; the longest first.
    assert [(limit, [len(row) for row in rows]) for limit, rows in work] == [
        (64, [32, 1]),
        (100, [51, 33]),
        (100, [65]),
    ]


def test_a_source_has_room_for_its_language_and_its_end():
    """As many tokens as the model has positions; confidences are means over the pieces of a longer one."""
    lengths = []

    def translate(work, prefix, num_beams, count, on_done):
        lengths.append(sorted(len(row) for _, rows in work for row in rows))
        ends = {11: work[0][0]}  # the shortest never does
        return [[[([len(row)] * ends.get(len(row), 1), -0.02 * len(row))] for row in rows] for _, rows in work]

    nllb = object.__new__(NLLB)
    nllb._max_tokens, nllb._num_beams, nllb._tokenizer = 20, 5, Tokenizer()
    nllb._engine = SimpleNamespace(translate=translate)
    nllb._languages = SimpleNamespace(prefixes=lambda *_: ([9], []))
    nllb._ids = lambda texts: [[0] * len(text.split()) for text in texts]
    basque, english, burmese = (languages.find(name) for name in ("Basque", "English", "Burmese"))
    whole, cut = nllb.translate(["bat " * 18, "bi " * 19], basque, english)
    assert lengths == [[11, 12, 20]] and (whole.segments, cut.segments) == (1, 2)
    assert not whole.truncated and cut.truncated
    assert cut.text == "11 12" and nllb.translate(["bi " * 19], basque, burmese)[0].text == "1112"
    assert (whole.confidence, cut.confidence) == (round(math.exp(-0.4), 4), round(math.exp(-0.23), 4))


def test_a_source_is_cut_only_beyond_the_limit():
    def tokenize(parts):
        return [list(part) for part in parts]

    text = "a" * 10
    assert split_long(text, list(text), tokenize, 10) == [text] and len(split_long(text, list(text), tokenize, 9)) == 2
    # The strongest mark between a quarter and three quarters; of equals the one nearest to the middle.
    assert split_long("aaaa. bb, cccc dd", list("x" * 17), tokenize, 16) == ["aaaa.", "bb, cccc dd"]
    assert split_long("a. aaaaaaa, bbbbb", list("x" * 17), tokenize, 16) == ["a. aaaaaaa,", "bbbbb"]


def test_progress_in_proportion():
    done: list[int] = []
    step = by_steps(done.append, 7, 3)
    for _ in range(3):
        step(1)
    assert done == [2, 2, 3]
    by_steps(done.append, 4, 0)
    assert done[3:] == [4]
