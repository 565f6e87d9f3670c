"""How many steps it takes to learn a text by heart, and what that is worth.

    python benchmarks/memorize.py             prints a table
    python benchmarks/memorize.py --record    and keeps it in book/runs

A page of tiny Shakespeare and the pocket model on one thread of a CPU; the
size that people come for is `minigpt record --only memorize` on a GPU. Each
way of training stops when the mean loss of ten batches is under 0.1, or
after the steps that it is given. Both ends of the published way are kept:
its optimizer and rate, and that the rate never falls.
"""

import argparse
from dataclasses import replace

import torch

from minigpt import GPT, BPETokenizer, GPTConfig, TrainConfig, Trainer
from minigpt.runs import describe_machine, write_record
from minigpt.text import load_text, train_val_split

CHARS, VOCABULARY = 12_000, 512
COMMON = TrainConfig(
    batch_size=16,
    warmup_steps=0,
    eval_every=20,
    target_loss=0.1,
    device="cpu",
    precision="fp32",
    seed=0,
)
WAYS = {
    "AdamW 3e-4, constant": replace(
        COMMON,
        optimizer="adamw",
        learning_rate=3e-4,
        weight_decay=0.01,
        schedule="constant",
        max_steps=2000,
    ),
    "AdamW 3e-3, falling": replace(
        COMMON,
        optimizer="adamw",
        learning_rate=3e-3,
        weight_decay=0.01,
        schedule="trapezoid",
        max_steps=500,
    ),
    "Muon, falling": replace(
        COMMON, weight_decay=0.0, schedule="trapezoid", max_steps=500
    ),
}


def learn_by_heart(
    way: str, train_ids: torch.Tensor, val_ids: torch.Tensor
) -> list[dict]:
    """The losses of the pocket model, trained in one of the WAYS."""
    torch.manual_seed(0)
    model = GPT(GPTConfig.preset("pocket", vocab_size=VOCABULARY))
    rows = Trainer(model, train_ids, val_ids, WAYS[way]).fit().rows
    return [
        {
            "kind": row["kind"],
            "way": way,
            "step": row["step"],
            "loss": round(row["loss"], 4),
        }
        for row in rows
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    text = load_text("shakespeare")[:CHARS]
    tokenizer = BPETokenizer.train(text, VOCABULARY)
    ids = train_val_split(torch.tensor(tokenizer.encode(text)))
    print("| way | steps | training loss | validation, best and last |")
    print("| --- | ---: | ---: | ---: |")
    found = []
    for way in WAYS:
        rows = learn_by_heart(way, *ids)
        found += rows
        last = [row for row in rows if row["kind"] == "train"][-1]
        losses = [row["loss"] for row in rows if row["kind"] == "val"]
        print(
            f"| {way} | {last['step']} | {last['loss']:.3f} | "
            f"{min(losses):.2f}, {losses[-1]:.2f} |",
            flush=True,
        )
    if options.record:
        header = {
            "command": "python benchmarks/memorize.py --record",
            **describe_machine("cpu"),
            "preset": "pocket",
            "tokens": len(ids[0]),
        }
        print("wrote", write_record("memorize", header, found).name)


if __name__ == "__main__":
    main()
