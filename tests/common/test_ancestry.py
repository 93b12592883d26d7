"""Which model of the Hub a local one was made from."""

import json
from pathlib import Path

import pytest

from topxgen.common.ancestry import hub_name, licence_of

HUB = "google/gemma-3-270m"


def folder(path: Path, **files) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (path / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return path


def trained(path: Path, base: str, **more) -> Path:
    """A folder of train.py, by its manifest."""
    link = {
        "kind": "model",
        "name": "",
        "stage": "train",
        "links": [{"kind": "data", "name": "google/smol"}, {"kind": "model", "name": base}],
    }
    return folder(path, manifest_train__json={"lineage": {**link, **more}})


def card(front: str) -> str:
    return f"---\nlicense: gemma\n{front}\nlanguage:\n- eu\n---\n# Title\n\nbase_model: not/this\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"README__md": card(f"base_model: {HUB}")}, HUB),
        ({"README__md": card(f'base_model: "{HUB}"')}, HUB),
        ({"README__md": card(f"base_model:\n- {HUB}\n- other/model")}, HUB),
        ({"README__md": card(f"base_model:\n  - {HUB}").replace("\n", "\r\n")}, HUB),
        ({"README__md": card(f"base_model: [{HUB}]")}, HUB),
        ({"README__md": card("tags: []")}, None),
        ({"README__md": card("base_model: {")}, None),
        ({"README__md": card("base_model: 3")}, None),
        ({"README__md": "# base_model: none/here\n"}, None),
        ({"config__json": {"_name_or_path": HUB}}, HUB),
        ({"config__json": {"_name_or_path": "/gone/folder/of/mine"}}, None),
        ({"config__json": {"_name_or_path": "models/not-here"}}, None),
        ({"config__json": {"_name_or_path": 3}}, None),
        ({"config__json": "{"}, None),
        (
            {"adapter_config__json": {"base_model_name_or_path": HUB}, "README__md": card("base_model: other/model")},
            HUB,
        ),
        ({}, None),
    ],
)
def test_what_a_folder_brought_along(tmp_path, files, expected):
    assert hub_name(str(folder(tmp_path / "gemma-3-270m", **files))) == expected


def test_names_that_are_no_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub_name(HUB) == HUB
    assert [hub_name(name) for name in ("gpt-4o", "models/gemma", "./a/b", "/a/b", "a/b/c", "outputs/x")] == [None] * 6
    (tmp_path / "google" / "gemma-3-270m").mkdir(parents=True)
    assert hub_name(HUB) is None, "a folder of that name goes before the Hub"
    snapshot = tmp_path / "hub" / "models--google--gemma-3-270m" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    assert hub_name(str(snapshot)) == HUB


def test_the_manifests_of_trained_and_merged_folders_are_followed(tmp_path):
    base = folder(tmp_path / "quantized", README__md=card(f"base_model: {HUB}"))
    first = trained(tmp_path / "first", str(base))
    second = trained(tmp_path / "second", str(first))
    link = {
        "kind": "model",
        "name": "",
        "stage": "merge",
        "links": [{"kind": "model", "name": str(second)}, {"kind": "model", "name": str(first)}],
    }
    merged = folder(tmp_path / "merged", manifest_merge__json={"lineage": link})
    link["links"][0]["links"] = [{"kind": "model", "name": str(first)}]
    assert [hub_name(str(one)) for one in (base, first, second, merged)] == [HUB] * 4
    assert hub_name("anywhere", {"kind": "model", "name": "x", "links": [{"kind": "model", "name": HUB}]}) == HUB


def test_what_is_gone_or_goes_round_is_not_known(tmp_path):
    gone = {"kind": "model", "name": "mine/model", "ends": "mine/model is not there any more"}
    assert hub_name("mine/model", gone) is None
    first, second = tmp_path / "first", tmp_path / "second"
    trained(first, str(second))
    trained(second, str(first))
    assert hub_name(str(first)) is None
    folder(tmp_path / "self", config__json={"_name_or_path": str(tmp_path / "self")})
    assert hub_name(str(tmp_path / "self")) is None


def test_the_terms_are_those_of_the_first_ancestor_and_not_of_the_name_of_a_folder(tmp_path):
    tuned = trained(tmp_path / "nllb-x", HUB)
    again = trained(tmp_path / "llama-3-y", str(tuned))
    local = {"kind": "model", "name": "models/gemma-of-mine"}
    of_folder = trained(tmp_path / "z", "z-1", links=[{"kind": "model", "name": "llama-3-z", "links": [local]}])
    assert [licence_of(str(one)).hub for one in (HUB, tuned, again, of_folder)] == ["gemma"] * 4
    assert licence_of(str(folder(tmp_path / "nllb-200-600M"))).hub == "cc-by-nc-4.0", "nothing else is known of it"
    data = {"kind": "data", "name": "d", "links": [{"kind": "model", "name": "facebook/nllb-200-3.3B"}]}
    link = {"kind": "model", "name": "mine", "links": [local, data]}
    assert licence_of("outputs/mine", link).hub == "gemma", "its back-translator is not what it was made from"
    assert licence_of("outputs/mine") is None
