"""An experiment with a small model: real stages, in this process where libraries are loaded already."""

import csv
import json
import random
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from comptra import verify
from tests.support import number_translator
from tests.support.runs import ROOT, in_process, script

SMALL = """
output_dir: {out}
model: {model}
seeds: [1, 2]
pairs: 5
baseline: nothing
merge_adapters: true

datagen:
  model_name_or_path: ${{model}}
  inference_api: hf
  languages: Basque
  seed_topics_path: topics/wikipedia_vital_topics.txt
  example_paragraphs: udhr
  example_sentences: udhr
  number_of_icl_demonstrations: 1
  number_of_icl_phrases: 2
  prompt_template: continuation
  dtype: float32
  max_new_tokens: 48
  request_batch_size: 8
  number_of_instructions: 24
  back_translator: {translator}
  stages: [generate, translate]
decontamination: {{benchmarks: udhr}}
train:
  model_name_or_path: ${{model}}
  dataset_name_or_path: topxgen
  use_peft: true
  lora_r: 4
  reverse: true
  targets_only: true
  max_length: 256
  max_steps: 2
  num_warmup_steps: 1
  learning_rate: 2e-3
  test_size_ratio: 0
main:
  - &pair {{dataset_name_or_path: udhr, src: Basque, tgt: English, inference_api: hf, k: 0, max_samples: 2, max_new_tokens: 12, dtype: float32}}
  - {{<<: *pair, src: English, tgt: Basque}}
evaluate: {{metrics: [chrf, bleu], tokenize: 13a}}
variants:
  cold:
    datagen: {{temperature: 0.5}}
  hot:
    datagen: {{temperature: 0.9}}
  mixed:
    mix: [cold, hot]
  nothing:
    train: null
"""  # fmt: skip


@pytest.fixture
def started(monkeypatch) -> list[str]:
    """The scripts that are started, each in this process."""
    scripts = []

    def run(line: list[str], *_) -> int:
        scripts.append(Path(line[1]).name)
        result = in_process(Path(line[1]).relative_to(ROOT).as_posix().replace("scripts/", "scripts."), *line[2:])
        assert not result.returncode, result.stderr
        return result.returncode

    monkeypatch.setattr("topxgen.experiments.chain._run", run)
    return scripts


def small(tmp_path: Path, tiny_lm: str, **lines: str) -> Path:
    text = SMALL.format(out=tmp_path / "out", model=tiny_lm, translator=number_translator.NAME)
    for old, new in lines.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = tmp_path / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_job_that_is_named_runs_alone(tmp_path, tiny_lm, started):
    path, out = small(tmp_path, tiny_lm), tmp_path / "out"
    alone = in_process("scripts.compare", path, "--jobs", f"{out}/nothing/main-1")
    assert alone.returncode == 0 and started == ["main.py"], alone.stderr
    assert (out / "nothing" / "translations").exists() and not (out / "comparison.json").exists()


