"""A Space: a folder that Hugging Face Spaces runs as it is.

`minigpt export --to space` puts the model in `model/` and calls
`write_space` for the rest. The folder holds this package too, so that the
Space runs the very code that the model was exported with, and waits for no
other repository.
"""

import json
import platform
import shutil
from importlib import metadata
from pathlib import Path

MODEL = "model"  # the folder in the folder
# What minigpt.app imports; the rest comes with these.
NEEDS = (
    "torch",
    "numpy",
    "safetensors",
    "tiktoken",
    "regex",
    "matplotlib",
    "huggingface_hub",
    "gradio",
)
# A free Space has no GPU: PyTorch without CUDA is a tenth of the download.
INDEX = "https://download.pytorch.org/whl/cpu"
APP = f'''"""This Space: the model in `{MODEL}`, shown by minigpt's app."""

from pathlib import Path

from minigpt.app import serve

serve(Path(__file__).parent)
'''
LARGE = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
PACKAGE = Path(__file__).parent


def requirements() -> str:
    """requirements.txt: the versions that are installed here.

    ValueError if a package is missing.
    """
    lines = [f"--extra-index-url {INDEX}"]
    for name in NEEDS:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise ValueError(
                f"a Space needs {name}, whose version is noted from this "
                'machine: pip install "minigpt-course[app]"'
            ) from None
        lines.append(f"{name}=={version.partition('+')[0]}")
    return "\n".join(lines) + "\n"


def header(name: str) -> dict[str, str]:
    """What Spaces reads at the top of README.md, as YAML."""
    return {
        "title": json.dumps(name, ensure_ascii=False),
        "emoji": "🎭",
        "colorFrom": "blue",
        "colorTo": "green",
        "sdk": "gradio",
        "sdk_version": metadata.version("gradio"),
        "python_version": '"{}.{}"'.format(*platform.python_version_tuple()),
        "app_file": "app.py",
        "short_description": "A small GPT, trained from scratch",
    }


def write_space(folder: Path) -> None:
    """Everything but the model and README.md; ValueError as above."""
    pins = requirements()
    (folder / "requirements.txt").write_text(pins, encoding="utf-8")
    (folder / "app.py").write_text(APP, encoding="utf-8")
    (folder / ".gitattributes").write_text(LARGE, encoding="utf-8")
    for source in PACKAGE.rglob("*.py"):
        target = folder / PACKAGE.name / source.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    notice = folder / PACKAGE.name / "LICENSE"
    notice.write_text(_license(), encoding="utf-8")


def _license() -> str:
    """This package's, from its wheel, or from the clone that it runs in."""
    try:
        installed = metadata.distribution("minigpt-course")
    except metadata.PackageNotFoundError:
        text = None
    else:
        text = installed.read_text("licenses/LICENSE")
    return text or (PACKAGE.parent / "LICENSE").read_text(encoding="utf-8")
