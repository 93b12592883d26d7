"""comptra.evaluate --model_card: scores in the card of the model that translated, as the Hub reads them."""

import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import EvalResult, ModelCard

from comptra import verify
from comptra.tables.model_card import BEGIN, END, _relation, _split, _table, write
from tests.support import score_reports
from tests.support.main_runs import folder_of, options
from tests.support.runs import in_process
from topxgen.common.locks import OutputLock
from topxgen.common.provenance import weights_id

TRAIN = (
    "--dataset_name_or_path", "udhr", "--target_languages", "Basque", "--reverse", "--max_length", 256, "--max_steps", 2, "--eval_steps",
    2, "--save_steps", 2, "--test_size_ratio", 4, "--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 1,
)  # fmt: skip
LORA = ("--use_peft", "--lora_r", 4)


def run(script: str, *words, check: int = 0):
    result = in_process(script, *words)
    assert result.returncode == check, result.stderr
    return result


def read(folder: Path) -> ModelCard:
    return ModelCard((folder / "README.md").read_text(encoding="utf-8"), ignore_metadata_errors=False)


def scores(card: ModelCard) -> dict[tuple, float]:
    """Those of test sets, not of held-out pairs."""
    return {
        (one.dataset_name, one.dataset_config, one.metric_type, one.metric_name): one.metric_value
        for one in card.data.eval_results or []
        if one.metric_args
    }


@pytest.fixture(scope="module")
def models(tiny_lm, tmp_path_factory) -> Path:
    """An adapter, what it is merged into, and translations of both and of the base model."""
    folder = tmp_path_factory.mktemp("cards")
    run("train.py", "--model_name_or_path", tiny_lm, "--output_dir", folder / "basque", *TRAIN, *LORA)
    run("scripts/merge_lora.py", folder / "basque", folder / "merged")
    for model in (tiny_lm, folder / "basque", folder / "merged"):
        words = options(
            str(model), k=0, lora_rank=4 if model == folder / "basque" else None, output_dir=folder / "translations"
        )
        run("main.py", *words)
    run(
        "main.py",
        *options(
            str(folder / "merged"),
            "--src",
            "Basque",
            k=1,
            tgt="English",
            lora_rank=None,
            output_dir=folder / "translations",
        ),
    )
    return folder


@pytest.fixture
def place(models, tmp_path) -> Path:
    """A copy whose cards may be changed."""
    shutil.copytree(models, tmp_path / "cards")
    return tmp_path / "cards"


def evaluate(place: Path, *more, check: int = 0):
    words = ("--metrics", "bleu", "chrf", "--tokenize", "13a", "--json", place / "scores.json", *more)
    return run("comptra.evaluate", place / "translations", *words, check=check)


@pytest.mark.medium
def test_scores_in_cards_are_verified(place):
    """By the reports, which are checked by the translations, and those of held-out pairs by the log."""
    evaluate(place, "--model_card", place / "basque", place / "merged")
    audit = verify.verify(place)
    assert not verify.verify(place / "translations").problems, "its folders bear the names of the models"
    assert not audit.problems and not any("model-index" in why for whys in audit.unchecked.values() for why in whys)
    for folder, old, said in (
        ("basque", "name: chrF++ (", "model-index: chrF++ ("),
        ("merged", "name: BLEU (", "model-index: BLEU ("),
        ("basque", "name: loss\n", "model-index.loss "),
    ):
        card = place / folder / "README.md"
        text = card.read_text()
        before, _, rest = text.rpartition(old) if "\n" in old else text.partition(old)
        above, found, value = before.rpartition("value: ")
        assert found
        card.write_text(f"{above}value: 1{value}{old}{rest}")
        found = [str(problem) for problem in verify.verify(place).problems]
        card.write_text(text)
        assert any(said in line for line in found), found
    card.write_text(re.sub(r"(?m)^( +translations:) \S+$", r"\1 'another'", text))
    assert any("no report here is of these" in why for whys in verify.verify(place).unchecked.values() for why in whys)
    (place / "scores.json").unlink()
    assert any("no report here" in why for whys in verify.verify(place).unchecked.values() for why in whys)


@pytest.mark.medium
def test_the_card_of_a_trained_and_of_a_merged_model(models):
    trained, merged = read(models / "basque").data, read(models / "merged").data
    assert (trained.library_name, merged.library_name) == ("peft", "transformers")
    assert {one.metric_type for one in trained.eval_results} == {"loss"} and trained.model_name == "basque"
    assert trained.base_model is None, "the small model has no name on the Hub"


