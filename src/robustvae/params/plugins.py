"""Plug-ins: files of the project's plugins/, and installed packages that say they are some."""

import hashlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from robustvae.errors import UserError

GROUP = "robustvae.plugins"
SESSION = "this session"


class Origin(NamedTuple):
    """Where a part comes from."""

    text: str
    room: str | None = None  # the only one whose kinds of parts a file may register


_running: ContextVar[Origin | None] = ContextVar("running", default=None)
_done: set[Path | str] = set()  # what has been run


def bring(room: str) -> None:
    """Run the files of plugins/ROOM and the entry points that have not been run; UserError if not.

    The project is the nearest folder from here upwards with plugins/ beside a params.yaml.
    """
    here = Path.cwd()
    projects = (p for p in (here, *here.parents) if (p / "params.yaml").is_file())
    if project := next((p for p in projects if (p / "plugins").is_dir()), None):
        _bring_files(project, room)
    for point in entry_points(group=GROUP):
        if point.value not in _done:
            of = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
            with _as(Origin(of)):
                point.load()
            _done.add(point.value)


def _bring_files(project: Path, room: str) -> None:
    if stray := next((project / "plugins").glob("*.py"), None):
        raise UserError(
            f"plugins/{stray.name}: belongs into the folder of its room, plugins/{room} or another"
        )
    for path in sorted((project / "plugins" / room).glob("[!_]*.py")):
        if path not in _done:
            with _as(Origin(path.relative_to(project).as_posix(), room), path):
                _run(path, f"robustvae_plugin_{room}_{path.stem}")
            _done.add(path)


def _run(path: Path, name: str) -> None:
    """As an import would, without leaving compiled files where DVC looks."""
    sys.modules[name] = module = ModuleType(name)
    module.__file__ = str(path)
    exec(compile(path.read_bytes(), path, "exec"), vars(module))


@contextmanager
def _as(origin: Origin, path: Path | None = None) -> Iterator[None]:
    """What is registered inside comes from there; any failure is one line with file and line."""
    token = _running.set(origin)
    try:
        yield
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        file, line = next(
            ((f.filename, f.lineno) for f in reversed(frames) if f.filename == str(path)),
            (frames[-1].filename, frames[-1].lineno),
        )
        if isinstance(error, SyntaxError) and error.filename:
            file, line = error.filename, error.lineno
        where = origin.text if file == str(path) else f"{origin.text}: {file}"
        what = str(error)
        if not isinstance(error, UserError):
            why = error.msg if isinstance(error, SyntaxError) else error
            said = " ".join(str(why).split())
            what = f"{type(error).__name__}: {said}; correct it, or remove the plug-in"
        raise UserError(f"{where}, line {line}: {what}") from None
    finally:
        _running.reset(token)


def origin(code: Any) -> Origin:
    """Where a part that is being registered comes from."""
    if (running := _running.get()) is not None:
        return running
    file = _file(code)
    return Origin(SESSION if file is None else str(file))


def digest(code: Any) -> str | None:
    """SHA-256 of the file that a part is defined in, or of its text where there is none."""
    if file := _file(code):
        return hashlib.sha256(file.read_bytes()).hexdigest()
    try:
        return hashlib.sha256(inspect.getsource(code).encode()).hexdigest()
    except (OSError, TypeError):
        return None


def _file(code: Any) -> Path | None:
    file = getattr(sys.modules.get(code.__module__), "__file__", None)
    return Path(file) if file and Path(file).is_file() else None
