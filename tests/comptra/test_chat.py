"""main.py with models that have a chat template: a small one on this machine, and those behind an API."""

import json
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from zlib import crc32

import pytest

from comptra import answer_parsing
from tests.support.api_server import KEY, ApiServer
from tests.support.main_runs import folder_of, options, texts, udhr
from tests.support.runs import in_process, lines_in, records, script
from tests.support.tiny_lm import give_chat_template
from tests.support.tiny_models import udhr_texts
from topxgen.prompting.mt_templates import chat_prompt
from topxgen.retrieval import create

SENTENCES = 2


@pytest.fixture
def chat(tiny_chat, monkeypatch):
    monkeypatch.setattr("comptra.methods.conversation.THOUGHT_TOKENS", 24)
    monkeypatch.setattr("comptra.methods.maps.KNOWLEDGE_TOKENS", 24)
    return partial(in_process, "main.py", *options(tiny_chat, prompt_style=None, max_samples=SENTENCES))


def requests() -> list[list[dict]]:
    """What a chat model is asked for the first sentences, with two demonstrations."""
    data = udhr(SENTENCES)
    rows = create("bm25s", [source for source, _ in data.pool], data.src).nearest(data.sources, 2)
    shots = [[data.pool[i] for i in reversed(row)] for row in rows]
    return [chat_prompt("English", "Basque", *item) for item in zip(shots, data.sources, strict=True)]


