"""Shards and their loader: order, kills, damage, full disks, memory."""

import errno
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import active_children
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt import data_command, shards
from minigpt.cli import _parse, main
from minigpt.model import GPT, GPTConfig
from minigpt.pretraining import (
    RUNS,
    Permutation,
    Prefetch,
    ShardError,
    Shards,
    ShardWindows,
    cut,
    hours,
    random_keys,
    scramble,
    steady_speed,
    token_dtype,
    verify,
)
from minigpt.runfolder import TrainingError
from minigpt.shards import ShardSettings, build_shards, tokenize
from minigpt.sources import Documents, SourceError, open_source
from minigpt.text import CharTokenizer
from minigpt.tokenizer import END_OF_TEXT, BPETokenizer, load_tokenizer
from minigpt.training import TrainConfig, Trainer

LETTERS = CharTokenizer("abcdefghijklmnopqrstuvwxyz 0123456789\n")
SMALL = ShardSettings(shard_tokens=5000, val_fraction=0.1, piece_chars=400)


def texts(count=300):
    """Documents that tell their number, of many lengths."""
    dice = np.random.default_rng(0)
    for number in range(count):
        words = [f"{number}"] * int(dice.integers(1, 60))
        yield " ".join(words) + "\n"


def listed(items, name="a list"):
    items = list(items)
    return Documents(name, lambda start: iter(items[start:]))


@pytest.fixture
def small_parts(monkeypatch):
    """Many blocks, parts and ranges, also for a small text."""
    monkeypatch.setattr(shards, "BLOCK", 1000)
    monkeypatch.setattr(shards, "PART", 6000)
    monkeypatch.setattr(shards, "RANGE", 3000)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def built(tmp_path):
    build_shards(listed(texts()), LETTERS, tmp_path / "s", SMALL)
    return tmp_path / "s"


# Pieces, keys, ids ---------------------------------------------------------


@given(st.text(alphabet="ab \n", max_size=200), st.integers(1, 30))
def test_pieces_join_to_the_document(document, limit):
    pieces = list(cut(document, limit))
    assert all(0 < len(p) <= limit and p.strip() for p in pieces)
    assert "".join("".join(pieces).split()) == "".join(document.split())


def test_a_piece_ends_after_a_line_end_if_one_is_near():
    assert list(cut("aaaaaa\nbbbb", 8)) == ["aaaaaa\n", "bbbb"]
    assert list(cut("a\nbbbbbbbbbb", 8)) == ["a\nbbbbbb", "bbbb"]
    assert list(cut("abcd", 4)) == ["abcd"]


@given(st.integers(0, 2**64 - 1), st.integers(0, 10**12))
def test_keys_follow_from_place_and_seed(seed, first):
    keys = random_keys(first, 50, seed)
    assert len(set(keys.tolist())) == 50 and keys.dtype == np.uint64
    assert (random_keys(first + 20, 30, seed) == keys[20:]).all()
    assert (random_keys(first, 50, seed ^ 1) != keys).all()


def test_keys_look_random():
    keys = random_keys(0, 40_000, 7) / 2.0**64
    counts = np.histogram(keys, 50, (0, 1))[0]
    assert abs(counts - 800).max() < 5 * 800**0.5
    assert abs(np.corrcoef(keys[1:], keys[:-1])[0, 1]) < 0.02


def test_scramble_is_splitmix64():
    # Steele, Lea and Flood 2014; the first numbers of seed 1234567
    golden = np.uint64(0x9E3779B97F4A7C15)
    state = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * golden
    assert scramble(state).tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "size, dtype", [(2**16, "uint16"), (2**16 + 1, "uint32")]
)
def test_the_type_of_ids(size, dtype):
    assert token_dtype(size).name == dtype


def test_each_piece_ends_with_an_end_of_text():
    bpe = BPETokenizer.train("red blue", 258, [END_OF_TEXT])
    ids, lengths, size = tokenize(["red\nblue", "x\ud800", " "], bpe, 4)
    end = bpe.start_id
    assert bpe.decode(ids) == "".join(
        f"{piece}{END_OF_TEXT}" for piece in ("red\n", "blue", "x?")
    )
    assert [ids[n - 1] for n in np.cumsum(lengths)] == [end] * 3
    assert size == 11
    for chars, ended in (("ab\n", "ab\nb\n"), ("ab", "abb")):
        ids, _, _ = tokenize(["ab", "b"], CharTokenizer(chars), 4)
        assert CharTokenizer(chars).decode(ids) == ended


