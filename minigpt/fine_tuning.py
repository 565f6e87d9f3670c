"""`minigpt train --start`: a trained model reads another text."""

import tempfile
from dataclasses import replace
from pathlib import Path

from minigpt.model import GPT, PRESETS, GPTConfig
from minigpt.pretraining import Shards
from minigpt.sharing import load_any
from minigpt.tokenizer import KINDS, Tokenizer, load_tokenizer
from minigpt.training import TrainConfig

FINE_TUNING = TrainConfig(  # chapter 10's: small, equal steps, and few
    max_steps=200,
    batch_size=4,
    optimizer="adamw",
    learning_rate=3e-5,
    schedule="constant",
    warmup_steps=0,
    weight_decay=0.0,
    eval_every=20,
    checkpoint_every=50,
)


def begin_from(
    start: Path, changes: dict, text: str | Shards
) -> tuple[GPT, Tokenizer, GPTConfig]:
    """A trained model, its tokenizer, and the shape to train it in.

    ValueError for changes of the shape that its weights do not allow, and
    for shards of another tokenizer.
    """
    model, tokenizer = load_any(start)
    for name in changes.keys() - {"drop_rate", "context_length"}:
        flag = name.replace("_", "-")
        raise ValueError(f"--start brings its shape: leave --{flag} out")
    longest = model.context_length
    if changes.get("context_length", 0) > longest:
        raise ValueError(
            f"{start} has {longest:,} positions: give a --context-length up "
            "to that"
        )
    if isinstance(text, Shards) and not _agree(tokenizer, text.folder):
        raise ValueError(
            f"the shards in {text.folder} have another tokenizer than "
            f"{start}: make them with 'minigpt data --tokenizer' and gpt2 or "
            "its tokenizer.json"
        )
    return model, tokenizer, replace(model.config, **changes)


def copy_weights(start: GPT, model: GPT) -> None:
    """A trained model's weights, as many positions as the other has."""
    state = start.state_dict()
    state["wpe.weight"] = state["wpe.weight"][: model.context_length]
    model.load_state_dict(state)


def kind_of(tokenizer: Tokenizer) -> str:
    """What --tokenizer would have been: char, bpe or gpt2."""
    (kind,) = (k for k, one in KINDS.items() if type(tokenizer) is one)
    return kind


def shape_of(model: GPT | None) -> str | None:
    """The preset of a model's shape, if there is one."""
    if model is None:
        return None
    free = {"vocab_size": 1, "drop_rate": 0.0}
    wanted = replace(model.config, **free)
    same = (n for n, c in PRESETS.items() if replace(c, **free) == wanted)
    return next(same, None)


def _agree(tokenizer: Tokenizer, folder: Path) -> bool:
    """Whether the tokenizer is the one of a folder of shards."""
    saved = []
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "tokenizer.json")
        for one in (tokenizer, load_tokenizer(folder / "tokenizer.json")):
            one.save(path)
            saved.append(path.read_bytes())
    return saved[0] == saved[1]
