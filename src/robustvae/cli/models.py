"""List the trained models that come along; the name of one stands wherever a model folder may.

Example: python -m robustvae info --model mnist
"""

import argparse

from robustvae.api.model_card import METRICS
from robustvae.api.shipped import MODELS, PRETRAINED, place
from robustvae.models.folder import WEIGHTS
from robustvae.runtime import files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(args: argparse.Namespace) -> None:
    """Name, size of the weights, skill over corruptions, what it is."""
    print(f"{'name':18}{'size':>8}  {'skill':>7}  what it is")
    for name, model in MODELS.items():
        folder = place(name)
        size, skill = "-", "-"
        if folder is not None and (folder / WEIGHTS).is_file():
            size = f"{(folder / WEIGHTS).stat().st_size / 1e6:.1f} MB"
            skill = f"{files.read_json(folder / METRICS)['robustness']['skill']:.3f}"
        print(f"{name:18}{size:>8}  {skill:>7}  {model.about}")
    print(
        "skill: 1 - squared error / that of the better of doing nothing and the mean training "
        f"image, averaged over corruptions; -: not here, in {PRETRAINED}/ of the repository"
    )
