"""The page in headless Chromium, narrow and wide, light and dark; skipped without Chromium and its driver."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from czslkit.metrics.predictions import FILE, Predictions
from czslkit.report.page_figures import page_figures
from czslkit.report.table import Table
from czslkit.result_store import Store

webdriver = pytest.importorskip("selenium.webdriver")
service = pytest.importorskip("selenium.webdriver.chrome.service")

RUNS = Path(__file__).parent / "recorded" / "runs"
SCHEMES, WIDTHS = ("light", "dark"), (420, 1280)
HOSTILE = '<img src="http://a/x" onerror="document.title=1">\'"</script><script>document.title=2</script>'
PUBLISHED = {"S": 68.0, "U": 60.0, "H": 50.05, "AUC": 40.25, "source": HOSTILE}
LONG = "W" * 150
CONTRAST = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
const rgba = (colour) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
};
const over = (front, back) => [0, 1, 2].map((i) => front[i] * front[3] + back[i] * (1 - front[3])).concat(1);
const behind = (element) => {
  const layers = [];
  for (let one = element; one; one = one.parentElement) layers.unshift(rgba(getComputedStyle(one).backgroundColor));
  return layers.reduce((back, front) => over(front, back), [255, 255, 255, 1]);
};
const light = (colour) => {
  const [r, g, b] = colour.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const found = [];
for (const element of document.querySelectorAll("body, body *")) {
  const text = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
  if (!text || !element.checkVisibility() || element.tagName === "SCRIPT") continue;
  const style = getComputedStyle(element), drawn = element.closest("svg");
  if (drawn && drawn.querySelector("image")) continue;  // letters on a map of colours
  const back = behind(element), front = over(rgba(drawn ? style.fill : style.color), back);
  const [low, high] = [light(front), light(back)].sort((a, b) => a - b);
  found.push([(high + 0.05) / (low + 0.05), text.slice(0, 40)]);
}
return found;
"""


