"""Hostile values: what a file may hold instead of what it should, and what a flag may be given."""

import contextlib
import gzip
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

# JSON values, as they are written.
VALUES = {
    "null": "null",
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "10^300": str(10**300),
    "1e300": "1e300",
    "-1": "-1",
    "0.5": "0.5",
    "true": "true",
    "empty text": '""',
    "space": '" "',
    "a number as text": '"5"',
    "a path": '"../../x"',
    "a lone surrogate": '"a \\ud800 b"',
    "control characters": '"\\u001b[2J\\u0007\\u0000"',
    "a long text": json.dumps("x" * 200_000),
    "empty list": "[]",
    "empty object": "{}",
    "list of null": "[null, null]",
    "list of lists": '[["a"], ["b"]]',
    "list of numbers": "[1, 2]",
    "list of text parts": '[{"type": "text", "text": "Kaixo."}]',
    "object": '{"a": {"b": null}}',
    "200 levels": "[" * 200 + "]" * 200,
    "100,000 levels": "[" * 100_000 + "]" * 100_000,
}
_PLACE = "\ue000here\ue000"
MISSING = "is missing"


def bytes_instead(data: bytes) -> dict[str, bytes]:
    """What a whole file may be instead of `data`."""
    text = data.decode("utf-8", "replace")
    middle = len(text) // 2
    while middle and not text[middle - 1].isalpha():
        middle -= 1
    return {
        "empty": b"",
        "line breaks": b"\n\n\n",
        "gzip": gzip.compress(data),
        "UTF-16": text.encode("utf-16"),
        "Latin-1": (text[:middle] + "ñ" + text[middle:]).encode("latin-1", "replace"),
        "bad UTF-8": text[:middle].encode() + b"\xc3\x28\xff" + text[middle:].encode(),
        "BOM": b"\xef\xbb\xbf" + data,
        "NUL bytes": text[:middle].encode() + b"\0\0" + text[middle:].encode(),
        "CR": data.replace(b"\n", b"\r"),
        "CR LF": data.replace(b"\n", b"\r\n"),
        "cut": data[: 2 * len(data) // 3],
        "no last line break": data.rstrip(b"\n"),
        "doubled": data + data,
        "a huge line": b"a" * 3_000_000,
        "deep": b"[" * 100_000,
        "binary": random.Random(0).randbytes(4096),
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
    }


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "x").write_text("x")


# What may lie in place of a file.
KINDS: dict[str, Callable[[Path], object]] = {
    "a directory": _directory,
    "a FIFO": os.mkfifo,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "missing": lambda path: None,
}


def _places(value, path=()) -> Iterator[tuple]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in items:
        if len(path) < 3:
            yield from _places(inner, (*path, key))


def _with(value, path: tuple, raw: str | None):
    """`value` as JSON with `raw` at `path`; None: without what is there."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    if not path:
        copy = _PLACE
    elif raw is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = _PLACE
    return json.dumps(copy, ensure_ascii=False).replace(json.dumps(_PLACE, ensure_ascii=False), raw or "")


def json_instead(value) -> Iterator[tuple[str, str]]:
    """(what was done, the JSON) for each place in a value and each hostile value."""
    for path in _places(value):
        where = ".".join(map(str, path)) or "the whole"
        if path:
            yield f"{where} {MISSING}", _with(value, path, None)
        for name, raw in VALUES.items():
            yield f"{where} is {name}", _with(value, path, raw)


def jsonl_instead(data: bytes) -> Iterator[tuple[str, bytes]]:
    lines = data.decode("utf-8").split("\n")
    numbers = [number for number, line in enumerate(lines) if line.strip()]
    if numbers:
        number = numbers[len(numbers) // 2]
        for what, raw in json_instead(json.loads(lines[number])):
            changed = [*lines[:number], raw, *lines[number + 1 :]]
            yield f"line {number + 1}: {what}", "\n".join(changed).encode("utf-8", "surrogatepass")


def toml_instead(data: bytes) -> Iterator[tuple[str, bytes]]:
    lines = data.decode("utf-8").split("\n")
    fields = [number for number, line in enumerate(lines) if line.partition(" = ")[1]]
    for number in fields:
        name = lines[number].partition(" = ")[0]
        for value in (
            "5",
            "nan",
            "[]",
            "{}",
            "true",
            '""',
            '"{nope} {src.__class__} {0} {"',
            "[" * 300 + "]" * 300,
            '"\\u001b[2J"',
        ):
            if '"""' not in lines[number]:
                changed = [*lines[:number], f"{name} = {value}", *lines[number + 1 :]]
                yield f"{name} is {value[:30]}", "\n".join(changed).encode()
        yield (
            f"{name} {MISSING}",
            "\n".join(
                [*lines[:number], f"x{number} = {lines[number].partition(' = ')[2]}", *lines[number + 1 :]]
            ).encode(),
        )
    yield "a placeholder that does not exist", data.replace(b"{sentence}", b"{nope}").replace(b"{tgt}", b"{nope}")
    yield "tables", b"[prompt]\n[[x]]\n" + data


def table_instead(data: bytes) -> Iterator[tuple[str, bytes]]:
    lines = data.rstrip(b"\n").split(b"\n")
    separator = b"\t" if b"\t" in lines[0] else b","
    middle = len(lines) // 2
    for what, line in {
        "a cell more": lines[middle] + separator + b"x",
        "a cell less": lines[middle].partition(separator)[0],
        "an empty cell": separator + lines[middle].partition(separator)[2],
        "an open quotation mark": b'"' + lines[middle],
        "control characters": b"\x1b[2J\x07" + lines[middle],
        "a huge cell": b"x" * 300_000 + separator + lines[middle],
        "an empty line": b"",
    }.items():
        yield f"line {middle + 1}: {what}", b"\n".join([*lines[:middle], line, *lines[middle + 1 :], b""])


