"""Checks of chapter 6, the mini GPT."""

from dataclasses import replace

import torch
from torch import nn

from minigpt.check._base import Hint, exercise, expect
from minigpt.model import PRESETS, GPTConfig, count_params


@exercise
def param_count(answer):
    """right for every preset and for odd shapes, to the last digit."""
    odd = GPTConfig(11, 7, 12, 3, 2, tie_weights=False)
    got = answer(PRESETS["pocket"])
    expect(got is not None, "it returned None: return the number")
    for config in (*PRESETS.values(), odd):
        _explain_count(config, answer(config))


def _explain_count(config: GPTConfig, got) -> None:
    parts = count_params(config)
    true = sum(parts.values())
    if got == true:
        return
    c = config.emb_dim
    off = got - true
    known = {
        -parts["position embedding"]: "the position table (T x C) is missing",
        -parts["token embedding"]: "the token table (V x C) is missing",
        -parts["LayerNorm"]: "the LayerNorms are missing: two a block and "
        "one at the end",
        -c * (1 + config.bias): "the last LayerNorm (ln_f) is missing",
    }
    bare = count_params(replace(config, bias=False, qkv_bias=False))
    linear = sum(parts[k] - bare[k] for k in ("attention", "MLP"))
    norms = parts["LayerNorm"] - bare["LayerNorm"]
    if linear:
        known[-linear] = (
            "the biases of the linear layers are missing: 3C + C in "
            "attention and 4C + C in the MLP"
        )
        known[-linear - norms] = (
            "the biases are missing: up to 9 C a block in the linear "
            "layers, and C in each LayerNorm"
        )
    table = config.vocab_size * c
    if config.tie_weights:
        known[table] = "the tied output layer was counted a second time"
    else:
        known[-table] = "without tying, the output layer is a table of its own"
    why = known.get(off, "go through the parts one by one")
    raise Hint(f"{got:,} instead of {true:,} for {config}: {why}")


@exercise
def tied(answer):
    """one tensor under two names: they will always learn together."""
    embedding, linear = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    before = embedding.weight.detach().clone()
    answer(embedding, linear)
    same = linear.weight is embedding.weight
    if not same and torch.equal(linear.weight, before):
        raise Hint(
            "the numbers are equal now, but they are copies: after one "
            "step they differ. Assign the parameter itself"
        )
    expect(same, "linear.weight is still a tensor of its own")
    expect(
        torch.equal(embedding.weight, before),
        "the embedding's numbers changed: tie the linear layer to the "
        "embedding, not the other way round",
    )


@exercise
def residual_std(answer):
    """the stream ends as loud as one write, whatever the depth."""
    got = answer(6)
    expect(got is not None, "it returned None: return the number")
    want = 0.02 / 12**0.5
    hints = {
        0.02 / 6**0.5: "each block writes twice, once from attention and "
        "once from the MLP: 2 * n_layers writes",
        0.02 / 12: "variances add up, so the standard deviation grows with "
        "the square root of the number of writes",
        0.02 / 6: "two things: each block writes twice, and it is the "
        "variances that add up (take a square root)",
        0.02 * 12**0.5: "this makes the writes louder: divide",
        0.02: "with 0.02 for each, the sum is louder the deeper the model is",
    }
    for value, hint in hints.items():
        expect(abs(got - value) > 1e-6, hint)
    expect(abs(got - want) < 1e-6, f"for 6 blocks {want:.5f}, not {got:.5f}")


@exercise
def orthogonalize(answer):
    """same directions, every one equally loud."""
    torch.manual_seed(0)
    for shape in ((6, 4), (4, 6)):
        matrix = torch.randn(shape) @ torch.diag(
            torch.logspace(0, -2, shape[1])
        )
        got = answer(matrix.clone())
        expect(
            isinstance(got, torch.Tensor), "return the matrix, as a tensor"
        )
        expect(
            got.shape == matrix.shape,
            f"a {tuple(matrix.shape)} matrix came back as "
            f"{tuple(got.shape)}: ask svd for full_matrices=False",
        )
        values = torch.linalg.svdvals(got)
        if values.max() - values.min() > 1e-3:
            raise Hint(
                f"the singular values run from {values.min():.2g} to "
                f"{values.max():.2g}: they should all be 1 (normalizing "
                "the whole matrix, or its rows, is not enough)"
            )
        expect(
            (values - 1).abs().max() < 1e-3,
            f"the singular values are equal, but {values[0]:.2g} instead of 1",
        )
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        expect(
            torch.allclose(got, u @ vh, atol=1e-3),
            "the singular values are 1, but the directions are not those of "
            "the matrix: keep U and V as svd returned them (it returns V "
            "already transposed)",
        )


@exercise
def training_days(answer):
    """six operations for each parameter and token, 86,400 seconds a day."""
    got = answer(1e9, 1e10, 1e15)
    expect(got is not None, "it returned None: return the days")
    want = 6 * 1e9 * 1e10 / 1e15 / 86_400
    hints = {
        3: "2 operations are the way forward; the way back costs 4 more",
        1 / 86_400: "these are seconds: a day has 86,400 of them",
        1 / 24: "these are hours: a day has 24 of them",
        6: "each parameter takes 6 operations for each token, not 1",
    }
    for factor, hint in hints.items():
        expect(abs(got * factor / want - 1) > 1e-6, hint)
    expect(
        abs(got / want - 1) < 1e-6,
        f"a billion parameters, ten billion tokens and 1e15 operations a "
        f"second make {want:.3f} days, not {got:.3g}",
    )
