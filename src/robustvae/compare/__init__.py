"""Experiments that differ in the seed alone, taken together and compared with a baseline."""

import json
import math
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from typing import Any

import dvc.api
import numpy as np
import pandas as pd
from dvc.exceptions import DvcException

from robustvae.compare.statistics import holm, interval, p_value, relative
from robustvae.errors import UserError
from robustvae.params import yaml12

SEED = "run.seed"
ASIDE = ("plots.", "report.", "run.device", "run.threads")  # settings that change no result
# Quantity -> (place in metrics.json, or None where it is computed here; is lower better).
QUANTITIES: dict[str, tuple[str | None, bool]] = {
    "e_den": ("robustness.e_den", True),
    "mRE": (None, True),
    "relative_mRE": (None, True),
    "skill": ("robustness.skill", False),
    "ssim_den": ("robustness.ssim_den", False),
    "auroc": ("robustness.auroc", False),
    "clean_e_den": ("robustness.clean_e_den", True),
    "geometric_e_den": ("robustness.geometric_e_den", True),
    "geometric_mRE": (None, True),
    "skill_below_0": ("robustness.skill_below_0", True),
    "active_units": ("robustness.active_units", False),
    "log_likelihood": ("likelihood.log_likelihood", False),
}


@dataclass(frozen=True)
class Run:
    """One finished experiment."""

    name: str
    params: dict[str, Any]  # dotted keys
    metrics: dict[str, Any]  # dotted keys
    errors: pd.Series  # e_den of the model by (group, corruption, severity); clean among them

    @property
    def seed(self) -> int:
        """What training was started from."""
        return int(self.params[SEED])

    @property
    def key(self) -> tuple[tuple[str, str], ...]:
        """Everything that may change a result, except the seed."""
        kept = (k for k in self.params if k != SEED and not k.startswith(ASIDE))
        return tuple((k, plain(self.params[k])) for k in sorted(kept))


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed alone, one per seed."""

    label: str
    runs: Mapping[int, Run]
    base: "Group | None"  # what relative errors refer to

    @property
    def params(self) -> dict[str, Any]:
        """Of any of the runs."""
        return next(iter(self.runs.values())).params

    @cached_property
    def errors(self) -> pd.Series:
        """e_den by set, mean over the seeds."""
        return pd.concat([run.errors for run in self.runs.values()], axis=1).mean(axis=1)

    def values(self, quantity: str) -> dict[int, float]:
        """By seed, without what is null."""
        place = QUANTITIES[quantity][0]
        found = {}
        for seed, run in self.runs.items():
            if place is not None:
                value = run.metrics.get(place)
            elif self.base is None:
                value = None
            else:
                value = relative(run.errors, self.base.errors)[quantity]
            if isinstance(value, int | float) and math.isfinite(value):
                found[seed] = float(value)
        return found


def git(*words: str) -> str:
    """Output of a git command."""
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def experiments() -> dict[str, str]:
    """Names of DVC's finished experiments -> their commits, oldest first."""
    form = "--format=%(refname) %(objectname)"
    listed = git("for-each-ref", "--sort=creatordate", form, "refs/exps").splitlines()
    pattern = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(\S+) ([0-9a-f]{40})")
    return {found[1]: found[2] for line in listed if (found := pattern.fullmatch(line))}


def read(names: Sequence[str], notes: list[str]) -> list[Run]:
    """The named experiments or commits, or all experiments; adds to `notes` what was left out."""
    known = experiments()
    runs = []
    for name in names or known:
        commit = known.get(name, name)
        try:
            runs.append(_read(name, commit))
        except UserError as error:
            if names:
                raise UserError(f"{name}: no experiment with results ({error})") from None
            notes.append(f"{name} is left out, it has no results of this kind")
    if not runs:
        raise UserError("no experiments with results; make some with `dvc exp run -S KEY=VALUE`")
    return runs


def _read(name: str, commit: str) -> Run:
    settings = yaml12.parse(git("show", f"{commit}:params.yaml"))
    metrics = json.loads(git("show", f"{commit}:reports/metrics.json"))
    table = pd.read_csv(StringIO(_content(commit, "reports/robustness.csv")))
    rows = table[table["method"] == "model"].set_index(["group", "corruption", "severity"])
    return Run(name, flatten(settings), flatten(metrics), rows["e_den"])


def _content(commit: str, path: str) -> str:
    """A file of a commit, from git or from the DVC cache."""
    if git("ls-tree", commit, path):
        return git("show", f"{commit}:{path}")
    try:
        return str(dvc.api.read(path, rev=commit))
    except (DvcException, OSError) as error:
        raise UserError(f"{path}: {error}") from None


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    if not isinstance(node, dict):
        return {prefix: node}
    parts = (flatten(below, f"{prefix}.{name}".strip(".")) for name, below in node.items())
    return {key: value for part in parts for key, value in part.items()}


