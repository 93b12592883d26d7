"""Pairs and contamination in Chromium: what a reader searches, filters, opens, follows and copies."""

import json
import re

import pytest

from tests.comptra.report.test_pairs import translated, write
from tests.support import pages, synthetic_run
from tests.support.browser import Browser
from topxgen.common.records import Layout
from topxgen.corpora import benchmarks
from topxgen.runs.folders import find
from topxgen.runs.rows import paragraphs, rows, texts
from topxgen.text import languages

pytestmark = pytest.mark.medium  # some seconds each

NAMES = ("Basque", "Urdu", "Nepali", "N'ko")
SEARCHED = (
    ("Straße eta ΟΔΟΣ, İstanbul ere bai hemen dago.", "A street with a naïve café, here."),
    ("Ibai zabala itsasora doa, bidea luzea bada ere.", "The wide river runs to the sea, seldom hurried."),
)
ROWS = "#pairs .tabulator-row"
COUNT = "return Number(document.getElementById('pairs-status').dataset.count)"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run in which a text of an evaluated test set leaked."""
    splits = benchmarks.load("udhr", languages.find("Basque"), None)
    text = next(text for split in splits if split.name == "test" for text in split.texts if len(text) > 90)
    extra = (*synthetic_run.HOSTILE, *SEARCHED, (text, "Somebody translated it in another way altogether."))
    return synthetic_run.make(tmp_path_factory.mktemp("run"), 800, NAMES, extra=extra).folder


@pytest.fixture(scope="module")
def found(run):
    one = find(run).back_translations[0]
    of_language = [(*rows(one, name), *texts(one.generation, name)) for name in NAMES]
    return {row.id: row for several in of_language for row in several}


@pytest.fixture
def shown(browser, page) -> Browser:
    return opened(browser, page)


def opened(browser: Browser, page, fragment: str = "pairs") -> Browser:
    pages.opened(browser, page, fragment)
    browser.wait(f"{COUNT} >= 0")
    return browser


def count(browser: Browser, expected: int) -> None:
    browser.wait(lambda: browser.run(COUNT) == expected)


def choose(browser: Browser, name: str, value: str) -> None:
    browser.run(
        "const field = document.getElementById('pairs-' + arguments[0]); field.value = arguments[1];"
        "field.dispatchEvent(new Event(field.tagName === 'SELECT' ? 'change' : 'input', {bubbles: true}))",
        name,
        value,
    )


def fragment(browser: Browser) -> str:
    return browser.run("return decodeURIComponent(location.hash)")


def test_search_folds_case_and_diacritics(shown):
    for query, is_found in (
        ("strasse", True),
        ('"cafe naive"', False),
        ("STRASSE οδος", True),  # terms in any order; a final sigma is a sigma
        ("nowhere-to-be-found", False),
        ("istanbul", True),
        ("naive CAFE", True),
        ("naïve", True),
        ('"naive cafe"', True),
    ):
        shown.type("#pairs-q", query)
        shown.wait(lambda query=query: fragment(shown) == f"#pairs?q={query}".replace(" ", "+"))
        count(shown, int(is_found))
    assert shown.faults() == []


def test_diacritics_count_if_asked_for(shown):
    shown.click("#pairs-diacritics")
    shown.type("#pairs-q", "cafe naive")
    count(shown, 0)
    shown.type("#pairs-q", "CAFÉ NAÏVE")
    count(shown, 1)


def test_vowel_signs_of_indic_scripts_are_letters_and_those_of_arabic_are_not(shown):
    folded = shown.run(
        "const found = []; for (const text of ['की', 'بِہِ']) found.push(text.normalize('NFKD').replace("
        "/(?![\\u3099\\u309a])[\\p{Script=Inherited}\\p{Cf}]|(?=[\\p{Script=Arabic}\\p{Script=Hebrew}])\\p{M}/gu, '')); return found"
    )
    assert folded == ["की", "بہ"]


def test_filters_show_what_the_files_have(shown, found):
    for filters in (
        {"language": "Urdu"},
        {"state": "rejected"},
        {"state": "contaminated"},
        {"reason": "translation_no_full_stop"},
        {"language": "Nepali", "state": "not_chosen"},
        {"min": "3", "max": "3.5", "state": "kept"},
        {"min": "3.2"},
        {"language": "Basque", "reason": "score_below_min"},
    ):
        expected = [
            row
            for row in found.values()
            if all(getattr(row, name) == filters[name] for name in ("language", "state", "reason") if name in filters)
            and ("min" not in filters or (row.score is not None and row.score >= float(filters["min"])))
            and ("max" not in filters or (row.score is not None and row.score <= float(filters["max"])))
        ]
        assert 0 < len(expected) < len(found), filters
        for name, value in filters.items():
            choose(shown, name, value)
        count(shown, len(expected))
        for name, value in filters.items():
            assert f"{name}={value}" in fragment(shown)
        ids = shown.run(f"return [...document.querySelectorAll('{ROWS} [tabulator-field=i]')].map(e => e.textContent)")
        assert ids and set(ids) <= {row.id for row in expected}, filters
        for name in filters:
            choose(shown, name, "")
        count(shown, len(found))


def test_filters_by_topic(shown, found):
    topic = next(row.topic for row in found.values() if row.topic and len(row.topic) > 8)
    choose(shown, "topic", topic.upper())
    shown.wait(f"{COUNT} < {len(found)}")
    expected = [row for row in found.values() if row.topic and topic.casefold() in row.topic.casefold()]
    count(shown, len(expected))


def test_sorted_by_score_and_by_length_rows_without_a_score_come_last(shown, found):
    def column(name: str) -> list:
        shown.wait(f"return document.querySelector('{ROWS}')")
        return shown.run(
            f"return [...document.querySelectorAll('{ROWS} [tabulator-field={name}]')].map(e => e.textContent)"
        )

    scores = sorted((row.score for row in found.values() if row.score is not None), reverse=True)
    header = "#pairs .tabulator-col[tabulator-field=score] .tabulator-col-content"
    shown.click(header)
    shown.wait(lambda: float(column("score")[0]) == pytest.approx(scores[-1], abs=1e-3))
    shown.click(header)
    shown.wait(lambda: float(column("score")[0]) == pytest.approx(scores[0], abs=1e-3))
    shown.wait(lambda: "sort=score&order=desc" in fragment(shown))
    values = [float(text) for text in column("score")]
    assert values == sorted(values, reverse=True)
    opened(shown, page_of(shown), "pairs?sort=length&order=desc")
    longest = max(len(row.sentence) for row in found.values())
    shown.wait(lambda: int(column("length")[0].replace(",", "")) >= longest)


def page_of(browser: Browser):
    from pathlib import Path
    from urllib.parse import unquote

    return Path(unquote(browser.address.removeprefix("file://")))


def test_a_row_is_opened_with_its_paragraph_and_siblings(shown, run, found):
    rejected = next(
        row for row in found.values() if row.reason == "translation_no_full_stop" and row.language == "Urdu"
    )
    siblings = [row for row in found.values() if row.paragraph_id == rejected.paragraph_id and row.id != rejected.id]
    assert siblings
    opened(shown, page_of(shown), f"pairs?id={rejected.id}")
    shown.wait("return !document.querySelector('#pairs .detail').hidden")
    text = shown.text("#pairs .detail")
    assert rejected.sentence in text and rejected.translation in text and "translation no full stop" in text
    paragraph = paragraphs(find(run).back_translations[0], "Urdu", [rejected.paragraph_id])[rejected.paragraph_id]
    assert shown.text("#pairs .detail .paragraph") == paragraph
    assert shown.text("#pairs .detail .paragraph mark") == rejected.sentence
    assert len(shown.all("#pairs .siblings li")) == len(siblings)
    shown.click("#pairs .siblings button")
    shown.wait(lambda: rejected.id not in fragment(shown))
    assert any(f"id={row.id}" in fragment(shown) for row in siblings)
    assert shown.faults() == []


def test_urdu_is_right_to_left_and_in_fonts_of_its_script(shown):
    choose(shown, "language", "Urdu")
    shown.wait("return document.querySelector('#pairs .line[dir=rtl]')")
    style = "const s = getComputedStyle(document.querySelector(arguments[0])); return [s.direction, s.textAlign, s.fontFamily]"
    direction, align, _ = shown.run(style, "#pairs .line[dir=rtl]")
    assert direction == "rtl" and align in ("start", "right")
    assert "Naskh" in shown.run(style, "#pairs .line bdi[lang=ur-Arab]")[2]
    shown.click(ROWS)
    assert "Nastaliq" in shown.run(style, "#pairs .detail .side bdi[lang=ur-Arab]")[2]
    for name, font in (("Nepali", "Devanagari"), ("N'ko", "NKo")):
        choose(shown, "language", name)
        shown.wait(
            f"return document.querySelector('#pairs .line bdi[lang]').closest('.tabulator-row') && {COUNT.removeprefix('return ')} > 0"
        )
        code = {"Nepali": "ne-Deva", "N'ko": "nqo-Nkoo"}[name]
        shown.wait(f"return document.querySelector('#pairs .line bdi[lang={code}]')")
        assert font in shown.run(style, f"#pairs .line bdi[lang={code}]")[2]


def test_the_keyboard(shown):
    from selenium.webdriver.common.keys import Keys

    selected = "return document.querySelector('#pairs .tabulator-row[aria-selected=true] [tabulator-field=sentence]')?.textContent"
    shown.run("document.activeElement.blur()")
    shown.keys("/")
    shown.wait("return document.activeElement.id === 'pairs-q'")
    shown.keys("e", Keys.ENTER)
    shown.wait("return document.activeElement.className.includes('tabulator-tableholder')")
    shown.keys(Keys.ARROW_DOWN)
    first = shown.wait(selected)
    shown.keys(Keys.ARROW_DOWN)
    shown.wait(lambda: shown.run(selected) not in (None, first))
    shown.keys(Keys.ARROW_UP)
    shown.wait(lambda: shown.run(selected) == first)
    shown.keys(Keys.ENTER)
    shown.wait("return document.activeElement.className === 'detail'")
    assert "id=" in fragment(shown)
    shown.keys(Keys.ESCAPE)
    shown.wait("return document.querySelector('#pairs .detail').hidden")
    assert "id=" not in fragment(shown) and shown.run(
        "return document.activeElement.className.includes('tabulator-tableholder')"
    )
    shown.keys(Keys.END)
    last = shown.wait(lambda: shown.run(selected) != first and shown.run(selected))
    shown.keys(Keys.HOME)
    shown.wait(lambda: shown.run(selected) == first)
    assert first != last and shown.faults() == []


def test_a_row_is_copied_as_json_and_as_a_link(shown, found):
    row = next(row for row in found.values() if row.state == "kept" and row.language == "Nepali")
    opened(shown, page_of(shown), f"pairs?id={row.id}")
    shown.run("window.copied = []; navigator.clipboard.writeText = async (text) => { copied.push(text); }")
    for label in ("Copy as JSON", "Copy link"):
        button = next(b for b in shown.all("#pairs .detail button") if b.text == label)
        shown.click(button)
    copied, link = shown.wait("return copied.length === 2 && copied")
    copied = json.loads(copied)
    assert {
        name: copied[name] for name in ("id", "sentence", "translation", "language", "topic", "scorer", "paragraph_id")
    } == {
        name: getattr(row, name)
        for name in ("id", "sentence", "translation", "language", "topic", "scorer", "paragraph_id")
    }
    assert copied["score"] == pytest.approx(row.score, abs=6e-5) and row.sentence in copied["paragraph"]
    opened(shown, page_of(shown), link.partition("#")[2])
    assert row.sentence in shown.text("#pairs .detail")


def test_an_id_that_is_not_there_is_said(shown):
    opened(shown, page_of(shown), "pairs?id=Basque-999999.0/p0")
    shown.wait(lambda: "Basque-999999.0/p0 is not in this page" in shown.text("#pairs-status"))


# Time passes fast, so that each text of the search index is a piece of work of its own.
SLOW = "let ms = 0; window.clock = 0; performance.now = () => { window.clock++; return (ms += 100); }"


def test_the_search_index_made_in_advance_says_nothing(shown):
    script = shown.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SLOW})
    try:
        opened(shown, page_of(shown), "pairs?id=Basque-999999.0/p0")
        shown.wait("return window.clock > 100")
        assert "Basque-999999.0/p0 is not in this page" in shown.text("#pairs-status")
    finally:
        shown.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_hostile_texts_are_text_in_rows_and_in_the_panel(shown, found):
    hostile = next(row for row in found.values() if "<script>" in row.sentence)
    opened(shown, page_of(shown), f"pairs?id={hostile.id}")
    assert hostile.sentence in shown.text("#pairs .detail") and shown.run("return window.hacked") is None
    override = next(row for row in found.values() if "\u202e" in row.sentence)
    opened(shown, page_of(shown), f"pairs?id={override.id}")
    assert "U+202E" in shown.text("#pairs .detail") and "\u202e" not in shown.text("#pairs")
    assert shown.faults() == []


def test_a_section_does_not_take_the_address_of_another(browser, page):
    pages.opened(browser, page, "provenance")
    pages.render(browser)
    assert fragment(browser) == "#provenance"


def test_a_contaminated_pair_leads_to_both_texts_and_to_the_evaluated_sentence(shown, found):
    leaked = next(
        row for row in found.values() if row.translation == "Somebody translated it in another way altogether."
    )
    assert leaked.state == "contaminated"
    opened(shown, page_of(shown), f"pairs?id={leaked.id}")
    assert "udhr test" in shown.text("#pairs .detail .overlaps")
    shown.click("#pairs .detail .overlaps a")
    shown.wait(lambda: fragment(shown).startswith("#contamination?"))
    shown.wait("return document.querySelectorAll('#contamination .hit').length === 1")
    data, benchmark = shown.all("#contamination .hit .both p.text")
    assert data.text == benchmark.text == leaked.sentence
    assert [e.text for e in shown.all("#contamination .hit mark")] == 2 * [leaked.sentence.rstrip(".")]
    effect = shown.text("#contamination .hit .effect")
    assert "have not seen it" in effect and re.search(r"Basque to English, sentence \d+: chrF\+\+ ", effect)
    shown.click("#contamination .hit .effect a")
    shown.wait(lambda: fragment(shown).startswith("#evaluation?group=udhr-Basque-English&sentence="))
    assert leaked.sentence in shown.text("#evaluation")
    assert shown.faults() == []


def test_hits_are_filtered_and_what_was_not_checked_is_red(shown):
    opened(shown, page_of(shown), "contamination")
    pages.render(shown, "contamination")
    box = shown.one("#contamination .unchecked")
    assert "N'ko" in box.text and "no benchmark has N'ko" in box.text
    red = shown.run("return getComputedStyle(document.querySelector('#contamination .unchecked h3')).color")
    assert red == "rgb(173, 31, 26)"
    hits = len(shown.all("#contamination .hit"))
    shown.click("#contamination td button.link")
    shown.wait(lambda: 0 < len(shown.all("#contamination .hit")) < hits)
    assert "language=" in fragment(shown) and "side=" in fragment(shown)
    assert shown.faults() == []


def test_printing_leaves_the_table_as_it_is(shown, tmp_path):
    shown.click(ROWS)
    shown.wait("return !document.querySelector('#pairs .detail').hidden")
    header = shown.text("#pairs .tabulator-headers")
    shown.pdf(tmp_path / "page.pdf")
    assert shown.text("#pairs .tabulator-headers") == header and shown.faults() == []


def test_a_phone_shows_both_texts_in_one_column(shown):
    shown.size(*pages.SIZES["phone"])
    opened(shown, page_of(shown))
    shown.wait(f"return document.querySelectorAll('{ROWS}:first-child .line').length === 2")
    shown.click(ROWS)
    shown.wait("return !document.querySelector('#pairs .detail').hidden")
    assert shown.run("return document.documentElement.scrollWidth") == pages.SIZES["phone"][0]


def test_a_script_without_a_font_is_said(browser, tmp_path):
    """Letters that Unicode has had since 2022, and Debian's fonts not yet."""
    letters = "".join(chr(0x1E4D0 + n) for n in range(20))
    layout = Layout(tmp_path / "run", "apertium")
    write(layout.translations("Mundari"), translated("Mundari-1.0", [f"{letters[:9]} {letters[9:]}."]))
    write(layout.translations("Urdu"), translated("Urdu-1.0", ["یہ اردو کا ایک جملہ ہے۔"]))
    pages.build(tmp_path / "run", tmp_path / "page.html")
    opened(browser, tmp_path / "page.html")
    warning = browser.text("#pairs .fonts")
    assert "no font for the script of Mundari" in warning and "Urdu" not in warning


