"""NLLB through datagen.py's translator against a plain `generate` loop, at the shape of NLLB-200-distilled-600M.

    python scripts/perf/nllb_speed.py --ntrex benchmarks/NTREX-128 --sentences 64

A model with random weights never ends a sentence, and forced lengths hide the benefit of sorting by length. So one encoder
and one decoder layer of the full width are trained on NTREX-128 Basque to English (--minutes) and then grown to the full
shape: 11 more layers on each side whose outputs are scaled down until they change nothing, and the vocabulary filled up to
256,206 tokens that are never the best. The translations and their lengths are those of the trained model; the work is that
of the full one. The model is kept in --folder.

Sentences whose translation does not end within the limit (an int8 pass over three times as many finds them) are excluded:
those of a fully trained model do end, and the plain loop would look slower than it is.

The plain loop takes 16 sentences in file order, pads them, and calls transformers' `generate` in float32 with 5 beams.
Tokens are counted without padding. Also printed: how many translations are equal, and chrF against the reference, which
shows the effect of int8.
"""

import sys
import tempfile
import time
from pathlib import Path

from measuring import command_line, ntrex

from tests.support import tiny_models
from topxgen import translation
from topxgen.text import languages
from topxgen.translation import TranslatorSettings

HELD_OUT = 200
FULL = dict(vocab_size=256206, encoder_layers=12, decoder_layers=12)
NOTHING = 1e-4  # a grown layer's share of what a fresh one adds


def config(**changes):
    from transformers import M2M100Config

    width = dict(d_model=1024, encoder_ffn_dim=4096, decoder_ffn_dim=4096, max_position_embeddings=1024)
    heads = dict(encoder_attention_heads=16, decoder_attention_heads=16)
    dropout = dict(dropout=0.1, attention_dropout=0.0, encoder_layerdrop=0.0, decoder_layerdrop=0.0)
    other = dict(scale_embedding=True, activation_function="relu", decoder_start_token_id=2)
    return M2M100Config(**width | heads | dropout | other | changes)


