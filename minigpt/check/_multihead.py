"""Checks of chapter 4, many heads."""

import torch

from minigpt import multihead as lib

from ._base import Hint, exercise, expect


def _shape(got: object, want: tuple[int, ...], name: str) -> None:
    """Hint unless got is a tensor of that shape."""
    expect(got is not None, f"returned None: return {name}")
    expect(isinstance(got, torch.Tensor), f"return a tensor, {name}")
    expect(
        got.shape == want,
        f"the result is {tuple(got.shape)}, and {name} has shape {want}",
    )


@exercise
def attention_params(answer):
    """4 C^2 + 4 C, and the number of heads is not in it."""
    for emb_dim, n_heads in ((64, 1), (64, 4), (96, 6)):
        got = answer(emb_dim, n_heads)
        expect(got is not None, "returned None: return the number")
        c, nh = emb_dim, n_heads
        right = 4 * c * c + 4 * c
        if got == right:
            continue
        known = {
            4 * c * c: "the biases are missing: 3C in c_attn, C in c_proj",
            3 * c * c + 3 * c: "c_proj is missing: another C x C and C",
            3 * c * c: "c_proj and all biases are missing",
            2 * c * c + 2 * c: "c_attn makes queries, keys and values: it "
            "has 3C rows",
            nh * right: "the heads share the width, so nothing is "
            "multiplied by their number: each has C / n_heads channels",
            nh * 3 * c * c + c * c + 4 * c: "each head has C / n_heads "
            "channels, not C: all heads together have 3C rows",
        }
        raise Hint(
            f"emb_dim {c} and {nh} heads give {right:,}, not {got:,}: "
            + known.get(got, "add up c_attn and c_proj, weights and biases")
        )


@exercise
def split_heads(answer):
    """each head holds its channels of every token."""
    B, T, nh, hs = 2, 3, 2, 4
    x = torch.arange(B * T * nh * hs).view(B, T, nh * hs)
    got = answer(x.clone(), nh)
    expect(got is not None, "returned None: return (B, nh, T, hs)")
    if isinstance(got, torch.Tensor) and got.shape == (B, T, nh, hs):
        raise Hint(
            "the result is (B, T, nh, hs): the cut is right, now swap time "
            "and heads, or the product would attend from head to head"
        )
    _shape(got, (B, nh, T, hs), "(B, nh, T, hs)")
    expect(
        not torch.equal(got, x.view(B, nh, T, hs)),
        "the shape is right and the numbers are not: view alone cuts memory "
        "from left to right, so head 0 got the first tokens with all their "
        "channels. Cut as (B, T, nh, hs), then transpose(1, 2)",
    )
    mixed = x.view(B, T, hs, nh).permute(0, 3, 1, 2)
    expect(
        not torch.equal(got, mixed),
        "head 0 got every second channel: cut the channels as (nh, hs), "
        "in this order, so that a head's channels are neighbors",
    )
    expect(
        torch.equal(got, lib.split_heads(x, nh)),
        f"head 0 of the first row should begin with {x[0, 0, :hs].tolist()} "
        f"and {x[0, 1, :hs].tolist()}, and begins with "
        f"{got[0, 0, :2].tolist()}",
    )
    uneven = answer(torch.zeros(1, 2, 12), 3)
    _shape(uneven, (1, 3, 2, 4), "12 channels cut for 3 heads")


@exercise
def merge_heads(answer):
    """split and merged, every number is back in its place."""
    B, T, nh, hs = 2, 3, 2, 4
    x = torch.arange(B * T * nh * hs).view(B, T, nh * hs)
    heads = lib.split_heads(x, nh).contiguous()  # as attention returns it
    try:
        got = answer(heads)
    except RuntimeError as error:
        if "view" not in str(error):
            raise
        raise Hint(
            "view refused: after transpose the numbers do not lie in memory "
            "in this order. Use reshape, flatten, or contiguous() before view"
        ) from None
    _shape(got, (B, T, nh * hs), "(B, T, C)")
    expect(
        not torch.equal(got, heads.reshape(B, T, nh * hs)),
        "the shape is right and the numbers are not: time and heads were "
        "not swapped back before gluing, so a token got other tokens' "
        "channels. First transpose(1, 2)",
    )
    expect(
        not torch.equal(got, heads.permute(0, 2, 3, 1).flatten(-2)),
        "the heads' channels are interleaved: glue head 0's channels, then "
        "head 1's, that is (nh, hs) in this order",
    )
    expect(
        torch.equal(got, x),
        f"the first token should be {x[0, 0].tolist()}, and is "
        f"{got[0, 0].tolist()}",
    )


