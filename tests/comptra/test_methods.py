"""What each method asks, in which order, what it takes from the answers, and that it goes on where it was stopped.

The answers are known ones, played in a model's place, or those of a small real model.
"""

import shutil
import sys
from dataclasses import replace

import pytest

from comptra import methods, prompts
from comptra.answer_parsing import translation
from comptra.llm_calls import LLMClient
from comptra.methods import Task, in_order, tear
from comptra.methods.conversation import THOUGHT_TOKENS
from comptra.methods.refine import refine
from tests.support.runs import lines_in
from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.inference import Answer, ModelSettings, SamplingSettings
from topxgen.inference.lazy_sampler import LazySampler
from topxgen.prompting import style, toml_prompts
from topxgen.prompting.mt_templates import chat_prompt, get_template
from topxgen.text import languages

ENGLISH, BASQUE = languages.find("English"), languages.find("Basque")
SENTENCES = ["The bridge was closed.", "Where is {tgt} spoken?", "The bridge was closed.", "It rains."]
PAIRS = [("A house", "Etxe bat"), ("A dog", "Txakur bat")]
IN_WORDS = ("cot", "maps", "step_by_step", "TEaR")


class Player:
    """A model whose answers are known: plays a sampler (topxgen.inference), remembers what it was asked."""

    def __init__(self, answer):
        self.answer, self.prompts, self.settings = answer, [], []

    def generate(self, next_request, settings):
        while (request := next_request()) is not None:
            self.prompts.append(request.prompt)
            self.settings.append(settings)
            texts = self.answer(request.prompt)
            texts = [texts] * settings.num_return_sequences if isinstance(texts, str) else texts
            yield Answer(request.id, texts)


def nearest(sentences, k):
    return [PAIRS[:k] for _ in sentences]


def task_for(client=None, src=ENGLISH, **changes) -> Task:
    template = get_template(14, src.name, "Basque")
    sampling = SamplingSettings(max_new_tokens=75, temperature=0.0)
    return replace(Task(src, BASQUE, client, template, sampling, nearest=nearest), **changes)


@pytest.fixture
def ask(tmp_path):
    """Translate SENTENCES by a method whose model answers `answer(prompt)`; the translations, and the Player."""

    def run(method, answer, style="chat", sentences=SENTENCES, **changes):
        player = Player(answer)
        client = LLMClient(player, style, tmp_path / "answers.jsonl", 1)
        task = task_for(client, **changes)
        found = in_order(methods.load(method)(sentences, task), len(sentences))
        client.close()
        return found, player

    return run


def last(prompt) -> str:
    """The last thing that was said."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


@pytest.mark.parametrize(
    "answer, text",
    [
        ("Translation: Zubia itxi zuten.", "Zubia itxi zuten."),
        ("**Translation:** Zubia itxi zuten.", "Zubia itxi zuten."),
        ("**Translation: Zubia itxi zuten.**", "Zubia itxi zuten."),
        ("I think so.\n\ntranslation:\nZubia itxi zuten.\n\nA note.", "Zubia itxi zuten."),
        ("Translation: no\nBetter:\nTranslation: yes\n", "yes"),
        ("Translation: yes\nTranslation:", "yes"),
        ("\nZubia itxi zuten.\nOther words.", "Zubia itxi zuten."),
        ("<think>Translation: no</think>Translation: yes", "yes"),
        ("<think>Translation: no", ""),
        ("Translation: " + "eta hori " * 30, "eta hori"),
        ("Translation:  «Bai», esan zuen.", "«Bai», esan zuen."),
        ("", ""),
    ],
)
def test_where_the_translation_stands_in_an_answer(answer, text):
    assert translation(answer, "Translation:") == text


def test_cot_thinks_and_then_goes_on_in_the_same_conversation(ask):
    def answer(prompt):
        return (
            "<think>hm</think>It rains, euria.\nOn 2 lines."
            if len(prompt) == 1
            else f"So:\nTranslation: {len(prompt)} ari du"
        )

    found, player = ask("cot", answer)
    assert found == ["3 ari du"] * 4
    # Three different sentences, asked once each, all of one kind before any of the next.
    assert [len(prompt) for prompt in player.prompts] == [1, 1, 1, 3, 3, 3]
    first, follow_up = player.prompts[0], player.prompts[3]
    assert follow_up[0] == first[0] and [turn["role"] for turn in follow_up] == ["user", "assistant", "user"]
    assert follow_up[1]["content"] == "It rains, euria.\nOn 2 lines."
    assert (
        "English" in last(first)
        and "Basque" in last(first)
        and "English sentence: Where is {tgt} spoken?" in last(player.prompts[1])
    )
    thinking, translating = player.settings[0], player.settings[3]
    assert (thinking.max_new_tokens, thinking.temperature) == (THOUGHT_TOKENS, 0.0) and translating.max_new_tokens == 75


def test_sampling_is_the_users_for_translations_alone(ask):
    """Thoughts are greedy and single; of several candidates the selector's is taken."""

    def answer(prompt):
        return "thoughts" if len(prompt) == 1 else ["Translation: a", "Translation: b", "c"]

    chosen = []

    def select(sentences, candidates):
        chosen.extend(zip(sentences, candidates, strict=True))
        return [found[-1] for found in candidates]

    sampling = SamplingSettings(max_new_tokens=75, temperature=0.9, num_return_sequences=3)
    found, player = ask("cot", answer, sampling=sampling, select=select)
    assert found == ["c"] * 4 and chosen == [(sentence, ["a", "b", "c"]) for sentence in SENTENCES]
    assert [(s.temperature, s.num_return_sequences) for s in player.settings] == [(0.0, 1)] * 3 + [(0.9, 3)] * 3


