"""The book as a reader meets it: every page in headless Chromium.

Light and dark, on a phone and on a wide screen; with axe-core, which
axe-playwright-python carries; and with the keyboard alone.
"""

import contextlib
import functools
import http.server
import threading
from pathlib import Path

import pytest

from built_book import PAGES, built_book

pytestmark = pytest.mark.xdist_group("book")

PHONE, WIDE = 390, 1400
SCHEMES = ("light", "dark")

# The page's formulas, pictures and boxes: what is wrong with them.
FORMULAS = """async () => {
  if (window.MathJax?.startup) await MathJax.startup.promise;
  const wrong = [...document.querySelectorAll("mjx-merror")].map(
    error => "formula: " + error.parentElement.textContent.slice(0, 80));
  const raw = document.querySelectorAll(".math").length;
  const set = document.querySelectorAll("mjx-container").length;
  return set < raw ? [...wrong, `${raw - set} formulas are not set`] : wrong;
}"""
PICTURES = """() => [...document.querySelectorAll("article img, article svg")]
  .filter(image => !image.closest("mjx-container, [aria-hidden=true], button"))
  .filter(image => !(image.alt || image.querySelector?.("title")?.textContent
                     || image.getAttribute("aria-label")))
  .map(image => "no words for a picture: " + image.outerHTML.slice(0, 80))"""
TOO_WIDE = """async () => {
  for (let frame = 0; frame < 2; frame++)  // the new size is laid out
    await new Promise(requestAnimationFrame);
  const root = document.documentElement, wrong = [];
  if (root.scrollWidth > innerWidth)
    wrong.push(`the page is ${root.scrollWidth} wide`);
  const article = document.querySelector("article.bd-article");
  const edge = (article ?? root).getBoundingClientRect().right + 1;
  const inside = element => {  // a box of its own scrolls it, or it fits
    const at = element.getBoundingClientRect();
    if (at.right <= edge || !at.width) return true;
    for (let box = element; box && box !== article; box = box.parentElement)
      if (getComputedStyle(box).overflowX !== "visible") return true;
  };
  for (const element of article?.querySelectorAll("*") ?? [])
    if (!inside(element))
      wrong.push("past the edge: " + element.outerHTML.slice(0, 80));
  return wrong;
}"""
# A short name in the text or in a table stands on one line.
BROKEN = """() => [...document.querySelectorAll("article p .pre, td .pre")]
  .filter(word => word.textContent.length < 16
                  && (word.getClientRects().length > 1
                      || word.offsetHeight > 30))
  .map(word => "broken: " + word.textContent)"""
# Axe looks at every word of the code; one of each color is enough.
THIN_OUT = """() => {
  const seen = new Set(), kind = token =>
    token.className + Boolean(token.closest(".tag_exported"))
    + Boolean(token.closest(".cell_output"));
  for (const token of document.querySelectorAll(".highlight pre span"))
    if (seen.has(kind(token))) token.replaceWith(token.textContent);
    else seen.add(kind(token));
  [...document.querySelectorAll("mjx-container")].slice(3).forEach(
    formula => formula.replaceWith(formula.textContent));
}"""
AXE = """async options => {
  const found = await axe.run(
    document, {resultTypes: ["violations"], preload: false, ...options});
  return found.violations
    .filter(rule => ["serious", "critical"].includes(rule.impact))
    .map(rule => `${rule.id}: ${rule.help} (${rule.nodes.length} times): `
                 + rule.nodes[0].html.slice(0, 120));
}"""
STRUCTURE = {"rules": {"color-contrast": {"enabled": False}}}
CONTRAST = {"runOnly": ["color-contrast"]}
# What a narrow screen changes: boxes that scroll, a sidebar that hides.
NARROW = {
    "runOnly": ["scrollable-region-focusable", "aria-hidden-focus"]
    + ["button-name", "link-name"]
}


