"""What README.md and the book's pages tell the reader to type, works."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import course
from minigpt.cli import COMMANDS
from minigpt.cli import _parse as parse_minigpt
from minigpt.runs import load_record
from project import ROOT, SETTINGS

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", "CONTRIBUTING.md", "book/how_to_use.md", "book/intro.md"]
COLAB = "https://colab.research.google.com/github"


def commands(page):
    """The lines after a prompt in a page's console blocks, as arguments."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"```console\n(.*?)```", text, re.S):
        for line in re.findall(r"^\s*[$>] (.+)", block, re.M):
            yield shlex.split(line.replace("\\", "/"), comments=True)


def test_python_block_runs():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.S)
    lines = [line for line in block.splitlines() if line.strip()]
    assert len(lines) <= 12, "the library in ten lines"
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", block],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 100  # the prompt, 100 characters, a line end


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_understood(page):
    """course.py and minigpt accept them; nothing else is suggested."""
    seen = 0
    for program, *arguments in commands(page):
        seen += 1
        if program == "torchrun":
            at = arguments.index("minigpt")
            assert arguments[at - 1] == "-m"
            program, arguments = "minigpt", arguments[at + 1 :]
        if program == "minigpt":
            parse_minigpt(arguments)
        elif arguments[:1] == ["course.py"]:
            assert program in ("python", "py")
            course.parse(arguments[1:])
        elif program == "pytest":
            assert all(
                (ROOT / name).exists()
                for name in arguments
                if not name.startswith("-")
            )
        else:
            known = "git cd pip nbdev_export nbdev_clean"
            assert program in known.split() + [".venv/Scripts/python"]
    assert seen >= 4


@pytest.mark.parametrize("page", ["README.md", "book/how_to_use.md"])
def test_no_command_meets_the_run_of_course_py(page):
    """`course.py train` comes first and leaves its run; none is refused."""
    taken = {Path("runs", preset) for preset in ("pocket", "mini")}
    out = [
        parse_minigpt(arguments).out
        for program, *arguments in commands(page)
        if program == "minigpt" and arguments[0] == "train"
    ]
    assert len(out) == len({*out} - taken) >= 2