# Building ------------------------------------------------------------------


def test_every_piece_once_and_shuffled(built):
    manifest = json.loads((built / "manifest.json").read_text())
    train, val = Shards(built), Shards(built, "val")
    text = LETTERS.decode(train[:]) + LETTERS.decode(val[:])
    pieces = [piece for piece in text.split("\n") if piece]
    assert sorted(pieces) == sorted(t.strip() for t in texts())
    first = [int(piece.split()[0]) for piece in pieces]
    assert abs(np.corrcoef(range(300), first)[0, 1]) < 0.15
    assert manifest["documents"] == manifest["pieces"] == 300
    assert manifest["splits"]["val"]["pieces"] == 30
    assert manifest["tokens"] == len(train) + len(val)
    assert manifest["bytes"] == sum(map(len, texts()))
    sizes = [f["tokens"] for f in manifest["splits"]["train"]["shards"]]
    assert set(sizes[:-1]) == {5000} and 0 < sizes[-1] <= 5000
    assert not (built / "parts").exists()


def test_the_order_does_not_depend_on_parts(built, tmp_path, small_parts):
    build_shards(listed(texts()), LETTERS, tmp_path / "t", SMALL)
    assert files(tmp_path / "t") == files(built)


def test_cut_documents_do_not_depend_on_parts(tmp_path, monkeypatch):
    changes = {"piece_chars": 90, "val_fraction": 0.15}
    cut_often = ShardSettings(**vars(SMALL) | changes)
    build_shards(listed(texts()), LETTERS, tmp_path / "s", cut_often)
    monkeypatch.setattr(shards, "BLOCK", 1000)
    monkeypatch.setattr(shards, "PART", 6000)
    monkeypatch.setattr(shards, "RANGE", 3000)
    build_shards(listed(texts()), LETTERS, tmp_path / "t", cut_often)
    assert files(tmp_path / "t") == files(tmp_path / "s")


def test_the_source_is_not_read_far_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr(futures, "ProcessPoolExecutor", ThreadPoolExecutor)
    LETTERS.save(tmp_path / "tokenizer.json")
    read, made = [], []

    def blocks():
        for number in range(60):
            read.append(number)
            yield [f"{number}\n"]

    for _, ids, _, _ in shards._tokenized(blocks(), tmp_path, 2, 400):
        made.append(LETTERS.decode(ids).strip())
        assert len(read) - len(made) <= 4
    assert made == [str(number) for number in range(60)]


def test_the_seed_decides_the_order(built, tmp_path):
    other = ShardSettings(**vars(SMALL) | {"seed": 1})
    build_shards(listed(texts()), LETTERS, tmp_path / "t", other)
    ours, theirs = (
        sorted(LETTERS.decode(Shards(f)[:]).split("\n"))
        for f in (built, tmp_path / "t")
    )
    assert ours != theirs


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_do_not_change_a_byte(
    built, tmp_path, small_parts, processes
):
    build_shards(
        listed(texts()), LETTERS, tmp_path / "t", SMALL, processes=processes
    )
    assert files(tmp_path / "t") == files(built)


def test_an_error_in_the_source_leaves_what_is_finished(
    built, tmp_path, small_parts
):
    read = []

    def begin(start):
        read.append(start)
        for number, text in enumerate(texts()):
            if number == 200 and len(read) == 1:
                raise SourceError("row 200: the line went dead")
            if number >= start:
                yield text

    source, out = Documents("a list", begin), tmp_path / "t"
    with pytest.raises(SourceError, match="went dead"):
        build_shards(source, LETTERS, out, SMALL)
    told = []
    manifest = build_shards(source, LETTERS, out, SMALL, 1, told.append)
    assert read[0] == 0 and 50 < read[1] < 200
    assert files(out) == files(built) and sum(told) == manifest["bytes"]


