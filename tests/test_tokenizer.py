"""The tokenizers: tiktoken's ids, any bytes, ties, streams, damaged files."""

import json
import random
import tracemalloc
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt import tokenizer as module
from minigpt.runfolder import TrainingError
from minigpt.text import CharTokenizer, is_shakespeare, load_text
from minigpt.tokenizer import (
    END_OF_TEXT,
    BPETokenizer,
    TokenizerError,
    apply_merges,
    count_words,
    gpt2_tokenizer,
    learn_merges,
    load_tokenizer,
    merge_pair,
    split_words,
)

TEXT = (
    "It was the best of times, it was the worst of times,\n"
    "it's 1859 -- we'll see: naïve, 猫猫猫, 🙂🙂!\n\n\n   the end  \n"
) * 30
SMALL = BPETokenizer.train(TEXT, 300, [END_OF_TEXT, "<|x|>"])


@pytest.fixture(scope="module")
def gpt2():
    """tiktoken's and ours, or a skip that says what is missing."""
    try:
        return gpt2_tokenizer(), BPETokenizer.from_gpt2()
    except TokenizerError as error:
        pytest.skip(str(error))


# --- the ids of GPT-2 -----------------------------------------------------


SAMPLES = {
    "code": Path(json.__file__).read_text(encoding="utf-8"),
    "German": "Die Übergröße war „schön“, süß & 12,50 € teuer. " * 3,
    "Chinese": "道可道，非常道。名可名，非常名。１２３ 一二三\u3000四",
    "emoji": "👩‍👩‍👧‍👦🇨🇭 👍🏽 ☕️ \u200d\ufe0f 🙂🙃🙂",
    "spaces": " a  b\t\tc \n \n\n  d\r\n\u00a0\u2003e \x1c\x1f\x85 f   ",
    "endings": "I'll it's we've I'd I'm they're don't 'S 'LL ''s",
    "numbers": "1 12 123 1234567890 3.14 ½ ² Ⅷ ٣٤",
    "special": f"a{END_OF_TEXT}b <|endoftext",
    "surrogates": "a\ud800b \ud83d\ude42 \udc00",
    "nothing": "",
    "long": "ab" * 3000 + " " * 500 + "x",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_ids_are_those_of_tiktoken(gpt2, name):
    tiktoken, ours = gpt2
    assert ours.encode(SAMPLES[name]) == tiktoken.encode(SAMPLES[name])


def test_ids_of_shakespeare_are_those_of_tiktoken(gpt2):
    text = load_text("shakespeare")
    tiktoken, ours = gpt2
    assert ours.encode(text) == tiktoken.encode(text)
    if is_shakespeare(text):
        assert len(ours.encode(text)) == 338_025


@settings(max_examples=10_000, deadline=None)
@given(text=st.text(max_size=40))
def test_ids_of_any_text_are_those_of_tiktoken(gpt2, text):
    tiktoken, ours = gpt2
    ids = ours.encode(text)
    assert ids == tiktoken.encode(text)
    assert ours.decode(ids) == tiktoken.decode(ids) == text


def test_the_end_of_text_is_50256(gpt2):
    for tokenizer in gpt2:
        assert tokenizer.vocab_size == 50257
        assert tokenizer.encode(END_OF_TEXT, "all") == [50256]
        assert tokenizer.encode(END_OF_TEXT, {END_OF_TEXT}) == [50256]
        assert len(tokenizer.encode(END_OF_TEXT)) == 7
        assert tokenizer.decode([50256]) == END_OF_TEXT
        with pytest.raises(ValueError, match="'<|pad|>' is not a special"):
            tokenizer.encode("a", "<|pad|>")


def test_without_files_and_network_one_sentence_says_what_to_do(
    monkeypatch, tmp_path
):
    import tiktoken
    from tiktoken import load

    def offline(path):
        raise ConnectionError("no route to host")

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(load, "read_file", offline)
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    for make in (BPETokenizer.from_gpt2, module.GPT2Tokenizer):
        with pytest.raises(TokenizerError, match="TIKTOKEN_CACHE_DIR") as e:
            make()
        for word in ("go online once", "vocab.bpe as 6d1c", "6c7ea1a7"):
            assert word in str(e.value)


# --- training -------------------------------------------------------------


def learn_slowly(words, num_merges):
    spelled = {word: list(word.encode()) for word in words}
    merges = []
    while len(merges) < num_merges:
        counts = Counter()
        for word, ids in spelled.items():
            for pair in pairwise(ids):
                counts[pair] += words[word]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        for word, ids in spelled.items():
            spelled[word] = merge_pair(ids, best, 256 + len(merges))
        merges.append(best)
    return merges


@given(
    words=st.dictionaries(
        st.text("abc", min_size=1, max_size=9), st.integers(1, 5), max_size=9
    ),
    num_merges=st.integers(0, 30),
)
def test_quick_training_is_slow_training(words, num_merges):
    assert learn_merges(words, num_merges) == learn_slowly(words, num_merges)


def test_ties_go_to_the_smaller_ids_whatever_the_order():
    words = {"zy": 2, "ab": 2, "ba": 2, "cd": 1}
    expected = [tuple(b"ab"), tuple(b"ba"), tuple(b"zy"), tuple(b"cd")]
    for seed in range(5):
        items = list(words.items())
        random.Random(seed).shuffle(items)
        assert learn_merges(dict(items), 9) == expected


def test_the_number_of_processes_changes_nothing():
    documents = [TEXT, "another text, " * 9, ""] * 3
    assert count_words(documents, processes=2) == count_words(documents)
    one = BPETokenizer.train(TEXT, 280)
    assert BPETokenizer.train([TEXT], 280, processes=2).merges == one.merges


def test_no_process_counts_no_words():
    with pytest.raises(ValueError, match="processes is 0: write 1 or more"):
        count_words(TEXT, processes=0)


def test_words_do_not_reach_across_documents():
    assert "ab" not in count_words(["xa", "by"])
    assert count_words("xa by")["xa"] == 1


@given(text=st.text(" \n\tab'1é", max_size=60), size=st.integers(1, 7))
def test_cutting_a_text_does_not_cut_a_word(text, size):
    pieces = list(module._pieces(module._slices(text, size), size))
    assert "".join(pieces) == text
    words = [word for piece in pieces for word in split_words(piece)]
    assert words == split_words(text)


@pytest.mark.parametrize(
    ("size", "special", "message"),
    [
        (255, [], "vocab_size is 255: write 256 or more"),
        (256, ["<|x|>"], "write 257 or more, for 256 bytes and 1 special"),
        (99_999, [], "write [0-9]+ or less, or give more text"),
        (300, ["a b"], "'a b': write a name without spaces"),
        (300, [""], "without spaces"),
        (300, [7], "special token 7: write a name"),
        (300, ["<a>", "<a>"], "there twice"),
        ("300", [], "vocab_size is '300': write a whole number"),
        (300.0, [], "write a whole number"),
    ],
)
def test_a_vocabulary_that_cannot_be_is_refused(size, special, message):
    with pytest.raises(ValueError, match=message):
        BPETokenizer.train(TEXT, size, special)


def test_the_largest_vocabulary_of_a_text_can_be_had():
    tokenizer = BPETokenizer.train("abab", 258)
    assert tokenizer.encode("abab") == [257]
    with pytest.raises(ValueError, match="write 258 or less"):
        BPETokenizer.train("abab", 259)
    assert BPETokenizer.train("", 256).encode("hi") == list(b"hi")


# --- there and back -------------------------------------------------------


@given(text=st.text(max_size=60))
def test_every_text_comes_back(text):
    assert SMALL.decode(SMALL.encode(text)) == text


@given(ids=st.lists(st.integers(-(2**70), 2**70) | st.integers(-9, 400)))
def test_every_list_of_ids_is_a_text(ids):
    assert isinstance(SMALL.decode(ids), str)
    assert isinstance(SMALL.decode_bytes(ids), bytes)


def test_gpt2_decodes_any_ids_too(gpt2):
    for tokenizer in gpt2:
        assert tokenizer.decode([464, -1, 50257, 2**80, 3290]) == "The��� dog"
        assert tokenizer.decode(torch.tensor([464, 3290])) == "The dog"
        assert tokenizer.decode_bytes([8582]) == b" \xf0\x9f"[1:]


def test_a_missing_id_is_marked_in_its_place():
    assert SMALL.decode([ord("a"), 9999, ord("b")]) == "a�b"
    assert SMALL.decode([ord("a"), 0xC3, ord("b")]) == "a�b"


@given(
    ids=st.lists(st.integers(0, 3), max_size=40),
    pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6))),
)
def test_merges_are_applied_in_their_order(ids, pairs):
    ranks = {}
    for pair in dict.fromkeys(pairs):
        if max(pair) < 4 + len(ranks):
            ranks[pair] = 4 + len(ranks)
    slow = ids
    while known := [pair for pair in pairwise(slow) if pair in ranks]:
        first = min(known, key=ranks.get)
        slow = merge_pair(slow, first, ranks[first])
    assert apply_merges(ids, ranks) == slow


