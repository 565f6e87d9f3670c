"""Who listens to a run: the progress bar, the plot, TensorBoard, and you.

A callback is an object with any of four methods. Trainer calls them; what
it offers is in chapter 7.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minigpt.training import Trainer


class Callback:
    """What a run tells whoever listens. Every method may be left out."""

    def on_start(self, trainer: "Trainer") -> None:
        """Before the first step, also of a resumed run."""

    def on_step(self, trainer: "Trainer") -> None:
        """After each optimizer step."""

    def on_row(self, trainer: "Trainer", row: dict) -> None:
        """For each row of the log: kind train, val or sample."""

    def on_end(self, trainer: "Trainer") -> None:
        """After the last step, an interruption or an error."""


class ProgressBar(Callback):
    """A bar with the loss, the validation loss and the time left."""

    def on_start(self, trainer: "Trainer") -> None:
        from tqdm import tqdm

        self.bar = tqdm(
            total=trainer.config.max_steps,
            initial=trainer.step,
            desc="training",
            unit="step",
            dynamic_ncols=True,
        )
        self.shown = {}

    def on_step(self, trainer: "Trainer") -> None:
        self.bar.update()

    def on_row(self, trainer: "Trainer", row: dict) -> None:
        if row["kind"] == "train":
            self.shown["loss"] = f"{row['loss']:.3f}"
            self.shown["tok/s"] = f"{row['tokens_per_s']:,.0f}"
        elif row["kind"] == "val":
            self.shown["val"] = f"{row['loss']:.3f}"
        self.bar.set_postfix(self.shown, refresh=False)

    def on_end(self, trainer: "Trainer") -> None:
        self.bar.close()


class LossPlot(Callback):
    """loss.png in the run folder, redrawn after every evaluation."""

    def on_row(self, trainer: "Trainer", row: dict) -> None:
        if row["kind"] == "val":
            trainer.write("loss.png", draw_losses(trainer.rows))


def draw_losses(rows: list[dict]) -> bytes:
    """A PNG: training loss raw and smoothed, validation, learning rate."""
    from matplotlib.figure import Figure

    from minigpt.figures import COLORS, loss_curves

    kinds = {
        kind: [row for row in rows if row["kind"] == kind]
        for kind in ("train", "val")
    }
    steps, losses = (
        {kind: [row[key] for row in kinds[kind]] for kind in kinds}
        for key in ("step", "loss")
    )
    figure = Figure(figsize=(7, 5), layout="constrained")
    top, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    if kinds["train"]:
        loss_curves({"training": (steps["train"], losses["train"])}, ax=top)
    top.plot(
        steps["val"],
        losses["val"],
        "o-",
        color=COLORS["orange"],
        label="validation",
    )
    top.set(xlabel="", ylabel="loss (nats a token)")
    top.legend()
    rates = [row["lr"] for row in kinds["train"]]
    below.plot(steps["train"], rates, color=COLORS["grey"])
    below.set(xlabel="step", ylabel="learning rate")
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120)
    return picture.getvalue()


class TensorBoard(Callback):
    """Losses and speeds for TensorBoard: tensorboard --logdir FOLDER.

    ValueError if the package tensorboard is not installed.
    """

    def __init__(self, folder: str | Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError:
            raise ValueError(
                "TensorBoard is not installed: pip install tensorboard, or "
                "leave it out; log.jsonl holds the same numbers"
            ) from None
        self.writer = SummaryWriter(str(folder))

    def on_row(self, trainer: "Trainer", row: dict) -> None:
        if row["kind"] == "sample":
            self.writer.add_text("sample", row["text"], row["step"])
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)):
                self.writer.add_scalar(
                    f"{row['kind']}/{name}", value, row["step"]
                )

    def on_end(self, trainer: "Trainer") -> None:
        self.writer.flush()
