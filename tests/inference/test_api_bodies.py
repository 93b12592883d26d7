"""What servers may answer with status 200: other types, thoughts, filters, limits, huge bodies, redirects."""

import copy
import gzip
import json
import random
from collections import Counter

import pytest

from tests.comptra.test_chat import folder_of, options
from tests.support.api_runs import chats, load, run
from tests.support.api_server import KEY, ApiServer
from tests.support.runs import in_process, records
from topxgen import inference, translation
from topxgen.common.errors import APIUnavailable, UsageError
from topxgen.inference import REMOTE, ModelSettings, Request, SamplingSettings, http
from topxgen.inference.response_cache import CachedSampler, read_responses
from topxgen.text import languages
from topxgen.text.thoughts import without_thoughts
from topxgen.translation import TranslatorSettings

ODD = (
    None,
    True,
    0,
    -1,
    3.5,
    1e300,
    "",
    "7",
    [],
    {},
    [[]],
    ["x"],
    {"type": "text"},
    [{"type": "text", "text": 3}],
    "\ud800",
)
PLACES = {
    "openai": (("choices", 0, "message"), ("choices", 0), ("choices",), ("usage",), ()),
    "anthropic": (("content", 0), ("content", 1), ("content",), ("usage",), ()),
    "cohere": (("message", "content", 0), ("message",), ("usage", "tokens"), ("usage",), ()),
}


def malformed(api: str, body: dict, rng: random.Random) -> tuple[object, dict | None]:
    """`body` with another type in one or two of its fields, or without them, or something else altogether."""
    if rng.random() < 0.15:
        deep = "[" * 100_000 + "]" * 100_000
        return rng.choice([b"", b"null", b"[]", b"7", b'"x"', b"\xff\xfe", deep.encode(), b"<html>"]), None
    body = copy.deepcopy(body)
    for _ in range(rng.choice((1, 1, 2))):
        inner = body
        try:
            for key in rng.choice(PLACES[api]):
                inner = inner[key]
            key = rng.choice(sorted(inner) if isinstance(inner, dict) else range(len(inner)))
            inner[key] = rng.choice(ODD)
            if rng.random() < 0.2 and isinstance(inner, dict):
                del inner[key]
        except (LookupError, TypeError):
            continue
    return body, None


@pytest.mark.parametrize("api", REMOTE)
def test_malformed_bodies_poison_nothing(api, tmp_path):
    """The first answers to each prompt are malformed, the later ones good: every prompt has its text in the end."""
    rng, attempts = random.Random(f"bodies {api}"), Counter()

    def edit(name, body):
        attempts[name] += 1
        return malformed(api, body, rng) if attempts[name] <= 2 else (body, None)

    with ApiServer(edit=edit) as server:
        for _ in range(4):
            sampler = load(api, server, max_concurrent_requests=16)
            cached = CachedSampler(sampler, tmp_path / "answers.jsonl")
            waiting = iter(chats(60))
            answers = {
                a.id: a for a in cached.generate(lambda waiting=waiting: next(waiting, None), SamplingSettings())
            }
            cached.close()
            list(read_responses(tmp_path / "answers.jsonl"))
    assert len(answers) == 60 and attempts.total() > 80
    for answer in answers.values():
        [text] = answer.texts
        assert isinstance(text, str) and text.strip() and answer.error is None


def content(api: str, body: dict, value) -> dict:
    inner = {
        "openai": lambda: body["choices"][0]["message"],
        "cohere": lambda: body["message"],
        "anthropic": lambda: body,
    }
    inner[api]()["content"] = value
    return body


@pytest.mark.parametrize("api", REMOTE)
@pytest.mark.parametrize(
    "value, text",
    [
        ([{"type": "text", "text": "Kai"}, {"type": "text", "text": "xo."}], "Kaixo."),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Kaixo."}], "Kaixo."),
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Kaixo."}],
            "Kaixo.",
        ),
        ([], None),
        (None, None),
        ([{"type": "text", "text": " "}], None),
    ],
)
def test_lists_of_parts_and_empty_answers(api, value, text):
    """Mistral's reasoning models answer OpenAI's API in parts. An empty answer is an error: the next run asks again."""
    with ApiServer(edit=lambda name, body: (content(api, body, value), None)) as server:
        [answer], ending, _ = run(api, server, chats(1), max_retries=0)
    if text is None and api == "anthropic" and value is None:
        return  # its client cannot read that
    assert ending is None and answer.texts == ([] if text is None else [text])
    assert (answer.error or "").endswith("" if text else "an empty answer")


