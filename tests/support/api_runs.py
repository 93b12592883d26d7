"""Runs of API samplers against the local server that injects faults."""

from tests.support.api_server import KEY, ApiServer
from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.inference import ModelSettings, Request, SamplingSettings, from_list

VARIABLES = ("OPENAI_API_KEY", "CO_API_KEY", "COHERE_API_KEY", "ANTHROPIC_API_KEY")
URL_VARIABLES = ("OPENAI_BASE_URL", "CO_API_URL", "ANTHROPIC_BASE_URL")
PATIENCE = 60.0  # seconds
LATER = 0.3  # seconds: enough for an answer to be read on a busy machine


def chats(n: int) -> list[Request]:
    return [Request(f"p{i}", [{"role": "user", "content": f"p{i} please"}], 100 + i) for i in range(n)]


def load(api: str, server: ApiServer, **settings):
    settings = {"api_key": KEY, "request_timeout": PATIENCE, "max_concurrent_requests": 4, **settings}
    sampler = inference.load(api, ModelSettings("m", base_url=server.url(api), **settings))
    sampler.base_delay = 0.05
    return sampler


def run(api, server, requests, sampling=None, **settings):
    """The answers, the error that ended the run (or None) and the retries."""
    sampler, answers, ending = load(api, server, **settings), [], None
    server.sampler = sampler
    try:
        for answer in sampler.generate(from_list(requests), sampling or SamplingSettings()):
            answers.append(answer)
    except UsageError as error:
        ending = error
        assert KEY not in str(error) and "\n" not in str(error)
    finally:
        sampler.close()
    server.settle()
    assert not any(KEY in str(answer) for answer in answers)
    return answers, ending, sampler.retries