def test_a_stopped_merge_does_not_read_the_source_again(
    built, tmp_path, small_parts, monkeypatch
):
    unmerged(tmp_path / "t", monkeypatch)
    gone = Documents("a list", lambda start: 1 / 0)
    build_shards(gone, LETTERS, tmp_path / "t", SMALL)
    assert files(tmp_path / "t") == files(built)


KILLED = """
import sys, time
from minigpt import shards
from test_pretraining import LETTERS, SMALL, listed, texts
from minigpt.sources import open_source, Documents
shards.BLOCK, shards.PART, shards.RANGE = 1000, 6000, 3000
def slowly(start):
    for number, text in enumerate(texts()):
        if number >= start:
            time.sleep(0.003)
            yield text
if __name__ == "__main__":
    source = Documents("a list", slowly)
    shards.build_shards(source, LETTERS, sys.argv[1], SMALL, int(sys.argv[2]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_killed_build_goes_on(built, tmp_path, small_parts, processes):
    script, out = tmp_path / "killed.py", tmp_path / "t"
    script.write_text(KILLED)
    env = os.environ | {"PYTHONPATH": os.path.dirname(__file__)}
    command = [sys.executable, script, out, processes]
    with subprocess.Popen(command, env=env) as job:
        while not (out / "parts" / "000001.json").exists():
            assert job.poll() is None
            time.sleep(0.002)
        job.kill()
    assert not (out / "manifest.json").exists()
    with pytest.raises(ShardError, match="manifest.json is missing"):
        Shards(out)
    build_shards(listed(texts()), LETTERS, out, SMALL)
    assert files(out) == files(built)


def test_a_finished_folder_is_left_alone(built):
    before, path = files(built), built / "manifest.json"
    written = path.stat().st_mtime_ns
    build_shards(listed(texts()), LETTERS, built, SMALL)
    assert path.stat().st_mtime_ns == written and files(built) == before
    (built / "parts").mkdir()  # a kill right after the manifest leaves it
    (built / "parts" / "000000.tokens.npy").write_bytes(b"large")
    build_shards(listed(texts()), LETTERS, built, SMALL)
    assert files(built) == before


def unmerged(out, monkeypatch):
    """A folder whose parts are complete and whose merge was stopped."""
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_merge", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build_shards(listed(texts()), LETTERS, out, SMALL)
    return out / "parts"


@pytest.mark.parametrize(
    "name", ["000001.tokens.npy", "000001.index.npy", "000001.json",
             "job.json"]
)  # fmt: skip
@pytest.mark.parametrize("damage", ["cut", "missing", "shorter"])
def test_damaged_parts_are_made_again(
    built, tmp_path, small_parts, monkeypatch, name, damage
):
    path = unmerged(tmp_path / "t", monkeypatch) / name
    if damage == "missing":
        path.unlink()
    elif damage == "shorter" and name.endswith(".npy"):
        np.save(path, np.load(path)[:-1])
    else:
        path.write_bytes(path.read_bytes()[:20])
    build_shards(listed(texts()), LETTERS, tmp_path / "t", SMALL)
    assert files(tmp_path / "t") == files(built)


def test_a_killed_worker_is_one_sentence(
    built, tmp_path, small_parts, monkeypatch
):
    def killing(start):
        for number, text in enumerate(texts()):
            if number >= 150:
                for child in active_children():
                    child.kill()
            if number >= start:
                yield text

    source, out = Documents("a list", killing), tmp_path / "t"
    with pytest.raises(TrainingError, match="fewer --processes, it goes on"):
        build_shards(source, LETTERS, out, SMALL, processes=2)
    build_shards(listed(texts()), LETTERS, out, SMALL)
    assert files(out) == files(built)


def test_workers_do_not_hear_ctrl_c(monkeypatch):
    monkeypatch.setattr(signal, "signal", calls := Mock(return_value="before"))
    with shards._ctrl_c_ignored():
        calls.assert_called_once_with(signal.SIGINT, signal.SIG_IGN)
    calls.assert_called_with(signal.SIGINT, "before")
    calls.reset_mock()
    elsewhere = threading.Thread(target=shards._ctrl_c_ignored().__enter__)
    elsewhere.start()
    elsewhere.join()
    calls.assert_not_called()


@pytest.mark.parametrize("finished", [True, False])
def test_another_build_is_kept_out(tmp_path, monkeypatch, finished):
    if not finished:
        unmerged(tmp_path, monkeypatch)
    else:
        build_shards(listed(texts()), LETTERS, tmp_path, SMALL)
    before = files(tmp_path / ("." if finished else "parts"))
    other = ShardSettings(**vars(SMALL) | {"seed": 5})
    with pytest.raises(ShardError, match=r"another seed \(1337, now 5\)"):
        build_shards(listed(texts()), LETTERS, tmp_path, other)
    with pytest.raises(ShardError, match=r"source name \(a list, now b\)"):
        build_shards(listed(texts(), "b"), LETTERS, tmp_path, SMALL)
    with pytest.raises(ShardError, match=r"tokenizer vocab_size \(38, now 39"):
        fewer = CharTokenizer(LETTERS.chars + "!")
        build_shards(listed(texts()), fewer, tmp_path, SMALL)
    assert files(tmp_path / ("." if finished else "parts")) == before


class FullDisk:
    """open() for writing that has room for so many bytes in all."""

    def __init__(self, room):
        self.room, self.real = room, open

    def __call__(self, path, mode="r", **settings):
        file = self.real(path, mode, **settings)
        if "w" in mode:
            write = file.write
            wrapped = lambda data: self._write(write, data)  # noqa: E731
            return _Writing(file, wrapped)
        return file

    def _write(self, write, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(data)


class _Writing:
    def __init__(self, file, write):
        self.file, self.write = file, write

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


@pytest.mark.parametrize("room", [100, 30_000, 60_000, 100_000])
def test_a_full_disk(built, tmp_path, small_parts, monkeypatch, room):
    out = tmp_path / "t"
    with monkeypatch.context() as patch:
        patch.setattr(shards, "open", FullDisk(room), raising=False)
        with pytest.raises(TrainingError) as caught:
            build_shards(listed(texts()), LETTERS, out, SMALL)
    message = str(caught.value)
    assert "No space left" in message and "same command again" in message
    assert str(out) in message and "\n" not in message
    assert not list(out.rglob("*.tmp"))
    build_shards(listed(texts()), LETTERS, out, SMALL)
    assert files(out) == files(built)


@pytest.mark.parametrize("documents", [[], ["", " \n"]])
def test_an_empty_source(tmp_path, documents):
    source = listed(documents, "nothing.txt")
    for _ in range(2):
        with pytest.raises(SourceError, match="nothing.txt is empty"):
            build_shards(source, LETTERS, tmp_path, SMALL)


def test_too_little_to_validate(tmp_path):
    source = listed(["one\ntwo"])
    with pytest.raises(SourceError, match="one piece.*--piece-chars"):
        build_shards(source, LETTERS, tmp_path, SMALL)
    smaller = ShardSettings(**vars(SMALL) | {"piece_chars": 4})
    assert build_shards(source, LETTERS, tmp_path, smaller)["pieces"] == 2
    most = ShardSettings(**vars(smaller) | {"val_fraction": 0.9})
    with pytest.raises(SourceError, match="0.9 of 2 pieces leaves none"):
        build_shards(source, LETTERS, tmp_path / "most", most)


def test_a_note_is_cut_into_some_pieces(tmp_path):
    note = tmp_path / "note.txt"
    note.write_text("milk and bread and 6 eggs\n" * 300)  # 7,800 bytes
    made = build_shards(open_source(note), LETTERS, tmp_path / "s")
    assert made["piece_chars"] == 390 and made["pieces"] >= 20
    assert ShardSettings().filled(listed(["a"])).piece_chars == 2**16


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"shard_tokens": 0}, "shard_tokens is 0: write 1 or more"),
        ({"piece_chars": 0}, "piece_chars is 0"),
        ({"val_fraction": 0}, "between 0 and 1"),
        ({"val_fraction": 1}, "between 0 and 1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ShardSettings(**settings)


def test_no_processes(tmp_path):
    with pytest.raises(ValueError, match="processes is 0"):
        build_shards(listed(["a"]), LETTERS, tmp_path, SMALL, processes=0)


class Wide:
    """A tokenizer of many tokens: a character's id is its code point."""

    vocab_size, start_id = 130_000, 129_999

    def encode(self, text):
        return list(map(ord, text))

    def save(self, path):
        path.write_text('{"type": "wide"}')


