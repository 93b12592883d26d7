"""FLORES, the UDHR and SMOL as training data."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from tests.support.pairs import BASQUE, HAUSA, NEPALI, SORBIAN, SWAHILI, counts, hub, refusal, source, write
from tests.support.runs import BENCHMARKS
from topxgen.text import languages
from topxgen.training import named_datasets
from topxgen.training.pairs import Pair, split
from topxgen.training.training_data import load

pytestmark = pytest.mark.usefixtures("no_shared_cache")


def flores(folder: Path, code: str, lines: list[str]) -> None:
    for part in ("dev", "devtest"):
        path = folder / "flores200_dataset" / part / f"{code}.{part}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" if part == "dev" else f"{part} {line}\n" for line in lines))


def test_flores_is_parallel_by_line(tmp_path):
    flores(tmp_path, "eng_Latn", ["One. ", "Two.", "", "Four."])
    flores(tmp_path, "eus_Latn", ["Bat.", "", "Hiru.", "Lau."])
    flores(tmp_path, "hau_Latn", ["Daya.", "Biyu.", "Uku.", "Huɗu."])
    found, facts = load(source("flores", BASQUE, HAUSA, data_dir=tmp_path))
    assert [(pair.source, pair.target) for pair in found] == [
        ("One.", "Bat."), ("Four.", "Lau."), ("One.", "Daya."), ("Two.", "Biyu."), ("Four.", "Huɗu."),
    ]  # fmt: skip
    assert found[1].group == found[4].group == "flores dev 4", "the same English sentence"
    assert counts(facts) == {"read": 4, "empty": 2, "pairs": 2}
    path = tmp_path / "flores200_dataset/dev/eus_Latn.dev"
    assert facts["languages"]["English to Basque"]["path"] == str(path)
    assert facts["languages"]["English to Basque"]["source_path"].endswith("eng_Latn.dev")
    train, test = split(found, 2, 1)
    assert not {pair.group for pair in train} & {pair.group for pair in test}
    assert load(source("flores", data_dir=tmp_path, split="devtest"))[0][0].target == "devtest Bat."
    assert "no split 'train', only dev, devtest" in refusal(load, source("flores", data_dir=tmp_path, split="train"))
    into, _ = load(source("flores", HAUSA, src=BASQUE, data_dir=tmp_path, dataset_size=1))
    assert into == [Pair("Bat.", "Daya.", "Basque", "Hausa", "flores dev 1")]


def test_missing_flores(tmp_path):
    assert "cannot load 'openlanguagedata/flores_plus, " in (message := refusal(load, source("flores")))
    assert "--data_dir FOLDER" in message and "udhr (embedded)" in message
    flores(tmp_path, "eng_Latn", ["One.", "Two."])
    assert "eus_Latn.dev" in refusal(load, source("flores", data_dir=tmp_path))
    flores(tmp_path, "eus_Latn", ["Bat."])
    assert "eng_Latn.dev has 2 lines, but" in refusal(load, source("flores", data_dir=tmp_path))


def test_the_published_flores_layout(tmp_path):
    if not (BENCHMARKS / "flores200_dataset").is_dir():
        pytest.skip("FLORES-200 is not on this machine")
    text = (BENCHMARKS / "flores200_dataset/dev/eng_Latn.dev").read_text(encoding="utf-8")
    for part in ("dev", "devtest"):
        for code in ("eng_Latn", "eus_Latn"):
            path = tmp_path / part / f"{code}.{part}"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text if code == "eng_Latn" else text.replace("\n", " bai\n"), encoding="utf-8")
    found, facts = load(source("flores", data_dir=tmp_path))
    assert len(found) == 997 and counts(facts)["read"] == 997 and found[-1].group == "flores dev 997"


def test_udhr_is_aligned_by_articles():
    found, facts = load(source("udhr", BASQUE, NEPALI, SWAHILI))
    assert Counter(pair.tgt for pair in found).keys() == {"Basque", "Nepali", "Swahili"}
    for language, unaligned in (("Basque", 11), ("Nepali", 7), ("Swahili", 0)):
        part = counts(facts, f"English to {language}")
        assert part["pairs"] == part["read"] >= 25 and part["unaligned"] == unaligned
    by_group: dict[str, set] = {}
    for pair in found:
        by_group.setdefault(pair.group, set()).add(pair.tgt)
    assert by_group["udhr preamble"] and "udhr 21" not in by_group, "the test part is an evaluation set"
    assert max(map(len, by_group.values())) == 3
    assert {pair.group for pair in load(source("udhr", split="test"))[0]} <= {f"udhr {i}" for i in range(21, 31)}
    train, test = split(found, 0.1, 122)
    assert not {pair.group for pair in train} & {pair.group for pair in test}
    assert not {pair.source for pair in train} & {pair.source for pair in test}
    assert "udhr as published has no Upper Sorbian" in refusal(load, source("udhr", SORBIAN))


def test_smol_of_a_folder(tmp_path):
    row = {"id": 1, "sl": "en", "tl": "ha", "is_src_orig": True}
    write(tmp_path / "smolsent/en_ha.jsonl", {**row, "src": "One.", "trg": "Daya."}, {**row, "src": "Two.", "trg": " "})
    write(
        tmp_path / "smoldoc/en_npi.jsonl",
        {**row, "srcs": ["One.", "Two."], "trgs": ["एक ।", "दुई ।"]},
        {**row, "srcs": ["Three.", "Four."], "trgs": ["तीन ।"]},
        {**row, "srcs": ["Five."], "trgs": ["पाँच ।"]},
        {**row, "srcs": ["Six."], "trgs": ["छ ।", "सात ।"]},
    )
    found, facts = load(source("smol", HAUSA, data_dir=tmp_path))
    assert [(pair.source, pair.target) for pair in found] == [("One.", "Daya.")]
    assert counts(facts, "English to Hausa") == {"read": 2, "empty": 1, "pairs": 1}
    found, facts = load(source("smol", NEPALI, data_dir=tmp_path, subset="smoldoc"))
    assert [pair.target for pair in found] == ["एक ।", "दुई ।", "पाँच ।"]
    assert found[0].group == found[1].group != found[2].group
    assert counts(facts, "English to Nepali") == {"read": 3, "unaligned_documents": 2, "pairs": 3}
    message = refusal(load, source("smol", data_dir=tmp_path))
    assert f"no smolsent/en_eu.jsonl or en_eus.jsonl in {tmp_path}" in message
    assert "smol has no subset 'gatitos': pass one of smolsent, smoldoc" in refusal(
        load, source("smol", subset="gatitos")
    )
    assert "from English, not Basque" in refusal(load, source("smol", HAUSA, src=BASQUE))
    path = write(tmp_path / "smolsent/en_eu.jsonl", {"src": "One.", "trgs": ["Bat."]})
    assert f"{path}, row 1: no columns src and trg, only src, trgs" in refusal(load, source("smol", data_dir=tmp_path))
    write(path, {"src": "One.", "trg": ["Bat."]})
    assert f"{path}, row 1: src and trg hold no texts" in refusal(load, source("smol", data_dir=tmp_path))
    path = write(tmp_path / "smoldoc/en_eu.jsonl", {"srcs": ["One.", 2], "trgs": ["Bat.", "Bi."]})
    refused = refusal(load, source("smol", data_dir=tmp_path, subset="smoldoc"))
    assert f"{path}, row 1: srcs and trgs hold no texts" in refused
    path = write(tmp_path / "smolsent/en_crh.jsonl", {"src": "One book.", "trg": "Бир китап."})
    message = f"{path} is in another script than Crimean Tatar (crh_Latn)"
    assert message in refusal(load, source("smol", languages.find("crh_Latn"), data_dir=tmp_path))


def test_smol_of_the_hub(tmp_path, monkeypatch):
    message = refusal(load, source("smol"))
    assert "cannot load 'google/smol, smolsent__en_eu'" in message and "smolsent/en_eu.jsonl" in message
    repository = hub(tmp_path / "smol", "smoldoc__en_eu", {"srcs": ["One.", None], "trgs": ["Bat.", "Bi."]})
    monkeypatch.setattr(named_datasets, "SMOL_REPO", repository)
    found, facts = load(source("smol", subset="smoldoc"))
    assert [(pair.source, pair.target) for pair in found] == [("One.", "Bat.")]
    facts = facts["languages"]["English to Basque"]
    assert facts["path"] == f"hub: {repository}, smoldoc__en_eu, train"
    lines = f"One.\nBat.\n{facts['path']} 1\n\nBi.\n{facts['path']} 1\n"
    assert facts["sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    assert "smol, smoldoc__en_ha' (" in refusal(load, source("smol", HAUSA, subset="smoldoc"))
