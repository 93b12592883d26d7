"""Back-translation by an LLM: prompts, demonstrations, what is taken from an answer, answers kept on disk."""

import json
import random
import re
import shutil
from pathlib import Path

import pytest

from tests.support.runs import BENCHMARKS, datagen, records
from topxgen import inference, retrieval, translation
from topxgen.common.errors import UsageError
from topxgen.corpora import examples
from topxgen.inference import Answer, ModelSettings, Request, SamplingSettings
from topxgen.inference.response_cache import CachedSampler, request_id
from topxgen.prompting import mt_templates
from topxgen.prompting.answers import clean_answer, cut_repetition
from topxgen.prompting.mt_templates import chat_prompt, get_template
from topxgen.text import languages
from topxgen.text.thoughts import begun_in
from topxgen.translation import TranslatorSettings

BASQUE, ENGLISH = languages.find("Basque"), languages.find("English")
SENTENCES = [
    "Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela.",
    "Nornahik du bizitzeko, aske izateko eta segurtasunerako eskubidea, eta hori lege guztiek babesten dute.",
    "Haurrak eskolara joan ziren goizean goiz, eta irakasleak atean zain zituzten pozik.",
]


@pytest.mark.parametrize(
    "key, expected",
    [
        (1, "Given the following source text: S, a good Basque translation is: T\n\nGiven the following source text: X, a good Basque translation is:"),
        (3, "If the original version says Sthen the Basque version should say: T\n\nIf the original version says Xthen the Basque version should say:"),
        (5, "S= Basque: T\n\nX= Basque:"),
        (6, "English: S= Basque: T\n\nEnglish: X= Basque:"),
        (7, "English\nS\ntranslates into\nBasque\nT\n###\nEnglish\nX\ntranslates into\nBasque\n"),
        (9, "English: S\nBasque: T\n###\nEnglish: X\nBasque:"),
        (11, "English sentence\nS\nBasque translation\nT\n###\nEnglish sentence\nX\nBasque translation\n"),
        (14, "Translate this from English to Basque:\nEnglish: S\nBasque: T\n###\nTranslate this from English to Basque:\nEnglish: X\nBasque:"),
        (16, "Translate to Basque: ST\n###\nTranslate to Basque: X"),
    ],
)  # fmt: skip
def test_templates_are_those_of_published_checkpoints(key, expected):
    assert get_template(key, src="English", tgt="Basque").get_prompt([("S", "T")], "X") == expected
    assert get_template(str(key), "English", "Basque") == get_template(key, "English", "Basque")


def test_a_template_has_a_name_and_a_header():
    template = get_template("llamax", "English", "Basque")
    assert template.get_prompt([], "X").startswith(
        "Below is an instruction that describes a task, paired with an input"
    )
    assert template.get_prompt([], "X").endswith("###Input:\nX\n###Response:") and template.stop == "\n\n"
    assert get_template(14, "English", "Basque").stop == "###"
    with pytest.raises(UsageError, match=r"--template_key '99' does not exist; choose one of given"):
        get_template(99, "English", "Basque")


def test_what_a_chat_model_is_told():
    (message,) = chat_prompt("English", "Basque", [("S1", "T1"), ("S2 {x}", "T2")], "X {y}")
    assert message["role"] == "user"
    assert "1. English: S1\n   Basque: T1\n\n2. English: S2 {x}\n   Basque: T2" in message["content"]
    assert message["content"].endswith("English: X {y}\nBasque:") and "only the translation" in message["content"]
    assert "1." not in chat_prompt("English", "Basque", [], "X")[0]["content"]


@pytest.mark.parametrize(
    "answer, stop, expected",
    [
        ("Kaixo.\n###\nEnglish", "###", "Kaixo."),
        ("\n Kaixo. \nBeste bat", None, "Kaixo."),
        ("", "###", ""),
        ("<think>\nIt says hello.\n</think>\n\nKaixo.", None, "Kaixo."),
        ("<think>\nIt says hello.", None, ""),
        ("bat bi " * 7 + "hiru", None, "bat bi " * 7 + "hiru"),
        ("hasi bat bi" + " bat bi" * 7 + " hiru", None, "hasi bat bi"),
    ],
)
def test_what_is_taken_from_an_answer(answer, stop, expected):
    assert clean_answer(answer, stop) == expected.strip()


