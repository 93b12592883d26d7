"""Topics and their categories."""

import pytest

from tests.support.runs import ROOT
from topxgen.common.errors import UsageError
from topxgen.corpora.topics import read_categories, read_topics


def test_the_embedded_topics_and_their_categories():
    folder = ROOT / "topics"
    topics = read_topics(folder / "wikipedia_vital_topics.txt")
    assert read_topics(folder / "wikipedia_vital_topics.jsonl") == topics
    categories = read_categories(folder / "wikipedia_vital_topics.jsonl")
    assert list(categories) == topics and len(set(categories.values())) == 12
    assert categories["14th Dalai Lama"] == "People" and list(categories.values()).count("Uncategorized") == 999
    assert read_categories(folder / "wikipedia_vital_topics.txt") == {}


@pytest.mark.parametrize("name", ["topics.jsonl", "topics.json", "wiki.JSONL"])
def test_categories_are_optional(tmp_path, name):
    path = tmp_path / name
    path.write_text('"A"\n\n{"topic": " B ", "category": "x"}\n{"topic": "B", "category": "y"}\n{"topic": "C"}\n')
    assert read_topics(path) == ["A", "B", "C"] and read_categories(path) == {"B": "x"}
    path.write_text('{"topic": "B", "category": 1}\n')
    with pytest.raises(UsageError, match=rf'{name}, line 1: "category" is no text'):
        read_categories(path)
    for damaged in ('["A",\n"B"]\n', '{"topic":' * 3000):
        path.write_text(damaged)
        with pytest.raises(UsageError, match=rf"{name}, line 1: .* a line is a JSON string or object"):
            read_topics(path)
    with pytest.raises(UsageError, match="cannot read the topics file"):
        read_categories(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match=r"topics\.csv is a table: write a \.txt file"):
        read_topics(tmp_path / "topics.csv")
