"""Which texts of a pool leak a test text: the same one in another spelling, most of it, a near-duplicate of it.

Texts are compared by the tokens of decontamination (ngram_hashes.py), so that Unicode forms, letter case, punctuation,
spaces, invisible characters, HTML entities, percent-encoding, JSON's escapes, UTF-8 that was read as Latin-1 and Cyrillic letters
that look like Latin ones make no difference.
"""

from collections import defaultdict
from collections.abc import Sequence

from topxgen.text.decoding import decoded
from topxgen.text.ngram_hashes import TOKENIZERS, tokens_per_ngram
from topxgen.text.ngram_index import BenchmarkText, ContaminationIndex

VERSION = 7  # of what counts as a leak
NGRAM_WORDS = 10  # as in decontamination.py
# Of a test text, in runs of NGRAM_WORDS; a shorter text (from six words on) has to be in the other one as a whole.
MIN_SHARED = 0.5
# ROUGE-L F1: see docs/results.md (scripts/perf/decontamination_quality.py --leak_guard).
NEAR_DUPLICATE_F1 = 0.7
KINDS = ("equal", "partial", "near_duplicate")


def leaks(test: Sequence[str], pool: Sequence[str], script: str) -> dict[tuple[int, int], str]:
    """The kind of each leak, by (number of the test text, number of the pool's text); both in one language.

    `script`: ISO 15924 code of the script that the language is written in.
    """
    from topxgen.text.near_duplicates import NearDuplicates

    n = tokens_per_ngram(NGRAM_WORDS, script)
    by_key: dict[str, list[int]] = defaultdict(list)  # equal test texts
    for number, text in enumerate(test):
        by_key[text_key(text)].append(number)
    groups = list(by_key.values())
    entries = [BenchmarkText("test", "", "", str(i), test[group[0]]) for i, group in enumerate(groups)]
    lengths = [len(_tokens(entry.text)) for entry in entries]
    near_duplicates = NearDuplicates(NEAR_DUPLICATE_F1, _tokens)
    for entry in entries:
        near_duplicates.add(entry.id, entry.text)
    shared = ContaminationIndex(entries, n, max_owners_per_ngram=None).find(pool)
    found: dict[tuple[int, int], str] = {}
    for number, text in enumerate(pool):
        kinds = dict.fromkeys((int(id) for id, _ in near_duplicates.matches(text)), "near_duplicate")
        for match in shared.get(number, ()):
            if match.tokens >= MIN_SHARED * lengths[int(match.entry.id)]:
                kinds[int(match.entry.id)] = "partial"
        key = text_key(text)
        for i, kind in kinds.items():
            found |= {(test_number, number): kind for test_number in groups[i]}
        found |= {(test_number, number): "equal" for test_number in by_key.get(key, ())}
    return found


def _tokens(text: str) -> list[str]:
    return TOKENIZERS["unicode"].tokens(decoded(text))


def text_key(text: str) -> str:
    """What all spellings of a text have in common; spaces make no difference (cannot, can not)."""
    return "".join(_tokens(text)) or text.strip()
