"""The Space: its folder, and a visitor in a browser while it runs.

Its requirements are installed in a fresh venv. With MINIGPT_FRESH=1 that is
done from the package registry (gigabytes, minutes); else pip compares them
with the packages of the running Python, which the venv sees.
"""

import os
import re
import socket
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

pytest.importorskip("gradio", reason="Gradio is not installed")

import minigpt
from conftest import beside_the_running, nothing_but
from minigpt import space
from minigpt.cli import main
from project import SETTINGS

TEXT = "document.querySelector('#text0 textarea').value"


@pytest.fixture(scope="module")
def folder(tiny_run, tmp_path_factory):
    """What `minigpt export --to space` writes."""
    out = tmp_path_factory.mktemp("spaces") / "verse"
    run, to = ("--run", str(tiny_run)), ("--out", str(out))
    assert main(["export", *run, "--to", "space", *to]) == 0
    return out


def pins(folder) -> dict[str, str]:
    lines = (folder / "requirements.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_requirements_are_pinned_and_known(folder):
    ours = SETTINGS["requirements"] + " " + SETTINGS["app_requirements"]
    known = {re.match(r"\w+", word)[0] for word in ours.split()}
    assert set(pins(folder)) == set(space.NEEDS) <= known
    for version in pins(folder).values():
        assert re.fullmatch(r"\d[\w.]*", version)  # no +cpu


def test_the_header_is_what_spaces_reads(folder):
    start, header, _ = (folder / "README.md").read_text().split("---\n", 2)
    read = yaml.safe_load(header)
    assert start == "" and read["title"] and len(read["emoji"]) == 1
    assert read["sdk"] == "gradio"
    assert read["sdk_version"] == pins(folder)["gradio"]
    assert read["python_version"] == "{}.{}".format(*sys.version_info)
    assert (folder / read["app_file"]).is_file()
    assert len(read["short_description"]) <= 60
    colors = {"red", "yellow", "green", "blue", "indigo", "purple", "pink",
              "gray"}
    assert {read["colorFrom"], read["colorTo"]} <= colors


@pytest.mark.parametrize(
    "name", ['a "b": c', "x\ny: z", "- [1", "\N{OCTOPUS}"])
def test_any_name_is_a_title(name):
    lines = (f"{key}: {value}" for key, value in space.header(name).items())
    assert yaml.safe_load("\n".join(lines))["title"] == name


def test_the_package_is_inside_with_its_licence(folder):
    package = Path(minigpt.__file__).parent
    for source in package.rglob("*.py"):
        copied = folder / "minigpt" / source.relative_to(package)
        assert copied.read_bytes() == source.read_bytes()
    assert "Apache License" in (folder / "minigpt/LICENSE").read_text()
    assert not list(folder.rglob("__pycache__"))
    large = (folder / ".gitattributes").read_text()
    assert "*.safetensors filter=lfs" in large


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setattr(space, "NEEDS", ("torch", "no-such-package"))
    with pytest.raises(ValueError, match="no-such-package, whose version"):
        space.requirements()


@pytest.fixture(scope="module")
def python(folder, tmp_path_factory):
    """The Python of a fresh venv in which the requirements are met."""
    home = tmp_path_factory.mktemp("fresh") / "venv"
    wanted = folder / "requirements.txt"
    if os.environ.get("MINIGPT_FRESH"):
        venv.create(home, with_pip=True)
        python = home / "bin" / "python"
        command = (python, "-m", "pip", "install")
    else:
        python = beside_the_running(home)
        command = (sys.executable, "-m", "pip", "--python", python,
                   "install", "--no-index")
    subprocess.run([*command, "-q", "-r", wanted], check=True)
    return python


@pytest.fixture(scope="module")
def address(folder, python, tmp_path_factory):
    """Where the Space runs, as `python app.py` starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    env = nothing_but(home) | {
        "GRADIO_SERVER_PORT": str(port),
        "NO_PROXY": "127.0.0.1,localhost",  # Gradio asks itself
    }
    address = f"http://127.0.0.1:{port}/"
    running = subprocess.Popen(
        [python, "app.py"], cwd=folder, env=env, stdout=subprocess.PIPE,
        text=True,
    )
    try:
        told = running.stdout.readline()  # "" if it ended
        assert address in told
        yield address
    finally:
        running.terminate()
        running.wait(timeout=30)


def write(tab, length):
    """Press Write; the text of so many characters, and all before it."""
    tab.evaluate(f"""() => {{ window.seen = new Set();
        clearInterval(window.eye);
        window.eye = setInterval(() => window.seen.add({TEXT}), 2); }}""")
    tab.click("#go")
    tab.wait_for_selector("#go:not([disabled])")
    tab.wait_for_function(
        f"window.seen.size > 3 && {TEXT}.length == {length}", timeout=120_000)
    return tab.evaluate(TEXT), tab.evaluate("[...window.seen]")


def test_a_visitor_of_the_space(address, browser):
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    wrong = []
    tab.on("request", lambda r: None if r.url.startswith(
        (address, "data:", "blob:")) else wrong.append(r.url))
    tab.on("console", lambda message: wrong.append(message.text)
           if message.type == "error" else None)
    tab.goto(address)
    tab.wait_for_selector("#chart >> text=%", timeout=60_000)
    tab.get_by_role("tab", name="The model").click()
    assert "plays.txt" in tab.inner_text("#facts")
    assert "validation loss" in tab.inner_text("#facts")
    tab.get_by_role("tab", name="Next token").click()
    tab.fill("#prompt textarea", "to be, ")
    slider = tab.locator("#temperature input[type=range]")
    slider.focus()
    for _ in range(4):
        slider.press("ArrowRight")
    assert float(slider.input_value()) == pytest.approx(1.0)
    tab.wait_for_timeout(500)
    first, seen = write(tab, 207)
    assert first.startswith("to be, ")
    grown = sorted(filter(None, seen), key=len)
    assert grown[0].startswith("to be, ") and len(grown[0]) < 200
    assert all(first.startswith(part) for part in grown)
    tab.fill("#prompt textarea", "to be, ")
    again, _ = write(tab, 207)
    assert again == first
    tab.close()
    assert not wrong
