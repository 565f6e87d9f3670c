"""Chapter 11: predictions against what autograd keeps; equal losses."""

import copy
import gc
import math
import shlex
import weakref
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt import (
    GPT,
    PRESETS,
    GPTConfig,
    MuonAdamW,
    TrainConfig,
    Trainer,
    train_command,
)
from minigpt.cli import main
from minigpt.memory import (
    CONTEXT_GIB,
    REMEDIES,
    DoesNotFit,
    LowBitAdamW,
    Usage,
    activation_bytes,
    chunked_cross_entropy,
    low_bit_optimizers,
    memory_parts,
    pack,
    plan,
    rehearse,
    unpack,
    use_checkpointing,
    use_chunked_loss,
    watch_kept,
)
from minigpt.plan_command import CARDS, Plan, fitted
from minigpt.pretraining import RUNS
from minigpt.runfolder import RunError, TrainingError
from minigpt.training import TrainStep, choose_compile, explain_memory

SMALL = GPTConfig(30, 16, 24, 3, 2)
# an 8 GB card that also draws a desktop: what is left for tensors
LAPTOP = (7.2 - CONTEXT_GIB) * 2**30
needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no CUDA device here"
)
compiles, no_compiler = choose_compile(True, "cpu")
needs_compiler = pytest.mark.skipif(not compiles, reason=no_compiler)


def kept_bytes(config, B, T, precision, mode):
    """What autograd keeps on a CPU."""
    model = use_checkpointing(GPT(config), mode)
    idx, targets = torch.randint(config.vocab_size, (2, B, T))
    low = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with watch_kept(model) as kept, low:
        model.loss(idx, targets)
    return kept.nbytes


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.sampled_from([1, 7, 64, 260]), st.integers(1, 3),
    st.integers(1, 3), st.integers(2, 90), st.sampled_from([0.0, 0.1]),
    st.sampled_from(["fp32", "bf16"]),
    st.sampled_from(["none", "mlp", "block"]), st.booleans(),
)
def test_activations_are_predicted(B, T, heads, L, V, drop, low, mode, tied):
    config = GPTConfig(V, 260, 8 * heads, heads, L, drop, tie_weights=tied)
    guess = sum(activation_bytes(config, B, T, low, mode, "cpu").values())
    assert guess == pytest.approx(kept_bytes(config, B, T, low, mode), 0.05)


@pytest.mark.parametrize("name", ["pocket", "mini", "gpt2"])
@pytest.mark.parametrize("low", ["fp32", "bf16"])
def test_presets_are_predicted(name, low):
    T = min(64, PRESETS[name].context_length)
    guess = activation_bytes(PRESETS[name], 1, T, low, "none", "cpu")
    kept = kept_bytes(PRESETS[name], 1, T, low, "none")
    assert sum(guess.values()) == pytest.approx(kept, 0.05)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("mode", ["none", "mlp", "block"])
def test_presets_at_their_full_context_are_predicted(name, mode):
    from torch._subclasses.fake_tensor import FakeTensorMode

    config = replace(PRESETS[name], n_layers=4)  # the parts are per layer
    T = config.context_length
    with FakeTensorMode():
        kept = kept_bytes(config, 2, T, "bf16", mode)
    guess = activation_bytes(config, 2, T, "bf16", mode, "cpu")
    assert sum(guess.values()) == pytest.approx(kept, 0.05)


@pytest.mark.parametrize("name", PRESETS)
def test_the_peak_of_a_step_is_predicted_for_every_preset(name):
    how = {"loss_chunk": 1024, "checkpointing": "mlp"}
    guess = memory_parts(PRESETS[name], 2, 2, device="cpu", **how)
    peak = rehearse(PRESETS[name], 2, 2, **how).peak
    assert sum(guess.values()) == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize("change", [
    *REMEDIES, {"precision": "fp32"}, {"optimizer": "adamw"},
    {"optimizer": "adamw", "optimizer_state": "int8"},
    {"optimizer": "adamw", "optimizer_state": "bf16", "loss_chunk": 64},
])
@pytest.mark.parametrize("accum", [1, 3])
def test_the_peak_of_a_step_is_predicted_for_every_remedy(change, accum):
    config = GPTConfig(5000, 300, 128, 4, 6)
    guess = memory_parts(config, 2, accum, device="cpu", **change)
    peak = rehearse(config, 2, accum, **change).peak
    assert sum(guess.values()) == pytest.approx(peak, rel=0.05)


