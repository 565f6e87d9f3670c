"""Known wrong answers to the exercises of chapter 1, and their hints."""


def _calls(name, *answers):
    """(check, code, hint) for each (code, hint); f is what is checked."""
    return [
        (name, f"from minigpt import check\n{code}\ncheck.{name}(f)\n", hint)
        for code, hint in answers
    ]


WRONG = [
    *_calls(
        "encode_by_hand",
        ("f = ...", "expected a list of four ids"),
        ("f = [2, 3, 0, 5]", "you forgot the space"),
        ("f = [6, 5, 1, 4]", "as they first appear"),
        ("f = [4, 5, 2, 7]", "you counted from 1"),
        ("f = [100, 101, 97, 114]", "these are code points"),
        ("f = [3, 4, 1, 5]", "the id of 'r' is not 5"),
    ),
    *_calls(
        "byte_tokenizer",
        ("f = lambda s: None, lambda i: None", "encode_bytes returned None"),
        (
            "f = lambda s: [ord(c) for c in s], None",
            "is not a byte: ord gives code points",
        ),
        (
            "f = lambda s: list(s.encode()), lambda i: bytes(i).decode()",
            "fails on a character that is cut in two",
        ),
        (
            "f = (lambda s: list(s.encode()),\n"
            "     lambda i: bytes(i).decode(errors='ignore'))",
            'not "ignore"',
        ),
        (
            "f = (lambda s: list(s.encode()),\n"
            "     lambda i: ''.join(map(chr, i)))",
            "decode all bytes together",
        ),
        (
            "f = (lambda s: list(s.encode('utf-8-sig')), None)",
            "the bytes of",
        ),
        ("f = (lambda s: list(s), None)", "must return integers"),
        (
            "f = (lambda s: list(s.encode()), lambda i: None)",
            "decode_bytes returned None",
        ),
    ),
    *_calls(
        "all_windows",
        ("f = lambda ids, t: None", "returned None"),
        (
            "f = lambda ids, t: (ids.unfold(0, t, 1)[:-1],\n"
            "                    ids.unfold(0, t, 1)[:-1])",
            "x and y are the same",
        ),
        (
            "f = lambda ids, t: (ids.unfold(0, t, t)[:2],\n"
            "                    ids[1:].unfold(0, t, t)[:2])",
            "the second window starts 4 after",
        ),
        (
            "f = lambda ids, t: (ids[:-1].unfold(0, t, 1)[:-1],\n"
            "                    ids[1:].unfold(0, t, 1)[:-1])",
            "6 windows of 7",
        ),
        (
            "f = lambda ids, t: (ids.unfold(0, t, 1),\n"
            "                    ids[1:].unfold(0, t, 1))",
            "every window needs a target",
        ),
        (
            "f = lambda ids, t: (ids.unfold(0, t + 1, 1),) * 2",
            "the rows must be 4 long",
        ),
        (
            "f = lambda ids, t: (ids[1:].unfold(0, t, 1),\n"
            "                    ids[:-1].unfold(0, t, 1))",
            "it should be [10, 11, 12, 13]",
        ),
    ),
    *_calls(
        "entropy",
        ("f = lambda counts: None", "returned None"),
        (
            "import math\n"
            "f = lambda c: -sum(n / sum(c) * math.log2(n / sum(c))\n"
            "                   for n in c)",
            "that is bits",
        ),
        (
            "import math\n"
            "f = lambda c: -sum(n / sum(c) * math.log10(n / sum(c))\n"
            "                   for n in c)",
            "that is log10",
        ),
        (
            "import math\n"
            "f = lambda c: sum(n / sum(c) * math.log(n / sum(c)) for n in c)",
            "needs a minus",
        ),
        (
            "import math\nf = lambda c: -sum(n * math.log(n) for n in c)",
            "turn counts into probabilities first",
        ),
        (
            "import math\n"
            "f = lambda c: -sum(n / sum(c) * math.log(n / sum(c)) for n in c)",
            "a count of 0 fails",
        ),
        (
            "import torch\n"
            "def f(c):\n"
            "    p = torch.tensor(c) / sum(c)\n"
            "    return -(p * p.log()).sum()",
            "gives nan",
        ),
        (
            "import math\n"
            "f = lambda c: -sum(math.log(n / sum(c)) for n in c) / len(c)",
            "weight each -ln p by its p",
        ),
    ),
    *_calls(
        "honest_split",
        ("f = lambda n, t, v: None", "returned None"),
        (
            "import random\n"
            "def f(n, t, v):\n"
            "    starts = random.Random(0).sample(range(n - t), n - t)\n"
            "    cut = int((n - t) * v)\n"
            "    return starts[cut:], starts[:cut]",
            "cut the text first",
        ),
        (
            "f = lambda n, t, v: (range(int(n * (1 - v))),\n"
            "                     range(int(n * (1 - v)), n - t))",
            "positions at the border",
        ),
        (
            "f = lambda n, t, v: (range(int(n * (1 - v)) - t),\n"
            "                     range(int(n * (1 - v)), n))",
            "the last window that has all its targets",
        ),
        ("f = lambda n, t, v: (range(n - t), [])", "val_starts is empty"),
    ),
    *_calls(
        "conditional_entropy",
        ("f = lambda ids: None", "returned None"),
        (
            "from collections import Counter\n"
            "from minigpt.text import entropy\n"
            "f = lambda ids: entropy(Counter(zip(ids[:-1].tolist(),\n"
            "                                    ids[1:].tolist())))",
            "subtract that of the first",
        ),
        (
            "from collections import Counter\n"
            "from minigpt.text import entropy\n"
            "f = lambda ids: entropy(Counter(zip(ids[:-1].tolist(),\n"
            "                                    ids[1:].tolist()))) / 2",
            "the average of both letters",
        ),
        (
            "import torch\n"
            "from minigpt.text import entropy\n"
            "f = lambda ids: entropy(torch.bincount(ids))",
            "the letter before is unused",
        ),
        ("f = lambda ids: 0.5", "and got 0.500"),
    ),
    *_calls(
        "one_bit",
        ("f = ...", "expected a grammar"),
        ("f = {'speech': {'ab': 1}}", "0.000 bits per character: too few"),
        (
            "f = {'speech': {'a': 1, 'b': 1}}",
            "fewer than three different characters",
        ),
        (
            "f = {'speech': {'ac': 1, 'ad': 1, 'bc': 1, 'bd': 1}}",
            "all speeches have one length",
        ),
        (
            "f = {'speech': {'a': 2, '{b}': 1, 'cd': 1}, 'b': {'a': 1}}",
            "bits per character: too many",
        ),
        ("f = {'speech': {'{word}': 1}}", "no rule for 'word'"),
        (
            "f = {'speech': {'a': 1, '{b}': 1, 'cd': 2}, 'b': {'a': 1}}",
            "a speech can be written in two ways",
        ),
        (
            # 1 nat for each speech of 1 character
            "import math\n"
            "from minigpt.text import entropy\n"
            "low, high = 0.0, 1.0\n"
            "for _ in range(100):\n"
            "    p = (low + high) / 2\n"
            "    ok = entropy([1, p, p]) < 1\n"
            "    low, high = (p, high) if ok else (low, p)\n"
            "f = {'speech': {'a': 1, 'b': p, 'c': p}}",
            "this is 1 nat",
        ),
    ),
]
