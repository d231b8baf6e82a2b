"""Files that appear whole or not at all, with the same bytes for the same content."""

import contextlib
import errno
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robustvae.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

FULL = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "disk quota exceeded",
    errno.EFBIG: "larger than a file may be here (ulimit -f)",
}


@contextlib.contextmanager
def replace(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, same suffix; moved there on success, removed on failure."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        with writing(path, temporary):
            yield temporary
            with temporary.open("r+b") as file:  # on the disk before the name says so: a power cut
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # there may be no such place at all
            temporary.unlink()


@contextlib.contextmanager
def writing(path: Path, *also: Path) -> Iterator[None]:
    """Make the folder of `path`; a place that cannot be written to is the user's to change."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in FULL or str(error).endswith(" written"):  # NumPy's, without a number
            raise no_space(path, error) from error
        named = error.filename is not None
        if named and Path(error.filename) not in {path, *also, *path.parents}:
            raise
        if not named and error.errno != errno.EROFS:
            raise
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); make its folder writable, or name "
            "another one"
        ) from error


def no_space(path: Path, error: OSError) -> UserError:
    """What a full disk, and the like, is called everywhere."""
    why = FULL.get(error.errno or errno.ENOSPC, error.strerror)
    return UserError(f"{path}: {why}; make room there and run again")


def write_json(path: Path, obj: Any) -> None:
    """Write `obj` as JSON in the given key order; ValueError for NaN and infinity."""
    text = json.dumps(obj, indent=2, allow_nan=False, ensure_ascii=False)
    with replace(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as JSON ({error}); run the stage that writes it"
        ) from error


def save_npy(path: Path, array: np.ndarray) -> None:
    """Write one array in NumPy's own format."""
    with replace(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def save_npz(path: Path, /, **arrays: np.ndarray) -> None:
    """Write arrays as a plain archive without dates: its bytes depend on the arrays alone."""
    with replace(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def open_npy(path: Path) -> np.memmap:
    """Map an array for reading."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a whole .npy file ({error}); delete it and run the stage that writes it"
        ) from error


def read_csv(path: Path) -> "pd.DataFrame":
    """Read a table that a stage wrote, which has rows and ends in a whole line."""
    import pandas as pd

    try:
        text = path.read_text(encoding="utf-8")
        table = pd.read_csv(StringIO(text))
        if table.empty or not text.endswith("\n"):
            raise ValueError("it is cut off")
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    return table


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read every array of an archive that a stage wrote."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> UserError:
    """What a file is called that a stage wrote and nobody can read any more."""
    why = " ".join((getattr(error, "strerror", None) or str(error)).split())
    return UserError(
        f"{path}: damaged or missing ({why}); run `dvc checkout`, or `dvc repro` to write it anew"
    )


def user_cache() -> Path:
    """The user's, which all copies of a project on a machine share."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "robustvae"


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    return digest(path, "sha256")


def digest(path: Path, algorithm: str) -> str:
    """Checksum of a file by any algorithm of hashlib, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
