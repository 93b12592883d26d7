"""NLLB and its relatives: CTranslate2 against transformers' own `generate`, names of languages, bad checkpoints."""

import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from transformers import MarianConfig, MBartConfig

from tests.support import tiny_models
from topxgen import translation
from topxgen.common.errors import UsageError
from topxgen.text import languages
from topxgen.training.pairs import Pair
from topxgen.training.tokenization import Seq2SeqTokenizer
from topxgen.translation import TranslatorSettings, nllb, seq2seq_engines
from topxgen.translation.language_tokens import LanguageTokens, find_family
from topxgen.translation.nllb import split_long

BASQUE, NEPALI, ENGLISH = (languages.find(name) for name in ("Basque", "Nepali", "English"))
PAIRS = tiny_models.udhr_pairs("Basque")
SENTENCES = [basque for basque, _ in PAIRS]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for each other are slow on a busy machine: 1 s becomes minutes."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def open_translator(folder, cache, **options):
    settings = TranslatorSettings(nllb_name_or_path=str(folder), nllb_compute_type="float32", cache_dir=cache)
    translator = translation.create("nllb", replace(settings, **options))
    translator.load()
    return translator


@pytest.fixture(scope="session")
def fast(tiny_nllb, cache):
    translator = open_translator(tiny_nllb, cache)
    yield translator
    translator.close()


def texts(translations) -> list[str]:
    return [translation.text for translation in translations]


def test_it_translates_as_generate_does(fast, tiny_nllb):
    """Beam 5 of CTranslate2, batched and sorted, against transformers called by hand, one batch for each limit of length."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    sentences = SENTENCES[::2]
    tokenizer = AutoTokenizer.from_pretrained(tiny_nllb, src_lang="eus_Latn")
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_nllb)
    limits = [min(2 * -(-len(ids) // 32) * 32, 256) for ids in tokenizer(sentences)["input_ids"]]
    outputs = {}
    for limit in set(limits):
        batch = [sentence for sentence, own in zip(sentences, limits, strict=True) if own == limit]
        with torch.inference_mode():
            ids = model.generate(
                **tokenizer(batch, return_tensors="pt", padding=True),
                num_beams=5,
                early_stopping=True,
                forced_bos_token_id=tokenizer.convert_tokens_to_ids("eng_Latn"),
                max_new_tokens=limit,
            )
        outputs.update(zip(batch, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True))
    expected = [outputs[sentence].strip() for sentence in sentences]
    found = fast.translate(sentences, BASQUE, ENGLISH)
    assert texts(found) == expected
    assert sum(text.endswith(".") for text in expected) > 15, "the model was trained: its answers come to an end"
    assert all(0 < translation.confidence <= 1 for translation in found)


def test_what_is_cut_at_the_limit_is_marked(tiny_nllb, cache, monkeypatch):
    """Twice the tokens of the source, as published, are few for what the model says to one word."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    monkeypatch.setattr(nllb, "LENGTH_STEP", 1)
    tokenizer = AutoTokenizer.from_pretrained(tiny_nllb, src_lang="eus_Latn")
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_nllb)
    sources = [*dict.fromkeys(sentence.split()[0] for sentence in SENTENCES[:12]), *SENTENCES[:4]]
    sources += [
        "ordezkarien",
        "ahaleginaz",
        "irabazietan",
    ]  # whose translations end with the last token that is allowed
    ended = []
    for source in sources:
        inputs = tokenizer(source, return_tensors="pt")
        limit = 2 * inputs["input_ids"].shape[1]
        options = dict(
            num_beams=5, early_stopping=True, forced_bos_token_id=tokenizer.convert_tokens_to_ids("eng_Latn")
        )
        with torch.inference_mode():
            ids = model.generate(**inputs, **options, max_new_tokens=limit)[0, 1:].tolist()
        ended.append(tokenizer.eos_token_id in ids)
    assert {True, False} == set(ended)
    for engine in ("ctranslate2", "transformers"):
        translator = open_translator(tiny_nllb, cache, nllb_engine=engine)
        found = translator.translate(sources, BASQUE, ENGLISH)
        translator.close()
        assert [not translation.truncated for translation in found] == ended, engine


