"""load_gpt2 and damaged folders: one sentence, whatever is wrong with them.

Hypothesis damages config.json, the header of the weights, and the index of
shards; anything but a model or a WeightsError is a failure.
"""

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from minigpt import GPT, GPTConfig, load_gpt2, save_gpt2
from minigpt.gpt2 import FIELDS, FIXED, WEIGHTS, WeightsError

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
