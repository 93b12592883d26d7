"""The generation loop: what it keeps depends on settings and answers alone, however it is interrupted."""

import json
import random
import re
from collections import Counter
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest

from tests.support.tiny_models import udhr_texts
from topxgen.common.console import Progress
from topxgen.common.errors import UsageError
from topxgen.common.files import repair_tail
from topxgen.common.records import Layout
from topxgen.generation import funnel
from topxgen.generation.filters import TOPXGEN_FILTERS, load_filters
from topxgen.generation.paragraphs import MAX_UNPRODUCTIVE_STEPS, Generation, Target, request_seed
from topxgen.generation.parsing import numbered_texts
from topxgen.generation.pipelines import Pipeline, shuffled_rounds
from topxgen.inference import Answer, SamplingSettings
from topxgen.inference.costs import Meter
from topxgen.text import languages

UDHR = [text for name in ("Basque", "Swahili", "Hausa") for text in udhr_texts(name)]


class ShuffledAnswers:
    """A source of answers that finish in random order and die after `lifetime`; the text of an answer depends
    on the request's id and seed alone, as a model's does. Some are empty, unparseable or repeat a text."""

    def __init__(self, order_seed: int, lifetime: int | None = None):
        self._rng, self._lifetime = random.Random(order_seed), lifetime

    def generate(self, next_request, settings):
        in_flight, finished = [], 0
        while True:
            while len(in_flight) < self._rng.randint(1, 24) and (request := next_request()) is not None:
                in_flight.append(request)
            if not in_flight:
                return
            request = in_flight.pop(self._rng.randrange(len(in_flight)))
            if finished == self._lifetime:
                raise KeyboardInterrupt
            finished += 1
            yield Answer(request.id, [self.text(request)], 10, 20)

    @staticmethod
    def text(request) -> str:
        rng = random.Random(f"{request.id} {request.seed}")
        if rng.random() < 0.2:
            return rng.choice(["", "1. only one", "3. a\n4. b", "1. hi\n2. \x00 binary text here"])
        return f"1. {rng.choice(UDHR)}\n2. {rng.choice(UDHR)}"


class Numbered(Pipeline):
    """Two texts about each topic; notes what it is given of judged prompts."""

    texts_per_prompt = 2

    def __init__(self):
        self.kept = []

    def build(self, prompt):
        return f"about topic {prompt.number}", f"topic {prompt.number}"

    def parse(self, response):
        return numbered_texts(response, 2)

    def judged(self, prompt, texts):
        self.kept.append((prompt.id, texts))


def run(folder, answers, *, total=40, minimum=5, step_size=3, names=("Basque", "Hausa"), pipeline=None):
    folder.mkdir(exist_ok=True)
    config = SimpleNamespace(
        layout=Layout(folder, "translated"),
        target=Target(tuple(names), total, minimum if isinstance(minimum, dict) else dict.fromkeys(names, minimum)),
        pipeline=pipeline or Numbered(),
        languages={name: languages.find(name) for name in names},
        filters=load_filters(TOPXGEN_FILTERS),
        args=SimpleNamespace(
            request_batch_size=step_size,
            seed=7,
            threshold=0.7,
            rouge_tokenizer="unicode",
            dedup_prefilter="exact",
            verbose=False,
            inference_api="hf",
            num_return_sequences=1,
        ),
        meter=Meter(None),
    )
    for path in (path for name in names for path in config.layout.jsonl_files(name)):
        repair_tail(path)  # as datagen.py does before any stage
    with Progress("test", total, "paragraphs") as progress, Generation(config, progress) as generation:
        if generation.needs_responses():
            generation.run(answers, SamplingSettings())
    return generation


def files(folder, kinds=("", "_rejects")) -> dict[str, list[str]]:
    return {
        path.name: path.read_text(encoding="utf-8").splitlines()
        for name in ("Basque", "Hausa")
        for kind in kinds
        if (path := folder / f"{name}{kind}.jsonl").exists()
    }


