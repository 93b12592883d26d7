"""What a model folder's generation_config.json says does not reach our translations."""

import json
import shutil
from pathlib import Path

import pytest

from tests.comptra.test_chat import folder_of, options
from tests.support import tiny_models
from tests.support.api_runs import chats, run
from tests.support.api_server import KEY, ApiServer
from tests.support.main_runs import udhr
from tests.support.runs import in_process, records
from topxgen import inference, translation
from topxgen.inference import NEUTRAL, ModelSettings, Request, SamplingSettings, from_list
from topxgen.text import languages
from topxgen.training import eval_translation
from topxgen.training.pairs import Pair
from topxgen.training.tokenization import CausalTokenizer, Seq2SeqTokenizer
from topxgen.translation import TranslatorSettings
from topxgen.translation.language_tokens import LanguageTokens

BASQUE, ENGLISH = (languages.find(name) for name in ("Basque", "English"))
PAIRS = tiny_models.udhr_pairs("Basque")[3:5]  # of 77 and 107 characters
OPINIONS = dict(
    repetition_penalty=3.0,
    no_repeat_ngram_size=1,
    min_new_tokens=20,
    suppress_tokens=list(range(100, 200)),
    begin_suppress_tokens=list(range(200, 700)),
    bad_words_ids=[[token] for token in range(300, 400)],
    length_penalty=-5.0,
    exponential_decay_length_penalty=[2, 1.5],
    encoder_repetition_penalty=2.0,
    num_beams=2,
    early_stopping=True,
    do_sample=True,
    temperature=5.0,
    top_k=3,
    forced_eos_token_id=5,
    forced_bos_token_id=7,
    top_p=0.3,
    min_p=0.5,
    typical_p=0.1,
    epsilon_cutoff=0.2,
    eta_cutoff=0.2,
    min_length=30,
    max_length=40,
    max_time=0.001,
    encoder_no_repeat_ngram_size=1,
    sequence_bias=[[[9], 50.0]],
    guidance_scale=3.0,
    stop_strings=["a", "e", "i"],
    num_return_sequences=2,
    return_dict_in_generate=True,
    remove_invalid_values=True,
    renormalize_logits=True,
    cache_implementation="static",
    use_cache=False,
    prompt_lookup_num_tokens=2,
    num_beam_groups=2,
    diversity_penalty=2.0,
    penalty_alpha=0.6,
    dola_layers="high",
    watermarking_config={"bias": 9.0, "greenlist_ratio": 0.1},
)


def opinionated(folder: str, copy: Path) -> str:
    shutil.copytree(folder, copy)
    path = copy / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **OPINIONS}))
    return str(copy)


@pytest.mark.parametrize("changes", [{"temperature": 0}, {"temperature": 0.8}, {"num_beams": 3}], ids=str)
def test_hf(changes, tiny_lm, tmp_path):
    requests = [Request(str(i), f"# Basque article\n{basque[:30]}", i) for i, (basque, _) in enumerate(PAIRS)]
    answers = []
    for model in (tiny_lm, opinionated(tiny_lm, tmp_path / "copy")):
        sampler = inference.load("hf", ModelSettings(model, dtype="float32"))
        settings = SamplingSettings(max_new_tokens=24, **changes)
        answers.append({answer.id: answer.texts for answer in sampler.generate(from_list(requests), settings)})
        sampler.close()
    assert answers[0] == answers[1] and len(answers[0]) == len(PAIRS)


@pytest.mark.parametrize("engine", ["transformers", "ctranslate2"])
@pytest.mark.parametrize("family", ["nllb", "marian"])
def test_encoder_decoders(family, engine, tiny_nllb, tmp_path):
    model = tiny_nllb
    if family == "marian":
        model = tiny_models.build_marian(tmp_path / "eu-en", [text for pair in PAIRS for text in pair])
    texts = []
    for name in (model, opinionated(model, tmp_path / "copy")):
        settings = TranslatorSettings(name, engine, "float32", cache_dir=str(tmp_path / "converted"))
        translator = translation.create("nllb", settings)
        translator.load()
        texts.append(translator.translate([basque for basque, _ in PAIRS], BASQUE, ENGLISH))
        translator.close()
    assert texts[0] == texts[1]


def test_special_tokens_that_the_generation_config_lacks(tiny_nllb, tmp_path):
    shutil.copytree(tiny_nllb, tmp_path / "copy")
    (tmp_path / "copy/generation_config.json").write_text("{}")
    texts = []
    for name in (tiny_nllb, str(tmp_path / "copy")):
        translator = translation.create("nllb", TranslatorSettings(name, "transformers", "float32"))
        translator.load()
        texts.append(translator.translate([basque for basque, _ in PAIRS], BASQUE, ENGLISH))
        translator.close()
    assert texts[0] == texts[1]


