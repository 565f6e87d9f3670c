"""The model of chapter 6: counts, errors, causality, initialization."""

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt import (
    GPT,
    GPT_CONFIG_124M,
    PRESETS,
    GPTConfig,
    MuonAdamW,
    count_params,
)
from minigpt.attention import leaks
from minigpt.model import Muon, init_weights, orthogonalize

COUNTS = {
    "pocket": 804_096,
    "mini": 10_745_088,
    "gpt-120m": 124_412_160,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
}


def meta(config):
    with torch.device("meta"):
        return GPT(config)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_published_counts(name):
    assert meta(PRESETS[name]).num_params() == COUNTS[name]


def test_counts_of_the_variants():
    assert meta(GPTConfig.preset("mini", bias=True, qkv_bias=True)
                ).num_params() == 10_770_816
    assert meta(GPTConfig(tie_weights=False)).num_params() == 163_037_184
    other = dict(qkv_bias=False, tie_weights=False, drop_rate=0.1)
    assert meta(GPTConfig(**other)).num_params() == 163_009_536
    assert meta(GPTConfig(context_length=256, **other)
                ).num_params() == 162_419_712
    assert GPTConfig.preset("gpt2") == GPT_CONFIG_124M == GPTConfig()


shapes = st.builds(
    lambda heads, width, **rest: GPTConfig(
        n_heads=heads, emb_dim=heads * width, **rest
    ),
    heads=st.integers(1, 4),
    width=st.integers(1, 6),
    vocab_size=st.integers(1, 40),
    context_length=st.integers(1, 12),
    n_layers=st.integers(1, 3),
    drop_rate=st.sampled_from([0.0, 0.3]),
    qkv_bias=st.booleans(),
    bias=st.booleans(),
    tie_weights=st.booleans(),
)


@settings(deadline=None, max_examples=40)
@given(shapes)
def test_every_shape_counts_runs_and_hides_the_future(config):
    torch.manual_seed(0)
    model = GPT(config).eval()
    assert model.num_params() == sum(count_params(config).values())
    idx = torch.randint(config.vocab_size, (2, config.context_length))
    logits = model(idx)
    assert logits.shape == (*idx.shape, config.vocab_size)
    if config.vocab_size > 1:  # else there is no other token to try
        assert leaks(model, idx) is None
    assert GPTConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(n_heads=5), "384 cannot be shared by 5 heads"),
        (dict(n_heads=0), "n_heads is 0: write 1 or more"),
        (dict(n_layers=10**12), "n_layers is 1000000000000: write 10000"),
        (dict(context_length=-1), "context_length is -1: write 1 or more"),
        (dict(emb_dim=384.0), "emb_dim must be a whole number, not 384.0"),
        (dict(n_layers=True), "n_layers must be a whole number"),
        (dict(bias="false"), "^bias must be True or False, not 'false'$"),
        (dict(qkv_bias=0), "qkv_bias must be True or False, not 0"),
        (dict(tie_weights=None), "tie_weights must be True or False"),
        (dict(drop_rate=1.0), "drop_rate is 1.0: write a probability"),
        (dict(drop_rate=-0.1), "drop_rate is -0.1"),
        (dict(drop_rate=math.nan), "drop_rate is nan"),
    ],
)
def test_nonsense_is_answered_with_what_to_write(changes, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        GPTConfig.preset("mini", **changes)


def test_config_is_frozen_and_names_are_checked():
    with pytest.raises(FrozenInstanceError):
        GPT_CONFIG_124M.n_heads = 3
    with pytest.raises(ValueError, match="no preset 'gpt5': choose one of"):
        GPTConfig.preset("gpt5")
    with pytest.raises(ValueError, match="GPTConfig has no field n_embd"):
        GPTConfig.from_dict({"n_embd": 3})


def test_a_prompt_longer_than_the_context_is_refused():
    model = GPT(GPTConfig(5, 4, 8, 2, 1))
    with pytest.raises(ValueError, match="5 tokens, but context_length is 4"):
        model(torch.zeros(1, 5, dtype=torch.long))


def test_initialization_is_gpt2s():
    torch.manual_seed(0)
    model = GPT(GPTConfig.preset("pocket", bias=True, qkv_bias=True))
    for name, parameter in model.named_parameters():
        if name.endswith("c_proj.weight"):
            small = pytest.approx(0.02 / 8**0.5, rel=0.05)
            assert parameter.std().item() == small
        elif parameter.ndim == 2:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05)
        elif name.endswith("bias"):
            assert not parameter.any()
        else:
            assert (parameter == 1).all()  # LayerNorm's scales
    before = model.wte.weight.clone()
    init_weights(model)
    assert not torch.equal(before, model.wte.weight)


