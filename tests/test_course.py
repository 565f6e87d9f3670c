"""course.py: what it decides, with fakes for everything outside it."""

import ast
import subprocess
import sys
from collections import namedtuple

import pytest

import course
from project import ROOT, SETTINGS

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The project in an empty folder; a venv that is there; no subprocess."""
    for name in ("settings.ini", "constraints.txt", "setup.py"):
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"))
    folder = tmp_path / ".venv"
    monkeypatch.setattr(course, "ROOT", tmp_path)
    monkeypatch.setattr(course, "VENV", folder)
    monkeypatch.setattr(course, "STAMP", folder / "course-stamp.txt")
    monkeypatch.setattr(course, "BIN", folder / "bin")
    monkeypatch.setattr(course, "PYTHON", folder / "bin/python")
    monkeypatch.setattr(course, "WINDOWS", False)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").touch()
    (folder / "bin/pip").touch()
    (folder / "pyvenv.cfg").write_text("home = somewhere\nversion = 3.12.1\n")
    monkeypatch.setattr(
        course.shutil, "disk_usage", lambda path: Usage(0, 0, 100 * course.GB)
    )
    monkeypatch.setattr(course.shutil, "which", lambda name: None)

    def never(*arguments, **options):
        pytest.fail(f"started {arguments}")

    monkeypatch.setattr(course.subprocess, "Popen", never)
    monkeypatch.setattr(course.subprocess, "run", never)
    return tmp_path


@pytest.fixture
def calls(fake, monkeypatch):
    """What course.py asks of pip and of the venv, recorded."""
    made = []
    monkeypatch.setattr(course, "pip", lambda *a: made.append(("pip", *a)))
    monkeypatch.setattr(course, "call", lambda *a, **o: made.append(a) or 0)
    return made


@pytest.fixture
def ready(calls):
    """A venv in which everything is installed."""
    course.setup()
    calls.clear()
    return calls


def sentence(capsys) -> str:
    """The one line on stderr."""
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


# Python --------------------------------------------------------------------


def test_old_python_gets_a_sentence():
    with pytest.raises(SystemExit) as stop:
        course.check_python((3, 8, 10))
    assert "this is Python 3.8" in stop.value.code
    assert f"needs {SETTINGS['min_python']} or newer" in stop.value.code


def test_old_python_can_read_the_file():
    source = (ROOT / "course.py").read_text("utf-8")
    tree = ast.parse(source, feature_version=(3, 6))
    at = [ast.unparse(node) for node in tree.body].index("check_python()")
    early = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in tree.body[:at]
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert early == ["sys", "configparser", "pathlib"]


def test_only_the_standard_library():
    tree = ast.parse((ROOT / "course.py").read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                assert name.name.split(".")[0] in sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            assert node.module in sys.stdlib_module_names


def test_help_names_every_command():
    done = subprocess.run(
        [sys.executable, ROOT / "course.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for command in ("setup", "book", "pdf", "test", "train", "lab"):
        assert f"\n    {command} " in done.stdout


# Setup ---------------------------------------------------------------------


def test_setup_installs_once(calls, fake):
    course.setup()
    (made,) = calls
    assert made[0] == "pip" and made[-1] == ".[dev]"
    course.setup()
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["settings.ini", "constraints.txt"])
def test_a_changed_file_installs_again(ready, fake, name):
    with (fake / name).open("a") as file:
        file.write("# changed\n")
    course.setup()
    assert len(ready) == 1


def test_lab_adds_and_stays(ready):
    assert course.main(["lab"]) == 0
    installed, opened = ready
    assert installed[-1] == ".[dev,lab]"
    assert opened[1:] == ("-m", "jupyterlab", "nbs")
    course.setup()
    assert len(ready) == 2


def test_a_failed_install_is_tried_again(fake, monkeypatch):
    def fails(*arguments):
        raise course.Stop("no")

    monkeypatch.setattr(course, "pip", fails)
    with pytest.raises(course.Stop):
        course.setup()
    assert not course.STAMP.exists()


def test_a_broken_venv_is_made_again(calls, fake, monkeypatch):
    made = []
    monkeypatch.setattr(
        course.venv.EnvBuilder, "create", lambda self, path: made.append(path)
    )
    course.setup()
    assert made == []
    (fake / ".venv/bin/pip").unlink()  # interrupted before pip was there
    assert course.venv_version() is None
    course.make_venv()
    assert made == [course.VENV]


def test_no_venv_module(fake, monkeypatch, capsys):
    (fake / ".venv/bin/python").unlink()
    monkeypatch.setattr(course.importlib.util, "find_spec", lambda name: None)
    assert course.main(["setup"]) == 1
    assert "apt install python3-venv" in sentence(capsys)


def test_no_space(fake, monkeypatch, capsys):
    monkeypatch.setattr(
        course.shutil, "disk_usage", lambda path: Usage(0, 0, course.GB)
    )
    assert course.main(["setup"]) == 1
    assert "1.0 GB are free" in sentence(capsys)


@pytest.mark.parametrize(
    "printed, said",
    [
        ("ERROR: [Errno 28] No space left on device", "the disk is full"),
        (
            "WARNING: Retrying after NewConnectionError\n"
            "ERROR: No matching distribution found for torch",
            "no network and no local copy",
        ),
        ("ERROR: the cause\nERROR: more\n", "the cause (everything"),
        ("Segmentation fault", "pip failed (everything"),
    ],
)
def test_pip_failures_in_one_sentence(fake, printed, said):
    text = course.pip_failure(printed, fake / "log.txt")
    assert said in text
    assert "\n" not in text


def test_pip_that_fails_stops(monkeypatch, tmp_path):
    monkeypatch.setattr(course, "VENV", tmp_path)
    monkeypatch.setattr(course, "PYTHON", sys.executable)
    empty = ("--no-index", "--find-links", tmp_path)
    with pytest.raises(course.Stop, match="no network and no local copy"):
        course.pip(*empty, "a-package-that-is-nowhere")
    log = tmp_path / "course-install.log"
    assert "No matching distribution" in log.read_text("utf-8")


def test_interrupted(fake, monkeypatch, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(course, "pip", interrupt)
    assert course.main(["setup"]) == 130
    assert "interrupted" in sentence(capsys)
    assert not course.STAMP.exists()


# torch ---------------------------------------------------------------------


def torch_line(torch=None) -> list[str]:
    lines = course.constraints(torch).splitlines()
    return [line for line in lines if line.startswith("torch==")]


def test_the_tested_torch_unless_another_is_asked_for(fake):
    pinned = torch_line()
    assert len(pinned) == 1
    assert torch_line("2.9.*") == ["torch==2.9.*"]
    assert torch_line("newest") == []


@pytest.mark.parametrize(
    "have, kept",
    [("2.99.0+cu130", True), ("2.9.0", True), ("2.4.1+cu118", False)],
)
def test_an_installed_torch_is_kept_if_new_enough(fake, have, kept):
    packages = fake / ".venv/lib/python3.12/site-packages"
    (packages / f"torch-{have}.dist-info").mkdir(parents=True)
    assert (torch_line() == [f"torch=={have}"]) is kept


@pytest.mark.parametrize(
    "printed, advised",
    [("2.13.0+cpu False", True), ("2.13.0+cu130 True", False)],
)
def test_a_card_that_torch_cannot_use(fake, monkeypatch, printed, advised):
    assert course.cuda_advice() is None  # no card
    monkeypatch.setattr(course.shutil, "which", lambda name: "nvidia-smi")
    monkeypatch.setattr(course, "answer", lambda code: printed)
    advice = course.cuda_advice()
    assert (advice is not None) is advised
    if advised:
        assert "torch 2.13.0+cpu cannot use it" in advice
        assert course.TORCH_PAGE in advice


# The commands --------------------------------------------------------------


def test_local_data_is_used_unless_the_reader_chose(fake, monkeypatch):
    monkeypatch.delenv("MINIGPT_DATA", raising=False)
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    assert "MINIGPT_DATA" not in course.environment()
    (fake / "data/tiktoken").mkdir(parents=True)
    env = course.environment()
    assert env["MINIGPT_DATA"] == str(fake / "data")
    assert env["TIKTOKEN_CACHE_DIR"] == str(fake / "data/tiktoken")
    monkeypatch.setenv("MINIGPT_DATA", "elsewhere")
    assert course.environment()["MINIGPT_DATA"] == "elsewhere"


def test_book_builds_strictly_and_says_where(ready, fake, capsys):
    (fake / "_build").mkdir()
    assert course.main(["book"]) == 0
    (made,) = ready
    assert made[-6:] == (".", "--all", "-q", "-W", "--keep-going", "-n")
    assert not (fake / "_build").exists()
    page = fake / "_build/html/index.html"
    assert page.as_uri() in capsys.readouterr().out


def test_only_the_books_errors_are_shown(fake, monkeypatch, capsys):
    monkeypatch.setattr(course, "setup", lambda *a: None)
    outputs = []

    class Child:
        def __init__(self, command, stdout=None, **options):
            outputs.append(stdout)

        def wait(self):
            return 1

    monkeypatch.setattr(course.subprocess, "Popen", Child)
    assert course.main(["book"]) == 1
    assert outputs == [subprocess.DEVNULL]  # warnings go to stderr
    said = capsys.readouterr().out
    assert "errors" in said and "file:" not in said
    assert course.main(["test"]) == 1
    assert outputs[1] is None


def test_pdf_is_built_on_one_page_and_printed(
    ready, fake, monkeypatch, capsys
):
    monkeypatch.setattr(course, "find_browser", lambda: "/bin/chrome")
    printed = []
    monkeypatch.setattr(course, "print_pdf", lambda *a: printed.append(a))
    built = fake / "_build/singlehtml"
    (built / "book").mkdir(parents=True)
    (built / "book/intro.html").write_text("all of it")
    assert course.main(["pdf"]) == 0
    (made,) = ready
    assert made[-6:] == (
        *("--builder", "singlehtml", "-q", "-W", "--keep-going", "-n"),
    )
    target = fake / "_build/minigpt.pdf"
    assert printed == [("/bin/chrome", built / "print.html", target)]
    assert (built / "print.html").read_text() == "all of it"
    assert target.as_uri() in capsys.readouterr().out


def test_pdf_without_a_browser_is_one_sentence(ready, monkeypatch, capsys):
    monkeypatch.setattr(course, "find_browser", lambda: None)
    assert course.main(["pdf"]) == 1
    assert ready == []  # nothing is built for a page that cannot be printed
    assert "Chromium, Chrome or Edge, and none of them" in sentence(capsys)


def test_the_browser_is_found_by_name_or_in_its_usual_place(
    monkeypatch, tmp_path
):
    on_path = {"google-chrome": "/bin/google-chrome"}
    monkeypatch.setattr(course.shutil, "which", on_path.get)
    assert course.find_browser() == "/bin/google-chrome"
    on_path.clear()
    monkeypatch.setenv("PROGRAMFILES", str(tmp_path))
    edge = tmp_path / "Microsoft/Edge/Application/msedge.exe"
    edge.parent.mkdir(parents=True)
    edge.touch()
    monkeypatch.setattr(course.Path, "is_file", lambda path: path == edge)
    assert course.find_browser() == str(edge)
    edge = None  # what is_file compares with
    assert course.find_browser() is None


def test_a_page_is_printed(tmp_path):
    browser = course.find_browser()
    if browser is None:
        pytest.skip("no Chromium, Chrome or Edge is installed")
    page = tmp_path / "page.html"
    page.write_text(
        "<h1>A chapter</h1><script>setTimeout(() => document.body.append("
        "Object.assign(document.createElement('p'), "
        "{style: 'break-before: page', innerText: 'late'})), 2000)</script>"
    )
    target = tmp_path / "page.pdf"
    course.print_pdf(browser, page, target)
    made = target.read_bytes()
    assert made.startswith(b"%PDF")
    assert made.count(b"/Type /Page\n") == 2  # scripts came to their end
    assert b"/Outlines" in made
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "page.html",
        "page.pdf",
    ]


def test_a_browser_that_prints_nothing_is_one_sentence(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("words")
    with pytest.raises(course.Stop, match="printed no PDF: Try"):
        course.print_pdf(sys.executable, page, tmp_path / "page.pdf")


def test_test_is_one_pytest_and_passes_arguments_on(ready):
    assert course.main(["test", "tests/test_text.py", "-k", "split"]) == 0
    (made,) = ready
    assert made[1:4] == ("-m", "pytest", "--nbval")
    assert made[-3:] == ("tests/test_text.py", "-k", "split")


@pytest.mark.parametrize("cuda, preset", [("True", "mini"), ("", "pocket")])
def test_train_picks_preset_and_a_new_folder(
    ready, fake, monkeypatch, cuda, preset
):
    monkeypatch.setattr(course, "answer", lambda code: cuda)
    (fake / "runs" / preset).mkdir(parents=True)
    assert course.main(["train", "--max-steps", "5"]) == 0
    train, sample = ready
    out = f"runs/{preset}-2"
    assert train[3:] == (
        *("train", "--preset", preset, "--data", "shakespeare"),
        *("--out", out, "--max-steps", "5"),
    )
    assert sample[3:] == ("sample", "--run", out)


def test_a_failed_command_is_the_exit_status(ready, monkeypatch):
    monkeypatch.setattr(course, "call", lambda *arguments, **options: 3)
    monkeypatch.setattr(course, "answer", lambda code: "")
    monkeypatch.setattr(course, "find_browser", lambda: "/bin/chrome")
    for command in ("book", "pdf", "test", "train", "lab"):
        assert course.main([command]) == 3


def test_ctrl_c_waits_for_what_the_child_saves(fake, monkeypatch):
    class Child:
        waits = [KeyboardInterrupt, 130]

        def wait(self):
            result = self.waits.pop(0)
            if result is KeyboardInterrupt:
                raise result
            return result

    monkeypatch.setattr(course.subprocess, "Popen", lambda *a, **o: Child())
    assert course.call("train") == 130
    assert Child.waits == []


@pytest.mark.parametrize("wrong", [[], ["cook"], ["book", "--fast"]])
def test_wrong_arguments_exit_with_2(fake, wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        course.main(wrong)
    assert stop.value.code == 2
    assert "usage: course.py" in capsys.readouterr().err


def test_ci_runs_the_tests_and_nothing_else():
    lines = (ROOT / ".ci/run").read_text("utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[-1] == "python3 course.py test"
    assert len([line for line in lines if "python" in line]) == 1
