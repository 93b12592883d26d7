"""--atlas: vectors of the encoder, true neighbours, places that the seed decides."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from comptra.verify import verify
from tests.support.flipped_bytes import flip_each
from tests.support.publishing import make_run, publish, record, refused, rows
from tests.support.tiny_models import udhr_texts
from tests.support.tiny_sonar import build_sonar
from topxgen.common import checksums
from topxgen.publication.atlas import distances, neighbours, positions


def table(out):
    from pyarrow import parquet

    return parquet.read_table(out / "atlas" / "pairs.parquet")


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlas")
    by_language = {
        name: [record(n, language=name) for n in numbers]
        for name, numbers in (("Basque", range(20)), ("Hausa", range(40, 50)))
    }
    run = make_run(folder / "run", by_language)
    publish(run, folder / "one", "--atlas", "--validation_size", "4")
    publish(run, folder / "few", "--atlas", "--atlas_pairs", "5")
    return folder


@pytest.mark.medium
def test_every_pair_has_a_place_a_vector_and_neighbours(atlas):
    import pyarrow as pa

    found = table(atlas / "one")
    assert found.schema.field("neighbors").type == pa.struct(
        [("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float64()))]
    )
    data = found.to_pylist()
    pairs = {
        row["id"]: (row, split)
        for c in ("Basque", "Hausa")
        for split in ("train", "validation")
        for row in rows(atlas / "one", c, split)
    }
    assert len(data) == len(pairs) == 60
    for row in data:
        pair, split = pairs[row["id"]]
        assert row["split"] == split and row["encoded"] == "source"
        assert all(row[name] == pair[name] for name in ("source", "target", "src", "tgt", "score", "topic"))
        assert len(row["vector"]) == 512 and np.isfinite([row["x"], row["y"]]).all()
    vectors = np.array([row["vector"] for row in data], np.float64)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -2)
    for i, row in enumerate(data):
        nearest = sorted(range(60), key=lambda j, i=i: -cosines[i, j])[:10]
        assert i not in row["neighbors"]["ids"] and len(set(row["neighbors"]["ids"])) == 10
        np.testing.assert_allclose(row["neighbors"]["distances"], np.clip(1 - cosines[i, nearest], 0, None), atol=2e-6)
        np.testing.assert_allclose(
            row["neighbors"]["distances"], np.clip(1 - cosines[i, row["neighbors"]["ids"]], 0, None), atol=2e-6
        )


@pytest.mark.medium
def test_the_seed_decides_the_places(atlas):
    data = table(atlas / "one").to_pylist()
    vectors = np.array([row["vector"] for row in data], np.float32)
    np.testing.assert_array_equal(positions(vectors, 122), [[row["x"], row["y"]] for row in data])
    assert not np.array_equal(positions(vectors, 1), positions(vectors, 122))


@pytest.mark.medium
@pytest.mark.parametrize("change", ["nothing", "text", "ids", "distances", "not the nearest"])
def test_a_changed_map_is_found(atlas, tmp_path, change):
    """With checksums to match."""
    import pyarrow
    from pyarrow import parquet

    out = Path(shutil.copytree(atlas / "one", tmp_path / "out"))
    path, data = out / "atlas" / "pairs.parquet", table(out)
    rows = data.to_pylist()
    if change == "text":
        rows[3]["source"] += "."
    near = rows[3]["neighbors"]
    if change in ("ids", "not the nearest"):
        near["ids"][0] = next(i for i in range(60) if i not in {3, *near["ids"]})
    if change == "not the nearest":
        vectors = np.array([row["vector"] for row in rows], np.float32)
        near["distances"] = distances(vectors, [row["neighbors"]["ids"] for row in rows])[3]
    elif change == "distances":
        near["distances"][0] += 0.01
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=data.schema), path)
    names = list(checksums.read(out))
    (out / checksums.NAME).unlink()
    checksums.claim(out, names)
    said = "row 4 is no pair" if change == "text" else "neighbors of row 4"
    assert [said in str(problem) for problem in verify(out).problems] == ([] if change == "nothing" else [True])


@pytest.mark.medium
def test_a_sample_of_the_pairs(atlas):
    data = table(atlas / "few").to_pylist()
    assert len(data) == 5 and all(len(row["neighbors"]["ids"]) == 4 for row in data)
    found = flip_each(atlas / "few", 1)
    assert {"pairs.parquet", "train.parquet", "README.md", "manifest_publish.json", "SHA256SUMS"} <= found


@pytest.mark.parametrize("count", [1, 2, 3, 9, *(pytest.param(n, marks=pytest.mark.medium) for n in (10, 11, 16))])
def test_few_pairs(count):
    vectors = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    ids, distances = neighbours(vectors)
    assert [len(own) for own in ids] == [len(own) for own in distances] == [min(10, count - 1)] * count
    places = positions(vectors, 122)
    assert places.shape == (count, 2) and np.isfinite(places).all()
    np.testing.assert_array_equal(places, positions(vectors, 122))


@pytest.mark.medium
def test_texts_of_one_kind_are_near_each_other_on_the_map():
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(3, 32)) * 8
    vectors = np.concatenate([centre + rng.normal(size=(30, 32)) for centre in centres]).astype(np.float32)
    places = positions(vectors, 122)
    groups = np.repeat(np.arange(3), 30)
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.eye(90) * 1e9
    assert (groups[distances.argmin(axis=1)] == groups).mean() > 0.95


@pytest.mark.medium
def test_sonar_encodes_sides_by_their_languages(tmp_path):
    tiny_sonar_folder = build_sonar(tmp_path / "sonar", udhr_texts("English"))
    run = make_run(tmp_path / "run", {"Basque": [record(n) for n in range(10)]})
    publish(
        run,
        tmp_path / "out",
        "--atlas",
        "--encoder",
        "sonar",
        "--sonar_name_or_path",
        tiny_sonar_folder,
        "--encoder_device",
        "cpu",
    )
    data = table(tmp_path / "out").to_pylist()
    from topxgen.quality.sonar import SonarEncoder
    from topxgen.text import languages

    encoder = SonarEncoder(str(tiny_sonar_folder), device="cpu")
    wanted = encoder.encode([row["source"] for row in data], languages.find("English")).numpy()
    np.testing.assert_allclose(np.array([row["vector"] for row in data]), wanted, atol=1e-5)


def test_an_encoder_that_knows_neither_language(tmp_path):
    run = make_run(tmp_path / "run", {"Basque": [record(n) for n in range(10)]})
    settings = run / "nllb-200-3.3B" / "settings_translate.json"
    settings.write_text(settings.read_text().replace("English", "Hausa"))
    assert "the encoder knows neither Hausa nor Basque" in refused(run, tmp_path / "out", "--atlas")
