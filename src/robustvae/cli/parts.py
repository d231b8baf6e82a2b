"""List the parts that params.yaml may name: built-in ones and those of plug-ins.

A line each: its name, what it is, and for plug-ins where it comes from.

Examples: python -m robustvae parts
          python -m robustvae parts corruption metric
"""

import argparse
import inspect

from robustvae.errors import UserError, did_you_mean
from robustvae.params.parts import BUILT_IN, TABLES, Part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All kinds, or some."""
    kinds = list(TABLES)
    parser.add_argument("kinds", metavar="KIND", nargs="*", help=f"of {', '.join(kinds)} (all)")


def run(args: argparse.Namespace) -> None:
    """Print the listing."""
    for kind in args.kinds:
        if kind not in TABLES:
            hint = did_you_mean(kind, TABLES)
            raise UserError(f"parts: unknown {kind!r}{hint}, one of {', '.join(TABLES)}")
    print("\n\n".join(listing(kind) for kind in args.kinds or TABLES))


def listing(kind: str) -> str:
    """A heading and a line for each part of a kind."""
    return "\n".join([kind, *(_line(TABLES[kind].part(name)) for name in TABLES[kind])])


def _line(part: Part) -> str:
    about = (inspect.getdoc(part.itself) or "").partition("\n")[0].rstrip(".")
    own = f"; settings {', '.join(part.settings.model_fields)}" if part.settings else ""
    whence = "" if part.origin == BUILT_IN else f" [{part.origin}]"
    return f"  {part.name:18} {about}{own}{whence}".rstrip()