@exercise
def masked_sdpa(answer):
    """the mask by hand does what is_causal does."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 5, 4)
    got = answer(q, k, v)
    _shape(got, (2, 2, 5, 4), "the mixtures (B, nh, T, hs)")
    sdpa = torch.nn.functional.scaled_dot_product_attention
    past = torch.ones(5, 5, dtype=torch.bool).tril()

    def near(other: torch.Tensor) -> bool:
        return torch.allclose(got, other, atol=1e-5, equal_nan=True)

    expect(not near(sdpa(q, k, v)), "nothing is masked: all see the future")
    expect(
        not near(sdpa(q, k, v, attn_mask=past.float())),
        "a mask of numbers is added to the scores, so 1 and 0 forbid "
        "nothing: pass booleans, or 0 and -inf",
    )
    expect(
        not near(sdpa(q, k, v, attn_mask=past.T)),
        "everyone sees only the future: in this mask True means may look, "
        "so it is the lower triangle",
    )
    expect(
        not got.isnan().any(),
        "the first row is NaN: it may look nowhere. The diagonal belongs to "
        "the mask, and True means may look",
    )
    expect(
        not near(sdpa(q, k, v, attn_mask=past | past.roll(1, 1))),
        "each row sees one token too many",
    )
    expect(
        near(sdpa(q, k, v, is_causal=True)),
        "this is not what is_causal=True gives: row t may look at 0 to t",
    )


@exercise
def silence_head(answer):
    """this head writes nothing, the others write what they did."""
    torch.manual_seed(0)
    attn = lib.CausalSelfAttention(12, 3)
    before = attn.c_proj.weight.detach().clone()
    bias = attn.c_proj.bias.detach().clone()
    qkv = attn.c_attn.weight.detach().clone()
    answer(attn, 1)
    after = attn.c_proj.weight.detach()
    expect(
        torch.equal(attn.c_attn.weight, qkv),
        "c_attn changed: a head without queries still writes; change c_proj",
    )
    expect(
        not torch.equal(after, before),
        "c_proj is as it was: set the head's columns of its weight to 0",
    )
    expect(
        torch.equal(attn.c_proj.bias, bias),
        "the bias changed: it belongs to no head",
    )
    rows, columns = before.clone(), before.clone()
    rows[4:8], columns[:, 4:8] = 0, 0
    expect(
        not torch.equal(after, rows),
        "these are rows, which are output channels: what comes in from a "
        "head are columns, weight[:, ...]",
    )
    expect(after.any(), "everything is 0: silence one head, not all")
    changed = (after != before).any(dim=0).nonzero().flatten().tolist()
    expect(
        torch.equal(after, columns),
        f"columns {changed} changed, head 1 of 3 heads with 4 channels is "
        "columns [4, 5, 6, 7], and they become 0",
    )


@exercise
def grouped_query(answer):
    """8 query heads share 2 key and value heads, neighbors together."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, n, 5, 4) for n in (8, 2, 2))
    got = answer(q, k, v)
    _shape(got, (2, 8, 5, 4), "the mixtures, one for each query head")

    def want(times, repeat, causal=True):
        return torch.nn.functional.scaled_dot_product_attention(
            q, repeat(k, times), repeat(v, times), is_causal=causal
        )

    def interleave(heads, times):
        return heads.repeat_interleave(times, dim=1)

    def tiled(heads, times):
        return heads.repeat(1, times, 1, 1)

    def near(other: torch.Tensor) -> bool:
        return torch.allclose(got, other, atol=1e-5)

    expect(
        not near(want(4, tiled)),
        "repeat makes the order 0 1 0 1 ..., so query heads 0 to 3 do not "
        "share key head 0: use repeat_interleave, 0 0 0 0 1 1 1 1",
    )
    expect(
        not near(want(4, interleave, causal=False)),
        "the sharing is right, but the future is visible: mask it",
    )
    if near(want(8, lambda heads, n: heads[:, :1].expand(-1, n, -1, -1))):
        raise Hint(
            "all query heads use key head 0, which is multi-query "
            "attention: query heads 4 to 7 should use key head 1"
        )
    expect(
        near(want(4, interleave)),
        "query head i should mix with key and value head i // 4",
    )
    one = answer(q, k[:, :1], v[:, :1])
    _shape(one, (2, 8, 5, 4), "the result with a single key head")