@pytest.mark.parametrize(
    "reason",
    [
        "SAFETY",
        "content_filter: RECITATION",
        "content-filter",
        "sensitive",
        "guardrail_intervened",
        "blocked",
        "ERROR_TOXIC",
    ],
)
def test_other_servers_filters(reason):
    with ApiServer(edit=lambda name, body: (ended("openai", body, reason), None)) as server:
        [answer], ending, _ = run("openai", server, chats(1), max_retries=0)
    assert ending is None and answer.texts == [] and answer.error.endswith("gave no text: content filter")


def test_an_error_with_status_200_is_shown():
    with ApiServer(edit=lambda name, body: ({"error": {"message": "no GPU is free", "code": 503}}, None)) as server:
        answers, ending, _ = run("openai", server, chats(1), max_retries=0)
    assert answers == [] and "no GPU is free" in str(ending)


def test_more_choices_than_asked_for():
    with ApiServer(edit=lambda name, body: ({**body, "choices": 3 * body["choices"]}, None)) as server:
        [answer], _, _ = run("openai", server, chats(1), max_retries=0)
    assert answer.texts == ["answer to p0 please"]


def test_a_server_that_ignores_n_ends_the_run():
    """As Ollama's: a selection would have one candidate."""
    with ApiServer(edit=lambda name, body: ({**body, "choices": body["choices"][:1]}, None)) as server:
        answers, ending, _ = run("openai", server, chats(6), SamplingSettings(num_return_sequences=4))
    assert answers == [] and "ignores n: it gave 1 of 4 responses to a prompt" in str(ending)


OTHER_REASONS = [
    (reason, []) for reason in ("error", "abort", "network_error", "insufficient_system_resource", "cancelled")
]
OTHER_REASONS += [
    (reason, ["answer to p0 please"]) for reason in ("model_length", "TOKEN_LIMIT", "max_output_tokens", "limit")
]


@pytest.mark.parametrize("reason, texts", OTHER_REASONS)
def test_other_servers_reasons(reason, texts):
    with ApiServer(edit=lambda name, body: (ended("openai", body, reason), None)) as server:
        answers, ending, _ = run("openai", server, chats(1), max_retries=0)
    assert [text for answer in answers for text in answer.texts] == texts and bool(ending) != bool(texts)
    assert not texts or answers[0].finish_reasons == ("length",)


@pytest.mark.parametrize("api", REMOTE)
def test_unknown_reasons_are_reported_and_counted(api, caplog):
    known = [
        "stop",
        "STOP",
        "eos",
        "eos_token",
        "end_turn",
        "stop_sequence",
        "COMPLETE",
        "FINISH_REASON_STOP",
        "normal",
        "length",
    ]
    reasons = dict(enumerate([*known, "time_limit", "not_finished", "time_limit"]))
    edit = lambda name, body: (ended(api, body, reasons[int(name[1:])]), None)  # noqa: E731
    with ApiServer(edit=edit) as server:
        answers, ending, _ = run(api, server, chats(len(reasons)), max_retries=0)
    assert ending is None and all(answer.texts and answer.finish_reasons for answer in answers)
    warnings = [record.getMessage() for record in caplog.records if "unknown" in record.getMessage()]
    assert [
        sum(f"finish_reason {reason!r}" in text for text in warnings) for reason in ("time_limit", "not_finished")
    ] == [2, 2]
    assert (
        "2 responses with the unknown finish_reason 'time_limit' count as complete" in warnings and len(warnings) == 4
    )


def test_a_proxy_that_cannot_be_used_is_named(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "foo://127.0.0.1:1")
    with pytest.raises(UsageError, match=r"a proxy of the environment .*all.* cannot be used .*foo"):
        inference.load("openai", ModelSettings("m", base_url="http://127.0.0.1:9/v1", api_key=KEY))


