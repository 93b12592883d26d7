"""How many responses per second the generation loop handles, beside which engine it would be the limit.

    python scripts/perf/coordinator.py --responses 20000 --languages 10

The real loop of datagen.py with a sampler in place of an engine: it answers at once, with numbered lists of texts of about 140
words. Words are drawn from a Zipf-distributed vocabulary for each language, so that common words are shared as in real text; one
text in twenty is a near-duplicate of an earlier one. Another process writes them to a file beforehand, as an engine is another
process, too. Then the run is resumed. The output is JSON; seconds of CPU are those of one process, which does nothing in parallel.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import IO

from measuring import as_flags, command_line, in_child, peak_mib

from datagen import build_parser
from topxgen.common.console import Progress
from topxgen.generation.paragraphs import Generation
from topxgen.generation.plan import GenerationConfig
from topxgen.inference import Answer

LANGUAGES = ("Basque", "Hausa", "Igbo", "Kinyarwanda", "Nepali", "Somali", "Sundanese", "Swahili", "Urdu", "Xhosa")
VOCABULARY, WORDS, SPREAD, DUPLICATES = 50_000, 140, 35, 0.05
IN_FLIGHT = 1_024  # requests
SPARE = 100  # answers of a language beyond its share


class Texts:
    """Paragraphs of a language, each a function of its number."""

    def __init__(self, seed: int):
        rng = random.Random(seed)
        syllables = ["".join(rng.choices("bdgklmnrstz", k=1) + rng.choices("aeiou", k=1)) for _ in range(60)]
        words = dict.fromkeys("".join(rng.choices(syllables, k=rng.randint(1, 5))) for _ in range(2 * VOCABULARY))
        self._words = list(words)[:VOCABULARY]
        self._weights = list(accumulate(1 / (i + 2.7) for i in range(len(self._words))))
        self._seed = seed

    def __call__(self, number: int) -> str:
        rng = random.Random(f"{self._seed} {number}")
        if number and rng.random() < DUPLICATES:
            words = self(rng.randrange(number)).split()
            for _ in range(rng.randint(0, len(words) // 2)):
                words[rng.randrange(len(words))] = rng.choice(self._words)
            return " ".join(words)
        count = max(20, round(rng.gauss(WORDS, SPREAD)))
        words = rng.choices(self._words, cum_weights=self._weights, k=count)
        return f"{' '.join(words).capitalize()}."


def write_answers(path: Path, languages: Sequence[str], count: int) -> dict[str, list[int]]:
    """Write the texts of `count` answers, and some more of each language; where those of a language begin and end."""
    offsets = {}
    with open(path, "wb") as file:
        for seed, name in enumerate(languages):
            texts, offsets[name] = Texts(seed), [file.tell()]
            for first in range(0, 2 * (SPARE + count * 6 // (5 * len(languages))), 2):
                file.write("\n\n".join(f"{i + 1}. {texts(first + i)}" for i in range(2)).encode())
                offsets[name].append(file.tell())
    return offsets


class Sampler:
    """Answers `count` requests with texts of a file, IN_FLIGHT of which are open at a time, in an order of its own."""

    def __init__(self, file: IO[bytes], offsets: dict[str, list[int]], count: int):
        self._file, self._offsets, self._left, self.answered = file, offsets, count, 0

    def generate(self, next_request, settings):
        rng, open_requests = random.Random(0), deque()
        while True:
            while self._left and len(open_requests) < IN_FLIGHT and (request := next_request()) is not None:
                open_requests.append(request)
                self._left -= 1
            if not open_requests:
                return
            open_requests.rotate(rng.randrange(8))
            self.answered += 1
            yield self._answer(open_requests.popleft())

    def _answer(self, request) -> Answer:
        language, number = request.id.rsplit("-", 1)
        start, end = self._offsets[language][int(number) : int(number) + 2]
        text = os.pread(self._file.fileno(), end - start, start).decode()
        return Answer(request.id, [text], 900, 600, finish_reasons=("stop",))


def config(folder: Path, args: argparse.Namespace, languages: Sequence[str]) -> GenerationConfig:
    words = as_flags(
        model_name_or_path="none", inference_api="openai", api_key="none", output_dir=folder, number_of_instructions=10 * args.responses,
        seed_topics_path="topics/wikipedia_vital_topics.txt", number_of_icl_demonstrations=0, number_of_icl_phrases=0,
        back_translator="nllb", prompt_template="instruct",
    )  # fmt: skip
    return GenerationConfig(build_parser().parse_args([*words, "--languages", *languages]))


def measured(folder: Path, args: argparse.Namespace, languages: Sequence[str], sampler: Sampler | None) -> dict:
    """A run; without a sampler what it takes to resume it."""
    plan = config(folder, args, languages)
    _ = plan.pipeline  # of a chat model
    plan.args.inference_api = "openai" if args.paid else "vllm"
    cpu, began = time.process_time(), time.perf_counter()
    with Progress("coordinator", None, "paragraphs") as progress, Generation(plan, progress) as generation:
        generation.needs_responses()
        if sampler is None:  # what the first text to be compared waits for
            _ = [files.near_duplicates for files in generation._files.values()]
        start = time.process_time(), time.perf_counter()
        if sampler is not None:
            generation.run(sampler, plan.sampling_settings())
        end = time.process_time(), time.perf_counter()
        kept = generation.kept.total()
    opening = {"cpu_s": round(start[0] - cpu, 2), "s": round(start[1] - began, 2)}
    if sampler is None:
        return {"resume": opening, "kept": kept, "peak_mib": peak_mib()}
    cpu_s, seconds = end[0] - start[0], end[1] - start[1]
    return {
        "responses": sampler.answered,
        "kept": kept,
        "cpu_s": round(cpu_s, 2),
        "ms_of_cpu_per_response": round(1000 * cpu_s / sampler.answered, 3),
        "responses_per_s": round(sampler.answered / seconds, 1),
        "peak_mib": peak_mib(),
    }


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--responses", type=int, default=20_000)
    parser.add_argument("--languages", type=int, default=10, help=f"how many of {', '.join(LANGUAGES)}")
    parser.add_argument("--paid", action="store_true", help="each response is flushed to disk, as those of APIs are")
    parser.add_argument("--output_dir", type=Path, help="on the disk to measure [a temporary folder]")
    args = parser.parse_args()
    languages = LANGUAGES[: args.languages]

    with tempfile.TemporaryDirectory() as temporary:
        folder = args.output_dir or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile() as file:
            offsets = in_child(write_answers, Path(file.name), languages, args.responses)
            sampler = Sampler(file, offsets, args.responses)
            print(json.dumps({"languages": len(languages), **measured(folder, args, languages, sampler)}), flush=True)
        print(json.dumps(in_child(measured, folder, args, languages, None)))


if __name__ == "__main__":
    main()
