"""The figures of a run, one function each: a Figure, or None where the run has nothing for it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from robustvae.reporting.figures import charts, latent, pictures
from robustvae.reporting.figures.pictures import Images
from robustvae.reporting.figures.run import Array, Run, key, label
from robustvae.robustness import collapse, quantiles
from robustvae.robustness.quantiles import Law, qq

TRAVERSED = (0.02, 0.98)  # probabilities of the prior between which a latent is moved
SCATTERED = 1500  # points of a scatter panel, at most
INTERVAL = "whiskers: 95 % interval over images"


class Entry(NamedTuple):
    """A figure of the report; the caption says how to read it, charts are written as vectors."""

    section: str
    kind: Literal["chart", "picture"]
    title: str
    draw: Callable[[Run, str], Figure | None]
    caption: str


def _bars(quantities: list[str], run: Run, title: str) -> Figure | None:
    model = run.rows("model")
    known = [name for name in quantities if name in model and model[name].notna().any()]
    if not known:
        return None
    names = {"corrupted image itself": "identity", "mean training image": "mean_image"}
    baselines = {name: run.rows(method) for name, method in names.items()}
    note = run.note(f"{run.n} per bar", INTERVAL)
    return charts.bars(model, [label(item) for item in run.shown], known, baselines, title, note)


def _severities(run: Run, title: str) -> Figure | None:
    if not run.several:
        return None
    table = run.table[run.table["method"] == "model"].set_index("corruption")
    clean, rows = table["e_den"]["clean"], table.drop("clean").reset_index()
    note = run.note("squared error per pixel to the clean image", f"{run.n} per point", INTERVAL)
    return charts.severity_curves(rows, "e_den", clean, title, note)


def _heat_map(run: Run, title: str) -> Figure | None:
    if not run.several:
        return None
    rows = run.table[(run.table["method"] == "model") & (run.table["corruption"] != "clean")]
    return charts.heat_map(rows, "skill", title, run.note(f"{run.n} per cell", "no unit"))


def _roc(run: Run, title: str) -> Figure | None:
    if "clean/neg_elbo" not in run.scores or not run.sets:
        return None
    groups: dict[str, dict[str, Array]] = {}
    for item in run.shown:
        groups.setdefault(item["group"], {})[label(item)] = run.scores[f"{key(item)}/neg_elbo"]
    binary = run.model.config["data"].get("binarize", "none") != "none"
    proper = run.model.likelihood.proper(binary)
    score = f"score: {'negative ELBO' if proper else 'cross-entropy + KL'}, nats"
    note = run.note(score, f"{run.n}, clean and corrupted, per curve")
    return charts.roc(run.scores["clean/neg_elbo"], groups, title, note)


@torch.inference_mode()
def _reconstructions(run: Run, title: str) -> Figure:
    x, model = _x(run.clean[_spread(len(run.clean), run.settings.examples)]), run.model
    z = model.quantise(x) if model.family == "vq" else model.posterior(x).rsample()
    tiles = _tiles(x, model.reconstruct(x), model.likelihood.sample(model.decode(z), z))
    names = ["truth", "mean reconstruction", "sampled reconstruction"]
    return pictures.rows(tiles, names, title, run.note(f"{len(x)} of {run.n}"))


def _corrupted(run: Run, title: str) -> Figure | None:
    index = _spread(len(run.clean), _few(run))
    return _blocks(run, {key(item): index for item in run.shown}, title, "the same")


def _worst(run: Run, title: str) -> Figure | None:
    if "clean/e_den" not in run.scores:
        return None
    errors = {key(item): run.scores[f"{key(item)}/e_den"] for item in run.shown}
    worst = {k: np.argsort(-error, kind="stable")[: _few(run)] for k, error in errors.items()}
    return _blocks(run, worst, title, "the worst")


@torch.inference_mode()
def _blocks(run: Run, index: Mapping[str, Array], title: str, which: str) -> Figure | None:
    groups = {}
    for item in run.shown:
        chosen = index[key(item)]
        seen = _x(run.corrupted[key(item)][chosen])
        groups[label(item)] = _tiles(_x(run.clean[chosen]), seen, run.model.reconstruct(seen))
    note = run.note(f"{which} {_few(run)} of {run.n} in each block")
    names = ["clean", "corrupted", "reconstructed"]
    return pictures.blocks(groups, names, title, note) if groups else None


def _contact_sheet(run: Run, title: str) -> Figure:
    """Corruption by image; where there are several severities, corruption by severity."""
    if not run.several:
        index = _spread(len(run.clean), run.settings.examples)
        each = [run.clean[index], *(run.corrupted[key(item)][index] for item in run.shown)]
        names = ["clean", *map(label, run.shown)]
        return pictures.rows(np.stack(each), names, title, run.note(f"{len(index)} of {run.n}"))
    severities, names = sorted({s["severity"] for s in run.sets}), [s["name"] for s in run.shown]
    tiles = np.full((len(names), len(severities) + 1, *run.clean.shape[1:]), 255, np.uint8)
    tiles[:, 0] = run.clean[0]
    for item in run.sets:
        place = names.index(item["name"]), severities.index(item["severity"]) + 1
        tiles[place] = run.corrupted[key(item)][0]
    columns, rows = ["clean", *map(str, severities)], [name.replace("_", " ") for name in names]
    note = run.note(f"1 of {run.n}")
    return pictures.rows(tiles, rows, title, note, columns, across="severity")


def _qq_grid(run: Run, title: str) -> Figure | None:
    if run.model.family == "vq":
        return None
    z, law = _standardised(run)
    panels = quantiles.panels(z, law)
    worst = sorted(panels, key=lambda dim: -panels[dim].distance)[: run.settings.qq_panels]
    dims = f"{len(worst)} of {len(panels)} dimensions"
    note = run.note("one z per image, in units of the prior", f"{run.n} per panel", dims)
    active = list(run.latents["active"].astype(bool))
    return latent.qq_grid({dim: panels[dim] for dim in worst}, active, law, title, note)


def _qq_pooled(run: Run, title: str) -> Figure | None:
    if run.model.family == "vq":
        return None
    z, law = _standardised(run)
    note = run.note(f"n = {z.shape[0]:,} images x {z.shape[1]} dimensions", "in units of the prior")
    return latent.qq_pooled(qq(z.ravel(), law, 400), law, title, note)


def _standardised(run: Run) -> tuple[Array, Law]:
    """Aggregate posterior [N, Z] in units of the prior's scale, and the law it should follow."""
    mu, logvar = (run.latents[name].astype(float) for name in ("mu", "logvar"))
    rng = collapse.one_each(run.model.config["run"]["seed"])
    laws = [run.law(dim) for dim in range(mu.shape[1])]
    return quantiles.standardised(mu, logvar, float(run.latents["df"]), laws, rng)


