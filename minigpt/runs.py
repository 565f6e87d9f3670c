"""Recorded runs: JSON lines that the project's own code has written.

The first line of a record is its header (command, device, versions, date,
commit); each later line is one row with a "kind". The records are kept in
book/runs and travel in the installed package as minigpt/runs.
"""

import json
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import torch

PACKAGE = Path(__file__).resolve().parent


def runs_dir() -> Path:
    """Where the records are: in the installed package, else in book/runs."""
    installed = PACKAGE / "runs"
    return installed if installed.is_dir() else PACKAGE.parent / "book/runs"


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


def write_record(name: str, header: dict, rows: list[dict]) -> Path:
    """Write a record of the repository, replacing an older one.

    FileNotFoundError for an installed package: records belong to a
    checkout, where they are committed.
    """
    folder = runs_dir()
    if folder == PACKAGE / "runs" or not folder.is_dir():
        raise FileNotFoundError(
            "records are written in a checkout of the repository, and this "
            "minigpt is an installed package: clone it and run there"
        )
    path = folder / f"{name}.jsonl"
    lines = [{"kind": "header", **header}, *rows]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return path


def describe_machine(device: str) -> dict:
    """Device, versions, date and commit: what makes a number repeatable."""
    from minigpt import __version__

    return {
        "device": _device_name(device),
        "minigpt": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": _commit(),
    }


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    count = torch.get_num_threads()
    return f"{_processor()}, {count} thread{'s' if count > 1 else ''}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # platform.processor() is empty on Linux
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The checkout's commit; None for an installed package."""
    try:
        return subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=PACKAGE,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
