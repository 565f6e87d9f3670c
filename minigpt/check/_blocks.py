"""Checks of chapter 5, blocks."""

import math

import torch
import torch.nn.functional as F

from minigpt.blocks import MLP, Block
from minigpt.blocks import gelu as tanh_gelu

from ._base import Hint, exercise, expect


def _tensor_like(out, like, name):
    """Hint unless `out` is a tensor of the shape of `like`."""
    expect(out is not None, f"{name} returned None: return a tensor")
    expect(
        isinstance(out, torch.Tensor),
        f"{name} returned {type(out).__name__}: return a tensor",
    )
    expect(
        out.shape == like.shape,
        f"the shape should stay {tuple(like.shape)}, and you returned "
        f"{tuple(out.shape)}: keepdim=True keeps an axis as size 1",
    )


def _diagnose(out, mistakes, otherwise):
    """Raise the hint of the first known mistake that gives `out`."""
    for hint, wrong in mistakes.items():
        if torch.allclose(out, wrong, atol=1e-5, equal_nan=True):
            raise Hint(hint)
    raise Hint(otherwise)


@exercise
def gelu(answer):
    """the tanh form of GELU, to five digits."""
    x = torch.linspace(-5, 5, 201)
    out, right = answer(x), tanh_gelu(x)
    _tensor_like(out, x, "my_gelu")
    if torch.allclose(out, right, atol=1e-5):
        return
    root = math.sqrt(2 / math.pi)
    mistakes = {
        "this is the exact form with erf: right in spirit, and up to 0.0005 "
        "away from the tanh form that GPT-2 was trained with": F.gelu(x),
        "this is ReLU: GELU rounds the corner at 0": F.relu(x),
        "this is SiLU, x times sigmoid(x): GELU is a little steeper": F.silu(
            x
        ),
        "this is the sigmoid approximation x * sigmoid(1.702 x), up to 0.02 "
        "off: take the tanh form": x * torch.sigmoid(1.702 * x),
        "you forgot the factor 0.5: 1 + tanh reaches 2, so large inputs come "
        "out doubled": 2 * right,
        "you forgot the factor x in front: a gate alone is not the output": (
            right / x
        ).nan_to_num(0.5),
        "you left out the cubic term 0.044715 x³ inside the tanh": 0.5
        * x
        * (1 + torch.tanh(root * x)),
        "sqrt(2/pi) must multiply the cubic term too: mind the brackets": 0.5
        * x
        * (1 + torch.tanh(root * x + 0.044715 * x**3)),
        "inside the tanh stands sqrt(2/pi): you left it out": 0.5
        * x
        * (1 + torch.tanh(x + 0.044715 * x**3)),
        "the root is missing: sqrt(2/pi), not 2/pi": 0.5
        * x
        * (1 + torch.tanh(2 / math.pi * (x + 0.044715 * x**3))),
    }
    worst = (out - right).abs().argmax()
    _diagnose(
        out,
        mistakes,
        f"at x = {x[worst]:.2f} you give {out[worst]:.4f}, and GELU is "
        f"{right[worst]:.4f}",
    )


