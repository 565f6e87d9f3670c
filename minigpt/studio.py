"""A model at work for several people at once; what `minigpt app` shows.

Nothing here knows of a browser. Every text is written in a thread of its
own, because PyTorch's gradient mode belongs to a thread; the threads take
turns, one token each, so that nobody waits for another's text to end.
"""

import contextlib
import os
import threading
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import NamedTuple

import torch
from torch import Tensor, nn

from minigpt.bigram import evaluating
from minigpt.figures import visible
from minigpt.runfolder import RunError
from minigpt.sampling import Sampler, stream
from minigpt.sharing import first_text, load_any, loss_rows, run_facts
from minigpt.text import CharTokenizer

MAX_PROMPT = 2_000  # characters
MAX_TOKENS = 1_000
MAX_SAMPLES = 4
MAX_SEED = 10**15  # a browser counts these exactly
SHOWN = 10  # tokens in the chart
HEAT = 32  # tokens in a heat map
# What is told of a model beside its shape: the key in its run's facts, how
# the page calls it, and how it is written.
TOLD = (
    ("val_loss", "best validation loss", ".3f"),
    ("tokens", "tokens seen in training", ","),
    ("data", "trained on", ""),
    ("device", "trained with", ""),
    ("date", "date", ""),
)


class Turns:
    """A lock that is handed over in the order in which it was asked for."""

    def __init__(self):
        self._lock, self._waiting = threading.Lock(), deque()
        self._taken = False

    def __enter__(self):
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Event()
            self._waiting.append(mine)
        mine.wait()

    def __exit__(self, *_):
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()  # it stays taken
            else:
                self._taken = False


def _all_of(queue: Queue) -> list:
    """What is in a queue, once there is something.

    Showing takes longer than writing when the machine is busy: what has
    been written meanwhile is shown at once.
    """
    items = [queue.get()]
    with contextlib.suppress(Empty):
        while True:
            items.append(queue.get_nowait())
    return items


class Wish(NamedTuple):
    """What somebody wants written."""

    prompt: str
    sampler: Sampler
    num_tokens: int
    num_samples: int
    seed: int


