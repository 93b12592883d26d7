"""Rows: no text is lost, cut or visible to its neighbour."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from topxgen.common.errors import UsageError
from topxgen.training.packing import (
    IGNORED,
    ConcatenatedRows,
    DecoderCollator,
    PackedRows,
    Seq2SeqCollator,
    Seq2SeqRows,
    best_fit,
    decoder_rows,
)
from topxgen.training.tokenization import TokenizedTexts
from topxgen.training.trainer import EpochOrder, check_packing

TEXTS = [np.arange(20, 50), np.arange(100, 140)]


def encoded(lengths, prompt=2, seed=0) -> TokenizedTexts:
    lengths = np.array(lengths)
    ids = np.random.default_rng(seed).integers(10, 700, lengths.sum()).astype(np.int32)
    prompts = np.minimum(prompt, lengths - 1).astype(np.int32)
    return TokenizedTexts(ids, np.cumsum(lengths), prompts)


@pytest.mark.parametrize("seed", range(5))
def test_best_fit_is_the_textbook_algorithm(seed):
    lengths = np.random.default_rng(seed).integers(1, 65, 300)
    rooms, rows = [], []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):  # quadratic, but plain
        fitting = [r for r in range(len(rows)) if rooms[r] >= lengths[i]]
        if fitting:
            best = min(rooms[r] for r in fitting)
            row = max(r for r in fitting if rooms[r] == best)
        else:
            row = len(rows)
            rooms.append(64)
            rows.append([])
        rooms[row] -= lengths[i]
        rows[row].append(i)
    found = best_fit(lengths, 64)
    assert sorted(i for row in found for i in row) == list(range(300)), "each text once"
    assert all(lengths[row].sum() <= 64 for row in found)
    assert len(found) == len(rows)


def test_best_fit_at_the_limits():
    assert best_fit(np.array([8, 8]), 8) == [[0], [1]]
    assert best_fit(np.array([], dtype=int), 8) == []
    with pytest.raises(ValueError, match="text 1 has 9 tokens, more than 8"):
        best_fit(np.array([3, 9]), 8)


def test_labels_positions_and_padding():
    texts = encoded([5, 3, 4])
    rows = PackedRows(texts, [[0, 1], [2]], targets_only=True)
    row = rows[0]
    assert row["position_ids"].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    first, second = texts[0].tolist(), texts[1].tolist()
    assert row["input_ids"].tolist() == first + second
    assert row["labels"].tolist() == [IGNORED] * 2 + first[2:] + [IGNORED] * 2 + second[2:]
    whole = PackedRows(texts, [[0, 1]], targets_only=False)[0]["labels"].tolist()
    assert whole == [IGNORED, *first[1:], IGNORED, *second[1:]], "nothing predicts the first token of a text"
    batch = DecoderCollator(pad=9)([rows[0], rows[1]])
    assert batch["input_ids"].shape == (2, 8)
    assert batch["input_ids"][1].tolist() == texts[2].tolist() + [9] * 4
    assert batch["position_ids"][1].tolist() == [0, 1, 2, 3, 0, 1, 2, 3], "padding counts as one more text"
    assert batch["labels"][1, 4:].tolist() == [IGNORED] * 4
    flat = DecoderCollator(pad=9, flat=True)([rows[0], rows[1]])
    assert flat["input_ids"].shape == (1, 12) and (flat["input_ids"] != 9).all()
    masked = DecoderCollator(pad=9, packed=False)([rows[0], rows[1]])
    assert masked["attention_mask"].tolist() == [[1] * 8, [1] * 4 + [0] * 4] and "position_ids" not in masked


def test_concatenate_and_cut_loses_nothing():
    texts = encoded([5, 3, 4, 7])
    rows = ConcatenatedRows(texts, 4, targets_only=True, seed=3)
    assert rows.lengths == [4, 4, 4, 4, 3]
    ids = [token for i in range(len(rows)) for token in rows[i]["input_ids"].tolist()]
    assert sorted(ids) == sorted(texts.ids.tolist())
    learned = sum(int((rows[i]["labels"] != IGNORED).sum()) for i in range(len(rows)))
    # A token that begins a row has nothing before it to be predicted from.
    assert 19 - 4 * 2 - len(rows) <= learned <= 19 - 4 * 2
    assert len(decoder_rows(texts, "concat", 4, True)) == 5 and len(decoder_rows(texts, "none", 8, True)) == 4


def test_pairs_of_an_encoder_decoder_are_padded_together():
    texts = TokenizedTexts(np.arange(10, 19, dtype=np.int32), np.array([5, 9]), np.array([3, 2], np.int32))
    batch = Seq2SeqCollator(pad=1, decoder_start=2)([Seq2SeqRows(texts)[0], Seq2SeqRows(texts)[1]])
    assert batch["input_ids"].tolist() == [[10, 11, 12], [15, 16, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[13, 14], [17, 18]]
    assert batch["decoder_input_ids"].tolist() == [[2, 13], [2, 17]]


@pytest.fixture(scope="module")
def lm(tiny_lm):
    from transformers import AutoModelForCausalLM

    # As in training: with a cache, transformers' models take a row for one text.
    return AutoModelForCausalLM.from_pretrained(tiny_lm, attn_implementation="sdpa", use_cache=False)


def losses_of(model, batch) -> torch.Tensor:
    """Loss of every token that has one, in order."""
    labels = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return losses[labels.flatten() != IGNORED]


def test_packed_pairs_have_the_losses_they_have_alone(lm):
    texts = encoded([20, 11, 7, 16, 3])
    packed = PackedRows(texts, [[0, 1, 2], [3, 4]], targets_only=True)
    batch = DecoderCollator(pad=0)([packed[0], packed[1]])
    alone = [losses_of(lm, DecoderCollator(pad=0)([PackedRows(texts, [[i]], True)[0]])) for i in range(5)]
    torch.testing.assert_close(losses_of(lm, batch), torch.cat(alone), rtol=1e-4, atol=1e-4)
    flat = DecoderCollator(pad=0, flat=True)([packed[0], packed[1]])
    torch.testing.assert_close(losses_of(lm, flat), torch.cat(alone), rtol=1e-4, atol=1e-4)
    cut = ConcatenatedRows(texts, 57, targets_only=True, seed=0)
    leaking = losses_of(lm, DecoderCollator(pad=0)([cut[0]]))
    assert abs(leaking.sum() - torch.cat(alone).sum()) > 1e-2, "concatenated texts do see each other"


@pytest.mark.parametrize("kind", ["llama", "gemma3", "qwen2", "gpt2", "mistral"])
def test_the_leak_check_passes_architectures_that_use_position_ids(kind):
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = dict(vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    more = {
        "gemma3": dict(model_type="gemma3_text", head_dim=16, num_key_value_heads=1, sliding_window=8),
        "gpt2": dict(n_embd=32, n_layer=2, n_head=2, vocab_size=300),
        "mistral": dict(num_key_value_heads=2, sliding_window=8),
        "qwen2": dict(num_key_value_heads=2),
    }
    options = {"model_type": kind, **(shape if kind != "gpt2" else {}), **more.get(kind, {})}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**options), attn_implementation="sdpa")
    model.config.use_cache = False
    check_packing(model, TEXTS, "float32")
    model.config.use_cache = True
    with pytest.raises(UsageError, match="see each other"):
        check_packing(model, TEXTS, "float32")


class SeesTheRow(torch.nn.Module):
    """To the logits of a token adds `leak` times those of the row's second token, and `shift` for each token of the row."""

    device = torch.device("cpu")

    def __init__(self, leak: float, shift: float):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.leak, self.shift = torch.nn.Embedding(300, 300), leak, shift

    def forward(self, input_ids, position_ids):
        own = self.words(input_ids)
        return SimpleNamespace(logits=own + self.leak * own[:, 1:2] + self.shift * input_ids.shape[1])


