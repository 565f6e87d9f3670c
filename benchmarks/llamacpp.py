"""Does llama.cpp read our GGUF files as we mean them?

    npm install node-llama-cpp  # in a folder of its own; Node.js 20
    python benchmarks/llamacpp.py --modules FOLDER

Random models with characters (accents and an emoji among them), byte pairs
of our own and GPT-2's tokens, in 32 bits and Q8_0. llama.cpp must give the
same ids for a prompt, the prompt back, and no end of text where there is
none. It writes 20 tokens greedily: each must be our model's best at that
place, within 0.02 of a logit (0.2 for Q8_0), because it keeps its cache in
16 bits.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import torch

from minigpt import (
    GPT,
    BPETokenizer,
    CharTokenizer,
    GPTConfig,
    gpt2_tokenizer,
    load_text,
    save_gpt2,
)
from minigpt.sharing import OURS, export
from minigpt.tokenizer import END_OF_TEXT

ASK = """
import {getLlama} from "node-llama-cpp";
const [path, prompt] = JSON.parse(process.env.ASKED);
const llama = await getLlama(
    {gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath: path});
const ids = model.tokenize(prompt);
const context = await model.createContext({contextSize: 64, threads: 1});
const out = [];
for await (const id of context.getSequence().evaluate(
        ids, {temperature: 0})) {
    out.push(id);
    if (out.length === 20) break;
}
console.log(JSON.stringify({
    ids: [...ids], text: model.detokenize(ids), end: model.tokens.eos, out}));
process.exit(0);
"""
PROMPT = "not to be:  'tis é 🙂\\x41\n\n  or 1234"


def cases() -> dict:
    """Tokenizers, and the id of the end of text of each."""
    characters = "".join(map(chr, range(32, 127))) + "\n\té—🙂"
    text = load_text("shakespeare")[:200_000]
    pairs = BPETokenizer.train(text, 400, [END_OF_TEXT])
    gpt2 = gpt2_tokenizer()
    return {
        "characters": (CharTokenizer(characters), None),
        "our pairs": (pairs, pairs.start_id),
        "GPT-2's": (gpt2, gpt2.start_id),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modules", type=Path, required=True)
    # it must lie beside node_modules, or Node does not find them
    script = parser.parse_args().modules / "minigpt-asks.mjs"
    script.write_text(ASK)
    try:
        for name, (tokenizer, end) in cases().items():
            with tempfile.TemporaryDirectory() as place:
                compare(name, tokenizer, end, Path(place), script)
    finally:
        script.unlink()


def compare(name, tokenizer, end, place: Path, script: Path):
    """One line for each number format; AssertionError if they differ."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.vocab_size, 64, 64, 4, 2)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)
    source = save_gpt2(model, place / "source")
    tokenizer.save(source / OURS)
    ids = tokenizer.encode(PROMPT)
    for int8 in (False, True):
        out = export(source, "gguf", place / f"out{int8:d}", int8=int8)
        asked = json.dumps([str(out / "model.gguf"), PROMPT])
        done = subprocess.run(
            ["node", script],
            env=os.environ | {"ASKED": asked},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        theirs = json.loads(done.stdout.splitlines()[-1])
        assert theirs["ids"] == ids, (theirs["ids"], ids)
        assert theirs["text"] == PROMPT, theirs["text"]
        assert theirs["end"] == end, theirs["end"]
        written = theirs["out"]
        with torch.no_grad():
            logits = model(torch.tensor([ids + written]))[0]
        logits = logits[len(ids) - 1 : -1]  # (20, V), before each of them
        chosen = logits[torch.arange(len(written)), written]
        off = (logits.amax(-1) - chosen).max().item()
        assert len(written) == 20 and off < (0.2 if int8 else 0.02), off
        kind = "Q8_0" if int8 else "F32"
        print(f"{name:10} {kind:5} {len(ids)} ids alike, greedy within "
              f"{off:.4f} of a logit")


if __name__ == "__main__":
    main()
