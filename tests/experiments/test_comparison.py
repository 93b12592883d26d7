"""Experiment files: the commands of their variants and seeds, what is shared, and a line for each mistake."""

import json
import re
from pathlib import Path

import pytest

from scripts import compare
from tests.support.documentation import fences
from tests.support.pairs import generated, record, refusal
from tests.support.runs import ROOT
from topxgen.experiments import comparison, stages
from topxgen.experiments.comparison import Experiment

EXPERIMENT = """
output_dir: {out}
model: some/model
topics: topics/wikipedia_vital_topics.txt
seeds: [1, 2]
pairs: 6
baseline: nothing

datagen: {{languages: Basque, back_translator: apertium, model_name_or_path: m, seed_topics_path: topics/wikipedia_vital_topics.txt, number_of_instructions: 9}}
decontamination: {{benchmarks: udhr}}
train: {{model_name_or_path: "${{model}}", dataset_name_or_path: topxgen, reverse: true, max_steps: 2, test_size_ratio: 0}}
main:
  - &pair {{dataset_name_or_path: udhr, src: Basque, tgt: English, inference_api: hf, k: 0}}
  - {{<<: *pair, src: English, tgt: Basque}}

variants:
  cold:
    datagen: {{model_name_or_path: "${{model}}", seed_topics_path: "${{topics}}", number_of_instructions: 9, temperature: 0.5}}
  hot:
    datagen: {{model_name_or_path: "${{model}}", seed_topics_path: "${{topics}}", number_of_instructions: 9, temperature: 1.0}}
  mixed:
    mix: [cold, hot]
  nothing:
    train: null
"""


def written(tmp_path: Path, text: str = EXPERIMENT, **changes: str) -> Path:
    """The experiment file, with `changes` of lines: old text -> new text."""
    text = text.format(out=tmp_path / "out")
    for old, new in changes.get("lines", {}).items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = tmp_path / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def read(tmp_path: Path, lines: dict | None = None, changes=()) -> Experiment:
    return comparison.read(written(tmp_path, lines=lines or {}), changes)


def flag(job, name: str) -> list[str]:
    """The words behind a flag."""
    words = job.command.words
    found = []
    for word in words[words.index(f"--{name}") + 1 :]:
        if word.startswith("--"):
            break
        found.append(word)
    return found


def test_each_variant_is_trained_with_each_seed_and_translates_each_direction(tmp_path):
    experiment = read(tmp_path)
    out = tmp_path / "out"
    assert list(experiment.variants) == ["cold", "hot", "mixed", "nothing"]
    for name in ("cold", "hot", "mixed"):
        runs = experiment.variants[name].runs
        assert [run.seed for run in runs] == [1, 2]
        for run in runs:
            folder = out / name / f"seed-{run.seed}"
            assert flag(run.train, "seed") == [str(run.seed)] and flag(run.train, "dataset_size") == ["6"]
            assert flag(run.train, "drop_duplicates") == ["before"]
            assert flag(run.train, "target_languages") == ["Basque"]
            assert flag(run.train, "output_dir") == [str(folder / "train")]
            assert [job.command.name for job in run.translate] == ["main-1", "main-2"]
            for job in run.translate:
                assert flag(job, "model_name_or_path") == [str(folder / "train")]
                assert flag(job, "output_dir") == [str(folder / "translations")]
                assert job.needs == (run.train.id,)
    (untrained,) = experiment.variants["nothing"].runs
    assert untrained.train is None and untrained.seed is None and not experiment.variants["nothing"].data
    assert [flag(job, "model_name_or_path") for job in untrained.translate] == [["some/model"]] * 2
    assert experiment.baseline == "nothing"
    other = {"    train: null": "    train: null\n    main: {model_name_or_path: its/own}"}
    (untrained,) = read(tmp_path, other).variants["nothing"].runs
    assert [flag(job, "model_name_or_path") for job in untrained.translate] == [["its/own"]] * 2


