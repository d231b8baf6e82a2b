"""Laws that every part of a kind obeys: an author proves a part in one line.

Each function takes the name of a part, and raises AssertionError with what does not hold.
"""

import copy
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from robustvae import corruptions, params
from robustvae.corruptions import CORRUPTIONS
from robustvae.data.catalogue import DATASETS, Dataset
from robustvae.data.downloads import Library
from robustvae.errors import UserError, did_you_mean
from robustvae.models import divergences, likelihoods
from robustvae.models.autoencoder import Autoencoder
from robustvae.models.catalogue import DIVERGENCES, LATENTS, LIKELIHOODS, NETS
from robustvae.models.distributions import DiagNormal
from robustvae.models.divergences import Divergence
from robustvae.models.latents import Continuous
from robustvae.models.likelihoods import Likelihood
from robustvae.params.geometry import geometry
from robustvae.params.parts import Table
from robustvae.robustness.catalogue import METRICS
from robustvae.robustness.metrics import Pair
from robustvae.training.catalogue import ROBUST
from robustvae.training.robust import weights

T = TypeVar("T")
DIM, ROWS = 3, 6  # latents, samples


def check_corruption(name: str) -> None:
    """Shape, type and input kept; the same picture whatever the batch; more with severity.

    >>> import robustvae as rv
    >>> rv.testing.check_corruption("fog")
    """
    part = _known(CORRUPTIONS, name)
    for shape in ((1, 28, 28), (3, 24, 20), (1, 8, 8)):
        images = _blots(ROWS, *shape)
        before, far = images.copy(), []
        for severity in range(6):
            out = corruptions.corrupt_images(images, name, severity, seed=1)
            _law(out.shape == images.shape and out.dtype == np.uint8, f"{name} changes {shape}")
            again = corruptions.corrupt_images(images[2:], name, severity, seed=1, start=2)
            _law((again == out[2:]).all(), f"{name}: it is not seeded, or depends on the batch")
            far.append(float(((out.astype(float) - images) ** 2).mean()))
        _law((images == before).all(), f"{name} changes its input")
        _law(far[0] == 0, f"{name} changes images at severity 0")
        _law(min(far[1:]) > 0, f"{name} leaves images as they are")
        _law(far[5] > far[1] or not part.monotone, f"{name} at severity 5 is no worse than at 1")


def check_divergence(divergence: str | Divergence) -> None:
    """[B], positive, zero and flat at its minimum; its gradient is right and reaches both inputs.

    An instance may stand in for a name.

    >>> import robustvae as rv
    >>> rv.testing.check_divergence("renyi")
    """
    if isinstance(divergence, str):
        loss = {"loss.divergence": divergence, "loss.df": _df(divergence)}
        settings = params.complete({**loss, "model.likelihood.variance": "fixed"})
        divergence = divergences.build(settings.loss, DIM, 784, 1.0)
    mu, logvar = torch.randn(2, ROWS, DIM, generator=_rng(0), dtype=torch.float64)
    inputs, p = (0.5 * mu, 0.6 * logvar.tanh()), divergence.prior(*torch.zeros(2, DIM).double())

    def value(mu: Tensor, logvar: Tensor) -> Tensor:
        return divergence(divergence.posterior(mu, logvar), p)

    values = value(*inputs)
    _law(values.shape == (ROWS,), f"values must be [{ROWS}], got {list(values.shape)}")
    _law(bool((values > 0).all()), "values must be above 0 where q is not p")
    twice = value(*(torch.cat([t, t]) for t in inputs))
    _close(twice, torch.cat([values, values]), "a value depends on the size of its batch")
    parts = [t.clone().requires_grad_() for t in inputs]
    total = value(*parts).sum()
    _law(total.requires_grad, "mu and logvar are detached")
    reached = torch.autograd.grad(total, parts, allow_unused=True)
    for name, gradient in zip(("mu", "logvar"), reached, strict=True):
        _law(gradient is not None and bool((gradient != 0).any()), f"{name} is detached")
    torch.autograd.gradcheck(value, [t[:2].clone().requires_grad_() for t in inputs])
    best = divergence.minimum(p)
    parts = [t.expand(ROWS, DIM).clone().requires_grad_() for t in (best.mu, best.logvar)]
    least = divergence(replace(best, mu=parts[0], logvar=parts[1]), p)
    slope = torch.stack(torch.autograd.grad(least.sum(), parts)).abs().max()
    _law(bool((least.abs() < 1e-12).all()), "it is not 0 at its minimum")
    _law(bool(slope < 1e-10), "it is not flat at its minimum")


