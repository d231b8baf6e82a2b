"""An autoencoder trained by several processes in step, as one would train it."""

import warnings

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from robustvae.models.autoencoder import Autoencoder, Terms
from robustvae.models.layers import BatchNorm2d
from robustvae.params import LossSettings
from robustvae.runtime import distributed


def parallel(model: Autoencoder) -> "Autoencoder | Parallel":
    """The model, spread over the processes if there are several."""
    return Parallel(model) if distributed.size() > 1 else model


class Parallel(DistributedDataParallel):
    """Each process computes its rows of a batch; all get the terms of all rows, as from the model.

    So each has the loss of the whole batch, whatever function of the terms it is. Backward
    differentiates the sum of these equal losses, and the mean of its parts is the gradient.
    """

    module: Autoencoder

    def __init__(self, model: Autoencoder) -> None:
        for part in model.modules():
            if isinstance(part, BatchNorm2d):
                part.__class__ = Norm
        # Of a weight of one channel, whose layout has two names.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        super().__init__(model, forward_sync_buffers=False)  # they never differ

    @property
    def loss_settings(self) -> LossSettings:
        """The model's."""
        return self.module.loss_settings

    def forward(self, x: Tensor, target: Tensor) -> Terms:
        """As Autoencoder.terms, but for `out`, of which there are this process's rows."""
        with distributed.shared(len(x)) as share:
            if share is None:
                return super().forward(x, target)  # type: ignore[no-any-return, no-untyped-call]
            mine = x[share.rows], target[share.rows]
            terms: Terms = super().forward(*mine)  # type: ignore[no-untyped-call]
            columns = [terms.recon, terms.divergence]
            columns += [] if terms.integral is None else [terms.integral]
            rows = share.whole(torch.stack(columns, 1))
            part = len(terms.recon) / share.total  # what is logged are means over rows
            stats = {name: distributed.summed(part * v) for name, v in terms.stats.items()}
        integral = None if terms.integral is None else rows[:, 2]
        return Terms(rows[:, 0], rows[:, 1], terms.out, stats, integral)


class Norm(BatchNorm2d):
    """Batch norm over the rows of all processes; torch's SyncBatchNorm takes none on CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        share = distributed.share()
        if share is None or not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        var, mean = (t.double() for t in torch.var_mean(wide, (0, 2, 3), correction=0))
        moments = torch.stack([mean, var + mean.square()])
        mean, square = distributed.summed(len(x) / share.total * moments)
        var = square - mean.square()  # float64, for little of them may be left
        count, dtype = share.total * x[0, 0].numel(), self.weight.dtype
        self.follow(mean.to(dtype), var.to(dtype), count)
        scale = self.weight * (var + self.eps).rsqrt()
        shift = self.bias - mean * scale
        scale, shift = (t.to(wide)[:, None, None] for t in (scale, shift))
        return torch.addcmul(shift, wide, scale).to(x.dtype)