def test_maps_asks_for_knowledge_translates_with_each_and_chooses(ask):
    def answer(prompt):
        text = last(prompt)
        if "keyword in Basque" in text:
            return "bridge = zubia"
        if "separated by commas" in text:
            return "traffic, news"
        if "Write one other sentence" in text:
            return "English: The road is open.\nBasque: Bidea irekita dago."
        for part in ("bridge = zubia", "traffic, news", "Bidea irekita dago"):
            if part in text:
                return f"Translation: with {part}"
        return "zero-shot"

    seen = []

    def best(sentences, candidates):
        seen.extend(zip(sentences, candidates, strict=True))
        return [found[2] for found in candidates]

    found, player = ask("maps", answer, best_by_quality=best)
    assert found == ["with Bidea irekita dago"] * 4
    four = ["with bridge = zubia", "with traffic, news", "with Bidea irekita dago", "zero-shot"]
    assert seen == [(sentence, four) for sentence in SENTENCES]
    # 3 different sentences: 9 questions, 9 translations with their answers, 3 zero-shot.
    assert len(player.prompts) == 21
    assert not any("Translation:" in last(prompt) for prompt in player.prompts[:9])
    assert all("Translation:" in last(prompt) for prompt in player.prompts[9:18])
    assert player.prompts[18] == chat_prompt("English", "Basque", [], SENTENCES[0])


def test_maps_gives_equal_candidates_once_and_no_empty_ones(ask):
    seen = []

    def best(sentences, candidates):
        seen.extend(candidates)
        return [found[0] if found else "" for found in candidates]

    found, _ = ask("maps", lambda prompt: "" if "rains" in last(prompt) else "Translation: bat", best_by_quality=best)
    assert found == ["bat", "bat", "bat", ""]
    assert seen == [["bat"]] * 3 + [[]], "the zero-shot answer is the same without its label"


def test_maps_asks_a_base_model_again_whose_zero_shot_answer_begins_with_a_line_break(ask):
    """As few-shot translation does: its translation is one of the candidates."""
    chosen = []

    def best(sentences, candidates):
        chosen.extend(candidates)
        return [texts[-1] for texts in candidates]

    stops = []

    def answer(prompt):
        if not prompt.startswith("Translate this from English to Basque:\nEnglish: It rains."):
            return "x"
        stops.append(prompt)
        return "\nEuria ari du." if len(stops) > 1 else ""

    found, _ = ask("maps", answer, style="raw", sentences=["It rains."], best_by_quality=best)
    assert len(stops) == 2 and found == ["Euria ari du."] and chosen[0][-1] == "Euria ari du."


def test_maps_needs_quality_estimation():
    with pytest.raises(
        UsageError, match=r"maps chooses among four candidates .*: pass --selection_method blaser or comet-qe"
    ):
        methods.check("maps", task_for())
    methods.check("maps", task_for(best_by_quality=lambda sentences, candidates: []))