def test_a_completion_that_is_null_is_no_answer():
    """Unlike one that is empty, as a base model may give."""
    for text, texts in ((None, []), ("", [""])):
        edit = lambda name, body, text=text: (body["choices"][0].update(text=text) or body, None)  # noqa: E731
        with ApiServer(edit=edit) as server:
            [answer], ending, _ = run("openai", server, [Request("p0", "p0 please", 0)], max_retries=0)
        assert ending is None and answer.texts == texts and bool(answer.error) != bool(texts)


@pytest.mark.parametrize(
    "api, reason",
    [
        *(("openai", reason) for reason in ("tool_calls", "function_call", "pause_turn")),
        *(("anthropic", reason) for reason in ("tool_use", "pause_turn")),
        ("cohere", "TOOL_CALL"),
    ],
)
def test_the_text_before_a_call_is_no_answer(api, reason):
    with ApiServer(edit=lambda name, body: (ended(api, body, reason), None)) as server:
        [answer], ending, _ = run(api, server, chats(1), max_retries=0)
    assert ending is None and answer.texts == [] and reason in answer.error


def test_a_refusal_beside_a_text():
    def edit(_, body):
        body["choices"][0]["message"]["refusal"] = "I cannot help with that."
        return body, None

    with ApiServer(edit=edit) as server:
        [answer], ending, _ = run("openai", server, chats(1), max_retries=0)
    assert ending is None and answer.texts == [] and answer.error.endswith("I cannot help with that.")


@pytest.mark.parametrize(
    "reason, texts, reasons", [("ERROR_LIMIT", ["answer to p0 please"], ("length",)), ("USER_CANCEL", [], ())]
)
def test_coheres_limit_of_the_context_and_its_cancelled_answers(reason, texts, reasons):
    with ApiServer(edit=lambda name, body: (ended("cohere", body, reason), None)) as server:
        answers, ending, _ = run("cohere", server, chats(1), max_retries=0)
    assert [(answer.texts, answer.finish_reasons) for answer in answers] == [(texts, reasons)] * bool(texts)
    assert bool(ending) != bool(texts)


FILTERED = {"openai": "content_filter", "anthropic": "refusal", "cohere": "ERROR_TOXIC"}
CUT = {"openai": "length", "anthropic": "max_tokens", "cohere": "MAX_TOKENS"}


def ended(api: str, body: dict, reason: str) -> dict:
    inner = body["choices"][0] if api == "openai" else body
    inner["stop_reason" if api == "anthropic" else "finish_reason"] = reason
    return body


@pytest.mark.parametrize("api", REMOTE)
def test_filtered_and_cut_answers_are_marked(api, tmp_path):
    reasons = {"p0": FILTERED[api], "p1": CUT[api]}
    edit = lambda name, body: (ended(api, body, reasons[name]) if name in reasons else body, None)  # noqa: E731
    with ApiServer(edit=edit) as server:
        cached = CachedSampler(load(api, server), tmp_path / "answers.jsonl")
        waiting = iter(chats(3))
        found = {a.id: a for a in cached.generate(lambda: next(waiting, None), SamplingSettings(max_new_tokens=5))}
        assert found["p0"].texts == [] and found["p0"].error
        assert found["p1"].texts == ["answer to p1 please"] and found["p1"].finish_reasons == ("length",)
        assert "length" not in found["p2"].finish_reasons and cached.cut == {5: 1}
        cached.close()
        by_id = {record["id"]: record for record in records(tmp_path / "answers.jsonl")}
        assert by_id["p1"]["finish_reasons"] == ["length"] and by_id["p0"]["error"]
        again = CachedSampler(load(api, server), tmp_path / "answers.jsonl")
        assert again.cut == {5: 1}
        waiting = iter(chats(3))
        list(again.generate(lambda: next(waiting, None), SamplingSettings(max_new_tokens=5)))
        again.close()
    assert server.attempts == {"p0": 2, "p1": 1, "p2": 1}, "what was filtered is asked again, and nothing else"


