"""What a corruption is: a function with the parameters of its five severities."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from robustvae.corruptions.sampling import MNIST_C, SANE, Rules
from robustvae.errors import UserError

SMALLEST = 8  # pixels a side


class Corruption(NamedTuple):
    """(uint8 images, parameter, generator, rules) -> uint8 images; five severities' parameters.

    `default` is the severity of MNIST-C; `monotone`: the squared distance to clean grows with it.
    """

    function: Callable[..., Tensor]
    group: str
    default: int
    parameters: Sequence[Any]
    monotone: bool = True

    def __call__(
        self, images: Tensor, severity: int, rng: Generator, rules: Rules | None = None, **own: Any
    ) -> Tensor:
        """Corrupt `[B, C, H, W]`, uint8 or float in 0..1; same shape and type; severity 0 copies.

        Floats are taken at the nearest of 256 grey levels. `rules`: MNIST_C for grey images, SANE
        for colour unless given. `own`: settings of a plug-in's own.
        """
        if not 0 <= severity <= 5:
            raise ValueError(f"severity must be 0 .. 5, got {severity}")
        if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[2:]) < SMALLEST:
            raise ValueError(
                f"images must be [B, 1|3, H, W] with sides of {SMALLEST} pixels or more, "
                f"got {list(images.shape)}"
            )
        if severity == 0:
            return images.clone()
        rules = rules or (MNIST_C if images.shape[1] == 1 else SANE)
        parameter = self.parameters[severity - 1]
        if images.dtype == torch.uint8:
            return self.function(images, parameter, rng, rules, **own)
        if not images.is_floating_point() or images.amin() < 0 or images.amax() > 1:
            raise ValueError(f"images must be uint8, or float in 0..1, got {images.dtype}")
        levels = (images * 255).round().to(torch.uint8)
        return self.function(levels, parameter, rng, rules, **own).to(images.dtype) / 255


def made(
    function: Callable[..., Tensor],
    group: str,
    severities: Sequence[Any],
    default: int,
    monotone: bool,
) -> Corruption:
    """As it is registered; what takes no rules is called without them."""
    if "rules" in inspect.signature(function).parameters:
        return Corruption(function, group, default, severities, monotone)

    def ruleless(x: Tensor, parameter: Any, rng: Generator, _rules: Rules, **own: Any) -> Tensor:
        y = function(x, parameter, rng, **own)
        if y.dtype != torch.uint8 or y.shape != x.shape:
            raise UserError(
                f"corruption {function.__name__}: must return uint8 {list(x.shape)} as it is "
                f"given, got {y.dtype} {list(y.shape)}"
            )
        return y

    return Corruption(ruleless, group, default, severities, monotone)
