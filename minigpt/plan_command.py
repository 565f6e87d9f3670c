"""`minigpt plan`: settings with which a preset trains on a card."""

from dataclasses import dataclass, replace
from typing import Literal

from minigpt.memory import (
    Checkpointing,
    DoesNotFit,
    MemoryPlan,
    Optimizer,
    Precision,
    StateFormat,
    plan,
)
from minigpt.model import PRESETS, GPTConfig
from minigpt.terminal import spelled
from minigpt.training import TrainConfig

# GiB that CUDA reports, GiB for a screen, and what the card computes in
CARDS: dict[str, tuple[float, float, Precision]] = {
    "t4": (14.7, 0.0, "fp16"),
}


@dataclass(frozen=True)
class Plan:
    """Predict the memory of a training run, and choose its settings."""

    preset: Literal[tuple(PRESETS)] = "gpt2"
    """The preset to train."""
    vram: float = 8.0
    """Memory of the card in GiB."""
    card: Literal["any", "t4"] = "any"
    """t4: Colab's free card, instead of --vram, --desktop, --precision."""
    desktop: float = 0.8
    """GiB of it that the screen and other programs use."""
    batch: int = 32
    """Windows that each step of the optimizer learns from."""
    context_length: int | None = None
    """Tokens of a window; left out, the preset's."""
    precision: Precision = "bf16"
    """Number format of the forward pass; cards older than Ampere: fp16."""
    optimizer: Optimizer = "muon"
    """As in `minigpt train`."""
    checkpointing: Checkpointing | None = None
    """What is computed twice; left out, as little as will do."""
    loss_chunk: int | None = None
    """Rows of logits at once, 0 means all; left out, what will do."""
    optimizer_state: StateFormat | None = None
    """Number format of the optimizer's memory; left out, what will do."""

    def __call__(self) -> int:
        wanted = self if self.card == "any" else self._with_card()
        found = wanted.find()
        print(
            f"{self.preset}: {found.grad_accum} micro-batches of "
            f"{found.micro_batch} windows a step; predicted for CUDA:"
        )
        print(found)
        print(wanted.command(found))
        return 0

    def _with_card(self) -> "Plan":
        vram, desktop, precision = CARDS[self.card]
        return replace(
            self, vram=vram, desktop=desktop, precision=precision, card="any"
        )

    def find(self) -> MemoryPlan:
        """The plan; DoesNotFit names the preset."""
        config = PRESETS[self.preset]
        if self.context_length is not None:
            config = replace(config, context_length=self.context_length)
        try:
            return plan(
                config,
                self.vram,
                batch=self.batch,
                desktop_gib=self.desktop,
                precision=self.precision,
                optimizer=self.optimizer,
                checkpointing=self.checkpointing,
                loss_chunk=self.loss_chunk,
                optimizer_state=self.optimizer_state,
            )
        except DoesNotFit as error:
            raise DoesNotFit(f"{self.preset} {error}") from None

    def command(self, found: MemoryPlan) -> str:
        """The command line that trains by the plan."""
        words = ["minigpt", "train", "--preset", self.preset]
        if self.context_length is not None:
            words += ["--context-length", str(self.context_length)]
        if found.config.vocab_size == PRESETS["gpt2"].vocab_size:
            words += ["--tokenizer", "gpt2"]
        for name, value in found.train_settings().items():
            if value != getattr(TrainConfig, name):
                words += ["--" + name.replace("_", "-"), str(value)]
        return spelled(*words, "--out", f"runs/{self.preset}")


def fitted(
    name: str,
    config: GPTConfig,
    train: TrainConfig,
    vram: float,
    resumed: bool = False,
) -> TrainConfig:
    """The settings, changed so that they fit a card of that many GiB.

    The windows of a step stay, and so does what differs from the default,
    and in a resumed run what its optimizer remembers in. DoesNotFit, with
    the preset's name, if nothing fits.
    """
    usual = TrainConfig()
    fixed = {
        key: getattr(train, key)
        for key in ("checkpointing", "loss_chunk", "optimizer_state")
        if getattr(train, key) != getattr(usual, key)
    }
    if resumed:
        fixed["optimizer_state"] = train.optimizer_state
    if train.precision != "auto":
        fixed["precision"] = train.precision
    try:
        found = plan(
            config,
            vram,
            batch=train.batch_size * train.grad_accum,
            optimizer=train.optimizer,
            **fixed,
        )
    except DoesNotFit as error:
        raise DoesNotFit(f"{name} {error}") from None
    # "auto" finds out what the card has; fp16 takes the bytes of bf16
    kept = {"precision": train.precision}
    return replace(train, **found.train_settings() | kept)


def in_words(train: TrainConfig) -> str:
    """The settings that a plan decides."""
    rows = train.loss_chunk
    return (
        f"{train.grad_accum} x {train.batch_size} windows, "
        f"checkpointing {train.checkpointing}, "
        f"loss {f'in chunks of {rows} rows' if rows else 'all at once'}, "
        f"optimizer state {train.optimizer_state}"
    )
