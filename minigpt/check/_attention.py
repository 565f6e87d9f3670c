"""Checks of chapter 3, self-attention."""

import math

import torch
from torch import Tensor

from minigpt.attention import attention
from minigpt.attention import causal_mask as lower_triangle

from ._base import exercise, expect


def _matrix(answer: object, num_tokens: int) -> Tensor:
    """The answer, if it is a (T, T) tensor; else a Hint."""
    expect(answer is not None, "returned None: return a tensor")
    expect(
        isinstance(answer, Tensor),
        f"returned a {type(answer).__name__}: return a tensor",
    )
    shape, want = tuple(answer.shape), (num_tokens, num_tokens)
    expect(
        shape == want,
        f"for {num_tokens} tokens the shape is {shape}, it should be {want}: "
        "a row for each token that looks, a column for each looked at",
    )
    return answer


def _expect_bool(mask: Tensor) -> None:
    expect(
        mask.dtype == torch.bool,
        f"the mask holds {mask.dtype}: return booleans, a comparison makes "
        "them",
    )


@exercise
def causal_mask(answer):
    """the lower triangle, diagonal included."""
    mask, right = _matrix(answer(5), 5), lower_triangle(5)
    _expect_bool(mask)
    mistakes = {
        "position 0 sees position 1, which is the future: this is the upper "
        "triangle, rows are who looks and columns are looked at": right.T,
        "this marks what is hidden: True means may look": ~right,
        "the diagonal is False: a token may look at itself, and the first "
        "has nothing else": right.tril(-1),
        "position 0 sees position 1: your triangle is one diagonal too "
        "large": right.T.tril(1) | right,
    }
    for hint, wrong in mistakes.items():
        expect(not torch.equal(mask, wrong), hint)
    for t, s in (mask != right).nonzero().tolist():
        may = "may" if s <= t else "must not"
        expect(
            False,
            f"row {t}, column {s} is {bool(mask[t, s])}: "
            f"token {t} {may} look at token {s}",
        )
    _matrix(answer(1), 1)


@exercise
def fading_average(answer):
    """each step back counts r times as much, and rows sum to 1."""
    weights = _matrix(answer(4, 0.5), 4)
    mask = lower_triangle(4)
    places = torch.arange(4.0)
    back = places[:, None] - places  # (T, T)
    raw = torch.where(mask, 0.5**back, 0.0)
    future = weights.float().triu(1).abs().max().item()
    expect(
        future == 0,
        f"token 0 gives weight {weights[0, 1]:.2f} to token 1: the future "
        "must have weight 0",
    )
    weights = weights.float()
    expect(
        not torch.allclose(weights, raw),
        "the proportions are right, but the rows do not sum to 1: divide "
        "each row by its sum",
    )
    expect(
        not torch.allclose(weights, raw / raw.sum(dim=0)),
        "the columns sum to 1: divide each row by its sum, with "
        "sum(dim=1, keepdim=True)",
    )
    ahead = torch.where(mask, 2.0**back, 0.0)
    expect(
        not torch.allclose(weights, ahead / ahead.sum(dim=1, keepdim=True)),
        "your weights grow with the distance: r to the power of n, where n "
        "is how far back",
    )
    even = mask / mask.sum(dim=1, keepdim=True)
    expect(
        not torch.allclose(weights, even),
        "this is the even average: r = 0.5 should make the past fade",
    )
    right = raw / raw.sum(dim=1, keepdim=True)
    expect(
        torch.allclose(weights, right, atol=1e-5),
        f"row 2 at r = 0.5 is {[round(w, 2) for w in weights[2].tolist()]}: "
        "it should be 1/7, 2/7, 4/7, 0",
    )
    one = _matrix(answer(4, 1.0), 4)
    expect(
        torch.allclose(one.float(), even, atol=1e-5),
        "at r = 1 all of the past counts alike, yours does not",
    )


@exercise
def window_mask(answer):
    """itself and window - 1 before it, never ahead."""
    mask = _matrix(answer(6, 3), 6)
    _expect_bool(mask)
    causal = lower_triangle(6)

    def band(width):
        return causal & ~causal.tril(-width)

    right = band(3)
    seen = mask[5].sum().item()
    mistakes = {
        "this is the causal mask: forget what is too far back": causal,
        f"with window=3 token 5 sees {seen} tokens: count the token "
        "itself": band(4),
        f"with window=3 token 5 sees only {seen} tokens: it may see itself "
        "and two more": band(2),
        "tokens look ahead: a window on both sides must still be causal": right
        | right.T,
        "tokens look ahead instead of back: swap rows and columns": right.T,
        "this marks what is hidden: True means may look": ~right,
        "the diagonal is False: window=1 should be just the diagonal": right
        & ~band(1),
    }
    for hint, wrong in mistakes.items():
        expect(not torch.equal(mask, wrong), hint)
    for t, s in (mask != right).nonzero().tolist():
        expect(
            False, f"at window=3, row {t}, column {s} is {bool(mask[t, s])}"
        )
    for window in (1, 6, 9):
        want = causal & ~causal.tril(-window)
        expect(
            torch.equal(answer(6, window), want),
            f"right for window=3, wrong for 6 tokens and window={window}",
        )


