"""How long each chapter takes from top to bottom, on this machine.

    python benchmarks/chapters.py                          prints a table
    python benchmarks/chapters.py --record "CPU, 2 cores"  and keeps it

Each chapter is executed once in a kernel of its own, in an empty folder, as
a reader does who presses "Run all"; the time includes the kernel's start.
--record writes the column of that name into book/runs/runtimes.jsonl, from
which the book's page "How to use this course" makes its table.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from minigpt.runs import describe_machine, load_record, write_record
from minigpt.text import best_device

ROOT = Path(__file__).resolve().parent.parent


def title(notebook) -> str:
    """The chapter's title, from its first cell."""
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def seconds(notebook) -> float:
    """The time that a fresh kernel takes for all cells."""
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=1200, resources={"metadata": {"path": folder}}
        )
        start = time.perf_counter()
        client.execute()
        return time.perf_counter() - start


def keep(column: str, rows: list[dict]) -> None:
    """Put the rows into the record, in place of these chapters' older ones."""
    try:
        old = load_record("runtimes")[1]
    except FileNotFoundError:
        old = []
    new = {row["chapter"] for row in rows}
    old = [
        row
        for row in old
        if row["device"] != column or row["chapter"] not in new
    ]
    command = f'python benchmarks/chapters.py --record "{column}"'
    header = {"command": command, **describe_machine(best_device())}
    order = sorted(old + rows, key=lambda row: int(row["chapter"].split()[0]))
    write_record("runtimes", header, order)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the chapters.")
    parser.add_argument("--record", metavar="COLUMN")
    parser.add_argument("chapters", nargs="*", help="such as 03_attention")
    options = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    machine = describe_machine(best_device())
    print(f"| chapter | {machine['device']} |\n| --- | ---: |")
    rows = []
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        if options.chapters and path.stem not in options.chapters:
            continue
        notebook = nbformat.read(path, as_version=4)
        name = f"{int(path.stem[:2])} {title(notebook)}"
        took = seconds(notebook)
        print(f"| {name} | {took:.0f} s |", flush=True)
        rows.append(
            {
                "kind": "runtime",
                "chapter": name,
                "device": options.record,
                "seconds": round(took, 1),
                "machine": machine["device"],
                "date": machine["date"],
                "commit": machine["commit"],
            }
        )
    if options.record:
        keep(options.record, rows)


if __name__ == "__main__":
    main()