class Studio:
    """A model, its tokenizer, and what is known of how it was trained."""

    def __init__(
        self, model: nn.Module, tokenizer, name: str,
        told: dict | None = None, rows: tuple[dict, ...] = (),
    ):
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.told, self.rows = told or {}, rows
        self.first = first_text(tokenizer)
        self._turns = Turns()
        self._device = next(model.parameters()).device

    def check(self, wish: Wish) -> None:
        """ValueError, in one sentence, for what cannot be written."""
        bounds = (("tokens", wish.num_tokens, MAX_TOKENS),
                  ("samples", wish.num_samples, MAX_SAMPLES))
        for what, value, most in bounds:
            if not 1 <= value <= most:
                raise ValueError(f"{value} {what}: choose 1 to {most}")
        if not 0 <= wish.seed <= MAX_SEED:
            raise ValueError(f"seed {wish.seed}: choose 0 to {MAX_SEED:,}")
        self.encode(wish.prompt)

    def encode(self, text: str) -> Tensor:
        """The ids (1, T) of a text; ValueError if it is too long, or holds
        a character that the model has never seen."""
        if len(text) > MAX_PROMPT:
            raise ValueError(
                f"the prompt has {len(text):,} characters: shorten it to "
                f"{MAX_PROMPT:,}"
            )
        if isinstance(self.tokenizer, CharTokenizer):
            refuse_unknown(text, self.tokenizer.chars)
        ids = self.tokenizer.encode(text or self.first)
        return torch.tensor([ids], device=self._device)  # (1, T)

    def write(self, wish: Wish) -> Iterator[list[str]]:
        """The samples as far as they are written, again and again.

        Sample number n depends on seed + n alone: not on how many there
        are, nor on who else is writing. Closing the iterator stops it.
        """
        self.check(wish)
        pieces: Queue = Queue()
        stop = threading.Event()
        args = (wish, pieces, stop)
        threading.Thread(target=self._work, args=args, daemon=True).start()
        texts, over = [""] * wish.num_samples, False
        try:
            while not over:
                for item in _all_of(pieces):
                    if isinstance(item, Exception):
                        raise item
                    if item is None:
                        over = True
                    else:
                        number, piece = item
                        texts[number] += piece
                yield list(texts)
        finally:
            stop.set()

    def _work(self, wish: Wish, pieces: Queue, stop: threading.Event) -> None:
        try:
            streams = dict(enumerate(self._streams(wish)))
            while streams and not stop.is_set():
                for number, running in list(streams.items()):
                    with self._turns:
                        piece = next(running, None)
                    if piece is None:
                        del streams[number]
                    else:
                        pieces.put((number, piece))
                    if stop.is_set():
                        break
        except Exception as error:  # whoever reads on is told
            pieces.put(error)
        finally:
            pieces.put(None)

    def _streams(self, wish: Wish) -> Iterator[Iterator[str]]:
        for number in range(wish.num_samples):
            dice = torch.Generator(self._device)
            dice.manual_seed(wish.seed + number)
            yield stream(
                self.model, self.tokenizer, wish.prompt or self.first,
                wish.num_tokens, sampler=wish.sampler, generator=dice,
                keep=max(1, self.model.context_length // 2),
            )

    def next_tokens(self, text: str, sampler: Sampler) -> dict[str, float]:
        """The likeliest next tokens after a text, with what the settings
        leave of their probabilities."""
        ids = self.encode(text)[:, -self.model.context_length :]
        seen = torch.zeros(
            1, self.tokenizer.vocab_size, dtype=torch.bool, device=self._device
        ).scatter_(1, ids, True)
        with self._turns, evaluating(self.model):
            logits = self.model(ids, last=True)[:, -1].float()  # (1, V)
            if sampler.temperature == 0:
                probs = torch.zeros_like(logits)
                probs[0, logits.argmax()] = 1.0
            else:
                probs = sampler.filter(logits, seen).softmax(-1)  # (1, V)
        best = probs[0].topk(min(SHOWN, probs.shape[1]))
        labels = [self.label(i) for i in best.indices.tolist()]
        twice = Counter(labels)
        return {
            label if twice[label] == 1 else f"{label} #{number}": value
            for label, number, value in zip(
                labels, best.indices.tolist(), best.values.tolist()
            )
            if value > 0
        }

    def label(self, token: int) -> str:
        """A token as it is written in a chart."""
        return visible(self.tokenizer.decode([token]))

    def attention(self, text: str, layer: int) -> tuple[list[str], Tensor]:
        """The last tokens of a text, and who looks at whom in each head of
        a layer (counted from 1): (nh, T, T)."""
        if not 1 <= layer <= len(self.model.h):
            raise ValueError(
                f"layer {layer}: choose 1 to {len(self.model.h)}"
            )
        most = min(HEAT, self.model.context_length)
        ids = self.encode(text)[:, -most:]  # (1, T)
        model = self.model
        with self._turns, evaluating(model):
            places = torch.arange(ids.shape[1], device=self._device)
            x = model.wte(ids) + model.wpe(places)  # (1, T, C)
            for block in model.h[: layer - 1]:
                x = block(x)
            block = model.h[layer - 1]
            maps = block.attn.weights(block.ln_1(x))[0]  # (nh, T, T)
        return [self.label(i) for i in ids[0].tolist()], maps.cpu()

    def facts(self) -> list[tuple[str, str]]:
        """What is known of the model, as pairs of words."""
        c = self.model.config
        found = [
            ("model", self.name),
            ("parameters", f"{self.model.num_params():,}"),
            ("layers, heads, width",
             f"{c.n_layers}, {c.n_heads}, {c.emb_dim}"),
            ("context", f"{c.context_length:,} tokens"),
            ("vocabulary", f"{c.vocab_size:,} tokens"),
        ]
        for key, words, form in TOLD:
            if self.told.get(key):
                found.append((words, format(self.told[key], form)))
        return found


def open_studio(run: str, device: str) -> Studio:
    """The studio of a run folder, an exported folder (a Space as well), or
    an official name.

    RunError or WeightsError if there is no model in it.
    """
    model, tokenizer = load_any(run, device)
    for weight in model.parameters():
        # it may lie in the file, which somebody may overwrite
        weight.data = weight.data.clone()
    try:
        told, rows = run_facts(run), loss_rows(run)
    except RunError:  # the weights are sound: show them without a curve
        told, rows = {}, []
    name = told.get("name") or Path(os.path.abspath(run)).name
    return Studio(model, tokenizer, name, told, tuple(rows))


def refuse_unknown(text: str, chars: str) -> None:
    """ValueError that tells somebody who only sees the page what to do."""
    unknown = sorted(set(text) - set(chars), key=text.index)
    if unknown:
        first = " ".join(map(repr, unknown[:5]))
        more = " …" if len(unknown) > 5 else ""
        raise ValueError(
            f"this model knows only the {len(chars)} characters of the text "
            f"it was trained on: take {first}{more} out of the prompt"
        )


def examples(tokenizer) -> list[str]:
    """Prompts that this model can read."""
    known = ("ROMEO:\n", "To be, or not to be", "The meaning of life is",
             "Once upon a time", "JULIET:\nO ")
    if isinstance(tokenizer, CharTokenizer):
        readable = set(tokenizer.chars)
        return [text for text in known if set(text) <= readable][:4]
    return list(known[:4])
