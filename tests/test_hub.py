"""load_gpt2 downloads: what the network and the server may do to it.

No network: HF_ENDPOINT names the small hub of tests/hub.py, which holds a
small random model under the name gpt2.
"""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants, file_download

from hub import Hub
from minigpt import GPT, PRESETS, GPTConfig, gpt2, load_gpt2, save_gpt2
from minigpt.gpt2 import WEIGHTS, Release, WeightsError

SMALL = GPTConfig(300, 64, 128, 4, 2)  # 1.8 MB
REPO, REVISION = "openai-community/gpt2", "0123456789" * 4


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A model and its file as it is published."""
    torch.manual_seed(0)
    model = GPT(SMALL)
    folder = save_gpt2(model, tmp_path_factory.mktemp("published"))
    return model, (folder / WEIGHTS).read_bytes()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, in use; an empty working folder, too."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    without_pauses = SimpleNamespace(sleep=lambda seconds: None)
    monkeypatch.setattr(file_download, "time", without_pauses)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


@pytest.fixture
def hub(published, cache, monkeypatch):
    """The hub, which has the model; minigpt expects it there."""
    _, content = published
    with Hub() as server:
        sha256 = server.publish(REPO, REVISION, WEIGHTS, content)
        monkeypatch.setitem(
            gpt2.HUB, "gpt2", Release(REPO, REVISION, sha256)
        )
        monkeypatch.setitem(PRESETS, "gpt2", SMALL)
        monkeypatch.setenv("HF_ENDPOINT", server.url())
        yield server


def assert_is(model: GPT, published) -> None:
    theirs = published[0].state_dict()
    assert model.config == SMALL
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


def refusal(name: str = "gpt2") -> str:
    """The one sentence with which the download is given up."""
    with pytest.raises(WeightsError) as caught:
        load_gpt2(name)
    message = str(caught.value)
    assert "\n" not in message
    return message


def kept(cache) -> list[str]:
    """The files of the cache that are no bookkeeping."""
    small = (".lock", "CACHEDIR.TAG")
    return [
        path.name
        for path in cache.rglob("*")
        if path.is_file() and not path.name.endswith(small)
    ]


def starts(hub) -> list[int]:
    """From which byte on each request asked for the content."""
    return [
        int(one.range.removeprefix("bytes=").removesuffix("-"))
        if one.range
        else 0
        for one in hub.gets()
    ]


# --------------------------------------------------------- when all is well
def test_downloaded_once_then_read_from_the_cache(hub, published, cache):
    assert_is(load_gpt2("gpt2"), published)
    assert starts(hub) == [0]
    paths = {one.path for one in hub.asked}
    assert paths == {f"/{REPO}/resolve/{REVISION}/{WEIGHTS}"}
    hub.asked.clear()
    assert_is(load_gpt2("gpt2"), published)
    assert_is(load_gpt2(REPO), published)
    assert hub.asked == []
    assert kept(cache).count(WEIGHTS) == 1


@pytest.mark.parametrize("xet", [False, True])
def test_redirected_to_the_storage(hub, published, xet):
    hub.redirect, hub.xet = True, xet
    assert_is(load_gpt2("gpt2"), published)
    assert [one.server for one in hub.gets()][-1] == "storage"


def test_through_xet_only_if_it_is_wanted(hub, published):
    hub.xet = True  # the fixture has set HF_HUB_DISABLE_XET
    assert_is(load_gpt2("gpt2"), published)
    assert not any("xet-token" in one.path for one in hub.asked)


# -------------------------------------------------------------- interrupted
@pytest.mark.parametrize("redirect", [False, True])
def test_a_cut_download_goes_on_where_it_was_cut(hub, published, redirect):
    hub.redirect = redirect
    hub.cuts = [700_000]
    assert_is(load_gpt2("gpt2"), published)
    assert starts(hub) == [0, 700_000]


def test_cut_twice(hub, published):
    hub.cuts = [300_000, 500_000]
    assert_is(load_gpt2("gpt2"), published)
    assert starts(hub) == [0, 300_000, 800_000]


def test_a_server_without_ranges_sends_all_of_it_again(hub, published):
    hub.cuts, hub.ranges = [700_000], False
    assert_is(load_gpt2("gpt2"), published)
    assert starts(hub) == [0, 700_000]


def test_cut_for_good_leaves_nothing_half(hub, published, cache):
    hub.cuts = [100_000] + [0] * 30
    message = refusal()
    assert f"{REPO} is not in the cache and cannot be downloaded" in message
    assert 100_000 in starts(hub)
    assert kept(cache) == []
    hub.cuts.clear()
    assert_is(load_gpt2("gpt2"), published)


def test_a_reset_connection(hub, published, cache):
    """huggingface_hub gives up at once, and so do we; nothing half stays."""
    hub.cuts, hub.reset = [700_000], True
    assert "cannot be downloaded from" in refusal()
    assert kept(cache) == []
    assert_is(load_gpt2("gpt2"), published)


# ------------------------------------------------------------ wrong content
def test_a_wrong_checksum_is_never_used(hub, published, cache):
    right = published[1]
    wrong = bytearray(right)
    wrong[-1000] ^= 1  # one bit of one weight
    hub.publish(REPO, REVISION, WEIGHTS, bytes(wrong))
    for _ in range(2):  # also not from the cache
        message = refusal()
        assert "is not what OpenAI published (sha256" in message
    named = message.split(" is not what")[0]
    if os.path.exists(named):  # it says: delete it and load again
        os.remove(named)
    hub.publish(REPO, REVISION, WEIGHTS, right)
    assert_is(load_gpt2("gpt2"), published)


def test_a_page_instead_of_the_file_is_refused(hub):
    hub.publish(REPO, REVISION, WEIGHTS, b"<html>Please log in</html>")
    assert "is not what OpenAI published" in refusal()


# ---------------------------------------------------------------- no answer
@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_a_server_that_refuses(hub, cache, status):
    hub.status = status
    message = refusal()
    assert f"cannot be downloaded from {hub.url()}" in message
    assert str(status) in message.replace(hub.url(), "")
    assert "name a mirror in HF_ENDPOINT" in message
    assert kept(cache) == []


def test_a_mirror_without_the_file(hub):
    hub.files.clear()
    assert "404" in refusal().replace(hub.url(), "")


def test_a_refusing_server_is_not_asked_for_what_is_cached(hub, published):
    load_gpt2("gpt2")
    hub.status = 503
    assert_is(load_gpt2("gpt2"), published)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_no_network(hub, published, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    message = refusal()
    assert "is not in the cache and cannot be downloaded from http" in message
    assert f"put config.json and {WEIGHTS} into a folder" in message
    assert hub.asked == []
    monkeypatch.setenv("HF_ENDPOINT", hub.url())
    load_gpt2("gpt2")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    assert_is(load_gpt2("gpt2"), published)


# ------------------------------------------------------------------ offline
@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_offline_asks_nobody(hub, published, monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    message = refusal()
    assert "HF_HUB_OFFLINE is set" in message
    assert hub.asked == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    load_gpt2("gpt2")
    hub.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert_is(load_gpt2("gpt2"), published)
    assert hub.asked == []


ALONE = """
import sys
from minigpt import GPTConfig, PRESETS, gpt2, load_gpt2

PRESETS["gpt2"] = GPTConfig(300, 64, 128, 4, 2)
gpt2.HUB["gpt2"] = gpt2.Release(*sys.argv[1:])
print(f"{load_gpt2('gpt2').wte.weight.sum():.4f}")
"""


def test_by_environment_alone(hub, published, tmp_path):
    """Nothing patched: HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE by themselves."""
    base = dict(os.environ)
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"):
        base.pop(name, None)
    base |= {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url()}

    def run(**more):
        return subprocess.run(
            [sys.executable, "-c", ALONE, *gpt2.HUB["gpt2"]],
            env=base | more,
            capture_output=True,
            text=True,
        )

    expected = f"{published[0].wte.weight.sum():.4f}"
    offline = run(HF_HUB_OFFLINE="1")
    assert offline.returncode == 1
    assert "HF_HUB_OFFLINE is set" in offline.stderr.splitlines()[-1]
    assert hub.asked == []
    assert run().stdout.strip() == expected
    assert starts(hub) == [0]
    assert list((tmp_path / "home").rglob(WEIGHTS))
    hub.asked.clear()
    assert run(HF_HUB_OFFLINE="1").stdout.strip() == expected
    assert hub.asked == []
