"""Run every combination of some parameters as DVC experiments, on many processes or machines.

Each point is one experiment, named after its parameters; what has been done before is not done
again. Values are written as for `dvc exp run`: 0,3,5 or range(0,5). Workers share this folder's
disk, or, with --remote, clone from git's `origin` and exchange data through that DVC remote.

Examples: python -m robustvae sweep -S loss.df=0.0,3.0,5.0 -S 'run.seed=range(0,5)' --workers 4
          python -m robustvae sweep -S loss.alpha=0.5,1.0 --scheduler tcp://head:8786 --remote s3
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from robustvae.errors import UserError, did_you_mean
from robustvae.params.loading import flatten
from robustvae.params.yaml12 import read
from robustvae.runtime.progress import track

SHOWN = 15  # last lines of a failed point's log
LOGS = Path(".cache/sweep-logs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to sweep over, and where."""
    parser.add_argument(
        "-S", "--set-param", action="append", required=True, metavar="KEY=VALUES", help="repeatable"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster that runs already")
    where.add_argument(
        "--workers", type=int, metavar="N", help="processes here; default: cores / run.threads"
    )
    parser.add_argument("--remote", metavar="NAME", help="DVC remote, where no disk is shared")


def run(args: argparse.Namespace) -> None:
    """Do what is still to do, a line per point, then count."""
    from robustvae.experiments import rwlock, sweep
    from robustvae.experiments.points import expand

    rwlock.mend()
    content = read()
    threads = int(flatten(content).get("run.threads", 1))
    points = expand(args.set_param)
    _check_keys(points[0].overrides, content)
    workers = max(1, (os.cpu_count() or 1) // threads) if args.workers is None else args.workers
    if workers < 1:
        raise UserError(f"--workers: must be 1 or more, got {workers}")
    place = sweep.here(args.remote, threads)
    counts: Counter[str] = Counter()
    outcomes = sweep.run(points, place, args.scheduler, workers)
    for outcome in track(outcomes, "sweep", total=len(points), unit="point"):
        counts[outcome.state] += 1
        tqdm.write(f"{sum(counts.values())}/{len(points)} {_line(outcome)}")
    states = {"done": "done", "there": "there already", "failed": "failed"}
    found = ", ".join(f"{counts[state]} {text}" for state, text in states.items() if counts[state])
    print(f"{len(points)} points: {found}")
    if counts["failed"]:
        sys.exit(1)
    print("`dvc exp show` lists them, `python -m robustvae compare` compares them over seeds")


def _line(outcome: Any) -> str:
    if outcome.state == "there":
        return f"{outcome.name}: there already"
    line = f"{outcome.name}: {outcome.state} after {outcome.seconds:.0f} s"
    if outcome.state == "failed":
        LOGS.mkdir(parents=True, exist_ok=True)
        path = LOGS / f"{outcome.name}.log"
        path.write_text(outcome.log)
        last = "\n    ".join(outcome.log.splitlines()[-SHOWN:])
        line += f"; the whole log is {path}, it ends in\n    {last}"
    return line


def _check_keys(overrides: tuple[str, ...], content: dict[str, Any]) -> None:
    """An unknown key would fail at every point."""
    known = flatten(content)
    groups = {key.rsplit(".", i)[0] for key in known for i in range(1, key.count(".") + 1)}
    for key in (override.partition("=")[0] for override in overrides):
        if key[0] not in "+~" and key not in known and key not in groups:
            raise UserError(f"-S: {key}: no such setting in params.yaml{did_you_mean(key, known)}")
