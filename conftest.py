"""How pytest runs here: repeatable notebooks, nbdev's skip rules, workers.

Notebooks run under nbval. Their stored outputs come from tiny Shakespeare and
GPT-2's tokenizer on a CPU. Where all are at hand outputs are compared;
elsewhere notebooks must only run from top to bottom. The run's header and
last lines say which, and what is missing.
"""

import os
import warnings
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

from nbdev_directives import split_directives
from project import SETTINGS

ROOT = Path(__file__).resolve().parent

# Set before torch is imported; inherited by every notebook kernel.
os.environ.setdefault("IN_TEST", "1")  # nbdev_export() in a cell: nothing
os.environ.setdefault("TQDM_DISABLE", "1")  # no progress bars in outputs
os.environ.setdefault("OMP_NUM_THREADS", "1")  # float sums in one order

# strict, or why not. Set by the first process that asks, inherited by the
# workers of pytest-xdist, so that the data are looked for once.
MODE = "MINIGPT_NOTEBOOKS"


def missing() -> list[str]:
    """What the notebooks' stored outputs need and do not get here."""
    from minigpt.text import best_device, is_shakespeare, load_text
    from minigpt.tokenizer import TokenizerError, gpt2_tokenizer

    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the header says it
        text = load_text("shakespeare")  # fetches it if it can
    if not is_shakespeare(text):
        found.append("tiny Shakespeare (MINIGPT_DATA)")
    try:
        gpt2_tokenizer()  # tiktoken fetches its files if it can
    except TokenizerError:
        found.append("GPT-2's tokenizer (TIKTOKEN_CACHE_DIR)")
    if best_device() != "cpu":
        found.append("a run on the CPU (CUDA_VISIBLE_DEVICES=)")
    return found


def pytest_configure(config):
    option = config.option
    if not (option.nbval or option.nbval_lax):
        return
    if option.nbval_lax:
        os.environ[MODE] = "lax"
    elif MODE not in os.environ:
        os.environ[MODE] = " and ".join(missing()) or "strict"
    option.nbval_lax = os.environ[MODE] != "strict"
    if not option.nbval_sanitize_with:  # found from any working directory
        option.nbval_sanitize_with = str(ROOT / "tests/nbval_sanitize.cfg")


def notebook_line(config) -> str | None:
    """What this run does with the notebooks, in one line."""
    if not (config.option.nbval or config.option.nbval_lax):
        return None
    mode = os.environ[MODE]
    if mode == "strict":
        return "notebooks: executed and compared with their stored outputs"
    why = "as asked" if mode == "lax" else f"missing: {mode}"
    return f"notebooks: executed, outputs NOT compared ({why})"


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


@pytest.hookimpl(optionalhook=True)  # pytest -p no:xdist works, too
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
