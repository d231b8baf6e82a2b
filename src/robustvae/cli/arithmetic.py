"""Latent arithmetic: add factors of (mean z of one set of images - mean z of another) to images.

Writes arithmetic.npy (uint8 [N, factors, C, H, W]) and arithmetic.png. The two sets are --plus and
--minus, or with --attribute the prepared training images that have it and those that have not
(CelebA; at most 1,000 of each).

Examples: python -m robustvae arithmetic --plus sevens --minus ones --to test:0
          python -m robustvae arithmetic --attribute Smiling --to me.png --resize --factors 0,1,2
"""

import argparse
import difflib

import numpy as np

from robustvae import files
from robustvae.api import VAE, Images
from robustvae.api.images import in_unit
from robustvae.cli import use
from robustvae.errors import UserError
from robustvae.figures.pictures import as_bytes
from robustvae.prepared import load

ENOUGH = 1000  # images whose mean is taken for an attribute
RANGE_STEPS = 7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two sets or an attribute; what they are applied to."""
    use.images(parser, "--plus", "--minus", "--to", nargs="+")
    parser.add_argument("--attribute", metavar="NAME", help="in place of --plus and --minus")
    text = f"such as 0,0.5,1, or {RANGE_STEPS} steps of a range, =-1..1 below 0 (0..1.5)"
    parser.add_argument("--factors", metavar="F", type=_factors, default="0..1.5", help=text)
    use.options(parser, "arithmetic")


def run(args: argparse.Namespace) -> None:
    """Decode a row of factors per image."""
    given = [bool(args.plus), bool(args.minus)]
    if not args.to or given != [not args.attribute] * 2:
        raise UserError("arithmetic: needs --to, and either --plus and --minus or --attribute")
    vae = use.open_model(args)
    to = use.read(vae, args, args.to)
    if args.attribute:
        plus, minus = with_and_without(vae, args.attribute)
    else:
        plus, minus = (use.read(vae, args, sources) for sources in (args.plus, args.minus))
    x = vae.arithmetic(plus, minus, to, args.factors)
    files.save_npy(args.out / "arithmetic.npy", as_bytes(x))
    tiles = np.concatenate([in_unit(to.pixels)[:, None], x], 1)[: use.SHOWN]
    use.write_sheet(
        args.out / "arithmetic.png", tiles, [""] * len(tiles), "Latent arithmetic",
        f"z + factor × (mean of {len(plus)} images - mean of {len(minus)})"
        + (f", {args.attribute}" if args.attribute else ""),
        columns=["image", *(f"{f:g}" for f in args.factors)],
    )  # fmt: skip
    print(f"{len(to)} images, {len(plus)} plus, {len(minus)} minus; {args.out}")


def with_and_without(vae: VAE, attribute: str) -> tuple[Images, Images]:
    """Training images that have the attribute, and others, spread over the set."""
    train = vae.images("train")
    data = load(vae.data)
    names = data.info["attributes"] or []
    if attribute not in names:
        near = difflib.get_close_matches(attribute, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
        raise UserError(f"--attribute: {data.info['name']} has no {attribute!r}; {hint}")
    has = data.labels["train"][:, names.index(attribute)] > 0
    if has.all() or not has.any():
        raise UserError(f"--attribute: all or none of the training images have {attribute!r}")
    rows = [np.flatnonzero(mask) for mask in (has, ~has)]
    few = [np.unique(np.linspace(0, len(r) - 1, ENOUGH).astype(int)) for r in rows]
    plus, minus = (train.pixels[r[f]] for r, f in zip(rows, few, strict=True))
    return vae.images(plus), vae.images(minus)


def _factors(text: str) -> list[float]:
    low, dots, high = text.partition("..")
    try:
        if dots:
            return [float(v) for v in np.linspace(float(low), float(high), RANGE_STEPS)]
        return [float(part) for part in text.split(",")]
    except ValueError:
        message = f"must be numbers such as 0,0.5,1 or a range 0..1.5, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None
