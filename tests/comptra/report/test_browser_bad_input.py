"""Pages of what is no finished run of today: each opens without an error, shows what is there and says what is not."""

import json
import shutil
import threading
from pathlib import Path

import pytest

from comptra.report import packing
from tests.support import browser as chromium
from tests.support import pages, synthetic_run
from tests.support.runs import in_process, records
from topxgen.common.files import to_line

pytestmark = pytest.mark.medium
NAMES = ("Basque", "Urdu")
PAIRS = "nllb-200-3.3B"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return synthetic_run.make(tmp_path_factory.mktemp("run"), 120, NAMES).folder


@pytest.fixture
def run(whole, tmp_path):
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.fixture
def look(browser, tmp_path):
    """Build the page of a folder, open it, render all sections; what a reader sees."""

    def see(folder: Path, *flags, code: int | tuple[int, ...] = 0) -> str:
        page = tmp_path / "report.html"
        pages.build(folder, page, *flags, code=code)
        pages.opened(browser, page)
        pages.render(browser)
        assert browser.faults() == [] and not browser.all(".body > p.bad")
        return browser.text("main")

    return see


def rewrite(path: Path, change) -> None:
    path.write_text("".join(to_line(change(record)) for record in records(path)), encoding="utf-8")


def test_a_run_whose_last_lines_are_still_being_written(look, run):
    for path in run.rglob("*.jsonl"):
        if path.name.startswith(NAMES) and path.stat().st_size:
            path.write_bytes(path.read_bytes()[:-30])
    for manifest in run.rglob("manifest_*.json"):
        manifest.unlink()
    (run / ".lock-Basque").write_text("1 host\n")
    seen = look(run)
    assert "is being written" in seen and "not finished" in seen
    assert (run / ".lock-Basque").exists()  # it takes no lock away


