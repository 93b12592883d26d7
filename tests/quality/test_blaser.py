"""SONAR vectors and BLASER scores: against each other's layouts and a formula by hand, and what goes wrong."""

import gc
import json
import os
import pickle
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from tests.support.runs import ROOT
from tests.support.tiny_models import udhr_pairs
from tests.support.tiny_sonar import build_blaser, build_sonar, distance, to_original
from topxgen.common.errors import UsageError
from topxgen.inference.tokenizer import plain_ids
from topxgen.quality import blaser, sonar, sonar_space
from topxgen.quality.blaser import Blaser
from topxgen.quality.sonar import SonarEncoder
from topxgen.text import languages

PAIRS = udhr_pairs("Basque")[:30]
BASQUE, ENGLISH = languages.find("Basque"), languages.find("English")
WIDTH = 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a tiny network gains nothing from more, and loses on a busy machine
    yield build_sonar(tmp_path_factory.mktemp("sonar"), [text for pair in PAIRS for text in pair], WIDTH)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def original(tmp_path_factory, folder) -> str:
    """The same weights as a fairseq2 checkpoint, with the tokenizer beside it."""
    place = tmp_path_factory.mktemp("original")
    for file in Path(folder).glob("tokenizer*"):
        (place / file.name).write_bytes(file.read_bytes())
    return to_original(folder, place / sonar.ORIGINAL)


@pytest.fixture(scope="module")
def model_pt(tmp_path_factory) -> str:
    return build_blaser(tmp_path_factory.mktemp("blaser") / "model.pt", WIDTH)


@pytest.fixture(scope="module")
def encoder(folder):
    encoder = SonarEncoder(folder)
    yield encoder
    encoder.close()


def encoded_rows(encoder: SonarEncoder) -> list[int]:
    """Grows by the batch size of each run of the network."""
    sizes: list[int] = []
    encoder._replicas.models[0].register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return sizes


