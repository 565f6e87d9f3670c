"""The command line: `minigpt train`, `sample`, `export` and the others.

One dataclass per command is the only source of its flags, their defaults,
their checks and their help. What a user gets wrong is answered in one line
with exit code 2; nothing is left half-written.
"""

import contextlib
import io
import os
import re
import sys
import warnings
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated

import tyro

from minigpt import __version__
from minigpt.app_command import App
from minigpt.data_command import Data
from minigpt.distributed import speaks
from minigpt.eval_command import Eval
from minigpt.export_command import Export
from minigpt.info import describe, read_config
from minigpt.model import GPTConfig
from minigpt.plan_command import Plan
from minigpt.record import Record
from minigpt.runfolder import TrainingError
from minigpt.sample_command import Sample
from minigpt.terminal import INTERRUPTED, speak_utf8, tidy
from minigpt.train_command import ARGV, Preset, Train, train_defaults


@dataclass(frozen=True)
class Info:
    """Show parameters, operations and bytes of a preset or a saved model."""

    preset: Preset = "gpt2"
    """The preset to describe."""
    run: Path | None = None
    """Describe the model of this folder instead: a run's, or one in
    Hugging Face's format."""

    def __call__(self) -> int:
        if self.run is None:
            name, config = self.preset, GPTConfig.preset(self.preset)
        else:
            name, config = str(self.run), read_config(self.run)
        print(describe(name, config))
        return 0


COMMANDS = {
    "train": Train,
    "sample": Sample,
    "data": Data,
    "eval": Eval,
    "export": Export,
    "app": App,
    "info": Info,
    "record": Record,
    "plan": Plan,
}
Command = reduce(
    or_,
    (
        Annotated[command, tyro.conf.subcommand(name)]
        for name, command in COMMANDS.items()
    ),
)


def _parse(argv: list[str]):
    """The command of an argument list; one line and exit code 2 if wrong."""
    name = argv[0] if argv else ""
    if name not in COMMANDS and not name.startswith("-"):
        raise UsageError(
            f"there is no command {name!r}: choose one of "
            f"{', '.join(COMMANDS)}"
        )
    default = {"train": train_defaults}.get(name)
    for command in COMMANDS.values():
        tidy(command)
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            if default:
                return tyro.cli(
                    Train,
                    prog="minigpt train",
                    args=argv[1:],
                    default=default(argv[1:]),
                )
            return tyro.cli(Command, prog="minigpt", args=argv)
    except SystemExit as stop:
        if stop.code:
            line = _one_line(box.getvalue())
            if line.startswith("Unrecognized"):
                known = f"{name} " if name in COMMANDS else ""
                line += f"; 'minigpt {known}--help' lists them all"
            raise UsageError(line) from None
        raise


class UsageError(ValueError):
    """The command line could not be understood."""


def _one_line(box: str) -> str:
    """The text of tyro's error box, its frame and footer taken away."""
    rows = [row.strip("│ ") for row in box.splitlines()[1:]]
    text = []
    for row in rows:
        if not re.fullmatch(r"[-─╰╯]+", row):  # "-" where only ASCII prints
            text.append(row)
        elif text:
            break
    line = " ".join(part for part in text if part)
    line = re.sub(
        r"^Error parsing (--\S+): (?:could not convert string to float"
        r"|invalid literal for int\(\) with base 10): (.+)$",
        r"\1 takes a number, not \2",
        line,
    )
    # a check of the dataclass itself already names the field
    return re.sub(r"^Error parsing (?!-)[\w. -]+: ", "", line)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    ARGV.set(argv)
    warnings.showwarning = _plain_warning
    speak_utf8()
    if argv == ["--version"]:
        print(f"minigpt {__version__}")
        return 0
    try:
        return _parse(argv or ["--help"])()
    except BrokenPipeError:  # the reader of our output (head, less) has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        return _complain(error, 2)
    except TrainingError as error:
        return _complain(error, 1)
    except KeyboardInterrupt as stop:
        return _complain(str(stop) or "stopped by Ctrl-C", INTERRUPTED)


def _complain(error: Exception | str, code: int) -> int:
    """Say what went wrong, once, however many processes there are."""
    if speaks():
        print(f"minigpt: {error}", file=sys.stderr)
    return code


def _plain_warning(message, category, filename, lineno, file=None, line=None):
    print(f"minigpt: {message}", file=sys.stderr)
