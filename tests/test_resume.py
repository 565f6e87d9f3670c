"""A run that was killed, damaged or interrupted goes on as if it was not."""

import errno
import multiprocessing
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import safetensors.torch
import torch

from minigpt import GPT, GPTConfig, TrainConfig, Trainer, load_run
from minigpt.callbacks import Callback, LossPlot
from minigpt.runfolder import (
    RUN_FILES,
    Checkpoints,
    RunError,
    RunLog,
    TrainingError,
    load_weights,
    read_checkpoint,
    read_log,
)
from minigpt.text import CharTokenizer
from minigpt.training import load_trainer_state

TEXT = "to be, or not to be: that is the question. " * 12
TOKENIZER = CharTokenizer.from_text(TEXT)
IDS = torch.tensor(TOKENIZER.encode(TEXT))
SETTINGS = {
    "max_steps": 40,
    "batch_size": 2,
    "grad_accum": 2,
    "log_every": 3,
    "eval_every": 7,
    "checkpoint_every": 5,
    "sample_every": 11,
    "sample_tokens": 8,
    "warmup_steps": 4,
    "device": "cpu",
    "precision": "fp32",
}
# What depends on the machine and not on the run.
MEASURED = {"seconds", "tokens_per_s", "mfu", "host_mb", "device_mb"}


def trainer(folder, callbacks=(), **changes):
    """The run of these tests; with dropout, so that randomness matters."""
    torch.manual_seed(5)
    shape = GPTConfig(TOKENIZER.vocab_size, 16, 16, 2, 1, drop_rate=0.1)
    run = Trainer(
        GPT(shape),
        IDS,
        IDS[:100],
        TrainConfig(**(SETTINGS | changes)),
        folder,
        tokenizer=TOKENIZER,
        callbacks=callbacks,
    )
    run.callbacks = [c for c in run.callbacks if not isinstance(c, LossPlot)]
    return run  # without the plot, which takes longer than the training


def resumed(folder, callbacks=(), **changes):
    again = trainer(folder, callbacks, **changes)
    again.resume()
    return again


def outcome(folder):
    """All that a run leaves, times aside."""
    header, rows = read_log(folder / "log.jsonl")
    for key in ("commit", "date"):  # both may change while the tests run
        del header[key]
    kept = [{key: row[key] for key in row.keys() - MEASURED} for row in rows]
    newest = Checkpoints(folder / "checkpoint").paths()[-1]
    return {
        "header": header,
        "rows": kept,
        "best": (folder / "model.safetensors").read_bytes(),
        "samples": (folder / "samples.txt").read_text(),
        "newest": newest.name,
        "weights": (newest / "model.safetensors").read_bytes(),
    }


