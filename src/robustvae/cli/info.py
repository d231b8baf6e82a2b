"""Say what is in a model folder; with --card also write its model card, README.md.

The card names the data with their licence, the parameters, and the metrics of metrics.json in the
model folder or, for models/, in reports/ beside it.

Example: python -m robustvae info --model pretrained/mnist
"""

import argparse
from pathlib import Path

from robustvae import files
from robustvae.api import VAE
from robustvae.cli import use


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The card."""
    card_arguments(parser)
    use.options(parser, "info")


def card_arguments(parser: argparse.ArgumentParser) -> None:
    """Whether to write a card, with which metrics."""
    parser.add_argument("--card", action="store_true", help="write a model card, README.md")
    parser.add_argument("--metrics", metavar="FILE", type=Path, help="metrics.json for the card")


def run(args: argparse.Namespace) -> None:
    """Print, perhaps write."""
    vae = use.open_model(args)
    print(vae.describe())
    write_card(vae, args)


def write_card(vae: VAE, args: argparse.Namespace) -> None:
    """README.md in --out, where --card asks for it."""
    if args.card:
        with files.replace(args.out / "README.md") as temporary:
            temporary.write_text(vae.card(args.metrics), encoding="utf-8", newline="\n")
