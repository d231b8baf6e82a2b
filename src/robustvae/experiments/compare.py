"""Experiments that differ in the seed alone, taken together and compared with a baseline."""

import json
import math
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import StringIO
from typing import Any

import dvc.api
import pandas as pd
from dvc.exceptions import DvcException

from robustvae.errors import UserError, did_you_mean
from robustvae.experiments.statistics import relative
from robustvae.params import LossSettings, yaml12
from robustvae.params.loading import flatten

UNSET = ("null", "none")  # values of settings that a label is silent about
USUAL = {"loss.alpha": "1", "loss.df": "0"}  # together: KL between normal laws
QUIET = {  # values that say nothing beside what is set
    "loss.divergence": "auto",
    "loss.capacity.steps": "100000",
    "train.input_noise.amount": "0",
}
APART = ("attack", "foreign", "samples")  # files of what is measured apart
BARE = str.maketrans("", "", '[]"')  # a list in a label is plain words
MANY = 4  # so many of them are counted instead
ASIDE = (
    "plots.",
    "report.",
    "run.device",
    "run.threads",
    "run.tracker",
)  # settings that change no result


@dataclass(frozen=True)
class Quantity:
    """What runs are compared in."""

    place: str | None  # in metrics.json; None: in per cent of the baseline's run of the same seed
    heading: str
    lower: bool = True  # lower is better
    margin: float | None = None  # differences within it do not matter; None: ratios count


_ROBUSTNESS, _OUTLIERS = "robustness.", "outliers."
_FOUND = {
    "auroc": "AUROC",
    "ap": "average precision",
    "auroc_pca": "AUROC, by PCA's residual,",
    "auroc_forest": "AUROC, by an isolation forest,",
}
QUANTITIES: dict[str, Quantity] = {
    "e_den": Quantity(f"{_ROBUSTNESS}e_den", "error to the clean image, squared, per pixel"),
    "mRE": Quantity(None, "mRE, % of the baseline's error"),
    "relative_mRE": Quantity(None, "relative mRE, % of the baseline's rise in error"),
    "skill": Quantity(
        f"{_ROBUSTNESS}skill", "skill, 1 perfect, 0 as the better baseline", False, 0.02
    ),
    "skill_id": Quantity(f"{_ROBUSTNESS}skill_id", "skill against doing nothing", False, 0.02),
    "ssim_den": Quantity(f"{_ROBUSTNESS}ssim_den", "SSIM with the clean image", False, 0.01),
    "auroc": Quantity(f"{_ROBUSTNESS}auroc", "AUROC of the negative ELBO", False, 0.01),
    "clean_e_den": Quantity(
        f"{_ROBUSTNESS}clean_e_den", "error on clean images, squared, per pixel"
    ),
    "geometric_e_den": Quantity(
        f"{_ROBUSTNESS}geometric_e_den", "error to the clean image, geometric corruptions"
    ),
    "geometric_mRE": Quantity(None, "mRE of the geometric corruptions, %"),
    "skill_below_0": Quantity(
        f"{_ROBUSTNESS}skill_below_0", "corruptions worse than a baseline", margin=0.5
    ),
    "constant_wins": Quantity(
        f"{_ROBUSTNESS}constant_wins", "corruptions on which a constant is better", margin=0.5
    ),
    "active_units": Quantity(f"{_ROBUSTNESS}active_units", "active units", False, 1),
    "found_first": Quantity(
        f"{_OUTLIERS}found_first", "outliers among the 100 least likely images", False, 0.02
    ),
    **{
        f"{place}_{name}": Quantity(
            f"{_OUTLIERS}{place}_{name}", f"{said} of {place} outliers", False, 0.01
        )
        for place in ("train", "test")
        for name, said in _FOUND.items()
    },
    "impurity": Quantity(f"{_OUTLIERS}impurity", "share of samples like outliers", margin=0.005),
    "margin": Quantity(
        "attack.margin", "radius at which an attack does the model's own error, median", False
    ),
    "damage_1": Quantity("attack.damage_1", "damage of an attack of radius 1, squared, per pixel"),
    "damage_3": Quantity("attack.damage_3", "damage of an attack of radius 3, squared, per pixel"),
    "noticed": Quantity("attack.noticed", "AUROC of attacked images, largest radius", False, 0.01),
    "foreign_auroc": Quantity(
        "foreign.mean_auroc", "AUROC of the negative ELBO, mean over foreign sets", False, 0.01
    ),
    "worst_auroc": Quantity(
        "foreign.worst_auroc", "lowest AUROC of the negative ELBO for foreign images", False, 0.01
    ),
    "fd": Quantity("samples.fd", "Frechet distance of samples, features of a small classifier"),
    "fd_mixture": Quantity("samples.fd_mixture", "the same, of a mixture fitted to the codes"),
    "log_likelihood": Quantity(
        "likelihood.log_likelihood", "log-likelihood, best bound, nats", False, 1
    ),
}


