__version__ = "0.1.0"

import warnings

# A notebook without ipywidgets gets tqdm's plain bars; that is no news.
warnings.filterwarnings("ignore", "IProgress")

from minigpt.attention import Head, TinyLM, causal_mask, leaks
from minigpt.bigram import BigramLM, bigram_counts, evaluate, fit
from minigpt.blocks import MLP, Block, LayerNorm
from minigpt.evaluation import score_text
from minigpt.gpt2 import load_gpt2, save_gpt2
from minigpt.model import (
    GPT,
    GPT_CONFIG_124M,
    PRESETS,
    GPTConfig,
    MuonAdamW,
    count_params,
)
from minigpt.multihead import CausalSelfAttention
from minigpt.pretraining import Shards
from minigpt.runfolder import load_run
from minigpt.sampling import KVCache, Sampler, complete, generate, stream
from minigpt.text import (
    CharTokenizer,
    ToyLanguage,
    batches,
    best_device,
    get_batch,
    load_text,
    train_val_split,
)
from minigpt.tokenizer import BPETokenizer, gpt2_tokenizer, load_tokenizer
from minigpt.training import TrainConfig, Trainer

__all__ = [
    "GPT",
    "GPT_CONFIG_124M",
    "MLP",
    "PRESETS",
    "BPETokenizer",
    "BigramLM",
    "Block",
    "CausalSelfAttention",
    "CharTokenizer",
    "GPTConfig",
    "Head",
    "KVCache",
    "LayerNorm",
    "MuonAdamW",
    "Sampler",
    "Shards",
    "TinyLM",
    "ToyLanguage",
    "TrainConfig",
    "Trainer",
    "batches",
    "best_device",
    "bigram_counts",
    "causal_mask",
    "complete",
    "count_params",
    "evaluate",
    "fit",
    "generate",
    "get_batch",
    "gpt2_tokenizer",
    "leaks",
    "load_gpt2",
    "load_run",
    "load_text",
    "load_tokenizer",
    "save_gpt2",
    "score_text",
    "stream",
    "train_val_split",
]
