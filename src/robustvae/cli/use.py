"""What the verbs that use a trained model share: options, reading images, writing results."""

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robustvae import files
from robustvae.api import VAE, Images, load
from robustvae.errors import UserError
from robustvae.figures import pictures, style

SHOWN = 16  # images on a sheet, at most
DPI = 120


def options(parser: argparse.ArgumentParser, out: str) -> None:
    """Options of every verb; results go to `out` unless --out says otherwise."""
    add = parser.add_argument
    add("--model", metavar="DIR", default="models", help="model folder (models)")
    add("--out", metavar="DIR", type=Path, default=f"out/{out}", help=f"results (out/{out})")
    add("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    add("--seed", metavar="N", type=natural, default=0, help="of everything drawn (0)")
    add("--batch-size", metavar="N", type=positive, default=256, help="images at a time (256)")
    add("--data", metavar="DIR", default="data/prepared", help="prepared data (data/prepared)")


def images(parser: argparse.ArgumentParser, *names: str, **how: Any) -> None:
    """Arguments that name images, with --resize."""
    what = "pictures, a folder, a .npy file, or test, val, train; test:7 one, test:0:16 a range"
    for name in names:
        parser.add_argument(name, **{"help": what, "metavar": "IMAGES", **how})
    parser.add_argument("--resize", action="store_true", help="crop to squares and resize")


def open_model(args: argparse.Namespace) -> VAE:
    """The model that the options name."""
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out: {args.out} is a file; name a folder")
    return load(args.model, args.device, args.batch_size, args.data)


def read(vae: VAE, args: argparse.Namespace, sources: Sequence[str]) -> Images:
    """The images of an argument, as the model takes them."""
    found = vae.images(sources, args.resize, args.seed)
    if vae.binarisation != "none":
        say(f"note: images are made black and white ({vae.binarisation}) as in training")
    return found


def read_one(vae: VAE, args: argparse.Namespace, source: str) -> Images:
    """An argument that must name one image."""
    found = read(vae, args, [source])
    if len(found) != 1:
        raise UserError(f"{source}: {len(found)} images, one is wanted; name one, as in test:3")
    return found


def say(text: str) -> None:
    """A remark, on standard error."""
    print(text, file=sys.stderr)


def write_table(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV file; floats with six significant digits."""
    with files.replace(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        for row in rows:
            writer.writerow([f"{v:.6g}" if isinstance(v, float | np.floating) else v for v in row])


def write_sheet(path: Path, tiles: NDArray[Any], *texts: Any, **more: Any) -> None:
    """Rows of images in [0, 1], [R, K, C, H, W], with the texts of figures.pictures.rows."""
    with files.replace(path) as temporary:
        style.save(pictures.rows(pictures.as_bytes(tiles), *texts, **more), temporary, DPI)


def write_picture(path: Path, tiles: NDArray[Any]) -> None:
    """Images [R, K, C, H, W] as one picture, pixel by pixel."""
    with files.replace(path) as temporary:
        Image.fromarray(pictures.mosaic(pictures.as_bytes(tiles))).save(temporary)


def natural(text: str) -> int:
    """An integer >= 0."""
    return _integer(text, 0)


def positive(text: str) -> int:
    """An integer >= 1."""
    return _integer(text, 1)


def _integer(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be an integer >= {least}, got {text!r}")
    return int(text)