def test_special_tokens_are_text_unless_allowed():
    text = f"one{END_OF_TEXT}two <|x|>"
    end, x = SMALL.vocab_size - 2, SMALL.vocab_size - 1
    assert not {end, x} & set(SMALL.encode(text))
    assert SMALL.encode(text, "all").count(end) == 1
    assert SMALL.encode(text, [END_OF_TEXT]).count(x) == 0
    assert SMALL.encode(text, "<|x|>")[-1] == x
    for allowed in ((), "all", ["<|x|>"]):
        assert SMALL.decode(SMALL.encode(text, allowed)) == text


def test_a_text_begins_after_an_end_of_text_or_a_newline(gpt2):
    assert [tokenizer.start_id for tokenizer in gpt2] == [50256, 50256]
    assert SMALL.start_id == SMALL.vocab_size - 2
    assert BPETokenizer([]).start_id == ord("\n")


def test_the_longest_special_token_wins():
    tokenizer = BPETokenizer([], ["<a>", "<a><b>"])
    assert tokenizer.encode("<a><b><a>", "all") == [257, 256]


# --- streams --------------------------------------------------------------


@given(
    parts=st.lists(
        st.text(" \nab", max_size=9)
        | st.sampled_from([END_OF_TEXT, "<|endof", "text|>", "<|x|>"])
    ),
    allowed=st.sampled_from([(), "all"]),
)
def test_a_stream_has_the_ids_of_the_whole(parts, allowed):
    whole = SMALL.encode("".join(parts), allowed)
    pieces = module._pieces(parts, size=4)
    assert [i for p in pieces for i in SMALL.encode(p, allowed)] == whole
    assert list(SMALL.encode_iterable(parts, allowed)) == whole


