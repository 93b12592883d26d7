"""Pairs with sentence vectors, a map of them in two dimensions and their neighbours, as Embedding Atlas reads them.

atlas/pairs.parquet (https://apple.github.io/embedding-atlas/tool.html): x and y by UMAP (McInnes et al. 2018, arXiv 1802.03426);
`neighbors` is {"ids": row numbers, "distances": 1 - cosine}, the nearest first, the row itself left out.
"""

import importlib.util
from pathlib import Path

from topxgen.common.console import Progress
from topxgen.common.errors import UsageError
from topxgen.common.provenance import hash64
from topxgen.common.reservoir import Reservoir
from topxgen.publication.sources import Config, Pair, Paragraph
from topxgen.retrieval import encoders
from topxgen.text.languages import Language

NEIGHBOURS = 10
UMAP_NEIGHBOURS, MIN_DISTANCE = 15, 0.1  # umap-learn's defaults
MIN_UMAP_ROWS = 10  # fewer are projected on their two main axes: UMAP has no graph to speak of
COLUMNS = ("id", "source", "target", "src", "tgt", "score", "topic", "paragraph_id", "back_translator")


class Atlas:
    """Takes `limit` of the pairs at random, the same for the same pairs and seed, and writes them with their vectors.

    `encoder` is one of topxgen.retrieval.encoders. It gets the translations; where it was not trained on their language, the
    sentences.
    """

    def __init__(self, encoder, limit: int, seed: int):
        """Raises UsageError if umap-learn is missing."""
        if importlib.util.find_spec("umap") is None:
            raise UsageError("--atlas needs umap-learn: pip install 'umap-learn>=0.5.9'")
        self._encoder, self._limit, self._seed = encoder, limit, seed
        self._kept: Reservoir[tuple[str, str, Language, Pair]] = Reservoir(limit)

    @property
    def settings(self) -> dict:
        return {"encoder": self._encoder.version, "pairs": self._limit}

    def side(self, config: Config) -> tuple[str, Language]:
        """The column that is encoded, and its language. Raises UsageError if the encoder knows neither side."""
        for column, language in {"source": config.target, "target": config.language}.items():
            if encoders.was_trained_on(self._encoder, language):
                return column, language
        raise UsageError(
            f"--atlas: the encoder knows neither {config.target.name} nor {config.language.name}; pass another --encoder"
        )

    def add(self, config: Config, split: str, paragraph: Paragraph) -> None:
        column, language = self.side(config)
        for pair in paragraph.pairs:
            self._kept.add((split, column, language, pair), hash64(f"{self._seed}\0{pair.id}\0{pair.target}"))

    def write(self, folder: Path) -> int:
        """Write atlas/pairs.parquet below `folder`; how many rows it has."""
        import pyarrow
        from pyarrow import parquet

        rows = self._kept.in_order()
        vectors = self._encode([(getattr(pair, column), language) for _, column, language, pair in rows])
        ids, distances = neighbours(vectors)
        x, y = positions(vectors, self._seed).T
        columns = {name: [getattr(row[-1], name) for row in rows] for name in COLUMNS}
        columns |= {"split": [row[0] for row in rows], "encoded": [row[1] for row in rows], "x": x, "y": y}
        columns["neighbors"] = [{"ids": i, "distances": d} for i, d in zip(ids, distances, strict=True)]
        columns["vector"] = list(vectors)
        kinds = {"score": pyarrow.float64(), "topic": pyarrow.string(), "vector": pyarrow.list_(pyarrow.float32())}
        lists = [("ids", pyarrow.list_(pyarrow.int64())), ("distances", pyarrow.list_(pyarrow.float64()))]
        kinds["neighbors"] = pyarrow.struct(lists)
        table = {name: pyarrow.array(values, kinds.get(name)) for name, values in columns.items()}
        (folder / "atlas").mkdir()
        parquet.write_table(pyarrow.table(table), folder / "atlas" / "pairs.parquet", compression="zstd")
        return len(rows)

    def _encode(self, texts: list[tuple[str, Language]]):
        """Vectors of the texts, each in its language: (number of texts, dimension)."""
        import numpy as np

        vectors = np.empty((len(texts), self._encoder.dimension), np.float32)
        places: dict[Language, list[int]] = {}
        for i, (_, language) in enumerate(texts):
            places.setdefault(language, []).append(i)
        with Progress("encode", len(texts), "texts") as bar:
            for language, own in places.items():
                vectors[own] = self._encoder.encode([texts[i][0] for i in own], language, bar.update)
        return vectors


def neighbours(vectors) -> tuple[list[list[int]], list[list[float]]]:
    """(rows, 1 - cosine) of the nearest other rows of each row of `vectors` (n, d), nearest first."""
    from topxgen.retrieval.nearest import nearest

    found = nearest(vectors, min(NEIGHBOURS, len(vectors) - 1)).tolist()
    return found, distances(vectors, found)


def distances(vectors, rows: list[list[int]]) -> list[list[float]]:
    """1 - cosine of each of `vectors` (n, d) and those in its place of `rows`."""
    import numpy as np

    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    units = vectors / np.where(lengths == 0, 1, lengths)[:, None]
    return [(1 - units[own] @ unit).clip(0).round(6).tolist() for unit, own in zip(units, rows, strict=True)]


def positions(vectors, seed: int):
    """A place in two dimensions for each row of `vectors` (n, d), the same for the same vectors and seed: (n, 2)."""
    import numpy as np

    if len(vectors) < MIN_UMAP_ROWS:
        centred = vectors - vectors.mean(axis=0)
        left, scale, _ = np.linalg.svd(centred, full_matrices=False)
        main = (left * scale)[:, :2].astype(np.float64)
        return np.pad(main, ((0, 0), (0, 2 - main.shape[1])))
    import warnings

    import umap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed means one thread, and what small graphs fall back to
        mapper = umap.UMAP(
            n_neighbors=min(UMAP_NEIGHBOURS, len(vectors) - 1),
            min_dist=MIN_DISTANCE,
            metric="cosine",
            random_state=seed,
        )
        return mapper.fit_transform(vectors).astype(np.float64)
