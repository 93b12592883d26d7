"""Structural similarity: kernels over dependency trees, which ignore the words themselves.

A tree is a list of (label, head) for each node, head being an index, -1 for a root. Trees come from spaCy, an optional
package; a label is a part of speech and a relation to the head.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from topxgen.text.languages import Language

Tree = list[tuple[str, int]]

WL_ITERATIONS = 3


def count_arcs(tree: Tree) -> Counter:
    """How often each arc occurs: (label of the head, label of the dependent); a root hangs from ""."""
    return Counter((tree[head][0] if head >= 0 else "", label) for label, head in tree)


def count_subtrees(tree: Tree, iterations: int = WL_ITERATIONS) -> Counter:
    """How often each subtree occurs, down to `iterations` levels below its root.

    The features of the Weisfeiler-Lehman subtree kernel (Shervashidze et al. 2011) on trees: in each iteration a node is
    renamed after its label and the sorted names of its dependents.
    """
    names: list = [label for label, _ in tree]
    counts = Counter((0, name) for name in names)
    for i in range(1, iterations + 1):
        below: list[list] = [[] for _ in tree]
        for node, (_, head) in enumerate(tree):
            if head >= 0:
                below[head].append(names[node])
        names = [f"{label}({' '.join(sorted(children))})" for (label, _), children in zip(tree, below, strict=True)]
        counts.update((i, name) for name in names)
    return counts


class TreeKernel:
    """A similarity (see topxgen.retrieval): the cosine of the counts of `features` of two sentences' trees."""

    def __init__(self, pool: list[str], language: Language, settings, *, features: Callable[[Tree], Counter]):
        """Raises UsageError if spaCy or a model with a parser for the language is missing."""
        from topxgen.text import spacy_pipelines

        flag = f"--retriever_type {settings.name}"
        self._parser = spacy_pipelines.load(language, settings.spacy_model, "dependencies", flag)
        self._pool, self._features = pool, features
        self._numbers: dict = {}
        self._rows = None
        self._counts: dict[str, Counter] = {}

    def prepare(self, queries: list[str]) -> None:
        if self._rows is None:
            self._rows = unit_rows([self._features(tree) for tree in parse(self._parser, self._pool)], self._numbers)
        new = [query for query in dict.fromkeys(queries) if query not in self._counts]
        self._counts.update(zip(new, map(self._features, parse(self._parser, new)), strict=True))

    def scores(self, queries: list[str]):
        rows = unit_rows([self._counts[query] for query in queries], dict(self._numbers))
        # Features that only a query has count for its length, but match nothing in the pool.
        cosines = (self._rows @ rows[:, : self._rows.shape[1]].T.tocsr()).toarray().T
        return cosines.round(9)  # so that equal structures tie, whatever the order of summation


Structural = partial(TreeKernel, features=count_arcs)  # which parts of speech depend on which
Kernel = partial(TreeKernel, features=count_subtrees)  # as grakel's WeisfeilerLehman kernel counts them


def unit_rows(counts: list[Counter], numbers: dict):
    """Counters as rows of length 1 of a sparse matrix; `numbers` gives each feature its column and grows."""
    import numpy as np
    from scipy.sparse import csr_array

    columns = [numbers.setdefault(feature, len(numbers)) for row in counts for feature in row]
    values = np.array([value for row in counts for value in row.values()], dtype=np.float64)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in counts], dtype=np.int64)])
    length = np.sqrt([max(1, sum(value * value for value in row.values())) for row in counts])
    values /= np.repeat(length, np.diff(starts))
    return csr_array((values, np.array(columns, dtype=np.int64), starts), shape=(len(counts), len(numbers)))


def parse(parser, texts: list[str]) -> Iterator[Tree]:
    """The dependency tree of each text, by a spaCy pipeline."""
    for doc in parser.pipe([" ".join(text.split()) for text in texts], batch_size=256, disable=["ner", "lemmatizer"]):
        yield [(f"{word.pos_ or word.tag_}:{word.dep_}", -1 if word.head.i == word.i else word.head.i) for word in doc]
