"""Checks of chapter 11, fitting 8 GB."""

import math

import torch
import torch.nn.functional as F

from minigpt.check._base import Hint, exercise, expect


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-9)


def _compare(got: float, true: float, known: dict[float, str]) -> None:
    """Raise the Hint of a known wrong value, or one that names both."""
    for value, why in known.items():
        if _near(got, value) and not _near(value, true):
            raise Hint(why)
    expect(_near(got, true), f"{got:.6g} instead of {true:.6g}")


@exercise
def logits_mib(answer):
    """one number a token and word of the vocabulary."""
    for B, T, V, bits in ((5, 1024, 50257, 32), (3, 256, 65, 16)):
        got, numbers = answer(B, T, V, bits), B * T * V
        expect(got is not None, "it returned None: return a number")
        known = {
            numbers * bits / 2**20: "8 bits are a byte",
            numbers * bits / 8 / 1e6: "these are megabytes: a MiB is "
            "2**20 bytes",
            numbers * bits / 8 / 2**10: "these are KiB",
            numbers * bits / 8: "these are bytes",
            numbers / 2**20: "each number takes bits / 8 bytes",
            T * V * bits / 8 / 2**20: "this is one window only",
        }
        _compare(got, numbers * bits / 8 / 2**20, known)


@exercise
def bite(answer):
    """it fits, and it divides the batch."""
    cases = [(100, 20, 9, 12), (100, 20, 9, 7), (50, 60, 5, 8),
             (100, 98, 5, 4), (100, 20, 1, 16), (64, 0, 8, 8)]
    for free, fixed, each, batch in cases:
        got = answer(free, fixed, each, batch)
        expect(got is not None, "it returned None: return a number")
        fitting = max(0, (free - fixed) // each)
        true = max(
            (n for n in range(1, batch + 1)
             if batch % n == 0 and n <= fitting), default=0,
        )
        where = f"free {free}, fixed {fixed}, each {each}, batch {batch}"
        if got != true:
            expect(got >= 0, f"{got} windows ({where}): 0 if none fits")
            expect(got <= batch, f"{got} windows of a batch of {batch}")
            expect(
                got == 0 or batch % got == 0,
                f"{got} does not divide the batch ({where})",
            )
            expect(
                fixed + got * each <= free,
                f"{got} windows need {fixed + got * each} bytes ({where})",
            )
            raise Hint(f"{got} fits, but {true} would too ({where})")


@exercise
def chunked_mean(answer):
    """sums add up, means do not."""
    torch.manual_seed(0)
    for N, chunk, skip in ((10, 4, 0), (12, 4, 3), (5, 8, 1)):
        hidden, weight = torch.randn(N, 6), torch.randn(9, 6)
        targets = torch.randint(9, (N,))
        targets[:skip] = -100
        got = answer(hidden, weight, targets, chunk)
        expect(got is not None, "it returned None: return a number")
        sums = [
            F.cross_entropy(h @ weight.T, t, reduction="sum").item()
            for h, t in zip(hidden.split(chunk), targets.split(chunk))
        ]
        counts = [(t != -100).sum().item() for t in targets.split(chunk)]
        means = [s / n for s, n in zip(sums, counts) if n]
        known = {
            sum(means) / len(means): "this is the mean of the pieces' "
            "means, and the pieces do not have equally many targets",
            sum(sums) / N: "targets of -100 count in your divisor",
            sum(sums): "this is the sum: divide by the targets",
        }
        _compare(float(got), sum(sums) / sum(counts), known)


@exercise
def widths(answer):
    """inputs of all groups, and one group in full."""
    for layers, k in ((12, 1), (12, 4), (12, 5), (48, 7), (3, 8)):
        got, groups = answer(layers, k), math.ceil(layers / k)
        expect(got is not None, "it returned None: return a number")
        full = 16 * min(k, layers)
        known = {
            layers / k + full: "a last group that is not full has an input "
            "too: round up",
            layers // k + full: "a last group that is not full has an "
            "input too: round up",
            groups: "on the way back one group lives in full: 16 widths "
            "for each of its blocks",
            groups + 16: "a group has k blocks, and each keeps 16 widths",
            groups + k: "a block in full keeps 16 widths",
            groups + 16 * k: "there are no more blocks than layers",
            layers + full: "only the input of each group is kept",
        }
        _compare(got, groups + full, known)


@exercise
def round_by_chance(answer):
    """right on average, and always one of the two neighbors."""
    torch.manual_seed(0)
    x = torch.tensor([1.0, 1.001, -1.003, 3.1416, 1e-4, -7e3]).repeat(4000, 1)
    got = answer(x.clone())
    expect(got is not None, "it returned None: return a tensor")
    expect(got.shape == x.shape, f"shape {tuple(got.shape)}, not x's")
    got = got.float()
    expect(
        torch.equal(got, got.bfloat16().float()),
        "these are no bf16 numbers: cut the last 16 bits off",
    )
    bits = x.view(torch.int32)
    down = (bits & -(2**16)).view(torch.float32)  # nearer to 0
    up = ((bits & -(2**16)) + 2**16).view(torch.float32)
    expect(
        torch.equal(got[:, 0], x[:, 0]),
        "1.0 is a bf16 number and must stay: the noise ends below 2**16",
    )
    expect(
        ((got == down) | (got == up)).all(),
        "a number became neither of its two neighbors: the noise is from "
        "0 to 2**16 - 1",
    )
    if torch.equal(got, down):
        raise Hint("every number was cut: add the noise before the cut")
    if torch.equal(got, x.bfloat16().float()):
        raise Hint("this rounds to the nearest, always the same way")
    same = (got == got[0]).all(0)[1:]
    expect(not same.all(), "equal numbers need a noise of their own each")
    share = (got == up).double().mean(0)[1:]
    wanted = ((x - down) / (up - down)).double().mean(0)[1:]
    expect(
        (share - wanted).abs().max() < 0.05,
        "the chance to go up must be the part that is cut off: draw all "
        "of 0 to 2**16 - 1 equally often",
    )
