"""The verbs that use a trained model; a function and its options each, in the table at the end."""

import argparse
import difflib
import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from robustvae.api.export import FORMATS
from robustvae.api.images import Images, in_unit
from robustvae.api.vae import VAE
from robustvae.cli import integer, natural, positive, verb
from robustvae.cli.verb import Verb, flag, images, option
from robustvae.data.prepared import load as load_prepared
from robustvae.errors import UserError
from robustvae.reporting.figures.pictures import as_bytes
from robustvae.robustness import metrics
from robustvae.robustness.batches import slices
from robustvae.robustness.bounds import no_elbo
from robustvae.runtime import files, seeding
from robustvae.runtime.progress import track

SHOWN = 16  # images on a sheet, at most
REFERENCE = 1000  # test images that the quantiles of `score` refer to
ENOUGH = 1000  # images whose mean is taken for an attribute
RANGE_STEPS = 7  # factors in a range of `arithmetic`


def reconstruct(vae: VAE, args: argparse.Namespace) -> str:
    """Reconstruct images: decoder means at the posterior means, or draws from the likelihood there.

    Writes reconstructions.npy (uint8 [N, C, H, W]), reconstructions.csv (mse and SSIM per image)
    and side-by-side.png (the first images above their reconstructions); for picture files also the
    pair of each as pictures/NUMBER-NAME.png.

    Example: python -m robustvae reconstruct test:0:16 --model pretrained/mnist
    """
    found = verb.read(vae, args, args.images)
    result, errors = np.empty((len(found), *vae.shape), np.uint8), []
    for where in track(slices(len(found), args.batch_size), "reconstructing", unit="batch"):
        x, seed = found[where], seeding.seed(args.seed, where.start)
        x_hat = vae.reconstruct(x, args.sample, seed)
        pair = torch.from_numpy(in_unit(x.pixels)), torch.from_numpy(x_hat)
        errors.append(torch.stack([metrics.mse(*pair), metrics.ssim(*pair)], 1).numpy())
        result[where] = as_bytes(x_hat)
    values = np.concatenate(errors)
    files.save_npy(args.out / "reconstructions.npy", result)
    columns = dict(zip(("mse", "ssim"), values.T, strict=True))
    verb.write_table(args.out / "reconstructions.csv", found, columns)
    mse, ssim = values.mean(0)
    tiles = np.stack([in_unit(found.pixels[:SHOWN]), in_unit(result[:SHOWN])])
    verb.write_sheet(
        args.out / "side-by-side.png", tiles, ["image", "reconstruction"], "Reconstructions",
        f"{'drawn from the likelihood' if args.sample else 'mean images'}; mse {mse:.4g}",
    )  # fmt: skip
    for i, name in enumerate(found.names if found.pictures else ()):
        pair_of = np.stack([in_unit(found.pixels[i]), in_unit(result[i])])[None]
        verb.write_picture(args.out / "pictures" / f"{i}-{Path(name).stem}.png", pair_of)
    return f"{len(found)} images: mse {mse:.5g} per pixel, SSIM {ssim:.4g}"


def generate(vae: VAE, args: argparse.Namespace) -> str:
    """Generate new images: mean images of latents drawn from the model's own law.

    Writes samples.npy (uint8 [N, C, H, W]) and a picture each, or with --grid all in grid.png. The
    law is the prior; for t3 models p*, where posteriors cost nothing; for vq models independent
    codes, uniform or as often as training used them. With --mixture it is a Gaussian mixture fitted
    to the codes of images, where the prior is not where codes are. The output says which.

    Example: python -m robustvae generate --n 64 --grid --model pretrained/mnist
    """
    mixture = None if args.mixture is None else verb.read(vae, args, args.mixture)
    x = vae.generate(
        args.n, args.temperature, args.codes, args.seed, mixture, args.components
    )  # fmt: skip
    files.save_npy(args.out / "samples.npy", as_bytes(x))
    if args.grid:
        columns = math.isqrt(args.n - 1) + 1
        blank = np.ones((-args.n % columns, *vae.shape), np.float32)
        tiles = np.concatenate([x, blank]).reshape(-1, columns, *vae.shape)
        verb.write_picture(args.out / "grid.png", tiles)
    else:
        for i, image in enumerate(x):
            verb.write_picture(args.out / "pictures" / f"{i:04}.png", image[None, None])
    if mixture is not None:
        fitted = f"a mixture of {args.components} normals fitted to the codes of {len(mixture)}"
        return f"{args.n} images, z from {fitted} images"
    return f"{args.n} images, {vae.law(args.temperature, args.codes)}"


