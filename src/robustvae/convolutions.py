"""Convolutions that several threads of a CPU can train in bfloat16.

oneDNN's weight gradient in bfloat16 has threads wait for each other at every row of an image,
spinning: with one core busy elsewhere a step takes a hundred times as long. Here each thread has
a share of the batch to itself.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from typing_extensions import override


class Conv2d(nn.Conv2d):
    """As torch's."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        return _convolve(self, x) if _shared(x) else super().forward(x)


class ConvTranspose2d(nn.ConvTranspose2d):
    """As torch's."""

    @override
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return _convolve(self, x) if _shared(x) else super().forward(x, output_size)


def _shared(x: Tensor) -> bool:
    bf16 = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return bf16 and torch.is_grad_enabled() and torch.get_num_threads() > 1


def _convolve(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> Tensor:
    how = (layer.stride, layer.padding, layer.dilation, layer.transposed, layer.output_padding)
    result: Tensor = _Convolution.apply(
        x.bfloat16(), layer.weight, layer.bias, (*how, layer.groups)
    )
    return result


class _Convolution(torch.autograd.Function):
    """In bfloat16; gradients of weight and bias are summed and returned in their own type."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple[Any, ...]
    ) -> Tensor:
        """As torch.convolution."""
        half = weight.bfloat16()
        ctx.save_for_backward(x, half)
        ctx.how, ctx.dtype = how, weight.dtype
        return torch.convolution(x, half, None if bias is None else bias.bfloat16(), *how)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Of x, weight and bias."""
        (x, weight), how = ctx.saved_tensors, ctx.how
        of_x, _, of_bias, _ = ctx.needs_input_grad
        threads = torch.get_num_threads()

        def gradient(of: int, grad: Tensor, x: Tensor) -> Tensor:
            wanted = [i == of for i in range(3)]
            with torch.no_grad():
                found = torch.ops.aten.convolution_backward(grad, x, weight, None, *how, wanted)
            return found[of]  # type: ignore[no-any-return]

        shares = _pool(threads).map(partial(gradient, 1), grad.chunk(threads), x.chunk(threads))
        total = torch.stack(list(shares)).sum(0, dtype=ctx.dtype)
        torch.set_num_threads(threads)  # a fresh worker sets it for all threads to come
        return (
            gradient(0, grad, x) if of_x else None,
            total,
            grad.sum((0, 2, 3), dtype=ctx.dtype) if of_bias else None,
            None,
        )


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "convolutions", _alone)


def _alone() -> None:
    torch.get_num_threads()  # first: a thread's first operation would take over the caller's number
    torch.set_num_threads(1)
