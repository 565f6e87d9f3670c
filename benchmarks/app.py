"""How soon the app answers, and how fairly it serves eight at once.

    python benchmarks/app.py [--preset mini] [--users 8] [--new 100]

The app runs in a process of its own, on 2 threads, with random weights, and
is asked over the network by Gradio's client, one after another and then
all at once. The first token is counted from the click to the moment at
which it has arrived.

Targets: 0.3 s to the first token of one user; eight at once all served,
the last within 1.5 x the time of the first.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import save_file

from minigpt import GPT, PRESETS, CharTokenizer, GPTConfig

FIRST_TARGET, FAIR_TARGET = 0.3, 1.5
KNOBS = (0.8, 0, 0.95, 0)  # temperature, top-k, top-p, min-p
SERVE = """
import sys, torch
torch.set_num_threads(2)
from minigpt.app import serve
serve(sys.argv[1], port=int(sys.argv[2]))
"""


def model_folder(preset: str, folder: Path) -> Path:
    """A model of this shape, untrained, as `minigpt export` writes it."""
    torch.manual_seed(0)
    tokenizer = CharTokenizer([chr(code) for code in range(32, 97)])
    model = GPT(GPTConfig.preset(preset, vocab_size=tokenizer.vocab_size))
    config = {"precision": "fp32", "train": {}}
    config["model"] = model.config.to_dict()
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.save(folder / "tokenizer.json")
    state = model.state_dict()
    if model.config.tie_weights:
        del state["lm_head.weight"]
    save_file(state, folder / "model.safetensors")
    return folder


def served(folder: Path) -> tuple[subprocess.Popen, str]:
    """The app in a process of its own, and its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {"OMP_NUM_THREADS": "2"}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(folder), str(port)], env=env
    )
    address = f"http://127.0.0.1:{port}/"
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return process, address
        except OSError:
            if process.poll() is not None:
                raise SystemExit("the app did not start") from None
            time.sleep(0.1)


def visit(client, new: int, seed: int) -> tuple[float, float]:
    """Seconds to the first token, and to the end of the text."""
    start, first = time.perf_counter(), None
    prompt = "ROMEO: "
    job = client.submit(prompt, *KNOBS, new, 1, seed, api_name="/write")
    for _, box, *_ in job:
        if first is None and len(box["value"]) > len(prompt):
            first = time.perf_counter() - start
    assert len(box["value"]) == len(prompt) + new, "not all was written"
    return first, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="mini", choices=tuple(PRESETS))
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--new", type=int, default=100)
    args = parser.parse_args()
    from gradio_client import Client

    with tempfile.TemporaryDirectory() as place:
        process, address = served(model_folder(args.preset, Path(place)))
        try:
            clients = [
                Client(address, verbose=False) for _ in range(args.users)
            ]
            visit(clients[0], args.new, 0)  # once to warm up
            alone = [visit(c, args.new, 1) for c in clients]
            with ThreadPoolExecutor(args.users) as crowd:
                together = list(crowd.map(
                    lambda c: visit(c, args.new, 1), clients
                ))
        finally:
            process.terminate()
            process.wait()
    print(f"{args.preset}, 2 threads, torch {torch.__version__}\n")
    print(f"| | first token | {args.new} tokens | target |")
    print("| --- | ---: | ---: | ---: |")
    first, whole = (statistics.median(x) for x in zip(*alone))
    print(f"| one user (median of {len(alone)}) | {first:.3f} s | "
          f"{whole:.2f} s | first token ≤ {FIRST_TARGET} s |")
    firsts, wholes = map(sorted, zip(*together))
    print(f"| {args.users} at once, the first to be served | "
          f"{firsts[0]:.3f} s | {wholes[0]:.2f} s | |")
    print(f"| {args.users} at once, the last | {firsts[-1]:.3f} s | "
          f"{wholes[-1]:.2f} s | {wholes[-1] / wholes[0]:.2f} x the first's "
          f"time, ≤ {FAIR_TARGET} x |")


if __name__ == "__main__":
    main()
