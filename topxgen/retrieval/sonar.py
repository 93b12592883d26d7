"""Semantic similarity: cosine of SONAR vectors (topxgen.quality.sonar)."""

from topxgen.quality import sonar
from topxgen.text.languages import Language


class Sonar:
    """The encoder is loaded to embed texts and then freed: an LLM may need the GPU in between."""

    def __init__(self, pool: list[str], language: Language, settings):
        """Raises UsageError if the encoder is missing or does not know the language; loads no weights."""
        self._language = language
        self._checkpoint = sonar.read_checkpoint(settings.sonar_name_or_path)
        self._checkpoint.check(language)
        # Equal sentences share a vector, so that they tie exactly.
        indices = {text: i for i, text in enumerate(dict.fromkeys(pool))}
        self._distinct, self._indices = list(indices), [indices[text] for text in pool]
        self._pool = None  # vectors of length 1, (distinct sentences, width)
        self._queries: dict[str, object] = {}  # likewise, (width,)

    def prepare(self, queries: list[str]) -> None:
        """Embed all texts that have no vector yet."""
        import torch
        from torch.nn.functional import normalize

        pool = self._distinct if self._pool is None else []
        new = [query for query in dict.fromkeys(queries) if query not in self._queries]
        if not pool and not new:
            return
        encoder = sonar.SonarEncoder(self._checkpoint)
        try:
            with torch.inference_mode():
                vectors = normalize(encoder.encode([*pool, *new], self._language)).numpy()
        finally:
            encoder.close()
        if pool:
            self._pool = vectors[: len(pool)].copy()
        self._queries.update(zip(new, vectors[len(pool) :].copy(), strict=True))

    def scores(self, queries: list[str]):
        import numpy as np

        return (np.stack([self._queries[query] for query in queries]) @ self._pool.T)[:, self._indices]
