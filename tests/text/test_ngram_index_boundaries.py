"""The shares of n at which a short benchmark text or a sentence of a longer one counts."""

import pytest

from topxgen.text.ngram_index import MAX_OWNERS_PER_NGRAM, BenchmarkText, ContaminationIndex

BASE = [f"w{i}" for i in range(40)]


def words(first: int, last: int) -> str:
    return " ".join(BASE[first:last])


def entries(texts: list[str], split: str = "test") -> list[BenchmarkText]:
    return [BenchmarkText("set", split, "any", str(i), text) for i, text in enumerate(texts)]


def kinds(index: ContaminationIndex, *texts: str) -> list[list[str]]:
    matches = index.find(list(texts))
    return [[match.kind for match in matches.get(i, [])] for i in range(len(texts))]


@pytest.mark.parametrize("n, shortest", [(10, 6), (13, 8), (5, 3)])
def test_short_texts_inside_others_from_six_tenths_of_n(n, shortest):
    for length in (shortest - 1, shortest, n - 1):
        index = ContaminationIndex(entries([words(0, length)]), n)
        inside = kinds(index, f"x {words(0, length)} y", words(0, length))
        assert inside == [["short_text"] if length >= shortest else [], ["short_text"]], length


def test_a_text_of_n_tokens_is_not_short():
    index = ContaminationIndex(entries([words(0, 10)]), 10)
    assert kinds(index, f"x {words(0, 10)} y", words(0, 9)) == [["ngram"], []]
    index = ContaminationIndex(entries([words(0, 9)]), 10)
    assert kinds(index, words(0, 9), f"{words(0, 9)} x", f"x {words(0, 8)}") == [["short_text"], ["short_text"], []]


def test_short_text_rules():
    texts = entries([words(0, 8)])
    inside, equal, ignore = (
        ContaminationIndex(texts, 10, short_text_rule=rule) for rule in ("inside", "whole", "ignore")
    )
    both = (f"x {words(0, 8)}", words(0, 8))
    assert kinds(inside, *both) == [["short_text"], ["short_text"]]
    assert kinds(equal, *both) == [[], ["short_text"]]
    assert kinds(ignore, *both) == [[], []]
    for length in (1, 9):
        assert kinds(
            ContaminationIndex(entries([words(0, length)]), 10, short_text_rule="whole"), words(0, length)
        ) == [["short_text"]]


@pytest.mark.parametrize("length, counts", [(7, False), (8, True)])
def test_sentences_count_as_near_duplicates_from_eight_tenths_of_n(length, counts):
    text = f"{words(0, length)}. {words(length, 40)}."
    split = lambda text: [f"{sentence.strip('. ')}." for sentence in text.split(". ")]  # noqa: E731
    index = ContaminationIndex(entries([text]), 10, near_duplicate_threshold=0.7, split_sentences=split)
    assert split(text)[0] == f"{words(0, length)}."
    near = f"{words(0, length - 1)} x"
    assert kinds(index, near) == [["near_duplicate"] if counts else []]


def test_ngrams_do_not_run_across_benchmark_texts_nor_across_texts_without_groups():
    index = ContaminationIndex(entries([words(0, 10), words(10, 20)]), 10)
    assert kinds(index, words(5, 15)) == [[]]
    index = ContaminationIndex(entries([words(0, 20)]), 10)
    texts = [words(5, 10), words(10, 15)]
    assert index.find(texts) == {}
    (match,) = index.find(texts, [2, 2])[0]
    assert (match.texts, match.tokens, match.shared_ngram) == (2, 10, words(5, 15))
    assert index.find([*texts, "x"], [1, 3, 3]) == {}


def test_tokens_shared_in_several_ngrams_are_counted_once():
    index = ContaminationIndex(entries([words(0, 40)]), 10)
    (match,) = index.find([f"{words(0, 12)} x {words(20, 31)}"])[0]
    assert match.tokens == 12 + 11


def test_matches_of_neighbours_that_share_no_text_stay_apart():
    index = ContaminationIndex(entries([words(0, 20)]), 10)
    matches = index.find([words(0, 10), words(10, 20)], [2, 2])
    # An n-gram across both joins them.
    assert list(matches) == [0] and matches[0][0].texts == 2
    matches = index.find([f"{words(0, 10)} x", f"y {words(10, 20)}"], [2, 2])
    assert {number: match[0].texts for number, match in matches.items()} == {0: 1, 1: 1}


@pytest.mark.parametrize("shared, texts", [(0, 1), (1, 1), (2, 1), (3, 2)])
def test_an_ngram_that_runs_over_by_a_word_or_two_does_not_count_against_the_neighbour(shared, texts):
    """Both go on with "The", as many sentences do."""
    index = ContaminationIndex(entries([words(0, 40)]), 10)
    own, neighbour = words(10, 22), f"{words(22, 22 + shared)} x y z"
    assert [match[0].texts for match in index.find([own, neighbour], [2, 2]).values()] == [texts]
    # The same before the text.
    own, neighbour = words(10, 22), f"x y z {words(10 - shared, 10)}"
    matches = index.find([neighbour, own], [2, 2])
    assert list(matches) == [2 - texts] and matches[2 - texts][0].texts == texts
    assert matches[2 - texts][0].tokens == (12 + shared if texts == 2 else 12)


def test_a_short_neighbour_counts_if_all_of_it_is_shared():
    index = ContaminationIndex(entries([words(0, 40)]), 10)
    (match,) = index.find([words(10, 22), words(22, 24)], [2, 2])[0]
    assert (match.texts, match.tokens) == (2, 14)
    # Nine words and one more of the next text: the first is still found, as its ten words are.
    (match,) = index.find([f"x {words(10, 19)}", f"{words(19, 20)} y z"], [2, 2])[0]
    assert (match.texts, match.shared_ngram) == (1, words(10, 20))


def test_a_shared_ngram_is_shown_in_the_letters_of_the_benchmark():
    """Cyrillic words that look Latin (оса, хор) are compared as Latin ones."""
    text = "Утром оса и хор у реки, а вечером рос туман."
    (match,) = ContaminationIndex(entries([text]), 5).find([f"Да, {text}"])[0]
    assert match.shared_ngram == "утром оса и хор у"


def test_boilerplate_names_twenty_texts_of_a_split():
    many = [f"{words(0, 10)} a{i}" for i in range(30)]
    index = ContaminationIndex([*entries(many), *entries(many, "dev")], 10)
    matches = index.find([words(0, 10)])[0]
    assert MAX_OWNERS_PER_NGRAM == 20 and len(matches) == 40
    assert {(match.entry.split, int(match.entry.id)) for match in matches} == {
        (split, i) for split in ("test", "dev") for i in range(20)
    }


def test_between_splits_leaves_out_the_split_itself_and_its_variants():
    index = ContaminationIndex(
        [
            *entries([words(0, 12)], "test"), *entries([words(0, 12)], "test (fra-CA)"), *entries([words(2, 14), words(3, 15)], "dev"),
        ], 10,
    )  # fmt: skip
    texts = [entry.text for entry in index.entries]
    matches = index.find(texts, between_splits=True)
    assert {i: sorted((match.entry.split, match.entry.id) for match in found) for i, found in matches.items()} == {
        0: [("dev", "0")],
        1: [("dev", "0")],
        2: [("test", "0"), ("test (fra-CA)", "0")],
    }


def test_no_ngram_of_no_token():
    with pytest.raises(ValueError, match="at least 1 token"):
        ContaminationIndex([], 0)
