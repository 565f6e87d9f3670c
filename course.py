#!/usr/bin/env python3
"""The one command of the course: setup, book, pdf, test, train, lab.

Standard library only, and no syntax that Python 3.6 cannot read, so that an
old Python gets a sentence and not a SyntaxError.
"""

import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def read_settings():
    """settings.ini, the one source of names and versions."""
    config = ConfigParser(delimiters=["="])
    config.read(str(ROOT / "settings.ini"), encoding="utf-8")
    return config["DEFAULT"]


def check_python(version=sys.version_info):
    """Stop with one sentence when this Python is too old."""
    oldest = read_settings()["min_python"]
    if tuple(version[:2]) < tuple(int(part) for part in oldest.split(".")):
        sys.exit(
            f"course.py: this is Python {version[0]}.{version[1]}, and the "
            f"course needs {oldest} or newer: install one from "
            "https://www.python.org/downloads/ and run course.py with it."
        )


check_python()

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import time
import venv

VENV = ROOT / ".venv"
STAMP = VENV / "course-stamp.txt"
WINDOWS = os.name == "nt"
BIN = VENV / ("Scripts" if WINDOWS else "bin")
PYTHON = BIN / ("python.exe" if WINDOWS else "python")
TORCH_PAGE = "https://pytorch.org/get-started/locally/"
GB = 10**9

# What pip prints when it cannot go on, and what that means for a reader.
DISK_FULL = re.compile(r"No space left|Errno 28|ENOSPC|not enough space", re.I)
NO_NETWORK = re.compile(
    r"name resolution|getaddrinfo|NewConnectionError|Max retries|"
    r"Network is unreachable|Connection refused|ProxyError|timed out|"
    r"Could not find a version|No matching distribution",
    re.I,
)


class Stop(Exception):
    """The one sentence with which a command ends."""


def say(text: str) -> None:
    """One line of what is going on."""
    print(f"course.py: {text}", flush=True)


# The environment -----------------------------------------------------------


def environment() -> dict[str, str]:
    """What a child process sees: the venv first, the local data if any."""
    env = dict(os.environ)
    env["PATH"] = str(BIN) + os.pathsep + env.get("PATH", "")
    env["VIRTUAL_ENV"] = str(VENV)
    env.pop("PYTHONHOME", None)
    env.setdefault("PYTHONUTF8", "1")  # verse on an old Windows console
    for data in (ROOT / "data", ROOT.parent / "shared" / "data"):
        if data.is_dir():
            env.setdefault("MINIGPT_DATA", str(data))
            if (data / "tiktoken").is_dir():
                env.setdefault("TIKTOKEN_CACHE_DIR", str(data / "tiktoken"))
            break
    return env


def call(*command: object, errors_only: bool = False) -> int:
    """Run a command in the project and return its exit status.

    Ctrl-C reaches the command as well: wait until it has ended by itself,
    because a training run saves what it has.
    """
    child = subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL if errors_only else None,
    )
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue


