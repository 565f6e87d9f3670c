"""Reading and writing recorded runs."""

import pytest

from minigpt import runs


def test_a_record_is_read_as_it_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "runs_dir", lambda: tmp_path)
    rows = [{"kind": "val", "loss": 1.5}, {"kind": "sample", "text": "é\n"}]
    runs.write_record("mine", {"command": "c"}, rows)
    header = {"kind": "header", "command": "c"}
    assert runs.load_record("mine") == (header, rows)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.jsonl"]


def test_a_missing_record_names_those_that_exist():
    with pytest.raises(FileNotFoundError, match="no recorded run 'x'.*ladder"):
        runs.load_record("x")


def test_a_machine_is_described_without_its_paths():
    facts = runs.describe_machine("cpu")
    assert {"device", "torch", "python", "system", "date"} <= facts.keys()
    assert "thread" in facts["device"]
    assert not any("/" in str(value) for value in facts.values())


def test_an_installed_package_is_not_written_to(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(runs, "PACKAGE", tmp_path)
    with pytest.raises(FileNotFoundError, match="written in a checkout"):
        runs.write_record("mine", {}, [])
    assert not list((tmp_path / "runs").iterdir())
