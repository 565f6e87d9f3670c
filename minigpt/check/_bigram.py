"""Checks of chapter 2, the bigram model."""

import math

import torch

from ._base import Hint, exercise, expect


def _close(one, other, tolerance=1e-4) -> bool:
    """Whether two lists or tensors have one shape and nearly equal values."""
    one = torch.as_tensor(one, dtype=torch.float64)
    other = torch.as_tensor(other, dtype=torch.float64)
    return one.shape == other.shape and torch.allclose(
        one, other, rtol=0, atol=tolerance
    )


def _numbers(answer, count: int, what: str) -> list[float]:
    """The answer as a list of `count` floats, or a Hint."""
    if isinstance(answer, torch.Tensor):
        answer = answer.tolist()
    expect(
        isinstance(answer, (list, tuple)) and len(answer) == count,
        f"expected {count} numbers, {what}, and got {answer!r}",
    )
    return [float(number) for number in answer]


@exercise
def after_a(answer):
    """half b, a quarter c, a quarter d: four pairs start with an a."""
    answer = _numbers(answer, 5, "for a, b, c, d, r")
    mistakes = {
        "these are counts: divide by their sum": [0, 2, 1, 1, 0],
        "you divided by all five a: the last one has nothing after it, so "
        "only four pairs start with an a": [0, 0.4, 0.2, 0.2, 0],
        "these are the shares of the letters in the word: count only what "
        "comes right after an a": [5 / 11, 2 / 11, 1 / 11, 1 / 11, 2 / 11],
        "you divided by all 10 pairs: divide by those that start with an "
        "a": [0, 0.2, 0.1, 0.1, 0],
        "this is what comes before an a: the row is the first of the pair, "
        "the column the second": [0, 0, 0.25, 0.25, 0.5],
    }
    for hint, wrong in mistakes.items():
        expect(not _close(answer, wrong, 0.006), hint)
    expect(
        math.isclose(sum(answer), 1, abs_tol=0.01),
        f"they add up to {sum(answer):.2f}: probabilities add up to 1",
    )
    expect(
        _close(answer, [0, 0.5, 0.25, 0.25, 0], 0.006),
        "write down the letter after each a of abracadabra, in order",
    )


@exercise
def perplexity(answer):
    """a fair die is a choice among 6, and unequal guesses are weighed."""
    result = answer(torch.full((4,), 1 / 6))
    expect(result is not None, "returned None: return the perplexity")
    value = float(result)
    mistakes = {
        "a fair die gave 1.79, that is the loss: take e to its power":
            math.log(6),
        "a fair die gave 1296: use the mean over the characters, not the "
        "sum": 6.0**4,
        "a fair die gave 1/6: the logarithm needs a minus": 1 / 6,
        "2 to a loss in nats: with log use exp, with log2 use 2":
            2 ** math.log(6),
        "e to a loss in bits: with log2 use 2, with log use exp":
            math.exp(math.log2(6)),
    }
    for hint, wrong in mistakes.items():
        expect(not math.isclose(value, wrong, rel_tol=1e-4), hint)
    expect(
        math.isclose(value, 6, rel_tol=1e-4),
        f"a fair die gave {value:.4g}: its perplexity is 6",
    )
    value = float(answer(torch.tensor([0.5, 0.125])))
    expect(
        not math.isclose(value, 5, rel_tol=1e-4),
        "½ and ⅛ gave 5, the mean of 1/p: average the logarithms instead",
    )
    expect(
        not math.isclose(value, 3.2, rel_tol=1e-4),
        "½ and ⅛ gave 3.2, one over the mean of p: average the logarithms, "
        "not the probabilities",
    )
    expect(
        math.isclose(value, 4, rel_tol=1e-4),
        f"½ and ⅛ gave {value:.4g}: their logarithms average to ln ¼, "
        "so it is 4",
    )


@exercise
def gradient(answer):
    """p minus 1 for the right id, p for the others."""
    answer = _numbers(answer, 3, "one for each logit")
    p = torch.tensor([0.5, 0.25, 0.25])
    one_hot = torch.tensor([0.0, 1.0, 0.0])
    mistakes = {
        "these are the probabilities: subtract 1 at the right id": p,
        "the sign is reversed: the gradient points uphill, so it is p minus "
        "1 for the right id": one_hot - p,
        "ids count from 0, so id 1 is the second logit":
            p - torch.tensor([1.0, 0.0, 0.0]),
        "you subtracted 1 everywhere: only the right id has it": p - 1,
        "you used the logits as if they were probabilities: softmax first":
            torch.tensor([math.log(2), 0.0, 0.0]) - one_hot,
    }
    for hint, wrong in mistakes.items():
        expect(not _close(answer, wrong, 0.006), hint)
    expect(
        abs(sum(answer)) < 0.02,
        f"they add up to {sum(answer):.2f}: p adds up to 1 and 1 is "
        "subtracted once, so it must be 0",
    )
    expect(
        _close(answer, p - one_hot, 0.006),
        "begin with softmax: e to the logits is 2, 1, 1",
    )


