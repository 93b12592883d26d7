"""The generation loop: what it keeps depends on settings and answers alone, however it is interrupted."""

import json
import random
from collections import Counter
from itertools import islice

import pytest

from tests.support.tiny_models import udhr_texts
from topxgen.common.console import Progress
from topxgen.common.errors import UsageError
from topxgen.common.files import repair_tail
from topxgen.common.records import Layout
from topxgen.generation.paragraphs import MAX_BARREN_STEPS, Generation, Target, request_seed, schedule
from topxgen.inference import Answer, SamplingSettings

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


def run(folder, answers, *, total=40, minimum=5, step_size=3, names=("Basque", "Hausa"), progress=None):
    folder.mkdir(exist_ok=True)
    layout = Layout(folder, "translated")
    for path in (path for name in names for path in layout.files(name)):
        repair_tail(path)  # as datagen.py does before any stage
    with (
        Progress("test", total, "paragraphs") as bar,
        Generation(
            layout,
            Target(tuple(names), total, minimum),
            build_prompt=lambda prompt: (f"about topic {prompt.number}", f"topic {prompt.number}"),
            answer_format="numbered",
            texts_per_prompt=2,
            step_size=step_size,
            seed=7,
            threshold=0.7,
            rouge_tokenizer="unicode",
            scripts=dict.fromkeys(names, "Latn"),
            filenames={},
            progress=progress or bar,
        ) as generation,
    ):
        if generation.needs_answers():
            generation.run(answers, SamplingSettings())
        return generation.outcome()


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
        assert outcome.enough and sum(outcome.kept.values()) == 40
        assert files(tmp_path / str(order)) == files(tmp_path / "0")


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
    outcome = run(tmp_path / "c", ShuffledAnswers(0), total=10, minimum=4)
    assert sum(outcome.kept.values()) == 10 and min(outcome.kept.values()) >= 4


def test_wanting_never_comes_back():
    rng = random.Random(0)
    for _ in range(200):
        names = ("a", "b", "c")[: rng.randint(1, 3)]
        target = Target(names, rng.randint(0, 12), rng.randint(0, 5))
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


def test_barren_steps_stop_a_run(tmp_path):
    class Silent:
        def generate(self, next_request, settings):
            while (request := next_request()) is not None:
                yield Answer(request.id, [""], 1, 0)

    outcome = run(tmp_path, Silent(), names=("Basque",))
    assert not outcome.enough and outcome.barren_steps == MAX_BARREN_STEPS
    rejects = [json.loads(line) for line in files(tmp_path)["Basque_rejects.jsonl"]]
    assert len(rejects) == 3 * MAX_BARREN_STEPS and {reject["reason"] for reject in rejects} == {"empty"}
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
    steps = list(islice(schedule(names, 4, 1), 30))
    assert [prompt.number for step in steps for prompt in step if prompt.language == "a"] == list(range(40))
    assert [step[0].step for step in steps] == list(range(30))
    assert Counter(step[0].language for step in steps) == {"a": 10, "b": 10, "c": 10}
    assert steps != list(islice(schedule(names, 4, 2), 30))
    assert request_seed(1, "a-000000") != request_seed(1, "a-000001") and request_seed(1, "a-000000") < 2**31


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "Basque.jsonl").write_text('{"text": "bat bi hiru"}\n{broken\n{"text": "lau"}\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"Basque\.jsonl, line 2"):
        run(tmp_path, None, names=("Basque",))
