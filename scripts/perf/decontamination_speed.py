"""Speed and memory of decontaminating 0.1, 1 and 3 million pairs, and the ratio to a plain look-up in sets.

    python scripts/perf/decontamination_speed.py --benchmark_dir ../shared/benchmarks [--millions 0.1 1 3]

Sentences are random words of the NTREX-128 lines that are in no test set, three pairs per paragraph; one paragraph in 500
contains a benchmark line, one translation in 500 another. Benchmarks that the directory lacks (FLORES-200 in Basque,
TICO-19) are replaced by as many lines of random words. The plain look-up reads the same file with json, makes tuples of
tokens with the same tokenizer and looks them up in sets, one text at a time; it must drop the same paragraphs and pairs.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from measuring import ROOT, as_flags, command_line

import decontamination
from topxgen.corpora import benchmarks
from topxgen.corpora.tables import read_lines
from topxgen.decontamination.benchmark_texts import load
from topxgen.text import languages
from topxgen.text.ngram_hashes import TOKENIZERS
from topxgen.text.ngram_index import ContaminationIndex

N, PREFIX = 10, 6
CORES = sorted({1, 2, 4, 8, 16, len(os.sched_getaffinity(0))} & set(range(1, len(os.sched_getaffinity(0)) + 1)))


def complete_benchmarks(real: Path, folder: Path, words: dict[str, list[str]]) -> Path:
    """A directory with all benchmarks: links to the real files, and random lines for missing ones."""
    rng = random.Random(3)

    def line(language: str) -> str:
        return " ".join(rng.choices(words[language], k=rng.randint(8, 30)))

    for path in real.rglob("*"):
        if path.is_file():
            link = folder / path.relative_to(real)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    for split in ("dev", "devtest"):
        path = folder / "flores200_dataset" / split / f"eus_Latn.{split}"
        if not path.exists():  # numbers stay: copies are checked by them
            english = [text.split() for text in read_lines(path.with_name(f"eng_Latn.{split}"))]
            ours = [[w if any(map(str.isdigit, w)) else rng.choice(words["Basque"]) for w in text] for text in english]
            path.write_text("".join(" ".join(text) + "\n" for text in ours), encoding="utf-8")
    header = "sourceLang\ttargetLang\tsourceString\ttargetString\tstringID\turl\tlicense\ttranslatorId\n"
    for split, lines in (("dev", 971), ("test", 2100)):
        path = folder / "tico19-testset" / split / f"{split}.en-sw.tsv"
        if not path.exists():
            path.parent.mkdir(parents=True)
            rows = (f"en\tsw\t{line('English')}\t{line('English')}\t{i}\t\t\t\n" for i in range(lines))
            path.write_text(header + "".join(rows), encoding="utf-8")
    return folder


def write_pairs(path: Path, pairs: int, words: dict[str, list[str]], leaks: dict[str, list[str]]) -> None:
    rng = random.Random(5)
    # A pool of sentences is enough: what matters is their length and that they differ from the benchmarks.
    pool = {
        language: [" ".join(rng.choices(words[language], k=rng.randint(8, 30))) + "." for _ in range(50_000)]
        for language in words
    }
    with open(path, "w", encoding="utf-8") as file:
        for i in range(pairs // 3):
            sentences, translations = (rng.sample(pool[language], 3) for language in ("Basque", "English"))
            if i % 500 == 7:
                sentences[1] = rng.choice(leaks["Basque"])
            if i % 500 == 9:
                translations[2] = rng.choice(leaks["English"])
            record = {
                "sentence": " ".join(sentences),
                "propositions": sentences,
                "translations": translations,
                "scores": [3.5, 4.1, 2.9],
                "topic": "a topic",
                "id": f"Basque-{i}",
                "confidences": [0.5, 0.6, 0.7],
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


class PlainSets:
    """The same rules, one text at a time."""

    def __init__(self, entries: list):
        self.tokens = TOKENIZERS["unicode"].tokens
        self.ngrams, self.short_texts, self.prefixes = set(), set(), {}
        for entry in entries:
            words = tuple(self.tokens(entry.text))
            if len(words) >= N:
                self.ngrams.update(words[i : i + N] for i in range(len(words) - N + 1))
            elif words:
                self.short_texts.add(words)
                if len(words) >= PREFIX:
                    self.prefixes.setdefault(words[:PREFIX], []).append(words)

    def overlaps(self, text: str) -> bool:
        words = tuple(self.tokens(text))
        grams, prefixes = self.ngrams, self.prefixes
        if any(words[i : i + N] in grams for i in range(len(words) - N + 1)) or words in self.short_texts:
            return True
        places = (i for i in range(len(words) - PREFIX + 1) if words[i : i + PREFIX] in prefixes)
        return any(words[i : i + len(short)] == short for i in places for short in prefixes[words[i : i + PREFIX]])


def plain(path: Path, output: Path, entries: dict[str, list]) -> float:
    """Seconds that the plain look-up takes; its output is what decontamination.py should write."""
    basque, english = PlainSets(entries["Basque"]), PlainSets(entries["English"])
    started = time.perf_counter()
    with open(path, encoding="utf-8") as file, open(output, "w", encoding="utf-8") as kept:
        for line in file:
            record = json.loads(line)
            if any(map(basque.overlaps, [record["sentence"], *record["propositions"]])):
                continue
            stays = [not english.overlaps(text) for text in record["translations"]]
            if not all(stays):
                for key in ("propositions", "translations", "scores", "confidences"):
                    record[key] = [value for value, stay in zip(record[key], stays, strict=True) if stay]
                line = json.dumps(record, ensure_ascii=False) + "\n"
            kept.write(line)
    return time.perf_counter() - started


def measured(command: list[str], cores: int) -> tuple[float, float]:
    """Seconds and peak memory in MiB (resident, all its processes together) of a command that has so many cores."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores]),
    )
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            family = [watched, *watched.children(recursive=True)]
            peak = max(peak, sum(member.memory_info().rss for member in family))
        except psutil.Error:
            pass
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - started, peak / 2**20


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--benchmark_dir", type=Path, required=True)
    parser.add_argument("--millions", type=float, nargs="+", default=[0.1, 1, 3], help="of pairs [0.1 1 3]")
    parser.add_argument("--compare_at", type=float, default=1, help="millions at which the plain look-up runs too [1]")
    args = parser.parse_args()
    by_name = {name: languages.find(name) for name in ("Basque", "English")}
    words = {
        name: [w for text in benchmarks.load("ntrex", language, args.benchmark_dir)[1].texts for w in text.split()]
        for name, language in by_name.items()
    }
    leaks = {
        name: benchmarks.load("ntrex", language, args.benchmark_dir)[0].texts for name, language in by_name.items()
    }
    with tempfile.TemporaryDirectory() as aside:
        folder = complete_benchmarks(args.benchmark_dir, Path(aside) / "benchmarks", words)
        entries = {}
        words_of_command = as_flags(input_dir=folder, benchmark_dir=folder, target_language="English")
        loading = decontamination.build_parser().parse_args(words_of_command)
        for name, texts in load(["Basque"], loading).items():
            entries[name] = texts.entries(texts.splits)
            print(f"{name}: {len(entries[name]):,} benchmark texts")
        for millions in args.millions:
            data = Path(aside) / f"{millions:g}"
            data.mkdir()
            path = data / "Basque_translate.jsonl"
            write_pairs(path, int(millions * 1e6), words, leaks)
            records = int(millions * 1e6) // 3
            print(f"\n{millions:g} million pairs, {records:,} records, {path.stat().st_size / 1e6:,.0f} MB")
            command = [sys.executable, ROOT / "decontamination.py", "--input_dir", data, "--benchmark_dir", folder]
            took = {}
            for cores in CORES:
                for file in data.glob("*decontaminat*"):
                    file.unlink()
                seconds, peak = measured(list(map(str, command)), cores)
                took[cores] = seconds
                print(
                    f"  {cores} core{'s' if cores > 1 else ''}: {seconds:.1f} s, {records / seconds:,.0f} records/s, "
                    f"{3 * records / seconds:,.0f} pairs/s, peak {peak:,.0f} MiB"
                )
            print(f"  {CORES[-1]} cores: {took[1] / took[CORES[-1]]:.2f} times as fast as one")
            if millions == args.compare_at:
                output = data / "plain.jsonl"
                seconds = plain(path, output, entries)
                same = output.read_bytes() == (data / "Basque_translate_filtered.jsonl").read_bytes()
                print(f"  plain look-up: {seconds:.1f} s, {records / seconds:,.0f} records/s; same output: {same}")
                print(f"  one core against it: {seconds / took[1]:.2f} times as fast, from start to end")
                compare_matching(path, entries)
            for file in data.iterdir():
                file.unlink()


