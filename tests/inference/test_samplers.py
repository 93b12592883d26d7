"""The samplers on real models: transformers on a tiny one, vLLM (CPU build or GPU) on Gemma 3 270M."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from types import SimpleNamespace
from unittest import mock

import pytest
from transformers import AutoTokenizer

from tests.support.runs import ROOT, datagen, lines_in, records
from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.inference import ModelSettings, Request, SamplingSettings, cut_at_stop, from_list
from topxgen.inference.tokenizer import decode
from topxgen.inference.vllm import VLLMSampler
from topxgen.text.thoughts import without_thoughts

PROMPTS = [f"# Basque article\nGizon-emakume guztiak aske {'jaiotzen dira ' * i}" for i in range(7)]
REQUESTS = [Request(f"r{i}", prompt, 1000 + i) for i, prompt in enumerate(PROMPTS)]


def answers_of(sampler, requests, **settings) -> dict[str, list[str]]:
    settings = SamplingSettings(**{"max_new_tokens": 16, "temperature": 0.8, **settings})
    return {answer.id: answer.texts for answer in sampler.generate(from_list(requests), settings)}


@pytest.fixture(scope="module")
def hf(tiny_lm):
    sampler = inference.load("hf", ModelSettings(tiny_lm, dtype="float32", request_batch_size=3))
    yield sampler
    sampler.close()


@pytest.fixture(scope="module")
def vllm(gemma):
    pytest.importorskip("vllm", reason="vLLM is not installed here (scripts/setup.sh tries)")
    sampler = inference.load(
        "vllm",
        ModelSettings(
            gemma,
            dtype="float32",
            max_model_len=512,
            max_concurrent_requests=4,
            engine_args=["max-num-batched-tokens=2048"],
        ),
    )
    yield sampler
    sampler.close()


def check_common(sampler, tokens: int = 16):
    """What every sampler does alike, in answers of a few `tokens`."""
    answers = partial(answers_of, max_new_tokens=tokens)
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
    begun_by_prompt = REQUESTS[0].prompt[-1] + greedy["r0"][0][:3]
    assert answers(sampler, REQUESTS[:1], temperature=0, stop=(begun_by_prompt,))["r0"] == greedy["r0"]
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


def test_hf_penalizes_no_padding(tiny_lm, tmp_path):
    """Where a model has no padding token, that is its end token."""
    folder = shutil.copytree(tiny_lm, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token, tokenizer.eos_token = None, "."
    tokenizer.save_pretrained(folder)
    requests = [replace(request, prompt=request.prompt.removesuffix("dira ")) for request in REQUESTS[:3]]
    answers = []
    for size in (1, 3):
        sampler = inference.load("hf", ModelSettings(str(folder), dtype="float32", request_batch_size=size))
        answers.append(answers_of(sampler, requests, repetition_penalty=3.0, max_new_tokens=40, temperature=0))
        sampler.close()
    assert answers[0] == answers[1]


@pytest.mark.medium
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


@pytest.mark.medium
def test_vllm(vllm):
    check_common(vllm, tokens=7)
    check_a_long_prompt_is_no_crash(vllm)


@pytest.mark.medium
def test_vllm_has_the_options_of_engine_args(vllm):
    scheduler = vllm._engine.vllm_config.scheduler_config
    assert scheduler.max_num_batched_tokens == 2048 and scheduler.max_num_seqs == vllm.capacity == 4


@pytest.mark.parametrize(
    "settings, problem",
    [
        ({"engine_args": ["quantisation=fp8"]}, r"has no option 'quantisation' \(did you mean quantization\?\)"),
        (
            {"deterministic": True},
            "needs a GPU of compute capability 8.0 or more, and there is no NVIDIA GPU here: drop it",
        ),
    ],
)
@pytest.mark.medium
def test_vllm_refuses_before_it_loads(tiny_lm, settings, problem):
    pytest.importorskip("vllm", reason="vLLM is not installed here (scripts/setup.sh tries)")
    with pytest.raises(UsageError, match=problem):
        inference.load("vllm", ModelSettings(tiny_lm, **settings))


@pytest.mark.medium
def test_vllm_tells_the_log_probabilities_of_its_answers(vllm, gemma):
    """As a forward pass computes them, before temperature; only where they are asked for."""
    import torch
    from transformers import AutoModelForCausalLM

    settings = SamplingSettings(6, temperature=0.7, num_return_sequences=3)
    requests = [replace(request, log_probabilities=True) for request in REQUESTS[:3]]
    model, checked = AutoModelForCausalLM.from_pretrained(gemma, dtype=torch.float32), 0
    for answer in vllm.generate(from_list(requests), settings):
        prompt = PROMPTS[int(answer.id[1:])]
        before = vllm.encode(prompt)
        assert len(answer.log_probabilities) == 3
        for text, value in zip(answer.texts, answer.log_probabilities, strict=True):
            whole = vllm.encode(prompt + text)
            if whole[: len(before)] != before or len(whole) != len(before) + 6:
                continue  # the text has other tokens than were sampled
            with torch.inference_mode():
                logits = model(torch.tensor([whole])).logits[0, len(before) - 1 : -1].float()
            tokens = torch.tensor(whole[len(before) :])[:, None]
            assert abs(float(logits.log_softmax(-1).gather(1, tokens).mean()) - value) < 1e-3
            checked += 1
    assert checked >= 3
    [plain] = vllm.generate(from_list(REQUESTS[:1]), settings)
    assert plain.log_probabilities == ()


@pytest.mark.medium
def test_vllm_streams_and_can_be_left_early(vllm):
    """Answers come while others are still decoding, no more than max_concurrent_requests at a time; a caller that has
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
    assert len(answers_of(vllm, REQUESTS)) == 7


