"""push_to_hub and `minigpt export`, against a small hub on this machine.

The hub speaks the part of the protocol that HfApi.upload_folder uses:
create, preupload, LFS batch, upload, commit.
"""

import base64
import json
import logging
import re
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest
import torch
from huggingface_hub import constants

from minigpt import GPT, CharTokenizer, GPTConfig, save_gpt2
from minigpt.cli import main
from minigpt.sharing import MARK, OURS, ExportError, export, push_to_hub

GOOD, READS, WRONG = "hf_goodgoodgood", "hf_readreadread", "hf_wrongwrong"


class Hub:
    """Repositories in memory; `with Hub() as hub:` serves them."""

    def __init__(self):
        self.repos, self.blobs = {}, {}
        self.private, self.asked, self.status = set(), [], None
        self.kinds = {}

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        serve = partial(self.server.serve_forever, poll_interval=0.02)
        threading.Thread(target=serve, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer()

    do_POST = do_PUT = do_GET

    def _answer(self):
        size = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while count := int(self.rfile.readline(), 16):
                body += self.rfile.read(count)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(size)
        path = self.path.partition("?")[0]
        self.hub.asked.append((self.command, self.path))
        if self.hub.status:
            return self._send(self.hub.status, {"error": "busy"})
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if path.startswith("/upload/"):
            self.hub.blobs[path.removeprefix("/upload/")] = body
            return self._send(200, {})
        if token not in (GOOD, READS):
            return self._send(401, {"error": f"Invalid credentials {token}"})
        if token == READS:
            error = f"Forbidden: {token} needs write permission"
            return self._send(403, {"error": error})
        return self._good(path, body)

    def _good(self, path, body):
        hub = self.hub
        if path == "/api/repos/create":
            wish = json.loads(body)
            owner = wish.get("organization") or "me"
            name = f"{owner}/{wish['name']}"
            if wish.get("private") or wish.get("visibility") == "private":
                hub.private.add(name)
            hub.repos.setdefault(name, {})
            hub.kinds[name] = wish.get("type"), wish.get("sdk")
            return self._send(200, {"url": f"{hub.url}/{name}"})
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "regular"
                    if re.search(r"\.(json|md)$", file["path"])
                    else "lfs",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._send(200, {"files": files})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                one | {"actions": {"upload": {
                    "href": f"{hub.url}/upload/{one['oid']}"
                }}}
                for one in json.loads(body)["objects"]
            ]
            return self._send(200, {"transfer": "basic", "objects": objects})
        commit = r"/api/(?:models|spaces)/(.+)/commit/main"
        if found := re.fullmatch(commit, path):
            repo = hub.repos[found[1]]
            for line in body.splitlines():
                part = json.loads(line)
                value = part["value"]
                if part["key"] == "file":
                    content = base64.b64decode(value["content"])
                    repo[value["path"]] = content
                elif part["key"] == "lfsFile":
                    repo[value["path"]] = hub.blobs[value["oid"]]
            address = f"{hub.url}/{found[1]}/commit/{'a' * 40}"
            return self._send(
                200, {"commitOid": "a" * 40, "commitUrl": address}
            )
        return self._send(404, {"error": "there is nothing"})

    def _send(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export."""
    place = tmp_path_factory.mktemp("push")
    torch.manual_seed(0)
    tokenizer = CharTokenizer("abc\n")
    source = save_gpt2(GPT(GPTConfig(4, 8, 16, 2, 1)), place / "source")
    tokenizer.save(source / OURS)
    return export(source, "huggingface", place / "mine")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_every_file_arrives(hub, folder):
    address = push_to_hub(folder, "me/mine", token=GOOD)
    assert address == f"{hub.url}/me/mine"
    expected = {path.name: path.read_bytes() for path in folder.iterdir()}
    arrived = dict(hub.repos["me/mine"])
    assert {k: arrived[k] for k in expected} == expected
    assert "me/mine" not in hub.private


def test_private_if_asked_for(hub, folder):
    push_to_hub(folder, "club/mine", token=GOOD, private=True)
    assert hub.private == {"club/mine"}


def test_the_token_of_the_environment(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", GOOD)
    push_to_hub(folder, "me/mine")
    assert MARK in hub.repos["me/mine"]


def test_a_space_becomes_a_space(hub, folder, tmp_path):
    pytest.importorskip("gradio")
    space = export(folder, "space", tmp_path / "space")
    push_to_hub(space, "me/space", token=GOOD)
    push_to_hub(folder, "me/mine", token=GOOD)
    assert hub.kinds["me/space"] == ("space", "gradio")
    assert hub.kinds["me/mine"][0] in (None, "model")
    arrived = hub.repos["me/space"]
    assert {"app.py", "model/model.safetensors"} <= arrived.keys()
    assert b"sdk: gradio" in arrived["README.md"]


def test_only_what_export_wrote_is_uploaded(hub, folder, tmp_path):
    out = export(folder, "safetensors", tmp_path / "out")
    (out / ".env").write_text("KEY=1")
    (out / "minigpt" / "__pycache__").mkdir(parents=True)
    (out / "minigpt" / "__pycache__" / "app.pyc").write_bytes(b"")
    push_to_hub(out, "me/only", token=GOOD)
    assert set(hub.repos["me/only"]) == {
        *("config.json", "model.safetensors", "tokenizer.json"),
        *("README.md", MARK),
    }


def test_a_token_with_a_line_break_at_its_end(hub, folder):
    push_to_hub(folder, "me/mine", token=f" {GOOD}\n")
    assert MARK in hub.repos["me/mine"]


# ---------------------------------------------------------------- bad input
def refusal(folder, token=None, repo="me/mine"):
    with pytest.raises(ExportError) as caught:
        push_to_hub(folder, repo, token=token)
    # whoever prints the whole chain must not see the request either
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return str(caught.value)


def test_no_token(hub, folder):
    message = refusal(folder)
    assert "there is no access token" in message and "HF_TOKEN" in message
    assert hub.asked == []


def test_a_token_that_the_hub_does_not_know(hub, folder):
    message = refusal(folder, WRONG)
    assert "does not accept the token" in message
    assert hub.repos == {}


def test_a_token_without_rights(hub, folder):
    message = refusal(folder, READS)
    assert "the token may not write to me/mine" in message
    assert hub.repos == {}


@pytest.mark.parametrize("token", [GOOD, READS, WRONG])
@pytest.mark.parametrize("status", [None, 500])
def test_the_token_is_nowhere(hub, folder, token, status, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    hub.status = status
    try:
        told = push_to_hub(folder, "me/mine", token=token)
    except ExportError as error:
        told = repr(error)
    out = capfd.readouterr()
    for place in (told, caplog.text, out.out, out.err, str(hub.asked)):
        assert token not in place
    for path in folder.iterdir():
        assert token.encode() not in path.read_bytes()


def test_a_server_that_is_away(folder, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    message = refusal(folder, GOOD)
    assert message.startswith("me/mine was not uploaded to http://127.0.0.1:9")


def test_a_server_that_breaks(folder, hub):
    hub.status = 500
    assert "me/mine was not uploaded" in refusal(folder, GOOD)


@pytest.mark.parametrize("token", [
    "hf_go od", "hf_g\N{LATIN SMALL LETTER O WITH DIAERESIS}d",
    f"{GOOD}\r\nX-Evil: 1", "hf_\0",
])
def test_a_token_that_no_header_can_hold(hub, folder, token):
    message = refusal(folder, token)
    assert "holds a character that no token has" in message
    assert token[:5] not in message and hub.asked == []


def test_a_blank_token_is_none(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "  ")
    assert "there is no access token" in refusal(folder)


def test_no_form_of_the_token_is_told(hub, folder, monkeypatch):
    """A server may send it back, in any of the forms in which it travels."""
    token = "hf_good/good+good"
    basic = base64.b64encode(token.encode()).decode()
    forms = (token, quote(token, safe=""), basic)
    for form in forms:
        def create(*_, form=form, **__):
            raise RuntimeError(f"wrong {form}, no?\nmore {form}")

        monkeypatch.setattr("huggingface_hub.HfApi.create_repo", create)
        assert "(wrong ***, no?)" in refusal(folder, token)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder",
                        lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo",
                        lambda *_, **__: f"https://hub/me?key={token}")
    told = push_to_hub(folder, "me/mine", token=token)
    assert told == "https://hub/me?key=***"


def test_a_password_in_the_address_of_the_hub(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://me:secret@127.0.0.1:9")
    message = refusal(folder, GOOD)
    assert "http://***@127.0.0.1:9" in message and "secret" not in message


def test_a_long_answer_is_cut(hub, folder, monkeypatch):
    def create(*_, **__):
        raise RuntimeError("x" * 10_000)

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", create)
    assert len(refusal(folder, GOOD)) < 500


@pytest.mark.parametrize("repo", [
    *("mine", "", "a/b/c", "me/my model", "../..", "me/-x", "me/x\n"),
    *("/x", "me/", "me/" + "x" * 200),
])
def test_a_repository_is_user_and_name(hub, folder, repo):
    assert "write user/name" in refusal(folder, GOOD, repo)
    assert hub.asked == []


def test_only_exports_are_pushed(hub, tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    assert "is no export" in refusal(tmp_path, GOOD)
    (tmp_path / MARK).write_text("{}")
    assert "is no export" in refusal(tmp_path, GOOD)
    assert hub.asked == []


# -------------------------------------------------------------- the command
def command(*words):
    return main(["export", *map(str, words)])


def test_the_command_exports_and_pushes(
    hub, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("HF_TOKEN", GOOD)
    out = tmp_path / "out"
    words = ("--run", folder, "--to", "safetensors", "--out", out)
    assert command(*words, "--push", "me/it", "--license", "mit") == 0
    told = capsys.readouterr().out
    assert str(out / "model.safetensors") in told
    assert f"uploaded to {hub.url}/me/it" in told and GOOD not in told
    assert b"license: mit" in hub.repos["me/it"]["README.md"]


@pytest.mark.parametrize("words, message", [
    (("--run", "RUN", "--to", "pickle", "--out", "OUT"), "pickle"),
    (("--run", "nowhere", "--to", "onnx", "--out", "OUT"), "no run 'nowhere'"),
    (("--run", "RUN", "--to", "onnx", "--out", "RUN"), "exists: name a new"),
    (("--run", "RUN", "--to", "safetensors", "--out", "OUT", "--int8"),
     "has no int8 variant"),
    (("--run", "RUN", "--to", "safetensors", "--out", "OUT", "--push", "x"),
     "write user/name"),
    (("--run", "RUN", "--to", "safetensors", "--out", "OUT", "--push", "x/y"),
     "there is no access token"),
])
def test_what_is_wrong_is_one_line(
    hub, folder, tmp_path, capsys, words, message
):
    places = {"RUN": folder, "OUT": tmp_path / "out"}
    assert command(*(places.get(word, word) for word in words)) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and message in errors[0]
    assert not (tmp_path / "out").exists()
