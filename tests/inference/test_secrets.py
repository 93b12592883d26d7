"""Keys reach no file, no log line and no other host."""

import pytest

from tests.comptra.test_chat import folder_of, options
from tests.support.api_runs import chats, run
from tests.support.api_server import KEY, ApiServer
from tests.support.runs import in_process
from topxgen import inference
from topxgen.common.errors import UsageError
from topxgen.inference import REMOTE, ModelSettings


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/v1?api_key=S3CRET",
        "http://127.0.0.1:1/v1?version=1&access_token=S3CRET",
        "http://127.0.0.1:1/v1#key=S3CRET",
        "http://127.0.0.1:1/v1;api_key=S3CRET",
        "http://127.0.0.1:1/v1?x=1&to%6ben%3DS3CRET",
        "ftp://127.0.0.1/v1;x=S3CRET",
        "http://user:S3CRET@127.0.0.1:1/v1",
        "user:S3CRET@127.0.0.1:1/v1",
        "127.0.0.1:1/v1?api_key=S3CRET",
        "ftp://127.0.0.1/v1?x=S3CRET",
    ],
)
@pytest.mark.parametrize("api", REMOTE)
def test_an_address_with_a_key_is_refused_without_repeating_it(api, url):
    with pytest.raises(UsageError) as raised:
        inference.check(api, ModelSettings("m", api_key=KEY, base_url=url))
    assert "S3CRET" not in str(raised.value) and "--base_url" in str(raised.value)


def test_an_address_with_a_key_reaches_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    flags = options("org/chat", prompt_style=None, max_samples=1, inference_api="openai", dtype=None)
    for more in ((), ("--dry_run",)):
        result = in_process(
            "main.py", *flags, "--base_url", "http://localhost:1/v1?api_key=S3CRET", "--output_dir", tmp_path, *more
        )
        assert result.returncode == 2 and "contains a key (api_key=…)" in result.stderr
        assert "S3CRET" not in result.stderr + result.stdout and not list(tmp_path.iterdir())


@pytest.mark.parametrize("api", REMOTE)
def test_a_key_in_an_answer_is_taken_out(api):
    with ApiServer(respond=lambda prompt: f"You sent {KEY}.") as server:
        [answer], ending, _ = run(api, server, chats(1))
    assert ending is None and answer.texts == ["You sent [key]."]


@pytest.mark.parametrize(
    "key, kept", [("x", True), ("test", True), ("EMPTY", True), ("2024", True), ("k3y-k3y-", False)]
)
def test_a_key_that_may_be_a_word_takes_nothing_out_of_answers(key, kept):
    with ApiServer(key=key, respond=lambda prompt: f"Next {key} and test.") as server:
        [answer], ending, _ = run("openai", server, chats(1), api_key=key)
    assert ending is None and (answer.texts == [f"Next {key} and test."]) == kept


def test_a_key_in_an_answer_reaches_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    flags = options("org/chat", prompt_style=None, max_samples=1, inference_api="openai", dtype=None)

    def edit(_, body):
        body["choices"][0]["finish_reason"] = KEY
        return body, None

    with ApiServer(respond=lambda prompt: f"Kaixo {KEY}.", edit=edit) as server:
        result = in_process("main.py", *flags, "--base_url", server.url("openai"), "--output_dir", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Kaixo [key]." in (folder_of(tmp_path, "chat") / "translate_0.jsonl").read_text()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    "url, key, warned",
    [
        ("http://gpu17:8000/v1", KEY, True),
        ("http://10.0.0.7:8000/v1", KEY, True),
        ("https://gpu17/v1", KEY, False),
        ("http://127.0.0.2:8000/v1", KEY, False),
        ("http://[::1]:8000/v1", KEY, False),
        ("http://localhost:8000/v1", KEY, False),
        ("http://gpu17:8000/v1", None, False),
    ],
)
def test_a_key_over_plain_http(url, key, warned, caplog):
    inference.check("openai", ModelSettings("m", api_key=key, base_url=url))
    assert ("is sent to http://" in caplog.text) == warned