def answer(code: str) -> str:
    """What the venv's Python prints for a line of code."""
    done = subprocess.run(
        [str(PYTHON), "-c", code],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def has_nvidia() -> bool:
    """Whether an NVIDIA driver is installed here."""
    return shutil.which("nvidia-smi") is not None


def cuda_advice() -> str | None:
    """What to do when there is a card that torch cannot use, else None."""
    if not has_nvidia():
        return None
    code = "import torch; print(torch.__version__, torch.cuda.is_available())"
    version, _, usable = answer(code).partition(" ")
    if usable == "True":
        return None
    return (
        f"an NVIDIA card is here, but torch {version} cannot use it, so "
        "training runs on the CPU. The right command for your system is on "
        f"{TORCH_PAGE}: run it with {PYTHON} -m pip, and add "
        "--force-reinstall; course.py keeps the torch that you install."
    )


# Setup ---------------------------------------------------------------------


def venv_version() -> str | None:
    """The Python version of .venv, or None when it has to be made."""
    if not PYTHON.exists() or not any(BIN.glob("pip*")):
        return None
    text = (VENV / "pyvenv.cfg").read_text(encoding="utf-8")
    found = re.search(r"^version(?:_info)?\s*=\s*(\S+)", text, re.M)
    return found[1] if found else None


def fingerprint(extra: str) -> str:
    """Changes when what is installed should change."""
    digest = hashlib.sha256(f"{ROOT}|{venv_version()}|{extra}".encode())
    for name in ("settings.ini", "constraints.txt", "setup.py"):
        digest.update((ROOT / name).read_bytes())
    return f"{extra} {digest.hexdigest()}"


def installed_torch() -> str | None:
    """The version of torch in .venv, read from the folder's name."""
    packages = "Lib/site-packages" if WINDOWS else "lib/*/site-packages"
    for path in VENV.glob(f"{packages}/torch-*.dist-info"):
        return path.name[len("torch-") : -len(".dist-info")]
    return None


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparison: 2.13.0+cpu."""
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0]))


def constraints(torch: str | None) -> str:
    """constraints.txt, with the torch asked for or already installed.

    A torch that a reader chose for their card is kept, whatever its version,
    as long as the course runs with it.
    """
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    oldest = re.search(r"\btorch>=(\S+)", read_settings()["requirements"])[1]
    have = installed_torch()
    if torch is None and have and numbers(have) >= numbers(oldest):
        torch = have
    if torch is None:
        return lines
    line = "" if torch == "newest" else f"torch=={torch}\n"
    return re.sub(r"^torch==.*\n", line, lines, flags=re.M)


def make_venv() -> None:
    """Make .venv, or make it again when it no longer works."""
    if venv_version():
        return
    if importlib.util.find_spec("ensurepip") is None:
        raise Stop(
            "this Python cannot make a virtual environment: on Debian and "
            "Ubuntu run `sudo apt install python3-venv`, then this again."
        )
    builder = venv.EnvBuilder(with_pip=True, clear=True, symlinks=not WINDOWS)
    try:
        builder.create(VENV)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Stop(f"could not make {VENV}: {error}.") from error


def check_space() -> None:
    """Stop before an install that would fill the disk."""
    cuda = has_nvidia() and sys.platform != "darwin"
    need = 9 if cuda else 3
    free = shutil.disk_usage(ROOT).free
    if free < need * GB:
        raise Stop(
            f"{free / GB:.1f} GB are free on this disk and the course's "
            f"packages need about {need}: free some space, then run this "
            "again."
        )


def pip(*arguments: object) -> None:
    """Run pip with its output in a log; Stop with what went wrong."""
    log = VENV / "course-install.log"
    command = [PYTHON, "-m", "pip", "install", "--no-input", *arguments]
    live = sys.stdout.isatty()
    with log.open("w", encoding="utf-8", errors="replace") as file:
        child = subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for line in child.stdout:
            file.write(line)
            words = line.split()
            if live and words[:1] in (["Collecting"], ["Downloading"]):
                print(f"\r  {' '.join(words)[:70]:<70}", end="", flush=True)
        status = child.wait()
    if live:
        print("\r" + " " * 72 + "\r", end="", flush=True)
    if status:
        raise Stop(pip_failure(log.read_text(encoding="utf-8"), log))


def pip_failure(text: str, log: Path) -> str:
    """One sentence from pip's output."""
    if DISK_FULL.search(text):
        return "the disk is full: free some space, then run this again."
    if NO_NETWORK.search(text):
        return (
            "pip found no network and no local copy of a package: connect "
            "once, or set PIP_FIND_LINKS to a folder of wheels, then run "
            f"this again (pip's words are in {log})."
        )
    errors = re.findall(r"^ERROR: (.+)$", text, re.M) or ["pip failed"]
    return f"{errors[0]} (everything pip said is in {log})."


def setup(extra: str = "dev", torch: str | None = None) -> None:
    """Make .venv hold the course and what it needs; nothing when it does.

    extra is the set of settings.ini to install: "dev" for book and tests,
    "dev,lab" with JupyterLab, which then stays.
    """
    stamp = STAMP.read_text(encoding="utf-8") if STAMP.is_file() else ""
    if stamp.startswith("dev,lab "):
        extra = "dev,lab"
    if stamp == fingerprint(extra) and venv_version() and torch is None:
        return
    check_space()
    start = time.monotonic()
    say(f"installing into {VENV} (usually 1 to 3 minutes, once)")
    make_venv()
    STAMP.unlink(missing_ok=True)
    if sys.platform == "linux" and not has_nvidia() and not installed_torch():
        say(
            "without an NVIDIA card the CPU build of torch is enough and "
            f"4 GB smaller: if pip fetches CUDA, press Ctrl-C, run the CPU "
            f"command of {TORCH_PAGE} with {PYTHON} -m pip, and start again"
        )
    chosen = VENV / "constraints.txt"
    chosen.write_text(constraints(torch), encoding="utf-8")
    pip("-c", chosen, "-e", f".[{extra}]")
    STAMP.write_text(fingerprint(extra), encoding="utf-8")
    say(f"installed in {time.monotonic() - start:.0f} s")
    advice = cuda_advice()
    if advice:
        say(advice)


# Printing ------------------------------------------------------------------


def find_browser() -> str | None:
    """A Chromium, Chrome or Edge of this machine, or None."""
    names = (
        *("chromium", "chromium-browser", "google-chrome"),
        *("google-chrome-stable", "microsoft-edge", "chrome", "msedge"),
    )
    for found in map(shutil.which, names):
        if found:
            return found
    places = [
        Path("/Applications") / f"{name}.app/Contents/MacOS/{name}"
        for name in ("Google Chrome", "Chromium", "Microsoft Edge")
    ]
    for variable in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA"):
        if variable in os.environ:
            folder = Path(os.environ[variable])
            places += [
                folder / "Google/Chrome/Application/chrome.exe",
                folder / "Microsoft/Edge/Application/msedge.exe",
            ]
    return next((str(place) for place in places if place.is_file()), None)


def print_pdf(browser: str, page: Path, target: Path) -> None:
    """Print a page of this disk to a PDF, formulas and outline included."""
    # Beside the target: a Chromium from a snap sees no other /tmp than its.
    profile = target.with_suffix(".profile")
    target.unlink(missing_ok=True)
    command = [
        *(browser, "--headless", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", f"--user-data-dir={profile}"),
        *("--no-pdf-header-footer", "--generate-pdf-document-outline"),
        # How long, on the page's own clock, its scripts may take: MathJax.
        *("--virtual-time-budget=120000", f"--print-to-pdf={target}"),
    ]
    if not WINDOWS and os.geteuid() == 0:
        command.append("--no-sandbox")  # it refuses to run as root with it
    try:
        done = subprocess.run(
            [*command, page.as_uri()],
            capture_output=True,
            text=True,
            errors="replace",
        )
    finally:
        shutil.rmtree(profile, ignore_errors=True)
    if not target.is_file():
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise Stop(f"{browser} printed no PDF: {said[-1]}")


# The commands --------------------------------------------------------------


def run_setup(options: argparse.Namespace) -> int:
    setup(torch=options.torch)
    say(f"ready: {PYTHON}")
    return 0


BUILDER = "from jupyter_book.cli.main import main; main()"
STRICT = ("-q", "-W", "--keep-going", "-n")  # every warning is an error


def build_book(*options: str) -> int:
    """Run Jupyter Book; of what it says, only the errors (stderr) show."""
    make = [PYTHON, "-c", BUILDER, "build", ".", *options, *STRICT]
    status = call(*make, errors_only=True)
    if status:
        say("the book has errors: the lines above name page and line")
    return status


def run_book(options: argparse.Namespace) -> int:
    setup()
    build = ROOT / "_build"
    if options.links:
        say("visiting every external link of the book (a few minutes)")
        make = [PYTHON, "-c", BUILDER, "build", "."]
        return call(*make, "--builder", "linkcheck")
    if options.quick:
        say("building the changed pages (a few seconds)")
        status = build_book()
    else:
        say("building the book (about 15 seconds)")
        shutil.rmtree(build, ignore_errors=True)
        status = build_book("--all")
    if status == 0:
        page = build / "html" / "index.html"
        say(f"the book is built: open {page.as_uri()}")
    return status


def run_pdf(options: argparse.Namespace) -> int:
    browser = find_browser()
    if browser is None:
        raise Stop(
            "the PDF is printed by Chromium, Chrome or Edge, and none of "
            "them is installed here: install one, then run this again."
        )
    setup()
    say("building the book on one page and printing it (a minute or two)")
    build = ROOT / "_build"
    status = build_book("--all", "--builder", "singlehtml")
    if status:
        return status
    # Sphinx files the page under the name of the first one, but writes its
    # links as seen from the root.
    page = build / "singlehtml" / "print.html"
    shutil.copy(build / "singlehtml" / "book" / "intro.html", page)
    target = build / "minigpt.pdf"
    print_pdf(browser, page, target)
    say(f"the book is printed: open {target.as_uri()}")
    return 0


def run_test(options: argparse.Namespace) -> int:
    setup()
    say("running every notebook and every test (15 to 20 minutes on 2 cores)")
    workers = max(2, min(4, os.cpu_count() or 2))
    spread = ["--nbval", "-n", workers, "--dist", "loadfile"]
    return call(PYTHON, "-m", "pytest", *spread, *options.rest)


def new_run(preset: str) -> str:
    """A run folder that does not exist yet: runs/pocket, runs/pocket-2, …"""
    names = [f"runs/{preset}"]
    while (ROOT / names[-1]).exists():
        names.append(f"runs/{preset}-{len(names) + 1}")
    return names[-1]


def run_train(options: argparse.Namespace) -> int:
    setup()
    advice = cuda_advice()
    if advice:
        say(advice)
    preset = options.preset
    if preset is None:
        code = "import torch; print(torch.cuda.is_available())"
        preset = "mini" if answer(code) == "True" else "pocket"
    out = options.out or new_run(preset)
    say(f"training {preset} (pocket takes about a minute on a 2-core CPU)")
    named = ["--preset", preset, "--data", options.data, "--out", out]
    status = call(PYTHON, "-m", "minigpt", "train", *named, *options.rest)
    if status:
        return status
    say("a sample of what it writes now")
    status = call(PYTHON, "-m", "minigpt", "sample", "--run", out)
    say(f"the command minigpt is {BIN / 'minigpt'}")
    return status


def run_lab(options: argparse.Namespace) -> int:
    setup("dev,lab")
    say("opening the chapters in JupyterLab (Ctrl-C twice ends it)")
    return call(PYTHON, "-m", "jupyterlab", "nbs", *options.rest)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command and its options; what is unknown goes to `rest`."""
    parser = argparse.ArgumentParser(
        prog="course.py",
        description="The course in one command. Each one makes .venv first "
        "when it is missing, and reinstalls nothing when nothing changed.",
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True
    )

    def command(name, run, text, passes=None):
        more = f" Further options go to {passes}." if passes else ""
        sub = commands.add_parser(
            name, help=text, description=text.capitalize() + "." + more
        )
        sub.set_defaults(run=run, passes=passes)
        return sub

    made = command("setup", run_setup, "make .venv and install the course")
    made.add_argument(
        "--torch",
        metavar="VERSION",
        help="another torch than the tested one: 2.9.*, 2.12.0, newest",
    )
    book = command("book", run_book, "build the book and say where it is")
    book.add_argument(
        "--quick", action="store_true", help="only the pages that changed"
    )
    book.add_argument(
        "--links", action="store_true", help="check the external links instead"
    )
    command("pdf", run_pdf, "print the whole book to one PDF file")
    command("test", run_test, "run every notebook and test", "pytest")
    train = command(
        "train",
        run_train,
        "train on tiny Shakespeare and write verse",
        "`minigpt train`",
    )
    train.add_argument(
        "--preset", help="model size (pocket on a CPU, mini on a GPU)"
    )
    train.add_argument(
        "--data", default="shakespeare", help="a source or a text file"
    )
    train.add_argument("--out", help="run folder (a new one under runs/)")
    command("lab", run_lab, "open the chapters in JupyterLab", "JupyterLab")
    options, options.rest = parser.parse_known_args(arguments)
    if options.rest and not options.passes:
        parser.error(f"unknown option: {' '.join(options.rest)}")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        return options.run(options)
    except Stop as stop:
        print(f"course.py: {stop}", file=sys.stderr)
    except OSError as error:
        print(f"course.py: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(
            "\ncourse.py: interrupted; the same command goes on from here.",
            file=sys.stderr,
        )
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
