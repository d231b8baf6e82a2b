"""What training minimises, from the terms of a batch."""

from dataclasses import dataclass

from torch import Tensor

from robustvae.params import CapacitySettings


@dataclass(frozen=True)
class Objective:
    r"""What training minimises, from terms [B]: mean distortion + beta * mean divergence.

    With capacity annealing (KL only): mean distortion + weight * abs(mean KL - C(step)).
    """

    beta: float
    capacity: CapacitySettings

    def capacity_at(self, step: int) -> float:
        """C in nats after `step` optimiser steps."""
        c = self.capacity
        return c.start + (c.max - c.start) * min(1.0, step / c.steps)

    @property
    def weight(self) -> float:
        """Of the divergence, or of its distance from C."""
        return self.beta if self.capacity.weight is None else self.capacity.weight

    def __call__(self, recon: Tensor, divergence: Tensor, step: int, warmup: float = 1.0) -> Tensor:
        """Scalar; `warmup` in [0, 1] multiplies the weight of the divergence."""
        return self.weigh(recon, divergence, warmup * self.weight, self.capacity_at(step))

    def weigh(
        self, recon: Tensor, divergence: Tensor, weight: Tensor | float, budget: Tensor | float
    ) -> Tensor:
        """Scalar; `budget`: C. Both may be tensors of any type on the device of the terms."""
        if self.beta == 0:  # the divergence may be infinite here, and 0 * inf is no number
            return recon.mean()
        cost = divergence.mean()
        if self.capacity.weight is not None:
            cost = (cost - (budget.to(cost) if isinstance(budget, Tensor) else budget)).abs()
        return recon.mean() + (weight.to(cost) if isinstance(weight, Tensor) else weight) * cost
