"""What main.py's questions cost: tokens of all stages, estimates before, a budget during, the record after."""

import json
import re
from functools import partial

import pytest

from comptra.llm_calls import StageProgress
from tests.support.api_server import KEY, ApiServer
from tests.support.main_runs import options, udhr
from tests.support.runs import in_process, lines_in, records

PRICES = ("--prices", 2.0, 8.0, 0.5)
SPLIT = ("--steps", 1, "--method_divide", "space", "--number_of_subproblems", 2)


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    chosen = {"prompt_style": None, "inference_api": "openai", "dtype": None, "k": None, "max_new_tokens_merge": None}
    flags = options("org/chat", "--output_dir", tmp_path / "out", **chosen)
    return partial(in_process, "main.py", *flags)


def respond(prompt: str) -> str:
    """An answer that each method can read."""
    if "MQM" in prompt:
        return "major, accuracy: wrong"
    return f"Translation: Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela {len(prompt)}."


METHODS = [
    ((), {"translate 0": 1}),
    (("--k", 2), {"translate 0": 1}),
    (("--method_translate", "cot"), {"translate 0": 2}),
    (("--method_translate", "step_by_step"), {"translate 0": 4}),
    (("--method_translate", "TEaR"), {"translate 0": 3}),
    (("--number_of_refining_steps", 2), {"translate 0": 3}),
    (SPLIT, {"translate 1": 2, "merge 0": 1}),
    ((*SPLIT, "--merge_prompt", "refine"), {"translate 1": 2, "merge 0": 1}),
    ((*SPLIT, "--refine_after_merge", 2), {"translate 1": 2, "merge 0": 3}),
]


@pytest.mark.parametrize(("flags", "per_sentence"), METHODS)
def test_a_dry_run_counts_every_call_of_the_method(flags, per_sentence, served):
    """As many prompts as the run sends then, and about as many tokens in them."""
    with ApiServer(respond=respond) as server:
        server_flags = ("--base_url", server.url("openai"))
        dry = served(*flags, *PRICES, *server_flags, "--dry_run")
        assert dry.returncode == 0, dry.stderr
        assert not server.bodies
        rows = dict(re.findall(r"^((?:divide|translate|merge) \d) +(?:\d+ to )?(\d+) prompts", dry.stdout, re.M))
        assert rows == {stage: str(4 * count) for stage, count in per_sentence.items()}, dry.stdout
        assert served(*flags, *server_flags).returncode == 0
        assert len(server.bodies) == sum(map(int, rows.values()))


def test_llm_division_is_estimated_too(served):
    dry = served("--steps", 1, *PRICES, "--base_url", "http://localhost:1/v1", "--dry_run")
    assert dry.returncode == 0, dry.stderr
    assert re.search(r"^divide 1 +4 prompts .* \d\S* to \d\S* +unknown$", dry.stdout, re.M), dry.stdout
    assert re.search(r"^translate 1 +16 prompts", dry.stdout, re.M) and re.search(r"^merge 0 +4 prom", dry.stdout, re.M)
    assert "--prices?" in served("--base_url", "http://localhost:1/v1", "--dry_run").stdout


def test_tokens_and_money_are_reported_and_kept(served, tmp_path):
    """The server reports 7 prompt tokens and 5 new tokens for each request."""
    with ApiServer() as server:
        run = partial(served, *PRICES, "--base_url", server.url("openai"))
        result = run()
        assert result.returncode == 0 and "chat: 28 prompt tokens, 20 new tokens; 0.00 USD" in result.stderr
        (path,) = tmp_path.rglob("manifest_translate.json")
        usage = {"responses": 4, "prompt_tokens": 28, "completion_tokens": 20, "cached_tokens": 0}
        assert json.loads(path.read_text())["usage"] == usage | {"usd": (28 * 2 + 20 * 8) / 1e6}
        assert "prices" not in json.loads((path.parent / "settings_translate.json").read_text())
        longer = run("--max_samples", 6, "--prices", 1, 1)
        assert "chat: 42 prompt tokens, 30 new tokens" in longer.stderr, "those of the earlier run, too"
        assert "so far, chat: 42 prompt tokens" in run("--max_samples", 6, "--dry_run").stdout


