"""Wrong answers to the exercises of chapter 14, and the hint each must get."""

START = """
import base64
import json
import shutil
import struct
from urllib.parse import quote

import torch

def entries(data):
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size])
def without(entries):
    return {k: v for k, v in entries.items() if k != "__metadata__"}
def to8(w, top, cast=torch.round):
    scales = top / 127
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    return cast(w / scales).to(torch.int8), scales
def rows(w):
    return w.abs().amax(1, keepdim=True)
def writes(folder, files, part):
    part.mkdir()
    for name, data in files:
        (part / name).write_bytes(data)
    if part != folder:
        part.rename(folder)
def only_errors(folder, files):
    part = folder.with_name("part")
    try:
        writes(folder, files, part)
    except Exception:
        shutil.rmtree(part)
        raise
def swallows(folder, files):
    part = folder.with_name("part")
    try:
        writes(folder, files, part)
    except BaseException:
        shutil.rmtree(part)
def all_forms(message, token):
    for form in (token, quote(token, safe=""),
                 base64.b64encode(token.encode()).decode()):
        message = message.replace(form, "***")
    return message
"""
WRONG = [
    (name, START + f"check.{name}({code})", hint)
    for name, code, hint in [
        ("tensor_shapes", "lambda d: None", "returned None"),
        ("tensor_shapes", "lambda d: list(entries(d))", "return a dict"),
        ("tensor_shapes", "lambda d: {k: v.get('shape') for k, v in "
         "entries(d).items()}", "__metadata__ is no tensor"),
        ("tensor_shapes", "lambda d: {k: v['shape'] for k, v in "
         "entries(d).items()}", "has no shape: leave it"),
        ("tensor_shapes", "lambda d: {k: v['form'] for k, v in "
         "entries(d).items()}", "raised KeyError: 'form'"),
        ("tensor_shapes", "lambda d: without(entries(d))", "whole entry"),
        ("tensor_shapes", "lambda d: {k: v['shape'][::-1] for k, v in "
         "without(entries(d)).items()}", "instead of [2, 3]"),
        ("int8_rows", "lambda w: None", "returned None"),
        ("int8_rows", "lambda w: (w / rows(w), rows(w))", "a quarter of"),
        ("int8_rows", "lambda w: to8(w, w.abs().max())", "one scale for all"),
        ("int8_rows", "lambda w: to8(w, w.abs().amax(0, keepdim=True))",
         "instead of (3, 1)"),
        ("int8_rows", "lambda w: ((w / rows(w) * 127).round()"
         ".to(torch.int8), rows(w) / 127 + 0 / rows(w))", "row of zeros"),
        ("int8_rows", "lambda w: ((w / rows(w) * 127).round()"
         ".to(torch.int8), rows(w) / 127)", "row of zeros"),
        ("int8_rows", "lambda w: to8(w, rows(w) * 2)", "it is 127"),
        ("int8_rows", "lambda w: to8(w, rows(w), torch.trunc)",
         "round to the nearest"),
        ("all_or_nothing", "lambda folder, files: None", "not there"),
        ("all_or_nothing", "lambda f, files: writes(f, files, f)",
         "before all files were written"),
        ("all_or_nothing",
         "lambda f, files: writes(f, files, f.with_name('part'))",
         "there is still ['part']"),
        ("all_or_nothing", "lambda f, files: writes(f, [*files], f)",
         "after OSError there is still ['out']"),
        ("all_or_nothing", "only_errors", "after KeyboardInterrupt"),
        ("all_or_nothing", "swallows", "was swallowed"),
        ("redact", "lambda m, t: None", "returned None"),
        ("redact", "lambda m, t: m", "still there, as it is"),
        ("redact", "lambda m, t: m.replace(t, '***')", "percent-encoded"),
        ("redact", "lambda m, t: m.replace(t, '***')"
         ".replace(quote(t, safe=''), '***')", "in base64"),
        ("redact", "lambda m, t: '***'", "only the token changes"),
        ("redact", "all_forms", "an empty token made"),
    ]
]