def check_likelihood(likelihood: str | Likelihood) -> None:
    """One log-density per image, of several latents at once too; draws and means are images.

    An instance may stand in for a name.

    >>> import robustvae as rv
    >>> rv.testing.check_likelihood("laplace")
    """
    if isinstance(likelihood, str):
        likelihood = likelihoods.build(*_of_likelihood(likelihood), DIM)
    rng = _rng(0)
    x = torch.rand(ROWS, 2, 4, 5, generator=rng).round()  # binary: valid for every likelihood
    out = torch.randn(ROWS, 2 * likelihood.outputs, 4, 5, generator=rng)
    z = torch.randn(ROWS, DIM, generator=rng)
    score, distortion = likelihood.log_prob(x, out, z), likelihood.distortion(x, out, z)
    _law((score.shape, score.dtype) == ((ROWS,), torch.float64), "log_prob must be [B], float64")
    _law(distortion.shape == (ROWS,), f"distortion must be [B], got {list(distortion.shape)}")
    both = likelihood.log_prob(x, torch.stack([out, -out]), torch.stack([z, 2 * z]))
    for k, (o, w) in enumerate(((out, z), (-out, 2 * z))):
        _close(both[k], likelihood.log_prob(x, o, w), "latents at once are scored unlike alone")
    coarse, full = (likelihood.log_prob(x, o, z) for o in (out.bfloat16(), out.bfloat16().float()))
    _close(coarse, full, "outputs in half precision are scored in it")
    leaf = out.clone().requires_grad_()
    likelihood.zero_grad()
    loss = likelihood.distortion(x, leaf, z).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    _law(leaf.grad is not None and bool((leaf.grad != 0).all()), "no gradient for the decoder")
    _law(all(p.grad is not None for p in likelihood.parameters()), "a parameter has no gradient")
    mean = likelihood.mean(100 * out)
    _law(mean.shape == x.shape, f"a mean must be an image, got {list(mean.shape)}")
    _law(bool(((mean >= 0) & (mean <= 1)).all()), "means must be in 0 .. 1")
    drawn = likelihood.sample(out, z)
    _law(drawn.shape == x.shape and bool(drawn.isfinite().all()), "draws must be finite images")


def check_latent(name: str) -> None:
    """Draws, a penalty per image, a posterior and a prior that weigh draws; gradients.

    >>> import robustvae as rv
    >>> rv.testing.check_latent("auto")
    """
    _known(LATENTS, name)
    torch.manual_seed(0)
    settings = params.complete({"model.latent.name": name, "model.latent_dim": DIM})
    model = Autoencoder.build(settings.model, settings.loss, (1, 28, 28))
    latent, h = model.latent, model.encoder(torch.rand(ROWS, 1, 28, 28))
    draw = latent(h)
    _law(draw.penalty.shape == (ROWS,), f"penalty must be [B], got {list(draw.penalty.shape)}")
    _law(bool(draw.penalty.isfinite().all()), "a fresh head's penalty must be finite")
    draw.z.square().sum().backward(retain_graph=True)
    reached = next(model.encoder.parameters()).grad
    _law(reached is not None and bool((reached != 0).any()), "draws pass no gradient on")
    for what, z in (("mode", latent.mode(h)), ("sample", latent.sample(ROWS))):
        _law(z.shape == draw.z.shape, f"{what} must be as a draw is, {list(draw.z.shape)}")
    z, ratio = latent.weighted(h, 2)
    _law(z.shape[1:] == draw.z.shape, "weighted must give draws [K, B, ...]")
    _law(ratio.shape == z.shape[:2] and bool(ratio.isfinite().all()), "and ratios [K, B]")
    _law(isinstance(latent, Continuous) or name == "vq", "it must be a kind of Continuous")


def check_net(name: str) -> None:
    """Features and images of the sizes that its geometry says, grey and colour; gradients.

    >>> import robustvae as rv
    >>> rv.testing.check_net("mlp")
    """
    make = _known(NETS, name)
    chosen = params.complete({"model.architecture.name": name}).model.architecture
    net = make(**chosen.own(name))
    for side, channels in ((28, 1), (32, 3)):
        g = geometry(chosen, side)
        encoder, decoder = net.encoder(g, channels), net.decoder(g, DIM, 2 * channels)
        h = encoder(torch.rand(2, channels, side, side))
        _law(h.shape == (2, g.features), f"features must be [B, {g.features}], got {list(h.shape)}")
        out, wanted = decoder(torch.randn(2, DIM)), [2, 2 * channels, side, side]
        _law(list(out.shape) == wanted, f"images must be {wanted}, got {list(out.shape)}")
        (h.square().sum() + out.square().sum()).backward()
        learnt = [*encoder.parameters(), *decoder.parameters()]
        _law(all(p.grad is not None for p in learnt), "a weight has no gradient")


