"""The chunked loss is the model's own loss: its value and every gradient, for any architecture and adapter, and less memory."""

import itertools
import logging

import pytest
import torch
import transformers
from torch import nn

from topxgen.common.errors import UsageError
from topxgen.training.packing import IGNORED
from topxgen.training.token_loss import TokenLoss, candidates, compile_layers, fit

WORDS, ROWS, LENGTH, CHUNK = 301, 2, 40, 9
SMALL = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
SMALL |= dict(head_dim=8, vocab_size=WORDS, pad_token_id=0)
SEQ2SEQ = dict(vocab_size=WORDS, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2)
SEQ2SEQ |= dict(decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64)
SEQ2SEQ |= dict(dropout=0.0, pad_token_id=1)
DECODERS = {  # name: (configuration, model, options): what each does with its logits
    "llama": ("LlamaConfig", "LlamaForCausalLM", SMALL),
    "llama, tied": ("LlamaConfig", "LlamaForCausalLM", SMALL | dict(tie_word_embeddings=True)),
    "gemma2, capped": ("Gemma2Config", "Gemma2ForCausalLM", SMALL | dict(final_logit_softcapping=0.5)),
    "gemma3, capped": ("Gemma3TextConfig", "Gemma3ForCausalLM", SMALL | dict(final_logit_softcapping=30.0)),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", SMALL),
    "gemma3 with a vision tower, capped": (
        "Gemma3Config",
        "Gemma3ForConditionalGeneration",
        dict(
            text_config=SMALL | dict(final_logit_softcapping=2.0),
            vision_config=dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                               image_size=32, patch_size=16),
            mm_tokens_per_image=4, image_token_index=0, boi_token_index=1, eoi_token_index=1,
        ),
    ),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", SMALL),
    "cohere, scaled": ("CohereConfig", "CohereForCausalLM", SMALL | dict(logit_scale=0.0625)),
    "cohere2, scaled": ("Cohere2Config", "Cohere2ForCausalLM", SMALL | dict(logit_scale=0.25)),
    "granite, scaled": ("GraniteConfig", "GraniteForCausalLM", SMALL | dict(logits_scaling=8.0)),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", dict(vocab_size=WORDS, n_embd=32, n_layer=2, n_head=4)),
    "phi, head with a bias": ("PhiConfig", "PhiForCausalLM", SMALL),
}  # fmt: skip
ENCODER_DECODERS = {
    "m2m100": ("M2M100Config", "M2M100ForConditionalGeneration", SEQ2SEQ),
    "marian, bias": ("MarianConfig", "MarianMTModel", SEQ2SEQ | dict(decoder_start_token_id=1)),
    "t5, scaled before": (
        "T5Config",
        "T5ForConditionalGeneration",
        dict(vocab_size=WORDS, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4, dropout_rate=0.0,
             decoder_start_token_id=0),
    ),
}  # fmt: skip


def build(kind: tuple, seed: int = 0):
    config, model, options = kind
    torch.manual_seed(seed)
    made = getattr(transformers, model)(getattr(transformers, config)(**options)).float()
    for buffer_name, buffer in made.named_buffers():
        if buffer_name == "final_logits_bias":
            buffer.normal_()
    return made.eval()  # no dropout, so that two passes are the same