def test_a_large_vocabulary_takes_four_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "load_tokenizer", lambda path: Wide())
    source = listed(["one 🂡"] * 20)
    manifest = build_shards(source, Wide(), tmp_path, SMALL)
    assert manifest["dtype"] == "uint32"
    ids = Shards(tmp_path)[:]
    assert ids.max() == 129_999 and (ids == ord("o")).sum() == 18


def test_memory_stays_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "BLOCK", 2**16)
    monkeypatch.setattr(shards, "PART", 2**19)
    monkeypatch.setattr(shards, "RANGE", 2**18)
    page = "the quick brown fox 0123456789\n" * 66
    plan = ShardSettings(shard_tokens=2**18)
    peaks = []
    for megabytes in (2, 12):
        count = megabytes * 2**20 // len(page)
        source = Documents(
            "pages", lambda start, n=count: itertools.repeat(page, n - start)
        )
        tracemalloc.start()
        build_shards(source, LETTERS, tmp_path / f"{megabytes}", plan)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 20 MiB of tokens lie between the two; waste that waits for Python's
    # collector is less than four
    assert peaks[1] < peaks[0] + 2**22


# Reading -------------------------------------------------------------------


@given(st.data())
@settings(max_examples=30)
def test_a_slice_is_the_same_across_shards(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "slices"
    if not folder.exists():
        build_shards(listed(texts(60)), LETTERS, folder, ShardSettings(777))
    ids = Shards(folder)
    whole = torch.from_numpy(
        np.concatenate([np.load(folder / f["file"]) for f in ids.files])
    ).long()
    start = data.draw(st.integers(0, len(ids)))
    stop = data.draw(st.integers(0, len(ids) + 5))
    assert torch.equal(ids[start:stop], whole[start:stop])
    assert ids[:0].dtype == torch.int64


def test_a_cut_shard_is_named(built):
    path = built / "train-00001.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ShardError, match="train-00001.npy does not match"):
        Shards(built)


def test_a_missing_shard_is_named(built):
    (built / "val-00000.npy").unlink()
    with pytest.raises(ShardError, match="val-00000.npy.*No such file"):
        Shards(built, "val")


def test_a_shorter_shard_is_named(built):
    path = built / "train-00000.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(ShardError, match="4999 tokens, not 5000"):
        Shards(built)
    np.save(path, np.zeros(5001, np.uint16))
    with pytest.raises(ShardError, match="5001 tokens, not 5000"):
        Shards(built)


def test_a_changed_bit_is_found(built):
    path = built / "train-00002.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match="train-00002.npy.*bytes were ch"):
        verify(Shards(built))


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"format": 2, "splits": {"a": 1}}']
)
def test_a_damaged_manifest(built, content):
    (built / "manifest.json").write_text(content)
    with pytest.raises(ShardError, match="manifest.json: it .*minigpt data"):
        Shards(built)
    with pytest.raises(ShardError, match="manifest.json: it .*minigpt data"):
        build_shards(listed(texts()), LETTERS, built, SMALL)