def test_step_by_step_is_one_conversation_and_then_another(ask):
    said = {1: "Notes on idioms.", 3: "Translation: zirriborroa", 5: "Better.\nTranslation: hobea"}

    def answer(prompt):
        return "Translation: azkena" if "proofreader" in last(prompt) else said[len(prompt)]

    found, player = ask("step_by_step", answer)
    assert (
        found == ["azkena"] * 4 and [len(prompt) for prompt in player.prompts] == [1] * 3 + [3] * 3 + [5] * 3 + [1] * 3
    )
    research, draft, refined, proof = player.prompts[::3]
    assert refined[:3] == draft and draft[:1] == research
    assert [turn["content"] for turn in refined[1::2]] == ["Notes on idioms.", "zirriborroa"]
    text = last(proof)
    assert f"English text: {SENTENCES[0]}\nDraft in Basque: zirriborroa\nRefined version in Basque: hobea" in text
    assert "Notes on idioms" not in text


def test_tear_corrects_only_what_has_errors(ask):
    def answer(prompt):
        text = last(prompt)
        if text.startswith("You judge"):
            return 'major, accuracy: "euri": wrong' if "rains" in text else "**No errors** found."
        if text.startswith("Below"):
            return "Translation: Euria ari du."
        return "Zubia itxi zuten."

    found, player = ask("TEaR", answer, k=2)
    assert found == ["Zubia itxi zuten."] * 3 + ["Euria ari du."]
    drafts, estimates, refined = player.prompts[:3], player.prompts[3:6], player.prompts[6:]
    assert drafts[0] == chat_prompt("English", "Basque", PAIRS, SENTENCES[0]), "few-shot, as vanilla"
    assert all(len(prompt) == 1 for prompt in estimates) and len(refined) == 1
    assert "English source: It rains.\nBasque translation: Zubia itxi zuten.\nErrors:\nmajor, accuracy" in last(
        refined[0]
    )


@pytest.mark.parametrize(
    "estimate, errors",
    [
        ("No error", False),
        ("no errors.", False),
        ("**No error.**", False),
        ('"No error"', False),
        ("", False),
        ("minor, style: awkward", True),
        ("There is no error in the verb, but\nmajor, accuracy: omission", True),
        ("1. critical, accuracy: mistranslation", True),
    ],
)
def test_what_an_estimate_says(estimate, errors):
    assert tear.has_errors(estimate, "No error") is errors


@pytest.mark.parametrize("refined", ["", "<think>hm"])
@pytest.mark.parametrize("method", ["TEaR", "refine"])
def test_a_draft_is_kept_with_its_marks_when_no_other_translation_comes_back(method, refined, tmp_path):
    class CutPlayer(Player):
        def generate(self, next_request, settings):
            return (replace(one, finish_reasons=("length",)) for one in super().generate(next_request, settings))

    def answer(prompt):
        text = last(prompt)
        if "better" in text or text.startswith("Below"):
            return refined
        return "major, style: bad" if "MQM" in text else "Zubia itx" if "bridge" in text else "Euria ari du.\n\nA no"

    client = LLMClient(CutPlayer(answer), "chat", tmp_path / "answers.jsonl", 1)
    sentences, task = [SENTENCES[0], SENTENCES[3]], task_for(client)
    found = in_order(methods.load("vanilla" if method == "refine" else method)(sentences, task), 2)
    found = refine(sentences, found, task) if method == "refine" else found
    assert found == ["Zubia itx", "Euria ari du."]
    assert client.marks == {"unanswered": set(), "unreadable": set(), "truncated": {sentences[0]}}


def test_refinement_goes_on_from_the_last_version(tmp_path):
    """Each step sees the version before; nothing is asked about an empty draft; silence keeps the version."""

    def answer(prompt):
        text = last(prompt)
        return "" if "rains" in text else f"Translation: {text.split('translation: ')[1].splitlines()[0]}+"

    player = Player(answer)
    client = LLMClient(player, "chat", tmp_path / "answers.jsonl", 1)
    versions = [["a", "b", "", "d"]]
    for _ in range(3):
        versions.append(refine(SENTENCES, versions[-1], task_for(client)))
    assert versions[1:] == [["a+", "b+", "", "d"], ["a++", "b++", "", "d"], ["a+++", "b+++", "", "d"]]
    assert [len(prompt) for prompt in player.prompts] == [1] * len(player.prompts)
    # a and b thrice; what was said about d is known after the first time.
    assert len(player.prompts) == 7


def test_a_base_model_reads_conversations_as_text(ask):
    found, player = ask("cot", lambda prompt: "Translation: bai", style="raw")
    assert found == ["bai"] * 4 and all(isinstance(prompt, str) for prompt in player.prompts)
    assert (
        player.prompts[3].startswith(player.prompts[0].rstrip("\n")) and "\n\nTranslation: bai\n\n" in player.prompts[3]
    )


