"""Known wrong answers of chapter 5, and what the hint must say."""

GELU = """
import math, torch, torch.nn.functional as F
from minigpt import check
a = math.sqrt(2 / math.pi)
check.gelu({})
"""
NORM = """
import torch
from minigpt import check
def my_layer_norm(x, weight, bias, eps=1e-5):
    dims, correction = {}
    mean = x.mean(dim=dims, keepdim=True)
    var = x.var(dim=dims, keepdim=True, correction=correction)
    return {}
check.layer_norm(my_layer_norm)
"""
RIGHT_NORM = "(x - mean) / torch.sqrt(var + eps) * weight + bias"
DROP = """
import torch
from minigpt import check
def my_dropout(x, p, training):
    keep = torch.rand_like(x) >= p
    {}
check.dropout(my_dropout)
"""
BLOCK = """
from minigpt import check
def block_forward(block, x):
    ln_1, attn, ln_2, mlp = block.ln_1, block.attn, block.ln_2, block.mlp
    {}
check.block_forward(block_forward)
"""
RMS = """
import torch
import torch.nn.functional as F
from minigpt import check
def my_rms_norm(x, weight, eps=1e-5):
    square = x.square().mean(dim=-1, keepdim=True)
    return {}
check.rms_norm(my_rms_norm)
"""
SWIGLU = """
import torch.nn.functional as F
from minigpt import check
from torch import nn
class MySwiGLU(nn.Module):
    def __init__(self, emb_dim):
        super().__init__()
        h = {}
        self.gate = nn.Linear(emb_dim, h, bias=False)
        self.up = nn.Linear(emb_dim, h, bias=False)
        self.down = nn.Linear(h, emb_dim, bias=False)
    def forward(self, x):
        return self.down({})
check.swiglu(MySwiGLU)
"""
GATED = "F.silu(self.gate(x)) * self.up(x)"


def norm(dims="-1", correction="0", result=RIGHT_NORM):
    return NORM.format(f"{dims}, {correction}", result)


