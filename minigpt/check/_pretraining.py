"""Checks of chapter 12, pretraining."""

from collections.abc import Iterable

from ._base import exercise, expect


@exercise
def peak_bytes(answer):
    """two copies of every token for a while, 2 or 4 bytes each."""
    got = answer(1000, 50_257)
    expect(got is not None, "returned None: return a number of bytes")
    expect(
        got != 2000,
        "that is the shards alone: at the peak the parts are there, too",
    )
    expect(got != 1000, "a token takes more than one byte")
    expect(got != 8000, "50,257 tokens fit in 16 bits: 2 bytes, not 4")
    expect(got == 4000, f"1,000 tokens of GPT-2 need 4,000 bytes, not {got}")
    expect(
        answer(1000, 65_536) == 4000,
        "a vocabulary of 65,536 has the ids 0 to 65,535, which still fit in "
        "16 bits",
    )
    expect(
        answer(1000, 65_537) == 8000,
        "the id 65,536 does not fit in 16 bits: 4 bytes a token",
    )


class _Parts:
    """Parts whose items are counted when they are taken."""

    def __init__(self, parts):
        self.taken = 0
        self.parts = [self._watch(part) for part in parts]

    def _watch(self, part):
        for item in part:
            self.taken += 1
            yield item


@exercise
def merge_parts(answer):
    """the smallest key first, one look at each part at a time."""
    parts = [[(3, "c"), (9, "i")], [(1, "a"), (4, "d")], [], [(2, "z")]]
    got = answer(parts)
    expect(got is not None, "returned None: yield or return the pieces")
    expect(isinstance(got, Iterable), f"returned {got!r}: return pieces")
    got = list(got)
    expect(
        got != [(1, "a"), (2, "z"), (3, "c"), (4, "d"), (9, "i")],
        "the order is right; yield the pieces without their keys",
    )
    expect(
        got != ["c", "i", "a", "d", "z"],
        "each part is in order, all of them together are not: compare the "
        "first of each",
    )
    expect(
        got == ["a", "z", "c", "d", "i"],
        f"expected a z c d i, the order of the keys, and got {got}",
    )
    watched = _Parts([[(n, n) for n in range(k, 900, 3)] for k in range(3)])
    next(iter(answer(watched.parts)))
    expect(
        watched.taken < 20,
        f"{watched.taken} pieces were read before the first came out: parts "
        "may be larger than memory, so look at one of each at a time",
    )


@exercise
def undo_rounds(answer):
    """last round first, and each rotation taken back."""
    a, b, keys = 5, 7, [11, 4, 9, 2, 6]

    def f(where, key):
        return (where * where * 3 + key * 5 + 1) % 97

    def forward(row, column, keys):
        for turn, key in enumerate(keys):
            if turn % 2 == 0:
                row = (row + f(column, key)) % a
            else:
                column = (column + f(row, key)) % b
        return row, column

    got = answer(*forward(2, 3, keys[:1]), keys[:1], f, a, b)
    expect(
        isinstance(got, tuple) and len(got) == 2,
        f"returned {got!r}: return a row and a column",
    )
    expect(
        got == (2, 3),
        f"after one round, (2, 3) became {forward(2, 3, keys[:1])}; you "
        f"find {tuple(got)}: subtract f(column, key) from the row",
    )
    cells = [(row, column) for row in range(a) for column in range(b)]
    for row, column in cells:
        found = answer(*forward(row, column, keys), keys, f, a, b)
        expect(
            0 <= found[0] < a and 0 <= found[1] < b,
            f"{found} is outside the table: take the remainder after each "
            "subtraction",
        )
        expect(
            tuple(found) == (row, column),
            "one round is undone, five are not: the last round must be "
            "undone first, and whether it turned a row or a column depends "
            "on its place in keys",
        )


@exercise
def dollars(answer):
    """seconds shared by the cards, hours paid for each of them."""
    got = answer(7_200_000, 1000, 1, 1.0, 3.0)
    expect(got is not None, "returned None: return dollars")

    def near(value):
        return abs(got - value) < 1e-6

    expect(not near(2.0), "those are the hours: an hour costs something")
    expect(not near(21600.0), "3,600 seconds are one hour")
    expect(near(6.0), f"2 hours at 3 dollars are 6, not {got}")
    got = answer(7_200_000, 1000, 4, 1.0, 3.0)
    expect(
        not near(1.5),
        "four cards take a quarter of the time, and all four are paid for",
    )
    expect(
        not near(24.0),
        "tokens_per_s is of one card: four cards are four times as fast",
    )
    expect(near(6.0), f"four perfect cards cost what one does, not {got}")
    got = answer(7_200_000, 1000, 4, 0.5, 3.0)
    expect(
        not near(3.0),
        "cards that work at half their speed need longer, not less time",
    )
    expect(near(12.0), f"at an efficiency of 0.5 it is 12 dollars, not {got}")
