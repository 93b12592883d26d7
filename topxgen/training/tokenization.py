"""Pairs as token ids: what a decoder LM or an encoder-decoder model is trained on, and where the loss lies.

A decoder reads the tokens of the prompt that it will be asked with, then those of the answer and EOS (SPEC section
6, template 14). The two are told apart by tokens, not by characters: the prompt's tokens are just those that
inference sends, whatever a tokenizer would like to merge across the joint.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from topxgen.common.errors import UsageError
from topxgen.prompting.mt_templates import MTTemplate, get_template
from topxgen.text import languages
from topxgen.training.pairs import Pair

BATCH = 4096  # texts handed to the tokenizer at once
NO_TEMPLATE = "none"  # prompt and answer joined as they stand


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of many texts, end to end.

    `ids` int32 [tokens]; `ends` int64 [texts], where each text ends; `prompts` int32 [texts], how many tokens at its
    beginning are the prompt's; `too_long` has (number, tokens) of each pair that was left out.
    """

    ids: np.ndarray
    ends: np.ndarray
    prompts: np.ndarray
    too_long: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.ends, prepend=0)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.ids[(self.ends[i - 1] if i else 0) : self.ends[i]]


class CausalTokenizer:
    """Encodes pairs for a decoder LM by an MT template.

    Raises UsageError when there is no EOS, or `eos_token_id` is no token of the model's.
    """

    def __init__(
        self,
        tokenizer,
        template_key: str,
        vocab_size: int,
        eos_token_id: int | None = None,
        languages_file: str | None = None,
    ):
        self._tokenizer, self._template_key, self._languages_file = tokenizer, template_key, languages_file
        self.eos = tokenizer.eos_token_id if eos_token_id is None else eos_token_id
        if self.eos is None:
            raise UsageError("the tokenizer has no EOS token, and answers would never end; pass --eos_token_id")
        if not 0 <= self.eos < vocab_size:
            raise UsageError(f"--eos_token_id {self.eos} is no token of the model, which has {vocab_size}")
        self._before = _tokens_before(tokenizer)

    def parts(self, pair: Pair) -> tuple[str, str]:
        """The prompt as inference asks it, and what is to be learned after it; together the training text."""
        if not pair.src:
            return "", pair.target
        template = self.template(pair)
        if template is None:
            return pair.source, pair.target
        prompt = template.get_prompt([], pair.source)
        whole = template.header + template.prefix + pair.source + template.middle
        return prompt, whole[len(prompt) :] + pair.target

    def template(self, pair: Pair) -> MTTemplate | None:
        """The MT template of a pair's direction; None where texts are learned as they stand."""
        if self._template_key == NO_TEMPLATE:
            return None
        return get_template(self._template_key, pair.src, pair.tgt, extra=self._languages_file)

    def prompt_ids(self, prompts: list[str]) -> list[list[int]]:
        """Token ids of prompts, with what the tokenizer puts before every text (BOS)."""
        return [self._before + ids for ids in _ids(self._tokenizer, prompts)]

    def encode(self, pairs: Sequence[Pair], max_length: int | None = None) -> TokenizedTexts:
        """Every pair of at most `max_length` tokens; longer ones are left out whole, never cut."""

        def rows(batch: Sequence[Pair]):
            parts = [self.parts(pair) for pair in batch]
            prompts = _ids(self._tokenizer, [prompt for prompt, _ in parts])
            texts = _ids(self._tokenizer, [prompt + answer for prompt, answer in parts])
            for (_, answer), prompt, text in zip(parts, prompts, texts, strict=True):
                if text[: len(prompt)] != prompt:
                    prompt, text = _joined(self._tokenizer, prompt, text, answer)
                yield [*self._before, *text, self.eos], len(self._before) + len(prompt)

        return _gather(pairs, rows, max_length)