def batch(decoder: bool = True) -> dict:
    ids = torch.randint(2, WORDS, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[0, :13] = labels[1, 30:] = IGNORED
    if decoder:
        return {"input_ids": ids, "labels": labels}
    labels = labels[:, 5:32].contiguous()
    start = torch.nn.functional.pad(labels.clamp_min(2)[:, :-1], (1, 0), value=1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": start, "labels": labels}


def own_and_chunked(make, inputs: dict, decoder: bool, chunk: int = CHUNK, wrap=lambda model: model):
    """(the model's own mean loss, the chunked one, both with gradients, models)."""
    own, chunked = wrap(make()), wrap(make())
    chunked.load_state_dict(own.state_dict())
    TokenLoss(chunked.get_base_model() if hasattr(chunked, "get_base_model") else chunked, decoder, chunk)
    tokens = int((inputs["labels"][:, 1 if decoder else 0 :] != IGNORED).sum())
    losses = own(**inputs).loss, chunked(**inputs).loss / tokens
    for loss in losses:
        loss.backward()
    return *losses, own, chunked


def check_equal(own_loss, loss, own, chunked, limit: float = 1e-6) -> None:
    assert loss.item() == pytest.approx(own_loss.item(), abs=1e-5)
    gradients = {name: p.grad for name, p in own.named_parameters() if p.grad is not None}
    assert gradients and max(float(grad.abs().max()) for grad in gradients.values()) > 1e-4
    for name, p in chunked.named_parameters():
        if name in gradients:
            torch.testing.assert_close(p.grad, gradients[name], atol=limit, rtol=1e-4)
        else:
            assert p.grad is None, name


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("topxgen")]


@pytest.mark.parametrize("name", DECODERS)
def test_decoders(name, caplog):
    check_equal(*own_and_chunked(lambda: build(DECODERS[name]), batch(), decoder=True))
    assert not warnings_of(caplog)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_encoder_decoders(name, caplog):
    check_equal(*own_and_chunked(lambda: build(ENCODER_DECODERS[name]), batch(False), decoder=False))
    assert not warnings_of(caplog)


def adapted(**options):
    from peft import LoraConfig, get_peft_model

    def wrap(model):
        torch.manual_seed(3)
        config = LoraConfig(
            task_type="CAUSAL_LM", r=4, init_lora_weights=False, **{"target_modules": "all-linear", **options}
        )
        return get_peft_model(model, config).eval()

    return wrap


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(target_modules=["q_proj", "lm_head"]),
        dict(modules_to_save=["lm_head"]),
        dict(use_dora=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["llama", "gemma3, capped", "granite, scaled"])
def test_adapters(name, options):
    kind = DECODERS[name]
    if options:  # of a tied head neither is meant
        kind = (*kind[:2], {**kind[2], "tie_word_embeddings": False})
    check_equal(*own_and_chunked(lambda: build(kind), batch(), decoder=True, wrap=adapted(**options)))


def test_gradient_checkpointing():
    def make():
        model = build(DECODERS["gemma3, capped"]).train()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return model

    check_equal(*own_and_chunked(make, batch(), decoder=True))


@pytest.mark.parametrize("chunk", [0, 1, 2, 55, 56, 57, 1000])
def test_any_size_of_chunk(chunk):
    """Below, at and above the number of tokens that have a loss."""
    assert int((batch()["labels"][:, 1:] != IGNORED).sum()) == 56
    check_equal(*own_and_chunked(lambda: build(DECODERS["llama"]), batch(), decoder=True, chunk=chunk))


@pytest.mark.parametrize("chunk", [0, CHUNK])
@pytest.mark.parametrize("name", ["llama", "gemma2, capped", "gemma3", "gpt2"])
def test_a_text_in_a_packed_row_does_not_see_its_neighbour(name, chunk):
    """With a cache, these architectures do not see where a text begins."""
    model, ids = build(DECODERS[name]), batch()["input_ids"][:1]
    TokenLoss(model, True, chunk)
    positions = torch.cat([torch.arange(25), torch.arange(LENGTH - 25)])[None]
    labels = ids.clone()
    labels[:, :26] = IGNORED
    with torch.no_grad():
        packed = model(input_ids=ids, position_ids=positions, labels=labels).loss
        alone = model(input_ids=ids[:, 25:], position_ids=positions[:, 25:], labels=labels[:, 25:]).loss
    torch.testing.assert_close(packed, alone, atol=1e-3, rtol=0)


def test_no_label_at_all():
    model = build(DECODERS["llama"])
    TokenLoss(model, True, CHUNK)
    inputs = batch()
    inputs["labels"][:] = IGNORED
    assert float(model(**inputs).loss) == 0


def test_a_label_a_row(caplog):
    inputs = batch()
    kept = torch.zeros_like(inputs["labels"], dtype=torch.bool)
    kept[0, 20] = kept[1, 5] = True
    inputs["labels"][~kept] = IGNORED
    check_equal(*own_and_chunked(lambda: build(DECODERS["llama"]), inputs, decoder=True, chunk=1))
    assert not warnings_of(caplog)


def test_the_look_at_a_model_leaves_dropout_on_and_draws_no_random_number():
    """Or a resumed run, which looks again, would go on with other losses."""
    config, name, options = DECODERS["llama"]
    model, losses = build((config, name, options | dict(attention_dropout=0.5))).train(), []
    TokenLoss(model, True, CHUNK)
    for _ in range(2):
        torch.manual_seed(0)
        losses.append(float(model(**batch()).loss))
    assert losses[0] == losses[1] and model.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("adapter", [False, True])
def test_mixed_precision(adapter, dtype):
    """As close to the float32 gradients as the model's own ones are, within rounding."""
    wrap = adapted() if adapter else lambda model: model
    with torch.autocast("cpu", dtype):
        own_loss, loss, own, chunked = own_and_chunked(
            lambda: build(DECODERS["gemma3, capped"]), batch(), decoder=True, wrap=wrap
        )
    assert float(loss) == pytest.approx(float(own_loss), rel=2e-3)
    exact = own_and_chunked(lambda: build(DECODERS["gemma3, capped"]), batch(), decoder=True, wrap=wrap)[2]
    for name, p in exact.named_parameters():
        if p.grad is not None:
            scale = p.grad.norm()
            errors = [(dict(m.named_parameters())[name].grad - p.grad).norm() / scale for m in (own, chunked)]
            assert errors[1] < errors[0] * 1.5 + 1e-3, name


def test_fewer_labels_are_less_work_and_never_all_logits():
    model = build(DECODERS["llama"])
    TokenLoss(model, True, CHUNK)
    seen = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[:-1].numel()))
    loss = model(**batch()).loss
    loss.backward()
    tokens = seen[1:]  # the first call is the look at what the model does with its logits
    assert max(tokens) <= CHUNK and sum(tokens) == 2 * 56  # and as often again for the gradients
    seen.clear()
    with torch.no_grad():
        assert float(model(**batch()).loss) == pytest.approx(float(loss), abs=1e-3)
    assert max(seen) <= CHUNK and sum(seen) == 56
    for p in model.lm_head.parameters():
        p.requires_grad_(False)
    seen.clear()
    model(**batch()).loss.backward()
    assert max(seen) <= CHUNK and sum(seen) == 56  # a frozen head computes nothing twice