def test_order_of_answers_changes_nothing(tmp_path):
    for order in range(6):
        outcome = run(tmp_path / str(order), ShuffledAnswers(order))
        assert outcome.target_reached and sum(outcome.kept.values()) == 40
        assert files(tmp_path / str(order)) == files(tmp_path / "0")


def test_the_progress_line_counts_those_of_earlier_runs_too(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ShuffledAnswers(1, lifetime=12))
    run(tmp_path, ShuffledAnswers(2))
    layout = Layout(tmp_path, "translated")
    responses, rejected = (
        sum(len(read(name).read_bytes().splitlines()) for name in ("Basque", "Hausa"))
        for read in (layout.responses, layout.rejects)
    )
    first, second = capsys.readouterr().err.splitlines()
    assert ", 12 responses, " in first
    assert f"test: 40/40 paragraphs, {responses} responses, {rejected} rejected (" in second and responses > 12


def test_killed_at_any_answer_and_resumed(tmp_path):
    run(tmp_path / "whole", ShuffledAnswers(0))
    whole = files(tmp_path / "whole")
    rng = random.Random(3)
    for trial in range(25):
        folder = tmp_path / f"killed{trial}"
        while True:
            try:
                run(folder, ShuffledAnswers(rng.random(), lifetime=rng.randint(0, 12)))
                break
            except KeyboardInterrupt:
                continue
        assert files(folder) == whole


def test_files_cut_at_any_byte_are_made_whole(tmp_path):
    """A kill can leave any prefix of each file: a torn line, a decision without its answer, and so on."""
    run(tmp_path / "whole", ShuffledAnswers(0))
    whole = files(tmp_path / "whole")
    rng = random.Random(4)
    for trial in range(25):
        folder = tmp_path / f"cut{trial}"
        folder.mkdir()
        for path in (tmp_path / "whole").glob("*.jsonl"):
            data = path.read_bytes()
            (folder / path.name).write_bytes(data[: rng.randint(0, len(data))])
        run(folder, ShuffledAnswers(trial))
        assert {name: sorted(lines) for name, lines in files(folder).items()} == {
            name: sorted(lines) for name, lines in whole.items()
        }


def test_answers_on_disk_are_not_asked_for_again(tmp_path):
    run(tmp_path, ShuffledAnswers(0))
    before = files(tmp_path, ("", "_rejects", "_answers"))
    asked = run(tmp_path, None).requested  # a run that needs no answer needs no model
    assert files(tmp_path, ("", "_rejects", "_answers")) == before
    assert asked == sum(len(lines) for name, lines in before.items() if "_answers" in name)


def test_a_raised_target_goes_on_as_if_asked_for_at_once(tmp_path):
    for total in (20, 31, 40):
        run(tmp_path / "steps", ShuffledAnswers(total), total=total, names=("Basque",))
    run(tmp_path / "once", ShuffledAnswers(0), total=40, names=("Basque",))
    assert files(tmp_path / "steps") == files(tmp_path / "once")


def test_target_is_met_exactly(tmp_path):
    outcome = run(tmp_path / "a", ShuffledAnswers(0), total=11, minimum=0)
    assert sum(outcome.kept.values()) == 11
    outcome = run(tmp_path / "b", ShuffledAnswers(0), total=0, minimum=4)
    assert outcome.kept == {"Basque": 4, "Hausa": 4}
    outcome = run(tmp_path / "each", ShuffledAnswers(0), total=0, minimum={"Basque": 2, "Hausa": 5})
    assert outcome.kept == {"Basque": 2, "Hausa": 5}
    outcome = run(tmp_path / "c", ShuffledAnswers(0), total=10, minimum=4)
    assert sum(outcome.kept.values()) == 10 and min(outcome.kept.values()) >= 4


