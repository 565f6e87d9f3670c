"""What a run leaves on disk, and how it is read back without surprises.

A run folder holds config.json, tokenizer.json, model.safetensors (the best
weights), checkpoint/ (what resume needs), log.jsonl, samples.txt and
loss.png. Every file is written whole or not at all, and what is damaged is
refused with a RunError that names it.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minigpt.callbacks import Callback
from minigpt.hardware import check_device
from minigpt.model import GPT, GPTConfig

if TYPE_CHECKING:  # chapter 9 comes later, and imports this module
    from minigpt.tokenizer import Tokenizer


# What a run writes beside config.json and checkpoint/
RUN_FILES = (
    "model.safetensors",
    "log.jsonl",
    "tokenizer.json",
    "samples.txt",
    "loss.png",
)


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to try."""


class RunError(ValueError):
    """A folder is not a usable run; the message names what is wrong."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError while writing `path` into one clear sentence."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"cannot write {path} ({error.strerror or error}): free some "
            "space or choose a folder that can be written"
        ) from error


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make a folder and keep other trainings out of it meanwhile.

    RunError if one is at work there. The lock ends with the process,
    however that ends. Windows has none: there nobody is kept out.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(fcntl, handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(fcntl, handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunError(
            f"another minigpt is at work in {folder}: wait for it, or "
            "choose another folder"
        ) from None
    except OSError:  # some network drives have no locks
        return


@contextlib.contextmanager
def starting(folder: Path) -> Iterator[None]:
    """Claim a folder for a new run; RunError if it holds other files.

    The mark stays if the start is cut short: then the next start may
    overwrite what this one wrote.
    """
    mark = folder / ".starting"
    there = [name for name in RUN_FILES if (folder / name).exists()]
    if there and not mark.exists():
        raise RunError(
            f"{folder} holds {there[0]}, which a new run would overwrite: "
            "choose another folder, or move that file away"
        )
    with writing(mark):
        mark.touch()
    yield
    mark.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file completely or not at all: temporary name, sync, rename."""
    part = path.parent / f"{path.name}.part"  # also of "." and "/"
    try:
        with writing(path):
            with open(part, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # on the disk, not in its cache
            os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over the names, types, shapes and bytes of CPU tensors."""
    digest = hashlib.sha256()
    for name, t in sorted(tensors.items()):
        digest.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        digest.update(t.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def weights_to_bytes(model: GPT) -> bytes:
    """The state dict as safetensors with a sha256, tied tensors once."""
    import safetensors.torch

    state = model.state_dict()
    if model.config.tie_weights:
        state.pop("lm_head.weight")
    state = {name: t.cpu().contiguous() for name, t in state.items()}
    return safetensors.torch.save(state, {"sha256": _digest(state)})


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; RunError if it is damaged."""
    import safetensors

    try:
        with safetensors.safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}
            expected = (file.metadata() or {}).get("sha256")
    except (safetensors.SafetensorError, OSError) as error:
        if not path.exists():
            raise RunError(
                f"{path} is missing: train this run first, or name another one"
            ) from None
        problem = str(error)
    else:
        # files made elsewhere have no sha256 and cannot be checked
        if expected is None or _digest(state) == expected:
            return state
        problem = "its bytes were changed"
    raise RunError(
        f"{path} is damaged ({problem}): train again or restore the file"
    )


def load_weights(
    model: GPT,
    path: Path,
    fill: Callable[[GPT, dict], object] = GPT.load_state_dict,
) -> None:
    """Fill a model from a safetensors file; RunError says what is wrong."""
    state = _read_weights(path)
    if model.config.tie_weights and "wte.weight" in state:
        state["lm_head.weight"] = state["wte.weight"]
    shapes = {name: t.shape for name, t in model.state_dict().items()}
    found = {name: t.shape for name, t in state.items()}
    wrong = sorted(name for name, _ in shapes.items() ^ found.items())
    if wrong:
        raise RunError(
            f"{path} does not fit the model of config.json: {wrong[0]} "
            "is missing, extra or of another shape"
        )
    fill(model, state)


def _adopt(model: GPT, state: dict[str, Tensor]) -> None:
    """Make the tensors of a file the parameters of an empty model."""
    dtype = torch.get_default_dtype()
    state = {name: t.to(dtype) for name, t in state.items()}
    model.load_state_dict(state, assign=True)
    if model.config.tie_weights:
        model.lm_head.weight = model.wte.weight


class Checkpoints:
    """Numbered checkpoint folders, each written whole, the newest kept.

    A folder holds model.safetensors, state.pt (loadable with
    weights_only=True) and SHA256SUMS over both.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder, self.keep = Path(folder), keep

    def paths(self) -> list[Path]:
        """The checkpoints on disk, oldest first."""
        return sorted(self.folder.glob("step-*"))

    def save(self, step: int, model: GPT, state: dict) -> Path:
        """Write a checkpoint under a temporary name, then rename it."""
        part = self.folder / f".part-{step:08d}"
        final = self.folder / f"step-{step:08d}"
        try:
            with writing(final):
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
                for name, data in _checkpoint_files(model, state).items():
                    write_atomic(part / name, data)
                shutil.rmtree(final, ignore_errors=True)
                os.replace(part, final)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        for old in self.paths()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def load_newest(self) -> tuple[Path, dict, list[str]]:
        """The newest sound one, its state, a note on each passed over."""
        notes = []
        for path in reversed(self.paths()):
            try:
                return path, read_checkpoint(path), notes
            except RunError as error:
                notes.append(str(error))
        problem = "; ".join(notes) or f"no checkpoint in {self.folder}"
        raise RunError(f"{problem}: restore one, or train into another folder")


def _checkpoint_files(model: GPT, state: dict) -> dict[str, bytes]:
    """The files of a checkpoint by name; the last has the others' sums."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    files = {
        "model.safetensors": weights_to_bytes(model),
        "state.pt": buffer.getvalue(),
    }
    sums = "".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}\n"
        for name, data in files.items()
    )
    return files | {"SHA256SUMS": sums.encode()}