def test_importing_loads_nothing_heavy():
    code = (
        "import sys; import topxgen.quality.sonar, topxgen.quality.blaser, topxgen.quality.sonar_space; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy', 'huggingface_hub', 'sonar')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_both_layouts_give_the_same_vectors(folder, original, encoder, tmp_path):
    import torch

    texts = [text for text, _ in PAIRS]
    vectors = encoder.encode(texts, BASQUE)
    assert vectors.shape == (30, WIDTH) and vectors.dtype == torch.float32 and vectors.device.type == "cpu"
    for name in (original, str(Path(original).parent)):
        assert distance(SonarEncoder(name).encode(texts, BASQUE), vectors) < 1e-6
    # Weights as .bin, too.
    from safetensors.torch import load_file

    for file in Path(folder).glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(load_file(Path(folder) / "model.safetensors"), tmp_path / "pytorch_model.bin")
    assert distance(SonarEncoder(str(tmp_path)).encode(texts, BASQUE), vectors) < 1e-6


def test_a_vector_is_the_mean_over_code_text_and_end(folder, encoder):
    import torch
    from transformers import AutoTokenizer
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder

    tokenizer = AutoTokenizer.from_pretrained(folder, src_lang="eus_Latn")
    model = M2M100Encoder.from_pretrained(folder).eval()
    for text, _ in PAIRS[:5]:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        assert ids[0, 0] == tokenizer.convert_tokens_to_ids("eus_Latn") and ids[0, -1] == tokenizer.eos_token_id
        with torch.inference_mode():
            expected = model(input_ids=ids).last_hidden_state[0].mean(dim=0)
        assert distance(encoder.encode([text], BASQUE)[0], expected) < 1e-5
    assert distance(encoder.encode([text], BASQUE), encoder.encode([text], ENGLISH)) > 1e-3


def test_batches_order_and_repetitions_do_not_change_vectors(folder, encoder):
    texts = [text for text, _ in PAIRS]
    texts = [*texts[::-1], *texts[:10], texts[3]]
    one_by_one = [encoder.encode([text], BASQUE)[0] for text in texts]
    for batch_tokens in (1, 200, 10_000):
        vectors = SonarEncoder(folder, batch_tokens=batch_tokens).encode(texts, BASQUE)
        assert max(distance(vector, alone) for vector, alone in zip(vectors, one_by_one, strict=True)) < 1e-5
    assert encoder.encode([], BASQUE).shape == (0, WIDTH)


def test_batches_keep_to_their_size_and_texts_run_once(folder):
    encoder = SonarEncoder(folder, batch_tokens=300)
    shapes = []
    encoder._replicas.models[0].register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    texts = [text for text, _ in PAIRS]
    encoder.encode(texts * 3, BASQUE)
    assert sum(rows for rows, _ in shapes) == len(set(texts))
    assert all(rows * longest <= 300 or rows == 1 for rows, longest in shapes)
    assert len(shapes) < len(set(texts))


def test_marks_inside_a_text_are_text(encoder):
    plain, marked = encoder._token_ids(["a b", "a </s> eng_Latn <pad> b"], BASQUE)
    assert plain[0] == marked[0] and plain[-1] == marked[-1] == 2
    assert not {1, 2, encoder._checkpoint.tokenizer.convert_tokens_to_ids("eng_Latn")} & set(marked[1:-1])


def test_long_texts_are_cut_and_counted(folder):
    encoder = SonarEncoder(folder)
    word = "gizon "
    texts = (word * n + end for n in range(600, 0, -1) for end in ("", "a", "bat", "zq"))
    fits = next(text for text in texts if len(plain_ids(encoder._checkpoint.tokenizer, [text])[0]) == 514 - 2)
    encoder.encode([fits], BASQUE)
    assert encoder.truncated == 0
    vectors = encoder.encode([word * 600, word * 600, word * 700, "gizon"], BASQUE)
    assert encoder.truncated == 2
    assert distance(vectors[0], vectors[2]) < 1e-5  # equal up to the cut
    assert len(encoder._token_ids([word * 600], BASQUE)[0]) == 514


def test_scores_follow_the_published_formula(folder, model_pt, encoder):
    import torch

    sentences, translations = zip(*PAIRS, strict=True)
    scorer = Blaser(model_pt, folder)
    scorer.check(BASQUE, ENGLISH)
    scores = scorer.score(sentences, translations, BASQUE, ENGLISH)
    weights = torch.load(model_pt, weights_only=True)["model"]
    a, b = encoder.encode(sentences, BASQUE), encoder.encode(translations, ENGLISH)
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    x = torch.cat([a, b, a * b, (b - a).abs()], dim=1)
    x = torch.tanh(x @ weights["mlp.1.weight"].T + weights["mlp.1.bias"])
    x = torch.tanh(x @ weights["mlp.4.weight"].T + weights["mlp.4.bias"])
    expected = x @ weights["mlp.7.weight"].T + weights["mlp.7.bias"]
    assert distance(torch.tensor(scores), expected[:, 0]) < 1e-5
    assert len(set(scores)) > 20
    assert scorer.score(translations, sentences, ENGLISH, BASQUE) != scores


def test_empty_sides_have_no_score(folder, model_pt):
    scorer = Blaser(model_pt, folder)
    scores = scorer.score(["a", "", " \n", "b", "c"], ["x", "y", "z", "\t", "w"], BASQUE, ENGLISH)
    assert [score is None for score in scores] == [False, True, True, True, False]
    assert scorer.score([], [], BASQUE, ENGLISH) == [] and scorer.score(["\u200b"], ["x"], BASQUE, ENGLISH) == [None]
    with pytest.raises(ValueError):
        scorer.score(["a"], [], BASQUE, ENGLISH)


def test_texts_are_embedded_once_across_calls_and_languages_do_not_mix(folder, model_pt, monkeypatch):
    sentences, translations = zip(*PAIRS, strict=True)
    scorer = Blaser(model_pt, folder)
    sizes = encoded_rows(scorer._encoder)
    scores = scorer.score(sentences, translations, BASQUE, ENGLISH)
    distinct = len(set(sentences)) + len(set(translations))
    assert sum(sizes) == distinct
    # One source with several translations, blocks of a few pairs, another order: nothing new to embed.
    monkeypatch.setattr(blaser, "BLOCK_PAIRS", 7)
    again = scorer.score(sentences[::-1], translations[::-1], BASQUE, ENGLISH)
    assert sum(sizes) == distinct
    assert again == pytest.approx(scores[::-1], abs=1e-6)
    scorer.score([sentences[0]] * 2, [sentences[0], "new"], BASQUE, ENGLISH)
    assert sum(sizes) == distinct + 2  # the Basque sentence, now read as English, and the new one


def test_the_cache_keeps_to_its_size_and_what_was_used_last(folder, model_pt):
    sentences, translations = zip(*PAIRS, strict=True)
    one = max(len(text.encode()) for text in sentences + translations) + 100 + 4 * WIDTH
    small = Blaser(model_pt, folder, cache_bytes=4 * one)
    expected = Blaser(model_pt, folder).score(sentences, translations, BASQUE, ENGLISH)
    assert small.score(sentences, translations, BASQUE, ENGLISH) == pytest.approx(expected, abs=1e-6)
    assert 0 < small._vectors._size <= 4 * one
    sizes = encoded_rows(small._encoder)
    small.score(["a"], ["b"], BASQUE, ENGLISH)
    for text in "cdefghijklmnop" * 3:
        small.score(["a"], [text], BASQUE, ENGLISH)  # "a" is used each time and stays
    evicted = sum(sizes)
    small.score(["a"], ["p"], BASQUE, ENGLISH)
    assert sum(sizes) == evicted


def test_bfloat16_is_close(folder, model_pt):
    sentences, translations = zip(*PAIRS, strict=True)
    exact = Blaser(model_pt, folder).score(sentences, translations, BASQUE, ENGLISH)
    rough = Blaser(model_pt, folder, dtype="bfloat16")
    assert next(rough._encoder._replicas.models[0].parameters()).dtype.itemsize == 2
    assert rough.score(sentences, translations, BASQUE, ENGLISH) == pytest.approx(exact, abs=0.01)


def test_close_frees_the_network(folder, model_pt):
    scorer = Blaser(model_pt, folder)
    scorer.score(["a"], ["b"], BASQUE, ENGLISH)
    network = weakref.ref(scorer._encoder._replicas.models[0])
    weight = weakref.ref(scorer._encoder._replicas.models[0].embed_tokens.weight)
    vector = weakref.ref(next(iter(scorer._vectors._kept.values())))
    scorer.close()
    scorer.close()
    gc.collect()
    assert network() is None and weight() is None and vector() is None


def refused(call, *parts: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_blaser_files_that_are_something_else(folder, tmp_path):
    import torch

    def check(name: str, *parts: str) -> None:
        refused(lambda: blaser.preflight(name, folder), *parts)
        refused(lambda: Blaser(name, folder), *parts)

    other = tmp_path / "other.pt"
    torch.save({"model": {"encoder.weight": torch.zeros(2)}}, other)
    check(str(other), "other.pt", "encoder.weight", "mlp.1.weight", "facebook/blaser-2.0-qe")
    torch.save([torch.zeros(2)], other)
    check(str(other), "other.pt", "no named tensors")
    with_reference = build_blaser(tmp_path / "ref.pt", WIDTH, factor=6)
    check(with_reference, "reference-based", "768", "6 x 128")
    check(build_blaser(tmp_path / "wide.pt", 96), "384", "512", folder)
    weights = torch.load(build_blaser(tmp_path / "odd.pt", WIDTH), weights_only=True)["model"]
    weights["mlp.4.bias"] = torch.zeros(3)
    torch.save(weights, tmp_path / "odd.pt")
    check(str(tmp_path / "odd.pt"), "mlp.4.bias", "[3]", "[192]")
    deeper = {**weights, "mlp.10.weight": torch.zeros(1, 1)}
    torch.save(deeper, tmp_path / "deeper.pt")
    check(str(tmp_path / "deeper.pt"), "mlp.10.weight")
    torch.save({**weights, "mlp.4.bias": torch.tensor([0.0] * 191 + [float("nan")])}, tmp_path / "nan.pt")
    check(str(tmp_path / "nan.pt"), "NaN or infinities in mlp.4.bias")
    (tmp_path / "empty").mkdir()
    check(str(tmp_path / "empty"), "model.pt", "model.safetensors")
    check(str(tmp_path / "none.pt"), "none.pt", "does not exist")
    check("none.pt", "none.pt", "does not exist")
    check("someone/nothing-here", "someone/nothing-here", "local folder", "HF_HUB_OFFLINE")
    (tmp_path / "text.pt").write_text("hello there\n")
    check(str(tmp_path / "text.pt"), "text.pt", "damaged")
    whole = Path(build_blaser(tmp_path / "cut.pt", WIDTH)).read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    check(str(tmp_path / "cut.pt"), "cut.pt", "damaged")


def test_blaser_as_safetensors_or_bare_state_dict(folder, model_pt, tmp_path):
    import torch
    from safetensors.torch import save_file

    weights = torch.load(model_pt, weights_only=True)["model"]
    save_file(weights, tmp_path / "model.safetensors")
    torch.save(weights, tmp_path / "bare.pt")
    torch.save({"model": weights}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    expected = Blaser(model_pt, folder).score(["a"], ["b"], BASQUE, ENGLISH)
    for name in (tmp_path, tmp_path / "bare.pt", tmp_path / "old.pt", Path(model_pt).parent):
        assert Blaser(str(name), folder).score(["a"], ["b"], BASQUE, ENGLISH) == expected


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path):
        self.command = f"touch {path}"

    def __reduce__(self):
        return os.system, (self.command,)


def test_pickles_that_run_code_are_refused_and_not_run(folder, original, model_pt, tmp_path):
    import torch

    proof = tmp_path / "executed"
    evil = tmp_path / "evil.pt"
    torch.save({"model": {"mlp.1.weight": Malicious(proof)}}, evil)
    refused(lambda: Blaser(str(evil), folder), "evil.pt", "system", "could run code")
    refused(lambda: SonarEncoder(str(evil)), "evil.pt", "system", "could run code")
    evil.write_bytes(pickle.dumps({"mlp.1.weight": Malicious(proof)}, protocol=2))
    refused(lambda: Blaser(str(evil), folder), "evil.pt", "could run code")
    for file in Path(folder).glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({"embed_tokens.weight": Malicious(proof)}, tmp_path / "pytorch_model.bin")
    refused(lambda: SonarEncoder(str(tmp_path)), str(tmp_path))
    assert not proof.exists()


def test_sonar_names_that_lead_nowhere(folder, original, model_pt, tmp_path, monkeypatch):
    import torch

    def check(name: str, *parts: str) -> None:
        refused(lambda: blaser.preflight(model_pt, name), *parts)
        refused(lambda: SonarEncoder(name), *parts)

    check("someone/nothing-here", "someone/nothing-here", "local folder", "HF_HUB_OFFLINE")
    check(str(tmp_path / "none"), "does not exist", sonar.DEFAULT)
    check(str(tmp_path), "no weights", sonar.ORIGINAL)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "x.pt")
    check(str(tmp_path / "x.pt"), "not an original SONAR", "weight", "encoder_frontend.embed.weight")
    # An original without a tokenizer beside it takes NLLB's, which is out of reach here.
    (tmp_path / sonar.ORIGINAL).write_bytes(Path(original).read_bytes())
    check(str(tmp_path), sonar.ORIGINAL_TOKENIZER)
    refused(lambda: SonarEncoder(folder, dtype="float16"), "float16", "float32, bfloat16")
    refused(lambda: SonarEncoder(folder, device="tpu9"), "tpu9", "cpu, cuda")
    if not torch.cuda.is_available():
        refused(lambda: SonarEncoder(folder, device="cuda"), "cuda", "cpu")


def test_other_models_are_no_sonar(folder, original, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    from tests.support.tiny_models import build_nllb

    nllb = build_nllb(tmp_path / "nllb", PAIRS)
    refused(lambda: sonar.read_checkpoint(nllb), nllb, "M2M100ForConditionalGeneration", "M2M100Encoder")
    # Its configuration says encoder, its weights do not.
    config = json.loads((tmp_path / "nllb" / "config.json").read_text())
    (tmp_path / "nllb" / "config.json").write_text(json.dumps({**config, "architectures": ["M2M100Encoder"]}))
    refused(lambda: SonarEncoder(nllb), nllb, "lacks embed_tokens.weight", "also holds model.decoder")
    weights = torch.load(original, weights_only=True)["model"]
    place = Path(original).with_name("short.pt")
    torch.save({key: value for key, value in weights.items() if key != "layer_norm.bias"}, place)
    refused(lambda: SonarEncoder(str(place)), "short.pt", "layer_norm.bias")
    place.unlink()
    # A tokenizer with more tokens than there are vectors.
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in Path(folder).glob("*.json"):
        (copy / file.name).write_bytes(file.read_bytes())
    weights, one_less = load_file(Path(folder) / "model.safetensors"), len(AutoTokenizer.from_pretrained(folder)) - 1
    embedding = weights["embed_tokens.weight"][:one_less].clone()
    save_file({**weights, "embed_tokens.weight": embedding}, copy / "model.safetensors")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "vocab_size": one_less}))
    refused(lambda: sonar.read_checkpoint(str(copy)), str(copy), f"{one_less + 1} tokens, but {one_less} embeddings")