@pytest.mark.medium
def test_an_experiment_from_nothing_to_the_table(tmp_path, tiny_lm, started):
    """All variants; nothing runs twice; a seed that is added later runs alone; too few pairs are refused."""
    path, out = small(tmp_path, tiny_lm, **{"seeds: [1, 2]": "seeds: [1]"}), tmp_path / "out"
    dry = in_process("scripts.compare", path, "--dry_run")
    assert dry.returncode == 0 and dry.stdout.count("will run (not run yet)") == 4 + 3 * 4 + 2 and not out.exists()
    result = in_process("scripts.compare", path)
    assert result.returncode == 0, result.stderr
    assert Counter(started) == {
        "datagen.py": 2,
        "decontamination.py": 2,
        "train.py": 3,
        "merge_lora.py": 3,
        "main.py": 8,
    }

    report = json.loads((out / "comparison.json").read_text())
    assert [variant["name"] for variant in report["variants"]] == ["cold", "hot", "mixed", "nothing"]
    facts = {variant["name"]: variant["facts"] for variant in report["variants"]}
    assert [facts[name]["pairs"] for name in facts] == [5, 5, 5, None]
    assert [facts[name]["texts"] for name in facts] == [10, 10, 10, None]
    assert facts["mixed"]["tokens written"] == facts["cold"]["tokens written"] + facts["hot"]["tokens written"] > 0
    assert (
        facts["mixed"]["words"] > 5 * 5 and facts["mixed"]["self-BLEU"] is not None and "words" not in facts["nothing"]
    )
    assert facts["nothing"]["hours data"] is None and facts["hot"]["hours training"] >= 0
    assert [group["tgt"] for group in report["groups"]] == ["English", "Basque"]
    for text in (result.stdout, (out / "comparison.md").read_text()):
        assert "udhr from English into Basque, 2 sentences" in text and "nothing (baseline)" in text
        assert "Holm's correction over 3 variants" in text and "p is of these models alone" in text

    del started[:]
    again = in_process("scripts.compare", path)
    assert again.returncode == 0 and not started and again.stdout == result.stdout
    encoded = in_process("scripts.compare", path, "--encoder", "use")
    report = json.loads((out / "comparison.json").read_text())
    vendi = {variant["name"]: variant["facts"].get("Vendi of sources") for variant in report["variants"]}
    assert encoded.returncode == 0 and not started and vendi.pop("nothing") is None
    assert all(1 < score <= 5 for score in vendi.values()) and "Vendi of sources" in encoded.stdout
    (out / "cold" / "seed-1" / "translations").rename(tmp_path / "lost")
    assert in_process("scripts.compare", path, "--only", "hot", "nothing").returncode == 0 and not started
    report = json.loads((out / "comparison.json").read_text())
    assert list(report["groups"][0]["variants"]) == ["hot", "mixed", "nothing"]

    path = small(tmp_path, tiny_lm)
    result = in_process("scripts.compare", path, "--only", "mixed", "nothing")
    assert result.returncode == 0 and started == ["train.py", "merge_lora.py", "main.py", "main.py"]
    assert "not in the table, since they are not complete: cold, hot" in result.stderr
    groups = json.loads((out / "comparison.json").read_text())["groups"]
    for group in groups:
        assert list(group["variants"]) == ["mixed", "nothing"]
        for name, variant in group["variants"].items():
            score = variant["scores"]["chrf"]
            assert ("p" in score) == (name == "mixed") == (len(score["scores"]) == 2)
            # as comptra.evaluate scores the same translations
            own = in_process(
                "comptra.evaluate", *variant["paths"], "--metrics", "chrf", "--json", tmp_path / "own.json"
            )
            assert own.returncode == 0
            systems = json.loads((tmp_path / "own.json").read_text())["groups"][0]["systems"]
            scores = {system["path"]: system["scores"]["chrf"]["score"] for system in systems}
            assert score["scores"] == pytest.approx([scores[folder] for folder in variant["paths"]])
    rows = list(csv.DictReader((out / "comparison.csv").read_text().splitlines()))
    assert len(rows) == 2 * 2 * 2 and {row["metric"] for row in rows} == {"chrf", "bleu"}
    assert float(rows[0]["mean"]) == pytest.approx(groups[0]["variants"]["mixed"]["scores"]["chrf"]["mean"])

    check_verification(out)

    record = out / "mixed" / "seed-1" / "run" / "main-1.json"
    record.write_text(record.read_text().replace('"exit_code": 0', '"exit_code": 3'))
    for words, complete in (((), ["nothing"]), (("--allow_incomplete",), ["mixed", "nothing"])):
        assert in_process("scripts.compare", path, "--only", "nothing", *words).returncode == 0
        report = json.loads((out / "comparison.json").read_text())
        assert [variant["name"] for variant in report["variants"]] == complete

    del started[:]
    for old, new, says in (
        (
            "learning_rate: 2e-3",
            "learning_rate: 1e-3",
            "train: {} holds results of other settings (learning_rate was 0.002, now",
        ),
        ("pairs: 5\n", "pairs: 6\n", "train: {} holds results of other settings (dataset_size was 5, now 6)"),
        ("max_samples: 2, max_new_tokens: 12", "max_samples: 2, max_new_tokens: 9", "(max_new_tokens was 12, now 9)"),
    ):
        path, says = small(tmp_path, tiny_lm, **{old: new}), says.format(out / "hot/seed-1/train")
        for words in (("--dry_run",), ()):
            changed = in_process("scripts.compare", path, "--only", "hot", *words)
            assert changed.returncode == 2 and not started and changed.stderr.count("\n") == 1
            assert says in changed.stderr and "a variant whose flags change needs a new name" in changed.stderr
    path = small(tmp_path, tiny_lm, **{"  mixed:\n": "  big: {pairs: 5000, datagen: {temperature: 0.9}}\n  mixed:\n"})
    short = in_process("scripts.compare", path, "--only", "big", "nothing")
    assert short.returncode == 2 and not started and short.stderr.count("not all variants have as many pairs") == 1
    wrong = in_process("scripts.compare", path, "--only", "colt")
    assert wrong.returncode == 2 and "(did you mean cold?)" in wrong.stderr and wrong.stderr.count("\n") == 1
    shard = next(out.glob("data-*/*/manifest_translate_Basque.json")).parent  # what a shard did later is in no table
    shard = shard.parent / "shards" / "0000-of-0002" / shard.name
    shard.mkdir(parents=True)
    note = {"script": "datagen", "shard": "0000-of-0002", "started": "2026-01-01", "command": []}
    (shard / "shard_translate_Basque.json").write_text(json.dumps(note))
    stale = in_process("scripts.compare", path)
    assert (
        stale.returncode == 2
        and "Basque_translate_filtered.jsonl lacks what shard 0000-of-0002 has done" in stale.stderr
    )


