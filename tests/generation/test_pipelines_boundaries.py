"""The schedule of prompts, and which of them share their examples."""

import itertools
from types import SimpleNamespace

from topxgen.generation.pipelines import Prompt, shuffled_rounds
from topxgen.generation.pipelines import topxgen as pipeline
from topxgen.text import languages

NAMES = ("Basque", "Hausa", "Igbo")


def test_prompts_are_numbered_without_gaps_and_steps_are_counted():
    steps = list(itertools.islice(shuffled_rounds(NAMES, 3, 1), 12))
    assert [prompt.step for step in steps for prompt in step] == [number for number in range(12) for _ in range(3)]
    for name in NAMES:
        prompts = [prompt for step in steps for prompt in step if prompt.language == name]
        assert [prompt.number for prompt in prompts] == list(range(12))
        assert prompts[11].id == f"{name}-000011"
    rounds = [tuple(step[0].language for step in steps[start : start + 3]) for start in range(0, 12, 3)]
    assert all(sorted(one) == sorted(NAMES) for one in rounds)


def test_rounds_are_shuffled_anew():
    steps = itertools.islice(shuffled_rounds(NAMES, 1, 1), 60)
    order = [step[0].language for step in steps]
    assert len({tuple(order[start : start + 3]) for start in range(0, 60, 3)}) > 1


def build(tmp_path, monkeypatch, paragraphs: dict[str, list[str]], count: int):
    """The TopXGen pipeline over these example paragraphs, `count` of them in a prompt."""
    topics = tmp_path / "wiki.txt"
    topics.write_text("".join(f"topic {i}\n" for i in range(90)))
    monkeypatch.setattr(pipeline, "_example_paragraphs", lambda args: paragraphs)
    monkeypatch.setattr(pipeline, "example_sentences", lambda args, language: [f"sentence {i}" for i in range(50)])
    args = SimpleNamespace(
        seed=1, seed_topics_path=topics, prompt_template="continuation", number_of_generations_per_step=1,
        number_of_icl_demonstrations=count, number_of_icl_phrases=2, inference_api="hf", languages_file=None,
    )  # fmt: skip
    return pipeline.TopXGen(SimpleNamespace(args=args, languages={"Basque": languages.find("Basque")}))


def examples_of(prompt: str, paragraphs) -> list[tuple[str, str]]:
    return [(name, text) for name, texts in paragraphs.items() for text in texts if text in prompt]


def test_four_consecutive_prompts_share_their_examples(tmp_path, monkeypatch):
    paragraphs = {name: [f"<{name} {i}>" for i in range(30)] for name in (*NAMES, "Zulu", "Xhosa")}
    built = build(tmp_path, monkeypatch, paragraphs, 3)
    prompts = [built.build(Prompt(f"Basque-{i:06d}", "Basque", i, i)) for i in range(40)]
    drawn = [examples_of(text, paragraphs) for text, _ in prompts]
    assert all(drawn[i] == drawn[i - i % 4] for i in range(40))
    assert all(drawn[i] != drawn[i + 4] for i in range(0, 36, 4))
    assert [topic for _, topic in prompts] != sorted(topic for _, topic in prompts)


def test_examples_are_never_in_the_language_itself_and_of_different_places(tmp_path, monkeypatch):
    paragraphs = {name: [f"<{name} {i}>" for i in range(30)] for name in (*NAMES, "Zulu")}
    built = build(tmp_path, monkeypatch, paragraphs, 3)
    places = set()
    for number in range(0, 80, 4):
        drawn = examples_of(built.build(Prompt("", "Basque", number, 0))[0], paragraphs)
        assert len(drawn) == 3 and {name for name, _ in drawn} == {"Hausa", "Igbo", "Zulu"}
        places |= {int(text.split()[1][:-1]) for _, text in drawn}
        assert len({text.split()[1] for _, text in drawn}) == 3
    assert len(places) > 15
