"""Compare DVC experiments over seeds: means with 95 % t intervals, paired differences, mRE.

Runs that differ in run.seed alone are taken together; below three seeds there is no interval.
Writes tables (CSV, Markdown), a figure per quantity and compare.html.

Example: python -m robustvae compare --by loss.df
"""

import argparse
from pathlib import Path

from robustvae.experiments import compare, page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which experiments, how they are ordered, what they are compared with."""
    parser.add_argument(
        "experiments", nargs="*", metavar="EXPERIMENT", help="names or commits (default: all)"
    )
    parser.add_argument("--by", metavar="KEY", help="parameter to sort and label by: loss.df")
    parser.add_argument(
        "--baseline",
        metavar="EXPERIMENT",
        help="any run of the baseline (default: KL with beta 1 and a standard normal prior, "
        "all but the loss being equal)",
    )
    parser.add_argument("--out", type=Path, default=Path("reports/compare"), metavar="FOLDER")


def run(args: argparse.Namespace) -> None:
    """Read, group, write, and print the table."""
    notes: list[str] = []
    runs = compare.read(args.experiments, notes)
    groups = compare.group(runs, args.by, args.baseline, notes)
    page.write(groups, notes, args.out)
    print((args.out / "compare.md").read_text(encoding="utf-8"), end="")
    print(f"\n{args.out / 'compare.html'}")
