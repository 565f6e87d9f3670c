"""Chapter 1's module: what a notebook cannot show."""

import hashlib
import http.server
import json
import math
import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pooch
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minigpt import text as lib
from minigpt.text import (
    SOURCES,
    CharTokenizer,
    Source,
    ToyLanguage,
    batches,
    best_device,
    entropy,
    get_batch,
    is_shakespeare,
    load_text,
    train_val_split,
)

PLAY = "ANNA:\nHow, naïve?\n" * 50


# The tokenizer


@given(st.text(min_size=1))
def test_encode_and_decode_lose_nothing(text):
    tokenizer = CharTokenizer.from_text(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(torch.tensor(ids)) == text
    assert sorted(set(ids)) == list(range(tokenizer.vocab_size))


@given(st.text(min_size=1))
def test_ids_do_not_depend_on_the_order_of_the_text(text):
    forward, backward = CharTokenizer(text), CharTokenizer(text[::-1])
    assert forward.encode(text) == backward.encode(text)


@pytest.mark.parametrize("chars", ["\n ab", "é🙂\u2028", '"\\'])
def test_tokenizer_survives_the_disk(tmp_path, chars):
    CharTokenizer(chars).save(tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["type"] == "char"
    assert CharTokenizer.load(tmp_path / "t.json").chars == "".join(
        sorted(chars)
    )


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"type": "bpe", "chars": "ab"}',
     '{"type": "char", "chars": 3}', b"\xff\xfe"],
)
def test_a_file_that_is_no_vocabulary(tmp_path, content):
    path = tmp_path / "t.json"
    path.write_bytes(content if isinstance(content, bytes)
                     else content.encode())
    with pytest.raises(ValueError, match=r"t\.json is not a character voc"):
        CharTokenizer.load(path)


def test_unknown_characters_and_ids_are_named():
    tokenizer = CharTokenizer("abc")
    with pytest.raises(ValueError, match=r"'é' at position 2 .* the 3 that"):
        tokenizer.encode("abé")
    for ids, bad in (([0, 3], "3 at position 1"), ([-1], "-1 at position 0")):
        with pytest.raises(ValueError, match=f"id {bad} is not between 0 and"):
            tokenizer.decode(ids)
    assert tokenizer.decode([]) == "" and tokenizer.encode("") == []


def test_empty_and_one_character_texts():
    with pytest.raises(ValueError, match="text is empty"):
        CharTokenizer.from_text("")
    tokenizer = CharTokenizer.from_text("a")
    assert tokenizer.vocab_size == 1 and tokenizer.encode("aa") == [0, 0]
    assert entropy(Counter("a")) == 0
    with pytest.raises(ValueError, match="1 tokens are too few"):
        train_val_split(torch.tensor([0]))


# Entropy

many_counts = st.lists(st.integers(0, 10**6), min_size=1).filter(any)


@given(many_counts, st.integers(2, 50))
def test_entropy_is_bounded_and_knows_only_proportions(counts, factor):
    value = entropy(counts)
    assert 0 <= value <= math.log(len(counts)) + 1e-9
    assert entropy([factor * n for n in counts]) == pytest.approx(value)
    assert entropy(sorted(counts)) == pytest.approx(value)
    assert entropy(counts, base=2) == pytest.approx(value / math.log(2))


def test_entropy_takes_counters_lists_and_tensors():
    want = 1.5 * math.log(2)
    for counts in (Counter("aabc"), [2, 1, 1], torch.tensor([2, 1, 1, 0])):
        assert entropy(counts) == pytest.approx(want)


@pytest.mark.parametrize("counts", [[], [0, 0], [3, -1]])
def test_entropy_of_no_distribution(counts):
    with pytest.raises(ValueError, match="counts must be 0 or more"):
        entropy(counts)


# The toy language

SMALL = {
    "speech": {"{who}: {what}.": 3, "silence.": 1},
    "who": {"I": 1, "you": 3},
    "what": {"{verb}": 2, "{verb} and {verb}": 1},
    "verb": {"sing": 5, "go": 2, "wait": 1},
}


def all_of(grammar, symbol):
    """Every text of a symbol, with its probability, by enumeration."""
    total = sum(grammar[symbol].values())
    for template, weight in grammar[symbol].items():
        grown = [("", weight / total)]
        for part in template.replace("}", "{").split("{"):
            options = (all_of(grammar, part) if part in grammar
                       else [(part, 1.0)])
            options = list(options)
            grown = [(a + b, p * q) for a, p in grown for b, q in options]
        yield from grown