def test_the_lines_of_filtered_cut_and_unreadable_translations_are_marked(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    flags = options("org/chat", prompt_style=None, max_samples=4, inference_api="openai", dtype=None)
    numbers, said = {}, ["Kaixo mundua.", "Kaixo mun", "<think>The user wants", "Kaixo."]

    def edit(_, body):
        number = numbers.setdefault(body["choices"][0]["message"]["content"], len(numbers))
        body = content("openai", body, said[number % 4])
        return ended("openai", body, ("content_filter", "length", "length", "stop")[number % 4]), None

    with ApiServer(edit=edit) as server:
        run = lambda: in_process(  # noqa: E731
            "main.py",
            *flags,
            "--base_url",
            server.url("openai"),
            "--output_dir",
            tmp_path,
            "--max_concurrent_requests",
            1,
        )
        result = run()
        folder = folder_of(tmp_path, "chat")
        lines = records(folder / "translate_0.jsonl")
        marks = [sorted(line.keys() - {"sentence", "translation"}) for line in lines]
        kinds = [["unanswered"], ["truncated"], ["unreadable"], []]
        assert marks == [kinds[i % 4] for i in range(4)]
        assert [line["translation"] for line in lines] == [("", said[1], "", said[3])[i % 4] for i in range(4)]
        assert result.returncode == 3 and "content filter" in result.stderr
        assert " cut at the limit" in result.stderr and "without a translation" in result.stderr
        manifest = json.loads((folder / "manifest_translate.json").read_text())
        assert (manifest["truncated_translations"], manifest["unreadable_answers"]) == (1, 1)
        before = len(server.bodies)
        server.edit = None
        assert run().returncode == 0 and len(server.bodies) == before + 1


@pytest.mark.parametrize("api", REMOTE)
@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "gzip, cut", "br"])
def test_a_small_body_that_unpacks_to_a_huge_one(api, encoding, monkeypatch):
    """Or to nothing. Brotli and gzip in gzip hold gigabytes in kilobytes, which httpx would inflate at once."""
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 1 << 20)
    attempts = Counter()

    def edit(name, body):
        attempts[name] += 1
        whole = json.dumps(body).encode()
        if attempts[name] > 1:
            return gzip.compress(whole), {"Content-Encoding": "gzip"}
        packed = gzip.compress(whole + b" " * (4 << 20))
        bodies = {
            "gzip": packed,
            "gzip, gzip": gzip.compress(packed),
            "gzip, cut": gzip.compress(whole)[:-9],
            "br": packed,
        }
        return bodies[encoding], {"Content-Encoding": encoding.removesuffix(", cut")}

    with ApiServer(edit=edit) as server:
        answers, ending, retries = run(api, server, chats(2))
        assert {headers["accept-encoding"] for headers in server.headers} == {"gzip"}
    assert ending is None and len(answers) == 2 and all(answer.texts for answer in answers)
    assert retries == {"malformed answer": 2}


@pytest.mark.parametrize("api", REMOTE)
@pytest.mark.parametrize("status", [307, 308])
def test_prompts_follow_no_redirect_to_another_host(api, status):
    with ApiServer() as other, ApiServer() as server:
        location = {"Location": other.url(api) + "/elsewhere", "status": status}
        server.edit = lambda name, body: (b"", dict(location))
        answers, ending, _ = run(api, server, chats(3))
        assert not answers and not other.bodies and type(ending) is UsageError
        assert f"redirects to http://127.0.0.1:{other.port}" in str(ending) and "--base_url" in str(ending)


@pytest.mark.parametrize("api", REMOTE)
@pytest.mark.parametrize("location", ["http://[::1", "http://a\x1bb/", "/loop"])
def test_redirects_that_lead_nowhere(api, location):
    with ApiServer(edit=lambda name, body: (b"", {"Location": location, "status": 307})) as server:
        answers, ending, _ = run(api, server, chats(2), max_retries=1)
    assert not answers and isinstance(ending, APIUnavailable)


class VLLM(ApiServer):
    """Reports, as vLLM's server does, what its chat template writes."""

    end = "<|assistant|><think>\n"

    async def _template(self, writer, path, body):
        answers = {"/tokenize": {"count": 3, "tokens": [1, 2, 3]}, "/detokenize": {"prompt": self.end}}
        assert body["model"] == "m" and (path == "/detokenize" or body["add_generation_prompt"])
        await self._send(writer, 200, json.dumps(answers[path]).encode())
        return True


