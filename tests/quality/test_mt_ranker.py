"""MT-Ranker: golden values on a tiny checkpoint, the authors' layout, both orders, refusals. Replicas: order, errors, devices."""

import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.quality.test_metricx import PAIRS, SOURCES, TRANSLATIONS
from tests.support.runs import ROOT
from tests.support.tiny_metricx import CONFIG, build_metricx, build_mt_ranker
from topxgen.common.errors import UsageError
from topxgen.quality.metricx import MetricX
from topxgen.quality.mt_ranker import DEFAULT, MTRanker, model_input
from topxgen.quality.replicas import Replicas, by_length

# Rows of token ids and their two outputs, by a restatement of the published architecture (transformers 4.46.3, float32, CPU)
# with the weights of tests/support/tiny_metricx.py.
GOLDEN = [
    ([236226], [0.24332305788993835, 0.07742255926132202]),
    ([156274, 171045, 224303], [1.334457516670227, 0.6670795679092407]),
    ([144574, 193922, 208413, 56304, 13885, 75043, 71268], [-0.5620249509811401, 0.4136980473995209]),
]
OTHERS = [" ".join(text.split()[::2]) for text in TRANSLATIONS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return build_mt_ranker(tmp_path_factory.mktemp("models") / "mt-ranker-tiny", SOURCES + TRANSLATIONS)


@pytest.fixture(scope="module")
def model(folder):
    model = MTRanker(folder)
    yield model
    model.close()


def flat(values):
    return [number for pair in values for number in pair]


def copy_of(folder: str, place: Path, change) -> str:
    """A copy of a checkpoint whose weights `change` has edited."""
    import torch

    place.mkdir()
    for path in Path(folder).iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    weights = torch.load(place / "pytorch_model.bin", weights_only=True)
    change(weights)
    torch.save(weights, place / "pytorch_model.bin")
    return str(place)


def test_outputs_are_the_published_architectures(model):
    logits = model.logits([row for row, _ in GOLDEN])
    assert flat(logits) == pytest.approx(flat(pair for _, pair in GOLDEN), abs=2e-6)


def test_all_golden_values_of_this_machine(model):
    path = ROOT.parent / "shared" / "parity" / "neural_metrics.json"
    if not path.exists():
        pytest.skip("the golden values are not on this machine")
    golden = json.loads(path.read_text())["mt_ranker"]
    assert golden["config"].items() <= CONFIG.items()
    assert flat(model.logits(golden["rows"])) == pytest.approx(flat(golden["logits"]), abs=2e-6)


def test_a_score_is_the_probability_of_both_orders(model):
    """By hand from the outputs: softmax of each order, the mean; equal texts are even, and the other way round is the rest."""
    import torch

    scores = model.score(SOURCES, TRANSLATIONS, OTHERS)
    assert min(scores) >= 0 and max(scores) <= 1 and len(set(scores)) > 5
    for i in range(3):
        rows = model._token_ids(
            [model_input(SOURCES[i], a, b) for a, b in ((TRANSLATIONS[i], OTHERS[i]), (OTHERS[i], TRANSLATIONS[i]))]
        )
        assert rows[0][-1] == model._checkpoint.tokenizer.eos_token_id, "as the authors' tokenizer call gives it"
        one, two = torch.tensor(model.logits(rows)).softmax(dim=1).tolist()
        assert scores[i] == pytest.approx((one[0] + two[1]) / 2, abs=1e-6)
    swapped = model.score(SOURCES, OTHERS, TRANSLATIONS)
    assert [a + b for a, b in zip(scores, swapped, strict=True)] == pytest.approx([1.0] * len(scores))
    assert model.score(SOURCES[:3], OTHERS[:3], OTHERS[:3]) == [0.5] * 3
    assert model_input("S {0}", "A", "B") == "Source: S {0} Translation 0: A Translation 1: B"
    assert model.score([], [], []) == []


def test_weights_in_other_forms(folder, model, tmp_path):
    """safetensors, in which shared tensors are stored once; shards; the base's tokenizer is in the folder."""
    import torch
    from safetensors.torch import save_file

    expected = model.score(SOURCES[:5], TRANSLATIONS[:5], OTHERS[:5])
    weights = torch.load(Path(folder) / "pytorch_model.bin", weights_only=True)
    names = [name for name in weights if name != "encoder.encoder.embed_tokens.weight"]
    for place in ("one", "shards"):
        (tmp_path / place).mkdir()
        for file in Path(folder).glob("*token*"):
            (tmp_path / place / file.name).write_bytes(file.read_bytes())
    save_file({name: weights[name] for name in names}, tmp_path / "one" / "model.safetensors")
    for i in range(2):
        part = {name: weights[name] for name in names[i::2]}
        torch.save(part, tmp_path / "shards" / f"pytorch_model-0000{i + 1}-of-00002.bin")
    for place in ("one", "shards"):
        assert MTRanker(str(tmp_path / place)).score(SOURCES[:5], TRANSLATIONS[:5], OTHERS[:5]) == pytest.approx(
            expected, abs=1e-6
        )
    (tmp_path / "shards" / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(UsageError, match=r"lacks|not a whole MT-Ranker"):
        MTRanker(str(tmp_path / "shards"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("classifier.weight"), r"lacks classifier\.weight: it is not MT-Ranker, an mT5 encoder with a head"),
        (lambda w: w.update({"classifier.bias": w["classifier.bias"][:1]}), r"classifier\.bias has the shape \[1\], expected \[2\]"),
        (lambda w: w.update({"classifier.weight": w["classifier.weight"][:, :8]}), r"has the shape \[2, 8\], expected \[2, 16\]"),
        (lambda w: w.pop("encoder.encoder.final_layer_norm.weight"), r"not a whole MT-Ranker: .*final_layer_norm"),
        (lambda w: w.pop("encoder.encoder.block.0.layer.1.DenseReluDense.wi_0.weight"), "no mT5 encoder has its weights"),
        (
            lambda w: [w.update({n: w[n][:300]}) for n in ("encoder.shared.weight", "encoder.encoder.embed_tokens.weight")],
            r"does not fit its tokenizer: 500 tokens, but 300 embeddings",
        ),
    ],
)  # fmt: skip
def test_unfit_checkpoints_are_refused_in_one_line(folder, tmp_path, change, message):
    with pytest.raises(UsageError, match=message) as raised:
        MTRanker(copy_of(folder, tmp_path / "changed", change))
    assert "\n" not in str(raised.value)


def test_what_else_is_no_mt_ranker(folder, tmp_path, model, monkeypatch):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match="holds an adapter, not a whole model; merge it"):
        MTRanker(str(tmp_path / "adapter"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no weights"):
        MTRanker(str(tmp_path / "empty"))
    with pytest.raises(UsageError, match="does not exist"):
        MTRanker(str(tmp_path / "missing"))
    with pytest.raises(UsageError, match=r"missing in its cache .*hf download ibraheemmoosa/mt-ranker-large"):
        MTRanker(DEFAULT)
    with pytest.raises(UsageError, match="3 translations of 2 sources, compared with 3"):
        model.score(["S"] * 2, ["A"] * 3, ["B"] * 3)


def test_scores_that_are_no_number_are_found(folder, tmp_path):
    damaged = MTRanker(copy_of(folder, tmp_path / "nan", lambda w: w["classifier.weight"].fill_(3e38)))
    with pytest.raises(UsageError, match=r"in float32 gives nan for 'Source: .*its weights are damaged; download"):
        damaged.score(SOURCES[:2], TRANSLATIONS[:2], OTHERS[:2])


def test_long_inputs_are_cut_and_counted(model):
    [row] = model._token_ids(["a b " * 4000])
    assert len(row) == 1536 and row[-1] == model._checkpoint.tokenizer.eos_token_id and model.truncated == 1


@pytest.mark.parametrize("devices", [["cpu", "cpu:0"], ["cpu"] * 3])
def test_several_devices_give_the_scores_of_one_in_order(folder, model, tmp_path, devices):
    several = MTRanker(folder, devices=devices, batch_tokens=300)
    assert len({id(copy) for copy in several._replicas.models}) == len(set(devices)), "a copy for each device"
    assert several.score(SOURCES, TRANSLATIONS, OTHERS) == pytest.approx(
        model.score(SOURCES, TRANSLATIONS, OTHERS), abs=1e-5
    )
    metricx = build_metricx(tmp_path / "metricx-24", SOURCES + TRANSLATIONS)
    one = MetricX(metricx, devices=["cpu"])
    expected = [one.score([a], [b])[0] for a, b in PAIRS]
    assert MetricX(metricx, devices=devices).score(SOURCES, TRANSLATIONS) == pytest.approx(expected, abs=1e-5)


def test_each_device_works_and_an_error_in_one_ends_all():
    import torch

    rows = [[i] * (1 + i % 7) for i in range(200)]
    both, threads = threading.Barrier(2, timeout=120), set()

    def doubled(model, ids, mask):
        if threading.get_ident() not in threads:
            threads.add(threading.get_ident())
            both.wait()  # the first batch of each waits for that of the other
        return model(ids[:, 0].float()[:, None])[:, 0]

    linear = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(linear.weight, 2.0)
    torch.nn.init.zeros_(linear.bias)
    replicas = Replicas(linear, ["cpu", "cpu:0"])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        assert [float(value) for value in replicas.run(rows, doubled, 50)] == [2.0 * i for i in range(200)]
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 4, "what starts later has all threads again"
    finally:
        torch.set_num_threads(before)
    assert len(threads) == 2

    calls = itertools.count()

    def fails(model, ids, mask):
        if next(calls) == 0:
            raise RuntimeError("no memory")
        time.sleep(0.05)
        return ids[:, 0]

    with pytest.raises(RuntimeError, match="no memory"):
        replicas.run(rows, fails, 1)
    assert next(calls) < len(rows), "nobody goes on after the error"


def test_batches_do_not_depend_on_the_devices():
    """What else is in a batch changes the last bits of a score."""
    import torch

    def shape_of_batch(model, ids, mask):
        return torch.tensor([ids.shape] * len(ids))

    rows = [[i] * (1 + i % 7) for i in range(60)]
    found = [
        [part.tolist() for part in Replicas(torch.nn.Linear(1, 1), devices).run(rows, shape_of_batch, 50)]
        for devices in (["cpu"], ["cpu"] * 2, ["cpu", "cpu:0"], ["cpu"] * 5)
    ]
    assert all(one == found[0] for one in found) and found[0][6] == [7, 7], "as many rows as fit 50 tokens"


def test_batches_are_full_and_the_longest_come_first():
    lengths = [5, 1, 9, 3, 3, 8]
    batches = list(by_length(lengths, 18))
    assert sorted(i for batch in batches for i in batch) == list(range(6))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 18 for batch in batches)
    assert [lengths[i] for batch in batches for i in batch] == sorted(lengths, reverse=True)
    assert list(by_length([30], 18)) == [[0]], "a row that is longer goes alone"
