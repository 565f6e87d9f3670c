"""Known wrong answers to the exercises of chapter 2, and their hints."""


def _calls(name, *answers):
    """(check, code, hint) for each (code, hint); f is what is checked."""
    return [
        (name, f"from minigpt import check\n{code}\ncheck.{name}(f)\n", hint)
        for code, hint in answers
    ]


def _function(args, body):
    """Code that makes f a function of args with one statement."""
    return f"import torch\ndef f({args}):\n    {body}"


_RAISED = "r = counts + extra\n    "
_LOSS = "return -p[ids[:-1], ids[1:]].log().mean()"

WRONG = [
    *_calls(
        "after_a",
        ("f = ...", "expected 5 numbers"),
        ("f = [0, 2, 1, 1, 0]", "these are counts"),
        ("f = [0, 0.4, 0.2, 0.2, 0]", "the last one has nothing after it"),
        (
            "f = [5 / 11, 2 / 11, 1 / 11, 1 / 11, 2 / 11]",
            "shares of the letters in the word",
        ),
        ("f = [0, 0.2, 0.1, 0.1, 0]", "you divided by all 10 pairs"),
        ("f = [0, 0, 0.25, 0.25, 0.5]", "what comes before an a"),
        ("f = [0, 1, 1, 1, 0]", "they add up to 3.00"),
        ("f = [0, 0.25, 0.5, 0.25, 0]", "write down the letter after each a"),
    ),
    *_calls(
        "perplexity",
        (_function("p", "..."), "returned None"),
        (_function("p", "return -p.log().mean()"), "that is the loss"),
        (
            _function("p", "return (-p.log().sum()).exp()"),
            "use the mean over the characters",
        ),
        (_function("p", "return p.log().mean().exp()"), "needs a minus"),
        (_function("p", "return 2 ** -p.log().mean()"), "a loss in nats"),
        (
            _function("p", "return (-p.log2().mean()).exp()"),
            "a loss in bits",
        ),
        (_function("p", "return (1 / p).mean()"), "the mean of 1/p"),
        (_function("p", "return 1 / p.mean()"), "one over the mean of p"),
        (_function("p", "return len(p)"), "its perplexity is 6"),
        (_function("p", "return (1 / p).max()"), "so it is 4"),
    ),
    *_calls(
        "gradient",
        ("f = ...", "expected 3 numbers"),
        ("f = [0.5, 0.25, 0.25]", "subtract 1 at the right id"),
        ("f = [-0.5, 0.75, -0.25]", "the gradient points uphill"),
        ("f = [-0.5, 0.25, 0.25]", "id 1 is the second logit"),
        ("f = [-0.5, -0.75, -0.75]", "only the right id has it"),
        ("f = [0.693, -1, 0]", "softmax first"),
        ("f = [1, 1, 1]", "they add up to 3.00"),
        ("f = [0.3, -0.6, 0.3]", "begin with softmax"),
    ),
    *_calls(
        "smoothed_loss",
        (_function("counts, ids, extra", "..."), "returned None"),
        (
            _function(
                "counts, ids, extra",
                "counts += 1\n    return counts.float().mean()",
            ),
            "use a copy",
        ),
        (
            _function(
                "counts, ids, extra",
                "p = counts / counts.sum(1, keepdim=True)\n    " + _LOSS,
            ),
            "extra must be added",
        ),
        (
            _function(
                "counts, ids, extra",
                _RAISED + "p = r / r.sum(1, keepdim=True)\n    "
                "return -p[ids[:-1], ids[1:]].log().sum()",
            ),
            "this is the sum",
        ),
        (
            _function(
                "counts, ids, extra",
                _RAISED + "p = r / r.sum(1, keepdim=True)\n    "
                "return -p[ids[:-1], ids[1:]].log().sum() / len(ids)",
            ),
            "there is one pair less",
        ),
        (
            _function(
                "counts, ids, extra",
                _RAISED + "p = r / r.sum()\n    " + _LOSS,
            ),
            "each row must add up to 1",
        ),
        (
            _function(
                "counts, ids, extra",
                _RAISED + "p = r / r.sum(1)\n    " + _LOSS,
            ),
            "use keepdim=True",
        ),
        (
            _function(
                "counts, ids, extra",
                "p = counts / counts.sum(1, keepdim=True) + extra\n    "
                + _LOSS,
            ),
            "you added after dividing",
        ),
        (
            _function(
                "counts, ids, extra",
                "p = (counts + extra) / counts.sum(1, keepdim=True)\n    "
                + _LOSS,
            ),
            "sums of the unsmoothed counts",
        ),
        (
            _function(
                "counts, ids, extra",
                "r = counts + 1\n    p = r / r.sum(1, keepdim=True)\n    "
                + _LOSS,
            ),
            "extra was not used",
        ),
        (
            _function(
                "counts, ids, extra",
                _RAISED + "p = r / r.sum(1, keepdim=True)\n    "
                "return -p[ids[1:], ids[:-1]].log().mean()",
            ),
            "are exchanged",
        ),
        (
            _function(
                "counts, ids, extra",
                _RAISED + "p = r / r.sum(1, keepdim=True)\n    "
                "return p[ids[:-1], ids[1:]].log().mean()",
            ),
            "the minus is missing",
        ),
        (_function("counts, ids, extra", "return 7"), "on a small table"),
    ),
    *_calls(
        "with_temperature",
        (_function("p, t", "..."), "returned None"),
        (_function("p, t", "return p[0]"), "one probability for each"),
        (_function("p, t", "return p ** (1 / t)"), "now divide each row"),
        (
            _function("p, t", "r = p ** t; return r / r.sum(-1, True)"),
            "the wrong way round",
        ),
        (
            _function("p, t", "r = p ** (1 / t); return r / r.sum()"),
            "each row is its own",
        ),
        (
            _function("p, t", "r = p ** (1 / t); return r / r.sum(0)"),
            "sum over dim=-1",
        ),
        (
            _function("p, t", "return (p / t).softmax(-1)"),
            "they are no logits",
        ),
        (_function("p, t", "return p"), "use the temperature"),
        (_function("p, t", "return p * 0 + 1"), "and yours is 1.00"),
    ),
    *_calls(
        "trigram_counts",
        (_function("ids, v", "..."), "returned None"),
        (
            _function(
                "ids, v",
                "n = (ids[:-2] * v + ids[1:-1]) * v + ids[2:]\n    "
                "return torch.bincount(n, minlength=v**3)",
            ),
            "the shape must be (3, 3, 3)",
        ),
        (
            _function(
                "ids, v",
                "c = torch.zeros(v, v, v)\n    "
                "c[ids[:-2], ids[1:-1], ids[2:]] += 1\n    return c",
            ),
            "repeated triples count once",
        ),
        (
            _function(
                "ids, v",
                "i = ids[:-1]\n    "
                "n = (i[:-2] * v + i[1:-1]) * v + i[2:]\n    "
                "return torch.bincount(n, minlength=v**3).view(v, v, v)",
            ),
            "all three slices have length N - 2",
        ),
        (
            _function(
                "ids, v",
                "n = (ids[2:] * v + ids[1:-1]) * v + ids[:-2]\n    "
                "return torch.bincount(n, minlength=v**3).view(v, v, v)",
            ),
            "the table is backwards",
        ),
        (
            _function(
                "ids, v",
                "n = (ids[1:-1] * v + ids[:-2]) * v + ids[2:]\n    "
                "return torch.bincount(n, minlength=v**3).view(v, v, v)",
            ),
            "a triple's number is",
        ),
    ),
]
