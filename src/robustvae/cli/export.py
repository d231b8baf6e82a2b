"""Export encoder and decoder as ONNX or TorchScript, checked against the model on random images.

Encoder: x [B, C, H, W] in [0, 1] -> mu and logvar [B, Z] (vq: codes [B, h, w]); decoder: z [B, Z]
(vq: codes) -> x_hat [B, C, H, W]; any number of images B. --card adds a model card, README.md.

Example: python -m robustvae export --format onnx --card --model pretrained/mnist
"""

import argparse

from robustvae.api.export import FORMATS
from robustvae.cli import info, use


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The format, and the card."""
    parser.add_argument("--format", choices=tuple(FORMATS), default="onnx", help="(onnx)")
    info.card_arguments(parser)
    use.options(parser, "export")


def run(args: argparse.Namespace) -> None:
    """Write the parts and say how far they are from the model."""
    vae = use.open_model(args)
    found = vae.export(args.out, args.format)
    info.write_card(vae, args)
    far = ", ".join(f"{part} {value:.1g}" for part, value in found.items())
    print(f"{args.format}: largest difference from the model: {far}; {args.out}")
