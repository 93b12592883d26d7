"""What responses cost: the providers' ways to report cached tokens, running totals, budgets, estimates."""

import json
import os
import subprocess
import sys

import pytest

from tests.support import api_server
from tests.support.api_server import KEY, ApiServer
from tests.support.runs import ROOT
from tests.support.tiny_models import udhr_texts
from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.inference import Answer, ModelSettings, Request, SamplingSettings, from_list
from topxgen.inference.costs import BudgetSpent, Estimate, Meter, Prices, estimate_table, estimated_tokens

# 1,000 prompt tokens, of which 600 were cached, and 50 of the answer, as each provider says it.
CACHED = {
    "openai": {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050, "prompt_tokens_details": {"cached_tokens": 600}},
    # xAI's thoughts are billed, but in the total alone.
    "openai xai": {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1050, "prompt_tokens_details": {"cached_tokens": 600},
                   "completion_tokens_details": {"reasoning_tokens": 40}},
    "openai deepseek": {"prompt_tokens": 1000, "completion_tokens": 50, "prompt_cache_hit_tokens": 600},
    "openai kimi": {"prompt_tokens": 1000, "completion_tokens": 50, "cached_tokens": 600},
    "anthropic": {"input_tokens": 300, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 600, "output_tokens": 50},
    "cohere": {"tokens": {"input_tokens": 1500, "output_tokens": 52}, "billed_units": {"input_tokens": 1000, "output_tokens": 50},
               "cached_tokens": 600},
}  # fmt: skip


@pytest.mark.parametrize("case", CACHED)
def test_tokens_are_those_that_are_billed_and_cached_ones_have_their_price(case, monkeypatch):
    whole, api = api_server.answer, case.split()[0]
    monkeypatch.setattr(api_server, "answer", lambda *args: whole(*args) | {"usage": CACHED[case]})
    with ApiServer() as server:
        sampler = inference.load(api, ModelSettings("m", base_url=server.url(api), api_key=KEY))
        meter = Meter(Prices(2.0, 10.0, 0.5))
        requests = [Request("a", [{"role": "user", "content": "a"}], 1)]
        [answer] = meter.wrap(sampler, "generate").generate(from_list(requests), SamplingSettings())
        sampler.close()
    assert (answer.prompt_tokens, answer.cached_tokens, answer.completion_tokens) == (1000, 600, 50)
    assert meter.spent() == pytest.approx((400 * 2 + 600 * 0.5 + 50 * 10) / 1e6)
    assert meter.usage("generate") == "generate: 1,000 prompt tokens (600 of them cached), 50 new tokens; 0.00 USD"
    meter.prices = None
    assert (meter.shown("generate"), meter.shown("translate")) == ({"tokens": "1,050"}, {}), "those of the stage alone"


class Fixed:
    """Answers at once, `parallel` requests in flight; each costs what `costs` says next, in new tokens: at 0 it fails."""

    def __init__(self, costs, parallel=4):
        self.costs, self.parallel, self.sent = iter(costs), parallel, 0

    def generate(self, next_request, settings):
        in_flight = []
        while True:
            while len(in_flight) < self.parallel and (request := next_request()) is not None:
                in_flight.append(request)
            if not in_flight:
                return
            self.sent += 1
            cost = next(self.costs)
            yield Answer(in_flight.pop(0).id, ["x"] if cost else [], 0, cost, error=None if cost else "broken")


def spend(costs, budget, meter=None, prompt="x", parallel=4, **sampling):
    meter = meter or Meter(Prices(1.0, 1.0, 1.0), budget)
    sampler, ended = Fixed(costs, parallel), False
    requests = [Request(str(i), prompt, i) for i in range(len(costs))]
    try:
        list(
            meter.wrap(sampler, "s").generate(
                from_list(requests), SamplingSettings(**{"max_new_tokens": 10**6} | sampling)
            )
        )
    except BudgetSpent as error:
        ended = True
        assert error.exit_code == 4 and "resume" in str(error)
    return sampler.sent, round(meter.spent(), 6), ended


@pytest.mark.parametrize(
    ("budget", "outcome"),
    [
        (None, (10, 1.0, False)),
        (1.0, (10, 1.0, False)),  # exactly enough
        (0.95, (9, 0.9, True)),
        (0.1, (1, 0.1, True)),
        (0.05, (1, 0.1, True)),  # what the first one costs is not known before
        (0.0, (0, 0.0, True)),
    ],
)
def test_no_request_is_sent_that_the_budget_does_not_cover(budget, outcome):
    assert spend([100_000] * 10, budget) == outcome


def test_a_first_request_whose_prompt_alone_exceeds_the_budget_is_not_sent():
    assert spend([1000], 0.002, prompt="hitz " * 2000) == (0, 0.0, True)
    assert spend([1000], 0.01, prompt="hitz " * 2000) == (1, 0.001, False)


def test_a_request_that_failed_does_not_show_what_others_cost():
    meter = Meter(Prices(1.0, 1.0, 1.0), 0.25)
    assert spend([0, 0, *[100_000] * 8], 0.25, meter) == (4, 0.2, True)
    assert meter.responses("s") == 2
    assert meter.totals("s") | {"usd": 0} == {
        "responses": 2, "failed": 2, "prompt_tokens": 0, "completion_tokens": 200_000, "cached_tokens": 0, "usd": 0,
    }  # fmt: skip


