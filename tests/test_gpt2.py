"""Loading and saving GPT-2 in Hugging Face's format: what can go wrong."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from minigpt import GPT, GPT_CONFIG_124M, PRESETS, GPTConfig, gpt2
from minigpt.gpt2 import (
    HUB,
    WeightsError,
    config_from_hf,
    config_to_hf,
    expected_shapes,
    load_gpt2,
    official_weights,
    save_gpt2,
)

SMALL = GPTConfig(30, 11, 12, 3, 2)
FILE = "model.safetensors"


def noisy(config: GPTConfig) -> GPT:
    """A model in which no parameter is 0 or 1 by its start."""
    torch.manual_seed(0)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    return model


def assert_equal(one: GPT, other: GPT) -> None:
    assert one.config == other.config
    ours, theirs = one.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    for model in (one, other):
        tied = model.lm_head.weight is model.wte.weight
        assert tied == model.config.tie_weights


@pytest.fixture
def folder(tmp_path):
    return save_gpt2(noisy(SMALL), tmp_path / "model")


def edit_config(folder, **changes) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(values))


def edit_tensors(folder, change) -> None:
    """Rewrite the weights after change(state) has worked on them."""
    state = load_file(folder / FILE)
    state = change(state) or state
    save_file({k: t.contiguous() for k, t in state.items()}, folder / FILE)


def refusal(name_or_path, **options) -> str:
    """The one sentence with which it is refused."""
    with pytest.raises(WeightsError) as caught:
        load_gpt2(name_or_path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---------------------------------------------------------- there and back
configs = st.builds(
    lambda heads, width, **rest: GPTConfig(
        n_heads=heads, emb_dim=heads * width, **rest
    ),
    heads=st.integers(1, 3),
    width=st.integers(1, 5),
    vocab_size=st.integers(1, 40),
    context_length=st.integers(1, 9),
    n_layers=st.integers(1, 3),
    drop_rate=st.sampled_from([0.0, 0.3]),
    qkv_bias=st.booleans(),
    bias=st.booleans(),
    tie_weights=st.booleans(),
)


@settings(deadline=None, max_examples=40)
@given(configs)
def test_saved_and_loaded_is_equal(tmp_path_factory, config):
    model = noisy(config)
    folder = save_gpt2(model, tmp_path_factory.mktemp("model"))
    again = load_gpt2(folder)
    assert_equal(model, again)
    assert not again.training
    assert all(p.requires_grad for p in again.parameters())
    assert sorted(os.listdir(folder)) == ["config.json", FILE]


@given(configs)
def test_configurations_survive_json(config):
    values = json.loads(json.dumps(config_to_hf(config)))
    assert config_from_hf(values) == config


def test_what_is_written_is_hugging_faces_layout(folder):
    state = load_file(folder / FILE)
    assert state["transformer.wte.weight"].shape == (30, 12)
    assert state["transformer.h.0.attn.c_attn.weight"].shape == (12, 36)
    assert state["transformer.h.1.mlp.c_fc.weight"].shape == (12, 48)
    assert state["transformer.h.1.mlp.c_proj.weight"].shape == (48, 12)
    assert "lm_head.weight" not in state  # tied
    with safetensors.safe_open(folder / FILE, "pt") as file:
        sums = file.metadata()
        assert sums.pop("format") == "pt"
        assert set(sums) == {f"sha256 {name}" for name in state}
    values = json.loads((folder / "config.json").read_text())
    assert values["architectures"] == ["GPT2LMHeadModel"]
    assert values["bos_token_id"] is None
    assert config_to_hf(GPT_CONFIG_124M)["eos_token_id"] == 50256


def test_every_matrix_is_turned_also_the_square_one(folder):
    state = load_file(folder / FILE)
    model = load_gpt2(folder)
    theirs = state["transformer.h.0.attn.c_proj.weight"]
    assert torch.equal(model.h[0].attn.c_proj.weight, theirs.mT)


def test_a_missing_bias_is_written_as_zeros_and_stays_missing(tmp_path):
    config = replace(SMALL, qkv_bias=False, bias=False)
    folder = save_gpt2(noisy(config), tmp_path)
    state = load_file(folder / FILE)
    assert not state["transformer.h.0.attn.c_attn.bias"].any()
    assert not state["transformer.ln_f.bias"].any()
    assert load_gpt2(folder).h[0].ln_1.bias is None

    edit_config(folder, minigpt={})  # as any other program sees it
    with_biases = load_gpt2(folder)
    idx = torch.arange(11)[None]
    assert with_biases.config == SMALL
    assert torch.equal(with_biases(idx), load_gpt2(folder)(idx))

    edit_config(folder, minigpt={"bias": False})
    edit_tensors(
        folder, lambda s: s | {"transformer.ln_f.bias": torch.ones(12)}
    )
    message = refusal(folder)
    assert "transformer.ln_f.bias is not zero" in message
    assert 'delete "minigpt" from config.json' in message


def test_our_dropout_is_theirs_and_rests_after_loading(tmp_path):
    config = replace(SMALL, drop_rate=0.3)
    values = config_to_hf(config)
    rates = [values[f"{place}_pdrop"] for place in ("attn", "embd", "resid")]
    assert rates == [0.3, 0.3, 0.3]
    model = load_gpt2(save_gpt2(GPT(config), tmp_path))
    assert model.config.drop_rate == 0.3
    assert not any(module.training for module in model.modules())


def test_hugging_faces_dropout_is_not_ours(folder):
    edit_config(folder, resid_pdrop=0.1, attn_pdrop=0.1, minigpt={})
    assert load_gpt2(folder).config.drop_rate == 0.0


# ------------------------------------------------------- variants of files
def test_without_the_prefix_and_with_masks(folder):
    def old_style(state):
        new = {k.removeprefix("transformer."): t for k, t in state.items()}
        for block in range(2):
            mask = torch.ones(1, 1, 11, 11).tril()
            new[f"h.{block}.attn.bias"] = mask
            new[f"h.{block}.attn.masked_bias"] = torch.tensor(-1e4)
        return new

    edit_tensors(folder, old_style)
    assert_equal(load_gpt2(folder), noisy(SMALL))


def test_a_stored_copy_of_the_tied_table_is_passed_over(folder):
    edit_tensors(
        folder,
        lambda s: s | {"lm_head.weight": s["transformer.wte.weight"].clone()},
    )
    assert_equal(load_gpt2(folder), noisy(SMALL))


def test_one_name_twice_is_refused(folder):
    edit_tensors(
        folder,
        lambda s: s | {"wte.weight": s["transformer.wte.weight"].clone()},
    )
    assert "a second time" in refusal(folder)


def shard(folder, parts: int = 3) -> list[str]:
    """Cut the weights of a folder into shards; their names."""
    state = load_file(folder / FILE)
    names = [
        f"model-{i + 1:05}-of-{parts:05}.safetensors" for i in range(parts)
    ]
    where = {key: names[i % parts] for i, key in enumerate(state)}
    for name in names:
        part = {k: t for k, t in state.items() if where[k] == name}
        save_file(part, folder / name)
    index = {"metadata": {}, "weight_map": where}
    (folder / f"{FILE}.index.json").write_text(json.dumps(index))
    (folder / FILE).unlink()
    return names


def test_shards(folder):
    shard(folder)
    assert_equal(load_gpt2(folder), noisy(SMALL))


def test_one_whole_file_goes_before_shards(folder):
    whole = (folder / FILE).read_bytes()
    name = shard(folder)[1]
    (folder / FILE).write_bytes(whole)
    (folder / name).unlink()
    assert_equal(load_gpt2(folder), noisy(SMALL))


def test_a_missing_shard_is_named(folder):
    name = shard(folder)[1]
    (folder / name).unlink()
    assert f"{name} is missing: download it" in refusal(folder)


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_a_damaged_index_is_named(folder, index):
    shard(folder)
    (folder / f"{FILE}.index.json").write_text(index)
    assert f"{FILE}.index.json is damaged" in refusal(folder)


def test_an_index_without_shards_stands_for_one_file(folder):
    (folder / f"{FILE}.index.json").write_text('{"weight_map": {}}')
    (folder / FILE).unlink()
    assert f"{folder / FILE} is missing" in refusal(folder)


# ------------------------------------------------------ dtypes and devices
@pytest.mark.parametrize("dtype", gpt2.DTYPES, ids=str)
def test_dtypes(folder, dtype):
    model = load_gpt2(folder, dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    true = noisy(SMALL).wte.weight.to(dtype)
    assert torch.equal(model.wte.weight, true)
    assert model(torch.arange(11)[None]).dtype == dtype


def test_a_half_precision_model_is_saved_as_it_is(tmp_path):
    model = noisy(SMALL).to(torch.bfloat16)
    folder = save_gpt2(model, tmp_path)
    assert_equal(load_gpt2(folder, dtype=torch.bfloat16), model)


def test_wrong_dtypes_and_devices_are_refused(folder):
    with pytest.raises(ValueError, match="dtype is torch.int8: choose one"):
        load_gpt2(folder, dtype=torch.int8)
    with pytest.raises(ValueError, match="device 'nowhere' cannot be used"):
        load_gpt2(folder, device="nowhere")
    with pytest.raises(ValueError, match="device 'meta' cannot be used"):
        load_gpt2(folder, device="meta")
    device = torch.device("cpu")
    assert load_gpt2(folder, device=device).wte.weight.device == device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(folder):
    model = load_gpt2(folder, device="cuda", dtype=torch.bfloat16)
    assert model.wte.weight.is_cuda
    assert_equal(model.cpu(), noisy(SMALL).to(torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64], ids=str)
def test_a_file_of_integers_is_refused(dtype, folder):
    name = "transformer.ln_f.bias"
    edit_tensors(folder, lambda s: s | {name: s[name].to(dtype)})
    kind = {torch.int8: "I8", torch.int64: "I64"}[dtype]
    assert f"{name} is stored as {kind}; only F64, F32" in refusal(folder)


# ---------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "a llama model cannot be loaded"),
        ({"model_type": None}, "a None model cannot be loaded"),
        ({"activation_function": "relu"}, "activation_function is relu"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06"),
        ({"n_inner": 100}, "n_inner is 100, and our GPT's is None or 48"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False"),
        ({"scale_attn_by_inverse_layer_idx": True}, "layer_idx is True"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"n_head": 5}, "12 cannot be shared by 5 heads"),
        ({"vocab_size": "many"}, "vocab_size must be a whole number"),
        ({"minigpt": {"colour": 1}}, "GPTConfig has no field colour"),
        ({"minigpt": 1}, "is not a GPT-2's"),
        ({"train": {}, "model": {}}, "a training run's, for load_run"),
    ],
)
def test_another_config_is_refused(folder, changes, message):
    edit_config(folder, **changes)
    assert message in refusal(folder)
    assert str(folder / "config.json") in refusal(folder)


def test_hugging_faces_defaults_are_gpt2s():
    assert config_from_hf({"model_type": "gpt2"}) == GPT_CONFIG_124M


@pytest.mark.parametrize("text", ["{", "[]", "3", '"gpt2"', "\x00"])
def test_a_damaged_config_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    assert f"{folder / 'config.json'} is not a GPT-2's" in refusal(folder)


def test_folders_that_lack_something(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "config.json is missing" in refusal(empty)
    (folder / FILE).unlink()
    assert f"{folder / FILE} is missing" in refusal(folder)


@pytest.mark.parametrize("name", ["gpt5", "no/such/folder", "gpt2/"])
def test_unknown_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal(name)
    assert f"no model and no folder is called '{name}'" in message
    assert "gpt2, gpt2-medium, gpt2-large, gpt2-xl" in message


def test_missing_unknown_and_misshapen_tensors_are_named(folder):
    name = "transformer.h.1.mlp.c_fc.weight"
    whole = (folder / FILE).read_bytes()

    edit_tensors(folder, lambda s: s.pop(name) is None)
    message = refusal(folder)
    assert f"{folder} lacks h.1.mlp.c_fc.weight, which the model" in message
    (folder / FILE).write_bytes(whole)

    edit_tensors(folder, lambda s: s | {"score.weight": torch.zeros(2, 12)})
    assert "has score.weight, which the model" in refusal(folder)
    (folder / FILE).write_bytes(whole)

    edit_tensors(folder, lambda s: s | {name: s[name].mT})
    message = refusal(folder)
    assert f"{name} has shape (48, 12)" in message
    assert "needs (12, 48)" in message
    (folder / FILE).write_bytes(whole)

    edit_config(folder, n_layer=3)
    assert "(and 11 more)" in refusal(folder)


def test_untied_needs_its_own_table(folder):
    edit_config(folder, tie_word_embeddings=False)
    assert "lacks lm_head.weight" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 7, 8, 200, -1])
def test_truncated_files_are_refused(folder, keep):
    path = folder / FILE
    path.write_bytes(path.read_bytes()[:keep])
    message = refusal(folder)
    assert f"{path} is damaged" in message
    assert "download it again" in message


def test_a_folder_in_the_place_of_a_file_is_refused(folder):
    (folder / FILE).unlink()
    (folder / FILE).mkdir()
    assert f"{folder / FILE} cannot be read" in refusal(folder)


# ---------------------------------------------------------- nothing halved
@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        safetensors.SafetensorError("I/O error: No space left on device"),
    ],
    ids=["Python's", "safetensors'"],
)
def test_a_failed_save_leaves_the_old_model(folder, monkeypatch, error):
    def full(_tensors, path, _metadata):
        path.write_bytes(b"half of it")
        raise error

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(RuntimeError, match=r"cannot write .*No space left"):
        save_gpt2(noisy(replace(SMALL, n_layers=3)), folder)
    assert sorted(os.listdir(folder)) == ["config.json", FILE]
    assert_equal(load_gpt2(folder), noisy(SMALL))


def cut_after_the_weights(monkeypatch) -> None:
    """The program ends between the two files."""
    replace = os.replace

    def cut(part, path):
        if path.name == "config.json":
            raise KeyboardInterrupt
        replace(part, path)

    monkeypatch.setattr(os, "replace", cut)


def test_a_save_cut_between_its_files_is_refused(folder, monkeypatch):
    cut_after_the_weights(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        save_gpt2(noisy(replace(SMALL, n_layers=3)), folder)
    assert os.listdir(folder) == [FILE]
    assert "config.json is missing" in refusal(folder)
    monkeypatch.undo()
    save_gpt2(noisy(SMALL), folder)
    assert_equal(load_gpt2(folder), noisy(SMALL))


def test_a_save_of_the_same_shape_may_be_cut_anywhere(folder, monkeypatch):
    model = noisy(SMALL)
    torch.nn.init.ones_(model.wpe.weight)
    cut_after_the_weights(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        save_gpt2(model, folder)
    assert_equal(load_gpt2(folder), model)


@pytest.mark.parametrize("name", [FILE, "config.json"])
def test_a_disk_full_at_either_file_keeps_the_old_model(
    name, folder, monkeypatch
):
    sync, synced = os.fsync, []

    def full(number):
        synced.append(number)
        if len(synced) > (name == "config.json"):
            raise OSError(28, "No space left on device")
        sync(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RuntimeError, match="No space left on device"):
        save_gpt2(noisy(replace(SMALL, n_layers=3)), folder)
    assert sorted(os.listdir(folder)) == ["config.json", FILE]
    assert_equal(load_gpt2(folder), noisy(SMALL))


def test_saving_over_the_folder_that_was_loaded(folder):
    model = load_gpt2(folder)
    save_gpt2(model, folder)
    assert_equal(load_gpt2(folder), model)


def test_the_place_to_save_must_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeError, match="cannot write"):
        save_gpt2(noisy(SMALL), tmp_path / "file")


def test_loaded_weights_do_not_depend_on_the_file(folder):
    model = load_gpt2(folder)
    path = folder / FILE
    with open(path, "r+b") as file:  # in place, as a careless copy does
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 2000)
    path.unlink()
    assert_equal(model, noisy(SMALL))


# ------------------------------------------------------------- memory, hub
PEAK = """
import sys
import minigpt
assert "huggingface_hub" not in sys.modules and len(sys.argv) == 3