def test_scores_go_to_the_model_that_translated(place):
    evaluate(place, "--model_card", place / "merged", place / "basque", "--bootstrap", "20")
    report = json.loads((place / "scores.json").read_text())
    found = {(g["src"], row["columns"]["model"]): row for g in report["groups"] for row in g["systems"]}
    merged, basque = read(place / "merged"), read(place / "basque")
    chrf = {src: round(found[src, "merged"]["scores"]["chrf"]["score"], 4) for src in ("English", "Basque")}
    assert {key[1:]: value for key, value in scores(merged).items() if key[2] == "chrf"} == {
        ("English to Basque", "chrf", "chrF++ (zero-shot, greedy, template 14)"): chrf["English"],
        ("Basque to English", "chrf", "chrF++ (few-shot, 1-shot, bm25s, greedy, template 14)"): chrf["Basque"],
    }
    assert len(scores(merged)) == 4
    low, high = found["English", "merged"]["scores"]["chrf"]["interval"]
    intervals = [one.metric_args["interval"] for one in merged.data.eval_results if one.metric_args]
    assert low < high and [round(low, 4), round(high, 4)] in intervals
    assert {one.dataset_split for one in merged.data.eval_results if one.metric_args} == {"test[:4]"}
    # The adapter's card has its own translations and those of the model it was merged into.
    named = {(config, name) for _, config, metric, name in scores(basque) if metric == "chrf"}
    assert named == {
        ("English to Basque", "chrF++ (zero-shot, greedy, template 14)"),
        ("English to Basque", "chrF++ (merged, zero-shot, greedy, template 14)"),
        ("Basque to English", "chrF++ (merged, few-shot, 1-shot, bm25s, greedy, template 14)"),
    }
    assert len(scores(basque)) == 6
    held_out = [one for one in basque.data.eval_results if not one.metric_args]
    assert {one.metric_type for one in held_out} == {"loss"}, "what was there is kept"
    table = basque.text.partition(BEGIN)[2].partition(END)[0]
    assert table.count("\n| udhr test[:4] | ") == 6 and " to " in table and "`nrefs:1|" in table
    assert basque.text.index(BEGIN) < basque.text.index("## Licence") < basque.text.index("## Data")
    checked = run("scripts/verify.py", place / "basque").stdout
    assert "everything checked holds" in checked, checked
    assert "README.md" in (place / "basque" / "SHA256SUMS").read_text()
    for line in ("## Use", "## Evaluation", "## Training", "## Versions"):
        assert basque.text.count(line) == 1


def test_scores_are_replaced_by_those_of_the_same_and_others_kept(place):
    card = place / "merged"
    evaluate(place, "--model_card", card)
    first = (card / "README.md").read_text(encoding="utf-8")
    evaluate(place, "--model_card", card)
    assert (card / "README.md").read_text(encoding="utf-8") == first, "the same scores change nothing"
    run("comptra.evaluate", place / "translations", "--metrics", "chrf", "--max_samples", "2", "--model_card", card)
    ours = [(one.dataset_split, one.metric_type) for one in read(card).data.eval_results if one.metric_args]
    assert sorted(ours) == [("test[:2]", "chrf")] * 2 + [("test[:4]", "bleu")] * 2 + [("test[:4]", "chrf")] * 2
    text = read(card).text
    assert text.count(BEGIN) == text.count(END) == 1 and "| udhr test[:2] | " in text
    report = json.loads((place / "scores.json").read_text())
    for row in (row for group in report["groups"] for row in group["systems"]):
        row["scores"]["chrf"]["score"] += 1  # as of a translation that has changed
    assert write(report, [card]) == []
    whole = [one for one in read(card).data.eval_results if one.dataset_split == "test[:4]"]
    assert len(whole) == 4 and len(scores(read(card))) == 6 - 2, "the others have the names of these"
    before = scores(ModelCard(first))
    for one in whole:
        raised = one.metric_type == "chrf"
        key = one.dataset_name, one.dataset_config, one.metric_type, one.metric_name
        assert one.metric_value == pytest.approx(before[key] + raised, abs=1e-3)


@pytest.mark.parametrize(
    ("files", "change"),
    [
        ("merged/model.safetensors", lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]),
        (
            "translations/merged/*/translate_0.jsonl",
            lambda data: data.replace(b'"translation": "', b'"translation": "Bai ', 1),
        ),
    ],
)
def test_scores_of_other_weights_and_of_edited_translations_are_left_out(place, files, change):
    for path in place.glob(files):
        path.write_bytes(change(path.read_bytes()))
    before = (place / "merged" / "README.md").read_bytes()
    result = evaluate(place, "--model_card", place / "merged")
    assert "merged: no complete translations of this model were scored, and its card is unchanged" in result.stderr
    assert (place / "merged" / "README.md").read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda card: card.unlink(), "has no README.md; pass the --output_dir of train.py"),
        (lambda card: card.write_text("---\nbase_model: {\n---\n"), "is not a model card that can be read"),
        (lambda card: card.write_text("---\nmodel-index: 3\n---\n"), "is not a model card that can be read"),
    ],
)
def test_folders_without_a_card_are_refused_before_anything_is_scored(place, damage, message):
    damage(place / "merged" / "README.md")
    result = evaluate(place, "--model_card", place / "merged", check=2)
    assert message in result.stderr and result.stderr.count("\n") == 1 and not (place / "scores.json").exists()


def test_scores_in_the_table_have_the_decimals_of_their_metric():
    facts = {"interval": [0.8401, 0.86], "segments": 1012, "signature": "s"}
    named = {"dataset_type": "f", "dataset_name": "flores", "dataset_config": "English to Basque"}
    values = {"metric_type": "comet", "metric_name": "COMET (zero-shot)", "metric_value": 0.8512, "metric_args": facts}
    assert "| COMET (zero-shot) | 0.8512 | 0.8401 to 0.8600 | 1012 |" in _table(
        [EvalResult("translation", **named, **values)]
    )


