"""GEMBA: what counts as an answer, and comptra.evaluate with a judge behind a local server and with Gemma 3 270M."""

import json
import re
import shutil

import pytest

from comptra.scores import gemba, metrics
from comptra.scores.gemba import WEIGHTS, read_errors, read_score, weighted
from comptra.scores.metrics import METRICS, MetricSettings
from tests.support.api_server import KEY, ApiServer
from tests.support.evaluations import RUN, original, udhr, worse, write
from tests.support.runs import in_process, records, script
from tests.support.tiny_lm import give_chat_template
from topxgen.common.errors import UsageError
from topxgen.inference import ModelSettings
from topxgen.inference.costs import Meter
from topxgen.prompting.style import style_and_template
from topxgen.statistics import judge as topic_judge


@pytest.mark.parametrize(
    "answer, expected",
    [
        ("85", 85), ("0", 0), ("100", 100), ("72.5", 72.5), (" 85.\n", 85), ("Score: 85", 85), ("**85**", 85), ("Rating: **85**", 85),
        ("85/100", 85), ("85 out of 100", 85), ("85%", 85), ("Final score: 85", 85), ("85\n\nThe translation is fluent.", 85),
        ("<think>Perhaps 40, or 50.</think>\n85", 85), ("Thinking 3.</think>85", 85),
        ("", None), ("101", None), ("-5", None), ("1000", None), ("85 90", None), ("85 to 90", None), ("85\n90", None), ("85\nOut of 10: 8", None),
        ("I cannot rate 1 of these.", None), ("The score is 85", None), ("eighty", None), ("8,5", None), ("85/10", None), ("nan", None),
        ("I'm sorry, but I can't help with that.", None), ("<think>85", None), ("Good.\n85", None),
    ],
)  # fmt: skip
def test_only_a_number_from_0_to_100_is_a_score(answer, expected):
    assert read_score(answer) == expected


MQM = 'Critical:\nnone\nMajor:\n- accuracy/mistranslation: "a"\n- accuracy/omission: "b"\nMinor:\n- style: "c"'


@pytest.mark.parametrize(
    "answer, expected",
    [
        (MQM, -11), ("Critical: none\nMajor: none\nMinor: none", 0), ("critical:\nno-error\nmajor:\nNo errors.\nminor:\n- none", 0),
        ("<think>Critical:\n- all</think>" + MQM, -11), (MQM.replace("Major:", "**Major:**").replace("- ", "* "), -11),
        (MQM.replace("none", '- accuracy: "x"'), -25), ("Critical: none\nMajor:\n" + "- x\n" * 4 + "Minor:\n1. y\n2) z", -22),
        ("Minor: none\nMajor: none\nCritical:\n- x", -25), ("## Critical errors: none\n\nMajor:\n\nnone\n\nMinor:\n- x\n", -1),
        ("", None), ("The translation is perfect.", None), ("Critical: none\nMajor: none", None), (MQM + "\nMajor: none", None),
        ("Here they are:\n" + MQM, None), (MQM + "\nOverall it is good.", None), (MQM.replace("none", ""), None),
        (MQM.replace("none", "none\n- x"), None), (MQM.replace("- style", "style"), None), ("Critical:\n-\nMajor: none\nMinor: none", None),
        ("I can't assist with that.", None), ("<think>" + MQM, None),
    ],
)  # fmt: skip
def test_errors_count_if_the_answer_has_the_form(answer, expected):
    errors = read_errors(answer, severities=tuple(WEIGHTS))
    assert (None if errors is None else weighted(errors)) == expected
    assert errors is None or read_errors(answer, severities=("major", "minor")) is None, "not the form of ESA"


def test_the_range_of_weighted_errors_is_the_one_that_is_published():
    """Every Eval Ever states it, and differences are read as parts of it."""
    worst, none = ({name: ["an error"] * count for name in WEIGHTS} for count in (9, 0))
    metric = METRICS["gemba-mqm"]
    assert (weighted(worst), weighted(none)) == (metric.low, metric.high) == (-25, 0)