@exercise
def scaled_attention(answer):
    """scaled, masked, softmaxed over the keys, mixed."""
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 2, 5, 16, generator=g)  # each (B, T, d)
    v = torch.randn(2, 5, 3, generator=g)  # (B, T, dv)
    mask = lower_triangle(5)
    result = answer(q, k, v, mask)
    expect(result is not None, "returned None: return out, weights")
    expect(
        isinstance(result, tuple) and len(result) == 2,
        "return two things: the mixture and the weights",
    )
    out, weights = result
    expect(
        tuple(weights.shape) == (2, 5, 5),
        f"the weights have shape {tuple(weights.shape)}, they should have "
        "(2, 5, 5): a row for each query, a column for each key",
    )
    raw = q @ k.transpose(-2, -1)  # (B, T, T)
    scores = raw / 4
    hide = ~mask

    def soft(s, dim=-1, low=-math.inf):
        return s.masked_fill(hide, low).softmax(dim=dim)

    mistakes = {
        "you forgot to divide by the square root of d": soft(raw),
        "you divided by d, not by its square root": soft(raw / 16),
        "you multiplied by the square root of d: divide": soft(raw * 4),
        "you divided by the square root of T: d is the length of a query, "
        "q.shape[-1]": soft(raw / math.sqrt(5)),
        "the mask comes after the softmax, so the rows no longer sum to 1: "
        "mask the scores": scores.softmax(dim=-1) * mask,
        "you did not use the mask": scores.softmax(dim=-1),
        "the softmax is over the queries, dim=-2: each row must sum to 1, "
        "dim=-1": soft(scores, dim=-2),
        "you hid the past: the mask is True where a token may look, so fill "
        "where it is False": scores.masked_fill(mask, -math.inf).softmax(
            dim=-1
        ),
        "you filled with 0, and e^0 is 1: fill with minus infinity": soft(
            scores, low=0
        ),
        "queries and keys are swapped: the scores are q @ k transposed": soft(
            scores.transpose(-2, -1)
        ),
    }
    for hint, wrong in mistakes.items():
        expect(
            not torch.allclose(weights, wrong, atol=1e-5, equal_nan=True),
            hint,
        )
    expect(
        torch.allclose(weights, soft(scores), atol=1e-5),
        f"the weights of token 1 are {weights[0, 1].tolist()}, they should "
        f"be {soft(scores)[0, 1].tolist()}",
    )
    expect(
        tuple(out.shape) == (2, 5, 3),
        f"the mixture has shape {tuple(out.shape)}: weights @ v has "
        "(2, 5, 3), also where v is not as wide as q",
    )
    expect(
        torch.allclose(out, weights @ v, atol=1e-5),
        "the weights are right, the mixture is not: it is weights @ v",
    )


@exercise
def previous_token(answer):
    """everyone looks at the one before."""
    result = answer(6)
    expect(result is not None, "returned None: return q, k")
    expect(
        isinstance(result, tuple) and len(result) == 2,
        "return two tensors, q and k",
    )
    q, k = (part.float() for part in result)
    expect(
        q.dim() == 2 and q.shape == k.shape and len(q) == 6,
        f"q is {tuple(q.shape)} and k is {tuple(k.shape)}: for 6 tokens "
        "both should be (6, d)",
    )
    weights = attention(q, k, k, lower_triangle(6))[1]  # (T, T)
    on_previous = weights.diagonal(-1)  # (T - 1,), rows 1 to 5
    on_self = weights.diagonal()[1:]
    expect(
        on_self.min() < 0.99,
        "each token looks at itself: its query should be the key of the "
        "place before",
    )
    expect(
        on_previous.min() > 0.01 or weights[1:, 0].max() < 0.99,
        "tokens look at the first one: are the places counted the right way?",
    )
    best = weights[1:].argmax(dim=1)
    if torch.equal(best, torch.arange(5)):
        expect(
            on_previous.min() >= 0.99,
            f"the right token is the favorite, with a weight of "
            f"{on_previous.min():.2f}: multiply the queries by something "
            "large (remember that attention divides by √d)",
        )
    worst = int(on_previous.argmin()) + 1
    expect(
        on_previous.min() >= 0.99,
        f"token {worst} gives {on_previous.min():.2f} to the one before it, "
        "and should give at least 0.99",
    )
    q, k = answer(12)
    weights = attention(q, k, k, lower_triangle(12))[1]
    expect(
        weights.diagonal(-1).min() >= 0.99,
        "right for 6 tokens, not for 12: something depends on the number",
    )
