"""Pages of runs, as scripts/report.py writes them, opened in a browser."""

from pathlib import Path

from tests.support.browser import DESKTOP, PHONE, Browser
from tests.support.runs import in_process

READY = "return document.documentElement.dataset.ready === 'true'"
SIZES = {"desktop": DESKTOP, "phone": PHONE}
THEMES = ("light", "dark")


def build(run: Path, page: Path, *flags, code: int | tuple[int, ...] = 0) -> str:
    """Write the page of a run; what the command said."""
    result = in_process("scripts/report.py", run, "-o", page, *flags)
    assert result.returncode in (code if isinstance(code, tuple) else (code,)), (
        f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    )
    return result.stdout + result.stderr


def opened(browser: Browser, page: Path, fragment: str = "") -> Browser:
    """The page, once its first section can be used."""
    browser.open(page, fragment)
    browser.wait(READY)
    return browser


def sections(browser: Browser) -> list[str]:
    return browser.run("return [...document.querySelectorAll('main > section')].map(s => s.id)")


def render(browser: Browser, *names: str) -> None:
    """Render sections (all, if none is named), as scrolling to them does."""
    for name in names or sections(browser):
        browser.run("document.getElementById(arguments[0]).scrollIntoView({block: 'start', behavior: 'instant'})", name)
        browser.wait(lambda name=name: not browser.all(f"#{name} [aria-busy=true], #{name} .wait"))
    settle(browser)


def settle(browser: Browser) -> None:
    """Until two frames have been painted: charts are drawn when their width is known."""
    browser.run_async(
        "for (let i = 0; i < 2; i++) await new Promise(r => requestAnimationFrame(() => setTimeout(r, 30)));"
    )
