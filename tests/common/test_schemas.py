"""Damaged and foreign JSON ends in one line: file, line, field, what was expected, what to do."""

import gzip
import json
from typing import Annotated, Required, TypedDict

import msgspec
import pytest

from topxgen.common.errors import UsageError
from topxgen.common.files import Appender, read_json, read_jsonl, write_json
from topxgen.common.schemas import check


class Record(TypedDict, total=False):
    id: Required[str]
    scores: list[float | None]
    count: Annotated[int, msgspec.Meta(ge=0, le=1000)]
    place: dict[str, int]


GOOD = {"id": "a", "scores": [1, 2.5, None], "unknown": {"kept": [1]}}
DEEP = b'{"id": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BAD = {
    b"[1]": "not a JSON object, but list",
    b"3": "not a JSON object, but integer",
    b"null": "not a JSON object, but null",
    b"{}": "object missing required field id",
    b'{"id": null}': "field id: expected text, got null",
    b'{"id": ["a"]}': "field id: expected text, got list",
    b'{"id": "a", "scores": {"a": 1}}': "field scores: expected list, got object",
    b'{"id": "a", "scores": [1, "high"]}': "field scores[1]: expected number or null, got text",
    b'{"id": "a", "scores": [true]}': "field scores[0]: expected number or null, got true or false",
    b'{"id": "a", "count": NaN}': "field count: expected integer, got null",
    b'{"id": "a", "count": -Infinity, "x": "\\ud800"}': "field count: expected integer, got null",
    b'{"id": "a", "scores": [1e999]}': "field scores[0]: number out of range",
    b'{"id": "a", "scores": [1' + b"0" * 400 + b"]}": "field scores[0]: number out of range",
    b'{"id": "a", "count": 1' + b"0" * 300 + b"}": "field count: expected integer <= 1000",
    b'{"id": "a", "count": 1' + b"0" * 9000 + b"}": "field count: integer value out of range",
    b'{"id": "a", "count": -1}': "field count: expected integer >= 0",
    b'{"id": "a", "place": {"x": 0.5}}': "field place[...]: expected integer, got number",
    b'{"id": "a", "scores": [1': "field scores: not JSON: cut off",
    b'{"id": "a"} {"id": "b"}': "not JSON: trailing characters (byte 13)",
    b"{'id': 'a'}": "not JSON: object keys must be strings (byte 1)",
    b'{"id": "a\x00"}': "field id: not JSON: invalid character (byte 9)",
    '{"id": "caf\xe9"}'.encode("latin-1"): "not UTF-8",
    b'{"id": "\xed\xa0\x80"}': "not UTF-8",
    DEEP: "nested too deeply",
    DEEP.replace(b'"a"', b'"\\ud800"'): "field id: not JSON: ",
    gzip.compress(b'{"id": "a"}', mtime=0).replace(b"\n", b""): "it is gzip-compressed (gunzip it)",
    '{"id": "a"}'.encode("utf-16"): "it is UTF-16 (convert it to UTF-8)",
    b'{"id": "a"}\r{"id": "b"}': "its lines end in CR alone",
    b"\x89PNG\r\x1a\x00": "not JSON: invalid character (byte 0)",
}


@pytest.mark.parametrize("content", BAD, ids=lambda content: content[:40].decode("latin-1"))
def test_file_line_field_expected_and_remedy(tmp_path, content):
    lines, single = tmp_path / "a.jsonl", tmp_path / "a.json"
    lines.write_bytes(b'{"id": "a"}\n\n' * (not content.startswith((b"\xff", b"\x1f"))) + content + b"\n")
    single.write_bytes(content)
    with pytest.raises(UsageError) as error:
        list(read_jsonl(lines, Record))
    number = 1 if content.startswith((b"\xff", b"\x1f")) else 3
    message = str(error.value)
    assert message.startswith(f"{lines}, line {number}: ") and message.endswith("; fix or remove the line")
    assert "\n" not in message and len(message) < 400
    if content[:1] in b"{[3n" and b"\r" not in content:
        assert BAD[content] in message
    with pytest.raises(UsageError) as error:
        read_json(single, Record, "download it again")
    message = str(error.value)
    assert message.startswith(f"{single}: ") and BAD[content] in message and message.endswith("; download it again")


def test_what_other_programs_write_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf"
        + json.dumps(GOOD).encode()
        + b'\r\n  \n{"id": "\\ud800x", "scores": [1, NaN, -Infinity]}\n{"id": "\\ud83d\\ude00"}'
    )
    assert list(read_jsonl(path, Record)) == [GOOD, {"id": "?x", "scores": [1, None, None]}, {"id": "😀"}]
    nested = b'{"id": "a", "x": ' + b"[" * 200 + b"]" * 200 + b"}"
    path.write_bytes(b"\xef\xbb\xbf" + nested)
    assert read_json(path, Record)["id"] == "a" and next(read_jsonl(path)).keys() == {"id", "x"}


def test_no_file_an_empty_file_and_a_directory(tmp_path):
    assert read_json(tmp_path / "none", Record) == {} and list(read_jsonl(tmp_path / "none", Record)) == []
    (tmp_path / "empty").touch()
    assert list(read_jsonl(tmp_path / "empty", Record)) == []
    with pytest.raises(UsageError, match="empty: it is empty; restore it or remove it"):
        read_json(tmp_path / "empty", Record)
    for read in (read_json, lambda path: list(read_jsonl(path))):
        with pytest.raises(UsageError, match="is a directory, not a file"):
            read(tmp_path)


def test_nan_is_never_written(tmp_path):
    values = {"a": float("nan"), "b": [1.5, float("-inf")], "c": "NaN é"}
    with Appender(tmp_path / "a.jsonl") as out:
        out.write(values, {"a": 1})
    write_json(tmp_path / "a.json", values)
    null = {"a": None, "b": [1.5, None], "c": "NaN é"}
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [null, {"a": 1}] and read_json(tmp_path / "a.json") == null


def test_values_that_are_parsed_already():
    check(GOOD, Record)
    with pytest.raises(ValueError, match=r"field scores\[0\]: expected number or null, got text"):
        check(GOOD | {"scores": ["x"]}, Record)
