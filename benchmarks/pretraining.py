"""How fast text becomes shards, and what the loader costs a step.

    python benchmarks/pretraining.py [--megabytes 40] [--steps 30] [--record]

Speed is that of `build_shards` with one process on GPT-2's tokens, all of
its work included, by the processor's clock; the loader is timed against
optimizer steps of the pocket model on one thread, the cheapest steps that
the course has. Prints a table; --record also keeps it in book/runs, where
chapter 12 reads it.
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
from minigpt.runs import describe_machine, write_record
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


def shard_speed(megabytes: int, out: Path) -> dict:
    """Megabytes of text a second, from documents to shards on the disk."""
    tokenizer, settings = gpt2_tokenizer(), ShardSettings(shard_tokens=2**22)
    seconds, manifest = seconds_of(
        lambda: build_shards(documents(megabytes), tokenizer, out, settings)
    )
    return {"kind": "shards", "mb_per_s": manifest["bytes"] / seconds / 1e6}


def loader_share(steps: int, shards: Path) -> dict:
    """What a batch costs, also as a share of the cheapest step there is."""
    recipe = RECIPES["pocket"]
    plan = ShardWindows(Shards(shards), recipe.batch_size, 64, seed=0)
    making, _ = seconds_of(lambda: [plan.batch(n) for n in range(steps)])
    torch.manual_seed(0)
    # the windows hold GPT-2's ids; a step costs least with letters
    model = GPT(GPTConfig.preset("pocket", vocab_size=65))
    step = TrainStep(model, recipe, "cpu", "bf16")
    x = torch.randint(65, (recipe.batch_size, 64))
    step(0, [(x, x)])
    stepping, _ = seconds_of(
        lambda: [step(n, [(x, x)]) for n in range(steps)]
    )
    return {
        "kind": "loader",
        "microseconds": 1e6 * making / steps,
        "percent_of_step": 100 * making / stepping,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "shards"
        built = shard_speed(options.megabytes, out)
        loaded = loader_share(options.steps, out)
    print("| what | result | target |\n| --- | ---: | ---: |")
    speed = built["mb_per_s"]
    print(f"| text to shards, MB/s per core | {speed:.1f} | >= 5 |")
    print(f"| making a batch, µs | {loaded['microseconds']:.0f} | |")
    share = loaded["percent_of_step"]
    print(f"| share of a pocket step, % | {share:.2f} | < 2 |")
    if options.record:
        header = {
            "command": "python benchmarks/pretraining.py --record",
            **describe_machine("cpu"),
        }
        rows = [
            {k: v if k == "kind" else round(v, 2) for k, v in row.items()}
            for row in (built, loaded)
        ]
        print("wrote", write_record("pretraining", header, rows).name)


if __name__ == "__main__":
    main()
