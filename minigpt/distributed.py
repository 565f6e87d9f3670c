"""Several processes that train one model together.

`torchrun --nproc-per-node N -m minigpt train ...` starts the same program N
times, here or on several machines. Each process, a *rank*, learns from its
share of every step's windows; the gradients are averaged. `World` is one
process alone, `DataParallel` keeps a whole copy of the model in each rank
(DDP), `Sharded` a part of it (FSDP2). All ranks take the same decisions;
only rank 0 writes and speaks. On Windows there is gloo only, slow on GPUs,
and torchrun asks for USE_LIBUV=0 in the environment.
"""

import contextlib
import math
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from minigpt.hardware import check_device
from minigpt.model import GPT
from minigpt.runfolder import TrainingError
from minigpt.text import best_device

TIMEOUT = timedelta(minutes=10)  # of silence, then a rank counts as lost
LOST = (
    "a process of this run has ended or does not answer, so the run stops; "
    "its checkpoints are kept: go on with --resume, with any number of "
    "processes"
)
_stores: list = []  # the key-value store of the run this process is in


class World:
    """The processes that train together: here just this one."""

    rank, size, local_rank = 0, 1, 0
    holds = "the model"  # what each process has of it

    def share(self, batch_size: int, grad_accum: int) -> tuple[int, int]:
        """One rank's part of a step: windows a micro-batch, micro-batches.

        The micro-batches are equal, and none is above batch_size.
        ValueError if the step's windows cannot be shared evenly.
        """
        mine, rest = divmod(batch_size * grad_accum, self.size)
        if rest:
            more = math.ceil(batch_size / self.size) * self.size
            raise ValueError(
                f"{self.size} processes cannot share {batch_size} x "
                f"{grad_accum} windows (batch_size x grad_accum) evenly: "
                f"write --batch-size {more}, or another number of processes"
            )
        count = math.ceil(mine / batch_size)
        while mine % count:
            count += 1
        return mine // count, count

    def check(self, config, precision: str) -> None:
        """ValueError for settings that cannot be used together."""

    def device(self, name: str) -> str:
        """The device of this rank: `name`, or the best if that is auto."""
        return check_device(best_device() if name == "auto" else name)

    def place(self, model: GPT, device: str) -> GPT:
        """The model on the device, before an optimizer is made for it."""
        return model.to(device)

    def forward(self, model: GPT, device: str) -> nn.Module:
        """What to call for the logits in training."""
        return model

    def micro_batch(self, is_last: bool):
        """A context for forward and backward of one micro-batch."""
        return contextlib.nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all ranks, equal on each."""
        return values

    def any(self, flag: bool) -> bool:
        """Whether a rank says so: asked of all, so that all agree."""
        return flag

    def agree(self, value):
        """Rank 0's value."""
        return value

    def in_turn(self):
        """A context that the first rank of each machine goes through first,
        so that a download is made once."""
        return contextlib.nullcontext()

    def mean_loss(
        self, loss: Callable[[Tensor], float], ids: Tensor, T: int
    ) -> float:
        """loss(ids), the mean over windows of T; ranks share the work."""
        return loss(ids[:])

    def local(self, model: GPT) -> list[Tensor]:
        """The parameters, or this rank's parts of them."""
        return list(model.parameters())

    def scalar(self, value: Tensor) -> Tensor:
        """A number that was computed from all parameters."""
        return value

    def whole(self, state):
        """Nested dicts and lists with every sharded tensor gathered."""
        return state

    def gathered(self, model: GPT) -> GPT:
        """A model that rank 0 can save or sample from."""
        return model

    def fill(self, model: GPT, state: dict[str, Tensor]) -> None:
        """Load whole tensors into the model, or this rank's part of them."""
        model.load_state_dict(state)

    def split(self, state: dict, optimizer: torch.optim.Optimizer) -> dict:
        """A whole optimizer state as this rank keeps it."""
        return state


