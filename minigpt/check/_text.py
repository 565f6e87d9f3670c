"""Checks of chapter 1, text as numbers."""

import math
import random
from collections import Counter

import torch

from minigpt import text as lib

from ._base import Hint, exercise, expect


@exercise
def encode_by_hand(answer):
    """d, e, a, r by their places in the sorted vocabulary."""
    expect(
        isinstance(answer, (list, tuple)) and len(answer) == 4,
        f"expected a list of four ids, one a letter, and got {answer!r}",
    )
    text, word, answer = "banana bread", "dear", list(answer)
    right = lib.CharTokenizer.from_text(text).encode(word)
    if answer == right:
        return
    by_arrival = list(dict.fromkeys(text))
    letters = sorted(set(text) - {" "})
    mistakes = {
        "you numbered the characters as they first appear: sort them": [
            by_arrival.index(c) for c in word
        ],
        "you forgot the space: it is a character, and sorts before a": [
            letters.index(c) for c in word
        ],
        "you counted from 1: ids count from 0": [n + 1 for n in right],
        "these are code points: number only the 7 characters that occur": [
            ord(c) for c in word
        ],
    }
    for hint, wrong in mistakes.items():
        expect(answer != wrong, hint)
    at = next(i for i in range(4) if answer[i] != right[i])
    raise Hint(
        f"the id of {word[at]!r} is not {answer[at]}: write down the 7 "
        "distinct characters in sorted order and count from 0"
    )


@exercise
def byte_tokenizer(answer):
    """every text comes back, and broken bytes do not break it."""
    encode, decode = answer
    ids = encode("né🙂\n")
    expect(ids is not None, "encode_bytes returned None: return a list of ids")
    expect(
        all(isinstance(i, int) for i in ids),
        "encode_bytes must return integers: list(some_bytes) gives them",
    )
    expect(
        max(ids) < 256,
        f"id {max(ids)} is not a byte: ord gives code points, use "
        'text.encode("utf-8")',
    )
    want = list("né🙂\n".encode())
    expect(
        list(ids) == want,
        f"the bytes of 'né🙂\\n' in UTF-8 are {want}, yours are {list(ids)}",
    )
    back = decode(want)
    expect(back is not None, "decode_bytes returned None: return the text")
    expect(
        back == "né🙂\n",
        f"decode_bytes made {back!r} of 'né🙂\\n': decode all bytes "
        "together, since one character may have several",
    )
    try:
        cut = decode(want[:4])
    except UnicodeDecodeError:
        raise Hint(
            "decode_bytes fails on a character that is cut in two: "
            'decode with errors="replace"'
        ) from None
    expect(
        cut == "né\ufffd",
        f"a cut character became {cut[2:]!r} instead of '\\ufffd': "
        'decode with errors="replace", not "ignore"',
    )


@exercise
def all_windows(answer):
    """every window once, and its targets one step later."""
    ids, length = torch.arange(10, 21), 4
    result = answer(ids, length)
    expect(result is not None, "returned None: return x, y")
    x, y = (torch.as_tensor(part) for part in result)
    expect(
        x.shape == y.shape,
        f"x {tuple(x.shape)} and y {tuple(y.shape)} differ: every window "
        "needs a target at each position, also the last",
    )
    expect(
        x.dim() == 2 and x.shape[1] == length,
        f"x has shape {tuple(x.shape)}: the rows must be {length} long",
    )
    expect(
        not torch.equal(x, y),
        "x and y are the same: y is the window one position later, or the "
        "model would only copy",
    )
    expect(
        len(x) < 2 or int(x[1, 0] - x[0, 0]) == 1,
        f"the second window starts {int(x[1, 0] - x[0, 0])} after the "
        "first: windows overlap, each starts 1 later",
    )
    rows = len(ids) - length
    expect(
        len(x) >= rows,
        f"{len(x)} windows of {rows}: the last one starts at N - T - 1 and "
        "has the last token as its last target",
    )
    expect(len(x) == rows, f"{len(x)} windows, but only {rows} have targets")
    want = ids.unfold(0, length + 1, 1)
    expect(
        torch.equal(x, want[:, :-1]) and torch.equal(y, want[:, 1:]),
        f"the first window is {x[0].tolist()} -> {y[0].tolist()}, it should "
        f"be {want[0, :-1].tolist()} -> {want[0, 1:].tolist()}",
    )


