"""Why a divergence is no number: where, which values, and what to do."""

import torch
from torch import Tensor


class NonFiniteLatentError(ArithmeticError):
    """An encoder output is NaN or infinite at rows[i], dims[i] (0-based)."""

    def __init__(self, name: str, values: Tensor) -> None:
        self.rows, self.dims = _pairs(~values.isfinite())
        row, dim = self.rows[0], self.dims[0]
        super().__init__(
            f"{name} is {values[row, dim].item()} at sample {row}, latent dimension {dim} "
            f"({len(self.rows)} of {values.numel()} entries are not finite); "
            "lower train.lr or set train.grad_clip"
        )


class DivergenceInfiniteError(ArithmeticError):
    """The divergence is +infinity because of the variances at rows[i], dims[i] (0-based)."""

    def __init__(self, alpha: float, vq: Tensor, vp: Tensor, infinite: Tensor) -> None:
        self.rows, self.dims = _pairs(infinite)
        row, dim = self.rows[0], self.dims[0]
        q, p = vq[row, dim].item(), vp[row, dim].item()
        bound = p * alpha / (alpha - 1)
        rule = "alpha > 1 needs vq < vp * alpha/(alpha-1)"
        if alpha < 0:
            rule = "alpha < 0 needs vq > vp * |alpha|/(1+|alpha|)"
        super().__init__(
            f"divergence infinite with alpha {alpha:g}, first at sample {row}, latent dimension "
            f"{dim}: vq {q:.6g}, vp {p:.6g}, V = (1-alpha)*vq + alpha*vp = "
            f"{(1 - alpha) * q + alpha * p:.6g}, but {rule} = {bound:.6g}; violated by "
            f"{len(self.rows)} of {infinite.numel()} (sample, dimension) pairs; take loss.alpha in "
            "[0, 1] or model.logvar_bound: auto (divergence: renyi does not help, same condition)"
        )


class DivergenceOverflowError(ArithmeticError):
    """The divergence of `rows` (0-based) is finite but too large for its floating type."""

    def __init__(self, rows: list[int], size: str, latent_dim: int, dtype: torch.dtype) -> None:
        self.rows = rows
        super().__init__(
            f"divergence of sample {rows[0]} is beyond {dtype} ({len(rows)} such samples, "
            f"{latent_dim} latent dimensions): {size}"
        )


def _pairs(mask: Tensor) -> tuple[list[int], list[int]]:
    rows, dims = mask.nonzero(as_tuple=True)
    return rows.tolist(), dims.tolist()