def test_a_mix_is_trained_on_the_folders_of_its_variants(tmp_path):
    experiment = read(tmp_path)
    cold, hot, mixed = (experiment.variants[name] for name in ("cold", "hot", "mixed"))
    folders = [flag(variant.runs[0].train, "data_dir")[0] for variant in (cold, hot)]
    assert len(set(folders)) == 2 and flag(mixed.runs[0].train, "data_dir") == folders
    assert mixed.data == (*cold.data, *hot.data)
    assert set(mixed.runs[0].train.needs) == {job.id for job in mixed.data}
    assert [job.command.stage for job in experiment.data_jobs(["mixed"])] == ["datagen", "decontamination"] * 2
    assert len(experiment.data_jobs(experiment.variants)) == 4, "each once"
    assert len(experiment.run_jobs(experiment.variants)) == 3 * 2 * 3 + 2


def test_a_mix_may_stand_before_what_it_mixes(tmp_path):
    text = EXPERIMENT.replace("  mixed:\n    mix: [cold, hot]\n", "")
    text = text.replace("variants:\n", "variants:\n  mixed:\n    mix: [cold, hot]\n")
    experiment = comparison.read(written(tmp_path, text))
    assert list(experiment.variants) == ["mixed", "cold", "hot", "nothing"]
    assert len(flag(experiment.variants["mixed"].runs[0].train, "data_dir")) == 2


def folders(experiment: Experiment, name: str) -> tuple[str, str]:
    """(of the paragraphs, of the pairs)."""
    folder = experiment.variants[name].data[-1].folder
    return folder.parent.name, folder.name


def test_variants_share_what_the_same_flags_decide(tmp_path):
    """Variants that differ in training alone share all data, in back-translation or decontamination the paragraphs."""
    hot = '{model_name_or_path: "${model}", seed_topics_path: "${topics}", number_of_instructions: 9, temperature: 1.0}'
    same = hot.replace("1.0", "0.5")
    longer = read(
        tmp_path,
        {
            f"    datagen: {hot}": f"    datagen: {same}\n    train: {{max_steps: 3}}",
            "    mix: [cold, hot]": "    pairs: 5",
        },
    )
    assert longer.variants["cold"].data == longer.variants["hot"].data
    assert len(longer.data_jobs(["cold", "hot"])) == 2
    more = ", back_translator: llm}", ", stages: [generate, translate]}", "}\n    decontamination: {ngram_size: 8}"
    for changed in (same[:-1] + after for after in more):
        other = read(
            tmp_path, {f"    datagen: {hot}": f"    datagen: {changed}", "    mix: [cold, hot]": "    pairs: 5"}
        )
        of_cold, of_hot = (folders(other, name) for name in ("cold", "hot"))
        assert of_cold[0] == of_hot[0] and of_cold[1] != of_hot[1], changed
    hotter = read(tmp_path)
    assert folders(hotter, "cold")[0] != folders(hotter, "hot")[0]
    assert re.fullmatch("data-[0-9a-f]{8}", folders(hotter, "hot")[0])
    assert re.fullmatch("apertium-[0-9a-f]{8}", folders(hotter, "hot")[1])


def test_the_package_is_no_input_of_stages_whose_pipeline_or_data_has_its_name(tmp_path, monkeypatch):
    """A newer version of this code does not make complete stages run again."""
    monkeypatch.chdir(ROOT)
    experiment = read(tmp_path)
    for job in [*experiment.data_jobs(["cold"]), *experiment.run_jobs(["cold"])]:
        assert "topxgen" in vars(job.command.args).values() or job.command.stage in ("decontamination", "main")
        assert not any("topxgen" in path.parts for path in stages.inputs(job.command.stage, job.command.args))


def test_untrained_models_come_first(tmp_path):
    """What main.py refuses is seen before hours of training."""
    jobs = read(tmp_path).run_jobs(["cold", "nothing"])
    assert [job.command.stage for job in jobs[:3]] == ["main", "main", "train"] and "nothing" in jobs[0].id


