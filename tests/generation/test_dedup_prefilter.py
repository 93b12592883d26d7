"""--dedup_prefilter minhash: what it finds, that it finds the same after a stop, and what it says of its recall."""

import json
import random
import signal

import numpy as np
import pytest

from tests.support.processes import start
from tests.support.runs import in_process, records
from tests.support.signalled import Signalled
from topxgen.common.files import read_json
from topxgen.generation import deduplication
from topxgen.text import minhash
from topxgen.text.near_duplicates import NearDuplicates

MINHASH = ("--dedup_prefilter", "minhash")


def paragraphs(count: int, seed: int = 0) -> list[str]:
    """Texts over words of frequencies as in a language; one in ten is a copy of an earlier one with some other words."""
    rng, texts = random.Random(seed), []
    vocabulary = [
        "".join(rng.choices("bdgklmnrstz", k=1) + rng.choices("aeiou", k=1)) * 2 + str(i) for i in range(4000)
    ]
    for _ in range(count):
        if texts and rng.random() < 0.1:
            words = rng.choice(texts).split()
            for _ in range(rng.randint(0, len(words) // 3)):
                words[rng.randrange(len(words))] = rng.choice(vocabulary)
        else:
            words = [vocabulary[int(4000 * rng.random() ** 3)] for _ in range(rng.randint(30, 70))]
        texts.append(" ".join(words))
    return texts


@pytest.fixture
def exact_at_first(monkeypatch):
    monkeypatch.setattr(minhash, "EXACT_TEXTS", 100)


def run(folder, source, *more, code=0):
    flags = ("--languages", "Basque", "--output_dir", folder, "--stages", "generate")
    result = in_process("datagen.py", "--paragraphs", source, *flags, *more)
    assert result.returncode == code, result.stdout + result.stderr
    return result


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in paragraphs(600)))
    return path


def files(folder) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("Basque.jsonl", "Basque_rejects.jsonl")]


def manifest(folder) -> dict:
    return read_json(folder / "manifest_generate_Basque.json")


def test_a_stopped_run_decides_as_one_that_was_not(tmp_path, source, exact_at_first):
    result = run(tmp_path / "whole", source, *MINHASH)
    whole = manifest(tmp_path / "whole")
    recall = whole["dedup_recall"]
    total = sum(recall.values())
    assert f"found {recall['found']} of {total} near-duplicates" in result.stderr
    assert whole["settings"]["dedup_prefilter"] == "minhash"
    assert read_json(tmp_path / "whole" / "manifest_generate.json")["dedup_recall"] == {"Basque": recall}
    rejects = records(tmp_path / "whole" / "Basque_rejects.jsonl")
    assert recall["found"] == sum(reject["reason"].startswith("near_duplicate of") for reject in rejects) > 30

    folder = tmp_path / "stopped"
    run(
        folder, source, *MINHASH, "--number_of_instructions", "60"
    )  # before and behind the texts that are compared exactly
    run(folder, source, *MINHASH, "--number_of_instructions", "250")
    run(folder, source, *MINHASH)
    assert files(folder) == files(tmp_path / "whole") and manifest(folder)["dedup_recall"] == recall

    again = run(folder, source, *MINHASH)
    assert "near-duplicates (" not in again.stderr, "measured once"
    assert manifest(folder)["dedup_recall"] == recall


def run_until(lines: int, folder, source) -> None:
    """kill -9 of this process once that many decisions are on disk."""
    minhash.EXACT_TEXTS = 100
    Signalled(f"{folder}/Basque*.jsonl", lines, signal.SIGKILL).install()
    run(folder, source, *MINHASH)


def killed_after(lines: int, folder, source) -> bool:
    process = start(run_until, lines, folder, source)
    process.join(300)
    return process.exitcode == -signal.SIGKILL


@pytest.mark.medium
def test_killed_before_and_behind_the_texts_that_are_compared_exactly(tmp_path, source, exact_at_first):
    run(tmp_path / "whole", source, *MINHASH)
    folder = tmp_path / "killed"
    assert all(killed_after(lines, folder, source) for lines in (90, 102, 300))
    run(folder, source, *MINHASH)
    assert files(folder) == files(tmp_path / "whole")
    assert manifest(folder)["dedup_recall"] == manifest(tmp_path / "whole")["dedup_recall"]


