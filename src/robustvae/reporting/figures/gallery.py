"""The figures of a run, one function each: a Figure, or None where the run has nothing for it."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from robustvae.reporting.figures import charts, contamination, latent, pictures
from robustvae.reporting.figures.pictures import Images
from robustvae.reporting.figures.run import Array, Run, key, label
from robustvae.robustness import collapse, quantiles
from robustvae.robustness.quantiles import Law, qq

TRAVERSED = (0.02, 0.98)  # probabilities of the prior between which a latent is moved
SCATTERED = 1500  # points of a scatter panel, at most
INTERVAL = "whiskers: 95 % interval over images"


def bars(quantities: list[str], run: Run, title: str) -> Figure | None:
    model = run.rows("model")
    known = [name for name in quantities if name in model and model[name].notna().any()]
    if not known:
        return None
    names = {"corrupted image itself": "identity", "mean training image": "mean_image"}
    baselines = {name: run.rows(method) for name, method in names.items()}
    note = run.note(f"{run.n} per bar", INTERVAL)
    return charts.bars(model, [label(item) for item in run.shown], known, baselines, title, note)


def severities(run: Run, title: str) -> Figure | None:
    if not run.several:
        return None
    table = run.table[run.table["method"] == "model"].set_index("corruption")
    clean, rows = table["e_den"]["clean"], table.drop("clean").reset_index()
    note = run.note("squared error per pixel to the clean image", f"{run.n} per point", INTERVAL)
    return charts.severity_curves(rows, "e_den", clean, title, note)


def heat_map(run: Run, title: str) -> Figure | None:
    if not run.several:
        return None
    rows = run.table[(run.table["method"] == "model") & (run.table["corruption"] != "clean")]
    return charts.heat_map(rows, "skill", title, run.note(f"{run.n} per cell", "no unit"))


def roc(run: Run, title: str) -> Figure | None:
    if "clean/neg_elbo" not in run.scores or not run.sets:
        return None
    groups: dict[str, dict[str, Array]] = {}
    for item in run.shown:
        groups.setdefault(item["group"], {})[label(item)] = run.scores[f"{key(item)}/neg_elbo"]
    note = run.note(f"score: {run.score}", f"{run.n}, clean and corrupted, per curve")
    return charts.roc(run.scores["clean/neg_elbo"], groups, title, note)


@torch.inference_mode()
def reconstructions(run: Run, title: str) -> Figure:
    x, model = _x(run.clean[_spread(len(run.clean), run.settings.examples)]), run.own
    if model is None:
        names = ["truth", "reconstruction"]
        tiles = _tiles(x, run.reconstruct(x))
        return pictures.rows(tiles, names, title, run.note(f"{len(x)} of {run.n}"))
    z = model.quantise(x) if model.family == "vq" else model.posterior(x).rsample()
    tiles = _tiles(x, model.reconstruct(x), model.likelihood.sample(model.decode(z), z))
    names = ["truth", "mean reconstruction", "sampled reconstruction"]
    return pictures.rows(tiles, names, title, run.note(f"{len(x)} of {run.n}"))


def corrupted(run: Run, title: str) -> Figure | None:
    index = _spread(len(run.clean), _few(run))
    return _blocks(run, {key(item): index for item in run.shown}, title, "the same")


def worst(run: Run, title: str) -> Figure | None:
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
        groups[label(item)] = _tiles(_x(run.clean[chosen]), seen, run.reconstruct(seen))
    note = run.note(f"{which} {_few(run)} of {run.n} in each block")
    names = ["clean", "corrupted", "reconstructed"]
    return pictures.blocks(groups, names, title, note) if groups else None


def contact_sheet(run: Run, title: str) -> Figure:
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


def qq_grid(run: Run, title: str) -> Figure | None:
    if run.model.family == "vq":
        return None
    z, law = _standardised(run)
    panels = quantiles.panels(z, law)
    worst = sorted(panels, key=lambda dim: -panels[dim].distance)[: run.settings.qq_panels]
    dims = f"{len(worst)} of {len(panels)} dimensions"
    note = run.note("one z per image, in units of the prior", f"{run.n} per panel", dims)
    active = list(run.latents["active"].astype(bool))
    return latent.qq_grid({dim: panels[dim] for dim in worst}, active, law, title, note)


def qq_pooled(run: Run, title: str) -> Figure | None:
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


def kl(run: Run, title: str) -> Figure | None:
    if run.model.family == "vq":
        return None
    kl, active = run.latents["kl_per_dim"].astype(float), run.latents["active"]
    note = run.note(f"nats, mean over {run.n}", f"{active.sum()} of {len(kl)} active")
    return latent.kl_per_dimension(kl, active, title, note)


def scatter(run: Run, title: str) -> Figure | None:
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


def codes(run: Run, title: str) -> Figure | None:
    if run.model.family != "vq":
        return None
    counts = run.latents["code_counts"]
    note = run.note(run.n, f"{(counts == 0).sum()} of {len(counts)} codes unused")
    return latent.code_usage(counts, title, note)


@torch.inference_mode()
def samples(run: Run, title: str) -> Figure | None:
    if run.generate is None:
        return None
    side = run.settings.examples
    images = _means(run.generate(side * side))
    tiles = images.reshape(side, side, *images.shape[1:])
    if run.own is None:
        return pictures.rows(tiles, [], title, run.note(f"n = {side * side} images"))
    law = "uniform codes" if run.own.family == "vq" else f"each latent {run.law(0)}"
    return pictures.rows(tiles, [], title, run.note(f"n = {side * side} mean images", law))


@torch.inference_mode()
def plane(run: Run, title: str) -> Figure | None:
    if run.model.family == "vq" or run.model.settings.latent_dim != 2:
        return None
    u = np.linspace(*TRAVERSED, max(run.settings.steps, 15))
    x, y = (run.law(dim).ppf(u) for dim in (0, 1))
    tiles = _decoded(run, np.stack(np.meshgrid(x, y), -1))
    note = run.note(f"n = {len(u) ** 2} mean images, equal steps of the prior's probability")
    columns, names = ([f"{value:.1f}" for value in axis] for axis in (x, y))
    return pictures.rows(tiles, names, title, note, columns, across="z0", down="z1")


@torch.inference_mode()
def traversals(run: Run, title: str) -> Figure | None:
    if run.model.family == "vq" or run.model.settings.latent_dim == 2:
        return None
    dims = _most_active(run)[: run.settings.examples]
    u = np.linspace(*TRAVERSED, run.settings.steps)
    z = np.tile(run.latents["mu"][0].astype(float), (len(dims), len(u), 1))
    for row, dim in enumerate(dims):
        z[row, :, dim] = run.law(dim).ppf(u)
    note = run.note(f"mean images, n = {len(dims)} of {z.shape[-1]} latents", "one test image")
    names, columns = [f"z{dim}" for dim in dims], [f"{100 * p:.0f} %" for p in u]
    across = "quantile of the prior"
    return pictures.rows(_decoded(run, z), names, title, note, columns, across=across)


@torch.inference_mode()
def interpolations(run: Run, title: str) -> Figure:
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


def losses(run: Run, title: str) -> Figure | None:
    if run.history is None:
        return None
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


def strip(run: Run, title: str) -> Figure | None:
    if not run.strip:
        return None
    seen, images = run.strip["seen"], run.strip["images"]  # [E, K + 1, C, H, W], [K, C, H, W]
    tiles = np.concatenate([seen, np.concatenate([images, images[:1]])[None]]).swapaxes(0, 1)
    names = [*["mean"] * len(images), "drawn"]
    columns = [*(f"{epoch}" for epoch in run.strip["epochs"]), "image"]
    note = run.note(f"{len(images)} validation images")
    return pictures.rows(tiles, names, title, note, columns, across="epoch")


def outlier_curves(run: Run, title: str) -> Figure | None:
    if not run.outliers:
        return None
    return contamination.curves(run.outliers, title, _of_training(run))


def outlier_scores(run: Run, title: str) -> Figure | None:
    if not run.outliers:
        return None
    return contamination.histogram(run.outliers, title, _of_training(run))


def outlier_weights(run: Run, title: str) -> Figure | None:
    if "weights" not in run.outliers:
        return None
    return contamination.weights(run.outliers["weights"], title, _of_training(run))


def thrown_out(run: Run, title: str) -> Figure | None:
    if not run.outliers or run.trained is None:
        return None
    index = run.outliers["first"].astype(int)
    mask = run.outliers["mask"].astype(bool)[index]
    note = run.note(f"least likely first; red frame: outlier, {mask.sum()} of {len(index)}")
    return contamination.first(np.array(run.trained[index]), mask, title, note)


def _of_training(run: Run) -> str:
    mask = run.outliers["mask"]
    return run.note(f"{int(mask.sum()):,} outliers of {len(mask):,} training images")


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