def read_checkpoint(path: Path) -> dict:
    """The state of a checkpoint whose files are sound, else RunError."""
    try:
        lines = (path / "SHA256SUMS").read_bytes().split(b"\n")
        sums = {line[66:].decode(): line[:64].decode() for line in lines}
        files = {
            name: (path / name).read_bytes()
            for name in ("model.safetensors", "state.pt")
        }
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "SHA256SUMS is no text"
        raise RunError(f"{path} is damaged ({reason})") from None
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != sums.get(name):
            raise RunError(f"{path} is damaged ({name} was changed)")
    state = io.BytesIO(files["state.pt"])
    return torch.load(state, weights_only=True, map_location="cpu")


def read_log(path: Path) -> tuple[dict, list[dict]]:
    """Header and rows of a log.jsonl; a torn last line is left out."""
    try:
        *lines, torn = Path(path).read_text(encoding="utf-8").split("\n")
        header, *rows = [json.loads(line) for line in lines]
        if header["kind"] == "header" and all(row["step"] for row in rows):
            return header, rows
        problem = "its first line is no header"
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"it cannot be read: {error}"
    raise RunError(
        f"{path} is not the log of a run: {problem}; restore the file or "
        "start another run"
    )


def refuse_lost(folder: Path, train: dict) -> None:
    """RunError if a run without checkpoints must have had one.

    To start it again would overwrite its log and its best weights. train:
    the fields of its TrainConfig.
    """
    _, rows = read_log(folder / "log.jsonl")
    step = max((row["step"] for row in rows), default=0)
    first = train.get("checkpoint_every") or math.inf
    if step > first or step >= train.get("max_steps", math.inf):
        raise RunError(
            f"{folder} has no checkpoint, though its log comes to step {step}:"
            " copy its folder 'checkpoint' there as well, or train into "
            "another folder"
        )


class RunLog(Callback):
    """config.json, log.jsonl and samples.txt of a run folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def begin(self, header: dict, rows: Sequence[dict] = ()) -> None:
        """Start the files anew: the header and the rows kept so far."""
        lines = [json.dumps(row) + "\n" for row in (header, *rows)]
        samples = [as_sample(row) for row in rows if row["kind"] == "sample"]
        texts = {
            "log.jsonl": "".join(lines),
            "samples.txt": "".join(samples),
            "config.json": json.dumps(header, indent=2) + "\n",
        }
        for name, text in texts.items():
            write_atomic(self.folder / name, text.encode())

    def rewind(self, header: dict, step: int) -> list[dict]:
        """Drop the rows after `step`: they will be made again."""
        first, rows = read_log(self.folder / "log.jsonl")
        rows = [row for row in rows if row["step"] <= step]
        began = {k: first[k] for k in ("command", "date") if k in first}
        self.begin(header | began, rows)
        return rows

    def on_row(self, trainer, row: dict) -> None:
        self._append("log.jsonl", json.dumps(row) + "\n")
        if row["kind"] == "sample":
            self._append("samples.txt", as_sample(row))

    def sync(self) -> None:
        """Wait until all rows are on the disk, not only in its cache."""
        for name in ("log.jsonl", "samples.txt"):
            path = self.folder / name
            with writing(path), open(path, "rb+") as file:
                os.fsync(file.fileno())

    def _append(self, name: str, text: str) -> None:
        path = self.folder / name
        with writing(path), open(path, "a", encoding="utf-8") as file:
            file.write(text)


def as_sample(row: dict) -> str:
    """A sample row of the log as samples.txt shows it."""
    return f"--- step {row['step']}\n{row['text']}\n\n"


def load_run(
    folder: str | Path, device: str = "cpu"
) -> tuple[GPT, "Tokenizer"]:
    """The best model of a run folder, in eval mode, and its tokenizer."""
    folder, device = Path(folder), check_device(device)
    config = read_run_config(folder)
    with torch.device("meta"):  # the numbers come from the file
        model = GPT(GPTConfig.from_dict(config["model"]))
    load_weights(model, folder / "model.safetensors", _adopt)
    tokenizer = load_tokenizer(folder, config)
    return model.to(device).eval(), tokenizer


def load_tokenizer(folder: str | Path, config: dict) -> "Tokenizer":
    """The tokenizer of a run folder; RunError unless config.json's fits."""
    from minigpt import tokenizer as kinds

    path = Path(folder) / "tokenizer.json"
    size = GPTConfig.from_dict(config["model"]).vocab_size
    tokenizer = kinds.load_tokenizer(path)
    if tokenizer.vocab_size != size:
        raise RunError(
            f"{path} is damaged: it has {tokenizer.vocab_size} tokens, the "
            f"model {size}; restore the file or train again"
        )
    return tokenizer


def read_run_config(folder: str | Path) -> dict:
    """config.json of a run folder; RunError if the folder is none."""
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if {"model", "train", "precision"} <= config.keys():
            GPTConfig.from_dict(config["model"])  # refuses what is no model
            if config["precision"] not in ("fp32", "bf16", "fp16"):
                raise ValueError(f"precision {config['precision']!r}")
            return config
        problem = "config.json lacks the model or how it is trained"
    except FileNotFoundError:
        problem = "it has no config.json"
    except (
        *(OSError, ValueError, AttributeError, TypeError),
        RecursionError,
    ) as error:
        problem = f"config.json cannot be read ({error})"
    raise RunError(
        f"{folder} is not a run folder: {problem}; name a folder that "
        "'minigpt train' wrote"
    )
