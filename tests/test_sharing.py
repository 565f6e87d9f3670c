"""Chapter 14: every format read back by other programs and compared."""

import json
import os
import re
import shutil

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minigpt import (
    GPT,
    BPETokenizer,
    CharTokenizer,
    GPTConfig,
    Sampler,
    TrainConfig,
    Trainer,
    complete,
    generate,
    gpt2_tokenizer,
    load_run,
    save_gpt2,
    score_text,
)
from minigpt.cli import main
from minigpt.gpt2 import CONV1D, WeightsError
from minigpt.model import PRESETS
from minigpt.runfolder import RunError, TrainingError, read_log
from minigpt.sharing import (
    FORMATS,
    LOSSES,
    MARK,
    OURS,
    POINTS,
    ExportError,
    OnnxGPT,
    base_name,
    export,
    gguf_name,
    hf_byte_pairs,
    hf_characters,
    load_any,
    loss_rows,
    need,
    new_folder,
    run_facts,
    spelled,
)
from minigpt.tokenizer import END_OF_TEXT, TokenizerError

TEXT = "To be, or not to be: that is the question.\nWhether 'tis nobler — é\n"
PROMPT = "not to be: "
KINDS = ("char", "bpe", "gpt2")


def make_tokenizer(kind):
    if kind == "char":
        return CharTokenizer.from_text(TEXT)
    if kind == "bpe":
        return BPETokenizer.train(TEXT * 3, 290, [END_OF_TEXT])
    try:
        return gpt2_tokenizer()
    except TokenizerError:
        pytest.skip("GPT-2's vocabulary is not here")


def make_run(folder, kind):
    """A run folder as training leaves it, made in a second."""
    tokenizer = make_tokenizer(kind)
    tied, biased = kind != "bpe", kind == "gpt2"
    torch.manual_seed(0)
    model = GPT(
        GPTConfig(
            *(tokenizer.vocab_size, 48, 32, 4, 2),
            qkv_bias=biased,
            bias=biased,
            tie_weights=tied,
        )
    )
    ids = torch.tensor(tokenizer.encode(TEXT * 30))
    config = TrainConfig(
        *(4, 2),
        log_every=2,
        eval_every=2,
        checkpoint_every=2,
        sample_every=4,
        sample_tokens=20,
        warmup_steps=0,
        device="cpu",
        precision="fp32",
        optimizer="adamw",
    )
    trainer = Trainer(
        *(model, ids, ids[:400], config),
        run_dir=folder,
        tokenizer=tokenizer,
        facts={
            "preset": "pocket",
            "data": "/home/somebody/secret plans/plays.txt",
            "command": "minigpt train --data /home/somebody/...",
        },
    )
    trainer.fit()
    with torch.no_grad():  # far from its start, so that mistakes show
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)
    trainer._write_weights()
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders by the kind of tokenizer, made when asked for."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = make_run(tmp_path_factory.mktemp(kind) / "run", kind)
        return made[kind]

    return get


def greedy(model, ids, count=20):
    return generate(model, torch.tensor([ids]), count, temperature=0)[0]


def files(folder):
    return {path.name for path in folder.iterdir()}


# -------------------------------------------------------------- safetensors
@pytest.mark.parametrize("kind", KINDS)
def test_safetensors_comes_back_the_same(runs, kind, tmp_path):
    out = export(runs(kind), "safetensors", tmp_path / "out")
    model, tokenizer = load_run(runs(kind))
    again, its_tokenizer = load_run(out)
    assert again.config == model.config
    for (name, a), b in zip(model.named_parameters(), again.parameters()):
        assert torch.equal(a, b), name
    assert its_tokenizer.encode(TEXT) == tokenizer.encode(TEXT)
    assert files(out) == {
        *("config.json", "model.safetensors", "tokenizer.json"),
        *("README.md", MARK, LOSSES),
    }


