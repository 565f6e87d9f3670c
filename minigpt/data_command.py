"""`minigpt data`: documents from anywhere become a folder of shards."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import tyro

from minigpt.pretraining import Shards, verify
from minigpt.shards import ShardSettings, build_shards, utf8
from minigpt.sources import Documents, SourceError, open_source
from minigpt.terminal import spelled
from minigpt.text import CharTokenizer
from minigpt.tokenizer import Tokenizer, gpt2_tokenizer, load_tokenizer


def _cores() -> int:
    """The machine's cores; Windows waits for at most 61 processes."""
    return min(os.cpu_count() or 1, 61)


@dataclass(frozen=True)
class Data:
    """Turn documents into shuffled shards of tokens to train on."""

    source: str
    """A registered text (shakespeare), a file or folder (txt, jsonl, .gz,
    parquet), a URL, a share link of Google Drive, or a dataset of Hugging
    Face: hf:owner/name:config:split."""
    out: Path
    """The folder to write; one that was left unfinished is gone on with."""
    tokenizer: str = "gpt2"
    """gpt2, char (one token a character: the source is read twice), or a
    file that a tokenizer's save() wrote."""
    column: str = "text"
    """The field with the text, in jsonl, parquet and datasets."""
    limit: int | None = None
    """Take only so many documents."""
    processes: int = field(default_factory=_cores)
    """How many tokenize at once; the result does not depend on it."""
    settings: tyro.conf.OmitArgPrefixes[ShardSettings] = field(
        default_factory=ShardSettings
    )

    def __post_init__(self):
        for name in ("processes", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: write 1 or more")
        if self.out == Path():
            raise ValueError("--out is empty: name a folder, as fineweb")

    def __call__(self) -> int:
        from tqdm import tqdm

        source = open_source(self.source, self.column)
        if self.limit is not None:
            source = _first(source, self.limit)
        with _can_go_on(self.out), tqdm(
            total=source.num_bytes,
            unit="B",
            unit_scale=True,
            desc="tokenizing",
            dynamic_ncols=True,
        ) as bar:
            manifest = build_shards(
                source,
                self._tokenizer(source),
                self.out,
                self.settings,
                self.processes,
                bar.update,
            )
            bar.total = bar.n  # files hold more than their text
        for split in ("train", "val"):
            verify(Shards(self.out, split))
        counts = manifest["splits"]
        print(
            f"{manifest['documents']:,} documents, "
            f"{manifest['bytes']:,} bytes: {counts['train']['tokens']:,} "
            f"tokens to train on, {counts['val']['tokens']:,} to validate, "
            f"in {self.out}"
        )
        train = spelled("minigpt", "train", "--data", self.out)
        print(f"Next: {train} --out runs/NAME")
        return 0

    def _tokenizer(self, source: Documents) -> Tokenizer:
        if self.tokenizer == "gpt2":
            return gpt2_tokenizer()
        if self.tokenizer != "char":
            return load_tokenizer(self.tokenizer)
        begun = self.out / "tokenizer.json"
        if begun.exists():  # a build that goes on
            return load_tokenizer(begun)
        chars = set("\n")
        for document in source:
            chars.update(utf8(document).decode())
        if len(chars) == 1:
            raise SourceError(
                f"{self.source} is empty: it has no document with a "
                "character in it; name another source"
            )
        return CharTokenizer("".join(chars))


@contextlib.contextmanager
def _can_go_on(out: Path) -> Iterator[None]:
    """Ctrl-C says that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped by Ctrl-C; what is finished is kept in {out}, the same "
            "command goes on with it"
        ) from None


def _first(source: Documents, limit: int) -> Documents:
    """The first `limit` documents of a source."""
    return replace(
        source,
        begin=lambda start: islice(source.begin(start), max(0, limit - start)),
        identity=source.identity | {"limit": limit},
        num_bytes=None,
    )
