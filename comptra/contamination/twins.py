"""Twins of a test set: the same sentences with other numbers and names, in source and reference alike.

No model can have seen a twin. It is meant to be as hard as the original: a number becomes one of the same form (digits,
separators, script, zeros at its end, English ordinal suffix), years move by a multiple of 20, and names change places
with other names of the test set. A value that is not found on both sides stays as it is. The same value becomes the
same one everywhere in a twin, unless what stands beside it (an ordinal suffix, a colon) does not allow that.
"""

import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from topxgen.common.files import read_jsonl

REPORT, TWINS, SWAPS = "contamination_report.json", "twins.jsonl", "swaps.jsonl"
ENGLISH = "eng"
YEARS = range(1500, 2100)
YEAR_SHIFT = 20  # keeps the last digit and whether the one before is even, on which inflected endings depend
MAX_TWINS = 5
# A number up to one of them may be a day of a month, the others if beside a colon.
MAX_DAY, MAX_HOUR, MAX_MINUTE = 31, 23, 59
DRAWS = 200  # before a number counts as one that has no replacement
MIN_NAME, MIN_ACRONYM, MAX_ENDING = 4, 3, 5  # letters; an ending is what a language appends to a name (Obama-k)
# Before English names of places.
PLACE_WORDS = frozenset(["in", "at", "from", "near", "to", "across", "outside", "around"])

_LATIN = [chr(code) for code in (*range(0x41, 0x2B0), *range(0x1E00, 0x1F00)) if chr(code).isalpha()]
_UPPER, _LETTERS = "".join(filter(str.isupper, _LATIN)), "".join(_LATIN)
_NUMBER = r"\d+(?:[.,٫٬’]\d+)*"
_NAME = f"[{_UPPER}][{_LETTERS}]*(?:-[{_UPPER}][{_LETTERS}]*)*"
_VALUES = re.compile(f"(?P<number>{_NUMBER})|(?P<name>{_NAME})")
_LOWER_WORDS = re.compile(rf"(?<![{_LETTERS}])[{''.join(filter(str.islower, _LATIN))}]+(?![{_LETTERS}])")
_ORDINAL = re.compile("(st|nd|rd|th)(?![a-z])")


class Swap(NamedTuple):
    """A value of a sentence and the one in its place. Numbers are in ASCII digits with "." before decimals, names without endings."""

    kind: str  # "year", "number" or "name"
    old: str
    new: str


class Sentence(NamedTuple):
    source: str
    reference: str
    swaps: tuple[Swap, ...]


@dataclass(frozen=True)
class Twins:
    """The sentences that can be changed. `originals` and each of `twins` are one for one."""

    numbers: list[int]  # of the sentences in the test set, from 1
    originals: list[Sentence]  # each with old == new
    twins: list[list[Sentence]]
    counts: dict[str, int]  # values that change, by kind, and "left": those on one side alone, or without a replacement


def read(folder: Path, src: str, tgt: str) -> list[list[Sentence]]:
    """The original, without swaps, and its twins, from the files of scripts/probe_contamination.py."""
    texts = [(row[src], row[tgt]) for row in read_jsonl(folder / TWINS)]
    swaps = [tuple(Swap(**swap) for swap in row["swaps"]) for row in read_jsonl(folder / SWAPS)]
    count = len(texts) - len(swaps)
    sentences = [Sentence(*pair, own) for pair, own in zip(texts, [()] * count + swaps, strict=True)]
    return divided(sentences, count)


def divided(items: list, count: int) -> list[list]:
    """Into parts of `count` items."""
    return [items[start : start + count] for start in range(0, len(items), count)]


class Value(NamedTuple):
    """A number or a capitalised word in a text."""

    start: int
    end: int
    number: str | None  # see Swap.old; None for a name, and "" for digits that are no single number (12.05.2018)
    text: str


def values_in(text: str) -> Iterator[Value]:
    for match in _VALUES.finditer(text):
        number = read_number(match["number"]) if match["number"] else None
        yield Value(match.start(), match.end(), number, match[0])


def read_number(text: str) -> str:
    """A number in any digits and with any separators as Swap.old has it; "" if it is a date, a version or the like."""
    groups = ["".join(str(unicodedata.digit(char)) for char in group) for group in re.split(r"\D", text)]
    if len(groups) == 1:
        return groups[0]
    *middle, last = groups[1:]
    if len(groups[0]) <= 3 and len(last) == 3 and all(len(group) in (2, 3) for group in middle) and groups[0] != "0":
        return "".join(groups)  # 3,000; 3.000; 1,00,000
    return ".".join(groups) if len(groups) == 2 else ""


def ending_of(value: Value, text: str, name: str, is_english: bool) -> str | None:
    """What follows `name` in a capitalised word; None if the word is another one."""
    if value.number is not None or not value.text.startswith(name):
        return None
    ending = value.text[len(name) :]
    if is_english:
        begins = value.start == 0 or not text[value.start - 1].isalpha()
        return ending if begins and not ending else None
    return ending if len(ending) <= MAX_ENDING and ending == ending.lower() else None


