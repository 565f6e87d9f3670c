"""Checks of chapter 13, evaluation."""

import math

from minigpt.check._base import Hint, exercise, expect
from minigpt.evaluation import windows


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)


@exercise
def bits_per_byte(answer):
    """whatever the tokens, and for every alphabet."""
    for losses, text in (([1.0, 2.5, 0.3], "crown"), ([3.0, 1.0], "ä€😀 no")):
        got, nats, size = answer(losses, text), sum(losses), len(text.encode())
        expect(got is not None, "it returned None: return a number")
        true = nats / math.log(2) / size
        known = {
            nats / size: "these are nats per byte: a bit is ln 2 nats",
            nats * math.log(2) / size: "a bit is ln 2 = 0.69 nats, so "
            "there are more bits than nats: divide by it",
            nats / math.log(2) / len(text): "this is per character: "
            f"{text!r} has {len(text)}, and {size} bytes in UTF-8",
            nats / math.log(2) / len(losses): "this is per token",
        }
        for value, why in known.items():
            if _near(got, value) and not _near(value, true):
                raise Hint(why)
        expect(_near(got, true), f"{got:.4f} instead of {true:.4f}")


@exercise
def joined_perplexity(answer):
    """nats add up, perplexities do not."""
    for parts in ([(4.0, 300), (16.0, 100)], [(9.0, 1), (2.0, 5), (3.0, 2)]):
        got = answer(list(parts))
        expect(got is not None, "it returned None: return a number")
        total = sum(n for _, n in parts)
        nats = [math.log(p) for p, _ in parts]
        true = math.exp(
            sum(x * n for x, (_, n) in zip(nats, parts)) / total
        )
        known = {
            sum(p * n for p, n in parts) / total: "this averages the "
            "perplexities: average the losses, their logarithms",
            sum(p for p, _ in parts) / len(parts): "this averages the "
            "perplexities, and a long part weighs no more than a short one",
            math.exp(sum(nats) / len(parts)): "a long part must weigh more "
            "than a short one: by its tokens",
            math.log(true): "this is the loss: take e to it",
        }
        for value, why in known.items():
            if _near(got, value):
                raise Hint(why)
        expect(_near(got, true), f"{got:.4f} instead of {true:.4f}")


@exercise
def full_windows(answer):
    """all full, each loss once, nobody with less context."""
    for n, length, stride in ((24, 8, 4), (23, 8, 8), (9, 8, 3), (5, 8, 2)):
        got, case = answer(n, length, stride), f"for {n}, {length}, {stride}"
        expect(got is not None, "it returned None: return a list")
        counted, base = [], list(windows(n, length, stride))
        for start, first, end in got:
            want = min(length, n)
            expect(
                end - start == want,
                f"{case} the window {start} to {end} has {end - start} "
                f"tokens, not {want}",
            )
            expect(
                0 <= start <= first < end <= n,
                f"{case} the window {start}, {first}, {end} does not fit: "
                f"0 <= start <= first < end <= {n}",
            )
            counted += range(first, end)
        expect(
            len(set(counted)) == len(counted),
            f"{case} some losses are counted twice: first must stay where "
            "it was when start moves back",
        )
        expect(
            sorted(counted) == list(range(n)),
            f"{case} {n - len(counted)} losses are not counted",
        )
        context = dict(_contexts(got))
        for place, least in _contexts(base):
            expect(
                context[place] >= least,
                f"{case} token {place} sees {context[place]} tokens, and "
                f"windows gave it {least}",
            )


def _contexts(spans):
    """(loss, how many tokens it is predicted from) of each."""
    for start, first, end in spans:
        for place in range(first, end):
            yield place, place - start + 1


@exercise
def most_gained(answer):
    """the one that the context speaks for."""
    for given, free in (
        ([1.0, 4.0, 9.0, 1.5], [1.8, 4.1, 14.0, 3.5]),
        ([7.0, 2.0, 0.5, 3.0], [11.0, 5.5, 1.0, 2.0]),
    ):
        got = answer(list(given), list(free))
        gains = [b - a for a, b in zip(given, free)]
        ratios = [a / b for a, b in zip(given, free)]
        true = gains.index(max(gains))
        if got == true:
            continue
        expect(got is not None, "it returned None: return a number, 0 to 3")
        known = {
            gains.index(min(gains)): "that one gained least: the gain is "
            "the nats without the context minus those with it",
            given.index(min(given)): "that is the cheapest after the "
            "context: what would it cost anywhere?",
            ratios.index(min(ratios)): "a quotient of nats is no gain: "
            "probabilities are divided, so nats are subtracted",
        }
        raise Hint(known.get(got, f"{got} instead of {true}"))


@exercise
def wilson(answer):
    """sensible also where everything is right, or wrong."""
    cases = ((20, 20), (0, 7), (55, 200))
    for correct, total in cases:
        got = answer(correct, total)
        expect(
            got is not None and len(got) == 2,
            "return the two ends of the interval",
        )
        p, z = correct / total, 1.96
        extra = z * z / total
        middle = (p + extra / 2) / (1 + extra)
        wide = math.sqrt(p * (1 - p) * extra + extra**2 / 4) / (1 + extra)
        true = middle - wide, middle + wide
        if _near(got[0], true[0]) and _near(got[1], true[1]):
            continue
        plain = z * math.sqrt(p * (1 - p) / total)
        if _near(got[0], p - plain) and _near(got[1], p + plain):
            raise Hint(
                f"for {correct} of {total} this is p ± z standard errors, "
                f"{2 * plain:.2f} wide: the error must be that of q, not of p"
            )
        if _near(got[1], true[0]):
            raise Hint("the lower end comes first")
        if _near(got[0], p - wide) and _near(got[1], p + wide):
            raise Hint("the interval is not centered on p, but nearer to 1/2")
        raise Hint(
            f"{got[0]:.3f} to {got[1]:.3f} instead of {true[0]:.3f} to "
            f"{true[1]:.3f} for {correct} of {total}"
        )


@exercise
def longest_common(answer):
    """one row of the table is enough."""
    for a, b, true in (
        ("to be", "not to be", 5),
        ("crown", "c.r.o.w.n", 1),
        ("abc", "", 0),
        ("xx crow y", "crown xx", 4),
        ("ababab", "babaaab", 4),
    ):
        got = answer(a, b)
        expect(got is not None, "it returned None: return a length")
        if got == true:
            continue
        if (a, b) == ("crown", "c.r.o.w.n") and got == 5:
            raise Hint(
                "'crown' is in 'c.r.o.w.n' with gaps only: a piece has none, "
                "so where two characters differ the count starts again at 0"
            )
        if a == "xx crow y" and got < true:
            raise Hint(
                f"{got} for {a!r} and {b!r}: the best may lie anywhere, "
                "not only at the ends or at equal places"
            )
        raise Hint(f"{got} instead of {true} for {a!r} and {b!r}")
