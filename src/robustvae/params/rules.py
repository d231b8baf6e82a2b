"""Rules of params.yaml that tie sections together."""

import math

from robustvae.params.geometry import geometry
from robustvae.params.model import LossSettings, ModelSettings, flat
from robustvae.params.parts import fact
from robustvae.params.whole import Params

FEWEST = 16  # images of a batch that a robust objective compares


def broken(settings: Params) -> list[str]:
    """One line per broken rule."""
    return [
        *_data_rules(settings),
        *_model_rules(settings),
        *_prior_rules(settings),
        *_logvar_rules(settings),
    ]


def _data_rules(settings: Params) -> list[str]:
    found = []
    if settings.side is None:
        found.append(
            "preprocess.image_size: a folder of images has no size of its own; "
            "give the side in pixels, e.g. 64"
        )
    if settings.corruptions.source == "official" and (
        settings.data.name != "mnist" or settings.side != 28
    ):
        found.append(
            "corruptions.source: official is MNIST-C, which belongs to data.name mnist at 28 "
            f"pixels, got {settings.data.name} at {settings.side}; use generate"
        )
    mixed = settings.train.mixture
    if mixed.fraction and mixed.source == "official" and settings.corruptions.source != "official":
        found.append(
            "train.mixture.source: official needs corruptions.source: official, "
            f"got {settings.corruptions.source}"
        )
    if mixed.fraction and settings.contamination.kind != "none":
        found.append(
            "train.mixture.fraction: contamination.kind replaces training images as well, got "
            f"{settings.contamination.kind}; use one of both"
        )
    if settings.data.limit is not None and mixed.fraction and mixed.source == "official":
        found.append(
            "train.mixture.source: official needs the whole data set; set data.limit to null"
        )
    return found


def _model_rules(settings: Params) -> list[str]:
    found = []
    kind, likelihood, vq = (
        settings.loss.kind,
        settings.model.likelihood,
        settings.model.latent.name == "vq",
    )
    fixed = likelihood.name == "student_t" or (
        likelihood.name == "gaussian" and likelihood.variance == "fixed"
    )
    if kind == "t3" and not (fixed and settings.loss.prior.standard):
        found.append(
            "loss.divergence: t3 needs a Gaussian decoder with fixed sigma (model.likelihood: "
            "student_t, or gaussian with variance fixed) and the standard prior; "
            "for other decoders use gamma"
        )
    found += _decoder_rules(settings)
    if vq and (settings.loss.divergence != "auto" or settings.loss.order != 1 or settings.loss.df):
        found.append(
            "model.latent.name: vq has a codebook in place of a divergence; "
            "leave loss.divergence auto, loss.alpha 1 and loss.df 0"
        )
    if vq and (settings.loss.capacity.weight is not None or not settings.loss.prior.standard):
        found.append(
            "model.latent.name: vq has no prior density; "
            "leave loss.capacity.weight null and loss.prior at 0"
        )
    if settings.side is not None:
        try:
            geometry(settings.model.architecture, settings.side, vq=vq)
        except ValueError as error:
            found.append(f"model.architecture.{error}")
    return found


def _decoder_rules(settings: Params) -> list[str]:
    """What a likelihood needs, and what goes with which robust objective."""
    found, likelihood, robust = [], settings.model.likelihood, settings.loss.robust
    name, t3 = likelihood.name, settings.loss.kind == "t3"
    tails = "df" in fact("likelihood", name, "takes") and not t3
    if tails and likelihood.df is None:
        found.append(
            f"model.likelihood.df: {name} needs its degrees of freedom, got null; give a number "
            "> 0, e.g. 3 (or loss.divergence t3, which brings its own)"
        )
    if not tails and likelihood.df is not None:
        found.append(
            f"model.likelihood.df: belongs to student_t and student_t_pixel, got {likelihood.df:g} "
            f"with {name}{' of t3' if t3 else ''}; use null"
        )
    single = name in ("student_t", "student_t_pixel", "laplace") and not t3
    if single and likelihood.variance == "per_pixel":
        found.append(
            f"model.likelihood.variance: per_pixel is for gaussian, got {name}; use scalar or fixed"
        )
    fixed = name == "bernoulli" or (name == "gaussian" and likelihood.variance == "fixed")
    if robust.name == "beta" and (not fixed or t3 or settings.model.latent.name == "vq"):
        found.append(
            "loss.robust.name: beta is defined for model.likelihood bernoulli, and gaussian with "
            "variance fixed, without t3 and vq; use welsch, huber, rejected or trimmed"
        )
    if robust.weighs and settings.train.batch_size < FEWEST:
        found.append(
            f"train.batch_size: loss.robust.name {robust.name} compares the images of a batch, "
            f"which must be at least {FEWEST}, got {settings.train.batch_size}"
        )
    return found


def _prior_rules(settings: Params) -> list[str]:
    found = []
    for key in ("mu", "logvar"):
        values = flat(getattr(settings.loss.prior, key))
        if len(values) not in (1, settings.model.latent_dim):
            found.append(
                f"loss.prior.{key}: must be one number or model.latent_dim "
                f"({settings.model.latent_dim}) of them, got {len(values)}"
            )
    return found


def _logvar_rules(settings: Params) -> list[str]:
    """Where the range of the log-variance is known, alpha must be finite on all of it."""
    alpha, bound = settings.loss.order, settings.model.logvar_bound
    edge = _edge(settings.loss)
    if edge is None:
        if bound == "auto":
            return ["model.logvar_bound: auto is for loss.alpha outside [0, 1]; use null"]
        return []
    sign, side = (">=", "below") if alpha > 1 else ("<=", "above")
    if isinstance(bound, float | int) and (bound >= edge if alpha > 1 else -bound <= edge):
        return [
            f"loss.alpha: infinite for logvar {sign} {edge:.4g}; bound it {side} that "
            f"(model.logvar_bound: auto), got alpha {alpha:g}, logvar_bound {bound:g}"
        ]
    return []


def cautions(loss: LossSettings, model: ModelSettings) -> list[str]:
    """What is allowed but likely to go wrong."""
    edge = _edge(loss)
    if edge is None or model.logvar_bound is not None:
        return []
    return [
        f"loss.alpha {loss.order:g}: the divergence is infinite once a log-variance is "
        f"{'>=' if loss.order > 1 else '<='} {edge:.4g}, which stops training (but at beta 0); "
        "model.logvar_bound: auto keeps log-variances on the right side"
    ]


def _edge(loss: LossSettings) -> float | None:
    """The log-variance at which the alpha-divergence becomes infinite; None: nowhere."""
    alpha, prior = loss.order, flat(loss.prior.logvar)
    if loss.kind not in ("alpha", "renyi") or 0 <= alpha <= 1:
        return None
    if alpha > 1:
        return min(prior) + math.log(alpha / (alpha - 1))
    return max(prior) + math.log(-alpha / (1 - alpha))
