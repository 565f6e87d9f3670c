"""The loss ladder: its record climbs, and its code makes its record."""

import math
from dataclasses import replace

import pytest
import torch

from minigpt import BigramLM, load_text
from minigpt.ladder import (
    BUDGET,
    TOLERANCE,
    climb,
    ladder_rows,
    measure,
    mini_gpt,
    muon_falling,
    show_ladder,
)
from minigpt.runs import load_record
from minigpt.text import CharTokenizer, is_shakespeare, train_val_split


def test_each_rung_is_at_least_as_good_as_the_last():
    rows = ladder_rows(through=6)
    assert [row["chapter"] for row in rows] == [1, 1, 2, 3, 4, 5, 5, 5, 6]
    losses = [row["loss"] for row in rows]
    assert losses[0] == pytest.approx(math.log(65))
    for last, this in zip(losses, losses[1:]):
        assert this <= last + TOLERANCE


def test_the_record_says_how_it_was_made():
    header, _ = load_record("ladder")
    assert header["command"] == "python -m minigpt.ladder"
    assert header["budget"]["steps"] == BUDGET.steps
    assert {"device", "torch", "date", "commit"} <= header.keys()


def test_the_code_repeats_the_recorded_bigram():
    text = load_text("shakespeare")
    if not is_shakespeare(text):
        pytest.skip("the record is of Shakespeare, which is not at hand")
    rows = measure(text)
    recorded = ladder_rows(through=2)
    torch.set_num_threads(1)
    for row, want in zip(rows, recorded):  # stops before the trainings
        assert row["name"] == want["name"]
        assert row["loss"] == pytest.approx(want["loss"], abs=TOLERANCE)


def test_climb_depends_on_the_seed_alone():
    text = "a rose is a rose is a rose. " * 40
    tokenizer = CharTokenizer.from_text(text)
    train, val = train_val_split(torch.tensor(tokenizer.encode(text)))
    losses = [
        climb(lambda: BigramLM(tokenizer.vocab_size), train, val, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_climb_makes_the_same_model_for_the_same_seed(monkeypatch):
    built = []

    def build():
        built.append(mini_gpt(5))
        return built[-1]

    monkeypatch.setattr("minigpt.ladder.BUDGET", replace(BUDGET, steps=0))
    ids = torch.arange(5).repeat(50)
    for seed in (0, 0, 1):
        climb(build, ids, ids, seed=seed)
    one, same, other = (model.wte.weight for model in built)
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_the_rates_of_the_last_rung_fall_to_zero():
    optimizer, scheduler = muon_falling(mini_gpt(5))
    peaks = [group["lr"] for group in optimizer.param_groups]
    optimizer.step()  # nothing to do; a scheduler wants it first
    for step in range(1, BUDGET.steps + 1):
        scheduler.step()
        rates = [group["lr"] for group in optimizer.param_groups]
        left = 1 - step / BUDGET.steps
        assert rates == pytest.approx([left * peak for peak in peaks])


def test_show_ladder_stops_at_the_chapter():
    table = show_ladder(through=3).data.splitlines()
    assert table[-1].startswith("| 3 | **") and len(table) == 2 + 4
    before = show_ladder(before=3).data
    assert "**" not in before and before.splitlines() == table[:-1]
    with pytest.raises(ValueError, match="before=3"):
        show_ladder()
