"""Attention by variable lengths is SDPA's on packed rows. On a GPU with its kernels, else with sequences one by one in their place."""

import itertools

import numpy as np
import pytest
import torch
import transformers

from topxgen.common.errors import UsageError
from topxgen.training import varlen
from topxgen.training.packing import DecoderCollator, decoder_rows
from topxgen.training.token_loss import TokenLoss, compile_layers
from topxgen.training.tokenization import TokenizedTexts

GPU = varlen.is_available(torch.bfloat16)
SMALL = dict(vocab_size=301, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
SMALL |= dict(num_key_value_heads=2, head_dim=16, pad_token_id=0, max_position_embeddings=128)
MODELS = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", SMALL),
    "gemma3, windows": ("Gemma3TextConfig", "Gemma3ForCausalLM", SMALL | dict(sliding_window=5, layer_types=["sliding_attention", "full_attention"])),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", SMALL),
}  # fmt: skip


def texts_of(query, key, ends, window, scale):
    """Of each text: its tokens, and the weights [heads, tokens, tokens] of its attention."""
    for start, end in itertools.pairwise(ends.tolist()):
        before = torch.arange(end - start)[:, None] - torch.arange(end - start)
        unseen = (before < 0) | ((before > window) & (window >= 0))
        text, shared = slice(start, end), query.shape[1] // key.shape[1]
        keys = key[text].repeat_interleave(shared, 1)
        scores = torch.einsum("qhd,khd->hqk", query[text], keys) * scale
        yield text, shared, scores.masked_fill(unseen, -torch.inf).softmax(-1)


def forward(query, key, value, ends, ends_of_keys, longest, longest_key, *options):
    """What the kernel computes, text by text, for a machine without one."""
    _, scale, window_size, enable_gqa, *_ = options
    assert torch.equal(ends, ends_of_keys) and longest == longest_key == int(ends.diff().max()) and enable_gqa
    assert window_size[1] == 0
    output = torch.empty_like(query)
    for text, shared, weights in texts_of(query, key, ends, window_size[0], scale):
        output[text] = torch.einsum("hqk,khd->qhd", weights, value[text].repeat_interleave(shared, 1))
    statistics = query.new_zeros(query.shape[1], len(query), dtype=torch.float32)
    return output, statistics, query.new_zeros(2, dtype=torch.uint64)


def backward(gradient, query, key, value, output, statistics, ends, ends_of_keys, *options):
    _, _, _, _, scale, window_size = options
    gradients = [torch.empty_like(x) for x in (query, key, value)]
    for text, shared, weights in texts_of(query, key, ends, window_size[0], scale):
        keys, values = (x[text].repeat_interleave(shared, 1) for x in (key, value))
        of_weights = torch.einsum("qhd,khd->hqk", gradient[text], values)
        of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True)) * scale
        gradients[0][text] = torch.einsum("hqk,khd->qhd", of_scores, keys)
        for made, heads in (
            (gradients[1], torch.einsum("hqk,qhd->khd", of_scores, query[text])),
            (gradients[2], torch.einsum("hqk,qhd->khd", weights, gradient[text])),
        ):
            made[text] = heads.unflatten(1, (-1, shared)).sum(2)
    return tuple(gradients)


if not GPU:
    torch.nn.attention.varlen._varlen_attn.register_kernel("cpu")(forward)
    torch.nn.attention.varlen._varlen_attn_backward.register_kernel("cpu")(backward)


@pytest.fixture(autouse=True)
def calls(monkeypatch) -> list:
    """One entry for each call of the kernel."""
    varlen.register()
    made, kernel = [], varlen.varlen_attn

    def counted(*inputs, **options):
        made.append(len(inputs))
        return kernel(*inputs, **options)

    monkeypatch.setattr(varlen, "varlen_attn", counted)
    return made


def build(name: str, attention: str):
    config, model, options = MODELS[name]
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(**options))
    made = made.to(*(("cuda", torch.bfloat16) if GPU else ("cpu", torch.float32)))
    made.set_attn_implementation(attention)
    if attention == varlen.NAME:
        varlen.pass_boundaries(made)
    return made


def batch(seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 30, 20)
    texts = TokenizedTexts(
        rng.integers(1, 300, lengths.sum()).astype(np.int32), np.cumsum(lengths), np.ones(20, np.int32)
    )
    rows = decoder_rows(texts, "bestfit", 64, True)
    made = DecoderCollator(0)([rows[i] for i in range(len(rows))])
    return {key: value.cuda() if GPU else value for key, value in made.items()}