def test_usage_follows_real_tensors_and_their_labels():
    with Usage() as usage:
        usage.label = "one"
        a = torch.zeros(100)
        usage.label = "two"
        b = torch.zeros(50) + 1  # the zeros are gone when the sum is there
        view = a[:10]
        usage.relabel("three", [b])
        del a
        usage.label = "late"
        torch.zeros(1)
    assert usage.peak == 400 + 200 + 200
    curves = usage.curves()
    assert curves["one"][-1] == 400  # the view holds all of it
    assert curves["three"][-1] == 200
    # what goes at once with the operation that reads it is in no curve
    assert max(map(sum, zip(*curves.values()))) == usage.peak - 200
    assert len(view) == 10


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 12), st.integers(2, 50),
    st.integers(1, 50), st.integers(0, 3), st.integers(0, 99),
)
def test_chunks_change_neither_loss_nor_gradients(N, C, V, chunk, skip, seed):
    torch.manual_seed(seed)
    hidden = torch.randn(N, C, requires_grad=True)
    weight = torch.randn(V, C, requires_grad=True)
    targets = torch.randint(V, (N,))
    targets[1 : 1 + skip] = -100
    plain = F.cross_entropy(hidden @ weight.T, targets)
    ours = chunked_cross_entropy(hidden, weight, targets, chunk)
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)
    wanted = torch.autograd.grad(plain, (hidden, weight))
    got = torch.autograd.grad(3 * ours, (hidden, weight))
    for a, b in zip(wanted, got):
        assert (3 * a - b).norm() <= 3e-6 * a.norm() + 1e-7


PIECES = {  # how the rows of the plain loss and of ours are cut
    "plain": 1, "ours": 4, "plain in pieces": 4, "ours in one": 1,
}