def test_languages_that_sonar_does_not_know(folder, model_pt, encoder, tmp_path):
    table = tmp_path / "mine.tsv"
    table.write_text("name\tflores\nQuenya\tqya_Latn\n", encoding="utf-8")
    unknown = languages.find("Quenya", str(table))
    refused(lambda: encoder.check(unknown), "Quenya", "'qya_Latn'", "202 languages", "omit")
    refused(lambda: encoder.encode(["a"], unknown), "Quenya")
    refused(lambda: blaser.preflight(model_pt, folder, [BASQUE, unknown]), "Quenya")
    refused(lambda: Blaser(model_pt, folder).check(unknown, ENGLISH), "Quenya")
    blaser.preflight(model_pt, folder, [BASQUE, ENGLISH])


def test_preflight_loads_no_encoder(folder, model_pt, monkeypatch):
    from transformers.models.m2m_100 import modeling_m2m_100

    monkeypatch.setattr(modeling_m2m_100, "M2M100Encoder", None)
    blaser.preflight(model_pt, folder, [BASQUE])
    refused(lambda: SonarEncoder(folder), "NoneType")


def test_the_reference_engine_says_how_to_install_it():
    for call in (sonar_space.SonarSpace, lambda: sonar_space.preflight([BASQUE])):
        refused(call, "sonar-space", "requirements-sonar.txt")


