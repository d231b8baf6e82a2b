"""Convolutions in bfloat16, whose weight gradients threads compute for shares of the batch."""

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


LAYERS = {
    "convolution": (convolutions.Conv2d, nn.Conv2d, {"stride": 2, "padding": 1}),
    "transposed": (
        convolutions.ConvTranspose2d,
        nn.ConvTranspose2d,
        {"stride": 2, "padding": 1, "output_padding": 1, "bias": False},
    ),
}


@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("kind", LAYERS)
def test_bfloat16_gradients_are_those_of_single_precision(kind: str, batch: int, threads: int):
    own, usual, how = LAYERS[kind]
    torch.manual_seed(0)
    layer, reference = own(3, 4, 3, **how), usual(3, 4, 3, **how)
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(batch, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    found = {}
    for name, net in {"half": layer, "single": reference}.items():
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=name == "half"):
            out = net(given)
        out.float().square().sum().backward()
        found[name] = [out.float(), given.grad, *(p.grad for p in net.parameters())]
    assert out.dtype == torch.float32
    for half, single in zip(found["half"], found["single"], strict=True):
        assert half.dtype == torch.float32
        assert (half - single).abs().max() < 0.03 * single.abs().max()
    assert torch.get_num_threads() == threads


def test_outside_of_autocast_nothing_differs_from_torch(threads: int):
    torch.manual_seed(0)
    layer = convolutions.Conv2d(2, 3, 3)
    x = torch.randn(4, 2, 5, 5)
    assert torch.equal(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias))
