"""`minigpt record`: repeat the runs that the book shows, on this machine.

Each piece takes at most `minutes` at a time. A training that needs longer
stops with a checkpoint, and the same command goes on with it; the record
book/runs/NAME.jsonl is written when the run is complete.
"""

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from minigpt import ladder
from minigpt.callbacks import Callback, ProgressBar
from minigpt.memory import CONTEXT_GIB
from minigpt.pretraining import RUNS
from minigpt.runs import PACKAGE, load_record, write_record
from minigpt.text import best_device, is_shakespeare, load_text
from minigpt.training import RECIPES, Trainer

PIECES = {
    "ladder": "the loss ladder of chapters 1 to 6",
    "pocket": "the pocket model, trained by its recipe",
    "recipe": "what each part of the pocket recipe is worth",
    "mini": "the mini model, trained by its recipe",
    "speed": "tokens per second of training: gpt2 on a GPU, else pocket",
    "pretraining": "text to shards in MB/s, and what a batch costs",
    "memory": "peak memory against the plan: gpt2 on a GPU, else pocket",
    "gpt2-8gb": "GPT-2 124M trains within an 8 GB card (needs a GPU)",
    "memorize": "GPT-2 learns Shakespeare by heart on a GPU; else pocket, a page",
}

COMMANDS = {
    "memorize": RUNS["memorize"].command,
    "gpt2-8gb": "minigpt train --preset gpt2 --vram 8 --tokenizer gpt2 "
    "--out runs/gpt2-8gb --batch-size 32 --drop-rate 0.1 --max-steps 150 "
    "--warmup-steps 10 --eval-every 50",
}
LAPTOP_GIB = 7.2  # what an 8 GB card that draws a desktop can give


@dataclass(frozen=True)
class Record:
    """Repeat the recorded runs of the book and write them anew."""

    list: bool = False
    """Name the records and when each was made, and stop."""
    only: Literal[tuple(PIECES)] | None = None
    """The one record to make; all of them if left out."""
    minutes: float = 7.5
    """A training pauses after this time; the same command goes on."""
    work: Path = Path("runs/record")
    """Where unfinished runs wait."""

    def __post_init__(self):
        if not self.minutes > 0:
            raise ValueError(f"minutes is {self.minutes}: write more than 0")

    def __call__(self) -> int:
        if self.list:
            for name, what in PIECES.items():
                print(f"{name:<11} {what} ({_made(name)})")
            return 0
        for name in (self.only,) if self.only else PIECES:
            print(f"{name}: {PIECES[name]}")
            make = MAKE.get(name, _train)
            code = make(self, name)
            if code:
                return code
        return 0


def _made(name: str) -> str:
    try:
        header, _ = load_record(name)
    except FileNotFoundError:
        return "not recorded"
    return f"{header.get('date', 'no date')}, {header.get('device', '?')}"


class Pause(Callback):
    """Stops a run after some seconds, as Ctrl-C would."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds
        self.over = False

    def on_step(self, trainer: Trainer) -> None:
        if time.monotonic() >= self.end:
            self.over = trainer.interrupted = True


def _train(options: Record, name: str) -> int:
    """Start or go on with the training of a preset; 130 after Ctrl-C."""
    from minigpt.cli import _parse
    from minigpt.terminal import INTERRUPTED
    from minigpt.train_command import Train

    text = load_text("shakespeare")
    if not is_shakespeare(text):
        raise ValueError(
            "tiny Shakespeare is not at hand, and a record of another text "
            "would mislead: connect once, or set MINIGPT_DATA"
        )
    folder = options.work / name
    resume = (folder / "config.json").exists()
    if name in COMMANDS:
        command = _parse(shlex.split(COMMANDS[name])[1:])
        command = replace(command, out=folder, resume=resume)
    else:
        command = Train(folder, name, resume=resume, train=RECIPES[name])
    trainer = command.trainer(text, f"minigpt record --only {name}")
    pause = Pause(60 * options.minutes)
    trainer.callbacks += [ProgressBar(), pause]
    if resume:
        trainer.resume()
    trainer.fit()
    steps = trainer.config.max_steps
    if trainer.interrupted and trainer.step < steps:
        print(f"paused after step {trainer.step} of {steps}: run it again")
        return 0 if pause.over else INTERRUPTED
    _keep(trainer, name)
    shutil.rmtree(folder)
    return 0


def _keep(trainer: Trainer, name: str) -> None:
    """Write the record of a finished run and compare it with the last."""
    try:
        before = _best(load_record(name)[1])
    except FileNotFoundError:
        before = None
    header = trainer.header()
    path = write_record(name, header, trainer.rows)
    told = "" if before is None else f" (recorded before: {before:.3f})"
    print(f"validation loss {trainer.best_loss:.3f}{told}; wrote {path.name}")


def _best(rows: list[dict]) -> float:
    return min(row["loss"] for row in rows if row["kind"] == "val")


def _memorize(options: Record, name: str) -> int:
    """_train, where there is a GPU; else the pocket model on a page."""
    cuda = best_device() == "cuda"
    return _train(options, name) if cuda else _benchmark(options, name)


def _on_laptop(options: Record, name: str) -> int:
    """_train on a GPU, with a hard cap on the memory that may be taken."""
    if best_device() != "cuda":
        print("left out: 124M parameters need a CUDA GPU; the record 'memory' "
              "shows the same with a small model")
        return 0
    card = torch.cuda.get_device_properties(0).total_memory
    tensors = LAPTOP_GIB - CONTEXT_GIB  # the cap does not see CUDA's own
    share = min(1.0, tensors * 2**30 / card)
    torch.cuda.set_per_process_memory_fraction(share)
    return _train(options, name)


def _ladder(options: Record, name: str) -> int:
    ladder.main()
    return 0


def _benchmark(options: Record, name: str) -> int:
    script = PACKAGE.parent / "benchmarks" / f"{name}.py"
    if not script.is_file():
        raise ValueError(
            f"the record {name!r} is made by benchmarks/{name}.py, which "
            "is in the repository and not in the package: clone it"
        )
    return subprocess.run([sys.executable, script, "--record"]).returncode


MAKE: dict[str, Callable[[Record, str], int]] = {
    "ladder": _ladder,
    "memory": _benchmark,
    "gpt2-8gb": _on_laptop,
    "memorize": _memorize,
    "recipe": _benchmark,
    "speed": _benchmark,
    "pretraining": _benchmark,
}