def test_wanting_never_comes_back():
    rng = random.Random(0)
    for _ in range(200):
        names = ("a", "b", "c")[: rng.randint(1, 3)]
        target = Target(names, rng.randint(0, 12), {name: rng.randint(0, 5) for name in names})
        kept, unwanted = Counter(), set()
        for _ in range(40):
            name = rng.choice(names)
            wanted = target.wants(kept, name)
            assert not (wanted and name in unwanted)
            if wanted:
                kept[name] += 1
            else:
                unwanted.add(name)
        assert target.reached(kept) == (not any(target.wants(kept, name) for name in names))


def test_unproductive_steps_stop_a_run(tmp_path):
    class Silent:
        def generate(self, next_request, settings):
            while (request := next_request()) is not None:
                yield Answer(request.id, [""], 1, 0)

    outcome = run(tmp_path, Silent(), names=("Basque",))
    assert not outcome.target_reached and outcome.unproductive_steps == MAX_UNPRODUCTIVE_STEPS
    rejects = [json.loads(line) for line in files(tmp_path)["Basque_rejects.jsonl"]]
    assert len(rejects) == 3 * 50 and {reject["reason"] for reject in rejects} == {"empty"}
    assert rejects[0]["prompt"] == "Basque-000000"


def test_files_of_the_original_are_taken_along(tmp_path):
    old = [{"text": UDHR[0], "topic": "law"}, {"text": UDHR[1]}]
    lines = "".join(json.dumps(record) + "\n" for record in old)
    (tmp_path / "Basque.jsonl").write_text(lines, encoding="utf-8")
    outcome = run(tmp_path, ShuffledAnswers(0), total=10, minimum=0, names=("Basque",))
    assert outcome.kept["Basque"] == 10
    after = files(tmp_path)["Basque.jsonl"]
    assert len(after) == 10 and "".join(line + "\n" for line in after[:2]) == lines
    assert sum(json.loads(line)["text"] == UDHR[0] for line in after) == 1, "no duplicate of what was there"


