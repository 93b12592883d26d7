"""Debian's Chromium without a window and without a network, and what it did: console, requests, time, accessibility.

Chromium's command line sends every request that leaves the machine to a port where nobody listens; `requests` has what it
tried nevertheless.
"""

import base64
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.runs import ROOT

AXE = ROOT / "tests" / "support" / "vendor" / "axe.min.js"
DESKTOP, PHONE = (1280, 900), (390, 844)
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-default-browser-check",
    "--proxy-server=127.0.0.1:9",
    "--proxy-bypass-list=<-loopback>",
    "--force-color-profile=srgb",
    "--hide-scrollbars",  # the clips of screenshots are as wide as the page without them
)
INSIDE = ("data:", "blob:", "about:", "chrome:", "devtools:")  # of the page or the browser itself


def missing() -> str | None:
    """Why no browser can be started here; None if one can."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed (pip install -e '.[dev]')"
    for program in ("chromium", "chromedriver"):
        if not shutil.which(program):
            return f"{program} is not installed (scripts/setup.sh --browser does it)"
    return None


@contextmanager
def chromium():
    """A Browser with a profile of its own, closed and removed at the end."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    profile = tempfile.mkdtemp(prefix="chromium-")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size={},{}".format(*DESKTOP)):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_script_timeout(120)
        driver.set_page_load_timeout(120)
        driver.execute_cdp_cmd("Log.enable", {})
        driver.execute_cdp_cmd("Network.enable", {})
        yield Browser(driver)
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)


class Browser:
    """`console`: what pages logged, warnings and errors; `requests`: what they asked for beyond their one file."""

    def __init__(self, driver):
        self.driver = driver
        self.address = ""
        self.console: list[str] = []
        self.requests: list[str] = []

    def open(self, page: Path, fragment: str = "") -> None:
        """Load a page anew, with empty lists of what it did."""
        self.driver.get("about:blank")
        self.collect()
        self.console, self.requests, self.address = [], [], page.resolve().as_uri()
        self.driver.get(self.address + (f"#{fragment}" if fragment else ""))

    def collect(self) -> None:
        """Read the logs of the browser into `console` and `requests`."""
        for entry in self.driver.get_log("browser"):
            if entry["level"] in ("WARNING", "SEVERE"):
                self.console.append(f"{entry['level']}: {entry['message']}")
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                if url != self.address and not url.startswith(INSIDE):
                    self.requests.append(url)

    def faults(self) -> list[str]:
        """Warnings and errors of the console, and requests, since the page was opened; [] of a sound page."""
        self.collect()
        return [*self.console, *(f"request: {url}" for url in self.requests)]

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of a JavaScript function returns; its arguments are `arguments`."""
        return self.driver.execute_script(script, *arguments)

    def run_async(self, script: str, *arguments: Any) -> Any:
        """What the body of an async JavaScript function returns."""
        result = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1], given = [...arguments].slice(0, -1);"
            f"(async function () {{ {script} }}).apply(null, given)"
            ".then(value => done({value}), error => done({error: String(error && error.stack || error)}));",
            *arguments,
        )
        if "error" in result:
            raise AssertionError(result["error"])
        return result.get("value")

    def wait(self, condition: str | Callable[[], Any], seconds: float = 120) -> Any:
        """What `condition`, the body of a JavaScript function or a Python one, returns once that is true."""
        ask = (lambda: self.run(condition)) if isinstance(condition, str) else condition
        end, value = time.monotonic() + seconds, None
        while time.monotonic() < end:
            with suppress(_stale()):
                if value := ask():
                    return value
            time.sleep(0.02)
        self.collect()
        raise AssertionError(f"not true after {seconds:g} s: {condition}; last {value!r}; console {self.console}")

    def all(self, selector: str) -> list:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str, seconds: float = 120):
        """The first element that matches, as soon as there is one."""
        return self.wait(lambda: next(iter(self.all(selector)), None), seconds)

    def text(self, selector: str = "body") -> str:
        """What a reader of the page sees of an element."""
        return self.one(selector).text

    def click(self, element) -> None:
        """Bring an element, or the first one that matches a selector, into view and click on it as a mouse does."""
        from selenium.webdriver import ActionChains

        element = self.one(element) if isinstance(element, str) else element
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        ActionChains(self.driver).move_to_element(element).click().perform()

    def type(self, selector: str, text: str) -> None:
        """Replace what a field holds."""
        field = self.one(selector)
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", field)
        field.clear()
        field.send_keys(text)

    def keys(self, *keys: str) -> None:
        """Press keys (selenium's Keys, or text) in whatever has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self) -> Any:
        return self.driver.switch_to.active_element

    def size(self, width: int, height: int) -> None:
        command = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", command)

    def theme(self, scheme: str, media: str = "") -> None:
        """ "light" or "dark"; `media` "print" shows the page as it is printed."""
        wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})

    def screenshot(self, path: Path, selector: str | None = None, max_height: int = 6000) -> Path:
        """A PNG of an element, else of what is in view."""
        command: dict[str, Any] = {"format": "png"}
        if selector:
            box = self.run(
                "const b = document.querySelector(arguments[0]).getBoundingClientRect();"
                "return [b.x + scrollX, b.y + scrollY, b.width, b.height]",
                selector,
            )
            x, y, width, height = box
            clip = {"x": x, "y": y, "width": max(width, 1), "height": max(1, min(height, max_height)), "scale": 1}
            command |= {"captureBeyondViewport": True, "clip": clip}
        data = self.driver.execute_cdp_cmd("Page.captureScreenshot", command)["data"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data))
        return path

    def pdf(self, path: Path) -> Path:
        """The page as it is printed on A4."""
        command = {"printBackground": True, "paperWidth": 8.27, "paperHeight": 11.69}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.driver.execute_cdp_cmd("Page.printToPDF", command)["data"]))
        return path

    def accessibility(self, context: str = "body") -> list[dict]:
        """The faults that axe-core finds: `id`, `impact`, `help`, and the `nodes` (at most 5) that have it."""
        if not self.run("return 'axe' in window"):
            self.run(AXE.read_text(encoding="utf-8"))
        return self.run_async(
            "const found = await axe.run(arguments[0], {resultTypes: ['violations']});"
            "return found.violations.map(v => ({id: v.id, impact: v.impact, help: v.help,"
            " nodes: v.nodes.slice(0, 5).map(n => n.html.slice(0, 200) + ' | ' + (n.failureSummary || '').slice(0, 300))}));",
            context,
        )


def _stale() -> tuple[type[BaseException], ...]:
    """What a page that is being rebuilt raises."""
    from selenium.common.exceptions import JavascriptException, NoSuchElementException, StaleElementReferenceException

    return StaleElementReferenceException, NoSuchElementException, JavascriptException
