"""The counts of the funnel, from files written here: every text is in one row, and each step adds up."""

import re

from topxgen.common.files import to_line
from topxgen.common.records import Layout
from topxgen.generation import funnel

USED = {"prompt_tokens": 10, "completion_tokens": 4}


def write(path, lines) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(map(to_line, lines)), encoding="utf-8")


def generated(folder) -> Layout:
    """Three responses with texts, one that failed, two that were not needed; one paragraph that came with the file."""
    layout = Layout(folder, "test")
    write(
        layout.paragraphs("Basque"),
        [{"id": "mine", "text": "z"}, *({"id": f"Basque-00000{i}.0", "text": f"{i}"} for i in (0, 1))],
    )
    responses = [{"id": f"Basque-00000{i}", "topic": "t", "texts": ["x"], **USED} for i in range(6)]
    responses[3]["texts"] = []
    write(layout.responses("Basque"), responses)
    reasons = {
        "Basque-000000.1": "too_few_words",
        "Basque-000002.0": "near_duplicate of mine (ROUGE-L F1 0.912)",
        "Basque-000003.0": "answer_failed",
    }
    write(layout.rejects("Basque"), [{"id": name, "reason": reason} for name, reason in reasons.items()])
    return layout


def test_generation_counts(tmp_path):
    assert funnel.generation_counts(generated(tmp_path), "Basque") == {
        "prompts": 6, "answers": 6, "not_needed": 2, "prompt_tokens": 60, "completion_tokens": 24, "kept": 3,
        "brought_along": 1, "rejected": {"too_few_words": 1, "near_duplicate": 1, "answer_failed": 1},
    }  # fmt: skip


def test_translation_counts(tmp_path):
    layout = Layout(tmp_path, "test")
    assert funnel.translation_counts(layout, "Basque")["mean_score"] is None
    translations = [
        {"id": "a", "propositions": ["p", "q", "r"], "translations": ["p", "q", "r"], "scores": [0.0, 3.0, None], "segments": [1, 1, 2],
         "truncated": [True, False, True]},
        {"id": "b", "propositions": ["s"], "translations": ["s"], "scores": [None]},
    ]  # fmt: skip
    write(layout.translations("Basque"), translations)
    rejected = [
        {"sentence": "x", "reason": "sentence_too_short"},
        {"sentence": "y", "reason": "translation_failed", "pieces": 3, "truncated": True},
    ]
    write(layout.translation_rejects("Basque"), [{"id": "a", "rejected": rejected}])
    assert funnel.translation_counts(layout, "Basque") == {
        "paragraphs": 2, "sentences": 6, "rejected": {"sentence_too_short": 1, "translation_failed": 1},
        "translated_in_pieces": 2, "truncated_translations": 3, "pairs": 4, "scored": 2, "mean_score": 1.5,
    }  # fmt: skip


def test_rows_add_up(tmp_path):
    table = funnel.render(7, [funnel.generation_counts(generated(tmp_path), "Basque")], [])
    rows = {match[1]: int(match[2]) for match in re.finditer(r"^ {2}( {0,2}\S.*?) +(\d+)(?: +-\d+)?$", table, re.M)}
    removed = [int(number) for number in re.findall(r"-(\d+)$", table, re.M)]
    assert rows["prompts sent"] == 7 and rows["responses"] == 6 and rows["paragraphs kept"] == 3
    assert (
        rows["texts parsed"] == 4
    )  # of 6 responses one failed and two were not needed; one text of the first was rejected
    assert rows["  after near duplicate"] == 2 and rows["  after too few words"] == 3
    assert sum(removed) == 1 + 1 + 2 + 1 + 1


def test_samples_come_from_across_the_file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    write(path, [{"propositions": [f"s{i}"], "translations": [f"t{i}"], "scores": [i]} for i in range(10)])
    assert [score for _, _, score in funnel.sample_pairs(path, 5)] == [0, 2, 4, 6, 8]
    assert [score for _, _, score in funnel.sample_pairs(path, 4)] == [0, 2, 4, 6]
    assert len(funnel.sample_pairs(path, 20)) == 10
