"""The section Evaluation: tables, scores of sentences and comparisons of real runs, and warnings about stale and damaged reports."""

import json
import re
import shutil
from pathlib import Path

import pytest
from sacrebleu.metrics import CHRF

from comptra.report.sections import evaluation
from comptra.scores.metrics import Segment
from comptra.scores.segment_cache import ScoreCache, keys_of
from comptra.tables import Cell, Table, matrix, series, variants
from tests.support.evaluations import RUN, collected, notices, run, settings, udhr, worse, write
from tests.support.runs import in_process, records
from tests.support.score_reports import with_all_marks
from topxgen.runs.folders import find

DIRECTION = "eng_Latn-eus_Latn"


def scored(root: Path, *flags) -> dict:
    result = in_process("comptra.evaluate", root, "--trials", 200, "--json", root / "scores.json", *flags)
    assert result.returncode == 0, result.stderr
    return json.loads((root / "scores.json").read_text())


@pytest.fixture
def two(tmp_path) -> Path:
    """Three systems in two directions, and a report with a baseline and intervals."""
    for tgt in ("Basque", "Swahili"):
        for model, share in (("base", 0.5), ("good", 0.1), ("best", 0.05)):
            run(tmp_path / "t", model, share, tgt)
    base = tmp_path / "t" / "base"
    scored(tmp_path / "t", "--baseline", base, "--bootstrap", 100, "--segments", tmp_path / "t" / "segments.jsonl")
    return tmp_path / "t"


def as_text(table: Table) -> list[list[str]]:
    return [[cell.text + cell.all_marks if isinstance(cell, Cell) else cell for cell in row] for row in table.rows]


def shown(table: dict) -> list[list[str]]:
    return [["".join(cell) if isinstance(cell, list) else cell for cell in row] for row in table["rows"]]


# Reports


def test_tables_are_those_of_the_report(two):
    report = json.loads((two / "scores.json").read_text())
    data, options = collected(two)
    (one,) = data["reports"]
    expected = matrix.tables(report, detailed=True)
    assert [table["title"] for table in one["tables"]] == [table.title for table in expected]
    for ours, theirs in zip(one["tables"], expected, strict=True):
        assert ours["header"] == theirs.header
        assert shown(ours) == as_text(theirs)
    used = {
        mark
        for table in one["tables"]
        for row in table["rows"]
        for cell in row
        if isinstance(cell, list)
        for mark in cell[1]
    }
    assert set(one["marks"]) == used and used >= {"+", "^"}
    assert not one["problems"] and not one["unknown"] and not notices(options, "problem")
    titles = [own["title"] for own in one["directions"]]
    assert titles == ["udhr from English into Basque, 21 sentences", "udhr from English into Swahili, 21 sentences"]
    interval = report["groups"][0]["systems"][1]["scores"]["chrf"]["interval"]
    assert f"[{interval[0]:.2f}, {interval[1]:.2f}]" in json.dumps(one["directions"][0]["table"])
    assert any("approximate randomisation, 200 trials" in note for note in one["notes"])


def test_sentences_have_the_scores_that_sacrebleu_gives_and_those_of_segments(two):
    data, _ = collected(two)
    group = next(one for one in data["sentences"] if one["id"] == "udhr-English-Basque")
    test = udhr()
    assert group["sources"] == test.sources and group["references"] == test.references
    assert (group["total"], group["numbers"]) == (21, list(range(1, 22)))
    assert [metric["name"] for metric in group["metrics"]] == ["chrf", "bleu", "lang"]
    lines = [line for line in records(two / "segments.jsonl") if line["direction"] == DIRECTION]
    metric = CHRF(word_order=2)
    for system in group["systems"]:
        assert system["translations"] == [
            line["translation"] for line in records(Path(system["path"]) / "translate_0.jsonl")
        ]
        for place, text in enumerate(system["translations"]):
            expected = metric.sentence_score(text, [test.references[place]]).score
            assert system["scores"]["chrf"][place] == pytest.approx(expected, abs=0.006)
        assert system["corpus"] == pytest.approx(
            metric.corpus_score(system["translations"], [test.references]).score, abs=0.006
        )
        own = {
            line["index"]: line["bleu"]
            for line in lines
            if line["translation"] == system["translations"][line["index"]]
        }
        assert [round(own[place], 2) for place in range(21)] == system["scores"]["bleu"]


