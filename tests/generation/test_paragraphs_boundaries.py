"""When a run has enough, when it gives up, and what each response counts as."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.runs import records
from topxgen.common.console import Progress
from topxgen.common.records import Layout
from topxgen.generation.filters import TOPXGEN_FILTERS, load_filters
from topxgen.generation.paragraphs import MAX_UNPRODUCTIVE_STEPS, Generation, Target, request_seed
from topxgen.generation.parsing import numbered_texts, whole_text
from topxgen.generation.pipelines import Pipeline
from topxgen.inference import Answer, SamplingSettings
from topxgen.inference.costs import Meter
from topxgen.text import languages

WORDS = [
    "etxe",
    "mendi",
    "itsaso",
    "zuhaitz",
    "liburu",
    "ikasle",
    "lagun",
    "herri",
    "kale",
    "ibai",
    "zeru",
    "lur",
    "haize",
    "euri",
    "eguzki",
]
TWO = Target(("Basque", "Hausa"), 10, {"Basque": 3, "Hausa": 3})


@pytest.mark.parametrize(
    "basque, hausa, wanted, missing",
    [
        (0, 0, (True, True), 10),
        (2, 7, (True, False), 1),  # the last is Basque's
        (3, 6, (True, True), 1),
        (3, 7, (False, False), 0),
        (9, 0, (False, True), 3),  # 9 and the three that Hausa lacks are more than 10
        (7, 2, (False, True), 1),
        (6, 2, (True, True), 2),
    ],
)
def test_target(basque, hausa, wanted, missing):
    kept = Counter(Basque=basque, Hausa=hausa)
    assert (TWO.wants(kept, "Basque"), TWO.wants(kept, "Hausa")) == wanted
    assert TWO.missing(kept) == missing
    assert TWO.reached(kept) is not any(wanted)


def test_seeds_depend_on_seed_and_prompt_and_fit_31_bits():
    seeds = {request_seed(seed, f"Basque-{i:06d}") for seed in range(4) for i in range(500)}
    assert len(seeds) == 2000 and max(seeds) < 2**31 and max(seeds) > 2**30


class Scripted(Pipeline):
    """A pipeline whose prompts are their numbers, with `parse` and `texts_per_prompt` as given."""

    def __init__(self, parse=whole_text, texts_per_prompt=1):
        self.parse, self.texts_per_prompt = parse, texts_per_prompt

    def build(self, prompt):
        return str(prompt.number), f"topic {prompt.number}"


class Sampler:
    """Answers one prompt after the other by `respond(number)`: a text, or an Answer's fields."""

    def __init__(self, respond):
        self._respond, self.asked = respond, []

    def generate(self, next_request, settings):
        while (request := next_request()) is not None:
            self.asked.append(int(request.prompt))
            response = self._respond(int(request.prompt))
            fields = response if isinstance(response, dict) else {"texts": [response]}
            yield Answer(request.id, **{"texts": [], "prompt_tokens": 2, "completion_tokens": 3, **fields})


def run(folder, respond, count=4, step_size=1, pipeline=None):
    """The run for Basque when it has ended, and what the sampler was asked."""
    sampler = Sampler(respond)
    config = SimpleNamespace(
        layout=Layout(folder, "test"), target=Target(("Basque",), count, {"Basque": 0}), pipeline=pipeline or Scripted(),
        languages={"Basque": languages.find("Basque")}, filters=load_filters(TOPXGEN_FILTERS),
        args=SimpleNamespace(
            request_batch_size=step_size, seed=1, threshold=0.7, rouge_tokenizer="unicode", dedup_prefilter="exact", verbose=False,
            inference_api="hf", num_return_sequences=1,
        ),
        meter=Meter(None),
    )  # fmt: skip
    stream = SimpleNamespace(isatty=lambda: False, write=len, flush=int)
    with Progress("test", None, "paragraphs", stream=stream) as progress, Generation(config, progress) as generation:
        if generation.needs_responses():
            generation.run(sampler, SamplingSettings())
    return generation, sampler.asked


def text(number: int) -> str:
    """Different words for each number."""
    return " ".join(f"{word}{number}" for word in WORDS)


