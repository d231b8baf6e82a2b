"""Your own images: train/ val/ test/ sub-folders, or one folder that is split."""

from pathlib import Path

import numpy as np

from robustvae.data.downloads import Library
from robustvae.data.pictures import Files, Pictures
from robustvae.data.prepared import SPLITS
from robustvae.errors import UserError
from robustvae.runtime import files, progress

MANIFEST = "manifest.json"


def download(raw: Path, root: Path, library: Library) -> None:
    """Write down which files there are; the pictures stay where they are."""
    if not root.is_dir():
        raise UserError(f"data.root: no such folder: {root}; put your images there or name another")
    found = (path for path in root.rglob("*") if _wanted(path, root))
    names = sorted(path.relative_to(root).as_posix() for path in found)
    if any(name.startswith("train/") for name in names):
        names = [name for name in names if name.partition("/")[0] in SPLITS]
    if not names:
        raise UserError(f"data.root: no files in {root}; put your images there or name another")
    manifest = [
        {"path": name, "size": (root / name).stat().st_size, "sha256": files.sha256(root / name)}
        for name in progress.track(names, "reading the folder", total=len(names), unit="file")
    ]
    files.write_json(raw / MANIFEST, manifest)


def read(raw: Path, root: Path) -> Pictures:
    """The manifest's files; a picture's class is its folder's path below the split or the root."""
    names = [entry["path"] for entry in files.read_json(raw / MANIFEST)]
    own = [name.partition("/")[0] for name in names]
    if "train" not in own:
        splits, folders = {"train": np.arange(len(names))}, names
    else:
        present = [split for split in SPLITS if split in own]
        splits = {s: np.flatnonzero([o == s for o in own]) for s in present}
        folders = [name.partition("/")[2] for name in names]
    found = [folder.rpartition("/")[0] for folder in folders]
    classes = sorted(set(found) - {""})
    number = {name: i for i, name in enumerate(classes)} | {"": -1}
    labels = np.array([number[name] for name in found], dtype=np.int64)
    return Pictures(Files(root, names), splits, labels, classes=classes or None)


def _wanted(path: Path, root: Path) -> bool:
    """Every file but hidden ones and a README.md that explains the folder."""
    parts = path.relative_to(root).parts
    hidden = any(part.startswith(".") for part in parts)
    return path.is_file() and not hidden and parts != ("README.md",)