@pytest.mark.parametrize("part", ["a\n", "x"])
def test_a_stream_of_small_parts_is_joined_seldom(part, monkeypatch):
    sizes, last_cut = [], module._last_cut

    def counted(text):
        sizes.append(len(text))
        return last_cut(text)

    monkeypatch.setattr(module, "_last_cut", counted)
    pieces = list(module._pieces([part] * 50_000, size=100))
    assert "".join(pieces) == part * 50_000
    assert sum(sizes) < 4 * 50_000 * len(part)


def test_a_stream_takes_little_memory():
    line = TEXT[:100] * 10 + "\n"

    def peak(lines):
        tracemalloc.start()
        count = sum(1 for _ in SMALL.encode_iterable(line for _ in lines))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return count, most

    few, little = peak(range(200))
    many, most = peak(range(2000))  # 2 MB of text
    assert many > 9 * few
    assert most < little + 2**20


def test_the_memory_of_words_is_emptied_when_full(monkeypatch):
    monkeypatch.setattr(module._Words, "LIMIT", 3)
    tokenizer = BPETokenizer(SMALL.merges)
    assert tokenizer.encode(TEXT) == SMALL.encode(TEXT)
    assert 0 < len(tokenizer._words) <= 3
    for word in ("a", "b", "c", "d"):
        tokenizer.encode(word)
        assert len(tokenizer._words) <= 3


# --- files ----------------------------------------------------------------


def test_every_kind_comes_back_from_its_file(tmp_path, gpt2):
    for tokenizer in (CharTokenizer("abc é"), SMALL, *gpt2):
        path = tmp_path / "tokenizer.json"
        tokenizer.save(path)
        for again in (load_tokenizer(path), type(tokenizer).load(path)):
            assert type(again) is type(tokenizer)
            assert again.vocab_size == tokenizer.vocab_size
            assert again.encode("abc é") == tokenizer.encode("abc é")