def test_a_model_that_refuses_temperature_0_is_not_called_greedy(served, tmp_path, score):
    with ApiServer(respond=respond) as server:
        server.faults = lambda name, attempt: "parameter" if "temperature" in server.bodies[-1] else None
        assert served("--base_url", server.url("openai"), "--max_concurrent_requests", 1).returncode == 0
    (path,) = tmp_path.rglob("manifest_translate.json")
    assert json.loads(path.read_text())["own_temperature"] == 4
    assert all(record["own_temperature"] for record in records(path.with_name("answers.jsonl")))
    for own, decoding in ((4, "the model's temperature"), (0, "greedy")):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"own_temperature": own}))
        code, _, said = score(tmp_path / "out", "--json", tmp_path / f"{own}.json", "--allow_partial")
        assert code == 0, said
        (group,) = json.loads((tmp_path / f"{own}.json").read_text())["groups"]
        assert group["systems"][0]["columns"]["decoding"] == decoding


def test_cached_prompt_tokens_have_their_own_price(served, tmp_path):
    with ApiServer() as server:
        assert served("--base_url", server.url("openai")).returncode == 0
        (path,) = tmp_path.rglob("answers.jsonl")
        lines = [record | {"cached_tokens": 6} for record in records(path)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        shown = served(*PRICES, "--base_url", server.url("openai"), "--dry_run").stdout
    assert "28 prompt tokens (24 of them cached)" in shown


def test_a_budget_ends_the_run_and_a_larger_one_resumes_it(served, tmp_path):
    each = (7 * 2 + 5 * 8) / 1e6
    with ApiServer() as server:
        run = partial(
            served, *PRICES, "--base_url", server.url("openai"), "--max_samples", 10, "--max_concurrent_requests", 1
        )
        ended = run("--budget", 5.5 * each)
        assert ended.returncode == 4 and "could exceed --budget" in ended.stderr and len(server.bodies) == 5
        (path,) = tmp_path.rglob("translate_0.jsonl")
        assert lines_in(path) == 5 and not (path.parent / "manifest_translate.json").exists()
        again = run("--budget", 5.5 * each)
        assert again.returncode == 4 and len(server.bodies) == 5
    with ApiServer() as server:  # a server that was started again has another address
        run = partial(run, "--budget", 100 * each, "--base_url", server.url("openai"))
        assert run().returncode == 0
        assert len(server.bodies) == 5 and [line["sentence"] for line in records(path)] == udhr(10).sources
        assert run().returncode == 0
    recorded = json.loads((path.parent / "manifest_translate.json").read_text())["settings"]
    assert recorded["base_url"] == server.url("openai"), "records of Every Eval Ever tell it from the provider's"


def usage(prompt=0, cached=0, new=0) -> dict:
    return {"prompt_tokens": prompt, "completion_tokens": new, "prompt_tokens_details": {"cached_tokens": cached}}


@pytest.mark.parametrize("reported", [None, {}, usage()])
def test_a_budget_cannot_be_kept_with_a_server_that_reports_no_tokens(served, tmp_path, reported):
    with ApiServer(edit=lambda name, body: (body | {"usage": reported}, None)) as server:
        run = partial(served, *PRICES, "--base_url", server.url("openai"), "--max_concurrent_requests", 1)
        ended = run("--budget", 1)
        assert ended.returncode == 2 and "does not report the tokens" in ended.stderr and len(server.bodies) == 1
        result = run()
        assert result.returncode == 0 and len(server.bodies) == 4, "what was asked is saved"
        assert "WARNING: the server does not report the tokens of its responses" in result.stderr


def test_no_more_tokens_are_cached_than_a_prompt_has(served, tmp_path):
    with ApiServer(edit=lambda name, body: (body | {"usage": usage(7, 1000, 5)}, None)) as server:
        assert served(*PRICES, "--base_url", server.url("openai")).returncode == 0
    recorded = json.loads(next(tmp_path.rglob("manifest_translate.json")).read_text())["usage"]
    assert (recorded["cached_tokens"], recorded["usd"]) == (28, (28 * 0.5 + 20 * 8) / 1e6)


def test_a_budget_needs_prices(served):
    result = served("--budget", 1, "--base_url", "http://localhost:1/v1", "--dry_run")
    assert result.returncode == 2 and "--budget needs --prices IN OUT" in result.stderr


@pytest.mark.medium
def test_hours_are_known_by_the_rates_of_an_earlier_run(served, tmp_path):
    """Of answers of the model alone: saved ones, which come at once, have no rate."""
    with ApiServer(respond=respond) as server:
        flags = ("--base_url", server.url("openai"), *SPLIT)
        first = served(*flags, "--dry_run")
        assert "unknown" in first.stdout and "hours are unknown until" in first.stdout
        assert served(*flags).returncode == 0
        path = tmp_path / "out" / "chat" / "rates.json"
        rates = json.loads(path.read_text())
        assert rates.keys() == {"translate", "merge"} and all(0 < rate < 4000 for rate in rates.values())
        manifest = next(path.parent.glob("*/manifest_translate.json"))
        for made in (manifest, manifest.parent / "translate_0.jsonl"):
            made.unlink()
        assert served(*flags).returncode == 0 and json.loads(path.read_text()) == rates, "all answers were saved"
        path.write_text('{"translate": 0.001, "merge": 0.002}')
        dry = served(*flags, "--seed", 1, "--dry_run").stdout
        path.write_text('{"translate": 0')
        assert served(*flags, "--seed", 1, "--dry_run").returncode == 2
        assert served(*flags, "--seed", 1).returncode == 0 and json.loads(path.read_text()).keys() == rates.keys()
    hours = dict(re.findall(r"^(\w+) \d .* (\S+)$", dry, re.M))
    assert hours == {"translate": "2.22", "merge": "0.56"} and "unknown" not in dry


@pytest.mark.medium
def test_a_dry_run_needs_no_tokenizer(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    run = partial(in_process, "main.py", *options("org/nothing", "--output_dir", tmp_path / "out", prompt_style=None))
    dry = run("--dry_run")
    assert dry.returncode == 0, dry.stderr
    assert "4 prompts" in dry.stdout and dry.stderr.count("not checked: ") == 1 and "org/nothing" in dry.stderr
    assert not (tmp_path / "out").exists()
    assert run().returncode == 2


def test_the_rate_of_a_stage_is_that_of_all_its_passes(monkeypatch):
    """A few sentences that are asked again at the end, slowly, are not the rate of all."""
    now, given = 0.0, 0
    monkeypatch.setattr("time.monotonic", lambda: now)
    progress = StageProgress(responses=lambda: given)
    for responses, seconds in ((90, 60), (1, 31)):
        progress.begin("translate 0")
        progress.expect(responses)
        progress.open()
        now, given = now + seconds, given + responses
        progress.close()
    assert progress.take_rates() == {"translate": 1.0} and progress.take_rates() == {}


@pytest.mark.medium
def test_prompts_of_a_local_model_are_counted_with_its_tokenizer(tiny_lm, tmp_path):
    flags = options(tiny_lm, "--output_dir", tmp_path / "out", k=0, max_new_tokens=2)
    dry = in_process("main.py", *flags, "--dry_run").stdout
    assert in_process("main.py", *flags).returncode in (0, 3)
    (path,) = tmp_path.rglob("manifest_translate.json")
    tokens = float(re.search(r"^translate 0 +4 prompts +(\S+)", dry, re.M)[1])  # two digits
    assert tokens == pytest.approx(json.loads(path.read_text())["usage"]["prompt_tokens"], rel=0.05)