def test_adapters_can_be_merged(tmp_path):
    lines = {"pairs: 6": "pairs: 6\nmerge_adapters: true", "reverse: true,": "reverse: true, use_peft: true,"}
    experiment = read(tmp_path, lines)
    run = experiment.variants["mixed"].runs[1]
    assert [job.command.stage for job in run.jobs] == ["train", "merge", "main", "main"]
    folder = tmp_path / "out" / "mixed" / "seed-2"
    assert run.merge.command.words == (str(folder / "train"), str(folder / "merged")) and run.merge.needs == (
        run.train.id,
    )
    for job in run.translate:
        assert flag(job, "model_name_or_path") == [str(folder / "merged")] and job.needs == (run.merge.id,)
    assert read(tmp_path).variants["mixed"].runs[1].merge is None
    whole = read(tmp_path, {"pairs: 6": "pairs: 6\nmerge_adapters: true"})
    assert whole.variants["mixed"].runs[1].merge is None, "all weights are trained"
    assert "merge_adapters is 2; write true or false" in refusal(
        read, tmp_path, {"pairs: 6": "pairs: 6\nmerge_adapters: 2"}
    )


def test_variants_with_the_same_pairs_cannot_be_mixed(tmp_path):
    lines = {"temperature: 1.0}": "temperature: 0.5}\n    train: {max_steps: 3}"}
    says = "variant mixed: the variants in mix have the same pairs"
    assert says in refusal(read, tmp_path, lines)
    mild = '  mild:\n    datagen: {model_name_or_path: "${model}", seed_topics_path: "${topics}", number_of_instructions: 8}\n'
    lines["  mixed:\n    mix: [cold, hot]"] = f"{mild}  mixed:\n    mix: [cold, hot, mild]"
    assert says in refusal(read, tmp_path, lines), "two of three"


def test_another_variant_or_seed_leaves_the_folders_as_they_are(tmp_path):
    before = read(tmp_path)
    after = read(
        tmp_path,
        {
            "seeds: [1, 2]": "seeds: [3, 1, 2]",
            "variants:": "variants:\n  more:\n    train: {learning_rate: 1e-3}\n    mix: [cold, hot]",
        },
    )
    jobs = {job.id: job.command.words for job in [*after.data_jobs(after.variants), *after.run_jobs(after.variants)]}
    for job in [*before.data_jobs(before.variants), *before.run_jobs(before.variants)]:
        assert jobs.pop(job.id) == job.command.words
    assert all("/more/" in name or "seed-3" in name for name in jobs) and jobs


def test_a_size_series(tmp_path):
    lines = {"pairs: 6": "pairs: null", "    mix: [cold, hot]": "    mix: [cold, hot]\n    pairs: 4"}
    experiment = read(tmp_path, lines)
    assert "--dataset_size" not in experiment.variants["cold"].runs[0].train.command.words
    assert flag(experiment.variants["mixed"].runs[0].train, "dataset_size") == ["4"]


def test_values_at_the_top_can_be_set_for_one_run(tmp_path):
    experiment = read(tmp_path, changes=["model=other/model", f"output_dir={tmp_path / 'there'}"])
    assert flag(experiment.variants["nothing"].runs[0].translate[0], "model_name_or_path") == ["other/model"]
    assert experiment.folder == tmp_path / "there"
    assert read(tmp_path, changes=["pairs=3"]).variants["mixed"].pairs == 3
    path = written(tmp_path)
    assert "modle is neither a section nor a flag" in refusal(comparison.read, path, ["modle=x"])
    assert "--set 'model' is not name=value" in refusal(comparison.read, path, ["model"])


