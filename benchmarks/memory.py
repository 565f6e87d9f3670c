"""The planner's memory against what is measured, and what saving it costs.

    python benchmarks/memory.py             prints two tables
    python benchmarks/memory.py --record    and keeps them in book/runs

Two steps of the trainer with each of five settings. On a CUDA GPU: the
gpt2 preset, bf16, 4 windows at a time, and CUDA's own count of the peak.
On a CPU: pocket with GPT-2's vocabulary, fp32, counted tensor by tensor.
The second table is the loss alone: its peak, and its time next to that of
the plain loss, both of which take turns.
"""

import argparse
import gc
import statistics
import time
from dataclasses import replace

import torch
import torch.nn.functional as F

from minigpt import GPT, PRESETS, GPTConfig, TrainConfig
from minigpt.hardware import synchronize
from minigpt.memory import Usage, chunked_cross_entropy, memory_parts
from minigpt.runs import describe_machine, write_record
from minigpt.text import best_device
from minigpt.training import TrainStep, autocast

ACCUM, TURNS = 2, 5


def settings(chunk: int) -> dict[str, dict]:
    """Five settings, each with one remedy more than the one before."""
    found, how = {}, {"optimizer": "adamw"}
    for name, change in (
        ("plain", {}),
        ("loss in chunks", {"loss_chunk": chunk}),
        ("MLPs twice", {"checkpointing": "mlp"}),
        ("blocks twice", {"checkpointing": "block"}),
        ("8-bit state", {"optimizer_state": "int8"}),
    ):
        found[name] = how = how | change
    return found


def steps(config: GPTConfig, train: TrainConfig, count: int) -> list[float]:
    """Build model and optimizer, train; seconds of each step."""
    device = train.device
    torch.manual_seed(0)
    step = TrainStep(
        GPT(config).to(device), train, device, train.precision
    )
    shape = train.batch_size, config.context_length
    seconds = []
    for number in range(count):
        ids = torch.randint(config.vocab_size, shape).to(device)
        synchronize(device)
        start = time.perf_counter()
        step(number, [(ids, ids)] * ACCUM)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def peak(config: GPTConfig, train: TrainConfig) -> int:
    """The most bytes that were alive in two steps."""
    if train.device == "cpu":
        with Usage() as usage:
            steps(config, train, 2)
        return usage.peak
    gc.collect()  # an earlier model, if it goes meanwhile, would count
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    steps(config, train, 2)
    return torch.cuda.max_memory_allocated() - before


def training_rows(device: str) -> tuple[str, list[dict]]:
    """What was trained, and a row for each setting."""
    config, B, chunk, low = PRESETS["gpt2"], 4, 1024, "bf16"
    name = "gpt2"
    if device == "cpu":
        config = replace(PRESETS["pocket"], vocab_size=config.vocab_size)
        name, B, chunk, low = "pocket, GPT-2's vocabulary", 8, 128, "fp32"
    rows = []
    for label, how in settings(chunk).items():
        train = TrainConfig(
            batch_size=B, grad_accum=ACCUM, device=device, precision=low, **how
        )
        guess = memory_parts(
            config, B, ACCUM, precision=low, device=device, **how
        )
        rows.append({
            "kind": "memory",
            "name": label,
            **how,
            "predicted": sum(guess.values()),
            "measured": peak(config, train),
            "seconds": round(statistics.median(steps(config, train, 4)), 4),
        })
    return name, rows


def loss_rows(device: str) -> list[dict]:
    """Peak and time of the loss, all at once and in pieces."""
    big = device == "cuda"
    N, C, V = (8192 if big else 1024), (768 if big else 128), 50257
    hidden = torch.randn(N, C, device=device, requires_grad=True)
    weight = torch.randn(V, C, device=device, requires_grad=True)
    targets = torch.randint(V, (N,), device=device)

    def once(chunk: int) -> float:
        hidden.grad = weight.grad = None
        synchronize(device)
        start = time.perf_counter()
        with autocast(device, "bf16" if big else "fp32"):
            if chunk:
                loss = chunked_cross_entropy(hidden, weight, targets, chunk)
            else:
                loss = F.cross_entropy(F.linear(hidden, weight), targets)
        loss.backward()
        synchronize(device)
        return time.perf_counter() - start

    chunks = (0, N // 2, N // 4, N // 8, N // 16)
    rows = {}
    for chunk in chunks:
        hidden.grad = weight.grad = None
        with Usage() as usage:
            once(chunk)
        rows[chunk] = {
            "kind": "loss", "rows": N, "chunk": chunk, "peak": usage.peak
        }
    laps = {chunk: [] for chunk in chunks}
    for _ in range(TURNS):
        for chunk in chunks:
            laps[chunk].append(once(chunk))
    middle = {chunk: statistics.median(laps[chunk]) for chunk in chunks}
    for chunk, row in rows.items():
        row["relative_time"] = round(middle[chunk] / middle[0], 3)
    return [*rows.values()]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args(argv)
    device = "cuda" if best_device() == "cuda" else "cpu"
    if device == "cpu":
        torch.set_num_threads(1)
    name, training = training_rows(device)
    losses = loss_rows(device)
    print(f"| {name} | predicted MiB | measured MiB | ratio | ms a step |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for row in training:
        guess, seen = (row[k] / 2**20 for k in ("predicted", "measured"))
        print(f"| {row['name']} | {guess:.1f} | {seen:.1f} | "
              f"{guess / seen:.3f} | {1000 * row['seconds']:.0f} |")
    print("\n| rows of logits at once | peak MiB | time |")
    print("| --- | ---: | ---: |")
    for row in losses:
        print(f"| {row['chunk'] or 'all'} of {row['rows']} | "
              f"{row['peak'] / 2**20:.1f} | {row['relative_time']:.2f} |")
    if options.record:
        header = {
            "command": "python benchmarks/memory.py --record",
            "preset": name,
            **describe_machine(device),
        }
        rows = training + losses
        print("wrote", write_record("memory", header, rows).name)


if __name__ == "__main__":
    main()
