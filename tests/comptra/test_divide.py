"""Sentences into phrases (--method_divide)."""

import random
from dataclasses import replace

import pytest

from comptra import answer_parsing, llm_calls
from comptra.compositional import divide
from comptra.compositional.divide import DIVIDERS, DividerSettings
from comptra.methods import Task
from tests.support.runs import records
from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.inference import ModelSettings, SamplingSettings
from topxgen.inference.lazy_sampler import LazySampler
from topxgen.prompting.mt_templates import get_template
from topxgen.text import languages

ENGLISH, BASQUE, NEPALI, URDU = (languages.find(name) for name in ("English", "Basque", "Nepali", "Urdu"))
SENTENCE = "The old stone bridge was closed last winter, because its pillars had begun to crack."


def task_for(client=None, src=ENGLISH, **changes) -> Task:
    template = get_template(14, src.name, "Basque")
    return replace(Task(src, BASQUE, client, template, SamplingSettings(max_new_tokens=16, temperature=0.0)), **changes)


def divided(name: str, *sentences: str, src=ENGLISH, **settings) -> list[list[str]]:
    return DIVIDERS[name].load()(list(sentences), task_for(src=src), DividerSettings(**settings))


def test_identity_repeats_the_sentence():
    assert divided("identity", SENTENCE, "b") == [[SENTENCE] * 4, ["b"] * 4]
    assert divided("identity", SENTENCE, number_of_repetitions=1) == [[SENTENCE]]


def test_sentences_of_a_text_in_its_own_punctuation():
    assert divided("sentence", "Dr. Abdi came. He stayed until 5 p.m. and left.", SENTENCE) == [
        ["Dr. Abdi came.", "He stayed until 5 p.m. and left."],
        [SENTENCE],
    ]
    assert divided("sentence", "उनी आए। उनी बसे।", src=NEPALI) == [["उनी आए।", "उनी बसे।"]]
    assert divided("sentence", "وہ آیا۔ وہ گیا۔ وہ بیٹھا۔", src=URDU, number_of_subproblems=2) == [
        ["وہ آیا۔", "وہ گیا۔"]
    ]


@pytest.mark.parametrize("count, pieces", [(-1, 4), (1, 1), (3, 3), (40, 15)])
def test_words_in_runs_of_about_equal_length(count, pieces):
    (found,) = divided("space", SENTENCE, number_of_subproblems=count)
    assert len(found) == pieces and " ".join(found) == SENTENCE
    sizes = [len(piece.split()) for piece in found]
    assert max(sizes) - min(sizes) <= 1


def test_characters_keep_their_marks():
    """Every piece begins with a letter, never with a vowel sign or virama, and nothing is lost."""
    import unicodedata

    text = "श्री कृष्णले काठमाडौँमा घर किन्नुभयो"
    for count in range(2, 40):
        (found,) = divided("char", text, src=NEPALI, number_of_subproblems=count)
        assert not any(unicodedata.combining(piece[0]) or unicodedata.category(piece[0])[0] == "M" for piece in found)
        assert len(found) <= count
    (found,) = divided("char", text, src=NEPALI)
    assert len(found) == 4 and "".join("".join(found).split()) == "".join(text.split())


def test_keywords_are_rare_words_in_a_row():
    pool = [
        "the bridge was closed because of the rain",
        "the school was old",
        "it was the last day of winter",
        "its roof had to go",
    ] * 40
    pool += ["pillars of stone", "the walls had begun to crack"]
    found = divided("keyword", SENTENCE, pool=tuple(pool))[0]
    words = SENTENCE.lower().replace(",", " ").replace(".", " ").split()
    assert "the" not in " ".join(found).lower().split() and "was" not in " ".join(found).split()
    assert "pillars" in found and "begun" in found and all(len(phrase.split()) <= 3 for phrase in found)
    assert [word for word in words if word in " ".join(found).lower().split()] == " ".join(found).lower().split()
    assert divided("keyword", SENTENCE, pool=tuple(pool), number_of_subproblems=1)[0] == ["stone"], (
        "of equally rare runs the first"
    )


def test_keywords_without_a_pool_are_long_words():
    assert divided("keyword", "It is an extraordinary achievement of a girl") == [["extraordinary achievement", "girl"]]
    assert divided("keyword", "?!") == [["?!"]]


