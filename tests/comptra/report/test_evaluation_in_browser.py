"""The section Evaluation in Chromium: two systems side by side, found, filtered, sorted, walked through by keys and by address."""

import json

import pytest
from sacrebleu.metrics import CHRF

from tests.support import pages
from tests.support.browser import Browser
from tests.support.evaluations import RUN, settings, udhr, worse, write
from tests.support.runs import in_process, records

pytestmark = pytest.mark.medium  # some seconds each

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked=1'> abc\u202edef"
NAME = "5_shot_seed_122_llm_vanilla_None_0_0"
PAIR = f"?group=udhr-English-Basque&a=base/{NAME}&b=good/{NAME}"


Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two systems in two directions, one of them with phrases, a hostile translation, and checkpoints; a report with a baseline."""
    root = tmp_path_factory.mktemp("run")
    for tgt in ("Basque", "Urdu"):
        test = udhr("English", tgt)
        for model, share in (("base", 0.5), ("good", 0.1), ("checkpoint-10", 0.4), ("checkpoint-20", 0.2)):
            texts = worse(test.references, share, seed=len(model))
            if model == "good":
                texts[4] = HOSTILE
            if model in ("good", "base"):
                texts[7] = test.references[7]
            name = RUN.format("English", tgt)
            write(root / model / name, test.sources, texts, settings(tgt=tgt, model=model))
    test = udhr()
    lines = [{"sentence": source, "propositions": source.split()[:2]} for source in test.sources]
    (root / "good" / "divide_1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    phrases = [
        {"sentence": word, "translation": f"hitz bat: {word}"} for line in lines for word in line["propositions"]
    ]
    path = root / "good" / RUN.format("English", "Basque") / "translate_1.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in phrases))
    result = in_process(
        "comptra.evaluate",
        root,
        "--baseline",
        root / "base",
        "--trials",
        200,
        "--bootstrap",
        50,
        "--json",
        root / "scores.json",
    )
    assert result.returncode == 0, result.stderr
    return root


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    pages.build(run, path)
    return path


def opened(browser: Browser, page, query: str = "") -> Browser:
    browser.open(page, "evaluation" + query)
    browser.wait("return document.documentElement.dataset.ready === 'true'")
    browser.one("#evaluation .sentence h4")
    return browser


def numbers(browser: Browser) -> list[int]:
    return browser.run(
        "return [...document.querySelectorAll('#evaluation [role=option]')].map(one => Number(one.children[0].textContent))"
    )


def sentence(browser: Browser) -> int:
    return browser.run(
        "return Number(document.querySelector('#evaluation .sentence h4').textContent.match(/Sentence (\\d+)/)[1])"
    )


def choose(browser: Browser, name: str, value: str) -> None:
    script = "const s = document.querySelector(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change')); return s.value"
    assert browser.run(script, f"#evaluation select[name={name}]", value) == value


def translations(run, model: str, tgt: str = "Basque") -> list[str]:
    return [line["translation"] for line in records(run / model / RUN.format("English", tgt) / "translate_0.jsonl")]


def test_it_begins_with_the_largest_difference_and_has_no_faults(browser, page, run):
    opened(browser, page, "?group=udhr-English-Basque")
    (report,) = json.loads((run / "scores.json").read_text())["groups"][:1]
    assert report["tgt"] == "Basque"
    text = browser.text("#evaluation")
    for row in report["systems"]:
        assert f"{row['scores']['chrf']['score']:.2f}" in text
    assert "+ significantly better than the baseline" in " ".join(text.split())
    assert browser.all("#evaluation figure svg"), "scores against steps"
    assert len(numbers(browser)) == 21 and sentence(browser) == numbers(browser)[0]
    assert browser.faults() == []
    serious = [one for one in browser.accessibility("#evaluation") if one["impact"] in ("serious", "critical")]
    assert not serious, serious


def test_both_translations_are_shown_to_the_letter_with_their_differences_marked(browser, page, run):
    opened(
        browser,
        page,
        PAIR + "&sentence=1",
    )
    test = udhr()
    shown = browser.run(
        "return [...document.querySelectorAll('#evaluation .texts > .side > p:first-of-type bdi')].map(one => one.textContent)"
    )
    a, b = translations(run, "base")[0], translations(run, "good")[0]
    assert shown == [test.sources[0], test.references[0], a, b]
    marked = browser.run(
        "return ['a', 'b'].map(side => [...document.querySelectorAll(`#evaluation .translation mark.${side}`)].map(one => one.textContent))"
    )
    assert marked[1] and set(" ".join(marked[1]).split()) <= set(b.split())
    kept = browser.run("""return [...document.querySelectorAll('#evaluation .translation bdi')].map(one => {
        const copy = one.cloneNode(true); copy.querySelectorAll('mark').forEach(mark => mark.remove()); return copy.textContent.split(/\\s+/).join('') })""")
    assert kept[0] == kept[1] != "", "what is not marked is the same"
    opened(
        browser,
        page,
        PAIR + "&sentence=8",
    )
    assert not browser.all("#evaluation .translation mark") and "Both translations are the same" in browser.text(
        "#evaluation .sentence"
    )


def test_sorting(browser, page, run):
    opened(
        browser,
        page,
        PAIR,
    )
    metric, test = CHRF(word_order=2), udhr()

    def scores(model):
        return [
            metric.sentence_score(text, [ref]).score
            for text, ref in zip(translations(run, model), test.references, strict=True)
        ]

    better = [round(b, 2) - round(a, 2) for a, b in zip(scores("base"), scores("good"), strict=True)]
    assert numbers(browser) == sorted(range(1, 22), key=lambda n: (-round(abs(better[n - 1]), 6), n))
    choose(browser, "sort", "b")
    assert numbers(browser) == sorted(range(1, 22), key=lambda n: (-round(better[n - 1], 6), n))
    choose(browser, "sort", "a")
    assert numbers(browser) == sorted(range(1, 22), key=lambda n: (round(better[n - 1], 6), n))
    choose(browser, "sort", "order")
    assert numbers(browser) == list(range(1, 22))
    browser.run("document.querySelector('#evaluation .controls button').focus()")
    browser.keys(Keys.ENTER)
    assert browser.run("return document.querySelector('#evaluation select[name=a]').value").startswith("good/")


def test_searching_and_filtering(browser, page):
    opened(
        browser,
        page,
        PAIR,
    )
    test = udhr()
    browser.type("#evaluation input[name=search]", "EDUCATION")
    wanted = [n for n, source in enumerate(test.sources, 1) if "education" in source.lower()]
    assert wanted and set(wanted) <= set(numbers(browser)) and len(numbers(browser)) < 21
    assert f"{len(numbers(browser))} of 21 sentences are listed" in browser.text("#evaluation .viewer")
    browser.type("#evaluation input[name=search]", "no such text anywhere")
    assert "No sentence is like that" in browser.text("#evaluation .list") and not browser.all(
        "#evaluation .sentence h4"
    )
    browser.type("#evaluation input[name=search]", " ")
    choose(browser, "show", "differing")
    assert 8 not in numbers(browser) and 1 in numbers(browser)
    choose(browser, "show", "fault:wrong_language")
    assert 5 in numbers(browser), "the hostile translation is not Basque"
    assert browser.faults() == []


def test_keys_and_the_address(browser, page):
    opened(browser, page, "?group=udhr-English-Basque&sort=order")
    assert sentence(browser) == 1
    browser.run("document.querySelector('#evaluation .list').focus()")
    browser.keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert sentence(browser) == 3 and "sentence=3" in browser.run("return location.hash")
    active = browser.run("return document.querySelector('#evaluation .list').getAttribute('aria-activedescendant')")
    assert browser.run("return document.getElementById(arguments[0]).getAttribute('aria-selected')", active) == "true"
    browser.keys(Keys.END)
    assert sentence(browser) == 21
    browser.keys(Keys.ARROW_DOWN, Keys.ARROW_UP)
    assert sentence(browser) == 20
    address = browser.run("return location.hash.slice(1)")
    opened(browser, page, address.removeprefix("evaluation"))
    assert (
        sentence(browser) == 20
        and browser.run("return document.querySelector('#evaluation select[name=sort]').value") == "order"
    )
    browser.run("location.hash = '#evaluation?group=udhr-English-Urdu&sentence=2'")
    browser.wait("return document.querySelector('#evaluation select[name=group]').value === 'udhr-English-Urdu'")
    assert sentence(browser) == 2
    browser.run("location.hash = '#evaluation?group=nonsense&a=x&b=y&sentence=999&sort=z&show=fault:none'")
    browser.wait("return document.querySelector('#evaluation select[name=group]').value === 'udhr-English-Basque'")
    assert browser.faults() == []


def test_right_to_left_and_hostile_texts(browser, page, run):
    opened(browser, page, f"?group=udhr-English-Urdu&sentence=2&b=good/{NAME}")
    sides = browser.run(
        "return [...document.querySelectorAll('#evaluation .sentence bdi')].map(one => [getComputedStyle(one).direction, one.lang])"
    )
    assert sides[0][0] == "ltr" and {tuple(side) for side in sides[1:]} == {("rtl", "ur-Arab")}
    opened(browser, page, PAIR + "&sentence=5&marks=none")
    text = browser.run("return document.querySelector('#evaluation .side-b .translation').textContent")
    assert text == HOSTILE.replace("\u202e", "U+202E")
    assert browser.run("return window.hacked") is None and not browser.all("#evaluation img, #evaluation script")
    assert browser.faults() == []


def test_the_tree_of_phrases(browser, page):
    opened(browser, page, PAIR + "&sentence=1")
    words = udhr().sources[0].split()[:2]
    tree = browser.text("#evaluation .side-b .tree")
    assert "2 phrases, which were merged" in tree
    assert all(f"{word} → hitz bat: {word}" in " ".join(tree.split()) for word in words), tree
    assert not browser.all("#evaluation .side-a .tree")


def test_stale_scores_are_said_in_red(browser, run, tmp_path):
    import shutil

    copy = shutil.copytree(run, tmp_path / "copy")
    file = copy / "good" / RUN.format("English", "Basque") / "translate_0.jsonl"
    before = json.loads((copy / "scores.json").read_text())["groups"][0]["systems"]
    score = next(row for row in before if "/good/" in row["path"])["scores"]["chrf"]["score"]
    file.write_text(file.read_text(encoding="utf-8").replace("eta", "edo"), encoding="utf-8")
    pages.build(copy, tmp_path / "page.html", code=3)
    opened(browser, tmp_path / "page.html")
    line = browser.one("#evaluation .body .notices .problem b")
    assert line.text == "Stale"
    red = browser.run(
        "const one = document.createElement('i'); one.style.color = 'var(--bad)'; document.body.append(one); return getComputedStyle(one).color"
    )
    assert browser.run("return getComputedStyle(arguments[0]).color", line) == red
    tables = browser.run(
        "return [...document.querySelectorAll('#evaluation .tables')].map(one => one.textContent).join()"
    )
    assert f"{score:.2f}" not in tables


def test_words_of_scripts_without_spaces_and_very_long_texts(browser, tmp_path):
    sources = ["Good morning.", "Thank you.", "Long."]
    references = ["我每天早上喝一杯咖啡。", "谢谢你。", "长"]
    systems = [
        ["我每天早上喝一杯茶。", "谢谢你。", "a " * 30_000],
        ["我每天晚上喝一杯咖啡。", "多谢。", "b c " * 30_000],
    ]
    for side, texts in (("src", sources), ("ref", references)):
        (tmp_path / f"{side}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    facts = {
        side: {"from": str(tmp_path / f"{name}.txt")} for side, name in (("sources", "src"), ("references", "ref"))
    }
    for model, texts in zip("ab", systems, strict=True):
        folder = write(tmp_path / "t" / model / RUN.format("English", "Chinese"), sources, texts, {"x": 1})
        manifest = {"settings": settings("files", tgt="Chinese"), "test_set": {"test": facts}}
        (folder / "manifest_translate.json").write_text(json.dumps(manifest))
    pages.build(tmp_path / "t", tmp_path / "page.html")
    opened(browser, tmp_path / "page.html", "?sentence=1")
    marked = browser.run(
        "return [...document.querySelectorAll('#evaluation .translation mark')].map(one => one.textContent)"
    )
    assert marked == ["茶", "晚上", "咖啡"] or marked == ["早上", "茶", "晚上", "咖啡"]
    opened(browser, tmp_path / "page.html", "?sentence=3")
    assert len(browser.run("return document.querySelector('#evaluation .side-b .translation').textContent")) > 100_000
    assert browser.faults() == []