WRONG = [
    ("gelu", GELU.format("F.gelu"), "exact form"),
    ("gelu", GELU.format("F.relu"), "this is ReLU"),
    ("gelu", GELU.format("F.silu"), "this is SiLU"),
    (
        "gelu",
        GELU.format("lambda x: x * torch.sigmoid(1.702 * x)"),
        "sigmoid approximation",
    ),
    (
        "gelu",
        GELU.format(
            "lambda x: x * (1 + torch.tanh(a * (x + 0.044715 * x**3)))"
        ),
        "factor 0.5",
    ),
    (
        "gelu",
        GELU.format(
            "lambda x: 0.5 * (1 + torch.tanh(a * (x + 0.044715 * x**3)))"
        ),
        "factor x in front",
    ),
    (
        "gelu",
        GELU.format("lambda x: 0.5 * x * (1 + torch.tanh(a * x))"),
        "cubic term",
    ),
    (
        "gelu",
        GELU.format(
            "lambda x: 0.5 * x * (1 + torch.tanh(a * x + 0.044715 * x**3))"
        ),
        "mind the brackets",
    ),
    ("gelu", GELU.format("torch.tanh"), "at x ="),
    ("gelu", GELU.format("lambda x: None"), "returned None"),
    ("layer_norm", norm(correction="1"), "correction=0"),
    (
        "layer_norm",
        norm(result="(x - mean) / (var.sqrt() + eps) * weight + bias"),
        "outside the square root",
    ),
    (
        "layer_norm",
        norm(result="(x - mean) / var.sqrt() * weight + bias"),
        "left out eps",
    ),
    (
        "layer_norm",
        norm(result="(x - mean) / (var + eps) * weight + bias"),
        "divide by the variance",
    ),
    (
        "layer_norm",
        norm(result="(x - mean) / torch.sqrt(var + eps)"),
        "scale and shift are missing",
    ),
    (
        "layer_norm",
        norm(result="(x - mean) / torch.sqrt(var + eps) + bias"),
        "learned scale is missing",
    ),
    (
        "layer_norm",
        norm(result="(x - mean) / torch.sqrt(var + eps) * weight"),
        "learned shift is missing",
    ),
    (
        "layer_norm",
        norm(result="((x - mean) / torch.sqrt(var + eps) + bias) * weight"),
        "before you scale",
    ),
    (
        "layer_norm",
        norm(result="x / torch.sqrt(var + eps) * weight + bias"),
        "do not subtract the mean",
    ),
    ("layer_norm", norm("0"), "over the batch"),
    ("layer_norm", norm("1"), "over time"),
    ("layer_norm", norm("(0, 1)"), "BatchNorm"),
    ("layer_norm", norm("(0, 1, 2)"), "all numbers at once"),
    ("layer_norm", norm(result="2 * x"), "has mean"),
    ("layer_norm", norm(result="mean"), "keepdim"),
    (
        "dropout",
        DROP.format("return x * keep if training else x"),
        "not scaled",
    ),
    ("dropout", DROP.format("return x * keep / (1 - p)"), "in evaluation too"),
    (
        "dropout",
        DROP.format("return x * keep if training else x * (1 - p)"),
        "change the numbers",
    ),
    (
        "dropout",
        DROP.format("return x * ~keep / p if training else x"),
        "not to be kept",
    ),
    (
        "dropout",
        DROP.format("return x * keep * (1 - p) if training else x"),
        "by 1 - p",
    ),
    (
        "dropout",
        DROP.format("return x * keep / max(p, 0.01) if training else x"),
        "by 1/p",
    ),
    (
        "dropout",
        DROP.format("return x * keep[:1] / (1 - p) if training else x"),
        "whole rows or columns",
    ),
    (
        "dropout",
        DROP.format(
            "g = torch.Generator().manual_seed(0)\n"
            "    keep = torch.rand(x.shape, generator=g) >= p\n"
            "    return x * keep / (1 - p) if training else x"
        ),
        "new random numbers",
    ),
    (
        "dropout",
        DROP.format(
            "keep = torch.randn_like(x) >= p\n"
            "    return x * keep / (1 - p) if training else x"
        ),
        "not randn",
    ),
    ("dropout", DROP.format("return x"), "nothing was dropped"),
    (
        "dropout",
        DROP.format("return x * keep / (1 - p) if training else None"),
        "return x as it is",
    ),
    (
        "block_forward",
        BLOCK.format(
            "x = ln_1(x); x = x + attn(x)\n    return mlp(ln_2(x))"
        ),
        "both bugs",
    ),
    (
        "block_forward",
        BLOCK.format(
            "x = ln_1(x); x = x + attn(x)\n    return x + mlp(ln_2(x))"
        ),
        "ln_1 stands on the road",
    ),
    (
        "block_forward",
        BLOCK.format("x = x + attn(ln_1(x))\n    return mlp(ln_2(x))"),
        "the MLP replaces the stream",
    ),
    (
        "block_forward",
        BLOCK.format("x = attn(ln_1(x))\n    return x + mlp(ln_2(x))"),
        "attention replaces the stream",
    ),
    (
        "block_forward",
        BLOCK.format(
            "x = ln_1(x + attn(x))\n    return ln_2(x + mlp(x))"
        ),
        "post-LayerNorm",
    ),
    (
        "block_forward",
        BLOCK.format("return x + attn(ln_1(x)) + mlp(ln_2(x))"),
        "GPT-J",
    ),
    (
        "block_forward",
        BLOCK.format("x = x + attn(ln_1(x))\n    return x + mlp(ln_1(x))"),
        "norm of its own",
    ),
    (
        "block_forward",
        BLOCK.format("y = x + attn(ln_1(x))\n    return x + mlp(ln_2(y))"),
        "is lost",
    ),
    ("block_forward", BLOCK.format("return x"), "differs from Block's"),
    (
        "rms_norm",
        RMS.format("F.layer_norm(x, weight.shape, weight, eps=eps)"),
        "do not subtract the mean",
    ),
    (
        "rms_norm",
        RMS.format("x / (square.sqrt() + eps) * weight"),
        "outside the square root",
    ),
    (
        "rms_norm",
        RMS.format("x / square.sqrt() * weight"),
        "left out eps",
    ),
    (
        "rms_norm",
        RMS.format("x / (square + eps) * weight"),
        "take its root",
    ),
    (
        "rms_norm",
        RMS.format("x * torch.rsqrt(square + eps)"),
        "learned scale is missing",
    ),
    (
        "rms_norm",
        RMS.format("x * torch.rsqrt(square * x.shape[-1] + eps) * weight"),
        "sum of the squares",
    ),
    (
        "rms_norm",
        RMS.format("x * torch.rsqrt(x.square().mean() + eps) * weight"),
        "all numbers at once",
    ),
    ("rms_norm", RMS.format("x"), "times what it should be"),
    ("swiglu", SWIGLU.format("4 * emb_dim", GATED), "12 C²"),
    ("swiglu", SWIGLU.format("emb_dim", GATED), "should come to 8 C²"),
    (
        "swiglu",
        SWIGLU.format(
            "8 * emb_dim // 3", "F.silu(self.gate(x)) + self.up(x)"
        ),
        "near 0 your layer is linear",
    ),
    (
        "swiglu",
        SWIGLU.format("8 * emb_dim // 3", "self.gate(x) * self.up(x)"),
        "no SiLU",
    ),
    (
        "swiglu",
        SWIGLU.format("8 * emb_dim // 3", GATED + ".cumsum(1)"),
        "depends on other tokens",
    ),
    (
        "swiglu",
        "from minigpt import check\nfrom torch import nn\n"
        "class MySwiGLU(nn.Module): ...\ncheck.swiglu(MySwiGLU)",
        "super().__init__()",
    ),
]