def losses(dtype, compiled=False, N=512, V=300):
    """Each one's loss and gradients, made in dtype.

    N is a power of two: a division by it rounds nothing.
    """
    torch.manual_seed(1)
    hidden = torch.randn(N, 64, requires_grad=True)
    weight = (0.1 * torch.randn(V, 64)).requires_grad_()
    targets = torch.randint(V, (N,))

    def ours(rows):
        return chunked_cross_entropy(hidden, weight, targets, rows)

    def plain(rows):
        return sum(
            F.cross_entropy(F.linear(h, weight), t, reduction="sum") / N
            for h, t in zip(hidden.split(rows), targets.split(rows))
        )

    found = {}
    for name, pieces in PIECES.items():
        loss = ours if name.startswith("ours") else plain
        if compiled and loss is ours:
            loss = torch.compile(loss)
        low = dtype != torch.float32
        with torch.autocast(
            "cpu", dtype if low else None, enabled=low, cache_enabled=False
        ):  # no cache: each piece's gradient of the weights becomes fp32
            value = loss(N // pieces)
        assert value.dtype == torch.float32
        gradients = torch.autograd.grad(value, (hidden, weight))
        found[name] = value.item(), *gradients
    return found


def assert_near(ours, theirs, relative):
    """The loss and both gradients."""
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        assert (a - b).norm() <= relative * b.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cut_alike_the_two_losses_are_equal(dtype):
    found = losses(dtype)
    assert_near(found["ours"], found["plain in pieces"], 1e-6)
    assert_near(found["ours in one"], found["plain"], 1e-6)
    if dtype == torch.float32:
        assert_near(found["ours"], found["plain"], 1e-6)


def test_in_bf16_pieces_are_no_further_from_the_truth():
    exact, found = losses(torch.float32)["plain"], losses(torch.bfloat16)
    ours, theirs = found["ours"], found["plain"]
    assert ours[0] == pytest.approx(exact[0], rel=1e-2)
    assert (ours[1] - theirs[1]).norm() <= 1e-6 * theirs[1].norm()
    # the weights' gradient is rounded once a piece instead of once
    far, near = ((g[2] - exact[2]).norm() for g in (theirs, ours))
    assert near <= 1.05 * far < 0.02 * exact[2].norm()


def test_fp16_gradients_do_not_vanish():
    exact, got = losses(torch.float32)["plain"], losses(torch.float16)["ours"]
    for a, b in zip(exact[1:], got[1:], strict=True):
        assert b.dtype == torch.float32
        assert (a - b).norm() < 0.02 * a.norm()


def test_a_model_with_a_chunked_loss_goes_with_its_last_name():
    gc.disable()
    try:
        model = use_chunked_loss(GPT(SMALL), 8)
        seen = weakref.ref(model)
        del model
        assert seen() is None
    finally:
        gc.enable()


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_it_is_the_same(dtype):
    got, found = losses(dtype, compiled=True), losses(dtype)
    assert_near(got["ours"], found["ours"], 1e-6)


@needs_compiler
def test_a_compiled_model_trains_with_every_remedy():
    def losses(compile):
        torch.manual_seed(0)
        step = TrainStep(
            GPT(SMALL),
            TrainConfig(compile=compile, loss_chunk=8, checkpointing="block"),
            "cpu", "fp32",
        )
        torch.manual_seed(1)
        batches = [torch.randint(30, (2, 2, 16)) for _ in range(3)]
        return [step(i, [b.unbind()])[0].item() for i, b in enumerate(batches)]

    assert losses(True) == pytest.approx(losses(False), rel=1e-4)


def test_the_way_back_of_the_chunked_loss_is_gone_only_once():
    hidden = torch.randn(4, 3, requires_grad=True)
    weight = torch.randn(5, 3, requires_grad=True)
    loss = chunked_cross_entropy(hidden, weight, torch.tensor([1, 2, 3, 4]))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        loss.backward()


def test_no_tensor_of_the_chunked_loss_is_as_large_as_the_logits():
    N, C, V, chunk = 512, 8, 1000, 64
    peaks = {}
    for rows in (0, chunk):
        model = use_chunked_loss(GPT(GPTConfig(V, N, C, 1, 1)), rows)
        x = torch.randn(1, N, C, requires_grad=True)
        with Usage() as usage:
            model.head_loss(x, torch.randint(V, (1, N))).backward()
        peaks[rows] = usage.peak
    assert peaks[0] >= 3 * 4 * N * V
    assert peaks[chunk] < 4 * N * V


def test_a_model_forgets_its_chunks_and_survives_a_copy():
    model, idx = GPT(SMALL), torch.randint(30, (2, 16))
    plain = model.loss(idx, idx)
    use_chunked_loss(model, 5)
    twin = copy.deepcopy(model)
    torch.testing.assert_close(model.loss(idx, idx), plain)
    twin.loss(idx, idx).backward()
    assert twin.wte.weight.grad is not None and model.wte.weight.grad is None
    assert "head_loss" in vars(model)
    assert "head_loss" not in vars(use_chunked_loss(model, 0))
    assert [*model.state_dict()] == [*GPT(SMALL).state_dict()]


@pytest.mark.parametrize("mode", ["mlp", "block"])
def test_checkpointing_with_dropout_changes_no_gradient(mode):
    config = GPTConfig(30, 16, 24, 3, 2, 0.2)
    torch.manual_seed(0)
    model, idx = GPT(config), torch.randint(30, (2, 16))
    gradients = []
    for how in ("none", mode):
        use_checkpointing(model, how)
        model.zero_grad()
        torch.manual_seed(5)
        model.loss(idx, idx).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_checkpointing_leaves_names_and_generation_alone():
    model = GPT(SMALL).eval()
    names, idx = [*model.state_dict()], torch.randint(30, (1, 5))
    with torch.no_grad():
        before = model(idx)
        for mode in ("mlp", "block", "none"):
            use_checkpointing(model, mode)
            assert [*model.state_dict()] == names
            torch.testing.assert_close(model(idx), before)
    assert "forward" not in vars(model.h[0])


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=600),
    st.sampled_from([2, 4]),
)
def test_packed_numbers_stay_near(numbers, root):
    x = torch.tensor(numbers)
    x = x.abs() if root == 4 else x
    codes, scale = pack(x, root)
    assert codes.dtype == torch.int8 and codes.shape[1] == 256
    again = unpack(codes, scale, root)
    assert again.isfinite().all() and not again[len(x) :].any()
    again = again[: len(x)]
    most = x.abs().max()
    # one code is 1/127 of the root
    assert (again - x).abs().max() <= 1.01 * most * root / 127 + 1e-30
    assert (again * x >= 0).all()
    if root == 4 and most > 1e-20:
        assert ((again > 0) == (x > 0)).all()