def holds(text: str, swap_value: str, kind: str) -> bool:
    """Whether a number, in whatever form, or a name, with whatever ending, is in a text."""
    if kind == "name":
        return any(ending_of(value, text, swap_value, False) is not None for value in values_in(text))
    return any(value.number == swap_value for value in values_in(text))


def replaced(text: str, new: dict[tuple[bool, str], str], is_english: bool) -> str:
    """`text` with other values: `new` by (whether it is a name, old value)."""
    names = sorted((old for is_name, old in new if is_name), key=len, reverse=True)  # Martina before Martin
    pieces, end = [], 0
    for value in values_in(text):
        other = None
        if value.number is not None:
            if number := new.get((False, value.number)):
                other = _written_like(value.text, number)
        else:
            for name in names:
                ending = ending_of(value, text, name, is_english)
                if other is None and ending is not None:
                    other = new[True, name] + ending
        if other is not None:
            pieces += [text[end : value.start], other]
            end = value.end
    return "".join([*pieces, text[end:]])


def _written_like(text: str, number: str) -> str:
    """`number` in the digits and with the separators of `text`."""
    digits = iter(number.replace(".", ""))
    return "".join(
        chr(ord(char) - unicodedata.digit(char) + int(next(digits))) if char.isdigit() else char for char in text
    )


def make(pairs: list[tuple[str, str]], codes: tuple[str, str], count: int, seed: int) -> Twins:
    """`count` twins of a test set. `codes`: ISO 639-3, of the sources and of the references."""
    english = tuple(code == ENGLISH for code in codes)
    names, pools = _names(pairs, english, count)
    order = {kind: random.Random(f"{seed} {kind}").sample(sorted(pool), len(pool)) for kind, pool in pools.items()}
    place = {name: (pool, i) for pool in order.values() for i, name in enumerate(pool)}
    counts: Counter[str] = Counter()
    numbers, originals, twins = [], [], [[] for _ in range(count)]
    for number, (pair, named) in enumerate(zip(pairs, names, strict=True), start=1):
        options: dict[tuple[bool, str], list[str]] = {}
        for name in named:
            pool, i = place[name]
            if len(pool) > 1:
                options[True, name] = [pool[(i + t % (len(pool) - 1) + 1) % len(pool)] for t in range(count)]
        for old, fits in _shared_numbers(pair).items():
            if new := _other_numbers(old, fits, count, seed):
                options[False, old] = new
        counts["left"] += len(_distinct_values(pair[0], *named)) - len(options)
        if not options:
            continue
        numbers.append(number)
        kinds = [("name" if is_name else _kind(old), old) for is_name, old in options]
        counts.update(kind for kind, _ in kinds)
        originals.append(Sentence(*pair, tuple(Swap(kind, old, old) for kind, old in kinds)))
        for t, twin in enumerate(twins):
            new = {key: values[t] for key, values in options.items()}
            swaps = tuple(Swap(*kind, other) for kind, other in zip(kinds, new.values(), strict=True))
            sides = (replaced(text, new, is_english) for text, is_english in zip(pair, english, strict=True))
            twin.append(Sentence(*sides, swaps))
    return Twins(numbers, originals, twins, {kind: counts[kind] for kind in ("year", "number", "name", "left")})


def _distinct_values(source: str, *names: str) -> set[str]:
    """The numbers of a source, the names found on both sides, and its other capitalised words but the first."""
    values = [value for value in values_in(source) if value.start or value.number is not None]
    others = (value for value in values if not any(value.text.startswith(name) for name in names))
    return {*names, *(value.text if value.number is None else value.number for value in others)}


def _kind(number: str) -> str:
    return "year" if len(number) == 4 and number.isdigit() and int(number) in YEARS else "number"


# Numbers


def _shared_numbers(pair: tuple[str, str]) -> dict[str, list[Callable[[str], bool]]]:
    """The numbers that are on both sides equally often; of each, what a number in its place must fulfil."""
    tests: dict[str, list[Callable[[str], bool]]] = defaultdict(list)
    seen: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for text, counts in zip(pair, seen, strict=True):
        for value in values_in(text):
            if value.number:
                counts[value.number] += 1
                tests[value.number] += _constraints(value, text)
    return {number: tests[number] for number, n in seen[0].items() if seen[1][number] == n}


def _constraints(value: Value, text: str) -> Iterator[Callable[[str], bool]]:
    """What a number in place of this one must fulfil, so that what stands beside it stays right."""
    old, before, after = value.number, text[: value.start][-1:], text[value.end :]
    if ordinal := _ORDINAL.match(after):
        yield lambda new: _ordinal_suffix(new) == ordinal[1]
    elif after[:1].isalpha() and len(old) > 1:  # an ending that depends on how the number is pronounced: 2017ko
        kept = 2 if old[-1] == "0" else 1
        yield lambda new: new[-kept:] == old[-kept:]
    if ":" in (before, after[:1]) and old.isdigit() and int(old) <= MAX_MINUTE:
        yield lambda new: int(new) <= (MAX_HOUR if int(old) <= MAX_HOUR else MAX_MINUTE)


