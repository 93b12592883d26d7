"""KNN-Instruct: prompts, files and rounds against a plain restatement of the method, kills, files of others, limits."""

import hashlib
import json
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.knn_parts import Encoder, Fuse, Killed, Model
from tests.support.runs import TOPICS, datagen, in_process, records, script
from tests.support.tiny_models import udhr_texts
from tests.support.tiny_sonar import build_sonar
from topxgen.common.provenance import weights_id
from topxgen.common.records import Layout
from topxgen.generation import paragraphs
from topxgen.generation.parsing import first_line
from topxgen.quality.sonar import SonarEncoder
from topxgen.text import languages

SEEDS = [text.split(".")[0][:90].strip() for text in dict.fromkeys(udhr_texts("Basque"))][:7]
K = 2


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    monkeypatch.setattr(Model, "seen", {})
    monkeypatch.setattr(Model, "silent", set())
    monkeypatch.setattr(Model, "failing", set())
    monkeypatch.setattr(Model, "order", random.Random(1))
    monkeypatch.setattr(Fuse, "left", None)
    Encoder.encoded.clear()


@pytest.fixture
def seeds(tmp_path) -> Path:
    return write_seeds(tmp_path / "seeds", SEEDS)


def write_seeds(folder: Path, sentences: list[str], *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names or ("Basque",):
        (folder / f"{name}.txt").write_text("\n".join(sentences), encoding="utf-8")
    return folder


def command(seeds, output, *more, rounds=3, languages=("Basque",)):
    return (
        "--data_generation_pipeline", "knn-instruct", "--inference_api", "tests.support.knn_parts:Model",
        "--model_name_or_path", "echo", "--encoder", "tests.support.knn_parts:Encoder", "--languages", *languages,
        "--example_sentences", seeds, "--number_of_icl_demonstrations", K, "--number_of_rounds", rounds,
        "--prompt_template", "neighbours-continuation", "--stages", "generate", "--output_dir", output, *more,
    )  # fmt: skip


def finished(folder: Path) -> dict[str, bytes]:
    """What a run leaves, but for times and the order in which responses came."""
    answers = {path.name: sorted(path.read_bytes().splitlines()) for path in folder.glob("*_answers.jsonl")}
    kinds = ("Basque*.jsonl", "Hausa*.jsonl", "*.bin", "*.bin.json")
    return answers | {
        path.name: path.read_bytes() for kind in kinds for path in folder.glob(kind) if "_answers" not in path.name
    }


def restated(language: str, seeds: list[str], rounds: int, brings) -> list[list[str]]:
    """The rounds by the method's own words; `brings(shown)` gives the texts that a prompt with these passages brings."""
    encoder = Encoder(None)
    pool, result = list(seeds), []
    for _ in range(rounds):
        vectors = encoder.encode(pool, None).astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        new = []
        for item, text in enumerate(pool):
            cosines = vectors @ vectors[item]
            nearest = sorted((i for i in range(len(pool)) if i != item), key=lambda i: (-round(cosines[i], 12), i))
            new += brings([text, *(pool[i] for i in nearest[:K])])
        pool += new
        result.append(new)
    return result


def prompt_of(shown: list[str], language: str = "Basque") -> str:
    listed = "".join(f"##\n{number}. {text}\n\n" for number, text in enumerate(shown, 1))
    return f"Passages in {language} on similar subjects:\n\n{listed}##\n{len(shown) + 1}."


def check_files(folder: Path, language: str, rounds: list[list[str]]) -> None:
    layout = Layout(folder, "x")
    for number, texts in enumerate(rounds, 1):
        assert records(layout.round_texts(language, number)) == [{"text": text} for text in texts]
    assert [record["text"] for record in records(layout.paragraphs(language))] == [t for texts in rounds for t in texts]
    for number, texts in enumerate([SEEDS, *rounds]):
        vectors = np.fromfile(layout.vectors(language, number), np.float32).reshape(-1, Encoder.dimension)
        assert (vectors == Encoder(None).encode(texts, None)).all()


def test_rounds_prompts_and_files_are_those_of_the_method(seeds, tmp_path):
    datagen(*command(seeds, tmp_path / "out"))
    prompts = []

    def brings(shown):
        prompts.append(prompt_of(shown))
        return [Model.text("", prompts[-1]).strip()]

    rounds = restated("Basque", SEEDS, 3, brings)
    assert [len(texts) for texts in rounds] == [7, 14, 28]
    check_files(tmp_path / "out", "Basque", rounds)
    assert list(dict(sorted(Model.seen.items())).values()) == prompts
    assert sorted(Model.seen) == [f"Basque-{number:06d}" for number in range(7 * (2**3 - 1))]
    kept = records(tmp_path / "out" / "Basque.jsonl")
    assert all(set(record) == {"text", "id"} for record in kept)
    manifest = json.loads((tmp_path / "out" / "manifest_generate.json").read_text())
    assert manifest["complete"] and manifest["prompts_asked"] == 49 and not manifest["counts"]["Basque"]["rejected"]


def test_items_that_bring_nothing_leave_the_other_ids_alone(seeds, tmp_path):
    datagen(*command(seeds, tmp_path / "whole"))
    whole = set(Model.seen)
    Model.seen = {}
    Model.silent = {"Basque-000002", "Basque-000005"}
    datagen(*command(seeds, tmp_path / "out"))
    # Round 1 brings 5: the items of numbers 7 + 7 + 2 and 7 + 7 + 5 do not exist in round 2, nor what they would bring.
    gone = {7 + 7 + 2, 7 + 7 + 5}
    gone |= {21 + place for place in (9, 12)} | {21 + 14 + place for place in (9, 12)}
    assert whole - set(Model.seen) == {f"Basque-{number:06d}" for number in gone}
    assert [len(records(tmp_path / "out" / f"Basque_{number}.jsonl")) for number in (1, 2, 3)] == [5, 12, 24]
    assert {record["reason"] for record in records(tmp_path / "out" / "Basque_rejects.jsonl")} == {"empty"}


def test_a_run_that_brings_nothing_at_all_is_complete_but_says_so(seeds, tmp_path):
    Model.silent = {f"Basque-{number:06d}" for number in range(100)}
    result = datagen(*command(seeds, tmp_path / "out"), check=3)
    assert "no paragraphs were kept in Basque" in result.stderr
    assert (tmp_path / "out" / "Basque_1.bin").read_bytes() == b""


def test_several_texts_for_an_item(seeds, tmp_path):
    datagen(*command(seeds, tmp_path / "out", "--num_return_sequences", 2, rounds=2))
    rounds = restated("Basque", SEEDS, 2, lambda shown: [Model.text("", prompt_of(shown), i).strip() for i in range(2)])
    assert [len(texts) for texts in rounds] == [14, 42]
    check_files(tmp_path / "out", "Basque", rounds)
    assert len(Model.seen) == 7 + 21


def test_an_item_may_stand_alone(seeds, tmp_path):
    datagen(*command(seeds, tmp_path / "out", "--number_of_icl_demonstrations", 0, "--max_samples", 1, rounds=2))
    assert Model.seen["Basque-000000"] == Model.seen["Basque-000001"] == prompt_of(SEEDS[:1])
    assert len(records(tmp_path / "out" / "Basque.jsonl")) == 3


@pytest.mark.medium
def test_killed_at_any_moment_and_resumed(seeds, tmp_path):
    """While answers come, while vectors are made: the same prompts are sent, and the files are the same to the byte."""
    flags = ("--request_batch_size", 3)
    languages = ("Basque", "Hausa")
    write_seeds(seeds, SEEDS, *languages)
    datagen(*command(seeds, tmp_path / "whole", *flags, rounds=2, languages=languages))
    whole, prompts = finished(tmp_path / "whole"), dict(Model.seen)
    assert len(whole["Basque_2.bin"]) == 14 * 32 * 4
    rng, kills = random.Random(5), 0
    for trial in range(12):
        folder = tmp_path / f"killed{trial}"
        Model.seen, Model.order = {}, random.Random(trial)
        while True:
            Fuse.left = rng.randint(0, 40)
            try:
                datagen(*command(seeds, folder, *flags, rounds=2, languages=languages))
                break
            except Killed:
                kills += 1
        Fuse.left = None
        assert finished(folder) == whole and Model.seen == prompts
    assert kills > 25


@pytest.mark.slow
def test_one_run_killed_again_and_again(tmp_path):
    """A process, 13 times kill -9 at random moments of three rounds, twice of them while vectors are made."""
    seeds = write_seeds(tmp_path / "seeds", list(dict.fromkeys(text[:80].strip() for text in udhr_texts("Basque"))))
    script("datagen.py", *command(seeds, tmp_path / "whole"))
    count, killed = len(records(tmp_path / "whole" / "Basque_1.jsonl")), tmp_path / "killed"
    moments = [*random.Random(2).sample(range(1, 6 * count), 11), count, 3 * count]  # responses; the ends of two rounds
    for moment in sorted(moments):
        script("datagen.py", *command(seeds, killed), killed_at=(killed / "Basque_answers.jsonl", moment))
    script("datagen.py", *command(seeds, killed))
    assert (
        finished(killed) == finished(tmp_path / "whole") and len(finished(killed)["Basque_3.bin"]) == 4 * count * 32 * 4
    )


def test_a_text_that_an_api_owed_joins_its_round_later(seeds, tmp_path, monkeypatch):
    """A failed request of round 1 is sent again when round 2 has begun: no id changes what it stands for."""
    monkeypatch.setattr(paragraphs, "REMOTE", ("tests.support.knn_parts:Model",))
    Model.silent, Fuse.left = {"Basque-000002"}, 7 + 7 + 6 + 4
    with pytest.raises(Killed):
        datagen(*command(seeds, tmp_path / "out", rounds=2))
    answered = {record["id"] for record in records(tmp_path / "out" / "Basque_answers.jsonl")}
    assert max(answered) > "Basque-000007" and len(records(tmp_path / "out" / "Basque_1.jsonl")) == 6
    Model.silent, Model.seen = set(), {}
    datagen(*command(seeds, tmp_path / "out", rounds=2))
    assert set(Model.seen) == ({f"Basque-{number:06d}" for number in range(21)} - answered) | {"Basque-000002"}
    first, second = (records(tmp_path / "out" / f"Basque_{number}.jsonl") for number in (1, 2))
    late = next(record for record in records(tmp_path / "out" / "Basque.jsonl") if record["id"] == "Basque-000002.0")
    assert len(first) == 7 and first[2]["text"] == late["text"] and len(second) == 14
    assert (
        Model.seen["Basque-000016"].split("\n")[3] == f"1. {late['text']}"
    )  # 7 of round 1, 7 seeds, the third of its texts
    assert (tmp_path / "out" / "Basque_1.bin").stat().st_size == 7 * 32 * 4


def test_more_rounds_go_on_as_if_asked_for_at_once(seeds, tmp_path):
    datagen(*command(seeds, tmp_path / "once", rounds=3))
    for rounds in (1, 3):
        datagen(*command(seeds, tmp_path / "steps", rounds=rounds))
    assert finished(tmp_path / "steps") == finished(tmp_path / "once")
    Encoder.encoded.clear()
    Model.seen = {}
    datagen(*command(seeds, tmp_path / "once", rounds=3))  # nothing is left to do
    assert not Model.seen and not Encoder.encoded
    assert finished(tmp_path / "steps") == finished(tmp_path / "once")


def test_fewer_rounds_than_were_begun_are_refused(seeds, tmp_path):
    out = tmp_path / "out"
    datagen(*command(seeds, out, rounds=2))
    whole = finished(out)
    said = datagen(*command(seeds, out, rounds=1), check=2).stderr
    assert "--number_of_rounds 1: " in said and "has begun round 2 of Basque" in said and "pass 2 or more" in said
    assert finished(out) == whole
    datagen(*command(seeds, out, rounds=2))
    assert finished(out) == whole


def test_prompts_that_an_api_has_failed_to_answer_are_asked_again(seeds, tmp_path, monkeypatch):
    monkeypatch.setattr(paragraphs, "REMOTE", ("tests.support.knn_parts:Model",))
    out = tmp_path / "out"
    Model.failing = {"Basque-000002", "Basque-000009"}
    for _ in range(2):  # the server is still at fault
        result = datagen(*command(seeds, out, rounds=2), check=3)
        assert "2 prompts failed" in result.stderr and "run the same command again" in result.stderr
        manifest = json.loads((out / "manifest_generate.json").read_text())
        assert not manifest["complete"]
        assert sorted(record["id"] for record in records(out / "Basque_rejects.jsonl")) == [
            "Basque-000002.0",
            "Basque-000009.0",
        ]
    kept = len(records(out / "Basque.jsonl"))
    limited = tmp_path / "limited"
    shutil.copytree(out, limited)
    datagen(*command(seeds, limited, "--number_of_instructions", kept, rounds=2))  # the remedy without them
    Model.failing, Model.seen = set(), {}
    datagen(*command(seeds, out, rounds=2))
    # The two, and the one of round 2 that shows what the first of them brought.
    assert sorted(Model.seen) == ["Basque-000002", "Basque-000009", "Basque-000016"]
    assert len(records(out / "Basque.jsonl")) == 21 and not records(out / "Basque_rejects.jsonl")
    assert json.loads((out / "manifest_generate.json").read_text())["complete"]
    Model.seen = {}
    datagen(*command(seeds, out, rounds=2))
    assert not Model.seen


def damage(kind: str, path: Path) -> None:
    manifest = path.with_name(f"{path.name}.json")
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-4])
    elif kind == "longer":
        path.write_bytes(path.read_bytes() + b"\0\0\0\0")
    elif kind == "a bit flipped":
        data = bytearray(path.read_bytes())
        data[8] ^= 1
        path.write_bytes(data)
    elif kind == "gone":
        path.unlink()
    elif kind == "of other texts":
        other = path.with_name("Basque_1.bin" if path.name == "Basque_0.bin" else "Basque_0.bin")
        path.write_bytes(other.read_bytes())
        manifest.write_bytes(other.with_name(f"{other.name}.json").read_bytes())
    else:  # of another encoder
        manifest.write_text(manifest.read_text().replace("bigrams 1", "bigrams 0"))


