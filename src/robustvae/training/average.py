"""An average of the weights over the steps of a training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of the weights; buffers (batch norm, codebooks) are the model's.

    Step t, from 1, has the decay min(decay, (1 + t) / (10 + t)), which soon forgets the start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.parameters, self.decay = list(model.parameters()), decay
        self.values = [p.detach().clone() for p in self.parameters]

    def rate(self, step: int) -> float:
        """Share of the weights of optimiser step `step`, counted from 1."""
        return 1 - min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, rate: Tensor) -> None:
        """Move towards the weights by that share of the way."""
        way = torch._foreach_sub([p.detach() for p in self.parameters], self.values)
        torch._foreach_mul_(way, rate.to(way[0].dtype))
        torch._foreach_add_(self.values, way)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for p, value in zip(self.parameters, self.values, strict=True):
            p.data, value.data = value.data, p.data