@pytest.mark.parametrize(
    "where, value",
    [
        ("shard_tokens", 0),
        ("shard_tokens", None),
        ("shard_tokens", 777),
        ("shard_tokens", 6000),
        ("tokens", 5),
        ("splits", {"train": {}, "val": {}}),
        ("splits val", ...),
        ("splits train shards", []),
        ("splits train shards 0 tokens", 0),
        ("splits train shards 0 sha256", ...),
        ("splits train shards 1 sha256", ""),
        ("splits val shards 0 file", ...),
        ("tokenizer sha256", ...),
    ],
)
def test_a_manifest_that_cannot_be_right(built, where, value):
    path = built / "manifest.json"
    manifest = found = json.loads(path.read_text())
    *way, last = [int(k) if k.isdigit() else k for k in where.split()]
    for key in way:
        found = found[key]
    found[last] = value
    if value is ...:
        del found[last]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ShardError, match="manifest.json: .*remove this file"):
        Shards(built)


def test_another_tokenizer_is_found(built):
    path = built / "tokenizer.json"
    CharTokenizer(LETTERS.chars.upper()).save(path)
    with pytest.raises(ShardError, match="tokenizer.json.*bytes were changed"):
        verify(Shards(built))
    path.unlink()
    with pytest.raises(ShardError, match="tokenizer.json.*No such file"):
        verify(Shards(built))


