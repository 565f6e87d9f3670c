"""Help, spelling and encodings: what every command shares."""

import os
import shlex
import subprocess
import sys

import pytest

from minigpt.cli import main
from minigpt.terminal import spelled

COMMANDS = "train sample data eval export app info record plan".split()


def help_of(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_not_ragged(command, capsys, monkeypatch):
    printed = help_of(command, capsys, monkeypatch)
    assert "None}" not in printed and "(default: None)" not in printed
    assert "(default: )" not in printed
    rows = [line.strip("│ ") for line in printed.splitlines()]
    texts = [row for row in rows if row and row[0] not in "-╭╰─"]
    following = zip(texts, texts[1:])
    for row, after in following:  # no line ends where its next word fits
        if row[-1].isalpha() and after[0].islower():
            word = after.split()[0]
            assert len(row) + 1 + len(word) > 50, row


def test_what_may_be_left_out_is_named_by_its_type(capsys, monkeypatch):
    printed = help_of("train", capsys, monkeypatch)
    assert "--vocab-size INT" in printed and "--vram FLOAT" in printed
    assert "(default: muon)" in " ".join(printed.replace("│", " ").split())


def test_a_printed_command_can_be_pasted(tmp_path):
    folder = tmp_path / "my run's"
    words = ["minigpt", "sample", "--run", folder]
    line = spelled(*words)
    assert shlex.split(line) == [str(word) for word in words]


@pytest.mark.parametrize(
    ("word", "written"),
    [
        (r"runs\pocket", r"runs\pocket"),
        ("my run", '"my run"'),
        ("ROMEO's", "ROMEO's"),
    ],
)
def test_windows_quotes_with_double_quotes(word, written, monkeypatch):
    monkeypatch.setattr(os, "name", "nt")
    line = spelled("minigpt", "sample", word)
    monkeypatch.undo()
    assert line == f"minigpt sample {written}"


def test_a_pipe_takes_every_character():
    code = (
        "from minigpt import cli, sample_command\n"
        "def shout():\n"
        "    text = sample_command._piped()\n"
        "    print(len(text), text, '\\ufffd\\ud83d')\n"
        "    return 0\n"
        "cli._parse = lambda argv: shout\n"
        "raise SystemExit(cli.main([]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
        input="κόσ\r\nμε".encode(),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode("utf-8").split() == ["6", "κόσ", "με", "\ufffd?"]


def test_a_pipe_of_other_bytes_is_refused(tiny_run):
    done = subprocess.run(
        [sys.executable, "-m", "minigpt", "sample", "--run", str(tiny_run)],
        input=b"\xff\xfe",
        capture_output=True,
    )
    assert done.returncode == 2
    assert b"is not UTF-8 text: save" in done.stderr
