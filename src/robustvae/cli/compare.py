"""Compare DVC experiments over seeds: means with 95 % t intervals, paired ratios, power.

Runs that differ in run.seed alone are taken together; below three seeds there is no interval.
Writes tables (CSV, Markdown), a figure per quantity and compare.html. With --csv, the values of
every run and the settings that they share, as files to keep; such a file can be compared again.

Examples: python -m robustvae compare --by loss.df
          python -m robustvae compare --csv docs/studies/mine.csv
          python -m robustvae compare docs/studies/mine.csv --into docs/studies.md
          python -m robustvae compare docs/studies/digits.csv --over contamination.inliers
"""

import argparse
from pathlib import Path

from robustvae.errors import UserError, did_you_mean
from robustvae.experiments import compare, judging, page, record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which experiments, how they are ordered, what they are compared with and in."""
    parser.add_argument(
        "experiments",
        nargs="*",
        metavar="EXPERIMENT",
        help="names, commits, or a FILE.csv of an earlier --csv (default: all experiments)",
    )
    parser.add_argument("--by", metavar="KEY", help="parameter to sort and label by: loss.df")
    parser.add_argument(
        "--over",
        metavar="KEY",
        help="a parameter that is averaged over and paired by, as the seed is: each of its values, "
        "with a seed, then counts as a seed: contamination.inliers",
    )
    parser.add_argument(
        "--baseline",
        metavar="EXPERIMENT",
        help="any run of the baseline (default: KL with beta 1 and a standard normal prior, "
        "all but the loss being equal)",
    )
    _add_judging(parser)
    parser.add_argument("--out", type=Path, default=Path("reports/compare"), metavar="FOLDER")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="keep the values of every run")
    parser.add_argument(
        "--into", type=Path, metavar="PAGE", help="put a FILE.csv's table between its marks there"
    )


def _add_judging(parser: argparse.ArgumentParser) -> None:
    """What is asked of the groups."""
    parser.add_argument(
        "--judge",
        nargs="+",
        default=list(judging.JUDGED),
        metavar="QUANTITY",
        help=f"what is tested; fewer are tested more sharply (default: {' '.join(judging.JUDGED)})",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=100 * judging.MARGIN,
        metavar="PERCENT",
        help="up to which two errors count as equal (default: %(default)g)",
    )
    parser.add_argument(
        "--together",
        nargs="+",
        default=[],
        metavar="QUANTITY",
        help="do these go together? Spearman's rho over the groups, the others against the first",
    )


def run(args: argparse.Namespace) -> None:
    """Read, group, write, and print the table."""
    known = compare.QUANTITIES
    for option, named in (("judge", args.judge), ("together", args.together)):
        for name in named:
            if name not in known:
                raise UserError(f"--{option}: no such quantity {name!r}{did_you_mean(name, known)}")
    if not 0 < args.margin < 100:
        raise UserError(f"--margin: must be above 0 and below 100 per cent, got {args.margin:g}")
    tables = [Path(name) for name in args.experiments if name.endswith(".csv")]
    if args.into and len(tables) != 1:
        raise UserError("--into: name the one FILE.csv whose table goes there")
    notes: list[str] = []
    runs = [run for path in tables for run in record.read(path)]
    names = [name for name in args.experiments if not name.endswith(".csv")]
    if names or not tables:
        runs += compare.read(names, notes)
    if args.csv:
        record.write(runs, args.csv)
    if args.over:
        runs = [run.over(args.over) for run in runs]
    groups = compare.group(runs, args.by, args.baseline, notes)
    means, paired = (
        judging.summary(groups), judging.differences(groups, args.judge, args.margin / 100)
    )  # fmt: skip
    if args.into:
        text = page.study(groups, means, paired, args.judge, args.together)
        page.put(args.into, tables[0].stem, text)
    page.write(groups, means, paired, notes, args.out, args.together)
    print((args.out / "compare.md").read_text(encoding="utf-8"), end="")
    print(f"\n{args.out / 'compare.html'}")