def test_merged_shards_are_the_one_run_and_their_recall_is_verified(tmp_path, source, exact_at_first):
    run(tmp_path / "one", source, *MINHASH)
    folder = tmp_path / "split"
    for index in (2, 0, 1):
        run(folder, source, *MINHASH, "--num_shards", 3, "--shard_index", index)
    merged = in_process("scripts/merge.py", folder)
    assert merged.returncode == 0, merged.stderr
    assert files(folder) == files(tmp_path / "one")
    recall = manifest(tmp_path / "one")["dedup_recall"]
    assert manifest(folder)["dedup_recall"] == recall and recall["found"] > 30

    verified = in_process("scripts/verify.py", folder)
    assert verified.returncode == 0, verified.stdout
    path = folder / "manifest_generate_Basque.json"
    path.write_text(json.dumps(manifest(folder) | {"dedup_recall": {**recall, "missed": recall["missed"] + 1}}))
    verified = in_process("scripts/verify.py", folder)
    assert verified.returncode == 1
    wanted = f"dedup_recall of Basque.missed: claimed {recall['missed'] + 1}, is {recall['missed']}"
    assert wanted in verified.stdout


def test_what_is_missed_is_counted(tmp_path, source, exact_at_first, monkeypatch):
    run(tmp_path / "exact", source)
    assert "dedup_recall" not in manifest(tmp_path / "exact")
    monkeypatch.setattr(minhash, "BANDS", 1)
    monkeypatch.setattr(minhash, "ROWS", 8)  # finds hardly anything but copies
    run(tmp_path / "poor", source, *MINHASH)
    recall = manifest(tmp_path / "poor")["dedup_recall"]
    exact, poor = (len(records(tmp_path / name / "Basque.jsonl")) for name in ("exact", "poor"))
    assert recall["missed"] >= poor - exact > 5
    monkeypatch.setattr(deduplication, "SAMPLE", 50)  # about one in ten
    (tmp_path / "poor" / "manifest_generate_Basque.json").unlink()
    (tmp_path / "poor" / "manifest_generate.json").unlink()
    run(tmp_path / "poor", source, *MINHASH)
    sampled = manifest(tmp_path / "poor")["dedup_recall"]
    assert 0 < sampled["missed"] < recall["missed"] / 2 and sampled["found"] < recall["found"] / 2


def test_a_folder_is_continued_with_the_same_prefilter_only(tmp_path, source):
    folder = tmp_path / "out"
    run(folder, source, "--number_of_instructions", "20")
    result = run(folder, source, *MINHASH, "--number_of_instructions", "40", code=2)
    assert "dedup_prefilter was 'exact', now 'minhash'" in result.stderr
    path = folder / "settings_generate.json"
    settings = read_json(path)
    del settings["dedup_prefilter"]  # as older versions left it
    path.write_text(json.dumps(settings))
    assert "dedup_prefilter was 'exact'" in run(folder, source, *MINHASH, code=2).stderr
    run(folder, source, "--number_of_instructions", "40")
    assert len(records(folder / "Basque.jsonl")) == 40


def test_candidates_are_the_same_on_each_machine(exact_at_first):
    """The hashes of words that decide what is compared: another release of the library must not change them unnoticed."""
    index = minhash.MinHashIndex(0.7)
    assert index._signature(["bat", "bi", "hiru", "lau", "bost"])[:4].tolist() == DIGEST
    texts = paragraphs(400, seed=1)
    exact, kept = NearDuplicates(0.7), NearDuplicates(0.7, prefilter="minhash")
    matches = [(exact.keep(str(i), text), kept.keep(str(i), text)) for i, text in enumerate(texts)]
    found = [one for one, other in matches if one is not None and one == other]
    assert len(found) >= 0.95 * sum(one is not None for one, _ in matches) > 20
    assert len(kept._index._common) < 400, "words of a few texts are not common"