# The loader ----------------------------------------------------------------


@given(st.integers(1, 3000), st.integers(0, 2**63))
@settings(max_examples=60)
def test_a_permutation_has_every_number_once(n, seed):
    order = Permutation(n, seed)(np.arange(n))
    assert np.array_equal(np.sort(order), np.arange(n))


def test_permutations_look_random():
    n, firsts = 30, []
    for seed in range(600):
        order = Permutation(n, seed)(np.arange(n)).astype(int)
        firsts.append(order)
    columns = np.array(firsts).T
    counts = np.array([np.bincount(c, minlength=n) for c in columns])
    chi2 = ((counts - 600 / n) ** 2 / (600 / n)).sum()
    assert abs(chi2 / (n * (n - 1)) - 1) < 0.3


def test_a_huge_permutation_costs_nothing():
    order = Permutation(10**12, 0)
    assert len(set(order(np.arange(1000)).tolist())) == 1000


def test_each_passage_once_in_every_pass(built):
    windows = ShardWindows(Shards(built), 7, 50, seed=3)
    every = [s for n in range(300) for s in windows.starts(n)]
    size = windows.per_pass
    for turn in range(3):
        starts = sorted(every[turn * size : (turn + 1) * size])
        assert set(np.diff(starts)) == {50}
        assert starts[0] >= 0 and starts[-1] + 51 <= len(windows.ids)
    assert every[:size] != every[size : 2 * size]


def test_a_batch_is_ids_and_the_next_ids(built):
    ids = Shards(built)
    x, y = ShardWindows(ids, 4, 32, seed=0).batch(5)
    assert x.shape == y.shape == (4, 32) and x.dtype == torch.int64
    assert torch.equal(x[:, 1:], y[:, :-1])
    start = ShardWindows(ids, 4, 32, seed=0).starts(5)[2]
    assert torch.equal(x[2], ids[start : start + 32])


class Row:
    """As many ids as asked for, each its own place."""

    folder = "a folder"

    def __init__(self, size):
        self.ids = torch.arange(size)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, span):
        return self.ids[span]