def test_generation_and_logits_are_untouched():
    model, plain = build(DECODERS["gemma3, capped"]), build(DECODERS["gemma3, capped"])
    TokenLoss(model, True, CHUNK)
    ids = batch()["input_ids"]
    model(**batch())
    assert torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)
    greedy = dict(max_new_tokens=5, do_sample=False)
    assert torch.equal(model.generate(ids, **greedy), plain.generate(ids, **greedy))


# Heads that no candidate explains, and losses that are more than a cross-entropy, are noticed.


class Strange(nn.Module):
    """As a subclass of Llama whose logits are something else."""

    def __new__(cls, change):
        model = build(DECODERS["llama"])
        forward = type(model).forward

        class Changed(type(model)):
            def forward(self, *args, labels=None, **options):
                found = forward(self, *args, **options)
                found.logits = change(found.logits)
                if labels is not None:
                    found.loss = self.loss_function(found.logits, labels, WORDS)
                return found

        model.__class__ = Changed
        return model


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: logits.log_softmax(-1) * 2,
        lambda logits: logits + 0.1 * logits.sin(),
        lambda logits: torch.tanh(logits / 11.5) * 11.5,
    ],
)
def test_an_unknown_head_is_computed_at_once(change, caplog):
    check_equal(*own_and_chunked(lambda: Strange(change), batch(), decoder=True))
    assert "Changed does something unknown with the output of its output layer" in caplog.text


