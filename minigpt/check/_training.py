"""Checks of chapter 7, training in earnest."""

import torch

from minigpt.check._base import Hint, exercise, expect


@exercise
def warm_then_fall(answer):
    """up in a line, down in a line, never above the peak."""
    expect(answer(0, 4, 20) is not None, "it returned None: return a share")
    expect(
        answer(0, 4, 20) > 0,
        "the first step has a rate of 0 and learns nothing: use step + 1",
    )
    expect(
        abs(answer(3, 4, 20) - 1) < 1e-6,
        "with 4 steps of warm-up, step 3 (the fourth) should reach 1",
    )
    expect(
        abs(answer(0, 4, 20) - 0.25) < 1e-6 and abs(answer(1, 4, 20) - 0.5) < 1e-6,
        "the warm-up is no straight line: (step + 1) / warmup",
    )
    try:
        without = answer(0, 0, 20)
    except ZeroDivisionError:
        raise Hint("a warm-up of 0 steps divides by 0") from None
    expect(abs(without - 1) < 1e-6, "without a warm-up, step 0 is the peak")
    falling = [answer(step, 4, 20) for step in range(4, 20)]
    right = [(20 - step) / 16 for step in range(4, 20)]
    close = all(abs(a - b) < 1e-6 for a, b in zip(falling, right, strict=True))
    jump = 1 - falling[0] > 0.1
    expect(
        close,
        "right after the warm-up the rate jumps down: the fall must be "
        "measured from there, (total - step) / (total - warmup)"
        if jump
        else "the fall is not a line from 1 at step warmup to 0 at total",
    )


@exercise
def clip_by_norm(answer):
    """all together, shortened only when too long, direction kept."""
    grads = [torch.tensor([3.0, 0.0]), torch.tensor([[0.0], [4.0]])]
    copies = [g.clone() for g in grads]
    got = answer(grads, 1.0)
    expect(got is not None, "it returned None: return the new list")
    expect(
        all(map(torch.equal, grads, copies)),
        "it changed the list it was given: make new tensors",
    )
    flat = torch.cat([g.flatten() for g in got])
    expect(
        [g.shape for g in got] == [g.shape for g in grads],
        "the shapes have changed",
    )
    expect(
        not torch.allclose(flat, torch.tensor([1.0, 0, 0, 1.0])),
        "each tensor was clipped by itself, or each number: that turns the "
        "direction; take the norm of all of them together (here 5)",
    )
    expect(
        torch.allclose(flat, torch.tensor([0.6, 0, 0, 0.8]), atol=1e-4),
        f"norm 5 clipped to 1 has norm {flat.norm():.3g}, direction "
        "(0.6, 0.8) expected: multiply by max_norm / norm",
    )
    short = answer([torch.tensor([0.3, 0.4])], 1.0)
    expect(
        torch.allclose(short[0], torch.tensor([0.3, 0.4])),
        "a norm of 0.5 was below max_norm = 1 and was changed: clip, do "
        "not stretch",
    )


@exercise
def accumulation_weights(answer):
    """every token weighs the same, whichever part it came in."""
    got = answer([8, 8])
    expect(got is not None, "it returned None: return a list of factors")
    got = [float(w) for w in answer([30, 10])]
    expect(
        got != [1.0, 1.0],
        "the sum of means is too large by the number of parts",
    )
    expect(
        got != [0.5, 0.5],
        "equal factors: the 10 tokens of the short part would each weigh "
        "three times as much as the 30 of the long one",
    )
    expect(
        got != [30.0, 10.0],
        "that is the sum over tokens; divide by the 40 tokens",
    )
    expect(
        abs(sum(got) - 1) < 1e-6, f"the factors sum to {sum(got):.3g}, not 1"
    )
    expect(
        abs(got[0] - 0.75) < 1e-6,
        f"30 of 40 tokens get {got[0]:.3g}: the share is 0.75",
    )


@exercise
def any_batch(answer):
    """each pass whole, each in its own order, any batch at any time."""
    first = answer(0, 4, 10, 1)
    expect(first is not None, "it returned None: return window numbers")
    expect(len(first) == 4, f"{len(first)} windows in a batch of 4")
    batches = [list(answer(i, 4, 10, 1)) for i in range(5)]
    again = [list(answer(i, 4, 10, 1)) for i in (4, 2, 0, 3, 1)]
    expect(
        again == [batches[i] for i in (4, 2, 0, 3, 1)],
        "asked for in another order, the batches differ: seed a generator "
        "from (seed, pass) in every call, and use no global randomness",
    )
    numbers = [int(n) for batch in batches for n in batch]
    one, two = numbers[:10], numbers[10:]
    expect(
        set(numbers) <= set(range(10)),
        "window numbers go from 0 to num_windows - 1",
    )
    expect(
        sorted(one) == sorted(two) == list(range(10)),
        "a pass of 10 windows visited some twice and others never: shuffle "
        "the windows of a pass, do not draw them",
    )
    expect(one != sorted(one), "the windows are in order: shuffle them")
    expect(one != two, "two passes have the same order: use the pass, too")
    other = [int(n) for i in range(5) for n in answer(i, 4, 10, 2)]
    expect(other != numbers, "another seed gives the same order")


@exercise
def published_log(answer):
    """the numbers cannot all be true, and you know which."""
    tokens, seconds = 7827 * 16 * 128, 20 * 60 + 53
    right = {
        "clock_minutes": seconds / 60,
        "steps_minutes": 7827 * 0.027 / 60,
        "tokens_per_s": tokens / seconds,
        "step_tokens_per_s": 16 * 128 / 0.027,
        "missing_params": 124_439_808 - 124_089_000,
    }
    missing = [name for name in right if answer.get(name) is None]
    expect(not missing, f"still to compute: {', '.join(missing)}")
    slips = {
        "clock_minutes": {
            21.0: "11:38:20 to 11:59:13 is 7 seconds short of 21 minutes",
            float(seconds): "that is in seconds",
        },
        "steps_minutes": {7827 * 0.027: "that is in seconds"},
        "tokens_per_s": {
            7827 / seconds: "that is steps a second; a step has 16 x 128",
            tokens / 1860: "that is over the 31 minutes it claims, not the "
            "time between its stamps",
        },
        "step_tokens_per_s": {
            128 / 0.027: "a step has 16 windows of 128 tokens",
            1 / 0.027: "that is steps a second; a step has 16 x 128 tokens",
        },
        "missing_params": {
            124_439_808 - 124_356_864: "that is what the rows miss; the "
            "printed total misses more",
            124_356_864 - 124_089_000: "that is rows against total; compare "
            "the total with the true count",
        },
    }
    for name, value in right.items():
        got = float(answer[name])
        if abs(got / value - 1) < 0.002:
            continue
        for slip, why in slips[name].items():
            if abs(got / slip - 1) < 0.001:
                raise Hint(f"{name}: {why}")
        raise Hint(f"{name} is {got:,.6g}: not what the log implies")
