"""Reconstruct images: decoder means at the posterior means, or draws from the likelihood there.

Writes reconstructions.npy (uint8 [N, C, H, W]), reconstructions.csv (mse and SSIM per image) and
side-by-side.png (the first images above their reconstructions); for picture files also the pair of
each as pictures/NUMBER-NAME.png.

Example: python -m robustvae reconstruct test:0:16 --model pretrained/mnist
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from robustvae import files, metrics, seeding
from robustvae.api.images import in_unit
from robustvae.cli import use
from robustvae.figures.pictures import as_bytes
from robustvae.progress import track
from robustvae.robustness.bounds import slices


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """IMAGES and --sample."""
    use.images(parser, "images", nargs="+")
    parser.add_argument("--sample", action="store_true", help="draw pixels from the likelihood")
    use.options(parser, "reconstruct")


def run(args: argparse.Namespace) -> None:
    """Batch by batch, so that only bytes are kept."""
    vae = use.open_model(args)
    found = use.read(vae, args, args.images)
    result, columns = np.empty((len(found), *vae.shape), np.uint8), []
    for where in track(slices(len(found), args.batch_size), "reconstructing", unit="batch"):
        x, seed = found[where], seeding.seed(args.seed, where.start)
        x_hat = vae.reconstruct(x, args.sample, seed)
        pair = torch.from_numpy(in_unit(x.pixels)), torch.from_numpy(x_hat)
        columns.append(torch.stack([metrics.mse(*pair), metrics.ssim(*pair)], 1).numpy())
        result[where] = as_bytes(x_hat)
    values = np.concatenate(columns)
    files.save_npy(args.out / "reconstructions.npy", result)
    rows = ((name, *row) for name, row in zip(found.names, values, strict=True))
    use.write_table(args.out / "reconstructions.csv", ["image", "mse", "ssim"], rows)
    mse, ssim = values.mean(0)
    tiles = np.stack([in_unit(found.pixels[: use.SHOWN]), in_unit(result[: use.SHOWN])])
    use.write_sheet(
        args.out / "side-by-side.png", tiles, ["image", "reconstruction"], "Reconstructions",
        f"{'drawn from the likelihood' if args.sample else 'mean images'}; mse {mse:.4g}",
    )  # fmt: skip
    for i, name in enumerate(found.names if found.pictures else ()):
        pair_of = np.stack([in_unit(found.pixels[i]), in_unit(result[i])])[None]
        use.write_picture(args.out / "pictures" / f"{i}-{Path(name).stem}.png", pair_of)
    print(f"{len(found)} images: mse {mse:.5g} per pixel, SSIM {ssim:.4g}; {args.out}")
