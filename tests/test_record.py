"""`minigpt record` pauses, goes on, and writes what the book can read."""

import json
import runpy
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from minigpt import GPTConfig, record, runs
from minigpt.cli import _parse, main
from minigpt.plan_command import fitted
from minigpt.training import RECIPES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A place for records, a short recipe and a short text."""
    monkeypatch.setattr(runs, "runs_dir", lambda: tmp_path)
    monkeypatch.setitem(
        RECIPES,
        "pocket",
        replace(
            RECIPES["pocket"],
            max_steps=3,
            batch_size=1,
            sample_tokens=4,
            precision="fp32",
            device="cpu",
        ),
    )
    text = "to be, or not to be: that is the question. " * 30
    monkeypatch.setattr(record, "load_text", lambda name: text)
    monkeypatch.setattr(record, "is_shakespeare", lambda text: True)
    return tmp_path


def go(shelf, *argv):
    return main(["record", *argv, "--work", str(shelf / "work")])


def test_a_run_pauses_and_goes_on_until_it_is_recorded(shelf, capsys):
    for _ in range(3):
        assert not (shelf / "pocket.jsonl").exists()
        assert go(shelf, "--only", "pocket", "--minutes", "1e-6") == 0
    printed = capsys.readouterr().out
    assert "paused after step 2 of 3: run it again" in printed
    assert "wrote pocket.jsonl" in printed
    lines = (shelf / "pocket.jsonl").read_text().splitlines()
    header, *rows = map(json.loads, lines)
    assert header["kind"] == "header"
    assert header["command"] == "minigpt record --only pocket"
    assert {"device", "date", "commit", "data_sha256"} <= header.keys()
    assert [row["kind"] for row in rows] == ["train", "val", "sample"]
    assert str(shelf) not in lines[0]
    assert not (shelf / "work/pocket").exists()

    assert go(shelf, "--only", "pocket") == 0
    again = capsys.readouterr().out
    loss = f"{rows[1]['loss']:.3f}"
    assert f"validation loss {loss} (recorded before: {loss})" in again


def test_ctrl_c_is_an_interruption_and_a_pause_is_none(shelf, monkeypatch):
    class Press(record.Pause):
        def on_step(self, trainer):
            trainer.interrupted = True

    monkeypatch.setattr(record, "Pause", Press)
    assert go(shelf, "--only", "pocket") == 130


def test_the_best_validation_counts():
    rows = [("val", 2.0), ("val", 1.0), ("val", 1.5), ("train", 0.5)]
    rows = [{"kind": kind, "loss": loss} for kind, loss in rows]
    assert record._best(rows) == 1.0


def test_the_list_names_all_records(shelf, capsys):
    assert go(shelf, "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*record.PIECES]
    assert "not recorded" in lines[0]


def test_other_pieces_are_made_by_their_own_code(shelf, monkeypatch):
    made = []
    monkeypatch.setattr(record.ladder, "main", lambda: made.append("ladder"))
    assert go(shelf, "--only", "ladder") == 0
    assert made == ["ladder"]

    def run(command):
        made.append(command[1].name)
        return type("Done", (), {"returncode": 3})

    monkeypatch.setattr(record.subprocess, "run", run)
    assert go(shelf, "--only", "recipe") == 3
    monkeypatch.setattr(record, "PACKAGE", shelf / "site/minigpt")
    assert go(shelf, "--only", "recipe") == 2  # not in a wheel


def test_without_a_gpu_a_page_is_memorized(shelf, monkeypatch):
    made = []
    monkeypatch.setattr(record, "best_device", lambda: "cpu")
    monkeypatch.setattr(
        record.subprocess,
        "run",
        lambda command: made.append(command[1].name)
        or type("Done", (), {"returncode": 0}),
    )
    assert go(shelf, "--only", "memorize") == 0
    assert made == ["memorize.py"]
    assert (record.PACKAGE.parent / "benchmarks" / made[0]).is_file()


def test_another_text_is_never_recorded(shelf, monkeypatch, capsys):
    monkeypatch.setattr(record, "is_shakespeare", lambda text: False)
    assert go(shelf, "--only", "mini") == 2
    assert "not at hand" in capsys.readouterr().err
    assert not (shelf / "mini.jsonl").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--only", "maxi"], "pocket"),
        (["--minutes", "0"], "write more than 0"),
    ],
)
def test_bad_input_gets_one_line(argv, message, shelf, capsys):
    assert go(shelf, *argv) == 2
    assert message in capsys.readouterr().err


def test_what_needs_a_gpu_is_left_out_with_a_reason(
    shelf, monkeypatch, capsys
):
    monkeypatch.setattr(record, "best_device", lambda: "cpu")
    assert go(shelf, "--only", "gpt2-8gb") == 0
    assert "left out: 124M" in capsys.readouterr().out
    assert not (shelf / "gpt2-8gb.jsonl").exists()


def test_on_a_gpu_the_laptop_is_a_hard_cap(shelf, monkeypatch):
    caps, trained = [], []
    # 7.2 GiB, of which half a one is CUDA's own and not capped
    card = type("Card", (), {"total_memory": 67 * 2**30})
    cuda = record.torch.cuda
    monkeypatch.setattr(record, "best_device", lambda: "cuda")
    monkeypatch.setattr(cuda, "get_device_properties", lambda number: card)
    monkeypatch.setattr(cuda, "set_per_process_memory_fraction", caps.append)
    monkeypatch.setattr(record, "_train", lambda _, name: trained.append(name))
    go(shelf, "--only", "gpt2-8gb")
    assert caps == [pytest.approx(0.1)] and trained == ["gpt2-8gb"]


def test_each_batch_size_is_compiled_for_itself(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    speed = runpy.run_path(str(ROOT / "benchmarks/speed.py"))
    measure, graphs = speed["measure"], []

    def backend(graph, inputs):
        graphs.append(any(isinstance(i, torch.SymInt) for i in inputs))
        return graph

    compiler = partial(torch.compile, backend=backend)
    monkeypatch.setattr(torch, "compile", compiler)
    shape = GPTConfig(30, 8, 8, 2, 1)
    tiny = SimpleNamespace(preset=lambda name: shape)
    monkeypatch.setitem(measure.__globals__, "GPTConfig", tiny)
    for size in (2, 4):
        config = speed["settings"]("pocket", "cpu", size)
        config = replace(config, compile=True)
        measure("pocket", config, torch.randint(30, (200,)))
    assert graphs == [False] * 4  # two loops each; no size left open


def test_fine_tuning_on_a_gpu_sees_its_own_steps(monkeypatch):
    finetune = runpy.run_path(str(ROOT / "benchmarks/finetune.py"))
    cards = {"H100": (9, 0), "T4": (7, 5)}
    on_cpu = partial(torch.autocast, "cpu")
    monkeypatch.setattr(torch, "autocast", lambda _, *a, **k: on_cpu(*a, **k))
    layer, x, dtypes = torch.nn.Linear(4, 4), torch.ones(1, 4), []
    for capability in cards.values():
        monkeypatch.setattr(
            torch.cuda, "get_device_capability", lambda _, c=capability: c
        )
        with finetune["automatic"]("cuda"):
            before = layer(x)
            with torch.no_grad():
                layer.weight += 1.0
            assert (layer(x) - before).min() > 3
        dtypes.append(before.dtype)
    assert dtypes == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("name", record.COMMANDS)
def test_the_commands_of_records_are_understood(name):
    command = _parse(shlex.split(record.COMMANDS[name])[1:])
    assert command.preset == "gpt2"
    if name == "gpt2-8gb":
        config = GPTConfig.preset("gpt2", drop_rate=0.1)
        train = fitted("gpt2", config, command.train, command.vram)
        assert train.batch_size * train.grad_accum == 32
        assert train.batch_size >= 4


def test_timing_some_chapters_keeps_the_others_record(shelf):
    chapters = runpy.run_path(str(ROOT / "benchmarks/chapters.py"))

    def row(chapter, seconds, device="CPU"):
        return {"chapter": chapter, "seconds": seconds, "device": device}

    chapters["keep"]("CPU", [row("2 Two", 5.0), row("1 One", 4.0)])
    chapters["keep"]("GPU", [row("2 Two", 1.0, "GPU")])
    chapters["keep"]("CPU", [row("2 Two", 6.0)])
    _, rows = runs.load_record("runtimes")
    assert [tuple(row.values()) for row in rows] == [
        ("1 One", 4.0, "CPU"),
        ("2 Two", 1.0, "GPU"),
        ("2 Two", 6.0, "CPU"),
    ]
