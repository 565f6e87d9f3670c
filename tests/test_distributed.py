"""Two and three processes learn what one learns, stop together, go on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from minigpt import GPT, GPTConfig, TrainConfig, Trainer, distributed, load_run
from minigpt.callbacks import Callback
from minigpt.cli import Train
from minigpt.distributed import (
    LOST,
    DataParallel,
    Sharded,
    World,
    _stores,
    joined,
    speaks,
)
from minigpt.runfolder import RunError, TrainingError, read_log
from minigpt.text import ToyLanguage
from minigpt.training import Windows

pytestmark = pytest.mark.skipif(
    os.name == "nt", reason="torchrun is not tested on Windows"
)
TEXT = ToyLanguage().sample(4000, seed=3)
CHARS = sorted(set(TEXT))
IDS = torch.tensor([CHARS.index(c) for c in TEXT])
STEPS = 12
SLOW_IMPORTS = "torch._dynamo", "torch.distributed.fsdp", "matplotlib.figure"
CASES = {  # 12 windows a step: shared by 1, 2 and 3
    "muon": {"batch_size": 6, "grad_accum": 2},
    "adamw": {"batch_size": 4, "grad_accum": 3, "optimizer": "adamw"},
    "shard": {"batch_size": 6, "grad_accum": 2, "optimizer": "adamw"},
}
# chapter 11's remedies
CASES["adamw"] |= {"checkpointing": "mlp", "loss_chunk": 20}
CASES["shard-more"] = CASES["shard"] | {
    "checkpointing": "block",
    "loss_chunk": 20,
}


def trainer(world, case, folder=None, **changes):
    torch.manual_seed(7)
    model = GPT(GPTConfig(len(CHARS), 16, 16, 2, 2, drop_rate=0.0))
    settings = {
        "max_steps": STEPS,
        "log_every": 1,
        "eval_every": 5,
        "checkpoint_every": 4,
        "warmup_steps": 2,
        "schedule": "constant",
        "device": "cpu",
        "precision": "fp32",
    }
    config = TrainConfig(**(settings | CASES[case] | changes))
    return Trainer(model, IDS, IDS[:700], config, folder, world=world)


def numbers(rows):
    """Gradient norms and losses of training rows, and the last val loss."""
    train = [row for row in rows if row["kind"] == "train"]
    norms, losses = ([r[key] for r in train] for key in ("grad_norm", "loss"))
    vals = [row["loss"] for row in rows if row["kind"] == "val"]
    return norms + losses + vals[-1:]


def worker(folder: Path, rank: int, size: int, port: int) -> None:
    """What each of N processes does: all cases, runs to go on with, stops."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    there = {"TORCHELASTIC_USE_AGENT_STORE": True}  # as torchrun does
    for name, value in (place | meeting | there).items():
        os.environ[name] = str(value)
    torch.set_num_threads(1)
    found = {}
    with joined("cpu") as ranks:
        for case in CASES:
            kind = Sharded if case.startswith("shard") else DataParallel
            place = ranks.rank, size, ranks.local_rank
            mine, before = (folder / f"{n}-{case}" for n in (size, size - 1))
            run = trainer(kind(*place), case, mine, max_steps=8)
            found[case] = everywhere(numbers(run.fit().rows))
            if before.exists():  # begun by one process fewer
                run = trainer(kind(*place), case, before)
                run.resume()
                rows = run.fit().rows
                found[f"{case} resumed"] = everywhere(numbers(rows))
        found["different"] = different(ranks, folder / f"{size}-adamw")
        found["met"] = meet(ranks, folder / f"{size}-download")
        place = ranks.rank, size, ranks.local_rank
        found["stops"] = [
            stop_of_one(DataParallel(*place), folder / f"{size}-{how}", how)
            for how in ("signal", "callback", "nan", "weight")
        ]
        if ranks.rank == 0:
            (folder / f"{size}.json").write_text(json.dumps(found))


def everywhere(value) -> list:
    """Each rank's value."""
    box = [None] * dist.get_world_size()
    dist.all_gather_object(box, value)
    return box


