"""From documents to shards: the builder behind `minigpt data`.

The shuffle is a sort by random keys (chapter 12), done outside memory:

1. The source is read once. Blocks of documents are tokenized by several
   processes and gathered, in the order of the source, into parts, each
   sorted by key in memory and written to OUT/parts. A part that has its
   .json is complete; a build that was stopped goes on after the last one.
2. The parts are merged by ranges of the key, a range fitting in memory,
   and written as shards. manifest.json comes last and makes the folder
   whole; then the parts are removed.

Nothing depends on the number of processes, on when the work was stopped,
or on memory: the order of the documents is that of their keys.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from minigpt.pretraining import (
    ShardError,
    cut,
    random_keys,
    read_manifest,
    token_dtype,
)
from minigpt.runfolder import TrainingError, only_writer
from minigpt.sources import Documents, SourceError
from minigpt.text import CharTokenizer
from minigpt.tokenizer import Tokenizer, load_tokenizer

BLOCK = 2**20  # characters that a process gets at once
PART = 2**26  # characters of a part
RANGE = 2**24  # tokens that are sorted at once when parts are merged
BINS = 2**12  # the key's first 12 bits: the finest ranges there are
INDEX = np.dtype([("key", "<u8"), ("at", "<u8"), ("length", "<u8")])


@dataclass(frozen=True)
class ShardSettings:
    """What decides the contents of the shards, the source aside."""

    shard_tokens: int = 2**25
    """Tokens in a shard; the last one of a split is shorter."""
    val_fraction: float = 0.01
    """Share of the documents that is kept for validation."""
    piece_chars: int | None = None
    """Longer documents are cut at a line end: pieces are shuffled. Left
    out, 65536, or a twentieth of a text that is short."""
    seed: int = 1337
    """Decides the order of the documents, and which ones validate."""

    def __post_init__(self):
        for name in ("shard_tokens", "piece_chars"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: write 1 or more")
        if not 0 < self.val_fraction < 1:
            raise ValueError(
                f"val_fraction is {self.val_fraction}: write a number "
                "between 0 and 1"
            )
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed is {self.seed}: write 0 to 2**64 - 1")

    def filled(self, source: Documents) -> "ShardSettings":
        """The same with a piece_chars that gives some pieces to shuffle."""
        if self.piece_chars is not None:
            return self
        known = source.num_bytes or 20 * 2**16
        return replace(self, piece_chars=min(2**16, max(200, known // 20)))


def build_shards(
    source: Documents,
    tokenizer: Tokenizer,
    out: str | Path,
    settings: ShardSettings | None = None,
    processes: int = 1,
    progress: Callable[[int], None] = lambda num_bytes: None,
) -> dict:
    """Write a folder of shards; returns its manifest.

    A folder that was left unfinished is gone on with. progress hears how
    many bytes of text each block had. SourceError, ShardError for another
    build's folder, TrainingError if the disk is full.
    """
    out, settings = Path(out), (settings or ShardSettings()).filled(source)
    if processes < 1:
        raise ValueError(f"processes is {processes}: write 1 or more")
    with only_writer(out):
        job = _begin(source, tokenizer, out, settings)
        if not (out / "manifest.json").exists():
            parts = _write_parts(source, out, settings, processes, progress)
            manifest = job | _merge(parts, out, tokenizer, settings)
            _write_json(out / "manifest.json", manifest)
        # also what a kill after the manifest has left
        shutil.rmtree(out / "parts", ignore_errors=True)
    return read_manifest(out)


def _begin(
    source: Documents, tokenizer: Tokenizer, out: Path, settings: ShardSettings
) -> dict:
    """What is asked for; ShardError if `out` was begun with another."""
    vocabulary = out / "tokenizer.json"
    fresh = out / "tokenizer.json.new"
    with _disk(fresh):
        tokenizer.save(fresh)
        digest = hashlib.sha256(fresh.read_bytes()).hexdigest()
    job = {
        "format": 1,
        "source": {"name": source.name, **source.identity},
        "tokenizer": {
            "type": json.loads(fresh.read_text())["type"],
            "vocab_size": tokenizer.vocab_size,
            "sha256": digest,
        },
        "dtype": token_dtype(tokenizer.vocab_size).name,
        **asdict(settings),
    }
    try:
        _refuse_another(out, job)
    except ShardError:
        fresh.unlink()
        raise
    with _disk(vocabulary):
        os.replace(fresh, vocabulary)
        if not (out / "manifest.json").exists():
            (out / "parts").mkdir(exist_ok=True)
            _write_json(out / "parts" / "job.json", job)
    return job


def _refuse_another(out: Path, job: dict) -> None:
    """ShardError if the folder was begun or finished with another job."""
    if (out / "manifest.json").exists():
        found = read_manifest(out)
    else:
        found = _read_json(out / "parts" / "job.json")
    if found is None:  # nobody knows what the parts were made with
        shutil.rmtree(out / "parts", ignore_errors=True)
        return
    found = {key: found.get(key) for key in job}  # a manifest has more
    if found != job:
        name, before, now = _difference("", found, job)
        raise ShardError(
            f"{out} holds shards made with another{name} ({before}, now "
            f"{now}): repeat the command they were made with, or choose "
            "another folder"
        )


def _difference(name: str, before: object, now: object) -> tuple:
    """The first thing that differs, however deep: its name, and both."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before | now:
            old, new = before.get(key), now.get(key)
            if old != new:
                return _difference(f"{name} {key}", old, new)
    return name, before, now


