"""Documents from files, a server, a dataset; and what can be wrong."""

import gzip
import hashlib
import json
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from minigpt import sources
from minigpt.sources import SourceError, download, open_source

BODY = "".join(f"line {n} of a file on the web\n" for n in range(40_000))
DATA = BODY.encode()


class Files(BaseHTTPRequestHandler):
    """Serves DATA with ranges; cut=n closes the connection after n bytes."""

    def __init__(self, log, cuts, etag, *rest):
        self.log, self.cuts, self.etag = log, cuts, etag
        super().__init__(*rest)

    def do_GET(self):
        if self.path.partition("?")[0] != "/text.txt":
            return self.send_error(404)
        wanted = self.headers.get("Range")
        fresh = self.headers.get("If-Range") == self.etag[0]
        start = int(wanted[6:-1]) if wanted and fresh else 0
        self.log.append((wanted, start))
        if start >= len(DATA):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(DATA) - start))
        self.send_header("ETag", self.etag[0])
        self.end_headers()
        end = self.cuts.pop(0) if self.cuts else len(DATA)
        self.wfile.write(DATA[start:end])
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    log, cuts, etag = [], [], ['"one"']
    handler = partial(Files, log, cuts, etag)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        http.log, http.cuts, http.etag = log, cuts, etag
        http.url = f"http://127.0.0.1:{http.server_port}/text.txt"
        yield http
        http.shutdown()


def kept(position):
    """What is on the disk when a connection breaks: whole chunks."""
    return position // 2**14 * 2**14


def write(path, text, opener=open):
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        file.write(text)
    return path


def test_a_text_file_is_cut_at_end_of_text(tmp_path):
    path = write(tmp_path / "a.txt", "one\r\ntwo\n<|endoftext|>\nthree")
    assert list(open_source(path)) == ["one\ntwo\n", "three"]


def test_a_long_text_comes_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LONGEST", 10)
    text = "four\nfive\nsix\nand a line longer than ten\n"
    documents = list(open_source(write(tmp_path / "a.txt", text)))
    assert "".join(documents) == text
    assert max(map(len, documents)) <= 10
    assert documents[0] == "four\nfive\n"


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / "b").mkdir()
    rows = '{"text": "2"}\n\n{"text": "3", "more": 1}\n'
    write(tmp_path / "b" / "x.jsonl.gz", rows, gzip.open)
    write(tmp_path / "a.txt", "1")
    write(tmp_path / "Z.TXT.GZ", "4", gzip.open)
    (tmp_path / "folder.txt").mkdir()
    write(tmp_path / "notes.md", "not read")
    source = open_source(tmp_path)
    assert list(source) == list(source) == ["4", "1", "2", "3"]
    assert list(source.begin(2)) == ["2", "3"]
    assert set(source.identity["files"]) == {
        "a.txt", "b/x.jsonl.gz", "Z.TXT.GZ",
    }  # fmt: skip
    assert source.num_bytes is None  # what is packed does not tell
    assert open_source(tmp_path / "a.txt").num_bytes == 1


def test_what_makes_a_source_another_one(tmp_path):
    text, rows = write(tmp_path / "a.txt", "1"), '{"text": "1", "b": "2"}'
    path = write(tmp_path / "a.jsonl", rows)
    assert open_source(text).identity == open_source(text, "b").identity
    assert open_source(path).identity != open_source(path, "b").identity
    one = open_source(path).identity
    write(tmp_path / "a.jsonl", rows + "\n")
    assert open_source(path).identity != one


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone")
    assert list(open_source(tmp_path / "a.txt")) == ["one"]


def test_a_row_without_a_text_is_an_empty_document(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": null}\n{"text": "one"}\n')
    assert list(open_source(path)) == ["", "one"]


def test_another_column(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"body": "hello"}\n')
    assert list(open_source(path, column="body")) == ["hello"]


def test_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    texts = [f"document {n}" for n in range(1000)]
    table = arrow.table({"text": texts, "score": list(range(1000))})
    parquet.write_table(table, path, row_group_size=300)
    assert list(open_source(path)) == texts
    with pytest.raises(SourceError, match="no column 'body'.*text, score"):
        list(open_source(path, "body"))
    with pytest.raises(SourceError, match="row 1: 'score' holds no text"):
        list(open_source(path, "score"))
    parquet.write_table(arrow.table({"text": ["one", None]}), path)
    assert list(open_source(path)) == ["one", ""]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceError, match="a.parquet is cut or no parquet"):
        list(open_source(path))
    latin = arrow.array([b"caf\xe9"]).buffers()
    latin = arrow.Array.from_buffers(arrow.string(), 1, latin)
    parquet.write_table(arrow.table({"text": latin}), path)
    with pytest.raises(SourceError, match="a.parquet is cut or no parquet"):
        list(open_source(path))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "line 2 is not JSON"),
        ("a.jsonl", b'{"body": "x"}\n', r"line 1 has no text.*is: body\)"),
        ("a.jsonl", b"[1]\n", "line 1 has no text.*no object"),
        ("a.jsonl", b"[" * 100_000, "line 1 is not JSON"),
        ("a.jsonl", b'{"text": 3}\n', "line 1 has no text"),
        ("a.txt", b"good\nbad \xff\n", "line 2: byte 0xff is not UTF-8"),
        ("a.txt.gz", gzip.compress(b"x" * 99, mtime=0)[:-9], "cut or damaged"),
        ("a.txt.gz", b"not gzip", "cut or damaged"),
        ("a.parquet", b"not parquet", "no parquet file"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message) as caught:
        list(open_source(path))
    assert str(path) in str(caught.value)


