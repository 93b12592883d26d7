"""Durable files, prompts, topics, example sources and the translator."""

import random
import shutil
import subprocess
import sys

import pytest

from tests.support.runs import BENCHMARKS, ROOT
from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_jsonl, repair_tail
from topxgen.common.locks import OutputLock
from topxgen.common.records import with_ids
from topxgen.corpora import examples
from topxgen.generation import prompt_templates
from topxgen.generation.paragraphs import schedule
from topxgen.generation.pipelines.topxgen import PROMPTS_PER_EXAMPLES, TopXGenPrompts
from topxgen.generation.topics import TopicOrder, read_topics
from topxgen.text import languages


def test_any_torn_tail_is_repaired(tmp_path):
    path = tmp_path / "a.jsonl"
    whole = [{"text": "euskara", "n": 1}, {"text": "नेपाली", "n": 2}, {"text": "اردو" * 40000, "n": 3}]
    with Appender(path) as out:
        out.write(*whole)
    data = path.read_bytes()
    for cut in [*range(120), *random.Random(0).sample(range(len(data)), 40), len(data) - 1, len(data)]:
        path.write_bytes(data[:cut])
        repair_tail(path)
        # A record is kept exactly when all of it is there, with or without its line break.
        complete = data[: cut + 1].count(b"}\n")
        assert list(read_jsonl(path)) == whole[:complete]
        with Appender(path) as out:
            out.write({"n": 4})
        assert list(read_jsonl(path)) == [*whole[:complete], {"n": 4}]


def test_what_cannot_be_utf8_does_not_end_a_run(tmp_path):
    with Appender(tmp_path / "a.jsonl") as out:
        out.write({"text": "a\ud800b\u2028c"})
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [{"text": "a?b\u2028c"}]


def test_lock_names_its_owner_and_dies_with_it(tmp_path):
    script = f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\nfrom topxgen.common.locks import OutputLock\nlock = OutputLock(Path({str(tmp_path)!r}))\nprint('held', flush=True)\ntime.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match=f"process {owner.pid} on "):
        OutputLock(tmp_path)
    owner.kill()
    owner.wait()
    OutputLock(tmp_path).release()


def test_records_without_ids_get_the_same_ones_each_time():
    lines = [{"text": "a"}, {"text": "a", "id": None}, {"text": "b", "id": "mine"}, {"text": "c", "id": "mine"}]
    names = [name for name, _ in with_ids(lines, "text")]
    assert names == [name for name, _ in with_ids(lines, "text")] and len(set(names)) == 4
    assert names[2:] == ["mine", "mine#2"], "an id that stood before gets its count behind it"


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


def build(template="instruct", **changes) -> TopXGenPrompts:
    settings = (
        dict(languages=["Basque"], seed=1, texts=2, demonstrations=8, phrases=4, notice=lambda line: None) | changes
    )
    sentences = {"Basque": examples.udhr(languages.find("Basque"))}
    return TopXGenPrompts(
        prompt_templates.load(template),
        [f"topic {i}" for i in range(100)],
        examples.example_paragraphs("udhr"),
        sentences,
        **settings,
    )