def predictions(number: int, folder: Path) -> bytes:
    """Return predictions of which some are right, with hostile names of attributes, objects and images."""
    pairs = [(HOSTILE, LONG, True), ("wet", LONG, False), (HOSTILE, "dog", False), ("dry", "cat", True)]
    images = [*(f"{i}.png" for i in range(9)), HOSTILE]  # so few that all of them are shown
    predicted = [(i * (number + 1)) % 4 for i in range(10)]
    return Predictions(str(folder), images, pairs, [0] * 10, predicted).to_bytes()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of recorded results with figures, of hostile results, and of one that failed."""
    root = tmp_path_factory.mktemp("page")
    images = root / "demo" / "images"
    images.mkdir(parents=True)
    for i in range(7):
        Image.new("RGB", (96, 64), (12 * i, 90, 160)).save(images / f"{i}.png")
    store = Store(RUNS)
    results: list[dict[str, Any]] = store.results()
    first = results[0]
    cell = first["cell"] | {"method": HOSTILE, "seed": 0}
    results += [
        first | {"cell": cell, "files": {}, "published": PUBLISHED, "recipe": {"name": HOSTILE, "changed": [HOSTILE]}},
        first | {"cell": cell | {"method": LONG, "dataset": HOSTILE}, "files": {}},
        first | {
            "cell": cell | {"method": "poor"}, "status": "failed", "metrics": {}, "protocol": {},
            "error": {"type": "Error", "message": HOSTILE, "traceback": HOSTILE},
        },
    ]  # fmt: skip

    def attached(result: Any, name: str) -> bytes | None:
        number = [one["cell"] for one in results].index(result["cell"])
        return predictions(number, images) if name == FILE else store.attached(result, name)

    table = Table(results, mixed=True, attached=attached)
    file = root / "report.html"
    file.write_text(table.to_html(root, page_figures(table)), encoding="utf-8")
    return file


class Browser:
    """A headless Chromium that shows one page."""

    def __init__(self, page: Path) -> None:
        options = webdriver.ChromeOptions()
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.page, driver = page, shutil.which("chromedriver")
        self.driver = webdriver.Chrome(options=options, service=service.Service(driver))

    def show(self, width: int = 1280, scheme: str = "light", fragment: str = "") -> None:
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get("about:blank")
        self.driver.get(f"{self.page.as_uri()}{fragment}")

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def find(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Browser]:
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("there is no chromium with its chromedriver")
    started = Browser(page)
    yield started
    started.driver.quit()


def test_the_page_asks_for_nothing_and_has_no_error(browser: Browser) -> None:
    browser.driver.get_log("performance")
    browser.show()
    events = [json.loads(entry["message"])["message"] for entry in browser.driver.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    assert browser.page.as_uri() in asked
    assert {url for url in asked if not url.startswith("data:image/")} <= {browser.page.as_uri(), "about:blank"}
    assert browser.driver.get_log("browser") == []


def test_the_policy_of_the_page_stops_requests_and_other_scripts(browser: Browser) -> None:
    browser.show()
    stopped = browser.driver.execute_async_script("""
        const done = arguments[0], stopped = [];
        document.addEventListener("securitypolicyviolation", (event) => {
          stopped.push(event.effectiveDirective);
          if (stopped.length === 3) done(stopped.sort());
        });
        new Image().src = "http://127.0.0.1:9/x.png";
        fetch("http://127.0.0.1:9/").catch(() => 0);
        const script = document.createElement("script");
        script.textContent = "document.title = 'run'";
        document.body.append(script);
    """)
    assert stopped == ["connect-src", "img-src", "script-src-elem"]
    assert browser.driver.title == "czslkit results"
    browser.driver.get_log("browser")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_does_not_scroll_sideways(browser: Browser, width: int) -> None:
    for fragment in ("", "#cell-0", "#published", "#cells"):
        browser.show(width, fragment=fragment)
        wide = browser.run(f"""
            return [...document.querySelectorAll("main *")].filter((e) => !e.closest(".wide, svg")
              && e.getBoundingClientRect().right > {width}).map((e) => e.outerHTML.slice(0, 80))
        """)
        assert wide == []
        have, need = browser.run("const e = document.documentElement; return [e.clientWidth, e.scrollWidth]")
        assert have == need <= width


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_text_has_enough_contrast(browser: Browser, scheme: str) -> None:
    for width, fragment in ((1280, ""), (420, "#cell-0")):
        browser.show(width, scheme, fragment)
        found = browser.run(CONTRAST)
        assert len(found) > 300
        assert [one for one in found if one[0] < 4.5] == []
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(253, 253, 252)", "dark": "rgb(21, 24, 27)"}[scheme]


def test_a_column_is_sorted_when_its_name_is_chosen(browser: Browser) -> None:
    browser.show()
    table = browser.find("#summary table")[0]
    heads = table.find_elements("css selector", "thead button")

    def read(number: int) -> list[str]:
        rows = table.find_elements("css selector", "tbody tr")
        return [row.find_elements("css selector", "th, td")[number].text for row in rows]

    def numbers(texts: list[str]) -> list[float]:
        return [float(text.split()[0].strip("~")) for text in texts if text[:1].isdigit()]

    before, before_names = read(4), read(0)
    heads[4].click()
    assert numbers(read(4)) == sorted(numbers(before), reverse=True) != numbers(before)
    assert read(4)[-1] == "failed"
    assert table.find_elements("css selector", "th[aria-sort]")[0].get_attribute("aria-sort") == "descending"
    heads[4].click()
    assert numbers(read(4)) == sorted(numbers(before)) and read(4)[-1] == "failed"
    heads[0].click()
    assert read(0) == sorted(before_names, key=lambda name: name.strip("<").casefold())
    assert len(table.find_elements("css selector", "th[aria-sort]")) == 1


def test_hostile_names_stay_text(browser: Browser) -> None:
    browser.show()
    assert browser.driver.title == "czslkit results"
    assert browser.run("return [...document.images].every((image) => image.src.startsWith('data:image/jpeg;base64,'))")
    assert browser.run("return document.scripts.length") == 1
    texts = browser.run(
        "return [...document.querySelectorAll('th, h2, .true, .said, li, .gap')].map(e => e.textContent)"
    )
    for place in (f"{HOSTILE} WWWW", f"no picture of {HOSTILE}"):
        assert any(place in text for text in texts), place


def test_a_cell_is_shown_when_it_is_chosen(browser: Browser) -> None:
    browser.show(420)
    assert not any(cell.is_displayed() for cell in browser.find(".cell"))
    link = browser.find('#cells a[href^="#cell-"]')[0]
    name = link.get_attribute("href").rpartition("#")[2]
    browser.run(f"document.querySelector('[href=\"#{name}\"]').click()")
    (shown,) = [cell for cell in browser.find(".cell") if cell.is_displayed()]
    assert shown.get_attribute("id") == name


def test_every_link_of_the_contents_leads_somewhere(browser: Browser) -> None:
    browser.show()
    broken = browser.run(
        "return [...document.links].filter(a => !document.getElementById(a.hash.slice(1))).map(a => a.hash)"
    )
    assert broken == [] and len(browser.find("nav a")) >= 6