def plain(value: Any) -> str:
    """A setting as text, the same for 1 and 1.0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.10g}" if number else json.dumps(value).strip('"')


def is_base(params: Mapping[str, Any]) -> bool:
    """Is it the KL divergence with weight 1?"""
    get = params.get
    plain = get("loss.df") == 0 and get("loss.capacity.weight") is None
    return plain and get("loss.alpha") in (None, 1) and get("loss.beta") == 1


def group(
    runs: Sequence[Run], by: str | None, baseline: str | None, notes: list[str]
) -> list[Group]:
    """Runs by everything but the seed, labelled by what differs between them, in a stable order."""
    found: dict[tuple[tuple[str, str], ...], dict[int, Run]] = {}
    for run in runs:
        members = found.setdefault(run.key, {})
        if run.seed in members:
            same = f"{members[run.seed].name} and {run.name}"
            notes.append(f"{same} have the same parameters and seed: the later one counts")
        members[run.seed] = run
    first = [next(iter(members.values())) for members in found.values()]
    keys = sorted({k for run in first for k, _ in run.key})
    differ = [k for k in keys if len({plain(run.params.get(k)) for run in first}) > 1]
    if by is not None and not any(by in run.params for run in first):
        known = ", ".join(differ) or "none"
        raise UserError(f"--by: no such parameter {by!r}; those that differ: {known}")
    shown = ([by] if by else []) + [k for k in differ if k != by]
    if baseline is not None and baseline not in {run.name for run in runs}:
        raise UserError(f"--baseline: no such experiment {baseline!r} among those compared")

    def order(members: dict[int, Run]) -> list[tuple[int, float, str]]:
        settings = next(iter(members.values())).params
        return [_rank(settings.get(key)) for key in shown]

    def label(members: Mapping[int, Run]) -> str:
        settings = next(iter(members.values())).params
        parts = [f"{k.removeprefix('loss.')} {plain(settings.get(k))}" for k in shown]
        return ", ".join(parts) or "all runs"

    ordered = sorted(found.values(), key=order)
    bases = [Group(label(m), m, None) for m in ordered]
    return [Group(b.label, b.runs, _base(b, bases, baseline)) for b in bases]


def _rank(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then words."""
    number = isinstance(value, int | float)
    return (0, float(value), "") if number else (1, 0.0, str(value))


def _base(one: Group, groups: Sequence[Group], baseline: str | None) -> Group | None:
    """The named group; or KL with beta 1 where all else, the loss apart, is the same."""

    def rest(group: Group) -> list[tuple[str, str]]:
        key = next(iter(group.runs.values())).key
        return [(k, v) for k, v in key if not k.startswith("loss.")]

    for other in groups:
        names = {run.name for run in other.runs.values()}
        if baseline in names if baseline else is_base(other.params) and rest(one) == rest(other):
            return other
    return None


def summary(groups: Sequence[Group]) -> pd.DataFrame:
    """One row per group and quantity: mean, t interval, number of seeds."""
    rows = []
    for one in groups:
        for quantity in QUANTITIES:
            values = list(one.values(quantity).values())
            low, high = interval(values) or (math.nan, math.nan)
            mean = float(np.mean(values)) if values else math.nan
            row = {"group": one.label, "quantity": quantity, "seeds": len(values), "mean": mean}
            rows.append({**row, "low": low, "high": high})
    return pd.DataFrame(rows)


def differences(groups: Sequence[Group]) -> pd.DataFrame:
    """Group minus baseline, paired by seed; p values adjusted over the groups of each quantity."""
    table = pd.DataFrame(_differences(groups))
    if len(table):
        table["p_holm"] = math.nan
        for _, part in table.dropna(subset="p").groupby("quantity"):
            table.loc[part.index, "p_holm"] = holm(part["p"].tolist())
    return table


def _differences(groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    for quantity in QUANTITIES:
        for one in groups:
            if one.base is None or one.base.label == one.label:
                continue
            mine, theirs = one.values(quantity), one.base.values(quantity)
            paired = [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]
            if not paired:
                continue
            low, high = interval(paired) or (math.nan, math.nan)
            p = p_value(paired)
            yield {
                "quantity": quantity, "group": one.label, "baseline": one.base.label,
                "pairs": len(paired), "mean": float(np.mean(paired)), "low": low, "high": high,
                "p": math.nan if p is None else p,
            }  # fmt: skip
