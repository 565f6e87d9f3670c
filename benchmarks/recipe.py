"""What bought how much: from nanoGPT's recipe to pocket's, at equal time.

    python benchmarks/recipe.py            prints two tables
    python benchmarks/recipe.py --record   and keeps them in book/runs
    python benchmarks/recipe.py --share 0.3         in less than half the time

The first table adds one change after another to nanoGPT's recipe, the
second takes one thing at a time away from pocket's. Each row may use the
processor time that nanoGPT's 2,000 steps take (times --share): a few steps
of each are timed first, and the number of steps follows. Processor time
hardly minds what else the machine does.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

from pocket import NANOGPT, train

from minigpt.callbacks import Callback
from minigpt.runs import describe_machine, write_record
from minigpt.text import is_shakespeare, load_text
from minigpt.training import RECIPES

REHEARSAL = 12  # steps, of which the first three do not count
POCKET = replace(RECIPES["pocket"], precision="bf16", device="cpu")

ADDED = {
    "nanoGPT's recipe": {},
    "learning rate x 4": {"learning_rate": 4e-3},
    "falling straight to 0": {"schedule": "linear", "final_lr": 0.0},
    "bfloat16": {"precision": "bf16"},
    f"{POCKET.batch_size} windows a step": {"batch_size": POCKET.batch_size},
    "Muon: pocket's recipe": vars(POCKET),
}
WITHOUT = {
    "pocket's recipe": {},
    "a third of its learning rates": {
        "learning_rate": POCKET.learning_rate / 3,
        "muon_lr": POCKET.muon_lr / 3,
    },
    "constant learning rates": {"schedule": "constant"},
    "warm-up, then a cosine to a tenth": {
        "schedule": "cosine",
        "warmup_steps": 100,
        "final_lr": 0.1,
    },
    "AdamW instead of Muon": {"optimizer": "adamw", "warmup_steps": 100},
    "fp32 instead of bfloat16": {"precision": "fp32"},
    "12 windows a step": {"batch_size": 12},
    "half the windows, twice as long": {
        "batch_size": POCKET.batch_size // 2,
        "context_length": 2 * 64,
    },
}


class StepTimes(Callback):
    """Notes the processor time at the end of each step."""

    def __init__(self):
        self.stamps = []

    def on_step(self, trainer) -> None:
        self.stamps.append(time.process_time())

    def typical(self) -> float:
        """Processor seconds a step."""
        late = self.stamps[2:]
        return statistics.median(
            b - a for a, b in zip(late, late[1:], strict=False)
        )


def cost_key(settings: dict) -> tuple:
    """What a step's duration depends on; rates and schedules cost nothing."""
    names = ("batch_size", "context_length", "precision", "optimizer")
    whole = vars(NANOGPT) | {"context_length": 64} | settings
    return tuple(whole[name] for name in names)


def step_costs(text: str, recipes: list[dict]) -> dict[tuple, float]:
    """Processor seconds of one step by cost_key: the least of three rounds.

    The recipes take turns, so that a busy moment does not hit only one.
    """
    short = {"max_steps": REHEARSAL, "eval_tokens": 64, "schedule": "constant"}
    distinct = {cost_key(settings): settings for settings in recipes}
    costs = dict.fromkeys(distinct, math.inf)
    for _ in range(3):
        for key, settings in distinct.items():
            times = StepTimes()
            run(text, settings | short, callbacks=(times,))
            costs[key] = min(costs[key], times.typical())
    return costs


def run(text: str, changes: dict, **options):
    """Train with these settings; context_length goes to the model."""
    shape = {k: v for k, v in changes.items() if k == "context_length"}
    settings = {k: v for k, v in changes.items() if k not in shape}
    config = replace(NANOGPT, **settings)
    return train(text, config, **shape, **options)


def recipes(table: str) -> dict[str, dict]:
    """The settings of each row, as changes of NANOGPT."""
    if table == "without":
        return {name: vars(POCKET) | less for name, less in WITHOUT.items()}
    so_far, named = {}, {}
    for name, more in ADDED.items():
        so_far = so_far | more
        named[name] = so_far
    return named


def rows(text: str, table: str, share: float, seed: int) -> Iterator[dict]:
    """The rows of one table, each trained for the same processor time."""
    named = recipes(table)
    costs = step_costs(text, [{}, *named.values()])
    budget = share * NANOGPT.max_steps * costs[cost_key({})]
    for name, settings in named.items():
        steps = round(budget / costs[cost_key(settings)])
        length = {"max_steps": steps, "eval_every": steps, "seed": seed}
        trainer = run(text, settings | length)
        yield {
            "kind": table,
            "name": name,
            "steps": steps,
            "batch_size": trainer.config.batch_size,
            "loss": trainer.rows[-1]["loss"],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="What bought how much.")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument(
        "--tables",
        nargs="+",
        choices=["recipe", "without"],
        default=["recipe", "without"],
    )
    options = parser.parse_args()
    text = load_text("shakespeare")
    if not is_shakespeare(text):
        sys.exit("tiny Shakespeare is not at hand: set MINIGPT_DATA")
    for table in options.tables:
        print("\n| change | steps | batch | validation loss |")
        print("| --- | ---: | ---: | ---: |")
        kept = []
        for row in rows(text, table, options.share, options.seed):
            kept.append(row)
            print(
                f"| {row['name']} | {row['steps']:,} | {row['batch_size']} "
                f"| {row['loss']:.3f} |",
                flush=True,
            )
        if options.record:
            command = f"python benchmarks/recipe.py --share {options.share}"
            header = {
                "command": command,
                "share": options.share,
                "seed": options.seed,
                **describe_machine("cpu"),
            }
            write_record(table, header, kept)


if __name__ == "__main__":
    main()
