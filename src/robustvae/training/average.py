"""An average of the weights over the steps of a training."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class Average:
    """Exponentially weighted mean of the weights after each step: of step s among t, d^(t - s).

    The weights at the start have no part in it. Codebooks are the model's own.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.parameters, self.decay = list(model.parameters()), decay
        self.values = [p.detach().clone() for p in self.parameters]
        self.norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]

    def rate(self, step: int) -> float:
        """Share of the weights of optimiser step `step`, counted from 1."""
        return (1 - self.decay) / (1 - self.decay**step)

    @torch.no_grad()
    def update(self, rate: Tensor) -> None:
        """Move towards the weights by that share of the way."""
        way = torch._foreach_sub([p.detach() for p in self.parameters], self.values)
        torch._foreach_mul_(way, rate.to(way[0].dtype))
        torch._foreach_add_(self.values, way)

    @contextmanager
    def applied(self, batches: Iterable[T], see: Callable[[T], object]) -> Iterator[None]:
        """Inside, the model has the averaged weights, and batch norm what it finds with these.

        Its statistics are means over `batches`, each of which `see` shows to the model.
        """
        buffers = [b for norm in self.norms for b in norm.buffers()]
        kept = [b.clone() for b in buffers]
        self._swap()
        try:
            self._follow(batches, see)
            yield
        finally:
            self._swap()
            for buffer, old in zip(buffers, kept, strict=True):
                buffer.copy_(old)

    @torch.no_grad()
    def _follow(self, batches: Iterable[T], see: Callable[[T], object]) -> None:
        momenta = [norm.momentum for norm in self.norms]
        for i, batch in enumerate(batches if self.norms else ()):
            for norm in self.norms:
                norm.train()
                norm.momentum = 1 / (i + 1)
            see(batch)
        for norm, momentum in zip(self.norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()

    def _swap(self) -> None:
        for p, value in zip(self.parameters, self.values, strict=True):
            p.data, value.data = value.data, p.data
