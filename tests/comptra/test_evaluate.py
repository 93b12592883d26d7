"""python -m comptra.evaluate on folders of translations, ours and the original's, against sacrebleu called by hand."""

import csv
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF, TER

from comptra import evaluation_sets
from comptra.scores import metrics, surface
from tests.support.evaluations import RUN, UDHR, ntrex_sides, original, settings, udhr, worse, write
from tests.support.runs import ROOT, records
from topxgen.text import languages


def test_scores_and_signatures_are_sacrebleus_in_both_layouts(tmp_path, score):
    test = udhr()
    first, second = worse(test.references, 0.2), worse(test.references, 0.25, seed=1)
    write(tmp_path / "ours" / "anything", test.sources, first, settings())
    original(tmp_path, "theirs", second)
    out = tmp_path / "scores.json"
    code, shown, said = score(tmp_path, *UDHR, "--json", out)
    assert code == 0, said
    (group,) = json.loads(out.read_text())["groups"]
    assert group["sentences"] == len(test.sources)
    bleu, chrf = BLEU(tokenize="13a"), CHRF(word_order=2)
    for system, translations in zip(group["systems"], (first, second), strict=True):
        for name, metric in (("bleu", bleu), ("chrf", chrf)):
            expected = metric.corpus_score(translations, [test.references])
            assert system["scores"][name]["score"] == pytest.approx(expected.score, abs=1e-9)
            assert f"{expected.score:.2f}" in shown
            assert group["signatures"][name] == str(metric.get_signature())
    assert said.count("13a") == 1, "the missing spm model is said once"


@pytest.mark.parametrize(("name", "scores"), [("bleu", surface.bleu_scores), ("chrf", surface.chrf_scores)])
def test_scores_of_sums_are_sacrebleus_at_the_edges_too(name, scores):
    """Single segments and small sums: no match of an order, no n-gram of it, empty translations and references."""
    test = udhr()
    references = [*test.references, "bai", "", "ez bai", "a", "bai", "bai bai bai"]
    hypotheses = [*worse(test.references, 0.7), "", "bai", "ez ez bai bai", "a", "bai bai bai", "bai"]
    hypotheses[3], hypotheses[5] = "zzz zzz", "eta"
    metric = BLEU(tokenize="13a") if name == "bleu" else CHRF(word_order=2)
    stats = np.array(metric._extract_corpus_statistics(hypotheses, [references]))
    chance = np.random.default_rng(0)
    sums = np.array(
        [stats[chance.choice(len(stats), size)].sum(axis=0) for size in (1, 1, 1, 2, 3, 10) for _ in range(200)]
    )
    sums = np.concatenate([stats, sums])
    expected = [metric._compute_score_from_stats(list(row)).score for row in sums]
    assert min(expected) == 0 and max(expected) > 20
    assert scores(sums.astype(float)) == pytest.approx(expected, abs=1e-9)


