"""Checks of chapter 8, sampling."""

import math
from types import SimpleNamespace

import torch

from ._base import Hint, exercise, expect


def _close(one, other, tolerance=1e-4) -> bool:
    """Whether two lists or tensors have one shape and nearly equal values."""
    one = torch.as_tensor(one, dtype=torch.float64)
    other = torch.as_tensor(other, dtype=torch.float64)
    return one.shape == other.shape and torch.allclose(
        one, other, rtol=0, atol=tolerance
    )


@exercise
def nucleus_by_hand(answer):
    """4/7 and 3/7: the one that crosses the line stays, and they share all."""
    expect(
        isinstance(answer, (list, tuple)) and len(answer) == 4,
        f"expected four numbers and got {answer!r}",
    )
    mistakes = {
        "the right two are kept; now divide by their sum, so that they add "
        "up to 1": [0.4, 0.3, 0, 0],
        "the second crosses the line of 0.6, and the one that crosses "
        "stays": [1, 0, 0, 0],
        "one too many: before the third the sum is 0.7 already":
            [4 / 9, 3 / 9, 2 / 9, 0],
        "this is min-p: top-p adds probabilities up": [0.4, 0.3, 0.2, 0.1],
    }
    for hint, wrong in mistakes.items():
        expect(not _close(answer, wrong, 0.006), hint)
    total = sum(float(p) for p in answer)
    expect(
        abs(total - 1) < 0.01,
        f"they add up to {total:.2f}: probabilities add up to 1",
    )
    expect(
        _close(answer, [4 / 7, 3 / 7, 0, 0], 0.006),
        "add up from the largest, and stop with the one that reaches 0.6",
    )


def _table_model(idx):
    """Logits (B, T, 4) that depend on the token at each position."""
    rows = torch.tensor(
        [[0.0, 1, 2, 3], [2, 0, 1, 0], [1, 1, 0, 3], [0, 2, 2, 1]]
    )
    return rows[idx]


@exercise
def log_prob(answer):
    """each token judged by the logits before it, the prompt not counted."""
    ids = torch.tensor([0, 3, 1, 0, 2, 2, 1])
    result = answer(_table_model, ids, 3)
    expect(result is not None, "returned None: return one number")
    result = torch.as_tensor(result)
    expect(
        result.numel() == 1,
        f"shape {tuple(result.shape)}: add up, one number for the text",
    )
    value = float(result)
    log_probs = _table_model(ids).log_softmax(dim=-1)
    each = log_probs[:-1].gather(1, ids[1:, None])[:, 0]  # (T - 1,)
    same = log_probs.gather(1, ids[:, None])[:, 0]  # (T,)
    logits = _table_model(ids)[:-1].gather(1, ids[1:, None])[:, 0]
    mistakes = {
        "the logits at t are about token t + 1, and you looked up token t: "
        "the model seems to know what it has just read": same[3:].sum(),
        "the prompt is counted as well: it was given, not chosen": each.sum(),
        "the first chosen token is missing: its logits are at the last "
        "position of the prompt": each[3:].sum(),
        "the last token of the prompt is counted: it was given, its logits "
        "are at prompt_length - 2": each[1:].sum(),
        "this is the mean: the probability of a text is a product, its "
        "logarithm a sum": each[2:].mean(),
        "this is the probability: return its logarithm":
            each[2:].sum().exp(),
        "the sign is reversed: log-probabilities are negative":
            -each[2:].sum(),
        "these are sums of logits: log_softmax first": logits[2:].sum(),
    }
    for hint, wrong in mistakes.items():
        expect(not math.isclose(value, float(wrong), rel_tol=1e-4), hint)
    right = float(each[2:].sum())
    expect(
        math.isclose(value, right, rel_tol=1e-4),
        f"expected {right:.3f} on a small model and got {value:.3f}",
    )


@exercise
def no_repeat(answer):
    """what would repeat a run is out, everything else is as it was."""
    logits, before = torch.arange(5.0), torch.arange(5.0)

    def banned(ids, n):
        result = answer(logits, list(ids), n)
        expect(result is not None, "returned None: return the logits (V,)")
        expect(
            torch.equal(logits, before),
            "the logits you were given changed: work on logits.clone()",
        )
        result = torch.as_tensor(result)
        expect(
            result.shape == (5,),
            f"shape (5,) became {tuple(result.shape)}: one logit a token",
        )
        out = result == -torch.inf
        expect(
            torch.equal(result[~out], before[~out]),
            "a logit that is not ruled out changed its value",
        )
        return out.nonzero().flatten().tolist()

    text = [0, 1, 2, 0, 1, 3, 0, 1]
    got = banned(text, 3)
    expect(
        got != [0, 1, 2, 3],
        "you ruled out all that occurred: only what followed the same "
        "n - 1 tokens",
    )
    expect(
        got != [3] and got != [2],
        "0 1 occurred twice before, followed by 2 and by 3: rule out both",
    )
    expect(
        got != [],
        "nothing was ruled out after 0 1 2 0 1 3 0 1 with n = 3: a run of 3 "
        "begins with the last 2 tokens",
    )
    expect(
        got == [2, 3],
        f"after 0 1 2 0 1 3 0 1 with n = 3, rule out 2 and 3, not {got}: "
        "compare the last n - 1 tokens",
    )
    expect(
        banned([4, 4], 2) == [4],
        "after 4 4 with n = 2 another 4 would repeat the run 4 4: runs may "
        "overlap",
    )
    expect(
        banned([1], 3) == [],
        "a text shorter than n has no run to repeat: rule out nothing",
    )