def test_scripts_without_spaces(exact_at_first):
    """All their texts share most characters, but not runs of them: hardly any is a candidate, and altered copies are found."""
    rng = random.Random(2)
    characters = [chr(code) for code in range(0xE01, 0xE2F)]
    vocabulary = ["".join(rng.choices(characters[:20], k=rng.randint(2, 6))) for _ in range(2000)]
    texts: list[list[str]] = []
    for number in range(400):
        words = [vocabulary[int(2000 * rng.random() ** 2)] for _ in range(60)]
        if number % 10 == 9:
            words = [word if rng.random() < 0.8 else other for word, other in zip(texts[-7], words, strict=True)]
        texts.append(words)
    exact, index, candidates, matches = NearDuplicates(0.7), NearDuplicates(0.7, prefilter="minhash"), 0, []
    for number, text in enumerate(map("".join, texts)):
        candidates += len(index._index.candidates(index._words(text).key)) if number >= 200 else 0
        matches.append((exact.keep(str(number), text), index.keep(str(number), text)))
    assert candidates < 200 * 5
    found = [one for one, other in matches if one is not None and one == other]
    assert len(found) >= 0.9 * sum(one is not None for one, _ in matches) > 20


def test_a_template_that_the_first_texts_do_not_have(exact_at_first, monkeypatch):
    """Texts that share half of their words are compared with few others; the altered copy of a late one is found."""
    monkeypatch.setattr(minhash, "TEXTS_PER_VALUE", 8)
    rng, index, exact, candidates, found = (
        random.Random(3),
        NearDuplicates(0.7, prefilter="minhash"),
        NearDuplicates(0.7),
        [],
        [],
    )
    own = [" ".join(f"w{rng.randrange(100_000)}" for _ in range(30)) for _ in range(500)]
    template = " ".join(f"template{i}" for i in range(30))
    for number, text in enumerate(own):
        if number >= 150:
            text = f"{template} {text}"
        if number > 450 and number % 10 == 0:  # like an earlier one, with other words at its end
            text = " ".join([*f"{template} {own[number - 33]}".split()[:54], *text.split()[-6:]])
        candidates.append(len(index._index.candidates(index._words(text).key)) if number >= 100 else 0)
        matches = exact.keep(str(number), text), index.keep(str(number), text)
        found += [matches] if matches[0] else []
    assert max(candidates[400:]) < 120, "not all of the 250 before"
    assert len(found) == 4 and all(one == other for one, other in found)


DIGEST = [12991740214779979202, 3875188317878355110, 18226271042258108289, 2075773535521693467]


def test_texts_are_found_when_the_table_has_grown():
    keys = np.random.default_rng(1).integers(0, 2**64, (3000, minhash.BANDS), np.uint64)
    bands = minhash._Bands()
    for key in keys:
        bands.add(key)
    assert bands._bits > minhash._Bands()._bits
    assert [bands.candidates(key).tolist() for key in keys] == [[number] for number in range(len(keys))]


def test_a_table_that_grows_has_the_entries_of_one_that_was_large():
    """Values that many texts share: the first TEXTS_PER_VALUE of a bucket are found, in whatever chunks they were put there."""
    rng = np.random.default_rng(2)
    keys = rng.integers(0, 2**64, (3000, minhash.BANDS), np.uint64)
    keys[rng.random(keys.shape) < 0.3] = keys[0, 0]
    keys[:, 5] = np.where(rng.random(len(keys)) < 0.2, keys[:, 6], keys[:, 5])  # the same bucket twice in a text
    bands, by_bucket = minhash._Bands(), {}
    for key in keys:
        bands.add(key)
    for number, buckets in enumerate(bands._buckets(keys).tolist()):
        for bucket in set(buckets):
            if len(by_bucket.setdefault(bucket, [])) < minhash.TEXTS_PER_VALUE:
                by_bucket[bucket].append(number)
    for key, buckets in zip(keys, bands._buckets(keys).tolist(), strict=True):
        near = sorted(set().union(*(by_bucket[bucket] for bucket in buckets)))
        assert bands.candidates(key).tolist() == [n for n in near if (keys[n] == key).any()]
