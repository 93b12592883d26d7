"""Twins of a test set: what is swapped, into what, and what is left alone."""

import re
import unicodedata
from collections import Counter

import pytest

from comptra.contamination import twins
from comptra.contamination.twins import holds, make, read_number, values_in
from tests.support.tiny_memorised import TEST_FORMS, pairs
from topxgen.corpora import benchmarks
from topxgen.text import languages

# Sentences whose names can change places with those of a pair under test.
OTHERS = [
    (f"Atzo {name} etorri zen.", f"Yesterday {name} came.")
    for name in ("Bolsonaro", "Merkel", "Clinton", "Lula", "Sanders", "Obrador")
]


def swapped(source: str, reference: str, count: int = 3, codes=("eus", "eng"), others=OTHERS):
    """The variants of the first pair, the original first; None if it does not change."""
    made = make([(source, reference), *others], codes, count, seed=7)
    return [variant[0] for variant in (made.originals, *made.twins)] if 1 in made.numbers else None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", "7"), ("1939", "1939"), ("3,000", "3000"), ("3.000", "3000"), ("1,00,000", "100000"), ("3’000", "3000"),
        ("2.8", "2.8"), ("2,8", "2.8"), ("0.125", "0.125"), ("12.05.2018", ""), ("१२", "12"), ("२.५", "2.5"), ("۱۲۳", "123"), ("٣٫٥", "3.5"),
    ],
)  # fmt: skip
def test_numbers_are_read_in_all_digits_and_separators(text, number):
    assert read_number(text) == number
    assert [value.number for value in values_in(f"x {text} y")] == [number]


@pytest.mark.parametrize(
    ("source", "reference"),
    [
        ("3.000 etxe dira.", "There are 3,000 houses."),
        ("Hazkundea 2,8 izan zen.", "Growth was 2.8 points."),
        ("Hazkundea % 64 izan zen.", "Growth was 64% then."),
        ("125 espezie daude.", "There are 125 species."),
    ],
)
def test_a_number_keeps_its_form(source, reference):
    original, *made = swapped(source, reference)
    assert original[:2] == (source, reference)
    assert len({twin.reference for twin in made}) == 3
    for twin in made:
        (swap,) = twin.swaps
        assert (
            swap.new != swap.old
            and holds(twin.source, swap.new, "number")
            and holds(twin.reference, swap.new, "number")
        )
        for old, new in zip((source, reference), twin[:2], strict=True):
            assert re.sub(r"\d", "0", old) == re.sub(r"\d", "0", new)


