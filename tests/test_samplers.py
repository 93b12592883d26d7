"""The samplers on real models: transformers on a tiny one, vLLM (CPU build or GPU) on Gemma 3 270M."""

import time
from collections import Counter
from dataclasses import replace

import pytest
from conftest import ROOT, datagen, lines_in, records

from comptra import samplers
from comptra.errors import UserError
from comptra.samplers import ModelSettings, Request, SamplingSettings, cut_at_stop, from_list

PROMPTS = [f"# Basque article\nGizon-emakume guztiak aske {'jaiotzen dira ' * i}" for i in range(7)]
REQUESTS = [Request(f"r{i}", prompt, 1000 + i) for i, prompt in enumerate(PROMPTS)]


def answers(sampler, requests, **settings) -> dict[str, list[str]]:
    settings = SamplingSettings(**{"max_new_tokens": 16, "temperature": 0.8, **settings})
    return {answer.id: answer.texts for answer in sampler.generate(from_list(requests), settings)}


@pytest.fixture(scope="module")
def hf(tiny_lm):
    sampler = samplers.load("hf", ModelSettings(tiny_lm, dtype="float32", batch_size=3))
    yield sampler
    sampler.close()


@pytest.fixture(scope="module")
def vllm(gemma):
    pytest.importorskip("vllm", reason="vLLM is not installed here (scripts/setup.sh tries)")
    sampler = samplers.load("vllm", ModelSettings(gemma, dtype="float32", max_model_len=512, max_in_flight=4))
    yield sampler
    sampler.close()


def check_common(sampler):
    """What every sampler does alike."""
    together = answers(sampler, REQUESTS)
    assert together.keys() == {request.id for request in REQUESTS}
    assert all(len(texts) == 1 for texts in together.values()) and len({texts[0] for texts in together.values()}) > 1
    # An answer depends on its own seed, not on what else is in the batch or on the order.
    assert answers(sampler, REQUESTS[::-1]) == together
    assert answers(sampler, REQUESTS[2:3]) == {"r2": together["r2"]}
    other_seed = answers(sampler, [replace(REQUESTS[2], seed=5)])
    assert other_seed["r2"] != together["r2"]
    greedy = answers(sampler, REQUESTS[:2], temperature=0)
    assert greedy == answers(sampler, [replace(request, seed=9) for request in REQUESTS[:2]], temperature=0)
    twice = answers(sampler, REQUESTS[:1], temperature=0, num_return_sequences=2)
    assert twice["r0"] == 2 * greedy["r0"]
    several = answers(sampler, REQUESTS[:2], num_return_sequences=3)
    assert all(len(texts) == 3 and len(set(texts)) > 1 for texts in several.values())
    stop = greedy["r0"][0][2:5]
    assert answers(sampler, REQUESTS[:1], temperature=0, stop=(stop,))["r0"] == [cut_at_stop(greedy["r0"][0], [stop])]
    beams = answers(sampler, REQUESTS[:2], num_beams=3, num_return_sequences=2)
    assert all(len(texts) == 2 and texts[0] != texts[1] for texts in beams.values())


def check_a_long_prompt_is_no_crash(sampler):
    long = Request("long", "aske " * 5000, 1)
    settings = SamplingSettings(max_new_tokens=8)
    found = {answer.id: answer for answer in sampler.generate(from_list([REQUESTS[0], long, REQUESTS[1]]), settings)}
    assert len(found) == 3 and "exceed --max_model_len" in found["long"].error and found["long"].texts == []
    assert found["r0"].texts and found["r0"].error is None and found["r0"].completion_tokens > 0


def test_hf(hf):
    check_common(hf)
    check_a_long_prompt_is_no_crash(hf)


def test_hf_draws_from_the_models_distribution(hf):
    """4,000 one-token draws against the softmax of the model's logits, with temperature and top-p."""
    import torch

    n = 4000
    for top_p in (1.0, 0.8):
        drawn = Counter()
        requests = [Request(str(i), PROMPTS[0], i) for i in range(n // 50)]
        settings = SamplingSettings(max_new_tokens=1, temperature=0.7, top_p=top_p, num_return_sequences=50)
        for answer in hf.generate(from_list([replace(r, seed=r.seed * 50) for r in requests]), settings):
            drawn.update(answer.texts)
        ids = torch.tensor([hf.encode(PROMPTS[0])])
        with torch.no_grad():
            p = (hf._model(input_ids=ids).logits[0, -1].float() / 0.7).softmax(-1)
        if top_p < 1:
            ordered, order = p.sort(descending=True)
            p[order[ordered.cumsum(0) - ordered >= top_p]] = 0
            p /= p.sum()
        for token in p.topk(8).indices.tolist():
            expected = p[token].item()
            share = drawn[hf._tokenizer.decode([token], skip_special_tokens=True)] / n
            assert abs(share - expected) < 4 * (expected * (1 - expected) / n) ** 0.5 + 2e-3


def test_vllm(vllm):
    check_common(vllm)
    check_a_long_prompt_is_no_crash(vllm)


def test_vllm_streams_and_can_be_left_early(vllm):
    """Answers come while others are still decoding, no more than max_in_flight at a time; a caller that has
    enough leaves, and the engine is free for the next."""
    given = []

    def next_request():
        if len(given) < 40:
            given.append(Request(f"s{len(given)}", PROMPTS[len(given) % 7], len(given)))
            return given[-1]
        return None

    stream = vllm.generate(next_request, SamplingSettings(max_new_tokens=12))
    first = next(stream)
    assert len(given) < 40 and first.id in {request.id for request in given}
    stream.close()
    assert not vllm._engine.has_unfinished_requests()
    assert len(answers(vllm, REQUESTS)) == 7


def test_a_backend_that_is_not_built_says_so():
    with pytest.raises(UserError, match="--inference_api openai is not built yet"):
        samplers.load("openai", ModelSettings("gpt"))


@pytest.mark.slow
def test_vllm_killed_leaves_no_process_and_loses_nothing(gemma, tmp_path):
    """kill -9 in the middle of decoding: the engine's processes go too, and the restarted run finishes."""
    import psutil

    arguments = (
        "--model_name_or_path", gemma, "--languages", "Basque", "--output_dir", tmp_path, "--max_model_len", 1024,
        "--seed_topics_path", ROOT / "topics/wikipedia_vital_topics.txt", "--example_paragraphs", "udhr",
        "--example_sentences", "udhr", "--number_of_icl_demonstrations", 1, "--number_of_icl_phrases", 3,
        "--number_of_instructions", 40, "--max_new_tokens", 64, "--temperature", 0.7, "--stages", "generate",
    )  # fmt: skip
    answers = tmp_path / "Basque_answers.jsonl"
    datagen(*arguments, kill_when=lambda: lines_in(answers) >= 5)
    time.sleep(5)
    left = [p.info["name"] for p in psutil.process_iter(["name"]) if "VLLM" in (p.info["name"] or "")]
    assert left == []
    before = records(tmp_path / "Basque_answers.jsonl")
    datagen(*arguments)
    after = records(tmp_path / "Basque_answers.jsonl")
    assert after[: len(before)] == before and len({record["id"] for record in after}) == len(after)
    assert len(records(tmp_path / "Basque.jsonl")) == 40