def meet(ranks: World, download: Path) -> dict:
    """What the ranks hear of each other, as each one heard it."""
    with ranks.in_turn():
        found = download.exists()
        if ranks.rank == 0:
            time.sleep(0.3)
            download.touch()
    last = ranks.rank == ranks.size - 1
    return {
        "found": everywhere(found),
        "agree": everywhere(ranks.agree(f"as {ranks.rank} says")),
        "any": everywhere([ranks.any(last), ranks.any(False)]),
        "mean": everywhere(ranks.mean(torch.tensor([ranks.rank])).tolist()),
    }


def different(ranks: World, folder: Path) -> list[str]:
    """What the ranks say when rank 0 alone sees the checkpoints."""
    if ranks.rank > 0:
        own = folder.with_name(f"{folder.name}-{ranks.rank}")
        folder = shutil.copytree(
            folder, own, ignore=shutil.ignore_patterns("step-*")
        )
    world = DataParallel(ranks.rank, ranks.size, ranks.local_rank)
    try:
        trainer(world, "adamw", folder).resume()
    except RunError as error:
        return everywhere(str(error))
    return []


class Spy(Callback):
    """Notes the seed of each rank's dropout; the last rank stops the run."""

    def __init__(self, world: World, how: str):
        self.world, self.how, self.seeds = world, how, []

    def batch(self, windows: Windows, run: Trainer, index: int):
        self.seeds.append(torch.initial_seed())
        if self.world.rank == self.world.size - 1 and run.step == 3:
            run.interrupted = self.how == "signal"
            if self.how == "nan":
                next(run.model.parameters()).data.fill_(torch.nan)
        return windows.batch(index)

    def on_step(self, trainer):
        if self.how == "callback" and trainer.step == 4:
            trainer.stop_reason = "enough"
        if self.how == "weight" and trainer.step == 4:  # of rank 0 alone
            next(trainer.model.parameters()).data.fill_(torch.nan)


def stop_of_one(world: World, folder: Path, how: str) -> dict:
    """One rank is told to stop, or breaks: what each one does."""
    every = 4 if how == "weight" else 100
    run = trainer(world, "adamw", folder, checkpoint_every=every)
    spy = Spy(world, how)
    run.callbacks.append(spy)
    loader, run.windows = run.windows, SimpleNamespace()
    run.windows.batch = lambda index: spy.batch(loader, run, index)
    try:
        run.fit()
    except TrainingError as error:
        run.stop_reason = str(error)
    return {
        "step": everywhere(run.step),
        "reason": everywhere(run.stop_reason),
        "seeds": everywhere(spy.seeds),
        "kept": [p.name for p in folder.glob("checkpoint/step-*")],
    }


