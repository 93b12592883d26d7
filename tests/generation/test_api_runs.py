"""datagen.py over an API, generation and back-translation: what a spent quota and a kill leave, and what it costs."""

import hashlib
import random
import re
from collections import Counter

import pytest

from tests.support import api_server
from tests.support.api_server import KEY, ApiServer
from tests.support.runs import TOPICS, datagen, lines_in, records
from tests.support.tiny_models import udhr_texts

BASQUE = udhr_texts("Basque")
ENGLISH = udhr_texts("English")


def digest(body: dict) -> str:
    return hashlib.sha256(body["messages"][-1]["content"].encode()).hexdigest()


class Writer(ApiServer):
    """Writes two Basque paragraphs about a topic, and translates into English whatever it is asked to. Counts the
    whole answers it gave to each prompt; says that the quota is spent after `quota` of them."""

    def __init__(self, quota: int | None = None, delay: float = 0.01):
        super().__init__(lambda *_: "quota" if quota is not None and self.given.total() >= quota else None, delay=delay)
        self.given = Counter()

    async def _reply(self, writer, path, body, *rest):
        before = self.delivered.total()
        went_on = await super()._reply(writer, path, body, *rest)
        self.given[digest(body)] += self.delivered.total() > before
        return went_on


def answer(path: str, body: dict, _) -> dict:
    rng = random.Random(digest(body))
    if "Translate this sentence" in body["messages"][-1]["content"]:
        text = rng.choice(ENGLISH).rstrip(".;,") + "."
    else:
        text = "\n".join(f"{i}. " + " ".join(rng.sample(BASQUE, 3)) for i in (1, 2))
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {"id": "x", "object": "o", "created": 1, "model": body["model"], "choices": [choice], "usage": usage}


@pytest.fixture(autouse=True)
def answers(monkeypatch):
    monkeypatch.setattr(api_server, "answer", answer)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def command(server, folder, *more):
    return (
        "--inference_api", "openai", "--base_url", server.url("openai"), "--model_name_or_path", "writer-1",
        "--languages", "Basque", "--seed_topics_path", TOPICS, "--output_dir", folder, "--example_paragraphs", "udhr",
        "--example_sentences", "udhr", "--number_of_icl_demonstrations", 1, "--number_of_icl_phrases", 2,
        "--number_of_instructions", 40, "--demonstration_pool", "udhr", "--scorer", "none", "--max_concurrent_requests", 6,
        "--price_per_million_tokens", 2, 10, *more,
    )  # fmt: skip


def test_a_spent_quota_and_a_kill_lose_nothing_and_pay_nothing_twice(tmp_path):
    paid = Counter()
    answers, translated = tmp_path / "Basque_answers.jsonl", tmp_path / "writer-1" / "Basque_translate_answers.jsonl"

    # Generation, until the quota is spent.
    with Writer(quota=9) as server:
        result = datagen(*command(server, tmp_path), check=4)
        paid += server.given
    assert "quota or credit" in result.stderr and "re-run the same command to resume" in result.stderr
    assert "Traceback" not in result.stderr
    assert lines_in(answers) == paid.total() == 9

    # Again, killed while it back-translates.
    with Writer(delay=0.05) as server:
        datagen(*command(server, tmp_path), kill_when=lambda: lines_in(translated) >= 10)
        paid += server.given
        in_flight_at_the_kill = server.given.total() + 9 - lines_in(answers) - lines_in(translated)
    assert lines_in(tmp_path / "Basque.jsonl") == 40 and 0 <= in_flight_at_the_kill <= 6
    on_disk = lines_in(translated)

    # And to its end.
    with Writer() as server:
        result = datagen(*command(server, tmp_path))
        paid += server.given
        headers = server.headers
    assert all(header["authorization"] == f"Bearer {KEY}" for header in headers)
    assert lines_in(translated) > on_disk
    assert paid.total() - len(paid) <= in_flight_at_the_kill, "only what was on its way at the kill may be asked again"
    ids = [record["id"] for record in records(translated)]
    assert len(ids) == len(set(ids))
    sentences = [
        s for record in records(tmp_path / "writer-1" / "Basque_translate.jsonl") for s in record["propositions"]
    ]
    assert len(sentences) > 30
    written, shown = lines_in(answers), result.stdout
    assert (
        f"generate: {100 * written:,} prompt tokens, {50 * written:,} answer tokens; {written * 0.0007:,.2f} USD"
        in shown
    )
    assert f"translate: {100 * len(ids):,} prompt tokens" in shown
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY not in path.read_text(encoding="utf-8"), path


def test_a_budget_ends_the_run_cleanly_and_counts_what_earlier_runs_spent(tmp_path):
    """Every response costs 100 * 2 + 50 * 10 = 700 USD a million: 0.0007 each, in generation and back-translation alike."""
    answers, translated = tmp_path / "Basque_answers.jsonl", tmp_path / "writer-1" / "Basque_translate_answers.jsonl"
    served = Counter()

    def run(budget, check):
        with Writer() as server:
            result = datagen(*command(server, tmp_path, "--budget", budget), check=check)
            served.update(server.given)
        return result, lines_in(answers) + lines_in(translated)

    _, first = run(0.0050, 4)
    assert first == 7 == served.total(), "an eighth response would cost more than the budget"
    result, again = run(0.0050, 4)
    assert again == 7 and "0.0049 USD are spent on the 7 responses of this folder (0 in this run)" in result.stderr
    result, second = run(0.0200, 4)  # generation ends, back-translation begins
    assert second == 28 and lines_in(translated) and "resume" in result.stderr and "Traceback" not in result.stderr
    result, last = run(1, 0)
    assert served.total() == len(served), "nothing was paid for twice"
    assert last <= served.total() <= last + 6, "those in flight when the target is reached are dropped"
    assert f"{lines_in(answers) * 0.0007:.2f} USD" in result.stdout and re.search(r"translate: .*\d USD", result.stderr)
    assert lines_in(tmp_path / "Basque.jsonl") == 40


def test_a_refused_key_ends_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-key-000000")
    with Writer() as server:
        result = datagen(*command(server, tmp_path), check=4)
    assert "rejected the API key" in result.stderr and "sk-wrong-key-000000" not in result.stdout + result.stderr
    assert len(server.arrivals) <= 6


def test_an_adapter_is_not_left_out_silently(tmp_path, script_here):
    """An API would answer without it, and its name would be on record as used."""
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    with Writer() as server:
        for adapter in ("--adapter_name_or_path", "--model_name_or_path"):
            for stages in (("generate",), ("translate",)):
                flags = command(server, tmp_path / "out", adapter, tmp_path / "lora", "--stages", *stages)
                result = script_here("datagen.py", *flags)
                assert (
                    result.returncode == 2 and "is a LoRA adapter, which --inference_api openai cannot" in result.stderr
                )
    assert not server.arrivals and not list(tmp_path.glob("out/**/settings_*.json"))
