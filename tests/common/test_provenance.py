"""The settings on record, those of older runs, and the identity of weights."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from topxgen.common import provenance
from topxgen.common.errors import UsageError


def test_result_settings_are_the_flags_that_count_as_json():
    args = Namespace(seed=1, output_dir=Path("out"), data=Path("a"), languages=("b", "c"), verbose=True)
    settings = provenance.result_settings(args, ["output_dir", "verbose"])
    assert settings == {"seed": 1, "data": "a", "languages": ["b", "c"]} == json.loads(json.dumps(settings))


def test_settings_of_older_runs_are_read_by_todays_names(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"best_by": "loss", "packing": "original", "seed": 1}')
    assert provenance.read_settings(path) == {"metric_for_best_model": "loss", "packing": "concat", "seed": 1}
    provenance.check_settings(path, {"metric_for_best_model": "loss", "packing": "concat", "seed": 1, "added": 2})
    with pytest.raises(UsageError, match="packing was 'concat', now 'none'"):
        provenance.check_settings(path, {"packing": "none"})
    assert provenance.read_settings(tmp_path / "none.json") == {}


def test_code_of_the_users_own_is_recorded_by_its_contents(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("def odd(text, language): ...")
    first = provenance.code_of(filters=["binary", f"{own}:odd"], pipeline=["topxgen"], select_by=[None])
    assert list(first) == ["filters_code"] and provenance.code_of(filters=[f"{own}:odd"]) == first
    own.write_text("def odd(text, language): return True")
    assert provenance.code_of(filters=[f"{own}:odd"]) != first
    installed, missing = (provenance.code_of(scorer=[name]) for name in ("json.tool:main", "no_such_module:a"))
    assert list(installed) == ["scorer_code"] == list(missing) and installed != missing


def test_code_of_the_users_own_has_the_modules_that_it_imports(tmp_path, monkeypatch):
    files = {
        "own.py": "import json, mine.rules\nfrom topxgen.text import words\nfrom deep import odd\nimport no_such_module",
        "mine/__init__.py": "",
        "mine/rules.py": "from . import limits\nfrom .lists import short",
        "mine/limits.py": "MOST = 3",
        "mine/lists/__init__.py": "from ...mine import limits\nshort = []",
        "path/deep.py": "import own\nodd = 1",
        "beside.py": "is_not_imported = 1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "path")
    digests = {provenance.code_of(filters=[f"{tmp_path}/own.py:odd"])["filters_code"]}
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\nedited = 1")
        digests.add(provenance.code_of(filters=[f"{tmp_path}/own.py:odd"])["filters_code"])
        assert len(digests) == list(files).index(name) + 2 - (name == "beside.py"), name
    monkeypatch.syspath_prepend(tmp_path)
    module = provenance.code_of(filters=["mine.rules:odd"])
    (tmp_path / "mine" / "limits.py").write_text("MOST = 4")
    assert provenance.code_of(filters=["mine.rules:odd"]) != module
    (tmp_path / "own.py").write_text("this is no Python")
    assert provenance.code_of(filters=[f"{tmp_path}/own.py:odd"])["filters_code"] not in digests


def test_weights_id_is_of_the_contents(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / "config.json").write_text(str(folder))
        (folder / "model.safetensors").write_bytes(bytes(range(256)) * 100)
        (folder / "training_args.bin").write_text(str(folder))
    first = provenance.weights_id(one)
    assert len(first) == 16 and first == provenance.weights_id(str(other)), "wherever the folder is"
    assert first == provenance.weights_id(one / "model.safetensors")
    (one / "model.bin").write_text("an older format of the same weights")
    assert first == provenance.weights_id(one)
    (one / "model.safetensors").write_bytes(bytes(range(256)) * 99 + bytes(256))
    assert first != provenance.weights_id(one)
    large = bytearray(6 << 20)  # sampled
    ids = set()
    for position in (None, 0, 3 << 20, len(large) - 1):
        if position is not None:
            large[position] = 1
        (other / "model.safetensors").write_bytes(large)
        ids.add(provenance.weights_id(other))
    assert len(ids) >= 3 and first not in ids
    assert "" == provenance.weights_id("org/model") == provenance.weights_id(tmp_path)


def test_of_a_flag_that_is_given_twice_the_last_counts():
    command = ["datagen.py", "--prices", "1", "2", "--seed=3", "--prices=4", "5", "--verbose"]
    assert provenance.values_of_flag(command, "--prices") == ["4", "5"]
    assert provenance.values_of_flag(command, "--seed") == ["3"] and provenance.values_of_flag(command, "--x") == []
