"""load_gpt2 and damaged folders: one sentence, whatever is wrong with them.

Hypothesis damages config.json, the header of the weights, and the index of
shards; anything but a model or a WeightsError is a failure.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from minigpt import GPT, GPTConfig, load_gpt2, save_gpt2
from minigpt.gpt2 import FIELDS, FIXED, WEIGHTS, WeightsError
from minigpt.sampling import to_int8

SMALL = GPTConfig(30, 11, 12, 3, 2)
INDEX = f"{WEIGHTS}.index.json"

visible = st.characters(exclude_categories=("Cc", "Cs"))
anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 64),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(visible, max_size=5),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.text(visible), st.integers(0, 3), max_size=2),
)
keys = st.sampled_from(
    ["model_type", "minigpt", "n_inner", *FIXED]
    + [theirs for theirs, _ in FIELDS.values()]
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A model's folder that no test may change."""
    torch.manual_seed(0)
    return save_gpt2(GPT(SMALL), tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def sharded(whole, tmp_path_factory):
    """The same model in two shards."""
    folder = tmp_path_factory.mktemp("sharded")
    shutil.copy(whole / "config.json", folder)
    state = load_file(whole / WEIGHTS)
    files = ("one.safetensors", "two.safetensors")
    where = {name: files[i % 2] for i, name in enumerate(state)}
    for file in files:
        part = {k: t for k, t in state.items() if where[k] == file}
        save_file(part, folder / file)
    (folder / INDEX).write_text(json.dumps({"weight_map": where}))
    return folder


def loads_or_says_why(folder) -> None:
    """A model that computes, or one sentence that names the folder."""
    try:
        model = load_gpt2(folder)
    except WeightsError as error:
        assert str(folder) in str(error)
        assert "\n" not in str(error)
    else:
        length = model.config.context_length
        assert model(torch.zeros(1, length, dtype=torch.long)).ndim == 3


@settings(max_examples=150)
@given(st.dictionaries(keys, anything, min_size=1, max_size=2))
def test_any_value_in_config_json(whole, tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("damaged")
    values = json.loads((whole / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(values))
    (folder / WEIGHTS).symlink_to(whole / WEIGHTS)
    loads_or_says_why(folder)


@settings(max_examples=150)
@given(st.data())
def test_any_byte_of_the_header(whole, tmp_path_factory, data):
    content = bytearray((whole / WEIGHTS).read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, header - 1))
        content[place] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copy(whole / "config.json", folder)
    (folder / WEIGHTS).write_bytes(content)
    loads_or_says_why(folder)


@settings(max_examples=60)
@given(anything | st.fixed_dictionaries({"weight_map": anything}))
def test_any_index_of_shards(sharded, tmp_path_factory, index):
    folder = tmp_path_factory.mktemp("damaged")
    for path in sharded.iterdir():
        if path.name != INDEX:
            shutil.copy(path, folder)
    (folder / INDEX).write_text(json.dumps(index))
    loads_or_says_why(folder)


def test_a_shard_that_the_index_forgets(sharded, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(sharded, folder)
    index = json.loads((folder / INDEX).read_text())
    where = index["weight_map"]
    index["weight_map"] = {k: f for k, f in where.items() if f[0] == "o"}
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=r"lacks h\.\d.* more\)"):
        load_gpt2(folder)


def test_a_longer_context_than_the_files(whole, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(whole, folder)
    values = json.loads((folder / "config.json").read_text())
    values["n_positions"] = 2048
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(WeightsError) as caught:
        load_gpt2(folder)
    message = str(caught.value)
    assert "transformer.wpe.weight has shape (11, 12)" in message
    assert "needs (2048, 12)" in message


def test_a_loaded_model_refuses_wrong_ids_and_long_texts(whole):
    model = load_gpt2(whole)
    with pytest.raises(ValueError, match="id 30 at position 2 of text 1"):
        model(torch.tensor([[1, 2, 3], [4, 5, 30]]))
    with pytest.raises(ValueError, match="12 tokens, but context_length is"):
        model(torch.zeros(1, 12, dtype=torch.long))


def refusal(folder) -> str:
    """The one sentence with which a folder is refused."""
    with pytest.raises(WeightsError) as caught:
        load_gpt2(folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300 + len(str(folder))
    return message


@pytest.fixture
def copied(whole, tmp_path):
    """A folder to damage."""
    return shutil.copytree(whole, tmp_path / "damaged")


# --- weights --------------------------------------------------------------


def test_a_bit_that_flips_is_found_wherever_it_is(copied):
    path = copied / WEIGHTS
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for place in (*range(header, len(content), 997), len(content) - 1):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        message = refusal(copied)
        assert f"{path} is damaged (the bytes of transformer." in message
    path.write_bytes(content)
    load_gpt2(copied)


def test_every_cut_is_refused(copied):
    path = copied / WEIGHTS
    content = path.read_bytes()
    for size in (*range(0, len(content), 1000), len(content) - 1):
        path.write_bytes(content[:size])
        assert f"{path} is damaged" in refusal(copied)
    path.write_bytes(content + b"more")
    assert f"{path} is damaged" in refusal(copied)


def test_a_long_reason_is_cut_short(copied):
    path = copied / WEIGHTS
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"F22"', 1))
    message = refusal(copied)
    assert "unknown variant `F22`, expected one of" in message
    assert message.endswith(" …): download it again")


def test_a_file_that_cannot_be_read_says_what_to_do(copied):
    (copied / WEIGHTS).unlink()
    (copied / WEIGHTS).mkdir()
    assert refusal(copied).endswith("mend that, or download it again")


@pytest.mark.parametrize(
    "name",
    [
        "../one.safetensors",
        "/one.safetensors",
        "folder/one.safetensors",
        "",
        ".",
        "one.bin",
        "one.safetensors\n",
        "a\nb.safetensors",
        "\ud800.safetensors",
        "\0.safetensors",
        7,
    ],
)
def test_a_shard_is_a_file_of_the_folder(name, sharded, tmp_path):
    folder = shutil.copytree(sharded, tmp_path / "damaged")
    (folder / "folder").mkdir()
    for path in (tmp_path, folder / "folder"):  # both could be loaded
        shutil.copy(folder / "one.safetensors", path)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] = {
        tensor: name if file == "one.safetensors" else file
        for tensor, file in index["weight_map"].items()
    }
    if name == "/one.safetensors":
        text = json.dumps(index).replace(name, f"{tmp_path}{name}")
        index = json.loads(text)
    (folder / INDEX).write_text(json.dumps(index))
    assert f"{INDEX} is damaged: download it again" in refusal(folder)


# --- config.json and names ------------------------------------------------


@pytest.mark.parametrize("key", ["n_layers", "emb_dim", "vocab_size"])
def test_an_absurd_size_in_our_own_key(copied, key):
    path = copied / "config.json"
    values = json.loads(path.read_text())
    values["minigpt"][key] = 10**15
    path.write_text(json.dumps(values))
    assert f"is {10**15}, above" in refusal(copied)


@pytest.mark.parametrize("name", [None, 5, b"folder", ["gpt2"]])
def test_what_is_no_name(name):
    with pytest.raises(TypeError, match="give a name or a path"):
        load_gpt2(name)


def test_names_that_no_folder_can_have(whole, monkeypatch):
    monkeypatch.chdir(whole)  # an empty name is not this folder
    for name in ("", "a" * 5000, "\0", "\ud800"):
        with pytest.raises(WeightsError, match="no model and no folder is"):
            load_gpt2(name)
    assert load_gpt2(".").config == SMALL


def test_a_dtype_by_its_name(whole):
    with pytest.raises(ValueError, match="dtype is 'float32': choose one of"):
        load_gpt2(whole, dtype="float32")


def test_an_endpoint_that_is_no_address():
    code = "import minigpt; minigpt.load_gpt2('gpt2')"
    env = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:99999"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("minigpt.gpt2.WeightsError: HF_ENDPOINT is no")
    assert "or unset it" in last


# --- saving ---------------------------------------------------------------


class Wrapped(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.module, self.config, self.wte = model, model.config, model.wte


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (to_int8, ValueError, "save the model that it was made from"),
        (torch.compile, TypeError, "a compiled one has it in _orig_mod"),
        (Wrapped, TypeError, "a Wrapped: give the GPT itself"),
        (lambda model: None, TypeError, "a NoneType: give the GPT itself"),
        (lambda m: m.to("meta"), ValueError, "on meta, which no file"),
        (lambda m: m.to(torch.float8_e5m2), ValueError, "model.float()"),
    ],
)
def test_a_model_that_cannot_be_saved(change, error, message, tmp_path):
    model = change(GPT(SMALL))
    with pytest.raises(error) as caught:
        save_gpt2(model, tmp_path / "model")
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


RUN = {"model": SMALL.to_dict(), "train": {}, "precision": "fp32"}


@pytest.mark.parametrize(
    "contents",
    [
        {"config.json": "damaged", WEIGHTS: "best", "log.jsonl": "a log"},
        {"config.json": json.dumps(RUN), WEIGHTS: "best"},
    ],
)
def test_a_training_run_is_never_overwritten(contents, tmp_path):
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match="holds a training run"):
        save_gpt2(GPT(SMALL), tmp_path)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == contents


def test_an_empty_name_is_not_this_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="name is empty: give one"):
        save_gpt2(GPT(SMALL), "")
    assert not list(tmp_path.iterdir())
