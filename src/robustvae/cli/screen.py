"""Find the images that do not belong: rank all by how unlikely a robustly trained model finds them.

IMAGES is a folder of pictures or a .npy file. A model is trained on them so that what is unlike the
rest counts little (or take one with --model). Writes suspicion.csv, all images with the most
suspicious first, screen.html with thumbnails of the first ones, thumbnails/, and the model.
Suspicion is in robust standard deviations above the median: beyond 3 is worth a look.

Examples: python -m robustvae screen photos
          python -m robustvae screen images.npy --objective trimmed --strength 0.2 --show 50
"""

import argparse
import csv
from pathlib import Path

from robustvae.api.screening import OBJECTIVES, Screening, screen
from robustvae.cli import natural, positive
from robustvae.errors import UserError
from robustvae.reporting.screen import Row, page, thumbnail
from robustvae.runtime import files

FAR = 3.0  # robust standard deviations


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Only IMAGES is needed."""
    add = parser.add_argument
    add("images", metavar="IMAGES", help="folder of pictures, or a .npy file")
    add("--out", metavar="DIR", type=Path, default=Path("out/screen"), help="(out/screen)")
    add("--model", metavar="DIR", help="use this model folder, train none")
    add("--objective", choices=tuple(OBJECTIVES), default="welsch", help="(welsch)")
    add("--strength", metavar="S", type=float, help="share for trimmed, else standard deviations")
    add("--epochs", metavar="N", type=positive, default=30, help="of training (30)")
    add("--size", metavar="N", type=positive, help="side that images are brought to, pixels")
    add("--show", metavar="N", type=positive, default=100, help="images on the page (100)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    add("--seed", metavar="N", type=natural, default=0, help="of training and draws (0)")


def run(args: argparse.Namespace) -> None:
    """Train or load, rank, write."""
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out: {args.out} is a file; name a folder")
    if args.size is not None and args.size < 8:
        raise UserError(f"--size: must be 8 or more pixels, got {args.size}")
    if args.model is not None and args.size is not None:
        raise UserError("--size: has no effect with --model, which takes its own size; remove it")
    wrong = args.strength is not None and args.strength <= 0
    if wrong or (args.objective == "trimmed" and args.strength is not None and args.strength >= 1):
        raise UserError(
            f"--strength: must be > 0, and below 1 for trimmed (a share), got {args.strength:g}"
        )
    found = screen(
        args.images, model=args.model, objective=args.objective, strength=args.strength,
        epochs=args.epochs, size=args.size, seed=args.seed, device=args.device,
    )  # fmt: skip
    far = int((found.suspicion > FAR).sum())
    lead = (
        f"{far} of {len(found.images)} images lie more than {FAR:g} robust standard deviations "
        "above the median. Strange is not wrong: look before you throw out."
    )
    write_table(found, args.out / "suspicion.csv")
    write_pages(found, args, lead)
    if args.model is None:
        found.model.save(args.out / "model")
    print(f"{lead} {args.out}")


def columns(found: Screening, place: int) -> list[tuple[str, float]]:
    """What is known of an image besides its suspicion."""
    values = [("negative_elbo", found.neg_elbo[place]), ("mse", found.error[place])]
    if found.weight is not None:
        values.append(("weight", found.weight[place]))
    return [(name, float(value)) for name, value in values]


def write_table(found: Screening, path: Path) -> None:
    """All images, the most suspicious first."""
    with files.replace(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["rank", "image", "suspicion", *(name for name, _ in columns(found, 0))])
        for rank, place in enumerate(found.order.tolist(), 1):
            values = [found.suspicion[place], *(value for _, value in columns(found, place))]
            writer.writerow([rank, found.images.names[place], *(f"{v:.6g}" for v in values)])


def write_pages(found: Screening, args: argparse.Namespace, lead: str) -> None:
    """screen.html and thumbnails/ of the first images."""
    pixels = found.images.pixels
    shown = pixels if pixels.dtype == "uint8" else (pixels * 255).round().astype("uint8")
    rows = [
        Row(rank, found.images.names[place], float(found.suspicion[place]), columns(found, place),
            shown[place])
        for rank, place in enumerate(found.order[: args.show].tolist(), 1)
    ]  # fmt: skip
    with files.replace(args.out / "screen.html") as temporary:
        text = page(rows, f"Images by suspicion: {args.images}", lead)
        temporary.write_text(text, encoding="utf-8", newline="\n")
    for row in rows:
        name = f"{row.rank:04}-{Path(row.name).stem}.png"
        with files.replace(args.out / "thumbnails" / name) as temporary:
            thumbnail(row.pixels).save(temporary)
