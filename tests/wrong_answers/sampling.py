"""Known wrong answers to the exercises of chapter 8, and their hints."""


def _calls(name, *answers):
    """(check, code, hint) for each (code, hint); f is what is checked."""
    return [
        (name, f"from minigpt import check\n{code}\ncheck.{name}(f)\n", hint)
        for code, hint in answers
    ]


def _log_prob(end, logits="model(ids[None])[0].log_softmax(-1)"):
    return (
        f"def f(model, ids, prompt_length):\n    lp = {logits}\n"
        "    each = lp[:-1].gather(1, ids[1:, None])\n"
        f"    return {end}"
    )


def _no_repeat(test, start="logits.clone()"):
    return (
        f"import torch\ndef f(logits, ids, n):\n    logits = {start}\n"
        "    for i in range(len(ids) - n + 1):\n"
        f"        if {test}:\n"
        "            logits[ids[i + n - 1]] = -torch.inf\n"
        "    return logits"
    )


def _typical(distance, drop="before >= mass"):
    return f"""
import torch
def f(logits, mass):
    lp = logits.log_softmax(-1)
    p = lp.exp()
    H = -(p * lp).sum(-1, keepdim=True)
    order = ({distance}).argsort(dim=-1, stable=True)
    ranked = p.gather(-1, order)
    total = ranked.cumsum(-1)
    before = total - ranked
    out = torch.zeros_like(before, dtype=torch.bool)
    out.scatter_(-1, order, {drop})
    return logits.masked_fill(out, -torch.inf)
"""


def _batch(divisor):
    return f"def f(c, free, t, b):\n    return free // ({divisor})"


WRONG = [
    *_calls(
        "nucleus_by_hand",
        ("f = ...", "expected four numbers"),
        ("f = [0.4, 0.3, 0, 0]", "divide by their sum"),
        ("f = [1, 0, 0, 0]", "the one that crosses"),
        ("f = [4 / 9, 3 / 9, 2 / 9, 0]", "one too many"),
        ("f = [0.5, 0.3, 0, 0]", "add up to 0.80"),
        ("f = [0.5, 0.5, 0, 0]", "add up from the largest"),
    ),
    *_calls(
        "log_prob",
        ("def f(m, ids, n): ...", "returned None"),
        (_log_prob("each[prompt_length - 1:]"), "add up, one number"),
        (
            _log_prob("lp.gather(1, ids[:, None])[prompt_length:].sum()"),
            "the logits at t are about token t + 1",
        ),
        (_log_prob("each.sum()"), "the prompt is counted as well"),
        (_log_prob("each[prompt_length:].sum()"), "first chosen token is"),
        (_log_prob("each[prompt_length - 2:].sum()"), "last token of the"),
        (_log_prob("each[prompt_length - 1:].mean()"), "this is the mean"),
        (_log_prob("each[prompt_length - 1:].sum().exp()"), "its logarithm"),
        (_log_prob("-each[prompt_length - 1:].sum()"), "sign is reversed"),
        (
            _log_prob("each[prompt_length - 1:].sum()", "model(ids[None])[0]"),
            "log_softmax first",
        ),
    ),
    *_calls(
        "no_repeat",
        ("def f(logits, ids, n): ...", "returned None"),
        (_no_repeat("True", "logits"), "work on logits.clone()"),
        (
            "import torch\ndef f(logits, ids, n):\n    out = logits.clone()\n"
            "    out[ids] = -torch.inf\n    return out",
            "you ruled out all that occurred",
        ),
        (
            _no_repeat("ids[i:i + n] == ids[len(ids) - n + 1:]"),
            "nothing was ruled out",
        ),
        (
            _no_repeat("ids[i:i + n - 1] == ids[-n:-1]"),
            "compare the last n - 1 tokens",
        ),
        (
            _no_repeat(
                "i < len(ids) - n and "
                "ids[i:i + n - 1] == ids[len(ids) - n + 1:]"
            ),
            "runs may overlap",
        ),
    ),
    *_calls(
        "typical",
        ("def f(logits, mass): ...", "returned None"),
        (_typical("(p - H).abs()"), "is it the surprise"),
        (_typical("-p"), "simply the likeliest"),
        (_typical("-lp - H"), "absolute value"),
        (_typical("(-lp + H).abs()"), "the sign of H"),
        (_typical("(-lp - H).abs()", "total > mass"), "you dropped it"),
        (_typical("(-logits - H).abs()"), "log_softmax first"),
    ),
    *_calls(
        "cache_batch",
        ("def f(c, free, t, b): ...", "returned None"),
        (_batch("c.n_layers * c.emb_dim * b * t"), "keys and values"),
        (_batch("2 * c.emb_dim * b * t"), "times n_layers"),
        (
            _batch("2 * c.n_layers * c.n_heads * c.emb_dim * b * t"),
            "do not multiply by n_heads",
        ),
        (
            _batch("2 * c.n_layers * c.emb_dim // c.n_heads * b * t"),
            "there are n_heads of them",
        ),
        (_batch("2 * c.n_layers * c.emb_dim * t"), "number_bytes is not"),
        (
            _batch("2 * c.n_layers * c.emb_dim * b * c.context_length"),
            "the texts have num_tokens",
        ),
        (
            "def f(c, free, t, b):\n"
            "    return free / (2 * c.n_layers * c.emb_dim * b * t)",
            "round down",
        ),
    ),
    *_calls(
        "hold_back",
        ("def f(text, stop): ...", "returned None"),
        ("def f(text, stop):\n    return len(stop) - 1", "Nothing at the end"),
        (
            "def f(text, stop):\n    return int(text.endswith(stop[0]))",
            "Try every length",
        ),
        (
            "def f(text, stop):\n"
            "    for n in range(1, len(stop)):\n"
            "        if text.endswith(stop[:n]):\n"
            "            return n\n"
            "    return 0",
            "the longest counts",
        ),
    ),
]