@pytest.mark.parametrize(("leak", "shift"), [(4e-4, 0.0), (0.0, 1e-4)])
def test_the_leak_check_looks_at_the_neighbours_text_and_at_its_presence(leak, shift):
    """What another text moves is a leak long before what the order of summation moves."""
    check_packing(SeesTheRow(leak / 10, shift / 10), TEXTS, "float32")
    with pytest.raises(UsageError, match="see each other"):
        check_packing(SeesTheRow(leak, shift), TEXTS, "float32")


def test_the_order_of_summation_in_half_precision_is_no_leak():
    """It moves the logits of Gemma 3 by 2 % with bf16 on a CPU with AMX; another text must not move them there, either."""
    a_percent = 0.01 * math.sqrt(2 / math.pi) / len(TEXTS[0][:32])  # of the mean of normal logits
    check_packing(SeesTheRow(0.0, 3 * a_percent), TEXTS, "half")
    for leak, shift in ((0.0, 8 * a_percent), (4e-4, 0.0)):
        with pytest.raises(UsageError, match="see each other"):
            check_packing(SeesTheRow(leak, shift), TEXTS, "half")


def test_the_leak_check_catches_an_architecture_with_a_state(lm):
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    model = MambaForCausalLM(MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=4))
    forward = model.forward
    model.forward = lambda input_ids, position_ids: forward(input_ids=input_ids)
    with pytest.raises(UsageError, match=r"lets the pairs of a row see each other .* pass --packing none"):
        check_packing(model, TEXTS, "float32")


def test_order_depends_on_seed_and_epoch_alone():
    lengths = list(range(1, 102))
    order = EpochOrder(lengths, 4, seed=5)
    first = list(order)
    torch.manual_seed(99)
    assert list(order) == first and sorted(first[:101]) == list(range(101))
    assert len(first) == len(order) == 104 and first[101:] == first[:3], "the last step is filled up"
    order.set_epoch(1)
    assert list(order) != first
    grouped = list(EpochOrder(lengths, 4, seed=5, by_length=True))
    assert sorted(grouped[:101]) == list(range(101))
    spread = [max(grouped[i : i + 4]) - min(grouped[i : i + 4]) for i in range(0, 100, 4)]
    assert sum(spread) / len(spread) < 20, "rows of a step have similar lengths"
    assert list(EpochOrder([3], 4, seed=5)) == [0, 0, 0, 0]