def peak():  # of this program alone; ru_maxrss begins with its parent's
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return int(lines["VmHWM"].split()[0]) * 1024

minigpt.load_gpt2(sys.argv[1])  # safetensors itself takes memory, once
before = peak()
model = minigpt.load_gpt2(sys.argv[2])
print((peak() - before) / (4 * model.num_params()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_takes_little_more_than_the_weights(folder, tmp_path):
    # half of it is the embedding: read last it would be 1.5 times as much
    shape = GPTConfig(24_000, 64, 512, 8, 4)
    save_gpt2(GPT(shape), tmp_path / "large")
    out = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder), str(tmp_path / "large")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0.9 < float(out.stdout) < 1.3


def test_expected_shapes_cover_the_parameters():
    for name, config in PRESETS.items():
        if config.bias and config.qkv_bias:
            shapes = expected_shapes(config).values()
            count = sum(torch.Size(shape).numel() for shape in shapes)
            with torch.device("meta"):
                assert count == GPT(config).num_params(), name


def test_releases_are_pinned():
    assert list(HUB) == [name for name in PRESETS if name.startswith("gpt2")]
    for name, release in HUB.items():
        assert release.repo == f"openai-community/{name}"
        assert len(bytes.fromhex(release.revision)) == 20
        assert len(bytes.fromhex(release.sha256)) == 32


def test_offline_and_not_cached(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *_, **__: None
    )
    for name in ("gpt2", "openai-community/gpt2-xl"):
        message = refusal(name)
        assert "is not in the cache and cannot be downloaded" in message
        assert "HF_HUB_OFFLINE is set" in message
        assert "name a mirror in HF_ENDPOINT" in message


def test_no_network(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/")  # no one there
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *_, **__: None
    )
    message = refusal("gpt2-large")
    assert "cannot be downloaded from http://127.0.0.1:9 (" in message


def test_a_cached_file_is_checked(monkeypatch, folder):
    path = folder / FILE
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(path)
    )
    with pytest.raises(WeightsError) as caught:
        official_weights("gpt2")
    message = str(caught.value)
    assert f"{path} is not what OpenAI published" in message
    assert "not 248dfc391186…): delete it" in message


def test_a_folder_goes_before_a_name(folder, monkeypatch):
    folder.rename(folder.with_name("gpt2"))
    monkeypatch.chdir(folder.parent)
    assert load_gpt2("gpt2").config == SMALL


# ------------------------------------------------- as other courses have it
def test_the_snippet_of_other_courses():
    with torch.device("meta"):  # the chapter runs it with real numbers
        model = GPT(GPT_CONFIG_124M)
        idx = torch.zeros(2, 256, dtype=torch.long)
        assert model(idx).shape == (2, 256, 50257)


@pytest.mark.parametrize("key", ["n_layer", "n_embd", "n_positions"])
def test_an_absurd_size_is_refused_at_once(folder, key):
    edit_config(folder, **{key: 10**15})
    assert f"{key} is {10**15}, above" in refusal(folder)


def test_a_file_nested_too_deeply_is_refused(folder):
    (folder / "config.json").write_text("[" * 100_000)
    assert "nested too deeply" in refusal(folder)
