"""What every check shares: a Hint is raised, the reader gets one line."""

from collections.abc import Callable
from functools import wraps


class Hint(Exception):
    """Raised by a check: what is wrong with an answer, and why."""


def exercise(check: Callable[[object], None]) -> Callable[[object], None]:
    """Turn a function that raises Hint into one that prints a verdict.

    The result prints one line, "✓ name: …" or "✗ name: …", so that an
    unsolved exercise never stops a notebook. The first line of the
    docstring is what a pass prints.
    """
    name = check.__name__
    praise = (check.__doc__ or "").strip().splitlines()[0]

    @wraps(check)
    def verdict(answer: object) -> None:
        try:
            check(answer)
        except Hint as hint:
            print(f"✗ {name}: {hint}")
        except Exception as error:  # the reader's code: anything can happen
            print(f"✗ {name}: your code raised {type(error).__name__}: {error}")
        else:
            print(f"✓ {name}: {praise}")

    return verdict


def expect(condition: object, hint: str) -> None:
    """Raise Hint(hint) unless the condition holds."""
    if not condition:
        raise Hint(hint)
