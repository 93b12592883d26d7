"""Parquet files that are damaged, or hold other types: refused in one line by each reader, or read right."""

from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from tests.attack.hostile import parquet_instead
from tests.support.pairs import source
from topxgen.common.errors import UsageError
from topxgen.corpora import monolingual, tables
from topxgen.text import languages
from topxgen.training.training_data import load

BASQUE = [f"Hau da {i}. esaldia." for i in range(6)]
READERS = {
    "benchmark": lambda path: [text for _, text in tables.read_columns(path)[0][1]],
    "paragraphs": lambda path: [
        row.text for row in monolingual.open_source(f"{path}:Basque", languages.find("Basque")).rows(0)
    ],
    "training": lambda path: [
        pair.target for pair in load(source(path, input_column_name="English", output_column_name="Basque"))[0]
    ],
}
REFUSED = {
    "bytes": {
        "benchmark": "item 1: Basque is \"b'Hau da 0. esaldia.'\", not a text",
        "paragraphs": "row 1: Basque holds b'Hau da 0. esaldia.', which is not a text",
        "training": "row 1: Basque holds b'Hau da 0. esaldia.', which is not a text",
    },
    "numbers": dict.fromkeys(READERS, "row 1: Basque holds 0, which is not a text")
    | {"benchmark": "item 1: Basque is 0, not a text; null stands for no text"},
    "dates beyond all calendars": dict.fromkeys(READERS, "cannot read {path}: OverflowError: date value out of range"),
    "bad UTF-8": dict.fromkeys(READERS, "cannot read {path}: UnicodeDecodeError"),
    "two columns of one name": dict.fromkeys(READERS, "{path} has 2 columns 'Basque'; rename or remove the others"),
}
READ = ("a dictionary", "large texts")


@pytest.fixture(scope="module")
def variants() -> dict[str, bytes]:
    table = pyarrow.table({"Basque": BASQUE, "English": [f"This is sentence {i}." for i in range(6)]})
    out = pyarrow.BufferOutputStream()
    parquet.write_table(table, out)
    return dict(parquet_instead(out.getvalue().to_pybytes()))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", [*REFUSED, *READ])
def test_columns_of_other_types(reader, what, variants, tmp_path):
    path = tmp_path / "mine.parquet"
    path.write_bytes(variants[what])
    if what in READ:
        assert READERS[reader](path) == BASQUE
        return
    with pytest.raises(UsageError) as error:
        READERS[reader](path)
    assert REFUSED[what][reader].format(path=path) in str(error.value) and "\n" not in str(error.value)


def test_a_huge_text_in_a_dictionary_is_kept_once(tmp_path):
    huge = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 3000), pyarrow.array(["x" * 5_000_000]))
    parquet.write_table(pyarrow.table({"Basque": huge}), tmp_path / "a.parquet")
    texts = [row["Basque"] for row in tables.parquet_rows(tmp_path / "a.parquet")]
    assert len(texts) == 3000 and len({id(text) for text in texts}) == 1


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> dict[str, Path]:
    """280 MB of one text without a dictionary, and 3 million rows that hold nothing."""
    folder = tmp_path_factory.mktemp("packed")
    nothing = pyarrow.nulls(3_000_000, pyarrow.string())
    columns = {
        "a long text": {"Basque": ["x" * 4_000_000] * 70, "English": ["x"] * 70},
        "no text": {"Basque": nothing, "English": nothing},
    }
    for what, column in columns.items():
        path = folder / what / "mine.parquet"
        path.parent.mkdir()
        parquet.write_table(pyarrow.table(column), path, compression="zstd", use_dictionary=False)
        assert path.stat().st_size < 1 << 20
    return {what: folder / what / "mine.parquet" for what in columns}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", ["a long text", "no text"])
def test_a_small_file_that_would_fill_the_memory_is_refused(reader, what, packed):
    with pytest.raises(
        UsageError, match=r"mine\.parquet would expand from 0\.\d MB to \d+ MB \([\d,]+ rows\): no text"
    ):
        READERS[reader](packed[what])


def test_a_footer_with_other_numbers_of_rows_hides_none(tmp_path):
    """Each byte of the footer that could be the 6 of the rows becomes a 5: all rows are read, or none."""
    path, texts = tmp_path / "mine.parquet", [f"testu zenbaki {i}" for i in range(6)]
    parquet.write_table(pyarrow.table({"Basque": texts}), path)
    data, refused = path.read_bytes(), 0
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    places = [i for i in range(start, len(data) - 8) if data[i] == 2 * 6]  # as Thrift writes it
    assert len(places) > 3
    for place in places:
        path.write_bytes(data[:place] + bytes([2 * 5]) + data[place + 1 :])
        try:
            assert [row["Basque"] for row in tables.parquet_rows(path)] == texts
        except UsageError as error:
            refused += "mine.parquet is damaged: its footer says" in str(error)
    assert refused >= 2
