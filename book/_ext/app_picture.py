"""The app as a picture, for the book's first page, in light and in dark.

python book/_ext/app_picture.py RUN    writes book/_static/app-*.png
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

from course import find_browser  # noqa: E402
from minigpt import app  # noqa: E402

SIZE = {"width": 1240, "height": 760}
PART = {"x": 120, "y": 10, "width": 1000, "height": 740}  # no margins
PROMPT = "ROMEO:\nO, thou hast stolen my l"
WRITTEN = """length => [...document.querySelectorAll(".text textarea")]
  .some(box => box.value.length >= length)"""


def picture(browser, address, scheme, prompt=PROMPT):
    """A PNG of the app with a text that it has just written."""
    tab = browser.new_page(
        viewport=SIZE, color_scheme=scheme, device_scale_factor=1.25
    )
    tab.goto(address)
    tab.get_by_label("Prompt").fill(prompt)
    tab.get_by_role("button", name="Write").click()
    tab.wait_for_function(WRITTEN, arg=len(prompt) + 200)
    tab.wait_for_timeout(1000)  # the bars at the cursor come last
    shot = tab.screenshot(clip=PART)
    tab.close()
    return shot


def draw(run):
    """The app of a run folder in two files, of 64 colors each."""
    served = app.serve(run, block=False)
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=find_browser(), args=["--no-sandbox"]
        )
        for scheme in ("light", "dark"):
            shot = picture(browser, served.local_url, scheme)
            target = ROOT / "book" / "_static" / f"app-{scheme}.png"
            few = Image.open(io.BytesIO(shot)).convert("RGB").quantize(64)
            few.save(target, optimize=True)
            print(f"wrote {target.name}, {target.stat().st_size:,} bytes")
        browser.close()
    served.close()


if __name__ == "__main__":
    draw(sys.argv[1])