@exercise
def layer_norm(answer):
    """mean 0, variance 1, scaled and shifted, each token on its own."""
    rng = torch.Generator().manual_seed(0)
    x = 2 + 3 * torch.randn(3, 4, 5, generator=rng)
    weight = torch.tensor([0.5, 1.0, 1.5, 2.0, 2.5])
    bias = torch.tensor([0.3, -0.2, 0.1, 0.0, 0.4])
    eps = 0.5  # large, so that its place shows

    def norm(dim=-1, correction=0):
        mean = x.mean(dim=dim, keepdim=True)
        var = x.var(dim=dim, keepdim=True, correction=correction)
        return x - mean, var

    centered, var = norm()
    std = torch.sqrt(var + eps)
    right = centered / std * weight + bias
    out = answer(x, weight, bias, eps)
    _tensor_like(out, x, "my_layer_norm")
    if torch.allclose(out, right, atol=1e-5):
        return
    unbiased = norm(correction=1)[1]
    by_batch, by_time, by_both, by_all = (
        centered_ / torch.sqrt(var_ + eps) * weight + bias
        for centered_, var_ in map(norm, (0, 1, (0, 1), (0, 1, 2)))
    )
    by_tc_centered, by_tc_var = norm((1, 2))
    by_tc = by_tc_centered / torch.sqrt(by_tc_var + eps) * weight + bias
    axis = (
        "and LayerNorm takes each token by itself, over its channels: dim=-1"
    )
    first_var = (var / (var + eps))[0, 0].item()  # just under 1
    mistakes = {
        "your variance divides by C - 1, which is PyTorch's default: "
        "LayerNorm divides by C, so say correction=0": centered
        / torch.sqrt(unbiased + eps)
        * weight
        + bias,
        "your eps stands outside the square root: write sqrt(var + eps), "
        "not sqrt(var) + eps": centered / (var.sqrt() + eps) * weight + bias,
        "you use x.std() plus eps: that divides by C - 1, and has eps outside "
        "the root": centered / (unbiased.sqrt() + eps) * weight + bias,
        "you left out eps, or wrote a fixed one: add the argument to the "
        "variance, inside the root": centered
        / var.sqrt()
        * weight
        + bias,
        "you divide by the variance: divide by its square root": centered
        / (var + eps)
        * weight
        + bias,
        "you do not subtract the mean before scaling (that would be nearly "
        "RMSNorm)": x / std * weight + bias,
        "you subtract the mean but do not divide by the standard deviation": (
            centered * weight + bias
        ),
        "the learned scale and shift are missing: times weight, plus bias": (
            centered / std
        ),
        "the learned scale is missing: multiply by weight before adding "
        "bias": centered / std + bias,
        "the learned shift is missing: add bias at the end": centered
        / std
        * weight,
        "you shift before you scale: first times weight, then plus bias": (
            centered / std + bias
        )
        * weight,
        f"you normalize over the batch (dim=0), {axis}": by_batch,
        f"you normalize over time (dim=1), which would let the future leak "
        f"into the past, {axis}": by_time,
        f"you normalize over batch and time, which is BatchNorm, {axis}": (
            by_both
        ),
        f"you normalize over all numbers at once (no dim), {axis}": by_all,
        f"you normalize over time and channels together, {axis}": by_tc,
    }
    plain = (out - bias) / weight  # (B, T, C): before scale and shift
    _diagnose(
        out,
        mistakes,
        "before scale and shift, the first token should have mean 0.00 and "
        f"variance {first_var:.2f} (eps is 0.5 here), and has "
        f"mean {plain[0, 0].mean():.2f} and variance "
        f"{plain[0, 0].var(correction=0):.2f}",
    )


@exercise
def dropout(answer):
    """zeros at rate p, survivors scaled, nothing done in evaluation."""
    x = torch.rand(200, 500) + 1  # no zeros of its own
    p = 0.2
    state = torch.get_rng_state()
    torch.manual_seed(0)
    try:
        out, again = answer(x, p, True), answer(x, p, True)
        resting = answer(x, p, False)
        untouched = answer(x, 0.0, True)
    finally:
        torch.set_rng_state(state)
    _tensor_like(out, x, "my_dropout")
    expect(
        resting is not None,
        "with training=False you return None: return x as it is",
    )
    if not torch.equal(resting, x):
        expect(
            (resting == 0).float().mean() < 0.05,
            "you drop in evaluation too: with training=False, return x as it "
            "is",
        )
        raise Hint(
            "with training=False you change the numbers: the scaling by "
            "1/(1 - p) belongs to training, so that evaluation need do "
            "nothing"
        )
    dropped = out == 0
    rate = dropped.float().mean().item()
    expect(
        abs(rate - 0.8) > 0.02,
        f"you dropped {rate:.0%} at p = 0.2: p is the probability to be "
        "dropped, not to be kept",
    )
    expect(
        rate > 0,
        "nothing was dropped at p = 0.2: set entries to 0 at random",
    )
    rows, columns = dropped.all(1).any(), dropped.all(0).any()
    expect(
        not rows and not columns,
        "whole rows or columns are dropped together: draw a random number "
        "for each entry, as torch.rand_like(x) does",
    )
    expect(
        abs(rate - p) < 0.02,
        f"you dropped {rate:.0%} at p = 0.2: compare uniform numbers "
        "(torch.rand, not randn) with p",
    )
    expect(
        not torch.equal(dropped, again == 0),
        "two calls dropped the same entries: draw new random numbers each "
        "time",
    )
    scale = (out[~dropped] / x[~dropped]).mean().item()
    scaling = "multiply survivors by 1/(1 - p), so that the mean stays"
    expect(
        abs(scale - 1) > 0.01,
        f"the survivors are not scaled, so the mean falls to "
        f"{out.mean() / x.mean():.2f} of what it was: {scaling}",
    )
    expect(
        abs(scale - 0.8) > 0.01,
        f"you scale survivors by 1 - p, which shrinks them: {scaling}",
    )
    expect(
        abs(scale - 5) > 0.05, f"you scale survivors by 1/p: {scaling}"
    )
    expect(
        torch.allclose(out[~dropped], x[~dropped] / (1 - p)),
        f"at p = 0.2 survivors are scaled by {scale:.2f}: {scaling}",
    )
    expect(torch.equal(untouched, x), "p = 0 must change nothing")


