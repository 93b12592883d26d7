"""The section Evaluation: runs that are being written, test sets that are not here, and samples of large ones."""

import json
import os
import socket

from comptra import verify
from comptra.report import Options, packing
from comptra.report.sections import evaluation, evaluation_sentences
from tests.support.evaluations import RUN, collected, notices, run, settings, udhr, worse, write
from topxgen.runs.folders import find

# Runs that are written, and test sets that are not here


def test_a_run_that_is_being_written_stands_beside_the_finished_ones(tmp_path):
    run(tmp_path, "done", 0.1)
    test = udhr()
    folder = write(
        tmp_path / "now" / RUN.format("English", "Basque"),
        test.sources[:5],
        worse(test.references[:5], 0.2),
        settings(),
    )
    with open(folder / "translate_0.jsonl", "a", encoding="utf-8") as file:
        file.write('{"sentence": "Half a li')
    data, _ = collected(tmp_path)
    (group,) = data["sentences"]
    done, now = group["systems"]
    assert (now["sentences"], now["missing"]) == (5, 16) and now["translations"][5:] == [None] * 16
    assert now["scores"]["chrf"][5:] == [None] * 16 and None not in done["translations"]


def test_nothing_is_asked_of_the_network(tmp_path, monkeypatch):
    """FLORES without a copy: the page has the translations, and says why there are no references."""

    def refuse(*_):
        raise AssertionError("the network was asked")

    from huggingface_hub import constants

    before = os.environ.get("HF_HUB_OFFLINE"), constants.HF_HUB_OFFLINE
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    test = udhr()
    write(tmp_path / "m" / RUN.format("English", "Basque"), test.sources, test.references, settings("flores"))
    data, options = collected(tmp_path)
    (group,) = data["sentences"]
    assert (
        group["references"] is None
        and group["metrics"] == []
        and group["systems"][0]["translations"] == test.references
    )
    assert "no references, and so no scores of sentences" in notices(options, "missing") and data["reports"] == []
    assert (os.environ.get("HF_HUB_OFFLINE"), constants.HF_HUB_OFFLINE) == before


def test_a_benchmark_is_found_where_main_read_it(tmp_path):
    """Without --benchmark_dir, by the path in the manifest; scripts/verify.py does so, too."""
    texts = {"src.eng": "The letter of number {}.", "ref.eus": "{} zenbakiko gutuna."}
    for name, text in texts.items():
        path = tmp_path / f"NTREX-128/newstest2019-{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{text.format(i)}\n" for i in range(1997)))
    sources, references = ([text.format(i) for i in range(1000)] for text in texts.values())
    folder = write(tmp_path / "m" / RUN.format("English", "Basque"), sources, references, settings("ntrex"))
    manifest = json.loads((folder / "manifest_translate.json").read_text())
    recorded = {"from": str(tmp_path / "NTREX-128/newstest2019-src.eng.txt"), "sha256": "0" * 64}
    manifest["test_set"] = {"test": {"sources": recorded}}
    (folder / "manifest_translate.json").write_text(json.dumps(manifest))
    (group,) = collected(tmp_path / "m")[0]["sentences"]
    assert group["total"] == 1000 and group["systems"][0]["corpus"] == 100.0
    audit = verify.verify(tmp_path / "m")
    assert not any("--benchmark_dir" in why for reasons in audit.unchecked.values() for why in reasons)
    assert "test_set.sources.sha256: claimed 0000" in "\n".join(map(str, audit.problems))


def test_folders_that_cannot_be_read_are_named(tmp_path):
    run(tmp_path, "a", 0.2)
    broken = run(tmp_path, "b", 0.2) / "translate_0.jsonl"
    broken.write_text("no JSON\n" * 3)
    data, options = collected(tmp_path)
    assert "b/English_to_Basque" in notices(options, "missing") and len(data["sentences"][0]["systems"]) == 1


def test_nothing_translated_is_no_section(tmp_path):
    assert evaluation.collect(find(tmp_path), Options()) is None


# The sample


def test_large_test_sets_are_sampled_to_a_size(tmp_path, monkeypatch):
    for model, share in (("a", 0.5), ("b", 0.1)):
        run(tmp_path, model, share)
        run(tmp_path, model, share, "Swahili")
    whole, _ = collected(tmp_path)
    limit = packing.packed_size(packing.size_of(whole["sentences"])) // 2
    monkeypatch.setattr(evaluation_sentences, "RATIO", 50)  # texts that compress less than expected
    data, _ = collected(tmp_path, page_bytes=4 * limit)
    assert packing.packed_size(packing.size_of(data["sentences"])) <= limit
    for group, complete in zip(data["sentences"], whole["sentences"], strict=True):
        count = len(group["numbers"])
        assert 2 < count < group["total"] == 21 and abs(2 * group["differing"] - count) <= 1
        assert group["numbers"] == sorted(set(group["numbers"]))
        for place, number in enumerate(group["numbers"]):
            assert group["sources"][place] == complete["sources"][number - 1]
            for system, other in zip(group["systems"], complete["systems"], strict=True):
                assert system["translations"][place] == other["translations"][number - 1]
                assert system["scores"]["chrf"][place] == other["scores"]["chrf"][number - 1]
        spread = {
            number: abs(
                complete["systems"][0]["scores"]["chrf"][number - 1]
                - complete["systems"][1]["scores"]["chrf"][number - 1]
            )
            for number in complete["numbers"]
        }
        assert max(spread, key=spread.get) in group["numbers"]
    assert collected(tmp_path, page_bytes=4 * limit)[0] == data, "the same page each time"
    assert collected(tmp_path, page_bytes=4 * limit, seed=1)[0]["sentences"] != data["sentences"]


def test_shares_of_the_room():
    assert evaluation_sentences.share([10, 100, 100], 110) == [10, 50, 50]
    assert evaluation_sentences.share([10, 20], 100) == [10, 20]
    assert evaluation_sentences.share([], 5) == []