@pytest.fixture(scope="module")
def chat_lm(tiny_chat):
    """The small model with a chat template, loaded."""
    settings = ModelSettings(tiny_chat, dtype="float32", request_batch_size=8)
    assert style.style_of("auto", "hf", settings) == "chat"
    sampler = inference.load("hf", settings)
    yield sampler
    sampler.close()


@pytest.mark.parametrize("name, answers", [("cot", 6), ("maps", 21), ("step_by_step", 12), ("TEaR", 9)])
def test_stopped_at_any_answer_a_method_goes_on(name, answers, chat_lm, tmp_path, monkeypatch):
    """A real model: the whole run, then runs on the first lines of its journal, then one that must ask nothing."""
    monkeypatch.setattr("comptra.methods.conversation.THOUGHT_TOKENS", 24)
    monkeypatch.setattr("comptra.methods.maps.KNOWLEDGE_TOKENS", 24)
    journal = tmp_path / "answers.jsonl"

    def run(sampler):
        client = LLMClient(sampler, "chat", journal, 1)
        sampling = SamplingSettings(max_new_tokens=12, temperature=0.0)
        task = task_for(
            client, k=2, sampling=sampling, best_by_quality=lambda _, found: [max(row, key=len) for row in found]
        )
        found = list(methods.load(name)(SENTENCES, task))
        client.close()
        assert sorted(i for i, _ in found) == [0, 1, 2, 3] and not client.failures
        return in_order(iter(found), len(SENTENCES))

    whole = run(chat_lm)
    assert all(whole) and whole[0] == whole[2]
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == answers
    assert run(LazySampler(lambda: pytest.fail("a model was loaded"))) == whole and lines_in(journal) == answers
    for kept in (1, answers // 2, answers - 1):
        journal.write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
        assert run(chat_lm) == whole and sorted(journal.read_bytes().splitlines(keepends=True)) == sorted(lines)


# The files of prompts


@pytest.mark.parametrize("name", IN_WORDS)
def test_a_file_of_prompts_that_lacks_something_is_named(name, tmp_path, monkeypatch):
    task = task_for(best_by_quality=lambda sentences, candidates: [])
    methods.check(name, task)
    shutil.copytree(prompts.FOLDER / "methods", tmp_path / "methods")
    monkeypatch.setattr(prompts, "FOLDER", tmp_path)
    path = tmp_path / "methods" / f"{name.lower()}.toml"
    text = path.read_text()
    for typed in ("{sentense}", "{sentence} {sentense}"):
        path.write_text(text.replace("{sentence}", typed))
        with pytest.raises(UsageError, match=rf"{name.lower()}.toml, \w+: .*placeholder \{{senten[cs]e\}}"):
            methods.check(name, task)
    path.write_text('marker = "x"\n')
    with pytest.raises(UsageError, match=r"has no text '\w+': add"):
        methods.check(name, task)
    path.unlink()
    with pytest.raises(UsageError, match="is missing: put it back"):
        methods.check(name, task)


def test_braces_of_sentences_and_of_files_stay():
    text = 'Answer as {"a": {sentence}} in {tgt}, {unknown}.'
    assert (
        toml_prompts.fill(text, sentence="{tgt} {{x}}", tgt="Basque")
        == 'Answer as {"a": {tgt} {{x}}} in Basque, {unknown}.'
    )


def test_the_marker_is_the_files(ask, tmp_path, monkeypatch):
    shutil.copytree(prompts.FOLDER / "methods", tmp_path / "methods")
    monkeypatch.setattr(prompts, "FOLDER", tmp_path)
    path = tmp_path / "methods" / "cot.toml"
    path.write_text(path.read_text().replace('marker = "Translation:"', 'marker = "Itzulpena:"'))
    assert ask("cot", lambda prompt: "Translation: ez\nItzulpena: bai")[0] == ["bai"] * 4


# Annotations


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> str:
    """A real spaCy pipeline by rules, for a few words: parts of speech, morphology, entities; no parser."""
    spacy = pytest.importorskip("spacy")
    nlp = spacy.blank("en")
    rules = nlp.add_pipe("attribute_ruler")
    for word, pos, morph in (
        ("A", "DET", ""),
        ("house", "NOUN", "Number=Sing"),
        ("dog", "NOUN", "Number=Sing"),
        ("rains", "VERB", "Person=3|Tense=Pres"),
    ):
        rules.add([[{"ORTH": word}]], {"POS": pos, "MORPH": morph})
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "GPE", "pattern": "Bilbao"}])
    folder = tmp_path_factory.mktemp("spacy") / "model"
    nlp.to_disk(folder)
    return str(folder)


