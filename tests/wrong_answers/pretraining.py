"""Known wrong answers to the exercises of chapter 12, and their hints."""


def _wrong(name, head, body, hint):
    code = f"from minigpt import check\ndef f({head}):\n{body}\n"
    return name, f"{code}check.{name}(f)\n", hint


def _bytes(expression, hint):
    return _wrong(
        "peak_bytes", "tokens, vocab_size", f"    return {expression}", hint
    )


def _merge(body, hint):
    return _wrong("merge_parts", "parts", body, hint)


def _undo(order, row, column, hint):
    body = f"""    for turn, key in {order}:
        if turn % 2 == 0:
            row = {row}
        else:
            column = {column}
    return row, column"""
    return _wrong("undo_rounds", "row, column, keys, f, a, b", body, hint)


def _dollars(expression, hint):
    head = "tokens, tokens_per_s, cards, efficiency, price"
    return _wrong("dollars", head, f"    return {expression}", hint)


BACK = "reversed(list(enumerate(keys)))"
ROW, COLUMN = "(row - f(column, key)) % a", "(column - f(row, key)) % b"
ONE = "tokens / tokens_per_s"
WRONG = [
    _bytes("2 * tokens", "shards alone"),
    _bytes("8 * tokens", "fit in 16 bits"),
    _bytes("4 * tokens", "does not fit in 16 bits"),
    _bytes(
        "2 * tokens * (2 if vocab_size < 65_536 else 4)",
        "still fit",
    ),
    _merge("    return [p for part in parts for _, p in part]", "together"),
    _merge(
        "    return sorted(pair for part in parts for pair in part)",
        "without their keys",
    ),
    _merge(
        "    pairs = sorted(pair for part in parts for pair in part)\n"
        "    return [piece for _, piece in pairs]",
        "larger than memory",
    ),
    _undo("enumerate(keys)", ROW, COLUMN, "last round must be"),
    _undo("enumerate(reversed(keys))", COLUMN, ROW, "subtract f(column"),
    _undo(BACK, "(row + f(column, key)) % a", COLUMN, "subtract"),
    _undo(BACK, ROW, "column - f(row, key)", "outside the table"),
    _dollars(f"{ONE} / 3600", "an hour costs"),
    _dollars(f"{ONE} * price", "one hour"),
    _dollars(f"{ONE} / cards / 3600 * price", "all four are paid"),
    _dollars(f"{ONE} / 3600 * cards * price", "four times as fast"),
    _dollars(f"{ONE} * efficiency / 3600 * price", "longer, not less"),
]
