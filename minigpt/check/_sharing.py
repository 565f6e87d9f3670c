"""Checks of chapter 14, sharing."""

import base64
import json
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import torch

from minigpt.check._base import Hint, exercise, expect


@exercise
def tensor_shapes(answer):
    """the header alone tells."""
    shapes = {"a": [2, 3], "b.weight": [4], "scalar": []}
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        size = 4 * torch.Size(shape).numel()
        header[name] = {
            "dtype": "F32", "shape": shape, "data_offsets": [at, at + size]
        }
        at += size
    text = json.dumps(header).encode() + b"   "
    try:
        got = answer(struct.pack("<Q", len(text)) + text + bytes(at))
    except KeyError as error:
        expect(
            error.args != ("shape",),
            "__metadata__ is no tensor and has no shape: leave it",
        )
        raise
    expect(got is not None, "it returned None: return a dict")
    expect(isinstance(got, dict), f"it returned {got!r}: return a dict")
    expect("__metadata__" not in got, "__metadata__ is no tensor: leave it")
    for name, shape in shapes.items():
        expect(name in got, f"the tensor {name!r} is not in the dict")
        expect(
            not isinstance(got[name], dict),
            "this is the whole entry of a tensor: take its shape",
        )
        expect(
            list(got[name]) == shape,
            f"{name!r} has the shape {got[name]} instead of {shape}",
        )


@exercise
def int8_rows(answer):
    """each row as near as 8 bits allow."""
    weight = torch.tensor(
        [[1.0, -0.5, 0.337], [100.0, -99.6, 3.0], [0.0, 0.0, 0.0]]
    )
    got = answer(weight.clone())
    expect(got is not None, "it returned None: return codes and scales")
    codes, scales = got
    expect(
        codes.dtype == torch.int8,
        f"the codes are {codes.dtype}: int8 takes a quarter of the bytes",
    )
    expect(codes.shape == weight.shape, "one code for each weight")
    if scales.numel() == 1:
        raise Hint("one scale for all: the row of 100 makes the first coarse")
    expect(
        scales.shape == (3, 1),
        f"the scales are {tuple(scales.shape)} instead of (3, 1): amax over "
        "dim=1 with keepdim=True",
    )
    expect(
        scales.isfinite().all() and scales[2] != 0 and not codes[2].any(),
        "the row of zeros: 0 / 0 is no number; give it any other scale",
    )
    expect(
        codes.abs().max() <= 127 and codes[1, 0] == 127,
        f"100, the largest of its row, has the code {codes[1, 0]}: it is "
        "127, and 128 would become -128",
    )
    off = (codes * scales - weight).abs() / scales
    expect(
        off.max() <= 0.5 + 1e-3,
        f"a weight is {off.max():.2f} steps off: round to the nearest (a "
        "cast alone cuts towards zero)",
    )


@exercise
def all_or_nothing(answer):
    """under its name it is complete."""
    with tempfile.TemporaryDirectory() as place:
        _publishes(answer, Path(place))
    for error in (OSError("the disk is full"), KeyboardInterrupt()):
        with tempfile.TemporaryDirectory() as place:
            _fails(answer, Path(place), _cut_by(error), type(error))
    unwritable = [("a", b"a"), ("b" * 300, b"b")]  # no system has such names
    with tempfile.TemporaryDirectory() as place:
        _fails(answer, Path(place), iter(unwritable), OSError)


def _publishes(answer, place: Path) -> None:
    folder = place / "out"
    seen = []

    def files():
        for name in ("a", "b"):
            seen.append(folder.exists())
            yield name, name.encode()

    answer(folder, files())
    expect(folder.is_dir(), "all went well, and the folder is not there")
    held = {path.name: path.read_bytes() for path in folder.iterdir()}
    expect(held == {"a": b"a", "b": b"b"}, f"it holds {sorted(held)}")
    expect(
        not any(seen),
        "the folder had its name before all files were written: a reader "
        "may come at any time",
    )
    expect(len(list(place.iterdir())) == 1, "something else is left beside it")


def _cut_by(error: BaseException) -> Iterator[tuple[str, bytes]]:
    yield "a", b"a"
    raise error


def _fails(
    answer, place: Path, files: Iterator, kind: type[BaseException]
) -> None:
    try:
        answer(place / "out", files)
    except kind:
        left = sorted(path.name for path in place.iterdir())
        expect(
            not left,
            f"after {kind.__name__} there is still {left}: clean up in "
            "finally, which Ctrl-C does not pass over",
        )
        return
    raise Hint(f"a {kind.__name__} was swallowed: pass it on")


@exercise
def redact(answer):
    """the message stays, the token goes."""
    token = "hf_a+b/c="
    encoded = base64.b64encode(token.encode()).decode()
    forms = {
        "as it is": token,
        "percent-encoded": quote(token, safe=""),
        "in base64": encoded,
    }
    for name, form in forms.items():
        got = answer(f"403 for {form}: no", token)
        expect(got is not None, "it returned None: return the message")
        expect(form not in got, f"the token is still there, {name}")
        expect(got == "403 for ***: no",
               f"{got!r}: only the token changes, to ***")
    twice = answer(f"{token} {token}", token)
    expect(twice == "*** ***", f"two tokens became {twice!r}")
    none = answer("no token at all", "")
    expect(none == "no token at all", f"an empty token made {none!r}")