@pytest.mark.parametrize(
    ("code", "source", "reference"),
    [
        ("npi", "यहाँ १२५ वटा घर छन्।", "There are 125 houses here."),
        ("urd", "یہاں ۴۵ گھر ہیں۔", "There are 45 houses here."),
        ("npi", "यहाँ 4,525 वटा घर छन्।", "There are 4,525 houses here."),
    ],
)
def test_other_digits_stay_other_digits(code, source, reference):
    _, twin = swapped(source, reference, count=1, codes=(code, "eng"), others=[])
    zero = min(char for char in source if char.isdigit())
    assert twin.source != source and all(ord(char) // 16 == ord(zero) // 16 for char in twin.source if char.isdigit())
    assert [v.number for v in values_in(twin.source)] == [v.number for v in values_in(twin.reference) if v.number]


def test_years_move_to_earlier_years_with_the_same_ending():
    _, *made = swapped("1939ko gerra eta 2017ko bakea.", "The war of 1939 and the peace of 2017.")
    assert [twin.source for twin in made] == [
        "1919ko gerra eta 1997ko bakea.", "1899ko gerra eta 1977ko bakea.", "1879ko gerra eta 1957ko bakea.",
    ]  # fmt: skip
    assert {swap.kind for swap in made[0].swaps} == {"year"}


@pytest.mark.parametrize(
    ("ordinal", "suffix"), [("21st", "st"), ("42nd", "nd"), ("53rd", "rd"), ("25th", "th"), ("112th", "th")]
)
def test_english_ordinals_stay_right(ordinal, suffix):
    number = ordinal.removesuffix(suffix)
    made = swapped(f"Hau {number}. aldia da.", f"This is the {ordinal} time.")
    for twin in made[1:]:
        new = re.search(r"(\d+)(\w\w)", twin.reference)
        assert new[2] == suffix and new[1] != number
        teens = new[1][-2:-1] == "1"
        assert suffix == ("th" if teens else {"1": "st", "2": "nd", "3": "rd"}.get(new[1][-1], "th"))
        assert f" {new[1]}. " in twin.source


def test_days_hours_and_minutes_stay_possible():
    for seed in range(40):
        made = make([("Maiatzak 24, 21:45.", "On 24 May at 21:45.")], ("eus", "eng"), 1, seed)
        day, hour, minute = re.fullmatch(r"On (\d+) May at (\d+):(\d+)\.", made.twins[0][0].reference).groups()
        assert 2 <= int(day) <= 31 and int(hour) <= 23 and int(minute) <= 59


def test_round_numbers_stay_round():
    _, *made = swapped("Hemen 4.500 etxe daude.", "There are 4,500 houses.")
    assert all(twin.swaps[0].new.endswith("00") for twin in made)


@pytest.mark.parametrize("number", ["0", "1"])
def test_one_and_none_stay_since_grammar_depends_on_them(number):
    assert swapped(f"Gol {number} sartu zuen.", f"It scored {number} goal.") is None


@pytest.mark.parametrize(
    ("source", "reference"),
    [
        ("Zazpi etxe daude.", "There are 7 houses."),  # spelled out on one side
        ("7 etxe eta 7 zakur.", "There are 7 houses and as many dogs."),  # not equally often
        ("24 लाख", "2.4 million"),
        ("12.05.2018 zen.", "It was 12.05.2018."),
    ],
)
def test_what_is_not_on_both_sides_in_the_same_way_is_left_and_counted(source, reference):
    made = make([(source, reference)], ("eus", "eng"), 2, 7)
    assert made.numbers == [] and made.counts["left"] >= ("12.05" not in source and "7" in source)


def test_names_change_places_and_keep_their_endings():
    _, *made = swapped("Eta Obamak Trumprekin hitz egin zuen.", "And Obama spoke with Trump.")
    for twin in made:
        by_old = {swap.old: swap.new for swap in twin.swaps}
        assert set(by_old) == {"Obama", "Trump"}
        assert twin.source == f"Eta {by_old['Obama']}k {by_old['Trump']}rekin hitz egin zuen."
        assert twin.reference == f"And {by_old['Obama']} spoke with {by_old['Trump']}."
        assert by_old["Obama"][-1] in "aeiou" and by_old["Trump"][-1] not in "aeiou"  # which the endings depend on


def test_an_english_possessive_is_no_ending_and_a_derived_word_no_name():
    _, twin = swapped("Gaur Obamaren etxea.", "Today Obama's house.", count=1)
    assert re.fullmatch(r"Today \w+'s house\.", twin.reference) and twin.source != "Gaur Obamaren etxea."
    assert swapped("Gaur Malta eta maltarrak.", "Today Malta and the Maltan people.") is None


def test_a_word_that_is_written_small_elsewhere_is_no_name():
    pair = ("Hau Prince da.", "This is Prince then.")
    assert swapped(*pair)
    assert swapped(*pair, others=[*OTHERS, ("Bada printze bat.", "There is a prince here.")]) is None


def test_a_word_that_begins_both_sides_is_no_name():
    assert swapped("Reforma bat da.", "Reform is one.") is None


def test_prefixed_names():
    _, twin = swapped("Namhlanje uObama ufikile.", "Today Obama came.", count=1, codes=("xho", "eng"))
    assert re.fullmatch(r"Namhlanje u[A-Z]\w+ ufikile\.", twin.source) and "Obama" not in twin.source


def test_a_twin_is_a_function_of_its_arguments_and_consistent():
    test_set = pairs(TEST_FORMS)
    one, again, more = (make(test_set, ("eus", "eng"), count, 7) for count in (2, 2, 3))
    assert one == again and one != make(test_set, ("eus", "eng"), 2, 8)
    for twin in one.twins:
        new = {}
        for sentence in twin:
            for swap in sentence.swaps:
                assert new.setdefault((swap.kind == "name", swap.old), swap.new) == swap.new != swap.old
        names = [name for (is_name, _), name in new.items() if is_name]
        assert len(set(names)) == len(names)  # two people do not become one
    assert len(more.twins) == 3 and len(one.numbers) == len(one.originals) == len(one.twins[1]) == len(test_set)


@pytest.mark.parametrize("language", ["Basque", "Hausa", "Nepali", "Swahili", "Urdu"])
def test_twins_of_ntrex(ntrex, language):
    """Hundreds of real sentences change; on each side only the values do, and those are on both sides."""
    src = languages.find(language)
    sides = [
        next(split for split in benchmarks.load("ntrex", side, ntrex.parent) if split.name == "test").texts
        for side in (src, languages.find("English"))
    ]
    test_set = list(zip(*sides, strict=True))
    made = make(test_set, (src.iso639_3, "eng"), 2, 122)
    assert len(made.numbers) > 200
    for number, original, *others in zip(made.numbers, made.originals, *made.twins, strict=True):
        assert original[:2] == test_set[number - 1]
        for twin in others:
            assert twin.source != original.source and twin.reference != original.reference
            for old, new in zip(original[:2], twin[:2], strict=True):
                gone, come = (Counter(v.text for v in values_in(text)) for text in (old, new))
                assert gone.total() == come.total()
                assert twins._VALUES.sub("", old) == twins._VALUES.sub("", new)
            for swap in twin.swaps:
                assert holds(twin.source, swap.new, swap.kind) and holds(twin.reference, swap.new, swap.kind)
    digits = {unicodedata.name(char).split(" DIGIT")[0] for text in sides[0] for char in text if char.isdigit()}
    assert {unicodedata.name(c).split(" DIGIT")[0] for s in made.twins[0] for c in s.source if c.isdigit()} <= digits
