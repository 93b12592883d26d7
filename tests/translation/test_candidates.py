"""The candidates of a sentence: the beams of NLLB, the samples and beams of an LLM, and their confidence."""

import pytest

from tests.support.tiny_models import udhr_pairs
from topxgen import translation
from topxgen.common.errors import UsageError
from topxgen.corpora import examples
from topxgen.inference import Answer, ModelSettings
from topxgen.inference.response_cache import CachedSampler
from topxgen.text import languages
from topxgen.translation import TranslatorSettings

BASQUE, ENGLISH = languages.find("Basque"), languages.find("English")
TEXTS = [a for a, _ in udhr_pairs("Basque") if len(a) > 60]
SENTENCES = TEXTS[:6]


@pytest.mark.parametrize("engine", ["ctranslate2", "transformers"])
def test_the_beams_of_nllb(tiny_nllb, tmp_path, engine):
    settings = dict(
        nllb_name_or_path=tiny_nllb, nllb_engine=engine, nllb_compute_type="float32", cache_dir=str(tmp_path)
    )
    several = translation.create("nllb", TranslatorSettings(**settings, number_of_candidates=3))
    several.load()
    found = several.candidates([*SENTENCES, "."], BASQUE, ENGLISH)
    best = several.translate([*SENTENCES, "."], BASQUE, ENGLISH)
    several.close()
    assert [len(each) for each in found] == [3] * 6 + [1] and [each[0] for each in found] == best
    assert all(len({item.text for item in each}) > 1 for each in found[:6])
    for each in found:
        assert [item.confidence for item in each] == sorted((item.confidence for item in each), reverse=True)
    many = translation.create("nllb", TranslatorSettings(**settings, number_of_candidates=7))
    many.load()
    assert [len(each) for each in many.candidates(SENTENCES, BASQUE, ENGLISH)] == [7] * 6
    assert "7 beams" in many.version and "5 beams" in several.version
    many.close()


def test_engines_of_nllb_give_the_same_beams(tiny_nllb, tmp_path):
    found = []
    for engine in ("ctranslate2", "transformers"):
        settings = dict(
            nllb_name_or_path=tiny_nllb, nllb_engine=engine, nllb_compute_type="float32", cache_dir=str(tmp_path)
        )
        translator = translation.create("nllb", TranslatorSettings(**settings, number_of_candidates=4))
        translator.load()
        found.append([[item.text for item in each] for each in translator.candidates(SENTENCES, BASQUE, ENGLISH)])
        translator.close()
    same = sum(a == b for ours, theirs in zip(*found, strict=True) for a, b in zip(ours, theirs, strict=True))
    assert same >= 22, "of 24; the beams of transformers end a little differently"


def test_candidates_of_a_sentence_in_pieces(tiny_nllb, tmp_path):
    settings = dict(nllb_name_or_path=tiny_nllb, nllb_compute_type="float32", cache_dir=str(tmp_path))
    translator = translation.create("nllb", TranslatorSettings(**settings, number_of_candidates=2))
    translator.load()
    translator._max_tokens = 30
    [found] = translator.candidates([TEXTS[0]], BASQUE, ENGLISH)
    translator.close()
    assert len(found) == 2 and found[0].segments == found[1].segments > 1 and found[0].text != found[1].text
    assert found[0].confidence >= found[1].confidence


def llm(model: str, **options):
    settings = dict(
        inference_api="hf", model=ModelSettings(model, dtype="float32"), demonstration_pool="udhr", number_of_demonstrations=1,
        prompt_style="raw", template_key="14",
    )  # fmt: skip
    return translation.create("llm", TranslatorSettings(**settings | options))


def test_the_samples_of_an_llm(tiny_lm, monkeypatch):
    monkeypatch.setattr("topxgen.translation.llm.MAX_NEW_TOKENS", 48)
    translator = llm(tiny_lm, number_of_candidates=3)
    translator.load()
    found = translator.candidates(SENTENCES[:3], BASQUE, ENGLISH)
    assert found == translator.candidates(SENTENCES[:3], BASQUE, ENGLISH), "seeds decide"
    alone = [translator.candidates([sentence], BASQUE, ENGLISH)[0] for sentence in SENTENCES[:3]]
    greedy = translator.translate(SENTENCES[:3], BASQUE, ENGLISH)
    translator.close()
    assert [[item.text for item in each] for each in alone] == [[item.text for item in each] for each in found]
    assert all(len(each) == 3 and len({item.text for item in each}) == 3 for each in found)
    assert all(0 < item.confidence < 1 for each in found for item in each) and greedy[0].confidence is None


