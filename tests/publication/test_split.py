"""No text of the validation split, nor nearly the same, is in the training split."""

import random
from collections import Counter

import pytest

from tests.support.publishing import ENGLISH, WORDS, make_run, phrase, publish, record, rows
from topxgen.publication import split
from topxgen.publication.sources import Pair, Paragraph
from topxgen.text import languages
from topxgen.text.leak_guard import leaks

BASQUE, HAUSA, ENGLISH_LANGUAGE = map(languages.find, ("Basque", "Hausa", "English"))


def paragraph(
    number: int, *sides: tuple[str, str], text: str = "", config: str = "Basque", language=BASQUE
) -> Paragraph:
    sides = sides or ((phrase(number, WORDS), phrase(number, ENGLISH)),)
    text = text or " ".join(side for side, _ in sides)
    pairs = [
        Pair(
            f"{number}/p{i}",
            source,
            target,
            "eng_Latn",
            language.flores,
            None,
            None,
            None,
            None,
            str(number),
            text,
            "x",
        )
        for i, (target, source) in enumerate(sides)
    ]
    return Paragraph(config, text, language, ENGLISH_LANGUAGE, pairs)


def sizes(paragraphs) -> dict[str, int]:
    counts = Counter()
    for one in paragraphs:
        counts[one.config] += len(one.pairs)
    return dict(counts)


def parted(paragraphs, size=0.3, seed=122) -> tuple[list[Paragraph], list[Paragraph]]:
    found = split.validation(lambda: paragraphs, sizes(paragraphs), size, seed)
    held = [one for one in paragraphs if split.key_of(one, seed) in found.keys]
    assert sizes(held) == {config: count for config, count in found.pairs.items() if count}
    return [one for one in paragraphs if split.key_of(one, seed) not in found.keys], held


def leaking(train, held) -> list:
    """By the sides' languages, paragraphs of the training split included."""
    found = []
    for side, language in (("target", BASQUE), ("source", ENGLISH_LANGUAGE)):
        test = [getattr(pair, side) for one in held for pair in one.pairs]
        pool = [getattr(pair, side) for one in train for pair in one.pairs]
        pool += [one.text for one in train] if side == "target" else []
        found += leaks(test, pool, language.script)
    return found


@pytest.mark.parametrize("size, asked", [(None, 5), (0, 0), (0.3, 30), (1, 100), (7, 7), (500, 100)])
def test_as_many_pairs_as_are_asked_for(size, asked):
    paragraphs = [paragraph(n) for n in range(100)]
    assert split.wanted_pairs(100, size) == asked
    train, held = parted(paragraphs, size)
    assert len(held) == asked and len(train) == 100 - asked
    assert split.wanted_pairs(10**6, None) == 1000


def test_a_size_below_one_pair_is_named(caplog):
    assert not parted([paragraph(n) for n in range(10)], 0.01)[1]
    assert "--validation_size 0.01 of 10 pairs is less than one pair: no validation split" in caplog.text
    caplog.clear()
    assert not parted([paragraph(n) for n in range(10)], 0)[1] and not caplog.text


def test_the_split_depends_on_the_paragraphs_and_the_seed_not_on_their_order():
    paragraphs = [paragraph(n) for n in range(200)]
    one = {held.text for held in parted(paragraphs, 20)[1]}
    shuffled = random.Random(1).sample(paragraphs, 200)
    assert {held.text for held in parted(shuffled, 20)[1]} == one
    assert {held.text for held in parted(paragraphs, 20, seed=5)[1]} != one


@pytest.mark.parametrize("kind", ["equal", "spelling", "near", "inside", "translation"])
def test_a_sentence_in_two_paragraphs_is_on_one_side(kind):
    """Each paragraph shares a sentence with another one, a hundred numbers on; the rest of it is its own."""
    paragraphs = []
    for n in range(200):
        shared, own = phrase(5000 + n % 100, WORDS, 12), phrase(n, WORDS)
        translation, text = phrase(n, ENGLISH), ""
        if n >= 100:
            words = shared.split()
            if kind == "spelling":
                shared = shared.upper().replace(" ", "  ") + "!"
            elif kind == "near":
                shared = " ".join([*words[:-2], "beste", "gauza."])
            elif kind == "inside":  # a sentence that was rejected: in the paragraph, in no pair
                text, shared = f"{own} {shared}", phrase(8000 + n, WORDS)
            elif kind == "translation":
                shared, translation = phrase(8000 + n, WORDS), phrase(n - 100, ENGLISH)
        paragraphs.append(paragraph(n, (own, f"Own {phrase(700 + n, ENGLISH)}"), (shared, translation), text=text))
    train, held = parted(paragraphs, 80)
    assert len(held) >= 30 and not leaking(train, held)
    assert not leaking(*parted(paragraphs, 40, seed=1))
    straddling = {key: [] for key in range(100)}
    for one in held:
        straddling[int(one.pairs[0].id.split("/")[0]) % 100].append(one)
    assert all(len(both) != 1 for both in straddling.values()) or kind == "inside"


