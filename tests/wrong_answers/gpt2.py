"""Wrong answers to the exercises of chapter 10, and the hint each must get."""

START = """
from dataclasses import replace
import torch
from minigpt import GPT
from minigpt.model import count_params
def numbers(c): return sum(count_params(c).values())
def rebuilt(model, edit, **changes):
    new = GPT(replace(model.config, **changes)).train(model.training)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    edit(state)
    new.load_state_dict(state)
    return new
def translated(state, skip=(".attn.bias", ".attn.masked_bias"),
               turn=("c_attn.weight", "c_proj.weight", "c_fc.weight"),
               prefix="transformer.", tie=True):
    ours = {}
    for name, t in state.items():
        if not (skip and name.endswith(skip)):
            ours[name.removeprefix(prefix)] = (
                t.mT if name.endswith(turn) else t)
    if tie:
        ours["lm_head.weight"] = ours["wte.weight"]
    return ours
"""
WRONG = [
    (name, START + code, hint)
    for name, code, hint in [
        ("file_bytes", "check.file_bytes(lambda c: None)", "returned None"),
        (
            "file_bytes",
            "check.file_bytes(lambda c: 4 * numbers(c))",
            "the masks are missing",
        ),
        (
            "file_bytes",
            "check.file_bytes(lambda c: numbers(c) "
            "+ c.n_layers * c.context_length ** 2)",
            "each takes 4 bytes",
        ),
        (
            "file_bytes",
            "check.file_bytes(lambda c: 4 * (numbers(c) "
            "+ c.context_length ** 2))",
            "a mask of its own",
        ),
        ("translate", "check.translate(lambda s: None)", "return the dict"),
        (
            "translate",
            "check.translate(lambda s: translated(s, "
            'turn=("c_attn.weight", "c_fc.weight", "mlp.c_proj.weight")))',
            "is square, so its shape fits either way",
        ),
        (
            "translate",
            "check.translate(lambda s: translated(s, skip=()))",
            "is a causal mask, no parameter",
        ),
        (
            "translate",
            "check.translate(lambda s: translated(s, tie=False))",
            "lm_head.weight is missing",
        ),
        (
            "translate",
            "check.translate(lambda s: translated(s, turn=()))",
            "it must be turned",
        ),
        (
            "translate",
            "check.translate(lambda s: translated(s, turn=("
            '"c_attn.weight", "c_proj.weight", "c_fc.weight", "wpe.weight")))',
            "only matrices of a Conv1D",
        ),
        (
            "translate",
            """
def wrong(state):
    ours = translated(state, prefix="x")if "wte.weight" in state else None
    return ours or {**state}
check.translate(wrong)
""",
            "our names have no transformer.",
        ),
        (
            "translate",
            """
def wrong(state):
    ours = translated(state)
    return {k: v for k, v in ours.items() if "attn.c_attn.bias" not in k}
check.translate(wrong)
""",
            "only the masks end in .attn.bias",
        ),
        (
            "forward_flops",
            "check.forward_flops(lambda c, T: 24 * c.n_layers * c.emb_dim**2"
            " + 4 * c.n_layers * c.emb_dim * T)",
            "the output layer is missing",
        ),
        (
            "forward_flops",
            "check.forward_flops(lambda c, T: 24 * c.n_layers * c.emb_dim**2"
            " + 2 * c.vocab_size * c.emb_dim)",
            "attention is missing",
        ),
        (
            "forward_flops",
            "check.forward_flops(lambda c, T: 24 * c.n_layers * c.emb_dim**2"
            " + 2 * c.vocab_size * c.emb_dim"
            " + 4 * c.n_layers * c.emb_dim * c.context_length)",
            "use the T of the input",
        ),
        (
            "crop_context",
            "check.crop_context(lambda m, T: m)",
            "return a new model",
        ),
        (
            "crop_context",
            """
def last(state): state["wpe.weight"] = state["wpe.weight"][-5:]
check.crop_context(lambda m, T: rebuilt(m, last, context_length=T))
""",
            "these are the last positions",
        ),
        (
            "crop_context",
            "check.crop_context(lambda m, T: "
            "GPT(replace(m.config, context_length=T)))",
            "copy all of its weights",
        ),
        (
            "crop_context",
            """
def shared(model, T):
    new = rebuilt(model, lambda s: s.update({
        "wpe.weight": s["wpe.weight"][:T]}), context_length=T)
    new.h = model.h
    return new
check.crop_context(shared)
""",
            "they share memory",
        ),
        (
            "grow_vocab",
            """
def noise(state):
    for name in ("wte.weight", "lm_head.weight"):
        new = torch.randn(3, state[name].shape[1]) * 0.02
        state[name] = torch.cat([state[name], new])
check.grow_vocab(lambda m, n: rebuilt(m, noise, vocab_size=33))
""",
            "are not the mean of the old ones",
        ),
        (
            "grow_vocab",
            """
def front(state):
    for name in ("wte.weight", "lm_head.weight"):
        new = state[name].mean(dim=0).expand(3, -1)
        state[name] = torch.cat([new, state[name]])
check.grow_vocab(lambda m, n: rebuilt(m, front, vocab_size=33))
""",
            "the logits of the old tokens have changed",
        ),
        (
            "grow_vocab",
            """
def mean(state):
    for name in ("wte.weight", "lm_head.weight"):
        new = state[name].mean(dim=0).expand(3, -1)
        state[name] = torch.cat([state[name], new])
check.grow_vocab(lambda m, n: rebuilt(
    m, mean, vocab_size=33, tie_weights=False))
""",
            "tied tables must be one tensor",
        ),
    ]
]
