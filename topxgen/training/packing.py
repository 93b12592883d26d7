"""Tokenized pairs as rows of a batch: packed with hardly any padding, without one pair attending to another.

Packing is best-fit decreasing (Ding et al. 2024, "Fewer Truncations Improve Language Modeling"): no pair is cut. In a row
the position ids of each pair start at 0 and no attention mask is passed: models of transformers infer the boundaries from
the position ids, as block-diagonal attention (SDPA) or variable-length kernels (flash attention).
"""

from collections.abc import Sequence

import numpy as np

from topxgen.training.tokenization import TokenizedTexts

PACKINGS = ("bestfit", "concat", "none")
IGNORED = -100  # the label that losses in torch and transformers leave out

Row = dict[str, np.ndarray]


def best_fit(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Indices of the texts in each row: longest first, each text into the row where it leaves the least room.

    O(n log n) for the sort, and one look-up among `capacity` amounts of room for each text.
    Raises ValueError for a text of more than `capacity` tokens.
    """
    rows: list[list[int]] = []
    rows_by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set if some row has room for exactly r more tokens
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
        if length > capacity:
            raise ValueError(f"text {i} has {length} tokens, more than {capacity}")
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = rows_by_room[room].pop()
            if not rows_by_room[room]:
                rooms &= ~(1 << room)
            rows[row].append(i)
        else:
            room, row = capacity, len(rows)
            rows.append([i])
        rows_by_room[room - length].append(row)
        rooms |= 1 << (room - length)
    return rows


class PackedRows:
    """Rows for a decoder LM; row i is {"input_ids", "position_ids", "labels"}, int64 arrays [tokens].

    Labels are the input ids (the loss shifts them), but IGNORED at the first token of each text, which nothing predicts,
    and with `targets_only` at the whole prompt.
    """

    def __init__(self, texts: TokenizedTexts, rows: list[list[int]], targets_only: bool):
        self._texts, self._rows, self._targets_only = texts, rows, targets_only
        self.lengths = [int(sum(texts.lengths[row])) for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> Row:
        texts = [self._texts[j] for j in self._rows[i]]
        ids = np.concatenate(texts).astype(np.int64)
        labels = ids.copy()
        start = 0
        for j, text in zip(self._rows[i], texts, strict=True):
            labels[start : start + (max(1, self._texts.prompts[j]) if self._targets_only else 1)] = IGNORED
            start += len(text)
        position_ids = np.concatenate([np.arange(len(text)) for text in texts])
        return {"input_ids": ids, "position_ids": position_ids, "labels": labels}


class ConcatenatedRows:
    """`--packing concat`, as in the original code: all texts concatenated in random order, cut every `max_length` tokens.

    A pair may be cut in two, and pairs attend to each other. The last row may be shorter.
    """

    def __init__(self, texts: TokenizedTexts, max_length: int, targets_only: bool, seed: int):
        order = np.random.default_rng(seed).permutation(len(texts)).tolist()
        self._ids = np.concatenate([texts[i] for i in order]) if order else texts.ids
        self._labels = self._ids.astype(np.int64)
        if targets_only:
            start = 0
            for i in order:
                self._labels[start : start + texts.prompts[i]] = IGNORED
                start += len(texts[i])
        self._max_length = max_length
        self.lengths = [min(max_length, len(self._ids) - start) for start in range(0, len(self._ids), max_length)]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> Row:
        part = slice(i * self._max_length, (i + 1) * self._max_length)
        labels = self._labels[part].copy()
        labels[0] = IGNORED
        ids = self._ids[part].astype(np.int64)
        return {"input_ids": ids, "position_ids": np.arange(len(ids)), "labels": labels}


def decoder_rows(texts: TokenizedTexts, packing: str, max_length: int, targets_only: bool, seed: int = 0):
    """Rows for a decoder LM, by the name of a packing: one of PACKINGS."""
    if packing == "concat":
        return ConcatenatedRows(texts, max_length, targets_only, seed)
    rows = best_fit(texts.lengths, max_length) if packing == "bestfit" else [[i] for i in range(len(texts))]
    return PackedRows(texts, rows, targets_only)


class Seq2SeqRows:
    """Rows for an encoder-decoder model, one pair each: {"input_ids", "labels"}, int64 arrays [tokens]."""

    def __init__(self, texts: TokenizedTexts):
        self._texts = texts
        self.lengths = texts.lengths.tolist()

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, i: int) -> Row:
        ids, source_tokens = self._texts[i].astype(np.int64), self._texts.prompts[i]
        return {"input_ids": ids[:source_tokens], "labels": ids[source_tokens:]}


def pad(rows: Sequence[Sequence[int] | np.ndarray], fill: int, side: str = "right"):
    """A tensor [rows, longest row]."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    tensors = [torch.as_tensor(row) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=fill, padding_side=side)


def attention_mask(rows: Sequence[Sequence[int] | np.ndarray], side: str = "right"):
    """1 for each token of the rows as `pad` pads them, else 0."""
    return pad([np.ones(len(row), np.int64) for row in rows], 0, side)


def _padded(rows: list[Row], **fills: int) -> dict:
    return {key: pad([row[key] for row in rows], fill) for key, fill in fills.items()}


class DecoderCollator:
    """Makes a batch of PackedRows or ConcatenatedRows: tensors [rows, longest row], padded with token `pad`.

    Packed rows come with position ids; their padding counts as one more text. With `flat` they are concatenated to one row
    [1, tokens] without padding, for variable-length kernels. Rows of one text each come with an attention mask instead,
    which every architecture supports.
    """

    def __init__(self, pad: int, flat: bool = False, packed: bool = True):
        self._pad_id, self._flat, self._packed = pad, flat, packed

    def __call__(self, rows: list[Row]) -> dict:
        if self._flat and self._packed:
            rows = [{key: np.concatenate([row[key] for row in rows]) for key in rows[0]}]
        batch = _padded(rows, input_ids=self._pad_id, labels=IGNORED)
        if not self._packed:
            return {**batch, "attention_mask": attention_mask([row["input_ids"] for row in rows])}
        length = batch["input_ids"].shape[1]
        positions = [np.append(row["position_ids"], np.arange(length - len(row["position_ids"]))) for row in rows]
        return {**batch, "position_ids": pad(positions, 0)}


class Seq2SeqCollator:
    """Makes a batch of Seq2SeqRows, padded with token `pad`; decoder inputs are the labels shifted right."""

    def __init__(self, pad: int, decoder_start: int):
        self._pad_id, self._decoder_start = pad, decoder_start

    def __call__(self, rows: list[Row]) -> dict:
        shifted = [np.append(self._decoder_start, row["labels"][:-1]) for row in rows]
        return {
            **_padded(rows, input_ids=self._pad_id, labels=IGNORED),
            "attention_mask": attention_mask([row["input_ids"] for row in rows]),
            "decoder_input_ids": pad(shifted, self._pad_id),
        }
