"""How quickly `generate` writes, next to what it could and others do.

    python benchmarks/generate.py [--preset gpt2] [--new 100] [--rounds 3]

Random weights, fp32, batch 1, a 16-token prompt, greedy. Every contestant
writes in every round, one after another, so that a slow minute of the
machine hits all of them; the table holds the best of the rounds.

- generate: as it is, so with `in_blocks` on a CPU;
- products: PyTorch's linear layers of one token, nothing else, the floor
  of a generation that calls them;
- products in blocks: the same with `in_blocks`, the floor of this one;
- transformers: the same shape in `GPT2LMHeadModel.generate` with its
  cache, where that package is installed (it is no requirement);
- int8: `to_int8`. Its price in validation loss is measured on a run
  folder: --run runs/pocket.

Targets: at least 1.25 x transformers, 3 x without cache, 88 % of the
products either way; int8 at least 1.5 x fp32; token 900 within 1.3 x of
token 100.
"""

import argparse
import importlib.util
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import nn

from minigpt import (
    GPT,
    PRESETS,
    GPTConfig,
    KVCache,
    evaluate,
    generate,
    load_run,
    load_text,
    train_val_split,
)
from minigpt.sampling import in_blocks, to_int8

TARGETS = {
    "transformers": 1.25,
    "without cache": 3.0,
    "products": 0.88,
    "products in blocks": 0.88,
}
INT8_TARGET, POSITION_TARGET = 1.5, 1.3


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def products(
    model: GPT, tokens: int, blocks: bool
) -> Callable[[], None]:
    """Every linear layer of the model on one vector, `tokens` times."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    pairs = [(in_blocks(m) if blocks else m, torch.randn(1, 1, m.in_features))
             for m in layers]

    @torch.no_grad()
    def run() -> None:
        for _ in range(tokens):
            for layer, vector in pairs:
                layer(vector)

    return run


def transformers_generate(
    config: GPTConfig, prompt: torch.Tensor, new: int
) -> Callable[[], object] | None:
    """The same shape in the transformers library; None without it."""
    if importlib.util.find_spec("transformers") is None:
        return None
    from transformers import GPT2Config, GPT2LMHeadModel

    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.context_length,
            n_embd=config.emb_dim,
            n_layer=config.n_layers,
            n_head=config.n_heads,
        )
    ).eval()
    return lambda: theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        min_new_tokens=new,
        max_new_tokens=new,
        do_sample=False,
        use_cache=True,
        pad_token_id=0,
        eos_token_id=None,
    )


def step_ms(model: GPT, position: int, steps: int = 20) -> float:
    """Median milliseconds of single cached steps around a position."""
    cache = KVCache(model)
    idx = torch.randint(model.config.vocab_size, (1, position))
    with torch.no_grad():
        model(idx, cache)
        times = [seconds(lambda: model(idx[:, :1], cache))
                 for _ in range(steps)]
    return 1000 * statistics.median(times)


def compare(args: argparse.Namespace) -> None:
    """Print tokens a second of all contestants and the ratios."""
    torch.manual_seed(0)
    config = PRESETS[args.preset]
    model = GPT(config).eval()
    small = to_int8(model)
    prompt = torch.randint(config.vocab_size, (1, 16))

    def ours(which: nn.Module, **how) -> Callable[[], object]:
        return lambda: generate(
            which, prompt, args.new, temperature=0, **how
        )

    contestants = {
        "generate": ours(model),
        "products": products(model, args.new, blocks=False),
        "products in blocks": products(model, args.new, blocks=True),
        "without cache": ours(model, use_cache=False),
        "int8": ours(small),
    }
    theirs = transformers_generate(config, prompt, args.new)
    if theirs is None:
        print("transformers is not installed: left out", file=sys.stderr)
    else:
        contestants["transformers"] = theirs
    for run in (contestants["generate"], contestants["int8"]):
        run()  # once to warm up
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(args.rounds):
        for name, run in contestants.items():
            best[name] = min(best[name], seconds(run))
    mine = best["generate"]
    print("| contestant | tokens/s | generate is | target |")
    print("| --- | ---: | ---: | ---: |")
    for name, took in best.items():
        ratio, target = took / mine, TARGETS.get(name)
        if name == "int8":
            text = f"int8 is {mine / took:.2f} x, ≥ {INT8_TARGET} x"
        else:
            text = f"≥ {target:.2f} x" if target else ""
        print(f"| {name} | {args.new / took:.1f} | {ratio:.2f} x | {text} |")
    near, far = 100, 900
    if far + 40 < config.context_length:
        quick = in_blocks(model)
        times = [step_ms(quick, at) for at in (near, far, near, far)]
        ratio = min(times[1::2]) / min(times[::2])
        print(
            f"\ntoken {far} takes {ratio:.2f} x the time of token {near} "
            f"(target ≤ {POSITION_TARGET} x)"
        )


def price_of_int8(folder: str) -> None:
    """Print the validation loss of a run in fp32 and in int8."""
    model, tokenizer = load_run(folder)
    ids = torch.tensor(tokenizer.encode(load_text("shakespeare")))
    _, val_ids = train_val_split(ids)
    exact, rounded = (
        evaluate(m, val_ids, model.context_length)
        for m in (model, to_int8(model))
    )
    print(
        f"\nvalidation loss fp32 {exact:.4f}, int8 {rounded:.4f} "
        f"({rounded - exact:+.4f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="gpt2", choices=tuple(PRESETS))
    parser.add_argument("--new", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", help="a run folder, for int8's price")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    print(
        f"{args.preset}, fp32, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}\n"
    )
    compare(args)
    if args.run:
        price_of_int8(args.run)


if __name__ == "__main__":
    main()