def test_schedule_is_balanced_and_depends_on_the_seed():
    names = ("a", "b", "c")
    steps = list(islice(shuffled_rounds(names, 4, 1), 30))
    assert [prompt.number for step in steps for prompt in step if prompt.language == "a"] == list(range(40))
    assert [step[0].step for step in steps] == list(range(30))
    assert Counter(step[0].language for step in steps) == {"a": 10, "b": 10, "c": 10}
    assert steps != list(islice(shuffled_rounds(names, 4, 2), 30))
    assert request_seed(1, "a-000000") != request_seed(1, "a-000001") and request_seed(1, "a-000000") < 2**31


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "Basque.jsonl").write_text('{"text": "bat bi hiru"}\n{broken\n{"text": "lau"}\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"Basque\.jsonl, line 2"):
        run(tmp_path, None, names=("Basque",))


def test_when_a_target_is_reached():
    target = Target(("a", "b"), 10, {"a": 2, "b": 2})
    assert target.wants(Counter(a=7), "a") and not target.wants(Counter(a=8), "a"), "two are reserved for b"
    assert target.wants(Counter(a=8, b=1), "b") and not target.wants(Counter(a=8, b=2), "b")
    assert target.wants(Counter(a=1, b=20), "a") and not target.wants(Counter(a=2, b=20), "a")
    assert not target.reached(Counter(a=8, b=1)) and target.reached(Counter(a=8, b=2))
    assert not target.reached(Counter(a=7, b=2)) and target.reached(Counter(a=2, b=8))
    assert [target.missing(Counter(a=a, b=b)) for a, b in ((0, 0), (9, 0), (8, 1), (8, 2), (20, 1), (20, 2))] == [
        10, 2, 1, 0, 1, 0,
    ]  # fmt: skip
    assert Target(("a", "b"), 0, {"a": 3, "b": 3}).missing(Counter(a=1)) == 5
    assert Target(("a",), 0, {"a": 0}).reached(Counter())


def test_a_target_of_one_number_for_each_language():
    target = Target(("a", "b", "c"), 6, {"a": 1, "b": 3, "c": 0})
    assert target.wants(Counter(a=2), "a") and not target.wants(Counter(a=3), "a"), "three are reserved for b"
    assert target.wants(Counter(a=6, b=2), "b") and not target.wants(Counter(a=6, b=3), "b")
    assert not target.wants(Counter(a=3), "c") and target.wants(Counter(a=1, b=3), "c")
    assert [target.missing(Counter(a=a, b=b)) for a, b in ((0, 0), (5, 0), (0, 6), (1, 4), (3, 3))] == [6, 3, 1, 1, 0]
    assert target.reached(Counter(a=2, b=3, c=1)) and not target.reached(Counter(b=6))


class Scripted:
    """Answers in order, with what `text` gives for a prompt's number; counts them."""

    def __init__(self, text, error=None):
        self._text, self._error, self.count = text, error, 0

    def generate(self, next_request, settings):
        while (request := next_request()) is not None:
            text = self._text(int(request.id.rpartition("-")[2]))
            self.count += 1
            yield Answer(request.id, [] if self._error else [text], 1, 1, error=self._error)


def test_a_kept_text_starts_the_count_of_unproductive_steps_again(tmp_path):
    def once_in(steps: int):
        texts = iter(UDHR)
        return Scripted(lambda number: next(texts) if number % steps == steps - 1 else "")

    class Whole(Numbered):
        texts_per_prompt = 1

        def parse(self, response):
            return [response] if response else None

    options = dict(total=4, minimum=0, step_size=1, names=("Basque",))
    outcome = run(tmp_path / "a", once_in(MAX_UNPRODUCTIVE_STEPS), pipeline=Whole(), **options)
    assert outcome.target_reached and outcome.unproductive_steps == 0
    outcome = run(tmp_path / "b", sampler := once_in(MAX_UNPRODUCTIVE_STEPS + 1), pipeline=Whole(), **options)
    assert not outcome.target_reached and outcome.kept["Basque"] == 0
    assert sampler.count >= MAX_UNPRODUCTIVE_STEPS
    judged = [json.loads(line)["prompt"] for line in files(tmp_path / "b")["Basque_rejects.jsonl"]]
    assert judged == [f"Basque-{number:06d}" for number in range(MAX_UNPRODUCTIVE_STEPS)]


@pytest.mark.parametrize(
    "error, reason",
    [("prompt of 9000 tokens exceeds --max_model_len 8192", "prompt_too_long"), ("HTTP 400: no", "answer_failed")],
)
def test_a_prompt_without_an_answer_is_a_reject(tmp_path, error, reason):
    outcome = run(tmp_path, Scripted(lambda _: "", error), names=("Basque",))
    assert not outcome.target_reached
    rejects = [json.loads(line) for line in files(tmp_path)["Basque_rejects.jsonl"]]
    assert {(reject["reason"], reject["text"]) for reject in rejects} == {(reason, error)}
    counts = funnel.generation_counts(Layout(tmp_path, "translated"), "Basque")
    assert counts["answers"] == counts["rejected"][reason] + counts["not_needed"] == counts["prompts"]


def test_the_text_that_was_cut_is_marked(tmp_path):
    class Cut(ShuffledAnswers):
        def generate(self, next_request, settings):
            for answer in super().generate(next_request, settings):
                yield replace(answer, finish_reasons=("length",))

    run(tmp_path, Cut(0), names=("Basque",))
    marks = Counter()
    for record in map(json.loads, files(tmp_path)["Basque.jsonl"]):
        marks[record["id"].rpartition(".")[2], record.get("truncated", False)] += 1
    assert marks.keys() == {("0", False), ("1", True)}


def check_funnel(table: str) -> dict[str, int]:
    """Each column adds up; the numbers in front, by row."""
    numbers, before = {}, None
    for line in table.splitlines():
        name, remaining, removed = re.fullmatch(r"  (.*?) +(\d+)(?: +-(\d+))?", line).groups()
        if removed is not None:
            assert int(remaining) == before - int(removed), line
        before = numbers[name.strip()] = int(remaining)
    return numbers


@pytest.mark.parametrize("total, minimum", [(40, 5), (11, 0), (0, 4), (1, 0)])
def test_the_funnel_adds_up(tmp_path, total, minimum):
    for order in range(3):
        folder = tmp_path / str(order)
        outcome = run(folder, ShuffledAnswers(order), total=total, minimum=minimum)
        layout = Layout(folder, "translated")
        counts = [funnel.generation_counts(layout, name) for name in ("Basque", "Hausa")]
        rows = check_funnel(funnel.render(outcome.requested, counts, []))
        assert rows["prompts sent"] == outcome.requested
        assert (
            rows.get("after not needed", rows["prompts sent"]) <= rows["responses"] == sum(c["prompts"] for c in counts)
        )
        assert rows["after near duplicate"] == rows["paragraphs kept"] == outcome.kept.total()
        rejected = sum((Counter(count["rejected"]) for count in counts), Counter())
        by_response = sum(rejected[reason] for reason in funnel.RESPONSE_REASONS)
        parsed = rows["responses"] - by_response - sum(count["not_needed"] for count in counts)
        assert 0 <= 2 * parsed - rows["texts parsed"] <= 2, "two texts each, but for the last ones"


def test_the_funnel_shows_reasons_it_does_not_know_and_paragraphs_of_other_origin(tmp_path):
    (tmp_path / "Basque.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in UDHR[:2]))
    outcome = run(tmp_path, ShuffledAnswers(0), total=10, minimum=0, names=("Basque",))
    with (tmp_path / "Basque_rejects.jsonl").open("a") as file:
        file.write(json.dumps({"id": "Basque-000000.1", "reason": "shouting (3 times)"}) + "\n")
    counts = funnel.generation_counts(Layout(tmp_path, "translated"), "Basque")
    rows = check_funnel(funnel.render(outcome.requested, [counts], []))
    assert rows["paragraphs kept"] == 10 and rows["after shouting"] == 8
    assert rows["paragraphs of the file that were not generated"] == 2


def test_responses_of_older_versions_are_read(tmp_path):
    """Their texts had the key "answers"."""
    outcome = run(tmp_path, ShuffledAnswers(0), names=("Basque",))
    before = files(tmp_path)
    path = tmp_path / "Basque_answers.jsonl"
    layout = Layout(tmp_path, "translated")
    counts = funnel.generation_counts(layout, "Basque")
    path.write_text(path.read_text(encoding="utf-8").replace('"texts": [', '"answers": ['), encoding="utf-8")
    assert '"texts"' not in path.read_text(encoding="utf-8")
    again = run(tmp_path, None, names=("Basque",))
    assert (
        files(tmp_path) == before
        and (again.kept, again.requested) == (outcome.kept, outcome.requested)
        and funnel.generation_counts(layout, "Basque") == counts
    )
    run(tmp_path, ShuffledAnswers(1), total=44, names=("Basque",))  # goes on in the new form
    run(tmp_path / "new", ShuffledAnswers(1), total=44, names=("Basque",))
    assert files(tmp_path) == files(tmp_path / "new")


class Chained(Numbered):
    """Each prompt shows a text of the second one before it in its language: it must wait for that one to be judged."""

    def __init__(self):
        super().__init__()
        self.texts = {}

    def build(self, prompt):
        earlier = f"{prompt.language}-{prompt.number - 2:06d}"
        if prompt.number >= 2 and earlier not in self.texts:
            return None
        return f"{prompt.id} after {self.texts.get(earlier)}", "chained"

    def judged(self, prompt, texts):
        self.texts[prompt.id] = texts


class Echoing(ShuffledAnswers):
    """The texts depend on all of the prompt."""

    @staticmethod
    def text(request) -> str:
        rng = random.Random(request.prompt)
        return f"1. {rng.choice(UDHR)} {rng.random()}\n2. {rng.choice(UDHR)} {rng.random()}"


def test_prompts_may_depend_on_texts_kept_before(tmp_path):
    whole = None
    rng = random.Random(1)
    for order in range(4):
        while True:
            try:
                lifetime = rng.randint(1, 9) if order else None
                run(tmp_path / str(order), Echoing(rng.random(), lifetime), total=30, pipeline=Chained())
                break
            except KeyboardInterrupt:
                continue
        whole = whole or files(tmp_path / str(order))
        assert files(tmp_path / str(order)) == whole


def test_a_pipeline_may_end_before_the_target(tmp_path):
    class Three(Numbered):
        def schedule(self, languages, step_size, seed):
            yield next(shuffled_rounds(languages, 3, seed))

    outcome = run(tmp_path, ShuffledAnswers(0), names=("Basque",), pipeline=(pipeline := Three()))
    assert not outcome.target_reached and outcome.requested == 3
    assert [prompt_id for prompt_id, _ in pipeline.kept] == [f"Basque-{number:06d}" for number in range(3)]
    texts = [text for _, texts in pipeline.kept for text in texts]
    assert texts == [json.loads(line)["text"] for line in files(tmp_path)["Basque.jsonl"]]


class Forgetful(Numbered):
    """As TopXGen, it does not go on from texts; counts the responses that it reads."""

    judged = Pipeline.judged

    def __init__(self):
        super().__init__()
        self.parsed = 0

    def parse(self, response):
        self.parsed += 1
        return super().parse(response)


def test_a_resumed_run_reads_only_responses_that_are_not_judged_in_full(tmp_path):
    plain = run(tmp_path / "plain", ShuffledAnswers(1), pipeline=Forgetful())
    for lifetime in (3, 9, 14, 30):
        folder = tmp_path / str(lifetime)
        with pytest.raises(KeyboardInterrupt):
            run(folder, ShuffledAnswers(2, lifetime), pipeline=Forgetful())
        (pipeline := Forgetful()).parsed = 0
        resumed = run(folder, ShuffledAnswers(3), pipeline=pipeline)
        assert resumed.kept == plain.kept and resumed.unproductive_steps == plain.unproductive_steps
        for name in ("Basque.jsonl", "Hausa.jsonl", "Basque_rejects.jsonl", "Hausa_rejects.jsonl"):
            assert (folder / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    (pipeline := Forgetful()).parsed = 0
    again = run(tmp_path / "plain", ShuffledAnswers(4, 0), pipeline=pipeline)
    assert again.kept == plain.kept
    files = (tmp_path / "plain" / f"{name}_answers.jsonl" for name in ("Basque", "Hausa"))
    records = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    assert (
        0 < pipeline.parsed < len(records) / 2
    )  # the unparseable ones, which have one record for two texts, and the last


def test_a_lower_target_counts_no_more_than_it_wants(tmp_path):
    run(tmp_path, ShuffledAnswers(1), pipeline=Forgetful())
    assert run(tmp_path, ShuffledAnswers(1, 0), total=11, minimum=0, pipeline=Forgetful()).kept.total() == 11


def test_a_half_judged_response_is_judged_to_its_end(tmp_path):
    """A kill between the two texts of a response, with later ones judged, as after an API's refusal that was asked again."""
    run(tmp_path, ShuffledAnswers(1), pipeline=Forgetful(), names=("Basque",), minimum=0, total=30)
    path = tmp_path / "Basque.jsonl"
    whole = path.read_text(encoding="utf-8").splitlines(keepends=True)
    second = next(line for line in whole[5:] if json.loads(line)["id"].endswith(".1"))
    path.write_text("".join(line for line in whole if line != second), encoding="utf-8")
    run(tmp_path, ShuffledAnswers(1), pipeline=Forgetful(), names=("Basque",), minimum=0, total=30)
    assert sorted(path.read_text(encoding="utf-8").splitlines(keepends=True)) == sorted(whole)