def test_the_reference_engine_scores_like_ours(folder, model_pt, monkeypatch):
    """Our side of it, with stand-ins for the classes that need fairseq2's compiled half."""
    import warnings

    native = Blaser(model_pt, folder)
    asked = []

    class Tokenizer:
        def create_encoder(self, lang):
            if lang != "eus_Latn" and lang != "eng_Latn":
                raise ValueError(f"`lang` must be a supported language, but is {lang} instead.")

    class Pipeline:
        def __init__(self, encoder, tokenizer, device, dtype):
            assert encoder == "text_sonar_basic_encoder"

        def predict(self, texts, source_lang, batch_size, batch_max_tokens):
            asked.extend(texts)
            warnings.warn(
                "For 2 input tensors for SONAR text encoder, the length was truncated to 514 elements.", stacklevel=1
            )
            return native._encoder.encode(texts, languages.find(source_lang))

    class Network:
        def to(self, *_):
            return self

        eval = to

        def __call__(self, src, mt):
            return native._network(src, mt)[:, None]

    parts = (Pipeline, lambda name: Network(), lambda name: Tokenizer())
    monkeypatch.setattr(sonar_space, "_import", lambda: parts)
    engine = sonar_space.SonarSpace()
    engine.check(BASQUE, ENGLISH)
    refused(lambda: engine.check(BASQUE, languages.find("Hausa")), "hau_Latn", "Hausa", "202 languages")
    sentences, translations = [*(a for a, _ in PAIRS), "a"], [*(b for _, b in PAIRS), " "]
    expected = native.score(sentences, translations, BASQUE, ENGLISH)
    assert engine.score(sentences, translations, BASQUE, ENGLISH) == pytest.approx(expected, abs=1e-6)
    assert engine.score(sentences, translations, BASQUE, ENGLISH)[-1] is None
    assert len(asked) == len(set(sentences[:-1])) + len(set(translations[:-1])) and engine.truncated == 4
    engine.close()
