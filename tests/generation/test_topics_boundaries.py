"""The order of topics, and how word lists are read."""

from topxgen.corpora.topics import read_topics
from topxgen.generation.pipelines.topxgen import TopicOrder


def test_each_round_and_each_language_has_an_order_of_its_own():
    topics = [str(number) for number in range(40)]
    basque, hausa = (TopicOrder(topics, 1, language) for language in ("Basque", "Hausa"))
    rounds = [[order.topic(40 * turn + i) for i in range(40)] for order in (basque, hausa) for turn in range(2)]
    assert all(sorted(one) == sorted(topics) for one in rounds)
    assert len({tuple(one) for one in rounds}) == 4
    assert TopicOrder(topics, 2, "Basque").topic(0) != basque.topic(0) or TopicOrder(topics, 2, "Basque").topic(
        1
    ) != basque.topic(1)


def test_word_lists(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("one\none, two\none, two, three\none, , two,\n\none\n")
    assert read_topics(path) == ["one", "one and two", "one, two and three"]
    (tmp_path / "My_WIKI.txt").write_text("one, two\n")
    assert read_topics(tmp_path / "My_WIKI.txt") == ["one, two"]
