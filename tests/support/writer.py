"""Runs of datagen.py through a local server that writes Basque and Hausa paragraphs and translates them."""

import hashlib
import random
from collections import Counter

from tests.support import api_server
from tests.support.api_server import ApiServer
from tests.support.runs import TOPICS, datagen
from tests.support.tiny_models import udhr_texts

TEXTS = {name: udhr_texts(name) for name in ("Basque", "Hausa")}
ENGLISH = udhr_texts("English")


def digest(body: dict) -> str:
    return hashlib.sha256(body["messages"][-1]["content"].encode()).hexdigest()


class Writer(ApiServer):
    """Writes two Basque paragraphs about a topic, and translates into English whatever it is asked to. Counts the
    whole answers it gave to each prompt; says that the quota is spent after `quota` of them."""

    def __init__(self, quota: int | None = None, delay: float = 0.01):
        super().__init__(lambda *_: "quota" if quota is not None and self.given.total() >= quota else None, delay=delay)
        self.given = Counter()

    async def _reply(self, writer, path, body, *rest):
        before = self.delivered.total()
        went_on = await super()._reply(writer, path, body, *rest)
        self.given[digest(body)] += self.delivered.total() > before
        return went_on


def answer(path: str, body: dict, _) -> dict:
    rng = random.Random(digest(body))
    if "Translate this sentence" in body["messages"][-1]["content"]:
        text = rng.choice(ENGLISH).rstrip(".;,") + "."
    else:
        language = "Hausa" if "Hausa" in body["messages"][-1]["content"] else "Basque"
        text = "\n".join(f"{i}. " + " ".join(rng.sample(TEXTS[language], 3)) for i in (1, 2))
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}] * body.get("n", 1)
    return {"id": "x", "object": "o", "created": 1, "model": body["model"], "choices": choices, "usage": usage}


def serve(monkeypatch) -> None:
    """Let the server give these answers, to those who have its key."""
    monkeypatch.setattr(api_server, "answer", answer)
    monkeypatch.setenv("OPENAI_API_KEY", api_server.KEY)


def command(server, folder, *more):
    return (
        "--inference_api", "openai", "--base_url", server.url("openai"), "--model_name_or_path", "writer-1",
        "--languages", "Basque", "--seed_topics_path", TOPICS, "--output_dir", folder, "--example_paragraphs", "udhr",
        "--example_sentences", "udhr", "--number_of_icl_demonstrations", 1, "--number_of_icl_phrases", 2,
        "--number_of_instructions", 40, "--demonstration_pool", "udhr", "--scorer", "none", "--max_concurrent_requests", 6,
        "--price_per_million_tokens", 2, 10, *more,
    )  # fmt: skip


def generate(server, folder, *more, check=0):
    return datagen(*command(server, folder, "--stages", "generate", *more), check=check)


def shard(server, folder, index, count, *more, check=0):
    return generate(server, folder, "--num_shards", count, "--shard_index", index, *more, check=check)
