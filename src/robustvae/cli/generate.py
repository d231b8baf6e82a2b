"""Generate new images: mean images of latents drawn from the model's own law.

Writes samples.npy (uint8 [N, C, H, W]) and a picture each, or with --grid all in grid.png. The law
is the prior; for t3 models p*, where posteriors cost nothing; for vq models independent codes,
uniform or as often as training used them. The output says which.

Example: python -m robustvae generate --n 64 --grid --model pretrained/mnist
"""

import argparse
import math

import numpy as np

from robustvae import files
from robustvae.cli import use
from robustvae.figures.pictures import as_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many, from what, and shown how."""
    add = parser.add_argument
    add("--n", metavar="N", type=use.positive, default=64, help="how many (64)")
    add("--grid", action="store_true", help="one picture of all")
    text = "factor of the law's scale, > 0; for codes the shares are raised to 1/T (1)"
    add("--temperature", metavar="T", type=float, default=1.0, help=text)
    text = "vq: equally likely codes, or those that training used (uniform)"
    add("--codes", choices=("uniform", "empirical"), default="uniform", help=text)
    use.options(parser, "generate")


def run(args: argparse.Namespace) -> None:
    """Draw, decode, write."""
    vae = use.open_model(args)
    x = vae.generate(args.n, args.temperature, args.codes, args.seed)
    files.save_npy(args.out / "samples.npy", as_bytes(x))
    if args.grid:
        columns = math.isqrt(args.n - 1) + 1
        blank = np.ones((-args.n % columns, *vae.shape), np.float32)
        tiles = np.concatenate([x, blank]).reshape(-1, columns, *vae.shape)
        use.write_picture(args.out / "grid.png", tiles)
    else:
        for i, image in enumerate(x):
            use.write_picture(args.out / "pictures" / f"{i:04}.png", image[None, None])
    print(f"{args.n} images, {vae.law(args.temperature, args.codes)}; {args.out}")
