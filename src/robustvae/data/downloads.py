"""Verified downloads from mirrors and public addresses, retried and resumed."""

import dataclasses
import os
import shutil
import socket
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import Request, url2pathname, urlopen

from filelock import FileLock

from robustvae.errors import UserError
from robustvae.runtime import files, progress

ATTEMPTS = 4  # at one address without gaining a byte, with pauses of 1, 2, 4 s between them
PASSING = {408, 425, 429, *range(500, 600)}  # HTTP answers worth another attempt


@dataclasses.dataclass(frozen=True)
class Source:
    """One file: its place below a mirror, what it must be, and its public addresses."""

    path: str  # in torchvision's layout
    checksum: str | None  # "md5:..." or "sha256:..."; None where only its structure can be checked
    urls: tuple[str, ...] = ()

    def problem(self, file: Path) -> str | None:
        """What is wrong with `file`, or None."""
        if not file.is_file():
            return "not there"
        if self.checksum is None:
            return None
        algorithm, expected = self.checksum.split(":")
        found = files.digest(file, algorithm)
        if found == expected:
            return None
        with file.open("rb") as start:
            page = start.read(256).lstrip()[:9].lower().startswith((b"<!doctype", b"<html"))
        what = "an HTML page in place of the file" if page else f"{file.stat().st_size} bytes"
        return f"{what} with {algorithm} {found}, expected {expected}"


class _UnusableError(Exception):
    """This address does not give the file; the next one may."""


@dataclasses.dataclass(frozen=True)
class Library:
    """Where files come from: mirrors (folder or base URL), and `cache`, laid out like a mirror."""

    cache: Path
    mirrors: tuple[Path | str, ...] = ()
    public: bool = True  # may public addresses be asked?

    @classmethod
    def of(cls, cache: Path, mirror: str | None) -> "Library":
        """With data.mirror and the environment's ROBUSTVAE_MIRROR: a folder or an address each."""
        named = {"data.mirror": mirror, "ROBUSTVAE_MIRROR": os.environ.get("ROBUSTVAE_MIRROR")}
        return cls(cache, tuple(_mirror(place, text) for place, text in named.items() if text))

    def fetch(self, *choices: Source) -> Path:
        """A verified file: the first of `choices` (forms of the same content) that can be had."""
        self.cache.mkdir(parents=True, exist_ok=True)
        problems = []
        with FileLock(self.cache / ".lock"):  # a second run waits, and finds the file
            for source, address in self._candidates(choices):
                try:
                    if isinstance(address, str):
                        return _download(source, address, self.cache / source.path)
                    if not (problem := source.problem(address)):
                        return address
                    problems.append(f"{address}: {problem}")
                except _UnusableError as error:
                    problems.append(f"{address}: {error}")
        wanted = choices[-1]
        raise UserError(
            f"download: {wanted.path} could not be had: {'; '.join(problems) or 'no address'}. "
            f"By hand: put the file with {wanted.checksum} at {self.cache / wanted.path}, or "
            "name a mirror (data.mirror), and run again"
        )

    def deliver(self, source: Source, folder: Path) -> Path:
        """Fetch a file into `folder`; the cache keeps its copy, so no edit fetches it again."""
        file = self.fetch(source)
        with files.replace(folder / file.name) as temporary:
            shutil.copyfile(file, temporary)
        return folder / file.name

    def _candidates(self, choices: Iterable[Source]) -> Iterator[tuple[Source, Path | str]]:
        for source in choices:
            if (self.cache / source.path).exists():
                yield source, self.cache / source.path
        for mirror in self.mirrors:
            for source in choices:
                if isinstance(mirror, Path):
                    yield source, mirror / source.path
                else:
                    yield source, f"{mirror}/{quote(source.path)}"
        for source in choices if self.public else ():
            yield from ((source, url) for url in source.urls)


def _mirror(place: str, text: str) -> Path | str:
    if text.startswith(("http://", "https://")):
        return text.rstrip("/")
    file = text.startswith("file://")
    folder = Path(url2pathname(urlsplit(text).path) if file else text).expanduser()
    if not folder.is_dir():
        raise UserError(f"{place}: no such folder: {text}; a folder, file:// or http(s):// address")
    return folder


