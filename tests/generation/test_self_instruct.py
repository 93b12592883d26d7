"""The Self-Instruct pipeline: its prompts, its passages, and that a run is the same however it is stopped."""

import hashlib
import heapq
import itertools
import json
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from datagen import build_parser
from tests.attack.table import has_apertium
from tests.support.api_server import KEY, ApiServer
from tests.support.runs import ROOT, contents, datagen, in_process, lines_in, records
from tests.support.tiny_models import udhr_texts
from topxgen.common.console import Progress
from topxgen.common.errors import UsageError
from topxgen.corpora import examples
from topxgen.generation.paragraphs import Generation
from topxgen.generation.parsing import finished_passages, listed_passages
from topxgen.generation.pipelines import shuffled_rounds
from topxgen.generation.pipelines.self_instruct import LAG
from topxgen.generation.plan import GenerationConfig
from topxgen.inference import Answer, SamplingSettings
from topxgen.text import languages

WORDS = " ".join(udhr_texts("Basque")).lower().split()
SEEDS = examples.example_sentences("udhr", languages.find("Basque"))


def flags(folder, *more) -> list:
    return [
        "--data_generation_pipeline", "self-instruct", "--inference_api", "openai", "--model_name_or_path", "writer-1",
        "--languages", "Basque", "--output_dir", folder, "--example_sentences", "udhr", "--number_of_instructions", 60,
        "--request_batch_size", 1, "--seed", 1, "--stages", "generate", *more,
    ]  # fmt: skip


@pytest.fixture
def build(tmp_path):
    def pipeline(*more):
        return GenerationConfig(build_parser().parse_args([str(word) for word in flags(tmp_path, *more)])).pipeline

    return pipeline


def shown(content) -> list[str]:
    """The passages of a prompt, in their order; they are numbered from 1 and have "##" between them."""
    text = content if isinstance(content, str) else content[0]["content"]
    items = re.findall(r"^(\d+)\. (.+)\n\n##\n\n", text, re.M)
    assert [int(number) for number, _ in items] == list(range(1, len(items) + 1))
    return [passage for _, passage in items]


def prompts(count: int, size: int = 1, names=("Basque",)):
    return list(itertools.islice(itertools.chain.from_iterable(shuffled_rounds(names, size, 1)), count))


# Prompts