@pytest.mark.parametrize(
    "kind", ["truncated", "longer", "a bit flipped", "gone", "of other texts", "of another encoder"]
)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_vectors_that_do_not_fit_are_made_again(seeds, tmp_path, kind, number):
    datagen(*command(seeds, tmp_path / "out", rounds=2))
    whole, prompts = finished(tmp_path / "out"), dict(Model.seen)
    damage(kind, tmp_path / "out" / f"Basque_{number}.bin")
    answers = tmp_path / "out" / "Basque_answers.jsonl"
    lines = answers.read_text(encoding="utf-8").splitlines(keepends=True)
    lost = [line for line in lines if json.loads(line)["id"] == "Basque-000012"]  # one of round 2 is asked for again
    answers.write_text("".join(line for line in lines if line not in lost), encoding="utf-8")
    Model.seen = {}
    datagen(*command(seeds, tmp_path / "out", rounds=2))
    assert finished(tmp_path / "out") == whole
    assert Model.seen == {"Basque-000012": prompts["Basque-000012"]}


@pytest.mark.parametrize("number", [0, 1])
def test_vectors_of_someone_else_are_refused(seeds, tmp_path, number):
    out = tmp_path / "out"
    out.mkdir()
    (out / f"Basque_{number}.bin").write_bytes(bytes(7 * 32 * 4))
    result = datagen(*command(seeds, out), check=2)
    assert re.fullmatch(
        rf"datagen\.py: error: .*Basque_{number}\.bin has no Basque_{number}\.bin\.json beside it.*move it away.*\n",
        result.stderr,
    )
    assert not Model.seen and not Encoder.encoded


