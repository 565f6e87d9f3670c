"""The command line: `minigpt train`, `sample`, `export` and the others.

One dataclass per command is the only source of its flags, their defaults,
their checks and their help. What a user gets wrong is answered in one line
with exit code 2; nothing is left half-written.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import shlex
import stat
import sys
import warnings
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from minigpt.app_command import App
from minigpt.callbacks import ProgressBar, TensorBoard
from minigpt.data_command import Data
from minigpt.distributed import World, joined, speaks
from minigpt.eval_command import Eval
from minigpt.export_command import Export
from minigpt.hardware import check_device
from minigpt.info import describe, read_config
from minigpt.model import GPT, PRESETS, GPTConfig, count_params
from minigpt.plan_command import Plan, fitted, in_words
from minigpt.pretraining import Shards, verify
from minigpt.record import Record
from minigpt.runfolder import (
    RunError,
    TrainingError,
    load_tokenizer,
    read_run_config,
)
from minigpt.sampling import (
    Sampler,
    complete,
    stream,
    to_int8,
)
from minigpt.sharing import load_any
from minigpt.studio import first_text
from minigpt.text import (
    CharTokenizer,
    best_device,
    is_shakespeare,
    load_text,
    train_val_split,
)
from minigpt.tokenizer import (
    END_OF_TEXT,
    BPETokenizer,
    Tokenizer,
    gpt2_tokenizer,
)
from minigpt.tokenizer import load_tokenizer as read_tokenizer
from minigpt.training import (
    RECIPES,
    TrainConfig,
    Trainer,
    choose_compile,
)

Preset = Literal[tuple(PRESETS)]
TOY = "the toy language, because Shakespeare could not be downloaded"
ARGV: ContextVar[list[str]] = ContextVar("argv")  # what main was given
# More at a time is a slip of the finger, and would fill the memory.
MOST = {"num_tokens": 1_000_000, "num_samples": 1_000}
INTERRUPTED = 130  # the shell's exit code of a program stopped by Ctrl-C


@dataclass(frozen=True)
class Shape:
    """Changes to the preset's shape; what is left out stays."""

    context_length: int | None = None
    """Tokens the model sees at most."""
    emb_dim: int | None = None
    """Width of the residual stream."""
    n_heads: int | None = None
    """Attention heads a block; must divide emb_dim."""
    n_layers: int | None = None
    """Blocks."""
    drop_rate: float | None = None
    """Probability of dropout."""

    def changes(self) -> dict:
        return {k: v for k, v in vars(self).items() if v is not None}