@pytest.mark.parametrize("peft", [False, True])
@pytest.mark.parametrize("kind", ["decoder", "nllb"])
def test_held_out_translations(kind, peft, tiny_lm, tiny_nllb, tmp_path):
    """The checkpoint keeps its own generation config."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    is_decoder = kind == "decoder"
    folder = tiny_lm if is_decoder else tiny_nllb
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = [Pair(basque, english, "Basque", "English", "") for basque, english in PAIRS]
    answers = []
    for name in (folder, opinionated(folder, tmp_path / "copy")):
        model = (AutoModelForCausalLM if is_decoder else AutoModelForSeq2SeqLM).from_pretrained(name).eval()
        before = model.generation_config.to_dict()
        if is_decoder:
            pair_tokenizer = CausalTokenizer(tokenizer, "11", model.config.vocab_size, None)
        else:
            pair_tokenizer = Seq2SeqTokenizer(tokenizer, LanguageTokens(name, model.config, tokenizer), 256)
        if peft:
            import peft as library

            task = "CAUSAL_LM" if is_decoder else "SEQ_2_SEQ_LM"
            model = library.get_peft_model(model, library.LoraConfig(target_modules=["q_proj"], task_type=task))
        answers.append(eval_translation.translate(model, tokenizer, pair_tokenizer, pairs))
        assert model.generation_config.to_dict() == before
    assert answers[0] == answers[1] and len(answers[0]) == len(pairs)


@pytest.mark.medium
def test_what_is_sent_to_apis(monkeypatch):
    for api in inference.REMOTE:
        with ApiServer() as server:
            run(api, server, chats(1), SamplingSettings(temperature=0.0))
            [body] = server.bodies
        sent = {**body, "top_k": body.get("top_k", {0: -1}.get(body.get("k")))}
        recorded = inference.decoding(api, ModelSettings("m", base_url=server.url(api)))
        assert {name: sent[name] for name in recorded} == recorded
        assert bool(recorded) == (api != "anthropic")
    assert inference.decoding("openai", ModelSettings("m")) == {}
    assert inference.decoding("hf", ModelSettings("m")) == inference.decoding("vllm", ModelSettings("m")) == NEUTRAL


def test_it_is_recorded_and_a_resume_with_another_is_refused(tmp_path, monkeypatch):
    """A server that refuses the neutral values decodes with its own; a later one that takes them must not go on with its work."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    flags = options("org/chat", prompt_style=None, max_samples=2, inference_api="openai", dtype=None)
    flags += ["--max_concurrent_requests", 1]  # the server looks at the body that arrived last
    refuses = True

    def faults(name, attempt):
        return (
            (400, "invalid_request_error", "top_k: unknown parameter")
            if refuses and "top_k" in server.bodies[-1]
            else None
        )

    def respond(prompt):
        return "" if first is None or first in prompt else "Kaixo mundua."  # the first sentence stays without an answer

    first = udhr(2).sources[0]
    with ApiServer(faults, respond=respond) as server:
        run = lambda: in_process("main.py", *flags, "--base_url", server.url("openai"), "--output_dir", tmp_path)  # noqa: E731
        assert run().returncode == 3
        folder = folder_of(tmp_path, "chat")
        settings = json.loads((folder / "settings_translate.json").read_text())
        assert settings["decoding"] == NEUTRAL
        assert [r.get("server_defaults") for r in records(folder / "answers.jsonl")].count(True) == 1
        refuses, first = False, "no such sentence"
        kept = (folder / "answers.jsonl").read_bytes()
        result = run()
        assert (
            result.returncode == 2 and "its own defaults of top_k" in result.stderr and "Traceback" not in result.stderr
        )
        assert (folder / "answers.jsonl").read_bytes() == kept
        # A folder of an older version says nothing about it, and goes on.
        (folder / "answers.jsonl").write_bytes(
            kept.replace(b',"server_defaults":true', b"").replace(b', "server_defaults": true', b"")
        )
        del settings["decoding"]
        (folder / "settings_translate.json").write_text(json.dumps(settings))
        assert run().returncode == 0
        settings["decoding"] = {**NEUTRAL, "top_k": 40}
        (folder / "settings_translate.json").write_text(json.dumps(settings))
        result = run()
        assert result.returncode == 2 and "decoding was" in result.stderr