def test_entropy_of_a_small_grammar_by_brute_force():
    speeches = list(all_of(SMALL, "speech"))
    assert len(speeches) == 25 == len({text for text, _ in speeches})
    assert sum(p for _, p in speeches) == pytest.approx(1)
    nats = entropy([p for _, p in speeches])
    chars = sum(p * len(text) for text, p in speeches)
    language = ToyLanguage(SMALL)
    assert language.entropy_per_char == pytest.approx(nats / chars)
    for text, p in speeches:
        assert language.log_prob(text) == pytest.approx(math.log(p))


@given(st.dictionaries(st.text("abc", max_size=4), st.integers(1, 9),
                       min_size=1))
def test_entropy_of_a_list_of_words(words):
    language = ToyLanguage({"speech": {f"{w}!": n for w, n in words.items()}})
    total = sum(words.values())
    chars = sum((len(w) + 1) * n for w, n in words.items()) / total
    assert language.entropy_per_char == pytest.approx(
        entropy(words) / chars
    )


def test_entropy_of_an_endless_grammar():
    laughs = ToyLanguage(
        {"speech": {"{laugh}!": 1}, "laugh": {"ha": 1, "ha{laugh}": 3}}
    )
    # n "ha" have the probability (3/4)^(n-1) / 4 and 2n + 1 characters.
    chances = [0.75**n / 4 for n in range(400)]
    chars = sum(p * (2 * n + 3) for n, p in enumerate(chances))
    assert laughs.entropy_per_char == pytest.approx(entropy(chances) / chars)


@pytest.mark.parametrize(
    "speech", [{"a{speech}": 1}, {"a{speech}{speech}": 2, "b": 1}]
)
def test_entropy_of_a_grammar_that_never_ends(speech):
    with pytest.raises(ValueError, match="no average length"):
        _ = ToyLanguage({"speech": speech}).entropy_per_char


def test_all_ways_to_write_a_text_count():
    """ "ab" is a + b, or ab + nothing."""
    two_ways = ToyLanguage({
        "speech": {"{start}{rest}.": 1},
        "start": {"a": 1, "ab": 3},
        "rest": {"b": 1, "": 1},
    })
    want = 1 / 4 * 1 / 2 + 3 / 4 * 1 / 2
    assert two_ways.log_prob("ab.") == pytest.approx(math.log(want))


def test_no_speech_of_the_play_is_written_in_two_ways():
    """A derivation's probability is all that its text has."""
    toy, rng = ToyLanguage(), random.Random(3)

    def derive(symbol):
        options = toy.rules[symbol]
        parts, p = rng.choices(options, [p for _, p in options])[0]
        text, cost = "", -math.log(p)
        for i, part in enumerate(parts):
            grown, more = derive(part) if i % 2 else (part, 0.0)
            text, cost = text + grown, cost + more
        return text, cost

    costs = chars = 0.0
    for _ in range(1500):
        text, cost = derive("speech")
        assert toy.log_prob(text) == pytest.approx(-cost)
        assert text.endswith("\n\n") and "\n\n" not in text[:-2]
        costs, chars = costs + cost, chars + len(text)
    assert costs / chars == pytest.approx(toy.entropy_per_char, rel=0.02)


def test_sample_is_repeatable_and_of_the_length_asked():
    toy = ToyLanguage()
    assert toy.sample(1000, seed=5) == toy.sample(2000, seed=5)[:1000]
    assert toy.sample(1000, seed=5) != toy.sample(1000, seed=6)
    assert [len(toy.sample(n)) for n in (0, 1, 777)] == [0, 1, 777]
    # Other chapters' numbers without Shakespeare rest on this text.
    digest = hashlib.sha256(toy.sample(10_000).encode()).hexdigest()
    assert digest.startswith("8b5b97dee26d679c")


def test_log_prob_of_other_text():
    toy = ToyLanguage()
    one = toy.expand("speech", random.Random(0))
    two = one + one
    assert toy.log_prob(two) == pytest.approx(2 * toy.log_prob(one))
    assert toy.log_prob("") == 0
    for other in ("To be, or not to be", two[:-1], two + "K"):
        assert toy.log_prob(other) == -math.inf


def test_grammars_with_mistakes():
    with pytest.raises(ValueError, match="no rule for 'word': add it"):
        ToyLanguage({"speech": {"{word}.": 1}})
    with pytest.raises(ValueError, match="no rule for 'speech'"):
        ToyLanguage({"word": {"a": 1}})
    for weights in ({}, {"a": 0, "b": 1}, {"a": -1, "b": 2}):
        with pytest.raises(ValueError, match="'speech' needs alternatives"):
            ToyLanguage({"speech": weights})
    unclear = ToyLanguage({"speech": {"a": 1, "ab": 1}})
    with pytest.raises(ValueError, match="at character 0 may end in 2 pl"):
        unclear.log_prob("ab")


