"""Checks of chapter 10, GPT-2."""

import torch
from torch import Tensor

from minigpt.check._base import Hint, exercise, expect
from minigpt.gpt2 import CONV1D
from minigpt.model import GPT, PRESETS, GPTConfig, count_params

ODD = GPTConfig(30, 11, 12, 3, 2, tie_weights=False)


@exercise
def file_bytes(answer):
    """right for all four sizes on the hub: they differ by the header only."""
    for config in (*list(PRESETS.values())[3:], ODD):
        got, L, T = answer(config), config.n_layers, config.context_length
        expect(got is not None, "it returned None: return the bytes")
        numbers = sum(count_params(config).values())
        true = 4 * (numbers + L * T * T)
        known = {
            numbers + L * T * T: "these are numbers: each takes 4 bytes",
            4 * numbers: "the masks are missing: T x T numbers a block",
            numbers: "the masks are missing, and a number takes 4 bytes",
            4 * (numbers + T * T): "each of the blocks has a mask of its own",
            4 * numbers + L * T * T: "a number of the mask takes 4 bytes too",
            4 * (numbers + L * T): "a mask has T x T numbers, not T",
        }
        why = known.get(got, "4 bytes for each parameter and mask number")
        expect(got == true, f"{got:,} instead of {true:,}: {why}")


def _as_file(model: GPT, prefix: str) -> dict[str, Tensor]:
    """The state of a tied model as a GPT-2 file holds it."""
    state = {
        prefix + name: t.mT.contiguous() if name.endswith(CONV1D) else t
        for name, t in model.state_dict().items()
        if name != "lm_head.weight"
    }
    T = model.context_length
    for block in range(model.config.n_layers):
        mask = torch.ones(1, 1, T, T).tril()
        state[f"{prefix}h.{block}.attn.bias"] = mask
        state[f"{prefix}h.{block}.attn.masked_bias"] = torch.tensor(-1e4)
    return state


