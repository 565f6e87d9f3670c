"""Chapter 13's module, against likelihoods worked out by hand."""

import json
import math
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt import (
    GPT,
    GPTConfig,
    eval_command,
    evaluate,
    evaluation,
    save_gpt2,
)
from minigpt.bigram import BigramLM
from minigpt.cli import main
from minigpt.eval_command import spread
from minigpt.evaluation import (
    HELLASWAG_ITEMS,
    RULES,
    Accuracy,
    Ending,
    Item,
    SuffixIndex,
    TextScore,
    accuracy,
    choose,
    load_hellaswag,
    load_items,
    loss_by_position,
    score_endings,
    score_text,
    token_losses,
    windows,
)
from minigpt.pretraining import Shards
from minigpt.text import CharTokenizer
from minigpt.tokenizer import (
    END_OF_TEXT,
    BPETokenizer,
    TokenizerError,
    gpt2_tokenizer,
)

LETTERS = CharTokenizer("ab ")  # ids: space 0, a 1, b 2
# p(next | last), rows and columns in that order
TABLE = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1]])


def table_model(table=TABLE):
    """A model whose probabilities are known: the table's."""
    model = BigramLM(len(table))
    model.table.weight.data = table.log()
    return model


def by_hand(text):
    """-ln p of all but the first character, from the table."""
    ids = LETTERS.encode(text)
    return -sum(math.log(TABLE[a, b]) for a, b in zip(ids, ids[1:]))


class Pairs:
    """A tokenizer of two characters a token."""

    vocab_size = 9

    def encode(self, text):
        assert len(text) % 2 == 0
        ids = LETTERS.encode(text)
        return [3 * a + b for a, b in zip(ids[::2], ids[1::2])]


def pair_model():
    """The same distribution over texts as table_model, in pairs."""
    table = torch.empty(9, 9)
    for last in range(9):
        for new in range(9):
            a, b = divmod(new, 3)
            table[last, new] = TABLE[last % 3, a] * TABLE[a, b]
    return table_model(table)


def small_gpt(seed=0, drop_rate=0.0, **changes):
    torch.manual_seed(seed)
    shape = {"vocab_size": 3, "context_length": 8, "emb_dim": 12,
             "n_heads": 3, "n_layers": 2, "drop_rate": drop_rate}
    model = GPT(GPTConfig(**shape | changes))
    for parameter in model.parameters():  # far from uniform
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


# Text


@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 20))
def test_every_token_is_counted_once_and_knows_enough(n, length, stride):
    if stride > length:
        with pytest.raises(ValueError, match=f"stride is {stride}"):
            list(windows(n, length, stride))
        return
    counted = []
    for start, first, end in windows(n, length, stride):
        assert start <= first < end <= min(n, start + length)
        for place in range(first, end):
            counted.append(place)
            context = place - start + 1
            assert context == place + 1 or context >= length - stride + 1
    assert counted == list(range(n))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 40),
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(1, 5),
)
def test_windows_in_batches_cost_what_each_token_costs_alone(
    n, length, stride, batch_size
):
    stride = min(stride, length)
    model = small_gpt(drop_rate=0.5).train()
    ids = torch.randint(3, (n,), generator=torch.Generator().manual_seed(n))
    got = token_losses(model, ids, context_length=length, stride=stride,
                       batch_size=batch_size)
    assert model.training
    model.eval()
    for start, first, end in windows(n - 1, length, stride):
        logits = model(ids[None, start:end])[0]
        nats = -logits.log_softmax(-1)
        for place in range(first, end):
            want = nats[place - start, ids[place + 1]].item()
            assert got[place].item() == pytest.approx(want, abs=2e-6)


def test_touching_windows_give_the_loss_of_chapter_2():
    model, ids = small_gpt(), torch.randint(3, (101,))
    got = token_losses(model, ids, stride=8).mean().item()
    assert got == pytest.approx(evaluate(model, ids, 8), abs=1e-6)


def test_a_small_stride_gives_every_token_a_full_context():
    model, ids = small_gpt(), torch.randint(3, (30,))
    got = token_losses(model, ids, stride=1)
    model.eval()
    for place in range(29):
        seen = ids[None, max(0, place - 7) : place + 1]
        nats = -model(seen)[0, -1].log_softmax(-1)[ids[place + 1]]
        assert got[place].item() == pytest.approx(nats.item(), abs=2e-6)


