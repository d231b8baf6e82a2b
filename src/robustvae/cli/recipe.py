"""Run a recipe: a small file of parameters laid over params.yaml, as a DVC experiment of its name.

Example: python -m robustvae recipe recipes/mnist-iwae.yaml -S run.seed=1
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from robustvae.errors import UserError
from robustvae.params.yaml12 import read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A recipe, and what `dvc exp run` is to be told besides."""
    parser.add_argument("recipe", type=Path, help="a YAML file, for example from recipes/")
    parser.add_argument(
        "-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", help="as for DVC"
    )
    parser.add_argument("-n", "--name", help="name of the experiment (default: the recipe's)")
    parser.add_argument("--queue", action="store_true", help="queue it, for `dvc queue start`")
    parser.add_argument("--print", action="store_true", help="only print the command")


def run(args: argparse.Namespace) -> None:
    """Check the keys, then hand over to DVC."""
    values, known = flatten(read(args.recipe)), flatten(read())
    for key in values:
        if key not in known:
            raise UserError(f"{args.recipe}: {key}: no such setting in params.yaml")
    overrides = [f"{key}={json.dumps(value)}" for key, value in values.items()] + args.set_param
    command = ["dvc", "exp", "run", "-n", args.name or args.recipe.stem]
    command += [word for override in overrides for word in ("-S", override)]
    command += ["--queue"] if args.queue else []
    if args.print:
        print(shlex.join(command))
        return
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = os.environ | {"PATH": here}  # the stages call `python`: this one
    done = subprocess.run([sys.executable, "-m", *command], env=environment, check=False)
    sys.exit(done.returncode)


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    if not isinstance(node, dict):
        return {prefix: node}
    return {
        key: value
        for name, below in node.items()
        for key, value in flatten(below, f"{prefix}.{name}".strip(".")).items()
    }
