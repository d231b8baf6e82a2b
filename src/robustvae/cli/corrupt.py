"""Corrupt your own images as MNIST-C does.

IMAGES is a .npy file of uint8 images [N, H, W], [N, H, W, 1 or 3] or [N, 1 or 3, H, W], or a
folder of pictures of one size, at least 8 pixels a side. Each corruption is written in the input's
own shape: DIR/NAME.npy, or a folder DIR/NAME of .png pictures; NAME-SEVERITY where several
severities are asked for. The same seed gives the same pictures on every machine of one kind.

Examples: python -m robustvae corrupt images.npy --out corrupted
          python -m robustvae corrupt photos --out corrupted --names fog spatter --severity 1 3 5
"""

import argparse
import itertools
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from robustvae import corruptions
from robustvae.cli import natural
from robustvae.corruptions import CORRUPTIONS, FIFTEEN
from robustvae.errors import UserError, did_you_mean
from robustvae.runtime import files
from robustvae.runtime.progress import track

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
GREY = {"1", "L", "LA", "La"}
SEVERITIES = "one or several of 0 (clean) .. 5, or default: the one MNIST-C has (default)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """IMAGES and --out are needed, unless it is --list."""
    add = parser.add_argument
    add("images", metavar="IMAGES", nargs="?", help=".npy file or folder of pictures")
    add("--out", metavar="DIR", help="folder to write to")
    add("--names", metavar="NAME", nargs="+", default=list(FIFTEEN), help="default: all of MNIST-C")
    add("--severity", metavar="S", nargs="+", default=["default"], help=SEVERITIES)
    add("--seed", type=natural, default=0, help="of the random draws (default: 0)")
    add("--list", action="store_true", help="print the table of corruptions")


def run(args: argparse.Namespace) -> None:
    """Print the table, or write every corruption at every severity."""
    if args.list:
        print(table())
        return
    if args.images is None or args.out is None:
        raise UserError("corrupt: needs IMAGES and --out DIR, or --list")
    source, out = Path(args.images), Path(args.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out: {out} is a file; name a folder")
    write = write_pictures if source.is_dir() else write_array
    write(source, out, sets(args.names, args.severity), args.seed)


def table() -> str:
    """Name, group, default severity and the parameters at severities 1 to 5."""
    lines = [f"{'name':18} {'group':12} default  parameters at severities 1 .. 5"]
    for name, entry in CORRUPTIONS.items():
        extra = "" if name in FIFTEEN else "  (not in MNIST-C's fifteen)"
        values = " ".join(_short(p) for p in entry.parameters)
        lines.append(f"{name:18} {entry.group:12} {entry.default:7}  {values}{extra}")
    return "\n".join(lines)


def _short(parameter: Any) -> str:
    if not isinstance(parameter, tuple):
        return f"{parameter:g}"
    values = [f"{p:g}" for p in parameter]
    return f"({','.join(values if len(values) < 8 else [values[0], '..', values[-1]])})"


def sets(names: Sequence[str], severities: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Label of the output -> name and severity."""
    for name in names:
        if name not in CORRUPTIONS:
            hint = did_you_mean(name, CORRUPTIONS)
            raise UserError(f"--names: unknown {name!r}{hint}, one of {', '.join(CORRUPTIONS)}")
    for severity in severities:
        if severity not in ("default", "0", "1", "2", "3", "4", "5"):
            raise UserError(f"--severity: must be default or 0 .. 5, got {severity!r}")
    found = [(n, corruptions.resolve(n, s)) for n, s in itertools.product(names, severities)]
    return {f"{n}-{s}" if len(severities) > 1 else n: (n, s) for n, s in found}


def layout(shape: tuple[int, ...], source: Path) -> str:
    """NHW, NHWC or NCHW: as no side is below 8, an axis of 1 or 3 can only be the channels."""
    for name in (name for name in corruptions.LAYOUTS if len(name) == len(shape)):
        size = {"C": 1, **dict(zip(name, shape, strict=True))}
        if size["C"] in (1, 3) and min(size["H"], size["W"]) >= corruptions.SMALLEST:
            return name
    raise UserError(
        f"{source}: images must be [N, H, W], [N, H, W, 1 or 3] or [N, 1 or 3, H, W] with sides of "
        f"{corruptions.SMALLEST} pixels or more, got {list(shape)}"
    )


def write_array(source: Path, out: Path, wanted: dict[str, tuple[str, int]], seed: int) -> None:
    """Corrupt a .npy file; images are read and written through memory maps."""
    try:
        images = np.load(source, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{source}: no .npy file or folder of pictures ({error})") from error
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        kind = getattr(images, "dtype", "an archive of arrays")
        raise UserError(f"{source}: must hold uint8 images (0 .. 255) in one array, got {kind}")
    axes = layout(images.shape, source)
    if not len(images):
        raise UserError(f"{source}: holds no image ({list(images.shape)}); name a file with some")
    for label, (name, severity) in wanted.items():
        target = out / f"{label}.npy"
        if target.resolve() == source.resolve():
            raise UserError(f"--out: {target} is the input itself; name another folder")
        with files.replace(target) as temporary:
            written = np.lib.format.open_memmap(temporary, "w+", np.uint8, images.shape)
            chunks = corruptions.stream(images, written, name, severity, seed, layout=axes)
            _finish(chunks, label, len(images))
            written.flush()


def write_pictures(source: Path, out: Path, wanted: dict[str, tuple[str, int]], seed: int) -> None:
    """Corrupt a folder of pictures, in the order of their paths; .png in the same sub-folders."""
    if out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"--out: {out} lies in the input folder {source}; name another folder")
    paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
    if not paths:
        raise UserError(f"{source}: no pictures inside; known are {', '.join(sorted(PICTURES))}")
    names = [path.relative_to(source).with_suffix(".png") for path in paths]
    twice = [path for path, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{source}: two pictures would both be written as {twice[0]}; rename one")
    images = read_pictures(paths)
    axes = layout(images.shape, source)
    for label, (name, severity) in wanted.items():
        written = np.empty_like(images)
        chunks = corruptions.stream(images, written, name, severity, seed, layout=axes)
        _finish(chunks, label, len(images))
        for path, image in zip(names, written, strict=True):
            target = out / label / path
            with files.writing(target):
                Image.fromarray(image).save(target)


def read_pictures(paths: Sequence[Path]) -> NDArray[np.uint8]:
    """`[N, H, W]` when all are grey, else `[N, H, W, 3]`; turned as their cameras say."""
    pictures: list[Image.Image] = []
    for path in paths:
        try:
            picture = ImageOps.exif_transpose(Image.open(path))
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{path}: no picture that can be read ({error}); remove it") from error
        if picture.mode[0] in "IF":
            raise UserError(f"{path}: has more than 8 bits a channel ({picture.mode}); convert it")
        if pictures and picture.size != pictures[0].size:
            raise UserError(
                f"{path}: is {picture.width} x {picture.height}, but {paths[0]} is "
                f"{pictures[0].width} x {pictures[0].height}; the pictures must be of one size"
            )
        pictures.append(picture)
    mode = "L" if all(picture.mode in GREY for picture in pictures) else "RGB"
    return np.stack([np.asarray(picture.convert(mode)) for picture in pictures])


def _finish(chunks: Iterator[int], label: str, total: int) -> None:
    images = (i for done in chunks for i in range(done))
    deque(track(images, label, total=total, unit="image"), maxlen=0)