def test_engines_agree_and_order_is_kept(fast, tiny_nllb, cache):
    reference = open_translator(tiny_nllb, cache, nllb_engine="transformers")
    sentences = SENTENCES[1::3]
    expected = reference.translate(sentences, BASQUE, ENGLISH)
    found = fast.translate(sentences, BASQUE, ENGLISH)
    assert texts(found) == texts(expected)
    assert max(abs(a.confidence - b.confidence) for a, b in zip(found, expected, strict=True)) < 1e-3
    reference.close()
    assert fast.translate(sentences[::-1] * 2, BASQUE, ENGLISH) == found[::-1] * 2
    alone = [fast.translate([sentence], BASQUE, ENGLISH)[0] for sentence in sentences[:5]]
    assert texts(alone) == texts(found[:5]), "a translation does not depend on what else is translated"


def test_the_confidence_is_what_the_model_gives_its_translation(fast, tiny_nllb):
    """Each token's probability, the end's too, by the model itself after the tokens before it; the language token counts as certain."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_nllb, src_lang="eus_Latn")
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_nllb)
    compared = 0
    for sentence, found in zip(SENTENCES, fast.translate(SENTENCES[:12], BASQUE, ENGLISH), strict=False):
        ids = tokenizer(text_target=found.text, add_special_tokens=False)["input_ids"]
        if not found.text.endswith(".") or tokenizer.decode(ids) != found.text:
            continue
        target = [tokenizer.convert_tokens_to_ids("eng_Latn"), *ids, tokenizer.eos_token_id]
        before = torch.tensor([[model.config.decoder_start_token_id, *target[:-1]]])
        with torch.inference_mode():
            logits = model(**tokenizer(sentence, return_tensors="pt"), decoder_input_ids=before).logits[0]
        chosen = logits.log_softmax(-1)[range(len(target)), target][1:]
        assert found.confidence == pytest.approx((chosen.sum() / len(target)).exp().item(), abs=2e-4)
        compared += 1
    assert compared > 5


@pytest.mark.parametrize("engine", ["ctranslate2", "transformers", "apertium"])
def test_progress_is_reported_while_sentences_finish(engine, tiny_nllb, cache, monkeypatch):
    """In the end for every sentence that was passed, repeated ones and those without words included."""
    monkeypatch.setattr("topxgen.translation.seq2seq_engines.BATCH_TOKENS", {"cpu": 256, "cuda": 256})
    if engine != "apertium":
        translator = open_translator(tiny_nllb, cache, nllb_engine=engine)
    elif shutil.which("apertium"):
        translator = translation.create("apertium", TranslatorSettings())
    else:
        pytest.skip("Apertium is not installed here")
    done: list[int] = []
    sentences = [*SENTENCES[:12], "...", SENTENCES[0]]
    assert len(translator.translate(sentences, BASQUE, ENGLISH, done.append)) == len(sentences)
    assert sum(done) == len(sentences) and sum(n > 0 for n in done) > 3
    done.clear()
    translator.translate(["...", "!"], BASQUE, ENGLISH, done.append)
    assert sum(done) == 2
    translator.close()


def test_int8_stays_close(fast, tiny_nllb, cache):
    from sacrebleu import CHRF

    quantised = open_translator(tiny_nllb, cache, nllb_compute_type="int8")
    found = texts(quantised.translate(SENTENCES, BASQUE, ENGLISH))
    assert CHRF().corpus_score(found, [texts(fast.translate(SENTENCES, BASQUE, ENGLISH))]).score > 75
    assert "int8" in quantised.version
    quantised.close()


RELATIVES = {
    "m2m100": (tiny_models.build_m2m100, "M2M-100", NEPALI),
    "small100": (partial(tiny_models.build_m2m100, encoder_layers=2), "SMaLL-100", NEPALI),
    "madlad": (tiny_models.build_madlad, "MADLAD-400", BASQUE),
    "marian": (tiny_models.build_marian, "bilingual", BASQUE),
    "opus-many": (
        lambda folder, texts: tiny_models.build_marian(
            folder, texts, (">>eng<<", ">>npi<<", ">>zho<<", ">>zho_Hant<<")
        ),
        "multilingual Marian",
        BASQUE,
    ),
}
# Languages with another code there than in the language table.
OWN_CODES = {
    "m2m100": ("Norwegian Bokmål", "Norwegian", "Northern Sotho"),
    "madlad": ("Tagalog", "Filipino", "Dinka", "Twi", "Central Kanuri (Arabic script)"),
}


@pytest.mark.parametrize("name", RELATIVES)
def test_relatives_of_nllb(name, tmp_path, cache, caplog):
    """Each family's way of naming languages, in both engines, with the same translations."""
    build, family, source = RELATIVES[name]
    sentences = [text for text, _ in tiny_models.udhr_pairs(source.name)]
    folder = build(tmp_path / name, [text for pair in tiny_models.udhr_pairs(source.name) for text in pair])
    both = {}
    for engine in ("ctranslate2", "transformers"):
        translator = open_translator(folder, cache, nllb_engine=engine)
        assert translator.family.name == family
        translator.check(source, ENGLISH)
        if name in ("m2m100", "small100", "opus-many"):
            for script in ("Simplified", "Traditional"):
                translator.check(source, languages.find(f"Chinese ({script})"))
        for own in OWN_CODES.get(name, ()):
            translator.check(languages.find(own), ENGLISH)
            translator.check(source, languages.find(own))
        with pytest.raises(UsageError, match=r"does not know|translates from eu to en, not from"):
            translator.check(source, languages.find("Dzongkha"))
        both[engine] = texts(translator.translate(sentences[:2], source, ENGLISH))
        translator.close()
    assert both["ctranslate2"] == both["transformers"] and all(both["ctranslate2"])
    warned = re.findall(r"(\S+) of \S+ names no script, and (.+) is not written", caplog.text)
    assert set(warned) == ({("__zh__", "Chinese (Traditional)")} if name in ("m2m100", "small100") else set())