def test_texts_of_another_run_are_refused(seeds, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "Basque_1.jsonl").write_text('{"text": "kaixo"}\n')
    result = datagen(*command(seeds, out), check=2)
    assert "Basque_1.jsonl is of another run" in result.stderr


def test_a_run_goes_on_only_with_its_own_seeds_and_encoder(seeds, tmp_path, monkeypatch):
    datagen(*command(seeds, tmp_path / "out", rounds=1))
    monkeypatch.setattr(Encoder, "version", "bigrams 2")
    result = datagen(*command(seeds, tmp_path / "out", rounds=2), check=2)
    assert "encoder was 'bigrams 1', now 'bigrams 2'" in result.stderr
    monkeypatch.undo()
    result = datagen(*command(seeds, tmp_path / "out", "--max_samples", 6, rounds=2), check=2)
    assert "example_sentences_digest Basque was" in result.stderr


def test_numbers_of_texts_are_limits(seeds, tmp_path):
    write_seeds(seeds, SEEDS, "Basque", "Hausa")
    both = {"languages": ("Basque", "Hausa")}
    datagen(*command(seeds, tmp_path / "total", "--number_of_instructions", 17, **both))
    kept = {name: records(tmp_path / "total" / f"{name}.jsonl") for name in ("Basque", "Hausa")}
    assert sum(map(len, kept.values())) == 17
    datagen(*command(seeds, tmp_path / "each", "--number_of_instructions_per_language", 5, 16, **both))
    assert [len(records(tmp_path / "each" / f"{name}.jsonl")) for name in ("Basque", "Hausa")] == [5, 16]
    assert len(records(tmp_path / "each" / "Hausa_2.jsonl")) == 9  # of a round that was not finished
    assert not (tmp_path / "each" / "Basque_2.jsonl").exists() or not records(tmp_path / "each" / "Basque_2.jsonl")
    whole = finished(tmp_path / "each")
    datagen(*command(seeds, tmp_path / "each", "--number_of_instructions_per_language", 5, 3, **both))
    assert finished(tmp_path / "each") == whole, "a smaller number takes no texts out of the files of the rounds"


