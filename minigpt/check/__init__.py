"""Checks for the exercises: each says what is wrong with an answer and why.

    from minigpt import check
    check.causal_mask(my_mask)
"""

from ._text import all_windows as all_windows
from ._text import byte_tokenizer as byte_tokenizer
from ._text import conditional_entropy as conditional_entropy
from ._text import encode_by_hand as encode_by_hand
from ._text import entropy as entropy
from ._text import honest_split as honest_split
from ._text import one_bit as one_bit

from ._bigram import after_a as after_a
from ._bigram import gradient as gradient
from ._bigram import perplexity as perplexity
from ._bigram import smoothed_loss as smoothed_loss
from ._bigram import trigram_counts as trigram_counts
from ._bigram import with_temperature as with_temperature

from ._attention import causal_mask as causal_mask
from ._attention import fading_average as fading_average
from ._attention import previous_token as previous_token
from ._attention import scaled_attention as scaled_attention
from ._attention import window_mask as window_mask

from ._multihead import attention_params as attention_params
from ._multihead import grouped_query as grouped_query
from ._multihead import masked_sdpa as masked_sdpa
from ._multihead import merge_heads as merge_heads
from ._multihead import silence_head as silence_head
from ._multihead import split_heads as split_heads

from ._blocks import block_forward as block_forward
from ._blocks import dropout as dropout
from ._blocks import gelu as gelu
from ._blocks import layer_norm as layer_norm
from ._blocks import rms_norm as rms_norm
from ._blocks import swiglu as swiglu

from ._model import orthogonalize as orthogonalize
from ._model import param_count as param_count
from ._model import residual_std as residual_std
from ._model import tied as tied
from ._model import training_days as training_days

from ._training import accumulation_weights as accumulation_weights
from ._training import any_batch as any_batch
from ._training import clip_by_norm as clip_by_norm
from ._training import published_log as published_log
from ._training import warm_then_fall as warm_then_fall

from ._sampling import cache_batch as cache_batch
from ._sampling import hold_back as hold_back
from ._sampling import log_prob as log_prob
from ._sampling import no_repeat as no_repeat
from ._sampling import nucleus_by_hand as nucleus_by_hand
from ._sampling import typical as typical

from ._tokenizer import best_pair as best_pair
from ._tokenizer import bytes_per_token as bytes_per_token
from ._tokenizer import split_digits as split_digits
from ._tokenizer import unused_tokens as unused_tokens

from ._gpt2 import crop_context as crop_context
from ._gpt2 import file_bytes as file_bytes
from ._gpt2 import forward_flops as forward_flops
from ._gpt2 import grow_vocab as grow_vocab
from ._gpt2 import translate as translate

from ._evaluation import bits_per_byte as bits_per_byte
from ._evaluation import full_windows as full_windows
from ._evaluation import joined_perplexity as joined_perplexity
from ._evaluation import longest_common as longest_common
from ._evaluation import most_gained as most_gained
from ._evaluation import wilson as wilson

from ._pretraining import dollars as dollars
from ._pretraining import merge_parts as merge_parts
from ._pretraining import peak_bytes as peak_bytes
from ._pretraining import undo_rounds as undo_rounds

from ._memory import bite as bite
from ._memory import chunked_mean as chunked_mean
from ._memory import logits_mib as logits_mib
from ._memory import round_by_chance as round_by_chance
from ._memory import widths as widths
from ._sharing import all_or_nothing as all_or_nothing
from ._sharing import int8_rows as int8_rows
from ._sharing import redact as redact
from ._sharing import tensor_shapes as tensor_shapes