def test_sentences_without_words_and_repeated_ones(fast):
    odd = ["", "  ", "... !?", SENTENCES[0], "—", SENTENCES[0]]
    found = fast.translate(odd, BASQUE, ENGLISH)
    assert [bool(t.text) for t in found] == [False, False, False, True, False, True] and found[3] == found[5]
    assert fast.translate([], BASQUE, ENGLISH) == []


def test_a_source_longer_than_the_model_takes(fast):
    long = " ".join(SENTENCES[:14])
    found = fast.translate([SENTENCES[0], long], BASQUE, ENGLISH)
    assert found[0].segments == 1 and found[1].segments > 2
    assert len(found[1].text) > 3 * len(found[0].text)


@pytest.mark.parametrize(
    "text",
    [
        "Bat, bi; hiru. " * 40,
        "hitz " * 300,
        "luze" * 300,
        "एक वाक्य। " * 50,
        "。".join(["字" * 30] * 20),
        "။".join(["က" * 30] * 20),
    ],
)
def test_splitting_long_sources(text):
    """Nothing is lost, nothing is longer than the limit, and cuts fall behind punctuation where there is any."""

    def tokenize(parts):
        return [list(part) for part in parts]

    pieces = split_long(text.strip(), list(text.strip()), tokenize, 100)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert max(map(len, pieces)) <= 100
    if any(mark in text for mark in ".।。။"):
        assert (
            all(piece[-1] in ".।。။字က" for piece in pieces)
            and sum(piece[-1] in ".।。။" for piece in pieces) >= len(pieces) - 1
        )


