"""What the tests read of the project: its settings and its chapters."""

import json
import re
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
# The notebooks that are chapters of the book, in its order.
CHAPTERS = [
    ROOT / "nbs" / f"{name}.ipynb"
    for name in re.findall(
        r"file: nbs/(\w+)", (ROOT / "_toc.yml").read_text(encoding="utf-8")
    )
]
_config = ConfigParser(delimiters=["="])
_config.read(ROOT / "settings.ini", encoding="utf-8")
SETTINGS = _config["DEFAULT"]


def cells(path: Path, kind: str) -> list[dict]:
    """A notebook's cells of one kind, code or markdown, source as text."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [
        {**cell, "source": "".join(cell["source"])}
        for cell in notebook["cells"]
        if cell["cell_type"] == kind
    ]
