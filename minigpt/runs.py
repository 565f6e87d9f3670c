"""Recorded runs: JSON lines that the project's own code has written.

The first line of a record is its header (command, device, versions, date,
commit, config); each later line is one row with a "kind".
"""

import json
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def runs_dir() -> Path:
    """Where the records are: in the installed package, else in book/runs."""
    installed = PACKAGE / "runs"
    return installed if installed.is_dir() else PACKAGE.parent / "book" / "runs"


def load_record(name: str) -> tuple[dict, list[dict]]:
    """The header and the rows of a recorded run, such as "mini"."""
    path = runs_dir() / f"{name}.jsonl"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in runs_dir().glob("*.jsonl")))
        raise FileNotFoundError(
            f"no recorded run {name!r}: choose one of {known or '(none)'}"
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    header, *rows = [json.loads(line) for line in lines if line.strip()]
    return header, rows
