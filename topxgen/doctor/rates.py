"""Rates of the stages, as docs/hardware.md ("Past one machine") uses them, and the doctor until a run has measured its own."""

from typing import NamedTuple

from topxgen.doctor.arithmetic import CARDS, DECODING_SHARE, IN_FLIGHT

CPU, GPU, TEXT, USER = "measured: one core", "estimate: H100", "the texts", "assumed"


class Rate(NamedTuple):
    """`source`: what was measured, or how the rate was estimated."""

    value: float
    unit: str
    source: str


H100, GEMMA_27B = CARDS["H100"].flops, 27.4e9
RATES = {
    # What texts are like
    "tokens_per_paragraph": Rate(300, "new tokens of the LLM", f"{TEXT}: 140 words, the mean of 8 languages of the UDHR by Gemma 3's tokenizer (Urdu 180, Xhosa 489)"),
    "paragraphs_per_response": Rate(2, "paragraphs", f"{TEXT}: the default prompt"),
    "sentences_per_paragraph": Rate(7, "pairs", f"{TEXT}: 20 words each"),
    "tokens_per_sentence": Rate(30, "tokens", f"{TEXT}: in English, by NLLB"),
    # Engines
    "llm_tokens": Rate(round(IN_FLIGHT * DECODING_SHARE * CARDS["H100"].bandwidth / (2 * GEMMA_27B)), "new tokens/s per GPU", f"{GPU}: Gemma 3 27B in bf16, a third of the bandwidth's limit at {IN_FLIGHT} sequences"),
    "prompt_tokens": Rate(250, "tokens per response", f"{TEXT}: the default prompt in Basque with the UDHR, by datagen.py --dry_run"),
    "prefilled_tokens": Rate(0.4 * H100 / (2 * GEMMA_27B), "tokens/s per GPU", f"{GPU}: Gemma 3 27B, 40 % of the peak, none from the prefix cache"),
    "nllb_tokens": Rate(0.1 * H100 / (2 * 1.6e9 * 5), "tokens/s per GPU", f"{GPU}: NLLB-200-3.3B, decoder, 5 beams, 10 % of the peak"),
    "scored_pairs": Rate(0.3 * H100 / (2 * 0.5e9 * 70), "pairs/s per GPU", f"{GPU}: SONAR's layers, 70 tokens a pair, 30 % of the peak"),
    "trained_tokens": Rate(0.4 * H100 / (6 * 8e9), "tokens/s per GPU", f"{GPU}: Llama-3-8B in full, 40 % of the peak"),
    # One process each
    "loop_ms": Rate(0.24, "ms per response", f"{CPU}: coordinator.py, all but near-duplicates"),
    "exact_us": Rate(83, "µs per paragraph", f"{CPU}: dedup_speed.py, exact, what does not grow"),
    "exact_us_per_100k": Rate(284, "µs per paragraph for each 100,000 kept in its language", f"{CPU}: dedup_speed.py, exact"),
    "minhash_us": Rate(100, "µs per paragraph", f"{CPU}: dedup_speed.py, minhash"),
    "minhash_us_per_100k": Rate(5.5, "µs per paragraph for each 100,000 kept in its language", f"{CPU}: dedup_speed.py, minhash"),
    "exact_bytes": Rate(2_100, "bytes of memory per paragraph", f"{CPU}: dedup_speed.py, exact"),
    "minhash_bytes": Rate(2_000, "bytes of memory per paragraph", f"{CPU}: dedup_speed.py, minhash, 100,000 to 1 million paragraphs"),
    "merged_responses": Rate(230_000, "responses/s", f"{CPU}: merge.py; each is then judged as one run does"),
    "merged_lines": Rate(59_000, "paragraphs' lines of pairs/s", f"{CPU}: merge.py"),
    "decontaminated_pairs": Rate(94_748, "pairs/s per core", f"{CPU}: decontamination_speed.py, four benchmarks; flat memory"),
    # Disk
    "generated_bytes": Rate(2_460, "bytes per paragraph", "measured: responses, paragraphs and rejects of coordinator.py, Latin script"),
    "pair_bytes": Rate(471, "bytes per pair", "measured: translations of decontamination_speed.py; again after decontamination"),
    # Yours
    "usd_per_gpu_hour": Rate(2.5, "USD", USER),
    "cores_per_gpu": Rate(8, "cores", USER),
}  # fmt: skip
