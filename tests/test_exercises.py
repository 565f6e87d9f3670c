"""Exercises: every solution passes its check, every known mistake is named.

Solutions are the Python fences in the chapters' <details>; known wrong
answers are in tests/wrong_answers/. Both run as a reader would run them.
"""

import re
import runpy

import pytest
import torch

from minigpt import check
from project import CHAPTERS, NOTEBOOKS, ROOT, cells

DETAILS = re.compile(r"<details>.*?</details>", re.S)
FENCE = re.compile(r"```python\n(.*?)```", re.S)
CHECKED = re.compile(r"\bcheck\.(\w+)\(")


def solutions():
    """(chapter, cell id, code) of every fence in a <details>."""
    for path in NOTEBOOKS:
        for cell in cells(path, "markdown"):
            for details in DETAILS.findall(cell["source"]):
                for code in FENCE.findall(details):
                    yield path.stem, cell["id"], code


def wrong_answers():
    """(check, code, what the hint must say) of every known mistake."""
    for path in sorted((ROOT / "tests/wrong_answers").glob("*.py")):
        yield from runpy.run_path(str(path))["WRONG"]


SOLUTIONS = list(solutions())
WRONG = list(wrong_answers())


@pytest.fixture
def output_of(tmp_path, monkeypatch, capsys):
    """Run code in an empty folder with a fixed seed: what it prints."""

    def output_of(code: str, **names) -> str:
        monkeypatch.chdir(tmp_path)
        torch.manual_seed(0)
        exec(compile(code, "answer", "exec"), {"__name__": "answer", **names})
        return capsys.readouterr().out

    return output_of


# Without data or a network the toy language does, as it does for a reader.
@pytest.mark.filterwarnings("ignore:cannot download:UserWarning")
@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, id=f"{chapter}-{cell}")
        for chapter, cell, code in SOLUTIONS
    ],
)
def test_solution_passes(code, output_of):
    printed = output_of(code)
    for name in CHECKED.findall(code):
        assert f"✓ {name}:" in printed
    assert "✗" not in printed


@pytest.mark.parametrize(
    "name, code, hint",
    [
        pytest.param(*answer, id=f"{answer[0]}-{number}")
        for number, answer in enumerate(WRONG)
    ],
)
def test_wrong_answer_gets_its_hint(name, code, hint, output_of):
    printed = output_of(code, check=check, torch=torch)
    assert f"✗ {name}:" in printed
    assert hint in printed


def test_every_check_is_used_solved_and_seen_to_fail():
    stubs = "\n".join(
        cell["source"] for path in NOTEBOOKS for cell in cells(path, "code")
    )
    solved = "\n".join(code for _, _, code in SOLUTIONS)
    mistakes = [name for name, _, _ in WRONG]
    checks = {  # what @exercise wraps
        name
        for name, value in vars(check).items()
        if hasattr(value, "__wrapped__")
    }
    assert set(CHECKED.findall(stubs)) == checks
    assert set(CHECKED.findall(solved)) == checks
    few = {name for name in checks if mistakes.count(name) < 2}
    assert not few, f"fewer than two known wrong answers: {sorted(few)}"
    assert set(mistakes) <= checks


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_exercise_has_a_solution(path):
    text = "\n".join(cell["source"] for cell in cells(path, "markdown"))
    _, _, section = text.partition("\n## Exercises")
    section, _, _ = section.partition("\n## ")
    exercises = re.split(r"^### (?=Exercise \d)", section, flags=re.M)[1:]
    assert 5 <= len(exercises) <= 8
    for exercise in exercises:
        assert DETAILS.search(exercise), exercise.splitlines()[0]
