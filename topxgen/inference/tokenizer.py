"""Load a model's tokenizer, encode prompts and decode answers with it."""

from collections.abc import Sequence
from itertools import chain, groupby

from topxgen.common.hub import hub_call
from topxgen.inference import ModelSettings
from topxgen.text import thoughts

TAIL_TOKENS = 32  # of a prompt, enough for the mark that begins thoughts


def load_tokenizer(settings: ModelSettings):
    """The model's tokenizer, without the model. Raises UsageError if it does not load."""
    from transformers import AutoTokenizer

    name = settings.tokenizer_name_or_path or settings.model_name_or_path
    return hub_call(name, lambda: AutoTokenizer.from_pretrained(name, trust_remote_code=settings.trust_remote_code))


def decode(tokenizer, rows: Sequence[Sequence[int]]) -> list[str]:
    """The texts of token ids, without special tokens but the marks of thoughts; spaces before punctuation stay as the model
    wrote them."""
    marks = thought_marks(tokenizer)

    def texts(rows: Sequence[Sequence[int]]) -> list[str]:
        return tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    if marks.keys().isdisjoint(chain(*rows)):
        return texts(rows)
    return [
        "".join(
            marks[key] if key in marks else texts([list(run)])[0]
            for key, run in groupby(row, lambda token: token if token in marks else None)
        )
        for row in rows
    ]


def thought_marks(tokenizer) -> dict[int, str]:
    """The special tokens that mark where thoughts begin and end."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).items()
    return {number: token.content for number, token in added if token.special and thoughts.is_mark(token.content)}


def begun_thoughts(tokenizer, prompt: Sequence[int]) -> str:
    """The mark at the end of a prompt that begins thoughts, as some chat templates do; else ""."""
    return thoughts.begun_in(tokenizer.decode(prompt[-TAIL_TOKENS:], skip_special_tokens=False))


def encode(tokenizer, prompt: str | list[dict[str, str]]) -> list[int]:
    """Token ids of a prompt: plain text, or chat messages through the chat template."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    return list(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False))
