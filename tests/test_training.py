"""The trainer's parts: settings, schedule, data, precision, log, meters."""

import math
import signal
import sys
import types
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minigpt import (
    GPT,
    CharTokenizer,
    GPTConfig,
    ToyLanguage,
    TrainConfig,
    Trainer,
    hardware,
    train_val_split,
    training,
)
from minigpt.callbacks import Callback, ProgressBar, TensorBoard, draw_losses
from minigpt.runfolder import TrainingError
from minigpt.training import (
    Meter,
    TrainStep,
    Windows,
    behind,
    choose_compile,
    choose_precision,
    diagnose,
    load_step_state,
    lr_factor,
    make_optimizer,
    step_state,
    why_stop,
)

IDS = torch.randint(12, (600,), generator=torch.Generator().manual_seed(0))
needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs an NVIDIA card"
)


def tiny(**changes):
    torch.manual_seed(3)
    return GPT(GPTConfig(12, 8, 16, 2, 1, **changes))


def settings(**changes):
    base = {
        "max_steps": 12,
        "batch_size": 4,
        "warmup_steps": 2,
        "eval_every": 6,
        "log_every": 3,
        "device": "cpu",
        "precision": "fp32",
    }
    return TrainConfig(**(base | changes))


def train(callbacks=(), **changes):
    return Trainer(
        tiny(), IDS, IDS[:80], settings(**changes), callbacks=callbacks
    ).fit()


def same_weights(a, b):
    return all(
        torch.equal(p, q)
        for p, q in zip(a.parameters(), b.parameters(), strict=True)
    )


# --- settings -------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": 0}, "max_steps is 0: write 1 or more"),
        ({"max_steps": 2.5}, "max_steps is 2.5: write a whole number"),
        ({"batch_size": True}, "batch_size is True: write a whole number"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0: write 0 or more"),
        ({"learning_rate": math.nan}, "write 0 or more"),
        ({"muon_lr": math.inf}, "write 0 or more"),
        ({"muon_lr": "fast"}, "muon_lr is 'fast': write a number"),
        ({"beta2": 1.0}, "write less than 1"),
        ({"schedule": "cosin"}, "choose one of cosine, linear"),
        ({"precision": "fp8"}, "choose one of auto, fp32"),
        ({"seed": 2**50}, r"less than 2\*\*40"),
    ],
)
def test_settings_without_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_every_setting_is_documented_beside_itself():
    import inspect
    import re
    from dataclasses import fields

    source = inspect.getsource(TrainConfig)
    for field in fields(TrainConfig):
        assert re.search(rf'    {field.name}: .*\n    """\w', source)


def test_a_text_without_a_window_is_refused():
    with pytest.raises(ValueError, match="8 tokens, fewer than one window"):
        Trainer(tiny(), IDS[:8], IDS, settings())
    with pytest.raises(ValueError, match="validation text has 1 tokens"):
        Trainer(tiny(), IDS, IDS[:1], settings())


# --- schedule -------------------------------------------------------------


@given(
    schedule=st.sampled_from(["cosine", "linear", "trapezoid", "constant"]),
    max_steps=st.integers(1, 300),
    warmup_steps=st.integers(0, 400),
    final_lr=st.floats(0, 1),
)
def test_the_rate_rises_to_its_peak_and_never_rises_again(
    schedule, max_steps, warmup_steps, final_lr
):
    config = TrainConfig(
        schedule=schedule,
        max_steps=max_steps,
        warmup_steps=warmup_steps,
        final_lr=final_lr,
    )
    factors = [lr_factor(step, config) for step in range(max_steps)]
    assert all(0 < f <= 1 + 1e-9 for f in factors)
    peak = min(warmup_steps, max_steps)
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert all(f >= final_lr - 1e-9 for f in factors[peak:])
    if peak < max_steps and schedule != "trapezoid":
        assert factors[peak] == pytest.approx(1)