def check_dataset(
    dataset: str | Dataset, root: Path | str = ".", mirror: Path | str | None = None
) -> None:
    """Splits that share no picture, a label each, pictures that open; the same ones again.

    `root`, `mirror`: data.root and data.mirror. An object may stand in for a name.

    >>> import robustvae as rv
    >>> rv.testing.check_dataset("digits")
    """
    native = None
    if isinstance(dataset, str):
        name, dataset = dataset, _known(DATASETS, dataset)
        native = DATASETS.part(name).facts["native"]
    with tempfile.TemporaryDirectory(prefix="robustvae-") as place:
        raw, where = Path(place) / "raw", None if mirror is None else str(mirror)
        raw.mkdir()
        library = Library.of(Path(place) / "cache", where)
        dataset.download(raw, Path(root), library)
        found, again = (dataset.read(raw, Path(root)) for _ in range(2))
        members = np.concatenate(list(found.splits.values()))
        _law(len(found.splits["train"]) > 0, "there must be a split train with pictures")
        _law(set(found.splits) <= {"train", "val", "test"}, "splits must be train, val, test")
        _law(len(np.unique(members)) == len(members), "a picture stands in two splits")
        _law(found.labels.dtype == np.int64, f"labels must be int64, got {found.labels.dtype}")
        _law(0 <= members.min() <= members.max() < len(found.labels), "a picture has no label")
        for i in (members[0], members[-1]):
            first, second = (np.asarray(p.reader.image(int(i))) for p in (found, again))
            _law(np.array_equal(first, second), "it reads another picture the second time")
            grey = first.ndim == 2
            if native is not None and native[1] == 1:
                _law(grey, f"native says one channel, pictures have shape {first.shape}")


def check_metric(name: str) -> None:
    """One finite value per image of the quantities that it declares; nothing where it cannot.

    >>> import robustvae as rv
    >>> rv.testing.check_metric("e_den")
    """
    metric, facts = _known(METRICS, name), METRICS.part(name).facts
    x, y = (torch.from_numpy(_blots(5, 1, 12, 12, seed=seed)).float() / 255 for seed in (0, 1))
    q, r = (DiagNormal(*torch.randn(2, 5, DIM, generator=_rng(s))) for s in (0, 1))
    whole = Pair(
        x, y, y, x, q.mu, r.mu, q, r, torch.ones(DIM), neg_elbo=lambda: torch.ones(5),
        correct=lambda: torch.ones(5),
    )  # fmt: skip
    before = copy.deepcopy((x, y))
    found = metric(whole)
    _law(bool(found) and set(found) <= set(facts["quantities"]), f"{name} gives {sorted(found)}")
    for quantity, values in found.items():
        _law(values.shape == (5,), f"{quantity} must be [B], got {list(values.shape)}")
        _law(bool(values.isfinite().all()), f"{quantity} must be finite")
    _law(torch.equal(x, before[0]) and torch.equal(y, before[1]), f"{name} changes the images")
    alone = metric(Pair(x, y, y, x))
    if facts["pixels"]:
        _law(set(alone) == set(found), f"{name} must need images alone: it says pixels=True")
    else:
        _law(not alone, f"{name} must give {{}} where all but images is None, or say pixels=True")


def check_robust(name: str, strength: float = 0.5) -> None:
    """Weights in [0, 1] that follow their images; an easy image is no outlier.

    >>> import robustvae as rv
    >>> rv.testing.check_robust("welsch")
    """
    _known(ROBUST, name)
    robust = params.complete(
        {"loss.robust.name": name, "loss.robust.strength": strength}
    ).loss.robust
    losses = torch.randn(33, generator=_rng(0), dtype=torch.float64)
    losses[4], losses[20] = -1e6, 1e6
    v = weights(robust, losses.clone().requires_grad_())
    _law(v.shape == losses.shape, f"weights must be [B], got {list(v.shape)}")
    _law(not v.requires_grad, "weights must have no gradient")
    _law(bool(((v >= 0) & (v <= 1)).all()), "weights must be in 0 .. 1")
    _law(float(v[4]) == 1, "an easy image must weigh 1")
    _law(float(v[20]) < 0.1, "an outlier must weigh next to nothing")
    order = torch.randperm(33, generator=_rng(1))
    _law(torch.equal(weights(robust, losses[order]), v[order]), "weights depend on the order")


def _law(holds: bool, text: str) -> None:
    if not holds:
        raise AssertionError(text)


def _close(found: Tensor, wanted: Tensor, text: str) -> None:
    _law(torch.allclose(found, wanted, rtol=1e-6, atol=1e-8), text)


def _known(table: Table[T], name: str) -> T:
    if name not in table:
        hint = did_you_mean(name, table)
        raise UserError(f"{table.kind}: unknown {name!r}{hint}; one of {', '.join(table)}")
    return table[name]


def _df(name: str) -> float:
    _known(DIVERGENCES, name)
    return 5.0 if DIVERGENCES.part(name).facts["student_t"] else 0.0


def _of_likelihood(name: str) -> tuple[params.LikelihoodSettings, params.LossSettings]:
    _known(LIKELIHOODS, name)
    df = 5.0 if "df" in LIKELIHOODS.part(name).facts["takes"] else None
    settings = params.complete({"model.likelihood.name": name, "model.likelihood.df": df})
    return settings.model.likelihood, settings.loss


def _rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _blots(*shape: int, seed: int = 0) -> np.ndarray:
    """Smooth grey images, uint8."""
    rough = np.random.default_rng(seed).normal(size=shape)
    smooth = sum(np.roll(rough, (i, j), (-2, -1)) for i in range(3) for j in range(3))
    return np.clip(128 + 60 * smooth, 0, 255).astype(np.uint8)
