"""How quickly the tokenizer learns and encodes, and in how much memory.

    python benchmarks/tokenizer.py [--rounds 5] [--megabytes 100]

One core, process time, medians of the rounds. Targets: 1,024 tokens learned
from tiny Shakespeare in under 8 s; encoding at 1 MB/s or more, the words not
yet seen; `encode_iterable` over 100 MB in under 50 MB of extra memory.
The words of that long text are made up as it goes, a new one in twenty, so
that the memory of words is filled and emptied.
"""

import argparse
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

from minigpt.text import is_shakespeare, load_text
from minigpt.tokenizer import (
    BPETokenizer,
    apply_merges,
    gpt2_tokenizer,
    merge_pair,
    split_words,
)


def seconds(run: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def learn_slowly(text: str, num_merges: int) -> None:
    """The chapter's first trainer: all pairs anew for every merge."""
    words = Counter(split_words(text))
    spelled = [list(word.encode()) for word in words]
    for new in range(256, 256 + num_merges):
        counts = Counter()
        for ids, often in zip(spelled, words.values(), strict=True):
            for pair in pairwise(ids):
                counts[pair] += often
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        spelled = [merge_pair(ids, best, new) for ids in spelled]


def apply_slowly(ids: list[int], ranks: dict[tuple[int, int], int]) -> None:
    """The chapter's first encoder: the whole word for every merge."""
    while known := [pair for pair in pairwise(ids) if pair in ranks]:
        first = min(known, key=ranks.get)
        ids = merge_pair(ids, first, ranks[first])


def race(merges: list[tuple[int, int]], byte_order: bytes) -> None:
    """One word of 100,000 letters, by the slow loop and by the chain."""
    letters = random.Random(0).choices(b"etaoinshr", k=100_000)
    ids = [byte_order.index(letter) for letter in letters]
    ranks = {pair: 256 + n for n, pair in enumerate(merges)}
    slow = seconds(lambda: apply_slowly(ids, ranks), 1)
    fast = seconds(lambda: apply_merges(ids, ranks), 1)
    print(
        f"| 100,000 letters in one word, {len(merges):,} merges | "
        f"{fast:.2f} s, slow loop {slow:.1f} s | |"
    )


def peak_mb() -> float:
    """The most memory this process has held, in MB; Linux."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(row for row in status if row.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


def long_text(text: str, megabytes: int) -> Iterator[str]:
    """Lines of the text, again and again, with words never seen before."""
    dice, lines, size = random.Random(0), text.splitlines(), 0
    while size < megabytes * 1e6:
        line = dice.choice(lines)
        if dice.random() < 0.3:
            line += " " + "".join(dice.choices("abcdefghijkl", k=12))
        size += len(line) + 1
        yield line + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=100)
    args = parser.parse_args()
    text = load_text("shakespeare")
    if not is_shakespeare(text):
        raise SystemExit("tiny Shakespeare is not at hand: connect once")
    size = len(text.encode()) / 1e6

    fast = seconds(lambda: BPETokenizer.train(text, 1024), args.rounds)
    slow = seconds(lambda: learn_slowly(text, 1024 - 256), 1)
    print("| what | result | target |\n| --- | ---: | ---: |")
    print(f"| learn 1,024 tokens | {fast:.2f} s | < 8 s |")
    print(
        "| the same, counting all pairs anew | "
        f"{slow:.0f} s, {slow / fast:.0f} x | |"
    )
    merges = BPETokenizer.from_gpt2()
    small = BPETokenizer.train(text, 1024)
    for tokenizer in (small, merges):
        race(tokenizer.merges, tokenizer.byte_order)

    def unseen() -> None:
        merges._words.clear()
        merges.encode(text)

    speeds = {
        "encode, GPT-2's merges, no word seen before": unseen,
        "the same, every word seen": lambda: merges.encode(text),
        "tiktoken": lambda: gpt2_tokenizer().encode(text),
    }
    for name, run in speeds.items():
        speed = size / seconds(run, args.rounds)
        target = "" if name == "tiktoken" else "≥ 1 MB/s"
        print(f"| {name} | {speed:.1f} MB/s | {target} |")

    before, start = peak_mb(), time.process_time()
    lines = long_text(text, args.megabytes)
    count = sum(1 for _ in merges.encode_iterable(lines))
    taken = time.process_time() - start
    print(
        f"| encode_iterable, {args.megabytes} MB, {count:,} tokens | "
        f"{peak_mb() - before:.0f} MB more, "
        f"{args.megabytes / taken:.1f} MB/s | < 50 MB |"
    )


if __name__ == "__main__":
    main()