@dataclass(frozen=True)
class Train:
    """Train a model from scratch and leave a run folder."""

    out: Path
    """The run folder to write."""
    preset: Preset = "pocket"
    """Shape and training recipe to start from."""
    data: str = "shakespeare"
    """A registered text (shakespeare), a file, a URL, or a folder of
    shards that `minigpt data` wrote."""
    tokenizer: str = "char"
    """char: one token a character; bpe: byte-pair encoding, learned from
    the training text; gpt2: GPT-2's; or a file that save() wrote."""
    vocab_size: int | None = None
    """How many tokens --tokenizer bpe learns; left out, 1,024."""
    resume: bool = False
    """Go on with the run in --out, from its newest checkpoint."""
    tensorboard: bool = False
    """Also write the log for TensorBoard, into --out/tensorboard."""
    vram: float | None = None
    """Fit the training on a card of so many GiB: sets batch_size and
    grad_accum (their product stays), checkpointing, loss_chunk and
    optimizer_state as `minigpt plan` does."""
    shard: bool = False
    """Divide the model among the processes that torchrun starts (FSDP2),
    instead of a copy in each; needs --optimizer adamw."""
    shape: tyro.conf.OmitArgPrefixes[Shape] = field(default_factory=Shape)
    train: tyro.conf.OmitArgPrefixes[TrainConfig] = field(
        default_factory=TrainConfig
    )

    def __post_init__(self):
        self._shape()  # a bad shape is refused before anything is loaded
        if self.out == Path():
            raise ValueError("--out is empty: name a folder, as runs/mine")

    def _shape(self, **changes) -> GPTConfig:
        changes = self.shape.changes() | changes
        return GPTConfig.preset(self.preset, **changes)

    def __call__(self) -> int:
        if (self.out / "config.json").exists() and not self.resume:
            raise RunError(
                f"{self.out} already holds a run: add --resume to go on "
                "with it, or choose another --out"
            )
        with joined(self.train.device, self.shard) as world:
            with world.in_turn():
                corpus = self._corpus()
            return self._train(corpus, world)

    def _train(self, corpus: str | Shards, world: World) -> int:
        command = shlex.join(["minigpt", *ARGV.get()])
        trainer = self.trainer(corpus, command, world)
        if world.rank == 0:
            trainer.callbacks.append(ProgressBar())
        if self.tensorboard and world.rank == 0:
            trainer.callbacks.append(TensorBoard(self.out / "tensorboard"))
        notes = trainer.resume() if self.resume else []
        if world.rank == 0:
            for note in notes:
                print(f"passed over a checkpoint: {note}", file=sys.stderr)
        self._announce(trainer)
        trainer.fit()
        return self._report(trainer)

    def _corpus(self) -> str | Shards:
        """The text, or the shards if --data is a folder of them."""
        if not Path(self.data).is_dir():
            return load_text(self.data)
        if self.tokenizer != "char":
            raise ValueError(
                f"{self.data} is a folder of shards, which have their "
                "tokenizer already: leave --tokenizer out"
            )
        shards = Shards(self.data)
        verify(shards)
        return shards

    def trainer(
        self, text: str | Shards, command: str, world: World | None = None
    ) -> Trainer:
        """The trainer of this run; `command` goes into the log's header."""
        if self.resume:
            stored = _stored(self.out)
            tokenizer = load_tokenizer(self.out, stored)
            config = GPTConfig.from_dict(stored["model"])
            self._refuse_changes(stored)
            digest = stored["data_sha256"]
            if digest != _digest(text):
                raise RunError(
                    f"the text {self.data!r} is not the one that {self.out} "
                    f"was trained on ({stored['text']}): give the same "
                    "--data, or train into another --out"
                )
        else:
            tokenizer = self._tokenizer(text)
            config = self._shape(vocab_size=tokenizer.vocab_size)
        train_ids, val_ids = self._ids(text, tokenizer)
        train = self.train
        if self.vram is not None:
            train = fitted(self.preset, config, train, self.vram)
        torch.manual_seed(train.seed)  # the initial weights
        return Trainer(
            _build(config),
            train_ids,
            val_ids,
            train,
            self.out,
            tokenizer=tokenizer,
            world=world,
            facts={
                "command": command,
                "preset": self.preset,
                "data": self.data,
                "text": self._name(text),
                "tokenizer": self.tokenizer,
                "data_sha256": _digest(text),
            },
        )

    def _ids(
        self, text: str | Shards, tokenizer: Tokenizer
    ) -> tuple[torch.Tensor | Shards, torch.Tensor | Shards]:
        """Ids (N,) to learn from, and ids to validate with."""
        if isinstance(text, Shards):
            return text, Shards(text.folder, "val")
        train_ids, val_ids = (
            torch.tensor(tokenizer.encode(part))
            for part in train_val_split(text)
        )
        return train_ids, val_ids

    def _tokenizer(self, text: str | Shards) -> Tokenizer:
        """What turns the text into ids."""
        if self.vocab_size is not None and self.tokenizer != "bpe":
            raise ValueError(
                "--vocab-size is for --tokenizer bpe, any other tokenizer "
                "has its size: leave it out"
            )
        if isinstance(text, Shards):
            return read_tokenizer(text.folder / "tokenizer.json")
        if self.tokenizer == "char":
            return CharTokenizer.from_text(text)
        if self.tokenizer == "bpe":
            learned_from, _ = train_val_split(text)
            size = 1024 if self.vocab_size is None else self.vocab_size
            return BPETokenizer.train(
                learned_from, size, [END_OF_TEXT]
            )
        if self.tokenizer == "gpt2":
            return gpt2_tokenizer()
        return read_tokenizer(self.tokenizer)

    def _name(self, text: str) -> str:
        """What was really read: load_text may fall back to the toy."""
        if self.data == "shakespeare" and not is_shakespeare(text):
            return TOY
        return self.data

    def _refuse_changes(self, stored: dict) -> None:
        """A run keeps shape and tokenizer; RunError for flags that do not."""
        kept = stored["model"] | {"tokenizer": stored["tokenizer"]}
        given = self.shape.changes() | {"tokenizer": self.tokenizer}
        if self.vocab_size is not None:
            given["vocab_size"] = self.vocab_size
        for name, value in given.items():
            if value != kept[name]:
                raise RunError(
                    f"{self.out} has {name} {kept[name]}, which --resume "
                    f"cannot change to {value}: leave the flag out, or train "
                    "into another --out"
                )

    def _announce(self, trainer: Trainer) -> None:
        print(
            f"{trainer.model.num_params():,} parameters on "
            f"{trainer.device}, {trainer.precision} ({trainer.reason}), "
            f"{len(trainer.train_ids):,} training tokens"
        )
        if self.vram is not None:
            print(f"for {self.vram:g} GiB: {in_words(trainer.config)}")
        if trainer.world.size > 1:
            world = trainer.world
            print(f"{world.size} processes, each with {world.holds}")
        compiled, reason = choose_compile(self.train.compile, trainer.device)
        if self.train.compile and not compiled:
            print(f"not compiled: {reason}")

    def _report(self, trainer: Trainer) -> int:
        if trainer.interrupted:
            several = trainer.world.size > 1
            start = f"torchrun --nproc-per-node {trainer.world.size} -m "
            print(
                f"stopped by Ctrl-C after step {trainer.step}; all of it is "
                f"kept in {self.out}. Go on with: {start * several}minigpt "
                f"train --out {self.out} --resume{' --shard' * self.shard}"
            )
            return INTERRUPTED
        samples = [row for row in trainer.rows if row["kind"] == "sample"]
        if samples:
            print("\n" + samples[-1]["text"] + "\n")
        if trainer.stop_reason:
            print(f"stopped early: {trainer.stop_reason}")
        print(
            f"validation loss {trainer.best_loss:.3f} at best, "
            f"{trainer.meter.seconds:.0f} s of training; model, log and "
            f"loss.png are in {self.out}"
        )
        if trainer.facts["text"] == TOY:
            print(f"note: this was {TOY}; its loss compares with no other")
        print(f"Write more: minigpt sample --run {self.out}")
        return 0