@dataclass(frozen=True)
class Run:
    """One finished experiment."""

    name: str
    seed: int | str  # what runs are paired by; words once another setting is part of it
    settings: dict[str, str]  # by dotted key: all that may change a result, except the seed
    standard: bool  # KL from a standard normal prior, beta 1, no capacity, not robust
    metrics: dict[str, Any]  # by dotted key
    errors: pd.Series  # e_den of the model by (group, corruption, severity); clean among them
    commit: str = ""  # where its results are; "": in the table that it was read from
    origin: dict[str, str] = field(default_factory=dict)  # code and versions, where they are known

    @property
    def apart(self) -> dict[str, str]:
        """The settings, the loss apart."""
        return {k: v for k, v in self.settings.items() if not k.startswith("loss.")}

    def over(self, key: str) -> "Run":
        """The same, its value of this setting and its seed together being what runs pair by."""
        rest = dict(self.settings)
        if key not in rest:
            raise UserError(f"--over: no parameter {key!r}{did_you_mean(key, rest)}")
        return replace(self, seed=f"{rest.pop(key)}, seed {self.seed}", settings=rest)


@dataclass(eq=False)
class Group:
    """Runs that differ in the seed alone, one per seed."""

    runs: dict[int | str, Run]
    label: str = ""
    base: "Group | None" = None  # what relative errors and differences refer to

    @property
    def run(self) -> Run:
        """Any of the runs, for what they share."""
        return next(iter(self.runs.values()))

    @cached_property
    def values(self) -> pd.DataFrame:
        """One row per seed, one column per quantity; nan where null."""
        rows = []
        for seed, run in self.runs.items():
            places = {name: q.place for name, q in QUANTITIES.items() if q.place}
            row = {name: run.metrics.get(place) for name, place in places.items()}
            pair = self.base and self.base.runs.get(seed)
            rows.append(row | (relative(run.errors, pair.errors) if pair else {}))
        return pd.DataFrame(rows, list(self.runs), list(QUANTITIES), dtype=float)


def git(*words: str) -> str:
    """Output of a git command."""
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def experiments() -> dict[str, str]:
    """Names of DVC's finished experiments -> their commits, oldest first."""
    form = "--format=%(refname) %(objectname)"
    listed = git("for-each-ref", "--sort=creatordate", form, "refs/exps")
    pattern = r"^refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(\S+) ([0-9a-f]{40})$"
    return dict(re.findall(pattern, listed, re.MULTILINE))


def read(names: Sequence[str], notes: list[str]) -> list[Run]:
    """The named experiments or commits, or all experiments; adds to `notes` what was left out."""
    known = experiments()
    runs = []
    for name in names or known:
        try:
            runs.append(_read(name, known.get(name, name)))
        except (UserError, KeyError, ValueError) as error:
            if names:
                reason = str(error).partition("\n")[0]
                raise UserError(f"{name}: no experiment with results ({reason})") from None
            notes.append(f"{name} is left out, it has no results of this kind")
    if not runs:
        raise UserError("no experiments with results; make some with `dvc exp run -S KEY=VALUE`")
    return runs


def _read(name: str, commit: str) -> Run:
    content = yaml12.parse(git("show", f"{commit}:params.yaml"))
    metrics = json.loads(_content(commit, "reports/metrics.json"))
    for part in APART:
        path = f"reports/{part}.json"
        if git("ls-tree", commit, path):  # none in a run of before it was measured
            metrics[part] = json.loads(git("show", f"{commit}:{path}"))
    table = StringIO(_content(commit, "reports/robustness.csv"))
    return assemble(name, content, metrics, pd.read_csv(table), commit=commit)


def assemble(
    name: str, content: dict[str, Any], metrics: dict[str, Any], table: pd.DataFrame, **more: Any
) -> Run:
    """A run from its params.yaml, metrics.json and robustness.csv; `more`: where it comes from."""
    bounds = metrics.setdefault("likelihood", {})  # the importance-weighted one is the tighter
    known = [bounds[key] for key in bounds if key.startswith("iwae_") or key == "elbo"]
    best = [value for value in known if value is not None]
    bounds.setdefault("log_likelihood", max(best, default=None))
    rows = table[table["method"] == "model"].set_index(["group", "corruption", "severity"])
    settings, standard = judge(content)
    seed = int(settings.pop("run.seed"))
    return Run(name, seed, settings, standard, flatten(metrics), rows["e_den"], **more)


