"""Checks of chapter 9, byte-pair encoding."""

from minigpt.tokenizer import BPETokenizer

from ._base import exercise, expect

THE = BPETokenizer([(ord("t"), ord("h")), (256, ord("e"))])


@exercise
def bytes_per_token(answer):
    """Bytes, so that all scripts are measured alike."""
    for text in ("the theme", "the café, the thé", "猫 the the"):
        got = answer(THE, text)
        expect(got is not None, "returned None: return a number")
        ids, size = THE.encode(text), len(text.encode("utf-8"))
        expect(
            got != len(ids) / size,
            "that is tokens a byte: turn the fraction over",
        )
        expect(
            size == len(text) or got != len(text) / len(ids),
            f"for {text!r} you counted characters: text.encode('utf-8') "
            "has the bytes",
        )
        expect(
            abs(got - size / len(ids)) < 1e-9,
            f"for {text!r} it is {size} bytes / {len(ids)} tokens, and you "
            f"gave {got}",
        )


@exercise
def best_pair(answer):
    """The most frequent pair, and a rule for ties."""
    cases = [
        ({(1, 2, 3): 1, (2, 3): 1}, (2, 3), "the pair (2, 3) occurs twice"),
        (
            {(5, 6): 1, (5, 6, 7): 1, (1, 2, 8): 9},
            (1, 2),
            "a word that occurs 9 times counts 9 times",
        ),
        (
            {(9, 8): 2, (3, 7): 2, (3, 5): 2},
            (3, 5),
            "among equals the smallest pair goes first, whatever the order "
            "of the dictionary",
        ),
        (
            {(4, 4, 4): 1, (1, 2): 1},
            (4, 4),
            "in (4, 4, 4) the pair (4, 4) is seen twice",
        ),
    ]
    for words, right, why in cases:
        got = answer(dict(words))
        expect(got is not None, "returned None: return a pair")
        expect(
            not isinstance(got, int),
            "return the pair, not how often it occurs",
        )
        expect(tuple(got) == right, f"for {words} not {got}: {why}")


@exercise
def split_digits(answer):
    """Up to three digits, from the left; other words stay whole."""
    cases = {
        "1234567": ["123", "456", "7"],
        "12": ["12"],
        "123": ["123"],
        "ducats": ["ducats"],
    }
    for word, right in cases.items():
        got = answer(word)
        expect(got is not None, "returned None: return a list of strings")
        expect(
            not isinstance(got, str),
            "return a list, also for a single piece",
        )
        got = list(got)
        expect(
            got != ["1", "234", "567"],
            "you cut from the right; GPT-4's pattern matches from the left",
        )
        expect(
            not (word == "ducats" and got != right),
            f"a word without digits stays whole: {right}, not {got}",
        )
        expect(got == right, f"for {word!r} it is {right}, not {got}")


@exercise
def unused_tokens(answer):
    """Some tokens are only steps on the way to longer ones."""
    for text, right in (("the the", {256}), ("th the", set())):
        got = answer(THE, text)
        expect(got is not None, "returned None: return a set of ids")
        got = set(got)
        expect(
            not any(i < 256 for i in got),
            "the ids below 256 are bytes: count from 256 on",
        )
        expect(
            not got or got <= set(range(THE.vocab_size)),
            f"the vocabulary ends at {THE.vocab_size - 1}",
        )
        expect(
            got == right,
            f"for {text!r} it is {right or 'the empty set'}, not "
            f"{got or 'the empty set'}: encode the text and see which ids "
            "are missing",
        )
