"""What a stranger waits for: a fresh clone, the book, then every test.

    python benchmarks/fresh_clone.py            prints a table
    python benchmarks/fresh_clone.py book       only that command

Clones the last commit into a temporary folder and runs `course.py book`
(which sets up the environment first) and `course.py test` there, as
README.md tells a reader to. Targets on two cores: 5 and 12 minutes.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGETS = {"book": 5, "test": 12}  # minutes


def minutes(command: list[str], where: Path) -> float:
    """How long a command takes; its output is shown, its failure raised."""
    start = time.perf_counter()
    subprocess.run(command, cwd=where, check=True)
    return (time.perf_counter() - start) / 60


def main(commands: list[str]) -> None:
    rows = ["| command | minutes | target |", "| --- | ---: | ---: |"]
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
        local = ROOT.parent / "shared" / "data"  # the text, if it is at hand
        if local.is_dir():
            os.environ.setdefault("MINIGPT_DATA", str(local))
        for command in commands:
            took = minutes([sys.executable, "course.py", command], clone)
            rows.append(
                f"| `course.py {command}` | {took:.1f} | {TARGETS[command]} |"
            )
    print("\n" + "\n".join(rows))


if __name__ == "__main__":
    main(sys.argv[1:] or list(TARGETS))
