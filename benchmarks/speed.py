"""Tokens per second of training, next to the loop that everyone writes.

    python benchmarks/speed.py             prints a table
    python benchmarks/speed.py --record    and keeps it in book/runs

On a CUDA GPU: the gpt2 preset, bf16, compiled, context 1,024, with larger
and larger micro-batches until the memory ends. On a CPU: pocket, which is
not compiled. The other loop is the plain one: model, AdamW, autocast, the
same compile setting, the same batches. Both take turns of a few steps, the
clock waits for the device, and a row holds the median turn of each. MFU is
the share of the device's peak (unknown for most CPUs).

Aims on a data-centre card: 1.15 x the plain loop, 50 % MFU.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Iterator
from itertools import count

import torch
import torch.nn.functional as F
from trainer_overhead import Pausing

from minigpt import GPT, GPTConfig, TrainConfig, Trainer
from minigpt.hardware import flops_per_token, peak_flops, synchronize
from minigpt.runs import describe_machine, write_record
from minigpt.text import best_device
from minigpt.training import Windows, autocast

STEPS, TURNS = 8, 5
BATCHES = {"gpt2": (2, 8, 32, 64), "pocket": (8, 16, 32, 64, 128)}


def settings(preset: str, device: str, batch_size: int) -> TrainConfig:
    return TrainConfig(
        batch_size=batch_size,
        optimizer="adamw",
        schedule="constant",
        warmup_steps=0,
        max_steps=10**9,
        log_every=STEPS,
        eval_every=10**9,
        checkpoint_every=0,
        device=device,
        precision="bf16" if device == "cuda" else "fp32",
        compile=device == "cuda",
    )


def plain_turns(
    model: GPT, ids: torch.Tensor, config: TrainConfig
) -> Iterator[None]:
    """Each next() is a turn of the plain loop."""
    device = config.device
    model = model.to(device)
    fused = {"fused": True} if device == "cuda" else {}
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, **fused
    )
    run = torch.compile(model) if config.compile else model
    windows = Windows(
        ids, config.batch_size, model.context_length, config.seed
    )
    for index in count():
        x, y = (part.to(device) for part in windows.batch(index))
        with autocast(device, config.precision):
            logits = run(x)
            loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        if (index + 1) % STEPS == 0:
            yield


def trainer_turns(
    model: GPT, ids: torch.Tensor, config: TrainConfig
) -> Iterator[None]:
    """Each next() is a turn of the trainer, as `minigpt train` runs it."""
    trainer = Trainer(model, ids, ids[: model.context_length + 1], config)
    trainer.callbacks.append(Pausing(STEPS))
    while True:
        trainer.fit()
        yield


def measure(preset: str, config: TrainConfig, ids: torch.Tensor) -> dict:
    """Tokens per second of both loops at one batch size, and the MFU."""
    if config.compile:  # else every later size shares one flexible graph
        torch._dynamo.reset()
    times = {"plain": [], "trainer": []}
    loops = {}
    for name, turns in (("plain", plain_turns), ("trainer", trainer_turns)):
        torch.manual_seed(0)
        model = GPT(GPTConfig.preset(preset))
        loops[name] = turns(model, ids, config)
    for turn in range(TURNS + 1):
        for name, loop in loops.items():
            synchronize(config.device)
            start = time.perf_counter()
            next(loop)
            synchronize(config.device)
            if turn:  # the first one warms up and compiles
                times[name].append(time.perf_counter() - start)
    tokens = STEPS * config.batch_size * model.context_length
    speed = {k: tokens / statistics.median(v) for k, v in times.items()}
    peak = peak_flops(config.device, config.precision)
    work = flops_per_token(model.config, model.num_params())
    return {
        "kind": "speed",
        "batch_size": config.batch_size,
        "tokens_per_s": round(speed["trainer"], 1),
        "plain_tokens_per_s": round(speed["plain"], 1),
        "ratio": round(speed["trainer"] / speed["plain"], 3),
        "mfu": peak and round(speed["trainer"] * work / peak, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    device = "cuda" if best_device() == "cuda" else "cpu"
    preset = "gpt2" if device == "cuda" else "pocket"
    ids = torch.randint(65, (200_000,))
    config = settings(preset, device, BATCHES[preset][0])
    header = {
        "command": "python benchmarks/speed.py --record",
        **describe_machine(device),
        "preset": preset,
        "precision": config.precision,
        "compiled": config.compile,
    }
    print(f"{preset} on {header['device']}, {config.precision}\n")
    print("| batch | tokens/s | plain loop | ratio | MFU |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    rows = []
    for batch_size in BATCHES[preset]:
        try:
            row = measure(preset, settings(preset, device, batch_size), ids)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if "out of memory" not in str(error) or not rows:
                raise
            print(f"batch {batch_size}: out of memory", file=sys.stderr)
            break
        rows.append(row)
        mfu = "unknown" if row["mfu"] is None else f"{100 * row['mfu']:.0f} %"
        print(
            f"| {batch_size} | {row['tokens_per_s']:,.0f} "
            f"| {row['plain_tokens_per_s']:,.0f} | {row['ratio']:.2f} x "
            f"| {mfu} |"
        )
        if device == "cuda":
            gc.collect()  # a trainer and its model know one another
            torch.cuda.empty_cache()
    if args.record:
        print("wrote", write_record("speed", header, rows).name)


if __name__ == "__main__":
    main()