@pytest.mark.parametrize("name", ["sentence", "space", "char", "keyword"])
def test_whatever_the_text_something_is_left_of_it(name):
    """Random strings of letters, marks, spaces and punctuation in several scripts: never nothing, never a repetition, and a
    sentence is divided alike whatever stands beside it."""
    rng = random.Random(0)
    texts = [
        "".join(rng.choices("ab é ि क ् ک ۔ 。 中 . , - \t\n\u200d\u0301 9", k=rng.randrange(1, 40))) for _ in range(300)
    ]
    texts += ["", " ", "...", "a", "one two", "ha ha ha ha"]
    for count in (-1, 1, 3):
        found = divided(name, *texts, number_of_subproblems=count)
        assert len(found) == len(texts)
        for text, phrases in zip(texts, found, strict=True):
            assert phrases and len(phrases) == len(set(phrases)) and (count < 0 or len(phrases) <= count)
            assert phrases == [text] or all(phrase.strip() == phrase != "" for phrase in phrases)
        assert [divided(name, text, number_of_subproblems=count)[0] for text in texts[::20]] == found[::20]


# Lists as models write them


@pytest.mark.parametrize(
    "answer, items",
    [
        ("1. The bridge\n2. It was closed\n3. last winter", ["The bridge", "It was closed", "last winter"]),
        ("Here are the phrases:\n\n1) a b\n2) c d\n\nI hope this helps!", ["a b", "c d"]),
        ("- a b\n- c d", ["a b", "c d"]),
        ("* a b\n• c d", ["a b", "c d"]),
        ("**1.** a b\n**2.** **c d**", ["a b", "c d"]),
        ('1. "a b"\n2. “c d”\n3. «e»', ["a b", "c d", "e"]),
        ("(1) a b\n(2) c d", ["a b", "c d"]),
        ("१. क ख\n२. ग घ", ["क ख", "ग घ"]),
        ("1. a b 2. c d 3. e f", ["a b", "c d", "e f"]),
        ("a b\nc d", ["a b", "c d"]),
        ("a b", ["a b"]),
        ("", []),
        ("1.\n2. b", ["b"]),
        ("<think>1. no\n2. no</think>1. a\n2. b", ["a", "b"]),
        ("<think>1. no", []),
        ("1. a\n2. b\n\nSentence: c\nPhrases:\n1. c\n2. d", ["a", "b"]),  # a base model that goes on
        ("1. In 1998 the\n2. 3.5 km away", ["In 1998 the", "3.5 km away"]),
        ("1. the cat " + "sat on " * 60, ["the cat sat on"]),
        ("1: a b\n2: c d", ["a b", "c d"]),
    ],
)
def test_lists_are_read_as_models_write_them(answer, items):
    assert answer_parsing.list_items(answer) == items


def test_what_is_no_phrase_is_left_out():
    settings = DividerSettings()
    phrases = ["The  bridge", "the bridge.", SENTENCE.upper(), "...", "", "x" * (3 * len(SENTENCE) + 1), "was closed"]
    assert divide.clean_phrases(SENTENCE, phrases, settings) == ["The bridge", "was closed"]
    assert divide.clean_phrases(SENTENCE, phrases, replace(settings, number_of_subproblems=1)) == ["The bridge"]
    assert (
        divide.clean_phrases(SENTENCE, [SENTENCE], settings)
        == [SENTENCE]
        == divide.clean_phrases(SENTENCE, [], settings)
    )


# A model that divides


class Player:
    """A model whose answers are known: plays a sampler (topxgen.inference), remembers what it was asked."""

    def __init__(self, answer, reason="stop"):
        self.answer, self.reason, self.requests, self.settings = answer, reason, [], []

    def generate(self, next_request, settings):
        while (request := next_request()) is not None:
            self.requests.append(request)
            self.settings.append(settings)
            texts = [self.answer(request.prompt)] * settings.num_return_sequences
            yield inference.Answer(request.id, texts, finish_reasons=(self.reason,) * len(texts))


def test_a_chat_model_and_a_base_model_are_shown_the_same_examples(tmp_path):
    sentence = "Braces {examples} and {phrases} stay."
    player = Player(lambda prompt: "1. Braces stay\n2. {phrases} stay\n3. Braces stay")
    for style in ("chat", "raw"):
        client = llm_calls.LLMClient(player, style, tmp_path / f"{style}.jsonl", 1)
        sampling = SamplingSettings(max_new_tokens=16, temperature=0.7, num_return_sequences=3)
        found = divide.llm([sentence], task_for(client, sampling=sampling), DividerSettings(max_new_tokens_divide=99))
        assert found == [["Braces stay", "{phrases} stay"]]
    chat, raw = (request.prompt for request in player.requests)
    (turn,) = chat
    assert (
        turn["role"] == "user"
        and "in English" in turn["content"]
        and turn["content"].endswith(f"Sentence: {sentence}\nPhrases:")
    )
    assert raw.endswith(f"###\n\nSentence: {sentence}\nPhrases:")
    for prompt in (turn["content"], raw):
        assert prompt.count("\nPhrases:\n1. ") == 6 and prompt.count("###") == 6
    for settings in player.settings:
        assert (settings.max_new_tokens, settings.temperature, settings.num_return_sequences) == (99, 0.0, 1)
    assert [settings.stop for settings in player.settings] == [(), ("###",)]