@exercise
def translate(answer):
    """every name, every mask and all four matrices, the square one too."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(30, 11, 12, 3, 2)).eval()
    true = model.state_dict()
    for prefix in ("", "transformer."):
        got = answer(_as_file(model, prefix))
        expect(isinstance(got, dict), "return the dictionary for our GPT")
        _explain_names(set(got), set(true))
        for name, tensor in true.items():
            _explain_tensor(name, got[name], tensor)


def _explain_names(got: set[str], true: set[str]) -> None:
    extra, missing = sorted(got - true), sorted(true - got)
    for name in extra:
        if name.startswith("transformer."):
            raise Hint(f"{name}: our names have no transformer. before them")
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            raise Hint(f"{name} is a causal mask, no parameter: leave it out")
        raise Hint(f"our GPT has no {name}")
    if missing == ["lm_head.weight"]:
        raise Hint(
            "lm_head.weight is missing: the file is tied, so it is the "
            "tensor of wte.weight under a second name"
        )
    expect(
        "h.0.attn.c_attn.bias" not in missing,
        "c_attn.bias and c_proj.bias are gone: only the masks end in "
        ".attn.bias",
    )
    expect(not missing, f"{missing[:1]} is missing")


def _explain_tensor(name: str, got: Tensor, true: Tensor) -> None:
    if got.shape != true.shape:
        turn = name.endswith(CONV1D)
        raise Hint(
            f"{name} has shape {tuple(got.shape)}, ours {tuple(true.shape)}: "
            + (
                "it must be turned"
                if turn
                else "only matrices of a Conv1D "
                "are stored the other way round, embeddings are not"
            )
        )
    if torch.equal(got, true):
        return
    if torch.equal(got.mT, true):
        raise Hint(
            f"{name} is square, so its shape fits either way, and it is the "
            "wrong way: turn by name, not by shape"
        )
    raise Hint(f"{name} has other numbers than the file")


@exercise
def forward_flops(answer):
    """weights twice, attention 4LCT, and nothing for a look-up."""
    cases = [(c, c.context_length) for c in (PRESETS["gpt2"], ODD)]
    for c, T in [*cases, (PRESETS["gpt2"], 128)]:
        got, wide = answer(c, T), c.emb_dim
        expect(got is not None, "it returned None: return the operations")
        blocks, head = 12 * c.n_layers * wide**2, c.vocab_size * wide
        attention = 4 * c.n_layers * wide * T
        true = 2 * (blocks + head) + attention
        known = {
            2 * blocks + attention: "the output layer is missing: V x C "
            "weights, also when it is tied",
            2 * (blocks + head): "attention is missing: 4 L C T",
            2 * (blocks + 2 * head) + attention: "the token embedding is "
            "only looked up: a row is copied, nothing is multiplied",
            blocks + head + attention: "a weight costs a multiplication "
            "and an addition: 2",
            6 * (blocks + head) + 3 * attention: "that is forward and "
            "backward: forward alone is a third",
            2 * (blocks + head)
            + 4
            * c.n_layers
            * wide
            * c.context_length: "use the T of the input, not the context_length of the model",
        }
        why = known.get(got, "2 for each weight in a matrix, plus 4 L C T")
        expect(got == true, f"{got:,} instead of {true:,} at T = {T}: {why}")


def _models() -> list[GPT]:
    torch.manual_seed(0)
    configs = (GPTConfig(30, 11, 12, 3, 2), ODD)
    return [GPT(config).eval() for config in configs]


def _same_logits(new: GPT, old: GPT, idx: Tensor, what: str) -> None:
    with torch.no_grad():
        got, true = new.eval()(idx), old.eval()(idx)
    got = got[..., : true.shape[-1]]
    expect(torch.allclose(got, true, atol=1e-5), what)


@exercise
def crop_context(answer):
    """the same logits from fewer positions."""
    for model in _models():
        before = {k: v.clone() for k, v in model.state_dict().items()}
        got = answer(model, 5)
        expect(isinstance(got, GPT), "return a GPT")
        expect(got is not model, "return a new model: the old one is in use")
        expect(
            got.config.context_length == got.context_length == 5,
            f"its config says context_length={got.config.context_length}: "
            "make it with replace(model.config, context_length=T)",
        )
        expect(
            tuple(got.wpe.weight.shape) == (5, 12),
            f"wpe.weight has shape {tuple(got.wpe.weight.shape)}, not (5, 12)",
        )
        idx = torch.arange(10).view(2, 5)  # (B, T)
        late = torch.equal(got.wpe.weight, model.wpe.weight[-5:])
        _same_logits(
            got,
            model,
            idx,
            "these are the last positions: texts start at the first"
            if late
            else "other logits than the model's: copy all of its weights",
        )
        with torch.no_grad():
            for parameter in got.parameters():
                parameter.add_(1.0)
        _untouched(model, before)


@exercise
def grow_vocab(answer):
    """new rows for new tokens, and the old logits as they were."""
    for model in _models():
        before = {k: v.clone() for k, v in model.state_dict().items()}
        tied = model.config.tie_weights
        got = answer(model, 3)
        expect(isinstance(got, GPT), "return a GPT")
        expect(
            got.config.vocab_size == 33,
            f"its config says vocab_size={got.config.vocab_size}, not 33",
        )
        shape = tuple(got.lm_head.weight.shape)
        expect(shape == (33, 12), f"lm_head.weight has shape {shape}")
        expect(
            (got.lm_head.weight is got.wte.weight) == tied,
            "tied tables must be one tensor, untied ones two, as before",
        )
        _same_logits(
            got,
            model,
            torch.arange(10).view(2, 5),  # (B, T)
            "the logits of the old tokens have changed: their rows must "
            "stay, and so must all other weights",
        )
        for name in ("wte", "lm_head"):
            table = getattr(got, name).weight.detach()  # (V + 3, C)
            mean = table[:30].mean(dim=0).expand(3, -1)
            expect(
                torch.allclose(table[30:], mean, atol=1e-6),
                f"the new rows of {name} are not the mean of the old ones",
            )
        with torch.no_grad():
            got.wte.weight.add_(1.0)
        _untouched(model, before)


def _untouched(model: GPT, before: dict[str, Tensor]) -> None:
    after = model.state_dict()
    expect(
        all(torch.equal(after[name], t) for name, t in before.items()),
        "the old model changes with the new one: they share memory",
    )
