"""Chapter 3's module: what a notebook cannot show."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minigpt.attention import Head, TinyLM, attention, causal_mask, leaks

sizes = st.integers(1, 9)


@settings(deadline=None)
@given(sizes)
def test_a_token_sees_itself_and_the_past(num_tokens):
    mask = causal_mask(num_tokens)
    assert mask.dtype == torch.bool
    for t in range(num_tokens):
        assert mask[t].tolist() == [s <= t for s in range(num_tokens)]


@settings(deadline=None)
@given(sizes, sizes, sizes, st.integers(0, 10**6), st.booleans())
def test_attention_is_torchs(num_tokens, head_dim, width, seed, causal):
    g = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, 3, 2, num_tokens, head_dim, generator=g)
    v = torch.randn(3, 2, num_tokens, width, generator=g)
    out, weights = attention(
        q, k, v, causal_mask(num_tokens) if causal else None
    )
    want = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    torch.testing.assert_close(out, want, atol=1e-5, rtol=1e-5)
    assert weights.shape == (3, 2, num_tokens, num_tokens)
    assert (weights >= 0).all()
    torch.testing.assert_close(
        weights.sum(dim=-1), torch.ones(3, 2, num_tokens)
    )
    if causal:
        assert not weights.triu(1).any()


@settings(deadline=None)
@given(sizes, st.integers(0, 10**6))
def test_a_mixture_stays_between_its_values(num_tokens, seed):
    g = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, num_tokens, 4, generator=g)
    out, _ = attention(q, k, v, causal_mask(num_tokens))
    for t in range(num_tokens):
        past = v[: t + 1]
        assert (out[t] <= past.amax(dim=0) + 1e-5).all()
        assert (out[t] >= past.amin(dim=0) - 1e-5).all()


def test_more_keys_than_queries():
    q, k, v = torch.randn(2, 4), torch.randn(5, 4), torch.randn(5, 3)
    out, weights = attention(q, k, v)
    assert out.shape == (2, 3)
    assert weights.shape == (2, 5)


def test_equal_scores_average():
    v = torch.tensor([[2.0], [4.0], [9.0]])
    zeros = torch.zeros(3, 2)
    out, _ = attention(zeros, zeros, v, causal_mask(3))
    assert out.flatten().tolist() == pytest.approx([2, 3, 5])


def test_a_row_that_sees_nothing_is_nan_and_the_others_are_not():
    mask = torch.tensor([[False, False], [True, True]])
    out, _ = attention(*torch.randn(3, 2, 4), mask)
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_a_mask_of_numbers_is_refused(dtype):
    with pytest.raises(ValueError, match="pass booleans, True where"):
        attention(*torch.randn(3, 2, 4), causal_mask(2).to(dtype))


def test_large_scores_do_not_overflow():
    q = torch.full((3, 4), 1e4)
    out, _ = attention(q, q, torch.ones(3, 1), causal_mask(3))
    assert out.flatten().tolist() == [1, 1, 1]


def test_a_head_has_three_matrices_and_no_bias():
    head = Head(8, 4)
    assert sorted(dict(head.named_parameters())) == [
        "key.weight",
        "query.weight",
        "value.weight",
    ]
    x = torch.randn(2, 5, 8)
    out, weights = head.attend(x)
    assert torch.equal(out, head(x))
    assert out.shape == (2, 5, 4)
    want = F.scaled_dot_product_attention(
        head.query(x), head.key(x), head.value(x), is_causal=True
    )
    torch.testing.assert_close(out, want)
    assert weights.shape == (2, 5, 5)


def test_a_head_forgets_the_order_of_the_past():
    head, x = Head(8, 4), torch.randn(1, 6, 8)
    order = torch.tensor([3, 0, 4, 2, 1, 5])
    torch.testing.assert_close(head(x)[:, -1], head(x[:, order])[:, -1])


def tiny(body=None):
    torch.manual_seed(0)
    return TinyLM(body or Head(8, 8), 10, 6, 8)


def test_tiny_shapes():
    idx = torch.randint(10, (2, 6))
    assert tiny()(idx).shape == (2, 6, 10)
    assert tiny()(idx[:, :1]).shape == (2, 1, 10)
    assert tiny().embed(idx).shape == (2, 6, 8)


def test_tiny_knows_which_token_came_first():
    model = tiny()
    for t in range(6):
        want = model.wte.weight[3] + model.wpe.weight[t]
        got = model.embed(torch.full((1, t + 1), 3))[0, t]
        assert torch.equal(got, want)


def test_tiny_refuses_a_text_longer_than_its_context():
    with pytest.raises(ValueError, match="7 tokens do not fit .* 6: pass"):
        tiny()(torch.zeros(1, 7, dtype=torch.long))


# leaks


class Shifted(nn.Module):
    """Each position adds the token `ahead` places after it."""

    def __init__(self, ahead):
        super().__init__()
        self.ahead = ahead

    def forward(self, x):
        return x + 1e-6 * x.roll(-self.ahead, 1)


@pytest.fixture
def idx():
    return torch.randint(
        10, (3, 6), generator=torch.Generator().manual_seed(1)
    )


def test_a_causal_model_does_not_leak(idx):
    assert leaks(tiny(), idx) is None
    assert leaks(tiny(nn.Identity()), idx) is None
    assert leaks(tiny(), idx[:, :1]) is None


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_leaks_finds_a_small_look_ahead(idx, ahead):
    assert leaks(tiny(Shifted(ahead)), idx) == (0, ahead)


def test_leaks_finds_a_leak_in_the_middle(idx):
    class Hole(Head):
        def attend(self, x):
            mask = causal_mask(x.shape[1])
            mask[3, 5] = True
            return attention(self.query(x), self.key(x), self.value(x), mask)

    assert leaks(tiny(Hole(8, 8)), idx) == (3, 5)


def test_leaks_finds_a_leak_in_one_text_of_a_batch(idx):
    class LastText(nn.Module):
        def forward(self, x):
            late = x.flip(1) * torch.tensor([0.0, 0.0, 1.0])[:, None, None]
            return x + late

    assert leaks(tiny(LastText()), idx) == (2, 3)


def test_leaks_changes_neither_ids_nor_mode(idx):
    model, before = tiny(nn.Dropout(0.5)).train(), idx.clone()
    assert leaks(model, idx) is None  # dropout alone is no leak
    assert model.training
    assert torch.equal(idx, before)
    assert all(p.grad is None for p in model.parameters())
    leaks(model.eval(), idx)
    assert not model.training


def test_leaks_cannot_compare_nan(idx):
    model = tiny()
    with torch.no_grad():
        model.wpe.weight[2] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        leaks(model, idx)


def test_leaks_cannot_change_the_only_token():
    blind = TinyLM(nn.Identity(), 1, 4, 8)
    with pytest.raises(ValueError, match="one token, so no token can be ch"):
        leaks(blind, torch.zeros(1, 3, dtype=torch.long))
    two = TinyLM(Shifted(1), 2, 4, 8)
    assert leaks(two, torch.zeros(1, 3, dtype=torch.long)) == (0, 1)