@pytest.mark.parametrize("root", [2, 4])
def test_packed_numbers_are_right_on_average(root):
    torch.manual_seed(0)
    x = torch.rand(100, 256) * 0.1 + 0.5
    x[:, 0] = 1.0  # the scale of each block
    off = unpack(*pack(x, root), root) - x.flatten()
    assert off.abs().mean() > 0.002
    assert abs(off.mean()) < 0.0002
    again = pack(x, root)
    assert torch.equal(again[0], pack(x, root)[0])


def steps(optimizer_of, count=60):
    """The loss of a small model after some steps on one batch."""
    torch.manual_seed(0)
    model = GPT(SMALL)
    optimizer = optimizer_of(model)
    idx = torch.randint(30, (4, 16))
    for _ in range(count):
        loss = model.loss(idx[:, :-1], idx[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


@pytest.mark.parametrize("form", ["bf16", "int8"])
def test_short_memories_learn_as_well(form, monkeypatch):
    monkeypatch.setattr("minigpt.memory.SLICE", 512)
    muon, adamw = low_bit_optimizers(form)
    plain = steps(lambda m: torch.optim.AdamW(m.parameters(), 3e-3))
    short = steps(lambda m: adamw(m.parameters(), 3e-3, (0.9, 0.999)))
    assert short == pytest.approx(plain, abs=0.1)
    both = steps(lambda m: MuonAdamW(m, kinds=(muon, adamw)))
    assert both == pytest.approx(steps(MuonAdamW), abs=0.1)


def test_without_rounding_it_is_adamw(monkeypatch):
    class Exact(LowBitAdamW):
        def _read(self, p, name, part):
            kept = self.state[p].get(name, torch.zeros(p.numel()))
            return kept[part].clone()

        def _write(self, p, name, part, x):
            old = torch.zeros(p.numel())
            self.state[p].setdefault(name, old)[part] = x

    monkeypatch.setattr("minigpt.memory.SLICE", 256)
    how = {"lr": 3e-3, "betas": (0.8, 0.99), "weight_decay": 0.1}
    ours = steps(lambda m: Exact(m.parameters(), **how), 10)
    theirs = steps(lambda m: torch.optim.AdamW(m.parameters(), **how), 10)
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("form", ["bf16", "int8"])
def test_a_run_with_a_short_memory_resumes_exactly(tmp_path, optimizer, form):
    ids = torch.randint(30, (2000,))
    config = TrainConfig(
        max_steps=6, batch_size=2, optimizer=optimizer, device="cpu",
        precision="fp32", optimizer_state=form, checkpoint_every=3,
        eval_every=3, schedule="constant", loss_chunk=8, checkpointing="mlp",
    )

    def trainer(folder, **changes):
        torch.manual_seed(0)
        how = replace(config, **changes)
        return Trainer(GPT(SMALL), ids, ids[:99], how, tmp_path / folder)

    whole = trainer("whole").fit()
    trainer("cut", max_steps=3).fit()
    again = trainer("cut")
    again.resume()
    state = again.train_step.optimizer
    state = getattr(state, "parts", [state])[-1].state
    assert next(iter(state.values()))["step"] == 3
    again.fit()
    for a, b in zip(whole.model.parameters(), again.model.parameters()):
        assert torch.equal(a, b)
    with pytest.raises(RunError, match=f"optimizer remembers in {form}: keep"):
        trainer("cut", optimizer_state="fp32").resume()


def test_the_validation_sees_no_more_logits_than_the_training():
    class Spy(GPT):
        rows = 0

        def forward(self, idx, **more):
            Spy.rows = max(Spy.rows, idx.shape[0] * (not more))
            return super().forward(idx, **more)

    ids = torch.randint(30, (2000,))
    for chunk, most in ((0, 8), (33, 2), (5, 1)):
        Spy.rows = 0
        config = TrainConfig(
            max_steps=1, batch_size=8, loss_chunk=chunk, device="cpu"
        )
        Trainer(Spy(SMALL), ids, ids, config).fit()
        assert Spy.rows == most


def test_out_of_memory_names_the_remedies_when_halving_is_over():
    with pytest.raises(TrainingError, match="halve batch_size to 16"):
        with explain_memory(TrainConfig()):
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when")
    with pytest.raises(TrainingError, match="loss_chunk=1024 and checkpoint"):
        with explain_memory(TrainConfig(batch_size=1)):
            raise RuntimeError("CUDA out of memory")


@settings(deadline=None)
@given(
    st.sampled_from([*PRESETS]), st.floats(1, 80), st.floats(0, 40),
    st.integers(1, 64), st.sampled_from(["none", "mlp", "block"]),
    st.sampled_from([0, 1024]), st.sampled_from(["muon", "adamw"]),
)
def test_a_plan_fits_and_more_memory_is_never_worse(
    name, vram, more, batch, mode, chunk, optimizer
):
    how = {"checkpointing": mode, "loss_chunk": chunk, "batch": batch,
           "optimizer": optimizer, "optimizer_state": "fp32"}
    try:
        small = plan(PRESETS[name], vram, **how)
    except DoesNotFit:
        return
    assert small.total <= (vram - 0.8) * 2**30
    assert small.micro_batch * small.grad_accum == batch
    large = plan(PRESETS[name], vram + more, **how)
    assert large.micro_batch >= small.micro_batch


@given(st.sampled_from([*PRESETS]), st.floats(0.9, 80), st.integers(1, 64))
def test_a_free_plan_takes_the_mildest_remedies_that_do(name, vram, batch):
    try:
        found = plan(PRESETS[name], vram, batch=batch)
    except DoesNotFit:
        return
    assert found.total <= (vram - 0.8) * 2**30
    memory = ("loss_chunk", "checkpointing", "optimizer_state")
    plain = dict(zip(memory, (0, "none", "fp32")))
    ladder = [plain | remedies for remedies in REMEDIES]
    place = ladder.index({key: found.settings[key] for key in memory})
    for milder in ladder[:place]:
        try:
            other = plan(PRESETS[name], vram, batch=batch, **milder)
        except DoesNotFit:
            continue
        assert other.micro_batch < found.micro_batch


def test_state_is_four_bytes_a_weight_four_a_gradient_and_the_moments():
    P = GPT(PRESETS["pocket"]).num_params()
    matrices = 12 * 4 * 128**2
    wanted = {"adamw": 8 * P, "muon": 8 * P - 4 * matrices}
    for optimizer, moments in wanted.items():
        parts = memory_parts(PRESETS["pocket"], 1, 2, optimizer=optimizer)
        assert parts["weights"] == parts["gradients"] == 4 * P
        assert parts["optimizer state"] == moments


def test_both_short_formats_take_the_same_memory():
    how = {"loss_chunk": 64, "checkpointing": "block"}  # the step decides
    short = [memory_parts(PRESETS["gpt2"], 1, precision=p, **how)
             for p in ("bf16", "fp16")]
    assert short[0] == short[1] and "step" in short[0]


@pytest.mark.parametrize("gib", [4, 6, 8, 12, 16, 24])
def test_gpt2_fits_every_card(gib):
    assert plan(PRESETS["gpt2"], gib).micro_batch >= 4


@pytest.mark.parametrize(("run", "gib", "desktop"), [
    ("8 GB card", 8, 0.8), ("Colab T4", CARDS["t4"][0], 0),
    ("80 GB card", 80, 0),
])
def test_the_recipes_of_chapter_12_are_what_the_plan_says(run, gib, desktop):
    words = shlex.split(RUNS[run].command)
    size, count = (
        int(words[words.index(flag) + 1])
        for flag in ("--batch-size", "--grad-accum")
    )
    found = plan(
        PRESETS["gpt2"], gib, batch=size * count, desktop_gib=desktop
    )
    assert (found.micro_batch, found.grad_accum) == (size, count)
    assert found.settings["loss_chunk"] == 0


@pytest.mark.parametrize(("name", "how", "words"), [
    ("gpt2-xl", {}, r"even 1 window of 1024 .*; the preset gpt2-medium fits, "
     "or a card of 24 GB would do"),
    ("gpt2-medium", {"vram_gib": 6, "optimizer": "adamw"},
     "; it fits with context_length 512"),
    ("gpt2-medium", {"checkpointing": "none", "loss_chunk": 0, "vram_gib": 6},
     "; it fits if the plan may choose checkpointing and loss_chunk"),
    ("gpt2", {"vram_gib": 0.9}, "and 0.1 are free; .*a card of"),
])
def test_what_does_not_fit_says_why_and_what_would(name, how, words):
    with pytest.raises(DoesNotFit, match=words):
        plan(PRESETS[name], **how)


@pytest.mark.parametrize(("how", "words"), [
    ({"vram_gib": 0}, "vram is 0 GiB"),
    ({"vram_gib": -8}, "vram is -8 GiB"),
    ({"vram_gib": math.nan}, "vram is nan GiB"),
    ({"vram_gib": math.inf}, "vram is inf GiB"),
    ({"desktop_gib": -0.5}, "desktop is -0.5 GiB"),
    ({"batch": 0}, "batch is 0: write 1 or more"),
    ({"batch": 1.5}, "batch is 1.5: write a whole number"),
    ({"batch": 2**40}, "batch is 1099511627776: write at most"),
    ({"loss_chunk": -1}, "loss_chunk is -1: write 0 or more"),
    ({"precision": "fp8"}, "precision is 'fp8': choose one of fp32"),
    ({"checkpointing": "all"}, "checkpointing is 'all': choose one of none"),
    ({"optimizer_state": "int4"}, "optimizer_state is 'int4': choose one of"),
])
def test_what_no_card_has_is_refused(how, words):
    with pytest.raises(ValueError, match=words):
        plan(PRESETS["gpt2"], **how)


def test_wrong_shapes_and_modes_are_refused():
    hidden, weight = torch.zeros(4, 3), torch.zeros(5, 3)
    targets = torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"do not match: \(4, 3\), \(5, 3\)"):
        chunked_cross_entropy(hidden, weight, targets[:3])
    with pytest.raises(ValueError, match="do not match"):
        chunked_cross_entropy(hidden, weight[:, :2], targets)
    for chunk in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="chunk is"):
            chunked_cross_entropy(hidden, weight, targets, chunk)
    with pytest.raises(ValueError, match="choose one of none, mlp, block"):
        use_checkpointing(GPT(PRESETS["pocket"]), "half")
    with pytest.raises(ValueError, match="loss_chunk is -1"):
        use_chunked_loss(GPT(PRESETS["pocket"]), -1)
    with pytest.raises(ValueError, match="optimizer_state is 'int4'"):
        low_bit_optimizers("int4")
    with pytest.raises(ValueError, match="checkpointing is 'all'"):
        TrainConfig(checkpointing="all")


