"""Measure any model that gives images back, under corruptions, with the pipeline's own report.

--model is a model folder, or MODULE:FACTORY: a function without arguments in a module of the
current folder or of an installed package, which gives the model (robustvae.evaluate says what it
may be). Writes report.html, robustness.csv and headline.json.

Example: python -m robustvae evaluate --model pretrained/mnist --images photos --out out/evaluate
"""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from robustvae.api.evaluate import evaluate
from robustvae.api.vae import load
from robustvae.cli import natural
from robustvae.corruptions import FIFTEEN
from robustvae.errors import UserError
from robustvae.runtime import files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is measured, on what, under which corruptions."""
    add, pictures = parser.add_argument, "folder of pictures of one size, or .npy file"
    add("--model", metavar="MODEL", required=True, help="model folder or name, or MODULE:FACTORY")
    add("--images", metavar="IMAGES", required=True, help=pictures)
    add("--labels", metavar="FILE", help=".npy file with a class for each image")
    add("--train", metavar="IMAGES", help=f"what the model learnt from: {pictures}")
    add("--names", metavar="NAME", nargs="+", default=list(FIFTEEN), help="corruptions")
    add("--severity", metavar="S", type=int, nargs="+", help="1 .. 5 (default: MNIST-C's own)")
    add("--settings", metavar="FILE", help="YAML file with sections evaluate and plots")
    add("--seed", metavar="N", type=natural, default=0, help="of everything drawn (0)")
    add("--out", metavar="DIR", type=Path, default=Path("out/evaluate"), help="results")


def run(args: argparse.Namespace) -> None:
    """Measure, write, and print the table."""
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out: {args.out} is a file; name a folder")
    model, name = found(args.model)
    labels = None if args.labels is None else files.open_npy(Path(args.labels))
    result = evaluate(
        model, args.images, labels=labels, train=args.train, names=args.names, name=name,
        severities=args.severity or "default", settings=args.settings, seed=args.seed,
    )  # fmt: skip
    with files.replace(args.out / "robustness.csv") as temporary:
        result.table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    files.write_json(args.out / "headline.json", result.headline)
    print(f"{result}\n{result.report(args.out / 'report.html')}")


def found(text: str) -> tuple[Any, str]:
    """The model that --model names, and what to call it."""
    if ":" not in text:
        return load(text), Path(text).name
    module, _, factory = text.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        make = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"--model: {text}: {error}; name a module that Python finds from here and a function "
            "in it, as in package.module:factory"
        ) from None
    return make(), factory