def torchrun(processes: int, *arguments, **options) -> subprocess.Popen:
    command = (
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(processes), *map(str, arguments)),
    )
    here = str(Path(__file__).parents[1])
    paths = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    return subprocess.Popen(
        command,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def ended(processes, seconds=240) -> list[int | None]:
    """The exit codes when all have ended, or one failed, or time is over."""
    deadline = time.monotonic() + seconds
    while True:
        codes = [process.exitcode for process in processes]
        if None not in codes or any(codes) or time.monotonic() > deadline:
            return codes
        time.sleep(0.05)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The losses of 2 and of 3 processes, and the folders they left."""
    folder = tmp_path_factory.mktemp("runs")
    start = get_context("forkserver")  # imports torch once for all
    start.set_forkserver_preload(["minigpt.training", *SLOW_IMPORTS])
    for size in (2, 3):
        store = dist.TCPStore(
            "127.0.0.1", 0, is_master=True, wait_for_workers=False
        )
        ranks = [
            start.Process(target=worker, args=(folder, n, size, store.port))
            for n in range(size)
        ]
        for rank in ranks:
            rank.start()
        codes = ended(ranks)
        for rank in ranks:
            rank.kill()
        assert codes == [0] * size
    found = {n: json.loads((folder / f"{n}.json").read_text()) for n in (2, 3)}
    return folder, found


@pytest.fixture(scope="module")
def alone():
    """The losses of one process, of 8 steps and of all."""
    return {
        (case, steps): numbers(trainer(None, case, max_steps=steps).fit().rows)
        for case in CASES
        for steps in (8, STEPS)
    }


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_losses_of_one_process(runs, alone, case, size):
    found, *others = runs[1][size][case]
    assert others == [found] * (size - 1)
    assert found == pytest.approx(alone[case, 8], rel=0, abs=1e-5)
    assert found[-2] < found[8] - 0.1  # the losses fall from 8 to 15


@pytest.mark.parametrize("case", CASES)
def test_three_go_on_with_the_run_of_two(runs, alone, case):
    found, *others = runs[1][3][f"{case} resumed"]
    assert others == [found] * 2
    assert found == pytest.approx(alone[case, STEPS], rel=0, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_one_goes_on_with_the_run_of_three(runs, alone, case):
    run = trainer(None, case, runs[0] / f"3-{case}")
    run.resume()
    assert run.step == 8
    found = numbers(run.fit().rows)
    assert found == pytest.approx(alone[case, STEPS], rel=0, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_log_is_written_once(runs, case):
    header, rows = read_log(runs[0] / f"2-{case}" / "log.jsonl")
    assert header["processes"] == 3  # the ones that went on with it
    steps = [row["step"] for row in rows if row["kind"] == "train"]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.parametrize("size", [2, 3])
def test_what_the_ranks_hear_of_each_other(runs, size):
    met = runs[1][size]["met"]
    assert met["found"] == [False] + [True] * (size - 1)
    assert met["agree"] == ["as 0 says"] * size
    assert met["any"] == [[True, False]] * size
    assert met["mean"] == [[(size - 1) / 2]] * size


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_with_different_checkpoints_do_not_go_on(runs, size):
    said = runs[1][size]["different"]
    assert len(said) == size
    assert all("use a folder that all machines share" in s for s in said)


@pytest.mark.parametrize("size", [2, 3])
def test_what_stops_one_rank_stops_all_at_one_step(runs, size):
    stops = runs[1][size]["stops"]
    assert [stop["step"] for stop in stops] == [[4] * size] * 4
    signal, callback, nan, weight = stops
    assert signal["kept"] == ["step-00000004"]
    assert callback["reason"][0] == "enough"
    assert set(callback["reason"][1:]) == {"as rank 0 was told"}
    for stop, start in ((nan, "the loss is nan"), (weight, "a weight is no")):
        assert len(set(stop["reason"])) == 1
        assert stop["reason"][0].startswith(start)
        assert stop["kept"] == []


@pytest.mark.parametrize("size", [2, 3])
def test_no_two_ranks_and_steps_share_a_dropout_mask(runs, size):
    seeds = runs[1][size]["stops"][0]["seeds"]
    assert all(len(set(mine)) == 4 for mine in seeds)
    assert len(set().union(*seeds)) == 4 * size


@pytest.fixture
def flags(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return [
        *("-m", "minigpt", "train", "--data", tmp_path / "text.txt"),
        *("--out", tmp_path / "run", "--context-length", 16, "--emb-dim", 16),
        *("--n-heads", 2, "--n-layers", 1, "--batch-size", 4),
        *("--device", "cpu", "--precision", "fp32", "--sample-tokens", 5),
        *("--optimizer", "adamw"),
    ]


def test_a_killed_rank_ends_the_run_and_another_number_resumes(
    flags, tmp_path
):
    process = torchrun(
        2, *flags, "--max-steps", 100_000, "--checkpoint-every", 10
    )
    checkpoints = tmp_path / "run" / "checkpoint"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("step-*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    ranks = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    os.kill(int(ranks[-1]), signal.SIGKILL)
    printed, errors = process.communicate(timeout=90)
    assert process.returncode != 0
    assert "2 processes, each with a copy of the model" in printed
    assert errors.count(LOST) == 1
    steps = max(int(p.name[5:]) for p in checkpoints.glob("step-*")) + 5
    again = torchrun(
        *(3, *flags, "--resume", "--shard"),
        *("--max-steps", steps, "--grad-accum", 3),
    )
    printed, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors[-3000:]
    assert printed.count("validation loss") == 1
    assert "3 processes, each with a part of the model" in printed
    load_run(tmp_path / "run")


def test_windows_that_cannot_be_shared_are_one_sentence(flags, tmp_path):
    process = torchrun(2, *flags, "--batch-size", 3)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert errors.count("minigpt: ") == 1
    assert "2 processes cannot share 3 x 1 windows" in errors
    assert "--batch-size 4" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 12])
def test_shares_are_equal_and_no_larger_than_asked(size):
    world = World()
    world.size = size
    for batch_size, grad_accum in [(12, 1), (4, 3), (3, 4), (1, 12), (6, 2)]:
        rows, count = world.share(batch_size, grad_accum)
        assert rows * count * size == 12
        assert rows <= batch_size
    if size == 1:
        assert world.share(5, 7) == (5, 7)


def test_before_they_meet_rank_0_speaks(monkeypatch):
    for rank, answer in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert speaks() is answer
    monkeypatch.delenv("RANK")
    assert speaks() is True


@pytest.mark.parametrize(
    "there, missing",
    [
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE is x"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is 0"),
        ({"WORLD_SIZE": "2"}, "LOCAL_RANK is missing"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK is missing"),
        (
            {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "RANK": "0"},
            "MASTER_PORT is missing",
        ),
    ],
)
def test_half_of_an_environment(monkeypatch, there, missing):
    for name in ("WORLD_SIZE", "LOCAL_RANK", "RANK", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in there.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{missing}: start.*or unset WORLD"):
        joined("cpu").__enter__()


def test_shard_needs_several_processes():
    with pytest.raises(ValueError, match="torchrun"), joined("cpu", True):
        pass


@pytest.mark.parametrize(
    ("settings", "precision", "remedy"),
    [
        ({"optimizer": "muon"}, "fp32", "--optimizer adamw"),
        ({"optimizer": "adamw"}, "fp16", "--precision fp32"),
        (
            {"optimizer": "adamw", "optimizer_state": "int8"},
            "fp32",
            "leave --optimizer-state out",
        ),
    ],
)
def test_what_shard_cannot_do(settings, precision, remedy):
    config = TrainConfig(**settings)
    DataParallel(0, 2, 0).check(config, precision)
    with pytest.raises(ValueError, match=remedy):
        Sharded(0, 2, 0).check(config, precision)


def test_each_process_takes_the_gpu_of_its_number(monkeypatch):
    with pytest.raises(ValueError, match="cannot be shared"):
        DataParallel(0, 2, 0).device("mps")
    assert DataParallel(1, 2, 1).device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(distributed, "check_device", lambda name: name)
    monkeypatch.setattr(distributed, "best_device", lambda: "cuda")
    assert DataParallel(1, 8, 1).device("cuda") == "cuda:1"
    assert DataParallel(5, 8, 1).device("auto") == "cuda:1"
    with pytest.raises(ValueError, match="--nproc-per-node 2"):
        DataParallel(2, 3, 2).device("cuda")


@pytest.fixture
def met(monkeypatch):
    """joined() finds a world of one, as if torchrun had started two."""
    place = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    for name, value in (place | {"MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    meeting = iter([(dist.HashStore(), 0, 1)])
    monkeypatch.setattr(dist, "rendezvous", lambda *_, **__: meeting)
    before = signal.getsignal(signal.SIGTERM)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()
    signal.signal(signal.SIGTERM, before)
    _stores.clear()


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("Connection closed by peer [127.0.0.1]:1"), True),
        (dist.DistBackendError("unhandled system error"), True),
        (TrainingError("cannot write x (Connection timed out)"), False),
        (RuntimeError("shape '[2]' is invalid for input of size 3"), False),
        (ValueError("timeout is 0"), False),
    ],
)
def test_only_errors_about_a_rank_are_told_as_such(met, error, lost):
    expected = TrainingError if lost else type(error)
    with pytest.raises(expected) as caught, joined("cpu"):
        raise error
    assert (str(caught.value) == LOST) == lost
    # what torchrun sends to the others now is no second report
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    assert [speaks(), speaks()] == [True, False]  # the first to meet it


def test_after_a_good_end_nothing_is_left(met):
    before = signal.getsignal(signal.SIGTERM)
    with joined("cpu"):
        assert signal.getsignal(signal.SIGTERM) != before and _stores
    assert signal.getsignal(signal.SIGTERM) == before and not _stores
    assert not dist.is_initialized()


def test_torchrun_ends_the_others_because_a_rank_is_lost(met):
    with pytest.raises(TrainingError) as caught, joined("cpu"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)  # the signal ends it
    assert str(caught.value) == LOST
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_after_ctrl_c_the_whole_command_is_named(capsys):
    world = Sharded(0, 4, 0)
    run = SimpleNamespace(interrupted=True, step=7, world=world)
    Train(out=Path("mine"), shard=True)._report(run)
    command = (
        "torchrun --nproc-per-node 4 -m minigpt train --out mine --resume"
    )
    assert f"Go on with: {command} --shard\n" in capsys.readouterr().out
