"""A study as files: values of every run as CSV, beside it the settings that all share, a recipe."""

import functools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from robustvae.errors import UserError
from robustvae.experiments.compare import QUANTITIES, Run, judge, origin, plain
from robustvae.params import yaml12
from robustvae.params.loading import flatten
from robustvae.runtime import files

OWN = ("name", "run.seed")
ORIGIN = "origin."  # columns: code, and versions of what it ran on
PLACES = [quantity.place for quantity in QUANTITIES.values() if quantity.place]
SETS = ["group", "corruption", "severity"]


def write(runs: Sequence[Run], path: Path) -> None:
    """`path`, one row per run: where it comes from, its settings, its values, e_den of each set.

    Settings that all runs share go to the file beside it that ends in .yaml: a recipe.
    """
    settings = pd.DataFrame([run.settings for run in runs]).fillna("null")
    shared = settings.columns[settings.nunique() == 1]
    rows = []
    for run, (_, own) in zip(runs, settings.drop(columns=shared).iterrows(), strict=True):
        known = run.origin or origin(run.commit)
        rows.append(
            {"name": run.name, **{f"{ORIGIN}{k}": v for k, v in known.items()}}
            | {"run.seed": run.seed, **own}
            | {place: run.metrics.get(place) for place in PLACES}
            | {_joined(place): error for place, error in run.errors.items()}
        )
    with files.replace(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    lines = [f"{key}: {_written(settings[key].iloc[0])}\n" for key in sorted(shared)]
    with files.replace(path.with_suffix(".yaml")) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8", newline="\n")


def _joined(place: Any) -> str:
    return "/".join(str(part) for part in place)


def _written(text: str) -> str:
    """A setting in YAML."""
    return text if re.fullmatch(r"[\w./+-]+|\[.*\]", text) else json.dumps(text)


def read(path: Path) -> list[Run]:
    """The runs of such a file; UserError where it is none."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows = [{str(k): str(v) for k, v in row.items()} for row in table.to_dict("records")]
        if not rows:
            raise ValueError("it is empty")
        beside = flatten(yaml12.read(path.with_suffix(".yaml")))
        shared = {key: plain(value) for key, value in beside.items()}
        parse = functools.cache(yaml12.parse)  # most runs say the same
        return [_run(row, shared, parse) for row in rows]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: no table of runs ({str(error).partition(chr(10))[0]}); make one with "
            "`python -m robustvae compare --csv FILE.csv`, or restore it from git"
        ) from None


def _run(row: dict[str, str], shared: dict[str, str], parse: Callable[[str], Any]) -> Run:
    errors = {key: float(row.pop(key) or "nan") for key in list(row) if key.count("/") == 2}
    places = [(group, name, int(level)) for group, name, level in (k.split("/") for k in errors)]
    index = pd.MultiIndex.from_tuples(places, names=SETS)
    metrics = {place: float(row.pop(place, "") or "nan") for place in PLACES}
    known = {k.removeprefix(ORIGIN): row.pop(k) for k in list(row) if k.startswith(ORIGIN)}
    name, seed = (row.pop(key) for key in OWN)
    settings = shared | row
    content: dict[str, Any] = {}
    for key, text in settings.items():
        _put(content, key.split("."), parse(text))
    _, standard = judge(content)
    return Run(name, int(seed), settings, standard, metrics,
               pd.Series(list(errors.values()), index), origin=known)  # fmt: skip


def _put(content: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        content = content.setdefault(key, {})
    content[keys[-1]] = value
