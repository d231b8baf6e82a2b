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
    "dead_codes": "unused codes", "perplexity": "perplexity of the codes",
}  # fmt: skip


class Cell(NamedTuple):
    """What a table shows, what it is sorted by, and half its 95 % interval."""

    text: str
    value: float | str | None = None
    interval: str = ""


def number(value: float | None, se: float | None = None) -> Cell:
    """Four significant digits, or as many as half a 95 % interval (its first two) calls for."""
    if value is None or not math.isfinite(value):
        return Cell("–")
    if not se or not math.isfinite(se):
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        return Cell(text.replace("-", "−"), value)
    places = max(0, 1 - math.floor(math.log10(Z95 * se)))
    return Cell(f"{value:,.{places}f}".replace("-", "−"), value, f"{Z95 * se:.{places}f}")


def with_error(found: Mapping[str, float] | None) -> Cell:
    """A value with its standard error."""
    return Cell("–") if found is None else number(found["value"], found["se"])


def se_of(found: Any) -> float | None:
    """The standard error of a value that may have one."""
    return found.get("se") if isinstance(found, Mapping) else None


def name_of(key: str) -> str:
    """A quantity for people."""
    if key.startswith("iwae_alt_prior_"):
        return f"the same, K = {key[15:]}, under the law that samples are drawn from / nats"
    if key.startswith("iwae_"):
        return f"importance-weighted bound, K = {key[5:]} / nats"
    return NAMES.get(key, key)
