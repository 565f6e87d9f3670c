"""What commands share with the terminal: help, spelling, encodings.

tyro takes a field's docstring line by line and writes {None}|INT for what
may be left out; `tidy` makes one paragraph of it, and names the type.
"""

import dataclasses
import os
import shlex
import subprocess
import sys
from functools import cache
from types import UnionType
from typing import Annotated, Union, get_args, get_origin, get_type_hints

import tyro

INTERRUPTED = 130  # the shell's exit code of a program stopped by Ctrl-C


def spelled(*words: object) -> str:
    """A command line that can be pasted, as this system's shell reads it."""
    words = [str(word) for word in words]
    if os.name == "nt":  # cmd.exe takes single quotes for letters
        return subprocess.list2cmdline(words)
    return shlex.join(words)


def speak_utf8() -> None:
    """Files and pipes are read and written as UTF-8, whatever the system's.

    Windows would take its old code page, and stop at the first character
    which that lacks. A terminal shows ? for what it lacks.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not in a notebook
            kind = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=kind, errors="replace")
    if hasattr(sys.stdin, "reconfigure") and not sys.stdin.isatty():
        # newline=None: \r\n of a file from Windows ends a line, too
        sys.stdin.reconfigure(encoding="utf-8", newline=None)


@cache
def tidy(command: type) -> type:
    """The same dataclass; its fields, and those inside, say it better."""
    import docstring_parser

    found = docstring_parser.parse_from_object(command).params
    texts = {one.arg_name: " ".join(one.description.split()) for one in found}
    kinds = get_type_hints(command, include_extras=True)
    for field in dataclasses.fields(command):
        kind = kinds[field.name]
        bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        if dataclasses.is_dataclass(bare):
            tidy(bare)
            continue
        told = {"help": texts.get(field.name)}
        if field.default is None or field.default == ():
            told["help_behavior_hint"] = ""  # not "(default: None)"
        if get_origin(bare) in (Union, UnionType) and field.default is None:
            (real,) = (one for one in get_args(bare) if one is not type(None))
            told["metavar"] = _named(real)
        command.__annotations__[field.name] = Annotated[
            kind, tyro.conf.arg(**told)
        ]
    return command


def _named(kind) -> str:
    """INT, PATH ..., or the words to choose from."""
    if isinstance(kind, type):
        return kind.__name__.upper()
    return "{" + ",".join(map(str, get_args(kind))) + "}"