def test_pages_while_files_grow_are_replaced_and_vanish(look, run, whole):
    """A run that writes, renames and removes files as the stages do, page after page."""
    stop = threading.Event()

    def work() -> None:
        lines = (whole / PAIRS / "Basque_translate.jsonl").read_bytes().splitlines(keepends=True)
        while not stop.is_set():
            with open(run / PAIRS / "Basque_translate.jsonl", "wb", buffering=0) as file:
                for line in lines:
                    file.write(line[: len(line) // 2])
                    file.write(line[len(line) // 2 :])
            (run / "Urdu_rejects.jsonl").unlink(missing_ok=True)
            shutil.copy(whole / "Urdu_rejects.jsonl", run / "Urdu_rejects.jsonl.partial")
            (run / "Urdu_rejects.jsonl.partial").replace(run / "Urdu_rejects.jsonl")
            shutil.rmtree(run / "translations" / "gemma-3-27b-it", ignore_errors=True)
            shutil.copytree(whole / "translations" / "gemma-3-27b-it", run / "translations" / "gemma-3-27b-it")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(4):
            look(run, code=(0, 3))  # 3: a file vanished between the search and the reading
    finally:
        stop.set()
        worker.join()


def test_a_file_that_vanishes_between_the_search_and_the_reading(run, whole, tmp_path, browser):
    from comptra.report import Options, page
    from comptra.report.sources import watching
    from topxgen.runs.folders import find

    found = find(run)
    shutil.rmtree(run / PAIRS)
    shutil.rmtree(run / "train-worse")
    (run / "scores.json").unlink()
    with watching(run) as sources:
        pieces = page.build(found, sources, Options(), 5_000_000, [])
    path = tmp_path / "page.html"
    path.write_text("".join(pieces), encoding="utf-8")
    pages.opened(browser, path)
    pages.render(browser)
    assert browser.faults() == []
    assert "train-topxgen" in browser.text("main")


@pytest.mark.parametrize("kept", ["generation", "candidates", "without_scores", "training", "translations", "nothing"])
def test_half_a_run(look, run, kept):
    if kept == "generation":
        for folder in run.iterdir():
            if folder.is_dir():
                shutil.rmtree(folder)
        (run / "scores.json").unlink()
        seen = look(run)
        assert "near duplicate" in seen and "Contamination" not in seen and "Evaluation" not in seen
    elif kept == "candidates":  # killed before the best were chosen
        for path in (run / PAIRS).iterdir():
            path.unlink()
        rows = records(run / "Basque.jsonl")
        waiting = [
            {"id": row["id"], "sentences": [row["text"]], "candidates": [[{"translation": "x."}]], "rejected": []}
            for row in rows
        ]
        (run / PAIRS / "Basque_candidates.jsonl").write_text("".join(map(to_line, waiting)))
        assert "near duplicate" in look(run)
    elif kept == "without_scores":
        for name in NAMES:
            rewrite(run / PAIRS / f"{name}_translate.jsonl", lambda record: record | {"scores": None, "scorer": None})
        (run / PAIRS / "manifest_score.json").unlink()
        look(run)
    elif kept == "training":
        shutil.copytree(run / "train-topxgen", run.parent / "only" / "train-topxgen")
        (run.parent / "only/train-topxgen/manifest_train.json").unlink()
        seen = look(run.parent / "only")
        assert "Training" in seen and "Pairs" not in seen
    elif kept == "translations":
        assert "Evaluation" not in look(run / "train-worse")
        shutil.copytree(run / "translations", run.parent / "only")
        assert "Training" not in look(run.parent / "only")
    else:
        (run.parent / "empty").mkdir()
        assert "Nothing in this folder is of a run" in look(run.parent / "empty")


def test_files_of_an_older_version(look, run):
    """Texts called answers, pieces for segments, one manifest for all languages, a report without its rules, divisions from 0."""
    for name in NAMES:
        rewrite(
            run / f"{name}_answers.jsonl",
            lambda record: {"answers" if k == "texts" else k: v for k, v in record.items()},
        )
        rewrite(
            run / PAIRS / f"{name}_translate.jsonl",
            lambda record: record | {"pieces": [1] * len(record["propositions"])},
        )
        for stage, folder in (("generate", run), ("translate", run / PAIRS), ("score", run / PAIRS)):
            (folder / f"manifest_{stage}_{name}.json").unlink()
    report = json.loads((run / PAIRS / "decontamination_report.json").read_text())
    for part in report["languages"].values():
        part.pop("settings"), part.pop("not_checked")
    (run / PAIRS / "decontamination_report.json").write_text(json.dumps(report))
    for path in [*run.rglob("divide_1.jsonl"), *run.rglob("parent_1.jsonl")]:
        path.rename(path.with_name(path.name.replace("_1", "_0")))
    manifest = json.loads((run / "train-topxgen/manifest_train.json").read_text())
    for key in ("lineage", "worse_than_before_training", "best_metric"):
        manifest.pop(key)
    (run / "train-topxgen/manifest_train.json").write_text(json.dumps(manifest))
    seen = look(run)
    assert "Funnel" in seen and "Contamination" in seen and "train-topxgen" in seen


def test_data_of_the_original(look, tmp_path, whole):
    """As published: no ids, no settings, no manifests; scores in their own list; translations in trees of its own names."""
    folder = tmp_path / "data" / "wiki" / "gemma-3-27b-it" / "topxgen" / "T=1.0" / PAIRS
    folder.mkdir(parents=True)
    for name in NAMES:
        lines = records(whole / PAIRS / f"{name}_translate.jsonl")
        keys = ("sentence", "propositions", "translations")
        (folder / f"{name}_translate.jsonl").write_text("".join(to_line({k: line[k] for k in keys}) for line in lines))
        texts = [{"text": line["sentence"]} for line in lines]
        (folder.parent / f"{name}.jsonl").write_text("".join(map(to_line, texts)))
    tree = (
        tmp_path
        / "data"
        / "GENERATIONS"
        / "FLORES"
        / "zero-shot"
        / "Meta-Llama-3-8B"
        / "English_to_Basque_0_shot_seed_122"
    )
    tree.mkdir(parents=True)
    (tree / "translate_0.jsonl").write_text(to_line({"sentence": "A cat.", "translation": None}))
    seen = look(tmp_path / "data")
    assert "Pairs" in seen and "Funnel" in seen
    data = packing.read(tmp_path / "report.html", "pairs")
    assert data["total"] == 120 and data["rows"]["state"] == [data["states"].index("kept")] * 120


def test_damaged_and_foreign_files(look, run):
    (run / "Basque_rejects.jsonl").write_bytes(b"\xff\xfe\x00 not json\n" + (run / "Basque_rejects.jsonl").read_bytes())
    (run / PAIRS / "Urdu_translate_rejects.jsonl").write_text('{"id": 3}\n[]\n"text"\n')
    (run / PAIRS / "decontamination_report.json").write_text("{")
    (run / "manifest_generate.json").write_text("[1, 2]")
    (run / "train-worse" / "train_log.jsonl").write_text('{"step": "many", "loss": "NaN"}\n{"step": 1}\n')
    (run / "scores.json").write_text('{"groups": [{"systems": 3}]}')
    seen = look(run, code=3)
    assert "Problem" in seen and "Urdu_translate_rejects.jsonl" in seen


@pytest.mark.parametrize("name", ["__proto__", "constructor"])
def test_a_language_with_the_name_of_a_property_of_all_objects(look, run, browser, name):
    for path in [*run.glob("Urdu*"), *(run / PAIRS).glob("Urdu*")]:
        path.rename(path.with_name(path.name.replace("Urdu", name)))
    rejects = run / PAIRS / f"{name}_translate_rejects.jsonl"
    rewrite(rejects, lambda record: record | {"rejected": [one | {"reason": name} for one in record["rejected"]]})
    seen = look(run)
    assert "native code" not in seen and "[object Object]" not in seen
    page = Path(browser.address.removeprefix("file://"))
    for section in ("funnel", "pairs"):
        pages.opened(browser, page, f"{section}?language={name}")
        pages.render(browser)
        assert browser.faults() == [] and not browser.all(".body > p.bad")


def test_names_of_folders_cannot_turn_the_text_around_them(look, run, browser):
    for path in (run / PAIRS, run / "train-worse"):
        shutil.copytree(path, path.with_name(f"{path.name}\u202egnorw\x07"))
    look(run)
    texts = "[...document.querySelectorAll('main, main *')].map((one) => one.ariaLabel + one.textContent).join()"
    seen = browser.run(f"return {texts}")
    assert "U+202Egnorw" in seen and "\u202e" not in seen and "\x07" not in seen


def test_links_that_name_what_is_not_there(look, run, browser):
    look(run)
    page = Path(browser.address.removeprefix("file://"))
    for fragment in (
        "pairs?sort=__proto__&order=x",
        "pairs?min=abc&max=1e999",
        "evaluation?sort=constructor",
        "none?x",
    ):
        pages.opened(browser, page, fragment)
        pages.render(browser)
        assert browser.faults() == [] and not browser.all(".body > p.bad"), fragment
        assert browser.run("return Number(document.getElementById('pairs-status').dataset.count)") > 0, fragment


def test_texts_of_100_kb(look, run, browser):
    long, word = "word " * 20_000, "w" * 100_000
    pairs = run / PAIRS / "Basque_translate.jsonl"
    record = records(pairs)[0] | {"id": "Basque-999999.0", "sentence": long + word, "propositions": [long, word]}
    record |= {"translations": [word, long], "scores": [1.0, 5.0], "confidences": [0.1, 0.2]}
    with open(pairs, "a", encoding="utf-8") as file:
        file.write(to_line(record))
    with open(run / "Basque_rejects.jsonl", "a", encoding="utf-8") as file:
        file.write(
            to_line({"id": "Basque-999998.0", "prompt": "Basque-999998", "reason": "too_long", "text": word * 3})
        )
    browser.size(*pages.SIZES["desktop"])
    look(run)
    page = Path(browser.address.removeprefix("file://"))
    assert page.stat().st_size < 5_000_000
    pages.opened(browser, page, "pairs?id=Basque-999999.0/p1")
    browser.wait("const d = document.querySelector('#pairs .detail'); return d && !d.hidden")
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert "of 100,000 characters" in browser.text("#pairs .detail")


def test_a_language_without_a_font(run, tmp_path, monkeypatch):
    """A browser whose only fonts are DejaVu's, which have no Ethiopic."""
    dejavu = Path("/usr/share/fonts/truetype/dejavu")
    if not dejavu.is_dir() or (reason := chromium.missing()):
        pytest.skip("DejaVu is not installed" if not dejavu.is_dir() else reason)
    synthetic_run.make(run, 40, ("Amharic", "Basque"), extra=(), later_stages=False)
    page, config = tmp_path / "page.html", tmp_path / "fonts.conf"
    pages.build(run, page)
    config.write_text(
        f"<?xml version='1.0'?><fontconfig><dir>{dejavu}</dir><cachedir>{tmp_path}/fonts</cachedir></fontconfig>"
    )
    monkeypatch.setenv("FONTCONFIG_FILE", str(config))
    with chromium.chromium() as alone:
        pages.opened(alone, page, "pairs")
        alone.wait("const s = document.getElementById('pairs-status'); return s && s.dataset.count")
        notes = alone.text("#pairs .fonts")
    assert "no font for the script of Amharic (Ethiopic)" in notes and "Basque" not in notes


def test_what_is_no_run_is_refused_in_one_line(tmp_path):
    for path in (tmp_path / "missing", Path(__file__)):
        refused = in_process("scripts/report.py", path, "-o", tmp_path / "page.html")
        assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "page.html").exists()
