"""The figures of a run: each takes what the earlier stages left and returns a Figure, or None where it has no meaning."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from robustvae.figures import charts, latent, pictures
from robustvae.figures.pictures import Images
from robustvae.model import Autoencoder
from robustvae.params import PlotSettings
from robustvae.quantiles import Law, aggregate_sample, qq

Array = NDArray[Any]
TRAVERSED = (0.02, 0.98)  # probabilities of the prior between which a latent is moved


@dataclass(frozen=True)
class Run:
    """What there is to draw, as the stages before plot wrote it."""

    name: str  # of the data set
    model: Autoencoder
    settings: PlotSettings
    clean: Images  # test images as the model sees them, [N, C, H, W]
    sets: list[dict[str, Any]]  # name, severity, group, default of each corrupted test set
    corrupted: Mapping[str, Images]  # by key
    labels: Array  # [N], -1: unlabelled
    classes: list[str]
    history: pd.DataFrame
    table: pd.DataFrame  # robustness.csv
    latents: Mapping[str, Array]
    scores: Mapping[str, Array]

    @property
    def n(self) -> str:
        """Number of test images, for a note."""
        return f"n = {len(self.clean):,} test images"

    @property
    def shown(self) -> list[dict[str, Any]]:
        """One set per corruption, by group: MNIST-C's own severity, or else the strongest."""
        best = {item["name"]: item for item in self.sets}
        for item in self.sets:
            best[item["name"]] = max(
                item, best[item["name"]], key=lambda item: (item["default"], item["severity"])
            )
        return sorted(best.values(), key=lambda item: charts.rank(item["group"]))

    def rows(self, method: str) -> pd.DataFrame:
        """The rows of the table for the sets shown, in their order."""
        table = self.table[self.table["method"] == method]
        table = table.set_index(["corruption", "severity"])
        wanted = [(item["name"], item["severity"]) for item in self.shown]
        return table.reindex(wanted).reset_index()

    def x(self, images: Images) -> Tensor:
        """Images as the model takes them."""
        return torch.from_numpy(np.array(images)).float() / 255

    def law(self, dim: int) -> Law:
        """Marginal of the law that new latents are drawn from."""
        p = self.model.generating_prior()
        return Law(float(p.mu[dim]), float(torch.exp(p.logvar[dim] / 2)), getattr(p, "df", 0.0))


class Entry(NamedTuple):
    """A figure of the report; `note` and `caption` say what is drawn and how to read it."""

    section: str
    kind: Literal["chart", "picture"]  # a chart is written as vectors too
    title: str
    caption: str
    draw: Callable[[Run, str], Figure | None]


def label(item: Mapping[str, Any]) -> str:
    """A corruption's name for people."""
    return str(item["name"]).replace("_", " ")


def key(item: Mapping[str, Any]) -> str:
    """A set's name in files."""
    return f"{item['name']}-{item['severity']:g}"


def _robustness(run: Run, title: str) -> Figure:
    return _bars(run, ["e_den", "skill"], title)


def _structure(run: Run, title: str) -> Figure | None:
    model = run.rows("model")
    names = [q for q in ("ssim_den", "auroc", "probe") if q in model and model[q].notna().any()]
    return _bars(run, names, title) if names else None


def _bars(run: Run, quantities: list[str], title: str) -> Figure:
    baselines = {"corrupted image itself": "identity", "mean training image": "mean_image"}
    note = f"{run.name} · {run.n} per bar · whiskers: 95 % interval over images"
    return charts.bars(
        run.rows("model"), [f"{label(item)} {item['severity']:g}" for item in run.shown],
        quantities, {name: run.rows(method) for name, method in baselines.items()}, title, note,
    )  # fmt: skip


def _severities(run: Run, title: str) -> Figure | None:
    if len(run.sets) == len(run.shown):
        return None
    table = run.table[(run.table["method"] == "model") & (run.table["corruption"] != "clean")]
    clean = run.table[(run.table["method"] == "model") & (run.table["corruption"] == "clean")]
    note = f"{run.name} · squared error per pixel to the clean image · {run.n} per point · 95 %"
    return charts.severity_curves(table, "e_den", float(clean["e_den"].iloc[0]), title, note)


