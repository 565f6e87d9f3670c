"""Exporting a model of GPT-2's size: seconds, memory, bytes.

    python benchmarks/export.py [--formats safetensors huggingface ...]
        [--preset gpt2] [--int8]
    python benchmarks/export.py --run runs/mini [--limit 20000]

Random weights in a run folder. Each export is a process of its own; the
time is that of `export` alone (libraries are loaded before), on the clock
and of the processor. Peak memory is what the process held at most less
what it had before, over the size of the weights in fp32; the weights that
it reads are part of it.

Targets: 10 s, and 2 x the weights (without --int8).

With --run: what the run loses in ONNX and in its int8 variant, on the
first characters of tiny Shakespeare's validation part, and the sizes.
Targets for mini: int8 in at most 12 MB, within 0.02 of the loss.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from minigpt import (
    GPT,
    PRESETS,
    CharTokenizer,
    gpt2_tokenizer,
    load_text,
    score_text,
)
from minigpt.sharing import (
    FORMATS,
    WITH_INT8,
    OnnxGPT,
    export,
    load_any,
    to_safetensors,
)

ONE = """
import json, sys, time
from pathlib import Path
from minigpt.sharing import FORMATS, export
import safetensors.torch
for name in sys.argv[4].split():
    __import__(name)

def memory(key):  # bytes; VmRSS now, VmHWM at most
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return int(lines[key].split()[0]) * 1024

run, to, out, _, int8 = sys.argv[1:]
before = memory("VmRSS")
clock, processor = time.perf_counter(), time.process_time()
export(run, to, out, int8=int8 == "1")
print(json.dumps({
    "clock": time.perf_counter() - clock,
    "processor": time.process_time() - processor,
    "peak": memory("VmHWM") - before,
    "bytes": {
        str(p.relative_to(out)): p.stat().st_size
        for p in Path(out).rglob("model*") if p.is_file()
    },
}))
"""
LIBRARIES = {
    "huggingface": "tokenizers",
    "onnx": "tokenizers onnx onnxruntime torch.onnx",
    "gguf": "gguf",
    "space": "gradio",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("--preset", choices=PRESETS, default="gpt2")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--run")
    parser.add_argument("--limit", type=int, default=20_000)
    args = parser.parse_args()
    if args.run:
        return losses(args.run, args.limit)
    torch.manual_seed(0)
    model = GPT(PRESETS[args.preset])
    size = 4 * model.num_params()
    characters = "".join(map(chr, range(65, 65 + model.config.vocab_size)))
    large = model.config.vocab_size > 50_000
    tokenizer = gpt2_tokenizer() if large else CharTokenizer(characters)
    print(f"{args.preset}: {size / 1e6:,.0f} MB of weights")
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        run.mkdir()
        to_safetensors(model, tokenizer, run, {})
        del model
        for to in args.formats:
            int8 = args.int8 and to in WITH_INT8
            words = (run, to, Path(place) / to, LIBRARIES.get(to, ""))
            done = subprocess.run(
                [sys.executable, "-c", ONE, *map(str, words), str(int(int8))],
                capture_output=True,
                text=True,
                check=True,
            )
            report(to, json.loads(done.stdout), size)


def losses(run: str, limit: int):
    """One line for PyTorch, ONNX and ONNX int8."""
    model, tokenizer = load_any(run)
    text = load_text("shakespeare")
    text = text[int(len(text) * 0.9) :][:limit]
    length = model.context_length
    with tempfile.TemporaryDirectory() as place:
        out = export(run, "onnx", Path(place) / "out", int8=True)
        small, large = out / "model.int8.onnx", out / "model.onnx"
        for name, one, files in (
            ("PyTorch", model, [out / "model.safetensors"]),
            ("ONNX", OnnxGPT(large), [large, out / "model.safetensors"]),
            ("ONNX int8", OnnxGPT(small), [small]),
        ):
            score = score_text(
                *(one, tokenizer, text),
                context_length=length,
                stride=length,
            )
            size = sum(path.stat().st_size for path in files) / 1e6
            print(f"{name:10} loss {score.loss:.4f}  {size:6.2f} MB")


def report(to: str, found: dict, size: int):
    """One line a format."""
    files = ", ".join(
        f"{name} {count / 1e6:,.2f} MB"
        for name, count in found["bytes"].items()
    )
    print(
        f"{to:12} {found['clock']:6.2f} s, processor "
        f"{found['processor']:6.2f} s, peak {found['peak'] / size:5.2f} x "
        f"the weights; {files}"
    )


if __name__ == "__main__":
    main()
