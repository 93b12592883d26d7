"""Numbered lists in responses: what counts as the next number, and what does not."""

import pytest

from topxgen.generation.parsing import numbered_texts, whole_text


@pytest.mark.parametrize(
    "response, texts",
    [
        ("1. a\n2. b", ["a", "b"]),
        ("1) a\n2) b", ["a", "b"]),
        ("**1.** a\n**2.** b", ["a", "b"]),
        ("Here you are:\n\n1. a\nb\n\n2.  c", ["a b", "c"]),
        ("१. a\n२. b", ["a", "b"]),
        ("1. a\n1999. urtean b\n2. c", ["a 1999. urtean b", "c"]),
        ("1. a\n20. mendean\n2. b", ["a 20. mendean", "b"]),  # an ordinal is not the next number
        ("1. a 2. b\n2. c", ["a 2. b", "c"]),
        ("1. a\n2.5 kilo\n2. b", ["a 2.5 kilo", "b"]),  # a number goes on after its point
        ("1. a\n2. b\n3. c", None),
        ("1. a", None),
        ("2. a\n3. b", None),
        ("1. a\n2. ", None),
        ("1.\n2. b", None),
        ("", None),
    ],
)
def test_two_texts(response, texts):
    assert numbered_texts(response, 2) == texts


def test_the_whole_response():
    assert whole_text(" a\n\n b\tc ") == ["a b c"]
    assert whole_text(" \n ") is None