def _ordinal_suffix(number: str) -> str:
    return "th" if number[-2:-1] == "1" else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th")


def _other_numbers(old: str, fits: list[Callable[[str], bool]], count: int, seed: int) -> list[str]:
    """`count` numbers of the same form, different ones as far as there are any, the same for the same arguments; [] if there is none."""
    if _kind(old) == "year":
        return [str(int(old) - YEAR_SHIFT * twin) for twin in range(1, count + 1)]
    whole = old.isdigit()
    if whole and int(old) < 2:  # one thing is not two things
        return []
    rng = random.Random(f"{seed} {old}")
    digits, small = old.replace(".", ""), whole and int(old) <= MAX_DAY
    head, found = digits.rstrip("0"), []
    for _ in range(DRAWS):
        drawn = "".join(_digit(rng, char, first=i == 0) for i, char in enumerate(head)) + digits[len(head) :]
        new = drawn if whole else f"{drawn[: old.index('.')]}.{drawn[old.index('.') :]}"
        if new in (old, *found) or int(drawn) < 2 or (small and int(new) > MAX_DAY):
            continue
        if all(test(new) for test in fits):
            found.append(new)
    return [found[twin % len(found)] for twin in range(count)] if found else []


def _digit(rng: random.Random, old: str, first: bool) -> str:
    return "0" if first and old == "0" else str(rng.randint(1 if first else 0, 9))


# Names


def _names(
    pairs: list[tuple[str, str]], english: tuple[bool, bool], count: int
) -> tuple[list[list[str]], dict[tuple[str, ...], list[str]]]:
    """The names that are on both sides of each pair, and all names by kind: those of one kind change places. What is too few for
    `count` twins is thrown together."""
    lower = [{word for pair in pairs for word in _LOWER_WORDS.findall(pair[side])} for side in (0, 1)]
    found = [_shared_names(pair, english, lower) for pair in pairs]
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    side = english.index(True) if any(english) else 0
    for pair, names in zip(pairs, found, strict=True):
        for name in names:
            kinds[name].update(_contexts(pair[side], name, names, english[side]))
    pools: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, contexts in sorted(kinds.items()):
        last = next(char for char in unicodedata.normalize("NFD", name)[::-1] if char.isalpha()).casefold()
        ending = "vowel" if last in "aeiou" else "consonant"  # what an inflected ending depends on
        often = "often" if contexts.total() > 1 else "once"  # frequent names are easier
        pools[ending, max(sorted(contexts), key=contexts.__getitem__), often].append(name)
    for key in [key for key, pool in pools.items() if len(pool) <= count]:
        pools[key[:1]] += pools.pop(key)
    return found, pools


def _shared_names(pair: tuple[str, str], english: tuple[bool, bool], lower: list[set[str]]) -> list[str]:
    words = [[value for value in values_in(text) if value.number is None] for text in pair]
    names = []
    for name in sorted({value.text for side in words for value in side}):
        if len(name) < (MIN_ACRONYM if name.isupper() else MIN_NAME) or any(name.lower() in known for known in lower):
            continue
        uses = [
            [value for value in side if ending_of(value, text, name, is_english) is not None]
            for side, text, is_english in zip(words, pair, english, strict=True)
        ]
        derived = any(  # Californian beside California
            is_english and value.text.startswith(name) and value not in use
            for side, use, is_english in zip(words, uses, english, strict=True)
            for value in side
        )
        # A capital in the middle of a sentence is a name's.
        is_inside = any(pair[side][: value.start].strip(" \"'“‘«(") for side in (0, 1) for value in uses[side])
        if all(uses) and not derived and is_inside:
            names.append(name)
    return [name for name in names if not any(other != name and name.startswith(other) for other in names)]


def _contexts(text: str, name: str, names: list[str], is_english: bool) -> Iterator[str]:
    """Where a name stands among the `names` of a text: a coarse kind, without a model that knows names."""
    found = [
        value for value in values_in(text) if any(ending_of(value, text, n, is_english) is not None for n in names)
    ]
    for i, value in enumerate(found):
        if ending_of(value, text, name, is_english) is None:
            continue
        before = text[found[i - 1].end : value.start] if i else ""
        after = text[value.end : found[i + 1].start] if i + 1 < len(found) else ""
        words = text[: value.start].lower().split()
        if name.isupper():
            yield "acronym"
        elif before == " ":
            yield "last"
        elif after == " ":
            yield "first"
        else:
            yield "place" if words and words[-1] in PLACE_WORDS else "single"
