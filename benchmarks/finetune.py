"""Fine-tune OpenAI's GPT-2 on tiny Shakespeare: chapter 10's recorded run.

    python benchmarks/finetune.py                     print the losses
    python benchmarks/finetune.py --record            and keep the record
    python benchmarks/finetune.py --model FOLDER      from other weights

Needs GPT-2's weights (548 MB, downloaded once) and tiktoken's merges. The
record is book/runs/finetune.jsonl: one row for each look at the
validation text, and one with what the model writes in the end.
"""

import argparse
import contextlib
import shlex
import sys
import time
from collections.abc import Iterator

import torch

from minigpt.bigram import evaluate, fit
from minigpt.gpt2 import load_gpt2
from minigpt.runs import describe_machine, write_record
from minigpt.sampling import Sampler, complete
from minigpt.text import (
    batches,
    best_device,
    is_shakespeare,
    load_text,
    train_val_split,
)
from minigpt.tokenizer import gpt2_tokenizer
from minigpt.training import choose_precision


def automatic(device: str) -> contextlib.AbstractContextManager:
    """bfloat16 matrix products where the GPU is quick at them."""
    if device == "cuda" and choose_precision("auto", device)[0] == "bf16":
        # a cache of converted weights would outlive the steps
        return torch.autocast(device, torch.bfloat16, cache_enabled=False)
    return contextlib.nullcontext()


def rows(options: argparse.Namespace, device: str) -> Iterator[dict]:
    """Train, and report now and then; the last row holds a text."""
    o, tokenizer = options, gpt2_tokenizer()
    ids = torch.tensor(tokenizer.encode(load_text("shakespeare")))
    train_ids, val_ids = train_val_split(ids)
    model = load_gpt2(o.model, device=device)
    data = batches(train_ids, o.batch_size, o.context, device=device)
    optimizer = torch.optim.AdamW(model.parameters(), o.lr, weight_decay=0.0)
    torch.manual_seed(0)
    start, step = time.perf_counter(), 0
    with automatic(device):
        while True:
            yield {
                "kind": "val",
                "step": step,
                "loss": evaluate(model, val_ids, o.context, o.batch_size),
                "seconds": time.perf_counter() - start,
            }
            if step >= o.steps:
                break
            now = min(o.every, o.steps - step)
            fit(model, data, now, optimizer=optimizer)
            step += now
        (written,) = complete(
            model,
            tokenizer,
            [o.prompt],
            120,
            sampler=Sampler(temperature=0.8, top_k=50),
            generator=torch.Generator(device).manual_seed(0),
        )
    yield {"kind": "sample", "step": step, "text": o.prompt + written.text}


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune GPT-2.")
    parser.add_argument("--model", default="gpt2", help="a name or a folder")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=20, help="steps a look")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--lr", type=float, default=3e-5)
    parser.add_argument("--prompt", default="ROMEO:")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    if not is_shakespeare(load_text("shakespeare")):
        sys.exit("tiny Shakespeare is not at hand: set MINIGPT_DATA")
    device, made = best_device(), []
    for row in rows(options, device):
        made.append(row)
        print(row["text"] if row["kind"] == "sample" else row, flush=True)
    if options.record:
        command = shlex.join(["python", *sys.argv])
        header = {"command": command, **describe_machine(device)}
        print(write_record("finetune", header, made))


if __name__ == "__main__":
    main()