# Split and batches


@given(st.integers(2, 500), st.floats(0.01, 0.99))
def test_split_is_a_cut(num_tokens, fraction):
    ids = torch.arange(num_tokens)
    try:
        train, val = train_val_split(ids, fraction)
    except ValueError as error:
        assert "too few" in str(error)
        assert num_tokens * min(fraction, 1 - fraction) < 1 + 1e-9
        return
    assert torch.equal(torch.cat([train, val]), ids)
    assert abs(len(val) - fraction * num_tokens) <= 1 + 1e-9
    assert len(train) and len(val)


@pytest.mark.parametrize("fraction", [-0.1, 0, 1, 10])
def test_split_fraction(fraction):
    with pytest.raises(ValueError, match="between 0 and 1"):
        train_val_split(torch.arange(10), fraction)


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 30))
def test_batches_are_windows_of_the_text(extra, batch_size, length):
    ids = torch.arange(100, 100 + length + extra)
    x, y = get_batch(ids, batch_size, length)
    assert x.shape == y.shape == (batch_size, length)
    assert x.dtype == torch.int64 and y.is_contiguous()
    # Every row counts up by 1, as the text does, and y is one further.
    assert torch.equal(x - x[:, :1], torch.arange(length).expand_as(x))
    assert torch.equal(y, x + 1)
    assert 100 <= x.min() and y.max() < 100 + length + extra


def test_every_window_can_be_drawn():
    x, y = get_batch(torch.arange(8), 500, 5)
    assert set(x[:, 0].tolist()) == {0, 1, 2}
    assert y.max() == 7


def test_batches_repeat_with_their_seed_only():
    ids = torch.arange(1000)
    one, two = batches(ids, 4, 8, seed=1), batches(ids, 4, 8, seed=1)
    other = batches(ids, 4, 8, seed=2)
    first, again = next(one)[0], next(two)[0]
    torch.manual_seed(99)  # whatever happens elsewhere
    assert torch.equal(first, again)
    assert torch.equal(next(one)[1], next(two)[1])
    assert not torch.equal(first, next(one)[0])
    assert not torch.equal(first, next(other)[0])


def test_batch_goes_to_a_device():
    x, y = next(batches(torch.arange(20), 2, 4, device="meta"))
    assert x.device.type == y.device.type == "meta"
    assert torch.zeros(1, device=best_device()).device.type == best_device()


def test_batches_that_cannot_be():
    with pytest.raises(ValueError, match="context_length 8 needs at least 9"):
        get_batch(torch.arange(8), 2, 8)
    for batch_size, length in ((0, 4), (2, 0)):
        with pytest.raises(ValueError, match="write 1 or more"):
            get_batch(torch.arange(8), batch_size, length)


# Texts from files


@pytest.mark.parametrize(
    "data",
    ["é\nb\n".encode(), "é\r\nb\r\n".encode(), "\ufeffé\nb\n".encode(),
     "é\rb\r".encode()],
)
def test_the_same_text_from_any_system(tmp_path, data):
    (tmp_path / "a.txt").write_bytes(data)
    assert load_text(tmp_path / "a.txt") == "é\nb\n"
    assert load_text(str(tmp_path / "a.txt")) == "é\nb\n"


def test_files_that_are_no_text(tmp_path):
    (tmp_path / "latin.txt").write_bytes("naïve".encode("latin-1"))
    (tmp_path / "empty.txt").touch()
    for name, message in (
        ("latin.txt", r"not UTF-8 text \(byte 2 is 0xef\): save it as UTF-8"),
        ("empty.txt", "is empty: give a text to learn from"),
        ("", "is a folder: give the path of a text file"),
    ):
        with pytest.raises(ValueError, match=message):
            load_text(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="'romeo': it is neither a fi"):
        load_text("romeo")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "a.txt").write_text("a")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(OSError, match=r"a\.txt cannot be read \(Permission"):
        load_text(tmp_path / "a.txt")


# Texts from the network, which is a server of our own