def test_without_a_report_scores_are_computed_and_the_page_says_so(tmp_path):
    for model, share in (("a", 0.4), ("b", 0.1)):
        run(tmp_path, model, share)
    data, options = collected(tmp_path)
    (one,) = data["reports"]
    assert one["path"] == "" and "scores were computed for this page" in notices(options, "info")
    result = in_process("comptra.evaluate", tmp_path, "--bootstrap", 1000, "--json", tmp_path / "x.json")
    assert result.returncode == 0
    expected = matrix.tables(json.loads((tmp_path / "x.json").read_text()), detailed=True)
    assert shown(one["tables"][0]) == as_text(expected[0])


def test_too_many_translations_are_not_scored_here(tmp_path, monkeypatch):
    run(tmp_path, "a", 0.4)
    monkeypatch.setattr(evaluation, "MAX_COMPUTED", 20)
    data, options = collected(tmp_path)
    assert data["reports"] == [] and "21 translations are too many to be scored here" in notices(options, "missing")
    assert data["sentences"][0]["systems"][0]["scores"]["chrf"], "sentences are shown with their chrF++"


def numbers_of(table: dict, row: int) -> set[str]:
    return {cell[0] for cell in table["rows"][row] if isinstance(cell, list)}


def test_a_changed_translation_makes_its_scores_stale(two):
    """They are left out, with what was computed with them; those of another direction stay."""
    file = two / "good" / RUN.format("English", "Basque") / "translate_0.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    changed = json.loads(lines[3]) | {"translation": "Beste itzulpen bat."}
    file.write_text("\n".join([*lines[:3], json.dumps(changed), *lines[4:]]) + "\n", encoding="utf-8")
    data, options = collected(two)
    (one,) = data["reports"]
    assert len(one["problems"]) == 2 and "the translations have changed since" in one["problems"][0]
    assert one["problems"][0].startswith(
        f"{file.parent.relative_to(two)}, udhr from English into Basque"
    ) and "scores.json is stale" in notices(options, "problem")
    table = one["tables"][0]
    rows = {row[0]: row for row in table["rows"]}
    basque, swahili = (table["header"].index(name) for name in ("Basque", "Swahili"))
    assert rows["good"][basque] == ["-", ""] and rows["good"][swahili][0] != "-"
    assert not set("+-=") & {mark for row in rows.values() for mark in row[basque][1]}
    assert set("+") <= {mark for row in rows.values() for mark in row[swahili][1]}
    assert "wins-losses-ties" not in table["header"], "means over directions are not tested"
    faults = next(table for table in one["tables"] if "faults" in table["title"])
    assert {row[0]: row[1] for row in faults["rows"]} == {"base (baseline)": "42", "good": "21", "best": "42"}
    group = next(one for one in data["sentences"] if one["id"] == "udhr-English-Basque")
    system = next(own for own in group["systems"] if "good" in own["label"])
    assert system["translations"][3] == "Beste itzulpen bat." and system["scores"]["bleu"][3] is None
    assert system["scores"]["bleu"][2] is not None, "segments are matched by what was scored"


def test_segments_are_those_of_the_same_references_and_metric(tmp_path):
    test, names = udhr(), ("sources.txt", "references.txt")
    files = [tmp_path / name for name in names]
    for file, texts in zip(files, (test.sources, test.references), strict=True):
        file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    of_files = settings("files")
    folder = write(
        tmp_path / "t" / "m" / RUN.format("English", "Basque"), test.sources, worse(test.references, 0.2), of_files
    )
    manifest = folder / "manifest_translate.json"
    sides = dict(zip(("sources", "references"), ({"from": str(file)} for file in files), strict=True))
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"test_set": {"test": sides}}))
    scored(tmp_path / "t", "--segments", tmp_path / "t" / "segments.jsonl")
    lines = records(tmp_path / "t" / "segments.jsonl")
    lines = [line | {"lang": line["lang"] + 1, "bleu": line["bleu"] + 0.0001} for line in lines]
    other = tmp_path / "t" / "others.jsonl"  # by another identifier
    other.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    columns = [name for name in lines[0] if name != "reference"]
    cells = ",".join(f'"{lines[0][name]}"' for name in columns)
    (tmp_path / "t" / "without_references.csv").write_text(f"{','.join(columns)}\n{cells}\n", encoding="utf-8")
    data, options = collected(tmp_path / "t")
    assert data["sentences"][0]["systems"][0]["scores"].keys() == {"chrf", "bleu"}
    assert "by lang differ between files" in notices(options, "missing")
    other.unlink()
    files[1].write_text("\n".join(["Beste erreferentzia bat.", *test.references[1:]]) + "\n", encoding="utf-8")
    (group,) = collected(tmp_path / "t")[0]["sentences"]
    bleu = group["systems"][0]["scores"]["bleu"]
    assert bleu[0] is None and None not in bleu[1:]
    files[1].unlink()
    (group,) = collected(tmp_path / "t")[0]["sentences"]
    assert None not in group["systems"][0]["scores"]["bleu"], "without references here"