def check_verification(out: Path) -> None:
    """Of comparison.json and its tables: an edited mean, and flipped bits."""
    audit = verify.verify(out)
    assert not [str(one) for one in audit.problems if "comparison" in one.file] and audit.checked["scores"]
    kept = {name: (out / name).read_bytes() for name in ("comparison.json", "comparison.md", "comparison.csv")}
    changed = json.loads(kept["comparison.json"])
    changed["groups"][0]["variants"]["mixed"]["scores"]["chrf"]["mean"] += 0.01
    (out / "comparison.json").write_text(json.dumps(changed))
    assert any("chrF++ of mixed.mean: claimed" in str(one) for one in verify.verify(out).problems)
    (out / "comparison.json").write_bytes(kept["comparison.json"])
    rng = random.Random(5)
    for name, content in kept.items():
        for _ in range(4):
            data = bytearray(content)
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            (out / name).write_bytes(data)
            assert any(name in one.file for one in verify.verify(out, verify.Options(with_scores=False)).problems)
        (out / name).write_bytes(content)


@pytest.mark.slow
def test_a_comparison_that_is_killed_again_and_again_ends_in_the_same_table(tmp_path, tiny_lm):
    lines = {
        "seeds: [1, 2]": "seeds: [1]",
        "  hot:\n    datagen: {temperature: 0.9}\n  mixed:\n    mix: [cold, hot]\n": "",
    }
    reports = []
    for name, kills in (("whole", 0), ("killed", 8)):
        folder = tmp_path / name
        folder.mkdir()
        path, rng = small(folder, tiny_lm, **lines), random.Random(4)
        for _ in range(kills):
            with subprocess.Popen(
                [sys.executable, "scripts/compare.py", path], cwd=ROOT, stderr=subprocess.DEVNULL
            ) as process:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(rng.uniform(3, 25))
                process.kill()
        script("scripts/compare.py", path)
        report = json.loads((folder / "out" / "comparison.json").read_text())
        for group in report["groups"]:
            for variant in group["variants"].values():
                del variant["paths"]
        reports.append(report["groups"])
    assert reports[0] == reports[1] and reports[0]
