"""How diverse texts are. All but `moving_type_token_ratio` depend on the size of the sample: compare equal ones."""

import gzip
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import islice

WINDOW = 500  # words, for moving_type_token_ratio
_BLOCK_ROWS = 8192  # of vectors, converted to float64 together


def ngrams(tokens: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    return zip(*(islice(tokens, start, None) for start in range(n)), strict=False)


def distinct_n(texts: Iterable[Sequence[str]], n: int) -> float | None:
    """Different n-grams of tokens divided by all of them (Li et al. 2016, "A Diversity-Promoting Objective Function for Neural
    Conversation Models"), over all texts together; none spans two texts. None if no text has n tokens."""
    seen, total = set(), 0
    for tokens in texts:
        seen.update(ngrams(tokens, n))
        total += max(len(tokens) - n + 1, 0)
    return len(seen) / total if total else None


def moving_type_token_ratio(tokens: Iterable[str], window: int = WINDOW) -> float | None:
    """The mean type-token ratio of all windows of consecutive tokens, which does not depend on the length of the text (MATTR,
    Covington and McFall 2010, "Cutting the Gordian Knot"). None for fewer tokens than `window`."""
    inside, counts = deque(), Counter()
    types = windows = 0
    for token in tokens:
        inside.append(token)
        counts[token] += 1
        if len(inside) > window:
            first = inside.popleft()
            counts[first] -= 1
            if not counts[first]:
                del counts[first]
        if len(inside) == window:
            types += len(counts)
            windows += 1
    return types / windows / window if windows else None


def compression_ratio(texts: Iterable[str]) -> float | None:
    """Bytes of the texts (UTF-8, one per line) divided by those of the same compressed by gzip; higher is more redundant (Shaib
    et al. 2024, "Standardizing the Measurement of Text Diversity"). Scripts of two or three bytes a letter compress
    better, so compare within a language. None if there is no text."""
    data = "\n".join(texts).encode("utf-8", "replace")
    return len(data) / len(gzip.compress(data, compresslevel=9, mtime=0)) if data else None


def self_bleu(texts: Sequence[Sequence[str]], max_order: int = 4) -> float | None:
    """The mean BLEU, 0 to 100, of each text (a list of tokens) with all others as its references; higher is less diverse (Zhu et
    al. 2018, "Texygen"). None for fewer than two texts.

    It equals sacreBLEU's sentence_bleu (exponential smoothing, effective order) without the quadratic time: an n-gram is clipped at
    its highest count in the other texts, which is the highest of all, or the second highest for the text that has that.
    """
    from sacrebleu.metrics import BLEU

    if len(texts) < 2:
        return None
    counts = [Counter(gram for n in range(1, max_order + 1) for gram in ngrams(tokens, n)) for tokens in texts]
    highest: dict[tuple, tuple[int, int, int]] = {}  # n-gram -> (highest count, its text, second highest)
    for i, of_text in enumerate(counts):
        for gram, count in of_text.items():
            best, owner, second = highest.get(gram, (0, -1, 0))
            if count > best:
                highest[gram] = count, i, best
            elif count > second:
                highest[gram] = best, owner, count
    lengths = Counter(map(len, texts))
    scores = []
    for i, (tokens, of_text) in enumerate(zip(texts, counts, strict=True)):
        correct, total = [0] * max_order, [max(len(tokens) - n, 0) for n in range(max_order)]
        for gram, count in of_text.items():
            best, owner, second = highest[gram]
            correct[len(gram) - 1] += min(count, second if owner == i else best)
        lengths[len(tokens)] -= 1
        closest = min((length for length, texts in lengths.items() if texts), key=lambda n: (abs(n - len(tokens)), n))
        lengths[len(tokens)] += 1
        options = {"smooth_method": "exp", "effective_order": True, "max_ngram_order": max_order}
        scores.append(BLEU.compute_bleu(correct, total, len(tokens), closest, **options).score)
    return sum(scores) / len(scores)


def vendi_score(vectors) -> float:
    """The effective number of different vectors, an array (n, d): exp of the entropy of the eigenvalues of K / n, where K holds
    their cosine similarities (Friedman and Dieng 2023, "The Vendi Score"). n orthogonal vectors score n, n equal ones 1.

    K / n is X X^T / n for rows of unit length, and has the eigenvalues of the d x d matrix X^T X / n, and zeros: the time is
    linear in n. Raises ValueError for no vector, one of length 0, and numbers that are not finite.
    """
    import numpy as np

    n, d = vectors.shape
    if not n:
        raise ValueError("there is no vector")
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    if not np.isfinite(lengths).all() or not lengths.all():
        raise ValueError("a vector has length 0, or a number that is not finite")

    def unit(start: int, end: int):
        return vectors[start:end].astype(np.float64) / lengths[start:end, None]

    if n < d:
        rows = unit(0, n)
        similarities = rows @ rows.T
    else:
        similarities = np.zeros((d, d))
        for start in range(0, n, _BLOCK_ROWS):
            rows = unit(start, min(start + _BLOCK_ROWS, n))
            similarities += rows.T @ rows
    eigenvalues = np.linalg.eigvalsh(similarities / n)
    eigenvalues = eigenvalues[eigenvalues > 0]  # rounding: those that are 0 may be slightly below
    return float(np.exp(-np.sum(eigenvalues * np.log(eigenvalues))))
