"""Lines of several files in one order."""

import json

import pytest

from tests.support.runs import records
from topxgen.common.errors import UsageError
from topxgen.common.merging import Place, Ranks, id_key, lines_of, places_in, read_placed_ids
from topxgen.generation.merge import responses_in_order


def write(path, lines, end="\n"):
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + end, encoding="utf-8")
    return path


def by_number(path):
    for offset, size, _, record in read_placed_ids(path, dict, "id"):
        yield Place(offset, size, record["n"], record.get("w", 0))


def test_lines_come_in_the_order_of_their_keys(tmp_path):
    first = write(tmp_path / "1", [{"id": "é", "n": 5}, {"id": "b", "n": 1}, {"id": "c", "n": 5, "last": True}])
    second = write(
        tmp_path / "2",
        [{"id": "d", "n": 3}, {"id": "e", "n": 1}, {"id": "f", "n": 4, "w": 1}, {"id": "g", "n": 2}],
        end="",
    )
    third = write(tmp_path / "3", [{"id": "h", "n": 4}, {"id": "i", "n": 7, "w": 1}])
    paths = [tmp_path / "absent", first, second, third]
    places = places_in([path for path in paths if path.exists()], by_number).first_of_each()
    found = [json.loads(line)["id"] for line in lines_of(paths[1:], places)]
    # Of a key the least weight, then the first file, and in it the last line.
    assert found == ["b", "g", "d", "h", "c", "i"]
    assert all(line.endswith(b"\n") for line in lines_of(paths[1:], places))


def test_nothing_to_merge(tmp_path):
    places = places_in([tmp_path / "absent"], lambda _: iter(())).first_of_each()
    assert list(lines_of([tmp_path / "absent"], places)) == []
    assert len(Ranks([]).of(places).key) == 0


def test_ranks_are_places_in_an_order_and_others_are_left_out(tmp_path):
    path = write(tmp_path / "x", [{"id": "c"}, {"id": "unknown"}, {"text": "no id"}, {"id": "a"}, {"id": "c"}])

    def read(path):
        for offset, size, record_id, _ in read_placed_ids(path, dict, "text"):
            yield Place(offset, size, id_key(record_id))

    hashed = next(key for _, _, key, record in read_placed_ids(path, dict, "text") if "text" in record)
    places = Ranks(["a", hashed, "c", "c#2"]).of(places_in([path], read))
    assert sorted(places.key.tolist()) == [0, 1, 2, 3]
    ordered = [json.loads(line) for line in lines_of([path], places.first_of_each())]
    assert ordered == [{"id": "a"}, {"text": "no id"}, {"id": "c"}, {"id": "c"}]


def test_a_response_counts_before_one_that_failed(tmp_path):
    def response(number, text=None):
        return {
            "id": f"Basque-{number:06d}",
            "texts": [text] if text else [],
            "prompt_tokens": 1,
            "completion_tokens": 1,
        } | ({} if text else {"error": "busy"})

    whole = write(tmp_path / "whole", [response(2), response(0, "zero"), response(4)])
    shard = write(tmp_path / "shard", [response(2, "two"), response(0, "other"), response(3)])
    numbers = responses_in_order("Basque", [whole, shard], tmp_path / "out")
    assert numbers.tolist() == [0, 2, 3, 4]
    # The last one counts; the others were paid for.
    assert [record["texts"] for record in records(tmp_path / "out")] == [["other"], ["zero"], [], ["two"], [], []]
    write(shard, [response(2, "two") | {"id": "Hausa-000002"}])
    with pytest.raises(UsageError, match="'Hausa-000002' is no prompt of Basque"):
        responses_in_order("Basque", [whole, shard], tmp_path / "out")
