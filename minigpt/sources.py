"""Where documents come from: files, folders, URLs, Hugging Face, Drive.

`open_source(spec)` turns one string into `Documents`: texts in a fixed
order that can be read again from any of them. What cannot be read raises
a SourceError that names the source, the line and the remedy.
"""

import contextlib
import gzip
import itertools
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlparse

from minigpt.text import SOURCES, load_text

SUFFIXES = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz", ".parquet")
JSONL = (".jsonl", ".jsonl.gz")
END_OF_TEXT = "<|endoftext|>"  # a line of its own between two documents
LONGEST = 2**22  # characters of a text file that are kept in memory at once
MORE = 'pip install "minigpt-course[data]"'
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of it


class SourceError(ValueError):
    """A source cannot be read; the message names it, where, and a remedy."""


@dataclass(frozen=True)
class Documents:
    """Documents in a fixed order. Iterating starts at the first."""

    name: str
    """The source as it was asked for."""
    begin: Callable[[int], Iterator[str]] = field(repr=False)
    """begin(n) yields the documents from number n on."""
    identity: dict = field(default_factory=dict)
    """What has to be the same for a second reading to give the same."""
    num_bytes: int | None = None
    """About how much text there is, if that is known beforehand."""

    def __iter__(self) -> Iterator[str]:
        return self.begin(0)


def open_source(
    spec: str | os.PathLike, column: str = "text", cache: Path | None = None
) -> Documents:
    """The documents of a source.

    spec: a registered text ("shakespeare"), a file or a folder (txt,
    jsonl, both also as .gz, parquet; Google Drive once it is mounted), an
    address (https://…/x.jsonl.gz, with #sha256=… it is checked), a share
    link of Google Drive, or "hf:owner/name:config:split", a dataset of
    Hugging Face, streamed. column: the field that holds the text in jsonl,
    parquet and datasets. cache: where downloads are kept.
    """
    spec = os.fspath(spec)
    if not spec:
        raise SourceError(
            "the source has no name: write a file, a folder or an address"
        )
    if spec in SOURCES:
        return _from_text(spec)
    if spec.startswith("hf:"):
        return _from_hub(spec, column)
    if re.match(r"https?://(drive|docs)\.google\.com/", spec):
        path = _from_drive(spec, cache)
    elif re.match(r"https?://", spec):
        path = download(spec, cache)
    else:
        path = Path(spec)
    return replace(_from_path(path, column), name=spec)


def _from_text(name: str) -> Documents:
    text = load_text(name)
    crc = zlib.crc32(text.encode())  # Shakespeare, or the toy language
    return Documents(
        name,
        lambda start: iter([text][start:]),
        {"crc32": crc},
        len(text),
    )


# Files ---------------------------------------------------------------------


def _from_path(path: Path, column: str) -> Documents:
    """A file, or all readable files of a folder in the order of names."""
    if path.is_dir():
        files = sorted(
            file
            for file in path.rglob("*")
            if _name(file).endswith(SUFFIXES) and file.is_file()
        )
        if not files:
            raise SourceError(
                f"{path} holds no {', '.join(SUFFIXES)}: put text files "
                "there or name another folder"
            )
    elif path.is_file():
        files = [path]
    else:
        raise SourceError(_no_such(path))
    sizes = {
        file.relative_to(path).as_posix() if path.is_dir() else file.name: (
            file.stat().st_size
        )
        for file in files
    }
    names = [_name(file) for file in files]
    packed = any(name.endswith((".gz", ".parquet")) for name in names)
    rows = any(name.endswith((*JSONL, ".parquet")) for name in names)

    def begin(start: int) -> Iterator[str]:
        texts = (text for file in files for text in _read_file(file, column))
        return itertools.islice(texts, start, None)

    return Documents(
        str(path),
        begin,
        {"files": sizes} | ({"column": column} if rows else {}),
        None if packed else sum(sizes.values()),
    )


def _name(path: Path) -> str:
    """A file's name for looking at its suffix: Windows may write .TXT."""
    return path.name.lower()


def _no_such(path: Path) -> str:
    drive = Path("/content/drive")
    if drive in path.parents and not (drive / "MyDrive").exists():
        return (
            f"{path} is on Google Drive, which is not mounted: run "
            "'from google.colab import drive; drive.mount(\"/content/"
            "drive\")' first"
        )
    return (
        f"no source {str(path)!r}: it is no file, folder or address, and no "
        f"registered text ({', '.join(SOURCES)}); a dataset of Hugging Face "
        "is written hf:owner/name"
    )


