"""CelebA: 202,599 aligned faces, 178x218, with 40 attributes and an official partition."""

import dataclasses
import zipfile
from pathlib import Path

import numpy as np

from robustvae.data.downloads import Library, Source
from robustvae.data.pictures import Pictures, Zipped
from robustvae.data.prepared import SPLITS
from robustvae.errors import UserError
from robustvae.runtime import files, progress

CROP = 148  # as in most of the literature: face without background
PAGE = "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
DRIVE = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"


@dataclasses.dataclass(frozen=True)
class CelebA:
    """The three files that are needed; data/raw keeps the pictures in their archive."""

    pictures: Source
    attributes: Source
    partition: Source

    def download(self, raw: Path, root: Path, library: Library) -> None:
        """Fetch the three; pack the pictures where a mirror folder holds them unpacked."""
        try:
            partition = library.deliver(self.partition, raw)
            library.deliver(self.attributes, raw)
            if tree := self._unpacked(library):
                _pack(tree, _names(partition), raw / "img_align_celeba.zip")
            else:
                library.deliver(self.pictures, raw)
        except UserError as error:
            wanted = [Path(s.path).name for s in (self.pictures, self.attributes, self.partition)]
            raise UserError(
                f"{error}. CelebA, when Google Drive refuses: get {', '.join(wanted)} from {PAGE} "
                f"and put them into {library.cache / 'celeba'}"
            ) from error

    def read(self, raw: Path, root: Path) -> Pictures:
        """Official partition, validation included; attributes as 0 and 1."""
        names = _names(raw / "list_eval_partition.txt")
        lines = (raw / "list_attr_celeba.txt").read_text().splitlines()
        attributes, rows = lines[1].split(), lines[2:]
        labels = np.stack([np.array(row.split()[1:], dtype=np.int64) for row in rows]) > 0
        if [row.split(maxsplit=1)[0] for row in rows] != list(names):
            raise UserError(f"{raw}: the attributes and the partition do not name the same files")
        part = np.array(list(names.values()))
        return Pictures(
            Zipped(raw / "img_align_celeba.zip", [f"img_align_celeba/{name}" for name in names]),
            {name: np.flatnonzero(part == i) for i, name in enumerate(SPLITS)},
            labels.astype(np.int64),
            attributes=attributes,
            crop=CROP,
        )

    def _unpacked(self, library: Library) -> Path | None:
        zipped = self.pictures.path
        if (library.cache / zipped).exists():
            return None
        for folder in (mirror / zipped for mirror in library.mirrors if isinstance(mirror, Path)):
            if not folder.exists() and folder.with_suffix("").is_dir():
                return folder.with_suffix("")
        return None


def _names(partition: Path) -> dict[str, int]:
    """File -> 0, 1, 2 for train, val, test."""
    rows = (line.split() for line in partition.read_text().splitlines())
    return {name: int(part) for name, part in rows}


def _pack(tree: Path, names: dict[str, int], archive: Path) -> None:
    """A zip of the unpacked pictures, stored without dates."""
    missing = next((name for name in names if not (tree / name).is_file()), None)
    if missing:
        raise UserError(f"{tree / missing}: missing, though list_eval_partition.txt names it")
    with files.replace(archive) as temporary, zipfile.ZipFile(temporary, "w") as packed:
        for name in progress.track(names, "packing", total=len(names), unit="image"):
            entry = zipfile.ZipInfo(f"{tree.name}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
            packed.writestr(entry, (tree / name).read_bytes())


FILES = (
    ("img_align_celeba.zip", "00d2c5bc6d35e252742224ab0c1e8fcb", "0B7EVK8r0v71pZjFTYXZWM3FlRnM"),
    ("list_attr_celeba.txt", "75e246fa4810816ffd6ee81facbd244c", "0B7EVK8r0v71pblRyaVFSWGxPY0U"),
    ("list_eval_partition.txt", "d32c9cbf5e040fd4025c592c306e6668", "0B7EVK8r0v71pY0NSMzRuSXJEVkk"),
)
CELEBA = CelebA(
    *(Source(f"celeba/{name}", f"md5:{md5}", (DRIVE.format(key),)) for name, md5, key in FILES)
)
