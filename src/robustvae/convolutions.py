"""Convolutions as torch's, but faster on a CPU in two places.

Trained in bfloat16 by several threads: oneDNN's weight gradient has them wait for each other at
every row of an image, spinning, and with one core busy elsewhere a step takes a hundred times as
long. Here each thread has a share of the batch to itself.

Transposed to one map: a product and the sum of what overlaps take a quarter of oneDNN's time.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from typing_extensions import override


class Conv2d(nn.Conv2d):
    """A convolution."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        return _convolve(self, x) if _waits(x) else super().forward(x)


class ConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution."""

    @override
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        own = _waits(x) or (self.out_channels == 1 and _here(x))
        return _convolve(self, x) if own else super().forward(x, output_size)


def _here(x: Tensor) -> bool:
    """On a CPU, and not to be compiled or traced, which must see torch's own operations."""
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return not tracing and x.device.type == "cpu"


def _waits(x: Tensor) -> bool:
    bf16 = _here(x) and torch.is_autocast_enabled("cpu")
    return bf16 and torch.is_grad_enabled() and torch.get_num_threads() > 1


def _convolve(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> Tensor:
    how = (layer.stride, layer.padding, layer.dilation, layer.transposed, layer.output_padding)
    x = x.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else x
    values = (x, layer.weight, layer.bias, (*how, layer.groups))
    return _Convolution.apply(*values)  # type: ignore[no-any-return, no-untyped-call]


class _Convolution(torch.autograd.Function):
    """In the type of x; gradients of weight and bias are summed and returned in their own."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple[Any, ...]
    ) -> Tensor:
        """As torch.convolution."""
        ctx.how, ctx.dtype = how, weight.dtype
        weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        ctx.save_for_backward(x, weight)
        stride, padding, dilation, transposed, more, groups = how
        if not transposed or weight.shape[1] > 1 or groups > 1 or max(dilation) > 1:
            return torch.convolution(x, weight, bias, *how)
        kernel = weight.shape[2:]
        sides = tuple(
            (n - 1) * s - 2 * p + k + m
            for n, s, p, k, m in zip(x.shape[2:], stride, padding, kernel, more, strict=True)
        )
        columns = weight.flatten(1).T @ x.flatten(2)  # [B, k k, h w]
        out = F.fold(columns, sides, kernel, padding=padding, stride=stride)
        return out if bias is None else out + bias

    @staticmethod
    @once_differentiable
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

        side_by_side = map if threads == 1 else _pool(threads).map
        shares = side_by_side(partial(gradient, 1), grad.chunk(threads), x.chunk(threads))
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