def test_a_text_by_hand():
    score = score_text(table_model(), LETTERS, "ab a", prefix="b")
    want = -math.log(0.8 * 0.5 * 0.1 * 0.25)  # b→a a→b b→space space→a
    assert score.nats == pytest.approx(want, rel=1e-6)
    assert (score.tokens, score.chars, score.bytes) == (4, 4, 4)
    assert score.loss == pytest.approx(want / 4)
    assert score.perplexity == pytest.approx(0.01 ** (-1 / 4))
    assert score.bits_per_byte == pytest.approx(-math.log2(0.01) / 4)


@given(st.text("ab ", min_size=1, max_size=30))
def test_bits_per_byte_do_not_depend_on_the_tokenizer(half):
    text = half + half
    single = score_text(table_model(), LETTERS, text, prefix="ab")
    double = score_text(pair_model(), Pairs(), text, prefix="ab")
    assert single.tokens == 2 * double.tokens
    assert single.bits_per_byte == pytest.approx(
        double.bits_per_byte, rel=1e-5
    )
    assert double.loss == pytest.approx(2 * single.loss, rel=1e-5)


def test_bytes_are_those_of_utf8():
    tokenizer = CharTokenizer("\nä€😀")
    model = BigramLM(4)  # uniform: 2 bits a token
    score = score_text(model, tokenizer, "ä€😀")
    assert (score.chars, score.bytes) == (3, 9)
    assert score.bits_per_byte == pytest.approx(6 / 9)
    assert score.bits_per_char == pytest.approx(2)


def test_an_impossible_text_costs_infinitely_much():
    score = TextScore(math.inf, 2, 2, 2)
    assert score.perplexity == score.bits_per_byte == math.inf
    assert TextScore(2000.0, 1, 1, 1).perplexity == math.inf


@pytest.mark.parametrize(
    "text, settings, message",
    [
        ("", {}, "the text is empty"),
        ("ab", {"prefix": ""}, "the prefix is empty"),
        ("axb", {"prefix": " "}, "character 'x' at position 1"),
        ("ab", {}, r"character '\\n' at position 0"),  # the default prefix
        ("ab", {"prefix": " ", "stride": 0}, "stride is 0"),
        ("ab", {"prefix": " ", "stride": 9, "context_length": 8},
         "write 1 to 8"),
        ("ab", {"prefix": " ", "batch_size": 0}, "must be 1 or more"),
    ],
)
def test_bad_texts(text, settings, message):
    with pytest.raises(ValueError, match=message):
        score_text(table_model(), LETTERS, text, **settings)


@pytest.mark.parametrize("ids", [torch.zeros(1).long(), torch.zeros(2, 3)])
def test_fewer_than_two_tokens(ids):
    with pytest.raises(ValueError, match="at least 2 tokens"):
        token_losses(table_model(), ids)


def test_a_broken_model_is_named():
    model = table_model()
    model.table.weight.data[1] = math.nan
    with pytest.raises(ValueError, match="logits are not numbers"):
        token_losses(model, torch.tensor([0, 1, 2]))


def test_losses_of_a_16_bit_model_are_taken_in_32_bits():
    model, ids = small_gpt().bfloat16(), torch.randint(3, (9,))
    got = token_losses(model, ids, stride=8)
    logits = model.eval()(ids[None, :-1])[0].float()
    want = torch.nn.functional.cross_entropy(
        logits, ids[1:], reduction="none"
    )
    assert torch.allclose(got, want, atol=1e-6)


def test_loss_by_position():
    model, ids = small_gpt(), torch.randint(3, (45,))  # 5 windows, 4 left
    got = loss_by_position(model, ids)
    model.eval()
    x, y = ids[:40].view(5, 8), ids[1:41].view(5, 8)
    nats = -model(x).log_softmax(-1).gather(2, y[..., None])[..., 0]
    assert torch.allclose(got, nats.mean(0), atol=1e-6)
    with pytest.raises(ValueError, match="8 tokens do not fill a window of 8"):
        loss_by_position(model, ids[:8])


