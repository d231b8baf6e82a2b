"""Folders of work under way, held by locks, so that what a kill leaves can be told and removed."""

import fcntl
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def held(room: Path, wait: bool = True) -> Iterator[int]:
    """Lock `room` for this process and those it hands the descriptor to, until all are gone."""
    with room.with_name(f"{room.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield file.fileno()


def tidy(scratch: str, spared: Sequence[str] = ()) -> None:
    """Remove folders that no running task holds, as a killed one leaves them."""
    for room in Path(scratch).expanduser().glob("[!.]*/"):
        if room.name not in spared:
            with suppress(BlockingIOError), held(room, wait=False):
                shutil.rmtree(room, ignore_errors=True)
