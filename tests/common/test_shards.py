"""Shards: which one a command line is, and what it takes."""

from argparse import Namespace
from itertools import pairwise
from pathlib import Path

import pytest

from topxgen.common import shards
from topxgen.common.errors import UsageError
from topxgen.common.shards import Shard


def chosen(num_shards=None, shard_index=None, **environ):
    names = {f"SLURM_ARRAY_TASK_{name.upper()}": str(value) for name, value in environ.items()}
    return shards.chosen(Namespace(num_shards=num_shards, shard_index=shard_index), names)


ARRAY = {"id": 13, "min": 10, "max": 16, "count": 3}  # --array=10-16:3


def test_which_shard_a_command_line_is():
    assert chosen() is None
    assert chosen(4, 3) == Shard(3, 4)
    assert chosen(id=2, min=0, max=3, count=4) is None  # an array over languages
    assert chosen("slurm", id=2, min=0, max=3, count=4) == Shard(2, 4)
    assert chosen(4, id=7, min=5, max=8, count=4) == Shard(2, 4)
    assert chosen("slurm", **ARRAY) == Shard(1, 3)
    assert chosen("slurm", id=5, min=5, max=5, count=1) == Shard(0, 1)
    assert chosen(4, 1, **ARRAY) == Shard(1, 4)  # what is given counts


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"shard_index": 1}, "needs --num_shards"),
        ({"num_shards": 4, "shard_index": 4}, "from 0 to 3"),
        ({"num_shards": 4}, "needs --shard_index"),
        ({"num_shards": "slurm"}, "not set"),
        (
            {"num_shards": 4, "id": 3, "min": 3, "max": 7, "count": 2},
            "pass --num_shards as a number",
        ),  # tasks run again
        (
            {"num_shards": 4, "id": 2, "min": 0, "max": 6, "count": 3},
            "pass --num_shards as a number",
        ),  # 0, 2, 6 of 0-6:2
        ({"num_shards": "slurm", "id": 5, "min": 1, "max": 7, "count": 3}, "equal distances"),  # --array=1,5,7
        ({"num_shards": "slurm", "id": 3, "min": 1, "max": 8, "count": 3}, "equal distances"),  # --array=1,3,8
    ],
)
def test_numbers_that_do_not_fit(given, says):
    with pytest.raises(UsageError, match=says):
        chosen(**given)


def test_shards_take_everything_once():
    for count in (1, 2, 3, 16):
        parts = [Shard(i, count) for i in range(count)]
        assert all(sum(part.takes(number) for part in parts) == 1 for number in range(50))
        bounds = [part.bounds(101) for part in parts]
        assert bounds[0][0] == 0 and bounds[-1][1] == 101
        assert all(before[1] == after[0] for before, after in pairwise(bounds))
        assert 101 <= sum(part.share(101) for part in parts) < 101 + count


def test_folders(tmp_path):
    for name in ("0010-of-0016", "0002-of-0016", "0000-of-0004", "0004-of-0004", "notes", ".merge"):
        (tmp_path / "shards" / name).mkdir(parents=True)
    assert Shard(2, 16).folder(tmp_path) == tmp_path / "shards" / "0002-of-0016"
    assert [shard for shard, _ in shards.folders(tmp_path)] == [Shard(0, 4), Shard(2, 16), Shard(10, 16)]
    assert Shard.of_folder(Path("x/0000-of-0002")) is None  # not in a folder `shards`


def test_the_command_of_another_shard():
    words = ["datagen.py", "--num_shards=slurm", "--shard_index", "3", "--seed", "1"]
    assert shards.with_shard(words, Shard(1, 8)) == [
        "datagen.py",
        "--seed",
        "1",
        "--num_shards",
        "8",
        "--shard_index",
        "1",
    ]