@exercise
def entropy(answer):
    """right for even, bent and certain, in nats."""
    value = answer([1, 1])
    expect(value is not None, "returned None: return the entropy")
    value = float(value)
    close = math.isclose
    expect(value >= 0, "negative: the sum of p ln p needs a minus in front")
    expect(
        not close(value, 1.0),
        "a fair coin gave 1: that is bits, use math.log and not log2",
    )
    expect(
        not close(value, math.log10(2), rel_tol=1e-6),
        "a fair coin gave 0.301: that is log10, nats need math.log",
    )
    expect(
        value != 0,
        "a fair coin gave 0: turn counts into probabilities first, since "
        "ln 1 is 0",
    )
    expect(
        close(value, math.log(2), rel_tol=1e-5),
        f"a fair coin gave {value:.3f}, it has ln 2 = 0.693 nats",
    )
    value = float(answer([9, 1]))
    right = lib.entropy([9, 1])
    expect(
        close(value, right, rel_tol=1e-5),
        f"counts [9, 1] gave {value:.3f}, not {right:.3f}: divide by the "
        "total, and weight each -ln p by its p",
    )
    try:
        value = float(answer([3, 0, 1]))
    except ValueError:
        raise Hint(
            "a count of 0 fails, since ln 0 does not exist: leave out the "
            "zeros, what never happens adds nothing"
        ) from None
    expect(
        not math.isnan(value),
        "a count of 0 gives nan (0 times infinity): leave out the zeros",
    )
    expect(
        close(value, lib.entropy([3, 1]), rel_tol=1e-5),
        "a count of 0 changes the result: leave out the zeros",
    )


@exercise
def honest_split(answer):
    """no position is in a window of both kinds."""
    num_tokens, length, fraction = 1000, 16, 0.1
    result = answer(num_tokens, length, fraction)
    expect(result is not None, "returned None: return train_starts, val_starts")
    train, val = ([int(start) for start in part] for part in result)
    expect(train, "no training windows: train_starts is empty")
    expect(val, "no validation windows: val_starts is empty")
    last = num_tokens - length - 1
    for name, starts in (("train", train), ("val", val)):
        expect(
            0 <= min(starts) and max(starts) <= last,
            f"{name}_starts has {max(starts)}, but the last window that "
            f"has all its targets starts at {last}",
        )

    def covered(starts):
        return {at for s in starts for at in range(s, s + length + 1)}

    shared = covered(train) & covered(val)
    share = len(shared) / len(covered(val))
    expect(
        share < 0.5,
        f"{share:.0%} of the validation positions are in training windows "
        "too: windows overlap, so cut the text first and the windows then",
    )
    expect(
        not shared,
        f"{len(shared)} positions at the border are in both: the last "
        "training window, with its last target, must end before the cut",
    )
    part = len(covered(val)) / num_tokens
    expect(
        0.5 * fraction <= part <= 1.5 * fraction,
        f"{part:.0%} of the text is for validation, {fraction:.0%} was asked",
    )
    expect(
        len(covered(train)) > 0.8 * num_tokens,
        "much of the text is in no window: start one at every position",
    )


@exercise
def conditional_entropy(answer):
    """what is left to wonder about when one letter back is known."""
    ids = lib.ToyLanguage().sample(5000)
    ids = torch.tensor(lib.CharTokenizer.from_text(ids).encode(ids))
    value = answer(ids)
    expect(value is not None, "returned None: return the entropy in nats")
    value = float(value)
    listed = ids.tolist()
    pairs = lib.entropy(Counter(zip(listed, listed[1:])))
    first = lib.entropy(Counter(listed[:-1]))
    right = pairs - first

    def near(other):
        return math.isclose(value, other, rel_tol=0.01)

    if near(right):
        return
    expect(
        not near(pairs),
        "this is the entropy of the pairs, the surprise of two letters: "
        "subtract that of the first",
    )
    expect(
        not near(pairs / 2),
        "half of the entropy of the pairs is the average of both letters; "
        "the first is not known to anybody: subtract its entropy instead",
    )
    expect(not near(right / math.log(2)), "this is in bits: nats were asked")
    expect(
        not near(first),
        "this is the entropy of single letters: the letter before is unused",
    )
    expect(value >= 0, "negative: it is pairs less first, not the reverse")
    raise Hint(
        f"expected {right:.3f} nats on a test text and got {value:.3f}: "
        "count the pairs (ids[:-1], ids[1:]) and subtract entropies"
    )


@exercise
def one_bit(answer):
    """one fair coin toss a character, exactly."""
    expect(
        isinstance(answer, dict),
        f'expected a grammar, {{"speech": {{template: weight}}}}, and got '
        f"{answer!r}",
    )
    language = lib.ToyLanguage(answer)
    value = language.entropy_per_char
    expect(
        not math.isclose(value, 1.0),
        "this is 1 nat per character: 1 bit is ln 2 = 0.693 nats",
    )
    expect(
        math.isclose(value, math.log(2), rel_tol=1e-9),
        f"{value / math.log(2):.3f} bits per character: "
        + ("too many" if value > math.log(2) else "too few"),
    )
    rng = random.Random(0)
    speeches = [language.expand("speech", rng) for _ in range(1000)]
    expect(
        len(set("".join(speeches))) >= 3,
        "fewer than three different characters occur",
    )
    expect(
        len({len(speech) for speech in speeches}) > 1,
        "all speeches have one length: let some be longer",
    )
    paid = -language.log_prob("".join(speeches)) / len("".join(speeches))
    expect(
        abs(paid - value) < 0.1 * value,
        "a speech can be written in two ways, so its two probabilities add "
        f"up and a reader pays only {paid / math.log(2):.2f} bits",
    )
