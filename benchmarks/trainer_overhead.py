"""What the trainer's step costs over chapter 2's ten-line loop.

    python benchmarks/trainer_overhead.py [rounds]

Both train the same pocket model with the same optimizer on the same
batches, on the CPU in fp32 with one thread; the trainer logs every 10
steps. The two take turns, 10 steps each, and each turn's processor time is
measured, which hardly minds what else the machine does. The ratio is that of
the medians. The target is at most 1.03.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count

import torch

from minigpt import GPT, GPTConfig, TrainConfig, Trainer, fit
from minigpt.callbacks import Callback
from minigpt.training import Windows, make_optimizer

TARGET = 1.03
STEPS = 10  # a turn
CONFIG = TrainConfig(
    optimizer="adamw",
    schedule="constant",
    warmup_steps=0,
    log_every=STEPS,
    eval_every=10**9,
    checkpoint_every=0,
    device="cpu",
    precision="fp32",
)


class Pausing(Callback):
    """Stops the trainer after each turn of steps, as Ctrl-C would."""

    def __init__(self, steps: int):
        self.steps = steps

    def on_step(self, trainer: Trainer) -> None:
        trainer.interrupted = trainer.step % self.steps == 0


def model() -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig.preset("pocket"))


def bare_turns(ids: torch.Tensor) -> Iterator[float]:
    """Seconds of processor time a turn of the ten-line loop takes."""
    bare = model()
    optimizer = make_optimizer(bare, CONFIG)
    windows = Windows(ids, CONFIG.batch_size, 64, CONFIG.seed)
    batches = map(windows.batch, count())
    while True:
        start = time.process_time()
        fit(bare, batches, STEPS, optimizer=optimizer)
        yield time.process_time() - start


def trainer_turns(ids: torch.Tensor, folder: str) -> Iterator[float]:
    """The same of the trainer, with its log in a folder."""
    trainer = Trainer(model(), ids, ids[:65], CONFIG, f"{folder}/run")
    # a pause would write a checkpoint, which is no part of a step
    trainer._keep_what_was_trained = lambda: None
    trainer.callbacks.append(Pausing(STEPS))
    while True:
        start = time.process_time()
        trainer.fit()
        yield time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    ids = torch.randint(65, (200_000,))
    times = {"ten-line loop": [], "Trainer": []}
    with tempfile.TemporaryDirectory() as folder:
        turns = (bare_turns(ids), trainer_turns(ids, folder))
        for turn in range(rounds + 1):
            for taken, stepper in zip(times.values(), turns, strict=True):
                seconds = next(stepper)
                if turn:  # the first one warms up
                    taken.append(1000 * seconds / STEPS)
    print("| one step | median | fastest | target |")
    print("| --- | ---: | ---: | ---: |")
    middle = {name: statistics.median(ms) for name, ms in times.items()}
    for name, ms in times.items():
        print(f"| {name} | {middle[name]:.2f} ms | {min(ms):.2f} ms | |")
    ratio = middle["Trainer"] / middle["ten-line loop"]
    print(f"| ratio | {ratio:.3f} | | ≤ {TARGET} |")


if __name__ == "__main__":
    main()
