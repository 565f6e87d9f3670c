"""Chapter 2's module: what a notebook cannot show."""

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minigpt.bigram import (
    BigramLM,
    bigram_counts,
    evaluate,
    fit,
    generate,
)

IDS = st.lists(st.integers(0, 4), min_size=2, max_size=60).map(torch.tensor)


class Recorder(nn.Module):
    """Uniform logits; notes the shapes it was shown, and in which mode."""

    def __init__(self, vocab_size=5, context_length=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(vocab_size))
        self.dropout = nn.Dropout(0.5)
        self.shapes, self.modes = [], []
        if context_length is not None:
            self.context_length = context_length

    def forward(self, idx):
        self.shapes.append(tuple(idx.shape))
        self.modes.append((self.training, torch.is_grad_enabled()))
        return self.dropout(self.weight.expand(*idx.shape, -1))


def table(rows):
    """A BigramLM with these logits."""
    model = BigramLM(len(rows))
    model.table.weight.data = torch.tensor(rows)
    return model


def some_batches(ids, count=10**6):
    return ((ids[None, :-1], ids[None, 1:]) for _ in range(count))


# Counting


@given(IDS)
def test_counts_are_those_of_a_counter(ids):
    counts = bigram_counts(ids, 5)
    pairs = Counter(zip(ids.tolist(), ids[1:].tolist()))
    assert {tuple(p): counts[tuple(p)].item() for p in counts.nonzero()
            .tolist()} == dict(pairs)
    assert counts.shape == (5, 5) and counts.sum() == len(ids) - 1


def test_one_token_has_no_pairs():
    assert bigram_counts(torch.tensor([2]), 3).sum() == 0


