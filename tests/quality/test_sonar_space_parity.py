"""SONAR vectors and BLASER scores against sonar-space's own classes, on random weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny_models import nllb_tokenizer, udhr_pairs
from tests.support.tiny_sonar import distance
from topxgen.quality import sonar
from topxgen.quality.blaser import Blaser
from topxgen.text import languages

PAIRS = udhr_pairs("Basque")[:30]
BASQUE, ENGLISH = languages.find("Basque"), languages.find("English")
PURE = ("importlib_resources", "ruamel.yaml", "importlib_metadata", "lazy_importer", "clusterscope")
REFERENCE = """
import json, sys
from pathlib import Path
import torch
from fairseq2.data.tokenizers import VocabularyInfo
from fairseq2.nn import BatchLayout
from fairseq2.runtime.dependency import DependencyContainer
from sonar.models.blaser.config import BlaserConfig
from sonar.models.blaser.factory import _create_blaser_model
from sonar.models.sonar_text.config import SonarTextEncoderConfig
from sonar.models.sonar_text.factory import _create_sonar_text_encoder_model

folder = Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
torch.manual_seed(0)
encoder = _create_sonar_text_encoder_model(SonarTextEncoderConfig(
    model_dim=job["width"], max_seq_len=512, num_encoder_layers=job["layers"], num_decoder_layers=job["layers"],
    num_encoder_attn_heads=job["width"] // 64, num_decoder_attn_heads=job["width"] // 64, ffn_inner_dim=8 * job["width"],
    vocab_info=VocabularyInfo(size=job["vocabulary"], unk_idx=1, bos_idx=2, eos_idx=3, pad_idx=1),
    pooling="mean", _from_fairseq=True,
)).eval()
blaser = _create_blaser_model(BlaserConfig(
    input_form="QE", embedding_dim=job["width"], hidden_dims=[3 * job["width"], 3 * job["width"] // 2],
)).eval()
with torch.no_grad():
    for parameter in [*encoder.parameters(), *blaser.parameters()]:
        parameter.add_(torch.randn_like(parameter), alpha=0.01)
torch.save({"model": encoder.state_dict()}, folder / "sonar_text_encoder.pt")
torch.save({"model": blaser.state_dict()}, folder / "model.pt")

def embed(rows):
    lengths = [len(row) for row in rows]
    ids = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    for target, row in zip(ids, rows):
        target[: len(row)] = torch.tensor(row)
    return encoder(ids, BatchLayout.of(ids, lengths)).sentence_embeddings

with torch.inference_mode():
    batches = [[embed(rows[i : i + 5]) for i in range(0, len(rows), 5)] for rows in job["rows"]]
    a, b = (torch.cat(batch) for batch in batches)
    torch.save({"a": a, "b": b, "scores": blaser(a, b)[:, 0]}, folder / "reference.pt")
"""


@pytest.fixture(scope="module")
def sonar_space_path(request) -> str:
    """sonar-space and fairseq2's Python, without fairseq2's compiled half, which its classes do not need."""
    place = Path(request.config.cache.mkdir("sonar-space"))
    if not (place / "fairseq2n").is_dir():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(place)]
        result = subprocess.run([*command, "fairseq2==0.8.1", "sonar-space==0.5.0", *PURE])
        if result.returncode:
            pytest.skip("sonar-space cannot be fetched here")
        (place / "fairseq2n").mkdir()
        (place / "fairseq2n" / "__init__.py").write_text("DOC_MODE = True\n")
    return str(place)


@pytest.mark.slow
@pytest.mark.parametrize("width, layers, pairs", [(128, 3, 30), (1024, 24, 6)], ids=["small", "real size"])
def test_parity_with_sonar_space(sonar_space_path, tmp_path, width, layers, pairs, capsys):
    import torch

    tokenizer = nllb_tokenizer([text for pair in PAIRS for text in pair])
    tokenizer.save_pretrained(tmp_path)
    sides = [list(side) for side in zip(*PAIRS[:pairs], strict=True)]
    sides[0][2] *= 30  # longer than 514 tokens

    def fairseq2_ids(text: str, language) -> list[int]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        row = [tokenizer.convert_tokens_to_ids(language.flores), *ids, tokenizer.eos_token_id][:514]
        return [{0: 2, 1: 0, 2: 3, 3: 1}.get(token, token) for token in row]

    rows = [
        [fairseq2_ids(text, language) for text in side] for side, language in zip(sides, (BASQUE, ENGLISH), strict=True)
    ]
    vocabulary = len(tokenizer) if width < 1024 else 256206
    job = {"width": width, "layers": layers, "vocabulary": vocabulary, "rows": rows}
    (tmp_path / "job.json").write_text(json.dumps(job))
    try:
        subprocess.run(
            [sys.executable, "-c", REFERENCE, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": sonar_space_path},
            check=True,
        )
        reference = torch.load(tmp_path / "reference.pt", weights_only=True)
        scorer = Blaser(str(tmp_path), str(tmp_path))
        vectors = [
            scorer._encoder.encode(side, language) for side, language in zip(sides, (BASQUE, ENGLISH), strict=True)
        ]
        scores = scorer.score(*sides, BASQUE, ENGLISH)
        assert scorer.truncated == 2  # one text, embedded twice
        off = [distance(ours, reference[key]) for ours, key in zip(vectors, "ab", strict=True)]
        scores_off = distance(torch.tensor(scores), reference["scores"])
        with capsys.disabled():
            print(
                f"\n{layers} layers of {width}: vectors differ by {max(off):.1e} at most (of up to "
                f"{float(reference['a'].abs().max()):.2f}), scores by {scores_off:.1e} (they spread over "
                f"{float(reference['scores'].max() - reference['scores'].min()):.2e})"
            )
        assert max(off) < 1e-5 and scores_off < 1e-5
        scorer.close()
    finally:
        (tmp_path / sonar.ORIGINAL).unlink(missing_ok=True)  # 3 GB
