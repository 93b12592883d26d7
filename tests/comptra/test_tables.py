"""Tables of scores: what they show of a report, in each format, with names and numbers that formats break on."""

import copy
import csv
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from comptra.scores.columns import COLUMNS, columns_of
from comptra.tables import MARKS, Cell, export, mark, matrix, metric_info
from tests.support import score_reports as reports
from tests.support.runs import in_process
from tests.support.score_reports import group, report, system, value, with_all_marks

RUN = Path("outputs/gemma-3-27b-it/English_to_Basque_5_shot_seed_122_llm_vanilla_None_0_0")
HOSTILE = [
    "a&b%c_d#e{f}g",
    "back\\slash|pipe~tilde^hat",
    "line\nbreak\ttab",
    "$x$ `code` <script>alert(1)</script> [link](http://x) *em* \"q\" 'q'",
    "ߒߞߏ N'Ko",
    "العربية",
    "日本語 한국어 नेपाली",
    "😀 emoji",
    "Bokmål Žemaitių ŋ ß – “q”",
    "\\end{table*} \\input{/etc/passwd}",
    "--flag",
    "[x] * star",
    "x" * 150,
    "\x1b[31mred\u202e",
]


def shown(table, heading: str) -> list[str]:
    """A column as a terminal shows it."""
    place = table.header.index(heading)
    return [
        row[place].text + row[place].all_marks if isinstance(row[place], Cell) else row[place] for row in table.rows
    ]


def named(made, *words):
    (found,) = [table for table in made if all(word in table.title for word in words)]
    return found


# Columns


def test_settings_tell_systems_apart():
    few_shot, tear = (columns_of(reports.COMMON | reports.METHODS[name], RUN) for name in ("few-shot", "TEaR"))
    assert {name for name in COLUMNS if few_shot[name] != tear[name]} == {"method"}
    assert few_shot == {
        "model": "gemma-3-27b-it", "method": "few-shot", "k": "5", "retriever": "bm25s", "template": "chat",
        "selection": "", "decoding": "greedy", "checkpoint": "", "seed": "122",
    }  # fmt: skip
    zero = columns_of(reports.COMMON | reports.METHODS["zero-shot"] | {"prompt_style": "raw"}, RUN)
    assert (zero["method"], zero["k"], zero["retriever"], zero["template"]) == ("zero-shot", "0", "", "11")
    best = columns_of(reports.COMMON | reports.METHODS["best of 8"], RUN)
    assert (best["selection"], best["decoding"]) == ("blaser of 8", "T=0.7, p=0.95")
    assert columns_of(reports.COMMON | {"num_return_sequences": 8}, RUN)["selection"] == "", "the first one of 8"
    several = {"num_beams": 4, "num_return_sequences": 2, "selection_method": "bleu", "repetition_penalty": 1.1}
    beams = columns_of(reports.COMMON | several, RUN)
    assert (beams["selection"], beams["decoding"]) == ("bleu of 2", "beam 4, penalty 1.1")
    for chosen, shown in (("greedy", "blaser of 4"), ("comet-qe", "comet-qe of 4")):
        maps = columns_of(reports.COMMON | {"method_translate": "maps", "selection_method": chosen}, RUN)
        assert maps["selection"] == shown
    encoder_decoder = columns_of(
        {"method_translate": "nllb", "temperature": 0.0, "template_key": "11", "k": 0, "steps": 0}, RUN
    )
    assert (encoder_decoder["decoding"], encoder_decoder["template"]) == ("beam 5", "")
    nested = reports.COMMON | {
        "steps": 2,
        "method_divide": "llm",
        "mode_divide": "paraphrase",
        "merge_prompt": "refine",
    }
    nested |= {"method_translate": "cot", "number_of_refining_steps": 2, "refine_after_merge": 1}
    assert (
        columns_of(nested, RUN)["method"]
        == "CompTra (llm, paraphrase, refine, 2 steps), cot, refined 2 times, merge refined"
    )
    adapter = {
        "model": "checkpoint-500",
        "base_model": "meta-llama/Meta-Llama-3-8B",
        "k": 0,
        "method_translate": "vanilla",
    }
    checkpoint = columns_of(adapter, Path("o/checkpoint-500/run"))
    assert (checkpoint["model"], checkpoint["checkpoint"]) == ("Meta-Llama-3-8B", "500")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"GENERATIONS/FLORES/TEaR/{RUN.parent.name}/{RUN.name}", {"method": "TEaR", "k": "5", "seed": "122"}),
        (f"GENERATIONS/FLORES/SONAR/m/{RUN.name}", {"method": "few-shot", "retriever": "SONAR", "model": "m"}),
        ("g/checkpoint-1500/English_to_Igbo_0_shot_seed_1_llm_vanilla_None_0_0", {"method": "zero-shot", "checkpoint": "1500"}),
        ("g/m/a_to_b_5_shot_seed_1_structural_norefine_None_1_0", {"method": "CompTra (structural, norefine)"}),
        ("g/m/a_to_b_5_shot_seed_1_llm_vanilla_3_0_2", {"method": "few-shot, refined 2 times", "decoding": ""}),
        ("g/m/anything", {"model": "m", "method": "", "k": "", "seed": ""}),
    ],
)  # fmt: skip
def test_folders_of_the_original_code_tell_what_they_can(path, expected):
    found = columns_of({}, Path(path))
    assert {name: found[name] for name in expected} == expected