def test_paragraphs_that_came_with_the_file_take_no_place(seeds, tmp_path):
    """Unless a number of paragraphs is asked for."""
    out, limited = tmp_path / "out", tmp_path / "limited"
    for folder in (out, limited):
        folder.mkdir()
        (folder / "Basque.jsonl").write_text("".join(f'{{"text": "Argitaratua da, {i}."}}\n' for i in range(3)))
    for rounds, prompts in ((1, 7), (2, 21)):
        datagen(*command(seeds, out, rounds=rounds))
        assert len(records(out / "Basque.jsonl")) == 3 + prompts and len(Model.seen) == prompts
    datagen(*command(seeds, limited, "--number_of_instructions", 5))
    assert len(records(limited / "Basque.jsonl")) == 5


def test_filters_and_near_duplicates_only_on_request(seeds, tmp_path):
    datagen(*command(seeds, tmp_path / "plain", rounds=2))
    settings = json.loads((tmp_path / "plain" / "settings_generate.json").read_text())
    assert settings["filters"] == [] and settings["threshold"] == 1.0
    Model.seen = {}
    datagen(*command(seeds, tmp_path / "strict", "--threshold", 0.3, "--filters", "too_few_words", rounds=2))
    reasons = [record["reason"].split()[0] for record in records(tmp_path / "strict" / "Basque_rejects.jsonl")]
    assert set(reasons) == {"near_duplicate"}
    brought = [len(records(tmp_path / "strict" / f"Basque_{number}.jsonl")) for number in (1, 2)]
    assert sum(brought) == len(records(tmp_path / "strict" / "Basque.jsonl")) < 21


