"""Which translations comptra.evaluate scores: partial runs, files of one's own, other lines, names of folders, mistakes."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from comptra import evaluation_sets
from comptra.scores import systems
from tests.support.evaluations import RUN, UDHR, original, settings, udhr, worse, write
from tests.support.runs import records
from topxgen.common import checksums
from topxgen.common.errors import UsageError
from topxgen.text import languages


def test_partial_runs(tmp_path, score):
    test = udhr()
    total = len(test.sources)
    folder = write(tmp_path / "m" / RUN.format("English", "Basque"), test.sources[:4], test.references[:4])
    file = folder / "translate_0.jsonl"
    code, _, said = score(tmp_path, *UDHR)
    assert code == 2 and f"{total - 4} of {total} sentences" in said and "--allow_partial" in said
    with file.open("a", encoding="utf-8") as out:
        out.write('{"sentence": "Every')
    code, _, said = score(tmp_path, *UDHR)
    assert code == 2 and "line 5" in said and said.count("\n") == 1
    code, shown, said = score(tmp_path, *UDHR, "--max_samples", 4)
    assert code == 0 and "line 5" not in said and "partial" not in shown
    code, shown, said = score(tmp_path, *UDHR, "--allow_partial")
    assert code == 0 and "line 5" in said
    assert f"partial: {total - 4} of {total}" in shown and "4 sentences" in shown and "100.00" in shown
    # A broken line in the middle is no run in progress.
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([lines[0], "oops", *lines[1:4]]) + "\n", encoding="utf-8")
    code, _, said = score(tmp_path, *UDHR, "--allow_partial")
    assert code == 2 and "line 2" in said
    file.write_text("")
    code, _, said = score(tmp_path, *UDHR, "--allow_partial")
    assert code == 2 and "no translations yet" in said
    write(tmp_path / "n" / RUN.format("English", "Basque"), test.sources[:-1], test.references[:-1])
    code, _, said = score(tmp_path / "n", *UDHR)
    assert code == 2 and f"1 of {total} sentences" in said


def test_a_model_behind_a_link_is_scored_once(tmp_path, score):
    test, here = udhr(), tmp_path / "here"
    for model, folder in (("a", here), ("b", tmp_path / "elsewhere")):
        write(folder / model / RUN.format("English", "Basque"), test.sources, test.references)
    (here / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (here / "again").symlink_to(here / "a")
    (here / "loop").symlink_to(here)
    code, _, said = score(here, *UDHR, "--json", tmp_path / "scores.json")
    assert code == 0, said
    (group,) = json.loads((tmp_path / "scores.json").read_text())["groups"]
    assert sorted(Path(system["path"]).parent.name for system in group["systems"]) == ["a", "b"]


def test_lines_without_an_answer_are_counted(tmp_path, score):
    test = udhr()
    folder = write(tmp_path / "m" / "run", test.sources, test.references, settings())
    file = folder / "translate_0.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    lines[2]["translation"] = None
    lines[3]["unanswered"] = lines[4]["unanswered"] = True
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, shown, said = score(tmp_path, "--metrics", "lang", "--csv", tmp_path / "s.csv")
    assert code == 0 and "m: 3 unanswered" in shown and "WARNING: 3 lines of" in said and "partial" not in shown
    (row,) = csv.DictReader((tmp_path / "s.csv").open(encoding="utf-8"))
    assert (row["unanswered"], row["empty"], row["missing"]) == ("3", "1", "0")


def test_systems_with_other_references_are_not_compared(tmp_path, score):
    test = udhr()
    sources = tmp_path / "src.txt"
    sources.write_text("\n".join(test.sources) + "\n", encoding="utf-8")
    for name, references in (("a", test.references), ("b", [*test.references[:-1], "Beste bat."])):
        path = tmp_path / f"{name}.txt"
        path.write_text("\n".join(references) + "\n", encoding="utf-8")
        folder = write(tmp_path / "runs" / name / "run", test.sources, test.references, settings("files"))
        facts = {"test": {"sources": {"from": str(sources)}, "references": {"from": str(path)}}}
        (folder / "manifest_translate.json").write_text(json.dumps({"settings": settings("files"), "test_set": facts}))
    options = ("--baseline", tmp_path / "runs" / "a", "--metrics", "chrf", "--json", tmp_path / "out.json")
    code, _, said = score(tmp_path / "runs", *options)
    groups = json.loads((tmp_path / "out.json").read_text())["groups"]
    assert code == 0 and [len(group["systems"]) for group in groups] == [1, 1] and "not compared" in said
    assert groups[0]["references_digest"] != groups[1]["references_digest"]


def test_tables_say_that_scores_are_of_the_first_sentences(tmp_path, score):
    """Beside other languages, of which the whole test set was translated."""
    files = [f"--{name}={tmp_path / name}" for name in ("markdown", "latex", "json")]
    for tgt, count in (("Basque", 6), ("Hausa", None)):
        test = udhr(tgt=tgt)
        name = RUN.format("English", tgt)
        write(
            tmp_path / "m" / name, test.sources[:count], test.references[:count], settings(tgt=tgt, max_samples=count)
        )
    code, out, _ = score(tmp_path / "m", "--metrics", "chrf", *files)
    note = f"udhr: the first 6 of {len(udhr().sources)} sentences (English to Basque)"
    assert code == 0
    assert all(note in text for text in (out, (tmp_path / "markdown").read_text(), (tmp_path / "latex").read_text()))
    _, out, _ = score(tmp_path / "m", "--metrics", "chrf", "--max_samples", 3)
    assert out.count("udhr: the first 3 of ") == len({len(udhr(tgt=tgt).sources) for tgt in ("Basque", "Hausa")})
    _, out, _ = score(tmp_path / "m" / RUN.format("English", "Hausa"), "--metrics", "chrf")
    assert "the first" not in out


@pytest.mark.parametrize(
    ("folders", "more"),
    [
        (("o", "o"), ({"template_key": "11"}, {"template_key": "14"})),  # in one folder, each with the plain name
        (("a", "b"), ({"weights": ["1"]}, {"weights": ["2"]})),  # two models whose last folders have one name
        (("a", "b"), ({"weights": ["1"]}, {"weights": ["1"]})),
    ],
)
def test_runs_of_other_prompts_or_weights_are_no_one_system(folders, more, tmp_path, score):
    """In different languages: a mean over both would be of neither."""
    for tgt, folder, own in zip(("Basque", "Hausa"), folders, more, strict=True):
        test = udhr(tgt=tgt)
        run = tmp_path / folder / "m" / RUN.format("English", tgt)
        write(run, test.sources, worse(test.references, 0.2), settings(tgt=tgt, k=5, seed=122) | own)
    _, shown, _ = score(tmp_path, "--metrics", "chrf")
    rows = 1 if more[0] == more[1] else 2
    table = shown.split("\n\n")[0].split("\n")
    assert len(table) == 2 + rows and shown.count("(1 of 2)") == (2 if rows == 2 else 0)


def test_two_outputs_of_one_name_are_named_by_their_folders(tmp_path, score):
    test, name = udhr(), RUN.format("English", "Basque")
    spaced = [f"{sentence} " for sentence in test.sources]  # as published in another file
    runs = [
        write(tmp_path / part / "m" / name, sentences, test.references, settings())
        for part, sentences in (("a", test.sources), ("b", spaced))
    ]
    score(tmp_path, "--metrics", "chrf", "--json", tmp_path / "s.json")
    (group,) = json.loads((tmp_path / "s.json").read_text())["groups"]
    assert [row["name"] for row in group["systems"]] == list(map(str, runs))


def test_translations_that_somebody_has_edited_are_named(tmp_path, score):
    test, table = udhr(), tmp_path / "scores.csv"
    run = write(tmp_path / "m" / "run", test.sources, worse(test.references, 0.3), settings())
    checksums.claim(run, ["translate_0.jsonl"])
    for is_edited in (False, True):
        if is_edited:
            text = (run / "translate_0.jsonl").read_text(encoding="utf-8")
            (run / "translate_0.jsonl").write_text(text.replace(worse(test.references, 0.3)[0], test.references[0]))
        code, shown, said = score(tmp_path, "--metrics", "chrf", "--csv", table)
        assert code == 0 and ("translations were changed" in shown) == ("was changed after" in said) == is_edited
        assert [row["edited"] for row in csv.DictReader(table.open())] == [str(is_edited)]


def test_max_samples_is_no_partial_run(tmp_path, score):
    test = udhr()
    write(tmp_path / "m" / "run", test.sources[:6], test.references[:6], settings(max_samples=6))
    for count, flags in ((6, ()), (4, ("--max_samples", 4)), (6, ("--max_samples", 9))):
        code, shown, said = score(tmp_path, "--metrics", "chrf", *flags)
        assert code == 0 and "partial" not in shown + said and f"{count} sentences" in shown


def test_files_of_ones_own_are_those_of_the_manifest(tmp_path, score):
    test = udhr()
    files = [tmp_path / "src.txt", tmp_path / "ref.txt"]
    for path, side in zip(files, (test.sources, test.references), strict=True):
        path.write_text("\n".join(side) + "\n", encoding="utf-8")
    folder = write(tmp_path / "m" / "run", test.sources, test.references, settings("files"))
    code, _, said = score(tmp_path)
    assert code == 2 and "--test_files" in said
    facts = evaluation_sets.load(
        "files", test.src, test.tgt, folder=None, max_samples=None, test_files=files, need_pool=False
    ).facts
    (folder / "manifest_translate.json").write_text(json.dumps({"settings": settings("files"), "test_set": facts}))
    code, shown, said = score(tmp_path)
    assert code == 0 and "files from English" in shown and "100.00" in shown and "WARNING" not in said, said
    files[1].write_text("\n".join(["Beste bat.", *test.references[1:]]) + "\n", encoding="utf-8")
    code, shown, said = score(tmp_path)
    assert (
        code == 0
        and re.search(
            r"the references of files from English into Basque are not those of .*: the scores use /\S+", said
        )
        and shown.count("100.00") == 1
    ), "the language"


@pytest.mark.parametrize("table", [False, True, "slice"])
def test_files_of_ones_own_are_found_from_another_folder(table, main_here, score, tmp_path, monkeypatch):
    """Also from the records of older versions, which hold the paths as they were typed, where main.py ran."""
    test, here, there = udhr(), tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "src.txt").write_text("\n".join(test.sources[:4]) + "\n", encoding="utf-8")
    (here / "ref.txt").write_text("\n".join(test.references[:4]) + "\n", encoding="utf-8")
    lines = (f"{i}\t{pair[0]}\t{pair[1]}\n" for i, pair in enumerate(zip(test.sources, test.references, strict=True)))
    (here / "t.tsv").write_text("n\ta\tb\n" + "".join(lines), encoding="utf-8")
    files = ("t.tsv:English=a", "t.tsv:Basque=b") if table else ("src.txt", "ref.txt")
    if table == "slice":
        files = ("t.tsv[1:3]:English=a", "ref.txt[1:3]")
    monkeypatch.chdir(here)
    out = ("--output_dir", tmp_path / "out", "--k", 0, "--dataset_name_or_path", "files")
    result = main_here(*out, "--test_files", *files)
    assert result.returncode == 0, result.stderr
    (path,) = (tmp_path / "out").glob("*/*/manifest_translate.json")
    sides = json.loads(path.read_text())["test_set"]["test"]
    if table == "slice":
        assert [line["sentence"] for line in records(path.with_name("translate_0.jsonl"))] == test.sources[1:3]
        again = main_here(*out, "--test_files", "src.txt[2:4]", "ref.txt[2:4]")
        assert again.returncode == 2 and "Traceback" not in again.stderr, again.stderr
    assert [sides[side]["from"] for side in ("sources", "references")] == [f"{here}/{name}" for name in files]
    monkeypatch.chdir(there)
    code, shown, said = score(tmp_path / "out")
    assert code == 0 and "files from English" in shown, said
    path.write_text(path.read_text().replace(f"{here}/", ""))
    code, _, said = score(tmp_path / "out")
    assert code == 2 and f"names the test file {files[0]} (relative to the folder where main.py ran)" in said
    assert "pass --test_files SRC REF" in said
    assert score(tmp_path / "out", "--test_files", *(here / name for name in files))[0] == 0
    monkeypatch.chdir(here)
    assert score(tmp_path / "out")[0] == 0


def test_a_run_that_goes_on_has_its_settings_only(tmp_path, score):
    test = udhr()
    folder = write(tmp_path / "m" / "run", test.sources[:6], test.references[:6])
    (folder / "settings_translate.json").write_text(json.dumps(settings()))
    code, shown, said = score(tmp_path, "--allow_partial")
    assert code == 0 and "partial" in shown, said


def test_a_run_with_files_of_its_own_that_is_not_finished(tmp_path, score):
    """Its manifest, which names the files, is written last."""
    test = udhr()
    folder = write(tmp_path / "m" / "run", test.sources[:6], test.references[:6])
    (folder / "settings_translate.json").write_text(json.dumps(settings("files")))
    code, _, said = score(tmp_path)
    assert code == 2 and f"{folder} has no manifest_translate.json that names its test files" in said
    assert "let main.py finish it, or pass --test_files" in said


def test_two_directions_say_nothing_twice(tmp_path, score):
    """No mean of one direction, and a warning on a system is one line, below all that explains the tables."""
    for model in ("base", "other"):
        original(tmp_path, model)
        original(tmp_path, model, src="Basque", tgt="English")
    code, shown, said = score(tmp_path, *UDHR, "--trials", 100, "--metrics", "chrf")
    assert code == 0, said
    assert "chrF++ all (2)" in shown and "(1)" not in shown
    lines = shown.splitlines()
    warnings = [i for i, line in enumerate(lines) if line.startswith("warning:")]
    assert len(warnings) == 1 and "no manifest_translate.json" in lines[warnings[0]]
    assert warnings[0] > max(i for i, line in enumerate(lines) if line.startswith(("chrF++: ", "p < ", "in brackets")))


def test_other_lines_than_the_benchmarks(tmp_path, score):
    test = udhr()
    folder = write(tmp_path / "m" / RUN.format("Basque", "English"), test.sources, test.references)
    code, _, said = score(tmp_path, *UDHR)
    assert code == 2 and "line 1" in said and test.sources[0][:30] in said and test.references[0][:30] in said
    shutil.rmtree(folder)
    swapped = [test.sources[1], test.sources[0], *test.sources[2:]]
    folder = write(tmp_path / "m" / "run", swapped, test.references, settings())
    assert score(tmp_path)[0] == 2
    shutil.rmtree(folder)
    write(folder, [*test.sources, "More."], [*test.references, "Gehiago."], settings())
    code, _, said = score(tmp_path)
    assert code == 2 and "only" in said


def test_a_folder_that_cannot_be_scored_does_not_stop_the_others(tmp_path, score):
    """An unknown language, a damaged line, an unfinished run, another data set: each is named, the rest is scored."""
    test = udhr()
    original(tmp_path, "good")
    write(tmp_path / "m" / RUN.format("English", "Klingon"), test.sources, test.references)
    damaged = original(tmp_path, "damaged") / "translate_0.jsonl"
    lines = damaged.read_bytes().split(b"\n")
    damaged.write_bytes(b"\n".join([lines[0], b'{"sentence": 3}', *lines[2:]]))
    write(tmp_path / "short" / RUN.format("English", "Basque"), test.sources[:3], test.references[:3])
    write(tmp_path / "foreign" / RUN.format("English", "Basque"), ["Other words."], ["x"])
    code, out, err = score(tmp_path, *UDHR, "--json", tmp_path / "scores.json")
    assert code == 3 and "\ngood " in out
    assert "Klingon" not in out and err.count("not scored: ") == 4 and "Traceback" not in err
    for words in ("English_to_Klingon_5_shot", "line 2", "sentences of udhr", "Other words."):
        assert words in err
    report = json.loads((tmp_path / "scores.json").read_text())
    assert len(report["skipped"]) == 4 and len(report["groups"]) == 1
    code, out, err = score(tmp_path / "m", *UDHR)
    assert code == 2 and "Klingon" in err and not out, "nothing is scored"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--metrics", "chrf", "--tokenize", "13a"), "--tokenize has no effect without --metrics bleu"),
        (("--bootstrap", 10**9), "'1000000000' is not a whole number from 0 to 1000000"),
        (("--csv", ""), "--csv is empty"),
        (("--csv=",), "--csv is empty"),
        (("--csv", "."), "--csv . is a directory"),
        (("--json", "nowhere/a.json"), "--json nowhere/a.json: there is no directory nowhere"),
        (("--json", "a.json", "--csv", "a.json"), "--csv and --json name the same file"),
    ],
)
def test_mistakes_are_found_before_anything_is_scored(flags, message, score, tmp_path, monkeypatch):
    original(tmp_path, "m")
    monkeypatch.chdir(tmp_path)
    code, out, err = score(tmp_path, *UDHR, *flags)
    assert code == 2 and message in err and not out and len(err.splitlines()) == 1


def test_what_is_not_there(tmp_path, score):
    code, _, said = score(tmp_path / "nowhere")
    assert code == 2 and "is not a folder" in said
    code, _, said = score(tmp_path)
    assert code == 2 and "no translate_0.jsonl" in said
    original(tmp_path, "m")
    code, _, said = score(tmp_path)
    assert code == 2 and "--dataset_name_or_path" in said and "udhr" in said
    code, _, said = score(tmp_path, *UDHR, "--csv", tmp_path / "no" / "s.csv")
    assert code == 2 and "s.csv" in said and said.count("\n") <= 2
    code, _, said = score(tmp_path, *UDHR, "--step", "1")
    assert code == 2 and "translate_1.jsonl" in said


def test_phrases_have_a_language_but_no_references(tmp_path, score):
    test = udhr()
    write(tmp_path / "m" / "run", test.sources, test.references, settings(), step=1)
    code, shown, said = score(tmp_path, "--step", 1)
    assert code == 0 and "lang %" in shown and "BLEU" not in shown, said
    code, _, said = score(tmp_path, "--step", 1, "--metrics", "bleu")
    assert code == 2 and "no references" in said


@pytest.mark.parametrize(
    ("src", "tgt"),
    [
        ("English", "Basque"),
        ("Modern Standard Arabic", "Chinese (Simplified)"),
        ("eng_Latn", "npi_Deva"),
        ("Tok Pisin", "Ta'izzi-Adeni Arabic"),
        ("Tok_Pisin", "Kabiyè"),
    ],
)
def test_directions_are_read_from_names(src, tgt):
    found = systems.direction_of(RUN.format(src, tgt))
    assert found == (languages.find(src.replace("Tok_", "Tok ")), languages.find(tgt))


@pytest.mark.parametrize("name", ["English_to_Klingonish_5_shot_seed_122_x", "checkpoint-100", "English_5_shot_seed_1"])
def test_names_without_a_direction(name):
    with pytest.raises(UsageError, match="Kling" if "Kling" in name else "src}_to_{tgt"):
        systems.direction_of(name)
