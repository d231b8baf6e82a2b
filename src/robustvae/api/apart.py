"""Attacks, foreign images and samples in a notebook: what stages of their own measure."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustvae.api.attack import Plain
from robustvae.api.gathering import Gathered
from robustvae.api.vae import VAE
from robustvae.data import binarize, elsewhere
from robustvae.data.downloads import Library
from robustvae.params import EvaluateSettings
from robustvae.robustness import attacked, batches, foreign, metrics, samples
from robustvae.robustness.evaluation import Images, Material
from robustvae.robustness.finding import Finding
from robustvae.robustness.metrics import Values
from robustvae.robustness.outside import Outside
from robustvae.runtime import files, seeding

NO_TRAIN = "no labelled training images were given, for the classifier whose features are compared"
ALL = slice(None)
OURS = "a mixture is fitted to codes of models of this library"


def changes(
    attacks: Mapping[str, Any] | None,
    outliers: Sequence[str] | None,
    sampled: int | Mapping[str, Any] | None,
) -> tuple[dict[str, Any], set[str]]:
    """Settings that the arguments stand for, by dotted key, and which measurements they ask for."""
    found: dict[str, Any] = {f"evaluate.attacks.{k}": v for k, v in (attacks or {}).items()}
    if isinstance(sampled, Mapping):
        found |= {f"evaluate.samples.{k}": v for k, v in sampled.items()}
    elif sampled is not None:
        found["evaluate.samples.images"] = sampled
    if outliers is not None:
        found["evaluate.outliers"] = list(outliers)
    given = {"attack": attacks, "foreign": outliers, "sample": sampled}
    return found, {name for name, value in given.items() if value is not None}


def own(
    vae: VAE,
    of: Gathered,
    material: Material,
    asked: set[str],
    settings: EvaluateSettings,
    seed: int,
) -> dict[str, Finding]:
    """Of one of our models."""
    model, size, found = vae.model, settings.batch_size, dict[str, Finding]()
    clean, train = material.sets["clean"], material.splits.get("train")
    if "attack" in asked:
        x = batches.pixels(model, clean[batches.spread(len(clean), settings.attacks.images)], ALL)
        score = attacked.likelihood(model, seed)
        found["attack"] = attacked.find(model, x, settings.attacks, seed, score)
    if "foreign" in asked:
        scored = foreign.ours(model, size, seed, settings.regret)
        sets = _foreign(of, settings, vae.binarisation, vae.threshold, seed)
        learnt = None if train is None else train[batches.spread(len(train), foreign.MOST)]
        few = batches.spread(len(clean), foreign.MOST)
        found["foreign"] = foreign.find(scored, clean[few], learnt, sets)
    if "sample" in asked:
        laws = {} if train is None else samples.ours(model, train, settings.samples, size, seed)
        back = partial(_back, model.reconstruct)
        device = next(model.parameters()).device
        found["sample"] = _sampled(laws, back, material, device, settings, seed)
    return found


def anyones(
    model: Any,
    subject: Outside,
    draw: Callable[[int], Any] | None,
    of: Gathered,
    material: Material,
    asked: set[str],
    settings: EvaluateSettings,
    seed: int,
) -> dict[str, Finding]:
    """Of anyone's model; what it cannot do is named and left out."""
    clean, found = material.sets["clean"], dict[str, Finding]()
    unlikely = None if subject.unlikely is None else partial(_unlikely, subject)
    if "attack" in asked:
        few = batches.spread(len(clean), settings.attacks.images)
        x = batches.on(subject.device, clean[few], ALL).to(subject.dtype)
        found["attack"] = attacked.find(Plain(model), x, settings.attacks, seed, unlikely)
    if "foreign" in asked:
        train, few = material.splits.get("train"), batches.spread(len(clean), foreign.MOST)
        learnt = None if train is None else train[batches.spread(len(train), foreign.MOST)]
        score = partial(_scores, subject, settings.batch_size)
        sets = _foreign(of, settings, "none", 0.5, seed)
        found["foreign"] = foreign.find(score, clean[few], learnt, sets)
    if "sample" in asked:
        laws: dict[str, samples.Generate | str] = {"mixture": OURS}
        laws["prior"] = (
            "the model has no sample (sample=...)"
            if draw is None
            else partial(_drawn, draw, subject.device)
        )
        back = partial(_back, subject.back)
        found["sample"] = _sampled(laws, back, material, subject.device, settings, seed)
    return found


def _foreign(
    of: Gathered, settings: EvaluateSettings, mode: str, threshold: float, seed: int
) -> dict[str, Images]:
    """Foreign sets as the model sees them."""
    grey = of.pixels[batches.spread(len(of.pixels), foreign.MOST)]
    library, sets = Library.of(files.user_cache() / "downloads", None), {}
    channels, height, width = grey.shape[1:]
    for name in settings.outliers:
        if name in foreign.FOREIGN:
            made = foreign.make(name, grey, seed)
        else:
            shape = channels, height, width
            made = elsewhere.images(name, shape, foreign.MOST, library, seed)
        rng = seeding.generator(seed, "foreign", "binarize", name)
        sets[name] = binarize.apply(torch.from_numpy(made), mode, threshold, rng).numpy()
    return sets


def _sampled(
    laws: Mapping[str, samples.Generate | str],
    back: Callable[[Tensor], Tensor],
    material: Material,
    device: torch.device,
    settings: EvaluateSettings,
    seed: int,
) -> Finding:
    labels = material.labels.get("train")
    if "train" not in material.splits or labels is None:
        return Finding(reasons={"samples": NO_TRAIN})
    train, test = (batches.on(device, material.splits[s], ALL) for s in ("train", "test"))
    return samples.find(
        test, train, labels, laws, back, settings.samples.images, seed, "own",
        material.labels.get("test"),
    )  # fmt: skip


@torch.inference_mode()
def _back(reconstruct: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([reconstruct(part) for part in torch.split(x, batches.BUSY)])


def _drawn(draw: Callable[[int], Any], device: torch.device, n: int) -> Tensor:
    return torch.as_tensor(draw(n)).to(device).float()


def _unlikely(subject: Outside, x: Tensor) -> Values:
    score = subject.score(x, subject.see(x), ALL)
    assert score is not None
    found: Values = score().double().cpu().numpy()
    return found


def _scores(subject: Outside, size: int, images: Images, _name: str) -> dict[str, Values]:
    """The model's own score, where it has one, and the error to the image itself."""
    found: dict[str, list[Values]] = {}
    for where in batches.slices(len(images), size):
        x = batches.on(subject.device, images, where)
        error = metrics.mse(subject.back(x), x).double().cpu().numpy()
        found.setdefault("e_self", []).append(error)
        if subject.unlikely is not None:
            found.setdefault("neg_elbo", []).append(_unlikely(subject, x))
    return {name: np.concatenate(parts) for name, parts in found.items()}
