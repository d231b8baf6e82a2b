"""One command with verbs, each with a text for its help, `add_arguments(parser)`, `run(args)`."""

import argparse
import importlib
import inspect
import os
import sys
from functools import partial
from typing import Any

from robustvae.errors import UserError
from robustvae.runtime import threads

VERBS: dict[str, tuple[str, str]] = {  # verb -> module, one line for the overview
    "reconstruct": ("use", "reconstruct images with a trained model"),
    "generate": ("use", "generate new images"),
    "encode": ("use", "encode images: means and log-variances, or codes"),
    "interpolate": ("use", "interpolate between two images"),
    "traverse": ("use", "move one latent dimension at a time"),
    "arithmetic": ("use", "add the difference of two sets of images to an image"),
    "score": ("use", "score how unlikely images are under the model"),
    "screen": ("screen", "find the images that do not belong among yours"),
    "export": ("use", "export encoder and decoder as ONNX or TorchScript"),
    "info": ("use", "say what is in a model folder, write a model card"),
    "models": ("models", "list the trained models that come along"),
    "evaluate": ("evaluate", "measure any model under corruptions, with the report"),
    "corrupt": ("corrupt", "corrupt your own images as MNIST-C does"),
    "compare": ("compare", "compare experiments over seeds, with intervals"),
    "recipe": ("recipe", "run a recipe: parameters laid over params.yaml, as an experiment"),
    "sweep": ("sweep", "run every combination of some parameters, on many processes or machines"),
    "study": ("study", "run many short runs in warm processes, their values into one table"),
    "parts": ("parts", "list what params.yaml may name, built-in or of plug-ins"),
    "params": ("params", "write params.schema.json and docs/parameters.md"),
}


def integer(least: int, text: str) -> int:
    """An argument that is an integer, `least` or more."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be an integer >= {least}, got {text!r}")
    return int(text)


natural, positive = partial(integer, 0), partial(integer, 1)


def find(name: str) -> Any:
    """The code of a verb, imported only now: a module, or one of those that use a model."""
    module = importlib.import_module(f"robustvae.cli.{VERBS[name][0]}")
    return module.VERBS[name] if module.__name__.endswith(".use") else module


def main(arguments: list[str] | None = None) -> None:
    """Run one verb; a user's mistake is one message and exit code 2."""
    threads.settle()
    words = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser("robustvae", description="How robust is an autoencoder?")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (_, summary) in VERBS.items():
        form = argparse.RawDescriptionHelpFormatter
        verb = verbs.add_parser(name, help=summary, formatter_class=form)
        if words[:1] == [name]:
            code = find(name)
            verb.description = inspect.getdoc(code)
            code.add_arguments(verb)
            verb.set_defaults(run=code.run)
    args = parser.parse_args(words)
    try:
        args.run(args)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `| head` has seen enough; nothing more is to be written at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
