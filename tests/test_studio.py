"""What the app's studio writes, for one and for several at once."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from minigpt import GPT, PRESETS, GPTConfig, save_gpt2
from minigpt import studio as module
from minigpt.runfolder import RunError
from minigpt.sampling import Sampler, stream
from minigpt.sharing import export
from minigpt.studio import Turns, Wish, examples, open_studio
from minigpt.text import CharTokenizer
from minigpt.tokenizer import TokenizerError, gpt2_tokenizer


@pytest.fixture
def studio(tiny_run):
    return open_studio(str(tiny_run), "cpu")


def wish(prompt="ROMEO", tokens=12, samples=1, seed=3, **settings):
    return Wish(prompt, Sampler(**settings), tokens, samples, seed)


def last(written):
    *_, texts = written
    return texts


def test_a_text_is_what_stream_writes(studio):
    dice = torch.Generator().manual_seed(3)
    plain = "".join(stream(  # more than the context of 32
        studio.model, studio.tokenizer, "ROMEO", 60, generator=dice, keep=16,
    ))
    assert last(studio.write(wish(tokens=60))) == [plain]
    assert last(studio.write(wish(seed=4))) != [plain]


def test_samples_do_not_depend_on_how_many_there_are(studio):
    four = last(studio.write(wish(samples=4)))
    assert len(set(four)) > 1
    assert last(studio.write(wish(samples=2))) == four[:2]
    assert last(studio.write(wish(seed=5))) == [four[2]]


def test_several_at_once_write_what_each_would_alone(studio):
    alone = {s: last(studio.write(wish(seed=s))) for s in range(8)}
    found = {}

    def visit(seed):
        found[seed] = last(studio.write(wish(seed=seed)))

    visitors = [threading.Thread(target=visit, args=(s,)) for s in range(8)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(60)
    assert found == alone
    assert torch.is_grad_enabled()


def test_turns_are_given_in_the_order_of_asking():
    turns, order, threads = Turns(), [], []

    def take(number):
        with turns:
            order.append(number)

    with turns:
        for number in range(6):
            thread = threading.Thread(target=take, args=(number,))
            thread.start()
            threads.append(thread)
            deadline = time.monotonic() + 20
            while len(turns._waiting) <= number:
                assert time.monotonic() < deadline
                time.sleep(0.001)
        assert not order
    for thread in threads:
        thread.join(20)
    assert order == list(range(6))
    with turns:  # free again
        order.append("end")


def test_a_short_text_does_not_wait_for_a_long_one(studio):
    long = studio.write(wish(tokens=900))
    next(long)
    short = last(studio.write(wish(tokens=5, seed=9)))
    assert len(short[0]) == 5
    assert len(next(long)[0]) < 900
    long.close()


def test_closing_stops_the_model(studio):
    steps = []
    studio.model.register_forward_hook(lambda *_: steps.append(1))
    written = studio.write(wish(tokens=1000))
    next(written)
    before = threading.active_count()
    written.close()
    deadline = time.monotonic() + 20
    while threading.active_count() >= before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    done = len(steps)
    time.sleep(0.1)
    assert len(steps) == done < 1000


def test_one_text_at_a_time_uses_the_model(studio):
    """Two at once would each be slower, and share what is not theirs."""
    inside, most = [], []

    def enter(*_):
        inside.append(1)
        time.sleep(0.002)
        most.append(len(inside))

    studio.model.register_forward_pre_hook(enter)
    studio.model.register_forward_hook(lambda *_: inside.pop() and None)
    several = [studio.write(wish(seed=seed, tokens=8)) for seed in range(3)]
    for written in several:
        next(written)
    for written in several:
        last(written)
    assert len(most) == 3 * 8 and max(most) == 1


def test_an_error_while_writing_reaches_the_reader(studio):
    with torch.no_grad():
        studio.model.wte.weight.fill_(float("nan"))
    with pytest.raises(ValueError):
        last(studio.write(wish()))
    with studio._turns:  # and nobody is locked out
        pass


@pytest.mark.parametrize(("changes", "words"), [
    ({"tokens": 0}, "0 tokens: choose 1 to 1000"),
    ({"tokens": 1001}, "1001 tokens"),
    ({"samples": 5}, "5 samples: choose 1 to 4"),
    ({"seed": -1}, "seed -1"),
    ({"seed": 10**30}, "choose 0 to 1,000,000,000,000,000"),
    ({"prompt": "o" * 100_000}, "100,000 characters: shorten it to 2,000"),
    ({"prompt": "o" * 2001}, "2,001 characters"),
    ({"prompt": "\N{OCTOPUS}ab\N{OCTOPUS}"},
     "characters .* trained on: take '\N{OCTOPUS}' out of the prompt$"),
    ({"prompt": "67 be 98%5\0"}, "take '6' '7' '9' '8' '%' … out of"),
])
def test_what_cannot_be_written_is_one_sentence(studio, changes, words):
    before = threading.active_count()
    with pytest.raises(ValueError, match=words):
        next(studio.write(wish(**changes)))
    assert threading.active_count() <= before  # none was begun


def test_an_empty_prompt_begins_a_line(studio):
    assert studio.first == "\n"
    assert len(last(studio.write(wish(prompt="")))[0]) == 12
    assert len(last(studio.write(wish(prompt="o" * 2000)))[0]) == 12


def test_the_chart_follows_the_settings(studio):
    plain = studio.next_tokens("to be", Sampler())
    assert list(plain.values()) == sorted(plain.values(), reverse=True)
    assert len(plain) == module.SHOWN and 0 < sum(plain.values()) <= 1 + 1e-6
    ids = torch.tensor([studio.tokenizer.encode("to be")])
    with torch.no_grad():
        probs = studio.model(ids)[0, -1].softmax(-1)
    best = studio.tokenizer.decode([probs.argmax().item()])
    assert next(iter(plain)) == module.visible(best)
    assert max(plain.values()) == pytest.approx(probs.max().item(), rel=1e-5)
    three = studio.next_tokens("to be", Sampler(top_k=3))
    assert len(three) == 3 and sum(three.values()) == pytest.approx(1)
    greedy = studio.next_tokens("to be", Sampler(temperature=0))
    assert greedy == {module.visible(best): 1.0}
    assert studio.next_tokens("", Sampler()) == studio.next_tokens(
        "\n", Sampler())
    longer = "to be " * 100  # more than the context
    assert studio.next_tokens(longer, Sampler())


def test_tokens_that_look_alike_are_told_apart(studio, monkeypatch):
    monkeypatch.setattr(module, "visible", lambda text: "?")
    labels = list(studio.next_tokens("to be", Sampler()))
    assert len(labels) == module.SHOWN == len(set(labels))
    assert all(label.startswith("? #") for label in labels)


def test_attention_is_the_models_own(studio, monkeypatch):
    labels, maps = studio.attention("to be, or", 2)
    assert "".join(labels).replace("␣", " ").replace("·", " ") == "to be, or"
    assert maps.shape == (2, 9, 9)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 9))
    assert maps.triu(1).abs().max() == 0
    seen = []
    attn = studio.model.h[1].attn
    hook = attn.register_forward_pre_hook(
        lambda part, args: seen.append(part.weights(args[0])[0])
    )
    with torch.no_grad():
        studio.model(torch.tensor([studio.tokenizer.encode("to be, or")]))
    hook.remove()
    torch.testing.assert_close(maps, seen[0])
    text = "to be, or not to be: that is the question." * 3
    assert studio.attention(text, 1)[1].shape == (2, 32, 32)
    monkeypatch.setattr(module, "HEAT", 8)
    labels, maps = studio.attention(text, 1)
    assert "".join(labels).endswith("on.") and maps.shape == (2, 8, 8)
    for layer in (0, 3):
        with pytest.raises(ValueError, match="choose 1 to 2"):
            studio.attention("to be", layer)


def test_facts_tell_no_path(studio):
    facts = dict(studio.facts())
    assert facts["model"] == "tiny"
    assert facts["trained on"] == "plays.txt"
    assert "someone" not in str(facts)
    assert float(facts["best validation loss"]) > 0
    assert facts["tokens seen in training"] == f"{6 * 4 * 32:,}"


def test_a_damaged_log_costs_the_curve_alone(tiny_run, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (copy / name).write_bytes((tiny_run / name).read_bytes())
    (copy / "log.jsonl").write_text("{")
    damaged = open_studio(str(copy), "cpu")
    assert damaged.rows == () and damaged.told == {}
    (copy / "log.jsonl").unlink()
    without = open_studio(str(copy), "cpu")
    assert without.rows == () and without.told["data"] == "plays.txt"


def test_a_log_that_lacks_numbers_draws_what_it_has(tiny_run, tmp_path):
    from minigpt.app import _facts

    copy = Path(shutil.copytree(tiny_run, tmp_path / "copy"))
    lines = (copy / "log.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row, lost in zip(rows[1:], ("loss", "lr", "kind")):
        row.pop(lost, None)
    (copy / "log.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows))
    studio = open_studio(str(copy), "cpu")
    assert 0 < len(studio.rows) < len(rows) - 1
    assert "data:image/png" in _facts(studio)


def test_no_model_no_studio(tiny_run, tmp_path):
    with pytest.raises(RunError, match="no run"):
        open_studio(str(tmp_path / "nothing"), "cpu")
    young = tmp_path / "young"  # trained, but not yet evaluated
    young.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (young / name).write_bytes((tiny_run / name).read_bytes())
    with pytest.raises(RunError, match="model.safetensors"):
        open_studio(str(young), "cpu")
    whole = (tiny_run / "model.safetensors").read_bytes()
    (young / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError):
        open_studio(str(young), "cpu")
    save_file({"other": torch.zeros(1)}, young / "model.safetensors")
    with pytest.raises(RunError):
        open_studio(str(young), "cpu")


def test_two_samples_of_a_run_that_is_still_training(tiny_run, tmp_path):
    """Its best model may be replaced at any moment; the log's end, cut."""
    copy = Path(shutil.copytree(tiny_run, tmp_path / "copy"))
    with (copy / "log.jsonl").open("a") as log:
        log.write('{"kind": "train", "st')
    studio = open_studio(str(copy), "cpu")
    whole = last(studio.write(wish(samples=2)))
    running = studio.write(wish(samples=2))
    next(running)
    save_file({"other": torch.zeros(1)}, copy / "new")
    os.replace(copy / "new", copy / "model.safetensors")
    assert last(running) == whole and len(whole) == 2
    assert studio.rows and "best validation loss" in dict(studio.facts())