def _read_file(path: Path, column: str) -> Iterator[str]:
    """The documents of one file, by its suffix; what else is text."""
    name = _name(path)
    if name.endswith(".parquet"):
        yield from _read_parquet(path, column)
        return
    opener = gzip.open if name.endswith(".gz") else open
    try:
        with opener(
            path, "rt", encoding="utf-8-sig", errors="surrogateescape"
        ) as file:
            if name.endswith(JSONL):
                yield from _read_jsonl(path, file, column)
            else:
                yield from _read_text(path, file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(
            f"{path} is cut or damaged ({error}): copy or download it again"
        ) from None
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read ({error.strerror or error}): check the "
            "file and its permissions"
        ) from None


def _lines(path: Path, file, limit: int) -> Iterator[tuple[int, str]]:
    """Numbered lines of at most `limit` characters, UTF-8 made sure of."""
    for number in itertools.count(1):
        line = file.readline(limit)
        if not line:
            return
        bad = None if line.isascii() else _NOT_UTF8.search(line)
        if bad:
            raise SourceError(
                f"{path}, line {number}: byte 0x{ord(bad[0]) - 0xDC00:02x} "
                "is not UTF-8: save the file as UTF-8"
            )
        yield number, line


def _read_text(path: Path, file) -> Iterator[str]:
    """Documents end at a line <|endoftext|> or after LONGEST characters."""
    parts, length = [], 0
    for _, line in _lines(path, file, LONGEST):
        end = line.strip() == END_OF_TEXT
        if end or length + len(line) > LONGEST:
            yield "".join(parts)
            parts, length = [], 0
        if not end:
            parts.append(line)
            length += len(line)
    yield "".join(parts)


