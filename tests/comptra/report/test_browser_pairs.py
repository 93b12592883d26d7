"""The pairs of a run in Chromium: search, filter, sort, open, copy, link, by mouse and by keyboard; numbers are those of the files."""

import json
from urllib.parse import urlencode

import pytest

from tests.support import pages, synthetic_run
from tests.support.browser import Browser
from topxgen.runs.folders import find
from topxgen.runs.rows import rows, texts

NAMES = ("Basque", "Urdu", "N'ko")
COUNT = "return document.getElementById('pairs-status').dataset.count"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return synthetic_run.make(tmp_path_factory.mktemp("run"), 900, NAMES).folder


@pytest.fixture(scope="module")
def everything(run):
    """All rows of the run, as topxgen.runs reads them."""
    found = find(run)
    of_pairs = [row for one in found.back_translations for name in one.languages for row in rows(one, name)]
    return of_pairs + [row for folder in found.generations for name in NAMES for row in texts(folder, name)]


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    pages.build(run, path, "--max_mb", 30)
    return path


@pytest.fixture
def shown(browser, page):
    browser.size(*pages.SIZES["desktop"])
    browser.theme("light")
    yield opened(browser, page)
    assert browser.faults() == []


def opened(browser: Browser, page, **params) -> Browser:
    pages.opened(browser, page, "pairs" + (f"?{urlencode(params)}" if params else ""))
    browser.wait("const s = document.getElementById('pairs-status'); return s && s.dataset.count")
    return browser


