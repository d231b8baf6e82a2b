"""A number on the page: as many digits as its interval calls for, with a name for people."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

Z95 = 1.96
NAMES = {
    "elbo": "ELBO, beta = 1 / nats", "log_likelihood": "log-likelihood, best bound / nats",
    "bits_per_dim": "bits per dimension", "effective_samples": "effective draws of the bound",
    "bernoulli_cross_entropy": "Bernoulli cross-entropy / nats", "active_units": "active units",
    "latent_dim": "latent dimensions", "kl_sum_of_dims": "KL, sum over dimensions / nats",
    "mutual_information": "mutual information of image and latent, at least / nats",
    "mutual_information_at_most": "the largest such bound that can be measured / nats",
    "aggregate_gap": "KL of aggregate posterior from the prior / nats", "codes": "codes",
    "outside_prior": "latents beyond the band of their Q-Q plot",
    "prior_distance": "largest Kolmogorov-Smirnov distance of a latent from the prior",
    "dead_codes": "unused codes", "perplexity": "perplexity of the codes",
}  # fmt: skip


class Cell(NamedTuple):
    """What a table shows, what it is sorted by, and its 95 % interval: half of it, or both ends."""

    text: str
    value: float | str | None = None
    interval: str = ""
    ends: str = ""


def number(value: float | None, se: float | None = None) -> Cell:
    """Four significant digits, or as many as half a 95 % interval (its first two) calls for."""
    if value is None or not math.isfinite(value):
        return Cell("–")
    if not se or not math.isfinite(se):
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        return Cell(text.replace("-", "−"), value)
    places = max(0, 1 - math.floor(math.log10(Z95 * se)))
    return Cell(f"{value:,.{places}f}".replace("-", "−"), value, f"{Z95 * se:.{places}f}")


def rate(value: float | None, low: float | None, high: float | None) -> Cell:
    """A share with both ends of its interval: near 0 and 1 it is far from symmetric."""
    if value is None or low is None or high is None or not math.isfinite(value + high - low):
        return number(value)
    places = max(2, 1 - math.floor(math.log10(max(high - low, 1e-9))))
    shown = [f"{x:.{places}f}" for x in (value, low, high)]
    return Cell(shown[0], value, ends=f"{shown[1]} … {shown[2]}")


def measured(row: Mapping[Any, Any], name: str) -> Cell:
    """A quantity of a row with its error; a rate with both ends of its interval."""
    if f"{name}_low" in row:
        return rate(*(row[f"{name}{end}"] for end in ("", "_low", "_high")))
    return number(row[name], row.get(f"{name}_se"))


def with_error(found: Mapping[str, float] | None) -> Cell:
    """A value with its standard error."""
    return Cell("–") if found is None else number(found["value"], found["se"])


def se_of(found: Any) -> float | None:
    """The standard error of a value that may have one."""
    return found.get("se") if isinstance(found, Mapping) else None


def name_of(key: str) -> str:
    """A quantity for people."""
    draws, _, scale = key.rpartition("iwae_")[2].removeprefix("alt_prior_").partition("_wide_")
    wide = f", proposal {scale} times as wide as the posterior" if scale else ""
    if key.startswith("iwae_alt_prior_"):
        return f"the same, K = {draws}{wide}, under the law that samples are drawn from / nats"
    if key.startswith("iwae_"):
        return f"importance-weighted bound, K = {draws}{wide} / nats"
    if key.startswith("rise_"):
        return f"its rise with K = {key[5:]}, the first few images / nats"
    return NAMES.get(key, key)