def test_what_is_no_source(tmp_path):
    with pytest.raises(SourceError, match="no source.*hf:owner/name"):
        open_source(tmp_path / "none.txt")
    with pytest.raises(SourceError, match="holds no .txt, .jsonl"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match="drive.mount"):
        open_source("/content/drive/MyDrive/texts")
    with pytest.raises(SourceError, match="names no dataset"):
        open_source("hf:a/b:c:d:e")
    with pytest.raises(SourceError, match="the source has no name"):
        open_source("")
    with pytest.raises(SourceError, match="is no address.*mend it"):
        open_source("http://[::1", cache=tmp_path)


def test_a_download_is_kept(server, tmp_path):
    for _ in range(2):
        source = open_source(server.url, cache=tmp_path)
        assert "".join(source) == BODY
        assert source.name == server.url
    assert len(server.log) == 1
    assert download(server.url + "?2", tmp_path) != download(
        server.url, tmp_path
    )  # they only have the same name


def test_a_cut_download_goes_on(server, tmp_path):
    server.cuts += [300_000, 700_000]
    assert download(server.url, tmp_path).read_bytes() == DATA
    starts = [start for _, start in server.log]
    assert starts == [0, kept(300_000), kept(700_000)]


def test_a_download_goes_on_in_a_later_call(server, tmp_path):
    server.cuts += [100_000, 200_000, 300_000]
    with pytest.raises(SourceError, match="what has arrived is kept"):
        download(server.url, tmp_path)
    assert download(server.url, tmp_path).read_bytes() == DATA
    assert server.log[-1][1] == kept(300_000)
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob("*.etag"))


def test_a_file_that_changed_is_downloaded_anew(server, tmp_path):
    server.cuts += [100_000, 200_000, 300_000]
    with pytest.raises(SourceError):
        download(server.url, tmp_path)
    server.etag[0] = '"two"'
    assert download(server.url, tmp_path).read_bytes() == DATA
    assert server.log[-1] == (f"bytes={kept(300_000)}-", 0)


def test_a_weak_etag_promises_no_bytes(server, tmp_path):
    server.etag[0] = 'W/"one"'
    server.cuts += [100_000, 200_000, 300_000]
    with pytest.raises(SourceError):
        download(server.url, tmp_path)
    assert download(server.url, tmp_path).read_bytes() == DATA
    assert {start for _, start in server.log} == {0}


def test_a_complete_part_is_taken(server, tmp_path):
    part = tmp_path / f"{sources._mark(server.url)}.part"
    part.write_bytes(DATA)
    sources._tag(part).write_text('"one"')
    assert download(server.url, tmp_path).read_bytes() == DATA


def test_sha256(server, tmp_path):
    good = hashlib.sha256(DATA).hexdigest()
    assert download(f"{server.url}#sha256={good}", tmp_path).exists()
    (kept,) = tmp_path.iterdir()
    kept.unlink()
    with pytest.raises(SourceError, match="another sha256 than you gave"):
        download(f"{server.url}#sha256={'0' * 64}", tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SourceError, match="64 hexadecimal digits"):
        download(f"{server.url}#sha256=abc", tmp_path)


def test_no_such_address(server, tmp_path):
    with pytest.raises(SourceError, match="404"):
        download(server.url + "x", tmp_path)


def test_a_drive_link(server, tmp_path):
    pytest.importorskip("gdown")  # which takes other addresses, too
    path = sources._from_drive(server.url, tmp_path)
    assert path.read_bytes() == DATA
    with pytest.raises(SourceError, match="anyone who has the link"):
        sources._from_drive(server.url + "x", tmp_path)


@pytest.mark.parametrize(
    "spec, package",
    [
        ("hf:owner/name", "datasets"),
        ("https://drive.google.com/file/d/1/view", "gdown"),
        ("{}/a.parquet", "pyarrow"),
    ],
)
def test_a_package_that_is_missing(monkeypatch, tmp_path, spec, package):
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(SourceError, match=r'pip install "minigpt-course\[da'):
        list(open_source(spec.format(tmp_path), cache=tmp_path))


def test_a_streamed_dataset(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"text": f"row {n}", "id": n} for n in range(5)]
    asked = []

    def load(name, config, split, streaming):
        asked.append((name, config, split, streaming))
        return datasets.Dataset.from_list(rows).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = open_source("hf:owner/name:small:test")
    assert asked == [("owner/name", "small", "test", True)]
    assert source.identity == {
        "config": "small", "split": "test", "column": "text",
    }  # fmt: skip
    assert list(source) == [row["text"] for row in rows]
    assert list(source.begin(3)) == ["row 3", "row 4"]
    with pytest.raises(SourceError, match="^hf:owner/name, row 1 has no text"):
        list(open_source("hf:owner/name", "body"))
    open_source("hf:name")
    assert asked[-1] == ("name", None, "train", True)


def test_a_dataset_that_breaks_off(monkeypatch):
    datasets = pytest.importorskip("datasets")

    class Rows:
        def skip(self, start):
            yield {"text": "one"}
            raise ConnectionError("the line went dead")

    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: Rows())
    source = open_source("hf:owner/name")
    for start, row in ((0, 2), (5, 7)):
        stream = source.begin(start)
        assert next(stream) == "one"
        with pytest.raises(SourceError, match=f"row {row}: the line went d"):
            next(stream)


def test_a_dataset_that_is_not_there(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load(*args, **settings):
        raise datasets.exceptions.DatasetNotFoundError("no such thing")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(SourceError, match="hf:a/b: no such thing; check"):
        open_source("hf:a/b")


def test_a_registered_text(monkeypatch):
    source = open_source("shakespeare")
    (text,) = source
    assert len(text) > 1_000_000 and list(source.begin(1)) == []
    assert json.dumps(source.identity)
    monkeypatch.setattr(sources, "load_text", lambda name: "the toy language")
    assert open_source("shakespeare").identity != source.identity