def test_texts_that_are_cut_say_so(browser, tmp_path):
    layout = Layout(tmp_path / "run", "apertium")
    record = translated("Basque-1.0", ["luzea " * 17_000, "Laburra."])
    write(layout.translations("Basque"), record)
    pages.build(tmp_path / "run", tmp_path / "page.html")
    opened(browser, tmp_path / "page.html", "pairs?id=Basque-1.0/p0")
    browser.wait(lambda: "The first 5,000 of 102,000 characters." in browser.text("#pairs .detail"))
    assert len(browser.text("#pairs .detail .paragraph")) <= 5000
    assert "never went through decontamination.py" in browser.text("#contamination .unchecked")


def test_a_sample_is_said(browser, run, tmp_path):
    from comptra.report import packing

    pages.build(run, tmp_path / "page.html", "--max_mb", "1")
    data = packing.read(tmp_path / "page.html", "pairs")
    shown = len(data["rows"]["state"])
    if shown == data["total"]:
        pytest.skip("all of it fits")
    opened(browser, tmp_path / "page.html")
    assert f"{shown:,} rows in this page (of {data['total']:,})" in browser.text("#pairs-status")
    assert f"{shown:,} of {data['total']:,} rows are in this page" in browser.text("#pairs .notices")


def test_from_the_funnel_to_a_reject_reason_and_back(shown, page, found):
    wanted = [row for row in found.values() if row.language == "Urdu" and row.reason == "sentence_too_short"]
    pages.opened(shown, page, "funnel?language=Urdu")
    shown.wait(lambda: shown.all("#funnel button[aria-controls=funnel-sentences-sentence_too_short]"))
    row = "#funnel tr.reason:has(button[aria-controls=funnel-sentences-sentence_too_short])"
    assert f"−{len(wanted)}" in shown.text(row)  # the number of the files, too
    shown.click(f"{row} button")
    shown.wait(lambda: not shown.one("#funnel-sentences-sentence_too_short").get_attribute("hidden"))
    examples = shown.text("#funnel-sentences-sentence_too_short")
    assert any(row.sentence in examples for row in wanted)
    shown.click("#funnel-sentences-sentence_too_short a")
    shown.wait(f"return document.getElementById('pairs-status') && {COUNT.removeprefix('return ')} === {len(wanted)}")
    assert shown.one("#pairs-language").get_attribute("value") == "Urdu"
    shown.driver.back()
    shown.wait("return location.hash.startsWith('#funnel?') && location.hash.includes('sentence_too_short')")
    assert any(row.sentence in shown.text("#funnel-sentences-sentence_too_short") for row in wanted)
    assert shown.faults() == []


def test_rows_of_two_folders_with_the_same_ids_are_told_apart(browser, tmp_path):
    for folder in ("apertium", "nllb"):
        record = translated("Basque-1.0", ["Bai, hala da."])
        record["translations"] = [f"By {folder}."]
        write(Layout(tmp_path / "run", folder).translations("Basque"), record)
    pages.build(tmp_path / "run", tmp_path / "page.html")
    for folder in ("apertium", "nllb"):
        opened(browser, tmp_path / "page.html", f"pairs?id=Basque-1.0/p0&in={folder}")
        browser.wait(lambda folder=folder: f"By {folder}." in browser.text("#pairs .detail"))
        assert browser.run("return Number(document.getElementById('pairs-status').dataset.count)") == 2
    choose(browser, "folder", "nllb")
    count(browser, 1)
    assert browser.faults() == []
