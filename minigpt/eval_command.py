"""`minigpt eval`: what a saved model is worth, on a text or on HellaSwag."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from minigpt.evaluation import (
    PUBLISHED,
    RULES,
    Item,
    accuracy,
    load_hellaswag,
    load_items,
    score_endings,
    score_text,
)
from minigpt.hardware import check_device, is_out_of_memory
from minigpt.pretraining import Shards, verify
from minigpt.runfolder import RunError, TrainingError, read_run_config
from minigpt.sharing import is_run, load_any
from minigpt.text import best_device, load_text
from minigpt.tokenizer import END_OF_TEXT, load_tokenizer

TEXT_ONLY = ("context_length", "part", "stride")
Part = Literal["val", "train", "all"]
RULE_NAMES = {
    "sum": "by the sum",
    "token": "by the mean per token",
    "char": "by the mean per character",
}


@dataclass(frozen=True)
class Eval:
    """Measure a saved model: loss and bits per byte, or HellaSwag."""

    run: str
    """A run folder, a folder in Hugging Face's format, or the name of an
    official model: gpt2, gpt2-medium, gpt2-large, gpt2-xl."""
    on: Literal["text", "hellaswag"] = "text"
    """What to measure on."""
    data: str | None = None
    """For text: a registered text, a file, a URL or a folder of shards; left
    out, what the run was trained on (shakespeare for a GPT-2). For
    hellaswag: a file in its format; left out, the official validation set,
    downloaded once."""
    part: Part | None = None
    """Which part of the text: val (the last tenth, or the shards that are
    kept for it), train or all; left out, val for shards and without --data,
    else all."""
    limit: int | None = None
    """Only so many characters of the text, or so many items, evenly
    spread over the file."""
    context_length: int | None = None
    """Tokens the model may look back on at most; left out, its own."""
    stride: int | None = None
    """Tokens scored per window; left out, half the context. Less is
    slower and gives every token more context."""
    style: Literal["script", "harness"] = "script"
    """How an item of HellaSwag is written out: as in Karpathy's script or
    as in EleutherAI's harness."""
    batch_size: int = 8
    """Windows or endings at once."""
    device: str = "auto"
    """auto, cpu, cuda, mps ..."""

    def __post_init__(self):
        for name in ("limit", "context_length", "stride", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: write 1 or more")
        given = {name for name in TEXT_ONLY if getattr(self, name) is not None}
        if self.on == "hellaswag" and given:
            raise ValueError(
                f"{min(given)} is for --on text: leave it out, an item is "
                "scored as a whole"
            )

    def __call__(self) -> int:
        auto = self.device == "auto"
        device = check_device(best_device() if auto else self.device)
        is_run(self.run)  # refuses what is missing before all downloads
        on_text = self.on == "text"
        data = self._read() if on_text else self._items()
        model, tokenizer = load_any(self.run, device)
        own = model.context_length
        if self.context_length is not None and self.context_length > own:
            raise ValueError(
                f"context_length is {self.context_length}: this model was "
                f"built for {own}; write 1 to {own}"
            )
        print(f"{self.run}: {model.num_params():,} parameters on {device}")
        with _explained_memory(self.batch_size):
            if on_text:
                self._score_text(model, tokenizer, *data)
            else:
                self._score_items(model, tokenizer, data)
        return 0

    def _score_text(
        self, model: nn.Module, tokenizer, name: str, text: str
    ) -> None:
        length = self.context_length or model.context_length
        stride = self.stride or (length + 1) // 2
        score = score_text(
            model,
            tokenizer,
            text,
            context_length=length,
            stride=stride,
            batch_size=self.batch_size,
        )
        print(
            f"{name}: {score.chars:,} characters, {score.bytes:,} bytes, "
            f"{score.tokens:,} tokens\n"
            f"windows of {length} every {stride}: each token once, after "
            f"{length - stride + 1} to {length} others (fewer at the start)\n"
            f"  loss           {score.loss:9.4f}  nats a token\n"
            f"  perplexity     {score.perplexity:9.2f}\n"
            f"  bits per byte  {score.bits_per_byte:9.4f}  "
            "(compares with any model on this text)"
        )

    def _read(self) -> tuple[str, str]:
        """What to call the text, and the text."""
        from minigpt.train_command import text_digest

        data, part, digest = self.data, self.part, None
        if data is None:
            (data, digest), part = self._own_text(), part or "val"
        folder = Path(data)
        sharded = (folder / "manifest.json").is_file()
        whole = Shards(folder) if sharded else load_text(data)
        if digest and text_digest(whole) != digest:
            raise RunError(
                f"the text {data!r} is no longer the one that {self.run} "
                "was trained on: name a text with --data"
            )
        part = part or ("val" if sharded else "all")
        if sharded:
            text = _text_of_shards(folder, part, self.limit)
        else:
            cut = int(len(whole) * 0.9)  # as train_val_split
            text = {"val": whole[cut:], "train": whole[:cut], "all": whole}[
                part
            ]
        if not text:
            raise ValueError(f"{data} has no {part} part: use a longer text")
        name = data if part == "all" else f"{data}, {part} part"
        return name, text[: self.limit]

    def _own_text(self) -> tuple[str, str | None]:
        """What the run was trained on, and its sha256 if that is known."""
        if not is_run(self.run):
            return "shakespeare", None
        stored = read_run_config(self.run)
        if not isinstance(stored.get("data"), str):
            raise RunError(
                f"{self.run} does not say what it was trained on: name a "
                "text with --data"
            )
        return stored["data"], stored.get("data_sha256")

    def _items(self) -> list[Item]:
        """The questions."""
        if self.data is not None:
            return spread(load_items(self.data, self.style), self.limit)
        try:
            return spread(load_hellaswag(self.style), self.limit)
        except ConnectionError as error:
            raise ConnectionError(
                f"{error}, or name a file in its format with --data"
            ) from None

    def _score_items(
        self, model: nn.Module, tokenizer, items: list[Item]
    ) -> None:
        scores = []
        for chunk in _with_progress(items):
            scores += score_endings(model, tokenizer, chunk, self.batch_size)
        guess = sum(1 / len(item.endings) for item in items) / len(items)
        print(f"{len(items):,} items, style {self.style}; guessing: "
              f"{guess:.0%}")
        for rule in RULES:
            result = accuracy(items, scores, rule)
            print(f"  {RULE_NAMES[rule]:<26}{result}")
        published = PUBLISHED.get(self.run, {}).get(self.style)
        if published and self.data is None:
            known = ", ".join(f"{RULE_NAMES[rule]} {value} %"
                              for rule, value in published.items())
            print(f"  published on all items: {known}")


@contextlib.contextmanager
def _explained_memory(batch_size: int) -> Iterator[None]:
    """Out of memory becomes a TrainingError that says what to halve."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        remedy = (
            f"write --batch-size {batch_size // 2}"
            if batch_size > 1
            else "write --device cpu, or a smaller --context-length"
        )
        raise TrainingError(f"out of memory: {remedy}") from error


def _text_of_shards(folder: Path, part: Part, limit: int | None) -> str:
    """What shards were made from, a newline where each document ends.

    limit: as many characters, or a little more.
    """
    texts = []
    for split in ("train", "val") if part == "all" else (part,):
        ids = Shards(folder, split)
        verify(ids)
        most = 4 * limit if limit else len(ids)  # bytes a character
        tokenizer = load_tokenizer(folder / "tokenizer.json")
        text = tokenizer.decode(ids[:most].tolist())
        texts.append(text.replace(END_OF_TEXT, "\n"))
    return "".join(texts)


def spread(items: list[Item], limit: int | None) -> list[Item]:
    """`limit` items, evenly spread: the file's parts differ."""
    if limit is None or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def _with_progress(items: list[Item], size: int = 32) -> Iterator[list[Item]]:
    """The items in chunks, with a bar on a terminal."""
    from tqdm import tqdm

    with tqdm(
        total=len(items), unit="item", disable=not sys.stderr.isatty()
    ) as bar:
        for at in range(0, len(items), size):
            chunk = items[at : at + size]
            yield chunk
            bar.update(len(chunk))
