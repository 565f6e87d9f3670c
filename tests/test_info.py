"""`minigpt info`: each number against a second way of finding it."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minigpt import GPT, PRESETS, GPTConfig, count_params, save_gpt2
from minigpt.cli import main
from minigpt.hardware import flops_per_token
from minigpt.info import (
    describe,
    measured_flops,
    meta_model,
    params_by_part,
    read_config,
    weight_bytes,
)
from minigpt.sampling import to_int8

GPT3 = GPTConfig(50257, 2048, 12288, 96, 96)  # 175 billion
SMALL = GPTConfig(50, 8, 16, 2, 2, qkv_bias=False, tie_weights=False)


def shown(capsys, *argv):
    """What `minigpt info` prints; it must succeed."""
    assert main(["info", *map(str, argv)]) == 0
    return capsys.readouterr().out


def rows(text):
    """The lines of a table: first word -> the numbers on that line."""
    table = {}
    for line in text.splitlines():
        words = line.replace(",", "").replace("%", "").split()
        if words:
            numbers = []
            for word in words[1:]:
                if word.replace(".", "").isdigit():
                    numbers.append(float(word))
            table.setdefault(words[0], []).append(numbers)
    return table


@pytest.mark.parametrize("name", [*PRESETS])
def test_parameters_by_part_are_the_formulas(name):
    config = PRESETS[name]
    model = meta_model(config)
    parts, formulas = params_by_part(model), count_params(config)
    norms = parts["ln_1"] + parts["ln_2"] + parts["ln_f"]
    assert parts["wte"] == formulas["token embedding"]
    assert parts["wpe"] == formulas["position embedding"]
    assert parts["attn"] == formulas["attention"]
    assert parts["mlp"] == formulas["MLP"]
    assert norms == formulas["LayerNorm"]
    assert parts["lm_head"] == formulas["output layer"]
    assert sum(parts.values()) == model.num_params()


@pytest.mark.parametrize(
    ("name", "count"),
    [("gpt2", "124,439,808"), ("gpt-120m", "124,412,160")],
)
def test_the_table_adds_up(name, count, capsys):
    text = shown(capsys, "--preset", name)
    table = rows(text)
    [[total, share]] = [row for row in table["sum"] if row[-1] == 100]
    assert f"{total:,.0f}" == count
    assert share == 100
    first = {part: found[0] for part, found in table.items()}
    outer = [first[p][-2] for p in ("wte", "wpe", "h", "ln_f", "lm_head")]
    inner = [first[p][-2] for p in ("ln_1", "attn", "ln_2", "mlp")]
    assert sum(outer) == total
    assert sum(inner) == first["h"][-2] == first["h"][0] * first["h"][1]
    assert first["context_length"] == [1024]


@pytest.mark.parametrize("name", ["pocket", "mini", "gpt-120m", "gpt2"])
def test_formula_and_counter_agree(name):
    model = meta_model(PRESETS[name])
    forward, backward = measured_flops(model)
    formula = flops_per_token(PRESETS[name], model.num_params())
    assert forward == pytest.approx(formula / 3, rel=0.02)
    assert backward == pytest.approx(2 * formula / 3, rel=0.02)


@settings(max_examples=10)
@given(
    st.builds(
        GPTConfig,
        vocab_size=st.integers(64, 5000),
        context_length=st.integers(32, 256),
        emb_dim=st.sampled_from([64, 128, 192]),
        n_heads=st.sampled_from([1, 2, 4]),
        n_layers=st.integers(1, 4),
        drop_rate=st.sampled_from([0.0, 0.1]),
        qkv_bias=st.booleans(),
        bias=st.booleans(),
        tie_weights=st.booleans(),
    )
)
def test_formula_and_counter_agree_for_any_shape(config):
    model = meta_model(config)
    formula = flops_per_token(config, model.num_params())
    assert sum(measured_flops(model)) == pytest.approx(formula, rel=0.02)


def test_the_meta_device_counts_what_numbers_would():
    config = PRESETS["pocket"]
    idx = torch.zeros(1, config.context_length, dtype=torch.long)
    plain = sdpa_kernel(SDPBackend.MATH)  # the fused kernel is not counted
    with plain, FlopCounterMode(display=False) as counter:
        GPT(config)(idx).sum().backward()
    counted = counter.get_total_flops() / config.context_length
    assert sum(measured_flops(meta_model(config))) == counted


def test_the_printed_operations_agree(capsys):
    table = rows(shown(capsys, "--preset", "gpt2"))
    [(forward, f_counted)] = table["forward"]
    [(backward, b_counted)] = table["backward"]
    assert [forward + backward, f_counted + b_counted] == pytest.approx(
        table["sum"][1], abs=0.011
    )
    assert f_counted == pytest.approx(forward, rel=0.02)
    assert b_counted == pytest.approx(backward, rel=0.02)


@pytest.mark.parametrize("config", [PRESETS["pocket"], SMALL])
def test_bytes_are_those_of_real_weights(config):
    model = GPT(config)
    sizes = weight_bytes(meta_model(config))
    for name, dtype in (("fp32", None), ("bf16", torch.bfloat16)):
        weights = model.to(dtype).parameters()
        assert sizes[name] == sum(p.nbytes for p in weights)
    small = to_int8(GPT(config))
    held = sum(p.nbytes for p in small.parameters())
    for module in small.modules():
        if isinstance(module, torch.ao.nn.quantized.dynamic.Linear):
            held += module.weight().numel()
            bias = module.bias()
            held += 0 if bias is None else bias.nbytes
    assert not any(type(m) is nn.Linear for m in small.modules())
    assert sizes["int8"] == held


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_output_layer_is_said_to_be_one(tied):
    text = describe("small", replace(SMALL, tie_weights=tied))
    [row] = [line for line in text.splitlines() if "lm_head  " in line]
    assert ("tied to wte" in row) == tied
    assert (" 0 " in row) == tied


def test_gpt3_is_described_without_memory():
    text = describe("GPT-3", GPT3)
    assert "174,604,259,328" in text
    assert "698,417.0" in text  # MB in fp32


def test_a_folder_instead_of_a_preset(tmp_path, capsys):
    model = GPT(SMALL)
    save_gpt2(model, tmp_path / "hf")
    run = {"model": SMALL.to_dict(), "train": {}, "precision": "fp32"}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps(run))
    for folder in ("hf", "run"):
        assert read_config(tmp_path / folder) == SMALL
        text = shown(capsys, "--run", tmp_path / folder)
        assert f"{model.num_params():,}" in text
        assert folder in text.splitlines()[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a run folder: it has no config.json"),
        ("{", "config.json cannot be read"),
        ("[1]", "config.json cannot be read"),
        ("[" * 100_000, "config.json cannot be read (maximum recursion"),
        ('{"model_type": "llama"}', "a llama model cannot be loaded here"),
        ('{"model_type": "gpt2", "n_embd": "wide"}', "is not a GPT-2's"),
        ('{"model_type": "gpt2", "minigpt": 1}', "is not a GPT-2's"),
        ('{"model_type": "gpt2", "n_embd": 7}', "is not a GPT-2's"),
    ],
)
def test_a_folder_without_a_model(content, message, tmp_path, capsys):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert main(["info", "--run", str(tmp_path)]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert message in line
