"""minigpt.multihead: errors, edge cases and properties of the three forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.attention import TinyLM, attention, causal_mask, leaks
from minigpt.multihead import (
    CausalSelfAttention,
    MultiHeadBatched,
    MultiHeadList,
    causal_attention,
    merge_heads,
    split_heads,
    split_width,
)

FORMS = [MultiHeadList, MultiHeadBatched, CausalSelfAttention]
sizes = st.tuples(*(st.integers(1, 5) for _ in range(4)))  # B, T, nh, hs
quick = settings(max_examples=25, deadline=None)


def same_weights(emb_dim, n_heads):
    """A layer of each form, all with the list's weights."""
    listed = MultiHeadList(emb_dim, n_heads)
    batched = MultiHeadBatched(emb_dim, n_heads)
    fused = CausalSelfAttention(emb_dim, n_heads, qkv_bias=False)
    names = ("query", "key", "value")
    with torch.no_grad():
        stacks = [
            torch.cat([getattr(h, name).weight for h in listed.heads])
            for name in names
        ]
        for name, stack in zip(names, stacks):
            getattr(batched, name).weight.copy_(stack)
        fused.c_attn.weight.copy_(torch.cat(stacks))
    for layer in (batched, fused):
        layer.c_proj.load_state_dict(listed.c_proj.state_dict())
    return listed, batched, fused


@quick
@given(sizes)
def test_three_forms_are_one_function(shape):
    B, T, nh, hs = shape
    torch.manual_seed(sum(shape))
    x = torch.randn(B, T, nh * hs)
    want, *others = (form(x) for form in same_weights(nh * hs, nh))
    assert want.shape == x.shape
    for other in others:
        torch.testing.assert_close(other, want, atol=1e-5, rtol=1e-4)


@quick
@given(sizes)
def test_split_and_merge(shape):
    B, T, nh, hs = shape
    x = torch.arange(B * T * nh * hs).view(B, T, nh * hs)
    heads = split_heads(x, nh)
    assert heads.shape == (B, nh, T, hs)
    for head, channels in enumerate(x.split(hs, dim=-1)):
        assert torch.equal(heads[:, head], channels)
    assert torch.equal(merge_heads(heads), x)


@pytest.mark.parametrize("form", FORMS)
def test_the_future_cannot_leak(form):
    torch.manual_seed(0)
    model = TinyLM(form(16, 4), 11, 9, 16)
    assert leaks(model, torch.randint(11, (2, 9))) is None


@pytest.mark.parametrize("form", FORMS)
def test_every_head_sees_the_whole_past(form):
    torch.manual_seed(0)
    layer = form(16, 4)
    x = torch.randn(1, 9, 16)
    other = x.clone()
    other[:, 0] += 1
    layer.c_proj = torch.nn.Identity()  # the heads' outputs, side by side
    changed = layer(x)[0, -1] != layer(other)[0, -1]  # (C,)
    assert changed.view(4, 4).any(dim=1).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_heads", [0, -1, 3, 32])
def test_heads_must_share_the_width(form, n_heads):
    with pytest.raises(ValueError, match="emb_dim 16 cannot be shared by"):
        form(16, n_heads)


def test_split_width_says_what_to_do():
    assert split_width(768, 12) == 64
    with pytest.raises(ValueError, match="choose n_heads >= 1 that divides"):
        split_width(10, 4)
    with pytest.raises(ValueError, match="emb_dim 10 cannot be shared by 4"):
        split_heads(torch.zeros(1, 2, 10), 4)


@pytest.mark.parametrize("n_heads", [1, 2, 8])
def test_parameters_do_not_depend_on_heads(n_heads):
    layer = CausalSelfAttention(16, n_heads)
    assert sum(p.numel() for p in layer.parameters()) == 4 * 16**2 + 4 * 16


def test_parameter_names_and_biases():
    names = ["c_attn.weight", "c_attn.bias", "c_proj.weight", "c_proj.bias"]
    assert list(CausalSelfAttention(8, 2).state_dict()) == names
    bare = CausalSelfAttention(8, 2, qkv_bias=False, bias=False)
    assert list(bare.state_dict()) == names[::2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("T", [1, 2, 64, 256, 257])
def test_causal_attention_on_either_side_of_its_choice(dtype, T):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, T, 8)
    want, _ = attention(q, k, v, causal_mask(T))
    got = causal_attention(q.to(dtype), k.to(dtype), v.to(dtype))
    assert got.dtype == dtype
    atol = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(got.float(), want, atol=atol, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_is_for_training_only(dtype):
    torch.manual_seed(0)
    layer = CausalSelfAttention(16, 2, drop_rate=0.5).to(dtype)
    layer.resid_drop.p = 0.0  # leaves the dropout of the weights alone
    x = torch.randn(1, 12, 16, dtype=dtype)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_weights_are_those_that_mix():
    torch.manual_seed(0)
    layer = CausalSelfAttention(12, 3).eval()
    x = torch.randn(2, 7, 12)
    weights = layer.weights(x)
    assert weights.shape == (2, 3, 7, 7)
    assert not weights.triu(1).any()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 7))
    mixed = layer.c_proj(merge_heads(weights @ layer.qkv(x)[2]))
    torch.testing.assert_close(mixed, layer(x))


def test_heads_do_not_mix_before_the_output_layer():
    torch.manual_seed(0)
    layer = CausalSelfAttention(8, 2, qkv_bias=False)
    x = torch.randn(1, 5, 8)
    with torch.no_grad():
        layer.c_proj.weight.copy_(torch.eye(8))
        before = layer(x)
        layer.c_attn.weight.view(3, 2, 4, 8)[:, 1] *= 2  # head 1 alone
        after = layer(x)
    assert torch.equal(before[..., :4], after[..., :4])
    assert not torch.allclose(before[..., 4:], after[..., 4:])


def test_dropout_also_acts_on_what_is_written():
    torch.manual_seed(0)
    layer = CausalSelfAttention(16, 2, drop_rate=0.5)
    layer.drop_rate = 0.0  # leaves the dropout of the weights out
    share = (layer(torch.randn(2, 50, 16)) == 0).float().mean()
    assert share == pytest.approx(0.5, abs=0.1)