def test_thoughts_that_a_servers_template_began_and_the_limit_cut():
    def edit(name, body):
        ends = name == "p0"
        text = "Hm.\n</think>\nKaixo." if ends else "The user wants Basque.\nHm"
        if name == "p2":
            body["choices"][0]["message"]["reasoning_content"] = None
        return ended("openai", content("openai", body, text), "stop" if ends else "length"), None

    with VLLM(edit=edit) as server:
        answers, _, _ = run("openai", server, chats(6))
        assert sorted(without_thoughts(answer.texts[0]) for answer in answers) == [""] * 5 + ["Kaixo."]
        server.end = "<|assistant|>"
        answers, _, _ = run("openai", server, chats(6))
        assert sum(without_thoughts(answer.texts[0]) == "The user wants Basque.\nHm" for answer in answers) == 5


class Reading(ApiServer):
    """Reports, as vLLM's server does, which special tokens its tokenizer adds to a plain prompt."""

    added = ("<bos>",), ()

    async def _template(self, writer, path, body):
        names = ["a"] if body.get("add_special_tokens") is False else [*self.added[0], "a", *self.added[1]]
        answer = {"tokens": [len(name) for name in names], "token_strs": names, "count": len(names)}
        await self._send(writer, 200, json.dumps(answer).encode())
        return True


@pytest.mark.parametrize(
    ("added", "prompt", "sent", "own"),
    [
        ((("<bos>",), ()), "Kaixo mundua", "Kaixo mundua", False),
        ((("<bos>",), ()), "<bos>Kaixo mundua", "<bos>Kaixo mundua", True),
        (((), ("</s>",)), "Kaixo mundua", "Kaixo mundua", True),
        ((("<s>",), ("</s>",)), "Kaixo mundua", "<s>Kaixo mundua", True),
        (((), ()), "<s>Kaixo", "<s>Kaixo", False),
    ],
)
def test_a_plain_prompt_begins_once_and_does_not_end(added, prompt, sent, own):
    """A server adds its tokenizer's special tokens: a second BOS, or EOS behind the text that is to go on."""
    with Reading() as server:
        server.added = added
        answers, ending, _ = run("openai", server, [Request(f"p{i}", prompt, i) for i in range(5)])
    assert ending is None and len(answers) == 5
    assert {(body["prompt"], body.get("add_special_tokens", True)) for body in server.bodies} == {(sent, not own)}


def test_what_is_no_back_translation(tmp_path):
    """Unreadable and cut answers have no translation, and say why."""
    said = {
        "Bat.": ("<think>The user", "length"),
        "Bi.": ("Two an", "length"),
        "Hiru.": ("Three.\nNote: cut", "length"),
    }

    def edit(name, body):
        prompt = server.bodies[-1]["messages"][-1]["content"]
        text, reason = next(answer for sentence, answer in said.items() if sentence in prompt)
        return ended("openai", content("openai", body, text), reason), None

    with ApiServer(edit=edit) as server:
        model = ModelSettings("m", base_url=server.url("openai"), api_key=KEY, max_concurrent_requests=1)
        settings = TranslatorSettings(inference_api="openai", model=model, number_of_demonstrations=0)
        translator = translation.create("llm", settings)
        translator.load()
        found = translator.translate(list(said), languages.find("Basque"), languages.find("English"))
        translator.close()
    assert [(item.text, bool(item.error)) for item in found] == [("", True), ("Two an", True), ("Three.", False)]
    assert "cannot be read: '<think>The user'" in found[0].error and "cut at the limit" in found[1].error


def test_a_server_that_separates_thoughts():
    def edit(name, body):
        body["choices"][0]["message"]["reasoning_content"] = "Hm."
        return ended("openai", content("openai", body, "Kaixo mun"), "length"), None

    with VLLM(edit=edit) as server:
        answers, _, _ = run("openai", server, chats(2))
        assert [answer.texts for answer in answers] == [["Kaixo mun"]] * 2


def test_a_server_that_does_not_tell():
    with ApiServer(edit=lambda name, body: (ended("openai", body, "length"), None)) as server:
        answers, _, _ = run("openai", server, chats(2))
        assert sorted(answer.texts[0] for answer in answers) == ["answer to p0 please", "answer to p1 please"]
