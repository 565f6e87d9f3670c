"""The picture of the app on the book's first page can be taken again."""

import io

import pytest

pytest.importorskip("gradio", reason="Gradio is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")
from PIL import Image

from app_picture import PART, picture
from minigpt import app


def test_the_app_is_pictured_in_light_and_in_dark(tiny_run, browser):
    served = app.serve(tiny_run, block=False)
    light, dark = (
        Image.open(
            io.BytesIO(picture(browser, served.local_url, scheme, "ROMEO:"))
        ).convert("L")
        for scheme in ("light", "dark")
    )
    served.close()
    assert light.size == (1.25 * PART["width"], 1.25 * PART["height"])
    assert light.getpixel((5, 5)) > 200 > 60 > dark.getpixel((5, 5))
