"""Anyone's model as what is measured: whatever gives images back, and what else it can do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustvae.errors import UserError
from robustvae.models.distributions import DiagNormal, wide
from robustvae.robustness.batches import Images, each, on
from robustvae.robustness.subject import POOLED, Seen

SLACK = 1e-4  # how far a value may lie outside [0, 1]
STILL = 1e-6  # of the largest variance among a code's values: below it a value is constant
Function = Callable[[Any], Any]


class Outside:
    """A function that gives images [B, C, H, W] in [0, 1] back; perhaps `encode`, `unlikely`."""

    alone = True
    mirrored: Tensor | None = None

    def __init__(
        self,
        reconstruct: Function,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        encode: Function | None = None,
        unlikely: Function | None = None,
    ) -> None:
        self.reconstruct, self.device, self.dtype = reconstruct, device, dtype
        self.encode, self.unlikely = encode, unlikely
        self.spread: Tensor | None = None

    def see(self, x: Tensor) -> Seen:
        """The reconstruction, and the code where there is one."""
        return Seen(self.back(x), *(self.coded(x) if self.encode else ()))

    def back(self, x: Tensor) -> Tensor:
        """The reconstruction of a batch, or UserError where it is none."""
        found = self._call(self.reconstruct, "the model", x)
        first = found[0] if isinstance(found, tuple | list) and len(found) else found
        x_hat = self._tensor(first, "the model")
        if x_hat.shape != x.shape:
            raise UserError(
                f"the model: gives {list(x_hat.shape)} for images {list(x.shape)}; it must give "
                "the reconstructions, of that shape (or first in a tuple)"
            )
        self._finite(x_hat, "the model", "reconstructions")
        low, high = (float(v) for v in x_hat.aminmax())
        if low < -SLACK or high > 1 + SLACK:
            raise UserError(
                f"the model: reconstructions lie in {low:.4g} .. {high:.4g}; they must lie in "
                "[0, 1], as the images do: end the model in a sigmoid, clamp or rescale what it "
                "gives"
            )
        return x_hat.float()

    def coded(self, x: Tensor) -> tuple[DiagNormal | None, Tensor, Tensor]:
        """Posteriors where log-variances are known, codes [B, Z], what the probe sees [B, F]."""
        assert self.encode is not None
        found = self._call(self.encode, "encode", x)
        mean, logvar = _moments(found)
        mu = self._tensor(mean, "encode")
        if len(mu) != len(x) or mu.ndim < 2:
            raise UserError(
                f"encode: gives {list(mu.shape)} for {len(x)} images; it must give codes "
                "[B, ...], or their means and log-variances"
            )
        self._finite(mu, "encode", "codes")
        pooled = mu
        if mu.ndim == 4 and min(mu.shape[2:]) > POOLED:
            pooled = F.adaptive_avg_pool2d(mu, POOLED)
        code, features = mu.flatten(1).float(), pooled.flatten(1).float()
        if logvar is None:
            return None, code, features
        log = self._tensor(logvar, "encode")
        if log.shape != mu.shape:
            raise UserError(
                f"encode: means {list(mu.shape)} and log-variances {list(log.shape)} differ in "
                "shape; give (mean, log-variance) of the same shape, or the codes alone"
            )
        self._finite(log, "encode", "log-variances")
        return DiagNormal(code, log.flatten(1).float()), code, features

    def score(self, x: Tensor, seen: Seen, where: slice) -> Callable[[], Tensor] | None:
        """What `unlikely` says, [B]."""
        return None if self.unlikely is None else partial(self._scored, x)

    def _scored(self, x: Tensor) -> Tensor:
        assert self.unlikely is not None
        found = self._tensor(self._call(self.unlikely, "the score", x), "the score")
        if found.shape != (len(x),):
            raise UserError(
                f"the score: gives {list(found.shape)} for {len(x)} images; it must give one "
                "number for each, [B]"
            )
        self._finite(found, "the score", "values")
        return found.to(wide(self.device))

    def follow(self, images: Images, size: int) -> Tensor:
        """Learn how codes of clean images vary, for `drift`; what the probe sees of them."""
        parts = each(lambda w: self.coded(on(self.device, images, w))[1:], len(images), size,
                     "codes", alone=True)  # fmt: skip
        codes, features = (torch.cat(list(part)) for part in zip(*parts, strict=True))
        variance = codes.to(wide(self.device)).var(0, unbiased=False)
        self.spread = torch.where(variance > STILL * variance.max(), variance, 0.0)
        return features

    def _call(self, function: Function, what: str, x: Tensor) -> Any:
        """What it gives for a copy of the batch, which it must leave alone."""
        given = x.to(self.dtype, copy=True)
        found = function(given)
        if not torch.equal(given, x.to(self.dtype)):
            raise UserError(
                f"{what}: changes its input in place; the images that it is given are those that "
                "its reconstructions are compared with: work on a copy"
            )
        return found

    def _tensor(self, found: Any, what: str) -> Tensor:
        try:
            return torch.as_tensor(found, device=self.device)
        except (TypeError, ValueError, RuntimeError):
            kind = type(found).__name__
            raise UserError(f"{what}: gives {kind}; it must give a tensor or an array") from None

    def _finite(self, values: Tensor, what: str, of: str) -> None:
        if not values.isfinite().all():
            wrong = int((~values.isfinite()).flatten(1 if values.ndim > 1 else 0).any(-1).sum())
            raise UserError(
                f"{what}: {of} of {wrong} of {len(values)} images are NaN or infinite; "
                "a trained model gives numbers for every image in [0, 1]"
            )


def _moments(found: Any) -> tuple[Any, Any]:
    """Mean and log-variance (or None) from a pair, a law of torch.distributions, or codes."""
    if isinstance(found, tuple | list) and len(found) >= 1:
        return found[0], found[1] if len(found) > 1 else None
    if hasattr(found, "mean") and hasattr(found, "stddev"):
        return found.mean, 2 * found.stddev.log()
    return found, None


@contextmanager
def at_rest(model: object) -> Iterator[None]:
    """Inside, a module evaluates; each of its parts then trains or not as it did before."""
    if not isinstance(model, nn.Module):
        yield
        return
    training = {part: part.training for part in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for part, was in training.items():
            part.training = was