@exercise
def smoothed_loss(answer):
    """every row adds up to 1, and nothing is impossible."""
    counts = torch.tensor([[0, 6, 2], [3, 0, 0], [1, 1, 5]])
    ids = torch.tensor([0, 1, 1, 2, 0, 2])
    before = counts.clone()
    result = answer(counts, ids, 0.5)
    expect(result is not None, "returned None: return the mean loss")
    expect(torch.equal(counts, before), "counts was changed: use a copy")
    value = float(result)
    raised = counts + 0.5
    probs = raised / raised.sum(dim=1, keepdim=True)
    cost = -probs[ids[:-1], ids[1:]].log()  # (N - 1,)

    def loss(table):
        return -table[ids[:-1], ids[1:]].log().mean()

    pairs_share = raised / raised.sum()
    down = raised / raised.sum(dim=1)
    added_late = counts / counts.sum(dim=1, keepdim=True) + 0.5
    unfinished = raised / counts.sum(dim=1, keepdim=True)
    fixed = counts + 1
    mistakes = {
        "this is the sum: return the mean over the pairs": cost.sum(),
        "you divided by the number of ids: there is one pair less":
            cost.sum() / len(ids),
        "you divided by the sum of the whole table: each row must add up "
        "to 1": loss(pairs_share),
        "the row sums were stretched as a row, so columns were divided: "
        "use keepdim=True": loss(down),
        "you added after dividing: then rows do not add up to 1":
            loss(added_late),
        "you divided by the sums of the unsmoothed counts: add first, and "
        "sum what you have then": loss(unfinished),
        "extra was not used: you always add 1":
            loss(fixed / fixed.sum(dim=1, keepdim=True)),
        "first and second of the pair are exchanged: rows are ids[:-1]":
            -probs[ids[1:], ids[:-1]].log().mean(),
        "the minus is missing": -cost.mean(),
    }
    expect(not math.isinf(value), "infinite: extra must be added to counts")
    for hint, wrong in mistakes.items():
        expect(not math.isclose(value, float(wrong), rel_tol=1e-4), hint)
    expect(
        math.isclose(value, float(cost.mean()), rel_tol=1e-4),
        f"expected {float(cost.mean()):.4f} on a small table and got "
        f"{value:.4f}: add, divide by row sums, look up, mean of -log",
    )


@exercise
def with_temperature(answer):
    """cold sharpens, hot flattens, and rows still add up to 1."""
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1]])
    result = answer(probs.clone(), 0.5)
    expect(result is not None, "returned None: return the new (B, V)")
    result = torch.as_tensor(result)
    expect(
        result.shape == probs.shape,
        f"shape {tuple(probs.shape)} became {tuple(result.shape)}: one "
        "probability for each that was given",
    )
    square, root = probs**2, probs**0.5
    mistakes = {
        "the powers are right, now divide each row by its sum": square,
        "the exponent is the wrong way round, 1/temperature it is: at 0.5 "
        "the likely must become likelier":
            root / root.sum(dim=-1, keepdim=True),
        "you divided by the sum of all rows: each row is its own":
            square / square.sum(),
        "you divided columns by their sums: sum over dim=-1":
            square / square.sum(dim=0, keepdim=True),
        "softmax of the probabilities: they are no logits, take their "
        "logarithm first": (probs / 0.5).softmax(dim=-1),
        "nothing changed: use the temperature": probs,
    }
    for hint, wrong in mistakes.items():
        expect(not _close(result, wrong), hint)
    if not _close(result, square / square.sum(dim=-1, keepdim=True)):
        row = ", ".join(f"{p:.2f}" for p in result[0].tolist())
        raise Hint(
            "at temperature 0.5 the row .5, .3, .2 must become .66, .24, "
            f".11 (their squares, divided by the sum), and yours is {row}"
        )


@exercise
def trigram_counts(answer):
    """every triple, each in its own place."""
    ids = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 1, 1, 1])
    result = answer(ids, 3)
    expect(result is not None, "returned None: return the counts (V, V, V)")
    result = torch.as_tensor(result)
    expect(
        result.shape == (3, 3, 3),
        f"for 3 tokens the shape must be (3, 3, 3), not "
        f"{tuple(result.shape)}: view(vocab_size, vocab_size, vocab_size)",
    )
    right = torch.zeros(3, 3, 3, dtype=torch.long)
    for i, j, k in zip(ids, ids[1:], ids[2:]):
        right[i, j, k] += 1
    if torch.equal(result.long(), right):
        return
    total = int(result.sum())
    expect(
        not torch.equal(result.long(), right.clamp(max=1)),
        "repeated triples count once: += 1 with a list of places writes "
        "each place once; use bincount",
    )
    expect(
        total == int(right.sum()),
        f"{len(ids)} tokens have {int(right.sum())} triples, yours add up "
        f"to {total}: all three slices have length N - 2",
    )
    expect(
        not torch.equal(result.long(), right.permute(2, 1, 0)),
        "the table is backwards: the first index is the oldest character",
    )
    raise Hint(
        "some triples are in the wrong place: a triple's number is "
        "(first * V + second) * V + third"
    )
