"""A row for each file that a script reads, and what it does when the file is another than it should be."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.attack.faults import Undisturbed
from tests.attack.hostile import INSTEAD, KINDS, NEVER_ANOTHER_CONTENT, NEVER_IN_JSON, OTHER, VALUES, bytes_instead
from tests.attack.shooting_range import Outcome, Range, differences, digests, results
from tests.attack.table import API, STAGES
from topxgen.common.provenance import config_of

BENCHMARKS = (
    "decontamination.py",
    "--input_dir",
    "in",
    "--output_dir",
    "out",
    "--num_workers",
    "1",
    "--allow_partial_benchmark",
)


@dataclass(frozen=True)
class Format:
    """A file, below `in` of the user or below `out` of an earlier run, and the stage that reads it.

    `documented`: its names in docs/files.md. `more`: flags besides the stage's. `free`: fields that hold what a user likes,
    or that this stage ignores, so that another text is no fault; with * another value of any type, with # another number, with ? true.
    """

    path: str
    kind: str  # of hostile.INSTEAD
    stage: str
    documented: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    command: tuple[str, ...] = ()  # instead of the stage's
    free: tuple[str, ...] = ()
    may_be_missing: bool = False  # its absence is normal
    lists_malformed: bool = False  # lines that are no records are listed in a file of their own
    looks: bool = (
        False  # the script shows or compares what there is, and names what it leaves out: its results are others
    )

    @property
    def id(self) -> str:
        script = f" ({Path(self.command[0]).stem})" if self.looks else ""
        return f"{self.stage}: {self.path}{script}"

    @property
    def is_ours(self) -> bool:
        return self.path.startswith("out/")

    @property
    def arguments(self) -> tuple[str, ...]:
        return (*(self.command or STAGES[self.stage].command), *self.more)


RUN = "out/stub-1/English_to_Basque_2_shot_seed_122_llm_vanilla_None_0_0"
COMPTRA_RUN = "out/stub-1/English_to_Basque_1_shot_seed_122_llm_merge_None_1_0_divide-divide.toml_1-merge-refinements"
OLD_RUN = "in/runs/stub-2/English_to_Basque_2_shot_seed_122_llm_vanilla_None_0_0"
# A training set of the user's own, which --data_dir is not for.
OF_TABLE = tuple(word for word in STAGES["export"].command if word not in ("--data_dir", "in"))
FORMATS = [
    # A user's own
    Format("in/topics_wiki.txt", "text", "generate"),
    Format("in/topics.jsonl", "jsonl", "generate", more=("--seed_topics_path", "in/topics.jsonl"), free=("topic", "the whole")),
    Format("in/examples/eus_Latn.txt", "text", "generate"),
    Format("in/native.jsonl", "jsonl", "native", free=("text*", "topic*")),
    Format("in/native.txt", "text", "native", command=("datagen.py", "--languages", "Basque", "--output_dir", "out", "--paragraphs", "in/native.txt[2:9]", "--stages", "generate")),
    Format("in/prompt.toml", "toml", "generate", more=("--prompt_template", "in/prompt.toml"), free=("style", "answer", "stop")),
    Format("in/passages.toml", "toml", "self-instruct", more=("--prompt_template", "in/passages.toml"), free=("style", "stop")),
    Format("in/neighbours.toml", "toml", "knn-instruct", more=("--prompt_template", "in/neighbours.toml"), free=("style", "stop")),
    Format("in/languages.tsv", "table", "audit", ("languages.tsv",), more=("--languages_file", "in/languages.tsv")),
    Format("in/template.toml", "toml", "few-shot", ("mt_templates.toml",), more=("--template_key", "in/template.toml"), free=("suffix",)),
    Format("in/merge.toml", "toml", "comptra", free=("stop",)),
    Format("in/divide.toml", "toml", "comptra", free=("stop", "sentence", "phrases")),
    Format("in/run.yaml", "text", "run"),
    Format("in/flags.yaml", "text", "decontaminate", command=("decontamination.py", "--input_dir", "in", "--output_dir", "out", "--num_workers", "1", "--config", "in/flags.yaml")),
    Format("out/run/decontamination.json", "json", "run", ("{output_dir}/run/{stage}.json",), may_be_missing=True),
    Format("in/test.tsv", "table", "few-shot"),
    Format("in/pool.eng", "text", "few-shot"),
    Format("in/bench.tsv", "table", "audit", more=("--benchmarks", "in/bench.tsv")),
    Format("in/bench.csv", "table", "audit", more=("--benchmarks", "in/bench.csv")),
    Format("in/bench.jsonl", "jsonl", "audit", more=("--benchmarks", "in/bench.jsonl"), free=("English", "Basque")),
    Format("in/bench.parquet", "parquet", "audit", more=("--benchmarks", "in/bench.parquet")),
    Format("in/bench.parquet", "parquet", "few-shot", more=("--test_files", *2 * ("in/bench.parquet",))),
    Format("in/native.parquet", "parquet", "native", command=("datagen.py", "--languages", "Basque", "--output_dir", "out", "--paragraphs", "in/native.parquet", "--stages", "generate")),
    Format("in/bench.json", "json", "audit", more=("--benchmarks", "in/bench.json"), free=("English", "Basque")),
    Format("in/benchmarks/flores200_dataset/dev/eus_Latn.dev", "text", "audit", command=(*BENCHMARKS, "--benchmark_dir", "in/benchmarks", "--benchmarks", "flores")),
    Format("in/benchmarks/NTREX-128/newstest2019-ref.eus.txt", "text", "audit", command=(*BENCHMARKS, "--benchmark_dir", "in/benchmarks", "--benchmarks", "ntrex")),
    Format("in/benchmarks/xquad/xquad.en.json", "json", "audit", command=(*BENCHMARKS, "--benchmark_dir", "in/benchmarks", "--benchmarks", "xquad", "--allow_missing", "xquad"), free=("context", "id", "question", "answers", "title", "version", "qas")),
    Format("in/Basque_translate.jsonl", "jsonl", "decontaminate", ("{translate_dir}/{Language}_translate.jsonl",), lists_malformed=True, free=("topic*", "id*", "scores*", "sentence*", "propositions", "translations")),
    Format(
        "in/Basque_translate_filtered.jsonl", "jsonl", "few-shot", ("{Language}_translate_filtered.jsonl",),
        command=("main.py", "--tgt", "Basque", "--output_dir", "out", *API, "--dataset_name_or_path", "topxgen", "--data_dir", "in", "--benchmark_dir", "in/benchmarks", "--allow_partial_benchmark", "--k", "2", "--max_samples", "3"),
        free=("topic*", "id*", "scores*", "sentence*", "propositions", "translations"), may_be_missing=True,
    ),
    Format(f"{OLD_RUN}/translate_0.jsonl", "jsonl", "evaluate", ("{run}/translate_{step}.jsonl",), free=("translation",)),
    Format(f"{OLD_RUN}/manifest_translate.json", "json", "evaluate", ("manifest_translate.json",), may_be_missing=True),
    Format(f"{OLD_RUN}/settings_translate.json", "json", "evaluate", ("{run}/settings_translate.json",), may_be_missing=True),
    # Of an earlier run
    Format("out/Basque.jsonl", "jsonl", "generate", ("{Language}.jsonl",), free=("topic*", "text", "id*")),
    Format("out/Basque_answers.jsonl", "jsonl", "generate", ("{Language}_answers.jsonl",), free=("id*", "texts", "topic*", "prompt_tokens*", "completion_tokens*", "max_new_tokens*"), may_be_missing=True),
    Format("out/Basque_rejects.jsonl", "jsonl", "generate", ("{Language}_rejects.jsonl",), free=("topic*", "text", "id*")),
    Format("out/Basque.jsonl", "jsonl", "native", free=("topic*", "text", "id*")),
    Format("out/Basque_rejects.jsonl", "jsonl", "native", free=("topic*", "text", "id*", "reason")),
    Format("out/Basque_1.jsonl", "jsonl", "knn-instruct", ("{Language}_{round}.jsonl",), free=("text",), may_be_missing=True),
    Format("out/Basque_0.bin.json", "json", "knn-instruct", ("{Language}_{round}.bin.json",)),
    Format("out/settings_generate.json", "json", "generate", ("settings_{stage}.json",)),
    Format("out/manifest_generate_Basque.json", "json", "generate"),
    Format("out/manifest_generate.json", "json", "generate", ("manifest_{stage}.json",)),
    Format("out/shards/0000-of-0001/shard_generate_Basque.json", "json", "merge shards", ("shard_{stage}_{part}.json",), free=("started",), may_be_missing=True),
    Format("out/shards/0000-of-0001/Basque_answers.jsonl", "jsonl", "merge shards", free=("id*", "texts", "topic*", "prompt_tokens*", "completion_tokens*", "max_new_tokens*"), may_be_missing=True),
    Format("out/rates.json", "json", "generate", ("rates.json",), may_be_missing=True),
    Format("out/Basque.jsonl", "jsonl", "translate", free=("topic*", "text", "id*")),
    Format("out/stub-1/Basque_translate_answers.jsonl", "jsonl", "translate", ("{Language}_translate_answers.jsonl",), free=("texts",), may_be_missing=True),
    Format("out/stub-1/Basque_translate.jsonl", "jsonl", "translate", free=("topic*", "id", "sentence", "propositions", "translations", "scores#", "confidences#", "pieces#"), may_be_missing=True),
    Format("out/stub-1/Basque_translate_rejects.jsonl", "jsonl", "translate", ("{Language}_translate_rejects.jsonl",), free=("id", "rejected")),
    Format("out/best/Basque_candidates.jsonl", "jsonl", "candidates", ("{Language}_candidates.jsonl",), free=("candidates*", "sentences"), may_be_missing=True),
    Format("out/best/Basque_translate_others.jsonl", "jsonl", "candidates", ("{Language}_translate_others.jsonl",), free=("others*",), may_be_missing=True),
    Format("out/stub-1/settings_translate.json", "json", "translate"),
    Format("out/stub-1/manifest_translate.json", "json", "translate"),
    Format("out/apertium/Basque_translate.jsonl", "jsonl", "score", free=("topic*", "id", "sentence", "propositions", "translations", "scores#", "confidences#", "pieces#", "scorer")),
    Format("out/apertium/Basque_scores.jsonl", "jsonl", "score", ("{Language}_scores.jsonl",), may_be_missing=True),
    Format("out/apertium/settings_score.json", "json", "score", may_be_missing=True),
    Format("out/stub-1/manifest_translate_Basque.json", "json", "translate"),
    Format("out/apertium/manifest_score_Basque.json", "json", "score"),
    Format("out/apertium/manifest_score.json", "json", "score"),
    Format("out/manifest_decontaminate_Basque.json", "json", "decontaminate", ("manifest_decontaminate_{Language}.json",), may_be_missing=True),
    Format("out/decontamination_report.json", "json", "decontaminate", ("decontamination_report.json",), may_be_missing=True),
    Format(f"{RUN}/answers.jsonl", "jsonl", "few-shot", ("{run}/answers.jsonl",), free=("id*", "texts", "prompt_tokens*", "completion_tokens*", "max_new_tokens*"), may_be_missing=True),
    Format(f"{RUN}/translate_0.jsonl", "jsonl", "few-shot", free=("translation", "sentence"), may_be_missing=True),
    Format(f"{RUN}/settings_translate.json", "json", "few-shot"),
    Format(f"{RUN}/manifest_translate.json", "json", "few-shot"),
    Format("out/settings_probe.json", "json", "probe", ("{output_dir}/settings_probe.json",), may_be_missing=True),
    Format(f"{COMPTRA_RUN}/answers.jsonl", "jsonl", "comptra", free=("id*", "texts", "prompt_tokens*", "completion_tokens*", "max_new_tokens*"), may_be_missing=True),
    Format(f"{COMPTRA_RUN}/translate_1.jsonl", "jsonl", "comptra", free=("translation", "sentence"), may_be_missing=True),
    Format("out/stub-1/divide_1.jsonl", "jsonl", "comptra", ("divide_{r}.jsonl",), free=("sentence", "propositions"), may_be_missing=True),
    Format("out/stub-1/parent_1.jsonl", "jsonl", "comptra", ("parent_{r}.jsonl",), may_be_missing=True),
    Format("out/stub-1/settings_divide.json", "json", "comptra", may_be_missing=True),
    # Statistics
    Format("in/Basque_translate.jsonl", "jsonl", "statistics", free=("topic*", "id*", "scores*", "sentence*", "propositions", "translations")),
    Format("in/judge.toml", "toml", "statistics", free=("stop", "completion", "chat")),
    Format("out/topic_judge_answers.jsonl", "jsonl", "statistics", ("topic_judge_answers.jsonl",), free=("id*", "texts", "prompt_tokens*", "completion_tokens*", "max_new_tokens*"), may_be_missing=True),
    # Training
    Format("in/Basque_translate_filtered.jsonl", "jsonl", "export", free=("topic*", "id*", "scores*", "sentence*", "propositions", "translations")),
    Format("in/bench.tsv", "table", "export", command=OF_TABLE, more=("--dataset_name_or_path", "in/bench.tsv", "--input_column_name", "English", "--output_column_name", "Basque")),
    Format("in/bench.csv", "table", "export", command=OF_TABLE, more=("--dataset_name_or_path", "in/bench.csv", "--input_column_name", "English", "--output_column_name", "Basque")),
    Format("in/bench.jsonl", "jsonl", "export", command=OF_TABLE, more=("--dataset_name_or_path", "in/bench.jsonl", "--input_column_name", "English", "--output_column_name", "Basque"), free=("English", "Basque")),
    Format("in/bench.json", "json", "export", command=OF_TABLE, more=("--dataset_name_or_path", "in/bench.json", "--input_column_name", "English", "--output_column_name", "Basque"), free=("English", "Basque")),
    Format("in/bench.parquet", "parquet", "export", command=OF_TABLE, more=("--dataset_name_or_path", "in/bench.parquet", "--input_column_name", "English", "--output_column_name", "Basque")),
    Format("in/lm/config.json", "json", "export", ("weights or adapter, tokenizer, `README.md`",)),
    Format("in/lm/tokenizer_config.json", "json", "export", free=("backend*", "model_max_length*", "pad_token*", "eos_token")),
    Format("in/lm/tokenizer.json", "json", "export"),
    Format("in/lm/generation_config.json", "json", "lora", may_be_missing=True),
    Format("in/adapter/adapter_config.json", "json", "merge", free=("use_rslora?",)),
    Format("out/settings_train.json", "json", "train", ("settings_train.json",)),
    Format("out/manifest_train.json", "json", "train", ("manifest_train.json",)),
    Format("out/train_log.jsonl", "jsonl", "train", ("train_log.jsonl",), may_be_missing=True),
    Format("out/checkpoint-2/checkpoint_files.json", "json", "train", ("checkpoint-N/checkpoint_files.json",), may_be_missing=True),
    Format("out/checkpoint-2/trainer_state.json", "json", "train", ("checkpoint-N/",)),
    Format("out/checkpoint-2/data_manifest.json", "json", "train"),
]  # fmt: skip
# Those that look at a run, whose files other stages wrote and somebody may have changed.
LOOKERS = (
    STAGES["report"].command,
    ("scripts/verify.py", "in", "--json", "out/verified.json"),
    ("scripts/status.py", "in", "--json"),
    ("scripts/sample.py", "in"),
    STAGES["publish"].command,
)
FORMATS += [
    Format(path, "jsonl" if path.endswith("l") else "json", "report", command=command, looks=True)
    for command in LOOKERS
    for path in (
        "in/Basque_translate.jsonl", "in/Basque_translate_filtered.jsonl", f"{OLD_RUN}/translate_0.jsonl",
        f"{OLD_RUN}/manifest_translate.json", f"{OLD_RUN}/settings_translate.json",
    )
]  # fmt: skip
# Files of docs/files.md that nothing reads again.
ONLY_WRITTEN = {
    "{translate_dir}/{Language}_paragraphs.jsonl": "written anew by each run",
    "engine.log": "for people",
    "{Language}_translate_contaminated.jsonl": "for people; written anew by each run",
    "{Language}_translate_malformed.jsonl": "for people; written anew by each run",
    "decontamination_report.md": "for people",
    "loss_curves.png": "for people",
    "left_out_pairs.jsonl": "for people; written anew by each run",
    "{run}/draft_{step}.jsonl": "read as translate_{step}.jsonl, by runs that refine",
    "draft_{step}_{k}.jsonl": "the same",
    "{metric}/{fingerprint}/{host}-{process}-{random}.jsonl": "needs a metric of segments; tests/comptra/test_segments.py damages it",
    "contamination_report.json": "for people; written anew by each run",
    "{output_dir}/twins.jsonl": "written anew by each run",
    "{output_dir}/swaps.jsonl": "for people; written anew by each run",
    "{output_dir}/pool.jsonl": "written anew by each run",
    "README.md": "for people, and `datasets`",
    "prefetched.json": "needs a Hub; tests/experiments/test_prefetch.py damages it",
    "{config}/manifest_export.json": "written anew; read as that of train.py --export_dir",
    "manifest_publish.json": "compared with that of the same command; tests/publication/test_dataset.py damages it",
    "instruct.toml": "an example",
    "jobs.json": "for people; written anew by each submission",
    "{output_dir}/run/failed/{stage}.json": "read by those who only look (status, page), which list what they cannot read",
}


@dataclass
class Prepared:
    """A row whose stage has run: the folder with the file to be changed, and the right results."""

    format: Format
    ready: Path
    results: dict[str, str]
    data: bytes

    def attacks(self) -> Iterator[tuple[str, bytes | None]]:
        """(what is done to the file, its new content or None)."""
        for kind in KINDS:
            yield kind, None
        yield from bytes_instead(self.data).items()
        for what, content in INSTEAD[self.format.kind](self.data):
            if self.format.kind != "json" or not _equal(content, self.data):
                yield what, content


def _equal(one: bytes, other: bytes) -> bool:
    """Whether two JSON texts are equal to Python, to which true is 1.0."""
    try:
        return json.loads(one) == json.loads(other)
    except (ValueError, RecursionError):
        return False


def prepare(place: Range, row: Format, stage: Undisturbed) -> Prepared:
    """`stage` ran with the row's arguments. A file of an earlier run is taken from a run killed half-way."""
    ready = stage.ready
    if row.is_ours and not (ready / row.path).exists():
        at = _when_half_done(stage.outcome.seen, row.path)
        ready = stage.finished
        if at is not None:
            ready = place.new_folder(stage.ready)
            place.run(ready, row.arguments, fault={"at": at, "action": "kill"}, expect=(-9,))
            if not (ready / row.path).exists():  # answers came in another order, with other operations
                ready = stage.finished
    return Prepared(row, ready, stage.results, (ready / row.path).read_bytes())