@exercise
def block_forward(answer):
    """two reads through a norm, two additions, and a clean road."""
    state = torch.get_rng_state()
    torch.manual_seed(0)
    block = Block(8, 2)
    with torch.no_grad():
        for norm in (block.ln_1, block.ln_2):  # two norms that differ
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
        x = 3 * torch.randn(2, 5, 8)
        torch.set_rng_state(state)
        out, right = answer(block, x.clone()), block(x)
        _tensor_like(out, x, "block_forward")
        if torch.allclose(out, right, atol=1e-5):
            return
        ln_1, attn, ln_2, mlp = block.ln_1, block.attn, block.ln_2, block.mlp
        mid, read = x + attn(ln_1(x)), ln_1(x)
        on_road, no_first = read + attn(read), attn(read)
        post = ln_1(x + attn(x))
        mistakes = {
            "both bugs are still there: ln_1 stands on the road itself, and "
            "the MLP's output replaces the stream": mlp(ln_2(on_road)),
            "one bug left: ln_1 stands on the road, so attention is added to "
            "the normalized copy instead of the stream": on_road
            + mlp(ln_2(on_road)),
            "one bug left: the MLP replaces the stream, add to it": mlp(
                ln_2(mid)
            ),
            "attention replaces the stream: add to it": no_first
            + mlp(ln_2(no_first)),
            "both layers replace the stream: each should add to it": mlp(
                ln_2(no_first)
            ),
            "ln_2 now stands on the road: add the MLP's output to the stream "
            "as it was before the norm": ln_2(mid) + mlp(ln_2(mid)),
            "both norms stand on the road: add to the stream, not to its "
            "normalized copy": ln_2(on_road) + mlp(ln_2(on_road)),
            "this is post-LayerNorm: here a layer reads through the norm, "
            "and the road has none": ln_2(post + mlp(post)),
            "the MLP reads the old x, so it does not see what attention "
            "found (GPT-J does that, we do not)": mid + mlp(ln_2(x)),
            "the MLP reads the stream without a norm": mid + mlp(mid),
            "attention reads the stream without a norm": x
            + attn(x)
            + mlp(ln_2(x + attn(x))),
            "no layer reads through a norm": x + attn(x) + mlp(x + attn(x)),
            "the MLP reads through ln_1: it has a norm of its own, ln_2": mid
            + mlp(ln_1(mid)),
            "the MLP's output is added to the old x: what attention wrote is "
            "lost": x + mlp(ln_2(mid)),
        }
        _diagnose(
            out,
            mistakes,
            "the output differs from Block's: it should be "
            "x + attn(ln_1(x)), and then the same with ln_2 and mlp",
        )


