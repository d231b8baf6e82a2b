"""DVC's file of who reads and writes what, mended where a kill has cut it off.

A process killed while it writes `.dvc/tmp/rwlock` leaves it empty, and every later `dvc repro`
fails with "JSON structure is corrupted". `python -m robustvae.experiments.rwlock` mends that.
"""

import json
from pathlib import Path

from filelock import FileLock, Timeout

from robustvae.runtime.progress import say


def mend(project: Path = Path()) -> bool:
    """Remove an unreadable file that no living process is writing; was there one?"""
    path = project / ".dvc" / "tmp" / "rwlock"
    if not path.is_file():
        return False
    try:
        with FileLock(path.with_name("rwlock.lock"), timeout=0):  # as DVC while it writes
            try:
                json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                path.unlink()
                say(f"{path}: cut off by a kill, and held by no living process: removed")
                return True
    except Timeout:
        pass
    return False


if __name__ == "__main__":
    mend()
