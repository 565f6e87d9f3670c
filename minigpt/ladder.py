"""The loss ladder: one table that grows by a row a chapter.

Every row is trained by the code of its chapter at one and the same small
budget. `python -m minigpt.ladder` repeats all of them and writes
book/runs/ladder.jsonl; the chapters show that record with `show_ladder`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from minigpt.attention import Head, TinyLM
from minigpt.bigram import BigramLM, evaluate, fit
from minigpt.blocks import StudyBlock
from minigpt.model import GPT, GPTConfig, MuonAdamW
from minigpt.multihead import CausalSelfAttention
from minigpt.runs import describe_machine, load_record, write_record
from minigpt.text import (
    CharTokenizer,
    batches,
    load_text,
    train_val_split,
)


@dataclass(frozen=True)
class Budget:
    """What each row may spend: 800 steps of 32 windows of 64 characters."""

    steps: int = 800
    batch_size: int = 32
    context_length: int = 64
    emb_dim: int = 64
    n_heads: int = 4
    lr: float = 1e-2
    seed: int = 0


BUDGET = Budget()
TOLERANCE = 0.02  # nats: how much worse than the last a rung may be


def climb(
    build: Callable[[], nn.Module],
    train_ids: Tensor,
    val_ids: Tensor,
    *,
    optimize: Callable[[nn.Module], tuple] | None = None,
    seed: int = BUDGET.seed,
) -> float:
    """Train what `build()` returns at the budget; its validation loss, nats.

    Plain AdamW at a constant BUDGET.lr, unless `optimize(model)` returns
    another (optimizer, scheduler). The seed decides weights and batches.
    """
    b = BUDGET
    torch.manual_seed(seed)
    model = build()
    optimizer, scheduler = optimize(model) if optimize else (None, None)
    fit(
        model,
        batches(train_ids, b.batch_size, b.context_length, seed),
        b.steps,
        lr=b.lr,
        optimizer=optimizer,
        scheduler=scheduler,
    )
    return evaluate(model, val_ids, b.context_length)


def tiny(
    body: Callable[[], nn.Module], vocab_size: int
) -> Callable[[], TinyLM]:
    """A builder for climb: TinyLM with that body at the budget's size."""
    b = BUDGET
    return lambda: TinyLM(body(), vocab_size, b.context_length, b.emb_dim)


def mini_gpt(vocab_size: int) -> GPT:
    """The ladder's last rung: four blocks of the budget's width."""
    b = BUDGET
    return GPT(
        GPTConfig(
            vocab_size,
            b.context_length,
            b.emb_dim,
            b.n_heads,
            4,
            qkv_bias=False,
            bias=False,
        )
    )


def muon_falling(model: GPT) -> tuple:
    """Chapter 6's optimizer, its learning rates falling linearly to 0."""
    optimizer = MuonAdamW(model, muon_lr=0.04, lr=BUDGET.lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1 - step / BUDGET.steps
    )
    return optimizer, scheduler


def measure(text: str, seed: int = BUDGET.seed) -> Iterator[dict]:
    """The rows of the ladder on a text, from the ground up."""
    b = BUDGET
    tokenizer = CharTokenizer.from_text(text)
    size = tokenizer.vocab_size
    train_ids, val_ids = train_val_split(torch.tensor(tokenizer.encode(text)))
    bodies = {
        (3, "one attention head"): lambda: Head(b.emb_dim, b.emb_dim),
        (4, "many heads"): lambda: CausalSelfAttention(b.emb_dim, b.n_heads),
        (5, "and an MLP"): lambda: StudyBlock(
            b.emb_dim, b.n_heads, residual=False, norm=None
        ),
        (5, "and a residual stream"): lambda: StudyBlock(
            b.emb_dim, b.n_heads, norm=None
        ),
        (5, "and LayerNorm: a block"): lambda: StudyBlock(
            b.emb_dim, b.n_heads
        ),
    }

    def row(chapter: int, name: str, loss: float) -> dict:
        return {
            "kind": "rung",
            "chapter": chapter,
            "name": name,
            "loss": loss,
            "seed": seed,
        }

    yield row(1, "nothing: all characters alike", math.log(size))
    yield row(1, "how often each letter occurs", _letter_loss(
        train_ids, val_ids, size
    ))
    loss = climb(lambda: BigramLM(size), train_ids, val_ids, seed=seed)
    yield row(2, "the last character: bigram", loss)
    for (chapter, name), body in bodies.items():
        loss = climb(tiny(body, size), train_ids, val_ids, seed=seed)
        yield row(chapter, name, loss)
    loss = climb(
        lambda: mini_gpt(size),
        train_ids,
        val_ids,
        optimize=muon_falling,
        seed=seed,
    )
    yield row(6, "four blocks and Muon: a mini GPT", loss)


def _letter_loss(train_ids: Tensor, val_ids: Tensor, size: int) -> float:
    counts = torch.bincount(train_ids, minlength=size) + 1.0
    log_probs = (counts / counts.sum()).log()
    return -log_probs[val_ids].mean().item()


def ladder_rows(through: int) -> list[dict]:
    """The recorded rows of chapters 1 to `through`, in order."""
    rows = load_record("ladder")[1]
    return [row for row in rows if row["chapter"] <= through]


def show_ladder(*, before: int | None = None, through: int | None = None):
    """Display the ladder as a table: up to a chapter, or including it."""
    from IPython.display import Markdown

    if (before is None) == (through is None):
        raise ValueError("say show_ladder(before=3) or show_ladder(through=3)")
    lines = [
        "| chapter | what the model knows or has | validation loss "
        "| as good as guessing among |",
        "|---|---|---:|---:|",
    ]
    for row in ladder_rows(through if through is not None else before - 1):
        mark = "**" if row["chapter"] == through else ""
        lines.append(
            f"| {row['chapter']} | {mark}{row['name']}{mark} "
            f"| {mark}{row['loss']:.2f}{mark} | {math.exp(row['loss']):.1f} |"
        )
    return Markdown("\n".join(lines))


def main() -> None:
    """Measure every rung and write the record."""
    torch.set_num_threads(1)  # one order of sums: the same digits anywhere
    rows = []
    for row in measure(load_text("shakespeare")):
        print(f"{row['chapter']}  {row['loss']:.3f}  {row['name']}")
        rows.append(row)
    header = {"command": "python -m minigpt.ladder", "budget": asdict(BUDGET)}
    print(write_record("ladder", header | describe_machine("cpu"), rows))


if __name__ == "__main__":
    main()