@pytest.mark.parametrize("size", [9, 10, 15, 16, 17, 33, 40, 41])
def test_a_pass_begins_anywhere_and_stays_inside(size):
    windows = ShardWindows(Row(size), 1, 8, seed=0)
    count = windows.per_pass
    assert count == max(1, (size - 8) // 8)
    first = {
        min(windows.starts(n)[0] for n in range(turn, turn + count))
        for turn in range(0, 600 * count, count)
    }
    assert first == set(range(size - 8 * count))  # each cut, and no more
    (x,), (y,) = windows.batch(0)
    assert torch.equal(y, x + 1) and len(y) == 8
    with pytest.raises(ShardError, match="8 training tokens, fewer than one"):
        ShardWindows(Row(8), 1, 8, seed=0)


def test_another_seed_gives_another_order(built):
    one, other = (ShardWindows(Shards(built), 8, 32, s) for s in (0, 1))
    assert one.starts(0) != other.starts(0)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(
    "indexes", [range(30), range(20, 50), range(1, 60, 3), [3, 3, 9, 0, 1, 2]]
)
def test_prefetched_batches_are_the_same(built, workers, indexes):
    plain = ShardWindows(Shards(built), 3, 16, seed=0)
    ahead = Prefetch(ShardWindows(Shards(built), 3, 16, 0), workers)
    for index in indexes:
        for one, other in zip(ahead.batch(index), plain.batch(index)):
            assert torch.equal(one, other)
        assert len(ahead.jobs) <= 5
    if isinstance(indexes, range):  # what comes next is being made
        coming = [index + n * indexes.step for n in range(1, 5)]
        assert list(ahead.jobs) == coming


def test_batches_for_a_gpu_are_pinned(built, monkeypatch):
    pinned = []

    def pin(part):
        pinned.append(part.shape)
        return part

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    ahead = Prefetch(ShardWindows(Shards(built), 3, 16, 0), ahead=0)
    x, y = ahead.batch(0)
    assert pinned == [x.shape, y.shape] == [(3, 16)] * 2


def test_prefetch_tells_what_went_wrong(built):
    ahead = Shards(built).windows(2, 16, 0)
    (built / "train-00000.npy").unlink()
    ahead.windows.ids._open.cache_clear()
    with pytest.raises(ShardError, match="train-00000"):
        for index in range(50):
            ahead.batch(index)


def test_too_short_for_a_window(built):
    with pytest.raises(ShardError, match="fewer than one window"):
        ShardWindows(Shards(built), 1, 10**6, seed=0)


# The commands --------------------------------------------------------------


def data(source, out, *more):
    defaults = ["--tokenizer", "char", "--processes", "1"]
    return main(["data", "--source", f"{source}", "--out", f"{out}"]
                + defaults + list(more))  # fmt: skip


@pytest.fixture
def jsonl(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = (json.dumps({"text": text}) for text in texts())
    path.write_text("\n".join(rows))
    return path


TRAIN = (
    "--context-length 16 --emb-dim 16 --n-heads 2 --n-layers 1 "
    "--batch-size 4 --checkpoint-every 5 --eval-every 5 --sample-tokens 5 "
    "--precision fp32 --schedule constant --device cpu"
).split()


def test_data_then_train_then_resume(jsonl, tmp_path, capsys):
    out = tmp_path / "s"
    assert data(jsonl, out, "--shard-tokens", "4000") == 0
    assert "300 documents" in capsys.readouterr().out
    train = ["train", "--data", f"{out}", *TRAIN]
    whole, half = tmp_path / "whole", tmp_path / "half"
    assert main([*train, "--out", f"{whole}", "--max-steps", "10"]) == 0
    assert main([*train, "--out", f"{half}", "--max-steps", "5"]) == 0
    again = ["--resume", "--max-steps", "10"]
    assert main(["train", "--out", f"{half}", *again]) == 0
    weights = [f / "model.safetensors" for f in (whole, half)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert main(["sample", "--run", f"{half}", "--num-tokens", "3"]) == 0


def test_a_bar_shows_how_far_it_is(jsonl, tmp_path):
    command = [sys.executable, "-m", "minigpt", "data", "--source", jsonl,
               "--out", tmp_path / "s", "--tokenizer", "char"]  # fmt: skip
    env = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0
    assert "tokenizing: 100%" in done.stderr


def test_a_run_goes_on_with_its_own_shards_only(jsonl, tmp_path, capsys):
    out, run = tmp_path / "s", tmp_path / "run"
    data(jsonl, out)
    main(["train", "--data", f"{out}", *TRAIN, "--out", f"{run}",
          "--max-steps", "5"])  # fmt: skip
    data(jsonl, tmp_path / "t", "--seed", "1")
    os.replace(out, tmp_path / "old")
    os.replace(tmp_path / "t", out)
    assert main(["train", "--out", f"{run}", "--resume"]) == 2
    assert "is not the one that" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, message",
    [
        (["--processes", "0"], "processes is 0: write 1 or more"),
        (["--limit", "0"], "limit is 0: write 1 or more"),
        (["--val-fraction", "2"], "val_fraction is 2.0"),
        (["--column", "body"], "no text in 'body'"),
        (["--tokenizer", "none.json"], "none.json"),
        (["--out", ""], "--out is empty"),
    ],
)
def test_bad_flags_of_data(jsonl, tmp_path, capsys, more, message):
    assert data(jsonl, tmp_path / "s", *more) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_the_same_command_again(jsonl, tmp_path, capsys):
    out = tmp_path / "s"
    assert data(jsonl, out) == data(jsonl, out) == 0
    assert data(jsonl, out, "--limit", "100") == 2
    assert "another source limit (None, now 100)" in capsys.readouterr().err
    rows = [{"text": "left", "body": "right"}] * 50
    jsonl.write_text("\n".join(map(json.dumps, rows)))
    assert data(jsonl, tmp_path / "t") == 0
    assert data(jsonl, tmp_path / "t", "--column", "body") == 2
    assert "source column (text, now body)" in capsys.readouterr().err
    path = tmp_path / "t" / "val-00000.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert data(jsonl, tmp_path / "t") == 2  # it looks before it says "done"
    assert "val-00000.npy does not match" in capsys.readouterr().err


def test_ctrl_c_loses_nothing(jsonl, tmp_path, capsys, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "_write_parts", stopped)
    assert data(jsonl, tmp_path / "s") == 130
    line = f"stopped by Ctrl-C; what is finished is kept in {tmp_path / 's'}"
    assert line in capsys.readouterr().err


def test_characters_that_no_file_can_hold(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "a\ud800b"}) + "\n" + '{"text": "c"}')
    assert data(path, tmp_path / "s") == 0
    assert load_tokenizer(tmp_path / "s/tokenizer.json").chars == "\n?abc"


