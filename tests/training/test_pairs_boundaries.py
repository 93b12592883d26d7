"""Test sets: how large, and what stays together."""

import random
import re
import unicodedata

import pytest

from topxgen.common.errors import UsageError
from topxgen.training.pairs import Pair, reverse, split


def pairs(count: int, group=str) -> list[Pair]:
    return [Pair(f"s{i}", f"t{i}", "English", "Basque", group(i)) for i in range(count)]


@pytest.mark.parametrize(
    "size, held_out", [(0, 0), (0.01, 1), (0.1, 2), (0.125, 2), (0.5, 10), (0.95, 19), (2, 2), (19, 19)]
)
def test_size_of_the_test_set(size, held_out):
    train, test = split(pairs(20), size, seed=1)
    assert len(test) == held_out and sorted(train + test, key=lambda pair: pair.source) == sorted(
        pairs(20), key=lambda pair: pair.source
    )


@pytest.mark.parametrize("size", [1, 20, 21, 1.5, -0.1])
def test_sizes_that_leave_nothing_or_are_none(size):
    with pytest.raises(UsageError, match="--test_size_ratio"):
        split(pairs(20), size, seed=1)


def test_reversed_pairs_swap_text_and_language():
    (_, other) = reverse([Pair("a", "b", "English", "Basque", "g")])
    assert other == Pair("b", "a", "Basque", "English", "g")


def together(data: list[Pair], size: float) -> None:
    """No group and no text of a language is on both sides."""
    for seed in range(20):
        train, test = split(data, size, seed)
        for key in (
            lambda pair: {pair.group},
            lambda pair: {(pair.src, pair.source), (pair.tgt, pair.target)},
        ):
            assert not set().union(*map(key, train)) & set().union(*map(key, test))