def test_tied_tables_share_memory_and_loss_is_the_mean():
    config = GPTConfig(7, 6, 8, 2, 1)
    model = GPT(config)
    assert model.lm_head.weight is model.wte.weight
    untied = GPT(GPTConfig(7, 6, 8, 2, 1, tie_weights=False))
    assert untied.lm_head.weight is not untied.wte.weight
    idx = torch.randint(7, (3, 6))
    log_probs = model(idx).log_softmax(-1)
    by_hand = -log_probs.gather(-1, idx[..., None]).mean()
    assert model.loss(idx, idx).item() == pytest.approx(by_hand.item())


def test_muon_adamw_gives_each_parameter_to_one_optimizer():
    model = GPT(GPTConfig(7, 6, 8, 2, 2))
    optimizer = MuonAdamW(model)
    held = [p for g in optimizer.param_groups for p in g["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}
    assert len(held) == len(list(model.parameters()))
    muon, adamw = optimizer.parts
    names = {id(p): n for n, p in model.named_parameters()}
    inside = {names[id(p)] for g in muon.param_groups for p in g["params"]}
    assert all(n.startswith("h.") and n.endswith("weight") for n in inside)
    assert "wte.weight" not in inside and "h.0.ln_1.weight" not in inside


def test_muon_adamw_resumes_exactly():
    def run(optimizer, model, steps):
        for step in steps:
            torch.manual_seed(step)
            idx = torch.randint(7, (2, 6))
            optimizer.zero_grad()
            model.loss(idx, idx).backward()
            optimizer.step()

    def fresh():
        torch.manual_seed(0)
        model = GPT(GPTConfig(7, 6, 8, 2, 1))
        return model, MuonAdamW(model)

    whole, optimizer = fresh()
    run(optimizer, whole, range(6))
    first, optimizer = fresh()
    run(optimizer, first, range(3))
    second, other = fresh()
    second.load_state_dict(first.state_dict())
    other.load_state_dict(optimizer.state_dict())
    run(other, second, range(3, 6))
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_scheduler_reaches_both_optimizers():
    optimizer = MuonAdamW(GPT(GPTConfig(7, 6, 8, 2, 1)), muon_lr=0.4, lr=0.2)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    rates = [g["lr"] for part in optimizer.parts for g in part.param_groups]
    assert rates == [0.2, 0.1]


@pytest.mark.parametrize("shape", [(8, 8), (8, 32), (32, 8), (24, 8)])
def test_a_step_of_muon_is_its_formula(shape):
    """Square, wide and tall matrices, and c_attn's three in one."""
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.randn(shape))
    muon = Muon(
        [p], lr=0.1, momentum=0.9, weight_decay=0.2, dtype=torch.float32
    )
    want, mean = p.detach().clone(), torch.zeros(shape)
    height = 8 if shape == (24, 8) else shape[0]
    for _ in range(3):
        p.grad = torch.randn(shape)
        mean = 0.9 * mean + 0.1 * p.grad
        ahead = 0.9 * mean + 0.1 * p.grad
        maps = [orthogonalize(part) for part in ahead.split(height)]
        louder = max(1, height / shape[1]) ** 0.5
        want = (1 - 0.1 * 0.2) * want - 0.1 * louder * torch.cat(maps)
        muon.step()
        torch.testing.assert_close(p.detach(), want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [2e-7, 1.0, 1e6])
def test_muon_moves_the_same_way_in_16_bits(dtype, size):
    torch.manual_seed(0)
    gradient = size * torch.randn(12, 32, 32).cumsum(-1)[0]

    def moved(dtype):
        p = torch.nn.Parameter(torch.zeros(32, 32))
        p.grad = gradient.clone()
        Muon([p], lr=1.0, dtype=dtype).step()
        return p.detach()

    exact, got = moved(torch.float32), moved(dtype)
    assert (got - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (2, 9, 9)])
