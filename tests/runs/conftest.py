"""A run in the middle of its work."""

import pytest

from tests.support.statuses import pair, paragraph, response, write


@pytest.fixture
def begun(tmp_path):
    """A run that has 3 of its paragraphs, and the pairs of 2."""
    write(tmp_path / "settings_generate.json", {"model": "m"})
    write(tmp_path / "Basque.jsonl", *map(paragraph, range(3)))
    write(tmp_path / "Basque_answers.jsonl", *map(response, range(4)), response(4, error="no answer"))
    write(
        tmp_path / "Basque_rejects.jsonl",
        {"id": "Basque-3.0", "reason": "near_duplicate of Basque-1.0 (ROUGE-L F1 0.8)"},
    )
    folder = tmp_path / "apertium"
    write(folder / "settings_translate.json", {"target_language": "English"})
    write(folder / "Basque_translate.jsonl", *map(pair, range(2)))
    rejected = [{"sentence": "e", "translation": None, "reason": "sentence_too_short"}]
    write(folder / "Basque_translate_rejects.jsonl", {"id": "Basque-0.0", "rejected": rejected * 2})
    return tmp_path
