"""Encode images: posterior means and log-variances, or codes.

Writes latents.npz and latents.csv: mu and logvar [N, Z] (for Student-t models logvar is the log of
the squared scale, not of the variance, and df stands beside it); for vq models codes [N, h, w].

Example: python -m robustvae encode test --model pretrained/mnist --out out/latents
"""

import argparse

import numpy as np

from robustvae import files
from robustvae.cli import use


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """IMAGES."""
    use.images(parser, "images", nargs="+")
    use.options(parser, "encode")


def run(args: argparse.Namespace) -> None:
    """Encode and write."""
    vae = use.open_model(args)
    found = use.read(vae, args, args.images)
    arrays = vae.encode(found)
    files.save_npz(args.out / "latents.npz", **arrays)
    tables = {name: a.reshape(len(found), -1) for name, a in arrays.items() if a.ndim}
    head = ["image", *(f"{name}_{i}" for name, a in tables.items() for i in range(a.shape[1]))]
    values = np.concatenate([*tables.values()], axis=1)
    rows = ((name, *row) for name, row in zip(found.names, values, strict=True))
    use.write_table(args.out / "latents.csv", head, rows)
    shapes = ", ".join(f"{name} {list(a.shape)}" for name, a in arrays.items() if a.ndim)
    print(f"{len(found)} images: {shapes}; {args.out}")
