import shutil
from pathlib import Path

import pytest

from tests.attack.table import make_inputs
from tests.support import slurm
from tests.support.hub_server import HubServer
from tests.support.prefetch_runs import RUN, make_flores, make_writer
from tests.support.runs import ROOT


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with inputs, from which commands are started."""
    make_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if reason := slurm.missing():
        pytest.skip(reason)
    with slurm.Cluster(tmp_path_factory.mktemp("slurm"), nodes=2, cpus=4) as cluster:
        yield cluster


@pytest.fixture
def in_cluster(cluster, monkeypatch) -> None:
    """Commands of this process are the cluster's, with one thread each."""
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def here(in_cluster, place) -> Path:
    return place


@pytest.fixture(scope="module")
def repositories(tmp_path_factory, tiny_lm, tiny_nllb) -> Path:
    root = tmp_path_factory.mktemp("repositories")
    make_writer(tiny_lm, root / "models" / "org" / "writer")
    shutil.copytree(tiny_nllb, root / "models" / "org" / "nllb")
    make_flores(root / "datasets" / "openlanguagedata" / "flores_plus")
    return root


@pytest.fixture
def hub(repositories):
    with HubServer(repositories) as server:
        yield server


@pytest.fixture
def run_file(tmp_path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(RUN.format(out=tmp_path / "out", topics=ROOT / "topics" / "wikipedia_vital_topics.txt"))
    return path