def adapter(model: str, folder) -> str:
    """A LoRA adapter with random weights, large enough to change what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = LoraConfig(r=8, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(base, config).save_pretrained(folder)
    return str(folder)


def test_hf_with_an_adapter(hf, tiny_lm, tmp_path):
    settings = ModelSettings(
        tiny_lm, dtype="float32", request_batch_size=3, adapter_name_or_path=adapter(tiny_lm, tmp_path)
    )
    sampler = inference.load("hf", settings)
    assert answers_of(sampler, REQUESTS, temperature=0) != answers_of(hf, REQUESTS, temperature=0)
    sampler.close()
    with pytest.raises(UsageError, match="holds no LoRA adapter"):
        inference.load("hf", replace(settings, adapter_name_or_path=tiny_lm))


@pytest.mark.slow
def test_an_adapter_changes_both_samplers_alike(gemma, tmp_path):
    """Greedy answers of hf and vLLM with the same adapter, in float32."""
    pytest.importorskip("vllm")
    settings = ModelSettings(gemma, dtype="float32", max_model_len=512, adapter_name_or_path=adapter(gemma, tmp_path))
    found = {}
    for backend in ("hf", "vllm"):
        sampler = inference.load(backend, settings)
        found[backend] = answers_of(sampler, REQUESTS[:3], temperature=0, max_new_tokens=8)
        sampler.close()
    base = inference.load("hf", replace(settings, adapter_name_or_path=None))
    assert found["hf"] == found["vllm"] != answers_of(base, REQUESTS[:3], temperature=0, max_new_tokens=8)
    base.close()


def engines() -> set[int]:
    """Process ids of what vLLM and its start-up run as, of those that this test began (by its name in their environment)."""
    import psutil

    found, test = set(), os.environ["PYTEST_CURRENT_TEST"].partition(" ")[0]
    for process in psutil.process_iter(["name", "cmdline"]):
        words = " ".join([process.info["name"] or "", *(process.info["cmdline"] or [])])
        if "VLLM" in words or "multiprocessing.spawn" in words:
            with contextlib.suppress(psutil.Error):  # ended, a zombie, or another user's
                if process.environ().get("PYTEST_CURRENT_TEST", "").partition(" ")[0] == test:
                    found.add(process.pid)
    return found


def assert_no_engine_left(seconds: float = 120) -> None:
    """Engines may take a while to end on a busy machine."""
    until = time.monotonic() + seconds
    while engines() and time.monotonic() < until:
        time.sleep(1)
    assert not engines()


def test_an_engine_that_has_renamed_itself_is_seen():
    """As vLLM's do; otherwise the tests below would find none left whatever happens."""
    pytest.importorskip("setproctitle")
    code = "import setproctitle; setproctitle.setproctitle('VLLM::EngineCore'); print(); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout.readline() == "\n" and engines() == {engine.pid}
        engine.communicate("\n")
    assert not engines()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [10, 30])
def test_vllm_killed_while_it_loads_leaves_no_process(gemma, tmp_path, seconds):
    started = time.monotonic()
    datagen(*vllm_run(gemma, tmp_path), kill_when=lambda: time.monotonic() - started > seconds)
    assert_no_engine_left()


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_vllm_gets_the_signal_as_well(gemma, tmp_path, number, code):
    """Ctrl-C at a terminal and the signals of a scheduler reach the engine's processes, too: one line, no half answer, no process left."""
    answers = tmp_path / "Basque_answers.jsonl"
    flags = *vllm_run(gemma, tmp_path), "--max_concurrent_requests", 4  # the rest is left when the signal comes
    command = [sys.executable, "datagen.py", *map(str, flags)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while lines_in(answers) < 3:
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=120)
    # The engine's processes complain in their own words; ours end in order.
    assert process.returncode == code and "; finished work is on disk; re-run the same command to resume" in err
    assert 'datagen.py", line' not in err
    assert "abort" not in {reason for record in records(answers) for reason in record.get("finish_reasons", ())}
    assert_no_engine_left()


