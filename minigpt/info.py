"""What a configuration amounts to: parameters, operations, bytes.

Everything is read off a model on the meta device, which has shapes but no
numbers: 175 billion parameters take three seconds and no memory.
"""

import contextlib
import json
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from minigpt.gpt2 import WeightsError, config_from_hf
from minigpt.hardware import flops_per_token
from minigpt.model import GPT, GPTConfig
from minigpt.runfolder import read_run_config

PARTS = {
    "wte": "token embedding",
    "wpe": "position embedding",
    "ln_1": "LayerNorm",
    "attn": "attention",
    "ln_2": "LayerNorm",
    "mlp": "MLP",
    "ln_f": "LayerNorm at the end",
    "lm_head": "output layer",
}


def meta_model(config: GPTConfig) -> GPT:
    """The model without its numbers."""
    with torch.device("meta"):
        return GPT(config)


def params_by_part(model: GPT) -> dict[str, int]:
    """Parameters by the names of PARTS, those of all blocks together.

    A tensor that two parts share (a tied output layer) counts once, where
    it is first: the values add up to num_params().
    """
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        words = name.split(".")
        counts[words[2] if words[0] == "h" else words[0]] += parameter.numel()
    return counts


def measured_flops(model: GPT) -> tuple[float, float]:
    """FLOPs a token (forward, backward), counted while they are made.

    PyTorch's counter looks at every matrix product over a full context.
    As in the formula, attention counts the hidden future too, and what is
    no matrix product (GELU, LayerNorm) does not count. The model is one on
    the meta device: nothing is computed, and attention is plain products.
    (The counter does not know a CPU's fused attention.)
    """
    T = model.context_length
    idx = torch.empty(1, T, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as forward:
        total = model(idx).sum()
    with FlopCounterMode(display=False) as backward:
        total.backward()
    return forward.get_total_flops() / T, backward.get_total_flops() / T


def weight_bytes(model: GPT) -> dict[str, int]:
    """Bytes of the weights in each precision.

    "int8" is what chapter 8's `to_int8` makes: one byte for each weight of
    a linear layer, the rest in fp32, and an output layer of its own.
    """
    count, small = model.num_params(), 0
    for module in model.modules():
        linear = isinstance(module, nn.Linear)
        for name, parameter in module.named_parameters(recurse=False):
            whole = linear and name == "weight"
            small += parameter.numel() * (1 if whole else 4)
    return {"fp32": 4 * count, "bf16": 2 * count, "int8": small}


def read_config(folder: str | Path) -> GPTConfig:
    """The shape of a run folder's model, or of one that save_gpt2 wrote.

    WeightsError, or RunError (both ValueErrors), if there is neither.
    """
    path, values = Path(folder) / "config.json", None
    # what cannot be read is said further down
    with contextlib.suppress(OSError, ValueError, RecursionError):
        values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or "model_type" not in values:
        return GPTConfig.from_dict(read_run_config(folder)["model"])
    try:
        return config_from_hf(values)
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} is not a GPT-2's ({error}): name another folder"
        ) from None


def describe(name: str, config: GPTConfig) -> str:
    """All of it as tables of plain text."""
    model = meta_model(config)
    return "\n\n".join([
        name,
        "\n".join(_fields(config)),
        "\n".join(_parameters(config, model)),
        "\n".join(_operations(config, model)),
        "\n".join(_bytes(model)),
    ])


def _fields(config: GPTConfig) -> list[str]:
    shown = {
        key: f"{value:,}" if type(value) is int else str(value)
        for key, value in config.to_dict().items()
    }
    return [f"  {key:<34}{value:>15}" for key, value in shown.items()]


def _parameters(config: GPTConfig, model: GPT) -> list[str]:
    """One row a part; the four of a block stand below what they add to."""
    counts, layers = params_by_part(model), config.n_layers
    total = sum(counts.values())
    in_block = [part for part in PARTS if hasattr(model.h[0], part)]

    def row(label: str, count: int) -> str:
        return f"  {label:<34}{count:>15,}  {count / total:6.1%}"

    rows = [row(f"{part:<9}{PARTS[part]}", counts[part])
            for part in ("wte", "wpe")]
    blocks = sum(counts[part] for part in in_block)
    rows.append(row(f"h        {layers} blocks of {blocks // layers:,}",
                    blocks))
    rows += [row(f"  {part:<7}  {PARTS[part]}", counts[part])
             for part in in_block]
    rows.append(row(f"ln_f     {PARTS['ln_f']}", counts["ln_f"]))
    tied = ", tied to wte" if config.tie_weights else ""
    rows.append(row(f"lm_head  {PARTS['lm_head']}{tied}", counts["lm_head"]))
    return [
        f"  {'parameters':<34}{'':>15}   share",
        *rows,
        row("sum", total),
    ]


def _operations(config: GPTConfig, model: GPT) -> list[str]:
    """The formula's operations next to those that were counted."""
    training = flops_per_token(config, model.num_params())
    forward, backward = measured_flops(model)
    rows = {
        "forward": (training / 3, forward),
        "backward": (2 * training / 3, backward),
        "sum": (training, forward + backward),
    }
    return [
        f"  {'FLOPs a token, in millions':<34}{'formula':>15} {'counted':>10}",
        *(f"  {name:<34}{by_formula / 1e6:>15,.2f} {counted / 1e6:>10,.2f}"
          for name, (by_formula, counted) in rows.items()),
    ]


def _bytes(model: GPT) -> list[str]:
    notes = {"int8": "  (linear layers; the rest fp32)"}
    return [
        f"  {'weights':<34}{'MB':>15}",
        *(f"  {name:<34}{size / 1e6:>15,.1f}{notes.get(name, '')}"
          for name, size in weight_bytes(model).items()),
    ]