class DataParallel(World):
    """A whole model in each rank; gradients are averaged (DDP)."""

    holds = "a copy of the model"

    def __init__(self, rank: int, size: int, local_rank: int):
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._ddp: nn.parallel.DistributedDataParallel | None = None

    def device(self, name: str) -> str:
        kind = _kind(name)
        if kind != "cuda":
            return kind
        count = torch.cuda.device_count()
        if self.local_rank >= count:
            raise ValueError(
                f"process {self.local_rank} has no GPU of its own, there are "
                f"{count}: write --nproc-per-node {count}, or --device cpu"
            )
        return check_device(f"cuda:{self.local_rank}")

    def forward(self, model: GPT, device: str) -> nn.Module:
        if self._ddp is None or self._ddp.module is not model:
            self._ddp = nn.parallel.DistributedDataParallel(
                model,
                device_ids=[device] if device != "cpu" else None,
                gradient_as_bucket_view=True,  # one copy of them, not two
            )
        return self._ddp

    def micro_batch(self, is_last: bool):
        # gradients travel once a step, during its last backward pass
        return contextlib.nullcontext() if is_last else self._ddp.no_sync()

    def mean(self, values: Tensor) -> Tensor:
        total = values.double().cpu()
        dist.all_reduce(total)
        return total / self.size

    def any(self, flag: bool) -> bool:
        votes = torch.tensor(int(flag))
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        return bool(votes)

    def agree(self, value):
        box = [value]
        dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        if self.local_rank > 0:
            self.any(False)  # waits for all
        yield
        if self.local_rank == 0:
            self.any(False)

    def mean_loss(
        self, loss: Callable[[Tensor], float], ids: Tensor, T: int
    ) -> float:
        windows = math.ceil((len(ids) - 1) / T)
        first, end = (
            windows * rank // self.size for rank in (self.rank, self.rank + 1)
        )
        total = torch.zeros((), dtype=torch.float64)
        if first < end:
            mine = ids[first * T : end * T + 1]
            total += loss(mine) * (len(mine) - 1)
        dist.all_reduce(total)
        return total.item() / (len(ids) - 1)


class Sharded(DataParallel):
    """A part of every tensor in each rank (FSDP2), for large models.

    A block's weights are brought together while it computes. Checkpoints
    hold whole tensors, so that any number of ranks can go on with them.
    """

    holds = "a part of the model"

    def check(self, config, precision: str) -> None:
        if config.optimizer != "adamw":
            raise ValueError(
                f"--shard cannot use {config.optimizer}, which needs whole "
                "matrices: write --optimizer adamw"
            )
        if config.optimizer_state != "fp32":
            raise ValueError(
                "--shard keeps its optimizer's state whole: leave "
                "--optimizer-state out, each process has only a part of it"
            )
        if precision == "fp16":
            raise ValueError(
                "--shard cannot use fp16: write --precision fp32, or bf16 on "
                "a card that has it"
            )

    def place(self, model: GPT, device: str) -> GPT:
        from torch.distributed.fsdp import fully_shard

        kind = torch.device(device).type
        mesh = dist.init_device_mesh(kind, (self.size,))
        for part in (*model.h, model):  # the whole never lies on one device
            fully_shard(part, mesh=mesh)
        return model

    def forward(self, model: GPT, device: str) -> nn.Module:
        return model

    def micro_batch(self, is_last: bool):
        return contextlib.nullcontext()

    def mean_loss(
        self, loss: Callable[[Tensor], float], ids: Tensor, T: int
    ) -> float:
        return loss(ids[:])  # the ranks compute together, each needs all

    def local(self, model: GPT) -> list[Tensor]:
        return [p.to_local() for p in model.parameters()]

    def scalar(self, value: Tensor) -> Tensor:
        return value.full_tensor()

    def whole(self, state):
        if isinstance(state, dict):
            return {key: self.whole(value) for key, value in state.items()}
        if isinstance(state, list):
            return [self.whole(value) for value in state]
        gather = getattr(state, "full_tensor", None)
        return gather().cpu() if gather else state

    def gathered(self, model: GPT) -> GPT:
        state = self.whole(model.state_dict())
        if self.rank > 0:
            return model
        with torch.device("meta"):  # no memory twice
            full = GPT(model.config)
        full.load_state_dict(state, assign=True)
        return full

    def fill(self, model: GPT, state: dict[str, Tensor]) -> None:
        like = model.state_dict()
        model.load_state_dict(
            {name: _part(t, like[name]) for name, t in state.items()}
        )

    def split(self, state: dict, optimizer: torch.optim.Optimizer) -> dict:
        params = [p for g in optimizer.param_groups for p in g["params"]]
        parts = {
            number: {
                name: _part(t, params[number]) if t.ndim else t
                for name, t in entry.items()
            }
            for number, entry in state["state"].items()
        }
        return state | {"state": parts}