def test_a_set_value_is_refused_that_a_variant_would_not_get(tmp_path):
    path = written(tmp_path)
    reason = refusal(comparison.read, path, ["datagen.temperature=0.7"])
    assert "no effect on the variant cold, which has a temperature of its own" in reason
    assert "write variants.cold.datagen.temperature=" in reason
    changed = read(tmp_path, changes=["variants.hot.datagen.temperature=1.5", "train.max_steps=7"]).variants
    assert [flag(changed[name].data[0], "temperature") for name in ("cold", "hot")] == [["0.5"], ["1.5"]]
    assert {*flag(changed["cold"].runs[0].train, "max_steps"), *flag(changed["hot"].runs[0].train, "max_steps")} == {
        "7"
    }
    for place in ("variants.warm.datagen.temperature", "variants.hot.training.seed", "variants.nothing.train.seed"):
        assert "with a section of that variant" in refusal(comparison.read, path, [f"{place}=1"])


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("  hot:", "  cold:", "cold is there twice"),
        ("temperature: 1.0", "temperature: 0.5", "the variants cold and hot differ in nothing that decides a result"),
        ("seeds: [1, 2]", "seeds: [1, 2, 1]", "seed 1 is there twice; the same seed gives the same model"),
        ("seeds: [1, 2]", "seeds: []", "needs seeds: a list of whole numbers"),
        ("seeds: [1, 2]", "seeds: [1, -2]", "needs seeds: a list of whole numbers"),
        ("seeds: [1, 2]", "", "needs seeds: a list of whole numbers"),
        ("pairs: 6", "pairs: 0", "pairs is 0; write a number of pairs of 1 or more"),
        ("pairs: 6", "pairs: many", "pairs is many; write a number of pairs of 1 or more"),
        ("baseline: nothing", "baseline: notting", "'notting' does not exist; choose one of cold, hot, mixed, nothing (did you mean nothing?)"),
        ("    mix: [cold, hot]", "    mix: [cold, cold]", "mix is a list of two different variants or more"),
        ("    mix: [cold, hot]", "    mix: [cold]", "mix is a list of two different variants or more"),
        ("    mix: [cold, hot]", "    mix: [cold, hit]", "'hit' does not exist; choose one of cold, hot, nothing (did you mean hot?)"),
        ("    mix: [cold, hot]", "    mix: [cold, mixed]", "'mixed' does not exist; choose one of cold, hot, nothing"),
        ("    mix: [cold, hot]", "    mix: [cold, nothing]", "mix names nothing, which makes no pairs"),
        ("    mix: [cold, hot]", "    mix: [cold, hot]\n    datagen: {seed: 3}", "mix takes the data of other variants; remove datagen"),
        ("    mix: [cold, hot]", "    mix: [cold, hot]\n    train: null", "mix is for training, and train is null"),
        ("    mix: [cold, hot]", "    trian: {max_steps: 3}", "variant mixed: unknown section trian (did you mean train?)"),
        ("    mix: [cold, hot]", "    train: {max_stebs: 3}", "variant mixed, section train: unknown key max_stebs (did you mean max_steps?)"),
        ("    mix: [cold, hot]", "    train: {max_steps: '${stebs}'}", "variant mixed, section train: ${stebs} refers to nothing"),
        ("    mix: [cold, hot]", "    train: {seed: 4}", "variant mixed: train.seed cannot be set; write seeds"),
        ("    mix: [cold, hot]", "    main: {output_dir: x}", "variant mixed: main.output_dir cannot be set"),
        ("    mix: [cold, hot]", "    train: {dataset_size: 4}", "variant mixed: pairs sets --dataset_size and --drop_duplicates; remove train.dataset_size"),
        ("    mix: [cold, hot]", "    train: [{}]", "variant mixed: train is not a mapping of flags to values"),
        ("    mix: [cold, hot]", "    main: null", "variant mixed has no section main"),
        ("    mix: [cold, hot]", "    evaluate: {}", "variant mixed: all variants are scored alike; write evaluate at the top"),
        ("    mix: [cold, hot]", "    evaluate: {}", "variant mixed"),
        ("  mixed:", "  ../mixed:", "the name is that of a folder"),
        ("  mixed:", "  data-1:", "the name is that of a folder"),
        ("  mixed:", "  comparison.md:", "the name is that of a folder"),
        ("temperature: 1.0", "temperature: 0.50", "the variants cold and hot differ in nothing that decides a result"),
        ("temperature: 1.0", "temperature: 0.5, top_p: 1.0", "the variants cold and hot differ in nothing that decides a result"),
        ("temperature: 1.0", "temperature: 0.5, gpu_memory_utilization: 0.5", "the variants cold and hot differ in nothing"),
        ("    mix: [cold, hot]", "    mix: [cold, hot]\n  low:\n    mix: [cold, hot]\n    train: {learning_rate: 1e-4}\n  same:\n    mix: [cold, hot]\n    train: {learning_rate: 0.0001}", "the variants low and same differ in nothing"),
        ("datagen: {languages:", "datagen: {output_dir: data, languages:", "variant hot: its data differ from those of another variant in the same folder, data;"),
        ("variants:", "evaluate: {dirs: x}\nvariants:", "evaluate.dirs cannot be set"),
        ("variants:", "evaluate: {metric: bleu}\nvariants:", "section evaluate: unknown key metric (did you mean metrics?)"),
        ("variants:", "modell: x\nvariants:", "modell is neither a section nor a flag, and nothing refers to it"),
        ("model: some/model", "model: ${model}", "the references lead in a circle: model -> model"),
        ("output_dir: ", "folder: ", "needs output_dir at the top"),
        ("baseline: nothing", "baseline: [nothing]", "baseline \"['nothing']\" does not exist"),
        ("variants:", "evaluate: 5\nvariants:", "evaluate is not a mapping of flags to values"),
        ("datagen: {languages: Basque, back_translator: apertium, model_name_or_path: m, seed_topics_path: topics/wikipedia_vital_topics.txt, number_of_instructions: 9}", "datagen: [1]", "datagen is not a mapping of flags to values"),
        ("  mixed:", f"  {'x' * 101}:", "the name is that of a folder"),
    ],
)  # fmt: skip
def test_mistakes_end_the_run_before_anything_is_done(tmp_path, old, new, says):
    assert says in refusal(comparison.read, written(tmp_path, lines={old: new}))
    assert not (tmp_path / "out").exists()