@pytest.mark.parametrize(
    "more, rounds, message",
    [
        ((), 0, "--number_of_rounds: '0' is not a whole number of 1 or more"),
        (("--max_samples", K), 1, rf"has {K} seed sentences in Basque \(--max_samples {K}\), but a prompt shows {K + 1}"),
        (("--number_of_icl_demonstrations", 7), 1, "has 7 seed sentences in Basque, but a prompt shows 8"),
        (("--encoder", "sonr"), 1, r"--encoder: 'sonr' .*did you mean sonar"),
        (("--encoder", "use", "--encoder_device", "cuda"), 1, "--encoder_device has no effect without another encoder"),
        (("--output_filenames", "Basque_1"), 1, "Basque_1.jsonl is the file of round 1"),
        (("--example_paragraphs", "udhr"), 1, "--example_paragraphs has no effect without --data_generation_pipeline topxgen"),
    ],
)  # fmt: skip
def test_bad_input_ends_in_one_line(seeds, tmp_path, more, rounds, message):
    result = in_process("datagen.py", *command(seeds, tmp_path / "out", *more, rounds=rounds))
    assert result.returncode == 2, result.stderr
    line = result.stderr.strip().splitlines()[-1]
    assert re.search(message, line), line
    assert "Traceback" not in result.stderr and not Model.seen