@pytest.fixture
def server():
    """Serves server.files ({path: (body, length it announces)})."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.hits[self.path] += 1
            if self.path not in self.server.files:
                self.send_error(404)
                return
            body, length = self.server.files[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.hits = {}, Counter()
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(
        target=server.serve_forever, args=(0.01,), daemon=True
    ).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of downloads, and no MINIGPT_DATA."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda name: folder)
    monkeypatch.delenv("MINIGPT_DATA", raising=False)
    return folder


@pytest.fixture
def play(server, cache, monkeypatch):
    """A registered source, "play", that the server has."""
    data = PLAY.encode()
    server.files["/play.txt"] = (data, len(data))
    source = Source(server.url + "/play.txt", "play.txt",
                    hashlib.sha256(data).hexdigest())
    monkeypatch.setitem(SOURCES, "play", source)
    return source


def kept(folder):
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_a_download_is_made_once(play, server, cache, recwarn):
    assert load_text("play") == load_text("play") == PLAY
    assert server.hits["/play.txt"] == 1
    assert kept(cache) == ["play.txt"]
    assert not recwarn.list
    server.files.clear()  # gone from the network
    assert load_text("play") == PLAY


@pytest.mark.parametrize("half", [False, True])
def test_a_damaged_download_leaves_nothing(play, server, cache, half):
    data = PLAY.encode()
    broken = data[:100] if half else b"x" + data[1:]
    server.files["/play.txt"] = (broken, len(data))
    with pytest.raises(ValueError, match="damaged or cut short: nothing was"):
        load_text("play")
    assert kept(cache) == []
    server.files["/play.txt"] = (data, len(data))
    assert load_text("play") == PLAY


def test_a_short_answer_that_claims_to_be_whole(play, server, cache):
    server.files["/play.txt"] = (b"short", 5)
    with pytest.raises(ValueError, match="damaged or cut short"):
        load_text("play")
    assert kept(cache) == []


def test_a_damaged_file_in_the_cache_is_replaced(play, server, cache):
    load_text("play")
    (cache / "play.txt").write_bytes(b"rotten")
    assert load_text("play") == PLAY
    assert server.hits["/play.txt"] == 2
    assert (cache / "play.txt").read_bytes() == PLAY.encode()


@pytest.mark.parametrize("trouble", ["refused", "not found"])
def test_without_the_network_a_registered_text_is_the_toy(
    play, server, cache, monkeypatch, trouble
):
    server.files.clear()
    if trouble == "refused":
        gone = Source("http://127.0.0.1:9/play.txt", "play.txt", play.sha256)
        monkeypatch.setitem(SOURCES, "play", gone)
    with pytest.warns(UserWarning, match="cannot download http.*toy languag"):
        text = load_text("play")
    assert text == ToyLanguage().sample(1_100_000)
    assert not is_shakespeare(text)
    assert kept(cache) == []


def test_a_url(play, server, cache):
    assert load_text(play.url) == load_text(play.url) == PLAY
    assert server.hits["/play.txt"] == 1


def test_a_url_never_turns_into_the_toy(server, cache):
    for url in (server.url + "/nothing.txt", "http://127.0.0.1:9/a.txt"):
        with pytest.raises(ConnectionError, match=f"cannot download {url}"):
            load_text(url)
    assert kept(cache) == []


def test_a_cache_that_cannot_be_written(play, server, cache):
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cache cannot be written"):
        assert load_text("play") == PLAY
    assert cache.read_text().startswith("a file")


def test_a_full_disk(play, cache, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pooch, "retrieve", full)
    with (
        pytest.warns(UserWarning, match="No space left on device"),
        pytest.raises(OSError, match="No space left"),
    ):
        load_text("play")


# MINIGPT_DATA


def test_the_local_folder_comes_first(play, server, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path))
    windows = PLAY.replace("\n", "\r\n")  # as git may check it out there
    for text in (PLAY, windows):
        (tmp_path / "play.txt").write_bytes(text.encode())
        assert load_text("play") == PLAY
    assert not server.hits
    (tmp_path / "play.txt").unlink()
    assert load_text("play") == PLAY and server.hits


def test_a_damaged_local_file(play, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path))
    (tmp_path / "play.txt").write_bytes(b"rotten")
    found = hashlib.sha256(b"rotten").hexdigest()[:12]
    message = (
        rf"play\.txt is damaged \(sha256 {found}…, not "
        rf"{play.sha256[:12]}…\): replace it"
    )
    with pytest.raises(ValueError, match=message):
        load_text("play")


def test_what_is_shakespeare(monkeypatch):
    assert not is_shakespeare(PLAY)
    digest = hashlib.sha256(PLAY.encode()).hexdigest()
    monkeypatch.setitem(SOURCES, "shakespeare", Source("", "", digest))
    assert is_shakespeare(PLAY) and not is_shakespeare(PLAY + "\n")


def test_every_public_name_is_documented():
    for name in lib.__all__:
        assert getattr(lib, name).__doc__, name


NOTEBOOK = """
import sys, types
shell = types.SimpleNamespace(get_ipython=lambda: None)
sys.modules |= {"ipykernel.zmqshell": shell, "IPython": shell}
sys.modules["ipywidgets"] = None  # not installed
import minigpt
import pooch
"""


def test_a_notebook_without_widgets_hears_nothing_of_them():
    """The first thing that a chapter does is load a text."""
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stderr == ""
