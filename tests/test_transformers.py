"""Our GPT computes what Hugging Face transformers' GPT-2 computes.

The weights are random, never the initial ones only: biases and LayerNorms
differ from 0 and 1, so that a forgotten one is seen.
"""

import gc

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from minigpt import GPT, GPT_CONFIG_124M, GPTConfig, load_gpt2, save_gpt2
from minigpt.gpt2 import CONV1D, plain_name

transformers = pytest.importorskip("transformers")
from transformers import GPT2Config, GPT2LMHeadModel  # noqa: E402

TOLERANCE = {"atol": 1e-4, "rtol": 0.0}  # absolute, as the issue says


def shake(model: torch.nn.Module) -> torch.nn.Module:
    """No parameter keeps its initial value."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise, alpha=0.05)
    return model.eval()


def theirs_of(config: GPTConfig) -> GPT2LMHeadModel:
    """Their model of our shape, random, in eval mode."""
    torch.manual_seed(0)
    c = config
    end = c.vocab_size - 1
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=c.vocab_size,
            n_positions=c.context_length,
            n_embd=c.emb_dim,
            n_head=c.n_heads,
            n_layer=c.n_layers,
            tie_word_embeddings=c.tie_weights,
            bos_token_id=end,
            eos_token_id=end,
        )
    )
    return shake(theirs)


def ids_of(config: GPTConfig, texts: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    shape = (texts, config.context_length)
    return torch.randint(config.vocab_size, shape, generator=generator)


def theirs_as_ours(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """A tensor of theirs with our name, and our way round."""
    ours = plain_name(name)
    return ours, tensor.mT if ours.endswith(CONV1D) else tensor


def assert_same_gradients(ours: GPT, theirs: GPT2LMHeadModel) -> None:
    """After one backward pass each; every parameter, mapped by its name."""
    expected = dict(
        theirs_as_ours(name, parameter.grad)
        for name, parameter in theirs.named_parameters()
    )
    found = {name: p.grad for name, p in ours.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        largest = expected[name].abs().max()
        difference = (gradient - expected[name]).abs().max()
        assert difference <= 1e-3 * largest + 1e-7, name  # rounding


def assert_same(ours: GPT, theirs: GPT2LMHeadModel, ids: Tensor) -> None:
    """Logits at every position, then the gradients of the loss."""
    expected, found = theirs(ids).logits, ours(ids)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    targets = ids.roll(-1, dims=1)
    for logits in (expected, found):
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
    assert_same_gradients(ours, theirs)


configs = st.builds(
    lambda heads, width, **rest: GPTConfig(
        n_heads=heads, emb_dim=heads * width, **rest
    ),
    heads=st.integers(1, 4),
    width=st.sampled_from([2, 5, 8]),
    vocab_size=st.integers(2, 60),
    context_length=st.integers(1, 33),
    n_layers=st.integers(1, 3),
    tie_weights=st.booleans(),
)


@settings(max_examples=15)
@given(configs)
def test_small_shapes_saved_by_them(tmp_path_factory, config):
    theirs = theirs_of(config)
    folder = tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(folder)
    ours = load_gpt2(folder)
    assert ours.config == config
    assert_same(ours, theirs, ids_of(config, texts=2))


@settings(max_examples=15)
@given(configs, st.booleans(), st.booleans())
def test_small_shapes_saved_by_us(tmp_path_factory, config, qkv_bias, bias):
    """Also a model without biases, which their format does not know."""
    values = config.to_dict() | {"qkv_bias": qkv_bias, "bias": bias}
    ours = shake(GPT(GPTConfig.from_dict(values)))
    folder = save_gpt2(ours, tmp_path_factory.mktemp("ours"))
    theirs, report = GPT2LMHeadModel.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values())  # no tensor missing, none left over
    ids = ids_of(config, texts=2)
    torch.testing.assert_close(ours(ids), theirs(ids).logits, **TOLERANCE)


def test_their_auto_class_knows_our_folder(tmp_path):
    save_gpt2(GPT(GPTConfig(20, 8, 12, 3, 2)), tmp_path)
    auto = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(auto) is GPT2LMHeadModel


@pytest.mark.parametrize("tied", [True, False])
def test_their_shards(tmp_path, tied):
    config = GPTConfig(50, 16, 24, 3, 3, tie_weights=tied)
    theirs = theirs_of(config)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_same(load_gpt2(tmp_path), theirs, ids_of(config))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_their_half_precision_into_fp32(tmp_path, dtype):
    config = GPTConfig(50, 16, 24, 3, 2)
    theirs = theirs_of(config).to(dtype)
    theirs.save_pretrained(tmp_path)
    ours = load_gpt2(tmp_path)
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    assert_same(ours, theirs.float(), ids_of(config))


def test_their_dropout_and_old_masks_do_not_matter(tmp_path):
    from safetensors.torch import load_file, save_file

    config = GPTConfig(50, 16, 24, 3, 2)
    theirs = theirs_of(config)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    for block in range(2):  # as OpenAI's file on the hub has them
        mask = torch.ones(1, 1, 16, 16).tril()
        state[f"transformer.h.{block}.attn.bias"] = mask
    save_file(state, path, {"format": "pt"})
    assert theirs.config.resid_pdrop == 0.1
    assert_same(load_gpt2(tmp_path), theirs, ids_of(config))


def test_another_architecture_of_theirs_is_refused(tmp_path):
    shape = {"hidden_size": 8, "intermediate_size": 8, "vocab_size": 9}
    layers = {"num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.LlamaConfig(
        **shape, **layers, num_key_value_heads=1
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a llama model cannot be loaded"):
        load_gpt2(tmp_path)


def test_the_124m_shape_over_1024_positions(tmp_path):
    """Logits and gradients, with weights that they have saved."""
    theirs = theirs_of(GPT_CONFIG_124M)
    theirs.save_pretrained(tmp_path)
    ours = load_gpt2(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # half a gigabyte
    assert ours.config == GPT_CONFIG_124M
    assert ours.num_params() == theirs.num_parameters() == 124_439_808
    ids = ids_of(GPT_CONFIG_124M)
    assert ids.shape == (1, 1024)
    assert_same(ours, theirs, ids)
    del ours, theirs
    gc.collect()
