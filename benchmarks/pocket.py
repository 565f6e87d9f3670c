"""The preset pocket against nanoGPT's own recipe for a CPU.

    python benchmarks/pocket.py                  prints a table
    python benchmarks/pocket.py --json OUT.json  and keeps the numbers

Both recipes train a GPT of 0.8M parameters on the same 90 % of tiny
Shakespeare, one after the other in this process: keep the machine otherwise
idle. The seconds are those of training alone; the validation loss is over
the whole last 10 %. The target for pocket: no more seconds than nanoGPT's
recipe, a loss of at most 1.66, 1.91 passed in a third of the seconds, and
less than 2 % of a step spent on making its batch.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from minigpt.model import GPT, GPTConfig
from minigpt.runs import describe_machine
from minigpt.text import (
    CharTokenizer,
    is_shakespeare,
    load_text,
    train_val_split,
)
from minigpt.training import RECIPES, TrainConfig, Trainer

PASS = 1.91  # what nanoGPT's recipe ends at, over the whole validation set
NANOGPT = TrainConfig(
    max_steps=2000,
    batch_size=12,
    optimizer="adamw",
    learning_rate=1e-3,
    schedule="cosine",
    warmup_steps=100,
    final_lr=0.1,
    weight_decay=0.1,
    beta2=0.99,
    grad_clip=1.0,
    precision="fp32",
    device="cpu",
)


def train(
    text: str,
    config: TrainConfig,
    *,
    callbacks: tuple = (),
    **shape,
) -> Trainer:
    """One recipe from start to end; `shape` changes fields of GPTConfig."""
    tokenizer = CharTokenizer.from_text(text)
    ids = torch.tensor(tokenizer.encode(text))
    torch.manual_seed(config.seed)
    size = tokenizer.vocab_size
    model = GPT(GPTConfig.preset("pocket", vocab_size=size, **shape))
    parts = train_val_split(ids)
    return Trainer(model, *parts, config, callbacks=callbacks).fit()


def batch_percent(trainer: Trainer, seconds: float) -> float:
    """The share of a training step that goes into making its batch."""
    start = time.perf_counter()
    for index in range(200):
        trainer.windows.batch(index)
    batch = (time.perf_counter() - start) / 200
    return 100 * batch / (seconds / trainer.config.max_steps)


def row(name: str, trainer: Trainer) -> dict:
    """What the table says of one trained recipe."""
    looks = [r for r in trainer.rows if r["kind"] == "val"]
    passed = [r["seconds"] for r in looks if r["loss"] <= PASS]
    seconds = looks[-1]["seconds"]
    return {
        "recipe": name,
        "params": trainer.model.num_params(),
        "steps": trainer.config.max_steps,
        "precision": trainer.precision,
        "seconds": seconds,
        "val_loss": looks[-1]["loss"],
        "seconds_to_pass": passed[0] if passed else None,
        "batch_percent": batch_percent(trainer, seconds),
        "looks": [(r["step"], r["seconds"], r["loss"]) for r in looks],
    }


def table(rows: list[dict]) -> str:
    """The rows in Markdown, times also as a share of the first row's."""
    lines = [
        "| recipe | parameters | steps | precision | seconds | of nanoGPT's "
        f"| validation loss | passes {PASS} after | batch making |",
        "| --- " * 2 + "| ---: | --- " + "| ---: " * 5 + "|",
    ]
    whole = rows[0]["seconds"]
    for r in rows:
        after = "never"
        if r["seconds_to_pass"] is not None:
            share = r["seconds_to_pass"] / whole
            after = f"{r['seconds_to_pass']:.1f} s ({share:.2f})"
        lines.append(
            f"| {r['recipe']} | {r['params']:,} | {r['steps']:,} "
            f"| {r['precision']} | {r['seconds']:.1f} "
            f"| {r['seconds'] / whole:.2f} | {r['val_loss']:.3f} | {after} "
            f"| {r['batch_percent']:.2f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="pocket against nanoGPT.")
    parser.add_argument("--json", metavar="OUT", type=Path)
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--looks", type=int, default=40, help="evaluations")
    parser.add_argument("--steps", type=int, help="fewer, to try it out")
    options = parser.parse_args()
    text = load_text("shakespeare")
    if not is_shakespeare(text):
        sys.exit("tiny Shakespeare is not at hand: set MINIGPT_DATA")
    rows = []
    for name, config in (
        ("nanoGPT's", NANOGPT),
        ("pocket", RECIPES["pocket"]),
    ):
        steps = options.steps or config.max_steps
        config = replace(
            config,
            max_steps=steps,
            device="cpu",
            seed=options.seed,
            eval_every=max(1, steps // options.looks),
        )
        rows.append(row(name, train(text, config)))
    print(f"{describe_machine('cpu')['device']}\n\n{table(rows)}")
    if options.json:
        report = {"machine": describe_machine("cpu"), "rows": rows}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
