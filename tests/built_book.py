"""The built book, one for all tests and workers of a run."""

import os
import subprocess
import sys
from pathlib import Path

import yaml
from filelock import FileLock

from project import ROOT

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"]] + [
    chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]
]
CHAPTERS = [page for page in PAGES if page.startswith("nbs/")]


def built_book(tmp_path_factory) -> Path:
    """The folder of the book, built anew with warnings as errors.

    The first worker that asks builds it, the others wait.
    """
    out = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        out = out.parent  # the folder that the workers share
    site, done = out / "_build" / "html", out / "book-is-built"
    with FileLock(out / "book.lock"):
        if not done.exists():
            build(out)
            done.touch()
    return site


def build(out: Path) -> None:
    code = "from jupyter_book.cli.main import main; main()"
    strict = ("--all", "-W", "--keep-going", "-n")
    done = subprocess.run(
        [sys.executable, "-c", code, "build", ".", "--path-output", out]
        + [*strict],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