# -------------------------------------------------------------- huggingface
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_it_as_it_is(runs, kind, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = export(runs(kind), "huggingface", tmp_path / "out")
    model, tokenizer = load_run(runs(kind))
    theirs = AutoModelForCausalLM.from_pretrained(out).eval()
    their_tokenizer = AutoTokenizer.from_pretrained(out)

    assert their_tokenizer(TEXT)["input_ids"] == tokenizer.encode(TEXT)
    assert their_tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert len(their_tokenizer) == tokenizer.vocab_size
    assert their_tokenizer.model_max_length == model.context_length
    ids = torch.randint(tokenizer.vocab_size, (3, 48))
    with torch.no_grad():
        off = (model(ids) - theirs(ids).logits).abs().max()
    assert off < 1e-4
    prompt = their_tokenizer(PROMPT, return_tensors="pt")
    new = {"max_new_tokens": 20, "min_new_tokens": 20}
    done = theirs.generate(**prompt, **new, do_sample=False)[0]
    (ours,) = complete(
        model, tokenizer, [PROMPT], 20, sampler=Sampler(temperature=0)
    )
    assert their_tokenizer.decode(done) == PROMPT + ours.text


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_way_back_from_huggingface(runs, kind, tmp_path):
    out = export(runs(kind), "huggingface", tmp_path / "out")
    model, tokenizer = load_run(runs(kind))
    again, its_tokenizer = load_any(out)
    ids = tokenizer.encode(TEXT)[:48]
    assert its_tokenizer.encode(TEXT)[:48] == ids
    idx = torch.tensor([ids])
    torch.testing.assert_close(again(idx), model(idx))


def test_sample_writes_the_same_from_a_run_and_its_exports(
    runs, tmp_path, capsys
):
    folders = [runs("bpe")]
    for to in ("huggingface", "safetensors"):
        folders.append(export(runs("bpe"), to, tmp_path / to))
    written = []
    for run in folders:
        words = ["--run", str(run), "--seed", "1", "--num-tokens", "30"]
        assert main(["sample", *words]) == 0
        written.append(capsys.readouterr().out)
    assert len(written[0]) > 30
    assert written == written[:1] * 3


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    folder = save_gpt2(GPT(GPTConfig(6, 8, 16, 2, 1)), tmp_path / "hf")
    for chars in ("abcde", "abcdefg"):
        CharTokenizer(chars).save(folder / OURS)
        with pytest.raises(RunError, match="has 6 tokens, .*tokenizer"):
            load_any(folder)


def test_a_special_token_is_text_unless_asked_for(runs, tmp_path):
    from transformers import AutoTokenizer

    out = export(runs("bpe"), "huggingface", tmp_path / "out")
    theirs, ours = AutoTokenizer.from_pretrained(out), make_tokenizer("bpe")
    text = f"be{END_OF_TEXT}be"
    assert theirs(text)["input_ids"] == ours.encode(text)
    allowed = theirs(text, split_special_tokens=False)["input_ids"]
    assert allowed == ours.encode(text, allowed_special="all")
    assert theirs.eos_token_id == ours.start_id


def test_an_emoji_is_an_error_in_a_character_model(runs, tmp_path):
    from transformers import AutoTokenizer

    with pytest.raises(ValueError, match="is not among the"):
        complete(*load_run(runs("char")), ["be 🙂"], 5)
    out = export(runs("char"), "huggingface", tmp_path / "out")
    with pytest.raises(Exception, match="WordLevel error: Missing"):
        AutoTokenizer.from_pretrained(out)("be 🙂")


BYTE_PAIRS = BPETokenizer.train(TEXT * 3, 290, [END_OF_TEXT])
FAST = hf_byte_pairs(BYTE_PAIRS)


@given(st.text())
def test_the_same_ids_for_any_text(text):
    if END_OF_TEXT not in text:
        assert FAST.encode(text).ids == BYTE_PAIRS.encode(text)
    assert FAST.decode(BYTE_PAIRS.encode(text)) == text


@given(st.text("ab\n\r\t  é—🙂\u0301", min_size=1))
def test_any_character_vocabulary(text):
    tokenizer = CharTokenizer.from_text(text)
    fast = hf_characters(tokenizer)
    assert fast.encode(text).ids == tokenizer.encode(text)
    assert fast.decode(tokenizer.encode(text)) == text


def test_two_spellings_are_refused(tmp_path):
    a, b, c = (ord(x) for x in "abc")
    twins = BPETokenizer([(a, b), (b, c), (256, c), (a, 257)], [END_OF_TEXT])
    with pytest.raises(ExportError, match="two tokens are spelled 'abc'"):
        spelled(twins)
    with pytest.raises(ExportError, match="two tokens"):
        spelled(BPETokenizer([(a, b)], ["ab"]))


# --------------------------------------------------------------------- onnx
@pytest.fixture(scope="module")
def onnx_folders(runs, tmp_path_factory):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    place = tmp_path_factory.mktemp("onnx")
    return {
        kind: export(runs(kind), "onnx", place / kind, int8=True)
        for kind in ("char", "bpe")
    }


@pytest.mark.parametrize("kind", ["char", "bpe"])
@pytest.mark.parametrize("B, T, P", [(1, 1, 0), (2, 5, 3), (3, 1, 17),
                                     (1, 48, 0), (4, 16, 32)])
def test_onnx_at_any_size(runs, onnx_folders, kind, B, T, P):
    from minigpt.sampling import KVCache

    model, _ = load_run(runs(kind))
    onnx_model = OnnxGPT(onnx_folders[kind] / "model.onnx", threads=1)
    idx = torch.randint(model.config.vocab_size, (B, P + T))
    cache = KVCache(model, B)
    with torch.no_grad():
        expected = model(idx)  # (B, P + T, V)
        model(idx, cache)
    past = onnx_model.step(idx[:, :P])[1] if P else None
    logits, present = onnx_model.step(idx[:, P:], past)
    torch.testing.assert_close(
        logits, expected[:, P:], atol=1e-3, rtol=0
    )
    for (keys, values), layer in zip(present, cache.layers):
        torch.testing.assert_close(keys, layer.keys[:, :, : P + T])
        torch.testing.assert_close(values, layer.values[:, :, : P + T])


def test_onnx_writes_the_same_text(runs, onnx_folders):
    model, tokenizer = load_run(runs("char"))
    ids = tokenizer.encode(PROMPT)
    onnx_model = OnnxGPT(onnx_folders["char"] / "model.onnx")
    assert torch.equal(greedy(onnx_model, ids), greedy(model, ids))


def test_onnx_int8_is_smaller_and_nearly_as_good(runs, onnx_folders):
    model, tokenizer = load_run(runs("char"))
    folder = onnx_folders["char"]
    small = folder / "model.int8.onnx"
    settings = {"context_length": 48, "stride": 24}
    ours = score_text(model, tokenizer, TEXT * 8, **settings).loss
    theirs = score_text(
        OnnxGPT(small), tokenizer, TEXT * 8, **settings
    ).loss
    assert abs(ours - theirs) < 0.02
    alone = folder.parent / "alone"
    alone.mkdir(exist_ok=True)
    for name in ("model.int8.onnx", "config.json"):
        (alone / name).write_bytes((folder / name).read_bytes())
    OnnxGPT(alone / "model.int8.onnx")  # needs no weights beside it
    import onnx

    graph = onnx.load(small).graph
    scales = {x.dims[0] for x in graph.initializer
              if x.name.endswith("_scale") and x.dims}
    assert {32, 96, 128} <= scales  # one for each output


def test_mini_in_int8_is_small(tmp_path):
    """At most 12 MB; its loss is measured by benchmarks/export.py --run."""
    pytest.importorskip("onnxruntime")
    source = save_gpt2(GPT(PRESETS["mini"]), tmp_path / "mini")
    CharTokenizer("".join(map(chr, range(65, 130)))).save(source / OURS)
    out = export(source, "onnx", tmp_path / "out", int8=True)
    assert (out / "model.int8.onnx").stat().st_size <= 12_000_000


def test_an_onnx_folder_is_a_huggingface_folder(runs, onnx_folders):
    model, _ = load_run(runs("char"))
    again, tokenizer = load_any(onnx_folders["char"])
    idx = torch.tensor([tokenizer.encode(PROMPT)])
    torch.testing.assert_close(again(idx), model(idx))


def test_a_damaged_onnx_file(onnx_folders, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(ExportError, match="cannot be used .*export the run"):
        OnnxGPT(path)
    with pytest.raises(ExportError, match="cannot be used"):
        OnnxGPT(tmp_path / "none.onnx")


# --------------------------------------------------------------------- gguf
def read_gguf(path):
    """Metadata and tensors of a file, by the reader of the package."""
    from gguf import GGUFReader, quants

    reader = GGUFReader(path)
    facts = {key: field.contents() for key, field in reader.fields.items()}
    tensors = {
        t.name: quants.dequantize(t.data, t.tensor_type)
        .reshape(list(reversed(t.shape)))
        for t in reader.tensors
    }
    return facts, tensors


@pytest.mark.parametrize("kind", KINDS)
def test_gguf_holds_every_number(runs, kind, tmp_path):
    pytest.importorskip("gguf")
    out = export(runs(kind), "gguf", tmp_path / "out")
    model, tokenizer = load_run(runs(kind))
    facts, tensors = read_gguf(out / "model.gguf")
    state = model.state_dict()
    if model.config.tie_weights:
        del state["lm_head.weight"]
    for name, weight in state.items():
        stored = tensors.pop(gguf_name(name))
        assert numpy.array_equal(stored, weight.numpy()), name
    assert not any(rest.any() for rest in tensors.values())  # no such bias
    c = model.config
    assert facts["general.architecture"] == "gpt2"
    assert facts["gpt2.context_length"] == c.context_length
    assert facts["gpt2.block_count"] == c.n_layers
    assert facts["gpt2.attention.head_count"] == c.n_heads
    assert facts["gpt2.embedding_length"] == c.emb_dim
    assert facts["gpt2.feed_forward_length"] == 4 * c.emb_dim
    eps = facts["gpt2.attention.layer_norm_epsilon"]
    assert eps == pytest.approx(model.ln_f.eps)
    assert len(facts["tokenizer.ggml.tokens"]) == tokenizer.vocab_size


def test_gguf_vocabularies(runs, tmp_path):
    pytest.importorskip("gguf")
    out = export(runs("bpe"), "gguf", tmp_path / "bpe")
    facts, _ = read_gguf(out / "model.gguf")
    tokenizer = make_tokenizer("bpe")
    assert facts["tokenizer.ggml.tokens"] == spelled(tokenizer)
    assert facts["tokenizer.ggml.eos_token_id"] == tokenizer.start_id
    assert facts["tokenizer.ggml.token_type"][-2:] == [1, 3]
    assert facts["tokenizer.ggml.pre"] == "gpt-2"
    assert facts["tokenizer.ggml.add_bos_token"] is False
    assert len(facts["tokenizer.ggml.merges"]) == len(tokenizer.merges)
    out = export(runs("char"), "gguf", tmp_path / "char")
    facts, _ = read_gguf(out / "model.gguf")
    assert facts["tokenizer.ggml.model"] == "rwkv"
    assert facts["tokenizer.ggml.tokens"][:3] == [r"\x0a", r"\x20", "'"]
    assert r"\xc3\xa9" in facts["tokenizer.ggml.tokens"]
    assert "tokenizer.ggml.eos_token_id" not in facts


def test_gguf_int8(runs, tmp_path):
    pytest.importorskip("gguf")
    out = export(runs("char"), "gguf", tmp_path / "out", int8=True)
    whole = export(runs("char"), "gguf", tmp_path / "whole")
    model, _ = load_run(runs("char"))
    facts, tensors = read_gguf(out / "model.gguf")
    assert facts["general.quantization_version"] == 2
    for name, weight in model.named_parameters():
        stored = torch.tensor(tensors[gguf_name(name)])
        torch.testing.assert_close(stored, weight.data, atol=0.01, rtol=0)
    sizes = [(x / "model.gguf").stat().st_size for x in (out, whole)]
    assert sizes[0] < sizes[1] / 2


@pytest.mark.parametrize("width", [48, 64])
def test_gguf_int8_is_for_rows_of_32(width, tmp_path):
    """llama.cpp has no positions in Q8_0, and no rest of a block."""
    pytest.importorskip("gguf")
    from gguf import GGUFReader

    model = GPT(GPTConfig(4, 8, width, 2, 1))
    source = save_gpt2(model, tmp_path / "source")
    CharTokenizer("abcd").save(source / OURS)
    out = export(source, "gguf", tmp_path / "out", int8=True)
    kinds = {t.name: t.tensor_type.name
             for t in GGUFReader(out / "model.gguf").tensors}
    assert kinds["position_embd.weight"] == "F32"
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    whole = width % 32 == 0
    assert kinds["blk.0.ffn_up.weight"] == ("Q8_0" if whole else "F32")


def test_gguf_needs_an_end_of_text(tmp_path):
    pytest.importorskip("gguf")
    tokenizer = BPETokenizer.train(TEXT, 260)
    model = GPT(GPTConfig(260, 16, 32, 2, 1))
    folder = save_gpt2(model, tmp_path / "hf")
    tokenizer.save(folder / OURS)
    with pytest.raises(ExportError, match="token 11 for the end of text"):
        export(folder, "gguf", tmp_path / "out")
    assert files(tmp_path) == {"hf"}


# --------------------------------------------------------------------- card
@pytest.mark.parametrize("to", ["huggingface", "onnx", "safetensors"])
def test_the_card_says_where_others_stop(runs, to, tmp_path):
    """Only minigpt goes on past the context length."""
    card = export(runs("char"), to, tmp_path / to) / "README.md"
    model, _ = load_any(runs("char"))
    limit = f"together: at most {model.context_length} tokens"
    assert (limit in card.read_text("utf-8")) == (to != "safetensors")


def test_the_card_tells_what_the_log_knows(runs, tmp_path):
    out = export(runs("char"), "safetensors", tmp_path / "my-model",
                 license="cc0-1.0")
    card = (out / "README.md").read_text(encoding="utf-8")
    header, rest = card.removeprefix("---\n").split("\n---\n", 1)
    import yaml

    assert yaml.safe_load(header) == {
        "license": "cc0-1.0",
        "library_name": "minigpt",
        "pipeline_tag": "text-generation",
        "tags": ["minigpt", "safetensors"],
    }
    facts = run_facts(runs("char"))
    assert "\n# run\n" in rest and 'load_run("my-model")' in rest
    assert "| Trained on | plays.txt |" in rest
    assert f"| Best validation loss | {facts['val_loss']:.3f} |" in rest
    assert f"| Training loss at the end | {facts['train_loss']:.3f} |" in rest
    assert f"| Tokens seen | {facts['tokens']:,} |" in rest
    assert f"| Hardware | {facts['device']} |" in rest
    assert "every other character is refused" in rest
    assert "## Limits" in rest and rest.rstrip().endswith("cc0-1.0")
    assert f"    {facts['sample'].splitlines()[0]}" in rest


@pytest.mark.parametrize("to", ["safetensors", "huggingface", "onnx"])
def test_the_code_on_the_card_runs(runs, to, tmp_path, monkeypatch, capsys):
    out = export(runs("char"), to, tmp_path / "my-model")
    card = (out / "README.md").read_text(encoding="utf-8")
    section = card.split("## Use\n")[1].split("## ")[0]
    code = "\n".join(line[4:] for line in section.splitlines())
    assert "my-model" in code
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("warnings.warn", lambda *_, **__: None)
    exec(code.replace("200", "20").replace("=50", "=20"), {})
    assert len(capsys.readouterr().out) >= 20


@pytest.mark.parametrize("to", ["safetensors", "huggingface", "onnx"])
def test_the_code_of_any_name_and_model_runs(
    to, tmp_path, monkeypatch, capsys
):
    """No newline, no A, a context of 8, a name that is no plain word."""
    source = save_gpt2(GPT(GPTConfig(4, 8, 16, 2, 1)), tmp_path / "source")
    CharTokenizer("bcd\\").save(source / OURS)
    name = "a\"b' $HOME\nFOLDER"
    out = export(source, to, tmp_path / name)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "\n# source\n" in card
    section = card.split("## Use\n")[1].split("\n## ")[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("warnings.warn", lambda *_, **__: None)
    exec("\n".join(line[4:] for line in section.splitlines()), {})
    assert len(capsys.readouterr().out) > 8


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_is_no_text(runs, tmp_path, monkeypatch):
    out = tmp_path / os.fsdecode(b"m\xff")
    export(runs("char"), "safetensors", out)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert 'load_run("m\\udcff")' in card


def test_a_bar_in_a_name_ends_no_cell(runs, tmp_path):
    source = shutil.copytree(runs("char"), tmp_path / "run")
    stored = json.loads((source / "config.json").read_text())
    stored["data"] = "a|b\nc.txt"
    (source / "config.json").write_text(json.dumps(stored))
    out = export(source, "safetensors", tmp_path / "out")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "| Trained on | a\\|b c.txt |\n" in card


def test_the_words_for_llama_are_for_a_shell(tmp_path):
    import shlex

    pytest.importorskip("gguf")
    source = save_gpt2(GPT(GPTConfig(4, 8, 16, 2, 1)), tmp_path / "source")
    CharTokenizer("bcd\n").save(source / OURS)
    out = export(source, "gguf", tmp_path / "my model")
    card = (out / "README.md").read_text(encoding="utf-8")
    (line,) = (x for x in card.splitlines() if "llama-completion" in x)
    words = shlex.split(line)
    assert words[2] == "my model/model.gguf"
    assert words[-1] == "d"  # it knows no A


@pytest.mark.parametrize(("data", "name"), [
    ("shakespeare", "shakespeare"),
    ("/home/me/secret/plays.txt", "plays.txt"),
    ("C:\\secret\\plays.txt", "plays.txt"),
    ("what?.txt", "what?.txt"),
    ("https://host.org/secret/plays.txt?token=hf_key#part", "plays.txt"),
    ("https://me:hf_key@host.org", "host.org"),
    ("https://me:hf_key@host.org/?token=hf_key", "host.org"),
    ("shards/", "shards"),
])
def test_of_a_text_only_its_name_is_told(data, name):
    assert base_name(data) == name


@pytest.mark.parametrize("row", [
    {"step": 1},
    {"step": 1, "kind": ["train"]},
    {"step": 1, "kind": "train"},
    {"step": 1, "kind": "train", "loss": "low", "lr": 1},
    {"step": 1, "kind": "val", "loss": None},
    {"step": 1, "kind": "val", "loss": float("nan")},
    {"step": 1, "kind": "sample"},
    {"step": 1, "kind": "sample", "text": 5},
    {"step": 1, "kind": "sample", "text": "half \ud800"},
])
def test_a_log_with_odd_rows(runs, row, tmp_path):
    source = shutil.copytree(runs("char"), tmp_path / "run")
    header = (source / "log.jsonl").read_text().splitlines()[0]
    good = {"step": 2, "kind": "val", "loss": 2.5}
    lines = (header, json.dumps(good), json.dumps(row))
    (source / "log.jsonl").write_text("".join(f"{x}\n" for x in lines))
    out = export(source, "safetensors", tmp_path / "out")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "| Best validation loss | 2.500 |" in card
    assert "Training loss" not in card
    assert loss_rows(out) == loss_rows(source)
    assert loss_rows(out)[0] == {"kind": "val", "step": 2, "loss": 2.5}


@pytest.mark.parametrize("mark", [
    "", "[]", "5", "[" * 100_000, '{"facts": {}}',
    '{"format": "x", "facts": [], "files": []}',
    '{"format": "x", "facts": {}, "files": 5}',
])
def test_a_damaged_mark_is_none(runs, mark, tmp_path):
    """The folder tells its story itself, and force does not touch it."""
    out = export(runs("char"), "safetensors", tmp_path / "out")
    (out / MARK).write_text(mark)
    assert run_facts(out)["name"] == "out"
    with pytest.raises(ExportError, match="is no earlier export"):
        export(runs("char"), "safetensors", out, force=True)


def test_a_mark_from_elsewhere_is_not_believed(runs, tmp_path):
    out = export(runs("char"), "safetensors", tmp_path / "out")
    facts = {
        **{"val_loss": "low", "tokens": [1], "seconds": True, "sample": 7},
        **{"step": float("inf"), "precision": "fp99", "command": "rm -r /"},
        **{"name": "a\n---\nb: c", "data": "ok", "params": 3},
    }
    mark = json.loads((out / MARK).read_text()) | {"facts": facts}
    (out / MARK).write_text(json.dumps(mark))
    assert run_facts(out) == {
        "name": "a\n---\nb: c", "data": "ok", "params": 3
    }
    again = export(out, "safetensors", tmp_path / "again")
    card = (again / "README.md").read_text(encoding="utf-8")
    assert "\n# a --- b: c\n" in card and "| Trained on | ok |" in card
    load_run(again)


def test_what_is_told_of_a_log(runs, tmp_path):
    """The last training row, the best validation loss, the last sample."""
    source = shutil.copytree(runs("char"), tmp_path / "run")
    header = (source / "log.jsonl").read_text().splitlines()[0]
    rows = [
        {"kind": "val", "step": 1, "loss": 3.5},
        {"kind": "train", "step": 1, "loss": 4.0, "lr": 1, "tokens": 8,
         "seconds": 0.5},
        {"kind": "sample", "step": 1, "text": "first"},
        {"kind": "val", "step": 2, "loss": 1.5},
        {"kind": "train", "step": 2, "loss": 2.0, "lr": 1, "tokens": 16,
         "seconds": 1.5},
        {"kind": "sample", "step": 2, "text": "last"},
        {"kind": "val", "step": 3, "loss": 2.5},
    ]
    lines = (header, *map(json.dumps, rows))
    (source / "log.jsonl").write_text("".join(f"{x}\n" for x in lines))
    told = run_facts(source)
    assert {k: told[k] for k in told if k in {
        *("step", "tokens", "seconds", "train_loss", "val_loss", "sample"),
    }} == {"step": 2, "tokens": 16, "seconds": 1.5, "train_loss": 2.0,
           "val_loss": 1.5, "sample": "last"}
    assert [row["step"] for row in loss_rows(source)] == [1, 1, 2, 2, 3]


def test_the_loss_curve_goes_along(runs, tmp_path, monkeypatch):
    curve = loss_rows(runs("char"))
    _, rows = read_log(runs("char") / "log.jsonl")
    kept = [row for row in rows if row["kind"] in ("train", "val")]
    assert [(row["kind"], row["step"], row["loss"]) for row in curve] == [
        (row["kind"], row["step"], row["loss"]) for row in kept
    ]
    assert all("lr" in row for row in curve if row["kind"] == "train")
    first = export(runs("char"), "huggingface", tmp_path / "first")
    second = export(first, "safetensors", tmp_path / "second")
    assert loss_rows(second) == loss_rows(first) == curve
    assert set().union(*curve) == {"kind", "step", "loss", "lr"}
    monkeypatch.setattr("minigpt.sharing.POINTS", 1)
    assert [row["kind"] for row in loss_rows(first)] == ["train", "val"]
    assert POINTS >= 100


def test_a_space_is_a_model_too_and_a_gguf_is_not(runs, tmp_path):
    for package in ("gguf", "gradio"):
        pytest.importorskip(package)
    out = export(runs("char"), "space", tmp_path / "space")
    again, _ = load_any(out)
    model, _ = load_run(runs("char"))
    assert torch.equal(again.wte.weight, model.wte.weight)
    back = export(out, "safetensors", tmp_path / "back")
    assert run_facts(back) == run_facts(runs("char"))
    assert loss_rows(back) == loss_rows(runs("char"))
    other = export(runs("char"), "gguf", tmp_path / "gguf")
    for use in (load_any, lambda run: export(run, "onnx", tmp_path / "no")):
        with pytest.raises(RunError, match="GGUF file, which is for llama"):
            use(other)


@pytest.mark.parametrize("to", FORMATS)
def test_no_paths_and_no_command_line_get_out(runs, to, tmp_path):
    if to == "space":
        pytest.importorskip("gradio")
    out = export(runs("char"), to, tmp_path / "out")
    code = set((out / "minigpt").rglob("*"))  # a Space has it inside
    for path in set(out.rglob("*.*")) - code:
        content = path.read_bytes()
        for private in (b"somebody", b"secret", os.fsencode(tmp_path)):
            assert private not in content, path.name


def test_an_export_of_an_export_keeps_its_story(runs, tmp_path):
    first = export(runs("char"), "huggingface", tmp_path / "first")
    second = export(first, "safetensors", tmp_path / "second")
    assert run_facts(second) == run_facts(runs("char"))
    third = export(second, "huggingface", tmp_path / "third")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        one, three = ((x / name).read_bytes() for x in (first, third))
        assert one == three, name
    (one, _), (three, _) = load_any(first), load_any(third)
    for a, b in zip(one.parameters(), three.parameters()):
        assert torch.equal(a, b)


def test_an_official_model(monkeypatch, tmp_path):
    make_tokenizer("gpt2")
    small = GPTConfig(50257, 16, 32, 2, 1)
    monkeypatch.setitem(PRESETS, "gpt2", small)
    torch.manual_seed(0)
    folder = save_gpt2(GPT(small), tmp_path / "cached")
    monkeypatch.setattr(
        "minigpt.gpt2.official_weights", lambda n: folder / "model.safetensors"
    )
    out = export("gpt2", "huggingface", tmp_path / "out")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in card and "| Trained on | gpt2 |" in card
    again = export(out, "safetensors", tmp_path / "again")
    assert "license: mit" in (again / "README.md").read_text("utf-8")
    # a folder goes before a name, and its license is not OpenAI's
    monkeypatch.chdir(tmp_path)
    save_gpt2(GPT(small), tmp_path / "gpt2")
    own = export("gpt2", "huggingface", tmp_path / "own")
    assert "license: unknown" in (own / "README.md").read_text("utf-8")


# ---------------------------------------------------------------- bad input
def test_an_unknown_format(runs, tmp_path):
    with pytest.raises(ExportError, match="no format 'pickle': choose one of"):
        export(runs("char"), "pickle", tmp_path / "out")
    with pytest.raises(ExportError, match="has no int8 variant"):
        export(runs("char"), "huggingface", tmp_path / "out", int8=True)
    assert files(tmp_path) == set()


@pytest.mark.parametrize("license", ["My licence", "a\nb: c", "-", ""])
def test_a_license_is_a_short_name(runs, tmp_path, license):
    if license:
        with pytest.raises(ExportError, match="no license's short name"):
            export(runs("char"), "safetensors", tmp_path / "out",
                   license=license)


@pytest.mark.parametrize("to", FORMATS)
def test_a_run_without_weights(runs, to, tmp_path):
    broken = tmp_path / "run"
    broken.mkdir()
    for name in ("config.json", "tokenizer.json", "log.jsonl"):
        (broken / name).write_bytes((runs("char") / name).read_bytes())
    with pytest.raises(RunError, match="model.safetensors is missing"):
        export(broken, to, tmp_path / "out")
    assert files(tmp_path) == {"run"}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json",
                                  "tokenizer.json", "log.jsonl"])
def test_a_half_written_run(runs, name, tmp_path):
    broken = tmp_path / "run"
    broken.mkdir()
    for path in runs("char").glob("*.*"):
        data = path.read_bytes()
        if path.name == name:
            data = data[: 60 if name == "log.jsonl" else len(data) // 2]
        (broken / path.name).write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(name)):
        export(broken, "huggingface", tmp_path / "out")
    assert files(tmp_path) == {"run"}


@pytest.mark.parametrize("run", ["nowhere", "", "/dev/null"])
def test_no_run_at_all(run, tmp_path):
    with pytest.raises((RunError, WeightsError)):
        export(run, "safetensors", tmp_path / "out")


def test_nothing_is_overwritten(runs, tmp_path):
    for place in ("file", "folder", "link"):
        out = tmp_path / place
        if place == "file":
            out.write_text("mine")
        elif place == "folder":
            out.mkdir()
            (out / "mine").write_text("mine")
        else:
            out.symlink_to(tmp_path / "folder")
        with pytest.raises(ExportError, match="exists: name a new folder"):
            export(runs("char"), "safetensors", out)
        with pytest.raises(ExportError, match="replaces nothing else"):
            export(runs("char"), "safetensors", out, force=True)
    assert (tmp_path / "file").read_text() == "mine"
    assert files(tmp_path / "folder") == {"mine"}
    with pytest.raises(ExportError, match="replaces nothing else"):
        export(runs("char"), "safetensors", runs("char"), force=True)
    with pytest.raises(ExportError, match="has no name"):
        export(runs("char"), "safetensors", "")


def test_force_replaces_an_export(runs, tmp_path):
    out = export(runs("char"), "safetensors", tmp_path / "out")
    with pytest.raises(ExportError, match="add --force"):
        export(runs("char"), "huggingface", out)
    export(runs("char"), "huggingface", out, force=True)
    assert json.loads((out / MARK).read_text())["format"] == "huggingface"
    assert files(tmp_path) == {"out"}


def test_force_takes_an_empty_folder_but_no_link(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    out = export(runs("char"), "safetensors", tmp_path / "empty", force=True)
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(ExportError, match="replaces nothing else"):
        export(runs("char"), "onnx", tmp_path / "link", force=True)
    load_run(out)


def test_a_changed_byte_of_an_export_is_found(runs, tmp_path):
    out = export(runs("char"), "safetensors", tmp_path / "out")
    data = bytearray((out / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (out / "model.safetensors").write_bytes(data)
    with pytest.raises(RunError, match="its bytes were changed"):
        export(out, "onnx", tmp_path / "again")


def test_force_spares_what_somebody_put_there(runs, tmp_path):
    out = export(runs("char"), "safetensors", tmp_path / "out")
    (out / "sub").mkdir()
    for name in ("notes.txt", ".git", "sub/run"):
        (out / name).write_text("mine")
        with pytest.raises(ExportError, match=f"also holds {name}, which no"):
            export(runs("char"), "safetensors", out, force=True)
        assert (out / name).read_text() == "mine"
        (out / name).unlink()
    (out / "link").symlink_to(runs("char"))
    with pytest.raises(ExportError, match="also holds link"):
        export(runs("char"), "safetensors", out, force=True)
    (out / "link").unlink()
    cache = out / "minigpt" / "__pycache__"  # Python's own, if it ran
    cache.mkdir(parents=True)
    (cache / "app.pyc").write_bytes(b"")
    export(runs("char"), "safetensors", out, force=True)
    assert not cache.exists()


def test_a_folder_that_came_meanwhile_stays(tmp_path):
    with pytest.raises(ExportError, match="exists"):
        with new_folder(tmp_path / "out"):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "mine").write_text("mine")
    assert files(tmp_path / "out") == {"mine"}
    assert files(tmp_path) == {"out"}


def test_two_at_once_to_one_place(tmp_path):
    pytest.importorskip("fcntl", reason="Windows keeps nobody out")
    with new_folder(tmp_path / "out") as part:
        (part / "first").write_text("")
        with pytest.raises(RunError, match="at work in .*out.export: wait"):
            with new_folder(tmp_path / "out"):
                pass
    assert files(tmp_path) == {"out"} and files(tmp_path / "out") == {"first"}


def test_ctrl_c_between_the_two_renames(runs, tmp_path, monkeypatch):
    out = export(runs("char"), "safetensors", tmp_path / "out")
    real = os.replace

    def replace(source, target):
        if str(target) == str(out) and source.name == "new":
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr("minigpt.sharing.os.replace", replace)
    with pytest.raises(KeyboardInterrupt):
        export(runs("char"), "huggingface", out, force=True)
    load_run(out)
    assert files(tmp_path) == {"out"}


def test_what_a_killed_export_left_is_cleared_up(runs, tmp_path):
    out = export(runs("char"), "safetensors", tmp_path / "out")
    left = tmp_path / ".out.export"
    (left / "new").mkdir(parents=True)
    (left / "new" / "half").write_text("half")
    os.replace(out, left / "old")  # killed between the two renames
    with pytest.raises(ExportError, match="exists: name a new folder"):
        export(runs("char"), "safetensors", out)
    load_run(out)
    assert files(tmp_path) == {"out"}
    (left / "old").mkdir(parents=True)  # killed while it tidied up
    (left / "old" / "README.md").write_text("the one before")
    (left / "new").mkdir()
    (left / "new" / "half").write_text("half")
    export(runs("char"), "safetensors", out, force=True)
    load_run(out)
    assert files(tmp_path) == {"out"} and "half" not in files(out)


def test_all_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda number: synced.append(
        os.fstat(number).st_ino))
    with new_folder(tmp_path / "out") as part:
        (part / "deep").mkdir()
        for name in ("a", "deep/b"):
            (part / name).write_text(name)
        inodes = {x.stat().st_ino for x in part.rglob("*") if x.is_file()}
        assert not (tmp_path / "out").exists()
    assert set(synced) == inodes


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value, tmp_path):
    model = GPT(GPTConfig(4, 8, 16, 2, 1))
    with torch.no_grad():
        model.h[0].mlp.c_fc.weight[3, 4] = value
    source = save_gpt2(model, tmp_path / "source")
    CharTokenizer("abcd").save(source / OURS)
    with pytest.raises(ExportError, match=r"h.0.mlp.c_fc.weight .* no number"):
        export(source, "safetensors", tmp_path / "out")
    assert files(tmp_path) == {"source"}


def test_what_force_would_replace_stays_until_the_end(runs, tmp_path):
    out = export(runs("char"), "safetensors", tmp_path / "out")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        with new_folder(out, force=True) as part:
            (part / "half").write_text("half")
            raise KeyboardInterrupt
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert files(tmp_path) == {"out"}


def test_a_full_disk_is_one_sentence(runs, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(FORMATS, "safetensors", full)
    with pytest.raises(TrainingError, match="No space left .* free some"):
        export(runs("char"), "safetensors", tmp_path / "deep" / "out")
    assert files(tmp_path / "deep") == set()


@pytest.mark.parametrize(("to", "name"), [
    ("safetensors", "safetensors.torch.save_file"),
    ("onnx", "onnxruntime.InferenceSession"),
    ("onnx", "onnxruntime.quantization.quantize_dynamic"),
    ("gguf", "gguf.GGUFWriter.write_tensors_to_file"),
])
def test_a_full_disk_in_the_words_of_a_library(
    runs, to, name, tmp_path, monkeypatch
):
    """They raise what they like, with more than one line."""
    pytest.importorskip(name.partition(".")[0])

    def full(*_, **__):
        if to == "gguf":  # as numpy does: no number, no strerror
            raise OSError("disk full\nmore")
        raise RuntimeError("disk full\nmore")

    monkeypatch.setattr(name, full)
    with pytest.raises(TrainingError, match="cannot write .*disk full"):
        export(runs("char"), to, tmp_path / "out", int8=to == "onnx")
    assert files(tmp_path) == set()


def test_a_missing_package_is_one_sentence():
    with pytest.raises(ExportError, match=r'pip install "minigpt-course\[exp'):
        need("json", "no_such_package_here")


def test_transposed_matrices_are_the_ones_that_gpt2_names():
    assert set(CONV1D) == {"c_attn.weight", "c_proj.weight", "c_fc.weight"}


def test_what_is_loaded_is_not_the_file(runs, tmp_path):
    """load_run maps the file: training on must not write through it."""
    out = export(runs("char"), "safetensors", tmp_path / "out")
    before = (out / "model.safetensors").read_bytes()
    model, _ = load_run(out)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert model.lm_head.weight is model.wte.weight
    assert (out / "model.safetensors").read_bytes() == before