def encode(vae: VAE, args: argparse.Namespace) -> str:
    """Encode images: posterior means and log-variances, or codes.

    Writes latents.npz and latents.csv: mu and logvar [N, Z] (for Student-t models logvar is the log
    of the squared scale, not of the variance, and df stands beside it); for vq models codes
    [N, h, w].

    Example: python -m robustvae encode test --model pretrained/mnist --out out/latents
    """
    found = verb.read(vae, args, args.images)
    arrays = vae.encode(found)
    files.save_npz(args.out / "latents.npz", **arrays)
    arrays = {name: array for name, array in arrays.items() if array.ndim}
    columns = {
        f"{name}_{i}": column
        for name, array in arrays.items()
        for i, column in enumerate(array.reshape(len(found), -1).T)
    }
    verb.write_table(args.out / "latents.csv", found, columns)
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
    return f"{len(found)} images: {shapes}"


def interpolate(vae: VAE, args: argparse.Namespace) -> str:
    """Interpolate between two images: equal steps from the latents of one to those of the other.

    Writes interpolation.npy (uint8 [steps, C, H, W]) and interpolation.png. It starts and ends at
    the reconstructions of A and B; of vq models the codewords are mixed.

    Example: python -m robustvae interpolate test:0 test:1 --steps 9 --model pretrained/mnist
    """
    a, b = (verb.read_one(vae, args, source) for source in (args.a, args.b))
    x = vae.interpolate(a, b, args.steps)
    files.save_npy(args.out / "interpolation.npy", as_bytes(x[0]))
    start, end = (in_unit(image.pixels)[None] for image in (a, b))
    verb.write_sheet(
        args.out / "interpolation.png", np.concatenate([start, x, end], 1), [""], "Interpolation",
        f"first and last: the images; between them {args.steps} equal steps of z",
    )  # fmt: skip
    return f"{args.steps} steps from {args.a} to {args.b}"


def traverse(vae: VAE, args: argparse.Namespace) -> str:
    """Traverse latent dimensions: move one at a time, the others as in an image or at the prior's
    mean.

    Writes traversal.npy (uint8 [dims, steps, C, H, W]) and traversal.png. Without --dims: the ten
    that the decoder uses most, measured by encoding generated images.

    Example: python -m robustvae traverse --image test:0 --range 3 --model pretrained/mnist
    """
    centre = None if args.image is None else verb.read_one(vae, args, args.image)
    dims = vae.active_dims(10) if args.dims is None else args.dims
    x = vae.traverse(centre, dims, args.range, args.steps)
    files.save_npy(args.out / "traversal.npy", as_bytes(x))
    verb.write_sheet(
        args.out / "traversal.png", x, [f"z{d}" for d in dims], "Traversal of the latents",
        f"one dimension at a time, around {args.image or 'the prior mean'}; unit: prior scales",
        columns=[f"{v:.2g}" for v in np.linspace(-args.range, args.range, args.steps)],
    )  # fmt: skip
    return f"dimensions {', '.join(map(str, dims))} in {args.steps} steps"