def test_orthogonalize_keeps_directions_and_evens_out_sizes(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    out = orthogonalize(matrix, rounds=9)
    sizes = torch.linalg.svdvals(out)
    assert sizes.min() > 0.6 and sizes.max() < 1.3
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.mT @ out @ vt.mT  # diagonal: the directions are kept
    off = inside - torch.diag_embed(inside.diagonal(dim1=-2, dim2=-1))
    assert off.abs().max() < 1e-3


def test_adamw_gets_the_settings_for_the_rest():
    optimizer = MuonAdamW(GPT(GPTConfig(7, 6, 8, 2, 1)), weight_decay=0.3)
    muon, adamw = (part.param_groups[0] for part in optimizer.parts)
    assert muon["weight_decay"] == 0.3 and adamw["weight_decay"] == 0
    assert adamw["betas"] == (0.9, 0.95)


def test_a_restored_optimizer_still_answers_as_one():
    optimizer = MuonAdamW(GPT(GPTConfig(7, 6, 8, 2, 1)))
    optimizer.load_state_dict(optimizer.state_dict())
    for group, part in zip(optimizer.param_groups, optimizer.parts):
        group["lr"] = 7.0
        assert part.param_groups[0]["lr"] == 7.0


def test_the_output_layer_reads_the_last_layer_norm():
    model = GPT(GPTConfig(7, 6, 8, 2, 1))
    idx = torch.randint(7, (2, 6))
    assert model(idx).any()
    with torch.no_grad():
        model.ln_f.weight.zero_()
    assert not model(idx).any()


def test_the_embeddings_pass_through_dropout():
    model = GPT(GPTConfig(7, 6, 8, 2, 1, drop_rate=0.5)).eval()
    idx = torch.randint(7, (2, 6))
    seen = []
    model.drop.register_forward_hook(lambda *call: seen.append(call[1][0]))
    model(idx)
    both = model.wte(idx) + model.wpe(torch.arange(6))
    assert torch.equal(seen[0], both)


@pytest.mark.parametrize("wrong", [7, -1, 2**40])
def test_an_id_outside_the_vocabulary_is_named(wrong):
    model = GPT(GPTConfig(7, 6, 8, 2, 1))
    idx = torch.zeros(3, 6, dtype=torch.long)
    idx[1, 4] = wrong
    message = (
        f"id {wrong} at position 4 of text 1 is not in the vocabulary, "
        "which ends at 6"
    )
    with pytest.raises(ValueError, match=message):
        model(idx)


def test_targets_turn_the_same_call_into_the_loss():
    model = GPT(GPTConfig(30, 16, 24, 3, 2))
    idx, targets = torch.randint(30, (2, 2, 16))
    logits = model(idx)
    plain = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert torch.equal(model(idx, targets=targets), plain)
    assert torch.equal(model.loss(idx, targets), plain)
    last = model(idx, last=True, targets=targets[:, -1:])
    wanted = F.cross_entropy(logits[:, -1], targets[:, -1])
    torch.testing.assert_close(last, wanted)


def test_other_optimizers_can_take_both_parts():
    made = []

    class Plain(torch.optim.SGD):
        def __init__(self, params, lr, *args, **kwargs):
            made.append(len(params))
            super().__init__(params, lr)

    model = GPT(GPTConfig(30, 16, 24, 3, 2))
    optimizer = MuonAdamW(model, muon_lr=0.5, lr=0.25, kinds=(Plain, Plain))
    assert made == [8, len([*model.parameters()]) - 8]
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25]