@exercise
def typical(answer):
    """the surprise nearest to the entropy comes first."""
    probs = torch.tensor(
        [[0.05, 0.5, 0.1, 0.15, 0.2], [0.15, 0.2, 0.05, 0.15, 0.45]]
    )
    logits = probs.log() + 1.5
    result = answer(logits.clone(), 0.4)
    expect(result is not None, "returned None: return logits (B, V)")
    result = torch.as_tensor(result)
    expect(
        result.shape == (2, 5),
        f"shape (2, 5) became {tuple(result.shape)}: one logit a token",
    )
    keep = result > -torch.inf
    log_probs = probs.log()
    entropy = -(probs * log_probs).sum(dim=-1, keepdim=True)

    def kept(distance, mass=0.4, cross=True):
        order = distance.argsort(dim=-1, stable=True)
        ranked = probs.gather(-1, order)
        total = ranked.cumsum(dim=-1)
        drop = (total - ranked >= mass) if cross else (total > mass)
        out = torch.zeros_like(drop).scatter(-1, order, drop)
        return ~out

    right = kept((-log_probs - entropy).abs())
    mistakes = {
        "these are simply the likeliest, as in top-p: order by the distance "
        "|-ln p - H|; is it the surprise -ln p, is the absolute value there, "
        "and the sign of H right?": kept(-probs),
        "the token that reaches the mass stays, and you dropped it":
            kept((-log_probs - entropy).abs(), cross=False),
        "logits are not log-probabilities: log_softmax first":
            kept((-logits - entropy).abs()),
    }
    for hint, wrong in mistakes.items():
        expect(not torch.equal(keep, wrong), hint)
    if not torch.equal(keep, right):
        raise Hint(
            "for .05 .5 .1 .15 .2 and mass 0.4 keep the tokens "
            f"{right[0].nonzero().flatten().tolist()}, not "
            f"{keep[0].nonzero().flatten().tolist()}"
        )
    expect(
        torch.equal(result[keep], logits[keep]),
        "what stays must keep its logits: rule out with -torch.inf only",
    )


@exercise
def cache_batch(answer):
    """a key and a value, in every block, for every token."""
    config = SimpleNamespace(
        n_layers=10, emb_dim=768, n_heads=12, context_length=1024,
        vocab_size=50257,
    )
    free, tokens = 10 * 2**30, 1000
    result = answer(config, free, tokens, 4)
    expect(result is not None, "returned None: return a number of texts")
    value = float(result)
    right = free // (2 * 10 * 768 * 4 * tokens)
    mistakes = {
        "keys and values: two vectors a token and block": 2 * right,
        "every block has its own: times n_layers": 10 * right,
        "the heads together are emb_dim wide: do not multiply by n_heads":
            right / 12,
        "one head has emb_dim / n_heads channels, but there are n_heads of "
        "them": 12 * right,
        "number_bytes is not used": 4 * right,
    }
    for hint, wrong in mistakes.items():
        expect(not math.isclose(value, wrong, rel_tol=0.05), hint)
    full = free // (2 * 10 * 768 * 4 * config.context_length)
    expect(
        value != full,
        "you counted context_length tokens: the texts have num_tokens",
    )
    expect(
        math.isclose(value, right, rel_tol=0.01),
        f"10 GiB hold {right} texts of 1,000 tokens in 10 blocks of "
        f"width 768 in fp32, and you say {value:g}",
    )
    expect(
        value == right,
        f"{value:g}: whole texts only, round down",
    )


@exercise
def hold_back(answer):
    """the longest beginning of the stop string at the end of the text."""

    def held(text, stop, right, hint):
        result = answer(text, stop)
        expect(result is not None, "returned None: return a number")
        expect(
            result == right,
            f"{text!r} with the stop string {stop!r}: hold back {right}, "
            f"not {result}. {hint}",
        )

    held("abc", "END", 0, "Nothing at the end begins the stop string.")
    held("abcE", "END", 1, "The E may go on as END.")
    held("abcEN", "END", 2, "Try every length of beginning.")
    held("EN abc", "END", 0, "Only the end of the text counts.")
    held("a\n", "\n\n", 1, "The second newline may follow.")
    held("aab", "aabaac", 3, "Try the longest beginning first.")
    held("aabaa", "aabaac", 5, "aa fits too, but the longest counts.")
    held("", "END", 0, "An empty text has nothing to hold back.")
    held("N", "END", 0, "Text shorter than the stop string: compare ends.")