def train(words, tmp_path, monkeypatch, *more):
    """Run a printed `minigpt train` for two steps on a short text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("To be, or not to be. " * 400)
    words = [*words, "--max-steps", "2", "--data", "text", *more]
    return main([*words, "--sample-tokens", "1", "--device", "cpu"])


def test_the_printed_command_trains(capsys, tmp_path, monkeypatch):
    argv = ["plan", "--preset", "pocket", "--vram", "2", "--batch", "4"]
    argv += ["--precision", "fp32", "--checkpointing", "block"]
    argv += ["--loss-chunk", "100", "--optimizer-state", "int8"]
    assert main(argv) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert "--loss-chunk 100" in line and "--optimizer-state int8" in line
    assert train(shlex.split(line)[1:], tmp_path, monkeypatch) == 0
    assert (tmp_path / "runs/pocket/model.safetensors").exists()


def test_train_fits_itself_to_a_card(capsys, tmp_path, monkeypatch):
    words = ["train", "--out", "run", "--vram", "2", "--grad-accum", "2"]
    assert train(words, tmp_path, monkeypatch) == 0
    assert "for 2 GiB: 1 x 64 windows, checkpointing none, loss all at once" \
        ", optimizer state fp32" in capsys.readouterr().out
    asked = []
    monkeypatch.setattr(
        train_command, "fitted", lambda *a: asked.append(a) or fitted(*a)
    )
    words = ["train", "--out", "run", "--resume", "--vram", "2"]
    assert train(words, tmp_path, monkeypatch) == 0
    assert asked[0][-2:] == (2, True)  # resumed
    words = ["train", "--out", "no", "--vram", "1.2"]
    assert train(words, tmp_path, monkeypatch) == 2
    assert "minigpt: pocket does not fit" in capsys.readouterr().err
    assert train([*words[:-1], "0"], tmp_path, monkeypatch) == 2
    assert "vram is 0" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_fitting_keeps_the_windows_of_a_step_and_what_was_asked_for():
    wanted = TrainConfig(batch_size=48, grad_accum=10, loss_chunk=64)
    found = fitted("gpt2", PRESETS["gpt2"], wanted, 8.0)
    assert found.batch_size * found.grad_accum == 480
    assert found.batch_size < 48 and found.loss_chunk == 64
    assert found.precision == "auto"
    same = fitted("gpt2", PRESETS["gpt2"], found, 8.0)
    assert same == found  # as a resumed run will find it
    sharp = replace(wanted, precision="fp32")
    less = fitted("gpt2", PRESETS["gpt2"], sharp, 8.0)
    assert less.precision == "fp32" and less.batch_size <= found.batch_size


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "adamw"}, {"precision": "fp32"},
     {"checkpointing": "mlp"}, {"loss_chunk": 7}],
)  # fmt: skip
def test_flags_reach_the_plan(changes):
    medium = PRESETS["gpt2-medium"]
    found = plan(medium, 10, batch=48, **changes)
    asked = Plan(preset="gpt2-medium", vram=10, batch=48, **changes)
    assert asked.find() == found
    roomy = replace(asked, desktop=0.0).find()
    assert roomy == plan(medium, 10, batch=48, desktop_gib=0.0, **changes)
    wanted = TrainConfig(batch_size=48, **changes)
    kept = found.train_settings() | {"precision": wanted.precision}
    assert fitted("", medium, wanted, 10) == replace(wanted, **kept)


def test_the_command_names_what_is_not_the_default():
    for name in ("gpt2", "pocket"):
        asked = Plan(preset=name, vram=24)
        words = asked.command(asked.find()).split()
        assert ("--tokenizer" in words) == (name == "gpt2")
        assert "none" not in words and "--context-length" not in words


def test_a_resumed_run_keeps_what_its_optimizer_remembers_in():
    wanted, gpt2 = TrainConfig(), PRESETS["gpt2"]
    assert fitted("gpt2", gpt2, wanted, 3.8).optimizer_state == "bf16"
    with pytest.raises(DoesNotFit, match="gpt2 does not fit.*may choose"):
        fitted("gpt2", gpt2, wanted, 3.8, resumed=True)
    found = fitted("gpt2", gpt2, wanted, 4.0, resumed=True)
    assert found.optimizer_state == "fp32"


def test_the_command_line_says_what_does_not_fit(capsys):
    assert main(["plan", "--preset", "gpt2-xl", "--vram", "8"]) == 2
    assert "minigpt: gpt2-xl does not fit, because" in capsys.readouterr().err
    assert main(["plan", "--vram", "0"]) == 2
    assert "vram is 0" in capsys.readouterr().err
    assert main(["plan", "--preset", "gpt5"]) == 2
    assert main(["plan", "--context-length", "0"]) == 2
    assert "context_length is 0" in capsys.readouterr().err


def test_a_t4_has_no_screen_and_no_bf16(capsys):
    assert main(["plan", "--card", "t4", "--context-length", "512"]) == 0
    out = capsys.readouterr().out
    assert "of 14.7 GiB" in out
    assert "--context-length 512" in out and "--precision fp16" in out
    assert Plan(vram=14.7).find().micro_batch <= 8


@needs_cuda
@pytest.mark.parametrize("mode", ["none", "mlp", "block"])
@pytest.mark.parametrize("chunk", [0, 1024])
def test_the_peak_on_a_gpu_is_within_a_tenth_of_the_plan(mode, chunk):
    config, B = PRESETS["gpt2"], 4
    how = {"optimizer": "adamw", "checkpointing": mode, "loss_chunk": chunk}
    gc.collect()  # an earlier model, if it goes meanwhile, would count
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    train = TrainConfig(batch_size=B, grad_accum=2, **how)
    step = TrainStep(GPT(config).cuda(), train, "cuda", "bf16")
    idx = torch.randint(config.vocab_size, (B, 1024), device="cuda")
    for number in range(2):
        step(number, [(idx, idx)] * 2)
    peak = torch.cuda.max_memory_allocated() - before
    parts = memory_parts(config, B, 2, **how)
    assert peak == pytest.approx(sum(parts.values()), rel=0.1)


@needs_cuda
def test_gpt2_trains_under_a_cap_of_eight_gigabytes():
    total = torch.cuda.get_device_properties(0).total_memory
    if total < LAPTOP:
        pytest.skip("the card is smaller than the cap")
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(LAPTOP / total)
    try:
        ids = torch.randint(50257, (200_000,))
        wanted = TrainConfig(
            max_steps=2, precision="bf16", device="cuda", eval_tokens=9000
        )
        config = fitted("gpt2", PRESETS["gpt2"], wanted, 8.0)
        Trainer(GPT(PRESETS["gpt2"]), ids, ids[:9999], config).fit()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