def test_a_card_without_front_matter_gets_one_and_keeps_its_text(place):
    (place / "merged" / "README.md").write_text("# Mine\n\nWords of my own: naïve, 漢字.\n", encoding="utf-8")
    evaluate(place, "--model_card", place / "merged")
    card = read(place / "merged")
    assert card.text.lstrip().startswith("# Mine\n\nWords of my own: naïve, 漢字.\n") and len(scores(card)) == 4
    assert card.data.model_name == "merged"


def test_a_base_model_does_not_get_the_scores_of_its_adapters(place, tiny_lm):
    shutil.copytree(tiny_lm, place / "base")
    (place / "base" / "README.md").write_text("# Base\n")
    evaluate(place, "--model_card", place / "base")
    assert {key[2:] for key in scores(read(place / "base"))} == {
        ("chrf", "chrF++ (zero-shot, greedy, template 11)"),
        ("bleu", "BLEU (zero-shot, greedy, template 11)"),
    }


@pytest.mark.parametrize(("sentences", "expected"), [(1012, "devtest"), (100, "devtest[:100]")])
def test_scores_of_the_first_sentences_are_not_those_of_the_test_set(sentences, expected):
    test = {"references": {"part": "devtest"}, "pairs": sentences, "of": 1012}
    assert _split({"sentences": sentences, "test_set": {"test": test}}) == expected


def test_own_test_sets_do_not_replace_each_other(tmp_path):
    (tmp_path / "README.md").write_text("# Mine\n")
    run = tmp_path / "out" / "English_to_Igbo_5_shot_seed_122"
    run.mkdir(parents=True)
    (run / "manifest_translate.json").write_text(json.dumps({"model": str(tmp_path)}))
    rows = [
        score_reports.system(
            "few-shot", "English", "Igbo", {"chrf": score_reports.value(40)}, path=str(run), columns={}
        )
    ]
    for place, digest in (("a/news.txt[:9]", "1"), ("b/health.csv:English=1", "2"), ("c/health.csv", "3")):
        facts = {"test": {"sources": {"from": f"/{place}", "part": ""}, "references": {"part": ""}}}
        more = {"dataset": "files", "test_set": facts, "references_digest": digest}
        assert (
            write(score_reports.report(score_reports.group("English", "Igbo", rows, ["chrf"], **more)), [tmp_path])
            == []
        )
    names = [one.dataset_name for one in read(tmp_path).data.eval_results]
    assert names == ["news.txt[:9]", "health.csv", "health.csv"] and "| news.txt[:9] |" in read(tmp_path).text


def test_of_a_trained_base_model_and_its_adapter_the_adapter_translated(tmp_path):
    base, adapter, run = (tmp_path / name for name in ("base", "adapter", "run"))
    for folder in (base, adapter, run):
        folder.mkdir()
    (base / "model.safetensors").write_bytes(b"base")
    (adapter / "adapter_model.safetensors").write_bytes(b"adapter")
    weights = {folder: weights_id(folder) for folder in (base, adapter)}
    models = [
        {"kind": "model", "name": str(folder), "stage": "train", "weights": weights[folder]}
        for folder in (adapter, base)
    ]
    manifest = {"model": str(adapter), "lineage": {"models": models, "demonstrations": None}}
    (run / "manifest_translate.json").write_text(json.dumps(manifest))
    assert (_relation(run, adapter), _relation(run, base)) == ("", None)
    (run / "manifest_translate.json").write_text(json.dumps({"model": str(base)}))  # of an older version
    assert (_relation(run, adapter), _relation(run, base)) == (None, "")


@pytest.mark.parametrize("last", [b"", b'{"sentence": %s, "translation": "", "unanswered": true}\n'])
def test_translations_that_are_not_complete_have_no_place_in_a_card(last, place):
    for path in (place / "translations" / "merged").glob("*/translate_0.jsonl"):
        *lines, cut = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines) + (last and last % json.dumps(json.loads(cut)["sentence"]).encode()))
        (path.parent / "SHA256SUMS").unlink()  # it would be an edited file
    result = evaluate(place, "--model_card", place / "merged", "--allow_partial")
    assert "its card is unchanged" in result.stderr and not scores(read(place / "merged"))


def test_a_model_that_is_being_trained_keeps_its_card(place, monkeypatch):
    import subprocess
    import sys

    from tests.common.test_locks import HOLD
    from tests.support.runs import ROOT

    code = HOLD.format(root=str(ROOT), folder=str(place / "merged"), patch="", part=None)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        result = evaluate(place, "--model_card", place / "merged", check=2)
        process.kill()
    assert f"is in use by process {process.pid}" in result.stderr and BEGIN not in read(place / "merged").text
    with OutputLock(place / "merged"):
        evaluate(place, "--model_card", place / "merged")
    assert folder_of(place / "translations", str(place / "merged"), k=0).is_dir()
