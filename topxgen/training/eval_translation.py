"""Greedy translations of held-out pairs by the model in training, and their scores.

For small numbers of sentences, decoded with transformers; main.py evaluates finished models on benchmarks.
"""

from collections.abc import Sequence

from topxgen.inference.batching import batching
from topxgen.inference.neutral_decoding import neutral_decoding
from topxgen.inference.tokenizer import decode, up_to_end
from topxgen.prompting.answers import clean_answer
from topxgen.retrieval.ngram_similarity import bleu_tokenizer_name
from topxgen.text import languages
from topxgen.training.packing import attention_mask, pad
from topxgen.training.pairs import Pair, by_direction
from topxgen.training.tokenization import CausalTokenizer, Seq2SeqTokenizer

BATCH_SENTENCES = 16
EXTRA_TOKENS = 16  # a translation has at most twice the tokens of its source or reference, and these


def choose(pairs: Sequence[Pair], per_direction: int) -> list[Pair]:
    """The first `per_direction` pairs of each direction, in their order; no raw text."""
    chosen = [i for indices in by_direction(pairs).values() for i in indices[:per_direction] if pairs[i].src]
    return [pairs[i] for i in sorted(chosen)]


def score(pairs: Sequence[Pair], answers: Sequence[str]) -> dict[str, float]:
    """chrF++ and BLEU (sacreBLEU's defaults; the tokenizer that fits the script) of each direction, and their means over
    directions."""
    import sacrebleu

    metrics: dict[str, float] = {}
    for direction, indices in by_direction(pairs).items():
        hypotheses, references = [answers[i] for i in indices], [[pairs[i].target for i in indices]]
        metrics[f"chrf_{direction}"] = sacrebleu.corpus_chrf(hypotheses, references, word_order=2).score
        language = languages.load().get(pairs[indices[0]].tgt)  # the user's own: None
        tokenize = bleu_tokenizer_name(language) if language else "13a"
        metrics[f"bleu_{direction}"] = sacrebleu.corpus_bleu(hypotheses, references, tokenize=tokenize).score
    for name in ("chrf", "bleu"):
        values = [value for key, value in metrics.items() if key.startswith(f"{name}_")]
        if values:
            metrics[name] = sum(values) / len(values)
    return {key: round(value, 2) for key, value in metrics.items()}


def translate(
    model,
    tokenizer,
    pair_tokenizer: CausalTokenizer | Seq2SeqTokenizer,
    pairs: Sequence[Pair],
    rank: int = 0,
    world: int = 1,
    synced: bool = False,
    half: bool = False,
) -> dict[int, str]:
    """Translations of the pairs' sources by their index, those that fall to process `rank` of `world`.

    All processes decode the same number of batches. `synced`: the weights are sharded (ZeRO-3), so all processes must also
    take the same number of steps in each. `half`: see batching.
    """
    import torch

    if is_decoder := isinstance(pair_tokenizer, CausalTokenizer):
        rows = pair_tokenizer.prompt_ids([pair_tokenizer.prompt_and_target(pair)[0] for pair in pairs])
    else:
        rows = [pair_tokenizer.source_ids(pair) for pair in pairs]
    batches = _batches(pairs, rows, BATCH_SENTENCES if not is_decoder or batching(model, half).prompts else 1)
    share = [batches[i % len(batches)] for i in range(rank, -(-len(batches) // world) * world, world)]
    answers: dict[int, str] = {}
    for batch in share:
        options = dict(
            max_new_tokens=_limit(tokenizer, [pairs[i] for i in batch]),
            num_beams=1,
            do_sample=False,
            use_cache=True,
            synced_gpus=synced,
        )
        batch_rows = [rows[i] for i in batch]
        with torch.no_grad(), neutral_decoding(model):
            if is_decoder:
                texts = _generate_causal(model, tokenizer, pair_tokenizer, batch_rows, options)
            else:
                texts = _generate_seq2seq(model, tokenizer, pair_tokenizer, pairs[batch[0]], batch_rows, options)
        for i, text in zip(batch, texts, strict=True):
            template = pair_tokenizer.template(pairs[i]) if is_decoder else None
            answers[i] = clean_answer(text, template.stop if template else None) if is_decoder else text.strip()
    return answers


def _limit(tokenizer, pairs: Sequence[Pair]) -> int:
    """New tokens at most; of both sides, since Burmese has a multiple of the tokens of English."""
    texts = [text for pair in pairs for text in (pair.source, pair.target)]
    return 2 * max(map(len, tokenizer(texts)["input_ids"])) + EXTRA_TOKENS


def _batches(pairs: Sequence[Pair], rows: list[list[int]], size: int) -> list[list[int]]:
    """Indices of pairs in batches of up to `size`, of one direction and similar length."""
    batches: list[list[int]] = []
    for _, indices in sorted(by_direction(pairs).items()):
        indices.sort(key=lambda i: len(rows[i]))
        batches += [indices[start : start + size] for start in range(0, len(indices), size)]
    return batches


def _generate_causal(model, tokenizer, pair_tokenizer: CausalTokenizer, rows: list[list[int]], options: dict):
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else pair_tokenizer.eos
    line_break = tokenizer("\n", add_special_tokens=False)["input_ids"][-1:]
    # An answer is one line. Tokenizers without a line break (XGLM's) read it as the space before digits, say.
    ends = {pair_tokenizer.eos, *(line_break if "\n" in tokenizer.decode(line_break) else ())}
    ids, mask = (made.to(model.device) for made in (pad(rows, padding, "left"), attention_mask(rows, "left")))
    output = model.generate(
        input_ids=ids, attention_mask=mask, eos_token_id=sorted(ends), pad_token_id=padding, **options
    )
    return decode(tokenizer, [up_to_end(row, ends) for row in output[:, ids.shape[1] :].tolist()])


def _generate_seq2seq(
    model, tokenizer, pair_tokenizer: Seq2SeqTokenizer, pair: Pair, rows: list[list[int]], options: dict
):
    import torch

    prefix = [model.config.decoder_start_token_id, *pair_tokenizer.prefixes(pair)[1]]
    output = model.generate(
        input_ids=pad(rows, tokenizer.pad_token_id).to(model.device),  # by name: PEFT's models take no other
        attention_mask=attention_mask(rows).to(model.device),
        decoder_input_ids=torch.tensor([prefix] * len(rows), device=model.device),
        **options,
    )
    return decode(tokenizer, output[:, len(prefix) :])
