"""Demonstrations for a sentence: the most similar sentences of a pool (--retriever_type).

A similarity is built of (pool, language, settings) and has
    scores(queries) -> (len(queries), len(pool)) floats, higher is more similar
    prepare(queries)                     optional: called with all queries before `scores`, to run a model once
A Retriever ranks the pool by it for all queries at once, in blocks of bounded memory.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from topxgen.common.errors import UsageError
from topxgen.common.registry import Choice, load_choice
from topxgen.common.settings import Settings
from topxgen.quality.sonar import DEFAULT as SONAR
from topxgen.text.languages import Language

RETRIEVERS: dict[str, Choice] = {
    "bm25s": Choice("topxgen.retrieval.bm25:Robertson", "BM25 (Robertson) on stemmed words"),
    "bm25": Choice("topxgen.retrieval.bm25:Okapi", "BM25 (Okapi) on stemmed words"),
    "SONAR": Choice("topxgen.retrieval.sonar:Sonar", "cosine of SONAR sentence vectors"),
    "LCS": Choice("topxgen.retrieval.surface:LCS", "longest common subsequence of words"),
    "chrf": Choice("topxgen.retrieval.surface:ChrF", "chrF"),
    "bleu": Choice("topxgen.retrieval.surface:Bleu", "sentence BLEU"),
    "Random": Choice("topxgen.retrieval.random_order:Random", "a random draw"),
    "structural": Choice("topxgen.retrieval.dependency_trees:Structural", "dependency trees (spaCy) that share arcs"),
    "kernel": Choice("topxgen.retrieval.dependency_trees:Kernel", "similar dependency trees (spaCy), by a tree kernel"),
    # The original code's names.
    "lcs": Choice("topxgen.retrieval.surface:LCS", "another name of LCS"),
    "grakel": Choice("topxgen.retrieval.dependency_trees:Kernel", "another name of kernel"),
}
NEEDS_MODEL = ("SONAR",)  # these need GPU memory while they retrieve, and free it
BLOCK_QUERIES, BLOCK_BYTES = 128, 32 << 20  # queries, and bytes of their scores, in memory together


@dataclass(frozen=True)
class RetrieverSettings(Settings):
    """What similarities need beyond the pool; each ignores the fields that it has no use for."""

    name: str = ""  # as the user typed it, for messages
    seed: int = 122
    sonar_name_or_path: str = SONAR
    spacy_model: str | None = None  # None: spaCy's small one for the language
    retriever_tokens: str = "unicode"  # BM25: see bm25.TOKENS


class Retriever:
    """Ranks the sentences of `pool` by a similarity. `excluded`: a query to indices that are not for it, as equal sentences
    are not."""

    def __init__(self, pool: list[str], similarity, excluded: Callable[[str], Collection[int]] = lambda query: ()):
        self._pool, self._similarity, self._excluded = pool, similarity, excluded
        self._indices: dict[str, list[int]] = {}  # by sentence
        for i, text in enumerate(pool):
            self._indices.setdefault(text, []).append(i)

    def nearest(self, queries: list[str], k: int) -> list[list[int]]:
        """For each query the indices of the `k` most similar sentences, most similar first; ties in the order of the pool.

        Sentences equal to the query and those of `excluded` would give the answer away. Raises UsageError if the pool has
        fewer than k others.
        """
        if not k:
            return [[] for _ in queries]
        distinct = list(dict.fromkeys(queries))
        left_out = max(map(self._count_left_out, distinct), default=0)
        if k > len(self._pool) - left_out:
            excluded = f" ({left_out} of them equal to the sentence to translate or overlapping it)" if left_out else ""
            raise UsageError(
                f"{k} demonstrations are more than the {len(self._pool)} sentences of the pool{excluded}; pass fewer"
            )
        if hasattr(self._similarity, "prepare"):
            self._similarity.prepare(distinct)
        rows = max(1, min(BLOCK_QUERIES, BLOCK_BYTES // (8 * len(self._pool))))
        nearest: dict[str, list[int]] = {}
        for start in range(0, len(distinct), rows):
            block = distinct[start : start + rows]
            scores = self._similarity.scores(block)
            for row, query in zip(scores, block, strict=True):
                row[self._indices.get(query, [])] = float("-inf")
                row[list(self._excluded(query))] = float("-inf")
            nearest.update(zip(block, top_k(scores, k).tolist(), strict=True))
        return [list(nearest[query]) for query in queries]

    def _count_left_out(self, query: str) -> int:
        excluded = self._excluded(query)
        return len(excluded) + sum(i not in excluded for i in self._indices.get(query, ()))


def top_k(scores, k: int):
    """The columns of the `k` highest values in each row of `scores` (rows, columns), highest first; ties by column.

    The k-th highest of the maxima of groups of columns is a lower bound on the k-th highest value. Few values reach it, unless
    very many are equal, and only those are sorted.
    """
    import numpy as np

    scores = np.ascontiguousarray(scores)
    count, columns = scores.shape
    size = min(64, columns // k)  # of a group
    groups = columns // size
    maxima = scores[:, : groups * size].reshape(count, groups, size).max(axis=2)
    bound = np.partition(maxima, groups - k, axis=1)[:, groups - k, None]
    rows, places = np.nonzero(scores >= bound)
    order = np.lexsort((-scores[rows, places], rows))  # stable: ties by column
    starts = np.searchsorted(rows, np.arange(count))
    return places[order][starts[:, None] + np.arange(k)]


def create(
    name: str,
    pool: list[str],
    language: Language,
    settings: RetrieverSettings | None = None,
    excluded: Callable[[str], Collection[int]] = lambda query: (),
) -> Retriever:
    """The retriever of that name over `pool`, sentences of `language`; models are loaded on first use.

    Raises UsageError for an unknown name and for a missing package, model or language.
    """
    similarity = load_choice("--retriever_type", name, RETRIEVERS)
    return Retriever(pool, similarity(pool, language, replace(settings or RetrieverSettings(), name=name)), excluded)