def _when_half_done(seen: list, path: str) -> int | None:
    """The number of the file operation before which a kill leaves `path`, but not the end of the stage."""
    writes = [i for i, (operation, name) in enumerate(seen) if operation == "write" and name == path]
    if len(writes) > 1:
        return writes[len(writes) // 2] + 1
    made = [i for i, (operation, name) in enumerate(seen) if operation in ("replace", "write") and name == path]
    return made[0] + 1 if made and made[0] + 1 < len(seen) else None


def attack(place: Range, prepared: Prepared, what: str, content: bytes | None) -> Outcome:
    """The outcome of the stage with another file in place."""
    row, folder = prepared.format, place.new_folder(prepared.ready)
    path = folder / row.path
    path.unlink()
    if content is None:
        KINDS[what](path)
    else:
        path.write_bytes(content)
    before = digests(folder / "in")
    outcome = place.run(folder, row.arguments, expect=(0, 1, 2, 3, 4) if row.looks else (0, 2, 3, 4))
    if digests(folder / "in") != before:
        outcome.problems.append("an input was changed")
    is_record = row.path.startswith("out/run/")  # which goes when its stage begins
    if row.is_ours and content and outcome.code == 2 and not (is_record or _is_kept(path, content)):
        outcome.problems.append("the file was changed")
    if outcome.code == 0 and not _may_differ(row, what):
        # Which bytes were read is on record, of models in one digest for all their small files.
        new = {hashlib.sha256(content or prepared.data).hexdigest(), *config_of(model=path.parent).values()}
        old = {hashlib.sha256(prepared.data).hexdigest(), *config_of(model=(prepared.ready / row.path).parent).values()}
        digest = re.compile("|".join(old | new))
        right, found = (
            {name: digest.sub("DIGEST", text) for name, text in of_run.items() if f"out/{name}" != row.path}
            for of_run in (prepared.results, results(folder / "out"))
        )
        if wrong := differences(right, found):
            outcome.problems.append(f"exit 0, but {'; '.join(wrong)}")
    return outcome


def _is_kept(path: Path, content: bytes) -> bool:
    """Whether all bytes are still there, if need be in the file for cut pieces."""
    now = path.read_bytes() if path.is_file() else b""
    torn = path.with_name(f"{path.name}.torn")
    cut = torn.read_bytes() if torn.exists() else b""
    return now.startswith(content) or (content.startswith(now) and content[len(now) :].strip() in cut)


def _may_differ(row: Format, what: str) -> bool:
    """Whether other results are no fault: the file is another one, but a sound one."""
    if row.looks:
        return True
    if what in ("missing", "a dangling link"):
        return row.may_be_missing
    if what in NEVER_ANOTHER_CONTENT:
        return False
    if what in NEVER_IN_JSON:
        return row.kind not in ("json", "jsonl") or row.lists_malformed
    if what in KINDS:
        return False
    if row.kind in ("text", "table", "toml") or what in ("empty", "line breaks", "CR", "doubled"):
        return True
    if what.startswith(OTHER) or (row.lists_malformed and ": " in what):
        return True
    place, _, value = what.rpartition(": ")[2].partition(" is ")
    names = place.split(".")
    is_text = VALUES.get(value, "").startswith('"')
    is_number = value in ("null", "1e300", "-1", "0.5", "10^300")
    return any(
        f"{name}*" in row.free
        or (f"{name}#" in row.free and is_number)
        or (f"{name}?" in row.free and value == "true")
        or (name in row.free and is_text)
        for name in names
    )