def test_special_tokens_come_back_from_the_file(tmp_path):
    SMALL.save(tmp_path / "t.json")
    again = BPETokenizer.load(tmp_path / "t.json")
    assert again.special_tokens == SMALL.special_tokens
    assert again.encode(f"a{END_OF_TEXT}", "all")[-1] == SMALL.vocab_size - 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s[:-9], "it cannot be read"),
        (lambda s: "[]", "it cannot be read"),
        (lambda s: "[" * 100_000, "it cannot be read"),
        (lambda s: s.replace('"bpe"', '"word"'), "of type 'word'"),
        (lambda s: s.replace('"merges"', '"m"'), "merges is no list"),
        (lambda s: s.replace('"special', '"x'), "special_tokens is no list"),
        (lambda s: s.replace('"byte_', '"x'), "byte_order is no list"),
        (lambda s: '{"type": "bpe", "merges": {}}', "merges is no list"),
        (lambda s: s.replace("[[", "[[true, 1], ["), "joins True and 1"),
        (lambda s: s.replace("[[", "[[1, 2.0], ["), "joins 1 and 2.0: write"),
        (lambda s: s.replace("<|x|>", r"\ud800"), "has half a character"),
        (lambda s: s.replace("[[", "[[99999, 1], ["), "merge 0 joins 99999"),
        (lambda s: s.replace("[[", "[[1], ["), "is damaged"),
        (lambda s: s.replace("254, 255", "254, 254"), "each byte exactly"),
        (lambda s: s.replace("254, 255", "254, 256"), "is damaged"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change, message):
    path = tmp_path / "tokenizer.json"
    SMALL.save(path)
    path.write_text(change(path.read_text()))
    with pytest.raises(TokenizerError, match=message):
        BPETokenizer.load(path)


def test_a_tokenizer_that_cannot_be_meant_is_refused():
    doubling = [(97, 97)] + [(256 + n, 256 + n) for n in range(60)]
    for arguments, message in (
        (([(97, 97), (97, 97)],), "a merge is there twice"),
        ((doubling[:21],), "longer than a megabyte"),
        ((torch.tensor([[97, 98]]),), "write two whole numbers"),
        (([], ["\ud800"]), "has half a character: write it whole"),
        (([], "<a>"), "is one string: give a list"),
    ):
        with pytest.raises(TokenizerError, match=message):
            BPETokenizer(*arguments)
    with pytest.raises(ValueError, match="5 is not a special token"):
        SMALL.encode("a", ["<|y|>", 5])
    for text in (None, b"bytes", 7):
        with pytest.raises(TypeError, match="give a str"):
            SMALL.encode(text)


def test_a_token_may_have_a_megabyte():
    doubling = [(97, 97)] + [(256 + n, 256 + n) for n in range(19)]
    assert BPETokenizer(doubling).decode([275]) == "a" * 2**20


def test_a_batch_of_one_can_be_decoded():
    ids = SMALL.encode("the end")
    assert SMALL.decode(torch.tensor([ids])) == "the end"
    assert SMALL.decode(torch.tensor(ord("a"))) == "a"


def test_a_merge_joins_what_exists_before_it():
    assert BPETokenizer([(255, 0)]).vocab_size == 257
    for pair in ((256, 0), (0, 256), (-1, 0)):
        with pytest.raises(TokenizerError, match="only 256 tokens exist"):
            BPETokenizer([pair])


@pytest.mark.parametrize("place", [".", "", "none/tokenizer.json"])
def test_a_place_that_cannot_be_written(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError, match="cannot write"):
        SMALL.save(place)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_there_or_of_another_kind(tmp_path):
    with pytest.raises(TokenizerError, match="there is no such file"):
        load_tokenizer(tmp_path / "none.json")
    CharTokenizer("ab").save(tmp_path / "char.json")
    with pytest.raises(TokenizerError, match="type 'char'"):
        BPETokenizer.load(tmp_path / "char.json")
    with pytest.raises(TokenizerError, match="no tokenizer of type gpt2"):
        module.GPT2Tokenizer.load(tmp_path / "char.json")


def test_a_class_of_ones_own_loads_itself(tmp_path):
    class Mine(BPETokenizer):
        pass

    SMALL.save(tmp_path / "t.json")
    assert type(Mine.load(tmp_path / "t.json")) is Mine