def test_an_experiment_without_variants(tmp_path):
    text = EXPERIMENT[: EXPERIMENT.index("variants:")]
    for more in ("", "variants: {{}}", "variants: [a]"):
        for own in (text, text.replace("seeds: [1, 2]", "")):  # an ordinary run file has neither
            assert "needs variants" in refusal(comparison.read, written(tmp_path, own + more))


def test_folders_may_be_references(tmp_path):
    lines = {f"output_dir: {tmp_path / 'out'}": f"root: {tmp_path}\noutput_dir: ${{root}}/out"}
    assert read(tmp_path, lines) == read(tmp_path)
    lines = {"    mix: [cold, hot]": "    datagen: {output_dir: '${output_dir}/mine', translate_dir: '${model}'}"}
    lines["model: some/model"] = "model: base"
    mixed = read(tmp_path, lines).variants["mixed"]
    assert {job.folder for job in mixed.data} == {tmp_path / "out" / "mine" / "base"}
    assert flag(mixed.runs[0].train, "data_dir") == [str(tmp_path / "out" / "mine" / "base")]


def test_flags_that_decide_no_result_leave_the_folders_as_they_are(tmp_path):
    """Less memory after a crash, say, does not start days of generation again."""
    before = read(tmp_path)
    after = read(tmp_path, changes=["datagen.gpu_memory_utilization=0.5", "datagen.tensor_parallel_size=2"])
    for name in ("cold", "hot", "mixed"):
        assert folders(before, name) == folders(after, name)


def test_the_experiments_that_are_shown(tmp_path, monkeypatch):
    """That of docs/experiments.md and those in configs/ need no flag more."""
    monkeypatch.chdir(ROOT)
    blocks = [block for block in fences(ROOT / "docs/experiments.md", "yaml") if block.startswith("# experiment.yaml")]
    (tmp_path / "experiment.yaml").write_text(blocks[0], encoding="utf-8")
    assert list(comparison.read(tmp_path / "experiment.yaml").variants) == ["cold", "hot", "both", "untrained"]
    for name in ("newstest2019-ref.eus.txt", "newstest2019-src.eng.txt"):
        (tmp_path / name).write_text("x\n" * 1997)
    files = sorted((ROOT / "configs/experiments").glob("*.yaml"))
    assert files and all(comparison.read(path, [f"ntrex={tmp_path}"]).baseline for path in files)


def pairs_of(experiment: Experiment, name: str, count: int) -> None:
    """What decontamination.py would have left of a variant's data."""
    rows = [record((f"{name} esaldi luzea {i}", f"long sentence {i} of {name}", 1.0)) for i in range(count)]
    generated(experiment.variants[name].data[-1].folder, "Basque", *rows, rows[0], record(("labur", "short", 1.0)))


