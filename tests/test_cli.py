"""The command line as a user types it: what works, and what is answered."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from unittest.mock import Mock

import pytest
import torch

import minigpt
from minigpt import load_run, train_command
from minigpt.cli import _parse, main
from minigpt.sample_command import Sample
from minigpt.tokenizer import BPETokenizer, TokenizerError, gpt2_tokenizer
from minigpt.train_command import Train
from minigpt.training import RECIPES

SMALL = [
    *("--max-steps", "6"),
    *("--batch-size", "2"),
    *("--context-length", "16"),
    *("--emb-dim", "16"),
    *("--n-layers", "1"),
    *("--eval-every", "3"),
    *("--checkpoint-every", "2"),
    *("--sample-tokens", "5"),
    *("--precision", "fp32"),
    *("--device", "cpu"),
]


def train(corpus, out):
    """The exit code of a small training."""
    return main(["train", "--data", str(corpus), "--out", str(out), *SMALL])


def logged(run):
    lines = (run / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("to be, or not to be: that is the question. " * 30)
    return path


@pytest.fixture
def run(tmp_path, corpus, capsys):
    """A finished run on the corpus."""
    out = tmp_path / "run"
    assert train(corpus, out) == 0
    capsys.readouterr()
    return out


def refused(capsys, *argv):
    """The one line that answers bad input; the exit code must be 2."""
    assert main([str(part) for part in argv]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("minigpt: ")
    return lines[0]


def test_train_leaves_a_whole_run_folder(run):
    names = {path.name for path in run.iterdir()}
    assert names == {
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "checkpoint",
        "log.jsonl",
        "loss.png",
        "samples.txt",
    }
    rows = logged(run)
    assert rows[0]["kind"] == "header"
    assert rows[0]["command"].startswith("minigpt train --data ")
    assert {row["kind"] for row in rows[1:]} == {"train", "val", "sample"}
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_train_ends_with_verse_and_the_next_command(tmp_path, corpus, capsys):
    out = tmp_path / "run"
    assert train(corpus, out) == 0
    printed = capsys.readouterr().out
    assert "parameters on cpu, fp32 (as asked for)" in printed
    assert "validation loss" in printed
    assert f"minigpt sample --run {out}" in printed


def test_what_is_missing_is_said(tmp_path, corpus, capsys, monkeypatch):
    from minigpt import training

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    argv = ["train", "--data", str(corpus), "--out", str(tmp_path / "run")]
    line = refused(capsys, *argv, *SMALL, "--tensorboard")
    assert "pip install tensorboard" in line
    monkeypatch.setattr(training.shutil, "which", lambda name: None)
    assert main([*argv, *SMALL, "--compile"]) == 0
    assert "not compiled: torch.compile needs" in capsys.readouterr().out


def test_resume_names_a_run_that_it_did_not_start(run, capsys):
    path = run / "config.json"
    stored = json.loads(path.read_text())
    del stored["preset"]
    path.write_text(json.dumps(stored))
    line = refused(capsys, "train", "--out", run, "--resume")
    assert "was not started by 'minigpt train'" in line


def test_a_device_that_is_not_there_is_refused(run, tmp_path, capsys):
    for device in ("cuda:77", "meta"):
        line = refused(capsys, "sample", "--run", run, "--device", device)
        assert "write auto, or cpu" in line


def test_a_run_without_validation_advises_no_sample(tmp_path, capsys):
    stopped = Mock(
        interrupted=False, rows=[], stop_reason=None, best_loss=math.inf
    )
    stopped.step = 5
    assert Train(tmp_path / "run")._report(stopped) == 0
    printed = capsys.readouterr().out
    assert "step 5 is done and no validation yet" in printed
    assert "inf" not in printed and "sample" not in printed


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"minigpt {minigpt.__version__}\n"


def test_sample_writes_and_a_seed_repeats_itself(run, capsys):
    args = ["sample", "--run", str(run), "--prompt", "to be", "--seed", "3"]
    texts = []
    for _ in range(2):
        assert main([*args, "--num-tokens", "20"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[0].startswith("to be") and len(texts[0]) == 5 + 20 + 1


def test_a_prompt_longer_than_the_context_is_cropped_not_refused(run, capsys):
    prompt = "to be, or not to be: that is the question."
    assert main(["sample", "--run", str(run), "--prompt", prompt]) == 0
    assert capsys.readouterr().out.startswith(prompt)


def test_all_unknown_characters_of_a_prompt_are_named(run, capsys):
    line = refused(capsys, "sample", "--run", run, "--prompt", "né ß")
    assert "'é', 'ß'" in line


def sampled(capsys, run, *more):
    """What `minigpt sample` prints with a fixed seed."""
    args = ["sample", "--run", str(run), "--num-tokens", "30", "--seed", "3"]
    assert main([*args, *map(str, more)]) == 0
    return capsys.readouterr().out


def test_streamed_or_not_the_text_is_the_same(run, capsys):
    texts = {
        sampled(capsys, run, "--prompt", "to be", flag)
        for flag in ("--stream", "--no-stream")
    }
    assert len(texts) == 1


def test_greedy_needs_no_seed(run, capsys):
    texts = {
        sampled(capsys, run, "--prompt", "to", *flags)
        for flags in (
            ["--temperature", "0"],
            ["--top-k", "1"],
            ["--temperature", "0", "--seed", "9"],
        )
    }
    assert len(texts) == 1


def test_a_stop_string_ends_every_sample(run, capsys):
    out = sampled(
        capsys,
        run,
        "--prompt",
        "to be",
        "--num-samples",
        "3",
        "--stop",
        "e",
        "t",
        " ",
    )
    texts = re.split(r"----- \d of 3 -----\n", out)[1:]
    assert len(texts) == 3
    for text in texts:
        assert text.startswith("to be") and not set(text[5:]) & set("et ")


def test_the_prompt_may_come_from_a_file(run, capsys, tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("to be\n")
    from_file = sampled(capsys, run, "--prompt-file", path)
    assert from_file == sampled(capsys, run, "--prompt", "to be")
    path.write_text("")
    line = refused(capsys, "sample", "--run", run, "--prompt-file", path)
    assert "is empty" in line
    path.unlink()
    line = refused(capsys, "sample", "--run", run, "--prompt-file", path)
    assert "prompt.txt" in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00to", "is not UTF-8 text: save it as UTF-8"),
        (None, "cannot be read (Is a directory): name a text file"),
    ],
)
def test_a_prompt_file_that_is_no_text(content, message, run, capsys):
    path = run.parent / "prompt"
    path.mkdir() if content is None else path.write_bytes(content)
    line = refused(capsys, "sample", "--run", run, "--prompt-file", path)
    assert message in line


def test_a_prompt_file_may_begin_with_a_mark(run, capsys):
    path = run.parent / "prompt.txt"
    path.write_text("to be", encoding="utf-8-sig")
    assert main(["sample", "--run", str(run), "--prompt-file", str(path)]) == 0
    assert capsys.readouterr().out.startswith("to be")


def test_the_prompt_may_be_piped_in(run):
    done = subprocess.run(
        [sys.executable, "-m", "minigpt", "sample", "--run", str(run)],
        input="question\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("question")


def test_int8_and_keep_write_too(run, capsys):
    out = sampled(capsys, run, "--prompt", "to be", "--int8", "--keep", "8")
    assert out.startswith("to be") and len(out) == 5 + 30 + 1
    argv = ["sample", "--run", run, "--prompt", "to", "--keep", "17"]
    line = refused(capsys, *argv)
    assert "keep is 17: write 1 to 16" in line


def test_info_counts_every_parameter(capsys):
    assert main(["info", "--preset", "gpt2"]) == 0
    assert "124,439,808" in capsys.readouterr().out


def test_help_shows_the_presets_defaults(capsys):
    for argv in (["--help"], ["train", "--help"], ["sample", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 0
    assert "temperature" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "trian"),
        (["train"], "--out"),
        (["train", "--out", "x", "--max-stps", "3"], "--max-stps"),
        (["train", "--out", "x", "--max-steps", "many"], "--max-steps"),
        (["train", "--out", "x", "--max-steps", "0"], "write 1 or more"),
        (["train", "--out", "x", "--preset", "huge"], "gpt2-xl"),
        (["train", "--out", "x", "--n-heads", "3"], "shared by 3 heads"),
        (["sample", "--run", "x", "--temperature", "-1"], "0 (greedy)"),
        (["sample", "--run", "x", "--temperature", "nan"], "0 (greedy)"),
        (["sample", "--run", "x", "--top-p", "2"], "minigpt: top_p is 2.0"),
        (["sample", "--run", "x", "--top-k", "0"], "top_k is 0"),
        (["sample", "--run", "x", "--num-tokens", "0"], "write 1 to"),
        (["sample", "--run", "x", "--num-samples", "0"], "num_samples is 0"),
        (["sample", "--run", "x", "--num-samples", "9999"], "1 to 1,000"),
        (["train", "--out", ""], "--out is empty"),
        (["train", "--out", "."], "--out is empty"),
        (["sample", "--run", "x", "--seed", str(2**63)], "write 0 to 2**63"),
        (
            ["sample", "--run", "x", "--prompt", "a", "--prompt-file", "b"],
            "not both",
        ),
        (["sample", "--run", "x", "--prompt", ""], "at least one character"),
        (["sample", "--run", "nowhere"], "no run 'nowhere': name a folder"),
        (["info", "--preset", "gpt5"], "gpt2-xl"),
        (["exprot"], "no command 'exprot': choose one of train, sample"),
        (["plan", "gpt2"], "options: gpt2; 'minigpt plan --help' lists"),
        (["plan", "--vram", "8GB"], "--vram takes a number, not '8GB'"),
        (["plan", "--batch", "2.5"], "--batch takes a number, not '2.5'"),
    ],
)
def test_bad_input_gets_one_line(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *argv)
    assert not list(tmp_path.iterdir())  # nothing half-written


def test_an_unknown_character_is_named(run, capsys):
    line = refused(capsys, "sample", "--run", run, "--prompt", "to bé")
    assert "'é'" in line and "position 4" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "empty"), ("too short", "context_length 16")],
)
def test_a_text_that_is_too_small_is_refused(text, message, tmp_path, capsys):
    path, out = tmp_path / "tiny.txt", tmp_path / "run"
    path.write_text(text)
    line = refused(capsys, "train", "--data", path, "--out", out, *SMALL)
    assert message in line
    assert not out.exists()


def test_a_batch_larger_than_the_text_is_refused(corpus, capsys):
    out = corpus.parent / "run"
    flags = ["train", "--data", corpus, "--out", out, *SMALL]
    line = refused(capsys, *flags, "--batch-size", "100000000000")
    assert "batch_size is 100,000,000,000, and the text has only" in line
    assert not out.exists()


def test_a_text_that_is_missing_is_named(tmp_path, capsys):
    line = refused(
        capsys, "train", "--data", tmp_path / "no.txt", "--out", tmp_path / "o"
    )
    assert "no.txt" in line


def test_a_run_is_never_overwritten(run, corpus, capsys):
    before = (run / "model.safetensors").read_bytes()
    line = refused(capsys, "train", "--data", corpus, "--out", run, *SMALL)
    assert "--resume" in line and "another --out" in line
    assert (run / "model.safetensors").read_bytes() == before


def test_resume_needs_a_run_and_the_same_text(run, tmp_path, capsys):
    line = refused(capsys, "train", "--out", tmp_path / "none", "--resume")
    assert "not a run folder" in line
    other = tmp_path / "other.txt"
    other.write_text("something else entirely " * 50)
    line = refused(capsys, "train", "--data", other, "--out", run, "--resume")
    assert "same --data" in line


def test_resume_goes_on_where_the_run_stopped(run, corpus, capsys):
    more = ["--max-steps", "9"]
    assert main(["train", "--out", str(run), "--resume", *more]) == 0
    rows = logged(run)
    assert rows[-1]["step"] == 9
    assert rows[0]["train"]["max_steps"] == 9
    assert rows[0]["model"]["emb_dim"] == 16  # the shape is the run's


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "model.safetensors is missing"),
        ("tokenizer.json", "tokenizer.json"),
    ],
)
def test_an_incomplete_run_is_named(run, name, message, capsys):
    (run / name).unlink()
    assert message in refused(capsys, "sample", "--run", run)


@pytest.mark.parametrize("size", [0, 7, 100, 5000])
def test_cut_weights_are_never_loaded(run, size, capsys):
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert "damaged" in refused(capsys, "sample", "--run", run)


def test_a_config_that_is_not_json(run, capsys):
    (run / "config.json").write_text("{")
    assert "cannot be read" in refused(capsys, "sample", "--run", run)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("model", None),
        ("model", [1]),
        ("model", {"drop_rate": "x"}),
        ("precision", "fp8"),
        ("precision", [1]),
        ("train", [1]),
        ("train", {"of_another_version": 1}),
        ("data", 3),
    ],
)
def test_a_config_that_makes_no_sense(part, value, run, capsys):
    path = run / "config.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {part: value}))
    line = refused(capsys, "train", "--out", run, "--resume")
    assert str(run) in line
    if part == "model":
        assert "cannot be read" in refused(capsys, "sample", "--run", run)


def test_a_tokenizer_of_another_size_is_refused(run, capsys):
    path = run / "tokenizer.json"
    path.write_text(path.read_text().replace("qr", "r"))
    for argv in (["sample", "--run"], ["train", "--resume", "--out"]):
        line = refused(capsys, *argv, run)
        assert "tokenizer.json is damaged" in line


def test_resume_does_not_ignore_another_shape(run, capsys):
    argv = ["train", "--out", run, "--resume", "--emb-dim"]
    line = refused(capsys, *argv, "32")
    assert "has emb_dim 16" in line and "leave the flag out" in line
    assert main([*map(str, argv), "16"]) == 0


def test_a_model_that_memory_cannot_hold(tmp_path, corpus, capsys):
    out = tmp_path / "out"
    argv = ["train", "--data", str(corpus), "--out", str(out), *SMALL]
    argv += ["--emb-dim", str(10**9), "--n-heads", "1"]
    assert main(argv) == 1
    assert "no memory for a model of" in capsys.readouterr().err
    assert not out.exists()


def test_a_text_without_newlines_can_be_written_on(tmp_path, corpus, capsys):
    corpus.write_text("no-newline-here;" * 60)
    out = tmp_path / "run"
    assert train(corpus, out) == 0
    assert sampled(capsys, out).splitlines()[-1].startswith("-")


def test_a_folder_that_cannot_be_written(tmp_path, corpus, capsys):
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    argv = ["train", "--data", corpus, "--out", blocker / "run", *SMALL]
    assert main([str(part) for part in argv]) == 1
    err = capsys.readouterr().err.strip()
    assert err.startswith("minigpt: cannot write")


def test_a_full_disk_stops_with_one_sentence(
    tmp_path, corpus, capsys, monkeypatch
):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "run"
    assert train(corpus, out) == 1
    errors = capsys.readouterr().err
    assert "No space left on device): free some space" in errors
    assert not list(out.glob("**/*.part"))  # nothing half-written


def test_python_m_minigpt_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "minigpt", "info", "--preset", "mini"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "10,745,088" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_keeps_what_was_trained(tmp_path, corpus):
    out = tmp_path / "run"
    argv = ["train", "--data", str(corpus), "--out", str(out), *SMALL]
    argv[argv.index("--max-steps") + 1] = "100000"
    argv[argv.index("--eval-every") + 1] = "100000"
    process = subprocess.Popen(
        [sys.executable, "-m", "minigpt", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.time() + 60
    while not list(out.glob("checkpoint/step-*")):
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"minigpt train --out {out} --resume" in printed
    model, tokenizer = load_run(out)
    assert tokenizer.decode(tokenizer.encode("to be")) == "to be"


def test_a_run_on_the_toy_language_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        train_command, "load_text", lambda source: "a toy. " * 100
    )
    out = tmp_path / "run"
    assert main(["train", "--out", str(out), *SMALL]) == 0
    assert "note: this was the toy language" in capsys.readouterr().out
    config = json.loads((out / "config.json").read_text())
    assert config["text"].startswith("the toy language")
    monkeypatch.setattr(
        train_command, "load_text", lambda source: "another. " * 100
    )
    line = refused(capsys, "train", "--out", out, "--resume")
    assert "toy language" in line and "): train into another" in line


# --- tokenizers -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["bpe", "gpt2", "file"])
def test_a_run_keeps_its_tokenizer(kind, tmp_path, corpus, capsys):
    flags = ["--tokenizer", kind]
    if kind == "bpe":
        flags += ["--vocab-size", "270"]
    if kind == "gpt2":
        try:
            gpt2_tokenizer()
        except TokenizerError as error:
            pytest.skip(str(error))
    if kind == "file":
        flags[1] = str(tmp_path / "own.json")
        BPETokenizer.train("to be or not to be", 261).save(flags[1])
    out = tmp_path / "run"
    argv = ["train", "--data", str(corpus), "--out", str(out), *SMALL]
    assert main([*argv, *flags]) == 0
    _, tokenizer = load_run(out)
    size = {"bpe": 270, "gpt2": 50257, "file": 261}[kind]
    assert tokenizer.vocab_size == size
    assert main(["train", "--out", str(out), "--resume"]) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["tokenizer"] == flags[1]  # resumed or not
    assert main(["train", "--out", str(out), "--resume", *flags]) == 0
    capsys.readouterr()
    argv = [
        "sample",
        "--run",
        str(out),
        "--prompt",
        "naïve 猫 ",
        "--seed",
        "1",
    ]
    assert main(argv) == 0
    whole = capsys.readouterr().out
    assert whole.startswith("naïve 猫 ")
    assert main([*argv, "--stream"]) == 0
    assert capsys.readouterr().out == whole
    assert main(argv[:3]) == 0  # from a newline


def test_merges_are_not_learned_from_the_validation_text(tmp_path, capsys):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("ab " * 300 + "xyz" * 30)
    argv = ["train", "--data", str(corpus), "--out", str(tmp_path / "run")]
    flags = ["--tokenizer", "bpe", "--vocab-size", "259"]
    assert main([*argv, *SMALL, *flags]) == 0
    _, tokenizer = load_run(tmp_path / "run")
    assert tokenizer.encode("xyz") == list(b"xyz")
    assert len(tokenizer.encode(" ab")) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tokenizer", "none.json"], "there is no such file"),
        (["--tokenizer", "bpe", "--vocab-size", "9"], "write 257 or more"),
        (["--tokenizer", "bpe", "--vocab-size", "9999"], "or give more text"),
        (["--tokenizer", "gpt2", "--vocab-size", "300"], "has its size: lea"),
        (["--vocab-size", "300"], "--vocab-size is for --tokenizer bpe"),
        (["--tokenizer", "."], "it cannot be read"),
        (["--tokenizer", "BPE"], "BPE is no tokenizer of type char or bpe"),
    ],
)
def test_a_tokenizer_that_cannot_be_had(flags, message, corpus, capsys):
    out = corpus.parent / "run"
    line = refused(
        capsys, "train", "--data", corpus, "--out", out, *SMALL, *flags
    )
    assert message in line
    assert not out.exists()


@pytest.mark.parametrize(
    "content", ["", "{", '{"type": "word"}', '{"model": {"type": "BPE"}}']
)
def test_a_file_that_is_no_tokenizer(content, tmp_path, corpus, capsys):
    path, out = tmp_path / "own.json", tmp_path / "run"
    path.write_text(content)
    argv = ["train", "--data", corpus, "--out", out, *SMALL]
    line = refused(capsys, *argv, "--tokenizer", path)
    assert f"{path} is no tokenizer" in line and "save() wrote" in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tokenizer", "gpt2"], "has tokenizer char"),
        (["--tokenizer", "none.json"], "has tokenizer char"),
        (["--vocab-size", "300"], "has vocab_size 16, which --resume cannot"),
        (["--preset", "mini"], "has preset pocket, which --resume cannot"),
    ],
)
def test_resume_does_not_ignore_another_tokenizer(
    flags, message, run, capsys
):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    line = refused(capsys, "train", "--out", run, "--resume", *flags)
    assert message in line and "leave the flag out" in line
    after = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert before == after


def test_a_run_from_before_there_were_tokenizers_goes_on(run, capsys):
    config = json.loads((run / "config.json").read_text())
    del config["tokenizer"]
    (run / "config.json").write_text(json.dumps(config))
    assert main(["train", "--out", str(run), "--resume"]) == 0
    config["tokenizer"] = 7
    (run / "config.json").write_text(json.dumps(config))
    line = refused(capsys, "train", "--out", run, "--resume")
    assert "was not started by 'minigpt train'" in line


# --- what follows from what -----------------------------------------------


def test_the_seed_decides_the_first_weights(tmp_path, corpus):
    weights = []
    for outer in (1, 2):
        torch.manual_seed(outer)
        assert train(corpus, tmp_path / f"run{outer}") == 0
        file = tmp_path / f"run{outer}" / "model.safetensors"
        weights.append(file.read_bytes())
    assert weights[0] == weights[1]


def test_several_samples_are_written_on_a_terminal_too(run, capsys):
    argv = ["sample", "--run", str(run), "--num-samples", "2", "--stream"]
    assert main([*argv, "--num-tokens", "3"]) == 0
    assert "----- 2 of 2 -----" in capsys.readouterr().out


def test_a_prompt_file_keeps_its_spaces(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("  to be \n\n")
    sample = Sample(tmp_path, prompt_file=path)
    assert sample._read_prompt() == "  to be \n"
    assert sample.sampler.temperature == 0.8


def test_a_resumed_run_keeps_its_settings(run):
    before = json.loads((run / "config.json").read_text())["train"]
    assert main(["train", "--out", str(run), "--resume"]) == 0
    assert json.loads((run / "config.json").read_text())["train"] == before


@pytest.mark.parametrize("preset", ["pocket", "mini", "gpt2"])
def test_a_preset_brings_its_recipe(preset):
    command = _parse(["train", "--preset", preset, "--out", "x"])
    assert command.train == RECIPES[preset]