def _kl(run: Run, title: str) -> Figure | None:
    if run.model.family == "vq":
        return None
    kl, active = run.latents["kl_per_dim"].astype(float), run.latents["active"]
    note = run.note(f"nats, mean over {run.n}", f"{active.sum()} of {len(kl)} active")
    return latent.kl_per_dimension(kl, active, title, note)


def _scatter(run: Run, title: str) -> Figure | None:
    if run.model.family == "vq" or run.latents["mu"].shape[1] < 2:
        return None
    sets = {"clean": "mu"} | {label(item): f"mu/{key(item)}" for item in run.shown[:15]}
    means = {name: run.latents[place] for name, place in sets.items()}
    dims = _most_active(run)[:2]
    index = _spread(min(map(len, means.values())), SCATTERED)
    points = {name: mu[index][:, dims].astype(float) for name, mu in means.items()}
    note = run.note("posterior means, no unit", f"the same {len(index):,} of {run.n} in each panel")
    pair = (int(dims[0]), int(dims[1]))
    return latent.scatter(points, run.labels[index], run.classes, pair, title, note)


def _codes(run: Run, title: str) -> Figure | None:
    if run.model.family != "vq":
        return None
    counts = run.latents["code_counts"]
    note = run.note(run.n, f"{(counts == 0).sum()} of {len(counts)} codes unused")
    return latent.code_usage(counts, title, note)


@torch.inference_mode()
def _samples(run: Run, title: str) -> Figure:
    side, vq = run.settings.examples, run.model.family == "vq"
    images = _means(run.model.sample(side * side))
    tiles = images.reshape(side, side, *images.shape[1:])
    law = "uniform codes" if vq else f"each latent {run.law(0)}"
    return pictures.rows(tiles, [], title, run.note(f"n = {side * side} mean images", law))