def test_only_so_many_documents(jsonl, tmp_path):
    data(jsonl, tmp_path / "s", "--limit", "100")
    assert Shards(tmp_path / "s").manifest["documents"] == 100
    some = data_command._first(listed("abcdef"), 4)
    assert [list(some.begin(n)) for n in (0, 2, 5)] == [[*"abcd"], [*"cd"], []]


def test_an_empty_file(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("")
    assert data(tmp_path / "a.txt", tmp_path / "s") == 2
    assert "a.txt is empty" in capsys.readouterr().err


def test_training_on_what_is_no_folder_of_shards(tmp_path, capsys):
    assert main(["train", "--data", f"{tmp_path}", "--out", "x"]) == 2
    assert "minigpt data" in capsys.readouterr().err
    build_shards(listed(texts()), LETTERS, tmp_path / "s", SMALL)
    flags = ["--data", f"{tmp_path / 's'}", "--tokenizer", "bpe"]
    assert main(["train", *flags, "--out", "x"]) == 2
    assert "leave --tokenizer out" in capsys.readouterr().err


# Plans ---------------------------------------------------------------------


def test_hours():
    assert hours(7_200_000, 1000) == 2
    with pytest.raises(ValueError, match="tokens_per_s is 0"):
        hours(1, 0)


def test_steady_speed():
    rows = [{"kind": "train", "tokens_per_s": s} for s in (1, 50, 90, 60)]
    assert steady_speed([{"kind": "val"}, *rows]) == 60
    with pytest.raises(ValueError, match="fewer than 2"):
        steady_speed(rows[:1])


@pytest.mark.parametrize("name", RUNS)
def test_the_commands_of_the_runs_are_understood(name):
    words = shlex.split(RUNS[name].command)
    train = _parse(words[words.index("train") :])
    config = train.train
    size = config.batch_size * config.grad_accum
    context = train.shape.context_length or 1024
    tokens = size * context * config.max_steps
    assert tokens == pytest.approx(RUNS[name].tokens, rel=1e-3)


def test_a_trainer_takes_shards(built):
    config = TrainConfig(
        max_steps=3, batch_size=2, warmup_steps=0, eval_every=3,
        device="cpu", precision="fp32",
    )  # fmt: skip
    losses = []
    for train_ids, val_ids in (
        (Shards(built), Shards(built, "val")),
        (Shards(built), Shards(built, "val")[:]),
    ):
        torch.manual_seed(0)
        model = GPT(GPTConfig(LETTERS.vocab_size, 16, 16, 2, 1))
        trainer = Trainer(model, train_ids, val_ids, config).fit()
        assert isinstance(trainer.windows, Prefetch)
        losses.append([row["loss"] for row in trainer.rows])
    assert losses[0] == losses[1]
