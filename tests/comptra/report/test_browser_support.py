"""The browser that tests use: it sees what a page does that it should not."""

from pathlib import Path

import pytest

from tests.support.browser import PHONE

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>A page</title></head>
<body><main><h1>A page</h1>{}</main></body></html>"""


@pytest.fixture
def page(tmp_path):
    def write(body: str) -> Path:
        path = tmp_path / "page.html"
        path.write_text(PAGE.format(body), encoding="utf-8")
        return path

    return write


def test_a_sound_page_has_no_faults(browser, page):
    browser.open(page("<p>Text</p><a href='#there'>there</a>"), "there")
    assert browser.text("p") == "Text"
    assert browser.faults() == [] and browser.accessibility() == []


@pytest.mark.parametrize(
    "body, fault",
    [
        ("<script>console.error('something')</script>", "something"),
        ("<script>console.warn('some warning')</script>", "some warning"),
        ("<script>missing.call()</script>", "missing is not defined"),
        ("<script>Promise.reject(new Error('no one waits'))</script>", "no one waits"),
        ("<img src='http://example.com/a.png' alt=''>", "request: http://example.com/a.png"),
        ("<script>fetch('https://example.com/data').catch(() => 0)</script>", "request: https://example.com/data"),
        ("<script>fetch('http://localhost:9/data').catch(() => 0)</script>", "request: http://localhost:9/data"),
        ("<iframe src='https://example.com/' title='x'></iframe>", "request: https://example.com/"),
        ("<link rel=stylesheet href='page.css'>", "page.css"),
        ("<script>new WebSocket('ws://example.com/socket')</script>", "example.com/socket"),
        (
            "<style>@font-face {font-family: x; src: url(https://example.com/f)} p {font-family: x}</style><p>a</p>",
            "/f",
        ),
    ],
)
def test_faults_are_seen(browser, page, body, fault):
    browser.open(page(body))
    browser.wait(lambda: any(fault in seen for seen in browser.faults()))


def test_faults_are_those_of_the_page_that_is_open(browser, page):
    browser.open(page("<script>console.error('first')</script>"))
    browser.open(page("<p>second</p>"))
    assert browser.faults() == []


def test_accessibility_faults_are_found(browser, page):
    browser.open(page("<button></button><img src='data:,'><p style='color:#ccc;background:#fff'>pale</p>"))
    found = {fault["id"]: fault["impact"] for fault in browser.accessibility()}
    assert found["button-name"] == "critical" and found["image-alt"] == "critical"
    assert found["color-contrast"] == "serious"


def test_pictures_themes_and_sizes(browser, page, tmp_path):
    browser.open(page("<p id=p style='height: 3000px'>tall</p>"))
    ask = "return [matchMedia('(prefers-color-scheme: dark)').matches, matchMedia('print').matches, innerWidth]"
    browser.size(*PHONE)
    browser.theme("dark", "print")
    assert browser.run(ask) == [True, True, 390]
    browser.size(1280, 900)
    browser.theme("light")
    assert browser.run(ask) == [False, False, 1280]
    picture = browser.screenshot(tmp_path / "p.png", "#p")
    header = picture.read_bytes()[:24]
    assert header[1:4] == b"PNG" and int.from_bytes(header[20:24]) == 3000
    assert browser.pdf(tmp_path / "p.pdf").read_bytes().startswith(b"%PDF")


def test_errors_of_a_script_reach_the_test(browser, page):
    browser.open(page(""))
    assert browser.run_async("return await Promise.resolve(arguments[0] + 1)", 2) == 3
    with pytest.raises(AssertionError, match="wrong here"):
        browser.run_async("throw new Error('wrong here')")
    with pytest.raises(AssertionError, match="not true after"):
        browser.wait("return false", seconds=0.2)