def test_it_is_asked_through_its_own_template(chat, tiny_chat, tmp_path):
    """The same prompts rendered by the tokenizer and continued by transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = chat("--output_dir", tmp_path)
    assert result.returncode == 0, result.stderr
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_chat), AutoModelForCausalLM.from_pretrained(tiny_chat)
    expected = []
    for messages in requests():
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        new = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        expected.append(answer_parsing.line(tokenizer.decode(new, skip_special_tokens=True)))
    found = texts(folder_of(tmp_path, tiny_chat) / "translate_0.jsonl")
    assert found == expected and any(found)
    told = chat("--output_dir", tmp_path / "told", "--template_key", 14, "--dry_run")
    assert "--template_key 14 is not used" in told.stderr and '"role": "user"' in told.stdout


@pytest.mark.parametrize(
    "flags",
    [
        ("--method_translate", "cot"),
        ("--method_translate", "step_by_step"),
        ("--method_translate", "TEaR", "--number_of_refining_steps", 1),
        ("--steps", 1, "--max_new_tokens_divide", 40, "--merge_prompt", "refine"),
    ],
    ids=lambda flags: " ".join(map(str, flags)),
)
def test_methods_end_to_end(flags, chat, tiny_chat, tmp_path):
    result = chat("--output_dir", tmp_path, *flags)
    assert result.returncode == 0, result.stderr
    (path,) = (tmp_path / Path(tiny_chat).name).glob("*/translate_0.jsonl")
    assert texts(path, "sentence") == udhr(SENTENCES).sources
    asked = lines_in(path.parent / "answers.jsonl")
    again = chat("--output_dir", tmp_path, *flags)
    assert again.returncode == 0 and "loading" not in again.stderr
    assert lines_in(path.parent / "answers.jsonl") == asked


def test_maps_chooses_by_blaser(chat, tiny_chat, tmp_path):
    """Encoder and regressor in the published layouts, with random weights."""
    from tests.support.tiny_sonar import build_blaser, build_sonar

    sonar = build_sonar(tmp_path / "sonar", udhr_texts("English")[:60] + udhr_texts("Basque")[:60])
    blaser = build_blaser(tmp_path / "model.pt")
    flags = ("--sonar_name_or_path", sonar, "--blaser_name_or_path", blaser, "--method_translate", "maps")
    result = chat("--output_dir", tmp_path / "out", *flags)
    assert result.returncode == 0 and result.stderr.count("loading") == 1, result.stderr
    folder = folder_of(tmp_path / "out", tiny_chat)
    # Three questions, three translations with what was found, one without.
    assert lines_in(folder / "answers.jsonl") == 7 * SENTENCES
    said = {answer_parsing.line(text) for row in texts(folder / "answers.jsonl", "texts") for text in row} - {""}
    found = texts(folder / "translate_0.jsonl")
    assert len(found) == SENTENCES and set(found) <= said


def test_a_server_that_speaks_openais_api(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    flags = options("org/chat", prompt_style=None, max_samples=SENTENCES, inference_api="openai", dtype=None)
    with ApiServer() as server:
        run = partial(in_process, "main.py", *flags, "--base_url", server.url("openai"))
        result = run("--output_dir", tmp_path)
        assert result.returncode == 0, result.stderr
        asked = [body["messages"] for body in server.bodies]
        assert sorted(map(json.dumps, asked)) == sorted(map(json.dumps, requests()))
        folder = folder_of(tmp_path, "chat")
        # It repeats what it is asked.
        assert texts(folder / "translate_0.jsonl") == [
            answer_parsing.line(f"answer to {messages[-1]['content']}") for messages in requests()
        ]
        written = "".join(path.read_text() for path in folder.iterdir() if path.is_file())
        assert KEY not in written + result.stderr and server.url("openai") in written
        assert run("--output_dir", tmp_path).returncode == 0 and len(server.bodies) == SENTENCES
        raw = run("--output_dir", tmp_path / "raw", "--prompt_style", "raw")
        assert raw.returncode == 0 and server.bodies[-1]["prompt"].endswith("\nBasque translation\n")


@pytest.mark.parametrize(
    ("flags", "lengths"),
    [
        ((), {500: 2}),
        (("--number_of_refining_steps", 2), {500: 2, 1500: 4}),
        (("--number_of_refining_steps", 2, "--max_new_tokens", 2000), {2000: 6}),
        (("--number_of_refining_steps", 1, "--max_new_tokens_merge", 600), {500: 2, 600: 2}),
        (("--steps", 1), {500: 4, 1500: 2}),
        (("--steps", 1, "--refine_after_merge"), {500: 4, 1500: 4}),
        (("--steps", 1, "--refine_after_merge", "true"), {500: 4, 1500: 4}),
        (("--steps", 1, "--refine_after_merge", 2), {500: 4, 1500: 6}),
        (("--steps", 1, "--refine_after_merge", "false"), {500: 4, 1500: 2}),
        (("--steps", 1, "--refine_after_merge", 2, "--number_of_refining_steps", 1), {500: 4, 1500: 4 + 2 + 4}),
    ],
)
def test_length_and_number_of_what_is_asked(flags, lengths, tmp_path, monkeypatch):
    """By default 500 new tokens, and 1,500 for merges and refinements."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    common = options(
        "org/chat", prompt_style=None, max_samples=2, inference_api="openai", dtype=None, k=None, max_new_tokens=None,
        max_new_tokens_merge=None, method_divide="space", number_of_subproblems=2, steps=0,
    )  # fmt: skip
    with ApiServer(respond=lambda prompt: f"answer {crc32(prompt.encode())}") as server:
        result = in_process("main.py", *common, *flags, "--base_url", server.url("openai"), "--output_dir", tmp_path)
        assert result.returncode == 0, result.stderr
        assert Counter(body["max_tokens"] for body in server.bodies) == lengths
    assert "_0_shot_" in next((tmp_path / "chat").glob("*/translate_0.jsonl")).parent.name


