"""A small Hugging Face hub on this machine, for the tests of downloads.

It speaks the part of the protocol that huggingface_hub's hf_hub_download
uses: HEAD and GET of /{repo}/resolve/{revision}/{file}, redirects to a
second server (the hub's storage), ranges; and it can misbehave.
"""

import hashlib
import json
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Asked(NamedTuple):
    """A request as it came in."""

    method: str
    server: str  # hub or storage
    path: str
    range: str | None


@dataclass
class Hub:
    """Start with `with Hub() as hub:`; files are put in with `publish`."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Path -> content, as /owner/name/resolve/revision/file."""
    asked: list[Asked] = field(default_factory=list)
    """Every request so far."""
    redirect: bool = False
    """Large files lie in the storage, as LFS files do."""
    ranges: bool = True
    """Whether a request for the rest of a file gets only the rest."""
    cuts: list[int] = field(default_factory=list)
    """The next answers break off after so many bytes."""
    reset: bool = False
    """Whether they break off like a pulled plug, without a goodbye."""
    status: int | None = None
    """Answer everything with this status."""
    xet: bool = False
    """Offer the file through Xet too, as the real hub does."""

    def publish(self, repo, revision, name, content: bytes) -> str:
        """Put a file in; its sha256."""
        self.files[f"/{repo}/resolve/{revision}/{name}"] = content
        return hashlib.sha256(content).hexdigest()

    def gets(self) -> list[Asked]:
        """The requests for content; huggingface_hub has other wishes too."""
        files = (one for one in self.asked if "/resolve/" in one.path)
        return [one for one in files if one.method == "GET"]

    def __enter__(self):
        self.servers = {}
        for name in ("hub", "storage"):
            handler = type("Handler", (_Handler,), {"hub": self, "name": name})
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            server.daemon_threads = True
            serve = partial(server.serve_forever, poll_interval=0.02)
            threading.Thread(target=serve, daemon=True).start()
            self.servers[name] = server
        return self

    def __exit__(self, *_):
        for server in self.servers.values():
            server.shutdown()
            server.server_close()

    def url(self, name: str = "hub") -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self.servers[name].server_port}"


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    name: str
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        hub, path = self.hub, self.path.partition("?")[0]
        wanted = self.headers.get("Range")
        hub.asked.append(Asked(self.command, self.name, path, wanted))
        if hub.status:
            return self._refuse(hub.status)
        content = hub.files.get(path)
        if content is None:
            return self._refuse(404, "EntryNotFound")
        sha256 = hashlib.sha256(content).hexdigest()
        commit = path.split("/resolve/")[1].split("/")[0]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{sha256}"'}
        if hub.redirect:
            headers["X-Linked-Etag"] = f'"{sha256}"'
            headers["X-Linked-Size"] = str(len(content))
        if hub.xet:
            headers["X-Xet-Hash"] = sha256
            headers["X-Xet-Refresh-Route"] = f"{hub.url()}/xet-token"
        if hub.redirect and self.name == "hub":
            place = hub.url("storage") + path
            return self._send(302, headers | {"Location": place}, b"")
        found = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        if found and hub.ranges:
            start = int(found[1])
            size = len(content)
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
            return self._send(206, headers, content[start:])
        return self._send(200, headers, content)

    def _refuse(self, status: int, code: str | None = None):
        body = json.dumps({"error": f"status {status}"}).encode()
        self._send(status, {"X-Error-Code": code} if code else {}, body)

    def _send(self, status: int, headers: dict[str, str], body: bytes):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            if status in (200, 206) and self.hub.cuts:
                body = body[: self.hub.cuts.pop(0)]
                self.close_connection = True
            self.wfile.write(body)
            if self.close_connection and self.hub.reset:
                at_once = struct.pack("ii", 1, 0)  # linger for 0 s
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, at_once
                )
                self.connection.close()

    def log_message(self, *_):
        """Say nothing."""