def test_chains_of_paragraphs_stay_together():
    """Each shares a sentence with the next one: all or none of a chain is held out."""
    links = [phrase(9000 + n, WORDS) for n in range(60)]
    chain = [paragraph(n, (links[n], phrase(n, ENGLISH)), (links[n + 1], phrase(300 + n, ENGLISH))) for n in range(10)]
    others = [paragraph(n) for n in range(100, 160)]
    for seed in range(6):
        train, held = parted([*chain, *others], 25, seed)
        in_chain = [one for one in held if one in chain]
        assert len(in_chain) in (0, 10) and not leaking(train, held) and 20 <= sizes(held)["Basque"] <= 25


def test_a_sentence_that_is_everywhere_is_never_held_out(caplog):
    same = [
        paragraph(
            n,
            (phrase(n, WORDS), phrase(n, ENGLISH)),
            ("Esaldi hau leku guztietan dago beti.", phrase(400 + n, ENGLISH)),
        )
        for n in range(50)
    ]
    _, held = parted([*same, *(paragraph(n) for n in range(100, 120))], 10)
    assert len(held) == 10 and not any(one in same for one in held)
    assert not parted(same, 10)[1] and "no validation split of 10 pairs" in caplog.text


def test_translations_from_a_template_are_not_compared_over_and_over(monkeypatch):
    """Nearly all are alike: once a candidate is tied to the training split, no more of its texts are looked for."""
    found = []

    def counted(*args):
        matches = leaks(*args)
        found.append(len(matches))
        return matches

    monkeypatch.setattr(split, "leaks", counted)
    monkeypatch.setattr(split, "FIRST_TEXTS", 40, raising=False)
    same = [
        paragraph(n, (phrase(n, WORDS), f"Everyone has the right to number {n} in the world.")) for n in range(1000)
    ]
    assert not parted(same, 20)[1]
    candidates = 20 + split.MIN_POOL
    assert candidates**2 <= sum(found) < 1000 * candidates / 4


def test_languages_have_splits_of_their_own_which_share_no_translation():
    basque = [paragraph(n) for n in range(100)]
    hausa = [
        paragraph(n, (phrase(4000 + n, WORDS), phrase(n, ENGLISH)), config="Hausa", language=HAUSA)
        for n in range(50, 150)
    ]
    train, held = parted([*basque, *hausa], 0.2)
    assert sizes(held) == {"Basque": 20, "Hausa": 20}
    translations = [{pair.source for one in part for pair in one.pairs} for part in (train, held)]
    assert not translations[0] & translations[1]


def test_a_paragraph_in_two_configs_is_compared_with_all_that_both_have_of_it():
    """Of one, which has more pairs of a paragraph, fewer paragraphs are candidates; nearly all its translations are tied together."""
    paragraphs = []
    for n in range(200):
        own = [(phrase(1000 + 4 * n + i, WORDS), phrase(5000 + 4 * n + i, ENGLISH)) for i in range(4)]
        text = " ".join(target for target, _ in own)
        paragraphs.append(paragraph(n, own[0], text=text, config="Basque to English"))
        own[3] = own[3][0], phrase(90000 + n % 20, ENGLISH)
        paragraphs.append(paragraph(n, *own, text=text, config="Basque to French"))
    assert not leaking(*parted(paragraphs, 0.2))


def test_published_splits_share_no_text(tmp_path):
    records = []
    for n in range(60):
        one = record(n, pairs=3)
        one["propositions"][2] = record(n // 2, pairs=3)["propositions"][2]
        one["sentence"] = " ".join(one["propositions"])
        records.append(one)
    publish(make_run(tmp_path / "run", {"Basque": records}), tmp_path / "out", "--validation_size", "0.2")
    train, held = (rows(tmp_path / "out", split=name) for name in ("train", "validation"))
    assert len(train) + len(held) == 180 and 24 <= len(held) <= 36
    for column in ("source", "target", "paragraph_id", "paragraph"):
        assert not {row[column] for row in train} & {row[column] for row in held}, column