def text_instead(data: bytes) -> Iterator[tuple[str, bytes]]:
    lines = data.split(b"\n")
    for what, line in {
        "control characters": b"\x1b[2J\x07",
        "braces": b"{topic} {0} {x.__class__} {",
        "a long line": b"x " * 100_000,
    }.items():
        yield what, b"\n".join([line, *lines])


OTHER = "other texts: "  # begins the name of a file that is sound, or damaged where only its texts show it


def parquet_instead(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The first column in other types and damaged."""
    import pyarrow
    from pyarrow import parquet

    table = parquet.read_table(pyarrow.BufferReader(data))
    name, texts, count = table.column_names[0], table.column(0).to_pylist(), table.num_rows
    bad = pyarrow.array([text.encode() + b"\xff" for text in texts]).cast(pyarrow.string(), safe=False)
    pieces = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * count, pyarrow.int32()), pyarrow.array(["x" * 3_000_000])
    )
    long_ago = pyarrow.array([2**62] * count, pyarrow.timestamp("us"))
    columns = {
        "a dictionary": pyarrow.array(texts).dictionary_encode(),
        "large texts": pyarrow.array(texts, pyarrow.large_string()),
        "bytes": pyarrow.array([text.encode() for text in texts]),
        "numbers": pyarrow.array(range(count)),
        "dates beyond all calendars": long_ago,
        "bad UTF-8": bad,
        f"{OTHER}one, huge, in a dictionary": pieces,
        f"{OTHER}lists of lists": pyarrow.array([[[text, None], []] for text in texts]),
        f"{OTHER}pairs in a map": pyarrow.array(
            [[("a", text)] for text in texts], pyarrow.map_(pyarrow.string(), pyarrow.string())
        ),
        f"{OTHER}nulls": pyarrow.nulls(count, pyarrow.string()),
    }
    made = {what: table.set_column(0, name, column) for what, column in columns.items()}
    made["two columns of one name"] = table.append_column(name, pyarrow.array(["x"] * count))
    made["dates beside it"] = table.append_column("when", long_ago)
    made["no columns"] = table.select([])
    made[f"{OTHER}none"] = table.slice(0, 0)
    for what, changed in made.items():
        out = pyarrow.BufferOutputStream()
        parquet.write_table(changed, out)
        yield what, out.getvalue().to_pybytes()
    rng = random.Random(0)
    for number in range(30):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] = rng.randrange(256)
        yield f"{OTHER}flipped byte {number}", bytes(flipped)


INSTEAD = {
    "parquet": parquet_instead,
    "jsonl": jsonl_instead,
    "toml": toml_instead,
    "table": table_instead,
    "text": text_instead,
}
INSTEAD["json"] = lambda data: ((what, raw.encode()) for what, raw in json_instead(json.loads(data)))
# Those of bytes_instead that no reader may take for another content than the right one, whatever the format.
NEVER_ANOTHER_CONTENT = (
    "gzip",
    "UTF-16",
    "bad UTF-8",
    "Latin-1",
    "binary",
    "a Git LFS pointer",
    "BOM",
    "CR LF",
    "no last line break",
)
# ... and of a format with a syntax.
NEVER_IN_JSON = ("a huge line", "deep", "NUL bytes", "cut")


# Flags. What is written below a path is kept from leaving the folder by the process that runs the script.
NUMBERS = (
    "-1",
    "0",
    "1",
    "2",
    "-0",
    "1.5",
    "1e3",
    "1e308",
    "1e-320",
    "nan",
    "inf",
    "-inf",
    "0x10",
    "١٢",
    "",
    " ",
    "--",
    "x",
)
NUMBERS += ("1e400", "-1e400", " 5", "+5", "５", "5.", "5\n", "1,5", "-0.0")
NUMBERS += (str(2**31), str(2**32 + 1), str(2**63), str(10**30), "1_000")
TEXTS = (
    "",
    " ",
    ".",
    "..",
    "../x",
    "x/y",
    "nope",
    "in",
    "in/topics_wiki.txt",
    "in/fifo",
    "in/loop",
    "in/gzip",
    "in/binary",
    "in/empty",
)
TEXTS += (
    "\x1b[2J\x07",
    "a\nb",
    "ü€😀",
    "\udcff",
    "x" * 300,
    "x" * 5000,
    "-",
    "--",
    "-x",
    "None",
    "a:b",
    "a.b:c",
    "in/x.py:y",
    "{url}",
    "{x}",
    "%s%n",
)
TEXTS += (
    "~nobody-here/x",
    "http://",
    "[]",
    '{"a": NaN}',
    "out",
    "out/x",
    "in/topics.jsonl",
    "in/bench.tsv:Basque=2,English=1",
    "in/bench.tsv:Basque=99",
)
TEXTS += ("org/name", "eus_Latn", "English", "Klingon", "in/null", "in/full")


def make_hostile_files(inputs: Path) -> None:
    """The files that TEXTS name."""
    os.mkfifo(inputs / "fifo")
    (inputs / "loop").symlink_to("loop")
    (inputs / "gzip").write_bytes(gzip.compress(b"a\n"))
    (inputs / "binary").write_bytes(random.Random(0).randbytes(512))
    (inputs / "empty").write_bytes(b"")
    (inputs / "x.py").write_text("y = 5\n")
    for name, minor in (("null", 3), ("full", 7)):
        with contextlib.suppress(OSError):  # only root may
            os.mknod(inputs / name, 0o020666, os.makedev(1, minor))