def test_settings_of_a_wrong_type_are_one_line(tmp_path):
    folder = tmp_path / "m" / RUN.name
    folder.mkdir(parents=True)
    (folder / "translate_0.jsonl").write_text('{"sentence": "a", "translation": "b"}\n')
    settings = {"src": "English", "tgt": "Basque", "dataset_name_or_path": "udhr", "num_beams": "four"}
    (folder / "settings_translate.json").write_text(json.dumps(settings))
    result = in_process("comptra.evaluate", tmp_path)
    assert result.returncode == 2 and "num_beams" in result.stderr and result.stderr.count("\n") == 1


# Matrices


def test_a_matrix_for_each_metric_and_direction_chrf_first():
    made = matrix.tables(with_all_marks())
    assert [table.title for table in made] == [
        *("chrF++, flores from English", "chrF++, flores into English", "BLEU, flores from English"),
        *("BLEU, flores into English", "MetricX-24, flores from English", "MetricX-24, flores into English"),
        *("COMET, flores from English", "COMET, flores into English", "means, flores", "faults of outputs, flores"),
    ]
    table = made[0]
    assert table.header == ["method", "k", "retriever", "selection", "decoding", "Basque", "Hausa", "Igbo", "mean of 3"]
    assert [row[: table.described] for row in table.rows] == [
        ["zero-shot (baseline)", "0", "-", "-", "greedy"],
        ["few-shot", "5", "bm25s", "-", "greedy"],
        ["TEaR", "5", "bm25s", "-", "greedy"],
        ["CompTra (llm)", "5", "bm25s", "-", "greedy"],
        ["few-shot", "5", "bm25s", "blaser of 8", "T=0.7, p=0.95"],
    ]
    assert "all systems: model gemma-3-27b-it, template chat, seed 122" in table.notes


def test_best_tied_better_worse():
    made = matrix.tables(with_all_marks())
    chrf, metricx = named(made, "chrF++", "from"), named(made, "MetricX", "from")
    assert shown(chrf, "Basque") == ["40.00", "41.00+", "42.00-", "43.00=", "44.00+^"]
    assert shown(metricx, "Basque") == ["9.00", "8.00+", "7.00-", "6.00<", "5.00+^"], "the lowest is the best"
    assert shown(metricx, "mean of 3")[3] == "6.00<"
    equal = report(group("English", "Igbo", [system(name, "English", "Igbo", {"chrf": value(score)}) for name, score in
                   (("few-shot", 50.001), ("TEaR", 50.004), ("CompTra", 49.99))], ["chrf"]))  # fmt: skip
    assert shown(matrix.tables(equal)[0], "chrF++") == ["50.00^", "50.00^", "49.99"], "equal as shown"
    single = report(group("English", "Igbo", [system("TEaR", "English", "Igbo", {"chrf": value(50)})], ["chrf"]))
    assert shown(matrix.tables(single)[0], "chrF++") == ["50.00"], "nothing to be better than"