def test_a_trapezoid_holds_its_peak_then_falls():
    config = TrainConfig(
        schedule="trapezoid", max_steps=100, warmup_steps=10, final_lr=0.1
    )
    assert [lr_factor(step, config) for step in (10, 50, 80)] == [1, 1, 1]
    assert lr_factor(90, config) == pytest.approx(0.55)


# --- data -----------------------------------------------------------------


@given(
    num_tokens=st.integers(6, 80),
    T=st.integers(1, 5),
    batch_size=st.integers(1, 7),
    seed=st.integers(0, 2**40 - 1),
)
def test_a_pass_visits_each_window_once(num_tokens, T, batch_size, seed):
    windows = Windows(torch.arange(num_tokens), batch_size, T, seed)
    starts = []
    for index in range(-(-2 * windows.per_pass // batch_size)):
        x, y = windows.batch(index)
        assert x.shape == y.shape == (batch_size, T)
        assert torch.equal(x + 1, y)  # the text counts upwards
        starts += x[:, 0].tolist()
    for first in (0, windows.per_pass):
        one_pass = sorted(starts[first : first + windows.per_pass])
        assert len({start % T for start in one_pass}) == 1
        assert len(set(one_pass)) == windows.per_pass
        assert one_pass[-1] - one_pass[0] == (windows.per_pass - 1) * T


@given(order=st.permutations(range(12)))
def test_any_batch_can_be_asked_for_at_any_time(order):
    def batches(indices):
        windows = Windows(IDS[:60], 2, 8, seed=1)
        return {index: windows.batch(index)[0].tolist() for index in indices}

    assert batches(order) == batches(range(12))


def test_passes_begin_at_every_offset():
    windows = Windows(torch.arange(41), 1, 4, seed=5)
    firsts = [int(windows.batch(index)[0][0, 0]) for index in range(300)]
    assert {first % 4 for first in firsts} == {0, 1, 2, 3}


def test_accumulation_is_a_bigger_batch():
    whole = train(batch_size=8, log_every=1)
    parts = train(batch_size=2, grad_accum=4, log_every=1)
    for a, b in zip(whole.rows, parts.rows, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-3)
    first, same = whole.rows[0], parts.rows[0]
    assert first["loss"] == pytest.approx(same["loss"], abs=1e-6)
    assert first["grad_norm"] == pytest.approx(same["grad_norm"], rel=1e-4)
    assert first["tokens"] == same["tokens"] == 8 * 8


# --- what is learned depends on the settings alone ------------------------


def test_looking_more_often_changes_nothing():
    seldom = train(eval_every=6)
    often = train(eval_every=1, sample_every=2)
    assert same_weights(seldom.model, often.model)

    def losses(run):
        return [row["loss"] for row in run.rows if row["kind"] == "train"]

    assert losses(seldom) == losses(often)


def test_the_seed_decides_and_the_outer_randomness_does_not():
    first = Trainer(tiny(drop_rate=0.2), IDS, IDS[:80], settings())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first.fit()
    assert torch.equal(torch.get_rng_state(), before)
    other = Trainer(tiny(drop_rate=0.2), IDS, IDS[:80], settings())
    torch.manual_seed(77)
    assert same_weights(first.model, other.fit().model)
    assert not same_weights(train().model, train(seed=2).model)


def test_a_step_is_the_bare_loop():
    """Without schedule and clipping: chapter 2's loop, to the last bit."""
    changes = {
        "optimizer": "adamw",
        "schedule": "constant",
        "warmup_steps": 0,
        "grad_clip": 0.0,
    }
    trained = train(**changes).model
    model, config = tiny(), settings(**changes)
    optimizer = make_optimizer(model, config)
    windows = Windows(IDS, 4, 8, config.seed)
    for step in range(config.max_steps):
        x, y = windows.batch(step)
        optimizer.zero_grad()
        model.loss(x, y).backward()
        optimizer.step()
    for p, q in zip(trained.parameters(), model.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)


def test_clipping_limits_the_gradient():
    free = train(grad_clip=0.0, max_steps=1, log_every=1)
    norm = free.rows[0]["grad_norm"]
    model = tiny()
    step = TrainStep(model, settings(grad_clip=norm / 2), "cpu", "fp32")
    seen = []
    step.optimizer.step = lambda: seen.append(
        torch.nn.utils.get_total_norm(
            [p.grad for p in model.parameters() if p.grad is not None]
        )
    )
    _, measured = step(0, [Windows(IDS, 4, 8, 1337).batch(0)])
    assert float(measured) == pytest.approx(norm, rel=1e-4)
    assert float(seen[0]) == pytest.approx(norm / 2, rel=1e-3)


def test_decay_pulls_on_matrices_only():
    groups = make_optimizer(
        tiny(), settings(optimizer="adamw", weight_decay=0.3)
    ).param_groups
    assert [g["weight_decay"] for g in groups] == [0.3, 0.0]
    assert {p.ndim for p in groups[0]["params"]} == {2}
    assert {p.ndim for p in groups[1]["params"]} == {1}


def test_the_memory_of_adamw_is_a_setting():
    config = settings(optimizer="adamw", beta1=0.7, beta2=0.8)
    for group in make_optimizer(tiny(), config).param_groups:
        assert group["betas"] == (0.7, 0.8)


def test_a_model_in_eval_mode_is_trained_with_dropout():
    class Look(Callback):
        def on_step(self, trainer):
            modes.append(trainer.model.training)

    modes, model = [], tiny(drop_rate=0.5).eval()
    config = settings(eval_every=3)
    Trainer(model, IDS, IDS[:80], config, callbacks=[Look()]).fit()
    assert modes == [True] * 12


def test_only_so_many_tokens_are_evaluated():
    run = Trainer(tiny(), IDS, IDS[:80], settings(eval_tokens=40))
    assert len(run.val_ids) == 41  # 40 targets


def test_the_toy_language_is_learned_to_near_its_entropy():
    """0.221 nats a character is the least any model can reach."""
    language = ToyLanguage()
    text = language.sample(120_000, seed=0)
    tokenizer = CharTokenizer.from_text(text)
    train_ids, val_ids = train_val_split(torch.tensor(tokenizer.encode(text)))
    torch.manual_seed(0)
    shape = GPTConfig.preset("pocket", vocab_size=tokenizer.vocab_size)
    run = Trainer(
        GPT(shape),
        train_ids,
        val_ids[:6000],
        TrainConfig(
            max_steps=200,
            eval_every=200,
            batch_size=8,
            muon_lr=0.03,
            learning_rate=4e-3,
            schedule="linear",
            warmup_steps=0,
            device="cpu",
            precision="fp32",
        ),
    ).fit()
    floor = language.entropy_per_char
    assert floor < run.best_loss < floor + 0.3


# --- number formats -------------------------------------------------------


def test_precision_is_chosen_by_capability(monkeypatch):
    assert choose_precision("fp16", "cpu") == ("fp16", "as asked for")
    monkeypatch.setattr(training, "_bf16_gain", lambda: 4.4)
    assert choose_precision("auto", "cpu")[0] == "bf16"
    monkeypatch.setattr(training, "_bf16_gain", lambda: 0.3)
    assert choose_precision("auto", "cpu")[0] == "fp32"
    assert choose_precision("auto", "mps")[0] == "fp32"
    for capability, wanted in (((7, 5), "fp16"), ((8, 0), "bf16")):
        monkeypatch.setattr(
            torch.cuda, "get_device_capability", lambda _, c=capability: c
        )
        precision, reason = choose_precision("auto", "cuda")
        assert precision == wanted and "Ampere" in reason


def test_the_gain_of_bf16_is_a_ratio_of_times():
    assert 0 < training._bf16_gain() < 1000


def test_compile_is_off_where_it_cannot_work(monkeypatch):
    assert choose_compile(False, "cpu") == (False, "not asked for")
    assert choose_compile(True, "mps")[0] is False
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    assert "Triton" in choose_compile(True, "cuda")[1]
    monkeypatch.setattr(training.shutil, "which", lambda name: None)
    assert "such as g++" in choose_compile(True, "cpu")[1]
    monkeypatch.setattr(training, "find_spec", lambda name: name)
    monkeypatch.setattr(training.sys, "platform", "linux")
    assert "such as gcc" in choose_compile(True, "cuda")[1]
    monkeypatch.setattr(training.sys, "platform", "win32")
    assert choose_compile(True, "cuda") == (True, "as asked for")
    monkeypatch.setattr(training.shutil, "which", lambda name: name)
    assert choose_compile(True, "cpu") == (True, "as asked for")


def test_muon_works_in_the_precision_of_the_run():
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    for precision, dtype in (kinds | {"fp16": torch.float16}).items():
        muon, _ = make_optimizer(tiny(), settings(), precision).parts
        assert muon.dtype == dtype


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_almost_the_same(precision, optimizer):
    half, whole = (
        train(precision=p, optimizer=optimizer, muon_lr=5e-3).rows[-1]["loss"]
        for p in (precision, "fp32")
    )
    assert half == pytest.approx(whole, abs=0.05)
    assert half != whole


def test_the_scaler_skips_steps_that_overflow_and_recovers():
    model = tiny()
    config = settings(precision="fp16", schedule="constant")
    step = TrainStep(model, config, "cpu", "fp16")
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = [p.detach().clone() for p in model.parameters()]
    windows = Windows(IDS, 4, 8, 0)
    _, norm = step(0, [windows.batch(0)])
    assert not norm.isfinite()
    for p, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, old)
    for index in range(1, 40):
        _, norm = step(index, [windows.batch(index)])
    assert norm.isfinite()
    assert not torch.equal(model.wte.weight, before[0])


def test_the_scaled_gradient_is_measured_unscaled():
    rows = [
        train(precision=precision, max_steps=1).rows[0]
        for precision in ("fp32", "fp16")
    ]
    plain, scaled = (row["grad_norm"] for row in rows)
    assert scaled == pytest.approx(plain, rel=0.01)


def test_the_scaler_survives_a_restart():
    step = TrainStep(tiny(), settings(), "cpu", "fp16")
    step.scaler.scale(torch.ones(()))  # a scaler has no scale before its use
    step.scaler.update(64.0)
    other = TrainStep(tiny(), settings(), "cpu", "fp16")
    other.scaler.scale(torch.ones(()))
    load_step_state(other, step_state(step))
    assert other.scaler.get_scale() == 64.0


def test_a_row_shows_no_norm_for_a_skipped_step():
    run = Trainer(
        tiny(), IDS, IDS[:80], settings(precision="fp16", log_every=1)
    )
    run.train_step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    run.fit()
    norms = [row["grad_norm"] for row in run.rows if row["kind"] == "train"]
    assert norms[0] is None


def test_fast_products_are_switched_back():
    before = torch.get_float32_matmul_precision()
    with training.fast_matmuls("cuda"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before
    with training.fast_matmuls("cpu"):
        assert torch.get_float32_matmul_precision() == before


@needs_cuda
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_cuda_learns_what_a_cpu_learns(precision):
    on_card = train(device="cuda", precision=precision).rows[-1]["loss"]
    assert on_card == pytest.approx(train().rows[-1]["loss"], abs=0.05)


@needs_cuda
def test_cuda_rows_hold_memory():
    row = train(device="cuda").rows[0]
    assert row["device_mb"] > 0


@needs_cuda
def test_cuda_runs_compiled():
    run = train(device="cuda", compile=True)
    assert run.step == 12


# --- stopping --------------------------------------------------------------


def test_why_a_run_stops_early():
    rows = [
        {"kind": "train", "loss": 0.2},
        {"kind": "train", "loss": 0.5},
        {"kind": "val", "loss": 0.1},
    ]
    assert why_stop(rows, 0, settings(target_loss=0.5)) == ""
    reason = why_stop(rows, 0, settings(target_loss=0.6))
    assert reason == "training loss 0.500 is under 0.6"
    assert why_stop(rows, 2, settings(patience=3)) == ""
    reason = why_stop(rows, 3, settings(patience=3))
    assert reason == "no better validation loss in 3 evaluations"


def test_an_equal_validation_loss_is_no_better(monkeypatch):
    monkeypatch.setattr(training, "evaluate", lambda *_: 2.0)
    run = train(eval_every=1, patience=3)
    assert run.step == 4  # the first was the best so far


def test_a_loss_that_is_no_number_is_found_where_it_was():
    class Spoil(Callback):
        def on_step(self, trainer):
            if trainer.step == 6:
                torch.nn.init.constant_(trainer.model.ln_f.weight, math.inf)

    message = r"at step 7 \(batch 12\)"
    with pytest.raises(TrainingError, match=message):
        train([Spoil()], log_every=10, grad_accum=2, eval_every=12)


def test_a_gradient_that_is_no_number_stops_the_run(monkeypatch):
    norm = torch.tensor(math.nan)
    monkeypatch.setattr(training.nn.utils, "clip_grad_norm_", lambda *_: norm)
    with pytest.raises(TrainingError, match="gradient norm nan at step 1"):
        train(log_every=1)


def test_ctrl_c_is_what_it_was_after_training():
    before = signal.getsignal(signal.SIGINT)
    train()
    assert signal.getsignal(signal.SIGINT) is before


# --- log, callbacks, hardware ---------------------------------------------


def test_rows_of_the_log():
    run = train(log_every=5)
    kinds = [(row["kind"], row["step"]) for row in run.rows]
    assert kinds == [
        ("train", 5),
        ("val", 6),
        ("train", 10),
        ("train", 12),
        ("val", 12),
    ]
    row = run.rows[0]
    assert row["tokens"] == 5 * 4 * 8
    assert row["mfu"] is None and row["device_mb"] is None
    assert row["host_mb"] is None or row["host_mb"] > 10
    seconds = [row["seconds"] for row in run.rows]
    assert seconds == sorted(seconds)


def test_the_clock_leaves_out_what_is_not_training(monkeypatch):
    now = 0.0
    monkeypatch.setattr(training.time, "perf_counter", lambda: now)
    meter = Meter("cpu")
    meter.start()
    now = 2.0
    meter.add(torch.tensor(1.5), torch.tensor(0.5))
    assert meter.settle() == [[1.5, 0.5]]
    now = 7.0  # an evaluation
    meter.start()
    now = 8.0
    assert meter.settle() == []
    assert meter.seconds == meter.row_seconds == 3.0
    meter.clear()
    assert meter.row_seconds == 0 and meter.seconds == 3.0


def test_callbacks_hear_everything_in_order_and_can_stop():
    heard = []

    class Listen(Callback):
        def on_start(self, trainer):
            heard.append("start")

        def on_step(self, trainer):
            heard.append(trainer.step)
            if trainer.step == 4:
                trainer.stop_reason = "enough"

        def on_row(self, trainer, row):
            heard.append(row["kind"])

        def on_end(self, trainer):
            heard.append("end")

    run = train([Listen()])
    assert heard == ["start", 1, 2, 3, "train", 4, "val", "end"]
    assert run.stop_reason == "enough" and run.step == 4


def test_a_thread_can_train_without_ctrl_c():
    from threading import Thread

    run = Trainer(tiny(), IDS, IDS[:80], settings())
    thread = Thread(target=run.fit)
    thread.start()
    thread.join()
    assert run.step == 12


def test_the_last_word_is_said_after_an_error_too():
    class Fail(Callback):
        ended = False

        def on_step(self, trainer):
            raise ZeroDivisionError

        def on_end(self, trainer):
            self.ended = True

    fail = Fail()
    with pytest.raises(ZeroDivisionError):
        train([fail])
    assert fail.ended


def test_the_progress_bar_shows_losses_and_speed(monkeypatch, capsys):
    import tqdm

    shown = partial(tqdm.tqdm, disable=False)
    monkeypatch.setattr(tqdm, "tqdm", shown)
    bar = ProgressBar()
    train([bar])
    assert bar.bar.n == 12
    assert "val=" in bar.bar.postfix and "tok/s=" in bar.bar.postfix


@pytest.mark.parametrize("rows", [[], None])
def test_the_plot_can_be_drawn_at_any_time(rows):
    rows = train().rows if rows is None else rows
    assert draw_losses(rows).startswith(b"\x89PNG")


def test_the_bar_of_a_resumed_run_begins_where_it_stopped(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    run = Trainer(tiny(), IDS, IDS[:80], settings())
    run.step, bar = 5, ProgressBar()
    bar.on_start(run)
    assert bar.bar.n == 5
    bar.on_end(run)


def test_the_plot_is_drawn_when_there_is_something_to_see(tmp_path):
    written = []

    class Count(Trainer):
        def write(self, name, data):
            written.append(name)
            super().write(name, data)

    Count(tiny(), IDS, IDS[:80], settings(log_every=1), tmp_path / "r").fit()
    assert written.count("loss.png") == 2  # at both evaluations


def test_tensorboard_is_optional(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        TensorBoard(tmp_path)


def test_tensorboard_gets_every_number(monkeypatch, tmp_path):
    written = []

    class SummaryWriter:
        def __init__(self, folder):
            assert folder == str(tmp_path)

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def add_text(self, name, text, step):
            written.append((name, step))

        def flush(self):
            written.append("flush")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    board = TensorBoard(tmp_path)
    train([board])
    assert {("train/loss", 3), ("train/lr", 3), ("val/loss", 6)} <= {*written}
    board.on_row(None, {"kind": "sample", "step": 7, "text": "Once"})
    assert written[-2:] == ["flush", ("sample", 7)]


def test_tensorboard_reads_what_was_written(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    log = train([TensorBoard(tmp_path)]).rows
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    seen = [(e.step, e.value) for e in events.Scalars("train/loss")]
    rows = [row for row in log if row["kind"] == "train"]
    assert seen == [(row["step"], pytest.approx(row["loss"])) for row in rows]


def test_a_device_that_is_not_there_is_named():
    for name in ("cuda:99", "warp"):
        with pytest.raises(ValueError, match=f"device '{name}' cannot be"):
            hardware.check_device(name)
    assert hardware.check_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("card", "tera"),
    [
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", None),
        ("Tesla V100-PCIE-16GB", 112),
        ("Tesla V100-SXM2-16GB", 125),
        ("Tesla T4", 65),
        ("NVIDIA GeForce RTX 3090", 71),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A1000", None),
    ],
)
def test_peaks_are_known_or_said_to_be_unknown(card, tera):
    peak = hardware.known_peak(card)
    assert peak == (tera and tera * 1e12)


@pytest.mark.parametrize("kind", [ModuleNotFoundError, RuntimeError, None])
def test_a_card_that_tells_nothing_of_its_use_is_no_error(kind, monkeypatch):
    class NVMLError(Exception):  # NVIDIA's, which is no RuntimeError
        pass

    def utilization(device):
        raise (kind or NVMLError)("Not Supported")

    monkeypatch.setattr(torch.cuda, "utilization", utilization)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 2**21)
    used = hardware.usage("cuda:0")
    assert (used["device_mb"], used["gpu_percent"]) == (2.0, None)


def test_mfu_is_work_over_peak(monkeypatch):
    monkeypatch.setattr(training, "peak_flops", lambda *_: 1e12)
    row = train().rows[0]
    model = tiny()
    c, matrices = model.config, model.num_params() - 8 * 16
    work = 6 * matrices + 12 * c.n_layers * c.emb_dim * c.context_length
    mfu = row["tokens_per_s"] * work / 1e12
    assert row["mfu"] == pytest.approx(mfu, abs=1e-4)


def test_gpt2_costs_what_the_formula_says():
    shape = GPTConfig.preset("gpt2")
    work = hardware.flops_per_token(shape, 124_439_808)
    assert work == 6 * (124_439_808 - 1024 * 768) + 12 * 12 * 768 * 1024
    untied = GPTConfig.preset("gpt2", tie_weights=False)
    more = 124_439_808 + 50257 * 768
    assert hardware.flops_per_token(untied, more) == work


# --- reading a log --------------------------------------------------------


def made_up(curve, val=None, steps=40):
    rows = []
    for k in range(1, steps + 1):
        row = {"kind": "train", "step": 10 * k, "loss": curve(k / steps)}
        rows.append(row)
        if val and k % 4 == 0:
            rows.append(row | {"kind": "val", "loss": val(k / steps)})
    return rows


def wobble(t):
    return 1 + 0.003 * math.sin(400 * t)


@pytest.mark.parametrize(
    ("name", "step", "curve", "val"),
    [
        ("plateau at ln V", 10, lambda t: math.log(50257) * wobble(t), None),
        (
            "plateau at single tokens",
            100,
            lambda t: (7.5 + 3 * math.exp(-10 * t)) * wobble(t),
            None,
        ),
        (
            "diverging",
            200,
            lambda t: 4 + 20 * (t - 0.5) ** 2,
            None,
        ),
        (
            "diverging",
            200,
            lambda t: 4 - t if t <= 0.5 else math.nan,
            None,
        ),
        (
            "overfitting",
            160,
            lambda t: 4 * math.exp(-2 * t),
            lambda t: 2 + (t - 0.4) ** 2,
        ),
        (
            "falling",
            10,
            lambda t: 4 - t,
            lambda t: 4.1 - t,
        ),
        ("flat", 330, lambda t: 3.0 + math.exp(-20 * t), None),
    ],
)
def test_the_story_behind_a_log(name, step, curve, val):
    config = TrainConfig(batch_size=2, grad_accum=3, learning_rate=0.5)
    finding = diagnose(made_up(curve, val), config, 50257)
    assert (finding.name, finding.step) == (name, step)
    assert str(finding).startswith(f"{name} (step {step}): ")
    assert "{" not in finding.advice
    if name == "diverging":
        assert "0.5" in finding.advice
    if name == "plateau at single tokens":
        assert "6 windows" in finding.advice


def test_a_validation_loss_that_rises_a_little_is_overfitting():
    rows = made_up(lambda t: 4 - t, lambda t: 2 + max(0, t - 0.4) / 6)
    assert diagnose(rows, TrainConfig(), 65).name == "overfitting"


def test_the_marks_are_those_of_the_vocabulary():
    rows = made_up(lambda t: 3.3 * wobble(t))
    assert diagnose(rows, TrainConfig(), 65).name == "flat"
    found = diagnose(rows, TrainConfig(), 65, unigram=3.31)
    assert found.name == "plateau at single tokens"
    with pytest.raises(ValueError, match="4 training rows: 5 are needed"):
        diagnose(rows[:4], TrainConfig(), 65)


def test_a_run_is_compared_at_its_own_step():
    recorded = [
        {"kind": "val", "step": step, "loss": loss}
        for step, loss in ((100, 2.5), (200, 2.0), (300, 1.8))
    ]
    rows = [{"kind": "val", "step": 250, "loss": 2.1}]
    assert behind(rows, recorded) == pytest.approx(0.1)
    rows = [{"kind": "val", "step": 300, "loss": 2.1}]
    assert behind(rows, recorded) == pytest.approx(0.3)
    assert behind([{"kind": "val", "step": 50, "loss": 3.0}], recorded) is None
    with pytest.raises(ValueError, match="no validation row"):
        behind([], recorded)