def test_a_model_that_says_nothing_or_never_ends(tmp_path):
    said = {"a": "", "b": "\n".join(f"{i}. phrase {i}" for i in range(1, 400)), "c": "1. " + "x " * 999}
    player = Player(lambda prompt: said[prompt.rpartition("Sentence: ")[2][0]])
    client = llm_calls.LLMClient(player, "raw", tmp_path / "a.jsonl", 1)
    nothing, loop, long = divide.llm(["a bridge", "b bridge", "c bridge"], task_for(client), DividerSettings())
    assert nothing == ["a bridge"] and loop[:2] == ["phrase 1", "phrase 2"] and len(loop) == divide.MAX_PHRASES
    assert long == ["x x"]


@pytest.mark.parametrize(
    "answer, phrases",
    [
        ("1. the old bridge\n2. was closed la", ["the old bridge"]),
        ("1. the old bridge\n2. was closed\n", ["the old bridge", "was closed"]),
        ("1. the old bridge 2. was closed la", ["the old bridge"]),
        ("1. the old bri", [SENTENCE]),
    ],
)
def test_the_last_phrase_of_an_answer_that_was_cut_is_none(answer, phrases, tmp_path):
    """It may be half a word, and would be translated and shown as a demonstration."""
    for reason in ("length", "stop"):
        client = llm_calls.LLMClient(Player(lambda prompt: answer, reason), "raw", tmp_path / f"{reason}.jsonl", 1)
        for _ in ("asked", "read from disk"):
            (found,) = divide.llm([SENTENCE], task_for(client), DividerSettings())
            assert (found == phrases) == (reason == "length" or answer.endswith("\n"))
            client.begin_stage("divide")


def test_phrases_of_the_examples_are_no_phrases_of_other_sentences(tmp_path):
    player = Player(lambda prompt: "1. Do you know\n2. According to the report.\n3. The time")
    client = llm_calls.LLMClient(player, "raw", tmp_path / "a.jsonl", 1)
    found = divide.llm(["Do you know the time?", "What is the time?"], task_for(client), DividerSettings())
    assert found == [["Do you know", "The time"], ["The time"]]


def test_a_small_base_model_divides_and_resumes(tiny_lm, tmp_path):
    """A real model through the whole way, one sentence twice; the second run finds every answer on disk."""
    sampler = inference.load("hf", ModelSettings(tiny_lm, dtype="float32"))
    settings = DividerSettings(max_new_tokens_divide=40, number_of_subproblems=3)
    sentences = [SENTENCE, "Where is it?", SENTENCE]

    def run(sampler):
        client = llm_calls.LLMClient(sampler, "raw", tmp_path / "answers.jsonl", 1)
        found = divide.llm(sentences, task_for(client), settings)
        client.close()
        assert not client.failures
        return found

    found = run(sampler)
    assert found[0] == found[2] and all(1 <= len(phrases) <= 3 for phrases in found)
    assert len(records(tmp_path / "answers.jsonl")) == 2
    assert run(LazySampler(lambda: pytest.fail("a model was loaded"))) == found


@pytest.mark.parametrize("mode", ["vanilla", "paraphrase"])
def test_the_examples_of_the_prompts_pass_our_own_filter(mode):
    texts = divide._prompts(DividerSettings(mode_divide=mode))
    assert len(texts["examples"]) >= 5
    for row in texts["examples"]:
        assert divide.clean_phrases(row["sentence"], row["phrases"], DividerSettings()) == row["phrases"]
        assert len(row["phrases"]) >= 2 and all(texts["stop"] not in phrase for phrase in row["phrases"])


