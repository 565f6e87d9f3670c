"""How long evaluation takes: overlaps, windows in batches, HellaSwag.

    python benchmarks/evaluation.py [--gpt2]

Without flags, a minute on one core. --gpt2 also times the 124M shape with
random weights on 8 items of HellaSwag's length and says what 10,042 take.
"""

import argparse
import time
from functools import partial

import torch

from minigpt import GPT, GPTConfig, ToyLanguage
from minigpt.evaluation import (
    HELLASWAG_ITEMS,
    Item,
    SuffixIndex,
    score_endings,
    token_losses,
)
from minigpt.text import CharTokenizer, best_device


def seconds(function, repeats: int = 3) -> float:
    """The fastest of a few runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def by_search(sample: str, text: str) -> int:
    """The longest overlap by Python's own substring search."""
    best = 0
    for start in range(len(sample)):
        while start + best < len(sample) and (
            sample[start : start + best + 1] in text
        ):
            best += 1
    return best


def overlaps() -> None:
    text = ToyLanguage().sample(1_000_000)
    sample = ToyLanguage().sample(2_000, seed=1)
    print(f"sorting 1 MB: {seconds(lambda: SuffixIndex(text)):.2f} s")
    index = SuffixIndex(text)
    assert index.longest(sample).length == by_search(sample, text)
    fast = seconds(lambda: index.longest(sample))
    slow = seconds(lambda: by_search(sample, text), 1)
    print(f"a sample of 2,000 characters: {1000 * fast:.0f} ms, by 'in' "
          f"{1000 * slow:.0f} ms, {slow / fast:.0f} times as long")


def windows_in_batches() -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(65, 64, 128, 4, 4))
    ids = torch.randint(65, (20_000,))
    base = None
    for batch_size in (1, 16, 64):
        took = seconds(
            partial(token_losses, model, ids, batch_size=batch_size), 2
        )
        base = base or took
        print(f"pocket's shape, {batch_size:2} windows at once: "
              f"{len(ids) / took:,.0f} tokens/s, {base / took:.1f} x")


def hellaswag() -> None:
    device = best_device()
    model = GPT(GPTConfig(50257, 1024, 768, 12, 12)).to(device)
    letters = CharTokenizer("abcdefgh ")
    context, ending = "abcdefgh" * 5, "abcdefgh" * 4  # about as many tokens
    items = [Item(context, (ending,) * 4, 0)] * 8
    took = seconds(lambda: score_endings(model, letters, items, 32), 2)
    total = took / len(items) * HELLASWAG_ITEMS
    print(f"124M on {device}: {took / len(items):.2f} s an item, all "
          f"{HELLASWAG_ITEMS:,} in about {total / 60:.0f} minutes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpt2", action="store_true")
    flags = parser.parse_args()
    overlaps()
    windows_in_batches()
    if flags.gpt2:
        hellaswag()
