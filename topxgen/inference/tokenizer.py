"""Load a model's tokenizer, encode prompts and decode responses with it."""

import math
import re
import resource
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from itertools import chain, groupby

from topxgen.common.errors import UsageError, reason
from topxgen.common.hub import hub_call
from topxgen.common.signals import time_limit
from topxgen.inference import ModelSettings
from topxgen.inference.costs import estimated_tokens
from topxgen.text import thoughts

TAIL_TOKENS = 32  # of a prompt, enough for the mark that begins thoughts
# Of a chat template, which is a program: for one prompt, and to write one word.
TEMPLATE_S, TEMPLATE_CHARS, TEMPLATE_BYTES = 10.0, 1_000_000, 4 << 30
# Some templates (Llama 3.2, gpt-oss) tell the model today's date. Here it is always that of Llama 3.1's template, or a run that is
# resumed on another day would have other prompts.
_CHAT = {"add_generation_prompt": True, "strftime_now": datetime(2024, 7, 26).strftime}


def load_tokenizer(settings: ModelSettings):
    """The model's tokenizer, without the model. Raises UsageError if it does not load."""
    from transformers import AutoTokenizer

    name = settings.tokenizer_name_or_path or settings.model_name_or_path

    def load():
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=settings.trust_remote_code)
        tokenizer("a")  # some values of its files, such as the longest input, are not looked at before
        return tokenizer

    return hub_call(name, load)


def check_vocabulary(tokens: Iterable[int], config, model: str) -> None:
    """Raise UsageError if a model has no embeddings for one of its tokenizer's tokens: it would read past their end."""
    if (largest := max(tokens, default=0)) >= (size := vocabulary_size(config)):
        raise UsageError(
            f"tokenizer and model do not match: the tokenizer has a token {largest}, {model} only {size} tokens; check "
            "--tokenizer_name_or_path, or save the model again with embeddings for all tokens"
        )


def vocabulary_size(config) -> float:
    """The number of a model's embeddings; infinity if it is not known: code of the model's own may name it otherwise."""
    size = getattr(config.get_text_config(), "vocab_size", None)
    return math.inf if size is None else size


def replace_missing_padding(tokenizer, config) -> None:
    """Pad with the end token where a decoder LM has no embedding for the padding token, such as a [PAD] that somebody has added; no result
    depends on it, since padding is masked."""
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= vocabulary_size(config):
        tokenizer.pad_token = tokenizer.eos_token


def chat_template(settings: ModelSettings) -> str | dict[str, str] | None:
    """The chat template of the model's tokenizer, or several by name. Raises UsageError for one that fails, has no end, or leaves messages out."""
    tokenizer = load_tokenizer(settings)
    if not tokenizer.chat_template:
        return None
    soft, hard = limits = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as file:
        room = int(file.read().split()[0]) * resource.getpagesize() + TEMPLATE_BYTES
    with _template_errors(tokenizer):
        try:
            resource.setrlimit(resource.RLIMIT_AS, (room if soft == resource.RLIM_INFINITY else soft, hard))
            text = tokenizer.apply_chat_template([{"role": "user", "content": "Kaixo"}], **_CHAT, tokenize=False)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
        if "Kaixo" not in text or len(text) > TEMPLATE_CHARS:
            raise ValueError(f"it writes {len(text):,} characters for the message 'Kaixo', {text[:60]!r} ...")
    return tokenizer.chat_template


@contextmanager
def _template_errors(tokenizer) -> Iterator[None]:
    """Turn whatever a chat template does into a UsageError."""
    try:
        with time_limit(TEMPLATE_S):
            yield
    except Exception as error:
        why = str(error) if type(error) in (ValueError, TimeoutError) else reason(error)
        raise UsageError(
            f"the chat template of {tokenizer.name_or_path} cannot be used ({why}); repair its chat_template.jinja (or the one in "
            "tokenizer_config.json), or pass another --tokenizer_name_or_path, or --prompt_style raw"
        ) from None


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


def up_to_end(row: list[int], ends: Collection[int]) -> list[int]:
    """`row` up to the token that ended it, which is no special token in every tokenizer."""
    return row[: next((i for i, token in enumerate(row) if token in ends), len(row))]


def begun_thoughts(tokenizer, prompt: Sequence[int]) -> str:
    """The mark at the end of a prompt that begins thoughts, as some chat templates do; else ""."""
    return thoughts.begun_in(tokenizer.decode(prompt[-TAIL_TOKENS:], skip_special_tokens=False))


def encode(tokenizer, prompt: str | list[dict[str, str]]) -> list[int]:
    """Token ids of a prompt: plain text as in training, or chat messages through the chat template.

    Special tokens come from the tokenizer's beginning and from the chat template alone: "</s>" in a sentence is text.
    """
    if isinstance(prompt, str):
        return tokens_before(tokenizer) + plain_ids(tokenizer, [prompt])[0]
    special = special_tokens(tokenizer)
    with _template_errors(tokenizer):
        if any(_mentions(message["content"], special) for message in prompt):
            return _chat_ids(tokenizer, prompt, special)
        return list(tokenizer.apply_chat_template(prompt, **_CHAT, tokenize=True, return_dict=False))