def test_variants_with_too_few_pairs_are_refused_with_the_counts(tmp_path):
    """Equal pairs count once, and those that train.py drops not at all."""
    from scripts.compare import check_pairs

    experiment = read(tmp_path)
    pairs_of(experiment, "cold", 6)
    pairs_of(experiment, "hot", 5)
    message = refusal(check_pairs, experiment, experiment.variants)
    assert "cold 6 of 6, hot 6 of 5, mixed 6 of 6 + 5; with pairs: 5 all have" in message
    pairs_of(experiment, "hot", 6)
    check_pairs(experiment, experiment.variants)
    check_pairs(experiment, ["nothing"])
    pairs_of(experiment, "hot", 2)
    message = refusal(check_pairs, experiment, ["mixed"])
    assert "mixed 6 of 6 + 2; with pairs: 4 all have" in message


@pytest.mark.parametrize(
    "times, hours",
    [
        ([], 0),
        ([(8, 9), (8, 9), (8, 9.5)], 1.5),  # three languages of one start
        ([(8, 9), (9, 10), (12, 12.5), (8, 10)], 2.5),
        ([(9, 10), (8, 8.5), (8.25, 8.5)], 1.5),
    ],
)
def test_hours_of_stages_are_counted_once_for_all_languages(times, hours, tmp_path):
    from scripts.compare import hours_in

    def at(hour: float) -> str:
        return f"2026-01-02T{int(hour):02}:{int(hour % 1 * 60):02}:00+00:00"

    for number, (start, end) in enumerate(times):
        path = tmp_path / f"manifest_generate_{number}.json"
        path.write_text(json.dumps({"started": at(start), "finished": at(end)}))
    assert hours_in(tmp_path.iterdir()) == pytest.approx(hours)


def test_what_a_judge_of_the_data_answered_is_no_cost_of_the_data(tmp_path):
    """Of scripts/data_stats.py, which may leave it beside the paragraphs."""
    cold = read(tmp_path).variants["cold"]
    (paragraphs,) = {job.folder.parent for job in cold.data}
    trained = cold.runs[0].train.output
    for folder in (trained, paragraphs):
        folder.mkdir(parents=True)
    (trained / "manifest_train.json").write_text('{"data": {}}')
    answers = {"Basque": 100, "topic_judge": 7}
    for name, tokens in answers.items():
        response = {"id": "x", "texts": [], "prompt_tokens": tokens, "completion_tokens": 2 * tokens}
        (paragraphs / f"{name}_answers.jsonl").write_text(json.dumps(response) + "\n")
    found = compare.facts(cold)
    assert (found["tokens read"], found["tokens written"]) == (100, 200)


def test_pairs_that_two_of_the_data_of_a_mix_have_in_common_count_once(tmp_path):
    """As train.py counts them, before the first training: it refused the mix after those of the other variants."""
    experiment = read(tmp_path)
    pairs = [(f"esaldi {i} luze bat da", f"a long sentence {i}", 1.0) for i in range(9)]
    for name, own in (("cold", pairs[:6]), ("hot", pairs[:6])):
        folder = experiment.variants[name].data[-1].folder
        generated(folder, "Basque", record(*own))
    compare.check_pairs(experiment, ["cold", "hot"])
    said = refusal(compare.check_pairs, experiment, ["cold", "hot", "mixed"])
    assert "variant mixed: --dataset_size 6 takes 3 pairs" in said and "but there are 6 in" in said and "0 in" in said
    generated(folder, "Basque", record(*pairs[3:]))
    compare.check_pairs(experiment, ["cold", "hot", "mixed"])
    odd = read(tmp_path, changes=["pairs=5"])
    generated(folder, "Basque", record(*pairs[6:8]))
    compare.check_pairs(odd, ["mixed"])


def test_a_variant_without_any_pair_is_named(tmp_path):
    experiment = read(tmp_path)
    generated(experiment.variants["hot"].data[-1].folder, "Basque")
    assert "experiment.yaml, variant hot: topxgen holds no pairs" in refusal(compare.check_pairs, experiment, ["hot"])