class Do(Callback):
    """Calls a function after a given step."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    def on_step(self, trainer):
        if trainer.step == self.step:
            self.act(trainer)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of the run that nothing ever happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    trainer(folder).fit()
    return folder


# --- killed ---------------------------------------------------------------


def child(folder, moment, counted=None):
    """Start or resume the run; die at the moment-th thing that it does.

    A thing is a step, a row of the log, or a touch of the disk.
    """
    done = 0

    def tick():
        nonlocal done
        done += 1
        if done == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def counting(function):
        def wrapped(*args, **kwargs):
            tick()
            result = function(*args, **kwargs)
            tick()
            return result

        return wrapped

    class Clock(Callback):
        def on_step(self, trainer):
            tick()

        def on_row(self, trainer, row):
            tick()

    os.fsync, os.replace = counting(os.fsync), counting(os.replace)
    shutil.rmtree = counting(shutil.rmtree)
    run = trainer(folder, [Clock()])
    if (folder / "config.json").exists():
        run.resume()
    run.fit()
    if counted is not None:
        counted.value = done


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ten_kills_leave_no_trace(tmp_path, whole):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["minigpt.training"])

    def run(*arguments):
        process = context.Process(target=child, args=arguments)
        process.start()
        process.join(120)
        return process.exitcode

    counted = context.Value("i", 0)
    assert run(tmp_path / "counted", 0, counted) == 0
    dice, folder, kills = random.Random(0), tmp_path / "run", 0
    while kills < 10:
        moment = dice.randrange(1, counted.value // 3)
        exitcode = run(folder, moment)
        if exitcode == -signal.SIGKILL:
            kills += 1
        else:  # it came to the end first: begin another run
            assert exitcode == 0 and outcome(folder) == outcome(whole)
            shutil.rmtree(folder)
    assert run(folder, 0) == 0
    assert outcome(folder) == outcome(whole)


# --- interrupted ----------------------------------------------------------


@pytest.mark.parametrize("step", [1, 7, 13, 40])
def test_ctrl_c_leaves_no_trace(step, tmp_path, whole):
    press = Do(step, lambda _: signal.raise_signal(signal.SIGINT))
    run = trainer(tmp_path / "run", [press]).fit()
    assert run.interrupted and run.step == step
    load_run(tmp_path / "run")  # there are weights to sample from
    resumed(tmp_path / "run").fit()
    assert outcome(tmp_path / "run") == outcome(whole)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_goes_on_exactly(precision, tmp_path):
    settings = {"precision": precision, "max_steps": 12}
    trainer(tmp_path / "a", **settings).fit()
    press = Do(8, lambda _: signal.raise_signal(signal.SIGINT))
    trainer(tmp_path / "b", [press], **settings).fit()
    resumed(tmp_path / "b", **settings).fit()
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")


def test_fit_goes_on_after_ctrl_c(tmp_path, whole):
    press = Do(9, lambda _: signal.raise_signal(signal.SIGINT))
    trainer(tmp_path / "run", [press]).fit().fit()
    assert outcome(tmp_path / "run") == outcome(whole)


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    def twice(_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "run", [Do(3, twice)]).fit()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_full_disk_leaves_a_run_that_goes_on(tmp_path, whole, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    fill = Do(18, lambda _: monkeypatch.setattr(os, "fsync", full))
    with pytest.raises(TrainingError, match="No space left on device"):
        trainer(tmp_path / "run", [fill]).fit()
    monkeypatch.undo()
    assert not list((tmp_path / "run").glob("**/*.part"))
    resumed(tmp_path / "run").fit()
    assert outcome(tmp_path / "run") == outcome(whole)


def test_out_of_memory_says_what_to_halve(tmp_path, monkeypatch):
    from minigpt.training import TrainStep

    def no_memory(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried …")

    def fill_memory(_):
        monkeypatch.setattr(TrainStep, "__call__", no_memory)

    fill = Do(6, fill_memory)
    with pytest.raises(
        TrainingError, match="batch_size to 1 and double grad_accum to 4"
    ):
        trainer(tmp_path / "run", [fill]).fit()
    monkeypatch.undo()
    smaller = resumed(tmp_path / "run", batch_size=1, grad_accum=4)
    assert smaller.step == 5
    smaller.fit()
    assert smaller.step == 40
    with pytest.raises(TrainingError, match="shorten context_length"):
        monkeypatch.setattr(TrainStep, "__call__", no_memory)
        trainer(None, batch_size=1).fit()


def test_other_errors_are_not_called_a_lack_of_memory(monkeypatch):
    from minigpt.training import TrainStep

    def broken(*arguments):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(TrainStep, "__call__", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        trainer(None).fit()


# --- no longer a number ---------------------------------------------------


def spoil(trainer):
    with torch.no_grad():
        trainer.model.ln_f.weight[0] = torch.nan


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (12, r"at step 13 \(batch 24\)"),  # seen at the next step
        (14, "a weight is no number at step 14"),  # before the evaluation
        (10, "a weight is no number at step 10"),  # before the checkpoint
        (22, "a weight is no number at step 22"),  # before the sample
    ],
)
def test_nan_stops_the_run_and_spares_the_checkpoints(
    step, message, tmp_path, whole
):
    folder = tmp_path / "run"
    with pytest.raises(TrainingError, match=message) as error:
        trainer(folder, [Do(step, spoil)]).fit()
    assert "lower the learning rate" in str(error.value)
    for path in Checkpoints(folder / "checkpoint").paths():
        weights = safetensors.torch.load_file(path / "model.safetensors")
        assert all(t.isfinite().all() for t in weights.values())
    resumed(folder).fit()
    assert outcome(folder) == outcome(whole)


def test_before_the_first_checkpoint_nothing_is_called_intact(tmp_path):
    for folder in (tmp_path / "run", None):
        with pytest.raises(TrainingError, match="nothing was kept"):
            trainer(folder, [Do(1, spoil)]).fit()
    with pytest.raises(TrainingError, match="last good checkpoint is intact"):
        trainer(tmp_path / "run2", [Do(12, spoil)]).fit()


def test_a_validation_loss_that_is_no_number(tmp_path, monkeypatch):
    from minigpt import training

    monkeypatch.setattr(training, "evaluate", lambda *_: float("nan"))
    with pytest.raises(TrainingError, match="validation loss is nan"):
        trainer(tmp_path / "run").fit()
    assert not (tmp_path / "run/model.safetensors").exists()


# --- damaged --------------------------------------------------------------


@pytest.fixture
def damaged(whole, tmp_path):
    """Damage the newest checkpoint; the one before must be loaded."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(whole / "checkpoint", folder)
    checkpoints = Checkpoints(folder)
    before, newest = checkpoints.paths()

    def damaged(name, change):
        path = newest / name
        good = path.read_bytes()
        path.write_bytes(change(good))
        with pytest.raises(RunError, match="is damaged"):
            read_checkpoint(newest)
        path.write_bytes(good)

    yield damaged
    read_checkpoint(newest)


