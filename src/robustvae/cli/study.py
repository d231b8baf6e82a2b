"""Run every combination of some parameters in a few processes that stay warm; keep their values.

For hundreds of short runs, of which models and reports are not wanted: no experiments are made. The
pipeline's stages run as DVC would run them, data are made once, and each run becomes a row of a
table that `compare` reads. Runs that the table has are not done again, so a study that was cut goes
on when called again, and several calls may add to one table.

Example: python -m robustvae study recipes/mnist-study.yaml --csv docs/studies/mine.csv
           -S loss.df=0.0,3.0 -S 'run.seed=range(0,5)' --workers 2
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from robustvae.errors import UserError
from robustvae.params import check, overlay, read, yaml12
from robustvae.runtime.progress import track


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A recipe, what to sweep over, and where the table is."""
    parser.add_argument("recipe", type=Path, help="a YAML file, for example from recipes/")
    parser.add_argument(
        "-S", "--set-param", action="append", required=True, metavar="KEY=VALUES", help="repeatable"
    )
    parser.add_argument("--csv", type=Path, required=True, metavar="FILE", help="the table")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes; default: cores / run.threads"
    )


def run(args: argparse.Namespace) -> None:
    """Check all, then do what is still to do, a line and a row per run."""
    from robustvae.experiments import compare, record, study
    from robustvae.experiments.points import expand

    base, tasks = overlay(read(), read(args.recipe)), {}
    for point in expand(args.set_param):
        pairs = (override.partition("=") for override in point.overrides)
        content = overlay(base, {key: yaml12.parse(value) for key, _, value in pairs})
        check(content, point.name)
        tasks[f"{args.recipe.stem}_{point.name}"] = content
    workers = max(1, (os.cpu_count() or 1) // base["run"]["threads"])
    workers = workers if args.workers is None else args.workers
    if workers < 1:
        raise UserError(f"--workers: must be 1 or more, got {workers}")
    runs = record.read(args.csv) if args.csv.exists() else []
    there = {_identity(one.settings, one.seed) for one in runs}
    left = {n: c for n, c in tasks.items() if _identity(*_settings(c, compare)) not in there}
    code, failed = compare.git("rev-parse", "HEAD").strip(), 0
    for name, found in track(study.run(left, workers, code), "study", len(left), "run"):
        if isinstance(found, str):
            failed += 1
            tqdm.write(f"{name}: failed: {found}")
            continue
        runs.append(found)
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        record.write(sorted(runs, key=lambda one: one.name), args.csv)
    print(f"{len(tasks)} runs: {len(tasks) - len(left)} there already, {failed} failed; {args.csv}")
    if failed:
        sys.exit(1)


def _settings(content: dict[str, Any], compare: Any) -> tuple[dict[str, str], int]:
    settings, _ = compare.judge(content)
    seed = int(settings.pop("run.seed"))
    return settings, seed


def _identity(
    settings: dict[str, str], seed: int | str
) -> tuple[frozenset[tuple[str, str]], int | str]:
    return frozenset(settings.items()), seed
