"""Colab, simulated: any chapter alone, with nothing but the wheel.

No repository beside it, no data, no cache and no network, so each chapter
runs here on the toy language; nbval runs them on tiny Shakespeare.
"""

import shlex
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from project import NOTEBOOKS, SETTINGS, cells

RUN_ALL = """
import sys
import nbclient
import nbformat

notebook = nbformat.read(sys.argv[1], as_version=4)
where = nbformat.v4.new_code_cell("import minigpt; print(minigpt.__file__)")
notebook.cells.append(where)
nbclient.NotebookClient(notebook, timeout=300).execute()
print(where.outputs[0].text)
"""

FIRST_CELL = """
import sys
import types
from IPython.core.interactiveshell import InteractiveShell

asked = []
shell = InteractiveShell.instance()
shell.register_magic_function(asked.append, magic_name="pip")
source = sys.stdin.read()
shell.run_cell(source).raise_error()
assert asked == [], "installs outside Colab"
sys.modules["google.colab"] = types.ModuleType("google.colab")
shell.run_cell(source).raise_error()
print(*asked, sep="\\n")
"""


@pytest.mark.parametrize("chapter", NOTEBOOKS, ids=lambda path: path.stem)
def test_chapter_alone(chapter, wheel, alone):
    folder, env = alone
    shutil.copy(chapter, folder)
    done = subprocess.run(
        [wheel.python, "-c", RUN_ALL, chapter.name],
        cwd=folder,
        env=env,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr[-5000:]
    where = done.stdout.strip().splitlines()[-1]
    assert where.startswith(str(wheel.home))


def test_first_cell_installs_in_colab_only():
    """The same cell in every chapter: test_notebooks.py compares them."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CELL],
        input=cells(NOTEBOOKS[0], "code")[0]["source"],
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.strip().splitlines()
    *options, requirement = shlex.split(line)
    assert options == ["install", "-q"]
    wanted = Requirement(requirement)
    assert wanted.name == SETTINGS["dist_name"]
    assert wanted.url == f"git+{SETTINGS['git_url']}"
