"""Shared by the unit tests: no windows, repeatable Hypothesis, the wheel."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv

import matplotlib
import pytest
from hypothesis import settings

import course
from project import ROOT

matplotlib.use("Agg")  # no window; the notebooks' kernels choose their own
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def nothing_but(folder) -> dict[str, str]:
    """An environment without the repository, data, caches or a network."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONPATH" and not name.startswith(("MINIGPT", "TIKTOK"))
    }
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    homes = ("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CACHE_HOME")
    return {
        **kept,
        **dict.fromkeys(proxies, "http://127.0.0.1:9"),
        **dict.fromkeys(homes, str(folder)),
    }


def beside_the_running(home):
    """The Python of a new venv that sees the running one's packages (torch
    is large), but not the repository."""
    venv.create(home, symlinks=os.name != "nt")
    (packages,) = home.glob("**/site-packages")
    running = sysconfig.get_path("purelib")
    (packages / "running.pth").write_text(running + "\n")
    return home / ("Scripts" if os.name == "nt" else "bin") / "python"


class Wheel:
    """The project's sdist and wheel, and a venv that holds the wheel."""

    def __init__(self, folder):
        source = folder / "source"
        source.mkdir()
        for name in (
            *("settings.ini", "setup.py", "pyproject.toml", "MANIFEST.in"),
            *("README.md", "LICENSE", "constraints.txt", "course.py"),
        ):
            shutil.copy(ROOT / name, source)
        for name in ("minigpt", "book/runs"):
            shutil.copytree(ROOT / name, source / name)
        build = "from setuptools.build_meta import build_sdist as f; f('..')"
        self.run("-c", build, cwd=source)
        (self.sdist,) = folder.glob("*.tar.gz")
        offline = ("--no-index", "--no-deps")
        self.run(
            *("-m", "pip", "wheel", "--no-build-isolation", *offline),
            *("--wheel-dir", folder, self.sdist),
        )
        (self.path,) = folder.glob("*.whl")
        self.home = folder / "venv"
        self.python = beside_the_running(self.home)
        self.bin = self.python.parent
        self.run(
            *("-m", "pip", "--python", self.python, "install", *offline),
            self.path,
        )

    @staticmethod
    def run(*arguments, cwd=None):
        subprocess.run([sys.executable, *arguments], cwd=cwd, check=True)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    return Wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def alone(tmp_path):
    """An empty folder and an environment with nothing else in it."""
    return tmp_path, nothing_but(tmp_path)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A run folder as `minigpt train` leaves it, of a very small model."""
    import torch

    from minigpt import GPT, CharTokenizer, GPTConfig, TrainConfig, Trainer

    text = "ROMEO:\nto be, or not to be: that is the question.\n" * 20
    tokenizer = CharTokenizer.from_text(text)
    ids = torch.tensor(tokenizer.encode(text))
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.vocab_size, 32, 16, 2, 2))
    config = TrainConfig(
        max_steps=6,
        batch_size=4,
        eval_every=3,
        log_every=2,
        device="cpu",
        precision="fp32",
        warmup_steps=0,
        sample_every=0,
    )
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    facts = {"data": "/home/someone/secret/plays.txt"}
    Trainer(
        model, ids, ids[:200], config, folder, tokenizer=tokenizer, facts=facts
    ).fit()
    return folder


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium, driven by playwright."""
    path = course.find_browser()
    if path is None:
        pytest.skip("no Chromium is installed")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        running = play.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-quic"],
        )
        yield running
        running.close()