def _part(whole: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a whole tensor, laid out as `like` is."""
    from torch.distributed.tensor import distribute_tensor

    there = whole.to(like.device)
    return distribute_tensor(there, like.device_mesh, like.placements)


def _kind(name: str) -> str:
    """cpu or cuda; ValueError for a device that several cannot share."""
    kind = best_device() if name == "auto" else name
    if kind == "mps" and name == "auto":
        return "cpu"
    if kind not in ("cpu", "cuda"):
        raise ValueError(
            f"device {name!r} cannot be shared by several processes: write "
            "cuda (each takes the card of its number) or cpu"
        )
    if kind == "cuda" and not torch.cuda.is_available():
        check_device(kind)  # says why
    return kind


@contextlib.contextmanager
def joined(device: str = "auto", shard: bool = False) -> Iterator[World]:
    """The World that torchrun started, or this process alone.

    Within, ranks other than 0 print nothing, and a lost rank becomes a
    TrainingError on all others.
    """
    size = _told("WORLD_SIZE") if "WORLD_SIZE" in os.environ else 1
    if size == 1 and shard:
        raise ValueError(
            "--shard divides a model among processes: start it with torchrun "
            "--nproc-per-node 2 -m minigpt train, or leave --shard out"
        )
    if size == 1:
        yield World()
        return
    local_rank, rank, _ = map(_told, ("LOCAL_RANK", "RANK", "MASTER_PORT"))
    world = (Sharded if shard else DataParallel)(rank, size, local_rank)
    place = torch.device(world.device(device))
    with _connected(place), contextlib.ExitStack() as silence:
        if world.rank > 0:
            nowhere = silence.enter_context(open(os.devnull, "w"))
            silence.enter_context(contextlib.redirect_stdout(nowhere))
            silence.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        yield world


def _told(name: str) -> int:
    """A number that torchrun puts into the environment; else ValueError."""
    value = os.environ.get(name, "")
    if value.isdecimal() and (name != "WORLD_SIZE" or int(value)):
        return int(value)
    raise ValueError(
        f"WORLD_SIZE={os.environ['WORLD_SIZE']} in the environment speaks of "
        f"several processes, but {name} is {value or 'missing'}: start them "
        "with torchrun, or unset WORLD_SIZE"
    )


@contextlib.contextmanager
def _connected(device: torch.device) -> Iterator[None]:
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        if dist.is_nccl_available():
            backend = "cpu:gloo,cuda:nccl"  # flags go by the CPU
    before = signal.signal(signal.SIGTERM, _lost)  # torchrun's to the others
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
        _stores.append(store)
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT
        )
        yield
        dist.destroy_process_group()
        _stores.clear()
        signal.signal(signal.SIGTERM, before)
    except Exception as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one report is enough
        if _is_about_a_rank(error):
            raise TrainingError(LOST) from error
        raise


def _lost(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise TrainingError(LOST)


def _is_about_a_rank(error: Exception) -> bool:
    if isinstance(error, TrainingError) or not isinstance(error, RuntimeError):
        return False
    signs = ("connection", "gloo", "nccl", "timed out", "timeout", "peer")
    known = isinstance(error, dist.DistError)
    return known or any(sign in str(error).lower() for sign in signs)


def speaks() -> bool:
    """Whether this rank is the one to report an error: the first to meet it.

    Before the ranks have met, rank 0 is.
    """
    if not _stores:
        return os.environ.get("RANK", "0") == "0"
    try:
        _stores[0].set_timeout(timedelta(seconds=5))
        return _stores[0].add("told", 1) == 1
    except RuntimeError:  # nobody is left to ask
        return True
