"""Which project files each file needs, read from the import statements."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "robustvae"
FILES = sorted(PACKAGE.rglob("*.py"))
# They cannot change what a stage writes: they check values, which DVC tracks, and speak. What an
# architecture's settings come to is computed in one of them, which counts.
NEUTRAL = ("params", "errors.py", "runtime/progress.py", "runtime/version.py")
COUNTED = {PACKAGE / "params/geometry.py"}


def room(path: Path) -> str:
    """The folder of the package that a file is in, or the name of a file beside the folders."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def direct(path: Path) -> frozenset[Path]:
    """Files of the package that a file imports, wherever in the file; not their packages."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").partition(".")[0] == "robustvae"
        ):
            for alias in node.names:
                found |= {_file(f"{node.module}.{alias.name}") or _file(node.module or "") or path}
        elif isinstance(node, ast.Import):
            found |= {_file(a.name) or path for a in node.names if a.name.startswith("robustvae")}
    return frozenset(found - {path})


def _file(module: str) -> Path | None:
    place = PACKAGE.parent.joinpath(*module.split("."))
    found = (place / "__init__.py", place.with_suffix(".py"))
    return next((path for path in found if path.exists()), None)


def named(path: Path) -> set[Path]:
    """Files that a catalogue names by strings, "robustvae.room.file:part" or the start of one."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())) if path.stem == "catalogue" else ():
        text = node.value if isinstance(node, ast.Constant) else ""
        if isinstance(text, str) and re.fullmatch(r"robustvae(\.\w+)+[.:]?\w*", text):
            place = PACKAGE.parent.joinpath(*text.split(":")[0].split(".")).resolve()
            found |= set(place.glob("*.py")) if place.is_dir() else {place.with_suffix(".py")}
    return found


def closure(path: Path) -> set[Path]:
    """Files that a file needs directly or through others, without those that cannot matter."""
    found: set[Path] = set()
    waiting = set(direct(path))
    while waiting:
        file = waiting.pop()
        if file in found or (neutral(file) and file not in COUNTED):
            continue
        found.add(file)
        packages = {file.with_name("__init__.py"), file.parent.with_name("__init__.py")}
        waiting |= direct(file) | named(file) | {p for p in packages if p.exists()}
    return found


def neutral(path: Path) -> bool:
    """Can it change nothing that is computed: is it of that kind, or only a description?"""
    own = path.relative_to(PACKAGE).as_posix()
    described = path.name == "__init__.py" and len(ast.parse(path.read_text()).body) < 2
    return described or own == "__init__.py" or own.startswith(NEUTRAL)