def test_a_prompt_of_the_users_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'stop = "END"\nchat = "{examples}|{sentence}|{src}"\nraw = "{examples}{sentence} {json: 1} ="\nexample = "{sentence}={phrases};"\n'
        '[[examples]]\nsentence = "A and B"\nphrases = ["A", "B"]\n'
    )
    player = Player(lambda prompt: "1. x\n2. y")
    client = llm_calls.LLMClient(player, "raw", tmp_path / "a.jsonl", 1)
    settings = DividerSettings(mode_divide=str(path))
    divide.check("llm", ENGLISH, settings)
    assert divide.llm(["x or y"], task_for(client), settings) == [["x", "y"]]
    assert player.requests[0].prompt == "A and B=1. A\n2. B;x or y {json: 1} =" and player.settings[0].stop == ("END",)


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "does not exist; choose one of paraphrase, vanilla"),
        ("chat = ", "cannot read"),
        ('stop = "#"\nraw = "{examples}{sentence}"\nexample = "{sentence}{phrases}"', "has no text 'chat'"),
        (
            'stop = "#"\nchat = "{examples}{sentense}"\nraw = "{examples}{sentence}"\nexample = "{sentence}{phrases}"',
            r"chat: the placeholder \{sentence\} is missing",
        ),
        (
            'stop = "#"\nchat = "{examples}{sentence}"\nraw = "{examples}{sentence}"\nexample = "{sentence}{phrases}"\n'
            '[[examples]]\nsentence = "a"\nphrases = "b"',
            "an .*examples.* needs sentence",
        ),
        (
            'stop = "#"\nchat = "{examples}{sentence} in {source}"\nraw = "{examples}{sentence}"\nexample = "{sentence}{phrases}"',
            r"chat: unknown placeholder \{source\}; known here: \{examples\}, \{sentence\}, \{src\}, \{tgt\}",
        ),
        (
            'stop = "#"\nchat = "{examples}{sentence}"\nraw = "{examples}{sentence}"\nexample = "{sentence}{phrases}"\nexample_s = 1',
            "'example_s' .*did you mean example",
        ),
    ],
)
def test_what_is_wrong_in_a_prompt_file_is_named(text, message, tmp_path):
    path = tmp_path / "mine.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message) as raised:
        divide.check("llm", ENGLISH, DividerSettings(mode_divide=str(path)))
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_an_unknown_mode_names_the_choices():
    with pytest.raises(UsageError, match=r"--mode_divide 'vanila' .*paraphrase, vanilla.*did you mean vanilla"):
        divide.check("llm", ENGLISH, DividerSettings(mode_divide="vanila"))


# spaCy


def parsed(words: str, tags: str, deps: str, heads: list[int]):
    tokens = pytest.importorskip("spacy.tokens")
    return tokens.Doc(
        pytest.importorskip("spacy.vocab").Vocab(), words.split(), pos=tags.split(), deps=deps.split(), heads=heads
    )


def test_subtrees_are_clauses_noun_phrases_and_verbs_with_theirs():
    doc = parsed(
        "The old farmer said that the heavy rains would destroy his fields , and his wife agreed .",
        "DET ADJ NOUN VERB SCONJ DET ADJ NOUN AUX VERB PRON NOUN PUNCT CCONJ PRON NOUN VERB PUNCT",
        "det amod nsubj ROOT mark det amod nsubj aux ccomp poss dobj punct cc poss nsubj conj punct",
        [2, 2, 3, 3, 9, 7, 7, 9, 9, 3, 11, 9, 3, 3, 15, 16, 3, 3],
    )

    def phrases(most=-1):
        return [doc[start:end].text for start, end in divide.phrase_subtrees(doc, most)]

    # The clause has nine words without its subordinator's subtree being one: too long, its parts stand.
    assert phrases() == ["The old farmer said", "that the heavy rains would destroy his fields", "his wife agreed"]
    assert phrases(2) == ["The old farmer said", "that the heavy rains would destroy his fields"]
    assert phrases(1) == ["that the heavy rains would destroy his fields"]


def test_a_verb_with_its_particles_alone_is_no_phrase():
    doc = parsed(
        "They came back to sing .",
        "PRON VERB ADV PART VERB PUNCT",
        "nsubj ROOT advmod aux xcomp punct",
        [1, 1, 1, 4, 1, 1],
    )
    assert [doc[start:end].text for start, end in divide.phrase_subtrees(doc)] == ["They came", "came back to sing"]


def test_no_phrase_lies_in_another_and_none_is_too_long():
    rng = random.Random(1)
    for _ in range(200):
        n = rng.randrange(1, 30)
        heads = [0] + [rng.randrange(i) for i in range(1, n)]
        tags = [rng.choice(["NOUN", "VERB", "PUNCT", "ADJ", "AUX"]) for _ in range(n)]
        doc = parsed(" ".join(f"w{i}" for i in range(n)), " ".join(tags), " ".join(["dep"] * n), heads)
        spans = divide.phrase_subtrees(doc)
        assert spans == sorted(spans)
        for a, b in spans:
            words = sum(token.pos_ != "PUNCT" for token in doc[a:b])
            assert 2 <= words <= 8 and not any(c <= a and b <= d for c, d in spans if (c, d) != (a, b))


