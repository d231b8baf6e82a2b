"""Score images: how unlikely each is under the model, an out-of-distribution score.

Writes scores.csv: the negative ELBO in nats (with --k the importance-weighted bound of K draws,
tighter), and its quantile among test images of the prepared data: 0.99 means that one in a hundred
of them is less likely.

Example: python -m robustvae score my_pictures --resize --k 64 --model pretrained/mnist
"""

import argparse

import numpy as np
from numpy.typing import NDArray

from robustvae.cli import use
from robustvae.robustness.bounds import no_elbo

REFERENCE = 1000  # test images that the quantiles refer to


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """IMAGES and the number of draws."""
    use.images(parser, "images", nargs="+")
    parser.add_argument("--k", metavar="K", type=use.positive, help="importance-weighted, K draws")
    use.options(parser, "score")


def run(args: argparse.Namespace) -> None:
    """Score the images, then the reference."""
    vae = use.open_model(args)
    found = use.read(vae, args, args.images)
    reason, name = no_elbo(vae.model), "negative_elbo" if args.k is None else f"iwae_{args.k}"
    if reason and args.k is None:
        use.say(f"warning: {reason}, --k 64")
    if not vae.model.likelihood.proper(vae.binarisation != "none"):
        use.say("note: the cross-entropy of grey pixels is no likelihood; ranks still compare")
        name = f"cross_entropy_{name}"
    columns, head = [vae.score(found, args.k, seed=args.seed)], ["image", name]
    summary = f"{len(found)} images: median {np.median(columns[0]):.5g} nats"
    if (vae.data / "info.json").is_file():
        test = vae.images("test", seed=args.seed)
        some = np.unique(np.linspace(0, len(test) - 1, REFERENCE).astype(int))
        reference = vae.score(test.pixels[some], args.k, seed=args.seed)
        columns.append(quantile(columns[0], reference))
        head.append("quantile")
        beyond = int((columns[1] > 0.99).sum())
        summary += f"; {beyond} beyond the 0.99 quantile of {len(reference)} test images"
    else:
        use.say(f"note: no quantiles, {vae.data} holds no prepared data (`dvc repro preprocess`)")
    use.write_table(args.out / "scores.csv", head, zip(found.names, *columns, strict=True))
    print(f"{summary}; {args.out}")


def quantile(values: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the reference below each value; ties count half."""
    ordered = np.sort(reference)
    below, up_to = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return np.asarray((below + up_to) / (2 * len(ordered)))
