"""What `pip install minigpt-course` gives: the built wheel, on its own."""

import subprocess
import tarfile
import zipfile

import pytest

from project import ROOT, SETTINGS

REQUIREMENTS = SETTINGS["requirements"].split()
RUNS = sorted(path.name for path in ROOT.glob("book/runs/*.jsonl"))


@pytest.fixture
def run(wheel, alone):
    """Run a command in an empty folder, with the wheel installed."""
    folder, env = alone

    def run(*command):
        return subprocess.run(
            command,
            cwd=folder,
            env=env,
            capture_output=True,
            encoding="utf-8",
            check=True,
        ).stdout.strip()

    return run


def test_the_wheel_holds_modules_and_recorded_runs(wheel):
    assert RUNS, "book/runs is empty"
    names = set(zipfile.ZipFile(wheel.path).namelist())
    assert {f"minigpt/runs/{name}" for name in RUNS} <= names
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "minigpt").rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == modules
    with tarfile.open(wheel.sdist) as archive:
        stored = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"book/runs/{name}" for name in RUNS} <= stored
    assert {"settings.ini", "constraints.txt", "LICENSE"} <= stored


def test_the_installed_package_is_the_wheels(wheel, run):
    where, version, metadata = run(
        wheel.python,
        "-c",
        "import importlib.metadata as m, minigpt; print(minigpt.__file__); "
        f"print(minigpt.__version__, m.version({SETTINGS['dist_name']!r}), "
        "sep='\\n')",
    ).splitlines()
    assert where.startswith(str(wheel.home))
    assert version == metadata == SETTINGS["version"]


def test_metadata_comes_from_settings(wheel):
    archive = zipfile.ZipFile(wheel.path)
    (name,) = (n for n in archive.namelist() if n.endswith("METADATA"))
    lines = archive.read(name).decode().splitlines()
    assert f"Name: {SETTINGS['dist_name']}" in lines
    assert f"Requires-Python: >={SETTINGS['min_python']}" in lines
    needed = [line for line in lines if line.startswith("Requires-Dist")]
    plain = [line for line in needed if "extra ==" not in line]
    assert plain == [f"Requires-Dist: {name}" for name in REQUIREMENTS]
    above = [line for line in plain if "<" in line or "==" in line]
    assert not above, "runtime requirements stay open above"


def test_the_console_script_and_the_module_are_one_command(wheel, run):
    by_script = run(wheel.bin / "minigpt", "--help")
    by_module = run(wheel.python, "-m", "minigpt", "--help")
    assert "train" in by_script and "sample" in by_script
    assert by_script == by_module


def test_recorded_runs_are_found_in_the_wheel(wheel, run):
    where = run(
        wheel.python,
        "-c",
        "from minigpt.ladder import show_ladder; show_ladder(through=1); "
        "import minigpt; print(minigpt.__file__)",
    )
    assert where.splitlines()[-1].startswith(str(wheel.home))


def test_import_loads_nothing_heavy(wheel, run):
    """Plots, downloads and the command line load where they are used."""
    code = (
        "import sys, torch; had = set(sys.modules); import minigpt; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - had})"
    )
    added = set(run(wheel.python, "-c", code).split())
    assert "minigpt" in added
    wanted = {name.partition(">")[0] for name in REQUIREMENTS}
    assert not added & (wanted | {"IPython"})