def test_answers_that_are_cut_at_the_limit_of_tokens_are_no_scores(systems, tmp_path):
    """Digits and errors may be missing: "8" of 85, a list that would go on. A number on a line of its own is whole."""

    def respond(prompt):
        i = systems.index(translation_in(prompt))
        return MQM if "Critical:" in prompt else ("8", "85\nFluent, but", "<think>Perhaps 9")[i % 3]

    def cut(name, body):
        body["choices"][0]["finish_reason"] = "length"
        return body, None

    with ApiServer(respond=respond, edit=cut) as server:
        _, rows, said = judged(server, tmp_path, "--judge_max_new_tokens", 7, metrics=("gemba-da", "gemba-mqm"))
    assert [row["gemba-da"] for row in rows] == [85 if i % 3 == 1 else None for i in range(len(rows))]
    assert all(row["gemba-mqm"] is None for row in rows)
    assert f"; {len(rows)} of them are cut at --judge_max_new_tokens 7" in said


def judged(server, tmp_path, *more, code=0, metrics=("gemba-da",)):
    """comptra.evaluate with a judge behind `server`: the report, and the rows of --segments."""
    run = in_process(
        *("comptra.evaluate", tmp_path / "runs", "--dataset_name_or_path", "udhr", "--metrics", "chrf", *metrics),
        *(
            "--judge_model_name_or_path",
            "judge-1",
            "--judge_inference_api",
            "openai",
            "--judge_base_url",
            server.url("openai"),
        ),
        *("--cache_dir", tmp_path / "cache", "--json", tmp_path / "r.json", "--segments", tmp_path / "s.jsonl", *more),
    )
    assert run.returncode == code, run.stderr
    return json.loads((tmp_path / "r.json").read_text()), records(tmp_path / "s.jsonl"), run.stderr


def translation_in(prompt: str) -> str:
    return re.search(r"^Basque translation(?: to rate)?: (.*)$", prompt, re.M)[1]