def test_a_model_that_sees_one_token_back_is_flat_over_positions():
    ids = torch.tensor(LETTERS.encode("ab " * 400))
    curve = loss_by_position(table_model(), ids, context_length=12)
    assert len(curve) == 12
    for place in range(9):  # period 3, and nothing else
        assert abs(curve[place] - curve[place + 3]) < 1e-6


# Endings


ITEM = Item("b", ("a", "b", "a b"), 2, joint=" ")


def test_endings_by_hand():
    (scores,) = score_endings(table_model(), LETTERS, [ITEM])
    for ending, text in zip(scores, ITEM.endings):
        want = by_hand("b " + text)
        assert ending.nats == pytest.approx(want, rel=1e-6)
        assert (ending.tokens, ending.chars) == (len(text) + 1, len(text))


def test_the_rules_disagree_where_they_should():
    endings = [Ending(2.0, 1, 1), Ending(3.0, 2, 4), Ending(2.4, 3, 2)]
    assert [choose(endings, rule) for rule in RULES] == [0, 2, 1]
    assert choose([Ending(1.0, 1, 1)] * 3) == 0


TEXT = st.text("ab ", min_size=1, max_size=14)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=2, max_size=4)),
             min_size=1, max_size=4),
    st.integers(1, 7),
)
def test_endings_in_batches_cost_what_they_cost_alone(parts, batch_size):
    """Long contexts lose their beginning; very long endings are read too."""
    model = small_gpt().eval()
    items = [Item(context, tuple(ends), 0) for context, ends in parts]
    got = score_endings(model, LETTERS, items, batch_size)
    assert [len(row) for row in got] == [len(i.endings) for i in items]
    for item, row in zip(items, got):
        for ending, score in zip(item.endings, row):
            ids = torch.tensor(LETTERS.encode(f"{item.context} {ending}"))
            size = len(ending) + 1
            if size <= 8:
                ids = ids[-9:]
                nats = -model(ids[None, :-1])[0].log_softmax(-1)
                want = nats.gather(1, ids[1:, None])[-size:].sum()
            else:
                want = token_losses(model, ids)[-size:].sum()
            assert score.tokens == size
            assert score.nats == pytest.approx(want.item(), abs=2e-5)


def test_the_future_padding_is_not_seen():
    model = small_gpt()
    long, short = Item("a", ("b", "ab a"), 0), Item("a", ("b", "b"), 0)
    together = score_endings(model, LETTERS, [long, short], 4)
    assert together[1][0].nats == pytest.approx(together[0][0].nats, abs=1e-5)


@pytest.mark.parametrize(
    "item, message",
    [
        (Item("", ("a", "b"), 0), "item 2 has an empty context"),
        (Item("a", ("a", ""), 0), "item 2 has an empty"),
        (Item("a?", ("a", "b"), 0), "item 2: character '\\?' at position 1"),
        (Item("a", ("a", "!"), 0), "item 2: character '!'"),
    ],
)
def test_bad_items(item, message):
    with pytest.raises(ValueError, match=message):
        score_endings(table_model(), LETTERS, [ITEM, item])


def test_accuracy_and_its_error():
    cheap, dear = Ending(1.0, 1, 1), Ending(2.0, 1, 1)
    items = [Item("a", ("a", "b"), label) for label in (0, 0, 1, 0)]
    result = accuracy(items, [[cheap, dear]] * 4, "sum")
    assert result == Accuracy(3, 4)
    assert result.standard_error == pytest.approx(math.sqrt(3 / 64))
    assert str(Accuracy(3114, 10_000)) == "31.14% ± 0.46%"
    with pytest.raises(ValueError, match="no items"):
        accuracy([], [], "sum")
    with pytest.raises(ValueError):  # a score is missing
        accuracy(items, [[cheap, dear]] * 3, "sum")


# Files


ROW = {
    "activity_label": "Cooking [x]", "ctx": "A man  cooks. he",
    "ctx_a": "A man  cooks.", "ctx_b": "he THEN",
    "endings": ["eats [step] it.", " sings [title] loudly"], "label": 1,
}


