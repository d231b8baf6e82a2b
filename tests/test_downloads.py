"""Every way in which a download can go wrong, against a server on this machine."""

import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from robustvae.data import downloads
from robustvae.data.downloads import Library, Source
from robustvae.errors import UserError

CONTENT = os.urandom(300_000)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
PAGE = b"<!DOCTYPE html><html>Quota exceeded</html>"
Answer = Callable[[BaseHTTPRequestHandler], None]


def send(
    body: bytes = CONTENT,
    status: int = 200,
    kind: str = "application/gzip",
    cut: int | None = None,
    **headers: str,
) -> Answer:
    """An answer; `cut` closes the connection after so many bytes of it."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body[:cut])

    return answer


def resume(request: BaseHTTPRequestHandler) -> None:
    """What a server that knows Range answers."""
    start = int(request.headers.get("Range", "bytes=0-")[6:-1])
    if start >= len(CONTENT):
        send(b"", 416)(request)
    else:
        send(CONTENT[start:], 206 if start else 200)(request)


def stall(request: BaseHTTPRequestHandler) -> None:
    send(cut=100_000)(request)
    request.wfile.flush()
    time.sleep(1.5)


class Server:
    """Plays a list of answers, the last one again and again; keeps the requests' Range headers."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.ranges: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.ranges.append(self.headers.get("Range"))
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                answer(self)

            def log_message(self, *args: Any) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/a.gz"

    def source(self, checksum: str = MD5) -> Source:
        return Source("set/a.gz", checksum, (self.url,))


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "cache")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses asked for; none is made."""
    found: list[float] = []
    monkeypatch.setattr(downloads.time, "sleep", found.append)
    return found


def left(library: Library) -> list[str]:
    return sorted(path.name for path in (library.cache / "set").iterdir())


def test_a_good_file_is_fetched_once(server: Server, library: Library) -> None:
    server.answers = [send()]
    assert library.fetch(server.source()).read_bytes() == CONTENT
    assert library.fetch(server.source()) == library.cache / "set" / "a.gz"
    assert len(server.ranges) == 1
    assert left(library) == ["a.gz"]


def test_a_wrong_file_is_removed_and_reported(server: Server, library: Library) -> None:
    server.answers = [send(b"something else")]
    found = hashlib.md5(b"something else").hexdigest()
    with pytest.raises(UserError) as error:
        library.fetch(server.source())
    assert str(error.value) == (
        f"download: set/a.gz could not be had: {server.url}: 14 bytes with md5 {found}, expected "
        f"{MD5[4:]}; removed. By hand: put the file with {MD5} at {library.cache}/set/a.gz, "
        "or name a mirror (data.mirror), and run again"
    )
    assert left(library) == []


def test_a_truncated_file_of_matching_length_is_removed(server: Server, library: Library) -> None:
    server.answers = [send(CONTENT[:1000])]
    with pytest.raises(UserError, match="1000 bytes with md5"):
        library.fetch(server.source())
    assert left(library) == []


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_page_in_place_of_the_file_is_called_that(
    server: Server, library: Library, kind: str
) -> None:
    server.answers = [send(PAGE, kind=kind)]
    with pytest.raises(UserError, match="an HTML page in place of the file"):
        library.fetch(server.source())
    assert left(library) == []


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_not_repeated_but_the_next_address_is_tried(
    server: Server, library: Library, pauses: list[float], status: int
) -> None:
    server.answers = [send(b"", status), send()]
    source = Source("set/a.gz", MD5, (server.url, server.url + "?second"))
    assert library.fetch(source).read_bytes() == CONTENT
    assert (len(server.ranges), pauses) == (2, [])


def test_a_refusal_everywhere_names_every_address(server: Server, library: Library) -> None:
    server.answers = [send(b"", 404)]
    with pytest.raises(UserError, match=r"a\.gz: HTTP 404 Not Found; .*second: HTTP 404 Not Found"):
        library.fetch(Source("set/a.gz", MD5, (server.url, server.url + "?second")))


def test_a_failing_server_is_asked_again_after_growing_pauses(
    server: Server, library: Library, pauses: list[float]
) -> None:
    server.answers = [send(b"", 500), send(b"", 503), send(b"", 502), send()]
    assert library.fetch(server.source()).read_bytes() == CONTENT
    assert pauses == [1, 2, 4]


def test_a_server_that_keeps_failing_is_given_up(
    server: Server, library: Library, pauses: list[float]
) -> None:
    server.answers = [send(b"", 500)]
    with pytest.raises(UserError, match="HTTP 500 Internal Server Error \\(after 4 attempts"):
        library.fetch(server.source())
    assert len(server.ranges) == downloads.ATTEMPTS


def test_a_broken_connection_is_resumed_where_it_broke(
    server: Server, library: Library, pauses: list[float]
) -> None:
    server.answers = [send(cut=200_000), resume]
    assert library.fetch(server.source()).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=200000-"]


def test_a_server_without_ranges_sends_the_whole_again(
    server: Server, library: Library, pauses: list[float]
) -> None:
    server.answers = [send(cut=200_000), send()]
    assert library.fetch(server.source()).read_bytes() == CONTENT


def test_a_stall_ends_after_the_time_out_and_is_resumed(
    server: Server, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBUSTVAE_TIMEOUT", "0.3")
    server.answers = [stall, resume]
    begin = time.monotonic()
    assert library.fetch(server.source()).read_bytes() == CONTENT
    assert time.monotonic() - begin < 3
    assert server.ranges[1] is not None


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf"])
def test_a_time_out_that_is_none_is_refused(
    server: Server, library: Library, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("ROBUSTVAE_TIMEOUT", text)
    with pytest.raises(UserError, match=f"ROBUSTVAE_TIMEOUT: .* got '{text}'"):
        library.fetch(server.source())


def test_a_part_of_another_version_is_dropped_and_the_file_fetched_whole(
    server: Server, library: Library
) -> None:
    part = library.cache / "set" / "a.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    server.answers = [resume]
    assert library.fetch(server.source()).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-", None]


@pytest.mark.parametrize("extra", [b"", b"more"], ids=["whole", "too long"])
def test_a_part_that_has_everything_is_checked(
    server: Server, library: Library, extra: bytes
) -> None:
    part = library.cache / "set" / "a.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT + extra)
    server.answers = [resume]
    assert library.fetch(server.source()).read_bytes() == CONTENT


@pytest.mark.slow
def test_a_killed_download_is_resumed_by_the_next_run(server: Server, library: Library) -> None:
    def slowly(request: BaseHTTPRequestHandler) -> None:
        send(cut=200_000)(request)
        request.wfile.flush()
        time.sleep(20)

    server.answers = [slowly, resume]
    code = (
        "from pathlib import Path; from robustvae.data.downloads import Library, Source; "
        f"source = Source('set/a.gz', {MD5!r}, ({server.url!r},)); "
        f"Library(Path({str(library.cache)!r})).fetch(source)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    part = library.cache / "set" / "a.gz.part"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (part.exists() and part.stat().st_size > 60_000):
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert library.fetch(server.source()).read_bytes() == CONTENT
    assert server.ranges[1] is not None
    assert int(server.ranges[1][6:-1]) > 60_000


def test_no_space_left_is_one_clear_message(
    server: Server, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(answer: Any, file: Any) -> Iterator[None]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield

    monkeypatch.setattr(downloads, "_mebibytes", full)
    server.answers = [send()]
    with pytest.raises(UserError, match=r"a\.gz\.part: no space left on the device; make room"):
        library.fetch(server.source())
    assert len(server.ranges) == 1


def test_an_unknown_host_is_reported_at_once(
    library: Library, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    with pytest.raises(UserError, match="no such host, or no network"):
        library.fetch(Source("set/a.gz", MD5, ("http://host.invalid/a.gz",)))
    assert pauses == []


def test_a_file_put_there_by_hand_is_taken_if_it_is_the_right_one(
    server: Server, library: Library
) -> None:
    path = library.cache / "set" / "a.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    server.answers = [send(b"", 404)]
    assert library.fetch(server.source()).read_bytes() == CONTENT
    path.write_bytes(b"not it")
    with pytest.raises(UserError, match=r"set/a\.gz: 6 bytes with md5 .*expected"):
        library.fetch(server.source())
    assert path.read_bytes() == b"not it"


def mirror_of(tmp_path: Path, content: bytes = CONTENT) -> Path:
    folder = tmp_path / "my mirror"
    (folder / "set").mkdir(parents=True)
    (folder / "set" / "a.gz").write_bytes(content)
    return folder


@pytest.mark.parametrize("form", ["folder", "file URL", "http", "environment"])
def test_a_mirror_comes_before_the_public_addresses(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    folder = mirror_of(tmp_path)
    server.answers = [send()]
    mirror = {
        "folder": str(folder),
        "file URL": folder.as_uri(),
        "http": server.url.removesuffix("/a.gz") + "/",
        "environment": None,
    }[form]
    if form == "environment":
        monkeypatch.setenv("ROBUSTVAE_MIRROR", str(folder))
    library = Library.of(tmp_path / "cache", mirror)
    source = Source("set/a.gz", MD5, ("http://host.invalid/a.gz",))
    assert library.fetch(source).read_bytes() == CONTENT
    assert library.deliver(source, tmp_path / "raw").read_bytes() == CONTENT


def test_a_wrong_file_in_a_mirror_is_passed_over_and_left_alone(
    server: Server, tmp_path: Path
) -> None:
    folder = mirror_of(tmp_path, b"wrong")
    server.answers = [send()]
    library = Library.of(tmp_path / "cache", str(folder))
    assert library.fetch(server.source()).read_bytes() == CONTENT
    assert (folder / "set" / "a.gz").read_bytes() == b"wrong"


def test_a_mirror_that_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.mirror: no such folder: .*/nowhere"):
        Library.of(tmp_path, str(tmp_path / "nowhere"))


EVIL = ["../out.txt", "/out.txt", "set/../../out.txt", "C:\\out.txt", "..\\out.txt"]


@pytest.mark.parametrize("name", EVIL)
def test_an_archive_with_a_path_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "evil.tar.gz", "w:gz") as tar:
        for member in (name, "set/a"):
            entry = tarfile.TarInfo(member)
            entry.size = 3
            tar.addfile(entry, io.BytesIO(b"abc"))
    with zipfile.ZipFile(packed / "evil.zip", "w") as archive:
        archive.writestr(name, "abc")
    with pytest.raises(UserError, match="leads out of its folder"):
        downloads.unpack_tar(packed / "evil.tar.gz", ["set/a"], tmp_path / "raw")
    with pytest.raises(UserError, match="leads out of its folder"):
        downloads.open_zip(packed / "evil.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


def test_a_link_in_an_archive_is_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        entry = tarfile.TarInfo("set/a")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    with pytest.raises(UserError, match="set/a missing"):
        downloads.unpack_tar(tmp_path / "evil.tar", ["set/a"], tmp_path / "raw")


@pytest.mark.parametrize("keep", [0, 10, 60])
def test_a_damaged_archive_is_called_that(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo("set/a")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"abc"))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"a\.tar\.gz: damaged"):
        downloads.unpack_tar(path, ["set/a"], tmp_path / "raw")
    with pytest.raises(UserError, match=r"a\.tar\.gz: damaged"):
        downloads.open_zip(path)