def compare_matching(path: Path, entries: dict[str, list]) -> None:
    """The look-up alone, without reading and writing, on 60,000 texts of each side."""
    texts: dict[str, list[str]] = {"Basque": [], "English": []}
    with open(path, encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            texts["Basque"] += record["propositions"]
            texts["English"] += record["translations"]
            if len(texts["Basque"]) >= 60_000:
                break
    for name, side in texts.items():
        index, sets = ContaminationIndex(entries[name], N), PlainSets(entries[name])
        best = [float("inf"), float("inf")]
        for _ in range(5):
            started = time.perf_counter()
            found = set(index.find(side))
            middle = time.perf_counter()
            by_sets = {number for number, text in enumerate(side) if sets.overlaps(text)}
            end = time.perf_counter()
            assert found == by_sets
            best = [min(best[0], middle - started), min(best[1], end - middle)]
        print(
            f"  look-up alone, {name}: {best[0] / len(side) * 1e6:.2f} µs a text against {best[1] / len(side) * 1e6:.2f}: "
            f"{best[1] / best[0]:.1f} times as fast, {len(found)} hits each"
        )
        index, few = ContaminationIndex(entries[name], N, near_duplicate_threshold=0.6), side[:6000]
        started = time.perf_counter()
        index.find(few)
        print(f"  with near-duplicates, {name}: {(time.perf_counter() - started) / len(few) * 1e6:.0f} µs a text")


if __name__ == "__main__":
    main()