@pytest.mark.medium
def test_every_version_of_a_refined_translation_is_kept(tmp_path, monkeypatch):
    """Drafts of phrases and merges, and those between refining steps; a run that lost them makes them again from its responses."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    flags = options(
        "org/chat", prompt_style=None, max_samples=3, inference_api="openai", dtype=None, k=None, max_new_tokens=None,
        method_divide="space", number_of_subproblems=2, steps=1, number_of_refining_steps=1, refine_after_merge=2,
    )  # fmt: skip
    with ApiServer() as server:
        flags = (*flags, "--base_url", server.url("openai"), "--output_dir", tmp_path)
        assert in_process("main.py", *flags).returncode == 0
        (folder,) = (path.parent for path in (tmp_path / "chat").glob("*/translate_0.jsonl"))
        kept = {path.name: path.read_bytes() for path in folder.glob("draft_*.jsonl")}
        assert kept.keys() == {"draft_0.jsonl", "draft_0_1.jsonl", "draft_1.jsonl"}
        assert texts(folder / "draft_0.jsonl", "sentence") == texts(folder / "translate_0.jsonl", "sentence")
        assert len(texts(folder / "draft_1.jsonl")) == 6 and all(texts(folder / "draft_1.jsonl"))
        for name in ("draft_0.jsonl", "draft_0_1.jsonl"):
            (folder / name).unlink()
        lines = (folder / "translate_0.jsonl").read_bytes().splitlines(keepends=True)
        (folder / "translate_0.jsonl").write_bytes(lines[0])  # as if it was killed, by a version that kept no drafts
        asked = len(server.bodies)
        assert in_process("main.py", *flags).returncode == 0 and len(server.bodies) == asked
        assert (folder / "translate_0.jsonl").read_bytes() == b"".join(lines)
        assert texts(folder / "draft_0_1.jsonl")[0] is None, "the first sentence was not made again"
        assert (folder / "draft_0_1.jsonl").read_bytes().splitlines()[1:] == kept["draft_0_1.jsonl"].splitlines()[1:]


def test_refine_after_merge_of_older_versions(tiny_lm, tmp_path):
    """It refined merges instead of phrases: such a run is not continued, one without it is."""
    flags = options(tiny_lm, "--steps", 1, "--method_divide", "space", "--output_dir", tmp_path, max_samples=1)
    assert in_process("main.py", *flags).returncode == 0
    path = folder_of(tmp_path, tiny_lm, divide="space", steps=1) / "settings_translate.json"
    settings = json.loads(path.read_text())
    del settings["max_new_tokens_merge"]
    path.write_text(json.dumps(settings | {"refine_after_merge": False}))
    assert in_process("main.py", *flags).returncode == 0
    path.write_text(json.dumps(settings | {"refine_after_merge": True}))
    before = path.with_name("translate_0.jsonl").read_bytes()
    assert in_process("main.py", *flags, "--refine_after_merge").returncode == 0
    assert path.with_name("translate_0.jsonl").read_bytes() == before
    own = path.parent.with_name(f"{path.parent.name}_1-merge-refinements") / path.name
    assert json.loads(own.read_text())["refine_after_merge"] == 1


def test_what_nllb_translated_is_on_disk_before_it_is_refined(chat, tiny_chat, tiny_nllb, tmp_path):
    flags = ("--method_translate", "nllb", "--nllb_name_or_path", tiny_nllb, "--nllb_compute_type", "float32")
    flags = (
        *flags,
        "--cache_dir",
        tmp_path / "cache",
        "--number_of_refining_steps",
        1,
        "--output_dir",
        tmp_path / "out",
    )
    flags = (*flags, "--src", "Basque", "--tgt", "English")
    assert chat(*flags).returncode == 0
    (path,) = (tmp_path / "out").glob("*/*/draft_0.jsonl")
    refined = path.with_name("translate_0.jsonl")
    before = refined.read_bytes()
    assert all(texts(path)) and texts(path, "sentence") == texts(refined, "sentence")
    refined.unlink()  # as if it was killed while refining; what is on disk is taken as it is
    line = records(path)[0] | {"translation": "Everyone has rights."}
    path.write_text("".join(json.dumps(row) + "\n" for row in (line, *records(path)[1:])))
    assert chat(*flags).returncode == 0 and refined.read_bytes().splitlines()[1:] == before.splitlines()[1:]


def test_a_sentence_that_an_api_refuses_does_not_keep_the_others_waiting(tmp_path, monkeypatch):
    """Its division is asked for twice; then it is translated undivided, and the others in phrases."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    refused = udhr(3).sources[1]
    flags = options("org/chat", "--steps", 1, prompt_style=None, max_samples=3, inference_api="openai", dtype=None, k=0)
    flags += ["--max_concurrent_requests", 1]  # so that the last body is the one that is answered
    with ApiServer() as server:
        server.faults = lambda name, attempt: "context" if refused in json.dumps(server.bodies[-1]) else None
        run = partial(in_process, "main.py", *flags, "--base_url", server.url("openai"), "--output_dir", tmp_path)
        first = run()
        assert first.returncode == 2 and "1 of 3 sentences could not be divided" in first.stderr, first.stderr
        second = run()
        assert (
            second.returncode == 3
            and "1 of 3 sentences could not be divided in two runs and are translated whole" in second.stderr
        ), second.stderr
        path = folder_of(tmp_path, "chat", k=0, steps=1) / "translate_0.jsonl"
        assert [bool(line.get("unanswered")) for line in records(path)] == [False, True, False]
        server.faults = lambda name, attempt: None
        assert run().returncode == 0 and "unanswered" not in path.read_text() and all(texts(path))