def judge(content: dict[str, Any]) -> tuple[dict[str, str], bool]:
    """What of params.yaml may change a result, in one spelling; is it the standard loss?"""
    loss = LossSettings.model_validate(content["loss"])
    kl = loss.kind in ("alpha", "renyi") and loss.order == 1
    kl = kl and content["model"]["latent"]["name"] != "vq"
    plain_kl = kl and loss.capacity.weight is None and loss.prior.standard
    standard = plain_kl and loss.beta == 1 and loss.robust.name == "none"
    # One loss, one spelling: auto where it stands for the same, alpha 1 where it is not set.
    usual = kl or loss.kind == loss.model_copy(update={"divergence": "auto"}).kind
    same = {"alpha": loss.order, "divergence": "auto" if usual else loss.kind}
    settings = flatten({**content, "loss": loss.model_dump() | same})
    return {k: plain(v) for k, v in settings.items() if not k.startswith(ASIDE)}, standard


def origin(commit: str) -> dict[str, str]:
    """The commit that an experiment started from, and the versions that trained its model."""
    found = {"code": git("rev-parse", f"{commit}^").strip()}
    try:
        known = json.loads(_content(commit, "models/config.json"))["versions"]
    except (UserError, KeyError, ValueError):
        return found
    return found | {str(name): str(version) for name, version in known.items()}


def _content(commit: str, path: str) -> str:
    """A file of a commit, from git or from the DVC cache."""
    if git("ls-tree", commit, path):
        return git("show", f"{commit}:{path}")
    try:
        return str(dvc.api.read(path, rev=commit))
    except (DvcException, OSError) as error:
        raise UserError(f"{path}: {error}") from None


def plain(value: Any) -> str:
    """A setting as text, the same for 1 and 1.0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.10g}" if number else json.dumps(value).strip('"')


def group(
    runs: Sequence[Run], by: str | None, baseline: str | None, notes: list[str]
) -> list[Group]:
    """Runs by everything but the seed, labelled by what differs between them, in a stable order."""
    found: dict[frozenset[tuple[str, str]], Group] = {}
    named = None
    for run in runs:
        one = found.setdefault(frozenset(run.settings.items()), Group({}))
        if run.seed in one.runs:
            same = f"{one.runs[run.seed].name} and {run.name}"
            notes.append(f"{same} have the same parameters and seed: the later one counts")
        one.runs[run.seed] = run
        named = one if run.name == baseline else named
    if baseline is not None and named is None:
        raise UserError(f"--baseline: no such experiment {baseline!r} among those compared")

    groups = list(found.values())
    table = pd.DataFrame([one.run.settings for one in groups]).fillna("null")
    differ = sorted(table.columns[table.nunique() > 1])
    if by is not None and by not in table:
        known = ", ".join(differ) or "none"
        raise UserError(f"--by: no parameter of a group is {by!r}; those that differ: {known}")
    shown = ([by] if by else []) + [k for k in differ if k != by]
    spoken = {key: _brief(table[key].unique()) for key in shown}
    for one in groups:
        values = {key: spoken[key][one.run.settings.get(key, "null")] for key in shown}
        said = [
            f"{key.removeprefix('loss.')} {value}"
            for key, value in values.items()
            if key == by or value not in (*UNSET, USUAL.get(key), QUIET.get(key))
        ]
        usual = [key for key in USUAL if key in values]
        if usual and by not in usual and all(values[key] == USUAL[key] for key in usual):
            said.insert(0, "KL")
        one.label = ", ".join(said) or ", ".join(f"{k} {v}" for k, v in values.items())
        one.label = one.label.translate(BARE) or "all runs"
    groups.sort(key=lambda one: [_rank(one.run.settings.get(key, "null")) for key in shown])
    notes += _refer(groups, named)
    return groups


def _brief(values: Iterable[str]) -> dict[str, str]:
    """Values of a setting -> as labels say them: of long lists the first, the last and how many
    they are, where that still tells them apart."""
    short = {}
    for value in values:
        items = value.split(", ") if value.startswith("[") else []
        many = len(items) >= MANY
        short[value] = f"{items[0]} to {items[-1]} ({len(items)})" if many else value
    return short if len(set(short.values())) == len(short) else {value: value for value in short}


def _rank(value: str) -> tuple[bool, float, str]:
    """Numbers by size, then words."""
    number = float(pd.to_numeric(value, errors="coerce"))
    return (True, 0.0, value) if math.isnan(number) else (False, number, "")


def _refer(groups: Sequence[Group], named: Group | None) -> list[str]:
    """Set the baselines: the named group, or the standard one that differs in the loss alone.

    Returns a note for each reason why groups have none."""
    lacking: dict[str, list[str]] = {}
    for one in groups:
        standard = [g for g in groups if g.run.standard and g.run.apart == one.run.apart]
        bases = [named] if named else standard
        if len(bases) == 1:
            one.base = bases[0]
            continue
        labels = "; ".join(base.label for base in bases)
        why = f"several qualify ({labels}), --baseline is needed" if bases else "none qualifies"
        lacking.setdefault(why, []).append(one.label)
    rule = "no baseline (KL, beta 1, standard prior, all but the loss being equal)"
    end = "no relative errors or differences"
    return [f"{rule} for {'; '.join(labels)}, {end}: {why}" for why, labels in lacking.items()]