def test_groups_stay_together():
    together(pairs(40, group=lambda i: str(i // 2)), 0.2)


def test_pairs_with_a_text_in_common_stay_together():
    data = [Pair(f"s{i}", f"t{i // 2}", "English", "Basque", str(i)) for i in range(40)]
    together(data, 0.2)
    data = [Pair(f"s{i // 2}", f"t{i}", "English", "Basque", str(i)) for i in range(40)]
    together(data, 0.2)
    # The source of one is the target of another.
    together([*pairs(20), *(Pair(f"t{i}", f"u{i}", "Basque", "English", f"b{i}") for i in range(20))], 0.2)


@pytest.mark.parametrize(
    "respell",
    [
        lambda text: unicodedata.normalize("NFD", text),
        lambda text: text.replace(" ", "\u00a0"),
        lambda text: text.rstrip("."),
        lambda text: f"\u201c{text.upper()}\u201d",
        lambda text: "\u200b".join(text),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_spellings_of_a_text_stay_together(respell, side):
    """A held-out sentence is not trained on in another Unicode form or without its full stop."""
    for seed in range(20):
        data = []
        for i in range(40):
            sides = [f"s{i}", f"t{i}"]
            text = f"H\u00e9 ber\u0301e {i // 2}."
            sides[side] = respell(text) if i % 2 else text
            data.append(Pair(*sides, "English", "Basque", str(i)))
        train, test = split(data, 8, seed)
        assert len(test) == 8
        numbers = [
            {int("".join(re.findall(r"\d", pair.target))) // (1 if side else 2) for pair in part}
            for part in (train, test)
        ]
        assert not numbers[0] & numbers[1]


def test_equal_texts_of_two_languages_do_not_tie_pairs():
    data = [Pair("taxi", f"t{i}", f"Language {i}", "Basque", str(i)) for i in range(20)]
    assert len(split(data, 5, seed=1)[1]) == 5


def test_the_test_set_is_as_large_as_the_groups_allow():
    rng = random.Random(3)
    for count in (5, 7, 10, 17):
        sizes = [rng.choice([2, 3, 4]) for _ in range(12)]
        data = [
            Pair(f"s{g}.{i}", f"t{g}.{i}", "English", "Basque", str(g))
            for g, size in enumerate(sizes)
            for i in range(size)
        ]
        assert len(split(data, count, seed=2)[1]) == count
    data = [Pair(f"s{g}.{i}", f"t{g}.{i}", "English", "Basque", str(g)) for g in range(6) for i in range(4)]
    assert len(split(data, 7, seed=2)[1]) == 4 and len(split(data, 8, seed=2)[1]) == 8


def test_a_sentence_in_all_paragraphs_ties_nothing(caplog):
    """Its pairs are trained on; all others can be held out, and no text of the test set is in the training set."""
    caplog.set_level("INFO")
    data = [Pair(f"s{i}", f"t{i}", "English", "Basque", str(i // 4)) for i in range(80)]
    closing = [
        Pair(f"Thanks, reader {g}.", "Eskerrik asko.", "English", "Basque", str(g)) for g in (*range(20), *range(5))
    ]
    again = [Pair(f"Thanks, reader {g}.", f"Mila esker, {g}.", "English", "Basque", f"again {g}") for g in range(20)]
    for seed in range(5):
        train, test = split([*data, *closing, *again], 8, seed)
        assert len(test) == 8 and not set(closing) & set(test) and len(train) == 117
        assert not {pair.group for pair in test} & {pair.group for pair in train if pair not in closing}
        assert not {pair.source for pair in test} & {pair.source for pair in train}
    assert (
        "45 pairs with a sentence that occurs in more than 12 of them, or with the other sentence of such a pair, are trained"
        in caplog.text
    )
    caplog.clear()
    tied = [Pair(f"Thanks, reader {g}.", "Eskerrik asko.", "English", "Basque", f"closing {g}") for g in range(30)]
    assert set(split([*pairs(3), *tied], 10, 1)[1]) == set(pairs(3)) and not caplog.text, "without the ties no more"


def test_the_most_frequent_sentences_are_untied_first():
    """The rarer one ties its paragraphs as before."""
    data = [Pair(f"s{i}", f"t{i}", "English", "Basque", str(i // 4)) for i in range(160)]
    common = [Pair(f"Thanks, reader {g}.", "Eskerrik asko.", "English", "Basque", str(g)) for g in range(40)]
    rare = [Pair(f"See {g}.", "Ikusi.", "English", "Basque", str(g)) for g in range(0, 40, 10)]
    for seed in range(10):
        test = split([*data, *common, *rare], 30, seed)[1]
        assert {pair in set(test) for pair in rare} in ({True}, {False})
        assert 28 <= len(test) <= 30 and not set(common) & set(test)


def test_a_test_set_of_less_than_half_the_size_is_not_enough():
    """A sentence in all but two paragraphs leaves them to be held out, each time the same."""
    data = [Pair(f"s{i}", f"t{i}", "English", "Basque", str(i // 2)) for i in range(80)]
    common = [Pair(f"Thanks, reader {g}.", "Eskerrik asko.", "English", "Basque", str(g)) for g in range(38)]
    assert len(split([*data, *common], 20, 1)[1]) == 20
    assert len(split([*data, *common[:35]], 20, 1)[1]) == 10, "half of it is"


def test_a_chain_of_shared_sentences_is_cut():
    data = [Pair(f"s{i}.{n}", f"t{i}.{n}", "English", "Basque", str(i)) for i in range(30) for n in range(3)]
    data += [Pair(f"a{i}.{g}", f"chain {i}", "English", "Basque", str(g)) for i in range(30) for g in (i, i + 1)]
    together_, test = split(data, 9, 1)
    assert len(test) == 9 and not {pair.target for pair in test} & {pair.target for pair in together_}


def test_where_every_text_is_shared_nothing_can_be_held_out():
    data = [Pair("one source", f"t{i}", "English", "Basque", str(i)) for i in range(80)]
    with pytest.raises(UsageError, match=r"no test set of 5 pairs.*and all 80 do"):
        split(data, 5, 1)