def arithmetic(vae: VAE, args: argparse.Namespace) -> str:
    """Latent arithmetic: add factors of (mean z of one set of images - mean z of another) to
    images.

    Writes arithmetic.npy (uint8 [N, factors, C, H, W]) and arithmetic.png. The two sets are --plus
    and --minus, or with --attribute the prepared training images that have it and those that have
    not (CelebA; at most 1,000 of each).

    Examples:
      python -m robustvae arithmetic --plus sevens --minus ones --to test:0
      python -m robustvae arithmetic --attribute Smiling --to me.png --resize --factors 0,1,2
    """
    given = [bool(args.plus), bool(args.minus)]
    if not args.to or given != [not args.attribute] * 2:
        raise UserError("arithmetic: needs --to, and either --plus and --minus or --attribute")
    to = verb.read(vae, args, args.to)
    if args.attribute:
        plus, minus = with_and_without(vae, args.attribute)
    else:
        plus, minus = (verb.read(vae, args, sources) for sources in (args.plus, args.minus))
    x = vae.arithmetic(plus, minus, to, args.factors)
    files.save_npy(args.out / "arithmetic.npy", as_bytes(x))
    tiles = np.concatenate([in_unit(to.pixels)[:, None], x], 1)[:SHOWN]
    verb.write_sheet(
        args.out / "arithmetic.png", tiles, [""] * len(tiles), "Latent arithmetic",
        f"z + factor × (mean of {len(plus)} images - mean of {len(minus)})"
        + (f", {args.attribute}" if args.attribute else ""),
        columns=["image", *(f"{f:g}" for f in args.factors)],
    )  # fmt: skip
    return f"{len(to)} images, {len(plus)} plus, {len(minus)} minus"