@pytest.mark.parametrize("pad_ends", [False, True])
def test_the_confidence_of_a_sample_is_the_models(tiny_lm, pad_ends):
    """The mean log probability of its tokens, at temperature 1, with the one that ends it; padding behind a stop string, which may
    be the token that ends texts, is none of them."""
    import torch
    from transformers import AutoModelForCausalLM

    from topxgen import inference
    from topxgen.inference import Request, SamplingSettings

    sampler = inference.load("hf", ModelSettings(tiny_lm, dtype="float32"))
    if pad_ends:
        sampler._tokenizer.pad_token = sampler._tokenizer.eos_token
    prompts = ["Gizon-emakume", "Nornahik du bizitzeko, aske"]
    sampling = SamplingSettings(12, temperature=0.5, num_return_sequences=2, stop=(",", "e"))
    requests = [Request(str(i), prompt, 7 * i, log_probabilities=True) for i, prompt in enumerate(prompts)]
    drawn = []
    whole = sampler._model.generate
    sampler._model.generate = lambda **options: drawn.append((options, whole(**options))) or drawn[-1][1]
    answers = {answer.id: answer for answer in sampler.generate(inference.from_list(requests), sampling)}
    [(options, output)] = drawn
    inputs, masks = (options[key].tolist() for key in ("input_ids", "attention_mask"))
    model = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32)
    ends, stopped = sampler._end_tokens, 0
    for row, prompt_row, mask in zip(output.tolist(), inputs, masks, strict=True):
        prompt = [token for token, is_text in zip(prompt_row, mask, strict=True) if is_text]
        new = []
        for token in row[len(prompt_row) :]:
            new.append(token)
            text = sampler._tokenizer.decode(new, skip_special_tokens=True)
            if token in ends or "," in text or "e" in text:
                stopped += token not in ends and len(new) < 12
                break
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + new])).logits[0, len(prompt) - 1 : -1]
        expected = float(logits.log_softmax(-1).gather(1, torch.tensor(new)[:, None]).mean())
        found = [value for answer in answers.values() for value in answer.log_probabilities]
        assert min(abs(expected - value) for value in found) < 1e-4
    assert stopped >= 2
    sampler.close()


def test_the_beams_of_an_llm(tiny_lm, monkeypatch):
    monkeypatch.setattr("topxgen.translation.llm.MAX_NEW_TOKENS", 48)
    translator = llm(tiny_lm, number_of_candidates=2, num_beams=3)
    translator.load()
    [found] = translator.candidates(SENTENCES[:1], BASQUE, ENGLISH)
    [best] = translator.translate(SENTENCES[:1], BASQUE, ENGLISH)
    translator.close()
    assert len(found) == 2 and found[0].text == best.text and found[0].confidence is None


def test_each_sample_has_its_own_confidence_cut_and_seed(tiny_lm, tmp_path):
    """And none is taken for the answer to the same prompt that was decoded greedily."""
    asked = []

    class Sampler:
        def generate(self, next_request, settings):
            while (request := next_request()) is not None:
                asked.append((settings.num_return_sequences, request.seed))
                if settings.num_return_sequences == 1:
                    yield Answer(request.id, ["Greedy."])
                    continue
                texts, reasons = ["One.", "Two, which is", "Three.\nA note that is"], ("stop", "length", "length")
                yield Answer(request.id, texts, finish_reasons=reasons, log_probabilities=(-0.1, -1.0, -2.0))

    translator = llm(tiny_lm, number_of_candidates=3, number_of_demonstrations=0)
    translator._sampler = CachedSampler(Sampler(), tmp_path / "answers.jsonl")
    assert [found.text for found in translator.translate(SENTENCES[:2], BASQUE, ENGLISH)] == ["Greedy."] * 2
    for found in translator.candidates(SENTENCES[:2], BASQUE, ENGLISH):
        assert [one.text for one in found] == ["One.", "Two, which is", "Three."]
        assert [one.confidence for one in found] == [0.9048, 0.3679, 0.1353]
        assert [one.error for one in found] == [None, "cut at the limit of 500 new tokens", None]
    assert [count for count, _ in asked] == [1, 1, 3, 3]
    assert asked[0][1] == asked[1][1] and asked[2][1] != asked[3][1], "samples of two sentences share no random numbers"


def test_as_many_candidates_as_beams_and_fewer_demonstrations_than_pairs(tiny_lm):
    pairs = examples.parallel_sentences("udhr", BASQUE, ENGLISH)
    llm(tiny_lm, number_of_candidates=2, num_beams=2, number_of_demonstrations=len(pairs) - 1).check(BASQUE, ENGLISH)
    with pytest.raises(UsageError, match="leaves nothing to choose from"):
        llm(tiny_lm, number_of_demonstrations=len(pairs)).check(BASQUE, ENGLISH)
    step = len(pairs) // 3
    assert llm(tiny_lm).sample(BASQUE, ENGLISH, 3) == [pairs[0], pairs[step], pairs[2 * step]], "from all over the pool"