def _download(source: Source, url: str, target: Path) -> Path:
    """`url` -> `target`; what arrived of a broken transfer stays in NAME.part for the next."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    again = False
    while True:
        whole = _persist(url, part)
        problem = source.problem(part)
        if not problem:
            part.replace(target)
            return target
        part.unlink()
        if whole or again:
            raise _UnusableError(f"{problem}; removed")
        again = True  # the part may have begun as another version of the file: once more, whole


def _persist(url: str, part: Path) -> bool:
    """Transfer with growing pauses until all is there; True if it came in one piece."""
    failures = most = 0
    while True:
        try:
            return _transfer(url, part)
        except HTTPError as error:
            if error.code not in PASSING:
                raise _UnusableError(f"HTTP {error.code} {error.reason}") from error
            reason = f"HTTP {error.code} {error.reason}"
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and error.errno in files.FULL:
                raise files.no_space(part, error) from error
            cause = error.reason if isinstance(error, URLError) else error
            if isinstance(cause, socket.gaierror):
                raise _UnusableError(f"no such host, or no network ({cause})") from error
            reason = f"{cause}" or type(cause).__name__
        size = part.stat().st_size if part.exists() else 0
        failures, most = (0, size) if size > most else (failures + 1, most)
        if failures == ATTEMPTS:
            raise _UnusableError(f"{reason} (after {ATTEMPTS} attempts; {size} bytes are kept)")
        time.sleep(2.0**failures / 2)


def _transfer(url: str, part: Path) -> bool:
    """One attempt, continuing `part`; True if the server sent all of the file."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "robustvae"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        answer: HTTPResponse = urlopen(Request(url, headers=headers), timeout=_timeout())
    except HTTPError as error:
        if start and error.code == 416:  # nothing left to send: the checksum decides
            return False
        raise
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise _UnusableError("an HTML page in place of the file (used-up quota, or a login)")
        start = start if answer.status == 206 else 0
        length = answer.headers.get("Content-Length")
        total = int(length) >> 20 if length else None
        with part.open("ab" if start else "wb") as file:
            for _ in progress.track(_mebibytes(answer, file), part.stem, total, "MiB"):
                pass
    size = part.stat().st_size
    if length and size < start + int(length):
        raise OSError(f"broken off after {size} of {start + int(length)} bytes")
    return start == 0


def _mebibytes(answer: HTTPResponse, file: IO[bytes]) -> Iterator[None]:
    """Copy, in pieces small enough that a stall loses little, and yield once per MiB."""
    size = 0
    while block := answer.read(1 << 16):
        file.write(block)
        size += len(block)
        if size % (1 << 20) == 0:
            yield


def _timeout() -> float:
    text = os.environ.get("ROBUSTVAE_TIMEOUT", "30")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(f"ROBUSTVAE_TIMEOUT: must be a number of seconds > 0, got {text!r}")
    return seconds


def check_name(name: str, archive: Path) -> None:
    """Refuse a path in an archive that leads out of the folder it is unpacked into."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name:
        raise UserError(
            f"{archive}: refused: {name!r} in it leads out of its folder; "
            "delete it and get the archive from its publisher"
        )


def unpack_tar(archive: Path, names: Iterable[str], folder: Path) -> None:
    """Write the files `names` of a tar archive into `folder`, flat."""
    missing = set(names)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                check_name(member.name, archive)
                wanted = member.name in missing and member.isfile()
                if wanted and (content := tar.extractfile(member)):
                    with files.replace(folder / PurePosixPath(member.name).name) as temporary:
                        temporary.write_bytes(content.read())
                    missing.remove(member.name)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{archive}: damaged ({error}); delete it and run again") from error
    if missing:
        raise UserError(f"{archive}: {', '.join(sorted(missing))} missing; not the right archive?")


def open_zip(archive: Path) -> zipfile.ZipFile:
    """A zip archive for reading, every path in it checked."""
    try:
        opened = zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive}: damaged ({error}); delete it and run again") from error
    for name in opened.namelist():
        check_name(name, archive)
    return opened
