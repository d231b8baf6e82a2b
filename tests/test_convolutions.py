"""Convolutions: values and gradients of torch, in both precisions, on any number of threads."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from robustvae import convolutions


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


TRANSPOSED = (convolutions.ConvTranspose2d, nn.ConvTranspose2d)
LAYERS: dict[str, tuple[tuple[type[nn.Module], type[nn.Module]], dict[str, int | bool]]] = {
    "convolution": (
        (convolutions.Conv2d, nn.Conv2d),
        {"out_channels": 4, "stride": 2, "padding": 1},
    ),
    "transposed": (
        TRANSPOSED,
        {"out_channels": 4, "stride": 2, "padding": 1, "output_padding": 1, "bias": False},
    ),
    "to one map": (
        TRANSPOSED,
        {"out_channels": 1, "stride": 2, "padding": 1, "output_padding": 1},
    ),
    "to one map, unstrided": (TRANSPOSED, {"out_channels": 1}),
}


@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize(("half", "far"), [(False, 1e-5), (True, 0.03)], ids=["single", "half"])
@pytest.mark.parametrize("kind", LAYERS)
def test_values_and_gradients_are_torchs(
    kind: str, half: bool, far: float, batch: int, threads: int
) -> None:
    (own, usual), how = LAYERS[kind]
    torch.manual_seed(0)
    layer, reference = own(3, kernel_size=3, **how), usual(3, kernel_size=3, **how)
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(batch, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    found = []
    for net, cast in ((layer, half), (reference, False)):
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            out = net(given)
        out.float().square().sum().backward()
        found.append([out.float(), given.grad, *(p.grad for p in net.parameters())])
    for mine, theirs in zip(*found, strict=True):
        assert mine.dtype == torch.float32
        assert mine.shape == theirs.shape
        assert (mine - theirs).abs().max() < far * theirs.abs().max()
    assert torch.get_num_threads() == threads


def test_outside_of_autocast_nothing_differs_from_torch(threads: int):
    torch.manual_seed(0)
    layer = convolutions.Conv2d(2, 3, 3)
    x = torch.randn(4, 2, 5, 5)
    assert torch.equal(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias))