@pytest.mark.parametrize(
    ("api", "more", "message"),
    [
        ("openai", ("--num_beams", 2), "--num_beams 2: APIs have no beam search"),
        ("openai", ("--repetition_penalty", 1.2), ""),
        ("anthropic", ("--temperature", 1, "--top_p", 0.9, "--method_translate", "TEaR"), ""),
        ("cohere", ("--repetition_penalty", 1.2), "Cohere has no such parameter"),
        ("anthropic", ("--num_return_sequences", 2, "--temperature", 1), "gives one answer to a prompt"),
        ("cohere", ("--prompt_style", "raw"), "cohere has chat models only"),
    ],
)
def test_what_an_api_cannot_do_is_told_before_anything_is_asked(api, more, message, tmp_path, monkeypatch):
    for variable in ("OPENAI_API_KEY", "CO_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(variable, KEY)
    flags = options("org/chat", *more, prompt_style=None, max_samples=1, inference_api=api, dtype=None)
    with ApiServer() as server:
        address = ("--base_url", server.url(api))
        result = in_process(
            "main.py", *flags, *address, "--steps", 1, "--method_divide", "llm", "--output_dir", tmp_path / "out"
        )
        assert message in result.stderr and "Traceback" not in result.stderr
        assert (result.returncode == 2) == bool(message) == (not server.arrivals)
        assert (tmp_path / "out").exists() == (not message)


def test_what_stands_before_a_translation():
    said = "<think>Let me say: Here it is:</think>\nHere it is:\nKaixo mundua."
    assert answer_parsing.line(said) == "Kaixo mundua."
    assert answer_parsing.list_items("1.One thing\n2、另一件事\n3.Third") == ["One thing", "另一件事", "Third"]
    assert answer_parsing.list_items("1. It is 1.5 m\n2. At 12:30") == ["It is 1.5 m", "At 12:30"]
    assert answer_parsing.list_items("1.5 metres\n12:30 sharp") == ["1.5 metres", "12:30 sharp"]


def test_thoughts_that_the_prompt_began():
    assert answer_parsing.translation("so</think>Translation: bai", "Translation:") == "bai"
    assert answer_parsing.translation("<think>Translation: not yet", "Translation:") == ""
    assert answer_parsing.list_items("<think>1. not yet") == []
    assert answer_parsing.list_items("hm</think>1. one\n2. two") == ["one", "two"]


@pytest.mark.slow
def test_chats_with_vllm_are_those_of_transformers(gemma, tmp_path):
    """Gemma with a chat template in the tokenizer, in float32: few-shot, and CompTra with llm division."""
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree(gemma, tokenizer, ignore=shutil.ignore_patterns("*.safetensors"))
    give_chat_template(tokenizer)
    found = {}
    for api in ("vllm", "hf"):
        for more in ((), ("--steps", 1, "--max_new_tokens_divide", 48)):
            flags = options(
                gemma, *more, prompt_style=None, inference_api=api, max_samples=SENTENCES, max_new_tokens=16
            )
            script(
                "main.py",
                *flags,
                "--tokenizer_name_or_path",
                tokenizer,
                "--output_dir",
                tmp_path / api / str(len(more)),
            )
        found[api] = {path.parts[-4]: texts(path) for path in (tmp_path / api).glob("*/*/*/translate_0.jsonl")}
    assert len(found["hf"]) == 2 and found["vllm"] == found["hf"]
