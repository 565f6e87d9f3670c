"""Wrong answers to the exercises of chapter 6, and the hint each must get."""

WRONG = [
    ("param_count", "check.param_count(lambda c: None)", "returned None"),
    (
        "param_count",
        """
from minigpt.model import count_params
check.param_count(
    lambda c: sum(count_params(c).values()) - c.context_length * c.emb_dim)
""",
        "position table",
    ),
    (
        "param_count",
        """
from minigpt.model import count_params
check.param_count(
    lambda c: sum(count_params(c).values()) + c.vocab_size * c.emb_dim)
""",
        "counted a second time",
    ),
    (
        "param_count",
        """
from dataclasses import replace
from minigpt.model import count_params
check.param_count(lambda c: sum(count_params(
    replace(c, bias=False, qkv_bias=False)).values()))
""",
        "biases",
    ),
    (
        "tied",
        """
def copy(embedding, linear):
    linear.weight.data.copy_(embedding.weight.data)
check.tied(copy)
""",
        "copies",
    ),
    ("tied", "check.tied(lambda e, l: None)", "a tensor of its own"),
    (
        "tied",
        """
def backwards(embedding, linear):
    embedding.weight = linear.weight
check.tied(backwards)
""",
        "the other way round",
    ),
    (
        "residual_std",
        "check.residual_std(lambda n: 0.02 / n ** 0.5)",
        "writes twice",
    ),
    (
        "residual_std",
        "check.residual_std(lambda n: 0.02 / (2 * n))",
        "square root",
    ),
    ("residual_std", "check.residual_std(lambda n: 0.02)", "louder"),
    (
        "orthogonalize",
        "check.orthogonalize(lambda m: m / m.norm())",
        "singular values run from",
    ),
    (
        "orthogonalize",
        """
import torch
def wrong(m):
    u, _, vh = torch.linalg.svd(m)
    return u
check.orthogonalize(wrong)
""",
        "full_matrices=False",
    ),
    (
        "orthogonalize",
        """
import torch
def wrong(m):
    u, _, vh = torch.linalg.svd(m, full_matrices=False)
    return 2 * u @ vh
check.orthogonalize(wrong)
""",
        "2 instead of 1",
    ),
    (
        "training_days",
        "check.training_days(lambda n, t, f: 2 * n * t / f / 86400)",
        "4 more",
    ),
    (
        "training_days",
        "check.training_days(lambda n, t, f: 6 * n * t / f)",
        "seconds",
    ),
]
