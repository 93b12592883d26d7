"""Nearest neighbours: against brute force in float64, at ties, in blocks of any size, on numpy and torch."""

import numpy as np
import pytest

from topxgen.retrieval.nearest import nearest


def brute_force(vectors, k: int):
    """The same by its definition: a whole matrix of cosines in float64, a stable sort, without the row itself."""
    rows = vectors.astype(np.float64)
    cosines = np.array([(row * rows).sum(axis=1) for row in rows])
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    lengths[lengths == 0] = 1
    cosines /= lengths[:, None] * lengths
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :k]


def sample(kind: str, count: int = 400, width: int = 48):
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(count, width)).astype(np.float32)
    if kind == "few directions":  # many ties, and lengths that must not matter
        vectors = vectors[rng.integers(0, 12, count)] * (2.0 ** rng.integers(-8, 8, (count, 1))).astype(np.float32)
    elif kind == "equal":  # a model that repeats itself
        vectors = vectors[rng.integers(0, 5, count)]
    elif kind == "narrow":  # cosines above 0.999, as of texts of one kind
        vectors = (100 + vectors).astype(np.float32)
    elif kind == "a zero":
        vectors[7] = 0
    return vectors


@pytest.mark.parametrize("kind", ["random", "few directions", "equal", "narrow", "a zero"])
@pytest.mark.parametrize("k", [1, 4, 63, 399])
def test_equals_brute_force(kind, k):
    vectors = sample(kind)
    found = nearest(vectors, k, "cpu")
    assert found.shape == (400, k) and (found == brute_force(vectors, k)).all()


@pytest.mark.parametrize("kind", ["random", "few directions", "equal", "narrow"])
@pytest.mark.parametrize("block_bytes", [1, 4 * 400 * 7, 4 * 400 * 399, 1 << 30])
def test_neither_blocks_nor_the_library_change_a_result(kind, block_bytes):
    import torch

    vectors = sample(kind)
    expected = brute_force(vectors, 4)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for device in ("cpu", "cpu:0"):  # numpy, and torch, which runs the same lines on a GPU
        assert (nearest(vectors, 4, device, block_bytes) == expected).all()
    torch.set_num_threads(threads)


def test_equal_vectors_are_ranked_by_index():
    vectors = np.ones((6, 3), np.float32)
    assert nearest(vectors, 3).tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2], [0, 1, 2]]


def test_a_tie_in_float32_is_decided_in_float64():
    """Two rows whose cosines with the first differ in the 9th digit: products in float32 cannot tell which is higher."""
    vectors = np.array([[1, 0], [1, 3e-5], [1, 2e-5], [0, 1]], np.float32)
    assert nearest(vectors, 2)[0].tolist() == [2, 1]


@pytest.mark.parametrize("k", [-1, 3, 4])
def test_refuses_more_neighbours_than_there_are(k):
    with pytest.raises(ValueError, match=f"{k} neighbours among 2 others"):
        nearest(np.ones((3, 2), np.float32), k)
    assert nearest(np.ones((3, 2), np.float32), 0).shape == (3, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_refuses_vectors_that_are_not_finite(value):
    with pytest.raises(ValueError, match="not finite"):
        nearest(np.array([[1, 0], [value, 1], [0, 1]], np.float32), 1)


def test_without_memory_on_the_gpu_the_cpu_takes_over(monkeypatch, caplog):
    import torch

    from topxgen.retrieval import nearest as module

    vectors, calls = sample("random"), []

    class Full(module._Torch):
        def candidates(self, start, *rest):
            calls.append(start)
            if len(calls) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().candidates(start, *rest)

    monkeypatch.setattr(module, "_Torch", Full)
    found = nearest(vectors, 4, "cpu:0", block_bytes=4 * 400 * 100)
    assert (found == brute_force(vectors, 4)).all() and calls == [0, 100]
    assert "no memory for the nearest neighbours" in caplog.text