def test_requests_wait_for_those_in_flight_which_may_cost_less():
    """After one dear response the others look too dear together; one by one they all fit."""
    assert spend([400_000, *[10_000] * 20], 1.0) == (21, 0.6, False)
    dear_later = [400_000, *[1_000] * 5, *[400_000] * 4]  # short responses do not promise others
    assert spend(dear_later, 1.0) == (7, 0.805, True)
    two_answers = {"max_new_tokens": 400_000, "num_return_sequences": 2}
    assert spend([800_000] * 2, 1.0, **two_answers) == (1, 0.8, True), "each answer may be as long as allowed"


def test_short_responses_first_let_no_others_go_beyond_the_budget():
    """Of those in flight together each may be as long as allowed."""
    costs = [1_000, *[100_000] * 99]
    assert spend(costs, 0.5, parallel=64, max_new_tokens=100_000) == (5, 0.401, True)
    assert spend(costs, 20.0, parallel=64, max_new_tokens=100_000) == (100, 9.901, False)


def test_a_finished_run_does_not_lack_the_budget_for_the_request_that_waits():
    fixed = Fixed([100_000] * 9)
    fixed.finish = lambda: None
    sampler = Meter(Prices(1.0, 1.0, 1.0), 0.35).wrap(fixed, "s")
    requests = from_list([Request(str(i), "x", i) for i in range(9)])
    answers = sampler.generate(requests, SamplingSettings(max_new_tokens=100_000))
    next(answers)
    next(answers)
    sampler.finish()
    assert [answer.id for answer in answers] == ["2"] and fixed.sent == 3


def test_what_is_on_disk_counts(tmp_path):
    records = [{"prompt_tokens": 0, "completion_tokens": 100_000}, {"prompt_tokens": 0, "completion_tokens": 100_000}]
    path = tmp_path / "Basque_answers.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"prompt_tok')  # being written
    meter = Meter(Prices(1.0, 1.0, 1.0), 0.5)
    meter.add_files("s", [path])
    assert meter.responses() == 2 and spend([100_000] * 10, 0.5, meter) == (3, 0.5, True)
    path.write_text('{"prompt_tokens": "7"}\n')
    with pytest.raises(
        UsageError, match="line 1: field prompt_tokens: expected integer or null, got text; fix or remove the line"
    ):
        meter.add_files("s", [path])


def test_a_pipe_in_place_of_responses_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "answers.jsonl")
    code = "from pathlib import Path; from topxgen.inference.costs import Meter; Meter(None).add_files('s', [Path('answers.jsonl')])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert "UsageError: answers.jsonl is a pipe or a device" in result.stderr


@pytest.mark.parametrize("tokens", [-1_000_000, 0.5, True])
def test_tokens_that_nobody_counted_pay_for_nothing(tmp_path, tokens):
    (tmp_path / "answers.jsonl").write_text(json.dumps({"prompt_tokens": 5, "completion_tokens": tokens}) + "\n")
    with pytest.raises(UsageError, match="line 1: field completion_tokens: expected integer"):
        Meter(Prices(1.0, 1.0, 1.0)).add_files("s", [tmp_path / "answers.jsonl"])


@pytest.mark.parametrize("values", [[1], [1, 2, 3, 4]])
def test_prices_are_two_or_three(values):
    with pytest.raises(UsageError, match="--prices takes two or three numbers"):
        Prices.of(values)


def test_cached_tokens_cost_as_others_unless_priced():
    assert Prices.of([2, 10]).cost(100, 0, 100) == Prices.of([2, 10]).cost(100, 0, 0) == 0.0002
    assert Prices.of([2, 10, 0.5]).cost(100, 0, 100) == 0.00005


def test_a_budget_needs_prices():
    with pytest.raises(UsageError, match="--budget needs --prices"):
        Meter(None, 1.0)


def test_estimates_add_up():
    stages = [
        Estimate("generate", "10 to 20 prompts", (1e6, 2e6), (5e5, 1e6)),
        Estimate("translate", "100 sentences", (4e6, 4e6), (1e5, 1e5), (0.5, 1)),
        Estimate("score", "100 pairs"),
    ]
    table = estimate_table(stages, Prices.of([1, 10]), 5)
    total = next(line for line in table.splitlines() if line.startswith("total"))
    assert "5,000,000 to 6,000,000" in total and "600,000 to 1,100,000" in total and "11.00 to 17.00" in total
    assert "--budget 5 may end the run" in table
    assert "--budget 16.9 may end the run" in estimate_table(stages, Prices.of([1, 10]), 16.9), "at most, not at least"
    assert "--budget" not in estimate_table(stages, Prices.of([1, 10]), 17)
    local = estimate_table([Estimate("score", "9 pairs")], None).split("\n")[1]
    assert local.split() == ["score", "9", "pairs", "-", "-", "-", "unknown"], "what has no tokens needs no --prices"
    assert estimate_table(stages, None).count("--prices?") == 3
    assert "--prices" not in estimate_table(stages, None, is_remote=False), "tokens of a local model have no price"


# Tokens of the paragraphs of the UDHR, by Gemma 3's tokenizer.
GEMMA_TOKENS = {
    "English": 1912, "Basque": 3487, "Hausa": 4629, "Igbo": 4336, "Kinyarwanda": 3308, "Nepali": 2399, "Somali": 4074, "Sundanese": 3636,
    "Swahili": 2994, "Urdu": 2684, "Xhosa": 3805,
}  # fmt: skip


@pytest.mark.parametrize(("language", "tokens"), GEMMA_TOKENS.items())
def test_tokens_are_estimated_within_a_quarter_where_there_is_no_tokenizer(language, tokens):
    assert sum(map(estimated_tokens, udhr_texts(language))) == pytest.approx(tokens, rel=0.25)
