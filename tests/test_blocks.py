"""Chapter 5's module: what the notebook does not show."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.blocks import MLP, Block, LayerNorm, StudyBlock, gelu

quick = settings(max_examples=25, deadline=None)


def stream(B=2, T=7, C=16, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(B, T, C, generator=rng)


@quick
@given(
    st.integers(2, 64),
    st.floats(-100, 100),
    st.floats(0.5, 100),
    st.integers(0, 99),
)
def test_layer_norm_centers_and_scales_each_token(dim, shift, scale, seed):
    x = shift + scale * stream(C=dim, seed=seed)
    out = LayerNorm(dim)(x)
    torch.testing.assert_close(
        out.mean(-1), torch.zeros(2, 7), atol=1e-3, rtol=0
    )
    var = x.double().var(-1, correction=0)
    torch.testing.assert_close(
        out.double().var(-1, correction=0),
        var / (var + 1e-5),
        atol=1e-2,
        rtol=0,
    )


@quick
@given(st.floats(0.5, 50), st.floats(-50, 50))
def test_layer_norm_forgets_scale_and_shift_of_its_input(scale, shift):
    x = stream()
    ln = LayerNorm(16)
    torch.testing.assert_close(
        ln(scale * x + shift), ln(x), atol=2e-3, rtol=1e-2
    )


def test_layer_norm_learns_scale_and_shift():
    ln = LayerNorm(16)
    with torch.no_grad():
        ln.weight.fill_(3.0)
        ln.bias.fill_(-1.0)
    x = stream()
    torch.testing.assert_close(ln(x), 3 * F.layer_norm(x, (16,)) - 1)


def test_layer_norm_of_equal_numbers_is_zero_not_nan():
    assert LayerNorm(4)(torch.full((1, 4), 7.0)).tolist() == [[0.0] * 4]


def test_without_bias_there_is_no_bias_parameter():
    assert list(LayerNorm(8, bias=False).state_dict()) == ["weight"]
    names = Block(16, 4, qkv_bias=False, bias=False).state_dict()
    assert names and all(name.endswith(".weight") for name in names)
    assert "attn.c_attn.bias" in Block(16, 4, bias=False).state_dict()


def test_parameter_names_are_those_of_gpt2():
    layers = ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc",
              "mlp.c_proj"]
    assert set(Block(16, 4).state_dict()) == {
        f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")
    }


@quick
@given(st.floats(-30, 30))
def test_gelu_is_near_its_exact_form(value):
    x = torch.tensor([value])
    assert (gelu(x) - F.gelu(x)).abs().item() < 1e-3


@quick
@given(st.integers(0, 6), st.integers(0, 99))
def test_mlp_works_on_each_token_alone(position, seed):
    torch.manual_seed(seed)
    mlp, x = MLP(16), stream(seed=seed)
    alone = mlp(x[:, position : position + 1])
    torch.testing.assert_close(mlp(x)[:, position : position + 1], alone)


def test_mlp_uses_the_activation_it_is_given():
    torch.manual_seed(0)
    mlp = MLP(16, activation=F.relu)
    x = stream()
    torch.testing.assert_close(mlp(x), mlp.c_proj(mlp.c_fc(x).relu()))


@pytest.mark.parametrize("make", [Block, StudyBlock])
def test_block_does_not_see_the_future(make):
    torch.manual_seed(0)
    block, x = make(16, 4), stream()
    changed = x.clone()
    changed[:, 4:] += 1
    assert torch.equal(block(changed)[:, :4], block(x)[:, :4])
    assert not torch.equal(block(changed)[:, 4:], block(x)[:, 4:])


def test_block_refuses_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match="emb_dim 16 cannot be shared by 3"):
        Block(16, 3)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    block, x = Block(16, 4, drop_rate=0.5), stream()
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_block_is_its_formula():
    """With LayerNorms that have learned, each has its own place."""
    torch.manual_seed(0)
    block, x = Block(16, 2), stream()
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if name.startswith("ln_"):
                parameter.normal_()
    after = x + block.attn(block.ln_1(x))
    want = after + block.mlp(block.ln_2(after))
    torch.testing.assert_close(block(x), want)


def test_block_hands_its_cache_to_attention():
    class Cache:
        def attend(self, q, k, v):
            return v * 0

    block, x = Block(16, 2), stream()
    with torch.no_grad():
        block.attn.c_proj.bias.zero_()
    want = x + block.mlp(block.ln_2(x))  # attention wrote nothing
    torch.testing.assert_close(block(x, Cache()), want)


def test_mlp_drops_what_it_writes():
    torch.manual_seed(0)
    share = (MLP(16, drop_rate=0.5)(stream(T=50)) == 0).float().mean()
    assert share == pytest.approx(0.5, abs=0.1)


def test_gelu_is_the_tanh_form():
    x = torch.linspace(-4, 4, 81)
    inner = (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)
    want = 0.5 * x * (1 + inner.tanh())
    torch.testing.assert_close(gelu(x), want, atol=1e-6, rtol=0)


def test_study_block_with_everything_is_the_block():
    torch.manual_seed(0)
    clean, study = Block(16, 4), StudyBlock(16, 4)
    study.load_state_dict(clean.state_dict())  # the same names
    assert torch.equal(clean(stream()), study(stream()))


@pytest.mark.parametrize(
    "choices, formula",
    [
        ({"norm": None}, lambda b, x: _add(_add(x, b.attn), b.mlp)),
        (
            {"norm": "post"},
            lambda b, x: b.ln_2(_add(b.ln_1(_add(x, b.attn)), b.mlp)),
        ),
        (
            {"residual": False},
            lambda b, x: b.mlp(b.ln_2(b.attn(b.ln_1(x)))),
        ),
        ({"mlp": False}, lambda b, x: x + b.attn(b.ln_1(x))),
        ({"attention": False}, lambda b, x: x + b.mlp(b.ln_2(x))),
        (
            {"residual": False, "norm": "post"},
            lambda b, x: b.ln_2(b.mlp(b.ln_1(b.attn(x)))),
        ),
        ({"attention": False, "mlp": False}, lambda b, x: x),
    ],
    ids=lambda part: str(part) if isinstance(part, dict) else "formula",
)
def test_study_block_leaves_out_what_it_is_told(choices, formula):
    torch.manual_seed(0)
    block, x = StudyBlock(16, 4, **choices), stream()
    torch.testing.assert_close(block(x), formula(block, x))


def _add(x, layer):
    return x + layer(x)


def test_what_is_left_out_has_no_parameters():
    names = StudyBlock(16, 4, mlp=False, norm=None).state_dict()
    assert {name.split(".")[0] for name in names} == {"attn"}


@pytest.mark.parametrize("norm", ["Pre", "", True, False])
def test_unknown_norm_is_refused_with_the_choices(norm):
    with pytest.raises(ValueError, match='write "pre", "post", or None'):
        StudyBlock(16, 4, norm=norm)


def test_study_block_takes_a_module_as_activation():
    torch.manual_seed(0)
    block = StudyBlock(16, 4, activation=torch.nn.SiLU())
    assert isinstance(block.mlp.activation, torch.nn.SiLU)
    assert block(stream()).shape == (2, 7, 16)
