"""Chapter 8's module: filters, the cache, and text that streams."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt import bigram
from minigpt.bigram import BigramLM
from minigpt.model import GPT, GPTConfig
from minigpt.sampling import (
    KVCache,
    Sampler,
    TextStream,
    apply_temperature,
    complete,
    generate,
    in_blocks,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    stream,
    to_int8,
)
from minigpt.text import CharTokenizer

V = 7
# Few different values, so that ties are common.
LOGIT = st.one_of(
    st.integers(-3, 3).map(float), st.floats(-30, 30, width=32)
)
ROWS = st.lists(
    st.lists(LOGIT, min_size=V, max_size=V), min_size=1, max_size=4
).map(torch.tensor)
SETTINGS = st.builds(
    Sampler,
    repetition_penalty=st.floats(1, 2),
    temperature=st.one_of(st.just(0), st.floats(0.05, 5)),
    top_k=st.none() | st.integers(1, V + 2),
    top_p=st.none() | st.floats(0.01, 1),
    min_p=st.none() | st.floats(0, 1),
)


def kept(logits):
    return logits > -torch.inf


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


# Filters


@given(ROWS, SETTINGS, st.randoms(use_true_random=False))
def test_probabilities_add_up_and_rows_are_independent(rows, sampler, random):
    seen = torch.tensor(
        [[random.random() < 0.5 for _ in range(V)] for _ in rows]
    )
    before = rows.clone()
    out = sampler.filter(rows, seen)
    probs = out.softmax(dim=-1)
    assert torch.allclose(probs.sum(dim=-1), torch.ones(len(rows)))
    assert kept(out).any(dim=-1).all()
    assert torch.equal(rows, before)
    alone = [sampler.filter(rows[i : i + 1], seen[i : i + 1])
             for i in range(len(rows))]
    assert torch.equal(out, torch.cat(alone))


@given(ROWS, SETTINGS)
def test_without_a_penalty_the_order_of_tokens_stays(rows, sampler):
    out = sampler.filter(rows)
    for row, new in zip(rows, out):
        stays = kept(new)
        if not stays.all():  # nobody ruled out beats anybody kept
            assert row[~stays].max() <= row[stays].min()
        assert new.max() == new[row.argmax()]


@given(ROWS)
def test_one_choice_is_greedy(rows):
    greedy = rows.argmax(dim=-1, keepdim=True)
    one_left = [
        Sampler(temperature=0),
        Sampler(top_k=1),
        Sampler(top_p=1e-6),
        Sampler(temperature=0, top_k=3, top_p=0.5, min_p=0.5),
    ]
    for sampler in one_left:
        assert kept(sampler.filter(rows)).sum(dim=-1).eq(1).all()
        assert torch.equal(sampler.choose(rows, None, rng()), greedy)


@given(ROWS, st.integers(0, 9))
def test_settings_that_are_off_change_nothing(rows, more):
    seen = torch.ones_like(rows, dtype=torch.bool)
    assert keep_top_k(rows, V + more) is rows
    assert keep_top_p(rows, 1) is rows
    assert keep_min_p(rows, 0) is rows
    assert torch.equal(penalize_repetition(rows, seen, 1), rows)
    off = Sampler(top_k=V, top_p=1, min_p=0).filter(rows)
    assert torch.allclose(off.softmax(dim=-1), rows.softmax(dim=-1))


@given(ROWS, st.integers(1, V))
def test_top_k_keeps_exactly_k_and_of_equal_ones_the_first(rows, k):
    out = keep_top_k(rows, k)
    for row, new in zip(rows.tolist(), out):
        ranked = sorted(range(V), key=lambda i: (-row[i], i))
        assert kept(new).nonzero().flatten().tolist() == sorted(ranked[:k])


@given(ROWS, st.floats(0.01, 0.99))
def test_top_p_is_the_smallest_set_that_reaches_p(rows, p):
    out = keep_top_p(rows, p)
    for row, new in zip(rows, out):
        probs = row.double().softmax(dim=-1)
        ranked = sorted(range(V), key=lambda i: (-row[i].item(), i))
        chosen = [i for i in ranked if new[i] > -torch.inf]
        assert chosen == ranked[: len(chosen)]  # ties: the first
        assert probs[chosen].sum() >= p - 1e-5
        assert probs[chosen[:-1]].sum() < p + 1e-5


@given(ROWS, st.floats(0.01, 1))
def test_min_p_compares_with_the_best(rows, share):
    probs = rows.double().softmax(dim=-1)
    ratio = probs / probs.amax(dim=-1, keepdim=True)
    stays = kept(keep_min_p(rows, share))
    assert stays[ratio > share * 1.0001].all()
    assert not stays[ratio < share * 0.9999].any()


@given(ROWS, st.floats(1, 3))
def test_the_penalty_never_makes_a_seen_token_likelier(rows, penalty):
    seen = torch.zeros_like(rows, dtype=torch.bool)
    seen[:, 2] = True
    out = penalize_repetition(rows, seen, penalty)
    assert (out[:, 2] <= rows[:, 2]).all()
    others = [i for i in range(V) if i != 2]
    assert torch.equal(out[:, others], rows[:, others])


def test_the_order_is_penalty_temperature_k_p_min():
    logits = torch.tensor([[3.0, 2.5, 1.5, 0.5, -2.0]])
    seen = torch.tensor([[True, False, False, False, True]])
    step = penalize_repetition(logits, seen, 1.3)
    step = apply_temperature(step, 2.0)
    step = keep_min_p(keep_top_p(keep_top_k(step, 4), 0.9), 0.3)
    out = Sampler(1.3, 2.0, 4, 0.9, 0.3).filter(logits, seen)
    assert torch.equal(out, step)


@pytest.mark.parametrize("temperature", [1e-38, 1e-6, 1e6])
def test_extreme_temperatures_are_numbers(temperature):
    logits = torch.tensor([[80.0, -80.0, 0.0]])
    probs = apply_temperature(logits, temperature).softmax(dim=-1)
    assert torch.isclose(probs.sum(), torch.tensor(1.0))


def test_draws_have_the_probabilities_of_the_filters():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(20_000, -1)
    sampler = Sampler(temperature=0.7, top_k=3)
    drawn = sampler.choose(logits, None, rng()).flatten()
    share = torch.bincount(drawn, minlength=4) / len(drawn)
    assert torch.allclose(
        share, sampler.filter(logits[:1]).softmax(dim=-1)[0], atol=0.015
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", -1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", 0),
        ("top_p", 0),
        ("top_p", 1.2),
        ("top_p", float("nan")),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.5),
        ("repetition_penalty", float("inf")),
    ],
)
def test_bad_settings_are_named(setting, value):
    with pytest.raises(ValueError, match=f"^{setting} is .*: write "):
        Sampler(**{setting: value})


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_logits_are_never_sampled(bad, temperature):
    with pytest.raises(ValueError, match="not numbers"):
        Sampler(temperature=temperature).choose(torch.tensor([[0.0, bad]]))


# The cache


def model_of(seed=0, **changes):
    """A small GPT whose logits are far enough apart for greedy."""
    torch.manual_seed(seed)
    shape = dict(vocab_size=11, context_length=12, emb_dim=16, n_heads=2,
                 n_layers=3) | changes
    model = GPT(GPTConfig(**shape)).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(8)
    return model


MODEL = model_of()


def prompt(length, seed=0):
    return torch.randint(11, (length,), generator=rng(seed))


def naive_greedy(model, row, count, keep=None):
    """The text written by hand: one row, the whole view, no cache."""
    row, start = list(row), max(0, len(row) - model.context_length)
    logits = []
    with torch.no_grad():
        for _ in range(count):
            if len(row) - start > model.context_length:
                start = len(row) - (keep or model.context_length)
            out = model(torch.tensor([row[start:]]))[0, -1]
            logits.append(out)
            row.append(out.argmax().item())
    return row, torch.stack(logits)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6).filter(
    lambda parts: sum(parts) <= 12
))
def test_the_cache_may_be_fed_in_any_pieces(parts):
    idx = prompt(sum(parts))[None]
    cache = KVCache(MODEL)
    with torch.no_grad():
        whole = MODEL(idx)
        pieces = [MODEL(part, cache) for part in idx.split(parts, dim=1)]
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5, rtol=0)
    assert cache.length == sum(parts)


@pytest.mark.parametrize("keep", [None, 1, 5, 11])
@pytest.mark.parametrize("lengths", [(3,), (12, 12), (1, 4, 12, 30, 11)])
@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_is_that_of_a_loop_by_hand(lengths, keep, use_cache):
    """Past the context, in batches, with prompts of different lengths."""
    tokenizer = CharTokenizer("abcdefghijk")
    rows = [prompt(n, seed) for seed, n in enumerate(lengths)]
    done = complete(
        MODEL,
        tokenizer,
        [tokenizer.decode(row) for row in rows],
        40,
        sampler=Sampler(temperature=0),
        use_cache=use_cache,
        keep=keep,
    )
    for row, one in zip(rows, done):
        ids, logits = naive_greedy(MODEL, row.tolist(), 40, keep)
        assert one.ids == ids[len(row) :]
        assert one.text == tokenizer.decode(one.ids)
        log_probs = logits.log_softmax(-1).amax(-1)
        assert torch.allclose(
            torch.tensor(one.log_probs), log_probs, atol=1e-4
        )


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.6}])
def test_it_draws_what_chapter_2_draws(settings):
    idx = torch.stack([prompt(5), prompt(5, 1)])
    one = bigram.generate(MODEL, idx, 30, generator=rng(), **settings)
    two = generate(MODEL, idx, 30, generator=rng(), **settings)
    assert torch.equal(one, two)


def test_any_language_model_can_write():
    model = BigramLM(11)
    out = generate(model, prompt(3)[None], 20, temperature=0)
    assert out.shape == (1, 23)


def test_a_bfloat16_model_writes_with_its_cache():
    model = model_of().bfloat16()
    assert generate(model, prompt(3)[None], 20).shape == (1, 23)


def test_the_penalty_counts_the_prompt_but_not_the_padding():
    tokenizer = CharTokenizer("abcdefghijk")
    sampler = Sampler(temperature=0, repetition_penalty=1e9)
    alone, longer = "k", "kbcdef"
    done = complete(MODEL, tokenizer, [alone, longer], 5, sampler=sampler)
    (single,) = complete(MODEL, tokenizer, [alone], 5, sampler=sampler)
    assert done[0].ids == single.ids
    assert not set(done[1].text) & set(longer)


def test_a_full_cache_says_what_to_do():
    cache = KVCache(MODEL, capacity=4)
    MODEL(prompt(4)[None], cache)
    with pytest.raises(ValueError, match="room for 4 tokens, not for 5"):
        MODEL(prompt(1)[None], cache)
    assert KVCache(MODEL, capacity=1000).capacity == 12


def test_a_cached_step_reads_one_token():
    read = []
    hook = MODEL.register_forward_pre_hook(
        lambda module, args: read.append(args[0].shape[1])
    )
    generate(MODEL, prompt(4)[None], 20, keep=6)
    hook.remove()
    # 4 tokens fill up to 12, then 6 are kept, and each step adds one
    assert read == [4] + [1] * 8 + [6] + [1] * 6 + [6] + [1] * 3


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training):
    model = model_of(drop_rate=0.5)
    model.train(training)
    first = generate(model, prompt(4)[None], 10, temperature=0)
    assert model.training is training and torch.is_grad_enabled()
    again = generate(model, prompt(4)[None], 10, temperature=0)
    assert torch.equal(first, again)  # no dropout meanwhile
    pieces = stream(model, CharTokenizer("abcdefghijk"), "abc", 10)
    next(pieces)
    assert torch.is_grad_enabled()  # also between two pieces
    pieces.close()
    assert model.training is training


@pytest.mark.parametrize(
    ("idx", "count", "more", "message"),
    [
        (torch.zeros(1, 0, dtype=torch.long), 3, {}, "at least one token"),
        (torch.zeros(3, dtype=torch.long), 3, {}, r"give \(B, T\)"),
        (torch.zeros(0, 3, dtype=torch.long), 3, {}, "at least one token"),
        (torch.zeros(1, 3, dtype=torch.long), -1, {}, "max_new_tokens is -1"),
        (torch.zeros(1, 3, dtype=torch.long), 3, {"keep": 0}, "keep is 0"),
        (torch.zeros(1, 3, dtype=torch.long), 3, {"keep": 13}, "1 to 12"),
        (torch.zeros(1, 3, dtype=torch.long), 3, {"top_k": 0}, "top_k is 0"),
    ],
)
def test_generate_refuses_in_one_sentence(idx, count, more, message):
    with pytest.raises(ValueError, match=message):
        generate(MODEL, idx, count, **more)


def test_no_new_tokens_is_the_prompt():
    idx = prompt(5)[None]
    assert torch.equal(generate(MODEL, idx, 0), idx)


def test_int8_is_a_copy_that_writes():
    before = {k: v.clone() for k, v in MODEL.state_dict().items()}
    small = to_int8(MODEL)
    assert small is not MODEL and not small.training
    assert all(torch.equal(v, before[k])
               for k, v in MODEL.state_dict().items())
    idx = prompt(6)[None]
    gap = (small(idx) - MODEL(idx)).abs().max() / MODEL(idx).std()
    assert 0 < gap < 0.5
    assert generate(small, idx, 20).shape == (1, 26)


def wide_model() -> GPT:
    """Large enough to gain from blocks; its 67 characters leave a rest."""
    torch.manual_seed(0)
    return GPT(GPTConfig(67, 32, 256, 4, 2)).eval()


needs_mkl = pytest.mark.skipif(
    not torch.backends.mkl.is_available(), reason="PyTorch has no MKL here"
)


@needs_mkl
def test_in_blocks_is_the_same_model_around_the_same_weights():
    model = wide_model()
    twin = in_blocks(model)
    assert twin is not model
    kinds = [type(m).__name__ for m in twin.modules()]
    assert kinds.count("_InBlocks") == 8  # the head is small: it stays
    ours = {p.data_ptr() for p in model.parameters()}
    assert {p.data_ptr() for p in twin.parameters()} == ours
    idx = torch.randint(67, (2, 9))
    assert torch.equal(twin(idx), model(idx))
    one = idx[:1, :1]
    torch.testing.assert_close(twin(one), model(one), rtol=0, atol=1e-5)
    with torch.no_grad():
        model.h[0].mlp.c_fc.weight.mul_(2)  # trained on: the twin follows
    torch.testing.assert_close(twin(one), model(one), rtol=0, atol=1e-5)


@needs_mkl
@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("rows", (16, 1000, 1007, 50_257))
def test_a_layer_in_blocks_equals_the_layer(rows, bias):
    layer = torch.nn.Linear(4096, rows, bias=bias)
    x = torch.randn(1, 1, 4096)
    twin = in_blocks(layer)
    assert twin is not layer
    torch.testing.assert_close(twin(x), layer(x), rtol=1e-4, atol=1e-5)


def test_in_blocks_leaves_alone_what_gains_nothing():
    assert in_blocks(MODEL) is MODEL  # small
    assert in_blocks(to_int8(wide_model())) is not None
    half = wide_model().bfloat16()
    assert in_blocks(half) is half
    few = torch.nn.Linear(10_000, 10)
    assert in_blocks(few) is few
    seen = torch.nn.Linear(512, 512)
    seen.register_forward_hook(lambda *_: None)
    assert in_blocks(seen) is seen


@needs_mkl
def test_generation_uses_blocks_and_writes_the_same(monkeypatch):
    model, idx = wide_model(), torch.randint(67, (1, 5))
    used = []
    real = torch.baddbmm
    monkeypatch.setattr(
        torch, "baddbmm", lambda *a: used.append(1) or real(*a)
    )
    quick = generate(model, idx, 40, temperature=0)
    assert used
    used.clear()
    plain = generate(model, idx, 40, temperature=0, use_cache=False)
    assert not used and torch.equal(quick, plain)


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU here"
)
def test_on_a_gpu():
    model = model_of().cuda()
    idx = prompt(5)[None].cuda()
    out = generate(model, idx, 30, generator=rng())  # a CPU generator
    assert out.device == idx.device
    greedy = [generate(model, idx, 30, temperature=0, use_cache=c)
              for c in (True, False)]
    assert torch.equal(*greedy)
    with pytest.raises(ValueError, match="CPU only"):
        to_int8(model)


# Text


class Bytes:
    """A token is a byte of UTF-8."""

    def decode_bytes(self, ids):
        return bytes(ids)


def cut(text, stops):
    """The text before the stop string that is complete first."""
    for end in range(len(text) + 1):
        ended = [s for s in stops if text[:end].endswith(s)]
        if ended:
            longest = max(ended, key=len)
            return text[: end - len(longest)], longest
    return text, None


TEXT = st.text(alphabet="abé🎭\n", max_size=12)
STOPS = st.lists(st.text(alphabet="abé\n", min_size=1, max_size=3), max_size=3)


@given(TEXT, STOPS)
def test_pieces_are_the_text_up_to_the_stop(text, stops):
    stream = TextStream(Bytes(), stops)
    shown = ""
    for byte in text.encode():
        shown += stream.feed(byte)
        assert text.startswith(shown) and "\ufffd" not in shown
        assert not any(stop in shown for stop in stops)
    shown += stream.finish()
    assert (shown, stream.stop) == cut(text, stops)
    assert stream.finish() == ""


@given(TEXT)
def test_without_a_stop_nothing_is_held_back(text):
    stream = TextStream(CharTokenizer("abé🎭\n"))
    assert [stream.feed(i) for i in
            CharTokenizer("abé🎭\n").encode(text)] == list(text)


def test_a_character_that_never_ends_is_marked():
    stream = TextStream(Bytes())
    assert stream.feed("é".encode()[0]) == ""
    assert stream.finish() == "\ufffd"


@pytest.mark.parametrize("stop", ["", ["a", ""]])
def test_an_empty_stop_string_is_refused(stop):
    with pytest.raises(ValueError, match="stop at once"):
        TextStream(Bytes(), stop)


def test_rows_stop_each_at_their_own_place():
    tokenizer = CharTokenizer("abcdefghijk")
    prompts = ["a", "bc", "def"]
    free = complete(MODEL, tokenizer, prompts, 30, generator=rng(1))
    held = complete(MODEL, tokenizer, prompts, 30, stop=["a", "kk"],
                    generator=rng(1))
    for one, other in zip(free, held):
        text, stop = cut(one.text, ["a", "kk"])
        assert (other.text, other.stop) == (text, stop)
        assert len(other.ids) == len(other.text) + len(stop or "")
        assert other.log_probs == one.log_probs[: len(other.ids)]
    assert len({len(one.ids) for one in held}) > 1


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_stream_and_complete_write_the_same(seed):
    tokenizer = CharTokenizer("abcdefghijk")
    more = {"sampler": Sampler(temperature=0.9, top_p=0.9), "stop": ["ab"]}
    pieces = stream(MODEL, tokenizer, "abc", 30, generator=rng(seed), **more)
    (one,) = complete(
        MODEL, tokenizer, ["abc"], 30, generator=rng(seed), **more
    )
    assert "".join(pieces) == one.text


@pytest.mark.parametrize("prompts", ["abc", [], ["a", ""]])
def test_prompts_are_a_list_of_texts(prompts):
    with pytest.raises(ValueError, match="list of prompts"):
        complete(MODEL, CharTokenizer("abc"), prompts, 3)


@pytest.mark.parametrize(
    "tiny", [{"temperature": 1e-300}, {"top_p": 1e-300}]
)
def test_settings_too_small_for_32_bits_mean_greedy(tiny):
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    assert Sampler(**tiny).choose(logits).tolist() == [[1]]
