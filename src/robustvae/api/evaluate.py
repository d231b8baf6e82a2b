"""Measuring a model from a notebook: ours with all that it has, anyone's with what it can do."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustvae import params
from robustvae.api import apart
from robustvae.api.adapters import adapted
from robustvae.api.corrupting import check, corrupt
from robustvae.api.gathering import Gathered, gather
from robustvae.api.result import Result
from robustvae.api.vae import VAE, Reference
from robustvae.corruptions import CORRUPTIONS, FIFTEEN, resolve
from robustvae.data import binarize, prepared
from robustvae.data.prepared import SPLITS
from robustvae.errors import UserError
from robustvae.params import EvaluateSettings, Params
from robustvae.reporting.figures import Run
from robustvae.robustness import evaluation, measure
from robustvae.robustness.batches import each, on
from robustvae.robustness.evaluation import CLEAN, Evaluation, Images, Material
from robustvae.robustness.metrics import Probe
from robustvae.robustness.outside import Function, Outside, at_rest
from robustvae.runtime import device as devices
from robustvae.runtime import seeding
from robustvae.runtime.progress import say, track

NO_CODES = "the model has no encode (encode=...)"
NO_SCORE = "the model has no log_likelihood and no score (log_likelihood=..., score=...)"
NO_TRAIN = "no labelled training images were given (train=..., train_labels=..., labels=...)"
NO_LAWS = "encode gives no log-variances"
TESTED = "no training images were given (train=...): the constant is the mean of these images"

MOST = 256  # images at a time, at most


def evaluate(
    model: Any,
    images: Any,
    *,
    labels: Any = None,
    train: Any = None,
    train_labels: Any = None,
    names: Sequence[str] = tuple(FIFTEEN),
    severities: str | Sequence[int] = "default",
    settings: Mapping[str, Any] | str | Path | None = None,
    seed: int = 0,
    encode: Function | None = None,
    log_likelihood: Function | None = None,
    score: Function | None = None,
    sample: Callable[[int], Any] | None = None,
    name: str | None = None,
    attacks: Mapping[str, Any] | None = None,
    outliers: Sequence[str] | None = None,
    samples: int | Mapping[str, Any] | None = None,
) -> Result:
    """How well clean images come back from corrupted ones, and all else the pipeline measures.

    `model`: one of ours (from `fit` or `load`), or anything that gives images back: a module or a
    function from float tensors [B, C, H, W] in [0, 1] to the same (or to a tuple that begins with
    them). It may bring, as methods or by keyword, `encode` (images -> codes, or their means and
    log-variances), `log_likelihood` or `score` (images -> [B] in nats; a larger score is less
    likely), `sample` (n -> images). What it lacks is left out, and named in `Result.reasons`.

    `images` and `labels`: to measure on; of our models also "test" of the prepared data. `train`,
    `train_labels`: what it learnt from, for the mean training image and the probe, where the model
    does not know. `settings`: the sections evaluate and plots of params.yaml.

    `attacks` (as `evaluate.attacks`, {} for the defaults; the model must be one that torch can
    differentiate), `outliers` (foreign sets, as `evaluate.outliers`) and `samples` (how many; of
    others' models with `sample`) are measured where they are given.

    >>> import numpy as np, robustvae as rv
    >>> x = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)
    >>> result = rv.evaluate(lambda x: x, x, names=["fog"])
    >>> result.headline["skill_id"]
    0.0
    """
    more, asked = apart.changes(attacks, outliers, samples)
    wanted, chosen = _wanted(names, severities), params.complete(settings, **more)
    brought = {"encode": encode, "log_likelihood": log_likelihood, "score": score, "sample": sample}
    known = None if train is None else gather(train, train_labels, "train")
    if isinstance(model, VAE):
        if given := [key for key, value in brought.items() if value is not None]:
            raise UserError(f"{given[0]}: our models have their own; leave it out")
        if isinstance(images, str) and images in SPLITS:
            of, of_train = _of_project(model, images)
            known, name = known or of_train, name or images
        else:
            of = gather(images, labels)
        return _own(model, of, known, wanted, chosen, seed, name or "images", asked)
    of, title = (
        gather(images, labels),
        name or str(getattr(model, "__name__", type(model).__name__)),
    )
    model = adapted(model)
    brought = {key: value or getattr(model, key, None) for key, value in brought.items()}
    own = chosen.corruptions.own
    material, learnt = _material(of, _reference(known, seed), wanted, seed, own)
    with at_rest(model), devices.restored(), torch.no_grad():
        torch.manual_seed(seeding.seed(seed, "evaluate", "outside"))
        found = _anyones(model, brought, material, learnt, chosen, seed, title)
        if asked:
            draw, subject = brought["sample"], _subject(model, brought)
            found.add(apart.anyones(
                model, subject, draw, of, material, asked, chosen.evaluate, seed
            ))  # fmt: skip
        return found


def _wanted(names: Sequence[str], severities: str | Sequence[int]) -> list[tuple[str, int]]:
    """Names and severities of the corrupted sets."""
    for name in names:
        check(name, "default")
    listed: list[Any] = ["default"] if severities == "default" else list(severities)
    if not listed or any(s != "default" and s not in range(1, 6) for s in listed):
        raise UserError(f"severities: must be a list of 1 .. 5, or default, got {severities!r}")
    return [(n, resolve(n, s)) for n in dict.fromkeys(names) for s in dict.fromkeys(listed)]


def _of_project(vae: VAE, split: str) -> tuple[Gathered, Gathered]:
    """A split of the prepared data, and the training images."""
    data = prepared.load(vae.data)
    names = (split, "train")
    labels = (data.labels[n] if data.labels[n].ndim == 1 else None for n in names)
    parts = [Gathered(np.array(data.grey(n)), of) for n, of in zip(names, labels, strict=True)]
    return parts[0], parts[1]


def _reference(known: Gathered | None, seed: int) -> Reference | None:
    """Of the images that a model learnt from, where they are given."""
    if known is None:
        return None
    index = measure.of_training(len(known.pixels), seed)
    labels = np.full(len(known.pixels), -1) if known.labels is None else known.labels
    mean = known.pixels.mean(0) / np.float32(255)
    return Reference(known.pixels[index], labels[index], mean)


def _material(
    of: Gathered,
    reference: Reference | None,
    wanted: Sequence[tuple[str, int]],
    seed: int,
    own: Callable[[str], Mapping[str, Any]],  # settings of a corruption's own
    binarisation: str = "none",
    threshold: float = 0.5,
) -> tuple[Material, bool]:
    """Images, clean and corrupted, as a model sees them; is it known what it learnt from?"""

    def seen(images: Images) -> Images:
        rng = seeding.generator(seed, "evaluate", "binarize")  # the same draws for every set
        black_white = binarize.apply(torch.from_numpy(images), binarisation, threshold, rng)
        return black_white.numpy()

    sets, listed = {"clean": seen(of.pixels)}, [dict[str, Any](CLEAN)]
    for name, severity in track(wanted, "corrupting", len(wanted), "set"):
        entry, key = CORRUPTIONS[name], f"{name}-{severity}"
        sets[key] = seen(corrupt(of.pixels, name, severity, seed, **own(name)))
        where = {"group": entry.group, "severity": severity, "default": severity == entry.default}
        listed.append({"name": key, "corruption": name, **where})
    splits, labels = {"test": sets["clean"]}, {}
    mean_image = sets["clean"].mean(0) / np.float32(255)
    if reference is not None:
        splits["train"], mean_image = seen(reference.images), reference.mean_image
        if (reference.labels >= 0).any():
            labels["train"] = reference.labels
    labels |= {} if of.labels is None else {"test": of.labels}
    binary = binarisation != "none"
    return Material(splits, sets, listed, mean_image, labels, binary), reference is not None


def _own(
    vae: VAE,
    of: Gathered,
    known: Gathered | None,
    wanted: Sequence[tuple[str, int]],
    chosen: Params,
    seed: int,
    title: str,
    asked: set[str],
) -> Result:
    if of.pixels.shape[1:] != vae.shape:
        raise UserError(
            f"images: {list(of.pixels.shape[1:])}, but the model takes {list(vae.shape)}; "
            "resize them"
        )
    reference, model = _reference(known, seed) or vae.reference, vae.model
    binary, own = (vae.binarisation, vae.threshold), chosen.corruptions.own
    material, learnt = _material(of, reference, wanted, seed, own, *binary)
    with devices.restored():
        found = evaluation.own(model, material, chosen.evaluate, seed)
        assert found is not None  # in one process
        more = apart.own(vae, of, material, asked, chosen.evaluate, seed)
    found.details["warnings"].extend([] if learnt else [TESTED])
    data = {**model.config.get("data", {}), "name": title}
    data["counts"] = {**data.get("counts", {}), "test": len(of.pixels)}
    labels = np.full(len(of.pixels), -1) if of.labels is None else of.labels
    classes = [str(c) for c in range(int(labels.max()) + 1)]
    run = Run(
        title, model, model.reconstruct, model.sample, f"{found.details['score']}, nats", seed,
        chosen.plots, material.sets["clean"], *_corrupted(material), labels, classes, vae.history,
        found.rows, found.latents, found.scores,
    )  # fmt: skip
    result = Result(found, run, {**model.config, "data": data})
    result.add(more)
    return result


def _anyones(
    model: Any,
    brought: Mapping[str, Any],
    material: Material,
    learnt: bool,
    chosen: Params,
    seed: int,
    title: str,
) -> Result:
    subject, clean = _subject(model, brought), material.sets["clean"]
    warnings = [] if learnt else [TESTED]
    first = on(subject.device, clean, slice(0, 2))
    if not torch.equal(subject.back(first), subject.back(first)):
        warnings.append("reconstructions of the same image differ: the model draws at random")
    found = _as_fits(partial(_measured, subject, material, chosen.evaluate, seed))
    found.details["warnings"][:0] = warnings
    found.details["score"] = "negative log-likelihood" if brought["log_likelihood"] else "score"
    data = {"name": title, "shape": list(clean.shape[1:]), "counts": {"test": len(clean)}}
    labels = material.labels.get("test", np.full(len(clean), -1))
    draw = brought["sample"]
    run = Run(
        title, None, subject.back, draw and (lambda n: torch.as_tensor(draw(n)).cpu()),
        found.details["score"], seed, chosen.plots, clean, *_corrupted(material), labels, [], None,
        found.rows, found.latents, found.scores,
    )  # fmt: skip
    return Result(found, run, {"what": title, "data": data})


def _subject(model: Any, brought: Mapping[str, Any]) -> Outside:
    """The model with what it can do besides, where its weights are and in their type."""
    if not callable(getattr(model, "reconstruct", model)):
        raise UserError(
            f"model: {type(model).__name__} gives no images back; give a module, a function, or "
            "an object with a method reconstruct"
        )
    weights = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    device, dtype = torch.device("cpu"), torch.float32
    if weights is not None:
        device, dtype = weights.device, weights.dtype
    likelihood, unlikely = brought["log_likelihood"], brought["score"]
    if likelihood is not None:
        unlikely = partial(_negative, likelihood)
    reconstruct = getattr(model, "reconstruct", model)
    return Outside(reconstruct, device, dtype, brought["encode"], unlikely)


def _negative(likelihood: Function, x: Tensor) -> Tensor:
    return -torch.as_tensor(likelihood(x))


def _measured(
    subject: Outside, material: Material, settings: EvaluateSettings, seed: int, size: int
) -> Evaluation:
    """All that such a model can be asked, so many images at a time."""
    clean, labels = material.sets["clean"], material.labels
    missing = {}
    if subject.unlikely is None:
        missing = dict.fromkeys(("neg_elbo", "delta_elbo", "auroc", "fpr95"), NO_SCORE)
    probe: Probe | str = NO_TRAIN
    if subject.encode is None:
        missing |= dict.fromkeys(("drift", "skl"), NO_CODES)
        probe = NO_CODES
    else:
        subject.follow(clean, size)
        if subject.coded(on(subject.device, clean, slice(0, 1)))[0] is None:
            missing["skl"] = NO_LAWS
        if {"train", "test"} <= labels.keys():
            codes = partial(_codes, subject, material.splits["train"], size)
            probe = measure.fit_probe(codes, labels["train"], labels["test"], settings)
    settings = settings.model_copy(update={"batch_size": size})
    return evaluation.foreign(subject, material, probe, missing, settings, seed)


def _codes(subject: Outside, images: Images, size: int) -> NDArray[np.float64]:
    """What the probe learns from."""
    parts = each(lambda w: subject.coded(on(subject.device, images, w))[2].cpu(), len(images), size,
                 "codes", alone=True)  # fmt: skip
    return torch.cat(parts).double().numpy()


def _as_fits(work: Callable[[int], Evaluation]) -> Evaluation:
    """The work on batches as large as memory allows."""
    size = MOST
    while True:
        try:
            return work(size)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size //= 2
            torch.cuda.empty_cache()
            say(f"out of memory: {size} images at a time")


def _corrupted(material: Material) -> tuple[list[dict[str, Any]], dict[str, Images]]:
    """The corrupted sets as figures take them."""
    rows = [{**row, "name": row["corruption"]} for row in material.listed[1:]]
    return rows, {name: images for name, images in material.sets.items() if name != "clean"}
