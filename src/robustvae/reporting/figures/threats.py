"""Figures of attacks, foreign images and samples, from what their stages found."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robustvae.reporting.figures import attacks, charts, pictures
from robustvae.reporting.figures.run import Run

SCORES = {
    "neg_elbo": "negative ELBO", "weighted": "weighted bound", "typicality": "typicality",
    "complexity": "ELBO less PNG", "e_self": "error to itself", "regret": "regret",
}  # fmt: skip
WHOSE = {"prior": "prior", "mixture": "mixture of codes"}
Arrays = Mapping[str, NDArray[Any]]


def strips(kind: str, run: Run, title: str) -> Figure | None:
    """The first images, attacked at the largest radius."""
    found = run.attack
    if f"{kind}/clean" not in found:
        return None
    parts = [found[f"{kind}/{n}"] for n in ("clean", "attacked", "back", "back_attacked")]
    few = slice(0, run.settings.examples)
    clean, attacked, back, back_attacked = (part[few] for part in parts)
    note = run.note(f"{kind} attack", f"radius {found['radii'][-1]:g}")
    return attacks.strips(clean, attacked, back, back_attacked, title, note)


def damage(kind: str, run: Run, title: str) -> Figure | None:
    """By radius, beside random directions."""
    found = run.attack
    if f"{kind}/damage" not in found:
        return None
    curves = {"attack": found[f"{kind}/damage"], "random direction": found[f"{kind}/random"]}
    own, n = float(found[f"{kind}/clean_error"].mean()), found[f"{kind}/damage"].shape[1]
    note = run.note(f"{kind} attack", f"n = {n} test images", "whiskers: 95 % interval over images")
    return attacks.damage(list(found["radii"]), curves, own, title, note)


def roc(run: Run, title: str) -> Figure | None:
    """Of every score, a panel per foreign set."""
    found = run.foreign
    names = list(dict.fromkeys(name.rpartition("/")[0] for name in found if "/" in name))
    sets = [name for name in names if name != "own"]
    if not sets:
        return None
    return charts.foreign({s: _pairs(found, s) for s in sets}, title, run.note("own test images"))


def _pairs(found: Arrays, name: str) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Scores of the own images and of the foreign ones, as many of each."""
    pairs = {}
    for score, label in SCORES.items():
        if f"{name}/{score}" in found:
            own, other = found[f"own/{score}"], found[f"{name}/{score}"]
            n = min(len(own), len(other))
            pairs[label] = own[:n], other[:n]
    return pairs


def samples(run: Run, title: str) -> Figure | None:
    """Samples by falling certainty of the classifier, of each law."""
    found, across = run.sample, run.settings.examples
    blocks = {}
    for name, label in WHOSE.items():
        if f"{name}/images" in found:
            images, certainty = found[f"{name}/images"], found[f"{name}/certainty"]
            across = min(across, len(images))
            chosen = np.linspace(0, len(images) - 1, len(images) // across * across).astype(int)
            rows = chosen.reshape(-1, across)
            for row in rows[: max(1, 30 // across)]:
                blocks[f"{label}, {certainty[row].mean():.2f}"] = images[row]
    if not blocks:
        return None
    note = run.note("numbers: mean probability that the classifier gives its first choice")
    return pictures.rows(np.stack(list(blocks.values())), list(blocks), title, note)
