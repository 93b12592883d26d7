"""Encoded pairs as rows of a batch: packed so that hardly a token is padding, without one pair seeing another.

Packing is best-fit decreasing (Ding et al. 2024, "Fewer Truncations Improve Language Modeling"): no pair is cut. In
a row each pair has position ids of its own from 0 on, and no attention mask is given: transformers' models read
the boundaries off the position ids, as block-diagonal attention (SDPA) or variable-length kernels (flash
attention).
"""

import numpy as np

from topxgen.training.tokenization import TokenizedTexts

PACKINGS = ("bestfit", "original", "none")
IGNORED = -100  # what torch and transformers leave out of a loss


def best_fit(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Numbers of texts row by row: the longest first, each into the row where it leaves the least room.

    O(n log n) for the sort and one look-up among `capacity` amounts of room for each text.
    Raises ValueError for a text longer than `capacity`.
    """
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by the room left in them
    rooms = 0  # bit r is set when some row has room r
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
        if length > capacity:
            raise ValueError(f"text {i} has {length} tokens, more than {capacity}")
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms &= ~(1 << room)
            rows[row].append(i)
        else:
            room, row = capacity, len(rows)
            rows.append([i])
        by_room[room - length].append(row)
        rooms |= 1 << (room - length)
    return rows


class PackedRows:
    """Rows of a decoder's training set; row i is {"input_ids", "position_ids", "labels"}, int64 arrays [tokens].

    Labels are the ids themselves, shifted by the loss; IGNORED at the first token of each text, which nothing
    before it can predict, and with `targets_only` at all of the prompt.
    """

    def __init__(self, encoded: TokenizedTexts, rows: list[list[int]], targets_only: bool):
        self._encoded, self._rows, self._targets_only = encoded, rows, targets_only
        self.lengths = [int(sum(encoded.lengths[row])) for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        texts = [self._encoded[j] for j in self._rows[i]]
        ids = np.concatenate(texts).astype(np.int64)
        labels = ids.copy()
        start = 0
        for j, text in zip(self._rows[i], texts, strict=True):
            labels[start : start + (max(1, self._encoded.prompts[j]) if self._targets_only else 1)] = IGNORED
            start += len(text)
        return {
            "input_ids": ids,
            "position_ids": np.concatenate([np.arange(len(text)) for text in texts]),
            "labels": labels,
        }


class ConcatenatedRows:
    """The old way (`--packing original`): all texts end to end, cut every `max_length` tokens.

    A pair may be torn in two and pairs see each other, as in the original. The last, shorter row is kept.
    """

    def __init__(self, encoded: TokenizedTexts, max_length: int, targets_only: bool, seed: int):
        order = np.random.default_rng(seed).permutation(len(encoded)).tolist()
        self._ids = np.concatenate([encoded[i] for i in order]) if order else encoded.ids
        self._labels = self._ids.astype(np.int64)
        if targets_only:
            start = 0
            for i in order:
                self._labels[start : start + encoded.prompts[i]] = IGNORED
                start += len(encoded[i])
        self._max_length = max_length
        self.lengths = [min(max_length, len(self._ids) - start) for start in range(0, len(self._ids), max_length)]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        part = slice(i * self._max_length, (i + 1) * self._max_length)
        labels = self._labels[part].copy()
        labels[0] = IGNORED
        ids = self._ids[part].astype(np.int64)
        return {"input_ids": ids, "position_ids": np.arange(len(ids)), "labels": labels}


def decoder_rows(encoded: TokenizedTexts, packing: str, max_length: int, targets_only: bool, seed: int = 0):
    """The rows of a training or test set by the name of a packing."""
    if packing == "original":
        return ConcatenatedRows(encoded, max_length, targets_only, seed)
    rows = best_fit(encoded.lengths, max_length) if packing == "bestfit" else [[i] for i in range(len(encoded))]
    return PackedRows(encoded, rows, targets_only)


class Seq2SeqRows:
    """Rows of an encoder-decoder's training set: {"input_ids", "labels"}, one pair each."""

    def __init__(self, encoded: TokenizedTexts):
        self._encoded = encoded
        self.lengths = encoded.lengths.tolist()

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        ids, source = self._encoded[i].astype(np.int64), self._encoded.prompts[i]
        return {"input_ids": ids[:source], "labels": ids[source:]}


def _stack(rows: list[np.ndarray], fill: int, length: int):
    import torch

    return torch.from_numpy(np.stack([np.pad(row, (0, length - len(row)), constant_values=fill) for row in rows]))


def _mask(rows: list[dict[str, np.ndarray]], length: int):
    return _stack([np.ones(len(row["input_ids"]), np.int64) for row in rows], 0, length)


class DecoderCollator:
    """Rows of PackedRows or ConcatenatedRows as tensors [rows, longest]; or one row [1, tokens] when `flat`, for kernels of
    variable length, which need no padding.

    Packed rows carry position ids, and their padding counts as a text of its own. Rows that are one text each have an
    attention mask instead, which every architecture knows.
    """

    def __init__(self, pad: int, flat: bool = False, packed: bool = True):
        self._pad, self._flat, self._packed = pad, flat, packed

    def __call__(self, rows: list[dict[str, np.ndarray]]) -> dict:
        if self._flat and self._packed:
            rows = [{key: np.concatenate([row[key] for row in rows]) for key in rows[0]}]
        length = max(len(row["input_ids"]) for row in rows)
        batch = {
            "input_ids": _stack([row["input_ids"] for row in rows], self._pad, length),
            "labels": _stack([row["labels"] for row in rows], IGNORED, length),
        }
        if not self._packed:
            return {**batch, "attention_mask": _mask(rows, length)}
        positions = [
            np.concatenate([row["position_ids"], np.arange(length - len(row["position_ids"]))]) for row in rows
        ]
        return {**batch, "position_ids": _stack(positions, 0, length)}


class PairCollator:
    """Rows of Seq2SeqRows as tensors, padded to the longest of the batch; decoder inputs are the labels shifted right."""

    def __init__(self, pad: int, decoder_start: int):
        self._pad, self._start = pad, decoder_start

    def __call__(self, rows: list[dict[str, np.ndarray]]) -> dict:
        source, target = (max(len(row[key]) for row in rows) for key in ("input_ids", "labels"))
        shifted = [np.concatenate([[self._start], row["labels"][:-1]]) for row in rows]
        return {
            "input_ids": _stack([row["input_ids"] for row in rows], self._pad, source),
            "attention_mask": _mask(rows, source),
            "decoder_input_ids": _stack(shifted, self._pad, target),
            "labels": _stack([row["labels"] for row in rows], IGNORED, target),
        }