def test_the_conversion_is_made_once(tiny_nllb, tmp_path, caplog):
    caplog.set_level("INFO")

    def conversions() -> int:
        return sum("converting" in record.getMessage() for record in caplog.records)

    for _ in range(2):
        open_translator(tiny_nllb, str(tmp_path)).close()
    assert conversions() == 1
    copy = tmp_path / "other"
    shutil.copytree(tiny_nllb, copy)
    open_translator(copy, str(tmp_path)).close()
    assert conversions() == 2, "another checkpoint, another conversion"
    edited = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(edited | {"scale_embedding": not edited["scale_embedding"]}))
    open_translator(copy, str(tmp_path)).close()
    assert conversions() == 3, "the configuration was corrected in place"


@pytest.mark.parametrize("purged", ["model.bin", "shared_vocabulary.json", "conversion.json", "cut model.bin", "older"])
def test_a_conversion_that_lacks_a_file_is_made_again(tiny_nllb, tmp_path, purged):
    """As after a purge of old files on scratch space, or by a version that converted incomplete checkpoints."""
    open_translator(tiny_nllb, str(tmp_path)).close()
    [folder] = (path for path in (tmp_path / "ctranslate2").iterdir() if path.is_dir())
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    if purged.startswith("cut "):
        (folder / "model.bin").write_bytes(whole["model.bin"][:1000])
    elif purged == "older":
        contents = json.loads(whole["conversion.json"])
        (folder / "conversion.json").write_text(json.dumps(contents | {"version": contents["version"] - 1}))
    else:
        (folder / purged).unlink()
    open_translator(tiny_nllb, str(tmp_path)).close()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_a_conversion_on_a_read_only_file_system_is_used(tiny_nllb, tmp_path, monkeypatch):
    open_translator(tiny_nllb, str(tmp_path)).close()

    def refuse(*_, **__):
        raise UsageError("read-only")

    monkeypatch.setattr(seq2seq_engines, "wait_for_lock", refuse)
    open_translator(tiny_nllb, str(tmp_path)).close()


def spoiled(tiny_nllb, folder: Path, change) -> str:
    shutil.copytree(tiny_nllb, folder)
    change(folder)
    return str(folder)


def edit_config(**changes):
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda folder: [path.unlink() for path in folder.glob("token*")], "tokenizer"),
        (lambda folder: (folder / "config.json").unlink(), "holds no model"),
        (lambda folder: (folder / "config.json").rename(folder / "adapter_config.json"), "is a LoRA adapter: merge it"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot load|cannot convert"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"torn"), "cannot load|cannot convert"),
        (lambda folder: tiny_models.remove_weights(folder, "decoder.layers.1."), r"lacks .*decoder\.layers\.1\."),
        (edit_config(decoder_ffn_dim=96), r"has other shapes in .*decoder\.layers\.0\.fc1\.bias"),
        (tiny_models.set_a_number(float("nan")), r"holds NaN or infinities in \S+norm\.weight: its training diverged"),
        (tiny_models.repeat_in_two_shards, r"in both model-1\.safetensors and model-2\.safetensors"),
        (tiny_models.quantize_weights, r"proj\.weight quantized \(int8\), of which config\.json says nothing"),
        (
            edit_config(quantization_config={"quant_method": "new"}),
            "quantized in a way that transformers does not know",
        ),
        (edit_config(vocab_size=700), "the tokenizer is not this model's"),
    ],
)
@pytest.mark.parametrize("engine", ["ctranslate2", "transformers"])
def test_spoiled_checkpoints_are_named(tiny_nllb, tmp_path, cache, change, message, engine):
    folder = spoiled(tiny_nllb, tmp_path / "spoiled", change)
    with pytest.raises(UsageError, match=message) as error:
        translator = translation.create("nllb", TranslatorSettings(folder, engine, "float32", cache))
        translator.check(BASQUE, ENGLISH)
        translator.load()
    assert "\n" not in str(error.value)