def test_marks_are_what_the_report_says():
    values = ({"better": True}, {"better": False}, {"better": None, "p_holm": 0.001}, {"score": 1})
    assert [mark(value) for value in values] == ["+", "-", "", ""]


def test_a_system_that_lacks_a_language_has_a_marked_mean_and_is_not_the_best():
    given = with_all_marks()
    for one in given["groups"]:
        for row in one["systems"]:
            if "TEaR" in row["path"]:
                row["scores"]["chrf"]["score"] = 90.0
    made = matrix.tables(given)
    chrf = named(made, "chrF++", "from")
    assert shown(chrf, "Igbo")[2] == "-" and shown(chrf, "Basque")[2] == "90.00-^"
    assert shown(chrf, "mean of 3") == ["40.10", "41.10", "90.00 (2 of 3)", "43.10", "44.10^"]
    means = named(made, "means")
    assert (
        shown(means, "chrF++ all (6)")[2] == "90.00 (5 of 6)" and shown(means, "chrF++ into English (3)")[2] == "90.00^"
    )


def test_a_language_that_a_metric_does_not_know_is_in_no_mean():
    given = with_all_marks()
    for row in given["groups"][0]["systems"]:
        row["scores"]["comet"] = None
    made = named(matrix.tables(given), "COMET", "from")
    assert set(shown(made, "Basque")) == {"-"}
    assert shown(made, "mean of 2")[0] == "0.5000~" and shown(made, "mean of 2")[2] == "0.5200 (1 of 2)~"


def test_a_metric_that_failed_is_a_line_and_no_empty_matrices():
    given = with_all_marks() | {"failed_metrics": {"comet": "its model is not on this machine"}}
    for one in given["groups"]:
        for row in one["systems"]:
            row["scores"]["comet"] = None
    made = matrix.tables(given)
    assert not any("COMET" in table.title or "COMET" in " ".join(table.header) for table in made)
    assert made[0].notes[0] == "COMET: not computed: its model is not on this machine"
    (single, _) = matrix.tables(given | {"groups": given["groups"][:1]})
    assert set(shown(single, "COMET")) == {"-"}, "in one table the empty column stays"


def test_marks_are_explained_and_warned_of():
    text = export.terminal(with_all_marks())
    for sign, explanation in MARKS.items():
        assert text.count(f"\n{sign} {explanation}") == 1
    assert "~ COMET for Basque, Hausa, Igbo: Spearman below 0.4 (SSA-MTE)" in text
    assert re.search("! COMET of few-shot, k 5.*: blaser chose among 8 candidates", text)
    assert (
        "< MetricX-24 of CompTra (llm), k 5, retriever bm25s, greedy: 1000 of 1012 segments have a score (English to"
        in text
    )
    assert "warning: the training data of TEaR was not decontaminated" in text
    assert "MetricX-24: lower is better" in text and text.count("segments have a score") == 2
    plain = export.terminal(
        report(group("English", "Igbo", [system("TEaR", "English", "Igbo", {"chrf": value(50)})], ["chrf"]))
    )
    assert not any(explanation in plain for explanation in MARKS.values())


def test_one_direction_has_p_values_and_says_what_is_missing():
    one = with_all_marks()["groups"][0]
    one["systems"][3]["missing"] = 38
    table = matrix.tables(report(one), detailed=True)[0]
    assert shown(table, "BLEU p")[1] == "0.0100" and shown(table, "BLEU Holm")[1] == "0.0200"
    assert any(note.endswith("greedy: partial: 38 of 1050 sentences are missing") for note in table.notes)


