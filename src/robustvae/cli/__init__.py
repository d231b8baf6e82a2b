"""One command with verbs, each a module here that has `add_arguments(parser)` and `run(args)`."""

import argparse
import importlib
import os
import sys

from robustvae.errors import UserError

# Verb -> (module, one line for the overview). Only the verb that is called gets imported.
VERBS: dict[str, tuple[str, str]] = {
    "reconstruct": ("reconstruct", "reconstruct images with a trained model"),
    "generate": ("generate", "generate new images"),
    "encode": ("encode", "encode images: means and log-variances, or codes"),
    "interpolate": ("interpolate", "interpolate between two images"),
    "traverse": ("traverse", "move one latent dimension at a time"),
    "arithmetic": ("arithmetic", "add the difference of two sets of images to an image"),
    "score": ("score", "score how unlikely images are under the model"),
    "export": ("export", "export encoder and decoder as ONNX or TorchScript"),
    "info": ("info", "say what is in a model folder, write a model card"),
    "corrupt": ("corrupt", "corrupt your own images as MNIST-C does"),
    "compare": ("compare", "compare experiments over seeds, with intervals"),
    "recipe": ("recipe", "run a recipe: parameters laid over params.yaml, as an experiment"),
    "sweep": ("sweep", "run every combination of some parameters, on many processes or machines"),
    "params": ("params", "write params.schema.json and the README's parameter table"),
}


def main(arguments: list[str] | None = None) -> None:
    """Run one verb; a user's mistake is one message and exit code 2."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported
    words = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="robustvae", description="How robust is a variational autoencoder?"
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (module, summary) in VERBS.items():
        verb = verbs.add_parser(
            name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if words[:1] == [name]:
            code = importlib.import_module(f"robustvae.cli.{module}")
            verb.description = code.__doc__
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