def count_tokens(tokenizer, prompt: str | list[dict[str, str]]) -> int:
    """Of a prompt; about, where there is no tokenizer (None)."""
    return estimated_tokens(prompt) if tokenizer is None else len(encode(tokenizer, prompt))


def plain_ids(tokenizer, texts: list[str], control: frozenset[int] = frozenset(), side="text") -> list[list[int]]:
    """Token ids of texts in which no special token has a meaning, nor one of `control`.

    `side`: "text_target" for the target side of a tokenizer with two vocabularies.
    """
    if not texts:
        return []
    # Marian's tokenizer reads all of ">>Kaixo<<, esan zuen" up to << as a language.
    if hasattr(tokenizer, "remove_language_code"):
        texts = [f" {text}" if text.startswith(">>") else text for text in texts]
    rows = tokenizer(**{side: texts}, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    control = control | _not_in_texts(tokenizer)
    return [
        row if control.isdisjoint(row) else list(_spelled(tokenizer, row, control, text))
        for row, text in zip(rows, texts, strict=True)
    ]


@lru_cache(maxsize=8)
def _not_in_texts(tokenizer) -> frozenset[int]:
    """The special tokens, except for the one of unknown characters."""
    return frozenset(number for number, _ in special_tokens(tokenizer).values()) - {tokenizer.unk_token_id}


def _spelled(tokenizer, row: list[int], control: frozenset[int], text: str) -> Iterator[int]:
    """The ids of `text` with tokens of `control` as their characters: a unigram model finds them in a text like any word."""
    for token in row:
        if token in control and (name := tokenizer.convert_ids_to_tokens(token)) in text:
            yield from tokenizer.convert_tokens_to_ids(list(name))
        else:
            yield token


@lru_cache(maxsize=8)
def tokens_before(tokenizer) -> list[int]:
    """The tokens that the tokenizer puts before a text (BOS, or none). Those it puts after a text are not used."""
    plain, full = plain_ids(tokenizer, ["a"])[0], list(tokenizer("a")["input_ids"])
    return next((full[:i] for i in range(len(full)) if full[i : i + len(plain)] == plain), [])


@lru_cache(maxsize=8)
def special_tokens(tokenizer) -> dict:
    """The tokenizer's special tokens by their texts; some have thousands."""
    added, named = getattr(tokenizer, "added_tokens_decoder", {}).items(), getattr(tokenizer, "all_special_ids", ())
    # Tokenizers in Python (ByT5's, some of remote code) do not flag their EOS.
    return {token.content: (number, token) for number, token in added if token.special or number in named}


@lru_cache(maxsize=8)
def thought_marks(tokenizer) -> dict[int, str]:
    """The special tokens that mark where thoughts begin and end."""
    return {number: name for name, (number, _) in special_tokens(tokenizer).items() if thoughts.is_mark(name)}


def _mentions(text: str, special: dict) -> bool:
    return any(char in text for char in {name[0] for name in special}) and any(name in text for name in special)


def _chat_ids(tokenizer, messages: list[dict[str, str]], special: dict) -> list[int]:
    """Token ids of messages that mention special tokens, which the template must not take for its own."""
    texts = "".join(message["content"] for message in messages)
    free = (char for char in map(chr, range(0xF0000, 0xFFFFE)) if char not in texts)  # private use
    masks = dict(zip(_by_length(special, texts), free, strict=False))

    def masked(text: str) -> str:
        for name, char in masks.items():
            text = text.replace(name, char)
        return text

    hidden = [message | {"content": masked(message["content"])} for message in messages]
    rendered = tokenizer.apply_chat_template(hidden, **_CHAT, tokenize=False)
    names = re.compile("|".join(map(re.escape, _by_length(special, rendered))) or "$^")
    pieces, found = names.split(rendered), names.findall(rendered)
    unmasked = str.maketrans({char: name for name, char in masks.items()})
    ids: list[int] = []
    for before, piece, after in zip([None, *found], pieces, [*found, None], strict=True):
        piece = piece.lstrip() if before and special[before][1].rstrip else piece
        piece = piece.rstrip() if after and special[after][1].lstrip else piece
        ids += _inner_ids(tokenizer, piece.translate(unmasked), before) + ([special[after][0]] if after else [])
    return ids


def _inner_ids(tokenizer, text: str, before: str | None) -> list[int]:
    """Token ids of a text behind the special token `before`, where some tokenizers begin no new word."""
    begins_a_word = before is None or _begin_alike(tokenizer, before)
    for guard in () if begins_a_word else ("\n", "|", "\t"):  # one that does not merge with the text
        alone, joined = plain_ids(tokenizer, [guard, guard + text])
        if joined[: len(alone)] == alone:
            return joined[len(alone) :]
    return plain_ids(tokenizer, [text])[0]


@lru_cache(maxsize=8)
def _begin_alike(tokenizer, special: str) -> bool:
    """Whether the tokens of a word are the same at the beginning of a text and behind a special token."""
    return tokenizer(f"{special}a", add_special_tokens=False)["input_ids"][1:] == plain_ids(tokenizer, ["a"])[0]


def _by_length(special: dict, text: str) -> list[str]:
    """The special tokens in `text`, the longest first."""
    return sorted((name for name in special if name in text), key=len, reverse=True)