def _heat_map(run: Run, title: str) -> Figure | None:
    if len(run.sets) == len(run.shown):
        return None
    table = run.table[(run.table["method"] == "model") & (run.table["corruption"] != "clean")]
    return charts.heat_map(table, "skill", title, f"{run.name} · {run.n} per cell · no unit")


def _roc(run: Run, title: str) -> Figure | None:
    if "clean/neg_elbo" not in run.scores:
        return None
    groups: dict[str, dict[str, Array]] = {}
    for item in run.shown:
        scores = run.scores[f"{key(item)}/neg_elbo"]
        groups.setdefault(item["group"], {})[label(item)] = scores
    note = f"{run.name} · score: negative ELBO, nats · {run.n}, clean and corrupted, per curve"
    return charts.roc(run.scores["clean/neg_elbo"], groups, title, note)


@torch.inference_mode()
def _reconstructions(run: Run, title: str) -> Figure:
    x = run.x(run.clean[_spread(len(run.clean), run.settings.examples)])
    model = run.model
    z = model.quantise(x) if model.family == "vq" else model.posterior(x).rsample()
    out = model.decode(z)
    tiles = [x, model.reconstruct(x), model.likelihood.sample(out, z)]
    names = ["truth", "mean reconstruction", "sampled reconstruction"]
    return pictures.rows(_tiles(*tiles), names, title, f"{run.name} · {len(x)} of {run.n}")