def test_wins_and_marks_of_means_are_those_of_the_summary():
    given = with_all_marks()
    names = matrix.Systems(given["groups"])
    keys = {row["path"]: names.key(row) for row in given["groups"][0]["systems"]}
    assert len(set(keys.values())) == 5 and all("English" not in key for key in keys.values())
    few, comptra = (next(key for path, key in keys.items() if name in path) for name in ("few-shot", "CompTra"))
    for groups, expected in ((3, "41.10+"), (2, "41.10")):
        entry = {"metric": "chrf", "dataset": "flores", "direction": "eng->xx", "groups": groups, "of": 3}
        entry["systems"] = {few: {"wins": 2, "losses": 1, "ties": 0, "better": True}, comptra: {"mean": 1}}
        table = named(matrix.tables(given | {"summary": [entry]}), "chrF++", "from")
        assert shown(table, "wins-losses-ties") == ["-", "2-1-0", "-", "-", "-"]
        assert shown(table, "mean of 3")[1] == expected, "a mark is of the same directions as the mean"


def test_faults_are_added_up_over_directions():
    table = matrix.tables(with_all_marks())[-1]
    assert shown(table, "sentences") == ["6072", "6072", "5060", "6072", "6072"]
    assert shown(table, "copied") == ["6", "6", "5", "6", "6"]
    given = with_all_marks()
    for row in given["groups"][0]["systems"]:
        row["faults"] = {"copied": 0, "wrong_language": None}
    assert "wrong language: not determined for English to Basque" in matrix.tables(given)[-1].notes
    assert "faults" not in matrix.tables(report(given["groups"][0]))[-1].title


def test_several_seeds_have_a_table():
    one = with_all_marks()["groups"][0]
    entry = {"mean": 41.5, "sd": 0.5, "better": True}
    rows = [
        {"name": "outputs/*/m", "paths": ["a", "b"], "scores": {"chrf": entry}},
        {"name": "x", "paths": ["c"], "scores": {}},
    ]
    one["over_seeds"] = {"baseline": "x", "systems": rows}
    table = matrix.tables(report(one))[-1]
    assert table.header[:3] == ["system", "seeds", "chrF++"] and shown(table, "chrF++") == ["41.50 ± 0.50+", "-"]
    assert [row[0] for row in table.rows] == ["outputs/*/m", "x (baseline)"]
    assert len(table.notes) == 1
    entry["segments"] = one["sentences"] - 1
    table = matrix.tables(report(one))[-1]
    assert shown(table, "chrF++")[0] == "41.50 ± 0.50+<"
    numbers = f"{one['sentences'] - 1} of {one['sentences']}"
    assert f"of the {numbers} segments that all runs have a score of" in table.notes[1]


def test_equal_columns_are_told_apart_by_their_folders():
    rows = [system("few-shot", "English", "Igbo", {"chrf": value(40 + i)}) for i in range(2)]
    for row, folder in zip(rows, ("first", "second"), strict=True):
        row["path"] = row["path"].replace("few-shot", folder)
    table = matrix.tables(report(group("English", "Igbo", rows, ["chrf"])))[0]
    assert table.header == ["folder", "chrF++"] and len({row[0] for row in table.rows}) == 2
    assert all(folder in row[0] for folder, row in zip(("first", "second"), table.rows, strict=True))


def test_checkpoints_are_in_the_order_of_their_steps():
    rows = []
    for step in (1000, 200, 500):
        row = system("few-shot", "English", "Igbo", {"chrf": value(40)})
        rows.append(row | {"path": f"o/checkpoint-{step}/English_to_Igbo_5_shot_seed_122_llm_vanilla_None_0_0"})
    table = matrix.tables(report(group("English", "Igbo", rows, ["chrf"], baseline=None)))[0]
    assert table.header[0] == "checkpoint" and [row[0] for row in table.rows] == ["200", "500", "1000"]


def test_two_test_sets_of_one_direction_are_two_columns():
    rows = [system("few-shot", "English", "Igbo", {"chrf": value(40)})]
    other = group("English", "Igbo", copy.deepcopy(rows), ["chrf"], sentences=100)
    table = matrix.tables(report(group("English", "Igbo", rows, ["chrf"]), other))[0]
    assert table.header[1:] == ["Igbo (1012)", "Igbo (100)", "mean of 2"]
    digests = {"test": {"sources": {"sha256": "1"}, "references": {"sha256": "2"}}}
    parts = [group("English", "Igbo", copy.deepcopy(rows), ["chrf"], sentences=n, test_set=digests) for n in (9, 5)]
    assert matrix.tables(report(*parts))[0].header[1:] == ["Igbo (9)", "Igbo (5)"]
    files = [{"dataset": "files", "test_set": {"test": {"sources": {"from": f"/d/{name}.txt:x"}}}} for name in "ab"]
    own = report(*(group("English", "Igbo", copy.deepcopy(rows), ["chrf"], **more) for more in files))
    assert matrix.tables(own)[0].header[1:3] == ["Igbo (a.txt)", "Igbo (b.txt)"]
    three = report(*(group("English", "Igbo", copy.deepcopy(rows), ["chrf"]) for _ in range(3)))
    assert len(set(matrix.tables(three)[0].header)) == 5