def vllm_run(gemma, folder):
    return (
        "--model_name_or_path", gemma, "--languages", "Basque", "--output_dir", folder, "--max_model_len", 1024,
        "--seed_topics_path", ROOT / "topics/wikipedia_vital_topics.txt", "--example_paragraphs", "udhr",
        "--example_sentences", "udhr", "--number_of_icl_demonstrations", 1, "--number_of_icl_phrases", 3,
        "--number_of_instructions", 40, "--max_new_tokens", 64, "--temperature", 0.7, "--stages", "generate",
    )  # fmt: skip


@pytest.mark.parametrize("num_beams", [1, 2])
def test_an_engine_that_died_while_nothing_was_in_flight(num_beams):
    """It says so when it gets the next request."""
    sampler = VLLMSampler.__new__(VLLMSampler)
    sampler._settings, sampler._dead, sampler.capacity, sampler._max_model_len = (
        ModelSettings("m"),
        BrokenPipeError,
        4,
        512,
    )
    sampler.encode, sampler._params, sampler._lora, sampler._eos = lambda prompt: [1], lambda *_: None, None, frozenset
    sampler._llm = SimpleNamespace(get_tokenizer=lambda: None)
    sampler._vllm = SimpleNamespace(SamplingParams=lambda **_: None)
    sampler._engine = SimpleNamespace(
        add_request=mock.Mock(side_effect=BrokenPipeError), abort_request=lambda *_, **__: None
    )
    with pytest.raises(UsageError, match=r"vLLM's engine has died .*re-run the same command"):
        next(sampler.generate(from_list(REQUESTS), SamplingSettings(max_new_tokens=8, num_beams=num_beams)))


def test_vllm_loading_an_adapter_notes_that_its_engine_dies():
    """vLLM would wait for the answer forever."""
    reading, writing = os.pipe()  # ready as the sentinel of a process is that has ended
    processes = SimpleNamespace(processes=[SimpleNamespace(sentinel=reading)])
    waiting, outputs = Future(), SimpleQueue()
    core = SimpleNamespace(
        resources=SimpleNamespace(engine_manager=processes), outputs_queue=outputs, utility_results={1: waiting}
    )
    sampler = VLLMSampler.__new__(VLLMSampler)
    sampler._engine, sampler._dead = SimpleNamespace(engine_core=core), ChildProcessError
    sampler._report_death()
    os.close(writing)
    assert isinstance(waiting.exception(timeout=60), ChildProcessError)
    assert isinstance(outputs.get(timeout=60), ChildProcessError)
    os.close(reading)


