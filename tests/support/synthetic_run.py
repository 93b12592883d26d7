"""A run as the stages leave it, of any size, without a model: for the page of a run, its tests and its measurements.

    python -m tests.support.synthetic_run OUT --pairs 100000

Texts are Zipf-distributed words of the UDHR and as many new ones, made of halves of these, as a corpus of that size has: they
mean nothing, and compress as real text does (`scripts/perf/report_speed.py` prints by how much). Everything else is real: the
formats are those of the writers, decontamination.py and comptra.evaluate run on the files.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import numpy as np
import regex

from tests.support.runs import ROOT, in_process
from tests.support.synthetic_training import train
from topxgen.common import lineage
from topxgen.common.files import open_partial, partial, to_line, write_json
from topxgen.common.provenance import command_line, digest, now, record_settings, versions
from topxgen.common.records import Layout
from topxgen.generation.manifests import write_manifests
from topxgen.text import languages

LANGUAGES = ("Basque", "Hausa", "Igbo", "Nepali", "Swahili", "Urdu", "N'ko", "Amharic", "Burmese", "Yoruba")
DIRECTIONS = (("Basque", "English"), ("Nepali", "English"), ("Urdu", "English"), ("English", "Basque"))
MAX_POOL = 60_000  # different sentences of a language; larger runs repeat them
VOCABULARY = 30_000
SCORER, MODEL, TRANSLATOR = "blaser (blaser-2.0-qe, SONAR, float32)", "google/gemma-3-27b-it", "facebook/nllb-200-3.3B"
MIN_SCORE = 2.5
TEXT_REASONS = (
    "too_few_words",
    "repeated_word_bigram",
    "repeated_word_pair",
    "repeated_character_bigram",
    "unfinished",
)
PAIR_REASONS = (
    "sentence_too_short", "sentence_other_language", "translation_too_short", "translation_other_language",
    "translation_no_full_stop", "translation_failed", "score_below_min",
)  # fmt: skip
PAIR_WEIGHTS = (0.25, 0.3, 0.05, 0.1, 0.15, 0.02, 0.13)
# Texts that a page must show as they are: (sentence, translation).
HOSTILE = (
    ("<script>window.hacked = 1</script> eta <img src=x onerror='window.hacked = 2'>.", "</script><script>window.hacked = 3</script>"),
    ("Begin \u202eevil txet\u202c end, and \u2066isolated\u2069.", "A \u200bzero-width\u200b space, and \u202eoverride that is left open."),
    ("'\"><svg/onload=window.hacked=4> {{7*7}} ${7*7} %s &amp; &lt;b&gt;", "javascript:window.hacked=5 \\u003cscript\\u003e <!-- -->"),
    ("Control \x01\x1b[31m characters and a private \ue000 one", "= cmd|' /C calc'!A0 \u2028 a line separator"),
)  # fmt: skip


@dataclass
class Made:
    """What was written: pairs by language, and counts of every kind of outcome."""

    folder: Path
    pairs: Counter = field(default_factory=Counter)
    outcomes: Counter = field(default_factory=Counter)


@cache
def words_of(language: str) -> tuple[str, ...]:
    """Distinct words, the most frequent ones first, `VOCABULARY` of them or fewer."""
    found = languages.find(language)
    path = ROOT / "data" / "udhr" / f"{found.flores}.tsv"
    if path.is_file():
        text = " ".join(line.partition("\t")[2] for line in path.read_text(encoding="utf-8").splitlines())
    else:  # N'Ko: syllables of its alphabet
        rng = np.random.default_rng(0)
        consonants, vowels = [chr(c) for c in range(0x7D3, 0x7E7)], [chr(c) for c in range(0x7CA, 0x7D1)]
        tones = ["", "", "\u07eb", "\u07ec", "\u07ed"]
        text = " ".join(
            "".join(rng.choice(part) for _ in range(rng.integers(1, 4)) for part in (consonants, vowels, tones))
            for _ in range(1500)
        )
    if found.script == "Mymr":  # written without spaces: runs of a few syllables
        text = " ".join("".join(run) for run in _runs(regex.findall(r"\X", text.replace(" ", "")), 3))
    counts = Counter(regex.findall(r"[\p{L}\p{M}\p{Cf}'’-]+", text.lower()))
    words = [word for word, _ in counts.most_common()]
    rng, known = np.random.default_rng(1), dict.fromkeys(words)
    halves = [regex.findall(r"\X", word) for word in words if len(word) > 3]
    while halves and len(known) < VOCABULARY:
        for i, j in rng.integers(len(halves), size=(VOCABULARY, 2)):
            known["".join(halves[i][: (len(halves[i]) + 1) // 2] + halves[j][len(halves[j]) // 2 :])] = None
    return tuple(islice(known, VOCABULARY))


def _runs(items: list[str], length: int) -> Iterator[list[str]]:
    for start in range(0, len(items), length):
        yield items[start : start + length]


def sentences(language: str, count: int, rng: np.random.Generator, mean_words: float = 16) -> list[str]:
    """`count` sentences of at least 40 characters, with the punctuation of the language."""
    found, words = languages.find(language), words_of(language)
    weights = 1 / (np.arange(len(words)) + 2.7) ** 0.8
    cumulative = np.cumsum(weights / weights.sum())
    lengths = np.clip(rng.lognormal(np.log(mean_words), 0.45, count).astype(int), 8, 80)
    numbers = np.searchsorted(cumulative, rng.random(lengths.sum()))
    joiner, stop = "" if found.script == "Mymr" else " ", (found.terminators or ".")[0]
    result, start = [], 0
    for length, comma in zip(lengths, rng.random(count), strict=True):
        chosen = [words[number] for number in numbers[start : start + length]]
        start += length
        if comma < 0.4 and length > 8:
            chosen[length // 2] += "," if found.script != "Arab" else "،"
        text = joiner.join(chosen)
        result.append(text[:1].upper() + text[1:] + stop)
    return result


def make(
    folder: Path,
    pairs: int = 100_000,
    names: Sequence[str] = LANGUAGES,
    *,
    seed: int = 0,
    extra: Sequence[tuple[str, str]] = HOSTILE,
    responses: bool = True,
    later_stages: bool = True,
) -> Made:
    """Write a run with `pairs` kept pairs in all to `folder`; the `extra` ones are among those of the first language.

    `responses` False leaves out the responses of the model, and `later_stages` decontamination, training and evaluation.
    """
    layout, made, started = Layout(folder, Path(TRANSLATOR).name), Made(folder), now()
    layout.translate_dir.mkdir(parents=True, exist_ok=True)
    topics = (ROOT / "topics" / "wikipedia_vital_topics.txt").read_text(encoding="utf-8").splitlines()
    results: dict[str, dict[str, dict]] = {"generate": {}, "translate": {}, "score": {}}
    for place, name in enumerate(names):
        wanted = pairs // len(names) + (place < pairs % len(names))
        rng = np.random.default_rng((seed, place))
        counts = _write_language(layout, name, wanted, topics, rng, extra if place == 0 else (), responses)
        made.pairs[name] = counts["score"]["pairs"]
        made.outcomes.update(counts["generate"]["rejected"], **counts["score"]["rejected"])
        results["generate"][name] = {"complete": True, "prompts_asked": counts["prompts"], "counts": counts["generate"]}
        results["translate"][name] = {"translator_version": "CTranslate2 4.8.5", "counts": counts["translate"]}
        results["score"][name] = {"truncated_texts": 0, "counts": counts["score"]}
    known = {name: languages.find(name) for name in names}
    for stage, settings in SETTINGS.items():
        record_settings(layout.settings(stage), settings)
        write_manifests(layout, stage, started, seed, settings, results[stage], known)
    write_json(folder / "rates.json", {"generate": 3.2, "translate": 88.4, "score": 120.5})
    if later_stages:
        decontaminate(layout, names)
        train(folder / "train-topxgen", layout, names, SCORER, seed)
        train(folder / "train-worse", layout, names[:1], SCORER, seed, worse=True)
        translate(folder / "translations", seed)
        evaluate(folder / "translations", folder / "scores.json")
    return made


SETTINGS = {
    "generate": {
        "pipeline": "topxgen", "model": MODEL, "inference_api": "vllm", "dtype": "auto", "seed": 0, "threshold": 0.7,
        "filters": ["binary", *TEXT_REASONS[:4]], "texts_per_prompt": 2, "max_new_tokens": 1024, "temperature": 1.0, "top_p": 1.0,
    },
    "translate": {
        "back_translator": "nllb", "target_language": "English", "splitter": "sentencex", "lid_model": "cld2",
        "nllb_name_or_path": TRANSLATOR, "number_of_candidates": 2, "select_by": "blaser",
    },
    "score": {"scorer": SCORER, "min_score": MIN_SCORE},
}  # fmt: skip


def _write_language(
    layout: Layout,
    name: str,
    wanted: int,
    topics: list[str],
    rng: np.random.Generator,
    extra: Sequence[tuple[str, str]],
    responses: bool,
) -> dict:
    """The files of stages 1 to 3 of a language, and their counts."""
    pool_size = max(min(int(wanted * 1.6) + 60, MAX_POOL), 1)
    sources, targets = sentences(name, pool_size, rng), sentences("English", pool_size, rng)
    leaks = _benchmark_pairs(name)
    paths = {
        "paragraphs": layout.paragraphs(name),
        "rejects": layout.rejects(name),
        "pairs": layout.translations(name),
        "pair_rejects": layout.translation_rejects(name),
        "others": layout.other_candidates(name),
        **({"responses": layout.responses(name)} if responses else {}),
    }
    files = {key: open_partial(path, "w", encoding="utf-8", newline="") for key, path in paths.items()}

    def write(key: str, record: dict) -> None:
        if key in files:
            files[key].write(to_line(record))

    texts, pair_reasons, total = Counter(), Counter(), Counter()
    score_sum, number, at = 0.0, 0, 0
    chance = iter(())

    def draw() -> float:
        nonlocal chance
        if (value := next(chance, None)) is None:
            chance = iter(rng.random(8192).tolist())
            value = next(chance)
        return value

    def pick(items: Sequence):
        return items[int(draw() * len(items))]

    while total["pairs"] < wanted or extra:
        prompt, topic, progress = f"{name}-{number:06d}", pick(topics), total["pairs"] / max(wanted, 1)
        number += 1
        parts, response = [], []
        if draw() < 0.02:
            response = [f"{pick(sources)} {topic}"]
            texts["unparseable"] += 1
            write(
                "rejects",
                {"id": f"{prompt}.0", "prompt": prompt, "reason": "unparseable", "text": response[0], "topic": topic},
            )
        else:
            for i in range(2):
                parts.append([])
                for _ in range(1 + int(draw() * 4)):
                    at = (at + 1) % pool_size
                    parts[i].append((sources[at], targets[at]))
            if extra:
                parts[0], extra = list(extra), ()
            elif leaks and number % 25 == 3:
                parts[0][0] = pick(leaks)
            response = [" ".join(sentence for sentence, _ in part) for part in parts]
        total["prompts"] += 1
        total["prompt_tokens"] += 900 + len(topic)
        total["completion_tokens"] += sum(map(len, response)) // 3
        joined = "\n\n".join(f"{i}. {text}" for i, text in enumerate(response, 1)) if parts else response[0]
        tokens = {"prompt_tokens": 900 + len(topic), "completion_tokens": sum(map(len, response)) // 3}
        write("responses", {"id": prompt, "topic": topic, "texts": [joined], **tokens})
        for i, (part, text) in enumerate(zip(parts, response, strict=bool(parts))):
            own = f"{prompt}.{i}"
            is_hostile = part and part[0] in HOSTILE
            reason = None
            if not is_hostile and draw() < 0.01 + 0.06 * progress and number > 1:
                reason = (
                    f"near_duplicate of {name}-{int(draw() * (number - 1)):06d}.0 (ROUGE-L F1 {0.7 + draw() * 0.3:.3f})"
                )
            elif not is_hostile and draw() < 0.04:
                reason = pick(TEXT_REASONS)
            if reason:
                texts[reason.split()[0]] += 1
                write("rejects", {"id": own, "prompt": prompt, "reason": reason, "text": text, "topic": topic})
                continue
            total["kept"] += 1
            write("paragraphs", {"text": text, "topic": topic, "id": own})
            kept, rejected, below, others = [], [], [], []
            for sentence, translation in part:
                total["sentences"] += 1
                score = round(min(5.0, max(1.0, 3.6 + 0.55 * (draw() + draw() + draw() + draw() - 2) * 1.7)), 4)
                confidence = round(0.4 + 0.6 * draw(), 4)
                if not is_hostile and (total["pairs"] + len(kept) >= wanted or draw() < 0.25):
                    pair_reason = PAIR_REASONS[int(np.searchsorted(np.cumsum(PAIR_WEIGHTS), draw() * 0.999))]
                    reject = {"sentence": sentence, "reason": pair_reason}
                    if pair_reason == "sentence_too_short":
                        reject["sentence"] = sentence[:30]
                    elif pair_reason == "translation_failed":
                        reject |= {"translation": None, "detail": "the answer is cut at 512 new tokens"}
                    elif pair_reason != "sentence_other_language":
                        reject["translation"] = translation[:30] if "short" in pair_reason else translation
                    if pair_reason == "score_below_min":
                        below.append(reject | {"score": round(1 + 1.49 * draw(), 4)})
                    else:
                        rejected.append(reject)
                    pair_reasons[pair_reason] += 1
                    continue
                kept.append((sentence, translation, score, confidence))
                score_sum += score
                if draw() < 0.1:
                    other = {
                        "sentence": sentence,
                        "translation": pick(targets),
                        "confidence": round(confidence * 0.9, 4),
                    }
                    others.append(other | {"score": round(max(1.0, score - draw()), 4)})
            lists = zip(*kept, strict=True) if kept else ([], [], [], [])
            columns = dict(
                zip(("propositions", "translations", "scores", "confidences"), map(list, lists), strict=True)
            )
            write("pairs", {"sentence": text, **columns, "topic": topic, "id": own, "scorer": SCORER})
            for key, value in (("pair_rejects", rejected), ("pair_rejects", below)):
                if value:
                    write(key, {"id": own, "rejected": value})
            if others:
                write("others", {"id": own, "others": others})
            total["pairs"] += len(kept)
    for key, file in files.items():
        file.close()
        partial(paths[key]).replace(paths[key])
    return {
        "prompts": number,
        "generate": {
            "prompts": number, "answers": number, "not_needed": 0, "prompt_tokens": total["prompt_tokens"],
            "completion_tokens": total["completion_tokens"], "rejected": dict(texts), "kept": total["kept"], "brought_along": 0,
        },
        "translate": _translation_counts(total, pair_reasons, without="score_below_min"),
        "score": _translation_counts(total, pair_reasons)
        | {"scored": total["pairs"], "mean_score": score_sum / total["pairs"] if total["pairs"] else None},
    }  # fmt: skip


def _translation_counts(total: Counter, reasons: Counter, without: str = "") -> dict:
    return {
        "paragraphs": total["kept"],
        "sentences": total["sentences"],
        "rejected": {reason: count for reason, count in reasons.items() if reason != without},
        "translated_in_pieces": 0,
        "pairs": total["pairs"] + (reasons[without] if without else 0),
    }


def _benchmark_pairs(name: str) -> list[tuple[str, str]]:
    """Texts of the UDHR that decontamination finds: those of the language, and English ones beside sentences of our own."""
    from topxgen.corpora import benchmarks

    try:
        own = [text for split in benchmarks.load("udhr", languages.find(name), None) for text in split.texts]
    except benchmarks.LacksLanguage:
        own = []
    english = [text for split in benchmarks.load("udhr", languages.find("English"), None) for text in split.texts]
    rng = np.random.default_rng(2)
    long = [text for text in own if len(text) > 60][:20]
    leaks = [*zip(long, sentences("English", len(long), rng), strict=True)]
    leaks += zip(sentences(name, 20, rng), [text for text in english if len(text) > 80], strict=False)
    return leaks


def decontaminate(layout: Layout, names: Sequence[str]) -> None:
    run = in_process(
        "decontamination.py", "--input_dir", layout.translate_dir, "--languages", *names, "--benchmarks", "udhr"
    )
    assert run.returncode == (3 if "N'ko" in names else 0), run.stderr  # which no embedded benchmark has


# (folder of the model, name of the checkpoint's folder or None, share of the words that are right, k, phrases)
SYSTEMS = (
    ("Meta-Llama-3-8B", 0.25, 0, False),
    ("train-topxgen/checkpoint-1000", 0.35, 0, False),
    ("train-topxgen/checkpoint-2000", 0.45, 0, False),
    ("train-topxgen/checkpoint-3000", 0.5, 0, False),
    ("gemma-3-27b-it", 0.55, 5, False),
    ("gemma-3-27b-it", 0.62, 5, True),
)


def translate(folder: Path, seed: int) -> None:
    """Runs of main.py on the embedded test set: references with words replaced, by system and direction."""
    from comptra import evaluation_sets

    for (src, tgt), (place, (model, right, k, divided)) in (
        (direction, system) for direction in DIRECTIONS for system in enumerate(SYSTEMS)
    ):
        test = evaluation_sets.load(
            "udhr", languages.find(src), languages.find(tgt), folder=None, max_samples=None, need_pool=False
        )
        rng = np.random.default_rng((seed, place, DIRECTIONS.index((src, tgt))))
        run = folder / model / f"{src}_to_{tgt}_{k}_shot_seed_122_llm_vanilla_None_{int(divided)}_0"
        settings = {
            "dataset_name_or_path": "udhr", "src": src, "tgt": tgt, "seed": 122, "inference_api": "vllm", "k": k, "retriever_type": "bm25s",
            "max_new_tokens": 500, "temperature": 0.0, "method_translate": "vanilla", "number_of_refining_steps": 0, "steps": int(divided),
            "num_return_sequences": 1, "num_beams": 1, "selection_method": "greedy", "model": Path(model).name, "template_key": "11",
            "base_model": SYSTEMS[0][0] if "checkpoint" in model else Path(model).name,
            **({"method_divide": "llm", "merge_prompt": "vanilla", "number_of_subproblems": None} if divided else {}),
        }  # fmt: skip
        run.mkdir(parents=True, exist_ok=True)
        if divided:
            parts = [_phrases(source) for source in test.sources]
            first = src == DIRECTIONS[0][0]  # another source language has its divisions in a folder of its own
            divisions = run.parent if first else run.parent / f"divisions_{digest(src)[:8]}"
            divisions.mkdir(exist_ok=True)
            _write_lines(divisions / "divide_1.jsonl", "propositions", test.sources, parts)
            flat = [(phrase, i) for i, phrases in enumerate(parts) for phrase in phrases]
            write_json(divisions / "parent_1.jsonl", {str(n): i for n, (_, i) in enumerate(flat)})
            translations = [_spoilt(" ".join(test.references[i].split()[:5]), tgt, right, rng) for _, i in flat]
            _write_lines(run / "translate_1.jsonl", "translation", [phrase for phrase, _ in flat], translations)
        translations = [_spoilt(reference, tgt, right, rng) for reference in test.references]
        _write_lines(run / "translate_0.jsonl", "translation", test.sources, translations)
        record_settings(run / "settings_translate.json", settings)
        write_json(
            run / "manifest_translate.json",
            {
                "stage": "translate", "started": now(), "finished": now(), "command": command_line(()), "model": model,
                "settings": {**settings, "max_samples": None}, "test_set": test.facts, "sentences": len(test.sources),
                "empty_translations": 0, "unanswered": [], "unanswered_prompts": 0, "unreadable_answers": 0, "truncated_translations": 0,
                "usage": {"prompt_tokens": 31_000, "completion_tokens": 2_900, "usd": 0.0123},
                lineage.KEY: {"models": [lineage.of_model(model)], "demonstrations": None}, "versions": versions(),
            },
        )  # fmt: skip


def _spoilt(text: str, language: str, right: float, rng: np.random.Generator) -> str:
    """A text of which the share `right` of the words is left, and the others replaced."""
    words = words_of(language)[:2000]
    return " ".join(
        word if rng.random() < right else words[int(rng.random() ** 3 * len(words))] for word in text.split()
    )


def _phrases(sentence: str) -> list[str]:
    words = sentence.split()
    return [" ".join(words[start : start + 6]) for start in range(0, len(words), 6)]


def _write_lines(path: Path, key: str, inputs: Sequence[str], values: Sequence) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(to_line({"sentence": text, key: value}) for text, value in zip(inputs, values, strict=True))


def evaluate(translations: Path, report: Path) -> None:
    baseline = translations / SYSTEMS[0][0]
    run = in_process(
        *("comptra.evaluate", translations, "--baseline", baseline, "--metrics", "bleu", "chrf", "--trials", 500),
        *("--bootstrap", 200, "--json", report, "--segments", report.with_name("segments.jsonl")),
    )
    assert run.returncode == 0, run.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--languages", nargs="+", default=LANGUAGES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--pairs_only", action="store_true", help="without responses, decontamination, training, evaluation"
    )
    args = parser.parse_args()
    whole = not args.pairs_only
    made = make(args.folder, args.pairs, args.languages, seed=args.seed, responses=whole, later_stages=whole)
    print(f"{made.pairs.total():,} pairs, {made.outcomes.total():,} rejects in {args.folder}")


if __name__ == "__main__":
    main()
