"""How pytest runs here: repeatable notebooks, nbdev's skip rules, workers.

Notebooks run under nbval. Their stored outputs come from tiny Shakespeare on
a CPU. Where both are at hand outputs are compared; elsewhere notebooks must
only run from top to bottom. The run's header and last lines say which.
"""

import os
import warnings
from pathlib import Path

from xdist.scheduler import LoadFileScheduling

from nbdev_directives import split_directives
from project import SETTINGS

ROOT = Path(__file__).resolve().parent

# Set before torch is imported; inherited by every notebook kernel.
os.environ.setdefault("IN_TEST", "1")  # nbdev_export() in a cell: nothing
os.environ.setdefault("TQDM_DISABLE", "1")  # no progress bars in outputs
os.environ.setdefault("OMP_NUM_THREADS", "1")  # float sums in one order

# strict or lax. Set by the first process that asks, inherited by the
# workers of pytest-xdist, so that the text is looked for once.
MODE = "MINIGPT_NOTEBOOKS"
MEANING = {
    "strict": "executed and compared with their stored outputs",
    "lax": "executed, outputs NOT compared: that takes tiny Shakespeare and "
    "a CPU, and nobody asking for MINIGPT_NOTEBOOKS=lax",
}


def can_compare() -> bool:
    """Whether notebooks get tiny Shakespeare here, and run on the CPU."""
    from minigpt.text import best_device, is_shakespeare, load_text

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the header says it
        text = load_text("shakespeare")  # fetches it if it can
    return is_shakespeare(text) and best_device() == "cpu"


def pytest_configure(config):
    option = config.option
    if not (option.nbval or option.nbval_lax):
        return
    if option.nbval_lax:
        os.environ[MODE] = "lax"
    elif MODE not in os.environ:
        os.environ[MODE] = "strict" if can_compare() else "lax"
    option.nbval_lax = os.environ[MODE] == "lax"
    if not option.nbval_sanitize_with:  # found from any working directory
        option.nbval_sanitize_with = str(ROOT / "tests/nbval_sanitize.cfg")


def notebook_line(config) -> str | None:
    """What this run does with the notebooks, in one line."""
    if config.option.nbval or config.option.nbval_lax:
        return f"notebooks: {MEANING[os.environ[MODE]]}"
    return None


def pytest_report_header(config):
    return notebook_line(config)


def pytest_terminal_summary(terminalreporter, config):
    line = notebook_line(config)
    if line:
        terminalreporter.write_line(line)


class Scheduling(LoadFileScheduling):
    """One worker a file: a notebook keeps its kernel, a module its fixtures.

    The chapters of test_colab.py share nothing and take long: each goes to
    whichever worker is free.
    """

    def _split_scope(self, nodeid: str) -> str:
        if "::test_chapter_alone[" in nodeid:
            return nodeid
        return super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config, log):
    if config.getvalue("dist") == "loadfile":
        return Scheduling(config, log)
    return None


def pytest_collection_modifyitems(config, items):
    """Make nbval follow nbdev.

    `#| eval: false` cells and those with a flag of settings.ini's tst_flags
    are skipped (NBVAL_FLAGS="slow" runs some). nbdev_clean empties execution
    counts, which nbval reads as "never run": here every cell counts as run.
    """
    skip = set(SETTINGS["tst_flags"].split())
    skip -= set(os.environ.get("NBVAL_FLAGS", "").split())
    for item in items:
        cell = getattr(item, "cell", None)
        if cell is None:
            continue
        if cell.get("execution_count") is None:
            cell["execution_count"] = 0
        found, _ = split_directives(cell["source"])
        if skip & set(found) or found.get("eval") == "false":
            item.options["skip"] = True
