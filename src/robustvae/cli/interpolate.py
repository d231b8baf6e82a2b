"""Interpolate between two images: equal steps from the latents of one to those of the other.

Writes interpolation.npy (uint8 [steps, C, H, W]) and interpolation.png. It starts and ends at the
reconstructions of A and B; of vq models the codewords are mixed.

Example: python -m robustvae interpolate test:0 test:1 --steps 9 --model pretrained/mnist
"""

import argparse

import numpy as np

from robustvae import files
from robustvae.api.images import in_unit
from robustvae.cli import use
from robustvae.figures.pictures import as_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A, B and --steps."""
    use.images(parser, "a", "b", metavar="IMAGE", help="a picture, or one image such as test:0")
    parser.add_argument("--steps", metavar="N", type=use.positive, default=9, help="(9)")
    use.options(parser, "interpolate")


def run(args: argparse.Namespace) -> None:
    """Decode the steps and write them."""
    vae = use.open_model(args)
    a, b = (use.read_one(vae, args, source) for source in (args.a, args.b))
    x = vae.interpolate(a, b, args.steps)
    files.save_npy(args.out / "interpolation.npy", as_bytes(x[0]))
    start, end = (in_unit(image.pixels)[None] for image in (a, b))
    use.write_sheet(
        args.out / "interpolation.png", np.concatenate([start, x, end], 1), [""], "Interpolation",
        f"first and last: the images; between them {args.steps} equal steps of z",
    )  # fmt: skip
    print(f"{args.steps} steps from {args.a} to {args.b}; {args.out}")
