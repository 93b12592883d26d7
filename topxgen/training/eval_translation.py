"""Translations of held-out pairs by the model in training, and how good they are.

Greedy decoding through transformers, in batches of like length; small numbers of sentences. A benchmark of a
finished model is main.py's work.
"""

from collections.abc import Sequence

from topxgen.prompting.mt_templates import clean_answer
from topxgen.training.pairs import Pair
from topxgen.training.tokenization import CausalTokenizer, Seq2SeqTokenizer

BATCH = 16
SPARE_TOKENS = 16  # an answer has at most twice as many tokens as its source, and so many more


def choose(pairs: Sequence[Pair], per_direction: int) -> list[Pair]:
    """The first `per_direction` pairs of each direction; raw texts have none."""
    chosen: list[Pair] = []
    counts: dict[str, int] = {}
    for pair in pairs:
        key = pair.direction
        if pair.src and counts.get(key, 0) < per_direction:
            counts[key] = counts.get(key, 0) + 1
            chosen.append(pair)
    return chosen


def score(pairs: Sequence[Pair], answers: Sequence[str]) -> dict[str, float]:
    """chrF++ and BLEU (sacreBLEU's defaults) of each direction and, when there are several, their means."""
    import sacrebleu

    by_direction: dict[str, list[int]] = {}
    for i, pair in enumerate(pairs):
        by_direction.setdefault(pair.direction, []).append(i)
    metrics: dict[str, float] = {}
    for key, chosen in by_direction.items():
        ours, references = [answers[i] for i in chosen], [[pairs[i].target for i in chosen]]
        metrics[f"chrf_{key}"] = sacrebleu.corpus_chrf(ours, references, word_order=2).score
        metrics[f"bleu_{key}"] = sacrebleu.corpus_bleu(ours, references).score
    for name in ("chrf", "bleu"):
        values = [value for key, value in metrics.items() if key.startswith(f"{name}_")]
        if values:
            metrics[name] = sum(values) / len(values)
    return {key: round(value, 2) for key, value in metrics.items()}


def translate(
    model,
    tokenizer,
    encoder,
    pairs: Sequence[Pair],
    rank: int = 0,
    world: int = 1,
    synced: bool = False,
) -> dict[int, str]:
    """Translations of the sources of `pairs` by their numbers, those that fall to process `rank` of `world`.

    Every process decodes as many batches as the others. `synced`: the weights are sharded (ZeRO-3), so that all
    processes must also take as many steps in each.
    """
    import torch

    if decoder := isinstance(encoder, CausalTokenizer):
        rows = encoder.prompt_ids([encoder.parts(pair)[0] for pair in pairs])
    else:
        rows = [encoder.source_ids(pair) for pair in pairs]
    batches = _batches(pairs, rows)
    own = [batches[i % len(batches)] for i in range(rank, -(-len(batches) // world) * world, world)]
    answers: dict[int, str] = {}
    for batch in own:
        longest = max(len(ids) for ids in tokenizer([pairs[i].source for i in batch])["input_ids"])
        options = dict(
            max_new_tokens=2 * longest + SPARE_TOKENS,
            num_beams=1,
            do_sample=False,
            use_cache=True,
            synced_gpus=synced,
            # Sampling settings that a model brings along, taken back: with greedy decoding they only warn.
            temperature=None,
            top_p=None,
            top_k=None,
        )
        with torch.no_grad():
            if decoder:
                texts = _decoder(model, tokenizer, encoder, [rows[i] for i in batch], options)
            else:
                texts = _pairs(model, tokenizer, encoder, pairs[batch[0]], [rows[i] for i in batch], options)
        for i, text in zip(batch, texts, strict=True):
            answers[i] = _clean(text, pairs[i], encoder) if decoder else text.strip()
    return answers


def _batches(pairs: Sequence[Pair], rows: list[list[int]]) -> list[list[int]]:
    """Numbers of pairs in batches of one direction and like length."""
    order = sorted(range(len(pairs)), key=lambda i: (pairs[i].direction, len(rows[i])))
    batches: list[list[int]] = []
    for i in order:
        full = not batches or len(batches[-1]) == BATCH
        if full or pairs[batches[-1][0]].direction != pairs[i].direction:
            batches.append([])
        batches[-1].append(i)
    return batches


def _clean(text: str, pair: Pair, encoder: CausalTokenizer) -> str:
    template = encoder.template(pair)
    return clean_answer(text, template.stop if template else None)


def _decoder(model, tokenizer, encoder: CausalTokenizer, rows: list[list[int]], options: dict) -> list[str]:
    import torch

    longest = max(map(len, rows))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else encoder.eos
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=model.device)
    ends = {encoder.eos, *tokenizer("\n", add_special_tokens=False)["input_ids"][-1:]}  # an answer is one line
    output = model.generate(input_ids=ids, attention_mask=mask, eos_token_id=sorted(ends), pad_token_id=pad, **options)
    return tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True)


def _pairs(model, tokenizer, encoder: Seq2SeqTokenizer, pair: Pair, rows: list[list[int]], options: dict) -> list[str]:
    import torch

    longest = max(map(len, rows))
    pad = tokenizer.pad_token_id
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=model.device)
    prefix = [model.config.decoder_start_token_id, *encoder.prefixes(pair)[1]]
    options["forced_bos_token_id"] = None  # the prefix holds it
    output = model.generate(
        input_ids=ids,
        attention_mask=(
            torch.arange(longest, device=model.device) < torch.tensor([[len(row)] for row in rows], device=model.device)
        ).long(),
        decoder_input_ids=torch.tensor([prefix] * len(rows), device=model.device),
        **options,
    )
    return tokenizer.batch_decode(output[:, len(prefix) :], skip_special_tokens=True)