def test_what_was_computed_with_a_stale_system_goes_with_it():
    report = with_all_marks()
    baseline, stale = report["groups"][0]["systems"][0]["path"], report["groups"][0]["systems"][4]["path"]
    kept = evaluation.without(report, {(0, stale)})
    assert report == with_all_marks(), "the report itself is as it was"
    first, second = kept["groups"][:2]
    assert (first["clusters"], first["baseline"]) == ({}, None) and second == report["groups"][1]
    for row in first["systems"]:
        values = [value for value in row["scores"].values() if value]
        assert bool(values) == (row["path"] != stale)
        assert not any(key in value for value in values for key in ("better", "p", "p_holm", "difference"))
    assert {row["path"] for row in first["systems"]} >= {baseline, stale}


def test_marks_warnings_skipped_folders_and_failed_metrics_are_those_of_the_report(tmp_path):
    """Of runs that are not in the folder, which the page says, too."""
    report = with_all_marks() | {"skipped": {"outputs/x": "x is empty"}, "failed_metrics": {"comet": "no environment"}}
    report["groups"][0]["systems"][1] |= {"unanswered": 3, "contamination": ["trained on flores"]}
    report["groups"][1]["systems"][1] |= {"missing": 12}
    (tmp_path / "scores.json").write_text(json.dumps(report))
    (one,) = collected(tmp_path)[0]["reports"]
    assert set(one["marks"]) == set("+-^=~!<") and one["skipped"] == {"outputs/x": "x is empty"}
    notes = "\n".join(one["notes"])
    for part in (
        "COMET: not computed: no environment",
        "blaser chose among 8 candidates",
        "warning: the training data of TEaR was not decontaminated against flores",
        ": trained on flores",
        "3 unanswered",
        "partial: 12 of 1024 sentences are missing",
        "1000 of 1012 segments have a score",
        "~ COMET for",
    ):
        assert part in notes, part
    assert len(one["unknown"]) == len({row["path"] for group in report["groups"] for row in group["systems"]})


def test_a_report_of_an_older_version_without_digests_is_not_called_stale(two):
    report = json.loads((two / "scores.json").read_text())
    for group in report["groups"]:
        for row in group["systems"]:
            del row["translations_digest"], row["columns"]
    (two / "scores.json").write_text(json.dumps(report))
    (one,) = collected(two)[0]["reports"]
    assert not one["problems"] and len(one["unknown"]) == 6


def test_only_what_was_computed_again_is_said_to_be(two):
    assert any(note.endswith("are here: chrF++, BLEU") for note in collected(two)[0]["reports"][0]["notes"])
    report = json.loads((two / "scores.json").read_text())
    for group in report["groups"]:
        group["signatures"]["bleu"] = re.sub(r"\btok:[^|]+", "tok:flores200", group["signatures"]["bleu"])
    (two / "scores.json").write_text(json.dumps(report))
    (note,) = (one for one in collected(two)[0]["reports"][0]["notes"] if "computed again" in one)
    assert note.endswith("are here: chrF++") and "BLEU" in note.partition(";")[0]


@pytest.mark.parametrize(("metric", "title"), [("chrf", "chrF++"), ("bleu", "BLEU")])
def test_a_number_that_the_files_do_not_give_is_not_shown(two, metric, title):
    report = json.loads((two / "scores.json").read_text())
    assert any("p-values are as reported by scores.json" in note for note in collected(two)[0]["reports"][0]["notes"])
    report["groups"][0]["systems"][2]["scores"][metric]["score"] += 0.5
    (two / "scores.json").write_text(json.dumps(report))
    data, _ = collected(two)
    (problem, _) = data["reports"][0]["problems"]
    assert f"{title} of the files is" in problem and "the report says" in problem
    assert f"{report['groups'][0]['systems'][2]['scores'][metric]['score']:.2f}" not in json.dumps(
        data["reports"][0]["tables"]
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda group, row: row["scores"]["chrf"].update(score=77.0), "the report says 77.00"),
        (lambda group, row: group.update(tgt="Swahili"), "they are from English into Basque"),
    ],
)
def test_claims_of_a_report_without_digests_are_checked_too(two, change, said):
    report = json.loads((two / "scores.json").read_text())
    group = next(group for group in report["groups"] if group["tgt"] == "Basque")
    for row in group["systems"]:
        del row["translations_digest"]
    change(group, group["systems"][0])
    (two / "scores.json").write_text(json.dumps(report))
    data, options = collected(two)
    assert said in data["reports"][0]["problems"][0] and "scores.json is stale" in notices(options, "problem")


