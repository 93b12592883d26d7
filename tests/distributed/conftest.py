import json
import random
from importlib.util import find_spec

import pytest

from tests.support import tiny_models
from tests.support.runs import ROOT
from topxgen.distributed import ray_cluster


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One local cluster for all tests of this process. One thread in each process: how many there are changes the last bits."""
    if (
        find_spec("ray") is None
    ):  # not imported here: what the product sets for a cluster of this machine alone is read then
        pytest.skip("Ray is not installed here (pip install 'ray>=2.60')")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield
        ray_cluster.disconnect()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A file of several chunks, with one leak and one malformed line."""
    folder = tmp_path_factory.mktemp("pairs")
    text = next(text for text in tiny_models.udhr_texts("Basque") if len(text.split()) > 15)
    rng, words = random.Random(3), text.split()
    with open(folder / "Basque_translate.jsonl", "w", encoding="utf-8") as file:
        for i in range(600):
            sentence = text if i == 400 else " ".join(rng.sample(words * 3, 15))
            record = {"id": str(i), "sentence": sentence, "propositions": [sentence], "translations": [sentence[::-1]]}
            file.write("{\n" if i == 77 else json.dumps(record | {"scores": [None]}, ensure_ascii=False) + "\n")
    return folder
