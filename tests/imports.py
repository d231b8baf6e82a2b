"""Which project files each module and stage needs, read from the import statements."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "robustvae"
# They cannot change what a stage writes: they check values, which DVC tracks, and speak.
NEUTRAL = {"params", "errors", "progress"}


def direct(path: Path) -> set[str]:
    """Top-level modules or packages of robustvae that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "robustvae":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("robustvae."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("robustvae.")}
    return found


def files(module: str) -> list[Path]:
    """The files of a module or package."""
    folder = PACKAGE / module
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{module}.py"]


def closure(path: Path) -> set[str]:
    """Modules that a file needs directly or through others, without the neutral ones."""
    found: set[str] = set()
    waiting = direct(path)
    while waiting:
        module = waiting.pop()
        if module in found or module in NEUTRAL:
            continue
        found.add(module)
        for file in files(module):
            waiting |= direct(file)
    return found


def dep(module: str) -> str:
    """How dvc.yaml names a module: the package's folder, or the file."""
    return f"src/robustvae/{module}" + ("" if (PACKAGE / module).is_dir() else ".py")