def test_seeds_that_are_there_twice_are_refused(tmp_path):
    seeds = write_seeds(tmp_path / "seeds", [*SEEDS, SEEDS[0]])
    result = datagen(*command(seeds, tmp_path / "out"), check=2)
    assert "are there twice" in result.stderr


def test_an_encoder_is_only_for_this_pipeline(tmp_path, seeds):
    arguments = [*command(seeds, tmp_path / "out")]
    arguments[1] = "topxgen"
    topics = (
        "--seed_topics_path",
        TOPICS,
        "--prompt_template",
        "continuation",
        "--number_of_icl_phrases",
        1,
        "--number_of_icl_demonstrations",
        0,
    )
    result = in_process("datagen.py", *arguments, *topics, "--number_of_instructions", 5)
    assert (
        result.returncode == 2
        and "--encoder has no effect without --data_generation_pipeline knn-instruct" in result.stderr
    )


def test_a_dry_run_shows_the_first_round_and_counts_the_prompts(seeds, tmp_path):
    shown = datagen(*command(seeds, tmp_path / "out", "--dry_run"))
    assert prompt_of([SEEDS[0], SEEDS[1], SEEDS[2]]) in shown.stdout and "stand in" in shown.stdout
    assert "3 rounds, 49 prompts if all bring a text" in shown.stdout
    assert re.search(r"generate +49 prompts", shown.stdout)
    assert not Encoder.encoded and not (tmp_path / "out").exists()
    datagen(*command(seeds, tmp_path / "out", rounds=1))
    shown = datagen(*command(seeds, tmp_path / "out", "--dry_run"))
    assert Model.seen["Basque-000000"] in shown.stdout and "stand in" not in shown.stdout
    assert re.search(r"generate +42 prompts", shown.stdout)