def build(folder: Path, pairs: list[tuple[str, str]], minutes: float) -> None:
    """Train the small one and save it grown."""
    import torch
    from transformers import M2M100ForConditionalGeneration

    tokenizer = tiny_models.nllb_tokenizer([text for pair in pairs for text in pair], 6000)
    torch.manual_seed(0)
    small = M2M100ForConditionalGeneration(config(vocab_size=len(tokenizer), encoder_layers=1, decoder_layers=1))
    began = time.monotonic()
    tiny_models.train(small, tokenizer, pairs[:64], "eus_Latn", "eng_Latn", 3, 1e-5, 16)
    steps = int(minutes * 60 / (time.monotonic() - began) * 3)
    print(f"training one layer a side for {steps} steps", flush=True)
    tiny_models.train(small, tokenizer, pairs, "eus_Latn", "eng_Latn", steps, 5e-4, 16)
    grown = M2M100ForConditionalGeneration(config(**FULL)).eval()
    with torch.no_grad():
        for side in ("encoder", "decoder"):
            ours, theirs = getattr(grown.model, side), getattr(small.model, side)
            ours.layer_norm.load_state_dict(theirs.layer_norm.state_dict())
            ours.layers[0].load_state_dict(theirs.layers[0].state_dict())
            for layer in ours.layers[1:]:
                for name, parameter in layer.named_parameters():
                    if "out_proj" in name or "fc2" in name:
                        parameter.mul_(NOTHING)
        # The further tokens point away from all that the decoder says.
        tokenizer.src_lang = "eus_Latn"
        batch = tokenizer(
            [a for a, _ in pairs[:32]], text_target=[b for _, b in pairs[:32]], padding=True, return_tensors="pt"
        )
        hidden = small(**batch, output_hidden_states=True).decoder_hidden_states[-1].flatten(0, 1)
        mean = hidden.mean(0)
        along = hidden @ mean / mean.norm()
        known = small.get_input_embeddings().weight
        embeddings = grown.get_input_embeddings().weight
        embeddings[:] = -30 / along.min().clamp(min=0.5) * mean / mean.norm()
        embeddings[: len(known)] = known
    grown.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def plain_loop(folder: str, sentences: list[str]) -> tuple[list[str], float]:
    """(translations, seconds): 16 as they come."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, src_lang="eus_Latn")
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=False, dtype=torch.float32).eval()
    texts, began = [], time.monotonic()
    for start in range(0, len(sentences), 16):
        inputs = tokenizer(sentences[start : start + 16], padding=True, return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(
                **inputs,
                num_beams=5,
                early_stopping=True,
                forced_bos_token_id=tokenizer.convert_tokens_to_ids("eng_Latn"),
                max_new_tokens=2 * inputs["input_ids"].shape[1],
            )
        texts += [text.strip() for text in tokenizer.batch_decode(output, skip_special_tokens=True)]
    return texts, time.monotonic() - began


def ours(folder: str, sentences: list[str], engine: str, compute_type: str, cache: str) -> tuple[list[str], float]:
    source, target = languages.find("Basque"), languages.find("English")
    settings = TranslatorSettings(
        nllb_name_or_path=folder, nllb_engine=engine, nllb_compute_type=compute_type, cache_dir=cache
    )
    translator = translation.create("nllb", settings)
    translator.load()
    began = time.monotonic()
    texts = [translation.text for translation in translator.translate(sentences, source, target)]
    seconds = time.monotonic() - began
    translator.close()
    return texts, seconds


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--ntrex", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=64, help="of the held-out ones, at most 200")
    parser.add_argument("--minutes", type=float, default=10, help="of training, once")
    parser.add_argument("--folder", type=Path, default=Path("models/nllb-600m-shape"))
    args = parser.parse_args()

    from transformers import AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    pairs = list(zip(*ntrex(args.ntrex, "Basque", "English"), strict=True))
    if not (args.folder / "model.safetensors").exists():
        build(args.folder, pairs[:-HELD_OUT], args.minutes)
    tokenizer = AutoTokenizer.from_pretrained(args.folder, trust_remote_code=False)
    folder = str(args.folder)

    def tokens(texts: list[str]) -> int:
        return sum(len(ids) + 1 for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])

    with tempfile.TemporaryDirectory(dir=args.folder.parent) as cache:
        candidates = pairs[-HELD_OUT:][: 3 * args.sentences]
        texts, _ = ours(folder, [basque for basque, _ in candidates], "ctranslate2", "int8", cache)
        # A limit is twice the source and more, so what is no longer than the source came to its end.
        ended = [
            pair for pair, text in zip(candidates, texts, strict=True) if text and tokens([text]) <= tokens([pair[0]])
        ]
        compare(folder, ended[: args.sentences], tokens, cache)
    return 0


def compare(folder: str, pairs: list[tuple[str, str]], tokens, cache: str) -> None:
    from sacrebleu import CHRF

    sentences, references = map(list, zip(*pairs, strict=True))
    expected, seconds = plain_loop(folder, sentences)
    plain = tokens(expected) / seconds
    lengths = sorted(tokens([text]) for text in expected)
    print(
        f"{len(sentences)} sentences, answers of {lengths[0]} to {lengths[-1]} tokens (median {lengths[len(lengths) // 2]})\n"
        f"plain loop, float32: {plain:.1f} tokens/s, chrF {CHRF().corpus_score(expected, [references]).score:.2f}",
        flush=True,
    )
    for compute_type in ("float32", "int8"):
        texts, seconds = ours(folder, sentences, "ctranslate2", compute_type, cache)
        same = sum(a == b for a, b in zip(texts, expected, strict=True))
        score = CHRF().corpus_score(texts, [references]).score
        rate = tokens(texts) / seconds
        print(
            f"ctranslate2, {compute_type}: {rate:.1f} tokens/s, {rate / plain:.2f} times the plain loop; {same} of "
            f"{len(texts)} answers the same; chrF {score:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
