"""`minigpt train --start`: a trained model reads another text."""

import json

import pytest
import torch

from minigpt import GPT, PRESETS, CharTokenizer, GPTConfig, load_run
from minigpt.cli import _parse, main
from minigpt.fine_tuning import FINE_TUNING, shape_of
from minigpt.shards import ShardSettings, build_shards
from minigpt.sharing import export
from minigpt.sources import open_source

FLAGS = "--device cpu --precision fp32 --max-steps 2 --sample-tokens 3".split()
SETTINGS = ShardSettings(val_fraction=0.2)
TEXT = "ROMEO:\nto be, that is the question: to be or not to be.\n" * 30


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def train(*words):
    return main(["train", *map(str, words), *FLAGS])


def test_it_starts_from_the_weights_of_a_run(tiny_run, text, tmp_path):
    words = ("--start", tiny_run, "--data", text, "--out", tmp_path / "t")
    assert train(*words, "--learning-rate", "0") == 0
    (before, tokenizer) = load_run(tiny_run)
    (after, same) = load_run(tmp_path / "t")
    for name, weight in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], weight)
    assert same.chars == tokenizer.chars


def test_its_own_recipe_unless_flags_say_otherwise(tiny_run):
    words = ["train", "--start", str(tiny_run), "--out", "x"]
    assert _parse(words).train == FINE_TUNING
    assert _parse([*words, "--max-steps", "7"]).train.max_steps == 7


def test_it_goes_on_with_the_same_command(tiny_run, text, tmp_path):
    words = ("--start", tiny_run, "--data", text, "--out", tmp_path / "t")
    assert train(*words) == 0
    (tmp_path / "t/model.safetensors").unlink()  # the checkpoint has it
    more = ["--resume", "--max-steps", "4", "--eval-every", "1"]
    assert main(["train", *map(str, words), *more]) == 0
    log = (tmp_path / "t/log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["step"] == 4
    card = export(tmp_path / "t", "safetensors", tmp_path / "e") / "README.md"
    assert "fine-tuned from tiny." in card.read_text()
    assert "| Started from | tiny |" in card.read_text()


def test_an_export_with_fewer_positions_and_dropout(tiny_run, text, tmp_path):
    folder = export(tiny_run, "huggingface", tmp_path / "hf")
    shape = ("--context-length", 16, "--drop-rate", 0.1)
    words = ("--start", folder, "--data", text, "--out", tmp_path / "t")
    assert train(*words, *shape, "--learning-rate", "0") == 0
    model, _ = load_run(tmp_path / "t")
    start, _ = load_run(tiny_run)
    assert model.context_length == 16 and model.config.drop_rate == 0.1
    torch.testing.assert_close(model.wpe.weight, start.wpe.weight[:16])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--emb-dim", "32"], "brings its shape: leave --emb-dim out"),
        (["--tokenizer", "bpe"], "leave --tokenizer and --vocab-size out"),
        (["--vocab-size", "300"], "leave --tokenizer and --vocab-size out"),
        (["--context-length", "64"], "has 32 positions: give a"),
        (["--start", "nowhere"], "no run 'nowhere'"),
    ],
)
def test_what_a_start_settles(
    words, message, tiny_run, text, tmp_path, capsys
):
    start = () if "--start" in words else ("--start", tiny_run)
    out = tmp_path / "out"
    assert train(*start, "--data", text, "--out", out, *words) == 2
    assert message in capsys.readouterr().err
    assert not (out / "config.json").exists()


@pytest.mark.parametrize("ours", [True, False])
def test_shards_of_the_same_tokenizer(ours, tiny_run, text, tmp_path, capsys):
    _, tokenizer = load_run(tiny_run)
    if not ours:  # as many characters, but one is another
        tokenizer = CharTokenizer.from_text(TEXT.replace("q", "~"))
        text.write_text(TEXT.replace("q", "~"))
    build_shards(open_source(text), tokenizer, tmp_path / "s", SETTINGS)
    words = ("--start", tiny_run, "--data", tmp_path / "s")
    assert train(*words, "--out", tmp_path / "t") == (0 if ours else 2)
    assert ours or "have another tokenizer" in capsys.readouterr().err


def test_gpt2_in_hugging_faces_format_is_called_by_its_shape():
    with torch.device("meta"):
        assert shape_of(GPT(PRESETS["gpt2"])) == "gpt2"
        assert shape_of(GPT(GPTConfig(65, 8, 8, 2, 2))) is None