class Seq2SeqTokenizer:
    """Encodes pairs for an encoder-decoder model: sources as `prompts`, targets behind them (see `side`).

    A side begins with the tokens that name the languages, where the model's family has such, and ends with EOS. One
    that is longer than `max_length` is cut at its end, EOS kept (SPEC section 6); `cut` counts them.
    """

    def __init__(self, tokenizer, language_tokens, max_length: int, languages_file: str | None = None):
        self._tokenizer, self._tokens, self.max_length = tokenizer, language_tokens, max_length
        self._languages_file = languages_file
        self.cut = 0

    def prefixes(self, pair: Pair) -> tuple[list[int], list[int]]:
        """Token ids that the source and the target of a pair begin with. Raises UsageError for an unknown language."""
        source, target = (languages.find(name, self._languages_file) for name in (pair.src, pair.tgt))
        return self._tokens.prefixes(source, target)

    def encode(self, pairs: Sequence[Pair]) -> TokenizedTexts:
        prefixes: dict[tuple[str, str], tuple[list[int], list[int]]] = {}

        def rows(batch: Sequence[Pair]):
            sources = _ids(self._tokenizer, [pair.source for pair in batch])
            targets = _ids_of_targets(self._tokenizer, [pair.target for pair in batch])
            for pair, source, target in zip(batch, sources, targets, strict=True):
                direction = (pair.src, pair.tgt)
                if direction not in prefixes:
                    prefixes[direction] = self.prefixes(pair)
                before_source, before_target = prefixes[direction]
                first, second = self._side(before_source, source), self._side(before_target, target)
                yield first + second, len(first)

        return _gather(pairs, rows, None)

    def source_ids(self, pair: Pair) -> list[int]:
        return self._side(self.prefixes(pair)[0], _ids(self._tokenizer, [pair.source])[0])

    def _side(self, before: list[int], ids: list[int]) -> list[int]:
        room = self.max_length - len(before) - 1
        self.cut += len(ids) > room
        return [*before, *ids[:room], self._tokenizer.eos_token_id]


def _gather(
    pairs: Sequence[Pair], rows: Callable[[Sequence[Pair]], Iterable], max_length: int | None
) -> TokenizedTexts:
    chunks, lengths, prompts, too_long = [], [], [], []
    for start in range(0, len(pairs), BATCH):
        flat: list[int] = []
        for number, (ids, prompt) in enumerate(rows(pairs[start : start + BATCH]), start=start):
            if max_length is not None and len(ids) > max_length:
                too_long.append((number, len(ids)))
                continue
            flat += ids
            lengths.append(len(ids))
            prompts.append(prompt)
        chunks.append(np.array(flat, dtype=np.int32))
    ids = np.concatenate(chunks) if chunks else np.zeros(0, np.int32)
    return TokenizedTexts(
        ids,
        np.cumsum(lengths, dtype=np.int64),
        np.array(prompts, dtype=np.int32),
        tuple(too_long),
    )


def _ids(tokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids alone. What looks like a special token in a text is text."""
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]


def _ids_of_targets(tokenizer, texts: list[str]) -> list[list[int]]:
    """The same for the target side, for which Marian has another SentencePiece model."""
    if not texts or not hasattr(tokenizer, "spm_target"):
        return _ids(tokenizer, texts)
    options = dict(add_special_tokens=False, split_special_tokens=True, verbose=False)
    return tokenizer(text_target=texts, **options)["input_ids"]


def _tokens_before(tokenizer) -> list[int]:
    """What the tokenizer puts before every text: BOS, or nothing. What it would put behind is put there by us."""
    plain, full = _ids(tokenizer, ["a"])[0], list(tokenizer("a")["input_ids"])
    for start in range(len(full)):
        if full[start : start + len(plain)] == plain:
            return full[:start]
    return []


def _joined(tokenizer, prompt: list[int], text: list[int], answer: str) -> tuple[list[int], list[int]]:
    """The prompt's own tokens and after them the answer's, where the tokenizer merges across the joint.

    An answer on its own may gain a word boundary that it has not in the text; so it is also tried behind a
    character that no tokenizer merges. Where nothing gives the text back, the merged token counts as answer.
    """
    wanted = tokenizer.decode(text)
    for guard in ("", "\n", "\t", "|"):
        before = _ids(tokenizer, [guard])[0] if guard else []
        ids = _ids(tokenizer, [guard + answer])[0]
        if ids[: len(before)] == before and tokenizer.decode(prompt + ids[len(before) :]) == wanted:
            return prompt, prompt + ids[len(before) :]
    shared = next(
        (i for i, (a, b) in enumerate(zip(prompt, text, strict=False)) if a != b), min(len(prompt), len(text))
    )
    return prompt[:shared], text
