"""Pairs as token ids, for decoder LMs and for encoder-decoder models, with the boundary between prompt and target.

Prompt and target are tokenized so that training sees exactly the prompt tokens that inference sends, even where the
tokenizer would merge characters across the boundary.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from topxgen.common.errors import UsageError
from topxgen.common.lines import on_one_line
from topxgen.inference.tokenizer import plain_ids, tokens_before
from topxgen.prompting.mt_templates import MTTemplate, get_template
from topxgen.text import languages
from topxgen.training.pairs import Pair

TOKENIZER_BATCH_TEXTS = 4096
NO_TEMPLATE = "none"  # --template_key: source and target are concatenated as they are


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of many texts, concatenated.

    `ids` int32 [tokens]; `ends` int64 [texts], the end of each text; `prompts` int32 [texts], the number of its first tokens
    that are the prompt (for an encoder-decoder: the source); `too_long` has (pair number, tokens) of each skipped pair.
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
    """Tokenizes pairs for a decoder LM: BOS (if the tokenizer adds one), prompt, target, EOS.

    Raises UsageError if there is no EOS token or `eos_token_id` is not in the model's vocabulary.
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
            raise UsageError("the tokenizer has no EOS token, so answers would never end; pass --eos_token_id")
        if not 0 <= self.eos < vocab_size:
            raise UsageError(f"--eos_token_id {self.eos} is not in the model's vocabulary of {vocab_size} tokens")
        self._bos = tokens_before(tokenizer)

    def template(self, pair: Pair) -> MTTemplate | None:
        """The MT template for a pair's direction; None of raw text and with --template_key none."""
        if not pair.src or self._template_key == NO_TEMPLATE:
            return None
        return get_template(self._template_key, pair.src, pair.tgt, extra=self._languages_file)

    def prompt_and_target(self, pair: Pair) -> tuple[str, str]:
        """The prompt as inference sends it, and the text to learn after it; concatenated they are the training text."""
        template = self.template(pair)
        if template is None:
            return pair.source, pair.target
        source, target = on_one_line(pair.source), on_one_line(pair.target)  # as in test sets and in answers
        prompt = template.get_prompt([], source)
        full_prompt = template.header + template.prefix + source + template.middle
        return prompt, full_prompt[len(prompt) :] + target

    def prompt_ids(self, prompts: list[str]) -> list[list[int]]:
        """Token ids of prompts, BOS included."""
        return [self._bos + ids for ids in plain_ids(self._tokenizer, prompts)]

    def encode(self, pairs: Sequence[Pair], max_length: int | None = None) -> TokenizedTexts:
        """The pairs of at most `max_length` tokens; longer ones are skipped, never cut."""

        def rows(batch: Sequence[Pair]):
            parts = [self.prompt_and_target(pair) for pair in batch]
            prompts = plain_ids(self._tokenizer, [prompt for prompt, _ in parts])
            texts = plain_ids(self._tokenizer, [prompt + target for prompt, target in parts])
            for (_, target), prompt, text in zip(parts, prompts, texts, strict=True):
                if text[: len(prompt)] != prompt:
                    prompt, text = _split_merged_token(self._tokenizer, prompt, text, target)
                yield [*self._bos, *text, self.eos], len(self._bos) + len(prompt)

        return _concatenate(pairs, rows, max_length)


class Seq2SeqTokenizer:
    """Tokenizes pairs for an encoder-decoder model: sources as `prompts` of a TokenizedTexts, targets after them.

    Each side begins with its language tokens, if the model family has any, and ends with EOS. A side of more than
    `max_length` tokens is truncated, EOS kept; `truncated` counts them.
    """

    def __init__(self, tokenizer, language_tokens, max_length: int, languages_file: str | None = None):
        self._tokenizer, self._language_tokens, self.max_length = tokenizer, language_tokens, max_length
        self._languages_file = languages_file
        self.truncated = 0

    def prefixes(self, pair: Pair) -> tuple[list[int], list[int]]:
        """Language tokens of source and target. Raises UsageError for a language that the model does not have."""
        source, target = (languages.find(name, self._languages_file) for name in (pair.src, pair.tgt))
        return self._language_tokens.prefixes(source, target)

    def encode(self, pairs: Sequence[Pair]) -> TokenizedTexts:
        prefixes: dict[str, tuple[list[int], list[int]]] = {}  # by direction

        def rows(batch: Sequence[Pair]):
            sources = self._ids([pair.source for pair in batch])
            # Marian has a SentencePiece model of its own for the target side.
            side = "text_target" if hasattr(self._tokenizer, "spm_target") else "text"
            targets = self._ids([pair.target for pair in batch], side)
            for pair, source, target in zip(batch, sources, targets, strict=True):
                if pair.direction not in prefixes:
                    prefixes[pair.direction] = self.prefixes(pair)
                source_prefix, target_prefix = prefixes[pair.direction]
                source_row = self._side(source_prefix, source)
                yield source_row + self._side(target_prefix, target), len(source_row)

        return _concatenate(pairs, rows, None)

    def source_ids(self, pair: Pair) -> list[int]:
        return self._side(self.prefixes(pair)[0], self._ids([pair.source])[0])

    def _ids(self, texts: list[str], side: str = "text") -> list[list[int]]:
        return plain_ids(self._tokenizer, texts, self._language_tokens.ids, side)

    def _side(self, prefix: list[int], ids: list[int]) -> list[int]:
        room = self.max_length - len(prefix) - 1
        self.truncated += len(ids) > room
        return [*prefix, *ids[:room], self._tokenizer.eos_token_id]


def _concatenate(
    pairs: Sequence[Pair], rows: Callable[[Sequence[Pair]], Iterable], max_length: int | None
) -> TokenizedTexts:
    """The (ids, prompt tokens) that `rows` yields for each batch of pairs, as one TokenizedTexts."""
    chunks, lengths, prompts, too_long = [np.zeros(0, np.int32)], [], [], []
    for start in range(0, len(pairs), TOKENIZER_BATCH_TEXTS):
        flat: list[int] = []
        for number, (ids, prompt) in enumerate(rows(pairs[start : start + TOKENIZER_BATCH_TEXTS]), start=start):
            if max_length is not None and len(ids) > max_length:
                too_long.append((number, len(ids)))
                continue
            flat += ids
            lengths.append(len(ids))
            prompts.append(prompt)
        chunks.append(np.array(flat, dtype=np.int32))
    ends = np.cumsum(lengths, dtype=np.int64)
    return TokenizedTexts(np.concatenate(chunks), ends, np.array(prompts, dtype=np.int32), tuple(too_long))


def _split_merged_token(tokenizer, prompt: list[int], text: list[int], target: str) -> tuple[list[int], list[int]]:
    """(prompt tokens, prompt and target tokens) for a text in which a token spans the boundary between the two.

    Tokenized alone, the target may gain a word boundary that it does not have in the text, so it is also tried after a
    character that no tokenizer merges. If no attempt decodes to the text, the merged token counts as target.
    """
    expected = tokenizer.decode(text)
    for guard in ("", "\n", "\t", "|"):
        guard_ids = plain_ids(tokenizer, [guard])[0] if guard else []
        ids = plain_ids(tokenizer, [guard + target])[0]
        if ids[: len(guard_ids)] == guard_ids and tokenizer.decode(prompt + ids[len(guard_ids) :]) == expected:
            return prompt, prompt + ids[len(guard_ids) :]
    shortest = min(len(prompt), len(text))
    shared = next((i for i in range(shortest) if prompt[i] != text[i]), shortest)
    return prompt[:shared], text
