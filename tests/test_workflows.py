"""The GitHub workflows: they call course.py, with the settings' versions."""

import re
import shlex

import pytest
import yaml

import course
from project import ROOT, SETTINGS

WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text("utf-8"))
    for path in sorted((ROOT / ".github/workflows").glob("*.yml"))
}


def steps(name: str, key: str) -> list:
    """The values of a key in every step of a workflow."""
    return [
        step[key]
        for job in WORKFLOWS[name]["jobs"].values()
        for step in job["steps"]
        if key in step
    ]


def triggers(name: str) -> dict:
    """What starts a workflow; YAML reads the word `on` as True."""
    return WORKFLOWS[name][True]


def test_the_three_workflows():
    assert set(WORKFLOWS) == {"test", "book", "weekly"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_command_is_one_that_course_py_knows(name):
    commands = steps(name, "run")
    assert commands
    for command in commands:
        program, script, *arguments = shlex.split(command)
        assert (program, script) == ("python", "course.py")
        course.parse(arguments)


def test_the_matrix_is_the_supported_range():
    matrix = WORKFLOWS["test"]["jobs"]["range"]["strategy"]["matrix"]
    systems = {name.partition("-")[0] for name in matrix["os"]}
    assert systems == {"ubuntu", "macos", "windows"}
    oldest, newest = matrix["python"]
    assert oldest == SETTINGS["min_python"]
    assert course.numbers(newest) > course.numbers(oldest)
    lowest = re.search(r"\btorch>=(\S+)", SETTINGS["requirements"])[1]
    assert matrix["torch"] == [f"{lowest}.*", "newest"]
    assert matrix["exclude"] == [
        {"python": oldest, "torch": "newest"},
        {"python": newest, "torch": f"{lowest}.*"},
    ]


def test_outputs_are_compared_once():
    jobs = WORKFLOWS["test"]["jobs"]
    assert jobs["range"]["env"] == {"MINIGPT_NOTEBOOKS": "lax"}
    assert "env" not in jobs["tested"]
    assert jobs["tested"]["steps"][-1] == {"run": "python course.py test"}


def test_the_book_is_published_from_the_settings_branch():
    branch = SETTINGS["branch"]
    assert triggers("book")["push"]["branches"] == [branch]
    assert triggers("test")["push"]["branches"] == [branch]
    condition = WORKFLOWS["book"]["jobs"]["publish"]["if"]
    assert f"'refs/heads/{branch}'" in condition
    assert {"path": "_build/html"} in steps("book", "with")


def test_links_and_notebooks_are_checked_weekly():
    assert triggers("weekly")["schedule"]
    commands = steps("weekly", "run")
    assert "python course.py book --links" in commands
    assert any("tests/test_colab.py" in command for command in commands)