def items_file(folder, *lines):
    path = folder / "items.jsonl"
    path.write_text("".join(
        (line if isinstance(line, str) else json.dumps(line)) + "\n"
        for line in lines
    ))
    return path


def test_both_styles_of_an_item(tmp_path):
    path = items_file(tmp_path, ROW)
    (script,) = load_items(path)
    assert script == Item(ROW["ctx"], tuple(ROW["endings"]), 1)
    (harness,) = load_items(path, "harness")
    assert harness == Item(
        "Cooking : A man cooks. He then", ("eats it.", "sings. loudly"), 1
    )


def test_the_harness_scores_a_space_that_ends_the_context(tmp_path):
    row = ROW | {"ctx_a": "Wash it. [title] Dry it. [step]", "ctx_b": ""}
    (item,) = load_items(items_file(tmp_path, row), "harness")
    assert item.context == "Cooking : Wash it.. Dry it."
    assert (item.joint, item.endings[0]) == ("  ", "eats it.")


@pytest.mark.parametrize(
    "lines, message",
    [
        ([ROW, "{"], "line 2 is no item"),
        ([ROW, "[]"], "line 2 is no item"),
        ([{**ROW, "label": 2}], "line 1 is no item .there is no ending num"),
        ([{**ROW, "label": ""}], "line 1 is no item"),
        ([{**ROW, "label": 0.5}], "line 1 is no item"),
        ([{**ROW, "label": float("inf")}], "line 1 is no item"),
        ([ROW, "[" * 100_000], "line 2 is no item"),
        ([{**ROW, "endings": None}], "line 1 is no item"),
        ([{**ROW, "endings": "abc"}], "line 1 is no item"),
        ([{**ROW, "ctx": 3}], "line 1 is no item"),
        ([{"ctx": "a", "label": 0}], "line 1 has no 'endings'"),
        (["", ROW], "line 1 is no item"),
        ([], "is empty"),
    ],
)
def test_bad_lines_are_named(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message) as error:
        load_items(items_file(tmp_path, *lines))
    assert "items.jsonl" in str(error.value)


@pytest.mark.parametrize("name", ["activity_label", "ctx_a", "ctx_b"])
@pytest.mark.parametrize("value", [None, 3, ["he"]])
def test_the_harness_wants_texts(tmp_path, name, value):
    path = items_file(tmp_path, {**ROW, name: value})
    with pytest.raises(ValueError, match="line 1 is no item .* is no text"):
        load_items(path, "harness")


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r\n")
    assert len(load_items(path)) == 1  # a byte order mark is no harm
    path.write_bytes(json.dumps(ROW).encode() + b'\n{"ctx": "caf\xe9"}')
    with pytest.raises(ValueError, match="items.jsonl, line 2 is no item"):
        load_items(path)
    for missing in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(OSError, match="cannot be read .*: name a file"):
            load_items(missing)


def test_an_unknown_style(tmp_path):
    with pytest.raises(ValueError, match="style is 'x'"):
        load_items(items_file(tmp_path, ROW), "x")


def test_hellaswag_from_the_data_folder(tmp_path, monkeypatch):
    path = items_file(tmp_path, *[ROW] * HELLASWAG_ITEMS)
    path.rename(tmp_path / "hellaswag_val.jsonl")
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path))
    assert len(load_hellaswag()) == 10_042
    items_file(tmp_path, ROW).rename(tmp_path / "hellaswag_val.jsonl")
    with pytest.raises(ValueError, match="has 1 items, not 10,042"):
        load_hellaswag()


# Memory


def longest_by_brute_force(sample, text):
    pieces = {sample[i:j] for i in range(len(sample))
              for j in range(i + 1, len(sample) + 1)}
    return max((len(p) for p in pieces if p in text), default=0)


@given(
    st.text("abc😀", min_size=1, max_size=40), st.text("abc😀", max_size=15)
)
def test_overlap_against_brute_force(text, sample):
    index = SuffixIndex(text)
    suffixes = [text[start:] for start in index.order]
    assert suffixes == sorted(text[start:] for start in range(len(text)))
    best = index.longest(sample)
    assert best.length == longest_by_brute_force(sample, text)
    piece = sample[best.start : best.start + best.length]
    assert text[best.found : best.found + best.length] == piece
    for piece in {sample[:3], sample[1:2], text[:5]} - {""}:
        brute = sum(text.startswith(piece, i) for i in range(len(text)))
        assert index.count(piece) == brute


