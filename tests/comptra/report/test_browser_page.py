"""The page of a run in Chromium: every section, both themes, wide and narrow, printed, by keyboard, with texts that attack it."""

import json
import shutil

import pytest

from tests.support import pages, synthetic_run
from tests.support.browser import Browser

pytestmark = pytest.mark.medium  # some seconds each

NAMES = ("Basque", "Urdu", "Nepali", "N'ko", "Amharic")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return synthetic_run.make(tmp_path_factory.mktemp("run"), 600, NAMES).folder


@pytest.fixture(scope="module")
def renamed(run, tmp_path_factory):
    """The page of the same run with names of models that are long and have no place for a line break."""
    folder = tmp_path_factory.mktemp("renamed")
    copy, long_name = shutil.copytree(run, folder / "run"), "longname" * 15
    for old in ("train-topxgen", "gemma-3-27b-it"):
        for path in copy.rglob("*.json*"):
            path.write_text(path.read_text(encoding="utf-8").replace(old, old[:5] + long_name), encoding="utf-8")
        for path in sorted(copy.rglob(old), reverse=True):
            path.rename(path.with_name(old[:5] + long_name))
    pages.build(copy, folder / "page.html")
    return folder / "page.html"


@pytest.fixture
def shown(browser, page) -> Browser:
    return pages.opened(browser, page)


def test_every_section_is_shown_without_error_or_request(shown):
    names = pages.sections(shown)
    assert names
    pages.render(shown)
    for name in names:
        assert len(shown.text(f"#{name}")) > 60 and not shown.all(f"#{name} .body > p.bad"), name
    assert shown.faults() == []


def test_the_page_is_usable_before_all_of_it_is_rendered(browser, page):
    browser.open(page)
    browser.wait(pages.READY)
    waiting = "return [...document.querySelectorAll('main > section')].map(one => one.querySelector('.wait, [aria-busy=true]') !== null)"
    first, *others = browser.run(waiting)
    assert not first and any(others), "sections below the first wait to be seen"


