"""What the verbs that use a model share: their options, what they read, what they write."""

import argparse
import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robustvae.api.images import Images
from robustvae.api.vae import VAE, load
from robustvae.cli import natural, positive
from robustvae.errors import UserError
from robustvae.reporting.figures import pictures, style
from robustvae.reporting.figures.pictures import as_bytes
from robustvae.runtime import files

DPI = 120


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


def write_table(path: Path, images: Images, columns: Mapping[str, NDArray[Any]]) -> None:
    """A CSV file, a row per image; floats with six significant digits."""
    with files.replace(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", *columns])
        for name, *row in zip(images.names, *columns.values(), strict=True):
            values = [f"{v:.6g}" if isinstance(v, np.floating) else v for v in row]
            writer.writerow([name, *values])


def write_sheet(path: Path, tiles: NDArray[Any], *texts: Any, **more: Any) -> None:
    """Rows of images in [0, 1], [R, K, C, H, W], with the texts of figures.pictures.rows."""
    with files.replace(path) as temporary:
        style.save(pictures.rows(as_bytes(tiles), *texts, **more), temporary, DPI)


def write_picture(path: Path, tiles: NDArray[Any]) -> None:
    """Images [R, K, C, H, W] as one picture, pixel by pixel."""
    with files.replace(path) as temporary:
        Image.fromarray(pictures.mosaic(as_bytes(tiles))).save(temporary)


def write_card(vae: VAE, args: argparse.Namespace) -> None:
    """README.md in --out, where --card asks for it."""
    if args.card:
        with files.replace(args.out / "README.md") as temporary:
            temporary.write_text(vae.card(args.metrics), encoding="utf-8", newline="\n")


Option = tuple[tuple[str, ...], dict[str, Any]]


def option(*names: str, **how: Any) -> Option:
    """What `add_argument` is to be called with."""
    return names, how


def flag(name: str, text: str) -> Option:
    """An option without a value."""
    return option(name, action="store_true", help=text)


def images(name: str, **how: Any) -> Option:
    """An argument that names images."""
    text = "pictures, a folder, a .npy file, or test, val, train; test:7 one, test:0:16 a range"
    return option(name, **{"nargs": "+", "metavar": "IMAGES", "help": text, **how})


class Verb:
    """A function (model, arguments) -> summary as `cli` takes it, its text being the help."""

    def __init__(
        self, function: Callable[[VAE, argparse.Namespace], str | None], *options: Option
    ) -> None:
        self.function, self.options, self.__doc__ = function, options, function.__doc__

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Its own options, then those of every verb; results go to out/VERB by default."""
        add, out = parser.add_argument, f"out/{self.function.__name__}"
        for names, how in self.options:
            add(*names, **how)
        add(
            "--model",
            metavar="DIR",
            default="models",
            help="model folder, or name of one that comes along (models)",
        )
        add("--out", metavar="DIR", type=Path, default=out, help=f"results ({out})")
        add("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
        add("--seed", metavar="N", type=natural, default=0, help="of everything drawn (0)")
        add("--batch-size", metavar="N", type=positive, default=256, help="images at a time (256)")
        add("--data", metavar="DIR", default="data/prepared", help="prepared data (data/prepared)")

    def run(self, args: argparse.Namespace) -> None:
        """Open the model, do the work, say what came of it and where it is."""
        if args.out.exists() and not args.out.is_dir():
            raise UserError(f"--out: {args.out} is a file; name a folder")
        vae = load(args.model, args.device, args.batch_size, args.data)
        if summary := self.function(vae, args):
            print(f"{summary}; {args.out}")