def test_extras_that_pages_install_exist():
    known = {key.removesuffix("_requirements") for key in SETTINGS}
    for page in ("README.md", "book/how_to_use.md", "book/colab.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for extras in re.findall(r"minigpt-course\[([\w,]+)\]", text):
            assert {*extras.split(",")} <= known, page


def test_extras_that_errors_name_exist():
    """In double quotes: cmd.exe takes single ones for letters."""
    known = {key.removesuffix("_requirements") for key in SETTINGS}
    found = []
    for path in (ROOT / "minigpt").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        found += re.findall(r"(.)minigpt-course\[(\w+)\]", text)
    assert len(found) >= 4
    for quote, extra in found:
        assert quote == '"' and extra in known


@pytest.mark.parametrize("begun", [False, True])
def test_the_size_of_a_colab_run_can_be_changed(begun, monkeypatch):
    """After a full memory the same cell goes on with smaller batches."""
    text = (ROOT / "book/colab.md").read_text(encoding="utf-8")
    (cell,) = re.findall(r"```ipython\n(.*?)```", text, re.S)
    code, _, line = cell.rpartition("!minigpt")
    monkeypatch.setattr(os.path, "exists", lambda path: begun)
    names = {}
    exec(code, names)
    arguments = shlex.split(line.format(**names))
    assert ("--resume" in arguments) == begun
    arguments = [word for word in arguments if word != "--resume"]
    train = parse_minigpt(arguments).train
    assert train.batch_size * train.grad_accum == 512


def test_table_of_commands():
    """how_to_use.md explains every command of course.py, and no other."""
    text = (ROOT / "book/how_to_use.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `python course.py (\w+)`", text, re.M)
    assert sorted(told) == ["book", "lab", "pdf", "setup", "test", "train"]
    for name in told:
        course.parse([name])


def test_table_of_the_librarys_commands():
    """how_to_use.md explains every command of minigpt, and no other."""
    text = (ROOT / "book/how_to_use.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `minigpt (\w+)`", text, re.M)
    assert sorted(told) == sorted(COMMANDS)


def test_addresses_follow_settings():
    """README and pages name the repository and site of settings.ini."""
    git_url, repo = SETTINGS["git_url"], SETTINGS["repo"]
    site = SETTINGS["doc_host"] + SETTINGS["doc_baseurl"]
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        hosts = r"https://(?:[\w-]+\.)?github\.(?:com|io)/[^\s)\"]+"
        for url in re.findall(hosts, text):
            ours = "minigpt" in url or repo in url
            assert not ours or url.startswith((git_url, site)), (page, url)
    assert f"git clone {git_url}\n" in README
    assert f"cd {repo}\n" in README
    assert f'@ git+{git_url}"' in README
    assert f"]({site}/)" in README


def test_colab_badges_follow_settings():
    """Every chapter of the README has the badge of its own notebook."""
    slug = f"{SETTINGS['user']}/{SETTINGS['repo']}"
    for name in re.findall(r"\]\((nbs/\w+\.ipynb)\)", README):
        link = f"{COLAB}/{slug}/blob/{SETTINGS['branch']}/{name}"
        assert README.count(f"]({link})") == 1, f"Colab badge of {name}"
    assert README.count(COLAB) == README.count("](nbs/")


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_exist(page):
    folder = (ROOT / page).parent
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s:#{]+)\)", text):
        assert (folder / target).exists(), f"{page}: {target}"


def test_every_chapter_is_listed():
    """In the README, in the intro and in the table of contents alike."""
    intro = (ROOT / "book/intro.md").read_text(encoding="utf-8")
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    inside = re.findall(r"file: nbs/(\w+)", toc)
    assert inside == re.findall(r"\]\(nbs/(\w+)\.ipynb\)", README)
    assert inside == re.findall(
        r"^\| \[.*\(\.\./nbs/(\w+)\.ipynb\)", intro, re.M
    )


def test_numbers_are_those_recorded():
    """Of the README's table, and of what the intro says takes how long."""

    def rows(name, kind, key):
        found = load_record(name)[1]
        return [row[key] for row in found if row["kind"] == kind]

    ladder = rows("ladder", "rung", "loss")
    recipe = rows("recipe", "recipe", "loss")
    speed = rows("speed", "speed", "ratio")
    memory = [
        row["measured"] / row["predicted"]
        for row in load_record("memory")[1]
        if row["kind"] == "memory"
    ]
    loss, took = (rows("pocket", "val", key) for key in ("loss", "seconds"))
    shown = {
        "ladder": f"{ladder[0]:.2f} to {min(ladder):.2f} nats",
        "pocket": f"loss {min(loss):.2f} after {took[-1]:.0f} s",
        "mini": f"validation loss {min(rows('mini', 'val', 'loss')):.2f}",
        "recipe": f"{recipe[-1]:.2f} and {recipe[0]:.2f}",
        "speed": f"{min(speed):.2f} to {max(speed):.2f} times",
        "memory": f"{max(memory):.4f} times",
    }
    for name, number in shown.items():
        command = load_record(name)[0]["command"].split(" --share")[0]
        (line,) = [line for line in README.splitlines() if number in line]
        assert f"| `{command}" in line, name
    hours = rows("mini", "val", "seconds")[-1] / 3600
    for page in ("intro", "how_to_use"):
        text = (ROOT / f"book/{page}.md").read_text(encoding="utf-8")
        assert f"{hours:.1f} hours" in text
    assert f"*pocket*: {took[-1]:.0f} s" in (
        ROOT / "book/intro.md"
    ).read_text(encoding="utf-8")
