"""Known wrong answers to the exercises of chapter 3, and their hints."""


def _calls(name, *answers):
    """(check, code, hint) for each (code, hint); f is what is checked."""
    return [
        (name, f"{SETUP}\n{code}\ncheck.{name}(f)\n", hint)
        for code, hint in answers
    ]


SETUP = """
import math
from minigpt import check
from minigpt.attention import attention, causal_mask
INF = float("inf")
def attend(divide=4, fill=-INF, hide=lambda m: ~m, dim=-1, swap=False):
    def f(q, k, v, mask):
        if swap:
            q, k = k, q
        s = (q @ k.transpose(-2, -1) / divide).masked_fill(hide(mask), fill)
        w = s.softmax(dim=dim)
        return w @ v, w
    return f
def window(before, after=0):
    def f(t, w):
        n = torch.arange(t)
        back = n[:, None] - n
        return (back < w + before) & (back >= -after)
    return f
def by_place(shift, size):
    def f(t):
        k = torch.eye(t)
        return size * t**0.5 * k.roll(shift, 0), k
    return f
"""

WRONG = [
    *_calls(
        "causal_mask",
        ("f = lambda t: None", "returned None"),
        ("f = lambda t: [[True]]", "returned a list"),
        ("f = lambda t: causal_mask(t)[0]", "the shape is (5,)"),
        ("f = lambda t: causal_mask(t)[None]", "the shape is (1, 5, 5)"),
        ("f = lambda t: causal_mask(t).float()", "return booleans"),
        ("f = lambda t: causal_mask(t).T", "this is the upper triangle"),
        ("f = lambda t: ~causal_mask(t)", "True means may look"),
        ("f = lambda t: causal_mask(t).tril(-1)", "the diagonal is False"),
        (
            "f = lambda t: torch.ones(t, t).tril(1).bool()",
            "one diagonal too large",
        ),
        (
            "f = lambda t: torch.ones(t, t).bool()",
            "row 0, column 1 is True: token 0 must not look at token 1",
        ),
        ("f = lambda t: causal_mask(5)", "for 1 tokens the shape is (5, 5)"),
    ),
    *_calls(
        "fading_average",
        ("f = lambda t, r: None", "returned None"),
        (
            "f = lambda t, r: torch.full((t, t), 1 / t)",
            "the future must have weight 0",
        ),
        (
            "n = torch.arange(4)\n"
            "f = lambda t, r: (r ** (n[:, None] - n)).tril()",
            "the rows do not sum to 1",
        ),
        (
            "n = torch.arange(4)\n"
            "w = (0.5 ** (n[:, None] - n)).tril()\n"
            "f = lambda t, r: w / w.sum(dim=0)",
            "the columns sum to 1",
        ),
        (
            "n = torch.arange(4)\n"
            "w = (2.0 ** (n[:, None] - n)).tril()\n"
            "f = lambda t, r: w / w.sum(dim=1, keepdim=True)",
            "grow with the distance",
        ),
        (
            "w = torch.ones(4, 4).tril()\n"
            "f = lambda t, r: w / w.sum(dim=1, keepdim=True)",
            "this is the even average",
        ),
        ("f = lambda t, r: torch.eye(t)", "it should be 1/7, 2/7, 4/7"),
        (
            "n = torch.arange(4)\n"
            "w = (0.5 ** (n[:, None] - n)).tril()\n"
            "f = lambda t, r: w / w.sum(dim=1, keepdim=True)",
            "at r = 1 all of the past counts alike",
        ),
    ),
    *_calls(
        "window_mask",
        ("f = lambda t, w: None", "returned None"),
        ("f = lambda t, w: window(0)(t, w).int()", "return booleans"),
        ("f = lambda t, w: causal_mask(t)", "this is the causal mask"),
        ("f = window(1)", "sees 4 tokens: count the token itself"),
        ("f = window(-1)", "sees only 2 tokens"),
        ("f = window(0, after=2)", "must still be causal"),
        ("f = lambda t, w: window(0)(t, w).T & True", "tokens look ahead"),
        (
            "f = lambda t, w: causal_mask(t).T & (window(0, 2)(t, w))",
            "swap rows and columns",
        ),
        (
            "f = lambda t, w: ~(causal_mask(t) & window(0)(t, w))",
            "True means may look",
        ),
        (
            "f = lambda t, w: window(0)(t, w) & causal_mask(t).tril(-1)",
            "the diagonal is False",
        ),
        ("f = lambda t, w: torch.eye(t).bool()", "row 1, column 0 is False"),
        ("f = lambda t, w: window(0)(t, 3)", "wrong for 6 tokens"),
    ),
    *_calls(
        "scaled_attention",
        ("f = lambda q, k, v, m: None", "returned None"),
        ("f = lambda *a: attention(*a)[0]", "return two things"),
        (
            "f = lambda q, k, v, m: (v, q.transpose(1, 2) @ k)",
            "the weights have shape (2, 16, 16)",
        ),
        ("f = attend(divide=1)", "you forgot to divide"),
        ("f = attend(divide=16)", "you divided by d, not by its square"),
        ("f = attend(divide=1 / 4)", "you multiplied"),
        ("f = attend(divide=5 ** 0.5)", "the square root of T"),
        (
            "def f(q, k, v, m):\n"
            "    w = attention(q, k, v)[1] * m\n"
            "    return w @ v, w",
            "the mask comes after the softmax",
        ),
        ("f = lambda q, k, v, m: attention(q, k, v)", "did not use the mask"),
        ("f = attend(dim=-2)", "the softmax is over the queries"),
        ("f = attend(hide=lambda m: m)", "you hid the past"),
        ("f = attend(fill=0)", "fill with minus infinity"),
        ("f = attend(swap=True)", "queries and keys are swapped"),
        ("f = attend(divide=7)", "the weights of token 1 are"),
        (
            "f = lambda *a: (a[0], attention(*a)[1])",
            "the mixture has shape (2, 5, 16)",
        ),
        (
            "f = lambda *a: (a[2], attention(*a)[1])",
            "the mixture is not",
        ),
    ),
    *_calls(
        "previous_token",
        ("f = lambda t: None", "returned None"),
        ("f = lambda t: torch.eye(t)", "return two tensors"),
        (
            "f = lambda t: (torch.eye(t), torch.ones(t, 2))",
            "both should be (6, d)",
        ),
        ("f = by_place(0, 50)", "each token looks at itself"),
        (
            "def f(t):\n"
            "    q = torch.ones(t, 1) * 50 * t\n"
            "    return q, -torch.arange(t)[:, None].float()",
            "tokens look at the first one",
        ),
        ("f = by_place(1, 1)", "multiply the queries"),
        (
            "f = lambda t: (torch.zeros(t, t), torch.eye(t))",
            "token 5 gives 0.17 to the one before it",
        ),
        (
            "f = lambda t: [p[:, :6] for p in by_place(1, 20)(t)]",
            "return two tensors",
        ),
        (
            "f = lambda t: tuple(p[:, :6] for p in by_place(1, 20)(t))",
            "right for 6 tokens, not for 12",
        ),
    ),
]
