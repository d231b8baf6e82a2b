"""Traverse latent dimensions: move one at a time, the others as in an image or at the prior's mean.

Writes traversal.npy (uint8 [dims, steps, C, H, W]) and traversal.png. Without --dims: the ten that
the decoder uses most, measured by encoding generated images.

Example: python -m robustvae traverse --image test:0 --range 3 --model pretrained/mnist
"""

import argparse

import numpy as np

from robustvae import files
from robustvae.cli import use
from robustvae.figures.pictures import as_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Around what, which dimensions, how far."""
    use.images(parser, "--image", metavar="IMAGE", help="a picture, or one such as test:0")
    add = parser.add_argument
    add("--dims", metavar="I,J", type=_dims, help="such as 0,3,5")
    add("--range", metavar="R", type=float, default=3.0, help="-R to R scales of the prior (3)")
    add("--steps", metavar="N", type=use.positive, default=9, help="per dimension (9)")
    use.options(parser, "traverse")


def run(args: argparse.Namespace) -> None:
    """Decode the rows and write them."""
    vae = use.open_model(args)
    centre = None if args.image is None else use.read_one(vae, args, args.image)
    dims = vae.active_dims(10) if args.dims is None else args.dims
    x = vae.traverse(centre, dims, args.range, args.steps)
    files.save_npy(args.out / "traversal.npy", as_bytes(x))
    use.write_sheet(
        args.out / "traversal.png", x, [f"z{d}" for d in dims], "Traversal of the latents",
        f"one dimension at a time, around {args.image or 'the prior mean'}; unit: prior scales",
        columns=[f"{v:.2g}" for v in np.linspace(-args.range, args.range, args.steps)],
    )  # fmt: skip
    print(f"dimensions {', '.join(map(str, dims))} in {args.steps} steps; {args.out}")


def _dims(text: str) -> list[int]:
    return [use.natural(part) for part in text.split(",")]
