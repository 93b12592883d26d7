"""The API samplers through the providers' own clients, against a local server that injects faults."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import replace

import pytest

from tests.support.api_runs import LATER, PATIENCE, VARIABLES, chats, load, run
from tests.support.api_server import ENDINGS, FAULTS, KEY, RETRY_AFTER, ApiServer
from topxgen import inference
from topxgen.common.errors import APIUnavailable, UsageError
from topxgen.inference import REMOTE, ModelSettings, Request, SamplingSettings, from_list
from topxgen.inference.api_errors import PROMPT, REFUSED, ErrorClassifier, retry_after
from topxgen.inference.response_cache import response_record

# Once is enough: our own code reads them alike for all, or only one provider says so.
ONLY_FOR = {
    "rate limit date": "anthropic",
    "rate limit ms": "openai",
    "payment": "cohere",
    "credit": "anthropic",
    "come back": "openai",
}
every_api = pytest.mark.parametrize("api", REMOTE)
TIME_LIMIT = 1.0  # seconds; only for requests that have to time out
GREEDY = SamplingSettings(max_new_tokens=12, temperature=0.0)


def with_each(faults):
    pairs = [(api, fault) for api in REMOTE for fault in faults if ONLY_FOR.get(fault, api) == api]
    return pytest.mark.parametrize(("api", "fault"), pairs)


@every_api
def test_plain_answers(api):
    with ApiServer() as server:
        server.held = lambda name: server.most_in_flight < 4
        answers, ending, retries = run(api, server, chats(10), SamplingSettings(stop=("please",)))
    assert ending is None and not retries
    found = {answer.id: answer for answer in answers}
    assert len(answers) == len(found) == 10 and server.most_in_flight == 4
    assert found["p3"].texts == ["answer to p3 "]  # cut at the stop string
    assert (found["p3"].prompt_tokens, found["p3"].completion_tokens) == (7, 5)


def first_with_a_time_limit(server, requests, faults):
    """Those that have to time out come first: any other may take long on a busy machine."""
    yield from (request for request in requests if (request.id, 1) in faults)
    while len(server.arrivals) < len(faults):
        time.sleep(0.005)
    server.sampler._settings = replace(server.sampler._settings, request_timeout=PATIENCE)
    yield from (request for request in requests if (request.id, 1) not in faults)


@with_each(FAULTS)
def test_no_fault_loses_or_repeats_an_answer(api, fault):
    faults = {(f"p{i}", 1): fault for i in range(0, 12, 3)}
    with ApiServer(faults) as server:
        if fault in RETRY_AFTER:  # they come when all are in flight, and are known before there is room for another
            server.held = lambda name: (
                server.attempts.total() < 12 if (name, 1) in faults else server.sampler.retries.total() < 4
            )
        requests, limit = chats(16), PATIENCE
        if fault in ("stall", "trickle"):
            requests, limit = first_with_a_time_limit(server, requests, faults), TIME_LIMIT
        answers, ending, retries = run(api, server, requests, max_concurrent_requests=12, request_timeout=limit)
        assert ending is None and server.injected == {fault: 4}
        assert Counter(answer.id for answer in answers) == server.delivered == {f"p{i}": 1 for i in range(16)}
        assert all(answer.texts == [f"answer to {answer.id} please"] for answer in answers)
        assert retries.total() == 4 and server.most_in_flight <= 12
        if fault in RETRY_AFTER:
            # The provider said when: nobody comes earlier, the new ones neither.
            late = {"p12", "p13", "p14", "p15"}
            limited = max(at for name, attempt, at in server.arrivals if attempt == 1 and name not in late)
            after = [at for name, attempt, at in server.arrivals if attempt == 2 or name in late]
            assert len(after) == 8 and min(after) - limited >= RETRY_AFTER[fault]


def test_retry_after_in_all_its_forms():
    assert retry_after({"Retry-After": "7"}) == 7 and retry_after({"retry-after-ms": "250"}) == 0.25
    assert retry_after({}) is None and retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "nan"}) is None
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0


# The two that are left out end nothing once a request has succeeded.
@with_each(fault for fault in ENDINGS if fault not in ("parameter", "no template"))
def test_what_no_retry_mends(api, fault):
    """The end comes early while the others in flight are still at it: they are paid for, so they count."""
    faults = {("p5", 1): fault, ("p6", 1): "server error"}
    with ApiServer(faults) as server:
        if fault != "context":
            server.held = lambda name: (
                server.attempts.total() < 8 if name == "p5" else not server.sampler._ending.is_set()
            )
        answers, ending, _ = run(api, server, chats(20), max_concurrent_requests=8)
        names = {answer.id for answer in answers if answer.texts}
        assert names == set(server.delivered)
        if fault == "context":
            assert ending is None and len(answers) == 20 and "p5" not in names
            assert [ENDINGS[fault][2] in answer.error for answer in answers if not answer.texts] == [True]
            return
        assert names == {f"p{i}" for i in range(8)} - {"p5", "p6"}
        assert server.attempts.total() == 8, "no new request, and no second attempt, after the end"
        if fault == "no model":
            assert type(ending) is UsageError and "HTTP 40" in str(ending)
        else:
            assert type(ending) is APIUnavailable and ending.exit_code == 4
            assert "6 responses are saved: re-run the same command to resume" in str(ending)
        server.faults, server.held = (lambda name, attempt: None), (lambda name: False)
        more, ending, _ = run(api, server, [request for request in chats(20) if request.id not in names])
        assert ending is None and len(more) == 14
        assert server.delivered == {f"p{i}": 1 for i in range(20)}, "what was delivered is never asked again"


@every_api
def test_a_wrong_key_and_no_end_of_failures(api):
    with ApiServer(key="another") as server:
        answers, ending, _ = run(api, server, chats(3))
        assert answers == [] and type(ending) is APIUnavailable and "0 responses are saved" in str(ending)
    with ApiServer(lambda name, attempt: "server error" if name == "p2" else None) as server:
        answers, ending, retries = run(api, server, chats(3), max_retries=2)
        assert len(answers) == 2 and server.attempts["p2"] == 3 and retries == {"server error": 2}
        assert type(ending) is APIUnavailable and "Something broke" in str(ending) and "3 attempts" in str(ending)


def test_a_crowded_provider_is_waited_for():
    """More in flight than it serves at once: rate limits are no failures as long as others are served."""
    with ApiServer(delay=0.02) as server:
        server.faults = lambda name, attempt: "busy" if server.in_flight > 2 else None
        answers, ending, retries = run("openai", server, chats(20), max_concurrent_requests=8, max_retries=3)
        assert ending is None and len(answers) == 20 == server.delivered.total() and retries["rate limit"] > 3


def test_a_prompt_that_is_refused_after_answers_does_not_end_the_run():
    with ApiServer({("p5", 1): "parameter"}) as server:
        answers, ending, _ = run("openai", server, chats(9), max_concurrent_requests=1)
        assert ending is None and len(answers) == 9 and "takes none" in answers[5].error


@every_api
def test_requests_are_pulled_as_answers_are_taken(api):
    """None means "none now": the sampler asks again after an answer."""
    with ApiServer(delay=0.06) as server:
        sampler = load(api, server, max_concurrent_requests=3)
        taken, done, ahead = [], [], []

        def next_request():
            ahead.append(len(taken) - len(done))
            if len(taken) == 7 or (len(taken) % 2 == 0 and len(done) < len(taken)):
                return None
            taken.append(chats(7)[len(taken)])
            return taken[-1]

        for answer in sampler.generate(next_request, SamplingSettings()):
            done.append(answer.id)
        sampler.close()
    assert sorted(done) == [f"p{i}" for i in range(7)] and max(ahead) < 3
    assert not sampler.retries


def test_the_callers_time_is_not_the_providers():
    with ApiServer(delay=lambda name: 0 if name == "p0" else LATER) as server:
        sampler = load("openai", server, request_timeout=8 * LATER)
        for answer in sampler.generate(from_list(chats(4)), SamplingSettings()):
            if answer.id == "p0":
                time.sleep(9 * LATER)
        sampler.close()
    assert not sampler.retries


@every_api
def test_leaving_early_is_quiet(api, caplog, capfd):
    with ApiServer({("p3", 1): "stall", ("p4", 1): "trickle", ("p5", 1): "busy"}) as server:
        sampler = load(api, server, max_concurrent_requests=6)
        answers = sampler.generate(from_list(chats(9)), SamplingSettings())
        next(answers)
        answers.close()
        again = list(sampler.generate(from_list([Request("q0", [{"role": "user", "content": "q0"}], 1)]), GREEDY))
        assert [answer.id for answer in again] == ["q0"]
        sampler.close()
        sampler.close()
    out, err = capfd.readouterr()
    assert not caplog.records and not out and not err


@every_api
def test_finishing_waits_for_responses_in_flight_and_repeats_no_request(api):
    with ApiServer({("p2", 1): "server error", ("p3", 1): "reset"}) as server:
        sampler = load(api, server, max_concurrent_requests=4, max_retries=0)
        server.held = lambda name: name != "p0" and not sampler._ending.is_set()
        answers = sampler.generate(from_list(chats(9)), SamplingSettings())
        names = {next(answers).id}
        sampler.finish()
        names |= {answer.id for answer in answers}
        sampler.close()
    assert names == {"p0", "p1"} and server.attempts == {"p0": 1, "p1": 1, "p2": 1, "p3": 1}


def test_what_is_sent():
    """The settings in each provider's words."""
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "p0 x"}]
    settings = SamplingSettings(max_new_tokens=9, temperature=0.7, stop=tuple("abcdef\n"))
    sent = {}
    with ApiServer() as server:
        for api in REMOTE:
            run(api, server, [Request("p0", chat, 5)], settings)
            sent[api] = server.bodies[-1]
        assert sent["openai"] == {
            "model": "m", "messages": chat, "max_tokens": 9, "temperature": 0.7, "top_p": 1.0, "seed": 5,
            "stop": list("abcdef\n"), "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0,
            "presence_penalty": 0.0, "frequency_penalty": 0.0,
        }  # fmt: skip
        assert sent["cohere"] == {
            "model": "m", "messages": chat, "max_tokens": 9, "temperature": 0.7, "p": 0.99, "seed": 5, "k": 0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
            "stop_sequences": list("abcde"), "stream": False,
        }  # fmt: skip
        assert sent["anthropic"] == {
            "model": "m", "messages": chat[1:], "system": "be brief", "max_tokens": 9, "temperature": 0.7,
            "stop_sequences": list("abcdef"),
        }  # fmt: skip
        assert server.headers[-1]["anthropic-version"] == "2023-06-01"
        run("anthropic", server, chats(1), SamplingSettings())  # as it is by default: newer models take nothing else
        assert not {"temperature", "top_p"} & server.bodies[-1].keys()
        server.key = None
        plain, sampled = [Request("p0", "p0 is", 5)], SamplingSettings(num_return_sequences=3, repetition_penalty=1.1)
        answers, _, _ = run("openai", server, plain, sampled, api_key=None)
        assert answers[0].texts == 3 * ["answer to p0 is"]
        assert server.bodies[-1]["prompt"] == "p0 is" and server.bodies[-1]["n"] == 3
        assert server.bodies[-1]["repetition_penalty"] == 1.1
        greedy = SamplingSettings(num_return_sequences=3, temperature=0)
        assert run("openai", server, plain, greedy)[0][0].texts == 3 * ["answer to p0 is"]
        assert "n" not in server.bodies[-1]


