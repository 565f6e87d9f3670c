"""Wrong answers to the exercises of chapter 9, and the hint each must get."""

WRONG = [
    (
        "bytes_per_token",
        "check.bytes_per_token(lambda tok, text: None)",
        "None",
    ),
    (
        "bytes_per_token",
        "check.bytes_per_token(lambda t, s: len(s) / len(t.encode(s)))",
        "you counted characters",
    ),
    (
        "bytes_per_token",
        "check.bytes_per_token("
        "lambda t, s: len(t.encode(s)) / len(s.encode()))",
        "turn the fraction over",
    ),
    (
        "best_pair",
        "from collections import Counter\n"
        "from itertools import pairwise\n"
        "check.best_pair(lambda words: Counter("
        "p for w in words for p in pairwise(w)).most_common(1)[0][0])",
        "counts 9 times",
    ),
    (
        "best_pair",
        "from collections import Counter\n"
        "from itertools import pairwise\n"
        "def first_seen(words):\n"
        "    counts = Counter()\n"
        "    for word, n in words.items():\n"
        "        for pair in pairwise(word):\n"
        "            counts[pair] += n\n"
        "    return counts.most_common(1)[0][0]\n"
        "check.best_pair(first_seen)",
        "smallest pair goes first",
    ),
    (
        "split_digits",
        "import re\ncheck.split_digits(lambda w: re.findall(r'\\d{1,3}', w))",
        "stays whole",
    ),
    (
        "split_digits",
        "import re\n"
        "check.split_digits(lambda w: re.findall("
        "r'\\d{1,3}(?=(?:\\d{3})*$)', w) or [w])",
        "cut from the right",
    ),
    (
        "unused_tokens",
        "check.unused_tokens("
        "lambda t, s: set(range(t.vocab_size)) - set(t.encode(s)))",
        "are bytes",
    ),
    (
        "unused_tokens",
        "check.unused_tokens(lambda t, s: set())",
        "not the empty set",
    ),
]