@pytest.mark.skipif(os.name == "nt", reason="Windows locks mapped files")
def test_a_run_that_is_overwritten_or_deleted_goes_on(tiny_run, tmp_path):
    """Weights that lie in a file which is cut end the process (SIGBUS)."""
    code = """
import shutil, sys
from minigpt.sampling import Sampler
from minigpt.studio import Wish, open_studio
studio = open_studio(sys.argv[1], "cpu")
def text():
    return [*studio.write(Wish("to", Sampler(), 9, 1, 1))][-1]
before = text()
with open(sys.argv[1] + "/model.safetensors", "r+b") as file:
    file.truncate(0)
assert text() == before
shutil.rmtree(sys.argv[1])
assert text() == before and studio.attention("to", 1)
assert studio.model.lm_head.weight is studio.model.wte.weight
"""
    copy = shutil.copytree(tiny_run, tmp_path / "copy")
    done = subprocess.run(
        [sys.executable, "-c", code, copy], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("to", ["safetensors", "huggingface", "space"])
def test_an_export_opens_and_keeps_its_facts(tiny_run, tmp_path, studio, to):
    if to == "space":
        pytest.importorskip("gradio")
    out = export(tiny_run, to, tmp_path / "out")
    opened = open_studio(str(out), "cpu")
    assert last(opened.write(wish())) == last(studio.write(wish()))
    assert set(opened.facts()[1:]) == set(studio.facts()[1:])
    assert len(opened.rows) > 2 and opened.rows == studio.rows


def test_an_official_model_opens_by_its_name(monkeypatch, tmp_path):
    try:
        gpt2_tokenizer()
    except TokenizerError:
        pytest.skip("GPT-2's vocabulary is not here")
    small = GPTConfig(50257, 16, 24, 12, 2)
    monkeypatch.setitem(PRESETS, "gpt2", small)
    save_gpt2(GPT(small), tmp_path / "cached")
    monkeypatch.setattr(
        "minigpt.gpt2.official_weights",
        lambda name: tmp_path / "cached" / "model.safetensors",
    )
    monkeypatch.chdir(tmp_path)
    studio = open_studio("gpt2", "cpu")
    assert studio.name == "gpt2" and studio.rows == ()
    (text,) = last(studio.write(wish("an octopus \N{OCTOPUS} is", 5)))
    assert text
    labels, maps = studio.attention("To be, or not to be", 2)
    assert maps.shape == (12, len(labels), len(labels))


def test_examples_can_be_read():
    chars = CharTokenizer.from_text("ROMEO:\n")
    assert examples(chars) == ["ROMEO:\n"]
    assert examples(CharTokenizer.from_text("xyz")) == []
    assert len(examples(None)) == 4