def test_scores_that_are_no_numbers_are_dashes_everywhere():
    broken = [
        None,
        {},
        {"score": None},
        {"score": float("nan")},
        {"score": float("inf"), "interval": [float("nan"), 1]},
    ]
    names = [*reports.METHODS]
    rows = [system(name, "English", "Igbo", {"chrf": one}) for name, one in zip(names, broken, strict=True)]
    for made in (
        report(group("English", "Igbo", rows, ["chrf"])),
        report(*(group("English", x, rows, ["chrf"]) for x in "ab")),
    ):
        made["failed_metrics"] = {"chrf": "no model"}
        for text in (export.terminal(made), export.markdown(made), export.latex(made), export.csv_text(made)):
            assert not re.search(r"\b(nan|inf|None)\b", text.replace("vanilla_None_0_0", ""), re.IGNORECASE)
        assert "chrF++: not computed: no model" in export.terminal(made)


def test_decimals_fit_the_range_of_the_metric():
    one = {"titles": {}, "metrics": {name: dict(row) for name, row in reports.METRICS.items()}}
    one["metrics"]["blaser"] = {"low": 1.0, "high": 5.0}
    one["metrics"]["ter"] = {"low": 0.0, "high": float("inf")}
    formatted = {name: metric_info(one, name).format(0.98765) for name in one["metrics"]}
    assert formatted == {
        "bleu": "0.99", "chrf": "0.99", "metricx": "0.99", "comet": "0.9877", "blaser": "0.988", "ter": "0.99"
    }  # fmt: skip


# Formats


def test_wide_tables_fit_the_terminal_and_lose_nothing():
    languages = ["Basque", "Hausa", "Igbo", "Kinyarwanda", "Nepali", "Somali", "Sundanese", "Swahili", "Urdu", "Xhosa"]
    given = with_all_marks(languages)
    whole = export.terminal(given)
    for width in (66, 80, 120):
        tables_of_width = export.terminal(given, width).split("\nall systems:")[0]
        assert max(map(len, tables_of_width.splitlines())) <= width
        for cell in re.findall(r"\d\d\.\d\d[-+^=]*", whole.split("\nall systems:")[0]):
            assert cell in tables_of_width
        assert tables_of_width.count("CompTra") == 1, "a list at the top"
    assert "\n1  zero-shot (baseline)" in export.terminal(given, 80)
    assert "CompTra (llm) " in whole.split("\n\n")[0], "no numbers where there is room"


def test_markdown_is_a_table_with_bold_and_italics():
    text = export.markdown(with_all_marks())
    (row,) = [line for line in text.split("## ")[1].splitlines() if "blaser of 8" in line]
    assert [cell.strip() for cell in row.split("|")][6:9] == ["**44.00**+", "**44.10**+", "**44.20**+"]
    assert "*43.00*" in text and "- bold: best of the systems" in text and "0.5400\\~" not in text.split("COMET")[0]
    assert {line.count("|") for line in text.split("## ")[1].splitlines() if line.startswith("|")} == {10}