@exercise
def rms_norm(answer):
    """equal to torch's rms_norm."""
    rng = torch.Generator().manual_seed(0)
    x = 2 + 3 * torch.randn(3, 4, 5, generator=rng)
    weight = torch.tensor([0.5, 1.0, 1.5, 2.0, 2.5])
    eps = 0.5  # large, so that its place shows
    right = F.rms_norm(x, (5,), weight, eps)
    out = answer(x, weight, eps)
    _tensor_like(out, x, "my_rms_norm")
    if torch.allclose(out, right, atol=1e-5):
        return
    square = x.square().mean(dim=-1, keepdim=True)
    total = x.square().sum(dim=-1, keepdim=True)
    mistakes = {
        "this is LayerNorm: do not subtract the mean": F.layer_norm(
            x, (5,), weight, eps=eps
        ),
        "you divide by the standard deviation, which subtracts the mean: take "
        "the mean of the squares": x
        / torch.sqrt(x.var(-1, keepdim=True, correction=0) + eps)
        * weight,
        "your eps stands outside the square root": x
        / (square.sqrt() + eps)
        * weight,
        "you left out eps: add it to the mean square, inside the root": x
        / square.sqrt()
        * weight,
        "you take the sum of the squares, which is the vector's length: take "
        "their mean": x / torch.sqrt(total + eps) * weight,
        "you divide by the mean square: take its root first": x
        / (square + eps)
        * weight,
        "the learned scale is missing: multiply by weight": right / weight,
        "you normalize over all numbers at once: each token by itself, "
        "dim=-1": x / torch.sqrt(x.square().mean() + eps) * weight,
        "you normalize over time (dim=1): over the channels, dim=-1": x
        / torch.sqrt(x.square().mean(1, keepdim=True) + eps)
        * weight,
        "you normalize over the batch (dim=0): over the channels, dim=-1": x
        / torch.sqrt(x.square().mean(0, keepdim=True) + eps)
        * weight,
    }
    ratio = (out / right).flatten()[0]
    _diagnose(
        out,
        mistakes,
        f"the first number is {ratio:.2f} times what it should be: divide x "
        "by the root of (the mean of its squares + eps), times weight",
    )


@exercise
def swiglu(answer):
    """gated, as large as the MLP, and each token on its own."""
    size = 48
    try:
        mlp = answer(size)
    except TypeError as error:
        raise Hint(
            f"MySwiGLU({size}) failed with {error}: write "
            "__init__(self, emb_dim), beginning with super().__init__()"
        ) from None
    expect(
        type(mlp).forward is not torch.nn.Module.forward,
        "MySwiGLU has no forward yet",
    )
    count = sum(p.numel() for p in mlp.parameters())
    budget = sum(p.numel() for p in MLP(size, bias=False).parameters())
    wide = 3 * size * 4 * size
    expect(
        abs(count - wide) > 0.03 * wide,
        f"{count:,} parameters, half as many again as the MLP's {budget:,}: "
        "three matrices 4C wide cost 12 C²; which width costs 8 C²?",
    )
    expect(
        abs(count - budget) <= 0.03 * budget,
        f"{count:,} parameters, and the MLP has {budget:,}: three matrices "
        "of C times h should come to 8 C²",
    )
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, size, generator=rng)
    with torch.no_grad():
        out = mlp(x)
        _tensor_like(out, x, "MySwiGLU's forward")
        alone = mlp(x[:, 2:3])
        expect(
            torch.allclose(out[:, 2:3], alone, atol=1e-5),
            "a token's output depends on other tokens: an MLP works on each "
            "alone",
        )
        expect(
            out.abs().max() > 0,
            "the output is 0: was one of the layers initialized to zeros?",
        )
        # a gated unit is a product of two numbers that go to 0 with x
        tiny = mlp(1e-3 * x).norm() / (1e-3 * out.norm())
        expect(
            tiny < 0.05,
            "near 0 your layer is linear, so nothing is gated: multiply "
            "silu(gate(x)) and up(x) entry by entry, do not add them",
        )
        flipped = (out + mlp(-x)).norm(), (out - mlp(-x)).norm()
        expect(
            min(flipped) > 1e-4 * out.norm(),
            "f(-x) is f(x) up to its sign, so there is no SiLU: two linear "
            "layers are multiplied without a bend",
        )
