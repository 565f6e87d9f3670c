"""Wrong answers to the exercises of chapter 11, and the hint each must get."""

START = """
import math
import torch
import torch.nn.functional as F
def by_mean(h, w, t, c):
    parts = [F.cross_entropy(a @ w.T, b)
             for a, b in zip(h.split(c), t.split(c)) if (b != -100).any()]
    return sum(parts) / len(parts)
def all_of(h, w, t):
    return F.cross_entropy(h @ w.T, t, reduction="sum")
def rounded(x, most=2**16, noise=None):
    bits = x.view(torch.int32)
    noise = noise or torch.randint(most, bits.shape, dtype=torch.int32)
    return ((bits + noise) & -(2**16)).view(torch.float32).bfloat16()
def cut(x):
    return (x.view(torch.int32) & -(2**16)).view(torch.float32)
"""
WRONG = [
    (name, START + f"check.{name}({code})", hint)
    for name, code, hint in [
        ("logits_mib", "lambda B, T, V, b: None", "returned None"),
        ("logits_mib", "lambda B, T, V, b: B*T*V*b / 2**20", "are a byte"),
        ("logits_mib", "lambda B, T, V, b: B*T*V*b / 8e6", "megabytes"),
        ("logits_mib", "lambda B, T, V, b: T*V*b / 8 / 2**20", "one window"),
        ("logits_mib", "lambda B, T, V, b: B*T*V / 2**20", "bits / 8"),
        ("bite", "lambda f, x, e, b: None", "returned None"),
        ("bite", "lambda f, x, e, b: min(b, (f - x) // e)", "does not divide"),
        ("bite", "lambda f, x, e, b: f // e", "divide"),
        ("bite", "lambda f, x, e, b: b", "windows need"),
        ("bite", "lambda f, x, e, b: 1 if x + e <= f else 0", "would too"),
        ("bite", "lambda f, x, e, b: max([n for n in range(1, b + 1) "
         "if b % n == 0 and n * e <= f - x], default=-1)", "0 if none"),
        ("chunked_mean", "lambda h, w, t, c: None", "returned None"),
        ("chunked_mean", "by_mean", "mean of the pieces'"),
        ("chunked_mean", "lambda h, w, t, c: all_of(h, w, t)", "is the sum"),
        ("chunked_mean", "lambda h, w, t, c: all_of(h, w, t) / len(t)",
         "-100 count"),
        ("widths", "lambda L, k: None", "returned None"),
        ("widths", "lambda L, k: L / k + 16 * min(k, L)", "round up"),
        ("widths", "lambda L, k: L // k + 16 * min(k, L)", "round up"),
        ("widths", "lambda L, k: math.ceil(L / k)", "lives in full"),
        ("widths", "lambda L, k: math.ceil(L / k) + k", "keeps 16 widths"),
        ("widths", "lambda L, k: math.ceil(L / k) + 16 * k", "no more blocks"),
        ("widths", "lambda L, k: L + 16 * min(k, L)", "each group is kept"),
        ("round_by_chance", "lambda x: None", "returned None"),
        ("round_by_chance", "lambda x: x", "no bf16 numbers"),
        ("round_by_chance", "cut", "every number was cut"),
        ("round_by_chance", "lambda x: x.bfloat16()", "to the nearest"),
        ("round_by_chance", "lambda x: rounded(x, 2**18)", "must stay"),
        ("round_by_chance", "lambda x: rounded(x, noise=60_000)",
         "a noise of their own"),
        ("round_by_chance", "lambda x: rounded(x, 2**15)", "equally often"),
        ("round_by_chance", "lambda x: x[0].bfloat16()", "shape"),
    ]
]
