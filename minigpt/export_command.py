"""`minigpt export`: a saved model for other programs, and for the hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from minigpt.sharing import FORMATS, export, push_to_hub, upload_token

Format = Literal[tuple(FORMATS)]


@dataclass(frozen=True)
class Export:
    """Write a saved model for other programs: transformers, ONNX, GGUF."""

    run: str
    """A run folder, an earlier export, a folder in Hugging Face's format,
    or the name of an official model: gpt2, gpt2-medium ..."""
    to: Format
    """safetensors: for minigpt; huggingface: for transformers; onnx: for
    onnxruntime, and transformers; gguf: for llama.cpp; space: the app and
    the model, a folder for Hugging Face Spaces (minigpt app --run OUT
    shows it here)."""
    out: Path
    """The folder to write."""
    int8: bool = False
    """For onnx, a second file with 8-bit integers; for gguf, Q8_0."""
    license: str | None = None
    """The license for the model card, as apache-2.0; left out, unknown."""
    force: bool = False
    """Replace --out if it is an earlier export."""
    push: str | None = None
    """Then upload to this repository of the Hugging Face hub: user/name.
    The token is HF_TOKEN's, or that of 'hf auth login'."""
    private: bool = False
    """Make the repository a private one, if it is new."""

    def __call__(self) -> int:
        if self.push is not None:
            upload_token(self.push)  # asked for before the work is done
        folder = export(
            self.run,
            self.to,
            self.out,
            int8=self.int8,
            license=self.license,
            force=self.force,
        )
        for path in sorted(x for x in folder.iterdir() if x.is_file()):
            print(f"{path.stat().st_size:>13,}  {path}")
        if self.push is not None:
            address = push_to_hub(folder, self.push, private=self.private)
            print(f"uploaded to {address}")
        return 0
