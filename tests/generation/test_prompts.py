"""Topics, prompt templates and the prompts of the TopXGen pipeline; a pipeline of one's own."""

import hashlib
import json
import tomllib

import pytest

from datagen import build_parser
from tests.support.runs import ROOT
from topxgen.common import provenance
from topxgen.common.errors import UsageError
from topxgen.corpora import examples
from topxgen.corpora.topics import read_topics
from topxgen.generation import prompt_templates
from topxgen.generation.pipelines import shuffled_rounds
from topxgen.generation.pipelines.topxgen import PROMPTS_PER_EXAMPLES, TopicOrder
from topxgen.generation.plan import GenerationConfig

OLDER = ROOT / "tests" / "generation" / "older_prompts"
PROMPTS = ROOT / "topxgen" / "generation" / "prompts"


def test_topics(tmp_path):
    assert len(read_topics(ROOT / "topics/wikipedia_vital_topics.txt")) == 10032
    assert read_topics(ROOT / "topics/broad_topics.txt")[:2] == [
        "rivers, lakes and wetlands",
        "mountains, valleys and glaciers",
    ]
    (tmp_path / "my_wiki.txt").write_text("Paris, Texas\n\nWine\nWine\n")
    assert read_topics(tmp_path / "my_wiki.txt") == ["Paris, Texas", "Wine"]
    (tmp_path / "words.txt").write_text("one\n , two,\n")
    assert read_topics(tmp_path / "words.txt") == ["one", "two"]
    (tmp_path / "t.jsonl").write_text('"a"\n{"topic": "b"}\n')
    assert read_topics(tmp_path / "t.jsonl") == ["a", "b"]
    (tmp_path / "t.jsonl").write_text('"a"\n{"title": "b"}\n')
    with pytest.raises(UsageError, match="line 2"):
        read_topics(tmp_path / "t.jsonl")
    (tmp_path / "latin1.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(UsageError, match="UTF-8"):
        read_topics(tmp_path / "latin1.txt")


def test_topics_come_once_before_any_comes_twice():
    topics = [str(i) for i in range(50)]
    order = TopicOrder(topics, 1, "Basque")
    first, second = [order.topic(i) for i in range(50)], [order.topic(i) for i in range(50, 100)]
    assert sorted(first) == sorted(second) == sorted(topics) and first != second
    assert [order.topic(i) for i in range(50)] == first, "also after going on"
    assert [TopicOrder(topics, 1, "Hausa").topic(i) for i in range(50)] != first


@pytest.fixture
def build(tmp_path):
    """The pipeline of a command line in which the given flags replace the defaults of these tests."""
    (tmp_path / "wiki.txt").write_text("".join(f"topic {i}\n" for i in range(100)))

    def pipeline(**flags):
        defaults = dict(
            languages="Basque", inference_api="openai", model_name_or_path="m", output_dir=tmp_path, seed=1,
            seed_topics_path=tmp_path / "wiki.txt", number_of_instructions=1, example_paragraphs="udhr",
            example_sentences="udhr", number_of_icl_demonstrations=8, number_of_icl_phrases=4,
        )  # fmt: skip
        words = [str(word) for name, value in (defaults | flags).items() for word in (f"--{name}", value)]
        return GenerationConfig(build_parser().parse_args(words)).pipeline

    return pipeline


def test_a_prompt_depends_on_seed_language_and_number_alone(build):
    by_batch = {}
    for step_size in (1, 3, 16):
        steps = shuffled_rounds(("Basque",), step_size, 1)
        asked = [prompt for _ in range(48 // step_size) for prompt in next(steps)]
        pipeline = build()
        by_batch[step_size] = [pipeline.build(prompt) for prompt in asked]
    assert by_batch[1] == by_batch[3] == by_batch[16]
    assert build(seed=2).build(asked[0]) != by_batch[1][0]


def test_examples_are_in_other_languages_and_different_paragraphs(build):
    pool = examples.example_paragraphs("udhr")
    steps = shuffled_rounds(("Basque",), 4, 1)
    pipeline = build()
    for _ in range(10):
        step = next(steps)
        texts = [pipeline.build(prompt)[0][0]["content"] for prompt in step]
        found = [
            (name, i)
            for name, lines in pool.items()
            for i, line in enumerate(lines)
            if f"({name}):\n{line}\n" in texts[0]
        ]
        names = {name for name, _ in found}
        assert len(names) == 8 and "Basque" not in names
        assert step[0].number % PROMPTS_PER_EXAMPLES == 0
        shared = [text.rsplit("Topic: ", 1)[0] for text in texts]
        assert len(set(shared)) == 1, "what the prompts share stands first"
        assert all(text.endswith(f"Topic: {pipeline.build(p)[1]}") for text, p in zip(texts, step, strict=True))


def test_prompts_without_examples_hold_no_trace_of_them(build):
    content = build(number_of_icl_demonstrations=0, number_of_icl_phrases=0).build(
        next(shuffled_rounds(("Basque",), 1, 1))[0]
    )[0][0]["content"]
    assert (
        "passages in other languages" not in content and "is written:" not in content and "exactly 2 texts" in content
    )


@pytest.mark.parametrize("folder, suffix", [(PROMPTS, "toml"), (OLDER, "txt")])
def test_the_prompts_of_older_versions(folder, suffix, caplog):
    """Byte for byte those of the text templates before them (digest of what that code made)."""
    prompts = []
    for name in ("instruct", "continuation"):
        template = prompt_templates.load(str(folder / f"{name}.{suffix}"))
        assert template == prompt_templates.load(name) or suffix == "txt"
        for language, topic, n, paragraphs, sentences in (
            ("Basque", "Wine", 2, 2, 3),
            ("Urdu", "{braces} & {{more}}", 1, 0, 4),
            ("Swahili", "a\nb", 3, 1, 0),
            ("Nepali", "नेपाल", 2, 0, 0),
        ):
            prompts.append(
                template.fill(
                    language=language,
                    topic=topic,
                    n=n,
                    paragraphs=[(f"L{i}", f"text {i} {{x}}\nline {{number}}") for i in range(paragraphs)],
                    sentences=[f"sentence {i} {{topic}}" for i in range(sentences)],
                )
            )
    assert hashlib.sha256(json.dumps(prompts).encode()).hexdigest()[:16] == "10119e5adababf3d"
    assert [record.levelname for record in caplog.records] == (["WARNING"] * 2 if suffix == "txt" else [])
    assert all("write it as TOML" in record.getMessage() for record in caplog.records)


def test_runs_with_the_older_templates_go_on_with_the_new_ones(tmp_path):
    path = tmp_path / "settings_generate.json"
    for name, older in (("instruct", "09d131a6e16a4ec2"), ("continuation", "8c033ceb9e540664")):
        path.write_text(json.dumps({"prompt_template": f"{name}.txt", "prompt_template_digest": older}))
        assert prompt_templates.load(str(OLDER / f"{name}.txt")).digest == older
        provenance.check_settings(path, {"prompt_template_digest": prompt_templates.load(name).digest})
        with pytest.raises(UsageError, match="prompt_template_digest was"):
            provenance.check_settings(path, {"prompt_template_digest": "another"})


def test_the_digest_is_of_the_content_not_of_the_comments(tmp_path):
    text = (PROMPTS / "instruct.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text("# mine\n" + text, encoding="utf-8")
    (tmp_path / "other.toml").write_text(text.replace("seasoned", "young"), encoding="utf-8")
    mine, other = (prompt_templates.load(str(tmp_path / f"{name}.toml")).digest for name in ("mine", "other"))
    assert mine == prompt_templates.load("instruct").digest != other


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("{topic}", "{topik}", "the placeholder {topic} is missing"),
        ("{topic}", "{topic} {topik}", "unknown placeholder {topik}; known here: {language}, {topic}, "),
        ("{topic}", "{topic!r}", "the placeholder {topic} is missing"),
        ("{topic}", "{topic", "the placeholder {topic} is missing"),
        ("- {text}", "- {topic}", "sentence: unknown placeholder {topic}; known here: {number}, {language}, {text}"),
        (
            'style = "chat"',
            'style = "chats"',
            "style 'chats' does not exist; choose one of chat, completion (did you mean",
        ),
        ('answer = "numbered"', 'answer = "xml"', "answer 'xml' does not exist; choose one of numbered, text"),
        ('answer = "numbered"', "", "answer 'None' does not exist"),
        ("stop = []", 'stop = "\\n"', "is not a list of strings"),
        ("stop = []", 'stop = [""]', "is not a list of strings"),
        ("stop = []", "stops = []", "key 'stops' does not exist; choose one of style, answer, stop, "),
        ("sentence =", "phrase =", "has no text 'sentence'"),
        ("style =", "style", "cannot read"),
    ],
)
def test_a_broken_template_is_named(tmp_path, old, new, message):
    text = (PROMPTS / "instruct.toml").read_text(encoding="utf-8")
    comments, start, body = text.partition('style = "chat"')
    assert old in start + body
    (tmp_path / "mine.toml").write_text(comments + (start + body).replace(old, new), encoding="utf-8")
    with pytest.raises(UsageError) as error:
        prompt_templates.load(str(tmp_path / "mine.toml"))
    assert message in str(error.value) and "mine.toml" in str(error.value)


def test_other_braces_stay(tmp_path):
    text = (
        (PROMPTS / "continuation.toml").read_text(encoding="utf-8").replace("about {topic}", '{topic} {"a": {}} {{n}}')
    )
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    template = prompt_templates.load(str(tmp_path / "mine.toml"))
    prompt = template.fill(language="Basque", topic="Wine", n=3, paragraphs=[], sentences=[])
    assert prompt == '# Basque article Wine {"a": {}} {3}\n' and template.stop == ("\n",)
    assert tomllib.loads(text)["answer"] == template.answer == "text"


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("Topic: {topic}", "Topic: {topik}", "KeyError: 'topik'"),
        ("Topic: {topic}", "Topic: {topic.__class__.a}", "AttributeError"),
        ("Topic: {topic}", "Topic: {topic", "ValueError: expected '}'"),
        ("Topic: {topic}", "Topic: this", "the prompt has no {topic}"),
        ("style: chat", "style: chatty", "style 'chatty' does not exist; choose one of chat"),
        ("answer: numbered", "answer: numbered\nstop: \\n", "cannot read the prompt template"),
        ("answer: numbered", "anwser: numbered", "key 'anwser' does not exist"),
        ("=== sentence\n", "=== phrase\n", "KeyError: 'sentence'"),
    ],
)
def test_a_broken_template_in_the_older_format_is_named(tmp_path, old, new, message):
    text = (OLDER / "instruct.txt").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "mine.txt").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(UsageError) as error:
        prompt_templates.load(str(tmp_path / "mine.txt"))
    assert message in str(error.value) and "mine.txt" in str(error.value)


def test_a_pipeline_of_ones_own(tmp_path, build):
    path = tmp_path / "mine.py"
    path.write_text(
        "from topxgen.generation.pipelines import Pipeline\n\n"
        "class Poems(Pipeline):\n"
        "    def __init__(self, config):\n"
        "        self.settings = {'verses': 4}\n\n"
        "    def build(self, prompt):\n"
        "        return f'Poem {prompt.number} in {prompt.language}:', 'poetry'\n\n"
        "    def parse(self, response):\n"
        "        return [' '.join(response.split())] if response.strip() else None\n"
    )
    pipeline = build(data_generation_pipeline=f"{path}:Poems")
    (prompt,) = next(pipeline.schedule(("Basque",), 1, 7))
    assert pipeline.build(prompt) == ("Poem 0 in Basque:", "poetry")
    assert (pipeline.texts_per_prompt, pipeline.stop, pipeline.settings) == (1, (), {"verses": 4})
    with pytest.raises(UsageError, match="has no 'Poem'"):
        build(data_generation_pipeline=f"{path}:Poem")
