"""What attacks of a model come to: a row per kind and radius, margins, and what can be seen."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder
from robustvae.params.results import AttackSettings
from robustvae.robustness import attacks, bounds, rates
from robustvae.robustness.attacks import Hit, Plan
from robustvae.robustness.batches import spread
from robustvae.robustness.bounds import Draws
from robustvae.robustness.finding import Finding
from robustvae.robustness.metrics import Values, mean
from robustvae.runtime.progress import track

SHOWN = 10  # images of a strip
MOST, VALUES = 50, 2**20  # images at a time, and values in them: bound the memory
Score = Callable[[Tensor], Values]  # images -> how unlikely they are, [N]


def table(hit: Hit, radii: Sequence[float]) -> pd.DataFrame:
    """A row per radius: damage per pixel, that of random directions, their ratio, the error."""
    rows = []
    for i, radius in enumerate(radii):
        row: dict[str, float] = {"radius": radius}
        for name, found in (("damage", hit.damage), ("random", hit.chance), ("e_den", hit.error)):
            row[name], row[f"{name}_se"] = mean(found[i])
        rows.append(row | {"ratio": row["damage"] / row["random"] if row["random"] else np.nan})
    return pd.DataFrame(rows)


def quartiles(margin: NDArray[np.float64]) -> dict[str, float]:
    """Of the radius at which the damage reaches the model's own clean error.

    Infinite where the largest radius is not enough for so many images.
    """
    ordered = np.sort(margin)
    places = {"lower": 0.25, "median": 0.5, "upper": 0.75}
    return {name: float(ordered[int(q * (len(ordered) - 1))]) for name, q in places.items()}


def find(
    model: Any, x: Tensor, settings: AttackSettings, seed: int, score: Score | None
) -> Finding:
    """Attacks of every kind on all images [N, C, H, W], in [0, 1]; `score`: does it notice?"""
    if not settings.images:
        return Finding(reasons={"attacks": "evaluate.attacks.images is 0"})
    plan, radii = Plan(settings.norm, settings.steps, settings.restarts, seed), settings.radii
    tables: list[pd.DataFrame] = []
    arrays: dict[str, NDArray[Any]] = {}
    headline: dict[str, float] = {}
    reasons: dict[str, str] = {}
    said = []
    for kind in settings.kinds:
        shown = partial(_shown, kind)
        try:
            hit = attacks.strike(model, x, kind, radii, plan, _size(x), shown)
        except UserError as error:
            reasons[f"attacks.{kind}"] = str(error)
            continue
        rows = table(hit, radii)
        rows.insert(0, "kind", kind)
        rows.insert(1, "norm", settings.norm)
        if score is not None:
            rows = rows.join(_noticed(score, x, hit))
        tables.append(rows)
        margin = quartiles(hit.margin)
        headline |= {"margin" if kind == "output" else f"{kind}_margin": margin["median"]}
        if kind == "output":
            headline |= {f"damage_{r:g}": v for r, v in zip(radii, rows["damage"], strict=True)}
            headline |= {"noticed": rows["auroc"].iloc[-1]} if "auroc" in rows else {}
        arrays |= {f"{kind}/damage": hit.damage, f"{kind}/random": hit.chance}
        arrays |= {f"{kind}/margin": hit.margin, f"{kind}/clean_error": hit.clean}
        arrays |= _strip(model, x, hit, kind)
        said.append(_sentence(kind, rows, margin, settings, getattr(model, "family", None)))
    if not tables:
        return Finding(reasons=reasons)
    arrays["radii"] = np.array(radii)
    return Finding(pd.concat(tables), headline, " ".join(said), [], reasons, arrays)


def _size(x: Tensor) -> int:
    """Images of a batch: as many as fit, but an even number of batches, for two threads."""
    most = max(1, min(MOST, VALUES // x[0].numel()))
    pairs = math.ceil(len(x) / (2 * most))
    return math.ceil(len(x) / (2 * pairs))


def _shown(kind: str, batches: Iterable[list[Tensor]], count: int) -> Iterable[list[Tensor]]:
    return track(batches, f"{kind} attack", count, "batch")


def likelihood(model: Autoencoder, seed: int) -> Score:
    """The negative ELBO from one draw, the same for an image and its attacked versions."""

    @torch.inference_mode()
    def score(x: Tensor) -> Values:
        q = None if model.family == "vq" else model.posterior(x)
        noise = None if q is None else Draws(seed).standard(q, "score")
        found: Values = bounds.score(model, x, q, noise).double().cpu().numpy()
        return found

    return score


def _noticed(score: Score, x: Tensor, hit: Hit) -> pd.DataFrame:
    """AUROC of the score between clean and attacked images, with its interval."""
    clean = score(x)
    found = [rates.auroc(clean, score(torch.from_numpy(a).to(x))) for a in hit.attacked]
    ends = ("", "_se", "_low", "_high")
    return pd.DataFrame(found).set_axis([f"auroc{end}" for end in ends], axis=1)


@torch.no_grad()
def _strip(model: Any, x: Tensor, hit: Hit, kind: str) -> dict[str, NDArray[Any]]:
    """Some images before and after the attack at the largest radius, and what comes back."""
    few = spread(len(x), SHOWN)
    first, last = x[few], torch.from_numpy(hit.attacked[-1][few]).to(x)
    through = attacks.reconstruction(model)
    shown = {"clean": first, "attacked": last}
    shown |= {"back": through(first), "back_attacked": through(last)}
    return {f"{kind}/{name}": v.float().cpu().numpy() for name, v in shown.items()}


def _sentence(
    kind: str, rows: pd.DataFrame, margin: dict[str, float], settings: AttackSettings, family: Any
) -> str:
    """What the last row and the margin say."""
    last = rows.iloc[-1]
    what = "an L2 distance" if settings.norm == "l2" else "a change of every pixel"
    how = " (through the straight-through gradient of its codes)" if family == "vq" else ""
    times = "" if np.isnan(last["ratio"]) else f", {last['ratio']:.3g} times random directions"
    half = (
        f"for half of the images {margin['median']:.2g} is enough to move it by the model's own "
        "error"
        if np.isfinite(margin["median"])
        else f"for half of the images {last['radius']:g} is not enough to move it by the model's "
        "own error"
    )
    return (
        f"The {kind} attack{how} within {what} of {last['radius']:g} moves the reconstruction by "
        f"{last['damage']:.3g} per pixel (squared){times}; {half}."
    )