def _read_jsonl(path: Path, file, column: str) -> Iterator[str]:
    """One document a line: the text in the object's field `column`."""
    for number, line in _lines(path, file, -1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SourceError(
                f"{path}, line {number} is not JSON ({error}): mend the "
                "line or remove it"
            ) from None
        text = _text(row, column)
        if text is None:
            there = ", ".join(row) if isinstance(row, dict) else "no object"
            raise SourceError(
                f"{path}, line {number} has no text in {column!r} (there "
                f"is: {there}): name the field with --column"
            )
        yield text


def _text(row: object, column: str) -> str | None:
    """The text of a row, "" where it says null; None if there is none."""
    if not isinstance(row, dict) or column not in row:
        return None
    text = "" if row[column] is None else row[column]
    return text if isinstance(text, str) else None


def _read_parquet(path: Path, column: str) -> Iterator[str]:
    """The texts in one column, a few rows at a time."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise SourceError(
            f"{path} is parquet, which needs one more package: {MORE}"
        ) from None
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise SourceError(
                    f"{path} has no column {column!r} (there is: "
                    f"{', '.join(names)}): name it with --column"
                )
            for batch in file.iter_batches(256, columns=[column]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    if text is not None and not isinstance(text, str):
                        raise SourceError(
                            f"{path}, row {number}: {column!r} holds no "
                            "text: name another column with --column"
                        )
                    yield text or ""
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{path} is cut or no parquet file, read up to row {number} "
            f"({str(error).splitlines()[0]}): download it again"
        ) from None


# The network ---------------------------------------------------------------


def _cache(cache: Path | None) -> Path:
    import pooch

    return Path(cache or pooch.os_cache("minigpt"))


def download(url: str, cache: Path | None = None) -> Path:
    """A file of the web, kept in the cache; what is there is not repeated.

    An address may end in #sha256=…, then the file is checked. A download
    that stopped half-way goes on where it stopped, also in a later call.
    """
    import pooch
    import requests

    url, _, fragment = url.partition("#")
    sha256 = fragment.removeprefix("sha256=") or None
    if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise SourceError(
            f"{url}: write #sha256= and 64 hexadecimal digits after it, or "
            "nothing"
        )
    pooch.get_logger().setLevel("WARNING")
    try:
        last = re.sub(r"[^\w.-]", "_", Path(urlparse(url).path).name)
    except ValueError as error:
        raise SourceError(f"{url} is no address ({error}): mend it") from None
    name, folder = f"{_mark(url)}-{last}", _cache(cache)
    try:
        return Path(
            pooch.retrieve(url, sha256, name, folder, downloader=resuming)
        )
    except requests.RequestException as error:
        raise SourceError(
            f"{url} cannot be downloaded ({_short(error)}): check the "
            "address and the network; what has arrived is kept, and the "
            "same command goes on from there"
        ) from error
    except ValueError as error:  # pooch has compared the sha256
        raise SourceError(
            f"{url} has another sha256 than you gave: the file was changed "
            "or damaged on its way; nothing is kept, try again or correct "
            "the sha256"
        ) from error
    except OSError as error:
        raise SourceError(
            f"{url} cannot be kept in {_cache(cache)} ("
            f"{error.strerror or error}): free some space"
        ) from error


def _mark(address: str) -> str:
    """A short name for what an address holds."""
    return f"{zlib.crc32(address.encode()):08x}"


def resuming(url: str, output_file: str, pooch) -> None:
    """A downloader for pooch that goes on with what has arrived before."""
    import requests

    part = Path(output_file).parent / f"{_mark(url)}.part"
    for attempts_left in (2, 1, 0):
        try:
            _go_on(url, part)
            break
        except (
            requests.ConnectionError,
            requests.exceptions.ChunkedEncodingError,
            requests.Timeout,
        ):
            if not attempts_left:
                raise
    os.replace(part, output_file)
    _tag(part).unlink(missing_ok=True)


def _go_on(url: str, part: Path) -> None:
    """Ask for what is missing; for all of it if the file is another now."""
    import requests
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # the bytes as they are kept
    if have and _tag(part).exists():
        headers["Range"] = f"bytes={have}-"
        headers["If-Range"] = _tag(part).read_text()
    with requests.get(url, stream=True, timeout=30, headers=headers) as got:
        if got.status_code == 416:  # nothing is missing, says the server
            return
        got.raise_for_status()
        more = got.status_code == 206
        if not more:
            have = 0
            _tag(part).unlink(missing_ok=True)
            tag = got.headers.get("ETag", "W/")
            if not tag.startswith("W/"):  # a weak tag promises no bytes
                _tag(part).write_text(tag)
        bar = tqdm(
            total=have + int(got.headers.get("Content-Length", 0)) or None,
            initial=have,
            unit="B",
            unit_scale=True,
            desc="download",
        )
        with open(part, "ab" if more else "wb") as file, bar:
            for chunk in got.iter_content(2**14):  # what a cut may lose
                file.write(chunk)
                bar.update(len(chunk))


def _tag(part: Path) -> Path:
    """Where the ETag of an unfinished download is kept."""
    return part.with_suffix(".etag")


def _short(error: BaseException) -> str:
    """The first line of an error, or its name."""
    answer = getattr(error, "response", None)
    if answer is not None:
        return f"{answer.status_code} {answer.reason}"
    return type(error).__name__


def _from_drive(link: str, cache: Path | None) -> Path:
    """A shared file or folder of Google Drive, downloaded by gdown."""
    try:
        import gdown
    except ModuleNotFoundError:
        raise SourceError(
            f"{link} is a share link, which needs one more package: {MORE}"
        ) from None
    folder = _cache(cache) / f"drive-{_mark(link)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if "/folders/" in link:
            gdown.download_folder(
                link, output=str(folder), resume=True, quiet=True
            )
            return folder
        return Path(
            gdown.download(
                link, f"{folder}{os.sep}", resume=True, quiet=True, retries=2
            )
        )
    except Exception as error:  # gdown raises its own and those of requests
        raise SourceError(
            f"{link} cannot be downloaded ({_short(error)}): share it with "
            "anyone who has the link, or mount the Drive and give the path"
        ) from error


def _from_hub(spec: str, column: str) -> Documents:
    """A dataset of Hugging Face, streamed: nothing is downloaded before."""
    name, config, split, *more = (*spec[3:].split(":"), "", "")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or any(more):
        raise SourceError(
            f"{spec!r} names no dataset: write hf:owner/name, "
            "hf:owner/name:config or hf:owner/name:config:split"
        )
    try:
        import datasets
    except ModuleNotFoundError:
        raise SourceError(
            f"{spec} needs one more package: {MORE}"
        ) from None
    split = split or "train"
    with _explained(spec, "check the name, its config and split"):
        rows = datasets.load_dataset(
            name, config or None, split=split, streaming=True
        )

    def begin(start: int) -> Iterator[str]:
        number = start + 1
        problem = "run the same command again to go on"
        with _explained(spec, problem, lambda: number):
            for row in rows.skip(start):
                text = _text(row, column)
                if text is None:
                    raise SourceError(
                        f"{spec}, row {number} has no text in "
                        f"{column!r} (there is: {', '.join(row)}): name the "
                        "field with --column"
                    )
                yield text
                number += 1

    same = {"config": config, "split": split, "column": column}
    return Documents(spec, begin, same)


@contextlib.contextmanager
def _explained(
    spec: str, remedy: str, row: Callable[[], int] | None = None
) -> Iterator[None]:
    """Whatever a library raises while it reads becomes a SourceError."""
    try:
        yield
    except (SourceError, GeneratorExit):
        raise
    except Exception as error:  # each version of datasets raises its own
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = f", row {row()}" if row else ""
        raise SourceError(f"{spec}{where}: {first}; {remedy}") from error