def test_structural_with_a_pipeline_on_disk(tmp_path):
    spacy = pytest.importorskip("spacy")
    from spacy.training import Example

    spacy.util.fix_random_seed(0)
    pipeline = spacy.blank("en")
    pipeline.add_pipe("parser")
    words = "The dog sees the big house ."
    lesson = {"heads": [1, 2, 2, 5, 5, 2, 2], "deps": ["det", "nsubj", "ROOT", "det", "amod", "obj", "punct"]}
    lessons = [Example.from_dict(pipeline.make_doc(words), lesson)] * 32
    optimizer = pipeline.initialize(lambda: lessons)
    optimizer.learn_rate = 0.01
    for _ in range(12):
        pipeline.update(lessons, sgd=optimizer)
    pipeline.to_disk(tmp_path / "parser")
    model = str(tmp_path / "parser")
    # Without a tagger any subtree is a phrase; the whole sentence is none.
    assert divided("structural", words, "Yes.", spacy_model=model) == [["The dog sees", "sees the big house"], ["Yes."]]
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(UsageError, match=r"needs dependencies, but the spaCy pipeline .* has only a tokenizer"):
        divide.check("structural", ENGLISH, DividerSettings(spacy_model=str(tmp_path / "blank")))
    with pytest.raises(UsageError, match="python -m spacy download en_core_web_nowhere"):
        divide.check("structural", ENGLISH, DividerSettings(spacy_model="en_core_web_nowhere"))


def test_structural_names_what_is_missing():
    with pytest.raises(
        UsageError, match=r"spaCy has none for Basque: pip install spacy.*python -m spacy download MODEL"
    ):
        divide.check("structural", BASQUE, DividerSettings())


# Boundaries


def test_a_phrase_of_three_times_the_sentence_is_kept_and_one_character_more_is_not():
    limit = divide.MAX_PHRASE_RATIO * len("abcd")
    assert limit == 12
    assert divide.clean_phrases("abcd", ["x" * 12, "y" * 13], DividerSettings()) == ["x" * 12]


@pytest.mark.parametrize("count, kept", [(31, 31), (32, 32), (33, 32)])
def test_an_answer_gives_32_phrases_at_most(count, kept, tmp_path):
    player = Player(lambda prompt: "\n".join(f"{i}. part {i}" for i in range(1, count + 1)))
    client = llm_calls.LLMClient(player, "raw", tmp_path / "a.jsonl", 1)
    (phrases,) = divide.llm(["a long sentence"], task_for(client), DividerSettings())
    assert len(phrases) == kept and phrases[-1] == f"part {kept}"


def test_keywords_weigh_more_than_the_median_and_run_to_three_words():
    assert divided("keyword", "aaaa bbb cc d") == [["aaaa bbb"]], "of an even number the lower middle"
    assert divided("keyword", "aaa bb c") == [["aaa"]] and divided("keyword", "aa bb cccc") == [["cccc"]]
    assert divided("keyword", "aaaa bbbb cccc dddd e f g h") == [["aaaa bbbb cccc", "dddd"]]
    assert divided("keyword", "aaaa, bbbb e f") == [["aaaa", "bbbb"]], "punctuation ends a run"
    four = "aaaa e bbbbb f cccc g"
    assert divided("keyword", four, number_of_subproblems=2) == [["aaaa", "bbbbb"]], "of ties the first, in order"


@pytest.mark.parametrize("words, kept", [(1, False), (2, True), (8, True), (9, False)])
def test_subtrees_have_two_to_eight_words(words, kept):
    """A noun phrase of so many words beside a verb and its adverb."""
    text = " ".join(["w"] * words + ["runs", "now"])
    doc = parsed(
        text,
        " ".join(["ADJ"] * (words - 1) + ["NOUN", "X", "X"]),
        " ".join(["dep"] * (words + 2)),
        [words - 1] * (words - 1) + [words, words, words],
    )
    assert divide.phrase_subtrees(doc) == ([(0, words)] if kept else [])


def test_the_whole_text_is_not_its_own_subtree():
    doc = parsed("a b c", "ADJ ADJ NOUN", "dep dep ROOT", [2, 2, 2])
    assert divide.phrase_subtrees(doc) == []
