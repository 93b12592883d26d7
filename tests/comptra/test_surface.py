"""Rows of METRICS that sacreBLEU computes, against sacreBLEU on published translations."""

import json
import random
from pathlib import Path

import pytest
import sentencepiece
from sacrebleu import utils
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.tokenizers import tokenizer_spm

from comptra.scores import metrics, surface
from comptra.scores.metrics import MetricSettings
from tests.support.evaluations import UDHR, original, udhr, worse
from tests.support.runs import in_process
from topxgen.text import languages

SENTENCEPIECE = ("flores101", "flores200", "spBLEU-1K")


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """SentencePiece models where sacreBLEU keeps its own."""
    folder = tmp_path_factory.mktemp("sacrebleu")
    with pytest.MonkeyPatch.context() as patch:
        for module in (utils, tokenizer_spm):
            patch.setattr(module, "SACREBLEU_DIR", str(folder))
        surface.why_no_model.cache_clear()
        for size, name in enumerate(SENTENCEPIECE):
            path = surface.spm_model(name)
            path.parent.mkdir(exist_ok=True)
            with path.open("wb") as out:
                texts = iter(udhr().references)
                sentencepiece.SentencePieceTrainer.train(
                    sentence_iterator=texts, model_writer=out, vocab_size=120 + 20 * size, minloglevel=2
                )
        yield folder
    surface.why_no_model.cache_clear()


SACREBLEUS = {
    "chrf": lambda: CHRF(word_order=2),
    "chrf6": lambda: CHRF(word_order=0),
    "ter": TER,
    "bleu-13a": lambda: BLEU(tokenize="13a"),
    **{f"bleu-{name}": lambda name=name: BLEU(tokenize=name) for name in SENTENCEPIECE},
}


@pytest.mark.parametrize("code, language", [("hau", "Hausa"), ("nep", "Nepali"), ("urd", "Urdu")])
@pytest.mark.medium
def test_corpora_and_segments_have_sacrebleus_scores(code, language, ntrex: Path, pieces):
    references = (ntrex / f"newstest2019-ref.{code}.txt").read_text(encoding="utf-8").split("\n")[:40]
    chance = random.Random(code)
    translations = worse(references, 0.3, seed=4)
    translations[5], translations[6] = "", references[6]
    for i in range(10, 30):  # TER moves blocks of words
        words = references[i].split()
        cut = chance.randrange(len(words))
        translations[i] = " ".join(words[cut:] + words[:cut])
    sources = (ntrex / "newstest2019-src.eng.txt").read_text(encoding="utf-8").split("\n")[:40]
    test = metrics.Test(languages.find("English"), languages.find(language), sources, references)
    for name, make in SACREBLEUS.items():
        scorer, theirs = metrics.create(name, test, MetricSettings()), make()
        statistics = scorer.statistics(translations)
        whole = theirs.corpus_score(translations, [references]).score
        assert float(scorer.scores(statistics.sum(axis=0))) == pytest.approx(whole, abs=1e-9)
        assert 1 < whole < 99, name
        single = [theirs.corpus_score([t], [[r]]).score for t, r in zip(translations, references, strict=True)]
        assert scorer.scores(statistics).tolist() == pytest.approx(single, abs=1e-9)
        assert scorer.signature == str(theirs.get_signature())
        assert scorer.title == metrics.METRICS[name].title
        assert scorer.higher_is_better == metrics.METRICS[name].higher_is_better


def test_a_lower_ter_is_better_in_table_and_report(tmp_path):
    test = udhr()
    original(tmp_path / "runs", "base", worse(test.references, 0.3))
    original(tmp_path / "runs", "good", worse(test.references, 0.05))
    original(tmp_path / "runs", "bad", worse(test.references, 0.8))
    flags = ("--metrics", "ter", "chrf++", "--baseline", tmp_path / "runs" / "base", "--trials", "200")
    result = in_process("comptra.evaluate", tmp_path / "runs", *UDHR, *flags, "--json", tmp_path / "out.json")
    assert result.returncode == 0, result.stderr
    (group,) = json.loads((tmp_path / "out.json").read_text())["groups"]
    assert group["metrics"]["ter"]["higher_is_better"] is False and group["titles"] == {"ter": "TER", "chrf": "chrF++"}
    by_name = {system["name"].split("/")[0]: system["scores"] for system in group["systems"]}
    assert by_name["good"]["ter"]["score"] < by_name["base"]["ter"]["score"] < by_name["bad"]["ter"]["score"]
    for name in ("ter", "chrf"):
        assert by_name["good"][name]["better"] is True and by_name["bad"][name]["better"] is False
    rows = {line.split()[0]: line for line in result.stdout.split("\n\n")[0].splitlines()}
    assert f"{by_name['good']['ter']['score']:.2f}+" in rows["good"]
    assert f"{by_name['bad']['ter']['score']:.2f}-" in rows["bad"]


def test_a_tokenizer_that_is_not_there_leaves_the_others(tmp_path, monkeypatch):
    original(tmp_path / "runs", "m")
    monkeypatch.setattr(utils, "SACREBLEU_DIR", str(tmp_path / "empty"))
    surface.why_no_model.cache_clear()
    names = ("bleu-spBLEU-1K", "bleu-13a", "chrf")
    result = in_process(
        "comptra.evaluate", tmp_path / "runs", *UDHR, "--metrics", *names, "--json", tmp_path / "o.json"
    )
    surface.why_no_model.cache_clear()
    assert result.returncode == 3
    assert result.stderr.count("\n") == 1 and "WARNING: bleu-spBLEU-1K is left out: BLEU with the" in result.stderr
    assert f"no spBLEU-1K model at {tmp_path}/empty/models/" in result.stderr
    report = json.loads((tmp_path / "o.json").read_text())
    scores = report["groups"][0]["systems"][0]["scores"]
    assert scores["bleu-spBLEU-1K"] is None and scores["bleu-13a"]["score"] > 0 and scores["chrf"]["score"] > 0
    assert list(report["failed_metrics"]) == ["bleu-spBLEU-1K"]