def test_thoughts_are_no_translation():
    """Template 17 opens the thoughts itself, so that an answer begins in the middle of them."""
    template = get_template(17, "English", "Basque")
    begun = begun_in(template.get_prompt([], "Hi."))
    assert begun == "<think>" and "\n" not in template.stops
    assert template.translation(begun + "He greets.\n</think> Kaixo.\n###") == "Kaixo."
    assert template.translation(begun + "He greets.\nThat is") == ""
    # As its demonstrations are, and texts of train.py.
    assert template.translation(begun + "Kaixo.\n###\nTranslate") == template.translation(begun + " Kaixo.") == "Kaixo."
    assert template.translation(begun + "He greets", was_cut=True) == ""
    assert get_template(14, "English", "Basque").stops == ("\n", "###")
    assert "\n" not in get_template("llamax", "English", "Basque").stops, "its answers may begin with a line break"


@pytest.mark.parametrize(
    "text, message",
    [
        ("[1]\nprefix = ", "cannot read"),
        ('[1]\nprefix = "a"', r"\[1\]: missing: middle, unknown: none"),
        ('[1]\nprefix = "a"\nmiddle = "b"\nsufix = "c"', r"\[1\]: missing: none, unknown: sufix"),
    ],
)
def test_a_mistake_in_the_template_file_is_named(tmp_path, monkeypatch, text, message):
    (tmp_path / "templates.toml").write_text(text)
    monkeypatch.setattr(mt_templates, "FILE", tmp_path / "templates.toml")
    mt_templates._file.cache_clear()
    try:
        with pytest.raises(UsageError, match=message):
            get_template(1, "English", "Basque")
        (tmp_path / "templates.toml").write_text('[21]\nheader = "{src}:"\nprefix = ""\nmiddle = ""\nsuffix = "{tgt}"')
        assert get_template("21", "English", "Basque").get_prompt([("a", "b")], "c") == "English:abBasquec"
    finally:
        mt_templates._file.cache_clear()


def test_a_repetition_is_cut_at_its_first_occurrence():
    assert cut_repetition("a b c") == "a b c" and cut_repetition("") == ""
    assert cut_repetition("x " + "la " * 9) == "x la la"  # "la la" occurs eight times
    assert cut_repetition("x " + "la " * 8) == ("x " + "la " * 8), "seven times are not enough"


def test_parallel_sentences_from_folders(tmp_path):
    (tmp_path / "Basque.txt").write_text("Bat.\n\nHiru.\u2028Lau.\n", encoding="utf-8")
    (tmp_path / "eng_Latn.txt").write_text("One.\nTwo.\nThree.\n", encoding="utf-8")
    pairs = examples.parallel_sentences(str(tmp_path), BASQUE, ENGLISH)
    assert pairs == [("Bat.", "One."), ("Hiru.\u2028Lau.", "Three.")]
    (tmp_path / "eng_Latn.txt").write_text("One.\nTwo.\n", encoding="utf-8")
    with pytest.raises(UsageError, match="3 lines in Basque but 2 in English"):
        examples.parallel_sentences(str(tmp_path), BASQUE, ENGLISH)
    with pytest.raises(UsageError, match="no sentences in Basque in 'nowhere': pass --demonstration_pool"):
        examples.parallel_sentences("nowhere", BASQUE, ENGLISH)


def llm(model: str, **options):
    settings = dict(
        inference_api="hf",
        model=ModelSettings(model, dtype="float32"),
        demonstration_pool="udhr",
        number_of_demonstrations=2,
    )
    return translation.create("llm", TranslatorSettings(**settings | options))


def test_prompts_hold_the_nearest_demonstration_last(tiny_lm):
    translator = llm(tiny_lm, number_of_demonstrations=3, template_key="14", prompt_style="raw")
    translator.check(BASQUE, ENGLISH)
    pairs = examples.parallel_sentences("udhr", BASQUE, ENGLISH)
    ranked = retrieval.create("bm25s", [text for text, _ in pairs], BASQUE).nearest(SENTENCES, 3)
    for sentence, prompt, row in zip(SENTENCES, translator.prompts(SENTENCES, BASQUE, ENGLISH), ranked, strict=True):
        shots = [pairs[i] for i in reversed(row)]
        assert prompt == get_template(14, "Basque", "English").get_prompt(shots, sentence)
    with pytest.raises(UsageError, match="--number_of_demonstrations 5000 leaves nothing"):
        llm(tiny_lm, number_of_demonstrations=5000).check(BASQUE, ENGLISH)


