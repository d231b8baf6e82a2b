"""Pictures as a data source holds them, and how one becomes a square uint8 array."""

import dataclasses
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps

from robustvae.data import downloads
from robustvae.errors import UserError

# Triangle filter, widened by the reduction (antialiased): what torchvision's Resize does.
FILTER = Image.Resampling.BILINEAR
# What Pillow and zipfile raise for a file that is no image, or a damaged one.
BROKEN = (
    OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, zipfile.BadZipFile,
    Image.DecompressionBombError,
)  # fmt: skip


class Reader(Protocol):
    """Gives picture i; goes to worker processes, so it can be pickled and opens its files there."""

    def image(self, i: int) -> Image.Image:
        """Open picture i; it may be decoded later."""

    def name(self, i: int) -> str:
        """What to call picture i in a message."""


@dataclasses.dataclass(frozen=True)
class Pictures:
    """A data source: pictures, the splits it comes with (train, perhaps val and test), labels."""

    reader: Reader
    splits: dict[str, np.ndarray]  # positions, in order
    labels: np.ndarray  # int64 [N], or [N, A] attributes; -1: unlabelled
    classes: list[str] | None = None
    attributes: list[str] | None = None
    crop: int | None = None  # side of the central square customarily taken; None: the shorter side
    enlarged: bool = False  # by the source itself


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Pictures that are in memory, uint8 [N, C, H, W]."""

    array: np.ndarray

    def image(self, i: int) -> Image.Image:
        """Picture i."""
        x = self.array[i]
        return Image.fromarray(x[0] if len(x) == 1 else np.moveaxis(x, 0, -1))

    def name(self, i: int) -> str:
        """Its position."""
        return f"picture {i}"


@dataclasses.dataclass(frozen=True)
class Files:
    """Picture files below a folder."""

    folder: Path
    names: list[str]

    def image(self, i: int) -> Image.Image:
        """Open file i."""
        return Image.open(self.folder / self.names[i])

    def name(self, i: int) -> str:
        """Its path."""
        return str(self.folder / self.names[i])


@dataclasses.dataclass
class Zipped:
    """Picture files in a zip archive, which every process opens for itself."""

    archive: Path
    names: list[str]
    opened: zipfile.ZipFile | None = None

    def image(self, i: int) -> Image.Image:
        """Open member i."""
        if self.opened is None:
            self.opened = downloads.open_zip(self.archive)
        return Image.open(self.opened.open(self.names[i]))

    def name(self, i: int) -> str:
        """Its path in the archive."""
        return f"{self.archive}: {self.names[i]}"


@dataclasses.dataclass(frozen=True)
class Geometry:
    """What every picture is brought to: a central square of side `crop`, resized to side x side."""

    side: int
    channels: int  # 1: ITU-R 601 luma; 3: RGB
    crop: int | None  # None: the shorter side

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        return self.channels, self.side, self.side

    def bring(self, image: Image.Image, name: str) -> np.ndarray:
        """A picture as uint8 [C, side, side]: turned as its camera says, transparency on white."""
        image = _flat(ImageOps.exif_transpose(image)).convert("L" if self.channels == 1 else "RGB")
        crop = self.crop or min(image.size)
        if crop > min(image.size):
            raise UserError(
                f"preprocess.crop: {crop} is more than {name} has, {image.width} x {image.height} "
                "pixels; give a smaller one, or auto"
            )
        left, top = (image.width - crop) // 2, (image.height - crop) // 2
        image = image.crop((left, top, left + crop, top + crop))
        if crop != self.side:
            image = image.resize((self.side, self.side), FILTER)
        return np.moveaxis(np.atleast_3d(np.asarray(image)), -1, 0)


def _flat(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):  # 16-bit grey, which Pillow would clip at 255
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image
