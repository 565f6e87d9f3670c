"""Wrong answers to the exercises of chapter 4, and the hint each must get."""

SDPA = "torch.nn.functional.scaled_dot_product_attention"

WRONG = [
    ("attention_params", "check.attention_params(lambda c, n: None)", "None"),
    (
        "attention_params",
        "check.attention_params(lambda c, n: 4 * c * c)",
        "biases are missing",
    ),
    (
        "attention_params",
        "check.attention_params(lambda c, n: 3 * c * c + 3 * c)",
        "c_proj is missing",
    ),
    (
        "attention_params",
        "check.attention_params(lambda c, n: n * (4 * c * c + 4 * c))",
        "share the width",
    ),
    ("split_heads", "check.split_heads(lambda x, n: None)", "None"),
    (
        "split_heads",
        "check.split_heads("
        "lambda x, n: x.view(x.shape[0], n, x.shape[1], -1))",
        "view alone cuts memory",
    ),
    (
        "split_heads",
        "check.split_heads(lambda x, n: x.unflatten(-1, (n, -1)))",
        "swap time and heads",
    ),
    (
        "split_heads",
        "check.split_heads("
        "lambda x, n: x.unflatten(-1, (-1, n)).permute(0, 3, 1, 2))",
        "every second channel",
    ),
    (
        "split_heads",
        "check.split_heads(lambda x, n: x)",
        "has shape (2, 2, 3, 4)",
    ),
    ("merge_heads", "check.merge_heads(lambda x: None)", "None"),
    (
        "merge_heads",
        "check.merge_heads(lambda x: x.transpose(1, 2).view(2, 3, 8))",
        "view refused",
    ),
    (
        "merge_heads",
        "check.merge_heads(lambda x: x.reshape(2, 3, 8))",
        "not swapped back",
    ),
    (
        "merge_heads",
        "check.merge_heads(lambda x: x.permute(0, 2, 3, 1).flatten(-2))",
        "interleaved",
    ),
    ("masked_sdpa", f"check.masked_sdpa({SDPA})", "see the future"),
    (
        "masked_sdpa",
        f"""
mask = torch.ones(5, 5).tril()
check.masked_sdpa(lambda q, k, v: {SDPA}(q, k, v, attn_mask=mask))
""",
        "added to the scores",
    ),
    (
        "masked_sdpa",
        f"""
mask = torch.ones(5, 5).tril().bool()
check.masked_sdpa(lambda q, k, v: {SDPA}(q, k, v, attn_mask=mask.T))
""",
        "lower triangle",
    ),
    (
        "silence_head",
        "check.silence_head(lambda attn, head: None)",
        "as it was",
    ),
    (
        "silence_head",
        """
@torch.no_grad()
def rows(attn, head):
    attn.c_proj.weight[4 * head : 4 * head + 4] = 0
check.silence_head(rows)
""",
        "output channels",
    ),
    (
        "silence_head",
        """
@torch.no_grad()
def off_by_one(attn, head):
    attn.c_proj.weight[:, :4] = 0
check.silence_head(off_by_one)
""",
        "columns [0, 1, 2, 3] changed",
    ),
    (
        "silence_head",
        """
@torch.no_grad()
def queries(attn, head):
    attn.c_attn.weight[4:8] = 0
check.silence_head(queries)
""",
        "c_attn changed",
    ),
    (
        "grouped_query",
        f"""
check.grouped_query(lambda q, k, v: {SDPA}(
    q, k.repeat(1, 4, 1, 1), v.repeat(1, 4, 1, 1), is_causal=True))
""",
        "repeat_interleave",
    ),
    (
        "grouped_query",
        f"""
check.grouped_query(lambda q, k, v: {SDPA}(
    q, k.repeat_interleave(4, 1), v.repeat_interleave(4, 1)))
""",
        "the future is visible",
    ),
    (
        "grouped_query",
        f"""
check.grouped_query(lambda q, k, v: {SDPA}(
    q, k[:, :1].expand(2, 8, 5, 4), v[:, :1].expand(2, 8, 5, 4),
    is_causal=True))
""",
        "multi-query",
    ),
]
