"""What lets a training go on after a kill: one file, replaced whole, for one process at a time."""

import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any, Self

import torch
from filelock import FileLock, Timeout

from robustvae.errors import UserError
from robustvae.runtime import files

ROOMS = ("runtime", "params", "corruptions", "data", "models", "training")
FORMAT = "robustvae checkpoint 1"
FRESH = "ROBUSTVAE_FRESH"  # environment: 1 starts anew, whatever is there


def identity(**parts: Any) -> str:
    """Digest of what determines a training: `parts` (plain values), the code, torch's version."""
    text = json.dumps({**parts, "sources": sources(), "torch": torch.__version__}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def sources() -> dict[str, str]:
    """SHA-256 of every file of code that can change a training."""
    package = Path(__file__).parent.parent
    found = (path for room in ROOMS for path in sorted((package / room).rglob("*.py")))
    return {path.relative_to(package).as_posix(): files.sha256(path) for path in found}


class Checkpoint:
    """The state of one training in `cache`/checkpoints/DIGEST; removed where the block succeeds.

    Inside the block it holds a lock, which the system releases however the process dies.
    """

    def __init__(self, cache: Path, digest: str) -> None:
        self.digest = digest
        self.folder = cache / "checkpoints" / digest[:16]
        self.path = self.folder / "last.pt"
        self.failures = cache / "failures"
        self._lock = FileLock(self.folder / "lock", timeout=0)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        owner = self.folder / "pid"
        try:
            self._lock.acquire()
        except Timeout:
            pid = owner.read_text() if owner.exists() else "unknown"
            raise UserError(
                f"{self.folder}: process {pid} is training with these very parameters; "
                f"wait until it ends, or end it with `kill {pid}`, and run again"
            ) from None
        owner.write_text(str(os.getpid()))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            shutil.rmtree(self.folder)
        self._lock.release()

    def save(self, state: dict[str, Any]) -> None:
        """Write tensors and plain values, whole or not at all."""
        with files.replace(self.path) as temporary:
            temporary.write_bytes(pack(state, self.digest))

    def load(self) -> tuple[dict[str, Any] | None, str]:
        """The saved state, or None; and what to say about it, '' where there is nothing."""
        if not self.path.exists():
            return None, ""
        if os.environ.get(FRESH) == "1":
            return None, f"{FRESH}=1: {self.path} is not used, training starts anew"
        try:
            return unpack(self.path.read_bytes(), self.digest), f"training goes on from {self.path}"
        except ValueError as error:
            return None, f"{self.path}: {error}; not used, training starts anew"


def pack(state: dict[str, Any], digest: str) -> bytes:
    """One line of JSON (format, owner's digest, checksum), then what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    body = buffer.getvalue()
    head = {"format": FORMAT, "digest": digest, "sha256": hashlib.sha256(body).hexdigest()}
    return json.dumps(head).encode() + b"\n" + body


def unpack(content: bytes, digest: str | None = None) -> dict[str, Any]:
    """The state; nothing in it is executed. ValueError says what is wrong with the content."""
    line, _, body = content.partition(b"\n")
    try:
        head = json.loads(line)
    except ValueError:
        head = None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ValueError("not a checkpoint of this version")
    if digest is not None and head["digest"] != digest:
        raise ValueError("checkpoint of another training (other parameters, data or code)")
    if head["sha256"] != hashlib.sha256(body).hexdigest():
        raise ValueError("truncated or damaged checkpoint (checksum differs)")
    state: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    return state