def test_scores_of_single_segments_are_sacrebleus(tmp_path, score):
    """BLEU of the orders that a segment has: a perfect translation of one word has 100, not 0."""
    references = ["Bai.", "Euria ari du.", "Bai", "Zubi zaharra itxi zuten atzo."]
    texts = ["Bai.", "Euria ari zuen.", "Bai", "Zubia itxi zuten."]
    for name, lines in (("src", [f"Sentence {i}." for i in range(4)]), ("ref", references)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    run = tmp_path / "m" / "English_to_Basque_0_shot_seed_122_llm_vanilla_0_0_0"
    run.mkdir(parents=True)
    lines = [json.dumps({"sentence": f"Sentence {i}.", "translation": text}) for i, text in enumerate(texts)]
    (run / "translate_0.jsonl").write_text("".join(f"{line}\n" for line in lines))
    files = ("--test_files", tmp_path / "src", tmp_path / "ref", "--segments", tmp_path / "s.jsonl")
    code, _, said = score(tmp_path / "m", *files, "--metrics", "bleu-13a", "chrf", "ter")
    assert code == 0, said
    rows = records(tmp_path / "s.jsonl")
    bleu, chrf, ter = BLEU(tokenize="13a", effective_order=True), CHRF(word_order=2), TER()
    for name, metric in (("bleu-13a", bleu), ("chrf", chrf), ("ter", ter)):
        expected = [
            metric.sentence_score(*pair).score for pair in zip(texts, [[one] for one in references], strict=True)
        ]
        assert [row[name] for row in rows] == pytest.approx(expected), name
    assert [row["bleu-13a"] for row in rows][::2] == pytest.approx([100, 100])


def test_chrf_is_chrf_plus_plus():
    """Character n-grams up to 6 and words up to 2, beta 2: the figure is sacreBLEU 2.6's."""
    language = languages.find("English")
    test = metrics.Test(language, language, ["x"] * 2, ["The cat sat on the mat.", "Two dogs ran."])
    scorer = metrics.create("chrf", test)
    sums = scorer.statistics(["The cat sits on a mat.", "Two dogs run."]).sum(axis=0)
    assert sums.shape == (24,) and scorer.title == "chrF++"
    assert "nc:6|nw:2" in scorer.signature
    assert scorer.scores(sums) == pytest.approx(52.07269735419536, abs=1e-6)


def test_the_share_of_the_language_and_metrics_of_ones_own(tmp_path, score):
    test = udhr()
    total = len(test.sources)
    original(tmp_path, "m", [*test.references[: total - 3], test.sources[0], "", "  "])
    own = tmp_path / "own.py"
    own.write_text(
        """import numpy as np
from comptra.scores.metrics import Scorer, mean_scores

def length(test, settings):
    \"\"\"Words per word of the reference, in percent, each segment alike.\"\"\"
    def statistics(translations):
        pairs = zip(translations, test.need_references(), strict=True)
        return np.array([[len(text.split()) / len(reference.split()), 1] for text, reference in pairs])
    return Scorer("length", "own", statistics, mean_scores)
"""
    )
    name = f"{own}:length"
    code, shown, said = score(tmp_path, *UDHR, "--metrics", "lang", name, "--json", tmp_path / "out.json")
    assert code == 0 and "length: own" in shown, said
    scores = json.loads((tmp_path / "out.json").read_text())["groups"][0]["systems"][0]["scores"]
    assert scores["lang"]["score"] == pytest.approx(100 * (total - 3) / total)
    ratio = len(test.sources[0].split()) / len(test.references[total - 3].split())
    assert scores[name]["score"] == pytest.approx(100 * (total - 3 + ratio) / total)
    code, _, said = score(tmp_path, *UDHR, "--metrics", f"{own}:lenght")
    assert code == 2 and "has no 'lenght' (did you mean length?)" in said
    write(tmp_path / "steps" / "run", test.sources, test.references, settings(), step=1)
    code, _, said = score(tmp_path / "steps", "--step", 1, "--metrics", name)
    assert code == 2 and "no references; choose --metrics lang" in said


def test_a_better_system_is_starred_and_files_hold_all(ntrex, tmp_path, score):
    """NTREX as published, in the original's layout: copies of the source against translations."""
    sources, references = ntrex_sides(ntrex, 1000)
    test = evaluation_sets.load(
        "ntrex", languages.find("English"), languages.find("Basque"), folder=ntrex, max_samples=None, need_pool=False
    )
    original(tmp_path, "copy", sources, test=test)
    better = worse(references, 0.3)
    better[7] = ""
    original(tmp_path, "better", better, test=test)
    files = ("--csv", tmp_path / "s.csv", "--json", tmp_path / "s.json")
    data = ("--dataset_name_or_path", "ntrex", "--benchmark_dir", ntrex)
    code, shown, said = score(tmp_path, "--baseline", tmp_path / "copy", *data, *files, "--trials", 200)
    assert code == 0, said
    base, row, _, faults = (line for line in shown.splitlines() if line.startswith(("copy ", "better ")))
    assert "(baseline)" in base and "+" not in base and row.count("+") == 3
    assert faults.split()[:3] == ["better", "1000", str(better.count(""))] and better.count("") > 0
    (group,) = json.loads((tmp_path / "s.json").read_text())["groups"]
    copied, scored = group["systems"]
    assert copied["scores"]["lang"]["score"] < 5 and scored["scores"]["lang"]["score"] > 95
    assert scored["scores"]["bleu"]["p"] == pytest.approx(1 / 201)
    assert scored["sentences"] == 1000 and scored["missing"] == 0
    rows = list(csv.DictReader((tmp_path / "s.csv").open(encoding="utf-8")))
    assert [row["system"] for row in rows] == [system["name"] for system in group["systems"]]
    assert float(rows[1]["bleu"]) == scored["scores"]["bleu"]["score"]
    assert rows[0]["bleu_p"] == "" and float(rows[1]["chrf_p"]) < 0.05
    assert rows[1]["bleu_signature"] == group["signatures"]["bleu"]


@pytest.mark.parametrize("flag", ["--csv", "--json", "--markdown", "--latex", "--segments"])
def test_only_an_earlier_file_of_the_same_kind_is_replaced(tmp_path, score, flag):
    test = udhr()
    write(tmp_path / "run", test.sources, test.references, settings())
    mine = tmp_path / "mine"
    for text in ("\\documentclass{article}\n", '{"sentence": "a", "translation": "b"}\n', "# Notes\n", "a,b\n1,2\n"):
        mine.write_text(text)
        code, _, said = score(tmp_path / "run", "--metrics", "chrf", flag, mine)
        assert code == 2 and f"{flag} {mine} exists and was not written by this command" in said
        assert mine.read_text() == text
    mine.write_text("")
    for _ in range(2):
        assert score(tmp_path / "run", "--metrics", "chrf", flag, mine)[0] == 0
    assert mine.stat().st_size > 100


def test_directions_are_scored_apart(tmp_path, score):
    original(tmp_path, "base")
    original(tmp_path, "base", src="Basque", tgt="English")
    original(tmp_path, "other", src="Basque", tgt="English")
    original(tmp_path, "alone", tgt="Hausa")
    options = ("--trials", 100, "--metrics", "chrf", "--json", tmp_path / "out.json")
    code, _, said = score(tmp_path, "--baseline", tmp_path / "base", *UDHR, *options)
    assert code == 0, said
    groups = json.loads((tmp_path / "out.json").read_text())["groups"]
    found = {(group["src"], group["tgt"]): len(group["systems"]) for group in groups}
    assert found == {("English", "Basque"): 1, ("Basque", "English"): 2, ("English", "Hausa"): 1}
    assert "English into Hausa" in said and "not compared" in said and "into Basque" not in said


def test_a_run_as_the_baseline_is_its_system_in_all_directions(tmp_path, score):
    """Methods share an --output_dir, so that no folder holds the runs of one of them alone."""
    for src, tgt in (("English", "Basque"), ("English", "Hausa"), ("Basque", "English")):
        test = udhr(src, tgt)
        for k in (0, 5):
            if (tgt, k) != ("Hausa", 0):
                name = f"{src}_to_{tgt}_{k}_shot_seed_122_llm_vanilla_None_0_0"
                write(tmp_path / "m" / name, test.sources, worse(test.references, 0.2), settings(src=src, tgt=tgt, k=k))
    base = tmp_path / "m" / "English_to_Basque_0_shot_seed_122_llm_vanilla_None_0_0"
    options = ("--baseline", base, "--metrics", "chrf", "--trials", 50, "--json", tmp_path / "out.json")
    code, shown, said = score(tmp_path, *options)
    assert code == 0 and "not compared" in said and "English into Hausa" in said
    groups = json.loads((tmp_path / "out.json").read_text())["groups"]
    found = {group["tgt"]: group["baseline"] and "_0_shot_" in group["baseline"] for group in groups}
    assert found == {"Basque": True, "English": True, "Hausa": None} and shown.count("(baseline)") == 4


def test_a_baseline_with_two_candidates_is_refused(tmp_path, score):
    test = udhr()
    for k in (1, 2):
        write(tmp_path / "base" / f"English_to_Basque_{k}_shot_seed_1_x", test.sources, test.references)
    code, _, said = score(tmp_path, "--baseline", tmp_path / "base", *UDHR)
    assert code == 2 and "name one" in said


def test_language_consistency(tmp_path, score):
    test = udhr()
    texts = [*test.references[:5], *test.sources[5:8], *[" "] * (len(test.sources) - 8)]
    original(tmp_path, "m", texts)
    out = tmp_path / "out.json"
    code, _, said = score(tmp_path, *UDHR, "--metrics", "lang", "--json", out)
    assert code == 0, said
    (group,) = json.loads(out.read_text())["groups"]
    assert group["systems"][0]["scores"]["lang"]["score"] == pytest.approx(100 * 5 / len(texts))
    assert group["systems"][0]["empty"] == len(texts) - 8


def test_an_empty_translation_is_in_no_language(monkeypatch):
    """Whatever the identifier makes of it."""
    identifier = SimpleNamespace(knows=lambda tgt: True, is_language=lambda texts, tgt: [True] * len(texts))
    monkeypatch.setattr(surface, "identifier_of", lambda lid_model: identifier)
    basque = languages.find("Basque")
    scorer = metrics.create("lang", metrics.Test(basque, basque, ["x"] * 4, None))
    assert scorer.scores(scorer.statistics(["Bat.", "", " \n", "Bi."]).sum(axis=0)) == 50


def test_scores_by_two_models_of_one_name_are_told_apart(monkeypatch, tmp_path):
    monkeypatch.setattr(surface, "identifier_of", lambda lid_model: SimpleNamespace(knows=lambda tgt: True))
    test, signatures = metrics.Test(*[languages.find("Basque")] * 2, ["x"], None), []
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        model = tmp_path / name / "lid.bin"
        model.parent.mkdir()
        model.write_bytes(content)
        signatures.append(metrics.create("lang", test, metrics.MetricSettings(lid_model=str(model))).signature)
    assert signatures[0] == signatures[1] != signatures[2] and signatures[0].startswith("lid:lid.bin|weights:")


def test_a_language_that_cld2_does_not_know(tmp_path, score):
    original(tmp_path, "a", tgt="Umbundu")
    original(tmp_path, "b", tgt="Umbundu")
    code, shown, said = score(
        tmp_path, *UDHR, "--baseline", tmp_path / "a", "--trials", 50, "--csv", tmp_path / "s.csv"
    )
    assert code == 0 and said.count("cannot identify Umbundu") == 1
    assert next(line for line in shown.splitlines() if line.startswith("b ")).split()[-2:] == ["-", "-"]
    rows = list(csv.DictReader((tmp_path / "s.csv").open(encoding="utf-8")))
    assert [row["lang"] for row in rows] == ["", ""]


def test_flores200_pieces_where_the_model_is(tmp_path, score, monkeypatch):
    """A SentencePiece model where sacrebleu keeps its own."""
    import sentencepiece
    from sacrebleu import utils
    from sacrebleu.tokenizers import tokenizer_spm

    test = udhr()
    model = tmp_path / "sacrebleu" / "models" / surface.spm_model("flores200").name
    model.parent.mkdir(parents=True)
    with model.open("wb") as out:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(test.references), model_writer=out, vocab_size=150, minloglevel=2
        )
    for module in (utils, tokenizer_spm):
        monkeypatch.setattr(module, "SACREBLEU_DIR", str(tmp_path / "sacrebleu"))
    surface.why_no_model.cache_clear()
    texts = worse(test.references, 0.2)
    runs = tmp_path / "runs"
    original(runs, "m", texts)
    code, _, said = score(runs, *UDHR, "--json", tmp_path / "out.json")
    (group,) = json.loads((tmp_path / "out.json").read_text())["groups"]
    expected = BLEU(tokenize="flores200").corpus_score(texts, [test.references]).score
    assert code == 0 and "tok:flores200" in group["signatures"]["bleu"] and "13a" not in said
    assert group["systems"][0]["scores"]["bleu"]["score"] == pytest.approx(expected, abs=1e-9)

    model.write_bytes(b"half a download")
    surface.why_no_model.cache_clear()
    code, _, said = score(runs, *UDHR)
    assert code == 0 and "tokenizer 13a" in said
    code, _, said = score(runs, *UDHR, "--tokenize", "flores200")
    assert code == 3 and str(model) in said and said.count("\n") == 1
    surface.why_no_model.cache_clear()