def test_what_a_provider_cannot_do():
    with ApiServer() as server:
        for api in ("cohere", "anthropic"):
            for request, settings, words in (
                (Request("p0", "p0 is", 5), SamplingSettings(), "chat models only"),
                (chats(1)[0], SamplingSettings(num_return_sequences=2), "one answer to a prompt"),
                (chats(1)[0], SamplingSettings(repetition_penalty=1.2), "no such parameter"),
                (chats(1)[0], SamplingSettings(num_beams=2), "no beam search"),
            ):
                answers, ending, _ = run(api, server, [request], settings)
                assert not answers and type(ending) is UsageError and words in str(ending)
        assert not server.arrivals
    sampler = inference.load("openai", ModelSettings("m", api_key=KEY))
    with pytest.raises(UsageError, match=r"--repetition_penalty 1\.2: OpenAI's API has no such parameter"):
        next(sampler.generate(from_list(chats(1)), SamplingSettings(repetition_penalty=1.2)))
    sampler.close()


def test_checks_before_anything_runs(monkeypatch):
    for api, variable in zip(REMOTE, VARIABLES[:2] + VARIABLES[3:], strict=True):
        with pytest.raises(UsageError, match=f"export {variable}="):
            inference.check(api, ModelSettings("m"))
        for url in ("localhost:8000", "ftp://x/v1", "https://me:secret@host/v1", "me:secret@host", "http://[::1"):
            with pytest.raises(UsageError, match="--base_url") as caught:
                inference.check(api, ModelSettings("m", api_key=KEY, base_url=url))
            assert "secret" not in str(caught.value)
        with pytest.raises(UsageError, match="characters that no key has") as caught:
            inference.check(api, ModelSettings("m", api_key="“key”"))
        assert "“" not in str(caught.value)
        inference.check(api, ModelSettings("m", api_key=KEY + "\n", base_url="http://localhost:8000/v1"))
        monkeypatch.setenv(variable, KEY)
        inference.check(api, ModelSettings("m"))
    monkeypatch.delenv("CO_API_KEY")
    monkeypatch.setenv("COHERE_API_KEY", KEY)
    inference.check("cohere", ModelSettings("m"))
    monkeypatch.delenv("OPENAI_API_KEY")
    inference.check("openai", ModelSettings("m", base_url="http://localhost:8000/v1"))
    inference.check("vllm", ModelSettings("m"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install anthropic"):
        inference.check("anthropic", ModelSettings("m"))


@every_api
def test_an_api_without_a_seed_says_so(api, caplog):
    caplog.set_level("INFO")
    inference.check(api, ModelSettings("m", api_key=KEY), SamplingSettings())
    assert ("Anthropic's API has no seed" in caplog.text) == (api == "anthropic")


@pytest.mark.slow
def test_a_real_server_answers_as_the_model_in_process(gemma, tmp_path):
    """`vllm serve` behind the openai sampler, greedy in float32, against transformers."""
    pytest.importorskip("vllm")
    prompts = [f"# Basque article\nGizon-emakume guztiak aske {'jaiotzen dira ' * i}" for i in range(6)]
    requests = [Request(f"r{i}", prompt, 1000 + i) for i, prompt in enumerate(prompts)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = (
        f"--port {port} --host 127.0.0.1 --served-model-name gemma --dtype float32 --max-model-len 512 --enforce-eager "
        "--no-enable-chunked-prefill --max-num-batched-tokens 4096"
    )
    # What `vllm serve` runs; its command line does not start under the name of the CPU build's package.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", gemma, *options.split()]
    env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1"}
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log, start_new_session=True)
    settings = ModelSettings("gemma", base_url=f"http://127.0.0.1:{port}/v1", max_concurrent_requests=4)
    try:
        while True:
            assert server.poll() is None, "the server ended before it listened"
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(1)
        sampler = inference.load("openai", settings)
        served = {}
        for answer in sampler.generate(from_list(requests), GREEDY):
            served[answer.id] = answer
        long = Request("long", "aske " * 600, 1)
        for answer in sampler.generate(from_list([Request("twice", f"<bos>{prompts[0]}", 1)]), GREEDY):
            served[answer.id] = answer
        (refused,) = sampler.generate(from_list([long]), GREEDY)
        several = SamplingSettings(max_new_tokens=12, num_return_sequences=3, repetition_penalty=1.1)
        (sampled,) = sampler.generate(from_list(requests[:1]), several)
        sampler.close()
        other = inference.load("openai", ModelSettings("other", base_url=settings.base_url))
        with pytest.raises(UsageError, match="has no model 'other'"):
            list(other.generate(from_list(requests[:1]), GREEDY))
        other.close()
    except BaseException:
        print((tmp_path / "server.log").read_text()[-6000:])
        raise
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    once, twice = served["r0"], served["twice"]  # with <bos> in the prompt
    assert (once.texts, once.prompt_tokens) == (twice.texts, twice.prompt_tokens)
    hf = inference.load("hf", ModelSettings(gemma, dtype="float32"))
    for answer in hf.generate(from_list(requests), GREEDY):
        assert served[answer.id].texts == answer.texts
        assert served[answer.id].prompt_tokens == answer.prompt_tokens
    hf.close()
    assert refused.texts == [] and "maximum context length" in refused.error
    assert len(set(sampled.texts)) == 3 and sampled.completion_tokens > 12


def test_malformed_responses_are_described_in_json_types():
    failures = ErrorClassifier(
        "P", key="k", key_variable="K", address=None, model="m", time_limit=1, connection_errors=()
    )
    for value, text in ((None, "null"), ({}, "object"), ([], "list")):
        with pytest.raises(AttributeError) as raised:
            value.content  # noqa: B018
        assert failures.classify(raised.value, True).message == (
            f"P gave a malformed response ({text} has no attribute 'content')"
        )


def test_rate_limits_are_not_taken_for_other_things():
    """Some providers say "quota" or "too many tokens" of a limit that is over in a moment."""
    failures = ErrorClassifier(
        "P", key="k", key_variable="K", address=None, model="m", time_limit=1, connection_errors=()
    )

    def kind(status, wait, message, code="", before=False):
        return failures.classify_status(status, wait, message, code, before).kind

    assert kind(429, 5.0, "Too many tokens per minute") == "rate limit"
    assert kind(429, None, "Too many tokens, please wait before trying again.") == "rate limit"
    assert kind(429, 20.9, "You exceeded your current quota. Please retry in 20.9s") == "rate limit"
    assert kind(429, 20.9, "You exceeded your current quota.", "insufficient_quota") == REFUSED
    assert kind(429, None, "Request too large for gpt-x") == PROMPT
    assert kind(400, None, "The input token count (9000) exceeds the maximum number of tokens allowed") == PROMPT


@pytest.mark.parametrize("succeed", [True, False])
def test_one_bad_prompt_does_not_end_a_run(succeed):
    """A refusal for a reason nobody has listed comes before any answer: the others show whose fault it is."""

    def faults(name, attempt):
        return "parameter" if name == "p0" or not succeed else None

    with ApiServer(faults) as server:
        server.held = lambda name: (
            server.most_in_flight < 4 if name == "p0" else not (server.sampler._doubtful or server.sampler._succeeded)
        )
        answers, ending, _ = run("cohere", server, chats(8))
    if succeed:
        assert ending is None and sorted(a.id for a in answers if a.texts) == [f"p{i}" for i in range(1, 8)]
    else:
        assert not answers and "does not accept such requests" in str(ending) and ending.exit_code == 2


def test_a_base_model_behind_a_server_is_named():
    """As vLLM's server answers a chat."""
    with ApiServer(lambda name, attempt: "no template") as server:
        answers, ending, _ = run("openai", server, chats(1))
    assert not answers and ending.exit_code == 2 and "for a base model pass --prompt_style raw" in str(ending)


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_models_that_take_no_temperature_are_asked_without(api, caplog):
    """Back-translation asks for greedy responses; reasoning models reject even that."""
    caplog.set_level("INFO")
    with ApiServer(delay=0.02) as server:

        def faults(name, attempt):
            return "parameter" if "temperature" in server.bodies[-1] else None

        server.faults, server.delay = faults, lambda name: 0.0
        answers, ending, _ = run(api, server, chats(6), GREEDY, max_concurrent_requests=1)
        assert ending is None and len(answers) == 6 and all(answer.texts for answer in answers)
        assert sum("takes no temperature" in record.getMessage() for record in caplog.records) == 1
        assert sum("temperature" in body for body in server.bodies) == 1
        assert all(response_record(answer)["own_temperature"] for answer in answers), "none of them was greedy"
        assert "does not accept such requests" in str(run(api, server, chats(2), SamplingSettings(temperature=0.5))[1])


@pytest.mark.parametrize("penalty", [1.0, 1.1])
def test_servers_that_refuse_neutral_values_are_asked_without(penalty, caplog):
    """A vLLM server needs them, or it decodes with its model's generation_config.json; others answer 400 or 422."""
    caplog.set_level("INFO")
    neutral = {"top_k", "min_p", "presence_penalty", "frequency_penalty"}
    settings = SamplingSettings(max_new_tokens=12, repetition_penalty=penalty)
    with ApiServer() as server:

        def fault(*_):
            refused = (422, "invalid_request_error", "extra inputs are not permitted: body.top_k")
            return refused if "top_k" in server.bodies[-1] else None

        server.faults = fault
        answers, error, _ = run("openai", server, chats(3), settings, max_concurrent_requests=1)
        assert error is None and len(answers) == 3 and all(answer.texts for answer in answers)
        assert sum("takes no top_k" in record.getMessage() for record in caplog.records) == 1
        first, *others = server.bodies
        assert neutral < first.keys() and first["repetition_penalty"] == penalty
        assert not any(neutral & body.keys() for body in others)
        assert all(body.get("repetition_penalty", 1.0) == penalty for body in others)