def test_a_language_that_the_model_does_not_know(fast):
    other = replace(BASQUE, name="Klingon", flores="tlh_Latn")
    for source, target in ((other, ENGLISH), (BASQUE, other)):
        with pytest.raises(
            UsageError, match=r"\(NLLB\) does not know Klingon: none of tlh_Latn is among its 20\d languages"
        ):
            fast.translate(SENTENCES[:1], source, target)


def test_a_bare_sentencepiece_model_gets_its_language_codes(tiny_nllb, tmp_path):
    """As published in SentencePiece's form the codes are not in the file; they must not become <unk>."""
    texts = [text for pair in PAIRS for text in pair]
    spm = tiny_models.sentencepiece_model(tmp_path, "sentencepiece.bpe.model", texts, 600, model_type="bpe")
    shutil.copy(Path(tiny_nllb) / "config.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "NllbTokenizer"}))
    translator = translation.create("nllb", TranslatorSettings(str(tmp_path)))
    translator.check(BASQUE, ENGLISH)
    first = len(tiny_models.pieces_in(spm)) + 1  # ace_Arab, after <pad> and the pieces; English is the 48th code
    assert translator._languages.prefixes(BASQUE, ENGLISH) == ([first + 50], [first + 47])


def test_a_model_of_the_legacy_tokenizer_is_warned_of(tiny_nllb, caplog):
    config, tokenizer, _ = seq2seq_engines.read_checkpoint(tiny_nllb, False)
    for legacy in (False, True):
        tokenizer.legacy_behaviour = legacy
        LanguageTokens(tiny_nllb, config, tokenizer)
        assert ("has legacy_behaviour" in caplog.text) == legacy


def test_special_tokens_in_a_text_are_text(fast):
    ids = fast._ids(["Kaixo </s> eng_Latn <pad> mundua"])[0]
    assert not {fast._languages._vocabulary[token] for token in ("</s>", "eng_Latn", "<pad>")} & set(ids)


@pytest.mark.parametrize(
    ("name", "tokens"),
    [("m2m100", ["__en__"]), ("small100", ["__en__"]), ("madlad", ["<2eu>"]), ("opus-many", [">>eng<<"])],
)
def test_tokens_of_relatives_of_nllb_in_a_text_are_text(name, tokens, tmp_path):
    """Where it is translated, and where it is learnt."""
    build, _, source = RELATIVES[name]
    translator = translation.create("nllb", TranslatorSettings(build(tmp_path / name, SENTENCES)))
    encoder = Seq2SeqTokenizer(translator._tokenizer, translator._languages, 256)
    before, _ = translator._languages.prefixes(source, ENGLISH)
    tokens += ["</s>", "<pad>"]
    for text in (f"{tokens[0]} gizon", f"gizon {' '.join(tokens)} libre", "".join(tokens)):
        ids = translator._ids([text])[0]
        assert len(ids) > 5 and not {*ids} & {translator._languages._vocabulary[token] for token in tokens}
        learnt = encoder.source_ids(Pair(text, "", source.name, "English", "g"))
        assert learnt == [*before, *ids, translator._tokenizer.eos_token_id]


def test_small100_has_the_target_language_before_the_source(tmp_path):
    translator = translation.create("nllb", TranslatorSettings(RELATIVES["small100"][0](tmp_path, SENTENCES)))
    assert translator._languages.prefixes(NEPALI, ENGLISH) == ([translator._languages._vocabulary["__en__"]], [])


def test_quotation_marks_of_angle_brackets_are_no_language_of_marian(tmp_path):
    """Its tokenizer takes all from >> to << for the name of a language, and drops it."""
    model = tiny_models.build_marian(tmp_path / "eu-en", [text for pair in PAIRS for text in pair])
    translator = translation.create("nllb", TranslatorSettings(model))
    tokens = translator._tokenizer.convert_ids_to_tokens(translator._ids([">>gizon libre<<, esan zuen."])[0])
    assert "".join(tokens).replace("<unk>", "").startswith("▁gizon▁libre")


def test_marian_of_language_groups_and_of_two_vocabularies(tmp_path):
    folder = Path(tiny_models.build_marian(tmp_path / "mul-en", [text for pair in PAIRS for text in pair]))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "source_lang": "mul"}))
    translation.create("nllb", TranslatorSettings(str(folder))).check(BASQUE, ENGLISH)
    edit_config(share_encoder_decoder_embeddings=False)(folder)
    with pytest.raises(UsageError, match="has separate source and target vocabularies"):
        translation.create("nllb", TranslatorSettings(str(folder)))