@dataclass(frozen=True)
class Sample:
    """Write text with a trained model."""

    run: Path
    """A run folder, an exported one, a GPT-2 in Hugging Face's format, or
    the name of an official one, such as gpt2."""
    prompt: str | None = None
    """The text to go on from; left out, what is piped in, or a newline
    (if the model knows none, the first character that it knows)."""
    prompt_file: Path | None = None
    """A UTF-8 file with the prompt (without its last line end)."""
    num_tokens: int = 300
    """How many tokens to write at most."""
    num_samples: int = 1
    """How many texts to write, all at once."""
    seed: int | None = None
    """The same seed gives the same text; left out, each run differs."""
    stop: tuple[str, ...] = ()
    """A text ends before any of these strings."""
    stream: bool = field(default_factory=lambda: sys.stdout.isatty())
    """Show a single text while it is written; the default on a terminal."""
    sampler: tyro.conf.OmitArgPrefixes[Sampler] = field(
        default_factory=lambda: Sampler(temperature=0.8)
    )
    keep: int | None = None
    """Tokens that stay in view when the context is full; left out, all
    that fit, which is slowest. Half the context is a good choice."""
    int8: bool = False
    """8-bit weights: faster on a CPU, a little less exact."""
    device: str = "auto"
    """auto, cpu, cuda, mps ..."""

    def __post_init__(self):
        for name, most in MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(
                    f"{name} is {getattr(self, name)}: write 1 to {most:,}"
                )
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}: write 0 to 2**63 - 1")
        if self.prompt is not None and self.prompt_file is not None:
            raise ValueError("give --prompt or --prompt-file, not both")
        if self.prompt == "":
            raise ValueError(
                "the prompt is empty: give at least one character"
            )

    def __call__(self) -> int:
        auto = "cpu" if self.int8 else best_device()
        device = check_device(auto if self.device == "auto" else self.device)
        model, tokenizer = load_any(self.run, device)
        if self.int8:
            model = to_int8(model)
        prompt = self._read_prompt() or first_text(tokenizer)
        _refuse_unknown(prompt, tokenizer)
        generator = torch.Generator(device)
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        settings = {
            "sampler": self.sampler,
            "stop": self.stop,
            "generator": generator,
            "keep": self.keep,
        }
        if self.stream and self.num_samples == 1:
            self._show(prompt, stream(
                model, tokenizer, prompt, self.num_tokens, **settings
            ))
            return 0
        prompts = [prompt] * self.num_samples
        done = complete(
            model, tokenizer, prompts, self.num_tokens, **settings
        )
        for number, one in enumerate(done, start=1):
            if self.num_samples > 1:
                print(f"----- {number} of {self.num_samples} -----")
            self._show(prompt, [one.text])
        return 0

    def _show(self, prompt: str, pieces: Iterable[str]) -> None:
        print(prompt, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
        print()

    def _read_prompt(self) -> str:
        """From the flag, the file, or the pipe; empty if there is none."""
        if self.prompt is not None:
            return self.prompt
        if self.prompt_file is not None:
            text = _read_prompt_file(self.prompt_file)
        else:
            text = _piped()
        text = text.removesuffix("\n")  # editors and echo add it
        if not text and self.prompt_file is not None:
            raise ValueError(
                f"{self.prompt_file} is empty: write a prompt into it"
            )
        return text


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


Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Sample, tyro.conf.subcommand("sample")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Eval, tyro.conf.subcommand("eval")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[App, tyro.conf.subcommand("app")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Record, tyro.conf.subcommand("record")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
)


def _stored(out: Path) -> dict:
    """config.json of a run that this command line has started."""
    stored = {"tokenizer": "char"} | read_run_config(out)
    for name in ("preset", "data", "data_sha256", "text", "tokenizer"):
        if not isinstance(stored.get(name), str):
            raise RunError(
                f"{out} was not started by 'minigpt train': resume it as it "
                "was started, with Trainer.resume()"
            )
    try:
        stored["train"] = TrainConfig(**stored["train"])
    except (TypeError, ValueError) as error:
        raise RunError(
            f"{out}/config.json does not say how to train ({error}): restore "
            "the file, or train into another --out"
        ) from None
    return stored


def _build(config: GPTConfig) -> GPT:
    """The model; TrainingError if this machine cannot hold it."""
    try:
        return GPT(config)
    except RuntimeError as error:  # what PyTorch raises without memory
        size = sum(count_params(config).values())
        raise TrainingError(
            f"no memory for a model of {size:,} parameters: choose a smaller "
            "preset or shape"
        ) from error


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _digest(text: str | Shards) -> str:
    """What tells one text, or one folder of shards, from another."""
    if isinstance(text, Shards):
        return _sha256(json.dumps(text.manifest["splits"]))
    return _sha256(text)


def _piped() -> str:
    """What is piped or redirected to standard input, else nothing."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # there is no such file
        return ""
    piped = stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
    return sys.stdin.read() if piped else ""


def _read_prompt_file(path: Path) -> str:
    """A UTF-8 text, with or without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        problem = "is not UTF-8 text: save it as UTF-8"
    except OSError as error:
        problem = f"cannot be read ({error.strerror}): name a text file"
    raise ValueError(f"{path} {problem}")


def _refuse_unknown(prompt: str, tokenizer: Tokenizer) -> None:
    """ValueError that names every character the model has never seen."""
    if not isinstance(tokenizer, CharTokenizer):
        return  # bytes spell everything
    unknown = dict.fromkeys(c for c in prompt if c not in tokenizer.chars)
    if len(unknown) > 1:  # the tokenizer names a single one, and its place
        raise ValueError(
            "the prompt has characters that this model has never seen: "
            f"{', '.join(map(repr, unknown))}; remove them"
        )


def _train_defaults(argv: list[str]) -> Train:
    """The defaults of `train` follow from --preset, or from a resumed run."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("--preset", choices=tuple(PRESETS), default="pocket")
    peek.add_argument("--out", type=Path)
    peek.add_argument("--resume", action="store_true")
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            seen, _ = peek.parse_known_args(argv)
    except SystemExit:  # a wrong preset: the real parser will say so
        return Train(out=tyro.MISSING)
    if seen.resume and seen.out is not None:
        stored = _stored(seen.out)
        return Train(
            out=tyro.MISSING,
            preset=stored["preset"],
            data=stored["data"],
            tokenizer=stored["tokenizer"],
            train=stored["train"],
        )
    return Train(
        out=tyro.MISSING, preset=seen.preset, train=RECIPES[seen.preset]
    )


def _parse(argv: list[str]):
    """The command of an argument list; one line and exit code 2 if wrong."""
    default = {"train": _train_defaults}.get(argv[0] if argv else "")
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
            raise UsageError(_one_line(box.getvalue())) from None
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
    # a check of the dataclass itself already names the field
    return re.sub(r"^Error parsing (?!-)[\w. -]+: ", "", line)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    ARGV.set(argv)
    warnings.showwarning = _plain_warning
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
