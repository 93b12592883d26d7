"""The LLM judge: what counts as yes and no, its control, and runs over an API that are stopped and go on."""

import json
import re
import shutil

import pytest
from scipy.stats import binomtest

from tests.support.api_server import KEY, ApiServer
from tests.support.runs import in_process, lines_in, records, script
from topxgen.common.errors import UsageError
from topxgen.statistics.judge import PROMPTS, load_prompt, tells_apart, verdict, wilson_interval


@pytest.mark.parametrize(
    "answer, expected",
    [
        ("yes", True), (" No", False), ("Yes.", True), ("**NO**", False), ("\n\nYes, the text discusses it.", True),
        ("<think>It says no word about it. No.</think>\nyes", True), ('"yes"', True), ("No, there is no word about it", False),
        ("", None), ("Maybe yes", None), ("The answer is yes", None), ("yesterday", None), ("not really", None),
        ("yes or no", None), ("Yes/No", None), ("nope", None), ("bai", None), ("<think>yes", None), ("1", None),
    ],
)  # fmt: skip
def test_only_an_answer_that_begins_with_yes_or_no_counts(answer, expected):
    assert verdict(answer) is expected


@pytest.mark.parametrize("yes, count", [(0, 1), (1, 1), (0, 20), (8, 10), (50, 100), (199, 200)])
def test_the_interval_is_wilsons(yes, count):
    expected = binomtest(yes, count).proportion_ci(method="wilson")
    assert wilson_interval(yes, count) == pytest.approx((expected.low, expected.high), abs=2e-5)


def test_a_judge_tells_topics_apart_if_the_intervals_do_not_overlap():
    def counts(yes, no):
        low, high = wilson_interval(yes, yes + no)
        return {"low": low, "high": high}

    none = {"low": None, "high": None}
    assert tells_apart({"on_topic": counts(18, 2), "control": counts(1, 19)})
    assert not tells_apart({"on_topic": counts(20, 0), "control": counts(20, 0)})
    assert not tells_apart({"on_topic": counts(2, 18), "control": counts(1, 19)})
    assert not tells_apart({"on_topic": counts(1, 19), "control": counts(18, 2)})
    assert not tells_apart({"on_topic": none, "control": counts(1, 19)})
    assert not tells_apart({"on_topic": counts(19, 1), "control": none})


def test_prompts_are_a_file_that_users_edit(tmp_path):
    path = tmp_path / "judge.toml"
    for old, new, message in [
        ("{topic}", "topic", "chat: the placeholder {topic} is missing"),
        ('stop = "\\n"', 'stop = ""', "stop is empty"),
        ('stop = "\\n"', "", "has no text 'stop'"),
        ("chat =", "chat", "cannot read"),
        ("in {language}", "in {lang}", "chat: unknown placeholder {lang}; known here: {topic}, {text}, {language}"),
        ("chat =", "chat_ = ''\nchat =", "key 'chat_'"),
    ]:
        text = (PROMPTS / "topic_judge.toml").read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(UsageError) as caught:
            load_prompt(str(path))
        assert message in str(caught.value)


class Judge(ApiServer):
    """Says yes to the paragraphs of a folder with their own topics, but for those about Chess; something else about Basalt."""

    def __init__(self, folder, faults=None, answer=None):
        topics = {record["text"]: record["topic"] for record in records(folder / "Basque.jsonl")}
        self.asked = []

        def respond(message):
            topic = re.search(r"^Topic: (.*)$", message, re.M)[1]
            text = re.search(r"^Text:\n(.*)$", message, re.M)[1]
            self.asked.append((text, topic))
            if answer:
                return answer
            if topic == "Basalt":
                return "Hard to say."
            return "Yes." if topics[text] == topic != "Chess" else "no"

        super().__init__(faults, respond=respond)


