"""Rows by hand: every label, position and place of padding."""

import numpy as np

from topxgen.training.packing import (
    ConcatenatedRows,
    DecoderCollator,
    PackedRows,
    Seq2SeqCollator,
    Seq2SeqRows,
    best_fit,
)
from topxgen.training.tokenization import TokenizedTexts

TEXTS = TokenizedTexts(
    np.array([1, 2, 3, 4, 5, 6, 7, 8, 9], np.int32), np.array([4, 6, 9]), np.array([2, 0, 1], np.int32)
)
LOSS = -100  # what torch and transformers leave out


def test_each_text_goes_where_it_leaves_the_least_room():
    assert best_fit(np.array([5, 6, 4, 3, 1]), 10) == [[1, 2], [0, 3, 4]]
    assert best_fit(np.array([10]), 10) == [[0]]
    # 3 fits into both rows; the one with room 3 is the fuller.
    assert best_fit(np.array([7, 5, 3]), 10) == [[0, 2], [1]]


def test_packed_rows():
    row = PackedRows(TEXTS, [[2, 0], [1]], targets_only=False)[0]
    assert row["input_ids"].tolist() == [7, 8, 9, 1, 2, 3, 4]
    assert row["position_ids"].tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert row["labels"].tolist() == [LOSS, 8, 9, LOSS, 2, 3, 4]
    rows = PackedRows(TEXTS, [[2, 0], [1]], targets_only=True)
    assert rows[0]["labels"].tolist() == [LOSS, 8, 9, LOSS, LOSS, 3, 4]
    assert rows.lengths == [7, 2]
    assert rows[1]["labels"].tolist() == [LOSS, 6], "no text predicts its own first token"


def test_concatenated_rows():
    rows = ConcatenatedRows(TEXTS, 4, targets_only=True, seed=0)
    order = np.random.default_rng(0).permutation(3).tolist()
    ids = [token for i in order for token in TEXTS[i].tolist()]
    labels = [
        LOSS if place < TEXTS.prompts[i] else token for i in order for place, token in enumerate(TEXTS[i].tolist())
    ]
    assert rows.lengths == [4, 4, 1]
    for i in range(3):
        assert rows[i]["input_ids"].tolist() == ids[4 * i : 4 * i + 4]
        assert rows[i]["labels"].tolist() == [LOSS, *labels[4 * i + 1 : 4 * i + 4]]


def test_batches_of_a_decoder():
    rows = [PackedRows(TEXTS, [[0]], False)[0], PackedRows(TEXTS, [[1]], False)[0]]
    batch = {key: value.tolist() for key, value in DecoderCollator(pad=0)(rows).items()}
    assert batch == {
        "input_ids": [[1, 2, 3, 4], [5, 6, 0, 0]],
        "labels": [[LOSS, 2, 3, 4], [LOSS, 6, LOSS, LOSS]],
        "position_ids": [[0, 1, 2, 3], [0, 1, 0, 1]],  # padding is a text of its own
    }
    for flat in (False, True):
        batch = DecoderCollator(pad=0, flat=flat, packed=False)(rows)
        assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]] and "position_ids" not in batch
    flat = DecoderCollator(pad=0, flat=True)(rows)
    assert flat["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6]] and flat["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1]]


def test_batches_of_an_encoder_decoder():
    rows = Seq2SeqRows(TokenizedTexts(TEXTS.ids, TEXTS.ends, np.array([1, 0, 2], np.int32)))
    batch = {key: value.tolist() for key, value in Seq2SeqCollator(pad=0, decoder_start=50)([rows[0], rows[2]]).items()}
    assert batch == {
        "input_ids": [[1, 0], [7, 8]],
        "attention_mask": [[1, 0], [1, 1]],
        "labels": [[2, 3, 4], [9, LOSS, LOSS]],
        "decoder_input_ids": [[50, 2, 3], [50, 0, 0]],
    }