def _corrupted(run: Run, title: str) -> Figure:
    index = _spread(len(run.clean), max(3, run.settings.examples // 2))
    same = {key(item): index for item in run.shown}
    return _blocks(run, same, title, f"the same {len(index)}")


def _worst(run: Run, title: str) -> Figure | None:
    if not all(f"{key(item)}/e_den" in run.scores for item in run.shown):
        return None
    count = max(3, run.settings.examples // 2)
    worst = {
        key(item): np.argsort(-run.scores[f"{key(item)}/e_den"], kind="stable")[:count]
        for item in run.shown
    }
    return _blocks(run, worst, title, f"the {count} with the largest error")


@torch.inference_mode()
def _blocks(run: Run, index: Mapping[str, Array], title: str, what: str) -> Figure:
    groups = {}
    for item in run.shown:
        chosen = np.asarray(index[key(item)])
        seen = run.x(run.corrupted[key(item)][chosen])
        tiles = [run.x(run.clean[chosen]), seen, run.model.reconstruct(seen)]
        groups[f"{label(item)} {item['severity']:g}"] = _tiles(*tiles)
    names = ["clean", "corrupted", "reconstructed"]
    return pictures.blocks(groups, names, title, f"{run.name} · {what} · of {run.n}")


def _contact_sheet(run: Run, title: str) -> Figure:
    """Corruption by image; with several severities, corruption by severity of one image."""
    severities = sorted({item["severity"] for item in run.sets})
    if len(run.sets) == len(run.shown):
        index = _spread(len(run.clean), run.settings.examples)
        tiles = [run.clean[index], *(run.corrupted[key(item)][index] for item in run.shown)]
        names = ["clean", *(f"{label(item)} {item['severity']:g}" for item in run.shown)]
        return pictures.rows(np.stack(tiles), names, title, f"{run.name} · {len(index)} of {run.n}")
    first = run.clean[0]
    blank = np.full_like(first, 255)
    grid = np.stack([
        np.stack([first, *(_at(run, item["name"], severity, blank) for severity in severities)])
        for item in run.shown
    ])  # fmt: skip
    columns = ["clean", *(f"{severity:g}" for severity in severities)]
    return pictures.rows(
        grid, [label(item) for item in run.shown], title, f"{run.name} · 1 of {run.n}",
        columns, across="severity",
    )  # fmt: skip


def _at(run: Run, name: str, severity: float, blank: Images) -> Images:
    images = run.corrupted.get(key({"name": name, "severity": severity}))
    return blank if images is None else np.asarray(images[0])


def _qq_grid(run: Run, title: str) -> Figure | None:
    if run.model.family == "vq":
        return None
    z, standard = _standardised(run)
    points = 200 if z.shape[1] <= 16 else 80
    panels = {dim: qq(z[:, dim], standard, points) for dim in range(z.shape[1])}
    worst = sorted(panels, key=lambda dim: -panels[dim].distance)[: run.settings.qq_panels]
    note = (
        f"{run.name} · one z per image, in units of the prior · {run.n} per panel"
        f" · {len(worst)} of {len(panels)} dimensions · D: K-S distance"
    )
    active = list(run.latents["active"].astype(bool))
    return latent.qq_grid({dim: panels[dim] for dim in worst}, active, standard, title, note)


def _qq_pooled(run: Run, title: str) -> Figure | None:
    if run.model.family == "vq":
        return None
    z, standard = _standardised(run)
    note = f"{run.name} · n = {z.shape[0]:,} images x {z.shape[1]} dimensions · units of the prior"
    return latent.qq_pooled(qq(z.ravel(), standard, 400), standard, title, note)


def _standardised(run: Run) -> tuple[Array, Law]:
    """Aggregate posterior [N, Z] in units of the prior's scale, and the law it should follow."""
    mu, logvar = (run.latents[name].astype(float) for name in ("mu", "logvar"))
    df = float(run.latents["df"])
    z = aggregate_sample(mu, logvar, df, np.random.default_rng(torch.initial_seed()))
    laws = [run.law(dim) for dim in range(z.shape[1])]
    location, scale = (np.array([getattr(law, name) for law in laws]) for name in LAW)
    return (z - location) / scale, Law(df=laws[0].df)


LAW = ("location", "scale")


def _kl(run: Run, title: str) -> Figure | None:
    if "kl_per_dim" not in run.latents:
        return None
    kl = run.latents["kl_per_dim"].astype(float)
    note = (
        f"{run.name} · nats, mean over {run.n} · {run.latents['active'].sum()} of {len(kl)} active"
    )
    return latent.kl_per_dimension(kl, run.latents["active"], title, note)


def _scatter(run: Run, title: str) -> Figure | None:
    if run.model.family == "vq" or run.latents["mu"].shape[1] < 2:
        return None
    dims = _most_active(run)[:2]
    first = run.latents[f"mu/{key(run.shown[0])}"] if run.sets else run.latents["mu"]
    index = _spread(len(first), 1500)
    points = {"clean": run.latents["mu"][index][:, dims].astype(float)}
    for item in run.shown[:15]:
        points[label(item)] = run.latents[f"mu/{key(item)}"][index][:, dims].astype(float)
    note = (
        f"{run.name} · posterior means, no unit · the same {len(index):,} of {run.n} in each panel"
    )
    pair = (int(dims[0]), int(dims[1]))
    return latent.scatter(points, run.labels[index], run.classes, pair, title, note)


@torch.inference_mode()
def _codes(run: Run, title: str) -> Figure | None:
    if run.model.family != "vq":
        return None
    counts = run.latents["code_counts"]
    share = counts / counts.sum()
    perplexity = np.exp(-np.sum(share * np.log(np.where(share > 0, share, 1))))
    note = (
        f"{run.name} · {run.n} · perplexity {perplexity:.1f} · {(counts == 0).sum()} codes unused"
    )
    return latent.code_usage(counts, title, note)


@torch.inference_mode()
def _samples(run: Run, title: str) -> Figure:
    side = run.settings.examples
    images = _means(run.model.sample(side * side))
    tiles = images.reshape(side, side, *images.shape[1:])
    law = "uniform codes" if run.model.family == "vq" else f"z from {run.law(0)}"
    if run.model.family == "student_t":
        law += ", jointly"
    note = f"{run.name} model · mean images of {side * side} latents · {law}"
    return pictures.rows(tiles, [], title, note)


@torch.inference_mode()
def _plane(run: Run, title: str) -> Figure | None:
    if run.model.family == "vq" or run.model.settings.latent_dim != 2:
        return None
    steps = max(run.settings.steps, 15)
    u = np.linspace(*TRAVERSED, steps)
    axes = [run.law(dim).distribution.ppf(u) for dim in (0, 1)]
    z = torch.tensor(np.stack(np.meshgrid(*axes), -1).reshape(-1, 2), dtype=torch.float32)
    images = _means(run.model.likelihood.mean(run.model.decode(z)))
    names = [[f"{value:.1f}" for value in axis] for axis in axes]
    return pictures.rows(
        images.reshape(steps, steps, *images.shape[1:]), names[1], title,
        f"{run.name} model · mean images at equal steps of the prior's probability, 2 to 98 %",
        names[0], across="z0", down="z1",
    )  # fmt: skip


@torch.inference_mode()
def _traversals(run: Run, title: str) -> Figure | None:
    if run.model.family == "vq" or run.model.settings.latent_dim == 2:
        return None
    dims = _most_active(run)[: run.settings.examples]
    u = np.linspace(*TRAVERSED, run.settings.steps)
    z = torch.from_numpy(run.latents["mu"][0].astype(np.float32)).repeat(len(dims), len(u), 1)
    for row, dim in enumerate(dims):
        z[row, :, dim] = torch.from_numpy(run.law(dim).distribution.ppf(u))
    images = _means(run.model.likelihood.mean(run.model.decode(z.flatten(0, 1))))
    tiles = images.reshape(len(dims), len(u), *images.shape[1:])
    note = (
        f"{run.name} model · from the code of one test image · {len(dims)} of {z.shape[-1]} latents"
    )
    columns = [f"{100 * p:.0f} %" for p in u]
    return pictures.rows(
        tiles, [f"z{dim}" for dim in dims], title, note, columns, across="quantile of the prior"
    )


@torch.inference_mode()
def _interpolations(run: Run, title: str) -> Figure:
    rows = max(2, run.settings.examples * 3 // 5)
    x = run.x(run.clean[_spread(len(run.clean), 2 * rows)])
    model, t = run.model, torch.linspace(0, 1, run.settings.steps)
    z = model.quantise(x) if model.family == "vq" else model.posterior(x).mean
    start, end = z[:rows], z[rows:]
    t = t.view(-1, *[1] * (z.dim() - 1))
    between = [model.likelihood.mean(model.decode(torch.lerp(a, b, t)))
               for a, b in zip(start, end, strict=True)]  # fmt: skip
    tiles = [torch.cat([x[:rows, None], torch.stack(between), x[rows:, None]], 1)]
    columns = ["image", *(f"{float(step):.2g}" for step in t.flatten()), "image"]
    note = f"{run.name} · straight lines between the codes of {2 * rows} of {run.n}"
    return pictures.rows(_tiles(*tiles)[0], [], title, note, columns)


def _losses(run: Run, title: str) -> Figure:
    counts, best = run.model.config["data"]["counts"], run.model.config.get("best_epoch")
    note = (
        f"{run.name} · nats per image, mean over"
        f" n = {counts['train']:,} training and {counts['val']:,} validation images"
    )
    return charts.losses(run.history, best, title, note)


def _most_active(run: Run) -> Array:
    """Latent dimensions, the one whose posterior mean varies most first (in units of the prior)."""
    scale = np.array([run.law(dim).scale for dim in range(run.latents["mu"].shape[1])])
    return np.argsort(-(run.latents["mu"].astype(float).std(0) / scale), kind="stable")


def _spread(total: int, count: int) -> Array:
    """At most `count` indices, evenly over all: also where images are sorted by class."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))


def _means(x: Tensor) -> Images:
    return pictures.as_bytes(x.float().cpu().numpy())


def _tiles(*rows: Tensor) -> Images:
    return np.stack([_means(row) for row in rows])


GALLERY: dict[str, Entry] = {
    "robustness": Entry(
        "Robustness", "chart", "What comes back of the clean image",
        "Left: squared error per pixel between the reconstruction of the corrupted image and the clean one; "
        "shorter is better. The bar beats doing nothing where it ends left of the upright mark, and says more than "
        "a constant where it ends left of the cross. Right: skill, 1 for a perfect repair, 0 for doing nothing; "
        "orange is worse than doing nothing, and values below -1 are written on the bar.",
        _robustness,
    ),
    "structure": Entry(
        "Robustness", "chart", "Structure, detection, usefulness",
        "SSIM of the reconstruction to the clean image (1: identical). AUROC of the negative ELBO as a detector of "
        "the corruption (dotted: chance; below it, corrupted images look more likely than clean ones). Accuracy "
        "of a linear probe that learnt the classes from clean posterior means. Marks are the baselines.",
        _structure,
    ),
    "severity": Entry(
        "Robustness", "chart", "Error as the corruption grows",
        "One line per corruption; severity 0 is the clean image. A flat line is a robust model. Spatter is not "
        "monotone in MNIST-C itself: its severity 3 is stronger than 4.",
        _severities,
    ),
    "heatmap": Entry(
        "Robustness", "chart", "Skill by corruption and severity",
        "Purple: better than doing nothing. Orange: worse. Colours end at -1 and 1; the number does not.",
        _heat_map,
    ),
    "corrupted": Entry(
        "Robustness", "picture", "What the model sees and what comes back",
        "Three rows per corruption: the clean image, the corrupted one that the model is given, and its deterministic "
        "reconstruction. A robust model's third row looks like the first. The number is the severity.",
        _corrupted,
    ),
    "worst": Entry(
        "Robustness", "picture", "Where it fails most",
        "The test images with the largest error of each corruption, the worst at the left.",
        _worst,
    ),
    "roc": Entry(
        "Robustness", "chart", "Does the ELBO notice?",
        "Each curve sorts clean and corrupted images by their negative ELBO. A curve along the upper left edge tells "
        "them apart, one along the diagonal is chance, one below it takes corrupted images for the likelier ones.",
        _roc,
    ),
    "corruptions": Entry(
        "Robustness", "picture", "The corruptions",
        "The test images as the model is given them. The number is the severity of MNIST-C.",
        _contact_sheet,
    ),
    "reconstructions": Entry(
        "Reconstruction", "picture", "Clean images and their reconstructions",
        "Top: test images. Middle: decoder mean at the posterior mean. Bottom: one draw from the model, z from the "
        "posterior and every pixel from the likelihood; its grain is the noise that the likelihood believes in.",
        _reconstructions,
    ),
    "interpolations": Entry(
        "Reconstruction", "picture", "Between two images",
        "Outer columns: two test images. Between them, what the decoder makes of the straight line from the code of one "
        "to that of the other. Smooth, plausible steps say that the space between codes is used.",
        _interpolations,
    ),
    "qq": Entry(
        "Latent space", "chart", "Does the aggregate posterior follow the prior?",
        "One panel per latent dimension, largest Kolmogorov-Smirnov distance D first. Points on the line: codes "
        "of test images are distributed as the prior says, so samples from the prior land where the decoder was "
        "trained. Blue: where all points stay together in 95 of 100 samples of the prior itself (order statistics, equal "
        "local levels); D is orange where a point leaves it. An inactive dimension agrees trivially. For Student-t "
        "laws both axes shrink towards the tails.",
        _qq_grid,
    ),
    "qq-pooled": Entry(
        "Latent space", "chart", "All latent dimensions together",
        "The same comparison for the values of all dimensions. They are not independent of each other within an image, "
        "so that the band is somewhat too narrow; read the shape, and the tails.",
        _qq_pooled,
    ),
    "kl": Entry(
        "Latent space", "chart", "Where the information sits",
        "Divergence of each dimension's posterior from its prior, largest first. Inactive dimensions, whose posterior "
        "mean hardly varies over the test images, carry nothing; all of them inactive is a collapsed model.",
        _kl,
    ),
    "latents": Entry(
        "Latent space", "chart", "Where images land in latent space",
        "Posterior means in the two dimensions that vary most, coloured by class, the same images in every panel. "
        "Corruptions that move or shrink the cloud move what is reconstructed.",
        _scatter,
    ),
    "codes": Entry(
        "Latent space", "chart", "Use of the codebook",
        "Share of all positions that choose each code. The nearer to the dashed line, the better the codebook is used; "
        "perplexity is the effective number of codes.",
        _codes,
    ),
    "samples": Entry(
        "Generation", "picture", "Samples from the prior",
        "Mean images of latents that are drawn from the prior, no test image involved. Shapes that are no digit or object "
        "come from places in latent space that no training image reached.",
        _samples,
    ),
    "plane": Entry(
        "Generation", "picture", "The latent plane",
        "Each picture is the decoder's mean at that point; steps are equal in the prior's probability.",
        _plane,
    ),
    "traversals": Entry(
        "Generation", "picture", "One latent at a time",
        "Each row moves one latent through the prior's quantiles and leaves the others at the code of one test image, most "
        "active first. What changes along a row is what that latent means.",
        _traversals,
    ),
    "losses": Entry(
        "Training", "chart", "Loss while training",
        "Validation rising while training falls is overfitting. Dotted: the epoch whose weights were kept.",
        _losses,
    ),
}  # fmt: skip
