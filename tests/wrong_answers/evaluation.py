"""Wrong answers to the exercises of chapter 13, and the hint each must get."""

START = """
import math
from minigpt.evaluation import windows
def lcs(a, b, reset=True):
    best, row = 0, [0] * (len(b) + 1)
    for x in a:
        new = [0]
        for j, y in enumerate(b):
            other = 0 if reset else max(row[j + 1], new[-1])
            new.append(row[j] + 1 if x == y else other)
        row, best = new, max(best, *new)
    return best
def same_places(a, b):
    best = run = 0
    for x, y in zip(a, b):
        run = run + 1 if x == y else 0
        best = max(best, run)
    return best
"""
WRONG = [
    (name, START + f"check.{name}({code})", hint)
    for name, code, hint in [
        ("bits_per_byte", "lambda n, t: None", "returned None"),
        ("bits_per_byte", "lambda n, t: sum(n) / len(t.encode())", "ln 2"),
        (
            "bits_per_byte",
            "lambda n, t: sum(n) * math.log(2) / len(t.encode())",
            "divide by it",
        ),
        (
            "bits_per_byte",
            "lambda n, t: sum(n) / math.log(2) / len(t)",
            "per character",
        ),
        (
            "bits_per_byte",
            "lambda n, t: sum(n) / math.log(2) / len(n)",
            "per token",
        ),
        ("joined_perplexity", "lambda p: None", "returned None"),
        (
            "joined_perplexity",
            "lambda p: sum(a * n for a, n in p) / sum(n for _, n in p)",
            "average the losses",
        ),
        (
            "joined_perplexity",
            "lambda p: sum(a for a, _ in p) / len(p)",
            "weighs no more",
        ),
        (
            "joined_perplexity",
            "lambda p: math.exp(sum(math.log(a) for a, _ in p) / len(p))",
            "must weigh more",
        ),
        ("full_windows", "lambda n, T, s: list(windows(n, T, s))", "tokens"),
        (
            "full_windows",
            "lambda n, T, s: [(max(0, min(a, n - T)), "
            "max(0, min(a, n - T)), b) for a, f, b in windows(n, T, s)]",
            "counted twice",
        ),
        (
            "full_windows",
            "lambda n, T, s: list(windows(n, T, s))[:1]",
            "not counted",
        ),
        ("most_gained", "lambda a, b: None", "returned None"),
        ("most_gained", "lambda a, b: a.index(min(a))", "cheapest after"),
        (
            "most_gained",
            "lambda a, b: min(range(4), key=lambda i: b[i] - a[i])",
            "gained least",
        ),
        (
            "most_gained",
            "lambda a, b: min(range(4), key=lambda i: a[i] / b[i])",
            "subtracted",
        ),
        (
            "wilson",
            "lambda k, n, z=1.96: (k / n - z * math.sqrt(k / n * (1 - k / n)"
            " / n), k / n + z * math.sqrt(k / n * (1 - k / n) / n))",
            "the error must be that of q",
        ),
        ("wilson", "lambda k, n, z=1.96: (0.9, 1.0)", "instead of"),
        ("wilson", "lambda k, n, z=1.96: None", "two ends"),
        ("longest_common", "lambda a, b: lcs(a, b, reset=False)", "gaps"),
        ("longest_common", "same_places", "instead of"),
        (
            "longest_common",
            "lambda a, b: next((n for n in range(len(a), 0, -1) "
            "if a[-n:] in b), 0) if len(a) == 9 else lcs(a, b)",
            "the best may lie anywhere",
        ),
    ]
]
