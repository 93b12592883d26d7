"""The client keeps track of the sentences without an answer, and the files of a run are marked and resumed by it."""

import json

import pytest

from comptra.llm_calls import LLMClient
from comptra.ordered_jsonl import UNANSWERED, UNDIVIDED, is_complete, mark_undividable, marked, resume_lines
from tests.support.runs import records
from topxgen.common.errors import UsageError
from topxgen.inference import Answer, SamplingSettings
from topxgen.inference.lazy_sampler import LazySampler

GREEDY = SamplingSettings(max_new_tokens=5, temperature=0.0)


class Refusing:
    """A model that answers in capitals, in reverse order, and refuses prompts with an x."""

    def generate(self, next_request, settings):
        requests = []
        while (request := next_request()) is not None:
            requests.append(request)
        for request in reversed(requests):
            error = "too long" if "x" in request.prompt else None
            reasons = ("length" if "long" in request.prompt else "stop",)
            yield Answer(request.id, [] if error else [request.prompt.upper()], error=error, finish_reasons=reasons)


def test_sentences_of_failed_prompts_are_known(tmp_path):
    client = LLMClient(Refusing(), "raw", tmp_path / "answers.jsonl", 1)
    answers = client.generate_all(["s1", "s2", "s3", "s3"], ["a", "x", "x", "b"], GREEDY)
    assert answers == [["A"], [], [], ["B"]] and client.unanswered == {"s2", "s3"}
    assert list(client.failures.values()) == ["too long"] == [client.failure_reasons()], "equal prompts are sent once"
    client.begin_stage("merge 0")
    assert not client.unanswered and client.failures
    assert client.generate_all(["s1"], ["a"], GREEDY) == [["A"]] and not client.unanswered


class Recorder(Refusing):
    """Keeps the requests that it gets."""

    def __init__(self):
        self.requests = []

    def generate(self, next_request, settings):
        kept = lambda: (request := next_request()) and (self.requests.append(request), request)[1]  # noqa: E731
        return super().generate(kept, settings)


def test_prompts_have_seeds_of_their_own_which_the_run_decides(tmp_path):
    """Samples of two prompts share no random numbers; another seed asks again, the same does not."""
    seeds = []
    for seed in (1, 1, 2):
        model = Recorder()
        client = LLMClient(model, "raw", tmp_path / "answers.jsonl", seed)
        assert client.generate_all(["s", "t"], ["a", "b"], GREEDY) == [["A"], ["B"]]
        client.close()
        seeds.append({request.seed for request in model.requests})
    assert [len(own) for own in seeds] == [2, 0, 2] and not seeds[0] & seeds[2]
    assert all(0 <= seed < 2**31 for own in seeds for seed in own)


def test_marks_are_those_of_the_translation_that_is_chosen(tmp_path):
    client = LLMClient(Refusing(), "raw", tmp_path / "answers.jsonl", 1)
    client.begin_stage("translate 0")
    client.generate_all(["s", "t"], ["long a", "b"], GREEDY)

    def chosen(answer: str, translation: str) -> tuple[bool, bool]:
        """Whether the one sentence is then marked as cut, and as unreadable."""
        client.chosen("s", client.read("s", answer, translation))
        return "s" in client.truncated, "s" in client.unreadable

    assert chosen("LONG A", "LONG A") == (True, False)
    assert chosen("B", "B") == (False, False), "the cut one was a draft"
    assert chosen("LONG A", "LONG") == (False, False), "what is cut stands behind the translation"
    assert chosen(" ", "") == (False, False), "an empty answer"
    assert chosen("B", "") == (False, True)
    chosen("LONG A", "LONG A")
    client.begin_stage("merge 0")
    assert client.chosen("s", "LONG A") and not client.truncated


def test_a_model_is_loaded_once_something_is_to_be_asked(tmp_path):
    events = []
    load = lambda: (events.append("load"), Refusing())[1]  # noqa: E731
    sampler = LazySampler(load, lambda: events.append("ready"))
    client = LLMClient(sampler, "raw", tmp_path / "answers.jsonl", 1)
    assert client.generate_all([], [], GREEDY) == [] and not events
    client.generate_all(["s"], ["a"], GREEDY)
    client.generate_all(["s"], ["a"], GREEDY)
    client.generate_all(["s"], ["b"], GREEDY)
    assert events == ["load", "ready", "ready"]


def upper(sentences, unanswered=(), calls=None):
    """Work for resume_lines, from the last sentence to the first; `calls` gets the numbers it was called with."""

    def work(numbers):
        if calls is not None:
            calls.append(numbers)
        for place in reversed(range(len(numbers))):
            text = sentences[numbers[place]]
            yield place, "" if text in unanswered else text.upper()

    return work


def test_lines_of_unanswered_sentences_are_marked_and_made_again(tmp_path):
    path, sentences, calls = tmp_path / "translate_0.jsonl", ["a", "b", "c"], []
    assert resume_lines(path, sentences, "translation", upper(sentences, {"b"}), {"unanswered": {"b"}}) == [
        "A",
        "",
        "C",
    ]
    lines = [{"sentence": text, "translation": text.upper()} for text in sentences]
    assert records(path) == [lines[0], {"sentence": "b", "translation": "", "unanswered": True}, lines[2]]
    assert marked(path, UNANSWERED) == {1} and not is_complete(path, 3)
    more = [*sentences, "d"]
    assert resume_lines(path, more, "translation", upper(more, (), calls), {}) == ["A", "B", "C", "D"]
    assert calls == [[1], [3]] and records(path)[:3] == lines and is_complete(path, 4)
    assert not is_complete(path, 3) and not is_complete(path, 5)


def test_a_shared_file_has_lines_of_more_sentences(tmp_path):
    path, sentences = tmp_path / "divide_1.jsonl", ["a", "b", "c"]
    lines = [{"sentence": text, "propositions": [text]} for text in sentences]
    lines[1]["unanswered"] = lines[2]["unanswered"] = True
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    calls = []
    work = lambda numbers: (calls.append(numbers), enumerate([["B"]] * len(numbers)))[1]  # noqa: E731
    assert resume_lines(path, sentences[:2], "propositions", work, {}, shared=True) == [["a"], ["B"]]
    assert calls == [[1]] and marked(path, UNANSWERED) == {2}
    mark_undividable(path, {2})
    assert records(path)[2] == {"sentence": "c", "propositions": ["c"], "undivided": True}
    assert marked(path, UNDIVIDED) == {2} and is_complete(path, 3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"sentence": "z", "translation": "Z"}, "line 1 holds 'z', but sentence 1 of this run is 'a'"),
        ({"sentence": "a"}, "line 1: object missing required field translation"),
        ({"sentence": 1, "translation": "A"}, "line 1: field sentence: expected text, got integer"),
        (
            {"sentence": "a", "translation": ["A"]},
            "line 1: field translation: expected text or null, got .* fix or remove the line",
        ),
    ],
)
def test_a_line_that_does_not_fit_is_named(line, message, tmp_path):
    path = tmp_path / "translate_0.jsonl"
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(UsageError, match=message):
        resume_lines(path, ["a"], "translation", upper(["a"]), {})


def test_a_sentence_without_a_result_is_a_bug(tmp_path):
    with pytest.raises(RuntimeError, match="no translation for 1 sentences"):
        resume_lines(tmp_path / "t.jsonl", ["a"], "translation", lambda numbers: iter(()), {})
