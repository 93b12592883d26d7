"""MetricX: the publisher's values on a tiny checkpoint, both versions' inputs, batches, refusals."""

import json
from pathlib import Path

import pytest

from tests.support.runs import ROOT
from tests.support.tiny_metricx import CONFIG, build_metricx
from tests.support.tiny_models import remove_weights, udhr_pairs
from topxgen.common.errors import UsageError
from topxgen.quality import metricx
from topxgen.quality.metricx import MetricX, model_inputs

PAIRS = udhr_pairs("Basque")[:20]
SOURCES, TRANSLATIONS = [a for a, _ in PAIRS], [b for _, b in PAIRS]
# Rows of token ids and their logits by google-research/metricx's MT5ForRegression (transformers 4.46.3, float32, CPU) with the
# weights of tests/support/tiny_metricx.py.
GOLDEN = [
    ([236226], -0.52264803647995),
    ([156274, 171045, 224303], 0.5851574540138245),
    ([144574, 193922, 208413, 56304, 13885, 75043, 71268], 0.1639598160982132),
    ([218388, 228156, 1319, 124948, 205307, 32862, 199267, 29773, 116985, 204116, 75760, 85402], -0.5173124074935913),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return build_metricx(tmp_path_factory.mktemp("models") / "metricx-24-tiny", SOURCES + TRANSLATIONS)


@pytest.fixture(scope="module")
def model(folder):
    model = MetricX(folder)
    yield model
    model.close()


def test_logits_are_the_publishers(model):
    assert model.logits([row for row, _ in GOLDEN]) == pytest.approx([value for _, value in GOLDEN], abs=2e-6)


def test_all_golden_values_of_this_machine(model):
    path = ROOT.parent / "shared" / "parity" / "neural_metrics.json"
    if not path.exists():
        pytest.skip("the golden values are not on this machine")
    golden = json.loads(path.read_text())["metricx"]
    assert golden["config"].items() <= CONFIG.items()
    logits = model.logits(golden["rows"])
    assert logits == pytest.approx(golden["before_clipping"], abs=2e-6)
    assert [max(0.0, value) for value in logits] == pytest.approx(golden["predictions"], abs=2e-6)


def test_scores_are_clipped_and_do_not_depend_on_the_batch(folder, model, monkeypatch):
    together = model.score(SOURCES, TRANSLATIONS)
    alone = [model.score([a], [b])[0] for a, b in PAIRS]
    assert together == pytest.approx(alone, abs=1e-5) and len(set(together)) > 5
    assert min(together) > 0 and max(together) < 25
    for factor, limit in ((1e3, 25.0), (-1e3, 0.0)):
        with monkeypatch.context() as patched:
            patched.setattr(model, "_score_weights", model._score_weights * factor)
            assert set(model.score(SOURCES, TRANSLATIONS)) == {limit}
    small = MetricX(folder, batch_tokens=200)
    assert small.score(SOURCES, TRANSLATIONS) == pytest.approx(together, abs=1e-5)


def test_tied_embeddings_scale_the_output(tmp_path, model):
    """Weights of the embeddings as the output layer, times d_model ** -0.5."""
    import torch
    from transformers import MT5ForConditionalGeneration

    folder = build_metricx(tmp_path / "metricx-24-tied", TRANSLATIONS, tie_word_embeddings=True)
    tied, whole = MetricX(folder), MT5ForConditionalGeneration.from_pretrained(folder)
    output = whole.shared.weight[metricx.SCORE_TOKEN].detach()
    assert torch.allclose(tied._score_weights, output / 4) and tied._checkpoint.is_tied
    assert not torch.allclose(tied._score_weights, model._score_weights)
    rows = [row for row, _ in GOLDEN]
    ids, start = torch.tensor([rows[1]]), torch.tensor([[0]])
    with torch.inference_mode():
        hidden = whole(input_ids=ids, decoder_input_ids=start, output_hidden_states=True).decoder_hidden_states[-1]
    assert tied.logits([rows[1]])[0] == pytest.approx(float(hidden[0, 0] @ output * 16**-0.5), abs=1e-5)


@pytest.mark.parametrize(
    "version, references, expected",
    [
        (24, None, "source: S candidate: H"),
        (24, ["R"], "source: S candidate: H reference: R"),
        (23, None, "candidate: H source: S"),
        (23, ["R"], "candidate: H reference: R"),
    ],
)
def test_what_a_model_reads(version, references, expected):
    assert model_inputs(version, ["S"], ["H"], references) == [expected]


def test_braces_in_texts_are_texts():
    assert model_inputs(24, ["{0}"], ["{1} {x}"]) == ["source: {0} candidate: {1} {x}"]


def test_end_of_sequence_is_left_out_and_long_inputs_are_cut(model):
    [row] = model._token_ids(["source: Kaixo. candidate: Hello."])
    assert row == model._checkpoint.tokenizer("source: Kaixo. candidate: Hello.")["input_ids"][:-1]
    before = model.truncated
    [long] = model._token_ids(["a b " * 4000])
    assert len(long) == 1535 and model.truncated == before + 1


def test_versions_and_references(folder, tmp_path):
    links = {name: tmp_path / name for name in ("metricx-23-large", "metricx-23-qe-large", "scores")}
    for link in links.values():
        link.symlink_to(folder)
    assert metricx.read_checkpoint(folder).needs_reference is None
    with pytest.raises(
        UsageError, match="only the name tells them; pass a folder or Hub id with metricx-23 or metricx-24"
    ):
        MetricX(str(links["scores"]))
    qe, with_references = MetricX(str(links["metricx-23-qe-large"])), MetricX(str(links["metricx-23-large"]))
    assert len(qe.score(["S"], ["H"])) == len(with_references.score(["S"], ["H"], ["R"])) == 1
    with pytest.raises(UsageError, match="scores without references only"):
        qe.score(["S"], ["H"], ["R"])
    with pytest.raises(UsageError, match="scores with references only; pass a metricx-23-qe or"):
        with_references.score(["S"], ["H"])


def test_what_is_no_metricx_ends_in_one_line(tmp_path, folder):
    other = tmp_path / "metricx-24-other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "m2m_100", "vocab_size": 256206}')
    with pytest.raises(UsageError, match="is a m2m_100 model with 256206 tokens, not MetricX"):
        MetricX(str(other))
    with pytest.raises(UsageError, match="does not exist"):
        MetricX(str(tmp_path / "metricx-24-missing"))
    with pytest.raises(UsageError, match=r"cannot load 'google/metricx-24-hybrid-large-v2p6' .*local folder"):
        MetricX(metricx.DEFAULT)
    damaged = tmp_path / "metricx-24-damaged"
    damaged.mkdir()
    for path in Path(folder).iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    remove_weights(damaged, "lm_head")
    with pytest.raises(UsageError, match=r"has shared\.weight alone"):
        MetricX(str(damaged))