FILES = ["model.safetensors", "state.pt", "SHA256SUMS"]


@pytest.mark.parametrize("name", FILES)
def test_a_cut_checkpoint_is_refused(name, damaged, whole):
    newest = Checkpoints(whole / "checkpoint").paths()[-1]
    size = (newest / name).stat().st_size
    for length in range(0, size, 1000 if size > 1000 else 10):
        damaged(name, lambda good, length=length: good[:length])


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_refused(name, damaged):
    dice = random.Random(name)

    def flip(good):
        bit = dice.randrange(8 * len(good))
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        return bytes(bad)

    for _ in range(60):
        damaged(name, flip)


def test_resume_passes_over_a_damaged_checkpoint_and_says_so(tmp_path, whole):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    _, newest = Checkpoints(folder / "checkpoint").paths()
    (newest / "state.pt").write_bytes(b"")
    run = trainer(folder)
    (note,) = run.resume()
    assert "step-00000040 is damaged (state.pt was changed)" in note
    assert run.step == 35
    run.fit()
    assert outcome(folder) == outcome(whole)


def test_resume_without_any_sound_checkpoint(tmp_path, whole):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for path in Checkpoints(folder / "checkpoint").paths():
        (path / "SHA256SUMS").unlink()
    with pytest.raises(
        RunError, match="00040 is damaged .No such .*00035 is .*: restore one"
    ):
        resumed(folder)


def test_best_weights_are_never_loaded_damaged(tmp_path, whole):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    path = folder / "model.safetensors"
    good, dice = path.read_bytes(), random.Random(1)
    model, _ = load_run(folder)
    for length in range(0, len(good), 1000):
        path.write_bytes(good[:length])
        with pytest.raises(RunError, match="model.safetensors is damaged"):
            load_weights(model, path)
    header = 8 * (8 + int.from_bytes(good[:8], "little"))
    bits = [dice.randrange(8 * len(good)) for _ in range(100)]
    bits += [dice.randrange(header) for _ in range(200)]
    before = safetensors.torch.load(good)
    for bit in bits:
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        try:
            load_weights(model, path)
        except RunError:
            continue
        # only what is no weight can have changed: the note of the sha256
        after = safetensors.torch.load_file(path)
        assert bit < header
        assert all(torch.equal(before[k], after[k]) for k in before)


# --- the folder -----------------------------------------------------------


def test_a_run_killed_before_its_first_checkpoint_starts_again(
    tmp_path, whole
):
    folder = tmp_path / "run"

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(folder, [Do(4, stop)]).fit()
    assert not Checkpoints(folder / "checkpoint").paths()
    run = resumed(folder)
    assert run.step == 0 and run.rows == []
    run.fit()
    assert outcome(folder) == outcome(whole)