def test_a_dry_run_counts_the_prompts_of_seeds_that_it_cannot_reach(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for more, prompts in (((), 997 * 7), (("--max_samples", 100), 700)):
        shown = datagen(*command("flores", tmp_path / "out", "--dry_run", *more))
        assert "[an example sentence, 1]" in shown.stdout and f"{prompts} prompts if all bring a text" in shown.stdout
        assert re.search(rf"generate +{prompts:,} prompts", shown.stdout)


@pytest.mark.parametrize(
    "response, expected",
    [
        (" bat bi\nhiru", "bat bi"), ("\n\n bat\n", "bat"), ("", ""), (" \n\t\n", ""), ("4. bat bi", "bat bi"),
        ("## 4. bat bi\n## 5. hiru", "bat bi"), ("##\n4. bat", "bat"), ("##\n\n", ""), ("1995. urtean", "1995. urtean"),
        ("5. mendean", "5. mendean"), ('"bat bi"', "bat bi"), ("**bat bi**", "bat bi"), ("Here it is:\n\nbat bi", "bat bi"),
        ("Hona hemen:", "Hona hemen:"), ("---\nbat", "bat"), ("```\nbat\n```", "bat"), ("<think>hmm\n</think>\nbat", "bat"),
        ("bat\u2028bi\nhiru", "bat bi"), ("Passage 4: bat bi", "bat bi"), ("**Passage 4**\n\nbat bi", "bat bi"),
        ("Artikulu 5: bat bi", "Artikulu 5: bat bi"),
    ],
)  # fmt: skip
def test_the_first_line_of_a_response(response, expected):
    assert first_line(response, 4) == expected


@pytest.mark.parametrize(
    "response, expected", [("bat bi", ""), ("bat bi\n", "bat bi"), ("\nbat", ""), ("bat\nbi", "bat")]
)
def test_a_line_that_was_cut_has_no_end(response, expected):
    assert first_line(response, 4, closed=True) == expected


@pytest.mark.medium
def test_sonar_is_the_default_encoder(tmp_path_factory, seeds, tmp_path):
    """At a tiny shape; the published one has 1,024 numbers."""
    folder = build_sonar(tmp_path_factory.mktemp("sonar"), udhr_texts("Basque"))
    arguments = [str(argument) for argument in command(seeds, tmp_path / "out", rounds=1)]
    del arguments[arguments.index("--encoder") : arguments.index("--encoder") + 2]
    datagen(*arguments, "--sonar_name_or_path", folder)
    expected = SonarEncoder(folder, device="cpu").encode(SEEDS, languages.find("Basque")).numpy()
    stored = np.fromfile(tmp_path / "out" / "Basque_0.bin", "<f4").reshape(7, 64)
    assert np.abs(stored - expected).max() < 1e-5
    units = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    nearest = np.argsort(-(units @ units.T - 2 * np.eye(7)), axis=1)[:, :K]
    assert [prompt_of([SEEDS[item], *(SEEDS[i] for i in near)]) for item, near in enumerate(nearest)] == [
        Model.seen[f"Basque-{item:06d}"] for item in range(7)
    ]
    settings = json.loads((tmp_path / "out" / "settings_generate.json").read_text())
    assert settings["encoder"] == f"sonar {weights_id(folder)}"


def test_the_folder_is_named_by_what_decides_it(seeds, tmp_path):
    datagen(*command(seeds, tmp_path / "out", rounds=1))
    settings = json.loads((tmp_path / "out" / "settings_generate.json").read_text())
    assert settings["encoder"] == "bigrams 1" and settings["pipeline"] == "knn-instruct"
    manifest = json.loads((tmp_path / "out" / "Basque_0.bin.json").read_text())
    data = (tmp_path / "out" / "Basque_0.bin").read_bytes()
    assert (
        manifest["vectors_digest"] == hashlib.sha256(data).hexdigest()[:16]
        and os.path.getsize(tmp_path / "out" / "Basque_0.bin") == 7 * 32 * 4
    )
    assert (manifest["encoder"], manifest["dimension"], manifest["texts"]) == ("bigrams 1", 32, 7)
