"""The guard on the notebooks' outputs: a changed output must fail.

A small notebook is run by pytest with the project's own conftest, as it is
and with its stored outputs tampered with.
"""

import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from minigpt.text import is_shakespeare, load_text
from minigpt.tokenizer import TokenizerError, gpt2_tokenizer
from project import ROOT


def printed(text: str) -> list:
    return [new_output("stream", name="stdout", text=text)]


def value(text: str, kind: str = "execute_result", **data: str) -> list:
    return [new_output(kind, data={"text/plain": text, **data})]


FIGURE = {"kind": "display_data", "image/png": ""}
SOURCES = {
    "never run": "#| hide\n#| eval: false\n1 / 0",
    "text": "import math\nprint('loss', 2.5)",
    "missing text": "print('perplexity', 12)",
    "number": "math.log(65)",
    "object": "object()",
    "ignored": "# NBVAL_IGNORE_OUTPUT\nimport time; print(time.time())",
    "figure": "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()",
}
STORED = {
    "text": printed("loss 2.5\n"),
    "missing text": printed("perplexity 12\n"),
    # The last digits may differ between machines: four decimals count.
    "number": value("4.174387269895999"),
    "object": value("<object>"),
    "ignored": printed("0.0\n"),
    "figure": value("<Figure size 640x480 with 1 Axes>", **FIGURE),
}
TAMPERED = {
    "text": printed("loss 2.6\n"),
    "missing text": [],
    "number": value("4.174487269895637"),
    "figure": [],
}


def small_notebook(**outputs: list):
    """One cell a source, stored as nbdev_clean leaves them."""
    stored = {**STORED, **outputs}
    return new_notebook(
        cells=[
            new_code_cell(source, outputs=stored.get(name, []))
            for name, source in SOURCES.items()
        ]
    )


@pytest.fixture
def run(tmp_path):
    """run(notebook, mode) -> (names of failed cells, everything printed)."""
    for name in (
        "conftest.py",
        "pyproject.toml",
        "settings.ini",
        "_toc.yml",
        "tests/project.py",
        "tests/nbval_sanitize.cfg",
        "book/_ext/nbdev_directives.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "nbs").mkdir()

    def run(notebook, mode=None, **variables):
        nbformat.write(notebook, tmp_path / "nbs/01_small.ipynb")
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MINIGPT", "PYTEST"))
        }
        if mode:
            env["MINIGPT_NOTEBOOKS"] = mode
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--nbval", "nbs"],
            cwd=tmp_path,
            env={**env, **variables},
            capture_output=True,
            encoding="utf-8",
        )
        cells = re.findall(r"^FAILED .*::Cell (\d+)", done.stdout, re.M)
        failed = {list(SOURCES)[int(cell)] for cell in cells}
        text = done.stdout + done.stderr
        passed = len(SOURCES) - 1 - len(failed)
        assert f"{passed} passed, 1 skipped" in text, text
        return failed, text

    return run


def test_an_untouched_notebook_passes(run):
    failed, text = run(small_notebook(), "strict")
    assert not failed, text
    assert text.count("notebooks: executed and compared") == 2, text


def test_changed_and_missing_outputs_fail(run):
    failed, text = run(small_notebook(**TAMPERED), "strict")
    assert failed == set(TAMPERED), text


@pytest.fixture
def offline(tmp_path):
    """Variables of a machine without data, caches and network."""
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    homes = ("HOME", "XDG_CACHE_HOME", "USERPROFILE", "LOCALAPPDATA")
    folders = (*homes, "TIKTOKEN_CACHE_DIR")
    return {
        **dict.fromkeys(proxies, "http://127.0.0.1:9"),
        **dict.fromkeys(folders, str(tmp_path / "home")),
    }


SHAKESPEARE, GPT2 = "tiny Shakespeare", "GPT-2's tokenizer"


def test_without_the_data_outputs_are_not_compared(run, offline):
    """No mirror, no cache and no network, and the run says so."""
    failed, text = run(small_notebook(**TAMPERED), **offline)
    assert not failed, text
    (line,) = set(re.findall("^notebooks: .*", text, re.M))
    assert "outputs NOT compared (missing: " in line
    assert SHAKESPEARE in line and GPT2 in line


def test_each_of_the_data_is_needed(run, offline, tmp_path):
    """With one of the two, outputs are not compared; the other is named."""
    if not is_shakespeare(load_text("shakespeare")):
        pytest.skip("needs tiny Shakespeare")
    (tmp_path / "data").mkdir()
    text = load_text("shakespeare")
    (tmp_path / "data/tinyshakespeare.txt").write_bytes(text.encode())
    offline["MINIGPT_DATA"] = str(tmp_path / "data")
    failed, text = run(small_notebook(**TAMPERED), **offline)
    assert not failed, text
    (line,) = set(re.findall("^notebooks: .*", text, re.M))
    assert GPT2 in line and SHAKESPEARE not in line


def test_with_all_data_outputs_are_compared(run):
    """The mode chosen without being asked, as in `course.py test`."""
    if not is_shakespeare(load_text("shakespeare")):
        pytest.skip("needs tiny Shakespeare")
    try:
        gpt2_tokenizer()
    except TokenizerError:
        pytest.skip("needs GPT-2's tokenizer")
    keep = {k: v for k, v in os.environ.items() if k == "MINIGPT_DATA"}
    failed, text = run(small_notebook(), CUDA_VISIBLE_DEVICES="", **keep)
    assert not failed, text
    assert text.count("notebooks: executed and compared") == 2, text


def test_an_error_fails_even_when_outputs_are_not_compared(run):
    notebook = small_notebook()
    notebook.cells[1].source += "\nassert 1 + 1 == 3"
    failed, text = run(notebook, "lax")
    assert failed == {"text"}, text