@torch.inference_mode()
def _plane(run: Run, title: str) -> Figure | None:
    if run.model.family == "vq" or run.model.settings.latent_dim != 2:
        return None
    u = np.linspace(*TRAVERSED, max(run.settings.steps, 15))
    x, y = (run.law(dim).distribution.ppf(u) for dim in (0, 1))
    tiles = _decoded(run, np.stack(np.meshgrid(x, y), -1))
    note = run.note(f"n = {len(u) ** 2} mean images, equal steps of the prior's probability")
    columns, names = ([f"{value:.1f}" for value in axis] for axis in (x, y))
    return pictures.rows(tiles, names, title, note, columns, across="z0", down="z1")


@torch.inference_mode()
def _traversals(run: Run, title: str) -> Figure | None:
    if run.model.family == "vq" or run.model.settings.latent_dim == 2:
        return None
    dims = _most_active(run)[: run.settings.examples]
    u = np.linspace(*TRAVERSED, run.settings.steps)
    z = np.tile(run.latents["mu"][0].astype(float), (len(dims), len(u), 1))
    for row, dim in enumerate(dims):
        z[row, :, dim] = run.law(dim).distribution.ppf(u)
    note = run.note(f"mean images, n = {len(dims)} of {z.shape[-1]} latents", "one test image")
    names, columns = [f"z{dim}" for dim in dims], [f"{100 * p:.0f} %" for p in u]
    across = "quantile of the prior"
    return pictures.rows(_decoded(run, z), names, title, note, columns, across=across)