@pytest.mark.parametrize(
    "size, theme",
    [
        ("desktop", "light"),
        ("phone", "dark"),
        pytest.param("desktop", "dark", marks=pytest.mark.slow),
        pytest.param("phone", "light", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_no_serious_fault(shown, size, theme):
    shown.size(*pages.SIZES[size])
    shown.theme(theme)
    pages.render(shown)
    serious = [fault for fault in shown.accessibility() if fault["impact"] in ("serious", "critical")]
    assert not serious, json.dumps(serious, indent=1, ensure_ascii=False)


@pytest.mark.parametrize("widths", [(390, 768), (1280, 1920)])
@pytest.mark.parametrize("long_name", [False, True])
def test_nothing_sticks_out_of_the_page(browser, page, renamed, widths, long_name):
    """Drawn in the first width, and then in the second."""
    shown = pages.opened(browser, renamed if long_name else page)
    for width in widths:
        shown.size(width, 844)
        pages.render(shown)
        wide = shown.run(
            "return [...document.querySelectorAll('main *, header *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
            " && !e.closest('.scroll, .plot, .tabulator, nav, pre, .hidden')).slice(0, 5).map(e => e.outerHTML.slice(0, 200))"
        )
        # innerWidth grows on a phone
        assert shown.run("return document.documentElement.scrollWidth") <= width, (width, wide)


def test_changes_of_the_width_in_quick_succession_break_nothing(shown):
    pages.render(shown)
    for width in (390, 1280, 390, 1280, 390):
        shown.size(width, 844)
    pages.settle(shown)
    pages.settle(shown)
    assert shown.faults() == []


def test_texts_of_models_are_text(shown):
    pages.render(shown)
    assert shown.run("return window.hacked") is None
    assert (
        shown.run(
            "return document.querySelectorAll('main script, main iframe, main img[src=x], main svg[onload]').length"
        )
        == 0
    )
    hidden = shown.run(
        "const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];"
        "while (walker.nextNode()) { const node = walker.currentNode;"
        " if (!node.parentElement.closest('script') && /[\\u202a-\\u202e\\u2066-\\u2069]/.test(node.data)) found.push(node.data.slice(0, 80)); }"
        "return found"
    )
    assert hidden == []


def test_links_of_the_menu_and_the_back_button(shown):
    names = pages.sections(shown)
    for name in names:
        shown.click(f"nav a[href='#{name}']")
        shown.wait(
            f"return location.hash === '#{name}' && document.querySelector('nav a[aria-current]').hash === '#{name}'"
        )
    for name in names[-2::-1]:
        shown.driver.back()
        shown.wait(f"return location.hash === '#{name}'")
    top = "return Math.abs(document.getElementById(arguments[0]).getBoundingClientRect().top) < innerHeight"
    shown.wait(lambda: shown.run(top, names[0]))
    assert shown.faults() == []


def test_the_keyboard_reaches_everything(shown):
    from selenium.webdriver.common.keys import Keys

    shown.keys(Keys.TAB)
    assert shown.focused().get_attribute("class") == "skip"
    shown.keys(Keys.ENTER)
    shown.wait("return document.activeElement.id === 'content'")
    pages.render(shown)
    unreachable = shown.run(
        "return [...document.querySelectorAll('main *')].filter(e => e.onclick && e.tabIndex < 0 && !e.closest('[tabindex]'))"
        ".map(e => e.outerHTML.slice(0, 120))"
    )
    assert unreachable == []
    shown.run("document.querySelector('nav a').focus()")
    shown.keys(Keys.ENTER)
    shown.wait("return location.hash.length > 1")


@pytest.mark.parametrize("choice", ["dark", "light"])
def test_the_theme_can_be_chosen_against_the_system(shown, choice):
    from selenium.webdriver.support.ui import Select

    shown.theme("light" if choice == "dark" else "dark")
    brightness = "return getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    before = shown.run(brightness)
    Select(shown.one("#theme")).select_by_value(choice)
    after = shown.run(brightness)
    assert (after < 200 < before) if choice == "dark" else (before < 200 < after)
    Select(shown.one("#theme")).select_by_value("")


def test_print_has_all_sections_and_no_menu(shown, tmp_path):
    pages.render(shown)
    shown.theme("dark", "print")
    assert shown.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
    assert shown.run("return getComputedStyle(document.documentElement).colorScheme") == "light"
    lost = "return [...document.querySelectorAll('main button.link')].filter(b => b.innerText && !b.offsetWidth && b.closest('details[open], section > .body > *')).length"
    assert shown.run(lost) == 0  # words that can be clicked on are printed as words
    printed = shown.pdf(tmp_path / "page.pdf").read_bytes()
    assert len(printed) > 20_000 and printed.count(b"/Type /Page\n") < 40
    assert len(shown.all("#pairs .printed tbody tr")) == 25  # the first rows, not room for all


def test_print_cuts_no_table(shown):
    """On A4 less its margins: nothing is wider than the paper or scrolls, and tables behind a click are there."""
    shown.size(718, 1000)
    pages.render(shown)
    shown.theme("light", "print")
    assert shown.run("return document.documentElement.scrollWidth <= innerWidth")
    tables = "[...document.querySelectorAll('main .scroll, main .tall')].filter(e => !e.closest('.screen, #provenance details, details:has(figure)'))"
    assert shown.run(f"return {tables}.length") > 20
    hidden = f"return {tables}.filter(e => e.scrollHeight > e.clientHeight + 1 || !e.clientHeight && !e.closest('.printed')).map(e => e.ariaLabel)"
    assert shown.run(hidden) == []


def test_a_section_that_is_not_ready_is_printed_as_such(shown):
    shown.theme("light", "print")
    shown.run("document.querySelector('#pairs .body').innerHTML = '<p class=wait>…</p>'")
    said = shown.run("return getComputedStyle(document.querySelector('#pairs .wait'), '::after').content")
    assert "print again" in said


def test_every_script_has_a_font(shown):
    """Chromium names the fonts that it drew a text with; Debian's Noto fonts have glyphs for all of these scripts."""
    pages.render(shown)
    seen = {}
    shown.driver.execute_cdp_cmd("DOM.enable", {})
    shown.driver.execute_cdp_cmd("CSS.enable", {})
    root = shown.driver.execute_cdp_cmd("DOM.getDocument", {"depth": 0})["root"]["nodeId"]
    for code in ("ur", "ne", "nqo", "am"):
        query = {"nodeId": root, "selector": f"main [lang|='{code}']"}
        nodes = shown.driver.execute_cdp_cmd("DOM.querySelectorAll", query)["nodeIds"]
        for node in nodes[:5]:
            fonts = shown.driver.execute_cdp_cmd("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]
            seen.setdefault(code, set()).update(font["familyName"] for font in fonts)
    if seen:
        assert any("NKo" in name for name in seen.get("nqo", ["NKo"])), seen
        assert any("Ethiopic" in name for name in seen.get("am", ["Ethiopic"])), seen
