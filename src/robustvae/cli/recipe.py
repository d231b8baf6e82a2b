"""Run a recipe: a small file of parameters laid over params.yaml, as a DVC experiment of its name.

Example: python -m robustvae recipe recipes/mnist-iwae.yaml -S run.seed=1
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from robustvae import params
from robustvae.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A recipe, and what `dvc exp run` is to be told besides."""
    parser.add_argument("recipe", type=Path, help="a YAML file, for example from recipes/")
    parser.add_argument("--print", action="store_true", help="only print the command")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="passed on to `dvc exp run`")


def run(args: argparse.Namespace) -> None:
    """Check the recipe, then hand over to DVC."""
    values = flatten(params.read(args.recipe))
    known = flatten(params.read())
    for key in values:
        if key not in known:
            raise UserError(f"{args.recipe}: {key}: no such setting in params.yaml")
    overrides = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    command = ["dvc", "exp", "run", "-n", args.recipe.stem]
    command += [word for override in overrides for word in ("-S", override)] + args.rest
    if args.print:
        print(" ".join(f"'{word}'" if set(word) & set(' "[]{}') else word for word in command))
        return
    sys.exit(subprocess.run(command, check=False).returncode)


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    if not isinstance(node, dict):
        return {prefix: node}
    return {
        key: value
        for name, below in node.items()
        for key, value in flatten(below, f"{prefix}.{name}".strip(".")).items()
    }