@pytest.mark.slow
def test_vllm_killed_leaves_no_process_and_loses_nothing(gemma, tmp_path):
    """kill -9 in the middle of decoding: the engine's processes go too, and the restarted run ends with the same
    data as an undisturbed one (float32: in bfloat16 the last bit of a sum depends on the batch)."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    arguments = (*vllm_run(gemma, killed), "--dtype", "float32")
    answers = killed / "Basque_answers.jsonl"
    datagen(*arguments, kill_when=lambda: lines_in(answers) >= 5 and engines())
    assert_no_engine_left()
    on_disk = records(answers)
    datagen(*arguments)
    after = records(answers)
    assert after[: len(on_disk)] == on_disk and len({record["id"] for record in after}) == len(after)
    datagen(*vllm_run(gemma, whole), "--dtype", "float32")
    for name in ("Basque.jsonl", "Basque_rejects.jsonl"):
        assert records(killed / name) == records(whole / name)


def test_beam_search_is_that_of_transformers(hf):
    """All finished beams and their order, with and without stop strings, log probabilities from the model itself."""
    import torch

    from topxgen.inference.beam_search import BeamSearch

    model, tokenizer = hf._model, hf._tokenizer
    stopped = 0
    for prompt in PROMPTS[:4]:
        ids = torch.tensor([hf.encode(prompt)])
        for stop in ((), ("a",), ("ek", "du")):
            options = dict(stop_strings=list(stop), tokenizer=tokenizer) if stop else {}
            expected = model.generate(
                ids, num_beams=4, num_return_sequences=4, max_new_tokens=12, do_sample=False, pad_token_id=0, **options
            )

            def stops(tokens, stop=stop):
                return any(text in tokenizer.decode(tokens) for text in stop)

            search = BeamSearch(4, 12, frozenset({tokenizer.eos_token_id}), stops)
            while not search.done:
                rows = torch.tensor([ids[0].tolist() + tokens for tokens, _ in search.live])
                with torch.no_grad():
                    top = model(input_ids=rows).logits[:, -1].log_softmax(-1).topk(search.width)
                search.advance(
                    [list(zip(*row, strict=True)) for row in zip(top[1].tolist(), top[0].tolist(), strict=True)]
                )
            found = search.best(4)
            expected = [row[ids.shape[1] :].tolist() for row in expected]
            width, fill = max(map(len, expected)), tokenizer.eos_token_id  # transformers takes a pad token 0 for none
            assert [tokens + [fill] * (width - len(tokens)) for tokens in found] == expected
            stopped += sum(len(tokens) < 12 for tokens in found)
    assert stopped > 10, "not all went on to the limit"


@pytest.mark.slow
def test_beams_of_both_samplers_are_alike(gemma, vllm):
    """Float32, a stop string; vLLM several prompts at a time."""
    sampler = inference.load("hf", ModelSettings(gemma, dtype="float32", max_model_len=512))
    settings = dict(num_beams=3, num_return_sequences=3, max_new_tokens=12, stop=("\n", "."))
    assert answers_of(vllm, REQUESTS, **settings) == answers_of(sampler, REQUESTS, **settings)
    sampler.close()


def test_marks_of_thoughts_survive_decoding(tiny_lm, tmp_path):
    """Special tokens are left out of answers, but not those that tell thoughts from the answer."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "<|note|>"]})
    ids = tokenizer("[THINK]Hm.[/THINK] Kaixo<|note|> mundua.<eos>", add_special_tokens=False)["input_ids"]
    assert {*tokenizer.convert_tokens_to_ids(["[THINK]", "[/THINK]", "<eos>"])} < {*ids}
    assert decode(tokenizer, [ids, ids[-4:]]) == ["[THINK]Hm.[/THINK] Kaixo mundua.", decode(tokenizer, [ids[-4:]])[0]]
    assert without_thoughts(decode(tokenizer, [ids])[0]) == "Kaixo mundua."


def test_an_answer_says_that_the_prompt_began_its_thoughts(hf, tiny_lm, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}[assistant]<think>\n"
    tokenizer.save_pretrained(tmp_path)
    settings = ModelSettings(tiny_lm, tokenizer_name_or_path=str(tmp_path), dtype="float32")
    sampler = inference.load("hf", settings)
    [(text,)] = answers_of(sampler, [Request("a", [{"role": "user", "content": "Kaixo"}], 1)]).values()
    assert text.startswith("<think>") and len(text) > 10 and without_thoughts(text) == ""
    [(raw,)] = answers_of(hf, [Request("a", "Basque: <think>", 1)]).values()
    assert raw.startswith("<think>") and without_thoughts(raw) == ""
    sampler.close()


def test_hf_says_why_an_answer_ended(hf):
    settings = SamplingSettings(max_new_tokens=6, temperature=0.0)
    request = [REQUESTS[0]]
    [cut] = hf.generate(from_list(request), settings)
    assert cut.finish_reasons == ("length",) and cut.completion_tokens == 6
    stop = cut.texts[0][2:4]
    [stopped] = hf.generate(from_list(request), replace(settings, stop=(stop,)))
    assert stopped.finish_reasons == ("stop",) and stop not in stopped.texts[0]
    [beams] = hf.generate(from_list(request), replace(settings, num_beams=2, num_return_sequences=2))
    assert beams.finish_reasons == ("length", "length")
    end = hf._tokenizer(cut.texts[0], add_special_tokens=False)["input_ids"][-1]
    hf._end_tokens = frozenset({end})
    [ended] = hf.generate(from_list(request), replace(settings, max_new_tokens=40))
    hf._end_tokens = hf._own_end_tokens
    assert ended.finish_reasons == ("stop",)


def test_hf_takes_a_stop_string_that_its_vocabulary_cannot_write(tiny_lm, tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1, "Kaixo": 2}, "<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<eos>").save_pretrained(tmp_path)
    sampler = inference.load("hf", ModelSettings(tiny_lm, tokenizer_name_or_path=str(tmp_path), dtype="float32"))
    assert answers_of(sampler, [Request("a", "Kaixo", 1)], stop=("\n###\n",))
    sampler.close()