def paragraphs_of(folder) -> Path:
    return Layout(folder, "test").paragraphs("Basque")


def reasons(folder) -> list[tuple[str, str]]:
    return [(record["id"], record["reason"].split()[0]) for record in records(folder / "Basque_rejects.jsonl")]


def test_fifty_steps_in_a_row_without_a_paragraph_end_a_run(tmp_path):
    outcome, asked = run(tmp_path, lambda number: text(0))
    assert MAX_UNPRODUCTIVE_STEPS == 50 == outcome.unproductive_steps
    # The first step keeps its text; 50 more keep none. That the 50th kept nothing shows when the next is answered.
    assert len(asked) == 52 and outcome.kept == {"Basque": 1} and not outcome.target_reached


def test_a_kept_paragraph_starts_the_count_anew(tmp_path):
    productive = {0, 40, 80}
    outcome, asked = run(tmp_path, lambda number: text(number if number in productive else 0))
    assert outcome.kept == {"Basque": 3} and max(asked) > 120 and outcome.unproductive_steps == 50


def test_reason_codes_and_numbers_of_rejects(tmp_path):
    responses = {
        0: "1. only one",
        1: " ",
        2: {"error": "prompt of 90 tokens exceeds --max_model_len 64"},
        3: {"error": "HTTP 400: refused"},
        4: {"texts": ["no list", f"1. {text(40)}\n2. bi hitz"]},
        5: {"texts": [f"1. {text(50)}\n2. {text(40)}"]},
    }
    outcome, _ = run(
        tmp_path, lambda number: responses.get(number, f"1. {text(2 * number)}\n2. {text(2 * number + 1)}"), count=5,
        pipeline=Scripted(lambda response: numbered_texts(response, 2), 2),
    )  # fmt: skip
    assert reasons(tmp_path)[:7] == [
        ("Basque-000000.0", "unparseable"),
        ("Basque-000001.0", "empty"),
        ("Basque-000002.0", "prompt_too_long"),
        ("Basque-000003.0", "answer_failed"),
        ("Basque-000004.0", "unparseable"),
        ("Basque-000004.3", "too_few_words"),  # the texts of a response that was no list have numbers, too
        ("Basque-000005.1", "near_duplicate"),
    ]
    kept = [record["id"] for record in records(paragraphs_of(tmp_path))]
    assert kept[:2] == ["Basque-000004.2", "Basque-000005.0"] and len(kept) == 5 and outcome.target_reached


def test_a_resumed_run_rejects_and_counts_nothing_twice(tmp_path):
    def respond(number):
        return text(number) if number % 2 else "bi hitz"

    run(tmp_path, respond, count=3)
    before = [path.read_bytes() for path in (tmp_path / "Basque_rejects.jsonl", paragraphs_of(tmp_path))]
    outcome, asked = run(tmp_path, respond, count=3)
    assert not asked and outcome.target_reached
    assert [path.read_bytes() for path in (tmp_path / "Basque_rejects.jsonl", paragraphs_of(tmp_path))] == before
    # Without the list of rejects they are judged again, and come out the same.
    (tmp_path / "Basque_rejects.jsonl").unlink()
    run(tmp_path, respond, count=3)
    assert (tmp_path / "Basque_rejects.jsonl").read_bytes() == before[0]


@pytest.mark.parametrize(
    "texts_per_prompt", [1, 2]
)  # with 2, the response is judged again: its second text has no record
def test_a_rejected_text_stays_rejected_when_the_filters_would_keep_it(tmp_path, texts_per_prompt):
    run(tmp_path, text, count=2)
    lines = records(paragraphs_of(tmp_path))
    paragraphs_of(tmp_path).unlink()
    reject = {"id": lines[0]["id"], "prompt": "Basque-000000", "reason": "mine", "text": text(0), "topic": "topic 0"}
    (tmp_path / "Basque_rejects.jsonl").write_text(json.dumps(reject) + "\n")
    outcome, asked = run(tmp_path, text, count=2, pipeline=Scripted(texts_per_prompt=texts_per_prompt))
    assert asked == [2] and outcome.kept == {"Basque": 2}