def test_a_prompt_depends_on_seed_language_and_number_alone():
    by_batch = {}
    for step_size in (1, 3, 16):
        steps = schedule(("Basque",), step_size, 1)
        asked = [prompt for _ in range(48 // step_size) for prompt in next(steps)]
        by_batch[step_size] = [build().build(prompt) for prompt in asked]
    assert by_batch[1] == by_batch[3] == by_batch[16]
    assert build(seed=2).build(asked[0]) != by_batch[1][0]


def test_examples_are_in_other_languages_and_different_paragraphs():
    pool = examples.example_paragraphs("udhr")
    steps = schedule(("Basque",), 4, 1)
    for _ in range(10):
        step = next(steps)
        texts = [build().build(prompt)[0][0]["content"] for prompt in step]
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
        assert all(text.endswith(f"Topic: {build().build(p)[1]}") for text, p in zip(texts, step, strict=True))


def test_prompts_without_examples_hold_no_trace_of_them():
    content = build(demonstrations=0, phrases=0).build(next(schedule(("Basque",), 1, 1))[0])[0][0]["content"]
    assert (
        "passages in other languages" not in content and "is written:" not in content and "exactly 2 texts" in content
    )


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("{topic}", "{topik}", "unknown placeholder {topik}"),
        ("{topic}", "{topic!r}", "unknown placeholder"),
        ("{topic}", "{topic.__class__}", "unknown placeholder"),
        ("{topic}", "{topic", "for a brace"),
        ("{topic}", "this", "has no {topic}"),
        ("style: chat", "style: chatty", "style 'chatty' is none of chat, completion"),
        ("answer: numbered", "answer: xml", "answer 'xml' is none of"),
        ("answer: numbered", "stop: \\n", "must be a JSON string"),
        ("answer: numbered", "anwser: numbered", "'anwser: numbered' is not a setting"),
        ("=== sentence\n", "=== phrase\n", "section 'phrase' is none of"),
    ],
)
def test_a_broken_template_is_named(tmp_path, old, new, message):
    text = (ROOT / "topxgen/generation/prompts/instruct.txt").read_text(encoding="utf-8")
    assert old in text
    head, _, body = text.partition("\n\n===")
    text = (
        (head.replace(old, new) if old in ("style: chat", "answer: numbered") else head)
        + "\n\n==="
        + body.replace(old, new)
    )
    (tmp_path / "mine.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as error:
        prompt_templates.load(str(tmp_path / "mine.txt"))
    assert message in str(error.value) and "mine.txt" in str(error.value)


def test_example_sources_from_folders(tmp_path):
    basque = languages.find("Basque")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "eus_Latn.dev").write_text("Bat.\nBi.\n", encoding="utf-8")
    assert examples.example_sentences(str(tmp_path), basque) == ["Bat.", "Bi."]
    (tmp_path / "Spanish.txt").write_text("Uno.\nDos.\n", encoding="utf-8")
    (tmp_path / "fra_Latn.txt").write_text("Un.\n", encoding="utf-8")
    assert examples.example_paragraphs(str(tmp_path)) == {"Spanish": ["Uno.", "Dos."], "French": ["Un."]}
    with pytest.raises(UsageError, match="no sentences in Hausa"):
        examples.example_sentences(str(tmp_path), languages.find("Hausa"))


def test_xquad_in_its_publishers_layout():
    if not (BENCHMARKS / "xquad").is_dir():
        pytest.skip("XQuAD is not on this machine")
    pool = examples.example_paragraphs(str(BENCHMARKS))
    assert len(pool) == 12 and {len(texts) for texts in pool.values()} == {240}
    assert examples.example_sentences(str(BENCHMARKS), languages.find("English"))[:1]


@pytest.mark.skipif(not shutil.which("apertium"), reason="Apertium is not installed (scripts/setup.sh does it)")
def test_apertium_keeps_order_and_counts_unknown_words():
    from topxgen.translation.apertium import Apertium

    apertium, basque, english = Apertium(), languages.find("Basque"), languages.find("English")
    sentences = examples.udhr(basque)
    together = apertium.translate(sentences, basque, english)
    alone = [apertium.translate([sentence], basque, english)[0] for sentence in sentences[:8]]
    assert together[:8] == alone and len(together) == len(sentences)
    assert all(0 <= translation.confidence <= 1 and "*" not in translation.text for translation in together)
    known, unknown, odd, empty = apertium.translate(
        ["Umeak etxera joan dira.", "Umeak xyzzyqw joan dira.", "*izarra #etxea @a\n\nlerro berria\x00.", ""],
        basque,
        english,
    )
    assert known.confidence == 1 and unknown.confidence == 0.75 and "xyzzyqw" in unknown.text
    assert "\n" not in odd.text and empty.text == "" and empty.confidence == 0
    assert apertium.translate([], basque, english) == []