@pytest.mark.parametrize("bad", [[0, 5], [-1, 2]])
def test_counts_refuse_ids_of_another_tokenizer(bad):
    with pytest.raises(ValueError, match=r"ids go from .* not from 0 to 4"):
        bigram_counts(torch.tensor(bad), 5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_counts_of_ids_in_a_small_type(dtype):
    ids = torch.tensor([200, 3, 200, 3], dtype=dtype)
    counts = bigram_counts(ids, 201)
    assert counts.sum() == 3 and counts[200, 3] == 2 and counts[3, 200] == 1


def test_counts_refuse_a_batch():
    with pytest.raises(ValueError, match=r"shape \(2, 3\): give one long"):
        bigram_counts(torch.zeros(2, 3, dtype=torch.long), 5)


# The model and its training


def test_a_new_model_knows_nothing():
    idx = torch.tensor([[0, 3, 6]])
    logits = BigramLM(7)(idx)
    assert logits.shape == (1, 3, 7)
    loss = F.cross_entropy(logits.flatten(0, 1), idx.flatten())
    assert loss.item() == pytest.approx(math.log(7))


@settings(max_examples=10, deadline=None)
@given(IDS)
def test_training_converges_to_the_counts(ids):
    counts = bigram_counts(ids, 5).double()
    freqs = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    floor = -freqs[ids[:-1], ids[1:]].log().mean().item()
    model = BigramLM(5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.3, weight_decay=0)
    losses = fit(model, some_batches(ids), 100, optimizer=optimizer)
    assert floor - 1e-5 <= losses[-1] <= floor + 0.05
    seen = counts.sum(dim=1) > 0
    learned = model.table.weight.detach().double().softmax(dim=1)
    assert (learned - freqs)[seen].abs().max() < 0.1


def test_fit_takes_exactly_its_steps_from_the_batches():
    supply = some_batches(torch.tensor([0, 1, 2]), count=5)
    assert len(fit(BigramLM(3), supply, 3)) == 3
    assert len(list(supply)) == 2
    assert fit(BigramLM(3), supply, 0) == []


def test_fit_says_when_the_batches_end_too_early():
    supply = some_batches(torch.tensor([0, 1, 2]), count=5)
    with pytest.raises(ValueError, match="ended after 5 of 6 steps: ask for"):
        fit(BigramLM(3), supply, 6)


def test_fit_uses_the_optimizer_and_scheduler_it_is_given():
    model = BigramLM(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1.0 if step == 0 else 0.0
    )
    ids = torch.tensor([0, 1])
    losses = fit(
        model, some_batches(ids), 3, optimizer=optimizer, scheduler=scheduler
    )
    want = torch.tensor([-1 / 3, 2 / 3, -1 / 3])
    assert torch.allclose(model.table.weight[0], want)
    assert losses[0] > losses[1] == losses[2]


def test_fit_clears_gradients_left_by_others():
    model, ids = BigramLM(3), torch.tensor([0, 1])
    model.table.weight.grad = torch.full((3, 3), 100.0)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    fit(model, some_batches(ids), 1, optimizer=sgd)
    assert model.table.weight.abs().max() < 1


def test_fit_trains_with_dropout_on():
    model = Recorder().eval()
    fit(model, some_batches(torch.tensor([0, 1, 2])), 2)
    assert model.modes == [(True, True)] * 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_fit_names_the_step_where_the_loss_broke(value):
    model = BigramLM(3)

    def supply():
        for step in range(5):
            if step == 2:
                model.table.weight.data[0, 0] = value
            yield torch.tensor([[0]]), torch.tensor([[1]])

    with pytest.raises(FloatingPointError, match="at step 3: make the learn"):
        fit(model, supply(), 5)


# Measuring


@settings(max_examples=40, deadline=None)
@given(IDS, st.integers(1, 70), st.integers(1, 9))
def test_evaluate_predicts_every_token_but_the_first_once(
    ids, context_length, batch_size
):
    torch.manual_seed(0)
    model = table(torch.randn(5, 5).tolist())
    log_probs = model.table.weight.detach().log_softmax(dim=1)
    want = -log_probs[ids[:-1], ids[1:]].mean().item()
    found = evaluate(model, ids, context_length, batch_size)
    assert found == pytest.approx(want, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(IDS, st.integers(1, 70), st.integers(1, 9))
def test_evaluate_shows_no_more_than_it_should(ids, length, batch_size):
    model = Recorder()
    evaluate(model, ids, length, batch_size)
    assert sum(b * t for b, t in model.shapes) == len(ids) - 1
    assert all(0 < b <= batch_size and 0 < t <= length
               for b, t in model.shapes)


def test_evaluate_takes_a_strided_text():
    ids = torch.tensor([0, 9, 1, 9, 2, 9, 0, 9])[::2]
    assert evaluate(BigramLM(3), ids, 2) == pytest.approx(math.log(3))


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_and_generate_leave_the_mode_as_it_was(training):
    model = Recorder().train(training)
    evaluate(model, torch.tensor([0, 1, 2]), 2)
    generate(model, torch.tensor([[0]]), 2)
    assert set(model.modes) == {(False, False)}
    assert model.training is training and torch.is_grad_enabled()


def test_the_mode_comes_back_after_an_error():
    model = table([[math.nan, 0.0], [0.0, 0.0]])
    with pytest.raises(ValueError):
        generate(model, torch.tensor([[0]]), 1)
    assert model.training and torch.is_grad_enabled()


@pytest.mark.parametrize(
    "ids, length, batch, message",
    [
        ([3], 4, 1, "at least 2 tokens"),
        ([[1, 2, 3], [3, 2, 1]], 2, 1, r"shape \(2, 3\): give one text"),
        ([1, 2], 0, 1, "context_length 0 and batch_size 1"),
        ([1, 2], 4, 0, "context_length 4 and batch_size 0"),
    ],
)
def test_evaluate_refuses_what_it_cannot_measure(ids, length, batch, message):
    with pytest.raises(ValueError, match=message):
        evaluate(BigramLM(4), torch.tensor(ids), length, batch)


def test_evaluate_needs_no_parameters():
    class Uniform(nn.Module):
        def forward(self, idx):
            return torch.zeros(*idx.shape, 4)

    assert evaluate(Uniform(), torch.arange(4), 2) == pytest.approx(
        math.log(4)
    )


# Writing


def test_generate_keeps_the_prompt_and_appends():
    prompt = torch.tensor([[0, 1], [2, 2], [1, 0]])
    ids = generate(Recorder(), prompt, 7)
    assert ids.shape == (3, 9) and ids.dtype == torch.long
    assert torch.equal(ids[:, :2], prompt)
    assert 0 <= ids.min() and ids.max() < 5


def test_no_new_tokens_is_the_prompt():
    prompt = torch.tensor([[3, 1]])
    assert torch.equal(generate(Recorder(), prompt, 0), prompt)


def test_generate_follows_a_certain_table():
    never = -math.inf
    model = table([[never, 0.0, never], [never, never, 0.0],
                   [0.0, never, never]])
    ids = generate(model, torch.tensor([[0], [1]]), 4)
    assert ids.tolist() == [[0, 1, 2, 0, 1], [1, 2, 0, 1, 2]]


def test_generate_shows_at_most_the_context():
    model = Recorder(context_length=3)
    generate(model, torch.zeros(1, 5, dtype=torch.long), 2)
    assert model.shapes == [(1, 3), (1, 3)]
    free = Recorder()
    generate(free, torch.zeros(1, 5, dtype=torch.long), 2)
    assert free.shapes == [(1, 5), (1, 6)]


def test_the_same_seed_writes_the_same():
    prompt = torch.tensor([[0]])

    def write(seed):
        generator = torch.Generator().manual_seed(seed)
        return generate(Recorder(), prompt, 30, generator=generator)

    assert torch.equal(write(1), write(1))
    assert not torch.equal(write(1), write(2))
    before = torch.get_rng_state()
    write(1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("temperature", [1e-300, 1e-30, 1e-6])
def test_a_very_low_temperature_is_greedy(temperature):
    model = table([[1.0, 3.0, 2.9], [5.0, 4.0, 4.9], [0.0, 0.0, 1e-3]])
    ids = generate(model, torch.tensor([[0]]), 4, temperature=temperature)
    assert ids.tolist() == [[0, 1, 0, 1, 0]]


def test_temperature_is_a_power_of_the_probabilities():
    probs = torch.tensor([0.6, 0.3, 0.1])
    model = table([probs.log().tolist()] * 3)
    generator = torch.Generator().manual_seed(0)
    prompt = torch.zeros(20_000, 1, dtype=torch.long)
    ids = generate(model, prompt, 1, temperature=0.5, generator=generator)
    share = torch.bincount(ids[:, 1], minlength=3) / len(ids)
    want = probs**2 / (probs**2).sum()
    assert (share - want).abs().max() < 0.02


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf])
def test_generate_refuses_a_temperature(temperature):
    with pytest.raises(ValueError, match="write a number above 0"):
        generate(Recorder(), torch.tensor([[0]]), 1, temperature=temperature)


@pytest.mark.parametrize("shape", [(1, 0), (0,), (4,), (1, 2, 3)])
def test_generate_refuses_a_prompt(shape):
    prompt = torch.zeros(shape, dtype=torch.long)
    with pytest.raises(ValueError, match="at least one token"):
        generate(Recorder(), prompt, 1)


def test_generate_refuses_to_take_tokens_away():
    with pytest.raises(ValueError, match="max_new_tokens is -1"):
        generate(Recorder(), torch.tensor([[0]]), -1)


@pytest.mark.parametrize("row", [
    [math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]
])
def test_generate_recognizes_a_broken_model(row):
    with pytest.raises(ValueError, match="its weights are probably broken"):
        generate(table([row, row]), torch.tensor([[0]]), 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_seed_on_the_cpu_writes_the_same_on_a_gpu():
    written = []
    for device in ("cpu", "cuda"):
        generator = torch.Generator().manual_seed(3)
        prompt = torch.tensor([[0]], device=device)
        ids = generate(
            Recorder().to(device), prompt, 50, generator=generator
        )
        assert ids.device.type == device
        written.append(ids.cpu())
    assert torch.equal(*written)
