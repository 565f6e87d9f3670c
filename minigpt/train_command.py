"""`minigpt train`: a text, a shape and a recipe become a run folder."""

import argparse
import contextlib
import hashlib
import io
import json
import sys
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import tyro

from minigpt.callbacks import ProgressBar, TensorBoard
from minigpt.distributed import World, joined
from minigpt.fine_tuning import (
    FINE_TUNING,
    begin_from,
    copy_weights,
    kind_of,
    shape_of,
)
from minigpt.model import GPT, PRESETS, GPTConfig, count_params
from minigpt.plan_command import fitted, in_words
from minigpt.pretraining import Shards, verify
from minigpt.runfolder import (
    RunError,
    TrainingError,
    load_tokenizer,
    read_run_config,
)
from minigpt.sharing import base_name
from minigpt.terminal import INTERRUPTED, spelled
from minigpt.text import (
    CharTokenizer,
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
    start: Path | None = None
    """Fine-tune: start from a trained model's weights, shape and tokenizer
    (a run folder, an exported one, or a GPT-2's name, as gpt2), with
    AdamW at 3e-5. Only --drop-rate and a smaller --context-length change
    the shape."""
    data: str = "shakespeare"
    """A registered text (shakespeare), a file, a URL, or a folder of
    shards that `minigpt data` wrote."""
    tokenizer: str = "char"
    """char: one token a character; bpe: byte-pair encoding, learned from
    the training text; gpt2: GPT-2's; or a file that save() wrote."""
    vocab_size: int | None = None
    """How many tokens --tokenizer bpe learns; left out, 1024."""
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
        command = spelled("minigpt", *ARGV.get())
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
        folder = Path(self.data)
        if not folder.is_dir():
            return load_text(self.data)
        begun = ("manifest.json", "parts")
        if not any((folder / name).exists() for name in begun):
            make = ("minigpt", "data", "--source", folder, "--out", "shards")
            raise ValueError(
                f"{folder} is a folder without shards: make them of its "
                f"texts first, with {spelled(*make)}"
            )
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
        start, origin = None, {}
        if self.resume:  # the weights are in the checkpoint
            stored = _stored(self.out)
            origin = {k: v for k, v in stored.items() if k == "start"}
            tokenizer = load_tokenizer(self.out, stored)
            config = GPTConfig.from_dict(stored["model"])
            self._refuse_changes(stored)
            digest = stored["data_sha256"]
            if digest != text_digest(text):
                toy = stored["text"] == TOY  # which no --data names
                same = "" if toy else "give the same --data, or "
                raise RunError(
                    f"the text {self.data!r} is not the one that {self.out} "
                    f"was trained on ({stored['text']}): {same}"
                    "train into another --out"
                )
        elif self.start is not None:
            if self.tokenizer != "char" or self.vocab_size is not None:
                raise ValueError(
                    "--start brings its tokenizer: leave --tokenizer and "
                    "--vocab-size out"
                )
            start, tokenizer, config = begin_from(
                self.start, self.shape.changes(), text
            )
            origin = {"start": base_name(str(self.start))}
        else:
            tokenizer = self._tokenizer(text)
            config = self._shape(vocab_size=tokenizer.vocab_size)
        train_ids, val_ids = self._ids(text, tokenizer)
        train = self.train
        if self.vram is not None:
            train = fitted(
                self.preset, config, train, self.vram, self.resume
            )
        torch.manual_seed(train.seed)  # the initial weights
        model = _build(config)
        if start is not None:
            copy_weights(start, model)
        return Trainer(
            model,
            train_ids,
            val_ids,
            train,
            self.out,
            tokenizer=tokenizer,
            world=world,
            facts={
                "command": command,
                "preset": shape_of(start) or self.preset,
                "data": self.data,
                "text": self._name(text),
                "tokenizer": self.tokenizer if start is None
                else kind_of(tokenizer),
                "data_sha256": text_digest(text),
                **origin,
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
        given = {"tokenizer": self.tokenizer, "preset": self.preset}
        kept = stored["model"] | {name: stored[name] for name in given}
        given |= self.shape.changes()
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
            words = ["minigpt", "train", "--out", self.out, "--resume"]
            if trainer.world.size > 1:
                count = str(trainer.world.size)
                words = ["torchrun", "--nproc-per-node", count, "-m", *words]
            if self.shard:
                words.append("--shard")
            print(
                f"stopped by Ctrl-C after step {trainer.step}; all of it is "
                f"kept in {self.out}. Go on with: {spelled(*words)}"
            )
            return INTERRUPTED
        samples = [row for row in trainer.rows if row["kind"] == "sample"]
        if samples:
            print("\n" + samples[-1]["text"] + "\n")
        if trainer.stop_reason:
            print(f"stopped early: {trainer.stop_reason}")
        if trainer.best_loss == float("inf"):
            print(
                f"step {trainer.step} is done and no validation yet: give a "
                "larger --max-steps to go on"
            )
            return 0
        print(
            f"validation loss {trainer.best_loss:.3f} at best, "
            f"{trainer.meter.seconds:.0f} s of training; model, log and "
            f"loss.png are in {self.out}"
        )
        if trainer.facts["text"] == TOY:
            print(f"note: this was {TOY}; its loss compares with no other")
        more = spelled("minigpt", "sample", "--run", self.out)
        print(f"Write more: {more}")
        return 0


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


def text_digest(text: str | Shards) -> str:
    """What tells one text, or one folder of shards, from another."""
    if isinstance(text, Shards):
        return _sha256(json.dumps(text.manifest["splits"]))
    return _sha256(text)


def train_defaults(argv: list[str]) -> Train:
    """The defaults of `train` follow from --preset, or from a resumed run."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("--preset", choices=tuple(PRESETS), default="pocket")
    peek.add_argument("--out", type=Path)
    peek.add_argument("--start")
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
    recipe = RECIPES[seen.preset] if seen.start is None else FINE_TUNING
    return Train(out=tyro.MISSING, preset=seen.preset, train=recipe)