def with_and_without(vae: VAE, attribute: str) -> list[Images]:
    """Training images that have the attribute, and others, spread over the set."""
    train = vae.images("train").pixels
    data = load_prepared(vae.data)
    names = data.info["attributes"] or []
    if attribute not in names:
        near = difflib.get_close_matches(attribute, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
        raise UserError(f"--attribute: {data.info['name']} has no {attribute!r}; {hint}")
    has = data.labels["train"][:, names.index(attribute)] > 0
    if has.all() or not has.any():
        raise UserError(f"--attribute: all or none of the training images have {attribute!r}")
    rows = [np.flatnonzero(mask) for mask in (has, ~has)]
    return [vae.images(train[r[_spread(len(r), ENOUGH)]]) for r in rows]


def score(vae: VAE, args: argparse.Namespace) -> str:
    """Score images: how unlikely each is under the model, an out-of-distribution score.

    Writes scores.csv: the negative ELBO in nats (with --k the importance-weighted bound of K draws,
    tighter), and its quantile among test images of the prepared data: 0.99 means that one in a
    hundred of them is less likely.

    Example: python -m robustvae score my_pictures --resize --k 64 --model pretrained/mnist
    """
    found = verb.read(vae, args, args.images)
    reason, name = no_elbo(vae.model), "negative_elbo" if args.k is None else f"iwae_{args.k}"
    if reason and args.k is None:
        verb.say(f"warning: {reason}, --k 64")
    if not vae.model.likelihood.proper(vae.binarisation != "none"):
        verb.say("note: the cross-entropy of grey pixels is no likelihood; ranks still compare")
        name = f"cross_entropy_{name}"
    values = vae.score(found, args.k, seed=args.seed)
    columns = {name: values}
    summary = f"{len(found)} images: median {np.median(values):.5g} nats"
    if (vae.data / "info.json").is_file():
        test = vae.images("test", seed=args.seed).pixels
        some = test[_spread(len(test), REFERENCE)]
        reference = np.sort(vae.score(some, args.k, seed=args.seed))
        below, up_to = (np.searchsorted(reference, values, side) for side in ("left", "right"))
        columns["quantile"] = (below + up_to) / (2 * len(reference))  # ties count half
        beyond = int((columns["quantile"] > 0.99).sum())
        summary += f"; {beyond} beyond the 0.99 quantile of {len(reference)} test images"
    else:
        verb.say(f"note: no quantiles, {vae.data} holds no prepared data (`dvc repro preprocess`)")
    verb.write_table(args.out / "scores.csv", found, columns)
    return summary


def _spread(length: int, most: int) -> NDArray[np.int64]:
    """At most that many positions, evenly spread."""
    return np.unique(np.linspace(0, length - 1, most).astype(int))


def export(vae: VAE, args: argparse.Namespace) -> str:
    """Export encoder and decoder as ONNX or TorchScript, checked against the model on random
    images.

    Encoder: x [B, C, H, W] in [0, 1] -> mu and logvar [B, Z] (vq: codes [B, h, w]); decoder: z
    [B, Z] (vq: codes) -> x_hat [B, C, H, W]; any number of images B. --card adds a model card,
    README.md.

    Example: python -m robustvae export --format onnx --card --model pretrained/mnist
    """
    found = vae.export(args.out, args.format)
    verb.write_card(vae, args)
    far = ", ".join(f"{part} {value:.1g}" for part, value in found.items())
    return f"{args.format}: largest difference from the model: {far}"


def info(vae: VAE, args: argparse.Namespace) -> None:
    """Say what is in a model folder; with --card also write its model card, README.md.

    The card names the data with their licence, the parameters, and the metrics of metrics.json in
    the model folder or, for models/, in reports/ beside it.

    Example: python -m robustvae info --model pretrained/mnist
    """
    print(vae.describe())
    verb.write_card(vae, args)


def _dims(text: str) -> list[int]:
    return [natural(part) for part in text.split(",")]


def _factors(text: str) -> list[float]:
    low, dots, high = text.partition("..")
    try:
        if dots:
            return [float(v) for v in np.linspace(float(low), float(high), RANGE_STEPS)]
        return [float(part) for part in text.split(",")]
    except ValueError:
        message = f"must be numbers such as 0,0.5,1 or a range 0..1.5, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None


ONE = {"nargs": None, "metavar": "IMAGE", "help": "a picture, or one image such as test:0"}
RESIZE = flag("--resize", "crop to squares and resize")
CARD = (
    flag("--card", "write a model card, README.md"),
    option("--metrics", metavar="FILE", type=Path, help="metrics.json for the card"),
)
TEMPERATURE = "factor of the law's scale, > 0; for codes the shares are raised to 1/T (1)"
CODES = "vq: equally likely codes, or those that training used (uniform)"
RANGE = "-R to R scales of the prior (3)"
FACTORS = f"such as 0,0.5,1, or {RANGE_STEPS} steps of a range, =-1..1 below 0 (0..1.5)"
VERBS = {
    "reconstruct": Verb(
        reconstruct, images("images"), RESIZE, flag("--sample", "draw pixels from the likelihood")
    ),
    "generate": Verb(
        generate,
        option("--n", metavar="N", type=positive, default=64, help="how many (64)"),
        flag("--grid", "one picture of all"),
        option("--temperature", metavar="T", type=float, default=1.0, help=TEMPERATURE),
        option("--codes", choices=("uniform", "empirical"), default="uniform", help=CODES),
        images("--mixture"), RESIZE,
        option("--components", metavar="K", type=positive, default=10, help="of the mixture (10)"),
    ),
    "encode": Verb(encode, images("images"), RESIZE),
    "interpolate": Verb(
        interpolate, images("a", **ONE), images("b", **ONE), RESIZE,
        option("--steps", metavar="N", type=partial(integer, 2), default=9, help="at least 2 (9)"),
    ),
    "traverse": Verb(
        traverse, images("--image", **ONE), RESIZE,
        option("--dims", metavar="I,J", type=_dims, help="such as 0,3,5"),
        option("--range", metavar="R", type=float, default=3.0, help=RANGE),
        option("--steps", metavar="N", type=positive, default=9, help="per dimension (9)"),
    ),
    "arithmetic": Verb(
        arithmetic, images("--plus"), images("--minus"), images("--to"), RESIZE,
        option("--attribute", metavar="NAME", help="in place of --plus and --minus"),
        option("--factors", metavar="F", type=_factors, default="0..1.5", help=FACTORS),
    ),
    "score": Verb(
        score, images("images"), RESIZE,
        option("--k", metavar="K", type=positive, help="importance-weighted, K draws"),
    ),
    "export": Verb(
        export, option("--format", choices=tuple(FORMATS), default="onnx", help="(onnx)"), *CARD
    ),
    "info": Verb(info, *CARD),
}  # fmt: skip