@pytest.fixture
def systems(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    texts = worse(udhr().references, 0.3)
    original(tmp_path / "runs", "a", texts)
    return texts


def test_answers_are_scores_and_are_asked_for_once(systems, tmp_path):
    scripted = ["70", "<think>It may be 20.</think>Score: 80", "200", "50 or 60", "I'm sorry, I can't.", ""]
    answers = {text: scripted[i] if i < len(scripted) else "90" for i, text in enumerate(systems)}
    with ApiServer(respond=lambda prompt: answers[translation_in(prompt)]) as server:
        report, rows, said = judged(server, tmp_path)
        assert [row["gemba-da"] for row in rows] == [70, 80, None, None, None, None] + [90] * (len(rows) - 6)
        row = report["groups"][0]["systems"][0]["scores"]["gemba-da"]
        assert row["segments"] == len(rows) - 4
        assert row["score"] == pytest.approx((70 + 80 + 90 * (len(rows) - 6)) / (len(rows) - 4))
        assert f"3 of {len(rows) - 1} answers are not in the requested form" in said
        assert "1 requests got no response" in said, "the empty one"
        signature = report["groups"][0]["signatures"]["gemba-da"]
        assert re.fullmatch(r"GEMBA-DA\|judge:judge-1\|api:openai\|style:chat\|tokens:1024\|prompts:\w{8}", signature)
        # The prompt has all that the metric reads, and is decoded greedily.
        body, test = server.bodies[0], udhr()
        prompt = body["messages"][-1]["content"]
        i = systems.index(translation_in(prompt))
        assert test.sources[i] in prompt and test.references[i] in prompt and "{" not in prompt
        assert body["temperature"] == 0
        # Only what got no answer is asked again, also if the scores are lost; and no key is on the disk.
        asked = len(server.arrivals)
        assert asked == len(set(systems))
        assert judged(server, tmp_path)[1] == rows and len(server.arrivals) == asked + 1
        shutil.rmtree(tmp_path / "cache" / "gemba-da")
        assert judged(server, tmp_path)[1] == rows and len(server.arrivals) == asked + 2
        assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        # Another length of answers is another metric.
        judged(server, tmp_path, "--judge_max_new_tokens", 64)
        assert len(server.arrivals) == 2 * asked + 2


def test_errors_and_scores_of_two_requests(systems, tmp_path):
    def respond(prompt):
        if "Answer with the number only" in prompt:
            assert ("major: " in prompt) != ("Errors:\nnone" in prompt)
            return "40" if "major: " in prompt else "95"
        i = systems.index(translation_in(prompt))
        if "the two headings" in prompt:
            return "sorry" if i == 2 else 'Major:\n- "x"\nMinor: none' if i % 2 else "Major: none\nMinor: none"
        return "no" if i == 2 else MQM if i % 2 else "Critical: none\nMajor: none\nMinor:\n- style: x"

    with ApiServer(respond=respond) as server:
        report, rows, said = judged(server, tmp_path, metrics=("gemba-mqm", "gemba-esa"))
        prompts = [body["messages"][-1]["content"] for body in server.bodies]
    assert [row["gemba-mqm"] for row in rows] == [None if i == 2 else -11 if i % 2 else -1 for i in range(len(rows))]
    assert [row["gemba-esa"] for row in rows] == [None if i == 2 else 40 if i % 2 else 95 for i in range(len(rows))]
    assert len(prompts) == 3 * len(rows) - 1, "no score is asked for where the errors cannot be read"
    assert not any(udhr().references[0] in prompt for prompt in prompts), "without references"
    assert "gemba-mqm: 1 of" in said and "gemba-esa: 1 of" in said
    assert report["groups"][0]["metrics"]["gemba-mqm"]["low"] == -25


@pytest.mark.medium
def test_a_killed_run_pays_for_no_answer_twice(systems, tmp_path):
    command = (
        *("-m", "comptra.evaluate", tmp_path / "runs", "--dataset_name_or_path", "udhr", "--metrics", "gemba-da"),
        *(
            "--judge_model_name_or_path",
            "judge-1",
            "--judge_inference_api",
            "openai",
            "--cache_dir",
            tmp_path / "cache",
        ),
        *("--judge_max_concurrent_requests", 1, "--segments", tmp_path / "s.jsonl"),
    )
    with ApiServer(respond=lambda prompt: str(len(translation_in(prompt)) % 100), delay=0.02) as server:
        command = (*command, "--judge_base_url", server.url("openai"))
        script(*command, killed_at=(tmp_path / "cache" / "answers" / "**" / "*.jsonl", 5))
        server.settle()
        assert 5 <= len(server.arrivals) < len(systems)
        script(*command)
        assert len(server.arrivals) <= len(systems) + 1, "at most the one in flight is asked for again"
    assert [row["gemba-da"] for row in records(tmp_path / "s.jsonl")] == [len(text) % 100 for text in systems]


def test_the_budget_ends_it(systems, tmp_path):
    with ApiServer(respond=lambda prompt: "50") as server:
        # Each answer costs 5 tokens at a dollar.
        money = ("--judge_prices", 0, 1e6, "--judge_budget", 26, "--judge_max_concurrent_requests", 1)
        report, _, said = judged(server, tmp_path, *money, code=3)
        assert "could exceed --judge_budget 26" in report["failed_metrics"]["gemba-da"] and len(server.arrivals) == 5
        assert "with a larger --judge_budget" in report["failed_metrics"]["gemba-da"]
        assert report["groups"][0]["systems"][0]["scores"]["gemba-da"] is None
        money = ("--judge_prices", 0, 1e6, "--judge_budget", 5 * len(systems))
        report, _, said = judged(server, tmp_path, *money)
        assert report["groups"][0]["systems"][0]["scores"]["gemba-da"]["score"] == 50
        assert len(server.arrivals) == len(systems) and f"{5 * len(systems):.2f} USD" in said


@pytest.mark.parametrize(
    "flags, says",
    [
        (("--metrics", "gemba-mqm"), "--metrics gemba-mqm needs --judge_model_name_or_path"),
        (("--judge_model_name_or_path", "x"), "--judge_model_name_or_path has no effect without --metrics gemba-da, gemba-mqm or"),
        (
            ("--metrics", "gemba-da", "--judge_model_name_or_path", "x", "--judge_inference_api", "openai"),
            r"--judge_inference_api openai needs a key: export OPENAI_API_KEY=",
        ),
        (
            ("--metrics", "gemba-da", "--judge_model_name_or_path", "/none", "--judge_inference_api", "hf", "--judge_base_url", "http://x"),
            "--judge_base_url has no effect without --judge_inference_api openai",
        ),
        (("--metrics", "gemba-da", "--judge_model_name_or_path", "/none", "--judge_inference_api", "hf"), "/none"),
    ],
)  # fmt: skip
def test_what_a_judge_lacks(flags, says, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    original(tmp_path / "runs", "a")
    run = in_process("comptra.evaluate", tmp_path / "runs", "--dataset_name_or_path", "udhr", *flags)
    assert run.returncode == 2 and re.search(says, run.stderr), run.stderr
    assert "--api_key" not in run.stderr


def test_prompts_are_files_that_users_edit(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    shutil.copytree(gemba.PROMPTS, tmp_path / "metrics")
    monkeypatch.setattr(gemba, "PROMPTS", tmp_path / "metrics")
    judge = metrics.JudgeSettings(ModelSettings("m"), "openai")
    make = lambda name: METRICS[name].load()(MetricSettings(judge=judge, cache_dir=tmp_path))  # noqa: E731
    before = {name: make(name).fingerprint for name in ("gemba-da", "gemba-mqm", "gemba-esa")}
    path = tmp_path / "metrics" / "gemba_mqm.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("by the MQM scheme", "by MQM"), encoding="utf-8")
    after = {name: make(name).fingerprint for name in before}
    assert [name for name in before if before[name] != after[name]] == ["gemba-mqm"]
    for old, new, says in (
        ("{translation}", "translation", "the placeholder {translation} is missing"),
        ("{tgt} translation", "{reference} {tgt} translation", "gemba-mqm is given no reference"),
        ('stop = "\\n\\n"', 'stop = ""', "stop is empty"),
    ):
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(UsageError, match=re.escape(says)):
            make("gemba-mqm")


def test_another_chat_template_is_another_judge(tiny_lm, tmp_path):
    """Of the metric, and of data_stats.py."""
    model = ModelSettings(str(shutil.copytree(tiny_lm, tmp_path / "judge")))
    give_chat_template(model.model_name_or_path)
    judge = metrics.JudgeSettings(model, "hf")
    prompt = topic_judge.load_prompt("topic_judge")

    def identities() -> list:
        metric = METRICS["gemba-da"].load()(MetricSettings(judge=judge, cache_dir=tmp_path))
        asked = style_and_template("chat", "hf", model)
        own = topic_judge.TopicJudge("hf", model, *asked, prompt, 5, 5, 1, tmp_path, Meter(None))
        own.close()
        return [metric.fingerprint, metric.signature, own.question.key]

    before = identities()
    template = tmp_path / "judge" / "chat_template.jinja"
    template.write_text(template.read_text().replace("[assistant]", "[model]"))
    assert not any(old == new for old, new in zip(before, identities(), strict=True))


@pytest.mark.slow
def test_a_small_base_model_is_mostly_unreadable_and_that_is_said(gemma, tmp_path):
    test = udhr()
    count = 5
    write(
        tmp_path / "runs" / RUN.format("English", "Basque"), test.sources[:count], worse(test.references[:count], 0.3)
    )
    names = ("gemba-da", "gemba-mqm", "gemba-esa")
    run = script(
        *("-m", "comptra.evaluate", tmp_path / "runs", "--dataset_name_or_path", "udhr", "--metrics", *names),
        *("--judge_model_name_or_path", gemma, "--judge_inference_api", "hf", "--judge_max_new_tokens", 16),
        *("--judge_request_batch_size", 5, "--judge_dtype", "bfloat16", "--allow_partial"),
        *("--cache_dir", tmp_path / "cache", "--json", tmp_path / "r.json"),
        check=None,
    )
    assert run.returncode in (0, 3), run.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    for name in names:
        scores = report["groups"][0]["systems"][0]["scores"][name]
        unread = re.search(rf"{name}: (\d+) of (\d+) answers are not in the requested form", run.stderr)
        assert unread, run.stderr
        if name != "gemba-esa":
            assert int(unread[2]) == count
            assert (scores["segments"] if scores else 0) == int(unread[2]) - int(unread[1])
        assert not scores or scores["score"] is None or METRICS[name].low <= scores["score"] <= METRICS[name].high