def test_demonstrations_of_the_original():
    """Its BM25 has other words (parts of words in Nepali), so other demonstrations; what was chosen is recorded."""
    nepali = languages.find("Nepali")
    sentences = examples.udhr(nepali)[:3]
    ours, theirs = (llm("a/b", prompt_style="raw", retriever_tokens=tokens) for tokens in ("unicode", "original"))
    assert ours.prompts(sentences, nepali, ENGLISH) != theirs.prompts(sentences, nepali, ENGLISH)
    assert [translator.settings["retriever_tokens"] for translator in (ours, theirs)] == ["unicode", "original"]
    assert ours.version.endswith(", 2 demonstrations from udhr, 1 beam")


def test_an_llm_translates_in_order_and_only_once(tiny_lm, tmp_path):
    translator = llm(tiny_lm, response_cache=lambda _: tmp_path / "answers.jsonl")
    translator.load()
    found = translator.translate([SENTENCES[0], "", "...", SENTENCES[1], SENTENCES[0]], BASQUE, ENGLISH)
    translator.close()
    assert found[0] == found[4] and found[1].text == found[2].text == ""
    assert all("\n" not in translation.text for translation in found)
    answers = records(tmp_path / "answers.jsonl")
    assert len(answers) == 2 and all(answer["prompt_tokens"] > 50 for answer in answers)
    # Answers on disk are given, not asked for: their texts stand even when they are edited.
    answers[0]["texts"] = ["edited"]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers) + '{"id": "to')
    translator = llm(tiny_lm, response_cache=lambda _: tmp_path / "answers.jsonl")
    translator.load()
    again = translator.translate(SENTENCES[:2], BASQUE, ENGLISH)
    translator.close()
    assert sorted([again[0].text, again[1].text]) == sorted(
        ["edited", next(t.text for t in found if t.text and request_text(answers[1]) == t.text)]
    )


def request_text(answer: dict) -> str:
    return clean_answer(answer["texts"][0])


