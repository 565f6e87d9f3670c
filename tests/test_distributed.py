"""Two and three processes learn what one learns, stop together, go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from minigpt import GPT, GPTConfig, TrainConfig, Trainer, load_run
from minigpt.distributed import LOST, DataParallel, Sharded, World, joined
from minigpt.runfolder import read_log
from minigpt.text import ToyLanguage

pytestmark = pytest.mark.skipif(
    os.name == "nt", reason="torchrun is not tested on Windows"
)
TEXT = ToyLanguage().sample(4000, seed=3)
CHARS = sorted(set(TEXT))
IDS = torch.tensor([CHARS.index(c) for c in TEXT])
STEPS = 12
CASES = {  # 12 windows a step: shared by 1, 2 and 3
    "muon": {"batch_size": 6, "grad_accum": 2},
    "adamw": {"batch_size": 4, "grad_accum": 3, "optimizer": "adamw"},
    "shard": {"batch_size": 6, "grad_accum": 2, "optimizer": "adamw"},
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


def losses(rows):
    """Those of all training rows, and the last validation's."""
    train = [row["loss"] for row in rows if row["kind"] == "train"]
    return train + [row["loss"] for row in rows if row["kind"] == "val"][-1:]


def worker(folder: Path) -> None:
    """What each of N processes does: all cases, and a run to go on with."""
    found = {}
    with joined("cpu") as ranks:
        size = ranks.size
        for case in CASES:
            kind = Sharded if case == "shard" else DataParallel
            place = ranks.rank, size, ranks.local_rank
            mine, before = (folder / f"{n}-{case}" for n in (size, size - 1))
            run = trainer(kind(*place), case, mine, max_steps=8)
            found[case] = losses(run.fit().rows)
            if before.exists():  # begun by one process fewer
                run = trainer(kind(*place), case, before)
                run.resume()
                found[f"{case} resumed"] = losses(run.fit().rows)
        if ranks.rank == 0:
            (folder / f"{size}.json").write_text(json.dumps(found))


def torchrun(processes: int, *arguments, **options) -> subprocess.Popen:
    command = (
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(processes), *map(str, arguments)),
    )
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(
        [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    )}
    return subprocess.Popen(
        command,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The losses of 2 and of 3 processes, and the folders they left."""
    folder = tmp_path_factory.mktemp("runs")
    for size in (2, 3):
        process = torchrun(size, __file__, folder)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-3000:]
    found = {n: json.loads((folder / f"{n}.json").read_text()) for n in (2, 3)}
    return folder, found


@pytest.fixture(scope="module")
def alone():
    """The losses of one process, of 8 steps and of all."""
    return {
        (case, steps): losses(trainer(None, case, max_steps=steps).fit().rows)
        for case in CASES
        for steps in (8, STEPS)
    }


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_losses_of_one_process(runs, alone, case, size):
    found = runs[1][size][case]
    assert found == pytest.approx(alone[case, 8], rel=0, abs=1e-5)
    assert found[-2] < found[0] - 0.1  # it does learn


@pytest.mark.parametrize("case", CASES)
def test_three_go_on_with_the_run_of_two(runs, alone, case):
    found = runs[1][3][f"{case} resumed"]
    assert found == pytest.approx(alone[case, STEPS], rel=0, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_one_goes_on_with_the_run_of_three(runs, alone, case):
    run = trainer(None, case, runs[0] / f"3-{case}")
    run.resume()
    assert run.step == 8
    found = losses(run.fit().rows)
    assert found == pytest.approx(alone[case, STEPS], rel=0, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_log_is_written_once(runs, case):
    header, rows = read_log(runs[0] / f"2-{case}" / "log.jsonl")
    assert header["processes"] == 3  # the ones that went on with it
    steps = [row["step"] for row in rows if row["kind"] == "train"]
    assert steps == list(range(1, STEPS + 1))


@pytest.fixture
def flags(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return [
        *("-m", "minigpt", "train", "--data", tmp_path / "text.txt"),
        *("--out", tmp_path / "run", "--context-length", 16, "--emb-dim", 16),
        *("--n-heads", 2, "--n-layers", 1, "--batch-size", 4),
        *("--device", "cpu", "--precision", "fp32", "--sample-tokens", 5),
    ]


def test_a_killed_rank_ends_the_run_and_another_number_resumes(
    flags, tmp_path
):
    process = torchrun(
        2, *flags, "--max-steps", 100_000, "--checkpoint-every", 10
    )
    checkpoints = tmp_path / "run" / "checkpoint"
    deadline = time.monotonic() + 60
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
    _, errors = process.communicate(timeout=40)
    assert process.returncode != 0
    assert errors.count(LOST) == 1
    steps = max(int(p.name[5:]) for p in checkpoints.glob("step-*")) + 5
    again = torchrun(
        3, *flags, "--resume", "--max-steps", steps, "--grad-accum", 3
    )
    printed, errors = again.communicate(timeout=60)
    assert again.returncode == 0, errors[-3000:]
    assert printed.count("validation loss") == 1
    assert "3 processes with copies of the model" in printed
    load_run(tmp_path / "run")


def test_windows_that_cannot_be_shared_are_one_sentence(flags, tmp_path):
    process = torchrun(3, *flags)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.count("minigpt: ") == 1
    assert "3 processes cannot share 4 x 1 windows" in errors
    assert "--batch-size 6" in errors
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


def test_shard_needs_several_processes():
    with pytest.raises(ValueError, match="torchrun"), joined("cpu", True):
        pass


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
