"""How fast text becomes shards, and what the loader costs a step.

    python benchmarks/pretraining.py [--megabytes 40] [--steps 30]

Speed is that of `build_shards` with one process on GPT-2's tokens, all of
its work included, by the processor's clock; the loader is timed against
optimizer steps of the pocket model on one thread, the cheapest steps that
the course has, without its threads and with them. Prints a table.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from minigpt.model import GPT, GPTConfig
from minigpt.pretraining import Shards, ShardWindows
from minigpt.shards import ShardSettings, build_shards
from minigpt.sources import Documents
from minigpt.text import load_text
from minigpt.tokenizer import gpt2_tokenizer
from minigpt.training import RECIPES, TrainStep


def seconds_of(work: Callable[[], object]) -> tuple[float, object]:
    """Processor seconds of a call, and what it returns."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def documents(megabytes: int) -> Documents:
    """Shakespeare in documents of 4,000 characters, over and over."""
    text = load_text("shakespeare")
    pages = [text[at : at + 4000] for at in range(0, len(text), 4000)]
    count = megabytes * 10**6 // 4000
    return Documents(
        "pages",
        lambda start: itertools.islice(itertools.cycle(pages), start, count),
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    tokenizer = gpt2_tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "shards"
        seconds, manifest = seconds_of(
            lambda: build_shards(
                documents(options.megabytes),
                tokenizer,
                out,
                ShardSettings(shard_tokens=2**22),
            )
        )
        print("| what | result | target |\n| --- | ---: | ---: |")
        speed = manifest["bytes"] / seconds / 1e6
        print(f"| text to shards, MB/s per core | {speed:.1f} | >= 5 |")
        recipe = RECIPES["pocket"]
        plan = ShardWindows(Shards(out), recipe.batch_size, 64, seed=0)
        making, _ = seconds_of(
            lambda: [plan.batch(n) for n in range(options.steps)]
        )
        torch.manual_seed(0)
        # the windows hold GPT-2's ids; a step costs least with letters
        model = GPT(GPTConfig.preset("pocket", vocab_size=65))
        step = TrainStep(model, recipe, "cpu", "bf16")
        x = torch.randint(65, (recipe.batch_size, 64))
        step(0, [(x, x)])
        stepping, _ = seconds_of(
            lambda: [step(n, [(x, x)]) for n in range(options.steps)]
        )
        share = 100 * making / stepping
        each = 1e6 * making / options.steps
        print(f"| making a batch, µs | {each:.0f} | |")
        print(f"| share of a pocket step, % | {share:.2f} | < 2 |")


if __name__ == "__main__":
    main()
