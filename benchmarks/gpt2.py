"""GPT-2 124M here and in transformers: one training step; and loading.

    python benchmarks/gpt2.py [--threads 2] [--rounds 7] [--length 256]

Random weights, fp32, CPU, batch 1, no dropout. A step is the forward pass,
the loss, and the backward pass; both run eagerly with PyTorch's fused
attention (transformers without its cache, which would only cost it time).
They take turns, so that a slow minute of the machine hits both; the table
holds medians, on the clock and of the processor's time: on a busy machine,
and with one thread, the second is the fairer. The floor is the matrix products
of the linear layers, three for each, and nothing else: no step on this
machine is quicker.

Loading happens in processes of its own: the file is in the system's cache,
each reads it twice, and the second time counts (the first also loads
libraries). Peak memory is what the process had at most less what it had
before, over the size of the weights in fp32.

Targets: a step no slower than transformers' (1.2 x is the aim); loading
below 1.3 x the weights, below 2 s.
"""

import argparse
import hashlib
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from minigpt import GPT, GPT_CONFIG_124M, save_gpt2
from minigpt.gpt2 import HUB, WEIGHTS

STEP_TARGET, STEP_AIM = 1.0, 1.2
MEMORY_TARGET, SECONDS_TARGET = 1.3, 2.0

LOAD = """
import sys, time
from minigpt import gpt2, load_gpt2

repo, revision, _ = gpt2.HUB["gpt2"]
gpt2.HUB["gpt2"] = gpt2.Release(repo, revision, sys.argv[2])

def memory(key):  # bytes; VmRSS now, VmHWM at most
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return int(lines[key].split()[0]) * 1024

before = memory("VmRSS")
model = load_gpt2(sys.argv[1])
peak = (memory("VmHWM") - before) / (4 * model.num_params())
del model
start = time.perf_counter()
load_gpt2(sys.argv[1])
print(peak, time.perf_counter() - start)
"""


def ours(idx: torch.Tensor, targets: torch.Tensor) -> Callable[[], None]:
    """A training step of our GPT."""
    model = GPT(GPT_CONFIG_124M)

    def step() -> None:
        model.zero_grad()
        model.loss(idx, targets).backward()

    return step


def transformers(
    idx: torch.Tensor, targets: torch.Tensor
) -> Callable[[], None]:
    """The same in transformers."""
    from transformers import GPT2Config, GPT2LMHeadModel, logging

    logging.set_verbosity_error()
    none = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    config = GPT2Config(**none, use_cache=False)
    config._attn_implementation = "sdpa"
    model = GPT2LMHeadModel(config).train()

    def step() -> None:
        model.zero_grad()
        # shift_labels: the targets as they are, as in ours
        model(idx, labels=targets, shift_labels=targets).loss.backward()

    return step


def floor(idx: torch.Tensor) -> Callable[[], None]:
    """The linear layers' products: output, and both gradients."""
    T = idx.shape[1]
    with torch.device("meta"):
        shapes = [
            module.weight.shape
            for module in GPT(GPT_CONFIG_124M).modules()
            if isinstance(module, torch.nn.Linear)
        ]
    sides = {shape: torch.randn(shape) for shape in set(shapes)}
    data = {n: torch.randn(T, n) for shape in sides for n in shape}

    def step() -> None:
        for shape in shapes:
            grad, x = (data[n] for n in shape)
            weight = sides[shape]  # (out, in)
            x @ weight.T
            grad @ weight
            grad.T @ x

    return step


def alternate(
    contestants: dict[str, Callable[[], None]], rounds: int
) -> dict[str, tuple[float, float]]:
    """Median milliseconds on the clock and of the processor, in turns.

    The first round only warms up.
    """
    times = {name: [] for name in contestants}
    for _ in range(rounds + 1):
        for name, run in contestants.items():
            clock, cpu = time.perf_counter(), time.process_time()
            run()
            took = time.perf_counter() - clock, time.process_time() - cpu
            times[name].append(took)
    return {
        name: tuple(1000 * statistics.median(kind) for kind in zip(*rows[1:]))
        for name, rows in times.items()
    }


def compare_steps(rounds: int, length: int) -> None:
    if importlib.util.find_spec("transformers") is None:
        print("transformers is not installed: left out", file=sys.stderr)
        return
    torch.manual_seed(0)
    idx = torch.randint(GPT_CONFIG_124M.vocab_size, (1, length + 1))
    pair = (idx[:, :-1], idx[:, 1:].contiguous())
    times = alternate(
        {
            "transformers": transformers(*pair),
            "minigpt": ours(*pair),
            "floor": floor(idx[:, 1:]),
        },
        rounds,
    )
    print(
        f"| forward and backward, 1 x {length} | ms | minigpt is "
        "| processor, ms | minigpt is | target |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    goal = f"≥ {STEP_TARGET} x (aim {STEP_AIM} x)"
    mine = times["minigpt"]
    for name, (clock, cpu) in times.items():
        print(
            f"| {name} | {clock:.0f} | {clock / mine[0]:.2f} x "
            f"| {cpu:.0f} | {cpu / mine[1]:.2f} x "
            f"| {goal if name == 'transformers' else ''} |"
        )


def load(folder: Path, name: str, sha256: str) -> tuple[float, float]:
    """Peak memory over the weights' size, and seconds, of load_gpt2(name)."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, name, sha256],
        env=os.environ | {"HF_HUB_CACHE": str(folder)},
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    peak, seconds = map(float, done.stdout.split())
    return peak, seconds


def compare_loading(rounds: int) -> None:
    release = HUB["gpt2"]
    print("\n| loading 124M in fp32 | peak / weights | seconds |")
    print("| --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name)
        repo = f"models--{release.repo.replace('/', '--')}"
        folder = cache / repo / "snapshots" / release.revision
        save_gpt2(GPT(GPT_CONFIG_124M), folder)
        sha256 = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        for label, which in {
            "from a folder": str(folder),
            "from the hub's cache, sha256 checked": "gpt2",
        }.items():
            found = [load(cache, which, sha256) for _ in range(rounds)]
            peak, seconds = map(statistics.median, zip(*found))
            print(f"| {label} | {peak:.2f} | {seconds:.2f} |")
    print(f"| target | < {MEMORY_TARGET} | < {SECONDS_TARGET} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--length", type=int, default=256)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    warnings.filterwarnings("ignore", category=FutureWarning)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    compare_steps(args.rounds, args.length)
    compare_loading(min(args.rounds, 3))


if __name__ == "__main__":
    main()
