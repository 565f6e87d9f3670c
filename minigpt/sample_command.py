"""`minigpt sample`: text from a trained model, on a terminal or a pipe."""

import os
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro

from minigpt.hardware import check_device
from minigpt.sampling import Sampler, complete, stream, to_int8
from minigpt.sharing import first_text, load_any
from minigpt.text import CharTokenizer, best_device
from minigpt.tokenizer import Tokenizer

# More at a time is a slip of the finger, and would fill the memory.
MOST = {"num_tokens": 1_000_000, "num_samples": 1_000}


@dataclass(frozen=True)
class Sample:
    """Write text with a trained model."""

    run: Path
    """A run folder, an exported one, a GPT-2 in Hugging Face's format, or
    the name of an official one, such as gpt2."""
    prompt: str | None = None
    """The text to go on from; left out, what is piped in, or a newline
    (if the model knows none, the first character that it knows)."""
    prompt_file: Path | None = None
    """A UTF-8 file with the prompt (without its last line end)."""
    num_tokens: int = 300
    """How many tokens to write at most."""
    num_samples: int = 1
    """How many texts to write, all at once."""
    seed: int | None = None
    """The same seed gives the same text; left out, each run differs."""
    stop: tuple[str, ...] = ()
    """A text ends before any of these strings."""
    stream: bool = field(default_factory=lambda: sys.stdout.isatty())
    """Show a single text while it is written; the default on a terminal."""
    sampler: tyro.conf.OmitArgPrefixes[Sampler] = field(
        default_factory=lambda: Sampler(temperature=0.8)
    )
    keep: int | None = None
    """Tokens that stay in view when the context is full; left out, all
    that fit, which is slowest. Half the context is a good choice."""
    int8: bool = False
    """8-bit weights: faster on a CPU, a little less exact."""
    device: str = "auto"
    """auto, cpu, cuda, mps ..."""

    def __post_init__(self):
        for name, most in MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(
                    f"{name} is {getattr(self, name)}: write 1 to {most:,}"
                )
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}: write 0 to 2**63 - 1")
        if self.prompt is not None and self.prompt_file is not None:
            raise ValueError("give --prompt or --prompt-file, not both")
        if self.prompt == "":
            raise ValueError(
                "the prompt is empty: give at least one character"
            )

    def __call__(self) -> int:
        auto = "cpu" if self.int8 else best_device()
        device = check_device(auto if self.device == "auto" else self.device)
        model, tokenizer = load_any(self.run, device)
        if self.int8:
            model = to_int8(model)
        prompt = self._read_prompt() or first_text(tokenizer)
        _refuse_unknown(prompt, tokenizer)
        generator = torch.Generator(device)
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        settings = {
            "sampler": self.sampler,
            "stop": self.stop,
            "generator": generator,
            "keep": self.keep,
        }
        if self.stream and self.num_samples == 1:
            self._show(prompt, stream(
                model, tokenizer, prompt, self.num_tokens, **settings
            ))
            return 0
        prompts = [prompt] * self.num_samples
        done = complete(
            model, tokenizer, prompts, self.num_tokens, **settings
        )
        for number, one in enumerate(done, start=1):
            if self.num_samples > 1:
                print(f"----- {number} of {self.num_samples} -----")
            self._show(prompt, [one.text])
        return 0

    def _show(self, prompt: str, pieces: Iterable[str]) -> None:
        print(prompt, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
        print()

    def _read_prompt(self) -> str:
        """From the flag, the file, or the pipe; empty if there is none."""
        if self.prompt is not None:
            return self.prompt
        if self.prompt_file is not None:
            text = _read_prompt_file(self.prompt_file)
        else:
            text = _piped()
        text = text.removesuffix("\n")  # editors and echo add it
        if not text and self.prompt_file is not None:
            raise ValueError(
                f"{self.prompt_file} is empty: write a prompt into it"
            )
        return text


def _piped() -> str:
    """What is piped or redirected to standard input, else nothing."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # there is no such file
        return ""
    piped = stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
    try:
        return sys.stdin.read() if piped else ""
    except UnicodeDecodeError:
        raise ValueError(
            "what is piped in is not UTF-8 text: save or convert it as UTF-8"
        ) from None


def _read_prompt_file(path: Path) -> str:
    """A UTF-8 text, with or without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        problem = "is not UTF-8 text: save it as UTF-8"
    except OSError as error:
        problem = f"cannot be read ({error.strerror}): name a text file"
    raise ValueError(f"{path} {problem}")


def _refuse_unknown(prompt: str, tokenizer: Tokenizer) -> None:
    """ValueError that names every character the model has never seen."""
    if not isinstance(tokenizer, CharTokenizer):
        return  # bytes spell everything
    unknown = dict.fromkeys(c for c in prompt if c not in tokenizer.chars)
    if len(unknown) > 1:  # the tokenizer names a single one, and its place
        raise ValueError(
            "the prompt has characters that this model has never seen: "
            f"{', '.join(map(repr, unknown))}; remove them"
        )