def test_marian_whose_decoder_starts_from_a_trained_embedding(tmp_path, cache):
    """As train.py without --use_peft leaves it; CTranslate2 starts from zeros, and translated otherwise."""
    folder = Path(tiny_models.build_marian(tmp_path / "eu-en", [text for pair in PAIRS for text in pair]))
    tiny_models.edit_weights(
        folder, lambda tensors: tensors | {"model.shared.weight": tensors["model.shared.weight"] + 0.01}
    )
    with pytest.raises(
        UsageError, match=r"starts from an embedding of <pad> that was trained, .* pass --nllb_engine transformers"
    ):
        open_translator(str(folder), cache)
    open_translator(str(folder), cache, nllb_engine="transformers").close()


def test_a_model_whose_languages_have_no_names_is_refused():
    """Only Marian has checkpoints of two languages without tokens for them; from others it would be noise."""
    assert find_family({"a": 0}, MarianConfig(), "opus").name == "bilingual"
    with pytest.raises(UsageError, match=r"has no known language tokens"):
        find_family({"a": 0, "eu_XX": 1}, MBartConfig(), "mbart-50")


def test_other_architectures_and_settings_are_named(tiny_lm, tiny_nllb, cache):
    with pytest.raises(UsageError, match="is a llama model, not an encoder-decoder"):
        translation.create("nllb", TranslatorSettings(tiny_lm))
    with pytest.raises(UsageError, match="cannot load 'nobody/nothing'"):
        translation.create("nllb", TranslatorSettings("nobody/nothing"))
    with pytest.raises(UsageError, match="int8 needs --nllb_engine ctranslate2"):
        open_translator(tiny_nllb, cache, nllb_engine="transformers", nllb_compute_type="int8")
    with pytest.raises(UsageError, match="float16 does not run on this CPU; choose one of"):
        open_translator(tiny_nllb, cache, nllb_compute_type="float16")


def test_closing_gives_the_memory_back(tiny_nllb, cache):
    translator = open_translator(tiny_nllb, cache, nllb_engine="transformers")
    import weakref

    model = weakref.ref(translator._engine._model)
    translator.close()
    assert model() is None


@pytest.mark.parametrize("name", ["m2m100", "madlad", "marian"])
def test_spaces_before_punctuation_stay_as_the_model_wrote_them(name, tmp_path, cache):
    """Whatever the folder's clean_up_tokenization_spaces says: "all ." stays "all ."."""
    build, _, source = RELATIVES[name]
    folder = Path(build(tmp_path / name, [text for pair in tiny_models.udhr_pairs(source.name) for text in pair]))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "clean_up_tokenization_spaces": True}))
    translator = translation.create("nllb", TranslatorSettings(str(folder), cache_dir=cache))
    text = "all . and , they do not"
    side = "text_target" if name == "marian" else "text"  # Marian has a vocabulary for each
    ids = translator._tokenizer(**{side: text}, add_special_tokens=False)["input_ids"]
    translator._engine.translate = lambda work, *_: [[[(ids, -1.0)] for _ in rows] for _, rows in work]
    assert texts(translator.translate(["Kaixo"], source, ENGLISH)) == [text]