class _disk:
    """Turns an OSError while writing into one sentence."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, OSError):
            raise TrainingError(
                f"cannot write {self.path} ({error.strerror or error}): free "
                "some space and give the same command again, it goes on "
                "with what is finished"
            ) from error


def _write(path: Path, *chunks: bytes | memoryview) -> None:
    """A whole file or none: temporary name, sync, rename."""
    part = path.with_name(path.name + ".tmp")
    with _disk(path):
        try:
            with open(part, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)  # the space is needed
            raise


def _write_json(path: Path, value: dict) -> None:
    _write(path, (json.dumps(value, indent=1) + "\n").encode())


def _read_json(path: Path) -> dict | None:
    """What _write_json wrote; None if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _npy(array: np.ndarray) -> tuple[bytes, memoryview]:
    """Header and contents of an array as a .npy file has them."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, np.lib.format.header_data_from_array_1_0(array)
    )
    return header.getvalue(), memoryview(array).cast("B")


# 1. Documents to parts -----------------------------------------------------


_tokenizer: Tokenizer | None = None  # of a worker process


def _start_worker(path: str) -> None:
    global _tokenizer
    _tokenizer = load_tokenizer(path)
    # a worker whose parent was killed would wait for ever
    from multiprocessing import parent_process

    def leave() -> None:
        parent_process().join()
        os._exit(1)

    if parent_process() is not None:
        threading.Thread(target=leave, daemon=True).start()


def utf8(document: str) -> bytes:
    """The bytes of a document; a lone surrogate, which has none, is "?"."""
    return document.encode("utf-8", "replace")


def tokenize(
    documents: list[str], tokenizer: Tokenizer, piece_chars: int
) -> tuple[np.ndarray, list[int], int]:
    """Token ids of all pieces in a row, their lengths, bytes of text.

    Each piece ends with the tokenizer's start_id: an end of text, where
    it has one, else a newline.
    """
    dtype = token_dtype(tokenizer.vocab_size)
    end = _end_of_piece(tokenizer)
    arrays, num_bytes = [np.empty(0, dtype)], 0
    for document in documents:
        raw = utf8(document)
        num_bytes += len(raw)
        for piece in cut(raw.decode(), piece_chars):
            arrays.append(np.array(tokenizer.encode(piece) + end, dtype))
    lengths = [len(array) for array in arrays[1:]]
    return np.concatenate(arrays), lengths, num_bytes


def _end_of_piece(tokenizer: Tokenizer) -> list[int]:
    if isinstance(tokenizer, CharTokenizer):
        return tokenizer.encode("\n") if "\n" in tokenizer.chars else []
    return [tokenizer.start_id]


@contextlib.contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Processes that are started meanwhile leave Ctrl-C to this one."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say so
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _tokenize_in_worker(documents: list[str], piece_chars: int):
    return tokenize(documents, _tokenizer, piece_chars)


def _blocks(documents: Iterator[str]) -> Iterator[list[str]]:
    """Neighbouring documents, about BLOCK characters together."""
    block, size = [], 0
    for document in documents:
        block.append(document)
        size += len(document)
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _tokenized(
    blocks: Iterator[list[str]], out: Path, processes: int, piece_chars: int
) -> Iterator[tuple[int, np.ndarray, list[int], int]]:
    """Each block's documents, tokens, lengths, bytes, in the same order."""
    vocabulary = str(out / "tokenizer.json")
    first = list(islice(blocks, 2))
    blocks = chain(first, blocks)
    if processes == 1 or len(first) < 2:  # not worth starting a process
        tokenizer = load_tokenizer(vocabulary)
        for block in blocks:
            yield len(block), *tokenize(block, tokenizer, piece_chars)
        return
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    with ProcessPoolExecutor(
        processes, get_context("spawn"), _start_worker, (vocabulary,)
    ) as pool:
        waiting = deque()
        try:
            for block in blocks:
                with _ctrl_c_ignored():  # the pool starts processes here
                    job = pool.submit(_tokenize_in_worker, block, piece_chars)
                waiting.append((len(block), job))
                if len(waiting) > 2 * processes:  # no more in memory
                    count, job = waiting.popleft()
                    yield count, *job.result()
            for count, job in waiting:
                yield count, *job.result()
        except BrokenProcessPool as error:
            raise TrainingError(
                "a process that tokenized was killed, perhaps because the "
                "memory was full: give the same command again with fewer "
                "--processes, it goes on with what is finished"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _write_parts(
    source: Documents,
    out: Path,
    settings: ShardSettings,
    processes: int,
    progress: Callable[[int], None],
) -> list[dict]:
    """Tokenize what no part has yet; returns what each part holds."""
    parts = _finished_parts(out)
    if parts and parts[-1]["last"]:
        return parts
    documents = sum(part["documents"] for part in parts)
    for part in parts:
        progress(part["bytes"])
    blocks = _blocks(source.begin(documents))
    gathered: list[tuple] = []
    size = 0
    for block in _tokenized(blocks, out, processes, settings.piece_chars):
        progress(block[3])
        gathered.append(block)
        size += block[3]
        if size >= PART:
            parts.append(_write_part(gathered, parts, out, settings, False))
            gathered, size = [], 0
    parts.append(_write_part(gathered, parts, out, settings, True))
    if sum(part["pieces"] for part in parts) == 0:
        shutil.rmtree(out / "parts")
        raise SourceError(
            f"{source.name} is empty: it has no document with a character "
            "in it; name another source"
        )
    return parts


def _finished_parts(out: Path) -> list[dict]:
    """What is in each complete part, up to the first that is not."""
    parts = []
    while part := _read_json(_part_path(out, len(parts), ".json")):
        if not _is_whole(out, len(parts), part):
            break
        parts.append(part)
    return parts


def _is_whole(out: Path, number: int, part: dict) -> bool:
    """Whether both files of a part have the length that its .json says."""
    try:
        sizes = [
            len(np.load(_part_path(out, number, suffix), mmap_mode="r"))
            for suffix in (".tokens.npy", ".index.npy")
        ]
    except (OSError, ValueError, EOFError):
        return False
    return sizes == [part["tokens"], part["pieces"]]


def _part_path(out: Path, number: int, suffix: str) -> Path:
    return out / "parts" / f"{number:06d}{suffix}"


def _write_part(
    gathered: list[tuple],
    before: list[dict],
    out: Path,
    settings: ShardSettings,
    last: bool,
) -> dict:
    """Sort a part by key and write it; its .json comes last."""
    dtype = token_dtype(load_tokenizer(out / "tokenizer.json").vocab_size)
    empty = np.empty(0, dtype)
    tokens = np.concatenate([empty, *(block[1] for block in gathered)])
    lengths = np.array(
        [length for block in gathered for length in block[2]], np.int64
    )
    first = sum(part["pieces"] for part in before)
    keys = random_keys(first, len(lengths), settings.seed)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    order = np.argsort(keys)
    index = np.empty(len(lengths), INDEX)
    index["key"], index["length"] = keys[order], lengths[order]
    index["at"] = np.cumsum(lengths[order]) - lengths[order]
    pieces = [tokens[starts[n] : starts[n] + lengths[n]] for n in order]
    number = len(before)
    _write(
        _part_path(out, number, ".tokens.npy"),
        *_npy(np.concatenate([empty, *pieces])),
    )
    _write(_part_path(out, number, ".index.npy"), *_npy(index))
    part = {
        "documents": sum(block[0] for block in gathered),
        "pieces": len(lengths),
        "tokens": len(tokens),
        "bytes": sum(block[3] for block in gathered),
        "last": last,
    }
    _write_json(_part_path(out, number, ".json"), part)
    return part


# 2. Parts to shards --------------------------------------------------------


def _merge(
    parts: list[dict], out: Path, tokenizer: Tokenizer, settings: ShardSettings
) -> dict:
    """Write all shards; what the manifest says about them."""
    pieces = sum(part["pieces"] for part in parts)
    val_pieces = max(1, round(settings.val_fraction * pieces))
    if val_pieces >= pieces:
        shutil.rmtree(out / "parts")  # the remedies change what is in them
        if pieces == 1:
            raise SourceError(
                "the whole text is one piece, and another one is needed for "
                "validation: give a longer text or a smaller --piece-chars"
            )
        raise SourceError(
            f"{settings.val_fraction:g} of {pieces} pieces leaves none to "
            "train on: give a smaller --val-fraction or --piece-chars"
        )
    dtype = token_dtype(tokenizer.vocab_size)
    writers = {
        name: _Writer(out, name, dtype, settings.shard_tokens)
        for name in ("val", "train")
    }
    done = 0
    for arrays in _sorted_pieces(len(parts), out):
        # the first pieces of the order validate, the others train
        split = min(len(arrays), max(0, val_pieces - done))
        writers["val"].add(arrays[:split])
        writers["train"].add(arrays[split:])
        done += len(arrays)
    counts = {
        key: sum(part[key] for part in parts)
        for key in ("documents", "pieces", "bytes", "tokens")
    }
    splits = {name: writers[name].finish() for name in ("train", "val")}
    return counts | {"splits": splits}


def _sorted_pieces(num_parts: int, out: Path) -> Iterator[list[np.ndarray]]:
    """All pieces in the order of their keys, a range of keys at a time."""
    edges = np.arange(1, BINS, dtype=np.uint64) << np.uint64(52)
    size = np.zeros(BINS, np.int64)  # tokens whose key falls in each bin
    for number in range(num_parts):
        index = np.load(_part_path(out, number, ".index.npy"), mmap_mode="r")
        total = np.concatenate([[0], np.cumsum(index["length"])])
        places = np.searchsorted(index["key"], edges)
        size += np.diff(total[[0, *places, len(index)]].astype(np.int64))
    lows = [0]
    for place in range(1, BINS):
        if size[lows[-1] : place + 1].sum() > RANGE:
            lows.append(place)
    for low, high in zip(lows, [*lows[1:], BINS]):
        yield _range_of(num_parts, out, low << 52, (high << 52) - 1)


def _range_of(
    num_parts: int, out: Path, low: int, high: int
) -> list[np.ndarray]:
    """The pieces with low <= key <= high, sorted by key."""
    keys, pieces = [np.empty(0, np.uint64)], []
    for number in range(num_parts):
        index = np.load(_part_path(out, number, ".index.npy"), mmap_mode="r")
        column = index["key"]
        first = np.searchsorted(column, np.uint64(low))
        after = np.searchsorted(column, np.uint64(high), side="right")
        if first == after:
            continue
        some = np.array(index[first:after])
        begin, end = some[0]["at"], some[-1]["at"] + some[-1]["length"]
        stored = np.load(
            _part_path(out, number, ".tokens.npy"), mmap_mode="r"
        )
        tokens = np.array(stored[begin:end])
        keys.append(some["key"])
        pieces += np.split(tokens, (some["at"][1:] - begin).astype(np.int64))
    return [pieces[n] for n in np.argsort(np.concatenate(keys))]


class _Writer:
    """Cuts a stream of tokens into the shards of a split."""

    def __init__(self, out: Path, split: str, dtype: np.dtype, size: int):
        self.out, self.split, self.size = out, split, size
        self.dtype, self.shards = dtype, []
        self.waiting, self.count, self.pieces = [], 0, 0

    def add(self, pieces: list[np.ndarray]) -> None:
        self.pieces += len(pieces)
        for piece in pieces:
            self.waiting.append(piece)
            self.count += len(piece)
            while self.count >= self.size:
                row = np.concatenate(self.waiting)
                self._write(row[: self.size])
                self.waiting = [row[self.size :]]
                self.count -= self.size

    def _write(self, tokens: np.ndarray) -> None:
        chunks = _npy(np.ascontiguousarray(tokens, self.dtype))
        digest = hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
        name = f"{self.split}-{len(self.shards):05d}.npy"
        _write(self.out / name, *chunks)
        self.shards.append(
            {"file": name, "tokens": len(tokens), "sha256": digest.hexdigest()}
        )

    def finish(self) -> dict:
        """Write what is left; the manifest's entry of this split."""
        if self.count:
            self._write(np.concatenate(self.waiting))
        total = sum(shard["tokens"] for shard in self.shards)
        return {"tokens": total, "pieces": self.pieces, "shards": self.shards}