@pytest.mark.parametrize(
    "name, house, rains",
    [
        ("pos", "A house\nParts of speech: A/DET house/NOUN", "It rains\nParts of speech: It/ rains/VERB"),
        ("morph", "A house\nMorphology: house/Number=Sing", "It rains\nMorphology: rains/Person=3|Tense=Pres"),
        ("ner", "A house", "It rains"),
    ],
)
@pytest.mark.parametrize("style", ["raw", "chat"])
def test_demonstrations_and_sentence_are_annotated(name, house, rains, style, ask, pipeline):
    sentences = ["It rains", "A dog in Bilbao"]
    found, player = ask(name, lambda prompt: "Bai\n###", style=style, sentences=sentences, k=2, spacy_model=pipeline)
    assert found == ["Bai", "Bai"] and len(player.prompts) == 2
    text = last(player.prompts[0])
    assert f"English: {house}\n" in text and f"English: {rains}\n" in text and "Basque: Etxe bat\n" in text
    if style == "raw":
        shots = [(house, "Etxe bat"), (text.split("English: ")[2].split("\nBasque:")[0], "Txakur bat")]
        assert text == get_template(14, "English", "Basque").get_prompt(shots, rains)
        assert player.settings[0].stop
    if name == "ner":
        assert "English: A dog in Bilbao\nNamed entities: Bilbao (GPE)\n" in last(player.prompts[1])


def test_dependencies_are_written_as_relations():
    tokens = pytest.importorskip("spacy.tokens")
    vocab = pytest.importorskip("spacy.vocab").Vocab()
    from comptra.methods.annotated import dependencies

    doc = tokens.Doc(
        vocab,
        ["The", "cat", "sleeps", "."],
        heads=[1, 2, 2, 2],
        deps=["det", "nsubj", "ROOT", "punct"],
        pos=["DET", "NOUN", "VERB", "PUNCT"],
    )
    assert dependencies(doc[:3]) == "det(cat, The) nsubj(sleeps, cat) ROOT(ROOT, sleeps)"


@pytest.mark.parametrize("name", ["pos", "morph", "dep", "ner"])
def test_what_annotation_lacks_is_named_before_anything_runs(name, pipeline, tmp_path):
    import spacy

    with pytest.raises(
        UsageError, match=rf"--method_translate {name} needs a spaCy pipeline.*none for Basque: pip install spacy"
    ):
        methods.check(name, task_for(src=BASQUE))
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(UsageError, match=rf"{name} needs .*has only a tokenizer; pass another --spacy_model"):
        methods.check(name, task_for(spacy_model=str(tmp_path / "blank")))
    with pytest.raises(UsageError, match="python -m spacy download en_core_web_nowhere"):
        methods.check(name, task_for(spacy_model="en_core_web_nowhere"))
    if name == "dep":
        with pytest.raises(UsageError, match=r"dep needs dependencies, but .* has only attribute_ruler, entity_ruler"):
            methods.check(name, task_for(spacy_model=pipeline))
    else:
        methods.check(name, task_for(spacy_model=pipeline))


def test_spacy_itself_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UsageError, match=r"pip install spacy, then python -m spacy download fr_core_news_sm"):
        methods.check("pos", task_for(src=languages.find("French")))


def test_vanilla_and_an_unknown_name_need_no_check():
    methods.check("vanilla", task_for())
    methods.check("none", task_for())


def test_an_answer_that_begins_with_a_line_break_is_asked_for_whole(tmp_path):
    """Decoding stops at the first line break, which saves what a base model says after its translation."""
    player = Player(None)
    player.answer = lambda prompt: (
        "Euria ari du." if "It rains" in prompt else "" if "\n" in player.settings[-1].stop else "\nEtxe bat.\n"
    )
    client = LLMClient(player, "raw", tmp_path / "answers.jsonl", 1)
    found = in_order(methods.load("vanilla")(SENTENCES, task_for(client)), len(SENTENCES))
    assert found == ["Etxe bat."] * 3 + ["Euria ari du."]
    assert [settings.stop for settings in player.settings] == [("\n", "###")] * 3 + [("###",)] * 2
    client.close()


def test_a_prompt_without_an_answer_is_not_sent_again(tmp_path):
    player = Player(lambda prompt: [])
    client = LLMClient(player, "raw", tmp_path / "answers.jsonl", 1)
    assert in_order(methods.load("vanilla")(SENTENCES, task_for(client)), len(SENTENCES)) == [""] * 4
    assert len(player.prompts) == 3 and client.unanswered == set(SENTENCES)
    client.close()