@pytest.mark.parametrize("lost", ["folder", "contents", "all but a file"])
@pytest.mark.parametrize("step", [40, 6])
def test_a_run_whose_checkpoints_are_gone_is_left_alone(
    tmp_path, whole, lost, step
):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    header, rows = read_log(folder / "log.jsonl")
    RunLog(folder).begin(header, [r for r in rows if r["step"] <= step])
    shutil.rmtree(folder / "checkpoint")
    if lost == "contents":
        (folder / "checkpoint").mkdir()
    elif lost == "all but a file":
        (folder / "checkpoint").write_text("")
    before = {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    with pytest.raises(RunError, match=f"no checkpoint.* step {step}: copy"):
        resumed(folder, checkpoint_every=50)  # the run's own 5 counts
    assert before == {p: p.read_bytes() for p in before}


@pytest.mark.parametrize("step", [4, 5])
def test_a_run_that_may_have_had_no_checkpoint_starts_again(
    tmp_path, whole, step
):
    shutil.copytree(whole, tmp_path / "run")
    header, rows = read_log(whole / "log.jsonl")
    rows = [row for row in rows if row["step"] <= step]
    rows[-1]["step"] = step
    RunLog(tmp_path / "run").begin(header, rows)
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    assert resumed(tmp_path / "run", checkpoint_every=1).rows == []


@pytest.mark.parametrize("key", ["step", "row", "bad_evals", "scaler"])
def test_a_checkpoint_of_another_version_is_one_sentence(whole, key):
    state = read_checkpoint(whole / "checkpoint" / "step-00000040")
    del state[key]
    with pytest.raises(RunError, match=f"has no '{key}', another version"):
        load_trainer_state(trainer(None), state)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such lock")
def test_two_trainings_never_share_a_folder(tmp_path, whole):
    folder, said = tmp_path / "run", []

    def intrude(_):
        for start in (resumed, lambda folder: trainer(folder).fit()):
            with pytest.raises(RunError, match="another minigpt is at work"):
                start(folder)
            said.append(start)

    trainer(folder, [Do(4, intrude)]).fit()
    assert len(said) == 2
    assert outcome(folder) == outcome(whole)  # nothing was dropped


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such lock")
def test_a_drive_without_locks_is_trained_on(tmp_path, monkeypatch):
    import fcntl

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    folder = tmp_path / "run"
    trainer(folder).fit()
    assert resumed(folder).step == SETTINGS["max_steps"]


def test_a_folder_is_never_trained_into_twice(whole):
    with pytest.raises(RunError, match="already holds a run"):
        trainer(whole).fit()


@pytest.mark.parametrize("name", RUN_FILES)
def test_files_of_others_are_never_overwritten(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunError, match=f"holds {name}, which a new run"):
        trainer(tmp_path).fit()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_start_that_was_cut_short_may_be_repeated(
    tmp_path, whole, monkeypatch
):
    def cut(self, header, rows=()):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "begin", cut)
        with pytest.raises(KeyboardInterrupt):
            trainer(tmp_path).fit()
    assert (tmp_path / "tokenizer.json").exists()
    trainer(tmp_path).fit()
    assert outcome(tmp_path) == outcome(whole)
    assert not (tmp_path / ".starting").exists()


@pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc"
)
def test_the_log_is_on_the_disk_before_a_checkpoint(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, os.replace

    def note_fsync(number):
        events.append(os.readlink(f"/proc/self/fd/{number}"))
        fsync(number)

    def note_replace(source, target):
        events.append(str(target))
        replace(source, target)

    run = trainer(tmp_path / "run")
    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    run.fit()
    names = [Path(event).name for event in events]
    steps = [n for n, name in enumerate(names) if name.startswith("step-")]
    assert len(steps) == 8
    for start, end in zip([0, *steps], steps):
        assert "log.jsonl" in names[start:end]


def test_checkpoints_without_a_config_are_not_overwritten(tmp_path, whole):
    shutil.copytree(whole / "checkpoint", tmp_path / "checkpoint")
    with pytest.raises(RunError, match="checkpoints without a config.json"):
        trainer(tmp_path).fit()


def test_resume_wants_the_same_shape_and_optimizer(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "run")
    other = GPT(GPTConfig(TOKENIZER.vocab_size, 16, 32, 2, 1))
    config = TrainConfig(**SETTINGS)
    with pytest.raises(RunError, match="another shape"):
        Trainer(other, IDS, IDS, config, tmp_path / "run").resume()
    with pytest.raises(RunError, match="another optimizer"):
        resumed(tmp_path / "run", optimizer="adamw")
    with pytest.raises(RunError, match="not a run folder"):
        resumed(tmp_path / "nowhere")


def test_a_longer_run_goes_on_with_changed_settings(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "run")
    run = resumed(tmp_path / "run", max_steps=44, weight_decay=0.3)
    groups = run.train_step.optimizer.param_groups
    assert groups[0]["weight_decay"] == 0.3
    run.fit()
    header, rows = read_log(tmp_path / "run/log.jsonl")
    assert header["train"]["max_steps"] == 44
    assert rows[-1]["step"] == 44


def test_automatic_precision_stays_what_it_was(tmp_path, monkeypatch):
    from minigpt import training

    monkeypatch.setattr(training, "_bf16_gain", lambda: 4.0)
    run = trainer(tmp_path / "run", precision="auto", max_steps=5).fit()
    assert run.precision == "bf16"
    monkeypatch.setattr(training, "_bf16_gain", lambda: 1.0)
    again = resumed(tmp_path / "run", precision="auto", max_steps=9)
    assert again.precision == "bf16"
    assert resumed(tmp_path / "run", precision="fp32").precision == "fp32"


def test_only_the_newest_checkpoints_are_kept(whole):
    names = [p.name for p in Checkpoints(whole / "checkpoint").paths()]
    assert names == ["step-00000035", "step-00000040"]


def test_a_torn_last_line_is_dropped_and_other_damage_is_not(tmp_path, whole):
    lines = (whole / "log.jsonl").read_text().splitlines(keepends=True)
    path = tmp_path / "log.jsonl"
    path.write_text("".join(lines)[:-5])
    assert len(read_log(path)[1]) == len(lines) - 2
    for bad in (
        "".join(lines[:3]) + "{\n" + "".join(lines[3:]),
        "".join(lines[1:]),
        "",
        "[]\n",
        '{"kind": "header"}\n{"kind": "val"}\n',
    ):
        path.write_text(bad)
        with pytest.raises(RunError, match="is not the log of a run"):
            read_log(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="is not the log of a run"):
        read_log(path)


# --- stopping early -------------------------------------------------------


def test_patience_survives_resume(tmp_path):
    # at a rate of 0 nothing improves: the first look is the best
    settings = {"learning_rate": 0.0, "muon_lr": 0.0, "patience": 3}
    run = trainer(tmp_path / "a", **settings).fit()
    assert run.step == 28 and "3 evaluations" in run.stop_reason
    press = Do(16, lambda _: signal.raise_signal(signal.SIGINT))
    trainer(tmp_path / "b", [press], **settings).fit()
    resumed(tmp_path / "b", **settings).fit()
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")

    again = resumed(tmp_path / "b", **settings).fit()
    assert again.step == 28 and again.stop_reason
    patient = resumed(tmp_path / "b", **(settings | {"patience": 4})).fit()
    assert patient.step == 35


def test_a_target_loss_survives_resume(tmp_path):
    run = trainer(tmp_path / "a", target_loss=2.5).fit()
    assert 0 < run.step < 40 and "is under 2.5" in run.stop_reason
    assert [row["kind"] for row in run.rows[-3:]] == ["train", "val", "sample"]
    again = resumed(tmp_path / "a", target_loss=2.5).fit()
    assert again.step == run.step
    lower = resumed(tmp_path / "a", target_loss=0.5).fit()
    assert lower.step == 40


def test_the_best_weights_survive_resume(tmp_path, whole):
    best = min(
        row["loss"]
        for row in read_log(whole / "log.jsonl")[1]
        if row["kind"] == "val"
    )
    shutil.copytree(whole, tmp_path / "run")
    assert resumed(tmp_path / "run").best_loss == best