@torch.inference_mode()
def _interpolations(run: Run, title: str) -> Figure:
    rows = max(1, run.settings.examples * 3 // 5)
    x, model = _x(run.clean[_spread(len(run.clean), 2 * rows)]), run.model
    rows = len(x) // 2
    z = model.quantise(x) if model.family == "vq" else model.posterior(x).mean
    steps = torch.linspace(0, 1, run.settings.steps)
    start, end = slice(0, rows), slice(rows, 2 * rows)
    between = [model.likelihood.mean(model.decode(z[start].lerp(z[end], t))) for t in steps]
    tiles = _tiles(x[start], *between, x[end]).swapaxes(0, 1)
    columns = ["image", *(f"{t:.2g}" for t in steps.tolist()), "image"]
    note = run.note(f"straight lines between the codes of {2 * rows} of {run.n}")
    return pictures.rows(tiles, [], title, note, columns)


def _losses(run: Run, title: str) -> Figure:
    counts = run.model.config["data"]["counts"]
    images = f"{counts['train']:,} training and {counts['val']:,} validation images"
    loss, unit, terms = run.model.loss_settings, "nats per image", []
    if run.model.family == "vq":
        unit, terms = "per image", ["reconstruction in nats, divergence a squared distance"]
    elif loss.kind == "t3":
        unit, terms = "per image", ["reconstruction: |x - x_hat|² / 2σ², no nats"]
    elif loss.capacity.weight is not None:
        terms = ["total: of training what is minimised, of validation the negative ELBO"]
    note = run.note(*terms, f"{unit}, mean over n = {images}")
    return charts.losses(run.history, run.model.config.get("best_epoch"), unit, title, note)


def _few(run: Run) -> int:
    """Images of a block."""
    return min(len(run.clean), max(3, run.settings.examples // 2))


def _most_active(run: Run) -> Array:
    """Latents by the spread of their posterior means in units of the prior, largest first."""
    scale = [run.law(dim).scale for dim in range(run.latents["mu"].shape[1])]
    return np.argsort(-(run.latents["mu"].astype(float).std(0) / scale), kind="stable")


def _spread(total: int, count: int) -> Array:
    """At most `count` indices, evenly over all: also where images are sorted by class."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))


def _x(images: Images) -> Tensor:
    return torch.from_numpy(np.array(images)).float() / 255


def _decoded(run: Run, z: Array) -> Images:
    """Mean images of latents [R, K, Z]."""
    flat = torch.from_numpy(z).float().flatten(0, 1)
    images = _means(run.model.likelihood.mean(run.model.decode(flat)))
    return images.reshape(*z.shape[:2], *images.shape[1:])


def _means(x: Tensor) -> Images:
    return pictures.as_bytes(x.float().numpy())


def _tiles(*rows: Tensor) -> Images:
    return np.stack([_means(row) for row in rows])


GALLERY: dict[str, Entry] = {
    "robustness": Entry("Robustness", "chart", "What comes back of the clean image",
        partial(_bars, ["e_den", "skill"]),
        "Left: squared error per pixel between the reconstruction of the corrupted image and the "
        "clean one; shorter is better. A bar that ends left of the upright mark beats doing "
        "nothing, left of the cross it beats a constant. Right: skill, 1 for a perfect repair, 0 "
        "for the better of both; orange is worse, and values below -1 are written on the bar."),
    "structure": Entry("Robustness", "chart", "Structure, detection, usefulness",
        partial(_bars, ["ssim_den", "auroc", "probe"]),
        "SSIM of the reconstruction to the clean image (1: identical). AUROC of the negative ELBO "
        "as a detector of the corruption (dotted: chance). Accuracy of a linear probe that learnt "
        "the classes from clean posterior means. Marks are the baselines."),
    "severity": Entry("Robustness", "chart", "Error as the corruption grows", _severities,
        "Severity 0 is the clean image; a flat line is a robust model. Spatter is not monotone in "
        "MNIST-C itself: its severity 3 is stronger than 4."),
    "heatmap": Entry("Robustness", "chart", "Skill by corruption and severity", _heat_map,
        "Purple: better than doing nothing. Orange: worse. Colours end at -1 and 1."),
    "corrupted": Entry("Robustness", "picture", "What the model sees and what comes back",
        _corrupted,
        "Rows: the clean image, the corrupted one that the model is given, its deterministic "
        "reconstruction. A robust model's third row looks like the first."),
    "worst": Entry("Robustness", "picture", "Where it fails most", _worst,
        "The test images with the largest error of each corruption, the worst at the left."),
    "roc": Entry("Robustness", "chart", "Does the ELBO notice?", _roc,
        "Each curve sorts clean and corrupted images by their score. Along the upper left "
        "edge: told apart. Along the diagonal: chance. Below: corrupted images look likelier."),
    "corruptions": Entry("Robustness", "picture", "The corruptions", _contact_sheet,
        "Test images as the model is given them; the number is the severity."),
    "reconstructions": Entry("Reconstruction", "picture", "Clean images and their reconstructions",
        _reconstructions,
        "Top: test images. Middle: decoder mean at the posterior mean. Bottom: one draw from the "
        "model, every pixel from the likelihood; its grain is the noise that the model expects."),
    "interpolations": Entry("Reconstruction", "picture", "Between two images", _interpolations,
        "Outer columns: two test images. Between them, what the decoder makes of the straight "
        "line from one code to the other. Plausible steps: the space between codes is used."),
    "qq": Entry("Latent space", "chart", "Does the aggregate posterior follow the prior?", _qq_grid,
        "One panel per latent, largest Kolmogorov-Smirnov distance D first. Points on the line: "
        "codes of test images are distributed as new latents are drawn. Blue: where all points "
        "of all latents stay together in 95 of 100 samples of that law (order statistics at equal "
        "local levels); D is orange where one leaves it. An inactive latent agrees trivially. "
        "For heavy tails both axes shrink outwards."),
    "qq-pooled": Entry("Latent space", "chart", "All latent dimensions together", _qq_pooled,
        "The same for all dimensions at once. Values of one image depend on each other, so the "
        "band is somewhat too narrow; read the shape and the tails."),
    "kl": Entry("Latent space", "chart", "Where the information sits", _kl,
        "KL divergence of each latent's posterior from its prior. Inactive latents, whose mean "
        "hardly varies over images, carry nothing; all of them inactive is a collapsed model."),
    "latents": Entry("Latent space", "chart", "Where images land in latent space", _scatter,
        "Posterior means in the two latents that vary most, coloured by class, the same images in "
        "every panel. What moves or shrinks the cloud changes what is reconstructed."),
    "codes": Entry("Latent space", "chart", "Use of the codebook", _codes,
        "Share of positions that choose each code; the nearer to the dashed line the better."),
    "samples": Entry("Generation", "picture", "Samples from the prior", _samples,
        "Images of latents drawn from the prior. Shapes that resemble no training image come from "
        "places that no training image reached."),
    "plane": Entry("Generation", "picture", "The latent plane", _plane,
        "The decoder's mean at each point between the 2 % and 98 % quantiles of the prior."),
    "traversals": Entry("Generation", "picture", "One latent at a time", _traversals,
        "Each row moves one latent through the prior's quantiles and leaves the others at the code "
        "of one test image, most active first. What changes is what the latent means."),
    "losses": Entry("Training", "chart", "Loss while training", _losses,
        "Validation rising while training falls is overfitting. Dotted: the epoch that was kept."),
}  # fmt: skip