def test_latex_has_the_narrower_side_as_columns():
    """Booktabs rules, bold, underlined and superscripts; what describes the systems above or beside the scores."""
    wide, narrow = (
        export.latex(with_all_marks(names))
        for names in (["Basque", "Hausa", "Igbo", "Urdu", "Xhosa"], ["Igbo", "Urdu"])
    )
    for text, table in ((wide, wide.split("\\end{table*}")[0]), (narrow, narrow.split("\\end{table*}")[-3])):
        assert [text.count(rule) for rule in ("\\toprule", "\\midrule", "\\bottomrule")] == [
            text.count("{table*}") // 2
        ] * 3
        assert "\\hline" not in text and table.count("\\begin{tabular}") == 1
    lines = wide.split("\\toprule")[1].split("\\bottomrule")[0].splitlines()
    cells = [[cell.strip() for cell in line.removesuffix("\\\\").split("&")] for line in lines if "&" in line]
    assert [row[0] for row in cells] == [
        *("method", "k", "retriever", "selection", "decoding", "Basque", "Hausa", "Igbo", "Urdu", "Xhosa", "mean of 5"),
    ]
    assert cells[5][1:] == [
        "40.00", "41.00\\textsuperscript{+}", "42.00\\textsuperscript{$-$}", "\\underline{43.00}", "\\textbf{44.00}\\textsuperscript{+}"
    ]  # fmt: skip
    assert lines.index("\\midrule") == 6, "below what describes the systems"
    beside = export.latex(report(group("English", "Igbo", with_all_marks()["groups"][0]["systems"], ["chrf"])))
    header = beside.split("\\toprule")[1].splitlines()[1]
    assert (
        header.split("&")[-1].strip().startswith("chrF++")
        and beside.split("\\toprule")[1].splitlines()[2] == "\\midrule"
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_break_no_format(name):
    rows = [system(own, "English", "Igbo", {"chrf": value(40), "bleu": value(9)}) for own in ("few-shot", "TEaR")]
    for row, model in zip(rows, (name, "plain"), strict=True):
        row["columns"] = dict.fromkeys(COLUMNS, "") | {"model": model, "method": name}
    made = report(group("English", name, rows, dataset=name, signatures={"chrf": name}, warnings=[name]))
    text = export.terminal(made)
    assert "\x1b" not in text and "\u202e" not in text
    markdown = export.markdown(made)
    table = [line for line in markdown.split("\n## ")[0].splitlines() if line.startswith("|")]
    assert len(table) == 4 and {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {4}
    assert not re.search(r"(?<!\\)<|(?<!\\)\]\(", markdown)
    latex = export.latex(made)
    assert (
        latex.count("\\begin{table*}") == latex.count("\\end{table*}") == 2 and "\\input" not in latex.split("\n", 3)[3]
    )
    (first, _) = csv.DictReader(export.csv_text(made).splitlines(keepends=True))
    assert first["model"] == name and first["dataset"] == name, "CSV has names as they are"


def test_csv_says_what_each_system_is():
    rows = list(csv.DictReader(export.csv_text(with_all_marks()).splitlines()))
    assert len(rows) == 29 and [row["method"] for row in rows[:3]] == ["zero-shot", "few-shot", "TEaR"]
    best = rows[4]
    assert (best["selection"], best["decoding"], best["k"], best["seed"]) == (
        "blaser of 8",
        "T=0.7, p=0.95",
        "5",
        "122",
    )
    assert (best["chrf"], best["chrf_mark"], best["chrf_top"]) == ("44.0", "+", "1")
    ends = ("", "_low", "_high", "_difference", "_p", "_p_holm", "_mark", "_top", "_signature")
    assert [best[f"bleu{end}"] for end in ends] == ["14", "9.0", "15.5", "4", "0.01", "0.02", "+", "", "bleu|v:1"]
    assert best["comet_interference"] == "blaser chose among 8 candidates" and best["comet_reliability"] == "weak"
    assert rows[3]["metricx_segments"] == "1000" and best["faults_copied"] == "1"


def test_the_command_writes_what_it_shows(tmp_path):
    """Of a run of main.py, and of TEaR in the same model's folder elsewhere."""
    from tests.support.evaluations import settings, udhr, worse, write

    for src, tgt in (("English", "Basque"), ("English", "Hausa"), ("Basque", "English")):
        test = udhr(src, tgt)
        for method, share in (("vanilla", 0.3), ("TEaR", 0.1)):
            folder = tmp_path / method / "m_1" / f"{src}_to_{tgt}_5_shot_seed_122_llm_vanilla_None_0_0"
            more = settings(src=src, tgt=tgt, method_translate=method, k=5, retriever_type="bm25s", seed=122)
            write(folder, test.sources, worse(test.references, share), more)
    files = {name: tmp_path / f"scores.{name}" for name in ("csv", "json", "markdown", "latex")}
    flags = [word for name, path in files.items() for word in (f"--{name}", path)]
    result = in_process("comptra.evaluate", tmp_path, "--metrics", "bleu", "chrf", "--baseline", tmp_path / "vanilla",
                        "--trials", "200", *flags)  # fmt: skip
    assert result.returncode == 0, result.stderr
    written = json.loads(files["json"].read_text(encoding="utf-8"))
    assert result.stdout == export.terminal(written) + "\n"
    assert files["markdown"].read_text(encoding="utf-8") == export.markdown(written)
    assert files["latex"].read_text(encoding="utf-8") == export.latex(written)
    lines = result.stdout.splitlines()
    assert lines[0] == "chrF++, udhr from English" and lines[1].split()[:3] == ["method", "Basque", "Hausa"]
    assert lines[2].startswith("few-shot (baseline)") and re.match(r"TEaR +\d\d\.\d\d\+\^ ", lines[3])
    assert "all systems: model m_1, k 5, retriever bm25s, seed 122" in lines
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("flag", ["--markdown", "--latex"])
def test_files_that_cannot_be_written_are_found_before_the_scoring(flag, tmp_path):
    result = in_process("comptra.evaluate", tmp_path, flag, tmp_path / "none" / "f")
    assert result.returncode == 2 and f"{flag} {tmp_path}/none/f: there is no directory" in result.stderr
    same = in_process("comptra.evaluate", tmp_path, flag, tmp_path / "f", "--csv", tmp_path / "f")
    assert same.returncode == 2 and "name the same file" in same.stderr


def compiled(text: str, folder: Path, engine: str, encoding: str = "") -> str:
    """The text of the PDF that LaTeX makes of a paper with these tables."""
    (folder / "scores.tex").write_text(text, encoding="utf-8")
    preamble = f"\\usepackage[{encoding}]{{fontenc}}" if encoding else ""
    paper = f"\\documentclass{{article}}{preamble}\\usepackage{{booktabs,graphicx}}\\begin{{document}}\\input{{scores}}\\end{{document}}"
    (folder / "paper.tex").write_text(paper, encoding="utf-8")
    command = [engine, "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Overfull \\hbox" not in done.stdout.replace("\n", " ") or "x" * 60 in text
    return done.stdout


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex (Debian: texlive-latex-recommended)")
@pytest.mark.parametrize("encoding", ["", "T1"])
def test_latex_compiles_with_all_marks_and_hostile_names(tmp_path, encoding):
    text = export.latex(with_all_marks())
    for number, name in enumerate([*HOSTILE, "".join(map(chr, range(0xA0, 0x180)))]):
        rows = [system(own, "English", "Igbo", {"chrf": value(40), "bleu": value(9)}) for own in ("few-shot", "TEaR")]
        for row, model in zip(rows, (name, "plain"), strict=True):
            row["columns"] = dict.fromkeys(COLUMNS, "") | {"model": model, "method": name}
        more = group("English", name, rows, dataset=f"{number} {name}", signatures={"chrf": name}, warnings=[name])
        text += export.latex(report(more))
    out = compiled(text, tmp_path, "pdflatex", encoding)
    assert "Output written on paper.pdf" in out


@pytest.mark.skipif(not shutil.which("lualatex"), reason="no lualatex (Debian: texlive-latex-base)")
def test_other_scripts_are_themselves_where_the_engine_has_unicode(tmp_path):
    rows = [system("few-shot", "English", "Igbo", {"chrf": value(40)})]
    rows[0]["columns"] = dict.fromkeys(COLUMNS, "") | {"model": "ߒߞߏ"}
    text = export.latex(report(group("English", "Igbo", rows, ["chrf"])))
    assert r"\othertext{ߒߞߏ}{{[}U+07D2 U+07DE U+07CF{]}}" in text
    assert "Output written on paper.pdf" in compiled(text, tmp_path, "lualatex")