@contextlib.contextmanager
def served(folder):
    """The address at which a folder is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def axe():
    """The file of axe-core."""
    package = pytest.importorskip("axe_playwright_python")
    return Path(package.__file__).parent / "axe.min.js"


@pytest.fixture(scope="module")
def book(browser, tmp_path_factory):
    """Where the book is served."""
    with served(built_book(tmp_path_factory)) as address:
        yield address


@contextlib.contextmanager
def opened(browser, home, page, width):
    """A tab with a page of the book, and what it complains about."""
    wrong = []
    tab = browser.new_page(
        viewport={"width": width, "height": 900}, reduced_motion="reduce"
    )
    tab.set_default_timeout(30_000)
    tab.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    tab.on(
        "console",
        lambda said: (
            said.type == "error"
            and wrong.append(f"console: {said.text} {said.location['url']}")
        ),
    )
    tab.on(
        "request",
        lambda asked: (
            asked.url.startswith((home, "data:", "blob:"))
            or wrong.append(f"asked another host: {asked.url}")
        ),
    )
    tab.goto(f"{home}{page}.html")
    yield tab, wrong
    tab.close()


def faults(browser, home, page, axe):
    """All that is wrong with a page, in sentences."""
    with opened(browser, home, page, PHONE) as (tab, wrong):
        wrong += tab.evaluate(FORMULAS) + tab.evaluate(PICTURES)
        wrong += tab.evaluate(BROKEN)
        tab.add_script_tag(path=axe)
        wrong += tab.evaluate(AXE, NARROW)
        for width in (PHONE, WIDE):
            tab.set_viewport_size({"width": width, "height": 900})
            for scheme in SCHEMES:
                tab.emulate_media(color_scheme=scheme)
                wrong += [
                    f"{scheme}, {width} px: {fault}"
                    for fault in tab.evaluate(TOO_WIDE)
                ]
        tab.evaluate(THIN_OUT)
        wrong += tab.evaluate(AXE, STRUCTURE)
        for scheme in SCHEMES:
            tab.emulate_media(color_scheme=scheme)
            tab.wait_for_timeout(50)
            wrong += [
                f"{scheme}: {fault}" for fault in tab.evaluate(AXE, CONTRAST)
            ]
        return list(wrong)


@pytest.mark.parametrize("page", [*PAGES, "search", "genindex"])
def test_page(browser, book, axe, page):
    assert not faults(browser, book, page, axe)


BAD = """<!doctype html><html><title>bad</title><body>
<article class="bd-article"><h1>Bad</h1>
<p style="color: #ccc">pale</p><p style="width: 2000px">wide</p>
<img src="data:,"><mjx-container><mjx-merror>x</mjx-merror></mjx-container>
<p style="width: 1em; overflow-wrap: anywhere"><i class="pre">n_heads</i></p>
<button></button><img alt="far" src="http://127.0.0.2:9/far.png">
<script>console.error("loud"); nothing()</script></article></html>"""


def test_a_bad_page_is_found_out(browser, axe, tmp_path):
    (tmp_path / "bad.html").write_text(BAD)
    with served(tmp_path) as home:
        found = "\n".join(faults(browser, home, "bad", axe))
    for fault in (
        *("formula: x", "no words for a picture", "button-name", "html-has"),
        *("past the edge", "light, 390 px: the page is 2", "light: color-con"),
        *(
            "broken: n_heads",
            "console: loud",
            "script: nothing is not",
            "another host: http://",
        ),
    ):
        assert fault in found


FOCUSED = """() => {
  const now = document.activeElement, style = getComputedStyle(now);
  const box = now.getBoundingClientRect();
  return {name: now.outerHTML.slice(0, 80), body: now === document.body,
          seen: box.width > 0 && box.height > 0, text: now.innerText ?? "",
          ring: style.outlineStyle !== "none" || style.boxShadow !== "none"};
}"""


def test_the_keyboard_is_enough(browser, book):
    """Skip the menus, see where one is, open a solution, search."""
    with opened(browser, book, "nbs/03_attention", WIDE) as (tab, wrong):
        tab.keyboard.press("Tab")
        assert "Skip to main content" in tab.evaluate(FOCUSED)["text"]
        tab.keyboard.press("Enter")
        assert tab.url.endswith("#main-content")
        for _ in range(25):
            tab.keyboard.press("Tab")
            focused = tab.evaluate(FOCUSED)
            assert not focused["body"]
            assert focused["seen"] and focused["ring"], focused["name"]
        solution = tab.locator("details > summary", has_text="Solution").first
        solution.focus()
        tab.keyboard.press("Enter")
        assert solution.evaluate("summary => summary.parentElement.open")
        tab.keyboard.press("Control+k")
        tab.wait_for_function(
            "() => document.activeElement.matches('input[name=q]')"
        )
        tab.keyboard.type("nucleus")
        tab.keyboard.press("Enter")
        tab.wait_for_url("**/search.html?q=nucleus*")
        tab.wait_for_selector("#search-results a[href*='08_sampling']")
        assert not wrong


# What the browser has understood of course.css about paper.
PAGE_RULES = """() => [...document.styleSheets]
  .filter(sheet => sheet.href?.includes("course.css"))
  .flatMap(sheet => [...sheet.cssRules])
  .filter(rule => rule instanceof CSSPageRule).map(rule => rule.cssText)"""


def test_printed_pages_are_numbered_but_for_the_first(browser, book):
    with opened(browser, book, "book/intro", WIDE) as (tab, _):
        every, first = tab.evaluate(PAGE_RULES)
    assert "@bottom-center" in every and "counter(page)" in every
    assert first.startswith("@page :first") and "content: none" in first