def test_changed_references_are_stale_too(tmp_path):
    test = udhr()
    sides = [tmp_path / f"{side}.txt" for side in ("src", "ref")]
    for path, texts in zip(sides, (test.sources, test.references), strict=True):
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    facts = {side: {"from": str(path)} for side, path in zip(("sources", "references"), sides, strict=True)}
    for model in ("a", "b"):
        folder = write(
            tmp_path / "t" / model / RUN.format("English", "Basque"),
            test.sources,
            worse(test.references, 0.2),
            {"x": 1},
        )
        manifest = {"settings": settings("files"), "test_set": {"test": facts}}
        (folder / "manifest_translate.json").write_text(json.dumps(manifest))
    scored(tmp_path / "t")
    assert not collected(tmp_path / "t")[0]["reports"][0]["problems"]
    sides[1].write_text("\n".join([*test.references[:-1], "Beste bat."]) + "\n", encoding="utf-8")
    problems = collected(tmp_path / "t")[0]["reports"][0]["problems"]
    assert "the references are others than those of the report" in problems[0]


def test_a_tree_that_has_moved_is_still_checked(two, tmp_path):
    shutil.move(two, tmp_path / "moved")
    data, _ = collected(tmp_path / "moved")
    assert not data["reports"][0]["problems"] and not data["reports"][0]["unknown"]
    shutil.rmtree(tmp_path / "moved" / "good")
    shutil.rmtree(tmp_path / "moved" / "best")  # a run of the baseline has the same name as theirs
    data, options = collected(tmp_path / "moved")
    assert len(data["reports"][0]["unknown"]) == 4 and not notices(options, "problem")
    run(tmp_path / "moved", "new", 0.3)
    assert "new/English_to_Basque" in notices(collected(tmp_path / "moved")[1], "missing")


@pytest.mark.parametrize(
    "content",
    [
        '{"groups": [',
        '{"groups": [{"systems": 1}], "trials": 1, "seed": 1}',
        '{"groups": [1], "trials": 1, "seed": 1}',
        '{"groups": {}}',
    ],
)
def test_a_damaged_report_is_said_and_the_others_are_shown(two, content):
    (two / "other.json").write_text(content)
    data, options = collected(two)
    assert len(data["reports"]) == 1 and data["sentences"]
    said = notices(options, "problem") + "\n".join(find(two).problems)
    assert "other.json" in said


def test_what_no_table_can_be_made_of_is_said(two):
    report = json.loads((two / "scores.json").read_text())
    report["groups"][0]["over_seeds"] = {"baseline": "base", "systems": [{}]}
    (two / "other.json").write_text(json.dumps(report))
    data, options = collected(two)
    assert [one["path"] for one in data["reports"]] == ["scores.json"]
    assert "other.json cannot be shown: KeyError" in notices(options, "problem")


