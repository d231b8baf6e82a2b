"""Run a recipe: a small file of parameters laid over params.yaml, as a DVC experiment of its name.

Example: python -m robustvae recipe recipes/mnist-iwae.yaml -S run.seed=1
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

from robustvae.experiments import recipe, rwlock


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A recipe, and what `dvc exp run` is to be told besides."""
    add = parser.add_argument
    add("recipe", type=Path, help="a YAML file, for example from recipes/")
    add("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", help="as for DVC")
    add("-n", "--name", help="name of the experiment (default: the recipe's)")
    add("--queue", action="store_true", help="queue it, for `dvc queue start`")
    add("--print", action="store_true", help="only print the command")


def run(args: argparse.Namespace) -> None:
    """Check the keys, then hand over to DVC."""
    command = recipe.command(args.recipe, args.set_param, args.name, args.queue)
    if args.print:
        print(shlex.join(command))
        return
    rwlock.mend()
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = os.environ | {"PATH": here}  # the stages call `python`: this one
    done = subprocess.run([sys.executable, "-m", *command], env=environment, check=False)
    sys.exit(done.returncode)