def test_a_loss_that_is_more_than_cross_entropy_is_reported(caplog):
    options = SMALL | dict(num_local_experts=2, output_router_logits=True, router_aux_loss_coef=10.0)
    model = build(("MixtralConfig", "MixtralForCausalLM", options))
    TokenLoss(model, True, CHUNK)
    with caplog.at_level(logging.WARNING):
        loss = float(model(**batch()).loss) / 56
    assert "MixtralForCausalLM adds something to its loss" in caplog.text
    model.config.output_router_logits = False
    plain = build(("MixtralConfig", "MixtralForCausalLM", options | dict(output_router_logits=False)))
    assert loss == pytest.approx(float(plain(**batch()).loss), abs=1e-5)


@pytest.mark.parametrize("chunk", [0, CHUNK])
def test_a_model_that_does_not_use_its_output_layer(chunk):
    model = build(DECODERS["llama"])
    forward = type(model).forward

    class Changed(type(model)):
        def forward(self, input_ids, labels=None, **options):
            hidden = self.model(input_ids=input_ids).last_hidden_state
            return transformers.modeling_outputs.CausalLMOutput(logits=hidden @ self.lm_head.weight.T)

    model.__class__ = Changed
    assert forward is not Changed.forward
    TokenLoss(model, True, chunk)
    with pytest.raises(UsageError, match="does not apply its output layer to hidden states"):
        model(**batch())


def test_a_cap_is_found_before_any_logit_reaches_it():
    models = [build(DECODERS["gemma3, capped"]).bfloat16() for _ in range(2)]
    TokenLoss(models[1], True, CHUNK)
    models[1](**batch())  # what it does with its logits is looked at now
    for model in models:
        with torch.no_grad():
            model.lm_head.weight *= 1000
    assert float(models[0](input_ids=batch()["input_ids"]).logits.abs().max()) > 25
    assert float(models[1](**batch()).loss) / 56 == pytest.approx(float(models[0](**batch()).loss), rel=2e-2)


def test_a_function_is_only_found_if_it_fits_everywhere():
    model = build(DECODERS["granite, scaled"])
    raw = 50 * torch.sin(torch.arange(4.0 * WORDS)).view(1, 4, WORDS)
    functions = list(itertools.islice(candidates(model, WORDS), 1000))
    found = fit(raw, raw / 8, iter(functions), 1e-5)
    assert torch.equal(found(raw), raw / 8)
    other = raw / 8
    other[0, 3, 200] += 0.01  # one logit, not in the few positions that are looked at first
    assert fit(raw, other, iter(functions), 1e-5) is None


# Compiled layers.


def test_a_compiler_that_is_missing_is_named(tmp_path):
    from torch._inductor.exc import InvalidCxxCompiler

    from topxgen.training.run import as_usage_error

    found = as_usage_error(InvalidCxxCompiler(), tmp_path)
    assert isinstance(found, UsageError)
    assert str(found).startswith("--torch_compile: ") and "No working C++ compiler found" in str(found)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["full", "adapter", "checkpointing"])
def test_compiled_layers_are_the_same_for_all_lengths(way):
    """Also packed ones; layers alike share what is compiled, so that its limit is not reached."""
    from torch._dynamo.utils import counters

    def make():
        model = build(DECODERS["gemma3, capped"]).train()
        if way == "checkpointing":
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        made = adapted()(model).train() if way == "adapter" else model
        TokenLoss(model, True, CHUNK)
        return made

    torch._dynamo.reset()
    counters.clear()
    plain, compiled = make(), make()
    assert compile_layers(compiled) == 2
    for length in (40, 56, 24, 33, 57, 80, 19):
        ids = torch.randint(2, WORDS, (2, length), generator=torch.Generator().manual_seed(length))
        positions = torch.cat([torch.arange(length // 3), torch.arange(length - length // 3)])[None].repeat(2, 1)
        losses = [model(input_ids=ids, position_ids=positions, labels=ids).loss for model in (plain, compiled)]
        assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-5)
        for loss in losses:
            loss.backward()
    for (name, a), b in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(b.grad, a.grad, atol=1e-4, rtol=1e-3, msg=name)
    assert 1 <= counters["stats"]["unique_graphs"] <= 4
    assert list(compiled.state_dict()) == list(plain.state_dict())