def options(server, folder, out, *more) -> list:
    return [
        folder, "--stage", "paragraphs", "--judge_model_name_or_path", "judge-1", "--inference_api", "openai", "--base_url",
        server.url("openai"), "--output_dir", out, "--json", out.parent / "stats.json", "--max_retries", 0, *more,
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def judged(out) -> dict:
    return json.loads((out.parent / "stats.json").read_text())["corpora"][0]["judge"]


def test_shares_of_yes_with_a_control(run_folder, tmp_path):
    out = tmp_path / "judge"
    with Judge(run_folder) as server:
        result = in_process("scripts.data_stats", *options(server, run_folder, out))
    assert result.returncode == 0, result.stderr
    own, control = judged(out)["on_topic"], judged(out)["control"]
    # Of 12 paragraphs two are about Chess (no) and two about Basalt (unreadable).
    assert (own["asked"], own["yes"], own["no"], own["unreadable"]) == (12, 8, 2, 2)
    assert own["share"] == 0.8 and (own["low"], own["high"]) == wilson_interval(8, 10)
    assert control["asked"] == 12 and control["yes"] == 0 and own["unanswered"] == control["unanswered"] == 0
    assert len(server.asked) == len(set(server.asked)) == 24
    assert "on their topic" in result.stdout and "80% (49% to 94%)" in result.stdout and "10 of 12" in result.stdout
    assert "says nothing" not in result.stderr and "judge: 168 prompt tokens" in result.stderr
    assert KEY not in "".join(path.read_text() for path in out.iterdir())


def test_a_judge_that_says_yes_to_everything_is_named(run_folder, tmp_path):
    out = tmp_path / "judge"
    with Judge(run_folder, answer="yes") as server:
        result = in_process("scripts.data_stats", *options(server, run_folder, out))
    assert judged(out)["on_topic"]["share"] == judged(out)["control"]["share"] == 1
    assert result.returncode == 0 and "judge-1 does not say yes more often" in result.stderr


def test_a_sample_and_its_seed(run_folder, tmp_path):
    asked = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        out = tmp_path / name / "judge"
        with Judge(run_folder) as server:
            in_process("scripts.data_stats", *options(server, run_folder, out, "--judge_sample", 5, "--seed", seed))
        assert judged(out)["on_topic"]["asked"] == judged(out)["control"]["asked"] == 5
        asked.append(sorted(server.asked))
    assert asked[0] == asked[1] != asked[2]


def test_a_spent_quota_and_a_kill_lose_nothing_and_pay_nothing_twice(run_folder, tmp_path):
    out, file = tmp_path / "judge", tmp_path / "judge" / "topic_judge_answers.jsonl"
    with Judge(run_folder) as server:
        server.faults = lambda *_: "quota" if server.delivered.total() >= 7 else None
        result = in_process("scripts.data_stats", *options(server, run_folder, out, "--max_concurrent_requests", 1))
        assert result.returncode == 4 and lines_in(file) == 7, result.stderr
        server.faults, server.delay = lambda *_: None, lambda _: 0.05
        command = options(server, run_folder, out, "--max_concurrent_requests", 2)
        script("scripts/data_stats.py", *command, killed_at=(file, 12))
        server.settle()
        saved, sent = lines_in(file), server.delivered.total()
        assert 12 <= saved < 24 and sent <= saved + 2, "at most those in flight are lost"
        result = in_process("scripts.data_stats", *command)
        assert result.returncode == 0 and lines_in(file) == 24 and server.delivered.total() == sent + 24 - saved
        whole = judged(out)
        assert in_process("scripts.data_stats", *command).returncode == 0
        assert server.delivered.total() == sent + 24 - saved and judged(out) == whole and whole["on_topic"]["yes"] == 8


def test_requests_without_an_answer_are_sent_again(run_folder, tmp_path):
    out = tmp_path / "judge"
    refused = (400, "context_length_exceeded", "This model's maximum context length is 512 tokens.")
    with Judge(run_folder) as server:
        server.faults = lambda *_: refused if server.delivered.total() == 3 and not server.injected else None
        command = options(server, run_folder, out, "--max_concurrent_requests", 1)
        result = in_process("scripts.data_stats", *command)
        assert result.returncode == 3 and "1 requests to the judge got no response" in result.stderr, result.stderr
        assert judged(out)["on_topic"]["unanswered"] + judged(out)["control"]["unanswered"] == 1
        assert in_process("scripts.data_stats", *command).returncode == 0
    assert server.delivered.total() == 24


def test_the_budget_ends_it(run_folder, tmp_path):
    out = tmp_path / "judge"
    with Judge(run_folder) as server:
        money = ["--prices", 0, 1, "--budget", 0.00003, "--max_concurrent_requests", 1]
        result = in_process("scripts.data_stats", *options(server, run_folder, out, *money))
    assert result.returncode == 4 and "--budget 3e-05" in result.stderr and 0 < server.delivered.total() < 24


def test_native_text_has_no_topics_to_judge(run_folder, tmp_path):
    out = tmp_path / "judge"
    with Judge(run_folder) as server:
        command = ["udhr", *options(server, run_folder, out, "--languages", "Basque")]
        result = in_process("scripts.data_stats", *command)
        alone = in_process("scripts.data_stats", command[0], *command[2:])
    corpora = json.loads((tmp_path / "stats.json").read_text())["corpora"]
    assert result.returncode == 0 and corpora[0]["judge"] is None and corpora[1]["judge"], result.stderr
    assert "no paragraph has a topic" in alone.stderr and alone.returncode == 2


def test_a_small_base_model_continues_the_prompt(run_folder, tmp_path, tiny_lm):
    """It writes anything but yes and no: that is counted, and no share is made up."""
    out = tmp_path / "judge"
    model = shutil.copytree(tiny_lm, tmp_path / "model")
    command = [run_folder, "--stage", "paragraphs", "--judge_model_name_or_path", model, "--inference_api", "hf"]
    command += ["--output_dir", out, "--json", tmp_path / "stats.json", "--judge_sample", 3, "--max_new_tokens", 4]
    result = in_process("scripts.data_stats", *command)
    assert result.returncode == 0, result.stderr
    own = judged(out)["on_topic"]
    assert own["asked"] == 3 == own["yes"] + own["no"] + own["unreadable"] and own["unanswered"] == 0
    assert own["share"] is None or own["unreadable"] < 3
    before = (out / "topic_judge_answers.jsonl").read_bytes()
    assert in_process("scripts.data_stats", *command).returncode == 0
    assert (out / "topic_judge_answers.jsonl").read_bytes() == before
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1  # trained again: another judge
    weights.write_bytes(data)
    assert in_process("scripts.data_stats", *command).returncode == 0
    assert lines_in(out / "topic_judge_answers.jsonl") == 2 * len(before.splitlines())


def test_the_prompt_of_base_models_ends_where_they_answer():
    parts = load_prompt("topic_judge")
    assert parts["completion"].endswith(":") and not parts["chat"].endswith("\n")