def test_chat_models_are_asked_in_chat(tiny_lm, tmp_path, caplog):
    from transformers import AutoTokenizer

    caplog.set_level("INFO")
    model = tmp_path / "chat"
    shutil.copytree(tiny_lm, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"
    tokenizer.save_pretrained(model)
    translator = llm(str(model), template_key="14")
    assert isinstance(translator.prompts(SENTENCES, BASQUE, ENGLISH)[0], list)
    (message,) = (record.getMessage() for record in caplog.records if record.name.startswith("topxgen"))
    assert "--template_key 14 is not used" in message
    assert isinstance(
        llm(str(model), template_key="14", prompt_style="raw").prompts(SENTENCES, BASQUE, ENGLISH)[0], str
    )


def test_a_journal_asks_for_what_it_does_not_hold(tiny_lm, tmp_path):
    """Whatever a kill left of the file, each request is answered once and nothing on disk is asked again."""
    sampler = inference.load("hf", ModelSettings(tiny_lm, dtype="float32"))
    settings = SamplingSettings(max_new_tokens=4, temperature=0)
    prompts = [f"{i}. artikulua: giza" for i in range(12)]
    requests = [Request(request_id(prompt), prompt, 0) for prompt in prompts]

    def ask(path: Path) -> dict[str, list[str]]:
        journal = CachedSampler(sampler, path)
        found = [(a.id, a.texts) for a in journal.generate(inference.from_list(requests), settings)]
        journal.close_file()
        assert len(found) == len(requests) == len(dict(found))
        return dict(found)

    whole = ask(tmp_path / "whole.jsonl")
    data = (tmp_path / "whole.jsonl").read_bytes()
    rng = random.Random(3)
    for trial in range(5):
        path = tmp_path / f"{trial}.jsonl"
        path.write_bytes(data[: rng.randrange(len(data))])
        kept = path.read_bytes().count(b"\n")
        assert ask(path) == whole
        assert [r["id"] for r in records(path)][:kept] == [r["id"] for r in records(tmp_path / "whole.jsonl")][:kept]
        assert len(records(path)) == len(requests)
    sampler.close()


def test_self_improvement_from_the_command_line(tiny_lm, tmp_path, datagen_here):
    """A fine-tuned checkpoint back-translates its own language with template 14, from files of an earlier run."""
    lines = [{"text": " ".join(SENTENCES[:2]), "topic": "law"}, {"text": SENTENCES[2]}]
    (tmp_path / "Basque.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = (
        "--model_name_or_path", tiny_lm, "--inference_api", "hf", "--dtype", "float32", "--languages", "Basque",
        "--output_dir", tmp_path, "--stages", "translate", "score", "--template_key", 14, "--number_of_demonstrations", 5,
        "--demonstration_pool", "udhr", "--translate_dir", "self", "--scorer", "none",
    )  # fmt: skip
    result = datagen(*arguments)
    translated = records(tmp_path / "self" / "Basque_translate.jsonl")
    rejected = [
        r for record in records(tmp_path / "self" / "Basque_translate_rejects.jsonl") for r in record["rejected"]
    ]
    assert [record["sentence"] for record in translated] == [line["text"] for line in lines]
    assert sum(len(record["propositions"]) for record in translated) + len(rejected) == 3
    assert len(records(tmp_path / "self" / "Basque_translate_answers.jsonl")) == 3
    assert "translate: " in result.stdout and "new tokens" in result.stdout
    settings = json.loads((tmp_path / "self" / "settings_translate.json").read_text())
    assert settings["template_key"] == "14" and settings["number_of_demonstrations"] == 5
    again = datagen_here(*arguments, "--price_per_million_tokens", 1, 2)
    assert "loading" not in again.stderr and re.search("translate: .* new tokens; 0.00 USD", again.stdout)
    refused = datagen_here(*arguments, "--template_key", 9)
    assert refused.returncode == 2 and "template_key was '14', now '9'" in refused.stderr


@pytest.mark.parametrize(
    "change, message",
    [
        (("--template_key", "99"), "--template_key '99' does not exist"),
        (("--demonstration_pool", "nowhere"), "no sentences in Basque in 'nowhere': pass --demonstration_pool flores or udhr"),
        (("--number_of_demonstrations", "800"), "--number_of_demonstrations 800 leaves nothing to choose"),
        (("--model_name_or_path", "nowhere/at/all"), "nowhere/at/all"),
        (("--inference_api", "openai"), "OPENAI_API_KEY"),
        (("--use_nllb", "--nllb_name_or_path", "TINY_LM"), "is a llama model, not an encoder-decoder"),
        (("--scorer", "blaser", "--sonar_name_or_path", "nowhere/at/all"), "nowhere/at/all"),
    ],
)  # fmt: skip
def test_bad_settings_end_before_any_model_is_loaded(tiny_lm, tmp_path, change, message, datagen_here, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "Basque.jsonl").write_text(json.dumps({"text": SENTENCES[0]}) + "\n")
    arguments = [
        "--model_name_or_path", tiny_lm, "--inference_api", "hf", "--languages", "Basque", "--output_dir", tmp_path,
        "--stages", "translate", "score", "--demonstration_pool", "udhr", "--scorer", "none", *change,
    ]  # fmt: skip
    arguments = [tiny_lm if argument == "TINY_LM" else str(argument) for argument in arguments]
    result = datagen_here(*arguments)
    assert result.returncode == 2 and message in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.glob("*/settings_translate.json"))


def test_flores_and_ntrex_sides_are_parallel():
    if not (BENCHMARKS / "flores200_dataset").is_dir():
        pytest.skip("FLORES-200 is not on this machine")
    english = examples.parallel_sentences(str(BENCHMARKS), ENGLISH, ENGLISH)
    assert len(english) == 997


def test_an_answer_that_begins_with_a_line_break_is_asked_for_whole(tiny_lm, tmp_path):
    """Of a model that would say so; the second question has an answer of its own on disk."""
    asked = []

    class Sampler:
        def generate(self, next_request, settings):
            while (request := next_request()) is not None:
                asked.append(settings.stop)
                text = "" if "\n" in settings.stop else "\nAll are free.\n###"
                yield Answer(request.id, ["Yes."] if "Nornahik" in request.prompt else [text])

    translator = translation.create(
        "llm", TranslatorSettings(model=ModelSettings(tiny_lm), inference_api="hf", number_of_demonstrations=0)
    )
    translator._sampler = CachedSampler(Sampler(), tmp_path / "answers.jsonl")
    for _ in range(2):
        found = translator.translate(SENTENCES, BASQUE, ENGLISH)
        assert [translation.text for translation in found] == ["All are free.", "Yes.", "All are free."]
    assert asked == [("\n", "###")] * 3 + [("###",)] * 2
