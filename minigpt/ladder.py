"""The loss ladder: one table that grows by a row a chapter.

Every row is trained by the code of its chapter at one and the same small
budget. `python -m minigpt.ladder` repeats it and writes
book/runs/ladder.jsonl; the chapters show that record with `show_ladder`.
"""

from minigpt.runs import load_record


def ladder_rows(through: int) -> list[dict]:
    """The recorded rows of chapters 1 to `through`, in order."""
    return [row for row in load_record("ladder")[1] if row["chapter"] <= through]


def show_ladder(*, before: int | None = None, through: int | None = None):
    """Display the ladder as a table: up to a chapter, or including it."""
    from IPython.display import Markdown

    if (before is None) == (through is None):
        raise ValueError("say show_ladder(before=3) or show_ladder(through=3)")
    last = through if through is not None else before - 1
    lines = [
        "| chapter | what the model has | validation loss | guesses among |",
        "|---|---|---|---|",
    ]
    for row in ladder_rows(last):
        new = row["chapter"] == through
        name = f"**{row['name']}**" if new else row["name"]
        loss = f"**{row['loss']:.2f}**" if new else f"{row['loss']:.2f}"
        lines.append(
            f"| {row['chapter']} | {name} | {loss} | {row['perplexity']:.1f} |"
        )
    return Markdown("\n".join(lines))