def test_repetitions_are_sorted_quickly_and_empty_texts_refused():
    index = SuffixIndex("a" * 100_000)
    assert index.order[0] == 99_999
    assert index.longest("b" + "a" * 50).length == 50
    with pytest.raises(ValueError, match="the text is empty"):
        SuffixIndex("")


# The command line


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder made in a second."""
    folder = tmp_path_factory.mktemp("eval")
    corpus = folder / "corpus.txt"
    corpus.write_text("to be, or not to be: that is the question.\n" * 30)
    sizes = {"max-steps": 4, "batch-size": 2, "context-length": 16,
             "emb-dim": 16, "n-layers": 1, "eval-every": 4,
             "sample-tokens": 2}
    flags = [part for k, v in sizes.items() for part in (f"--{k}", str(v))]
    out = folder / "run"
    assert main(["train", "--data", str(corpus), "--out", str(out),
                 "--precision", "fp32", "--device", "cpu", *flags]) == 0
    return out


def evaluated(capsys, *argv):
    capsys.readouterr()
    assert main(["eval", "--device", "cpu", *map(str, argv)]) == 0
    return capsys.readouterr().out


def refused(capsys, *argv):
    """The one line that answers bad input; the exit code must be 2."""
    capsys.readouterr()
    assert main(["eval", "--device", "cpu", *map(str, argv)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_eval_of_the_text_it_was_trained_on(run, capsys):
    from minigpt import load_run

    out = evaluated(capsys, "--run", run)
    text = (run.parent / "corpus.txt").read_text()
    model, tokenizer = load_run(run)
    val = text[int(len(text) * 0.9) :]
    score = score_text(model, tokenizer, val)
    assert f"val part: {len(val)} characters" in out
    assert f"{score.loss:.4f}  nats a token" in out
    assert f"{score.bits_per_byte:.4f}  (compares" in out
    assert "windows of 16 every 8: each token once, after 9 to 16 ot" in out
    assert evaluated(capsys, "--run", run, "--context-length", 16) == out
    short = evaluated(capsys, "--run", run, "--context-length", 1)
    assert "windows of 1 every 1: each token once, after 1 to 1 o" in short
    other = evaluated(
        capsys, "--run", run, "--context-length", 8, "--stride", 2
    )
    score = score_text(model, tokenizer, val, context_length=8, stride=2)
    assert f"{score.loss:.4f}  nats a token" in other
    assert "windows of 8 every 2" in other
    whole = evaluated(capsys, "--run", run, "--data",
                      run.parent / "corpus.txt", "--limit", 100)
    assert "corpus.txt: 100 characters" in whole


def test_eval_of_the_shards_it_was_trained_on(tmp_path, capsys):
    from minigpt import load_run

    source, shards = tmp_path / "plays.txt", tmp_path / "shards"
    source.write_text("\n".join(f"To be, or not to be {n}" for n in range(90)))
    vocabulary = tmp_path / "bpe.json"
    BPETokenizer.train(source.read_text(), 270, [END_OF_TEXT]).save(vocabulary)
    assert main(["data", "--source", str(source), "--out", str(shards),
                 "--tokenizer", str(vocabulary), "--piece-chars", "100",
                 "--processes", "1"]) == 0
    assert main(["train", "--data", str(shards), "--out",
                 str(tmp_path / "run"), "--context-length", "8", "--emb-dim",
                 "16", "--n-layers", "1", "--n-heads", "2", "--max-steps",
                 "2", "--eval-every", "2", "--precision", "fp32"]) == 0
    out = evaluated(capsys, "--run", tmp_path / "run")
    model, tokenizer = load_run(tmp_path / "run")
    text = tokenizer.decode(Shards(shards, "val")[:].tolist())
    assert text.endswith(END_OF_TEXT) and "To be" in text
    text = text.replace(END_OF_TEXT, "\n")
    score = score_text(model, tokenizer, text)
    assert f"shards, val part: {len(text)} characters" in out
    assert f"{score.bits_per_byte:.4f}  (compares" in out
    out = evaluated(capsys, "--run", tmp_path / "run", "--data", shards,
                    "--part", "all", "--limit", 1000)
    assert "shards: 1,000 characters" in out
    val = evaluated(capsys, "--run", tmp_path / "run", "--data", shards)
    assert "shards, val part" in val
    path = shards / "train-00000.npy"
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    line = refused(capsys, "--run", tmp_path / "run", "--data", shards,
                   "--part", "train")
    assert "train-00000.npy does not match" in line
    path.write_bytes(before)
    manifest = json.loads((shards / "manifest.json").read_text())
    manifest["splits"]["val"]["shards"][0]["sha256"] = "0" * 64
    (shards / "manifest.json").write_text(json.dumps(manifest))
    assert "no longer the one" in refused(capsys, "--run", tmp_path / "run")


def test_eval_of_items(run, capsys, tmp_path):
    rows = [{"ctx": "to be", "endings": ["or not", "that is", "the", "be"],
             "label": n % 4} for n in range(8)]
    path = items_file(tmp_path, *rows)
    out = evaluated(capsys, "--run", run, "--on", "hellaswag", "--data", path)
    assert "8 items, style script; guessing: 25%" in out
    assert out.count("25.00% ± 15.31%") == 3  # one answer, each label twice
    fewer = evaluated(capsys, "--run", run, "--on", "hellaswag", "--data",
                      path, "--limit", 4)
    assert "4 items" in fewer
    rows[0] |= {"endings": ["or not", "that is"]}
    path = items_file(tmp_path, *rows[:1], *rows[4:5])
    mixed = evaluated(
        capsys, "--run", run, "--on", "hellaswag", "--data", path
    )
    assert "2 items, style script; guessing: 38%" in mixed


def test_eval_of_the_official_items(run, capsys, monkeypatch, tmp_path):
    rows = [{"ctx": "to be", "endings": ["or not", "that is"], "label": 0}] * 8
    path = items_file(tmp_path, *rows)
    monkeypatch.setattr(eval_command, "load_hellaswag",
                        lambda style: load_items(path, style))
    monkeypatch.setitem(eval_command.PUBLISHED, str(run),
                        {"script": {"sum": 12.5}})
    sizes, score = set(), eval_command.score_endings

    def spy(model, tokenizer, items, batch_size):
        sizes.add(batch_size)
        return score(model, tokenizer, items, batch_size)

    monkeypatch.setattr(eval_command, "score_endings", spy)
    flags = ["--run", run, "--on", "hellaswag", "--batch-size", 3]
    out = evaluated(capsys, *flags)
    assert "8 items" in out
    assert "published on all items: by the sum 12.5 %" in out
    assert "2 items" in evaluated(capsys, *flags, "--limit", 2)
    assert "published" not in evaluated(capsys, *flags, "--data", path)
    assert sizes == {3}


@pytest.mark.parametrize(
    "size, remedy", [(9, "write --batch-size 4"), (1, "write --device cpu")]
)
def test_too_large_a_batch_is_one_sentence(
    run, capsys, monkeypatch, size, remedy
):
    def full(*_, **__):
        raise RuntimeError(words)

    words = "CUDA out of memory. Tried to allocate 9 GiB"
    monkeypatch.setattr(eval_command, "score_text", full)
    argv = ["eval", "--run", str(run), "--batch-size", str(size)]
    assert main(argv) == 1
    assert f"out of memory: {remedy}" in capsys.readouterr().err
    words = "the shapes do not fit"
    with pytest.raises(RuntimeError, match=words):
        main(argv)


def test_a_limit_is_in_characters_not_bytes(tmp_path):
    source, vocabulary = tmp_path / "a.txt", tmp_path / "bpe.json"
    source.write_text("äöü€\n" * 90, encoding="utf-8")
    BPETokenizer.train("ab", 258, [END_OF_TEXT]).save(vocabulary)
    assert main(["data", "--source", str(source), "--out",
                 str(tmp_path / "s"), "--tokenizer", str(vocabulary),
                 "--piece-chars", "10", "--processes", "1"]) == 0
    text = eval_command._text_of_shards(tmp_path / "s", "train", 50)
    assert len(text) >= 50


def test_a_limit_is_spread_over_the_file():
    assert spread(list(range(10)), 3) == [0, 3, 6]
    assert spread([1, 2], 5) == spread([1, 2], None) == [1, 2]


def test_bad_command_lines(run, capsys, tmp_path):
    empty, odd = tmp_path / "empty.txt", tmp_path / "odd.txt"
    empty.write_text("")
    odd.write_text("to be? ")
    short = tmp_path / "short.txt"
    short.write_text("t")
    assert "no run 'nothing'" in refused(capsys, "--run", "nothing")
    line = refused(capsys, "--run", "nothing", "--data", "nowhere")
    assert "no run 'nothing'" in line  # before the text is looked for
    assert "is not a run folder" in refused(capsys, "--run", tmp_path)
    assert "is empty" in refused(capsys, "--run", run, "--data", empty)
    line = refused(capsys, "--run", run, "--data", odd)
    assert "character '?' at position 5" in line
    line = refused(capsys, "--run", run, "--data", short, "--part", "train")
    assert "no train part" in line
    assert "no text" in refused(capsys, "--run", run, "--data", "nowhere")
    line = refused(capsys, "--run", run, "--stride", 17)
    assert "write 1 to 16" in line
    line = refused(capsys, "--run", run, "--context-length", 17)
    assert "built for 16" in line
    for name in ("limit", "batch-size"):
        line = refused(capsys, "--run", run, f"--{name}", 0)
        assert f"{name.replace('-', '_')} is 0: write 1 or more" in line
    for name, value in (("stride", 4), ("context-length", 8), ("part", "all")):
        line = refused(capsys, "--run", run, "--on", "hellaswag",
                       f"--{name}", value)
        assert f"{name.replace('-', '_')} is for --on text" in line
    path = items_file(tmp_path, ROW, "no json")
    line = refused(capsys, "--run", run, "--on", "hellaswag", "--data", path)
    assert "items.jsonl, line 2 is no item" in line
    line = refused(capsys, "--run", run, "--on", "hellaswag", "--data",
                   tmp_path / "none.jsonl")
    assert "none.jsonl" in line


def test_a_gpt2_comes_with_its_own_tokenizer(run, capsys, tmp_path):
    model = GPT(GPTConfig(50257, 16, 8, 2, 1))
    folder = save_gpt2(model, tmp_path / "tiny")
    try:
        tokenizer = gpt2_tokenizer()
    except TokenizerError as error:
        pytest.skip(f"tiktoken's files are not here: {error}")
    corpus = run.parent / "corpus.txt"
    out = evaluated(capsys, "--run", folder, "--data", corpus)
    score = score_text(model, tokenizer, corpus.read_text())
    assert f"{score.tokens:,} tokens" in out
    assert f"{score.bits_per_byte:.4f}  (compares" in out
    folder = save_gpt2(GPT(GPTConfig(30, 16, 8, 2, 1)), tmp_path / "small")
    line = refused(capsys, "--run", folder, "--data", corpus)
    assert "has 30 tokens" in line


def test_without_a_network_a_file_can_be_named(
    run, capsys, monkeypatch, tmp_path
):
    def fetch(*_):
        raise ConnectionError("cannot download it: check the network")

    monkeypatch.setattr(evaluation, "_fetch", fetch)
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path))  # it is not there
    line = refused(capsys, "--run", run, "--on", "hellaswag")
    assert "cannot download it" in line and "with --data" in line


def test_one_token_after_the_prefix_is_enough(run, capsys, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("t")
    assert "1 tokens" in evaluated(capsys, "--run", run, "--data", short)


def test_a_run_that_does_not_name_its_text(run, capsys, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    stored = json.loads((copy / "config.json").read_text())
    del stored["data"]
    (copy / "config.json").write_text(json.dumps(stored))
    line = refused(capsys, "--run", copy)
    assert "does not say what it was trained on" in line


def test_a_changed_text_is_refused(run, capsys):
    corpus = run.parent / "corpus.txt"
    before = corpus.read_text()
    corpus.write_text(before + "more")
    try:
        assert "no longer the one" in refused(capsys, "--run", run)
    finally:
        corpus.write_text(before)