def loss_and_gradients(model, inputs):
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten().double() for p in model.parameters()])


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_those_of_sdpa(name, calls):
    results = []
    for attention in ("sdpa", varlen.NAME):
        model = build(name, attention)
        TokenLoss(model, True, 50)
        results.append(loss_and_gradients(model, batch()))
    (loss, gradient), (other_loss, other_gradient) = results
    assert other_loss == pytest.approx(loss, rel=2e-3 if GPU else 1e-5)
    assert (other_gradient - gradient).norm() / gradient.norm() < (3e-2 if GPU else 1e-5)
    assert len(calls) == 2 * 2  # layers, in a pass over a few tokens and in that of the loss


@pytest.mark.medium
def test_compiled_layers():
    model, plain = build("llama", varlen.NAME), build("llama", varlen.NAME)
    assert compile_layers(model) == 2
    for made in (model, plain):
        TokenLoss(made, True, 50)
    for seed in range(3):
        (loss, gradient), (plain_loss, plain_gradient) = (loss_and_gradients(m, batch(seed)) for m in (model, plain))
        assert loss == pytest.approx(plain_loss, rel=2e-3 if GPU else 1e-5)
        assert (gradient - plain_gradient).norm() / plain_gradient.norm() < (3e-2 if GPU else 1e-4)


def test_a_text_sees_no_other():
    """Changing one text of a row leaves the logits of the others as they were."""
    model = build("llama", varlen.NAME)
    inputs = {key: value for key, value in batch().items() if key != "labels"}
    changed = dict(inputs, input_ids=inputs["input_ids"].clone())
    second = int((inputs["position_ids"][0] == 0).nonzero()[1])
    changed["input_ids"][0, :second] = 7
    with torch.no_grad():
        before, after = (model(**some, use_cache=False).logits[0] for some in (inputs, changed))
    assert torch.equal(before[second:], after[second:]) and not torch.equal(before[:second], after[:second])


def test_translating_is_left_to_sdpa():
    """With a cache, or rows of one text with a mask, the answers are SDPA's."""
    ids = batch()["input_ids"][:2, :20]
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    answers = [
        build("llama", attention).generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
        for attention in ("sdpa", varlen.NAME)
    ]
    assert torch.equal(*answers)


@pytest.mark.parametrize(
    ("given", "name"), [(dict(softcap=50.0), "softcap"), (dict(s_aux=1), "s_aux"), (dict(dropout=0.1), "dropout")]
)
def test_what_the_kernels_do_not_compute(given, name):
    heads = [torch.zeros(1, 2, 4, 8)] * 3
    with pytest.raises(UsageError, match=f"{name} in attention; drop --use_flash_attn"):
        varlen.attention(torch.nn.Identity(), *heads, None, **varlen.boundaries(torch.arange(4)[None]), **given)


@pytest.mark.parametrize("sizes", [(264, 264), (16, 8)])
def test_heads_that_the_kernels_do_not_compute(sizes):
    query, value = (torch.zeros(1, 2, 4, size) for size in sizes)
    with pytest.raises(UsageError, match=rf"heads of {sizes[0]} and {sizes[1]} dimensions; drop --use_flash_attn"):
        varlen.attention(torch.nn.Identity(), query, query, value, None, **varlen.boundaries(torch.arange(4)[None]))


def test_boundaries():
    found = varlen.boundaries(torch.tensor([[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]]))
    assert found["cu_seq_lens_q"].tolist() == [0, 3, 5, 7, 10] and found["max_length_q"] == 3
    assert found["cu_seq_lens_q"].dtype == torch.int32


@pytest.mark.skipif(not GPU, reason="no GPU that has the kernels")
def test_train_py_with_it(tiny_lm, tmp_path, train_here):
    import json

    from tests.support.training_runs import flags, log

    options = dict(max_steps=4, save_steps=4, eval_steps=4, bf16=True)
    for name, more in (
        ("sdpa", {}),
        ("flash", dict(use_flash_attn=True)),
        ("compiled", dict(use_flash_attn=True, torch_compile=True)),
    ):
        assert "using torch's SDPA" not in train_here(*flags(tiny_lm, tmp_path / name, **options, **more)).stderr
    losses = {name: [e["loss"] for e in log(tmp_path / name) if "loss" in e] for name in ("sdpa", "flash", "compiled")}
    assert losses["flash"] == pytest.approx(losses["sdpa"], rel=1e-2)
    assert losses["compiled"] == pytest.approx(losses["sdpa"], rel=1e-2)
    assert varlen.NAME not in (tmp_path / "flash" / "checkpoint-4" / "config.json").read_text()
    assert json.loads((tmp_path / "flash" / "checkpoint-4" / "config.json").read_text())