@pytest.mark.parametrize("size", [1, 3])
def test_a_prompt_shows_seeds_and_what_the_steps_up_to_the_eighth_before_have_kept(build, size):
    """K - S seeds and S passages of the prompts of those steps, none of later ones, shuffled; seeds alone while there are
    fewer than S; nothing before these prompts are judged."""
    pipeline = build("--request_batch_size", size, "--number_of_icl_demonstrations", 5)
    judged, drawn, places = 0, set(), set()
    for prompt in prompts(20 * size, size):
        earlier = max(prompt.number // size - LAG + 1, 0) * size
        while (built := pipeline.build(prompt)) is None:
            kept = [] if judged == 0 else [f"kept by {judged}, {i}" for i in range(1 if judged < 3 else 2)]
            pipeline.judged(prompts(judged + 1, size)[judged], kept)
            judged += 1
        assert judged == earlier
        content, topic = built
        passages = shown(content)
        synthetic = [text for text in passages if text.startswith("kept by ")]
        assert topic is None and len(passages) == len(set(passages)) == 5
        numbers = [int(re.search(r"\d+", text)[0]) for text in synthetic]
        enough = earlier >= 3  # prompts 1 and 2 have kept one passage each
        assert len(synthetic) == (2 if enough else 0) and all(number < earlier for number in numbers)
        assert set(passages) - set(synthetic) <= set(SEEDS)
        drawn |= set(numbers)
        places |= {passages.index(text) for text in synthetic}
    assert len(places) == 5 and max(drawn) >= 8 * size


def test_a_prompt_may_show_nothing_but_what_was_kept_before(build):
    pipeline = build("--number_of_icl_demonstrations", 3, "--number_of_icl_synthetic_demonstrations", 3)
    for prompt in prompts(LAG + 4):
        pipeline.judged(prompt, [f"kept by {prompt.number}"])
        numbers = [text.startswith("kept by ") for text in shown(pipeline.build(prompt)[0])]
        assert numbers == [prompt.number >= LAG + 2] * 3


def test_the_first_eight_steps_need_no_response(build):
    """So that a slow response keeps none of them waiting; two more languages have as many again."""
    pipeline = build("--request_batch_size", 3, "--languages", "Basque", "Hausa")
    names = ("Basque", "Hausa")
    ready = [pipeline.build(prompt) is not None for prompt in prompts(2 * 3 * LAG + 6, 3, names)]
    assert ready == [True] * (2 * 3 * LAG) + [False] * 6


def test_prompts_of_a_language_do_not_depend_on_other_languages(build):
    alone, together = build(), build("--languages", "Basque", "Hausa")
    for prompt in prompts(60, 1, ("Basque", "Hausa")):
        if prompt.language == "Hausa":
            together.judged(prompt, [f"zazzau {prompt.number}"] * 3)
            continue
        assert alone.build(prompt) == together.build(prompt) is not None
        for pipeline in (alone, together):
            pipeline.judged(prompt, [f"testu {prompt.number}", f"beste {prompt.number}"])


def test_prompts_of_another_seed_are_others(build):
    (prompt,) = prompts(1)
    assert build().build(prompt) == build().build(prompt) != build("--seed", 2).build(prompt)


def test_a_pool_of_as_many_seeds_as_a_prompt_shows(build):
    (prompt,) = prompts(1)
    assert sorted(shown(build("--max_samples", 4).build(prompt)[0])) == sorted(SEEDS[:4])


def test_the_prompt_is_a_file_that_users_edit(build, tmp_path):
    chat = (ROOT / "topxgen/generation/prompts/passages.toml").read_text(encoding="utf-8")
    (prompt,) = prompts(1)
    text = build().build(prompt)[0][0]["content"]
    assert "20 passages" in text and 'Begin with "5."' in text and text.count("Basque") >= 2
    (tmp_path / "mine.toml").write_text(chat.replace("wide range", "narrow range"), encoding="utf-8")
    mine = build("--prompt_template", tmp_path / "mine.toml")
    assert mine.build(prompt)[0][0]["content"] == text.replace("wide range", "narrow range")
    assert mine.settings["prompt_template_digest"] != build().settings["prompt_template_digest"]
    for old, new, message in (
        ("{passages}", "", "prompt: the placeholder {passages} is missing"),
        ("{total}", "{totals}", "unknown placeholder {totals}; known here: {language}, {passages}, {next}, {total}"),
        ('style = "chat"', 'style = "chat"\nanswer = "text"', "key 'answer' does not exist"),
    ):
        body = chat[chat.index("style =") :]
        (tmp_path / "mine.toml").write_text(body.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(UsageError) as error:
            build("--prompt_template", tmp_path / "mine.toml")
        assert message in str(error.value)


def test_a_base_model_goes_on_behind_the_next_number(build):
    pipeline = build("--prompt_template", "passages-continuation")
    text, _ = pipeline.build(prompts(1)[0])
    assert text.startswith("20 passages in Basque") and text.endswith("\n\n##\n\n5.") and pipeline.stop == ("\n21.",)
    assert pipeline.parse(" Lehen pasartea da.\n\n##\n\n6. Bigarrena da.") == ["Lehen pasartea da.", "Bigarrena da."]
    assert pipeline.parse("\n5. Lehen pasartea da.") == ["Lehen pasartea da."]
    assert pipeline.parse("") is None
    assert pipeline.parse(pipeline.finished_part(" Lehen pasartea da.\n6. Bigarr")) == ["Lehen pasartea da."]


# Responses


@pytest.mark.parametrize(
    "response, passages, finished",
    [
        ("5. Bat da.\n\n##\n\n6. Bi dira. Bai.\n\n##\n\n7. Hir", ["Bat da.", "Bi dira. Bai.", "Hir"], 2),
        ("5. Bat da.\n\n##\n\n6. Bi dira.\n\n##\n\n7", ["Bat da.", "Bi dira."], 2),
        ("5. Bat da.\n6. Bi di", ["Bat da.", "Bi di"], 1),
        ("5. Bat da. ## 6. Bi di", ["Bat da.", "Bi di"], 1),
        ("5. Bat da. 6. Bi dira. 7. Hir", ["Bat da.", "Bi dira.", "Hir"], 2),
        ("5. Bat", ["Bat"], 0),
        ("<think>5. Asmoa.\n6. Beste bat.</think>5. Bat da.\n6. Bi", ["Bat da.", "Bi"], 1),
        ("<think>5. Asmoa.\n6. Beste", [], 0),
        ("Hona hemen:\n\n**5.** Bat da.\n\n**6.** Bi dira.\nBai.\n\n", ["Bat da.", "Bi dira. Bai."], 2),
        ("**5. Bat da.**\n**6. Bi dira.**", ["Bat da.", "Bi dira."], 1),
        ("```\n5. Bat da.\n6. Bi dira.\n```", ["Bat da.", "Bi dira."], 1),
        ("**5. Izenburua**\nBat da.\n\n6. Bi dira.", ["Bat da.", "Bi dira."], 1),
        ("### 5. Bat da.\n\n### 6. Bi dira.", ["Bat da.", "Bi dira."], 1),
        ("5. # Bat #da.", ["Bat da."], 0),
        ("5.\n\nBat da.\n\n##\n\n6.\nBi dira.", ["Bat da.", "Bi dira."], 1),
        ("5. Bat da.\n\nEta hau ez.\n\n6. Bi dira.\n\nHope this helps!", ["Bat da.", "Bi dira."], 2),
        ("1. Bat da.\n\n##\n\n2. Bi dira.\n\n", ["Bat da.", "Bi dira."], 2),  # counts from 1 again
        ("5. XX. mendean.\n20. mendean ere bai.\n6. Bi, 12. Urtean.", ["XX. mendean. 20. mendean ere bai.", "Bi, 12. Urtean."], 1),
        ("5. Bat da.\n6. bi dira.\n7. Hir", ["Bat da.", "bi dira.", "Hir"], 2),  # small letters
        ("5. bat da.\n6. Bi dira.\n20. mendean.\n7. Hir", ["bat da.", "Bi dira. 20. mendean.", "Hir"], 2),
        ("5. bat da. 6. mendean", ["bat da. 6. mendean"], 0),
        ("5. Jaio zen. 1984. Urtea zen.", ["Jaio zen. 1984. Urtea zen."], 0),
        ("५. नमस्ते संसार।\n\n##\n\n६. दोस्रो अनुच्छेद। ७. तेस्रो", ["नमस्ते संसार।", "दोस्रो अनुच्छेद।", "तेस्रो"], 2),
        ("5) Bat da.\r\n\r\n##\r\n\r\n6) Bi dira.\r\n", ["Bat da.", "Bi dira."], 1),
        ("\n".join(f"{i}. Testu {i} da." for i in range(5, 31)), [f"Testu {i} da." for i in range(5, 31)], 25),
        ("Ez dago zerrendarik.", [], 0),
        ("", [], 0),
    ],
)  # fmt: skip
def test_passages_of_a_response(response, passages, finished):
    assert listed_passages(response) == passages
    assert listed_passages(finished_passages(response)) == passages[:finished]


# Runs


class Writer(ApiServer):
    """Writes three or four passages by the prompt alone; some are too short, copies of a seed or of another, or cut."""

    def __init__(self, delay=0.0):
        super().__init__(delay=delay)
        self.prompts = set()

    async def _reply(self, writer, path, body, *rest):
        prompt = body["messages"][-1]["content"]
        rng = random.Random(hashlib.sha256(prompt.encode()).hexdigest())
        texts = [" ".join(rng.sample(WORDS, 12)).capitalize() + "." for _ in range(rng.choice((3, 4)))]
        if rng.random() < 0.4:
            texts[0] = rng.choice(("Bai, hala.", rng.choice(SEEDS), shown(prompt)[0]))
        self.prompts.add(prompt)
        cut = rng.random() < 0.3
        text = "\n\n##\n\n".join(f"{number}. {text}" for number, text in enumerate(texts, 5))
        self.respond = lambda _: text[:-20] if cut else text
        self.edit = lambda _, answer: (_ended(answer, "length" if cut else "stop"), None)
        return await super()._reply(writer, path, body, *rest)


def _ended(answer: dict, reason: str) -> dict:
    answer["choices"][0]["finish_reason"] = reason
    return answer


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def command(server, folder, *more):
    return flags(folder, "--base_url", server.url("openai"), *more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder, prompts) of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch, Writer() as server:
        patch.setenv("OPENAI_API_KEY", KEY)
        result = datagen(*command(server, folder, "--max_concurrent_requests", 4))
    return folder, server.prompts, result.stdout


def test_a_run(whole):
    folder, asked, table = whole
    assert re.search(r"after too short +\d+ +-[1-9]", table) and "too few words" not in table
    kept, rejects = records(folder / "Basque.jsonl"), records(folder / "Basque_rejects.jsonl")
    assert len(kept) == 60 and all(set(record) == {"text", "id"} for record in kept)
    assert all(len(record["text"]) > 10 for record in kept)
    texts = {record["text"] for record in kept}
    assert len(texts) == 60 and not texts & set(SEEDS)
    reasons = {record["reason"].split(" (")[0].split()[0] for record in rejects}
    assert reasons == {"too_short", "near_duplicate", "unfinished"} and all("topic" not in record for record in rejects)
    assert any("near_duplicate of example sentence " in record["reason"] for record in rejects)
    synthetic = [prompt for prompt in asked if set(shown(prompt)) & texts]
    assert len(synthetic) >= 5 and all(len(set(shown(prompt)) & texts) == 2 for prompt in synthetic)
    settings = json.loads((folder / "settings_generate.json").read_text())
    assert settings["filters"] == ["binary", "too_short"] and settings["lag"] == LAG
    counts = json.loads((folder / "manifest_generate.json").read_text())["counts"]["Basque"]
    assert counts["kept"] == 60 and counts["rejected"]["unfinished"] >= 1


@pytest.mark.parametrize("concurrent", [1, 3, 16])
def test_requests_in_flight_and_the_order_of_responses_change_nothing(whole, tmp_path, concurrent):
    rng = random.Random(concurrent)
    with Writer(delay=lambda _: rng.random() / 50) as server:
        datagen(*command(server, tmp_path, "--max_concurrent_requests", concurrent))
    assert contents(tmp_path) == contents(whole[0])
    assert server.most_in_flight <= min(concurrent, LAG)


class Engine:
    """A sampler with room for `room` requests and a clock of its own; `busy` adds up the requests in flight over time."""

    def __init__(self, room: int):
        self.room, self.now, self.busy = room, 0.0, 0.0

    def generate(self, next_request, settings):
        in_flight, rng = [], random.Random(1)
        while True:
            while len(in_flight) < self.room and (request := next_request()) is not None:
                seconds = 4.0 if rng.random() < 0.05 else rng.uniform(0.5, 1.5)
                heapq.heappush(in_flight, (self.now + seconds, request.id))
            if not in_flight:
                return
            end, name = heapq.heappop(in_flight)
            self.busy += (end - self.now) * (len(in_flight) + 1)
            self.now = end
            words = random.Random(name)
            texts = [f"{n}. {' '.join(words.sample(WORDS, 12)).capitalize()}." for n in range(5, 21)]
            yield Answer(name, ["\n\n##\n\n".join(texts)], 10, 20)

    def finish(self) -> None: ...


def test_an_engine_is_kept_busy(tmp_path):
    """One response in twenty takes four times as long as the others. The prompts of eight steps leave no room empty that is a
    quarter of them; those of four steps would leave a third empty."""
    words = flags(tmp_path, "--number_of_instructions", 12000, "--request_batch_size", 16, "--threshold", 1)
    config, engine = GenerationConfig(build_parser().parse_args([str(word) for word in words])), Engine(32)
    with Progress("test", None, "paragraphs") as progress, Generation(config, progress) as generation:
        generation.run(engine, SamplingSettings())
    assert generation.target_reached and engine.busy / (engine.room * engine.now) > 0.9


def same_files(folder, whole) -> bool:
    return all(
        (folder / name).read_bytes() == (whole / name).read_bytes() for name in ("Basque.jsonl", "Basque_rejects.jsonl")
    )


@pytest.mark.medium
def test_killed_and_stopped_at_random_moments(whole, tmp_path):
    """kill -9 and SIGTERM, each a few times: the files are byte for byte those of the run that nothing disturbed, and no
    prompt is another."""
    rng, answers = random.Random(5), tmp_path / "Basque_answers.jsonl"
    with Writer(delay=lambda _: 0.05 + rng.random() / 20) as server:
        for sent in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
            goal = lines_in(answers) + rng.randint(1, 4)
            words = [sys.executable, "datagen.py", *map(str, command(server, tmp_path, "--max_concurrent_requests", 4))]
            with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                while process.poll() is None and lines_in(answers) < goal:
                    time.sleep(0.005)
                time.sleep(rng.random() / 20)
                process.send_signal(sent)
                assert process.wait() in (-9, 143)
        datagen(*command(server, tmp_path, "--max_concurrent_requests", 4))
    assert same_files(tmp_path, whole[0])
    ids = [record["id"] for record in records(answers)]
    assert len(ids) == len(set(ids)) and len(ids) > LAG + 4


def test_languages_one_by_one_or_together(whole, tmp_path):
    per_language = ("--number_of_instructions", 0, "--number_of_instructions_per_language", 60)
    for folder, groups in (("together", [("Basque", "Hausa")]), ("apart", [("Hausa",), ("Basque",)])):
        for names in groups:
            with Writer(delay=lambda _: random.random() / 100) as server:
                datagen(*command(server, tmp_path / folder, *per_language, "--languages", *names))
    assert contents(tmp_path / "together") == contents(tmp_path / "apart")
    assert same_files(tmp_path / "together", whole[0]) and same_files(tmp_path / "apart", whole[0])


@pytest.mark.skipif(not has_apertium(), reason="Apertium with its Basque-English pair is not installed")
def test_the_stages_after_it_need_no_topics(tmp_path, tiny_lm):
    with Writer() as server:
        words = flags(tmp_path, "--base_url", server.url("openai"), "--back_translator", "apertium")
        del words[(at := words.index("--stages")) : at + 2]
        datagen(*words)
    folder = tmp_path / "apertium"
    pairs = records(folder / "Basque_translate.jsonl")
    assert len(pairs) == 60 and sum(len(record["scores"]) for record in pairs) >= 10
    assert (
        in_process(
            "decontamination.py", "--input_dir", folder, "--languages", "Basque", "--benchmarks", "udhr"
        ).returncode
        == 0
    )
    assert any(record["propositions"] for record in records(folder / "Basque_translate_filtered.jsonl"))
    more = ("--target_languages", "Basque", "--test_size_ratio", 2, "--output_dir", tmp_path / "train", "--dry_run")
    result = in_process(
        "train.py", "--model_name_or_path", tiny_lm, "--dataset_name_or_path", "topxgen", "--data_dir", folder, *more
    )
    assert result.returncode == 0 and re.search(
        r"[1-9]\d* training and 2 held-out pairs", result.stdout + result.stderr
    ), result


def test_a_larger_target_goes_on_as_if_it_had_been_the_first(whole, tmp_path):
    with Writer() as server:
        for number in (7, 31, 60):
            datagen(*command(server, tmp_path, "--number_of_instructions", number))
    assert same_files(tmp_path, whole[0])


def test_a_refused_prompt_is_asked_again_and_the_others_stay(tmp_path):
    """The fifth request is refused and the quota ends at the sixteenth: the prompts after it were made without the fifth."""
    with Writer() as server:
        server.faults = lambda _, attempt: {5: (400, "bad", "refused")}.get(attempt, "quota" if attempt > 15 else None)
        datagen(*command(server, tmp_path, "--max_concurrent_requests", 1), check=4)
    answers, kept = records(tmp_path / "Basque_answers.jsonl"), (tmp_path / "Basque.jsonl").read_text()
    (failed,) = [record["id"] for record in answers if record.get("error")]
    with Writer() as server:
        datagen(*command(server, tmp_path, "--max_concurrent_requests", 1))
    again = records(tmp_path / "Basque_answers.jsonl")
    ids = [record["id"] for record in again]
    assert again[: len(answers)] == answers and [name for name in set(ids) if ids.count(name) > 1] == [failed]
    assert (tmp_path / "Basque.jsonl").read_text().startswith(kept) and lines_in(tmp_path / "Basque.jsonl") == 60
    assert any(record["id"].startswith(f"{failed}.") for record in records(tmp_path / "Basque.jsonl"))
    assert not any(record["reason"] == "answer_failed" for record in records(tmp_path / "Basque_rejects.jsonl"))


def test_other_numbers_of_passages_do_not_mix(whole, datagen_here):
    for more in (("--number_of_icl_synthetic_demonstrations", 1), ("--request_batch_size", 2), ("--max_samples", 30)):
        with Writer() as server:
            result = datagen_here(*command(server, whole[0], *more))
        assert result.returncode == 2 and "holds results of other settings (" in result.stderr and not server.arrivals


# Bad input


@pytest.mark.parametrize(
    "more, message",
    [
        (("--number_of_icl_demonstrations", 0), "--number_of_icl_demonstrations 0: self-instruct shows 1 to 19 passages of a list of 20"),
        (("--number_of_icl_demonstrations", 20), "--number_of_icl_demonstrations 20: self-instruct shows 1 to 19"),
        (("--number_of_icl_synthetic_demonstrations", 5), "5 is more than the 4 passages of a prompt: pass at most 4, or a larger"),
        (("--max_samples", 3), "udhr has 3 seed sentences in Basque (--max_samples 3), but a prompt shows 4"),
        (("--example_sentences", "FEW"), "has 3 seed sentences in Basque, but a prompt shows 4: pass more, or"),
        (("--example_sentences", "TWICE"), "1 of the 5 seed sentences in Basque are there twice, such as 'Bigarren esaldia.'"),
        (("--example_sentences", "/nowhere"), "no sentences in Basque in '/nowhere'"),
        (("--prompt_template", "instruct"), "has no text 'passage'"),
        (("--example_paragraphs", "udhr"), "--example_paragraphs has no effect without --data_generation_pipeline topxgen"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_before_anything_runs(tmp_path, datagen_here, more, message):
    lines = ["Lehen esaldia.", "Bigarren esaldia.", "Hirugarren esaldia."]
    for name, content in (("FEW", lines), ("TWICE", [*lines, "Laugarren esaldia.", lines[1]])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Basque.txt").write_text("\n".join(content))
    more = [tmp_path / word if word in ("FEW", "TWICE") else word for word in more]
    with ApiServer() as server:
        result = datagen_here(*command(server, tmp_path / "out", *more))
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert result.stderr.count("error:") == 1 and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists() and not server.arrivals


def test_flags_of_published_commands_are_named_in_one_line(tmp_path, datagen_here):
    more = ("--seed_topics_path", "x.txt", "--number_of_icl_phrases", 4, "--number_of_generations_per_step", 2)
    result = datagen_here(*flags(tmp_path, *more, "--dry_run"))
    assert result.returncode == 0
    line = (
        "--number_of_generations_per_step, --seed_topics_path have no effect without --data_generation_pipeline topxgen"
    )
    assert (
        line.split(",")[0] in result.stderr
        and "have no effect without --data_generation_pipeline topxgen" in result.stderr
    )


def test_a_dry_run_shows_stand_ins_for_what_is_not_written_yet(tmp_path, datagen_here):
    result = datagen_here(*flags(tmp_path / "out", "--dry_run"))
    assert result.returncode == 0 and not (tmp_path / "out").exists()
    later = result.stdout.partition("--- a later prompt\n")[2].partition("\n---")[0]
    assert later.count("[a passage that was kept before, ") == 2 and len(shown(later)) == 4
    assert "60 paragraphs wanted, 16 a prompt: 4 prompts if all are kept" in result.stdout
    assert "at most 8 prompts of a language are in flight; the first ones, as many, show seeds alone" in result.stdout
    result = datagen_here(*flags(tmp_path / "out", "--dry_run", "--example_sentences", "flores"))
    assert result.returncode == 0 and "[an example sentence, " in result.stdout and "not checked: " in result.stderr