def choose(browser: Browser, field: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(browser.one(f"#pairs-{field}")).select_by_value(value)


def expect(browser: Browser, count: int) -> None:
    browser.wait(lambda: browser.run(COUNT) == str(count), seconds=5)


def test_all_rows_are_there(shown, everything):
    expect(shown, len(everything))


def test_search_finds_what_the_files_have(shown, everything):
    words = [row.translation.split()[2] for row in everything if row.state == "kept" and row.translation.count(" ") > 5]
    word = max(words[:40], key=len)
    found = [row for row in everything if word.lower() in f"{row.sentence}\n{row.translation or ''}\n{row.id}".lower()]
    shown.type("#pairs-q", word)
    expect(shown, len(found))
    phrase = " ".join(found[0].translation.split()[:3])
    shown.type("#pairs-q", f'"{phrase}"')
    expect(shown, sum(phrase.lower() in f"{row.sentence}\n{row.translation or ''}".lower() for row in everything))
    shown.type("#pairs-q", "nothing-has-this-word")
    expect(shown, 0)


def test_search_is_blind_to_case_and_diacritics_unless_asked(shown):
    shown.type("#pairs-q", "ZERO-WIDTH")
    expect(shown, 1)


@pytest.mark.parametrize("field", ["language", "state", "reason"])
def test_filters(shown, everything, field):
    for value in sorted({getattr(row, field) for row in everything} - {""}):
        choose(shown, field, value)
        expect(shown, sum(getattr(row, field) == value for row in everything))


def test_filters_by_score_and_topic_and_together(shown, everything):
    shown.type("#pairs-min", "3")
    shown.type("#pairs-max", "3.5")
    expect(shown, sum(row.score is not None and 3 <= round(row.score, 4) <= 3.5 for row in everything))
    choose(shown, "language", "Urdu")
    expect(
        shown,
        sum(row.score is not None and 3 <= round(row.score, 4) <= 3.5 and row.language == "Urdu" for row in everything),
    )
    shown.click(".filters .reset")
    expect(shown, len(everything))
    topic = next(row.topic for row in everything if row.topic and row.topic.isascii() and len(row.topic) > 8)
    shown.type("#pairs-topic", topic)
    shown.wait(lambda: 0 < int(shown.run(COUNT)) < len(everything))
    assert int(shown.run(COUNT)) >= sum(row.topic == topic for row in everything)


@pytest.mark.parametrize("field", ["score", "length"])
def test_sort(shown, everything, field):
    def values() -> list[float]:
        cells = [e.text for e in shown.all(f"#pairs .tabulator-row [tabulator-field={field}]")]
        return [float(cell.replace(",", "")) for cell in cells if cell not in ("", "–")]

    ascending = lambda found: len(found) > 5 and found == sorted(found)  # noqa: E731
    shown.click(f"#pairs .tabulator-col[tabulator-field={field}]")
    shown.wait(lambda: ascending(values()))
    shown.click(f"#pairs .tabulator-col[tabulator-field={field}]")
    shown.wait(lambda: ascending(values()[::-1]))
    if field == "score":
        best = max(row.score for row in everything if row.score is not None)
        assert values()[0] == pytest.approx(best, abs=0.01)


def test_a_row_opens_with_its_paragraph_and_the_rejects_beside_it(shown, everything):
    reject = next(row for row in everything if row.state == "rejected" and row.reason == "translation_no_full_stop")
    opened(shown, shown_page(shown), id=reject.id)
    shown.wait(lambda: reject.sentence in shown.text("#pairs .detail"))
    text = shown.text("#pairs .detail")
    assert reject.id in text and "translation no full stop" in text
    assert shown.text("#pairs .detail .paragraph mark") == reject.sentence
    siblings = [row for row in everything if row.paragraph_id == reject.paragraph_id and row.id != reject.id]
    assert all(row.sentence in text for row in siblings if len(row.sentence) < 250)


def shown_page(browser: Browser):
    from pathlib import Path
    from urllib.parse import unquote, urlparse

    return Path(unquote(urlparse(browser.address).path))


def test_right_to_left_text_is_right_to_left_and_named(shown, everything):
    for language, code in (("Urdu", "ur"), ("N'ko", "nqo")):
        row = next(row for row in everything if row.language == language and row.state == "kept" and row.translation)
        opened(shown, shown_page(shown), id=row.id)
        shown.wait(lambda row=row: row.sentence in shown.text("#pairs .detail"))
        sides = shown.run(
            "return [...document.querySelectorAll('#pairs .detail .side .text')].map(e => [e.lang, getComputedStyle(e).direction])"
        )
        assert sides[0][0].startswith(code) and sides[0][1] == "rtl"
        assert sides[1][0].startswith("en") and sides[1][1] == "ltr"


def test_hostile_texts_are_shown_as_they_are(shown, everything):
    for row in (
        row
        for row in everything
        if row.index < 4 and row.paragraph_id.endswith("000000.0") and row.language == "Basque"
    ):
        opened(shown, shown_page(shown), id=row.id)
        shown.wait("return !document.querySelector('#pairs .detail').hidden")
        text = shown.run("return document.querySelector('#pairs .detail').textContent")
        for part in row.sentence.split() + (row.translation or "").split():
            if part.isprintable():
                assert part in text
        assert not any(char in text for char in "\u202e\u2066\u200b\x1b")
        assert shown.run("return window.hacked") is None
    shown.type("#pairs-q", "U+202E")  # the marks are no text that a search finds
    expect(shown, 0)


def test_copy_as_json_and_link(shown, everything):
    permissions = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    shown.driver.execute_cdp_cmd("Browser.grantPermissions", permissions)
    row = next(row for row in everything if row.state == "kept" and row.language == "Urdu" and row.topic)
    opened(shown, shown_page(shown), id=row.id)
    buttons = {button.text: button for button in shown.all("#pairs .detail .actions button")}
    shown.click(buttons["Copy as JSON"])
    shown.wait("return document.querySelector('#pairs .copied')")
    copied = json.loads(shown.run_async("return await navigator.clipboard.readText()"))
    assert (copied["sentence"], copied["translation"], copied["id"]) == (row.sentence, row.translation, row.id)
    assert copied["score"] == pytest.approx(row.score) and copied["topic"] == row.topic
    shown.click(buttons["Copy link"])
    shown.wait("return document.querySelector('#pairs .copied')")
    link = shown.run_async("return await navigator.clipboard.readText()")
    assert link == shown.driver.current_url and row.paragraph_id in link.replace("%2F", "/")


def test_a_link_opens_the_same_filters(shown, everything):
    opened(shown, shown_page(shown), language="N'ko", state="rejected")
    wanted = [row for row in everything if row.language == "N'ko" and row.state == "rejected"]
    expect(shown, len(wanted))
    assert shown.one("#pairs-language").get_attribute("value") == "N'ko"
    choose(shown, "reason", "sentence_too_short")
    expect(shown, sum(row.reason == "sentence_too_short" for row in wanted))
    shown.wait("return location.hash.includes('reason=sentence_too_short')")
    address = shown.driver.current_url
    opened(shown, shown_page(shown))
    shown.driver.get(address)
    expect(shown, sum(row.reason == "sentence_too_short" for row in wanted))


def test_the_keyboard_alone(shown, everything):
    from selenium.webdriver.common.keys import Keys

    shown.run("document.activeElement.blur()")
    shown.keys("/")
    shown.wait("return document.activeElement.id === 'pairs-q'")
    word = next(row for row in everything if row.state == "kept").translation.split()[1]
    shown.keys(word)
    shown.wait(lambda: 0 < int(shown.run(COUNT)) < len(everything))
    shown.keys(Keys.ENTER)
    shown.wait("return document.activeElement.classList.contains('tabulator-tableholder')")
    shown.keys(Keys.ARROW_DOWN)
    shown.wait("return document.querySelectorAll('#pairs .tabulator-row[aria-selected=true]').length === 1")
    shown.keys(Keys.ENTER)
    shown.wait(
        "return !document.querySelector('#pairs .detail').hidden && document.activeElement.classList.contains('detail')"
    )
    shown.keys(Keys.ESCAPE)
    shown.wait("return document.querySelector('#pairs .detail').hidden")


def test_a_contaminated_pair_leads_to_the_test_set_and_back(shown, everything):
    row = next(
        row for row in everything if row.state == "contaminated" and row.reason.startswith("overlap_in_sentence")
    )
    opened(shown, shown_page(shown), id=row.id)
    shown.click(shown.one("#pairs .detail .overlaps a"))
    shown.wait("return location.hash.startsWith('#contamination?')")
    shown.wait(lambda: shown.all("#contamination mark"))
    shown.driver.back()
    shown.wait("return location.hash.startsWith('#pairs?')")
    shown.wait(lambda: row.sentence in shown.text("#pairs .detail"))


def test_it_is_no_wider_than_a_phone(browser, page):
    browser.size(*pages.SIZES["phone"])
    opened(browser, page)
    browser.click("#pairs .tabulator-row")
    browser.wait("return !document.querySelector('#pairs .detail').hidden")
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
