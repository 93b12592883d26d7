"""Exact nearest neighbours by cosine among all rows of an array, in blocks: no n x n matrix, no Python per row.

Float32 products, whose last bits depend on how a library splits the work, only choose candidates: all rows within their rounding
error of the k-th. These are ranked by products in float64, each summed in the same order; ties by the lower index. So
neither the size of the blocks nor the device changes a result.
"""

import logging

logger = logging.getLogger(__name__)

BLOCK_BYTES = 32 << 20  # of similarities in memory together
GROUP = 64  # columns of which only the highest similarity counts at first


def nearest(vectors, k: int, device: str | None = None, block_bytes: int = BLOCK_BYTES):
    """For each row of `vectors` (n, d) the indices of the `k` other rows with the highest cosine: (n, k), most similar first.

    `device`: cpu (numpy) or a torch device; None: the GPU if there is one and torch is installed. Rows of length 0 are
    equally far from all. Raises ValueError unless 0 <= k < n, or for numbers that are not finite.
    """
    import numpy as np

    count, width = vectors.shape
    if not 0 <= k < count:
        raise ValueError(f"{k} neighbours among {count - 1} others")
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    if not np.isfinite(lengths).all():
        raise ValueError("vectors have numbers that are not finite")
    found = np.empty((count, k), np.int64)
    if not k:
        return found
    lengths[lengths == 0] = 1
    units = np.empty((count, width), np.float32)
    np.divide(vectors, lengths[:, None], out=units, casting="same_kind")
    # Twice the largest error of a product: of its d + 2 roundings, and of the two vectors' (Higham 2002, section 3.1).
    margin = (width + 4) * float(np.finfo(np.float32).eps)
    for start, rows, columns in _candidates(units, k, margin, device, max(1, block_bytes // (4 * count))):
        scores = _cosines(vectors, lengths, rows + start, columns, block_bytes)
        order = np.lexsort((columns, -scores, rows))
        starts = np.searchsorted(rows, np.arange(rows[-1] + 1))
        found[start : start + len(starts)] = columns[order][starts[:, None] + np.arange(k)]
    return found


def _candidates(units, k: int, margin: float, device: str | None, size: int):
    """(first row of a block, rows within it, columns) of all similarities that may be among a row's k highest; rows ascend.

    The k-th highest of the maxima of groups of columns is a lower bound on the k-th highest similarity.
    """
    backend = _Numpy(units) if (device := _device(device)) == "cpu" else _Torch(units, device)
    group = min(GROUP, max(1, len(units) // (k + 1)))
    for start in range(0, len(units), size):
        try:
            yield (start, *backend.candidates(start, min(start + size, len(units)), k, margin, group))
        except backend.out_of_memory:
            logger.warning(f"{device} has no memory for the nearest neighbours: they are computed on the CPU")
            backend, device = _Numpy(units), "cpu"
            yield (start, *backend.candidates(start, min(start + size, len(units)), k, margin, group))


def _device(device: str | None) -> str:
    if device is not None:
        return device
    try:
        import torch
    except ImportError:
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


class _Numpy:
    out_of_memory = ()

    def __init__(self, units):
        self._units = units

    def candidates(self, start: int, end: int, k: int, margin: float, group: int):
        import numpy as np

        scores = self._units[start:end] @ self._units.T
        scores[np.arange(end - start), np.arange(start, end)] = -np.inf
        whole = scores.shape[1] // group * group
        maxima = scores[:, :whole].reshape(end - start, -1, group).max(axis=2)
        bound = np.partition(maxima, maxima.shape[1] - k, axis=1)[:, maxima.shape[1] - k, None]
        return np.nonzero(scores >= bound - np.float32(margin))


class _Torch:
    """The same on a torch device."""

    def __init__(self, units, device: str):
        import torch

        self.out_of_memory = torch.OutOfMemoryError
        self._units = None
        self._host, self._device = units, device

    def candidates(self, start: int, end: int, k: int, margin: float, group: int):
        import torch

        if self._units is None:
            self._units = torch.from_numpy(self._host).to(self._device)
        allowed, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, False
        try:
            scores = self._units[start:end] @ self._units.T
        finally:
            torch.backends.cuda.matmul.allow_tf32 = allowed
        rows = torch.arange(end - start, device=scores.device)
        scores[rows, rows + start] = float("-inf")
        whole = scores.shape[1] // group * group
        bound = scores[:, :whole].unflatten(1, (-1, group)).amax(dim=2).topk(k, dim=1).values[:, -1:]
        rows, columns = torch.nonzero(scores >= bound - margin, as_tuple=True)
        return rows.cpu().numpy(), columns.cpu().numpy()


def _cosines(vectors, lengths, rows, columns, block_bytes: int):
    """The cosine of vectors[rows[i]] and vectors[columns[i]] for each i, in float64."""
    import numpy as np

    scores = np.empty(len(rows))
    size = max(1, block_bytes // (24 * vectors.shape[1]))
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        products = vectors[rows[part]].astype(np.float64)
        products *= vectors[columns[part]]
        scores[part] = products.sum(axis=1)
    return scores / (lengths[rows] * lengths[columns])
