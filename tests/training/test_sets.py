"""The sets that train.py trains and evaluates on: which pairs, in which order and directions, and their digest."""

from types import SimpleNamespace

import numpy as np
import pytest

import train
from tests.support.pairs import write
from topxgen.common.provenance import texts_sha256
from topxgen.training import run
from topxgen.training.packing import decoder_rows
from topxgen.training.pairs import Pair, reverse, split
from topxgen.training.tokenization import TokenizedTexts
from topxgen.training.training_data import build_sets, digest, open_stream

pytestmark = pytest.mark.usefixtures("no_shared_cache")
PAIRS = [Pair(f"source {i}", f"target {i}", "English", "Basque", f"row {i + 1}") for i in range(16)]


@pytest.fixture
def sets(tmp_path):
    """What build_sets or open_stream makes of those pairs with further flags."""
    path = write(tmp_path / "pairs.jsonl", *({"source": pair.source, "target": pair.target} for pair in PAIRS))
    own = ["--model_name_or_path", "m", "--output_dir", "o", "--dataset_name_or_path", str(path)]

    def build(words: str, make=build_sets):
        args = train.build_parser().parse_args([*own, "--target_languages", "Basque", *words.split()])
        return make(args)

    return build


def test_sets_of_a_file(sets):
    found, test, facts = sets("--test_size_ratio 3 --seed 7")
    assert (found, test) == split(PAIRS, 3, 7) != split(PAIRS, 3, 0)
    assert (facts["train_pairs"], facts["test_pairs"], facts["sha256"]) == (13, 3, digest(found, test))
    # A model that is evaluated on a set it was trained on is recognised by its sides, in this order.
    assert facts["languages"]["English to Basque"]["texts_sha256"] == [
        texts_sha256([pair.source for pair in PAIRS]),
        texts_sha256([pair.target for pair in PAIRS]),
    ]
    assert sets("--test_size_ratio 3 --seed 7 --reverse")[:2] == (reverse(found), reverse(test))
    assert sets("--test_size_ratio 0")[:2] == (PAIRS, [])


def test_sets_of_a_stream(sets):
    def streamed(words: str = "") -> list[int]:
        stream, test, facts = sets(f"--streaming --size_valid_set 3 --shuffle_buffer 4 {words}", open_stream)
        expected = [Pair(pair.source, pair.target, pair.src, pair.tgt, "") for pair in PAIRS[:3]]
        assert test == (reverse(expected) if "--reverse" in words else expected)
        assert facts["test_pairs"] == len(test)
        return [int(row["source"].split()[1]) for row in stream]

    order = streamed("--seed 7")
    assert sorted(order) == list(range(3, 16)) != order, "without those held out"
    assert all(number < 3 + place + 4 for place, number in enumerate(order)), "out of a buffer of 4"
    assert order == streamed("--seed 7 --reverse") != streamed("--seed 8")


def test_a_digest_is_of_both_sets_and_what_is_in_which():
    a, b = PAIRS[:2]
    sets = [([a, b], []), ([a], [b]), ([b], [a]), ([], [a, b]), ([a], []), ([b, a], [])]
    assert len({digest(*both) for both in sets}) == len(sets)


@pytest.mark.parametrize(
    ("packing", "steps", "warmup", "warnings"),
    [
        ("bestfit", 120, 119, []),
        ("none", 120, 120, ["warm-up (--num_warmup_steps 120) is not shorter than training (120 steps)"]),
        (
            "bestfit",
            121,
            0,
            ["40 epochs over the same 9 texts: repetition teaches nothing after about 40; lower --max_steps"],
        ),
    ],
)
def test_the_plan_of_a_run(packing, steps, warmup, warnings, caplog):
    caplog.set_level("INFO")
    words = f"--packing {packing} --max_length 10 --per_device_train_batch_size 4 --gradient_accumulation_steps 1 --max_steps {steps}"
    args = train.build_parser().parse_args(
        ["--model_name_or_path", "m", "--output_dir", "o", "--num_warmup_steps", str(warmup), *words.split()]
    )
    texts = TokenizedTexts(np.zeros(72, np.int32), np.arange(8, 73, 8), np.zeros(9, np.int32))
    run.log_plan(args, SimpleNamespace(is_decoder=True), texts, decoder_rows(texts, packing, 10, True))
    rows = "10: 20.0% padding" if packing == "bestfit" else "8"
    assert f"in 9 rows of at most {rows}; 3 steps per epoch" in caplog.text
    logged = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [message[: len(start)] for message, start in zip(logged, warnings, strict=True)] == warnings


@pytest.mark.parametrize(
    ("stopped_early", "best", "number"),
    [(False, 4, 3), (True, 4, 5), (False, None, 0), (True, None, 0)],
)
def test_among_how_many_checkpoints_the_metric_chose(stopped_early, best, number):
    """Not the model before training, nor, unless the metric ended the run, evaluations that no checkpoint was saved at."""
    history = [{"step": step, "eval_runtime": 1.0} for step in (0, 2, 4, 6, 8, 9)] + [{"step": 12, "loss": 1.0}]
    state = SimpleNamespace(log_history=history, global_step=9, best_global_step=best)
    assert run._number_of_choices(SimpleNamespace(save_steps=4), state, stopped_early) == number