def test_names_of_metrics_in_a_report_are_never_imported(two, tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nmetric = None\n")
    report, name = json.loads((two / "scores.json").read_text()), f"{tmp_path}/evil.py:metric"
    for group in report["groups"]:
        for kind in ("titles", "signatures"):
            group[kind][name] = "evil"
        group["metrics"][name] = {"higher_is_better": False, "low": 0, "high": 1}
        for row in group["systems"]:
            row["scores"][name] = {"score": 1.0}
    (two / "scores.json").write_text(json.dumps(report))
    lines = [line | {name: 0.25} for line in records(two / "segments.jsonl")]
    (two / "segments.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data, _ = collected(two)
    assert "evil" in json.dumps(data) and not (tmp_path / "ran").exists()
    (own,) = (metric for metric in data["sentences"][0]["metrics"] if metric["name"] == name)
    assert own == {"name": name, "title": "evil", "higher": False, "digits": 4}, "as the report says"


def test_scores_against_steps(tmp_path):
    for step, share in ((10, 0.5), (20, 0.2), (100, 0.1)):
        run(tmp_path / "t", f"checkpoint-{step}", share)
    report = scored(tmp_path / "t", "--metrics", "chrf", "--bootstrap", 50)
    (ours,) = collected(tmp_path / "t")[0]["reports"][0]["panels"]
    (theirs,) = series.panels(report)
    assert ours["title"] == theirs.title == "chrF++, udhr"
    assert ours["series"][0]["points"] == [list(point) for point in theirs.series[0].points]
    low, high = (ours["series"][0]["points"][0][place] for place in (2, 3))
    assert low < high
    file = tmp_path / "t" / "checkpoint-20" / RUN.format("English", "Basque") / "translate_0.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("eta ", "edo "), encoding="utf-8")
    (ours,) = collected(tmp_path / "t")[0]["reports"][0]["panels"]
    assert [point[0] for point in ours["series"][0]["points"]] == [10, 100], "a stale point is left out"


# Comparisons


def comparison(root: Path) -> dict:
    """What scripts/compare.py writes of two variants with two seeds, with their real scores."""
    from comptra import evaluate

    folders = {
        name: [[run(root / name, f"seed-{seed}", share + seed / 100)] for seed in (1, 2)]
        for name, share in (("native", 0.3), ("synthetic", 0.1))
    }
    args = evaluate.build_parser().parse_args([str(root), "--metrics", "chrf"])
    groups, failed = variants.score(folders, "native", args)
    rows = [{"name": name, "seeds": [1, 2], "equal_pairs": None, "facts": {"pairs": 9, "texts": 9}} for name in folders]
    report = {
        "experiment": "e",
        "baseline": "native",
        "samples": 2000,
        "seed": 12345,
        "variants": rows,
        "groups": groups,
    }
    assert not failed
    (root / "comparison.json").write_text(json.dumps(report | {"failed_metrics": {"comet": "no environment"}}))
    return report


def test_comparisons_with_seeds_and_intervals(tmp_path):
    report = comparison(tmp_path)
    data, options = collected(tmp_path)
    (one,) = data["comparisons"]
    assert data["reports"] == [] and not one["problems"] and not one["unknown"]
    expected = variants.tables(report)
    assert [(table["title"], [table["header"], *table["rows"]]) for table in one["tables"]] == expected
    assert one["notes"] == ["comet: not computed: no environment", *variants.notes(report)]
    labels = {system["label"] for system in data["sentences"][0]["systems"]}
    assert labels == {f"{name}, seed {seed}" for name in ("native", "synthetic") for seed in (1, 2)}
    file = next((tmp_path / "synthetic").rglob("translate_0.jsonl"))
    file.write_text(file.read_text(encoding="utf-8").replace("eta ", "edo "), encoding="utf-8")
    data, options = collected(tmp_path)
    (one,) = data["comparisons"]
    assert [table["title"] for table in one["tables"]] == ["data and cost"]
    assert "the table is left out, a score of" in one["problems"][0] and "comparison.json is stale" in notices(
        options, "problem"
    )


def test_scores_of_the_cache_are_shown_if_they_are_of_the_report_s_metric(two, tmp_path, monkeypatch):
    monkeypatch.setenv("TOPXGEN_CACHE", str(tmp_path / "cache"))
    report, name = json.loads((two / "scores.json").read_text()), "metricx-24-qe"
    for group in report["groups"]:
        group["titles"][name], group["signatures"][name] = "MetricX-24-QE", "m|digest:1"
    (two / "scores.json").write_text(json.dumps(report))
    test = udhr()
    texts = [
        line["translation"] for line in records(two / "good" / RUN.format("English", "Basque") / "translate_0.jsonl")
    ]
    asked = [Segment(source, text) for source, text in zip(test.sources, texts, strict=True)][:4]
    kept = ScoreCache(tmp_path / "cache" / "scores").open(name, "f1", "m|digest:1")
    kept.add(keys_of(asked, "eng_Latn", "eus_Latn"), [1.5, 2.5, 3.5, 4.5])
    group = next(one for one in collected(two)[0]["sentences"] if one["id"] == "udhr-English-Basque")
    system = next(own for own in group["systems"] if "good" in own["label"])
    assert system["scores"][name] == [1.5, 2.5, 3.5, 4.5, *[None] * 17]
    assert next(metric for metric in group["metrics"] if metric["name"] == name)["higher"] is False
    before = sorted((tmp_path / "cache").rglob("*"))
    ScoreCache(tmp_path / "cache" / "scores").open(name, "f2", "m|digest:2")
    group = collected(two)[0]["sentences"][0]
    assert name not in [metric["name"] for metric in group["metrics"]], "of other weights"
    assert sorted((tmp_path / "cache").rglob("*")) == before