def test_tokenizers_of_scripts_without_spaces(tmp_path, score):
    original(tmp_path, "m", tgt="Thai")
    original(tmp_path, "m", tgt="Chinese (Simplified)")
    original(tmp_path, "m")
    original(tmp_path, "m", tgt="Hausa")
    _, shown, said = score(tmp_path, *UDHR, "--metrics", "bleu")
    assert "tok:char" in shown and "tok:zh" in shown and "BLEU into Basque, Hausa: " in shown
    several = "BLEU: the mean is over scores of different signatures, which are not comparable"
    assert shown.count(several) == 1
    original(tmp_path / "other", "m", src="Chinese (Simplified)", tgt="English")
    shown = score(
        tmp_path / "m" / RUN.format("English", "Chinese (Simplified)"), tmp_path / "other", *UDHR, "--metrics", "bleu"
    )[1]
    assert shown.count(several) == 1, "from and into English together"
    assert [said.count(f"tokenizer {name}") for name in ("char", "zh", "13a")] == [1, 1, 1]
    _, shown, said = score(tmp_path, *UDHR, "--metrics", "bleu", "--tokenize", "13a")
    assert shown.count("tok:13a") == 1 and "BLEU: nrefs" in shown and "not comparable" not in shown and not said


def test_the_tokenizers_are_sacrebleus():
    assert set(metrics.TOKENIZERS) - {"auto"} <= set(BLEU.TOKENIZERS)


def test_help_is_light():
    modules = "torch", "transformers", "numpy", "sacrebleu"
    code = f"import sys, comptra.evaluate as e; e.build_parser().format_help(); print([m for m in {modules} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_eval_sh_from_another_folder(tmp_path):
    original(tmp_path / "outputs", "a")
    original(tmp_path / "outputs", "b")
    environment = {**os.environ, "OUTPUT_DIR": "outputs", "BASELINE": "outputs/a", "HF_HUB_OFFLINE": "1"}
    command = ["bash", ROOT / "scripts" / "eval.sh", *UDHR, "--trials", "100", "--csv", "s.csv"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "(baseline)" in done.stdout and (tmp_path / "s.csv").is_file()
    done = subprocess.run(
        command, cwd=tmp_path, env={**environment, "BASELINE": "nowhere"}, capture_output=True, text=True
    )
    assert done.returncode == 2 and "nowhere is not a folder" in done.stderr
